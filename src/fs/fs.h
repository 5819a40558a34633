/* fs.h: the tree of mailfs(7) as a FUSE file system (libfuse 3, low-level API).
 *
 * Handlers answer from the cache or park the request: a parked request has an interrupt hook (EINTR) and is answered by
 * whoever completes it. No handler waits for the network, and no lock is held over a reply or a kernel notification.
 *
 * Inode numbers (node.h): account 8 bits, kind 6, part 12, row id 38. The root is 1. */
#ifndef MF_FS_FS_H
#define MF_FS_FS_H

#include <stdbool.h>
#include <sys/types.h>

#include "control/eventlog.h"
#include "control/verbs.h"
#include "sync/account.h"

struct fs;
struct fs_options {
	const char *mountpoint;
	const char *source;                /* shown by df and findmnt: the account's name or URL, never with a password */
	struct account *const *accounts;
	size_t account_count;
	bool account_is_root;              /* the one account's tree is the root; else accounts are directories of it */
	const struct control *control;     /* for .mailfs/ctl */
	struct eventlog *events;           /* for .mailfs/events */
	struct bus *bus;
	const char *cache_dir;             /* df shows its file system where there is no quota; NULL: the root's */
	bool read_only, allow_other, debug;
	bool nomedia;                      /* show .nomedia */
	uid_t uid; gid_t gid;              /* owner of everything */
	mode_t umask;                      /* 077 by default: directories 0700, files 0600 (0500, 0400 read-only) */
	const char *const *extra;          /* -o options handed to libfuse as they are; NULL-terminated; may be NULL */
	void (*on_ready)(void *context);   /* the kernel has been answered: the mount works */
	void *ready_context;
};
/* Mounts. The reason translates what fusermount3 and the kernel say into what to do. */
enum mf_err fs_mount(const struct fs_options *options, struct fs **ret, struct mf_reason *why);
/* Serves until unmounted (by anyone, also from another mount namespace's point of view: mountinfo is watched) or
 * fs_stop(). Returns MF_OK for a clean end. */
enum mf_err fs_serve(struct fs *fs);
void fs_stop(struct fs *fs);           /* any thread */
/* Returns when the tree shows everything that the cache has: what was published before has reached the kernel. Waits 2
 * seconds at most. Any thread but the kernel's own requests and the bus. */
void fs_settle(struct fs *fs);
void fs_destroy(struct fs *fs);        /* unmounts if still mounted; NULL is fine */

#endif

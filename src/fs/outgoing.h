/* outgoing.h: the files of outbox/ of one account: what waits in its queue (smtp/outbox.h), and what is being written.
 *
 * A file is a draft, whose bytes lie in STATE/outbox-drafts/ under its name, or it is in the queue. Drafts: one that is being
 * written, an empty one, one with a scratch name (never sent), and one that was being written when mailfs ended (it waits for
 * being saved again). When the last who writes closes, what is there is put into the queue, and held until nobody has it open
 * for writing; who opens it for writing, or writes on, has it taken back. Its number stays the same all the while, in later mounts
 * too, and is never another file's.
 *
 * Never lost: the bytes are in one place before they leave the other. The same bytes in both at a start: the queue's count.
 *
 * Threads: any. One lock for everything, held over local files and the queue, never over the network. */
#ifndef MF_FS_OUTGOING_H
#define MF_FS_OUTGOING_H

#include <sys/types.h>
#include <time.h>

#include "smtp/outbox.h"

struct outgoing;

enum mf_err outgoing_open(struct outbox *outbox, const char *state_dir, struct outgoing **ret, struct mf_reason *why);
/* Nobody has a file open. NULL is fine */
void outgoing_close(struct outgoing *o);

/* --- looking */

struct outgoing_info {
	uint64_t number;             /* 1 .. OUTBOX_NUMBER_MAX */
	bool failed;                 /* it is in failed/ */
	bool gone;                   /* it has no name any more, and is still open; or only its text is left */
	bool text;                   /* of a failed one: NAME.error.txt is there */
	uint64_t size;
	struct timespec mtime;
};
enum mf_err outgoing_find(struct outgoing *o, bool failed, const char *name, struct outgoing_info *ret);   /* MF_NOT_FOUND */
enum mf_err outgoing_look(struct outgoing *o, uint64_t number, struct outgoing_info *ret);                 /* MF_STALE */
/* Those behind `after`, in ascending number, and texts whose message is gone; name is valid during the call, no call back; false stops */
typedef bool outgoing_visitor(void *context, const char *name, const struct outgoing_info *info);
void outgoing_visit(struct outgoing *o, bool failed, uint64_t after, outgoing_visitor *visit, void *context);
/* "waiting until T", "queued: why", "retrying at T: why", "maybe sent: why", "failed: why"; of drafts why they are not sent. The
 * caller frees; NULL: gone */
char *outgoing_state(struct outgoing *o, uint64_t number);
enum mf_err outgoing_item(struct outgoing *o, uint64_t number, struct outbox_item *ret);                   /* MF_NOT_FOUND: a draft */
/* Of what its sender is to be told (smtp/dsn.h); of a draft too. MF_STALE; MF_BUSY: it is being sent */
enum mf_err outgoing_notify(struct outgoing *o, uint64_t number, unsigned *ret);
enum mf_err outgoing_set_notify(struct outgoing *o, uint64_t number, unsigned notify);
/* What NAME.error.txt says; it is a file of its own: when the message is forgotten it stays, in this mount, until it is removed.
 * name: without the ending. The caller frees; NULL: none */
char *outgoing_error_text(struct outgoing *o, uint64_t number);
enum mf_err outgoing_find_text(struct outgoing *o, const char *name, struct outgoing_info *ret);
enum mf_err outgoing_remove_text(struct outgoing *o, const char *name);

/* --- bytes. Each open has a close. */

/* Takes it back for writing. *ret_fd: where to read; -1: outgoing_read(). MF_BUSY: it is being sent. MF_DENIED: maybe sent, or failed */
enum mf_err outgoing_open_file(struct outgoing *o, uint64_t number, bool writes, bool truncate, int *ret_fd);
/* A new empty one, open for writing; MF_EXISTS */
enum mf_err outgoing_create(struct outgoing *o, const char *name, uint64_t *ret_number);
/* Who opens it for writing, or truncates it, does so for another machine, or (false) does not: until it is renamed what such a one has
 * closed is a draft. Told before that is answered. */
void outgoing_written_by(struct outgoing *o, uint64_t number, bool export);
/* closing, here and below: false at each open that writes, and guarded by the lock here: that one has closed, and will let go. */
/* Somebody closes; when nobody else writes any more what cannot be sent is told: MF_INVALID, MF_TOO_BIG */
enum mf_err outgoing_flush(struct outgoing *o, uint64_t number, bool *closing);
/* The last one who writes lets go: what was not accepted until now goes into failed/. */
void outgoing_close_file(struct outgoing *o, uint64_t number, bool writes, bool *closing);
/* MF_STALE: it is, or was, in the queue only: what outgoing_open_file() gave has the bytes */
enum mf_err outgoing_read(struct outgoing *o, uint64_t number, uint64_t offset, void *to, size_t size, size_t *ret_len);
/* MF_TOO_BIG: more than the server takes, and what is there is not sent */
enum mf_err outgoing_write(struct outgoing *o, uint64_t number, bool *closing, const void *data, size_t size, uint64_t offset);
/* With nobody who has it open for writing this is a whole change: it is accepted, or told why not */
enum mf_err outgoing_truncate(struct outgoing *o, uint64_t number, uint64_t size);
enum mf_err outgoing_set_date(struct outgoing *o, uint64_t number, const struct timespec *mtime);
enum mf_err outgoing_sync(struct outgoing *o, uint64_t number);

/* --- names */

/* In outbox/ it is not sent any more; in failed/ it is forgotten. MF_BUSY: being sent */
enum mf_err outgoing_remove(struct outgoing *o, bool failed, const char *name);
/* Takes the place of what has that name in outbox/. Onto a real name: it is accepted, or told why not, and stays. From a real
 * name onto a scratch name: it is taken back. From failed/: it is tried again. */
enum mf_err outgoing_rename(struct outgoing *o, bool from_failed, const char *name, const char *newname);

/* The name of the file that an editor keeps this one for, as long as it has it open (.x.eml.swp, .#x.eml, #x.eml#,
 * .~lock.x.eml# and their like): its place and length in lock; false: no such name */
bool outgoing_lock_names(const char *lock, const char **ret, size_t *ret_len);

#endif

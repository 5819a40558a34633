/* internal.h: what the files of fs/ share. Nothing outside this folder includes it.
 *
 * One file per kind of node or idea:
 *   node.c  inode numbers            attr.c  stat(2) of every kind        tree.c     names to nodes: lookup, getattr
 *   dir.c   opendir, readdir         message.c  open, read                control_files.c, nomedia.c
 *   xattr.c user.mail.*              statfs.c                             held.c     .mailfs/pending, .mailfs/rejected
 *   outgoing*.c  files of outbox/    queued.c  the same as nodes
 *   edit.c  bytes being written      write.c  create, write, close        change.c   remove, rename, make directories
 *   park.c  requests that wait       notify.c  the bus to the kernel      probes.c   names that desktops ask for
 *   errno.c status to errno          mount.c, precheck.c, mountinfo.c, serve.c   the session's life
 *
 * Threads: handlers run on libfuse's workers and never wait; parked requests are answered on the account's threads; the
 * kernel is notified from notify.c's threads only. No thread of this process ever touches the mount itself. */
#ifndef MF_FS_INTERNAL_H
#define MF_FS_INTERNAL_H

#include <fuse3/fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "base/cancel.h"
#include "fs/fs.h"
#include "fs/node.h"
#include "fs/park.h"

/* The kernel is told of every change, so it may keep names and attributes for long. A day bounds what a lost
 * notification could do. */
#define FS_TIMEOUT_S 86400.0
#define FS_NEGATIVE_TIMEOUT_S 60.0
#define FS_NAME_MAX 255
/* A date that is set so soon after a file was closed is the message's internal date (rsync, tar): it is not sent before. */
#define FS_DATE_MS 1000

struct fs_account {
	struct account *account;
	struct cache *cache;
	unsigned number;             /* what changes on the bus call it */
	uint32_t epoch;              /* the generation of its nodes */
	atomic_bool sizes_lie;       /* its server was caught: sizes are checked before they are trusted */
	struct outgoing *outgoing;   /* NULL: it cannot send, and has no outbox/ */
	atomic_llong outbox_ns;      /* when that changed last; 0: not in this mount */
};

struct open_message;
struct edit;
struct outgoing;
struct disposal;
struct notifier;

struct fs {
	struct fs_options options;   /* its strings are the fs's own copies */
	struct fs_account *accounts;
	struct account **account_list; /* the same, as status.h wants them */
	size_t account_count;
	struct timespec started;
	struct fuse_session *session;
	bool mounted;                /* fuse_session_mount() succeeded */
	char *real_mountpoint;       /* as mountinfo has it */
	uint64_t mount_id;           /* of mountinfo; 0: not known */

	struct parking *parking;     /* while serving */
	struct notifier *notifier;   /* while serving; written under settle_lock */
	pthread_mutex_t settle_lock; /* held by fs_settle() */
	struct cancel stop;

	pthread_mutex_t open_lock;   /* guards open_messages */
	LIST_HEAD(, open_message) open_messages;
	LIST_HEAD(, edit) edits;     /* under open_lock too */
	atomic_uint edit_count;
	atomic_uint storing;         /* workers that put something into the page cache */
};

/* --- nodes */

uint64_t fs_ino(const struct fs *fs, const struct node *node);
/* false: never was a number of this mount (ESTALE) */
bool fs_node(const struct fs *fs, fuse_ino_t ino, struct node *ret);
static inline struct fs_account *fs_account(struct fs *fs, const struct node *node) { return &fs->accounts[node->account]; }
bool fs_account_by_number(const struct fs *fs, unsigned number, uint8_t *ret_index);
/* The longest that a reader of this account waits without progress: a little more than the account itself does. */
int64_t fs_wait_window(const struct fs_account *account);
static inline struct fs *fs_of(fuse_req_t req) { return fuse_req_userdata(req); }

/* --- attr.c */

void attr_message(const struct fs *fs, uint8_t account, const struct entry *e, struct stat *ret);
void attr_mailbox(const struct fs *fs, uint8_t account, const struct mailbox *m, struct stat *ret);
/* any node, from memory or the index; MF_STALE: gone */
enum mf_err attr_node(struct fs *fs, const struct node *node, struct stat *ret);
void attr_fill(const struct fs *fs, const struct node *node, mode_t type_and_mode, uint64_t size, struct timespec mtime, struct stat *ret);
/* name and attribute timeouts and the generation around .attr, which is set */
void attr_entry(const struct fs *fs, const struct node *node, struct fuse_entry_param *e);
double attr_timeout(const struct node *node);
/* 0 while its bytes are being written, or the server does not have them yet */
double attr_timeout_now(struct fs *fs, const struct node *node);

/* --- tree.c */

enum mf_err tree_find(struct fs *fs, const struct node *dir, const char *name, struct fuse_entry_param *ret);
enum mf_err tree_parent(struct fs *fs, const struct node *node, struct node *ret);
/* a mailbox whose list the index does not have in full, and the server could give */
bool tree_incomplete(struct fs *fs, const struct node *dir);
/* MF_OK; or why nobody knows what is in an account: its mailboxes were never listed */
enum mf_err tree_unlisted(struct fs *fs, const struct node *dir);
void tree_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void tree_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* .cancel and .progress of a wait: its context begins with a struct fs_account * */
bool wait_cancel(void *context, struct want *want);
uint64_t wait_progress(void *context);
/* .start of a wait for a mailbox's list, or for most of it: its context begins with a struct mailbox_wait */
struct mailbox_wait { struct fs_account *account; uint64_t mailbox; };
bool most_wait_start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret);
bool mailbox_wait_start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret);
/* what a wait came to lets what is known be shown: it is there, or the server is not */
static inline bool mailbox_wait_shows(enum mf_err result) { return result == MF_OK || result == MF_OFFLINE || result == MF_AUTH; }

/* --- dir.c, message.c, control_files.c, nomedia.c, xattr.c, statfs.c */

void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void dir_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);

void message_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void message_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi);
void message_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
/* Replies to a create of this one, which is in the index; message_is_written: the handle was opened for writing */
void message_create(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
bool message_is_open(struct fs *fs, const struct node *node);
bool message_is_open_for_writing(struct fs *fs, const struct node *node);
/* Its name has been removed here (unlink(2), rename(2)), and not by another client: for who has it open then */
void message_unlink(struct fs *fs, const struct node *node);
bool message_is_unlinked(struct fs *fs, const struct node *node);
bool message_is_written(const struct fuse_file_info *fi);
void message_forget(struct fs *fs, struct open_message *m); /* as if it had been closed */
/* A size turned out wrong. true: somebody has it open who trusted it; the kernel is told when they read or close it, since
 * between a reader's question for the size and its answer a notification makes the kernel ignore that answer. */
bool message_corrects_size(struct fs *fs, uint8_t account, uint64_t id);
/* the attributes of a message that is gone from the index but still open; false: nobody has it open */
bool message_attr_of_open(struct fs *fs, const struct node *node, struct stat *ret);
/* a message left the index: whoever has it open keeps its bytes */
void message_removed(struct fs *fs, uint8_t account, uint64_t id);
/* What is open is no message any more: that has another row from now on, whose bytes are the first ones of the file without a name */
enum mf_err message_parted(struct fs *fs, const struct node *node, uint64_t other, uint64_t size);
/* A reference to the bytes that somebody who has it open keeps; false: nobody does */
bool message_kept_body(struct fs *fs, const struct node *node, struct body **ret);
/* it has other bytes now, for those too who have read the old ones */
void message_rewritten(struct fs *fs, const struct node *node);

#define CONTROL_NAME ".mailfs"
enum control_file { CONTROL_STATUS = 1, CONTROL_STATUS_JSON, CONTROL_CTL, CONTROL_EVENTS, CONTROL_LOG, CONTROL_NEW, CONTROL_FILE_END };
#define CONTROL_OF_MOUNT 1 /* the id of a control node: of the whole mount, beside 0, of its account */
const char *control_file_name(unsigned part);  /* NULL: none */
unsigned control_file_by_name(const char *name); /* 0: none */
void control_file_attr(struct fs *fs, const struct node *node, struct stat *ret);
void control_file_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void control_file_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi);
void control_file_write(fuse_req_t req, const struct node *node, const char *data, size_t size, struct fuse_file_info *fi);
void control_file_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);

#define NOMEDIA_NAME ".nomedia"
bool nomedia_shown(const struct fs *fs, const struct node *dir);
void nomedia_attr(const struct fs *fs, struct stat *ret);
void nomedia_open(fuse_req_t req, struct fuse_file_info *fi);

void xattr_get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void xattr_list(fuse_req_t req, fuse_ino_t ino, size_t size);
void xattr_set(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void xattr_remove(fuse_req_t req, fuse_ino_t ino, const char *name);

void statfs_statfs(fuse_req_t req, fuse_ino_t ino);

extern const struct fuse_lowlevel_ops fs_operations; /* operations.c */

/* --- write.c, change.c: what changes the tree (edit.h holds bytes that are being written) */

bool fs_refuses(fuse_req_t req);    /* replies EROFS and says true where the mount is read-only */
/* Commits, and tells the account; or rolls back (t may be NULL) and gives err back */
enum mf_err fs_finish_change(struct fs_account *account, struct txn *t, enum mf_err err);
/* What becomes of a message in this mailbox that is removed or overwritten. May make the Trash. */
enum mf_err fs_disposal(struct fs_account *account, struct txn *t, uint64_t mailbox, bool overwritten, struct disposal *ret);
/* Whether its bytes may be changed: MF_DENIED without the rights to store another one and to remove it, MF_UNSUPPORTED by POP3 */
enum mf_err fs_may_write(struct fs *fs, const struct node *message);
/* Whether the server stores a message of that size there, as far as it has told: else MF_TOO_BIG or MF_QUOTA */
enum mf_err fs_takes(struct fs_account *account, uint64_t mailbox, uint64_t size);
void message_write(fuse_req_t req, const struct node *node, const char *data, size_t size, off_t off, const struct fuse_file_info *fi);
void write_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void write_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void write_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void write_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void write_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void write_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void write_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi);
void write_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                struct fuse_file_info *fi_out, size_t len, int flags);
void change_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void change_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags);
void change_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void change_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void change_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void change_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);

/* --- held.c: .mailfs/pending and .mailfs/rejected */

enum held_list { HELD_PENDING = 1, HELD_REJECTED }; /* part of the node of the directory, and of what is in it */
const char *held_name(unsigned part);               /* NULL: none */
unsigned held_by_name(const char *name);            /* 0: none */
enum mf_err held_find(struct fs *fs, const struct node *dir, const char *name, struct node *ret);
enum mf_err held_attr(struct fs *fs, const struct node *node, struct stat *ret);   /* of a directory or of a file in it */
/* Those behind `after`, in ascending id; false stops */
typedef bool held_visitor(void *context, const char *name, const struct node *node);
enum mf_err held_visit(struct fs *fs, const struct node *dir, uint64_t after, held_visitor *visit, void *context);
void held_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void held_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi);
void held_release(fuse_req_t req, struct fuse_file_info *fi);
void held_unlink(fuse_req_t req, const struct node *dir, const char *name);

/* --- queued.c: outbox/ and outbox/failed/. Nothing of it is kept by the kernel */

#define OUTBOX_NAME "outbox"
#define FAILED_NAME "failed"
enum mf_err queued_open_accounts(struct fs *fs, struct mf_reason *why);
void queued_close_accounts(struct fs *fs);
enum mf_err queued_find(struct fs *fs, const struct node *dir, const char *name, struct node *ret);
enum mf_err queued_attr(struct fs *fs, const struct node *node, struct stat *ret);   /* of a directory or of a file in it */
/* Those behind `after`, with their attributes; the offset is what `after` will be */
typedef bool queued_visitor(void *context, const char *name, const struct node *node, const struct stat *attr, uint64_t offset);
void queued_visit(struct fs *fs, const struct node *dir, uint64_t after, queued_visitor *visit, void *context);
bool queued_value(struct fs *fs, const struct node *node, const char *name, struct buf *to);  /* of user.mail.*; false: none */
#define QUEUED_NOTIFY "notify"   /* the one that can be set; MF_INVALID: other words than those of smtp/dsn.h; MF_BUSY: being sent */
enum mf_err queued_set_notify(struct fs *fs, const struct node *node, const char *value, size_t size);
void queued_create(fuse_req_t req, const struct node *dir, const char *name, struct fuse_file_info *fi);
void queued_mknod(fuse_req_t req, const struct node *dir, const char *name);
void queued_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void queued_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi);
void queued_write(fuse_req_t req, const struct node *node, const char *data, size_t size, off_t off, struct fuse_file_info *fi);
void queued_flush(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void queued_fsync(fuse_req_t req, const struct node *node);
void queued_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi);
void queued_setattr(fuse_req_t req, const struct node *node, const struct stat *attr, int to_set); /* modes and owners were looked at */
void queued_unlink(fuse_req_t req, const struct node *dir, const char *name);
void queued_rename(fuse_req_t req, const struct node *from, const char *name, const struct node *to, const char *newname);
bool queued_is_failed(struct fs *fs, const struct node *node);
void queued_changed(struct fs *fs, uint8_t account);   /* what is in it */

/* --- notify.c */

struct notifier *notifier_start(struct fs *fs);
/* Ends its threads while the session still serves: one that waits for a directory's lock needs that. What is put in later
 * goes nowhere. Twice is fine. One thread at a time */
void notifier_stop(struct notifier *n);
void notifier_destroy(struct notifier *n); /* after the session's loop; NULL is fine */
/* Returns when the kernel has been told all that was published before, or after 2 seconds */
void notifier_settle(struct notifier *n);
/* the kernel forgets the attributes of this node; and its pages too */
void notifier_attr(struct notifier *n, uint64_t ino);
void notifier_data(struct notifier *n, uint64_t ino);

/* --- probes.c */

/* a name that desktops and tools look for everywhere: its absence may be remembered */
bool probe_name(const char *name);

/* --- errno.c */

int fs_errno(enum mf_err e); /* the one table of mailfs(7), Errors */
static inline void fs_reply(fuse_req_t req, enum mf_err e) { fuse_reply_err(req, fs_errno(e)); }

/* --- precheck.c */

/* What would make the mount fail, said so that a person can mend it. */
enum mf_err precheck_mount(const struct fs_options *options, char **ret_real_mountpoint, struct mf_reason *why);
bool precheck_fuse_conf_allows_other(const char *path);

#endif

/* edit.h: a message or file that is being written: its bytes until it is closed.
 *
 * One for each message however many have it open; it begins with the first write or truncation, and holds all bytes that the
 * file has. When somebody who writes closes, what is there is accepted (becomes the message, and is journalled) if it is
 * one; when the last of them closes the edit ends, and what could not be accepted is put aside (cache/spool.h).
 *
 * Threads: any. An edit is reference counted; its lock is held over local files and the index, never over the network. */
#ifndef MF_FS_EDIT_H
#define MF_FS_EDIT_H

#include "fs/internal.h"

struct edit;

/* NULL: nobody writes it. Else a reference. */
struct edit *edit_find(struct fs *fs, const struct node *node);
/* The one that is there, or a new one that begins with the bytes of base (NULL: none). */
enum mf_err edit_begin(struct fs *fs, const struct node *node, struct body *base, struct edit **ret);
void edit_unref(struct edit *e);       /* NULL is fine */
/* A file that was made to be written, and has nothing: it goes. What is a message, or has bytes, stays. */
void edit_unmake(struct fs *fs, const struct node *node);

/* MF_CANCELLED: it has ended since it was found, and nothing was written */
enum mf_err edit_write(struct edit *e, const char *data, size_t size, uint64_t offset);
enum mf_err edit_append(struct edit *e, const char *data, size_t size, uint64_t *ret_offset);   /* at its end, and says where that was */
enum mf_err edit_truncate(struct edit *e, uint64_t size);
void edit_read(struct edit *e, fuse_req_t req, uint64_t offset, size_t size);   /* replies */
/* what stat(2) says while it is written */
void edit_attr(struct edit *e, struct stat *ret);
void edit_set_date(struct edit *e, int64_t seconds);
/* It is to be a copy of that message, if nothing else is written. false: something has been */
bool edit_copies(struct edit *e, uint64_t from, uint64_t size);
/* Not a copy any more: the bytes of the original, which are in body, are its own from now on */
enum mf_err edit_materialise(struct edit *e, struct body *body);
uint64_t edit_copy_from(struct edit *e);
/* What is to be a copy of this one copies the other row, which has its bytes */
void edits_parted(struct fs *fs, const struct node *node, uint64_t other);

/* Between these two nothing is accepted, written or ended. true: it has bytes that were not accepted yet, and will be under
 * the name that it has then. NULL is fine: false */
bool edit_pause(struct edit *e);
void edit_resume(struct edit *e);
/* Its name has been removed here: what is written into it is nobody's. NULL is fine */
void edit_unlink(struct edit *e);

/* Somebody closes. MF_INVALID: not a message. MF_STALE: gone, and not by edit_unlink() */
enum mf_err edit_accept(struct fs *fs, struct edit *e);
/* Somebody has closed: it ends unless others have it open for writing. */
void edit_end(struct fs *fs, struct edit *e);
enum mf_err edit_sync(struct fs *fs, struct edit *e);
/* At the end of the mount: what is open is ended as if it had been closed. */
void edits_end_all(struct fs *fs);

/* Of a file in the spool that gets a real name or another date: the summary of its bytes. as_size: how long the message is
 * that is made of them; 0: as they are. MF_INVALID: it is not a message; MF_NOT_FOUND: it has no bytes here */
enum mf_err spooled_summary(struct cache *cache, uint64_t message, uint64_t as_size, struct mail_summary *ret);

#endif

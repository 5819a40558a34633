/* spool.h: bytes that exist nowhere else: what was written here and the server does not have yet, and what the server is not
 * to have any more (OP_KEEP).
 *
 * STATE/spool/ID is the content of message row ID, with a trailer that says what it is, so that it survives the loss of the
 * index; STATE/spool/ID.edit is being written; ID.new, ID.keep and ID.old belong to a call or a transaction under way. What cannot be
 * sent lies in STATE/rejected/ under the name it was given, with NAME.reason.txt beside it. Nothing in either is ever removed
 * but by an answer of the server or by a person. */
#ifndef MF_CACHE_SPOOL_H
#define MF_CACHE_SPOOL_H

#include "cache/cache.h"

/* A file to write into, empty. There is at most one for a message: MF_EXISTS. The caller closes *ret. */
enum mf_err spool_edit(struct cache *c, uint64_t message, int *ret);
/* size bytes of fd are to be the message. mail: a bare LF becomes CRLF, as every server would have it (RFC 9051 2.2), and
 * *ret_size says what that makes; MF_INVALID where it has a NUL. The note is for finding it again without an index.
 * txn_written() puts it in place. */
struct spool_note { const char *mailbox, *name; int64_t internal_date; };
enum mf_err spool_prepare(struct cache *c, uint64_t message, int fd, uint64_t size, bool mail, const struct spool_note *note, uint64_t *ret_size);
/* What was prepared is on the disk. asked: by who wrote it (fsync(2)), which is noted for what is made of it */
enum mf_err spool_flush(struct cache *c, uint64_t message, bool asked);
bool spool_was_asked(struct cache *c, uint64_t message);
void spool_discard_prepared(struct cache *c, uint64_t message);
void spool_discard_edit(struct cache *c, uint64_t message);
/* The bytes, for reading; *ret_size without the trailer. MF_NOT_FOUND */
enum mf_err spool_open(struct cache *c, uint64_t message, int *ret_fd, uint64_t *ret_size);
bool spool_has(struct cache *c, uint64_t message);
bool spool_ends_line(struct cache *c, uint64_t message);             /* its last byte is a line feed; false: or cannot be read */
enum mf_err spool_sync(struct cache *c, uint64_t message);          /* on the disk, with its name */
enum mf_err spool_sync_edit(struct cache *c, int fd);               /* the same of a file that is written into */
enum mf_err spool_sync_names(struct cache *c);                       /* of all, without their bytes */
/* Many, for little more than one. results: for each what spool_sync() would return; the first of those that is not
 * MF_NOT_FOUND or MF_CORRUPT, which are about one file, is returned. */
enum mf_err spool_sync_all(struct cache *c, const uint64_t *messages, size_t count, enum mf_err *results);
/* The server has it: the file becomes the message's body in the cache. */
void spool_to_body(struct cache *c, uint64_t message);
/* What was prepared is in place. */
enum mf_err spool_commit(struct cache *c, uint64_t message);
void spool_remove(struct cache *c, uint64_t message);

/* Bytes of an edit, which moves there, or of a spooled message, that are not to be sent: kept for a person. */
enum mf_err spool_reject(struct cache *c, uint64_t message, bool edit, const char *name, const char *reason);
int rejected_dir(struct cache *c);                                   /* a descriptor of the folder, for reading and unlinking in it */
uint64_t rejected_count(struct cache *c);

#endif

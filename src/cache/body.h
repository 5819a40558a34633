/* body.h: messages' bytes on the local disk.
 *
 * A whole body is a file bodies/EPOCH/XX/ID that describes itself: the message's bytes, then a trailer (magic, length,
 * checksum). It is there or it is not; no database row says so, so the folder may vanish at any time. Files are renamed
 * into place when complete, never fsynced: those written before an unclean end of the machine (another boot id) are
 * checked against their checksum when first opened.
 * A body under way is a sparse unnamed file with the ranges it holds in memory.
 *
 * struct body is reference counted and thread-safe; every open file holds one, so an expunged message stays readable. */
#ifndef MF_CACHE_BODY_H
#define MF_CACHE_BODY_H

#include "cache/cache.h"

struct body;

/* The body that is whole on disk or being filled. MF_NOT_FOUND: neither. MF_NO_FILES: so many are open that the descriptors which are
 * left are needed for everything else. Counts as a use for eviction. */
enum mf_err cache_body_get(struct cache *c, uint64_t message, struct body **ret);
/* The same, or an empty one to fill; size is what it is expected to have. */
enum mf_err cache_body_create(struct cache *c, uint64_t message, uint64_t size, struct body **ret);
bool cache_body_is_cached(struct cache *c, uint64_t message);     /* whole on disk; no side effect */
struct body *cache_body_find(struct cache *c, uint64_t message);  /* one that somebody holds; NULL: nobody does. Looks for no file */
struct body *body_ref(struct body *b);
void body_unref(struct body *b);                                  /* NULL is fine */

uint64_t body_message(const struct body *b);
uint64_t body_size(const struct body *b);       /* exact once whole, else what is expected */
bool body_is_whole(const struct body *b);
bool body_is_current(const struct body *b);     /* false: its message was overwritten since, or is gone: what the server has of it now is of another version */
bool body_take_fresh(struct body *b);           /* it has come since it was made, and nobody has asked so yet */
/* Whether these bytes can be read now. A range that goes over the end of a whole body is cut there. */
bool body_has(const struct body *b, uint64_t offset, uint64_t length);
/* The first part of [begin, end) that is not there yet. false: all of it is. */
bool body_first_gap(const struct body *b, uint64_t begin, uint64_t end, uint64_t *ret_begin, uint64_t *ret_end);
int body_fd(const struct body *b);              /* for pread(2) or splice(2) of ranges that body_has() says are there */

enum mf_err body_write(struct body *b, uint64_t offset, const void *data, size_t len);
/* All bytes up to length have been written: verify that none is missing, add the trailer, give it its name. From here on
 * it is whole, with this size. MF_PROTOCOL: there is a hole. */
enum mf_err body_finish(struct body *b, uint64_t length);
/* A download failed: forget the ranges, so that no half-true body stays. Readers that have it keep what they have. */
void body_abandon(struct body *b);

/* Reads a whole body through and compares its length and checksum. MF_NOT_FOUND: none is on disk. MF_CORRUPT: it was
 * damaged, and has been dropped. */
enum mf_err cache_body_verify(struct cache *c, uint64_t message, uint64_t *ret_size);
void cache_body_drop(struct cache *c, uint64_t message);
/* Keeps below body_limit and above body_min_free: drops least recently used bodies first, never those for which keep()
 * says true. Cheap when there is nothing to do. */
typedef bool body_keeper(void *context, uint64_t message);
void cache_body_evict(struct cache *c, body_keeper *keep, void *context);
/* Other limits, from the next time on that room is made. */
void cache_body_limits(struct cache *c, uint64_t limit, uint64_t min_free);

#endif

/* buf.h: a growable run of bytes that knows its maximum from birth.
 * Always NUL-terminated behind .len (the NUL is not counted). Not thread-safe. */
#ifndef MF_BASE_BUF_H
#define MF_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct buf {
	char *data;      /* never NULL: points to "" when empty */
	size_t len;
	size_t capacity; /* 0: data is not owned */
	size_t max;
};

void buf_init(struct buf *b, size_t max);
void buf_finish(struct buf *b);           /* a zeroed or finished one is fine */
void buf_reset(struct buf *b);            /* len = 0, keeps the memory */
/* each of these: MF_OK, or MF_TOO_BIG with the buffer unchanged */
enum mf_err buf_add(struct buf *b, const void *data, size_t len);
enum mf_err buf_adds(struct buf *b, const char *s);
enum mf_err buf_addf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum mf_err buf_add_number(struct buf *b, uint64_t n);  /* in decimal digits: where buf_addf() would take most of the time */
void buf_drop(struct buf *b, size_t n);   /* the first n bytes */
char *buf_detach(struct buf *b);          /* the caller frees; b is empty and usable */

#endif

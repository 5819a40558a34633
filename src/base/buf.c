#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static char empty[1]; /* what an empty buffer points to; never written */

void buf_init(struct buf *b, size_t max)
{
	*b = (struct buf){ .data = empty, .max = max };
}

void buf_finish(struct buf *b)
{
	if (b->capacity)
		free(b->data);
	*b = (struct buf){ .data = empty };
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->capacity)
		b->data[0] = 0;
}

/* room for len more bytes and the terminator */
static enum mf_err grow(struct buf *b, size_t len)
{
	if (len > b->max || b->len > b->max - len)
		return MF_TOO_BIG;
	size_t need = b->len + len + 1;
	if (need <= b->capacity)
		return MF_OK;
	size_t capacity = b->capacity ? b->capacity : 64;
	while (capacity < need)
		capacity += capacity / 2 + 64;
	if (capacity > b->max + 1)
		capacity = b->max + 1;
	b->data = mf_realloc_array(b->capacity ? b->data : NULL, capacity, 1);
	b->capacity = capacity;
	return MF_OK;
}

enum mf_err buf_add(struct buf *b, const void *data, size_t len)
{
	if (!len)
		return MF_OK;
	enum mf_err e = len < b->capacity - b->len ? MF_OK : grow(b, len);
	if (e)
		return e;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = 0;
	return MF_OK;
}

enum mf_err buf_adds(struct buf *b, const char *s)
{
	return buf_add(b, s, strlen(s));
}

enum mf_err buf_addf(struct buf *b, const char *format, ...)
{
	va_list arguments, again;
	size_t room = b->capacity - b->len;
	va_start(arguments, format);
	va_copy(again, arguments);
	int len = vsnprintf(room ? b->data + b->len : NULL, room, format, arguments);
	va_end(arguments);
	enum mf_err e = len < 0 ? MF_INVALID : grow(b, (size_t)len);
	if (!e && (size_t)len >= room) /* it did not fit */
		vsnprintf(b->data + b->len, (size_t)len + 1, format, again);
	va_end(again);
	if (!e)
		b->len += (size_t)len;
	else if (room)
		b->data[b->len] = 0;
	return e;
}

enum mf_err buf_add_number(struct buf *b, uint64_t n)
{
	char digits[20], *first = digits + sizeof digits;
	do
		*--first = (char)('0' + n % 10);
	while (n /= 10);
	return buf_add(b, first, (size_t)(digits + sizeof digits - first));
}

void buf_drop(struct buf *b, size_t n)
{
	if (!n)
		return;
	b->len -= n;
	memmove(b->data, b->data + n, b->len);
	b->data[b->len] = 0;
}

char *buf_detach(struct buf *b)
{
	char *data = b->capacity ? b->data : mf_strdup("");
	buf_init(b, b->max);
	return data;
}

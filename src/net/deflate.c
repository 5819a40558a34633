#include <string.h>
#include <zlib.h>

#include "base/mem.h"
#include "net/layers.h"

#define PACKED_CAPACITY 32768
#define RAW_WINDOW (-15) /* RFC 4978: no zlib header */

struct deflate {
	z_stream in, out;
	bool has_output;              /* something went into .out since the last flush */
	unsigned char *early;         /* what was received before the layer was there; freed once eaten */
	unsigned char packed[PACKED_CAPACITY];
};

enum mf_err deflate_start(struct transport *t)
{
	struct deflate *d = MF_NEW(struct deflate);
	if (inflateInit2(&d->in, RAW_WINDOW) != Z_OK) {
		free(d);
		return transport_fail(t, MF_IO, "zlib cannot be used");
	}
	if (deflateInit2(&d->out, Z_DEFAULT_COMPRESSION, Z_DEFLATED, RAW_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
		inflateEnd(&d->in);
		free(d);
		return transport_fail(t, MF_IO, "zlib cannot be used");
	}
	t->deflate = d;
	return MF_OK;
}

void deflate_destroy(struct deflate *d)
{
	if (!d)
		return;
	inflateEnd(&d->in);
	deflateEnd(&d->out);
	free(d->early);
	free(d);
}

enum mf_err deflate_feed(struct transport *t, const void *data, size_t len)
{
	struct deflate *d = t->deflate;
	if (!len)
		return MF_OK;
	unsigned char *joined = mf_alloc(d->in.avail_in + len);
	if (d->in.avail_in)
		memcpy(joined, d->in.next_in, d->in.avail_in);
	memcpy(joined + d->in.avail_in, data, len);
	free(d->early);
	d->early = joined;
	d->in.next_in = joined;
	d->in.avail_in += (uInt)len;
	return MF_OK;
}

static enum io refill(struct transport *t)
{
	struct deflate *d = t->deflate;
	size_t n = 0;
	if (transport_check(t)) /* what comes may unpack to nothing, without end */
		return IO_DEAD;
	enum io io = transport_recv_below(t, d->packed, sizeof d->packed, &n);
	if (io != IO_OK)
		return io;
	free(d->early);
	d->early = NULL;
	d->in.next_in = d->packed;
	d->in.avail_in = (uInt)n;
	return IO_OK;
}

enum io deflate_recv(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	struct deflate *d = t->deflate;
	uInt room = size > UINT32_MAX ? UINT32_MAX : (uInt)size;
	for (;;) {
		d->in.next_out = data;
		d->in.avail_out = room;
		int result = inflate(&d->in, Z_SYNC_FLUSH);
		*ret_len = room - d->in.avail_out;
		if (*ret_len)
			return IO_OK;
		if (result == Z_STREAM_END) {
			transport_fail(t, MF_PROTOCOL, "the server ended the compressed stream");
			return IO_DEAD;
		}
		if (result != Z_OK && result != Z_BUF_ERROR) {
			transport_fail(t, MF_PROTOCOL, "what the server sends is not compressed as agreed");
			return IO_DEAD;
		}
		if (d->in.avail_in)
			continue;
		enum io io = refill(t);
		if (io != IO_OK)
			return io;
	}
}

/* one call of deflate(3) into the free end of t->out */
static void squeeze(struct transport *t, int flush)
{
	z_stream *z = &t->deflate->out;
	size_t end = t->out_start + t->out_len;
	z->next_out = (unsigned char *)t->out + end;
	z->avail_out = (uInt)(OUT_CAPACITY - end);
	(void)deflate(z, flush); /* fails only for want of room, which the caller sees */
	t->out_len = OUT_CAPACITY - z->avail_out - t->out_start;
}

size_t deflate_fill(struct transport *t, const void *data, size_t len)
{
	z_stream *z = &t->deflate->out;
	uInt chunk = len > UINT32_MAX ? UINT32_MAX : (uInt)len;
	/* zlib does not write through it, but its header says it might */
	memcpy(&z->next_in, &data, sizeof data);
	z->avail_in = chunk;
	squeeze(t, Z_NO_FLUSH);
	t->deflate->has_output = true;
	return chunk - z->avail_in;
}

bool deflate_finish(struct transport *t)
{
	z_stream *z = &t->deflate->out;
	if (!t->deflate->has_output)
		return true;
	if (t->out_start + t->out_len == OUT_CAPACITY)
		return false;
	z->avail_in = 0;
	squeeze(t, Z_SYNC_FLUSH);
	if (!z->avail_out)
		return false;
	t->deflate->has_output = false;
	return true;
}

bool deflate_has_output(const struct deflate *d)
{
	return d->has_output;
}

/* stream.c: what libetpan sees of a transport. Its streams take a failure for -1 and nothing else: told 0 at the end of a
 * connection it would read on for ever. */
#include <stdlib.h>

#include "net/layers.h"

#define STREAM_BUFFER 16384 /* libetpan moves the rest of it at every line */

static ssize_t low_read(mailstream_low *low, void *data, size_t size)
{
	size_t n = 0;
	return transport_read(low->data, data, size, &n) ? -1 : (ssize_t)n;
}

/* libetpan gathers what it writes in a buffer of its own, and has no other way to say "now" */
static ssize_t low_write(mailstream_low *low, const void *data, size_t len)
{
	enum mf_err e = transport_write(low->data, data, len);
	if (!e)
		e = transport_flush(low->data);
	return e ? -1 : (ssize_t)len;
}

static int low_close(mailstream_low *low)
{
	(void)low;
	return 0;
}

static int low_get_fd(mailstream_low *low)
{
	const struct transport *t = low->data;
	return t->fd;
}

/* may come from libetpan freeing a session, before the transport is destroyed */
static void low_free(mailstream_low *low)
{
	struct transport *t = low->data;
	t->stream = NULL;
	free(low);
}

static void low_cancel(mailstream_low *low)
{
	const struct transport *t = low->data;
	cancel_raise(t->options.cancel);
}

static struct mailstream_cancel *low_get_cancel(mailstream_low *low)
{
	(void)low;
	return NULL;
}

static carray *low_get_certificate_chain(mailstream_low *low)
{
	(void)low;
	return NULL;
}

static mailstream_low_driver driver = {
	.mailstream_read = low_read,
	.mailstream_write = low_write,
	.mailstream_close = low_close,
	.mailstream_get_fd = low_get_fd,
	.mailstream_free = low_free,
	.mailstream_cancel = low_cancel,
	.mailstream_get_cancel = low_get_cancel,
	.mailstream_get_certificate_chain = low_get_certificate_chain,
};

mailstream *transport_mailstream(struct transport *t)
{
	if (t->stream)
		return t->stream;
	mailstream_low *low = mailstream_low_new(t, &driver);
	if (!low)
		abort(); /* no memory; as base/mem.h has it */
	t->stream = mailstream_new(low, STREAM_BUFFER);
	if (!t->stream)
		abort();
	return t->stream;
}

void stream_destroy(struct transport *t)
{
	if (t->stream)
		mailstream_close(t->stream);
}

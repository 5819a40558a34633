#include "net/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/layers.h"
#include "net/tls_context.h"

#define IN_CHUNK 16384
#define IN_MAX (4U << 20) /* what may arrive while we want to send */
#define IN_KEEP 65536     /* a larger buffer is given back once empty */

enum mf_err transport_fail(struct transport *t, enum mf_err e, const char *format, ...)
{
	if (t->error)
		return t->error;
	char text[sizeof t->reason.text];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	t->error = e;
	mf_fail(&t->reason, e, "%s:%u: %s", t->host, t->options.port, text);
	trace(TRACE_NET, "%s (%s)", t->reason.text, mf_err_name(e));
	return e;
}

enum mf_err transport_check(struct transport *t)
{
	if (t->error)
		return t->error;
	if (cancel_is_raised(t->options.cancel))
		return transport_fail(t, MF_CANCELLED, "interrupted");
	if (t->deadline_ms && clock_mono_ms() >= t->deadline_ms)
		return transport_fail(t, MF_TIMEOUT, "the answer took longer than it may");
	return MF_OK;
}

/* --- receiving */

enum io transport_recv_below(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	return t->tls ? tls_recv(t, data, size, ret_len) : wire_recv(t, data, size, ret_len);
}

static enum mf_err inspect(struct transport *t, const void *data, size_t len)
{
	if (len > t->budget)
		return transport_fail(t, MF_PROTOCOL, "the server sent more than the %llu bytes it may", (unsigned long long)t->budget_given);
	if (t->budget != UINT64_MAX)
		t->budget -= len;
	struct mf_reason why;
	if (t->guard && guard_feed(t->guard, data, len, &why))
		return transport_fail(t, MF_PROTOCOL, "refused from the server: %s", why.text);
	return MF_OK;
}

/* one step through all layers */
static enum io receive(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	enum io io = t->deflate ? deflate_recv(t, data, size, ret_len) : transport_recv_below(t, data, size, ret_len);
	return io == IO_OK && inspect(t, data, *ret_len) ? IO_DEAD : io;
}

static size_t take_in(struct transport *t, void *data, size_t size)
{
	size_t n = t->in_len < size ? t->in_len : size;
	memcpy(data, t->in + t->in_start, n);
	t->in_start += n;
	t->in_len -= n;
	if (t->in_len)
		return n;
	t->in_start = 0;
	if (t->in_capacity > IN_KEEP) {
		free(t->in);
		t->in = NULL;
		t->in_capacity = 0;
	}
	return n;
}

/* room for IN_CHUNK more bytes; false: IN_MAX is reached */
static bool grow_in(struct transport *t)
{
	if (t->in_start && t->in_start + t->in_len + IN_CHUNK > t->in_capacity) {
		memmove(t->in, t->in + t->in_start, t->in_len);
		t->in_start = 0;
	}
	if (t->in_len + IN_CHUNK <= t->in_capacity)
		return true;
	if (t->in_len + IN_CHUNK > IN_MAX)
		return false;
	t->in_capacity = t->in_capacity ? t->in_capacity * 2 : IN_CHUNK;
	t->in = mf_realloc_array(t->in, t->in_capacity, 1);
	return true;
}

static bool in_is_full(const struct transport *t)
{
	return t->in_len + IN_CHUNK > IN_MAX;
}

/* one step, into the buffer */
static enum io receive_in(struct transport *t)
{
	size_t n = 0;
	if (!grow_in(t))
		return IO_AGAIN;
	enum io io = receive(t, t->in + t->in_start + t->in_len, IN_CHUNK, &n);
	if (io == IO_OK)
		t->in_len += n;
	return io;
}

static enum mf_err closed(struct transport *t)
{
	return transport_fail(t, MF_OFFLINE, "the server closed the connection");
}

/* --- waiting */

/* When a wait without progress is over; seen: the bytes that had moved when it began. */
struct patience {
	uint64_t seen;
	int64_t limit_ms;
};

static uint64_t moved(const struct transport *t)
{
	return atomic_load_explicit(&t->received, memory_order_relaxed) + atomic_load_explicit(&t->sent, memory_order_relaxed);
}

static enum mf_err wait_for(struct transport *t, short events, struct patience *patience, short *ret_events)
{
	uint64_t now = moved(t);
	if (!patience->limit_ms || now != patience->seen)
		*patience = (struct patience){ now, wire_limit(t->options.io_timeout_ms) };
	int64_t limit = t->deadline_ms && t->deadline_ms < patience->limit_ms ? t->deadline_ms : patience->limit_ms;
	bool woken = false;
	enum mf_err e = wire_wait(t, events, -1, limit, ret_events, &woken);
	if (e != MF_TIMEOUT)
		return e;
	e = transport_check(t); /* the deadline has words of its own */
	return e ? e : transport_fail(t, MF_TIMEOUT, "nothing moved for %lld ms", (long long)t->options.io_timeout_ms);
}

/* --- sending */

static bool has_wire_output(const struct transport *t)
{
	return t->tls && tls_has_output(t->tls);
}

/* hands t->out down, as far as it goes without waiting */
static enum io push(struct transport *t)
{
	while (t->out_len) {
		size_t n = 0;
		enum io io = t->tls ? tls_send(t, t->out + t->out_start, t->out_len, &n) : wire_send(t, t->out + t->out_start, t->out_len, &n);
		t->out_start += n;
		t->out_len -= n;
		if (t->tls && (io == IO_OK || io == IO_AGAIN)) {
			enum io below = tls_push(t);
			io = below == IO_OK && !n ? IO_AGAIN : below;
		}
		if (io != IO_OK)
			return io;
	}
	t->out_start = 0;
	return t->tls ? tls_push(t) : IO_OK;
}

/* What a step of a layer means for its caller. IO_AGAIN: nothing yet */
static enum mf_err outcome(struct transport *t, enum io io)
{
	return io == IO_EOF ? closed(t) : io == IO_DEAD ? t->error : MF_OK;
}

/* The other side may be unable to read before we do. That it has closed is left for transport_read() to find, behind what it
 * said before. */
static void soak(struct transport *t)
{
	while (receive_in(t) == IO_OK)
		if (in_is_full(t))
			break;
}

static enum mf_err send_out(struct transport *t)
{
	struct patience patience = { 0 };
	for (;;) {
		enum mf_err e = transport_check(t);
		if (e)
			return e;
		enum io io = push(t);
		if (io != IO_AGAIN)
			return outcome(t, io);
		short events = 0;
		e = wait_for(t, t->eof || in_is_full(t) ? POLLOUT : POLLOUT | POLLIN, &patience, &events);
		if (e)
			return e;
		if (events & POLLIN)
			soak(t);
	}
}

enum mf_err transport_write(struct transport *t, const void *data, size_t len)
{
	const char *p = data;
	enum mf_err e = transport_check(t);
	while (!e && len) {
		size_t n;
		if (t->deflate) {
			n = deflate_fill(t, p, len);
		} else {
			size_t end = t->out_start + t->out_len;
			n = OUT_CAPACITY - end < len ? OUT_CAPACITY - end : len;
			memcpy(t->out + end, p, n);
			t->out_len += n;
		}
		p += n;
		len -= n;
		if (t->out_start + t->out_len == OUT_CAPACITY)
			e = send_out(t);
	}
	return e;
}

enum mf_err transport_flush(struct transport *t)
{
	enum mf_err e = transport_check(t);
	if (e)
		return e;
	while (t->deflate && !deflate_finish(t)) {
		e = send_out(t);
		if (e)
			return e;
	}
	return send_out(t);
}

static bool has_unsent(const struct transport *t)
{
	return t->out_len || (t->deflate && deflate_has_output(t->deflate));
}

/* --- reading */

enum mf_err transport_read(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	struct patience patience = { 0 };
	*ret_len = size ? *ret_len : 0; /* else nothing would look like the end */
	for (;;) {
		enum mf_err e = transport_check(t);
		if (e || !size)
			return e;
		if (t->in_len) {
			*ret_len = take_in(t, data, size);
			return MF_OK;
		}
		size_t n = 0;
		enum io io = receive(t, data, size, &n);
		if (io == IO_OK)
			*ret_len = n;
		if (io != IO_AGAIN)
			return outcome(t, io);
		if (has_unsent(t)) { /* the answer to what is still here would never come */
			e = transport_flush(t);
			if (e)
				return e;
			continue;
		}
		if (has_wire_output(t) && tls_push(t) == IO_DEAD)
			return t->error;
		short events = 0;
		e = wait_for(t, has_wire_output(t) ? POLLIN | POLLOUT : POLLIN, &patience, &events);
		if (e)
			return e;
	}
}

static bool is_buffered(const struct transport *t)
{
	return t->in_len || (t->stream && t->stream->read_buffer_len);
}

/* one look through all layers */
static enum mf_err look(struct transport *t, bool *ret_readable)
{
	*ret_readable = is_buffered(t);
	if (*ret_readable)
		return MF_OK;
	enum io io = receive_in(t);
	*ret_readable = io == IO_OK;
	if (io != IO_AGAIN)
		return outcome(t, io);
	return has_wire_output(t) && tls_push(t) == IO_DEAD ? t->error : MF_OK;
}

enum mf_err transport_wait(struct transport *t, int64_t timeout_ms, int wake_fd, bool *ret_readable)
{
	int64_t limit = timeout_ms < 0 ? NO_LIMIT : wire_limit(timeout_ms);
	enum mf_err e = t->error ? t->error : has_unsent(t) ? transport_flush(t) : MF_OK;
	for (bool woken = false; !e; ) {
		if (cancel_is_raised(t->options.cancel))
			return transport_fail(t, MF_CANCELLED, "interrupted");
		bool readable = false;
		e = look(t, &readable);
		if (e)
			return e;
		if (readable || woken) {
			*ret_readable = readable;
			return MF_OK;
		}
		short events = 0;
		e = wire_wait(t, has_wire_output(t) ? POLLIN | POLLOUT : POLLIN, wake_fd, limit, &events, &woken);
	}
	return e;
}

/* --- opening */

static void describe(struct transport *t)
{
	free(t->peer);
	const char *comma = t->tls ? ", " : "", *version = t->tls ? tls_version(t->tls) : "";
	if (t->address[0])
		t->peer = mf_format("%s [%s]:%u%s%s", t->host, t->address, t->options.port, comma, version);
	else
		t->peer = mf_format("%s:%u%s%s", t->host, t->options.port, comma, version);
}

static struct transport *new_transport(const struct transport_options *options)
{
	struct transport *t = MF_NEW(struct transport);
	t->options = *options;
	t->host = mf_strdup(options->host ? options->host : "");
	t->options.host = t->host;
	t->fd = -1;
	t->budget = t->budget_given = UINT64_MAX;
	t->out = mf_alloc(OUT_CAPACITY);
	return t;
}

static enum mf_err begin_tls(struct transport *t, int64_t limit_ms)
{
	if (!t->options.tls)
		return transport_fail(t, MF_TLS, "TLS was not set up for this server");
	enum mf_err e = tls_start(t, limit_ms);
	if (!e)
		describe(t);
	return e;
}

static enum mf_err connect_fd(struct transport *t, int64_t limit_ms, struct mf_reason *why)
{
	struct addrinfo *list = NULL;
	enum mf_err e = lookup_addresses(&t->options, limit_ms, &list, why);
	if (e)
		return e;
	e = connect_addresses(&t->options, list, limit_ms, &t->fd, t->address, why);
	freeaddrinfo(list);
	return e;
}

/* hands the transport over, or its failure */
static enum mf_err deliver(struct transport *t, enum mf_err e, struct transport **ret, struct mf_reason *why)
{
	if (e) {
		if (t->error)
			mf_fail(why, e, "%s", t->reason.text);
		transport_destroy(t);
		return e;
	}
	*ret = t;
	return MF_OK;
}

enum mf_err transport_open(const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	struct transport *t = new_transport(options);
	int64_t limit = wire_limit(options->connect_timeout_ms);
	enum mf_err e = connect_fd(t, limit, why);
	if (!e) {
		describe(t);
		if (options->implicit_tls)
			e = begin_tls(t, limit);
	}
	if (!e)
		trace(TRACE_NET, "connected to %s", t->peer);
	return deliver(t, e, ret, why);
}

enum mf_err transport_adopt(int fd, const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	struct transport *t = new_transport(options);
	t->fd = fd;
	int flags = fcntl(fd, F_GETFL);
	enum mf_err e = MF_OK;
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		e = transport_fail(t, MF_IO, "%s", wire_words(errno));
	describe(t);
	if (!e && options->implicit_tls)
		e = begin_tls(t, wire_limit(options->connect_timeout_ms));
	return deliver(t, e, ret, why);
}

void transport_destroy(struct transport *t)
{
	if (!t)
		return;
	bool alive = !t->error && !t->eof;
	stream_destroy(t);
	tls_destroy(t->tls, alive);
	deflate_destroy(t->deflate);
	if (alive) /* what was said last still goes out: see connect.c */
		(void)setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 0 }, sizeof(struct linger));
	mf_close(&t->fd);
	free(t->guard);
	free(t->in);
	free(t->out);
	free(t->peer);
	free(t->host);
	free(t);
}

enum mf_err transport_start_tls(struct transport *t)
{
	enum mf_err e = transport_check(t);
	if (e)
		return e;
	if (t->tls || t->deflate)
		return transport_fail(t, MF_PROTOCOL, "TLS on a connection that is encrypted or compressed already");
	e = transport_flush(t); /* may receive as well */
	if (e)
		return e;
	if (is_buffered(t))
		return transport_fail(t, MF_PROTOCOL, "the server sent something in clear behind its answer to STARTTLS");
	return begin_tls(t, wire_limit(t->options.connect_timeout_ms));
}

enum mf_err transport_start_deflate(struct transport *t)
{
	enum mf_err e = transport_check(t);
	if (e)
		return e;
	if (t->deflate)
		return transport_fail(t, MF_PROTOCOL, "compression is on already");
	e = transport_flush(t);
	if (!e)
		e = deflate_start(t);
	/* the server compresses from its answer on: what came behind that is compressed, and was guarded as if it were not */
	if (!e && t->stream) {
		e = deflate_feed(t, t->stream->read_buffer, t->stream->read_buffer_len);
		t->stream->read_buffer_len = 0;
	}
	if (!e) {
		e = deflate_feed(t, t->in + t->in_start, t->in_len);
		t->in_start = t->in_len = 0;
	}
	if (!e && t->guard)
		guard_init(t->guard, t->guard->literal_max);
	return e;
}

/* --- what is known about it */

void transport_set_deadline(struct transport *t, int64_t mono_ms)
{
	t->deadline_ms = mono_ms;
}

void transport_set_budget(struct transport *t, uint64_t bytes)
{
	t->budget = t->budget_given = bytes;
}

void transport_guard_imap(struct transport *t, uint64_t literal_max)
{
	if (!t->guard)
		t->guard = MF_NEW(struct guard);
	guard_init(t->guard, literal_max);
}

enum mf_err transport_error(const struct transport *t)
{
	return t->error;
}

const char *transport_reason(const struct transport *t)
{
	return t->reason.text;
}

bool transport_is_encrypted(const struct transport *t)
{
	return t->tls != NULL && !t->error;
}

bool transport_is_verified(const struct transport *t)
{
	return transport_is_encrypted(t) && tls_context_verifies(t->options.tls);
}

const char *transport_peer(const struct transport *t)
{
	return t->peer;
}

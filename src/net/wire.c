#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/layers.h"

int64_t wire_limit(int64_t timeout_ms)
{
	int64_t now = clock_mono_ms();
	return timeout_ms < NO_LIMIT - now ? now + timeout_ms : NO_LIMIT;
}

int wire_poll(struct pollfd *fds, nfds_t count, int64_t limit_ms)
{
	for (;;) {
		int timeout = -1;
		if (limit_ms != NO_LIMIT) {
			int64_t left = limit_ms - clock_mono_ms();
			timeout = left <= 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
		}
		int n = poll(fds, count, timeout);
		if (n > 0 || (n < 0 && errno != EINTR))
			return n;
		if (n == 0 && limit_ms != NO_LIMIT && clock_mono_ms() >= limit_ms)
			return 0;
	}
}

enum mf_err wire_wait(struct transport *t, short events, int wake_fd, int64_t limit_ms, short *ret_events, bool *ret_woken)
{
	struct pollfd fds[] = {
		{ .fd = t->options.cancel->fd, .events = POLLIN },
		{ .fd = t->fd, .events = events },
		{ .fd = wake_fd, .events = POLLIN },
	};
	int n = wire_poll(fds, 3, limit_ms);
	if (n < 0)
		return transport_fail(t, MF_IO, "poll: %s", wire_words(errno));
	if (fds[0].revents)
		return transport_fail(t, MF_CANCELLED, "interrupted");
	if (n == 0)
		return MF_TIMEOUT;
	*ret_events = fds[1].revents;
	*ret_woken = fds[2].revents != 0;
	return MF_OK;
}

const char *wire_words(int number)
{
	const char *words = strerrordesc_np(number);
	return words ? words : "unknown error";
}

enum io wire_failed(struct transport *t, int number)
{
	if (number == ECONNRESET || number == EPIPE)
		transport_fail(t, MF_OFFLINE, "the server cut the connection");
	else if (number == ETIMEDOUT)
		transport_fail(t, MF_TIMEOUT, "the connection is dead: the server no longer answers");
	else
		transport_fail(t, MF_OFFLINE, "the connection broke: %s", wire_words(number));
	return IO_DEAD;
}

static void count(_Atomic uint64_t *own, _Atomic uint64_t *shared, size_t n)
{
	atomic_fetch_add_explicit(own, n, memory_order_relaxed);
	if (shared)
		atomic_fetch_add_explicit(shared, n, memory_order_relaxed);
}

enum io wire_recv(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	ssize_t n;
	do {
		n = recv(t->fd, data, size, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		count(&t->received, t->options.traffic ? &t->options.traffic->received : NULL, (size_t)n);
		*ret_len = (size_t)n;
		return IO_OK;
	}
	if (n == 0) {
		t->eof = true;
		return IO_EOF;
	}
	return errno == EAGAIN ? IO_AGAIN : wire_failed(t, errno);
}

enum io wire_send(struct transport *t, const void *data, size_t len, size_t *ret_len)
{
	ssize_t n;
	do {
		n = send(t->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n >= 0) {
		count(&t->sent, t->options.traffic ? &t->options.traffic->sent : NULL, (size_t)n);
		*ret_len = (size_t)n;
		return IO_OK;
	}
	return errno == EAGAIN ? IO_AGAIN : wire_failed(t, errno);
}

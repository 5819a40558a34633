#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/layers.h"

#define ADDRESSES_MAX 32
#define STAGGER_MS 250      /* RFC 8305 section 5 */
#define KEEPALIVE_S 60
#define USER_TIMEOUT_MS 30000

struct race {
	const struct transport_options *options;
	const struct addrinfo *order[ADDRESSES_MAX];
	int fds[ADDRESSES_MAX];   /* of attempts under way; else -1 */
	size_t count, next, running;
	int64_t next_ms;          /* when the next one starts, unless all under way have failed */
	int number;               /* errno of the failure to tell of, */
	size_t failed;            /* and whose it was */
};

static const struct addrinfo *skip_to(const struct addrinfo *a, int family, bool same)
{
	while (a && (a->ai_family == family) != same)
		a = a->ai_next;
	return a;
}

/* The resolver's order (RFC 6724), but in turns: the family of the first, the other, and so on (RFC 8305 section 4). */
static void interleave(struct race *race, const struct addrinfo *list)
{
	int family = list->ai_family;
	const struct addrinfo *one = list, *other = skip_to(list, family, false);
	while ((one || other) && race->count < ADDRESSES_MAX) {
		if (one) {
			race->order[race->count++] = one;
			one = skip_to(one->ai_next, family, true);
		}
		if (other && race->count < ADDRESSES_MAX) {
			race->order[race->count++] = other;
			other = skip_to(other->ai_next, family, false);
		}
	}
	for (size_t i = 0; i < race->count; i++)
		race->fds[i] = -1;
}

static void address_text(const struct addrinfo *a, char text[ADDRESS_CHARS])
{
	if (getnameinfo(a->ai_addr, a->ai_addrlen, text, ADDRESS_CHARS, NULL, 0, NI_NUMERICHOST))
		snprintf(text, ADDRESS_CHARS, "?");
}

/* says nothing about the server: this machine has no address of that family, or no way there */
static bool is_local(int number)
{
	return number == ENETUNREACH || number == EAFNOSUPPORT || number == EADDRNOTAVAIL || number == EPERM;
}

static void note_failure(struct race *race, size_t i, int number)
{
	char text[ADDRESS_CHARS];
	address_text(race->order[i], text);
	trace(TRACE_NET, "%s [%s]:%u: %s", race->options->host, text, race->options->port, wire_words(number));
	if (race->fds[i] >= 0) {
		mf_close(&race->fds[i]);
		race->running--;
	}
	if (!race->number || (is_local(race->number) && !is_local(number))) {
		race->number = number;
		race->failed = i;
	}
	race->next_ms = 0; /* the next one need not wait */
}

/* true: connected at once */
static bool start_next(struct race *race)
{
	size_t i = race->next++;
	const struct addrinfo *a = race->order[i];
	race->next_ms = clock_mono_ms() + STAGGER_MS;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
	if (fd < 0) {
		note_failure(race, i, errno);
		return false;
	}
	race->fds[i] = fd;
	race->running++;
	if (!connect(fd, a->ai_addr, a->ai_addrlen))
		return true;
	if (errno != EINPROGRESS)
		note_failure(race, i, errno);
	return false;
}

/* the index of one that is connected, or -1 */
static int collect(struct race *race, const struct pollfd *fds, const size_t *index, nfds_t count)
{
	for (nfds_t k = 1; k < count; k++) {
		if (!fds[k].revents)
			continue;
		int number = 0;
		socklen_t size = sizeof number;
		if (getsockopt(fds[k].fd, SOL_SOCKET, SO_ERROR, &number, &size))
			number = errno;
		if (!number)
			return (int)index[k];
		note_failure(race, index[k], number);
	}
	return -1;
}

static enum mf_err give_up(const struct race *race, struct mf_reason *why)
{
	char text[ADDRESS_CHARS];
	address_text(race->order[race->failed], text);
	if (race->count > 1)
		return mf_fail(why, MF_OFFLINE, "%s:%u: %s (%s, and %zu other addresses)", race->options->host, race->options->port,
		               wire_words(race->number), text, race->count - 1);
	return mf_fail(why, MF_OFFLINE, "%s:%u: %s (%s)", race->options->host, race->options->port, wire_words(race->number), text);
}

static enum mf_err one_wait(struct race *race, int64_t limit_ms, int *ret_winner, struct mf_reason *why)
{
	struct pollfd fds[ADDRESSES_MAX + 1] = { { .fd = race->options->cancel->fd, .events = POLLIN } };
	size_t index[ADDRESSES_MAX + 1];
	nfds_t count = 1;
	for (size_t i = 0; i < race->next; i++) {
		if (race->fds[i] < 0)
			continue;
		fds[count] = (struct pollfd){ .fd = race->fds[i], .events = POLLOUT };
		index[count++] = i;
	}
	int64_t until = race->next < race->count && race->next_ms < limit_ms ? race->next_ms : limit_ms;
	if (wire_poll(fds, count, until) < 0)
		return mf_fail(why, MF_IO, "poll: %s", wire_words(errno));
	if (fds[0].revents)
		return mf_fail(why, MF_CANCELLED, "%s: interrupted", race->options->host);
	*ret_winner = collect(race, fds, index, count);
	return MF_OK;
}

static enum mf_err run(struct race *race, int64_t limit_ms, int *ret_winner, struct mf_reason *why)
{
	for (;;) {
		if (cancel_is_raised(race->options->cancel))
			return mf_fail(why, MF_CANCELLED, "%s: interrupted", race->options->host);
		int64_t now = clock_mono_ms();
		if (now >= limit_ms)
			return mf_fail(why, MF_TIMEOUT, "%s:%u: no answer within %lld ms", race->options->host, race->options->port,
			               (long long)race->options->connect_timeout_ms);
		if (race->next < race->count && (!race->running || now >= race->next_ms)) {
			if (start_next(race)) {
				*ret_winner = (int)race->next - 1;
				return MF_OK;
			}
			continue;
		}
		if (!race->running)
			return give_up(race, why);
		int winner = -1;
		enum mf_err e = one_wait(race, limit_ms, &winner, why);
		if (e || winner >= 0) {
			*ret_winner = winner;
			return e;
		}
	}
}

/* SO_RCVBUF is left alone: setting it would turn the kernel's own tuning off. */
static void tune(int fd)
{
	static const struct { int level, name, value; } rows[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 15 },
		{ IPPROTO_TCP, TCP_KEEPCNT, 4 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value, sizeof rows[i].value))
			trace(TRACE_NET, "setsockopt %d/%d: %s", rows[i].level, rows[i].name, wire_words(errno));
	/* What has not gone out when it is given up, or the process dies, never does: the server would do it after all, when
	 * it has been sent again. */
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger)))
		trace(TRACE_NET, "SO_LINGER: %s", wire_words(errno));
}

enum mf_err connect_addresses(const struct transport_options *options, const struct addrinfo *list, int64_t limit_ms, int *ret_fd,
                              char address[ADDRESS_CHARS], struct mf_reason *why)
{
	struct race race = { .options = options };
	int winner = -1;
	interleave(&race, list);
	enum mf_err e = run(&race, limit_ms, &winner, why);
	if (!e) {
		*ret_fd = race.fds[winner];
		race.fds[winner] = -1;
		address_text(race.order[winner], address);
		tune(*ret_fd);
	}
	for (size_t i = 0; i < race.count; i++)
		mf_close(&race.fds[i]);
	return e;
}

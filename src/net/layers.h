/* layers.h: what a transport is made of; for src/net alone.
 *
 *   transport.c   buffers, budget, deadlines; what the rest of the program calls
 *   deflate.c     DEFLATE (RFC 4978), when started
 *   tls.c         TLS, when started; tls_context.c: whom to trust, sessions to resume
 *   wire.c        the descriptor: recv, send, poll
 *   connect.c     how it came to be connected; lookup.c: where to
 *
 * A step never waits: it does what it can and says IO_AGAIN. Only wire_wait() waits. */
#ifndef MF_NET_LAYERS_H
#define MF_NET_LAYERS_H

#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>

#include "net/guard.h"
#include "net/transport.h"

enum io {
	IO_OK,
	IO_AGAIN, /* nothing to be had now: wait */
	IO_EOF,
	IO_DEAD,  /* transport_fail() has been called */
};

#define NO_LIMIT INT64_MAX
#define OUT_CAPACITY 65536
#define ADDRESS_CHARS 64

struct tls;
struct deflate;

struct transport {
	struct transport_options options;
	char *host;                   /* options.host, our copy */
	char address[ADDRESS_CHARS];  /* "192.0.2.1"; "" when it was adopted */
	char *peer;
	int fd;
	bool eof;                     /* recv(2) said so */
	enum mf_err error;
	struct mf_reason reason;
	int64_t deadline_ms;          /* 0: none */
	uint64_t budget, budget_given;
	_Atomic uint64_t received, sent;
	struct tls *tls;              /* NULL: not started; so with the next two */
	struct deflate *deflate;
	struct guard *guard;
	mailstream *stream;
	char *in;                     /* received while waiting for something else */
	size_t in_start, in_len, in_capacity;
	char *out;                    /* OUT_CAPACITY bytes, to be sent by the layer below */
	size_t out_start, out_len;
};

/* The first failure stays; the host is put in front. Returns it. */
enum mf_err transport_fail(struct transport *t, enum mf_err e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* the stop sign and the deadline; to be asked before every step */
enum mf_err transport_check(struct transport *t);

int64_t wire_limit(int64_t timeout_ms); /* that long from now */
/* poll(2) until limit_ms (clock_mono_ms; NO_LIMIT: for ever), through signals. 0: the limit has passed. */
int wire_poll(struct pollfd *fds, nfds_t count, int64_t limit_ms);
/* One wait for events on the descriptor. ret_events: what is ready; wake_fd may be -1.
 * MF_TIMEOUT at limit_ms is left to the caller, everything else has killed the transport. */
enum mf_err wire_wait(struct transport *t, short events, int wake_fd, int64_t limit_ms, short *ret_events, bool *ret_woken);
enum io wire_recv(struct transport *t, void *data, size_t size, size_t *ret_len);
enum io wire_send(struct transport *t, const void *data, size_t len, size_t *ret_len);
/* what an errno of the socket means to a person, and to us */
enum io wire_failed(struct transport *t, int number);
const char *wire_words(int number);

/* Where host and port are: the resolver runs in a thread of its own, so that the limit and the stop sign hold. */
enum mf_err lookup_addresses(const struct transport_options *options, int64_t limit_ms, struct addrinfo **ret, struct mf_reason *why);
/* Tries every address, a quarter of a second apart, in turns of family (RFC 8305). */
enum mf_err connect_addresses(const struct transport_options *options, const struct addrinfo *list, int64_t limit_ms, int *ret_fd,
                              char address[ADDRESS_CHARS], struct mf_reason *why);

/* Shakes hands by limit_ms. On failure the transport is dead. */
enum mf_err tls_start(struct transport *t, int64_t limit_ms);
void tls_destroy(struct tls *tls, bool alive); /* alive: tries, once, to say goodbye */
enum io tls_recv(struct transport *t, void *data, size_t size, size_t *ret_len);
enum io tls_send(struct transport *t, const void *data, size_t len, size_t *ret_len);
enum io tls_push(struct transport *t);         /* what TLS has for the wire: IO_OK when all of it is sent */
bool tls_has_output(const struct tls *tls);
const char *tls_version(const struct tls *tls);

enum mf_err deflate_start(struct transport *t);
void deflate_destroy(struct deflate *d);
enum mf_err deflate_feed(struct transport *t, const void *data, size_t len); /* received already, still compressed */
enum io deflate_recv(struct transport *t, void *data, size_t size, size_t *ret_len);
/* Compresses into t->out as much as fits; returns how much of data was taken. */
size_t deflate_fill(struct transport *t, const void *data, size_t len);
bool deflate_finish(struct transport *t);      /* makes all of it sendable; false: t->out was full, send and call again */
bool deflate_has_output(const struct deflate *d);

/* the layer below deflate */
enum io transport_recv_below(struct transport *t, void *data, size_t size, size_t *ret_len);

void stream_destroy(struct transport *t);

#endif

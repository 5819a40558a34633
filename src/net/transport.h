/* transport.h: a connection to one server as a stack of byte layers: TCP, TLS over it, DEFLATE over that; a script
 * instead of TCP in tests.
 *
 * One thread owns a transport and calls everything on it; another one that wants it to stop raises options.cancel, which
 * the transport sees at its next step. The descriptor is non-blocking; every wait is poll(2) on it, on the stop sign and on
 * the deadline. After the first failure the transport is dead: every later
 * call returns that failure at once, and sends nothing. EOF is a failure (MF_OFFLINE).
 *
 * Nothing received in clear survives transport_start_tls(): it refuses when a byte is already buffered (RFC 9051 11.1;
 * CVE-2011-0411 and its family). */
#ifndef MF_NET_TRANSPORT_H
#define MF_NET_TRANSPORT_H

#include <libetpan/mailstream.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/err.h"
#include "config/config.h"
#include "net/traffic.h"

struct transport;
struct tls_context;  /* what connections to one server share: trust, and sessions to resume. Thread-safe. */

enum transport_trust { TRUST_VERIFY, TRUST_FINGERPRINT, TRUST_ANY }; /* ANY: the caller has checked that it may */

struct tls_options {
	enum transport_trust trust;
	const unsigned char *fingerprint;  /* 32 bytes: SHA-256 of the DER certificate */
	const char *ca_file;               /* beside the system's; may be NULL */
};
enum mf_err tls_context_create(const struct tls_options *options, struct tls_context **ret, struct mf_reason *why);
/* As the account's settings have it for this one of its servers. *ret NULL: without TLS, or there is no such server */
enum mf_err tls_context_for(const struct account_config *config, const struct server_address *server, struct tls_context **ret, struct mf_reason *why);
struct tls_context *tls_context_share(struct tls_context *context); /* one more owner, who destroys it too; NULL is fine */
void tls_context_destroy(struct tls_context *context);              /* the last owner's; NULL is fine */

struct transport_options {
	const char *host;                  /* name or address literal; also SNI and the name to verify */
	uint16_t port;
	bool implicit_tls;
	struct tls_context *tls;           /* must outlive the transport; NULL: TLS is never started on it */
	int64_t connect_timeout_ms;        /* over name lookup, every address tried (RFC 8305) and the TLS handshake */
	int64_t io_timeout_ms;             /* of a read or write without one byte of progress */
	struct cancel *cancel;             /* checked in every step; must outlive the transport; not NULL */
	struct traffic *traffic;           /* counts along; must outlive the transport; may be NULL */
};

/* Connects, and shakes hands with implicit_tls. MF_OFFLINE, MF_TIMEOUT, MF_TLS, MF_CANCELLED. */
enum mf_err transport_open(const struct transport_options *options, struct transport **ret, struct mf_reason *why);
void transport_destroy(struct transport *t);  /* never waits, but what was flushed goes out, unless it is dead; NULL is fine */

/* STARTTLS has been agreed on: shake hands on the same connection. */
enum mf_err transport_start_tls(struct transport *t);
/* COMPRESS has been agreed on (RFC 4978): everything from here on is deflated, both ways. */
enum mf_err transport_start_deflate(struct transport *t);

/* At least one byte, at most size; waits for it, after sending what was not flushed: its answer would never come. */
enum mf_err transport_read(struct transport *t, void *data, size_t size, size_t *ret_len);
/* Appends to the output; sends when some 64 KiB are gathered. While it waits to send it goes on receiving (into a
 * buffer of at most 4 MiB), so that two full pipes never stop each other. Whoever writes many commands at once keeps
 * their answers below that, or reads in between. */
enum mf_err transport_write(struct transport *t, const void *data, size_t len);
enum mf_err transport_flush(struct transport *t);

/* Waits until a byte can be read (looking first at what is buffered here, in libetpan's stream and in TLS), wake_fd is
 * readable, timeout_ms have passed (-1: for ever) or the stop sign is raised.
 * MF_OK with *ret_readable true or false (woken); MF_TIMEOUT is not a failure of the transport here. The deadline does
 * not count. What was not flushed is sent first. */
enum mf_err transport_wait(struct transport *t, int64_t timeout_ms, int wake_fd, bool *ret_readable);

/* An absolute limit (clock_mono_ms) on top of io_timeout_ms, for one command; 0: none. */
void transport_set_deadline(struct transport *t, int64_t mono_ms);
/* What the server may still send before the next call; beyond it the transport dies with MF_PROTOCOL. UINT64_MAX: no limit. */
void transport_set_budget(struct transport *t, uint64_t bytes);

/* Turns on the guard in front of libetpan's parser (guard.h) for IMAP. Before the first read. */
void transport_guard_imap(struct transport *t, uint64_t literal_max);

/* libetpan's view of it: belongs to the transport, is freed with it, and is buffered: from the first use on only it may
 * be read from, not transport_read(). */
mailstream *transport_mailstream(struct transport *t);

enum mf_err transport_error(const struct transport *t);        /* MF_OK while alive */
const char *transport_reason(const struct transport *t);       /* why it died: one line, "" while alive */
bool transport_is_encrypted(const struct transport *t);
bool transport_is_verified(const struct transport *t);         /* encrypted, and it is known to whom */
const char *transport_peer(const struct transport *t);         /* "imap.example.org [192.0.2.1]:993, TLSv1.3" */

/* Tests: a transport over an already connected descriptor (a socketpair), which it owns from here on. */
enum mf_err transport_adopt(int fd, const struct transport_options *options, struct transport **ret, struct mf_reason *why);

#endif

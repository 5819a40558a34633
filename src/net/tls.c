#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/layers.h"
#include "net/tls_context.h"

#define RECORD_MAX 16384
#define OUTBOX_CAPACITY (OUT_CAPACITY + 16384) /* a whole t->out in records, sent by one system call */

struct tls {
	struct transport *transport;
	SSL *ssl;
	struct tls_verdict verdict;
	bool broken;              /* a TLS failure, after which the session must not be resumed */
	size_t start, len;        /* of what is in outbox */
	char outbox[OUTBOX_CAPACITY];
};

/* The BIO under OpenSSL: receives from the descriptor, sends into the outbox. OpenSSL's own would raise SIGPIPE, and send each
 * record by itself. */
static int bio_read(BIO *bio, char *data, size_t size, size_t *ret_len)
{
	struct tls *tls = BIO_get_data(bio);
	BIO_clear_retry_flags(bio);
	*ret_len = 0;
	/* OpenSSL asks for more as long as what comes is for itself alone: tickets and new keys without end */
	if (cancel_is_raised(tls->transport->options.cancel)) {
		transport_fail(tls->transport, MF_CANCELLED, "interrupted");
		return 0;
	}
	switch (wire_recv(tls->transport, data, size, ret_len)) {
	case IO_OK:
		return 1;
	case IO_AGAIN:
		BIO_set_retry_read(bio);
		break;
	case IO_EOF:
	case IO_DEAD:
		break;
	}
	return 0;
}

static int bio_write(BIO *bio, const char *data, size_t len, size_t *ret_len)
{
	struct tls *tls = BIO_get_data(bio);
	BIO_clear_retry_flags(bio);
	if (tls->start && len > OUTBOX_CAPACITY - tls->start - tls->len) {
		memmove(tls->outbox, tls->outbox + tls->start, tls->len);
		tls->start = 0;
	}
	size_t room = OUTBOX_CAPACITY - tls->start - tls->len;
	*ret_len = len < room ? len : room;
	if (!*ret_len) {
		BIO_set_retry_write(bio);
		return 0;
	}
	memcpy(tls->outbox + tls->start + tls->len, data, *ret_len);
	tls->len += *ret_len;
	return 1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)number;
	(void)pointer;
	const struct tls *tls = BIO_get_data(bio);
	switch (command) {
	case BIO_CTRL_FLUSH:
		return 1;
	case BIO_CTRL_EOF:
		return tls->transport->eof;
	default:
		return 0;
	}
}

static BIO_METHOD *bio_method;
static pthread_once_t bio_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "transport");
	if (!method)
		return;
	if (BIO_meth_set_read_ex(method, bio_read) && BIO_meth_set_write_ex(method, bio_write) && BIO_meth_set_ctrl(method, bio_ctrl))
		bio_method = method;
	else
		BIO_meth_free(method);
}

static bool set_bio(struct tls *tls)
{
	pthread_once(&bio_once, make_bio_method);
	BIO *bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return false;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	return true;
}

static const char *queue_words(void)
{
	const char *words = ERR_reason_error_string(ERR_peek_error());
	return words ? words : "unknown failure";
}

/* What SSL_get_error() says about a step that did not succeed; OpenSSL's queue is that step's alone. */
static enum io step_result(struct transport *t, int result)
{
	switch (SSL_get_error(t->tls->ssl, result)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return IO_AGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return IO_EOF;
	default:
		break;
	}
	if (t->error)
		return IO_DEAD;
	if (t->eof)
		return IO_EOF;
	t->tls->broken = true;
	transport_fail(t, MF_TLS, "the encryption broke: %s", queue_words());
	return IO_DEAD;
}

enum io tls_recv(struct transport *t, void *data, size_t size, size_t *ret_len)
{
	ERR_clear_error();
	int result = SSL_read_ex(t->tls->ssl, data, size, ret_len);
	return result == 1 ? IO_OK : step_result(t, result);
}

enum io tls_push(struct transport *t)
{
	struct tls *tls = t->tls;
	while (tls->len) {
		size_t n = 0;
		enum io io = wire_send(t, tls->outbox + tls->start, tls->len, &n);
		if (io != IO_OK)
			return io;
		tls->start += n;
		tls->len -= n;
	}
	tls->start = 0;
	return IO_OK;
}

enum io tls_send(struct transport *t, const void *data, size_t len, size_t *ret_len)
{
	*ret_len = 0;
	while (*ret_len < len) {
		size_t n = 0, chunk = len - *ret_len < RECORD_MAX ? len - *ret_len : RECORD_MAX;
		ERR_clear_error();
		int result = SSL_write_ex(t->tls->ssl, (const char *)data + *ret_len, chunk, &n);
		*ret_len += n;
		if (result == 1)
			continue;
		enum io io = step_result(t, result);
		return io == IO_AGAIN && *ret_len ? IO_OK : io;
	}
	return IO_OK;
}

bool tls_has_output(const struct tls *tls)
{
	return tls->len > 0;
}

const char *tls_version(const struct tls *tls)
{
	return SSL_get_version(tls->ssl);
}

static bool looks_like_no_tls(void)
{
	switch (ERR_GET_REASON(ERR_peek_error())) {
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_BAD_RECORD_TYPE:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_ENCRYPTED_LENGTH_TOO_LONG:
	case SSL_R_RECORD_LENGTH_MISMATCH:
		return true;
	default:
		return false;
	}
}

static enum mf_err handshake_failed(struct transport *t, int result)
{
	int error = SSL_get_error(t->tls->ssl, result);
	struct mf_reason why;
	(void)tls_push(t); /* the alert that says why, if it can be sent at once */
	if (t->tls->verdict.error) {
		tls_verdict_reason(&t->tls->verdict, t->host, &why);
		return transport_fail(t, MF_TLS, "%s", why.text);
	}
	if (error == SSL_ERROR_ZERO_RETURN || t->eof)
		return transport_fail(t, MF_OFFLINE, "the server closed the connection during the TLS handshake");
	if (looks_like_no_tls())
		return transport_fail(t, MF_TLS, t->options.implicit_tls ? "the server does not speak TLS on this port (perhaps STARTTLS?)"
		                      : "the server does not speak TLS after having agreed to");
	return transport_fail(t, MF_TLS, "the TLS handshake failed: %s", queue_words());
}

static enum mf_err handshake_wait(struct transport *t, int64_t limit_ms)
{
	short events = 0;
	bool woken = false;
	enum mf_err e = wire_wait(t, tls_has_output(t->tls) ? POLLIN | POLLOUT : POLLIN, -1, limit_ms, &events, &woken);
	if (e == MF_TIMEOUT)
		return transport_fail(t, MF_TIMEOUT, "the TLS handshake was not finished in time");
	return e;
}

static enum mf_err handshake(struct transport *t, int64_t limit_ms)
{
	for (;;) {
		enum mf_err e = transport_check(t);
		if (e)
			return e;
		if (clock_mono_ms() >= limit_ms)
			return transport_fail(t, MF_TIMEOUT, "the TLS handshake was not finished in time");
		ERR_clear_error();
		int result = SSL_do_handshake(t->tls->ssl);
		int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(t->tls->ssl, result);
		if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			return handshake_failed(t, result);
		if (tls_push(t) == IO_DEAD)
			return t->error;
		if (error == SSL_ERROR_NONE)
			return MF_OK;
		e = handshake_wait(t, limit_ms);
		if (e)
			return e;
	}
}

enum mf_err tls_start(struct transport *t, int64_t limit_ms)
{
	struct tls *tls = MF_NEW(struct tls);
	t->tls = tls;
	tls->transport = t;
	tls->verdict.key = mf_format("%s:%u", t->host, t->options.port);
	tls->ssl = tls_context_new_ssl(t->options.tls, t->host, &tls->verdict);
	if (!tls->ssl || !set_bio(tls))
		return transport_fail(t, MF_TLS, "OpenSSL takes no connection to a server of this name");
	enum mf_err e = handshake(t, limit_ms);
	if (e)
		tls->broken = true;
	else
		trace(TRACE_TLS, "%s: %s, %s%s", tls->verdict.key, SSL_get_version(tls->ssl), SSL_get_cipher_name(tls->ssl),
		      SSL_session_reused(tls->ssl) ? ", resumed" : "");
	ERR_clear_error();
	return e;
}

void tls_destroy(struct tls *tls, bool alive)
{
	if (!tls)
		return;
	if (tls->ssl) {
		ERR_clear_error();
		if (alive && SSL_shutdown(tls->ssl) >= 0)
			(void)tls_push(tls->transport); /* the server will see the connection closed in any case */
		/* without this OpenSSL takes a session for spoilt, and would not resume it */
		if (!tls->broken)
			SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
		SSL_free(tls->ssl);
		ERR_clear_error();
	}
	free(tls->verdict.key);
	free(tls);
}

/* net/transport over TLS: whom it trusts, STARTTLS, resumption, and failures within the encryption */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "net/layers.h"
#include "net/transport.h"
#include "support/net_server.h"

#define PATIENT_MS 20000 /* never reached by a test that passes */

static struct cancel stop;
static struct identity authority, stranger;
static char folder[] = "/tmp/mailfs-tls-XXXXXX", ca_file[64];

static int set_up_all(void **state)
{
	(void)state;
	authority = identity_create(&(struct identity_options){ .name = "A test authority", .is_ca = 1 });
	stranger = identity_create(&(struct identity_options){ .name = "Another authority", .is_ca = 1 });
	assert_non_null(mkdtemp(folder));
	snprintf(ca_file, sizeof ca_file, "%s/ca.pem", folder);
	identity_save(&authority, ca_file);
	return cancel_init(&stop) ? 0 : -1;
}

static int tear_down_all(void **state)
{
	(void)state;
	cancel_finish(&stop);
	identity_finish(&authority);
	identity_finish(&stranger);
	unlink(ca_file);
	rmdir(folder);
	return 0;
}

static int clear_stop(void **state)
{
	(void)state;
	cancel_clear(&stop);
	return 0;
}

static struct tls_context *context_with(enum transport_trust trust, const unsigned char *fingerprint)
{
	struct tls_options o = { .trust = trust, .fingerprint = fingerprint, .ca_file = trust == TRUST_VERIFY ? ca_file : NULL };
	struct tls_context *context = NULL;
	struct mf_reason why = { "" };
	if (tls_context_create(&o, &context, &why))
		print_error("%s\n", why.text);
	assert_non_null(context);
	return context;
}

static struct transport_options options_for(uint16_t port, const char *host, struct tls_context *context)
{
	return (struct transport_options){
		.host = host, .port = port, .implicit_tls = true, .tls = context,
		.connect_timeout_ms = PATIENT_MS, .io_timeout_ms = PATIENT_MS, .cancel = &stop,
	};
}

/* --- scripts */

static void tls_echo(struct peer *p)
{
	char data[65536];
	ssize_t n;
	if (peer_handshake(p, p->argument))
		while ((n = peer_read(p, data, sizeof data)) > 0)
			if (!peer_write(p, data, (size_t)n))
				return;
}

static void assert_echo(struct transport *t, const char *text)
{
	char data[64];
	size_t n = 0;
	assert_int_equal(transport_write(t, text, strlen(text)), MF_OK);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_OK);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(data, text, n);
}

/* --- certificates, as data */

struct trust_row {
	const char *about, *host, *alternative, *name;
	int issuer;                          /* 0: itself, 1: the authority, 2: the stranger */
	long from_s, to_s;
	enum transport_trust trust;
	int pin;                             /* 1: the right one, 2: another */
	const char *words;                   /* NULL: it connects */
};

static const struct trust_row trust_rows[] = {
	{ "good", "localhost", "DNS:localhost", "x", 1, 0, 0, TRUST_VERIFY, 0, NULL },
	{ "IP SAN", "127.0.0.1", "IP:127.0.0.1", "x", 1, 0, 0, TRUST_VERIFY, 0, NULL },
	{ "one of many", "localhost", "DNS:a.test,DNS:localhost,DNS:b.test", "x", 1, 0, 0, TRUST_VERIFY, 0, NULL },
	{ "expired", "localhost", "DNS:localhost", "x", 1, -200000, -100000, TRUST_VERIFY, 0, "has expired (20" },
	{ "not yet", "localhost", "DNS:localhost", "x", 1, 100000, 200000, TRUST_VERIFY, 0, "is not valid yet (20" },
	{ "wrong name", "localhost", "DNS:mail.example.org,DNS:b.test", "x", 1, 0, 0, TRUST_VERIFY, 0,
	  "for mail.example.org, b.test, not for localhost" },
	{ "name where the address counts", "127.0.0.1", "DNS:127.0.0.1", "x", 1, 0, 0, TRUST_VERIFY, 0, "not for 127.0.0.1" },
	{ "wrong address", "127.0.0.1", "IP:127.0.0.2", "127.0.0.1", 1, 0, 0, TRUST_VERIFY, 0, "not for 127.0.0.1" },
	{ "common name alone", "localhost", NULL, "localhost", 1, 0, 0, TRUST_VERIFY, 0, "not for localhost" },
	{ "partial wildcard", "localhost", "DNS:local*", "x", 1, 0, 0, TRUST_VERIFY, 0, "not for localhost" },
	{ "self-signed", "localhost", "DNS:localhost", "x", 0, 0, 0, TRUST_VERIFY, 0, "is self-signed" },
	{ "unknown issuer", "localhost", "DNS:localhost", "x", 2, 0, 0, TRUST_VERIFY, 0, "not trusted here" },
	{ "control characters", "localhost", "DNS:a\033[31mb", "x", 1, 0, 0, TRUST_VERIFY, 0, "for a?[31mb, not" },
	{ "pinned", "localhost", "DNS:other.test", "x", 2, -200000, -100000, TRUST_FINGERPRINT, 1, NULL },
	{ "pinned to another", "localhost", "DNS:localhost", "x", 1, 0, 0, TRUST_FINGERPRINT, 2, "is not the pinned one" },
	{ "anything goes", "localhost", NULL, "x", 0, -200000, -100000, TRUST_ANY, 0, NULL },
};

static void assert_refused(const struct trust_row *row, enum mf_err e, const struct mf_reason *why, const unsigned char print[32])
{
	char hex[65];
	for (size_t i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", print[i]);
	if (e != MF_TLS || !strstr(why->text, row->words) || !strstr(why->text, hex) || !strstr(why->text, "fingerprint:SHA256:"))
		fail_msg("%s: %s: %s", row->about, mf_err_name(e), why->text);
}

static void try_trust(const struct trust_row *row)
{
	struct identity id = identity_create(&(struct identity_options){
		.name = row->name, .alternative = row->alternative, .from_s = row->from_s, .to_s = row->to_s,
		.issuer = row->issuer == 1 ? &authority : row->issuer == 2 ? &stranger : NULL });
	unsigned char print[32], pin[32];
	identity_fingerprint(&id, print);
	memcpy(pin, print, 32);
	pin[31] ^= row->pin == 2;
	SSL_CTX *server_side = server_context(&id);
	struct server s;
	server_start(&s, tls_echo, server_side);
	struct tls_context *context = context_with(row->trust, pin);
	struct transport_options o = options_for(s.port, row->host, context);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	enum mf_err e = transport_open(&o, &t, &why);
	if (row->words) {
		assert_refused(row, e, &why, print);
	} else {
		if (e)
			fail_msg("%s: %s", row->about, why.text);
		assert_true(transport_is_encrypted(t));
		assert_int_equal(transport_is_verified(t), row->trust != TRUST_ANY);
		assert_non_null(strstr(transport_peer(t), ", TLSv1.3"));
		assert_echo(t, "a1 NOOP\r\n");
		transport_destroy(t);
	}
	server_stop(&s);
	tls_context_destroy(context);
	SSL_CTX_free(server_side);
	identity_finish(&id);
}

static void trusts_whom_it_should(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof trust_rows / sizeof *trust_rows; i++)
		try_trust(&trust_rows[i]);
}

static void ca_file_must_be_readable(void **state)
{
	(void)state;
	struct tls_options o = { .trust = TRUST_VERIFY, .ca_file = "/nonexistent/ca.pem" };
	struct tls_context *context = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(tls_context_create(&o, &context, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "/nonexistent/ca.pem"));
	tls_context_destroy(NULL);
}

/* --- a good server for the rest */

struct fixture {
	struct identity id;
	SSL_CTX *server_side;
	struct tls_context *context;
	struct server server;
	struct transport_options options;
};

static void fixture_open(struct fixture *f, server_script *script)
{
	f->id = identity_create(&(struct identity_options){ .name = "x", .alternative = "DNS:localhost,IP:127.0.0.1,IP:fe80::1", .issuer = &authority });
	f->server_side = server_context(&f->id);
	f->context = context_with(TRUST_VERIFY, NULL);
	server_start(&f->server, script, f->server_side);
	f->options = options_for(f->server.port, "127.0.0.1", f->context);
}

static void fixture_close(struct fixture *f)
{
	server_stop(&f->server);
	tls_context_destroy(f->context);
	SSL_CTX_free(f->server_side);
	identity_finish(&f->id);
}

static struct transport *fixture_connect(struct fixture *f)
{
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	if (transport_open(&f->options, &t, &why))
		print_error("%s\n", why.text);
	assert_non_null(t);
	return t;
}

/* says whether the session was resumed */
static void tells_resumption(struct peer *p)
{
	char line[64];
	if (!peer_handshake(p, p->argument))
		return;
	peer_line(p, line, sizeof line);
	peer_say(p, SSL_session_reused(p->ssl) ? "resumed\r\n" : "full\r\n");
	peer_drain(p);
}

static void assert_answer(struct transport *t, const char *question, const char *answer)
{
	char data[64];
	size_t n = 0;
	assert_int_equal(transport_write(t, question, strlen(question)), MF_OK);
	assert_int_equal(transport_read(t, data, sizeof data - 1, &n), MF_OK);
	data[n] = 0;
	assert_string_equal(data, answer);
}

static void check_resumption(int version)
{
	struct fixture f;
	fixture_open(&f, tells_resumption);
	SSL_CTX_set_max_proto_version(f.server_side, version);
	SSL_CTX_set_num_tickets(f.server_side, 1);
	for (int i = 0; i < 4; i++) {
		struct transport *t = fixture_connect(&f);
		assert_answer(t, "?\r\n", i ? "resumed\r\n" : "full\r\n");
		transport_destroy(t);
	}
	/* another name is another server */
	f.options.host = "localhost";
	struct transport *t = fixture_connect(&f);
	assert_answer(t, "?\r\n", "full\r\n");
	transport_destroy(t);
	fixture_close(&f);
}

static void sessions_are_resumed(void **state)
{
	(void)state;
	check_resumption(TLS1_3_VERSION);
	check_resumption(TLS1_2_VERSION);
}

/* a connection that broke does not spoil the session of the next */
static void sessions_survive_a_cut(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, tells_resumption);
	SSL_CTX_set_num_tickets(f.server_side, 1);
	struct transport *t = fixture_connect(&f);
	assert_answer(t, "?\r\n", "full\r\n");
	cancel_raise(&stop);
	assert_int_equal(transport_flush(t), MF_CANCELLED);
	transport_destroy(t);
	cancel_clear(&stop);
	t = fixture_connect(&f);
	assert_answer(t, "?\r\n", "resumed\r\n");
	transport_destroy(t);
	fixture_close(&f);
}

static void old_versions_are_refused(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, tls_echo);
	SSL_CTX_set_security_level(f.server_side, 0);
	SSL_CTX_set_min_proto_version(f.server_side, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(f.server_side, TLS1_1_VERSION);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(transport_open(&f.options, &t, &why), MF_TLS);
	assert_non_null(strstr(why.text, "TLS handshake failed"));
	fixture_close(&f);
}

/* --- servers that speak something else, or nothing */

static void greets_in_clear(struct peer *p)
{
	peer_say(p, "* OK IMAP4rev1 ready, and this line is longer than a record's header\r\n");
	peer_drain(p);
}

static void says_nothing(struct peer *p)
{
	peer_drain(p);
}

static void closes(struct peer *p)
{
	char data[600];
	peer_read(p, data, sizeof data);
}

static void tls_to_a_plain_port(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, greets_in_clear);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(transport_open(&f.options, &t, &why), MF_TLS);
	assert_non_null(strstr(why.text, "does not speak TLS on this port"));
	fixture_close(&f);
}

/* it waits for our hello, and we for its greeting */
static void plain_to_a_tls_port(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, tls_echo);
	f.options.implicit_tls = false;
	f.options.io_timeout_ms = 30;
	struct transport *t = fixture_connect(&f);
	char data[64];
	size_t n = 0;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TIMEOUT);
	transport_destroy(t);
	fixture_close(&f);
}

static void silence_in_the_handshake(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, says_nothing);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	f.options.connect_timeout_ms = 50;
	assert_int_equal(transport_open(&f.options, &t, &why), MF_TIMEOUT);
	f.options.connect_timeout_ms = PATIENT_MS;
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_open(&f.options, &t, &why), MF_CANCELLED);
	canceller_join(&c);
	fixture_close(&f);
}

static void end_in_the_handshake(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, closes);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(transport_open(&f.options, &t, &why), MF_OFFLINE);
	assert_non_null(strstr(why.text, "the server c"));
	fixture_close(&f);
}

/* --- STARTTLS, over a pair of sockets so that the moment of arrival is known */

struct pair {
	int fd;
	SSL_CTX *server_side;
	pthread_t thread;
};

static void *accept_tls(void *argument)
{
	struct pair *pair = argument;
	net_ignore_sigpipe_here();
	struct peer p = { .fd = pair->fd };
	char line[64];
	if (peer_handshake(&p, pair->server_side)) {
		peer_line(&p, line, sizeof line);
		peer_say(&p, line);
		peer_drain(&p);
	}
	SSL_free(p.ssl);
	return NULL;
}

static struct transport *adopt(struct fixture *f, struct pair *pair)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	*pair = (struct pair){ .fd = fds[1], .server_side = f->server_side };
	f->options.implicit_tls = false;
	struct transport *t = NULL;
	struct mf_reason why;
	assert_int_equal(transport_adopt(fds[0], &f->options, &t, &why), MF_OK);
	return t;
}

static void starttls_encrypts(void **state)
{
	(void)state;
	struct fixture f;
	struct pair pair;
	fixture_open(&f, tls_echo);
	struct transport *t = adopt(&f, &pair);
	assert_int_equal(send(pair.fd, "* OK\r\n", 6, 0), 6);
	char data[16];
	assert_int_equal(mailstream_read(transport_mailstream(t), data, 6), 6);
	assert_false(transport_is_encrypted(t));
	assert_int_equal(pthread_create(&pair.thread, NULL, accept_tls, &pair), 0);
	assert_int_equal(transport_start_tls(t), MF_OK);
	assert_true(transport_is_encrypted(t));
	mailstream *stream = transport_mailstream(t);
	assert_int_equal(mailstream_write(stream, "hello\r\n", 7), 7);
	assert_int_equal(mailstream_flush(stream), 0);
	assert_int_equal(mailstream_read(stream, data, 7), 7);
	assert_memory_equal(data, "hello\r\n", 7);
	assert_int_equal(transport_start_tls(t), MF_PROTOCOL); /* twice */
	transport_destroy(t);
	pthread_join(pair.thread, NULL);
	close(pair.fd);
	fixture_close(&f);
}

/* a certificate knows nothing of the interface that a link-local address is reached by */
static void link_local_addresses(void **state)
{
	(void)state;
	static const struct { const char *host; enum mf_err e; } rows[] = { { "fe80::1%eth0", MF_OK }, { "fe80::2%eth0", MF_TLS }, { "localhost%eth0", MF_TLS } };
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct fixture f;
		struct pair pair;
		fixture_open(&f, tls_echo);
		f.options.host = rows[i].host;
		struct transport *t = adopt(&f, &pair);
		assert_int_equal(pthread_create(&pair.thread, NULL, accept_tls, &pair), 0);
		assert_int_equal(transport_start_tls(t), rows[i].e);
		transport_destroy(t);
		pthread_join(pair.thread, NULL);
		close(pair.fd);
		fixture_close(&f);
	}
}

static void assert_injection_refused(struct transport *t)
{
	assert_int_equal(transport_start_tls(t), MF_PROTOCOL);
	assert_non_null(strstr(transport_reason(t), "in clear behind its answer to STARTTLS"));
	assert_false(transport_is_encrypted(t));
}

static void starttls_refuses_injected_bytes(void **state)
{
	(void)state;
	struct fixture f;
	struct pair pair;
	char data[16];
	fixture_open(&f, tls_echo);
	/* in libetpan's buffer */
	struct transport *t = adopt(&f, &pair);
	assert_int_equal(send(pair.fd, "A1 OK\r\n* BAD", 12, 0), 12);
	assert_int_equal(mailstream_read(transport_mailstream(t), data, 7), 7);
	assert_injection_refused(t);
	transport_destroy(t);
	close(pair.fd);
	/* in ours */
	t = adopt(&f, &pair);
	bool readable = false;
	assert_int_equal(send(pair.fd, "A1 OK\r\n* BAD", 12, 0), 12);
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OK);
	size_t n = 0;
	assert_int_equal(transport_read(t, data, 7, &n), MF_OK);
	assert_injection_refused(t);
	transport_destroy(t);
	close(pair.fd);
	/* still in the kernel's: taken for the handshake, which it is not */
	t = adopt(&f, &pair);
	assert_int_equal(send(pair.fd, "A1 OK\r\n* BAD", 12, 0), 12);
	assert_int_equal(transport_read(t, data, 7, &n), MF_OK);
	assert_int_equal(transport_start_tls(t), MF_TLS);
	assert_non_null(strstr(transport_reason(t), "does not speak TLS"));
	transport_destroy(t);
	close(pair.fd);
	fixture_close(&f);
}

static void starttls_needs_a_context(void **state)
{
	(void)state;
	struct fixture f;
	struct pair pair;
	fixture_open(&f, tls_echo);
	f.options.tls = NULL;
	struct transport *t = adopt(&f, &pair);
	assert_int_equal(transport_start_tls(t), MF_TLS);
	transport_destroy(t);
	close(pair.fd);
	fixture_close(&f);
}

/* --- after the handshake */

/* Says so many bytes, then cuts without goodbye, which is what an attacker can do too. */
static atomic_size_t cut_at;

static const char long_text[] = "* 1 FETCH (BODY[] {20}\r\n01234567890123456789)\r\nA1 OK done\r\n";

static void cuts(struct peer *p)
{
	if (!peer_handshake(p, p->argument))
		return;
	peer_write(p, long_text, cut_at);
	shutdown(p->fd, SHUT_WR);
	char data[64];
	while (recv(p->fd, data, sizeof data, 0) > 0)
		;
}

static void end_without_goodbye_at_every_offset(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, cuts);
	for (cut_at = 0; cut_at < sizeof long_text; cut_at += 3) {
		struct transport *t = fixture_connect(&f);
		char data[sizeof long_text];
		size_t at = 0, n = 0;
		enum mf_err e;
		while (!(e = transport_read(t, data + at, sizeof data - at, &n)))
			at += n;
		assert_int_equal(e, MF_OFFLINE);
		assert_int_equal(at, cut_at);
		assert_memory_equal(data, long_text, at);
		assert_int_equal(transport_read(t, data, 1, &n), MF_OFFLINE);
		transport_destroy(t);
	}
	fixture_close(&f);
}

static void says_goodbye(struct peer *p)
{
	if (!peer_handshake(p, p->argument))
		return;
	peer_say(p, "* BYE\r\n");
	SSL_shutdown(p->ssl);
	char data[64];
	while (recv(p->fd, data, sizeof data, 0) > 0)
		;
}

static void goodbye_is_an_end_too(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, says_goodbye);
	struct transport *t = fixture_connect(&f);
	char data[7];
	assert_int_equal(mailstream_read(transport_mailstream(t), data, 7), 7);
	assert_memory_equal(data, "* BYE\r\n", 7);
	bool readable = true;
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OFFLINE);
	assert_int_equal(transport_error(t), MF_OFFLINE);
	transport_destroy(t);
	fixture_close(&f);
}

static void stop_sign_ends_a_wait(void **state)
{
	(void)state;
	struct fixture f;
	struct pair pair;
	fixture_open(&f, tls_echo);
	struct transport *t = adopt(&f, &pair);
	assert_int_equal(pthread_create(&pair.thread, NULL, accept_tls, &pair), 0);
	assert_int_equal(transport_start_tls(t), MF_OK);
	bool readable = true;
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_CANCELLED);
	canceller_join(&c);
	transport_destroy(t);
	pthread_join(pair.thread, NULL);
	close(pair.fd);
	fixture_close(&f);
}

static void breaks_the_encryption(struct peer *p)
{
	char line[64];
	if (!peer_handshake(p, p->argument))
		return;
	peer_line(p, line, sizeof line);
	static const char record[] = "\x17\x03\x03\x00\x20" "this is no ciphertext at all ...";
	send(p->fd, record, sizeof record - 1, MSG_NOSIGNAL);
	char data[64];
	while (recv(p->fd, data, sizeof data, 0) > 0)
		;
}

static void forged_records_are_refused(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, breaks_the_encryption);
	struct transport *t = fixture_connect(&f);
	char data[64];
	size_t n = 0;
	assert_int_equal(transport_write(t, "x\r\n", 3), MF_OK);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TLS);
	assert_non_null(strstr(transport_reason(t), "the encryption broke"));
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TLS);
	transport_destroy(t);
	fixture_close(&f);
}

static void silence_and_the_stop_sign(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, tls_echo);
	struct transport *t = fixture_connect(&f);
	char data[64];
	size_t n = 0;
	assert_echo(t, "one");
	t->options.io_timeout_ms = 30;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TIMEOUT);
	transport_destroy(t);
	t = fixture_connect(&f);
	assert_echo(t, "two");
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_CANCELLED);
	canceller_join(&c);
	transport_destroy(t);
	fixture_close(&f);
}

static atomic_bool flooded;

/* what TLS takes without a word to whoever reads, and then something */
static void floods(struct peer *p)
{
	int size = 1 << 20;
	if (!peer_handshake(p, p->argument))
		return;
	setsockopt(p->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	for (int i = 0; i < 5000; i++)
		if (SSL_key_update(p->ssl, SSL_KEY_UPDATE_NOT_REQUESTED) != 1 || SSL_do_handshake(p->ssl) != 1)
			return;
	peer_say(p, "at last\r\n");
	atomic_store(&flooded, true);
	peer_drain(p);
}

static void raise_stop(int number)
{
	(void)number;
	cancel_raise(&stop);
}

static void a_flood_and_the_stop_sign(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, floods);
	struct transport *t = fixture_connect(&f);
	while (!atomic_load(&flooded))
		sched_yield();
	/* of this thread's own time, so that it is in the middle of it, however busy the machine is */
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM };
	timer_t timer;
	signal(SIGALRM, raise_stop);
	assert_int_equal(timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer), 0);
	assert_int_equal(timer_settime(timer, 0, &(struct itimerspec){ .it_value.tv_nsec = 1000000 }, NULL), 0);
	char data[64];
	size_t n = 0;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_CANCELLED);
	timer_delete(timer);
	transport_destroy(t);
	fixture_close(&f);
}

/* asks for new keys twice, then says something in two records that come together */
static void changes_keys(struct peer *p)
{
	char line[64];
	if (!peer_handshake(p, p->argument))
		return;
	peer_line(p, line, sizeof line);
	SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED);
	peer_say(p, "one\r\n");
	SSL_key_update(p->ssl, SSL_KEY_UPDATE_REQUESTED);
	peer_say(p, "two\r\n");
	peer_line(p, line, sizeof line);
	peer_say(p, line);
	peer_drain(p);
}

static void wait_sees_what_tls_holds(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, changes_keys);
	struct transport *t = fixture_connect(&f);
	char data[64];
	size_t at = 0;
	assert_int_equal(transport_write(t, "x\r\n", 3), MF_OK);
	while (at < 10) {
		bool readable = false;
		size_t n = 0;
		assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OK);
		assert_true(readable);
		assert_int_equal(transport_read(t, data + at, 1, &n), MF_OK);
		at += n;
	}
	assert_memory_equal(data, "one\r\ntwo\r\n", 10);
	bool readable = true;
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
	assert_echo(t, "bye\r\n");
	transport_destroy(t);
	fixture_close(&f);
}

static void sends_much_first(struct peer *p)
{
	static char block[1 << 20];
	if (!peer_handshake(p, p->argument) || !peer_write(p, block, sizeof block))
		return;
	size_t total = 0;
	ssize_t n;
	static char data[65536];
	while (total < 3U << 20 && (n = peer_read(p, data, sizeof data)) > 0)
		total += (size_t)n;
	peer_say(p, total == 3U << 20 ? "all\r\n" : "less\r\n");
	peer_drain(p);
}

static void two_full_pipes_do_not_lock(void **state)
{
	(void)state;
	struct fixture f;
	fixture_open(&f, sends_much_first);
	struct transport *t = fixture_connect(&f);
	static char block[3 << 20];
	assert_int_equal(transport_write(t, block, sizeof block), MF_OK);
	assert_int_equal(transport_flush(t), MF_OK);
	static char data[(1 << 20) + 5];
	size_t at = 0;
	while (at < sizeof data) {
		size_t n = 0;
		assert_int_equal(transport_read(t, data + at, sizeof data - at, &n), MF_OK);
		at += n;
	}
	assert_memory_equal(data + (1 << 20), "all\r\n", 5);
	transport_destroy(t);
	fixture_close(&f);
}

#define T(f) cmocka_unit_test_setup(f, clear_stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(trusts_whom_it_should), T(ca_file_must_be_readable), T(sessions_are_resumed), T(sessions_survive_a_cut),
		T(old_versions_are_refused), T(tls_to_a_plain_port), T(plain_to_a_tls_port), T(silence_in_the_handshake),
		T(end_in_the_handshake), T(starttls_encrypts), T(link_local_addresses), T(starttls_refuses_injected_bytes), T(starttls_needs_a_context),
		T(end_without_goodbye_at_every_offset), T(goodbye_is_an_end_too), T(stop_sign_ends_a_wait), T(forged_records_are_refused),
		T(silence_and_the_stop_sign), T(a_flood_and_the_stop_sign), T(wait_sees_what_tls_holds), T(two_full_pipes_do_not_lock),
	};
	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}

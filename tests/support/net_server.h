/* net_server.h: servers for tests of src/net: a thread that accepts connections on loopback and runs a function for each, with
 * TLS and certificates of its own making. To be included by one test program each; everything is static. */
#ifndef TESTS_SUPPORT_NET_SERVER_H
#define TESTS_SUPPORT_NET_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NET_UNUSED __attribute__((unused))
#define NET_MUST(condition) do { if (!(condition)) net_die(#condition, __FILE__, __LINE__); } while (0)

static void net_die(const char *what, const char *file, int line)
{
	fprintf(stderr, "%s:%d: %s failed (%s)\n", file, line, what, strerror(errno));
	abort();
}

/* --- certificates */

struct identity {
	EVP_PKEY *key;
	X509 *certificate;
	STACK_OF(X509) *chain;
};

struct identity_options {
	const char *name;                /* the subject's common name */
	const char *alternative;         /* "DNS:a.test,IP:127.0.0.1"; NULL: none */
	const struct identity *issuer;   /* NULL: itself */
	int is_ca;
	long from_s, to_s;               /* validity, relative to now; 0, 0: a day either way */
};

static void net_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	NET_MUST(extension && X509_add_ext(certificate, extension, -1));
	X509_EXTENSION_free(extension);
}

static NET_UNUSED struct identity identity_create(const struct identity_options *o)
{
	static long serial = 1;
	struct identity id = { EVP_EC_gen("P-256"), X509_new(), NULL };
	NET_MUST(id.key && id.certificate);
	X509_set_version(id.certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(id.certificate), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(id.certificate), o->from_s ? o->from_s : -86400);
	X509_gmtime_adj(X509_getm_notAfter(id.certificate), o->to_s ? o->to_s : 86400);
	X509_set_pubkey(id.certificate, id.key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(id.certificate), "CN", MBSTRING_ASC, (const unsigned char *)o->name, -1, -1, 0);
	X509 *issuer = o->issuer ? o->issuer->certificate : id.certificate;
	X509_set_issuer_name(id.certificate, X509_get_subject_name(issuer));
	if (o->is_ca)
		net_extension(id.certificate, issuer, NID_basic_constraints, "critical,CA:TRUE");
	if (o->alternative)
		net_extension(id.certificate, issuer, NID_subject_alt_name, o->alternative);
	NET_MUST(X509_sign(id.certificate, o->issuer ? o->issuer->key : id.key, EVP_sha256()));
	return id;
}

static NET_UNUSED void identity_finish(struct identity *id)
{
	EVP_PKEY_free(id->key);
	X509_free(id->certificate);
}

static NET_UNUSED void identity_fingerprint(const struct identity *id, unsigned char digest[32])
{
	unsigned char all[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	NET_MUST(X509_digest(id->certificate, EVP_sha256(), all, &len) && len == 32);
	memcpy(digest, all, 32);
}

static NET_UNUSED void identity_save(const struct identity *id, const char *path)
{
	FILE *f = fopen(path, "w");
	NET_MUST(f && PEM_write_X509(f, id->certificate));
	fclose(f);
}

/* --- one connection, seen from the server */

struct peer {
	int fd;
	SSL *ssl;
	void *argument;
};

static void net_ignore_sigpipe_here(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* of this thread alone; the client's is what is tested */
}

static NET_UNUSED ssize_t peer_read(struct peer *p, void *data, size_t size)
{
	return p->ssl ? SSL_read(p->ssl, data, (int)size) : recv(p->fd, data, size, 0);
}

static NET_UNUSED int peer_write(struct peer *p, const void *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		size_t chunk = len - at < 1U << 20 ? len - at : 1U << 20;
		ssize_t n = p->ssl ? SSL_write(p->ssl, (const char *)data + at, (int)chunk)
		                   : send(p->fd, (const char *)data + at, chunk, MSG_NOSIGNAL);
		if (n <= 0)
			return 0;
		at += (size_t)n;
	}
	return 1;
}

static NET_UNUSED int peer_say(struct peer *p, const char *text)
{
	return peer_write(p, text, strlen(text));
}

/* reads up to and with the next LF; an empty line at the end of the connection */
static NET_UNUSED char *peer_line(struct peer *p, char *line, size_t size)
{
	size_t len = 0;
	while (len + 1 < size && peer_read(p, line + len, 1) == 1)
		if (line[len++] == '\n')
			break;
	line[len] = 0;
	return line;
}

/* until the client has gone */
static NET_UNUSED void peer_drain(struct peer *p)
{
	char data[4096];
	while (peer_read(p, data, sizeof data) > 0)
		;
}

static NET_UNUSED int peer_handshake(struct peer *p, SSL_CTX *context)
{
	p->ssl = SSL_new(context);
	SSL_set_fd(p->ssl, p->fd);
	if (SSL_accept(p->ssl) == 1)
		return 1;
	ERR_clear_error();
	return 0;
}

static NET_UNUSED SSL_CTX *server_context(const struct identity *id)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	NET_MUST(context && SSL_CTX_use_certificate(context, id->certificate) && SSL_CTX_use_PrivateKey(context, id->key));
	SSL_CTX_set_session_id_context(context, (const unsigned char *)"t", 1);
	return context;
}

/* --- the server */

typedef void server_script(struct peer *peer);

struct server {
	int fd;
	uint16_t port;
	pthread_t thread;
	server_script *script;
	void *argument;
	atomic_bool stopping;
	atomic_int accepted;
};

static uint16_t net_listen(int *ret_fd, int backlog)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	*ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	NET_MUST(*ret_fd >= 0 && !bind(*ret_fd, (struct sockaddr *)&address, size) && !listen(*ret_fd, backlog));
	NET_MUST(!getsockname(*ret_fd, (struct sockaddr *)&address, &size));
	return ntohs(address.sin_port);
}

static void *server_run(void *argument)
{
	struct server *s = argument;
	net_ignore_sigpipe_here();
	for (;;) {
		struct peer peer = { accept(s->fd, NULL, NULL), NULL, s->argument };
		if (peer.fd < 0)
			return NULL;
		if (!atomic_load(&s->stopping)) {
			atomic_fetch_add(&s->accepted, 1);
			s->script(&peer);
		}
		SSL_free(peer.ssl);
		close(peer.fd);
	}
}

static NET_UNUSED void server_start(struct server *s, server_script *script, void *argument)
{
	*s = (struct server){ .script = script, .argument = argument };
	s->port = net_listen(&s->fd, 16);
	NET_MUST(!pthread_create(&s->thread, NULL, server_run, s));
}

/* after the last client has gone */
static NET_UNUSED void server_stop(struct server *s)
{
	atomic_store(&s->stopping, true);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
}

/* A listener that answers nothing at all, not even a connection request: its queue is full. */
struct blackhole {
	int fd, fillers[8];
	uint16_t port;
};

static NET_UNUSED void blackhole_open(struct blackhole *b)
{
	b->port = net_listen(&b->fd, 0);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(b->port) };
	for (size_t i = 0; i < 8; i++) {
		b->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		(void)connect(b->fillers[i], (struct sockaddr *)&address, sizeof address);
	}
}

static NET_UNUSED void blackhole_close(struct blackhole *b)
{
	for (size_t i = 0; i < 8; i++)
		close(b->fillers[i]);
	close(b->fd);
}

/* --- another thread, which raises a stop sign once a thread sleeps */

struct canceller {
	pthread_t thread;
	struct cancel *cancel;
	pid_t whom;
	atomic_bool *ready;   /* may be NULL */
};

static int net_sleeps(pid_t tid)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
	FILE *f = fopen(path, "r");
	NET_MUST(f);
	NET_MUST(fgets(line, sizeof line, f));
	fclose(f);
	const char *state = strrchr(line, ')');
	return state && state[2] == 'S';
}

static void *canceller_run(void *argument)
{
	struct canceller *c = argument;
	while (c->ready && !atomic_load(c->ready))
		sched_yield();
	while (!net_sleeps(c->whom))
		sched_yield();
	cancel_raise(c->cancel);
	return NULL;
}

/* of the calling thread's next sleep, after *ready if given */
static NET_UNUSED void canceller_start(struct canceller *c, struct cancel *cancel, atomic_bool *ready)
{
	*c = (struct canceller){ .cancel = cancel, .whom = (pid_t)syscall(SYS_gettid), .ready = ready };
	NET_MUST(!pthread_create(&c->thread, NULL, canceller_run, c));
}

static NET_UNUSED void canceller_join(struct canceller *c)
{
	pthread_join(c->thread, NULL);
}

#endif

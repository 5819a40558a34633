#include "net/tls_context.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

#define SESSIONS_MAX 8
#define READ_AHEAD 32768  /* several records in one system call; OpenSSL moves what is left to the front at each of them */

struct slot {
	char *key;
	SSL_SESSION *session;
};

struct tls_context {
	_Atomic unsigned owners;
	SSL_CTX *ssl_ctx;
	enum transport_trust trust;
	unsigned char fingerprint[32];
	X509_LOOKUP *bundle;                 /* the system's certificates in one file; read when one of them is missed */
	pthread_mutex_t bundle_lock;
	bool bundle_read;                    /* guarded by bundle_lock */
	pthread_mutex_t lock;                /* of the next two */
	struct slot slots[SESSIONS_MAX];     /* oldest first */
	size_t count;
};

static void drop_slot(struct tls_context *c, size_t i)
{
	free(c->slots[i].key);
	SSL_SESSION_free(c->slots[i].session);
	c->count--;
	memmove(c->slots + i, c->slots + i + 1, (c->count - i) * sizeof *c->slots);
}

/* OpenSSL has a session that can be resumed: with TLS 1.3 a while after the handshake, and often two of them */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct tls_verdict *verdict = SSL_get_app_data(ssl);
	struct tls_context *c = verdict->context;
	pthread_mutex_lock(&c->lock);
	if (c->count == SESSIONS_MAX)
		drop_slot(c, 0);
	c->slots[c->count++] = (struct slot){ mf_strdup(verdict->key), session };
	pthread_mutex_unlock(&c->lock);
	return 1; /* the reference is ours now */
}

/* The newest for key, or NULL; the caller frees it. A ticket of TLS 1.3 is used once (RFC 8446 appendix C.4). */
static SSL_SESSION *take_session(struct tls_context *c, const char *key)
{
	SSL_SESSION *found = NULL;
	pthread_mutex_lock(&c->lock);
	for (size_t i = c->count; i-- > 0 && !found;) {
		if (strcmp(c->slots[i].key, key))
			continue;
		if (!SSL_SESSION_is_resumable(c->slots[i].session)) {
			drop_slot(c, i);
			continue;
		}
		found = c->slots[i].session;
		SSL_SESSION_up_ref(found);
		if (SSL_SESSION_get_protocol_version(found) >= TLS1_3_VERSION)
			drop_slot(c, i);
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

static void hexadecimal(const unsigned char *bytes, char text[FINGERPRINT_CHARS])
{
	for (size_t i = 0; i < 32; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool digest_of(const X509 *certificate, unsigned char digest[EVP_MAX_MD_SIZE])
{
	unsigned len = 0;
	return certificate && X509_digest(certificate, EVP_sha256(), digest, &len) && len == 32;
}

static struct tls_verdict *verdict_of(X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	return SSL_get_app_data(ssl);
}

/* the first few names the certificate is for */
static void note_names(struct tls_verdict *v, const X509 *certificate)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	size_t len = 0;
	for (int i = 0; i < sk_GENERAL_NAME_num(names) && len < sizeof v->detail / 2; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		if (name->type != GEN_DNS)
			continue;
		char text[64];
		mf_printable(text, sizeof text, (const char *)ASN1_STRING_get0_data(name->d.dNSName),
		             (size_t)ASN1_STRING_length(name->d.dNSName));
		int n = snprintf(v->detail + len, sizeof v->detail - len, "%s%s", len ? ", " : "", text);
		len = n < 0 || (size_t)n >= sizeof v->detail - len ? sizeof v->detail - 1 : len + (size_t)n;
	}
	GENERAL_NAMES_free(names);
}

static void note_time(struct tls_verdict *v, const ASN1_TIME *time)
{
	struct tm parts;
	if (ASN1_TIME_to_tm(time, &parts))
		strftime(v->detail, sizeof v->detail, "%Y-%m-%d %H:%M UTC", &parts);
}

static void note(struct tls_verdict *v, X509_STORE_CTX *store, int error)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	X509 *leaf = X509_STORE_CTX_get0_cert(store), *bad = X509_STORE_CTX_get_current_cert(store);
	v->error = error;
	if (digest_of(leaf, digest))
		hexadecimal(digest, v->fingerprint);
	if (leaf && (error == X509_V_ERR_HOSTNAME_MISMATCH || error == X509_V_ERR_IP_ADDRESS_MISMATCH))
		note_names(v, leaf);
	else if (bad && error == X509_V_ERR_CERT_HAS_EXPIRED)
		note_time(v, X509_get0_notAfter(bad));
	else if (bad && error == X509_V_ERR_CERT_NOT_YET_VALID)
		note_time(v, X509_get0_notBefore(bad));
}

static int after_check(int ok, X509_STORE_CTX *store)
{
	if (!ok && !verdict_of(store)->error)
		note(verdict_of(store), store, X509_STORE_CTX_get_error(store));
	return ok;
}

/* instead of the chain's verification */
static int check_pin(X509_STORE_CTX *store, void *argument)
{
	const struct tls_context *c = argument;
	unsigned char digest[EVP_MAX_MD_SIZE];
	if (digest_of(X509_STORE_CTX_get0_cert(store), digest) && !CRYPTO_memcmp(digest, c->fingerprint, 32))
		return 1;
	note(verdict_of(store), store, X509_V_ERR_APPLICATION_VERIFICATION);
	X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

static const char *problem_words(int error)
{
	switch (error) {
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
		return "is self-signed, and nothing here vouches for it";
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		return "was issued by an authority that is not trusted here";
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return "has expired";
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return "is not valid yet";
	default:
		return X509_verify_cert_error_string(error);
	}
}

enum mf_err tls_verdict_reason(const struct tls_verdict *v, const char *host, struct mf_reason *why)
{
	const char *pin = "to trust just this one: tls = fingerprint:SHA256:";
	if (v->error == X509_V_ERR_APPLICATION_VERIFICATION)
		return mf_fail(why, MF_TLS, "the certificate is not the pinned one: it was changed, or somebody is in between; if it was changed: "
		               "tls = fingerprint:SHA256:%s", v->fingerprint);
	if (v->error == X509_V_ERR_HOSTNAME_MISMATCH || v->error == X509_V_ERR_IP_ADDRESS_MISMATCH)
		return mf_fail(why, MF_TLS, "the certificate is for %s, not for %.60s; %s%s", v->detail[0] ? v->detail : "other names", host, pin,
		               v->fingerprint);
	return mf_fail(why, MF_TLS, "the certificate %s%s%s%s; %s%s", problem_words(v->error), v->detail[0] ? " (" : "", v->detail,
	               v->detail[0] ? ")" : "", pin, v->fingerprint);
}

/* The address that host is, without the interface that a link-local one is reached by; NULL: it is a name. The caller frees. */
static char *address_of(const char *host)
{
	unsigned char bytes[16];
	char *address = mf_strndup(host, strcspn(host, "%"));
	if (inet_pton(AF_INET6, address, bytes) == 1 || inet_pton(AF_INET, host, bytes) == 1)
		return address;
	free(address);
	return NULL;
}

/* the macro of OpenSSL casts const away */
static bool set_sni(SSL *ssl, char *name)
{
	return SSL_set_tlsext_host_name(ssl, name) == 1;
}

/* The name to ask for (RFC 6066: never an address) and to verify. */
static bool set_name(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	MF_CLEANUP(mf_free) char *address = address_of(host);
	if (address)
		return X509_VERIFY_PARAM_set1_ip_asc(param, address) == 1;
	MF_CLEANUP(mf_free) char *name = mf_strdup(host);
	size_t len = strlen(name);
	if (len && name[len - 1] == '.')
		name[len - 1] = 0;
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	return X509_VERIFY_PARAM_set1_host(param, name, 0) == 1 && set_sni(ssl, name);
}

SSL *tls_context_new_ssl(struct tls_context *context, const char *host, struct tls_verdict *verdict)
{
	SSL *ssl = SSL_new(context->ssl_ctx);
	if (!ssl)
		return NULL;
	if (!SSL_set_app_data(ssl, verdict) || !set_name(ssl, host)) {
		SSL_free(ssl);
		return NULL;
	}
	verdict->context = context;
	SSL_set_connect_state(ssl);
	SSL_SESSION *session = take_session(context, verdict->key);
	if (session && SSL_set_session(ssl, session))
		trace(TRACE_TLS, "%s: offering a session to resume", verdict->key);
	SSL_SESSION_free(session);
	return ssl;
}

/* Reading all authorities takes longer than the handshake; most servers' is found by name in the folder beside them, or
 * in the account's own file. */
static bool read_bundle(struct tls_context *c)
{
	pthread_mutex_lock(&c->bundle_lock);
	bool first = !c->bundle_read;
	if (first) {
		ERR_set_mark();
		(void)X509_LOOKUP_load_file(c->bundle, NULL, X509_FILETYPE_DEFAULT); /* there may be none */
		ERR_pop_to_mark();
	}
	c->bundle_read = true;
	pthread_mutex_unlock(&c->bundle_lock);
	return first;
}

/* Another connection may have read it after this one's first look, so the second is not only for who read it. */
static int find_issuer(X509 **ret, X509_STORE_CTX *store, X509 *certificate)
{
	int found = X509_STORE_CTX_get1_issuer(ret, store, certificate);
	if (found)
		return found;
	if (read_bundle(verdict_of(store)->context))
		trace(TRACE_TLS, "the system's bundle of certificates was read");
	return X509_STORE_CTX_get1_issuer(ret, store, certificate);
}

static enum mf_err use_system_store(struct tls_context *c, struct mf_reason *why)
{
	X509_STORE *store = SSL_CTX_get_cert_store(c->ssl_ctx);
	c->bundle = X509_STORE_add_lookup(store, X509_LOOKUP_file());
	if (!c->bundle || !SSL_CTX_set_default_verify_dir(c->ssl_ctx))
		return mf_fail(why, MF_TLS, "the system's certificate store cannot be used");
	X509_STORE_set_get_issuer(store, find_issuer);
	return MF_OK;
}

static enum mf_err set_trust(struct tls_context *c, const struct tls_options *options, struct mf_reason *why)
{
	c->trust = options->trust;
	switch (options->trust) {
	case TRUST_ANY:
		SSL_CTX_set_verify(c->ssl_ctx, SSL_VERIFY_NONE, NULL);
		return MF_OK;
	case TRUST_FINGERPRINT:
		memcpy(c->fingerprint, options->fingerprint, sizeof c->fingerprint);
		SSL_CTX_set_verify(c->ssl_ctx, SSL_VERIFY_PEER, NULL);
		SSL_CTX_set_cert_verify_callback(c->ssl_ctx, check_pin, c);
		return MF_OK;
	case TRUST_VERIFY:
		break;
	}
	SSL_CTX_set_verify(c->ssl_ctx, SSL_VERIFY_PEER, after_check);
	/* whatever the ca_file holds is an anchor, be it no root */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(c->ssl_ctx), X509_V_FLAG_PARTIAL_CHAIN);
	enum mf_err e = use_system_store(c, why);
	if (e)
		return e;
	if (options->ca_file && !SSL_CTX_load_verify_file(c->ssl_ctx, options->ca_file))
		return mf_fail(why, MF_INVALID, "tls-ca-file: no certificates could be read from %s", options->ca_file);
	return MF_OK;
}

static enum mf_err set_up(struct tls_context *c, const struct tls_options *options, struct mf_reason *why)
{
	c->ssl_ctx = SSL_CTX_new(TLS_client_method());
	if (!c->ssl_ctx || !SSL_CTX_set_min_proto_version(c->ssl_ctx, TLS1_2_VERSION))
		return mf_fail(why, MF_TLS, "OpenSSL cannot be used: %s", ERR_reason_error_string(ERR_peek_error()));
	SSL_CTX_set_options(c->ssl_ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(c->ssl_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(c->ssl_ctx, 1);
	SSL_CTX_set_default_read_buffer_len(c->ssl_ctx, READ_AHEAD);
	SSL_CTX_set_session_cache_mode(c->ssl_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(c->ssl_ctx, keep_session);
	return set_trust(c, options, why);
}

enum mf_err tls_context_create(const struct tls_options *options, struct tls_context **ret, struct mf_reason *why)
{
	struct tls_context *c = MF_NEW(struct tls_context);
	c->owners = 1;
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->bundle_lock, NULL);
	ERR_clear_error();
	enum mf_err e = set_up(c, options, why);
	ERR_clear_error();
	if (e) {
		tls_context_destroy(c);
		return e;
	}
	*ret = c;
	return MF_OK;
}

bool tls_context_verifies(const struct tls_context *c)
{
	return c->trust != TRUST_ANY;
}

enum mf_err tls_context_for(const struct account_config *config, const struct server_address *server, struct tls_context **ret, struct mf_reason *why)
{
	static const enum transport_trust trust[] = { [TLS_VERIFY] = TRUST_VERIFY, [TLS_FINGERPRINT] = TRUST_FINGERPRINT, [TLS_INSECURE] = TRUST_ANY };
	struct tls_options options = { .trust = trust[config->tls], .fingerprint = config->fingerprint, .ca_file = config->tls_ca_file };
	*ret = NULL;
	return server->host && server->security != SECURITY_NONE ? tls_context_create(&options, ret, why) : MF_OK;
}

struct tls_context *tls_context_share(struct tls_context *c)
{
	if (c)
		c->owners++;
	return c;
}

void tls_context_destroy(struct tls_context *c)
{
	if (!c || --c->owners)
		return;
	while (c->count)
		drop_slot(c, c->count - 1);
	SSL_CTX_free(c->ssl_ctx);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->bundle_lock);
	free(c);
}

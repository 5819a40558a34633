/* Sessions as the config wants them: what all connections of one account share. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "sync/engine.h"
#include "sync/imap/imap.h"
#include "sync/pop3/pop3.h"

#define MEMORY_NOTE "imap-memory"
#define LINGER_MS 1500  /* a POP3 connection waits as long for more to do before the mailbox is given back */

/* What a session is made of, by the settings. Sessions share in it. */
struct access {
	const struct account_config *config;
	struct tls_context *tls, *pop3_tls;     /* NULL: no encryption, or no such server */
	struct credentials *credentials;
};

struct connector {
	struct cache *cache;
	struct imap_memory *memory;
	struct pop3_memory *pop3_memory;
	struct traffic *traffic;
	pthread_mutex_t lock;           /* guards what follows */
	char *saved;                    /* the memory as it was last saved */
	struct access access;
};

static struct credentials *connector_credentials(const struct account_config *config)
{
	return credentials_create(config->user, config->password, config->password_command);
}

static void access_finish(struct access *access)
{
	credentials_destroy(access->credentials);
	tls_context_destroy(access->tls);
	tls_context_destroy(access->pop3_tls);
}

static enum mf_err access_init(const struct account_config *config, struct access *ret, struct mf_reason *why)
{
	struct access access = {.config = config};
	if (!config->imap.host && !config->pop3.host)
		return mf_fail(why, MF_UNSUPPORTED, "%s: no server is set", config->name);
	enum mf_err e = tls_context_for(config, &config->imap, &access.tls, why);
	if (e == MF_OK)
		e = tls_context_for(config, &config->pop3, &access.pop3_tls, why);
	if (e == MF_OK)
		access.credentials = connector_credentials(config);
	if (e == MF_OK)
		*ret = access;
	else
		access_finish(&access);
	return e;
}

enum mf_err account_check_config(const struct account_config *config, struct mf_reason *why)
{
	struct access access;
	enum mf_err e = access_init(config, &access, why);
	if (e == MF_OK)
		access_finish(&access);
	return e;
}

enum mf_err connector_create(const struct account_config *config, struct cache *cache, struct traffic *traffic, struct connector **ret, struct mf_reason *why)
{
	struct access access;
	enum mf_err e = access_init(config, &access, why);
	if (e != MF_OK)
		return e;
	imap_global_init();
	struct connector *c = MF_NEW(struct connector);
	c->cache = cache;
	c->traffic = traffic;
	c->access = access;
	pthread_mutex_init(&c->lock, NULL);
	if (cache_get_note(cache, MEMORY_NOTE, &c->saved) != MF_OK)
		c->saved = NULL;
	c->memory = imap_memory_create(c->saved);
	c->pop3_memory = pop3_memory_create();
	*ret = c;
	return MF_OK;
}

void connector_destroy(struct connector *c)
{
	if (!c)
		return;
	connector_learnt(c);
	access_finish(&c->access);
	imap_memory_destroy(c->memory);
	pop3_memory_destroy(c->pop3_memory);
	pthread_mutex_destroy(&c->lock);
	free(c->saved);
	free(c);
}

enum mf_err connector_configure(struct connector *c, const struct account_config *config, struct mf_reason *why)
{
	struct access access, old;
	enum mf_err e = access_init(config, &access, why);
	if (e != MF_OK)
		return e;
	pthread_mutex_lock(&c->lock);
	old = c->access;
	c->access = access;
	pthread_mutex_unlock(&c->lock);
	access_finish(&old);
	return MF_OK;
}

static struct transport_options connector_line(const struct connector *c, const struct server_address *server, struct tls_context *tls, struct cancel *cancel)
{
	const struct account_config *config = c->access.config;
	return (struct transport_options){
		.host = server->host, .port = server->port, .implicit_tls = server->security == SECURITY_TLS, .tls = tls,
		.connect_timeout_ms = config->connect_timeout_ms, .io_timeout_ms = config->io_timeout_ms, .cancel = cancel, .traffic = c->traffic,
	};
}

static enum mf_err load_numbers(void *cache, struct uidls *ret)
{
	return cache_uidls(cache, ret);
}

static enum mf_err save_numbers(void *cache, const struct uidls_change *change)
{
	return cache_uidls_store(cache, change);
}

static struct remote *connector_make_pop3_locked(struct connector *c, bool fallback, uint32_t imap_uidvalidity, uint32_t imap_uidnext, struct cancel *cancel)
{
	const struct account_config *config = c->access.config;
	if (!config->pop3.host)
		return NULL;
	struct pop3_options options = {
		.transport = connector_line(c, &config->pop3, c->access.pop3_tls, cancel),
		.require_starttls = config->pop3.security == SECURITY_STARTTLS,
		.clear_allowed = config->tls_insecure,
		.credentials = c->access.credentials, .auth = config->auth, .memory = c->pop3_memory, .linger_ms = LINGER_MS,
		.store = {load_numbers, save_numbers, c->cache}, .imap_uidvalidity = imap_uidvalidity, .imap_uidnext = imap_uidnext,
		.read_only = fallback, /* what is to be changed waits for IMAP */
	};
	return pop3_remote_create(&options);
}

struct remote *connector_make_fallback(struct connector *c, uint32_t uidvalidity, uint32_t uidnext, struct cancel *cancel)
{
	pthread_mutex_lock(&c->lock);
	struct remote *remote = connector_make_pop3_locked(c, true, uidvalidity, uidnext, cancel);
	pthread_mutex_unlock(&c->lock);
	return remote;
}

static struct remote *connector_make_imap_locked(struct connector *c, unsigned roles, struct cancel *cancel)
{
	const struct account_config *config = c->access.config;
	struct imap_options options = {
		.transport = connector_line(c, &config->imap, c->access.tls, cancel),
		.require_starttls = config->imap.security == SECURITY_STARTTLS,
		.clear_allowed = config->tls_insecure,
		.credentials = c->access.credentials, .auth = config->auth, .memory = c->memory, .idle = config->idle,
		/* bodies are mostly compressed or encrypted already, and deflate costs more than a fast line */
		.compress = !(roles & ROLE_BULK),
		.list_ahead = roles & ROLE_WORKER,
	};
	return imap_remote_create(&options);
}

struct remote *connector_make(void *connector, unsigned roles, struct cancel *cancel)
{
	struct connector *c = connector;
	pthread_mutex_lock(&c->lock);
	struct remote *remote = c->access.config->imap.host ? connector_make_imap_locked(c, roles, cancel)
	                                                    : connector_make_pop3_locked(c, false, 0, 0, cancel);
	pthread_mutex_unlock(&c->lock);
	return remote;
}

void connector_learnt(struct connector *c)
{
	char *text = imap_memory_text(c->memory);
	pthread_mutex_lock(&c->lock);
	bool news = text && (!c->saved || strcmp(text, c->saved) != 0);
	const char *account = c->access.config->name;
	if (news) {
		free(c->saved);
		c->saved = mf_strdup(text);
	}
	pthread_mutex_unlock(&c->lock);
	if (news) {
		enum mf_err e = cache_set_note(c->cache, MEMORY_NOTE, text);
		if (e != MF_OK)
			log_error("%s: %s", account, mf_err_words(e));
	}
	free(text);
}

bool account_has_capability(struct account *a, const char *name)
{
	MF_CLEANUP(mf_free) char *text = NULL;
	size_t len = strlen(name);
	if (cache_get_note(a->cache, MEMORY_NOTE, &text) != MF_OK)
		return false;
	const char *line = strstr(text, "after-auth="), *at = line;
	while (at && (at = strstr(at, name)) && at < line + strcspn(line, "\n")) {
		if (strchr("= ", at[-1]) && (at[len] == ' ' || at[len] == '\n' || !at[len]))
			return true;
		at += len;
	}
	return false;
}

void connector_forget_password(struct connector *c)
{
	pthread_mutex_lock(&c->lock);
	credentials_destroy(c->access.credentials); /* sessions that have it go on with it */
	c->access.credentials = connector_credentials(c->access.config);
	pthread_mutex_unlock(&c->lock);
}

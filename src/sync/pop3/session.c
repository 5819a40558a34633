/* The "pop3" session as remote.h knows it, and what one session leaves for the next. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/pop3/client.h"

#define LINGER_MAX_MS 60000

/* --- memory ---------------------------------------------------------------------------------------------------------------- */

struct pop3_memory {
	pthread_mutex_t lock;       /* guards what follows */
	int64_t login_ms, delay_ms; /* monotonic; login 0: never */
	bool sizes_lie, narrow;
};

struct pop3_memory *pop3_memory_create(void)
{
	struct pop3_memory *m = MF_NEW(struct pop3_memory);
	pthread_mutex_init(&m->lock, NULL);
	return m;
}

void pop3_memory_destroy(struct pop3_memory *m)
{
	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	free(m);
}

int64_t pop3_memory_wait_ms(struct pop3_memory *m)
{
	pthread_mutex_lock(&m->lock);
	int64_t wait = m->login_ms ? m->login_ms + m->delay_ms - clock_mono_ms() : 0;
	pthread_mutex_unlock(&m->lock);
	return wait > 0 ? wait : 0;
}

void pop3_memory_login(struct pop3_memory *m, int64_t delay_ms)
{
	pthread_mutex_lock(&m->lock);
	m->login_ms = clock_mono_ms();
	if (delay_ms)
		m->delay_ms = delay_ms;
	pthread_mutex_unlock(&m->lock);
}

bool pop3_memory_sizes_lie(struct pop3_memory *m)
{
	pthread_mutex_lock(&m->lock);
	bool lie = m->sizes_lie;
	pthread_mutex_unlock(&m->lock);
	return lie;
}

void pop3_memory_size_lied(struct pop3_memory *m)
{
	pthread_mutex_lock(&m->lock);
	m->sizes_lie = true;
	pthread_mutex_unlock(&m->lock);
}

bool pop3_memory_is_narrow(struct pop3_memory *m)
{
	pthread_mutex_lock(&m->lock);
	bool narrow = m->narrow;
	pthread_mutex_unlock(&m->lock);
	return narrow;
}

void pop3_memory_narrow(struct pop3_memory *m)
{
	pthread_mutex_lock(&m->lock);
	m->narrow = true;
	pthread_mutex_unlock(&m->lock);
}

/* --- failing ----------------------------------------------------------------------------------------------------------------- */

enum mf_err pop3_fail(struct pop3 *s, enum mf_err e, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(s->why.text, sizeof s->why.text, format, arguments);
	va_end(arguments);
	if (!s->dead && (mf_err_scope(e) >= MF_SCOPE_CONNECTION || e == MF_CANCELLED))
		s->dead = e;
	return e;
}

enum mf_err pop3_fail_transport(struct pop3 *s, enum mf_err e)
{
	const char *reason = s->transport ? transport_reason(s->transport) : "";
	if (e == MF_TIMEOUT)
		pop3_memory_narrow(s->options.memory);
	return pop3_fail(s, e, "%s", *reason ? reason : mf_err_words(e));
}

enum mf_err pop3_sleep(struct pop3 *s, int64_t ms, int wake_fd, bool *ret_woken)
{
	struct cancel *cancel = s->options.transport.cancel;
	struct pollfd fds[2] = { { .fd = cancel->fd, .events = POLLIN }, { .fd = wake_fd, .events = POLLIN } };
	int64_t until = clock_mono_ms() + ms;
	*ret_woken = false;
	for (;;) {
		if (cancel_is_raised(cancel))
			return pop3_fail(s, MF_CANCELLED, "interrupted");
		int64_t left = ms < 0 ? 3600000 : until - clock_mono_ms();
		if (left <= 0)
			return MF_OK;
		if (poll(fds, 2, left > 3600000 ? 3600000 : (int)left) < 0 && errno != EINTR)
			return pop3_fail(s, MF_IO, "poll: %s", strerror(errno));
		if (fds[1].revents) {
			*ret_woken = true;
			return MF_OK;
		}
	}
}

/* --- the verbs ----------------------------------------------------------------------------------------------------------------- */

static struct pop3 *of(struct remote *r)
{
	return (struct pop3 *)(void *)r;
}

static enum mf_err login_verb(struct remote *r, struct mf_reason *why)
{
	struct pop3 *s = of(r);
	enum mf_err e = s->dead ? s->dead : pop3_connect(s);
	if (e && !s->dead)
		s->dead = e;
	if (e && why)
		*why = s->why;
	return e;
}

static unsigned caps_verb(struct remote *r)
{
	(void)r;
	return 0;
}

static enum mf_err mailboxes_verb(struct remote *r, const struct mailbox_sink *sink)
{
	struct pop3 *s = of(r);
	static const struct remote_mailbox inbox = { .raw = "INBOX", .flags = MAILBOX_NOINFERIORS | MAILBOX_SUBSCRIBED, .use = USE_INBOX };
	if (s->dead)
		return s->dead;
	enum mf_err e = sink->mailbox(sink->context, &inbox);
	return e ? pop3_fail(s, e, "%s", mf_err_words(e)) : MF_OK;
}

/* What a sink said stops more than the verb: the session's end. */
static enum mf_err verb_over(struct pop3 *s, enum mf_err e)
{
	if (e && !s->dead && mf_err_scope(e) >= MF_SCOPE_CONNECTION)
		return pop3_fail(s, e, "%s", mf_err_words(e));
	return e;
}

static enum mf_err changes_verb(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	struct pop3 *s = of(r);
	return s->dead ? s->dead : verb_over(s, pop3_changes(s, since, count, sink));
}

static enum mf_err fetch_verb(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink)
{
	struct pop3 *s = of(r);
	return s->dead ? s->dead : verb_over(s, pop3_fetch(s, source, sink));
}

static enum mf_err write_verb(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	struct pop3 *s = of(r);
	return s->dead ? s->dead : verb_over(s, pop3_write(s, writes, count, sink));
}

/* A server that wants few logins has the maildrop held for longer instead, so that a reader need not wait. */
static int64_t linger_ms(const struct pop3 *s)
{
	int64_t delay = (int64_t)s->caps.login_delay_s * 1000;
	if (delay > LINGER_MAX_MS)
		delay = LINGER_MAX_MS;
	return delay > s->options.linger_ms ? delay : s->options.linger_ms;
}

/* Nothing is to do: the maildrop is given back, after a little while in which something may still come. */
static enum mf_err wait_verb(struct remote *r, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink)
{
	struct pop3 *s = of(r);
	(void)raw;
	(void)sink;
	bool woken = false, ok;
	int64_t begun = clock_mono_ms(), linger = linger_ms(s);
	if (s->dead)
		return s->dead;
	if (s->transport) {
		bool short_wait = timeout_ms >= 0 && timeout_ms < linger;
		if (linger > s->options.linger_ms)
			pop3_store_learnt(s); /* the end of the connection is far off */
		enum mf_err e = pop3_sleep(s, short_wait ? timeout_ms : linger, wake_fd, &woken);
		if (e || woken || short_wait)
			return e;
		e = pop3_quit(s, &ok);
		if (e == MF_CANCELLED)
			return e;
		s->dead = MF_OK; /* whether the server had already hung up does not matter */
	}
	int64_t left = timeout_ms < 0 ? -1 : timeout_ms - (clock_mono_ms() - begun);
	return timeout_ms >= 0 && left <= 0 ? MF_OK : pop3_sleep(s, left, wake_fd, &woken);
}

static enum mf_err quota_verb(struct remote *r, struct quota *ret)
{
	(void)ret;
	struct pop3 *s = of(r);
	return s->dead ? s->dead : pop3_fail(s, MF_UNSUPPORTED, "POP3 knows no quota");
}

static const char *reason_verb(struct remote *r)
{
	return of(r)->why.text;
}

/* One write that cannot wait. Nothing was marked deleted: the answer is nobody's. */
static void say_goodbye(struct pop3 *s)
{
	if (s->dead || !s->transport || !s->in_transaction)
		return;
	transport_set_deadline(s->transport, 1); /* long past */
	if (transport_write(s->transport, "QUIT\r\n", 6) == MF_OK)
		(void)transport_flush(s->transport);
}

static void destroy_verb(struct remote *r)
{
	struct pop3 *s = of(r);
	say_goodbye(s);
	pop3_drop(s);
	uidls_finish(&s->numbers);
	free(s->in);
	free(s->host);
	credentials_destroy(s->options.credentials);
	tls_context_destroy(s->options.transport.tls);
	free(s);
}

#define VERBS .name = "pop3", .login = login_verb, .caps = caps_verb, .mailboxes = mailboxes_verb, .changes = changes_verb, \
	.fetch = fetch_verb, .wait = wait_verb, .quota = quota_verb, .reason = reason_verb, .destroy = destroy_verb
static const struct remote_impl implementation = { VERBS, .write = write_verb }, read_only = { VERBS };

static enum mf_err dial_transport(void *context, const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	(void)context;
	return transport_open(options, ret, why);
}

struct remote *pop3_remote_create(const struct pop3_options *options)
{
	return pop3_remote_dial(options, dial_transport, NULL);
}

struct remote *pop3_remote_dial(const struct pop3_options *options, pop3_dial *dial, void *context)
{
	struct pop3 *s = MF_NEW(struct pop3);
	s->remote = (struct remote){ .impl = options->read_only ? &read_only : &implementation, .owner = pthread_self() };
	s->options = *options;
	s->host = mf_strdup(options->transport.host ? options->transport.host : "");
	s->options.transport.host = s->host;
	s->options.credentials = credentials_share(options->credentials);
	s->options.transport.tls = tls_context_share(options->transport.tls);
	s->dial = dial;
	s->dial_context = context;
	s->in = mf_alloc(IN_SIZE);
	maildrop_init(&s->drop);
	return &s->remote;
}

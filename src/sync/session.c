/* One thread for each connection: connect, look for work, do it, wait. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/engine.h"

#define SLEPT_MS 10000          /* CLOCK_BOOTTIME further ahead than before: the machine was suspended */
#define KEPT_MS 5000            /* who reads what has been read ahead for him has come by then, or does so at leisure */
#define BULK_IDLE_MS 600000     /* an unused connection for bodies is given back to the server */

/* --- waking and stopping ------------------------------------------------------------------------------------------- */

void session_wake_locked(struct session *s)
{
	/* a full counter is readable too */
	(void)eventfd_write(s->wake_fd, 1);
}

void sessions_wake_locked(struct account *a, unsigned roles)
{
	for (size_t i = 0; i < a->session_count; i++) {
		struct session *s = &a->sessions[i];
		if (session_roles_locked(s) & roles)
			session_wake_locked(s);
	}
}

void session_reset_locked(struct session *s)
{
	s->reset = true;
	s->failures = 0;
	s->next_try_ms = 0;
	cancel_raise(&s->cancel);
	session_wake_locked(s);
}

unsigned session_roles_locked(const struct session *s)
{
	unsigned roles = s->roles;
	if (!(roles & ROLE_WORKER))
		return roles;
	const struct account *a = s->account;
	for (size_t i = 1; i < a->session_count; i++) {
		const struct session *other = &a->sessions[i];
		if (!other->connected && (other->failed || (other->roles & ROLE_BULK)))
			roles |= other->roles;
	}
	return roles;
}

void session_drain(struct session *s)
{
	eventfd_t ignored;
	(void)eventfd_read(s->wake_fd, &ignored);
}

/* Sleeps until woken, stopped or the time is up (false). */
static bool session_sleep(struct session *s, int64_t ms)
{
	struct pollfd fds[2] = {{.fd = s->wake_fd, .events = POLLIN}, {.fd = s->cancel.fd, .events = POLLIN}};
	int timeout = ms < 0 || ms > 3600000 ? 3600000 : (int)ms;
	int n = poll(fds, 2, timeout);
	if (n < 0 && errno != EINTR)
		log_error("%s: poll: %s", s->account->config->name, strerror(errno));
	session_drain(s);
	return n != 0;
}

void session_progress(struct session *s, uint64_t total, bool bytes, const char *format, ...)
{
	struct account_progress p = {.total = total, .bytes = bytes};
	va_list args;
	va_start(args, format);
	char text[sizeof p.doing];
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	mf_printable(p.doing, sizeof p.doing, text, strlen(text));
	pthread_mutex_lock(&s->account->lock);
	s->progress = p;
	pthread_mutex_unlock(&s->account->lock);
}

/* --- connecting ------------------------------------------------------------------------------------------------------ */

/* The INBOX is being read for the first time. Its news would have to wait for that, and a second login takes time from it, here
 * and at the server. */
static bool session_inbox_is_coming_locked(struct account *a)
{
	const struct mailbox_work *w = a->index_is_new ? NULL : id_table_get(&a->mailboxes, a->inbox);
	return a->index_is_new || (w && w->cold && (w->running || w->pending != PRIORITY_NONE));
}

/* How long until this session may connect; 0: now, -1: only when woken. */
static int64_t session_turn_locked(struct session *s)
{
	struct account *a = s->account;
	int64_t now = clock_mono_ms();
	if (s->roles & ROLE_WORKER) {
		if (a->link.next_try_ms == INT64_MAX)
			return -1;
		return a->link.next_try_ms > now ? a->link.next_try_ms - now : 0;
	}
	if (a->link.state != LINK_ONLINE || s->useless || a->link.fallback)
		return -1; /* a POP3 server locks the mailbox for one session */
	if (s->roles == ROLE_WATCH && !a->config->idle)
		return -1;
	if (s->roles & ROLE_WATCH ? session_inbox_is_coming_locked(a) : !jobs_bulk_is_wanted_locked(a))
		return -1;
	return s->next_try_ms > now ? s->next_try_ms - now : 0;
}

/* false: the account stops. */
static bool session_wait_turn(struct session *s)
{
	struct account *a = s->account;
	for (;;) {
		pthread_mutex_lock(&a->lock);
		if (!a->stopping && s->reset) {
			cancel_clear(&s->cancel);
			s->reset = false;
		}
		bool stop = a->stopping;
		int64_t wait = stop ? 0 : session_turn_locked(s);
		if (wait == 0 && !stop && (s->roles & ROLE_WORKER) && a->link.state == LINK_OFFLINE)
			a->link.next_try_s = 0;
		pthread_mutex_unlock(&a->lock);
		if (stop || wait == 0)
			return !stop;
		session_sleep(s, wait);
	}
}

static void session_connected(struct session *s, unsigned caps)
{
	struct account *a = s->account;
	pthread_mutex_lock(&a->lock);
	if (s->reset) { /* told to stop while it logged in: it leaves at once */
		pthread_mutex_unlock(&a->lock);
		return;
	}
	s->connected = true;
	s->up_ms = clock_mono_ms();
	s->failed = false;
	s->caps = caps;
	s->watch_begun = false;
	s->quota_ms = 0;
	if (s->roles & ROLE_WORKER) {
		link_up_locked(a);
		replay_connected_locked(a);
	}
	pthread_mutex_unlock(&a->lock);
	atomic_fetch_add(&a->connections, 1);
}

/* INBOX's numbers as IMAP last told them; zeroes where it never did. */
static void session_inbox_numbers(struct session *s, uint32_t *ret_uidvalidity, uint32_t *ret_uidnext)
{
	struct mailbox m;
	*ret_uidvalidity = *ret_uidnext = 0;
	if (cache_mailbox_by_raw(s->account->cache, "INBOX", &m) != MF_OK)
		return;
	*ret_uidvalidity = m.server_uidvalidity ? m.server_uidvalidity : m.uidvalidity;
	*ret_uidnext = m.server_uidvalidity == m.uidvalidity && m.uidnext > m.server_uidnext ? m.uidnext : m.server_uidnext;
	mailbox_finish(&m);
}

/* IMAP could not be reached: by POP3 if it is time for that. Otherwise, and when that does not work either, IMAP's failure
 * stands. */
static enum mf_err session_fall_back(struct session *s, enum mf_err e, struct mf_reason *why)
{
	struct account *a = s->account;
	struct mf_reason pop3_why = {""};
	uint32_t uidvalidity, uidnext;
	pthread_mutex_lock(&a->lock);
	bool due = (s->roles & ROLE_WORKER) && !s->reset && !a->stopping && fallback_is_due_locked(a, e);
	pthread_mutex_unlock(&a->lock);
	if (!due)
		return e;
	remote_destroy(s->remote);
	session_inbox_numbers(s, &uidvalidity, &uidnext);
	s->remote = connector_make_fallback(a->connector, uidvalidity, uidnext, &s->cancel);
	if (!s->remote)
		return e;
	enum mf_err by_pop3 = remote_login(s->remote, &pop3_why);
	pthread_mutex_lock(&a->lock);
	if (by_pop3 == MF_OK)
		fallback_begin_locked(a, why->text[0] ? why->text : mf_err_words(e));
	else if (by_pop3 == MF_AUTH)
		a->link.pop3_refused = true;
	pthread_mutex_unlock(&a->lock);
	if (by_pop3 == MF_OK)
		return MF_OK;
	const char *reason = pop3_why.text[0] ? pop3_why.text : mf_err_words(by_pop3);
	if (by_pop3 == MF_AUTH) /* what IMAP says of the same password is another matter */
		log_warning("%s: POP3 cannot take IMAP's place: %s", a->config->name, reason);
	else
		log_info("%s: POP3 cannot be reached either: %s", a->config->name, reason);
	return e;
}

static void session_imap_answers(struct session *s)
{
	pthread_mutex_lock(&s->account->lock);
	if (s->roles & ROLE_WORKER)
		fallback_end_locked(s->account);
	pthread_mutex_unlock(&s->account->lock);
}

/* During a fallback: IMAP again, if it is time. MF_OK: the session is what it was, or by IMAP now. */
static enum mf_err session_try_imap(struct session *s)
{
	struct account *a = s->account;
	struct mf_reason why = {""};
	pthread_mutex_lock(&a->lock);
	bool due = fallback_next_try_locked(a) <= clock_mono_ms() && !s->reset && !a->stopping;
	pthread_mutex_unlock(&a->lock);
	if (!due)
		return MF_OK;
	struct remote *imap = a->make_remote(a->make_context, ROLE_WORKER, &s->cancel);
	enum mf_err e = remote_login(imap, &why);
	if (e == MF_OK || e == MF_AUTH) { /* a refused password is refused: the account waits for its user */
		remote_destroy(s->remote);
		s->remote = imap;
	} else {
		remote_destroy(imap);
	}
	if (e == MF_OK) {
		session_imap_answers(s);
		connector_learnt(a->connector);
		session_connected(s, remote_caps(s->remote));
		return MF_OK;
	}
	pthread_mutex_lock(&a->lock);
	fallback_tried_locked(a, why.text[0] ? why.text : mf_err_words(e));
	pthread_mutex_unlock(&a->lock);
	return e == MF_AUTH || e == MF_CANCELLED ? e : MF_OK;
}

static enum mf_err session_connect(struct session *s, struct mf_reason *why)
{
	struct account *a = s->account;
	pthread_mutex_lock(&a->lock);
	bool forget = (s->roles & ROLE_WORKER) && a->link.forget_credentials;
	if (forget)
		a->link.forget_credentials = false;
	unsigned roles = session_roles_locked(s);
	pthread_mutex_unlock(&a->lock);
	if (forget && a->connector)
		connector_forget_password(a->connector);
	s->remote = a->make_remote(a->make_context, roles, &s->cancel);
	if (!s->remote)
		return mf_fail(why, MF_IO, "no connection could be set up");
	enum mf_err e = remote_login(s->remote, why);
	if (e == MF_OK)
		session_imap_answers(s);
	else
		e = session_fall_back(s, e, why);
	if (e != MF_OK)
		return e;
	if (a->connector)
		connector_learnt(a->connector);
	session_connected(s, remote_caps(s->remote));
	return MF_OK;
}

static void session_lost(struct session *s, enum mf_err e, const char *reason)
{
	struct account *a = s->account;
	pthread_mutex_lock(&a->lock);
	bool was = s->connected;
	s->connected = s->idle = s->idling_watch = false;
	s->progress = (struct account_progress){0};
	if (was && e == MF_TIMEOUT)
		wants_expire_locked(a, clock_mono_ms() - a->config->io_timeout_ms);
	if (s->reset || a->stopping || e == MF_OK) {
		/* on purpose: nobody failed */
	} else if (s->roles & ROLE_WORKER) {
		link_failed_locked(a, was, e, reason);
	} else {
		s->failures = was && link_lasted(s->up_ms) ? 1 : s->failures + 1;
		s->failed = true;
		s->next_try_ms = clock_mono_ms() + backoff_ms(s->failures + 2, (unsigned)clock_wall_ns());
		log_info("%s: an additional connection failed: %s", a->config->name, reason && *reason ? reason : mf_err_words(e));
		/* what it noticed may concern the worker's connection as well, which finds out by using it */
		a->list_pending |= was;
		sessions_wake_locked(a, ROLE_WORKER);
	}
	pthread_mutex_unlock(&a->lock);
}

/* --- serving ----------------------------------------------------------------------------------------------------------- */

static enum mf_err session_quota(struct session *s)
{
	struct account *a = s->account;
	struct quota quota;
	enum mf_err e = remote_quota(s->remote, &quota);
	pthread_mutex_lock(&a->lock);
	if (e == MF_OK)
		a->quota = quota;
	a->quota_known = e == MF_OK;
	pthread_mutex_unlock(&a->lock);
	return mf_err_scope(e) <= MF_SCOPE_MAILBOX ? MF_OK : e;
}

/* What was stored or expunged counts from now on. */
static enum mf_err session_replay(struct session *s)
{
	struct account *a = s->account;
	enum mf_err e = replay_run(s);
	pthread_mutex_lock(&a->lock);
	a->quota_is_old |= a->quota_known && a->quota.limit;
	pthread_mutex_unlock(&a->lock);
	return e;
}

/* What is to be kept, and how much, may have become another matter. */
static enum mf_err session_list(struct session *s)
{
	enum mf_err e = listing_fetch(s);
	bodies_evict(s->account);
	return e;
}

static enum mf_err session_do(struct session *s, const struct task *t)
{
	switch (t->kind) {
	case TASK_LIST:
		return session_list(s);
	case TASK_SYNC:
		return syncmail_changes(s, t->mailboxes, t->count);
	case TASK_FETCH:
		return bodies_fetch(s);
	case TASK_QUOTA:
		return session_quota(s);
	case TASK_REPLAY:
		return session_replay(s);
	case TASK_KEEP:
		return keeping_run(s);
	case TASK_NONE:
		break;
	}
	return MF_OK;
}

/* A machine that slept has connections that only look alive. A thread that had to wait between the two clocks finds too little. */
static bool session_slept(struct session *s)
{
	int64_t boot = clock_boot_ms(), offset = boot - clock_mono_ms(), before = s->sleep_offset_ms;
	if (offset > before)
		s->sleep_offset_ms = offset;
	return offset - before > SLEPT_MS;
}

static void session_nothing_pushed(void *context, const char *raw, bool new_only)
{
	(void)context;
	(void)raw;
	(void)new_only;
}

/* POP3: the session has something to do while it has nothing to do, which is to give the mailbox back. */
static enum mf_err session_rest(struct session *s, int64_t wait_ms)
{
	enum mf_err e = remote_wait(s->remote, "INBOX", wait_ms, s->wake_fd, &(struct push_sink){session_nothing_pushed, NULL});
	session_drain(s);
	return e;
}

/* Readers come for what they have been waiting for. */
static void session_nap(struct session *s, int64_t wait_ms)
{
	bool cut = s->kept && (wait_ms < 0 || wait_ms > KEPT_MS);
	if (!session_sleep(s, cut ? KEPT_MS : wait_ms))
		kept_forget(s);
}

static enum mf_err session_idle(struct session *s, int64_t wait_ms, unsigned roles)
{
	enum mf_err e = MF_OK;
	if ((roles & ROLE_WATCH) && push_can_wait(s)) {
		kept_forget(s);
		e = push_wait(s, wait_ms);
		session_drain(s);
	} else if (!(s->caps & REMOTE_MAILBOXES)) {
		kept_forget(s);
		e = session_rest(s, wait_ms);
	} else {
		session_nap(s, wait_ms);
	}
	if (session_slept(s)) {
		log_info("%s: the machine was asleep, connecting again", s->account->config->name);
		account_connect(s->account);
	}
	return e;
}

static bool session_should_leave_locked(struct session *s, int64_t idle_since)
{
	if (s->reset || s->account->stopping)
		return true;
	if (s->roles == ROLE_WATCH && !push_can_wait(s)) {
		s->useless = s->account->config->idle;
		return true;
	}
	return s->roles == ROLE_BULK && clock_mono_ms() - idle_since > BULK_IDLE_MS && !jobs_bulk_is_wanted_locked(s->account);
}

static enum mf_err session_serve(struct session *s)
{
	struct account *a = s->account;
	enum mf_err e = MF_OK;
	int64_t idle_since = clock_mono_ms();
	while (e == MF_OK) {
		struct task task = {.kind = TASK_NONE};
		int64_t wait_ms = 0;
		pthread_mutex_lock(&a->lock);
		if (session_should_leave_locked(s, idle_since)) {
			pthread_mutex_unlock(&a->lock);
			break;
		}
		bool imap_due = fallback_next_try_locked(a) <= clock_mono_ms();
		if (!imap_due)
			jobs_take_locked(s, &task, &wait_ms);
		unsigned roles = session_roles_locked(s);
		s->idle = task.kind == TASK_NONE && !imap_due;
		if (s->idle)
			s->progress = (struct account_progress){0};
		pthread_mutex_unlock(&a->lock);
		if (imap_due) {
			e = session_try_imap(s);
		} else if (task.kind == TASK_NONE) {
			e = session_idle(s, wait_ms, roles);
		} else {
			e = session_do(s, &task);
			idle_since = clock_mono_ms();
		}
		task_finish(&task);
		wants_deliver(a);
	}
	return e;
}

static void *session_main(void *context)
{
	struct session *s = context;
	s->sleep_offset_ms = clock_boot_ms() - clock_mono_ms();
	while (session_wait_turn(s)) {
		struct mf_reason why = {""};
		enum mf_err e = session_connect(s, &why);
		if (e == MF_OK) {
			e = session_serve(s);
			if (e != MF_OK)
				snprintf(why.text, sizeof why.text, "%s", remote_reason(s->remote));
		}
		kept_forget(s);
		remote_destroy(s->remote);
		s->remote = NULL;
		session_lost(s, e, why.text);
		wants_deliver(s->account);
	}
	return NULL;
}

void session_start(struct session *s)
{
	if (pthread_create(&s->thread, NULL, session_main, s) != 0) {
		log_error("no thread can be started");
		abort();
	}
}

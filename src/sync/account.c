#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/downloads.h"

/* --- life ------------------------------------------------------------------------------------------------------------------ */

static void account_choose_roles(struct account *a)
{
	static const unsigned three[] = {ROLE_WORKER, ROLE_BULK, ROLE_WATCH};
	/* of two the second is for news if there are to be any, else for bodies */
	unsigned second = a->config->idle ? ROLE_WATCH : ROLE_BULK;
	unsigned two[] = {(ROLE_WORKER | ROLE_BULK | ROLE_WATCH) & ~second, second}, one[] = {ROLE_WORKER | ROLE_BULK | ROLE_WATCH};
	/* a POP3 server locks the mailbox for one session */
	bool pop3 = a->connector && !a->config->imap.host;
	a->session_count = pop3 || a->config->connections == 1 ? 1 : a->config->connections == 2 ? 2 : 3;
	const unsigned *roles = a->session_count == 1 ? one : a->session_count == 2 ? two : three;
	for (size_t i = 0; i < a->session_count; i++)
		a->sessions[i].roles = roles[i];
}

static bool account_has_note(struct account *a, const char *key)
{
	char *text = NULL;
	bool has = cache_get_note(a->cache, key, &text) == MF_OK;
	free(text);
	return has;
}

static enum mf_err account_open_sessions(struct account *a, struct mf_reason *why)
{
	account_choose_roles(a);
	for (size_t i = 0; i < a->session_count; i++) {
		struct session *s = &a->sessions[i];
		s->account = a;
		s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (s->wake_fd < 0 || !cancel_init(&s->cancel)) {
			mf_close(&s->wake_fd);
			a->session_count = i;
			return mf_fail(why, MF_IO, "out of file descriptors");
		}
	}
	return MF_OK;
}

static void account_free(struct account *a)
{
	for (size_t i = 0; i < a->session_count; i++) {
		mf_close(&a->sessions[i].wake_fd);
		cancel_finish(&a->sessions[i].cancel);
	}
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		free(w->raw);
		free(w);
	}
	id_table_finish(&a->mailboxes);
	bodies_finish_locked(a);
	readahead_destroy(a->ahead);
	connector_destroy(a->connector);
	pthread_cond_destroy(&a->listed_cond);
	pthread_cond_destroy(&a->fired_cond);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static void account_init_locks(struct account *a)
{
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->listed_cond, &monotonic);
	pthread_cond_init(&a->fired_cond, NULL);
	pthread_condattr_destroy(&monotonic);
}

enum mf_err account_create(const struct account_options *options, struct account **ret, struct mf_reason *why)
{
	struct account *a = MF_NEW(struct account);
	a->config = options->config;
	a->cache = options->cache;
	a->bus = options->bus;
	a->make_remote = options->make_remote;
	a->make_context = options->make_context;
	account_init_locks(a);
	a->ahead = readahead_create();
	a->index_is_new = cache_is_new(a->cache);
	a->sizes_lie = account_has_note(a, "sizes-lie");
	a->no_qresync = account_has_note(a, "no-qresync");
	a->replay_at_ms = INT64_MAX;
	link_init(a, options->offline);
	enum mf_err e = MF_OK;
	if (!a->make_remote) {
		e = connector_create(a->config, a->cache, &a->traffic, &a->connector, why);
		a->make_remote = connector_make;
		a->make_context = a->connector;
	}
	if (e == MF_OK)
		e = account_open_sessions(a, why);
	if (e != MF_OK) {
		account_free(a);
		return e;
	}
	*ret = a;
	return MF_OK;
}

/* Delivers what was settled by threads that must not call back. */
static void *keeper_main(void *context)
{
	struct account *a = context;
	pthread_mutex_lock(&a->lock);
	for (;;) {
		while (!a->fired && !a->sessions_gone)
			pthread_cond_wait(&a->fired_cond, &a->lock);
		if (!a->fired)
			break;
		pthread_mutex_unlock(&a->lock);
		wants_deliver(a);
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

void account_start(struct account *a)
{
	a->started = true;
	if (pthread_create(&a->keeper, NULL, keeper_main, a) != 0) {
		log_error("no thread can be started");
		abort();
	}
	for (size_t i = 0; i < a->session_count; i++)
		session_start(&a->sessions[i]);
}

void account_destroy(struct account *a)
{
	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	a->stopping = true;
	wants_fail_locked(a, MF_CANCELLED);
	for (size_t i = 0; i < a->session_count; i++)
		session_reset_locked(&a->sessions[i]);
	pthread_cond_broadcast(&a->listed_cond);
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < a->session_count && a->started; i++)
		pthread_join(a->sessions[i].thread, NULL);
	pthread_mutex_lock(&a->lock);
	wants_fail_locked(a, MF_CANCELLED); /* replay may have asked for something meanwhile */
	a->sessions_gone = true;
	pthread_cond_broadcast(&a->fired_cond);
	pthread_mutex_unlock(&a->lock);
	if (a->started)
		pthread_join(a->keeper, NULL);
	wants_deliver(a); /* of an account that was never started */
	account_free(a);
}

/* Who shares the worker's connection gets news or not as that was made. */
static bool account_listens_anew(struct account *a, const struct account_config *old, const struct account_config *config)
{
	return old->idle != config->idle && (a->sessions[0].roles & ROLE_WATCH) && a->link.state == LINK_ONLINE;
}

enum mf_err account_configure(struct account *a, const struct account_config *config, struct mf_reason *why)
{
	enum mf_err e = a->connector ? connector_configure(a->connector, config, why) : MF_OK;
	if (e != MF_OK)
		return e;
	cache_body_limits(a->cache, config->cache_size, config->cache_min_free);
	pthread_mutex_lock(&a->lock);
	bool anew = account_listens_anew(a, a->config, config);
	a->config = config;
	sessions_wake_locked(a, ROLE_WORKER | ROLE_WATCH);
	pthread_mutex_unlock(&a->lock);
	if (anew)
		account_connect(a);
	account_refresh(a); /* which mailboxes there are, and how much of each, is seen to by a list */
	return MF_OK;
}

const struct account_config *account_config(const struct account *a)
{
	return a->config;
}

struct cache *account_cache(const struct account *a)
{
	return a->cache;
}

/* --- wants ------------------------------------------------------------------------------------------------------------------- */

static enum mf_err link_error_locked(const struct account *a)
{
	if (a->stopping)
		return MF_CANCELLED;
	return a->link.state == LINK_OFFLINE || a->link.state == LINK_WAITING ? MF_OFFLINE : MF_OK;
}

static enum mf_err mailbox_error_locked(const struct account *a, bool is_inbox)
{
	enum mf_err e = link_error_locked(a);
	return e == MF_OK && !fallback_reaches(a->link.fallback, is_inbox) ? MF_OFFLINE : e;
}

/* The mailbox's list became complete while nobody looked; checked under the lock that completion needs. */
static bool work_is_complete_locked(const struct mailbox_work *w)
{
	return !w->cold && w->seen_messages != 0;
}

enum extent { THE_WHOLE, MOST, MORE };

static bool want_list_of(struct account *a, uint64_t mailbox, enum extent extent, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	*ret = NULL;
	struct mailbox m;
	*ret_result = cache_mailbox(a->cache, mailbox, &m);
	if (*ret_result != MF_OK)
		return true;
	bool complete = m.complete || !m.raw || (m.flags & MAILBOX_NOSELECT), is_inbox = m.use == USE_INBOX;
	mailbox_finish(&m);
	if (complete)
		return true;
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, mailbox);
	*ret_result = mailbox_error_locked(a, is_inbox);
	bool answered = *ret_result != MF_OK || work_is_complete_locked(w) || (extent == MOST && w->running && w->most_is_here);
	if (!answered) {
		struct want *want = want_create_locked(a, WANT_PARTS, done, context);
		want->most = extent != THE_WHOLE;
		part_add_locked(w->running ? &w->running_waiters : &w->waiters, want);
		if (!w->running)
			work_want_locked(a, w, PRIORITY_PERSON, CHANGES_AUTO);
		*ret = want;
	}
	pthread_mutex_unlock(&a->lock);
	return answered;
}

bool account_want_mailbox(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	return want_list_of(a, mailbox, THE_WHOLE, done, context, ret_result, ret);
}

bool account_want_most(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	return want_list_of(a, mailbox, MOST, done, context, ret_result, ret);
}

bool account_want_more(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	return want_list_of(a, mailbox, MORE, done, context, ret_result, ret);
}

bool account_want_body(struct account *a, struct body *body, uint64_t offset, uint64_t length, want_done *done, void *context,
                       enum mf_err *ret_result, struct want **ret)
{
	if (!body_has(body, offset, length))
		return bodies_want(a, body, offset, length, done, context, ret_result, ret);
	*ret = NULL;
	*ret_result = MF_OK;
	account_passed(a, body, offset, length);
	return true;
}

void account_passed(struct account *a, struct body *body, uint64_t offset, uint64_t length)
{
	if (!body_is_whole(body)) {
		pthread_mutex_lock(&a->lock);
		bodies_passed_locked(a, body, offset, length);
		pthread_mutex_unlock(&a->lock);
	}
	lookahead_note(a, 0, body_message(body), false);
}

static void want_list_locked(struct account *a, struct want *want)
{
	part_add_locked(&a->list_waiters, want);
	a->list_pending = true;
	a->list_priority = PRIORITY_PERSON;
	sessions_wake_locked(a, ROLE_WORKER);
}

static void want_mailbox_parts_locked(struct account *a, struct want *want, uint64_t mailbox)
{
	struct mailbox_work *w = work_get_locked(a, mailbox);
	part_add_locked(&w->waiters, want);
	if (want->populate) {
		part_add_locked(&w->populate_waiters, want);
		work_populate_locked(a, w, 0);
	}
	work_want_locked(a, w, PRIORITY_PERSON, CHANGES_AUTO);
}

static bool want_work(struct account *a, const uint64_t *mailboxes, size_t count, bool populate, bool verify, want_done *done,
                      void *context, enum mf_err *ret_result, struct want **ret)
{
	*ret = NULL;
	pthread_mutex_lock(&a->lock);
	*ret_result = link_error_locked(a);
	for (size_t i = 0; i < count && *ret_result == MF_OK; i++)
		*ret_result = mailbox_error_locked(a, mailboxes[i] == a->inbox);
	bool answered = *ret_result != MF_OK;
	if (!answered) {
		struct want *want = want_create_locked(a, WANT_PARTS, done, context);
		want->populate = populate;
		want->verify = verify;
		if (count == 0)
			want_list_locked(a, want);
		for (size_t i = 0; i < count; i++)
			want_mailbox_parts_locked(a, want, mailboxes[i]);
		*ret = want;
	}
	pthread_mutex_unlock(&a->lock);
	return answered;
}

bool account_want_sync(struct account *a, const uint64_t *mailboxes, size_t count, bool populate, want_done *done, void *context,
                       enum mf_err *ret_result, struct want **ret)
{
	return want_work(a, mailboxes, count, populate, false, done, context, ret_result, ret);
}

bool account_want_verify(struct account *a, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	return want_work(a, NULL, 0, false, true, done, context, ret_result, ret);
}

static bool watched_locked(const struct account *a, const struct mailbox_work *w)
{
	for (size_t i = 0; i < a->session_count; i++) {
		const struct session *s = &a->sessions[i];
		if (s->idling_watch && (w->is_inbox || (s->caps & REMOTE_PUSH_ALL)))
			return true;
	}
	return false;
}

void account_touch(struct account *a, uint64_t mailbox)
{
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = id_table_get(&a->mailboxes, mailbox);
	int64_t now = clock_mono_ms();
	/* a cold one is asked for by a want; one that is not known yet by the listing that is to come */
	bool due = w && w->raw && !w->cold && !w->running && a->link.state == LINK_ONLINE
		&& (w->checked_ms == 0 || now - w->checked_ms > RECENT_MS) && (a->listed_ms == 0 || now - a->listed_ms > RECENT_MS);
	if (due && !watched_locked(a, w))
		work_want_locked(a, w, PRIORITY_LOOKED_AT, CHANGES_AUTO);
	pthread_mutex_unlock(&a->lock);
}

/* --- what is going on --------------------------------------------------------------------------------------------------------- */

static uint64_t account_rate_locked(struct account *a)
{
	int64_t now = clock_mono_ms(), past = now - a->rate_ms;
	uint64_t bytes = atomic_load(&a->traffic.received);
	if (past >= 500) {
		a->rate = past > 5000 ? 0 : (bytes - a->rate_bytes) * 1000 / (uint64_t)past;
		a->rate_bytes = bytes;
		a->rate_ms = now;
	}
	return a->rate;
}

void account_progress(struct account *a, struct account_progress *ret)
{
	*ret = (struct account_progress){0};
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < a->session_count && !ret->doing[0]; i++)
		*ret = a->sessions[i].progress;
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));)
		ret->queued += w->pending != PRIORITY_NONE || w->populate;
	for (int i = 0; i < QUEUE_COUNT; i++)
		ret->queued += a->queues[i].count;
	ret->queued += a->list_pending;
	uint64_t rate = account_rate_locked(a);
	ret->rate = ret->doing[0] ? rate : 0;
	if (ret->done > ret->total)
		ret->total = ret->done;
	pthread_mutex_unlock(&a->lock);
	if (ret->queued && !ret->doing[0])
		snprintf(ret->doing, sizeof ret->doing, "waiting for the connection");
}

void account_counters(struct account *a, struct account_counters *ret)
{
	*ret = (struct account_counters){
		.received = atomic_load(&a->traffic.received), .sent = atomic_load(&a->traffic.sent), .connections = atomic_load(&a->connections),
		.fetched_messages = atomic_load(&a->fetched_messages), .fetched_bytes = atomic_load(&a->fetched_bytes),
	};
}

bool account_quota(struct account *a, struct quota *ret)
{
	pthread_mutex_lock(&a->lock);
	bool known = a->quota_known;
	if (known)
		*ret = a->quota;
	pthread_mutex_unlock(&a->lock);
	return known;
}

void account_quota_matters(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->quota_is_old = true;
	sessions_wake_locked(a, ROLE_WORKER);
	pthread_mutex_unlock(&a->lock);
}

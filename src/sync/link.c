/* The account's connection as a person sees it. The worker's session is the one that counts: it connects first, and the
 * others only while it is online, so that a wrong password is tried once and an unreachable server by one thread. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "sync/engine.h"

#define BACKOFF_MIN_MS 1000
#define BACKOFF_MAX_MS 300000
#define BACKOFF_BRIEF_MS 60000 /* where a connection can be made, and does not last */
#define QUICK_RETRIES 4
#define LASTING_MS 10000       /* a connection that has lasted so long was worth making */
#define BACKOFF_TLS_MS 60000   /* a bad certificate is seldom repaired within seconds */
#define BACKOFF_SPACE_MS 30000 /* the server is well, and nobody tells that there is room again */

int64_t backoff_ms(unsigned failures, unsigned random)
{
	int64_t ms = BACKOFF_MIN_MS << (failures > 9 ? 9 : failures ? failures - 1 : 0);
	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	ms += ms / 4 * (int64_t)(random % 1001) / 500 - ms / 4;
	return ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms < BACKOFF_MIN_MS ? BACKOFF_MIN_MS : ms;
}

bool link_lasted(int64_t up_ms)
{
	return clock_mono_ms() - up_ms >= LASTING_MS;
}

/* Jitter need not be secret: clocks of two machines differ in these digits. */
static unsigned link_random(void)
{
	return (unsigned)((uint64_t)clock_wall_ns() / 1000 * 2654435761U >> 8);
}

static void link_set_locked(struct account *a, enum link_state state, enum mf_err error, const char *reason)
{
	struct link *l = &a->link;
	bool news = l->state != state || l->error != error;
	if (news)
		l->since_s = clock_wall_s();
	l->state = state;
	l->error = error;
	snprintf(l->reason.text, sizeof l->reason.text, "%s", reason ? reason : "");
	if (news)
		bus_publish(a->bus, &(struct change){.kind = CHANGE_LINK, .account = cache_account(a->cache)});
	pthread_cond_broadcast(&a->listed_cond);
}

void link_init(struct account *a, bool offline)
{
	a->link = (struct link){.state = offline ? LINK_WAITING : LINK_CONNECTING, .since_s = clock_wall_s(),
	                        .next_try_ms = offline ? INT64_MAX : 0};
}

void link_up_locked(struct account *a)
{
	link_set_locked(a, LINK_ONLINE, MF_OK, NULL);
	a->link.up_ms = clock_mono_ms();
	a->listed_ms = 0;
	a->list_pending = true;
	if (a->list_priority < PRIORITY_BACKGROUND)
		a->list_priority = PRIORITY_BACKGROUND;
	for (size_t i = 0; i < a->session_count; i++)
		a->sessions[i].next_try_ms = 0;
	sessions_wake_locked(a, ~0U);
}

void link_listed_locked(struct account *a)
{
	a->link.listed = true;
	a->link.attempted = true;
	pthread_cond_broadcast(&a->listed_cond);
}

enum mf_err want_error(enum mf_err e)
{
	bool own = e == MF_TIMEOUT || e == MF_AUTH || e == MF_NO_SPACE || e == MF_IO || e == MF_CORRUPT;
	return own ? e : MF_OFFLINE;
}

/* One that had worked is tried anew at once, and who waits goes on waiting for that; but not in a loop, which a server makes that
 * hangs up at the same command each time. */
static bool link_retry_at_once(struct link *l, bool was_connected, enum mf_err error)
{
	bool hopeless = error == MF_AUTH || error == MF_TLS || error == MF_NO_SPACE || error == MF_IO || error == MF_CORRUPT;
	return was_connected && !hopeless && l->quick_retries++ < QUICK_RETRIES;
}

void link_failed_locked(struct account *a, bool was_connected, enum mf_err error, const char *reason)
{
	struct link *l = &a->link;
	if (was_connected && link_lasted(l->up_ms))
		l->failures = l->quick_retries = 0;
	if (link_retry_at_once(l, was_connected, error)) {
		log_info("%s: connection lost (%s), connecting again", a->config->name, reason && *reason ? reason : mf_err_words(error));
		l->next_try_ms = 0;
		link_set_locked(a, LINK_CONNECTING, error, reason);
		return;
	}
	l->failures++;
	l->attempted = true;
	int64_t wait = backoff_ms(l->failures, link_random());
	if (error == MF_TLS && wait < BACKOFF_TLS_MS)
		wait = BACKOFF_TLS_MS;
	if (was_connected && wait > BACKOFF_BRIEF_MS)
		wait = BACKOFF_BRIEF_MS;
	if (error == MF_NO_SPACE && wait > BACKOFF_SPACE_MS)
		wait = BACKOFF_SPACE_MS;
	wait = fallback_cut_wait_locked(a, wait);
	bool stop = error == MF_AUTH;
	l->next_try_ms = stop ? INT64_MAX : clock_mono_ms() + wait;
	l->next_try_s = stop ? 0 : clock_wall_s() + wait / 1000;
	log_warning("%s: not connected: %s%s%s", a->config->name, mf_err_words(error), reason && *reason ? ": " : "", reason ? reason : "");
	link_set_locked(a, stop ? LINK_WAITING : LINK_OFFLINE, error, reason);
	wants_fail_locked(a, want_error(error));
	bodies_drop_idle_locked(a);
	for (size_t i = 1; i < a->session_count; i++)
		session_reset_locked(&a->sessions[i]);
}

void account_link(struct account *a, struct link_info *ret)
{
	pthread_mutex_lock(&a->lock);
	*ret = (struct link_info){
		.state = a->link.state, .error = a->link.error, .reason = a->link.reason, .since_s = a->link.since_s,
		.next_try_s = a->link.state == LINK_OFFLINE ? a->link.next_try_s : 0,
		.pop3 = a->link.fallback || (!a->config->imap.host && a->config->pop3.host),
	};
	if (a->link.fallback) {
		ret->imap_reason = a->link.imap_reason;
		ret->imap_try_s = clock_wall_s() + (a->link.imap_try_ms - clock_mono_ms()) / 1000;
	}
	pthread_mutex_unlock(&a->lock);
}

void account_connect(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	struct link *l = &a->link;
	l->forget_credentials |= l->error == MF_AUTH;
	l->failures = 0;
	l->quick_retries = 0;
	l->attempted = false;
	l->next_try_ms = 0;
	work_forget_cuts_locked(a);
	fallback_retry_locked(a);
	if (!a->stopping) {
		for (size_t i = 0; i < a->session_count; i++)
			session_reset_locked(&a->sessions[i]);
		link_set_locked(a, LINK_CONNECTING, MF_OK, NULL);
	}
	pthread_mutex_unlock(&a->lock);
}

void account_disconnect(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->link.next_try_ms = INT64_MAX;
	a->link.attempted = true;
	a->link.imap_down_ms = 0; /* from now on it does not fail, it is left alone */
	link_set_locked(a, LINK_WAITING, MF_OK, "disconnected by command");
	for (size_t i = 0; i < a->session_count; i++)
		session_reset_locked(&a->sessions[i]);
	wants_fail_locked(a, MF_OFFLINE);
	bodies_drop_idle_locked(a);
	pthread_mutex_unlock(&a->lock);
}

enum mf_err account_wait_listed(struct account *a, int64_t timeout_ms, struct mf_reason *why)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(timeout_ms / 1000);
	until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	int waited = 0;
	pthread_mutex_lock(&a->lock);
	while (!a->link.listed && !a->link.attempted && !a->stopping && waited == 0)
		waited = pthread_cond_timedwait(&a->listed_cond, &a->lock, &until);
	enum mf_err e = a->link.listed ? MF_OK : a->stopping ? MF_CANCELLED : !a->link.attempted ? MF_TIMEOUT
		: a->link.error != MF_OK ? a->link.error : MF_OFFLINE;
	struct mf_reason reason = a->link.reason;
	pthread_mutex_unlock(&a->lock);
	if (e == MF_OK)
		return MF_OK;
	return mf_fail(why, e, "%s", reason.text[0] ? reason.text : e == MF_TIMEOUT ? "the server has not answered yet" : mf_err_words(e));
}

/* The memory back-end: one connection. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/mem.h"
#include "sync/memory_state.h"

#define LOGIN_ROUND_TRIPS 3
#define BUFFERED_NS 50000000

static struct memory_session *session_of(struct remote *r)
{
	return (struct memory_session *)r;
}

/* --- the line ---------------------------------------------------------------------------------------------------------- */

int64_t memory_now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void session_logout_locked(struct memory_session *s)
{
	if (s->logged_in)
		s->server->logged_in--;
	s->logged_in = false;
}

enum mf_err memory_die(struct memory_session *s, enum mf_err e, const char *reason)
{
	pthread_mutex_lock(&s->server->lock);
	session_logout_locked(s);
	pthread_mutex_unlock(&s->server->lock);
	s->dead = e;
	s->reason = reason;
	return e;
}

enum mf_err memory_sleep_until(struct memory_session *s, int64_t ns)
{
	for (;;) {
		int64_t left = ns - memory_now_ns();
		if (left <= 0)
			return MF_OK;
		struct pollfd stop = {.fd = s->cancel->fd, .events = POLLIN};
		struct timespec t = {.tv_sec = (time_t)(left / 1000000000), .tv_nsec = (long)(left % 1000000000)};
		if (ppoll(&stop, 1, &t, NULL) < 0 && errno != EINTR)
			return memory_die(s, MF_IO, "poll failed");
		if (cancel_is_raised(s->cancel))
			return memory_die(s, MF_CANCELLED, "stopped");
	}
}

enum mf_err memory_travel(struct memory_session *s, unsigned round_trips)
{
	pthread_mutex_lock(&s->server->lock);
	int64_t ns = s->server->round_trip_ms * 1000000 * round_trips;
	pthread_mutex_unlock(&s->server->lock);
	return ns ? memory_sleep_until(s, memory_now_ns() + ns) : MF_OK;
}

/* All connections share one line. Returns when these bytes will have passed it. */
static int64_t line_take_locked(struct memory_server *m, size_t bytes)
{
	int64_t earliest = memory_now_ns() - BUFFERED_NS;
	/* what it carried while the receiver was busy waits in the buffers of the system */
	if (m->line_free_ns < earliest)
		m->line_free_ns = earliest;
	m->line_free_ns += (int64_t)(bytes * 1000000000 / m->bytes_per_s);
	return m->line_free_ns;
}

static enum mf_err session_block(struct memory_session *s, enum memory_verb verb)
{
	struct memory_server *m = s->server;
	bool counted = false, raised = false;
	for (;;) {
		pthread_mutex_lock(&m->lock);
		bool wait = (m->blocking[verb] || m->blocking[MEMORY_ANY]) && !raised;
		if (wait != counted) {
			m->blocked += wait ? 1U : UINT32_MAX;
			counted = wait;
			pthread_cond_broadcast(&m->changed);
		}
		pthread_mutex_unlock(&m->lock);
		if (!wait)
			return raised ? memory_die(s, MF_CANCELLED, "stopped") : MF_OK;
		struct pollfd fds[2] = {{.fd = m->release_fd, .events = POLLIN}, {.fd = s->cancel->fd, .events = POLLIN}};
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return memory_die(s, MF_IO, "poll failed");
		raised = cancel_is_raised(s->cancel);
	}
}

/* From this answer on they wait. */
static bool pause_is_due_locked(struct memory_server *m)
{
	eventfd_t ignored;
	if (m->pause_answers != UINT32_MAX && m->pause_answers-- == 0) {
		(void)eventfd_read(m->release_fd, &ignored);
		m->blocking[MEMORY_ANSWER] = true;
	}
	return m->blocking[MEMORY_ANSWER];
}

enum mf_err memory_answer(struct memory_session *s, size_t bytes)
{
	struct memory_server *m = s->server;
	if (cancel_is_raised(s->cancel))
		return memory_die(s, MF_CANCELLED, "stopped");
	pthread_mutex_lock(&m->lock);
	bool cut = m->cut_answers == 0 || s->dropped;
	if (m->cut_answers == 0)
		m->cut_answers = UINT32_MAX;
	else if (m->cut_answers != UINT32_MAX)
		m->cut_answers--;
	m->answers++;
	bool pause = pause_is_due_locked(m);
	int64_t free_ns = m->bytes_per_s ? line_take_locked(m, bytes) : 0;
	pthread_mutex_unlock(&m->lock);
	if (cut)
		return memory_die(s, MF_OFFLINE, "connection cut");
	enum mf_err e = pause ? session_block(s, MEMORY_ANSWER) : MF_OK;
	if (e != MF_OK)
		return e;
	/* sleeping for every few bytes would measure the timer */
	return free_ns - memory_now_ns() > 1000000 ? memory_sleep_until(s, free_ns) : MF_OK;
}

static enum mf_err fault_locked(struct memory_server *m, enum memory_verb verb)
{
	struct memory_fault *f = &m->faults[verb];
	return f->countdown && --f->countdown == 0 ? f->error : MF_OK;
}

enum mf_err memory_enter(struct memory_session *s, enum memory_verb verb)
{
	struct memory_server *m = s->server;
	if (s->dead != MF_OK)
		return s->dead;
	pthread_mutex_lock(&m->lock);
	m->calls[verb]++;
	m->calls[MEMORY_ANY]++;
	enum mf_err e = fault_locked(m, verb), any = fault_locked(m, MEMORY_ANY);
	bool dropped = s->dropped;
	pthread_mutex_unlock(&m->lock);
	if (e != MF_OK || any != MF_OK)
		return memory_die(s, e != MF_OK ? e : any, "a scripted failure");
	if (dropped)
		return memory_die(s, MF_OFFLINE, "connection cut");
	return session_block(s, verb);
}

/* --- verbs ---------------------------------------------------------------------------------------------------------------- */

static enum mf_err memory_login(struct remote *r, struct mf_reason *why)
{
	struct memory_session *s = session_of(r);
	struct memory_server *m = s->server;
	enum mf_err e = memory_enter(s, MEMORY_LOGIN);
	if (e == MF_OK)
		e = memory_travel(s, LOGIN_ROUND_TRIPS);
	if (e == MF_OK) {
		pthread_mutex_lock(&m->lock);
		e = m->login_result;
		if (e == MF_OK && m->session_limit && m->logged_in >= m->session_limit)
			e = MF_OFFLINE;
		if (e == MF_OK) {
			s->logged_in = true;
			s->caps = m->caps;
			m->logged_in++;
		}
		pthread_mutex_unlock(&m->lock);
		if (e != MF_OK)
			memory_die(s, e, "the server said no");
	}
	return e == MF_OK ? MF_OK : mf_fail(why, e, "%s", s->reason ? s->reason : mf_err_words(e));
}

static unsigned memory_session_caps(struct remote *r)
{
	return session_of(r)->caps;
}

struct listed_copy {
	char *raw;
	char object_id[32];
	unsigned flags;
	enum special_use use;
	struct mailbox_status status;
};

static enum mf_err memory_mailboxes(struct remote *r, const struct mailbox_sink *sink)
{
	struct memory_session *s = session_of(r);
	struct memory_server *m = s->server;
	enum mf_err e = memory_enter(s, MEMORY_MAILBOXES);
	if (e == MF_OK)
		e = memory_travel(s, 1);
	if (e != MF_OK)
		return e;
	struct listed_copy *list = NULL;
	size_t count = 0;
	bool unreadable = false;
	pthread_mutex_lock(&m->lock);
	for (struct memory_mailbox *b = m->mailboxes; b; b = b->next) {
		unreadable |= b->unreadable;
		if (b->unreadable)
			continue;
		list = mf_realloc_array(list, count + 1, sizeof *list);
		list[count] = (struct listed_copy){.raw = mf_strdup(b->raw), .flags = b->flags, .use = b->use};
		if (s->caps & REMOTE_OBJECTID)
			snprintf(list[count].object_id, sizeof list[count].object_id, "B%" PRIu64, b->number);
		if (!m->empty_status && !(b->flags & MAILBOX_NOSELECT)) {
			memory_status_locked(b, s->caps, &list[count].status);
			list[count].flags |= MAILBOX_HAS_STATUS;
		}
		count++;
	}
	pthread_mutex_unlock(&m->lock);
	for (size_t i = 0; i < count; i++) {
		if (e == MF_OK)
			e = memory_answer(s, 150);
		if (e == MF_OK)
			e = sink->mailbox(sink->context, &(struct remote_mailbox){.raw = list[i].raw, .delimiter = '/', .flags = list[i].flags,
			                                                           .use = list[i].use, .status = list[i].status,
			                                                           .object_id = *list[i].object_id ? list[i].object_id : NULL});
		free(list[i].raw);
	}
	free(list);
	if (e == MF_OK && unreadable && sink->unreadable)
		sink->unreadable(sink->context);
	return e;
}

static void notices_drop(struct memory_notice *n)
{
	while (n) {
		struct memory_notice *next = n->next;
		free(n);
		n = next;
	}
}

static struct memory_notice *take_notices_locked(struct memory_session *s)
{
	struct memory_notice *n = s->notices;
	s->notices = NULL;
	s->notices_end = &s->notices;
	return n;
}

static bool session_pushes(const struct memory_session *s)
{
	return s->caps & (REMOTE_PUSH | REMOTE_PUSH_ALL);
}

static enum mf_err memory_wait(struct remote *r, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink)
{
	struct memory_session *s = session_of(r);
	struct memory_server *m = s->server;
	enum mf_err e = memory_enter(s, MEMORY_WAIT);
	if (e != MF_OK)
		return e;
	pthread_mutex_lock(&m->lock);
	if (session_pushes(s) && (!s->watched || strcmp(s->watched, raw) != 0)) {
		free(s->watched);
		s->watched = mf_strdup(raw);
	}
	struct memory_notice *n = take_notices_locked(s);
	pthread_mutex_unlock(&m->lock);
	if (!n) {
		struct pollfd fds[3] = {{.fd = s->event_fd, .events = POLLIN}, {.fd = wake_fd, .events = POLLIN}, {.fd = s->cancel->fd, .events = POLLIN}};
		if (poll(fds, 3, timeout_ms > 3600000 || timeout_ms < 0 ? 3600000 : (int)timeout_ms) < 0 && errno != EINTR)
			return memory_die(s, MF_IO, "poll failed");
		if (cancel_is_raised(s->cancel))
			return memory_die(s, MF_CANCELLED, "stopped");
		eventfd_t ignored;
		pthread_mutex_lock(&m->lock);
		(void)eventfd_read(s->event_fd, &ignored);
		n = take_notices_locked(s);
		bool dropped = s->dropped;
		int64_t half_ns = m->round_trip_ms * 500000;
		pthread_mutex_unlock(&m->lock);
		if (dropped) {
			notices_drop(n);
			return memory_die(s, MF_OFFLINE, "connection cut");
		}
		if (n && half_ns && (e = memory_sleep_until(s, memory_now_ns() + half_ns)) != MF_OK) {
			notices_drop(n);
			return e;
		}
	}
	for (const struct memory_notice *at = n; at; at = at->next)
		sink->changed(sink->context, at->list ? NULL : at->raw, at->new_only);
	notices_drop(n);
	return MF_OK;
}

static enum mf_err memory_session_quota(struct remote *r, struct quota *ret)
{
	struct memory_session *s = session_of(r);
	enum mf_err e = memory_enter(s, MEMORY_QUOTA);
	if (e == MF_OK)
		e = memory_travel(s, 1);
	if (e != MF_OK)
		return e;
	pthread_mutex_lock(&s->server->lock);
	struct quota quota = s->server->quota;
	pthread_mutex_unlock(&s->server->lock);
	if (!(s->caps & REMOTE_QUOTA) || quota.limit == 0)
		return MF_UNSUPPORTED;
	*ret = quota;
	return MF_OK;
}

static const char *memory_session_reason(struct remote *r)
{
	const char *reason = session_of(r)->reason;
	return reason ? reason : "";
}

static void memory_session_destroy(struct remote *r)
{
	struct memory_session *s = session_of(r);
	struct memory_server *m = s->server;
	pthread_mutex_lock(&m->lock);
	session_logout_locked(s);
	for (struct memory_session **at = &m->sessions; *at; at = &(*at)->next) {
		if (*at == s) {
			*at = s->next;
			break;
		}
	}
	pthread_mutex_unlock(&m->lock);
	notices_drop(s->notices);
	mf_close(&s->event_fd);
	free(s->watched);
	free(s);
}

struct remote *memory_remote_create(struct memory_server *m, struct cancel *cancel)
{
	static const struct remote_impl impl = {
		.name = "memory", .login = memory_login, .caps = memory_session_caps, .mailboxes = memory_mailboxes,
		.changes = memory_changes, .fetch = memory_fetch, .wait = memory_wait, .quota = memory_session_quota,
		.write = memory_write, .reason = memory_session_reason, .destroy = memory_session_destroy,
	};
	struct memory_session *s = MF_NEW(struct memory_session);
	s->remote.impl = &impl;
	s->remote.owner = pthread_self();
	s->server = m;
	s->cancel = cancel;
	s->notices_end = &s->notices;
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->event_fd < 0) {
		free(s);
		return NULL;
	}
	pthread_mutex_lock(&m->lock);
	s->remote.late_ms = m->late_ms;
	s->next = m->sessions;
	m->sessions = s;
	pthread_mutex_unlock(&m->lock);
	return &s->remote;
}

struct remote *memory_remote_make(void *server, unsigned roles, struct cancel *cancel)
{
	(void)roles;
	return memory_remote_create(server, cancel);
}

/* What to do next: what a person waits for, then what was just looked at, then the background. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sync/engine.h"

#define SYNC_AT_ONCE 64         /* mailboxes in one pipelined check */
#define SYNC_WEIGHT 2000        /* messages, roughly, in one check in the background: a person waits no longer than for that */
#define QUOTA_MS 600000

struct mailbox_work *work_get_locked(struct account *a, uint64_t mailbox)
{
	struct mailbox_work *w = id_table_get(&a->mailboxes, mailbox);
	if (!w) {
		w = MF_NEW(struct mailbox_work);
		w->id = mailbox;
		w->made_ms = clock_mono_ms();
		w->policy = SYNC_DEMAND;
		id_table_put(&a->mailboxes, mailbox, w);
	}
	return w;
}

void work_remove_locked(struct account *a, struct mailbox_work *w)
{
	id_table_remove(&a->mailboxes, w->id);
	free(w->raw);
	free(w);
}

static unsigned method_rank(enum change_method method)
{
	switch (method) {
	case CHANGES_NEW_ONLY:
		return 0;
	case CHANGES_AUTO:
		return 1;
	case CHANGES_VERIFY:
		return 2;
	case CHANGES_ALL:
		return 3;
	}
	return 3;
}

bool work_rests_locked(const struct mailbox_work *w)
{
	return w->rest_until_ms && clock_mono_ms() < w->rest_until_ms;
}

void work_forget_cuts_locked(struct account *a)
{
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		w->cuts = 0;
		w->rest_until_ms = 0;
	}
}

void work_want_locked(struct account *a, struct mailbox_work *w, enum priority priority, enum change_method method)
{
	if (priority < PRIORITY_PERSON && work_rests_locked(w))
		return; /* the LIST after that finds out whether there is anything to be done */
	if (w->pending == PRIORITY_NONE || method_rank(method) > method_rank(w->method))
		w->method = method;
	if (priority > w->pending)
		w->pending = priority;
	sessions_wake_locked(a, ROLE_WORKER);
	if (priority == PRIORITY_PERSON)
		sessions_wake_locked(a, ROLE_BULK);
}

void work_begin_locked(struct mailbox_work *w, enum change_method method)
{
	w->running = true;
	w->running_method = method;
	w->most_is_here = false;
	w->pending = PRIORITY_NONE;
	w->method = CHANGES_AUTO;
	w->running_waiters = w->waiters;
	w->waiters = NULL;
}

void work_populate_locked(struct account *a, struct mailbox_work *w, uint64_t after)
{
	w->populate_after = w->populate && w->populate_after < after ? w->populate_after : after;
	w->populate = true;
	sessions_wake_locked(a, ROLE_BULK);
}

static bool jobs_can_begin_locked(const struct account *a, const struct mailbox_work *w)
{
	return !w->running && w->pending != PRIORITY_NONE && w->asks_serial <= a->list_serial && fallback_reaches(a->link.fallback, w->is_inbox);
}

static struct mailbox_work *jobs_best_locked(struct account *a, enum priority least)
{
	struct mailbox_work *w, *best = NULL;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		if (w->pending < least || !jobs_can_begin_locked(a, w))
			continue;
		if (!best || w->pending > best->pending
		    || (w->pending == best->pending && (w->is_inbox > best->is_inbox || (w->is_inbox == best->is_inbox && w->id < best->id))))
			best = w;
	}
	return best;
}

static int by_id(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

static void jobs_begin_locked(struct mailbox_work *w, struct task *t)
{
	work_begin_locked(w, w->method);
	t->mailboxes[t->count++] = w->id;
}

/* The most urgent mailbox, and others as urgent as it: one pipelined exchange for all of them. */
static bool jobs_take_sync_locked(struct account *a, enum priority least, struct task *ret)
{
	struct mailbox_work *best = jobs_best_locked(a, least), *w;
	if (!best)
		return false;
	ret->kind = TASK_SYNC;
	ret->mailboxes = mf_alloc_array(SYNC_AT_ONCE, sizeof *ret->mailboxes);
	enum priority priority = best->pending;
	uint32_t weight = best->weight;
	jobs_begin_locked(best, ret);
	for (size_t i = 0; ret->count < SYNC_AT_ONCE && weight < SYNC_WEIGHT && (w = id_table_next(&a->mailboxes, &i));) {
		if (w->pending != priority || w->weight > SYNC_WEIGHT - weight || !jobs_can_begin_locked(a, w))
			continue;
		weight += w->weight;
		jobs_begin_locked(w, ret);
	}
	qsort(ret->mailboxes + 1, ret->count - 1, sizeof *ret->mailboxes, by_id);
	return true;
}

static bool jobs_take_list_locked(struct account *a, enum priority least, struct task *ret)
{
	if (!a->list_pending || a->list_running || a->list_priority < least)
		return false;
	a->list_pending = false;
	a->list_running = true;
	a->list_priority = PRIORITY_NONE;
	a->list_running_waiters = a->list_waiters;
	a->list_waiters = NULL;
	ret->kind = TASK_LIST;
	return true;
}

static bool session_is_free_locked(const struct account *a, unsigned role, const struct session *but)
{
	for (size_t i = 0; i < a->session_count; i++) {
		const struct session *s = &a->sessions[i];
		if (s != but && s->connected && s->idle && !s->reset && (s->roles & role))
			return true;
	}
	return false;
}

static bool jobs_populate_pending_locked(struct account *a)
{
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		if (w->populate && !w->cold && fallback_reaches(a->link.fallback, w->is_inbox))
			return true;
	}
	return false;
}

bool jobs_bulk_is_wanted_locked(struct account *a)
{
	return a->queues[QUEUE_PERSON].count || a->queues[QUEUE_AHEAD].count || a->queues[QUEUE_POPULATE].count
		|| jobs_populate_pending_locked(a);
}

bool jobs_person_waits_locked(struct session *s)
{
	struct account *a = s->account;
	if (session_is_free_locked(a, ROLE_WORKER, s))
		return false;
	struct mailbox_work *best = jobs_best_locked(a, PRIORITY_PERSON);
	return best != NULL || (a->list_pending && a->list_priority == PRIORITY_PERSON && (s->roles & ROLE_WORKER));
}

static void jobs_poll_locked(struct account *a, int64_t now)
{
	if (a->listed_ms && !a->list_running && now - a->listed_ms >= a->config->poll_ms && !a->list_pending) {
		a->list_pending = true;
		a->list_priority = PRIORITY_BACKGROUND;
	}
}

static bool jobs_take_worker_locked(struct session *s, int64_t now, struct task *ret)
{
	struct account *a = s->account;
	jobs_poll_locked(a, now);
	/* a new index knows no mailbox that could be asked for */
	if (jobs_take_list_locked(a, a->index_is_new ? PRIORITY_BACKGROUND : PRIORITY_PERSON, ret))
		return true;
	if (jobs_take_sync_locked(a, PRIORITY_PERSON, ret))
		return true;
	/* a body goes to the connection for bodies if that has nothing else to do */
	if (a->queues[QUEUE_PERSON].count && !session_is_free_locked(a, ROLE_BULK, s)) {
		ret->kind = TASK_FETCH;
		return true;
	}
	if (replay_is_due_locked(a, now)) {
		ret->kind = TASK_REPLAY;
		return true;
	}
	if (jobs_take_list_locked(a, PRIORITY_NONE, ret) || jobs_take_sync_locked(a, PRIORITY_BACKGROUND, ret))
		return true;
	if ((s->caps & REMOTE_QUOTA) && (s->quota_ms == 0 || now - s->quota_ms > QUOTA_MS || a->quota_is_old)) {
		s->quota_ms = now;
		a->quota_is_old = false;
		ret->kind = TASK_QUOTA;
		return true;
	}
	return false;
}

static bool jobs_take_bulk_locked(struct session *s, struct task *ret)
{
	struct account *a = s->account;
	/* the order of jobs_person_waits_locked(), which ends a fetch: else it would begin the same again */
	if (a->queues[QUEUE_PERSON].count)
		ret->kind = TASK_FETCH;
	else if (!session_is_free_locked(a, ROLE_WORKER, s) && jobs_take_sync_locked(a, PRIORITY_PERSON, ret))
		return true;
	else if (jobs_bulk_is_wanted_locked(a))
		ret->kind = TASK_FETCH;
	return ret->kind != TASK_NONE;
}

void jobs_take_locked(struct session *s, struct task *ret, int64_t *ret_wait_ms)
{
	struct account *a = s->account;
	unsigned roles = session_roles_locked(s);
	int64_t now = clock_mono_ms();
	*ret = (struct task){0};
	*ret_wait_ms = 3600000;
	if ((roles & ROLE_WORKER) && jobs_take_worker_locked(s, now, ret))
		return;
	if ((roles & ROLE_BULK) && jobs_take_bulk_locked(s, ret))
		return;
	/* behind the bodies, which it has asked for */
	if ((roles & ROLE_WORKER) && keeping_is_due_locked(a)) {
		ret->kind = TASK_KEEP;
		return;
	}
	if (roles & ROLE_WORKER) {
		int64_t next = a->listed_ms ? a->listed_ms + a->config->poll_ms - now : a->config->poll_ms;
		int64_t replay = replay_wait_ms_locked(a, now);
		next = replay < next ? replay : next;
		*ret_wait_ms = next < 0 ? 0 : next;
	} else if (roles & ROLE_BULK) {
		*ret_wait_ms = 610000;
	}
	int64_t imap = fallback_next_try_locked(a);
	if (imap != INT64_MAX && imap - now < *ret_wait_ms)
		*ret_wait_ms = imap > now ? imap - now : 0;
}

void task_finish(struct task *t)
{
	free(t->mailboxes);
	*t = (struct task){0};
}

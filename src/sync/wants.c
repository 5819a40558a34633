#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sync/engine.h"

struct want *want_create_locked(struct account *a, enum want_kind kind, want_done *done, void *context)
{
	struct want *want = MF_NEW(struct want);
	want->kind = kind;
	want->since_ms = clock_mono_ms();
	want->done = done;
	want->context = context;
	want->next = a->open;
	if (a->open)
		a->open->previous = want;
	a->open = want;
	return want;
}

static void want_unlink_locked(struct account *a, struct want *want)
{
	if (want->next)
		want->next->previous = want->previous;
	if (want->previous)
		want->previous->next = want->next;
	else
		a->open = want->next;
	want->next = want->previous = NULL;
}

void part_add_locked(struct part **list, struct want *want)
{
	struct part *part = MF_NEW(struct part);
	part->want = want;
	part->next = *list;
	*list = part;
	want->parts++;
}

static void part_done_locked(struct account *a, struct part **part, enum mf_err result)
{
	struct part *done = *part;
	*part = done->next;
	if (done->want->result == MF_OK)
		done->want->result = result;
	if (--done->want->parts == 0)
		want_fire_locked(a, done->want, done->want->result);
	free(done);
}

void parts_done_locked(struct account *a, struct part **list, enum mf_err result)
{
	while (*list)
		part_done_locked(a, list, result);
}

void parts_most_done_locked(struct account *a, struct part **list)
{
	while (*list) {
		if ((*list)->want->most)
			part_done_locked(a, list, MF_OK);
		else
			list = &(*list)->next;
	}
}

static void parts_drop_locked(struct part **list, const struct want *want)
{
	while (*list) {
		struct part *part = *list;
		if (part->want == want) {
			*list = part->next;
			free(part);
		} else {
			list = &part->next;
		}
	}
}

/* Rare and short: a cancelled want is looked for wherever its parts can be. */
static void want_drop_parts_locked(struct account *a, const struct want *want)
{
	parts_drop_locked(&a->list_waiters, want);
	parts_drop_locked(&a->list_running_waiters, want);
	parts_drop_locked(&a->settle_waiters, want);
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		parts_drop_locked(&w->waiters, want);
		parts_drop_locked(&w->running_waiters, want);
		parts_drop_locked(&w->populate_waiters, want);
	}
}

static void want_detach_locked(struct account *a, struct want *want)
{
	if (want->kind == WANT_BODY && want->download)
		bodies_waiter_left_locked(a, want);
	else if (want->parts)
		want_drop_parts_locked(a, want);
	want_unlink_locked(a, want);
}

static void want_free(struct want *want)
{
	body_unref(want->body);
	free(want);
}

void want_fire_locked(struct account *a, struct want *want, enum mf_err result)
{
	want_detach_locked(a, want);
	want->fired = true;
	want->result = result;
	if (a->fired_last)
		a->fired_last->next = want;
	else
		a->fired = want;
	a->fired_last = want;
	if (!a->delivers)
		pthread_cond_signal(&a->fired_cond);
}

void wants_fail_locked(struct account *a, enum mf_err result)
{
	while (a->open)
		want_fire_locked(a, a->open, result);
}

void wants_expire_locked(struct account *a, int64_t before_ms)
{
	for (struct want *want = a->open, *next; want; want = next) {
		next = want->next;
		if (want->since_ms <= before_ms && !want->populate)
			want_fire_locked(a, want, MF_TIMEOUT);
	}
}

void wants_deliver(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	while (a->fired) {
		struct want *want = a->fired;
		a->fired = want->next;
		if (!a->fired)
			a->fired_last = NULL;
		pthread_mutex_unlock(&a->lock);
		want->done(want->context, want->result);
		want_free(want);
		pthread_mutex_lock(&a->lock);
	}
	pthread_mutex_unlock(&a->lock);
}

bool want_cancel(struct account *a, struct want *want)
{
	pthread_mutex_lock(&a->lock);
	bool open = !want->fired;
	if (open) {
		want->result = MF_CANCELLED;
		want_detach_locked(a, want);
	}
	pthread_mutex_unlock(&a->lock);
	if (open)
		want_free(want);
	return open;
}

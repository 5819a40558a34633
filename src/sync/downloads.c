#include "sync/downloads.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/journal.h"

#define RANGED_FROM (256U << 10)         /* messages above this are fetched in windows when somebody waits for a part */
#define AHEAD_WHOLE_MAX (4U << 20)       /* larger ones are not read ahead */
#define BATCH_COUNT 200
#define BATCH_BYTES (1U << 20)
#define BATCH_BYTES_DEEP (2U << 20)      /* of a long queue: fewer commands, and two under way still fill the line */
#define OVERSHOOT 4096
#define RESOLVE_MAX 1000                 /* mailboxes in one look; the next one sees to others */
#define TRIES 3                          /* connections that one message may take down with it */

/* --- queues ------------------------------------------------------------------------------------------------------------ */

static void download_unqueue_locked(struct account *a, struct download *d)
{
	if (d->queue == QUEUE_NONE)
		return;
	struct queue_list *q = &a->queues[d->queue];
	if (d->next)
		d->next->previous = d->previous;
	else
		q->last = d->previous;
	if (d->previous)
		d->previous->next = d->next;
	else
		q->first = d->next;
	q->count--;
	d->next = d->previous = NULL;
	d->queue = QUEUE_NONE;
}

void download_queue_locked(struct account *a, struct download *d, enum queue queue)
{
	if (d->queue <= queue)
		return; /* is there, or in a more urgent one */
	download_unqueue_locked(a, d);
	struct queue_list *q = &a->queues[queue];
	d->queue = queue;
	d->previous = q->last;
	if (q->last)
		q->last->next = d;
	else
		q->first = d;
	q->last = d;
	q->count++;
}

static struct download *download_create_locked(struct account *a, const struct entry *e)
{
	struct download *d = MF_NEW(struct download);
	d->message = e->id;
	d->mailbox = e->mailbox;
	d->uid = e->uid;
	d->size = e->size;
	d->queue = QUEUE_NONE;
	id_table_put(&a->downloads, d->message, d);
	return d;
}

static void populate_left_locked(struct account *a, struct download *d)
{
	if (!d->populating)
		return;
	d->populating = false;
	struct mailbox_work *w = work_get_locked(a, d->mailbox);
	w->populate_open--;
	if (w->populate_open == 0 && !w->populate && !w->running && w->pending == PRIORITY_NONE)
		parts_done_locked(a, &w->populate_waiters, MF_OK);
}

/* Between two reads of one reader nothing is wanted, but where it is should be remembered: a few of these rest. */
static bool download_rests_locked(struct account *a, struct download *d)
{
	if (d->resting)
		return true;
	struct download *oldest = a->resting[a->resting_next];
	a->resting[a->resting_next] = d;
	a->resting_next = (a->resting_next + 1) % RESTING_MAX;
	d->resting = true;
	if (oldest) {
		oldest->resting = false;
		oldest->done = true; /* not to rest again */
		download_settle_locked(a, oldest);
	}
	return true;
}

static void download_unrest_locked(struct account *a, const struct download *d)
{
	for (size_t i = 0; d->resting && i < RESTING_MAX; i++) {
		if (a->resting[i] == d)
			a->resting[i] = NULL;
	}
}

void download_settle_locked(struct account *a, struct download *d)
{
	if (d->in_flight || d->queue != QUEUE_NONE || d->waiters || d->parked)
		return;
	populate_left_locked(a, d);
	body_unref(d->body);
	d->body = NULL;
	if (d->kind == DOWNLOAD_RANGES && !d->done && download_rests_locked(a, d))
		return;
	download_unrest_locked(a, d);
	id_table_remove(&a->downloads, d->message);
	free(d);
}

/* --- who waits ----------------------------------------------------------------------------------------------------------- */

void bodies_waiter_left_locked(struct account *a, struct want *want)
{
	struct download *d = want->download;
	for (struct want **at = &d->waiters; *at; at = &(*at)->next_waiter) {
		if (*at == want) {
			*at = want->next_waiter;
			break;
		}
	}
	want->download = NULL;
	if (d->waiters || d->kind != DOWNLOAD_RANGES)
		return; /* a whole one is small and goes on: somebody looked at it */
	if (!want->fired && want->result == MF_CANCELLED) {
		/* what is under way comes; what nobody waits for any more is not asked for */
		ranges_drop_unsent(&d->ranges);
		download_unqueue_locked(a, d);
	}
	download_settle_locked(a, d);
}

void download_tell_locked(struct account *a, struct download *d, enum mf_err result, bool all)
{
	struct want *next;
	for (struct want *want = d->waiters; want; want = next) {
		next = want->next_waiter;
		if (all || body_has(want->body, want->offset, want->length))
			want_fire_locked(a, want, result);
	}
}

/* want_fire_locked() may free d with its last waiter, unless something holds it. */
void download_fail_locked(struct account *a, struct download *d, enum mf_err result)
{
	d->in_flight++;
	d->whole_after = false;
	download_unqueue_locked(a, d);
	ranges_drop_unsent(&d->ranges);
	download_tell_locked(a, d, result, true);
	if (d->populating && (result == MF_NO_SPACE || result == MF_NO_FILES || result == MF_IO)) /* who asked for all of them is not to think that they are here */
		parts_done_locked(a, &work_get_locked(a, d->mailbox)->populate_waiters, result);
	d->in_flight--;
	download_settle_locked(a, d);
}

static struct mailbox_work *download_set_aside_locked(struct account *a, struct download *d)
{
	struct mailbox_work *w = work_get_locked(a, d->mailbox);
	download_unqueue_locked(a, d);
	ranges_unsend(&d->ranges);
	d->parked = true;
	d->next = w->parked;
	w->parked = d;
	return w;
}

void download_park_locked(struct account *a, struct download *d)
{
	struct mailbox_work *w = download_set_aside_locked(a, d);
	work_want_locked(a, w, d->waiters ? PRIORITY_PERSON : PRIORITY_BACKGROUND, CHANGES_AUTO);
}

/* --- commands -------------------------------------------------------------------------------------------------------------- */

void flight_free(struct flight *f)
{
	if (!f)
		return;
	free(f->raw);
	free(f->uids);
	free(f->items);
	free(f);
}

static struct flight *flight_create(const struct download *d, size_t count)
{
	struct flight *f = MF_NEW(struct flight);
	f->mailbox = d->mailbox;
	f->uids = mf_alloc_array(count, sizeof *f->uids);
	f->items = mf_alloc_array(count, sizeof(struct download *));
	return f;
}

static void flight_add(struct flight *f, struct download *d)
{
	f->uids[f->count] = d->uid;
	f->items[f->count++] = d;
	f->left++;
	d->in_flight++;
}

static struct flight *pick_window_locked(struct account *a, struct download *d)
{
	struct window window;
	if (!ranges_next(&d->ranges, &window))
		return NULL;
	struct flight *f = flight_create(d, 1);
	flight_add(f, d);
	f->offset = window.offset;
	f->overshoot = window.offset + window.length >= d->ranges.size ? OVERSHOOT : 0;
	f->length = window.length + f->overshoot;
	if (!ranges_pending(&d->ranges))
		download_unqueue_locked(a, d);
	return f;
}

static int by_uid(const void *a, const void *b)
{
	const struct download *x = *(struct download *const *)a, *y = *(struct download *const *)b;
	return (x->uid > y->uid) - (x->uid < y->uid);
}

static void flight_sort(struct flight *f)
{
	qsort(f->items, f->count, sizeof(struct download *), by_uid);
	for (size_t i = 0; i < f->count; i++)
		f->uids[i] = f->items[i]->uid;
}

/* Whole messages of one mailbox, in the order of the queue, up to a sensible command. */
static struct flight *pick_whole_locked(struct account *a, struct queue_list *q, struct download *first)
{
	struct flight *f = flight_create(first, BATCH_COUNT);
	uint64_t bytes = 0, most = q->count > BATCH_COUNT ? BATCH_BYTES_DEEP : BATCH_BYTES;
	size_t looked_at = 0;
	struct download *next;
	for (struct download *d = first; d && f->count < BATCH_COUNT && looked_at < 4 * BATCH_COUNT; d = next, looked_at++) {
		next = d->next;
		if (d->mailbox != first->mailbox || d->kind != DOWNLOAD_WHOLE)
			continue;
		if (f->count && bytes + d->size > most)
			break;
		bytes += d->size;
		download_unqueue_locked(a, d);
		flight_add(f, d);
	}
	flight_sort(f);
	return f;
}

struct flight *downloads_pick_locked(struct account *a, enum queue end, bool ranges)
{
	for (enum queue i = QUEUE_PERSON; i < end; i++) {
		struct queue_list *q = &a->queues[i];
		while (q->first) {
			struct download *d = q->first;
			if (d->kind == DOWNLOAD_RANGES && !ranges) {
				/* this server gives whole messages only */
				d->kind = DOWNLOAD_WHOLE;
				body_unref(d->body);
				d->body = NULL;
			}
			if (d->kind == DOWNLOAD_WHOLE)
				return pick_whole_locked(a, q, d);
			struct flight *f = pick_window_locked(a, d);
			if (f)
				return f;
			download_unqueue_locked(a, d);
		}
	}
	return NULL;
}

static void download_plan_locked(struct account *a, struct download *d)
{
	for (struct want *want = d->waiters; want; want = want->next_waiter) {
		if (!body_has(want->body, want->offset, want->length))
			ranges_want(&d->ranges, d->body, want->offset, want->length, true);
	}
	if (ranges_pending(&d->ranges)) {
		download_queue_locked(a, d, QUEUE_PERSON);
		sessions_wake_locked(a, ROLE_BULK | ROLE_WORKER);
	}
}

void download_landed_locked(struct account *a, struct flight *f, size_t item)
{
	struct download *d = f->items[item];
	f->items[item] = NULL;
	f->left--;
	d->in_flight--;
	if (d->parked)
		return;
	if (d->whole_after && d->in_flight == 0) {
		d->whole_after = false;
		d->kind = DOWNLOAD_WHOLE;
		ranges_init(&d->ranges, 0);
		if (d->body)
			body_abandon(d->body);
		body_unref(d->body);
		d->body = NULL;
		download_queue_locked(a, d, QUEUE_PERSON);
	} else if (d->kind == DOWNLOAD_RANGES && d->waiters) {
		download_plan_locked(a, d);
	}
	download_settle_locked(a, d);
}

/* --- where ------------------------------------------------------------------------------------------------------------------ */

enum mf_err download_source(struct account *a, uint64_t message, struct entry *ret)
{
	uint64_t mailbox;
	uint32_t uid;
	enum mf_err e = cache_entry(a->cache, message, ret);
	if (e != MF_OK || ret->uid)
		return e;
	e = journal_source(a->cache, message, &mailbox, &uid);
	if (e == MF_NOT_FOUND) /* it may just have arrived */
		return cache_entry(a->cache, message, ret) == MF_OK && ret->uid ? MF_OK : MF_NOT_FOUND;
	if (e == MF_OK) {
		ret->mailbox = mailbox;
		ret->uid = uid;
	}
	return e == MF_BUSY ? MF_OK : e;
}

/* --- wanting --------------------------------------------------------------------------------------------------------------- */

static bool finished_since_locked(const struct account *a, uint64_t message, uint64_t since)
{
	for (uint64_t i = since; i < a->finished_count; i++) {
		if (a->finished[i % FINISHED_MAX] == message)
			return true;
	}
	return false;
}

bool bodies_ahead_locked(struct account *a, const struct entry *e, enum queue queue, uint64_t since)
{
	if (e->uid == 0 || (queue == QUEUE_AHEAD && e->size > AHEAD_WHOLE_MAX))
		return false;
	struct download *d = id_table_get(&a->downloads, e->id);
	if (d) {
		if (d->kind == DOWNLOAD_WHOLE && d->queue != QUEUE_NONE && queue < d->queue)
			download_queue_locked(a, d, queue);
		return false;
	}
	if (finished_since_locked(a, e->id, since))
		return false;
	d = download_create_locked(a, e);
	if (queue == QUEUE_POPULATE) {
		d->populating = true;
		work_get_locked(a, e->mailbox)->populate_open++;
	}
	download_queue_locked(a, d, queue);
	return true;
}

/* aside: the message is in no mailbox right now, see mailbox_work.renumbering */
static void download_wait_locked(struct account *a, struct want *want, const struct entry *e, bool aside)
{
	struct download *d = id_table_get(&a->downloads, e->id);
	if (!d) {
		d = download_create_locked(a, e);
		if (e->size > RANGED_FROM) {
			d->kind = DOWNLOAD_RANGES;
			ranges_init(&d->ranges, e->size);
		}
	}
	if (d->kind == DOWNLOAD_RANGES && !d->body)
		d->body = body_ref(want->body);
	want->download = d;
	want->next_waiter = d->waiters;
	d->waiters = want;
	if (d->parked || d->whole_after)
		return;
	if (aside && d->in_flight == 0 && d->queue == QUEUE_NONE) {
		download_park_locked(a, d);
	} else if (d->kind == DOWNLOAD_RANGES) {
		download_plan_locked(a, d);
	} else if (d->in_flight == 0) {
		download_queue_locked(a, d, QUEUE_PERSON);
		sessions_wake_locked(a, ROLE_BULK | ROLE_WORKER);
	}
}

/* true: *ret_result says why waiting is pointless. */
static bool link_answers_locked(const struct account *a, uint64_t mailbox, enum mf_err *ret_result)
{
	const struct link *l = &a->link;
	if (a->stopping)
		*ret_result = MF_CANCELLED;
	else if (l->state == LINK_OFFLINE || l->state == LINK_WAITING)
		*ret_result = l->error == MF_AUTH || l->error == MF_NO_SPACE ? l->error : MF_OFFLINE;
	else if (!fallback_reaches(l->fallback, mailbox == a->inbox))
		*ret_result = MF_OFFLINE;
	else
		return false;
	return true;
}

static struct mailbox_work *renumbering_locked(const struct account *a)
{
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		if (w->renumbering)
			return w;
	}
	return NULL;
}

bool bodies_want(struct account *a, struct body *body, uint64_t offset, uint64_t length, want_done *done, void *context,
                 enum mf_err *ret_result, struct want **ret)
{
	struct entry e;
	enum mf_err known = download_source(a, body_message(body), &e);
	*ret = NULL;
	pthread_mutex_lock(&a->lock);
	bool answered = true;
	struct mailbox_work *aside = known == MF_NOT_FOUND ? renumbering_locked(a) : NULL;
	if (aside) { /* whether the message is still there is about to be known */
		known = MF_OK;
		e = (struct entry){.id = body_message(body), .mailbox = aside->id, .uid = UINT32_MAX, .size = body_size(body)};
	}
	if (body_has(body, offset, length)) { /* it came meanwhile */
		*ret_result = MF_OK;
	} else if (!body_is_current(body)) { /* what the server has of the message is of another version */
		*ret_result = MF_STALE;
	} else if (known != MF_OK) {
		*ret_result = known == MF_NOT_FOUND ? MF_STALE : known;
	} else if (!link_answers_locked(a, e.mailbox, ret_result)) {
		answered = false;
		struct want *want = want_create_locked(a, WANT_BODY, done, context);
		want->body = body_ref(body);
		want->offset = offset;
		want->length = length;
		*ret = want;
		download_wait_locked(a, want, &e, aside != NULL || e.uid == 0);
	}
	pthread_mutex_unlock(&a->lock);
	if (!answered)
		lookahead_note(a, e.mailbox, e.id, true);
	/* its number came between the look and the lock */
	uint64_t mailbox = e.mailbox;
	if (!answered && e.uid == 0 && download_source(a, e.id, &e) == MF_OK && e.uid)
		bodies_resolve_parked(a, mailbox);
	return answered;
}

/* A reader passed here without waiting: have what comes next under way. */
void bodies_passed_locked(struct account *a, struct body *body, uint64_t offset, uint64_t length)
{
	struct download *d = a->downloads.count ? id_table_get(&a->downloads, body_message(body)) : NULL;
	if (!d || d->kind != DOWNLOAD_RANGES || d->parked || d->whole_after || d->done || !body_is_current(body))
		return;
	ranges_want(&d->ranges, body, offset, length, false);
	if (ranges_pending(&d->ranges)) {
		if (!d->body)
			d->body = body_ref(body);
		download_queue_locked(a, d, QUEUE_PERSON);
		sessions_wake_locked(a, ROLE_BULK);
	}
}

/* --- when the world changed --------------------------------------------------------------------------------------------------- */

void bodies_resolve_parked(struct account *a, uint64_t mailbox)
{
	struct download *later = NULL; /* those that have no number yet */
	for (;;) {
		pthread_mutex_lock(&a->lock);
		struct mailbox_work *w = id_table_get(&a->mailboxes, mailbox);
		/* one who is at it again, or about to be, will see to them */
		struct download *d = w && !w->running && w->pending == PRIORITY_NONE ? w->parked : NULL;
		uint64_t message = 0;
		if (d) {
			message = d->message;
			w->parked = d->next;
			d->next = NULL;
		}
		while (!d && later) {
			struct download *next = later->next;
			(void)download_set_aside_locked(a, later); /* until replay has gone on */
			later = next;
		}
		pthread_mutex_unlock(&a->lock);
		if (!d)
			return;
		/* still marked as parked, so it is nobody else's meanwhile */
		struct entry e;
		enum mf_err known = download_source(a, message, &e);
		pthread_mutex_lock(&a->lock);
		d->parked = false;
		if (known == MF_OK && e.uid == 0) {
			d->parked = true;
			d->mailbox = e.mailbox;
			d->next = later;
			later = d;
		} else if (known != MF_OK || ++d->tries >= TRIES) {
			download_fail_locked(a, d, MF_STALE);
		} else {
			if (d->mailbox != e.mailbox)
				populate_left_locked(a, d);
			d->uid = e.uid;
			d->mailbox = e.mailbox;
			if (d->waiters || d->kind == DOWNLOAD_WHOLE)
				download_queue_locked(a, d, d->waiters ? QUEUE_PERSON : d->populating ? QUEUE_POPULATE : QUEUE_AHEAD);
			download_settle_locked(a, d);
			sessions_wake_locked(a, ROLE_BULK | ROLE_WORKER);
		}
		pthread_mutex_unlock(&a->lock);
	}
}

void bodies_resolve_all(struct account *a)
{
	uint64_t ids[RESOLVE_MAX];
	size_t count = 0;
	struct mailbox_work *w;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; count < RESOLVE_MAX && (w = id_table_next(&a->mailboxes, &i));)
		if (w->parked)
			ids[count++] = w->id;
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < count; i++)
		bodies_resolve_parked(a, ids[i]);
}

void bodies_drop_idle_locked(struct account *a)
{
	for (int i = 0; i < QUEUE_COUNT; i++) {
		while (a->queues[i].first) {
			struct download *d = a->queues[i].first;
			bool populating = d->populating;
			struct mailbox_work *w = populating ? work_get_locked(a, d->mailbox) : NULL;
			if (w) { /* to be looked for again */
				w->populate = true;
				w->populate_after = 0;
			}
			download_fail_locked(a, d, MF_OFFLINE);
		}
	}
}

void bodies_finish_locked(struct account *a)
{
	struct download *d;
	for (size_t i = 0; (d = id_table_next(&a->downloads, &i));) {
		body_unref(d->body);
		free(d);
	}
	id_table_finish(&a->downloads);
}

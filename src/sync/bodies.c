/* Moves bodies: one remote_fetch on a session's thread, for as long as there is something to fetch. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "sync/downloads.h"

#define TELL_BYTES (64U << 10)          /* within a message, who waits is looked after this often */
#define EVICT_BYTES (16U << 20)
#define TRIES 3                         /* connections that one message may take down with it */
#define REFILL 256

struct fetch_run {
	struct session *session;
	struct account *account;
	enum queue end;                 /* queues below it are this session's to serve */
	struct flight *first, *last;
	const struct flight *about;     /* what comes is of this one; NULL: of the first that it may be of */
	/* what is being received */
	struct flight *flight;
	size_t item;
	struct body *body;
	uint64_t offset, announced, got, told;
	enum mf_err local_error;        /* the disk's, while the server goes on sending */
};

/* --- what to ask for ------------------------------------------------------------------------------------------------------ */

struct refill {
	struct entry entries[REFILL];
	size_t count;
};

static bool refill_visit(void *context, const struct entry *e, const char *name)
{
	struct refill *r = context;
	(void)name;
	r->entries[r->count++] = *e;
	return r->count < REFILL;
}

static struct mailbox_work *refill_choose_locked(struct account *a)
{
	struct mailbox_work *w, *best = NULL;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		if (w->populate && !w->cold && fallback_reaches(a->link.fallback, w->is_inbox) && (!best || w->is_inbox > best->is_inbox || (w->is_inbox == best->is_inbox && w->id < best->id)))
			best = w;
	}
	return best;
}

static void refill_apply_locked(struct account *a, uint64_t mailbox, const struct refill *r, const bool *cached, uint64_t after, uint64_t since)
{
	struct mailbox_work *w = work_get_locked(a, mailbox);
	for (size_t i = 0; i < r->count; i++) {
		if (!cached[i])
			bodies_ahead_locked(a, &r->entries[i], QUEUE_POPULATE, since);
	}
	if (w->populate_after != after)
		return; /* more was asked for meanwhile */
	w->populate_after = r->count ? r->entries[r->count - 1].id : after;
	if (r->count == REFILL)
		return;
	w->populate = false;
	if (w->populate_open == 0 && !w->running && w->pending == PRIORITY_NONE)
		parts_done_locked(a, &w->populate_waiters, MF_OK);
}

static void refill_failed_locked(struct account *a, uint64_t mailbox, enum mf_err e)
{
	struct mailbox_work *w = work_get_locked(a, mailbox);
	w->populate = false;
	parts_done_locked(a, &w->populate_waiters, e);
}

/* Looks for bodies to fetch in the background. false: there are none. */
static bool bodies_refill(struct account *a)
{
	struct refill *r = MF_NEW(struct refill);
	bool cached[REFILL];
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = refill_choose_locked(a);
	uint64_t mailbox = w ? w->id : 0, after = w ? w->populate_after : 0, since = a->finished_count;
	pthread_mutex_unlock(&a->lock);
	enum mf_err e = mailbox ? cache_list(a->cache, mailbox, after, refill_visit, r) : MF_OK;
	for (size_t i = 0; i < r->count; i++)
		cached[i] = r->entries[i].uid == 0 || cache_body_is_cached(a->cache, r->entries[i].id);
	pthread_mutex_lock(&a->lock);
	if (mailbox && e == MF_OK)
		refill_apply_locked(a, mailbox, r, cached, after, since);
	else if (mailbox)
		refill_failed_locked(a, mailbox, e);
	pthread_mutex_unlock(&a->lock);
	free(r);
	return mailbox != 0;
}

/* What the command needs of the mailbox. */
static enum mf_err flight_address(struct account *a, struct flight *f)
{
	struct mailbox m;
	enum mf_err e = cache_mailbox(a->cache, f->mailbox, &m);
	if (e != MF_OK)
		return e;
	f->uidvalidity = m.uidvalidity;
	f->raw = m.raw;
	m.raw = NULL;
	mailbox_finish(&m);
	return f->raw ? MF_OK : MF_NOT_FOUND;
}

/* The number by which one was queued is its number still, now that the mailbox has been looked at. Else it is another message's, if the
 * mailbox has been numbered anew since. */
static bool flight_is_right(struct account *a, const struct flight *f, size_t item)
{
	struct entry e;
	return download_source(a, f->items[item]->message, &e) == MF_OK && e.uid == f->uids[item] && e.mailbox == f->mailbox;
}

/* Those that have got another number or place are looked for again. */
static void flight_check(struct account *a, struct flight *f)
{
	bool *right = mf_alloc_array(f->count, sizeof *right);
	size_t kept = 0;
	for (size_t i = 0; i < f->count; i++)
		right[i] = flight_is_right(a, f, i);
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < f->count; i++) {
		struct download *d = f->items[i];
		if (right[i]) {
			f->uids[kept] = f->uids[i];
			f->items[kept++] = d;
			continue;
		}
		d->in_flight--;
		if (!d->parked)
			download_park_locked(a, d);
	}
	f->count = f->left = kept;
	pthread_mutex_unlock(&a->lock);
	free(right);
}

static void flight_refuse(struct fetch_run *run, struct flight *f, enum mf_err e)
{
	struct account *a = run->account;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < f->count; i++) {
		struct download *d = f->items[i];
		d->done = true;
		d->in_flight--;
		download_fail_locked(a, d, e == MF_NOT_FOUND ? MF_STALE : e);
	}
	pthread_mutex_unlock(&a->lock);
	wants_deliver(a);
	flight_free(f);
}

static void run_progress_locked(struct fetch_run *run, const struct flight *f)
{
	struct account_progress *p = &run->session->progress;
	uint64_t queued = 0;
	for (int i = 0; i < (int)run->end; i++)
		queued += run->account->queues[i].count;
	p->bytes = f->length != 0;
	if (p->bytes) {
		p->done = f->offset;
		p->total = f->items[0]->size;
	} else {
		p->total = p->done + queued + f->count;
	}
}

static uint64_t flight_bytes(const struct flight *f)
{
	uint64_t bytes = f->length;
	for (size_t i = 0; i < f->count && !f->length; i++)
		bytes += f->items[i]->size;
	return bytes;
}

static void fetch_about(void *context, void *batch)
{
	struct fetch_run *run = context;
	run->about = batch;
}

static bool fetch_next(void *context, struct fetch_batch *ret)
{
	struct fetch_run *run = context;
	struct account *a = run->account;
	session_drain(run->session);
	if (atomic_load(&a->since_evict) > EVICT_BYTES) /* somebody who goes through a large mailbox may be at it for long */
		bodies_evict(a);
	for (;;) {
		pthread_mutex_lock(&a->lock);
		bool leave = run->session->reset || a->stopping
			|| (a->queues[QUEUE_PERSON].count == 0 && jobs_person_waits_locked(run->session));
		struct flight *f = leave ? NULL : downloads_pick_locked(a, run->end, run->session->caps & REMOTE_RANGES);
		if (f)
			run_progress_locked(run, f);
		pthread_mutex_unlock(&a->lock);
		if (!f) {
			if (leave || run->end != QUEUE_COUNT || !bodies_refill(a))
				return false;
			continue;
		}
		enum mf_err e = flight_address(a, f);
		if (e != MF_OK) {
			flight_refuse(run, f, e);
			continue;
		}
		flight_check(a, f);
		if (f->count == 0) {
			flight_free(f);
			continue;
		}
		if (run->last)
			run->last->next = f;
		else
			run->first = f;
		run->last = f;
		*ret = (struct fetch_batch){.raw = f->raw, .uidvalidity = f->uidvalidity, .uids = f->uids, .count = f->count,
		                            .offset = f->offset, .length = f->length, .bytes = flight_bytes(f), .about = fetch_about, .batch = f};
		return true;
	}
}

/* --- what comes --------------------------------------------------------------------------------------------------------------- */

/* The same UID of another mailbox may be in another one. offset UINT64_MAX: any */
static bool run_find(struct fetch_run *run, uint32_t uid, uint64_t offset)
{
	for (struct flight *f = run->first; f; f = f->next) {
		if (run->about && f != run->about)
			continue;
		if (f->length && offset != UINT64_MAX && f->offset != offset)
			continue;
		size_t low = 0, high = f->count;
		while (low < high) {
			size_t middle = low + (high - low) / 2;
			if (f->uids[middle] < uid)
				low = middle + 1;
			else
				high = middle;
		}
		if (low < f->count && f->uids[low] == uid && f->items[low]) {
			run->flight = f;
			run->item = low;
			return true;
		}
	}
	run->flight = NULL;
	return false;
}

static void run_let_go(struct fetch_run *run)
{
	body_unref(run->body);
	run->body = NULL;
	run->flight = NULL;
	run->local_error = MF_OK;
	while (run->first && run->first->left == 0) {
		struct flight *f = run->first;
		run->first = f->next;
		if (!run->first)
			run->last = NULL;
		flight_free(f);
	}
}

/* The message may have been overwritten since it was asked for. One that is gone has no other version; of one that is being moved the
 * journal has the number. */
static bool number_is_still_its(struct account *a, const struct flight *f, size_t item)
{
	struct entry e;
	uint64_t message = f->items[item]->message;
	enum mf_err known = cache_entry_committed(a->cache, message, &e);
	if (known == MF_OK && e.uid == 0)
		(void)journal_source(a->cache, message, &e.mailbox, &e.uid);
	return known == MF_NOT_FOUND || (known == MF_OK && e.uid == f->uids[item] && e.mailbox == f->mailbox);
}

/* The file that the bytes go into: the readers' own, or a new one. It is there before its message is looked at: one that is overwritten
 * from then on takes it away. */
static enum mf_err run_open_body(struct fetch_run *run)
{
	struct account *a = run->account;
	const struct download *d = run->flight->items[run->item];
	pthread_mutex_lock(&a->lock);
	if (d->body)
		run->body = body_ref(d->body);
	else if (d->waiters)
		run->body = body_ref(d->waiters->body);
	pthread_mutex_unlock(&a->lock);
	enum mf_err e = run->body ? MF_OK : cache_body_create(a->cache, d->message, d->size, &run->body);
	if (e == MF_OK && !body_is_current(run->body))
		e = MF_STALE;
	else if (e == MF_OK && !number_is_still_its(a, run->flight, run->item))
		e = MF_UIDVALIDITY; /* looked for again, as after that */
	if (e != MF_OK) {
		body_unref(run->body);
		run->body = NULL;
	}
	return e;
}

static enum mf_err fetch_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	struct fetch_run *run = context;
	run_let_go(run);
	run->offset = offset;
	run->announced = length;
	run->got = run->told = 0;
	if (!run_find(run, uid, offset))
		return MF_OK; /* nobody asked: let it pass */
	run->local_error = run_open_body(run);
	return MF_OK;
}

static void fetch_tell(struct fetch_run *run)
{
	struct account *a = run->account;
	pthread_mutex_lock(&a->lock);
	struct download *d = run->flight->items[run->item];
	a->delivers = true;
	if (d->waiters)
		download_tell_locked(a, d, MF_OK, false);
	a->delivers = false;
	if (run->session->progress.bytes)
		run->session->progress.done = run->offset + run->got;
	pthread_mutex_unlock(&a->lock);
	run->told = run->got;
	wants_deliver(a);
}

static enum mf_err fetch_data(void *context, const void *data, size_t len)
{
	struct fetch_run *run = context;
	atomic_fetch_add_explicit(&run->account->fetched_bytes, len, memory_order_relaxed);
	run->got += len;
	if (!run->flight || !run->body || run->local_error != MF_OK)
		return MF_OK;
	const struct flight *f = run->flight;
	uint64_t at = run->got - len, room = f->length ? f->length - f->overshoot : UINT64_MAX;
	size_t useful = at >= room ? 0 : room - at < len ? (size_t)(room - at) : len;
	if (useful)
		run->local_error = body_write(run->body, run->offset + at, data, useful);
	if (run->got - run->told >= TELL_BYTES && run->local_error == MF_OK)
		fetch_tell(run);
	return MF_OK;
}

/* Unless the message has been overwritten meanwhile: what came is of the version before. */
static enum mf_err size_note(struct account *a, struct body *body, uint64_t length)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	if (e != MF_OK)
		return e;
	e = body_is_current(body) ? txn_message_size(t, body_message(body), length) : MF_NOT_FOUND;
	if (e != MF_OK) {
		txn_rollback(t);
		return e == MF_NOT_FOUND ? MF_OK : e;
	}
	return txn_commit(t);
}

/* The size was a claim; the bytes have been counted. */
static enum mf_err size_is(struct account *a, const struct download *d, struct body *body, uint64_t length)
{
	bool lied = d->size != length;
	pthread_mutex_lock(&a->lock);
	bool first = lied && !a->sizes_lie, checked = a->sizes_lie;
	a->sizes_lie |= lied;
	pthread_mutex_unlock(&a->lock);
	if (!lied && !checked)
		return MF_OK;
	if (first) {
		log_warning("%s: the server's sizes of messages are not what it sends", a->config->name);
		enum mf_err e = cache_set_note(a->cache, "sizes-lie", "1");
		if (e != MF_OK)
			return e;
	}
	return size_note(a, body, body_is_whole(body) ? body_size(body) : length);
}

/* Nothing in the place of a message (NIL, or an empty literal) is what some servers give of one that they cannot find. */
static enum mf_err whole_came(struct fetch_run *run, struct download *d)
{
	if (run->got == 0 && d->size)
		return MF_PROTOCOL;
	enum mf_err e = size_is(run->account, d, run->body, run->got);
	return e == MF_OK ? body_finish(run->body, run->got) : e;
}

enum window_verdict { WINDOW_MORE, WINDOW_LAST, WINDOW_LIE };

/* LIE: the size cannot be what was believed. LAST: all of the message is there. Two sessions may have windows of one
 * message: of the last two, one at least sees that all is there. */
static enum window_verdict window_came(struct fetch_run *run, struct download *d)
{
	const struct flight *f = run->flight;
	if (!run->body || run->got != f->length - f->overshoot) /* no body: what came is not the part that was asked for */
		return WINDOW_LIE;
	pthread_mutex_lock(&run->account->lock);
	d->ranges.verified |= f->overshoot != 0;
	bool last = d->ranges.verified && !body_is_whole(run->body) && body_has(run->body, 0, d->size);
	pthread_mutex_unlock(&run->account->lock);
	if (!last)
		return WINDOW_MORE;
	run->got = d->size;
	return WINDOW_LAST;
}

/* It has been moved since it was asked for. */
static bool is_elsewhere(struct account *a, const struct download *d)
{
	struct entry e;
	pthread_mutex_lock(&a->lock);
	uint64_t mailbox = d->mailbox;
	uint32_t uid = d->uid;
	pthread_mutex_unlock(&a->lock);
	return download_source(a, d->message, &e) == MF_OK && (e.uid != uid || e.mailbox != mailbox);
}

/* One item of a command is over. */
static void item_ended(struct fetch_run *run, enum mf_err result)
{
	struct account *a = run->account;
	struct flight *f = run->flight;
	size_t item = run->item;
	struct download *d = f->items[item];
	enum window_verdict verdict = f->length ? WINDOW_MORE : WINDOW_LAST;
	uint64_t came = run->got;
	if (result == MF_OK)
		result = run->local_error != MF_OK ? run->local_error : !run->body && !f->length ? MF_PROTOCOL : MF_OK;
	if (result == MF_OK && f->length)
		verdict = window_came(run, d);
	if (result == MF_OK && verdict == WINDOW_LAST)
		result = whole_came(run, d);
	if (result != MF_OK && f->length == 0 && run->body && !body_is_whole(run->body))
		body_abandon(run->body);
	if (result == MF_NOT_FOUND && is_elsewhere(a, d))
		result = MF_UIDVALIDITY; /* looked for again, as after that */
	if (result == MF_OK && verdict == WINDOW_LAST && !d->populating)
		kept_add(run->session, run->body);
	pthread_mutex_lock(&a->lock);
	a->delivers = true;
	if (f->length)
		ranges_done(&d->ranges, f->offset);
	if (result == MF_OK)
		d->tries = 0;
	if (result == MF_OK && verdict == WINDOW_LAST) {
		d->done = true;
		a->finished[a->finished_count++ % FINISHED_MAX] = d->message;
	}
	d->whole_after |= verdict == WINDOW_LIE;
	if (result == MF_OK)
		download_tell_locked(a, d, MF_OK, d->done);
	else if (result == MF_UIDVALIDITY && !d->parked)
		download_park_locked(a, d);
	else if (result != MF_UIDVALIDITY)
		download_fail_locked(a, d, result == MF_NOT_FOUND ? MF_STALE : result);
	if (result == MF_NOT_FOUND)
		work_want_locked(a, work_get_locked(a, d->mailbox), PRIORITY_BACKGROUND, CHANGES_AUTO);
	download_landed_locked(a, f, item);
	if (!run->session->progress.bytes)
		run->session->progress.done++;
	a->delivers = false;
	pthread_mutex_unlock(&a->lock);
	atomic_fetch_add_explicit(&a->fetched_messages, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&a->since_evict, came, memory_order_relaxed);
	wants_deliver(a);
}

static enum mf_err fetch_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	struct fetch_run *run = context;
	(void)whole; /* told by the lengths as well */
	bool connection = result != MF_PROTOCOL && mf_err_scope(result) == MF_SCOPE_CONNECTION;
	if (connection || result == MF_CANCELLED)
		return MF_OK; /* not the message's fault; the verb is about to fail */
	bool begun = run->flight && run->flight->uids[run->item] == uid && (!run->about || run->flight == run->about);
	if (!begun && !run_find(run, uid, UINT64_MAX))
		return MF_OK;
	item_ended(run, result);
	run_let_go(run);
	return MF_OK;
}

/* --- all of it ------------------------------------------------------------------------------------------------------------------ */

/* The connection is gone: everything that was under way goes back into its queue. What may have been the cause does so a
 * few times only. */
static void run_put_back(struct fetch_run *run, bool blame)
{
	struct account *a = run->account;
	if (run->flight && run->body && run->flight->length == 0 && !body_is_whole(run->body))
		body_abandon(run->body);
	const struct download *suspect = run->flight ? run->flight->items[run->item] : NULL;
	pthread_mutex_lock(&a->lock);
	for (struct flight *f = run->first; f; f = f->next) {
		for (size_t i = 0; i < f->count; i++) {
			struct download *d = f->items[i];
			if (!d)
				continue;
			f->items[i] = NULL;
			d->in_flight--;
			if (!suspect)
				suspect = d;
			if (d == suspect && blame && ++d->tries >= TRIES) {
				d->done = true;
				download_fail_locked(a, d, MF_PROTOCOL);
				continue;
			}
			if (d->parked)
				continue;
			if (d->kind == DOWNLOAD_RANGES)
				ranges_unsend(&d->ranges);
			if (d->kind == DOWNLOAD_WHOLE || d->waiters)
				download_queue_locked(a, d, d->waiters ? QUEUE_PERSON : d->populating ? QUEUE_POPULATE : QUEUE_AHEAD);
			else
				ranges_drop_unsent(&d->ranges);
			download_settle_locked(a, d);
		}
		f->left = 0;
	}
	pthread_mutex_unlock(&a->lock);
	run_let_go(run);
}

enum mf_err bodies_fetch(struct session *s)
{
	struct account *a = s->account;
	struct fetch_run run = {.session = s, .account = a};
	kept_begin(s);
	pthread_mutex_lock(&a->lock);
	run.end = session_roles_locked(s) & ROLE_BULK ? QUEUE_COUNT : QUEUE_AHEAD;
	pthread_mutex_unlock(&a->lock);
	session_progress(s, 0, false, "messages");
	enum mf_err e = remote_fetch(s->remote, &(struct fetch_source){fetch_next, &run, &s->wake_fd},
	                             &(struct fetch_sink){.begin = fetch_begin, .data = fetch_data, .end = fetch_end, .context = &run});
	pthread_mutex_lock(&a->lock);
	bool blame = e != MF_OK && !s->reset && !a->stopping;
	pthread_mutex_unlock(&a->lock);
	/* after a success nothing is left, unless the session forgot an item: that one is asked for again, but not for ever */
	run_put_back(&run, blame || run.first != NULL);
	if (atomic_load(&a->since_evict) > (e == MF_OK ? EVICT_BYTES / 4 : 0))
		bodies_evict(a);
	return e;
}

/* --- the limit of what is kept ----------------------------------------------------------------------------------------------------- */

static bool bodies_are_pinned(void *context, uint64_t message)
{
	struct account *a = context;
	struct entry e;
	if (cache_entry(a->cache, message, &e) != MF_OK)
		return false;
	pthread_mutex_lock(&a->lock);
	const struct mailbox_work *w = id_table_get(&a->mailboxes, e.mailbox);
	bool full = (w && w->policy == SYNC_FULL) || keeping_pins_locked(a, message);
	pthread_mutex_unlock(&a->lock);
	return full;
}

void bodies_evict(struct account *a)
{
	atomic_store(&a->since_evict, 0);
	cache_body_evict(a->cache, bodies_are_pinned, a);
}

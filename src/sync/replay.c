/* Replay: what was changed here is carried out at the server.
 *
 * One round (round.h): take what is ready from the journal, mark it sent (on the disk), send it as few commands, settle each answer.
 * What was sent and not answered when a connection was lost is in doubt: on the next one the mailboxes concerned are
 * synchronised first, which finds what has happened (cache/settle.c); what it does not find, nor a moment later, did not happen. */
#include "base/clock.h"
#include "sync/round.h"

#define AT_ONCE 5000            /* operations in one round */
#define GATHER_MS 150           /* a change waits so long for others to go with it, */
#define GATHER_MOST_MS 1000     /* but the first of them no longer than this */
#define SOON_MS 200             /* until what waits for a mailbox is looked at again */
#define LOOK_MS 50              /* between looks at what a synchronisation is to find */

/* --- when ------------------------------------------------------------------------------------------------------------------- */

void replay_look_at_locked(struct account *a, int64_t at_ms)
{
	if (at_ms >= a->replay_at_ms)
		return;
	a->replay_at_ms = at_ms;
	sessions_wake_locked(a, ROLE_WORKER);
}

void replay_news_locked(struct account *a)
{
	bool gathering = a->replay_first_ms != 0;
	if (!gathering && journal_count(a->cache))
		replay_look_at_locked(a, clock_mono_ms());
}

void account_journal_changed(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	int64_t now = clock_mono_ms(), at = now + (a->replay_hurry ? 0 : GATHER_MS);
	if (!a->replay_first_ms)
		a->replay_first_ms = now;
	if (at > a->replay_first_ms + GATHER_MOST_MS)
		at = a->replay_first_ms + GATHER_MOST_MS;
	/* later than before is meant: the last change counts. Who wakes at the time that held before sees the new one */
	bool sooner = at < a->replay_at_ms;
	a->replay_at_ms = at;
	if (sooner)
		sessions_wake_locked(a, ROLE_WORKER);
	pthread_mutex_unlock(&a->lock);
}

void account_refresh(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->list_pending = true;
	if (a->list_priority < PRIORITY_BACKGROUND)
		a->list_priority = PRIORITY_BACKGROUND;
	pthread_mutex_unlock(&a->lock);
	account_journal_changed(a);
}

void replay_connected_locked(struct account *a)
{
	a->doubts = DOUBTS_OPEN;
	a->doubts_again_ms = 0;
	a->replay_at_ms = 0;
}

bool replay_is_due_locked(const struct account *a, int64_t now)
{
	return a->replay_at_ms <= now && a->listed_ms && !a->list_running && a->doubts != DOUBTS_LOOKED_AT;
}

int64_t replay_wait_ms_locked(const struct account *a, int64_t now)
{
	if (a->replay_at_ms == INT64_MAX || !a->listed_ms || a->doubts == DOUBTS_LOOKED_AT)
		return INT64_MAX;
	return a->replay_at_ms > now ? a->replay_at_ms - now : 0;
}

/* --- settled ------------------------------------------------------------------------------------------------------------------------ */

struct outstanding { int64_t now_ms; uint64_t open, sent, held, unconfirmed, later, bound; };

static bool count_outstanding(void *context, const struct op *op)
{
	struct outstanding *o = context;
	bool later = op->kind == OP_EXPUNGE && op->state == OP_QUEUED && op->due_ms > o->now_ms;
	bool bound = op->kind == OP_DELETE && op->state == OP_QUEUED; /* by such an expunge, if by anything */
	if (op->state == OP_PARKED || op->state == OP_UNCONFIRMED)
		o->held++;
	else if (!later && !bound)
		o->open++;
	o->unconfirmed += op->state == OP_UNCONFIRMED;
	o->later += later;
	o->bound += bound;
	o->sent += op->state == OP_SENT;
	return true;
}

/* Mailboxes are being read, or are next: what is not confirmed may be seen in one. */
static bool is_looking_locked(struct account *a)
{
	struct mailbox_work *w;
	bool looking = false;
	for (size_t i = 0; !looking && (w = id_table_next(&a->mailboxes, &i));)
		looking = w->running || w->pending == PRIORITY_PERSON;
	return looking;
}

/* Who waits is told when nothing is left that the server could have by now. */
static void tell_settled(struct account *a, bool round_was_empty)
{
	struct outstanding o = { .now_ms = clock_wall_ns() / 1000000 };
	pthread_mutex_lock(&a->lock);
	bool waited = a->settle_waiters != NULL, more = keeping_is_due_locked(a);
	pthread_mutex_unlock(&a->lock);
	if (!waited || more)
		return;
	enum mf_err e = journal_list(a->cache, 0, count_outstanding, &o);
	o.open += o.later ? 0 : o.bound;
	bool unseen = o.held && !round_was_empty;
	/* what cannot go because of something that is held is held as well */
	bool stuck = round_was_empty && o.held && !o.sent;
	pthread_mutex_lock(&a->lock);
	if (e == MF_OK && o.unconfirmed && is_looking_locked(a)) {
		replay_look_at_locked(a, clock_mono_ms() + LOOK_MS);
	} else if (e != MF_OK || stuck || (!o.open && !unseen)) {
		parts_done_locked(a, &a->settle_waiters, e != MF_OK ? e : o.held ? MF_DENIED : MF_OK);
		a->replay_hurry = false;
	}
	pthread_mutex_unlock(&a->lock);
}

/* When to look again. What is due and was not taken waits for an operation, a change or a mailbox, which tell of themselves. */
static void plan(struct account *a, const struct round *r)
{
	int64_t due = INT64_MAX;
	if (journal_next_due(a->cache, r->now_ms, &due) != MF_OK)
		due = r->now_ms + STUCK_MS;
	pthread_mutex_lock(&a->lock);
	int64_t now = clock_mono_ms();
	if (r->op_count) {
		/* there may be more; where changes go on coming they gather again */
		if (!a->replay_first_ms || a->replay_hurry || r->op_count >= AT_ONCE || r->appends == APPENDS_AT_ONCE)
			replay_look_at_locked(a, now);
	} else {
		int64_t wait = due - clock_wall_ns() / 1000000;
		if (due != INT64_MAX)
			replay_look_at_locked(a, now + (wait > 0 ? wait : 0));
		if (r->waits)
			replay_look_at_locked(a, now + SOON_MS);
		else if (a->settle_waiters)
			replay_look_at_locked(a, now + STUCK_MS);
	}
	pthread_mutex_unlock(&a->lock);
}

/* What is in doubt comes first: as far as that can be found out now. */
static enum mf_err clear_doubts(struct session *s, bool *ret_none)
{
	struct account *a = s->account;
	enum mf_err e = MF_OK;
	pthread_mutex_lock(&a->lock);
	if (a->doubts == DOUBTS_RESTING && clock_mono_ms() >= a->doubts_again_ms)
		a->doubts = DOUBTS_OPEN;
	enum doubts doubts = a->doubts;
	pthread_mutex_unlock(&a->lock);
	if (doubts == DOUBTS_OPEN)
		e = doubts_look(a);
	else if (doubts == DOUBTS_SEEN)
		e = doubts_settle(a, s->remote->late_ms);
	pthread_mutex_lock(&a->lock);
	*ret_none = a->doubts == DOUBTS_NONE;
	if (!*ret_none)
		replay_look_at_locked(a, a->doubts == DOUBTS_RESTING ? a->doubts_again_ms : clock_mono_ms());
	pthread_mutex_unlock(&a->lock);
	return e;
}

enum mf_err replay_run(struct session *s)
{
	struct account *a = s->account;
	pthread_mutex_lock(&a->lock);
	bool hurry = a->replay_hurry;
	a->replay_at_ms = INT64_MAX;
	a->replay_first_ms = 0;
	pthread_mutex_unlock(&a->lock);
	struct round r = { .account = a, .session = s, .caps = s->caps };
	enum mf_err e = MF_OK;
	if (!remote_can_write(s->remote)) { /* POP3 in the place of IMAP: all waits for that */
		pthread_mutex_lock(&a->lock);
		parts_done_locked(a, &a->settle_waiters, MF_OFFLINE);
		pthread_mutex_unlock(&a->lock);
		return MF_OK;
	}
	bool ready = false;
	e = clear_doubts(s, &ready);
	if (e != MF_OK || !ready)
		return e;
	r.now_ms = clock_wall_ns() / 1000000;
	e = journal_ready(a->cache, r.now_ms, hurry, AT_ONCE, &r.ops, &r.op_count);
	if (e == MF_OK)
		e = round_pick(&r);
	bool empty = r.op_count == 0;
	if (e == MF_OK && !empty)
		e = round_send(&r);
	if (e == MF_OK) {
		plan(a, &r);
		tell_settled(a, empty && !r.waits);
	}
	bodies_resolve_all(a);
	syncmail_search(a);
	round_finish(&r);
	return e;
}

bool account_want_settled(struct account *a, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	*ret = NULL;
	pthread_mutex_lock(&a->lock);
	bool keeping = keeping_is_due_locked(a);
	pthread_mutex_unlock(&a->lock);
	if (!journal_count(a->cache) && !keeping) {
		*ret_result = MF_OK;
		return true;
	}
	pthread_mutex_lock(&a->lock);
	*ret_result = a->stopping ? MF_CANCELLED : a->link.state == LINK_OFFLINE || a->link.state == LINK_WAITING ? MF_OFFLINE : MF_OK;
	bool answered = *ret_result != MF_OK;
	if (!answered) {
		*ret = want_create_locked(a, WANT_PARTS, done, context);
		part_add_locked(&a->settle_waiters, *ret);
		a->replay_hurry = true;
		replay_look_at_locked(a, clock_mono_ms());
	}
	pthread_mutex_unlock(&a->lock);
	return answered;
}

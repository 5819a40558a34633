/* What was sent and not answered, or answered without saying what became of it: the mailboxes where it may have arrived are read,
 * which finds what has happened. */
#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "sync/engine.h"

#define HANGS 3                 /* connections that one operation may take down with it, before others go first */
#define REST_MS 60000           /* for so long, and twice that the next time */
#define REST_DOUBLINGS 4

static void doubts_seen(void *context, enum mf_err result)
{
	struct account *a = context;
	pthread_mutex_lock(&a->lock);
	if (a->doubts == DOUBTS_LOOKED_AT)
		a->doubts = result == MF_OK || mf_err_scope(result) <= MF_SCOPE_MAILBOX ? DOUBTS_SEEN : DOUBTS_OPEN;
	replay_look_at_locked(a, clock_mono_ms());
	/* another session's thread may tell this, while the worker sleeps because it has not been told */
	sessions_wake_locked(a, ROLE_WORKER);
	pthread_mutex_unlock(&a->lock);
}

/* What shows the outcome: where the message was to arrive; or where it still is, if its flags were changed */
static uint64_t seen_in(const struct op *op)
{
	return op->kind == OP_FLAGS && op->error ? op->mailbox : op_landing(op);
}

static bool can_be_read(struct cache *cache, uint64_t mailbox)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return mailbox && cache_mailbox(cache, mailbox, &m) == MF_OK && m.raw && !(m.flags & MAILBOX_NOSELECT);
}

enum mf_err doubts_look(struct account *a)
{
	struct op *ops;
	size_t count;
	enum mf_err e = journal_in_doubt(a->cache, &ops, &count);
	if (e != MF_OK)
		return e;
	bool *read = mf_alloc_array(count + 1, sizeof *read);
	for (size_t i = 0; i < count; i++)
		read[i] = can_be_read(a->cache, seen_in(&ops[i]));
	pthread_mutex_lock(&a->lock);
	struct want *want = NULL;
	a->doubts = count ? DOUBTS_SEEN : DOUBTS_NONE;
	for (size_t i = 0; i < count; i++) {
		struct mailbox_work *w = read[i] ? work_get_locked(a, seen_in(&ops[i])) : NULL;
		if (!w || w->doubt_serial == a->list_serial + 1 || work_rests_locked(w))
			continue;
		if (!want)
			want = want_create_locked(a, WANT_PARTS, doubts_seen, a);
		a->doubts = DOUBTS_LOOKED_AT;
		w->doubt_serial = a->list_serial + 1;
		part_add_locked(&w->waiters, want);
		work_want_locked(a, w, PRIORITY_PERSON, CHANGES_AUTO);
	}
	for (size_t i = 0; i < count; i++) {
		struct mailbox_work *w = read[i] ? work_get_locked(a, seen_in(&ops[i])) : NULL;
		if (w)
			w->doubt_serial = 0;
	}
	pthread_mutex_unlock(&a->lock);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	free(read);
	return MF_OK;
}

void doubts_open(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->doubts = DOUBTS_OPEN;
	replay_look_at_locked(a, clock_mono_ms());
	pthread_mutex_unlock(&a->lock);
}

static bool is_unread(struct account *a, uint64_t mailbox)
{
	pthread_mutex_lock(&a->lock);
	const struct mailbox_work *w = mailbox ? id_table_get(&a->mailboxes, mailbox) : NULL;
	bool unread = w && w->unread;
	pthread_mutex_unlock(&a->lock);
	return unread;
}

/* Whether it is sent before the other, in one round (round_send.c) */
static bool goes_before(const struct op *op, const struct op *other)
{
	return op->kind != other->kind ? op->kind < other->kind : op->id < other->id;
}

/* The server was at the first that it has not done. One over which each connection is lost would keep all others back: returns
 * until when they go without it; 0: it may be chance. */
static int64_t blame(struct account *a, const struct op *ops, size_t count, uint64_t *ret_op)
{
	const struct op *first = NULL;
	for (size_t i = 0; i < count; i++)
		if (!ops[i].error && (!first || goes_before(&ops[i], first)))
			first = &ops[i];
	*ret_op = first ? first->id : 0;
	if (!first)
		return 0;
	a->hung_times = a->hung_op == first->id ? a->hung_times + 1 : 1;
	a->hung_op = first->id;
	if (a->hung_times < HANGS)
		return 0;
	unsigned doublings = a->hung_times - HANGS;
	log_warning("%s: whenever %s of operation %" PRIu64 " is sent the connection is lost: others go first", a->config->name,
	            op_kind_word(first->kind), first->id);
	return clock_wall_ns() / 1000000 + ((int64_t)REST_MS << (doublings < REST_DOUBLINGS ? doublings : REST_DOUBLINGS));
}

/* It was not seen. Where that says nothing it is not sent again either. */
static enum mf_err settle(struct account *a, struct txn *t, const struct op *op, int64_t due_ms)
{
	bool unread = is_unread(a, seen_in(op));
	/* it was answered: there was nothing any more, to be copied; or the message is where its flags were changed */
	if (op->error && (!unread || op->kind == OP_FLAGS) && can_be_read(a->cache, seen_in(op)))
		return txn_op_gone(t, op->id);
	log_info("%s: %s of operation %" PRIu64 " was not answered and %s", a->config->name, op_kind_word(op->kind), op->id,
	         unread ? "cannot be looked for: the mailbox cannot be read" : "did not happen: it is sent again");
	if (unread)
		return txn_op_park(t, op->id, OP_UNCONFIRMED, "it may have been done: the server did not answer, and does not let the mailbox be read");
	return txn_op_again(t, op->id, due_ms);
}

/* The server may have all the bytes, and not be done with them: what would be there twice then is looked for twice. */
static bool doubts_rest(struct account *a, const struct op *ops, size_t count, int64_t late_ms)
{
	bool lands = false;
	for (size_t i = 0; i < count && !lands; i++)
		lands = op_landing(&ops[i]) != 0 && !ops[i].error;
	pthread_mutex_lock(&a->lock);
	bool rest = lands && late_ms && !a->doubts_again_ms;
	if (rest) {
		a->doubts = DOUBTS_RESTING;
		a->doubts_again_ms = clock_mono_ms() + late_ms;
	}
	pthread_mutex_unlock(&a->lock);
	return rest;
}

static enum mf_err settle_all(struct account *a, const struct op *ops, size_t count)
{
	struct txn *t = NULL;
	uint64_t hung = 0;
	int64_t due_ms = blame(a, ops, count, &hung);
	enum mf_err e = count ? cache_begin(a->cache, &t) : MF_OK;
	for (size_t i = 0; i < count && e == MF_OK; i++)
		e = settle(a, t, &ops[i], ops[i].id == hung ? due_ms : 0);
	if (t && e == MF_OK)
		e = txn_commit(t);
	else
		txn_rollback(t);
	pthread_mutex_lock(&a->lock);
	if (e == MF_OK)
		a->doubts = DOUBTS_NONE;
	pthread_mutex_unlock(&a->lock);
	return e;
}

enum mf_err doubts_settle(struct account *a, int64_t late_ms)
{
	struct op *ops;
	size_t count;
	enum mf_err e = journal_in_doubt(a->cache, &ops, &count);
	if (e != MF_OK)
		return e;
	if (!doubts_rest(a, ops, count, late_ms))
		e = settle_all(a, ops, count);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	return e;
}

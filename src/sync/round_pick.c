/* What of the journal can be sent in this round. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "sync/round.h"

#define UNREAD_MS 60000         /* until a mailbox that could not be read is tried again for what waits for its numbers */

enum mf_err round_commit(struct txn *t, enum mf_err e)
{
	if (e == MF_OK)
		return txn_commit(t);
	txn_rollback(t);
	return e;
}

char *round_raw_of(struct cache *cache, uint64_t mailbox, const struct op *op, struct mailbox *ret)
{
	*ret = (struct mailbox){ 0 };
	if (cache_mailbox(cache, mailbox, ret) == MF_OK)
		return ret->raw ? mf_strdup(ret->raw) : NULL;
	return op->raw ? mf_strdup(op->raw) : NULL;
}

char *round_raw_now(struct cache *cache, uint64_t mailbox, struct mailbox *ret)
{
	static const struct op none;
	return round_raw_of(cache, mailbox, &none, ret);
}

/* Why one cannot be sent, asked again when nothing can change meanwhile: the operation, or what it is about, may have since it was read. */
typedef bool obstacle(struct account *a, struct txn *t, const struct op *now);

static bool is_numbered_otherwise(struct account *a, struct txn *t, const struct op *now)
{
	(void)t;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return cache_mailbox(a->cache, now->mailbox, &m) == MF_OK && m.complete && now->uid && m.uidvalidity && now->uidvalidity != m.uidvalidity;
}

static bool has_lost_its_bytes(struct account *a, struct txn *t, const struct op *now)
{
	(void)t;
	enum mf_err e = spool_sync(a->cache, now->message);
	return e == MF_NOT_FOUND || e == MF_CORRUPT;
}

static bool has_no_name(struct account *a, struct txn *t, const struct op *now)
{
	(void)a;
	MF_CLEANUP(mf_free) char *target = NULL;
	enum mf_err e = txn_op_target(t, now, &target);
	return e != MF_OK && e != MF_BUSY;
}

/* Begins a transaction if the operation waits still, and for that; *ret is NULL else. */
static enum mf_err begin_stopping(struct account *a, const struct op *op, obstacle *why, struct txn **ret)
{
	struct op now = { 0 };
	enum mf_err e = cache_begin(a->cache, ret);
	if (e != MF_OK)
		return e;
	e = journal_op(a->cache, op->id, &now);
	bool still = e == MF_OK && now.state == OP_QUEUED && now.kind == op->kind && why(a, *ret, &now);
	op_finish(&now);
	if (!still) {
		txn_rollback(*ret);
		*ret = NULL;
	}
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err park(struct round *r, const struct op *op, obstacle *why, const char *words)
{
	struct account *a = r->account;
	struct txn *t;
	enum mf_err e = begin_stopping(a, op, why, &t);
	r->waits = true;
	if (e != MF_OK || !t)
		return e;
	log_warning("%s: %s (operation %" PRIu64 ") waits for a person: %s", a->config->name, op_kind_word(op->kind), op->id, words);
	return round_commit(t, txn_op_park(t, op->id, OP_PARKED, words));
}

static enum mf_err forget_keep(struct round *r, const struct op *op, obstacle *why, enum mf_err (*how)(struct txn *t, uint64_t op))
{
	struct txn *t;
	enum mf_err e = begin_stopping(r->account, op, why, &t);
	r->waits = true;
	return e == MF_OK && t ? round_commit(t, how(t, op->id)) : e;
}

/* One that the server does not let be read is not asked for over and over. */
static void want_numbers(struct round *r, uint64_t mailbox)
{
	struct account *a = r->account;
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, mailbox);
	int64_t again = w->unread ? w->checked_ms + UNREAD_MS : 0;
	if (again < w->rest_until_ms)
		again = w->rest_until_ms;
	bool asks = again <= clock_mono_ms();
	if (asks)
		work_want_locked(a, w, PRIORITY_BACKGROUND, CHANGES_AUTO);
	else
		replay_look_at_locked(a, again);
	pthread_mutex_unlock(&a->lock);
	r->waits |= asks;
}

/* Numbered anew since: it was matched, or is not there. */
static enum mf_err is_of_other_numbers(struct round *r, const struct op *op, const struct mailbox *m, bool *ret)
{
	*ret = op->uid && m->uidvalidity && op->uidvalidity != m->uidvalidity;
	if (!*ret)
		return MF_OK;
	if (m->complete && op->kind == OP_KEEP) /* nothing is left to be deleted */
		return forget_keep(r, op, is_numbered_otherwise, txn_op_gone);
	if (m->complete)
		return park(r, op, is_numbered_otherwise, "the mailbox was numbered or named anew, and the message was not found in it again");
	want_numbers(r, m->id);
	return MF_OK;
}

/* Another client may have moved the message, and servers say OK to what is to be done with one that is not there any more: a mailbox
 * that is known to have changed is read first. Not where the answer tells which messages there were; nor for new mail alone. */
static bool may_be_elsewhere(struct round *r, const struct op *op)
{
	struct account *a = r->account;
	bool is_told = op->dest && (r->caps & REMOTE_UIDPLUS);
	if (!op->uid || is_told || !(r->caps & REMOTE_MAILBOXES))
		return false;
	pthread_mutex_lock(&a->lock);
	const struct mailbox_work *w = id_table_get(&a->mailboxes, op->mailbox);
	bool reads = w && w->running && w->running_method != CHANGES_NEW_ONLY;
	bool changed = reads || (w && w->pending != PRIORITY_NONE && w->method != CHANGES_NEW_ONLY);
	pthread_mutex_unlock(&a->lock);
	return changed;
}

static enum mf_err is_called(struct round *r, const struct op *op)
{
	struct cache *cache = r->account->cache;
	struct txn *t;
	uint64_t before = journal_count(cache);
	enum mf_err e = cache_begin(cache, &t);
	if (e == MF_OK)
		e = round_commit(t, txn_mailbox_is_called(t, op->mailbox));
	r->waits |= journal_count(cache) != before;
	return e;
}

/* Another client has removed the mailbox with the message in it; or a person has just now, after op was read. */
static enum mf_err is_lost(struct round *r, const struct op *op)
{
	struct account *a = r->account;
	struct txn *t;
	bool lost = false;
	pthread_mutex_lock(&a->lock);
	bool searches = a->cycle_open; /* it may be found in another */
	pthread_mutex_unlock(&a->lock);
	r->waits |= searches;
	if (searches)
		return MF_OK;
	enum mf_err e = cache_begin(a->cache, &t);
	if (e == MF_OK)
		e = round_commit(t, txn_op_lost(t, op->id, false, &lost));
	r->waits |= lost;
	if (lost)
		log_info("%s: %s of operation %" PRIu64 ": the mailbox that the message was in is gone at the server", a->config->name,
		         op_kind_word(op->kind), op->id);
	return e;
}

/* Nothing leaves that could be lost here: what may be appended in this round goes to the disk, all together. */
static enum mf_err round_spool(struct round *r)
{
	r->spooled = mf_alloc_array(APPENDS_AT_ONCE, sizeof *r->spooled);
	r->spooled_result = mf_alloc_array(APPENDS_AT_ONCE, sizeof *r->spooled_result);
	for (size_t i = 0; i < r->op_count && r->spooled_count < APPENDS_AT_ONCE; i++)
		if (r->ops[i].kind == OP_APPEND)
			r->spooled[r->spooled_count++] = r->ops[i].message;
	return spool_sync_all(r->account->cache, r->spooled, r->spooled_count, r->spooled_result);
}

static enum mf_err spool_is_safe(const struct round *r, uint64_t message)
{
	for (size_t i = 0; i < r->spooled_count; i++)
		if (r->spooled[i] == message)
			return r->spooled_result[i];
	return spool_sync(r->account->cache, message);
}

static enum mf_err message_ready(struct round *r, const struct op *op, bool *ret)
{
	struct account *a = r->account;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 }, dest = { 0 };
	MF_CLEANUP(mf_free) char *raw = round_raw_of(a->cache, op->mailbox, op, &m);
	MF_CLEANUP(mf_free) char *to = op->dest ? round_raw_now(a->cache, op->dest, &dest) : NULL;
	*ret = false;
	if (op->kind == OP_APPEND && r->appends == APPENDS_AT_ONCE)
		return MF_OK;
	if (!raw && op->kind != OP_APPEND)
		return is_lost(r, op);
	if (!raw || (op->dest && !to)) /* until it is made, which is an operation too */
		return MF_OK;
	bool other = false;
	enum mf_err e = is_of_other_numbers(r, op, &m, &other);
	if (e != MF_OK || other)
		return e;
	if (may_be_elsewhere(r, op)) {
		r->waits = true;
		return MF_OK;
	}
	if (op->kind == OP_APPEND && (e = spool_is_safe(r, op->message)) != MF_OK)
		return e == MF_NOT_FOUND || e == MF_CORRUPT ? park(r, op, has_lost_its_bytes, "its bytes in the spool are gone or damaged") : e;
	if (op->kind == OP_KEEP && (e = spool_sync(a->cache, op->message)) != MF_OK) {
		if (e != MF_NOT_FOUND && e != MF_CORRUPT)
			return e;
		log_error("%s: the bytes of message %" PRIu64 " were to be kept, and are gone: it stays at the server", a->config->name, op->message);
		return forget_keep(r, op, has_lost_its_bytes, txn_cancel);
	}
	if ((e = copies_look(r, op, ret)) != MF_OK)
		return e;
	r->appends += op->kind == OP_APPEND && *ret;
	return MF_OK;
}

/* CREATE and RENAME */
static enum mf_err naming_ready(struct round *r, const struct op *op, bool *ret, enum name_state *ret_name)
{
	struct account *a = r->account;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *target = NULL, *now = op->kind == OP_RENAME ? round_raw_now(a->cache, op->mailbox, &m) : NULL;
	enum mf_err e = journal_target(a->cache, op, &target);
	*ret = false;
	if (e != MF_OK)
		return e == MF_BUSY ? MF_OK : park(r, op, has_no_name, "there is no name for it at the server");
	if (now && strcmp(now, target) == 0)
		return is_called(r, op);
	size_t len = now ? strlen(now) : 0;
	if (now && strncmp(now, target, len) == 0 && target[len] == m.delimiter)
		return MF_OK; /* what it goes into is in it still, and is to leave it */
	e = journal_name_state(a->cache, op, target, ret_name);
	*ret = *ret_name == NAME_FREE && (now || op->kind == OP_CREATE);
	return e;
}

static enum mf_err mailbox_ready(struct round *r, const struct op *op, bool *ret, enum name_state *ret_name)
{
	struct cache *cache = r->account->cache;
	*ret = true;
	*ret_name = NAME_FREE;
	if (op->kind == OP_CREATE || op->kind == OP_RENAME)
		return naming_ready(r, op, ret, ret_name);
	if (op->kind == OP_DELETE) {
		enum mf_err e = journal_uses(cache, op->mailbox, ret);
		*ret = !*ret;
		return e;
	}
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *raw = round_raw_of(cache, op->mailbox, op, &m);
	*ret = raw != NULL;
	return MF_OK;
}

/* Once is enough for a circle. */
static bool can_go_aside(struct round *r, const struct op *op)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *now = round_raw_now(r->account->cache, op->mailbox, &m), *aside = NULL;
	bool can = op->kind == OP_CREATE || now;
	return can && journal_aside(r->account->cache, op, &aside) == MF_OK && (!now || strcmp(now, aside) != 0);
}

/* A copy has the flags that the message was given before, and not those that it is given after: where the one that was asked for first
 * stays, or is a copy of this round, which sends flags first, the other one is for a later round. kept: what this round takes; then to at:
 * what was looked at and stays. copies: there are some before it */
static bool is_for_later(const struct round *r, size_t kept, size_t at, bool copies)
{
	const struct op *op = &r->ops[at];
	bool copy = op->kind == OP_COPY, found = false;
	if (!copy && (op->kind != OP_FLAGS || !copies))
		return false;
	for (size_t i = copy ? kept : 0; i < at && !found; i++)
		found = r->ops[i].kind == (copy ? OP_FLAGS : OP_COPY) && r->ops[i].mailbox == op->mailbox && r->ops[i].uid == op->uid;
	return found;
}

/* What can be sent in this round, moved to the front: all about messages that is ready, or one change of a mailbox, which
 * is answered before anything that may build on it. */
enum mf_err round_pick(struct round *r)
{
	size_t kept = 0, crossed = SIZE_MAX;
	bool alone = false, held = false, copies = false;
	enum mf_err e = round_spool(r);
	for (size_t i = 0; i < r->op_count; i++) {
		struct op *op = &r->ops[i];
		bool of_mailbox = op_is_of_mailbox(op), take = false;
		if (e == MF_OK && !alone && of_mailbox && kept == 0) {
			enum name_state name; /* one that cannot be done yet keeps none back: it may be waiting for one of them */
			e = mailbox_ready(r, op, &take, &name);
			alone = take;
			held |= name == NAME_HELD;
			if (name == NAME_LEAVING && crossed == SIZE_MAX && can_go_aside(r, op))
				crossed = i;
		} else if (e == MF_OK && !alone && !of_mailbox) {
			e = message_ready(r, op, &take);
			take = take && !is_for_later(r, kept, i, copies);
		}
		copies |= op->kind == OP_COPY;
		if (take && e == MF_OK) {
			struct op swap = r->ops[kept];
			r->ops[kept++] = *op;
			if (&r->ops[kept - 1] != op)
				*op = swap;
		}
	}
	if (e == MF_OK && kept == 0 && crossed != SIZE_MAX && !held) {
		/* each waits for another's name, or for what is to be made under one: one of them goes on without */
		struct op swap = r->ops[0];
		r->ops[0] = r->ops[crossed];
		r->ops[crossed] = swap;
		r->ops[0].aside = true;
		kept = 1;
	}
	for (size_t i = kept; i < r->op_count; i++)
		op_finish(&r->ops[i]);
	r->op_count = kept;
	return e;
}

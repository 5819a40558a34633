/* Messages that are not where operations have them: another client has moved or removed them. What waits for one is astray
 * until the message is met in another mailbox, and goes on from there. Where all have been read, and none has it, it is gone.
 *
 * A message that is to be moved stays meanwhile where a person has put it, and one that is to be expunged out of sight; any other
 * is in limbo. An operation that is astray has no UIDVALIDITY, so that it claims no place. */
#include "base/mem.h"
#include "cache/txn.h"

static bool has_it_there(const struct op *op, uint64_t mailbox, uint32_t uid)
{
	bool acts = op->kind == OP_FLAGS || op->kind == OP_MOVE || op->kind == OP_EXPUNGE;
	return acts && op->uid == uid && op->mailbox == mailbox;
}

static enum mf_err go_astray(struct txn *t, struct op *op)
{
	if (op->kind == OP_EXPUNGE && op->state == OP_QUEUED)
		op->parent = (uint64_t)op->due_ms;
	op->state = OP_ASTRAY;
	op->uidvalidity = 0;
	op->due_ms = txn_now_ms(t);
	op_set_error(op, "another client has moved or removed the message: it is looked for in other mailboxes");
	t->strays.loaded = false;
	return op_store(t, op);
}

enum mf_err stray_begin(struct txn *t, uint64_t message, uint64_t mailbox, uint32_t uid)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		if (has_it_there(&ops.items[i], mailbox, uid))
			e = go_astray(t, &ops.items[i]);
	ops_finish(&ops);
	return e;
}

/* --- met -------------------------------------------------------------------------------------------------------------------- */

/* It is not expunged where somebody has put it since: that is for a person to say. */
static enum mf_err park_expunge(struct txn *t, struct op *op, const struct node *n)
{
	MF_CLEANUP(mf_free) char *why = mf_format("another client has moved the message to %s since it was removed here", n->m.name);
	op->state = OP_PARKED;
	op_set_error(op, why);
	return op_store(t, op);
}

static enum mf_err go_on(struct txn *t, const struct op *was, struct op *op, struct node *n, uint32_t uid)
{
	if (!has_it_there(op, was->mailbox, was->uid))
		return MF_OK;
	bool stays = op->mailbox == n->m.id && op->uid == uid;
	op->state = OP_ASTRAY; /* also what was parked where the message is not any more */
	op_goes_on(op, n, uid);
	if (op->kind == OP_MOVE && op->dest == n->m.id)
		return settle_landed(t, op, n, uid);
	return op->kind == OP_EXPUNGE && !stays ? park_expunge(t, op, n) : op_store(t, op);
}

/* The message that `was` has in another place is there. */
static enum mf_err met(struct txn *t, const struct op *was, struct node *n, uint32_t uid)
{
	const struct node *from = txn_node(t, was->mailbox);
	struct ops ops = { 0 };
	enum mf_err e = from ? settle_copies_follow(t, from->m.id, from->m.uidvalidity, was->uid, n, uid) : MF_OK;
	if (!e)
		e = ops_of_message(t, was->message, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		e = go_on(t, was, &ops.items[i], n, uid);
	ops_finish(&ops);
	return e;
}

/* What has been added comes after what there was: where the message is to be moved, it has its number when that is done. */
static enum mf_err take_ops(struct txn *t, uint64_t from, uint64_t to)
{
	struct ops ops = { 0 }, own = { 0 };
	enum mf_err e = ops_of_message(t, to, &own);
	const struct op *placing = ops_placing(&own);
	const struct node *lands = placing && placing->kind == OP_MOVE ? txn_node(t, placing->dest) : NULL;
	if (!e)
		e = ops_of_message(t, from, &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		ops.items[i].message = to;
		if (lands)
			op_goes_on(&ops.items[i], lands, 0);
		e = op_store(t, &ops.items[i]);
	}
	ops_finish(&ops);
	ops_finish(&own);
	return e;
}

enum mf_err stray_is(struct txn *t, struct op *op, const struct row *arrival)
{
	struct node *there = txn_node(t, arrival->entry.mailbox);
	uint32_t uid = arrival->entry.uid;
	enum mf_err e = settle_double(t, there, arrival, op->message);
	if (!e)
		e = take_ops(t, arrival->entry.id, op->message);
	if (!e)
		e = met(t, op, there, uid);
	if (e)
		return e;
	e = txn_message_flags(t, there->m.id, uid, arrival->flags, arrival->keywords, arrival->modseq);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err stray_away(struct txn *t, struct op *op)
{
	struct row row, arrival;
	enum mf_err e = row_by_id(t, op->message, &row);
	if (!e)
		e = arrival_match(t, &row, op->mailbox, &arrival);
	if (!e)
		return stray_is(t, op, &arrival);
	return e == MF_NOT_FOUND ? stray_begin(t, op->message, op->mailbox, op->uid) : e;
}

static enum mf_err load(struct txn *t)
{
	if (t->strays.loaded)
		return MF_OK;
	map_finish(&t->strays.ids);
	sqlite3_stmt *s = db_use(t->db, SQL_OP_ASTRAY_HASHES);
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK)
		map_add(&t->strays.ids, (uint64_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1));
	t->strays.loaded = e == MF_NOT_FOUND;
	return t->strays.loaded ? MF_OK : e;
}

/* Not what is below the number up to which the mailbox was known: that was there before, unless it is where it was. */
static bool may_have_come(const struct node *n, const struct message_put *put, const struct op *op)
{
	bool known = n->m.complete && put->uid < n->m.uidnext;
	return !known || (op->mailbox == n->m.id && op->uid == put->uid);
}

/* Thousands may be astray: what has been met is not looked at again. */
static enum mf_err find(struct txn *t, const struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, struct op *ret)
{
	struct map *ids = &t->strays.ids;
	for (uint32_t at = map_first(ids, match); at; at = map_next(ids, at)) {
		enum mf_err e = op_by_id(t, ids->entries[at].value, ret);
		if (!e && ret->state == OP_ASTRAY && may_have_come(n, put, ret) && identity_is_same(t, ret->message, put, mtime, true)) {
			map_remove(ids, match, ret->id);
			return MF_OK;
		}
		if (e && e != MF_NOT_FOUND)
			return e;
		op_finish(ret);
	}
	return MF_NOT_FOUND;
}

enum mf_err stray_met(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_id)
{
	struct op op = { 0 };
	uint64_t plain = match_without_id(put, mtime);
	enum mf_err e = load(t);
	if (e || !t->strays.ids.count)
		return e ? e : MF_NOT_FOUND;
	e = find(t, n, put, mtime, match, &op);
	if (e == MF_NOT_FOUND && plain != match)
		e = find(t, n, put, mtime, plain, &op);
	if (e)
		return e;
	*ret_id = op.message;
	e = met(t, &op, n, put->uid);
	op_finish(&op);
	return e;
}

/* --- not met ---------------------------------------------------------------------------------------------------------------- */

static enum mf_err give_up(struct txn *t, struct op *op, bool all_read)
{
	if (!all_read) {
		op->state = OP_PARKED;
		op_set_error(op, "another client has moved or removed the message, and not every mailbox can be read to find it");
		return op_store(t, op);
	}
	return op->kind == OP_MOVE ? settle_leaves(t, op->message) : op->kind == OP_EXPUNGE ? settle_expunged(t, op) : op_remove(t, op->id);
}

enum mf_err txn_strays_settle(struct txn *t, int64_t before_ms, bool all_read, size_t *ret)
{
	struct ops ops = { 0 };
	*ret = 0;
	if (t->failed || !txn_has_ops(t))
		return t->failed;
	sqlite3_stmt *s = db_use(t->db, SQL_OP_ASTRAY);
	sqlite3_bind_int64(s, 1, before_ms);
	sqlite3_bind_int64(s, 2, txn_now_ms(t)); /* the clock was set back */
	enum mf_err e = ops_collect(t, s, &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		struct op now;
		e = op_by_id(t, ops.items[i].id, &now);
		if (!e) {
			e = give_up(t, &now, all_read);
			op_finish(&now);
			(*ret)++;
		}
		e = e == MF_NOT_FOUND ? MF_OK : e; /* another of its message has taken it along */
	}
	ops_finish(&ops);
	return txn_fail(t, e);
}

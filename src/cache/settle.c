/* What the server answered, and what it tells by itself of messages and mailboxes that operations are about. */
#include <string.h>

#include "base/mem.h"
#include "cache/spool.h"
#include "cache/txn.h"

#define LOOK_AT_MAX 64  /* waiting messages that one that arrives is compared with, beyond those with its hash */

/* --- where a message has landed ------------------------------------------------------------------------------------------- */

static enum mf_err follow(struct txn *t, const struct node *n, const struct row *row, uint64_t message)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		struct op *op = &ops.items[i];
		if (op->kind != OP_FLAGS)
			continue;
		bool goes_on = op->mailbox != n->m.id || op->uid != row->entry.uid || op->uidvalidity != n->m.uidvalidity;
		op->message = row->entry.id;
		if (goes_on)
			op_goes_on(op, n, row->entry.uid);
		e = op_store(t, op);
	}
	ops_finish(&ops);
	return e;
}

enum mf_err settle_elsewhere(struct txn *t, const struct node *n, struct row *row, uint64_t double_id)
{
	enum mf_err e = txn_has_ops(t) ? follow(t, n, row, row->entry.id) : MF_OK;
	if (!e && double_id && txn_has_ops(t))
		e = follow(t, n, row, double_id);
	return e ? e : flags_overlay(t, row->entry.id, &row->flags, row->keywords);
}

enum mf_err settle_double(struct txn *t, struct node *n, const struct row *twin, uint64_t heir)
{
	enum mf_err e = row_remove(t, twin->entry.id);
	if (e)
		return e;
	arrival_forget(t, twin->match, twin->entry.id);
	row_hide(t, n, twin->entry.id);
	row_count(n, -1, twin->flags);
	if (!txn_change_cancel(t, CHANGE_MESSAGE_ADDED, twin->entry.id))
		row_tell(t, CHANGE_MESSAGE_REMOVED, n, twin);
	txn_names_changed(t, n->m.id);
	txn_body(t, twin->entry.id, heir);
	return MF_OK;
}

/* A synchronisation met the message under its new number before the answer to the operation was dealt with. MF_NOT_FOUND: none did */
static enum mf_err absorb_double(struct txn *t, struct node *n, struct row *row, uint32_t uid)
{
	struct row twin;
	enum mf_err e = row_by_uid(t, n, uid, &twin);
	if (!e)
		e = settle_double(t, n, &twin, row->entry.id);
	if (e)
		return e;
	row_count(n, -1, row->flags); /* its flags are those that the server told of the twin */
	row->flags = twin.flags;
	memcpy(row->keywords, twin.keywords, sizeof row->keywords);
	row->entry.uid = uid;
	e = settle_elsewhere(t, n, row, twin.entry.id);
	if (e)
		return e;
	row_count(n, 1, row->flags);
	row->modseq = twin.modseq;
	return MF_OK;
}

static enum mf_err number_row(struct txn *t, struct node *n, uint64_t message, uint32_t uid)
{
	struct row row;
	enum mf_err e = row_by_id(t, message, &row);
	if (e || row.shelf != n->shelf || row.entry.uid)
		return e == MF_NOT_FOUND ? MF_OK : e; /* it has gone on from there: an operation has taken the number */
	e = absorb_double(t, n, &row, uid);
	row.entry.uid = uid;
	if (e == MF_NOT_FOUND)
		e = row_number(t, &row);
	else if (!e)
		e = row_place(t, n, &row);
	if (!e)
		row_show(t, n, &row, false);
	return e;
}

static enum mf_err number_ops(struct txn *t, uint64_t message, uint64_t mailbox, uint32_t uidvalidity, uint32_t uid)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_NUMBER);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	sqlite3_bind_int64(s, 2, (int64_t)mailbox);
	sqlite3_bind_int64(s, 3, uid);
	sqlite3_bind_int64(s, 4, uidvalidity);
	return db_run(t->db, s);
}

enum mf_err settle_copies_follow(struct txn *t, uint64_t mailbox, uint32_t uidvalidity, uint32_t uid, const struct node *n, uint32_t new_uid)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_COPIES_FROM);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	sqlite3_bind_int64(s, 2, uid);
	sqlite3_bind_int64(s, 3, uidvalidity);
	sqlite3_bind_int64(s, 4, (int64_t)n->m.id);
	sqlite3_bind_int64(s, 5, new_uid);
	sqlite3_bind_int64(s, 6, n->m.uidvalidity);
	return db_run(t->db, s);
}

/* The place is claimed: a message that has been moved away or removed here, and not there yet. */
static enum mf_err claimed(struct txn *t, const struct node *n, uint32_t uid, struct op *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_CLAIM);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	sqlite3_bind_int64(s, 2, uid);
	sqlite3_bind_int64(s, 3, n->m.uidvalidity);
	return op_take(t, s, ret);
}

/* A server that stores a message only once gives what it has already the number that it has: what was to leave that place is what has
 * arrived, and stays. */
static enum mf_err claim_is_void(struct txn *t, const struct node *n, uint64_t message, uint32_t uid)
{
	struct op op;
	enum mf_err e = claimed(t, n, uid, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	if (op_is_open(&op) && op.message != message) /* its own: it goes on from there */
		e = op.message ? settle_leaves(t, op.message) : op_remove(t, op.id);
	op_finish(&op);
	return e;
}

enum mf_err settle_landed(struct txn *t, const struct op *op, struct node *n, uint32_t uid)
{
	enum mf_err e = op_remove(t, op->id);
	if (!e)
		e = number_ops(t, op->message, n->m.id, n->m.uidvalidity, uid);
	if (!e && op->kind == OP_MOVE)
		e = settle_copies_follow(t, op->mailbox, op->uidvalidity, op->uid, n, uid);
	if (!e)
		e = claim_is_void(t, n, op->message, uid);
	if (!e)
		e = number_row(t, n, op->message, uid);
	if (!e && op->kind == OP_APPEND)
		txn_spool(t, op->message, SPOOL_IS_BODY);
	return e;
}

/* false: the number that the server gave means nothing here (yet) */
static bool accept_validity(struct node *n, uint32_t uidvalidity, uint32_t uid)
{
	if (!n || !uid || !uidvalidity)
		return false;
	if (!n->m.uidvalidity) {
		n->m.uidvalidity = uidvalidity;
		txn_attributes_changed(n);
	}
	return n->m.uidvalidity == uidvalidity;
}

/* The server has it, and did not say where: seeing it there settles it. */
static enum mf_err await(struct txn *t, struct op *op)
{
	op->state = OP_UNCONFIRMED;
	op_set_error(op, "the server took it, but has not shown it yet");
	return op_store(t, op);
}

static enum mf_err remove_all_ops(struct txn *t, uint64_t message)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		e = op_remove(t, ops.items[i].id);
	ops_finish(&ops);
	return e;
}

enum mf_err settle_expunged(struct txn *t, const struct op *op)
{
	if (!op->message)
		return op_remove(t, op->id);
	enum mf_err e = remove_all_ops(t, op->message);
	if (e)
		return e;
	txn_body(t, op->message, 0);
	if (spool_has(t->cache, op->message)) /* it was to be kept before */
		txn_spool(t, op->message, SPOOL_GOES);
	return row_remove(t, op->message);
}

/* The next number of a mailbox that is known up to it: nothing of it is left to be read. */
static void number_is_known(struct node *n, uint32_t uid)
{
	if (!n->m.complete || uid != n->m.uidnext || uid == UINT32_MAX)
		return;
	n->m.uidnext++;
	txn_attributes_changed(n);
}

/* The server has it where nobody here may look (RFC 4314, no right to read), so that nothing will ever show it. */
static enum mf_err out_of_sight(struct txn *t, const struct op *op)
{
	if (spool_has(t->cache, op->message))
		txn_spool(t, op->message, SPOOL_GOES);
	return settle_leaves(t, op->message);
}

static enum mf_err done(struct txn *t, struct op *op, uint32_t uidvalidity, uint32_t uid)
{
	if (op->kind == OP_EXPUNGE)
		return settle_expunged(t, op);
	if (op->kind != OP_APPEND && op->kind != OP_COPY && op->kind != OP_MOVE)
		return op_remove(t, op->id);
	struct node *n = txn_node(t, op_landing(op));
	if (!accept_validity(n, uidvalidity, uid))
		return n && !mailbox_permits(&n->m, "r") ? out_of_sight(t, op) : await(t, op);
	if (op->kind != OP_APPEND || spool_ends_line(t->cache, op->message)) /* else a server may have ended it: it will tell */
		number_is_known(n, uid);
	return settle_landed(t, op, n, uid);
}

enum mf_err txn_op_done(struct txn *t, uint64_t id, uint32_t uidvalidity, uint32_t uid)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : txn_fail(t, e);
	e = done(t, &op, uidvalidity, uid);
	op_finish(&op);
	return txn_fail(t, e);
}

/* Not since its mailbox was numbered anew, or followed under another name. One that was removed here is called as it was. */
static bool has_its_number(struct txn *t, const struct op *op)
{
	const struct node *n = txn_node(t, op->mailbox);
	return op->uidvalidity && (!n || n->m.uidvalidity == op->uidvalidity);
}

/* What was copied is to go. */
static enum mf_err add_rest(struct txn *t, const struct op *move)
{
	struct op rest = { .kind = OP_EXPUNGE, .mailbox = move->mailbox, .uidvalidity = move->uidvalidity, .uid = move->uid, .name = move->name,
		.raw = move->raw };
	return op_add(t, &rest);
}

static enum mf_err half_moved(struct txn *t, struct op *op, uint32_t uidvalidity, uint32_t uid)
{
	enum mf_err e = add_rest(t, op);
	op->kind = OP_COPY; /* what comes after the move goes on waiting for it */
	return e ? e : done(t, op, uidvalidity, uid);
}

/* The copy was seen before the answer came, and might have been another's: the answer says that it is there. So the original goes,
 * unless somebody has it go already. */
static enum mf_err rest_of_move(struct txn *t, const struct op *sent, uint32_t uidvalidity, uint32_t uid)
{
	struct node *from = txn_node(t, sent->mailbox), *to = txn_node(t, sent->dest);
	struct row copy;
	struct op claim;
	if (!from || !to || !uid || to->m.uidvalidity != uidvalidity || !has_its_number(t, sent))
		return MF_OK;
	enum mf_err e = row_by_uid(t, to, uid, &copy);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = claimed(t, from, sent->uid, &claim);
	if (!e)
		op_finish(&claim);
	if (e != MF_NOT_FOUND)
		return e;
	e = txn_message_vanished(t, from->m.id, sent->uid);
	return e && e != MF_NOT_FOUND ? e : add_rest(t, sent);
}

enum mf_err txn_op_half_moved(struct txn *t, const struct op *sent, uint32_t uidvalidity, uint32_t uid)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, sent->id, &op);
	if (e)
		return txn_fail(t, e == MF_NOT_FOUND ? rest_of_move(t, sent, uidvalidity, uid) : e);
	if (op.kind == OP_MOVE)
		e = half_moved(t, &op, uidvalidity, uid);
	op_finish(&op);
	return txn_fail(t, e);
}

/* --- what did not happen -------------------------------------------------------------------------------------------------------- */

enum mf_err settle_leaves(struct txn *t, uint64_t message)
{
	struct row row;
	enum mf_err e = row_by_id(t, message, &row);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = remove_all_ops(t, message);
	struct node *n = txn_node_of_shelf(t, row.shelf);
	if (e)
		return e;
	if (!n) { /* it was to be expunged */
		txn_body(t, message, 0);
		return row_remove(t, message);
	}
	e = limbo_put(t, n, &row);
	row_hide(t, n, message);
	row_count(n, -1, row.flags);
	row_tell(t, CHANGE_MESSAGE_REMOVED, n, &row);
	txn_names_changed(t, n->m.id);
	return e;
}

/* The server does not have it any more: what is here is stored anew, if all of it is. */
static enum mf_err append_instead(struct txn *t, struct op *op, const char *why)
{
	struct row row;
	enum mf_err e = row_by_id(t, op->message, &row);
	if (e && e != MF_NOT_FOUND)
		return e;
	bool kept = !e && keep_bytes(t, &row);
	if (kept)
		op_into_append(op);
	op->state = kept ? OP_QUEUED : OP_PARKED;
	op_set_error(op, kept ? NULL : why);
	return op_store(t, op);
}

static enum mf_err gone(struct txn *t, struct op *op)
{
	if (op->kind == OP_MOVE)
		return stray_away(t, op);
	if (op->kind != OP_COPY)
		return done(t, op, 0, 0);
	return append_instead(t, op, "the message to be copied is gone at the server");
}

/* What was taken out of a mailbox before another client removed that is not lost with it. */
static enum mf_err lost(struct txn *t, struct op *op)
{
	struct row row, elsewhere;
	if (op->kind != OP_MOVE)
		return gone(t, op);
	enum mf_err e = row_by_id(t, op->message, &row);
	if (!e)
		e = arrival_match(t, &row, op->mailbox, &elsewhere);
	if (!e)
		return stray_is(t, op, &elsewhere); /* that client has moved it */
	if (e == MF_NOT_FOUND)
		e = append_instead(t, op, "another client has removed the mailbox that the message was in");
	const struct node *to = txn_node(t, op->dest);
	bool thrown_away = op->state == OP_PARKED && to && to->m.use == CACHE_USE_TRASH;
	return !e && thrown_away ? settle_leaves(t, op->message) : e;
}

enum mf_err txn_op_gone(struct txn *t, uint64_t id)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : txn_fail(t, e);
	e = gone(t, &op);
	op_finish(&op);
	return txn_fail(t, e);
}

enum mf_err txn_op_lost(struct txn *t, uint64_t id, bool refused, bool *ret_lost)
{
	struct op op;
	*ret_lost = false;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : txn_fail(t, e);
	const struct node *n = txn_node(t, op.mailbox);
	*ret_lost = n ? !n->m.raw : refused || !op.raw;
	e = *ret_lost ? lost(t, &op) : MF_OK;
	op_finish(&op);
	return txn_fail(t, e);
}

bool txn_op_is_sent(struct txn *t, uint64_t id)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_STATE);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	bool sent = db_step(t->db, s) == MF_OK && sqlite3_column_int(s, 0) == OP_SENT;
	db_done(s);
	return sent;
}

static enum mf_err set_state(struct txn *t, uint64_t id, enum op_state state, const char *error, int64_t due_ms)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : txn_fail(t, e);
	op.state = state;
	if (due_ms >= 0)
		op.due_ms = due_ms;
	op_set_error(&op, error);
	e = op_store(t, &op);
	op_finish(&op);
	return txn_fail(t, e);
}

enum mf_err txn_op_again(struct txn *t, uint64_t op, int64_t due_ms)
{
	return set_state(t, op, OP_QUEUED, NULL, due_ms);
}

enum mf_err txn_op_park(struct txn *t, uint64_t op, enum op_state state, const char *error)
{
	return set_state(t, op, state, error, -1);
}

enum mf_err txn_op_unsaid(struct txn *t, uint64_t op)
{
	return set_state(t, op, OP_SENT, "the server answered, and did not say where the message is", -1);
}

enum mf_err txn_retry(struct txn *t, uint64_t id)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	bool may = op.state == OP_PARKED || op.state == OP_UNCONFIRMED || op.state == OP_QUEUED;
	/* it has no place any more: it is looked for again */
	bool strayed = op.state == OP_PARKED && op.message && op.uid && !op.uidvalidity && op.kind != OP_COPY;
	uint64_t message = op.message, mailbox = op.mailbox;
	uint32_t uid = op.uid;
	op_finish(&op);
	if (strayed)
		return txn_fail(t, stray_begin(t, message, mailbox, uid));
	return may ? set_state(t, id, OP_QUEUED, NULL, 0) : MF_BUSY;
}

/* --- what the server tells ------------------------------------------------------------------------------------------------------ */

enum mf_err settle_claimed(struct txn *t, const struct node *n, uint32_t uid, struct row *ret)
{
	struct op op;
	enum mf_err e = txn_has_ops(t) ? claimed(t, n, uid, &op) : MF_NOT_FOUND;
	if (e)
		return e;
	e = op.message ? row_by_id(t, op.message, ret) : MF_NOT_FOUND;
	op_finish(&op);
	return e;
}

/* Asked for each message of a mailbox that is read: the answer holds for the transaction, which only makes them fewer. */
static enum mf_err any_numbered_otherwise(struct txn *t, const struct node *n, bool *ret)
{
	if (t->otherwise.mailbox != n->m.id || t->otherwise.uidvalidity != n->m.uidvalidity) {
		sqlite3_stmt *s = db_use(t->db, SQL_OP_ANY_NUMBERED_OTHERWISE);
		sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
		sqlite3_bind_int64(s, 2, n->m.uidvalidity);
		enum mf_err e = db_step(t->db, s);
		if (e && e != MF_NOT_FOUND)
			return e;
		db_done(s);
		t->otherwise.mailbox = n->m.id;
		t->otherwise.uidvalidity = n->m.uidvalidity;
		t->otherwise.any = !e;
	}
	*ret = t->otherwise.any;
	return MF_OK;
}

/* The mailbox was numbered anew: operations are about the same messages, which have other numbers now. */
static enum mf_err renumber_ops(struct txn *t, const struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_claimed)
{
	struct ops ops = { 0 };
	bool any = false;
	*ret_claimed = 0;
	enum mf_err e = any_numbered_otherwise(t, n, &any);
	if (e || !any)
		return e;
	sqlite3_stmt *s = db_use(t->db, SQL_OP_NUMBERED_OTHERWISE);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	sqlite3_bind_int64(s, 2, n->m.uidvalidity);
	sqlite3_bind_int64(s, 3, (int64_t)match);
	sqlite3_bind_int64(s, 4, (int64_t)match_without_id(put, mtime));
	e = ops_collect(t, s, &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		struct op *op = &ops.items[i];
		bool claims = op->kind == OP_MOVE || op->kind == OP_EXPUNGE || op->kind == OP_KEEP;
		if ((claims && *ret_claimed) || !identity_is_same(t, op->message, put, mtime, true))
			continue;
		op->uidvalidity = n->m.uidvalidity;
		op->uid = put->uid;
		e = op_store(t, op);
		if (claims)
			*ret_claimed = op->message;
	}
	ops_finish(&ops);
	return e;
}

static enum mf_err awaited_load(struct txn *t, const struct node *n)
{
	if (t->awaited.mailbox == n->m.id)
		return MF_OK;
	map_finish(&t->awaited.ids);
	t->awaited.mailbox = 0;
	/* the last of them are the first that the map finds */
	sqlite3_stmt *s = db_use(t->db, SQL_OP_AWAITED_HASHES);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK)
		map_add(&t->awaited.ids, (uint64_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1));
	if (e != MF_NOT_FOUND)
		return e;
	t->awaited.mailbox = n->m.id;
	return MF_OK;
}

static bool is_awaited(const struct op *op, const struct node *n)
{
	return (op->state == OP_SENT || op->state == OP_UNCONFIRMED) && op_landing(op) == n->m.id;
}

/* Those with the hash, and then the first few of all: thousands may be on their way, and each is compared with each. */
static enum mf_err awaited(struct txn *t, const struct node *n, uint64_t match, struct ops *ret)
{
	enum mf_err e = awaited_load(t, n);
	const struct map *ids = &t->awaited.ids;
	if (e || !ids->count)
		return e;
	for (uint32_t at = map_first(ids, match); at && !e; at = map_next(ids, at)) {
		e = ops_add_by_id(t, ids->entries[at].value, ret);
		if (!e && ret->count && !is_awaited(&ret->items[ret->count - 1], n))
			op_finish(&ret->items[--ret->count]);
	}
	sqlite3_stmt *s = db_use(t->db, SQL_OP_AWAITED);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	sqlite3_bind_int64(s, 2, LOOK_AT_MAX);
	return e ? e : ops_collect(t, s, ret);
}

/* A MOVE whose answer got lost: it may have been a copy only. */
static bool may_be_half(const struct op *op)
{
	return op->kind == OP_MOVE && op->state == OP_SENT;
}

/* The first of those that are the message: the server does in turn what it is sent. Of one that may be half a move also whether
 * there is another. */
static enum mf_err find_awaited(struct txn *t, const struct ops *ops, const struct message_put *put, int64_t mtime, uint64_t match,
                                struct op **ret, bool *ret_twins)
{
	enum mf_err e = MF_OK;
	size_t looked = 0;
	*ret = NULL;
	*ret_twins = false;
	for (size_t i = 0; i < ops->count && !e && !*ret_twins && (!*ret || may_be_half(*ret)); i++) {
		struct op *op = &ops->items[i];
		struct row row;
		if (*ret && op->id == (*ret)->id)
			continue;
		e = row_by_id(t, op->message, &row);
		bool likely = !e && row.match == match;
		if (!e && (likely || looked++ < LOOK_AT_MAX) && identity_is_same(t, row.entry.id, put, mtime, false)) {
			*ret_twins = *ret != NULL;
			*ret = *ret ? *ret : op;
		}
		e = e == MF_NOT_FOUND ? MF_OK : e;
	}
	return e;
}

/* One that was sent there and whose number is not known is seen. */
static enum mf_err adopt(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_id)
{
	struct ops ops = { 0 };
	struct op *found = NULL;
	bool twins = false;
	uint64_t old;
	enum mf_err e = awaited(t, n, match, &ops);
	if (!e)
		e = find_awaited(t, &ops, put, mtime, match, &found, &twins);
	/* it may have been there before, under another number: then what is awaited may not have come */
	bool was_there = !e && found && !n->m.complete && limbo_match(t, put, match, mtime, n->m.id, &old) == MF_OK;
	if (!e && found && !was_there) {
		*ret_id = found->message;
		/* The original is to go. Where it may be another's copy that has come, this one's original may be all there is: it
		 * stays, and the next look at its mailbox finds it missing here. So it does when its number is not known any more. */
		bool halves = may_be_half(found) && !twins && has_its_number(t, found);
		e = halves ? half_moved(t, found, n->m.uidvalidity, put->uid) : settle_landed(t, found, n, put->uid);
	} else if (!e) {
		e = MF_NOT_FOUND;
	}
	ops_finish(&ops);
	return e;
}

enum mf_err settle_put(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_id)
{
	if (!txn_has_ops(t) || !put->uid)
		return MF_NOT_FOUND;
	struct op op;
	enum mf_err e = claimed(t, n, put->uid, &op);
	if (!e) {
		*ret_id = op.message;
		op_finish(&op);
	}
	if (e != MF_NOT_FOUND)
		return e;
	uint64_t taken = 0;
	e = renumber_ops(t, n, put, mtime, match, &taken);
	if (e || taken) {
		*ret_id = taken;
		return e;
	}
	e = adopt(t, n, put, mtime, match, ret_id);
	return e == MF_NOT_FOUND ? stray_met(t, n, put, mtime, match, ret_id) : e;
}

enum mf_err settle_vanished(struct txn *t, const struct node *n, uint32_t uid)
{
	struct op op;
	enum mf_err e = txn_has_ops(t) ? claimed(t, n, uid, &op) : MF_NOT_FOUND;
	if (e)
		return e;
	/* what has been sent is answered, or looked for */
	bool moved = op.kind == OP_MOVE || (op.kind == OP_EXPUNGE && !op.tries && op.message); /* by another, or expunged: by us, if that was tried */
	if (op_is_open(&op) && moved && !t->cache->only_deletes)
		e = stray_away(t, &op);
	else if (op_is_open(&op) || op.kind == OP_KEEP)
		e = gone(t, &op);
	op_finish(&op);
	return e;
}

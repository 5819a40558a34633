/* Taking back: the inverse of each operation that the server has not carried out. */
#include <string.h>

#include "base/mem.h"
#include "cache/spool.h"
#include "cache/txn.h"

static enum mf_err cancel_op(struct txn *t, struct op *op);

static enum mf_err undo_flags(struct txn *t, const struct op *op)
{
	struct row row;
	enum mf_err e = row_by_id(t, op->message, &row);
	struct node *n = e ? NULL : txn_node_of_shelf(t, row.shelf);
	if (e || !n)
		return e == MF_NOT_FOUND ? MF_OK : e;
	unsigned before = row.flags;
	row_undo_flags(&row, op);
	if ((before ^ row.flags) & CACHE_MESSAGE_SEEN) {
		n->m.unseen += (row.flags & CACHE_MESSAGE_SEEN) ? UINT32_MAX : 1;
		txn_attributes_changed(n);
	}
	row.entry.ctime = t->now_ns;
	e = row_place(t, n, &row);
	if (!e) {
		row_show(t, n, &row, false);
		row_tell(t, CHANGE_MESSAGE_FLAGS, n, &row);
	}
	return e;
}

/* The bytes are kept: a person may want them after all. */
static enum mf_err undo_append(struct txn *t, const struct op *op)
{
	struct row row;
	enum mf_err e = row_by_id(t, op->message, &row);
	struct node *n = e ? NULL : txn_node_of_shelf(t, row.shelf);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	if (op->kind == OP_APPEND)
		e = spool_reject(t->cache, op->message, false, n ? row.name : op->name, "it was taken back before the server had it");
	if (!e || e == MF_NOT_FOUND)
		e = row_remove(t, op->message);
	if (e)
		return e;
	txn_spool(t, op->message, SPOOL_GOES);
	if (!n)
		return MF_OK;
	row_hide(t, n, op->message);
	row_count(n, -1, row.flags);
	row_tell(t, CHANGE_MESSAGE_REMOVED, n, &row);
	txn_names_changed(t, n->m.id);
	txn_body(t, op->message, 0);
	return MF_OK;
}

/* A mailbox, also if it was to be removed since: that is taken back as well. */
static enum mf_err bring_back(struct txn *t, uint64_t mailbox, struct node **ret)
{
	struct ops ops = { 0 };
	sqlite3_stmt *s = db_use(t->db, SQL_OP_OF_MAILBOX);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	enum mf_err e = txn_node(t, mailbox) ? MF_OK : ops_collect(t, s, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		if (ops.items[i].kind == OP_DELETE)
			e = cancel_op(t, &ops.items[i]);
	ops_finish(&ops);
	*ret = txn_node(t, mailbox);
	return e ? e : *ret ? MF_OK : MF_STALE;
}

/* There is nothing to go back to: another client has removed the mailbox. Bytes that are here are kept. */
static enum mf_err undo_lost(struct txn *t, const struct op *op, const struct row *row)
{
	const struct op append = { .kind = OP_APPEND, .message = op->message, .name = op->name };
	return spool_has(t->cache, op->message) || keep_bytes(t, row) ? undo_append(t, &append) : settle_leaves(t, op->message);
}

/* Back to where the server has it, under the name it had, if that can be had. */
static enum mf_err undo_move(struct txn *t, const struct op *op)
{
	struct row row;
	struct node *home = NULL;
	enum mf_err e = row_by_id(t, op->message, &row);
	if (!e)
		e = bring_back(t, op->mailbox, &home);
	if (e == MF_STALE || (!e && !home->m.raw))
		return undo_lost(t, op, &row);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	bool renumbered = op->uid && op->uidvalidity != home->m.uidvalidity;
	if (renumbered && !spool_has(t->cache, op->message)) /* found again it goes there, under its name */
		return settle_leaves(t, op->message);
	struct node *from = txn_node_of_shelf(t, row.shelf);
	char old_name[NAME_MAX_BYTES + 1];
	memcpy(old_name, row.name, sizeof old_name);
	const char *wish = op->name && !strchr(op->name, '/') ? op->name : from ? row.name : "message.eml";
	MF_CLEANUP(mf_free) char *own = mf_strdup(wish);
	e = name_for_old(t, home, own, row.name);
	row.entry.uid = renumbered ? 0 : op->uid;
	if (!e)
		e = row_place(t, home, &row);
	if (e)
		return e;
	row.shelf = home->shelf;
	if (from) {
		row_hide(t, from, op->message);
		row_count(from, -1, row.flags);
		txn_names_changed(t, from->m.id);
		row_tell_moved(t, home, &row, from->m.id, old_name);
	} else {
		row_tell(t, CHANGE_MESSAGE_ADDED, home, &row);
	}
	row_show(t, home, &row, true);
	row_count(home, 1, row.flags);
	txn_names_changed(t, home->m.id);
	return MF_OK;
}

/* It may have been marked already, and not expunged: whoever expunges next would take it. */
static enum mf_err take_mark_off(struct txn *t, const struct op *op)
{
	struct op mark = { .kind = OP_FLAGS, .message = op->message, .mailbox = op->mailbox, .uidvalidity = op->uidvalidity, .uid = op->uid,
		.flags_remove = CACHE_MESSAGE_DELETED, .name = op->name };
	const struct node *n = txn_node(t, op->mailbox);
	bool marked = op->tries && op->uid && n && n->m.uidvalidity == op->uidvalidity && !t->cache->only_deletes;
	return marked ? op_add(t, &mark) : MF_OK;
}

/* The second half of a move. It goes on by itself; where it is refused the message stays where it was, too, and no row knows it. */
static enum mf_err undo_half(struct txn *t, const struct op *op)
{
	struct node *n = txn_node(t, op->mailbox);
	if (op->state != OP_PARKED)
		return MF_BUSY;
	if (n) {
		n->m.complete = false; /* it is read anew */
		txn_attributes_changed(n);
	}
	return take_mark_off(t, op);
}

/* The server still has it, as far as is known: a copy that was to be the only one may be. */
static enum mf_err undo_expunge(struct txn *t, const struct op *op)
{
	if (!op->message)
		return undo_half(t, op);
	struct row row;
	enum mf_err e = undo_move(t, op);
	if (!e)
		e = row_by_id(t, op->message, &row);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	if (spool_has(t->cache, op->message))
		return row.entry.uid ? keep_row(t, op->message) : MF_OK;
	return row.flags & CACHE_MESSAGE_DELETED ? MF_OK : take_mark_off(t, op);
}

/* At the server, as any other. The bytes that were put aside here are a body like those of the others. */
static enum mf_err undo_keep(struct txn *t, const struct op *op)
{
	struct row row;
	enum mf_err e = row_by_id(t, op->message, &row);
	struct node *n = e ? NULL : txn_node_of_shelf(t, row.shelf);
	if (e || !n)
		return e == MF_NOT_FOUND ? MF_OK : e;
	row.entry.uid = op->uid;
	e = row_place(t, n, &row);
	if (e)
		return e;
	row_show(t, n, &row, false);
	txn_spool(t, op->message, SPOOL_IS_BODY);
	return MF_OK;
}

static enum mf_err undo_create(struct txn *t, const struct op *op)
{
	struct node *n = txn_node(t, op->mailbox);
	if (!n)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_ANY);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	bool landed_in = false;
	if (e == MF_NOT_FOUND)
		e = mailbox_is_landed_in(t, n->m.id, &landed_in);
	else if (!e)
		e = MF_EXISTS;
	if (!e && (landed_in || txn_has_children(t, n->m.id)))
		e = MF_EXISTS;
	if (!e)
		e = mailbox_drop_ops(t, n->m.id);
	return e ? e : mailbox_remove_node(t, n);
}

/* What it was in comes back as well. */
static enum mf_err undo_delete(struct txn *t, const struct op *op)
{
	struct node *above;
	enum mf_err e = op->parent ? bring_back(t, op->parent, &above) : MF_OK;
	return e && e != MF_STALE ? e : mailbox_undelete(t, op);
}

static enum mf_err undo_rename(struct txn *t, const struct op *op)
{
	struct node *n = txn_node(t, op->mailbox);
	if (!n)
		return MF_OK;
	struct node *above;
	char name[NAME_MAX_BYTES + 1];
	enum mf_err e = op->parent ? bring_back(t, op->parent, &above) : MF_OK;
	if (!e && op->parent && mailbox_is_inside(t, op->parent, op->mailbox))
		e = MF_EXISTS;
	if (!e)
		e = name_for_mailbox(t, op->parent, op->name, name);
	if (e)
		return e;
	n->old_name = mf_strdup(n->m.name);
	n->old_parent = n->m.parent;
	txn_names_changed(t, n->m.parent);
	free(n->m.name);
	n->m.name = mf_strdup(name);
	n->m.parent = op->parent;
	txn_names_changed(t, n->m.parent);
	txn_attributes_changed(n);
	return MF_OK;
}

static enum mf_err undo_subscribe(struct txn *t, const struct op *op)
{
	struct node *n = txn_node(t, op->mailbox);
	if (!n)
		return MF_OK;
	n->m.flags ^= CACHE_MAILBOX_SUBSCRIBED;
	txn_attributes_changed(n);
	struct op back = { .kind = op->kind == OP_SUBSCRIBE ? OP_UNSUBSCRIBE : OP_SUBSCRIBE, .mailbox = op->mailbox, .raw = op->raw, .name = op->name };
	return mailbox_may_be_done(op) ? op_add(t, &back) : MF_OK;
}

static enum mf_err undo(struct txn *t, const struct op *op)
{
	switch (op->kind) {
	case OP_FLAGS:
		return undo_flags(t, op);
	case OP_APPEND:
	case OP_COPY:
		return undo_append(t, op);
	case OP_MOVE:
		return undo_move(t, op);
	case OP_EXPUNGE:
		return undo_expunge(t, op);
	case OP_KEEP:
		return undo_keep(t, op);
	case OP_CREATE:
		return undo_create(t, op);
	case OP_DELETE:
		return undo_delete(t, op);
	case OP_RENAME:
		return undo_rename(t, op);
	case OP_SUBSCRIBE:
	case OP_UNSUBSCRIBE:
		return undo_subscribe(t, op);
	}
	return MF_OK;
}

/* What comes after it, for the same message or because of it: the newest first */
static enum mf_err cancel_followers(struct txn *t, const struct op *op)
{
	struct ops ops = { 0 };
	enum mf_err e = op->message ? ops_of_message(t, op->message, &ops) : MF_OK;
	for (size_t i = ops.count; i-- > 0 && !e;)
		if (ops.items[i].id > op->id && (op->kind != OP_FLAGS))
			e = cancel_op(t, &ops.items[i]);
	ops_finish(&ops);
	sqlite3_stmt *s = db_use(t->db, SQL_OP_AFTER);
	sqlite3_bind_int64(s, 1, (int64_t)op->id);
	if (!e)
		e = ops_collect(t, s, &ops);
	/* this one goes first, so that the names of what follows are free */
	if (!e)
		e = op_remove(t, op->id);
	if (!e)
		e = undo(t, op);
	for (size_t i = 0; i < ops.count && !e; i++)
		e = cancel_op(t, &ops.items[i]);
	ops_finish(&ops);
	return e;
}

static enum mf_err cancel_op(struct txn *t, struct op *op)
{
	struct op now;
	enum mf_err e = op_by_id(t, op->id, &now);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = now.state == OP_SENT ? MF_BUSY : cancel_followers(t, &now);
	op_finish(&now);
	return e;
}

enum mf_err txn_cancel(struct txn *t, uint64_t id)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	e = cancel_op(t, &op);
	op_finish(&op);
	return txn_fail(t, e); /* half of it may have been done: the caller rolls back */
}

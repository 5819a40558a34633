/* Changes to messages made here: the row as a person sees it at once, and the operation for the server, in one transaction.
 *
 * Where a message is to be: the last of its operations that places it says so (ops_placing). One that has not been sent is
 * changed instead of being followed by another, so that a thousand changes of mind cost the server one command. */
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cache/keywords.h"
#include "cache/spool.h"
#include "cache/txn.h"

bool name_is_scratch(const char *name)
{
	static const char *const patterns[] = { ".*", "*~", "*.swp", "4913", "#*#", "*.tmp", "*.part", "*.orig", "*.rej", "sed??????" };
	for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

/* The row and the mailbox that shows it; MF_NOT_FOUND where none does. Once found neither is missing. */
enum mf_err change_visible(struct txn *t, uint64_t message, struct row *ret, struct node **ret_n)
{
	if (t->failed)
		return t->failed;
	enum mf_err e = row_by_id(t, message, ret);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	struct node *n = txn_node_of_shelf(t, ret->shelf);
	if (!n)
		return MF_NOT_FOUND;
	*ret_n = n;
	return MF_OK;
}

enum mf_err change_set_local(struct txn *t, struct row *row, bool local)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SET_LOCAL);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int(s, 2, local);
	row->local = local;
	return db_run(t->db, s);
}

enum mf_err change_set_was(struct txn *t, struct row *row, const char *was)
{
	if (!was && !row->aside)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SET_WAS);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	db_bind_text(s, 2, was);
	row->aside = was != NULL;
	return db_run(t->db, s);
}

/* The name that it had before it was given a scratch name; NULL: none */
static enum mf_err get_was(struct txn *t, const struct row *row, char **ret)
{
	*ret = NULL;
	if (!row->aside)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_WAS);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	enum mf_err e = db_step(t->db, s);
	if (!e)
		*ret = db_text(s, 0);
	db_done(s);
	return e;
}

enum mf_err change_remove_ops(struct txn *t, const struct ops *ops)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < ops->count && !e; i++)
		e = op_remove(t, ops->items[i].id);
	return e;
}

/* --- flags ----------------------------------------------------------------------------------------------------------------- */

static void overlay_one(const struct op *op, unsigned *flags, char *keywords)
{
	*flags = (*flags | op->flags) & ~op->flags_remove;
	if (!*op->keywords && !*op->keywords_remove)
		return;
	MF_CLEANUP(mf_free) char *changed = keywords_change(keywords, op->keywords, op->keywords_remove);
	row_cap_keywords(changed, keywords);
}

enum mf_err flags_overlay(struct txn *t, uint64_t message, unsigned *flags, char *keywords)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	for (size_t i = 0; i < ops.count; i++)
		if (ops.items[i].kind == OP_FLAGS)
			overlay_one(&ops.items[i], flags, keywords);
	ops_finish(&ops);
	return e;
}

static enum mf_err store_flags(struct txn *t, struct node *n, struct row *row, unsigned flags, const char *keywords)
{
	if ((row->flags ^ flags) & CACHE_MESSAGE_SEEN && !row->local) {
		n->m.unseen += (flags & CACHE_MESSAGE_SEEN) ? UINT32_MAX : 1;
		txn_attributes_changed(n);
	}
	row->flags = flags;
	row_cap_keywords(keywords, row->keywords);
	row->entry.ctime = t->now_ns;
	enum mf_err e = row_flags(t, row);
	if (e)
		return e;
	row_show(t, n, row, false);
	row_tell(t, CHANGE_MESSAGE_FLAGS, n, row);
	return MF_OK;
}

static void replace_text(char **text, char *with)
{
	free(*text);
	*text = with;
}

/* What was asked for before and has not been done, and this: one change. What cancels out is left out, unless the server may have
 * had the half of it that was sent. */
static void merge_flags(struct op *op, unsigned add, unsigned remove, const char *keywords_add, const char *keywords_remove)
{
	unsigned was_added = op->flags, was_removed = op->flags_remove;
	bool sent = op->tries > 0;
	op->flags = (was_added & ~remove) | (sent ? add : add & ~was_removed);
	op->flags_remove = (was_removed & ~add) | (sent ? remove : remove & ~was_added);
	MF_CLEANUP(mf_free) char *fresh_add = keywords_of(keywords_add, sent ? "" : op->keywords_remove, false);
	MF_CLEANUP(mf_free) char *fresh_remove = keywords_of(keywords_remove, sent ? "" : op->keywords, false);
	char *added = keywords_change(op->keywords, fresh_add, keywords_remove);
	replace_text(&op->keywords_remove, keywords_change(op->keywords_remove, fresh_remove, keywords_add));
	replace_text(&op->keywords, added);
}

static bool changes_nothing(const struct op *op)
{
	return !op->flags && !op->flags_remove && !*op->keywords && !*op->keywords_remove;
}

bool change_is_here_alone(const struct row *row, const struct op *placing)
{
	return !row->local && !row->entry.uid && !placing;
}

static enum mf_err journal_flags(struct txn *t, const struct node *n, const struct row *row, unsigned add, unsigned remove,
                                 const char *keywords_add, const char *keywords_remove)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	struct op *last = ops.count ? &ops.items[ops.count - 1] : NULL;
	const struct op *placing = ops_placing(&ops);
	if (e || row->local || t->cache->only_deletes || change_is_here_alone(row, placing) || (placing && placing->kind == OP_APPEND && op_is_open(placing))) {
		/* only here so far: it is appended with the flags that it has then. Or for good: POP3 knows none */
	} else if (last && last->kind == OP_FLAGS && last->state == OP_QUEUED) {
		merge_flags(last, add, remove, keywords_add, keywords_remove);
		e = changes_nothing(last) ? op_remove(t, last->id) : op_store(t, last);
	} else {
		struct op op = { .kind = OP_FLAGS, .message = row->entry.id, .mailbox = n->m.id, .uidvalidity = row->entry.uid ? n->m.uidvalidity : 0,
			.uid = row->entry.uid, .flags = add, .flags_remove = remove, .keywords = (char *)(uintptr_t)keywords_add,
			.keywords_remove = (char *)(uintptr_t)keywords_remove, .name = (char *)(uintptr_t)row->name };
		e = op_add(t, &op);
	}
	ops_finish(&ops);
	return e;
}

/* RFC 4314 4: \Seen and \Deleted have rights of their own */
static bool may_change_flags(const struct mailbox *m, unsigned flags, bool keywords)
{
	bool others = keywords || (flags & ~(unsigned)(CACHE_MESSAGE_SEEN | CACHE_MESSAGE_DELETED));
	return (!(flags & CACHE_MESSAGE_SEEN) || mailbox_permits(m, "s")) && (!(flags & CACHE_MESSAGE_DELETED) || mailbox_permits(m, "t")) &&
	       (!others || mailbox_permits(m, "w"));
}

enum mf_err txn_change_flags(struct txn *t, uint64_t message, unsigned add, unsigned remove, const char *keywords_add, const char *keywords_remove)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	/* what really changes is what a cancel takes back */
	add &= ~row.flags;
	remove &= row.flags & ~add;
	MF_CLEANUP(mf_free) char *really_add = keywords_of(keywords_add, row.keywords, false);
	MF_CLEANUP(mf_free) char *really_remove = keywords_of(keywords_remove, row.keywords, true);
	if (!add && !remove && !*really_add && !*really_remove)
		return MF_OK;
	if (!may_change_flags(&n->m, add | remove, *really_add || *really_remove))
		return MF_DENIED;
	MF_CLEANUP(mf_free) char *keywords = keywords_change(row.keywords, really_add, really_remove);
	if (strlen(keywords) > KEYWORDS_MAX)
		return MF_TOO_BIG;
	e = journal_flags(t, n, &row, add, remove, really_add, really_remove);
	if (!e)
		e = store_flags(t, n, &row, (row.flags | add) & ~remove, keywords);
	return txn_fail(t, e);
}

enum mf_err txn_set_flags(struct txn *t, uint64_t message, unsigned flags, const char *keywords)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	MF_CLEANUP(mf_free) char *remove = keywords_of(row.keywords, keywords, false);
	return txn_change_flags(t, message, flags, ~flags, keywords, remove);
}

/* --- placing ----------------------------------------------------------------------------------------------------------------- */

/* What was to happen in one mailbox, when the message will have a number there, is to happen in another. */
static enum mf_err follow(struct txn *t, struct ops *ops, uint64_t from, const struct node *to, uint32_t uid)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < ops->count && !e; i++) {
		struct op *op = &ops->items[i];
		if (op->kind != OP_FLAGS || op->mailbox != from || op->uid)
			continue;
		op->mailbox = to->m.id;
		op->uid = uid;
		op->uidvalidity = uid ? to->m.uidvalidity : 0;
		e = op_store(t, op);
	}
	return e;
}

enum mf_err change_queue_again(struct txn *t, struct op *op)
{
	if (op->state == OP_ASTRAY) /* it goes on when the message has been met */
		return op_store(t, op);
	op->state = OP_QUEUED;
	replace_text(&op->error, NULL);
	return op_store(t, op);
}

/* The last placing operation has not been sent: it goes there instead. */
static enum mf_err retarget(struct txn *t, struct ops *ops, struct op *placing, struct row *row, const struct node *from, const struct node *to)
{
	bool home = placing->kind == OP_MOVE && placing->mailbox == to->m.id && (!placing->uid || placing->uidvalidity == to->m.uidvalidity);
	enum mf_err e = follow(t, ops, from->m.id, to, home ? placing->uid : 0);
	if (e)
		return e;
	if (home) {
		row->entry.uid = placing->uid;
		return op_remove(t, placing->id);
	}
	if (placing->kind == OP_APPEND)
		placing->mailbox = to->m.id;
	else
		placing->dest = to->m.id;
	placing->parent = 0;
	return change_queue_again(t, placing);
}

enum mf_err change_append(struct txn *t, const struct node *n, const struct row *row, int64_t due_ms, uint64_t *ret_op)
{
	struct op op = { .kind = OP_APPEND, .message = row->entry.id, .mailbox = n->m.id, .name = (char *)(uintptr_t)row->name, .due_ms = due_ms };
	enum mf_err e = op_add(t, &op);
	*ret_op = op.id;
	return e;
}

static enum mf_err journal_move(struct txn *t, struct row *row, const struct node *from, const struct node *to, const char *own_name, uint64_t *ret_op)
{
	struct ops ops = { 0 };
	/* one that has a number is where the server has it: nothing is to place it */
	enum mf_err e = row->entry.uid ? MF_OK : ops_of_message(t, row->entry.id, &ops);
	struct op *placing = ops_placing(&ops);
	*ret_op = 0;
	if (e || row->local) {
		/* nothing that the server knows */
	} else if (change_is_here_alone(row, placing)) {
		e = change_append(t, to, row, 0, ret_op);
	} else if (!row->entry.uid && placing && placing->kind != OP_EXPUNGE && op_is_open(placing)) {
		e = retarget(t, &ops, placing, row, from, to);
		*ret_op = placing->id;
	} else {
		struct op op = { .kind = OP_MOVE, .message = row->entry.id, .mailbox = from->m.id, .dest = to->m.id, .uid = row->entry.uid,
			.uidvalidity = row->entry.uid ? from->m.uidvalidity : 0, .name = (char *)(uintptr_t)own_name };
		e = op_add(t, &op);
		*ret_op = op.id;
		row->entry.uid = 0;
	}
	ops_finish(&ops);
	return e;
}

/* From one directory to another, under a name that is free there. own_name: what it was called, for taking it back */
static enum mf_err move_row(struct txn *t, struct row *row, struct node *from, struct node *to, const char *own_name, const char *name, uint64_t *ret_op)
{
	enum mf_err e = journal_move(t, row, from, to, own_name, ret_op);
	char old_name[NAME_MAX_BYTES + 1];
	memcpy(old_name, row->name, sizeof old_name);
	memmove(row->name, name, strlen(name) + 1);
	row->modseq = 0;
	row->entry.ctime = t->now_ns;
	if (!e)
		e = row_place(t, to, row);
	if (!e)
		e = change_set_was(t, row, NULL);
	if (e)
		return e;
	row->shelf = to->shelf;
	arrival_forget(t, row->match, row->entry.id);
	row_hide(t, from, row->entry.id);
	row_show(t, to, row, true);
	if (!row->local) {
		row_count(from, -1, row->flags);
		row_count(to, 1, row->flags);
	}
	row_tell_moved(t, to, row, from->m.id, old_name);
	txn_names_changed(t, from->m.id);
	txn_names_changed(t, to->m.id);
	return MF_OK;
}

/* --- going -------------------------------------------------------------------------------------------------------------------- */

static enum mf_err held_shelf(struct txn *t, uint64_t *ret)
{
	int64_t id = 0;
	enum mf_err e = t->cache->held_shelf ? MF_OK : meta_number(t->db, "held_shelf", &id);
	if (!e && id)
		t->cache->held_shelf = (uint64_t)id;
	if (e == MF_NOT_FOUND) {
		e = shelf_add(t, 0, false, ret);
		return e ? e : meta_set_number(t->db, "held_shelf", (int64_t)*ret);
	}
	*ret = t->cache->held_shelf;
	return e;
}

/* Out of sight, kept until the server has expunged it. */
static enum mf_err hold(struct txn *t, struct node *n, const struct row *row)
{
	uint64_t shelf = 0;
	enum mf_err e = held_shelf(t, &shelf);
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_HELD);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)shelf);
	if (!e)
		e = db_run(t->db, s);
	if (e)
		return e;
	arrival_forget(t, row->match, row->entry.id);
	row_hide(t, n, row->entry.id);
	row_count(n, -1, row->flags);
	row_tell(t, CHANGE_MESSAGE_REMOVED, n, row);
	txn_names_changed(t, n->m.id);
	return MF_OK;
}

void row_undo_flags(struct row *row, const struct op *op)
{
	row->flags = (row->flags & ~op->flags) | op->flags_remove;
	MF_CLEANUP(mf_free) char *keywords = keywords_change(row->keywords, op->keywords_remove, op->keywords);
	row_cap_keywords(keywords, row->keywords);
}

/* Changes of flags that have not been sent, the newest first. bare: the row without them */
static enum mf_err drop_flags(struct txn *t, const struct ops *ops, struct row *bare)
{
	enum mf_err e = MF_OK;
	for (size_t i = ops->count; i-- > 0 && !e;) {
		if (ops->items[i].kind != OP_FLAGS || !op_is_open(&ops->items[i]))
			continue;
		e = op_remove(t, ops->items[i].id);
		row_undo_flags(bare, &ops->items[i]);
	}
	return e;
}

static enum mf_err keep_flags(struct txn *t, const struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_FLAGS);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, row->flags);
	db_bind_text(s, 3, row->keywords);
	sqlite3_bind_int64(s, 4, (int64_t)row->modseq);
	sqlite3_bind_int64(s, 5, row->entry.ctime);
	return db_run(t->db, s);
}

static enum mf_err expunge_row(struct txn *t, struct row *row, struct node *n, int64_t delay_ms, const char *name, uint64_t *ret_op)
{
	struct ops ops = { 0 };
	struct row bare = *row;
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	struct op *placing = ops_placing(&ops);
	int64_t due = txn_now_ms(t) + delay_ms;
	if (!e)
		e = drop_flags(t, &ops, &bare);
	if (!e && !row->entry.uid && placing && placing->kind == OP_MOVE && op_is_open(placing)) {
		/* it never left: it is expunged where it is */
		placing->kind = OP_EXPUNGE;
		placing->dest = 0;
		if (placing->state == OP_ASTRAY)
			placing->parent = (uint64_t)due;
		else
			placing->due_ms = due;
		placing->tries = 0; /* the move's; an expunge that was tried does not wait for its time */
		e = change_queue_again(t, placing);
		*ret_op = placing->id;
	} else if (!e && !row->entry.uid && placing && placing->kind == OP_KEEP) {
		/* the server is told the same, perhaps just now */
		placing->kind = OP_EXPUNGE;
		placing->due_ms = due;
		e = op_is_open(placing) ? change_queue_again(t, placing) : op_store(t, placing);
		*ret_op = placing->id;
	} else if (!e) {
		struct op op = { .kind = OP_EXPUNGE, .message = row->entry.id, .mailbox = n->m.id, .uid = row->entry.uid,
			.uidvalidity = row->entry.uid ? n->m.uidvalidity : 0, .name = (char *)(uintptr_t)name, .due_ms = due };
		e = op_add(t, &op);
		*ret_op = op.id;
	}
	ops_finish(&ops);
	if (!e)
		e = hold(t, n, row);
	/* taken back, it is as the server has it */
	return e ? e : keep_flags(t, &bare);
}

/* The server never had it, and is not to get it. */
static enum mf_err drop(struct txn *t, struct node *n, const struct row *row)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	if (!e)
		e = change_remove_ops(t, &ops);
	ops_finish(&ops);
	if (!e)
		e = row_remove(t, row->entry.id);
	if (e)
		return e;
	row_hide(t, n, row->entry.id);
	if (!row->local)
		row_count(n, -1, row->flags);
	if (!txn_change_cancel(t, CHANGE_MESSAGE_ADDED, row->entry.id))
		row_tell(t, CHANGE_MESSAGE_REMOVED, n, row);
	txn_names_changed(t, n->m.id);
	txn_body(t, row->entry.id, 0);
	txn_spool(t, row->entry.id, SPOOL_GOES);
	return MF_OK;
}

enum mf_err change_was_never_sent(struct txn *t, const struct row *row, bool *ret)
{
	struct ops ops = { 0 };
	bool known = row->local || row->entry.uid;
	enum mf_err e = known ? MF_OK : ops_of_message(t, row->entry.id, &ops);
	const struct op *placing = ops_placing(&ops);
	*ret = known ? row->local : !placing || ((placing->kind == OP_APPEND || placing->kind == OP_COPY) && op_is_open(placing));
	ops_finish(&ops);
	return e;
}

/* Not dropped: it has been at the server, or may have. */
enum mf_err change_dispose(struct txn *t, struct row *row, struct node *n, const char *own_name, const struct disposal *how, uint64_t *ret_op)
{
	struct node *trash = how->expunge || how->trash == n->m.id || !how->trash ? NULL : txn_node(t, how->trash);
	bool never = false;
	enum mf_err asked = trash ? MF_OK : change_was_never_sent(t, row, &never);
	*ret_op = 0;
	if (asked || never)
		return asked ? asked : drop(t, n, row);
	if (!trash)
		return expunge_row(t, row, n, how->delay_ms, own_name, ret_op);
	char name[NAME_MAX_BYTES + 1];
	enum mf_err e = name_for_old(t, trash, own_name, name);
	/* one that is split off has a name that nobody knows it by */
	return e ? e : move_row(t, row, n, trash, strchr(row->name, '/') ? own_name : row->name, name, ret_op);
}

static enum mf_err remove_row(struct txn *t, struct row *row, struct node *n, const struct disposal *how, uint64_t *ret_op)
{
	bool never = false;
	*ret_op = 0;
	enum mf_err e = change_was_never_sent(t, row, &never);
	if (e || never)
		return e ? e : drop(t, n, row);
	MF_CLEANUP(mf_free) char *was = NULL;
	e = get_was(t, row, &was);
	return e ? e : change_dispose(t, row, n, was ? was : row->name, how, ret_op);
}

enum mf_err txn_remove(struct txn *t, uint64_t message, const struct disposal *how)
{
	struct row row;
	struct node *n;
	uint64_t op;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	if (!row.local && !mailbox_permits(&n->m, "te"))
		return MF_DENIED;
	return txn_fail(t, remove_row(t, &row, n, how, &op));
}

enum mf_err txn_is_local(struct txn *t, uint64_t message, bool *ret)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	*ret = !e && row.local;
	return e;
}

enum mf_err txn_drop_local(struct txn *t, uint64_t message)
{
	struct row row;
	struct node *n = NULL;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e || !n)
		return e;
	return row.local ? txn_fail(t, drop(t, n, &row)) : MF_INVALID;
}

/* --- renaming ------------------------------------------------------------------------------------------------------------------- */

enum mf_err change_wait_for(struct txn *t, uint64_t op, uint64_t after)
{
	struct op waiting;
	enum mf_err e = op ? op_by_id(t, op, &waiting) : MF_NOT_FOUND;
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	waiting.after = after;
	e = op_store(t, &waiting);
	op_finish(&waiting);
	return e;
}

/* The operation that stores a message which was written here; 0: the server has it */
static enum mf_err storing(struct txn *t, uint64_t message, uint64_t *ret)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	*ret = 0;
	for (size_t i = 0; i < ops.count; i++)
		if (ops.items[i].kind == OP_APPEND)
			*ret = ops.items[i].id;
	ops_finish(&ops);
	return e;
}

enum mf_err change_take_flags(struct txn *t, struct row *by, const struct row *victim)
{
	if (by->flags || by->keywords[0])
		return MF_OK;
	struct node *n;
	enum mf_err e = txn_change_flags(t, by->entry.id, victim->flags, 0, victim->keywords, NULL);
	if (e) /* no right to: it goes without */
		return e == MF_DENIED ? MF_OK : e;
	return change_visible(t, by->entry.id, by, &n);
}

/* What has the name there makes room. A message that was written here takes its flags over; append, of one that is still to be
 * stored: the old one goes when the server has that. */
static enum mf_err displace(struct txn *t, struct node *to, const char *name, struct row *by, uint64_t append, const struct disposal *how)
{
	struct row victim;
	enum mf_err e = row_by_name(t, to, name, &victim);
	t->displaced = 0;
	if (e == MF_NOT_FOUND || (!e && victim.entry.id == by->entry.id))
		return MF_OK;
	if (e)
		return e;
	if (!victim.local && !mailbox_permits(&to->m, "te"))
		return MF_DENIED;
	if (by->local && !victim.local) {
		by->flags = victim.flags;
		memcpy(by->keywords, victim.keywords, sizeof by->keywords);
	} else if (append && !victim.local) {
		e = change_take_flags(t, by, &victim);
	}
	if (!e)
		e = remove_row(t, &victim, to, how, &t->displaced);
	return e || !append ? e : change_wait_for(t, t->displaced, append);
}

/* vim and emacs move a file aside before they write it anew: until a new one takes the name, nothing is to happen. */
static enum mf_err note_aside(struct txn *t, struct row *row, bool same_mailbox, const char *name)
{
	if (row->local)
		return MF_OK;
	if (!same_mailbox || !name_is_scratch(name))
		return change_set_was(t, row, NULL);
	MF_CLEANUP(mf_free) char *was = NULL;
	enum mf_err e = get_was(t, row, &was);
	return e || was ? e : change_set_was(t, row, row->name);
}

static enum mf_err rename_row(struct txn *t, struct row *row, struct node *n, const char *name)
{
	char old_name[NAME_MAX_BYTES + 1];
	memcpy(old_name, row->name, sizeof old_name);
	memcpy(row->name, name, strlen(name) + 1);
	row->entry.ctime = t->now_ns;
	enum mf_err e = row_place(t, n, row);
	if (e)
		return e;
	row_show(t, n, row, true);
	row_tell_moved(t, n, row, n->m.id, old_name);
	txn_names_changed(t, n->m.id);
	return MF_OK;
}

enum mf_err change_may_write_into(struct txn *t, const struct node *to, const char *name)
{
	if (strlen(name) > NAME_MAX_BYTES)
		return MF_INVALID;
	if (!mailbox_permits(&to->m, "i"))
		return MF_DENIED;
	if ((!to->m.raw && !(to->m.flags & CACHE_MAILBOX_LOCAL)) || (to->m.flags & CACHE_MAILBOX_NOSELECT))
		return MF_UNSUPPORTED;
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_NAME_TAKEN);
	sqlite3_bind_int64(s, 1, (int64_t)to->m.id);
	db_bind_text(s, 2, name);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	return e == MF_NOT_FOUND ? MF_OK : e ? e : MF_EXISTS;
}

enum mf_err txn_move(struct txn *t, uint64_t message, uint64_t mailbox, const char *name, const struct disposal *how)
{
	struct row row;
	struct node *from = NULL, *to = t->failed ? NULL : txn_node(t, mailbox);
	enum mf_err e = to ? change_visible(t, message, &row, &from) : t->failed ? t->failed : MF_NOT_FOUND;
	if (!e)
		e = change_may_write_into(t, to, name);
	if (!e && from != to && !row.local && !mailbox_permits(&from->m, "te"))
		e = MF_DENIED;
	if (!e && from != to && t->cache->only_deletes)
		e = MF_UNSUPPORTED;
	if (e)
		return e;
	if (from == to && strcmp(row.name, name) == 0)
		return MF_OK;
	uint64_t op, append = 0;
	e = row.local ? MF_OK : storing(t, message, &append);
	if (!e)
		e = displace(t, to, name, &row, append, how);
	if (!e)
		e = note_aside(t, &row, from == to, name);
	if (!e)
		e = from == to ? rename_row(t, &row, to, name) : move_row(t, &row, from, to, row.name, name, &op);
	if (!e && append && !name_is_scratch(name)) /* patch(1) writes a file of another name, and renames that */
		e = written_takes_name(t, to, &row, append, how);
	return txn_fail(t, e);
}

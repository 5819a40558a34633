/* Bytes that were written here: files that are made, messages that are overwritten, copies. A new version gets the row that
 * people know; the old one leaves in a row of its own. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cache/spool.h"
#include "cache/txn.h"

enum mf_err txn_create(struct txn *t, uint64_t mailbox, const char *name, uint64_t *ret)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	enum mf_err e = t->cache->only_deletes ? MF_UNSUPPORTED : change_may_write_into(t, n, name);
	bool is_free = false;
	if (!e)
		e = name_is_free(t, n, name, &is_free);
	if (e || !is_free)
		return e ? e : MF_EXISTS;
	struct mail_summary summary;
	mail_summary_parse("", 0, 0, &summary);
	struct message_put put = { .mailbox = mailbox, .keywords = "", .summary = &summary };
	struct row row = { .entry = { .mtime = txn_now_s(t), .ctime = t->now_ns }, .local = true };
	memcpy(row.name, name, strlen(name) + 1);
	e = row_add(t, n, &row);
	if (!e)
		e = change_set_local(t, &row, true);
	if (!e)
		e = row_add_summary(t, &put, &row);
	mail_summary_finish(&summary);
	if (e)
		return txn_fail(t, e);
	row_show(t, n, &row, true);
	txn_names_changed(t, mailbox);
	*ret = row.entry.id;
	return MF_OK;
}

enum mf_err content_store(struct txn *t, struct row *row, const struct message_put *put)
{
	row->entry.size = put->size;
	row->entry.size_checked = true;
	row->entry.mtime = put->internal_date;
	row->entry.ctime = t->now_ns;
	row->match = match_of(put, put->internal_date);
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_CONTENT);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)put->size);
	sqlite3_bind_int64(s, 3, row->entry.mtime);
	sqlite3_bind_int64(s, 4, row->entry.ctime);
	sqlite3_bind_int64(s, 5, (int64_t)row->match);
	enum mf_err e = db_run(t->db, s);
	s = db_use(t->db, SQL_SUMMARY_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	if (!e)
		e = db_run(t->db, s);
	return e ? e : row_add_summary(t, put, row);
}

static enum mf_err repoint(struct txn *t, struct ops *ops, uint64_t message)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < ops->count && !e; i++) {
		ops->items[i].message = message;
		e = op_store(t, &ops->items[i]);
	}
	return e;
}

/* The message as it was gets a row of its own, which takes over its number, its operations and its bytes, under a name that
 * no file can have; it does not stay there. The row that people know becomes a new message. */
static enum mf_err split(struct txn *t, struct node *n, struct row *row, struct ops *ops, struct row *ret_old)
{
	*ret_old = *row;
	snprintf(ret_old->name, sizeof ret_old->name, "%llu/old", (unsigned long long)row->entry.id);
	row->entry.uid = 0;
	row->modseq = 0;
	enum mf_err e = row_place(t, n, row);
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_COPY);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)n->shelf);
	db_bind_text(s, 3, ret_old->name);
	if (!e)
		e = db_run(t->db, s);
	ret_old->entry.id = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	s = db_use(t->db, SQL_SUMMARY_COPY);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)ret_old->entry.id);
	if (!e)
		e = db_run(t->db, s);
	if (!e)
		e = repoint(t, ops, ret_old->entry.id);
	row_count(n, 1, row->flags);
	txn_body(t, row->entry.id, ret_old->entry.id);
	return e;
}

/* An id that no row has had */
static enum mf_err fresh_id(struct txn *t, const struct row *like, uint64_t *ret)
{
	char name[NAME_MAX_BYTES + 1];
	snprintf(name, sizeof name, "%llu/new", (unsigned long long)like->entry.id);
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_COPY);
	sqlite3_bind_int64(s, 1, (int64_t)like->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)like->shelf);
	db_bind_text(s, 3, name);
	enum mf_err e = db_run(t->db, s);
	*ret = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	if (!e && *ret > ROW_ID_MAX)
		e = MF_TOO_BIG;
	return e ? e : row_remove(t, *ret);
}

static enum mf_err renumber(struct txn *t, enum statement which, uint64_t from, uint64_t to)
{
	sqlite3_stmt *s = db_use(t->db, which);
	sqlite3_bind_int64(s, 1, (int64_t)from);
	sqlite3_bind_int64(s, 2, (int64_t)to);
	return db_run(t->db, s);
}

static enum mf_err part(struct txn *t, const struct node *n, struct row *row, uint64_t id)
{
	struct ops ops = { 0 };
	uint64_t old = row->entry.id;
	enum mf_err e = renumber(t, SQL_MESSAGE_RENUMBER, old, id);
	if (!e)
		e = renumber(t, SQL_SUMMARY_RENUMBER, old, id);
	if (!e)
		e = ops_of_message(t, old, &ops);
	if (!e)
		e = repoint(t, &ops, id);
	ops_finish(&ops);
	if (!e && spool_has(t->cache, old))
		e = txn_spool_rename(t, old, id);
	txn_body(t, old, id);
	arrival_forget(t, row->match, old);
	row_hide(t, n, old);
	row->entry.id = id;
	row_show(t, n, row, true);
	return e;
}

enum mf_err txn_part(struct txn *t, uint64_t message, uint64_t *ret)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	*ret = message;
	if (e || row.local)
		return e;
	e = fresh_id(t, &row, ret);
	return txn_fail(t, e ? e : part(t, n, &row, *ret));
}

/* The backup that an editor made by renaming stays, as a file that is only here; its message is an old version. spooled: whose bytes
 * are needed where they are sent from, the copy (keep_spooled) is the backup's */
static enum mf_err keep_aside(struct txn *t, struct node *n, struct row *row, bool spooled, const char *own_name, const struct disposal *how, uint64_t *ret_op)
{
	struct ops ops = { 0 };
	struct row old;
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	if (!e)
		e = split(t, n, row, &ops, &old);
	ops_finish(&ops);
	if (!e && spooled)
		e = txn_spool_share(t, row->entry.id, old.entry.id);
	if (!e)
		e = change_dispose(t, &old, n, own_name, how, ret_op);
	row_count(n, -1, row->flags);
	if (!e)
		e = change_set_local(t, row, true);
	if (!e)
		e = change_set_was(t, row, NULL);
	if (!e)
		row_show(t, n, row, true);
	return e;
}

/* The backup is all that there is of a version that the server never had. */
static enum mf_err keep_unsent(struct txn *t, struct node *n, struct row *row)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	if (!e)
		e = change_remove_ops(t, &ops);
	ops_finish(&ops);
	row_count(n, -1, row->flags);
	if (!e)
		e = change_set_local(t, row, true);
	return e ? e : change_set_was(t, row, NULL);
}

static enum mf_err find_aside(struct txn *t, const struct node *n, const char *name, struct row *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_WAS);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	db_bind_text(s, 2, name);
	enum mf_err e = db_step(t->db, s);
	if (!e)
		row_read(s, ret);
	db_done(s);
	return e;
}

static enum mf_err put_away(struct txn *t, struct node *n, struct row *old, const char *name, uint64_t append, const struct disposal *how)
{
	uint64_t op = 0;
	bool never = false, spooled = spool_has(t->cache, old->entry.id);
	enum mf_err e = change_was_never_sent(t, old, &never);
	if (e || (never && spooled))
		return e ? e : keep_unsent(t, n, old);
	if (spooled ? keep_spooled(t, old) : keep_bytes(t, old))
		e = keep_aside(t, n, old, spooled, name, how, &op);
	else
		e = change_dispose(t, old, n, name, how, &op);
	return e ? e : change_wait_for(t, op, append);
}

/* What was moved aside under a scratch name when this one took its place is an old version now. */
static enum mf_err dispose_aside(struct txn *t, struct node *n, struct row *by, uint64_t append, const struct disposal *how)
{
	struct row old;
	enum mf_err e = find_aside(t, n, by->name, &old);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	by->flags = old.flags;
	memcpy(by->keywords, old.keywords, sizeof by->keywords);
	return put_away(t, n, &old, by->name, append, how);
}

enum mf_err written_takes_name(struct txn *t, struct node *n, struct row *row, uint64_t append, const struct disposal *how)
{
	struct row old;
	enum mf_err e = find_aside(t, n, row->name, &old);
	if (e || old.entry.id == row->entry.id)
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = change_take_flags(t, row, &old);
	return e ? e : put_away(t, n, &old, row->name, append, how);
}

/* A file becomes a message that is to be sent. */
static enum mf_err becomes_message(struct txn *t, struct node *n, struct row *row, int64_t due_ms, const struct disposal *how)
{
	uint64_t append = 0;
	enum mf_err e = change_append(t, n, row, due_ms, &append);
	if (!e)
		e = change_set_local(t, row, false);
	if (!e)
		e = change_wait_for(t, t->displaced, append);
	t->displaced = 0;
	if (!e)
		e = dispose_aside(t, n, row, append, how);
	if (!e)
		e = row_place(t, n, row);
	row_count(n, 1, row->flags);
	row_tell(t, CHANGE_MESSAGE_ADDED, n, row);
	return e;
}

/* A message is overwritten. */
static enum mf_err is_replaced(struct txn *t, struct node *n, struct row *row, const struct written *what, const struct disposal *how)
{
	struct ops ops = { 0 };
	struct row old;
	uint64_t append = 0, op = 0;
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	struct op *placing = ops_placing(&ops);
	bool unsent = !e && !row->entry.uid && placing && (placing->kind == OP_APPEND || placing->kind == OP_COPY) && op_is_open(placing);
	if (!e && unsent) {
		op_into_append(placing);
		placing->due_ms = what->due_ms;
		placing->parent = 0;
		e = change_queue_again(t, placing);
		txn_body(t, row->entry.id, 0);
	} else if (!e) {
		/* all there is of the old version, or being sent, perhaps with a MOVE behind it */
		bool spooled = spool_has(t->cache, row->entry.id);
		e = split(t, n, row, &ops, &old);
		if (!e && spooled)
			e = txn_spool_rename(t, row->entry.id, old.entry.id);
		if (!e)
			e = change_append(t, n, row, what->due_ms, &append);
		if (!e)
			e = change_dispose(t, &old, n, row->name, how, &op);
		if (!e)
			e = change_wait_for(t, op, append);
	}
	ops_finish(&ops);
	return e;
}

enum mf_err txn_written(struct txn *t, uint64_t message, const struct written *what, const struct disposal *how)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	bool was_local = row.local;
	struct message_put put = { .mailbox = n->m.id, .size = what->size, .internal_date = what->internal_date, .keywords = "", .summary = what->summary };
	if (was_local && what->upload)
		e = becomes_message(t, n, &row, what->due_ms, how);
	else if (!was_local)
		e = is_replaced(t, n, &row, what, how);
	if (was_local)
		txn_body(t, message, 0);
	if (!e)
		e = txn_spool_commit(t, message);
	if (!e)
		e = content_store(t, &row, &put);
	if (e)
		return txn_fail(t, e);
	row_show(t, n, &row, true);
	row_tell(t, CHANGE_MESSAGE_FLAGS, n, &row);
	return MF_OK;
}

enum mf_err written_late(struct txn *t, uint64_t message, const struct written *what)
{
	struct row row, old;
	struct node *n;
	struct disposal how = { 0 };
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	e = find_aside(t, n, row.name, &old);
	e = e == MF_NOT_FOUND ? MF_OK : e ? e : txn_trash(t, &how.trash);
	return e ? txn_fail(t, e) : txn_written(t, message, what, &how);
}

enum mf_err txn_copied(struct txn *t, uint64_t made, uint64_t from, int64_t due_ms)
{
	struct row row, source;
	struct node *n, *there;
	enum mf_err e = change_visible(t, made, &row, &n);
	if (!e)
		e = change_visible(t, from, &source, &there);
	if (e)
		return e;
	if (!row.local || !source.entry.uid || !there->m.raw)
		return MF_UNSUPPORTED;
	struct op op = { .kind = OP_COPY, .message = made, .mailbox = there->m.id, .uidvalidity = there->m.uidvalidity, .uid = source.entry.uid,
		.dest = n->m.id, .name = row.name, .due_ms = due_ms };
	e = op_add(t, &op);
	if (!e)
		e = change_set_local(t, &row, false);
	if (!e)
		e = row_remove(t, made);
	/* the row again, as the other is, under its own id */
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_COPY_AS);
	sqlite3_bind_int64(s, 1, (int64_t)from);
	sqlite3_bind_int64(s, 2, (int64_t)n->shelf);
	db_bind_text(s, 3, row.name);
	sqlite3_bind_int64(s, 4, (int64_t)made);
	if (!e)
		e = db_run(t->db, s);
	s = db_use(t->db, SQL_SUMMARY_COPY);
	sqlite3_bind_int64(s, 1, (int64_t)from);
	sqlite3_bind_int64(s, 2, (int64_t)made);
	if (!e)
		e = db_run(t->db, s);
	if (!e)
		e = row_by_id(t, made, &row);
	if (e)
		return txn_fail(t, e);
	row_count(n, 1, row.flags);
	row_show(t, n, &row, true);
	row_tell(t, CHANGE_MESSAGE_ADDED, n, &row);
	txn_body_shared(t, from, made);
	return MF_OK;
}

static enum mf_err may_be_redated(struct txn *t, const struct row *row, bool *ret)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, row->entry.id, &ops);
	const struct op *placing = ops_placing(&ops);
	*ret = !row->local && placing && placing->kind == OP_APPEND && op_is_open(placing);
	ops_finish(&ops);
	return e;
}

enum mf_err txn_redate(struct txn *t, uint64_t message, int64_t date, const struct mail_summary *summary)
{
	struct row row;
	struct node *n;
	bool may = false;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (!e)
		e = may_be_redated(t, &row, &may);
	if (e || !may)
		return e ? e : txn_touch(t, message, date);
	struct message_put put = { .mailbox = n->m.id, .size = row.entry.size, .internal_date = date, .keywords = "", .summary = summary };
	e = txn_fail(t, content_store(t, &row, &put));
	if (!e)
		row_show(t, n, &row, false);
	return e;
}

enum mf_err txn_touch(struct txn *t, uint64_t message, int64_t mtime)
{
	struct row row;
	struct node *n;
	enum mf_err e = change_visible(t, message, &row, &n);
	if (e)
		return e;
	row.entry.mtime = mtime;
	row.entry.ctime = t->now_ns;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_DATE);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	sqlite3_bind_int64(s, 2, mtime);
	sqlite3_bind_int64(s, 3, row.entry.ctime);
	e = txn_fail(t, db_run(t->db, s));
	if (!e)
		row_show(t, n, &row, false);
	return e;
}

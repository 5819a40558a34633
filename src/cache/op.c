/* Operations as rows. */
#include <string.h>

#include "base/mem.h"
#include "cache/txn.h"

#define LIST_AT_ONCE 256

void op_finish(struct op *op)
{
	free(op->keywords);
	free(op->keywords_remove);
	free(op->name);
	free(op->raw);
	free(op->error);
	*op = (struct op){ 0 };
}

const char *op_kind_word(enum op_kind kind)
{
	static const char *const words[] = {
		[OP_FLAGS] = "flags", [OP_APPEND] = "append", [OP_COPY] = "copy", [OP_MOVE] = "move", [OP_EXPUNGE] = "expunge",
		[OP_CREATE] = "create", [OP_DELETE] = "delete", [OP_RENAME] = "rename", [OP_SUBSCRIBE] = "subscribe",
		[OP_UNSUBSCRIBE] = "unsubscribe", [OP_KEEP] = "keep",
	};
	return (size_t)kind < sizeof words / sizeof *words && words[kind] ? words[kind] : "unknown";
}

const char *op_state_word(enum op_state state)
{
	static const char *const words[] = {
		[OP_QUEUED] = "pending", [OP_SENT] = "sent", [OP_UNCONFIRMED] = "unconfirmed", [OP_PARKED] = "parked",
		[OP_ASTRAY] = "pending",
	};
	return (size_t)state < sizeof words / sizeof *words ? words[state] : "unknown";
}

static char *text_or_empty(sqlite3_stmt *s, int column)
{
	char *text = db_text(s, column);
	return text ? text : mf_strdup("");
}

void op_read(sqlite3_stmt *s, struct op *ret)
{
	*ret = (struct op){
		.id = (uint64_t)sqlite3_column_int64(s, 0), .kind = (enum op_kind)sqlite3_column_int(s, 1),
		.state = (enum op_state)sqlite3_column_int(s, 2), .message = (uint64_t)sqlite3_column_int64(s, 3),
		.mailbox = (uint64_t)sqlite3_column_int64(s, 4), .dest = (uint64_t)sqlite3_column_int64(s, 5),
		.uidvalidity = (uint32_t)sqlite3_column_int64(s, 6), .uid = (uint32_t)sqlite3_column_int64(s, 7),
		.flags = (unsigned)sqlite3_column_int64(s, 8), .flags_remove = (unsigned)sqlite3_column_int64(s, 9),
		.keywords = text_or_empty(s, 10), .keywords_remove = text_or_empty(s, 11), .name = db_text(s, 12), .raw = db_text(s, 13),
		.parent = (uint64_t)sqlite3_column_int64(s, 14), .after = (uint64_t)sqlite3_column_int64(s, 15),
		.due_ms = sqlite3_column_int64(s, 16), .since_ms = sqlite3_column_int64(s, 17),
		.tries = (unsigned)sqlite3_column_int64(s, 18), .error = db_text(s, 19),
	};
}

static void bind_uid(sqlite3_stmt *s, int parameter, uint32_t uid)
{
	if (uid)
		sqlite3_bind_int64(s, parameter, uid);
	else
		sqlite3_bind_null(s, parameter);
}

enum mf_err op_add(struct txn *t, struct op *op)
{
	op->since_ms = txn_now_ms(t);
	sqlite3_stmt *s = db_use(t->db, SQL_OP_ADD);
	int i = 1;
	sqlite3_bind_int(s, i++, (int)op->kind);
	sqlite3_bind_int(s, i++, (int)op->state);
	sqlite3_bind_int64(s, i++, (int64_t)op->message);
	sqlite3_bind_int64(s, i++, (int64_t)op->mailbox);
	sqlite3_bind_int64(s, i++, (int64_t)op->dest);
	sqlite3_bind_int64(s, i++, op->uidvalidity);
	bind_uid(s, i++, op->uid);
	sqlite3_bind_int64(s, i++, op->flags);
	sqlite3_bind_int64(s, i++, op->flags_remove);
	db_bind_text(s, i++, op->keywords ? op->keywords : "");
	db_bind_text(s, i++, op->keywords_remove ? op->keywords_remove : "");
	db_bind_text(s, i++, op->name);
	db_bind_text(s, i++, op->raw);
	sqlite3_bind_int64(s, i++, (int64_t)op->parent);
	sqlite3_bind_int64(s, i++, (int64_t)op->after);
	sqlite3_bind_int64(s, i++, op->due_ms);
	sqlite3_bind_int64(s, i, op->since_ms);
	enum mf_err e = db_run(t->db, s);
	op->id = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	t->op_change++;
	return e;
}

enum mf_err op_store(struct txn *t, const struct op *op)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_STORE);
	int i = 1;
	sqlite3_bind_int64(s, i++, (int64_t)op->id);
	sqlite3_bind_int(s, i++, (int)op->kind);
	sqlite3_bind_int(s, i++, (int)op->state);
	sqlite3_bind_int64(s, i++, (int64_t)op->message);
	sqlite3_bind_int64(s, i++, (int64_t)op->mailbox);
	sqlite3_bind_int64(s, i++, (int64_t)op->dest);
	sqlite3_bind_int64(s, i++, op->uidvalidity);
	bind_uid(s, i++, op->uid);
	sqlite3_bind_int64(s, i++, op->flags);
	sqlite3_bind_int64(s, i++, op->flags_remove);
	db_bind_text(s, i++, op->keywords ? op->keywords : "");
	db_bind_text(s, i++, op->keywords_remove ? op->keywords_remove : "");
	sqlite3_bind_int64(s, i++, (int64_t)op->after);
	sqlite3_bind_int64(s, i++, op->due_ms);
	sqlite3_bind_int64(s, i++, op->tries);
	sqlite3_bind_int64(s, i++, (int64_t)op->parent);
	db_bind_text(s, i, op->error);
	return db_run(t->db, s);
}

enum mf_err op_remove(struct txn *t, uint64_t id)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	enum mf_err e = db_run(t->db, s);
	if (!e && sqlite3_changes(t->db->handle) > 0)
		t->op_change--;
	return e;
}

enum mf_err op_take(struct txn *t, sqlite3_stmt *s, struct op *ret)
{
	enum mf_err e = db_step(t->db, s);
	if (!e) {
		op_read(s, ret);
		db_done(s);
	}
	return e;
}

enum mf_err op_by_id(struct txn *t, uint64_t id, struct op *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_BY_ID);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	return op_take(t, s, ret);
}

static struct op *ops_room(struct ops *ops)
{
	if (ops->count == ops->room) {
		ops->room = ops->room ? ops->room * 2 : 8;
		ops->items = mf_realloc_array(ops->items, ops->room, sizeof *ops->items);
	}
	return &ops->items[ops->count++];
}

static enum mf_err collect(struct db *db, sqlite3_stmt *s, struct ops *ret)
{
	enum mf_err e;
	while ((e = db_step(db, s)) == MF_OK)
		op_read(s, ops_room(ret));
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err ops_collect(struct txn *t, sqlite3_stmt *s, struct ops *ret)
{
	return collect(t->db, s, ret);
}

enum mf_err ops_add_by_id(struct txn *t, uint64_t id, struct ops *ret)
{
	struct op op;
	enum mf_err e = op_by_id(t, id, &op);
	if (!e)
		*ops_room(ret) = op;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err ops_of_message(struct txn *t, uint64_t message, struct ops *ret)
{
	if (!txn_has_ops(t))
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_OP_OF_MESSAGE);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	return collect(t->db, s, ret);
}

void ops_finish(struct ops *ops)
{
	for (size_t i = 0; i < ops->count; i++)
		op_finish(&ops->items[i]);
	free(ops->items);
	*ops = (struct ops){ 0 };
}

struct op *ops_placing(const struct ops *ops)
{
	for (size_t i = ops->count; i-- > 0;)
		if (ops->items[i].kind != OP_FLAGS)
			return &ops->items[i];
	return NULL;
}

void op_into_append(struct op *op)
{
	if (op->kind != OP_COPY && op->kind != OP_MOVE)
		return;
	op->kind = OP_APPEND;
	op->mailbox = op->dest;
	op->dest = 0;
	op->uid = op->uidvalidity = 0;
}

void op_set_error(struct op *op, const char *error)
{
	free(op->error);
	op->error = error ? mf_strdup(error) : NULL;
}

void op_goes_on(struct op *op, const struct node *n, uint32_t uid)
{
	op->mailbox = n->m.id;
	op->uid = uid;
	op->uidvalidity = uid ? n->m.uidvalidity : 0;
	if (op->state != OP_ASTRAY && op->state != OP_SENT)
		return;
	op->state = OP_QUEUED;
	op->due_ms = 0;
	if (op->kind == OP_EXPUNGE) {
		op->due_ms = (int64_t)op->parent;
		op->parent = 0;
	}
	op_set_error(op, NULL);
}

bool op_is_open(const struct op *op)
{
	return op->state == OP_QUEUED || op->state == OP_PARKED || op->state == OP_ASTRAY;
}

/* --- questions ---------------------------------------------------------------------------------------------------------- */

uint64_t journal_count(struct cache *c)
{
	return atomic_load(&c->op_count);
}

enum mf_err journal_totals(struct cache *c, struct journal_totals *ret)
{
	*ret = (struct journal_totals){ 0 };
	if (!journal_count(c))
		return MF_OK;
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	uint64_t *const places[] = { [OP_QUEUED] = &ret->queued, [OP_SENT] = &ret->sent, [OP_UNCONFIRMED] = &ret->unconfirmed,
		[OP_PARKED] = &ret->parked, [OP_ASTRAY] = &ret->queued };
	sqlite3_stmt *s = db_use(db, SQL_OP_TOTALS);
	while ((e = db_step(db, s)) == MF_OK) {
		int64_t state = sqlite3_column_int64(s, 0);
		if (state >= 0 && (size_t)state < sizeof places / sizeof *places)
			*places[state] += (uint64_t)sqlite3_column_int64(s, 1);
	}
	cache_reader_done(c, db);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err list_some(struct cache *c, uint64_t after, struct ops *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_LIST);
	sqlite3_bind_int64(s, 1, (int64_t)after);
	sqlite3_bind_int(s, 2, LIST_AT_ONCE);
	e = collect(db, s, ret);
	cache_reader_done(c, db);
	return e;
}

/* Who is told may take its time, and ask the index more: no connection is held meanwhile, of which there are few. */
enum mf_err journal_list(struct cache *c, uint64_t after, op_visitor *visit, void *context)
{
	enum mf_err e = MF_OK;
	for (bool more = true; more && !e;) {
		struct ops ops = { 0 };
		e = list_some(c, after, &ops);
		more = ops.count == LIST_AT_ONCE;
		for (size_t i = 0; i < ops.count && !e; i++) {
			after = ops.items[i].id;
			if (!visit(context, &ops.items[i])) {
				more = false;
				break;
			}
		}
		ops_finish(&ops);
	}
	return e;
}

enum mf_err journal_op(struct cache *c, uint64_t id, struct op *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_BY_ID);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	e = db_step(db, s);
	if (!e)
		op_read(s, ret);
	db_done(s);
	cache_reader_done(c, db);
	return e;
}

enum mf_err journal_source(struct cache *c, uint64_t message, uint64_t *ret_mailbox, uint32_t *ret_uid)
{
	enum mf_err e = MF_NOT_FOUND;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_SOURCE);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	e = db_step(db, s);
	if (!e) {
		enum op_state state = (enum op_state)sqlite3_column_int(s, 0);
		*ret_uid = (uint32_t)sqlite3_column_int64(s, 1);
		*ret_mailbox = (uint64_t)sqlite3_column_int64(s, 2);
		e = state == OP_SENT || state == OP_ASTRAY || !*ret_uid ? MF_BUSY : state == OP_UNCONFIRMED || !*ret_mailbox ? MF_NOT_FOUND : MF_OK;
	}
	db_done(s);
	cache_reader_done(c, db);
	return e;
}

enum mf_err journal_state_of(struct cache *c, uint64_t message, char **ret)
{
	*ret = NULL;
	enum mf_err e = MF_OK;
	struct ops ops = { 0 };
	if (journal_count(c)) {
		struct db *db = cache_reader(c, &e);
		if (!db)
			return e;
		sqlite3_stmt *s = db_use(db, SQL_OP_OF_MESSAGE);
		sqlite3_bind_int64(s, 1, (int64_t)message);
		e = collect(db, s, &ops);
		cache_reader_done(c, db);
	}
	for (size_t i = 0; i < ops.count && !e && !*ret; i++) {
		const struct op *op = &ops.items[i];
		*ret = mf_format("%s: %s%s%s", op_state_word(op->state), op_kind_word(op->kind), op->error ? ": " : "", op->error ? op->error : "");
	}
	ops_finish(&ops);
	struct entry entry;
	if (!e && !*ret)
		*ret = mf_strdup(cache_entry(c, message, &entry) == MF_OK && !entry.uid ? "local" : "synchronised");
	return e;
}

static enum mf_err list_all(struct db *db, sqlite3_stmt *s, struct op **ret, size_t *ret_count)
{
	struct ops ops = { 0 };
	enum mf_err e = collect(db, s, &ops);
	if (e) {
		ops_finish(&ops);
		return e;
	}
	*ret = ops.items;
	*ret_count = ops.count;
	return MF_OK;
}

enum mf_err journal_ready(struct cache *c, int64_t now_ms, bool hurry, size_t max, struct op **ret, size_t *ret_count)
{
	*ret = NULL;
	*ret_count = 0;
	enum mf_err e = MF_OK;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_READY);
	sqlite3_bind_int64(s, 1, now_ms);
	sqlite3_bind_int(s, 2, hurry);
	sqlite3_bind_int64(s, 3, (int64_t)max);
	e = list_all(db, s, ret, ret_count);
	cache_reader_done(c, db);
	return e;
}

enum mf_err journal_replaced(struct cache *c, uint64_t append, int64_t now_ms, struct op *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_REPLACED);
	sqlite3_bind_int64(s, 1, (int64_t)append);
	sqlite3_bind_int64(s, 2, now_ms);
	e = db_step(db, s);
	if (!e)
		op_read(s, ret);
	db_done(s);
	cache_reader_done(c, db);
	return e;
}

enum mf_err journal_in_doubt(struct cache *c, struct op **ret, size_t *ret_count)
{
	*ret = NULL;
	*ret_count = 0;
	enum mf_err e = MF_OK;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return e;
	e = list_all(db, db_use(db, SQL_OP_DOUBTFUL), ret, ret_count);
	cache_reader_done(c, db);
	return e;
}

enum mf_err journal_next_due(struct cache *c, int64_t now_ms, int64_t *ret_ms)
{
	*ret_ms = INT64_MAX;
	enum mf_err e = MF_OK;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_NEXT_DUE);
	sqlite3_bind_int64(s, 1, now_ms);
	e = db_step(db, s);
	if (!e && sqlite3_column_type(s, 0) != SQLITE_NULL)
		*ret_ms = sqlite3_column_int64(s, 0);
	db_done(s);
	cache_reader_done(c, db);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err any_of_mailbox(struct cache *c, enum statement which, uint64_t mailbox, bool *ret)
{
	*ret = false;
	enum mf_err e = MF_OK;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, which);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	e = db_step(db, s);
	db_done(s);
	cache_reader_done(c, db);
	*ret = e == MF_OK;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static bool any(struct cache *c, enum statement which)
{
	enum mf_err e;
	struct db *db = journal_count(c) ? cache_reader(c, &e) : NULL;
	if (!db)
		return false;
	sqlite3_stmt *s = db_use(db, which);
	bool found = db_step(db, s) == MF_OK;
	db_done(s);
	cache_reader_done(c, db);
	return found;
}

bool journal_has_strays(struct cache *c)
{
	return any(c, SQL_OP_ANY_ASTRAY);
}

bool journal_is_renaming(struct cache *c)
{
	return any(c, SQL_OP_ANY_RENAME_SENT);
}

enum mf_err journal_uses(struct cache *c, uint64_t mailbox, bool *ret)
{
	return any_of_mailbox(c, SQL_OP_USES, mailbox, ret);
}

enum mf_err journal_touches(struct cache *c, uint64_t mailbox, bool *ret)
{
	return any_of_mailbox(c, SQL_OP_TOUCHES, mailbox, ret);
}

enum mf_err journal_name_state(struct cache *c, const struct op *op, const char *target, enum name_state *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_OP_OF_NAME);
	sqlite3_bind_int64(s, 1, (int64_t)op->id);
	db_bind_text(s, 2, target);
	sqlite3_bind_int64(s, 3, (int64_t)op->mailbox);
	e = db_step(db, s);
	*ret = e ? NAME_FREE : sqlite3_column_int(s, 0) ? NAME_LEAVING : NAME_HELD;
	db_done(s);
	cache_reader_done(c, db);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* Changed since it was found ready: it may be another thing, go elsewhere (where nothing of that mailbox is to be replaced), or
 * not be due yet */
static bool is_as_looked_at(const struct op *now, const struct op *then)
{
	return now->state == OP_QUEUED && now->kind == then->kind && now->mailbox == then->mailbox && now->dest == then->dest &&
	       now->after == then->after && now->due_ms == then->due_ms;
}

/* Taken back or changed between being read and now: the one in the index is what counts. */
static enum mf_err mark_one(struct txn *t, struct op *op)
{
	struct op now;
	enum mf_err e = op_by_id(t, op->id, &now);
	if (e == MF_NOT_FOUND || (!e && !is_as_looked_at(&now, op))) {
		if (!e)
			op_finish(&now);
		op->id = 0;
		return MF_OK;
	}
	if (e)
		return e;
	MF_CLEANUP(mf_free) char *target = NULL;
	bool names = now.kind == OP_CREATE || now.kind == OP_RENAME;
	if (names && txn_op_target(t, &now, &target) != MF_OK) {
		op_finish(&now);
		op->id = 0; /* the next look says why */
		return MF_OK;
	}
	now.state = OP_SENT;
	now.tries++;
	if (names && op->aside) {
		MF_CLEANUP(mf_free) char *wanted = target;
		target = mailbox_aside(wanted, now.mailbox);
	}
	if (names) {
		free(now.raw);
		now.raw = mf_strdup(target);
	}
	sqlite3_stmt *s = db_use(t->db, SQL_OP_MARK);
	sqlite3_bind_int64(s, 1, (int64_t)now.id);
	db_bind_text(s, 2, target);
	e = db_run(t->db, s);
	op_finish(op);
	*op = now;
	return e;
}

enum mf_err journal_mark_sent(struct cache *c, struct op *ops, size_t count)
{
	struct txn *t;
	enum mf_err e = cache_begin(c, &t);
	if (e)
		return e;
	for (size_t i = 0; i < count && !e; i++)
		e = mark_one(t, &ops[i]);
	if (e) {
		txn_rollback(t);
		return e;
	}
	e = txn_commit(t);
	return e ? e : cache_flush(c);
}

/* Changes to mailboxes made here.
 *
 * A mailbox's directory (parent, name) is what a person sees and changes at once. Its bytes at the server (path, raw) stay
 * what the server knows until the operation is done, so that everything else goes on under the old name meanwhile. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "cache/txn.h"
#include "mail/name.h"

#define TRASH_NAME "Trash"

enum mf_err mailbox_ops(struct txn *t, uint64_t mailbox, struct ops *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_OF_MAILBOX);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	return ops_collect(t, s, ret);
}

struct op *mailbox_find_op(const struct ops *ops, enum op_kind kind)
{
	for (size_t i = 0; i < ops->count; i++)
		if (ops->items[i].kind == kind)
			return &ops->items[i];
	return NULL;
}

static enum mf_err name_is_taken(struct txn *t, uint64_t parent, const char *name, bool *ret)
{
	*ret = !parent && strcasecmp(name, "INBOX") == 0; /* to servers that is one, however it is written */
	if (*ret)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_NAME_TAKEN);
	sqlite3_bind_int64(s, 1, (int64_t)parent);
	db_bind_text(s, 2, name);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	*ret = !e;
	if (e != MF_NOT_FOUND || !parent)
		return e == MF_NOT_FOUND ? MF_OK : e;
	struct row row;
	const struct node *n = txn_node(t, parent);
	e = n ? row_by_name(t, n, name, &row) : MF_NOT_FOUND;
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

struct found { char delimiter; bool utf8, any; uint64_t append_limit; };

static bool note_delimiter(void *context, const struct mailbox *m)
{
	struct found *f = context;
	*f = (struct found){ m->delimiter, m->utf8, true, m->append_limit };
	return m->delimiter == 0;
}

/* How names are spelt there: as in the directory, at the root as in any mailbox */
static enum mf_err spelling(struct txn *t, uint64_t parent, struct mailbox *ret)
{
	*ret = (struct mailbox){ 0 };
	if (parent) {
		const struct node *n = txn_node(t, parent);
		if (!n)
			return MF_NOT_FOUND;
		if (!n->m.delimiter || (n->m.flags & CACHE_MAILBOX_NOINFERIORS))
			return MF_UNSUPPORTED;
		ret->delimiter = n->m.delimiter;
		ret->utf8 = n->m.utf8;
		ret->append_limit = n->m.append_limit;
		return MF_OK;
	}
	struct found f = { 0 };
	enum mf_err e = cache_mailboxes(t->cache, note_delimiter, &f);
	ret->delimiter = f.delimiter;
	ret->utf8 = f.utf8;
	ret->append_limit = f.append_limit;
	return e || f.any ? e : MF_OFFLINE; /* nothing has been listed yet */
}

/* The name at the server; the caller frees */
static enum mf_err server_path(struct txn *t, uint64_t parent, const char *name, char **ret)
{
	struct mailbox like;
	MF_CLEANUP(mf_free) char *level = NULL;
	enum mf_err e = spelling(t, parent, &like);
	if (!e)
		e = mailbox_name_to_level(name, like.delimiter, like.utf8, &level);
	if (e)
		return e;
	const struct node *above = parent ? txn_node(t, parent) : NULL;
	char *path = above ? mf_format("%s%c%s", above->path, like.delimiter, level) : mf_strdup(level);
	if (!mailbox_can_be_called(path, like.delimiter)) { /* the next LIST could not bring it */
		free(path);
		return MF_TOO_BIG;
	}
	*ret = path;
	return MF_OK;
}

/* --- making ------------------------------------------------------------------------------------------------------------------ */

/* The path is what a mailbox is known by in the index, once: one that is being renamed or removed may have it still. */
static enum mf_err free_path(struct txn *t, char **path)
{
	struct node *other;
	enum mf_err e = mailbox_find_path(t, *path, &other);
	for (unsigned i = 2; !e; i++) {
		MF_CLEANUP(mf_free) char *before = *path;
		*path = mf_format("%s\x01%u", before, i); /* no server sends that; CREATE makes it right */
		e = mailbox_find_path(t, *path, &other);
	}
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* One that was to be deleted at the server, and still is there, is this one. MF_NOT_FOUND: there is none */
static enum mf_err undelete_as(struct txn *t, uint64_t parent, const char *name, const char *path, uint64_t *ret)
{
	struct op removal;
	struct node *other;
	sqlite3_stmt *s = db_use(t->db, SQL_OP_REMOVAL);
	db_bind_text(s, 1, path);
	enum mf_err e = op_take(t, s, &removal);
	if (e)
		return e;
	e = mailbox_find_path(t, path, &other);
	if (e == MF_NOT_FOUND) {
		free(removal.name);
		removal.name = mf_strdup(name);
		removal.parent = parent;
		*ret = removal.mailbox;
		e = op_remove(t, removal.id);
		if (!e)
			e = mailbox_undelete(t, &removal);
	} else if (!e) {
		e = MF_NOT_FOUND; /* another is called so there meanwhile */
	}
	op_finish(&removal);
	return e;
}

static bool may_hold(struct txn *t, uint64_t parent)
{
	const struct node *n = parent ? txn_node(t, parent) : NULL;
	return !n || mailbox_permits(&n->m, "k");
}

enum mf_err txn_mailbox_create(struct txn *t, uint64_t parent, const char *name, uint64_t *ret)
{
	if (t->failed)
		return t->failed;
	if (t->cache->only_deletes)
		return MF_UNSUPPORTED;
	if (!may_hold(t, parent))
		return MF_DENIED;
	struct mailbox like;
	MF_CLEANUP(mf_free) char *path = NULL, *level = NULL;
	bool taken = false;
	enum mf_err e = name_is_taken(t, parent, name, &taken);
	if (!e)
		e = taken ? MF_EXISTS : spelling(t, parent, &like);
	if (!e)
		e = mailbox_name_to_level(name, like.delimiter, like.utf8, &level);
	if (!e)
		e = server_path(t, parent, name, &path);
	if (e)
		return e;
	e = undelete_as(t, parent, name, path, ret);
	if (e != MF_NOT_FOUND)
		return txn_fail(t, e);
	e = free_path(t, &path);
	if (e)
		return e;
	struct node *n;
	e = mailbox_add_local(t, parent, path, level, &like, &n);
	if (e)
		return txn_fail(t, e);
	struct op op = { .kind = OP_CREATE, .mailbox = n->m.id, .name = n->m.name };
	*ret = n->m.id;
	return txn_fail(t, op_add(t, &op));
}

uint64_t mailbox_home(const struct txn *t)
{
	const struct node *n;
	for (uint32_t at = 0; (n = mailboxes_next(&t->cache->table, &at));)
		if (n->m.flags & CACHE_MAILBOX_HOME)
			return n->m.id;
	return 0;
}

/* The better of the two: the server's word counts more than a name, and what was there first more than what came. */
static const struct mailbox *better_trash(const struct mailbox *a, const struct mailbox *b, uint64_t home)
{
	bool can = b->raw || (b->flags & CACHE_MAILBOX_LOCAL), named = can && b->parent == home && strcmp(b->name, TRASH_NAME) == 0;
	if (b->use != CACHE_USE_TRASH && !named)
		return a;
	bool both_or_none = a && (a->use == CACHE_USE_TRASH) == (b->use == CACHE_USE_TRASH);
	return !a || (both_or_none ? b->id < a->id : b->use == CACHE_USE_TRASH) ? b : a;
}

/* Asked by each rm: nothing is copied. */
enum mf_err txn_trash(struct txn *t, uint64_t *ret)
{
	const struct node *n;
	const struct mailbox *found = NULL;
	uint64_t home = mailbox_home(t);
	*ret = 0;
	if (t->failed)
		return t->failed;
	for (uint32_t at = 0; (n = mailboxes_next(&t->cache->table, &at));)
		found = better_trash(found, &n->m, home);
	/* made by this very transaction */
	for (size_t i = 0; i < t->node_count && !found; i++)
		if (t->nodes[i]->added && !t->nodes[i]->removed)
			found = better_trash(found, &t->nodes[i]->m, home);
	if (!found)
		return txn_mailbox_create(t, home, TRASH_NAME, ret);
	*ret = found->id;
	return MF_OK;
}

/* --- removing ------------------------------------------------------------------------------------------------------------------ */

/* Operations that are about messages in it need its name when it is not in the index any more. */
static enum mf_err leave_name(struct txn *t, const struct node *n)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_SET_RAW);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	db_bind_text(s, 2, n->m.raw);
	return db_run(t->db, s);
}

static enum mf_err any_message(struct txn *t, const struct node *n, bool *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_ANY);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err mailbox_drop_ops(struct txn *t, uint64_t mailbox)
{
	struct ops ops = { 0 };
	enum mf_err e = mailbox_ops(t, mailbox, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		e = op_remove(t, ops.items[i].id);
	ops_finish(&ops);
	return e;
}

enum mf_err mailbox_is_landed_in(struct txn *t, uint64_t mailbox, bool *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_OP_LANDS);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err mailbox_undelete(struct txn *t, const struct op *op)
{
	struct mailbox like;
	struct node *other;
	enum mf_err e = spelling(t, op->parent, &like);
	if (e == MF_NOT_FOUND) /* its parent has gone meanwhile: LIST tells what there is */
		return MF_OK;
	if (!e)
		e = mailbox_find_path(t, op->raw, &other);
	/* one that was made in its place is the same to the server */
	return e == MF_NOT_FOUND ? mailbox_add_again(t, op, &like) : e;
}

/* Once more, if it was renamed again while the first was being sent */
static enum mf_err drop_renames(struct txn *t, const struct ops *ops)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < ops->count && !e; i++)
		if (ops->items[i].kind == OP_RENAME)
			e = op_remove(t, ops->items[i].id);
	return e;
}

bool mailbox_is_being_named(const struct ops *ops)
{
	bool busy = false;
	for (size_t i = 0; i < ops->count && !busy; i++)
		busy = (ops->items[i].kind == OP_CREATE || ops->items[i].kind == OP_RENAME) && !op_is_open(&ops->items[i]);
	return busy;
}

/* It goes by the name that it has at the server, whatever it was to be called. */
static enum mf_err journal_delete(struct txn *t, const struct node *n, const struct ops *ops)
{
	const struct op *rename = mailbox_find_op(ops, OP_RENAME);
	struct op op = { .kind = OP_DELETE, .mailbox = n->m.id, .name = n->m.name, .raw = n->m.raw, .parent = n->m.parent,
		.flags = n->m.flags, .uidvalidity = n->m.uidvalidity };
	enum mf_err e = leave_name(t, n);
	if (!e && rename) {
		op.name = rename->name;
		op.parent = rename->parent;
		e = drop_renames(t, ops);
	}
	return e ? e : op_add(t, &op);
}

static enum mf_err delete_node(struct txn *t, struct node *n)
{
	struct ops ops = { 0 };
	enum mf_err e = mailbox_ops(t, n->m.id, &ops);
	if (!e && mailbox_is_being_named(&ops))
		e = MF_BUSY;
	else if (!e && mailbox_find_op(&ops, OP_CREATE))
		e = mailbox_drop_ops(t, n->m.id);
	else if (!e && n->m.raw)
		e = journal_delete(t, n, &ops);
	ops_finish(&ops);
	return e ? e : mailbox_remove_node(t, n);
}

enum mf_err txn_mailbox_delete(struct txn *t, uint64_t mailbox)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	if (n->m.use == CACHE_USE_INBOX || t->cache->only_deletes)
		return MF_UNSUPPORTED;
	if (!mailbox_permits(&n->m, "x"))
		return MF_DENIED;
	bool any = false;
	enum mf_err e = any_message(t, n, &any);
	if (e)
		return txn_fail(t, e);
	if (any || txn_has_children(t, mailbox))
		return MF_EXISTS;
	e = mailbox_is_landed_in(t, mailbox, &any);
	if (e || any)
		return e ? txn_fail(t, e) : MF_BUSY;
	e = delete_node(t, n);
	return e == MF_BUSY ? e : txn_fail(t, e);
}

/* --- renaming ------------------------------------------------------------------------------------------------------------------- */

bool mailbox_is_inside(struct txn *t, uint64_t parent, uint64_t mailbox)
{
	for (const struct node *n; parent && (n = txn_node(t, parent)); parent = n->m.parent)
		if (n->m.id == mailbox)
			return true;
	return false;
}

void mailbox_rename_node(struct txn *t, struct node *n, uint64_t parent, const char *name)
{
	if (!n->old_name) {
		n->old_name = mf_strdup(n->m.name);
		n->old_parent = n->m.parent;
	}
	txn_names_changed(t, n->m.parent);
	txn_names_changed(t, parent);
	free(n->m.name);
	n->m.name = mf_strdup(name);
	n->m.parent = parent;
	txn_attributes_changed(n);
}

static enum mf_err journal_rename(struct txn *t, const struct node *n, uint64_t parent, const char *name)
{
	struct ops ops = { 0 };
	enum mf_err e = mailbox_ops(t, n->m.id, &ops);
	const struct op *create = mailbox_find_op(&ops, OP_CREATE), *rename = mailbox_find_op(&ops, OP_RENAME);
	if (e || (create && op_is_open(create))) {
		/* what waits looks where it is when its turn comes */
	} else if (rename && op_is_open(rename) && rename->parent == parent && strcmp(rename->name, name) == 0) {
		e = op_remove(t, rename->id); /* it is called what it was */
	} else if (rename && op_is_open(rename)) {
		e = rename->state == OP_PARKED ? txn_retry(t, rename->id) : MF_OK;
	} else {
		struct op op = { .kind = OP_RENAME, .mailbox = n->m.id, .name = n->m.name, .parent = n->m.parent };
		e = op_add(t, &op);
	}
	ops_finish(&ops);
	return e;
}

enum mf_err txn_mailbox_rename(struct txn *t, uint64_t mailbox, uint64_t parent, const char *name)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	if (n->m.use == CACHE_USE_INBOX || t->cache->only_deletes)
		return MF_UNSUPPORTED;
	if (mailbox_is_inside(t, parent, mailbox))
		return MF_INVALID;
	if (!mailbox_permits(&n->m, "x") || !may_hold(t, parent))
		return MF_DENIED;
	bool taken = false;
	enum mf_err e = name_is_taken(t, parent, name, &taken);
	if (e)
		return txn_fail(t, e);
	if (taken)
		return n->m.parent == parent && strcmp(n->m.name, name) == 0 ? MF_OK : MF_EXISTS;
	MF_CLEANUP(mf_free) char *path = NULL;
	e = server_path(t, parent, name, &path);
	if (e)
		return e;
	e = journal_rename(t, n, parent, name);
	if (!e)
		mailbox_rename_node(t, n, parent, name);
	return txn_fail(t, e);
}

bool mailbox_may_be_done(const struct op *op)
{
	return op->state == OP_SENT || (op->state == OP_QUEUED && op->tries);
}

enum mf_err txn_mailbox_subscribe(struct txn *t, uint64_t mailbox, bool subscribed)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	bool is = n->m.flags & CACHE_MAILBOX_SUBSCRIBED;
	if (is == subscribed)
		return MF_OK;
	if (t->cache->only_deletes)
		return MF_UNSUPPORTED;
	struct ops ops = { 0 };
	enum mf_err e = mailbox_ops(t, mailbox, &ops);
	const struct op *opposite = mailbox_find_op(&ops, subscribed ? OP_UNSUBSCRIBE : OP_SUBSCRIBE);
	bool open = opposite && op_is_open(opposite);
	if (!e && open)
		e = op_remove(t, opposite->id);
	if (!e && (!open || mailbox_may_be_done(opposite))) {
		struct op op = { .kind = subscribed ? OP_SUBSCRIBE : OP_UNSUBSCRIBE, .mailbox = mailbox, .raw = n->m.raw, .name = n->m.name };
		e = op_add(t, &op);
	}
	ops_finish(&ops);
	n->m.flags ^= CACHE_MAILBOX_SUBSCRIBED;
	txn_attributes_changed(n);
	return txn_fail(t, e);
}

/* --- what the server has done ------------------------------------------------------------------------------------------------------ */

enum mf_err txn_op_target(struct txn *t, const struct op *op, char **ret)
{
	const struct node *n = txn_node(t, op->mailbox);
	const struct node *above = n && n->m.parent ? txn_node(t, n->m.parent) : NULL;
	if (!n)
		return MF_NOT_FOUND;
	if (above && (above->m.flags & CACHE_MAILBOX_LOCAL))
		return MF_BUSY;
	return server_path(t, n->m.parent, n->m.name, ret);
}

enum mf_err journal_target(struct cache *c, const struct op *op, char **ret)
{
	struct txn *t;
	enum mf_err e = cache_begin(c, &t);
	if (e)
		return e;
	e = txn_op_target(t, op, ret);
	txn_rollback(t);
	return e;
}

enum mf_err journal_aside(struct cache *c, const struct op *op, char **ret)
{
	MF_CLEANUP(mf_free) char *target = NULL;
	enum mf_err e = journal_target(c, op, &target);
	*ret = e ? NULL : mailbox_aside(target, op->mailbox);
	return e;
}

static bool list_ids(void *context, const struct mailbox *m)
{
	map_add(context, 0, m->id);
	return true;
}

static enum mf_err put_path(struct txn *t, struct node *n)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_SET_PATH);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	db_bind_text(s, 2, n->path);
	txn_attributes_changed(n);
	return db_run(t->db, s);
}

/* At once: LIST goes on finding mailboxes by it in this transaction. One that is not there yet, and was to have the same path
 * when it was made here, will get a path of its own. */
static enum mf_err store_path(struct txn *t, struct node *n)
{
	struct node *other;
	enum mf_err e = mailbox_find_path(t, n->path, &other);
	bool taken = !e && other != n;
	if (taken && (n->m.flags & CACHE_MAILBOX_LOCAL)) {
		e = free_path(t, &n->path);
	} else if (taken && (other->m.flags & CACHE_MAILBOX_LOCAL)) {
		e = free_path(t, &other->path);
		e = e ? e : put_path(t, other);
	}
	return e && e != MF_NOT_FOUND ? e : put_path(t, n);
}

/* What was removed inside, and goes by these bytes until the server has done it */
static enum mf_err set_op_paths(struct txn *t, const struct node *n, const char *old)
{
	MF_CLEANUP(mf_free) char *was = mf_format("%s%c", old, n->m.delimiter), *is = mf_format("%s%c", n->path, n->m.delimiter);
	sqlite3_stmt *s = db_use(t->db, SQL_OP_MOVE_RAW);
	db_bind_text(s, 1, was);
	db_bind_text(s, 2, is);
	return db_run(t->db, s);
}

enum mf_err mailbox_set_paths(struct txn *t, struct node *n, const char *path)
{
	MF_CLEANUP(mf_free) char *old = n->path;
	size_t len = strlen(old);
	n->path = mf_strdup(path);
	free(n->m.raw);
	n->m.raw = mf_strdup(path);
	n->m.flags &= ~(unsigned)CACHE_MAILBOX_LOCAL;
	struct map ids = { 0 };
	enum mf_err e = store_path(t, n);
	if (!e && n->m.delimiter)
		e = cache_mailboxes(t->cache, list_ids, &ids);
	for (uint32_t i = 1; i <= ids.used && !e; i++) {
		struct node *inside = txn_node(t, ids.entries[i].value);
		if (!inside || inside == n || strncmp(inside->path, old, len) != 0 || inside->path[len] != n->m.delimiter)
			continue;
		char *moved = mf_format("%s%s", path, inside->path + len);
		free(inside->path);
		inside->path = moved;
		if (inside->m.raw) {
			free(inside->m.raw);
			inside->m.raw = mf_strdup(moved);
		}
		e = store_path(t, inside);
	}
	map_finish(&ids);
	return e || !n->m.delimiter ? e : set_op_paths(t, n, old);
}

static enum mf_err needs_it(struct txn *t, const struct node *n, bool *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_ANY_UNNUMBERED);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* Another has the path that the server gives to n. What LIST has told of before the answer was dealt with is one and the same; what
 * else there is the next LIST puts right. */
static enum mf_err drop_twin(struct txn *t, const struct node *n, const char *raw)
{
	struct node *twin;
	bool needed = false;
	enum mf_err e = mailbox_find_path(t, raw, &twin);
	if (e || twin == n || (twin->m.flags & CACHE_MAILBOX_LOCAL)) /* the last: store_path() */
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = needs_it(t, twin, &needed);
	if (!e && !needed && !txn_has_children(t, twin->m.id)) {
		sqlite3_stmt *s = db_use(t->db, SQL_OP_OTHER_MAILBOX);
		sqlite3_bind_int64(s, 1, (int64_t)twin->m.id);
		sqlite3_bind_int64(s, 2, (int64_t)n->m.id);
		e = db_run(t->db, s);
		return e ? e : mailbox_remove_node(t, twin);
	}
	MF_CLEANUP(mf_free) char *path = mf_strdup(twin->path);
	if (!e)
		e = free_path(t, &path);
	return e ? e : mailbox_set_paths(t, twin, path);
}

/* One that was sent anew went under the name that it has by now: what was to rename it to that is done as well. */
static enum mf_err drop_renames_done(struct txn *t, const struct node *n)
{
	struct ops ops = { 0 };
	enum mf_err e = mailbox_ops(t, n->m.id, &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		MF_CLEANUP(mf_free) char *target = NULL;
		const struct op *op = &ops.items[i];
		if (op->kind == OP_RENAME && op_is_open(op) && txn_op_target(t, op, &target) == MF_OK && strcmp(target, n->path) == 0)
			e = op_remove(t, op->id);
	}
	ops_finish(&ops);
	return e;
}

/* Beside the name that it is to have, and different for each mailbox */
char *mailbox_aside(const char *target, uint64_t mailbox)
{
	return mf_format("%s-moving-%" PRIu64, target, mailbox);
}

static bool is_aside(const struct node *n)
{
	MF_CLEANUP(mf_free) char *end = mailbox_aside("", n->m.id);
	size_t len = strlen(n->path), end_len = strlen(end);
	return len > end_len && strcmp(n->path + len - end_len, end) == 0;
}

/* It made way for another: it is still to be called what the tree says. Taken back, it is called what the server calls it. */
static enum mf_err go_on_from_aside(struct txn *t, const struct node *n, bool *ret)
{
	MF_CLEANUP(mf_free) char *target = NULL, *name = NULL;
	struct ops ops = { 0 };
	enum mf_err e = txn_op_target(t, &(struct op){ .mailbox = n->m.id }, &target);
	*ret = is_aside(n) && (e || strcmp(target, n->path) != 0);
	if (!*ret)
		return MF_OK;
	e = mailbox_ops(t, n->m.id, &ops);
	for (size_t i = 0; i < ops.count && !e; i++)
		if (ops.items[i].kind == OP_RENAME && op_is_open(&ops.items[i]))
			e = op_remove(t, ops.items[i].id);
	ops_finish(&ops);
	name = mailbox_aside(n->m.name, n->m.id);
	struct op op = { .kind = OP_RENAME, .mailbox = n->m.id, .name = name, .parent = n->m.parent };
	return e ? e : op_add(t, &op);
}

static enum mf_err mailbox_is(struct txn *t, const struct op *op, const char *raw)
{
	struct node *n = txn_node(t, op->mailbox);
	enum mf_err e = op_remove(t, op->id);
	bool goes_on = false;
	if (e || !n)
		return e;
	e = drop_twin(t, n, raw);
	if (!e)
		e = mailbox_set_paths(t, n, raw);
	if (!e)
		e = drop_renames_done(t, n);
	if (!e)
		e = go_on_from_aside(t, n, &goes_on);
	if (e || goes_on || !(n->m.flags & CACHE_MAILBOX_SUBSCRIBED))
		return e;
	/* the server's list of subscriptions goes by names */
	struct op subscribe = { .kind = OP_SUBSCRIBE, .mailbox = n->m.id, .raw = n->m.raw, .name = n->m.name };
	return op_add(t, &subscribe);
}

enum mf_err txn_mailbox_is_called(struct txn *t, uint64_t mailbox)
{
	const struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	return txn_fail(t, n ? drop_renames_done(t, n) : t->failed);
}

enum mf_err txn_op_mailbox_is(struct txn *t, uint64_t id, const char *raw)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : txn_fail(t, e);
	e = mailbox_is(t, &op, raw);
	op_finish(&op);
	return txn_fail(t, e);
}

/* target, or (of what was renamed) something inside it */
static bool tells_of(const char *path, const char *target, const struct node *renamed)
{
	size_t len = strlen(target);
	return strncmp(path, target, len) == 0 && (!path[len] || (renamed && renamed->m.delimiter && path[len] == renamed->m.delimiter));
}

/* CREATE and RENAME that were sent and whose answer got lost: LIST tells */
static enum mf_err settle_sent(struct txn *t, const char *path)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_collect(t, db_use(t->db, SQL_OP_DOUBTFUL), &ops);
	for (size_t i = 0; i < ops.count && !e; i++) {
		struct op *op = &ops.items[i];
		const struct node *renamed = op->kind == OP_RENAME ? txn_node(t, op->mailbox) : NULL;
		/* as it was sent: it may have been renamed again since */
		if ((op->kind != OP_RENAME && op->kind != OP_CREATE) || !op->raw || !tells_of(path, op->raw, renamed))
			continue;
		e = mailbox_is(t, op, op->raw);
		break;
	}
	ops_finish(&ops);
	return e;
}

enum mf_err settle_said(struct txn *t, const char *path, const char *raw)
{
	if (!txn_has_ops(t))
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_OP_DELETES_RAW);
	db_bind_text(s, 1, raw);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	if (e != MF_NOT_FOUND)
		return e ? e : MF_NOT_FOUND;
	struct node *known;
	e = mailbox_find_path(t, path, &known);
	/* one that is being made is known by that path from before */
	return e == MF_NOT_FOUND || (!e && (known->m.flags & CACHE_MAILBOX_LOCAL)) ? settle_sent(t, path) : e;
}

/* Another client has removed it while messages of ours are to go there: it is ours to make again, if a person wants that. */
static enum mf_err becomes_local(struct txn *t, struct node *n)
{
	struct op op = { .kind = OP_CREATE, .state = OP_PARKED, .mailbox = n->m.id, .name = n->m.name };
	enum mf_err e = limbo_retire(t, n, false);
	if (!e)
		e = op_add(t, &op);
	if (e)
		return e;
	free(n->m.raw);
	free(n->m.object_id);
	n->m.raw = n->m.object_id = NULL;
	n->m.flags = CACHE_MAILBOX_LOCAL | CACHE_MAILBOX_SUBSCRIBED;
	n->m.complete = false;
	n->m.uidvalidity = n->m.uidnext = n->m.first_uid = 0;
	n->m.modseq = 0;
	txn_attributes_changed(n);
	txn_names_changed(t, n->m.id);
	return txn_op_park(t, op.id, OP_PARKED, "another client has removed this mailbox; retry makes it again");
}

static bool is_being_renamed(struct txn *t, const struct node *n)
{
	bool found = false;
	for (; n && !found; n = n->m.parent ? txn_node(t, n->m.parent) : NULL) {
		struct ops ops = { 0 };
		found = mailbox_ops(t, n->m.id, &ops) == MF_OK && mailbox_find_op(&ops, OP_RENAME);
		ops_finish(&ops);
	}
	return found;
}

enum mf_err settle_unlisted(struct txn *t, struct node *n, bool *ret_stays)
{
	*ret_stays = (n->m.flags & CACHE_MAILBOX_LOCAL) || (txn_has_ops(t) && is_being_renamed(t, n));
	if (*ret_stays)
		return MF_OK;
	enum mf_err e = needs_it(t, n, ret_stays);
	if (!e && !*ret_stays)
		e = mailbox_is_landed_in(t, n->m.id, ret_stays);
	return e || !*ret_stays ? e : becomes_local(t, n);
}

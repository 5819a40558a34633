/* Messages that are to be here alone: their bytes are in the spool before the server is asked to delete them, and the row has no
 * number from then on, so that nothing that the server tells or forgets can touch it. */
#include "cache/journal.h"
#include "cache/spool.h"
#include "cache/txn.h"

static enum mf_err has_plans(struct txn *t, uint64_t message, bool *ret)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	*ret = ops.count != 0;
	ops_finish(&ops);
	return e;
}

/* In the tree, at the server, and nothing else is to be done with it. Once found neither is missing. */
static enum mf_err find(struct txn *t, uint64_t message, struct row *ret, struct node **ret_n)
{
	bool plans = false;
	enum mf_err e = row_by_id(t, message, ret);
	*ret_n = e ? NULL : txn_node_of_shelf(t, ret->shelf);
	if (e || !*ret_n)
		return e ? e : MF_NOT_FOUND;
	e = has_plans(t, message, &plans);
	return e ? e : plans || !ret->entry.uid || ret->local ? MF_BUSY : MF_OK;
}

static enum mf_err claim(struct txn *t, struct node *n, struct row *row)
{
	struct op op = { .kind = OP_KEEP, .message = row->entry.id, .mailbox = n->m.id, .uidvalidity = n->m.uidvalidity, .uid = row->entry.uid,
		.name = row->name };
	enum mf_err e = op_add(t, &op);
	row->entry.uid = 0;
	row->modseq = 0;
	if (!e)
		e = row_place(t, n, row);
	if (e)
		return e;
	row_show(t, n, row, false);
	txn_body(t, row->entry.id, 0); /* a second copy, which is counted */
	return MF_OK;
}

enum mf_err keep_row(struct txn *t, uint64_t message)
{
	struct row row;
	struct node *n;
	enum mf_err e = find(t, message, &row, &n);
	return e ? e : claim(t, n, &row);
}

enum mf_err txn_keep(struct txn *t, uint64_t message)
{
	struct row row;
	struct node *n;
	enum mf_err e = t->failed ? t->failed : find(t, message, &row, &n);
	if (e == MF_NOT_FOUND || e == MF_BUSY)
		return e;
	if (!e)
		e = txn_spool_commit(t, message);
	return txn_fail(t, e ? e : claim(t, n, &row));
}

enum mf_err cache_kept(struct cache *c, struct cache_kept *ret)
{
	*ret = (struct cache_kept){ 0 };
	if (!c->only_deletes)
		return MF_OK;
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_KEPT);
	e = db_step(db, s);
	if (!e)
		*ret = (struct cache_kept){ (uint64_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1) };
	db_done(s);
	cache_reader_done(c, db);
	return e;
}

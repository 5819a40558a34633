#include "cache/uidls.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cache/txn.h"

#define AT_ONCE 1024           /* rows in one transaction: others may write in between */
#define TOGETHER 16            /* rows in one statement */
#define KEYS_MAX (1U << 30)

void uidls_finish(struct uidls *u)
{
	free(u->rows);
	free(u->keys);
	*u = (struct uidls){ 0 };
}

/* --- reading --------------------------------------------------------------------------------------------------------- */

static enum mf_err read_number(struct db *db, const char *key, uint32_t *ret)
{
	int64_t number = 0;
	enum mf_err e = meta_number(db, key, &number);
	if (e && e != MF_NOT_FOUND)
		return e;
	*ret = (uint32_t)number;
	return MF_OK;
}

static enum mf_err read_row(sqlite3_stmt *s, struct uidls *u, size_t *room, struct buf *keys)
{
	if (u->count == *room) {
		*room = *room ? *room * 2 : 256;
		u->rows = mf_realloc_array(u->rows, *room, sizeof *u->rows);
	}
	struct uidl *row = &u->rows[u->count++];
	*row = (struct uidl){ .uid = (uint32_t)sqlite3_column_int64(s, 1), .size = (uint64_t)sqlite3_column_int64(s, 2) };
	const char *digest = (const char *)sqlite3_column_text(s, 3);
	size_t digest_len = digest ? strnlen(digest, MAIL_DIGEST_SIZE - 1) : 0;
	if (digest_len)
		memcpy(row->digest, digest, digest_len);
	const char *key = (const char *)sqlite3_column_text(s, 0);
	return buf_add(keys, key ? key : "", (key ? strlen(key) : 0) + 1);
}

static enum mf_err read_rows(struct db *db, struct uidls *u)
{
	struct buf keys;
	size_t room = 0;
	buf_init(&keys, KEYS_MAX);
	sqlite3_stmt *s = db_use(db, SQL_UIDL_ALL);
	enum mf_err e;
	while ((e = db_step(db, s)) == MF_OK && (e = read_row(s, u, &room, &keys)) == MF_OK)
		;
	db_done(s);
	u->keys = buf_detach(&keys);
	const char *key = u->keys;
	for (size_t i = 0; i < u->count && e == MF_NOT_FOUND; i++, key += strlen(key) + 1)
		u->rows[i].key = key;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err cache_uidls(struct cache *c, struct uidls *ret)
{
	struct uidls u = { 0 };
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	e = read_number(db, "uidl_validity", &u.uidvalidity);
	if (!e)
		e = read_number(db, "uidl_next", &u.uidnext);
	if (!e)
		e = read_rows(db, &u);
	cache_reader_done(c, db);
	if (e)
		uidls_finish(&u);
	else
		*ret = u;
	return e;
}

/* --- writing --------------------------------------------------------------------------------------------------------- */

static enum mf_err store_numbers(struct txn *t, const struct uidls_change *change)
{
	uint32_t before;
	enum mf_err e = read_number(t->db, "uidl_validity", &before);
	if (!e && before != change->uidvalidity)
		e = db_run(t->db, db_use(t->db, SQL_UIDL_CLEAR));
	if (!e)
		e = meta_set_number(t->db, "uidl_validity", change->uidvalidity);
	return e ? e : meta_set_number(t->db, "uidl_next", change->uidnext);
}

static void bind_row(sqlite3_stmt *s, int at, const struct uidl *row)
{
	sqlite3_bind_int64(s, at, row->uid);
	db_bind_text(s, at + 1, row->key);
	sqlite3_bind_int64(s, at + 2, (int64_t)row->size);
	db_bind_text(s, at + 3, row->digest);
}

static enum mf_err put_row(struct txn *t, const struct uidl *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_UIDL_PUT);
	bind_row(s, 1, row);
	return db_run(t->db, s);
}

/* A number that has another key now is left by the statement as it is. */
static enum mf_err put_together(struct txn *t, const struct uidl *rows)
{
	sqlite3_stmt *s = db_use(t->db, SQL_UIDLS_PUT);
	for (int i = 0; i < TOGETHER; i++)
		bind_row(s, i * 4 + 1, &rows[i]);
	enum mf_err e = db_run(t->db, s);
	bool all = !e && sqlite3_changes(t->db->handle) == TOGETHER;
	for (int i = 0; i < TOGETHER && !e && !all; i++)
		e = put_row(t, &rows[i]);
	return e;
}

static enum mf_err remove_row(struct txn *t, uint32_t uid)
{
	sqlite3_stmt *s = db_use(t->db, SQL_UIDL_REMOVE);
	sqlite3_bind_int64(s, 1, uid);
	return db_run(t->db, s);
}

/* Some of the change, from *gone and *put on */
static enum mf_err store_some(struct txn *t, const struct uidls_change *change, size_t *gone, size_t *put)
{
	size_t left = AT_ONCE;
	enum mf_err e = store_numbers(t, change);
	for (; !e && left && *gone < change->gone_count; left--, ++*gone)
		e = remove_row(t, change->gone[*gone]);
	while (!e && left && *put < change->put_count) {
		const struct uidl *rows = &change->put[*put];
		size_t n = left >= TOGETHER && change->put_count - *put >= TOGETHER ? TOGETHER : 1;
		e = n == TOGETHER ? put_together(t, rows) : put_row(t, rows);
		left -= n;
		*put += n;
	}
	return e;
}

enum mf_err cache_uidls_store(struct cache *c, const struct uidls_change *change)
{
	size_t gone = 0, put = 0;
	do {
		struct txn *t;
		enum mf_err e = cache_begin(c, &t);
		if (e)
			return e;
		e = store_some(t, change, &gone, &put);
		if (e) {
			txn_rollback(t);
			return e;
		}
		e = txn_commit(t);
		if (e)
			return e;
	} while (gone < change->gone_count || put < change->put_count);
	return MF_OK;
}

/* --- what is known ----------------------------------------------------------------------------------------------------- */

static const char *text_of(sqlite3_stmt *s, int column)
{
	const char *text = (const char *)sqlite3_column_text(s, column);
	return text ? text : "";
}

enum mf_err cache_known(struct cache *c, uint64_t mailbox, known_visitor *visit, void *context)
{
	enum mf_err e = MF_OK;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_KNOWN_OF_MAILBOX);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	bool more = true;
	while (more && (e = db_step(db, s)) == MF_OK) {
		const struct known_message m = {
			.size = (uint64_t)sqlite3_column_int64(s, 0), .mtime = sqlite3_column_int64(s, 1), .flags = (unsigned)sqlite3_column_int64(s, 2),
			.keywords = text_of(s, 3), .message_id = text_of(s, 4), .subject = text_of(s, 5), .from = text_of(s, 6),
		};
		more = visit(context, &m);
	}
	db_done(s);
	cache_reader_done(c, db);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

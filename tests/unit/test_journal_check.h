/* test_journal_check.h: what holds of an index with changes that wait, whatever was done: counts are those of the rows,
 * listings are what SQL has, no operation and no row is left over. And the tree as text, to be compared. */
#ifndef MF_TEST_JOURNAL_CHECK_H
#define MF_TEST_JOURNAL_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cache/cache.h"
#include "cache/journal.h"

static inline sqlite3 *index_open(const char *state)
{
	char path[256];
	sqlite3 *db;
	snprintf(path, sizeof path, "%s/mailfs.db", state);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	sqlite3_busy_timeout(db, 5000);
	return db;
}

static inline int64_t index_number(sqlite3 *db, const char *sql, uint64_t value)
{
	sqlite3_stmt *s;
	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	if (sqlite3_bind_parameter_count(s))
		sqlite3_bind_int64(s, 1, (int64_t)value);
	int step = sqlite3_step(s);
	int64_t number = step == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
	assert_true(step == SQLITE_ROW || step == SQLITE_DONE);
	sqlite3_finalize(s);
	return number;
}

/* nothing may be found by these */
static inline void check_none(sqlite3 *db, const char *what, const char *sql)
{
	int64_t found = index_number(db, sql, 0);
	if (found)
		fail_msg("%s: %lld", what, (long long)found);
}

struct seen { struct cache *c; sqlite3 *db; uint64_t mailbox; size_t count, wrong; };

static inline bool see_entry(void *context, const struct entry *e, const char *name)
{
	struct seen *seen = context;
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_prepare_v2(seen->db, "SELECT m.name, m.uid, m.size, m.mtime, m.ctime FROM message m JOIN mailbox b ON b.shelf = m.shelf "
		"WHERE m.id = ?1 AND b.id = ?2", -1, &s, NULL), SQLITE_OK);
	sqlite3_bind_int64(s, 1, (int64_t)e->id);
	sqlite3_bind_int64(s, 2, (int64_t)seen->mailbox);
	bool same = sqlite3_step(s) == SQLITE_ROW && !strcmp((const char *)sqlite3_column_text(s, 0), name) && sqlite3_column_int64(s, 1) == e->uid &&
	            (uint64_t)sqlite3_column_int64(s, 2) == e->size && sqlite3_column_int64(s, 3) == e->mtime &&
	            sqlite3_column_int64(s, 4) == e->ctime && e->mailbox == seen->mailbox;
	if (!same)
		print_error("message %llu \"%s\" of mailbox %llu is not what the index has\n", (unsigned long long)e->id, name, (unsigned long long)seen->mailbox);
	sqlite3_finalize(s);
	seen->wrong += !same;
	seen->count++;
	return true;
}

static inline bool check_mailbox(void *context, const struct mailbox *m)
{
	struct seen *seen = context;
	int64_t rows = index_number(seen->db, "SELECT count(*) FROM message m JOIN mailbox b ON b.shelf = m.shelf WHERE b.id = ?1", m->id);
	int64_t total = index_number(seen->db, "SELECT count(*) FROM message m JOIN mailbox b ON b.shelf = m.shelf WHERE b.id = ?1 AND NOT m.local", m->id);
	int64_t unseen = index_number(seen->db, "SELECT count(*) FROM message m JOIN mailbox b ON b.shelf = m.shelf WHERE b.id = ?1 AND NOT m.local "
		"AND NOT m.flags & 1", m->id);
	if (m->total != total || m->unseen != unseen)
		fail_msg("%s: %u messages and %u unseen, but there are %lld and %lld", m->name, m->total, m->unseen, (long long)total, (long long)unseen);
	assert_int_equal(index_number(seen->db, "SELECT total FROM mailbox WHERE id = ?1", m->id), total);
	assert_int_equal(index_number(seen->db, "SELECT unseen FROM mailbox WHERE id = ?1", m->id), unseen);
	assert_int_equal(index_number(seen->db, "SELECT parent FROM mailbox WHERE id = ?1", m->id), m->parent);
	seen->mailbox = m->id;
	seen->count = 0;
	assert_int_equal(cache_list(seen->c, m->id, 0, see_entry, seen), MF_OK);
	assert_int_equal(seen->count, rows);
	return true;
}

/* No other thread may be changing anything. */
static inline void check_index(struct cache *c, const char *state)
{
	struct seen seen = { .c = c, .db = index_open(state) };
	assert_int_equal(cache_mailboxes(c, check_mailbox, &seen), MF_OK);
	assert_int_equal(seen.wrong, 0);
	check_none(seen.db, "messages on a shelf that is not there", "SELECT count(*) FROM message WHERE shelf NOT IN (SELECT id FROM shelf)");
	check_none(seen.db, "messages without a summary", "SELECT count(*) FROM message WHERE id NOT IN (SELECT id FROM summary)");
	check_none(seen.db, "summaries without a message", "SELECT count(*) FROM summary WHERE id NOT IN (SELECT id FROM message)");
	check_none(seen.db, "mailboxes inside one that is not there", "SELECT count(*) FROM mailbox WHERE parent != 0 AND parent NOT IN (SELECT id FROM mailbox)");
	check_none(seen.db, "operations on messages that are not there", "SELECT count(*) FROM op WHERE message != 0 AND message NOT IN (SELECT id FROM message)");
	check_none(seen.db, "messages held for no operation", "SELECT count(*) FROM message WHERE shelf = (SELECT value FROM meta WHERE key = 'held_shelf') "
		"AND id NOT IN (SELECT message FROM op WHERE kind = 5)");
	check_none(seen.db, "a mailbox on the shelf of what is held", "SELECT count(*) FROM mailbox WHERE shelf = (SELECT value FROM meta WHERE key = 'held_shelf')");
	check_none(seen.db, "messages that nothing brings to the server", "SELECT count(*) FROM message m JOIN mailbox b ON b.shelf = m.shelf "
		"WHERE m.uid IS NULL AND NOT m.local AND m.id NOT IN (SELECT message FROM op WHERE kind IN (2, 3, 4))");
	check_none(seen.db, "local messages with operations", "SELECT count(*) FROM message WHERE local AND id IN (SELECT message FROM op)");
	check_none(seen.db, "changes of flags that will never have a number", "SELECT count(*) FROM op o WHERE o.kind IN (1, 4, 5) AND o.uid IS NULL "
		"AND NOT EXISTS (SELECT 1 FROM op p WHERE p.message = o.message AND p.id < o.id AND p.kind IN (2, 3, 4))");
	check_none(seen.db, "operations on mailboxes that are not known", "SELECT count(*) FROM op WHERE mailbox NOT IN (SELECT id FROM mailbox) AND raw IS NULL "
		"AND kind NOT IN (1, 3, 4, 5)"); /* what is about messages is over when the mailbox is */
	assert_int_equal(index_number(seen.db, "SELECT count(*) FROM op", 0), journal_count(c));
	assert_int_equal(sqlite3_close(seen.db), SQLITE_OK);
}

/* The tree: each message's path, flags, keywords and number, each mailbox's counts. The caller frees. */
static inline char *tree_text(const char *state, bool with_uids)
{
	sqlite3 *db = index_open(state);
	sqlite3_stmt *s;
	char *text = mf_strdup("");
	assert_int_equal(sqlite3_prepare_v2(db, "WITH RECURSIVE tree (id, shelf, path, flags, total, unseen) AS ("
		"SELECT id, shelf, name, flags, total, unseen FROM mailbox WHERE parent = 0 UNION ALL "
		"SELECT b.id, b.shelf, t.path || '/' || b.name, b.flags, b.total, b.unseen FROM mailbox b JOIN tree t ON b.parent = t.id) "
		"SELECT path || '/ ' || (flags & 36) || ' ' || total || ' ' || unseen AS line FROM tree UNION ALL "
		"SELECT t.path || '/' || m.name || ' ' || m.flags || ' ' || m.keywords || ' ' || CASE WHEN ?1 THEN coalesce(m.uid, '-') ELSE '' END || ' ' || m.size "
		"FROM message m JOIN tree t ON m.shelf = t.shelf ORDER BY line", -1, &s, NULL), SQLITE_OK);
	sqlite3_bind_int(s, 1, with_uids);
	while (sqlite3_step(s) == SQLITE_ROW) {
		char *more = mf_format("%s%s\n", text, (const char *)sqlite3_column_text(s, 0));
		free(text);
		text = more;
	}
	sqlite3_finalize(s);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return text;
}

/* The tree is as it was when its text was `before`, which is freed. */
static inline void assert_tree_is(const char *state, char *before)
{
	char *after = tree_text(state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
}

#endif

/* What the writer's connection writes: a commit as one piece, nothing of it later than SQLite says, whatever order it writes in. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cache/db.h"

/* SQLite's own VFS, with the writes to logs counted, and made to fail. It is the default before the one that is tested is made. */
static sqlite3_vfs counting, *real;
static sqlite3_io_methods counted;
static const sqlite3_io_methods *original;
static unsigned writes, fail_at;   /* fail_at: the write of this number; 0: none */

static int count_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 at)
{
	return ++writes == fail_at ? SQLITE_FULL : original->xWrite(file, data, size, at);
}

static int count_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	(void)vfs;
	int code = real->xOpen(real, name, file, flags, ret_flags);
	if (code == SQLITE_OK && (flags & SQLITE_OPEN_WAL)) {
		original = file->pMethods;
		counted = *original;
		counted.xWrite = count_write;
		file->pMethods = &counted;
	}
	return code;
}

static int setup(void **state)
{
	(void)state;
	real = sqlite3_vfs_find(NULL);
	counting = *real;
	counting.zName = "counting";
	counting.xOpen = count_open;
	return sqlite3_vfs_register(&counting, 1);
}

#define NUMBERS(last) "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < " last ") "

struct world { struct db writer, reader; char dir[64], path[80]; };

static void run(struct db *db, const char *sql)
{
	assert_int_equal(db_exec(db, sql), MF_OK);
}

static void world_open(struct world *w)
{
	const char *base = getenv("TMPDIR");
	*w = (struct world){ 0 };
	snprintf(w->dir, sizeof w->dir, "%.40s/mfwal-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->path, sizeof w->path, "%s/db", w->dir);
	fail_at = 0;
	assert_int_equal(db_open(&w->writer, w->path, DB_WRITER), MF_OK);
	run(&w->writer, "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, v); CREATE INDEX a ON t (v); CREATE INDEX b ON t (v, id)");
	assert_int_equal(db_open(&w->reader, w->path, DB_READER), MF_OK);
}

static void world_close(struct world *w)
{
	db_close(&w->reader);
	db_close(&w->writer);
	MF_CLEANUP(mf_free) char *command = mf_format("rm -r '%s'", w->dir);
	assert_int_equal(system(command), 0);
}

static int64_t number(struct db *db, const char *sql)
{
	int64_t n = -1;
	assert_int_equal(db_number(db, sql, &n), MF_OK);
	return n;
}

static void assert_sound(struct db *db, int64_t rows)
{
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_prepare_v2(db->handle, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
	sqlite3_finalize(s);
	assert_int_equal(number(db, "SELECT count(*) FROM t"), rows);
}

/* as a crash of the process leaves it */
static void assert_survives(const struct world *w, int64_t rows)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/copy", w->dir);
	MF_CLEANUP(mf_free) char *command = mf_format("cp '%s' '%s' && cp '%s-wal' '%s-wal' && rm -f '%s-shm'", w->path, path, w->path, path, path);
	struct db copy;
	assert_int_equal(system(command), 0);
	assert_int_equal(db_open(&copy, path, DB_KEEPER), MF_OK);
	assert_sound(&copy, rows);
	db_close(&copy);
}

static void test_one_write(void **state)
{
	(void)state;
	struct world w;
	world_open(&w);
	run(&w.writer, NUMBERS("10000") "INSERT INTO t SELECT n, n * 7919 % 10007 FROM numbers");
	for (int i = 1; i <= 50; i++) {
		unsigned before = writes;
		char sql[80];
		snprintf(sql, sizeof sql, "UPDATE t SET v = v + 10007 WHERE id = %d", i * 199);
		run(&w.writer, sql);
		if (i > 1) /* the first does not know where the log ends */
			assert_int_equal(writes - before, 1);
		assert_int_equal(number(&w.reader, "SELECT count(*) FROM t WHERE v > 10007"), i);
	}
	assert_survives(&w, 10000);
	world_close(&w);
}

/* More than the page cache has room for is written before the commit, some of it twice, and read back; some is taken back. The log begins
 * anew in between, and is cut. */
static void test_any_order(void **state)
{
	(void)state;
	struct world w;
	int64_t rows = 0;
	world_open(&w);
	run(&w.writer, "PRAGMA cache_size = 10; PRAGMA journal_size_limit = 20000");
	for (int round = 0; round < 30; round++) {
		run(&w.writer, "BEGIN IMMEDIATE");
		run(&w.writer, NUMBERS("300") "INSERT INTO t (v) SELECT abs(random() % 100000) FROM numbers");
		run(&w.writer, "SAVEPOINT s; UPDATE t SET v = v + 1 WHERE id % 3 = 0; INSERT INTO t (v) SELECT v FROM t LIMIT 200");
		run(&w.writer, round % 2 ? "ROLLBACK TO s" : "RELEASE s");
		run(&w.writer, "UPDATE t SET v = v + 2 WHERE id % 5 = 0");
		run(&w.writer, round % 5 == 4 ? "ROLLBACK" : "COMMIT");
		if (round % 5 != 4)
			rows = number(&w.writer, "SELECT count(*) FROM t");
		assert_sound(&w.reader, rows);
		assert_survives(&w, rows);
		if (round % 7 == 6)
			run(&w.writer, "PRAGMA wal_checkpoint(RESTART)");
	}
	world_close(&w);
}

/* A commit whose bytes do not go into the file is none. */
static void test_full(void **state)
{
	(void)state;
	struct world w;
	world_open(&w);
	run(&w.writer, NUMBERS("5000") "INSERT INTO t SELECT n, n FROM numbers");
	for (unsigned n = 1; n <= 4; n++) {
		fail_at = writes + n;
		enum mf_err e = db_exec(&w.writer, "UPDATE t SET v = v + 1000 WHERE id % 2");
		bool reached = writes >= fail_at;
		fail_at = 0;
		assert_true(reached || n > 3);
		assert_int_equal(e, reached ? MF_NO_SPACE : MF_OK);
		assert_sound(&w.reader, 5000);
		assert_survives(&w, 5000);
		run(&w.writer, "UPDATE t SET v = id");
		assert_int_equal(number(&w.reader, "SELECT count(*) FROM t WHERE v = id"), 5000);
	}
	world_close(&w);
}

#define CLEAN_PAGES "SELECT count(v) FROM u WHERE id > 1000"  /* which push what was changed out of the page cache */

/* What was held back is lost when it is to be read: only that statement may fail, and what comes behind the loss is no commit. */
static void test_full_before_the_commit(void **state)
{
	(void)state;
	for (int again = 0; again < 2; again++) {
		struct world w;
		world_open(&w);
		run(&w.writer, "CREATE TABLE u (id INTEGER PRIMARY KEY, v); PRAGMA cache_size = 10");
		run(&w.writer, NUMBERS("2000") "INSERT INTO u SELECT n, hex(zeroblob(100)) FROM numbers");
		run(&w.writer, "PRAGMA wal_checkpoint(RESTART); BEGIN IMMEDIATE; UPDATE u SET v = hex(randomblob(100)) WHERE id < 100");
		run(&w.writer, CLEAN_PAGES "; SELECT v FROM u WHERE id < 100; UPDATE u SET v = hex(randomblob(100)) WHERE id BETWEEN 120 AND 250;" CLEAN_PAGES);
		fail_at = writes + 1;
		assert_int_equal(db_exec(&w.writer, "INSERT INTO u SELECT id + 5000, v FROM u WHERE id BETWEEN 120 AND 170"), MF_NO_SPACE);
		fail_at = 0;
		if (again) /* what is not lost is written once more */
			(void)db_exec(&w.writer, "UPDATE u SET v = hex(randomblob(100)) WHERE id < 100;" CLEAN_PAGES);
		assert_int_not_equal(db_exec(&w.writer, "COMMIT"), MF_OK);
		assert_sound(&w.reader, 0);
		assert_survives(&w, 0);
		(void)db_exec(&w.writer, "ROLLBACK");
		run(&w.writer, "UPDATE u SET v = id");
		assert_sound(&w.reader, 0);
		assert_int_equal(number(&w.reader, "SELECT count(*) FROM u WHERE v = id"), 2000);
		assert_survives(&w, 0);
		world_close(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_one_write), cmocka_unit_test(test_any_order), cmocka_unit_test(test_full),
		cmocka_unit_test(test_full_before_the_commit) };
	return cmocka_run_group_tests(tests, setup, NULL);
}

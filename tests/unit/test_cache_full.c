/* cache: a disk that is full for a moment, wherever in a large transaction that is */
#include "unit/test_cache_fixture.h"
#include "unit/test_journal_check.h"

#include "cache/private.h"

/* SQLite's own VFS, with one write to a log that fails. It is the default before any index is opened. */
static sqlite3_vfs failing, *real;
static sqlite3_io_methods methods;
static const sqlite3_io_methods *original;
static unsigned writes, fail_at;   /* fail_at: the write of this number; 0: none */

static int fail_write(sqlite3_file *file, const void *data, int size, sqlite3_int64 at)
{
	return ++writes == fail_at ? SQLITE_FULL : original->xWrite(file, data, size, at);
}

static int fail_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	(void)vfs;
	int code = real->xOpen(real, name, file, flags, ret_flags);
	if (code == SQLITE_OK && (flags & SQLITE_OPEN_WAL)) {
		original = file->pMethods;
		methods = *original;
		methods.xWrite = fail_write;
		file->pMethods = &methods;
	}
	return code;
}

static int install(void **state)
{
	(void)state;
	real = sqlite3_vfs_find(NULL);
	failing = *real;
	failing.zName = "failing";
	failing.xOpen = fail_open;
	return sqlite3_vfs_register(&failing, 1);
}

enum { COUNT = 400 };

/* Half of them are in limbo, and come back from there */
static enum mf_err put_all(struct fixture *f, uint64_t mailbox)
{
	struct txn *t = begin(f);
	enum mf_err e = MF_OK;
	for (unsigned i = 1; i <= COUNT && !e; i++) {
		struct test_message m;
		uint64_t id;
		e = txn_message_put(t, message_make(&m, mailbox, i, i), &id);
	}
	if (!e)
		return txn_commit(t);
	txn_rollback(t);
	return e;
}

/* It is not there in part. */
static void all_or_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t old = add_mailbox(f, "Old"), box = add_mailbox(f, "Box");
	struct txn *t = begin(f);
	for (unsigned i = 1; i <= COUNT; i += 2)
		put(t, old, i, i);
	for (unsigned i = 1; i <= COUNT; i += 2)
		assert_int_equal(txn_message_vanished(t, old, i), MF_OK);
	commit(t);
	assert_int_equal(db_exec(&f->c->db, "PRAGMA cache_size = 20"), MF_OK);
	enum mf_err e = MF_IO;
	unsigned failed = 0;
	for (unsigned n = 1; e; n++) {
		fail_at = writes + n;
		e = put_all(f, box);
		bool reached = writes >= fail_at;
		fail_at = 0;
		assert_int_equal(e, reached ? MF_NO_SPACE : MF_OK);
		failed += reached;
		assert_int_equal(list_count(f, box), reached ? 0 : COUNT);
		check_index(f->c, f->state);
	}
	assert_true(failed > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = { WITH_CACHE(all_or_nothing) };
	return cmocka_run_group_tests(tests, install, NULL);
}

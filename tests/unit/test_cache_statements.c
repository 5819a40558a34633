/* Statements reach their rows by an index: what scans a table is asked once for each of ten thousand messages sooner or later. */
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

static const char *const names[] = {
#define X(name, text) #name,
	STATEMENTS(X)
#undef X
};
static const char *const texts[] = {
#define X(name, text) text,
	STATEMENTS(X)
#undef X
};

/* These are about all rows, of a table of four, or asked seldom: once for a mailbox, a round of changes, a start. */
static const char *const may_scan[] = {
	"MAILBOX_ALL", "LIMBO_ALL", "SHELF_RETIRED", "UIDL_ALL", "UIDL_CLEAR", "MESSAGE_LAST_ID", "MESSAGE_LOCALS", "KNOWN_OF_MAILBOX",
	"OP_READY", "OP_APPENDS", "OP_NEXT_DUE", "OP_TOTALS", "OP_DELETES_RAW", "OP_USES", "OP_OF_NAME", "OP_REMOVAL", "OP_MOVE_RAW", "KEPT",
};

static bool may(const char *name)
{
	for (size_t i = 0; i < sizeof may_scan / sizeof *may_scan; i++)
		if (strcmp(may_scan[i], name) == 0)
			return true;
	return false;
}

/* "SCAN x", but not of an index in its order, or of what a part of the statement has found or it brings itself; "SEARCH x" alone is a scan for a minimum */
static bool scans(const char *detail)
{
	return (strncmp(detail, "SCAN", 4) == 0 && !strstr(detail, "(subquery") && !strstr(detail, " CONSTANT ROW")) || (strncmp(detail, "SEARCH", 6) == 0 && !strstr(detail, " USING "));
}

static void open_db(struct db *db, char path[static 64])
{
	const char *base = getenv("TMPDIR");
	snprintf(path, 64, "%.40s/mfstmt-XXXXXX", base ? base : "/tmp");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	mf_close(&fd);
	assert_int_equal(db_open(db, path, DB_WRITER), MF_OK);
	assert_int_equal(schema_migrate(db, schema_steps, schema_step_count), MF_OK);
}

static void test_no_scan(void **state)
{
	(void)state;
	struct db db;
	char path[64];
	open_db(&db, path);
	for (size_t i = 0; i < STATEMENT_COUNT; i++) {
		if (may(names[i]))
			continue;
		MF_CLEANUP(mf_free) char *explain = mf_format("EXPLAIN QUERY PLAN %s", texts[i]);
		sqlite3_stmt *s = NULL;
		if (sqlite3_prepare_v2(db.handle, explain, -1, &s, NULL) != SQLITE_OK)
			fail_msg("%s: %s", names[i], sqlite3_errmsg(db.handle));
		while (sqlite3_step(s) == SQLITE_ROW)
			if (scans((const char *)sqlite3_column_text(s, 3)))
				fail_msg("%s: %s", names[i], (const char *)sqlite3_column_text(s, 3));
		sqlite3_finalize(s);
	}
	db_close(&db);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_no_scan) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* cache: opening, locking, identity, versions, damage, a full disk */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "unit/test_cache_fixture.h"

#include "cache/db.h"

static char *db_path(const struct fixture *f, const char *tail)
{
	static char path[160];
	snprintf(path, sizeof path, "%s/mailfs.db%s", f->state, tail);
	return path;
}

static enum mf_err reopen(struct fixture *f, struct mf_reason *why)
{
	fixture_close(f);
	return cache_open(&f->options, &f->c, why);
}

static void sql(struct fixture *f, const char *text)
{
	sqlite3 *db;
	assert_int_equal(sqlite3_open(db_path(f, ""), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static char *file_read(const char *path, size_t *ret_len)
{
	FILE *file = fopen(path, "rb");
	assert_non_null(file);
	char *data = malloc(1 << 20);
	*ret_len = fread(data, 1, 1 << 20, file);
	fclose(file);
	return data;
}

static size_t glob_count(const struct fixture *f, const char *tail)
{
	glob_t g = { 0 };
	size_t count = glob(db_path(f, tail), 0, NULL, &g) == 0 ? g.gl_pathc : 0;
	globfree(&g);
	return count;
}

/* --- what goes to the disk, in place of libc's: whoever asks for it --------------------------------------------------------- */

static _Atomic size_t synced_count;
static ino_t synced[256];

static int note_synced(int fd, long call)
{
	struct stat st;
	size_t at = atomic_fetch_add(&synced_count, 1);
	if (at < sizeof synced / sizeof *synced)
		synced[at] = fstat(fd, &st) == 0 ? st.st_ino : 0;
	return (int)syscall(call, fd);
}

int fdatasync(int fd) { return note_synced(fd, SYS_fdatasync); }
int fsync(int fd) { return note_synced(fd, SYS_fsync); }

/* how many were synced before this one was; SIZE_MAX: it was not */
static size_t synced_after(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	for (size_t i = 0; i < synced_count; i++)
		if (synced[i] == st.st_ino)
			return i;
	return SIZE_MAX;
}

/* Nothing is in a new index: it is made without waiting for the disk, and sent there before what is in it counts as stored. */
static void a_new_one_waits_for_no_disk(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(synced_count, 0);
	add_mailbox(f, "INBOX");
	assert_int_equal(cache_flush(f->c), MF_OK);
	size_t wal = synced_after(db_path(f, "-wal"));
	assert_true(wal != SIZE_MAX && synced_after(db_path(f, "")) < wal && synced_after(f->state) < wal);
	synced_count = 0;
	assert_int_equal(cache_flush(f->c), MF_OK);
	assert_int_equal(synced_after(db_path(f, "")), SIZE_MAX);
	assert_int_equal(synced_after(db_path(f, "-wal")), 0);
}

static void opens_private_and_survives(void **state)
{
	struct fixture *f = *state;
	assert_true(cache_is_new(f->c));
	assert_int_equal(cache_account(f->c), 3);
	uint32_t epoch = cache_epoch(f->c);
	assert_int_not_equal(epoch, 0);
	uint64_t inbox = add_mailbox(f, "INBOX");
	uint64_t message = add_message(f, inbox, 1, 1);
	add_body(f, message, "bytes");
	struct stat st;
	assert_int_equal(stat(db_path(f, ""), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(db_path(f, "-wal"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(f->state, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	struct txn *t = begin(f);
	say(t, "INBOX", '/');
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	assert_false(cache_is_new(f->c));
	fixture_close(f);
	assert_int_equal(glob_count(f, "-wal"), 0); /* a clean stop leaves one file */
	fixture_open(f);
	assert_false(cache_is_new(f->c));
	assert_int_equal(cache_epoch(f->c), epoch);
	assert_int_equal(list_count(f, inbox), 1);
	assert_true(has_body(f, message, "bytes"));
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.mailboxes, 1);
	assert_int_equal(totals.messages, 1);
	assert_int_equal(totals.bodies, 1);
	assert_true(totals.body_bytes >= 5 && totals.body_bytes < 100);
}

static void notes_survive(void **state)
{
	struct fixture *f = *state;
	char *note = NULL;
	assert_int_equal(cache_get_note(f->c, "caps", &note), MF_NOT_FOUND);
	assert_int_equal(cache_set_note(f->c, "caps", "IMAP4rev1 ' \" ;"), MF_OK);
	assert_int_equal(cache_set_note(f->c, "caps", "IDLE ' \" ;"), MF_OK);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(cache_get_note(f->c, "caps", &note), MF_OK);
	assert_string_equal(note, "IDLE ' \" ;");
	free(note);
}

static void is_held_by_one(void **state)
{
	struct fixture *f = *state;
	struct cache *other = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(cache_open(&f->options, &other, &why), MF_BUSY);
	char pid[24];
	snprintf(pid, sizeof pid, "process %ld", (long)getpid());
	assert_non_null(strstr(why.text, pid));
	fixture_close(f);
	fixture_open(f);
}

static void belongs_to_one(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX");
	f->options.identity = "imap bob@example.org";
	struct mf_reason why = { "" };
	assert_int_equal(reopen(f, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "alice@example.org"));
	char *command = strstr(why.text, "touch '");
	assert_non_null(command);
	*strstr(command, "  To forget") = 0;
	f->c = NULL;
	assert_int_equal(system(command), 0); /* the command that the message names does what it says */
	assert_int_equal(reopen(f, &why), MF_OK);
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, inbox, &m), MF_OK);
	mailbox_finish(&m);
	f->options.identity = "imap bob@Example.ORG"; /* hosts have no case, users may */
	assert_int_equal(reopen(f, &why), MF_OK);
	static const char *const others[] = { "imap Bob@example.org", "imap bob@example.or", "imap bo", "imap alice@example.org" };
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		f->options.identity = others[i];
		assert_int_equal(reopen(f, &why), MF_INVALID);
		f->c = NULL;
	}
}

static void newer_is_left_alone(void **state)
{
	struct fixture *f = *state;
	add_mailbox(f, "INBOX");
	fixture_close(f);
	sql(f, "PRAGMA user_version = 4711");
	size_t before_len, after_len;
	char *before = file_read(db_path(f, ""), &before_len);
	struct mf_reason why = { "" };
	assert_int_equal(cache_open(&f->options, &f->c, &why), MF_NEWER);
	assert_non_null(strstr(why.text, "newer"));
	char *after = file_read(db_path(f, ""), &after_len);
	assert_int_equal(before_len, after_len);
	assert_memory_equal(before, after, before_len);
	free(before);
	free(after);
	assert_int_equal(glob_count(f, ".corrupt-*"), 0);
}

/* the version stands only in the WAL, as after a crash behind a migration */
static void newer_in_the_log_is_left_alone(void **state)
{
	struct fixture *f = *state;
	fixture_close(f);
	pid_t child = fork();
	if (!child) {
		sqlite3 *db;
		if (sqlite3_open(db_path(f, ""), &db) || sqlite3_exec(db, "PRAGMA user_version = 4711", NULL, NULL, NULL))
			_exit(1);
		raise(SIGKILL);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	size_t before_len, after_len, wal_len, wal_after_len;
	char *before = file_read(db_path(f, ""), &before_len), *wal = file_read(db_path(f, "-wal"), &wal_len);
	assert_true(wal_len > 0);
	struct mf_reason why;
	assert_int_equal(cache_open(&f->options, &f->c, &why), MF_NEWER);
	char *after = file_read(db_path(f, ""), &after_len), *wal_after = file_read(db_path(f, "-wal"), &wal_after_len);
	assert_int_equal(before_len, after_len);
	assert_memory_equal(before, after, before_len);
	assert_int_equal(wal_len, wal_after_len);
	assert_memory_equal(wal, wal_after, wal_len);
	free(before);
	free(after);
	free(wal);
	free(wal_after);
}

static void expect_rebuilt(struct fixture *f, uint32_t old_epoch)
{
	struct mf_reason why = { "" };
	enum mf_err e = cache_open(&f->options, &f->c, &why);
	if (e)
		fail_msg("%s: %s", mf_err_name(e), why.text);
	assert_true(cache_is_new(f->c));
	assert_int_not_equal(cache_epoch(f->c), old_epoch);
	assert_int_equal(glob_count(f, ".corrupt-*Z"), 1);
	uint64_t inbox = add_mailbox(f, "INBOX");
	add_message(f, inbox, 1, 1);
	assert_int_equal(list_count(f, inbox), 1);
}

static void overwrite(const char *path, off_t at, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, at), (ssize_t)len);
	close(fd);
}

static void fill(struct fixture *f)
{
	uint64_t inbox = add_mailbox(f, "INBOX");
	struct txn *t = begin(f);
	for (unsigned i = 1; i <= 300; i++)
		put(t, inbox, i, i);
	commit(t);
}

static void garbage_is_put_aside(void **state)
{
	struct fixture *f = *state;
	uint32_t epoch = cache_epoch(f->c);
	fixture_close(f);
	overwrite(db_path(f, ""), 0, "this is not a database at all....", 33);
	expect_rebuilt(f, epoch);
}

static void another_database_is_put_aside(void **state)
{
	struct fixture *f = *state;
	uint32_t epoch = cache_epoch(f->c);
	fixture_close(f);
	unlink(db_path(f, ""));
	sql(f, "CREATE TABLE mailbox (a); INSERT INTO mailbox VALUES (1)");
	expect_rebuilt(f, epoch);
}

static void truncated_is_put_aside(void **state)
{
	struct fixture *f = *state;
	uint32_t epoch = cache_epoch(f->c);
	fill(f);
	fixture_close(f);
	assert_int_equal(truncate(db_path(f, ""), 3 * 4096 + 100), 0);
	expect_rebuilt(f, epoch);
}

/* found while running: told, marked, and settled by the next start */
static void damage_inside_is_settled_by_the_next_start(void **state)
{
	struct fixture *f = *state;
	uint32_t epoch = cache_epoch(f->c);
	fill(f);
	fixture_close(f);
	struct stat st;
	assert_int_equal(stat(db_path(f, ""), &st), 0);
	char noise[4096];
	memset(noise, 0xa5, sizeof noise);
	for (off_t at = 12 * 4096; at < st.st_size; at += 4096)
		overwrite(db_path(f, ""), at, noise, sizeof noise);
	struct mf_reason why = { "" };
	enum mf_err e = cache_open(&f->options, &f->c, &why);
	if (!e) {
		struct uid_id *uids = NULL;
		size_t count = 0;
		struct mailbox m;
		assert_int_equal(cache_mailbox_by_raw(f->c, "INBOX", &m), MF_OK);
		size_t seen = 0;
		enum mf_err first = cache_list(f->c, m.id, 0, count_entry, &seen), second = cache_uids(f->c, m.id, &uids, &count);
		mailbox_finish(&m);
		free(uids);
		assert_true(first == MF_CORRUPT || second == MF_CORRUPT);
		assert_int_equal(glob_count(f, ".damaged"), 1);
		fixture_close(f);
	}
	expect_rebuilt(f, epoch);
	assert_int_equal(glob_count(f, ".damaged"), 0);
}

static void damage_after_a_power_failure_is_found_at_the_start(void **state)
{
	struct fixture *f = *state;
	uint32_t epoch = cache_epoch(f->c);
	fill(f);
	fixture_close(f);
	sql(f, "INSERT INTO meta VALUES ('running', 'another-boot')");
	char noise[4096];
	memset(noise, 0xa5, sizeof noise);
	overwrite(db_path(f, ""), 14 * 4096, noise, sizeof noise);
	expect_rebuilt(f, epoch);
}

/* --- migration ----------------------------------------------------------------------------------------------------------- */

static struct db open_plain(struct fixture *f)
{
	struct db db;
	char path[128];
	snprintf(path, sizeof path, "%s/steps.db", f->dir);
	assert_int_equal(db_open(&db, path, DB_WRITER), MF_OK);
	return db;
}

static int64_t number(struct db *db, const char *text)
{
	int64_t n = -1;
	assert_int_equal(db_number(db, text, &n), MF_OK);
	return n;
}

static void steps_run_in_order_and_once(void **state)
{
	static const struct schema_step old[] = { { 1, "CREATE TABLE a (x); INSERT INTO a VALUES (1)" } };
	static const struct schema_step grown[] = { { 1, "CREATE TABLE a (x); INSERT INTO a VALUES (1)" },
		{ 2, "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1" }, { 4, "CREATE TABLE b AS SELECT y * 10 AS z FROM a" } };
	struct db db = open_plain(*state);
	assert_int_equal(schema_migrate(&db, old, 1), MF_OK);
	assert_int_equal(number(&db, "PRAGMA user_version"), 1);
	assert_int_equal(schema_migrate(&db, grown, 3), MF_OK);
	assert_int_equal(schema_migrate(&db, grown, 3), MF_OK);
	assert_int_equal(number(&db, "PRAGMA user_version"), 4);
	assert_int_equal(number(&db, "SELECT z FROM b"), 20);
	assert_int_equal(number(&db, "SELECT count(*) FROM a"), 1);
	assert_int_equal(schema_migrate(&db, old, 1), MF_NEWER);
	db_close(&db);
}

static void a_step_that_fails_leaves_nothing(void **state)
{
	static const struct schema_step broken[] = { { 1, "CREATE TABLE a (x)" }, { 2, "CREATE TABLE b (x)" }, { 3, "INSERT INTO nowhere VALUES (1)" } };
	struct db db = open_plain(*state);
	assert_int_equal(schema_migrate(&db, broken, 1), MF_OK);
	assert_int_not_equal(schema_migrate(&db, broken, 3), MF_OK);
	assert_int_equal(number(&db, "PRAGMA user_version"), 1);
	assert_int_equal(number(&db, "SELECT count(*) FROM sqlite_schema"), 1);
	db_close(&db);
}

/* --- a full disk ------------------------------------------------------------------------------------------------------------ */

static void full_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX");
	uint64_t first = add_message(f, inbox, 1, 1);
	assert_int_equal(list_count(f, inbox), 1);
	struct rlimit old, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	small = old;
	small.rlim_cur = 300000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	enum mf_err e = MF_OK;
	uint32_t committed = 1;
	for (uint32_t round = 0; round < 100 && !e; round++) {
		struct txn *t = NULL;
		e = cache_begin(f->c, &t);
		if (e)
			break;
		for (uint32_t i = 0; i < 50 && !e; i++) {
			struct test_message m;
			uint64_t id;
			uint32_t n = 2 + round * 50 + i;
			e = txn_message_put(t, message_make(&m, inbox, n, n), &id);
		}
		enum mf_err end = txn_commit(t);
		assert_true(!e || end == e); /* what failed inside fails at the end */
		e = end;
		if (!e)
			committed += 50;
	}
	assert_int_equal(e, MF_NO_SPACE);
	assert_int_equal(list_count(f, inbox), committed); /* readers go on, and see whole transactions */
	struct message m;
	assert_int_equal(cache_message(f->c, first, &m), MF_OK);
	message_finish(&m);
	struct body *b;
	char *large = calloc(1, 400000);
	assert_int_equal(cache_body_create(f->c, first, 400000, &b), MF_OK);
	assert_int_equal(body_write(b, 0, large, 400000), MF_NO_SPACE);
	assert_int_equal(body_finish(b, 400000), MF_PROTOCOL);
	body_unref(b);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(cache_body_create(f->c, first, 400000, &b), MF_OK); /* and when there is room again, it works again */
	assert_int_equal(body_write(b, 0, large, 400000), MF_OK);
	assert_int_equal(body_finish(b, 400000), MF_OK);
	body_unref(b);
	free(large);
	add_message(f, inbox, 90000, 90000);
	assert_int_equal(list_count(f, inbox), committed + 1);
	struct mailbox box;
	assert_int_equal(cache_mailbox(f->c, inbox, &box), MF_OK);
	assert_int_equal(box.total, committed + 1);
	mailbox_finish(&box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(a_new_one_waits_for_no_disk), WITH_CACHE(opens_private_and_survives), WITH_CACHE(notes_survive), WITH_CACHE(is_held_by_one), WITH_CACHE(belongs_to_one),
		WITH_CACHE(newer_is_left_alone), WITH_CACHE(newer_in_the_log_is_left_alone), WITH_CACHE(garbage_is_put_aside),
		WITH_CACHE(another_database_is_put_aside), WITH_CACHE(truncated_is_put_aside),
		WITH_CACHE(damage_inside_is_settled_by_the_next_start), WITH_CACHE(damage_after_a_power_failure_is_found_at_the_start),
		WITH_CACHE(steps_run_in_order_and_once), WITH_CACHE(a_step_that_fails_leaves_nothing), WITH_CACHE(full_disk),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* body: files that describe themselves, ranges on the way, room */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "unit/test_cache_fixture.h"

#include "cache/private.h"
#include "cache/ranges.h"

static void ranges_against_a_model(void **state)
{
	(void)state;
	unsigned seed = 42;
	for (int round = 0; round < 200; round++) {
		struct ranges r = { 0 };
		unsigned char model[128] = { 0 };
		for (int step = 0; step < 30; step++) {
			unsigned begin_at = (unsigned)rand_r(&seed) % 128, len = (unsigned)rand_r(&seed) % 20;
			unsigned end = begin_at + len > 128 ? 128 : begin_at + len;
			ranges_add(&r, begin_at, end);
			for (unsigned i = begin_at; i < end; i++)
				model[i] = 1;
			for (size_t i = 0; i + 1 < r.count; i++)
				assert_true(r.items[i].begin < r.items[i].end && r.items[i].end < r.items[i + 1].begin);
			unsigned a = (unsigned)rand_r(&seed) % 128, b = a + (unsigned)rand_r(&seed) % (128 - a + 1);
			bool all = true;
			for (unsigned i = a; i < b; i++)
				all = all && model[i];
			assert_int_equal(ranges_have(&r, a, b), all);
		}
		ranges_finish(&r);
	}
}

static char *pattern(size_t len)
{
	char *bytes = malloc(len + 1);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 131 + i / 251);
	return bytes;
}

static void path_of_body(const struct fixture *f, uint64_t message, char path[static 256])
{
	char tail[BODY_PATH_MAX];
	body_path(message, tail);
	snprintf(path, 256, "%s/bodies/%08x/%s", f->cache_dir, cache_epoch(f->c), tail);
}

static void assert_bytes(struct body *b, const char *bytes, size_t len)
{
	char *found = malloc(len + 1);
	assert_true(body_is_whole(b));
	assert_int_equal(body_size(b), len);
	assert_int_equal(pread(body_fd(b), found, len, 0), (ssize_t)len);
	assert_memory_equal(found, bytes, len);
	free(found);
}

static void written_in_any_order(void **state)
{
	struct fixture *f = *state;
	enum { LEN = 300000, PART = 10000 };
	char *bytes = pattern(LEN);
	for (uint64_t message = 1; message <= 4; message++) { /* up, down, odd first, the first part again and again */
		struct body *b, *other;
		assert_int_equal(cache_body_get(f->c, message, &b), MF_NOT_FOUND);
		assert_int_equal(cache_body_create(f->c, message, LEN + 5, &b), MF_OK);
		assert_int_equal(cache_body_create(f->c, message, LEN, &other), MF_OK);
		assert_ptr_equal(b, other); /* everybody shares one */
		body_unref(other);
		assert_false(body_is_whole(b));
		assert_false(body_has(b, 0, 1));
		assert_true(body_has(b, 0, 0));
		int parts = LEN / PART;
		for (int i = 0; i < parts; i++) {
			int at = message == 1 ? i : message == 2 ? parts - 1 - i : message == 3 ? (i * 2 + 1 < parts ? i * 2 + 1 : (i - parts / 2) * 2) : i;
			if (i == parts - 1) {
				assert_int_equal(body_finish(b, LEN), MF_PROTOCOL); /* a hole */
				assert_false(body_is_whole(b));
			}
			assert_int_equal(body_write(b, (uint64_t)at * PART, bytes + at * PART, PART), MF_OK);
			assert_true(body_has(b, (uint64_t)at * PART, PART));
			if (message == 4)
				assert_int_equal(body_write(b, 0, bytes, PART), MF_OK);
		}
		assert_false(cache_body_is_cached(f->c, message));
		assert_int_equal(body_finish(b, LEN), MF_OK);
		assert_true(cache_body_is_cached(f->c, message));
		assert_bytes(b, bytes, LEN);
		assert_true(body_has(b, LEN - 1, 100)); /* cut at the end */
		body_unref(b);
	}
	fixture_close(f);
	/* as if the machine had ended: everything is compared with its checksum */
	char command[256];
	snprintf(command, sizeof command, "%s/mailfs.db", f->state);
	sqlite3 *db;
	assert_int_equal(sqlite3_open(command, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "INSERT INTO meta VALUES ('running', 'another-boot')", NULL, NULL, NULL), SQLITE_OK);
	for (int i = 1; i <= 4; i++) {
		snprintf(command, sizeof command, "INSERT INTO message (id, shelf, size, mtime, ctime, flags, keywords, modseq, match, name)"
		         " VALUES (%d, 99, 1, 1, 1, 0, '', 0, 0, '%d')", i, i); /* or they would be orphans */
		assert_int_equal(sqlite3_exec(db, command, NULL, NULL, NULL), SQLITE_OK);
	}
	sqlite3_close(db);
	for (int round = 0; round < 2; round++) {
		fixture_open(f);
		for (uint64_t message = 1; message <= 4; message++) {
			struct body *b;
			assert_int_equal(cache_body_get(f->c, message, &b), MF_OK);
			assert_bytes(b, bytes, LEN);
			body_unref(b);
		}
		fixture_close(f);
	}
	free(bytes);
}

static void an_empty_message(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	assert_int_equal(cache_body_create(f->c, 1, 0, &b), MF_OK);
	assert_int_equal(body_finish(b, 0), MF_OK);
	assert_int_equal(body_finish(b, 0), MF_OK);
	body_unref(b);
	body_unref(NULL);
	assert_int_equal(cache_body_get(f->c, 1, &b), MF_OK);
	assert_int_equal(body_size(b), 0);
	assert_int_equal(body_message(b), 1);
	assert_true(body_has(b, 0, 10));
	body_unref(b);
}

static void shorter_than_expected(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	assert_int_equal(cache_body_create(f->c, 1, 100, &b), MF_OK);
	assert_int_equal(body_size(b), 100);
	assert_int_equal(body_write(b, 0, "0123456789abcdef", 16), MF_OK);
	assert_int_equal(body_finish(b, 10), MF_OK); /* the server had announced more */
	assert_bytes(b, "0123456789", 10);
	body_unref(b);
	assert_true(has_body(f, 1, "0123456789"));
	assert_int_equal(cache_body_create(f->c, 2, 100, &b), MF_OK);
	assert_int_equal(body_write(b, 1ULL << 40, "x", 1), MF_TOO_BIG);
	assert_int_equal(body_write(b, UINT64_MAX, "x", 1), MF_TOO_BIG);
	body_unref(b);
}

/* What completes the size that is expected is sealed at once; whatever comes then, the file is right in the end. */
static void more_after_the_expected_end(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	static const struct { uint64_t message; const char *parts[3]; uint64_t at[3]; const char *whole; } cases[] = {
		{ 1, { "abcd" }, { 0 }, "abcd" },
		{ 2, { "ab", "cd" }, { 0, 2 }, "abcd" },
		{ 3, { "abcd", "efgh" }, { 0, 4 }, "abcdefgh" },
		{ 4, { "abcd", "e" }, { 0, 4 }, "abcde" },
		{ 5, { "abcd" }, { 0 }, "abc" },
		{ 6, { "abcd", "XY" }, { 0, 1 }, "aXYd" },
		{ 7, { "abcd", "WXYZ" }, { 0, 0 }, "WXYZ" },
		{ 8, { "cd", "ab" }, { 2, 0 }, "abcd" },
		{ 9, { "abcd", "gh", "ef" }, { 0, 6, 4 }, "abcdefgh" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint64_t size;
		assert_int_equal(cache_body_create(f->c, cases[i].message, 4, &b), MF_OK);
		for (int k = 0; k < 3 && cases[i].parts[k]; k++)
			assert_int_equal(body_write(b, cases[i].at[k], cases[i].parts[k], strlen(cases[i].parts[k])), MF_OK);
		assert_int_equal(body_finish(b, strlen(cases[i].whole)), MF_OK);
		assert_bytes(b, cases[i].whole, strlen(cases[i].whole));
		body_unref(b);
		assert_true(has_body(f, cases[i].message, cases[i].whole));
		assert_int_equal(cache_body_verify(f->c, cases[i].message, &size), MF_OK);
		assert_int_equal(size, strlen(cases[i].whole));
	}
}

static void abandoned(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	assert_int_equal(cache_body_create(f->c, 1, 4, &b), MF_OK);
	assert_int_equal(body_write(b, 0, "wron", 4), MF_OK);
	body_abandon(b);
	assert_false(body_has(b, 0, 1));
	assert_int_equal(body_finish(b, 4), MF_PROTOCOL);
	assert_int_equal(body_write(b, 0, "good", 4), MF_OK);
	assert_int_equal(body_finish(b, 4), MF_OK);
	body_abandon(b); /* a whole one is out of reach */
	assert_bytes(b, "good", 4);
	body_unref(b);
	assert_true(has_body(f, 1, "good"));
	uint64_t size;
	assert_int_equal(cache_body_create(f->c, 3, 4, &b), MF_OK);
	assert_int_equal(body_write(b, 0, "wron", 4), MF_OK);
	body_abandon(b);
	assert_int_equal(body_write(b, 0, "ok", 2), MF_OK);
	assert_int_equal(body_finish(b, 2), MF_OK);
	body_unref(b);
	assert_int_equal(cache_body_verify(f->c, 3, &size), MF_OK);
	assert_true(has_body(f, 3, "ok"));
	assert_int_equal(cache_body_create(f->c, 2, 4, &b), MF_OK);
	assert_int_equal(body_write(b, 0, "ab", 2), MF_OK);
	body_unref(b);
	assert_int_equal(cache_body_get(f->c, 2, &b), MF_NOT_FOUND); /* what nobody holds is gone */
}

static void dropped_while_open(void **state)
{
	struct fixture *f = *state;
	struct body *b, *partial;
	add_body(f, 1, "still here");
	assert_int_equal(cache_body_get(f->c, 1, &b), MF_OK);
	assert_int_equal(cache_body_create(f->c, 2, 3, &partial), MF_OK);
	cache_body_drop(f->c, 1);
	cache_body_drop(f->c, 2);
	cache_body_drop(f->c, 3);
	assert_bytes(b, "still here", 10);
	assert_false(cache_body_is_cached(f->c, 1));
	struct body *other;
	assert_int_equal(cache_body_get(f->c, 1, &other), MF_NOT_FOUND);
	assert_int_equal(body_write(partial, 0, "abc", 3), MF_OK);
	assert_int_equal(body_finish(partial, 3), MF_OK); /* whole for who has it, but without a name */
	assert_bytes(partial, "abc", 3);
	body_unref(partial);
	body_unref(b);
	assert_false(cache_body_is_cached(f->c, 2));
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.bodies, 0);
	assert_int_equal(totals.body_bytes, 0);
}

static void torn_files_are_never_served(void **state)
{
	struct fixture *f = *state;
	char path[256];
	struct body *b;
	add_body(f, 1, "whole");
	path_of_body(f, 1, path);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	for (off_t len = st.st_size - 1; len >= 0; len -= 3) {
		assert_int_equal(truncate(path, len), 0);
		assert_int_equal(cache_body_get(f->c, 1, &b), MF_NOT_FOUND);
		assert_int_equal(access(path, F_OK), -1); /* and is gone, so that it is fetched again */
		add_body(f, 1, "whole");
	}
	assert_int_equal(truncate(path, st.st_size + 1), 0);
	assert_int_equal(cache_body_get(f->c, 1, &b), MF_NOT_FOUND);
	assert_int_equal(unlink(path), -1);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	assert_int_not_equal(cache_body_get(f->c, 1, &b), MF_OK);
	add_body(f, 1, "whole");
	assert_true(has_body(f, 1, "whole"));
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.bodies, 1);
}

static void what_has_the_name_is_replaced(void **state)
{
	struct fixture *f = *state;
	char path[256];
	struct cache_totals totals;
	add_body(f, 1, "as it was");
	add_body(f, 2, "as it is");
	path_of_body(f, 2, path);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(bodies_import(f->c, 1, fd, strlen("as it is")), MF_OK);
	close(fd);
	assert_true(has_body(f, 1, "as it is"));
	cache_totals(f->c, &totals);
	assert_int_equal(totals.bodies, 2);
	assert_int_equal(totals.body_bytes, 2 * (strlen("as it is") + 24));
}

static void flip_byte(const char *path)
{
	int fd = open(path, O_RDWR);
	char byte;
	assert_int_equal(pread(fd, &byte, 1, 2), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 2), 1);
	close(fd);
}

static void compared_after_a_power_failure(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), good = add_message(f, inbox, 1, 1), bad = add_message(f, inbox, 2, 2);
	uint64_t redone = add_message(f, inbox, 3, 3);
	char path[256];
	struct body *b;
	/* the checksum is of what was written last, however it came to be there */
	assert_int_equal(cache_body_create(f->c, redone, 8, &b), MF_OK);
	assert_int_equal(body_write(b, 0, "wrongbad", 8), MF_OK);
	body_abandon(b);
	assert_int_equal(body_write(b, 0, "righttoo", 8), MF_OK);
	assert_int_equal(body_write(b, 0, "fine", 4), MF_OK);
	assert_int_equal(body_finish(b, 8), MF_OK);
	body_unref(b);
	add_body(f, good, "good bytes");
	add_body(f, bad, "bad bytes!");
	path_of_body(f, bad, path);
	fixture_close(f);
	sqlite3 *db;
	char db_path[256];
	snprintf(db_path, sizeof db_path, "%s/mailfs.db", f->state);
	assert_int_equal(sqlite3_open(db_path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "INSERT INTO meta VALUES ('running', 'another-boot')", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	flip_byte(path);
	fixture_open(f);
	assert_true(has_body(f, redone, "finettoo"));
	assert_int_equal(cache_body_get(f->c, bad, &b), MF_NOT_FOUND);
	assert_true(has_body(f, good, "good bytes"));
	/* compared once: now it is trusted again */
	path_of_body(f, good, path);
	flip_byte(path);
	assert_int_equal(cache_body_get(f->c, good, &b), MF_OK);
	body_unref(b);
}

static void *scan(void *context)
{
	bodies_scan(((struct fixture *)context)->c);
	return NULL;
}

/* An eviction that finds too little counts anew, too, while the start still does. */
static void counted_by_two(void **state)
{
	struct fixture *f = *state;
	struct bodies *b = &f->c->bodies;
	uint64_t inbox = add_mailbox(f, "INBOX");
	struct cache_totals before, after;
	for (uint32_t uid = 1; uid <= 600; uid++)
		add_body(f, add_message(f, inbox, uid, uid), "some bytes");
	cache_totals(f->c, &before);
	assert_int_equal(before.bodies, 600);
	memset(b->count, 0, sizeof b->count);
	memset(b->bytes, 0, sizeof b->bytes);
	b->counted = false;
	pthread_t threads[2];
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, scan, f), 0);
	for (size_t i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	cache_totals(f->c, &after);
	assert_int_equal(after.bodies, before.bodies);
	assert_int_equal(after.body_bytes, before.body_bytes);
}

#define LONG (48U << 20)    /* compared for some 50 ms */

static void *get_long(void *context)
{
	struct fixture *f = context;
	struct body *b = NULL;
	return cache_body_get(f->c, 1, &b) == MF_OK ? b : NULL;
}

/* Who had opened its file before, and comes with it when the message has other bytes, does not give them to others. */
static void overwritten_while_it_is_compared(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	pthread_t thread;
	char *bytes = pattern(LONG);
	assert_int_equal(cache_body_create(f->c, 1, LONG, &b), MF_OK);
	assert_int_equal(body_write(b, 0, bytes, LONG), MF_OK);
	assert_int_equal(body_finish(b, LONG), MF_OK);
	body_unref(b);
	free(bytes);
	f->c->bodies.trust++;
	assert_int_equal(pthread_create(&thread, NULL, get_long, f), 0);
	usleep(5000);
	cache_body_drop(f->c, 1);
	add_body(f, 1, "new");
	void *early;
	pthread_join(thread, &early);
	assert_int_equal(cache_body_get(f->c, 1, &b), MF_OK);
	assert_bytes(b, "new", 3);
	body_unref(b);
	body_unref(early);
}

static void verified_on_demand(void **state)
{
	struct fixture *f = *state;
	char path[256];
	uint64_t size = 0;
	add_body(f, 1, "some bytes");
	assert_int_equal(cache_body_verify(f->c, 1, &size), MF_OK);
	assert_int_equal(size, 10);
	assert_int_equal(cache_body_verify(f->c, 2, &size), MF_NOT_FOUND);
	path_of_body(f, 1, path);
	flip_byte(path);
	assert_int_equal(cache_body_verify(f->c, 1, &size), MF_CORRUPT);
	assert_int_equal(cache_body_verify(f->c, 1, &size), MF_NOT_FOUND);
}

static void the_folder_is_cleared_while_running(void **state)
{
	struct fixture *f = *state;
	for (int named = 0; named < 2; named++) {
		atomic_store(&f->c->bodies.named_temporaries, named != 0);
		struct body *before, *during;
		add_body(f, 1, "one");
		assert_int_equal(cache_body_get(f->c, 1, &before), MF_OK);
		assert_int_equal(cache_body_create(f->c, 2, 6, &during), MF_OK);
		assert_int_equal(body_write(during, 0, "abc", 3), MF_OK);
		char command[256];
		snprintf(command, sizeof command, "rm -rf '%s/cache'", f->dir);
		assert_int_equal(system(command), 0);
		assert_bytes(before, "one", 3);
		assert_false(cache_body_is_cached(f->c, 3));
		struct body *b;
		assert_int_equal(cache_body_get(f->c, 3, &b), MF_NOT_FOUND);
		cache_body_drop(f->c, 3);
		add_body(f, 3, "three");
		assert_int_equal(body_write(during, 3, "def", 3), MF_OK);
		assert_int_equal(body_finish(during, 6), MF_OK);
		body_unref(during);
		body_unref(before);
		assert_true(has_body(f, 2, "abcdef"));
		assert_true(has_body(f, 3, "three"));
		assert_int_equal(cache_body_get(f->c, 1, &b), MF_NOT_FOUND);
		assert_int_equal(system(command), 0);
		cache_body_evict(f->c, NULL, NULL);
	}
}

static size_t temporaries(const struct fixture *f)
{
	char path[256];
	snprintf(path, sizeof path, "%s/bodies/%08x/tmp", f->cache_dir, cache_epoch(f->c));
	DIR *d = opendir(path);
	size_t count = 0;
	const struct dirent *e;
	while (d && (e = readdir(d)))
		count += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return count;
}

static void where_there_are_no_unnamed_files(void **state)
{
	struct fixture *f = *state;
	atomic_store(&f->c->bodies.named_temporaries, true);
	struct body *b;
	assert_int_equal(cache_body_create(f->c, 1, 3, &b), MF_OK);
	assert_int_equal(temporaries(f), 1);
	assert_int_equal(body_write(b, 0, "abc", 3), MF_OK);
	assert_int_equal(body_finish(b, 3), MF_OK);
	assert_int_equal(temporaries(f), 0);
	body_unref(b);
	assert_true(has_body(f, 1, "abc"));
	assert_int_equal(cache_body_create(f->c, 2, 3, &b), MF_OK);
	body_unref(b);
	assert_int_equal(temporaries(f), 0);
}

/* waits for what the background thread does; gives up after ten seconds */
static void wait_until(struct fixture *f, bool (*is_so)(struct fixture *))
{
	for (int i = 0; i < 60000 && !is_so(f); i++)
		usleep(1000);
	assert_true(is_so(f));
}

static char leftover[3][256];

static bool leftovers_are_gone(struct fixture *f)
{
	(void)f;
	return access(leftover[0], F_OK) && access(leftover[1], F_OK) && access(leftover[2], F_OK);
}

/* Called before the next temporary file is made: between the look for a body and the making of an empty one. */
static void (*before_temporary)(struct fixture *f);
static struct fixture *before_temporary_fixture;

int opened_through_here(int dir, const char *path, int flags, ...) __asm__("openat64");
int opened_through_here(int dir, const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);
	void (*hook)(struct fixture *) = (flags & O_TMPFILE) == O_TMPFILE || flags & O_EXCL ? before_temporary : NULL;
	if (hook) {
		before_temporary = NULL;
		hook(before_temporary_fixture);
	}
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

static void it_comes(struct fixture *f)
{
	add_body(f, 1, "it came");
}

static void it_comes_and_goes(struct fixture *f)
{
	add_body(f, 1, "it came");
	cache_body_drop(f->c, 1);
}

static void it_becomes_whole_while_it_is_opened(void **state)
{
	struct fixture *f = *state;
	struct body *b;
	before_temporary_fixture = f;
	before_temporary = it_comes_and_goes;
	assert_int_equal(cache_body_create(f->c, 1, 3, &b), MF_OK);
	assert_null(before_temporary);
	assert_false(body_is_whole(b));
	body_unref(b);
	before_temporary = it_comes;
	assert_int_equal(cache_body_create(f->c, 1, 3, &b), MF_OK);
	assert_null(before_temporary);
	assert_bytes(b, "it came", 7); /* not an empty one beside it, to be fetched again */
	body_unref(b);
}

static void what_is_left_over_goes(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1);
	add_body(f, id, "kept");
	add_body(f, 4000, "of no message");
	char command[1000];
	snprintf(leftover[0], sizeof leftover[0], "%s/bodies/0badcafe", f->cache_dir);
	snprintf(leftover[1], sizeof leftover[1], "%s/bodies/%08x/tmp/1-1", f->cache_dir, cache_epoch(f->c));
	path_of_body(f, 4000, leftover[2]);
	snprintf(command, sizeof command, "mkdir -p '%s/00' && touch '%s/00/7' '%s'", leftover[0], leftover[0], leftover[1]);
	assert_int_equal(system(command), 0);
	fixture_close(f);
	sqlite3 *db; /* an unclean stop on this boot: the bodies are counted anew */
	snprintf(command, sizeof command, "%s/mailfs.db", f->state);
	assert_int_equal(sqlite3_open(command, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "INSERT INTO meta VALUES ('running', 'x'); UPDATE meta SET value = 99 WHERE key = 'bodies'", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	fixture_open(f);
	wait_until(f, leftovers_are_gone);
	assert_true(has_body(f, id, "kept"));
	for (int i = 0; i < 60000; i++) {
		struct cache_totals totals;
		cache_totals(f->c, &totals);
		if (totals.bodies == 1)
			return;
		usleep(1000);
	}
	fail_msg("never counted");
}

static bool keep_some(void *context, uint64_t message)
{
	(void)context;
	return message == 2;
}

static void the_least_recently_used_go_first(void **state)
{
	struct fixture *f = *state;
	f->options.body_limit = 10000;
	fixture_close(f);
	fixture_open(f);
	char text[1001];
	memset(text, 'x', 1000);
	text[1000] = 0;
	struct body *held = NULL;
	for (uint64_t i = 1; i <= 12; i++) {
		add_body(f, i, text);
		char path[256];
		path_of_body(f, i, path);
		struct timespec times[2] = { { .tv_sec = (time_t)(1600000000 + i) }, { .tv_sec = (time_t)(1600000000 + i) } };
		if (i != 1) /* the first one was used last */
			assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
		if (i == 3)
			assert_int_equal(cache_body_get(f->c, i, &held), MF_OK), assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	}
	struct body *b;
	assert_int_equal(cache_body_get(f->c, 5, &b), MF_OK); /* a use */
	body_unref(b);
	cache_body_evict(f->c, keep_some, NULL);
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_true(totals.body_bytes <= 9500);
	assert_int_equal(totals.bodies, 9);
	bool expected[13] = { false, true, true, true, false, true, false, false, true, true, true, true, true };
	for (uint64_t i = 1; i <= 12; i++)
		assert_int_equal(cache_body_is_cached(f->c, i), expected[i]);
	cache_body_evict(f->c, keep_some, NULL);
	cache_totals(f->c, &totals);
	assert_int_equal(totals.bodies, 9);
	body_unref(held);
}

static bool keep_all(void *context, uint64_t message)
{
	(void)message;
	++*(unsigned *)context;
	return true;
}

static void pinned_bodies_are_not_asked_for_again_and_again(void **state)
{
	struct fixture *f = *state;
	f->options.body_limit = 10;
	f->options.body_min_free = UINT64_MAX / 4;
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(add_message(f, add_mailbox(f, "INBOX"), 1, 1), 1);
	add_body(f, 1, "more than ten bytes");
	unsigned asked = 0;
	cache_body_evict(f->c, keep_all, &asked);
	cache_body_evict(f->c, keep_all, &asked);
	assert_int_equal(asked, 1);
	clock_skew_for_tests(61000);
	cache_body_evict(f->c, keep_all, &asked);
	clock_skew_for_tests(-61000);
	assert_int_equal(asked, 2);
	assert_true(cache_body_is_cached(f->c, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_against_a_model), WITH_CACHE(written_in_any_order), WITH_CACHE(an_empty_message),
		WITH_CACHE(shorter_than_expected), WITH_CACHE(more_after_the_expected_end), WITH_CACHE(abandoned), WITH_CACHE(dropped_while_open), WITH_CACHE(torn_files_are_never_served),
		WITH_CACHE(what_has_the_name_is_replaced),
		WITH_CACHE(compared_after_a_power_failure), WITH_CACHE(counted_by_two), WITH_CACHE(overwritten_while_it_is_compared), WITH_CACHE(verified_on_demand), WITH_CACHE(the_folder_is_cleared_while_running),
		WITH_CACHE(where_there_are_no_unnamed_files), WITH_CACHE(it_becomes_whole_while_it_is_opened),
		WITH_CACHE(what_is_left_over_goes), WITH_CACHE(the_least_recently_used_go_first),
		WITH_CACHE(pinned_bodies_are_not_asked_for_again_and_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

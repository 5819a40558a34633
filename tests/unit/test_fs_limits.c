/* What a server is known not to take, or not to permit, is told by the call itself; and what reading does to a message.
 * The tree mounted with the memory back-end behind it, as in test_fs_mount.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>

static char world_root[] = "/tmp/mailfs-limits-XXXXXX";

#pragma GCC diagnostic ignored "-Wunused-function" /* the hands can do more than is needed here */
#include "base/log.h"
#include "cache/journal.h"
#include "support/fs_works.h"
#include "support/fs_world.h"
#include "sync/remote.h"

#define LIMIT 20000
#define CLOSING 1000   /* what close(2) said, beyond the errno of write(2) */

/* "SIZE PATH": a message of so many bytes, in pieces, with what write(2) or close(2) says */
static int64_t do_store(const char *argument, char *data, size_t *ret_len)
{
	(void)ret_len;
	int at = 0;
	size_t size;
	if (sscanf(argument, "%zu %n", &size, &at) != 1 || size > HANDS_MAX)
		return -ENOTRECOVERABLE;
	size_t len = (size_t)snprintf(data, HANDS_MAX, "Subject: %zu bytes\r\n\r\n", size);
	for (; len < size; len++)
		data[len] = 'x';
	int fd = open(argument + at, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int64_t result = 0;
	for (size_t done = 0; done < size && !result; done += 4096)
		result = pwrite(fd, data + done, size - done < 4096 ? size - done : 4096, (off_t)done) < 0 ? -errno : 0;
	if (close(fd) < 0 && !result)
		result = -errno - CLOSING;
	return result;
}

static int64_t store(struct world *w, size_t size, const char *name)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "%zu %s", size, world_path(w, name));
	return hands(do_store, argument);
}

static int64_t size_of(struct world *w, const char *name)
{
	int64_t result = hands(do_stat, world_path(w, name));
	return result < 0 ? result : ((const struct stat *)(const void *)hands_last.data)->st_size;
}

static void wait_settled(struct world *w)
{
	world_until(journal_count(w->cache) == 0);
}

static void rename_to(struct world *w, const char *from, int expected)
{
	int64_t result = hands(do_rename, world_path(w, from)); /* to FROM.new */
	assert_int_equal(result, expected);
}

/* --- APPENDLIMIT ----------------------------------------------------------------------------------------------------- */

static void fill_limit(struct memory_server *s)
{
	memory_mailbox_add(s, "Archive", 0, USE_ARCHIVE);
	memory_tell_append_limit(s, "INBOX", LIMIT);
}

static void test_too_large(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_limit);
	assert_int_equal(store(&w, LIMIT, "INBOX/fits.eml"), 0);
	assert_int_equal(store(&w, LIMIT + 1, "INBOX/large.eml"), -EFBIG);
	world_until(size_of(&w, "INBOX/large.eml") == -ENOENT);
	/* all that was written until then, the refused piece with it */
	world_until(size_of(&w, ".mailfs/rejected/large.eml") == LIMIT + 1);
	assert_true(size_of(&w, ".mailfs/rejected/large.eml.reason.txt") > 0);
	/* each mailbox has its own */
	assert_int_equal(store(&w, LIMIT + 1, "Archive/large.eml"), 0);
	wait_settled(&w);
	/* a message that is overwritten with too much stays as it was */
	assert_int_equal(store(&w, LIMIT * 2, "INBOX/fits.eml"), -EFBIG);
	world_until(size_of(&w, "INBOX/fits.eml") == LIMIT);
	assert_int_equal(journal_count(w.cache), 0);
	world_finish(&w);
}

static void test_too_large_under_another_name(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_limit);
	/* scratch files are nobody's business but ours */
	assert_int_equal(store(&w, LIMIT + 1, "INBOX/large.tmp"), 0);
	rename_to(&w, "INBOX/large.tmp", -EFBIG);
	assert_int_equal(size_of(&w, "INBOX/large.tmp"), LIMIT + 1);
	world_finish(&w);
}

/* CRLF makes it longer than what was written: only close can tell */
static int64_t do_store_lines(const char *path, char *data, size_t *ret_len)
{
	(void)ret_len;
	size_t len = (size_t)snprintf(data, HANDS_MAX, "Subject: lines\n\n");
	for (; len < LIMIT; len++)
		data[len] = '\n';
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, len) != (ssize_t)len)
		return -errno;
	return close(fd) < 0 ? -errno - CLOSING : 0;
}

static void test_too_large_at_close(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_limit);
	assert_int_equal(hands(do_store_lines, world_path(&w, "INBOX/lines.eml")), -EFBIG - CLOSING);
	world_until(size_of(&w, ".mailfs/rejected/lines.eml") == LIMIT);
	world_until(size_of(&w, "INBOX/lines.eml") == -ENOENT);
	world_finish(&w);
}

/* What was told is remembered, and followed where it changes. */
static void test_limit_is_remembered(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_limit);
	world_unmount(&w);
	world_close(&w);
	memory_login_result(w.server, MF_OFFLINE);
	struct mf_reason why;
	w.bus = bus_create();
	struct cache_options options = { .state_dir = w.state, .cache_dir = w.bodies, .identity = "memory", .bus = w.bus };
	assert_int_equal(cache_open(&options, &w.cache, &why), MF_OK);
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_raw(w.cache, "INBOX", &m), MF_OK);
	assert_int_equal(m.append_limit, LIMIT);
	mailbox_finish(&m);
	cache_close(w.cache);
	bus_destroy(w.bus);
	memory_login_result(w.server, MF_OK);
	memory_tell_append_limit(w.server, "INBOX", 0);
	world_open(&w);
	world_mount(&w);
	assert_int_equal(store(&w, LIMIT + 1, "INBOX/large.eml"), 0);
	wait_settled(&w);
	world_finish(&w);
}

/* --- the quota --------------------------------------------------------------------------------------------------------- */

static void fill_quota(struct memory_server *s)
{
	memory_mailbox_add(s, "Shared", MAILBOX_OTHERS, USE_NONE);
	memory_quota(s, 90000, 100000);
}

static bool quota_says(struct world *w, uint64_t used)
{
	struct quota quota;
	return account_quota(w->account, &quota) && quota.used == used;
}

static void test_over_quota(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_quota);
	world_until(quota_says(&w, 90000));
	assert_int_equal(store(&w, 10001, "INBOX/large.eml"), -EDQUOT);
	world_until(size_of(&w, "INBOX/large.eml") == -ENOENT);
	assert_int_equal(size_of(&w, ".mailfs/rejected/large.eml"), 10001);
	/* what was stored counts, once the server has it */
	assert_int_equal(store(&w, 10000, "INBOX/fits.eml"), 0);
	wait_settled(&w);
	world_until(quota_says(&w, 100000));
	assert_int_equal(store(&w, 100, "INBOX/small.eml"), -EDQUOT);
	/* another client makes room: who is refused makes us ask */
	memory_quota(w.server, 0, 100000);
	world_until(store(&w, 100, "INBOX/small.eml") == 0);
	wait_settled(&w);
	world_finish(&w);
}

/* The quota that was told is this account's own. */
static void test_quota_of_others(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_quota);
	world_until(quota_says(&w, 90000));
	assert_int_equal(store(&w, 20000, "Shared/large.eml"), 0);
	world_finish(&w);
}

/* --- mark-seen = read ------------------------------------------------------------------------------------------------- */

static const char letter[] = "Subject: one\r\nMessage-ID: <one@x>\r\n\r\ntext\r\n";

static void fill_letter(struct memory_server *s)
{
	memory_deliver(s, "INBOX", letter, sizeof letter - 1, 1795000000, 0);
}

static const char *the_letter(struct world *w)
{
	char name[600];
	assert_true(hands(do_list, world_path(w, "INBOX")) == 3);
	hands_last.data[hands_last.len] = '\0';
	const char *at = strstr(hands_last.data, "1970-"), *end = at ? at : strstr(hands_last.data, "20");
	snprintf(name, sizeof name, "INBOX/%.*s", (int)strcspn(end, "\n"), end);
	return world_path(w, name);
}

static bool has_flags(const char *path, const char *expected)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "user.mail.flags %s", path);
	return hands(do_getxattr, argument) >= 0 && strcmp(hands_last.data, expected) == 0;
}

static void start_marking(struct world *w, bool mark, bool read_only)
{
	world_start_as(w, fill_letter, read_only);
	world_unmount(w);
	world_close(w);
	w->mark_seen = mark;
	world_open(w);
	world_mount(w);
}

static void test_reading_marks(void **state)
{
	(void)state;
	struct world w;
	start_marking(&w, true, false);
	const char *path = the_letter(&w);
	/* neither looking at it nor opening it */
	assert_int_equal(hands(do_stat, path), 0);
	assert_true(hands(do_keep, path) >= 0);
	assert_true(has_flags(path, ""));
	assert_int_equal(hands(do_read_kept, ""), sizeof letter - 1);
	assert_true(has_flags(path, "\\Seen"));
	hands(do_close_kept, "");
	wait_settled(&w);
	/* what a person takes back is given again when it is read again, out of the kernel's cache or not */
	char argument[4096];
	snprintf(argument, sizeof argument, "user.mail.flags=-\\Seen %s", path);
	assert_int_equal(hands(do_setxattr, argument), 0);
	assert_true(has_flags(path, ""));
	assert_int_equal(hands(do_read, path), sizeof letter - 1);
	assert_true(has_flags(path, "\\Seen"));
	wait_settled(&w);
	world_finish(&w);
}

static void populated(void *context, enum mf_err result)
{
	(void)result;
	sem_post(context);
}

static void test_what_does_not_mark(void **state)
{
	(void)state;
	struct world w;
	start_marking(&w, true, false);
	const char *path = the_letter(&w);
	/* mailfs' own reading */
	enum mf_err result;
	struct want *want;
	sem_t over;
	sem_init(&over, 0, 0);
	if (!account_want_sync(w.account, NULL, 0, true, populated, &over, &result, &want))
		sem_wait(&over);
	sem_destroy(&over);
	assert_int_equal(memory_messages_fetched(w.server), 1);
	assert_true(has_flags(path, ""));
	assert_int_equal(journal_count(w.cache), 0);
	world_finish(&w);
	/* a mount that changes nothing, and the default */
	for (int i = 0; i < 2; i++) {
		start_marking(&w, i == 0, i == 0);
		path = the_letter(&w);
		assert_int_equal(hands(do_read, path), sizeof letter - 1);
		assert_true(has_flags(path, ""));
		assert_int_equal(journal_count(w.cache), 0);
		world_finish(&w);
	}
}

/* A window of a header is not the message; the end of one that is all header is. */
static int64_t do_read_direct(const char *path, char *data, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_DIRECT);
	ssize_t n = fd < 0 ? -1 : pread(fd, data, 20, 0);
	*ret_len = n > 0 ? (size_t)n : 0;
	int64_t result = outcome(n);
	if (fd >= 0)
		close(fd);
	return result;
}

static void test_header_alone(void **state)
{
	(void)state;
	struct world w;
	start_marking(&w, true, false);
	const char *path = the_letter(&w);
	assert_int_equal(hands(do_read_direct, path), 20);
	assert_true(has_flags(path, ""));
	assert_int_equal(hands(do_read, path), sizeof letter - 1);
	assert_true(has_flags(path, "\\Seen"));
	world_finish(&w);
}

/* --- MYRIGHTS ----------------------------------------------------------------------------------------------------------- */

static void fill_rights(struct memory_server *s)
{
	static const char *const boxes[][2] = { { "Read", "lrs" }, { "Drop", "lip" }, { "All", "lrswipkxtea" }, { "Prune", "lrte" } };
	for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
		memory_mailbox_add(s, boxes[i][0], 0, USE_NONE);
		memory_deliver(s, boxes[i][0], letter, sizeof letter - 1, 1795000000, 0);
		memory_rights(s, boxes[i][0], boxes[i][1]);
	}
	memory_mailbox_add(s, "Read/Within", 0, USE_NONE);
	memory_mailbox_add(s, "Trash", 0, USE_TRASH);
}

static mode_t mode_of(struct world *w, const char *name)
{
	assert_int_equal(hands(do_stat, world_path(w, name)), 0);
	return ((const struct stat *)(const void *)hands_last.data)->st_mode & 07777;
}

/* the path of the one message there */
static const char *letter_in(struct world *w, const char *mailbox)
{
	char name[800];
	assert_true(hands(do_list, world_path(w, mailbox)) >= 3);
	hands_last.data[hands_last.len] = '\0';
	const char *at = strstr(hands_last.data, "_one_");
	assert_non_null(at);
	while (at > hands_last.data && at[-1] != '\n')
		at--;
	snprintf(name, sizeof name, "%s/%.*s", mailbox, (int)strcspn(at, "\n"), at);
	return world_path(w, name);
}

static int64_t set_flags(const char *path, const char *flags)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "user.mail.flags=%s %s", flags, path);
	return hands(do_setxattr, argument);
}

/* "TO FROM" */
static int64_t do_move(const char *argument, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	char to[2048];
	int at = 0;
	if (sscanf(argument, "%2047s %n", to, &at) != 1)
		return -ENOTRECOVERABLE;
	return outcome(rename(argument + at, to));
}

static int64_t move(struct world *w, const char *from, const char *to)
{
	char argument[8192];
	snprintf(argument, sizeof argument, "%s %s", world_path(w, to), from);
	return hands(do_move, argument);
}

static void start_with_rights(struct world *w)
{
	world_start(w, fill_rights);
	world_until(mode_of(w, "Read") == 0500 && mode_of(w, "Drop") == 0300 && mode_of(w, "All") == 0700 && mode_of(w, "Prune") == 0700);
}

static void test_no_right_is_told_at_once(void **state)
{
	(void)state;
	struct world w;
	start_with_rights(&w);
	char path[2048];
	snprintf(path, sizeof path, "%s", letter_in(&w, "Read"));
	assert_int_equal(mode_of(&w, "Trash"), 0700); /* of which nothing was told */
	static hands_work *const changes[] = { do_unlink, do_open_write, do_truncate, do_rename };
	for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
		assert_int_equal(hands(changes[i], path), -EACCES);
	assert_int_equal(move(&w, path, "Trash/x.eml"), -EACCES);
	assert_int_equal(store(&w, 100, "Read/new.eml"), -EACCES);
	assert_int_equal(hands(do_mkdir, world_path(&w, "Read/new")), -EACCES);
	assert_int_equal(hands(do_rmdir, world_path(&w, "Read/Within")), geteuid() == 0 ? 0 : -EACCES); /* its own rights count, but for the kernel */
	assert_int_equal(hands(do_rename, world_path(&w, "Read")), -EACCES);
	assert_int_equal(set_flags(path, "+\\Flagged"), -EACCES);
	assert_int_equal(set_flags(path, "+\\Deleted"), -EACCES);
	assert_int_equal(set_flags(path, "+\\Seen"), 0);
	wait_settled(&w);
	/* what may be removed need not be writable */
	snprintf(path, sizeof path, "%s", letter_in(&w, "Prune"));
	assert_int_equal(hands(do_open_write, path), -EACCES);
	assert_int_equal(store(&w, 100, "Prune/new.eml"), -EACCES);
	assert_int_equal(hands(do_rmdir, world_path(&w, "Prune")), -EACCES);
	assert_int_equal(hands(do_unlink, path), 0);
	wait_settled(&w);
	world_finish(&w);
}

static void test_what_may_be_put_and_not_read(void **state)
{
	(void)state;
	struct world w;
	start_with_rights(&w);
	assert_int_equal(hands(do_list, world_path(&w, "Drop")), -EACCES);
	assert_int_equal(store(&w, 100, "Drop/new.eml"), 0);
	wait_settled(&w);
	assert_int_equal(move(&w, letter_in(&w, "All"), "Drop/moved.eml"), 0);
	wait_settled(&w);
	world_finish(&w);
}

static void test_rights_change(void **state)
{
	(void)state;
	struct world w;
	start_with_rights(&w);
	memory_rights(w.server, "Read", "lrswite");
	memory_rights(w.server, "All", "lr");
	for (int i = 0; i < 2; i++) {
		struct mailbox m;
		struct want *want;
		enum mf_err result;
		sem_t over;
		sem_init(&over, 0, 0);
		assert_int_equal(cache_mailbox_by_raw(w.cache, i ? "All" : "Read", &m), MF_OK);
		if (!account_want_sync(w.account, &m.id, 1, false, populated, &over, &result, &want))
			sem_wait(&over);
		mailbox_finish(&m);
		sem_destroy(&over);
	}
	/* the kernel is told */
	world_until(mode_of(&w, "Read") == 0700 && mode_of(&w, "All") == 0500);
	assert_int_equal(store(&w, 100, "Read/new.eml"), 0);
	assert_int_equal(store(&w, 100, "All/new.eml"), -EACCES);
	wait_settled(&w);
	world_finish(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_too_large), cmocka_unit_test(test_too_large_under_another_name), cmocka_unit_test(test_too_large_at_close),
		cmocka_unit_test(test_limit_is_remembered),
		cmocka_unit_test(test_over_quota), cmocka_unit_test(test_quota_of_others),
		cmocka_unit_test(test_reading_marks), cmocka_unit_test(test_what_does_not_mark), cmocka_unit_test(test_header_alone),
		cmocka_unit_test(test_no_right_is_told_at_once), cmocka_unit_test(test_what_may_be_put_and_not_read), cmocka_unit_test(test_rights_change),
	};
	if (!world_begin(argc, argv))
		return 0;
	int result = cmocka_run_group_tests(tests, NULL, NULL);
	world_end();
	return result;
}

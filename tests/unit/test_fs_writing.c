/* What is written on a full disk, and messages under scratch names: through the tree mounted with the memory back-end behind it, as
 * in test_fs_mount.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static char world_root[] = "/tmp/mailfs-writing-XXXXXX";

#pragma GCC diagnostic ignored "-Wunused-function" /* the hands can do more than is needed here */
#include "base/log.h"
#include "cache/journal.h"
#include "fs/internal.h"
#include "support/fs_works.h"
#include "support/fs_world.h"
#include "sync/remote.h"

static const char text[] = "From: Alice <alice@example.org>\r\nSubject: one\r\nMessage-ID: <one@x>\r\n\r\nfirst\r\n";

static void fill(struct memory_server *s)
{
	memory_deliver(s, "INBOX", text, sizeof text - 1, 1795000000, 0);
	memory_mailbox_add(s, "Archive", 0, USE_ARCHIVE);
	memory_mailbox_add(s, "Trash", 0, USE_TRASH);
}

static void go_offline(struct world *w)
{
	struct link_info link;
	memory_login_result(w->server, MF_OFFLINE);
	memory_drop_sessions(w->server);
	world_until((account_link(w->account, &link), link.state == LINK_OFFLINE));
}

/* "FROM TO", below the mount: hands know one argument */
static int64_t do_move(const char *argument, char *data, size_t *ret_len)
{
	char from[2048], to[2048];
	(void)data, (void)ret_len;
	if (sscanf(argument, "%2047s %2047s", from, to) != 2)
		return -ENOTRECOVERABLE;
	return rename(from, to) < 0 ? -errno : 0;
}

static int64_t move(struct world *w, const char *from, const char *to)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "%s %s", world_path(w, from), world_path(w, to));
	return hands(do_move, argument);
}

/* the one message in INBOX */
static const char *letter(struct world *w)
{
	static char name[512];
	assert_true(hands(do_list, world_path(w, "INBOX")) >= 1);
	hands_last.data[hands_last.len] = 0;
	char *end = strstr(hands_last.data, ".eml");
	assert_non_null(end);
	char *start = end;
	while (start > hands_last.data && start[-1] != '\n')
		start--;
	snprintf(name, sizeof name, "INBOX/%.*s.eml", (int)(end - start), start);
	return name;
}

/* "SIZE PATH": a message of so many bytes over what is there; what close(2) said where write(2) said ENOSPC, else 1 */
static int64_t do_overwrite(const char *argument, char *data, size_t *ret_len)
{
	(void)ret_len;
	int at = 0;
	size_t size;
	if (sscanf(argument, "%zu %n", &size, &at) != 1 || size > HANDS_MAX)
		return -ENOTRECOVERABLE;
	memset(data, 'x', size);
	memcpy(data, "Subject: two\r\n\r\n", 16);
	int fd = open(argument + at, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	bool full = false;
	for (size_t done = 0; done < size && !full; done += 4096)
		full = pwrite(fd, data + done, 4096, (off_t)done) < 0 && errno == ENOSPC;
	int64_t closed = close(fd) < 0 ? -errno : 0;
	return full ? closed : 1;
}

static int64_t size_of(struct world *w, const char *name)
{
	int64_t result = hands(do_stat, world_path(w, name));
	return result < 0 ? result : ((const struct stat *)(const void *)hands_last.data)->st_size;
}

/* Half of a message is none: the close fails behind the write, the message is as it was, and the half is put aside. */
static void test_full_disk(void **state)
{
	(void)state;
	struct world w;
	char argument[4096];
	world_start(&w, fill);
	const char *name = letter(&w);
	struct rlimit old, small;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	small = old;
	snprintf(argument, sizeof argument, "%zu %s", (size_t)65536, world_path(&w, name));
	small.rlim_cur = 32768;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int64_t closed = hands(do_overwrite, argument);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(closed, -ENOSPC);
	world_until(size_of(&w, name) == sizeof text - 1);
	assert_int_equal(journal_count(w.cache), 0);
	char rejected[700];
	snprintf(rejected, sizeof rejected, ".mailfs/rejected/%s", strchr(name, '/') + 1);
	world_until(size_of(&w, rejected) == 32768);
	world_finish(&w);
}

static bool is_move(void *context, const struct op *op)
{
	*(bool *)context = op->kind == OP_MOVE;
	return false;
}

/* It is a message, whatever it is called: it goes to Trash */
static void test_removed_under_a_scratch_name(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const char *name = letter(&w);
	assert_int_equal(hands(do_list, world_path(&w, "Archive")), 2); /* "." and ".."; each is read while that can be */
	assert_int_equal(hands(do_list, world_path(&w, "Trash")), 2);
	go_offline(&w);
	assert_int_equal(move(&w, name, "Archive/one.eml~"), 0);
	assert_int_equal(hands(do_unlink, world_path(&w, "Archive/one.eml~")), 0);
	bool moves = false;
	assert_int_equal(journal_list(w.cache, 0, is_move, &moves), MF_OK);
	assert_true(moves && journal_count(w.cache) == 1);
	assert_true(hands(do_list, world_path(&w, "Trash")) > 0);
	hands_last.data[hands_last.len] = 0;
	assert_non_null(strstr(hands_last.data, "one.eml"));
	world_finish(&w);
}

static int64_t do_scribble(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, "no message\n", 11) != 11)
		return -errno;
	return close(fd) < 0 ? -errno : 0;
}

static atomic_bool no_room;
static atomic_uint refusals;

int renameat(int from_dir, const char *from, int to_dir, const char *to)  /* in the place of libc's */
{
	size_t len = strlen(from);
	if (atomic_load(&no_room) && len > 5 && strcmp(from + len - 5, ".edit") == 0) {
		atomic_fetch_add(&refusals, 1);
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

/* What could not even be put aside is when the message is written again; which can be. */
static void test_put_aside_later(void **state)
{
	(void)state;
	struct world w;
	char argument[4096], rejected[700];
	world_start(&w, fill);
	const char *name = letter(&w);
	atomic_store(&no_room, true);
	assert_int_equal(hands(do_scribble, world_path(&w, name)), -EINVAL);
	world_until(atomic_load(&refusals) == 1);
	snprintf(argument, sizeof argument, "%d %s", 4096, world_path(&w, name));
	assert_int_equal(hands(do_overwrite, argument), -ENOSPC);
	atomic_store(&no_room, false);
	assert_int_equal(hands(do_overwrite, argument), 1);
	assert_int_equal(size_of(&w, name), 4096);
	snprintf(rejected, sizeof rejected, ".mailfs/rejected/%s", strchr(name, '/') + 1);
	world_until(size_of(&w, rejected) == 11);
	world_finish(&w);
}

/* and what is written over it is to be a message as well */
static void test_overwritten_under_a_scratch_name(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(move(&w, letter(&w), "INBOX/one.eml~"), 0);
	assert_int_equal(hands(do_scribble, world_path(&w, "INBOX/one.eml~")), -EINVAL);
	world_until(size_of(&w, "INBOX/one.eml~") == sizeof text - 1);
	assert_int_equal(journal_count(w.cache), 0);
	world_finish(&w);
}

static int64_t do_write_back(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, text, sizeof text - 1) != sizeof text - 1)
		return -errno;
	return close(fd) < 0 ? -errno : 0;
}

/* An editor that writes back what it has read makes no new version, also of what is to be moved still */
static void test_written_back_while_it_is_moved(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const char *name = letter(&w);
	assert_int_equal(hands(do_read, world_path(&w, name)), sizeof text - 1);
	go_offline(&w);
	assert_int_equal(move(&w, name, "Archive/one.eml"), 0);
	assert_int_equal(journal_count(w.cache), 1);
	assert_int_equal(hands(do_write_back, world_path(&w, "Archive/one.eml")), 0);
	world_until(size_of(&w, "Archive/one.eml") == sizeof text - 1);
	assert_int_equal(journal_count(w.cache), 1);
	world_finish(&w);
}

static int64_t do_append(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd < 0 || write(fd, "more\r\n", 6) != 6 || write(fd, "and more\r\n", 10) != 10)
		return -errno;
	return close(fd) < 0 ? -errno : 0;
}

static void fill_with_lies(struct memory_server *s)
{
	fill(s);
	memory_claim_size(s, "INBOX", 1, sizeof text - 1 - 5);
}

/* The end is where the bytes end, whatever the server has said: none of them is overwritten */
static void test_appended(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_with_lies);
	const char *name = letter(&w);
	assert_int_equal(size_of(&w, name), sizeof text - 1 - 5);
	assert_int_equal(hands(do_append, world_path(&w, name)), 0);
	world_until(size_of(&w, name) == sizeof text - 1 + 16);
	assert_int_equal(hands(do_read, world_path(&w, name)), sizeof text - 1 + 16);
	assert_memory_equal(hands_last.data, text, sizeof text - 1);
	assert_memory_equal(hands_last.data + sizeof text - 1, "more\r\nand more\r\n", 16);
	world_finish(&w);
}

/* as LibreOffice does with its temporary file; the first close is over here while mailfs is at it still */
static int64_t do_reopen(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	for (int i = 0; i < 300; i++) {
		int first = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (first < 0 || (i % 2 && write(first, "before", 6) != 6) || close(first) < 0)
			return -errno;
		int fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0 || write(fd, "text", 4) != 4 || (i % 3 == 0 && ftruncate(fd, 2) < 0) || close(fd) < 0 || unlink(path) < 0)
			return -errno;
	}
	return 0;
}

/* Who opens a file while another's close is under way writes all the same */
static void test_opened_again(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_reopen, world_path(&w, "INBOX/lu47.tmp")), 0);
	world_finish(&w);
}

static bool has(int fd, const char *expected)
{
	char text_now[256];
	struct stat st;
	size_t len = strlen(expected);
	return fstat(fd, &st) == 0 && st.st_nlink == 0 && (size_t)st.st_size == len && pread(fd, text_now, sizeof text_now, 0) == (ssize_t)len
		&& !memcmp(text_now, expected, len);
}

/* as tmpfile(3) does, with what was written before and since; 1: something is not as on a disk */
static int64_t do_nameless(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	for (int i = 0; i < 3; i++) {
		int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), reader = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || reader < 0 || (i && pwrite(fd, "before", 6, 0) != 6))
			return -errno;
		if (i == 2 && (close(fd) < 0 || (fd = open(path, O_RDWR | O_CLOEXEC)) < 0))
			return -errno;
		if (unlink(path) < 0)
			return -errno;
		if (!has(fd, i ? "before" : "") || !has(reader, i ? "before" : ""))
			return 1;
		if (pwrite(fd, "BEhind", 6, 0) != 6 || ftruncate(fd, 4) < 0 || futimens(fd, NULL) < 0 || !has(fd, "BEhi") || !has(reader, "BEhi"))
			return 1;
		if (close(fd) < 0 || close(reader) < 0)
			return -errno;
	}
	return 0;
}

static int64_t do_read_nameless(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, "before", 6) != 6 || close(fd) < 0 || (fd = open(path, O_RDONLY | O_CLOEXEC)) < 0 || unlink(path) < 0)
		return -errno;
	bool good = has(fd, "before");
	return close(fd) < 0 ? -errno : good ? 0 : 1;
}

/* another file takes its name instead, after the writer's last close; a reader is there from the first version on */
static int64_t do_replaced(const char *path, char *data, size_t *ret_len)
{
	char other[4096];
	(void)data, (void)ret_len;
	snprintf(other, sizeof other, "%s.tmp", path);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), by = open(other, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || by < 0 || pwrite(fd, "before", 6, 0) != 6 || close(fd) < 0 || close(by) < 0)
		return -errno;
	int reader = open(path, O_RDONLY | O_CLOEXEC), writer = open(path, O_RDWR | O_CLOEXEC);
	if (reader < 0 || writer < 0 || pread(reader, other + sizeof other - 6, 6, 0) != 6 || truncate(path, 4) < 0 || rename(other, path) < 0)
		return -errno;
	if (!has(reader, "befo") || !has(writer, "befo") || pwrite(writer, "BE", 2, 0) != 2 || !has(reader, "BEfo"))
		return 1;
	if (close(writer) < 0)
		return -errno;
	bool good = has(reader, "BEfo");
	return close(reader) < 0 || unlink(path) < 0 ? -errno : good ? 0 : 1;
}

/* tail -f, and a shell's ": >" */
static int64_t do_follow(const char *path, char *data, size_t *ret_len)
{
	static const char *const versions[] = { "one", "onetwo", "ONEtwo" };
	struct stat st;
	(void)data, (void)ret_len;
	int reader = -1;
	for (size_t i = 0; i < 3; i++) {
		int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || pwrite(fd, i == 1 ? "two" : versions[i], 3, i == 1 ? 3 : 0) != 3 || close(fd) < 0)
			return -errno;
		if (reader < 0 && (reader = open(path, O_RDONLY | O_CLOEXEC)) < 0)
			return -errno;
		char now[16];
		ssize_t len = pread(reader, now, sizeof now, 0);
		if (len != (ssize_t)strlen(versions[i]) || memcmp(now, versions[i], (size_t)len))
			return 1;
	}
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || close(fd) < 0 || close(reader) < 0 || stat(path, &st) < 0 || unlink(path) < 0)
		return -errno;
	return st.st_size ? 1 : 0;
}

/* A message of the server, read, overwritten and listed at once */
static int64_t do_overlook(const char *path, char *data, size_t *ret_len)
{
	int reader = open(path, O_RDONLY | O_CLOEXEC), fd = open(path, O_WRONLY | O_CLOEXEC);
	char folder[4096], now[4];
	snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
	if (reader < 0 || fd < 0 || pread(reader, now, 4, 0) != 4 || pwrite(fd, "FROM", 4, 0) != 4)
		return -errno;
	int64_t listed = do_list(folder, data, ret_len);
	if (listed < 0 || close(fd) < 0 || pread(reader, now, 4, 0) != 4 || close(reader) < 0)
		return listed < 0 ? listed : -errno;
	return memcmp(now, "FROM", 4) ? 1 : 0;
}

/* A file that no server has is there until its last close, whoever removed it */
static void test_removed_while_open(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_nameless, world_path(&w, "INBOX/nameless.tmp")), 0);
	assert_int_equal(hands(do_read_nameless, world_path(&w, "INBOX/nameless.tmp")), 0);
	assert_int_equal(hands(do_replaced, world_path(&w, "INBOX/replaced.tmp")), 0);
	assert_int_equal(journal_count(w.cache), 0);
	world_finish(&w);
}

/* "PATH OTHER": what has the path is open for writing when its name goes, to another file where OTHER is one; with and without its
 * bytes having been read. 1: something is not as on a disk */
static int64_t removed_while_written(const char *argument, bool read_before)
{
	char path[2048], other[2048], expected[256], now[256];
	size_t len = sizeof text - 1;
	if (sscanf(argument, "%2047s %2047s", path, other) != 2)
		return -ENOTRECOVERABLE;
	int reader = open(path, O_RDONLY | O_CLOEXEC), fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	if (reader < 0 || fd < 0 || (read_before && (pread(fd, now, sizeof now, 0) != (ssize_t)len || write(fd, "before\r\n", 8) != 8)))
		return -errno;
	snprintf(expected, sizeof expected, "%s%s", text, read_before ? "before\r\n" : "");
	if (strcmp(other, "-") ? rename(other, path) < 0 : unlink(path) < 0)
		return -errno;
	if (!has(fd, expected) || !has(reader, expected) || write(fd, "after\r\n", 7) != 7)
		return 1;
	snprintf(expected, sizeof expected, "%s%safter\r\n", text, read_before ? "before\r\n" : "");
	if (!has(reader, expected) || fsync(fd) < 0 || close(fd) < 0)
		return 1;
	bool good = has(reader, expected);
	return close(reader) < 0 ? -errno : good ? 0 : 1;
}

static int64_t do_removed_unread(const char *argument, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return removed_while_written(argument, false);
}

static int64_t do_removed_read(const char *argument, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return removed_while_written(argument, true);
}

/* the one message in this folder has these bytes */
static void assert_holds(struct world *w, const char *folder, const char *expected)
{
	char path[1024];
	assert_true(hands(do_list, world_path(w, folder)) > 2);
	hands_last.data[hands_last.len] = 0;
	char *end = strstr(hands_last.data, ".eml"), *start = end;
	assert_non_null(end);
	assert_null(strstr(end + 1, ".eml"));
	while (start > hands_last.data && start[-1] != '\n')
		start--;
	snprintf(path, sizeof path, "%s/%.*s.eml", folder, (int)(end - start), start);
	assert_int_equal(hands(do_read, world_path(w, path)), strlen(expected));
	assert_memory_equal(hands_last.data, expected, strlen(expected));
}

static const char second[] = "Subject: second\r\n\r\nanother\r\n";

static int64_t do_put(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t len = fd < 0 ? -1 : write(fd, second, sizeof second - 1);
	return fd < 0 || close(fd) < 0 ? -errno : len;
}

/* What is written into a message that was removed meanwhile goes with the last close, and Trash has what it was */
static void test_removed_while_written(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		bool renames = i & 1, reads = i & 2;
		struct world w;
		char argument[4096];
		world_start(&w, fill);
		const char *name = letter(&w);
		if (renames)
			assert_int_equal(hands(do_put, world_path(&w, "INBOX/second.eml")), sizeof second - 1);
		snprintf(argument, sizeof argument, "%s %s", world_path(&w, name), renames ? world_path(&w, "INBOX/second.eml") : "-");
		assert_int_equal(hands(reads ? do_removed_read : do_removed_unread, argument), 0);
		assert_holds(&w, "Trash", text);
		if (renames)
			assert_holds(&w, "INBOX", second);
		world_until(journal_count(w.cache) == 0); /* at the server as well */
		assert_holds(&w, "Trash", text);
		world_finish(&w);
	}
}

/* A copy that nobody has closed yet, read as it is, without a name, and written into. 1: something is not as on a disk */
static int64_t do_copied(const char *path, char *data, size_t *ret_len)
{
	char copy[4096], now[256];
	(void)data, (void)ret_len;
	ssize_t len = sizeof text - 1;
	snprintf(copy, sizeof copy, "%.*s/copy.eml", (int)(strrchr(path, '/') - path), path);
	int from = open(path, O_RDONLY | O_CLOEXEC), fd = open(copy, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (from < 0 || fd < 0 || copy_file_range(from, NULL, fd, NULL, (size_t)len, 0) != len)
		return -errno;
	if (pread(fd, now, sizeof now, 0) != len || memcmp(now, text, (size_t)len) != 0)
		return 1;
	if (unlink(copy) < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
		return -errno;
	if (!has(fd, text) || pwrite(fd, "more", 4, len) != 4)
		return 1;
	snprintf(now, sizeof now, "%smore", text);
	return !has(fd, now) || close(fd) < 0 || close(from) < 0 ? 1 : 0;
}

static void test_removed_copy(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_copied, world_path(&w, letter(&w))), 0);
	assert_holds(&w, "INBOX", text);
	assert_int_equal(journal_count(w.cache), 0);
	world_finish(&w);
}

/* The mailbox goes too, when nothing in it has a name any more; "PATH" is of a message */
static int64_t do_remove_with_mailbox(const char *path, char *data, size_t *ret_len)
{
	char folder[4096], inside[4096];
	(void)data, (void)ret_len;
	snprintf(folder, sizeof folder, "%.*s/../Made", (int)(strrchr(path, '/') - path), path);
	if (mkdir(folder, 0700) < 0)
		return -errno;
	snprintf(inside, sizeof inside, "%.4000s/new.eml", folder);
	int fd = open(inside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, sizeof text - 1) < 0)
		return -errno;
	if (rmdir(folder) == 0 || errno != ENOTEMPTY)
		return 1;
	if (unlink(inside) < 0 || rmdir(folder) < 0)
		return -errno;
	if (!has(fd, text) || pwrite(fd, "from", 4, 0) != 4 || close(fd) < 0)
		return 1;
	return stat(folder, &(struct stat){ 0 }) < 0 && errno == ENOENT ? 0 : 1;
}

static void test_removed_with_mailbox(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_remove_with_mailbox, world_path(&w, letter(&w))), 0);
	world_until(journal_count(w.cache) == 0);
	assert_holds(&w, "INBOX", text);
	world_finish(&w);
}

/* Whoever has a file open sees what others write into it */
static void test_followed(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_follow, world_path(&w, "INBOX/followed.tmp")), 0);
	assert_int_equal(hands(do_overlook, world_path(&w, letter(&w))), 0);
	world_finish(&w);
}

static bool is_gone_in_time(const char *path)
{
	struct stat st;
	for (int i = 0; i < WORLD_WAIT_MS; i++, usleep(1000))
		if (stat(path, &st) < 0)
			return true;
	return false;
}

/* The name goes between the open and the close, before or behind what is written; what close(2) says */
static int64_t do_write_what_goes(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, second, sizeof second - 1) != sizeof second - 1 || !is_gone_in_time(path))
		return -ENOTRECOVERABLE;
	return outcome(close(fd));
}

static int64_t do_write_what_went(const char *path, char *data, size_t *ret_len)
{
	char now[10];
	(void)data, (void)ret_len;
	int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
	if (fd < 0 || pread(fd, now, sizeof now, 0) != sizeof now || !is_gone_in_time(path) || write(fd, "more\r\n", 6) != 6)
		return -ENOTRECOVERABLE;
	return outcome(close(fd));
}

/* when the message is open for writing */
static void *expunge_elsewhere(void *context)
{
	struct world *w = context;
	struct node node = { .kind = NODE_MESSAGE, .id = 1 };
	while (!message_is_open_for_writing(w->fs, &node))
		usleep(1000);
	usleep(100000); /* also written into, or not: both are tried */
	assert_true(memory_expunge(w->server, "INBOX", 1));
	return NULL;
}

/* Nobody here has removed it: what was written is kept, and who wrote it hears of it. */
static void test_expunged_by_another_while_written(void **state)
{
	(void)state;
	for (int went = 0; went < 2; went++) {
		struct world w;
		pthread_t other;
		char rejected[700];
		world_start(&w, fill);
		const char *name = letter(&w);
		snprintf(rejected, sizeof rejected, ".mailfs/rejected/%s", went ? "message.eml" : strchr(name, '/') + 1);
		assert_int_equal(pthread_create(&other, NULL, expunge_elsewhere, &w), 0);
		assert_int_equal(hands(went ? do_write_what_went : do_write_what_goes, world_path(&w, name)), -ESTALE);
		pthread_join(other, NULL);
		world_until(size_of(&w, rejected) == (int64_t)(went ? sizeof text - 1 + 6 : sizeof second - 1));
		assert_int_equal(journal_count(w.cache), 0);
		world_finish(&w);
	}
}

static int64_t do_cut(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return outcome(truncate(path, 4));
}

/* No close follows truncate(2): it says itself that what is left is no message. */
static void test_cut_by_name(void **state)
{
	(void)state;
	struct world w;
	char rejected[700];
	world_start(&w, fill);
	const char *name = letter(&w);
	snprintf(rejected, sizeof rejected, ".mailfs/rejected/%s", strchr(name, '/') + 1);
	assert_int_equal(hands(do_read, world_path(&w, name)), sizeof text - 1);
	assert_int_equal(hands(do_cut, world_path(&w, name)), -EINVAL);
	assert_int_equal(size_of(&w, name), sizeof text - 1);
	assert_int_equal(size_of(&w, rejected), 4);
	world_finish(&w);
}

static atomic_bool folders_fail;
static atomic_uint prepared;         /* files of the spool that went to the disk before they had their name */

int fsync(int fd)                    /* in the place of libc's */
{
	char link[64], path[256] = "";
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof path - 1);
	prepared += len > 4 && strcmp(path + len - 4, ".new") == 0;
	struct stat st;
	if (folders_fail && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

static int64_t write_new(const char *path, bool syncs)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, second, sizeof second - 1) != sizeof second - 1)
		return -ENOTRECOVERABLE;
	int64_t synced = syncs ? outcome(fsync(fd)) : 0;
	return close(fd) < 0 ? -ENOTRECOVERABLE : synced;
}

static int64_t do_write_new(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return write_new(path, false);
}

static atomic_bool no_edits;

int openat(int dir, const char *name, int flags, ...)   /* in the place of libc's */
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	size_t len = strlen(name);
	if (no_edits && len > 5 && strcmp(name + len - 5, ".edit") == 0) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_openat, dir, name, flags, mode);
}

static int64_t do_make_file(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return outcome(mknod(path, S_IFREG | 0600, 0));
}

/* What cannot be written is not made either. */
static void test_made_in_vain(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	no_edits = true;
	assert_int_equal(hands(do_write_new, world_path(&w, "INBOX/one.eml")), -ENOTRECOVERABLE);
	assert_int_equal(hands(do_make_file, world_path(&w, "INBOX/two.eml")), -ENOSPC);
	no_edits = false;
	assert_int_equal(size_of(&w, "INBOX/one.eml"), -ENOENT);
	assert_int_equal(size_of(&w, "INBOX/two.eml"), -ENOENT);
	assert_int_equal(hands(do_write_new, world_path(&w, "INBOX/one.eml")), 0);
	world_finish(&w);
}

static int64_t do_sync(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return write_new(path, true);
}

static int64_t do_sync_folder(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int64_t synced = outcome(fsync(fd));
	return close(fd) < 0 ? -ENOTRECOVERABLE : synced;
}

/* What nobody has closed yet is on the disk behind fsync(2), and under a name */
static void test_synced(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_sync, world_path(&w, "INBOX/one.eml")), 0); /* the index's own folder is there with that */
	folders_fail = true;
	assert_int_equal(hands(do_sync, world_path(&w, "INBOX/two.eml")), -EIO);
	assert_int_equal(hands(do_sync_folder, world_path(&w, "INBOX")), -EIO); /* who gives a file its name says so to the folder */
	folders_fail = false;
	assert_int_equal(hands(do_sync_folder, world_path(&w, "INBOX")), 0);
	world_finish(&w);
}

/* It stays there, whatever is made of it: as its message, and when it has a real name. Others cost nothing. */
static void test_synced_for_good(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	prepared = 0;
	assert_int_equal(hands(do_write_new, world_path(&w, "INBOX/one.tmp")), 0);
	assert_int_equal(move(&w, "INBOX/one.tmp", "INBOX/one.eml"), 0);
	assert_int_equal(prepared, 0);
	assert_int_equal(hands(do_sync, world_path(&w, "INBOX/two.tmp")), 0);
	assert_int_equal(prepared, 1);
	assert_int_equal(move(&w, "INBOX/two.tmp", "INBOX/two.eml"), 0);
	assert_int_equal(prepared, 2);
	assert_int_equal(hands(do_sync, world_path(&w, "INBOX/three.eml")), 0);
	assert_int_equal(prepared, 3);
	world_finish(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_disk), cmocka_unit_test(test_removed_under_a_scratch_name),
		cmocka_unit_test(test_overwritten_under_a_scratch_name), cmocka_unit_test(test_opened_again), cmocka_unit_test(test_appended),
		cmocka_unit_test(test_written_back_while_it_is_moved),
		cmocka_unit_test(test_put_aside_later), cmocka_unit_test(test_removed_while_open), cmocka_unit_test(test_followed),
		cmocka_unit_test(test_removed_while_written), cmocka_unit_test(test_removed_copy), cmocka_unit_test(test_removed_with_mailbox),
		cmocka_unit_test(test_synced), cmocka_unit_test(test_synced_for_good), cmocka_unit_test(test_made_in_vain), cmocka_unit_test(test_cut_by_name), cmocka_unit_test(test_expunged_by_another_while_written),
	};
	if (!world_begin(argc, argv))
		return 0;
	int result = cmocka_run_group_tests(tests, NULL, NULL);
	world_end();
	return result;
}

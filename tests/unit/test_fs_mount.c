/* The tree, mounted, with the memory back-end behind it: real system calls, made by another process (support/fs_hands.h).
 * Skipped, saying so, where there is no /dev/fuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>

static char world_root[] = "/tmp/mailfs-mount-XXXXXX";

#include "base/log.h"
#include "cache/body.h"
#include "fs/node.h"
#include "support/fs_works.h"
#include "support/fs_world.h"
#include "sync/remote.h"

#define DATE 1795000000

static const char first_body[] = "From: Alice <alice@example.org>\r\nSubject: one\r\nMessage-ID: <one@x>\r\n\r\nfirst\r\n";
static const char second_body[] = "From: Bob <bob@example.org>\r\nTo: carol@example.org\r\nSubject: two\r\nMessage-ID: <two@x>\r\n"
	"Date: Thu, 19 Nov 2026 12:00:00 +0000\r\n\r\nno final newline, \001 and \377";

static uint32_t deliver(struct memory_server *s, const char *mailbox, unsigned n)
{
	char text[256];
	int len = snprintf(text, sizeof text, "From: Alice <alice@example.org>\r\nSubject: number %u\r\nMessage-ID: <%s.%u@x>\r\n\r\nbody %u\r\n", n, mailbox, n, n);
	return memory_deliver(s, mailbox, text, (size_t)len, DATE + n, 0);
}

static void fill(struct memory_server *s)
{
	memory_deliver(s, "INBOX", first_body, sizeof first_body - 1, DATE, FLAG_SEEN);
	memory_deliver(s, "INBOX", second_body, sizeof second_body - 1, DATE + 60, 0);
	memory_mailbox_add(s, "Archive", 0, USE_ARCHIVE);
	memory_mailbox_add(s, "Archive/2024", 0, USE_NONE);
}

static const struct stat *last_stat(void) { return (const struct stat *)(const void *)hands_last.data; }

/* whether the last listing holds a name with this in it; the name up to the newline goes to to */
static bool listed(const char *part, char *to, size_t size)
{
	hands_last.data[hands_last.len] = '\0';
	const char *at = strstr(hands_last.data, part);
	if (!at)
		return false;
	const char *from = at;
	while (from > hands_last.data && from[-1] != '\n')
		from--;
	snprintf(to, size, "%.*s", (int)strcspn(from, "\n"), from);
	return true;
}

/* the path of the message in the mailbox whose name holds this */
static const char *find(struct world *w, const char *mailbox, const char *part)
{
	char name[512], below[1024];
	assert_true(hands(do_list, world_path(w, mailbox)) >= 2);
	if (!listed(part, name, sizeof name))
		fail_msg("no %s in %s", part, mailbox);
	snprintf(below, sizeof below, "%s/%s", mailbox, name);
	return world_path(w, below);
}

static bool shows(struct world *w, const char *mailbox, const char *part)
{
	char name[512];
	return hands(do_list, world_path(w, mailbox)) >= 2 && listed(part, name, sizeof name);
}

/* --- reading ----------------------------------------------------------------------------------------------------------- */

static void test_listing(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char name[512];
	assert_int_equal(hands(do_list, w.point), 5);
	assert_true(listed(".nomedia\n", name, sizeof name) && listed("INBOX\n", name, sizeof name) && listed("Archive\n", name, sizeof name));
	assert_false(listed(".mailfs", name, sizeof name));
	assert_int_equal(hands(do_stat, world_path(&w, ".mailfs")), 0);
	assert_int_equal(hands(do_list, world_path(&w, "INBOX")), 4);
	assert_true(listed("_Alice_one_", name, sizeof name));
	assert_true(listed("2026-11-19_Bob_two_", name, sizeof name));
	assert_int_equal(hands(do_list, world_path(&w, "Archive")), 3);
	assert_int_equal(hands(do_list, world_path(&w, "Archive/2024")), 2);
	assert_int_equal(hands(do_list, world_path(&w, "nothing")), -ENOENT);
	assert_int_equal(hands(do_list, world_path(&w, ".git")), -ENOENT);
	world_finish(&w);
}

static void test_bytes_and_stat(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const char *one = find(&w, "INBOX", "one"), *two = find(&w, "INBOX", "two");
	assert_int_equal(hands(do_stat, one), 0);
	assert_int_equal(last_stat()->st_size, sizeof first_body - 1);
	assert_int_equal(last_stat()->st_mtime, DATE);
	assert_int_equal(last_stat()->st_mode, S_IFREG | 0600);
	assert_int_equal(last_stat()->st_nlink, 1);
	assert_int_equal(last_stat()->st_uid, getuid());
	assert_int_equal(last_stat()->st_blocks, 1);
	assert_int_equal(memory_messages_fetched(w.server), 0); /* nothing so far needed a body */
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);
	assert_memory_equal(hands_last.data, first_body, sizeof first_body - 1);
	assert_int_equal(hands(do_read, two), sizeof second_body - 1);
	assert_memory_equal(hands_last.data, second_body, sizeof second_body - 1);
	assert_int_equal(hands(do_stat, world_path(&w, "INBOX")), 0);
	assert_int_equal(last_stat()->st_mode, S_IFDIR | 0700);
	assert_int_equal(hands(do_read, world_path(&w, ".nomedia")), 0);
	char longest[300];
	memset(longest, 'a', sizeof longest);
	longest[256] = '\0';
	assert_int_equal(hands(do_stat, world_path(&w, longest)), -ENAMETOOLONG);
	world_finish(&w);
}

static void test_opening_fetches_nothing(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_true(hands(do_keep, find(&w, "INBOX", "one")) >= 0);
	assert_int_equal(hands(do_fstat_kept, ""), 0);
	assert_int_equal(memory_messages_fetched(w.server), 0);
	assert_int_equal(hands(do_read_kept, ""), sizeof first_body - 1);
	assert_true(memory_messages_fetched(w.server) > 0);
	hands(do_close_kept, "");
	world_finish(&w);
}

/* as it comes when it is read ahead, and is held for its reader */
static struct body *body_comes(struct world *w, const char *path, const char *bytes, size_t len)
{
	struct node node;
	struct entry e;
	struct body *b;
	assert_int_equal(hands(do_stat, path), 0);
	assert_true(node_unpack(last_stat()->st_ino, true, &node));
	assert_int_equal(cache_entry(w->cache, node.id, &e), MF_OK);
	assert_int_equal(cache_body_create(w->cache, node.id, e.size, &b), MF_OK);
	assert_int_equal(body_write(b, 0, bytes, len), MF_OK);
	assert_int_equal(body_finish(b, len), MF_OK);
	return b;
}

static void test_what_came_ahead_is_given_with_the_open(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048], two[2048];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	snprintf(two, sizeof two, "%s", find(&w, "INBOX", "two"));
	struct body *b = body_comes(&w, one, first_body, sizeof first_body - 1);
	assert_true(hands(do_keep, one) >= 0);
	assert_false(body_take_fresh(b));
	hands(do_close_kept, "");
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);
	assert_memory_equal(hands_last.data, first_body, sizeof first_body - 1);
	body_unref(b);
	/* but not while somebody else has it open */
	assert_true(hands(do_keep, two) >= 0);
	b = body_comes(&w, two, second_body, sizeof second_body - 1);
	assert_int_equal(hands(do_read, two), sizeof second_body - 1);
	assert_memory_equal(hands_last.data, second_body, sizeof second_body - 1);
	assert_true(body_take_fresh(b));
	hands(do_close_kept, "");
	body_unref(b);
	assert_int_equal(memory_messages_fetched(w.server), 0);
	world_finish(&w);
}

static void test_large_message(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, NULL);
	size_t size = 150000;
	char *text = mf_alloc_array(size, 1);
	int head = snprintf(text, size, "Subject: large\r\nMessage-ID: <large@x>\r\n\r\n");
	for (size_t i = (size_t)head; i < size; i++)
		text[i] = (char)(i * 7 + i / 251);
	memory_deliver(w.server, "INBOX", text, size, DATE, 0);
	world_until(shows(&w, "INBOX", "large"));
	assert_int_equal(hands(do_read, find(&w, "INBOX", "large")), size);
	assert_memory_equal(hands_last.data, text, size);
	assert_int_equal(hands(do_stat, find(&w, "INBOX", "large")), 0);
	assert_int_equal(last_stat()->st_blocks, (size + 511) / 512);
	free(text);
	world_finish(&w);
}

struct refusal { hands_work *work; const char *name; int expected; };

static void check_refusals(bool read_only, const struct refusal *table, size_t count)
{
	struct world w;
	world_start_as(&w, fill, read_only);
	char message[2048];
	snprintf(message, sizeof message, "%s", find(&w, "INBOX", "one"));
	for (size_t i = 0; i < count; i++) {
		const char *path = strcmp(table[i].name, "message") == 0 ? message : world_path(&w, table[i].name);
		int64_t result = hands(table[i].work, path);
		/* what the modes forbid already is refused by the kernel to whoever is not root */
		if (result != -table[i].expected && !(result == -EACCES && geteuid() != 0))
			fail_msg("case %zu on %s: %lld, not %d", i, table[i].name, (long long)result, -table[i].expected);
	}
	if (geteuid() == 0)
		assert_int_equal(hands(do_chown, message), read_only ? -EROFS : -EPERM);
	world_finish(&w);
}

static void test_read_only_mount(void **state)
{
	(void)state;
	static const struct refusal table[] = {
		{ do_open_write, "message", EROFS }, { do_truncate, "message", EROFS }, { do_unlink, "message", EROFS },
		{ do_rename, "message", EROFS }, { do_link, "message", EROFS }, { do_chmod, "message", EROFS },
		{ do_touch, "message", EROFS }, { do_create, "INBOX/new.eml", EROFS }, { do_create, "new", EROFS },
		{ do_mkdir, "INBOX/new", EROFS }, { do_mkdir, "new", EROFS },
		{ do_rmdir, "Archive/2024", EROFS }, { do_rename, "Archive", EROFS }, { do_mknod, "INBOX/fifo", EROFS },
		{ do_symlink, "INBOX/link", EROFS }, { do_unlink, ".nomedia", EROFS }, { do_unlink, ".mailfs/ctl", EROFS },
	};
	check_refusals(true, table, sizeof table / sizeof *table);
}

/* as chmod -R and chown -R do where nothing is to be changed */
static int64_t do_chmod_same(const char *path, char *data, size_t *ret_len)
{
	struct stat st;
	(void)data, (void)ret_len;
	return outcome(stat(path, &st) < 0 || chmod(path, st.st_mode & 07777) < 0 ? -1 : chown(path, st.st_uid, st.st_gid));
}

static void test_what_cannot_be(void **state)
{
	(void)state;
	static const struct refusal table[] = {
		{ do_link, "message", EPERM }, { do_chmod, "message", EPERM }, { do_create, "new", EPERM }, { do_mkdir, ".Trash-1000", EPERM },
		{ do_mknod, "INBOX/fifo", EPERM }, { do_symlink, "INBOX/link", EPERM }, { do_unlink, ".nomedia", EPERM },
		{ do_unlink, ".mailfs/ctl", EPERM }, { do_create, ".mailfs/new", EPERM }, { do_mkdir, ".mailfs/new", EPERM },
		{ do_touch, "message", 0 }, { do_chmod_same, "message", 0 }, { do_chmod_same, "INBOX", 0 }, { do_chmod_same, ".nomedia", 0 },
		{ do_chmod_same, ".mailfs/status", 0 }, { do_chmod, ".nomedia", EPERM }, { do_chmod, ".mailfs/status", EPERM },
		/* what the kernel sees before it asks */
		{ do_unlink, "INBOX/nothing", ENOENT }, { do_mkdir, "INBOX", EEXIST }, { do_unlink, "INBOX", EISDIR }, { do_rmdir, "message", ENOTDIR },
	};
	check_refusals(false, table, sizeof table / sizeof *table);
}

static void check_xattr(const char *name, const char *path, const char *expected)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "%s %s", name, path);
	int64_t result = hands(do_getxattr, argument);
	if (result < 0)
		fail_msg("%s of %s: %s", name, path, strerror((int)-result));
	assert_string_equal(hands_last.data, expected);
}

static int64_t xattr_error(hands_work *work, const char *what, const char *path)
{
	char argument[4096];
	snprintf(argument, sizeof argument, "%s %s", what, path);
	return hands(work, argument);
}

static void test_xattrs(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048], two[2048];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	snprintf(two, sizeof two, "%s", find(&w, "INBOX", "two"));
	check_xattr("user.mail.flags", one, "\\Seen");
	check_xattr("user.mail.flags", two, "");
	check_xattr("user.mail.uid", two, "2");
	check_xattr("user.mail.subject", two, "two");
	check_xattr("user.mail.to", two, "carol@example.org");
	check_xattr("user.mail.date", two, "2026-11-19T12:00:00Z");
	check_xattr("user.mail.message-id", two, "two@x");
	check_xattr("user.mail.state", two, "synchronised");
	check_xattr("user.mail.cached", two, "no");
	hands(do_read, two);
	check_xattr("user.mail.cached", two, "yes");
	const char *inbox = world_path(&w, "INBOX"), *archive = world_path(&w, "Archive");
	check_xattr("user.mail.total", inbox, "2");
	check_xattr("user.mail.unseen", inbox, "1");
	check_xattr("user.mail.complete", inbox, "yes");
	check_xattr("user.mail.sync", inbox, "headers");
	check_xattr("user.mail.special-use", archive, "\\Archive");
	assert_int_equal(hands(do_listxattr, two), sizeof "user.mail.flags");
	assert_string_equal(hands_last.data, "user.mail.flags");
	assert_int_equal(hands(do_listxattr, inbox), 0);
	assert_int_equal(xattr_error(do_getxattr, "user.other", two), -ENODATA);
	assert_int_equal(xattr_error(do_getxattr, "user.mail.total", two), -ENODATA);
	assert_int_equal(xattr_error(do_getxattr, "security.selinux", two), -ENOTSUP);
	assert_int_equal(xattr_error(do_getxattr, "system.posix_acl_access", two), -ENOTSUP);
	assert_int_equal(xattr_error(do_setxattr, "user.mail.flags=\\Nonsense", two), -EINVAL);
	assert_int_equal(xattr_error(do_setxattr, "user.mail.uid=x", two), -EPERM);
	world_finish(&w);
}

/* --- what others change ------------------------------------------------------------------------------------------------- */

static void sync_done(void *context, enum mf_err result)
{
	(void)result;
	sem_post(context);
}

static void test_changes_are_seen(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048], one_before[2100];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	assert_int_equal(hands(do_stat, one), 0);
	struct stat before = *last_stat();
	assert_int_equal(hands(do_stat, world_path(&w, "INBOX")), 0);
	struct stat dir_before = *last_stat();
	deliver(w.server, "INBOX", 3);
	world_until(shows(&w, "INBOX", "number-3"));
	assert_int_equal(hands(do_stat, world_path(&w, "INBOX")), 0);
	assert_true(last_stat()->st_mtim.tv_sec > dir_before.st_mtim.tv_sec ||
	            (last_stat()->st_mtim.tv_sec == dir_before.st_mtim.tv_sec && last_stat()->st_mtim.tv_nsec > dir_before.st_mtim.tv_nsec));
	/* flags: another ctime or at least another value, the same file */
	memory_flag(w.server, "INBOX", 1, FLAG_SEEN | FLAG_FLAGGED, "$Work");
	snprintf(one_before, sizeof one_before, "user.mail.flags %s", one);
	world_until(hands(do_getxattr, one_before) > 0 && strcmp(hands_last.data, "\\Seen \\Flagged $Work") == 0);
	assert_int_equal(hands(do_stat, one), 0);
	assert_true(last_stat()->st_ino == before.st_ino && last_stat()->st_size == before.st_size && last_stat()->st_mtime == before.st_mtime);
	/* gone: from the listing, and by name */
	memory_expunge(w.server, "INBOX", 1);
	world_until(!shows(&w, "INBOX", "one"));
	world_until(hands(do_stat, one) == -ENOENT);
	/* mailboxes too */
	memory_mailbox_add(w.server, "Later", 0, USE_NONE);
	enum mf_err result;
	struct want *want;
	sem_t done;
	sem_init(&done, 0, 0);
	if (!account_want_sync(w.account, NULL, 0, false, sync_done, &done, &result, &want))
		sem_wait(&done);
	sem_destroy(&done);
	world_until(hands(do_stat, world_path(&w, "Later")) == 0);
	world_until(shows(&w, "", "Later"));
	world_finish(&w);
}

enum { MANY = 400 };

static void fill_many(struct memory_server *s)
{
	for (unsigned n = 1; n <= MANY; n++)
		deliver(s, "INBOX", n);
}

static uint32_t newest_uid(struct world *w)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	struct uid_id *uids;
	size_t count;
	assert_int_equal(cache_mailbox_by_raw(w->cache, "INBOX", &m), MF_OK);
	assert_int_equal(cache_uids(w->cache, m.id, &uids, &count), MF_OK);
	uint32_t newest = count ? uids[count - 1].uid : 0;
	free(uids);
	return newest;
}

/* Someone reads the directory in small steps while messages come and go: who stays is told exactly once. */
static void test_listing_during_changes(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_many);
	static int seen[MANY + 100];
	memset(seen, 0, sizeof seen);
	assert_int_equal(hands(do_list, world_path(&w, "INBOX")), MANY + 2);
	deliver(w.server, "INBOX", MANY + 1); /* so that nothing cached is read */
	world_until(shows(&w, "INBOX", "number-401"));
	memory_expunge(w.server, "INBOX", MANY + 1);
	world_until(!shows(&w, "INBOX", "number-401"));
	assert_true(hands(do_keep, world_path(&w, "INBOX")) >= 0);
	unsigned step = 0;
	while (hands(do_list_more, "600") > 0) {
		hands_last.data[hands_last.len] = '\0';
		for (char *save = NULL, *name = strtok_r(hands_last.data, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
			const char *number = strstr(name, "number-");
			if (number)
				seen[atoi(number + 7)]++;
		}
		if (++step > 40)
			continue;
		memory_expunge(w.server, "INBOX", step * 9);
		uint32_t uid = deliver(w.server, "INBOX", MANY + 1 + step);
		world_until(newest_uid(&w) == uid);
	}
	hands(do_close_kept, "");
	for (unsigned n = 1; n <= MANY; n++) {
		bool expunged = n % 9 == 0 && n / 9 <= 40;
		if (expunged ? seen[n] > 1 : seen[n] != 1)
			fail_msg("message %u was told %d times", n, seen[n]);
	}
	for (unsigned n = MANY + 1; n < MANY + 100; n++)
		assert_true(seen[n] <= 1);
	world_finish(&w);
}

static void test_expunged_while_open(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048], two[2048];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	snprintf(two, sizeof two, "%s", find(&w, "INBOX", "two"));
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);   /* cached, then opened without a read */
	assert_true(hands(do_keep, one) >= 0);
	memory_expunge(w.server, "INBOX", 1);
	world_until(hands(do_stat, one) == -ENOENT);
	assert_int_equal(hands(do_read_kept, ""), sizeof first_body - 1);
	assert_memory_equal(hands_last.data, first_body, sizeof first_body - 1);
	assert_int_equal(hands(do_fstat_kept, ""), 0);
	hands(do_close_kept, "");
	/* never fetched */
	assert_true(hands(do_keep, two) >= 0);
	memory_expunge(w.server, "INBOX", 2);
	world_until(hands(do_stat, two) == -ENOENT);
	assert_int_equal(hands(do_read_kept, ""), -ESTALE);
	hands(do_close_kept, "");
	world_finish(&w);
}

/* --- waiting ------------------------------------------------------------------------------------------------------------ */

static int64_t wait_for(int64_t pid)
{
	char text[32];
	snprintf(text, sizeof text, "%lld", (long long)pid);
	return hands(do_wait, text);
}

static void test_interrupts(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const char *one = find(&w, "INBOX", "one");
	memory_block(w.server, MEMORY_FETCH);
	int64_t pid = hands(do_start_cat, one);
	assert_true(memory_await_blocked(w.server, WORLD_WAIT_MS));
	kill((pid_t)pid, SIGTERM);
	int64_t status = wait_for(pid);
	assert_true(WIFSIGNALED((int)status) && WTERMSIG((int)status) == SIGTERM);
	memory_release(w.server);
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);
	world_finish(&w);
}

static void fill_demand(struct memory_server *s)
{
	fill(s);
	memory_block(s, MEMORY_CHANGES); /* lists of messages do not come yet */
}

static void test_interrupts_of_a_listing(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_demand);
	int64_t pid = hands(do_start_ls, world_path(&w, "INBOX"));
	assert_true(memory_await_blocked(w.server, WORLD_WAIT_MS));
	kill((pid_t)pid, SIGTERM);
	int64_t status = wait_for(pid);
	assert_true(WIFSIGNALED((int)status) && WTERMSIG((int)status) == SIGTERM);
	/* a lookup that goes on after its signal is told EINTR; it may be signalled before it waits, so again until it ends */
	pid = hands(do_start_stat, world_path(&w, "INBOX/2026-11-19_x.eml"));
	char text[32];
	snprintf(text, sizeof text, "%lld", (long long)pid);
	hands_begin(do_wait, text);
	struct pollfd over = { .fd = hands_fd, .events = POLLIN };
	while (poll(&over, 1, 20) == 0)
		kill((pid_t)pid, SIGUSR1);
	status = hands_end();
	assert_true(WIFEXITED((int)status));
	assert_int_equal(WEXITSTATUS((int)status), EINTR);
	memory_release(w.server);
	assert_int_equal(hands(do_list, world_path(&w, "INBOX")), 4);
	world_finish(&w);
}

/* all; most of it; half of what is written together when it comes slowly; longer than it is gathered before that */
enum { FIRST_LIST = 1601, MOST = 1280, TOGETHER = 16, MOMENT_MS = 300 };

static void fill_first_list(struct memory_server *s)
{
	for (unsigned n = 1; n <= FIRST_LIST; n++)
		deliver(s, "INBOX", n);
	memory_block(s, MEMORY_CHANGES);
}

/* answers that come until the list is paused again */
static void some_more(struct world *w, unsigned answers)
{
	unsigned before = memory_answers(w->server);
	memory_pause(w->server, answers - 1);
	memory_release(w->server);
	world_until(memory_answers(w->server) == before + answers);
}

/* of a first list the most has come: it is opened, and what is missing is waited for at its end */
static void test_end_of_a_first_list(void **state)
{
	(void)state;
	struct world w;
	char text[32];
	world_start(&w, fill_first_list);
	snprintf(text, sizeof text, "%lld", (long long)hands(do_start_ls, world_path(&w, "INBOX")));
	assert_true(memory_await_blocked(w.server, WORLD_WAIT_MS));
	hands_begin(do_wait, text);
	some_more(&w, MOST + 2); /* the first says how many there are, the last is of one that has not come yet */
	struct pollfd over = { .fd = hands_fd, .events = POLLIN };
	/* the slower the machine, the less is a matter of a moment: all but one */
	for (int come = MOST; poll(&over, 1, MOMENT_MS) == 0 && come + TOGETHER < FIRST_LIST; come += TOGETHER)
		some_more(&w, TOGETHER);
	assert_int_equal(hands_end(), 0);
	hands_begin(do_count, world_path(&w, "INBOX"));
	assert_int_equal(poll(&over, 1, 200), 0);
	memory_release(w.server);
	assert_int_equal(hands_end(), FIRST_LIST + 2);
	world_finish(&w);
}

/* the end of the mount answers who waits */
static void test_stop_with_waiting_readers(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const char *one = find(&w, "INBOX", "one");
	memory_block(w.server, MEMORY_FETCH);
	int64_t pid = hands(do_start_cat, one);
	assert_true(memory_await_blocked(w.server, WORLD_WAIT_MS));
	world_unmount(&w);
	assert_true(wait_for(pid) != 0);
	memory_release(w.server);
	world_finish(&w);
}

static void test_parallel_readers(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char argument[2048];
	snprintf(argument, sizeof argument, "100 %s", find(&w, "INBOX", "one"));
	memory_forget_calls(w.server);
	memory_block(w.server, MEMORY_FETCH);
	hands_begin(do_read_in_parallel, argument);
	assert_true(memory_await_blocked(w.server, WORLD_WAIT_MS));
	memory_release(w.server);
	assert_int_equal(hands_end(), 100);
	uint64_t sum;
	memcpy(&sum, hands_last.data, sizeof sum);
	assert_true(sum == sum_of(first_body, sizeof first_body - 1));
	assert_int_equal(memory_bytes_fetched(w.server), sizeof first_body - 1);
	world_finish(&w);
}

static void test_offline(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048], two[2048];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	snprintf(two, sizeof two, "%s", find(&w, "INBOX", "two"));
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);
	account_disconnect(w.account);
	struct link_info link;
	world_until((account_link(w.account, &link), link.state != LINK_ONLINE));
	assert_int_equal(hands(do_read, one), sizeof first_body - 1);
	if (hands(do_read, two) >= 0) /* read ahead while online */
		assert_int_equal(hands_last.result, sizeof second_body - 1);
	else
		assert_int_equal(hands_last.result, -ENETUNREACH);
	assert_int_equal(hands(do_list, world_path(&w, "INBOX")), 4);
	world_finish(&w);
}

/* --- sizes that lie ------------------------------------------------------------------------------------------------------ */

static void fill_lies(struct memory_server *s)
{
	for (unsigned n = 1; n <= 6; n++)
		deliver(s, "INBOX", n);
	memory_claim_size(s, "INBOX", 1, 10);
	memory_claim_size(s, "INBOX", 2, 5000);
	memory_claim_size(s, "INBOX", 3, 0);
	memory_claim_size(s, "INBOX", 4, 3);
	memory_claim_size(s, "INBOX", 5, 100000);
}

static void check_lie(struct world *w, unsigned n, bool stat_first)
{
	char part[32], expected[256], path[2048];
	snprintf(part, sizeof part, "number-%u_", n);
	int len = snprintf(expected, sizeof expected, "From: Alice <alice@example.org>\r\nSubject: number %u\r\nMessage-ID: <INBOX.%u@x>\r\n\r\nbody %u\r\n", n, n, n);
	snprintf(path, sizeof path, "%s", find(w, "INBOX", part));
	if (stat_first) {
		assert_true(hands(do_keep, path) >= 0);
		assert_int_equal(hands(do_fstat_kept, ""), 0);
		assert_int_equal(last_stat()->st_size, len);
		hands(do_close_kept, "");
	}
	assert_int_equal(hands(do_read, path), len);
	assert_memory_equal(hands_last.data, expected, (size_t)len);
	world_until(hands(do_stat, path) == 0 && last_stat()->st_size == len);
}

static void test_sizes_that_lie(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill_lies);
	check_lie(&w, 1, false);  /* nobody knows yet that it lies */
	check_lie(&w, 2, true);   /* from now on the size is right before the first byte */
	check_lie(&w, 3, true);
	check_lie(&w, 4, true);
	check_lie(&w, 5, true);
	check_lie(&w, 6, true);
	world_finish(&w);
}

/* --- numbers, handles, the mount itself ----------------------------------------------------------------------------------- */

static void test_numbers_survive(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char one[2048];
	snprintf(one, sizeof one, "%s", find(&w, "INBOX", "one"));
	assert_int_equal(hands(do_stat, one), 0);
	ino_t before = last_stat()->st_ino;
	assert_int_equal(hands(do_stat, world_path(&w, "Archive/2024")), 0);
	ino_t dir_before = last_stat()->st_ino;
	bool handles = geteuid() == 0;
	if (handles) {
		assert_int_equal(hands(do_take_handle, one), 0);
		assert_int_equal(hands(do_drop_caches, "2"), 1);
		assert_int_equal(hands(do_read_handle, w.point), sizeof first_body - 1);
		assert_memory_equal(hands_last.data, first_body, sizeof first_body - 1);
	}
	world_unmount(&w);
	world_close(&w);
	world_open(&w);
	world_mount(&w);
	if (handles) {
		assert_int_equal(hands(do_read_handle, w.point), sizeof first_body - 1);
		assert_memory_equal(hands_last.data, first_body, sizeof first_body - 1);
	}
	assert_int_equal(hands(do_stat, one), 0);
	assert_true(last_stat()->st_ino == before);
	assert_int_equal(hands(do_stat, world_path(&w, "Archive/2024")), 0);
	assert_true(last_stat()->st_ino == dir_before);
	if (handles) {
		memory_expunge(w.server, "INBOX", 1);
		world_until(hands(do_stat, one) == -ENOENT);
		assert_int_equal(hands(do_drop_caches, "2"), 1);
		assert_int_equal(hands(do_read_handle, w.point), -ESTALE);
	}
	world_finish(&w);
}

static void test_umount_ends_it(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	assert_int_equal(hands(do_umount, w.point), 0);
	world_join(&w);
	world_mount(&w);
	if (geteuid() == 0) {
		/* an open file keeps the connection of a mount that is gone: mountinfo tells */
		assert_true(hands(do_keep, find(&w, "INBOX", "one")) >= 0);
		assert_int_equal(hands(do_umount_lazily, w.point), 0);
		world_join(&w);
		hands(do_close_kept, "");
	}
	world_finish(&w);
}

static void fill_quota(struct memory_server *s)
{
	fill(s);
	memory_quota(s, 3 * 4096, 10 * 4096);
}

static void test_statfs(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	const struct statvfs *s = (const struct statvfs *)(const void *)hands_last.data;
	assert_int_equal(hands(do_statvfs, w.point), 0);
	assert_true(s->f_blocks > 0 && s->f_files > 0 && s->f_bsize > 0 && s->f_namemax == 255);
	world_finish(&w);
	world_start(&w, fill_quota);
	struct quota quota;
	world_until(account_quota(w.account, &quota));
	assert_int_equal(hands(do_statvfs, world_path(&w, "INBOX")), 0);
	assert_true(s->f_blocks == 10 && s->f_bavail == 7 && s->f_frsize == 4096 && s->f_files > 0);
	world_finish(&w);
}

static void test_control_files(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char argument[1024];
	assert_int_equal(hands(do_list, world_path(&w, ".mailfs")), 10);
	assert_true(hands(do_read, world_path(&w, ".mailfs/status")) > 0);
	assert_true(hands(do_read, world_path(&w, ".mailfs/status.json")) > 0);
	assert_int_equal(hands_last.data[0], '{');
	int64_t len = hands_last.result;
	assert_int_equal(hands(do_stat, world_path(&w, ".mailfs/status.json")), 0);
	assert_true(last_stat()->st_size > 0 && len > 0);
	assert_true(hands(do_read, world_path(&w, ".mailfs/log")) >= 0);
	deliver(w.server, "INBOX", 9);
	world_until(hands(do_read, world_path(&w, ".mailfs/events")) > 0 && strstr((hands_last.data[hands_last.len] = '\0', hands_last.data), "number-9"));
	assert_int_equal(hands(do_stat, world_path(&w, ".mailfs/events")), 0);
	assert_true((uint64_t)last_stat()->st_size >= 1);
	snprintf(argument, sizeof argument, "sync>%s", world_path(&w, ".mailfs/ctl"));
	assert_int_equal(hands(do_echo, argument), 5);
	snprintf(argument, sizeof argument, "no-such-verb>%s", world_path(&w, ".mailfs/ctl"));
	assert_int_equal(hands(do_echo, argument), -EINVAL);
	assert_int_equal(hands(do_read, world_path(&w, ".mailfs/ctl")), -EACCES);
	assert_int_equal(hands(do_stat, world_path(&w, ".mailfs/nothing")), -ENOENT);
	world_finish(&w);
}

static void test_accounts_as_directories(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	world_unmount(&w);
	w.account_is_root = false;
	world_mount(&w);
	char name[256];
	assert_int_equal(hands(do_list, w.point), 4);
	assert_true(listed("work\n", name, sizeof name) && listed(".nomedia\n", name, sizeof name));
	assert_int_equal(hands(do_list, world_path(&w, "work")), 4);
	assert_int_equal(hands(do_list, world_path(&w, "work/INBOX")), 4);
	assert_int_equal(hands(do_list, world_path(&w, "other")), -ENOENT);
	assert_true(hands(do_read, world_path(&w, ".mailfs/status")) > 0);
	assert_true(hands(do_read, world_path(&w, "work/.mailfs/status")) > 0);
	assert_int_equal(hands(do_stat, world_path(&w, "work/.nomedia")), -ENOENT);
	world_finish(&w);
}

static enum mf_err try_mount(struct world *w, const char *point, const char *const *extra)
{
	struct mf_reason why = { 0 };
	struct fs *fs;
	struct fs_options options = { .mountpoint = point, .accounts = &w->account, .account_count = 1, .account_is_root = true, .bus = w->bus, .umask = 077, .extra = extra };
	enum mf_err err = fs_mount(&options, &fs, &why);
	assert_int_not_equal(err, MF_OK);
	assert_true(why.text[0] != '\0' && !strchr(why.text, '\n'));
	return err;
}

static void test_mounts_that_fail(void **state)
{
	(void)state;
	struct world w;
	world_start(&w, fill);
	char elsewhere[128];
	snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", w.dir);
	assert_int_equal(mkdir(elsewhere, 0700), 0);
	assert_int_equal(try_mount(&w, "/no/such/place", NULL), MF_NOT_FOUND);
	assert_int_equal(try_mount(&w, "/etc/passwd", NULL), MF_INVALID);
	assert_int_equal(try_mount(&w, elsewhere, (const char *const[]){ "no-such-option", NULL }), MF_INVALID);
	/* from here on the mount itself is looked at by this process: it serves on other threads */
	assert_int_equal(try_mount(&w, w.point, NULL), MF_BUSY);
	assert_int_equal(try_mount(&w, world_path(&w, "INBOX"), NULL), MF_INVALID);
	world_finish(&w);
}

/* an argument chooses tests: a pattern of their names; MAILFS_TRACE=fs,sync shows what happens */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing),
		cmocka_unit_test(test_bytes_and_stat),
		cmocka_unit_test(test_opening_fetches_nothing),
		cmocka_unit_test(test_what_came_ahead_is_given_with_the_open),
		cmocka_unit_test(test_large_message),
		cmocka_unit_test(test_read_only_mount), cmocka_unit_test(test_what_cannot_be),
		cmocka_unit_test(test_xattrs),
		cmocka_unit_test(test_changes_are_seen),
		cmocka_unit_test(test_listing_during_changes),
		cmocka_unit_test(test_expunged_while_open),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_interrupts_of_a_listing), cmocka_unit_test(test_end_of_a_first_list),
		cmocka_unit_test(test_stop_with_waiting_readers),
		cmocka_unit_test(test_parallel_readers),
		cmocka_unit_test(test_offline),
		cmocka_unit_test(test_sizes_that_lie),
		cmocka_unit_test(test_numbers_survive),
		cmocka_unit_test(test_umount_ends_it),
		cmocka_unit_test(test_statfs),
		cmocka_unit_test(test_control_files),
		cmocka_unit_test(test_accounts_as_directories),
		cmocka_unit_test(test_mounts_that_fail),
	};
	if (!world_begin(argc, argv))
		return 0;
	int result = cmocka_run_group_tests(tests, NULL, NULL);
	world_end();
	return result;
}

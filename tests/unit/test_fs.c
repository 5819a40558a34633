/* The pure parts of fs/: errnos, names that are probed, mountinfo, values of attributes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "fs/internal.h"
#include "fs/mountinfo.h"
#include "fs/xattr.h"
#include "sync/remote.h"

static void test_errnos(void **state)
{
	(void)state;
	static const struct { enum mf_err err; int number; } table[] = {
		{ MF_OK, 0 }, { MF_OFFLINE, ENETUNREACH }, { MF_TIMEOUT, ETIMEDOUT }, { MF_CANCELLED, EINTR }, { MF_NOT_FOUND, ENOENT },
		{ MF_STALE, ESTALE }, { MF_AUTH, EACCES }, { MF_TLS, EACCES }, { MF_DENIED, EACCES }, { MF_UNSUPPORTED, EPERM },
		{ MF_EXISTS, EEXIST }, { MF_QUOTA, EDQUOT }, { MF_TOO_BIG, EFBIG }, { MF_NO_SPACE, ENOSPC }, { MF_INVALID, EINVAL },
		{ MF_PROTOCOL, EIO }, { MF_IO, EIO }, { MF_CORRUPT, EIO }, { MF_NO_FILES, ENFILE },
	};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		assert_int_equal(fs_errno(table[i].err), table[i].number);
	/* programs lose data over EAGAIN, and over an EINTR that no interrupt caused; ENOSYS would be remembered for ever */
	for (int e = MF_OK; e <= MF_CORRUPT; e++) {
		int number = fs_errno((enum mf_err)e);
		assert_int_not_equal(number, EAGAIN);
		assert_int_not_equal(number, ENOSYS);
		assert_true(number != EINTR || e == MF_CANCELLED);
		assert_true((number == 0) == (e == MF_OK));
	}
}

static void test_probes(void **state)
{
	(void)state;
	static const char *const probed[] = { ".Trash", ".Trash-1000", ".hidden", "._x.eml", ".git", "HEAD", "autorun.inf", ".DS_Store", ".nomedia" };
	static const char *const others[] = { "INBOX", "Trash", "HEADER", ".Trashes", "2026-11-19_A_B_aaaaaaaa.eml", "", ".", ".mailfs" };
	for (size_t i = 0; i < sizeof probed / sizeof *probed; i++)
		assert_true(probe_name(probed[i]));
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		assert_false(probe_name(others[i]));
}

/* a table in a file of its own */
static struct mountinfo around(const char *table, const char *path)
{
	char file[] = "/tmp/mailfs-mounts-XXXXXX";
	int fd = mkstemp(file);
	assert_int_equal(write(fd, table, strlen(table)), (ssize_t)strlen(table));
	close(fd);
	struct mountinfo found = mountinfo_around_in(file, path);
	unlink(file);
	return found;
}

static void test_mountinfo(void **state)
{
	(void)state;
	static const char table[] =
		"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
		"90 22 0:50 / /home/a/My\\040Mail rw,nosuid - fuse.mailfs work rw,user_id=0\n"
		"91 22 0:51 / /mnt/under rw - fuse.mailfs imaps://a\\040b rw\n"
		"92 91 0:52 / /mnt/under rw shared:3 master:1 - tmpfs tmpfs rw\n"
		"93 22 0:53 / /mnt/other rw - fuse.mailfsx x rw\n"
		"broken line\n"
		"94 22 0:54 / /mnt/odd\\134name rw - fuse.mailfs - rw\n";
	static const struct { const char *path; struct mountinfo found; } cases[] = {
		{ "/home/a/My Mail", { 90, true, true } }, { "/home/a/My Mail/INBOX", { 90, true, false } },
		{ "/home/a/My Mailbox", { 22, false, false } }, { "/mnt/under", { 92, false, true } }, { "/mnt/other", { 93, false, true } },
		{ "/mnt/odd\\name", { 94, true, true } }, { "/", { 22, false, true } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mountinfo found = around(table, cases[i].path);
		assert_int_equal(found.id, cases[i].found.id);
		assert_int_equal(found.mailfs, cases[i].found.mailfs);
		assert_int_equal(found.exactly, cases[i].found.exactly);
	}
	assert_int_equal(around("", "/").id, 0);
	assert_int_equal(mountinfo_around_in("/no/such/file", "/").id, 0);
	assert_true(mountinfo_topmost("/") != 0);
	assert_true(mountinfo_has(mountinfo_topmost("/")));
	assert_false(mountinfo_has(UINT64_MAX));
	assert_true(mountinfo_topmost("/no such place") == 0);
}

static void mountpoints_are_resolved(void **state)
{
	(void)state;
	char directory[] = "/tmp/mailfs-cli-XXXXXX";
	assert_non_null(mkdtemp(directory));
	MF_CLEANUP(mf_free) char *inner = mf_format("%s/inner", directory);
	MF_CLEANUP(mf_free) char *link = mf_format("%s/link", directory);
	MF_CLEANUP(mf_free) char *slashes = mf_format("%s/./inner///", directory);
	assert_int_equal(mkdir(inner, 0700), 0);
	assert_int_equal(symlink("inner", link), 0);
	MF_CLEANUP(mf_free) char *a = mountinfo_resolve(slashes);
	MF_CLEANUP(mf_free) char *b = mountinfo_resolve(link);
	MF_CLEANUP(mf_free) char *c = mountinfo_resolve("/");
	assert_string_equal(a, inner);
	assert_string_equal(b, inner);
	assert_string_equal(c, "/");
	assert_null(mountinfo_resolve("/nowhere/at/all"));
	int before = open(".", O_PATH | O_DIRECTORY);
	assert_int_equal(chdir(directory), 0);
	MF_CLEANUP(mf_free) char *d = mountinfo_resolve("inner");
	MF_CLEANUP(mf_free) char *e = mountinfo_resolve(".");
	assert_string_equal(d, inner);
	assert_string_equal(e, directory);
	assert_int_equal(fchdir(before), 0);
	close(before);
	unlink(link);
	rmdir(inner);
	rmdir(directory);
}

static void test_fuse_conf(void **state)
{
	(void)state;
	static const struct { const char *text; bool allows; } table[] = {
		{ "user_allow_other\n", true }, { "# user_allow_other\n", false }, { "#user_allow_other\n", false },
		{ "mount_max = 1\n  user_allow_other # yes\n", true }, { "user_allow_others\n", false }, { "", false },
	};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		char path[] = "/tmp/mailfs-conf-XXXXXX";
		int fd = mkstemp(path);
		assert_int_equal(write(fd, table[i].text, strlen(table[i].text)), (ssize_t)strlen(table[i].text));
		close(fd);
		assert_int_equal(precheck_fuse_conf_allows_other(path), table[i].allows);
		unlink(path);
	}
	assert_false(precheck_fuse_conf_allows_other("/no/such/file"));
}

static void check_flags(unsigned flags, const char *keywords, const char *expected)
{
	struct buf b;
	buf_init(&b, 1024);
	xattr_flags_value(flags, keywords, &b);
	assert_string_equal(b.data, expected);
	buf_finish(&b);
}

static void test_flag_values(void **state)
{
	(void)state;
	check_flags(0, "", "");
	check_flags(0, NULL, "");
	check_flags(FLAG_SEEN, "", "\\Seen");
	check_flags(FLAG_FLAGGED | FLAG_SEEN, "$Work urgent", "\\Seen \\Flagged $Work urgent");
	check_flags(0, "$Work", "$Work");
	check_flags(FLAG_ANSWERED | FLAG_DELETED | FLAG_DRAFT, "", "\\Answered \\Draft \\Deleted");
}

static void test_other_values(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 1024);
	xattr_date_value(0, &b);
	assert_string_equal(b.data, "1970-01-01T00:00:00Z");
	buf_reset(&b);
	xattr_date_value(1795132800, &b);
	assert_string_equal(b.data, "2026-11-20T00:00:00Z");
	buf_finish(&b);
	assert_string_equal(xattr_use_value(USE_SENT), "\\Sent");
	assert_null(xattr_use_value(USE_NONE));
	assert_null(xattr_use_value(99));
	assert_string_equal(xattr_sync_value(SYNC_FULL), "full");
}

static void test_xattr_namespaces(void **state)
{
	(void)state;
	assert_false(xattr_is_ours("security.selinux"));
	assert_false(xattr_is_ours("system.posix_acl_access"));
	assert_true(xattr_is_ours("user.mail.flags"));
	assert_int_equal(xattr_set_refusal("security.capability"), ENOTSUP);
	assert_int_equal(xattr_set_refusal("user.mail.uid"), EPERM);
	assert_int_equal(xattr_set_refusal("user.mail.flags"), 0);
	assert_int_equal(xattr_set_refusal("user.mail.sync"), 0);
}

static void check_value(const char *value, bool good, bool is_delta, unsigned add, unsigned remove, const char *keywords_add, const char *keywords_remove)
{
	struct flag_change c;
	assert_int_equal(xattr_parse_flags(value, strlen(value), &c), good);
	if (good) {
		assert_int_equal(c.is_delta, is_delta);
		assert_int_equal(c.flags, add);
		assert_int_equal(c.flags_remove, remove);
		assert_string_equal(c.add.data, keywords_add);
		assert_string_equal(c.remove.data, keywords_remove);
	}
	flag_change_finish(&c);
}

static void test_flags_of_a_value(void **state)
{
	(void)state;
	check_value("", true, false, 0, 0, "", "");
	check_value("\\Seen  $Work\\ ", false, false, 0, 0, "", "");
	check_value("\\seen $Work x", true, false, FLAG_SEEN, 0, "$Work x", "");
	check_value("+\\Seen -\\Flagged +a -b", true, true, FLAG_SEEN, FLAG_FLAGGED, "a", "b");
	check_value("+a b", false, false, 0, 0, "", "");
	check_value("\\Recent", false, false, 0, 0, "", "");
	check_value("a(b", false, false, 0, 0, "", "");
	check_value("+", false, false, 0, 0, "", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errnos),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_mountinfo), cmocka_unit_test(mountpoints_are_resolved),
		cmocka_unit_test(test_fuse_conf),
		cmocka_unit_test(test_flag_values),
		cmocka_unit_test(test_other_values),
		cmocka_unit_test(test_xattr_namespaces), cmocka_unit_test(test_flags_of_a_value),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

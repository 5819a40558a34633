/* cache/append.c: what mailfs itself puts into a mailbox, and which mailbox is Sent, or Drafts. */
#include <fcntl.h>
#include <sys/mman.h>

#include "unit/test_cache_fixture.h"
#include "unit/test_journal_check.h"

#include "cache/spool.h"

#define NOW 1795000000

static uint64_t mailbox(struct fixture *f, const char *raw, unsigned use, unsigned flags)
{
	struct txn *t = begin(f);
	uint64_t id = 0;
	struct mailbox_said said = { .raw = raw, .delimiter = '/', .use = use, .flags = flags };
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	commit(t);
	return id;
}

static int file_with(const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return fd;
}

static enum mf_err append_as(struct fixture *f, uint64_t where, const struct append *what, uint64_t *ret)
{
	struct txn *t = begin(f);
	enum mf_err e = txn_append(t, where, what, ret);
	if (e)
		txn_rollback(t);
	else
		commit(t);
	check_index(f->c, f->state);
	return e;
}

static enum mf_err append(struct fixture *f, uint64_t where, const char *text, int64_t date, uint64_t *ret)
{
	MF_CLEANUP(mf_close) int fd = file_with(text);
	return append_as(f, where, &(struct append){ .fd = fd, .size = strlen(text), .internal_date = date, .flags = CACHE_MESSAGE_SEEN }, ret);
}

static const char letter[] = "From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nBcc: carol@example.org\r\nSubject: Hello there\r\n"
	"Message-ID: <1@example.org>\r\nDate: Thu, 19 Nov 2026 10:00:00 +0000\r\n\r\nText\r\n";

static void test_append(void **state)
{
	struct fixture *f = *state;
	uint64_t sent = mailbox(f, "Sent", CACHE_USE_SENT, 0), id = 0, other = 0;
	assert_int_equal(append(f, sent, letter, NOW, &id), MF_OK);
	MF_CLEANUP(message_finish) struct message m = { 0 };
	assert_int_equal(cache_message(f->c, id, &m), MF_OK);
	assert_true(m.entry.mailbox == sent && !m.entry.uid && m.entry.size == strlen(letter) && m.entry.mtime == NOW);
	assert_int_equal(m.flags, CACHE_MESSAGE_SEEN);
	assert_string_equal(m.message_id, "1@example.org");
	assert_non_null(strstr(m.name, "2026-11-19_Alice_Hello-there_"));
	uint64_t size;
	MF_CLEANUP(mf_close) int fd = -1;
	assert_int_equal(spool_open(f->c, id, &fd, &size), MF_OK);
	char bytes[sizeof letter] = "";
	assert_true(size == strlen(letter) && pread(fd, bytes, size, 0) == (ssize_t)size && !memcmp(bytes, letter, size));
	struct op op;
	assert_int_equal(journal_op(f->c, 1, &op), MF_OK);
	assert_true(op.kind == OP_APPEND && op.message == id && op.mailbox == sent && op.state == OP_QUEUED);
	op_finish(&op);
	/* the same once more, as after a crash: not again, also when it is older by a little or the index was closed */
	assert_int_equal(append(f, sent, letter, NOW + 60, &other), MF_EXISTS);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(append(f, sent, letter, NOW, &other), MF_EXISTS);
	assert_true(journal_count(f->c) == 1);
	/* one that the server has */
	uint64_t inbox = mailbox(f, "INBOX", CACHE_USE_INBOX, 0);
	assert_int_equal(append(f, inbox, letter, NOW, &other), MF_OK);
	assert_true(other != id);
}

static void test_without_an_id(void **state)
{
	struct fixture *f = *state;
	uint64_t sent = mailbox(f, "Sent", 0, 0), a = 0, b = 0;
	assert_int_equal(append(f, sent, "Subject: x\r\n\r\ny\r\n", NOW, &a), MF_OK);
	assert_int_equal(append(f, sent, "Subject: x\r\n\r\ny\r\n", NOW, &b), MF_OK);
	assert_true(a != b && journal_count(f->c) == 2);
	assert_int_equal(append(f, 999, letter, NOW, &b), MF_NOT_FOUND);
	uint64_t closed = mailbox(f, "Closed", 0, CACHE_MAILBOX_READONLY);
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, closed, true, 1, 1, 1, 1, true), MF_OK);
	commit(t);
	assert_int_equal(append(f, closed, letter, NOW, &b), MF_DENIED);
}

static enum mf_err sent(struct fixture *f, const char *path, char **ret)
{
	uint64_t id = 0;
	struct txn *t = begin(f);
	enum mf_err e = txn_sent(t, path, &id);
	if (e) {
		txn_rollback(t);
		return e;
	}
	commit(t);
	*ret = cache_mailbox_path(f->c, id);
	return MF_OK;
}

static void expect_sent(struct fixture *f, const char *path, const char *want)
{
	MF_CLEANUP(mf_free) char *found = NULL;
	assert_int_equal(sent(f, path, &found), MF_OK);
	assert_string_equal(found, want);
}

static void test_which_is_sent(void **state)
{
	struct fixture *f = *state;
	char *none = NULL;
	assert_int_equal(sent(f, NULL, &none), MF_OFFLINE);
	mailbox(f, "INBOX", CACHE_USE_INBOX, 0);
	expect_sent(f, NULL, "Sent");                   /* made */
	assert_true(journal_count(f->c) == 1);
	expect_sent(f, NULL, "Sent");
	expect_sent(f, "Archive/Mine", "Archive/Mine"); /* both levels */
	assert_true(journal_count(f->c) == 3);
	expect_sent(f, "Archive/Mine/", "Archive/Mine");
	assert_int_equal(sent(f, "/", &none), MF_INVALID);
	mailbox(f, "Gesendet", CACHE_USE_SENT, 0);
	expect_sent(f, NULL, "Gesendet");
	assert_true(journal_count(f->c) == 3);
}

static void test_sent_in_inbox(void **state)
{
	struct fixture *f = *state;
	mailbox(f, "INBOX", CACHE_USE_INBOX, 0);
	mailbox(f, "Other/Sent", 0, 0);
	mailbox(f, "INBOX/Sent", 0, 0);
	expect_sent(f, NULL, "INBOX/Sent");
	assert_true(journal_count(f->c) == 0);
}

static void expect_drafts(struct fixture *f, const char *want)
{
	uint64_t id = 0;
	struct txn *t = begin(f);
	assert_int_equal(txn_drafts(t, &id), MF_OK);
	commit(t);
	MF_CLEANUP(mf_free) char *found = cache_mailbox_path(f->c, id);
	assert_string_equal(found, want);
}

static void test_drafts(void **state)
{
	struct fixture *f = *state;
	uint64_t none = 0;
	struct txn *t = begin(f);
	assert_int_equal(txn_drafts(t, &none), MF_OFFLINE);
	txn_rollback(t);
	mailbox(f, "INBOX", CACHE_USE_INBOX, 0);
	mailbox(f, "Sent", CACHE_USE_SENT, 0);
	expect_drafts(f, "Drafts");                     /* made */
	expect_drafts(f, "Drafts");
	assert_true(journal_count(f->c) == 1);
	mailbox(f, "Entw&APw-rfe", CACHE_USE_DRAFTS, 0);
	expect_drafts(f, "Entw\xc3\xbcrfe");
	assert_true(journal_count(f->c) == 1);
}

/* The same draft once more is another one: no text is dropped. */
static void test_again(void **state)
{
	struct fixture *f = *state;
	uint64_t drafts = mailbox(f, "Drafts", 0, 0), a = 0, b = 0;
	MF_CLEANUP(mf_close) int fd = file_with(letter);
	struct append what = { .fd = fd, .size = strlen(letter), .internal_date = NOW, .flags = CACHE_MESSAGE_SEEN, .again = true };
	assert_int_equal(append_as(f, drafts, &what, &a), MF_OK);
	assert_int_equal(append_as(f, drafts, &what, &b), MF_OK);
	assert_true(a != b && journal_count(f->c) == 2);
}

/* where the server has all mailboxes of the user inside INBOX */
static void test_sent_is_made_at_home(void **state)
{
	struct fixture *f = *state;
	struct mailbox_said said = { .raw = "INBOX", .delimiter = '.', .use = CACHE_USE_INBOX, .flags = CACHE_MAILBOX_HOME };
	struct txn *t = begin(f);
	uint64_t id = 0;
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	commit(t);
	expect_sent(f, NULL, "INBOX/Sent");
	assert_true(journal_count(f->c) == 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_append, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_without_an_id, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_which_is_sent, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_sent_in_inbox, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_drafts, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_again, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_sent_is_made_at_home, fixture_setup, fixture_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

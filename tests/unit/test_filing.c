/* control/filing.c: who files copies of what was sent, and that they reach the server once. */
#include "control_world.h"

#include <sys/mman.h>

#include "cache/journal.h"
#include "control/filing.h"

static const char letter[] = "From: alice@example.org\r\nTo: bob@example.org\r\nSubject: filed\r\nMessage-ID: <f1@example.org>\r\n\r\nx\r\n";

static enum mf_err file(struct world *w, const char *text)
{
	MF_CLEANUP(mf_close) int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return filing_copy(w->account, 1, fd, strlen(text), "<f1@example.org>");
}

static size_t count_in(struct world *w, const char *mailbox)
{
	struct mailbox m = { 0 };
	struct uid_id *uids = NULL;
	size_t count = 0;
	if (cache_mailbox_by_path(w->cache, mailbox, &m) == MF_OK)
		assert_int_equal(cache_uids(w->cache, m.id, &uids, &count), MF_OK);
	free(uids);
	mailbox_finish(&m);
	return count;
}

static void test_filed(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	memory_mailbox_add(w->server, "Sent", 0, USE_SENT);
	assert_int_equal(file(w, letter), MF_OFFLINE);   /* nothing was ever listed */
	world_start(w);
	assert_int_equal(file(w, letter), MF_OK);
	AWAIT(count_in(w, "Sent") == 1 && journal_count(w->cache) == 0);
	assert_int_equal(file(w, letter), MF_OK);        /* as after a crash */
	poll(NULL, 0, 50);
	assert_int_equal(count_in(w, "Sent"), 1);
	assert_true(journal_count(w->cache) == 0);
	world_destroy(w);
}

static void test_elsewhere_and_nowhere(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	world_start(w);
	w->config->sent_mailbox = mf_strdup("Archive/Mine");
	assert_int_equal(file(w, letter), MF_OK);
	AWAIT(count_in(w, "Archive/Mine") == 1 && journal_count(w->cache) == 0);
	w->config->save_sent = SAVE_SENT_NO;
	assert_int_equal(file(w, "Subject: y\r\n\r\n"), MF_OK);
	assert_int_equal(count_in(w, "Archive/Mine"), 1);
	assert_true(journal_count(w->cache) == 0);
	world_destroy(w);
}

static bool wanted(struct world *w, const char *host, enum save_sent_policy policy)
{
	free(w->config->smtp.host);
	w->config->smtp.host = mf_strdup(host);
	w->config->save_sent = policy;
	return filing_wanted(w->account);
}

static void test_who_files(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	assert_true(wanted(w, "smtp.example.org", SAVE_SENT_AUTO));
	assert_true(wanted(w, "notgmail.com", SAVE_SENT_AUTO));
	assert_false(wanted(w, "smtp.gmail.com", SAVE_SENT_AUTO));
	assert_false(wanted(w, "SMTP.Office365.com", SAVE_SENT_AUTO));
	assert_true(wanted(w, "smtp.gmail.com", SAVE_SENT_YES));
	assert_false(wanted(w, "smtp.example.org", SAVE_SENT_NO));
	assert_int_equal(cache_set_note(w->cache, "imap-memory", "before-auth=X-GM-EXT-1\nafter-auth=IDLE X-GM-EXT-10 MOVE\n"), MF_OK);
	assert_true(wanted(w, "smtp.example.org", SAVE_SENT_AUTO));
	assert_int_equal(cache_set_note(w->cache, "imap-memory", "after-auth=IDLE X-GM-EXT-1\ndistrusted=\n"), MF_OK);
	assert_false(wanted(w, "smtp.example.org", SAVE_SENT_AUTO));
	char *imap = w->config->imap.host;
	w->config->imap.host = NULL;                     /* POP3 alone has no Sent */
	assert_false(wanted(w, "smtp.example.org", SAVE_SENT_YES));
	w->config->imap.host = imap;
	world_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filed), cmocka_unit_test(test_elsewhere_and_nowhere), cmocka_unit_test(test_who_files),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

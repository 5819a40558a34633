/* control/filing.c: who files copies of what was sent, and that they reach the server once; drafts. */
#include "control_world.h"

#include <sys/mman.h>

#include "cache/journal.h"
#include "control/filing.h"
#include "control/paths.h"
#include "support/smtp_server.h"

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

/* The end of a message had left and no answer came: what the server has in Sent was sent. */
static void test_maybe_sent(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	struct smtp_server smtp = { .record = memfd_create("record", MFD_CLOEXEC) };
	struct mf_reason why = { "" };
	struct outbox *outbox;
	struct outbox_options o = { .config = w->config, .state_dir = w->directory, .connect = server_connect, .connect_context = &smtp,
		.file_copy = filing_copy, .file_context = w->account };
	memory_mailbox_add(w->server, "Sent", 0, USE_SENT);
	world_start(w);
	w->config->from = mf_strdup("alice@example.org");
	w->config->send_delay_ms = 0;
	w->config->smtp.host = mf_strdup("smtp.example.org");
	assert_int_equal(outbox_open(&o, &outbox, &why), MF_OK);
	static const char text[] = "To: bob@x.org\nMessage-ID: <m1@x.org>\nX-Dot: close\n\n";
	uint64_t id;
	MF_CLEANUP(mf_close) int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(outbox_put(outbox, fd, &(struct outbox_put){ .at_once = true }, &id, &why), MF_OK);
	(void)outbox_send_due(outbox, &why);
	struct outbox_counts counts;
	outbox_counts(outbox, &counts);
	assert_int_equal(counts.maybe, 1);
	static const char filed[] = "To: bob@x.org\r\nMessage-ID: <m1@x.org>\r\n\r\n", other[] = "To: bob@x.org\r\nMessage-ID: <m11@x.org>\r\n\r\n";
	memory_deliver(w->server, "Sent", other, strlen(other), clock_wall_s(), 0);
	memory_deliver(w->server, "Sent", filed, strlen(filed), clock_wall_s(), 0);
	account_refresh(w->account);
	AWAIT(count_in(w, "Sent") == 2);
	filing_settle(w->account, outbox);          /* a server that does not file: who knows where that came from */
	outbox_counts(outbox, &counts);
	assert_int_equal(counts.maybe, 1);
	assert_true(wanted(w, "smtp.example.org", SAVE_SENT_AUTO));
	assert_false(wanted(w, "smtp.gmail.com", SAVE_SENT_AUTO));
	filing_settle(w->account, outbox);
	outbox_counts(outbox, &counts);
	assert_true(!counts.maybe && !counts.unfiled);
	assert_int_equal(count_in(w, "Sent"), 2);
	outbox_close(outbox);
	server_join(&smtp);
	close(smtp.record);
	world_destroy(w);
}

static bool take_last(void *context, const struct entry *e, const char *name)
{
	(void)name;
	*(uint64_t *)context = e->id;
	return true;
}

static enum mf_err draft(struct world *w, const char *text, char **ret_path, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *state = path_state("work");
	MF_CLEANUP(mf_close) int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(path_make_private(state, why), MF_OK);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return filing_draft(w->account, fd, ret_path, why);
}

static void test_draft(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	struct mf_reason why = { "" };
	char *path = NULL;
	memory_mailbox_add(w->server, "Entwuerfe", 0, USE_DRAFTS);
	assert_int_equal(draft(w, "Subject: plan\n\nsoon\n", &path, &why), MF_OFFLINE);
	assert_non_null(strstr(why.text, "listed"));
	world_start(w);
	assert_int_equal(draft(w, "no header\n", &path, &why), MF_INVALID);
	assert_int_equal(draft(w, "To: bob\nSubject: plan\n\nsoon\n", &path, &why), MF_OK);
	assert_non_null(strstr(path, "Entwuerfe/"));
	assert_non_null(strstr(path, "_plan_"));
	AWAIT(count_in(w, "Entwuerfe") == 1 && journal_count(w->cache) == 0);
	struct mailbox m = { 0 };
	MF_CLEANUP(message_finish) struct message made = { 0 };
	uint64_t id = 0;
	assert_int_equal(cache_mailbox_by_path(w->cache, "Entwuerfe", &m), MF_OK);
	assert_int_equal(cache_list(w->cache, m.id, 0, take_last, &id), MF_OK);
	assert_int_equal(cache_message(w->cache, id, &made), MF_OK);
	assert_int_equal(made.flags, FLAG_DRAFT | FLAG_SEEN);
	mailbox_finish(&m);
	free(path);
	char *imap = w->config->imap.host;
	w->config->imap.host = NULL;
	assert_int_equal(draft(w, "Subject: x\n\n", &path, &why), MF_UNSUPPORTED);
	w->config->imap.host = imap;
	world_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filed), cmocka_unit_test(test_elsewhere_and_nowhere), cmocka_unit_test(test_who_files),
		cmocka_unit_test(test_maybe_sent), cmocka_unit_test(test_draft),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

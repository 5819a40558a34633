/* control/filing.c: who files copies of what was sent, and that they reach the server once; drafts. */
#include "control_world.h"

#include <sys/mman.h>
#include <time.h>

#include "cache/journal.h"
#include "control/filing.h"
#include "control/paths.h"
#include "support/folders_fail.h"
#include "support/smtp_server.h"

static const char letter[] = "From: alice@example.org\r\nTo: bob@example.org\r\nSubject: filed\r\nMessage-ID: <f1@example.org>\r\n\r\nx\r\n";

static enum mf_err file_as(struct world *w, const char *text, bool first)
{
	MF_CLEANUP(mf_close) int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return filing_copy(w->account, 1, fd, strlen(text), "<f1@example.org>", first);
}

static enum mf_err file(struct world *w, const char *text)
{
	return file_as(w, text, false);
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

/* The outbox forgets the message when it is told that the copy is filed. */
static void test_not_on_the_disk(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	memory_mailbox_add(w->server, "Sent", 0, USE_SENT);
	world_start(w);
	folders_fail = true;
	assert_int_equal(file(w, letter), MF_IO);
	assert_int_equal(file(w, letter), MF_IO);        /* the row is there */
	folders_fail = false;
	assert_int_equal(file(w, letter), MF_OK);
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

/* A name that is there and takes no messages is no copy that is there: nothing is forgotten. */
static void test_sent_takes_none(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	memory_mailbox_add(w->server, "Sent", MAILBOX_NOSELECT, USE_NONE);
	memory_mailbox_add(w->server, "Sent/Mine", 0, USE_NONE);
	world_start(w);
	assert_int_equal(file_as(w, letter, true), MF_DENIED);
	assert_int_equal(file(w, letter), MF_DENIED);
	w->config->sent_mailbox = mf_strdup("Sent");
	enum mf_err err = file(w, letter);
	assert_true(err != MF_OK && err != MF_EXISTS);
	free(w->config->sent_mailbox);
	w->config->sent_mailbox = mf_strdup("Sent/Mine");
	assert_int_equal(file(w, letter), MF_OK);
	AWAIT(count_in(w, "Sent/Mine") == 1 && journal_count(w->cache) == 0);
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

/* --- a server that files by itself: found out ------------------------------------------------------------------------- */

static char *letter_with(const char *id)
{
	return mf_format("From: alice@example.org\r\nTo: bob@example.org\r\nSubject: filed\r\nMessage-ID: <%s@example.org>\r\n\r\nx\r\n", id);
}

/* With a field more than the copy would have */
static void server_puts(struct world *w, const char *id, int64_t date)
{
	MF_CLEANUP(mf_free) char *text = mf_format("Received: from me\r\nFrom: alice@example.org\r\nTo: bob@example.org\r\nSubject: filed\r\n"
	                                           "Message-ID: <%s@example.org>\r\n\r\nx\r\n", id);
	assert_true(memory_deliver(w->server, "Sent", text, strlen(text), date, 0));
}

static void sent_just_now(struct world *w, const char *id)
{
	MF_CLEANUP(mf_free) char *text = letter_with(id);
	assert_int_equal(file_as(w, text, true), MF_OK);
}

/* The time in which the server may put it there is over. */
static void time_is_over(struct world *w)
{
	clock_skew_for_tests(2 * filing_look_ms_for_tests);
	account_journal_changed(w->account);
	AWAIT(journal_count(w->cache) == 0);
}

struct rows { size_t count; uint64_t id; char name[256]; };

static bool take_row(void *context, const struct entry *e, const char *name)
{
	struct rows *r = context;
	r->count++;
	r->id = e->id;
	snprintf(r->name, sizeof r->name, "%s", name);
	return true;
}

static struct rows rows_of_sent(struct world *w)
{
	struct rows r = { 0 };
	struct mailbox m = { 0 };
	assert_int_equal(cache_mailbox_by_path(w->cache, "Sent", &m), MF_OK);
	assert_int_equal(cache_list(w->cache, m.id, 0, take_row, &r), MF_OK);
	mailbox_finish(&m);
	return r;
}

static struct world *filing_world(void)
{
	struct world *w = world_create(false, 65536);
	memory_mailbox_add(w->server, "Sent", 0, USE_SENT);
	w->config->smtp.host = mf_strdup("smtp.example.org");
	world_start(w);
	assert_string_equal(filing_word(w->account), "unknown");
	return w;
}

static void test_server_files(void **state)
{
	(void)state;
	struct world *w = filing_world();
	sent_just_now(w, "s1");
	struct rows before = rows_of_sent(w);
	assert_true(before.count == 1 && journal_count(w->cache) == 1);
	server_puts(w, "s1", clock_wall_s());
	time_is_over(w);
	struct rows after = rows_of_sent(w);
	assert_true(after.count == 1 && count_in(w, "Sent") == 1);
	assert_string_equal(after.name, before.name);
	MF_CLEANUP(message_finish) struct message m = { 0 };
	assert_int_equal(cache_message(w->cache, after.id, &m), MF_OK);
	assert_true(m.entry.uid && m.flags == FLAG_SEEN);
	assert_int_equal(memory_calls(w->server, MEMORY_WRITE), 1);      /* \Seen, and nothing was stored */
	/* remembered: no copies any more, while it is the same server */
	assert_string_equal(filing_word(w->account), "server");
	assert_false(filing_wanted(w->account));
	sent_just_now(w, "s2");
	assert_true(rows_of_sent(w).count == 1 && journal_count(w->cache) == 0);
	w->config->save_sent = SAVE_SENT_YES;
	assert_string_equal(filing_word(w->account), "mailfs");
	w->config->save_sent = SAVE_SENT_AUTO;
	free(w->config->smtp.host);
	w->config->smtp.host = mf_strdup("smtp.example.net");
	assert_string_equal(filing_word(w->account), "unknown");
	assert_true(filing_wanted(w->account));
	world_destroy(w);
}

/* Nothing was stored when the copy was to be, and the connection broke; the server puts its own there before the next one. */
static void test_server_files_meanwhile(void **state)
{
	(void)state;
	struct world *w = filing_world();
	sent_just_now(w, "t1");
	memory_login_result(w->server, MF_OFFLINE);
	memory_fail_call(w->server, MEMORY_WRITE, 1, MF_OFFLINE);
	clock_skew_for_tests(2 * filing_look_ms_for_tests);
	account_journal_changed(w->account);
	AWAIT(memory_calls(w->server, MEMORY_WRITE) == 1);
	server_puts(w, "t1", clock_wall_s());
	memory_login_result(w->server, MF_OK);
	account_connect(w->account);
	AWAIT(journal_count(w->cache) == 0);
	assert_true(rows_of_sent(w).count == 1 && count_in(w, "Sent") == 1);
	assert_string_equal(filing_word(w->account), "unknown"); /* that may have been ours */
	world_destroy(w);
}

/* The copy is removed, moved or flagged before it is looked for. */
static void test_changed_meanwhile(void **state)
{
	(void)state;
	struct world *w = filing_world();
	struct txn *t;
	memory_mailbox_add(w->server, "Archive", 0, USE_NONE);
	account_refresh(w->account);
	struct mailbox archive = { 0 };
	AWAIT(cache_mailbox_by_path(w->cache, "Archive", &archive) == MF_OK);
	sent_just_now(w, "c1");
	struct rows row = rows_of_sent(w);
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	assert_int_equal(txn_move(t, row.id, archive.id, row.name, &(struct disposal){ .expunge = true }), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	time_is_over(w);                                 /* stored there, whatever the server has in Sent */
	assert_true(count_in(w, "Archive") == 1 && count_in(w, "Sent") == 0);
	assert_string_equal(filing_word(w->account), "unknown");
	sent_just_now(w, "c2");
	row = rows_of_sent(w);
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	assert_int_equal(txn_set_flags(t, row.id, FLAG_FLAGGED, "$Work"), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	server_puts(w, "c2", clock_wall_s());
	time_is_over(w);
	row = rows_of_sent(w);
	MF_CLEANUP(message_finish) struct message m = { 0 };
	assert_int_equal(cache_message(w->cache, row.id, &m), MF_OK);
	assert_true(row.count == 1 && m.flags == FLAG_FLAGGED);
	assert_string_equal(m.keywords, "$Work");
	assert_string_equal(filing_word(w->account), "server");
	mailbox_finish(&archive);
	world_destroy(w);
}

static void test_server_does_not_file(void **state)
{
	(void)state;
	struct world *w = filing_world();
	/* of another message, and an older one with the Message-ID: sent before, and dropped into the outbox once more */
	server_puts(w, "other", clock_wall_s());
	server_puts(w, "n1", clock_wall_s() - 5 * 86400);
	account_refresh(w->account);
	AWAIT(count_in(w, "Sent") == 2);
	static const char *const ids[] = { "n1", "n2", "n3" };
	for (size_t i = 0; i < 3; i++) {
		assert_string_equal(filing_word(w->account), "unknown");
		sent_just_now(w, ids[i]);
		time_is_over(w);
		AWAIT(count_in(w, "Sent") == 3 + i);
	}
	assert_string_equal(filing_word(w->account), "mailfs");
	assert_true(filing_wanted(w->account));
	memory_forget_calls(w->server);
	sent_just_now(w, "n4");                          /* at once */
	AWAIT(count_in(w, "Sent") == 6 && journal_count(w->cache) == 0);
	world_destroy(w);
}

/* A synchronisation had brought the server's before mailfs was asked for a copy. */
static void test_seen_before(void **state)
{
	(void)state;
	struct world *w = filing_world();
	int64_t now_s = time(NULL);                      /* of the file's date, that no test sets */
	server_puts(w, "b1", now_s - 60);                /* sent a minute ago, and now once more: that says nothing */
	account_refresh(w->account);
	AWAIT(count_in(w, "Sent") == 1);
	sent_just_now(w, "b1");
	assert_true(journal_count(w->cache) == 0);
	assert_string_equal(filing_word(w->account), "unknown");
	server_puts(w, "b2", now_s + 3600);
	account_refresh(w->account);
	AWAIT(count_in(w, "Sent") == 2);
	sent_just_now(w, "b2");
	assert_string_equal(filing_word(w->account), "server");
	AWAIT(journal_count(w->cache) == 0);
	struct rows row = rows_of_sent(w);
	MF_CLEANUP(message_finish) struct message m = { 0 };
	assert_int_equal(cache_message(w->cache, row.id, &m), MF_OK);
	assert_true(row.count == 2 && m.flags == FLAG_SEEN);
	world_destroy(w);
}

/* Asked for again, as after a crash: what is there may have been stored by mailfs. */
static void test_not_the_first_time(void **state)
{
	(void)state;
	struct world *w = filing_world();
	sent_just_now(w, "a1");
	MF_CLEANUP(mf_free) char *text = letter_with("a1");
	assert_int_equal(file_as(w, text, false), MF_OK);
	time_is_over(w);
	assert_int_equal(file_as(w, text, false), MF_OK);
	assert_true(journal_count(w->cache) == 0 && count_in(w, "Sent") == 1);
	MF_CLEANUP(mf_free) char *second = letter_with("a2");
	server_puts(w, "a2", clock_wall_s());
	assert_int_equal(file_as(w, second, false), MF_OK);
	AWAIT(journal_count(w->cache) == 0);
	assert_string_equal(filing_word(w->account), "unknown");
	world_destroy(w);
}

struct sending {
	struct world *w;
	struct smtp_server smtp;
	struct outbox *outbox;
	uint64_t id;             /* of the message that was tried at once */
};

static void sending_begin(struct sending *s, const char *smtp_host, const char *text)
{
	struct world *w = s->w = world_create(false, 65536);
	struct mf_reason why = { "" };
	s->smtp.record = memfd_create("record", MFD_CLOEXEC);
	struct outbox_options o = { .config = w->config, .state_dir = w->directory, .connect = server_connect, .connect_context = &s->smtp,
		.file_copy = filing_copy, .file_context = w->account };
	memory_mailbox_add(w->server, "Sent", 0, USE_SENT);
	world_start(w);
	w->config->from = mf_strdup("alice@example.org");
	w->config->send_delay_ms = 0;
	w->config->smtp.host = mf_strdup(smtp_host);
	assert_int_equal(outbox_open(&o, &s->outbox, &why), MF_OK);
	MF_CLEANUP(mf_close) int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(outbox_put(s->outbox, fd, &(struct outbox_put){ .at_once = true }, &s->id, &why), MF_OK);
	(void)outbox_send_due(s->outbox, &why);
}

static void sending_end(struct sending *s)
{
	outbox_close(s->outbox);
	server_join(&s->smtp);
	close(s->smtp.record);
	world_destroy(s->w);
}

static uint64_t maybe_sent(struct sending *s)
{
	struct outbox_counts counts;
	outbox_counts(s->outbox, &counts);
	assert_int_equal(counts.unfiled, 0);
	return counts.maybe;
}

/* What the server has in Sent by now */
static void sent_has(struct sending *s, const char *text, size_t count)
{
	memory_deliver(s->w->server, "Sent", text, strlen(text), clock_wall_s(), 0);
	account_refresh(s->w->account);
	AWAIT(count_in(s->w, "Sent") == count);
}

#define FILED(id) "To: bob@x.org\r\nMessage-ID: <" id "@x.org>\r\n\r\n"

/* The end of a message had left and no answer came: what the server has in Sent was sent. */
static void test_maybe_sent(void **state)
{
	(void)state;
	struct sending s = { 0 };
	sending_begin(&s, "smtp.example.org", "To: bob@x.org\nMessage-ID: <m1@x.org>\nX-Dot: close\n\n");
	assert_int_equal(maybe_sent(&s), 1);
	sent_has(&s, FILED("m11"), 1);
	sent_has(&s, FILED("m1"), 2);
	filing_settle(s.w->account, s.outbox);      /* a server that does not file: who knows where that came from */
	assert_int_equal(maybe_sent(&s), 1);
	assert_true(wanted(s.w, "smtp.example.org", SAVE_SENT_AUTO));
	assert_false(wanted(s.w, "smtp.gmail.com", SAVE_SENT_AUTO));
	filing_settle(s.w->account, s.outbox);
	assert_int_equal(maybe_sent(&s), 0);
	assert_int_equal(count_in(s.w, "Sent"), 2);
	sending_end(&s);
}

/* One had got it before: that is what the server has put into Sent, and says nothing of the other. */
static void test_maybe_sent_to_the_rest(void **state)
{
	(void)state;
	struct sending s = { 0 };
	struct mf_reason why = { "" };
	struct outbox_item item;
	sending_begin(&s, "smtp.gmail.com", "To: bob@x.org, later@x.org\nMessage-ID: <m1@x.org>\n\n");
	sent_has(&s, FILED("m1"), 1);
	s.smtp.accept_later = s.smtp.close_at_dot = true;
	assert_int_equal(outbox_retry(s.outbox, s.id, NULL), MF_OK);
	(void)outbox_send_due(s.outbox, &why);
	assert_int_equal(outbox_item(s.outbox, s.id, &item), MF_OK);
	assert_true(item.state == OUTBOX_MAYBE && item.sent == 1);
	outbox_item_finish(&item);
	filing_settle(s.w->account, s.outbox);
	assert_int_equal(maybe_sent(&s), 1);
	sending_end(&s);
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
	filing_look_ms_for_tests = 3600000;              /* nothing happens before time_is_over() */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filed), cmocka_unit_test(test_not_on_the_disk), cmocka_unit_test(test_elsewhere_and_nowhere), cmocka_unit_test(test_sent_takes_none),
		cmocka_unit_test(test_who_files),
		cmocka_unit_test(test_server_files), cmocka_unit_test(test_server_files_meanwhile), cmocka_unit_test(test_changed_meanwhile), cmocka_unit_test(test_server_does_not_file),
		cmocka_unit_test(test_seen_before), cmocka_unit_test(test_not_the_first_time), cmocka_unit_test(test_maybe_sent), cmocka_unit_test(test_maybe_sent_to_the_rest), cmocka_unit_test(test_draft),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

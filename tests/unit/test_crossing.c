/* sync/crossing: a mailbox read anew by another protocol: messages of before get the date of before, and flags where there
 * are none; and the index then knows them again */
#include "test_cache_fixture.h"

#include "sync/crossing.h"

struct mail { const char *header; uint64_t size; int64_t date; unsigned flags; const char *keywords; };

static uint64_t inbox(struct fixture *f)
{
	struct txn *t;
	uint64_t id;
	assert_int_equal(cache_begin(f->c, &t), MF_OK);
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = "INBOX" }, &id), MF_OK);
	assert_int_equal(txn_mailbox_synced(t, id, false, 7, 1, 0, 1, false), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	return id;
}

static uint64_t bring(struct fixture *f, uint64_t mailbox, uint32_t uid, const struct mail *m)
{
	struct txn *t;
	struct mail_summary summary;
	uint64_t id;
	mail_summary_parse(m->header, strlen(m->header), m->size, &summary);
	assert_int_equal(cache_begin(f->c, &t), MF_OK);
	assert_int_equal(txn_message_put(t, &(struct message_put){ .mailbox = mailbox, .uid = uid, .size = m->size, .internal_date = m->date, .flags = m->flags,
	                                 .keywords = m->keywords, .summary = &summary }, &id), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	mail_summary_finish(&summary);
	return id;
}

static struct remote_message told(const struct mail *m, int64_t date)
{
	return (struct remote_message){ .uid = 1, .size = m->size, .has_size = true, .internal_date = date, .keywords = "", .header = m->header,
		.header_len = strlen(m->header) };
}

static const struct mail mails[] = {
	{ "Message-ID: <a@b>\r\nSubject: a\r\n", 100, 1000, 1, "$Work" }, { "Message-ID: <a@b>\r\nSubject: a\r\n", 100, 2000, 0, "" },
	{ "Message-ID: <a@b>\r\nSubject: a\r\n", 101, 3000, 4, "" }, { "Subject: no id\r\nFrom: x@y\r\n", 50, 4000, 1, "" },
};
enum { MAILS = sizeof mails / sizeof *mails };

static void applied(void **state)
{
	struct fixture *f = *state;
	struct crossing *c;
	uint64_t mailbox = inbox(f);
	for (uint32_t i = 0; i < MAILS; i++)
		bring(f, mailbox, i + 1, &mails[i]);
	assert_int_equal(crossing_create(f->c, mailbox, &c), MF_OK);
	/* the one of two twins that has the date, then the other, then none is left */
	struct remote_message m = told(&mails[1], 2000);
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 2000);
	assert_int_equal(m.flags, 0);
	m = told(&mails[0], 999);
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 1000);
	assert_int_equal(m.flags, 1);
	assert_string_equal(m.keywords, "$Work");
	m = told(&mails[0], 999);
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 999);
	assert_int_equal(m.flags, 0);
	/* another size is another message; the server's own flags stay */
	m = told(&mails[2], 5);
	m.flags = 2;
	crossing_apply(c, &m, true);
	assert_int_equal(m.internal_date, 3000);
	assert_int_equal(m.flags, 2);
	m = told(&mails[3], 5);
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 4000);
	/* nothing to know it by */
	m = told(&mails[3], 5);
	m.header = NULL;
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 5);
	struct mail other = { "Message-ID: <z@b>\r\n", 100, 0, 0, "" };
	m = told(&other, 5);
	crossing_apply(c, &m, false);
	assert_int_equal(m.internal_date, 5);
	crossing_destroy(c);
	crossing_destroy(NULL);
}

static void known_again(void **state)
{
	struct fixture *f = *state;
	struct crossing *c;
	struct txn *t;
	uint64_t mailbox = inbox(f), ids[MAILS];
	for (uint32_t i = 0; i < MAILS; i++)
		ids[i] = bring(f, mailbox, i + 1, &mails[i]);
	assert_int_equal(cache_begin(f->c, &t), MF_OK);
	assert_int_equal(txn_mailbox_renumbered(t, mailbox, 8), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	/* now, as after a crash in the middle: what has stepped aside counts too */
	assert_int_equal(crossing_create(f->c, mailbox, &c), MF_OK);
	bool seen[MAILS] = { false };
	for (uint32_t i = MAILS; i-- > 0;) {
		struct remote_message m = told(&mails[i], 77);
		crossing_apply(c, &m, false);
		struct mail again = { mails[i].header, mails[i].size, m.internal_date, m.flags, m.keywords };
		uint64_t id = bring(f, mailbox, i + 11, &again);
		for (uint32_t k = 0; k < MAILS; k++)
			seen[k] |= ids[k] == id;
	}
	for (uint32_t k = 0; k < MAILS; k++)
		assert_true(seen[k]);
	crossing_destroy(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(applied, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(known_again, fixture_setup, fixture_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

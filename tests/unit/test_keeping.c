/* leave-on-server: what is to go from a POP3 server goes once it is stored here, and not before. */
#include "account_world.h"

#include "cache/journal.h"
#include "cache/spool.h"

#define DAY 86400

static int setup_with(void **state, int days)
{
	struct world *w = malloc(sizeof *w);
	struct mf_reason why;
	world_init(w);
	assert_int_equal(account_config_set(w->config, "pop3", "pop3s://pop.example.org", false, &why), MF_OK);
	w->config->leave_on_server_days = days;
	w->config->connections = 1;
	w->config->idle = false;
	w->config->poll_ms = 3600000;
	memory_caps(w->server, 0);
	cache_close(w->cache);
	world_open_cache(w);
	*state = w;
	return 0;
}

static int setup_no(void **state)
{
	return setup_with(state, 0);
}

static int setup_days(void **state)
{
	return setup_with(state, 30);
}

static int setup_yes(void **state)
{
	return setup_with(state, -1);
}

static int teardown(void **state)
{
	world_finish(*state);
	free(*state);
	return 0;
}

static enum mf_err settle(struct world *w)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	if (account_want_settled(w->account, waiter_done, &t, &e, &t.want))
		return e;
	return waiter_wait(&t);
}

/* not there any more; where it is, it is taken away */
static bool server_has(struct world *w, uint32_t uid)
{
	return memory_expunge(w->server, "INBOX", uid);
}

static size_t kept(struct world *w)
{
	struct cache_kept k;
	assert_int_equal(cache_kept(w->cache, &k), MF_OK);
	return k.messages;
}

static size_t shown(struct world *w)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	assert_int_equal(cache_mailbox_by_raw(w->cache, "INBOX", &m), MF_OK);
	return m.total;
}

static void everything_is_taken(void **state)
{
	struct world *w = *state;
	enum { COUNT = 700 }; /* more than in one step */
	uint32_t uids[COUNT];
	for (int i = 0; i < COUNT; i++)
		uids[i] = deliver(w, "INBOX", i, 500);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t some = message_id(w, "INBOX", uids[77]);
	assert_int_equal(settle(w), MF_OK);
	assert_int_equal(kept(w), COUNT);
	assert_int_equal(journal_count(w->cache), 0);
	assert_int_equal(kept(w), COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_false(server_has(w, uids[i]));
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(shown(w), COUNT);
	if (some) {
		assert_true(spool_has(w->cache, some));
		assert_int_equal(read_whole(w, some, 77, 500), MF_OK);
	}
	/* what comes later too, and what is here stays */
	uint32_t uid = deliver(w, "INBOX", COUNT, 500);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	assert_false(server_has(w, uid));
	assert_int_equal(kept(w), COUNT + 1);
}

static void only_what_is_old_enough(void **state)
{
	struct world *w = *state;
	int64_t now = clock_wall_s();
	static const char old_text[] = "Subject: old\r\nMessage-ID: <old@example.org>\r\n\r\nold\r\n", new_text[] = "Subject: new\r\n\r\nnew\r\n";
	uint32_t old = memory_deliver(w->server, "INBOX", old_text, sizeof old_text - 1, now - 31 * DAY, 0);
	uint32_t fresh = memory_deliver(w->server, "INBOX", new_text, sizeof new_text - 1, now - 29 * DAY, 0);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	assert_int_equal(kept(w), 1);
	assert_false(server_has(w, old));
	assert_true(server_has(w, fresh));
}

/* Without a date of its own it is as old as it is known here. */
static void without_a_date(void **state)
{
	struct world *w = *state;
	static const char text[] = "Subject: no date\r\nMessage-ID: <dateless@example.org>\r\n\r\nold\r\n";
	uint32_t uid = memory_deliver(w->server, "INBOX", text, sizeof text - 1, 0, 0);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	assert_int_equal(kept(w), 0);
	clock_skew_for_tests(31LL * DAY * 1000);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	clock_skew_for_tests(-31LL * DAY * 1000);
	assert_int_equal(kept(w), 1);
	assert_false(server_has(w, uid));
}

static void yes_is_for_ever(void **state)
{
	struct world *w = *state;
	uint32_t uid = deliver(w, "INBOX", 1, 500);
	world_start(w);
	assert_int_equal(want_sync(w, true), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	assert_int_equal(kept(w), 0);
	assert_true(server_has(w, uid));
}

/* some servers do not show again what they have shown */
static void what_is_here_is_stored_before_the_server_is_asked(void **state)
{
	struct world *w = *state;
	uint32_t read = deliver(w, "INBOX", 1, 500), unread = deliver(w, "INBOX", 2, 500);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t id = message_id(w, "INBOX", read);
	assert_int_equal(read_whole(w, id, 1, 500), MF_OK);
	world_stop(w);
	w->config->leave_on_server_days = 0;
	assert_true(memory_expunge(w->server, "INBOX", read));
	assert_true(memory_expunge(w->server, "INBOX", unread));
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_OK);
	assert_int_equal(shown(w), 1);
	assert_int_equal(kept(w), 1);
	assert_int_equal(journal_count(w->cache), 0);
	assert_true(spool_has(w->cache, id));
	assert_int_equal(read_whole(w, id, 1, 500), MF_OK);
}

static void cut_anywhere(void **state)
{
	struct world *w = *state;
	enum { COUNT = 20 };
	uint32_t uids[COUNT];
	for (int i = 0; i < COUNT; i++)
		uids[i] = deliver(w, "INBOX", i, 3000);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	/* each connection brings a little more than the last */
	for (unsigned answers = 3; kept(w) < COUNT && answers < 400; answers += 7) {
		memory_cut_answers(w->server, answers);
		account_connect(w->account);
		(void)want_sync(w, false);
		(void)settle(w);
		assert_true(shown(w) == COUNT);
	}
	memory_cut_answers(w->server, 1000000);
	account_connect(w->account);
	world_until(kept(w) == COUNT && journal_count(w->cache) == 0);
	world_restart(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(shown(w), COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_false(server_has(w, uids[i]));
}

static void refused_by_the_server(void **state)
{
	struct world *w = *state;
	for (int i = 0; i < 5; i++)
		deliver(w, "INBOX", i, 500);
	memory_refuse_writes(w->server, WRITE_EXPUNGE, MF_DENIED);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(settle(w), MF_DENIED);
	assert_int_equal(kept(w), 0);
	assert_int_equal(shown(w), 5);
	struct journal_totals totals;
	assert_int_equal(journal_totals(w->cache, &totals), MF_OK);
	assert_int_equal(totals.parked, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(everything_is_taken, setup_no, teardown),
		cmocka_unit_test_setup_teardown(only_what_is_old_enough, setup_days, teardown),
		cmocka_unit_test_setup_teardown(without_a_date, setup_days, teardown),
		cmocka_unit_test_setup_teardown(yes_is_for_ever, setup_yes, teardown),
		cmocka_unit_test_setup_teardown(what_is_here_is_stored_before_the_server_is_asked, setup_yes, teardown),
		cmocka_unit_test_setup_teardown(cut_anywhere, setup_no, teardown),
		cmocka_unit_test_setup_teardown(refused_by_the_server, setup_no, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

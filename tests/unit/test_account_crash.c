/* The end state is the same wherever the connection was cut or the process ended on the way. */
#include "account_world.h"

#define INBOX 60
#define LISTS 25

static void build(struct world *w)
{
	world_init(w);
	w->config->idle = false;
	w->config->sync = SYNC_FULL;
	memory_mailbox_add(w->server, "Lists", 0, USE_NONE);
	for (int i = 1; i <= INBOX; i++)
		deliver(w, "INBOX", i, 700);
	for (int i = 1; i <= LISTS; i++)
		deliver(w, "Lists", 100 + i, 700);
}

/* the server changes while nobody is connected */
static void change(struct world *w)
{
	for (uint32_t uid = 5; uid <= 15; uid += 5)
		assert_true(memory_expunge(w->server, "INBOX", uid));
	assert_true(memory_flag(w->server, "INBOX", 20, FLAG_SEEN, "$Work"));
	assert_true(memory_move(w->server, "INBOX", 30, "Lists") != 0);
	memory_renumber(w->server, "Lists");
	deliver(w, "INBOX", INBOX + 1, 700);
}

static bool is_settled(struct world *w)
{
	struct account_progress p;
	account_progress(w->account, &p);
	return p.doing[0] == 0 && p.queued == 0;
}

static void check(struct world *w)
{
	enum mf_err e;
	while ((e = want_sync(w, true)) == MF_OFFLINE)
		account_connect(w->account);
	assert_int_equal(e, MF_OK);
	world_until(is_settled(w));
	assert_int_equal(message_count(w, "INBOX"), INBOX - 3);
	assert_int_equal(message_count(w, "Lists"), LISTS + 1);
	assert_int_equal(message_flags(w, message_id(w, "INBOX", 20)), FLAG_SEEN);
	assert_int_equal(message_id(w, "INBOX", 5), 0);
	for (uint32_t uid = 1; uid <= INBOX + 1; uid++) {
		uint64_t id = message_id(w, "INBOX", uid);
		if (id)
			assert_int_equal(read_whole(w, id, (int)uid, 700), MF_OK);
	}
	struct cache_totals totals;
	cache_totals(w->cache, &totals);
	assert_int_equal(totals.messages, INBOX - 3 + LISTS + 1);
}

/* how many answers the whole thing takes when nothing goes wrong */
static unsigned uninterrupted(void)
{
	struct world w;
	build(&w);
	world_start(&w);
	assert_int_equal(want_sync(&w, true), MF_OK);
	world_stop(&w);
	change(&w);
	world_start(&w);
	check(&w);
	unsigned answers = memory_answers(w.server);
	world_finish(&w);
	return answers;
}

static void cut_anywhere(void **state)
{
	(void)state;
	unsigned answers = uninterrupted();
	assert_true(answers > 150);
	for (unsigned n = 0; n < answers; n += world_stride(answers)) {
		struct world w;
		build(&w);
		memory_cut_answers(w.server, n);
		world_start(&w);
		(void)want_sync(&w, true); /* it may or may not get through */
		world_stop(&w);
		change(&w);
		world_start(&w);
		check(&w);
		world_finish(&w);
	}
}

/* the process ends at that answer: nothing more is done, the index is opened anew */
static void ended_anywhere(void **state)
{
	(void)state;
	unsigned answers = uninterrupted();
	for (unsigned n = 1; n < answers; n += world_stride(answers)) {
		struct world w;
		build(&w);
		world_start(&w);
		assert_int_equal(want_sync(&w, false), MF_OK);
		change(&w);
		unsigned before = memory_answers(w.server);
		struct waiter t;
		enum mf_err e;
		waiter_init(&t);
		assert_false(account_want_sync(w.account, NULL, 0, true, waiter_done, &t, &e, &t.want));
		while (memory_answers(w.server) < before + n && !waiter_is_done(&t))
			;
		world_stop(&w);
		assert_true(waiter_is_done(&t));
		cache_close(w.cache);
		world_open_cache(&w);
		world_start(&w);
		check(&w);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(cut_anywhere), cmocka_unit_test(ended_anywhere)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

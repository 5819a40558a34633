/* replay: a server that has UIDPLUS, and does not say where a message is that it copied or moved (RFC 6851 4.3: it SHOULD) */
#include "unit/replay_world.h"

static size_t count_of(const char *text, const char *line)
{
	size_t count = 0;
	for (const char *at = text; (at = strstr(at, line)); at++)
		count++;
	return count;
}

/* Looking tells. What was to be done with a message afterwards is done, nothing is there twice, and what is gone has gone */
static void found_by_looking(void **state)
{
	(void)state;
	static const unsigned caps[] = { FULL, FULL & ~(unsigned)REMOTE_MOVE };
	for (size_t c = 0; c < sizeof caps / sizeof *caps; c++) {
		struct world w;
		build(&w, caps[c]);
		memory_tell_no_copies(w.server, true);
		go_offline(&w);
		move_number(&w, "INBOX", 1, "Work", "moved.eml");
		DO(&w, txn_change_flags(t, numbered(&w, "Work", 1), FLAG_FLAGGED, 0, NULL, NULL));
		move_number(&w, "INBOX", 2, "Work", "gone.eml");
		copy_number(&w, "INBOX", 5, "Work", "copy.eml");
		assert_true(memory_expunge(w.server, "INBOX", 2));
		account_connect(w.account);
		assert_settled_as(&w, NULL, "nobody says where");
		char *text = server_text(&w);
		assert_int_equal(count_of(text, "/Message number 1 "), 1);
		assert_int_equal(count_of(text, "Work/Message number 1 4 "), 1);
		assert_int_equal(count_of(text, "/Message number 2 "), 0);
		assert_int_equal(count_of(text, "/Message number 5 "), 2);
		free(text);
		world_finish(&w);
	}
}

/* What was flagged offline, and moved by another client before that was told: the flag goes after it */
static void flagged_where_it_went(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		DO(&w, txn_change_flags(t, numbered(&w, "INBOX", 1), FLAG_FLAGGED, 0, NULL, NULL));
		assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
		account_connect(w.account);
		assert_settled_as(&w, NULL, "moved by another");
		char *text = server_text(&w);
		assert_int_equal(count_of(text, "Work/Message number 1 4 "), 1);
		free(text);
		world_finish(&w);
	}
}

/* A change of flags is on its way when another client moves one message, removes one and flags one likewise: OK says nothing of
 * that. What was moved is flagged where it is, what has gone is let go, and nothing is sent twice for the third. */
static void flagged_as_it_went(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		for (int i = 1; i <= 4; i++)
			DO(&w, txn_change_flags(t, numbered(&w, "INBOX", i), FLAG_FLAGGED, 0, NULL, NULL));
		memory_block(w.server, MEMORY_WRITE);
		account_connect(w.account);
		assert_true(memory_await_blocked(w.server, PATIENCE_MS));
		assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
		assert_true(memory_expunge(w.server, "INBOX", 2));
		assert_true(memory_flag(w.server, "INBOX", 3, FLAG_FLAGGED, ""));
		memory_forget_calls(w.server);
		memory_release(w.server);
		assert_settled_as(&w, NULL, "moved while it was flagged");
		char *text = server_text(&w);
		assert_int_equal(count_of(text, "Work/Message number 1 4 "), 1);
		assert_int_equal(count_of(text, "/Message number 2 "), 0);
		assert_int_equal(count_of(text, "INBOX/Message number 3 4 "), 1);
		assert_int_equal(count_of(text, "INBOX/Message number 4 4 "), 1);
		assert_int_equal(memory_calls(w.server, MEMORY_WRITE), 1); /* behind the one that was blocked: what was moved */
		free(text);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(found_by_looking), cmocka_unit_test(flagged_where_it_went), cmocka_unit_test(flagged_as_it_went) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* replay: what is overwritten, and not to be kept, is replaced in one step where the server can */
#include "unit/replay_world.h"

#define REPLACING (FULL | REMOTE_REPLACE)

/* INBOX has 1 to 6. The new versions of some, one with flags, and another message */
static void overwrite(struct world *w)
{
	DO(w, txn_change_flags(t, numbered(w, "INBOX", 2), FLAG_FLAGGED, 0, NULL, NULL));
	write_number(w, numbered(w, "INBOX", 1), 51, &expunge);
	write_number(w, numbered(w, "INBOX", 2), 52, &expunge);
	write_number(w, numbered(w, "INBOX", 3), 53, &expunge);
	create_number(w, "INBOX", "new.eml", 54);
}

static void assert_replaced(struct world *w)
{
	char *text = server_text(w);
	static const struct { int number; unsigned times; } wanted[] = { { 1, 0 }, { 2, 0 }, { 3, 0 }, { 4, 1 }, { 51, 1 }, { 52, 1 }, { 53, 1 }, { 54, 1 } };
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		MF_CLEANUP(mf_free) char *line = mf_format("INBOX/Message number %d ", wanted[i].number);
		char *at = strstr(text, line), *again = at ? strstr(at + 1, line) : NULL;
		if (!at != !wanted[i].times || again)
			fail_msg("\"%s\" is not %u times in\n%s", line, wanted[i].times, text);
	}
	assert_non_null(strstr(text, "INBOX/Message number 52 4 "));
	free(text);
}

static void in_one_step(void **state)
{
	(void)state;
	struct world w;
	build(&w, REPLACING);
	go_offline(&w);
	write_number(&w, numbered(&w, "INBOX", 1), 51, &expunge);
	memory_refuse_writes(w.server, WRITE_APPEND, MF_DENIED);
	memory_refuse_writes(w.server, WRITE_EXPUNGE, MF_DENIED);
	account_connect(w.account);
	assert_settled_as(&w, NULL, "replaced");
	assert_true(numbered(&w, "INBOX", 51) != 0);
	world_finish(&w);
}

/* The old version goes to Trash, or is to be removed later, or something else comes before that: as two */
static void not_in_one_step(void **state)
{
	(void)state;
	struct world w;
	build(&w, REPLACING);
	go_offline(&w);
	struct disposal later = { .expunge = true, .delay_ms = 3600000 }, how = to_trash(&w);
	uint64_t made = 0;
	DO(&w, txn_create(t, box(&w, "Work"), "copy.eml", &made));
	DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 3), 0));
	write_number(&w, numbered(&w, "INBOX", 1), 51, &how);
	write_number(&w, numbered(&w, "INBOX", 2), 52, &later);
	write_number(&w, numbered(&w, "INBOX", 3), 53, &expunge);
	memory_refuse_writes(w.server, WRITE_REPLACE, MF_DENIED);
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_OK);
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Trash/Message number 1 "));
	assert_non_null(strstr(text, "INBOX/Message number 2 "));
	assert_null(strstr(text, "INBOX/Message number 3 "));
	assert_non_null(strstr(text, "Work/Message number 3 "));
	free(text);
	world_finish(&w);
}

/* It is refused, whatever for: the new one is stored all the same */
static void refused(void **state)
{
	(void)state;
	static const enum mf_err reasons[] = { MF_NOT_FOUND, MF_DENIED, MF_PROTOCOL, MF_UIDVALIDITY };
	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
		struct world w;
		build(&w, REPLACING);
		go_offline(&w);
		overwrite(&w);
		memory_refuse_writes(w.server, WRITE_REPLACE, mf_err_scope(reasons[i]) <= MF_SCOPE_MAILBOX ? reasons[i] : MF_DENIED);
		account_connect(w.account);
		assert_settled_as(&w, NULL, "refused");
		assert_replaced(&w);
		world_finish(&w);
	}
}

/* Overwritten once more when the first is marked, or gone at the server by then */
static void meanwhile(void **state)
{
	(void)state;
	for (unsigned gone = 0; gone < 2; gone++) {
		struct world w;
		build(&w, REPLACING);
		go_offline(&w);
		write_number(&w, numbered(&w, "INBOX", 1), 51, &expunge);
		memory_block(w.server, MEMORY_WRITE);
		account_connect(w.account);
		assert_true(memory_await_blocked(w.server, PATIENCE_MS));
		if (gone)
			assert_true(memory_expunge(w.server, "INBOX", 1));
		else
			write_number(&w, numbered(&w, "INBOX", 51), 52, &expunge);
		memory_release(w.server);
		assert_settled_as(&w, NULL, gone ? "gone" : "overwritten again");
		char *text = server_text(&w);
		assert_null(strstr(text, "INBOX/Message number 1 "));
		assert_true((strstr(text, "INBOX/Message number 51 ") != NULL) == gone);
		assert_true((strstr(text, "INBOX/Message number 52 ") == NULL) == gone);
		free(text);
		world_finish(&w);
	}
}

/* The connection is lost at each answer in turn; or the process ends there, and another goes on */
static void cut_anywhere(void **state)
{
	(void)state;
	static const unsigned caps[] = { REPLACING, REPLACING & ~(unsigned)(REMOTE_UIDPLUS | REMOTE_OBJECTID) };
	char when[60];
	for (unsigned c = 0; c < 4; c++) {
		unsigned answers = 1;
		for (unsigned n = 0; n < answers; n += world_stride(answers)) {
			struct world w;
			build(&w, caps[c % 2]);
			go_offline(&w);
			overwrite(&w);
			memory_forget_calls(w.server);
			if (n)
				memory_cut_answers(w.server, n - 1);
			if (n && c >= 2) {
				world_stop(&w);
				world_start(&w);
				world_until(memory_answers(w.server) >= n || (!journal_count(w.cache) && is_quiet(&w)));
				world_restart(&w);
			}
			account_connect(w.account);
			snprintf(when, sizeof when, "caps %u, lost at answer %u", c, n);
			assert_settled_as(&w, NULL, when);
			if (!n)
				answers = memory_answers(w.server);
			assert_replaced(&w);
			world_finish(&w);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_one_step), cmocka_unit_test(not_in_one_step), cmocka_unit_test(refused), cmocka_unit_test(meanwhile),
		cmocka_unit_test(cut_anywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

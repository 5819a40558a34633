/* replay: what was changed here is what the server ends with, once, whatever happens on the way */
#include <sys/wait.h>
#include <signal.h>

#include "unit/replay_steps.h"

/* What an undisturbed run ends with; the caller frees */
static char *undisturbed(unsigned caps, unsigned *ret_answers)
{
	struct world w;
	build(&w, caps);
	go_offline(&w);
	all_steps(&w);
	check_index(w.cache, w.state);
	memory_forget_calls(w.server);
	account_connect(w.account);
	assert_settled_as(&w, NULL, "undisturbed");
	*ret_answers = memory_answers(w.server);
	char *text = server_text(&w);
	world_finish(&w);
	return text;
}

static void offline_then_online(void **state)
{
	(void)state;
	char *first = NULL;
	for (size_t i = 0; i < sizeof all_caps / sizeof *all_caps; i++) {
		unsigned answers;
		char *text = undisturbed(all_caps[i], &answers);
		if (first)
			assert_string_equal(text, first); /* whatever the server can do */
		if (first)
			free(text);
		else
			first = text;
	}
	assert_non_null(strstr(first, "New/Inside/Message number 52"));
	assert_non_null(strstr(first, "Trash/Message number 2"));
	assert_non_null(strstr(first, "Work/Message number 3 4 $Moved"));
	assert_non_null(strstr(first, "Older/In/Message number 5"));
	assert_non_null(strstr(first, "Work/Message number 5"));
	assert_null(strstr(first, "Gone/"));
	free(first);
}

static void online(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		unsigned answers;
		char *wanted = undisturbed(all_caps[c], &answers);
		struct world w;
		build(&w, all_caps[c]);
		for (size_t i = 0; i < STEPS; i++) {
			steps[i](&w);
			account_journal_changed(w.account);
			if (i % 2)
				assert_settled_as(&w, NULL, "on the way");
		}
		assert_settled_as(&w, wanted, "online");
		world_finish(&w);
		free(wanted);
	}
}

/* Replay, of changes made offline, is interrupted at each answer in turn, and comes to the same. */
static void interrupted_anywhere(void interrupt(struct world *w, unsigned answer), const char *how)
{
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		unsigned answers;
		char *wanted = undisturbed(all_caps[c], &answers), when[60];
		for (unsigned n = 0; n < answers; n += world_stride(answers)) {
			struct world w;
			build(&w, all_caps[c]);
			go_offline(&w);
			all_steps(&w);
			interrupt(&w, n);
			snprintf(when, sizeof when, "caps %zu, %s at answer %u", c, how, n);
			assert_settled_as(&w, wanted, when);
			world_finish(&w);
		}
		free(wanted);
	}
}

/* The connection is made anew */
static void cut_at(struct world *w, unsigned answer)
{
	memory_cut_answers(w->server, answer);
	account_connect(w->account);
}

static void cut_anywhere(void **state)
{
	(void)state;
	interrupted_anywhere(cut_at, "cut");
}

/* The process ends: nothing is done after that answer, and the index is opened anew */
static void end_at(struct world *w, unsigned answer)
{
	memory_session_limit(w->server, 1);
	memory_cut_answers(w->server, answer);
	account_connect(w->account);
	world_until(memory_sessions(w->server) == 1 || link_of(w).state == LINK_OFFLINE || memory_answers(w->server) > answer);
	memory_login_result(w->server, MF_OFFLINE);
	world_until(memory_sessions(w->server) == 0 || is_quiet(w));
	world_stop(w);
	cache_close(w->cache);
	memory_cut_answers(w->server, UINT32_MAX);
	memory_session_limit(w->server, 0);
	memory_login_result(w->server, MF_OK);
	world_open_cache(w);
	check_index(w->cache, w->state);
	world_start(w);
}

static void ended_anywhere(void **state)
{
	(void)state;
	interrupted_anywhere(end_at, "ended");
}

/* The process ends, while the changes are made, at any step or at any instant; what it had accepted is not lost. */
static void ended_while_changing(void **state)
{
	(void)state;
	for (unsigned n = 0; n <= STEPS + 12; n++) {
		struct world w;
		build(&w, FULL);
		world_stop(&w);
		cache_close(w.cache);
		bus_destroy(w.bus);
		w.bus = NULL;
		fflush(NULL);
		pid_t child = fork();
		if (child == 0) {
			world_open_cache(&w);
			for (unsigned i = 0; i < (n > STEPS ? STEPS : n); i++)
				steps[i](&w);
			_exit(0);
		}
		assert_true(child > 0);
		if (n > STEPS) {
			nanosleep(&(struct timespec){ .tv_nsec = (long)(n - STEPS) * 3000000 }, NULL);
			kill(child, SIGKILL);
		}
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		w.bus = bus_create();
		world_open_cache(&w);
		check_index(w.cache, w.state);
		uint64_t rejected = rejected_count(w.cache);
		world_start(&w);
		if (n <= STEPS)
			assert_int_equal(rejected, 0);
		if (!rejected)
			assert_settled_as(&w, NULL, "ended while changing");
		world_finish(&w);
	}
}

/* --- refusals ---------------------------------------------------------------------------------------------------------------------- */

static void refused_and_retried(void **state)
{
	(void)state;
	static const enum write_kind kinds[] = { WRITE_APPEND, WRITE_MOVE, WRITE_COPY, WRITE_FLAGS, WRITE_EXPUNGE, WRITE_CREATE, WRITE_RENAME, WRITE_DELETE };
	unsigned answers;
	char *wanted = undisturbed(FULL, &answers), when[60];
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct world w;
		build(&w, FULL);
		go_offline(&w);
		all_steps(&w);
		memory_refuse_writes(w.server, kinds[i], MF_QUOTA);
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_true(count_state(&w, OP_PARKED) > 0);
		assert_int_equal(count_state(&w, OP_SENT), 0);
		check_index(w.cache, w.state);
		memory_refuse_writes(w.server, kinds[i], MF_OK);
		for (int again = 0; again < 3 && journal_count(w.cache); again++) {
			retry_all(&w);
			(void)want_settled(&w);
		}
		snprintf(when, sizeof when, "refused: %d", (int)kinds[i]);
		assert_settled_as(&w, wanted, when);
		world_finish(&w);
	}
	free(wanted);
}

/* one of a set is too large: the others go */
static void one_of_many_is_refused(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	memory_quota(w.server, 0, 2200); /* bytes: for three of six copies */
	for (int i = 1; i <= 6; i++) {
		char name[40];
		snprintf(name, sizeof name, "copy%d.eml", i);
		copy_number(&w, "INBOX", i, "Work", name);
	}
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 3);
	assert_int_equal(journal_count(w.cache), 3);
	memory_quota(w.server, 0, 0);
	retry_all(&w);
	assert_settled_as(&w, NULL, "retried");
	world_finish(&w);
}

/* Flags that a message was given before it was copied are the copy's too, and those that it was given after are not */
static void flagged_and_copied(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	DO(&w, txn_set_flags(t, numbered(&w, "INBOX", 1), 0, ""));
	assert_settled_as(&w, NULL, "bare");
	go_offline(&w);
	copy_number(&w, "INBOX", 1, "Work", "bare.eml");
	DO(&w, txn_change_flags(t, numbered(&w, "INBOX", 1), FLAG_FLAGGED, 0, NULL, NULL));
	copy_number(&w, "INBOX", 1, "Work", "flagged.eml");
	account_connect(w.account);
	assert_settled_as(&w, NULL, "copied, flagged, copied");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "INBOX/Message number 1 4 "));
	assert_non_null(strstr(text, "Work/Message number 1 0 "));
	assert_non_null(strstr(text, "Work/Message number 1 4 "));
	free(text);
	world_finish(&w);
}

/* --- others are at work too --------------------------------------------------------------------------------------------------------- */

static void others_at_work(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	all_steps(&w);
	/* what is removed here is expunged there, another is moved there; mailboxes go and are numbered anew */
	assert_true(memory_expunge(w.server, "Work", 1));
	assert_true(memory_move(w.server, "Work", 3, "INBOX") != 0);
	memory_renumber(w.server, "INBOX");
	memory_mailbox_remove(w.server, "Gone");
	account_connect(w.account);
	assert_settled_as(&w, NULL, "others at work");
	char *text = server_text(&w);
	assert_null(strstr(text, "Message number 11 "));
	assert_null(strstr(text, "Message number 31 "));
	assert_non_null(strstr(text, "Work/Message number 3 "));
	assert_non_null(strstr(text, "INBOX/Message number 13 ")); /* the flag went after it */
	assert_non_null(strstr(text, "New/Message number 6"));
	free(text);
	world_finish(&w);
}

/* Without MODSEQ: what was moved out of the mailbox here is expunged there, so both count the same */
static void others_do_the_same(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)(REMOTE_STATUS_MODSEQ | REMOTE_CONDSTORE | REMOTE_QRESYNC));
	go_offline(&w);
	move_number(&w, "INBOX", 1, "Work", "moved.eml");
	assert_true(memory_expunge(w.server, "INBOX", 1));
	assert_true(memory_flag(w.server, "INBOX", 2, FLAG_ANSWERED, ""));
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_OK);
	assert_int_equal(want_sync(&w, false), MF_OK);
	char *text = index_text(&w);
	assert_non_null(strstr(text, "INBOX/Message number 2 2 "));
	assert_null(strstr(text, "Message number 1 "));
	free(text);
	assert_settled_as(&w, NULL, "the same");
	world_finish(&w);
}

/* What a server got whole on a connection that was lost it may still be storing when it is looked for */
static void stored_after_the_first_look(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		memory_late(w.server, 1);
		go_offline(&w);
		create_number(&w, "Work", "late.eml", 40);
		memory_block(w.server, MEMORY_WRITE);
		account_connect(w.account);
		assert_true(memory_await_blocked(w.server, PATIENCE_MS));
		memory_cut_answers(w.server, 0);
		memory_release(w.server);
		assert_settled_as(&w, NULL, "stored late");
		char *text = server_text(&w), *at = strstr(text, "Work/Message number 40 ");
		assert_non_null(at);
		assert_null(strstr(at + strlen("Work/Message"), "Message number 40 "));
		free(text);
		world_finish(&w);
	}
}

static void mailbox_removed_with_changes(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	move_number(&w, "Work", 11, "INBOX", "from.eml");       /* its bytes are gone with the mailbox */
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 12), FLAG_SEEN, 0, NULL, NULL));
	move_number(&w, "INBOX", 1, "Work", "to.eml");          /* this one is not */
	memory_mailbox_remove(w.server, "Work");
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 2);         /* a person says whether it is to be made again */
	assert_true(numbered(&w, "Work", 1) != 0);
	unsigned calls = memory_calls(w.server, MEMORY_WRITE);
	world_nap();
	assert_int_equal(memory_calls(w.server, MEMORY_WRITE), calls);
	retry_all(&w);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 1);         /* that is no better now */
	assert_true(numbered(&w, "INBOX", 11) != 0);
	uint64_t left[32] = { 0 };
	assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
	DO(&w, txn_cancel(t, left[1]));
	assert_settled_as(&w, NULL, "made again");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Work/Message number 1 "));
	assert_null(strstr(text, "Message number 11"));
	free(text);
	world_finish(&w);
}

/* --- how much it takes ------------------------------------------------------------------------------------------------------------------ */

static void a_thousand_are_few_writes(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	for (int i = 1000; i < 2000; i++)
		deliver(&w, "Work", i, 300);
	assert_int_equal(want_sync(&w, false), MF_OK);
	world_until(is_quiet(&w));
	go_offline(&w);
	struct uid_id *uids;
	size_t count;
	uint64_t work = box(&w, "Work");
	struct disposal how = to_trash(&w);
	assert_int_equal(cache_uids(w.cache, work, &uids, &count), MF_OK);
	assert_int_equal(count, 1003);
	struct txn *t;
	assert_int_equal(cache_begin(w.cache, &t), MF_OK);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(txn_change_flags(t, uids[i].id, FLAG_SEEN, 0, NULL, NULL), MF_OK);
		assert_int_equal(txn_remove(t, uids[i].id, &how), MF_OK);
	}
	assert_int_equal(txn_commit(t), MF_OK);
	free(uids);
	memory_forget_calls(w.server);
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_OK);
	assert_true(memory_calls(w.server, MEMORY_WRITE) <= 3);
	assert_settled_as(&w, NULL, "a thousand");
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offline_then_online), cmocka_unit_test(online), cmocka_unit_test(refused_and_retried),
		cmocka_unit_test(one_of_many_is_refused), cmocka_unit_test(flagged_and_copied), cmocka_unit_test(others_at_work), cmocka_unit_test(others_do_the_same), cmocka_unit_test(stored_after_the_first_look), cmocka_unit_test(mailbox_removed_with_changes),
		cmocka_unit_test(a_thousand_are_few_writes), cmocka_unit_test(cut_anywhere), cmocka_unit_test(ended_anywhere),
		cmocka_unit_test(ended_while_changing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

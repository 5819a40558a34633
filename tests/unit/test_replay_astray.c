/* replay: another client moves messages to a third mailbox, or removes them, while changes wait that have them elsewhere */
#include <signal.h>
#include <sys/resource.h>

#include "unit/replay_world.h"

static size_t count_of(const char *text, const char *line)
{
	size_t count = 0;
	for (const char *at = text; (at = strstr(at, line)); at++)
		count++;
	return count;
}

static void assert_once(struct world *w, const char *line, int number)
{
	char *text = server_text(w);
	MF_CLEANUP(mf_free) char *any = mf_format("/Message number %d ", number);
	if (count_of(text, line) != 1 || count_of(text, any) != 1)
		fail_msg("\"%s\" is not once, and alone, in\n%s", line, text);
	free(text);
}

static void flag_number(struct world *w, const char *path, int number)
{
	DO(w, txn_change_flags(t, numbered(w, path, number), FLAG_FLAGGED, 0, NULL, NULL));
}

/* flags, a move, and flags behind it */
static void change_one(struct world *w)
{
	DO(w, txn_change_flags(t, numbered(w, "INBOX", 1), FLAG_ANSWERED, 0, NULL, NULL));
	move_number(w, "INBOX", 1, "Gone", "mine.eml");
	flag_number(w, "Gone", 1);
}

static void assert_mine(struct world *w, uint64_t message)
{
	struct message m;
	assert_once(w, "Gone/Message number 1 6 ", 1);
	assert_int_equal(numbered(w, "Gone", 1), message);
	assert_int_equal(cache_message(w->cache, message, &m), MF_OK);
	assert_string_equal(m.name, "mine.eml");
	message_finish(&m);
}

/* Wherever it has gone, also to where it was to go */
static void moved_away_offline(void **state)
{
	(void)state;
	static const char *const places[] = { "Work", "Gone", "Trash", "Old/In" };
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			struct world w;
			build(&w, all_caps[c]);
			go_offline(&w);
			uint64_t message = numbered(&w, "INBOX", 1);
			change_one(&w);
			assert_true(memory_move(w.server, "INBOX", 1, places[i]) != 0);
			account_connect(w.account);
			assert_settled_as(&w, NULL, places[i]);
			assert_mine(&w, message);
			world_finish(&w);
		}
	}
}

/* and the mailbox that it was in is gone, too */
static void moved_out_of_what_is_removed(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		uint64_t message = numbered(&w, "Work", 11);
		flag_number(&w, "Work", 13);
		move_number(&w, "Work", 11, "INBOX", "mine.eml");
		flag_number(&w, "INBOX", 11);
		assert_true(memory_move(w.server, "Work", 1, "Old/In") != 0);
		assert_true(memory_move(w.server, "Work", 3, "Old/In") != 0);
		memory_mailbox_remove(w.server, "Work");
		account_connect(w.account);
		assert_settled_as(&w, NULL, "removed");
		assert_once(&w, "INBOX/Message number 11 4 ", 11);
		assert_once(&w, "Old/In/Message number 13 4 ", 13);
		assert_int_equal(numbered(&w, "INBOX", 11), message);
		world_finish(&w);
	}
}

/* Nobody has told: the command finds nothing */
static void moved_away_while_connected(void **state)
{
	(void)state;
	static const unsigned caps[] = { FULL, FULL & ~(unsigned)REMOTE_MOVE };
	for (size_t c = 0; c < sizeof caps / sizeof *caps; c++) {
		struct world w;
		build(&w, caps[c]);
		world_until(is_quiet(&w));
		uint64_t message = numbered(&w, "INBOX", 1);
		assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
		move_number(&w, "INBOX", 1, "Gone", "mine.eml");
		DO(&w, txn_change_flags(t, message, FLAG_FLAGGED | FLAG_ANSWERED, 0, NULL, NULL));
		account_journal_changed(w.account);
		assert_settled_as(&w, NULL, "moved by another");
		assert_mine(&w, message);
		world_finish(&w);
	}
}

/* Only the mailbox that it has left is read */
static void flagged_and_only_one_is_read(void **state)
{
	(void)state;
	struct world w;
	struct waiter read;
	enum mf_err e;
	build(&w, FULL);
	world_until(is_quiet(&w));
	uint64_t message = numbered(&w, "INBOX", 1), inbox = box(&w, "INBOX");
	memory_block(w.server, MEMORY_WRITE);
	flag_number(&w, "INBOX", 2);
	account_journal_changed(w.account);
	assert_true(memory_await_blocked(w.server, PATIENCE_MS));
	flag_number(&w, "INBOX", 1);
	assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
	waiter_init(&read);
	assert_false(account_want_sync(w.account, &inbox, 1, false, waiter_done, &read, &e, &read.want));
	memory_release(w.server);
	assert_int_equal(waiter_wait(&read), MF_OK);
	assert_settled_as(&w, NULL, "one is read");
	assert_once(&w, "Work/Message number 1 4 ", 1);
	assert_int_equal(numbered(&w, "Work", 1), message);
	world_finish(&w);
}

/* Who reads it meanwhile waits until it is known where it is */
static void read_while_it_is_astray(void **state)
{
	(void)state;
	for (unsigned stays = 0; stays < 2; stays++) {
		struct world w;
		struct waiter sync, read;
		enum mf_err e;
		build(&w, FULL);
		world_until(is_quiet(&w));
		uint64_t message = numbered(&w, "INBOX", 1), inbox = box(&w, "INBOX");
		memory_block(w.server, MEMORY_MAILBOXES);
		assert_true(stays ? memory_move(w.server, "INBOX", 1, "Work") != 0 : memory_expunge(w.server, "INBOX", 1));
		move_number(&w, "INBOX", 1, "Gone", "mine.eml");
		waiter_init(&sync);
		assert_false(account_want_sync(w.account, &inbox, 1, false, waiter_done, &sync, &e, &sync.want));
		assert_int_equal(waiter_wait(&sync), MF_OK);
		assert_true(journal_has_strays(w.cache));
		struct body *body = open_body(&w, message);
		waiter_init(&read);
		assert_false(account_want_body(w.account, body, 0, body_size(body), waiter_done, &read, &e, &read.want));
		memory_release(w.server);
		assert_int_equal(waiter_wait(&read), stays ? MF_OK : MF_STALE);
		body_unref(body);
		assert_settled_as(&w, NULL, stays ? "moved" : "removed");
		world_finish(&w);
	}
}

/* Existence is the server's: nothing is left of what was to be done with it */
static void removed(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		change_one(&w);
		flag_number(&w, "INBOX", 2);
		DO(&w, txn_remove(t, numbered(&w, "INBOX", 3), &expunge));
		for (uint32_t uid = 1; uid <= 3; uid++)
			assert_true(memory_expunge(w.server, "INBOX", uid));
		account_connect(w.account);
		assert_settled_as(&w, NULL, "removed by another");
		char *text = server_text(&w);
		assert_null(strstr(text, "/Message number 1 "));
		free(text);
		world_finish(&w);
	}
}

/* What is to be expunged is not, once another client has put it somewhere: a person decides */
static void to_be_expunged_and_moved_away(void **state)
{
	(void)state;
	for (unsigned again = 0; again < 2; again++) {
		struct world w;
		uint64_t left[32] = { 0 };
		build(&w, FULL);
		go_offline(&w);
		uint64_t message = numbered(&w, "INBOX", 1);
		DO(&w, txn_remove(t, message, &expunge));
		assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_int_equal(want_verified(&w), MF_OK);
		assert_int_equal(count_state(&w, OP_PARKED), 1);
		assert_once(&w, "Work/Message number 1 0 ", 1);
		assert_int_equal(numbered(&w, "Work", 1), 0);
		if (again) {
			retry_all(&w);
		} else {
			assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
			DO(&w, txn_cancel(t, left[1]));
			assert_int_equal(numbered(&w, "Work", 1), message);
		}
		assert_settled_as(&w, NULL, again ? "retried" : "taken back");
		char *text = server_text(&w);
		assert_int_equal(count_of(text, "/Message number 1 "), !again);
		free(text);
		world_finish(&w);
	}
}

/* It may be where nobody can look: that is for a person to know */
static void not_all_can_be_read(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	change_one(&w);
	assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
	memory_rights(w.server, "Work", "lk");
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 2);
	assert_true(numbered(&w, "Gone", 1) != 0);
	memory_rights(w.server, "Work", NULL);
	retry_all(&w);
	assert_settled_as(&w, NULL, "retried");
	assert_once(&w, "Gone/Message number 1 6 ", 1);
	world_finish(&w);
}

/* A list that was begun and is read anew, of a mailbox that has fewer messages than are wanted of one: all of them are asked for */
static void moved_out_of_what_was_half_read(void **state)
{
	(void)state;
	struct world w;
	struct waiter read;
	enum mf_err e;
	build(&w, FULL);
	w.config->max_messages = 50;
	assert_int_equal(want_sync(&w, false), MF_OK);
	world_until(is_quiet(&w));
	uint64_t message = numbered(&w, "INBOX", 1), inbox = box(&w, "INBOX");
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	assert_int_equal(cache_mailbox(w.cache, inbox, &m), MF_OK);
	memory_block(w.server, MEMORY_WRITE);
	flag_number(&w, "INBOX", 2);
	account_journal_changed(w.account);
	assert_true(memory_await_blocked(w.server, PATIENCE_MS));
	flag_number(&w, "INBOX", 1);
	DO(&w, txn_mailbox_synced(t, inbox, false, m.uidvalidity, 0, 0, 0, false));
	assert_true(memory_move(w.server, "INBOX", 1, "Work") != 0);
	waiter_init(&read);
	assert_false(account_want_sync(w.account, &inbox, 1, false, waiter_done, &read, &e, &read.want));
	memory_release(w.server);
	assert_int_equal(waiter_wait(&read), MF_OK);
	assert_settled_as(&w, NULL, "half read");
	assert_once(&w, "Work/Message number 1 4 ", 1);
	assert_int_equal(numbered(&w, "Work", 1), message);
	world_finish(&w);
}

/* That it is gone cannot be noted: the server is not asked for its mailboxes over and over */
static void no_room_to_note_it(void **state)
{
	(void)state;
	struct world w;
	struct rlimit old, none;
	build(&w, FULL);
	memory_line(w.server, 200, 0);
	assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	none = (struct rlimit){ 1, old.rlim_max };
	go_offline(&w);
	move_number(&w, "INBOX", 1, "Gone", "mine.eml");
	assert_true(memory_expunge(w.server, "INBOX", 1));
	account_connect(w.account);
	world_until(journal_has_strays(w.cache));
	usleep(300000); /* the mailbox is complete, and the list of all under way */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	memory_forget_calls(w.server);
	memory_line(w.server, 0, 0);
	usleep(1000000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_true(memory_calls(w.server, MEMORY_MAILBOXES) < 5);
	assert_settled_as(&w, NULL, "no room");
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(moved_away_offline), cmocka_unit_test(moved_out_of_what_is_removed), cmocka_unit_test(moved_away_while_connected), cmocka_unit_test(flagged_and_only_one_is_read), cmocka_unit_test(read_while_it_is_astray),
		cmocka_unit_test(removed), cmocka_unit_test(to_be_expunged_and_moved_away), cmocka_unit_test(not_all_can_be_read),
		cmocka_unit_test(no_room_to_note_it), cmocka_unit_test(moved_out_of_what_was_half_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

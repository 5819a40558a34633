/* replay: changes that build on each other, in whatever order they can be carried out */
#include "unit/replay_world.h"

/* The connection is lost at each answer in turn, and before there is another what was sent is changed again */
static void changed_again_in_doubt(void **state)
{
	(void)state;
	unsigned answers = 1;
	char when[60];
	for (unsigned n = 0; n < answers; n += world_stride(answers)) {
		struct world w;
		uint64_t made = 0;
		build(&w, FULL);
		go_offline(&w);
		memory_forget_calls(w.server);
		DO(&w, txn_mailbox_create(t, 0, "New", &made));
		DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Gone"), box(&w, "Work"), "Within"));
		if (n == 0) {
			account_connect(w.account);
			assert_settled_as(&w, NULL, "counted");
			answers = memory_answers(w.server);
			world_finish(&w);
			continue;
		}
		memory_cut_answers(w.server, n - 1);
		account_connect(w.account);
		world_until(memory_sessions(w.server) > 0 || memory_answers(w.server) >= n);
		memory_login_result(w.server, MF_OFFLINE);
		world_until(memory_sessions(w.server) == 0 || is_quiet(&w));
		go_offline(&w);
		DO(&w, txn_mailbox_rename(t, box(&w, "New"), 0, "Newer"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Older"), 0, "Oldest"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Work/Within"), 0, "Gone"));
		move_number(&w, "INBOX", 1, "Oldest", "into.eml");
		move_number(&w, "Oldest/In", 21, "INBOX", "from.eml");
		memory_login_result(w.server, MF_OK);
		account_connect(w.account);
		snprintf(when, sizeof when, "lost at answer %u", n - 1);
		assert_settled_as(&w, NULL, when);
		char *text = server_text(&w);
		assert_null(strstr(text, "Older/"));
		assert_null(strstr(text, "New/"));
		assert_null(strstr(text, "Within/"));
		assert_non_null(strstr(text, "Newer/"));
		assert_non_null(strstr(text, "Oldest/Message number 1 "));
		assert_non_null(strstr(text, "Gone/Message number 31 "));
		assert_non_null(strstr(text, "INBOX/Message number 21 "));
		free(text);
		world_finish(&w);
	}
}

/* mkdir A; mkdir B; mv A B */
static void made_and_moved_into_one_made_later(void **state)
{
	(void)state;
	struct world w;
	uint64_t first = 0, second = 0;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_create(t, 0, "First", &first));
	DO(&w, txn_mailbox_create(t, 0, "Second", &second));
	DO(&w, txn_mailbox_rename(t, first, second, "Inside"));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "inside one made later");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Second/Inside/"));
	assert_null(strstr(text, "First/"));
	free(text);
	world_finish(&w);
}

/* mv Old aside; mv aside/In .; mv aside In */
static void turned_inside_out(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Aside"));
	DO(&w, txn_mailbox_rename(t, box(&w, "Aside/In"), 0, "In"));
	DO(&w, txn_mailbox_rename(t, box(&w, "Aside"), box(&w, "In"), "Old"));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "inside out");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "In/Message number 21 "));
	assert_non_null(strstr(text, "In/Old/"));
	assert_null(strstr(text, "Aside/"));
	assert_null(strstr(text, "Old/In/"));
	free(text);
	world_finish(&w);
}

/* mv Old aside; mv Gone Old; mv aside Gone */
static void swap_names(struct world *w)
{
	uint64_t old = box(w, "Old"), gone = box(w, "Gone");
	DO(w, txn_mailbox_rename(t, old, 0, "Aside"));
	DO(w, txn_mailbox_rename(t, gone, 0, "Old"));
	DO(w, txn_mailbox_rename(t, old, 0, "Gone"));
}

/* the same with three, one of them inside another */
static void turn_names(struct world *w)
{
	uint64_t old = box(w, "Old"), in = box(w, "Old/In"), work = box(w, "Work");
	DO(w, txn_mailbox_rename(t, in, 0, "Aside"));
	DO(w, txn_mailbox_rename(t, work, old, "In"));
	DO(w, txn_mailbox_rename(t, old, 0, "Work"));
	DO(w, txn_mailbox_rename(t, in, 0, "Old"));
}

/* mv Old aside; mv aside/In Old; mv aside Old/In */
static void swap_with_inner(struct world *w)
{
	uint64_t old = box(w, "Old"), in = box(w, "Old/In");
	DO(w, txn_mailbox_rename(t, old, 0, "Aside"));
	DO(w, txn_mailbox_rename(t, in, 0, "Old"));
	DO(w, txn_mailbox_rename(t, old, in, "In"));
}

/* mv Old aside; mkdir Old; mv aside Old/b */
static void into_a_new_one(struct world *w)
{
	uint64_t old = box(w, "Old"), made = 0;
	DO(w, txn_mailbox_rename(t, old, 0, "Aside"));
	DO(w, txn_mailbox_create(t, 0, "Old", &made));
	DO(w, txn_mailbox_rename(t, old, made, "b"));
}

/* the same two levels down, and a message in what is made */
static void into_a_new_one_deeper(struct world *w)
{
	uint64_t old = box(w, "Old"), made = 0, inner = 0;
	DO(w, txn_mailbox_rename(t, old, 0, "Aside"));
	DO(w, txn_mailbox_create(t, 0, "Old", &made));
	DO(w, txn_mailbox_create(t, made, "c", &inner));
	DO(w, txn_mailbox_rename(t, old, inner, "d"));
	create_number(w, "Old/c", "made.eml", 50);
}

/* Old/In goes into a new Old, and what was Old into that */
static void into_new_ones_inside_out(struct world *w)
{
	uint64_t old = box(w, "Old"), in = box(w, "Old/In"), made = 0;
	DO(w, txn_mailbox_rename(t, old, 0, "Aside"));
	DO(w, txn_mailbox_create(t, 0, "Old", &made));
	DO(w, txn_mailbox_rename(t, in, made, "In"));
	DO(w, txn_mailbox_rename(t, old, in, "b"));
}

/* Each goes into a new one that has the other's name */
static void into_each_other(struct world *w)
{
	uint64_t gone = box(w, "Gone"), work = box(w, "Work"), new_gone = 0, new_work = 0, inner = 0;
	DO(w, txn_mailbox_rename(t, gone, 0, "Aside"));
	DO(w, txn_mailbox_rename(t, work, 0, "Aside too"));
	DO(w, txn_mailbox_create(t, 0, "Gone", &new_gone));
	DO(w, txn_mailbox_create(t, 0, "Work", &new_work));
	DO(w, txn_mailbox_create(t, new_work, "n", &inner));
	DO(w, txn_mailbox_rename(t, gone, inner, "b"));
	DO(w, txn_mailbox_rename(t, work, new_gone, "a"));
}

/* What is removed waits for its messages, which are to go into the new one, and another takes its name */
static void into_a_new_one_with_others(struct world *w)
{
	uint64_t gone = box(w, "Gone"), made = 0;
	DO(w, txn_mailbox_rename(t, gone, 0, "Aside"));
	DO(w, txn_mailbox_create(t, 0, "Gone", &made));
	move_number(w, "Work", 11, "Gone", "one.eml");
	move_number(w, "Work", 12, "Gone", "two.eml");
	move_number(w, "Work", 13, "Gone", "three.eml");
	DO(w, txn_mailbox_delete(t, box(w, "Work")));
	DO(w, txn_mailbox_rename(t, box(w, "Old"), 0, "Work"));
	DO(w, txn_mailbox_rename(t, gone, made, "b"));
}

/* mkdir New; mv Work/11 Work/12 Work/13 New; rmdir Work; mv New Work */
static void replace_with_a_new_one(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_mailbox_create(t, 0, "New", &made));
	move_number(w, "Work", 11, "New", "one.eml");
	move_number(w, "Work", 12, "New", "two.eml");
	move_number(w, "Work", 13, "New", "three.eml");
	DO(w, txn_mailbox_delete(t, box(w, "Work")));
	DO(w, txn_mailbox_rename(t, made, 0, "Work"));
}

/* What was made there first is elsewhere by now, and not there yet, when others get its names */
static void take_names_of_new_ones(struct world *w)
{
	uint64_t first = 0, inner = 0, other = 0, in = box(w, "Old/In");
	DO(w, txn_mailbox_create(t, 0, "In", &first));
	DO(w, txn_mailbox_create(t, first, "n", &inner));
	DO(w, txn_mailbox_create(t, in, "n", &other));
	DO(w, txn_mailbox_rename(t, inner, other, "b"));
	DO(w, txn_mailbox_rename(t, first, box(w, "Gone"), "a"));
	DO(w, txn_mailbox_rename(t, in, 0, "In"));
}

/* The other way round: what is made gets the name of one that was removed, and what was in that has it still */
static void take_name_of_one_removed(struct world *w)
{
	uint64_t made = 0, inner = 0, in = box(w, "Old/In"), gone = box(w, "Gone");
	DO(w, txn_mailbox_create(t, gone, "x", &made));
	DO(w, txn_mailbox_create(t, made, "In", &inner));
	DO(w, txn_mailbox_rename(t, in, 0, "Aside"));
	DO(w, txn_mailbox_delete(t, box(w, "Old")));
	DO(w, txn_mailbox_rename(t, made, 0, "Old"));
	DO(w, txn_mailbox_rename(t, gone, made, "b"));
	DO(w, txn_mailbox_rename(t, in, 0, "Gone"));
}

/* mv Old Work/a; mv Work/a/In Work/b */
static void part(struct world *w)
{
	uint64_t work = box(w, "Work"), in = box(w, "Old/In");
	DO(w, txn_mailbox_rename(t, box(w, "Old"), work, "a"));
	DO(w, txn_mailbox_rename(t, in, work, "b"));
}

/* Mailboxes take each other's names, or part, and the connection is lost at each answer in turn */
static void names_in_a_circle(void **state)
{
	(void)state;
	const struct { void (*change)(struct world *w); const char *has[3]; } circles[] = {
		{ swap_names, { "Gone/In/Message number 21 ", "Old/Message number 31 ", "Gone/In/\n" } },
		{ turn_names, { "Old/Message number 21 ", "Work/In/Message number 11 ", "Work/In/\n" } },
		{ swap_with_inner, { "Old/Message number 21 ", "Old/In/\n", "Old/\n" } },
		{ into_a_new_one, { "Old/b/In/Message number 21 ", "Old/\n", "Old/b/\n" } },
		{ into_a_new_one_deeper, { "Old/c/d/In/Message number 21 ", "Old/c/Message number 50 ", "Old/\n" } },
		{ into_new_ones_inside_out, { "Old/In/Message number 21 ", "Old/In/b/\n", "Old/\n" } },
		{ into_each_other, { "Gone/a/Message number 11 ", "Work/n/b/Message number 31 ", "Gone/\n" } },
		{ replace_with_a_new_one, { "Work/Message number 11 ", "Work/Message number 12 ", "Work/Message number 13 " } },
		{ take_names_of_new_ones, { "Gone/a/\n", "In/n/b/\n", "In/Message number 21 " } },
		{ take_name_of_one_removed, { "Gone/Message number 21 ", "Old/In/\n", "Old/b/Message number 31 " } },
		{ part, { "Work/a/\n", "Work/b/Message number 21 ", "Work/Message number 11 " } },
		{ into_a_new_one_with_others, { "Gone/b/Message number 31 ", "Gone/Message number 11 ", "Work/In/Message number 21 " } },
	};
	for (size_t i = 0; i < sizeof circles / sizeof *circles; i++) {
		unsigned answers = 1;
		for (unsigned n = 0; n < answers; n += world_stride(answers)) {
			struct world w;
			char when[60];
			build(&w, FULL);
			go_offline(&w);
			memory_forget_calls(w.server);
			circles[i].change(&w);
			if (n)
				memory_cut_answers(w.server, n - 1);
			account_connect(w.account);
			snprintf(when, sizeof when, "circle %zu, lost at answer %d", i, (int)n - 1);
			assert_settled_as(&w, NULL, when);
			if (!n)
				answers = memory_answers(w.server);
			char *text = server_text(&w);
			for (size_t k = 0; k < 3; k++)
				if (!strstr(text, circles[i].has[k]))
					fail_msg("%s: no %s among\n%s", when, circles[i].has[k], text);
			assert_null(strstr(text, "moving"));
			assert_null(strstr(text, "Aside"));
			assert_null(strstr(text, "New"));
			free(text);
			world_finish(&w);
		}
	}
}

/* What is removed goes by the name that what it lay in has when its turn comes */
static void removed_from_one_renamed(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
	move_number(&w, "Older/In", 21, "INBOX", "saved.eml");
	DO(&w, txn_mailbox_delete(t, box(&w, "Older/In")));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "removed from one renamed");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Older/\n"));
	assert_null(strstr(text, "/In/"));
	assert_non_null(strstr(text, "INBOX/Message number 21 "));
	free(text);
	world_finish(&w);
}

/* Three copies of one message, asked for together, are three */
static void copies_of_one(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		for (int i = 1; i <= 3; i++) {
			uint64_t made = 0;
			char name[40];
			snprintf(name, sizeof name, "copy%d.eml", i);
			DO(&w, txn_create(t, box(&w, "Work"), name, &made));
			DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 1), 0));
		}
		move_number(&w, "INBOX", 1, "Old", "moved.eml");
		account_connect(w.account);
		assert_settled_as(&w, NULL, "copies of one");
		char *text = server_text(&w), *at = text;
		for (int i = 0; i < 3; i++) {
			at = strstr(at, "Work/Message number 1 ");
			assert_non_null(at);
			at++;
		}
		assert_null(strstr(at, "Work/Message number 1 "));
		assert_non_null(strstr(text, "Old/Message number 1 "));
		free(text);
		world_finish(&w);
	}
}

/* What is to be moved is read from where it is, when the server refuses to move it too, and when it moves meanwhile */
static void read_while_it_waits(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	move_number(&w, "INBOX", 1, "Old", "one.eml");
	move_number(&w, "INBOX", 2, "Old", "two.eml");
	uint64_t made = 0, one = numbered(&w, "Old", 1), two = numbered(&w, "Old", 2);
	DO(&w, txn_create(t, box(&w, "Work"), "copy.eml", &made));
	DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 3), 0));
	memory_refuse_writes(w.server, WRITE_MOVE, MF_QUOTA);
	account_connect(w.account);
	world_until(link_of(&w).state == LINK_ONLINE);
	assert_int_equal(read_whole(&w, one, 1, 700), MF_OK);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 2);
	assert_int_equal(read_whole(&w, two, 2, 700), MF_OK);
	assert_int_equal(read_whole(&w, made, 3, 700), MF_OK);
	memory_refuse_writes(w.server, WRITE_MOVE, MF_OK);
	for (int i = 4; i <= 6; i++) {
		move_number(&w, "INBOX", i, "Old", "other.eml");
		account_journal_changed(w.account);
		assert_int_equal(read_whole(&w, numbered(&w, "Old", i), i, 700), MF_OK);
	}
	retry_all(&w);
	assert_settled_as(&w, NULL, "read while it waits");
	world_finish(&w);
}

/* What may have been appended to a mailbox that cannot be read is not appended again */
static void unread_in_doubt(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 20; n += world_stride(20)) {
		struct world w;
		build(&w, FULL | REMOTE_ACL);
		go_offline(&w);
		create_number(&w, "Old", "one.eml", 60);
		memory_rights(w.server, "Old", "li");
		memory_cut_answers(w.server, n);
		account_connect(w.account);
		(void)want_settled(&w);
		assert_int_equal(want_verified(&w), MF_OK);
		char *text = server_text(&w), *at = strstr(text, "Old/Message number 60 ");
		if (at ? strstr(at + 1, "Old/Message number 60 ") != NULL : count_state(&w, OP_UNCONFIRMED) == 0)
			fail_msg("cut at answer %u: the server has\n%s", n, text);
		free(text);
		world_finish(&w);
	}
}

/* One message twice, moved to one mailbox, and the connection is lost on the way: neither stands for the other at its source */
static void twins_in_doubt(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		for (unsigned n = 0; n < 16; n += world_stride(16)) {
			struct world w;
			build(&w, all_caps[c]);
			deliver(&w, "Work", 1, 700);
			assert_int_equal(want_sync(&w, false), MF_OK);
			go_offline(&w);
			move_number(&w, "INBOX", 1, "Old", "one.eml");
			move_number(&w, "Work", 1, "Old", "two.eml");
			memory_cut_answers(w.server, n);
			account_connect(w.account);
			(void)want_settled(&w);
			assert_int_equal(want_verified(&w), MF_OK);
			char *text = server_text(&w);
			size_t left = 0;
			for (const char *at = text; (at = strstr(at, "/Message number 1 ")); at++)
				left++;
			if (left < 2)
				fail_msg("caps %zu, cut at answer %u: the server has\n%s", c, n, text);
			free(text);
			world_finish(&w);
		}
	}
}

/* mv INBOX/1 Work; overwritten there, and the server does not take the new version: the old one stays where it is */
static void moved_and_overwritten(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		struct disposal how = to_trash(&w);
		move_number(&w, "INBOX", 1, "Work", "moved.eml");
		write_number(&w, numbered(&w, "Work", 1), 60, &how);
		memory_refuse_writes(w.server, WRITE_APPEND, MF_QUOTA);
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		char *text = server_text(&w);
		assert_non_null(strstr(text, "INBOX/Message number 1 "));
		free(text);
		memory_refuse_writes(w.server, WRITE_APPEND, MF_OK);
		retry_all(&w);
		assert_settled_as(&w, NULL, "moved and overwritten");
		text = server_text(&w);
		assert_non_null(strstr(text, "Work/Message number 60 "));
		assert_non_null(strstr(text, "Trash/Message number 1 "));
		assert_null(strstr(text, "INBOX/Message number 1 "));
		free(text);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changed_again_in_doubt), cmocka_unit_test(made_and_moved_into_one_made_later),
		cmocka_unit_test(turned_inside_out), cmocka_unit_test(names_in_a_circle), cmocka_unit_test(removed_from_one_renamed),
		cmocka_unit_test(copies_of_one), cmocka_unit_test(moved_and_overwritten),
		cmocka_unit_test(twins_in_doubt), cmocka_unit_test(unread_in_doubt), cmocka_unit_test(read_while_it_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

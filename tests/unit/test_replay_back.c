/* replay: what is taken back after the server has done a part of it */
#include "unit/replay_world.h"

static uint64_t first_op(struct world *w)
{
	uint64_t ids[32] = { 0 };
	assert_int_equal(journal_list(w->cache, 0, retry_each, ids), MF_OK);
	return ids[1];
}

/* COPY was done, and the original may not be removed: it is a message of its own again */
static void a_move_that_stays_half(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)REMOTE_MOVE);
	memory_refuse_writes(w.server, WRITE_EXPUNGE, MF_DENIED);
	move_number(&w, "INBOX", 1, "Work", "moved.eml");
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 1);
	DO(&w, txn_cancel(t, first_op(&w)));
	assert_settled_as(&w, NULL, "taken back");
	assert_true(numbered(&w, "INBOX", 1) != 0);
	assert_true(numbered(&w, "Work", 1) != 0);
	world_finish(&w);
}

/* Without UIDPLUS another message's mark keeps this one from being expunged, when it is marked itself */
static void marked_and_taken_back(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)REMOTE_UIDPLUS);
	assert_true(memory_flag(w.server, "INBOX", 2, FLAG_DELETED, ""));
	DO(&w, txn_remove(t, numbered(&w, "INBOX", 1), &expunge));
	account_journal_changed(w.account);
	struct op op = { 0 };
	uint64_t id = first_op(&w);
	world_until((op_finish(&op), journal_op(w.cache, id, &op) == MF_OK && op.tries && op.state == OP_QUEUED));
	op_finish(&op);
	DO(&w, txn_cancel(t, id));
	assert_settled_as(&w, NULL, "taken back");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "INBOX/Message number 1 0 "));
	assert_non_null(strstr(text, "INBOX/Message number 2 8 "));
	free(text);
	world_finish(&w);
}

/* A mailbox that may be filled and not read tells no numbers: what was copied into it is not copied again */
static void into_one_that_cannot_be_read(void **state)
{
	(void)state;
	struct world w;
	uint64_t made = 0;
	build(&w, FULL | REMOTE_ACL);
	memory_rights(w.server, "Old", "li");
	(void)want_verified(&w);
	DO(&w, txn_create(t, box(&w, "Old"), "copy.eml", &made));
	DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 5), 0));
	move_number(&w, "INBOX", 6, "Old", "moved.eml");
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_OK); /* it said that it has them, and nobody here can look */
	assert_int_equal(journal_count(w.cache), 0);
	char *text = server_text(&w), *at = strstr(text, "Old/Message number 5 ");
	assert_non_null(at);
	assert_null(strstr(at + 1, "Old/Message number 5 "));
	assert_non_null(strstr(text, "Old/Message number 6 "));
	free(text);
	world_finish(&w);
}

static bool is_tried(struct world *w, uint64_t id)
{
	struct op op = { 0 };
	bool tried = journal_op(w->cache, id, &op) == MF_OK && op.tries && op.state == OP_QUEUED;
	op_finish(&op);
	return tried;
}

/* A mailbox that somebody uses is tried again, then waits for a person; the session goes on, and so do other changes */
static void in_use(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	memory_refuse_writes(w.server, WRITE_RENAME, MF_CANCELLED);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
	account_journal_changed(w.account);
	uint64_t id = first_op(&w);
	world_until(is_tried(&w, id));
	assert_int_equal(link_of(&w).state, LINK_ONLINE);
	create_number(&w, "INBOX", "meanwhile.eml", 70);
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	struct op op = { 0 };
	assert_int_equal(journal_op(w.cache, id, &op), MF_OK);
	assert_int_equal(op.state, OP_PARKED);
	assert_non_null(strstr(op.error, "in use"));
	op_finish(&op);
	memory_refuse_writes(w.server, WRITE_RENAME, MF_OK);
	DO(&w, txn_retry(t, id));
	assert_settled_as(&w, NULL, "not in use any more");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Older/\n"));
	assert_non_null(strstr(text, "INBOX/Message number 70 "));
	free(text);
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_that_stays_half), cmocka_unit_test(marked_and_taken_back),
		cmocka_unit_test(into_one_that_cannot_be_read), cmocka_unit_test(in_use),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

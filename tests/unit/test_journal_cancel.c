/* journal: what was changed again, or taken back out of its order, leaves nothing behind */
#include "unit/test_journal_fixture.h"

static uint64_t make(struct fixture *f, uint64_t parent, const char *name)
{
	uint64_t id = 0;
	DO(f, txn_mailbox_create(t, parent, name, &id));
	return id;
}

static void changed_between_a_look_and_the_mark(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	struct op *ops;
	size_t count;
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 1);
	DO(f, txn_remove(t, one, &expunge));
	assert_int_equal(journal_mark_sent(f->c, ops, count), MF_OK);
	assert_int_equal(ops[0].id, 0);
	op_finish(&ops[0]);
	free(ops);
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
}

static void taken_back_into_what_lies_in_it(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), b = mailbox_with(f, "A/B", 0);
	DO(f, txn_mailbox_rename(t, b, 0, "B"));
	DO(f, txn_mailbox_rename(t, a, b, "A"));
	assert_int_equal(CHANGE(f, txn_cancel(t, nth_op(f, 0).id)), MF_EXISTS);
	assert_ops(f, "rename rename");
	cancel_all(f);
}

static void what_cannot_go_keeps_none_back(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 5), a = make(f, 0, "A");
	char name[20];
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "permission denied"));
	for (uint32_t i = 1; i <= 3; i++) {
		snprintf(name, sizeof name, "%u.eml", i);
		uint64_t message = by_uid(f, inbox, i);
		DO(f, txn_move(t, message, a, name, &expunge));
	}
	create_written(f, a, "made.eml", TEXT("1"));
	DO(f, txn_change_flags(t, by_uid(f, inbox, 4), SEEN, 0, NULL, NULL));
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 2, &ops, &count), MF_OK);
	assert_int_equal(count, 1);
	assert_int_equal(ops[0].kind, OP_FLAGS);
	op_finish(&ops[0]);
	free(ops);
}

static void named_as_it_is_when_it_goes(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), a = mailbox_with(f, "A", 1), one = by_uid(f, a, 1), again = 0;
	DO(f, txn_move(t, one, inbox, "x.eml", &expunge));
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "over quota"));
	DO(f, txn_mailbox_delete(t, a));
	DO(f, txn_mailbox_create(t, 0, "A", &again));
	assert_int_equal(again, a);
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 1).id, "B"));
	DO(f, txn_mailbox_delete(t, a));
	struct op op = { 0 };
	assert_int_equal(journal_op(f->c, nth_op(f, 0).id, &op), MF_OK);
	assert_string_equal(op.raw, "B");
	op_finish(&op);
}

static void renamed_twice_and_removed(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0);
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	send_all(f);
	DO(f, txn_mailbox_rename(t, a, 0, "C"));
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "delete");
}

static void taken_back_to_other_numbers(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), got = 0;
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_remove(t, two, &expunge));
	DO(f, txn_mailbox_renumbered(t, inbox, VALIDITY + 1));
	struct test_message m;
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, 5001), &got)); /* others have the numbers now */
	DO(f, txn_message_put(t, message_make(&m, inbox, 2, 5002), &got));
	DO(f, txn_cancel(t, nth_op(f, 1).id));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	assert_ops(f, "");
	assert_int_equal(list_count(f, b), 0);
	DO(f, txn_message_put(t, message_make(&m, inbox, 3, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	assert_int_equal(list_count(f, inbox), 3);
}

static void what_it_was_in_comes_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), b = mailbox_with(f, "A/B", 0);
	char *before = tree_text(f->state, true);
	DO(f, txn_mailbox_rename(t, b, 0, "B"));
	DO(f, txn_mailbox_delete(t, a));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(after);
	DO(f, txn_mailbox_delete(t, b));
	DO(f, txn_mailbox_delete(t, a));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	after = tree_text(f->state, true);
	assert_string_equal(before, after);
	assert_ops(f, "");
	DO(f, txn_mailbox_rename(t, b, 0, "B"));
	DO(f, txn_mailbox_delete(t, a));
	DO(f, txn_op_done(t, nth_op(f, 1).id, 0, 0));
	assert_int_equal(CHANGE(f, txn_cancel(t, nth_op(f, 0).id)), MF_STALE);
	assert_ops(f, "rename");
	free(before);
	free(after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(changed_between_a_look_and_the_mark), WITH_CACHE(taken_back_into_what_lies_in_it),
		WITH_CACHE(what_cannot_go_keeps_none_back), WITH_CACHE(named_as_it_is_when_it_goes), WITH_CACHE(renamed_twice_and_removed),
		WITH_CACHE(taken_back_to_other_numbers), WITH_CACHE(what_it_was_in_comes_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

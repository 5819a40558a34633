/* journal: what was changed again, or taken back out of its order, leaves nothing behind */
#include "unit/test_journal_fixture.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(changed_between_a_look_and_the_mark),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

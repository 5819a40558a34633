/* Inode numbers: what is packed comes back, what was never packed is refused, the root is 1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fs/node.h"

static void same(const struct node *a, const struct node *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->account, b->account);
	assert_int_equal(a->part, b->part);
	assert_true(a->id == b->id);
}

static void test_round_trip(void **state)
{
	(void)state;
	static const struct node nodes[] = {
		{ NODE_ACCOUNT, 0, 0, 0 }, { NODE_ACCOUNT, 255, 0, 0 },
		{ NODE_MAILBOX, 0, 0, 1 }, { NODE_MAILBOX, 7, 0, (UINT64_C(1) << 38) - 1 },
		{ NODE_MESSAGE, 255, 0, (UINT64_C(1) << 38) - 1 }, { NODE_MESSAGE, 0, 0, 1 },
		{ NODE_CONTROL_DIR, 3, 0, 0 }, { NODE_CONTROL_DIR, 0, 0, 1 }, { NODE_CONTROL_FILE, 3, 5, 1 },
		{ NODE_NOMEDIA, 0, 0, 0 },
		{ NODE_OUTBOX, 4, 0, 0 }, { NODE_OUTBOX, 4, OUTBOX_FAILURES, 0 }, { NODE_QUEUED, 4, 0, (UINT64_C(1) << 38) - 1 },
		{ NODE_QUEUED, 4, QUEUED_ERROR, 9 },
	};
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		struct node back;
		assert_true(node_unpack(node_pack(&nodes[i]), false, &back));
		same(&nodes[i], &back);
		for (size_t j = 0; j < i; j++)
			assert_true(node_pack(&nodes[i]) != node_pack(&nodes[j]));
	}
}

static void test_root(void **state)
{
	(void)state;
	struct node n;
	assert_true(node_pack(&(struct node){ .kind = NODE_ROOT }) == 1);
	assert_true(node_unpack(1, false, &n));
	assert_int_equal(n.kind, NODE_ROOT);
	assert_true(node_unpack(1, true, &n));
	assert_int_equal(n.kind, NODE_ACCOUNT);
	assert_int_equal(n.account, 0);
}

/* The layout is a promise: numbers survive remounts and versions. */
static void test_layout(void **state)
{
	(void)state;
	assert_true(node_pack(&(struct node){ NODE_MESSAGE, 2, 0, 5 }) == (UINT64_C(2) << 56 | UINT64_C(4) << 50 | 5));
	assert_true(node_pack(&(struct node){ NODE_CONTROL_FILE, 1, 3, 0 }) == (UINT64_C(1) << 56 | UINT64_C(6) << 50 | UINT64_C(3) << 38));
}

static void test_impossible(void **state)
{
	(void)state;
	static const uint64_t numbers[] = {
		0, 2, 12345, UINT64_MAX,
		UINT64_C(1) << 50 | 1,                              /* the list of accounts is only 1 */
		UINT64_C(3) << 50,                                  /* a mailbox without a row */
		UINT64_C(4) << 50 | UINT64_C(1) << 38 | 9,          /* a message has no parts yet */
		UINT64_C(2) << 50 | 1,                              /* an account with a row */
		UINT64_C(5) << 50 | 2, UINT64_C(6) << 50,           /* control nodes that are not */
		UINT64_C(8) << 50 | 1, UINT64_C(63) << 50 | 1,      /* kinds of later versions */
		UINT64_C(10) << 50 | 1, UINT64_C(11) << 50,         /* outbox/ with a number, a file in it without one */
		UINT64_C(1) << 56 | UINT64_C(7) << 50,              /* .nomedia belongs to no account */
	};
	struct node n;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		assert_false(node_unpack(numbers[i], false, &n));
	assert_false(node_unpack(node_pack(&(struct node){ NODE_ACCOUNT, 0, 0, 0 }), true, &n)); /* it is 1 there */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_root),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_impossible),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

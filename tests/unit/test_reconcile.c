/* The decisions of synchronising, on their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sync/reconcile.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void sets_take_any_order(void **state)
{
	(void)state;
	static const uint32_t given[] = {9, 10, 11, 5, 6, 7, 8, 1, 3, 2, 20, 3, 12};
	struct uid_set s = {0};
	for (size_t i = 0; i < COUNT(given); i++)
		uid_set_add(&s, given[i], given[i]);
	uid_set_add(&s, UINT32_MAX, UINT32_MAX);
	uid_set_add(&s, UINT32_MAX - 2, UINT32_MAX);
	uid_set_normalise(&s);
	assert_int_equal(s.count, 4);
	static const struct uid_range expected[] = {{1, 3}, {5, 12}, {20, 20}, {UINT32_MAX - 2, UINT32_MAX}};
	assert_memory_equal(s.items, expected, sizeof expected);
	for (uint32_t uid = 0; uid < 30; uid++)
		assert_int_equal(uid_ranges_have(s.items, s.count, uid), (uid >= 1 && uid <= 3) || (uid >= 5 && uid <= 12) || uid == 20);
	uid_set_finish(&s);
}

/* every subset of a small range against the naive answer */
static void sets_are_what_was_added(void **state)
{
	(void)state;
	for (unsigned mask = 0; mask < 256; mask++) {
		struct uid_set s = {0};
		for (uint32_t i = 8; i-- > 0;) {
			if (mask & 1U << i)
				uid_set_add(&s, i + 1, i + 1);
		}
		uid_set_normalise(&s);
		for (uint32_t i = 0; i < 8; i++)
			assert_int_equal(uid_ranges_have(s.items, s.count, i + 1), (mask >> i) & 1U);
		uid_set_finish(&s);
	}
}

static void missing_and_vanished(void **state)
{
	(void)state;
	static const struct uid_id local[] = {{1, 11}, {2, 12}, {5, 15}, {6, 16}, {9, 19}};
	static const struct uid_range ranges[] = {{2, 3}, {6, 8}};
	uint32_t *uids = NULL;
	assert_int_equal(reconcile_missing(local, COUNT(local), ranges, COUNT(ranges), 0, &uids), 3);
	static const uint32_t missing[] = {1, 5, 9};
	assert_memory_equal(uids, missing, sizeof missing);
	free(uids);
	/* what is not below the given UIDNEXT was not asked about */
	assert_int_equal(reconcile_missing(local, COUNT(local), ranges, COUNT(ranges), 9, &uids), 2);
	free(uids);
	assert_int_equal(reconcile_vanished(local, COUNT(local), ranges, COUNT(ranges), &uids), 2);
	static const uint32_t vanished[] = {2, 6};
	assert_memory_equal(uids, vanished, sizeof vanished);
	free(uids);
	static const struct uid_range huge[] = {{1, UINT32_MAX}};
	assert_int_equal(reconcile_vanished(local, COUNT(local), huge, 1, &uids), 5);
	free(uids);
	assert_int_equal(reconcile_missing(NULL, 0, huge, 1, 0, &uids), 0);
	free(uids);
	static const struct uid_range known[] = {{1, 2}, {6, 6}}, beside[] = {{3, 4}};
	assert_false(reconcile_lacks(local, COUNT(local), known, COUNT(known)));
	assert_true(reconcile_lacks(local, COUNT(local), ranges, COUNT(ranges)));
	assert_true(reconcile_lacks(local, COUNT(local), beside, COUNT(beside)));
	assert_true(reconcile_lacks(local, COUNT(local), huge, 1));
	assert_true(reconcile_lacks(NULL, 0, known, COUNT(known)));
	assert_false(reconcile_lacks(local, COUNT(local), NULL, 0));
}

static struct mailbox clean_mailbox(void)
{
	static char raw[] = "INBOX";
	return (struct mailbox){
		.raw = raw, .complete = true, .uidvalidity = 7, .uidnext = 50, .total = 40, .unseen = 3, .modseq = 99, .first_uid = 1,
		.server_uidvalidity = 7, .server_uidnext = 50, .server_messages = 40, .server_unseen = 3, .server_modseq = 99,
	};
}

static enum dirty judge(const struct mailbox *m)
{
	return reconcile_dirty(&(struct dirty_facts){.mailbox = m, .has_status = true});
}

static void nothing_changed_is_clean(void **state)
{
	(void)state;
	struct mailbox m = clean_mailbox();
	assert_int_equal(judge(&m), DIRTY_NO);
	m.server_unseen = 4; /* MODSEQ is the better witness */
	assert_int_equal(judge(&m), DIRTY_NO);
	m.modseq = 0;
	assert_int_equal(judge(&m), DIRTY_CHANGED);
	m.server_unseen = 3;
	assert_int_equal(judge(&m), DIRTY_NO);
	m.flags = MAILBOX_NOSELECT;
	m.complete = false;
	assert_int_equal(judge(&m), DIRTY_NO);
}

static void each_number_counts(void **state)
{
	(void)state;
	struct mailbox m = clean_mailbox();
	m.server_uidvalidity++;
	assert_int_equal(judge(&m), DIRTY_CHANGED);
	m = clean_mailbox();
	m.server_uidnext++;
	assert_int_equal(judge(&m), DIRTY_CHANGED);
	m = clean_mailbox();
	m.server_messages--;
	assert_int_equal(judge(&m), DIRTY_CHANGED);
	m = clean_mailbox();
	m.server_modseq++;
	assert_int_equal(judge(&m), DIRTY_CHANGED);
	m = clean_mailbox();
	m.complete = false;
	assert_int_equal(judge(&m), DIRTY_COLD);
	m = clean_mailbox();
	assert_int_equal(reconcile_dirty(&(struct dirty_facts){.mailbox = &m, .has_status = false}), DIRTY_CHANGED);
}

static void changes_that_wait_make_up_for_others(void **state)
{
	(void)state;
	struct mailbox m = clean_mailbox();
	struct dirty_facts facts = {.mailbox = &m, .has_status = true, .changes_wait = true};
	assert_int_equal(reconcile_dirty(&facts), DIRTY_NO); /* MODSEQ tells of all that others do */
	m.modseq = 0;
	assert_int_equal(reconcile_dirty(&facts), DIRTY_CHANGED);
}

static void bounded_mailboxes(void **state)
{
	(void)state;
	struct mailbox m = clean_mailbox();
	m.first_uid = 21;
	m.total = 20;
	struct dirty_facts facts = {.mailbox = &m, .has_status = true, .max_messages = 20, .seen_messages = 40};
	assert_int_equal(reconcile_dirty(&facts), DIRTY_NO);
	facts.seen_messages = 0; /* not known in this process yet */
	assert_int_equal(reconcile_dirty(&facts), DIRTY_CHANGED);
	facts.seen_messages = 40;
	facts.max_messages = 0; /* the bound was lifted: all of it */
	assert_int_equal(reconcile_dirty(&facts), DIRTY_CHANGED);
	assert_int_equal(reconcile_rung(&m, CHANGES_AUTO, 0, false).method, CHANGES_ALL);
	assert_int_equal(reconcile_rung(&m, CHANGES_AUTO, 20, false).method, CHANGES_AUTO);
	assert_int_equal(reconcile_rung(&m, CHANGES_AUTO, 30, false).newest, 30);
	static const struct uid_id local[] = {{1, 1}, {4, 2}, {9, 3}};
	assert_int_equal(reconcile_trim(local, 3, 2), 4);
	assert_int_equal(reconcile_trim(local, 3, 3), 0);
	assert_int_equal(reconcile_trim(local, 3, 0), 0);
}

static void the_ladder(void **state)
{
	(void)state;
	struct mailbox m = clean_mailbox();
	struct rung rung = reconcile_rung(&m, CHANGES_AUTO, 0, false);
	assert_int_equal(rung.method, CHANGES_AUTO);
	assert_true(rung.with_modseq);
	assert_false(reconcile_rung(&m, CHANGES_AUTO, 0, true).with_modseq);
	assert_int_equal(reconcile_rung(&m, CHANGES_NEW_ONLY, 0, false).method, CHANGES_NEW_ONLY);
	m.complete = false;
	assert_int_equal(reconcile_rung(&m, CHANGES_NEW_ONLY, 0, false).method, CHANGES_ALL);
	assert_int_equal(reconcile_rung(&m, CHANGES_VERIFY, 5, false).newest, 5);
}

static void sanity(void **state)
{
	(void)state;
	static const struct uid_id local[] = {{1, 1}, {4, 2}, {9, 3}};
	struct mailbox_status status = {.uidnext = 10, .messages = 3};
	assert_true(reconcile_is_sane(local, 3, &status, 1));
	status.messages = 4;
	assert_false(reconcile_is_sane(local, 3, &status, 1));
	assert_true(reconcile_is_sane(local, 3, &status, 2)); /* bounded: the rest is elsewhere */
	status = (struct mailbox_status){.uidnext = 9, .messages = 3};
	assert_false(reconcile_is_sane(local, 3, &status, 1));
	status = (struct mailbox_status){.uidnext = 1, .messages = 0};
	assert_true(reconcile_is_sane(NULL, 0, &status, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_take_any_order), cmocka_unit_test(sets_are_what_was_added), cmocka_unit_test(missing_and_vanished),
		cmocka_unit_test(nothing_changed_is_clean), cmocka_unit_test(each_number_counts), cmocka_unit_test(changes_that_wait_make_up_for_others), cmocka_unit_test(bounded_mailboxes),
		cmocka_unit_test(the_ladder), cmocka_unit_test(sanity),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

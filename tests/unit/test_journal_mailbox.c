/* journal: changes to mailboxes that wait for the server, and LIST meanwhile */
#include "unit/test_journal_fixture.h"

/* --- mailboxes -------------------------------------------------------------------------------------------------------------------- */

static uint64_t make(struct fixture *f, uint64_t parent, const char *name)
{
	uint64_t id = 0;
	DO(f, txn_mailbox_create(t, parent, name, &id));
	return id;
}

static bool has_mailbox(struct fixture *f, const char *path)
{
	struct mailbox m;
	bool found = cache_mailbox_by_path(f->c, path, &m) == MF_OK;
	if (found)
		mailbox_finish(&m);
	return found;
}

static char *raw_of(struct fixture *f, uint64_t id)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, id, &m), MF_OK);
	char *raw = mf_strdup(m.raw ? m.raw : "");
	mailbox_finish(&m);
	return raw;
}

static void assert_raw(struct fixture *f, uint64_t id, const char *wanted)
{
	char *raw = raw_of(f, id);
	assert_string_equal(raw, wanted);
	free(raw);
}

static void list(struct fixture *f, const char *const *raws)
{
	struct txn *t = begin(f);
	for (; *raws; raws++) {
		uint64_t id;
		struct mailbox_said said = { .raw = *raws, .delimiter = '/', .use = strcmp(*raws, "INBOX") ? 0 : CACHE_USE_INBOX };
		enum mf_err e = txn_mailbox_said(t, &said, &id);
		assert_true(e == MF_OK || e == MF_NOT_FOUND);
	}
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	check_index(f->c, f->state);
}
#define LIST(f, ...) list(f, (const char *const[]){ __VA_ARGS__, NULL })

static void mailbox_made_and_taken_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	char *before = tree_text(f->state, true);
	uint64_t a = make(f, 0, "A"), b = make(f, a, "B");
	assert_ops(f, "create create");
	assert_int_equal(CHANGE(f, txn_mailbox_create(t, 0, "A", &b)), MF_EXISTS);
	assert_int_equal(CHANGE(f, txn_mailbox_create(t, 0, "Inbox", &b)), MF_EXISTS); /* INBOX is one, however it is written */
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, a, 0, "inbox")), MF_EXISTS);
	LIST(f, "INBOX"); /* it stays although the server does not know it */
	assert_true(has_mailbox(f, "A"));
	DO(f, txn_mailbox_rename(t, a, 0, "C"));
	assert_ops(f, "create create");
	struct op op = nth_op(f, 0);
	char *target = NULL;
	assert_int_equal(journal_target(f->c, &op, &target), MF_OK);
	assert_string_equal(target, "C");
	free(target);
	op = nth_op(f, 1);
	assert_int_equal(journal_target(f->c, &op, &target), MF_BUSY);
	DO(f, txn_mailbox_subscribe(t, a, false));
	assert_int_equal(CHANGE(f, txn_cancel(t, nth_op(f, 0).id)), MF_EXISTS);
	DO(f, txn_cancel(t, nth_op(f, 1).id));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	assert_ops(f, ""); /* with what was to be done to it */
	assert_tree_is(f->state, before);
	a = make(f, 0, "A");
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "");
}

static void mailbox_made_at_the_server(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = make(f, 0, "A"), b = make(f, a, "B"), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "A"));
	assert_ops(f, "create move subscribe");
	struct op op = nth_op(f, 0);
	char *target = NULL;
	assert_int_equal(journal_target(f->c, &op, &target), MF_OK);
	assert_string_equal(target, "A/B");
	DO(f, txn_op_mailbox_is(t, op.id, target));
	free(target);
	assert_raw(f, b, "A/B");
	LIST(f, "INBOX", "A", "A/B");
	assert_int_equal(in_mailbox(f, one), b);
	assert_ops(f, "move subscribe subscribe");
}

/* What LIST could not bring afterwards is not made */
static void as_deep_as_can_be(void **state)
{
	struct fixture *f = *state;
	(void)mailbox_with(f, "INBOX", 1);
	uint64_t parent = 0, other = make(f, 0, "other"), id;
	for (int level = 1; level <= 100; level++)
		parent = make(f, parent, "a");
	assert_int_equal(CHANGE(f, txn_mailbox_create(t, parent, "b", &id)), MF_TOO_BIG);
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, other, parent, "b")), MF_TOO_BIG);
}

static void mailbox_renamed_and_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 2), inside = mailbox_with(f, "A/In", 1), b = mailbox_with(f, "B", 0);
	char *before = tree_text(f->state, true);
	DO(f, txn_mailbox_rename(t, a, b, "X"));
	DO(f, txn_mailbox_rename(t, a, 0, "Y"));
	assert_ops(f, "rename");
	LIST(f, "INBOX", "A", "A/In", "B");
	assert_true(has_mailbox(f, "Y/In"));
	DO(f, txn_mailbox_rename(t, a, 0, "A"));
	assert_ops(f, ""); /* the server need not hear of it */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(after);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, a, inside, "W")), MF_INVALID);
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, a, 0, "B")), MF_EXISTS);
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "no"));
	DO(f, txn_mailbox_rename(t, a, 0, "V"));
	assert_ops(f, "rename"); /* the one that was refused, with another name */
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	cancel_all(f);
	after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(after);
	free(before);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Z"));
	assert_raw(f, inside, "Z/In");
	LIST(f, "INBOX", "Z", "Z/In", "B");
	assert_int_equal(list_count(f, inside), 1);
}

/* RENAME was sent, its answer got lost, and LIST tells of it, what is inside first */
static void renamed_and_the_answer_lost(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 2), inside = mailbox_with(f, "A/In", 1);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	send_all(f);
	LIST(f, "INBOX", "Z/In", "Z");
	assert_ops(f, "");
	assert_raw(f, a, "Z");
	assert_raw(f, inside, "Z/In");
	assert_int_equal(list_count(f, a), 2);
	assert_int_equal(list_count(f, inside), 1);
	uint64_t made = make(f, 0, "New");
	send_all(f);
	LIST(f, "INBOX", "Z/In", "Z", "New");
	assert_raw(f, made, "New");
	assert_ops(f, "subscribe"); /* it is made: what goes with that is left */
}

/* LIST brought it before the answer came, and somebody has used it */
static void twin_is_merged(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 1), b = mailbox_with(f, "B", 2);
	DO(f, txn_change_flags(t, by_uid(f, b, 1), SEEN, 0, NULL, NULL));
	DO(f, txn_move(t, by_uid(f, b, 2), inbox, "x.eml", &expunge));
	DO(f, txn_mailbox_rename(t, b, 0, "away"));
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	DO(f, txn_cancel(t, nth_op(f, 2).id));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 2).id, "B"));
	assert_raw(f, a, "B");
	assert_ops(f, "flags move");
	assert_int_equal(nth_op(f, 0).mailbox, a);
	assert_int_equal(nth_op(f, 1).mailbox, a);
}

/* one takes the name that another, which could not be made yet, was to have */
static void names_of_others(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), a = mailbox_with(f, "A", 1), made = make(f, 0, "New"), inside = make(f, made, "In");
	DO(f, txn_move(t, by_uid(f, inbox, 1), made, "x.eml", &expunge));
	DO(f, txn_mailbox_rename(t, made, 0, "Newer"));
	DO(f, txn_mailbox_rename(t, a, 0, "New"));
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "no"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 3).id, "New"));
	assert_raw(f, a, "New");
	assert_true(has_mailbox(f, "Newer/In"));
	assert_int_equal(list_count(f, made), 1);
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Newer"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Newer/In"));
	assert_raw(f, made, "Newer");
	assert_raw(f, inside, "Newer/In");
	/* one that was of that name at the server, and is not any more, with what it has */
	uint64_t b = mailbox_with(f, "B", 1), b_in = mailbox_with(f, "B/In", 1);
	DO(f, txn_mailbox_rename(t, b, 0, "C"));
	DO(f, txn_op_park(t, nth_op(f, journal_count(f->c) - 1).id, OP_PARKED, "no such mailbox"));
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, journal_count(f->c) - 1).id, "B"));
	assert_raw(f, a, "B");
	assert_int_equal(list_count(f, b_in), 1);
}

static void mailbox_deleted(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 2), in = mailbox_with(f, "A/In", 0);
	char *before = tree_text(f->state, true), *names[] = { name_of(f, by_uid(f, a, 1)), name_of(f, by_uid(f, a, 2)) };
	uint64_t one = by_uid(f, a, 1), two = by_uid(f, a, 2);
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, inbox)), MF_UNSUPPORTED);
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_EXISTS);
	DO(f, txn_move(t, one, inbox, "1.eml", &expunge));
	DO(f, txn_remove(t, two, &expunge));
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_EXISTS);
	DO(f, txn_mailbox_delete(t, in));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "move expunge delete delete");
	LIST(f, "INBOX", "A", "A/In"); /* not shown although it is still there */
	assert_false(has_mailbox(f, "A"));
	bool uses = false;
	assert_int_equal(journal_uses(f->c, a, &uses), MF_OK);
	assert_true(uses);
	cancel_all(f); /* without any server */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	assert_string_equal(names[0], ({ free(after); after = name_of(f, one); }));
	LIST(f, "INBOX", "A", "A/In");
	assert_int_equal(list_count(f, a), 2);
	free(before);
	free(after);
	free(names[0]);
	free(names[1]);
}

static void renamed_and_deleted(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0);
	char *before = tree_text(f->state, true);
	DO(f, txn_mailbox_rename(t, a, b, "C"));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "delete");
	DO(f, txn_mailbox_delete(t, b));
	cancel_all(f);
	assert_tree_is(f->state, before);
}

/* rm -r and mkdir: it is the one that is still at the server */
static void deleted_and_made_again(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 1);
	DO(f, txn_remove(t, by_uid(f, a, 1), &expunge));
	DO(f, txn_mailbox_delete(t, a));
	assert_int_equal(make(f, 0, "A"), a);
	assert_ops(f, "expunge");
	assert_raw(f, a, "A");
	assert_int_equal(list_count(f, a), 0);
	LIST(f, "INBOX", "A");
	assert_true(has_mailbox(f, "A"));
	cancel_all(f);
	assert_int_equal(list_count(f, a), 1);
}

static void names_are_given_up_first(void **state)
{
	struct fixture *f = *state;
	enum name_state name;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0), c = mailbox_with(f, "C", 0);
	DO(f, txn_mailbox_rename(t, a, 0, "X"));
	DO(f, txn_mailbox_rename(t, b, 0, "Y"));
	DO(f, txn_mailbox_rename(t, a, 0, "B")); /* the first, with another target */
	struct op first = nth_op(f, 0), second = nth_op(f, 1);
	assert_int_equal(journal_name_state(f->c, &first, "B", &name), MF_OK);
	assert_int_equal(name, NAME_LEAVING);
	assert_int_equal(journal_name_state(f->c, &second, "Y", &name), MF_OK);
	assert_int_equal(name, NAME_FREE);
	DO(f, txn_op_park(t, second.id, OP_PARKED, "no"));
	assert_int_equal(journal_name_state(f->c, &first, "B", &name), MF_OK);
	assert_int_equal(name, NAME_HELD);
	DO(f, txn_mailbox_delete(t, c));
	assert_int_equal(journal_name_state(f->c, &first, "C", &name), MF_OK);
	assert_int_equal(name, NAME_HELD);
}

/* One that made way for another is called what the server calls it when the rest is taken back. */
static void taken_back_while_aside(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 1), b = mailbox_with(f, "B", 1);
	char aside[40];
	DO(f, txn_mailbox_rename(t, a, 0, "X"));
	DO(f, txn_mailbox_rename(t, b, 0, "A"));
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	struct op op;
	assert_int_equal(journal_op(f->c, nth_op(f, 0).id, &op), MF_OK);
	op.aside = true;
	assert_int_equal(journal_mark_sent(f->c, &op, 1), MF_OK);
	snprintf(aside, sizeof aside, "B-moving-%u", (unsigned)a);
	assert_string_equal(op.raw, aside);
	DO(f, txn_op_mailbox_is(t, op.id, op.raw));
	op_finish(&op);
	assert_ops(f, "rename rename");
	assert_raw(f, a, aside);
	LIST(f, "INBOX", "B", aside);
	assert_true(has_mailbox(f, "A") && has_mailbox(f, "B"));
	cancel_all(f);
	assert_ops(f, "");
	LIST(f, "INBOX", "B", aside);
	assert_true(has_mailbox(f, "B") && has_mailbox(f, aside) && !has_mailbox(f, "A"));
	assert_raw(f, b, "B");
}

static void deleted_inside_first(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), in = mailbox_with(f, "A/In", 1);
	DO(f, txn_remove(t, by_uid(f, in, 1), &expunge));
	DO(f, txn_mailbox_delete(t, in));
	DO(f, txn_mailbox_delete(t, a));
	bool uses = false;
	assert_int_equal(journal_uses(f->c, a, &uses), MF_OK);
	assert_true(uses); /* what is inside goes first */
}

/* what is left of a move by copying keeps it too */
static void deleted_with_half_a_move(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 1);
	DO(f, txn_move(t, by_uid(f, a, 1), inbox, "x.eml", &expunge));
	DO(f, txn_mailbox_delete(t, a));
	send_all(f);
	struct op half = nth_op(f, 0);
	DO(f, txn_op_half_moved(t, &half, VALIDITY, 2));
	assert_ops(f, "delete expunge");
	bool uses = false;
	assert_int_equal(journal_uses(f->c, a, &uses), MF_OK);
	assert_true(uses);
}

/* messages are on their way through it */
static void deleted_while_in_transit(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, a, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_BUSY);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "move delete");
}

static void removed_by_another_client(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), a = mailbox_with(f, "A", 2);
	uint64_t to = by_uid(f, inbox, 1), from = by_uid(f, a, 1), unsent = create_written(f, a, "unsent.eml", TEXT("1"));
	DO(f, txn_move(t, to, a, "to.eml", &expunge));
	DO(f, txn_change_flags(t, by_uid(f, a, 2), SEEN, 0, NULL, NULL));
	DO(f, txn_move(t, from, inbox, "from.eml", &expunge));
	LIST(f, "INBOX");
	assert_true(has_mailbox(f, "A")); /* ours to make again */
	assert_int_equal(in_mailbox(f, to), a);
	assert_int_equal(in_mailbox(f, unsent), a);
	assert_ops(f, "append move flags move create");
	assert_int_equal(nth_op(f, 4).state, OP_PARKED);
	LIST(f, "INBOX");
	/* a mailbox that nothing needs just goes */
	uint64_t b = mailbox_with(f, "B", 2);
	DO(f, txn_change_flags(t, by_uid(f, b, 2), SEEN, 0, NULL, NULL));
	struct txn *t = begin(f);
	uint64_t id;
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = "INBOX", .delimiter = '/' }, &id), MF_OK);
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	assert_false(has_mailbox(f, "B"));
}

/* it was sent, not done, and is to have its old name again; or another one by the time that this is noticed */
/* nor are files that are only here, whether anything waits or not */
static void removed_with_files(void **state)
{
	struct fixture *f = *state;
	(void)mailbox_with(f, "INBOX", 1);
	uint64_t b = mailbox_with(f, "B", 2), scratch = create_written(f, b, ".notes", "only here");
	assert_ops(f, "");
	LIST(f, "INBOX");
	assert_int_equal(by_name(f, b, ".notes"), scratch);
	assert_int_equal(list_count(f, b), 1);
	assert_true(spool_is(f, scratch, "only here"));
	assert_ops(f, "create");
	assert_int_equal(nth_op(f, 0).state, OP_PARKED);
}

static void called_so_already(void **state)
{
	struct fixture *f = *state;
	uint64_t a = mailbox_with(f, "A", 0);
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	send_all(f);
	DO(f, txn_mailbox_rename(t, a, 0, "A"));
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	assert_ops(f, "rename rename");
	DO(f, txn_mailbox_rename(t, a, 0, "C"));
	DO(f, txn_mailbox_is_called(t, a));
	assert_true(journal_count(f->c) > 0);
	DO(f, txn_mailbox_rename(t, a, 0, "A"));
	DO(f, txn_mailbox_is_called(t, a));
	assert_ops(f, "");
	assert_raw(f, a, "A");
}

static void subscriptions(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0);
	DO(f, txn_mailbox_subscribe(t, a, true));
	DO(f, txn_mailbox_subscribe(t, a, true));
	assert_ops(f, "subscribe");
	DO(f, txn_mailbox_subscribe(t, a, false));
	assert_ops(f, "");
	DO(f, txn_mailbox_subscribe(t, a, true));
	cancel_all(f);
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, a, &m), MF_OK);
	assert_false(m.flags & CACHE_MAILBOX_SUBSCRIBED);
	mailbox_finish(&m);
	/* what was sent, and not answered, may have been done */
	DO(f, txn_mailbox_subscribe(t, a, true));
	send_all(f);
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	DO(f, txn_mailbox_subscribe(t, a, false));
	assert_ops(f, "unsubscribe");
	send_all(f);
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	assert_ops(f, "subscribe");
	cancel_all(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(mailbox_made_and_taken_back), WITH_CACHE(mailbox_made_at_the_server), WITH_CACHE(as_deep_as_can_be), WITH_CACHE(mailbox_renamed_and_back),
		WITH_CACHE(renamed_and_the_answer_lost), WITH_CACHE(twin_is_merged), WITH_CACHE(names_of_others), WITH_CACHE(mailbox_deleted), WITH_CACHE(renamed_and_deleted),
		WITH_CACHE(deleted_and_made_again), WITH_CACHE(names_are_given_up_first), WITH_CACHE(taken_back_while_aside),
		WITH_CACHE(deleted_inside_first), WITH_CACHE(deleted_with_half_a_move), WITH_CACHE(deleted_while_in_transit),
		WITH_CACHE(removed_by_another_client), WITH_CACHE(removed_with_files), WITH_CACHE(subscriptions), WITH_CACHE(called_so_already),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

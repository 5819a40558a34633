/* journal: what the server's answers make of what waits; mailboxes; taking all back */
#include "unit/test_journal_world.h"

/* --- the server's answers ---------------------------------------------------------------------------------------------------- */

static void done_with_a_number(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2);
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 3));
	assert_ops(f, "");
	assert_int_equal(by_uid(f, inbox, 3), id);
	assert_true(has_body(f, id, TEXT("1")));
	assert_false(spool_has(f->c, id));
	DO(f, txn_op_done(t, 4711, VALIDITY, 3)); /* nothing where it is gone */
}

static struct mail_summary summary_of(const char *text)
{
	struct mail_summary summary;
	mail_summary_parse(text, strlen(text), strlen(text), &summary);
	return summary;
}

static uint64_t put_text(struct fixture *f, uint64_t mailbox, uint32_t uid, const char *text, int64_t date, unsigned flags)
{
	struct mail_summary summary = summary_of(text);
	struct message_put put = { .mailbox = mailbox, .uid = uid, .size = strlen(text), .modseq = 5, .internal_date = date, .flags = flags,
		.keywords = "", .summary = &summary };
	uint64_t id = 0;
	DO(f, txn_message_put(t, &put, &id));
	mail_summary_finish(&summary);
	return id;
}

/* a synchronisation was there first, and somebody has flagged what it brought */
static void double_is_absorbed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), id = by_uid(f, inbox, 2);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	/* not sent as far as the index knows: it makes a row */
	struct test_message m;
	message_make(&m, b, 1, (unsigned)inbox * 1000 + 2);
	m.put.flags = ANSWERED;
	uint64_t twin = 0;
	DO(f, txn_message_put(t, &m.put, &twin));
	assert_int_not_equal(twin, id);
	add_body(f, twin, "body");
	DO(f, txn_change_flags(t, twin, FLAGGED, 0, NULL, NULL));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), id);
	assert_int_equal(list_count(f, b), 1);
	assert_true(has_body(f, id, "body"));
	assert_int_equal(flags_of(f, id), ANSWERED | FLAGGED);
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).message, id);
}

static void claimed_places_make_no_rows(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_remove(t, two, &expunge));
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	DO(f, txn_message_put(t, message_make(&m, inbox, 2, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	assert_int_equal(list_count(f, inbox), 1);
	/* they count among what the server has */
	assert_int_equal(by_uid(f, inbox, 1), one);
	assert_int_equal(by_uid(f, inbox, 2), two);
	/* others remove them: existence is the server's */
	DO(f, txn_message_vanished(t, inbox, 1));
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_ops(f, "");
	assert_int_equal(list_count(f, b), 0);
	assert_int_equal(in_mailbox(f, two), 0);
}

/* What others do to the flags of what has been moved away here is seen where it is */
static void claimed_flags(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, one, FLAGGED, 0, NULL, NULL));
	DO(f, txn_message_flags(t, inbox, 1, SEEN, "K", 9));
	assert_int_equal(flags_of(f, one), SEEN | FLAGGED);
	DO(f, txn_move(t, one, inbox, "y.eml", &expunge));
	assert_int_equal(flags_of(f, one), SEEN | FLAGGED);
	assert_keywords(f, one, "K");
}

static void sent_and_vanished_waits_for_its_answer(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_message_vanished(t, inbox, 1));
	assert_ops(f, "move");
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), one);
}

static void lost_answers_are_adopted(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	uint64_t made = create_written(f, b, "made.eml", TEXT("1")), copy = create(f, b, "copy.eml");
	DO(f, txn_copied(t, copy, one, 0));
	DO(f, txn_move(t, two, b, "two.eml", &expunge));
	send_all(f);
	DO(f, txn_change_flags(t, made, SEEN, 0, NULL, NULL)); /* after it was sent */
	assert_ops(f, "append copy move flags");
	uint64_t moved = nth_op(f, 2).id;
	/* the server gave the appended one another date */
	assert_int_equal(put_text(f, b, 1, TEXT("1"), 1800000000, ANSWERED), made);
	assert_int_equal(flags_of(f, made), SEEN | ANSWERED);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, copy);
	DO(f, txn_message_put(t, message_make(&m, b, 3, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	assert_int_equal(list_count(f, b), 3);
	/* whether the original of what was moved is gone as well nobody has said */
	assert_ops(f, "flags expunge");
	assert_int_equal(nth_op(f, 1).mailbox, inbox);
	assert_int_equal(nth_op(f, 1).uid, 2);
	/* the answer after all */
	DO(f, txn_op_half_moved(t, moved, VALIDITY, 3));
	DO(f, txn_op_done(t, moved, VALIDITY, 3));
	assert_ops(f, "flags expunge");
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).uid, 1);
}

static void half_a_move(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_move(t, two, b, "y.eml", &expunge));
	send_all(f);
	DO(f, txn_change_flags(t, two, SEEN, 0, NULL, NULL));
	uint64_t first = nth_op(f, 0).id, second = nth_op(f, 1).id;
	DO(f, txn_op_half_moved(t, first, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), one);
	assert_ops(f, "move flags expunge");
	uint64_t rest = nth_op(f, 2).id;
	assert_int_equal(nth_op(f, 2).state, OP_QUEUED);
	assert_int_equal(nth_op(f, 2).uid, 1);
	assert_int_equal(CHANGE(f, txn_cancel(t, rest)), MF_BUSY);
	DO(f, txn_op_half_moved(t, second, 0, 0)); /* it did not say where */
	assert_ops(f, "copy flags expunge expunge");
	assert_int_equal(nth_op(f, 0).state, OP_UNCONFIRMED);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	/* the originals are still told of */
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(list_count(f, inbox), 1);
	DO(f, txn_op_done(t, first, 0, 0)); /* of which there is nothing left */
	assert_int_equal(nth_op(f, 0).uid, 2);
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	assert_ops(f, "");
}

static void copies_that_wait_follow_a_move(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), made = create(f, b, "copy.eml");
	DO(f, txn_copied(t, made, one, 0));
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "over quota"));
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 1).id, VALIDITY, 9));
	assert_ops(f, "copy");
	assert_int_equal(nth_op(f, 0).mailbox, b);
	assert_int_equal(nth_op(f, 0).uid, 9);
}

static void without_a_number(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0);
	uint64_t made = create_written(f, b, "made.eml", TEXT("1")), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "one.eml", &expunge));
	send_all(f);
	uint64_t append = nth_op(f, 0).id, move = nth_op(f, 1).id;
	DO(f, txn_op_done(t, append, 0, 0));
	DO(f, txn_op_done(t, move, VALIDITY + 1, 9)); /* numbers of another time */
	assert_ops(f, "append move");
	assert_int_equal(nth_op(f, 0).state, OP_UNCONFIRMED);
	struct journal_totals totals;
	assert_int_equal(journal_totals(f->c, &totals), MF_OK);
	assert_int_equal(totals.unconfirmed, 2);
	assert_true(spool_is(f, made, TEXT("1")));
	assert_int_equal(put_text(f, b, 1, TEXT("1"), 1700000000, 0), made);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	assert_true(has_body(f, made, TEXT("1")));
}

static void refused_parked_retried(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	char *before = tree_text(f->state, true), *text;
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	uint64_t move = nth_op(f, 0).id;
	assert_int_equal(CHANGE(f, txn_cancel(t, move)), MF_BUSY);
	assert_int_equal(CHANGE(f, txn_retry(t, move)), MF_BUSY);
	DO(f, txn_op_park(t, move, OP_PARKED, "over quota"));
	assert_int_equal(journal_state_of(f->c, one, &text), MF_OK);
	assert_string_equal(text, "parked: move: over quota");
	free(text);
	DO(f, txn_retry(t, move));
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	DO(f, txn_op_again(t, move, 1000));
	int64_t due;
	assert_int_equal(journal_next_due(f->c, &due), MF_OK);
	assert_int_equal(due, 1000);
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	assert_int_equal(journal_state_of(f->c, one, &text), MF_OK);
	assert_string_equal(text, "synchronised");
	free(text);
	assert_int_equal(CHANGE(f, txn_cancel(t, move)), MF_NOT_FOUND);
}

static void renumbered_mailbox(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 5), b = mailbox_with(f, "B", 0);
	uint64_t one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), three = by_uid(f, inbox, 3), four = by_uid(f, inbox, 4);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, two, SEEN, 0, "K", NULL));
	DO(f, txn_remove(t, three, &expunge));
	DO(f, txn_move(t, four, b, "lost.eml", &expunge));
	uint64_t unsent = create_written(f, inbox, "unsent.eml", TEXT("1"));
	DO(f, txn_mailbox_renumbered(t, inbox, VALIDITY + 1));
	assert_int_equal(by_name(f, inbox, "unsent.eml"), unsent);
	/* all but the fourth come again, otherwise numbered */
	for (uint32_t i = 1; i <= 5; i++) {
		struct test_message m;
		uint64_t got = 0;
		if (i != 4)
			DO(f, txn_message_put(t, message_make(&m, inbox, 10 + i, (unsigned)inbox * 1000 + i), &got));
	}
	DO(f, txn_mailbox_synced(t, inbox, true, VALIDITY + 1, 20, 9, 1, false));
	assert_int_equal(list_count(f, inbox), 3); /* 2, 5 and the unsent */
	assert_int_equal(by_uid(f, inbox, 12), two);
	assert_int_equal(flags_of(f, two), SEEN); /* what waits lies on top */
	assert_keywords(f, two, "K");
	assert_int_equal(by_uid(f, inbox, 11), one);
	assert_int_equal(by_uid(f, inbox, 13), three);
	assert_ops(f, "move flags expunge move append");
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(nth_op(f, i).uidvalidity, VALIDITY + 1);
		assert_int_equal(nth_op(f, i).uid, 11 + i);
	}
	assert_int_equal(nth_op(f, 3).uidvalidity, VALIDITY); /* replay sees that it is left over */
	DO(f, txn_move(t, one, inbox, "back.eml", &expunge));
	assert_int_equal(by_uid(f, inbox, 11), one);
}

/* Another client moves what is to be flagged */
static void flags_follow_a_move_elsewhere(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), got = 0;
	DO(f, txn_change_flags(t, one, SEEN, 0, NULL, NULL));
	struct test_message m;
	message_make(&m, b, 7, (unsigned)inbox * 1000 + 1);
	DO(f, txn_message_put(t, &m.put, &got));
	DO(f, txn_message_vanished(t, inbox, 1));
	assert_int_equal(by_uid(f, b, 7), one);
	assert_int_equal(flags_of(f, one), SEEN);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	assert_int_equal(nth_op(f, 0).uid, 7);
}

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
	assert_int_equal(txn_mailboxes_swept(t), MF_OK);
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
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
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
	assert_ops(f, "create"); /* which does no harm a second time */
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
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
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
	DO(f, txn_op_half_moved(t, nth_op(f, 0).id, VALIDITY, 2));
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
	assert_int_equal(txn_mailboxes_swept(t), MF_OK);
	commit(t);
	assert_false(has_mailbox(f, "B"));
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
}

/* --- anything -------------------------------------------------------------------------------------------------------------------- */

static unsigned dice_state;
static unsigned dice(unsigned sides)
{
	dice_state = dice_state * 1103515245U + 12345U;
	return dice_state / 65536U % sides;
}

struct found_ids { uint64_t ids[400]; size_t count; };
static bool note_id(void *context, const struct entry *e, const char *name)
{
	(void)name;
	struct found_ids *found = context;
	if (found->count < 400)
		found->ids[found->count++] = e->id;
	return true;
}

static bool note_mailbox(void *context, const struct mailbox *m)
{
	struct found_ids *found = context;
	if (found->count < 100)
		found->ids[found->count++] = m->id;
	return true;
}

static uint64_t any_mailbox(struct fixture *f)
{
	struct found_ids found = { .count = 0 };
	assert_int_equal(cache_mailboxes(f->c, note_mailbox, &found), MF_OK);
	return found.ids[dice((unsigned)found.count)];
}

static uint64_t any_message(struct fixture *f)
{
	struct found_ids found = { .count = 0 };
	for (int i = 0; i < 8 && !found.count; i++)
		assert_int_equal(cache_list(f->c, any_mailbox(f), 0, note_id, &found), MF_OK);
	return found.count ? found.ids[dice((unsigned)found.count)] : 0;
}

static void random_change(struct fixture *f, bool writes)
{
	uint64_t message = any_message(f), mailbox = any_mailbox(f), made = 0;
	char name[40];
	snprintf(name, sizeof name, dice(5) ? "n%u.eml" : "n%u~", dice(12));
	struct disposal how = { .expunge = dice(3) == 0, .trash = dice(4) ? any_mailbox(f) : 0 };
	static const char *const texts[] = { TEXT("a"), TEXT("bb"), TEXT("ccc") };
	const char *text = texts[dice(3)];
	switch (dice(writes ? 12 : 8)) {
	case 0: case 1:
		if (message)
			(void)CHANGE(f, txn_change_flags(t, message, dice(32), dice(32), dice(2) ? "K1 K2" : "", dice(2) ? "K2 K3" : ""));
		break;
	case 2: case 3: case 4:
		if (message)
			(void)CHANGE(f, txn_move(t, message, mailbox, name, &how));
		break;
	case 5:
		if (message)
			(void)CHANGE(f, txn_remove(t, message, &how));
		break;
	case 6: (void)CHANGE(f, txn_mailbox_create(t, dice(2) ? mailbox : 0, name, &made)); break;
	case 7: (void)(dice(2) ? CHANGE(f, txn_mailbox_rename(t, mailbox, dice(2) ? any_mailbox(f) : 0, name)) : CHANGE(f, txn_mailbox_delete(t, mailbox))); break;
	case 8: case 9:
		if (CHANGE(f, txn_create(t, mailbox, name, &made)) == MF_OK) {
			if (dice(4) == 0 && message) {
				(void)CHANGE(f, txn_copied(t, made, message, 0));
			} else if (dice(5)) {
				prepare(f, made, text);
				(void)CHANGE(f, written_in(t, made, text, !name_is_scratch(name), &how));
			}
		}
		break;
	case 10: case 11:
		if (message) {
			prepare(f, message, text);
			(void)CHANGE(f, written_in(t, message, text, true, &how));
		}
		break;
	}
}

static uint32_t next_uid = 1000;

/* The engine does something with what can be done: answers of all kinds */
static void random_answer(struct fixture *f)
{
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 3, &ops, &count), MF_OK);
	if (dice(3))
		assert_int_equal(journal_mark_sent(f->c, ops, count), MF_OK);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	if (!journal_count(f->c))
		return;
	struct op op = nth_op(f, dice((unsigned)journal_count(f->c)));
	bool moves = op.kind == OP_MOVE;
	if (op.state == OP_SENT && op.kind < OP_CREATE) {
		uint32_t validity = dice(4) ? VALIDITY : 0;
		switch (dice(6)) {
		case 0: (void)CHANGE(f, txn_op_gone(t, op.id)); break;
		case 1: (void)CHANGE(f, txn_op_park(t, op.id, OP_PARKED, "no")); break;
		case 2: (void)CHANGE(f, txn_op_again(t, op.id, 0)); break;
		case 3:
			if (moves) {
				(void)CHANGE(f, txn_op_half_moved(t, op.id, validity, next_uid++));
				break;
			} /* fall through */
		default: (void)CHANGE(f, txn_op_done(t, op.id, validity, next_uid++)); break;
		}
	} else if (op.state == OP_SENT) {
		char *target = NULL;
		if ((op.kind == OP_CREATE || op.kind == OP_RENAME) && dice(3)) {
			if (journal_target(f->c, &op, &target) == MF_OK)
				DO(f, txn_op_mailbox_is(t, op.id, target));
			else
				DO(f, txn_op_park(t, op.id, OP_PARKED, "no"));
			free(target);
		} else if (op.kind == OP_CREATE || op.kind == OP_RENAME) {
			DO(f, txn_op_park(t, op.id, OP_PARKED, "no"));
		} else {
			DO(f, txn_op_done(t, op.id, 0, 0));
		}
	} else if (dice(4) == 0) {
		(void)CHANGE(f, txn_cancel(t, op.id));
	} else if (op.uid && dice(4) == 0) {
		(void)CHANGE(f, txn_message_vanished(t, op.mailbox, op.uid));
	} else if (dice(3) == 0) {
		(void)CHANGE(f, txn_retry(t, op.id));
	}
}

static unsigned rounds(unsigned few)
{
	const char *many = getenv("MAILFS_JOURNAL_ROUNDS");
	return many ? (unsigned)strtoul(many, NULL, 10) : few;
}

/* Whatever is done, taking it all back, the newest first, leaves what was. */
static void all_taken_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 5);
	mailbox_with(f, "Trash", 1);
	mailbox_with(f, "B", 3);
	mailbox_with(f, "B/In", 2);
	char *before = tree_text(f->state, true);
	for (unsigned round = 0; round < rounds(25); round++) {
		dice_state = round + 1;
		for (unsigned i = 0, steps = 1 + dice(12); i < steps; i++) {
			struct txn *t = begin(f);
			uint64_t message = any_message(f), made;
			struct entry entry = { .uid = 0 };
			bool there = message && cache_entry(f->c, message, &entry) == MF_OK && entry.uid; /* else it may go back, which is no change */
			struct disposal how = { .expunge = !there || dice(3) == 0, .trash = dice(4) ? any_mailbox(f) : 0 };
			char name[40];
			snprintf(name, sizeof name, "n%u.eml", 100 * round + i); /* each its own: what is displaced keeps its name but in Trash */
			enum mf_err e;
			switch (dice(6)) {
			case 0: e = txn_mailbox_create(t, dice(2) ? any_mailbox(f) : 0, name, &made); break;
			case 1: e = txn_mailbox_rename(t, any_mailbox(f), dice(2) ? any_mailbox(f) : 0, name); break;
			case 2: e = txn_mailbox_delete(t, any_mailbox(f)); break;
			case 3: e = message ? txn_remove(t, message, &how) : MF_OK; break;
			default: {
				/* within a mailbox a new name is nothing that waits */
				uint64_t to = any_mailbox(f);
				e = there && to != entry.mailbox ? txn_move(t, message, to, name, &how) : MF_OK;
			}
			}
			if (e)
				txn_rollback(t);
			else
				commit(t);
			check_index(f->c, f->state);
		}
		/* what messages lie in has to wait for them */
		for (unsigned pass = 0; pass < 4; pass++) {
			for (uint64_t n = journal_count(f->c); n-- > 0;) {
				if (n >= journal_count(f->c))
					continue;
				struct op op = nth_op(f, n);
				enum mf_err e = CHANGE(f, txn_cancel(t, op.id));
				if (e && e != MF_EXISTS)
					fail_msg("round %u: cancel of %s: %s", round, op_kind_word(op.kind), mf_err_name(e));
			}
		}
		assert_int_equal(journal_count(f->c), 0);
		char *after = tree_text(f->state, true);
		if (strcmp(before, after) != 0)
			fail_msg("round %u: not as before, but:\n%s", round, after);
		free(after);
	}
	free(before);
}

/* Counts, listings and operations agree after each of many changes and answers; and so they do when the index is opened again. */
static void nothing_drifts(void **state)
{
	struct fixture *f = *state;
	for (unsigned round = 0; round < rounds(12); round++) {
		dice_state = 1000 + round;
		struct found_ids found = { .count = 0 };
		assert_int_equal(cache_mailboxes(f->c, note_mailbox, &found), MF_OK);
		if (round == 0) {
			mailbox_with(f, "INBOX", 8);
			mailbox_with(f, "Trash", 2);
			mailbox_with(f, "B", 5);
		}
		for (unsigned i = 0; i < 60; i++) {
			if (dice(3))
				random_change(f, true);
			else
				random_answer(f);
		}
		fixture_close(f);
		fixture_open(f);
		check_index(f->c, f->state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(done_with_a_number), WITH_CACHE(double_is_absorbed), WITH_CACHE(claimed_places_make_no_rows),
		WITH_CACHE(claimed_flags), WITH_CACHE(sent_and_vanished_waits_for_its_answer), WITH_CACHE(lost_answers_are_adopted),
		WITH_CACHE(half_a_move), WITH_CACHE(copies_that_wait_follow_a_move), WITH_CACHE(without_a_number),
		WITH_CACHE(refused_parked_retried), WITH_CACHE(renumbered_mailbox), WITH_CACHE(flags_follow_a_move_elsewhere),
		WITH_CACHE(mailbox_made_and_taken_back), WITH_CACHE(mailbox_made_at_the_server), WITH_CACHE(mailbox_renamed_and_back),
		WITH_CACHE(renamed_and_the_answer_lost), WITH_CACHE(names_of_others), WITH_CACHE(mailbox_deleted),
		WITH_CACHE(renamed_and_deleted), WITH_CACHE(deleted_inside_first), WITH_CACHE(deleted_with_half_a_move),
		WITH_CACHE(deleted_while_in_transit), WITH_CACHE(removed_by_another_client), WITH_CACHE(subscriptions),
		WITH_CACHE(all_taken_back), WITH_CACHE(nothing_drifts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

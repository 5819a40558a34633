/* journal: what the server's answers, and what it tells by itself, make of changes that wait */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "unit/test_journal_fixture.h"

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

/* What was to be copied is gone, and the copy's bytes are kept, while a person writes a new version of it. */
static void kept_beside_a_new_version(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0);
	uint64_t id = create_written(f, inbox, "one.eml", TEXT("1")), copy = create(f, inbox, "copy.eml");
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	DO(f, txn_copied(t, copy, id, 0));
	prepare(f, copy, TEXT("new"));
	DO(f, txn_op_gone(t, nth_op(f, 0).id));
	assert_ops(f, "append");
	assert_true(spool_is(f, copy, TEXT("1")));
	DO(f, written_in(t, copy, TEXT("new"), true, &expunge));
	assert_true(spool_is(f, copy, TEXT("new")));
}

struct overwriter { struct fixture *f; uint64_t message; atomic_bool begun; };

static void *overwrite_when_done(void *context)
{
	struct overwriter *o = context;
	atomic_store(&o->begun, true);
	while (journal_count(o->f->c))
		sched_yield();
	struct txn *t;
	if (cache_begin(o->f->c, &t) == MF_OK && written_in(t, o->message, TEXT("new"), true, &expunge) == MF_OK)
		(void)txn_commit(t);
	return NULL;
}

/* As soon as the answer is dealt with: what was sent becomes a body, and the new version's bytes are all that there is of it. */
static void overwritten_when_its_answer_comes(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0);
	static char large[16 << 20];
	memset(large, 'x', sizeof large - 1);
	memcpy(large, TEXT("old"), sizeof TEXT("old") - 1);
	uint64_t id = create_written(f, inbox, "new.eml", large);
	send_all(f);
	prepare(f, id, TEXT("new"));
	struct overwriter o = { .f = f, .message = id };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, overwrite_when_done, &o), 0);
	while (!atomic_load(&o.begun))
		sched_yield();
	uint64_t op = nth_op(f, 0).id;
	struct txn *t = begin(f);
	assert_int_equal(txn_op_done(t, op, VALIDITY, 1), MF_OK);
	commit(t);
	pthread_join(thread, NULL);
	assert_ops(f, "append expunge");
	assert_true(spool_is(f, id, TEXT("new")));
	assert_false(has_body(f, id, TEXT("old")));
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

static uint32_t next_number(struct fixture *f, uint64_t mailbox)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, mailbox, &m), MF_OK);
	uint32_t next = m.uidnext;
	mailbox_finish(&m);
	return next;
}

/* Courier does: the message is read again at the next synchronisation, and has that size and other bytes */
static void last_line_ended_by_the_server(void **state)
{
	static const char text[] = "Subject: x\r\nMessage-ID: <1@example.org>\r\n\r\nno end", ended[] = "Subject: x\r\nMessage-ID: <1@example.org>\r\n\r\nno end\r\n";
	struct fixture *f = *state;
	struct entry e;
	uint64_t inbox = mailbox_with(f, "INBOX", 2);
	uint64_t id = create_written(f, inbox, "open.eml", text), other = create_written(f, inbox, "ended.eml", TEXT("1"));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 3));
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 4));
	assert_true(has_body(f, id, text));
	assert_int_equal(next_number(f, inbox), 3);
	assert_int_equal(put_text(f, inbox, 3, ended, 1700000000, 0), id);
	assert_int_equal(put_text(f, inbox, 4, TEXT("1"), 1700000000, 0), other);
	assert_int_equal(cache_entry(f->c, id, &e), MF_OK);
	assert_true(e.size == strlen(ended) && !e.size_checked && !has_body(f, id, text));
	assert_true(has_body(f, other, TEXT("1")));
	/* once: what is said of a message that is known is no news */
	DO(f, txn_mailbox_synced(t, inbox, true, VALIDITY, 5, 5, 1, false));
	put_text(f, inbox, 4, TEXT("1") "\r\n", 1700000000, 0);
	assert_true(has_body(f, other, TEXT("1")));
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

/* All mailboxes have been read since, or (!all) cannot be; how many changes that ended */
static size_t give_up(struct fixture *f, bool all)
{
	size_t count = 0;
	DO(f, txn_strays_settle(t, INT64_MAX, all, &count));
	return count;
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
	/* others remove them: existence is the server's, when no mailbox has them */
	DO(f, txn_message_vanished(t, inbox, 1));
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_int_equal(in_mailbox(f, one), b);
	assert_int_equal(give_up(f, true), 2);
	assert_ops(f, "");
	assert_int_equal(list_count(f, b), 0);
	assert_int_equal(in_mailbox(f, two), 0);
}

/* What others do to the flags of what has been moved away here is seen where it is */
/* A server that stores what it has already only once answers with the number of what it has: that does not go then */
static void stored_where_it_is(void **state)
{
	struct fixture *f = *state;
	uint64_t drafts = mailbox_with(f, "Drafts", 3), inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t draft = by_uid(f, drafts, 2), mail = by_uid(f, inbox, 2);
	write_message(f, draft, TEXT("1"), true, &expunge);
	write_message(f, mail, TEXT("2"), true, &how);
	assert_ops(f, "append expunge append move");
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 2));
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 2));
	assert_ops(f, "");
	assert_int_equal(by_uid(f, drafts, 2), draft);
	assert_int_equal(by_uid(f, inbox, 2), mail);
	assert_int_equal(list_count(f, drafts), 3);
	assert_int_equal(list_count(f, inbox), 3);
	assert_int_equal(list_count(f, trash), 0);
	assert_true(has_body(f, mail, TEXT("2")));
}

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
	struct op moved = nth_op(f, 2);
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
	DO(f, txn_op_half_moved(t, &moved, VALIDITY, 3));
	DO(f, txn_op_done(t, moved.id, VALIDITY, 3));
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
	struct op first = nth_op(f, 0), second = nth_op(f, 1);
	DO(f, txn_op_half_moved(t, &first, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), one);
	assert_ops(f, "move flags expunge");
	uint64_t rest = nth_op(f, 2).id;
	assert_int_equal(nth_op(f, 2).state, OP_QUEUED);
	assert_int_equal(nth_op(f, 2).uid, 1);
	assert_int_equal(CHANGE(f, txn_cancel(t, rest)), MF_BUSY);
	DO(f, txn_op_half_moved(t, &second, 0, 0)); /* it did not say where */
	assert_ops(f, "copy flags expunge expunge");
	assert_int_equal(nth_op(f, 0).state, OP_UNCONFIRMED);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	/* the originals are still told of */
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(list_count(f, inbox), 1);
	DO(f, txn_op_done(t, first.id, 0, 0)); /* of which there is nothing left */
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
	assert_int_equal(journal_next_due(f->c, 999, &due), MF_OK);
	assert_int_equal(due, 1000);
	assert_int_equal(journal_next_due(f->c, 1000, &due), MF_OK); /* what keeps it back is not the time */
	assert_int_equal(due, INT64_MAX);
	cancel_all(f);
	assert_tree_is(f->state, before);
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

/* What is left over from before the mailbox was numbered anew claims nothing that has its number now. */
static void numbers_are_given_again(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), got = 0;
	struct test_message m;
	DO(f, txn_move(t, by_uid(f, inbox, 2), b, "left-over.eml", &expunge));
	DO(f, txn_mailbox_renumbered(t, inbox, VALIDITY + 1));
	DO(f, txn_message_put(t, message_make(&m, inbox, 2, 4711), &got));
	DO(f, txn_mailbox_synced(t, inbox, true, VALIDITY + 1, 3, 9, 1, false));
	uint64_t other = got;
	DO(f, txn_move(t, other, b, "other.eml", &expunge));
	DO(f, txn_message_put(t, message_make(&m, inbox, 2, 4711), &got));
	assert_int_equal(got, other);
	assert_int_equal(list_count(f, inbox), 0);
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_int_equal(give_up(f, true), 1);
	assert_int_equal(by_name(f, b, "other.eml"), 0);
	assert_ops(f, "move");
	assert_int_equal(nth_op(f, 0).uidvalidity, VALIDITY);
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

/* Which of two that are alike has come is not known: no original goes for it */
static void twins_keep_their_originals(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0);
	unsigned number = (unsigned)inbox * 1000 + 1;
	uint64_t one = by_uid(f, inbox, 1), two = add_message(f, a, 1, number), got = 0;
	struct test_message m;
	DO(f, txn_move(t, one, b, "one.eml", &expunge));
	DO(f, txn_move(t, two, b, "two.eml", &expunge));
	send_all(f);
	DO(f, txn_message_put(t, message_make(&m, b, 1, number), &got));
	assert_true(got == one || got == two);
	assert_ops(f, "move");
	/* the last of them is not to be mistaken */
	DO(f, txn_message_put(t, message_make(&m, b, 2, number), &got));
	assert_ops(f, "expunge");
	assert_int_equal(list_count(f, b), 2);
}

/* The server says which of them it was that was seen before its answer came: that original goes after all */
static void twins_are_told_apart_by_the_answers(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0), got = 0;
	unsigned number = (unsigned)inbox * 1000 + 1;
	uint64_t one = by_uid(f, inbox, 1), two = add_message(f, a, 1, number);
	struct test_message m;
	DO(f, txn_move(t, one, b, "one.eml", &expunge));
	DO(f, txn_move(t, two, b, "two.eml", &expunge));
	send_all(f);
	struct op first = nth_op(f, 0), second = nth_op(f, 1);
	DO(f, txn_message_put(t, message_make(&m, b, 1, number), &got));
	assert_int_equal(got, one);
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, number), &got)); /* there still, and shown */
	assert_int_equal(list_count(f, inbox), 1);
	DO(f, txn_message_put(t, message_make(&m, b, 2, number), &got));
	assert_int_equal(got, two);
	assert_ops(f, "expunge");
	DO(f, txn_op_half_moved(t, &first, VALIDITY, 1));
	DO(f, txn_op_half_moved(t, &second, VALIDITY, 2));
	DO(f, txn_op_half_moved(t, &first, VALIDITY, 9)); /* of which nothing is known */
	assert_ops(f, "expunge expunge");
	assert_int_equal(nth_op(f, 1).mailbox, inbox);
	assert_int_equal(nth_op(f, 1).uid, 1);
	assert_int_equal(list_count(f, inbox), 0);
	assert_int_equal(list_count(f, b), 2);
}

/* Under which number the original is nobody knows any more: it is not to go for another */
static void moved_out_of_what_was_numbered_anew(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), got = 0;
	struct test_message m;
	DO(f, txn_move(t, one, b, "one.eml", &expunge));
	send_all(f);
	DO(f, txn_mailbox_renumbered(t, inbox, VALIDITY + 1));
	DO(f, txn_message_put(t, message_make(&m, b, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	assert_ops(f, "");
}

/* What was there before, under another number, is not what is to come */
static void twin_in_what_is_numbered_anew(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), b = mailbox_with(f, "B", 1), old = by_uid(f, b, 1), got = 0;
	unsigned number = (unsigned)b * 1000 + 1;
	uint64_t moved = add_message(f, inbox, 2, number);
	struct test_message m;
	DO(f, txn_move(t, moved, b, "moved.eml", &expunge));
	send_all(f);
	DO(f, txn_mailbox_renumbered(t, b, VALIDITY + 1));
	DO(f, txn_message_put(t, message_make(&m, b, 11, number), &got));
	assert_int_equal(got, old);
	assert_ops(f, "move");
	DO(f, txn_message_put(t, message_make(&m, b, 12, number), &got));
	assert_int_equal(got, moved);
	assert_ops(f, "expunge");
}

/* What looks alike has come in the order in which it was sent: by kind, many from one mailbox as one command. */
static void twins_come_as_they_were_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0), copy = create(f, b, "copy.eml");
	unsigned number = (unsigned)inbox * 1000 + 2;
	uint64_t other = by_uid(f, inbox, 1), later = by_uid(f, inbox, 2), first = add_message(f, a, 1, number), copied = add_message(f, a, 2, number), got = 0;
	uint64_t done = create(f, b, "done.eml");
	struct test_message m;
	DO(f, txn_copied(t, done, first, 0));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0)); /* it did not say where */
	DO(f, txn_move(t, other, b, "other.eml", &expunge));
	DO(f, txn_copied(t, copy, copied, 0));
	DO(f, txn_move(t, first, b, "first.eml", &expunge));
	DO(f, txn_move(t, later, b, "later.eml", &expunge));
	send_all(f);
	const uint64_t wanted[] = { done, copy, later, first };
	for (uint32_t uid = 1; uid <= 4; uid++) {
		DO(f, txn_message_put(t, message_make(&m, b, uid, number), &got));
		assert_int_equal(got, wanted[uid - 1]);
	}
}

/* Only what LIST does not know is lost with what was in it: not what was removed here */
static void lost_with_its_mailbox(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), here = mailbox_with(f, "Here", 1), there = mailbox_with(f, "There", 1);
	uint64_t one = by_uid(f, here, 1), two = by_uid(f, there, 1);
	bool lost = true;
	DO(f, txn_move(t, one, inbox, "one.eml", &expunge));
	DO(f, txn_move(t, two, inbox, "two.eml", &expunge));
	uint64_t first = nth_op(f, 0).id, second = nth_op(f, 1).id;
	DO(f, txn_op_lost(t, first, false, &lost));
	assert_false(lost);
	DO(f, txn_mailbox_delete(t, here));
	DO(f, txn_mailbox_removed(t, there));
	DO(f, txn_op_lost(t, first, false, &lost));
	assert_false(lost);
	DO(f, txn_op_lost(t, second, false, &lost));
	assert_true(lost);
	assert_ops(f, "move move delete");
	assert_int_equal(nth_op(f, 1).state, OP_PARKED); /* nobody has its bytes */
	assert_int_equal(by_name(f, inbox, "one.eml"), one);
	assert_int_equal(by_name(f, inbox, "two.eml"), two);
	DO(f, txn_cancel(t, second));
	assert_int_equal(by_name(f, inbox, "two.eml"), 0);
	DO(f, txn_op_lost(t, first, true, &lost)); /* nor does the server know that name any more */
	assert_true(lost);
	assert_ops(f, "move delete");
	assert_int_equal(nth_op(f, 0).state, OP_PARKED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(done_with_a_number), WITH_CACHE(kept_beside_a_new_version), WITH_CACHE(overwritten_when_its_answer_comes), WITH_CACHE(last_line_ended_by_the_server), WITH_CACHE(double_is_absorbed), WITH_CACHE(claimed_places_make_no_rows), WITH_CACHE(stored_where_it_is), WITH_CACHE(claimed_flags),
		WITH_CACHE(sent_and_vanished_waits_for_its_answer), WITH_CACHE(lost_answers_are_adopted), WITH_CACHE(half_a_move),
		WITH_CACHE(copies_that_wait_follow_a_move), WITH_CACHE(without_a_number), WITH_CACHE(refused_parked_retried),
		WITH_CACHE(renumbered_mailbox), WITH_CACHE(numbers_are_given_again), WITH_CACHE(flags_follow_a_move_elsewhere), WITH_CACHE(lost_with_its_mailbox), WITH_CACHE(twins_keep_their_originals),
		WITH_CACHE(twins_come_as_they_were_sent), WITH_CACHE(twins_are_told_apart_by_the_answers), WITH_CACHE(moved_out_of_what_was_numbered_anew),
		WITH_CACHE(twin_in_what_is_numbered_anew),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

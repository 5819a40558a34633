/* journal: messages that other clients move or remove while operations have them elsewhere */
#include "unit/test_journal_fixture.h"

#include "base/clock.h"
#include "cache/txn.h"

struct three { struct fixture *f; uint64_t inbox, b, c, one; unsigned number; };

/* the first of INBOX is to go to B */
static struct three moved_here(struct fixture *f)
{
	struct three w = { .f = f, .inbox = mailbox_with(f, "INBOX", 3), .b = mailbox_with(f, "B", 0), .c = mailbox_with(f, "C", 0) };
	w.one = by_uid(f, w.inbox, 1);
	w.number = (unsigned)w.inbox * 1000 + 1;
	DO(f, txn_change_flags(t, w.one, FLAGGED, 0, NULL, NULL));
	DO(f, txn_move(t, w.one, w.b, "mine.eml", &expunge));
	DO(f, txn_change_flags(t, w.one, ANSWERED, 0, NULL, NULL));
	return w;
}

/* the server tells of that message */
static uint64_t tell(struct three *w, uint64_t mailbox, uint32_t uid, unsigned flags)
{
	struct test_message m;
	uint64_t got = 0;
	message_make(&m, mailbox, uid, w->number);
	m.put.flags = flags;
	DO(w->f, txn_message_put(t, &m.put, &got));
	return got;
}

static void vanish(struct three *w)
{
	DO(w->f, txn_message_vanished(t, w->inbox, 1));
}

static size_t give_up(struct three *w, int64_t before_ms, bool all)
{
	size_t count = 0;
	DO(w->f, txn_strays_settle(t, before_ms, all, &count));
	return count;
}

static void assert_place(struct fixture *f, size_t n, enum op_state state, uint64_t mailbox, uint32_t uid)
{
	struct op op = nth_op(f, n);
	assert_int_equal(op.state, state);
	assert_int_equal(op.mailbox, mailbox);
	assert_int_equal(op.uid, uid);
	assert_int_equal(op.uidvalidity, state == OP_ASTRAY || !uid ? 0 : VALIDITY);
}

static void assert_goes_on(struct three *w)
{
	assert_ops(w->f, "flags move flags");
	assert_place(w->f, 0, OP_QUEUED, w->c, 7);
	assert_place(w->f, 1, OP_QUEUED, w->c, 7);
	assert_place(w->f, 2, OP_QUEUED, w->b, 0);
	assert_int_equal(nth_op(w->f, 1).dest, w->b);
	assert_int_equal(by_name(w->f, w->b, "mine.eml"), w->one);
	assert_int_equal(flags_of(w->f, w->one), SEEN | ANSWERED | FLAGGED);
	assert_int_equal(list_count(w->f, w->c), 0);
	assert_false(journal_has_strays(w->f->c));
}

static void met_after_it_vanished(void **state)
{
	struct three w = moved_here(*state);
	vanish(&w);
	assert_place(w.f, 0, OP_ASTRAY, w.inbox, 1);
	assert_place(w.f, 1, OP_ASTRAY, w.inbox, 1);
	assert_place(w.f, 2, OP_QUEUED, w.b, 0);
	assert_true(journal_has_strays(w.f->c));
	assert_int_equal(by_name(w.f, w.b, "mine.eml"), w.one);
	struct op *ready;
	size_t count;
	assert_int_equal(journal_ready(w.f->c, INT64_MAX, true, 10, &ready, &count), MF_OK);
	assert_int_equal(count, 0);
	assert_int_equal(tell(&w, w.c, 7, SEEN), w.one);
	assert_goes_on(&w);
}

/* somebody has seen it there, read it and given it a keyword */
static void met_before_it_vanished(void **state)
{
	struct three w = moved_here(*state);
	uint64_t twin = tell(&w, w.c, 7, SEEN);
	assert_int_not_equal(twin, w.one);
	add_body(w.f, twin, "body");
	vanish(&w);
	assert_goes_on(&w);
	assert_true(has_body(w.f, w.one, "body"));
	DO(w.f, txn_message_flags(t, w.c, 7, 0, "", 9));
	assert_int_equal(flags_of(w.f, w.one), ANSWERED | FLAGGED);
}

static void flags_of_its_double_are_its_own(void **state)
{
	struct three w = moved_here(*state);
	uint64_t twin = tell(&w, w.c, 7, 0);
	DO(w.f, txn_change_flags(t, twin, 0, 0, "$Label", NULL));
	vanish(&w);
	assert_ops(w.f, "flags move flags flags");
	assert_int_equal(nth_op(w.f, 3).message, w.one);
	assert_keywords(w.f, w.one, "$Label");
	/* they come after the move, and so are about where that puts it */
	for (unsigned i = 0; i < 2; i++)
		DO(w.f, txn_op_done(t, nth_op(w.f, 0).id, VALIDITY, 9));
	assert_ops(w.f, "flags flags");
	assert_place(w.f, 0, OP_QUEUED, w.b, 9);
	assert_place(w.f, 1, OP_QUEUED, w.b, 9);
}

/* The other client has done the same */
static void met_where_it_was_to_go(void **state)
{
	for (unsigned seen = 0; seen < 2; seen++) {
		struct three w = { .f = *state };
		if (seen) { /* the same in other mailboxes */
			w.inbox = mailbox_with(w.f, "Other", 3);
			w.b = mailbox_with(w.f, "D", 0);
			w.one = by_uid(w.f, w.inbox, 1);
			w.number = (unsigned)w.inbox * 1000 + 1;
			DO(w.f, txn_change_flags(t, w.one, FLAGGED, 0, NULL, NULL));
			DO(w.f, txn_move(t, w.one, w.b, "mine.eml", &expunge));
			DO(w.f, txn_change_flags(t, w.one, ANSWERED, 0, NULL, NULL));
			(void)tell(&w, w.b, 7, 0);
			vanish(&w);
		} else {
			w = moved_here(*state);
			vanish(&w);
			assert_int_equal(tell(&w, w.b, 7, 0), w.one);
		}
		assert_ops(w.f, "flags flags");
		assert_place(w.f, 0, OP_QUEUED, w.b, 7);
		assert_place(w.f, 1, OP_QUEUED, w.b, 7);
		assert_int_equal(by_uid(w.f, w.b, 7), w.one);
		assert_int_equal(by_name(w.f, w.b, "mine.eml"), w.one);
		assert_int_equal(flags_of(w.f, w.one), ANSWERED | FLAGGED);
		cancel_all(w.f);
	}
}

/* The server still had it, or has it back */
static void met_where_it_was(void **state)
{
	struct three w = moved_here(*state);
	vanish(&w);
	assert_int_equal(tell(&w, w.inbox, 1, 0), w.one);
	assert_ops(w.f, "flags move flags");
	assert_place(w.f, 0, OP_QUEUED, w.inbox, 1);
	assert_place(w.f, 1, OP_QUEUED, w.inbox, 1);
	assert_int_equal(give_up(&w, INT64_MAX, true), 0);
}

static void met_nowhere(void **state)
{
	struct three w = moved_here(*state);
	int64_t before = clock_wall_ns() / 1000000 - 1;
	vanish(&w);
	assert_int_equal(give_up(&w, before, true), 0); /* it vanished after the mailboxes were looked at */
	assert_int_equal(give_up(&w, INT64_MAX, false), 2);
	assert_int_equal(nth_op(w.f, 1).state, OP_PARKED);
	assert_int_equal(by_name(w.f, w.b, "mine.eml"), w.one);
	DO(w.f, txn_retry(t, nth_op(w.f, 1).id));
	assert_place(w.f, 1, OP_ASTRAY, w.inbox, 1);
	assert_int_equal(give_up(&w, INT64_MAX, true), 2);
	assert_ops(w.f, "");
	assert_int_equal(list_count(w.f, w.b), 0);
}

/* A copy that was there all the time (beyond max-messages, which has been raised) is not what has been moved */
static void an_older_copy_is_not_met(void **state)
{
	struct three w = moved_here(*state);
	uint64_t d = mailbox_with(w.f, "D", 3);
	DO(w.f, txn_message_trimmed(t, d, 1));
	vanish(&w);
	uint64_t copy = tell(&w, d, 1, 0);
	assert_int_not_equal(copy, w.one);
	assert_int_equal(by_uid(w.f, d, 1), copy);
	assert_place(w.f, 1, OP_ASTRAY, w.inbox, 1);
	assert_int_equal(tell(&w, w.c, 7, SEEN), w.one);
	assert_goes_on(&w);
}

/* Twins, too: each is met once, and who is looked for is asked for once */
static void many_are_met_at_once(void **state)
{
	struct fixture *f = *state;
	enum { COUNT = 60 };
	uint64_t inbox = mailbox_with(f, "INBOX", 0), b = mailbox_with(f, "B", 0), c = mailbox_with(f, "C", 0), ids[COUNT], got[COUNT];
	for (uint32_t i = 0; i < COUNT; i++)
		ids[i] = add_message(f, inbox, i + 1, 100 + i / 2);
	for (uint32_t i = 0; i < COUNT; i++) {
		char name[20];
		snprintf(name, sizeof name, "%u.eml", i);
		DO(f, txn_move(t, ids[i], b, name, &expunge));
		DO(f, txn_message_vanished(t, inbox, i + 1));
	}
	struct txn *t = begin(f);
	for (uint32_t i = 0; i < COUNT; i++)
		got[i] = put(t, c, i + 1, 100 + i / 2);
	assert_in_range(sqlite3_stmt_status(db_use(t->db, SQL_OP_ASTRAY_HASHES), SQLITE_STMTSTATUS_RUN, true), 0, 1);
	commit(t);
	check_index(f->c, f->state);
	for (uint32_t i = 0; i < COUNT; i++) {
		assert_true(got[i] == ids[i] || got[i] == ids[i ^ 1]);
		assert_int_not_equal(got[i], got[i ^ 1]);
		assert_place(f, i, OP_QUEUED, c, nth_op(f, i).uid);
	}
	assert_int_equal(list_count(f, c), 0);
	assert_false(journal_has_strays(f->c));
}

/* What a person does with it meanwhile */
static void changed_while_it_is_astray(void **state)
{
	struct three w = moved_here(*state);
	vanish(&w);
	DO(w.f, txn_move(t, w.one, w.inbox, "back.eml", &expunge));
	DO(w.f, txn_change_flags(t, w.one, 0, FLAGGED, NULL, NULL));
	assert_place(w.f, 1, OP_ASTRAY, w.inbox, 1);
	assert_int_equal(tell(&w, w.c, 7, 0), w.one);
	assert_int_equal(nth_op(w.f, 1).dest, w.inbox);
	assert_int_equal(by_name(w.f, w.inbox, "back.eml"), w.one);
	assert_int_equal(flags_of(w.f, w.one), ANSWERED);
	cancel_all(w.f);
	assert_int_equal(by_uid(w.f, w.c, 7), w.one);
}

static void removed_while_it_is_astray(void **state)
{
	struct three w = moved_here(*state);
	vanish(&w);
	DO(w.f, txn_remove(t, w.one, &expunge));
	assert_ops(w.f, "expunge");
	assert_place(w.f, 0, OP_ASTRAY, w.inbox, 1);
	assert_int_equal(tell(&w, w.c, 7, 0), w.one);
	assert_place(w.f, 0, OP_PARKED, w.c, 7);
	assert_int_equal(list_count(w.f, w.c), 0);
	DO(w.f, txn_cancel(t, nth_op(w.f, 0).id));
	assert_int_equal(by_uid(w.f, w.c, 7), w.one);
}

static void taken_back_while_it_is_astray(void **state)
{
	struct three w = moved_here(*state);
	vanish(&w);
	cancel_all(w.f);
	assert_int_equal(list_count(w.f, w.b), 0);
	assert_int_equal(tell(&w, w.c, 7, SEEN), w.one);
	assert_int_equal(flags_of(w.f, w.one), SEEN);
}

/* expunge-delay is for the person who may want it back, wherever the message has been meanwhile */
static void removed_and_met_where_it_was(void **state)
{
	static const struct disposal later = { .expunge = true, .delay_ms = 3600000 };
	struct three w = moved_here(*state);
	uint64_t two = by_uid(w.f, w.inbox, 2);
	DO(w.f, txn_remove(t, two, &later));
	int64_t due_ms = nth_op(w.f, 3).due_ms;
	DO(w.f, txn_message_vanished(t, w.inbox, 2));
	vanish(&w);
	DO(w.f, txn_remove(t, w.one, &later));
	assert_ops(w.f, "expunge expunge");
	assert_int_equal(tell(&w, w.inbox, 1, 0), w.one);
	w.number++;
	assert_int_equal(tell(&w, w.inbox, 2, 0), two);
	assert_place(w.f, 0, OP_QUEUED, w.inbox, 1);
	assert_place(w.f, 1, OP_QUEUED, w.inbox, 2);
	assert_true(nth_op(w.f, 0).due_ms >= due_ms);
	assert_int_equal(nth_op(w.f, 1).due_ms, due_ms);
}

static bool is_sent(struct fixture *f, uint64_t op)
{
	struct txn *t = begin(f);
	bool sent = txn_op_is_sent(t, op);
	commit(t);
	return sent;
}

/* Flags that are under way when the message is met elsewhere: the answer is of where it was */
static void flags_are_sent_again_where_it_is(void **state)
{
	for (unsigned vanishes_first = 0; vanishes_first < 2; vanishes_first++) {
		struct fixture *f = *state;
		struct three w = { .f = f, .inbox = mailbox_with(f, vanishes_first ? "E" : "INBOX", 3), .c = mailbox_with(f, vanishes_first ? "F" : "C", 0) };
		w.one = by_uid(f, w.inbox, 1);
		w.number = (unsigned)w.inbox * 1000 + 1;
		DO(f, txn_change_flags(t, w.one, FLAGGED, 0, NULL, NULL));
		send_all(f);
		uint64_t op = nth_op(f, 0).id;
		if (vanishes_first)
			vanish(&w);
		(void)tell(&w, w.c, 7, 0);
		if (!vanishes_first)
			vanish(&w);
		assert_int_equal(by_uid(f, w.c, 7), w.one);
		assert_int_equal(flags_of(f, w.one), FLAGGED);
		assert_place(f, 0, OP_QUEUED, w.c, 7);
		assert_false(is_sent(f, op));
		send_all(f);
		assert_true(is_sent(f, op));
		DO(f, txn_op_done(t, op, 0, 0));
		assert_ops(f, "");
	}
}

/* What was sent, and perhaps done, is not looked for: another of the same that comes is not to go for it */
static void expunged_and_there_again(void **state)
{
	struct fixture *f = *state;
	struct three w = { .f = f, .inbox = mailbox_with(f, "INBOX", 3), .c = mailbox_with(f, "C", 0) };
	w.one = by_uid(f, w.inbox, 1);
	w.number = (unsigned)w.inbox * 1000 + 1;
	DO(f, txn_remove(t, w.one, &expunge));
	struct op *ready;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 10, &ready, &count), MF_OK);
	assert_int_equal(count, 1);
	assert_int_equal(journal_mark_sent(f->c, ready, count), MF_OK);
	op_finish(&ready[0]);
	free(ready);
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	vanish(&w);
	assert_ops(f, "");
	uint64_t twin = tell(&w, w.inbox, 4, 0);
	assert_int_equal(by_uid(f, w.inbox, 4), twin);
}

/* One that was sent to where another of the same is expunged: it is what has come */
static void awaited_where_another_is_astray(void **state)
{
	struct fixture *f = *state;
	struct three w = { .f = f, .inbox = mailbox_with(f, "INBOX", 3), .b = mailbox_with(f, "B", 0) };
	w.number = (unsigned)w.inbox * 1000 + 1;
	w.one = add_message(f, w.b, 1, w.number);
	uint64_t other = by_uid(f, w.inbox, 1);
	DO(f, txn_move(t, w.one, w.inbox, "here.eml", &expunge));
	send_all(f);
	DO(f, txn_remove(t, other, &expunge));
	vanish(&w);
	assert_int_equal(nth_op(f, 1).state, OP_ASTRAY);
	assert_int_equal(tell(&w, w.inbox, 4, 0), w.one);
	assert_int_equal(by_uid(f, w.inbox, 4), w.one);
	assert_int_equal(give_up(&w, INT64_MAX, true), 1);
	assert_int_equal(by_uid(f, w.inbox, 4), w.one);
}

/* More than max-messages: the server has it all the same */
static void trimmed(void **state)
{
	struct three w = moved_here(*state);
	uint64_t two = by_uid(w.f, w.inbox, 2);
	DO(w.f, txn_change_flags(t, two, SEEN, 0, NULL, NULL));
	assert_int_equal(CHANGE(w.f, txn_message_trimmed(t, w.inbox, 1)), MF_NOT_FOUND);
	DO(w.f, txn_message_trimmed(t, w.inbox, 2));
	assert_int_equal(in_mailbox(w.f, two), 0);
	assert_ops(w.f, "flags move flags flags");
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(nth_op(w.f, i).state, OP_QUEUED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(met_after_it_vanished), WITH_CACHE(met_before_it_vanished), WITH_CACHE(flags_of_its_double_are_its_own),
		WITH_CACHE(met_where_it_was_to_go), WITH_CACHE(met_where_it_was), WITH_CACHE(met_nowhere), WITH_CACHE(changed_while_it_is_astray),
		WITH_CACHE(removed_while_it_is_astray), WITH_CACHE(taken_back_while_it_is_astray), WITH_CACHE(flags_are_sent_again_where_it_is),
		WITH_CACHE(removed_and_met_where_it_was), WITH_CACHE(an_older_copy_is_not_met), WITH_CACHE(many_are_met_at_once), WITH_CACHE(trimmed), WITH_CACHE(expunged_and_there_again), WITH_CACHE(awaited_where_another_is_astray),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* journal: changes to messages that wait for the server: what each does to the tree, and taking it back */
#include "unit/test_journal_fixture.h"

/* --- flags ------------------------------------------------------------------------------------------------------------- */

static void flags_are_merged(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	DO(f, txn_change_flags(t, id, FLAGGED, 0, "Work $Label1", NULL));
	assert_ops(f, "flags");
	assert_int_equal(flags_of(f, id), SEEN | FLAGGED);
	assert_keywords(f, id, "$Label1 Work");
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, "work"));
	assert_keywords(f, id, "$Label1");
	DO(f, txn_change_flags(t, id, 0, FLAGGED, NULL, "$label1"));
	assert_ops(f, ""); /* all of it cancels out */
	DO(f, txn_set_flags(t, id, SEEN, "A B"));
	DO(f, txn_set_flags(t, id, 0, ""));
	assert_ops(f, "");
	assert_tree_is(f->state, before);
	/* what is there already is no change */
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, "A"));
	assert_ops(f, "");
}

static void flags_sent_are_followed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	send_all(f);
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, NULL));
	assert_ops(f, "flags flags");
	/* the server tells of the first: what waits lies on top */
	DO(f, txn_message_flags(t, inbox, 2, SEEN | ANSWERED, "X", 9));
	assert_int_equal(flags_of(f, id), ANSWERED);
	assert_keywords(f, id, "X");
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	struct op second = nth_op(f, 0);
	assert_int_equal(second.flags_remove, SEEN);
	DO(f, txn_cancel(t, second.id));
	assert_int_equal(flags_of(f, id), SEEN | ANSWERED);
}

/* What was sent and not answered may have been done: taking it back is something to be done as well */
static void flags_in_doubt_are_not_cancelled_out(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	DO(f, txn_change_flags(t, id, SEEN, 0, "A", NULL));
	send_all(f);
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	DO(f, txn_change_flags(t, id, FLAGGED, SEEN, NULL, "A"));
	assert_ops(f, "flags");
	struct op op = { 0 };
	assert_int_equal(journal_op(f->c, nth_op(f, 0).id, &op), MF_OK);
	assert_int_equal(op.flags, FLAGGED);
	assert_int_equal(op.flags_remove, SEEN);
	assert_string_equal(op.keywords, "");
	assert_string_equal(op.keywords_remove, "A");
	op_finish(&op);
	/* the server did it: what waits lies on top */
	DO(f, txn_message_flags(t, inbox, 2, SEEN, "A", 9));
	assert_int_equal(flags_of(f, id), FLAGGED);
	assert_keywords(f, id, "");
}

static void flags_of_what_is_expunged_are_taken_back(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	DO(f, txn_change_flags(t, id, SEEN | FLAGGED, 0, "A", NULL));
	DO(f, txn_remove(t, id, &expunge));
	assert_ops(f, "expunge");
	cancel_all(f);
	/* the server was never told of them, so that nothing else would take them away again */
	assert_tree_is(f->state, before);
}

/* --- moving ------------------------------------------------------------------------------------------------------------- */

static void moves_are_one(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 2), c = mailbox_with(f, "C", 0), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	DO(f, txn_move(t, id, c, "y.eml", &expunge));
	assert_ops(f, "move flags");
	assert_int_equal(nth_op(f, 0).mailbox, inbox);
	assert_int_equal(nth_op(f, 0).dest, c);
	assert_int_equal(nth_op(f, 0).uid, 2);
	assert_int_equal(nth_op(f, 1).mailbox, c);
	assert_int_equal(nth_op(f, 1).uid, 0);
	DO(f, txn_move(t, id, inbox, name, &expunge));
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).uid, 2);
	assert_int_equal(nth_op(f, 0).uidvalidity, VALIDITY);
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, NULL));
	assert_ops(f, "");
	assert_tree_is(f->state, before);
	free(name);
}

/* What was found ready and goes elsewhere since is looked at again: what it was to replace there is not in the other mailbox */
static void retargeted_before_it_is_marked(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), b = mailbox_with(f, "B", 0), c = mailbox_with(f, "C", 0);
	uint64_t made = create_written(f, inbox, "new.eml", TEXT("1"));
	DO(f, txn_move(t, by_uid(f, inbox, 1), b, "x.eml", &expunge));
	struct op append = nth_op(f, 0), move = nth_op(f, 1), ops[] = { append, move };
	DO(f, txn_move(t, made, c, "new.eml", &expunge));
	DO(f, txn_move(t, by_name(f, b, "x.eml"), c, "x.eml", &expunge));
	assert_int_equal(journal_mark_sent(f->c, ops, 2), MF_OK);
	assert_int_equal(ops[0].id, 0);
	assert_int_equal(ops[1].id, 0);
	for (size_t i = 0; i < 2; i++) {
		struct op now = nth_op(f, i);
		assert_int_equal(now.state, OP_QUEUED);
		assert_int_equal(now.tries, 0);
		assert_int_equal(op_landing(&now), c);
	}
}

/* An expunge waits its time, also of what was to be moved and was not */
static void expunged_instead_of_moved(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	struct op *ops;
	size_t count;
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_op_again(t, nth_op(f, 0).id, 0));
	DO(f, txn_remove(t, one, &expunge));
	assert_ops(f, "expunge");
	assert_int_equal(journal_ready(f->c, 0, true, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 0);
	free(ops);
}

static void a_move_that_was_sent_is_followed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 2), c = mailbox_with(f, "C", 0), id = by_uid(f, inbox, 2);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_move(t, id, c, "y.eml", &expunge));
	assert_ops(f, "move move");
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 10));
	assert_ops(f, "move");
	assert_int_equal(nth_op(f, 0).uid, 10);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	/* b tells of the number 10: it is claimed */
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 10, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, id);
	assert_int_equal(in_mailbox(f, id), c);
	/* back to b: nothing is to be done any more */
	DO(f, txn_move(t, id, b, "z.eml", &expunge));
	assert_ops(f, "");
	assert_int_equal(by_uid(f, b, 10), id);
}

/* while a change of its flags is on its way */
static void expunged_with_flags_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), one = by_uid(f, inbox, 1);
	DO(f, txn_change_flags(t, one, SEEN, 0, NULL, NULL));
	send_all(f);
	DO(f, txn_remove(t, one, &expunge));
	assert_ops(f, "flags expunge");
	DO(f, txn_message_vanished(t, inbox, 1));
	size_t over = 0;
	DO(f, txn_strays_settle(t, INT64_MAX, true, &over));
	assert_int_equal(over, 2);
	assert_ops(f, "");
}

static void removed_goes_to_trash_or_out_of_sight(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 4), trash = mailbox_with(f, "Trash", 1), b = mailbox_with(f, "B", 0), found = 0;
	char *before = tree_text(f->state, true);
	DO(f, txn_trash(t, &found));
	assert_int_equal(found, trash);
	struct disposal how = { .trash = trash };
	uint64_t one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), three = by_uid(f, inbox, 3);
	DO(f, txn_remove(t, one, &how));
	assert_int_equal(in_mailbox(f, one), trash);
	DO(f, txn_move(t, two, b, "moved.eml", &how));
	DO(f, txn_change_flags(t, two, FLAGGED, 0, NULL, NULL));
	DO(f, txn_remove(t, two, &how)); /* moved, then removed: one move */
	assert_ops(f, "move move flags");
	DO(f, txn_remove(t, one, &how)); /* in Trash: expunged, where it still is */
	assert_ops(f, "expunge move flags");
	assert_int_equal(nth_op(f, 0).mailbox, inbox);
	assert_int_equal(nth_op(f, 0).uid, 1);
	assert_int_equal(in_mailbox(f, one), 0);
	DO(f, txn_move(t, three, b, "3.eml", &how));
	DO(f, txn_change_flags(t, three, FLAGGED, 0, NULL, NULL));
	DO(f, txn_remove(t, three, &expunge)); /* its flags would wait for ever */
	assert_ops(f, "expunge move flags expunge");
	cancel_all(f);
	assert_tree_is(f->state, before);
}

/* What the kernel has had done it need not be told; what follows from it elsewhere, and what others do, it must. */
static void what_the_kernel_asks_for_is_told_so(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), three = by_uid(f, inbox, 3);
	told_reset(f);
	DO(f, (txn_is_asked(t, inbox), txn_remove(t, one, &how)));
	DO(f, (txn_is_asked(t, inbox), txn_remove(t, two, &expunge)));
	assert_true(need_told(f, CHANGE_MESSAGE_MOVED, one).asked);
	assert_true(need_told(f, CHANGE_MESSAGE_REMOVED, two).asked);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, inbox), 2);
	for (size_t i = 0; i < f->told_count; i++)
		if (f->told[i].kind == CHANGE_MAILBOX_LIST)
			assert_int_equal(f->told[i].asked, f->told[i].mailbox == inbox);
	DO(f, txn_remove(t, three, &how));
	assert_false(need_told(f, CHANGE_MESSAGE_MOVED, three).asked);
}

static void unsent_is_dropped(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1);
	char *before = tree_text(f->state, true);
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	assert_ops(f, "append");
	DO(f, txn_change_flags(t, id, SEEN, 0, "K", NULL));
	assert_ops(f, "append");
	DO(f, txn_remove(t, id, &(struct disposal){ .trash = 0 }));
	assert_ops(f, "");
	assert_false(spool_has(f->c, id));
	uint64_t scratch = create_written(f, inbox, ".new.swp", "scratch");
	assert_ops(f, "");
	bool local = false;
	DO(f, txn_is_local(t, scratch, &local));
	assert_true(local);
	DO(f, txn_drop_local(t, scratch));
	assert_tree_is(f->state, before);
}

static void trash_is_made_once(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t first = 0, second = 0;
	struct txn *both = begin(f);
	assert_int_equal(txn_trash(both, &first), MF_OK);
	assert_int_equal(txn_trash(both, &second), MF_OK);
	assert_int_equal(first, second);
	commit(both);
	assert_ops(f, "create");
	DO(f, txn_trash(t, &second));
	assert_int_equal(first, second);
}

/* where the server has all mailboxes of the user inside INBOX, as Courier has */
static void trash_is_made_at_home(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = 0, first = 0, second = 0;
	struct mailbox_said said = { .raw = "INBOX", .delimiter = '.', .use = CACHE_USE_INBOX, .flags = CACHE_MAILBOX_HOME };
	DO(f, txn_mailbox_said(t, &said, &inbox));
	DO(f, txn_trash(t, &first));
	DO(f, txn_trash(t, &second));
	assert_int_equal(first, second);
	MF_CLEANUP(mf_free) char *path = cache_mailbox_path(f->c, first);
	assert_string_equal(path, "INBOX/Trash");
	assert_ops(f, "create");
}

/* the shelf of what is held is made anew if the transaction that made it came to nothing */
static void held_after_rollback(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 4);
	struct txn *undone = begin(f);
	assert_int_equal(txn_remove(undone, by_uid(f, inbox, 1), &expunge), MF_OK);
	assert_int_equal(txn_remove(undone, by_uid(f, inbox, 2), &expunge), MF_OK);
	txn_rollback(undone);
	uint64_t b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_remove(t, one, &expunge));
	assert_int_equal(in_mailbox(f, one), 0);
	assert_int_equal(list_count(f, b), 0);
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

/* What a rollback gives back is the same in the spool: ids that were given in vain are given again */
static void bytes_after_rollback(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), trash = mailbox_with(f, "Trash", 0), made = 0;
	struct disposal how = { .trash = trash };
	uint64_t waiting = create_written(f, inbox, "waiting.eml", TEXT("1")), under_way = create_written(f, inbox, "under-way.eml", TEXT("2"));
	struct op op = nth_op(f, 1);
	assert_int_equal(journal_op(f->c, op.id, &op), MF_OK);
	assert_int_equal(journal_mark_sent(f->c, &op, 1), MF_OK);
	op_finish(&op);
	struct txn *undone = begin(f);
	assert_int_equal(txn_create(undone, inbox, "new.eml", &made), MF_OK);
	prepare(f, made, TEXT("3"));
	assert_int_equal(written_in(undone, made, TEXT("3"), true, &expunge), MF_OK);
	prepare(f, waiting, TEXT("44"));
	assert_int_equal(written_in(undone, waiting, TEXT("44"), true, &how), MF_OK);
	prepare(f, waiting, TEXT("55"));
	assert_int_equal(written_in(undone, waiting, TEXT("55"), true, &how), MF_OK);
	prepare(f, under_way, TEXT("66"));
	assert_int_equal(written_in(undone, under_way, TEXT("66"), true, &how), MF_OK);
	txn_rollback(undone);
	check_index(f->c, f->state);
	assert_false(spool_has(f->c, made));
	assert_true(spool_is(f, waiting, TEXT("1")));
	assert_true(spool_is(f, under_way, TEXT("2")));
	/* none has another's bytes */
	add_message(f, inbox, 7, 7);
	add_message(f, inbox, 8, 8);
	assert_int_equal(by_uid(f, inbox, 7), made);
	assert_false(cache_body_is_cached(f->c, made));
	assert_false(cache_body_is_cached(f->c, by_uid(f, inbox, 8)));
	/* and it can be done after all */
	write_message(f, waiting, TEXT("44"), true, &how);
	write_message(f, under_way, TEXT("66"), true, &how);
	assert_true(spool_is(f, waiting, TEXT("44")));
	assert_true(spool_is(f, under_way, TEXT("66")));
	assert_true(spool_is(f, by_name(f, trash, "under-way.eml"), TEXT("2")));
}

/* A message that was written here takes no place of one that has a scratch name, whatever that was called before */
static void named_as_scratch(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), archive = mailbox_with(f, "Archive", 0), id = by_uid(f, inbox, 1);
	struct disposal none = { 0 };
	DO(f, txn_move(t, id, archive, "a.eml~", &none));
	DO(f, txn_move(t, id, archive, ".aside", &none));
	uint64_t made = create_written(f, archive, "new.eml", TEXT("1"));
	assert_ops(f, "move append");
	DO(f, txn_move(t, made, archive, "a.eml~", &none));
	assert_ops(f, "move append");
	assert_int_equal(by_name(f, archive, ".aside"), id);
}

static void overwritten_twice_is_one_append(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	write_message(f, id, TEXT("22"), true, &how);
	assert_ops(f, "append");
	assert_true(spool_is(f, id, TEXT("22")));
	assert_int_equal(list_count(f, trash), 0);
}

static void overwriting_splits(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	add_body(f, id, "old bytes");
	DO(f, txn_change_flags(t, id, FLAGGED, 0, NULL, NULL));
	write_message(f, id, TEXT("1"), true, &how);
	assert_ops(f, "flags append move");
	uint64_t old = by_name(f, trash, name);
	assert_true(old && old != id);
	assert_true(has_body(f, old, "old bytes"));
	assert_false(has_body(f, id, "old bytes"));
	assert_int_equal(nth_op(f, 0).message, old);
	assert_int_equal(nth_op(f, 2).message, old);
	assert_int_equal(nth_op(f, 2).after, nth_op(f, 1).id);
	assert_int_equal(flags_of(f, id), FLAGGED);
	/* the old version does not go before the new one is there */
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	/* taking back the new version brings the old one back under its name */
	DO(f, txn_cancel(t, nth_op(f, 1).id));
	assert_ops(f, "flags");
	assert_int_equal(by_name(f, inbox, name), old);
	assert_int_equal(rejected_count(f->c), 1);
	cancel_all(f);
	assert_tree_is(f->state, before);
	free(name);
}

static void overwriting_what_is_being_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	uint64_t first = nth_op(f, 0).id;
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	write_message(f, id, TEXT("22"), true, &how);
	assert_ops(f, "append flags append move");
	uint64_t old = by_name(f, trash, "new.eml");
	assert_true(spool_is(f, old, TEXT("1")));
	assert_true(spool_is(f, id, TEXT("22")));
	DO(f, txn_op_done(t, first, VALIDITY, 1));
	assert_true(has_body(f, old, TEXT("1")));
	assert_false(spool_has(f->c, old));
	assert_int_equal(nth_op(f, 0).uid, 1); /* its flags */
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 2));
	assert_int_equal(by_uid(f, inbox, 2), id);
	assert_int_equal(nth_op(f, 0).uid, 1); /* the move */
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, trash, 1), old);
	assert_true(has_body(f, id, TEXT("22")));
	assert_ops(f, "");
}

/* its bytes are still to be stored, perhaps once more */
static void overwriting_what_is_moved_on_while_it_is_being_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), work = mailbox_with(f, "Work", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	uint64_t first = nth_op(f, 0).id;
	DO(f, txn_move(t, id, work, "new.eml", &how));
	write_message(f, id, TEXT("22"), true, &how);
	assert_ops(f, "append move append");
	uint64_t old = by_name(f, trash, "new.eml");
	assert_int_equal(nth_op(f, 0).message, old);
	assert_true(spool_is(f, old, TEXT("1")));
	assert_true(spool_is(f, id, TEXT("22")));
	DO(f, txn_op_done(t, first, VALIDITY, 1));
	assert_true(has_body(f, old, TEXT("1")));
	assert_true(spool_is(f, id, TEXT("22")));
}

static void overwriting_expunges(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	write_message(f, id, TEXT("1"), true, &expunge);
	assert_ops(f, "append expunge");
	cancel_all(f);
	char *after = tree_text(f->state, true);
	/* taken back one by one: the old one comes while the name is still taken, and then has a number */
	DO(f, txn_remove(t, by_uid(f, inbox, 2), &expunge));
	assert_int_equal(list_count(f, inbox), 1);
	free(before);
	free(after);
}

/* What is to be moved and is overwritten then leaves its place as any other old version: when the new one is there */
static void moved_and_overwritten(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), work = mailbox_with(f, "Work", 0), trash = mailbox_with(f, "Trash", 0);
	const struct disposal hows[] = { { .trash = trash }, expunge };
	for (size_t i = 0; i < 2; i++) {
		uint64_t id = by_uid(f, inbox, 2);
		DO(f, txn_move(t, id, work, "moved.eml", &expunge));
		write_message(f, id, TEXT("1"), true, &hows[i]);
		assert_ops(f, i ? "expunge append" : "move append");
		assert_int_equal(nth_op(f, 0).dest, i ? 0 : trash);
		assert_int_equal(nth_op(f, 0).after, nth_op(f, 1).id);
		assert_int_equal(by_name(f, work, "moved.eml"), id);
		DO(f, txn_cancel(t, nth_op(f, 1).id));
		assert_ops(f, "");
		assert_int_equal(list_count(f, inbox), 2);
		assert_int_equal(list_count(f, work) + list_count(f, trash), 0);
	}
}

/* what vim does: the file goes aside, a new one takes its name, the backup is removed */
static void backup_by_renaming(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *name = name_of(f, id), *aside = mf_format("%s~", name);
	DO(f, txn_change_flags(t, id, SEEN | FLAGGED, 0, NULL, NULL));
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	add_body(f, id, "old bytes");
	DO(f, txn_move(t, id, inbox, aside, &how));
	assert_ops(f, "");
	uint64_t fresh = create(f, inbox, name);
	write_message(f, fresh, TEXT("1"), true, &how);
	assert_ops(f, "append move");
	assert_int_equal(flags_of(f, fresh), SEEN | FLAGGED);
	uint64_t old = by_name(f, trash, name);
	assert_true(old != 0);
	assert_true(has_body(f, old, "old bytes"));
	assert_int_equal(by_name(f, inbox, aside), id); /* the backup stays, with its bytes */
	assert_true(spool_is(f, id, "old bytes"));
	DO(f, txn_remove(t, id, &how));
	assert_ops(f, "append move");
	free(name);
	free(aside);
}

static void backup_without_bytes(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *name = name_of(f, id), *aside = mf_format("%s~", name);
	DO(f, txn_move(t, id, inbox, aside, &how));
	uint64_t fresh = create(f, inbox, name);
	write_message(f, fresh, TEXT("1"), true, &how);
	assert_ops(f, "append move");
	assert_int_equal(by_name(f, trash, name), id);
	free(name);
	free(aside);
}

static void backup_of_what_was_never_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	DO(f, txn_move(t, id, inbox, "new.eml~", &how));
	uint64_t fresh = create(f, inbox, "new.eml");
	write_message(f, fresh, TEXT("22"), true, &how);
	/* the server never had the old version, and needs none in Trash */
	assert_ops(f, "append");
	assert_int_equal(nth_op(f, 0).message, fresh);
	assert_int_equal(by_name(f, inbox, "new.eml~"), id);
	assert_true(spool_is(f, id, TEXT("1")));
	fixture_close(f);
	fixture_open(f);
	assert_true(spool_is(f, id, TEXT("1")));
	check_index(f->c, f->state);
}

/* The old version's bytes are needed where they are sent from: the backup has a copy, until the editor removes it */
static void backup_of_what_is_being_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	DO(f, txn_move(t, id, inbox, "new.eml~", &how));
	uint64_t fresh = create(f, inbox, "new.eml");
	prepare(f, fresh, TEXT("22"));
	/* it is rolled back */
	assert_int_equal(CHANGE(f, written_in(t, fresh, TEXT("22"), true, &how) ? MF_IO : MF_BUSY), MF_BUSY);
	assert_true(spool_is(f, id, TEXT("1")));
	write_message(f, fresh, TEXT("22"), true, &how);
	assert_ops(f, "append append move");
	uint64_t old = by_name(f, trash, "new.eml");
	assert_int_equal(nth_op(f, 0).message, old);
	assert_int_equal(by_name(f, inbox, "new.eml~"), id);
	assert_true(spool_is(f, id, TEXT("1")) && spool_is(f, old, TEXT("1")));
	fixture_close(f);
	fixture_open(f);
	assert_true(spool_is(f, id, TEXT("1")) && spool_is(f, old, TEXT("1")));
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_true(has_body(f, old, TEXT("1")));
	assert_int_equal(nth_op(f, 1).uid, 1);
	DO(f, txn_remove(t, id, &how));
	assert_ops(f, "append move");
	assert_false(spool_has(f->c, id));
}

/* what most programs do: a scratch file is written and renamed over */
static void renamed_over(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	uint64_t fresh = create_written(f, inbox, ".tmp", TEXT("1"));
	prepare(f, fresh, TEXT("1"));
	struct txn *t = begin(f);
	assert_int_equal(txn_move(t, fresh, inbox, name, &how), MF_OK);
	assert_int_equal(written_in(t, fresh, TEXT("1"), true, &how), MF_OK);
	commit(t);
	check_index(f->c, f->state);
	assert_ops(f, "move append");
	assert_int_equal(nth_op(f, 0).after, nth_op(f, 1).id);
	assert_int_equal(by_name(f, inbox, name), fresh);
	assert_int_equal(in_mailbox(f, id), trash);
	cancel_all(f);
	assert_tree_is(f->state, before);
	free(name);
}

static void message_over_message(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, by_uid(f, inbox, 2));
	DO(f, txn_move(t, by_uid(f, inbox, 1), inbox, name, &how));
	assert_ops(f, "move");
	assert_int_equal(list_count(f, inbox), 2);
	assert_int_equal(by_name(f, inbox, name), by_uid(f, inbox, 1));
	free(before);
	free(name);
}

static void copies(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), from = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	add_body(f, from, "bytes");
	uint64_t made = create(f, b, "copy.eml");
	DO(f, txn_copied(t, made, from, 0));
	assert_ops(f, "copy");
	assert_true(has_body(f, made, "bytes"));
	/* what is copied does not go before */
	DO(f, txn_remove(t, from, &expunge));
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 1);
	assert_int_equal(ops[0].kind, OP_COPY);
	op_finish(&ops[0]);
	free(ops);
	cancel_all(f);
	assert_tree_is(f->state, before);
	/* a copy that is overwritten before it was made needs no copy */
	made = create(f, b, "copy.eml");
	DO(f, txn_copied(t, made, from, 0));
	write_message(f, made, TEXT("1"), true, &(struct disposal){ .trash = inbox });
	assert_ops(f, "append");
	assert_int_equal(list_count(f, inbox), 3);
	DO(f, txn_remove(t, made, &expunge));
	assert_ops(f, "");
	/* of what the server does not have */
	uint64_t unsent = create_written(f, inbox, "unsent.eml", TEXT("2"));
	made = create(f, b, "copy.eml");
	assert_int_equal(CHANGE(f, txn_copied(t, made, unsent, 0)), MF_UNSUPPORTED);
}

static void copy_of_what_is_gone_is_appended(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), from = by_uid(f, inbox, 2), other = by_uid(f, inbox, 3);
	add_body(f, from, "bytes");
	uint64_t made = create(f, b, "copy.eml"), lost = create(f, b, "lost.eml");
	DO(f, txn_copied(t, made, from, 0));
	DO(f, txn_copied(t, lost, other, 0));
	send_all(f);
	uint64_t first = nth_op(f, 0).id, second = nth_op(f, 1).id;
	DO(f, txn_op_gone(t, first));
	DO(f, txn_op_gone(t, second));
	assert_ops(f, "append copy");
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	assert_true(spool_is(f, made, "bytes"));
	assert_int_equal(nth_op(f, 1).state, OP_PARKED); /* nobody has its bytes */
}

static void touched_and_redated(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), id = by_uid(f, inbox, 1);
	struct entry e;
	DO(f, txn_touch(t, id, 12345));
	assert_int_equal(cache_entry(f->c, id, &e), MF_OK);
	assert_int_equal(e.mtime, 12345);
	uint64_t fresh = create_written(f, inbox, "new.eml", TEXT("1"));
	struct mail_summary summary;
	mail_summary_parse(TEXT("1"), strlen(TEXT("1")), strlen(TEXT("1")), &summary);
	DO(f, txn_redate(t, fresh, 777, &summary));
	DO(f, txn_redate(t, id, 778, &summary));
	mail_summary_finish(&summary);
	assert_int_equal(cache_entry(f->c, fresh, &e), MF_OK);
	assert_int_equal(e.mtime, 777);
	assert_ops(f, "append");
}

/* Who is told of an operation may ask the index about it, however many do so at a time: it has few connections */
static pthread_barrier_t all_are_told;

static bool ask_about(void *context, const struct op *op)
{
	struct fixture *f = context;
	struct message m;
	pthread_barrier_wait(&all_are_told);
	bool known = cache_message(f->c, op->message, &m) == MF_OK;
	if (known)
		message_finish(&m);
	return known;
}

static void *list_and_ask(void *context)
{
	struct fixture *f = context;
	return journal_list(f->c, 0, ask_about, f) == MF_OK ? NULL : context;
}

static void asked_while_it_is_listed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), id = by_uid(f, inbox, 1);
	pthread_t threads[8];
	void *failed;
	struct timespec until;
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	assert_int_equal(pthread_barrier_init(&all_are_told, NULL, 8), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, list_and_ask, f), 0);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 20;
	for (int i = 0; i < 8; i++) {
		assert_int_equal(pthread_timedjoin_np(threads[i], &failed, &until), 0);
		assert_null(failed);
	}
	pthread_barrier_destroy(&all_are_told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(flags_are_merged), WITH_CACHE(flags_sent_are_followed), WITH_CACHE(flags_in_doubt_are_not_cancelled_out),
		WITH_CACHE(flags_of_what_is_expunged_are_taken_back),
		WITH_CACHE(moves_are_one), WITH_CACHE(retargeted_before_it_is_marked), WITH_CACHE(expunged_instead_of_moved), WITH_CACHE(a_move_that_was_sent_is_followed), WITH_CACHE(expunged_with_flags_sent),
		WITH_CACHE(removed_goes_to_trash_or_out_of_sight), WITH_CACHE(what_the_kernel_asks_for_is_told_so), WITH_CACHE(unsent_is_dropped), WITH_CACHE(trash_is_made_once),
		WITH_CACHE(trash_is_made_at_home),
		WITH_CACHE(held_after_rollback), WITH_CACHE(bytes_after_rollback), WITH_CACHE(named_as_scratch), WITH_CACHE(overwritten_twice_is_one_append), WITH_CACHE(overwriting_splits),
		WITH_CACHE(overwriting_what_is_being_sent),
		WITH_CACHE(overwriting_what_is_moved_on_while_it_is_being_sent), WITH_CACHE(overwriting_expunges), WITH_CACHE(moved_and_overwritten),
		WITH_CACHE(backup_by_renaming),
		WITH_CACHE(backup_without_bytes), WITH_CACHE(backup_of_what_was_never_sent), WITH_CACHE(backup_of_what_is_being_sent), WITH_CACHE(renamed_over), WITH_CACHE(message_over_message),
		WITH_CACHE(copies), WITH_CACHE(copy_of_what_is_gone_is_appended), WITH_CACHE(touched_and_redated), WITH_CACHE(asked_while_it_is_listed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

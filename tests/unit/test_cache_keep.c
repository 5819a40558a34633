/* Messages that are to be here alone, and what an index refuses whose server can only delete. */
#include <fcntl.h>

#include "test_cache_fixture.h"

#include "cache/journal.h"
#include "cache/spool.h"

static const struct disposal for_good = { .expunge = true };

static int setup(void **state)
{
	struct fixture *f = malloc(sizeof *f);
	fixture_init(f);
	f->options.identity = "pop3 alice@example.org";
	f->options.only_deletes = true;
	fixture_open(f);
	*state = f;
	return 0;
}

static void reopen(struct fixture *f)
{
	fixture_close(f);
	fixture_open(f);
}

static uint64_t add_inbox(struct fixture *f)
{
	uint64_t inbox = add_mailbox(f, "INBOX");
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, inbox, true, 7, 100, 0, 1, false), MF_OK);
	commit(t);
	return inbox;
}

/* size bytes, as what the message has at the server */
static void spool(struct fixture *f, uint64_t message, uint64_t size)
{
	FILE *bytes = tmpfile();
	assert_non_null(bytes);
	for (uint64_t i = 0; i < size; i++)
		fputc('a' + (int)(i % 26), bytes);
	fflush(bytes);
	uint64_t written;
	struct spool_note note = { "INBOX", "a message.eml", 1700000000 };
	assert_int_equal(spool_prepare(f->c, message, fileno(bytes), size, false, &note, &written), MF_OK);
	assert_int_equal(spool_flush(f->c, message, false), MF_OK);
	fclose(bytes);
}

static struct entry entry_of(struct fixture *f, uint64_t message)
{
	struct entry e = { 0 };
	assert_int_equal(cache_entry(f->c, message, &e), MF_OK);
	return e;
}

static bool is_there(struct fixture *f, uint64_t message)
{
	struct entry e;
	return cache_entry(f->c, message, &e) == MF_OK;
}

static uint64_t keep(struct fixture *f, uint64_t message)
{
	struct op *ops;
	size_t count;
	spool(f, message, entry_of(f, message).size);
	struct txn *t = begin(f);
	assert_int_equal(txn_keep(t, message), MF_OK);
	commit(t);
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 10, &ops, &count), MF_OK);
	uint64_t id = count ? ops[count - 1].id : 0;
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	return id;
}

static void assert_state(struct fixture *f, uint64_t message, const char *state)
{
	MF_CLEANUP(mf_free) char *text = NULL;
	assert_int_equal(journal_state_of(f->c, message, &text), MF_OK);
	assert_string_equal(text, state);
}

static void vanish(struct fixture *f, uint64_t inbox, uint32_t uid)
{
	struct txn *t = begin(f);
	enum mf_err e = txn_message_vanished(t, inbox, uid);
	assert_true(e == MF_OK || e == MF_NOT_FOUND);
	commit(t);
}

static bool in_spool(struct fixture *f, uint64_t message)
{
	return spool_has(f->c, message);
}

static void it_stays_whatever_the_server_tells(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t op = keep(f, message);
	assert_int_not_equal(op, 0);
	assert_int_equal(entry_of(f, message).uid, 0);
	assert_state(f, message, "pending: keep");
	/* the server still has it: no second row */
	assert_int_equal(add_message(f, inbox, 5, 1), message);
	struct txn *t = begin(f);
	assert_int_equal(txn_op_done(t, op, 0, 0), MF_OK);
	commit(t);
	vanish(f, inbox, 5);
	assert_state(f, message, "local");
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, inbox, &m), MF_OK);
	assert_int_equal(m.total, 1);
	mailbox_finish(&m);
	struct cache_kept kept;
	assert_int_equal(cache_kept(f->c, &kept), MF_OK);
	assert_int_equal(kept.messages, 1);
	assert_int_equal(kept.bytes, 1001);
	reopen(f);
	assert_true(is_there(f, message) && in_spool(f, message));
	assert_int_equal(rejected_count(f->c), 0);
	/* numbered anew, and nothing of it is there any more */
	t = begin(f);
	assert_int_equal(txn_mailbox_renumbered(t, inbox, 8), MF_OK);
	commit(t);
	assert_true(is_there(f, message));
}

static void it_is_settled_when_the_server_does_not_show_it(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t op = keep(f, message);
	struct op sent;
	assert_int_equal(journal_op(f->c, op, &sent), MF_OK);
	assert_int_equal(journal_mark_sent(f->c, &sent, 1), MF_OK);
	op_finish(&sent);
	reopen(f); /* with the answer lost */
	vanish(f, inbox, 5);
	assert_state(f, message, "local");
	assert_int_equal(journal_count(f->c), 0);
	assert_true(in_spool(f, message));
}

static void it_follows_new_numbers(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t id = keep(f, message);
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_renumbered(t, inbox, 8), MF_OK);
	commit(t);
	assert_int_equal(add_message(f, inbox, 77, 1), message);
	struct op op;
	assert_int_equal(journal_op(f->c, id, &op), MF_OK);
	assert_int_equal(op.uid, 77);
	assert_int_equal(op.uidvalidity, 8);
	op_finish(&op);
}

static void removed_before_it_was_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t id = keep(f, message);
	struct txn *t = begin(f);
	assert_int_equal(txn_remove(t, message, &for_good), MF_OK);
	commit(t);
	struct entry e;
	assert_int_equal(cache_lookup(f->c, inbox, "x", &e), MF_NOT_FOUND);
	reopen(f);
	assert_true(in_spool(f, message)); /* it may be taken back, and the server's may be gone */
	t = begin(f);
	assert_int_equal(txn_cancel(t, id), MF_OK);
	commit(t);
	assert_true(is_there(f, message));
	assert_state(f, message, "pending: keep");
	t = begin(f);
	assert_int_equal(txn_remove(t, message, &for_good), MF_OK);
	commit(t);
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 1);
	assert_int_equal(ops[0].kind, OP_EXPUNGE);
	assert_int_equal(ops[0].uid, 5);
	t = begin(f);
	assert_int_equal(txn_op_done(t, ops[0].id, 0, 0), MF_OK);
	commit(t);
	op_finish(&ops[0]);
	free(ops);
	assert_false(in_spool(f, message));
	assert_int_equal(journal_count(f->c), 0);
}

static void removed_while_it_is_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t id = keep(f, message);
	struct op sent;
	assert_int_equal(journal_op(f->c, id, &sent), MF_OK);
	assert_int_equal(journal_mark_sent(f->c, &sent, 1), MF_OK);
	op_finish(&sent);
	struct txn *t = begin(f);
	assert_int_equal(txn_remove(t, message, &for_good), MF_OK);
	commit(t);
	t = begin(f);
	assert_int_equal(txn_op_done(t, id, 0, 0), MF_OK);
	commit(t);
	assert_int_equal(journal_count(f->c), 0);
	assert_false(in_spool(f, message));
}

static void removed_when_only_we_have_it(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t id = keep(f, message);
	struct txn *t = begin(f);
	assert_int_equal(txn_op_done(t, id, 0, 0), MF_OK);
	commit(t);
	t = begin(f);
	assert_int_equal(txn_remove(t, message, &for_good), MF_OK);
	commit(t);
	assert_false(is_there(f, message) || in_spool(f, message));
	assert_int_equal(journal_count(f->c), 0);
}

static void taken_back(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	uint64_t id = keep(f, message);
	struct txn *t = begin(f);
	assert_int_equal(txn_cancel(t, id), MF_OK);
	commit(t);
	assert_int_equal(entry_of(f, message).uid, 5);
	assert_false(in_spool(f, message));
	assert_true(cache_body_is_cached(f->c, message));
}

/* Between the spool and the transaction */
static void a_crash_leaves_nothing_twice(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1), other = add_message(f, inbox, 6, 2);
	spool(f, message, 1001);
	assert_int_equal(spool_commit(f->c, message), MF_OK);
	spool(f, other, 1002); /* and before it */
	reopen(f);
	assert_int_equal(rejected_count(f->c), 0);
	assert_int_equal(entry_of(f, message).uid, 5);
	assert_false(in_spool(f, message) || in_spool(f, other));
	assert_true(cache_body_is_cached(f->c, message));
}

static void a_rollback_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1);
	spool(f, message, 1001);
	struct txn *t = begin(f);
	assert_int_equal(txn_keep(t, message), MF_OK);
	txn_rollback(t);
	assert_false(in_spool(f, message));
	assert_int_equal(entry_of(f, message).uid, 5);
}

static void not_twice_and_not_of_what_is_leaving(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1), other = add_message(f, inbox, 6, 2);
	(void)keep(f, message);
	struct txn *t = begin(f);
	assert_int_equal(txn_keep(t, message), MF_BUSY);
	assert_int_equal(txn_remove(t, other, &for_good), MF_OK);
	assert_int_equal(txn_keep(t, other), MF_NOT_FOUND);
	commit(t);
}

static void what_pop3_cannot_do(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), message = add_message(f, inbox, 5, 1), made = 0;
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_create(t, 0, "Archive", &made), MF_UNSUPPORTED);
	assert_int_equal(txn_mailbox_delete(t, inbox), MF_UNSUPPORTED);
	assert_int_equal(txn_mailbox_rename(t, inbox, 0, "Eingang"), MF_UNSUPPORTED);
	assert_int_equal(txn_mailbox_subscribe(t, inbox, true), MF_UNSUPPORTED);
	assert_int_equal(txn_create(t, inbox, "new.eml", &made), MF_UNSUPPORTED);
	assert_int_equal(txn_change_flags(t, message, 1 /* seen */, 0, "work", ""), MF_OK);
	assert_int_equal(txn_move(t, message, inbox, "another name.eml", &for_good), MF_OK);
	commit(t);
	assert_int_equal(journal_count(f->c), 0);
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	assert_int_equal(m.flags, 1);
	assert_string_equal(m.keywords, "work");
	assert_string_equal(m.name, "another name.eml");
	message_finish(&m);
}

/* The account has an IMAP server now. */
static void what_was_kept_can_be_stored_at_another_server(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_inbox(f), moved = add_message(f, inbox, 5, 1), removed = add_message(f, inbox, 6, 2), replaced = add_message(f, inbox, 9, 3);
	uint64_t rows[] = { moved, removed, replaced };
	for (size_t i = 0; i < 3; i++) {
		uint64_t id = keep(f, rows[i]);
		struct txn *t = begin(f);
		assert_int_equal(txn_op_done(t, id, 0, 0), MF_OK);
		commit(t);
	}
	f->options.only_deletes = false;
	reopen(f);
	uint64_t archive = add_mailbox(f, "Archive");
	struct txn *t = begin(f);
	assert_int_equal(txn_change_flags(t, moved, 1, 0, "", ""), MF_OK);
	assert_int_equal(txn_remove(t, removed, &for_good), MF_OK);
	commit(t);
	assert_int_equal(journal_count(f->c), 0);
	assert_false(is_there(f, removed) || in_spool(f, removed));
	spool(f, replaced, 2000);
	struct test_message m;
	(void)message_make(&m, inbox, 0, 4);
	t = begin(f);
	assert_int_equal(txn_move(t, moved, archive, "moved.eml", &for_good), MF_OK);
	assert_int_equal(txn_written(t, replaced, &(struct written){ .size = 2000, .summary = &m.summary, .internal_date = 1700000000, .upload = true }, &for_good), MF_OK);
	commit(t);
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, false, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(ops[i].kind, OP_APPEND);
		t = begin(f);
		assert_int_equal(txn_op_done(t, ops[i].id, 0, 0), MF_OK);
		commit(t);
		op_finish(&ops[i]);
	}
	free(ops);
	reopen(f);
	assert_true(is_there(f, moved) && is_there(f, replaced));
	assert_int_equal(rejected_count(f->c), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_stays_whatever_the_server_tells, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(it_is_settled_when_the_server_does_not_show_it, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(it_follows_new_numbers, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(removed_before_it_was_sent, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(removed_while_it_is_sent, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(removed_when_only_we_have_it, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(taken_back, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_crash_leaves_nothing_twice, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(a_rollback_leaves_nothing, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(not_twice_and_not_of_what_is_leaving, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(what_pop3_cannot_do, setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(what_was_kept_can_be_stored_at_another_server, setup, fixture_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* replay: what is taken back after the server has done a part of it */
#include "unit/replay_world.h"

static uint64_t first_op(struct world *w)
{
	uint64_t ids[32] = { 0 };
	assert_int_equal(journal_list(w->cache, 0, retry_each, ids), MF_OK);
	return ids[1];
}

/* COPY was done, and the original may not be removed: it is a message of its own again */
static void a_move_that_stays_half(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)REMOTE_MOVE);
	memory_refuse_writes(w.server, WRITE_EXPUNGE, MF_DENIED);
	move_number(&w, "INBOX", 1, "Work", "moved.eml");
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 1);
	DO(&w, txn_cancel(t, first_op(&w)));
	assert_settled_as(&w, NULL, "taken back");
	assert_true(numbered(&w, "INBOX", 1) != 0);
	assert_true(numbered(&w, "Work", 1) != 0);
	world_finish(&w);
}

/* Without UIDPLUS another message's mark keeps this one from being expunged, when it is marked itself */
static void marked_and_taken_back(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)REMOTE_UIDPLUS);
	assert_true(memory_flag(w.server, "INBOX", 2, FLAG_DELETED, ""));
	DO(&w, txn_remove(t, numbered(&w, "INBOX", 1), &expunge));
	account_journal_changed(w.account);
	struct op op = { 0 };
	uint64_t id = first_op(&w);
	world_until((op_finish(&op), journal_op(w.cache, id, &op) == MF_OK && op.tries && op.state == OP_QUEUED));
	op_finish(&op);
	DO(&w, txn_cancel(t, id));
	assert_settled_as(&w, NULL, "taken back");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "INBOX/Message number 1 0 "));
	assert_non_null(strstr(text, "INBOX/Message number 2 8 "));
	free(text);
	world_finish(&w);
}

/* Another client renames a mailbox, and nobody has told of it: nothing waits for the old name, and no message is lost */
static void renamed_by_another(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	world_until(is_quiet(&w));
	pthread_mutex_lock(&w.server->lock);
	struct memory_mailbox *b = memory_find_locked(w.server, "Work");
	free(b->raw);
	b->raw = mf_strdup("Job");
	pthread_mutex_unlock(&w.server->lock);
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 12), FLAG_FLAGGED, 0, NULL, NULL));
	DO(&w, txn_remove(t, numbered(&w, "Work", 11), &expunge));
	move_number(&w, "Work", 13, "INBOX", "moved.eml");
	account_journal_changed(w.account);
	assert_settled_as(&w, NULL, "renamed by another");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Job/Message number 11 "));
	assert_non_null(strstr(text, "Job/Message number 12 "));
	assert_non_null(strstr(text, "Job/Message number 13 "));
	free(text);
	world_finish(&w);
}

/* A mailbox that may be filled and not read tells no numbers: what was copied into it is not copied again */
static void into_one_that_cannot_be_read(void **state)
{
	(void)state;
	struct world w;
	uint64_t made = 0;
	build(&w, FULL | REMOTE_ACL);
	memory_rights(w.server, "Old", "li");
	(void)want_verified(&w);
	DO(&w, txn_create(t, box(&w, "Old"), "copy.eml", &made));
	DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 5), 0));
	move_number(&w, "INBOX", 6, "Old", "moved.eml");
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_OK);
	assert_int_equal(journal_count(w.cache), 0);
	char *text = server_text(&w), *at = strstr(text, "Old/Message number 5 ");
	assert_non_null(at);
	assert_null(strstr(at + 1, "Old/Message number 5 "));
	assert_non_null(strstr(text, "Old/Message number 6 "));
	free(text);
	world_finish(&w);
}

static void copy_all(struct world *w, int first, int count, const char *to)
{
	struct txn *t = NULL;
	char name[40];
	uint64_t *from = mf_alloc_array((size_t)count, sizeof *from), made = 0;
	for (int i = 0; i < count; i++)
		assert_true((from[i] = numbered(w, "INBOX", first + i)) != 0);
	uint64_t there = box(w, to);
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	for (int i = 0; i < count; i++) {
		snprintf(name, sizeof name, "copy-%d.eml", i);
		assert_int_equal(txn_create(t, there, name, &made), MF_OK);
		assert_int_equal(txn_copied(t, made, from[i], 0), MF_OK);
	}
	assert_int_equal(txn_commit(t), MF_OK);
	free(from);
	account_journal_changed(w->account);
}

/* A set so large that it goes out in parts meets the end of the quota: what was copied is not copied again */
static void quota_ends_in_the_middle(void **state)
{
	(void)state;
	static const struct { unsigned caps; int count; size_t part; } cases[] = {
		{ FULL, 10, 4 }, { FULL & ~(unsigned)(REMOTE_UIDPLUS), 620, 600 },
	};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct world w;
		const int count = cases[c].count, room = (int)cases[c].part + 2;
		build(&w, cases[c].caps);
		for (int i = 0; i < count; i++)
			deliver(&w, "INBOX", 1000 + i, 700);
		assert_int_equal(want_sync(&w, false), MF_OK);
		world_until(is_quiet(&w));
		size_t len;
		free(message_text(1000, 700, &len));
		memory_copy_part(w.server, cases[c].part);
		memory_quota(w.server, 0, (uint64_t)room * len + len / 2);
		copy_all(&w, 1000, count, "Old");
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_int_equal(want_verified(&w), MF_OK);
		assert_int_equal(count_state(&w, OP_PARKED), count - room);
		char *text = server_text(&w);
		int there = 0;
		for (const char *at = text; (at = strstr(at, "Old/Message number 1")); at++)
			there++;
		assert_int_equal(there, room);
		free(text);
		world_finish(&w);
	}
}

static bool is_tried(struct world *w, uint64_t id)
{
	struct op op = { 0 };
	bool tried = journal_op(w->cache, id, &op) == MF_OK && op.tries && op.state == OP_QUEUED;
	op_finish(&op);
	return tried;
}

/* A mailbox that somebody uses is tried again, then waits for a person; the session goes on, and so do other changes */
static void in_use(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	memory_refuse_writes(w.server, WRITE_RENAME, MF_CANCELLED);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
	account_journal_changed(w.account);
	uint64_t id = first_op(&w);
	world_until(is_tried(&w, id));
	assert_int_equal(link_of(&w).state, LINK_ONLINE);
	create_number(&w, "INBOX", "meanwhile.eml", 70);
	account_journal_changed(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	struct op op = { 0 };
	assert_int_equal(journal_op(w.cache, id, &op), MF_OK);
	assert_int_equal(op.state, OP_PARKED);
	assert_non_null(strstr(op.error, "in use"));
	op_finish(&op);
	memory_refuse_writes(w.server, WRITE_RENAME, MF_OK);
	DO(&w, txn_retry(t, id));
	assert_settled_as(&w, NULL, "not in use any more");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Older/\n"));
	assert_non_null(strstr(text, "INBOX/Message number 70 "));
	free(text);
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_move_that_stays_half), cmocka_unit_test(marked_and_taken_back), cmocka_unit_test(renamed_by_another),
		cmocka_unit_test(into_one_that_cannot_be_read), cmocka_unit_test(in_use), cmocka_unit_test(quota_ends_in_the_middle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

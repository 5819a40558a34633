/* replay: what cannot be sent is left alone until something has changed */
#include "unit/replay_world.h"

#include "sync/engine.h"

/* Nothing will have a look by itself, and nothing has one just now. */
static bool is_asleep(struct world *w)
{
	struct account *a = w->account;
	pthread_mutex_lock(&a->lock);
	bool asleep = a->replay_at_ms == INT64_MAX && a->doubts == DOUBTS_NONE;
	for (size_t i = 0; i < a->session_count; i++)
		asleep &= a->sessions[i].idle || !(a->sessions[i].roles & ROLE_WORKER);
	pthread_mutex_unlock(&a->lock);
	return asleep && is_quiet(w);
}

static unsigned writes_until_asleep(struct world *w)
{
	world_until(is_asleep(w));
	unsigned writes = memory_calls(w->server, MEMORY_WRITE);
	memory_forget_calls(w->server);
	return writes;
}

/* A move that is refused, flags that wait for it, a mailbox that is to go then and another that is to have its name */
static void refuse(struct world *w)
{
	memory_refuse_writes(w->server, WRITE_MOVE, MF_QUOTA);
	move_number(w, "Gone", 31, "Work", "moved.eml");
	DO(w, txn_change_flags(t, numbered(w, "Work", 31), FLAG_FLAGGED, 0, NULL, NULL));
	DO(w, txn_mailbox_delete(t, box(w, "Gone")));
	DO(w, txn_mailbox_rename(t, box(w, "Old"), 0, "Gone"));
	account_journal_changed(w->account);
}

static void until_something_changes(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	world_until(is_quiet(&w));
	memory_forget_calls(w.server);
	refuse(&w);
	world_until(count_state(&w, OP_PARKED) == 1);
	assert_int_equal(writes_until_asleep(&w), 1);
	assert_int_equal(count_state(&w, OP_QUEUED), 3);
	/* who asks whether all is done is answered, and that changes nothing */
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(writes_until_asleep(&w), 0);
	/* it is tried once for each time that a person says so */
	for (int i = 0; i < 3; i++) {
		retry_all(&w);
		world_until(count_state(&w, OP_PARKED) == 1);
		assert_int_equal(writes_until_asleep(&w), 1);
	}
	/* something else is sent, and once */
	DO(&w, txn_change_flags(t, numbered(&w, "INBOX", 1), FLAG_SEEN, 0, NULL, NULL));
	account_journal_changed(w.account);
	world_until(journal_count(w.cache) == 4);
	assert_int_equal(writes_until_asleep(&w), 1);
	memory_refuse_writes(w.server, WRITE_MOVE, MF_OK);
	retry_all(&w);
	world_until(!journal_count(w.cache));
	assert_settled_as(&w, NULL, "after a sleep");
	world_finish(&w);
}

/* What has been seen at the server is news, and what waits for it goes on */
static void until_its_mailbox_tells(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL & ~(unsigned)REMOTE_UIDPLUS);
	world_until(is_quiet(&w));
	memory_block(w.server, MEMORY_CHANGES);
	move_number(&w, "INBOX", 1, "Work", "moved.eml");
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 1), FLAG_FLAGGED, 0, NULL, NULL));
	account_journal_changed(w.account);
	assert_true(memory_await_blocked(w.server, PATIENCE_MS));
	assert_int_equal(count_state(&w, OP_UNCONFIRMED), 1);
	assert_int_equal(count_state(&w, OP_QUEUED), 1);
	memory_release(w.server);
	world_until(!journal_count(w.cache));
	assert_settled_as(&w, NULL, "seen");
	world_finish(&w);
}

static bool looks_later(struct world *w)
{
	struct account *a = w->account;
	pthread_mutex_lock(&a->lock);
	bool later = a->doubts == DOUBTS_NONE && a->replay_at_ms != INT64_MAX && a->replay_at_ms > clock_mono_ms() + 10000;
	pthread_mutex_unlock(&a->lock);
	return later && is_quiet(w);
}

/* A mailbox that was renamed, so that each message is in doubt, and may not be read is not tried all the time; when somebody reads
 * it, what waits goes on */
static void until_it_may_be_read(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL | REMOTE_ACL);
	go_offline(&w);
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 11), FLAG_FLAGGED, 0, NULL, NULL));
	assert_true(memory_mailbox_rename(w.server, "Work", "Job"));
	memory_rights(w.server, "Job", "li");
	account_connect(w.account);
	world_until(looks_later(&w));
	assert_int_equal(count_state(&w, OP_QUEUED), 1);
	memory_rights(w.server, "Job", "lrswite");
	assert_int_equal(want_verified(&w), MF_OK);
	world_until(!journal_count(w.cache));
	assert_settled_as(&w, NULL, "read again");
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(until_something_changes), cmocka_unit_test(until_its_mailbox_tells), cmocka_unit_test(until_it_may_be_read) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

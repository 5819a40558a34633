/* The engine keeps the index what the server is. */
#include "account_world.h"
#include "cache/journal.h"
#include "sync/engine.h"
#include "sync/memory_state.h"

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	assert_non_null(w);
	world_init(w);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_finish(*state);
	free(*state);
	return 0;
}

static void fill(struct world *w, const char *raw, int count)
{
	for (int i = 1; i <= count; i++)
		deliver(w, raw, i, 600);
}

static void first_sync(void **state)
{
	struct world *w = *state;
	memory_mailbox_add(w->server, "Archive/2026", 0, USE_ARCHIVE);
	memory_mailbox_add(w->server, "Parent", MAILBOX_NOSELECT, USE_NONE);
	fill(w, "INBOX", 1200);
	fill(w, "Archive/2026", 3);
	world_start(w);
	struct mf_reason why;
	assert_int_equal(account_wait_listed(w->account, PATIENCE_MS, &why), MF_OK);
	assert_int_equal(want_mailbox(w, mailbox_id(w, "Archive/2026")), MF_OK);
	assert_int_equal(message_count(w, "Archive/2026"), 3);
	assert_int_equal(want_mailbox(w, mailbox_id(w, "Parent")), MF_OK);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 1200);
	assert_true(is_complete(w, "INBOX"));
	assert_int_equal(link_of(w).state, LINK_ONLINE);
	struct entry e;
	assert_int_equal(cache_entry(w->cache, message_id(w, "INBOX", 7), &e), MF_OK);
	assert_int_equal(e.size, 600);
	assert_int_equal(e.mtime, 1763632800 + 7);
}

static void nothing_changed_asks_nothing(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	for (int i = 0; i < 200; i++) {
		char raw[32];
		snprintf(raw, sizeof raw, "box%03d", i);
		memory_mailbox_add(w->server, raw, 0, USE_NONE);
		deliver(w, raw, i, 500);
	}
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	world_stop(w);
	cache_close(w->cache);
	memory_forget_calls(w->server);
	world_open_cache(w);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(memory_mailboxes_checked(w->server), 0);
	assert_int_equal(memory_calls(w->server, MEMORY_CHANGES), 0);
	assert_true(memory_calls(w->server, MEMORY_MAILBOXES) <= 2); /* its own, and the one that was asked for */
}

/* added, expunged, flagged, by whatever means the server has */
static void changes_arrive(struct world *w, unsigned caps)
{
	memory_caps(w->server, caps);
	w->config->idle = false;
	fill(w, "INBOX", 50);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t flagged = message_id(w, "INBOX", 10), kept = message_id(w, "INBOX", 11);
	assert_true(memory_expunge(w->server, "INBOX", 20));
	assert_true(memory_expunge(w->server, "INBOX", 50));
	assert_true(memory_flag(w->server, "INBOX", 10, FLAG_SEEN | FLAG_FLAGGED, "$Work"));
	deliver(w, "INBOX", 51, 700);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 49);
	assert_int_equal(message_id(w, "INBOX", 20), 0);
	assert_int_equal(message_id(w, "INBOX", 50), 0);
	assert_int_equal(message_id(w, "INBOX", 10), flagged);
	assert_int_equal(message_id(w, "INBOX", 11), kept);
	assert_int_equal(message_flags(w, flagged), FLAG_SEEN | FLAG_FLAGGED);
	assert_true(message_id(w, "INBOX", 51) != 0);
	/* and then there is peace, but where nothing tells of flags: a person who asks has them compared */
	memory_forget_calls(w->server);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(memory_mailboxes_checked(w->server), caps & REMOTE_CONDSTORE ? 0 : 1);
	assert_true(memory_flag(w->server, "INBOX", 12, FLAG_ANSWERED, ""));
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_flags(w, message_id(w, "INBOX", 12)), FLAG_ANSWERED);
}

#define ALL_BUT(caps) ((1U << 12) - 1 - (unsigned)(caps) - REMOTE_PUSH_ALL)

static void changes_by_qresync(void **state)
{
	changes_arrive(*state, ALL_BUT(0));
}

static void changes_by_condstore(void **state)
{
	changes_arrive(*state, ALL_BUT(REMOTE_QRESYNC));
}

static void changes_by_comparing(void **state)
{
	changes_arrive(*state, ALL_BUT(REMOTE_QRESYNC | REMOTE_CONDSTORE));
}

static void a_list_without_numbers(void **state)
{
	memory_empty_status(((struct world *)*state)->server, true);
	struct world *w = *state;
	w->config->idle = false;
	fill(w, "INBOX", 5);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	deliver(w, "INBOX", 6, 500);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 6);
}

static void a_server_that_hides_what_vanished(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	memory_hide_vanished(w->server, true);
	fill(w, "INBOX", 30);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	char *note = NULL;
	for (uint32_t uid = 3; uid <= 5; uid++) {
		assert_true(memory_expunge(w->server, "INBOX", uid));
		assert_int_equal(want_sync(w, false), MF_OK);
		world_until(message_count(w, "INBOX") == 30 - (uid - 2));
	}
	assert_int_equal(cache_get_note(w->cache, "no-qresync", &note), MF_OK);
	free(note);
	/* from now on it is compared in full at once */
	assert_true(memory_expunge(w->server, "INBOX", 9));
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_id(w, "INBOX", 9), 0);
}

/* What comparing in full does not bring, since it tells only flags of what is below UIDNEXT */
static void what_was_not_told_of_is_fetched(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	fill(w, "INBOX", 8);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_hide_newest(w->server, "INBOX", 2);
	for (int i = 0; i < 2; i++)
		deliver(w, "INBOX", 20 + i, 500);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 8);
	memory_hide_newest(w->server, "INBOX", 0);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 10);
}

/* ... is asked for once, where the server goes on listing what it does not tell, and again when all was right meanwhile */
static void what_is_never_told_is_asked_for_once(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	fill(w, "INBOX", 10);
	memory_hide_newest(w->server, "INBOX", 2);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	for (uint32_t round = 0; round < 2; round++) {
		assert_int_equal(want_verify(w), MF_OK);
		assert_int_equal(want_verify(w), MF_OK);
		memory_forget_calls(w->server);
		assert_int_equal(want_verify(w), MF_OK);
		assert_int_equal(memory_mailboxes_checked(w->server), 1);
		for (uint32_t uid = 9 + 2 * round; uid < 11 + 2 * round; uid++)
			assert_true(memory_expunge(w->server, "INBOX", uid));
		assert_int_equal(want_verify(w), MF_OK);
		for (int i = 0; i < 2; i++)
			deliver(w, "INBOX", 20 + i, 500);
		assert_int_equal(want_sync(w, false), MF_OK);
	}
	assert_int_equal(message_count(w, "INBOX"), 8);
	memory_hide_newest(w->server, "INBOX", 0);
	assert_int_equal(want_verify(w), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 10);
}

static void pushed_mail_arrives(void **state)
{
	struct world *w = *state;
	fill(w, "INBOX", 3);
	w->config->poll_ms = 3600000;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	world_until(memory_calls(w->server, MEMORY_WAIT) >= 2);
	deliver(w, "INBOX", 4, 500);
	world_until(message_count(w, "INBOX") == 4);
	assert_true(memory_flag(w->server, "INBOX", 2, FLAG_SEEN, ""));
	world_until(message_flags(w, message_id(w, "INBOX", 2)) == FLAG_SEEN);
	assert_true(memory_expunge(w->server, "INBOX", 1));
	world_until(message_count(w, "INBOX") == 3);
	assert_true(memory_calls(w->server, MEMORY_MAILBOXES) <= 3);
}

static void pushed_everywhere(void **state)
{
	struct world *w = *state;
	memory_caps(w->server, (1U << 12) - 1);
	memory_mailbox_add(w->server, "Lists", 0, USE_NONE);
	w->config->poll_ms = 3600000;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	world_until(memory_calls(w->server, MEMORY_WAIT) >= 2);
	deliver(w, "Lists", 1, 500);
	world_until(message_count(w, "Lists") == 1);
	memory_mailbox_add(w->server, "Later", 0, USE_NONE);
	world_until(mailbox_id(w, "Later") != 0);
}

static void one_connection_does_everything(void **state)
{
	struct world *w = *state;
	w->config->connections = 1;
	w->config->poll_ms = 3600000;
	fill(w, "INBOX", 20);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	world_until(memory_calls(w->server, MEMORY_WAIT) >= 2);
	deliver(w, "INBOX", 21, 500);
	world_until(message_count(w, "INBOX") == 21);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 21), 21, 500), MF_OK);
	assert_int_equal(memory_sessions(w->server), 1);
}

static void a_server_that_takes_one_connection(void **state)
{
	struct world *w = *state;
	memory_session_limit(w->server, 1);
	w->config->poll_ms = 3600000;
	fill(w, "INBOX", 20);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 4), 4, 600), MF_OK);
	/* the one that there is listens as well */
	world_until(memory_calls(w->server, MEMORY_WAIT) >= 1);
	deliver(w, "INBOX", 21, 500);
	world_until(message_count(w, "INBOX") == 21);
}

static void numbered_anew_keeps_ids_and_bodies(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	fill(w, "INBOX", 40);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t id = message_id(w, "INBOX", 5);
	assert_int_equal(read_whole(w, id, 5, 600), MF_OK);
	struct message before;
	assert_int_equal(cache_message(w->cache, id, &before), MF_OK);
	memory_renumber(w->server, "INBOX");
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 40);
	struct message after;
	assert_int_equal(cache_message(w->cache, id, &after), MF_OK);
	assert_int_not_equal(after.entry.uid, before.entry.uid);
	assert_string_equal(after.name, before.name);
	assert_true(cache_body_is_cached(w->cache, id));
	message_finish(&before);
	message_finish(&after);
	memory_forget_calls(w->server);
	assert_int_equal(read_whole(w, id, 5, 600), MF_OK);
	assert_int_equal(memory_messages_fetched(w->server), 0);
}

static void moved_by_another_client_keeps_the_id(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	fill(w, "INBOX", 10);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t id = message_id(w, "INBOX", 5);
	assert_int_equal(read_whole(w, id, 5, 600), MF_OK);
	uint32_t uid = memory_move(w->server, "INBOX", 5, "Archive");
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_id(w, "Archive", uid), id);
	assert_int_equal(message_count(w, "INBOX"), 9);
	assert_true(cache_body_is_cached(w->cache, id));
}

static void mailboxes_come_and_go(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	memory_mailbox_add(w->server, "Old", 0, USE_NONE);
	deliver(w, "Old", 1, 500);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_true(mailbox_id(w, "Old") != 0);
	memory_mailbox_remove(w->server, "Old");
	memory_mailbox_add(w->server, "New", 0, USE_NONE);
	deliver(w, "New", 1, 500);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(mailbox_id(w, "Old"), 0);
	assert_int_equal(message_count(w, "New"), 1);
}

/* A mailbox whose name the index cannot have is left out, and the others are read all the same */
static void one_too_deep_is_left_out(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	char deep[2 * 150] = "", *end = deep;
	for (int i = 0; i < 120; i++)
		end = stpcpy(end, i ? "/a" : "Deep");
	memory_mailbox_add(w->server, deep, 0, USE_NONE);
	memory_mailbox_add(w->server, "", 0, USE_NONE);
	memory_mailbox_add(w->server, "New", 0, USE_NONE);
	deliver(w, "New", 1, 500);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(mailbox_id(w, deep), 0);
	assert_int_equal(message_count(w, "New"), 1);
}

static void settings_leave_mailboxes_out(void **state)
{
	struct world *w = *state;
	struct mf_reason why;
	assert_int_equal(account_config_set(w->config, "exclude", "Spam*", false, &why), MF_OK);
	w->config->subscribed_only = true;
	memory_mailbox_add(w->server, "Spam", MAILBOX_SUBSCRIBED, USE_JUNK);
	memory_mailbox_add(w->server, "Friends", MAILBOX_SUBSCRIBED, USE_NONE);
	memory_mailbox_add(w->server, "Other", 0, USE_NONE);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(mailbox_id(w, "Spam"), 0);
	assert_int_equal(mailbox_id(w, "Other"), 0);
	assert_true(mailbox_id(w, "Friends") != 0 && mailbox_id(w, "INBOX") != 0);
}

/* rmdir of one that is being read: that is over, and nothing else is */
static void removed_while_it_is_read(void **state)
{
	struct world *w = *state;
	w->config->connections = 1;
	w->config->idle = false;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	for (unsigned answers = 0; answers < 5; answers++) {
		memory_mailbox_add(w->server, "Gone", 0, USE_NONE);
		deliver(w, "Gone", 1, 500);
		deliver(w, "Gone", 2, 500);
		struct waiter t;
		enum mf_err e;
		waiter_init(&t);
		w->config->sync = SYNC_DEMAND;
		assert_int_equal(want_sync(w, false), MF_OK);
		uint64_t gone = mailbox_id(w, "Gone");
		memory_pause(w->server, answers);
		assert_false(account_want_sync(w->account, &gone, 1, false, waiter_done, &t, &e, &t.want));
		if (memory_await_blocked(w->server, 500)) {
			struct txn *txn;
			assert_int_equal(cache_begin(w->cache, &txn), MF_OK);
			assert_int_equal(txn_mailbox_delete(txn, gone), MF_OK);
			assert_int_equal(txn_commit(txn), MF_OK);
		}
		memory_mailbox_remove(w->server, "Gone");
		memory_pause(w->server, UINT32_MAX);
		memory_release(w->server);
		(void)waiter_wait(&t);
		account_journal_changed(w->account);
		world_until(!journal_count(w->cache));
		assert_int_equal(want_sync(w, false), MF_OK);
		assert_int_equal(mailbox_id(w, "Gone"), 0);
	}
	assert_int_equal(memory_calls(w->server, MEMORY_LOGIN), 1);
}

/* LSUB is refused for a while: the mailboxes that are in the tree for being subscribed stay there */
static void subscriptions_that_are_not_told(void **state)
{
	struct world *w = *state;
	w->config->subscribed_only = true;
	memory_mailbox_add(w->server, "Wanted", MAILBOX_SUBSCRIBED, USE_NONE);
	memory_mailbox_add(w->server, "Other", MAILBOX_SUBSCRIBED, USE_NONE);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t wanted = mailbox_id(w, "Wanted");
	assert_int_not_equal(wanted, 0);
	pthread_mutex_lock(&w->server->lock);
	for (struct memory_mailbox *b = w->server->mailboxes; b; b = b->next)
		b->flags &= ~(unsigned)MAILBOX_SUBSCRIBED;
	pthread_mutex_unlock(&w->server->lock);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(mailbox_id(w, "Wanted"), wanted);
	pthread_mutex_lock(&w->server->lock);
	memory_find_locked(w->server, "INBOX")->flags |= MAILBOX_SUBSCRIBED;
	memory_find_locked(w->server, "Wanted")->flags |= MAILBOX_SUBSCRIBED;
	pthread_mutex_unlock(&w->server->lock);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(mailbox_id(w, "Wanted"), wanted);
	assert_int_equal(mailbox_id(w, "Other"), 0);
}

static void only_the_newest_are_kept(void **state)
{
	struct world *w = *state;
	w->config->max_messages = 10;
	w->config->idle = false;
	fill(w, "INBOX", 40);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 10);
	assert_int_equal(message_id(w, "INBOX", 30), 0);
	assert_true(message_id(w, "INBOX", 31) != 0);
	deliver(w, "INBOX", 41, 500);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 10);
	assert_int_equal(message_id(w, "INBOX", 31), 0);
	memory_forget_calls(w->server);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(memory_mailboxes_checked(w->server), 0);
	/* the bound is lifted */
	world_stop(w);
	w->config->max_messages = 0;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "INBOX"), 41);
}

static void on_demand_only_what_is_opened(void **state)
{
	struct world *w = *state;
	w->config->sync = SYNC_DEMAND;
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	fill(w, "INBOX", 5);
	fill(w, "Archive", 5);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_false(is_complete(w, "Archive"));
	assert_int_equal(want_mailbox(w, mailbox_id(w, "Archive")), MF_OK);
	assert_int_equal(message_count(w, "Archive"), 5);
	assert_false(is_complete(w, "INBOX"));
}

static void full_brings_the_bodies(void **state)
{
	struct world *w = *state;
	w->config->sync = SYNC_FULL;
	fill(w, "INBOX", 300);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	world_until(cache_body_is_cached(w->cache, message_id(w, "INBOX", 1)) && memory_messages_fetched(w->server) == 300);
	deliver(w, "INBOX", 301, 500);
	world_until(message_count(w, "INBOX") == 301);
	world_until(cache_body_is_cached(w->cache, message_id(w, "INBOX", 301)));
	assert_int_equal(memory_messages_fetched(w->server), 301); /* none twice */
}

static void populate_on_request(void **state)
{
	struct world *w = *state;
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	fill(w, "INBOX", 30);
	fill(w, "Archive", 600);
	world_start(w);
	assert_int_equal(want_sync(w, true), MF_OK);
	for (uint32_t uid = 1; uid <= 600; uid++)
		assert_true(cache_body_is_cached(w->cache, message_id(w, "Archive", uid)));
	assert_int_equal(memory_messages_fetched(w->server), 630);
	assert_int_equal(want_sync(w, true), MF_OK);
	assert_int_equal(memory_messages_fetched(w->server), 630);
}

static void verifying_finds_what_is_wrong(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	fill(w, "INBOX", 20);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	/* the index loses a message and a flag behind everybody's back */
	struct txn *t;
	uint64_t inbox = mailbox_id(w, "INBOX");
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	assert_int_equal(txn_message_flags(t, inbox, 3, FLAG_DRAFT, "", 0), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	assert_int_equal(want_verify(w), MF_OK);
	assert_int_equal(message_flags(w, message_id(w, "INBOX", 3)), 0);
	assert_int_equal(message_count(w, "INBOX"), 20);
}

static void looking_at_a_mailbox_checks_it(void **state)
{
	struct world *w = *state;
	w->config->poll_ms = 3600000;
	w->config->idle = false;
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	uint64_t archive = mailbox_id(w, "Archive");
	deliver(w, "Archive", 1, 500);
	memory_forget_calls(w->server);
	account_touch(w->account, archive); /* checked just now */
	clock_skew_for_tests(31000);
	account_touch(w->account, archive);
	world_until(message_count(w, "Archive") == 1);
	clock_skew_for_tests(-31000);
	unsigned checked = memory_mailboxes_checked(w->server);
	assert_int_equal(checked, 1);
}

static void a_read_only_mailbox_says_so(void **state)
{
	struct world *w = *state;
	memory_mailbox_add(w->server, "Shared", MAILBOX_READONLY, USE_NONE);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_raw(w->cache, "Shared", &m), MF_OK);
	assert_true(m.flags & MAILBOX_READONLY);
	mailbox_finish(&m);
}

static void quota_is_asked_for(void **state)
{
	struct world *w = *state;
	struct quota quota;
	memory_quota(w->server, 5, 1000);
	world_start(w);
	world_until(account_quota(w->account, &quota));
	assert_int_equal(quota.limit, 1000);
}

static void an_idle_account_is_quiet(void **state)
{
	struct world *w = *state;
	fill(w, "INBOX", 3);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	struct account_progress p;
	world_until((account_progress(w->account, &p), p.doing[0] == 0 && p.queued == 0));
	struct account_counters c;
	account_counters(w->account, &c);
	assert_true(c.connections >= 1);
	assert_int_equal(c.fetched_messages, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* Nothing tells of flags there: what is not much is compared as often as the list is asked for. */
static void flags_without_news(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	w->config->poll_ms = 20;
	memory_caps(w->server, ALL_BUT(REMOTE_QRESYNC | REMOTE_CONDSTORE | REMOTE_PUSH));
	fill(w, "INBOX", 5);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_true(memory_flag(w->server, "INBOX", 3, FLAG_ANSWERED, ""));
	world_until(message_flags(w, message_id(w, "INBOX", 3)) == FLAG_ANSWERED);
}

/* An answer to a change of ours comes in between: the look is made again, and is no sign that the server hides anything. */
static void a_look_that_was_disturbed(void **state)
{
	struct world *w = *state;
	w->config->idle = false;
	memory_hide_vanished(w->server, true);
	fill(w, "INBOX", 30);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	char *note = NULL;
	for (unsigned answers = 0; answers <= 1; answers++) {
		struct waiter t;
		enum mf_err e;
		memory_forget_calls(w->server);
		memory_block(w->server, MEMORY_CHANGES);
		assert_true(memory_expunge(w->server, "INBOX", 3 + answers));
		waiter_init(&t);
		assert_false(account_want_sync(w->account, NULL, 0, false, waiter_done, &t, &e, &t.want));
		assert_true(memory_await_blocked(w->server, PATIENCE_MS));
		pthread_mutex_lock(&w->account->lock);
		w->account->settled += answers;
		pthread_mutex_unlock(&w->account->lock);
		memory_release(w->server);
		assert_int_equal(waiter_wait(&t), MF_OK);
		assert_int_equal(memory_mailboxes_checked(w->server), 2 + answers);
		assert_int_equal(message_count(w, "INBOX"), 30 - 1 - answers);
		assert_int_equal(cache_get_note(w->cache, "no-qresync", &note), answers ? MF_OK : MF_NOT_FOUND);
	}
	free(note);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(first_sync), TEST(nothing_changed_asks_nothing), TEST(changes_by_qresync), TEST(changes_by_condstore),
		TEST(changes_by_comparing), TEST(a_list_without_numbers), TEST(a_server_that_hides_what_vanished), TEST(a_look_that_was_disturbed), TEST(flags_without_news),
		TEST(what_was_not_told_of_is_fetched), TEST(what_is_never_told_is_asked_for_once), TEST(pushed_mail_arrives),
		TEST(pushed_everywhere), TEST(one_connection_does_everything), TEST(a_server_that_takes_one_connection),
		TEST(numbered_anew_keeps_ids_and_bodies), TEST(moved_by_another_client_keeps_the_id), TEST(mailboxes_come_and_go), TEST(one_too_deep_is_left_out),
		TEST(settings_leave_mailboxes_out), TEST(subscriptions_that_are_not_told), TEST(removed_while_it_is_read), TEST(only_the_newest_are_kept), TEST(on_demand_only_what_is_opened),
		TEST(full_brings_the_bodies), TEST(populate_on_request), TEST(verifying_finds_what_is_wrong), TEST(looking_at_a_mailbox_checks_it),
		TEST(a_read_only_mailbox_says_so), TEST(quota_is_asked_for), TEST(an_idle_account_is_quiet),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

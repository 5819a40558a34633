/* The connection of an account: lost, refused, blocked, offline. */
#include "account_world.h"

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	assert_non_null(w);
	world_init(w);
	for (int i = 1; i <= 20; i++)
		deliver(w, "INBOX", i, 600);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_finish(*state);
	free(*state);
	return 0;
}

static void offline_answers_at_once(void **state)
{
	struct world *w = *state;
	memory_mailbox_add(w->server, "Cold", 0, USE_NONE);
	w->config->sync = SYNC_DEMAND;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(want_mailbox(w, mailbox_id(w, "INBOX")), MF_OK);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 3), 3, 600), MF_OK);
	world_stop(w);
	world_start_as(w, true);
	assert_int_equal(link_of(w).state, LINK_WAITING);
	assert_int_equal(link_of(w).error, MF_OK);
	struct want *want;
	enum mf_err e;
	struct body *body = open_body(w, message_id(w, "INBOX", 4));
	assert_true(account_want_body(w->account, body, 0, 10, NULL, NULL, &e, &want));
	assert_int_equal(e, MF_OFFLINE);
	body_unref(body);
	assert_true(account_want_mailbox(w->account, mailbox_id(w, "Cold"), NULL, NULL, &e, &want));
	assert_int_equal(e, MF_OFFLINE);
	assert_true(account_want_mailbox(w->account, mailbox_id(w, "INBOX"), NULL, NULL, &e, &want));
	assert_int_equal(e, MF_OK);
	assert_true(account_want_sync(w->account, NULL, 0, false, NULL, NULL, &e, &want));
	assert_int_equal(e, MF_OFFLINE);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 3), 3, 600), MF_OK);
	account_connect(w->account);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 4), 4, 600), MF_OK);
	assert_int_equal(link_of(w).state, LINK_ONLINE);
}

static void the_first_attempt_fails(void **state)
{
	struct world *w = *state;
	struct mf_reason why = {""};
	memory_login_result(w->server, MF_OFFLINE);
	world_start(w);
	assert_int_equal(account_wait_listed(w->account, PATIENCE_MS, &why), MF_OFFLINE);
	assert_true(why.text[0] != 0);
	struct link_info info = link_of(w);
	assert_int_equal(info.state, LINK_OFFLINE);
	assert_true(info.next_try_s >= info.since_s);
	memory_login_result(w->server, MF_OK);
	account_connect(w->account);
	assert_int_equal(account_wait_listed(w->account, PATIENCE_MS, &why), MF_OK);
}

static void it_tries_again_by_itself(void **state)
{
	struct world *w = *state;
	memory_login_result(w->server, MF_OFFLINE);
	world_start(w);
	world_until(link_of(w).state == LINK_OFFLINE);
	memory_login_result(w->server, MF_OK);
	world_until(link_of(w).state == LINK_ONLINE);
}

static void wants_before_a_failing_attempt_are_answered(void **state)
{
	struct world *w = *state;
	memory_block(w->server, MEMORY_LOGIN);
	memory_login_result(w->server, MF_OFFLINE);
	world_start(w);
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	assert_false(account_want_sync(w->account, NULL, 0, false, waiter_done, &t, &e, &t.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	assert_false(waiter_is_done(&t)); /* while it is being tried, they wait */
	memory_release(w->server);
	assert_int_equal(waiter_wait(&t), MF_OFFLINE);
}

static size_t listed(struct world *w)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(w->cache, mailbox_id(w, "INBOX"), &m), MF_OK);
	size_t total = m.total;
	mailbox_finish(&m);
	return total;
}

/* So many of a list that is paused, and no more. The answer that waits is of one that has not come yet. */
static void some_more(struct world *w, unsigned messages)
{
	unsigned before = memory_answers(w->server);
	memory_pause(w->server, messages - 1);
	memory_release(w->server);
	world_until(memory_answers(w->server) == before + messages);
}

static bool soon_done(struct waiter *t)
{
	enum { MOMENT_MS = 300 };      /* as long as messages are gathered at most before they are written */
	for (int ms = 0; ms < MOMENT_MS && !waiter_is_done(t); ms++)
		world_nap();
	return waiter_is_done(t);
}

static void most_of_a_first_list_is_enough_for_who_begins_to_read_it(void **state)
{
	/* more than one transaction, and less than half; most; half of what is written together when it comes slowly */
	enum { MESSAGES = 1601, FEW = 608, MOST = 1280, TOGETHER = 16 };
	struct world *w = *state;
	struct waiter all, most;
	enum mf_err e;
	for (int i = 21; i <= MESSAGES; i++) /* besides those of setup() */
		deliver(w, "INBOX", i, 200);
	memory_block(w->server, MEMORY_CHANGES);
	world_start(w);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	waiter_init(&all);
	waiter_init(&most);
	uint64_t inbox = mailbox_id(w, "INBOX");
	assert_false(account_want_mailbox(w->account, inbox, waiter_done, &all, &e, &all.want));
	assert_false(account_want_most(w->account, inbox, waiter_done, &most, &e, &most.want));
	memory_pause(w->server, FEW + 1); /* and the news of how many there are */
	memory_release(w->server);
	world_until(listed(w) > 0); /* some 500, fewer where they come slowly */
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	assert_false(waiter_is_done(&most));
	some_more(w, MOST - FEW);
	/* the slower the machine, the less is a matter of a moment */
	for (unsigned come = MOST; !soon_done(&most) && come + TOGETHER < MESSAGES; come += TOGETHER)
		some_more(w, TOGETHER);
	assert_int_equal(waiter_wait(&most), MF_OK);
	assert_true(listed(w) * 2 >= MESSAGES);
	assert_false(waiter_is_done(&all));
	waiter_init(&most);
	assert_true(account_want_most(w->account, inbox, waiter_done, &most, &e, &most.want)); /* at once */
	assert_int_equal(e, MF_OK);
	memory_release(w->server);
	assert_int_equal(waiter_wait(&all), MF_OK);
	assert_int_equal(listed(w), MESSAGES);
}

static void who_is_at_the_end_of_what_there_is_hears_of_more(void **state)
{
	/* so many that the rest is a matter of a moment on a slow machine too; some of what has waited for long is a transaction */
	enum { MESSAGES = 7744, MOST = 7684, MORE = 40 };
	struct world *w = *state;
	struct waiter most, more;
	enum mf_err e;
	for (int i = 21; i <= MESSAGES; i++) /* besides those of setup() */
		deliver(w, "INBOX", i, 200);
	memory_block(w->server, MEMORY_CHANGES);
	world_start(w);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	waiter_init(&most);
	waiter_init(&more);
	uint64_t inbox = mailbox_id(w, "INBOX");
	assert_false(account_want_most(w->account, inbox, waiter_done, &most, &e, &most.want));
	memory_pause(w->server, MOST);
	memory_release(w->server);
	assert_int_equal(waiter_wait(&most), MF_OK);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	assert_false(account_want_more(w->account, inbox, waiter_done, &more, &e, &more.want));
	clock_skew_for_tests(1000);
	memory_pause(w->server, MORE);
	memory_release(w->server);
	assert_int_equal(waiter_wait(&more), MF_OK);
	assert_true(listed(w) < MESSAGES);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS)); /* it may have been a part that had come before */
	memory_release(w->server);
	for (;;) {
		waiter_init(&more);
		if (account_want_more(w->account, inbox, waiter_done, &more, &e, &more.want))
			break;
		assert_int_equal(waiter_wait(&more), MF_OK);
	}
	clock_skew_for_tests(-1000);
	assert_int_equal(e, MF_OK);
	assert_int_equal(listed(w), MESSAGES);
}

static void a_wrong_password_stops_it(void **state)
{
	struct world *w = *state;
	struct mf_reason why;
	memory_login_result(w->server, MF_AUTH);
	world_start(w);
	assert_int_equal(account_wait_listed(w->account, PATIENCE_MS, &why), MF_AUTH);
	struct link_info info = link_of(w);
	assert_int_equal(info.state, LINK_WAITING);
	assert_int_equal(info.error, MF_AUTH);
	assert_int_equal(info.next_try_s, 0);
	clock_skew_for_tests(86400000);
	account_touch(w->account, 1);
	assert_int_equal(memory_calls(w->server, MEMORY_LOGIN), 1);
	clock_skew_for_tests(-86400000);
	memory_login_result(w->server, MF_OK);
	account_connect(w->account);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(memory_calls(w->server, MEMORY_LOGIN) >= 2, 1);
}

static void a_lost_connection_is_made_again_and_wants_wait_for_it(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_drop_sessions(w->server);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 1), 1, 600), MF_OK);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(link_of(w).state, LINK_ONLINE);
}

static void a_lost_connection_that_cannot_be_made_again(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_login_result(w->server, MF_OFFLINE);
	memory_drop_sessions(w->server);
	assert_int_equal(want_sync(w, false), MF_OFFLINE);
	assert_int_equal(link_of(w).state, LINK_OFFLINE);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 1), 1, 600), MF_OFFLINE);
	memory_login_result(w->server, MF_OK);
	account_connect(w->account);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 1), 1, 600), MF_OK);
}

static void a_timeout_says_so(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_block(w->server, MEMORY_FETCH);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	assert_false(account_want_body(w->account, body, 0, 10, waiter_done, &t, &e, &t.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS)); /* asked for before anybody notices: later, it is offline */
	memory_login_result(w->server, MF_TIMEOUT);
	memory_drop_sessions(w->server);
	memory_release(w->server);
	assert_int_equal(waiter_wait(&t), MF_TIMEOUT);
	body_unref(body);
}

static void disconnected_by_command(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_block(w->server, MEMORY_FETCH);
	struct body *body = open_body(w, message_id(w, "INBOX", 2));
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	assert_false(account_want_body(w->account, body, 0, 10, waiter_done, &t, &e, &t.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	account_disconnect(w->account);
	assert_int_equal(waiter_wait(&t), MF_OFFLINE);
	world_until(memory_sessions(w->server) == 0);
	assert_int_equal(link_of(w).state, LINK_WAITING);
	memory_release(w->server);
	account_connect(w->account);
	assert_int_equal(want_bytes(w, body, 0, 10), MF_OK);
	body_unref(body);
}

/* at any instant of connecting */
static void disconnected_while_connecting(void **state)
{
	struct world *w = *state;
	world_start(w);
	for (long i = 0; i < 300; i++) {
		account_connect(w->account);
		nanosleep(&(struct timespec){.tv_nsec = i * 2000}, NULL);
		account_disconnect(w->account);
		world_until(memory_sessions(w->server) == 0);
		assert_int_equal(link_of(w).state, LINK_WAITING);
	}
	account_connect(w->account);
	assert_int_equal(want_sync(w, false), MF_OK);
}

static void connecting_anew_keeps_who_waits(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_block(w->server, MEMORY_FETCH);
	struct body *body = open_body(w, message_id(w, "INBOX", 2));
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	assert_false(account_want_body(w->account, body, 0, 600, waiter_done, &t, &e, &t.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	account_connect(w->account); /* the network changed */
	memory_release(w->server);
	assert_int_equal(waiter_wait(&t), MF_OK);
	check_bytes(body, 2, 600, 0, 600);
	body_unref(body);
}

static void it_stops_while_blocked(void **state)
{
	struct world *w = *state;
	static const enum memory_verb verbs[] = {MEMORY_LOGIN, MEMORY_MAILBOXES, MEMORY_CHANGES, MEMORY_ANY};
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		memory_block(w->server, verbs[i]);
		world_start(w);
		struct waiter t;
		enum mf_err e;
		waiter_init(&t);
		assert_false(account_want_sync(w->account, NULL, 0, true, waiter_done, &t, &e, &t.want));
		assert_true(memory_await_blocked(w->server, PATIENCE_MS));
		world_stop(w);
		assert_true(waiter_is_done(&t)); /* before it returned */
		assert_int_equal(waiter_wait(&t), MF_CANCELLED);
		memory_release(w->server);
	}
}

static void never_started(void **state)
{
	struct world *w = *state;
	struct mf_reason why;
	struct account_options options = {.config = w->config, .cache = w->cache, .bus = w->bus, .make_remote = memory_remote_make, .make_context = w->server};
	assert_int_equal(account_create(&options, &w->account, &why), MF_OK);
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	assert_false(account_want_sync(w->account, NULL, 0, false, waiter_done, &t, &e, &t.want));
	world_stop(w);
	assert_int_equal(waiter_wait(&t), MF_CANCELLED);
}

static void cancelled_wants_are_never_answered(void **state)
{
	struct world *w = *state;
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_block(w->server, MEMORY_MAILBOXES);
	memory_block(w->server, MEMORY_FETCH);
	struct waiter sync, read;
	enum mf_err e;
	waiter_init(&sync);
	waiter_init(&read);
	struct body *body = open_body(w, message_id(w, "INBOX", 2));
	assert_false(account_want_sync(w->account, NULL, 0, true, waiter_done, &sync, &e, &sync.want));
	assert_false(account_want_body(w->account, body, 0, 600, waiter_done, &read, &e, &read.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	assert_true(want_cancel(w->account, sync.want));
	assert_true(want_cancel(w->account, read.want));
	memory_release(w->server);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(want_bytes(w, body, 0, 600), MF_OK);
	assert_false(waiter_is_done(&sync));
	assert_false(waiter_is_done(&read));
	body_unref(body);
}

static atomic_uint links;

static void count_links(void *context, const struct change *change)
{
	(void)context;
	if (change->kind == CHANGE_LINK)
		atomic_fetch_add(&links, 1);
}

static void the_bus_is_told(void **state)
{
	struct world *w = *state;
	struct bus_subscription *s = bus_subscribe(w->bus, count_links, NULL);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	account_disconnect(w->account);
	bus_flush(w->bus);
	assert_true(atomic_load(&links) >= 2);
	bus_unsubscribe(w->bus, s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(offline_answers_at_once), TEST(the_first_attempt_fails), TEST(it_tries_again_by_itself),
		TEST(wants_before_a_failing_attempt_are_answered), TEST(most_of_a_first_list_is_enough_for_who_begins_to_read_it),
		TEST(who_is_at_the_end_of_what_there_is_hears_of_more), TEST(a_wrong_password_stops_it),
		TEST(a_lost_connection_is_made_again_and_wants_wait_for_it), TEST(a_lost_connection_that_cannot_be_made_again),
		TEST(a_timeout_says_so), TEST(disconnected_by_command), TEST(disconnected_while_connecting), TEST(connecting_anew_keeps_who_waits), TEST(it_stops_while_blocked),
		TEST(never_started), TEST(cancelled_wants_are_never_answered), TEST(the_bus_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Bodies: shared downloads, windows, sizes that lie, failures on the way. */
#include "account_world.h"

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	assert_non_null(w);
	world_init(w);
	w->config->idle = false;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_finish(*state);
	free(*state);
	return 0;
}

static void begin(struct world *w)
{
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_forget_calls(w->server);
}

static void a_hundred_readers_one_download(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 50000);
	begin(w);
	memory_block(w->server, MEMORY_FETCH);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	struct waiter t[100];
	enum mf_err e;
	for (int i = 0; i < 100; i++) {
		waiter_init(&t[i]);
		assert_false(account_want_body(w->account, body, (uint64_t)i * 500, 500, waiter_done, &t[i], &e, &t[i].want));
	}
	memory_release(w->server);
	for (int i = 0; i < 100; i++)
		assert_int_equal(waiter_wait(&t[i]), MF_OK);
	check_bytes(body, 1, 50000, 0, 50000);
	assert_int_equal(memory_messages_fetched(w->server), 1);
	assert_true(body_is_whole(body));
	body_unref(body);
}

static void many_small_ones_in_few_commands(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 150; i++)
		deliver(w, "INBOX", i, 2000);
	begin(w);
	memory_block(w->server, MEMORY_FETCH);
	struct body *bodies[150];
	struct waiter t[150];
	enum mf_err e;
	for (int i = 0; i < 150; i++) {
		bodies[i] = open_body(w, message_id(w, "INBOX", (uint32_t)i + 1));
		waiter_init(&t[i]);
		assert_false(account_want_body(w->account, bodies[i], 0, 2000, waiter_done, &t[i], &e, &t[i].want));
	}
	memory_release(w->server);
	for (int i = 0; i < 150; i++) {
		assert_int_equal(waiter_wait(&t[i]), MF_OK);
		check_bytes(bodies[i], i + 1, 2000, 0, 2000);
		body_unref(bodies[i]);
	}
	assert_int_equal(memory_messages_fetched(w->server), 150);
	assert_true(memory_calls(w->server, MEMORY_FETCH) <= 4);
}

static void the_head_of_a_large_message_moves_little(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 5000000);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	assert_int_equal(want_bytes(w, body, 0, 1000), MF_OK);
	check_bytes(body, 1, 5000000, 0, 1000);
	assert_int_equal(want_bytes(w, body, 3000000, 4096), MF_OK);
	check_bytes(body, 1, 5000000, 3000000, 4096);
	assert_int_equal(want_bytes(w, body, 4999000, 1000), MF_OK);
	check_bytes(body, 1, 5000000, 4999000, 1000);
	assert_true(memory_bytes_fetched(w->server) <= 4 * 65536);
	assert_false(body_is_whole(body));
	body_unref(body);
}

static void a_large_message_read_to_its_end_is_whole(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 5000000);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	for (uint64_t at = 0; at < 5000000; at += 131072) {
		uint64_t length = 5000000 - at < 131072 ? 5000000 - at : 131072;
		if (body_has(body, at, length))
			account_passed(w->account, body, at, length);
		assert_int_equal(want_bytes(w, body, at, length), MF_OK);
		check_bytes(body, 1, 5000000, at, length);
	}
	world_until(body_is_whole(body));
	assert_int_equal(body_size(body), 5000000);
	assert_int_equal(memory_bytes_fetched(w->server), 5000000); /* nothing twice */
	assert_true(memory_messages_fetched(w->server) < 12);
	body_unref(body);
}

/* readers are at different places: what one of them needs may be there in part */
static void what_is_there_is_not_asked_for_again(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 5000000);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	assert_int_equal(want_bytes(w, body, 4000000, 100000), MF_OK);
	assert_int_equal(want_bytes(w, body, 2000000, 100000), MF_OK);
	assert_int_equal(want_bytes(w, body, 2050000, 100000), MF_OK);
	assert_int_equal(want_bytes(w, body, 1950000, 100000), MF_OK);
	for (uint64_t at = 0; at < 5000000; at += 100000) {
		assert_int_equal(want_bytes(w, body, at, 100000), MF_OK);
		check_bytes(body, 1, 5000000, at, 100000);
	}
	world_until(body_is_whole(body));
	assert_int_equal(memory_bytes_fetched(w->server), 5000000);
	body_unref(body);
}

static void without_ranges_it_comes_whole(void **state)
{
	struct world *w = *state;
	memory_caps(w->server, ((1U << 12) - 1) - REMOTE_RANGES - REMOTE_PUSH_ALL);
	deliver(w, "INBOX", 1, 3000000);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	assert_int_equal(want_bytes(w, body, 0, 1000), MF_OK);
	world_until(body_is_whole(body));
	check_bytes(body, 1, 3000000, 0, 3000000);
	body_unref(body);
}

static void whole_where_a_part_is_asked_for(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 3000000);
	memory_whole_always(w->server, true);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	assert_int_equal(want_bytes(w, body, 2000000, 1000), MF_OK);
	check_bytes(body, 1, 3000000, 0, 3000000);
	assert_true(body_is_whole(body));
	body_unref(body);
}

static void a_lie(struct world *w, const char *raw, int number, size_t size, uint64_t claim)
{
	uint64_t id = message_id(w, raw, 1);
	struct entry e;
	assert_int_equal(cache_entry(w->cache, id, &e), MF_OK);
	assert_int_equal(e.size, claim);
	struct body *body = open_body(w, id);
	assert_int_equal(want_bytes(w, body, 0, claim > 1 ? claim : 1), MF_OK);
	world_until(body_is_whole(body));
	assert_int_equal(body_size(body), size);
	check_bytes(body, number, size, 0, size);
	world_until(cache_entry(w->cache, id, &e) == MF_OK && e.size == size);
	body_unref(body);
}

static void sizes_that_lie(void **state)
{
	struct world *w = *state;
	static const struct { size_t size; uint64_t claim; } lies[] = {
		{5000, 4000}, {5000, 6000}, {5000, 0}, {400000, 5000}, {5000, 400000}, {600000, 500000}, {600000, 700000}, {600000, 600001},
	};
	char raw[8][8]; /* a mailbox each, so that none is read ahead */
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		snprintf(raw[i], sizeof raw[i], "box%zu", i);
		memory_mailbox_add(w->server, raw[i], 0, USE_NONE);
		memory_claim_size(w->server, raw[i], deliver(w, raw[i], (int)i + 1, lies[i].size), lies[i].claim);
	}
	begin(w);
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
		a_lie(w, raw[i], (int)i + 1, lies[i].size, lies[i].claim);
	char *note = NULL;
	assert_int_equal(cache_get_note(w->cache, "sizes-lie", &note), MF_OK);
	free(note);
}

static void expunged_meanwhile(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 1000);
	deliver(w, "INBOX", 2, 500000);
	begin(w);
	struct body *small = open_body(w, message_id(w, "INBOX", 1)), *large = open_body(w, message_id(w, "INBOX", 2));
	assert_true(memory_expunge(w->server, "INBOX", 1));
	assert_true(memory_expunge(w->server, "INBOX", 2));
	assert_int_equal(want_bytes(w, small, 0, 1000), MF_STALE);
	assert_int_equal(want_bytes(w, large, 0, 1000), MF_STALE);
	world_until(message_count(w, "INBOX") == 0); /* and it leaves the tree */
	body_unref(small);
	body_unref(large);
}

static void numbered_anew_meanwhile(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 5; i++)
		deliver(w, "INBOX", i, i == 3 ? 500000 : 1000);
	begin(w);
	uint64_t id = message_id(w, "INBOX", 2), large = message_id(w, "INBOX", 3);
	memory_renumber(w->server, "INBOX");
	assert_int_equal(read_whole(w, id, 2, 1000), MF_OK);
	assert_int_equal(read_whole(w, large, 3, 500000), MF_OK);
}

/* Asked for by the old numbers, which are others' now: the bodies wait behind the look that finds that out. */
static void numbered_anew_before_it_is_asked_for(void **state)
{
	struct world *w = *state;
	struct body *bodies[8];
	struct waiter sync, t[8];
	enum mf_err e;
	w->config->connections = 1;
	for (int i = 1; i <= 8; i++)
		deliver(w, "INBOX", i, i == 3 ? 500000 : 1000);
	begin(w);
	uint64_t inbox = mailbox_id(w, "INBOX");
	memory_block(w->server, MEMORY_CHANGES);
	waiter_init(&sync);
	assert_false(account_want_sync(w->account, &inbox, 1, false, waiter_done, &sync, &e, &sync.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	for (int i = 0; i < 8; i++) {
		bodies[i] = open_body(w, message_id(w, "INBOX", (uint32_t)i + 1));
		waiter_init(&t[i]);
		assert_false(account_want_body(w->account, bodies[i], 0, 1000, waiter_done, &t[i], &e, &t[i].want));
	}
	memory_renumber(w->server, "INBOX");
	assert_int_not_equal(message_id(w, "INBOX", 3), 0); /* another message has this number from now on */
	memory_release(w->server);
	assert_int_equal(waiter_wait(&sync), MF_OK);
	for (int i = 0; i < 8; i++) {
		assert_int_equal(waiter_wait(&t[i]), MF_OK);
		check_bytes(bodies[i], i + 1, i == 2 ? 500000 : 1000, 0, 1000);
		body_unref(bodies[i]);
	}
}

static void cut_in_the_middle_of_a_download(void **state)
{
	struct world *w = *state;
	for (int i = 1; i <= 30; i++)
		deliver(w, "INBOX", i, 3000);
	deliver(w, "INBOX", 31, 900000);
	begin(w);
	for (int i = 1; i <= 30; i++) {
		memory_cut_fetch(w->server, (uint64_t)i * 97);
		enum mf_err e;
		/* so many cuts in a row look like a server that is not to be had, or like a message that kills connections */
		while ((e = read_whole(w, message_id(w, "INBOX", (uint32_t)i), i, 3000)) == MF_OFFLINE || e == MF_PROTOCOL)
			account_connect(w->account);
		assert_int_equal(e, MF_OK);
	}
	world_until(link_of(w).state == LINK_ONLINE);
	memory_cut_fetch(w->server, 300000);
	enum mf_err e;
	/* it may have been read ahead when others were cut, and be suspected for that */
	while ((e = read_whole(w, message_id(w, "INBOX", 31), 31, 900000)) == MF_OFFLINE || e == MF_PROTOCOL)
		account_connect(w->account);
	assert_int_equal(e, MF_OK);
}

static void a_message_that_kills_every_connection(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 3000);
	deliver(w, "INBOX", 2, 3000);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	memory_cut_fetch(w->server, 100);
	bool answered = account_want_body(w->account, body, 0, 3000, waiter_done, &t, &e, &t.want);
	while (!answered && !waiter_is_done(&t)) {
		if (memory_bytes_fetched(w->server) % 100 == 0)
			memory_cut_fetch(w->server, 100);
		world_nap();
	}
	/* after some connections it is given up, or the race let it through; the other one can be read in any case */
	memory_cut_fetch(w->server, UINT64_MAX);
	body_unref(body);
	account_connect(w->account);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 2), 2, 3000), MF_OK);
}

static void cancelling_leaves_the_others(void **state)
{
	struct world *w = *state;
	deliver(w, "INBOX", 1, 3000000);
	begin(w);
	memory_block(w->server, MEMORY_FETCH);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	struct waiter one, two;
	enum mf_err e;
	waiter_init(&one);
	waiter_init(&two);
	assert_false(account_want_body(w->account, body, 0, 1000, waiter_done, &one, &e, &one.want));
	assert_false(account_want_body(w->account, body, 2000000, 1000, waiter_done, &two, &e, &two.want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	assert_true(want_cancel(w->account, one.want));
	memory_release(w->server);
	assert_int_equal(waiter_wait(&two), MF_OK);
	assert_false(waiter_is_done(&one));
	check_bytes(body, 1, 3000000, 2000000, 1000);
	assert_true(memory_bytes_fetched(w->server) < 200000);
	assert_int_equal(want_bytes(w, body, 0, 1000), MF_OK);
	body_unref(body);
}

static void a_person_is_served_while_bodies_come_in_the_background(void **state)
{
	struct world *w = *state;
	memory_mailbox_add(w->server, "Big", 0, USE_NONE);
	for (int i = 1; i <= 200; i++)
		deliver(w, "Big", i, 20000);
	deliver(w, "INBOX", 1, 1000);
	memory_line(w->server, 1, 400000); /* ten seconds for them all: far from the end, however slow this machine is */
	begin(w);
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	uint64_t big = mailbox_id(w, "Big");
	assert_false(account_want_sync(w->account, &big, 1, true, waiter_done, &t, &e, &t.want));
	world_until(memory_messages_fetched(w->server) > 5);
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 1), 1, 1000), MF_OK);
	assert_true(memory_messages_fetched(w->server) < 200);
	memory_line(w->server, 0, 0);
	assert_int_equal(waiter_wait(&t), MF_OK);
	assert_int_equal(memory_messages_fetched(w->server), 201);
}

static void an_empty_message(void **state)
{
	struct world *w = *state;
	memory_deliver(w->server, "INBOX", "", 0, 1, 0);
	begin(w);
	struct body *body = open_body(w, message_id(w, "INBOX", 1));
	assert_int_equal(want_bytes(w, body, 0, 1), MF_OK);
	assert_int_equal(body_size(body), 0);
	body_unref(body);
}

static void nothing_in_the_place_of_a_message(void **state)
{
	struct world *w = *state;
	memory_deliver(w->server, "INBOX", "", 0, 1, 0);
	memory_deliver(w->server, "INBOX", "", 0, 1, 0);
	deliver(w, "INBOX", 3, 1000);
	memory_claim_size(w->server, "INBOX", 1, 1000);
	memory_claim_size(w->server, "INBOX", 2, 1000000);
	begin(w);
	for (uint32_t uid = 1; uid <= 2; uid++) {
		uint64_t id = message_id(w, "INBOX", uid);
		struct body *body = open_body(w, id);
		assert_int_equal(want_bytes(w, body, 0, 1), MF_PROTOCOL);
		assert_false(body_is_whole(body));
		assert_false(cache_body_is_cached(w->cache, id));
		assert_int_equal(body_size(body), uid == 1 ? 1000 : 1000000);
		body_unref(body);
	}
	assert_int_equal(read_whole(w, message_id(w, "INBOX", 3), 3, 1000), MF_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_hundred_readers_one_download), TEST(many_small_ones_in_few_commands), TEST(the_head_of_a_large_message_moves_little),
		TEST(a_large_message_read_to_its_end_is_whole), TEST(what_is_there_is_not_asked_for_again), TEST(without_ranges_it_comes_whole), TEST(whole_where_a_part_is_asked_for), TEST(sizes_that_lie), TEST(expunged_meanwhile),
		TEST(numbered_anew_meanwhile), TEST(numbered_anew_before_it_is_asked_for), TEST(cut_in_the_middle_of_a_download), TEST(a_message_that_kills_every_connection),
		TEST(cancelling_leaves_the_others), TEST(a_person_is_served_while_bodies_come_in_the_background), TEST(an_empty_message), TEST(nothing_in_the_place_of_a_message),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

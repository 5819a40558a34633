/* Bodies of messages that are overwritten here while they are fetched: never bytes, nor the size, of another version. */
#include "unit/replay_world.h"

enum { BEGINS, BEGUN };   /* the answers before which the server is stopped: the body's first one; its bytes */

/* INBOX is populated, and the server stops within the first body. */
static void stop_in_body(struct world *w, unsigned answers, struct waiter *t)
{
	enum mf_err e;
	uint64_t inbox = box(w, "INBOX");
	memory_block(w->server, MEMORY_FETCH);
	waiter_init(t);
	assert_false(account_want_sync(w->account, &inbox, 1, true, waiter_done, t, &e, &t->want));
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	unsigned before = memory_answers(w->server);
	memory_pause(w->server, answers);
	memory_release(w->server);
	world_until(memory_answers(w->server) == before + answers + 1);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
}

static void go_on(struct world *w)
{
	memory_pause(w->server, UINT32_MAX);
	memory_release(w->server);
	world_until(is_quiet(w));
}

static void remove_spooled(struct world *w, uint64_t message)
{
	char path[200];
	snprintf(path, sizeof path, "%s/spool/%llu", w->state, (unsigned long long)message);
	assert_int_equal(unlink(path), 0);
}

static void build_lying(struct world *w)
{
	world_init(w);
	w->config->idle = false;
	w->config->connections = 1;
	fill_server(w->server, FULL);
	memory_claim_size(w->server, "INBOX", 1, 650);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
}

/* spooled: the new bytes are here still */
static void overwritten(unsigned answers, bool spooled)
{
	struct world w;
	struct waiter t;
	struct entry e;
	build_lying(&w);
	uint64_t id = message_id(&w, "INBOX", 1);
	struct disposal how = to_trash(&w);
	stop_in_body(&w, answers, &t);
	write_number(&w, id, 51, &how);
	if (!spooled)
		remove_spooled(&w, id);
	go_on(&w);
	assert_int_equal(cache_entry(w.cache, id, &e), MF_OK);
	assert_int_equal(e.size, 600);
	assert_int_equal(cache_body_is_cached(w.cache, id), spooled);
	if (spooled)
		assert_int_equal(read_whole(&w, id, 51, 600), MF_OK);
	world_finish(&w);
}

static void keeps_its_bytes_and_size(void **state)
{
	(void)state;
	overwritten(BEGINS, true);
	overwritten(BEGUN, true);
	overwritten(BEGINS, false);
	overwritten(BEGUN, false);
}

/* One who reads the version before has what he has read, and gets none of the new one's bytes. */
static void partly_read(void **state)
{
	(void)state;
	struct world w;
	world_init(&w);
	w.config->idle = false;
	fill_server(w.server, FULL);
	uint32_t uid = deliver(&w, "INBOX", 7, 2000000);
	world_start(&w);
	assert_int_equal(want_sync(&w, false), MF_OK);
	uint64_t id = message_id(&w, "INBOX", uid);
	struct body *body = open_body(&w, id);
	struct disposal how = to_trash(&w);
	assert_int_equal(want_bytes(&w, body, 0, 1000), MF_OK);
	write_number(&w, id, 51, &how);
	assert_int_equal(want_bytes(&w, body, 500000, 1000), MF_STALE);
	account_journal_changed(w.account);
	assert_settled_as(&w, NULL, "overwritten while it is read");
	assert_int_equal(want_bytes(&w, body, 1000000, 1000), MF_STALE);
	assert_false(body_is_whole(body));
	check_bytes(body, 7, 2000000, 0, 1000);
	assert_int_equal(read_whole(&w, id, 51, 600), MF_OK);
	go_offline(&w);
	assert_int_equal(want_bytes(&w, body, 1000000, 1000), MF_STALE); /* and not what another time may be better for */
	body_unref(body);
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(keeps_its_bytes_and_size), cmocka_unit_test(partly_read) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

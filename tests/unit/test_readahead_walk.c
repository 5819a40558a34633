/* A reader that goes through a mailbox of uncached messages, one after the other, as `cat *` does: what it makes the engine
 * do. With MAILFS_MEASURE set also how fast that is against one pipelined fetch of the same bytes over the same line. */
#include <sys/resource.h>

#include "account_world.h"

static int messages = 600;
static uint64_t cache_size;             /* 0: no limit */

static size_t size_of(int number)
{
	return number % 100 == 0 ? 1000000 : (size_t)(2000 + number * 7919 % 14000);
}

static void begin(struct world *w)
{
	world_init(w);
	w->config->idle = false;
	w->config->cache_size = cache_size;
	for (int i = 1; i <= messages; i++)
		deliver(w, "INBOX", i, size_of(i));
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_forget_calls(w->server);
}

struct order {
	uint64_t *ids;
	size_t count;
};

static bool collect_id(void *context, const struct entry *e, const char *name)
{
	struct order *o = context;
	(void)name;
	o->ids[o->count++] = e->id;
	return true;
}

static struct order in_order(struct world *w, enum listing_order by)
{
	struct order o = {.ids = mf_alloc_array((size_t)messages, sizeof(uint64_t))};
	uint64_t inbox = mailbox_id(w, "INBOX");
	assert_int_equal(cache_list(w->cache, inbox, 0, collect_id, &o), MF_OK);
	assert_int_equal(o.count, messages);
	if (by == ORDER_ID)
		return o;
	/* the first by name is the one that no other has as a successor */
	struct entry *next = mf_alloc_array((size_t)messages, sizeof *next);
	size_t count, best = 0;
	uint64_t first = 0;
	for (size_t i = 0; i < o.count; i++) {
		assert_int_equal(cache_successors(w->cache, o.ids[i], ORDER_NAME, (size_t)messages, next, &count), MF_OK);
		if (count >= best) {
			best = count;
			first = o.ids[i];
		}
	}
	assert_int_equal(cache_successors(w->cache, first, ORDER_NAME, (size_t)messages, next, &count), MF_OK);
	assert_int_equal(count, messages - 1);
	o.ids[0] = first;
	for (size_t i = 0; i < count; i++)
		o.ids[i + 1] = next[i].id;
	free(next);
	return o;
}

/* Reads all, in pieces as a kernel would; says how many reads were not under way yet when they were asked for. */
static void walk(struct world *w, const struct order *o, bool tell_hits)
{
	for (size_t i = 0; i < o->count; i++) {
		struct body *body = open_body(w, o->ids[i]);
		uint64_t size = body_size(body);
		for (uint64_t at = 0; at < size; at += 131072) {
			uint64_t length = size - at < 131072 ? size - at : 131072;
			if (!body_has(body, at, length))
				assert_int_equal(want_bytes(w, body, at, length), MF_OK);
			else if (tell_hits)
				account_passed(w->account, body, at, length);
		}
		body_unref(body);
	}
}

static void check_walk(enum listing_order by, bool tell_hits)
{
	struct world w;
	begin(&w);
	struct order o = in_order(&w, by);
	walk(&w, &o, tell_hits);
	for (size_t i = 0; i < o.count; i++)
		world_until(cache_body_is_cached(w.cache, o.ids[i]));
	/* each byte once */
	uint64_t bytes = 0;
	for (int i = 1; i <= messages; i++)
		bytes += size_of(i);
	assert_int_equal(memory_bytes_fetched(w.server), bytes);
	free(o.ids);
	world_finish(&w);
}

static void in_the_order_of_the_directory(void **state)
{
	(void)state;
	check_walk(ORDER_ID, true);
}

static void in_the_order_of_names(void **state)
{
	(void)state;
	check_walk(ORDER_NAME, true);
}

static void with_hits_untold(void **state)
{
	(void)state;
	check_walk(ORDER_ID, false);
}

/* on a line with a round trip a reader is far from one round trip for each message */
static void round_trips_are_shared(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	struct order o = in_order(&w, ORDER_ID);
	memory_line(w.server, 20, 0);
	struct account_counters before, after;
	account_counters(w.account, &before);
	walk(&w, &o, true);
	account_counters(w.account, &after);
	/* a stall is a remote_fetch that had to begin anew */
	assert_true(memory_calls(w.server, MEMORY_FETCH) < 40);
	assert_int_equal(after.fetched_messages - before.fetched_messages >= (uint64_t)messages, 1);
	free(o.ids);
	world_finish(&w);
}

/* room is made while a walk goes on, however long its one fetch takes */
static void the_cache_keeps_its_limit(void **state)
{
	(void)state;
	struct world w;
	struct cache_totals totals;
	uint64_t most = 0;
	int usual = messages;
	messages = 6000;
	cache_size = 8 << 20;
	begin(&w);
	struct order o = in_order(&w, ORDER_ID);
	cache_body_limits(w.cache, cache_size, 0);
	memory_line(w.server, 20, 100000000);
	for (size_t i = 0; i < o.count; i++) {
		walk(&w, &(struct order){&o.ids[i], 1}, true);
		cache_totals(w.cache, &totals);
		if (totals.body_bytes > most)
			most = totals.body_bytes;
	}
	assert_true(most < 5 * cache_size);
	free(o.ids);
	world_finish(&w);
	messages = usual;
	cache_size = 0;
}

/* --- measuring -------------------------------------------------------------------------------------------------------------- */

struct floor_source {
	uint32_t *uids;
	size_t next, count;
	uint32_t uidvalidity;
	uint64_t bytes;
};

static bool floor_next(void *context, struct fetch_batch *ret)
{
	struct floor_source *f = context;
	if (f->next == f->count)
		return false;
	size_t n = f->count - f->next < 200 ? f->count - f->next : 200;
	*ret = (struct fetch_batch){.raw = "INBOX", .uidvalidity = f->uidvalidity, .uids = f->uids + f->next, .count = n};
	f->next += n;
	return true;
}

static enum mf_err floor_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	(void)context, (void)uid, (void)offset, (void)length;
	return MF_OK;
}

static enum mf_err floor_data(void *context, const void *data, size_t len)
{
	(void)data;
	((struct floor_source *)context)->bytes += len;
	return MF_OK;
}

static enum mf_err floor_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	(void)context, (void)uid, (void)whole;
	return result;
}

static int64_t measure_floor(struct world *w)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_raw(w->cache, "INBOX", &m), MF_OK);
	struct floor_source f = {.uids = mf_alloc_array((size_t)messages, sizeof(uint32_t)), .count = (size_t)messages, .uidvalidity = m.uidvalidity};
	mailbox_finish(&m);
	for (size_t i = 0; i < f.count; i++)
		f.uids[i] = (uint32_t)i + 1;
	struct cancel cancel;
	assert_true(cancel_init(&cancel));
	struct remote *r = memory_remote_create(w->server, &cancel);
	struct mf_reason why;
	assert_int_equal(remote_login(r, &why), MF_OK);
	int64_t begun = clock_mono_ms();
	assert_int_equal(remote_fetch(r, &(struct fetch_source){floor_next, &f, NULL}, &(struct fetch_sink){floor_begin, floor_data, floor_end, &f}), MF_OK);
	int64_t took = clock_mono_ms() - begun;
	remote_destroy(r);
	cancel_finish(&cancel);
	free(f.uids);
	return took;
}

static int64_t cpu_ms(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec * 1000 + u.ru_utime.tv_usec / 1000 + u.ru_stime.tv_sec * 1000 + u.ru_stime.tv_usec / 1000;
}

static void measure(void **state)
{
	(void)state;
	if (!getenv("MAILFS_MEASURE"))
		skip();
	messages = atoi(getenv("MAILFS_MEASURE"));
	for (int k = 0; k < 4; k++) {
		struct world w;
		begin(&w);
		struct order o = in_order(&w, k & 1 ? ORDER_NAME : ORDER_ID);
		memory_line(w.server, 50, 40000000);
		account_connect(w.account);
		assert_int_equal(want_sync(&w, false), MF_OK);
		int64_t begun = clock_mono_ms(), cpu = cpu_ms();
		walk(&w, &o, k < 2);
		cpu = cpu_ms() - cpu;
		int64_t took = clock_mono_ms() - begun, least = measure_floor(&w);
		print_message("%d messages, order %d, hits %s: %jd ms (%jd of CPU), floor %jd ms: %.1f %% of its speed, %u fetches\n", messages, k & 1,
		              k < 2 ? "told" : "untold", (intmax_t)took, (intmax_t)cpu, (intmax_t)least, 100.0 * (double)least / (double)took,
		              memory_calls(w.server, MEMORY_FETCH));
		free(o.ids);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_the_order_of_the_directory), cmocka_unit_test(in_the_order_of_names), cmocka_unit_test(with_hits_untold),
		cmocka_unit_test(round_trips_are_shared), cmocka_unit_test(the_cache_keeps_its_limit), cmocka_unit_test(measure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Walks through a mailbox, recognised on their own: the directory is a row of ids, the order of names a permutation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sync/readahead.h"

#define MESSAGES 3000
#define SIZE 9000

struct world {
	struct readahead *r;
	uint64_t by_name[MESSAGES];             /* position -> id (1 .. MESSAGES) */
	size_t position[MESSAGES + 1];
	bool fetched[MESSAGES + 1];             /* asked for or read */
	size_t missed, ahead;
	int64_t now;
	uint64_t size;
	bool report_hits;
};

static void world_init(struct world *w, unsigned seed)
{
	*w = (struct world){.r = readahead_create(), .size = SIZE, .report_hits = true};
	for (size_t i = 0; i < MESSAGES; i++)
		w->by_name[i] = i + 1;
	srandom(seed);
	for (size_t i = MESSAGES - 1; seed && i > 0; i--) {
		size_t k = (size_t)random() % (i + 1);
		uint64_t id = w->by_name[i];
		w->by_name[i] = w->by_name[k];
		w->by_name[k] = id;
	}
	for (size_t i = 0; i < MESSAGES; i++)
		w->position[w->by_name[i]] = i;
}

static size_t successors(const struct world *w, uint64_t from, enum listing_order order, size_t max, struct entry *ret)
{
	size_t n = 0;
	size_t at = order == ORDER_ID ? (size_t)from : w->position[from] + 1;
	for (; n < max && at < MESSAGES; at++)
		ret[n++] = (struct entry){.id = order == ORDER_ID ? at + 1 : w->by_name[at], .mailbox = 1, .uid = 1, .size = w->size};
	return n;
}

static void follow(const struct world *w, uint64_t from, uint64_t message, enum listing_order order, int earlier, struct readahead_follows *ret)
{
	struct entry entries[READAHEAD_PROBE_NAME];
	size_t n = successors(w, from, order, order == ORDER_ID ? READAHEAD_PROBE_ID : READAHEAD_PROBE_NAME, entries);
	for (size_t i = 0; i < n; i++) {
		if (entries[i].id == message)
			*ret = (struct readahead_follows){.earlier = earlier, .between = i};
	}
}

static void look_ahead(struct world *w, struct readahead_step *step)
{
	if (step->kind == READAHEAD_PROBE) {
		struct readahead_follows follows[2] = {{.earlier = -1}, {.earlier = -1}};
		for (size_t i = 0; i < step->count && follows[0].earlier < 0 && follows[1].earlier < 0; i++) {
			follow(w, step->earlier[i], step->message, ORDER_ID, (int)i, &follows[ORDER_ID]);
			follow(w, step->earlier[i], step->message, ORDER_NAME, (int)i, &follows[ORDER_NAME]);
		}
		readahead_probed(w->r, step, follows);
	}
	if (step->kind != READAHEAD_PLAN)
		return;
	struct entry *entries = calloc(step->max, sizeof *entries);
	bool *cached = calloc(step->max, sizeof *cached);
	assert_non_null(entries);
	assert_non_null(cached);
	size_t n = successors(w, step->from, step->order, step->max, entries);
	for (size_t i = 0; i < n; i++)
		cached[i] = w->fetched[entries[i].id];
	size_t taken = readahead_planned(w->r, step, entries, cached, n);
	for (size_t i = 0; i < taken; i++) {
		w->ahead += !w->fetched[entries[i].id];
		w->fetched[entries[i].id] = true;
	}
	free(entries);
	free(cached);
}

static void read_message(struct world *w, uint64_t id)
{
	bool missing = !w->fetched[id];
	w->missed += missing;
	w->fetched[id] = true;
	w->now += 5;
	if (!missing && !w->report_hits)
		return;
	struct readahead_step step;
	readahead_note(w->r, missing ? 1 : 0, id, missing, w->now, &step);
	look_ahead(w, &step);
}

static void walk_in_order_of_ids(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 1);
	for (uint64_t id = 1; id <= MESSAGES; id++)
		read_message(&w, id);
	assert_true(w.missed <= 2);
	readahead_destroy(w.r);
}

static void walk_in_order_of_names(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 2);
	for (size_t i = 0; i < MESSAGES; i++)
		read_message(&w, w.by_name[i]);
	assert_true(w.missed <= 3);
	readahead_destroy(w.r);
}

/* a locale sorts the names of one day differently: shuffled within groups of 16 */
static void walk_in_the_order_of_a_locale(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 3);
	for (size_t group = 0; group + 16 <= MESSAGES; group += 16) {
		for (size_t i = 0; i < 16; i++)
			read_message(&w, w.by_name[group + i * 7 % 16]);
	}
	assert_true(w.missed <= 20);
	readahead_destroy(w.r);
}

static void isolated_reads_start_nothing(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	for (size_t i = 0; i < 60; i++)
		read_message(&w, 1 + i * 1471 % MESSAGES);
	assert_int_equal(w.ahead, 0);
	readahead_destroy(w.r);
	/* neighbours by chance cost little */
	world_init(&w, 4);
	for (size_t i = 0; i < 100; i++)
		read_message(&w, 1 + (uint64_t)random() % MESSAGES);
	assert_true(w.ahead <= 100);
	readahead_destroy(w.r);
}

static void a_hundred_readers_of_one_message_are_no_walk(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 5);
	for (int i = 0; i < 100; i++) {
		struct readahead_step step;
		readahead_note(w.r, 1, 7, true, 1, &step);
		assert_int_equal(step.kind, READAHEAD_NONE);
	}
	readahead_destroy(w.r);
}

static void bytes_are_bounded(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	w.size = 1 << 20;
	size_t furthest = 0;
	for (uint64_t id = 1; id <= 500; id++) {
		read_message(&w, id);
		assert_true(w.missed <= 2);
		if (readahead_lead(w.r) > furthest)
			furthest = readahead_lead(w.r);
	}
	assert_true(furthest >= 8 && furthest <= (READAHEAD_USUAL_BYTES >> 20) + 1);
	readahead_destroy(w.r);
}

static void no_more_is_planned_than_the_cache_can_hold(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	readahead_limit(w.r, 400 * SIZE);
	for (uint64_t id = 1; id <= 1000; id++) {
		read_message(&w, id);
		assert_true(readahead_lead(w.r) <= 101);
	}
	assert_true(w.missed <= 2);
	readahead_destroy(w.r);
}

static void the_window_is_bounded(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	w.size = 1;
	size_t furthest = 0;
	for (uint64_t id = 1; id <= MESSAGES; id++) {
		read_message(&w, id);
		if (readahead_lead(w.r) > furthest)
			furthest = readahead_lead(w.r);
	}
	assert_true(furthest > READAHEAD_USUAL / 2 && furthest <= READAHEAD_USUAL);
	readahead_destroy(w.r);
}

/* How far ahead of a reader who has to wait for each message, though it has been asked for */
static size_t lead_of_one_who_waits(uint64_t size, int64_t wait_ms)
{
	struct world w;
	world_init(&w, 0);
	w.size = size;
	size_t furthest = 0;
	for (uint64_t id = 1; id <= MESSAGES; id++) {
		struct readahead_step step;
		w.now += wait_ms;
		w.fetched[id] = true;
		readahead_note(w.r, 1, id, true, w.now, &step);
		look_ahead(&w, &step);
		if (readahead_lead(w.r) > furthest)
			furthest = readahead_lead(w.r);
	}
	readahead_destroy(w.r);
	return furthest;
}

static void one_who_waits_has_more_ahead(void **state)
{
	(void)state;
	size_t furthest = lead_of_one_who_waits(SIZE, 1);
	assert_true(furthest > READAHEAD_MAX / 2 && furthest <= READAHEAD_MAX);
	furthest = lead_of_one_who_waits(1 << 16, 1);
	assert_true(furthest > (READAHEAD_BYTES >> 17) && furthest <= (READAHEAD_BYTES >> 16) + 1);
	/* not on a slow line, of which nothing is gained by asking for more */
	furthest = lead_of_one_who_waits(SIZE, 50);
	assert_true(furthest > READAHEAD_USUAL / 2 && furthest <= READAHEAD_USUAL);
}

/* reads that were answered from the disk are not told: the walk goes on at the next miss */
static void only_misses_are_seen(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	w.report_hits = false;
	for (uint64_t id = 1; id <= MESSAGES; id++)
		read_message(&w, id);
	assert_true(w.missed <= 20);
	readahead_destroy(w.r);
}

/* one who takes every twentieth is not read ahead for for ever */
static void selective_readers_waste_little(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	for (uint64_t id = 1; id <= MESSAGES; id += 20)
		read_message(&w, id);
	assert_true(w.ahead < MESSAGES / 2);
	readahead_destroy(w.r);
}

static void four_walks_at_once(void **state)
{
	(void)state;
	struct world w;
	world_init(&w, 0);
	for (uint64_t i = 1; i <= MESSAGES / 4; i++) {
		for (uint64_t k = 0; k < 4; k++)
			read_message(&w, k * (MESSAGES / 4) + i);
	}
	assert_true(w.missed <= 12);
	readahead_destroy(w.r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walk_in_order_of_ids), cmocka_unit_test(walk_in_order_of_names), cmocka_unit_test(walk_in_the_order_of_a_locale),
		cmocka_unit_test(isolated_reads_start_nothing), cmocka_unit_test(a_hundred_readers_of_one_message_are_no_walk),
		cmocka_unit_test(bytes_are_bounded), cmocka_unit_test(the_window_is_bounded), cmocka_unit_test(one_who_waits_has_more_ahead),
		cmocka_unit_test(no_more_is_planned_than_the_cache_can_hold), cmocka_unit_test(only_misses_are_seen),
		cmocka_unit_test(selective_readers_waste_little), cmocka_unit_test(four_walks_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

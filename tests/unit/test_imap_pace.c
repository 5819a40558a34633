/* How much to have under way, on lines that are played: what was asked for comes a round trip later, as fast as the line is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync/imap/pace.h"

#define MB UINT64_C(1000000)
#define LEAST (8 * MB)          /* is asked for in any case */

/* Bytes under way after some seconds, most of them in the middle */
static uint64_t steady(int64_t round_trip_ms, uint64_t rate)
{
	struct pace p;
	uint64_t asked[20000] = { 0 }, under_way = 0, waiting = 0, most = 0;
	pace_begin(&p, 0);
	for (int64_t ms = 0; ms < 10000; ms++) {
		waiting += asked[ms];
		uint64_t came = waiting < rate / 1000 ? waiting : rate / 1000;
		waiting -= came;
		under_way -= came;
		pace_came(&p, came);
		if (came)
			pace_look(&p, ms);
		uint64_t wanted = pace_ahead(&p) > LEAST ? pace_ahead(&p) : LEAST;
		if (wanted > under_way) {
			asked[ms + round_trip_ms] += wanted - under_way;
			under_way = wanted;
		}
		if (ms > 5000 && under_way > most)
			most = under_way;
	}
	return most;
}

static void nothing_is_known_at_first(void **state)
{
	(void)state;
	struct pace p;
	pace_begin(&p, 5);
	assert_int_equal(pace_ahead(&p), 0);
	pace_came(&p, MB);
	pace_look(&p, 5 + PACE_LEAST_MS - 1);
	assert_int_equal(pace_ahead(&p), 0);
	pace_look(&p, 5 + PACE_LEAST_MS);
	assert_int_equal(pace_ahead(&p), MB / PACE_LEAST_MS * PACE_AHEAD_MS);
}

static void a_quick_line_is_kept_full(void **state)
{
	(void)state;
	assert_true(steady(50, 300 * MB) >= 300 * MB / 1000 * 50);
	assert_true(steady(150, 300 * MB) >= 300 * MB / 1000 * 150);
}

static void no_more_than_comes_soon(void **state)
{
	(void)state;
	assert_true(steady(5, 300 * MB) <= 300 * MB / 1000 * PACE_AHEAD_MS);
	assert_int_equal(steady(50, 2 * MB), LEAST);
	assert_int_equal(steady(400, 2 * MB), LEAST);
}

static void a_line_that_gets_slow_is_noticed(void **state)
{
	(void)state;
	struct pace p;
	pace_begin(&p, 0);
	pace_came(&p, 10 * MB);
	pace_look(&p, 100);
	assert_int_equal(pace_ahead(&p), 25 * MB);
	pace_came(&p, MB);
	pace_look(&p, 1100);
	assert_int_equal(pace_ahead(&p), MB / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_known_at_first), cmocka_unit_test(a_quick_line_is_kept_full),
		cmocka_unit_test(no_more_than_comes_soon), cmocka_unit_test(a_line_that_gets_slow_is_noticed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

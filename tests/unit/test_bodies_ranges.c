/* Which windows of a large message are asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync/ranges.h"

#define MB (UINT64_C(1) << 20)
#define KB (UINT64_C(1) << 10)

static uint64_t send_all(struct ranges *r)
{
	struct window w;
	uint64_t bytes = 0;
	while (ranges_next(r, &w)) {
		assert_true(w.length > 0 && w.length <= RANGES_WINDOW_MAX);
		assert_true(w.offset + w.length <= r->size);
		bytes += w.length;
	}
	return bytes;
}

static void finish_all(struct ranges *r)
{
	while (r->count) {
		assert_true(r->windows[0].sent);
		ranges_done(r, r->windows[0].offset);
	}
}

static void head_moves_little(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 100 * MB);
	assert_true(ranges_want(&r, NULL, 0, 1000, true));
	assert_int_equal(send_all(&r), 32 * KB);
	finish_all(&r);
	assert_true(ranges_want(&r, NULL, 50 * MB + 5, 4096, true));
	assert_int_equal(send_all(&r), 32 * KB);
}

static void sequential_reader_gets_larger_windows(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 100 * MB);
	uint64_t covered = 0, largest = 0;
	unsigned asked = 0;
	for (uint64_t at = 0; at < 100 * MB; at += 128 * KB) {
		assert_true(ranges_want(&r, NULL, at, 128 * KB, covered < at + 128 * KB));
		struct window w;
		while (ranges_next(&r, &w)) {
			assert_int_equal(w.offset, covered); /* no gap, nothing twice */
			covered += w.length;
			asked++;
			if (w.length > largest)
				largest = w.length;
			ranges_done(&r, w.offset);
		}
		assert_true(covered >= at + 128 * KB);
	}
	assert_int_equal(covered, 100 * MB);
	assert_int_equal(largest, 4 * MB);
	assert_true(asked < 40);
}

static void one_window_is_always_ahead(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 100 * MB);
	ranges_want(&r, NULL, 0, 128 * KB, true);
	send_all(&r);
	finish_all(&r);
	assert_true(ranges_want(&r, NULL, 128 * KB, 128 * KB, true));
	assert_true(send_all(&r) >= 128 * KB + 512 * KB); /* what is read now, and the next */
}

/* the windows come out of order: who waits for an earlier one does not begin the later ones again */
static void windows_out_of_order(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 1000000);
	for (uint64_t at = 0; at < 7 * 128 * KB; at += 128 * KB)
		assert_true(ranges_want(&r, NULL, at, 128 * KB, true));
	assert_int_equal(send_all(&r), 1000000);
	ranges_done(&r, r.windows[r.count - 1].offset);
	size_t left = r.count;
	for (uint64_t at = 0; at < 6 * 128 * KB; at += 128 * KB)
		assert_true(ranges_want(&r, NULL, at, 128 * KB, true));
	assert_int_equal(r.count, left);
	assert_false(ranges_pending(&r));
}

static void many_readers_at_random(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 100 * MB);
	bool room = true;
	for (uint64_t i = 0; i < 2 * RANGES_MAX; i++)
		room &= ranges_want(&r, NULL, (i * 37 % 64) * MB, 4096, true);
	assert_false(room); /* says so: asked again when a window is done */
	assert_int_equal(r.count, RANGES_MAX);
	send_all(&r);
	finish_all(&r);
	/* what is under way is not asked for twice */
	assert_true(ranges_want(&r, NULL, 90 * MB, 100, true));
	assert_true(ranges_want(&r, NULL, 90 * MB + 200, 100, true));
	assert_int_equal(r.count, 1);
}

static void ends_and_nonsense(void **state)
{
	(void)state;
	struct ranges r;
	ranges_init(&r, 40 * KB);
	assert_true(ranges_want(&r, NULL, 39 * KB, UINT64_MAX, true));
	struct window w;
	assert_true(ranges_next(&r, &w));
	assert_int_equal(w.offset, 32 * KB);
	assert_int_equal(w.length, 8 * KB);
	assert_true(ranges_want(&r, NULL, 40 * KB, 1, true));
	assert_true(ranges_want(&r, NULL, UINT64_MAX, 1, true));
	assert_true(ranges_want(&r, NULL, 0, 0, true));
	assert_false(ranges_pending(&r));
	ranges_unsend(&r);
	assert_true(ranges_pending(&r));
	ranges_drop_unsent(&r);
	assert_int_equal(r.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(head_moves_little), cmocka_unit_test(sequential_reader_gets_larger_windows),
		cmocka_unit_test(one_window_is_always_ahead), cmocka_unit_test(windows_out_of_order), cmocka_unit_test(many_readers_at_random), cmocka_unit_test(ends_and_nonsense),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

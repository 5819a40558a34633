/* Parked requests: answered exactly once, whoever comes first. No mount: the answers only count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/park.h"

/* An account of one want at a time: kept until finish() or a cancel. */
struct scene {
	pthread_mutex_t lock;
	want_done *done;         /* NULL: no want, or taken by finish() or cancel() */
	void *done_context;
	bool immediate;          /* start() has the answer already */
	enum mf_err immediate_result;
	bool late;               /* a cancel always comes too late: done() is still called */
	bool interrupt_inside;   /* the reader is interrupted while start() runs */
	atomic_int answers, cancels;
	_Atomic uint64_t progress;
	_Atomic enum mf_err result;
	struct parking *lot;
};

static bool finish(struct scene *s, enum mf_err result)
{
	pthread_mutex_lock(&s->lock);
	want_done *done = s->done;
	s->done = NULL;
	pthread_mutex_unlock(&s->lock);
	if (done)
		done(s->done_context, result);
	return done != NULL;
}

static void *finish_ok(void *s)
{
	finish(s, MF_OK);
	return NULL;
}

static bool start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct scene *s = context;
	if (s->interrupt_inside)
		park_interrupted(NULL, done_context);
	if (s->immediate) {
		*ret_result = s->immediate_result;
		*ret = NULL;
		return true;
	}
	*ret = (struct want *)s;
	pthread_mutex_lock(&s->lock);
	s->done_context = done_context;
	s->done = done;
	pthread_mutex_unlock(&s->lock);
	return false;
}

static bool cancel(void *context, struct want *want)
{
	struct scene *s = context;
	assert_ptr_equal(want, s);
	pthread_mutex_lock(&s->lock);
	bool taken = s->done != NULL && !s->late;
	if (taken)
		s->done = NULL;
	pthread_mutex_unlock(&s->lock);
	atomic_fetch_add(&s->cancels, 1);
	return taken;
}

static uint64_t progress(void *context)
{
	struct scene *s = context;
	return atomic_load(&s->progress);
}

static void answer(void *context, fuse_req_t req, enum mf_err result)
{
	(void)req;
	struct scene *s = context;
	atomic_store(&s->result, result);
	atomic_fetch_add(&s->answers, 1);
}

static const struct park_call call = { .start = start, .cancel = cancel, .progress = progress, .answer = answer };
enum { LONG_MS = 3600 * 1000 };

static void scene_init(struct scene *s)
{
	*s = (struct scene){ .immediate = false };
	pthread_mutex_init(&s->lock, NULL);
	s->lot = parking_create();
}

static void scene_finish(struct scene *s)
{
	parking_destroy(s->lot);
	pthread_mutex_destroy(&s->lock);
}

static void wait_for_answer(struct scene *s)
{
	while (atomic_load(&s->answers) == 0)
		sched_yield();
}

static void test_answer_is_here(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	s.immediate = true;
	s.immediate_result = MF_OFFLINE;
	park(s.lot, NULL, 0, LONG_MS, &call, &s);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.result, MF_OFFLINE);
	assert_int_equal(s.cancels, 0);
	scene_finish(&s);
	assert_int_equal(s.answers, 1);
}

static uint64_t inside(void *context)
{
	(void)context;
	return 79;
}

static void test_two_are_locked(void **state)
{
	(void)state;
	struct scene s;
	struct park_call removal = call;
	removal.also_locked = inside;
	scene_init(&s);
	park(s.lot, NULL, 77, LONG_MS, &removal, &s);
	assert_true(parking_holds(s.lot, 77));
	assert_true(parking_holds(s.lot, 79));
	assert_false(parking_holds(s.lot, 78));
	finish(&s, MF_OK);
	assert_false(parking_holds(s.lot, 79));
	scene_finish(&s);
}

static void test_done_answers(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	park(s.lot, NULL, 77, LONG_MS, &call, &s);
	assert_int_equal(s.answers, 0);
	assert_true(parking_holds(s.lot, 77));
	assert_false(parking_holds(s.lot, 78));
	finish(&s, MF_OK);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.result, MF_OK);
	assert_false(parking_holds(s.lot, 77));
	scene_finish(&s);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.cancels, 0);
}

/* The account ends: not an interrupt of the reader, so never EINTR. */
static void test_cancelled_by_the_account_is_offline(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	park(s.lot, NULL, 0, LONG_MS, &call, &s);
	finish(&s, MF_CANCELLED);
	assert_int_equal(s.result, MF_OFFLINE);
	scene_finish(&s);
}

static void test_interrupt_answers(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	park(s.lot, NULL, 0, LONG_MS, &call, &s);
	struct park *p = parking_last(s.lot);
	assert_non_null(p);
	park_interrupted(NULL, p);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.result, MF_CANCELLED);
	assert_int_equal(s.cancels, 1);
	assert_false(finish(&s, MF_OK)); /* cancelled: never called */
	scene_finish(&s);
	assert_int_equal(s.answers, 1);
}

static void test_interrupt_while_starting(void **state)
{
	(void)state;
	for (int immediate = 0; immediate < 2; immediate++) {
		struct scene s;
		scene_init(&s);
		s.interrupt_inside = true;
		s.immediate = immediate;
		park(s.lot, NULL, 0, LONG_MS, &call, &s);
		assert_int_equal(s.answers, 1);
		assert_int_equal(s.result, MF_CANCELLED);
		scene_finish(&s);
		assert_int_equal(s.answers, 1);
	}
}

static void test_deadline(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	park(s.lot, NULL, 0, 5, &call, &s);
	wait_for_answer(&s);
	assert_int_equal(s.result, MF_TIMEOUT);
	scene_finish(&s);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.cancels, 1);
}

static void *keep_moving(void *context)
{
	struct scene *s = context;
	while (atomic_load(&s->answers) == 0)
		atomic_fetch_add(&s->progress, 1);
	return NULL;
}

/* Progress moves the deadline, but not for ever. */
static void test_deadline_with_progress(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	pthread_t mover;
	park(s.lot, NULL, 0, 5, &call, &s);
	pthread_create(&mover, NULL, keep_moving, &s);
	wait_for_answer(&s);
	pthread_join(mover, NULL);
	assert_int_equal(s.result, MF_TIMEOUT);
	scene_finish(&s);
}

static void test_end_answers_what_waits(void **state)
{
	(void)state;
	struct scene s;
	scene_init(&s);
	park(s.lot, NULL, 0, LONG_MS, &call, &s);
	parking_answer_all(s.lot);
	assert_int_equal(s.answers, 1);
	assert_int_equal(s.result, MF_OFFLINE);
	park(s.lot, NULL, 0, LONG_MS, &call, &s); /* what comes later finds it closed */
	assert_int_equal(s.answers, 2);
	scene_finish(&s);
	assert_int_equal(s.answers, 2);
}

static void *interrupt(void *p)
{
	park_interrupted(NULL, p);
	return NULL;
}

/* The interrupt against the end of the mount, and the want's end just coming: one wins, one answer. */
static void test_race(void **state)
{
	(void)state;
	for (int i = 0; i < 500; i++) {
		struct scene s;
		scene_init(&s);
		s.late = true; /* so that the park outlives both */
		park(s.lot, NULL, 0, LONG_MS, &call, &s);
		struct park *p = parking_last(s.lot);
		pthread_t other;
		pthread_create(&other, NULL, interrupt, p);
		parking_answer_all(s.lot);
		pthread_join(other, NULL);
		assert_int_equal(s.answers, 1);
		assert_true(s.result == MF_CANCELLED || s.result == MF_OFFLINE);
		assert_true(finish(&s, MF_OK));
		scene_finish(&s);
		assert_int_equal(s.answers, 1);
	}
}

/* The interrupt comes while done() is on its way: done() finds the answer given, and lets go. */
static void test_race_with_done(void **state)
{
	(void)state;
	for (int i = 0; i < 500; i++) {
		struct scene s;
		scene_init(&s);
		s.late = true;
		park(s.lot, NULL, 0, LONG_MS, &call, &s);
		pthread_t other;
		pthread_create(&other, NULL, finish_ok, &s);
		parking_answer_all(s.lot);
		pthread_join(other, NULL);
		assert_int_equal(s.answers, 1);
		assert_true(s.result == MF_OK || s.result == MF_OFFLINE);
		scene_finish(&s);
		assert_int_equal(s.answers, 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answer_is_here),
		cmocka_unit_test(test_two_are_locked), cmocka_unit_test(test_done_answers),
		cmocka_unit_test(test_cancelled_by_the_account_is_offline),
		cmocka_unit_test(test_interrupt_answers),
		cmocka_unit_test(test_interrupt_while_starting),
		cmocka_unit_test(test_deadline),
		cmocka_unit_test(test_deadline_with_progress),
		cmocka_unit_test(test_end_answers_what_waits),
		cmocka_unit_test(test_race),
		cmocka_unit_test(test_race_with_done),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* sync/fallback: when POP3 takes over, and how long until IMAP is tried again */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "sync/engine.h"

static char host[] = "x.test";
static struct account_config config;
static struct account a;

static int set_up(void **state)
{
	(void)state;
	static char connector;
	config = (struct account_config){ .name = host, .imap.host = host, .pop3.host = host, .pop3_after_ms = 120000 };
	a = (struct account){ .config = &config, .connector = (struct connector *)(void *)&connector, .lock = PTHREAD_MUTEX_INITIALIZER,
		.fired_cond = PTHREAD_COND_INITIALIZER };
	return 0;
}

static void not_before_its_time(void **state)
{
	(void)state;
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
	clock_skew_for_tests(60000);
	assert_false(fallback_is_due_locked(&a, MF_TIMEOUT));
	/* the wait between two attempts ends when it is due */
	assert_int_equal(fallback_cut_wait_locked(&a, 1000), 1000);
	assert_in_range(fallback_cut_wait_locked(&a, 300000), 40000, 60000);
	clock_skew_for_tests(60000);
	assert_true(fallback_is_due_locked(&a, MF_PROTOCOL));
	assert_int_equal(fallback_cut_wait_locked(&a, 300000), 300000);
	fallback_end_locked(&a);
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
}

static void not_for_everything(void **state)
{
	(void)state;
	static const enum mf_err others[] = { MF_AUTH, MF_TLS, MF_NO_SPACE, MF_IO, MF_CORRUPT, MF_CANCELLED, MF_BUSY };
	config.pop3_after_ms = 0;
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		assert_false(fallback_is_due_locked(&a, others[i]));
	assert_true(fallback_is_due_locked(&a, MF_OFFLINE));
	a.link.pop3_refused = true;
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
	fallback_end_locked(&a);
	assert_true(fallback_is_due_locked(&a, MF_OFFLINE));
	config.pop3.host = NULL;
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
	assert_int_equal(fallback_cut_wait_locked(&a, 5), 5);
	config.pop3.host = host;
	config.imap.host = NULL;
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
}

static void tried_at_growing_intervals(void **state)
{
	(void)state;
	assert_int_equal(fallback_next_try_locked(&a), INT64_MAX);
	fallback_begin_locked(&a, "why");
	int64_t last = 0;
	for (int i = 0; i < 10; i++) {
		int64_t pause = fallback_next_try_locked(&a) - clock_mono_ms();
		assert_in_range(pause, last ? last : 40000, 900000);
		last = pause - 20000; /* of which some has passed */
		fallback_tried_locked(&a, "why");
	}
	assert_in_range(fallback_next_try_locked(&a) - clock_mono_ms(), 880000, 900000);
	/* once begun it goes on, whenever IMAP fails */
	assert_true(fallback_is_due_locked(&a, MF_OFFLINE));
	assert_true(fallback_reaches(a.link.fallback, true));
	assert_false(fallback_reaches(a.link.fallback, false));
	fallback_end_locked(&a);
	assert_int_equal(fallback_next_try_locked(&a), INT64_MAX);
	assert_true(fallback_reaches(a.link.fallback, false));
}

static void not_put_off_by_who_connects_anew(void **state)
{
	(void)state;
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
	clock_skew_for_tests(100000);
	fallback_retry_locked(&a);
	assert_false(fallback_is_due_locked(&a, MF_OFFLINE));
	clock_skew_for_tests(20000);
	assert_true(fallback_is_due_locked(&a, MF_OFFLINE));
	fallback_begin_locked(&a, "why");
	a.link.pop3_refused = true;
	fallback_retry_locked(&a);
	assert_true(fallback_reaches(a.link.fallback, false)); /* IMAP is tried first, */
	assert_true(fallback_is_due_locked(&a, MF_OFFLINE));   /* and POP3 at once if that fails */
	fallback_end_locked(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(not_before_its_time, set_up), cmocka_unit_test_setup(not_for_everything, set_up),
		cmocka_unit_test_setup(tried_at_growing_intervals, set_up),
		cmocka_unit_test_setup(not_put_off_by_who_connects_anew, set_up),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

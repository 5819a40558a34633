#include "base/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t skew_ms;

static int64_t read_ns(clockid_t id)
{
	struct timespec t;
	clock_gettime(id, &t); /* cannot fail for these clocks */
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec + atomic_load_explicit(&skew_ms, memory_order_relaxed) * 1000000;
}

int64_t clock_mono_ms(void)
{
	return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t clock_boot_ms(void)
{
	return read_ns(CLOCK_BOOTTIME) / 1000000;
}

int64_t clock_wall_s(void)
{
	return read_ns(CLOCK_REALTIME) / 1000000000;
}

int64_t clock_wall_ns(void)
{
	return read_ns(CLOCK_REALTIME);
}

void clock_skew_for_tests(int64_t ms)
{
	atomic_fetch_add(&skew_ms, ms);
}

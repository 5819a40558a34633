/* clock.h: the only source of time, so that tests can set it. Thread-safe. */
#ifndef MF_BASE_CLOCK_H
#define MF_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_mono_ms(void);   /* never goes back; stops in suspend */
int64_t clock_boot_ms(void);   /* never goes back; counts suspend: boot - mono jumps when the machine has slept */
int64_t clock_wall_s(void);    /* seconds since the epoch */
int64_t clock_wall_ns(void);

/* tests only: adds to every later reading of the wall and monotonic clocks */
void clock_skew_for_tests(int64_t ms);

#endif

/* cancel.h: a stop sign that one thread raises and another sees in a poll(2) or between two steps.
 * All functions are thread-safe. */
#ifndef MF_BASE_CANCEL_H
#define MF_BASE_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>

struct cancel {
	int fd;            /* an eventfd: readable while raised */
	atomic_bool raised;
};

bool cancel_init(struct cancel *c);   /* false: out of descriptors */
void cancel_finish(struct cancel *c);
void cancel_raise(struct cancel *c);
void cancel_clear(struct cancel *c);
static inline bool cancel_is_raised(struct cancel *c) { return atomic_load_explicit(&c->raised, memory_order_acquire); }

#endif

#include "base/cancel.h"

#include <sys/eventfd.h>

#include "base/mem.h"

bool cancel_init(struct cancel *c)
{
	atomic_init(&c->raised, false);
	c->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return c->fd >= 0;
}

void cancel_finish(struct cancel *c)
{
	mf_close(&c->fd);
}

void cancel_raise(struct cancel *c)
{
	atomic_store_explicit(&c->raised, true, memory_order_release);
	/* an eventfd at its maximum refuses the write, and is readable all the same */
	(void)eventfd_write(c->fd, 1);
}

void cancel_clear(struct cancel *c)
{
	eventfd_t ignored;
	(void)eventfd_read(c->fd, &ignored);
	atomic_store_explicit(&c->raised, false, memory_order_release);
}

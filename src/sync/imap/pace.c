#include "sync/imap/pace.h"

void pace_begin(struct pace *p, int64_t now_ms)
{
	*p = (struct pace){ .since_ms = now_ms };
}

void pace_came(struct pace *p, uint64_t bytes)
{
	p->came += bytes;
}

void pace_look(struct pace *p, int64_t now_ms)
{
	int64_t passed = now_ms - p->since_ms;
	if (passed < PACE_LEAST_MS)
		return;
	p->rate = p->came * 1000 / (uint64_t)passed;
	p->came = 0;
	p->since_ms = now_ms;
}

uint64_t pace_ahead(const struct pace *p)
{
	return p->rate / 1000 * PACE_AHEAD_MS;
}

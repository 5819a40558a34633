/* Small messages that have been read ahead stay open until their reader has come: who opens one finds it open. */
#include <stdlib.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "sync/engine.h"

#define KEPT 1024           /* at most so many, */
#define SHARE 16            /* one out of so many descriptors that the process may have, and as much of what the cache may hold */
#define BYTES (64U << 10)   /* each up to this size: of a larger one the opening is the least */

struct kept {
	struct body *items[KEPT];
	size_t next, most;
};

static size_t most_to_keep(const struct account *a)
{
	struct rlimit limit;
	rlim_t share = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur / SHARE : 0;
	size_t most = share < KEPT ? (size_t)share : KEPT;
	uint64_t bytes = account_config(a)->cache_size / SHARE;
	return bytes && bytes / BYTES < most ? (size_t)(bytes / BYTES) : most;
}

void kept_begin(struct session *s)
{
	size_t most = most_to_keep(s->account);
	if (s->kept && s->kept->most == most)
		return;
	kept_forget(s);
	if (!most)
		return;
	s->kept = MF_NEW(struct kept);
	s->kept->most = most;
}

void kept_add(struct session *s, struct body *b)
{
	if (!s->kept || body_size(b) > BYTES)
		return;
	struct body **place = &s->kept->items[s->kept->next++ % s->kept->most];
	body_unref(*place);
	*place = body_ref(b);
}

void kept_forget(struct session *s)
{
	for (size_t i = 0; s->kept && i < s->kept->most; i++)
		body_unref(s->kept->items[i]);
	free(s->kept);
	s->kept = NULL;
}

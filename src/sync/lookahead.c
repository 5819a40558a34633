/* Read-ahead along a walk through a mailbox: readahead.h decides, this asks the index and queues. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sync/engine.h"

/* How many are between `from` and the message in this order; false: it does not come soon. */
static bool follows_within(struct account *a, uint64_t from, uint64_t message, enum listing_order order, size_t *ret_between)
{
	struct entry entries[READAHEAD_PROBE_NAME];
	size_t count, max = order == ORDER_ID ? READAHEAD_PROBE_ID : READAHEAD_PROBE_NAME;
	if (cache_successors(a->cache, from, order, max, entries, &count) != MF_OK)
		return false;
	for (*ret_between = 0; *ret_between < count; ++*ret_between) {
		if (entries[*ret_between].id == message)
			return true;
	}
	return false;
}

static void lookahead_probe(struct account *a, struct readahead_step *step)
{
	struct readahead_follows follows[2] = {{.earlier = -1}, {.earlier = -1}};
	for (size_t i = 0; i < step->count && follows[0].earlier < 0 && follows[1].earlier < 0; i++) {
		for (enum listing_order o = ORDER_ID; o <= ORDER_NAME; o++) {
			if (follows_within(a, step->earlier[i], step->message, o, &follows[o].between))
				follows[o].earlier = (int)i;
		}
	}
	pthread_mutex_lock(&a->lock);
	readahead_probed(a->ahead, step, follows);
	pthread_mutex_unlock(&a->lock);
}

/* Whether they are on the disk, of those that are within the step; returns how many that is. */
static size_t look_for_bodies(struct account *a, struct readahead_step *step, const struct entry *entries, size_t count, bool *cached)
{
	size_t i = 0;
	for (uint64_t bytes = 0; i < count && (i == 0 || bytes < step->bytes); i++) {
		cached[i] = entries[i].uid == 0 || cache_body_is_cached(a->cache, entries[i].id);
		bytes += cached[i] ? 0 : entries[i].size;
	}
	if (i < count)
		step->max = i;
	return i;
}

static void lookahead_plan(struct account *a, struct readahead_step *step, bool online)
{
	struct entry *entries = mf_alloc_array(step->max, sizeof *entries);
	bool *cached = mf_alloc_array(step->max, sizeof *cached);
	size_t count = 0;
	pthread_mutex_lock(&a->lock);
	uint64_t since = a->finished_count;
	pthread_mutex_unlock(&a->lock);
	/* offline the walk ends here; it is recognised again */
	if (!online || cache_successors(a->cache, step->from, step->order, step->max, entries, &count) != MF_OK)
		count = 0;
	count = look_for_bodies(a, step, entries, count, cached);
	pthread_mutex_lock(&a->lock);
	size_t taken = readahead_planned(a->ahead, step, entries, cached, count);
	bool queued = false;
	for (size_t i = 0; i < taken; i++) {
		if (!cached[i])
			queued |= bodies_ahead_locked(a, &entries[i], QUEUE_AHEAD, since);
	}
	if (queued)
		sessions_wake_locked(a, ROLE_BULK);
	pthread_mutex_unlock(&a->lock);
	free(cached);
	free(entries);
}

void lookahead_note(struct account *a, uint64_t mailbox, uint64_t message, bool missing)
{
	struct readahead_step step;
	pthread_mutex_lock(&a->lock);
	readahead_limit(a->ahead, account_config(a)->cache_size);
	readahead_note(a->ahead, mailbox, message, missing, clock_mono_ms(), &step);
	bool online = a->link.state == LINK_ONLINE || a->link.state == LINK_CONNECTING;
	pthread_mutex_unlock(&a->lock);
	if (step.kind == READAHEAD_PROBE)
		lookahead_probe(a, &step);
	if (step.kind == READAHEAD_PLAN)
		lookahead_plan(a, &step, online);
}

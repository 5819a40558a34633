#include "sync/reconcile.h"

#include <stdlib.h>

#include "base/mem.h"

void uid_set_finish(struct uid_set *s)
{
	free(s->items);
	*s = (struct uid_set){0};
}

void uid_set_add(struct uid_set *s, uint32_t first, uint32_t last)
{
	if (s->count) {
		struct uid_range *tail = &s->items[s->count - 1];
		if (first >= tail->first && first <= tail->last + (tail->last < UINT32_MAX)) {
			if (last > tail->last)
				tail->last = last;
			return;
		}
		/* newest first is how a new mailbox is told */
		if (last < tail->first && tail->first - last == 1 && s->count == 1) {
			tail->first = first;
			return;
		}
		s->messy |= first < tail->first;
	}
	if (s->count == s->capacity) {
		s->capacity = s->capacity ? s->capacity * 2 : 16;
		s->items = mf_realloc_array(s->items, s->capacity, sizeof *s->items);
	}
	s->items[s->count++] = (struct uid_range){first, last};
}

static int range_compare(const void *a, const void *b)
{
	const struct uid_range *x = a, *y = b;
	return (x->first > y->first) - (x->first < y->first);
}

void uid_set_normalise(struct uid_set *s)
{
	if (!s->messy)
		return;
	qsort(s->items, s->count, sizeof *s->items, range_compare);
	size_t kept = 0;
	for (size_t i = 1; i < s->count; i++) {
		struct uid_range *tail = &s->items[kept];
		if (s->items[i].first <= tail->last || s->items[i].first - tail->last == 1) {
			if (s->items[i].last > tail->last)
				tail->last = s->items[i].last;
		} else {
			s->items[++kept] = s->items[i];
		}
	}
	s->count = kept + 1;
	s->messy = false;
}

bool uid_ranges_have(const struct uid_range *items, size_t count, uint32_t uid)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (items[middle].last < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && items[low].first <= uid;
}

/* The local UIDs for which being in the ranges is `wanted`. Both lists ascend, so one pass over each does. */
static size_t reconcile_pick(const struct uid_id *local, size_t count, const struct uid_range *ranges, size_t range_count,
                             bool wanted, uint32_t below, uint32_t **ret)
{
	uint32_t *picked = NULL;
	size_t n = 0, capacity = 0, r = 0;
	for (size_t i = 0; i < count && (below == 0 || local[i].uid < below); i++) {
		while (r < range_count && ranges[r].last < local[i].uid)
			r++;
		bool inside = r < range_count && ranges[r].first <= local[i].uid;
		if (inside != wanted)
			continue;
		if (n == capacity) {
			capacity = capacity ? capacity * 2 : 16;
			picked = mf_realloc_array(picked, capacity, sizeof *picked);
		}
		picked[n++] = local[i].uid;
	}
	*ret = picked;
	return n;
}

size_t reconcile_missing(const struct uid_id *local, size_t count, const struct uid_range *present, size_t present_count,
                         uint32_t below, uint32_t **ret)
{
	return reconcile_pick(local, count, present, present_count, false, below, ret);
}

bool reconcile_lacks(const struct uid_id *local, size_t count, const struct uid_range *present, size_t present_count)
{
	size_t at = 0;
	for (size_t r = 0; r < present_count; r++) {
		while (at < count && local[at].uid < present[r].first)
			at++;
		size_t from = at;
		while (at < count && local[at].uid <= present[r].last)
			at++;
		if (at - from <= present[r].last - present[r].first)
			return true;
	}
	return false;
}

size_t reconcile_vanished(const struct uid_id *local, size_t count, const struct uid_range *gone, size_t gone_count,
                          uint32_t **ret)
{
	return reconcile_pick(local, count, gone, gone_count, true, 0, ret);
}

/* Messages that were expunged leave a bounded mailbox with fewer than it may have; it is filled again only when a tenth is
 * missing, since that means all of it anew. */
static bool has_room(const struct mailbox *m, uint32_t max_messages)
{
	uint32_t wanted = max_messages && max_messages < m->server_messages ? max_messages : m->server_messages;
	return m->first_uid > 1 && (max_messages == 0 || m->total + m->total / 10 < wanted);
}

enum dirty reconcile_dirty(const struct dirty_facts *facts)
{
	const struct mailbox *m = facts->mailbox;
	if (!m->raw || (m->flags & MAILBOX_NOSELECT))
		return DIRTY_NO;
	if (!m->complete)
		return DIRTY_COLD;
	if (!facts->has_status || m->server_uidvalidity != m->uidvalidity || m->server_uidnext != m->uidnext)
		return DIRTY_CHANGED;
	if (has_room(m, facts->max_messages))
		return DIRTY_CHANGED;
	uint32_t held = m->first_uid > 1 ? facts->seen_messages : m->total;
	if (m->server_messages != held)
		return DIRTY_CHANGED;
	if (m->server_modseq && m->modseq)
		return m->server_modseq != m->modseq ? DIRTY_CHANGED : DIRTY_NO;
	/* another client's changes may make up for ours */
	if (facts->changes_wait)
		return DIRTY_CHANGED;
	return m->first_uid <= 1 && m->server_unseen != m->unseen ? DIRTY_CHANGED : DIRTY_NO;
}

bool reconcile_is_sane(const struct uid_id *local, size_t count, const struct mailbox_status *status, uint32_t first_uid)
{
	if (status->uidnext && count && local[count - 1].uid >= status->uidnext)
		return false;
	return first_uid > 1 || count == status->messages;
}

struct rung reconcile_rung(const struct mailbox *m, enum change_method asked, uint32_t max_messages, bool no_qresync)
{
	struct rung rung = {.method = asked, .with_modseq = !no_qresync, .first_uid = m->first_uid};
	if (!m->complete || m->uidvalidity == 0 || has_room(m, max_messages) || asked == CHANGES_ALL)
		rung = (struct rung){.method = CHANGES_ALL, .with_modseq = true, .newest = max_messages};
	return rung;
}

uint32_t reconcile_trim(const struct uid_id *local, size_t count, uint32_t max_messages)
{
	return max_messages && count > max_messages ? local[count - max_messages].uid : 0;
}

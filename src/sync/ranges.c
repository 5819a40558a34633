#include "sync/ranges.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

void ranges_init(struct ranges *r, uint64_t size)
{
	*r = (struct ranges){.size = size};
}

static const struct window *ranges_at(const struct ranges *r, uint64_t offset)
{
	for (size_t i = 0; i < r->count; i++) {
		if (offset >= r->windows[i].offset && offset < r->windows[i].offset + r->windows[i].length)
			return &r->windows[i];
	}
	return NULL;
}

static uint64_t ranges_next_start(const struct ranges *r, uint64_t offset, uint64_t end)
{
	for (size_t i = 0; i < r->count; i++) {
		if (r->windows[i].offset > offset && r->windows[i].offset < end)
			end = r->windows[i].offset;
	}
	return end;
}

/* The first part of [*offset, *end) to fetch. Windows that are done are known by the body alone, and readers are not all at
 * one place: what one needs may straddle what another one had. */
static bool ranges_gap(const struct ranges *r, const struct body *body, uint64_t *offset, uint64_t *end)
{
	if (!body)
		return true;
	uint64_t known = r->verified ? r->size : r->size - least(r->size, RANGES_ALIGN), from, to;
	if (*offset < known && body_first_gap(body, *offset, least(*end, known), &from, &to)) {
		*offset = from;
		*end = to == known ? *end : to;
		return true;
	}
	*offset = *offset < known ? known : *offset;
	return *offset < *end;
}

/* Plans what is not planned yet of [offset, end). */
static bool ranges_plan(struct ranges *r, const struct body *body, uint64_t offset, uint64_t end)
{
	end = least(end, r->size);
	while (offset < end) {
		const struct window *there = ranges_at(r, offset);
		if (there) {
			offset = there->offset + there->length;
			continue;
		}
		if (r->count == RANGES_MAX)
			return false;
		uint64_t stop = ranges_next_start(r, offset, end), next = stop;
		if (!ranges_gap(r, body, &offset, &stop)) {
			offset = next;
			continue;
		}
		stop = least(stop, offset + RANGES_WINDOW_MAX);
		r->windows[r->count++] = (struct window){.offset = offset, .length = stop - offset};
		offset = stop;
	}
	return true;
}

static bool ranges_advance(struct ranges *r, const struct body *body)
{
	uint64_t from = r->end, to = least(r->end + r->grow, r->size);
	if (from >= to)
		return true;
	if (!ranges_plan(r, body, from, to))
		return false;
	r->last = from;
	r->end = to;
	r->grow = least(r->grow * 2, RANGES_WINDOW_MAX);
	return true;
}

bool ranges_want(struct ranges *r, const struct body *body, uint64_t offset, uint64_t length, bool missing)
{
	if (offset >= r->size || length == 0)
		return true;
	uint64_t end = length > r->size - offset ? r->size : offset + length;
	if (r->end != 0 && offset >= r->last && offset <= r->end) {
		while (r->end < end && r->end < r->size) {
			if (!ranges_advance(r, body))
				return false;
		}
		/* it is well into the newest window: have one more under way */
		bool ahead = end - r->last >= (r->end - r->last) / 2 && end > r->last;
		return (!ahead || ranges_advance(r, body)) && (!missing || ranges_plan(r, body, offset, end));
	}
	if (!missing)
		return true;
	uint64_t from = offset - offset % RANGES_ALIGN;
	uint64_t to = least((end + RANGES_ALIGN - 1) / RANGES_ALIGN * RANGES_ALIGN, r->size);
	size_t before = r->count;
	if (!ranges_plan(r, body, from, to))
		return false;
	if (r->count == before)
		return true; /* a reader who is still in an earlier window, which is on its way */
	r->last = from;
	r->end = to;
	r->grow = least((to - from) * 2, RANGES_WINDOW_MAX);
	return true;
}

bool ranges_next(struct ranges *r, struct window *ret)
{
	for (size_t i = 0; i < r->count; i++) {
		if (!r->windows[i].sent) {
			r->windows[i].sent = true;
			*ret = r->windows[i];
			return true;
		}
	}
	return false;
}

bool ranges_pending(const struct ranges *r)
{
	for (size_t i = 0; i < r->count; i++) {
		if (!r->windows[i].sent)
			return true;
	}
	return false;
}

static void ranges_remove(struct ranges *r, size_t i)
{
	for (r->count--; i < r->count; i++)
		r->windows[i] = r->windows[i + 1];
}

void ranges_done(struct ranges *r, uint64_t offset)
{
	for (size_t i = 0; i < r->count; i++) {
		if (r->windows[i].sent && r->windows[i].offset == offset) {
			ranges_remove(r, i);
			return;
		}
	}
}

void ranges_unsend(struct ranges *r)
{
	for (size_t i = 0; i < r->count; i++)
		r->windows[i].sent = false;
}

void ranges_drop_unsent(struct ranges *r)
{
	for (size_t i = r->count; i-- > 0;) {
		if (!r->windows[i].sent)
			ranges_remove(r, i);
	}
	/* what was promised ahead may not come: a reader that goes on begins anew */
	r->end = 0;
}

#include "cache/ranges.h"

#include <string.h>

#include "base/mem.h"

void ranges_finish(struct ranges *r)
{
	free(r->items);
	*r = (struct ranges){ 0 };
}

/* the first one that ends at or behind `at` */
static size_t seek(const struct ranges *r, uint64_t at)
{
	size_t low = 0, high = r->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (r->items[middle].end < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void insert(struct ranges *r, size_t place, struct range range)
{
	if (r->count == r->room) {
		r->room = r->room ? r->room * 2 : 4;
		r->items = mf_realloc_array(r->items, r->room, sizeof *r->items);
	}
	memmove(r->items + place + 1, r->items + place, (r->count - place) * sizeof *r->items);
	r->items[place] = range;
	r->count++;
}

void ranges_add(struct ranges *r, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return;
	size_t first = seek(r, begin), last = first;
	while (last < r->count && r->items[last].begin <= end)
		last++;
	if (first == last) {
		insert(r, first, (struct range){ begin, end });
		return;
	}
	/* all from first to last touch it: they become one */
	struct range *one = &r->items[first];
	uint64_t last_end = r->items[last - 1].end;
	one->begin = one->begin < begin ? one->begin : begin;
	one->end = last_end > end ? last_end : end;
	memmove(one + 1, r->items + last, (r->count - last) * sizeof *one);
	r->count -= last - first - 1;
}

bool ranges_have(const struct ranges *r, uint64_t begin, uint64_t end)
{
	if (begin >= end)
		return true;
	size_t place = seek(r, begin + 1);
	return place < r->count && r->items[place].begin <= begin && r->items[place].end >= end;
}

bool ranges_first_gap(const struct ranges *r, uint64_t begin, uint64_t end, struct range *ret)
{
	size_t place = seek(r, begin + 1);
	if (place < r->count && r->items[place].begin <= begin)
		begin = r->items[place++].end;
	if (begin >= end)
		return false;
	bool ends = place < r->count && r->items[place].begin < end;
	*ret = (struct range){ begin, ends ? r->items[place].begin : end };
	return true;
}

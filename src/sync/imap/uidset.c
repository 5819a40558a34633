#include "sync/imap/uidset.h"

#include <stdlib.h>
#include <sys/random.h>

#include "base/mem.h"

#define SMALLEST 256

void uidset_init(struct uidset *set)
{
	*set = (struct uidset){ .sorted = true };
}

void uidset_finish(struct uidset *set)
{
	free(set->items);
	uidset_init(set);
}

void uidset_reset(struct uidset *set)
{
	set->count = 0;
	set->sorted = true;
}

void uidset_add(struct uidset *set, uint32_t first, uint32_t last)
{
	if (first > last) {
		uint32_t swap = first;
		first = last;
		last = swap;
	}
	if (set->count) {
		struct uid_range *before = &set->items[set->count - 1];
		if (first >= before->first && (before->last == UINT32_MAX || first <= before->last + 1)) {
			if (last > before->last)
				before->last = last;
			return;
		}
		if (first < before->first)
			set->sorted = false;
	}
	if (set->count == set->capacity) {
		set->capacity = set->capacity ? set->capacity * 2 : 16;
		set->items = mf_realloc_array(set->items, set->capacity, sizeof *set->items);
	}
	set->items[set->count++] = (struct uid_range){ first, last };
}

static int by_first(const void *a, const void *b)
{
	uint32_t x = ((const struct uid_range *)a)->first, y = ((const struct uid_range *)b)->first;
	return (x > y) - (x < y);
}

static void sort(struct uidset *set)
{
	qsort(set->items, set->count, sizeof *set->items, by_first);
	size_t to = 0;
	for (size_t i = 1; i < set->count; i++) {
		struct uid_range *kept = &set->items[to], *next = &set->items[i];
		if (kept->last == UINT32_MAX || next->first <= kept->last + 1) {
			if (next->last > kept->last)
				kept->last = next->last;
		} else {
			set->items[++to] = *next;
		}
	}
	set->count = to + 1;
	set->sorted = true;
}

struct uid_ranges uidset_ranges(struct uidset *set)
{
	if (!set->sorted)
		sort(set);
	return (struct uid_ranges){ set->items, set->count };
}

uint64_t uidset_size(struct uidset *set)
{
	struct uid_ranges ranges = uidset_ranges(set);
	uint64_t size = 0;
	for (size_t i = 0; i < ranges.count; i++)
		size += (uint64_t)ranges.items[i].last - ranges.items[i].first + 1;
	return size;
}

bool uidset_scan(struct uidset *set, struct scan *s, uint32_t low, uint32_t high)
{
	struct scan at = *s;
	do {
		uint32_t first, last;
		if (!scan_uid(&at, &first))
			return false;
		last = first;
		if (scan_char(&at, ':') && !scan_uid(&at, &last))
			return false;
		if (first > last) {
			uint32_t swap = first;
			first = last;
			last = swap;
		}
		if (first < low)
			first = low;
		if (last > high)
			last = high;
		if (first <= last)
			uidset_add(set, first, last);
	} while (scan_char(&at, ','));
	*s = at;
	return true;
}

void uid_ranges_write(struct uid_ranges ranges, size_t *at, size_t max, struct buf *to)
{
	size_t start = to->len;
	for (; *at < ranges.count && to->len - start < max; ++*at) {
		struct uid_range r = ranges.items[*at];
		const char *comma = to->len > start ? "," : "";
		if (r.first == r.last)
			(void)buf_addf(to, "%s%u", comma, r.first);
		else
			(void)buf_addf(to, "%s%u:%u", comma, r.first, r.last);
	}
}

/* The high bits of a product with a number that no server knows: it cannot choose UIDs that collide. */
static size_t slot_of(const struct uidhash *h, uint32_t uid)
{
	size_t i = (size_t)((uid * h->key) >> (64 - __builtin_ctzll(h->size)));
	while (h->slots[i] && h->slots[i] != uid)
		i = (i + 1) & (h->size - 1);
	return i;
}

static uint64_t make_key(void)
{
	uint64_t key = 0x9e3779b97f4a7c15;
	(void)!getrandom(&key, sizeof key, GRND_NONBLOCK); /* without entropy only the protection is lost */
	return key | 1;
}

static void grow(struct uidhash *h)
{
	struct uidhash larger = { .size = h->size ? h->size * 2 : SMALLEST, .key = h->key };
	if (!larger.key)
		larger.key = make_key();
	larger.slots = mf_alloc_array(larger.size, sizeof *larger.slots);
	larger.count = h->count;
	for (size_t i = 0; i < h->size; i++)
		if (h->slots[i])
			larger.slots[slot_of(&larger, h->slots[i])] = h->slots[i];
	free(h->slots);
	*h = larger;
}

void uidhash_finish(struct uidhash *h)
{
	free(h->slots);
	*h = (struct uidhash){ 0 };
}

bool uidhash_add(struct uidhash *h, uint32_t uid)
{
	if (h->count * 2 >= h->size)
		grow(h);
	size_t i = slot_of(h, uid);
	if (h->slots[i])
		return false;
	h->slots[i] = uid;
	h->count++;
	return true;
}

bool uidhash_has(const struct uidhash *h, uint32_t uid)
{
	return h->size && h->slots[slot_of(h, uid)] == uid;
}

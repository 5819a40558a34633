#include "cache/listing.h"

#include <string.h>

#include "base/mem.h"
#include "cache/map.h"

#define TAG_BITS 25
#define TAG_MASK ((1U << TAG_BITS) - 1)
#define ID_SHIFT (TAG_BITS + 1)

static uint32_t tag_of(const char *name)
{
	return (uint32_t)(hash_bytes(name, strlen(name)) >> (64 - TAG_BITS));
}

static uint64_t key_of(const struct entry *e, uint32_t tag)
{
	return e->id << ID_SHIFT | (uint64_t)e->size_checked << TAG_BITS | tag;
}

static uint64_t id_at(const struct listing *l, uint32_t place)
{
	return l->rows[l->by_id[place]].key >> ID_SHIFT;
}

struct listing *listing_create(uint64_t mailbox)
{
	struct listing *l = MF_NEW(struct listing);
	l->mailbox = mailbox;
	/* no two listings ever have a version in common */
	static _Atomic uint64_t made;
	l->version = atomic_fetch_add(&made, 1) << 32;
	return l;
}

static void release(struct listing *l)
{
	free(l->rows);
	free(l->by_id);
	free(l->by_name);
	free(l->slots);
	free(l->names);
}

void listing_destroy(struct listing *l)
{
	if (!l)
		return;
	release(l);
	free(l);
}

void listing_clear(struct listing *l)
{
	release(l);
	l->rows = NULL;
	l->by_id = l->by_name = l->slots = NULL;
	l->names = NULL;
	l->rows_used = l->rows_room = l->rows_free = l->count = l->order_room = l->slot_mask = 0;
	l->names_used = l->names_room = l->names_dead = 0;
	l->version++;
}

size_t listing_bytes(const struct listing *l)
{
	size_t orders = (size_t)l->order_room * sizeof *l->by_id * (l->by_name ? 2 : 1);
	return sizeof *l + l->rows_room * sizeof *l->rows + orders + (l->slots ? (l->slot_mask + 1UL) * sizeof *l->slots : 0) +
	       l->names_room;
}

/* an eighth more than needed: large ones are many, and what is not used is still resident */
static size_t roomier(size_t need, size_t least)
{
	size_t room = need + need / 8;
	return room < least ? least : room;
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

static void names_compact(struct listing *l)
{
	size_t room = roomier(l->names_used - l->names_dead, 64), used = 0;
	char *names = mf_alloc(room);
	for (uint32_t i = 0; i < l->count; i++) {
		struct listing_row *r = &l->rows[l->by_id[i]];
		size_t size = strlen(l->names + r->name) + 1;
		memcpy(names + used, l->names + r->name, size);
		r->name = (uint32_t)used;
		used += size;
	}
	free(l->names);
	l->names = names;
	l->names_used = used;
	l->names_room = room;
	l->names_dead = 0;
}

static uint32_t name_store(struct listing *l, const char *name)
{
	size_t size = strlen(name) + 1;
	if (l->names_used + size > l->names_room) {
		l->names_room = roomier(l->names_used + size, 1024);
		l->names = mf_realloc_array(l->names, l->names_room, 1);
	}
	memcpy(l->names + l->names_used, name, size);
	l->names_used += size;
	return (uint32_t)(l->names_used - size);
}

static void name_forget(struct listing *l, uint32_t row)
{
	l->names_dead += strlen(listing_name(l, row)) + 1;
}

static void slot_add(struct listing *l, uint32_t row)
{
	uint32_t i = (uint32_t)l->rows[row].key & TAG_MASK & l->slot_mask;
	while (l->slots[i])
		i = (i + 1) & l->slot_mask;
	l->slots[i] = row + 1;
}

/* for count entries; at most three quarters full */
static void slots_fit(struct listing *l, uint32_t count)
{
	if (l->slots && count <= (l->slot_mask + 1) / 4 * 3)
		return;
	uint32_t size = 16;
	while (size / 4 * 3 < count)
		size *= 2;
	free(l->slots);
	l->slots = mf_alloc_array(size, sizeof *l->slots);
	l->slot_mask = size - 1;
	for (uint32_t i = 0; i < l->count; i++)
		slot_add(l, l->by_id[i]);
}

static void slot_remove(struct listing *l, uint32_t row)
{
	uint32_t mask = l->slot_mask, hole = (uint32_t)l->rows[row].key & TAG_MASK & mask;
	while (l->slots[hole] != row + 1)
		hole = (hole + 1) & mask;
	/* whoever was pushed past the hole moves into it */
	for (uint32_t i = (hole + 1) & mask; l->slots[i]; i = (i + 1) & mask) {
		uint32_t home = (uint32_t)l->rows[l->slots[i] - 1].key & TAG_MASK & mask;
		if (((i - home) & mask) >= ((i - hole) & mask)) {
			l->slots[hole] = l->slots[i];
			hole = i;
		}
	}
	l->slots[hole] = 0;
}

bool listing_find_name(const struct listing *l, const char *name, uint32_t *ret_row)
{
	if (!l->count)
		return false;
	uint32_t tag = tag_of(name);
	for (uint32_t i = tag & l->slot_mask; l->slots[i]; i = (i + 1) & l->slot_mask) {
		uint32_t row = l->slots[i] - 1;
		if (((uint32_t)l->rows[row].key & TAG_MASK) == tag && !strcmp(listing_name(l, row), name)) {
			*ret_row = row;
			return true;
		}
	}
	return false;
}

/* --- orders ---------------------------------------------------------------------------------------------------------- */

uint32_t listing_place_after(const struct listing *l, uint64_t after)
{
	uint32_t low = 0, high = l->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (id_at(l, middle) <= after)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint32_t listing_place_after_name(const struct listing *l, const char *name)
{
	uint32_t low = 0, high = l->count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (strcmp(listing_name(l, l->by_name[middle]), name) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool listing_find_id(const struct listing *l, uint64_t id, uint32_t *ret_row)
{
	if (!l->count || id < id_at(l, 0) || id > id_at(l, l->count - 1))
		return false;
	uint32_t place = listing_place_after(l, id) - 1;
	if (id_at(l, place) != id)
		return false;
	*ret_row = l->by_id[place];
	return true;
}

static int compare_names(const void *a, const void *b, void *listing)
{
	const struct listing *l = listing;
	return strcmp(listing_name(l, *(const uint32_t *)a), listing_name(l, *(const uint32_t *)b));
}

static int compare_ids(const void *a, const void *b, void *listing)
{
	const struct listing *l = listing;
	uint64_t x = l->rows[*(const uint32_t *)a].key, y = l->rows[*(const uint32_t *)b].key;
	return x < y ? -1 : x > y;
}

uint32_t *listing_sort_names(const struct listing *l)
{
	uint32_t *order = mf_alloc_array(l->order_room, sizeof *order);
	if (l->count)
		memcpy(order, l->by_id, l->count * sizeof *order);
	qsort_r(order, l->count, sizeof *order, compare_names, (void *)(uintptr_t)l);
	return order;
}

void listing_use_names(struct listing *l, uint32_t *by_name)
{
	free(l->by_name);
	l->by_name = by_name;
}

static void order_insert(uint32_t *order, uint32_t count, uint32_t place, uint32_t row)
{
	memmove(order + place + 1, order + place, (count - place) * sizeof *order);
	order[place] = row;
}

static void order_delete(uint32_t *order, uint32_t count, uint32_t place)
{
	memmove(order + place, order + place + 1, (count - place - 1) * sizeof *order);
}

static void by_name_delete(struct listing *l, uint32_t row)
{
	if (!l->by_name)
		return;
	/* names are met twice only inside a transaction that moves one: the right one is among the equals before */
	uint32_t place = listing_place_after_name(l, listing_name(l, row));
	while (place > 0 && l->by_name[place - 1] != row)
		place--;
	order_delete(l->by_name, l->count, place - 1);
}

/* --- rows ------------------------------------------------------------------------------------------------------------ */

static void orders_fit(struct listing *l, uint32_t count)
{
	if (count <= l->order_room)
		return;
	l->order_room = (uint32_t)roomier(count, 16);
	l->by_id = mf_realloc_array(l->by_id, l->order_room, sizeof *l->by_id);
	if (l->by_name)
		l->by_name = mf_realloc_array(l->by_name, l->order_room, sizeof *l->by_name);
}

static uint32_t row_new(struct listing *l)
{
	uint32_t row = l->rows_free;
	if (row) {
		l->rows_free = l->rows[row - 1].name;
		return row - 1;
	}
	if (l->rows_used == l->rows_room) {
		l->rows_room = (uint32_t)roomier(l->rows_used + 1UL, 16);
		l->rows = mf_realloc_array(l->rows, l->rows_room, sizeof *l->rows);
	}
	return l->rows_used++;
}

static void row_fill(struct listing *l, uint32_t row, const struct entry *e, uint32_t tag, uint32_t name)
{
	l->rows[row] = (struct listing_row){ .key = key_of(e, tag), .size = e->size, .mtime = e->mtime, .ctime = e->ctime,
		                             .uid = e->uid, .name = name };
}

static void insert(struct listing *l, const struct entry *e, const char *name)
{
	orders_fit(l, l->count + 1);
	slots_fit(l, l->count + 1);
	uint32_t row = row_new(l);
	row_fill(l, row, e, tag_of(name), name_store(l, name));
	if (l->by_name)
		order_insert(l->by_name, l->count, listing_place_after_name(l, name), row);
	order_insert(l->by_id, l->count, listing_place_after(l, e->id), row);
	l->count++;
	slot_add(l, row);
	l->version++;
}

void listing_remove(struct listing *l, uint64_t id)
{
	uint32_t row;
	if (!listing_find_id(l, id, &row))
		return;
	slot_remove(l, row);
	by_name_delete(l, row);
	order_delete(l->by_id, l->count, listing_place_after(l, id) - 1);
	name_forget(l, row);
	l->rows[row].name = l->rows_free;
	l->rows_free = row + 1;
	l->count--;
	l->version++;
	if (l->names_dead > 65536 && l->names_dead > l->names_used / 4)
		names_compact(l);
}

void listing_put(struct listing *l, const struct entry *e, const char *name)
{
	uint32_t row;
	bool known = listing_find_id(l, e->id, &row);
	if (known && (!name || !strcmp(name, listing_name(l, row)))) {
		row_fill(l, row, e, (uint32_t)l->rows[row].key & TAG_MASK, l->rows[row].name);
		return;
	}
	if (known)
		listing_remove(l, e->id);
	if (name)
		insert(l, e, name);
}

void listing_load(struct listing *l, const struct entry *e, const char *name)
{
	uint32_t row = row_new(l);
	row_fill(l, row, e, tag_of(name), name_store(l, name));
}

/* gives back the room that growing has left over */
static void shrink(struct listing *l)
{
	l->rows_room = l->rows_used;
	l->rows = mf_realloc_array(l->rows, l->rows_room, sizeof *l->rows);
	l->names_room = l->names_used;
	l->names = mf_realloc_array(l->names, l->names_room, 1);
}

void listing_settle(struct listing *l)
{
	shrink(l);
	orders_fit(l, l->rows_used);
	bool sorted = true;
	for (uint32_t i = 0; i < l->rows_used; i++) {
		l->by_id[i] = i;
		sorted = sorted && (i == 0 || l->rows[i - 1].key < l->rows[i].key);
	}
	if (!sorted)
		qsort_r(l->by_id, l->rows_used, sizeof *l->by_id, compare_ids, l);
	l->count = l->rows_used;
	slots_fit(l, l->count);
}

#include "sync/table.h"

#include <stdlib.h>

#include "base/mem.h"

static size_t table_home(const struct table *t, uint64_t key)
{
	return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (t->capacity - 1);
}

static size_t table_find(const struct table *t, uint64_t key)
{
	size_t i = table_home(t, key);
	while (t->slots[i].key != 0 && t->slots[i].key != key)
		i = (i + 1) & (t->capacity - 1);
	return i;
}

static void table_grow(struct table *t)
{
	struct table old = *t;
	t->capacity = old.capacity ? old.capacity * 2 : 32;
	t->slots = mf_alloc_array(t->capacity, sizeof *t->slots);
	for (size_t i = 0; i < old.capacity; i++) {
		if (old.slots[i].key)
			t->slots[table_find(t, old.slots[i].key)] = old.slots[i];
	}
	free(old.slots);
}

void table_finish(struct table *t)
{
	free(t->slots);
	*t = (struct table){0};
}

void *table_get(const struct table *t, uint64_t key)
{
	return t->capacity ? t->slots[table_find(t, key)].value : NULL;
}

void table_put(struct table *t, uint64_t key, void *value)
{
	if (t->count * 4 >= t->capacity * 3)
		table_grow(t);
	size_t i = table_find(t, key);
	if (t->slots[i].key == 0)
		t->count++;
	t->slots[i] = (struct table_slot){key, value};
}

/* Closes the gap behind it, so that no probe ends early and no tombstone is needed. */
void table_remove(struct table *t, uint64_t key)
{
	if (!t->capacity)
		return;
	size_t mask = t->capacity - 1, gap = table_find(t, key);
	if (t->slots[gap].key == 0)
		return;
	for (size_t i = (gap + 1) & mask; t->slots[i].key != 0; i = (i + 1) & mask) {
		size_t home = table_home(t, t->slots[i].key);
		if (((i - home) & mask) >= ((i - gap) & mask)) {
			t->slots[gap] = t->slots[i];
			gap = i;
		}
	}
	t->slots[gap] = (struct table_slot){0};
	t->count--;
}

void *table_next(const struct table *t, size_t *index)
{
	while (*index < t->capacity) {
		void *value = t->slots[(*index)++].value;
		if (value)
			return value;
	}
	return NULL;
}

#include "sync/id_table.h"

#include <stdlib.h>

#include "base/mem.h"

static size_t id_table_home(const struct id_table *t, uint64_t key)
{
	return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (t->capacity - 1);
}

static size_t id_table_find(const struct id_table *t, uint64_t key)
{
	size_t i = id_table_home(t, key);
	while (t->slots[i].key != 0 && t->slots[i].key != key)
		i = (i + 1) & (t->capacity - 1);
	return i;
}

static void id_table_grow(struct id_table *t)
{
	struct id_table old = *t;
	t->capacity = old.capacity ? old.capacity * 2 : 32;
	t->slots = mf_alloc_array(t->capacity, sizeof *t->slots);
	for (size_t i = 0; i < old.capacity; i++) {
		if (old.slots[i].key)
			t->slots[id_table_find(t, old.slots[i].key)] = old.slots[i];
	}
	free(old.slots);
}

void id_table_finish(struct id_table *t)
{
	free(t->slots);
	*t = (struct id_table){0};
}

void *id_table_get(const struct id_table *t, uint64_t key)
{
	return t->capacity ? t->slots[id_table_find(t, key)].value : NULL;
}

void id_table_put(struct id_table *t, uint64_t key, void *value)
{
	if (t->count * 4 >= t->capacity * 3)
		id_table_grow(t);
	size_t i = id_table_find(t, key);
	if (t->slots[i].key == 0)
		t->count++;
	t->slots[i] = (struct id_table_slot){key, value};
}

/* Closes the gap behind it, so that no probe ends early and no tombstone is needed. */
void id_table_remove(struct id_table *t, uint64_t key)
{
	if (!t->capacity)
		return;
	size_t mask = t->capacity - 1, gap = id_table_find(t, key);
	if (t->slots[gap].key == 0)
		return;
	for (size_t i = (gap + 1) & mask; t->slots[i].key != 0; i = (i + 1) & mask) {
		size_t home = id_table_home(t, t->slots[i].key);
		if (((i - home) & mask) >= ((i - gap) & mask)) {
			t->slots[gap] = t->slots[i];
			gap = i;
		}
	}
	t->slots[gap] = (struct id_table_slot){0};
	t->count--;
}

void *id_table_next(const struct id_table *t, size_t *index)
{
	while (*index < t->capacity) {
		void *value = t->slots[(*index)++].value;
		if (value)
			return value;
	}
	return NULL;
}

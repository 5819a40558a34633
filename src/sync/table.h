/* table.h: from a non-zero number to a pointer. Open addressing, linear probing. Not thread-safe. */
#ifndef MF_SYNC_TABLE_H
#define MF_SYNC_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct table_slot { uint64_t key; void *value; };
struct table {
	struct table_slot *slots;
	size_t capacity, count;      /* capacity: 0 or a power of two */
};

void table_finish(struct table *t);                       /* frees the slots, not the values */
void *table_get(const struct table *t, uint64_t key);     /* NULL: none */
void table_put(struct table *t, uint64_t key, void *value); /* key != 0, value != NULL; replaces */
void table_remove(struct table *t, uint64_t key);
/* Every pair: for (size_t i = 0; (value = table_next(t, &i));) No put or remove meanwhile. */
void *table_next(const struct table *t, size_t *index);

#endif

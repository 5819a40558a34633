/* id_table.h: from a non-zero number to a pointer. Open addressing, linear probing. Not thread-safe. */
#ifndef MF_SYNC_ID_TABLE_H
#define MF_SYNC_ID_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct id_table_slot { uint64_t key; void *value; };
struct id_table {
	struct id_table_slot *slots;
	size_t capacity, count;      /* capacity: 0 or a power of two */
};

void id_table_finish(struct id_table *t);                       /* frees the slots, not the values */
void *id_table_get(const struct id_table *t, uint64_t key);     /* NULL: none */
void id_table_put(struct id_table *t, uint64_t key, void *value); /* key != 0, value != NULL; replaces */
void id_table_remove(struct id_table *t, uint64_t key);
/* Every pair: for (size_t i = 0; (value = id_table_next(t, &i));) No put or remove meanwhile. */
void *id_table_next(const struct id_table *t, size_t *index);

#endif

/* map.h: a hash table from 64-bit keys to 64-bit values (row ids, pointers), neither 0 as a value. A key may occur many
 * times; its values are met in no particular order. Not thread-safe. A zeroed one is empty and usable. */
#ifndef MF_CACHE_MAP_H
#define MF_CACHE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_entry {
	uint64_t key, value;       /* value 0: a spare one */
	uint32_t next;             /* the next one in this bucket; 0: none */
};
struct map {
	struct map_entry *entries; /* from 1 on */
	uint32_t *heads;
	uint32_t buckets;          /* a power of two */
	uint32_t used, spare;      /* entries ever used; the first free one among them */
	uint32_t count;
};

void map_finish(struct map *m);
void map_add(struct map *m, uint64_t key, uint64_t value);
bool map_remove(struct map *m, uint64_t key, uint64_t value);
/* for (uint32_t at = map_first(m, key); at; at = map_next(m, at)) m->entries[at].value */
uint32_t map_first(const struct map *m, uint64_t key);
uint32_t map_next(const struct map *m, uint32_t at);
uint64_t map_get(const struct map *m, uint64_t key);  /* the first; 0: none */

static inline void map_add_pointer(struct map *m, uint64_t key, const void *p) { map_add(m, key, (uintptr_t)p); }
static inline bool map_remove_pointer(struct map *m, uint64_t key, const void *p) { return map_remove(m, key, (uintptr_t)p); }
static inline void *map_get_pointer(const struct map *m, uint64_t key) { return (void *)(uintptr_t)map_get(m, key); }

/* SipHash-1-3. With the key of this process: what a server sends cannot be made to collide. */
uint64_t hash_bytes(const void *data, size_t len);
/* The same in every process: may be stored. */
uint64_t hash_stable(const void *data, size_t len);

#endif

/* listing.h: one mailbox's messages as a compact table in memory: by id, by name, and in the order of both. Private to
 * cache; the owner locks. About 50 bytes and the name for each message. */
#ifndef MF_CACHE_LISTING_H
#define MF_CACHE_LISTING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

struct listing_row {
	uint64_t key;              /* id << 26 | size_checked << 25 | 25 bits of the name's hash */
	uint64_t size;
	int64_t mtime, ctime;
	uint32_t uid;
	uint32_t name;             /* offset into names; of a free row: the next free one + 1 */
};

struct listing {
	uint64_t mailbox;
	struct listing_row *rows;  /* in no order, some free */
	uint32_t rows_used, rows_room, rows_free;
	uint32_t *by_id;           /* rows in ascending id */
	uint32_t *by_name;         /* rows in ascending name; NULL until it is asked for */
	uint32_t count, order_room;
	uint32_t *slots;           /* hash table of names, linear probing: row + 1, 0 is free */
	uint32_t slot_mask;
	char *names;
	size_t names_used, names_room, names_dead;
	_Atomic uint64_t last_use;
	size_t accounted;          /* bytes counted against the budget */
	uint64_t version;          /* changes with every change of the list of names */
};

struct listing *listing_create(uint64_t mailbox);
void listing_destroy(struct listing *l);
size_t listing_bytes(const struct listing *l);

/* Adds, or replaces what has this id. name NULL: the attributes of one that is there; nothing where it is not. */
void listing_put(struct listing *l, const struct entry *e, const char *name);
void listing_remove(struct listing *l, uint64_t id);       /* nothing where it is not there */
void listing_clear(struct listing *l);
/* Loading: add rows in any order, then settle once before anything else. */
void listing_load(struct listing *l, const struct entry *e, const char *name);
void listing_settle(struct listing *l);

static inline void listing_entry(const struct listing *l, uint32_t row, struct entry *ret)
{
	const struct listing_row *r = &l->rows[row];
	*ret = (struct entry){ .id = r->key >> 26, .mailbox = l->mailbox, .size = r->size, .mtime = r->mtime, .ctime = r->ctime,
		               .uid = r->uid, .size_checked = (r->key >> 25) & 1 };
}
static inline const char *listing_name(const struct listing *l, uint32_t row) { return l->names + l->rows[row].name; }

bool listing_find_name(const struct listing *l, const char *name, uint32_t *ret_row);
bool listing_find_id(const struct listing *l, uint64_t id, uint32_t *ret_row);
/* the first place in by_id with an id > after; count: none */
uint32_t listing_place_after(const struct listing *l, uint64_t after);
/* the first place in by_name, which must exist, with a name > name; count: none */
uint32_t listing_place_after_name(const struct listing *l, const char *name);
/* A new by_name for this state, to be put in by whoever holds the lock for writing; the caller owns it */
uint32_t *listing_sort_names(const struct listing *l);
void listing_use_names(struct listing *l, uint32_t *by_name);   /* takes it */

#endif

/* uidset.h: a growing set of UIDs as ranges, and its text in commands and responses (RFC 9051 "sequence-set"). */
#ifndef MF_SYNC_IMAP_UIDSET_H
#define MF_SYNC_IMAP_UIDSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "sync/imap/scan.h"
#include "sync/remote.h"

struct uidset {
	struct uid_range *items;
	size_t count, capacity;
	bool sorted;             /* kept while UIDs are added in rising order, as servers send them */
};
void uidset_init(struct uidset *set);
void uidset_finish(struct uidset *set);
void uidset_reset(struct uidset *set);
void uidset_add(struct uidset *set, uint32_t first, uint32_t last);
/* Sorted, merged, not overlapping; valid until the next change. */
struct uid_ranges uidset_ranges(struct uidset *set);
uint64_t uidset_size(struct uidset *set);
/* Adds what is in the text ("1:3,7") and between low and high, inclusive; "*" and a set that is none are false. */
bool uidset_scan(struct uidset *set, struct scan *s, uint32_t low, uint32_t high);
/* As text for a command, from range *at on, at most max bytes of it; *at becomes the first range that did not fit. */
void uid_ranges_write(struct uid_ranges ranges, size_t *at, size_t max, struct buf *to);

/* UIDs in any order, only to be asked for again: 8 bytes each. */
struct uidhash {
	uint32_t *slots;         /* 0: free */
	size_t count, size;      /* size: a power of two */
	uint64_t key;
};
void uidhash_finish(struct uidhash *h);    /* a zeroed one is fine, and empty */
bool uidhash_add(struct uidhash *h, uint32_t uid);  /* false: it was there */
bool uidhash_has(const struct uidhash *h, uint32_t uid);

#endif

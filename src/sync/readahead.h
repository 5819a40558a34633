/* readahead.h: recognises a reader that goes through a mailbox, and says what to fetch ahead of it.
 *
 * A walk is seen when one read follows another in the directory's order (readdir) or close behind in that of the names (a
 * shell's glob; the locale may shuffle names of one day, so order within a walk is not insisted on). Isolated reads start
 * nothing. The window grows while the reader keeps up, and sooner when it has to wait: each step of it costs a round trip.
 *
 * The owner guards it with its lock. Looking into the cache needs that lock released, so a read goes in steps:
 * note -> (probe) -> plan -> done. */
#ifndef MF_SYNC_READAHEAD_H
#define MF_SYNC_READAHEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"

#define READAHEAD_FIRST 8
#define READAHEAD_GROWTH 4
#define READAHEAD_USUAL 512             /* messages that are planned and not read yet, */
#define READAHEAD_USUAL_BYTES (24U << 20)
#define READAHEAD_MAX 2048              /* and of a reader that still has to wait, on a line that brings as many within seconds */
#define READAHEAD_BYTES (64U << 20)
#define READAHEAD_PROBES 12
#define READAHEAD_PROBE_ID 8            /* how far behind one read another may be to follow it */
#define READAHEAD_PROBE_NAME 64
#define READAHEAD_NEAR 2                /* so near that one such pair of reads makes a walk; else it takes three reads */

struct readahead;
struct readahead *readahead_create(void);
void readahead_destroy(struct readahead *r);    /* NULL is fine */
/* So many bytes are kept: what is planned is a quarter of them at most, else it would push itself out. 0: no limit */
void readahead_limit(struct readahead *r, uint64_t kept);

enum readahead_kind { READAHEAD_NONE, READAHEAD_PROBE, READAHEAD_PLAN };
struct readahead_step {
	enum readahead_kind kind;
	uint64_t message, mailbox;
	int64_t now_ms;
	/* PROBE: of which of these, likeliest first, is the message a successor? */
	uint64_t earlier[READAHEAD_PROBES];
	size_t count;
	/* PLAN: the `max` successors of `from` in this order, or those of them that come to so many bytes */
	unsigned walk;
	uint64_t serial, from;
	enum listing_order order;
	size_t max;
	uint64_t bytes;
};

/* A message was read. mailbox 0: not known, for a read that was answered from the disk. missing: it had to wait. */
void readahead_note(struct readahead *r, uint64_t mailbox, uint64_t message, bool missing, int64_t now_ms, struct readahead_step *ret);
/* What the index said, by order: the message that it follows (an index into step->earlier; -1: none), and how many are
 * between. *step becomes the next one. */
struct readahead_follows { int earlier; size_t between; };
void readahead_probed(struct readahead *r, struct readahead_step *step, const struct readahead_follows follows[2]);
/* The successors, in order (fewer than step->max: the end). Returns how many of them to fetch, from the first on; those that are
 * cached count as well, without weight. */
size_t readahead_planned(struct readahead *r, const struct readahead_step *step, const struct entry *entries, const bool *cached, size_t count);
size_t readahead_lead(const struct readahead *r);   /* messages planned and not read yet, over all walks */

#endif

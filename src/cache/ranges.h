/* ranges.h: which bytes of a body are there: sorted, separate ranges. Private to cache; the owner locks. */
#ifndef MF_CACHE_RANGES_H
#define MF_CACHE_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct range { uint64_t begin, end; };      /* end is not in it */
struct ranges { struct range *items; size_t count, room; };

void ranges_finish(struct ranges *r);
void ranges_add(struct ranges *r, uint64_t begin, uint64_t end);
bool ranges_have(const struct ranges *r, uint64_t begin, uint64_t end);
/* The first part of [begin, end) that is in none of them. false: there is none. */
bool ranges_first_gap(const struct ranges *r, uint64_t begin, uint64_t end, struct range *ret);

#endif

/* pace.h: how many bytes of bodies to have asked for on a connection, judged by how fast they have come. Times are given, in ms
 * of any clock that only goes forward.
 *
 * A line that is long and quick holds more than a few commands bring: with too little under way it is empty for a part of each
 * round trip. What a quick line brings within PACE_AHEAD_MS is as much as can be under way without anybody noticing, who wants
 * something else, that it comes first. As long as more is asked for than the line holds, the rate is the line's; with less it is what was
 * asked for in a round trip, and the answer grows as long as that is shorter than PACE_AHEAD_MS. */
#ifndef MF_SYNC_IMAP_PACE_H
#define MF_SYNC_IMAP_PACE_H

#include <stdint.h>

#define PACE_AHEAD_MS 250
#define PACE_LEAST_MS 20      /* the shortest time that a rate is taken from */

struct pace {
	int64_t since_ms;
	uint64_t came;        /* bytes since then */
	uint64_t rate;        /* bytes in a second; 0: not known yet */
};

void pace_begin(struct pace *p, int64_t now_ms);
void pace_came(struct pace *p, uint64_t bytes);
void pace_look(struct pace *p, int64_t now_ms);       /* often */
uint64_t pace_ahead(const struct pace *p);            /* bytes that may be under way; 0: not known yet */

#endif

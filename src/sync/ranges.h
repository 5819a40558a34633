/* ranges.h: which windows of a large message to ask for, of those bytes that its body does not have. The owner guards it.
 *
 * A first or random read fetches about what it asked for; a reader that goes on where the last window ended makes the
 * window double, and has the next one under way while it reads the last. */
#ifndef MF_SYNC_RANGES_H
#define MF_SYNC_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/body.h"

#define RANGES_ALIGN (32U << 10)
#define RANGES_WINDOW_MAX (4U << 20)
#define RANGES_MAX 16

struct window { uint64_t offset, length; bool sent; };
struct ranges {
	uint64_t size;          /* of the message, as far as it is known */
	bool verified;          /* it has been seen to end there; until then its end is asked for, though the body has it */
	uint64_t last, end;     /* the newest window of the sequential reader; end 0: none yet */
	uint64_t grow;          /* the length of the next one */
	struct window windows[RANGES_MAX];
	size_t count;
};

void ranges_init(struct ranges *r, uint64_t size);
/* Plans what [offset, offset + length) needs beyond what is there, planned or under way. body: what is there; NULL:
 * nothing. missing: whether some of these bytes are not; false for a read that was answered, which only tells where the
 * reader is. false: no room, ask again when a window is done. */
bool ranges_want(struct ranges *r, const struct body *body, uint64_t offset, uint64_t length, bool missing);
bool ranges_next(struct ranges *r, struct window *ret);      /* the next one to send, marked as sent */
bool ranges_pending(const struct ranges *r);                 /* whether there is one to send */
void ranges_done(struct ranges *r, uint64_t offset);         /* the sent window that begins there */
void ranges_unsend(struct ranges *r);                        /* the connection is gone: all are to be sent again */
void ranges_drop_unsent(struct ranges *r);                   /* nobody waits any more */

#endif

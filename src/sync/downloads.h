/* downloads.h: bodies that are wanted, in queues, and the commands that are under way for them. Private to sync/.
 *
 * downloads.c keeps who waits for what (under account.lock); bodies.c moves bytes on a session's thread. */
#ifndef MF_SYNC_DOWNLOADS_H
#define MF_SYNC_DOWNLOADS_H

#include "sync/engine.h"

struct flight {                     /* one command */
	struct flight *next;
	uint64_t mailbox;
	char *raw;
	uint32_t uidvalidity;
	uint32_t *uids;
	struct download **items;    /* NULL once it has ended */
	size_t count, left;
	uint64_t offset, length;    /* a window of the single item; length 0: whole messages */
	uint64_t overshoot;         /* of length, beyond the size that is believed: tells whether that is true */
};

/* The next command, for what is most urgent among the queues below `end`; NULL: nothing is queued there. raw and
 * uidvalidity are still to be filled in. */
struct flight *downloads_pick_locked(struct account *a, enum queue end, bool ranges);
void flight_free(struct flight *f);
/* The command's word on one item; frees the download if nothing is left to do for it. */
void download_landed_locked(struct account *a, struct flight *f, size_t item);
void download_queue_locked(struct account *a, struct download *d, enum queue queue);
/* Answers those whose bytes are there (all, for a failure or a whole body). */
void download_tell_locked(struct account *a, struct download *d, enum mf_err result, bool all);
/* Nothing more comes: a failure for who waits. */
void download_fail_locked(struct account *a, struct download *d, enum mf_err result);
void download_settle_locked(struct account *a, struct download *d);  /* frees it if nobody needs it any more */
/* Where its bytes are: the entry, or what is to become it (cache/journal.h). uid 0: it is on its way, and has a number soon. */
enum mf_err download_source(struct account *a, uint64_t message, struct entry *ret);
void download_park_locked(struct account *a, struct download *d);    /* until its mailbox has been synchronised */

#endif

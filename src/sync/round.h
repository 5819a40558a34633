/* round.h: one round of replay: what is ready in the journal is picked, sent as few commands, and settled by their answers. On the
 * worker's thread, no lock held. */
#ifndef MF_SYNC_ROUND_H
#define MF_SYNC_ROUND_H

#include "cache/journal.h"
#include "sync/engine.h"

#define APPENDS_AT_ONCE 200     /* open files */
#define STUCK_MS 2000           /* what waits for a mailbox that is being made or numbered anew */

struct round {
	struct account *account;
	struct session *session;
	struct op *ops;
	size_t op_count;
	size_t replaced;                /* from here on: removals of what an APPEND before them takes the place of, by REPLACE */
	struct group *groups;           /* round_send.c: each becomes a command */
	size_t group_count, group_room;
	size_t appends;
	uint64_t *spooled;              /* messages to be appended, */
	enum mf_err *spooled_result;    /* and whether their bytes are on the disk */
	size_t spooled_count;
	unsigned caps;
	int64_t now_ms;                 /* wall clock: what was due then was looked at */
	bool waits;                     /* for a mailbox to be read; or what others wait for has changed: it is looked at again soon */
	bool unsaid;                    /* where some message is that was placed, or flagged, is to be found out (doubts.c) */
};

/* Leaves in .ops what can be sent now, of what is there: all about messages that is ready, or one change of a mailbox. What never
 * can is parked, or gone. */
enum mf_err round_pick(struct round *r);
/* copies.c: false: the message is not to be appended, since the server has put it there by itself, or not yet: it is looked for first */
enum mf_err copies_look(struct round *r, const struct op *op, bool *ret_send);
/* Marks it as sent, sends it, and deals with each answer. */
enum mf_err round_send(struct round *r);
void round_finish(struct round *r);

/* Ends a transaction: commits it if e is MF_OK */
enum mf_err round_commit(struct txn *t, enum mf_err e);
/* The server's bytes for a mailbox; NULL: it has none now. The caller frees; *ret as cache_mailbox() has it. round_raw_of: one that is
 * gone here has those that the operation has kept */
char *round_raw_of(struct cache *cache, uint64_t mailbox, const struct op *op, struct mailbox *ret);
char *round_raw_now(struct cache *cache, uint64_t mailbox, struct mailbox *ret);

#endif

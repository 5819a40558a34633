/* park.h: requests that wait for the account, outside of libfuse's workers.
 *
 * A parked request is answered exactly once, by whichever comes first: the want's end, an interrupt of the reader (EINTR),
 * the deadline, or the end of the mount. The others find it taken. Whoever answers without the want's end cancels the
 * want; the download goes on for others.
 *
 * The deadline counts time without progress: it moves on while .progress() changes, up to ten times its length. */
#ifndef MF_FS_PARK_H
#define MF_FS_PARK_H

#include <fuse3/fuse_lowlevel.h>
#include <stdint.h>

#include "sync/account.h"

struct parking;
struct park;

struct park_call {
	/* as account_want_...(): see account.h. Called once, by park() */
	bool (*start)(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret);
	bool (*cancel)(void *context, struct want *want); /* want_cancel() */
	uint64_t (*progress)(void *context);   /* any number that changes while something moves */
	uint64_t (*also_locked)(void *context);/* a second directory that the kernel keeps locked (RMDIR); NULL: there is none */
	/* Replies to req and frees context; the last call. result MF_CANCELLED: interrupted, EINTR. */
	void (*answer)(void *context, fuse_req_t req, enum mf_err result);
};

struct parking *parking_create(void);   /* starts the deadline's thread */
/* Answers what is parked with MF_OFFLINE, and from now on whatever comes. */
void parking_answer_all(struct parking *lot);
/* The same, and returns when nothing of the account refers to it. NULL is fine. */
void parking_destroy(struct parking *lot);

/* directory: the number of the directory whose lock the kernel holds meanwhile (LOOKUP, READDIR, RMDIR), else 0. window_ms: the longest
 * time without progress. req may be NULL in tests. May answer before it returns. */
void park(struct parking *lot, fuse_req_t req, uint64_t directory, int64_t window_ms, const struct park_call *call, void *context);
/* whether a parked request keeps the kernel's lock of this directory */
bool parking_holds(struct parking *lot, uint64_t directory);
/* what libfuse calls for an interrupt; data is the struct park */
void park_interrupted(fuse_req_t req, void *data);
/* for tests: the most recently parked one that is not answered; NULL: none */
struct park *parking_last(struct parking *lot);

#endif

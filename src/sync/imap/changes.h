/* changes.h: the parts of imap_changes().
 *
 * Each mailbox goes through stages. MAIN is what its method asks for, by the best rung of the ladder that the server and
 * the mailbox allow (QRESYNC, CONDSTORE, all flags). What that leaves open is done afterwards, with the mailbox selected
 * again if another one has been since: SEARCH finds out what MAIN should have told and did not, REFETCH asks for it by
 * UID, and SALVAGE asks for each item alone, so that a message that cannot be parsed as a whole is still told. */
#ifndef MF_SYNC_IMAP_CHANGES_H
#define MF_SYNC_IMAP_CHANGES_H

#include "sync/imap/engine.h"

enum rung { RUNG_QRESYNC, RUNG_CONDSTORE, RUNG_PLAIN, RUNG_NEW, RUNG_ALL };
enum stage { STAGE_MAIN, STAGE_SEARCH, STAGE_REFETCH, STAGE_SALVAGE, STAGE_DONE };
/* what a command of ours asks: imap_command.first. PRESENT: who of those known exists; MISSING: who is new; LISTED: both */
enum ask { ASK_RIGHTS, ASK_SELECT, ASK_NEW, ASK_CHANGED, ASK_FLAGS, ASK_PRESENT, ASK_CHUNK, ASK_MISSING, ASK_LISTED, ASK_REFETCH, ASK_SALVAGE };

#define CHUNK 500        /* messages of a FETCH; one of these is some 300 KB */
#define CHUNKS_AHEAD 20   /* 6 MB: more than one round trip of a long fast line holds */
#define MESSAGES_MAX 20000000U  /* no mailbox has more; a server that says so is not asked for them */
#define COMMANDS_AHEAD 64

struct salvaged {        /* a message in SALVAGE: what has come of it */
	uint32_t uid;
	bool seen;           /* anything at all has come: it exists */
	struct remote_message message;
	char *keywords, *email_id, *header;
};

struct box {
	const struct mailbox_since *since;
	size_t index;
	enum rung rung;
	enum stage stage;
	unsigned step;              /* of the stage: what has been sent */
	size_t pending;             /* its commands under way */
	bool opened, issued;        /* told; everything of the stage has been sent */
	bool in_place;              /* the mailbox was selected already */
	bool parameter;             /* SELECT had one */
	bool again;                 /* SELECT was refused for its parameter: the rung below */
	bool distrusted;            /* what the rung told cannot be right */
	bool found;                 /* a SEARCH response has come */
	bool search_failed;
	bool failed;                /* some FETCH of new messages was refused or could not be attributed */
	enum mf_err result;
	unsigned rights;            /* as MYRIGHTS says; 0: it has not */
	struct mailbox_status status;
	uint32_t low;               /* nothing below is wanted */
	uint32_t top;               /* the highest UID met */
	struct uidset present;      /* below since->uidnext */
	bool present_known;
	uint32_t chunk_high, chunk_low;   /* sequence numbers still to be asked for, from the top */
	struct uidhash told;        /* new messages */
	struct uidset open;         /* new ones that were met and not told; told ones may be among them */
	uint32_t open_from;         /* REFETCH and SALVAGE have got this far in it */
	struct salvaged *batch;
	size_t batch_count;
	size_t batch_bytes;         /* of their headers */
	bool one_by_one;            /* a set was refused because of one message in it */
	bool refused;               /* in this batch; or it is too large */
};

struct changes {
	struct imap *s;
	const struct change_sink *sink;
	struct box *boxes;
	size_t count;
	size_t *queue;              /* of boxes, whose stage is to be sent; each is in it once at most */
	size_t queue_head, queue_len;
	size_t closed;
};

/* changes.c */
enum mf_err changes_send(struct changes *v, struct box *b, enum ask ask, const char *what);
enum mf_err changes_tell(struct changes *v, struct box *b, const struct remote_message *m);
const char *changes_items(const struct imap *s, char to[static 256]);
/* salvage.c */
uint64_t salvage_open_count(struct box *b);                    /* how many in .open are not told */
enum mf_err salvage_issue(struct changes *v, struct box *b);   /* STAGE_REFETCH and STAGE_SALVAGE: sends the next commands */
void salvage_take(struct box *b, const struct imap_fetch *f);
void salvage_drop(struct box *b);                             /* frees the batch */

#endif

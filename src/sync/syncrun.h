/* syncrun.h: one remote_changes under way: the rows that have come and are not written yet. Private to syncmail.
 *
 * A full batch of rows is written by a thread of the run's own, while the session goes on reading the network. Everything
 * else here is the session's thread, and waits for that one where it looks at the index. */
#ifndef MF_SYNC_SYNCRUN_H
#define MF_SYNC_SYNCRUN_H

#include "base/pool.h"
#include "sync/crossing.h"
#include "sync/engine.h"

struct sync_item {
	uint64_t id;
	struct mailbox m;                /* as it was before */
	enum change_method method;       /* asked for */
	struct rung rung;                /* used */
	uint32_t max_messages;
	struct mailbox_status opened;
	bool read_only;
	bool has_present;
	struct uid_set present;          /* CHANGES_ALL: what has been told */
	uint64_t first_new;              /* the lowest new row */
	uint64_t received;               /* new messages */
	int64_t first_ms;                /* when the first of them came */
	uint64_t written;                /* of them, in the index; guarded by the account's lock */
	struct crossing *crossing;       /* of everything read anew: what was known, where another protocol may be why */
	bool renumbered, reread;         /* SELECT said another UIDVALIDITY; it is read again because of that */
	bool distrusted;                 /* not complete: to be compared in full, */
	bool lacking;                    /* or read anew: messages are missing that comparing does not bring */
	bool sane;                       /* the index is what the server says */
	bool disturbed;                  /* or as before: what it was compared with changed meanwhile, */
	unsigned settled;                /* as the account's .settled, which was this when it began, has */
	bool nameless;                   /* the server may know it by another name by now, which LIST tells */
	bool unread;                     /* the server has it, and does not let it be read, */
	bool given_up;                   /* but ends the connection over it, again and again */
	bool done;
};

#define BATCHES 4                        /* a reader that is faster for a while need not wait at each of them */

struct sync_row;
struct sync_batch {
	struct sync_row *rows;
	struct pool texts;               /* of the rows */
	size_t count, bytes;
	int64_t first_ms;                /* when its first row came */
};
struct sync_run {
	struct session *session;
	struct account *account;
	struct sync_item *items, **order;    /* order: as given to remote_changes */
	size_t count;
	struct sync_batch batches[BATCHES], *gathered;   /* a ring: those before the gathered one are the writer's, or empty */
	pthread_t writer;
	bool has_writer;
	pthread_mutex_t lock;            /* guards what follows */
	pthread_cond_t turned;
	size_t handed, written;          /* batches, ever: what is between is the writer's */
	enum mf_err failed;              /* the writer's first failure: nothing is written after it */
	bool over;
};

struct sync_run *syncrun_create(struct session *s, const uint64_t *mailboxes, size_t count);
void syncrun_destroy(struct sync_run *run);
enum mf_err syncrun_message(struct sync_run *run, struct sync_item *item, const struct remote_message *message);
enum mf_err syncrun_flags(struct sync_run *run, struct sync_item *item, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq);
enum mf_err syncrun_vanished(struct sync_run *run, struct sync_item *item, const struct uid_ranges *uids);
enum mf_err syncrun_gone(struct sync_run *run, struct sync_item *item, uint32_t uid);
enum mf_err syncrun_trimmed(struct sync_run *run, struct sync_item *item, uint32_t uid);   /* over max-messages */
/* Everything that has come is in the index. */
enum mf_err syncrun_flush(struct sync_run *run);
/* Writes the rows that are left, and with them that the mailbox is complete up to this status. */
enum mf_err syncrun_complete(struct sync_run *run, struct sync_item *item, const struct mailbox_status *status, uint32_t first_uid);
enum mf_err syncrun_begin_mailbox(struct sync_run *run, struct sync_item *item);
enum mf_err syncrun_renumber(struct sync_run *run, struct sync_item *item);

#endif

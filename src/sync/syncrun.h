/* syncrun.h: one remote_changes under way: the rows that have come and are not written yet. Private to syncmail. */
#ifndef MF_SYNC_SYNCRUN_H
#define MF_SYNC_SYNCRUN_H

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
	bool renumbered, reread;         /* SELECT said another UIDVALIDITY; it is read again because of that */
	bool distrusted;                 /* not complete: to be compared in full */
	bool done;
};

struct sync_row;
struct sync_run {
	struct session *session;
	struct account *account;
	struct sync_item *items, **order;    /* order: as given to remote_changes */
	size_t count;
	struct sync_row *rows;
	size_t row_count, row_bytes;
	int64_t first_row_ms;
};

struct sync_run *syncrun_create(struct session *s, const uint64_t *mailboxes, size_t count);
void syncrun_destroy(struct sync_run *run);
enum mf_err syncrun_message(struct sync_run *run, struct sync_item *item, const struct remote_message *message);
enum mf_err syncrun_flags(struct sync_run *run, struct sync_item *item, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq);
enum mf_err syncrun_vanished(struct sync_run *run, struct sync_item *item, const struct uid_ranges *uids);
enum mf_err syncrun_gone(struct sync_run *run, struct sync_item *item, uint32_t uid);
enum mf_err syncrun_flush(struct sync_run *run);
/* Writes the rows that are left, and with them that the mailbox is complete up to this status. */
enum mf_err syncrun_complete(struct sync_run *run, struct sync_item *item, const struct mailbox_status *status, uint32_t first_uid);
enum mf_err syncrun_begin_mailbox(struct sync_run *run, struct sync_item *item);
enum mf_err syncrun_renumber(struct sync_run *run, struct sync_item *item);

#endif

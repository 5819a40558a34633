#include "sync/syncrun.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

#define ROWS 500                 /* in one transaction */
#define ROW_BYTES (1U << 20)
#define GATHER_MS 250            /* a slow server's messages show up after this long at the latest */
#define HOLD_MS 40               /* no transaction is held longer */

enum row_kind { ROW_MESSAGE, ROW_FLAGS, ROW_GONE };
struct sync_row {
	enum row_kind kind;
	bool is_new;
	struct sync_item *item;
	uint32_t uid;
	unsigned flags;
	uint64_t size, modseq;
	int64_t internal_date;
	char *keywords, *email_id;
	struct mail_summary summary;
};

struct sync_run *syncrun_create(struct session *s, const uint64_t *mailboxes, size_t count)
{
	struct sync_run *run = MF_NEW(struct sync_run);
	run->session = s;
	run->account = s->account;
	run->count = count;
	run->items = mf_alloc_array(count, sizeof *run->items);
	run->order = mf_alloc_array(count, sizeof(struct sync_item *));
	run->rows = mf_alloc_array(ROWS, sizeof *run->rows);
	for (size_t i = 0; i < count; i++)
		run->items[i].id = mailboxes[i];
	return run;
}

static void rows_drop(struct sync_run *run)
{
	for (size_t i = 0; i < run->row_count; i++) {
		free(run->rows[i].keywords);
		free(run->rows[i].email_id);
		if (run->rows[i].kind == ROW_MESSAGE)
			mail_summary_finish(&run->rows[i].summary);
	}
	run->row_count = run->row_bytes = 0;
}

void syncrun_destroy(struct sync_run *run)
{
	rows_drop(run);
	for (size_t i = 0; i < run->count; i++) {
		mailbox_finish(&run->items[i].m);
		uid_set_finish(&run->items[i].present);
	}
	free(run->items);
	free(run->order);
	free(run->rows);
	free(run);
}

/* --- gathering -------------------------------------------------------------------------------------------------------- */

static enum mf_err run_row(struct sync_run *run, const struct sync_row *row, size_t bytes)
{
	if (run->row_count == 0)
		run->first_row_ms = clock_mono_ms();
	run->rows[run->row_count++] = *row;
	run->row_bytes += bytes;
	bool full = run->row_count == ROWS || run->row_bytes > ROW_BYTES;
	bool late = run->row_count % 32 == 0 && clock_mono_ms() - run->first_row_ms > GATHER_MS;
	return full || late ? syncrun_flush(run) : MF_OK;
}

enum mf_err syncrun_message(struct sync_run *run, struct sync_item *item, const struct remote_message *message)
{
	struct sync_row row = {
		.kind = ROW_MESSAGE, .item = item, .uid = message->uid, .flags = message->flags, .modseq = message->modseq,
		.size = message->has_size ? message->size : 0, .internal_date = message->internal_date,
		.is_new = item->m.complete && item->m.uidnext && message->uid >= item->m.uidnext && !item->reread,
		.keywords = mf_strdup(message->keywords ? message->keywords : ""),
		.email_id = message->email_id ? mf_strdup(message->email_id) : NULL,
	};
	mail_summary_parse(message->header ? message->header : "", message->header ? message->header_len : 0, row.size, &row.summary);
	item->received++;
	return run_row(run, &row, message->header_len + 256);
}

enum mf_err syncrun_flags(struct sync_run *run, struct sync_item *item, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	struct sync_row row = {.kind = ROW_FLAGS, .item = item, .uid = uid, .flags = flags, .modseq = modseq, .keywords = mf_strdup(keywords ? keywords : "")};
	return run_row(run, &row, 64);
}

enum mf_err syncrun_gone(struct sync_run *run, struct sync_item *item, uint32_t uid)
{
	return run_row(run, &(struct sync_row){.kind = ROW_GONE, .item = item, .uid = uid}, 32);
}

enum mf_err syncrun_vanished(struct sync_run *run, struct sync_item *item, const struct uid_ranges *uids)
{
	struct uid_id *local = NULL;
	size_t count = 0;
	enum mf_err e = syncrun_flush(run);
	if (e == MF_OK)
		e = cache_uids(run->account->cache, item->id, &local, &count);
	if (e != MF_OK)
		return e;
	uint32_t *gone = NULL;
	size_t n = reconcile_vanished(local, count, uids->items, uids->count, &gone);
	for (size_t i = 0; i < n && e == MF_OK; i++)
		e = syncrun_gone(run, item, gone[i]);
	free(gone);
	free(local);
	return e;
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

static enum mf_err row_put(struct txn *t, struct sync_row *row)
{
	uint64_t id = 0;
	enum mf_err e = txn_message_put(t, &(struct message_put){
		.mailbox = row->item->id, .uid = row->uid, .size = row->size, .modseq = row->modseq, .internal_date = row->internal_date,
		.flags = row->flags, .keywords = row->keywords, .email_id = row->email_id, .summary = &row->summary, .is_new = row->is_new,
	}, &id);
	if (e == MF_OK && (row->item->first_new == 0 || id < row->item->first_new))
		row->item->first_new = id;
	return e;
}

static enum mf_err row_write(struct txn *t, struct sync_row *row)
{
	enum mf_err e = MF_OK;
	switch (row->kind) {
	case ROW_MESSAGE:
		return row_put(t, row);
	case ROW_FLAGS:
		e = txn_message_flags(t, row->item->id, row->uid, row->flags, row->keywords, row->modseq);
		break;
	case ROW_GONE:
		e = txn_message_vanished(t, row->item->id, row->uid);
		break;
	}
	return e == MF_NOT_FOUND ? MF_OK : e; /* told of a message that is not wanted here, or gone already */
}

/* Leaves a transaction open, with the last rows in it. */
static enum mf_err rows_write(struct sync_run *run, struct txn **ret)
{
	struct txn *t;
	enum mf_err e = cache_begin(run->account->cache, &t);
	if (e != MF_OK)
		return e;
	int64_t begun = clock_mono_ms();
	for (size_t i = 0; i < run->row_count; i++) {
		if (i % 16 == 15 && clock_mono_ms() - begun >= HOLD_MS) {
			if ((e = txn_commit(t)) != MF_OK || (e = cache_begin(run->account->cache, &t)) != MF_OK)
				return e;
			begun = clock_mono_ms();
		}
		if ((e = row_write(t, &run->rows[i])) != MF_OK) {
			txn_rollback(t);
			return e;
		}
	}
	*ret = t;
	return MF_OK;
}

static void run_count(struct sync_run *run)
{
	pthread_mutex_lock(&run->account->lock);
	run->session->progress.done += run->row_count;
	pthread_mutex_unlock(&run->account->lock);
}

enum mf_err syncrun_flush(struct sync_run *run)
{
	if (run->row_count == 0)
		return MF_OK;
	struct txn *t;
	enum mf_err e = rows_write(run, &t);
	if (e == MF_OK)
		e = txn_commit(t);
	run_count(run);
	rows_drop(run);
	return e;
}

enum mf_err syncrun_complete(struct sync_run *run, struct sync_item *item, const struct mailbox_status *status, uint32_t first_uid)
{
	const struct mailbox *m = &item->m;
	uint32_t validity = status->uidvalidity ? status->uidvalidity : item->opened.uidvalidity;
	bool same = m->complete && m->uidvalidity == validity && m->uidnext == status->uidnext && m->modseq == status->modseq
		&& m->first_uid == first_uid && (bool)(m->flags & MAILBOX_READONLY) == item->read_only;
	if (run->row_count == 0 && same)
		return MF_OK;
	struct txn *t;
	enum mf_err e = rows_write(run, &t);
	if (e == MF_OK) {
		e = txn_mailbox_synced(t, item->id, true, validity, status->uidnext, status->modseq, first_uid, item->read_only);
		if (e == MF_OK)
			e = txn_commit(t);
		else
			txn_rollback(t);
	}
	run_count(run);
	rows_drop(run);
	return e;
}

static void run_renumbering(struct sync_run *run, const struct sync_item *item)
{
	pthread_mutex_lock(&run->account->lock);
	work_get_locked(run->account, item->id)->renumbering = true;
	pthread_mutex_unlock(&run->account->lock);
}

enum mf_err syncrun_begin_mailbox(struct sync_run *run, struct sync_item *item)
{
	const struct mailbox *m = &item->m;
	uint32_t validity = item->opened.uidvalidity;
	if (m->uidvalidity == validity)
		return MF_OK;
	enum mf_err e = syncrun_flush(run);
	struct txn *t;
	if (e != MF_OK || (e = cache_begin(run->account->cache, &t)) != MF_OK)
		return e;
	if (m->uidvalidity)
		run_renumbering(run, item);
	if (m->uidvalidity)
		e = txn_mailbox_renumbered(t, item->id, validity);
	if (e == MF_OK)
		e = txn_mailbox_synced(t, item->id, false, validity, 0, 0, 0, item->read_only);
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	return txn_commit(t);
}

enum mf_err syncrun_renumber(struct sync_run *run, struct sync_item *item)
{
	struct txn *t;
	run_renumbering(run, item);
	enum mf_err e = cache_begin(run->account->cache, &t);
	if (e != MF_OK)
		return e;
	e = txn_mailbox_renumbered(t, item->id, item->opened.uidvalidity);
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	return txn_commit(t);
}

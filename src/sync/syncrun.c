#include "sync/syncrun.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"

#define ROWS 512                 /* in one transaction; a multiple of PUTS_MAX */
#define ROW_BYTES (1U << 20)
#define GATHER_MS 250            /* a slow server's messages show up after this long at the latest */
#define HOLD_MS 40               /* no transaction is held longer */
#define MOMENT_MS 250            /* the rest of a list that a reader need not wait for before he begins */

enum row_kind { ROW_MESSAGE, ROW_FLAGS, ROW_GONE, ROW_TRIMMED };
struct sync_row {
	enum row_kind kind;
	bool is_new;
	struct sync_item *item;
	uint32_t uid;
	unsigned flags;
	uint64_t size, modseq;
	int64_t internal_date;
	char *keywords, *email_id;       /* as the summary's texts in the batch's pool: many small allocations that another thread frees cost more than they hold */
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
	for (size_t i = 0; i < BATCHES; i++)
		run->batches[i].rows = mf_alloc_array(ROWS, sizeof(struct sync_row));
	run->gathered = &run->batches[0];
	pthread_mutex_init(&run->lock, NULL);
	pthread_cond_init(&run->turned, NULL);
	for (size_t i = 0; i < count; i++)
		run->items[i].id = mailboxes[i];
	return run;
}

static void batch_drop(struct sync_batch *batch)
{
	pool_reset(&batch->texts);
	batch->count = batch->bytes = 0;
}

static void writer_stop(struct sync_run *run)
{
	if (!run->has_writer)
		return;
	pthread_mutex_lock(&run->lock);
	run->over = true;
	pthread_cond_broadcast(&run->turned);
	pthread_mutex_unlock(&run->lock);
	pthread_join(run->writer, NULL);
}

void syncrun_destroy(struct sync_run *run)
{
	writer_stop(run);
	for (size_t i = 0; i < BATCHES; i++) {
		pool_finish(&run->batches[i].texts);
		free(run->batches[i].rows);
	}
	for (size_t i = 0; i < run->count; i++) {
		mailbox_finish(&run->items[i].m);
		uid_set_finish(&run->items[i].present);
		crossing_destroy(run->items[i].crossing);
	}
	free(run->items);
	free(run->order);
	pthread_cond_destroy(&run->turned);
	pthread_mutex_destroy(&run->lock);
	free(run);
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

/* How many rows from this one on are written together: messages of one mailbox */
static size_t rows_together(const struct sync_batch *batch, size_t at)
{
	const struct sync_row *first = &batch->rows[at];
	size_t n = 1;
	while (first->kind == ROW_MESSAGE && n < PUTS_MAX && at + n < batch->count && first[n].kind == ROW_MESSAGE && first[n].item == first->item)
		n++;
	return n;
}

static enum mf_err messages_put(struct txn *t, const struct sync_row *rows, size_t count)
{
	struct message_put puts[PUTS_MAX] = {0};
	uint64_t ids[PUTS_MAX];
	struct sync_item *item = rows->item;
	for (size_t i = 0; i < count; i++)
		puts[i] = (struct message_put){
			.mailbox = item->id, .uid = rows[i].uid, .size = rows[i].size, .modseq = rows[i].modseq, .internal_date = rows[i].internal_date,
			.flags = rows[i].flags, .keywords = rows[i].keywords, .email_id = rows[i].email_id, .summary = &rows[i].summary, .is_new = rows[i].is_new,
		};
	enum mf_err e = txn_messages_put(t, puts, count, ids);
	for (size_t i = 0; i < count && e == MF_OK; i++)
		if (item->first_new == 0 || ids[i] < item->first_new)
			item->first_new = ids[i];
	return e;
}

static enum mf_err row_write(struct txn *t, const struct sync_row *row, size_t together)
{
	enum mf_err e = MF_OK;
	switch (row->kind) {
	case ROW_MESSAGE:
		e = messages_put(t, row, together);
		break;
	case ROW_FLAGS:
		e = txn_message_flags(t, row->item->id, row->uid, row->flags, row->keywords, row->modseq);
		break;
	case ROW_GONE:
		e = txn_message_vanished(t, row->item->id, row->uid);
		break;
	case ROW_TRIMMED:
		e = txn_message_trimmed(t, row->item->id, row->uid);
		break;
	}
	return e == MF_NOT_FOUND ? MF_OK : e; /* told of a message, or of a mailbox, that is not wanted here, or gone already */
}

/* Leaves a transaction open, with the last rows in it. */
static enum mf_err rows_write(struct sync_run *run, const struct sync_batch *batch, struct txn **ret)
{
	struct txn *t;
	enum mf_err e = cache_begin(run->account->cache, &t);
	if (e != MF_OK)
		return e;
	int64_t begun = clock_mono_ms();
	for (size_t i = 0, n; i < batch->count; i += n) {
		if (clock_mono_ms() - begun >= HOLD_MS) {
			if ((e = txn_commit(t)) != MF_OK || (e = cache_begin(run->account->cache, &t)) != MF_OK)
				return e;
			begun = clock_mono_ms();
		}
		n = rows_together(batch, i);
		if ((e = row_write(t, &batch->rows[i], n)) != MF_OK) {
			txn_rollback(t);
			return e;
		}
	}
	*ret = t;
	return MF_OK;
}

/* More than half is here, and at the pace so far the rest comes in a moment. Only of a mailbox that was never read before: nothing comes
 * back there under an id that a reader has passed. */
static bool most_is_here(const struct sync_item *item, int64_t now_ms)
{
	uint64_t newest = item->rung.newest, all = item->opened.messages;
	if (newest && newest < all)
		all = newest;
	if (item->rung.method != CHANGES_ALL || item->m.uidvalidity || item->written * 2 <= all || item->written >= all)
		return false;
	return (uint64_t)(now_ms - item->first_ms) * (all - item->written) / item->written <= MOMENT_MS;
}

/* Who waits for most of a list need not wait for the end of it; nor who has read that, for some more. */
static void tell_most_locked(struct account *a, const struct sync_item *item)
{
	struct mailbox_work *w = work_get_locked(a, item->id);
	w->most_is_here = w->most_is_here || most_is_here(item, clock_mono_ms());
	if (w->most_is_here)
		parts_most_done_locked(a, &w->running_waiters);
}

static void batch_finish(struct sync_run *run, struct sync_batch *batch, enum mf_err result)
{
	pthread_mutex_lock(&run->account->lock);
	run->session->progress.done += batch->count;
	for (size_t i = 0; i < batch->count && result == MF_OK; i++) {
		struct sync_item *item = batch->rows[i].item;
		item->written += batch->rows[i].kind == ROW_MESSAGE;
		if (i + 1 == batch->count || batch->rows[i + 1].item != item)
			tell_most_locked(run->account, item);
	}
	pthread_mutex_unlock(&run->account->lock);
	batch_drop(batch);
}

static enum mf_err batch_write(struct sync_run *run, struct sync_batch *batch)
{
	struct txn *t;
	enum mf_err e = rows_write(run, batch, &t);
	if (e == MF_OK)
		e = txn_commit(t);
	batch_finish(run, batch, e);
	return e;
}

/* --- the writer --------------------------------------------------------------------------------------------------------- */

static void *writer_main(void *context)
{
	struct sync_run *run = context;
	pthread_mutex_lock(&run->lock);
	for (;;) {
		while (run->written == run->handed && !run->over)
			pthread_cond_wait(&run->turned, &run->lock);
		if (run->written == run->handed)
			break;
		struct sync_batch *batch = &run->batches[run->written % BATCHES];
		enum mf_err e = run->failed;
		pthread_mutex_unlock(&run->lock);
		if (e == MF_OK)
			e = batch_write(run, batch);
		else
			batch_drop(batch);
		pthread_mutex_lock(&run->lock);
		run->written++;
		run->failed = e;
		pthread_cond_broadcast(&run->turned);
	}
	pthread_mutex_unlock(&run->lock);
	return NULL;
}

/* Until no more than so many of the batches that were handed over are left. Local work only: the writer never waits for the network. */
static enum mf_err writer_catch_up(struct sync_run *run, size_t left)
{
	pthread_mutex_lock(&run->lock);
	while (run->handed - run->written > left)
		pthread_cond_wait(&run->turned, &run->lock);
	enum mf_err e = run->failed;
	pthread_mutex_unlock(&run->lock);
	return e;
}

static enum mf_err writer_settle(struct sync_run *run)
{
	return writer_catch_up(run, 0);
}

static enum mf_err run_hand_over(struct sync_run *run)
{
	enum mf_err e = writer_catch_up(run, BATCHES - 2); /* a place for the next one to be gathered in */
	if (e != MF_OK)
		return e;
	if (!run->has_writer)
		run->has_writer = pthread_create(&run->writer, NULL, writer_main, run) == 0;
	if (!run->has_writer)
		return batch_write(run, run->gathered);
	pthread_mutex_lock(&run->lock);
	run->handed++;
	pthread_cond_broadcast(&run->turned);
	pthread_mutex_unlock(&run->lock);
	run->gathered = &run->batches[run->handed % BATCHES];
	return MF_OK;
}

enum mf_err syncrun_flush(struct sync_run *run)
{
	enum mf_err e = writer_settle(run);
	if (e != MF_OK || run->gathered->count == 0)
		return e;
	return batch_write(run, run->gathered);
}

/* --- gathering -------------------------------------------------------------------------------------------------------- */

static enum mf_err run_row(struct sync_run *run, const struct sync_row *row, size_t bytes)
{
	struct sync_batch *batch = run->gathered;
	if (batch->count == 0)
		batch->first_ms = clock_mono_ms();
	batch->rows[batch->count++] = *row;
	batch->bytes += bytes;
	bool full = batch->count == ROWS || batch->bytes > ROW_BYTES;
	bool late = batch->count % 32 == 0 && clock_mono_ms() - batch->first_ms > GATHER_MS;
	return full || late ? run_hand_over(run) : MF_OK;
}

static void read_summary(struct pool *texts, const struct remote_message *message, uint64_t size, struct mail_summary *ret)
{
	struct mail_summary s;
	mail_summary_parse(message->header ? message->header : "", message->header ? message->header_len : 0, size, &s);
	*ret = s;
	ret->from = pool_copy(texts, s.from);
	ret->from_name = pool_copy(texts, s.from_name);
	ret->to = pool_copy(texts, s.to);
	ret->subject = pool_copy(texts, s.subject);
	ret->message_id = pool_copy(texts, s.message_id);
	mail_summary_finish(&s);
}

enum mf_err syncrun_message(struct sync_run *run, struct sync_item *item, const struct remote_message *message)
{
	struct pool *texts = &run->gathered->texts;
	struct sync_row row = {
		.kind = ROW_MESSAGE, .item = item, .uid = message->uid, .flags = message->flags, .modseq = message->modseq,
		.size = message->has_size ? message->size : 0, .internal_date = message->internal_date,
		.is_new = item->m.complete && item->m.uidnext && message->uid >= item->m.uidnext && !item->reread,
		.keywords = pool_copy(texts, message->keywords ? message->keywords : ""),
		.email_id = message->email_id ? pool_copy(texts, message->email_id) : NULL,
	};
	read_summary(texts, message, row.size, &row.summary);
	if (!item->received++)
		item->first_ms = clock_mono_ms();
	return run_row(run, &row, message->header_len + 256);
}

enum mf_err syncrun_flags(struct sync_run *run, struct sync_item *item, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	struct sync_row row = {.kind = ROW_FLAGS, .item = item, .uid = uid, .flags = flags, .modseq = modseq,
		.keywords = pool_copy(&run->gathered->texts, keywords ? keywords : "")};
	return run_row(run, &row, 64);
}

enum mf_err syncrun_gone(struct sync_run *run, struct sync_item *item, uint32_t uid)
{
	return run_row(run, &(struct sync_row){.kind = ROW_GONE, .item = item, .uid = uid}, 32);
}

enum mf_err syncrun_trimmed(struct sync_run *run, struct sync_item *item, uint32_t uid)
{
	return run_row(run, &(struct sync_row){.kind = ROW_TRIMMED, .item = item, .uid = uid}, 32);
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

/* --- milestones ------------------------------------------------------------------------------------------------------- */

enum mf_err syncrun_complete(struct sync_run *run, struct sync_item *item, const struct mailbox_status *status, uint32_t first_uid)
{
	const struct mailbox *m = &item->m;
	uint32_t validity = status->uidvalidity ? status->uidvalidity : item->opened.uidvalidity;
	bool same = m->complete && m->uidvalidity == validity && m->uidnext == status->uidnext && m->modseq == status->modseq
		&& m->first_uid == first_uid && (bool)(m->flags & MAILBOX_READONLY) == item->read_only;
	enum mf_err e = writer_settle(run);
	if (e != MF_OK || (run->gathered->count == 0 && same))
		return e;
	struct txn *t;
	e = rows_write(run, run->gathered, &t);
	if (e == MF_OK) {
		e = txn_mailbox_synced(t, item->id, true, validity, status->uidnext, status->modseq, first_uid, item->read_only);
		if (e == MF_OK)
			e = txn_commit(t);
		else
			txn_rollback(t);
	}
	batch_finish(run, run->gathered, e);
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

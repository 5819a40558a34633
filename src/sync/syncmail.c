/* Messages of mailboxes: what the server says changed, into the index.
 *
 * What comes is gathered in memory and written in transactions of some hundred rows, so that none is open while the
 * network is waited for. The numbers that say "complete up to here" are written in the transaction of the last rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "sync/engine.h"
#include "sync/syncrun.h"

#define LIMBO_MS 600000          /* how long a message that vanished may turn up elsewhere as the same */
#define DISTURBED_MAX 3          /* looks in a row that are made again for what we have changed meanwhile */
#define FAILED_MS 5000           /* until it is tried again to note that messages are gone, where that failed here (a full disk) */
#define CUTS 4                   /* connections that one mailbox may take down with it, before it is left alone */
#define REST_MS 60000            /* for so long, and twice that the next time */
#define REST_MOST_MS 3600000
#define ROUNDS 4                 /* a mailbox that is numbered anew is read again at once, but not for ever */

/* --- before ------------------------------------------------------------------------------------------------------------ */

/* An account with two servers may have changed from one to the other: the reason why everything is read anew. */
static enum mf_err item_remember(struct sync_run *run, struct sync_item *item)
{
	const struct account_config *config = run->account->config;
	crossing_destroy(item->crossing);
	item->crossing = NULL;
	return config->imap.host && config->pop3.host ? crossing_create(run->account->cache, item->id, &item->crossing) : MF_OK;
}

static enum mf_err item_load(struct sync_run *run, struct sync_item *item)
{
	enum mf_err e = cache_mailbox(run->account->cache, item->id, &item->m);
	if (e != MF_OK)
		return e;
	pthread_mutex_lock(&run->account->lock);
	struct mailbox_work *w = work_get_locked(run->account, item->id);
	if (!item->reread)
		item->method = w->running_method;
	w->checked_ms = clock_mono_ms();
	item->max_messages = w->max_messages;
	item->settled = run->account->settled;
	item->disturbed = false;
	item->rung = reconcile_rung(&item->m, item->method, w->max_messages, run->account->no_qresync);
	pthread_mutex_unlock(&run->account->lock);
	return item->rung.method == CHANGES_ALL ? item_remember(run, item) : MF_OK;
}

static struct mailbox_since item_since(const struct sync_item *item)
{
	const struct mailbox *m = &item->m;
	struct mailbox_since since = {
		.raw = m->raw, .method = item->rung.method, .uidvalidity = m->uidvalidity, .uidnext = m->uidnext,
		.modseq = item->rung.with_modseq ? m->modseq : 0, .first_uid = item->rung.first_uid, .newest = item->rung.newest,
	};
	if (m->server_uidvalidity)
		since.hint = (struct mailbox_status){.uidvalidity = m->server_uidvalidity, .uidnext = m->server_uidnext,
			.messages = m->server_messages, .unseen = m->server_unseen, .modseq = m->server_modseq};
	return since;
}

/* --- while it comes ------------------------------------------------------------------------------------------------------ */

static struct sync_item *run_item(struct sync_run *run, size_t i)
{
	return run->order[i];
}

/* A mailbox may be removed here while it is read: what comes of it is nobody's, and of the others it goes on. */
static enum mf_err unless_removed(enum mf_err e)
{
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err sync_opened(void *context, size_t i, const struct mailbox_status *status, bool read_only)
{
	struct sync_run *run = context;
	struct sync_item *item = run_item(run, i);
	item->opened = *status;
	item->read_only = read_only;
	session_progress(run->session, status->messages, false, "%s: %s", item->m.name, item->rung.method == CHANGES_ALL ? "headers" : "changes");
	if (item->rung.method != CHANGES_ALL)
		return MF_OK;
	/* said before the first row, so that rows of two numberings never mix */
	return unless_removed(syncrun_begin_mailbox(run, item));
}

static enum mf_err sync_message(void *context, size_t i, const struct remote_message *message)
{
	struct sync_run *run = context;
	struct sync_item *item = run_item(run, i);
	if (item->rung.method == CHANGES_ALL)
		uid_set_add(&item->present, message->uid, message->uid);
	struct remote_message told = *message;
	if (item->crossing)
		crossing_apply(item->crossing, &told, run->session->caps & REMOTE_FLAGS);
	return syncrun_message(run, item, &told);
}

static enum mf_err sync_flags(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	struct sync_run *run = context;
	struct sync_item *item = run_item(run, i);
	if (item->rung.method == CHANGES_ALL)
		uid_set_add(&item->present, uid, uid);
	return syncrun_flags(run, item, uid, flags, keywords, modseq);
}

static enum mf_err sync_vanished(void *context, size_t i, const struct uid_ranges *uids)
{
	struct sync_run *run = context;
	return unless_removed(syncrun_vanished(run, run_item(run, i), uids));
}

static enum mf_err sync_present(void *context, size_t i, const struct uid_ranges *uids)
{
	struct sync_run *run = context;
	struct sync_item *item = run_item(run, i);
	for (size_t k = 0; k < uids->count; k++)
		uid_set_add(&item->present, uids->items[k].first, uids->items[k].last);
	item->has_present = true;
	return MF_OK;
}

/* --- when it is complete -------------------------------------------------------------------------------------------------- */

/* What the server did not name is gone, and so is what is over max-messages; not what another connection has put there since. */
static size_t item_gone(const struct sync_item *item, const struct uid_id *local, size_t count, uint32_t **ret)
{
	uint32_t below = item->rung.method == CHANGES_ALL ? item->opened.uidnext : item->m.uidnext;
	if (item->rung.method != CHANGES_ALL && !item->has_present) {
		*ret = NULL;
		return 0;
	}
	return reconcile_missing(local, count, item->present.items, item->present.count, below, ret);
}

/* What is below has not been asked for. */
static uint32_t item_asked_from(const struct sync_item *item)
{
	if (item->rung.method != CHANGES_ALL)
		return item->m.first_uid;
	bool all = !item->rung.newest || item->opened.messages <= item->rung.newest;
	return !all && item->present.count ? item->present.items[0].first : 1;
}

static size_t local_without(struct uid_id *local, size_t count, const uint32_t *gone, size_t gone_count)
{
	size_t kept = 0, g = 0;
	for (size_t i = 0; i < count; i++) {
		if (g < gone_count && gone[g] == local[i].uid)
			g++;
		else
			local[kept++] = local[i];
	}
	return kept;
}

/* The server has messages that the index has not. */
static bool item_lacks(const struct sync_item *item, const struct uid_id *local, size_t count, uint32_t messages)
{
	return item->has_present ? reconcile_lacks(local, count, item->present.items, item->present.count) : count < messages;
}

/* Nothing can be said of the server if we have changed the mailbox ourselves since it told of it: the same is asked again. */
static bool item_disturb_locked(struct account *a, struct sync_item *item, struct mailbox_work *w)
{
	bool brief = item->rung.method == CHANGES_AUTO || item->rung.method == CHANGES_NEW_ONLY;
	item->disturbed = brief && a->settled != item->settled && w->disturbed < DISTURBED_MAX;
	item->distrusted |= item->disturbed;
	w->disturbed += item->disturbed;
	return item->disturbed;
}

/* The index is not what the server says: ask for everything; if that explains it, the short way is not to be trusted. A comparison
 * in full brings flags alone of what is below UIDNEXT: what is missing there is asked for as if for the first time. */
static void item_distrust_locked(struct account *a, struct sync_item *item, struct mailbox_work *w, bool missing)
{
	bool full = item->rung.method == CHANGES_VERIFY || item->rung.method == CHANGES_ALL;
	item->lacking = missing && item->rung.method == CHANGES_VERIFY && !w->read_anew;
	w->read_anew |= item->lacking;
	item->distrusted = !full || item->lacking;
	bool blamed = item->rung.method == CHANGES_AUTO && item->m.modseq && item->rung.with_modseq && a->settled == item->settled;
	w->insane += blamed;
}

static void item_is_insane(struct sync_run *run, struct sync_item *item, bool missing)
{
	struct account *a = run->account;
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, item->id);
	if (!item_disturb_locked(a, item, w))
		item_distrust_locked(a, item, w, missing);
	bool note = w->insane >= 2 && !a->no_qresync;
	a->no_qresync |= note;
	pthread_mutex_unlock(&a->lock);
	trace(TRACE_SYNC, "mailbox %ju: the index is not what the server says after method %d%s", (uintmax_t)item->id, item->rung.method,
	      item->disturbed ? ": changed meanwhile" : "");
	if (note) {
		log_warning("%s: the server's lists of changes are incomplete; comparing in full from now on", a->config->name);
		enum mf_err e = cache_set_note(a->cache, "no-qresync", "1");
		if (e != MF_OK)
			log_error("%s: %s", a->config->name, mf_err_words(e));
	}
}

static uint32_t item_first_uid(const struct sync_item *item, const struct uid_id *local, size_t count, uint32_t trimmed, uint32_t messages)
{
	if (trimmed)
		return trimmed;
	if (item->rung.method != CHANGES_ALL)
		return item->m.first_uid;
	return item->rung.newest && messages > count && count ? local[0].uid : 1;
}

static enum mf_err item_complete(struct sync_run *run, struct sync_item *item, const struct mailbox_status *status)
{
	struct uid_id *local = NULL;
	size_t count = 0;
	enum mf_err e = syncrun_flush(run);
	if (e == MF_OK)
		e = cache_uids(run->account->cache, item->id, &local, &count);
	if (e != MF_OK)
		return e;
	uint32_t *gone = NULL;
	uid_set_normalise(&item->present);
	size_t gone_count = item_gone(item, local, count, &gone);
	size_t kept = local_without(local, count, gone, gone_count);
	uint32_t trimmed = reconcile_trim(local, kept, item->max_messages);
	size_t cut = 0;
	while (trimmed && cut < kept && local[cut].uid < trimmed)
		cut++;
	struct mailbox_status now = *status;
	if (!now.uidnext)
		now.uidnext = item->opened.uidnext;
	uint32_t after_last = kept ? local[kept - 1].uid + 1 : 1;
	uint32_t first_uid = item_first_uid(item, local + cut, kept - cut, trimmed, now.messages);
	bool sane = reconcile_is_sane(local, kept, &now, first_uid);
	if (!sane)
		item_is_insane(run, item, first_uid <= 1 && item_lacks(item, local, kept, now.messages));
	if (now.uidnext < after_last)
		now.uidnext = after_last;
	if (item->rung.method == CHANGES_NEW_ONLY)
		now.modseq = item->m.modseq; /* what else happened has not been told */
	item->sane = sane;
	if (!sane && !item->distrusted)
		now.modseq = 0; /* nothing better is to be had: compare again next time */
	uint32_t asked_from = item_asked_from(item);
	for (size_t i = 0; i < gone_count && e == MF_OK; i++)
		e = gone[i] < asked_from ? syncrun_trimmed(run, item, gone[i]) : syncrun_gone(run, item, gone[i]);
	for (size_t i = 0; i < cut && e == MF_OK; i++)
		e = syncrun_trimmed(run, item, local[i].uid);
	if (e == MF_OK && !item->distrusted)
		e = syncrun_complete(run, item, &now, first_uid);
	else if (e == MF_OK)
		e = syncrun_flush(run);
	free(gone);
	free(local);
	return e;
}

static enum change_method item_next(const struct sync_item *item)
{
	return item->lacking ? CHANGES_ALL : item->disturbed || item->rung.method == CHANGES_NEW_ONLY ? CHANGES_AUTO : CHANGES_VERIFY;
}

/* By what the server calls it: it is asked for when LIST has told that. */
static void item_ask_name_locked(struct account *a, struct mailbox_work *w)
{
	w->asks_serial = a->list_serial + 1;
	if (a->list_running)
		return;
	a->list_pending = true;
	if (a->list_priority < w->pending)
		a->list_priority = w->pending;
}

/* Tells who waits, and what follows from it. */
static void item_settle(struct sync_run *run, struct sync_item *item, enum mf_err result, uint32_t server_messages)
{
	struct account *a = run->account;
	item->done = true;
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, item->id);
	w->running = w->renumbering = false;
	w->unread = item->unread;
	if (!item->given_up) {
		w->cuts = 0;
		w->rest_until_ms = 0;
	}
	if (w->is_inbox && w->cold)
		sessions_wake_locked(a, ROLE_WATCH); /* it may wait for this */
	if (item->distrusted) {
		for (struct part **tail = &w->waiters;; tail = &(*tail)->next) {
			if (!*tail) {
				*tail = w->running_waiters;
				break;
			}
		}
		w->running_waiters = NULL;
		work_want_locked(a, w, w->waiters ? PRIORITY_PERSON : PRIORITY_BACKGROUND, item->nameless ? item->method : item_next(item));
		if (item->nameless)
			item_ask_name_locked(a, w);
	} else if (result == MF_OK) {
		w->read_anew &= !item->sane;
		w->disturbed = 0;
		if (item->rung.method == CHANGES_AUTO && item->m.modseq && item->rung.with_modseq)
			w->insane = 0; /* the short way was right this time */
		w->cold = false;
		w->read_ms = w->checked_ms;
		replay_news_locked(a);
		keeping_want_locked(a, w);
		w->weight = 20;
		w->seen_messages = server_messages;
		if ((w->policy == SYNC_FULL && item->received) || w->populate_waiters)
			work_populate_locked(a, w, item->first_new ? item->first_new - 1 : 0);
	}
	if (!item->distrusted)
		parts_done_locked(a, &w->running_waiters, result);
	if (result == MF_NOT_FOUND) {
		a->list_pending = true;
		if (a->list_priority < PRIORITY_BACKGROUND)
			a->list_priority = PRIORITY_BACKGROUND;
	}
	if (result != MF_OK && !item->distrusted)
		parts_done_locked(a, &w->populate_waiters, result);
	if (w->pending != PRIORITY_NONE) /* asked for again meanwhile: who may do it has passed it by while it ran */
		sessions_wake_locked(a, ROLE_WORKER | ROLE_BULK);
	pthread_mutex_unlock(&a->lock);
	bodies_resolve_parked(a, item->id);
	wants_deliver(a);
}

/* A RENAME is under way, or was not answered on the connection before, and LIST has not told yet what has become of it. */
static bool run_names_are_in_doubt(struct sync_run *run)
{
	struct account *a = run->account;
	if (!journal_is_renaming(a->cache))
		return false;
	pthread_mutex_lock(&a->lock);
	bool in_doubt = a->doubts == DOUBTS_NONE || a->list_pending || a->list_running || !a->listed_ms;
	pthread_mutex_unlock(&a->lock);
	return in_doubt;
}

/* A name that the server does not know (any more) may be one that was changed here while the answer was on its way. */
static enum mf_err item_explain(struct sync_run *run, struct sync_item *item, enum mf_err result)
{
	if (result != MF_NOT_FOUND && result != MF_DENIED)
		return result;
	MF_CLEANUP(mailbox_finish) struct mailbox now = {0};
	enum mf_err e = cache_mailbox(run->account->cache, item->id, &now);
	if (e == MF_NOT_FOUND)
		return MF_OK; /* removed: nothing is left to do */
	item->nameless = e == MF_OK && now.raw && strcmp(now.raw, item->m.raw) == 0 && run_names_are_in_doubt(run);
	item->distrusted |= item->nameless || (e == MF_OK && now.raw && strcmp(now.raw, item->m.raw) != 0);
	return result;
}

_Static_assert(RIGHT('a') == 1U, "as mailbox_permits() has them");

/* A server that has taken ACL away permits what it permits. */
static enum mf_err item_rights(struct sync_run *run, struct sync_item *item, unsigned told)
{
	unsigned caps = run->session->caps;
	bool none = (caps & REMOTE_MAILBOXES) && !(caps & REMOTE_ACL);
	unsigned rights = none ? 0 : told ? told : item->m.rights;
	struct txn *t;
	if (rights == item->m.rights)
		return MF_OK;
	enum mf_err e = cache_begin(run->account->cache, &t);
	if (e != MF_OK)
		return e;
	e = txn_mailbox_rights(t, item->id, rights);
	if (e == MF_OK)
		return txn_commit(t);
	txn_rollback(t);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* Said once, until it can be read again. */
static void item_tell_unread(struct sync_run *run, const struct sync_item *item, enum mf_err result)
{
	struct account *a = run->account;
	char name[256];
	const char *said = remote_reason(run->session->remote);
	pthread_mutex_lock(&a->lock);
	bool known = work_get_locked(a, item->id)->unread;
	pthread_mutex_unlock(&a->lock);
	if (!known)
		log_warning("%s: the mailbox %s cannot be read: %s%s%s", a->config->name,
		            mf_printable(name, sizeof name, item->m.name, strlen(item->m.name)), mf_err_words(result), *said ? ": " : "", said);
}

static enum mf_err sync_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *status)
{
	struct sync_run *run = context;
	struct sync_item *item = run_item(run, i);
	if (mf_err_scope(result) >= MF_SCOPE_CONNECTION)
		return MF_OK; /* not the mailbox's fault: it stays to be done */
	if (result == MF_UIDVALIDITY && item->rung.method != CHANGES_ALL) {
		item->renumbered = true;
		return MF_OK;
	}
	uint32_t messages = 0;
	bool told = result == MF_OK;
	enum mf_err noted = item_rights(run, item, status->rights);
	if (noted != MF_OK)
		return noted;
	result = item_explain(run, item, result);
	item->unread = !told && !item->nameless && result != MF_OK && result != MF_NOT_FOUND;
	if (result == MF_DENIED && status->rights && !(status->rights & RIGHT('r')))
		result = MF_OK; /* there is nothing to be known of it, and nobody asks for that in vain */
	else if (item->unread)
		item_tell_unread(run, item, result);
	if (told) {
		messages = status->messages;
		enum mf_err e = unless_removed(item_complete(run, item, status));
		if (e != MF_OK)
			return e;
	}
	item_settle(run, item, result, messages);
	return MF_OK;
}

/* --- the whole of it ------------------------------------------------------------------------------------------------------- */

static enum mf_err run_once(struct sync_run *run)
{
	static const struct change_sink callbacks = {
		.opened = sync_opened, .message = sync_message, .flags = sync_flags, .vanished = sync_vanished,
		.present = sync_present, .closed = sync_closed,
	};
	struct change_sink sink = callbacks;
	sink.context = run;
	struct mailbox_since *since = mf_alloc_array(run->count, sizeof *since);
	size_t n = 0;
	keeping_store_what_is_here(run->account);
	for (size_t i = 0; i < run->count; i++) {
		struct sync_item *item = &run->items[i];
		if (item->done)
			continue;
		enum mf_err e = item_load(run, item);
		if (e != MF_OK || !item->m.raw || (item->m.flags & MAILBOX_NOSELECT)) {
			item_settle(run, item, e == MF_NOT_FOUND ? MF_OK : e, 0); /* removed since it was asked for */
			continue;
		}
		run->order[n] = item;
		since[n++] = item_since(item);
	}
	enum mf_err e = n ? remote_changes(run->session->remote, since, n, &sink) : MF_OK;
	free(since);
	enum mf_err flushed = syncrun_flush(run);
	return e != MF_OK ? e : flushed;
}

/* The mailboxes that were numbered anew: their messages step aside, and are matched with what is read now. */
static enum mf_err run_renumber(struct sync_run *run, bool *ret_any)
{
	*ret_any = false;
	for (size_t i = 0; i < run->count; i++) {
		struct sync_item *item = &run->items[i];
		if (!item->renumbered || item->done)
			continue;
		char name[256];
		log_info("%s: %s was numbered anew by the server", run->account->config->name,
		         mf_printable(name, sizeof name, item->m.name, strlen(item->m.name)));
		enum mf_err e = unless_removed(syncrun_renumber(run, item));
		if (e != MF_OK)
			return e;
		uid_set_finish(&item->present);
		mailbox_finish(&item->m);
		item->m = (struct mailbox){0};
		item->renumbered = item->has_present = false;
		item->reread = true;
		item->method = CHANGES_ALL;
		*ret_any = true;
	}
	return MF_OK;
}

/* Commands are answered in turn: the server was at the first that is not done. */
static struct sync_item *run_suspect(struct sync_run *run)
{
	for (size_t i = 0; i < run->count; i++)
		if (!run->items[i].done)
			return &run->items[i];
	return NULL;
}

/* Another connection was lost over it. Returns how long it is left alone now: 0, it is not. Who waits for it is told then. */
static int64_t item_blame(struct account *a, const struct sync_item *item)
{
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, item->id);
	unsigned over = ++w->cuts >= CUTS ? w->cuts - CUTS + 1 : 0;
	int64_t rest = over == 0 ? 0 : over > 6 ? REST_MOST_MS : (int64_t)REST_MS << (over - 1);
	if (rest) {
		w->rest_until_ms = clock_mono_ms() + rest;
		w->pending = PRIORITY_NONE;
		parts_done_locked(a, &w->waiters, MF_PROTOCOL);
	}
	pthread_mutex_unlock(&a->lock);
	return rest;
}

/* What ends every connection would keep all others from being read. */
static void run_blame(struct sync_run *run, enum mf_err e)
{
	struct account *a = run->account;
	struct sync_item *item = run_suspect(run);
	char name[256];
	pthread_mutex_lock(&a->lock);
	bool on_purpose = run->session->reset || a->stopping;
	pthread_mutex_unlock(&a->lock);
	bool hung_up = e == MF_OFFLINE || e == MF_TIMEOUT || e == MF_PROTOCOL;
	int64_t rest = item && hung_up && !on_purpose ? item_blame(a, item) : 0;
	if (!rest)
		return;
	log_warning("%s: whenever the mailbox %s is to be read the connection is lost; it is left alone for %d minutes", a->config->name,
	            mf_printable(name, sizeof name, item->m.name ? item->m.name : "", item->m.name ? strlen(item->m.name) : 0), (int)(rest / 60000));
	item->unread = item->given_up = true;
	item->distrusted = false;
	item_settle(run, item, MF_PROTOCOL, 0);
}

/* A failed connection: what is not done is to be done on the next one. */
static void run_put_back(struct sync_run *run)
{
	struct account *a = run->account;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < run->count; i++) {
		struct sync_item *item = &run->items[i];
		if (item->done)
			continue;
		struct mailbox_work *w = work_get_locked(a, item->id);
		w->running = false;
		bool waited = w->running_waiters != NULL;
		struct part **tail = &w->waiters;
		while (*tail)
			tail = &(*tail)->next;
		*tail = w->running_waiters;
		w->running_waiters = NULL;
		work_want_locked(a, w, waited ? PRIORITY_PERSON : PRIORITY_BACKGROUND, item->method);
	}
	pthread_mutex_unlock(&a->lock);
}

enum mf_err syncmail_changes(struct session *s, const uint64_t *mailboxes, size_t count)
{
	struct sync_run *run = syncrun_create(s, mailboxes, count);
	bool again = true;
	enum mf_err e = MF_OK;
	for (int round = 0; again && e == MF_OK && round < ROUNDS; round++) {
		e = run_once(run);
		if (e == MF_OK)
			e = run_renumber(run, &again);
	}
	for (size_t i = 0; i < count && e == MF_OK; i++) {
		/* numbers that change every time it is opened, or a mailbox that the session left out */
		if (!run->items[i].done)
			item_settle(run, &run->items[i], again ? MF_UIDVALIDITY : MF_PROTOCOL, 0);
	}
	if (e != MF_OK) {
		run_blame(run, e);
		run_put_back(run);
	}
	syncrun_destroy(run);
	if (e == MF_OK)
		syncmail_cycle(s->account);
	return e;
}

void syncmail_search(struct account *a)
{
	if (!journal_has_strays(a->cache))
		return;
	pthread_mutex_lock(&a->lock);
	bool asks = !a->cycle_open && !a->list_pending && !a->list_running && !a->link.fallback && clock_mono_ms() >= a->search_from_ms;
	if (asks) {
		a->list_pending = true;
		a->list_priority = PRIORITY_BACKGROUND;
		sessions_wake_locked(a, ROLE_WORKER);
	}
	pthread_mutex_unlock(&a->lock);
}

/* A whole round over the mailboxes is over. all_read: each of them is known */
static bool cycle_ends_locked(struct account *a, bool *ret_all_read)
{
	struct mailbox_work *w;
	/* what POP3 does not show may be there all the same: it is set aside until IMAP tells */
	bool over = a->cycle_open && !a->list_pending && !a->list_running && !a->link.fallback;
	*ret_all_read = !a->list_unreadable;
	for (size_t i = 0; over && (w = id_table_next(&a->mailboxes, &i));) {
		over = !w->running && w->pending == PRIORITY_NONE;
		*ret_all_read &= w->serial != a->list_serial || (!w->unread && !w->cold);
	}
	if (over)
		a->cycle_open = false;
	return over;
}

/* Nothing that vanished before the round can turn up elsewhere any more; nor what is older than the time given. */
static enum mf_err cycle_settle(struct account *a, int64_t begun_ms, bool all_read, size_t *ret_strays)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	*ret_strays = 0;
	if (e != MF_OK)
		return e;
	e = txn_strays_settle(t, begun_ms, all_read, ret_strays);
	if (e == MF_OK)
		e = txn_limbo_purge(t, LIMBO_MS);
	if (e == MF_OK)
		return txn_commit(t);
	txn_rollback(t);
	return e;
}

/* The server has no part in it, and is not asked over and over. */
static void cycle_failed(struct account *a, enum mf_err e)
{
	log_error("%s: %s", a->config->name, mf_err_words(e));
	pthread_mutex_lock(&a->lock);
	a->search_from_ms = clock_mono_ms() + FAILED_MS;
	replay_look_at_locked(a, a->search_from_ms);
	pthread_mutex_unlock(&a->lock);
}

void syncmail_cycle(struct account *a)
{
	bool all_read;
	size_t strays = 0;
	pthread_mutex_lock(&a->lock);
	bool over = cycle_ends_locked(a, &all_read);
	int64_t begun_ms = a->list_begun_ms;
	pthread_mutex_unlock(&a->lock);
	enum mf_err e = over ? cycle_settle(a, begun_ms, all_read, &strays) : MF_OK;
	if (e != MF_OK)
		cycle_failed(a, e);
	else if (strays)
		log_info("%s: %zu changes were of messages that other clients have removed%s", a->config->name, strays,
		         all_read ? "" : ", or moved where they cannot be found: they wait for a person");
	if (e == MF_OK && strays) {
		pthread_mutex_lock(&a->lock);
		replay_news_locked(a);
		pthread_mutex_unlock(&a->lock);
	}
	syncmail_search(a);
}

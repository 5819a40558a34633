/* The list of mailboxes: what LIST with STATUS says, into the index, and from it which mailboxes need work. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "mail/name.h"
#include "sync/engine.h"

#define LIST_MAX 200000          /* mailboxes; a server that names more is not to be believed */
/* Flags of a mailbox without MODSEQ are compared with the next LIST that comes so long, for each message of all such mailboxes, after they
 * were looked at: where there are 8,000 that is each one in the usual five minutes. An hour at most. */
#define SWEEP_MESSAGE_MS 36
#define SWEEP_MS 3600000
#define KEPT_FLAGS (MAILBOX_NOSELECT | MAILBOX_NOINFERIORS | MAILBOX_SUBSCRIBED | MAILBOX_OTHERS | MAILBOX_HOME)

struct listed {
	char *raw, *path, *object_id;
	char delimiter;
	bool utf8;
	unsigned flags, use;
	struct mailbox_status status;
};
struct known {                   /* a mailbox of the index, beside what the server says of it */
	struct mailbox m;        /* raw, object_id and the numbers; no name */
	const struct listed *listed;
	bool changes_wait;       /* of its messages */
};
struct listing {
	struct account *account;
	struct listed *items;
	size_t count, capacity;
	size_t told;             /* with those that the settings leave out */
	bool unreadable;         /* there are others: what is not here may be there all the same */
	bool left_out;           /* some have names that cannot be shown */
	bool subscribed;         /* there are some that are */
	bool inbox_only;         /* during a fallback: the others are out of reach, and stay as they are */
	struct known *known;
	size_t known_count, known_capacity;
};

static void listing_forget_known(struct listing *l)
{
	for (size_t i = 0; i < l->known_count; i++)
		mailbox_finish(&l->known[i].m);
	l->known_count = 0;
}

static void listing_finish(struct listing *l)
{
	for (size_t i = 0; i < l->count; i++) {
		free(l->items[i].raw);
		free(l->items[i].path);
		free(l->items[i].object_id);
	}
	listing_forget_known(l);
	free(l->items);
	free(l->known);
}

static bool listed_is_inbox(const char *raw)
{
	return strcasecmp(raw, "INBOX") == 0;
}

/* The path as the tree shows it, which is what settings are about. */
static char *listed_path(const struct remote_mailbox *m)
{
	struct buf path;
	buf_init(&path, 65536);
	const char *level = m->raw;
	for (;;) {
		const char *end = m->delimiter ? strchr(level, m->delimiter) : NULL;
		size_t len = end ? (size_t)(end - level) : strlen(level);
		char name[MAILBOX_NAME_MAX + 1];
		mailbox_level_to_name(level, len, m->utf8, level == m->raw, name);
		if (buf_addf(&path, "%s%s", path.len ? "/" : "", name) != MF_OK || !end)
			break;
		level = end + 1;
	}
	return buf_detach(&path);
}

static bool listing_wants(const struct account_config *config, const struct remote_mailbox *m, const char *path)
{
	if (config->subscribed_only && !(m->flags & MAILBOX_SUBSCRIBED) && !listed_is_inbox(m->raw))
		return false;
	return !account_config_excludes(config, path);
}

static enum mf_err listing_mailbox(void *context, const struct remote_mailbox *m)
{
	struct listing *l = context;
	l->told++;
	l->subscribed |= (m->flags & MAILBOX_SUBSCRIBED) != 0;
	if (!mailbox_can_be_called(m->raw, m->delimiter)) {
		l->left_out = true;
		return MF_OK;
	}
	char *path = listed_path(m);
	if (!listing_wants(l->account->config, m, path) || l->count == LIST_MAX) {
		free(path);
		return l->count == LIST_MAX ? MF_PROTOCOL : MF_OK;
	}
	if (l->count == l->capacity) {
		l->capacity = l->capacity ? l->capacity * 2 : 64;
		l->items = mf_realloc_array(l->items, l->capacity, sizeof *l->items);
	}
	l->items[l->count++] = (struct listed){
		.raw = mf_strdup(m->raw), .path = path, .delimiter = m->delimiter, .utf8 = m->utf8, .flags = m->flags,
		.use = listed_is_inbox(m->raw) ? USE_INBOX : m->use, .status = m->status,
		.object_id = m->object_id ? mf_strdup(m->object_id) : NULL,
	};
	return MF_OK;
}

/* --- against the index ----------------------------------------------------------------------------------------------- */

static bool listing_know(void *context, const struct mailbox *m)
{
	struct listing *l = context;
	if (!m->raw)
		return true;
	if (l->known_count == l->known_capacity) {
		l->known_capacity = l->known_capacity ? l->known_capacity * 2 : 64;
		l->known = mf_realloc_array(l->known, l->known_capacity, sizeof *l->known);
	}
	struct known *k = &l->known[l->known_count++];
	*k = (struct known){.m = *m};
	k->m.raw = mf_strdup(m->raw);
	k->m.object_id = m->object_id ? mf_strdup(m->object_id) : NULL;
	k->m.name = NULL;
	return true;
}

static int by_raw(const void *a, const void *b)
{
	return strcmp(((const struct listed *)a)->raw, ((const struct listed *)b)->raw);
}

/* Puts what the server says beside what the index knows. */
static enum mf_err listing_match(struct listing *l)
{
	listing_forget_known(l);
	enum mf_err e = cache_mailboxes(l->account->cache, listing_know, l);
	for (size_t i = 0; i < l->known_count && e == MF_OK; i++) {
		struct known *k = &l->known[i];
		struct listed key = {.raw = k->m.raw};
		k->listed = l->count ? bsearch(&key, l->items, l->count, sizeof *l->items, by_raw) : NULL;
		e = journal_touches(l->account->cache, k->m.id, &k->changes_wait);
	}
	return e;
}

static bool known_is_same(const struct known *k)
{
	const struct listed *s = k->listed;
	if (s->object_id && (!k->m.object_id || strcmp(k->m.object_id, s->object_id) != 0))
		return false;
	return k->m.delimiter == s->delimiter && k->m.utf8 == s->utf8 && k->m.use == s->use
		&& (k->m.flags & KEPT_FLAGS) == (s->flags & KEPT_FLAGS) && k->m.append_limit == s->status.append_limit;
}

static bool known_has_numbers(const struct known *k)
{
	const struct mailbox_status *s = &k->listed->status;
	return !(k->listed->flags & MAILBOX_HAS_STATUS)
		|| (k->m.server_uidvalidity == s->uidvalidity && k->m.server_uidnext == s->uidnext && k->m.server_messages == s->messages
		    && k->m.server_unseen == s->unseen && k->m.server_modseq == s->modseq);
}

static struct mailbox_said listed_said(const struct listed *item)
{
	return (struct mailbox_said){
		.raw = item->raw, .object_id = item->object_id, .delimiter = item->delimiter, .utf8 = item->utf8, .flags = item->flags & KEPT_FLAGS, .use = item->use,
		.has_status = item->flags & MAILBOX_HAS_STATUS, .uidvalidity = item->status.uidvalidity, .uidnext = item->status.uidnext,
		.messages = item->status.messages, .unseen = item->status.unseen, .modseq = item->status.modseq,
		.append_limit = item->status.append_limit,
	};
}

static enum mf_err listed_say(struct txn *t, const struct listed *item)
{
	uint64_t id;
	struct mailbox_said said = listed_said(item);
	enum mf_err e = txn_mailbox_said(t, &said, &id);
	return e == MF_NOT_FOUND ? MF_OK : e; /* removed here, and not there yet */
}

static void listing_unreadable(void *context)
{
	struct listing *l = context;
	l->unreadable = true;
}

/* Those that another client has renamed first: which is only known of all of them */
static enum mf_err listing_say_all(struct txn *t, const struct listing *l)
{
	struct mailbox_said *said = mf_alloc_array(l->count + 1, sizeof *said);
	for (size_t i = 0; i < l->count; i++)
		said[i] = listed_said(&l->items[i]);
	enum mf_err e = l->unreadable ? MF_OK : txn_mailboxes_follow(t, said, l->count);
	free(said);
	for (size_t i = 0; i < l->count && e == MF_OK; i++)
		e = listed_say(t, &l->items[i]);
	return e == MF_OK ? txn_mailboxes_swept(t, !l->unreadable) : e;
}

static bool listing_set_changed(const struct listing *l)
{
	size_t matched = 0;
	for (size_t i = 0; i < l->known_count; i++) {
		if (!l->known[i].listed && l->unreadable)
			continue;
		if (!l->known[i].listed || !known_is_same(&l->known[i]))
			return true;
		matched++;
	}
	return matched != l->count;
}

/* None is subscribed any more, INBOX neither: rather a server that did not answer LSUB than a person who wants an empty tree. */
static bool listing_lacks_subscriptions(const struct listing *l)
{
	bool known = false;
	for (size_t i = 0; i < l->known_count && !known; i++)
		known = l->known[i].m.flags & MAILBOX_SUBSCRIBED;
	return l->account->config->subscribed_only && !l->subscribed && known;
}

/* Writes what is different: nothing for an account where nothing happened; numbers alone where only they differ. */
static enum mf_err listing_store(struct listing *l)
{
	struct txn *t;
	bool all = listing_set_changed(l) || l->account->index_is_new, any = all;
	for (size_t i = 0; i < l->known_count && !any; i++)
		any = l->known[i].listed && !known_has_numbers(&l->known[i]);
	if (!any)
		return MF_OK;
	enum mf_err e = cache_begin(l->account->cache, &t);
	if (e != MF_OK)
		return e;
	e = all ? listing_say_all(t, l) : MF_OK;
	for (size_t i = 0; i < l->known_count && !all && e == MF_OK; i++) {
		if (l->known[i].listed && !known_has_numbers(&l->known[i]))
			e = listed_say(t, l->known[i].listed);
	}
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	e = txn_commit(t);
	return e == MF_OK ? listing_match(l) : e;
}

/* --- what to do about it ------------------------------------------------------------------------------------------------ */

/* LIST tells what comes and goes there, and not whose flags have changed. */
static bool hides_flags(const struct mailbox *m)
{
	return m->complete && m->modseq == 0 && !(m->flags & MAILBOX_NOSELECT);
}

static int64_t sweep_ms(const struct listing *l)
{
	int64_t ms = 0;
	for (size_t i = 0; i < l->known_count; i++)
		ms += l->known[i].listed && hides_flags(&l->known[i].m) ? (int64_t)l->known[i].m.total * SWEEP_MESSAGE_MS : 0;
	return ms < SWEEP_MS ? ms : SWEEP_MS;
}

static bool work_needs_sweep(const struct mailbox_work *w, const struct mailbox *m, int64_t before)
{
	return hides_flags(m) && (w->checked_ms ? w->checked_ms : w->made_ms) < before;
}

/* sweep_before: as work_needs_sweep() */
static void listing_judge_locked(struct account *a, const struct known *k, int64_t sweep_before)
{
	struct mailbox_work *w = work_get_locked(a, k->m.id);
	const struct listed *said = k->listed;
	if (!w->raw || strcmp(w->raw, k->m.raw) != 0) {
		free(w->raw);
		w->raw = mf_strdup(k->m.raw);
	}
	bool was_full = w->policy == SYNC_FULL;
	w->serial = a->list_serial;
	w->is_inbox = k->m.use == USE_INBOX;
	if (w->is_inbox)
		a->inbox = w->id;
	w->max_messages = account_config_max_messages(a->config, said->path);
	w->policy = k->m.sync >= 0 ? (enum sync_policy)k->m.sync : account_config_sync(a->config, said->path);
	bool fresh = said->flags & MAILBOX_HAS_STATUS;
	struct dirty_facts facts = {.mailbox = &k->m, .has_status = fresh, .changes_wait = k->changes_wait, .max_messages = w->max_messages,
	                            .seen_messages = w->seen_messages};
	enum dirty dirty = reconcile_dirty(&facts);
	w->cold = dirty == DIRTY_COLD;
	w->weight = !w->cold ? 20 : !fresh || k->m.server_messages > 100000 ? 100000 : k->m.server_messages + 5;
	if (dirty == DIRTY_CHANGED || (w->cold && w->policy != SYNC_DEMAND) || work_needs_sweep(w, &k->m, sweep_before))
		work_want_locked(a, w, PRIORITY_BACKGROUND, CHANGES_AUTO);
	if (!was_full && w->policy == SYNC_FULL)
		work_populate_locked(a, w, 0);
}

/* What a want for the whole account comes down to, now that the mailboxes are known. */
static void listing_expand_locked(struct account *a, struct want *want, const struct listing *l)
{
	for (size_t i = 0; i < l->known_count; i++) {
		const struct known *k = &l->known[i];
		struct mailbox_work *w = k->listed ? id_table_get(&a->mailboxes, k->m.id) : NULL;
		if (!w || (k->m.flags & MAILBOX_NOSELECT))
			continue;
		bool looks = want->verify || w->pending || hides_flags(&k->m);
		if (work_rests_locked(w)) {
			want->result = MF_PROTOCOL;
			continue;
		}
		if (looks || want->populate) {
			if (looks || w->cold) {
				work_want_locked(a, w, PRIORITY_BACKGROUND, want->verify ? CHANGES_VERIFY : CHANGES_AUTO);
				part_add_locked(&w->waiters, want);
			}
		} else if (w->running) {
			part_add_locked(&w->running_waiters, want);
		}
		if (want->populate) {
			work_populate_locked(a, w, 0);
			part_add_locked(&w->populate_waiters, want);
		}
	}
}

static void listing_forget_gone_locked(struct account *a)
{
	struct mailbox_work *w;
	for (size_t i = 0; (w = id_table_next(&a->mailboxes, &i));) {
		if (w->serial == a->list_serial || w->running)
			continue;
		parts_done_locked(a, &w->waiters, MF_NOT_FOUND);
		parts_done_locked(a, &w->populate_waiters, MF_NOT_FOUND);
		w->pending = PRIORITY_NONE;
		w->populate = false;
		if (w->parked || w->populate_open || w->serial == 0)
			continue;
		work_remove_locked(a, w);
		i = 0; /* removing moves slots */
	}
}

static void listing_apply(struct session *s, const struct listing *l)
{
	struct account *a = s->account;
	int64_t sweep_before = clock_mono_ms() - sweep_ms(l);
	pthread_mutex_lock(&a->lock);
	bool news = l->unreadable && !a->list_unreadable, left_out = l->left_out && !a->list_left_out;
	a->list_unreadable = l->unreadable;
	a->list_left_out = l->left_out;
	a->list_running = false;
	if (a->index_is_new)
		sessions_wake_locked(a, ROLE_WATCH); /* it may wait for this */
	a->index_is_new = false;
	a->cycle_open = true;
	a->list_serial++;
	for (size_t i = 0; i < l->known_count; i++) {
		if (l->known[i].listed)
			listing_judge_locked(a, &l->known[i], sweep_before);
	}
	for (struct part *p = a->list_running_waiters; p; p = p->next)
		listing_expand_locked(a, p->want, l);
	parts_done_locked(a, &a->list_running_waiters, MF_OK);
	if (!l->inbox_only && !l->unreadable)
		listing_forget_gone_locked(a);
	link_listed_locked(a);
	replay_news_locked(a);
	pthread_mutex_unlock(&a->lock);
	if (news)
		log_warning("%s: the server's list of mailboxes cannot be read in full: what it seems to lack is kept", a->config->name);
	if (left_out)
		log_warning("%s: mailboxes without a name, or with a name too long or of too many levels, are left out", a->config->name);
}

static void listing_failed(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->list_running = false;
	a->list_pending = true;
	if (a->list_running_waiters)
		a->list_priority = PRIORITY_PERSON;
	struct part **tail = &a->list_waiters;
	while (*tail)
		tail = &(*tail)->next;
	*tail = a->list_running_waiters;
	a->list_running_waiters = NULL;
	pthread_mutex_unlock(&a->lock);
}

static bool listing_find_inbox(struct listing *l)
{
	bool found = false;
	for (size_t i = 0; i < l->known_count; i++) {
		bool inbox = l->known[i].m.use == USE_INBOX;
		l->known[i].listed = inbox && l->count ? &l->items[0] : NULL;
		found |= inbox;
	}
	return found;
}

/* INBOX is in the index as IMAP described it, or was never seen. */
static enum mf_err listing_store_inbox(struct listing *l)
{
	struct txn *t;
	if (listing_find_inbox(l) || l->count == 0)
		return MF_OK;
	enum mf_err e = cache_begin(l->account->cache, &t);
	if (e != MF_OK)
		return e;
	e = listed_say(t, &l->items[0]);
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	e = txn_commit(t);
	if (e == MF_OK)
		e = listing_match(l);
	(void)listing_find_inbox(l);
	return e;
}

enum mf_err listing_fetch(struct session *s)
{
	struct account *a = s->account;
	struct listing l = {.account = a};
	pthread_mutex_lock(&a->lock);
	a->listed_ms = clock_mono_ms();
	a->list_begun_ms = clock_wall_ns() / 1000000;
	l.inbox_only = a->link.fallback;
	pthread_mutex_unlock(&a->lock);
	session_progress(s, 0, false, "listing mailboxes");
	enum mf_err e = remote_mailboxes(s->remote, &(struct mailbox_sink){listing_mailbox, &l, listing_unreadable});
	/* there is always an INBOX: an empty answer must not empty the tree */
	if (e == MF_OK && l.told == 0)
		e = MF_PROTOCOL;
	if (e == MF_OK && l.count)
		qsort(l.items, l.count, sizeof *l.items, by_raw);
	if (e == MF_OK)
		e = listing_match(&l);
	l.unreadable |= e == MF_OK && !l.inbox_only && listing_lacks_subscriptions(&l);
	if (e == MF_OK)
		e = l.inbox_only ? listing_store_inbox(&l) : listing_store(&l);
	if (e == MF_OK)
		listing_apply(s, &l);
	else
		listing_failed(a);
	listing_finish(&l);
	if (e == MF_OK)
		syncmail_cycle(a);
	return e;
}

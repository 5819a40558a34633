/* leave-on-server: what is not to stay at a POP3 server is stored here for good, and only then deleted there.
 *
 * One pass goes over INBOX after each synchronisation, some messages at a time: those whose time has come and whose bytes are
 * here are copied into the spool, on the disk, and noted in the journal (OP_KEEP); the others' bodies are fetched, and looked at
 * once more when that is over. Replay tells the server, when the pass is over or has gathered enough. A message whose bytes
 * could not be had stays where it is, until the next pass.
 *
 * Some servers hide from later sessions what they have shown to one (Gmail). So what is here whole when a session begins, since the
 * last one ended too early, is stored before anybody asks what the server has: what it does not show any more leaves the tree. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "sync/engine.h"

#define DAY_S 86400
#define TOGETHER 64             /* messages in one transaction */
#define BYTES_AT_ONCE (256ULL << 20) /* that lie in the cache until they are stored */
#define SEND_AT 1000            /* a POP3 session ends with deleting: not after each handful */

static bool has_a_term(const struct account *a)
{
	const struct account_config *config = a->config;
	return !config->imap.host && config->pop3.host && config->leave_on_server_days >= 0;
}

void keeping_want_locked(struct account *a, const struct mailbox_work *w)
{
	if (!w->is_inbox || !has_a_term(a))
		return;
	a->keeping.wanted = true;
	a->keeping.after = 0;
}

bool keeping_is_due_locked(const struct account *a)
{
	return a->keeping.wanted;
}

bool keeping_pins_locked(const struct account *a, uint64_t message)
{
	for (size_t i = 0; i < a->keeping.fetched_count; i++)
		if (a->keeping.fetched[i] == message)
			return true;
	return false;
}

/* --- storing ----------------------------------------------------------------------------------------------------------------- */

/* The bytes are in the spool and on the disk, without their name. MF_NOT_FOUND: they are not all here, or the message is gone */
static enum mf_err store(struct cache *cache, uint64_t id)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	struct body *body = NULL;
	uint64_t size;
	enum mf_err e = cache_message(cache, id, &m);
	if (e == MF_OK)
		e = cache_body_get(cache, id, &body);
	if (e != MF_OK)
		return e;
	struct spool_note note = { "INBOX", m.name, m.entry.mtime };
	e = !body_is_whole(body) ? MF_NOT_FOUND : spool_prepare(cache, id, body_fd(body), body_size(body), false, &note, &size);
	body_unref(body);
	return e != MF_OK ? e : spool_flush(cache, id, false);
}

static enum mf_err note_kept(struct cache *cache, const uint64_t *ids, size_t count, size_t *ret_kept)
{
	struct txn *t;
	size_t kept = 0;
	enum mf_err e = cache_begin(cache, &t);
	if (e != MF_OK)
		return e;
	for (size_t i = 0; i < count && e == MF_OK; i++) {
		e = txn_keep(t, ids[i]);
		kept += e == MF_OK;
		if (e == MF_NOT_FOUND || e == MF_BUSY) { /* somebody was faster: not now */
			spool_discard_prepared(cache, ids[i]);
			e = MF_OK;
		}
	}
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	*ret_kept += kept;
	return txn_commit(t);
}

static enum mf_err keep_some(struct cache *cache, const uint64_t *ids, size_t count, size_t *ret_kept)
{
	uint64_t stored[TOGETHER];
	size_t n = 0;
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < count && e == MF_OK; i++) {
		e = store(cache, ids[i]);
		if (e == MF_OK)
			stored[n++] = ids[i];
		else
			spool_discard_prepared(cache, ids[i]);
		e = e == MF_NOT_FOUND ? MF_OK : e;
	}
	return e == MF_OK && n ? note_kept(cache, stored, n, ret_kept) : e;
}

static enum mf_err keep(struct cache *cache, const uint64_t *ids, size_t count, size_t *ret_kept)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < count && e == MF_OK; i += TOGETHER)
		e = keep_some(cache, ids + i, count - i < TOGETHER ? count - i : TOGETHER, ret_kept);
	return e;
}

/* --- a pass ------------------------------------------------------------------------------------------------------------------- */

struct step {
	int64_t before;                 /* what arrived later stays at the server; seconds since the epoch */
	struct entry due[KEEPING_AT_ONCE];
	size_t due_count;
	uint64_t due_bytes;
	uint64_t after;                 /* the last that was looked at */
	bool all;                       /* there are no more */
	uint64_t whole[2 * KEEPING_AT_ONCE];
	size_t whole_count;
	bool missing[KEEPING_AT_ONCE];
};

static bool look_at(void *context, const struct entry *e, const char *name)
{
	struct step *p = context;
	(void)name;
	if (p->due_count == KEEPING_AT_ONCE || p->due_bytes > BYTES_AT_ONCE) {
		p->all = false;
		return false;
	}
	p->after = e->id;
	int64_t arrived = e->mtime > 0 ? e->mtime : e->ctime / 1000000000;
	if (e->uid && arrived <= p->before) {
		p->due[p->due_count++] = *e;
		p->due_bytes += e->size;
	}
	return true;
}

static int64_t term(const struct account *a)
{
	int days = a->config->leave_on_server_days;
	return days ? clock_wall_s() - (int64_t)days * DAY_S : INT64_MAX;
}

static void begin(struct account *a, struct step *p, uint64_t *ret_since)
{
	p->before = term(a);
	p->all = true;
	pthread_mutex_lock(&a->lock);
	p->after = a->keeping.after;
	*ret_since = a->finished_count;
	memcpy(p->whole, a->keeping.fetched, a->keeping.fetched_count * sizeof *p->whole);
	p->whole_count = a->keeping.fetched_count;
	pthread_mutex_unlock(&a->lock);
}

static void sort_out(struct cache *cache, struct step *p)
{
	for (size_t i = 0; i < p->due_count; i++) {
		p->missing[i] = !cache_body_is_cached(cache, p->due[i].id);
		if (!p->missing[i])
			p->whole[p->whole_count++] = p->due[i].id;
	}
}

/* true: the server is to be told of what was kept */
static bool finish(struct account *a, const struct step *p, uint64_t since, size_t kept, bool failed)
{
	struct keeping *k = &a->keeping;
	pthread_mutex_lock(&a->lock);
	k->fetched_count = 0;
	for (size_t i = 0; i < p->due_count && !failed; i++) {
		if (!p->missing[i])
			continue;
		bodies_ahead_locked(a, &p->due[i], QUEUE_POPULATE, since);
		k->fetched[k->fetched_count++] = p->due[i].id;
	}
	k->after = p->after;
	k->wanted = !failed && (!p->all || k->fetched_count);
	k->untold += kept;
	bool tell = !k->wanted || k->untold >= SEND_AT;
	if (tell)
		k->untold = 0;
	pthread_mutex_unlock(&a->lock);
	return tell;
}

static void log_failure(const struct account *a, enum mf_err e)
{
	if (e != MF_OK && e != MF_NOT_FOUND)
		log_error("%s: messages cannot be stored here, and stay at the server: %s", a->config->name, mf_err_words(e));
}

void keeping_store_what_is_here(struct account *a)
{
	struct step *p = has_a_term(a) ? MF_NEW(struct step) : NULL;
	size_t kept = 0;
	enum mf_err e = MF_OK;
	while (p && e == MF_OK && !p->all) {
		*p = (struct step){ .before = term(a), .after = p->after, .all = true };
		e = cache_list(a->cache, a->inbox, p->after, look_at, p);
		if (e == MF_OK) {
			sort_out(a->cache, p);
			e = keep(a->cache, p->whole, p->whole_count, &kept);
		}
	}
	log_failure(a, e);
	free(p);
}

enum mf_err keeping_run(struct session *s)
{
	struct account *a = s->account;
	struct step *p = MF_NEW(struct step);
	uint64_t since;
	size_t kept = 0;
	begin(a, p, &since);
	session_progress(s, 0, false, "storing messages");
	enum mf_err e = cache_list(a->cache, a->inbox, p->after, look_at, p);
	if (e == MF_OK) {
		sort_out(a->cache, p);
		e = keep(a->cache, p->whole, p->whole_count, &kept);
	}
	log_failure(a, e);
	bool told = finish(a, p, since, kept, e != MF_OK);
	free(p);
	if (told)
		account_journal_changed(a); /* also where nothing was kept: somebody may wait until all is settled */
	return MF_OK;
}

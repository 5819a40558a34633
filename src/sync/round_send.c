/* What is sent in a round: operations as commands, and their answers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "sync/round.h"

#define LOOKS 3                 /* what is refused for a mailbox that LIST names all the same is tried so often */
#define AGAIN_MS 600000         /* an expunge that others' messages are in the way of */
#define IN_USE_MS 10000         /* a mailbox that the server says is in use, and how often that is tried before a person is asked */
#define IN_USE_TRIES 6
#define COPIES_AT_ONCE 600      /* without UIDPLUS: no more than go out as one command, which copies all of them or none */

struct group {                          /* becomes one entry of remote_write() */
	struct remote_write write;
	size_t turn;                    /* among those of its kind */
	struct op **ops;                /* in ascending uid */
	size_t count, room;
	uint32_t *uids;
	char *raw, *to, *keywords;      /* keywords: of an APPEND */
	bool tells;                     /* the server has UIDPLUS */
	bool half;                      /* a COPY that stands for a MOVE */
	bool late;                      /* an APPEND that is sent before its time, because somebody waits: behind what has none */
	bool apart;                     /* POP3: what deletes one message says nothing of others */
};

/* --- commands ----------------------------------------------------------------------------------------------------------------- */

static enum write_kind write_kind_of(const struct op *op, bool half)
{
	switch (op->kind) {
	case OP_FLAGS: return WRITE_FLAGS;
	case OP_APPEND: return WRITE_APPEND;
	case OP_COPY: return WRITE_COPY;
	case OP_MOVE: return half ? WRITE_COPY : WRITE_MOVE;
	case OP_EXPUNGE:
	case OP_KEEP: return WRITE_EXPUNGE;
	case OP_CREATE: return WRITE_CREATE;
	case OP_DELETE: return WRITE_DELETE;
	case OP_RENAME: return WRITE_RENAME;
	case OP_SUBSCRIBE: return WRITE_SUBSCRIBE;
	case OP_UNSUBSCRIBE: break;
	}
	return WRITE_UNSUBSCRIBE;
}

static bool belongs(const struct group *g, const struct op *op, enum write_kind kind, bool half, const char *raw, const char *to)
{
	const struct remote_write *w = &g->write;
	/* without UIDPLUS an EXPUNGE is about all that is marked */
	bool alone = (kind != WRITE_EXPUNGE || g->apart) && (op->tries > 1 || g->ops[0]->tries > 1);
	bool full = kind == WRITE_COPY && !g->tells && g->count >= COPIES_AT_ONCE;
	if (w->kind != kind || g->half != half || kind == WRITE_APPEND || kind >= WRITE_CREATE || alone || full)
		return false;
	if (strcmp(g->raw, raw) != 0 || w->uidvalidity != op->uidvalidity || strcmp(g->to ? g->to : "", to ? to : "") != 0)
		return false;
	return kind != WRITE_FLAGS || (w->flags == op->flags && w->flags_remove == op->flags_remove && strcmp(w->keywords, op->keywords) == 0 &&
		strcmp(w->keywords_remove, op->keywords_remove) == 0);
}

/* Takes raw and to. */
static struct group *group_create(struct round *r, const struct op *op, enum write_kind kind, bool half, char *raw, char *to)
{
	if (r->group_count == r->group_room) {
		r->group_room = r->group_room ? r->group_room * 2 : 16;
		r->groups = mf_realloc_array(r->groups, r->group_room, sizeof *r->groups);
	}
	struct group *g = &r->groups[r->group_count++];
	*g = (struct group){ .turn = r->group_count, .raw = raw, .to = to, .half = half, .tells = r->caps & REMOTE_UIDPLUS,
		.late = kind == WRITE_APPEND && op->due_ms > r->now_ms, .apart = !(r->caps & REMOTE_MAILBOXES) };
	g->write = (struct remote_write){ .kind = kind, .raw = raw, .to = to, .uidvalidity = op->uidvalidity, .flags = op->flags,
		.flags_remove = op->flags_remove, .keywords = op->keywords, .keywords_remove = op->keywords_remove, .fd = -1 };
	return g;
}

/* Takes raw and to. */
static struct group *group_for(struct round *r, const struct op *op, enum write_kind kind, bool half, char *raw, char *to)
{
	/* the last ones: a thousand operations of one kind follow each other */
	for (size_t i = r->group_count; i-- > 0;) {
		if (belongs(&r->groups[i], op, kind, half, raw, to)) {
			free(raw);
			free(to);
			return &r->groups[i];
		}
	}
	return group_create(r, op, kind, half, raw, to);
}

static void group_add(struct group *g, struct op *op)
{
	if (g->count == g->room) {
		g->room = g->room ? g->room * 2 : 8;
		g->ops = mf_realloc_array(g->ops, g->room, sizeof *g->ops);
	}
	g->ops[g->count++] = op;
}

static void group_finish(struct group *g)
{
	if (g->write.kind == WRITE_APPEND || g->write.kind == WRITE_REPLACE)
		mf_close(&g->write.fd);
	free(g->ops);
	free(g->uids);
	free(g->raw);
	free(g->to);
	free(g->keywords);
}

static void group_drop_last(struct round *r)
{
	group_finish(&r->groups[--r->group_count]);
}

static int by_uid(const void *a, const void *b)
{
	const struct op *x = *(struct op *const *)a, *y = *(struct op *const *)b;
	return (x->uid > y->uid) - (x->uid < y->uid);
}

static int by_kind(const void *a, const void *b)
{
	const struct group *x = a, *y = b;
	/* flags and copies of what is moved away in the same round come first; of one kind what was asked for first, which is what
	 * tells those apart that look alike and were not answered (OP_AWAITED_HASHES) */
	int order = x->late != y->late ? x->late - y->late : (int)x->write.kind - (int)y->write.kind;
	return order ? order : (x->turn > y->turn) - (x->turn < y->turn);
}

/* One COPY makes one copy of each: another of the same message goes into a command of its own. */
static void group_split(struct round *r, size_t i)
{
	struct group *g = &r->groups[i], *others = NULL;
	size_t kept = 1;
	for (size_t k = 1; k < g->count; k++) {
		struct op *op = g->ops[k];
		if (op->uid != g->ops[kept - 1]->uid) {
			g->ops[kept++] = op;
			continue;
		}
		if (!others) {
			others = group_create(r, op, WRITE_COPY, g->half, mf_strdup(g->raw), mf_strdup(g->to));
			g = &r->groups[i]; /* they may have moved */
		}
		group_add(others, op);
	}
	g->count = kept;
}

static void groups_settle(struct round *r)
{
	for (size_t i = 0; i < r->group_count; i++) {
		struct group *g = &r->groups[i];
		if (!g->ops[0]->uid)
			continue;
		qsort(g->ops, g->count, sizeof(struct op *), by_uid);
		if (g->write.kind == WRITE_COPY)
			group_split(r, i);
	}
	if (r->group_count)
		qsort(r->groups, r->group_count, sizeof *r->groups, by_kind);
	for (size_t i = 0; i < r->group_count; i++) {
		struct group *g = &r->groups[i];
		if (!g->ops[0]->uid)
			continue;
		g->uids = mf_alloc_array(g->count, sizeof *g->uids);
		for (size_t k = 0; k < g->count; k++)
			if (!k || g->uids[g->write.count - 1] != g->ops[k]->uid)
				g->uids[g->write.count++] = g->ops[k]->uid;
		g->write.uids = g->uids;
	}
}

/* The bytes and what goes with them; MF_NOT_FOUND: they are lost */
static enum mf_err load_message(struct account *a, struct group *g, uint64_t message)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err e = cache_message(a->cache, message, &m);
	if (e == MF_NOT_FOUND) { /* it has been moved on: its place says nothing of its date */
		m.entry.mtime = clock_wall_s();
		m.keywords = mf_strdup("");
		e = MF_OK;
	}
	if (e == MF_OK)
		e = spool_open(a->cache, message, &g->write.fd, &g->write.size);
	if (e != MF_OK)
		return e;
	g->write.internal_date = m.entry.mtime;
	g->write.flags = m.flags & (FLAG_SEEN | FLAG_ANSWERED | FLAG_FLAGGED | FLAG_DELETED | FLAG_DRAFT);
	g->keywords = mf_strdup(m.keywords);
	g->write.keywords = g->keywords;
	g->write.keywords_remove = NULL;
	return MF_OK;
}

/* A message that was overwritten after its APPEND was marked has another row by now, and another has its name in the spool. Until
 * it is open nothing may change that. */
static enum mf_err load_append(struct account *a, struct group *g, const struct op *op)
{
	struct txn *t;
	struct op now = { 0 };
	enum mf_err e = cache_begin(a->cache, &t);
	if (e != MF_OK)
		return e;
	e = journal_op(a->cache, op->id, &now);
	if (e == MF_OK)
		e = load_message(a, g, now.message);
	op_finish(&now);
	txn_rollback(t);
	return e;
}

/* Of which APPEND this is the other half */
static struct op *replaced_by(struct round *r, const struct op *append)
{
	for (size_t i = r->replaced; i < r->op_count; i++)
		if (r->ops[i].id && r->ops[i].after == append->id)
			return &r->ops[i];
	return NULL;
}

/* What REPLACE does in one step; only at the first attempt: what is refused, or was not answered, is tried as two. */
static enum mf_err round_pair(struct round *r)
{
	int64_t now = clock_wall_ns() / 1000000;
	size_t count = r->replaced = r->op_count;
	for (size_t i = 0; i < count && (r->caps & REMOTE_REPLACE); i++) {
		struct op old;
		bool may = r->ops[i].kind == OP_APPEND && !r->ops[i].tries;
		enum mf_err e = may ? journal_replaced(r->account->cache, r->ops[i].id, now, &old) : MF_NOT_FOUND;
		if (e == MF_NOT_FOUND)
			continue;
		if (e != MF_OK)
			return e;
		r->ops = mf_realloc_array(r->ops, r->op_count + 1, sizeof *r->ops);
		r->ops[r->op_count++] = old;
	}
	return MF_OK;
}

/* --- sending ------------------------------------------------------------------------------------------------------------------- */

static enum mf_err add_mailbox_op(struct round *r, struct op *op)
{
	struct cache *cache = r->account->cache;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	bool as_it_says = op->kind == OP_CREATE || op->kind == OP_DELETE;
	char *raw = as_it_says ? mf_strdup(op->raw) : op->kind == OP_RENAME ? round_raw_now(cache, op->mailbox, &m) : round_raw_of(cache, op->mailbox, op, &m);
	if (!raw)
		return MF_NOT_FOUND;
	char *to = op->kind == OP_RENAME ? mf_strdup(op->raw) : NULL;
	group_add(group_for(r, op, write_kind_of(op, false), false, raw, to), op);
	return MF_OK;
}

static enum mf_err add_message_op(struct round *r, struct op *op)
{
	struct account *a = r->account;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 }, dest = { 0 };
	char *raw = round_raw_of(a->cache, op->mailbox, op, &m);
	char *to = op->dest ? round_raw_now(a->cache, op->dest, &dest) : NULL;
	bool half = op->kind == OP_MOVE && !(r->caps & REMOTE_MOVE);
	if (!raw || (op->dest && !to)) {
		free(raw);
		free(to);
		return MF_NOT_FOUND;
	}
	struct group *g = group_for(r, op, write_kind_of(op, half), half, raw, to);
	group_add(g, op);
	enum mf_err e = op->kind == OP_APPEND ? load_append(a, g, op) : MF_OK;
	if (e != MF_OK)
		group_drop_last(r);
	return e;
}

/* The old version is kept out of .ops if it does not go with the new one. */
static enum mf_err add_append(struct round *r, struct op *op)
{
	enum mf_err e = add_message_op(r, op);
	struct op *old = e == MF_OK ? replaced_by(r, op) : NULL;
	if (!old)
		return e;
	struct group *g = &r->groups[r->group_count - 1];
	group_add(g, old);
	g->uids = mf_alloc_array(1, sizeof *g->uids);
	g->uids[0] = old->uid;
	g->write.kind = WRITE_REPLACE;
	g->write.uidvalidity = old->uidvalidity;
	g->write.uids = g->uids;
	g->write.count = 1;
	return e;
}

static enum mf_err unmark(struct account *a, const struct op *op, int64_t due_ms)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	return e == MF_OK ? round_commit(t, txn_op_again(t, op->id, due_ms)) : e;
}

/* Those whose new version was not sent */
static enum mf_err unmark_replaced(struct round *r)
{
	enum mf_err e = MF_OK;
	for (size_t i = r->replaced; i < r->op_count && e == MF_OK; i++) {
		bool goes = false;
		for (size_t k = 0; k < r->group_count && !goes; k++)
			goes = r->groups[k].write.kind == WRITE_REPLACE && r->groups[k].ops[1] == &r->ops[i];
		if (r->ops[i].id && !goes)
			e = unmark(r->account, &r->ops[i], r->ops[i].due_ms);
	}
	return e;
}

/* After they were marked: each as the journal has it now */
static enum mf_err round_group(struct round *r)
{
	for (size_t i = 0; i < r->replaced; i++) {
		struct op *op = &r->ops[i];
		if (!op->id)
			continue;
		enum mf_err e = op_is_of_mailbox(op) ? add_mailbox_op(r, op) : op->kind == OP_APPEND ? add_append(r, op) : add_message_op(r, op);
		if (e == MF_NOT_FOUND || e == MF_BUSY || e == MF_CORRUPT)
			e = unmark(r->account, op, clock_wall_ns() / 1000000 + STUCK_MS); /* it changed since it was picked */
		if (e != MF_OK)
			return e;
	}
	enum mf_err e = unmark_replaced(r);
	groups_settle(r);
	return e;
}

/* --- answers --------------------------------------------------------------------------------------------------------------------- */

static int compare_from(const void *key, const void *pair)
{
	uint32_t uid = *(const uint32_t *)key, from = ((const struct uid_pair *)pair)->from;
	return (uid > from) - (uid < from);
}

static const struct uid_pair *find_pair(const struct write_result *result, uint32_t uid)
{
	return result->count ? bsearch(&uid, result->pairs, result->count, sizeof *result->pairs, compare_from) : NULL;
}

static int compare_uids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

/* RFC 4315 3: of a mailbox that may be written to and not read no numbers are told */
static bool keeps_numbers_secret(struct cache *cache, uint64_t mailbox)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return cache_mailbox(cache, mailbox, &m) == MF_OK && !mailbox_permits(&m, "r");
}

static enum mf_err placed(struct round *r, struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	bool stored = op->kind == OP_APPEND;
	const struct uid_pair *pair = !result->uidvalidity ? NULL : !stored ? find_pair(result, op->uid) : result->count == 1 ? result->pairs : NULL;
	bool tells = result->uidvalidity || (g->tells && !result->unclear && !keeps_numbers_secret(r->account->cache, op->dest));
	/* a server that tells numbers, and not this one's, has found nothing to copy; or will not tell */
	if (!stored && !pair && tells) {
		r->unsaid = true;
		return txn_op_unsaid(t, op->id);
	}
	uint32_t to = pair ? pair->to : 0;
	return g->half ? txn_op_half_moved(t, op, result->uidvalidity, to) : txn_op_done(t, op->id, result->uidvalidity, to);
}

/* Of a set that went out in parts some were refused: these were not, and are not to be copied once more. */
static bool is_told_done(const struct group *g, const struct op *op, const struct write_result *result)
{
	return result->uidvalidity && (g->write.kind == WRITE_COPY || g->write.kind == WRITE_MOVE) && find_pair(result, op->uid);
}

static bool is_told_there(const struct group *g, const struct op *op, const struct write_result *result)
{
	const uint32_t *at = bsearch(&op->uid, g->write.uids, g->write.count, sizeof *at, compare_uids);
	return result->there && at && result->there[at - g->write.uids];
}

static enum mf_err took(struct round *r, struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	switch (g->write.kind) {
	case WRITE_APPEND:
	case WRITE_COPY:
	case WRITE_MOVE:
		return placed(r, t, g, op, result);
	case WRITE_REPLACE:
		if (op->kind == OP_APPEND)
			return placed(r, t, g, op, result);
		break;
	case WRITE_CREATE:
		return txn_op_mailbox_is(t, op->id, g->raw);
	case WRITE_RENAME:
		return txn_op_mailbox_is(t, op->id, g->to);
	case WRITE_FLAGS:
		if (is_told_there(g, op, result))
			break;
		r->unsaid = true;
		return txn_op_unsaid(t, op->id);
	case WRITE_EXPUNGE:
	case WRITE_DELETE:
	case WRITE_SUBSCRIBE:
	case WRITE_UNSUBSCRIBE:
		break;
	}
	return txn_op_done(t, op->id, 0, 0);
}

/* For a person, with the server's words */
static void explain(const struct group *g, const struct write_result *result, char *to, size_t size)
{
	const char *what = result->result == MF_EXISTS && g->write.kind == WRITE_DELETE ? "the mailbox has messages at the server"
		: result->result == MF_CANCELLED ? "the mailbox is in use at the server" : mf_err_words(result->result);
	snprintf(to, size, "%s%s%s", what, result->reason && *result->reason ? ": " : "", result->reason ? result->reason : "");
}

static bool is_listed(struct cache *cache, uint64_t mailbox)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return cache_mailbox(cache, mailbox, &m) == MF_OK && m.raw;
}

/* Nobody will read it, and find the message under another number. */
static bool is_removed_here(struct cache *cache, uint64_t mailbox)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return cache_mailbox(cache, mailbox, &m) == MF_NOT_FOUND;
}

/* A mailbox is not there: LIST, which is asked for, says whether it has another name by now. What was removed with the message in it
 * cannot be changed any more; a destination is made again or not, and what is to go there waits. false: that has been tried */
static bool is_about_the_gone(struct round *r, struct txn *t, const struct op *op, int64_t now, enum mf_err *ret)
{
	struct cache *cache = r->account->cache;
	bool known = is_listed(cache, op->mailbox) && (!op->dest || is_listed(cache, op->dest)), lost = false;
	if (op_is_of_mailbox(op) || (known && op->tries >= LOOKS))
		return false;
	*ret = op->tries > 1 && !known ? txn_op_lost(t, op->id, true, &lost) : MF_OK;
	if (*ret == MF_OK && !lost)
		*ret = txn_op_again(t, op->id, now + STUCK_MS);
	return true;
}

static enum mf_err refused(struct round *r, struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	int64_t now = clock_wall_ns() / 1000000;
	enum mf_err e;
	if (g->write.kind == WRITE_REPLACE) /* the old version may be gone: the new one is stored all the same */
		return txn_op_again(t, op->id, 0);
	if (result->result == MF_NOT_FOUND && is_about_the_gone(r, t, op, now, &e))
		return e;
	if (result->result == MF_CANCELLED && g->write.kind == WRITE_EXPUNGE)
		return txn_op_again(t, op->id, now + AGAIN_MS);
	if (result->result == MF_CANCELLED && op->tries < IN_USE_TRIES)
		return txn_op_again(t, op->id, now + IN_USE_MS);
	if (result->result == MF_UIDVALIDITY && !is_removed_here(r->account->cache, op->mailbox))
		return txn_op_again(t, op->id, now + STUCK_MS);
	bool together = g->write.kind == WRITE_EXPUNGE && !g->apart && op->tries > 1; /* that does not help */
	if (g->count > 1 && !together) /* one of them is to blame: each alone */
		return txn_op_again(t, op->id, 0);
	char why[400];
	explain(g, result, why, sizeof why);
	log_warning("%s: %s (operation %" PRIu64 ") waits for a person: %s", r->account->config->name, op_kind_word(op->kind), op->id, why);
	return txn_op_park(t, op->id, OP_PARKED, why);
}

/* Where an answer leaves something to be learnt, the mailbox or the list is asked for. */
static void follow_up(struct round *r, const struct group *g, const struct write_result *result)
{
	struct account *a = r->account;
	const struct op *op = g->ops[0];
	bool placing = op->kind == OP_APPEND || g->write.kind == WRITE_COPY || g->write.kind == WRITE_MOVE;
	uint64_t look = 0;
	if (result->result == MF_UIDVALIDITY)
		look = op->mailbox;
	else if (result->result == MF_OK && placing && !result->uidvalidity)
		look = op_landing(op);
	bool list = g->write.kind == WRITE_CREATE || g->write.kind == WRITE_RENAME || result->result == MF_NOT_FOUND ||
	            (g->write.kind == WRITE_DELETE && result->result != MF_OK);
	pthread_mutex_lock(&a->lock);
	if (look) /* before the next round: what follows waits for its number */
		work_want_locked(a, work_get_locked(a, look), PRIORITY_PERSON, CHANGES_AUTO);
	a->list_pending |= list;
	/* a mailbox that is not there: what is tried again is to know by then where it is */
	enum priority priority = result->result == MF_NOT_FOUND ? PRIORITY_PERSON : PRIORITY_BACKGROUND;
	if (list && a->list_priority < priority)
		a->list_priority = priority;
	pthread_mutex_unlock(&a->lock);
}

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	struct round *r = context;
	const struct group *g = &r->groups[i];
	struct txn *t;
	pthread_mutex_lock(&r->account->lock);
	r->account->settled++; /* before what it brings can be seen */
	pthread_mutex_unlock(&r->account->lock);
	enum mf_err e = cache_begin(r->account->cache, &t);
	if (e != MF_OK)
		return e;
	for (size_t k = 0; k < g->count && e == MF_OK; k++) {
		if (g->write.kind == WRITE_FLAGS && !txn_op_is_sent(t, g->ops[k]->id))
			continue; /* the message was met elsewhere meanwhile: they go there */
		e = result->result == MF_OK || is_told_done(g, g->ops[k], result) ? took(r, t, g, g->ops[k], result) : refused(r, t, g, g->ops[k], result);
	}
	if (e != MF_OK) {
		txn_rollback(t);
		return e;
	}
	e = txn_commit(t);
	follow_up(r, g, result);
	pthread_mutex_lock(&r->account->lock);
	r->session->progress.done += g->count;
	pthread_mutex_unlock(&r->account->lock);
	return e;
}

enum mf_err round_send(struct round *r)
{
	struct account *a = r->account;
	enum mf_err e = round_pair(r);
	if (e == MF_OK)
		e = journal_mark_sent(a->cache, r->ops, r->op_count);
	if (e == MF_OK)
		e = round_group(r);
	if (e != MF_OK || !r->group_count)
		return e;
	session_progress(r->session, r->op_count, false, "sending changes");
	struct remote_write *writes = mf_alloc_array(r->group_count, sizeof *writes);
	for (size_t i = 0; i < r->group_count; i++)
		writes[i] = r->groups[i].write;
	e = remote_write(r->session->remote, writes, r->group_count, &(struct write_sink){ on_done, r });
	free(writes);
	if (e == MF_OK && r->unsaid)
		doubts_open(a);
	return e;
}

void round_finish(struct round *r)
{
	for (size_t i = 0; i < r->group_count; i++)
		group_finish(&r->groups[i]);
	free(r->groups);
	for (size_t i = 0; i < r->op_count; i++)
		op_finish(&r->ops[i]);
	free(r->ops);
	free(r->spooled);
	free(r->spooled_result);
}

/* Replay: what was changed here is carried out at the server.
 *
 * One round: take what is ready from the journal, mark it sent (on the disk), send it as few commands, settle each answer.
 * What was sent and not answered when a connection was lost is in doubt: on the next one the mailboxes concerned are
 * synchronised first, which finds what has happened (cache/settle.c); what it does not find did not happen. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "sync/engine.h"

#define AT_ONCE 5000            /* operations in one round */
#define APPENDS_AT_ONCE 200     /* open files */
#define GATHER_MS 150           /* a change waits so long for others to go with it, */
#define GATHER_MOST_MS 1000     /* but the first of them no longer than this */
#define AGAIN_MS 600000         /* an expunge that others' messages are in the way of */
#define LOOK_MS 50              /* between looks at what a synchronisation is to find */
#define STUCK_MS 2000           /* what waits for a mailbox that is being made or numbered anew */

/* --- when ------------------------------------------------------------------------------------------------------------------- */

void replay_look_at_locked(struct account *a, int64_t at_ms)
{
	if (at_ms >= a->replay_at_ms)
		return;
	a->replay_at_ms = at_ms;
	sessions_wake_locked(a, ROLE_WORKER);
}

void account_journal_changed(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	int64_t now = clock_mono_ms(), at = now + (a->replay_hurry ? 0 : GATHER_MS);
	if (!a->replay_first_ms)
		a->replay_first_ms = now;
	if (at > a->replay_first_ms + GATHER_MOST_MS)
		at = a->replay_first_ms + GATHER_MOST_MS;
	/* later than before is meant: the last change counts. Who wakes at the time that held before sees the new one */
	bool sooner = at < a->replay_at_ms;
	a->replay_at_ms = at;
	if (sooner)
		sessions_wake_locked(a, ROLE_WORKER);
	pthread_mutex_unlock(&a->lock);
}

void account_refresh(struct account *a)
{
	pthread_mutex_lock(&a->lock);
	a->list_pending = true;
	if (a->list_priority < PRIORITY_BACKGROUND)
		a->list_priority = PRIORITY_BACKGROUND;
	pthread_mutex_unlock(&a->lock);
	account_journal_changed(a);
}

void replay_connected_locked(struct account *a)
{
	a->doubts = DOUBTS_OPEN;
	a->replay_at_ms = 0;
}

bool replay_is_due_locked(const struct account *a, int64_t now)
{
	return a->replay_at_ms <= now && a->listed_ms && !a->list_running && a->doubts != DOUBTS_LOOKED_AT;
}

int64_t replay_wait_ms_locked(const struct account *a, int64_t now)
{
	if (a->replay_at_ms == INT64_MAX || !a->listed_ms || a->doubts == DOUBTS_LOOKED_AT)
		return INT64_MAX;
	return a->replay_at_ms > now ? a->replay_at_ms - now : 0;
}

/* --- one round ---------------------------------------------------------------------------------------------------------------- */

struct group {                          /* becomes one entry of remote_write() */
	struct remote_write write;
	struct op **ops;                /* in ascending uid */
	size_t count, room;
	uint32_t *uids;
	char *raw, *to, *keywords;      /* keywords: of an APPEND */
	bool tells;                     /* the server has UIDPLUS */
	bool half;                      /* a COPY that stands for a MOVE */
	bool apart;                     /* POP3: what deletes one message says nothing of others */
};

struct round {
	struct account *account;
	struct session *session;
	struct op *ops;
	size_t op_count;
	struct group *groups;
	size_t group_count, group_room;
	size_t appends;
	uint64_t *spooled;              /* messages to be appended, */
	enum mf_err *spooled_result;    /* and whether their bytes are on the disk */
	size_t spooled_count;
	unsigned caps;
	bool waits;                     /* for a mailbox to be read; what waits for another operation is looked at after that */
};

/* A change of the journal by itself */
static enum mf_err finish(struct txn *t, enum mf_err e)
{
	if (e == MF_OK)
		return txn_commit(t);
	txn_rollback(t);
	return e;
}

static enum mf_err park(struct account *a, const struct op *op, const char *why)
{
	log_warning("%s: %s (operation %" PRIu64 ") waits for a person: %s", a->config->name, op_kind_word(op->kind), op->id, why);
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	return e == MF_OK ? finish(t, txn_op_park(t, op->id, OP_PARKED, why)) : e;
}

static enum mf_err forget_keep(struct account *a, const struct op *op, enum mf_err (*how)(struct txn *t, uint64_t op))
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	return e == MF_OK ? finish(t, how(t, op->id)) : e;
}

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

/* The server's bytes for a mailbox; NULL: it has none now. The caller frees */
static char *raw_of(struct cache *cache, uint64_t mailbox, const struct op *op, struct mailbox *ret)
{
	*ret = (struct mailbox){ 0 };
	if (cache_mailbox(cache, mailbox, ret) == MF_OK)
		return ret->raw ? mf_strdup(ret->raw) : NULL;
	return op->raw ? mf_strdup(op->raw) : NULL;
}

static char *raw_now(struct cache *cache, uint64_t mailbox, struct mailbox *ret)
{
	static const struct op none;
	return raw_of(cache, mailbox, &none, ret);
}

static bool belongs(const struct group *g, const struct op *op, enum write_kind kind, bool half, const char *raw, const char *to)
{
	const struct remote_write *w = &g->write;
	/* without UIDPLUS an EXPUNGE is about all that is marked */
	bool alone = (kind != WRITE_EXPUNGE || g->apart) && (op->tries > 1 || g->ops[0]->tries > 1);
	if (w->kind != kind || g->half != half || kind == WRITE_APPEND || kind >= WRITE_CREATE || alone)
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
	*g = (struct group){ .raw = raw, .to = to, .half = half, .tells = r->caps & REMOTE_UIDPLUS,
		.apart = !(r->caps & REMOTE_MAILBOXES) };
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
	if (g->write.kind == WRITE_APPEND)
		mf_close(&g->write.fd);
	free(g->ops);
	free(g->uids);
	free(g->raw);
	free(g->to);
	free(g->keywords);
}

static void round_finish(struct round *r)
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
	/* flags and copies of what is moved away in the same round come first */
	return (int)x->write.kind - (int)y->write.kind;
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
static enum mf_err load_append(struct account *a, struct group *g, const struct op *op)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err e = cache_message(a->cache, op->message, &m);
	if (e == MF_NOT_FOUND) { /* it has been moved on: its place says nothing of its date */
		m.entry.mtime = clock_wall_s();
		m.keywords = mf_strdup("");
		e = MF_OK;
	}
	if (e == MF_OK)
		e = spool_open(a->cache, op->message, &g->write.fd, &g->write.size);
	if (e != MF_OK)
		return e;
	g->write.internal_date = m.entry.mtime;
	g->write.flags = m.flags & (FLAG_SEEN | FLAG_ANSWERED | FLAG_FLAGGED | FLAG_DELETED | FLAG_DRAFT);
	g->keywords = mf_strdup(m.keywords);
	g->write.keywords = g->keywords;
	g->write.keywords_remove = NULL;
	return MF_OK;
}

/* --- what is left out -------------------------------------------------------------------------------------------------------------- */

/* Numbered anew since: it was matched, or is not there. */
static enum mf_err is_of_other_numbers(struct round *r, const struct op *op, const struct mailbox *m, bool *ret)
{
	struct account *a = r->account;
	*ret = op->uid && m->uidvalidity && op->uidvalidity != m->uidvalidity;
	if (!*ret)
		return MF_OK;
	if (m->complete && op->kind == OP_KEEP) /* nothing is left to be deleted */
		return forget_keep(a, op, txn_op_gone);
	if (m->complete)
		return park(a, op, "the mailbox was numbered anew, and the message was not found in it again");
	pthread_mutex_lock(&a->lock);
	work_want_locked(a, work_get_locked(a, m->id), PRIORITY_BACKGROUND, CHANGES_AUTO);
	pthread_mutex_unlock(&a->lock);
	r->waits = true;
	return MF_OK;
}

/* Nothing is left to be done for this. */
static enum mf_err is_called(struct account *a, const struct op *op, const char *raw)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	return e == MF_OK ? finish(t, txn_op_mailbox_is(t, op->id, raw)) : e;
}

/* Another client has removed the mailbox with the message in it; or a person has just now, after op was read. */
static enum mf_err is_lost(struct account *a, const struct op *op)
{
	struct txn *t;
	bool lost = false;
	enum mf_err e = cache_begin(a->cache, &t);
	if (e == MF_OK)
		e = finish(t, txn_op_lost(t, op->id, &lost));
	if (lost)
		log_info("%s: %s of operation %" PRIu64 ": the mailbox that the message was in is gone at the server", a->config->name,
		         op_kind_word(op->kind), op->id);
	return e;
}

/* Nothing leaves that could be lost here: what may be appended in this round goes to the disk, all together. */
static enum mf_err round_spool(struct round *r)
{
	r->spooled = mf_alloc_array(APPENDS_AT_ONCE, sizeof *r->spooled);
	r->spooled_result = mf_alloc_array(APPENDS_AT_ONCE, sizeof *r->spooled_result);
	for (size_t i = 0; i < r->op_count && r->spooled_count < APPENDS_AT_ONCE; i++)
		if (r->ops[i].kind == OP_APPEND)
			r->spooled[r->spooled_count++] = r->ops[i].message;
	return spool_sync_all(r->account->cache, r->spooled, r->spooled_count, r->spooled_result);
}

static enum mf_err spool_is_safe(const struct round *r, uint64_t message)
{
	for (size_t i = 0; i < r->spooled_count; i++)
		if (r->spooled[i] == message)
			return r->spooled_result[i];
	return spool_sync(r->account->cache, message);
}

static enum mf_err message_ready(struct round *r, const struct op *op, bool *ret)
{
	struct account *a = r->account;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 }, dest = { 0 };
	MF_CLEANUP(mf_free) char *raw = raw_of(a->cache, op->mailbox, op, &m);
	MF_CLEANUP(mf_free) char *to = op->dest ? raw_now(a->cache, op->dest, &dest) : NULL;
	*ret = false;
	if (op->kind == OP_APPEND && r->appends == APPENDS_AT_ONCE)
		return MF_OK;
	if (!raw && op->kind != OP_APPEND)
		return is_lost(a, op);
	if (!raw || (op->dest && !to)) /* until it is made, which is an operation too */
		return MF_OK;
	bool other = false;
	enum mf_err e = is_of_other_numbers(r, op, &m, &other);
	if (e != MF_OK || other)
		return e;
	if (op->kind == OP_APPEND && (e = spool_is_safe(r, op->message)) != MF_OK)
		return e == MF_NOT_FOUND || e == MF_CORRUPT ? park(a, op, "its bytes in the spool are gone or damaged") : e;
	if (op->kind == OP_KEEP && (e = spool_sync(a->cache, op->message)) != MF_OK) {
		if (e != MF_NOT_FOUND && e != MF_CORRUPT)
			return e;
		log_error("%s: the bytes of message %" PRIu64 " were to be kept, and are gone: it stays at the server", a->config->name, op->message);
		return forget_keep(a, op, txn_cancel);
	}
	r->appends += op->kind == OP_APPEND;
	*ret = true;
	return MF_OK;
}

/* CREATE and RENAME */
static enum mf_err naming_ready(struct round *r, const struct op *op, bool *ret, enum name_state *ret_name)
{
	struct account *a = r->account;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *target = NULL, *now = op->kind == OP_RENAME ? raw_now(a->cache, op->mailbox, &m) : NULL;
	enum mf_err e = journal_target(a->cache, op, &target);
	*ret = false;
	if (e != MF_OK)
		return e == MF_BUSY ? MF_OK : park(a, op, "there is no name for it at the server");
	if (now && strcmp(now, target) == 0) /* it was to have another meanwhile, and did not get it */
		return is_called(a, op, now);
	size_t len = now ? strlen(now) : 0;
	if (now && strncmp(now, target, len) == 0 && target[len] == m.delimiter)
		return MF_OK; /* what it goes into is in it still, and is to leave it */
	e = journal_name_state(a->cache, op, target, ret_name);
	*ret = *ret_name == NAME_FREE && (now || op->kind == OP_CREATE);
	return e;
}

static enum mf_err mailbox_ready(struct round *r, const struct op *op, bool *ret, enum name_state *ret_name)
{
	struct cache *cache = r->account->cache;
	*ret = true;
	*ret_name = NAME_FREE;
	if (op->kind == OP_CREATE || op->kind == OP_RENAME)
		return naming_ready(r, op, ret, ret_name);
	if (op->kind == OP_DELETE) {
		enum mf_err e = journal_uses(cache, op->mailbox, ret);
		*ret = !*ret;
		return e;
	}
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *raw = raw_of(cache, op->mailbox, op, &m);
	*ret = raw != NULL;
	return MF_OK;
}

/* Once is enough for a circle. */
static bool can_go_aside(struct round *r, const struct op *op)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	MF_CLEANUP(mf_free) char *now = raw_now(r->account->cache, op->mailbox, &m), *aside = NULL;
	return op->kind == OP_RENAME && now && journal_aside(r->account->cache, op, &aside) == MF_OK && strcmp(now, aside) != 0;
}

/* What can be sent in this round, moved to the front: all about messages that is ready, or one change of a mailbox, which
 * is answered before anything that may build on it. */
static enum mf_err round_pick(struct round *r)
{
	size_t kept = 0, crossed = SIZE_MAX;
	bool alone = false, held = false;
	enum mf_err e = round_spool(r);
	for (size_t i = 0; i < r->op_count; i++) {
		struct op *op = &r->ops[i];
		bool of_mailbox = op_is_of_mailbox(op), take = false;
		if (e == MF_OK && !alone && of_mailbox && kept == 0) {
			enum name_state name; /* one that cannot be done yet keeps none back: it may be waiting for one of them */
			e = mailbox_ready(r, op, &take, &name);
			alone = take;
			held |= name == NAME_HELD;
			if (name == NAME_LEAVING && crossed == SIZE_MAX && can_go_aside(r, op))
				crossed = i;
		} else if (e == MF_OK && !alone && !of_mailbox) {
			e = message_ready(r, op, &take);
		}
		if (take && e == MF_OK) {
			struct op swap = r->ops[kept];
			r->ops[kept++] = *op;
			if (&r->ops[kept - 1] != op)
				*op = swap;
		}
	}
	if (e == MF_OK && kept == 0 && crossed != SIZE_MAX && !held) {
		/* each waits for another's name: one of them gives its own up */
		struct op swap = r->ops[0];
		r->ops[0] = r->ops[crossed];
		r->ops[crossed] = swap;
		r->ops[0].aside = true;
		kept = 1;
	}
	for (size_t i = kept; i < r->op_count; i++)
		op_finish(&r->ops[i]);
	r->op_count = kept;
	return e;
}

/* --- sending ------------------------------------------------------------------------------------------------------------------- */

static enum mf_err add_mailbox_op(struct round *r, struct op *op)
{
	struct cache *cache = r->account->cache;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	bool as_it_says = op->kind == OP_CREATE || op->kind == OP_DELETE;
	char *raw = as_it_says ? mf_strdup(op->raw) : op->kind == OP_RENAME ? raw_now(cache, op->mailbox, &m) : raw_of(cache, op->mailbox, op, &m);
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
	char *raw = raw_of(a->cache, op->mailbox, op, &m);
	char *to = op->dest ? raw_now(a->cache, op->dest, &dest) : NULL;
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

static enum mf_err unmark(struct account *a, const struct op *op)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	return e == MF_OK ? finish(t, txn_op_again(t, op->id, clock_wall_ns() / 1000000 + STUCK_MS)) : e;
}

/* After they were marked: each as the journal has it now */
static enum mf_err round_group(struct round *r)
{
	for (size_t i = 0; i < r->op_count; i++) {
		struct op *op = &r->ops[i];
		if (!op->id)
			continue;
		enum mf_err e = op_is_of_mailbox(op) ? add_mailbox_op(r, op) : add_message_op(r, op);
		if (e == MF_NOT_FOUND || e == MF_BUSY || e == MF_CORRUPT)
			e = unmark(r->account, op); /* it changed since it was picked */
		if (e != MF_OK)
			return e;
	}
	groups_settle(r);
	return MF_OK;
}

/* --- answers --------------------------------------------------------------------------------------------------------------------- */

static const struct uid_pair *find_pair(const struct write_result *result, uint32_t uid)
{
	size_t low = 0, high = result->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (result->pairs[middle].from < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < result->count && result->pairs[low].from == uid ? &result->pairs[low] : NULL;
}

static enum mf_err placed(struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	uint32_t to = 0;
	/* a server that tells numbers and tells none has found nothing to copy */
	if (g->tells && !result->uidvalidity && g->write.kind != WRITE_APPEND)
		return txn_op_gone(t, op->id);
	if (result->uidvalidity && g->write.kind == WRITE_APPEND && result->count == 1) {
		to = result->pairs[0].to;
	} else if (result->uidvalidity && g->write.kind != WRITE_APPEND) {
		const struct uid_pair *pair = find_pair(result, op->uid);
		if (!pair)
			return txn_op_gone(t, op->id);
		to = pair->to;
	}
	return g->half ? txn_op_half_moved(t, op->id, result->uidvalidity, to) : txn_op_done(t, op->id, result->uidvalidity, to);
}

static enum mf_err took(struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	switch (g->write.kind) {
	case WRITE_APPEND:
	case WRITE_COPY:
	case WRITE_MOVE:
		return placed(t, g, op, result);
	case WRITE_CREATE:
		return txn_op_mailbox_is(t, op->id, g->raw);
	case WRITE_RENAME:
		return txn_op_mailbox_is(t, op->id, g->to);
	case WRITE_FLAGS:
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
	const char *what = result->result == MF_EXISTS && g->write.kind == WRITE_DELETE ? "the mailbox has messages at the server" : mf_err_words(result->result);
	snprintf(to, size, "%s%s%s", what, result->reason && *result->reason ? ": " : "", result->reason ? result->reason : "");
}

static bool is_listed(struct cache *cache, uint64_t mailbox)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return cache_mailbox(cache, mailbox, &m) == MF_OK && m.raw;
}

/* A mailbox is gone: LIST, which is asked for, says which. What is removed with the message in it cannot be changed any more;
 * a destination is made again or not, and what is to go there waits. false: that has been tried */
static bool is_about_the_gone(struct round *r, struct txn *t, const struct op *op, int64_t now, enum mf_err *ret)
{
	struct cache *cache = r->account->cache;
	bool of_source = op->kind == OP_FLAGS || op->kind == OP_EXPUNGE;
	if (!of_source && op->kind != OP_MOVE && op->kind != OP_COPY)
		return false;
	if (of_source || (op->tries > 1 && !is_listed(cache, op->mailbox) && is_listed(cache, op->dest)))
		*ret = txn_op_gone(t, op->id);
	else if (op->tries > 1)
		return false;
	else
		*ret = txn_op_again(t, op->id, now + STUCK_MS);
	return true;
}

static enum mf_err refused(struct round *r, struct txn *t, const struct group *g, const struct op *op, const struct write_result *result)
{
	int64_t now = clock_wall_ns() / 1000000;
	enum mf_err e;
	if (result->result == MF_NOT_FOUND && is_about_the_gone(r, t, op, now, &e))
		return e;
	if (result->result == MF_CANCELLED)
		return txn_op_again(t, op->id, now + AGAIN_MS);
	if (result->result == MF_UIDVALIDITY)
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
	bool placing = g->write.kind == WRITE_APPEND || g->write.kind == WRITE_COPY || g->write.kind == WRITE_MOVE;
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
	if (list && a->list_priority < PRIORITY_BACKGROUND)
		a->list_priority = PRIORITY_BACKGROUND;
	pthread_mutex_unlock(&a->lock);
}

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	struct round *r = context;
	const struct group *g = &r->groups[i];
	struct txn *t;
	enum mf_err e = cache_begin(r->account->cache, &t);
	if (e != MF_OK)
		return e;
	for (size_t k = 0; k < g->count && e == MF_OK; k++)
		e = result->result == MF_OK ? took(t, g, g->ops[k], result) : refused(r, t, g, g->ops[k], result);
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

static enum mf_err round_send(struct round *r)
{
	struct account *a = r->account;
	enum mf_err e = journal_mark_sent(a->cache, r->ops, r->op_count);
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
	return e;
}

/* --- settled ------------------------------------------------------------------------------------------------------------------------ */

struct outstanding { int64_t now_ms; uint64_t open, sent, held, unconfirmed, later, bound; };

static bool count_outstanding(void *context, const struct op *op)
{
	struct outstanding *o = context;
	bool later = op->kind == OP_EXPUNGE && op->state == OP_QUEUED && op->due_ms > o->now_ms;
	bool bound = op->kind == OP_DELETE && op->state == OP_QUEUED; /* by such an expunge, if by anything */
	if (op->state == OP_PARKED || op->state == OP_UNCONFIRMED)
		o->held++;
	else if (!later && !bound)
		o->open++;
	o->unconfirmed += op->state == OP_UNCONFIRMED;
	o->later += later;
	o->bound += bound;
	o->sent += op->state == OP_SENT;
	return true;
}

/* Mailboxes are being read, or are next: what is not confirmed may be seen in one. */
static bool is_looking_locked(struct account *a)
{
	struct mailbox_work *w;
	bool looking = false;
	for (size_t i = 0; !looking && (w = id_table_next(&a->mailboxes, &i));)
		looking = w->running || w->pending == PRIORITY_PERSON;
	return looking;
}

/* Who waits is told when nothing is left that the server could have by now. */
static void tell_settled(struct account *a, bool round_was_empty)
{
	struct outstanding o = { .now_ms = clock_wall_ns() / 1000000 };
	pthread_mutex_lock(&a->lock);
	bool waited = a->settle_waiters != NULL, more = keeping_is_due_locked(a);
	pthread_mutex_unlock(&a->lock);
	if (!waited || more)
		return;
	enum mf_err e = journal_list(a->cache, 0, count_outstanding, &o);
	o.open += o.later ? 0 : o.bound;
	bool unseen = o.held && !round_was_empty;
	/* what cannot go because of something that is held is held as well */
	bool stuck = round_was_empty && o.held && !o.sent;
	pthread_mutex_lock(&a->lock);
	if (e == MF_OK && o.unconfirmed && is_looking_locked(a)) {
		replay_look_at_locked(a, clock_mono_ms() + LOOK_MS);
	} else if (e != MF_OK || stuck || (!o.open && !unseen)) {
		parts_done_locked(a, &a->settle_waiters, e != MF_OK ? e : o.held ? MF_DENIED : MF_OK);
		a->replay_hurry = false;
	}
	pthread_mutex_unlock(&a->lock);
}

/* When to look again */
static void plan(struct account *a, const struct round *r)
{
	int64_t due = INT64_MAX;
	if (journal_next_due(a->cache, &due) != MF_OK)
		due = clock_wall_ns() / 1000000 + STUCK_MS;
	pthread_mutex_lock(&a->lock);
	int64_t now = clock_mono_ms();
	if (r->op_count) {
		/* there may be more; where changes go on coming they gather again */
		if (!a->replay_first_ms || a->replay_hurry || r->op_count >= AT_ONCE || r->appends == APPENDS_AT_ONCE)
			replay_look_at_locked(a, now);
	} else if (due != INT64_MAX) {
		int64_t wait = due - clock_wall_ns() / 1000000;
		/* what is due and was not taken waits for something that tells of itself, or for this */
		replay_look_at_locked(a, now + (wait < STUCK_MS ? r->waits ? 200 : STUCK_MS : wait));
	}
	pthread_mutex_unlock(&a->lock);
}

enum mf_err replay_run(struct session *s)
{
	struct account *a = s->account;
	pthread_mutex_lock(&a->lock);
	enum doubts doubts = a->doubts;
	bool hurry = a->replay_hurry;
	a->replay_at_ms = INT64_MAX;
	a->replay_first_ms = 0;
	pthread_mutex_unlock(&a->lock);
	struct round r = { .account = a, .session = s, .caps = s->caps };
	enum mf_err e = MF_OK;
	if (!remote_can_write(s->remote)) { /* POP3 in the place of IMAP: all waits for that */
		pthread_mutex_lock(&a->lock);
		parts_done_locked(a, &a->settle_waiters, MF_OFFLINE);
		pthread_mutex_unlock(&a->lock);
		return MF_OK;
	}
	if (doubts == DOUBTS_OPEN)
		e = doubts_look(a);
	else if (doubts == DOUBTS_SEEN)
		e = doubts_settle(a);
	pthread_mutex_lock(&a->lock);
	bool ready = a->doubts == DOUBTS_NONE;
	if (!ready)
		replay_look_at_locked(a, clock_mono_ms());
	pthread_mutex_unlock(&a->lock);
	if (e != MF_OK || !ready)
		return e;
	e = journal_ready(a->cache, clock_wall_ns() / 1000000, hurry, AT_ONCE, &r.ops, &r.op_count);
	if (e == MF_OK)
		e = round_pick(&r);
	bool empty = r.op_count == 0;
	if (e == MF_OK && !empty)
		e = round_send(&r);
	if (e == MF_OK) {
		plan(a, &r);
		tell_settled(a, empty);
	}
	bodies_resolve_all(a);
	round_finish(&r);
	return e;
}

bool account_want_settled(struct account *a, want_done *done, void *context, enum mf_err *ret_result, struct want **ret)
{
	*ret = NULL;
	pthread_mutex_lock(&a->lock);
	bool keeping = keeping_is_due_locked(a);
	pthread_mutex_unlock(&a->lock);
	if (!journal_count(a->cache) && !keeping) {
		*ret_result = MF_OK;
		return true;
	}
	pthread_mutex_lock(&a->lock);
	*ret_result = a->stopping ? MF_CANCELLED : a->link.state == LINK_OFFLINE || a->link.state == LINK_WAITING ? MF_OFFLINE : MF_OK;
	bool answered = *ret_result != MF_OK;
	if (!answered) {
		*ret = want_create_locked(a, WANT_PARTS, done, context);
		part_add_locked(&a->settle_waiters, *ret);
		a->replay_hurry = true;
		replay_look_at_locked(a, clock_mono_ms());
	}
	pthread_mutex_unlock(&a->lock);
	return answered;
}

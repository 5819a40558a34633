/* Who puts copies of what is sent into Sent: found out with the first of them, and remembered for these servers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/round.h"

#define NOTE "sent-copies"      /* FOUND, or how many have been looked for in vain, and the servers that it is about */
#define FOUND (-1)
#define LOOKS 3

/* --- what is remembered ----------------------------------------------------------------------------------------------- */

/* Another server may do it otherwise. */
static char *servers_of(const struct account_config *c)
{
	return mf_format("%s %s:%u %s:%u", c->user ? c->user : "", c->imap.host ? c->imap.host : "", (unsigned)c->imap.port,
	                 c->smtp.host ? c->smtp.host : "", (unsigned)c->smtp.port);
}

static int recall(struct account *a)
{
	MF_CLEANUP(mf_free) char *note = NULL, *servers = servers_of(a->config);
	int looks = 0, at = 0;
	if (cache_get_note(a->cache, NOTE, &note) != MF_OK || sscanf(note, "%d %n", &looks, &at) != 1 || strcmp(note + at, servers) != 0)
		return 0;
	return looks;
}

static enum mf_err remember(struct account *a, int looks)
{
	MF_CLEANUP(mf_free) char *servers = servers_of(a->config), *note = mf_format("%d %s", looks, servers);
	return cache_set_note(a->cache, NOTE, note);
}

enum copies account_copies(struct account *a)
{
	int looks = recall(a);
	return looks == FOUND ? COPIES_BY_SERVER : looks >= LOOKS ? COPIES_BY_US : COPIES_UNKNOWN;
}

/* --- looking ------------------------------------------------------------------------------------------------------------ */

enum reading { READ_SINCE, READ_NEXT, READ_NEVER };

/* Whether the mailbox has been read since then, which is asked for, or cannot be */
static enum reading is_read_since(struct account *a, uint64_t mailbox, int64_t since_ms)
{
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = work_get_locked(a, mailbox);
	enum reading reading = w->unread ? READ_NEVER : w->read_ms && w->read_ms >= since_ms ? READ_SINCE : READ_NEXT;
	if (reading == READ_NEXT && !w->running)
		work_want_locked(a, w, PRIORITY_PERSON, CHANGES_AUTO);
	pthread_mutex_unlock(&a->lock);
	return reading;
}

static enum mf_err settle(struct account *a, const struct op *op, bool *ret_found)
{
	struct txn *t;
	enum mf_err e = cache_begin(a->cache, &t);
	if (e != MF_OK)
		return e;
	e = txn_op_filed(t, op->id);
	*ret_found = e == MF_OK;
	if (e != MF_NOT_FOUND)
		return round_commit(t, e);
	txn_rollback(t);
	return MF_OK;
}

static enum mf_err learn(struct account *a, bool found)
{
	int looks = recall(a);
	if (looks == FOUND || (!found && looks >= LOOKS))
		return MF_OK;
	if (found)
		log_info("%s: the server puts what is sent into Sent by itself: mailfs makes no copies from now on", a->config->name);
	return remember(a, found ? FOUND : looks + 1);
}

void account_copies_found(struct account *a)
{
	enum mf_err e = learn(a, true);
	if (e != MF_OK)
		log_error("%s: %s", a->config->name, mf_err_words(e));
}

static bool may_be_filed(struct account *a, const struct op *op)
{
	return op->kind == OP_APPEND && op->parent && op->parent == op->mailbox && a->config->save_sent == SAVE_SENT_AUTO &&
	       account_copies(a) != COPIES_BY_US;
}

enum mf_err copies_look(struct round *r, const struct op *op, bool *ret_send)
{
	struct account *a = r->account;
	bool found = false;
	*ret_send = !may_be_filed(a, op);
	if (*ret_send)
		return MF_OK;
	int64_t age_ms = clock_wall_ns() / 1000000 - op->due_ms;
	/* whoever is in a hurry: the server is given its time */
	enum reading reading = age_ms < 0 ? READ_NEXT : is_read_since(a, op->mailbox, clock_mono_ms() - age_ms);
	*ret_send = reading == READ_NEVER;
	r->waits |= reading == READ_NEXT;
	if (reading != READ_SINCE)
		return MF_OK;
	enum mf_err e = settle(a, op, &found);
	*ret_send = !found;
	r->waits |= found; /* what comes after it can be sent */
	/* of what was sent before, and not answered, it may be ours */
	return e == MF_OK && !op->tries ? learn(a, found) : e;
}

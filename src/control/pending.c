#include "control/pending.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/json.h"

#define TEXT_MAX 8192

/* --- saying ------------------------------------------------------------------------------------------------------------ */

/* A mailbox as the tree shows it, or by the name it was left under */
static void put_mailbox(struct buf *b, struct account *a, uint64_t mailbox, const char *otherwise)
{
	char shown[2048];
	MF_CLEANUP(mf_free) char *path = cache_mailbox_path(account_cache(a), mailbox);
	const char *text = path ? path : otherwise ? otherwise : "a mailbox that is gone";
	(void)buf_adds(b, mf_printable(shown, sizeof shown, text, strlen(text)));
}

static void put_name(struct buf *b, struct account *a, const struct op *op)
{
	char shown[1024];
	MF_CLEANUP(message_finish) struct message m = { 0 };
	bool known = cache_message(account_cache(a), op->message, &m) == MF_OK;
	const char *name = known ? m.name : op->name && !strchr(op->name, '/') ? op->name : "an earlier version";
	(void)buf_adds(b, mf_printable(shown, sizeof shown, name, strlen(name)));
}

static void put_flags(struct buf *b, const struct op *op)
{
	static const struct { unsigned flag; const char *name; } names[] = {
		{ FLAG_SEEN, "\\Seen" }, { FLAG_ANSWERED, "\\Answered" }, { FLAG_FLAGGED, "\\Flagged" }, { FLAG_DELETED, "\\Deleted" }, { FLAG_DRAFT, "\\Draft" },
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (op->flags & names[i].flag)
			(void)buf_addf(b, " +%s", names[i].name);
		if (op->flags_remove & names[i].flag)
			(void)buf_addf(b, " -%s", names[i].name);
	}
	const char *const sets[] = { op->keywords, op->keywords_remove };
	for (size_t i = 0; i < 2; i++) {
		char shown[1024];
		if (sets[i] && *sets[i])
			(void)buf_addf(b, " %c%s", "+-"[i], mf_printable(shown, sizeof shown, sets[i], strlen(sets[i])));
	}
}

static void put_file(struct buf *b, struct account *a, const struct op *op, const char *verb)
{
	(void)buf_addf(b, "%s ", verb);
	put_mailbox(b, a, op->mailbox, op->raw);
	(void)buf_adds(b, "/");
	put_name(b, a, op);
	if (op->dest) {
		(void)buf_adds(b, " to ");
		put_mailbox(b, a, op->dest, NULL);
	}
}

static void put_box(struct buf *b, struct account *a, const struct op *op, const char *verb)
{
	(void)buf_addf(b, "%s ", verb);
	put_mailbox(b, a, op->mailbox, op->name);
}

/* From the name that it had here, which is the server's, to the one it has now */
static void put_rename(struct buf *b, struct account *a, const struct op *op)
{
	char shown[1024];
	(void)buf_adds(b, "rename the mailbox ");
	if (op->parent) {
		put_mailbox(b, a, op->parent, NULL);
		(void)buf_adds(b, "/");
	}
	if (op->name)
		(void)buf_adds(b, mf_printable(shown, sizeof shown, op->name, strlen(op->name)));
	(void)buf_adds(b, " to ");
	put_mailbox(b, a, op->mailbox, NULL);
}

char *pending_sentence(struct account *a, const struct op *op)
{
	struct buf b;
	buf_init(&b, TEXT_MAX);
	switch (op->kind) {
	case OP_FLAGS:
		put_file(&b, a, op, "change flags of");
		put_flags(&b, op);
		break;
	case OP_APPEND:
		put_file(&b, a, op, "store");
		break;
	case OP_COPY:
		(void)buf_adds(&b, "copy ");
		put_name(&b, a, op);
		(void)buf_adds(&b, " from ");
		put_mailbox(&b, a, op->mailbox, op->raw);
		(void)buf_adds(&b, " to ");
		put_mailbox(&b, a, op->dest, NULL);
		break;
	case OP_MOVE:
		put_file(&b, a, op, "move");
		break;
	case OP_EXPUNGE:
		put_file(&b, a, op, "delete for good");
		break;
	case OP_KEEP:
		put_file(&b, a, op, "delete at the server, and keep here,");
		break;
	case OP_CREATE:
		put_box(&b, a, op, "make the mailbox");
		break;
	case OP_DELETE:
		put_box(&b, a, op, "delete the mailbox");
		break;
	case OP_RENAME:
		put_rename(&b, a, op);
		break;
	case OP_SUBSCRIBE:
		put_box(&b, a, op, "subscribe to");
		break;
	case OP_UNSUBSCRIBE:
		put_box(&b, a, op, "unsubscribe from");
		break;
	}
	return buf_detach(&b);
}

static void put_time(struct buf *b, const char *label, int64_t ms)
{
	char text[64];
	time_t seconds = (time_t)(ms / 1000);
	struct tm parts;
	if (gmtime_r(&seconds, &parts) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts))
		(void)buf_addf(b, "%s%s\n", label, text);
}

char *pending_text(struct account *a, const struct op *op)
{
	char shown[1024];
	struct buf b;
	buf_init(&b, TEXT_MAX);
	MF_CLEANUP(mf_free) char *what = pending_sentence(a, op);
	(void)buf_addf(&b, "operation: %" PRIu64 "\nwhat: %s\nstate: %s\n", op->id, what, op_state_word(op->state));
	if (op->error)
		(void)buf_addf(&b, "reason: %s\n", mf_printable(shown, sizeof shown, op->error, strlen(op->error)));
	put_time(&b, "since: ", op->since_ms);
	if (op->state == OP_QUEUED && op->due_ms > clock_wall_ns() / 1000000)
		put_time(&b, "not before: ", op->due_ms);
	if (op->state != OP_SENT)
		(void)buf_addf(&b, "\nmailfs cancel %" PRIu64 " (or removing this file) takes it back", op->id);
	if (op->state == OP_PARKED || op->state == OP_UNCONFIRMED)
		(void)buf_addf(&b, "; mailfs retry %" PRIu64 " tries again", op->id);
	if (op->state != OP_SENT)
		(void)buf_adds(&b, ".\n");
	return buf_detach(&b);
}

struct json_object *pending_object(struct account *a, const struct op *op)
{
	struct json_object *o = json_object_new_object();
	MF_CLEANUP(mf_free) char *what = pending_sentence(a, op);
	json_put_number(o, "id", op->id);
	json_put_string(o, "kind", op_kind_word(op->kind));
	json_put_string(o, "state", op_state_word(op->state));
	json_put_string(o, "what", what);
	json_put_time(o, "since", op->since_ms / 1000);
	json_put_time(o, "due", op->due_ms / 1000);
	json_put_number(o, "tries", op->tries);
	json_put_string(o, "error", op->error);
	return o;
}

/* --- doing ----------------------------------------------------------------------------------------------------------------- */

static enum mf_err cancel_one(struct account *a, uint64_t id)
{
	struct txn *t;
	enum mf_err e = cache_begin(account_cache(a), &t);
	if (e)
		return e;
	e = txn_cancel(t, id);
	if (e) {
		txn_rollback(t);
		return e;
	}
	return txn_commit(t);
}

enum mf_err pending_cancel(struct account *a, uint64_t id, struct mf_reason *why)
{
	enum mf_err e = cancel_one(a, id);
	account_refresh(a);
	if (e == MF_NOT_FOUND)
		return mf_fail(why, e, "%s: no operation %" PRIu64 " waits", account_config(a)->name, id);
	if (e == MF_BUSY)
		return mf_fail(why, e, "operation %" PRIu64 " is being carried out", id);
	if (e == MF_EXISTS)
		return mf_fail(why, e, "operation %" PRIu64 " is about a mailbox that is in use: cancel what goes into it first", id);
	return e ? mf_fail(why, e, "operation %" PRIu64 ": %s", id, mf_err_words(e)) : MF_OK;
}

struct ids { uint64_t *items; size_t count, room; bool held_only; };

static bool collect(void *context, const struct op *op)
{
	struct ids *ids = context;
	if (ids->held_only && op->state != OP_PARKED && op->state != OP_UNCONFIRMED)
		return true;
	if (ids->count == ids->room) {
		ids->room = ids->room ? ids->room * 2 : 64;
		ids->items = mf_realloc_array(ids->items, ids->room, sizeof *ids->items);
	}
	ids->items[ids->count++] = op->id;
	return true;
}

enum mf_err pending_cancel_all(struct account *a, pending_step *step, void *context, uint64_t *ret_done, uint64_t *ret_left)
{
	struct ids ids = { 0 };
	*ret_done = *ret_left = 0;
	enum mf_err e = journal_list(account_cache(a), 0, collect, &ids);
	for (size_t i = ids.count; i-- > 0 && !e;) {
		enum mf_err one = step(context, ids.count - 1 - i, ids.count) ? cancel_one(a, ids.items[i]) : MF_CANCELLED;
		*ret_done += one == MF_OK;
		*ret_left += one == MF_BUSY || one == MF_EXISTS || one == MF_STALE;
		if (one && one != MF_BUSY && one != MF_EXISTS && one != MF_STALE && one != MF_NOT_FOUND)
			e = one;
	}
	free(ids.items);
	account_refresh(a);
	return e;
}

static enum mf_err retry_one(struct account *a, uint64_t id)
{
	struct txn *t;
	enum mf_err e = cache_begin(account_cache(a), &t);
	if (e)
		return e;
	e = txn_retry(t, id);
	if (e) {
		txn_rollback(t);
		return e;
	}
	return txn_commit(t);
}

enum mf_err pending_retry(struct account *a, uint64_t id, struct mf_reason *why)
{
	enum mf_err e = retry_one(a, id);
	account_journal_changed(a);
	if (e == MF_NOT_FOUND)
		return mf_fail(why, e, "%s: no operation %" PRIu64 " waits", account_config(a)->name, id);
	return e ? mf_fail(why, e, "operation %" PRIu64 ": %s", id, e == MF_BUSY ? "it is being carried out" : mf_err_words(e)) : MF_OK;
}

enum mf_err pending_retry_all(struct account *a, pending_step *step, void *context, uint64_t *ret_done)
{
	struct ids ids = { .held_only = true };
	*ret_done = 0;
	enum mf_err e = journal_list(account_cache(a), 0, collect, &ids);
	for (size_t i = 0; i < ids.count && !e; i++) {
		e = step(context, i, ids.count) ? retry_one(a, ids.items[i]) : MF_CANCELLED;
		*ret_done += e == MF_OK;
		e = e == MF_NOT_FOUND || e == MF_BUSY ? MF_OK : e;
	}
	free(ids.items);
	account_journal_changed(a);
	return e;
}

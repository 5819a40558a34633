/* The verbs about changes that wait: pending, cancel, retry; and subscribe, unsubscribe, which make such a change. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/pending.h"
#include "control/status.h"
#include "control/verb.h"

struct telling { struct verb_call *call; struct account *account; };

static bool tell(void *context, const struct op *op)
{
	struct telling *t = context;
	struct json_object *o = pending_object(t->account, op);
	json_put_string(o, "account", account_config(t->account)->name);
	return verb_say_member(t->call, "pending", o) && !cancel_is_raised(t->call->stop);
}

enum exit_code verb_pending(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < call->count && !e; i++)
		e = journal_list(account_cache(call->accounts[i]), 0, tell, &(struct telling){ call, call->accounts[i] });
	if (e)
		mf_fail(&call->why, e, "the journal cannot be read: %s", mf_err_words(e));
	return exit_code_of(e);
}

static bool parse_id(const char *text, uint64_t *ret)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	*ret = value;
	return !errno && end != text && !*end && value && *text != '-';
}

typedef enum mf_err settle_one(struct account *a, uint64_t id, struct mf_reason *why);

/* Numbers, all of one account; or "all" */
static enum exit_code settle(struct verb_call *call, settle_one *one)
{
	(void)verb_take_option(call, "--");
	if (!call->arguments[0]) {
		mf_fail(&call->why, MF_INVALID, "which operation? Say its number (\"mailfs pending\" lists them), or all");
		return EXIT_USAGE;
	}
	if (call->count != 1) {
		mf_fail(&call->why, MF_INVALID, "which account? Say --account NAME");
		return EXIT_USAGE;
	}
	enum mf_err e = MF_OK;
	for (size_t i = 0; call->arguments[i] && !e; i++) {
		uint64_t id;
		if (!parse_id(call->arguments[i], &id)) {
			mf_fail(&call->why, MF_INVALID, "not the number of an operation: %s", call->arguments[i]);
			return EXIT_USAGE;
		}
		e = one(call->accounts[0], id, &call->why);
	}
	return exit_code_of(e);
}

static bool is_all(struct verb_call *call)
{
	return call->arguments[0] && !strcmp(call->arguments[0], "all") && !call->arguments[1];
}

/* --- all of them ----------------------------------------------------------------------------------------------------- */

struct going { struct verb_call *call; struct account *account; const char *doing; int64_t next_ms; };

/* Progress now and then, which also tells whoever asked that it goes on */
static bool go_on(void *context, uint64_t done, uint64_t total)
{
	struct going *g = context;
	if (cancel_is_raised(g->call->stop))
		return false;
	if (clock_mono_ms() < g->next_ms)
		return true;
	g->next_ms = clock_mono_ms() + VERB_PROGRESS_MS;
	struct account_progress progress = { .done = done, .total = total };
	snprintf(progress.doing, sizeof progress.doing, "%s", g->doing);
	struct json_object *o = status_progress_object(&progress);
	json_put_string(o, "unit", "changes");
	if (g->call->count > 1)
		json_put_string(o, "account", account_config(g->account)->name);
	return verb_say_member(g->call, "progress", o);
}

/* of all accounts that the call is about; the command asks each for itself */
static struct json_object *sum_object(const struct verb_call *call, uint64_t done)
{
	struct json_object *o = json_object_new_object();
	json_put_number(o, "done", done);
	if (call->count == 1)
		json_put_string(o, "account", account_config(call->accounts[0])->name);
	return o;
}

static void settle_tree(struct verb_call *call)
{
	if (call->control->settle)
		call->control->settle(call->control->settle_context);
}

enum exit_code verb_cancel(struct verb_call *call)
{
	if (!is_all(call)) {
		enum exit_code code = settle(call, pending_cancel);
		settle_tree(call);
		return code;
	}
	enum mf_err e = MF_OK;
	uint64_t done = 0, left = 0;
	for (size_t i = 0; i < call->count && !e; i++) {
		uint64_t one_done, one_left;
		struct going g = { call, call->accounts[i], "taking changes back", 0 };
		e = pending_cancel_all(call->accounts[i], go_on, &g, &one_done, &one_left);
		done += one_done;
		left += one_left;
	}
	struct json_object *o = sum_object(call, done);
	json_put_number(o, "left", left);
	verb_say_member(call, "cancelled", o);
	settle_tree(call);
	if (!e && left)
		e = mf_fail(&call->why, MF_BUSY, "%" PRIu64 " operations are under way, or in use, and were left", left);
	return exit_code_of(e);
}

enum exit_code verb_retry(struct verb_call *call)
{
	if (!is_all(call))
		return settle(call, pending_retry);
	enum mf_err e = MF_OK;
	uint64_t done = 0;
	for (size_t i = 0; i < call->count && !e; i++) {
		uint64_t one = 0;
		struct going g = { call, call->accounts[i], "trying changes again", 0 };
		e = pending_retry_all(call->accounts[i], go_on, &g, &one);
		done += one;
	}
	verb_say_member(call, "retried", sum_object(call, done));
	return exit_code_of(e);
}

static enum mf_err subscribe_one(struct account *a, const char *path, bool subscribed, struct mf_reason *why)
{
	uint64_t id = 0;
	enum mf_err e = verb_find_mailbox(a, path, &id);
	if (e)
		return mf_fail(why, e, "%s: there is no mailbox %s", account_config(a)->name, path);
	struct txn *t = NULL;
	e = cache_begin(account_cache(a), &t);
	if (!e && (e = txn_mailbox_subscribe(t, id, subscribed)) == MF_OK) {
		e = txn_commit(t);
		account_journal_changed(a);
		return e;
	}
	if (t)
		txn_rollback(t);
	return e;
}

static enum exit_code subscribe(struct verb_call *call, bool subscribed)
{
	(void)verb_take_option(call, "--");
	if (!call->arguments[0] || call->count != 1) {
		mf_fail(&call->why, MF_INVALID, call->count != 1 ? "which account? Say --account NAME" : "which mailbox?");
		return EXIT_USAGE;
	}
	enum mf_err e = MF_OK;
	for (size_t i = 0; call->arguments[i] && !e; i++)
		e = subscribe_one(call->accounts[0], call->arguments[i], subscribed, &call->why);
	return exit_code_of(e);
}

enum exit_code verb_subscribe(struct verb_call *call)
{
	return subscribe(call, true);
}

enum exit_code verb_unsubscribe(struct verb_call *call)
{
	return subscribe(call, false);
}

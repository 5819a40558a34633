/* The verbs of the outbox: send, outbox. */
#include "control/verb.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/filing.h"
#include "control/json.h"
#include "control/outboxes.h"
#include "control/paths.h"
#include "control/status.h"
#include "mail/text.h"
#include "smtp/handover.h"

#define STEP_MS 50             /* how often a message is looked at that is being sent */
#define HELD_MS 10000          /* how long one is waited for that somebody writes: who has just closed lets go at once */
#define COPY_MS 10000          /* how long copies in Sent are waited for where there is no mount */
#define PROGRESS_STEPS 20      /* of those, between two lines that say that it goes on */

/* How much of text is said, as the precision of a %.*s: no half characters */
static int at_most(const char *text, size_t max)
{
	return (int)text_cut(text, strlen(text), max);
}

static void say_item(struct verb_call *call, const struct account *a, const struct outbox_item *item)
{
	struct json_object *o = json_object_new_object();
	char id[24];
	snprintf(id, sizeof id, "%llx", (unsigned long long)item->id);
	json_put_string(o, "account", account_config(a)->name);
	json_put_string(o, "id", id);
	json_put_string(o, "name", item->name);
	json_put_string(o, "state", outbox_state_word(item->state));
	json_put_time(o, "at", item->at_s);
	json_put_time(o, "put", item->put_s);
	json_put_string(o, "reason", item->reason);
	json_put_string(o, "subject", item->subject);
	json_put_string(o, "message_id", item->message_id);
	json_put_number(o, "size", item->size);
	json_put_number(o, "recipients", item->recipients);
	json_put_number(o, "sent", item->sent);
	json_put_number(o, "refused", item->refused);
	json_put_number(o, "attempts", item->attempts);
	(void)verb_say_member(call, "message", o);
}

static enum exit_code fail_removed(struct verb_call *call, const char *name)
{
	mf_fail(&call->why, MF_NOT_FOUND, "%.*s was taken out of the outbox, and is not sent", at_most(name, 80), name);
	return EXIT_PARTIAL;
}

/* What has left the outbox was sent, or taken out of it. */
static enum exit_code say_gone(struct verb_call *call, const struct account *a, struct outbox *outbox, struct outbox_item *item)
{
	if (outbox_was_removed(outbox, item->id))
		return fail_removed(call, item->name);
	item->state = OUTBOX_UNFILED;
	item->sent = item->recipients;
	item->refused = 0;
	free(item->reason);
	item->reason = mf_strdup("");
	say_item(call, a, item);
	return EXIT_OK;
}

static bool is_settled(const struct outbox_item *item)
{
	switch (item->state) {
	case OUTBOX_WAITING:
	case OUTBOX_QUEUED:
	case OUTBOX_SENDING:
		return false;
	case OUTBOX_RETRYING:
	case OUTBOX_MAYBE:
	case OUTBOX_UNFILED:
	case OUTBOX_FAILED:
		return true;
	}
	return true;
}

static enum exit_code code_of_item(struct verb_call *call, const struct outbox_item *item)
{
	if (item->state == OUTBOX_FAILED || item->state == OUTBOX_MAYBE || item->state == OUTBOX_RETRYING) {
		mf_fail(&call->why, MF_DENIED, "%.*s is %s: %s", at_most(item->name, 80), item->name, outbox_state_word(item->state), item->reason);
		return item->state == OUTBOX_RETRYING || item->sent ? EXIT_PARTIAL : EXIT_PROTOCOL;
	}
	return EXIT_OK;
}

/* While the link is down a message does not move. */
static enum exit_code link_failure(struct verb_call *call, struct outbox *outbox, const struct outbox_item *item)
{
	struct outbox_link link;
	outbox_link(outbox, &link);
	if (!link.error && !link.offline)
		return EXIT_OK;
	const char *reason = link.offline ? "the account is disconnected" : link.reason.text[0] ? link.reason.text : mf_err_words(link.error);
	mf_fail(&call->why, link.error, "%.*s stays in the outbox: %s", at_most(item->name, 80), item->name, reason);
	return link.offline ? EXIT_OFFLINE : exit_code_of(link.error);
}

/* false: nobody listens */
static bool say_progress(struct verb_call *call, const struct outbox_item *item)
{
	struct account_progress progress = { .total = 1 };
	snprintf(progress.doing, sizeof progress.doing, "%s %.*s", outbox_state_word(item->state), at_most(item->name, 60), item->name);
	return verb_say_member(call, "progress", status_progress_object(&progress));
}

/* since_ms: 0 at first */
static bool is_held_long(const struct outbox_item *item, int64_t *since_ms)
{
	int64_t now_ms = clock_mono_ms();
	*since_ms = !item->held || item->state == OUTBOX_SENDING ? 0 : *since_ms ? *since_ms : now_ms;
	return *since_ms && now_ms - *since_ms > HELD_MS;
}

static enum exit_code fail_held(struct verb_call *call, const struct outbox_item *item)
{
	mf_fail(&call->why, MF_BUSY, "%.*s stays in the outbox: it is open for writing, or an editor's lock for it is there", at_most(item->name, 80), item->name);
	return EXIT_BUSY;
}

static enum exit_code fail_unreleased(struct verb_call *call, const struct account *a, const struct outbox_item *item)
{
	bool manual = account_config(a)->send == SEND_MANUAL;
	mf_fail(&call->why, MF_DENIED, "%.*s stays in the outbox until \"mailfs send\"%s", at_most(item->name, 80), item->name, manual ? " (send = manual)" : ", or the next connection (send = connect)");
	return EXIT_PROTOCOL;
}

/* Until it is sent, or will not be now. */
static enum exit_code await_item(struct verb_call *call, const struct account *a, struct outbox *outbox, struct outbox_item *item)
{
	int64_t held_since_ms = 0;
	for (unsigned steps = 1;; steps++) {
		struct outbox_item now;
		if (outbox_item(outbox, item->id, &now))
			return say_gone(call, a, outbox, item);
		outbox_item_finish(item);
		*item = now;
		enum exit_code failure = item->state == OUTBOX_SENDING ? EXIT_OK : link_failure(call, outbox, item);
		if (!failure && !is_settled(item) && is_held_long(item, &held_since_ms))
			failure = fail_held(call, item);
		if (!failure && item->state == OUTBOX_QUEUED && item->unreleased)
			failure = fail_unreleased(call, a, item);
		if (is_settled(item) || failure) {
			say_item(call, a, item);
			return failure ? failure : code_of_item(call, item);
		}
		if (cancel_is_raised(call->stop) || (steps % PROGRESS_STEPS == 0 && !say_progress(call, item))) {
			mf_fail(&call->why, MF_CANCELLED, "%.*s stays in the outbox", at_most(item->name, 80), item->name);
			return EXIT_CANCELLED;
		}
		nanosleep(&(struct timespec){ .tv_nsec = STEP_MS * 1000000L }, NULL);
	}
}

/* Without a mount: the copies of what was sent go into Sent now, if the server is there; else with the next connection. */
static void file_copies(struct verb_call *call, struct account *a, struct outbox *outbox)
{
	struct mf_reason why = call->why;
	struct outbox_counts counts;
	int64_t deadline = clock_mono_ms() + COPY_MS;
	if (call->control->mountpoint || !filing_wanted(a) || account_wait_listed(a, COPY_MS, NULL) != MF_OK)
		return;
	outbox_connected(outbox);
	for (outbox_counts(outbox, &counts); counts.unfiled && clock_mono_ms() < deadline && !cancel_is_raised(call->stop); outbox_counts(outbox, &counts))
		nanosleep(&(struct timespec){ .tv_nsec = STEP_MS * 1000000L }, NULL);
	(void)verb_settle_account(call, a); /* what is in the journal is not lost */
	call->why = why;
}

static struct outbox *need_outbox(struct verb_call *call, const struct account *a)
{
	struct outbox *outbox = outboxes_find(a);
	if (!outbox)
		mf_fail(&call->why, MF_UNSUPPORTED, "%s cannot send: it has no smtp server (smtp = smtps://HOST)", account_config(a)->name);
	return outbox;
}

/* A message that a command has left beside the outbox. Without a mount it goes out now, and is waited for: nobody would
 * send it later. */
static enum exit_code put_spooled(struct verb_call *call, struct account *a, const char *name)
{
	struct outbox *outbox = need_outbox(call, a);
	struct outbox_item item;
	uint64_t id = 0;
	if (!outbox)
		return EXIT_CONFIG;
	MF_CLEANUP(mf_free) char *state = path_state(account_config(a)->name);
	bool here = !call->control->mountpoint;
	enum mf_err e = handover_put(state, name, here, outbox, &id, &call->why);
	if (e)
		return e == MF_TOO_BIG ? EXIT_USAGE : exit_code_of(e);
	if (outbox_item(outbox, id, &item)) { /* it is over already */
		if (here)
			file_copies(call, a, outbox);
		return outbox_was_removed(outbox, id) ? fail_removed(call, "the message") : EXIT_OK;
	}
	enum exit_code code = EXIT_OK;
	if (here)
		code = await_item(call, a, outbox, &item);
	else
		say_item(call, a, &item);
	if (here && item.sent)
		file_copies(call, a, outbox);
	outbox_item_finish(&item);
	return code;
}

/* Without a mount the server gets it now, if it is there; else with the next connection. */
static void settle_draft(struct verb_call *call, struct account *a, int64_t listing_ms)
{
	struct mf_reason why = call->why;
	if (account_wait_listed(a, listing_ms, NULL) == MF_OK)
		(void)verb_settle_account(call, a); /* what is in the journal is not lost */
	call->why = why;
}

static enum exit_code put_draft(struct verb_call *call, struct account *a, const char *name)
{
	const struct account_config *config = account_config(a);
	int64_t listing_ms = config->connect_timeout_ms + 2 * config->io_timeout_ms;
	bool here = !call->control->mountpoint;
	MF_CLEANUP(mf_free) char *state = path_state(config->name);
	MF_CLEANUP(mf_free) char *path = NULL;
	MF_CLEANUP(mf_close) int fd = -1;
	enum mf_err e = handover_open(state, name, &fd, &call->why);
	if (!e)
		e = filing_draft(a, fd, &path, &call->why);
	if (e == MF_OFFLINE && here && account_wait_listed(a, listing_ms, NULL) == MF_OK)
		e = filing_draft(a, fd, &path, &call->why);
	if (e)
		return exit_code_of(e);
	(void)handover_remove(state, name);
	struct json_object *o = json_object_new_object();
	json_put_string(o, "account", config->name);
	json_put_string(o, "path", path);
	(void)verb_say_member(call, "draft", o);
	if (call->control->settle) /* who runs ls next sees it */
		call->control->settle(call->control->settle_context);
	if (here)
		settle_draft(call, a, listing_ms);
	return EXIT_OK;
}

static enum exit_code send_all(struct verb_call *call, struct account *a)
{
	struct outbox *outbox = outboxes_find(a);
	struct outbox_item *items;
	size_t count;
	enum exit_code result = EXIT_OK;
	if (!outbox)
		return EXIT_OK;
	outbox_items(outbox, &items, &count); /* before: what comes behind the release rests, and is not waited for */
	outbox_release(outbox);
	for (size_t i = 0; i < count && result != EXIT_CANCELLED; i++) {
		if (items[i].state == OUTBOX_FAILED || items[i].state == OUTBOX_MAYBE || items[i].state == OUTBOX_UNFILED)
			continue;
		enum exit_code code = await_item(call, a, outbox, &items[i]);
		result = code && !result ? code : result;
	}
	outbox_items_free(items, count);
	if (count)
		file_copies(call, a, outbox);
	return result;
}

enum exit_code verb_send_waiting(struct verb_call *call)
{
	enum exit_code result = EXIT_OK;
	for (size_t i = 0; i < call->count && result != EXIT_CANCELLED; i++)
		if (account_config(call->accounts[i])->send != SEND_MANUAL) {
			enum exit_code code = send_all(call, call->accounts[i]);
			result = result ? result : code;
		}
	return result;
}

/* The word behind an option, taken off; NULL: the option is not there, or nothing is behind it. */
static char *take_value(struct verb_call *call, const char *option)
{
	char **p = call->arguments;
	while (*p && strcmp(*p, option))
		p++;
	if (!*p || !p[1])
		return NULL;
	char *value = p[1];
	free(*p);
	for (; (*p = p[2]); p++)
		;
	return value;
}

enum exit_code verb_send(struct verb_call *call)
{
	MF_CLEANUP(mf_free) char *spool = take_value(call, "--spool");
	bool draft = verb_take_option(call, "--draft");
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	if ((spool && call->count != 1) || (draft && !spool)) {
		mf_fail(&call->why, MF_INVALID, draft && !spool ? "which message is to be a draft?" : "a message is sent by one account");
		return EXIT_USAGE;
	}
	if (spool)
		return (draft ? put_draft : put_spooled)(call, call->accounts[0], spool);
	enum exit_code result = EXIT_OK;
	size_t able = 0;
	for (size_t i = 0; i < call->count; i++) {
		able += outboxes_find(call->accounts[i]) != NULL;
		enum exit_code code = send_all(call, call->accounts[i]);
		result = result ? result : code;
	}
	return able ? result : need_outbox(call, call->accounts[0]) ? EXIT_OK : EXIT_CONFIG;
}

/* --- outbox -------------------------------------------------------------------------------------------------------- */

static void list_all(struct verb_call *call, const struct account *a)
{
	struct outbox *outbox = outboxes_find(a);
	struct outbox_item *items;
	size_t count;
	if (!outbox)
		return;
	outbox_items(outbox, &items, &count);
	for (size_t i = 0; i < count; i++)
		say_item(call, a, &items[i]);
	outbox_items_free(items, count);
}

/* "x.eml", "failed/x.eml" */
static bool look_for(const struct verb_call *call, const char *name, struct account **ret_account, struct outbox_item *ret)
{
	bool failed = !strncmp(name, "failed/", 7);
	for (size_t i = 0; i < call->count; i++) {
		struct outbox *outbox = outboxes_find(call->accounts[i]);
		if (outbox && !outbox_item_by_name(outbox, failed ? name + 7 : name, failed, ret)) {
			*ret_account = call->accounts[i];
			return true;
		}
	}
	return false;
}

static bool find_named(struct verb_call *call, const char *name, struct account **ret_account, struct outbox_item *ret)
{
	if (look_for(call, name, ret_account, ret))
		return true;
	char shown[100];
	mf_fail(&call->why, MF_NOT_FOUND, "the outbox has no message %s; \"mailfs send --list\" shows what it has",
	        mf_printable(shown, sizeof shown, name, strlen(name)));
	return false;
}

static bool was_sent(const struct verb_call *call, const char *name)
{
	for (size_t i = 0; i < call->count; i++) {
		struct outbox *outbox = outboxes_find(call->accounts[i]);
		if (outbox && outbox_was_sent(outbox, name))
			return true;
	}
	return false;
}

/* It may have left the outbox before it could be asked for: sent, or as failed. */
static enum exit_code await_one(struct verb_call *call, const char *name)
{
	struct account *a = NULL;
	struct outbox_item item;
	MF_CLEANUP(mf_free) char *failed = mf_format("failed/%s", name);
	if (!look_for(call, name, &a, &item) && was_sent(call, name))
		return EXIT_OK;
	if (!a && !look_for(call, failed, &a, &item) && !find_named(call, name, &a, &item))
		return EXIT_NOT_FOUND;
	enum exit_code code = await_item(call, a, outboxes_find(a), &item);
	outbox_item_finish(&item);
	return code;
}

enum settling { TO_RETRY, TO_REMOVE, TO_SENT };

static enum exit_code change_one(struct verb_call *call, enum settling change, const char *name)
{
	struct account *a = NULL;
	struct outbox_item item;
	if (!find_named(call, name, &a, &item))
		return EXIT_NOT_FOUND;
	struct outbox *outbox = outboxes_find(a);
	enum mf_err e = change == TO_RETRY ? outbox_retry(outbox, item.id, NULL)
	              : change == TO_REMOVE ? outbox_remove(outbox, item.id)
	                                    : outbox_settle_sent(outbox, item.id, false);
	if (e) {
		const char *why = e == MF_BUSY ? "it is being sent now" : change == TO_RETRY ? "it was never fit to be sent" : "nobody doubts its state";
		mf_fail(&call->why, e, "%.*s: %s", at_most(item.name, 80), item.name, why);
	} else {
		say_item(call, a, &item);
	}
	outbox_item_finish(&item);
	return exit_code_of(e);
}

enum exit_code verb_outbox(struct verb_call *call)
{
	static const char *const options[] = { "--retry", "--remove", "--sent" };
	(void)verb_take_option(call, "--");
	MF_CLEANUP(mf_free) char *awaited = take_value(call, "--wait");
	if (awaited)
		return verb_no_more_arguments(call) ? EXIT_USAGE : await_one(call, awaited);
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		MF_CLEANUP(mf_free) char *name = take_value(call, options[i]);
		if (name)
			return verb_no_more_arguments(call) ? EXIT_USAGE : change_one(call, (enum settling)i, name);
	}
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	for (size_t i = 0; i < call->count; i++)
		list_all(call, call->accounts[i]);
	return EXIT_OK;
}

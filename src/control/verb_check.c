/* check: what is on the local disk against the index, the config file's mailboxes too; then the index against the server. */
#include "control/verb.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "control/json.h"
#include "control/mailboxes.h"
#include "control/status.h"

#define STEP 1024          /* messages taken from the index at a time */

struct batch {
	struct entry entries[STEP];
	char *names[STEP];
	size_t count;
};

struct checking {
	struct verb_call *call;
	struct account *account;
	uint64_t messages, bodies, problems;
	int64_t next_ms;       /* of a line of progress */
};

/* under the cache's lock: copies only */
static bool collect(void *context, const struct entry *entry, const char *name)
{
	struct batch *batch = context;
	batch->entries[batch->count] = *entry;
	batch->names[batch->count++] = mf_strdup(name);
	return batch->count < STEP;
}

static void say_problem(struct checking *c, const char *mailbox, const char *name, const char *what)
{
	struct json_object *o = json_object_new_object();
	json_put_string(o, "account", account_config(c->account)->name);
	json_put_string(o, "mailbox", mailbox);
	json_put_string(o, "name", name);
	json_put_string(o, "what", what);
	verb_say_member(c->call, "problem", o);
	c->problems++;
}

/* Bytes that no server has: MF_NOT_FOUND where there are none to be looked at, MF_CORRUPT where there should be */
static enum mf_err check_spooled(struct checking *c, const struct entry *entry, uint64_t *ret_size)
{
	int fd = -1;
	if (!entry->size)
		return MF_NOT_FOUND;
	enum mf_err e = spool_open(account_cache(c->account), entry->id, &fd, ret_size);
	mf_close(&fd);
	if (e == MF_NOT_FOUND) /* else it is to be copied at the server, or moved there */
		return cache_only_deletes(account_cache(c->account)) ? MF_CORRUPT : MF_NOT_FOUND;
	return e == MF_OK && *ret_size != entry->size ? MF_CORRUPT : e;
}

/* A body that is not what it says of itself has been dropped: the server has it, and it is fetched again when it is read. */
static void check_body(struct checking *c, const char *mailbox, const struct entry *entry, const char *name)
{
	uint64_t size = 0;
	enum mf_err e = cache_body_verify(account_cache(c->account), entry->id, &size);
	if (e == MF_NOT_FOUND && entry->uid)
		return;
	if (e == MF_NOT_FOUND && (e = check_spooled(c, entry, &size)) == MF_NOT_FOUND)
		return;
	c->bodies++;
	if (e == MF_CORRUPT && !entry->uid) {
		say_problem(c, mailbox, name, "the message is here alone, and its bytes are lost or damaged");
		return;
	}
	if (e == MF_CORRUPT)
		say_problem(c, mailbox, name, "the cached message was damaged and has been dropped");
	else if (e)
		say_problem(c, mailbox, name, "the cached message cannot be read");
	else if (size != entry->size)
		say_problem(c, mailbox, name, "the index had another size than the cached message");
}

/* false: nobody listens */
static bool say_checking(struct checking *c, const char *path)
{
	int64_t now = clock_mono_ms();
	if (now < c->next_ms)
		return true;
	c->next_ms = now + VERB_PROGRESS_MS;
	struct cache_totals totals;
	cache_totals(account_cache(c->account), &totals);
	struct account_progress progress = { .done = c->messages, .total = totals.messages };
	snprintf(progress.doing, sizeof progress.doing, "checking %s", path);
	return verb_say_member(c->call, "progress", status_progress_object(&progress));
}

/* The bodies of a batch, which is empty afterwards. false: interrupted. */
static bool check_batch(struct checking *c, const char *path, struct batch *batch)
{
	bool go_on = true;
	for (size_t i = 0; i < batch->count; i++) {
		go_on = go_on && !cancel_is_raised(c->call->stop) && say_checking(c, path);
		if (go_on)
			check_body(c, path, &batch->entries[i], batch->names[i]);
		c->messages += go_on;
		free(batch->names[i]);
	}
	batch->count = 0;
	return go_on;
}

static enum mf_err check_mailbox(struct checking *c, const struct mailbox_row *row)
{
	MF_CLEANUP(mf_free) struct batch *batch = MF_NEW(struct batch);
	uint64_t after = 0;
	bool last = false;
	while (!last) {
		enum mf_err e = cache_list(account_cache(c->account), row->id, after, collect, batch);
		last = e || batch->count < STEP;
		if (batch->count)
			after = batch->entries[batch->count - 1].id;
		if (!check_batch(c, row->path, batch))
			return mf_fail(&c->call->why, MF_CANCELLED, "interrupted");
		if (e)
			return mf_fail(&c->call->why, e, "cannot read the index of %s: %s", account_config(c->account)->name, mf_err_words(e));
	}
	return MF_OK;
}

/* A section without its mailbox has no effect: a name that is spelt wrong is told nowhere else. */
static void check_sections(struct checking *c, const struct mailbox_rows *rows)
{
	const struct account_config *config = account_config(c->account);
	for (size_t i = 0; i < config->mailbox_count && rows->count; i++) { /* none: they have never been listed */
		size_t k = 0;
		while (k < rows->count && strcmp(rows->items[k].path, config->mailboxes[i].name) != 0)
			k++;
		if (k == rows->count)
			say_problem(c, config->mailboxes[i].name, NULL, "the config file has a section for this mailbox, and there is none here");
	}
}

static enum mf_err check_local(struct checking *c)
{
	struct mailbox_rows rows;
	mailbox_rows_load(c->account, &rows);
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < rows.count && !e; i++)
		e = check_mailbox(c, &rows.items[i]);
	if (!e)
		check_sections(c, &rows);
	mailbox_rows_finish(&rows);
	return e;
}

static enum mf_err check_server(struct checking *c)
{
	enum mf_err e = verb_want_link(c->call, c->account);
	if (e)
		return e;
	struct waiter *w = waiter_create(c->call, c->account);
	struct want *want = NULL;
	bool here = account_want_verify(c->account, waiter_done, w, &e, &want);
	e = waiter_finish(w, here, e, want);
	waiter_destroy(w);
	if (e && !c->call->why.text[0])
		mf_fail(&c->call->why, e, "%s: the index could not be compared with the server: %s", account_config(c->account)->name,
		        mf_err_words(e));
	return e;
}

static void say_checked(struct checking *c, bool server)
{
	struct json_object *o = json_object_new_object();
	json_put_string(o, "account", account_config(c->account)->name);
	json_put_number(o, "messages", c->messages);
	json_put_number(o, "bodies", c->bodies);
	json_put_number(o, "problems", c->problems);
	json_put_bool(o, "server", server);
	verb_say_member(c->call, "checked", o);
}

enum exit_code verb_check(struct verb_call *call)
{
	bool local = verb_take_option(call, "--local");
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	enum mf_err result = MF_OK;
	uint64_t problems = 0;
	for (size_t i = 0; i < call->count && result != MF_CANCELLED; i++) {
		struct checking c = { .call = call, .account = call->accounts[i] };
		enum mf_err e = check_local(&c), server = e || local ? e : check_server(&c);
		say_checked(&c, !local && !server);
		problems += c.problems;
		if (server)
			result = server;
	}
	if (result)
		return exit_code_of(result);
	if (problems)
		mf_fail(&call->why, MF_CORRUPT, "%ju problems were found; what was damaged is fetched again when it is read", (uintmax_t)problems);
	return problems ? EXIT_PARTIAL : EXIT_OK;
}

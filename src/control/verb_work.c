/* The verbs that wait for the engine: sync, connect, disconnect. */
#include "control/verb.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/outboxes.h"
#include "control/status.h"
#include "control/text.h"

#define LINK_STEP_MS 50        /* how often a link is looked at that is being made */

/* --- one want ------------------------------------------------------------------------------------------------------ */

struct waiter {
	struct verb_call *call;
	struct account *account;
	int fd;                  /* an eventfd: done has been called */
	pthread_mutex_t lock;    /* guards what follows */
	pthread_cond_t settled;
	bool done;
	enum mf_err result;
};

struct waiter *waiter_create(struct verb_call *call, struct account *a)
{
	struct waiter *w = MF_NEW(struct waiter);
	w->call = call;
	w->account = a;
	w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->settled, NULL);
	return w;
}

void waiter_destroy(struct waiter *w)
{
	mf_close(&w->fd);
	pthread_cond_destroy(&w->settled);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* The descriptor is written under the lock: whoever then sees `done` may destroy the waiter. */
void waiter_done(void *context, enum mf_err result)
{
	struct waiter *w = context;
	pthread_mutex_lock(&w->lock);
	w->done = true;
	w->result = result;
	(void)eventfd_write(w->fd, 1);
	pthread_cond_signal(&w->settled);
	pthread_mutex_unlock(&w->lock);
}

static bool is_done(struct waiter *w, bool wait, enum mf_err *ret_result)
{
	pthread_mutex_lock(&w->lock);
	while (wait && !w->done)
		pthread_cond_wait(&w->settled, &w->lock);
	bool done = w->done;
	if (done)
		*ret_result = w->result;
	pthread_mutex_unlock(&w->lock);
	return done;
}

static bool say_progress(struct verb_call *call, struct account *a)
{
	struct account_progress progress;
	account_progress(a, &progress);
	struct json_object *o = status_progress_object(&progress);
	if (call->count > 1)
		json_put_string(o, "account", account_config(a)->name);
	return verb_say_member(call, "progress", o);
}

/* Under the lock that done() needs, so that the want stays good meanwhile. false: done() has been called, or is about to be. */
static bool give_up(struct waiter *w, struct want *want)
{
	pthread_mutex_lock(&w->lock);
	bool cancelled = !w->done && want_cancel(w->account, want);
	pthread_mutex_unlock(&w->lock);
	return cancelled;
}

enum mf_err waiter_finish(struct waiter *w, bool here, enum mf_err result, struct want *want)
{
	if (here)
		return result;
	struct pollfd fds[2] = { { .fd = w->fd, .events = POLLIN }, { .fd = w->call->stop->fd, .events = POLLIN } };
	bool listening = true;
	while (!is_done(w, false, &result)) {
		if (!listening || cancel_is_raised(w->call->stop)) {
			if (give_up(w, want))
				return MF_CANCELLED;
			is_done(w, true, &result);
			break;
		}
		if (poll(fds, 2, VERB_PROGRESS_MS) == 0)
			listening = say_progress(w->call, w->account);
	}
	return result;
}

/* --- the link ------------------------------------------------------------------------------------------------------ */

static enum mf_err link_failure(struct verb_call *call, const struct account *a, const struct link_info *link)
{
	const char *name = account_config(a)->name;
	if (link->state == LINK_WAITING && !link->error)
		return mf_fail(&call->why, MF_OFFLINE, "%s is disconnected; \"mailfs connect %s\" connects it", name, name);
	enum mf_err e = link->error ? link->error : MF_OFFLINE;
	return mf_fail(&call->why, e, "%s: %s", name, link->reason.text[0] ? link->reason.text : mf_err_words(e));
}

enum mf_err verb_want_link(struct verb_call *call, struct account *a)
{
	struct link_info link;
	account_link(a, &link);
	if (link.state == LINK_WAITING)
		return link_failure(call, a, &link);
	if (link.state == LINK_OFFLINE)
		account_connect(a);
	return MF_OK;
}

/* Until the attempt that was just asked for has an outcome. The engine has deadlines of its own; ours is only against a
 * failure there. */
static enum mf_err await_link(struct verb_call *call, struct account *a)
{
	const struct account_config *config = account_config(a);
	int64_t next = clock_mono_ms() + VERB_PROGRESS_MS;
	int64_t deadline = clock_mono_ms() + config->connect_timeout_ms + 2 * config->io_timeout_ms;
	struct link_info link;
	for (account_link(a, &link); link.state == LINK_CONNECTING; account_link(a, &link)) {
		struct pollfd stop = { .fd = call->stop->fd, .events = POLLIN };
		if (poll(&stop, 1, LINK_STEP_MS) > 0 || (clock_mono_ms() >= next && !say_progress(call, a)))
			return mf_fail(&call->why, MF_CANCELLED, "interrupted");
		if (clock_mono_ms() >= next)
			next = clock_mono_ms() + VERB_PROGRESS_MS;
		if (clock_mono_ms() > deadline)
			return mf_fail(&call->why, MF_TIMEOUT, "%s: still connecting", config->name);
	}
	return link.state == LINK_ONLINE ? MF_OK : link_failure(call, a, &link);
}

static void say_link(struct verb_call *call, struct account *a)
{
	struct link_info link;
	account_link(a, &link);
	struct json_object *o = json_object_new_object();
	json_put_string(o, "account", account_config(a)->name);
	json_put_string(o, "link", text_link(link.state));
	verb_say(call, o);
}

static void verb_connect_account(struct account *a)
{
	struct outbox *outbox = outboxes_find(a);
	account_connect(a);
	if (!outbox)
		return;
	outbox_offline(outbox, false);
	outbox_wake(outbox, true);
}

enum exit_code verb_connect(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	for (size_t i = 0; i < call->count; i++)
		verb_connect_account(call->accounts[i]);
	enum mf_err result = MF_OK;
	for (size_t i = 0; i < call->count; i++) {
		enum mf_err e = await_link(call, call->accounts[i]);
		if (e && !result)
			result = e;
		say_link(call, call->accounts[i]);
	}
	return exit_code_of(result);
}

enum exit_code verb_disconnect(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	for (size_t i = 0; i < call->count; i++) {
		struct outbox *outbox = outboxes_find(call->accounts[i]);
		if (outbox)
			outbox_offline(outbox, true);
		account_disconnect(call->accounts[i]);
		say_link(call, call->accounts[i]);
	}
	return EXIT_OK;
}

/* --- sync ---------------------------------------------------------------------------------------------------------- */

struct targets {
	uint64_t *ids;
	size_t count;
};

enum mf_err verb_find_mailbox(struct account *a, const char *path, uint64_t *ret)
{
	size_t len = strlen(path);
	while (len && path[len - 1] == '/')
		len--;
	MF_CLEANUP(mf_free) char *plain = mf_strndup(path, len);
	const char *name = account_config(a)->name, *rest = NULL;
	if (!strncmp(plain, name, strlen(name)) && plain[strlen(name)] == '/')
		rest = plain + strlen(name) + 1;
	struct mailbox m = { 0 };
	enum mf_err e = cache_mailbox_by_path(account_cache(a), plain, &m);
	if (e == MF_NOT_FOUND && rest)
		e = cache_mailbox_by_path(account_cache(a), rest, &m);
	if (!e)
		*ret = m.id;
	mailbox_finish(&m);
	return e;
}

/* The arguments that are mailboxes of this account. */
static enum mf_err find_targets(struct verb_call *call, struct account *a, struct targets *ret)
{
	size_t count = 0;
	while (call->arguments[count])
		count++;
	*ret = (struct targets){ mf_alloc_array(count, sizeof *ret->ids), 0 };
	for (size_t i = 0; i < count; i++) {
		char shown[200];
		const char *path = call->arguments[i];
		enum mf_err e = verb_find_mailbox(a, path, &ret->ids[ret->count]);
		if (!e) {
			ret->count++;
			continue;
		}
		mf_printable(shown, sizeof shown, path, strlen(path));
		free(ret->ids);
		if (e == MF_NOT_FOUND)
			return mf_fail(&call->why, e, "%s has no mailbox %s; \"mailfs list %s\" shows all", account_config(a)->name, shown,
			               account_config(a)->name);
		return mf_fail(&call->why, e, "%s: cannot look up %s: %s", account_config(a)->name, shown, mf_err_words(e));
	}
	return MF_OK;
}

/* First what was changed here, so that what is read after it is what the server made of it. */
enum mf_err verb_settle_account(struct verb_call *call, struct account *a)
{
	struct waiter *w = waiter_create(call, a);
	struct want *want = NULL;
	enum mf_err e;
	bool here = account_want_settled(a, waiter_done, w, &e, &want);
	e = waiter_finish(w, here, e, want);
	waiter_destroy(w);
	if (e == MF_DENIED)
		return mf_fail(&call->why, e, "%s: some changes wait for you: \"mailfs pending\" shows them", account_config(a)->name);
	if (e == MF_CANCELLED)
		return mf_fail(&call->why, e, "interrupted");
	return e ? mf_fail(&call->why, e, "%s: changes are not at the server yet: %s", account_config(a)->name, mf_err_words(e)) : MF_OK;
}

/* *ret_rest: it failed for some mailbox, and the others are read */
static enum mf_err sync_account(struct verb_call *call, struct account *a, bool populate, bool *ret_rest)
{
	struct targets targets;
	enum mf_err e = verb_want_link(call, a);
	if (e)
		return e;
	e = find_targets(call, a, &targets);
	if (e)
		return e;
	struct waiter *w = waiter_create(call, a);
	struct want *want = NULL;
	bool here = account_want_sync(a, targets.ids, targets.count, populate, waiter_done, w, &e, &want);
	e = waiter_finish(w, here, e, want);
	waiter_destroy(w);
	free(targets.ids);
	if (!e || e == MF_CANCELLED)
		return e ? mf_fail(&call->why, e, "interrupted") : MF_OK;
	struct link_info link;
	account_link(a, &link);
	if (link.state != LINK_ONLINE && link.error)
		return link_failure(call, a, &link);
	*ret_rest = e == MF_DENIED && targets.count != 1;
	return mf_fail(&call->why, e, "%s: %s%s", account_config(a)->name, *ret_rest ? "a mailbox could not be read, and the log tells which: " : "",
	               mf_err_words(e));
}

enum exit_code verb_sync(struct verb_call *call)
{
	bool populate = verb_take_option(call, "--populate"), wait = verb_take_option(call, "--wait");
	if (!verb_take_option(call, "--") && call->arguments[0] && call->arguments[0][0] == '-') {
		(void)verb_no_more_arguments(call);
		return EXIT_USAGE;
	}
	enum mf_err result = MF_OK;
	bool rest = false;
	for (size_t i = 0; i < call->count && result != MF_CANCELLED; i++) {
		enum mf_err e = wait ? verb_want_link(call, call->accounts[i]) : MF_OK;
		if (!e && wait)
			e = verb_settle_account(call, call->accounts[i]);
		if (!e)
			e = sync_account(call, call->accounts[i], populate, &rest);
		/* what came from a POP3 server may not be to stay there */
		if (!e && wait && cache_only_deletes(account_cache(call->accounts[i])))
			e = verb_settle_account(call, call->accounts[i]);
		if (e)
			result = e;
	}
	if (call->control->settle) /* who runs ls next sees it */
		call->control->settle(call->control->settle_context);
	enum exit_code code = result == MF_DENIED && rest ? EXIT_PARTIAL : exit_code_of(result);
	if (call->control->mountpoint || result == MF_CANCELLED)
		return code;
	struct mf_reason why = call->why;
	enum exit_code sent = verb_send_waiting(call);
	if (result)
		call->why = why;
	return result ? code : sent;
}

/* The table of verbs, their lines, and the short ones. */
#include "control/verbs.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/mailboxes.h"
#include "control/status.h"
#include "control/verb.h"

#define EVENTS_WAIT_MS 2000   /* how long a raised stop sign may go unseen */
#define EVENTS_CHUNK 32768

/* --- saying -------------------------------------------------------------------------------------------------------- */

bool verb_say(struct verb_call *call, struct json_object *object)
{
	MF_CLEANUP(mf_free) char *line = json_line(object);
	return call->say(call->context, line);
}

bool verb_say_member(struct verb_call *call, const char *key, struct json_object *value)
{
	struct json_object *o = json_object_new_object();
	json_object_object_add(o, key, value);
	return verb_say(call, o);
}

static bool say_text(struct verb_call *call, const char *text)
{
	return verb_say_member(call, "text", json_object_new_string(text));
}

/* --- arguments ----------------------------------------------------------------------------------------------------- */

bool verb_take_option(struct verb_call *call, const char *option)
{
	for (size_t i = 0; call->arguments[i]; i++) {
		if (strcmp(call->arguments[i], option)) {
			if (!strcmp(call->arguments[i], "--"))
				return false;
			continue;
		}
		free(call->arguments[i]);
		do
			call->arguments[i] = call->arguments[i + 1];
		while (call->arguments[i++]);
		return true;
	}
	return false;
}

enum mf_err verb_no_more_arguments(struct verb_call *call)
{
	char shown[80];
	if (!call->arguments[0])
		return MF_OK;
	mf_printable(shown, sizeof shown, call->arguments[0], strlen(call->arguments[0]));
	return mf_fail(&call->why, MF_INVALID, "unexpected argument: %s", shown);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* one percent-encoded word; NULL: it is badly encoded, or holds a NUL */
static char *decode_word(const char *word, size_t len)
{
	char *to = mf_alloc(len + 1);
	size_t out = 0;
	for (size_t i = 0; i < len; i++) {
		if (word[i] != '%') {
			to[out++] = word[i];
			continue;
		}
		int high = i + 2 < len ? hex(word[i + 1]) : -1, low = high < 0 ? -1 : hex(word[i + 2]);
		if (low < 0 || (high == 0 && low == 0)) {
			free(to);
			return NULL;
		}
		to[out++] = (char)(high << 4 | low);
		i += 2;
	}
	return to;
}

static void arguments_destroy(char **arguments)
{
	for (size_t i = 0; arguments && arguments[i]; i++)
		free(arguments[i]);
	free(arguments);
}

static enum mf_err parse_line(const char *line, char ***ret, struct mf_reason *why)
{
	if (strlen(line) > VERB_LINE_MAX)
		return mf_fail(why, MF_INVALID, "the request is over %d bytes", VERB_LINE_MAX);
	char **words = MF_NEW(char *);
	size_t count = 0;
	for (const char *p = line + strspn(line, " \t\r"); *p; p += strspn(p, " \t\r")) {
		size_t len = strcspn(p, " \t\r");
		words = mf_realloc_array(words, count + 2, sizeof *words);
		words[count] = decode_word(p, len);
		words[count + 1] = NULL;
		if (!words[count] || ++count > VERB_ARGUMENTS_MAX) {
			arguments_destroy(words);
			return mf_fail(why, MF_INVALID, "the request has %s", count > VERB_ARGUMENTS_MAX ? "too many arguments" : "a bad percent escape");
		}
		p += len;
	}
	*ret = words;
	return MF_OK;
}

/* --- the short verbs ----------------------------------------------------------------------------------------------- */

static enum exit_code verb_ping(struct verb_call *call)
{
	struct json_object *o = json_object_new_object();
	json_put_number(o, "pid", (uint64_t)getpid());
	json_put_string(o, "version", MF_VERSION);
	json_put_string(o, "account", call->count == 1 ? account_config(call->accounts[0])->name : NULL);
	json_put_string(o, "mountpoint", call->control->mountpoint);
	verb_say_member(call, "ping", o);
	return EXIT_OK;
}

static enum exit_code verb_status(struct verb_call *call)
{
	bool json = verb_take_option(call, "--json");
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	MF_CLEANUP(mf_free) char *text = json ? status_json(call->accounts, call->count) : status_text(call->accounts, call->count);
	if (!json) {
		say_text(call, text);
		return EXIT_OK;
	}
	text[strcspn(text, "\n")] = 0;
	MF_CLEANUP(mf_free) char *line = mf_format("{\"status\":%s}", text);
	call->say(call->context, line);
	return EXIT_OK;
}

static enum exit_code verb_list(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	for (size_t i = 0; i < call->count; i++) {
		struct mailbox_rows rows;
		mailbox_rows_load(call->accounts[i], &rows);
		for (size_t k = 0; k < rows.count && !cancel_is_raised(call->stop); k++) {
			struct json_object *o = mailbox_row_object(&rows.items[k]);
			json_put_string(o, "account", account_config(call->accounts[i])->name);
			if (!verb_say(call, o))
				break;
		}
		mailbox_rows_finish(&rows);
	}
	return EXIT_OK;
}

/* Hands whole lines to say(); returns how many bytes they were, 0 when nobody listens. */
static size_t say_lines(struct verb_call *call, char *data, size_t len)
{
	size_t done = 0;
	for (char *end; (end = memchr(data + done, '\n', len - done)); done = (size_t)(end - data) + 1) {
		*end = 0;
		if (!call->say(call->context, data + done))
			return 0;
	}
	return done;
}

/* A reader who was too slow, or came too late, is told what he missed. */
static bool say_lost(struct verb_call *call, uint64_t bytes)
{
	struct json_object *o = json_object_new_object();
	json_put_time(o, "time", clock_wall_s());
	json_put_string(o, "event", "events-lost");
	json_put_number(o, "bytes", bytes);
	return verb_say(call, o);
}

static enum exit_code verb_events(struct verb_call *call)
{
	bool all = verb_take_option(call, "--all");
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	struct eventlog *log = call->control->events;
	if (!log) {
		mf_fail(&call->why, MF_UNSUPPORTED, "no events are kept here");
		return EXIT_NOT_FOUND;
	}
	uint64_t offset = all ? 0 : eventlog_size(log, call->events);
	MF_CLEANUP(mf_free) char *chunk = mf_alloc(EVENTS_CHUNK);
	while (!cancel_is_raised(call->stop)) {
		uint64_t wanted = offset;
		size_t len = eventlog_read(log, call->events, offset, chunk, EVENTS_CHUNK, EVENTS_WAIT_MS, &offset);
		if (offset > wanted && !say_lost(call, offset - wanted))
			break;
		if (!len)
			continue;
		size_t said = say_lines(call, chunk, len);
		if (!said)
			break;
		offset += said;
	}
	return EXIT_OK;
}

static enum exit_code verb_log(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	size_t len;
	MF_CLEANUP(mf_free) char *text = log_recent(&len);
	say_text(call, text);
	return EXIT_OK;
}

static enum exit_code verb_stop(struct verb_call *call)
{
	if (verb_no_more_arguments(call))
		return EXIT_USAGE;
	if (!call->control->on_stop) {
		mf_fail(&call->why, MF_UNSUPPORTED, "nothing is mounted here");
		return EXIT_NOT_FOUND;
	}
	call->control->on_stop(call->control->stop_context);
	return EXIT_OK;
}

/* --- dispatch ------------------------------------------------------------------------------------------------------ */

static const struct verb {
	const char *name;
	verb_run *run;
	bool endless;            /* only whoever reads its answers ends it */
} verbs[] = {
	{ "ping", verb_ping, false },
	{ "status", verb_status, false },
	{ "list", verb_list, false },
	{ "sync", verb_sync, false },
	{ "connect", verb_connect, false },
	{ "disconnect", verb_disconnect, false },
	{ "check", verb_check, false },
	{ "pending", verb_pending, false },
	{ "cancel", verb_cancel, false },
	{ "retry", verb_retry, false },
	{ "subscribe", verb_subscribe, false },
	{ "unsubscribe", verb_unsubscribe, false },
	{ "events", verb_events, true },
	{ "send", verb_send, false },
	{ "outbox", verb_outbox, false },
	{ "log", verb_log, false },
	{ "stop", verb_stop, false },
};

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

/* Parses and finds the verb, which is taken off the arguments. */
static enum mf_err understand(const char *line, const struct verb **ret, char ***ret_arguments, struct mf_reason *why)
{
	char **words = NULL;
	enum mf_err e = parse_line(line, &words, why);
	if (e)
		return e;
	const struct verb *verb = words[0] ? find_verb(words[0]) : NULL;
	if (!verb) {
		char shown[40];
		const char *name = words[0] ? words[0] : "";
		mf_fail(why, MF_INVALID, "no such command: \"%s\"", mf_printable(shown, sizeof shown, name, strlen(name)));
		arguments_destroy(words);
		return MF_INVALID;
	}
	free(words[0]);
	for (size_t i = 0; (words[i] = words[i + 1]); i++)
		;
	*ret = verb;
	*ret_arguments = words;
	return MF_OK;
}

static bool select_accounts(struct verb_call *call, const char *account)
{
	const struct control *control = call->control;
	if (!account) {
		call->accounts = control->accounts;
		call->count = control->count;
		call->events = -1;
		return true;
	}
	for (size_t i = 0; i < control->count; i++) {
		if (strcmp(account_config(control->accounts[i])->name, account))
			continue;
		call->accounts = &control->accounts[i];
		call->count = 1;
		call->events = (int)i;
		return true;
	}
	mf_fail(&call->why, MF_NOT_FOUND, "this process does not hold the account %s", account);
	return false;
}

int control_run(const struct control *control, const char *account, const char *line, struct cancel *stop, control_say *say, void *context)
{
	struct verb_call call = { .control = control, .stop = stop, .say = say, .context = context };
	const struct verb *verb = NULL;
	enum exit_code code;
	trace(TRACE_CONTROL, "%s: %s", account ? account : "all accounts", line);
	if (understand(line, &verb, &call.arguments, &call.why))
		code = EXIT_USAGE;
	else if (!select_accounts(&call, account))
		code = EXIT_NOT_FOUND;
	else
		code = verb->run(&call);
	arguments_destroy(call.arguments);
	struct json_object *end = json_object_new_object();
	json_put_number(end, "exit", (uint64_t)code);
	if (code)
		json_put_string(end, "error", call.why.text[0] ? call.why.text : exit_code_words((int)code));
	verb_say(&call, end);
	return (int)code;
}

/* --- started from .mailfs/ctl -------------------------------------------------------------------------------------- */

#define STARTED_MAX 8

struct started {
	LIST_ENTRY(started) link;
	const struct control *control;
	char *account, *line;
	struct cancel stop;
	pthread_t thread;
	bool ended;
};
static LIST_HEAD(, started) started = LIST_HEAD_INITIALIZER(started);
static size_t started_count;
static pthread_mutex_t started_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, its count and `ended` */

static void started_destroy(struct started *s)
{
	cancel_finish(&s->stop);
	free(s->account);
	free(s->line);
	free(s);
}

/* Nobody reads the answers; a failure goes to the log. */
static bool log_failure(void *context, const char *json)
{
	const struct started *s = context;
	struct json_object *o = json_parse_line(json);
	const char *error = o ? json_get_string(o, "error") : NULL;
	char line_shown[80], error_shown[320];
	if (error)
		log_warning("ctl: %s: %s", mf_printable(line_shown, sizeof line_shown, s->line, strlen(s->line)),
		            mf_printable(error_shown, sizeof error_shown, error, strlen(error)));
	json_object_put(o);
	return true;
}

static void *run_started(void *context)
{
	struct started *s = context;
	control_run(s->control, s->account, s->line, &s->stop, log_failure, s);
	pthread_mutex_lock(&started_lock);
	s->ended = true;
	pthread_mutex_unlock(&started_lock);
	return NULL;
}

/* Joins those of this control that have ended; with stop, all of them. */
static void reap(const struct control *control, bool stop)
{
	pthread_mutex_lock(&started_lock);
	struct started *s = LIST_FIRST(&started);
	while (s) {
		struct started *next = LIST_NEXT(s, link);
		if (s->control == control && (stop || s->ended)) {
			LIST_REMOVE(s, link);
			started_count--;
			pthread_mutex_unlock(&started_lock);
			cancel_raise(&s->stop);
			if (control->events)
				eventlog_wake(control->events);
			pthread_join(s->thread, NULL);
			started_destroy(s);
			pthread_mutex_lock(&started_lock);
			next = LIST_FIRST(&started);
		}
		s = next;
	}
	pthread_mutex_unlock(&started_lock);
}

enum mf_err control_start(const struct control *control, const char *account, const char *line)
{
	const struct verb *verb;
	char **arguments = NULL;
	enum mf_err e = understand(line, &verb, &arguments, NULL);
	if (e)
		return e;
	arguments_destroy(arguments);
	if (verb->endless)
		return MF_INVALID;
	reap(control, false);
	struct started *s = MF_NEW(struct started);
	char shown[200];
	s->control = control;
	s->account = account ? mf_strdup(account) : NULL;
	s->line = mf_strdup(line);
	mf_printable(shown, sizeof shown, line, strlen(line));
	if (!cancel_init(&s->stop)) {
		started_destroy(s);
		return MF_BUSY;
	}
	log_info("ctl: %s", shown);
	pthread_mutex_lock(&started_lock);
	bool room = started_count < STARTED_MAX && !pthread_create(&s->thread, NULL, run_started, s);
	if (room) {
		LIST_INSERT_HEAD(&started, s, link);
		started_count++;
	}
	pthread_mutex_unlock(&started_lock);
	if (!room)
		started_destroy(s);
	return room ? MF_OK : MF_BUSY;
}

void control_finish(const struct control *control)
{
	reap(control, true);
}

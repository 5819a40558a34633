#include "cli/outgoing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/json.h"
#include "control/paths.h"
#include "smtp/addrlist.h"
#include "smtp/handover.h"

/* --- which account ------------------------------------------------------------------------------------------------- */

struct looking {
	const char *wanted;
	bool found;
};

static enum mf_err look(void *context, const struct addr *a)
{
	struct looking *l = context;
	l->found |= a->kind == ADDR_MAILBOX && addr_equal(a->spec.data, l->wanted);
	return MF_OK;
}

static bool is_from(const struct account_config *config, const char *author)
{
	const char *own = config->from ? config->from : config->user ? config->user : "";
	struct looking l = { .wanted = author };
	(void)addrlist_parse(own, strlen(own), look, &l, NULL);
	return l.found;
}

static const char *choose(const struct config *config, const char *author, bool draft)
{
	const struct account_config *first = NULL;
	for (size_t i = 0; i < config->account_count; i++) {
		const struct account_config *a = config->accounts[i];
		if (draft ? !a->imap.host : !a->smtp.host)
			continue;
		if (author && is_from(a, author))
			return a->name;
		if (!first || (!first->smtp.host && a->smtp.host))
			first = a;
	}
	return first ? first->name : NULL;
}

enum exit_code outgoing_choose(struct cli *cli, const char *author, bool draft, struct targets *ret)
{
	struct mf_reason why = { "" };
	enum mf_err e = targets_load(cli->config_path, ret, &why);
	if (e)
		return cli_fail(EXIT_CONFIG, "%s", why.text[0] ? why.text : mf_err_words(e));
	const char *name = cli->account ? cli->account : ret->config ? choose(ret->config, author, draft) : NULL;
	if (!name) {
		targets_finish(ret);
		return cli_fail(EXIT_CONFIG, draft ? "no account has a mailbox for drafts: none in the config file has an imap server (imap = imaps://HOST)"
		                                   : "no account can send: none in the config file has an smtp server (smtp = smtps://HOST)");
	}
	e = targets_add(ret, name, &why);
	if (!e)
		return EXIT_OK;
	targets_finish(ret);
	return cli_fail(e == MF_INVALID ? EXIT_USAGE : EXIT_NOT_FOUND, "%s", why.text[0] ? why.text : mf_err_words(e));
}

/* --- what became of it -------------------------------------------------------------------------------------------- */

static void print_message(struct json_object *m)
{
	const char *state = json_get_string(m, "state"), *name = json_get_string(m, "name"), *at = json_get_string(m, "at");
	const char *reason = json_get_string(m, "reason"), *subject = json_get_string(m, "subject");
	long long recipients = (long long)json_get_number(m, "recipients"), sent = (long long)json_get_number(m, "sent");
	bool failed = state && !strcmp(state, outbox_state_word(OUTBOX_FAILED));
	char line[1024], shown[1024];
	int n = snprintf(line, sizeof line, "%-10s %s%s", state ? state : "?", failed ? "failed/" : "", name ? name : "?");
	if (at && n > 0 && (size_t)n < sizeof line)
		n += snprintf(line + n, sizeof line - (size_t)n, "  until %s", at);
	if (n > 0 && (size_t)n < sizeof line)
		n += snprintf(line + n, sizeof line - (size_t)n, "  %lld of %lld recipients  %.120s%s%.300s", sent, recipients, subject ? subject : "",
		              reason && *reason ? "  " : "", reason ? reason : "");
	puts(mf_printable(shown, sizeof shown, line, strlen(line)));
}

static void print_draft(struct json_object *draft)
{
	const char *path = json_get_string(draft, "path");
	printf("%-10s %s\n", "draft", path ? path : "?");
}

static void print_json(const char *json)
{
	struct json_object *o = json_parse_line(json), *inner;
	if (o && json_object_object_get_ex(o, "message", &inner))
		print_message(inner);
	else if (o && json_object_object_get_ex(o, "draft", &inner))
		print_draft(inner);
	json_object_put(o);
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

struct telling {
	struct outgoing *to;
	bool talk;
};

static void note(struct outgoing *to, struct json_object *message)
{
	const char *state = json_get_string(message, "state");
	to->kept = true;
	to->failed = state && !strcmp(state, outbox_state_word(OUTBOX_FAILED));
}

static bool take_answer(void *context, const char *json)
{
	struct telling *t = context;
	struct json_object *o = json_parse_line(json), *inner;
	if (o && json_object_object_get_ex(o, "message", &inner))
		note(t->to, inner);
	if (t->talk && o && json_object_object_get_ex(o, "progress", &inner)) {
		show_progress(inner);
	} else if (t->talk) {
		show_progress_end();
		print_json(json);
	}
	json_object_put(o);
	return true;
}

/* Whether the message was taken is known without an answer too, and who hands it in once more is not to send it twice. Other failures
 * are of one that has been taken, and taken out again, or say why it was not. */
static void say_taken(enum exit_code code, bool taken, bool draft)
{
	bool lost = code == EXIT_LOCAL || code == EXIT_TIMEOUT;
	if (lost && taken)
		cli_fail(code, draft ? "the message is a draft all the same" : "the message is in the outbox all the same, or sent: \"mailfs send --list\" shows what waits");
	else if (code == EXIT_TIMEOUT)
		cli_fail(code, "the message may be taken yet: look before it is handed in once more");
}

enum exit_code outgoing_send(struct cli *cli, struct targets *targets, const struct outbox_put *put, int message, bool talk,
                             bool may_ask_password, struct outgoing *ret)
{
	struct target *target = &targets->items[0];
	MF_CLEANUP(mf_free) char *state = path_state(target->name);
	MF_CLEANUP(mf_free) char *name = NULL;
	struct mf_reason why = { "" };
	*ret = (struct outgoing){ 0 };
	enum mf_err e = path_make_private(state, &why);
	if (!e)
		e = handover_write(state, put, message, &name, &why);
	if (e)
		return cli_fail(exit_code_of_local(e), "%s", why.text[0] ? why.text : mf_err_words(e));
	MF_CLEANUP(mf_free) char *line = mf_format("send%s --spool %s", put ? "" : " --draft", name);
	struct telling telling = { ret, talk };
	struct ask ask = { cli, ASK_CONNECT, may_ask_password, take_answer, &telling, true };
	enum exit_code code = ask_account(&ask, target, line);
	show_progress_end();
	bool taken = !handover_remove(state, name);
	if (code && !ret->kept)
		say_taken(code, taken, !put);
	ret->kept |= taken;
	return code;
}

/* --- the outbox ---------------------------------------------------------------------------------------------------- */

static bool print_answer(void *context, const char *json)
{
	(void)context;
	struct json_object *o = json_parse_line(json), *progress;
	if (o && json_object_object_get_ex(o, "progress", &progress)) {
		show_progress(progress);
	} else {
		show_progress_end();
		print_json(json);
	}
	json_object_put(o);
	return true;
}

static bool is_able(const struct target *target)
{
	return !target->config || target->config->smtp.host;
}

static enum exit_code fail_unable(void)
{
	return cli_fail(EXIT_CONFIG, "no account can send: none has an smtp server (smtp = smtps://HOST)");
}

enum exit_code outgoing_ask(struct cli *cli, const char *line, enum ask_how how)
{
	struct targets targets;
	struct arguments none = { .operands = (char *[]){ NULL } };
	enum exit_code code = targets_select(&targets, cli, &none, NULL);
	if (code)
		return code;
	size_t able = 0;
	struct ask ask = { cli, how, true, print_answer, NULL, true };
	for (size_t i = 0; i < targets.count && code != EXIT_CANCELLED; i++) {
		if (!is_able(&targets.items[i]))
			continue;
		able++;
		enum exit_code one = ask_account(&ask, &targets.items[i], line);
		show_progress_end();
		code = code ? code : one;
	}
	targets_finish(&targets);
	return able ? code : fail_unable();
}

/* --- one message of it ----------------------------------------------------------------------------------------------- */

struct seeking {
	const char *name;        /* "x.eml", "failed/x.eml" */
	bool found;
};

static bool compare(void *context, const char *json)
{
	struct seeking *s = context;
	struct json_object *o = json_parse_line(json), *m;
	if (o && json_object_object_get_ex(o, "message", &m)) {
		const char *state = json_get_string(m, "state"), *name = json_get_string(m, "name");
		bool failed = state && !strcmp(state, outbox_state_word(OUTBOX_FAILED)), wanted = !strncmp(s->name, "failed/", 7);
		s->found |= name && failed == wanted && !strcmp(name, s->name + (wanted ? 7 : 0));
	}
	json_object_put(o);
	return true;
}

/* An account that was never used has none. */
static bool has_outbox(const struct target *target)
{
	MF_CLEANUP(mf_free) char *state = path_state(target->name);
	MF_CLEANUP(mf_free) char *folder = mf_format("%s/outbox", state);
	return access(folder, F_OK) == 0;
}

/* *ret: the one to be asked; NULL: none can send. Where no outbox has it, one that will say so */
static enum exit_code find_holder(struct cli *cli, struct targets *targets, const char *name, struct target **ret)
{
	size_t found = 0;
	*ret = NULL;
	for (size_t i = 0; i < targets->count; i++) {
		struct target *target = &targets->items[i];
		struct seeking seeking = { .name = name };
		struct ask ask = { cli, ASK_OFFLINE, false, compare, &seeking, true };
		if (!is_able(target))
			continue;
		enum exit_code code = targets->count > 1 && has_outbox(target) ? ask_account(&ask, target, "outbox") : EXIT_OK;
		if (code)
			return code;
		found += seeking.found;
		*ret = seeking.found || !*ret || (!found && has_outbox(target)) ? target : *ret;
	}
	return found > 1 ? cli_fail(EXIT_USAGE, "several accounts have a message %s: which? Say --account NAME", name) : EXIT_OK;
}

enum exit_code outgoing_settle(struct cli *cli, const char *option, const char *name)
{
	struct targets targets;
	struct arguments none = { .operands = (char *[]){ NULL } };
	struct target *target;
	enum exit_code code = targets_select(&targets, cli, &none, NULL);
	if (code)
		return code;
	MF_CLEANUP(mf_free) char *word = mf_strdup(name);
	MF_CLEANUP(mf_free) char *line = ask_line("outbox", option, (char *[]){ word, NULL });
	struct ask ask = { cli, ASK_OFFLINE, false, print_answer, NULL, true };
	code = find_holder(cli, &targets, name, &target);
	if (!code)
		code = target ? ask_account(&ask, target, line) : fail_unable();
	targets_finish(&targets);
	return code;
}

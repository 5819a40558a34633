/* pending, cancel, retry: the changes that the server does not have yet. subscribe, unsubscribe. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/json.h"

static void print_text(const char *text, const char *before, const char *behind)
{
	char shown[1024];
	if (text)
		printf("%s%s%s", before, mf_printable(shown, sizeof shown, text, strlen(text)), behind);
}

/* whose it is, where several accounts are asked */
static void print_account(const bool *several, struct json_object *member)
{
	if (*several)
		print_text(json_get_string(member, "account"), "", ": ");
}

/* What waits for a person says what he can do. The account's name, where there are several, goes between the verb and the number. */
static void print_ways_out(const bool *several, struct json_object *member)
{
	const char *state = json_get_string(member, "state");
	if (!state || (strcmp(state, "parked") != 0 && strcmp(state, "unconfirmed") != 0))
		return;
	char account[300] = "", name[256];
	const char *known = *several ? json_get_string(member, "account") : NULL;
	if (known)
		snprintf(account, sizeof account, "%s ", mf_printable(name, sizeof name, known, strlen(known)));
	int64_t id = json_get_number(member, "id");
	printf("        mailfs retry %s%" PRId64 " tries again, mailfs cancel %s%" PRId64 " takes it back\n", account, id, account, id);
}

static bool print(void *context, const char *json)
{
	struct json_object *o = json_parse_line(json), *member;
	if (o && json_object_object_get_ex(o, "progress", &member)) {
		show_progress(member);
		json_object_put(o);
		return true;
	}
	show_progress_end();
	if (o && json_object_object_get_ex(o, "pending", &member)) {
		print_account(context, member);
		printf("%6" PRId64 "  %-11s ", json_get_number(member, "id"), json_get_string(member, "state"));
		print_text(json_get_string(member, "what"), "", "\n");
		print_text(json_get_string(member, "error"), "        why: ", "\n");
		print_ways_out(context, member);
	} else if (o && json_object_object_get_ex(o, "cancelled", &member)) {
		print_account(context, member);
		printf("%" PRId64 " taken back, %" PRId64 " left\n", json_get_number(member, "done"), json_get_number(member, "left"));
	} else if (o && json_object_object_get_ex(o, "retried", &member)) {
		print_account(context, member);
		printf("%" PRId64 " tried again\n", json_get_number(member, "done"));
	}
	json_object_put(o);
	return !ferror(stdout);
}

enum exit_code cmd_pending(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	bool several = targets.count > 1;
	struct ask ask = { cli, ASK_OFFLINE, false, arguments_has(arguments, "json") ? show_json : print, &several, false };
	code = ask_all(&ask, &targets, "pending");
	targets_finish(&targets);
	return code;
}

/* The verb with what is left of the arguments, for one account, or for all where that makes sense */
static enum exit_code pass_on(struct cli *cli, const struct arguments *arguments, const char *verb)
{
	struct targets targets;
	char **rest;
	enum exit_code code = targets_select(&targets, cli, arguments, &rest);
	if (code)
		return code;
	bool all = *rest && !strcmp(*rest, "all") && !rest[1], several = targets.count > 1;
	if (!all && several) {
		targets_finish(&targets);
		return cli_fail(EXIT_USAGE, "%s: which account? Say --account NAME", verb);
	}
	MF_CLEANUP(mf_free) char *line = ask_line(verb, "", rest);
	struct ask ask = { cli, ASK_OFFLINE, false, print, &several, false };
	code = ask_all(&ask, &targets, line);
	show_progress_end();
	targets_finish(&targets);
	return code;
}

enum exit_code cmd_cancel(struct cli *cli, const struct arguments *arguments)
{
	return pass_on(cli, arguments, "cancel");
}

enum exit_code cmd_retry(struct cli *cli, const struct arguments *arguments)
{
	return pass_on(cli, arguments, "retry");
}

enum exit_code cmd_subscribe(struct cli *cli, const struct arguments *arguments)
{
	return pass_on(cli, arguments, "subscribe");
}

enum exit_code cmd_unsubscribe(struct cli *cli, const struct arguments *arguments)
{
	return pass_on(cli, arguments, "unsubscribe");
}

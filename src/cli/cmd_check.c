/* check: the index against the cached bodies, and against the server. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/json.h"
#include "control/text.h"

static void print_word(struct json_object *o, const char *key, const char *before)
{
	char shown[1024];
	const char *value = json_get_string(o, key);
	if (value)
		printf("%s%s", before, mf_printable(shown, sizeof shown, value, strlen(value)));
}

static void print_problem(struct json_object *problem)
{
	print_word(problem, "account", "");
	print_word(problem, "mailbox", ": ");
	print_word(problem, "name", "/");
	print_word(problem, "what", ": ");
	puts("");
}

static void print_checked(struct json_object *checked)
{
	char messages[TEXT_NUMBER], bodies[TEXT_NUMBER], problems[TEXT_NUMBER];
	uint64_t found = (uint64_t)json_get_number(checked, "problems");
	print_word(checked, "account", "");
	printf(": %s messages and %s cached bodies checked here, %s the server: %s problem%s\n",
	       text_count(messages, (uint64_t)json_get_number(checked, "messages")),
	       text_count(bodies, (uint64_t)json_get_number(checked, "bodies")),
	       json_get_bool(checked, "server") ? "all mailboxes compared with" : "nothing compared with",
	       found ? text_count(problems, found) : "no", found == 1 ? "" : "s");
}

static bool print(void *context, const char *json)
{
	(void)context;
	struct json_object *o = json_parse_line(json), *member;
	if (!o)
		return true;
	if (json_object_object_get_ex(o, "progress", &member)) {
		show_progress(member);
	} else {
		show_progress_end();
		if (json_object_object_get_ex(o, "problem", &member))
			print_problem(member);
		else if (json_object_object_get_ex(o, "checked", &member))
			print_checked(member);
	}
	json_object_put(o);
	return true;
}

enum exit_code cmd_check(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	bool local = arguments_has(arguments, "local");
	struct ask ask = { cli, local ? ASK_OFFLINE : ASK_CONNECT, true, print, NULL, false };
	code = ask_all(&ask, &targets, local ? "check --local" : "check");
	show_progress_end();
	targets_finish(&targets);
	return code;
}

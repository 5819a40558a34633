/* list: the mailboxes of accounts. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/json.h"
#include "control/text.h"

struct listing {
	const char *account;   /* shown before each mailbox; NULL: there is one only */
	bool headed;
};

static const char *word(struct json_object *o, const char *key)
{
	const char *value = json_get_string(o, key);
	return value ? value : "-";
}

static bool print_row(void *context, const char *json)
{
	struct listing *listing = context;
	struct json_object *o = json_parse_line(json);
	const char *path = o ? json_get_string(o, "mailbox") : NULL;
	if (path) {
		char messages[TEXT_NUMBER] = "-", unseen[TEXT_NUMBER] = "-", shown[8192];
		if (json_get_bool(o, "selectable")) {
			text_count(messages, (uint64_t)json_get_number(o, "messages"));
			text_count(unseen, (uint64_t)json_get_number(o, "unseen"));
		}
		if (!listing->headed)
			printf("%10s %8s  %-9s %-8s %s\n", "messages", "unseen", "state", "sync", "mailbox");
		listing->headed = true;
		mf_printable(shown, sizeof shown, path, strlen(path));
		printf("%10s %8s  %-9s %-8s %s%s%s\n", messages, unseen, word(o, "state"), word(o, "sync"),
		       listing->account ? listing->account : "", listing->account ? "/" : "", shown);
	}
	json_object_put(o);
	return !ferror(stdout);
}

enum exit_code cmd_list(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	bool json = arguments_has(arguments, "json");
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	struct listing listing = { NULL, false };
	struct ask ask = { cli, ASK_OFFLINE, false, json ? show_json : print_row, &listing, false };
	for (size_t i = 0; i < targets.count; i++) {
		listing.account = targets.count > 1 ? targets.items[i].name : NULL;
		enum exit_code one = ask_account(&ask, &targets.items[i], "list");
		if (!code)
			code = one;
	}
	targets_finish(&targets);
	return code;
}

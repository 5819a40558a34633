/* sync: makes the index, and with --populate every body, what the server has now. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "cli/sync_files.h"
#include "control/json.h"

static bool draw(void *context, const char *json)
{
	(void)context;
	struct json_object *o = json_parse_line(json), *progress;
	if (o && json_object_object_get_ex(o, "progress", &progress))
		show_progress(progress);
	json_object_put(o);
	return true;
}

static enum exit_code unclear(const char *mailbox)
{
	return cli_fail(EXIT_USAGE, "sync: which account is %s in? Say --account NAME, or NAME/%s", mailbox, mailbox);
}

static enum exit_code sync_named(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	char **mailboxes;
	enum exit_code code = targets_select(&targets, cli, arguments, &mailboxes);
	if (code)
		return code;
	if (*mailboxes && targets.count > 1) {
		code = unclear(*mailboxes);
		targets_finish(&targets);
		return code;
	}
	bool populate = arguments_has(arguments, "populate"), wait = arguments_has(arguments, "wait") || arguments_has(arguments, "once");
	MF_CLEANUP(mf_free) char *line = ask_line("sync", populate && wait ? "--populate --wait" : populate ? "--populate" : wait ? "--wait" : "", mailboxes);
	/* the mailboxes of arguments are looked up in the list */
	struct ask ask = { cli, ASK_CONNECT, !arguments_has(arguments, "once"), draw, NULL, !*mailboxes };
	for (size_t i = 0; i < targets.count && code != EXIT_CANCELLED; i++) {
		enum exit_code one = ask_account(&ask, &targets.items[i], line);
		show_progress_end();
		if (!code || one == EXIT_CANCELLED)
			code = one;
	}
	targets_finish(&targets);
	return code;
}

/* "work/INBOX home/INBOX": each is a request of its own */
static enum exit_code sync_each(struct cli *cli, const struct arguments *arguments)
{
	enum exit_code code = EXIT_OK;
	for (size_t i = 0; i < arguments->operand_count && code != EXIT_CANCELLED; i++) {
		struct arguments there = *arguments;
		char *operands[] = { arguments->operands[i], NULL };
		there.operands = operands;
		there.operand_count = 1;
		enum exit_code one = sync_named(cli, &there);
		if (!code || one == EXIT_CANCELLED)
			code = one;
	}
	return code;
}

static enum exit_code sync_operands(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	const char *plain = NULL;
	if (cli->account || arguments->operand_count < 2 || targets_load(cli->config_path, &targets, NULL) != MF_OK)
		return sync_named(cli, arguments); /* which says what is wrong */
	size_t count = targets_count_named(&targets, arguments->operands, &plain);
	targets_finish(&targets);
	if (count < 2)
		return sync_named(cli, arguments);
	return plain ? unclear(plain) : sync_each(cli, arguments);
}

enum exit_code cmd_sync(struct cli *cli, const struct arguments *arguments)
{
	bool files = arguments->operand_count && sync_is_file(arguments->operands[0]);
	return files ? sync_files(cli, arguments, sync_named) : sync_operands(cli, arguments);
}

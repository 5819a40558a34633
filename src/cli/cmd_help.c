/* help, and what the shells' completions ask. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/ask.h"
#include "cli/mount_options.h"
#include "cli/targets.h"
#include "control/json.h"

enum exit_code cmd_help(struct cli *cli, const struct arguments *arguments)
{
	(void)cli;
	if (!arguments->operand_count) {
		command_list();
		return EXIT_OK;
	}
	const struct command *command = command_find(arguments->operands[0]);
	if (!command)
		return cli_fail(EXIT_USAGE, "there is no command %s; \"mailfs help\" lists them", arguments->operands[0]);
	command_help(command);
	return EXIT_OK;
}

static void complete_commands(void)
{
	for (const struct command *c = commands; c->name; c++)
		if (!c->hidden)
			printf("%s:%s\n", c->name, c->summary);
}

static enum exit_code complete_flags(const char *name)
{
	const struct command *command = command_find(name);
	if (!command)
		return EXIT_USAGE;
	const struct flag *lists[] = { command->flags, global_flags };
	for (size_t i = 0; i < 2; i++)
		for (const struct flag *f = lists[i]; f && f->name; f++)
			printf("--%s:%s\n", f->name, f->help);
	return EXIT_OK;
}

static void complete_accounts(struct cli *cli)
{
	struct targets targets;
	if (targets_load(cli->config_path, &targets, NULL))
		return; /* a completion has nowhere to complain */
	targets_add_all(&targets);
	for (size_t i = 0; i < targets.count; i++) {
		char shown[128];
		puts(mf_printable(shown, sizeof shown, targets.items[i].name, strlen(targets.items[i].name)));
	}
	targets_finish(&targets);
}

static void complete_mount_options(void)
{
	for (const char *const *name = mount_option_names; *name; name++)
		puts(*name);
	for (const char *const *key = mount_account_keys; *key; key++)
		printf("%s=\n", *key);
}

/* as the commands take it: with the account before it where there are several */
static bool print_mailbox(void *context, const char *json)
{
	const bool *several = context;
	struct json_object *o = json_parse_line(json);
	const char *path = o ? json_get_string(o, "mailbox") : NULL, *account = o && *several ? json_get_string(o, "account") : NULL;
	char shown[8192];
	if (path)
		printf("%s%s%s\n", account ? account : "", account ? "/" : "", mf_printable(shown, sizeof shown, path, strlen(path)));
	json_object_put(o);
	return true;
}

static void complete_mailboxes(struct cli *cli)
{
	struct targets targets;
	struct arguments none = { .operands = (char *[]){ NULL } };
	if (targets_select(&targets, cli, &none, NULL))
		return;
	bool several = targets.count > 1;
	struct ask ask = { cli, ASK_OFFLINE, false, print_mailbox, &several, false };
	(void)ask_all(&ask, &targets, "list");
	targets_finish(&targets);
}

enum exit_code cmd_complete(struct cli *cli, const struct arguments *arguments)
{
	const char *what = arguments->operand_count ? arguments->operands[0] : "";
	if (!strcmp(what, "commands"))
		complete_commands();
	else if (!strcmp(what, "flags") && arguments->operand_count == 2)
		return complete_flags(arguments->operands[1]);
	else if (!strcmp(what, "accounts"))
		complete_accounts(cli);
	else if (!strcmp(what, "mount-options"))
		complete_mount_options();
	else if (!strcmp(what, "mailboxes"))
		complete_mailboxes(cli);
	else
		return cli_fail(EXIT_USAGE, "complete: commands, flags COMMAND, accounts, mount-options or mailboxes");
	return EXIT_OK;
}

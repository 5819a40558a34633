/* The table of commands, their help, and finding the one that is meant. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"

const struct flag global_flags[] = {
	{ 0, "config", "FILE", "read this config file instead of the usual one", false },
	{ 0, "account", "NAME", "the account that is meant, where there are several", false },
	{ 0, "trace", "WHAT", "show what goes on: net tls imap pop3 smtp sync cache fs control, comma separated, or all", true },
	{ 'h', "help", NULL, "show this help", false },
	{ 'V', "version", NULL, "show the version", false },
	{ 0, NULL, NULL, NULL, false },
};

static const struct flag mount_flags[] = {
	{ 'o', "options", "OPT[,OPT...]", "mount options: see mailfs(1)", true },
	{ 'f', "foreground", NULL, "stay in the foreground; log to standard error", false },
	{ 'd', "debug", NULL, "foreground, with a trace of the file system", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag umount_flags[] = {
	{ 'l', "lazy", NULL, "take it out of the tree now, and let who has files open finish", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag status_flags[] = {
	{ 0, "json", NULL, "for programs: one line of JSON", false },
	{ 'w', "watch", NULL, "draw anew every second, until ^C", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag sync_flags[] = {
	{ 0, "populate", NULL, "fetch every message too, not only headers", false },
	{ 0, "once", NULL, "for cron: never asks for a password", false },
	{ 0, "wait", NULL, "return when the server has every change that was made here", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag list_flags[] = {
	{ 0, "json", NULL, "for programs: a line of JSON for each mailbox", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag check_flags[] = {
	{ 0, "local", NULL, "only what is on this machine; no server is asked", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag events_flags[] = {
	{ 'a', "all", NULL, "begin with what has happened since the mount, as far as it is kept", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag pending_flags[] = {
	{ 0, "json", NULL, "for programs: a line of JSON for each operation", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag send_flags[] = {
	{ 't', "to", "ADDRESS", "build a message to it; FILE is its text", true },
	{ 'c', "cc", "ADDRESS", "a copy to it", true },
	{ 'b', "bcc", "ADDRESS", "a copy that the others are not told of", true },
	{ 's', "subject", "TEXT", "its subject", false },
	{ 'a', "attach", "FILE", "attach a file", '\n' },
	{ 0, "draft", NULL, "put it into Drafts, to be finished later; nothing is sent", false },
	{ 'l', "list", NULL, "show what is in the outbox", false },
	{ 0, "retry", "NAME", "send it again: a failed message (failed/NAME), or one that may have been sent", false },
	{ 0, "remove", "NAME", "take it out of the outbox", false },
	{ 0, "sent", "NAME", "it was maybe sent, and has arrived", false },
	{ 0, NULL, NULL, NULL, false },
};
static const struct flag no_flags[] = { { 0, NULL, NULL, NULL, false } };

const struct command commands[] = {
	{ "mount", "[-fd] [-o OPT,...] [SOURCE] MOUNTPOINT", "mount mailboxes as a directory tree",
	  "SOURCE is an account of the config file or a URL, imaps://USER@HOST[:PORT] or imap://USER@HOST[:PORT] (with STARTTLS),\n"
	  "or pop3s:// or pop3://. Without it every account of the config file is a directory of the mount. The command returns when the\n"
	  "mount works; it asks for the password at the terminal if no setting gives one. \"mailfs SOURCE MOUNTPOINT -o OPT,...\" is the same.\n",
	  mount_flags, false, cmd_mount },
	{ "umount", "[-l] MOUNTPOINT...", "unmount, and wait until the process has ended", NULL, umount_flags, false, cmd_umount },
	{ "status", "[--json|--watch] [ACCOUNT...]", "show connections, work under way, mailboxes, cache", NULL, status_flags, false, cmd_status },
	{ "sync", "[--populate] [--once] [--wait] [ACCOUNT] [MAILBOX...|FILE...]", "make what is here what the server has now",
	  "Without a mount it connects, synchronises, sends what waits in the outbox, and disconnects.\n", sync_flags, false, cmd_sync },
	{ "list", "[--json] [ACCOUNT...]", "list mailboxes with their totals and state", NULL, list_flags, false, cmd_list },
	{ "connect", "[ACCOUNT...]", "connect now, or again after a refused password", NULL, no_flags, false, cmd_connect },
	{ "disconnect", "[ACCOUNT...]", "stay offline until connect", NULL, no_flags, false, cmd_disconnect },
	{ "check", "[--local] [ACCOUNT...]", "compare index, cached messages and server", NULL, check_flags, false, cmd_check },
	{ "pending", "[--json] [ACCOUNT...]", "list the changes that the server does not have yet", NULL, pending_flags, false, cmd_pending },
	{ "cancel", "[ACCOUNT] all|NUMBER...", "take changes back that have not been carried out",
	  "What was removed comes back, what was moved returns, what was written is kept in .mailfs/rejected.\n", no_flags, false, cmd_cancel },
	{ "retry", "[ACCOUNT] all|NUMBER...", "try changes again that wait for you", NULL, no_flags, false, cmd_retry },
	{ "flag", "+FLAG|-FLAG... FILE...", "set and clear flags of messages in a mount",
	  "FLAG is seen, answered, flagged, draft, deleted, or a keyword such as $Work. \"mailfs flag +seen INBOX/*.eml\" marks all of them as read;\n"
	  "\"mailfs flag -- -flagged FILE\" takes a flag off: -- stands before the first one with a minus sign.\n", no_flags, false, cmd_flag },
	{ "subscribe", "[ACCOUNT] MAILBOX...", "subscribe to mailboxes", NULL, no_flags, false, cmd_subscribe },
	{ "unsubscribe", "[ACCOUNT] MAILBOX...", "unsubscribe from mailboxes", NULL, no_flags, false, cmd_unsubscribe },
	{ "send", "[-tcb ADDRESS]... [-s SUBJECT] [-a FILE]... [--draft] [FILE]", "send a message, or what waits in the outbox",
	  "FILE, or standard input, is a message: \"To: bob@example.org\", an empty line, text. With --to and its like it is the text of one.\n"
	  "Without either, at a terminal, everything that waits goes out now. A mounted account sends after its send-delay; else it is\n"
	  "sent at once. The account is the one whose address the message is from, else the first that can send.\n", send_flags, false, cmd_send },
	{ "events", "[--all] [ACCOUNT...]", "print what happens as lines of JSON", NULL, events_flags, false, cmd_events },
	{ "help", "[COMMAND]", "explain a command", NULL, no_flags, false, cmd_help },
	{ "complete", "commands|flags COMMAND|accounts|mount-options|mailboxes", "what shells complete with", NULL, no_flags, true, cmd_complete },
	{ 0 },
};

const struct command *command_find(const char *name)
{
	for (const struct command *c = commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static void print_flags(const struct flag *flags)
{
	for (; flags->name; flags++) {
		char left[64];
		int len = flags->letter ? snprintf(left, sizeof left, "-%c, ", flags->letter) : snprintf(left, sizeof left, "    ");
		snprintf(left + len, sizeof left - (size_t)len, "--%s%s%s", flags->name, flags->argument ? " " : "", flags->argument ? flags->argument : "");
		printf("  %-30s %s\n", left, flags->help);
	}
}

void command_help(const struct command *command)
{
	printf("Usage: mailfs %s %s\n%s.\n", command->name, command->synopsis, command->summary);
	if (command->text)
		printf("\n%s", command->text);
	puts("\nOptions:");
	print_flags(command->flags);
	print_flags(global_flags);
	puts("\nmailfs(1) has more.");
}

void command_list(void)
{
	puts("Usage: mailfs COMMAND [OPTION...] [ARGUMENT...]\n       mailfs SOURCE MOUNTPOINT [-o OPT,...]\n\nYour mail as files.\n\nCommands:");
	for (const struct command *c = commands; c->name; c++)
		if (!c->hidden)
			printf("  %-12s %s\n", c->name, c->summary);
	puts("\nOptions:");
	print_flags(global_flags);
	puts("\n\"mailfs help COMMAND\" explains one; mailfs(1) has more.");
}

enum exit_code cli_fail(enum exit_code code, const char *format, ...)
{
	char text[1024], shown[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "mailfs: %s\n", mf_printable(shown, sizeof shown, text, strlen(text)));
	return code;
}

/* --- which command ------------------------------------------------------------------------------------------------- */

static void join_flags(const struct flag *own, struct flag to[static FLAGS_MAX])
{
	size_t count = 0;
	for (; own->name; own++)
		to[count++] = *own;
	for (const struct flag *f = global_flags; f->name && count + 1 < FLAGS_MAX; f++)
		to[count++] = *f;
	to[count] = (struct flag){ 0 };
}

/* What the global flags say, wherever they stood. Returns a failure's code. */
static enum exit_code apply_globals(struct cli *cli, const struct arguments *arguments)
{
	const char *config = arguments_value(arguments, "config"), *account = arguments_value(arguments, "account");
	const char *trace = arguments_value(arguments, "trace"), *unknown;
	if (config)
		cli->config_path = config;
	if (account)
		cli->account = account;
	if (trace && !trace_enable(trace, &unknown))
		return cli_fail(EXIT_USAGE, "--trace: there is no component %s", unknown);
	return EXIT_OK;
}

static void print_version(void)
{
	puts("mailfs " MF_VERSION);
}

/* Output that did not arrive is a failure, but no news to who closed the pipe (head(1)). */
static enum exit_code finish_output(enum exit_code code)
{
	if (!fflush(stdout) && !ferror(stdout))
		return code;
	struct pollfd output = { .fd = STDOUT_FILENO };
	if (poll(&output, 1, 0) > 0 && (output.revents & POLLERR))
		return EXIT_CANCELLED;
	return code ? code : cli_fail(EXIT_LOCAL, "standard output cannot be written");
}

static enum exit_code run_command(struct cli *cli, const struct command *command, int argc, char **argv)
{
	struct flag flags[FLAGS_MAX];
	struct arguments arguments;
	struct mf_reason why = { "" };
	join_flags(command->flags, flags);
	if (arguments_parse(flags, argc, argv, false, &arguments, NULL, &why))
		return cli_fail(EXIT_USAGE, "%s: %s; \"mailfs help %s\" explains it", command->name, why.text, command->name);
	enum exit_code code = apply_globals(cli, &arguments);
	if (!code && arguments_has(&arguments, "help"))
		command_help(command);
	else if (!code && arguments_has(&arguments, "version"))
		print_version();
	else if (!code)
		code = command->run(cli, &arguments);
	arguments_finish(&arguments);
	return code;
}

/* `mount`, without its name: "mailfs SOURCE MOUNTPOINT", "mailfs -f ...", "mount.mailfs SOURCE MOUNTPOINT -o ..." */
static enum exit_code run_bare_mount(struct cli *cli, int argc, char **argv)
{
	return run_command(cli, command_find("mount"), argc, argv);
}

static bool is_any(const char *word, const char *one, const char *other)
{
	return !strcmp(word, one) || !strcmp(word, other);
}

static enum exit_code dispatch(struct cli *cli, int argc, char **argv)
{
	struct arguments leading;
	int used = 1;
	if (argc < 2) {
		command_list();
		return EXIT_USAGE;
	}
	/* flags before a command's name are global ones; others before it can only be those of a bare mount */
	if (arguments_parse(global_flags, argc, argv, true, &leading, &used, NULL))
		return run_bare_mount(cli, argc, argv);
	enum exit_code code = apply_globals(cli, &leading);
	bool help = arguments_has(&leading, "help");
	const struct command *command = used < argc ? command_find(argv[used]) : NULL;
	if (!code && help && !command)
		command_list();
	else if (!code && help)
		command_help(command);
	else if (!code && arguments_has(&leading, "version"))
		print_version();
	else if (!code && command)
		code = run_command(cli, command, argc - used, argv + used);
	else if (!code && argc - used >= 2)
		code = run_bare_mount(cli, argc - used + 1, argv + used - 1);
	else if (!code)
		code = used < argc ? cli_fail(EXIT_USAGE, "there is no command %s; \"mailfs help\" lists them", argv[used])
		                   : cli_fail(EXIT_USAGE, "no command was given; \"mailfs help\" lists them");
	arguments_finish(&leading); /* not earlier: commands use the values that were applied */
	return code;
}

static bool is_helper(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');
	return !strncmp(slash ? slash + 1 : argv0, "mount.", 6);
}

static bool is_sendmail(const char *argv0)
{
	const char *slash = strrchr(argv0, '/'), *name = slash ? slash + 1 : argv0;
	return is_any(name, "mailfs-sendmail", "sendmail");
}

/* The exit codes that mount(8) has for its helpers. */
static int helper_code(enum exit_code code)
{
	return code == EXIT_OK ? 0 : code == EXIT_USAGE ? 1 : code == EXIT_LOCAL || code == EXIT_BACKGROUND ? 2 : 32;
}

int cli_main(int argc, char **argv, const struct cli_parts *parts)
{
	struct cli cli = { .parts = parts };
	const char *trace_names = getenv("MAILFS_TRACE"), *unknown;
	if (trace_names && !trace_enable(trace_names, &unknown))
		return (int)cli_fail(EXIT_USAGE, "MAILFS_TRACE: there is no component %s", unknown);
	cli.helper = argc > 0 && is_helper(argv[0]);
	if (argc > 0 && is_sendmail(argv[0]))
		return cmd_sendmail(&cli, argc, argv);
	return cli.helper ? helper_code(cmd_mount_helper(&cli, argc, argv)) : (int)finish_output(dispatch(&cli, argc, argv));
}

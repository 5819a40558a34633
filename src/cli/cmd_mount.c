/* mount: from a command line to a mount_plan, and into the background with it. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"
#include "fs/mountinfo.h"
#include "cli/targets.h"

struct mounting {
	struct cli *cli;
	struct mount_options options;
	struct targets targets;
	struct account_config **accounts;   /* of targets */
	char *source;
	char *mountpoint;
};

static void mounting_finish(struct mounting *m)
{
	free(m->accounts);
	free(m->source);
	free(m->mountpoint);
	targets_finish(&m->targets);
	mount_options_finish(&m->options);
}

/* --- the mount point ----------------------------------------------------------------------------------------------- */

static enum exit_code find_mountpoint(struct mounting *m, const char *path)
{
	char *resolved = mountinfo_resolve(path);
	struct stat st;
	if (!resolved || (stat(resolved, &st) && errno != ENOTCONN)) {
		int number = errno;
		free(resolved);
		return cli_fail(EXIT_MOUNTPOINT, "%s: %s%s", path, strerror(number), number == ENOENT ? "; make the directory first" : "");
	}
	m->mountpoint = resolved;
	struct statvfs space; /* unlike stat(2) it is not answered from the kernel's memory when the process has died */
	if (statvfs(resolved, &space) || stat(resolved, &st))
		return cli_fail(EXIT_MOUNTPOINT, "%s: the process of an earlier mount has died; \"mailfs umount %s\" clears it", resolved, resolved);
	if (mountinfo_is_mailfs(resolved))
		return cli_fail(EXIT_BUSY, "%s is a mounted mailfs already; \"mailfs umount %s\" ends it", resolved, resolved);
	if (!S_ISDIR(st.st_mode))
		return cli_fail(EXIT_MOUNTPOINT, "%s is not a directory", resolved);
	return EXIT_OK;
}

/* --- the accounts -------------------------------------------------------------------------------------------------- */

static enum exit_code setup_failure(enum mf_err e, const struct mf_reason *why)
{
	const char *text = why->text[0] ? why->text : mf_err_words(e);
	return cli_fail(e == MF_AUTH ? EXIT_AUTH : e == MF_CANCELLED ? EXIT_CANCELLED : EXIT_CONFIG, "%s", text);
}

static enum exit_code prepare_accounts(struct mounting *m)
{
	struct mf_reason why = { "" };
	m->accounts = mf_alloc_array(m->targets.count, sizeof *m->accounts);
	for (size_t i = 0; i < m->targets.count; i++) {
		struct target *target = &m->targets.items[i];
		enum mf_err e = target->config ? mount_options_apply(&m->options, target->config, &why) : MF_OK;
		if (e)
			return cli_fail(EXIT_USAGE, "%s", why.text);
		e = target_check(target, &why);
		if (!e && !m->options.offline)
			e = target_ask_password(target, true, &why);
		if (e)
			return setup_failure(e, &why);
		m->accounts[i] = target->config;
	}
	return EXIT_OK;
}

/* What df shows: the account's name or the URL, as it was given; it holds no password, or it would have been refused. */
static void name_source(struct mounting *m, const char *source)
{
	m->source = mf_strdup(m->options.source ? m->options.source : source ? source : "mailfs");
}

static enum exit_code find_accounts(struct mounting *m, const char *source)
{
	struct mf_reason why = { "" };
	const char *path = m->options.config ? m->options.config : m->cli->config_path;
	enum mf_err e = targets_load(path, &m->targets, &why);
	if (e)
		return cli_fail(EXIT_CONFIG, "%s", why.text[0] ? why.text : mf_err_words(e));
	e = source ? targets_add(&m->targets, source, &why) : targets_add_configured(&m->targets, &why);
	if (e)
		return cli_fail(e == MF_INVALID ? EXIT_USAGE : EXIT_NOT_FOUND, "%s", why.text[0] ? why.text : mf_err_words(e));
	return EXIT_OK;
}

/* --- away ---------------------------------------------------------------------------------------------------------- */

/* Absolute, since the directory will be "/"; and links in it are followed whenever the file is read again. NULL: there is no file. */
static char *config_path(const struct targets *t)
{
	if (!t->config || *t->config_path == '/')
		return t->config ? mf_strdup(t->config_path) : NULL;
	MF_CLEANUP(mf_free) char *here = get_current_dir_name();
	return here ? mf_format("%s/%s", here, t->config_path) : NULL;
}

static enum exit_code serve(struct mounting *m, bool account_is_root)
{
	struct detach detach;
	enum exit_code code = EXIT_OK;
	fflush(stdout);
	bool foreground = m->options.foreground || m->options.debug;
	const char *unknown;
	if (m->options.debug)
		(void)trace_enable("fs", &unknown);
	if (!detach_begin(&detach, foreground, &code))
		return code;
	log_open(foreground ? LOG_TO_STDERR : LOG_TO_SYSLOG, m->options.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	MF_CLEANUP(mf_free) char *path = config_path(&m->targets);
	struct mount_plan plan = {
		.accounts = m->accounts,
		.count = m->targets.count,
		.account_is_root = account_is_root,
		.source = m->source,
		.mountpoint = m->mountpoint,
		.options = &m->options,
		.config_path = path,
	};
	return m->cli->parts->mount_serve(&plan, &detach);
}

static enum exit_code mount_operands(struct mounting *m, const char *source, const char *mountpoint, bool fake)
{
	if (!source)
		source = m->cli->account;
	enum exit_code code = find_accounts(m, source); /* first: a mistyped command is read as one */
	if (!code)
		code = find_mountpoint(m, mountpoint);
	if (!code)
		code = prepare_accounts(m);
	if (!code)
		name_source(m, source);
	return code || fake ? code : serve(m, source != NULL);
}

enum exit_code cmd_mount(struct cli *cli, const struct arguments *arguments)
{
	struct mounting m = { .cli = cli };
	struct mf_reason why = { "" };
	const char *options = arguments_value(arguments, "options");
	if (arguments->operand_count < 1)
		return cli_fail(EXIT_MOUNTPOINT, "mount: where to? \"mailfs help mount\" explains it");
	if (arguments->operand_count > 2)
		return cli_fail(EXIT_USAGE, "mount takes a SOURCE and a MOUNTPOINT, and %s is one too many", arguments->operands[2]);
	mount_options_init(&m.options);
	m.options.foreground = arguments_has(arguments, "foreground");
	m.options.debug = arguments_has(arguments, "debug");
	bool both = arguments->operand_count == 2;
	enum exit_code code;
	if (options && mount_options_parse(&m.options, options, &why))
		code = cli_fail(EXIT_USAGE, "%s", why.text);
	else
		code = mount_operands(&m, both ? arguments->operands[0] : NULL, arguments->operands[both], false);
	mounting_finish(&m);
	return code;
}

/* --- mount(8) ------------------------------------------------------------------------------------------------------- */

static const struct flag helper_flags[] = {
	{ 'o', "options", "OPT[,OPT...]", "", true },
	{ 's', "sloppy", NULL, "", false },
	{ 'f', "fake", NULL, "", false },
	{ 'n', "no-mtab", NULL, "", false },
	{ 'v', "verbose", NULL, "", false },
	{ 't', "types", "TYPE", "", false },
	{ 'N', "namespace", "NS", "", false },
	{ 0, NULL, NULL, NULL, false },
};

/* SOURCE "none" stands for all accounts, since fstab has no empty field. */
static enum exit_code mount_as_helper(struct mounting *m, const struct arguments *arguments)
{
	const char *source = arguments->operands[0], *options = arguments_value(arguments, "options");
	struct mf_reason why = { "" };
	m->options.helper = true;
	m->options.sloppy = arguments_has(arguments, "sloppy");
	if (options && mount_options_parse(&m->options, options, &why))
		return cli_fail(EXIT_USAGE, "%s", why.text);
	return mount_operands(m, strcmp(source, "none") ? source : NULL, arguments->operands[1], arguments_has(arguments, "fake"));
}

enum exit_code cmd_mount_helper(struct cli *cli, int argc, char **argv)
{
	struct mounting m = { .cli = cli };
	struct arguments arguments;
	struct mf_reason why = { "" };
	if (arguments_parse(helper_flags, argc, argv, false, &arguments, NULL, &why))
		return cli_fail(EXIT_USAGE, "%s", why.text);
	mount_options_init(&m.options);
	enum exit_code code;
	if (arguments.operand_count != 2)
		code = cli_fail(EXIT_USAGE, "usage: mount.mailfs SOURCE MOUNTPOINT [-sfnv] [-o OPT,...]");
	else
		code = mount_as_helper(&m, &arguments);
	mounting_finish(&m);
	arguments_finish(&arguments);
	return code;
}

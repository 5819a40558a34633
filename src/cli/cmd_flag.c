/* flag: sets and clears flags of messages in a mount, through the extended attribute that every program can use. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/xattr.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cli/command.h"

#define ATTRIBUTE "user.mail.flags"
#define VALUE_MAX 4096

/* "+seen" as the attribute has it: "+\Seen"; other words are keywords */
static enum mf_err add_word(struct buf *b, const char *word)
{
	static const char *const system[] = { "Seen", "Answered", "Flagged", "Draft", "Deleted" };
	const char *name = word + 1;
	if (*name == '\\')
		name++;
	for (size_t i = 0; i < sizeof system / sizeof *system; i++)
		if (!strcasecmp(name, system[i]))
			return buf_addf(b, "%s%c\\%s", b->len ? " " : "", *word, system[i]);
	return buf_addf(b, "%s%s", b->len ? " " : "", word);
}

/* Any file can be given that attribute on other file systems: only a message has this one by itself. */
static bool is_message(const char *path)
{
	char state[8];
	return getxattr(path, "user.mail.state", state, sizeof state) >= 0 || errno == ERANGE || errno == ENOENT;
}

static enum exit_code set_one(const char *path, const struct buf *value)
{
	if (!is_message(path))
		return cli_fail(EXIT_NOT_FOUND, "flag: %s is not a message in a mailfs mount", path);
	if (setxattr(path, ATTRIBUTE, value->data, value->len, 0) == 0)
		return EXIT_OK;
	switch (errno) {
	case ENOTSUP:
	case EPERM:
		return cli_fail(EXIT_NOT_FOUND, "flag: %s is not a message in a mailfs mount", path);
	case EINVAL:
		return cli_fail(EXIT_USAGE, "flag: %s: that is no flag that a server knows: %s", path, value->data);
	default:
		return cli_fail(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_LOCAL, "flag: %s: %s", path, strerror(errno));
	}
}

enum exit_code cmd_flag(struct cli *cli, const struct arguments *arguments)
{
	(void)cli;
	struct buf value;
	buf_init(&value, VALUE_MAX);
	size_t at = 0;
	enum mf_err e = MF_OK;
	for (; at < arguments->operand_count && !e && strchr("+-", arguments->operands[at][0]) && arguments->operands[at][1]; at++)
		e = add_word(&value, arguments->operands[at]);
	enum exit_code code = EXIT_OK;
	if (e || !value.len || at == arguments->operand_count)
		code = cli_fail(EXIT_USAGE, "flag: say which flags and which files: mailfs flag +seen FILE...");
	/* one that is none does not keep the others from it; a flag that is none is so for all of them */
	for (; code != EXIT_USAGE && at < arguments->operand_count; at++) {
		enum exit_code one = set_one(arguments->operands[at], &value);
		if (!code || one == EXIT_USAGE)
			code = one;
	}
	buf_finish(&value);
	return code;
}

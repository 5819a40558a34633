/* send: a message given or built, or a draft; or the outbox. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/ask.h"
#include "cli/letter.h"
#include "cli/outgoing.h"

static enum exit_code settle(struct cli *cli, const struct arguments *arguments)
{
	static const char *const options[] = { "retry", "remove", "sent" };
	for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
		const char *name = arguments_value(arguments, options[i]);
		if (!name)
			continue;
		MF_CLEANUP(mf_free) char *flag = mf_format("--%s", options[i]);
		return outgoing_settle(cli, flag, name);
	}
	return outgoing_ask(cli, "outbox", ASK_OFFLINE);
}

/* --- a message ----------------------------------------------------------------------------------------------------- */

/* Standard input or the file, as a file that can be read anywhere. */
static enum mf_err open_message(const struct arguments *arguments, const struct letter *letter, bool built, int *ret, struct mf_reason *why)
{
	const char *path = arguments->operands[0];
	bool input = !path || !strcmp(path, "-");
	MF_CLEANUP(mf_close) int from = input ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", input ? "standard input" : path, strerror(errno));
	MF_CLEANUP(mf_close) int to = letter_temporary();
	if (to < 0)
		return mf_fail(why, MF_IO, "no temporary file: %s", strerror(errno));
	enum mf_err e = built ? letter_build(letter, from, to, why) : letter_copy(from, to, false, why);
	if (e)
		return e;
	struct stat st;
	if (input && !built && !arguments_has(arguments, "draft") && fstat(to, &st) == 0 && st.st_size == 0)
		return mf_fail(why, MF_INVALID, "standard input is empty: no message. What waits is sent by mailfs-sendmail -q, or mailfs send at a terminal");
	*ret = to;
	to = -1;
	return MF_OK;
}

static enum exit_code send_message(struct cli *cli, const struct arguments *arguments, const struct letter *letter, bool built)
{
	struct mf_reason why = { "" };
	MF_CLEANUP(mf_close) int message = -1;
	bool draft = arguments_has(arguments, "draft");
	struct targets targets;
	struct outgoing outgoing;
	enum mf_err e = open_message(arguments, letter, built, &message, &why);
	if (e)
		return cli_fail(exit_code_of_local(e), "%s", why.text[0] ? why.text : mf_err_words(e));
	MF_CLEANUP(mf_free) char *author = letter_author(message);
	enum exit_code code = outgoing_choose(cli, author, draft, &targets);
	if (code)
		return code;
	code = outgoing_send(cli, &targets, draft ? NULL : &(struct outbox_put){ 0 }, message, true, true, &outgoing);
	targets_finish(&targets);
	return code;
}

enum exit_code cmd_send(struct cli *cli, const struct arguments *arguments)
{
	struct letter letter = {
		.to = arguments_value(arguments, "to"), .cc = arguments_value(arguments, "cc"), .bcc = arguments_value(arguments, "bcc"),
		.subject = arguments_value(arguments, "subject"), .attach = arguments_value(arguments, "attach"),
	};
	bool built = letter.to || letter.cc || letter.bcc || letter.subject || letter.attach;
	bool settles = arguments_has(arguments, "list") || arguments_has(arguments, "retry") || arguments_has(arguments, "remove") || arguments_has(arguments, "sent");
	if (arguments->operand_count > 1)
		return cli_fail(EXIT_USAGE, "send takes one FILE, and %s is one too many", arguments->operands[1]);
	if (settles)
		return settle(cli, arguments);
	if (!built && !arguments_has(arguments, "draft") && !arguments->operand_count && isatty(STDIN_FILENO))
		return outgoing_ask(cli, "send", ASK_CONNECT);
	return send_message(cli, arguments, &letter, built);
}

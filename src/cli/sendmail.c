/* mailfs-sendmail: what programs expect of /usr/sbin/sendmail, on the accounts' outboxes. */
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/ask.h"
#include "cli/letter.h"
#include "cli/outgoing.h"

struct sendmail {
	struct cli *cli;
	char **recipients;           /* NULL-terminated; of argv */
	size_t count;
	const char *sender, *name;   /* as in struct outbox_put */
	unsigned notify;
	bool from_fields, dot_is_text, flush, list;
};

static int fail(int code, const char *what, const char *word)
{
	(void)cli_fail(EXIT_USAGE, "%s%s", what, word);
	return code;
}

/* --- arguments ----------------------------------------------------------------------------------------------------- */

/* -bX: the way it is to run */
static int take_mode(struct sendmail *s, char mode)
{
	if (mode == 'p')
		s->list = true;
	else if (mode != 'm' && mode != 'd' && mode != 0)
		return fail(EX_USAGE, "not something that mailfs-sendmail does: -b", (char[]){ mode, 0 });
	return 0;
}

static int take_notify(struct sendmail *s, const char *value)
{
	unsigned asked;
	if (!dsn_read(value, &asked) || asked & DSN_RETURN)
		return fail(EX_USAGE, "-N takes never, success, failure, delay, and not ", value);
	s->notify = asked | (s->notify & DSN_RETURN);
	return 0;
}

static int take_value(struct sendmail *s, char letter, const char *value)
{
	switch (letter) {
	case 'f':
	case 'r':
		s->sender = strcmp(value, "<>") ? value : "";
		return 0;
	case 'F':
		s->name = value;
		return 0;
	case 'N':
		return take_notify(s, value);
	case 'R':
		s->notify &= ~(unsigned)DSN_RETURN;
		s->notify |= !strcasecmp(value, "full") ? DSN_FULL : !strcasecmp(value, "hdrs") ? DSN_HEADERS : 0;
		return s->notify & DSN_RETURN ? 0 : fail(EX_USAGE, "-R takes full or hdrs, and not ", value);
	case 'o':
		s->dot_is_text |= !strcmp(value, "i");
		return 0;
	default:
		return 0; /* what sendmail(8) has, and means nothing here */
	}
}

/* One word that begins with '-'. *next: the argument behind it. */
static int take_option(struct sendmail *s, const char *word, int argc, char **argv, int *next)
{
	for (const char *p = word + 1; *p; p++) {
		if (*p == 'b')
			return take_mode(s, p[1]);
		if (strchr("fFrNoBhLpCXARVOqde", *p)) { /* those that have a value; of -o and its like it follows at once or is missing */
			bool needs = !strchr("oqde", *p);
			if (*p == 'q')
				s->flush = true;
			if (needs && !p[1] && *next >= argc)
				return fail(EX_USAGE, "a value is missing behind ", word);
			return take_value(s, *p, p[1] ? p + 1 : needs ? argv[(*next)++] : "");
		}
		if (*p == 't')
			s->from_fields = true;
		else if (*p == 'i')
			s->dot_is_text = true;
		else if (!strchr("vnmGU", *p))
			return fail(EX_USAGE, "unknown option ", word);
	}
	return 0;
}

/* --account NAME, --config FILE: mailfs's own */
static int take_long(struct sendmail *s, const char *word, int argc, char **argv, int *next)
{
	static const char *const names[] = { "--account", "--config" };
	for (size_t i = 0; i < 2; i++) {
		size_t len = strlen(names[i]);
		if (strncmp(word, names[i], len) || (word[len] && word[len] != '='))
			continue;
		if (!word[len] && *next >= argc)
			break;
		const char *value = word[len] ? word + len + 1 : argv[(*next)++];
		*(i ? &s->cli->config_path : &s->cli->account) = value;
		return 0;
	}
	return fail(EX_USAGE, "unknown option, or its value is missing: ", word);
}

static int read_arguments(struct sendmail *s, int argc, char **argv)
{
	bool ended = false;
	for (int next = 1; next < argc;) {
		char *word = argv[next++];
		int code = 0;
		if (ended || word[0] != '-' || !word[1])
			s->recipients[s->count++] = word;
		else if (!strcmp(word, "--"))
			ended = true;
		else
			code = word[1] == '-' ? take_long(s, word, argc, argv, &next) : take_option(s, word, argc, argv, &next);
		if (code)
			return code;
	}
	return 0;
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

static int code_of(enum exit_code code)
{
	switch (code) {
	case EXIT_OK:
		return EX_OK;
	case EXIT_USAGE:
		return EX_DATAERR;
	case EXIT_CONFIG:
	case EXIT_NOT_FOUND:
		return EX_CONFIG;
	case EXIT_LOCAL:
		return EX_IOERR;
	case EXIT_AUTH:
		return EX_NOPERM;
	case EXIT_PROTOCOL:
		return EX_UNAVAILABLE;
	case EXIT_MOUNTPOINT:
	case EXIT_MOUNT:
	case EXIT_BACKGROUND:
	case EXIT_OFFLINE:
	case EXIT_TIMEOUT:
	case EXIT_TLS:
	case EXIT_BUSY:
	case EXIT_PARTIAL:
	case EXIT_CANCELLED:
		return EX_TEMPFAIL;
	}
	return EX_SOFTWARE;
}

static int send_message(struct sendmail *s)
{
	struct mf_reason why = { "" };
	struct targets targets;
	struct outgoing outgoing;
	MF_CLEANUP(mf_close) int message = letter_temporary();
	if (message < 0)
		return fail(EX_TEMPFAIL, "no temporary file: ", strerror(errno));
	if (letter_copy(STDIN_FILENO, message, !s->dot_is_text, &why))
		return fail(EX_IOERR, "", why.text);
	MF_CLEANUP(mf_free) char *author = s->sender && *s->sender ? compose_first_address(s->sender) : letter_author(message);
	enum exit_code code = outgoing_choose(s->cli, author, false, &targets);
	if (code)
		return code_of(code);
	/* what cron and its like write to and from: whoever has no address is the account's owner */
	const struct passwd *me = getpwuid(getuid());
	const char *const locals[] = { "root", "postmaster", me ? me->pw_name : NULL, NULL };
	struct outbox_put put = {
		.recipients = s->count ? (const char *const *)s->recipients : NULL, .fields_too = s->from_fields,
		.locals = locals, .sender = s->sender, .from_name = s->name, .notify = s->notify,
	};
	code = outgoing_send(s->cli, &targets, &put, message, false, false, &outgoing);
	targets_finish(&targets);
	/* what is in the outbox is taken charge of, and must not be handed in once more; why it stays there has been said */
	return outgoing.kept ? outgoing.failed ? EX_UNAVAILABLE : EX_OK : code_of(code);
}

int cmd_sendmail(struct cli *cli, int argc, char **argv)
{
	struct sendmail s = { .cli = cli, .recipients = mf_alloc_array((size_t)argc + 1, sizeof(char *)) };
	int code = read_arguments(&s, argc, argv);
	if (!code && s.list)
		code = code_of(outgoing_ask(cli, "outbox", ASK_OFFLINE));
	else if (!code && !s.count && !s.from_fields && s.flush)
		code = code_of(outgoing_ask(cli, "send", ASK_CONNECT));
	else if (!code && !s.count && !s.from_fields)
		code = fail(EX_USAGE, "no recipient: ", "name one, or say -t");
	else if (!code)
		code = send_message(&s);
	free(s.recipients);
	return code;
}

/* sync FILE...: through the mount that the files and mailboxes are in; with --wait it says what each file waits for. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/outgoing.h"
#include "cli/sync_files.h"
#include "control/json.h"

#define STATE "user.mail.state"
#define STATE_MAX 1024
#define STATUS_MAX (64U << 20)

static bool has_attribute(const char *path, const char *name)
{
	char value[8];
	return getxattr(path, name, value, sizeof value) >= 0 || errno == ERANGE;
}

/* "INBOX" is a name wherever one stands; ".", "~/Mail/INBOX" and "~/Mail" are places. */
static bool is_folder(const char *operand)
{
	if (*operand != '.' && *operand != '/')
		return false;
	MF_CLEANUP(mf_free) char *control = mf_format("%s/.mailfs/status.json", operand);
	return has_attribute(operand, "user.mail.complete") || access(control, R_OK) == 0;
}

/* "~/Mail/outbox" of "~/Mail/outbox/letter.eml", which is not there (any more); NULL: it is there, or was never meant to be sent */
static char *outbox_it_left(const char *operand)
{
	const char *name = strrchr(operand, '/');
	char whole[PATH_MAX];
	if (!access(operand, F_OK) || errno != ENOENT)
		return NULL;
	MF_CLEANUP(mf_free) char *folder = name ? mf_strndup(operand, (size_t)(name - operand)) : mf_strdup(".");
	MF_CLEANUP(mf_free) char *control = mf_format("%s/../.mailfs/status.json", folder);
	bool outbox = realpath(folder, whole) && strcmp(strrchr(whole, '/'), "/outbox") == 0 && !access(control, R_OK);
	return outbox ? mf_strdup(whole) : NULL;
}

bool sync_is_file(const char *operand)
{
	MF_CLEANUP(mf_free) char *outbox = outbox_it_left(operand);
	return outbox || has_attribute(operand, STATE) || is_folder(operand);
}

/* The account of a folder that has a .mailfs; NULL: it has none, or several accounts */
static char *account_of(const char *folder)
{
	struct buf text;
	MF_CLEANUP(mf_free) char *path = mf_format("%s/.mailfs/status.json", folder);
	FILE *file = fopen(path, "re");
	if (!file)
		return NULL;
	char part[4096];
	size_t len;
	buf_init(&text, STATUS_MAX);
	while ((len = fread(part, 1, sizeof part, file)) > 0 && buf_add(&text, part, len) == MF_OK)
		;
	fclose(file);
	struct json_object *o = text.len ? json_parse_line(text.data) : NULL, *list = NULL;
	bool one = o && json_object_object_get_ex(o, "accounts", &list) && json_object_is_type(list, json_type_array) && json_object_array_length(list) == 1;
	const char *name = one ? json_get_string(json_object_array_get_idx(list, 0), "account") : NULL;
	char *account = name ? mf_strdup(name) : NULL;
	json_object_put(o);
	buf_finish(&text);
	return account;
}

/* "INBOX/x.eml" in the account's tree becomes the mailbox "INBOX" of it, and so does "INBOX". */
static bool place_of(const char *file, char **ret_account, char **ret_mailbox)
{
	char whole[PATH_MAX];
	if (!realpath(file, whole))
		return false;
	if (!is_folder(file))
		*strrchr(whole, '/') = 0;
	MF_CLEANUP(mf_free) char *folder = mf_strdup(whole);
	for (; *whole; *strrchr(whole, '/') = 0) {
		*ret_account = account_of(whole);
		if (*ret_account) {
			size_t len = strlen(whole);
			*ret_mailbox = mf_strdup(folder[len] ? folder + len + 1 : "");
			return true;
		}
	}
	return false;
}

static enum exit_code tell_file(const char *file)
{
	char state[STATE_MAX + 1];
	ssize_t len = getxattr(file, STATE, state, STATE_MAX);
	if (len < 0)
		return cli_fail(EXIT_NOT_FOUND, "sync: %s: %s", file, strerror(errno));
	state[len] = 0;
	if (strcmp(state, "synchronised") == 0)
		return EXIT_OK;
	return cli_fail(EXIT_PROTOCOL, "sync: %s is not at the server: %s", file, state);
}

/* A message in outbox/, or outbox/failed/, which is in no mailbox */
static bool is_outgoing(const char *file, const char *folder)
{
	return (strcmp(folder, "outbox") == 0 || strcmp(folder, "outbox/failed") == 0) && !has_attribute(file, "user.mail.flags");
}

/* It goes by itself: whoever asks for it now need only wait. */
static bool is_on_its_way(const char *file)
{
	static const enum outbox_state states[] = { OUTBOX_WAITING, OUTBOX_QUEUED, OUTBOX_SENDING };
	char state[STATE_MAX + 1];
	ssize_t len = getxattr(file, STATE, state, STATE_MAX);
	state[len < 0 ? 0 : len] = 0;
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		if (strncmp(state, outbox_state_word(states[i]), strlen(outbox_state_word(states[i]))) == 0)
			return true;
	return false;
}

static enum exit_code sync_outgoing(const struct cli *cli, char *account, const char *file, bool wait)
{
	char whole[PATH_MAX];
	struct cli own = *cli;
	own.account = account;
	if (wait && is_on_its_way(file) && realpath(file, whole))
		return outgoing_settle(&own, "--wait", strrchr(whole, '/') + 1);
	return tell_file(file);
}

/* It was sent, or taken out of the outbox: who holds that knows. */
static enum exit_code sync_gone(const struct cli *cli, const struct arguments *arguments, const char *file, const char *outbox)
{
	MF_CLEANUP(mf_free) char *account = NULL, *folder = NULL;
	struct cli own = *cli;
	if (!arguments_has(arguments, "wait") || !place_of(outbox, &account, &folder))
		return cli_fail(EXIT_NOT_FOUND, "sync: %s: %s", file, strerror(ENOENT));
	own.account = account;
	const char *slash = strrchr(file, '/');
	return outgoing_settle(&own, "--wait", slash ? slash + 1 : file);
}

enum exit_code sync_files(struct cli *cli, const struct arguments *arguments, sync_mailboxes *run)
{
	enum exit_code code = EXIT_OK;
	MF_CLEANUP(mf_free) char *last = NULL;
	for (size_t i = 0; i < arguments->operand_count; i++) {
		char *file = arguments->operands[i];
		MF_CLEANUP(mf_free) char *account = NULL, *mailbox = NULL, *outbox = outbox_it_left(file);
		if (outbox) {
			enum exit_code left = sync_gone(cli, arguments, file, outbox);
			code = code ? code : left;
			continue;
		}
		if (!sync_is_file(file) || !place_of(file, &account, &mailbox))
			return cli_fail(EXIT_NOT_FOUND, "sync: %s is not in a mailfs mount", file);
		MF_CLEANUP(mf_free) char *place = mf_format("%s/%s", account, mailbox);
		enum exit_code one = EXIT_OK;
		bool outgoing = is_outgoing(file, mailbox), wait = arguments_has(arguments, "wait");
		if (outgoing) {
			one = sync_outgoing(cli, account, file, wait);
		} else if (!last || strcmp(last, place) != 0) { /* many are of one mailbox */
			struct cli own = *cli;
			struct arguments there = *arguments;
			char *operands[] = { *mailbox ? mailbox : NULL, NULL };
			own.account = account;
			there.operands = operands;
			there.operand_count = *mailbox ? 1 : 0; /* of an account's own folder all are meant */
			one = run(&own, &there);
			free(last);
			last = mf_strdup(place);
		}
		if (one == EXIT_CANCELLED)
			return one;
		/* with --wait it is the file that counts: other changes may wait for a person */
		if (wait && !outgoing && !is_folder(file))
			one = one == EXIT_OK || one == EXIT_PROTOCOL ? tell_file(file) : one;
		code = code ? code : one;
	}
	return code;
}

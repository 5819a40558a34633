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

/* "~/Mail/outbox" of "~/Mail/outbox/letter.eml", which is there or not (any more); NULL: that is no outbox of a mount. In failed/ it is
 * "~/Mail/outbox/failed". */
static char *outbox_of(const char *operand)
{
	static const char *const ends[] = { "/outbox", "/outbox/failed" };
	const char *name = strrchr(operand, '/');
	char whole[PATH_MAX];
	MF_CLEANUP(mf_free) char *folder = name ? mf_strndup(operand, (size_t)(name - operand)) : mf_strdup(".");
	if (!realpath(folder, whole))
		return NULL;
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
		size_t len = strlen(whole), end = strlen(ends[i]);
		MF_CLEANUP(mf_free) char *control = mf_format("%.*s/.mailfs/status.json", (int)(len > end ? len - end : 0), whole);
		if (len > end && strcmp(whole + len - end, ends[i]) == 0 && access(control, R_OK) == 0)
			return mf_strdup(whole);
	}
	return NULL;
}

bool sync_is_file(const char *operand)
{
	MF_CLEANUP(mf_free) char *outbox = outbox_of(operand);
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

static enum exit_code tell_state(const char *file, const char *state)
{
	return strcmp(state, "synchronised") == 0 ? EXIT_OK : cli_fail(EXIT_PROTOCOL, "sync: %s is not at the server: %s", file, state);
}

static enum exit_code tell_file(const char *file)
{
	char state[STATE_MAX + 1];
	ssize_t len = getxattr(file, STATE, state, STATE_MAX);
	if (len < 0)
		return cli_fail(EXIT_NOT_FOUND, "sync: %s: %s", file, strerror(errno));
	state[len] = 0;
	return tell_state(file, state);
}

/* It goes by itself: whoever asks for it now need only wait. */
static bool is_on_its_way(const char *state)
{
	static const enum outbox_state states[] = { OUTBOX_WAITING, OUTBOX_QUEUED, OUTBOX_SENDING };
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		if (strncmp(state, outbox_state_word(states[i]), strlen(outbox_state_word(states[i]))) == 0)
			return true;
	return false;
}

/* A message in outbox/, or outbox/failed/, which is in no mailbox. It may leave at any time: it is looked at once, and where it is not
 * there, who holds the outbox knows whether it was sent. */
static enum exit_code sync_outgoing(const struct cli *cli, const char *file, const char *outbox, bool wait)
{
	char state[STATE_MAX + 1];
	const char *slash = strrchr(file, '/');
	MF_CLEANUP(mf_free) char *account = NULL, *folder = NULL;
	struct cli own = *cli;
	ssize_t len = getxattr(file, STATE, state, STATE_MAX);
	bool gone = len < 0 && errno == ENOENT;
	if (len < 0 && !(gone && wait))
		return cli_fail(EXIT_NOT_FOUND, "sync: %s: %s", file, strerror(errno));
	state[gone ? 0 : len] = 0;
	if (!wait || (!gone && !is_on_its_way(state)))
		return tell_state(file, state);
	if (!place_of(outbox, &account, &folder))
		return cli_fail(EXIT_NOT_FOUND, "sync: %s is not in a mailfs mount", file);
	own.account = account;
	return outgoing_settle(&own, "--wait", slash ? slash + 1 : file);
}

static enum exit_code sync_place(const struct cli *cli, const struct arguments *arguments, char *account, char *mailbox, sync_mailboxes *run)
{
	struct cli own = *cli;
	struct arguments there = *arguments;
	char *operands[] = { *mailbox ? mailbox : NULL, NULL };
	own.account = account;
	there.operands = operands;
	there.operand_count = *mailbox ? 1 : 0; /* of an account's own folder all are meant */
	return run(&own, &there);
}

/* *last: the mailbox that was synchronised last: many are of one */
static enum exit_code sync_file(const struct cli *cli, const struct arguments *arguments, const char *file, sync_mailboxes *run, char **last)
{
	MF_CLEANUP(mf_free) char *account = NULL, *mailbox = NULL, *outbox = outbox_of(file);
	bool wait = arguments_has(arguments, "wait");
	if (outbox && !has_attribute(file, "user.mail.flags"))
		return sync_outgoing(cli, file, outbox, wait);
	if (!sync_is_file(file) || !place_of(file, &account, &mailbox))
		return cli_fail(EXIT_NOT_FOUND, "sync: %s is not in a mailfs mount", file);
	enum exit_code code = EXIT_OK;
	char *place = mf_format("%s/%s", account, mailbox);
	if (!*last || strcmp(*last, place) != 0)
		code = sync_place(cli, arguments, account, mailbox, run);
	free(*last);
	*last = place;
	/* with --wait it is the file that counts: other changes may wait for a person */
	bool counts = wait && !is_folder(file) && (code == EXIT_OK || code == EXIT_PROTOCOL);
	return counts ? tell_file(file) : code;
}

enum exit_code sync_files(struct cli *cli, const struct arguments *arguments, sync_mailboxes *run)
{
	enum exit_code code = EXIT_OK;
	MF_CLEANUP(mf_free) char *last = NULL;
	for (size_t i = 0; i < arguments->operand_count && code != EXIT_CANCELLED; i++) {
		enum exit_code one = sync_file(cli, arguments, arguments->operands[i], run, &last);
		code = code && one != EXIT_CANCELLED ? code : one;
	}
	return code;
}

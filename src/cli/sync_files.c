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
#define TOGETHER 100   /* names in one request */

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

bool sync_is_file(const char *operand)
{
	return has_attribute(operand, STATE) || is_folder(operand);
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

/* Where a file is, as long as it is there */
struct place {
	char *account, *mailbox;
	bool outgoing;
	char *waited;    /* its name, if it is on its way out of outbox/, and is waited for; NULL: not (any more) */
};

static void places_free(struct place *places, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(places[i].account);
		free(places[i].mailbox);
		free(places[i].waited);
	}
	free(places);
}

static enum exit_code find_places(const struct arguments *arguments, struct place *places)
{
	char whole[PATH_MAX];
	for (size_t i = 0; i < arguments->operand_count; i++) {
		const char *file = arguments->operands[i];
		struct place *p = &places[i];
		if (!sync_is_file(file) || !place_of(file, &p->account, &p->mailbox))
			return cli_fail(EXIT_NOT_FOUND, "sync: %s is not in a mailfs mount", file);
		p->outgoing = is_outgoing(file, p->mailbox);
		if (p->outgoing && arguments_has(arguments, "wait") && is_on_its_way(file) && realpath(file, whole))
			p->waited = mf_strdup(strrchr(whole, '/') + 1);
	}
	return EXIT_OK;
}

/* The first of them and others of its account, as many as one request holds */
static enum exit_code wait_for_some(const struct cli *cli, struct place *places, size_t count)
{
	char *names[TOGETHER + 1] = { NULL };
	size_t n = 0;
	struct cli own = *cli;
	own.account = places[0].account;
	for (size_t i = 0; i < count && n < TOGETHER; i++) {
		if (!places[i].waited || strcmp(places[i].account, own.account) != 0)
			continue;
		names[n++] = places[i].waited;
		places[i].waited = NULL;
	}
	enum exit_code code = outgoing_settle(&own, "--wait", names);
	while (n)
		free(names[--n]);
	return code;
}

/* Together, and before anything else: while the first one is waited for, the last one may be sent, and not be there any more. */
static enum exit_code wait_for_outgoing(const struct cli *cli, struct place *places, size_t count)
{
	enum exit_code code = EXIT_OK;
	for (size_t i = 0; i < count && code != EXIT_CANCELLED; i++) {
		enum exit_code one = places[i].waited ? wait_for_some(cli, places + i, count - i) : EXIT_OK;
		code = code && one != EXIT_CANCELLED ? code : one;
	}
	return code;
}

static enum exit_code sync_place(const struct cli *cli, const struct arguments *arguments, const struct place *p, sync_mailboxes *run)
{
	struct cli own = *cli;
	struct arguments there = *arguments;
	char *operands[] = { *p->mailbox ? p->mailbox : NULL, NULL };
	own.account = p->account;
	there.operands = operands;
	there.operand_count = *p->mailbox ? 1 : 0; /* of an account's own folder all are meant */
	return run(&own, &there);
}

static bool is_same_place(const struct place *a, const struct place *b)
{
	return a && strcmp(a->account, b->account) == 0 && strcmp(a->mailbox, b->mailbox) == 0;
}

static enum exit_code sync_places(struct cli *cli, const struct arguments *arguments, const struct place *places, const bool *is_over, sync_mailboxes *run)
{
	enum exit_code code = EXIT_OK;
	const struct place *last = NULL;
	for (size_t i = 0; i < arguments->operand_count; i++) {
		const char *file = arguments->operands[i];
		const struct place *p = &places[i];
		enum exit_code one = EXIT_OK;
		if (p->outgoing) {
			one = is_over[i] ? EXIT_OK : tell_file(file);
		} else if (!is_same_place(last, p)) { /* many are of one mailbox */
			one = sync_place(cli, arguments, p, run);
			last = p;
		}
		if (one == EXIT_CANCELLED)
			return one;
		/* with --wait it is the file that counts: other changes may wait for a person */
		if (arguments_has(arguments, "wait") && !p->outgoing && !is_folder(file))
			one = one == EXIT_OK || one == EXIT_PROTOCOL ? tell_file(file) : one;
		code = code ? code : one;
	}
	return code;
}

enum exit_code sync_files(struct cli *cli, const struct arguments *arguments, sync_mailboxes *run)
{
	size_t count = arguments->operand_count;
	struct place *places = mf_alloc_array(count + 1, sizeof *places);
	MF_CLEANUP(mf_free) bool *is_over = mf_alloc_array(count + 1, sizeof *is_over);
	enum exit_code code = find_places(arguments, places);
	for (size_t i = 0; i < count; i++)
		is_over[i] = places[i].waited != NULL;
	enum exit_code sent = code ? EXIT_OK : wait_for_outgoing(cli, places, count);
	if (!code && sent != EXIT_CANCELLED)
		code = sync_places(cli, arguments, places, is_over, run);
	places_free(places, count);
	return code ? code : sent;
}

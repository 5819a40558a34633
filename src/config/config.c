/* the config file: sections to accounts; and the checks that go over several keys */
#include "config/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "config/ini.h"
#include "config/value.h"

#define FILE_MAX (1U << 20)
#define ACCOUNT_NAME_MAX 64 /* it is part of a socket's path, which has 107 bytes */

/* --- names of accounts --- */

static bool is_verb(const char *name)
{
	static const char *const verbs[] = {
		"mount", "umount", "status", "sync", "list", "connect", "disconnect", "check", "events", "pending", "cancel",
		"retry", "flag", "subscribe", "unsubscribe", "send", "search", "setup", "forget", "help", "complete",
	};
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		if (strcmp(name, verbs[i]) == 0)
			return true;
	return false;
}

static enum mf_err check_account_name(const char *name, struct mf_reason *why)
{
	if (!*name)
		return mf_fail(why, MF_INVALID, "the account has no name: [account NAME]");
	if (*name == '.' || *name == '-' || strpbrk(name, "/ \t"))
		return mf_fail(why, MF_INVALID, "an account's name has no '/' or white space and does not begin with '.' or '-'");
	if (strlen(name) > ACCOUNT_NAME_MAX)
		return mf_fail(why, MF_INVALID, "the account's name is longer than %d bytes", ACCOUNT_NAME_MAX);
	if (is_verb(name))
		return mf_fail(why, MF_INVALID, "an account cannot be called %s: that is a command", name);
	return MF_OK;
}

/* --- reading ---
 *
 * The file is gone over twice: for the accounts, then for the mailboxes, so that a [mailbox] may stand before its account. */

struct reading {
	struct config *config;
	bool mailboxes;                  /* the second time */
	struct account_config *account;  /* of the section, NULL: it is of the other kind */
	struct mailbox_config *mailbox;
	bool in_section;
	char seen[40][32];               /* the section's keys so far */
	size_t seen_count;
};

static struct account_config *add_account(struct config *config, const char *name)
{
	config->accounts = mf_realloc_array(config->accounts, config->account_count + 1, sizeof *config->accounts);
	struct account_config *account = account_config_create(name);
	config->accounts[config->account_count++] = account;
	return account;
}

static enum mf_err begin_account(struct reading *r, const char *name, struct mf_reason *why)
{
	if (r->mailboxes)
		return MF_OK;
	enum mf_err e = check_account_name(name, why);
	if (e)
		return e;
	if (config_find(r->config, name))
		return mf_fail(why, MF_INVALID, "a second [account %s]", name);
	r->account = add_account(r->config, name);
	return MF_OK;
}

static bool has_mailbox(const struct account_config *account, const char *name)
{
	for (size_t i = 0; i < account->mailbox_count; i++)
		if (strcmp(account->mailboxes[i].name, name) == 0)
			return true;
	return false;
}

static enum mf_err begin_mailbox(struct reading *r, const char *path, struct mf_reason *why)
{
	if (!r->mailboxes)
		return MF_OK;
	const char *slash = strchr(path, '/');
	if (!slash || slash == path || !slash[1] || slash[strlen(slash) - 1] == '/')
		return mf_fail(why, MF_INVALID, "a mailbox's section is [mailbox ACCOUNT/NAME]");
	MF_CLEANUP(mf_free) char *name = mf_strndup(path, (size_t)(slash - path));
	char shown[64];
	struct account_config *account = config_find(r->config, name);
	if (!account)
		return mf_fail(why, MF_INVALID, "there is no [account %s]", mf_printable(shown, sizeof shown, name, strlen(name)));
	if (has_mailbox(account, slash + 1))
		return mf_fail(why, MF_INVALID, "a second section for this mailbox");
	account->mailboxes = mf_realloc_array(account->mailboxes, account->mailbox_count + 1, sizeof *account->mailboxes);
	r->mailbox = &account->mailboxes[account->mailbox_count++];
	*r->mailbox = (struct mailbox_config) { .name = mf_strdup(slash + 1) };
	return MF_OK;
}

/* What stands behind the section's first word, or NULL where that is another one */
static const char *behind_word(const char *section, const char *word)
{
	size_t len = strlen(word);
	if (strncmp(section, word, len) != 0 || (section[len] && section[len] != ' ' && section[len] != '\t'))
		return NULL;
	return section + len + strspn(section + len, " \t");
}

static enum mf_err begin_section(struct reading *r, const char *section, struct mf_reason *why)
{
	static const char *const kinds[] = { "account", "mailbox" };
	r->account = NULL;
	r->mailbox = NULL;
	r->in_section = true;
	r->seen_count = 0;
	const char *name = behind_word(section, "account");
	if (name)
		return begin_account(r, name, why);
	name = behind_word(section, "mailbox");
	if (name)
		return begin_mailbox(r, name, why);
	char shown[64];
	MF_CLEANUP(mf_free) char *word = mf_strndup(section, strcspn(section, " \t"));
	return mf_fail(why, MF_INVALID, "unknown section \"%s\"; the nearest is \"[%s ...]\"",
	               mf_printable(shown, sizeof shown, section, strlen(section)), value_nearest(word, kinds, 2));
}

/* Each key once in a section. Only known ones come here, and they are short. */
static enum mf_err remember_key(struct reading *r, const char *key, struct mf_reason *why)
{
	for (size_t i = 0; i < r->seen_count; i++)
		if (strcmp(r->seen[i], key) == 0)
			return mf_fail(why, MF_INVALID, "%s is set a second time", key);
	if (r->seen_count < sizeof r->seen / sizeof *r->seen)
		snprintf(r->seen[r->seen_count++], sizeof *r->seen, "%s", key);
	return MF_OK;
}

/* A mailbox's keys are keys of an account, and mean the same */
static enum mf_err set_mailbox(struct mailbox_config *mailbox, const char *key, const char *value, struct mf_reason *why)
{
	static const char *const known[] = { "sync", "max-messages" };
	char shown[48];
	bool sync = strcmp(key, known[0]) == 0;
	if (!sync && strcmp(key, known[1]) != 0)
		return mf_fail(why, MF_NOT_FOUND, "unknown key \"%s\" of a mailbox; the nearest is \"%s\"",
		               mf_printable(shown, sizeof shown, key, strlen(key)), value_nearest(key, known, 2));
	struct account_config *scratch = account_config_create("");
	enum mf_err e = account_config_set(scratch, key, value, false, why);
	if (!e && sync) {
		mailbox->has_sync = true;
		mailbox->sync = scratch->sync;
	} else if (!e) {
		mailbox->has_max_messages = true;
		mailbox->max_messages = scratch->max_messages;
	}
	account_config_destroy(scratch);
	return e;
}

static enum mf_err take_line(void *context, const struct ini_line *line, struct mf_reason *why)
{
	struct reading *r = context;
	if (line->is_section)
		return begin_section(r, line->name, why);
	if (!r->in_section)
		return mf_fail(why, MF_INVALID, "a setting in front of the first section; begin with [account NAME]");
	if (!r->account && !r->mailbox)
		return MF_OK;
	enum mf_err e = r->account ? account_config_set(r->account, line->name, line->value, false, why)
	                           : set_mailbox(r->mailbox, line->name, line->value, why);
	if (!e)
		e = remember_key(r, line->name, why);
	return e == MF_NOT_FOUND ? MF_INVALID : e;
}

/* --- the file --- */

/* How much to read at once: a file that is not regular may have anything up to FILE_MAX, and a byte more than it may */
static size_t read_size(int fd)
{
	struct stat st;
	bool known = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= 0 && st.st_size < FILE_MAX;
	return known ? (size_t)st.st_size + 1 : FILE_MAX + 1;
}

/* At most FILE_MAX bytes, in secret memory */
static enum mf_err read_file(int fd, const char *path, char **ret, size_t *ret_len, struct mf_reason *why)
{
	size_t size = read_size(fd), len = 0;
	MF_CLEANUP(secret_cleanup) char *text = secret_alloc(size);
	while (len < size) {
		ssize_t n = read(fd, text + len, size - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return mf_fail(why, MF_IO, "%s: %s", path, strerror(errno));
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len == size)
		return mf_fail(why, MF_INVALID, "%s: larger than %zu bytes%s", path, size - 1,
		               size > FILE_MAX ? "" : ", which it was when it was opened");
	*ret = text;
	*ret_len = len;
	text = NULL;
	return MF_OK;
}

static bool holds_password(const struct config *config)
{
	for (size_t i = 0; i < config->account_count; i++)
		if (config->accounts[i]->password)
			return true;
	return false;
}

static enum mf_err check_mode(int fd, const char *path, struct mf_reason *why)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return mf_fail(why, MF_IO, "%s: %s", path, strerror(errno));
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return mf_fail(why, MF_DENIED, "%s: it holds a password, but belongs to another user", path);
	if (S_ISREG(st.st_mode) && (st.st_mode & 077))
		return mf_fail(why, MF_DENIED, "%s: it holds a password, but others may read or write it: chmod 600 it", path);
	return MF_OK;
}

static enum mf_err parse_text(struct config *config, const char *path, const char *text, size_t len, struct mf_reason *why)
{
	for (int mailboxes = 0; mailboxes <= 1; mailboxes++) {
		struct reading r = { .config = config, .mailboxes = mailboxes };
		enum mf_err e = ini_read(text, len, path, take_line, &r, why);
		if (e)
			return e;
	}
	for (size_t i = 0; i < config->account_count; i++) {
		struct mf_reason reason = { 0 };
		enum mf_err e = account_config_check(config->accounts[i], &reason);
		if (e)
			return mf_fail(why, e, "%s: %s", path, reason.text);
	}
	return MF_OK;
}

enum mf_err config_load(const char *path, struct config **ret, struct mf_reason *why)
{
	MF_CLEANUP(mf_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", path, strerror(errno));
	MF_CLEANUP(secret_cleanup) char *text = NULL;
	size_t len = 0;
	enum mf_err e = read_file(fd, path, &text, &len, why);
	if (e)
		return e;
	struct config *config = MF_NEW(struct config);
	e = parse_text(config, path, text, len, why);
	if (!e && holds_password(config))
		e = check_mode(fd, path, why);
	if (e)
		config_destroy(config);
	else
		*ret = config;
	return e;
}

void config_destroy(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->account_count; i++)
		account_config_destroy(config->accounts[i]);
	free(config->accounts);
	free(config);
}

char *config_default_path(void)
{
	const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	if (!home || *home != '/') {
		const struct passwd *user = getpwuid(geteuid());
		home = user ? user->pw_dir : "/";
	}
	char *path = base && *base == '/' ? mf_format("%s/mailfs/config", base) : mf_format("%s/.config/mailfs/config", home);
	if (geteuid() == 0 && access(path, F_OK) < 0) {
		free(path);
		path = mf_strdup("/etc/mailfs/config");
	}
	return path;
}

/* --- finding --- */

struct account_config *config_find(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->account_count; i++)
		if (strcmp(config->accounts[i]->name, name) == 0)
			return config->accounts[i];
	return NULL;
}

static const struct server_address *server_of(const struct account_config *account, enum server_protocol protocol)
{
	return protocol == PROTOCOL_IMAP ? &account->imap : protocol == PROTOCOL_POP3 ? &account->pop3 : &account->smtp;
}

struct account_config *config_match_url(const struct config *config, const struct server_address *address, const char *user)
{
	for (size_t i = 0; i < config->account_count; i++) {
		struct account_config *account = config->accounts[i];
		const struct server_address *server = server_of(account, address->protocol);
		bool same_user = !user || (account->user && strcmp(account->user, user) == 0);
		if (server->host && strcasecmp(server->host, address->host) == 0 && server->port == address->port && same_user)
			return account;
	}
	return NULL;
}

/* --- checks over several keys --- */

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;
	size_t len = strlen(host);
	if (strcasecmp(host, "localhost") == 0 || (len > 10 && strcasecmp(host + len - 10, ".localhost") == 0))
		return true; /* RFC 6761 6.3 */
	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static enum mf_err check_tls(const struct account_config *account, struct mf_reason *why)
{
	const struct server_address *servers[] = { &account->imap, &account->pop3, &account->smtp };
	for (size_t i = 0; account->tls == TLS_INSECURE && !account->tls_insecure && i < 3; i++)
		if (servers[i]->host && !is_loopback(servers[i]->host))
			return mf_fail(why, MF_INVALID, "account %.64s: tls = none is for this machine (localhost) only, and %.100s is not; "
			               "see tls-insecure", account->name, servers[i]->host);
	return MF_OK;
}

enum mf_err account_config_check(const struct account_config *account, struct mf_reason *why)
{
	if (!account->imap.host && !account->pop3.host)
		return mf_fail(why, MF_INVALID, "account %.64s: no server is set; use imap = imaps://HOST or pop3 = pop3s://HOST",
		               account->name);
	if (!account->user)
		return mf_fail(why, MF_INVALID, "account %.64s: user is not set", account->name);
	if (account->password && account->password_command)
		return mf_fail(why, MF_INVALID, "account %.64s: password and password-command are both set", account->name);
	if (account->smtp.host && !account->from && !strchr(account->user, '@'))
		return mf_fail(why, MF_INVALID, "account %.64s: smtp is set, and whose address mail is sent from is not; use from = NAME <ADDRESS>",
		               account->name);
	return check_tls(account, why);
}

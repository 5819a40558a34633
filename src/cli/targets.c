#include "cli/targets.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/password.h"
#include "control/paths.h"

enum mf_err targets_load(const char *config_path, struct targets *ret, struct mf_reason *why)
{
	*ret = (struct targets){ .config_path = config_path ? mf_strdup(config_path) : config_default_path() };
	enum mf_err e = ret->config_path ? config_load(ret->config_path, &ret->config, why) : MF_NOT_FOUND;
	if (!e || (e == MF_NOT_FOUND && !config_path))
		return MF_OK;
	if (e == MF_NOT_FOUND)
		mf_fail(why, e, "there is no config file %s", config_path);
	targets_finish(ret);
	return e;
}

void targets_finish(struct targets *t)
{
	for (size_t i = 0; i < t->count; i++) {
		free(t->items[i].name);
		if (t->items[i].own)
			account_config_destroy(t->items[i].config);
	}
	free(t->items);
	free(t->config_path);
	config_destroy(t->config);
	*t = (struct targets){ 0 };
}

static bool has(const struct targets *t, const char *name)
{
	for (size_t i = 0; i < t->count; i++)
		if (!strcmp(t->items[i].name, name))
			return true;
	return false;
}

static void add(struct targets *t, const char *name, struct account_config *config, bool own)
{
	t->items = mf_realloc_array(t->items, t->count + 1, sizeof *t->items);
	t->items[t->count++] = (struct target){ mf_strdup(name), config, own };
}

static struct account_config *configured(const struct targets *t, const char *name)
{
	return t->config ? config_find(t->config, name) : NULL;
}

/* "imaps://host:993", as account_config_set wants it: without the user */
static char *url_without_user(const char *url)
{
	const char *host = strstr(url, "://") + 3, *at = strrchr(host, '@');
	return mf_format("%.*s%s", (int)(host - url), url, at ? at + 1 : host);
}

static const char *protocol_key(enum server_protocol protocol)
{
	return protocol == PROTOCOL_IMAP ? "imap" : protocol == PROTOCOL_POP3 ? "pop3" : "smtp";
}

/* An account of its own, named user@host. */
static enum mf_err add_from_url(struct targets *t, const char *url, const struct server_address *address, const char *user,
                                struct mf_reason *why)
{
	if (!user)
		return mf_fail(why, MF_INVALID, "the URL names no user: write it as %.*s://USER@%s", (int)strcspn(url, ":"), url, address->host);
	MF_CLEANUP(mf_free) char *name = mf_format("%s@%s", user, address->host);
	MF_CLEANUP(mf_free) char *server = url_without_user(url);
	if (!path_account_is_valid(name))
		return mf_fail(why, MF_INVALID, "this user's and server's name cannot name a folder; give the account a name in the config file");
	struct account_config *config = account_config_create(name);
	enum mf_err e = account_config_set(config, protocol_key(address->protocol), server, false, why);
	if (!e)
		e = account_config_set(config, "user", user, false, why);
	if (e) {
		account_config_destroy(config);
		return e;
	}
	add(t, name, config, true);
	return MF_OK;
}

static enum mf_err add_url(struct targets *t, const char *url, struct mf_reason *why)
{
	struct server_address address = { 0 };
	char *user = NULL;
	enum mf_err e = server_address_parse(url, &address, &user, why);
	if (e)
		return e;
	struct account_config *match = t->config ? config_match_url(t->config, &address, user) : NULL;
	if (match)
		add(t, match->name, match, false);
	else
		e = add_from_url(t, url, &address, user, why);
	server_address_finish(&address);
	free(user);
	return e;
}

static bool is_running(const char *name)
{
	char **running = path_running_accounts();
	bool found = false;
	for (size_t i = 0; running[i]; i++)
		found |= !strcmp(running[i], name);
	path_list_destroy(running);
	return found;
}

static bool is_account(const struct targets *t, const char *name)
{
	return configured(t, name) || is_running(name);
}

static enum mf_err no_such_account(const struct targets *t, const char *name, struct mf_reason *why)
{
	char shown[64], list[160] = "";
	size_t len = 0;
	for (size_t i = 0; t->config && i < t->config->account_count && len < sizeof list; i++)
		len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i ? ", " : "", t->config->accounts[i]->name);
	mf_printable(shown, sizeof shown, name, strlen(name));
	if (!t->config)
		return mf_fail(why, MF_NOT_FOUND, "no account %s: there is no config file%s%s; a URL needs none: imaps://USER@HOST", shown,
		               t->config_path ? " " : "", t->config_path ? t->config_path : "");
	return mf_fail(why, MF_NOT_FOUND, "no account %s in %s (it has: %s)", shown, t->config_path, len ? list : "none");
}

enum mf_err targets_add(struct targets *t, const char *source, struct mf_reason *why)
{
	if (strstr(source, "://"))
		return add_url(t, source, why);
	if (!is_account(t, source))
		return no_such_account(t, source, why);
	if (!has(t, source))
		add(t, source, configured(t, source), false);
	return MF_OK;
}

enum mf_err targets_add_configured(struct targets *t, struct mf_reason *why)
{
	for (size_t i = 0; t->config && i < t->config->account_count; i++)
		if (!has(t, t->config->accounts[i]->name))
			add(t, t->config->accounts[i]->name, t->config->accounts[i], false);
	if (t->count)
		return MF_OK;
	return mf_fail(why, MF_NOT_FOUND, "%s%s has no account: write one, or name a server: imaps://USER@HOST",
	               t->config ? "" : "there is no config file; ", t->config_path ? t->config_path : "the config file");
}

void targets_add_all(struct targets *t)
{
	(void)targets_add_configured(t, NULL);
	char **running = path_running_accounts();
	for (size_t i = 0; running[i]; i++)
		if (!has(t, running[i]))
			add(t, running[i], NULL, false);
	path_list_destroy(running);
}

/* The operand names an account by itself ("work") or before a mailbox ("work/INBOX"). */
enum naming { NAMES_NOTHING, NAMES_ACCOUNT, NAMES_MAILBOX };
static enum naming naming_of(const struct targets *t, const char *operand, char **ret_account)
{
	*ret_account = NULL;
	if (strstr(operand, "://") || is_account(t, operand)) {
		*ret_account = mf_strdup(operand);
		return NAMES_ACCOUNT;
	}
	const char *slash = strchr(operand, '/');
	MF_CLEANUP(mf_free) char *first = mf_strndup(operand, slash ? (size_t)(slash - operand) : 0);
	if (!slash || !is_account(t, first))
		return NAMES_NOTHING;
	*ret_account = first;
	first = NULL;
	return NAMES_MAILBOX;
}

static enum mf_err select_operands(struct targets *t, char **operands, char ***rest, struct mf_reason *why)
{
	for (; *operands; operands++) {
		MF_CLEANUP(mf_free) char *account = NULL;
		enum naming naming = naming_of(t, *operands, &account);
		if (naming != NAMES_ACCOUNT && !rest)
			return targets_add(t, *operands, why); /* for its reason */
		if (naming == NAMES_NOTHING)
			break;
		if (!has(t, account)) {
			enum mf_err e = targets_add(t, account, why);
			if (e)
				return e;
		}
		if (naming == NAMES_MAILBOX)
			break;
	}
	if (rest)
		*rest = operands;
	return MF_OK;
}

size_t targets_count_named(const struct targets *t, char *const *operands, const char **ret_plain)
{
	struct targets named = { 0 };
	*ret_plain = NULL;
	for (; *operands; operands++) {
		MF_CLEANUP(mf_free) char *account = NULL;
		if (naming_of(t, *operands, &account) == NAMES_NOTHING)
			*ret_plain = *ret_plain ? *ret_plain : *operands;
		else if (!has(&named, account))
			add(&named, account, NULL, false);
	}
	size_t count = named.count;
	targets_finish(&named);
	return count;
}

enum exit_code targets_select(struct targets *t, struct cli *cli, const struct arguments *arguments, char ***rest)
{
	struct mf_reason why = { "" };
	enum mf_err e = targets_load(cli->config_path, t, &why);
	if (e)
		return cli_fail(EXIT_CONFIG, "%s", why.text[0] ? why.text : mf_err_words(e));
	if (cli->account) {
		e = targets_add(t, cli->account, &why);
		if (rest)
			*rest = arguments->operands;
		else if (!e && arguments->operands[0])
			e = mf_fail(&why, MF_INVALID, "--account names the account, and %s is one too many", arguments->operands[0]);
	} else {
		e = select_operands(t, arguments->operands, rest, &why);
	}
	if (!e && !t->count)
		targets_add_all(t);
	if (!e && !t->count)
		e = targets_add_configured(t, &why); /* for its reason */
	if (!e)
		return EXIT_OK;
	targets_finish(t);
	return cli_fail(e == MF_INVALID ? EXIT_USAGE : EXIT_NOT_FOUND, "%s", why.text[0] ? why.text : mf_err_words(e));
}

enum mf_err target_check(const struct target *target, struct mf_reason *why)
{
	const struct account_config *config = target->config;
	if (!config)
		return mf_fail(why, MF_NOT_FOUND, "%s is not in the config file, and its process has ended", target->name);
	return account_config_check(config, why);
}

enum mf_err target_ask_password(struct target *target, bool may_ask, struct mf_reason *why)
{
	struct account_config *config = target->config;
	if (config->password || config->password_command)
		return MF_OK;
	char label[256], user[160];
	mf_printable(user, sizeof user, config->user ? config->user : "", config->user ? strlen(config->user) : 0);
	snprintf(label, sizeof label, "Password for %s at %s: ", user, config->imap.host ? config->imap.host : config->pop3.host);
	char *password = NULL;
	enum mf_err e = may_ask ? password_ask(label, &password) : MF_UNSUPPORTED;
	if (e == MF_UNSUPPORTED)
		return mf_fail(why, MF_AUTH, "%s has no password and there is no terminal to ask at: set password-command in its section of the config file",
		               target->name);
	if (e)
		return mf_fail(why, e, e == MF_CANCELLED ? "no password was given" : "cannot read the password: %s", strerror(errno));
	e = account_config_set(config, "password", password, false, why);
	password_free(password);
	return e;
}

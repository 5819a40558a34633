/* accounts: defaults, one setting, what one mailbox uses */
#include <ctype.h>
#include <fnmatch.h>
#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "config/config.h"
#include "config/value.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)
#define GIGABYTE (INT64_C(1) << 30)

/* --- the table of keys --- */

struct choice {
	const char *name;
	int value;
};

struct key {
	const char *name;
	enum mf_err (*set)(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why);
	size_t offset;                /* of its field */
	int64_t least, most;          /* of numbers, sizes (bytes) and durations (ms) */
	const struct choice *choices; /* up to a NULL name */
};

static void *field(struct account_config *account, const struct key *key)
{
	return (char *)account + key->offset;
}

/* "KEY: "VALUE" is not WHAT". Never called for a password. */
static enum mf_err bad_value(struct mf_reason *why, const struct key *key, const char *value, const char *what)
{
	char shown[64];
	mf_printable(shown, sizeof shown, value, strlen(value));
	return mf_fail(why, MF_INVALID, "%s: \"%s\" is not %s", key->name, shown, what);
}

static void replace_string(char **string, const char *value)
{
	free(*string);
	*string = mf_strdup(value);
}

static enum mf_err set_string(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	(void)why;
	replace_string(field(account, key), value);
	return MF_OK;
}

/* A mount in the background has another directory than its command, and reads the file again there. */
static enum mf_err set_path(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	return *value == '/' ? set_string(account, key, value, why) : bad_value(why, key, value, "an absolute path");
}

static enum mf_err set_bool(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	return value_read_bool(value, field(account, key)) ? MF_OK : bad_value(why, key, value, "yes or no");
}

static bool in_range(const struct key *key, uint64_t value)
{
	return value >= (uint64_t)key->least && value <= (uint64_t)key->most;
}

static enum mf_err set_number(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	uint64_t number;
	if (!value_read_number(value, &number) || !in_range(key, number)) {
		char what[80];
		snprintf(what, sizeof what, "a number from %lld to %lld", (long long)key->least, (long long)key->most);
		return bad_value(why, key, value, what);
	}
	*(uint32_t *)field(account, key) = (uint32_t)number;
	return MF_OK;
}

static enum mf_err set_size(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	uint64_t size;
	if (!value_read_size(value, &size) || !in_range(key, size))
		return bad_value(why, key, value, "a size (10K, 512M, 2G, 1T or bytes)");
	*(uint64_t *)field(account, key) = size;
	return MF_OK;
}

static void format_duration(char *to, size_t size, int64_t ms)
{
	static const struct { int64_t ms; const char *unit; } units[] = { { DAY, "d" }, { HOUR, "h" }, { MINUTE, "m" }, { SECOND, "s" }, { 1, "ms" } };
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (ms % units[i].ms == 0) {
			snprintf(to, size, "%lld%s", (long long)(ms / units[i].ms), units[i].unit);
			return;
		}
}

static enum mf_err set_duration(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	int64_t ms;
	if (!value_read_duration_ms(value, &ms))
		return bad_value(why, key, value, "a time with its unit (500ms, 30s, 5m, 1h, 2d)");
	if (!in_range(key, (uint64_t)ms)) {
		char least[32], most[32], what[80];
		format_duration(least, sizeof least, key->least);
		format_duration(most, sizeof most, key->most);
		snprintf(what, sizeof what, "from %s to %s", key->least ? least : "0", most);
		return bad_value(why, key, value, what);
	}
	*(int64_t *)field(account, key) = ms;
	return MF_OK;
}

/* The value of a choice; MF_INVALID with all of them named */
static enum mf_err read_choice(const struct key *key, const char *value, int *ret, struct mf_reason *why)
{
	char what[120] = "";
	size_t n = 0;
	for (const struct choice *c = key->choices; c->name; c++) {
		if (strcmp(value, c->name) == 0) {
			*ret = c->value;
			return MF_OK;
		}
		const char *before = c == key->choices ? "" : c[1].name ? ", " : " or ";
		n += (size_t)snprintf(what + n, sizeof what - n, "%s%s", before, c->name);
	}
	return bad_value(why, key, value, what);
}

static enum mf_err set_choice(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	int number;
	enum mf_err e = read_choice(key, value, &number, why);
	if (e)
		return e;
	memcpy(field(account, key), &number, sizeof number); /* a field of any enum type */
	return MF_OK;
}

static enum mf_err set_bool_choice(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	int number;
	enum mf_err e = read_choice(key, value, &number, why);
	if (e)
		return e;
	*(bool *)field(account, key) = number != 0;
	return MF_OK;
}

/* --- keys with rules of their own --- */

static enum mf_err set_server(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	struct server_address address;
	MF_CLEANUP(mf_free) char *user = NULL;
	struct mf_reason reason = { 0 };
	enum mf_err e = server_address_parse(value, &address, &user, &reason);
	if (e)
		return mf_fail(why, e, "%s: %s", key->name, reason.text);
	enum server_protocol protocol = (enum server_protocol)key->least;
	if (address.protocol != protocol || user) {
		server_address_finish(&address);
		return user ? mf_fail(why, MF_INVALID, "%s: the user is set with its own key, user = ...", key->name)
		            : mf_fail(why, MF_INVALID, "%s: the URL has to begin with %ss:// or %s://", key->name, key->name, key->name);
	}
	server_address_finish(field(account, key));
	*(struct server_address *)field(account, key) = address;
	return MF_OK;
}

static enum mf_err set_password(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	(void)key;
	(void)why;
	secret_free(account->password);
	account->password = secret_dup(value);
	return MF_OK;
}

static const struct choice mechanisms[] = {
	{ "auto", AUTH_AUTO }, { "plain", AUTH_PLAIN }, { "login", AUTH_LOGIN }, { "cram-md5", AUTH_CRAM_MD5 },
	{ "scram-sha-1", AUTH_SCRAM_SHA_1 }, { "scram-sha-256", AUTH_SCRAM_SHA_256 }, { "xoauth2", AUTH_XOAUTH2 },
	{ "oauthbearer", AUTH_OAUTHBEARER }, { NULL, 0 },
};

/* Calls take for each item between the given separators, without white space around it, and stops at an error */
static enum mf_err each_item(const char *value, const char *separators, enum mf_err (*take)(void *, const char *), void *context)
{
	while (*value) {
		size_t len = strcspn(value, separators), start = 0, end = len;
		while (start < end && isspace((unsigned char)value[start]))
			start++;
		while (end > start && isspace((unsigned char)value[end - 1]))
			end--;
		if (end > start) {
			MF_CLEANUP(mf_free) char *item = mf_strndup(value + start, end - start);
			enum mf_err e = take(context, item);
			if (e)
				return e;
		}
		value += len + (value[len] != '\0');
	}
	return MF_OK;
}

struct auth_reading {
	const struct key *key;
	struct mf_reason *why;
	int bits;
};

static enum mf_err take_mechanism(void *context, const char *item)
{
	struct auth_reading *reading = context;
	int bit;
	enum mf_err e = read_choice(reading->key, item, &bit, reading->why);
	if (!e)
		reading->bits |= bit;
	return e;
}

static enum mf_err set_auth(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	struct auth_reading reading = { .key = key, .why = why };
	enum mf_err e = each_item(value, ", \t", take_mechanism, &reading);
	if (e)
		return e;
	if (reading.bits == 0)
		return bad_value(why, key, value, "a list of mechanisms");
	account->auth = (unsigned)reading.bits;
	return MF_OK;
}

static enum mf_err set_from(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	if (!strchr(value, '@'))
		return bad_value(why, key, value, "an address (Alice Example <alice@example.org>)");
	replace_string(&account->from, value);
	return MF_OK;
}

static enum mf_err set_tls(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	if (strcmp(value, "verify") == 0)
		account->tls = TLS_VERIFY;
	else if (strcmp(value, "none") == 0)
		account->tls = TLS_INSECURE;
	else if (strncmp(value, "fingerprint:", 12) == 0 && value_read_fingerprint(value + 12, account->fingerprint))
		account->tls = TLS_FINGERPRINT;
	else
		return bad_value(why, key, value, "verify, none or fingerprint:SHA256: and 64 hexadecimal digits");
	return MF_OK;
}

static void free_patterns(char **patterns)
{
	for (char **p = patterns; p && *p; p++)
		free(*p);
	free(patterns);
}

struct pattern_list {
	char **items; /* NULL-terminated */
	size_t count;
};

static enum mf_err take_pattern(void *context, const char *item)
{
	struct pattern_list *list = context;
	list->items = mf_realloc_array(list->items, list->count + 2, sizeof *list->items);
	list->items[list->count++] = mf_strdup(item);
	list->items[list->count] = NULL;
	return MF_OK;
}

static enum mf_err set_exclude(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	struct pattern_list list = { 0 };
	(void)each_item(value, ",", take_pattern, &list);
	if (list.count == 0)
		return bad_value(why, key, value, "a list of patterns");
	free_patterns(account->exclude);
	account->exclude = list.items;
	return MF_OK;
}

static enum mf_err set_layout(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	int layout;
	(void)account;
	enum mf_err e = read_choice(key, value, &layout, why);
	if (!e && layout != 0)
		e = mf_fail(why, MF_INVALID, "%s: this version of mailfs has only eml", key->name);
	return e;
}

static enum mf_err set_leave_on_server(struct account_config *account, const struct key *key, const char *value, struct mf_reason *why)
{
	bool yes;
	uint64_t days;
	if (value_read_bool(value, &yes))
		account->leave_on_server_days = yes ? -1 : 0;
	else if (value_read_number(value, &days) && in_range(key, days))
		account->leave_on_server_days = (int)days;
	else
		return bad_value(why, key, value, "yes, no or a number of days");
	return MF_OK;
}

static const struct choice syncs[] = { { "headers", SYNC_HEADERS }, { "demand", SYNC_DEMAND }, { "full", SYNC_FULL }, { NULL, 0 } };
static const struct choice listings[] = { { "all", false }, { "subscribed", true }, { NULL, 0 } };
static const struct choice deletes[] = { { "trash", DELETE_TRASH }, { "expunge", DELETE_EXPUNGE }, { NULL, 0 } };
static const struct choice seens[] = { { "never", false }, { "read", true }, { NULL, 0 } };
static const struct choice layouts[] = { { "eml", 0 }, { "maildir", 1 }, { NULL, 0 } };
static const struct choice sends[] = { { "now", SEND_NOW }, { "connect", SEND_CONNECT }, { "manual", SEND_MANUAL }, { NULL, 0 } };
static const struct choice saves[] = { { "auto", SAVE_SENT_AUTO }, { "yes", SAVE_SENT_YES }, { "no", SAVE_SENT_NO }, { NULL, 0 } };

_Static_assert(sizeof(enum sync_policy) == sizeof(int), "set_choice writes an int");

#define AT(member) offsetof(struct account_config, member)
static const struct key keys[] = {
	{ "imap", set_server, AT(imap), PROTOCOL_IMAP, 0, NULL },
	{ "pop3", set_server, AT(pop3), PROTOCOL_POP3, 0, NULL },
	{ "smtp", set_server, AT(smtp), PROTOCOL_SMTP, 0, NULL },
	{ "user", set_string, AT(user), 0, 0, NULL },
	{ "password", set_password, AT(password), 0, 0, NULL },
	{ "password-command", set_string, AT(password_command), 0, 0, NULL },
	{ "auth", set_auth, AT(auth), 0, 0, mechanisms },
	{ "from", set_from, AT(from), 0, 0, NULL },
	{ "tls", set_tls, AT(tls), 0, 0, NULL },
	{ "tls-ca-file", set_path, AT(tls_ca_file), 0, 0, NULL },
	{ "tls-insecure", set_bool, AT(tls_insecure), 0, 0, NULL },
	{ "sync", set_choice, AT(sync), 0, 0, syncs },
	{ "mailboxes", set_bool_choice, AT(subscribed_only), 0, 0, listings },
	{ "exclude", set_exclude, AT(exclude), 0, 0, NULL },
	{ "max-messages", set_number, AT(max_messages), 0, UINT32_MAX, NULL },
	{ "cache-size", set_size, AT(cache_size), 0, INT64_MAX, NULL },
	{ "cache-min-free", set_size, AT(cache_min_free), 0, INT64_MAX, NULL },
	{ "delete", set_choice, AT(delete_policy), 0, 0, deletes },
	{ "expunge-delay", set_duration, AT(expunge_delay_ms), 0, 365 * DAY, NULL },
	{ "mark-seen", set_bool_choice, AT(mark_seen_on_read), 0, 0, seens },
	{ "layout", set_layout, 0, 0, 0, layouts },
	{ "idle", set_bool, AT(idle), 0, 0, NULL },
	{ "poll", set_duration, AT(poll_ms), SECOND, 7 * DAY, NULL },
	{ "connections", set_number, AT(connections), 1, 10, NULL },
	{ "connect-timeout", set_duration, AT(connect_timeout_ms), 100, HOUR, NULL },
	{ "io-timeout", set_duration, AT(io_timeout_ms), 100, HOUR, NULL },
	{ "pop3-after", set_duration, AT(pop3_after_ms), 0, 365 * DAY, NULL },
	{ "leave-on-server", set_leave_on_server, 0, 0, 36500, NULL },
	{ "send", set_choice, AT(send), 0, 0, sends },
	{ "send-delay", set_duration, AT(send_delay_ms), 0, 7 * DAY, NULL },
	{ "save-sent", set_choice, AT(save_sent), 0, 0, saves },
	{ "sent-mailbox", set_string, AT(sent_mailbox), 0, 0, NULL },
};
#define KEY_COUNT (sizeof keys / sizeof *keys)

static const struct key *find_key(const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static enum mf_err unknown_key(const char *name, struct mf_reason *why)
{
	const char *names[KEY_COUNT];
	for (size_t i = 0; i < KEY_COUNT; i++)
		names[i] = keys[i].name;
	char shown[48];
	return mf_fail(why, MF_NOT_FOUND, "unknown key \"%s\"; the nearest is \"%s\"",
	               mf_printable(shown, sizeof shown, name, strlen(name)), value_nearest(name, names, KEY_COUNT));
}

/* tls = none makes of imap:// and its like (STARTTLS demanded) plain connections; of imaps:// ones that nothing verifies. It
 * may be set before or after the servers. */
static void apply_tls(struct account_config *account)
{
	struct server_address *servers[] = { &account->imap, &account->pop3, &account->smtp };
	for (size_t i = 0; i < 3; i++)
		if (servers[i]->host && servers[i]->security != SECURITY_TLS)
			servers[i]->security = account->tls == TLS_INSECURE ? SECURITY_NONE : SECURITY_STARTTLS;
}

enum mf_err account_config_set(struct account_config *account, const char *key_name, const char *value,
                               bool from_command_line, struct mf_reason *why)
{
	const struct key *key = find_key(key_name);
	if (!key)
		return unknown_key(key_name, why);
	if (from_command_line && key->set == set_password)
		return mf_fail(why, MF_INVALID, "password: refused on a command line, where other users can read it; use password-command");
	if (!*value)
		return mf_fail(why, MF_INVALID, "%s: the value is missing", key->name);
	enum mf_err e = key->set(account, key, value, why);
	if (!e)
		apply_tls(account);
	return e;
}

/* --- life --- */

struct account_config *account_config_create(const char *name)
{
	struct account_config *account = MF_NEW(struct account_config);
	*account = (struct account_config) {
		.name = mf_strdup(name), .auth = AUTH_AUTO, .tls = TLS_VERIFY, .sync = SYNC_HEADERS,
		.cache_size = 2 * GIGABYTE, .cache_min_free = GIGABYTE, .delete_policy = DELETE_TRASH, .expunge_delay_ms = HOUR,
		.idle = true, .poll_ms = 5 * MINUTE, .connections = 3, .connect_timeout_ms = 20 * SECOND,
		.io_timeout_ms = MINUTE, .pop3_after_ms = 2 * MINUTE, .leave_on_server_days = -1, .send = SEND_NOW,
		.send_delay_ms = 10 * SECOND, .save_sent = SAVE_SENT_AUTO,
	};
	return account;
}

void account_config_destroy(struct account_config *account)
{
	if (!account)
		return;
	server_address_finish(&account->imap);
	server_address_finish(&account->pop3);
	server_address_finish(&account->smtp);
	for (size_t i = 0; i < account->mailbox_count; i++)
		free(account->mailboxes[i].name);
	free(account->mailboxes);
	free_patterns(account->exclude);
	secret_free(account->password);
	free(account->name);
	free(account->user);
	free(account->password_command);
	free(account->from);
	free(account->tls_ca_file);
	free(account->sent_mailbox);
	free(account);
}

/* --- what one mailbox uses --- */

static const struct mailbox_config *find_mailbox(const struct account_config *account, const char *path)
{
	for (size_t i = 0; i < account->mailbox_count; i++)
		if (strcmp(account->mailboxes[i].name, path) == 0)
			return &account->mailboxes[i];
	return NULL;
}

enum sync_policy account_config_sync(const struct account_config *account, const char *mailbox_path)
{
	const struct mailbox_config *mailbox = find_mailbox(account, mailbox_path);
	return mailbox && mailbox->has_sync ? mailbox->sync : account->sync;
}

uint32_t account_config_max_messages(const struct account_config *account, const char *mailbox_path)
{
	const struct mailbox_config *mailbox = find_mailbox(account, mailbox_path);
	return mailbox && mailbox->has_max_messages ? mailbox->max_messages : account->max_messages;
}

static locale_t utf8;

static void make_utf8(void)
{
	utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
}

/* fnmatch(3) for names in UTF-8: in the locale of this process a '?' would be a byte. */
static bool glob_matches(const char *pattern, const char *path)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make_utf8);
	locale_t before = uselocale(utf8);
	bool matches = fnmatch(pattern, path, FNM_LEADING_DIR) == 0;
	uselocale(before);
	return matches;
}

/* A mailbox is excluded with all that is inside it. What is written exactly as the path counts, so that "[Gmail]/All Mail"
 * needs no escapes. */
static bool pattern_matches(const char *pattern, const char *path)
{
	size_t len = strlen(pattern);
	if (strncmp(path, pattern, len) == 0 && (path[len] == '\0' || path[len] == '/'))
		return true;
	return glob_matches(pattern, path);
}

bool account_config_excludes(const struct account_config *account, const char *mailbox_path)
{
	for (char **pattern = account->exclude; pattern && *pattern; pattern++)
		if (pattern_matches(*pattern, mailbox_path))
			return true;
	return false;
}

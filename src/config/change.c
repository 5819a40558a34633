/* settings that have changed: which, and when they apply to an account that is in use */
#include <string.h>

#include "base/mem.h"
#include "config/config.h"

/* --- what a key's value is --- */

typedef bool same(const void *a, const void *b);

static bool same_flag(const void *a, const void *b)
{
	return *(const bool *)a == *(const bool *)b;
}

static bool same_int(const void *a, const void *b) /* enums too */
{
	return memcmp(a, b, sizeof(int)) == 0;
}

static bool same_long(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(int64_t)) == 0;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_string(const void *a, const void *b)
{
	return same_text(*(char *const *)a, *(char *const *)b);
}

static bool same_patterns(const void *a, const void *b)
{
	char **x = *(char **const *)a, **y = *(char **const *)b;
	if (!x || !y)
		return x == y;
	for (; *x && *y && strcmp(*x, *y) == 0; x++, y++)
		;
	return !*x && !*y;
}

/* Between STARTTLS and none it is the key `tls` that decides. */
static bool same_server(const void *a, const void *b)
{
	const struct server_address *x = a, *y = b;
	return same_text(x->host, y->host) && x->port == y->port && (x->security == SECURITY_TLS) == (y->security == SECURITY_TLS);
}

/* --- the keys --- */

#define AT(member) offsetof(struct account_config, member)
static const struct {
	const char *name;
	size_t offset;
	same *same;
	enum config_when when;
} keys[] = { /* but for tls, smtp, layout (there is only one) and user (another account) */
	{ "imap", AT(imap), same_server, CONFIG_NEXT_CONNECTION },
	{ "pop3", AT(pop3), same_server, CONFIG_NEXT_CONNECTION },
	{ "password", AT(password), same_string, CONFIG_NEXT_CONNECTION },
	{ "password-command", AT(password_command), same_string, CONFIG_NEXT_CONNECTION },
	{ "auth", AT(auth), same_int, CONFIG_NEXT_CONNECTION },
	{ "from", AT(from), same_string, CONFIG_NOW },
	{ "tls-ca-file", AT(tls_ca_file), same_string, CONFIG_NEXT_CONNECTION },
	{ "tls-insecure", AT(tls_insecure), same_flag, CONFIG_NEXT_CONNECTION },
	{ "sync", AT(sync), same_int, CONFIG_NOW },
	{ "mailboxes", AT(subscribed_only), same_flag, CONFIG_NOW },
	{ "exclude", AT(exclude), same_patterns, CONFIG_NOW },
	{ "max-messages", AT(max_messages), same_int, CONFIG_NOW },
	{ "cache-size", AT(cache_size), same_long, CONFIG_NOW },
	{ "cache-min-free", AT(cache_min_free), same_long, CONFIG_NOW },
	{ "delete", AT(delete_policy), same_int, CONFIG_NOW },
	{ "expunge-delay", AT(expunge_delay_ms), same_long, CONFIG_NOW },
	{ "mark-seen", AT(mark_seen_on_read), same_flag, CONFIG_NOW },
	{ "idle", AT(idle), same_flag, CONFIG_NOW },
	{ "poll", AT(poll_ms), same_long, CONFIG_NOW },
	{ "connections", AT(connections), same_int, CONFIG_NEXT_MOUNT },
	{ "connect-timeout", AT(connect_timeout_ms), same_long, CONFIG_NEXT_CONNECTION },
	{ "io-timeout", AT(io_timeout_ms), same_long, CONFIG_NEXT_CONNECTION },
	{ "pop3-after", AT(pop3_after_ms), same_long, CONFIG_NOW },
	{ "leave-on-server", AT(leave_on_server_days), same_int, CONFIG_NOW },
	{ "send", AT(send), same_int, CONFIG_NOW },
	{ "send-delay", AT(send_delay_ms), same_long, CONFIG_NOW },
	{ "save-sent", AT(save_sent), same_int, CONFIG_NOW },
	{ "sent-mailbox", AT(sent_mailbox), same_string, CONFIG_NOW },
};

static bool same_tls(const struct account_config *a, const struct account_config *b)
{
	return a->tls == b->tls && (a->tls != TLS_FINGERPRINT || memcmp(a->fingerprint, b->fingerprint, sizeof a->fingerprint) == 0);
}

/* --- mailboxes --- */

static const struct mailbox_config *section_of(const struct account_config *account, const char *name)
{
	static const struct mailbox_config none = { 0 };
	for (size_t i = 0; i < account->mailbox_count; i++)
		if (strcmp(account->mailboxes[i].name, name) == 0)
			return &account->mailboxes[i];
	return &none;
}

static bool same_section(const struct mailbox_config *a, const struct mailbox_config *b)
{
	return a->has_sync == b->has_sync && a->sync == b->sync && a->has_max_messages == b->has_max_messages && a->max_messages == b->max_messages;
}

/* --- all of it --- */

char *account_config_identity(const struct account_config *account)
{
	bool imap = account->imap.host;
	char *text = mf_format("%s %s@%s", imap ? "imap" : "pop3", account->user, imap ? account->imap.host : account->pop3.host);
	for (char *p = strrchr(text, '@'); *p; p++) /* a host's name has no case */
		if (*p >= 'A' && *p <= 'Z')
			*p |= 0x20;
	return text;
}

void account_config_compare(const struct account_config *now, const struct account_config *next,
                            void (*told)(void *context, const char *what, enum config_when when), void *context)
{
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!keys[i].same((const char *)now + keys[i].offset, (const char *)next + keys[i].offset))
			told(context, keys[i].name, keys[i].when);
	if (!same_tls(now, next))
		told(context, "tls", CONFIG_NEXT_CONNECTION);
	if (!same_server(&now->smtp, &next->smtp)) /* the outbox comes and goes with a mount */
		told(context, "smtp", now->smtp.host && next->smtp.host ? CONFIG_NEXT_CONNECTION : CONFIG_NEXT_MOUNT);
	for (size_t i = 0; i < now->mailbox_count + next->mailbox_count; i++) {
		bool old = i < now->mailbox_count;
		const char *name = old ? now->mailboxes[i].name : next->mailboxes[i - now->mailbox_count].name;
		if (!old && section_of(now, name)->name)
			continue; /* it has been compared */
		MF_CLEANUP(mf_free) char *section = mf_format("[mailbox %s/%s]", next->name, name);
		if (!same_section(section_of(now, name), section_of(next, name)))
			told(context, section, CONFIG_NOW);
	}
}

/* config.h: accounts and options as plain structs, read once and handed down.
 *
 * The only reader of the config file. Everything is validated here: a caller never meets a value out of range.
 * How the file is written: config/ini.h. Sections are [account NAME] and [mailbox ACCOUNT/NAME] (keys sync and max-messages),
 * in any order, each key once. Times have a unit (500ms 30s 5m 1h 2d; only 0 needs none), sizes may have one (10K 512M 2G 1T,
 * powers of 1024), booleans are yes and no. */
#ifndef MF_CONFIG_CONFIG_H
#define MF_CONFIG_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum server_protocol { PROTOCOL_IMAP, PROTOCOL_POP3, PROTOCOL_SMTP };
/* With tls = none, imap:// and its like are SECURITY_NONE (no TLS at all), and imaps:// stays SECURITY_TLS, with a
 * certificate that nothing verifies. account_config_set keeps this right in whichever order they are set. */
enum server_security { SECURITY_TLS, SECURITY_STARTTLS, SECURITY_NONE };

/* imaps://host[:port], imap://host[:port] and their like. host == NULL: not configured. */
struct server_address {
	enum server_protocol protocol;
	enum server_security security;
	char *host;        /* an IPv6 literal without its brackets */
	uint16_t port;     /* never 0: the protocol's default where none was given */
};

enum auth_mechanism {  /* bits */
	AUTH_PLAIN = 1, AUTH_LOGIN = 2, AUTH_CRAM_MD5 = 4, AUTH_SCRAM_SHA_1 = 8, AUTH_SCRAM_SHA_256 = 16,
	AUTH_XOAUTH2 = 32, AUTH_OAUTHBEARER = 64,
	AUTH_AUTO = AUTH_PLAIN | AUTH_LOGIN | AUTH_CRAM_MD5 | AUTH_SCRAM_SHA_1 | AUTH_SCRAM_SHA_256, /* a password, best first */
};
enum tls_policy { TLS_VERIFY, TLS_FINGERPRINT, TLS_INSECURE };
enum sync_policy { SYNC_DEMAND, SYNC_HEADERS, SYNC_FULL };
enum delete_policy { DELETE_TRASH, DELETE_EXPUNGE };
enum send_policy { SEND_NOW, SEND_CONNECT, SEND_MANUAL };
enum save_sent_policy { SAVE_SENT_AUTO, SAVE_SENT_YES, SAVE_SENT_NO };

struct mailbox_config {           /* [mailbox ACCOUNT/NAME]: what it sets differently */
	char *name;                   /* as the tree shows it: INBOX, Archive/2024 */
	bool has_sync, has_max_messages;
	enum sync_policy sync;
	uint32_t max_messages;
};

struct account_config {
	char *name;                   /* from the file: no '/' or white space, not starting with '.' or '-', at most 64 bytes,
	                               * not a verb of the command */
	struct server_address imap, pop3, smtp;
	char *user;
	char *password;               /* NULL unless the file gives it; secret memory (base/secret.h) */
	char *password_command;
	unsigned auth;                /* enum auth_mechanism bits */
	char *from;                   /* addresses, comma separated, the first is the sender; NULL: user, which then is an address
	                               * where there is an smtp server */
	enum tls_policy tls;
	unsigned char fingerprint[32];/* SHA-256 of the certificate (DER), with TLS_FINGERPRINT */
	char *tls_ca_file;            /* absolute */
	bool tls_insecure;            /* tls = none is allowed beyond loopback */
	enum sync_policy sync;
	bool subscribed_only;
	char **exclude;               /* fnmatch(3) patterns on the tree's path of a mailbox (or the path itself), with all that is
	                               * inside it; '*' matches '/' too. NULL-terminated; may be NULL */
	uint32_t max_messages;        /* 0: all */
	uint64_t cache_size, cache_min_free; /* bytes */
	enum delete_policy delete_policy;
	int64_t expunge_delay_ms;
	bool mark_seen_on_read;
	bool idle;
	int64_t poll_ms;
	int connections;              /* 1..10 */
	int64_t connect_timeout_ms, io_timeout_ms;
	int64_t pop3_after_ms;
	int leave_on_server_days;     /* -1: for ever (a mount that is read-only too), 0: delete, else days */
	enum send_policy send;
	int64_t send_delay_ms;
	enum save_sent_policy save_sent;
	char *sent_mailbox;           /* NULL: found by SPECIAL-USE or name */
	struct mailbox_config *mailboxes;
	size_t mailbox_count;
};

struct config {
	struct account_config **accounts;
	size_t account_count;
};

/* An account with every default, named `name` (copied). */
struct account_config *account_config_create(const char *name);
void account_config_destroy(struct account_config *account); /* wipes the password; NULL is fine */

/* Reads one file. MF_NOT_FOUND when it does not exist; MF_INVALID with "FILE:LINE: what is wrong" and the nearest known
 * key for an unknown one; MF_DENIED when it holds a password and others may read it. */
enum mf_err config_load(const char *path, struct config **ret, struct mf_reason *why);
/* $XDG_CONFIG_HOME/mailfs/config, else ~/.config/mailfs/config; for root without one /etc/mailfs/config. The caller frees. */
char *config_default_path(void);
void config_destroy(struct config *config);
struct account_config *config_find(const struct config *config, const char *name); /* NULL: none */

/* One setting, as in the file or in `-o key=value`. MF_INVALID with the reason; MF_NOT_FOUND for an unknown key (the
 * reason names the nearest). from_command_line: `password` is refused. A server's URL has no user here: that is a key. */
enum mf_err account_config_set(struct account_config *account, const char *key, const char *value,
                               bool from_command_line, struct mf_reason *why);
/* Checks that go over several keys (a server at all, tls = none only on loopback, ...). */
enum mf_err account_config_check(const struct account_config *account, struct mf_reason *why);

/* Which account of which server it is: "imap alice@imap.example.org", the host in lower case. The caller frees. */
char *account_config_identity(const struct account_config *account);
/* When a setting that has changed applies to an account that is in use */
enum config_when { CONFIG_NOW, CONFIG_NEXT_CONNECTION, CONFIG_NEXT_MOUNT };
/* Calls told for each key that differs ("poll"), and for each mailbox whose section does ("[mailbox work/Archive]"). Both have been
 * checked, and have the same identity. */
void account_config_compare(const struct account_config *now, const struct account_config *next,
                            void (*told)(void *context, const char *what, enum config_when when), void *context);

/* imaps://user@host:port as a SOURCE. On MF_OK *ret_user (may be NULL) belongs to the caller; it is percent-decoded, and may
 * have an '@' of its own (the last one is in front of the host). A password in the URL is MF_INVALID, and so is a path. */
enum mf_err server_address_parse(const char *url, struct server_address *ret, char **ret_user, struct mf_reason *why);
void server_address_finish(struct server_address *address);
/* the account of the config with this server (host, and user where the URL names one); NULL: none */
struct account_config *config_match_url(const struct config *config, const struct server_address *address, const char *user);

/* What one mailbox (path as the tree shows it) uses. */
enum sync_policy account_config_sync(const struct account_config *account, const char *mailbox_path);
uint32_t account_config_max_messages(const struct account_config *account, const char *mailbox_path);
bool account_config_excludes(const struct account_config *account, const char *mailbox_path);

#endif

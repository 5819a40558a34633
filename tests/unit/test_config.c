/* config: the file, its errors, and one setting at a time */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "config/config.h"
#include "config/ini.h"

/* --- a file for each test --- */

static char directory[] = "/tmp/mailfs-test-config-XXXXXX";
static char path[sizeof directory + 8];

static int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof path, "%s/config", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(directory);
}

static void write_bytes(const char *text, size_t len)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, 0600), 0);
}

static struct config *load(const char *text)
{
	struct config *config = NULL;
	struct mf_reason why = { 0 };
	write_bytes(text, strlen(text));
	if (config_load(path, &config, &why) != MF_OK)
		fail_msg("%s", why.text);
	return config;
}

#define LEAST "[account work]\nimap = imaps://imap.example.org\nuser = alice\n"

/* --- the whole --- */

static const char sample[] =
	"    [account work]\n"
	"    imap             = imaps://imap.example.org          ; or imap:// with STARTTLS\n"
	"    pop3             = pop3s://pop.example.org           ; fallback, or the only source\n"
	"    smtp             = smtps://smtp.example.org          ; or smtp://host:587 with STARTTLS\n"
	"    user             = alice@example.org\n"
	"    password-command = secret-tool lookup service mail   ; first line of its output; or password = ...\n"
	"    auth             = auto                              ; plain login cram-md5 scram-sha-1 scram-sha-256 xoauth2 oauthbearer\n"
	"    from             = Alice Example <alice@example.org> ; the first address is the envelope sender; more may follow, comma separated\n"
	"    tls              = verify                            ; verify | fingerprint:SHA256:... | none (loopback only, unless tls-insecure = yes)\n"
	"    tls-ca-file      = /path/ca.pem                      ; beside the system's\n"
	"    sync             = headers                           ; headers | demand | full; also per mailbox. full is pinned: exempt from cache-size\n"
	"    mailboxes        = all                               ; all | subscribed; and exclude = PATTERN, ...\n"
	"    max-messages     = 0                                 ; the newest N of each mailbox; 0 is all\n"
	"    cache-size       = 2G                                ; bodies above it are dropped, least recently used first; cache-min-free = 1G\n"
	"    delete           = trash                             ; trash | expunge\n"
	"    expunge-delay    = 1h                                ; a journalled expunge waits this long, and can be cancelled\n"
	"    mark-seen        = never                             ; never | read\n"
	"    layout           = eml                               ; eml | maildir (later)\n"
	"    idle             = yes\n"
	"    poll             = 5m                                ; for mailboxes that the server cannot push\n"
	"    connections      = 3\n"
	"    connect-timeout  = 20s\n"
	"    io-timeout       = 60s                               ; without progress\n"
	"    pop3-after       = 2m                                ; of failing IMAP\n"
	"    leave-on-server  = yes                               ; yes | no | DAYS\n"
	"    send             = now                               ; now | connect | manual\n"
	"    send-delay       = 10s                               ; rm from outbox/ takes a message back within it\n"
	"    save-sent        = auto                              ; auto | yes | no, and sent-mailbox = Sent\n"
	"    [mailbox work/Archive]\n"
	"    sync             = full\n";

static void assert_server(const struct server_address *s, enum server_protocol protocol, enum server_security security,
                          const char *host, uint16_t port)
{
	assert_int_equal(s->protocol, protocol);
	assert_int_equal(s->security, security);
	assert_string_equal(s->host, host);
	assert_int_equal(s->port, port);
}

static void assert_defaults(const struct account_config *a)
{
	assert_int_equal(a->auth, AUTH_AUTO);
	assert_int_equal(a->tls, TLS_VERIFY);
	assert_false(a->tls_insecure);
	assert_int_equal(a->sync, SYNC_HEADERS);
	assert_false(a->subscribed_only);
	assert_int_equal(a->max_messages, 0);
	assert_int_equal(a->cache_size, UINT64_C(2) << 30);
	assert_int_equal(a->cache_min_free, UINT64_C(1) << 30);
	assert_int_equal(a->delete_policy, DELETE_TRASH);
	assert_int_equal(a->expunge_delay_ms, 3600000);
	assert_false(a->mark_seen_on_read);
	assert_true(a->idle);
	assert_int_equal(a->poll_ms, 300000);
	assert_int_equal(a->connections, 3);
	assert_int_equal(a->connect_timeout_ms, 20000);
	assert_int_equal(a->io_timeout_ms, 60000);
	assert_int_equal(a->pop3_after_ms, 120000);
	assert_int_equal(a->leave_on_server_days, -1);
	assert_int_equal(a->send, SEND_NOW);
	assert_int_equal(a->send_delay_ms, 10000);
	assert_int_equal(a->save_sent, SAVE_SENT_AUTO);
	assert_null(a->password);
	assert_null(a->sent_mailbox);
	assert_null(a->exclude);
}

static void test_sample(void **state)
{
	(void)state;
	struct config *config = load(sample);
	assert_int_equal(config->account_count, 1);
	const struct account_config *a = config_find(config, "work");
	assert_non_null(a);
	assert_server(&a->imap, PROTOCOL_IMAP, SECURITY_TLS, "imap.example.org", 993);
	assert_server(&a->pop3, PROTOCOL_POP3, SECURITY_TLS, "pop.example.org", 995);
	assert_server(&a->smtp, PROTOCOL_SMTP, SECURITY_TLS, "smtp.example.org", 465);
	assert_string_equal(a->user, "alice@example.org");
	assert_string_equal(a->password_command, "secret-tool lookup service mail");
	assert_string_equal(a->from, "Alice Example <alice@example.org>");
	assert_string_equal(a->tls_ca_file, "/path/ca.pem");
	assert_defaults(a);
	assert_int_equal(account_config_sync(a, "INBOX"), SYNC_HEADERS);
	assert_int_equal(account_config_sync(a, "Archive"), SYNC_FULL);
	assert_int_equal(account_config_max_messages(a, "Archive"), 0);
	assert_null(config_find(config, "home"));
	config_destroy(config);
}

static void test_create_has_the_defaults(void **state)
{
	(void)state;
	struct account_config *a = account_config_create("x");
	assert_string_equal(a->name, "x");
	assert_defaults(a);
	account_config_destroy(a);
	account_config_destroy(NULL);
	config_destroy(NULL);
}

static void test_several_accounts(void **state)
{
	(void)state;
	struct config *config = load("\xef\xbb\xbf# a comment\r\n; another\r\n\r\n"
	                             "[mailbox home/[Gmail]/All Mail] ; before its account ]\r\nmax-messages = 7\r\n"
	                             "[account work]\r\nimap=imaps://a\r\nuser=u\r\n"
	                             "[ account\thome ]\r\npop3 = pop3://b:1110\r\nuser = v\r\nsync = demand");
	assert_int_equal(config->account_count, 2);
	const struct account_config *home = config_find(config, "home");
	assert_server(&home->pop3, PROTOCOL_POP3, SECURITY_STARTTLS, "b", 1110);
	assert_int_equal(account_config_max_messages(home, "[Gmail]/All Mail"), 7);
	assert_int_equal(account_config_sync(home, "[Gmail]/All Mail"), SYNC_DEMAND);
	config_destroy(config);
	config = load("");
	assert_int_equal(config->account_count, 0);
	config_destroy(config);
}

/* --- how values are written --- */

static const struct { const char *written, *value; } written_cases[] = {
	{ "a b  c", "a b  c" },
	{ "a;b", "a;b" },
	{ "a ;b", "a" },
	{ "a\t; b ; c", "a" },
	{ "a # b", "a # b" },
	{ "a = b", "a = b" },
	{ "\"a ; b \"", "a ; b " },
	{ "\"a ; b\" ; c", "a ; b" },
	{ "\"a \\\"b\\\" \\\\\"", "a \"b\" \\" },
	{ "\" \"", " " },
	{ "\"A, B\" <c>", "\"A, B\" <c>" },
	{ "\"A ;B\" <c> ; d", "\"A ;B\" <c>" },
	{ "\"A\" \"B\"", "\"A\" \"B\"" },
	{ "a \"b", "a \"b" },
	{ "a\\b", "a\\b" },
	{ "\xc3\xa9", "\xc3\xa9" },
};

static void test_written_values(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof written_cases / sizeof *written_cases; i++) {
		MF_CLEANUP(mf_free) char *text = mf_format(LEAST "password-command = %s\n", written_cases[i].written);
		struct config *config = load(text);
		assert_string_equal(config->accounts[0]->password_command, written_cases[i].value);
		config_destroy(config);
	}
}

static void test_long_values(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *text = mf_format(LEAST "password-command = %s%010000d\n", "x", 0);
	struct config *config = load(text);
	assert_int_equal(strlen(config->accounts[0]->password_command), 10001);
	config_destroy(config);
}

/* --- errors --- */

static const struct { const char *text; unsigned line; const char *says; } error_cases[] = {
	/* the shape of the file */
	{ "user = x\n", 1, "in front of the first section" },
	{ "\n\n[account work\n", 3, "closing ]" },
	{ "[\n", 1, "closing ]" },
	{ "[account work]\nhunter2\n", 2, "neither a setting" },
	{ LEAST "user\n", 4, "neither a setting" },
	{ LEAST "from = \"a\n", 4, "closing quote" },
	{ LEAST "from = \"a\\\"\n", 4, "closing quote" },
	{ LEAST "from = \"a\\n\"\n", 4, "in quotes" },
	{ LEAST "from = a\x01\n", 4, "control character" },
	{ LEAST "from = a\x1b\n", 4, "control character" },
	/* sections */
	{ "[acount work]\n", 1, "\"[account ...]\"" },
	{ "[]\n", 1, "unknown section" },
	{ "[accountwork]\n", 1, "unknown section" },
	{ "[account]\n", 1, "no name" },
	{ "[account .a]\n", 1, "'.'" },
	{ "[account -a]\n", 1, "'-'" },
	{ "[account a/b]\n", 1, "'/'" },
	{ "[account a b]\n", 1, "white space" },
	{ "[account sync]\n", 1, "a command" },
	{ "[account help]\n", 1, "a command" },
	{ "[account aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]\n", 1, "longer than 64" },
	{ LEAST "\n[account work]\n", 5, "a second [account work]" },
	{ LEAST "[mailbox Archive]\n", 4, "[mailbox ACCOUNT/NAME]" },
	{ LEAST "[mailbox work/]\n", 4, "[mailbox ACCOUNT/NAME]" },
	{ LEAST "[mailbox home/x]\n", 4, "no [account home]" },
	{ LEAST "[mailbox work/x]\n[mailbox work/x]\n", 5, "second section" },
	{ LEAST "[mailbox work/x]\nsinc = full\n", 5, "\"sync\"" },
	{ LEAST "[mailbox work/x]\nuser = full\n", 5, "of a mailbox" },
	{ LEAST "[mailbox work/x]\nsync = all\n", 5, "headers, demand or full" },
	{ LEAST "[mailbox work/x]\nsync = full\nsync = full\n", 6, "second time" },
	/* keys */
	{ LEAST "pasword-command = x\n", 4, "\"password-command\"" },
	{ LEAST "IDLE = yes\n", 4, "unknown key" },
	{ LEAST "conect-timeout = 5s\n", 4, "\"connect-timeout\"" },
	{ LEAST "= x\n", 4, "unknown key" },
	{ LEAST "idle = yes\nidle = yes\n", 5, "second time" },
	/* values */
	{ LEAST "from =\n", 4, "from: the value is missing" },
	{ LEAST "from = ; nobody\n", 4, "the value is missing" },
	{ LEAST "idle = maybe\n", 4, "idle: \"maybe\" is not yes or no" },
	{ LEAST "tls-insecure = 1\n", 4, "yes or no" },
	{ LEAST "connections = 0\n", 4, "a number from 1 to 10" },
	{ LEAST "connections = 11\n", 4, "a number from 1 to 10" },
	{ LEAST "max-messages = -1\n", 4, "a number from 0" },
	{ LEAST "max-messages = 99999999999999999999999\n", 4, "a number from 0" },
	{ LEAST "cache-size = 2GB\n", 4, "a size" },
	{ LEAST "cache-size = G\n", 4, "a size" },
	{ LEAST "cache-min-free = 99999999999T\n", 4, "a size" },
	{ LEAST "poll = 5\n", 4, "a time with its unit" },
	{ LEAST "poll = 5x\n", 4, "a time with its unit" },
	{ LEAST "poll = m\n", 4, "a time with its unit" },
	{ LEAST "poll = 0\n", 4, "from 1s to 7d" },
	{ LEAST "io-timeout = 2h\n", 4, "from 100ms to 1h" },
	{ LEAST "connect-timeout = 50ms\n", 4, "from 100ms to 1h" },
	{ LEAST "send-delay = 106751991168d\n", 4, "a time" },
	{ LEAST "sync = Full\n", 4, "headers, demand or full" },
	{ LEAST "mailboxes = none\n", 4, "all or subscribed" },
	{ LEAST "delete = yes\n", 4, "trash or expunge" },
	{ LEAST "mark-seen = yes\n", 4, "never or read" },
	{ LEAST "layout = maildir\n", 4, "only eml" },
	{ LEAST "layout = mh\n", 4, "eml or maildir" },
	{ LEAST "send = later\n", 4, "now, connect or manual" },
	{ LEAST "save-sent = maybe\n", 4, "auto, yes or no" },
	{ LEAST "leave-on-server = some\n", 4, "a number of days" },
	{ LEAST "leave-on-server = 99999\n", 4, "a number of days" },
	{ LEAST "auth = plain digest\n", 4, "\"digest\" is not auto, plain, login" },
	{ LEAST "auth = ,\n", 4, "a list of mechanisms" },
	{ LEAST "exclude = , ,\n", 4, "a list of patterns" },
	{ LEAST "from = Alice\n", 4, "an address" },
	{ LEAST "tls = maybe\n", 4, "verify, none or fingerprint" },
	{ LEAST "tls = fingerprint:SHA256:00\n", 4, "fingerprint" },
	{ LEAST "pop3 = imaps://x\n", 4, "pop3s:// or pop3://" },
	{ LEAST "smtp = host\n", 4, "not a URL" },
	{ LEAST "smtp = smtp://me@host\n", 4, "user = ..." },
	{ LEAST "smtp = smtp://me:hunter2@host\n", 4, "a password in a URL is refused" },
	/* over several keys: no line */
	{ LEAST "tls-ca-file = ca.pem\n", 4, "tls-ca-file: \"ca.pem\" is not an absolute path" },
	{ LEAST "tls-ca-file = ~/ca.pem\n", 4, "is not an absolute path" },
	{ "[account work]\nuser = x\n", 0, "account work: no server" },
	{ "[account work]\nsmtp = smtp://x\nuser = x\n", 0, "account work: no server" },
	{ "[account work]\nimap = imaps://x\n", 0, "account work: user is not set" },
	{ LEAST "smtp = smtp://x\n", 0, "use from = NAME <ADDRESS>" },
	{ LEAST "tls = none\n", 0, "tls = none is for this machine" },
	{ LEAST "password = hunter2\npassword-command = x\n", 0, "both set" },
};

static void test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof error_cases / sizeof *error_cases; i++) {
		struct config *config = NULL;
		struct mf_reason why = { 0 };
		write_bytes(error_cases[i].text, strlen(error_cases[i].text));
		if (config_load(path, &config, &why) != MF_INVALID)
			fail_msg("taken: %s", error_cases[i].text);
		assert_null(config);
		MF_CLEANUP(mf_free) char *where = error_cases[i].line ? mf_format("%s:%u: ", path, error_cases[i].line) : mf_format("%s: ", path);
		if (strncmp(why.text, where, strlen(where)) != 0 || !strstr(why.text, error_cases[i].says))
			fail_msg("%s\nsays %s", error_cases[i].text, why.text);
		assert_null(strstr(why.text, "hunter2"));
		assert_null(strchr(why.text, '\x1b'));
	}
}

static enum mf_err load_bytes(const char *text, size_t len, struct mf_reason *why)
{
	struct config *config = NULL;
	write_bytes(text, len);
	enum mf_err e = config_load(path, &config, why);
	config_destroy(config);
	return e;
}

static void test_limits(void **state)
{
	(void)state;
	struct mf_reason why;
	assert_int_equal(load_bytes("#\0\n[account a]\n", 15, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "account a: no server")); /* what stands in a comment does not count */
	assert_int_equal(load_bytes("[account a]\nuser = x\0y\n", 23, &why), MF_INVALID);
	assert_non_null(strstr(why.text, ":2: a control character"));
	char *big = mf_alloc((1U << 20) + 2);
	memset(big, '#', (1U << 20) + 1);
	assert_int_equal(load_bytes(big, INI_LINE_MAX, &why), MF_OK);
	assert_int_equal(load_bytes(big, INI_LINE_MAX + 1, &why), MF_INVALID);
	assert_non_null(strstr(why.text, ":1: longer than 16384 bytes"));
	assert_int_equal(load_bytes(big, (1U << 20) + 1, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "larger than"));
	free(big);
}

/* --- passwords --- */

static void test_password_needs_a_private_file(void **state)
{
	(void)state;
	static const mode_t open_modes[] = { 0640, 0604, 0620, 0601 };
	struct mf_reason why;
	struct config *config = load(LEAST "password = a b;c\n");
	assert_string_equal(config->accounts[0]->password, "a b;c");
	config_destroy(config);
	for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
		config = NULL;
		assert_int_equal(chmod(path, open_modes[i]), 0);
		assert_int_equal(config_load(path, &config, &why), MF_DENIED);
		assert_non_null(strstr(why.text, "chmod 600"));
		assert_null(config);
	}
	config_destroy(load(LEAST));
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(config_load(path, &config, &why), MF_OK);
	config_destroy(config);
}

static void test_no_file(void **state)
{
	(void)state;
	struct config *config = NULL;
	struct mf_reason why;
	assert_int_equal(config_load("/nonexistent/config", &config, &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "/nonexistent/config"));
	assert_int_equal(config_load(directory, &config, &why), MF_IO);
	assert_null(config);
}

static void test_command_line(void **state)
{
	(void)state;
	struct account_config *a = account_config_create("x");
	struct mf_reason why;
	assert_int_equal(account_config_set(a, "password", "hunter2", true, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "command line"));
	assert_null(strstr(why.text, "hunter2"));
	assert_null(a->password);
	assert_int_equal(account_config_set(a, "password-command", "cat x", true, &why), MF_OK);
	assert_int_equal(account_config_set(a, "pol", "5m", true, &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "\"poll\""));
	assert_int_equal(account_config_set(a, "poll", "", true, NULL), MF_INVALID);
	account_config_destroy(a);
}

/* --- every key, both ways round --- */

static struct account_config *with(const char *key, const char *value)
{
	struct account_config *a = account_config_create("x");
	struct mf_reason why;
	if (account_config_set(a, key, value, false, &why) != MF_OK)
		fail_msg("%s", why.text);
	return a;
}

#define CHECK(key, value, condition) do { \
	struct account_config *a = with(key, value); \
	assert_true(condition); \
	account_config_destroy(a); \
} while (0)

static void test_every_key(void **state)
{
	(void)state;
	CHECK("imap", "imap://h", a->imap.security == SECURITY_STARTTLS && a->imap.port == 143);
	CHECK("pop3", "pop3s://h", a->pop3.security == SECURITY_TLS && a->pop3.port == 995);
	CHECK("smtp", "smtp://h", a->smtp.security == SECURITY_STARTTLS && a->smtp.port == 587);
	CHECK("user", "alice", strcmp(a->user, "alice") == 0);
	CHECK("password", "secret", strcmp(a->password, "secret") == 0);
	CHECK("password-command", "x", strcmp(a->password_command, "x") == 0);
	CHECK("auth", "plain, xoauth2 oauthbearer", a->auth == (AUTH_PLAIN | AUTH_XOAUTH2 | AUTH_OAUTHBEARER));
	CHECK("auth", "login cram-md5 scram-sha-1 scram-sha-256", a->auth == (AUTH_AUTO & ~(unsigned)AUTH_PLAIN));
	CHECK("from", "a@b", strcmp(a->from, "a@b") == 0);
	CHECK("tls", "none", a->tls == TLS_INSECURE);
	CHECK("tls-ca-file", "/x", strcmp(a->tls_ca_file, "/x") == 0);
	CHECK("tls-insecure", "yes", a->tls_insecure);
	CHECK("sync", "demand", a->sync == SYNC_DEMAND);
	CHECK("sync", "full", a->sync == SYNC_FULL);
	CHECK("mailboxes", "subscribed", a->subscribed_only);
	CHECK("max-messages", "4294967295", a->max_messages == UINT32_MAX);
	CHECK("cache-size", "10K", a->cache_size == 10240);
	CHECK("cache-size", "1T", a->cache_size == UINT64_C(1) << 40);
	CHECK("cache-size", "0", a->cache_size == 0);
	CHECK("cache-min-free", "512M", a->cache_min_free == UINT64_C(512) << 20);
	CHECK("delete", "expunge", a->delete_policy == DELETE_EXPUNGE);
	CHECK("expunge-delay", "2d", a->expunge_delay_ms == 172800000);
	CHECK("mark-seen", "read", a->mark_seen_on_read);
	CHECK("layout", "eml", true);
	CHECK("idle", "no", !a->idle);
	CHECK("poll", "1h", a->poll_ms == 3600000);
	CHECK("connections", "10", a->connections == 10);
	CHECK("connect-timeout", "500ms", a->connect_timeout_ms == 500);
	CHECK("io-timeout", "5m", a->io_timeout_ms == 300000);
	CHECK("pop3-after", "0", a->pop3_after_ms == 0);
	CHECK("leave-on-server", "no", a->leave_on_server_days == 0);
	CHECK("leave-on-server", "30", a->leave_on_server_days == 30);
	CHECK("send", "connect", a->send == SEND_CONNECT);
	CHECK("send", "manual", a->send == SEND_MANUAL);
	CHECK("send-delay", "0s", a->send_delay_ms == 0);
	CHECK("save-sent", "yes", a->save_sent == SAVE_SENT_YES);
	CHECK("save-sent", "no", a->save_sent == SAVE_SENT_NO);
	CHECK("sent-mailbox", "Sent", strcmp(a->sent_mailbox, "Sent") == 0);
}

static void test_fingerprint(void **state)
{
	(void)state;
	static const char *const written[] = {
		"fingerprint:SHA256:000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F",
		"fingerprint:sha256:00:01:02:03:04:05:06:07:08:09:0A:0b:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F",
	};
	for (size_t i = 0; i < 2; i++) {
		struct account_config *a = with("tls", written[i]);
		assert_int_equal(a->tls, TLS_FINGERPRINT);
		for (unsigned k = 0; k < 32; k++)
			assert_int_equal(a->fingerprint[k], k);
		account_config_destroy(a);
	}
}

static void test_last_value_counts(void **state)
{
	(void)state;
	struct account_config *a = with("exclude", "a, b");
	static const char *const again[][2] = {
		{ "exclude", "c" }, { "user", "x" }, { "user", "y" }, { "imap", "imap://a" }, { "imap", "imaps://b" }, { "password", "p" }, { "password", "q" },
	};
	for (size_t i = 0; i < sizeof again / sizeof *again; i++)
		assert_int_equal(account_config_set(a, again[i][0], again[i][1], false, NULL), MF_OK);
	assert_string_equal(a->exclude[0], "c");
	assert_null(a->exclude[1]);
	assert_string_equal(a->user, "y");
	assert_string_equal(a->imap.host, "b");
	assert_string_equal(a->password, "q");
	account_config_destroy(a);
}

/* --- tls = none --- */

static void test_tls_none(void **state)
{
	(void)state;
	static const struct { const char *host; bool loopback; } hosts[] = {
		{ "localhost", true }, { "LocalHost", true }, { "mail.localhost", true }, { "127.0.0.1", true }, { "127.9.9.9", true },
		{ "[::1]", true }, { "localhost.example.org", false }, { "128.0.0.1", false }, { "[::2]", false }, { "notlocalhost", false },
		{ "127.0.0.1.example.org", false },
	};
	for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
		MF_CLEANUP(mf_free) char *url = mf_format("imap://%s", hosts[i].host);
		struct account_config *a = with("imap", url);
		assert_int_equal(account_config_set(a, "user", "u", false, NULL), MF_OK);
		assert_int_equal(account_config_check(a, NULL), MF_OK);
		assert_int_equal(account_config_set(a, "tls", "none", false, NULL), MF_OK);
		assert_int_equal(a->imap.security, SECURITY_NONE);
		assert_int_equal(account_config_check(a, NULL), hosts[i].loopback ? MF_OK : MF_INVALID);
		assert_int_equal(account_config_set(a, "tls-insecure", "yes", false, NULL), MF_OK);
		assert_int_equal(account_config_check(a, NULL), MF_OK);
		assert_int_equal(account_config_set(a, "tls", "verify", false, NULL), MF_OK);
		assert_int_equal(a->imap.security, SECURITY_STARTTLS);
		account_config_destroy(a);
	}
	/* in the other order; implicit TLS stays TLS; every server counts */
	struct account_config *a = with("tls", "none");
	assert_int_equal(account_config_set(a, "imap", "imaps://localhost", false, NULL), MF_OK);
	assert_int_equal(account_config_set(a, "from", "a@example.org", false, NULL), MF_OK);
	assert_int_equal(account_config_set(a, "smtp", "smtp://localhost", false, NULL), MF_OK);
	assert_int_equal(account_config_set(a, "user", "u", false, NULL), MF_OK);
	assert_int_equal(a->imap.security, SECURITY_TLS);
	assert_int_equal(a->smtp.security, SECURITY_NONE);
	assert_int_equal(account_config_check(a, NULL), MF_OK);
	assert_int_equal(account_config_set(a, "smtp", "smtp://example.org", false, NULL), MF_OK);
	assert_int_equal(account_config_check(a, NULL), MF_INVALID);
	account_config_destroy(a);
}

/* --- exclude --- */

static void test_exclude(void **state)
{
	(void)state;
	struct account_config *a = with("exclude", "Spam,  Archive/20*, [Gmail]/All Mail , *junk*");
	static const char *const out[] = { "Spam", "Spam/x/y", "Archive/2024", "Archive/2024/x", "[Gmail]/All Mail", "a/junk", "bjunk/c" };
	static const char *const in[] = { "INBOX", "Spammer", "x/Spam", "Archive", "Archive/x", "[Gmail]", "[Gmail]/All Mails" };
	for (size_t i = 0; i < sizeof out / sizeof *out; i++)
		assert_true(account_config_excludes(a, out[i]));
	for (size_t i = 0; i < sizeof in / sizeof *in; i++)
		assert_false(account_config_excludes(a, in[i]));
	account_config_destroy(a);
	/* characters count, not bytes, whatever the environment's locale is */
	a = with("exclude", "Entw?rfe, [\xc3\xa4\xc3\xb6]rger, ?");
	static const char *const wide[] = { "Entw\xc3\xbcrfe", "\xc3\xb6rger", "\xe2\x98\x83", "\xf0\x9f\x93\xa7/x" };
	for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
		assert_true(account_config_excludes(a, wide[i]));
	assert_false(account_config_excludes(a, "\xc3\xbcrger"));
	assert_false(account_config_excludes(a, "\xe2\x98\x83\xe2\x98\x83"));
	account_config_destroy(a);
	a = account_config_create("x");
	assert_false(account_config_excludes(a, "INBOX"));
	account_config_destroy(a);
}

/* --- where --- */

static void test_default_path(void **state)
{
	(void)state;
	write_bytes("", 0);
	MF_CLEANUP(mf_free) char *mailfs = mf_format("%s/mailfs", directory);
	MF_CLEANUP(mf_free) char *file = mf_format("%s/config", mailfs);
	assert_int_equal(mkdir(mailfs, 0700), 0);
	assert_int_equal(rename(path, file), 0);
	setenv("XDG_CONFIG_HOME", directory, 1);
	MF_CLEANUP(mf_free) char *found = config_default_path();
	assert_string_equal(found, file);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(rmdir(mailfs), 0);
	setenv("XDG_CONFIG_HOME", "relative", 1);
	setenv("HOME", "/nonexistent", 1);
	MF_CLEANUP(mf_free) char *other = config_default_path();
	assert_string_equal(other, geteuid() == 0 ? "/etc/mailfs/config" : "/nonexistent/.config/mailfs/config");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sample), cmocka_unit_test(test_create_has_the_defaults), cmocka_unit_test(test_several_accounts),
		cmocka_unit_test(test_written_values), cmocka_unit_test(test_long_values), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_password_needs_a_private_file), cmocka_unit_test(test_no_file),
		cmocka_unit_test(test_command_line), cmocka_unit_test(test_every_key), cmocka_unit_test(test_fingerprint),
		cmocka_unit_test(test_last_value_counts), cmocka_unit_test(test_tls_none), cmocka_unit_test(test_exclude),
		cmocka_unit_test(test_default_path),
	};
	return cmocka_run_group_tests_name("config", tests, make_directory, remove_directory);
}

/* config: servers' URLs, and the memory that passwords are in */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/secret.h"
#include "config/config.h"
#include "config/value.h"

static const struct {
	const char *url;
	enum server_protocol protocol;
	enum server_security security;
	const char *host;
	uint16_t port;
	const char *user;
} good_urls[] = {
	{ "imaps://imap.example.org", PROTOCOL_IMAP, SECURITY_TLS, "imap.example.org", 993, NULL },
	{ "imap://h", PROTOCOL_IMAP, SECURITY_STARTTLS, "h", 143, NULL },
	{ "pop3s://h", PROTOCOL_POP3, SECURITY_TLS, "h", 995, NULL },
	{ "pop3://h", PROTOCOL_POP3, SECURITY_STARTTLS, "h", 110, NULL },
	{ "smtps://h", PROTOCOL_SMTP, SECURITY_TLS, "h", 465, NULL },
	{ "smtp://h", PROTOCOL_SMTP, SECURITY_STARTTLS, "h", 587, NULL },
	{ "IMAPS://H.Example.org/", PROTOCOL_IMAP, SECURITY_TLS, "H.Example.org", 993, NULL },
	{ "imaps://h:1", PROTOCOL_IMAP, SECURITY_TLS, "h", 1, NULL },
	{ "imaps://h:65535/", PROTOCOL_IMAP, SECURITY_TLS, "h", 65535, NULL },
	{ "imaps://alice@h", PROTOCOL_IMAP, SECURITY_TLS, "h", 993, "alice" },
	{ "imaps://alice@example.org@h:2", PROTOCOL_IMAP, SECURITY_TLS, "h", 2, "alice@example.org" },
	{ "imaps://alice%40example.org@h", PROTOCOL_IMAP, SECURITY_TLS, "h", 993, "alice@example.org" },
	{ "imaps://a%3Ab%25%c3%a9@h", PROTOCOL_IMAP, SECURITY_TLS, "h", 993, "a:b%\xc3\xa9" },
	{ "imaps://[::1]", PROTOCOL_IMAP, SECURITY_TLS, "::1", 993, NULL },
	{ "imaps://u@[2001:db8::1]:994", PROTOCOL_IMAP, SECURITY_TLS, "2001:db8::1", 994, "u" },
	{ "imaps://[fe80::1%eth0]", PROTOCOL_IMAP, SECURITY_TLS, "fe80::1%eth0", 993, NULL },
	{ "imaps://192.0.2.1:993", PROTOCOL_IMAP, SECURITY_TLS, "192.0.2.1", 993, NULL },
	{ "imaps://xn--mnchen-3ya.de", PROTOCOL_IMAP, SECURITY_TLS, "xn--mnchen-3ya.de", 993, NULL },
	{ "imaps://my_host.", PROTOCOL_IMAP, SECURITY_TLS, "my_host.", 993, NULL },
};

static void test_good_urls(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof good_urls / sizeof *good_urls; i++) {
		struct server_address a;
		MF_CLEANUP(mf_free) char *user = NULL;
		struct mf_reason why;
		if (server_address_parse(good_urls[i].url, &a, &user, &why) != MF_OK)
			fail_msg("%s: %s", good_urls[i].url, why.text);
		assert_int_equal(a.protocol, good_urls[i].protocol);
		assert_int_equal(a.security, good_urls[i].security);
		assert_string_equal(a.host, good_urls[i].host);
		assert_int_equal(a.port, good_urls[i].port);
		assert_int_equal(!user, !good_urls[i].user);
		if (user)
			assert_string_equal(user, good_urls[i].user);
		server_address_finish(&a);
		assert_null(a.host);
	}
}

static const struct { const char *url, *says; } bad_urls[] = {
	{ "", "not a URL" }, { "imap.example.org", "not a URL" }, { "http://h", "not a URL" }, { "imaps:/h", "not a URL" },
	{ "imapss://h", "not a URL" }, { "://h", "not a URL" },
	{ "imaps://", "host's name" }, { "imaps:///x", "ends behind the host" }, { "imaps://@h", "user is empty" },
	{ "imaps://u@", "host's name" }, { "imaps://h/INBOX", "ends behind" }, { "imaps://h?x", "ends behind" },
	{ "imaps://h#x", "ends behind" }, { "imaps://h//", "ends behind" },
	{ "imaps://h:", "port" }, { "imaps://h:0", "port" }, { "imaps://h:65536", "port" }, { "imaps://h:x", "port" },
	{ "imaps://h:99999999999999999999", "port" }, { "imaps://h:1x", "port" }, { "imaps://h:-1", "port" },
	{ "imaps://a:hunter2@h", "password in a URL" }, { "imaps://:hunter2@h", "password in a URL" },
	{ "imaps://a:hunter2@b@h", "password in a URL" },
	{ "imaps://%@h", "two hexadecimal" }, { "imaps://%4@h", "two hexadecimal" }, { "imaps://%zz@h", "two hexadecimal" },
	{ "imaps://a%00b@h", "control character" }, { "imaps://a%0ab@h", "control character" }, { "imaps://a\nb@h", "control character" },
	{ "imaps://::1", "[ ]" }, { "imaps://2001:db8::1:993", "[ ]" }, { "imaps://[::1", "IPv6" }, { "imaps://[]", "IPv6" },
	{ "imaps://[x]", "IPv6" }, { "imaps://[192.0.2.1]", "IPv6" }, { "imaps://[::1%]", "IPv6" }, { "imaps://[::1% x]", "IPv6" },
	{ "imaps://[::1]x", "port" }, { "imaps://[1:2:3:4:5:6:7:8:1:2:3:4:5:6:7:8:1:2:3:4:5:6:7:8]", "IPv6" },
	{ "imaps://h h", "host's name" }, { "imaps://.h", "host's name" }, { "imaps://a..b", "host's name" }, { "imaps://-h", "host's name" },
	{ "imaps://m\xc3\xbcnchen.de", "xn--" }, { "imaps://h\n", "host's name" }, { "imaps://h%20x", "host's name" },
};

static void test_bad_urls(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad_urls / sizeof *bad_urls; i++) {
		struct server_address a = { 0 };
		char *user = NULL;
		struct mf_reason why = { 0 };
		if (server_address_parse(bad_urls[i].url, &a, &user, &why) != MF_INVALID)
			fail_msg("taken: %s", bad_urls[i].url);
		if (!strstr(why.text, bad_urls[i].says) || strstr(why.text, "hunter2"))
			fail_msg("%s says %s", bad_urls[i].url, why.text);
		assert_null(a.host);
		assert_null(user);
	}
}

static void test_long_host(void **state)
{
	(void)state;
	char url[400];
	struct server_address a;
	char *user = NULL;
	snprintf(url, sizeof url, "imaps://%0253d", 0);
	assert_int_equal(server_address_parse(url, &a, &user, NULL), MF_OK);
	server_address_finish(&a);
	snprintf(url, sizeof url, "imaps://%0254d", 0);
	assert_int_equal(server_address_parse(url, &a, &user, NULL), MF_INVALID);
}

static struct account_config *account(const char *name, const char *key, const char *url, const char *user)
{
	struct account_config *a = account_config_create(name);
	assert_int_equal(account_config_set(a, key, url, false, NULL), MF_OK);
	assert_int_equal(account_config_set(a, "user", user, false, NULL), MF_OK);
	return a;
}

static void test_match(void **state)
{
	(void)state;
	struct account_config *accounts[] = {
		account("a", "imap", "imaps://one.example.org", "alice"), account("b", "imap", "imaps://one.example.org", "bob"),
		account("c", "pop3", "pop3s://one.example.org", "carol"), account("d", "imap", "imap://one.example.org", "dave"),
	};
	struct config config = { accounts, 4 };
	static const struct { const char *url, *account; } cases[] = {
		{ "imaps://one.example.org", "a" }, { "imaps://alice@One.Example.Org:993", "a" }, { "imaps://bob@one.example.org", "b" },
		{ "pop3s://one.example.org", "c" }, { "imap://one.example.org", "d" }, { "imaps://carol@one.example.org", NULL },
		{ "imaps://two.example.org", NULL }, { "imaps://one.example.org:1", NULL }, { "pop3://one.example.org", NULL },
		{ "smtp://one.example.org", NULL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct server_address address;
		MF_CLEANUP(mf_free) char *user = NULL;
		assert_int_equal(server_address_parse(cases[i].url, &address, &user, NULL), MF_OK);
		const struct account_config *found = config_match_url(&config, &address, user);
		assert_int_equal(!found, !cases[i].account);
		if (found)
			assert_string_equal(found->name, cases[i].account);
		server_address_finish(&address);
	}
	for (size_t i = 0; i < 4; i++)
		account_config_destroy(accounts[i]);
}

static void test_nearest(void **state)
{
	(void)state;
	static const char *const names[] = { "poll", "pop3", "password", "password-command", "send", "sync" };
	static const char *const cases[][2] = {
		{ "pol", "poll" }, { "passwd", "password" }, { "password_command", "password-command" }, { "snyc", "sync" }, { "pop", "pop3" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_string_equal(value_nearest(cases[i][0], names, 6), cases[i][1]);
	char long_one[1000];
	memset(long_one, 'p', sizeof long_one - 1);
	long_one[sizeof long_one - 1] = '\0';
	assert_non_null(value_nearest(long_one, names, 6));
}

/* --- secrets --- */

/* What the kernel says of the mapping that p is in: its line of flags in /proc/self/smaps */
static void mapping_flags(const void *p, char *ret, size_t size)
{
	FILE *maps = fopen("/proc/self/smaps", "r");
	assert_non_null(maps);
	char line[512];
	bool inside = false;
	*ret = '\0';
	while (fgets(line, sizeof line, maps)) {
		unsigned long long start, end;
		if (sscanf(line, "%llx-%llx ", &start, &end) == 2)
			inside = (uintptr_t)p >= start && (uintptr_t)p < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(ret, size, "%s", line);
	}
	fclose(maps);
}

static void test_secrets_are_not_dumped(void **state)
{
	(void)state;
	char flags[512];
	MF_CLEANUP(secret_cleanup) char *secret = secret_dup("hunter2");
	assert_string_equal(secret, "hunter2");
	assert_int_equal((uintptr_t)secret % _Alignof(max_align_t), 0);
	mapping_flags(secret, flags, sizeof flags);
	if (!*flags)
		skip(); /* a kernel that does not say */
	assert_non_null(strstr(flags, " dd")); /* do not dump */
}

static void test_secret_sizes(void **state)
{
	(void)state;
	static const size_t sizes[] = { 0, 1, 4079, 4080, 4081, 4096, 100000 };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		unsigned char *secret = secret_alloc(sizes[i]);
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(secret[k], 0);
		memset(secret, 0xff, sizes[i]);
		secret_free(secret);
	}
	MF_CLEANUP(secret_cleanup) char *part = secret_dup_n("hunter2", 6);
	assert_string_equal(part, "hunter");
	secret_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_urls), cmocka_unit_test(test_bad_urls), cmocka_unit_test(test_long_host), cmocka_unit_test(test_match),
		cmocka_unit_test(test_nearest), cmocka_unit_test(test_secrets_are_not_dumped), cmocka_unit_test(test_secret_sizes),
	};
	return cmocka_run_group_tests_name("config server", tests, NULL, NULL);
}

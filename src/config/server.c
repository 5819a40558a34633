/* server addresses: imaps://user@host:port and their like */
#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "config/config.h"
#include "config/value.h"

#define HOST_MAX 253 /* RFC 1035 2.3.4 */

static const struct scheme {
	const char *name;
	enum server_protocol protocol;
	enum server_security security;
	uint16_t port;
} schemes[] = {
	{ "imaps", PROTOCOL_IMAP, SECURITY_TLS, 993 }, { "imap", PROTOCOL_IMAP, SECURITY_STARTTLS, 143 },
	{ "pop3s", PROTOCOL_POP3, SECURITY_TLS, 995 }, { "pop3", PROTOCOL_POP3, SECURITY_STARTTLS, 110 },
	{ "smtps", PROTOCOL_SMTP, SECURITY_TLS, 465 }, { "smtp", PROTOCOL_SMTP, SECURITY_STARTTLS, 587 },
};

static const struct scheme *find_scheme(const char *url, size_t len)
{
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
		if (strlen(schemes[i].name) == len && strncasecmp(url, schemes[i].name, len) == 0)
			return &schemes[i];
	return NULL;
}

/* The user in front of the '@', percent-decoded. No part of it is ever repeated in a reason: it may be a password. */
static enum mf_err read_user(const char *s, size_t len, char **ret, struct mf_reason *why)
{
	if (memchr(s, ':', len))
		return mf_fail(why, MF_INVALID, "a password in a URL is refused: use password-command in the config file");
	MF_CLEANUP(mf_free) char *user = mf_alloc(len + 1);
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		char c = s[i];
		if (c == '%') {
			if (i + 2 >= len || !isxdigit((unsigned char)s[i + 1]) || !isxdigit((unsigned char)s[i + 2]))
				return mf_fail(why, MF_INVALID, "the URL's user has a %% without two hexadecimal digits");
			char hex[3] = { s[i + 1], s[i + 2], '\0' };
			c = (char)strtol(hex, NULL, 16);
			i += 2;
		}
		if ((unsigned char)c < 0x20 || c == 0x7f)
			return mf_fail(why, MF_INVALID, "the URL's user has a control character");
		user[n++] = c;
	}
	if (n == 0)
		return mf_fail(why, MF_INVALID, "the URL's user is empty");
	*ret = user;
	user = NULL;
	return MF_OK;
}

static bool is_ipv6(const char *host)
{
	struct in6_addr address;
	char text[INET6_ADDRSTRLEN];
	size_t len = strcspn(host, "%");
	if (len >= sizeof text || (host[len] && (strlen(host + len) < 2 || strlen(host + len) > IF_NAMESIZE)))
		return false;
	for (const char *p = host + len; *p; p++) /* the interface of a link-local address */
		if (!isgraph((unsigned char)*p))
			return false;
	memcpy(text, host, len);
	text[len] = '\0';
	return inet_pton(AF_INET6, text, &address) == 1;
}

static bool is_host_name(const char *host)
{
	size_t len = strlen(host);
	if (len == 0 || len > HOST_MAX || host[0] == '.' || host[0] == '-' || strstr(host, ".."))
		return false;
	for (const char *p = host; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-._", *p))
			return false;
	return true;
}

/* host, host:port, [v6] or [v6]:port */
static enum mf_err read_host(const char *s, struct server_address *ret, struct mf_reason *why)
{
	bool literal = *s == '[';
	size_t len = strcspn(s + literal, literal ? "]" : ":");
	const char *behind = s + literal + len;
	MF_CLEANUP(mf_free) char *host = mf_strndup(s + literal, len);
	if (literal && (*behind++ != ']' || !is_ipv6(host)))
		return mf_fail(why, MF_INVALID, "what stands in [ ] is not an IPv6 address");
	if (!literal && strchr(behind + (*behind != '\0'), ':'))
		return mf_fail(why, MF_INVALID, "an IPv6 address is written in [ ]");
	if (!literal && !is_host_name(host))
		return mf_fail(why, MF_INVALID, "not a host's name (letters, digits, '-' and '.'; others as xn--...)");
	uint64_t port = ret->port;
	if (*behind && (*behind != ':' || !value_read_number(behind + 1, &port) || port < 1 || port > 65535))
		return mf_fail(why, MF_INVALID, "the port is not a number from 1 to 65535");
	ret->port = (uint16_t)port;
	ret->host = host;
	host = NULL;
	return MF_OK;
}

enum mf_err server_address_parse(const char *url, struct server_address *ret, char **ret_user, struct mf_reason *why)
{
	const char *mark = strstr(url, "://");
	const struct scheme *scheme = mark ? find_scheme(url, (size_t)(mark - url)) : NULL;
	if (!scheme)
		return mf_fail(why, MF_INVALID, "not a URL of imaps://, imap://, pop3s://, pop3://, smtps:// or smtp://");
	const char *authority = mark + 3;
	size_t len = strcspn(authority, "/?#");
	if (authority[len] && strcmp(authority + len, "/") != 0)
		return mf_fail(why, MF_INVALID, "a server's URL ends behind the host and the port");
	const char *at = memrchr(authority, '@', len);
	MF_CLEANUP(mf_free) char *user = NULL;
	if (at) {
		enum mf_err e = read_user(authority, (size_t)(at - authority), &user, why);
		if (e)
			return e;
	}
	const char *host = at ? at + 1 : authority;
	MF_CLEANUP(mf_free) char *host_port = mf_strndup(host, len - (size_t)(host - authority));
	struct server_address address = { .protocol = scheme->protocol, .security = scheme->security, .port = scheme->port };
	enum mf_err e = read_host(host_port, &address, why);
	if (e)
		return e;
	*ret = address;
	*ret_user = user;
	user = NULL;
	return MF_OK;
}

void server_address_finish(struct server_address *address)
{
	free(address->host);
	*address = (struct server_address) { 0 };
}

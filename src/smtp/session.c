/* From nothing to a server that takes mail: connecting, EHLO, STARTTLS, AUTH; and reading replies. */
#include "smtp/session.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "auth/sasl.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define MINUTE INT64_C(60000)
#define EHLO_NAME "[127.0.0.1]"      /* says nothing of this machine's name, and is valid everywhere (RFC 5321 4.1.3) */
#define AUTH_LINE_MAX 500            /* a longer initial response waits to be asked for (RFC 4954 4) */
#define SECRET_TIMEOUT_MS 60000      /* a password-command may ask a person */
#define AUTH_STEPS_MAX 10
#define QUIT_MS 2000
#define BUDGET (8U << 20)            /* bytes of replies between two commands */

/* --- failing ------------------------------------------------------------------------------------------------------- */

enum mf_err session_fail(struct smtp *s, enum mf_err e, const char *format, ...)
{
	if (s->dead)
		return s->dead;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(s->why.text, sizeof s->why.text, format, arguments);
	va_end(arguments);
	trace(TRACE_SMTP, "%s", s->why.text);
	s->dead = e;
	return e;
}

static enum mf_err fail_transport(struct smtp *s, enum mf_err e)
{
	const char *reason = transport_reason(s->transport);
	return session_fail(s, e, "%s", *reason ? reason : mf_err_words(e));
}

int64_t session_reply_ms(const struct smtp *s)
{
	return s->options.times.reply_ms ? s->options.times.reply_ms : 5 * MINUTE;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

enum mf_err session_put_bytes(struct smtp *s, const void *data, size_t len)
{
	if (s->dead)
		return s->dead;
	enum mf_err e = transport_write(s->transport, data, len);
	return e ? fail_transport(s, e) : MF_OK;
}

/* shown: what a trace says of it */
static enum mf_err put_line(struct smtp *s, const char *line, const char *shown)
{
	trace(TRACE_SMTP, "> %s", shown);
	enum mf_err e = session_put_bytes(s, line, strlen(line));
	return e ? e : session_put_bytes(s, "\r\n", 2);
}

__attribute__((format(printf, 2, 0)))
static enum mf_err put_formatted(struct smtp *s, const char *format, va_list arguments)
{
	char line[1024], shown[1024];
	int len = vsnprintf(line, sizeof line, format, arguments);
	if (len < 0 || (size_t)len >= sizeof line || strpbrk(line, "\r\n"))
		return session_fail(s, MF_INVALID, "a command would have a line break inside, or is too long");
	return put_line(s, line, mf_printable(shown, sizeof shown, line, (size_t)len));
}

enum mf_err session_put(struct smtp *s, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	enum mf_err e = put_formatted(s, format, arguments);
	va_end(arguments);
	return e;
}

enum mf_err session_flush(struct smtp *s)
{
	if (s->dead)
		return s->dead;
	enum mf_err e = transport_flush(s->transport);
	return e ? fail_transport(s, e) : MF_OK;
}

/* --- replies ------------------------------------------------------------------------------------------------------- */

static enum mf_err fill(struct smtp *s)
{
	if (s->start < s->end)
		return MF_OK;
	s->start = 0;
	enum mf_err e = transport_read(s->transport, s->buffer, sizeof s->buffer, &s->end);
	if (!e)
		return MF_OK;
	s->end = 0;
	return fail_transport(s, e);
}

/* A line without its end */
static enum mf_err read_line(struct smtp *s, char line[static REPLY_LINE_MAX + 1])
{
	for (size_t len = 0;;) {
		enum mf_err e = fill(s);
		if (e)
			return e;
		char c = s->buffer[s->start++];
		if (c == '\n') {
			line[len - (len && line[len - 1] == '\r')] = 0;
			return MF_OK;
		}
		if (len == REPLY_LINE_MAX || !c)
			return session_fail(s, MF_PROTOCOL, "the server's reply has a line of more than %d bytes, or a NUL", REPLY_LINE_MAX);
		line[len++] = c;
	}
}

/* "250-text": the code, and whether more lines follow */
static enum mf_err read_code(struct smtp *s, const char *line, int *ret_code, bool *ret_more)
{
	bool digits = line[0] >= '2' && line[0] <= '5' && isdigit((unsigned char)line[1]) && isdigit((unsigned char)line[2]);
	if (!digits || (line[3] && line[3] != ' ' && line[3] != '-')) {
		char shown[80];
		return session_fail(s, MF_PROTOCOL, "the server does not speak SMTP: \"%s\"", mf_printable(shown, sizeof shown, line, strlen(line)));
	}
	*ret_code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0';
	*ret_more = line[3] == '-';
	return MF_OK;
}

static bool has_enhanced(const char *text)
{
	return strchr("245", text[0]) && text[0] && text[1] == '.' && isdigit((unsigned char)text[2]);
}

/* " 5.1.1 text": every line repeats the enhanced code, and one is enough */
static void add_text(struct reply *r, const char *text)
{
	size_t len = strlen(r->text);
	if (len && has_enhanced(text) && !strncmp(text, r->text, strcspn(text, " ")))
		text += strcspn(text, " ") + (text[strcspn(text, " ")] == ' ');
	if (len && len + 2 < sizeof r->text && *text)
		r->text[len++] = ' ';
	mf_printable(r->text + len, sizeof r->text - len, text, strlen(text));
}

enum mf_err session_reply(struct smtp *s, int64_t ms, struct reply *ret)
{
	char line[REPLY_LINE_MAX + 1];
	bool more = true;
	*ret = (struct reply){ 0 };
	if (s->dead)
		return s->dead;
	transport_set_deadline(s->transport, clock_mono_ms() + ms);
	for (unsigned lines = 0; more; lines++) {
		enum mf_err e = lines < REPLY_LINES_MAX ? read_line(s, line)
		                                        : session_fail(s, MF_PROTOCOL, "the server's reply has more than %d lines", REPLY_LINES_MAX);
		if (!e)
			e = read_code(s, line, &ret->code, &more);
		if (e)
			return e;
		add_text(ret, line[3] ? line + 4 : "");
	}
	trace(TRACE_SMTP, "< %d %s", ret->code, ret->text);
	transport_set_deadline(s->transport, 0);
	return ret->code == 421 ? session_fail(s, MF_OFFLINE, "the server ends the connection: 421 %.240s", ret->text) : MF_OK;
}

enum mf_err session_ask(struct smtp *s, struct reply *ret, const char *format, ...)
{
	if (s->dead)
		return s->dead;
	transport_set_budget(s->transport, BUDGET);
	transport_set_deadline(s->transport, clock_mono_ms() + session_reply_ms(s));
	va_list arguments;
	va_start(arguments, format);
	enum mf_err e = put_formatted(s, format, arguments);
	va_end(arguments);
	return e ? e : session_reply(s, session_reply_ms(s), ret);
}

bool session_has_reply(struct smtp *s)
{
	bool readable = s->start < s->end;
	if (!readable && !s->dead && transport_wait(s->transport, 0, -1, &readable))
		readable = false;
	return readable;
}

/* --- EHLO ---------------------------------------------------------------------------------------------------------- */

static void take_mechanisms(struct smtp *s, const char *p)
{
	static const enum auth_mechanism all[] = { AUTH_PLAIN, AUTH_LOGIN, AUTH_CRAM_MD5, AUTH_SCRAM_SHA_1, AUTH_SCRAM_SHA_256, AUTH_XOAUTH2,
		AUTH_OAUTHBEARER };
	while (*p) {
		size_t len = strcspn(p, " \t");
		for (size_t i = 0; i < sizeof all / sizeof *all; i++)
			if (strlen(sasl_name(all[i])) == len && !strncasecmp(p, sasl_name(all[i]), len))
				s->mechanisms |= all[i];
		p += len + strspn(p + len, " \t");
	}
}

void session_take_extensions(struct smtp *s, const char *line)
{
	static const struct { const char *name; unsigned bit; } names[] = {
		{ "STARTTLS", SMTP_STARTTLS }, { "PIPELINING", SMTP_PIPELINING }, { "8BITMIME", SMTP_8BITMIME }, { "SMTPUTF8", SMTP_UTF8 },
		{ "DSN", SMTP_DSN }, { "CHUNKING", SMTP_CHUNKING }, { "SIZE", SMTP_SIZE },
	};
	size_t len = strcspn(line, " =");
	const char *rest = line + len + (line[len] != 0);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == len && !strncasecmp(line, names[i].name, len))
			s->extensions |= names[i].bit;
	if (len == 4 && !strncasecmp(line, "AUTH", 4))
		take_mechanisms(s, rest);
	if (len == 4 && !strncasecmp(line, "SIZE", 4) && isdigit((unsigned char)*rest))
		s->size_max = strtoull(rest, NULL, 10);
	if (s->size_max < SMTP_SIZE_LEAST)
		s->size_max = 0;
}

/* Its lines count one by one, so it is not read as other replies are. */
static enum mf_err ehlo(struct smtp *s)
{
	char line[REPLY_LINE_MAX + 1], shown[240];
	int code = 0;
	bool more = true;
	s->extensions = s->mechanisms = 0;
	s->size_max = 0;
	transport_set_deadline(s->transport, clock_mono_ms() + session_reply_ms(s));
	enum mf_err e = session_put(s, "EHLO %s", EHLO_NAME);
	for (unsigned lines = 0; !e && more; lines++) {
		e = lines < REPLY_LINES_MAX ? read_line(s, line) : session_fail(s, MF_PROTOCOL, "the server's reply has more than %d lines", REPLY_LINES_MAX);
		if (!e)
			e = read_code(s, line, &code, &more);
		if (!e)
			trace(TRACE_SMTP, "< %s", mf_printable(shown, sizeof shown, line, strlen(line)));
		if (!e && code == 250 && lines && line[3])
			session_take_extensions(s, line + 4);
	}
	transport_set_deadline(s->transport, 0);
	if (e || code == 250)
		return e;
	if (code / 100 == 4)
		return session_fail(s, MF_OFFLINE, "the server takes no mail now: %s", mf_printable(shown, sizeof shown, line, strlen(line)));
	struct reply r;
	e = session_ask(s, &r, "HELO %s", EHLO_NAME); /* RFC 5321 3.2: a server of before 1993 */
	if (!e && !reply_is(&r, 2))
		e = session_fail(s, reply_is(&r, 4) ? MF_OFFLINE : MF_PROTOCOL, "the server does not greet back: %d %.240s", r.code, r.text);
	return e;
}

static enum mf_err start_tls(struct smtp *s)
{
	struct reply r;
	if (!(s->extensions & SMTP_STARTTLS))
		return session_fail(s, MF_TLS, "%s does not offer STARTTLS: the connection would not be encrypted", s->options.transport.host);
	enum mf_err e = session_ask(s, &r, "STARTTLS");
	if (e)
		return e;
	if (!reply_is(&r, 2))
		return session_fail(s, MF_TLS, "%s refused STARTTLS: %d %.200s", s->options.transport.host, r.code, r.text);
	if (s->start < s->end)
		return session_fail(s, MF_TLS, "something was sent in clear behind the answer to STARTTLS: somebody may be in between");
	transport_set_deadline(s->transport, clock_mono_ms() + s->options.transport.connect_timeout_ms);
	e = transport_start_tls(s->transport);
	if (e)
		return fail_transport(s, e);
	return ehlo(s); /* nothing that was said in clear counts */
}

/* --- authenticating ------------------------------------------------------------------------------------------------ */

static bool may_send_secret(const struct smtp *s)
{
	const char *peer = transport_peer(s->transport);
	return transport_is_encrypted(s->transport) || s->options.clear_allowed || strstr(peer, "[127.") || strstr(peer, "[::1]");
}

struct attempt {
	struct sasl *sasl;
	enum auth_mechanism mechanism;
	char *held;              /* an initial response that is too long for the first line */
	struct reply last;
};

/* "AUTH PLAIN <initial response>" */
static enum mf_err put_auth(struct smtp *s, struct attempt *a)
{
	struct mf_reason why = { "" };
	char *first = NULL;
	enum mf_err e = sasl_client_first(a->sasl) ? sasl_answer(a->sasl, "", &first, &why) : MF_OK;
	if (e)
		return session_fail(s, MF_AUTH, "%s", why.text);
	if (!first || strlen(first) > AUTH_LINE_MAX) {
		MF_CLEANUP(mf_free) char *bare = mf_format("AUTH %s", sasl_name(a->mechanism));
		a->held = first;
		return put_line(s, bare, bare);
	}
	MF_CLEANUP(mf_free) char *shown = mf_format("AUTH %s ***", sasl_name(a->mechanism));
	char *line = mf_format("AUTH %s %s", sasl_name(a->mechanism), *first ? first : "=");
	e = put_line(s, line, shown);
	credentials_release(line);
	credentials_release(first);
	return e;
}

/* The answer to a 334 */
static enum mf_err answer(struct smtp *s, struct attempt *a)
{
	struct mf_reason why = { "" };
	char *text = a->held;
	a->held = NULL;
	enum mf_err e = text ? MF_OK : sasl_answer(a->sasl, a->last.text, &text, &why);
	if (e) {
		(void)put_line(s, "*", "*");
		(void)session_reply(s, session_reply_ms(s), &a->last);
		return session_fail(s, MF_AUTH, "%s", why.text);
	}
	e = put_line(s, text, "***");
	credentials_release(text);
	return e;
}

/* Until the server has decided. */
static enum mf_err converse(struct smtp *s, struct attempt *a)
{
	enum mf_err e = put_auth(s, a);
	for (unsigned steps = 0; !e; steps++) {
		e = session_reply(s, session_reply_ms(s), &a->last);
		if (e || a->last.code != 334)
			return e;
		e = steps < AUTH_STEPS_MAX ? answer(s, a) : session_fail(s, MF_AUTH, "the server asks and asks");
	}
	return e;
}

/* *ret_refused: the server said no to these credentials, and the connection is good for another try. */
static enum mf_err try_auth(struct smtp *s, enum auth_mechanism mechanism, const char *secret, bool *ret_refused)
{
	struct mf_reason why = { "" };
	struct credentials *c = s->options.credentials;
	struct attempt a = { .mechanism = mechanism };
	struct sasl_options o = { .mechanism = mechanism, .user = credentials_user(c), .secret = secret, .host = s->options.transport.host,
		.port = s->options.transport.port };
	enum mf_err e = sasl_create(&o, &a.sasl, &why);
	if (e)
		return session_fail(s, MF_AUTH, "%s", why.text);
	e = converse(s, &a);
	if (!e && reply_is(&a.last, 2) && sasl_accepted(a.sasl, &why))
		e = session_fail(s, MF_AUTH, "%s", why.text);
	if (!e && reply_is(&a.last, 4))
		e = session_fail(s, MF_OFFLINE, "the server will not log in anyone now: %d %.240s", a.last.code, a.last.text);
	*ret_refused = !e && !reply_is(&a.last, 2);
	if (*ret_refused)
		snprintf(s->why.text, sizeof s->why.text, "the server refused %s for %.80s: %d %.100s %.60s", sasl_name(mechanism), credentials_user(c),
		         a.last.code, a.last.text, sasl_refusal(a.sasl));
	credentials_release(a.held);
	sasl_destroy(a.sasl);
	return e;
}

static enum mf_err authenticate(struct smtp *s)
{
	struct credentials *c = s->options.credentials;
	if (!c || !s->mechanisms) /* who offers no AUTH may need none; else it will say so */
		return MF_OK;
	if (!may_send_secret(s))
		return session_fail(s, MF_TLS, "the connection to %s is not encrypted: no password is sent", s->options.transport.host);
	enum auth_mechanism mechanism = sasl_choose(s->options.auth, s->mechanisms, transport_is_verified(s->transport));
	if (!mechanism)
		return session_fail(s, MF_AUTH, "%s offers none of the ways to log in that the account allows", s->options.transport.host);
	for (;;) {
		char *secret = NULL;
		bool refused = false;
		struct mf_reason why = { "" };
		enum mf_err e = credentials_acquire(c, SECRET_TIMEOUT_MS, s->options.transport.cancel, &secret, &why);
		if (e)
			return session_fail(s, e, "%s", why.text);
		e = try_auth(s, mechanism, secret, &refused);
		credentials_release(secret);
		if (e)
			return e;
		if (!refused) {
			credentials_accepted(c);
			return MF_OK;
		}
		if (!credentials_rejected(c)) {
			s->dead = MF_AUTH;
			return MF_AUTH;
		}
	}
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static enum mf_err connect_transport(struct smtp *s)
{
	struct mf_reason why = { "" };
	struct transport_options o = s->options.transport;
	int64_t dot_ms = s->options.times.dot_ms ? s->options.times.dot_ms : 10 * MINUTE;
	o.io_timeout_ms = dot_ms > session_reply_ms(s) ? dot_ms : session_reply_ms(s); /* deadlines are set for each step */
	enum mf_err e = s->options.adopt ? transport_adopt(s->options.adopted, &o, &s->transport, &why) : transport_open(&o, &s->transport, &why);
	return e ? session_fail(s, e, "%s", *why.text ? why.text : mf_err_words(e)) : MF_OK;
}

static enum mf_err greet(struct smtp *s)
{
	struct reply r;
	transport_set_budget(s->transport, BUDGET);
	enum mf_err e = session_reply(s, session_reply_ms(s), &r);
	if (e)
		return e;
	if (!reply_is(&r, 2))
		return session_fail(s, reply_is(&r, 4) ? MF_OFFLINE : MF_PROTOCOL, "the server takes no mail: %d %.240s", r.code, r.text);
	return ehlo(s);
}

enum mf_err smtp_open(const struct smtp_options *options, struct smtp **ret, struct mf_reason *why)
{
	struct smtp *s = MF_NEW(struct smtp);
	s->options = *options;
	enum mf_err e = connect_transport(s);
	if (!e)
		e = greet(s);
	if (!e && options->start_tls)
		e = start_tls(s);
	if (!e)
		e = authenticate(s);
	if (e) {
		mf_fail(why, e, "%s", s->why.text[0] ? s->why.text : mf_err_words(e));
		smtp_destroy(s);
		return e;
	}
	*ret = s;
	return MF_OK;
}

void smtp_destroy(struct smtp *s)
{
	if (!s)
		return;
	transport_destroy(s->transport);
	free(s);
}

void smtp_close(struct smtp *s)
{
	struct reply ignored;
	if (s && !s->dead && !session_put(s, "QUIT"))
		(void)session_reply(s, QUIT_MS, &ignored);
	smtp_destroy(s);
}

uint64_t smtp_size_max(const struct smtp *s)
{
	return s->size_max;
}

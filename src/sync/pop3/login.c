/* Connecting, encrypting, logging in; leaving. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "mail/origin.h"
#include "sync/pop3/client.h"
#include "auth/sasl.h"

#define SECRET_TIMEOUT_MS 120000
#define CAPA_LINES_MAX 200
#define ROUNDS_MAX 10            /* challenges of one exchange */
#define IN_USE_TRIES 3           /* a server may need a moment to notice that our last session is over */
#define IN_USE_WAIT_MS 1000      /* before the second one; then twice as long each time */
#define DELAY_MAX_S 86400U
#define DELAY_GUESS_MS 60000     /* of a server that says "too soon" and not how long */
#define COMMAND_LIMIT 4096
#define QUIT_TIMEOUT_MS 10000
#define FRESH_MS 1000            /* a login so long ago is still news */

enum verdict { ACCEPTED, REFUSED, IN_USE, UNCLEAR }; /* UNCLEAR: it has no USER, and its refusal says nothing of the password */

/* --- what the server can do ---------------------------------------------------------------------------------------------------- */

static unsigned mechanism_bit(const char *name, size_t len)
{
	for (unsigned bit = AUTH_PLAIN; bit <= AUTH_OAUTHBEARER; bit <<= 1) {
		const char *known = sasl_name((enum auth_mechanism)bit);
		if (strlen(known) == len && strncasecmp(known, name, len) == 0)
			return bit;
	}
	return 0;
}

static void take_sasl(struct pop3_caps *caps, const char *p)
{
	while (*p) {
		p += strspn(p, " ");
		size_t len = strcspn(p, " ");
		caps->sasl |= mechanism_bit(p, len);
		p += len;
	}
}

static void take_delay(struct pop3_caps *caps, const char *p)
{
	char *end;
	unsigned long seconds = strtoul(p, &end, 10);
	if (end == p)
		return;
	caps->login_delay_s = seconds > DELAY_MAX_S ? DELAY_MAX_S : (uint32_t)seconds;
	caps->delay_differs = strcasestr(end, "USER") != NULL;
}

static void take_capability(struct pop3_caps *caps, const char *line)
{
	static const struct { const char *name; unsigned bit; } names[] = {
		{ "STLS", POP3_STLS }, { "TOP", POP3_TOP }, { "USER", POP3_USER }, { "PIPELINING", POP3_PIPELINING },
		{ "AUTH-RESP-CODE", POP3_AUTH_RESP_CODE }, { "RESP-CODES", POP3_RESP_CODES }, { "UIDL", POP3_UIDL },
	};
	size_t len = strcspn(line, " ");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == len && strncasecmp(line, names[i].name, len) == 0)
			caps->caps |= names[i].bit;
	if (len == 4 && strncasecmp(line, "SASL", 4) == 0)
		take_sasl(caps, line + len);
	if (len == 11 && strncasecmp(line, "LOGIN-DELAY", 11) == 0)
		take_delay(caps, line + len);
}

static enum mf_err take_caps(struct pop3 *s)
{
	bool ok = false, end = false;
	enum mf_err e = pop3_answer(s, &ok);
	if (e)
		return e;
	s->caps = (struct pop3_caps){ .known = ok };
	for (int lines = 0; ok && !end && !e; lines++) {
		if (lines == CAPA_LINES_MAX)
			return pop3_fail(s, MF_PROTOCOL, "%s can do more than anybody can read", s->host);
		e = pop3_list_line(s, &end);
		if (!e && !end)
			take_capability(&s->caps, s->line);
	}
	return e;
}

static enum mf_err ask_caps(struct pop3 *s)
{
	enum mf_err e = pop3_send(s, "CAPA");
	return e ? e : take_caps(s);
}

/* --- the beginning ---------------------------------------------------------------------------------------------------------------- */

static void take_timestamp(struct pop3 *s)
{
	const char *from = strchr(s->line, '<'), *to = from ? strchr(from, '>') : NULL;
	free(s->timestamp);
	/* one that came in clear may be anybody's */
	s->timestamp = to && transport_is_encrypted(s->transport) ? mf_strndup(from, (size_t)(to + 1 - from)) : NULL;
}

static enum mf_err busy(struct pop3 *s)
{
	char text[160];
	if (pop3_code_is(s, "LOGIN-DELAY"))
		pop3_memory_login(s->options.memory, pop3_memory_wait_ms(s->options.memory) ? 0 : DELAY_GUESS_MS);
	return pop3_fail(s, MF_OFFLINE, "%s will not log in anyone now: %s", s->host, pop3_words(s, text, sizeof text));
}

static enum verdict in_use(struct pop3 *s)
{
	char text[160];
	snprintf(s->why.text, sizeof s->why.text, "another session has the mailbox open: %s", pop3_words(s, text, sizeof text));
	return IN_USE;
}

static enum mf_err greet(struct pop3 *s, enum verdict *ret)
{
	bool ok = false;
	enum mf_err e = pop3_answer(s, &ok);
	if (e)
		return e;
	if (!ok && !pop3_code_is(s, "IN-USE"))
		return busy(s);
	if (!ok) {
		*ret = in_use(s);
		return MF_OK;
	}
	take_timestamp(s);
	s->dovecot = strstr(s->line, "Dovecot") != NULL;
	return MF_OK;
}

static enum mf_err start_tls(struct pop3 *s)
{
	bool ok = false;
	enum mf_err e = ask_caps(s);
	if (e)
		return e;
	if (s->caps.known && !(s->caps.caps & POP3_STLS))
		return pop3_fail(s, MF_TLS, "%s does not offer STLS: the connection would not be encrypted", s->host);
	e = pop3_send(s, "STLS");
	if (!e)
		e = pop3_answer(s, &ok);
	if (e)
		return e;
	if (!ok)
		return pop3_fail(s, MF_TLS, "%s refused STLS", s->host);
	if (!pop3_nothing_is_buffered(s))
		return pop3_fail(s, MF_TLS, "%s sent more in clear behind its answer to STLS: somebody may be in between", s->host);
	e = transport_start_tls(s->transport);
	s->caps = (struct pop3_caps){ .known = false }; /* nothing that was said in clear counts */
	return e ? pop3_fail_transport(s, e) : MF_OK;
}

/* --- authenticating ------------------------------------------------------------------------------------------------------------------ */

static bool may_send_secret(const struct pop3 *s)
{
	const char *peer = transport_peer(s->transport);
	return transport_is_encrypted(s->transport) || s->options.clear_allowed || strstr(peer, "[127.") || strstr(peer, "[::1]");
}

/* Words of servers that give no codes. A wrong password is tried once more by hand at most, so only what is clearly
 * something else counts. */
static bool sounds_temporary(const char *text)
{
	static const char *const words[] = { "mailbox lock", "maildrop lock", "mailbox is lock", "maildrop is lock", "already locked", "in use", "too many",
		"try again", "temporar", "unavailable", "busy" };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcasestr(text, words[i]))
			return true;
	return false;
}

/* The answer that ends an attempt to log in. */
static enum mf_err judge(struct pop3 *s, bool ok, const char *what, const struct sasl *sasl, enum verdict *ret)
{
	char text[160];
	*ret = ACCEPTED;
	if (ok)
		return MF_OK;
	pop3_words(s, text, sizeof text);
	bool credentials = pop3_code_is(s, "AUTH");
	if (pop3_code_is(s, "IN-USE")) {
		*ret = in_use(s);
		return MF_OK;
	}
	if (!credentials && (pop3_code_is(s, "LOGIN-DELAY") || pop3_code_is(s, "SYS") || (s->caps.caps & POP3_AUTH_RESP_CODE) || sounds_temporary(text)))
		return busy(s);
	*ret = REFUSED;
	snprintf(s->why.text, sizeof s->why.text, "the server refused %s for %s: %s%s%s", what, credentials_user(s->options.credentials), text,
	         sasl && *sasl_refusal(sasl) ? " " : "", sasl ? sasl_refusal(sasl) : "");
	return MF_OK;
}

static enum mf_err user_and_pass(struct pop3 *s, const char *secret, enum verdict *ret)
{
	bool ok = false, together = s->caps.caps & POP3_PIPELINING;
	enum mf_err e = pop3_send(s, "USER %s", credentials_user(s->options.credentials));
	if (!e && together)
		e = pop3_send_secret(s, "PASS ", secret);
	if (!e)
		e = pop3_answer(s, &ok);
	if (e)
		return e;
	if (!ok)
		return judge(s, ok, "USER", NULL, ret);
	if (!together)
		e = pop3_send_secret(s, "PASS ", secret);
	if (!e)
		e = pop3_answer(s, &ok);
	return e ? e : judge(s, ok, "PASS", NULL, ret);
}

/* What every server reads as it was meant: RFC 1939 3 and 7, and RFC 2449 4 for the length of a command. */
static bool is_simple(const char *text, bool spaces)
{
	size_t len = strlen(text);
	bool simple = len && len < 200 && text[0] != ' ' && text[len - 1] != ' ';
	for (size_t i = 0; i < len && simple; i++)
		simple = (text[i] > ' ' && text[i] <= '~') || (spaces && text[i] == ' ');
	return simple;
}

/* USER and PASS tell the server as much as PLAIN, and in one round trip where it has PIPELINING: PLAIN takes two, since not every
 * server knows an initial response (RFC 5034). Nothing goes out behind PASS, but to a Dovecot: what reads on may be another program,
 * which never sees what the first one has read (Courier's). */
static bool are_user_and_pass_faster(const struct pop3 *s, const char *secret)
{
	return (s->caps.caps & POP3_PIPELINING) && (s->caps.caps & POP3_USER) && is_simple(credentials_user(s->options.credentials), false) && is_simple(secret, true);
}

static enum mf_err apop(struct pop3 *s, const char *secret, enum verdict *ret)
{
	bool ok = false;
	char digest[MAIL_DIGEST_SIZE];
	MF_CLEANUP(buf_finish) struct buf text;
	buf_init(&text, COMMAND_LIMIT);
	enum mf_err e = buf_addf(&text, "%s%s", s->timestamp, secret);
	if (e)
		return pop3_fail(s, MF_AUTH, "the password is too long");
	mail_md5(text.data, text.len, digest);
	explicit_bzero(text.data, text.len);
	/* the digest is as good as the password to whoever has time */
	MF_CLEANUP(mf_free) char *command = mf_format("APOP %s ", credentials_user(s->options.credentials));
	e = strpbrk(command, "\r\n") ? pop3_fail(s, MF_AUTH, "the user's name has a line break, which cannot be sent") : pop3_send_secret(s, command, digest);
	if (!e)
		e = pop3_answer(s, &ok);
	return e ? e : judge(s, ok, "APOP", NULL, ret);
}

/* One round: the server's line; an answer to it if it is a challenge. *ret_over: it was the last line. */
static enum mf_err exchange(struct pop3 *s, struct sasl *sasl, bool *ret_over, bool *ret_ok)
{
	struct mf_reason why = { "" };
	char *answer = NULL;
	enum mf_err e = pop3_line(s);
	if (e)
		return e;
	*ret_ok = strncasecmp(s->line, "+OK", 3) == 0;
	*ret_over = *ret_ok || strncasecmp(s->line, "-ERR", 4) == 0;
	if (*ret_over)
		return MF_OK;
	if (s->line[0] != '+')
		return pop3_fail(s, MF_PROTOCOL, "%s sends no challenge", s->host);
	e = sasl_answer(sasl, s->line + 1 + strspn(s->line + 1, " "), &answer, &why);
	e = pop3_send_secret(s, "", e ? "*" : answer);
	credentials_release(answer);
	return e;
}

static enum mf_err authenticate_sasl(struct pop3 *s, enum auth_mechanism mechanism, const char *secret, enum verdict *ret)
{
	struct sasl_options o = { .mechanism = mechanism, .user = credentials_user(s->options.credentials), .secret = secret, .host = s->host,
		.port = s->options.transport.port };
	struct mf_reason why = { "" };
	struct sasl *sasl = NULL;
	bool over = false, ok = false;
	if (sasl_create(&o, &sasl, &why))
		return pop3_fail(s, MF_AUTH, "%s", why.text);
	enum mf_err e = pop3_send(s, "AUTH %s", sasl_name(mechanism));
	for (int round = 0; !e && !over; round++)
		e = round < ROUNDS_MAX ? exchange(s, sasl, &over, &ok) : pop3_fail(s, MF_PROTOCOL, "%s never stops asking", s->host);
	if (!e)
		e = judge(s, ok, sasl_name(mechanism), sasl, ret);
	if (!e && *ret == ACCEPTED && sasl_accepted(sasl, &why))
		e = pop3_fail(s, MF_AUTH, "%s", why.text);
	sasl_destroy(sasl);
	return e;
}

static enum mf_err authenticate(struct pop3 *s, const char *secret, enum verdict *ret)
{
	if (!may_send_secret(s))
		return pop3_fail(s, MF_TLS, "the connection to %s is not encrypted: no password is sent", s->host);
	bool password = s->options.auth & (AUTH_PLAIN | AUTH_LOGIN);
	enum auth_mechanism mechanism = sasl_choose(s->options.auth, s->caps.sasl, transport_is_verified(s->transport));
	if (mechanism == AUTH_PLAIN && are_user_and_pass_faster(s, secret))
		return user_and_pass(s, secret, ret);
	if (mechanism)
		return authenticate_sasl(s, mechanism, secret, ret);
	if (password && (!s->caps.known || (s->caps.caps & POP3_USER) || !s->timestamp))
		return user_and_pass(s, secret, ret);
	if (password && s->timestamp)
		return apop(s, secret, ret);
	return pop3_fail(s, MF_AUTH, "%s offers none of the ways to log in that the account allows", s->host);
}

/* Dovecot hands over to the process that has the maildrop what came behind PASS: all goes out at once, where PLAIN would be
 * chosen whatever else it offers. */
static bool may_go_ahead(const struct pop3 *s, const char *secret)
{
	unsigned better = AUTH_XOAUTH2 | AUTH_OAUTHBEARER | (transport_is_verified(s->transport) ? 0U : AUTH_CRAM_MD5 | AUTH_SCRAM_SHA_1 | AUTH_SCRAM_SHA_256);
	return s->dovecot && !s->no_uidl && may_send_secret(s) && (s->options.auth & AUTH_PLAIN) && !(s->options.auth & better)
		&& is_simple(credentials_user(s->options.credentials), false) && is_simple(secret, true);
}

static enum mf_err go_ahead(struct pop3 *s, const char *secret, enum verdict *ret)
{
	bool ok = false, pass_ok = false;
	enum mf_err e = pop3_load_numbers(s);
	if (!e)
		e = pop3_send(s, "CAPA");
	if (!e)
		e = pop3_send(s, "USER %s", credentials_user(s->options.credentials));
	if (!e)
		e = pop3_send_secret(s, "PASS ", secret);
	if (!e)
		e = pop3_list_ahead(s);
	if (!e)
		e = take_caps(s);
	if (!e)
		e = pop3_answer(s, &ok);
	if (!e)
		e = pop3_answer(s, &pass_ok);
	*ret = UNCLEAR;
	return e || (!pass_ok && !(s->caps.caps & POP3_USER)) ? e : judge(s, pass_ok, "PASS", NULL, ret);
}

static enum mf_err log_in(struct pop3 *s, const char *secret, bool careful, enum verdict *ret)
{
	if (!careful && may_go_ahead(s, secret))
		return go_ahead(s, secret, ret);
	enum mf_err e = ask_caps(s);
	return e ? e : authenticate(s, secret, ret);
}

/* --- one attempt, and all of them ------------------------------------------------------------------------------------------------------ */

void pop3_drop(struct pop3 *s)
{
	transport_destroy(s->transport);
	s->transport = NULL;
	pop3_store_learnt(s);
	s->in_transaction = s->listed = s->used = s->dovecot = false;
	s->ahead = AHEAD_NOTHING;
	s->tops_ahead = 0;
	s->in_start = s->in_end = 0;
	free(s->timestamp);
	s->timestamp = NULL;
	maildrop_finish(&s->drop);
	maildrop_init(&s->drop);
	pop3_forget_unsaved(s);
}

static enum mf_err settle(struct pop3 *s)
{
	enum mf_err e = (s->caps.known && !s->caps.delay_differs) || s->ahead ? MF_OK : ask_caps(s);
	s->in_transaction = true;
	s->login_ms = clock_mono_ms();
	pop3_memory_login(s->options.memory, (int64_t)s->caps.login_delay_s * 1000);
	if (s->caps.known && !(s->caps.caps & POP3_TOP))
		s->no_top = true;
	return e;
}

static enum mf_err attempt(struct pop3 *s, const char *secret, bool careful, enum verdict *ret)
{
	struct mf_reason why = { "" };
	const struct transport_options *o = &s->options.transport;
	pop3_drop(s);
	*ret = ACCEPTED;
	enum mf_err e = s->dial(s->dial_context, o, &s->transport, &why);
	if (e)
		return pop3_fail(s, e, "%s", *why.text ? why.text : mf_err_words(e));
	transport_set_deadline(s->transport, clock_mono_ms() + o->connect_timeout_ms + o->io_timeout_ms);
	e = greet(s, ret);
	if (!e && *ret == ACCEPTED && s->options.require_starttls && !transport_is_encrypted(s->transport))
		e = start_tls(s);
	if (!e && *ret == ACCEPTED)
		e = log_in(s, secret, careful, ret);
	if (!e && *ret == ACCEPTED)
		e = settle(s);
	if (!e)
		transport_set_deadline(s->transport, 0);
	return e;
}

bool pop3_is_too_early(const struct pop3 *s)
{
	return pop3_memory_wait_ms(s->options.memory) > s->options.transport.io_timeout_ms;
}

static enum mf_err leave_alone(struct pop3 *s)
{
	bool woken;
	int64_t wait = pop3_memory_wait_ms(s->options.memory);
	if (pop3_is_too_early(s))
		return pop3_fail(s, MF_OFFLINE, "%s wants to be left alone for %lld seconds more", s->host, (long long)(wait / 1000));
	return wait ? pop3_sleep(s, wait, -1, &woken) : MF_OK;
}

/* Refused: *secret is another one, or the account waits for its user. */
static enum mf_err new_secret(struct pop3 *s, char **secret)
{
	struct mf_reason why = s->why;
	credentials_release(*secret);
	*secret = NULL;
	if (!credentials_rejected(s->options.credentials))
		return pop3_fail(s, MF_AUTH, "%s", why.text);
	enum mf_err e = credentials_acquire(s->options.credentials, SECRET_TIMEOUT_MS, s->options.transport.cancel, secret, &why);
	return e ? pop3_fail(s, e, "%s", why.text) : MF_OK;
}

static enum mf_err wait_for_release(struct pop3 *s, int tries)
{
	bool woken;
	struct mf_reason why = s->why;
	if (tries >= IN_USE_TRIES)
		return pop3_fail(s, MF_OFFLINE, "%s", why.text);
	return pop3_sleep(s, IN_USE_WAIT_MS << (tries - 1), -1, &woken);
}

enum mf_err pop3_connect(struct pop3 *s)
{
	struct mf_reason why = { "" };
	char *secret = NULL;
	enum verdict verdict = REFUSED;
	/* before connecting: a person who is asked may take longer than a server waits */
	enum mf_err e = credentials_acquire(s->options.credentials, SECRET_TIMEOUT_MS, s->options.transport.cancel, &secret, &why);
	if (e)
		return pop3_fail(s, e, "%s", why.text);
	for (int tries = 1; !e; tries++) {
		e = leave_alone(s);
		if (!e)
			e = attempt(s, secret, verdict == UNCLEAR, &verdict);
		if (e || verdict == ACCEPTED)
			break;
		if (verdict != UNCLEAR)
			e = verdict == REFUSED ? new_secret(s, &secret) : wait_for_release(s, tries);
	}
	if (!e)
		credentials_accepted(s->options.credentials);
	else
		pop3_drop(s);
	credentials_release(secret);
	return e;
}

/* --- leaving, and coming back ------------------------------------------------------------------------------------------------------------ */

enum mf_err pop3_quit(struct pop3 *s, bool *ret_ok)
{
	*ret_ok = false;
	if (s->ahead) /* its answer would come behind others, and nothing was done that it would end */
		pop3_drop(s);
	if (!s->transport)
		return MF_OK;
	int64_t patience = s->options.transport.io_timeout_ms;
	transport_set_deadline(s->transport, clock_mono_ms() + (patience < QUIT_TIMEOUT_MS ? patience : QUIT_TIMEOUT_MS));
	enum mf_err e = pop3_send(s, "QUIT");
	if (!e)
		e = pop3_answer(s, ret_ok);
	pop3_drop(s);
	return e;
}

enum mf_err pop3_need_connection(struct pop3 *s)
{
	return s->transport ? MF_OK : pop3_connect(s);
}

enum mf_err pop3_need_news(struct pop3 *s)
{
	bool ok = false;
	bool fresh = !s->used && clock_mono_ms() - s->login_ms < FRESH_MS;
	if (s->transport && (fresh || pop3_is_too_early(s)))
		return MF_OK;
	/* a line that was cut meanwhile is not worth a word: there will be another */
	if (s->transport && pop3_quit(s, &ok) == MF_CANCELLED)
		return s->dead;
	s->dead = MF_OK;
	return pop3_connect(s);
}

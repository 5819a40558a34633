/* From nothing to a session that may work: connect, STARTTLS, authenticate, and the commands that go out behind that. */
#include <stdio.h>
#include <string.h>

#include "auth/sasl.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/imap/engine.h"

#define LOGIN_BUDGET (8U << 20)
#define SECRET_TIMEOUT_MS 60000   /* a password-command may ask a person */
/* what every Dovecot has since 2.1, and does not say before the login */
#define DOVECOT_CAPS (CAP(ENABLE) | CAP(NAMESPACE) | CAP(LIST_EXTENDED) | CAP(LIST_STATUS) | CAP(SPECIAL_USE) | CAP(CONDSTORE) | CAP(QRESYNC))
/* any of these before the login: somebody has set by hand what it says, and nothing is known of the rest */
#define DOVECOT_SET (CAP(NAMESPACE) | CAP(UIDPLUS) | CAP(ESEARCH) | CAP(UNSELECT))

struct login {
	bool greeted, preauth, dovecot;
	struct imap_known known;
	char *secret;
	struct sasl *sasl;
	bool initial_response;        /* SASL-IR may be used; given up after a BAD */
	bool ahead;                   /* commands went out behind AUTHENTICATE, on the strength of what is remembered or presumed */
	bool asked;                   /* the server asked for more than the initial response, which `ahead` cannot answer */
	enum mf_err result;           /* of the last command that was waited for */
	bool bad;                     /* it was BAD */
	bool explicit_refusal;        /* a response code says that it is the credentials */
};

/* Cyrus loses what arrives together with AUTHENTICATE: it answers none of it, or AUTHENTICATE a second time. */
static bool is_cyrus(struct span text)
{
	return memmem(text.p, text.len, " Cyrus IMAP", strlen(" Cyrus IMAP"));
}

/* Dovecot hands over to the process that serves the mailboxes what came behind AUTHENTICATE: a first login need not wait. */
static bool is_dovecot(struct span text)
{
	return memmem(text.p, text.len, "Dovecot", strlen("Dovecot"));
}

static enum mf_err on_data(struct imap *s, void *verb, struct imap_data *data)
{
	struct login *l = verb;
	if (!l->greeted && data->kind == DATA_COND && data->cond.kind != COND_NO && data->cond.kind != COND_BAD) {
		l->greeted = true;
		l->preauth = data->cond.kind == COND_PREAUTH;
		s->cyrus = is_cyrus(data->cond.text);
		l->known.alone |= s->cyrus;
		l->dovecot = is_dovecot(data->cond.text);
	}
	return MF_OK;
}

/* remembers the answer; only a server that is not available is a failure of the session here */
static enum mf_err take_answer(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct login *l = c->owner;
	l->result = imap_cond_classify(cond);
	l->bad = cond->kind == COND_BAD;
	l->explicit_refusal = l->result == MF_AUTH;
	if (l->result)
		(void)imap_cond_error(s, cond, c->what);
	return s->dead && l->result == MF_OFFLINE ? s->dead : MF_OK;
}

static enum mf_err take_auth(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct login *l = c->owner;
	if (cond->kind == COND_OK) {
		s->authenticated = true;
		l->result = MF_OK;
		return MF_OK;
	}
	enum mf_err e = imap_cond_classify(cond);
	char text[200];
	l->bad = cond->kind == COND_BAD;
	l->explicit_refusal = e == MF_AUTH;
	l->result = e == MF_DENIED ? MF_AUTH : e;
	mf_printable(text, sizeof text, cond->text.p, cond->text.len);
	if (e == MF_OFFLINE)
		return imap_fail(s, e, "%s: the server will not log in anyone now: %s", c->what, text);
	snprintf(s->why.text, sizeof s->why.text, "the server refused %s for %s: %s%s%s", c->what, credentials_user(s->options.credentials), text,
	         l->sasl && *sasl_refusal(l->sasl) ? " " : "", l->sasl ? sasl_refusal(l->sasl) : "");
	return MF_OK;
}

/* --- connecting ------------------------------------------------------------------------------------------------------ */

static enum mf_err connect_transport(struct imap *s)
{
	struct mf_reason why = { "" };
	const struct transport_options *o = &s->options.transport;
	enum mf_err e = s->adopted >= 0 ? transport_adopt(s->adopted, o, &s->transport, &why) : transport_open(o, &s->transport, &why);
	s->adopted = -1;
	if (e) {
		s->dead = e;
		return imap_fail(s, e, "%s", *why.text ? why.text : mf_err_words(e));
	}
	transport_guard_imap(s->transport, s->options.message_max ? s->options.message_max : UINT32_MAX - 1ULL);
	transport_set_budget(s->transport, LOGIN_BUDGET);
	s->reader.transport = s->transport;
	return MF_OK;
}

static enum mf_err greet(struct imap *s, struct login *l)
{
	enum mf_err e = imap_pump(s);
	if (!e && !l->greeted)
		e = imap_fail(s, MF_PROTOCOL, "%s does not greet like an IMAP server", s->host);
	return e;
}

static enum mf_err command(struct imap *s, struct login *l, const char *what)
{
	unsigned serial;
	imap_put(s, "%s", what);
	enum mf_err e = imap_send(s, &(struct imap_command){ .what = what, .done = take_answer, .owner = l }, &serial);
	return e ? e : imap_pump_until(s, serial);
}

static enum mf_err ask_caps(struct imap *s, struct login *l)
{
	s->caps_told = false;
	enum mf_err e = command(s, l, "CAPABILITY");
	if (!e && (l->result || !s->caps_told))
		e = imap_fail(s, MF_PROTOCOL, "the server does not say what it can do");
	return e;
}

static enum mf_err start_tls(struct imap *s, struct login *l)
{
	if (l->preauth)
		return imap_fail(s, MF_TLS, "the server is logged in before STARTTLS: somebody may be in between");
	enum mf_err e = s->caps_told ? MF_OK : ask_caps(s, l);
	if (e)
		return e;
	if (!(s->caps & CAP(STARTTLS)))
		return imap_fail(s, MF_TLS, "%s does not offer STARTTLS: the connection would not be encrypted", s->host);
	e = command(s, l, "STARTTLS");
	if (!e && l->result)
		e = imap_fail(s, MF_TLS, "%s refused STARTTLS", s->host);
	if (!e && (e = transport_start_tls(s->transport)))
		e = imap_fail_transport(s, e);
	s->caps = 0; /* nothing that was said in clear counts */
	s->caps_told = false;
	return e;
}

/* --- what goes out behind the login ---------------------------------------------------------------------------------- */

static enum mf_err compressed(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	(void)c;
	if (cond->kind != COND_OK)
		return MF_OK;
	enum mf_err e = transport_start_deflate(s->transport);
	return e ? imap_fail_transport(s, e) : MF_OK;
}

static enum mf_err send_compress(struct imap *s)
{
	if (!s->options.compress || !(s->caps & CAP(COMPRESS)) || s->compress_serial)
		return MF_OK;
	imap_put(s, "COMPRESS DEFLATE");
	return imap_send(s, &(struct imap_command){ .what = "COMPRESS", .done = compressed }, &s->compress_serial);
}

/* *ret_serial: the last one that login has to wait for; 0: none */
static enum mf_err send_behind(struct imap *s, struct login *l, unsigned *ret_serial)
{
	enum mf_err e = MF_OK;
	*ret_serial = 0;
	if (!s->caps_told && !(l->ahead && l->known.caps_told)) {
		imap_put(s, "CAPABILITY");
		e = imap_send(s, &(struct imap_command){ .what = "CAPABILITY" }, ret_serial);
	}
	if (!e && (s->caps & CAP(QRESYNC)) && (s->caps & CAP(ENABLE))) {
		imap_put(s, "ENABLE QRESYNC");
		e = imap_send(s, &(struct imap_command){ .what = "ENABLE" }, ret_serial);
	}
	if (!e && (s->caps & CAP(ID))) { /* some servers open no mailbox without it */
		imap_put(s, "ID (\"name\" \"mailfs\" \"version\" \"" MF_VERSION "\")");
		e = imap_send(s, &(struct imap_command){ .what = "ID" }, ret_serial);
	}
	if (!e && s->options.list_ahead)
		e = imap_lister_send(s);
	return e ? e : send_compress(s);
}

/* --- authenticating -------------------------------------------------------------------------------------------------- */

static bool may_send_secret(const struct imap *s)
{
	const char *peer = transport_peer(s->transport);
	return transport_is_encrypted(s->transport) || s->options.clear_allowed || strstr(peer, "[127.") || strstr(peer, "[::1]");
}

static unsigned offered(imap_caps caps)
{
	static const struct { imap_caps cap; unsigned bit; } map[] = {
		{ CAP(AUTH_PLAIN), AUTH_PLAIN }, { CAP(AUTH_LOGIN), AUTH_LOGIN }, { CAP(AUTH_CRAM_MD5), AUTH_CRAM_MD5 },
		{ CAP(AUTH_SCRAM_SHA_1), AUTH_SCRAM_SHA_1 }, { CAP(AUTH_SCRAM_SHA_256), AUTH_SCRAM_SHA_256 },
		{ CAP(AUTH_XOAUTH2), AUTH_XOAUTH2 }, { CAP(AUTH_OAUTHBEARER), AUTH_OAUTHBEARER },
	};
	unsigned bits = 0;
	for (size_t i = 0; i < sizeof map / sizeof *map; i++)
		if (caps & map[i].cap)
			bits |= map[i].bit;
	return bits;
}

/* *ret 0: the LOGIN command */
static enum mf_err choose(struct imap *s, imap_caps caps, enum auth_mechanism *ret)
{
	if (!may_send_secret(s))
		return imap_fail(s, MF_TLS, "the connection to %s is not encrypted: no password is sent", s->host);
	*ret = sasl_choose(s->options.auth, offered(caps), transport_is_verified(s->transport));
	if (*ret || ((s->options.auth & (AUTH_PLAIN | AUTH_LOGIN)) && !(caps & CAP(LOGINDISABLED))))
		return MF_OK;
	if (caps & CAP(LOGINDISABLED))
		return imap_fail(s, MF_TLS, "%s accepts no password on this connection", s->host);
	return imap_fail(s, MF_AUTH, "%s offers none of the ways to log in that the account allows", s->host);
}

static enum mf_err send_login_command(struct imap *s, struct login *l, unsigned *ret_serial)
{
	const char *user = credentials_user(s->options.credentials);
	imap_put(s, "LOGIN ");
	imap_put_string(s, user, strlen(user));
	imap_put(s, " ");
	imap_put_secret(s, l->secret, strlen(l->secret));
	return imap_send(s, &(struct imap_command){ .what = "LOGIN", .done = take_auth, .owner = l }, ret_serial);
}

static enum mf_err send_authenticate(struct imap *s, struct login *l, enum auth_mechanism mechanism, unsigned *ret_serial)
{
	struct sasl_options o = { .mechanism = mechanism, .user = credentials_user(s->options.credentials), .secret = l->secret, .host = s->host,
		.port = s->options.transport.port };
	struct mf_reason why = { "" };
	enum mf_err e = sasl_create(&o, &l->sasl, &why);
	if (e)
		return imap_fail(s, MF_AUTH, "%s", why.text);
	imap_put(s, "AUTHENTICATE %s", sasl_name(mechanism));
	if (l->initial_response && sasl_client_first(l->sasl)) {
		char *answer;
		if ((e = sasl_answer(l->sasl, "", &answer, &why)))
			return imap_fail(s, MF_AUTH, "%s", why.text);
		imap_put_hidden(s);
		imap_put(s, " %s", *answer ? answer : "=");
		credentials_release(answer);
	}
	return imap_send(s, &(struct imap_command){ .what = sasl_name(mechanism), .done = take_auth, .owner = l }, ret_serial);
}

static enum mf_err answer(struct imap *s, struct login *l)
{
	struct mf_reason why = { "" };
	char *text = NULL;
	enum mf_err e = l->sasl ? sasl_answer(l->sasl, s->plus_text.data, &text, &why) : MF_AUTH;
	if (l->ahead) { /* what followed was taken for the answer: the exchange is lost, and is told so */
		credentials_release(text);
		l->asked = true;
		return MF_OK;
	}
	e = e ? imap_send_line(s, "*", 1) : imap_send_line(s, text, strlen(text));
	credentials_release(text);
	return e;
}

static enum mf_err converse(struct imap *s, struct login *l, unsigned serial)
{
	for (;;) {
		bool plus = false;
		enum mf_err e = imap_pump_plus(s, serial, &plus);
		if (e || !plus)
			return e;
		if ((e = answer(s, l)))
			return e;
	}
}

/* What the server will be able to do after the login, as it was the last time; 0: not known. What is sent ahead because of it
 * must have few commands that a Dovecot does not take before the login: at the third one it hangs up. */
static imap_caps expected(const struct login *l, imap_caps told)
{
	if (l->known.after_auth || !l->dovecot)
		return l->known.after_auth;
	return told & DOVECOT_SET ? 0 : told | DOVECOT_CAPS;
}

/* One attempt. l->result says how it went; an error is of the session. */
static enum mf_err attempt(struct imap *s, struct login *l, imap_caps caps, bool trust_memory, unsigned *ret_behind)
{
	enum auth_mechanism mechanism;
	unsigned serial;
	struct mf_reason why = { "" };
	enum mf_err e = choose(s, caps, &mechanism);
	if (e)
		return e;
	sasl_destroy(l->sasl);
	l->sasl = NULL;
	l->asked = l->bad = l->explicit_refusal = l->ahead = false;
	s->caps_told = false;
	e = mechanism ? send_authenticate(s, l, mechanism, &serial) : send_login_command(s, l, &serial);
	bool one_round = mechanism == AUTH_PLAIN || sasl_is_token(mechanism);
	imap_caps after = trust_memory && !l->known.alone ? expected(l, caps) : 0;
	if (!e && after && (!mechanism || (one_round && l->initial_response))) {
		l->ahead = true;
		s->caps = after & ~imap_memory_distrusted(s->options.memory);
		e = send_behind(s, l, ret_behind);
	}
	if (!e)
		e = converse(s, l, serial);
	if (!e && !l->result && l->sasl && (e = sasl_accepted(l->sasl, &why)))
		e = imap_fail(s, e, "%s", why.text);
	return e;
}

/* A refusal that may be due to what was remembered or to SASL-IR, and not to the password: once more, with care. */
static bool worth_care(const struct login *l, bool careful)
{
	return !careful && (l->asked || l->bad || (l->ahead && !l->explicit_refusal));
}

static enum mf_err new_secret(struct imap *s, struct login *l)
{
	struct mf_reason why = s->why;
	credentials_release(l->secret);
	l->secret = NULL;
	if (!credentials_rejected(s->options.credentials))
		return imap_fail(s, MF_AUTH, "%s", why.text);
	enum mf_err e = credentials_acquire(s->options.credentials, SECRET_TIMEOUT_MS, s->options.transport.cancel, &l->secret, &why);
	return e ? imap_fail(s, e, "%s", why.text) : MF_OK;
}

static enum mf_err authenticate(struct imap *s, struct login *l, unsigned *ret_behind)
{
	imap_caps caps = s->caps_told ? s->caps : l->known.before_auth;
	enum mf_err e = MF_OK;
	bool careful = false;
	if (!caps) {
		e = ask_caps(s, l);
		caps = s->caps;
	}
	l->initial_response = caps & CAP(SASL_IR);
	while (!e) {
		*ret_behind = 0;
		e = attempt(s, l, caps, !careful, ret_behind);
		l->known.before_auth = caps;
		if (e || !l->result)
			return e;
		if ((e = imap_pump_all(s)))  /* what went out behind it is refused too */
			return e;
		imap_lister_destroy(s->lister);
		s->lister = NULL;
		s->compress_serial = 0;
		if (worth_care(l, careful)) {
			careful = true;
			l->initial_response = l->initial_response && !l->bad;
			e = ask_caps(s, l);
			caps = s->caps;
		} else if (l->bad) {
			struct mf_reason why = s->why;
			return imap_fail(s, MF_PROTOCOL, "%s", why.text);
		} else {
			e = new_secret(s, l);
			careful = true;
		}
	}
	return e;
}

/* --- the whole ------------------------------------------------------------------------------------------------------- */

static enum mf_err settle(struct imap *s, struct login *l, unsigned behind)
{
	bool told = s->caps_told;
	enum mf_err e = MF_OK;
	credentials_accepted(s->options.credentials);
	if (!l->ahead) {
		if (!told)
			e = ask_caps(s, l);
		if (!e)
			e = send_behind(s, l, &behind);
	}
	if (!e && behind)
		e = imap_pump_until(s, behind);
	if (!e && !s->caps_told) /* remembered that the login would tell, and it did not */
		e = ask_caps(s, l);
	if (!e)
		e = send_compress(s); /* where it was not known that there is any */
	if (e)
		return e;
	l->known.after_auth = s->caps;
	l->known.caps_told = told;
	imap_memory_put(s->options.memory, &l->known);
	return MF_OK;
}

static enum mf_err login(struct imap *s, struct login *l)
{
	struct mf_reason why = { "" };
	unsigned behind = 0;
	/* before connecting: a person who is asked may take longer than a server waits */
	enum mf_err e = credentials_acquire(s->options.credentials, SECRET_TIMEOUT_MS, s->options.transport.cancel, &l->secret, &why);
	if (e) {
		s->dead = e;
		return imap_fail(s, e, "%s", why.text);
	}
	imap_memory_get(s->options.memory, &l->known);
	e = connect_transport(s);
	if (!e)
		e = greet(s, l);
	if (!e && s->options.require_starttls && !transport_is_encrypted(s->transport))
		e = start_tls(s, l);
	if (!e && l->preauth)
		s->authenticated = true;
	else if (!e)
		e = authenticate(s, l, &behind);
	return e ? e : settle(s, l, behind);
}

/* A server, or a proxy before it, that logs in and then knows nothing of what came behind: not a second time. */
static void learn(struct imap *s, struct login *l, enum mf_err e)
{
	if (!l->ahead || !s->authenticated || (e != MF_PROTOCOL && e != MF_TIMEOUT))
		return;
	l->known.alone = true;
	imap_memory_put(s->options.memory, &l->known);
}

enum mf_err imap_login(struct imap *s, struct mf_reason *why)
{
	struct login l = { 0 };
	if (s->dead)
		return s->dead;
	s->verb = &l;
	s->on_data = on_data;
	enum mf_err e = login(s, &l);
	s->verb = NULL;
	s->on_data = NULL;
	if (e && !s->dead)
		s->dead = e;
	learn(s, &l, e);
	credentials_release(l.secret);
	sasl_destroy(l.sasl);
	if (e && why)
		*why = s->why;
	return e;
}

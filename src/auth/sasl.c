#include "auth/sasl.h"

#include <gsasl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auth/credentials.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

struct mechanism {
	enum auth_mechanism bit;
	const char *name;
	bool client_first, gsasl;
};
/* in order of preference in clear; encrypted, PLAIN goes first among the passwords */
static const struct mechanism mechanisms[] = {
	{ AUTH_OAUTHBEARER, "OAUTHBEARER", true, false },
	{ AUTH_XOAUTH2, "XOAUTH2", true, false },
	{ AUTH_SCRAM_SHA_256, "SCRAM-SHA-256", true, true },
	{ AUTH_SCRAM_SHA_1, "SCRAM-SHA-1", true, true },
	{ AUTH_CRAM_MD5, "CRAM-MD5", false, true },
	{ AUTH_PLAIN, "PLAIN", true, false },
	{ AUTH_LOGIN, "LOGIN", false, false },
};
#define MECHANISMS (sizeof mechanisms / sizeof *mechanisms)
#define ITERATIONS_MAX 2000000 /* of SCRAM: some seconds; servers want 4096 to some 600,000 */

struct sasl {
	const struct mechanism *mechanism;
	char *user, *secret, *host;
	unsigned port;
	unsigned step;            /* answers given */
	Gsasl *library;           /* SCRAM and CRAM-MD5 */
	Gsasl_session *session;
	bool proved;              /* a SCRAM server's signature was right */
	char refusal[200];
};

enum auth_mechanism sasl_choose(unsigned allowed, unsigned offered, bool verified)
{
	unsigned both = allowed & offered;
	/* a token is used where it was asked for by name: it is no part of "auto" */
	for (size_t i = 0; i < 2; i++)
		if (both & mechanisms[i].bit)
			return mechanisms[i].bit;
	if (verified && (both & AUTH_PLAIN))
		return AUTH_PLAIN;
	for (size_t i = 2; i < MECHANISMS; i++)
		if (both & mechanisms[i].bit)
			return mechanisms[i].bit;
	return 0;
}

static const struct mechanism *find(enum auth_mechanism bit)
{
	for (size_t i = 0; i < MECHANISMS; i++)
		if (mechanisms[i].bit == bit)
			return &mechanisms[i];
	return NULL;
}

const char *sasl_name(enum auth_mechanism mechanism)
{
	const struct mechanism *m = find(mechanism);
	return m ? m->name : "none";
}

static bool is_scram(const struct sasl *s)
{
	return s->mechanism->bit == AUTH_SCRAM_SHA_1 || s->mechanism->bit == AUTH_SCRAM_SHA_256;
}

static enum mf_err start_gsasl(struct sasl *s, struct mf_reason *why)
{
	int rc = gsasl_init(&s->library);
	if (rc == GSASL_OK)
		rc = gsasl_client_start(s->library, s->mechanism->name, &s->session);
	if (rc != GSASL_OK)
		return mf_fail(why, MF_UNSUPPORTED, "%s cannot be used: %s", s->mechanism->name, gsasl_strerror(rc));
	gsasl_property_set(s->session, GSASL_AUTHID, s->user);
	gsasl_property_set(s->session, GSASL_PASSWORD, s->secret);
	return MF_OK;
}

enum mf_err sasl_create(const struct sasl_options *o, struct sasl **ret, struct mf_reason *why)
{
	const struct mechanism *m = find(o->mechanism);
	if (!m)
		return mf_fail(why, MF_UNSUPPORTED, "no such mechanism");
	/* ^A separates the fields of the token mechanisms (RFC 7628 3.1); a line break would end the line */
	if (strpbrk(o->user, "\1\r\n") || strpbrk(o->secret, "\1\r\n"))
		return mf_fail(why, MF_INVALID, "the user name or password has a control character");
	struct sasl *s = MF_NEW(struct sasl);
	s->mechanism = m;
	s->user = mf_strdup(o->user);
	s->secret = mf_strdup(o->secret);
	s->host = mf_strdup(o->host ? o->host : "");
	s->port = o->port;
	enum mf_err e = m->gsasl ? start_gsasl(s, why) : MF_OK;
	if (e) {
		sasl_destroy(s);
		return e;
	}
	*ret = s;
	return MF_OK;
}

void sasl_destroy(struct sasl *s)
{
	if (!s)
		return;
	if (s->session)
		gsasl_finish(s->session);
	if (s->library)
		gsasl_done(s->library);
	credentials_release(s->secret);
	free(s->user);
	free(s->host);
	free(s);
}

bool sasl_client_first(const struct sasl *s)
{
	return s->mechanism->client_first;
}

static enum mf_err encode(const void *data, size_t len, char **ret)
{
	char *text;
	size_t text_len;
	if (gsasl_base64_to(data, len, &text, &text_len) != GSASL_OK)
		return MF_INVALID;
	*ret = mf_strndup(text, text_len);
	explicit_bzero(text, text_len);
	gsasl_free(text);
	return MF_OK;
}

static enum mf_err answer_plain(struct sasl *s, char **ret)
{
	size_t user = strlen(s->user), secret = strlen(s->secret), len = user + secret + 2;
	char *message = mf_alloc(len + 1); /* RFC 4616: no authzid */
	memcpy(message + 1, s->user, user);
	memcpy(message + 2 + user, s->secret, secret);
	enum mf_err e = encode(message, len, ret);
	explicit_bzero(message, len);
	free(message);
	return e;
}

static enum mf_err answer_token(struct sasl *s, char **ret)
{
	char *message;
	if (s->mechanism->bit == AUTH_XOAUTH2) {
		message = mf_format("user=%s\1auth=Bearer %s\1\1", s->user, s->secret);
	} else { /* RFC 7628; in the GS2 header "," and "=" of the user are escaped (RFC 5801 4) */
		struct buf user;
		buf_init(&user, 4096);
		for (const char *p = s->user; *p; p++)
			(void)buf_adds(&user, *p == ',' ? "=2C" : *p == '=' ? "=3D" : (char[]){ *p, 0 });
		message = mf_format("n,a=%s,\1host=%s\1port=%u\1auth=Bearer %s\1\1", user.data, s->host, s->port, s->secret);
		buf_finish(&user);
	}
	enum mf_err e = encode(message, strlen(message), ret);
	credentials_release(message);
	return e;
}

/* A token's refusal comes as a challenge; the exchange ends with an answer that says nothing (RFC 7628 3.2.3). */
static enum mf_err take_refusal(struct sasl *s, const char *challenge, char **ret)
{
	char *text;
	size_t len;
	if (gsasl_base64_from(challenge, strlen(challenge), &text, &len) == GSASL_OK) {
		mf_printable(s->refusal, sizeof s->refusal, text, len);
		gsasl_free(text);
	}
	if (s->mechanism->bit == AUTH_XOAUTH2) {
		*ret = mf_strdup("");
		return MF_OK;
	}
	return encode("\1", 1, ret);
}

static enum mf_err answer_login(struct sasl *s, char **ret, struct mf_reason *why)
{
	if (s->step > 1)
		return mf_fail(why, MF_AUTH, "the server asked for more than a user name and a password");
	const char *word = s->step == 0 ? s->user : s->secret;
	return encode(word, strlen(word), ret);
}

/* SCRAM has the server say how often the password is hashed (RFC 5802 5.1), and libgsasl takes any number for it: hours of work
 * that nothing can interrupt. */
static bool asks_too_much(const char *challenge)
{
	char *text;
	size_t len;
	if (gsasl_base64_from(challenge, strlen(challenge), &text, &len) != GSASL_OK)
		return false;
	MF_CLEANUP(mf_free) char *line = mf_strndup(text, len);
	gsasl_free(text);
	const char *count = strstr(line, ",i=");
	return count && strtoull(count + 3, NULL, 10) > ITERATIONS_MAX;
}

static enum mf_err answer_gsasl(struct sasl *s, const char *challenge, char **ret, struct mf_reason *why)
{
	char *text = NULL;
	if (is_scram(s) && asks_too_much(challenge))
		return mf_fail(why, MF_AUTH, "%s: the server wants the password hashed more than %d times", s->mechanism->name, ITERATIONS_MAX);
	int rc = gsasl_step64(s->session, challenge, &text);
	if (rc != GSASL_OK && rc != GSASL_NEEDS_MORE) {
		gsasl_free(text);
		return mf_fail(why, rc == GSASL_SASLPREP_ERROR ? MF_INVALID : MF_AUTH, "%s: %s", s->mechanism->name, gsasl_strerror(rc));
	}
	s->proved = rc == GSASL_OK;
	*ret = mf_strdup(text ? text : "");
	gsasl_free(text);
	return MF_OK;
}

enum mf_err sasl_answer(struct sasl *s, const char *challenge, char **ret, struct mf_reason *why)
{
	enum mf_err e;
	if (s->mechanism->gsasl)
		e = answer_gsasl(s, challenge, ret, why);
	else if (s->mechanism->bit == AUTH_LOGIN)
		e = answer_login(s, ret, why);
	else if (s->step == 0)
		e = s->mechanism->bit == AUTH_PLAIN ? answer_plain(s, ret) : answer_token(s, ret);
	else if (s->step == 1 && sasl_is_token(s->mechanism->bit))
		e = take_refusal(s, challenge, ret);
	else
		e = mf_fail(why, MF_AUTH, "%s: the server asked for more than there is", s->mechanism->name);
	if (!e)
		s->step++;
	return e;
}

enum mf_err sasl_accepted(const struct sasl *s, struct mf_reason *why)
{
	if (is_scram(s) && !s->proved)
		return mf_fail(why, MF_AUTH, "the server did not prove that it knows the password");
	return MF_OK;
}

const char *sasl_refusal(const struct sasl *s)
{
	return s->refusal;
}

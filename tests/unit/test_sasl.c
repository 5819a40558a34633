#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gsasl.h>

#include "auth/credentials.h"
#include "auth/sasl.h"
#include "base/mem.h"

static struct sasl *create(enum auth_mechanism mechanism, const char *user, const char *secret)
{
	struct sasl *s = NULL;
	struct mf_reason why = { "" };
	struct sasl_options o = { .mechanism = mechanism, .user = user, .secret = secret, .host = "imap.test", .port = 993 };
	assert_int_equal(MF_OK, sasl_create(&o, &s, &why));
	return s;
}

static void assert_answer(struct sasl *s, const char *challenge, const char *expected)
{
	char *answer = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(MF_OK, sasl_answer(s, challenge, &answer, &why));
	assert_string_equal(expected, answer);
	credentials_release(answer);
}

static void assert_refuses(struct sasl *s, const char *challenge)
{
	char *answer = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(MF_AUTH, sasl_answer(s, challenge, &answer, &why));
	assert_null(answer);
	assert_true(why.text[0]);
}

static void choice(void **state)
{
	(void)state;
	unsigned all = AUTH_AUTO | AUTH_XOAUTH2 | AUTH_OAUTHBEARER;
	assert_int_equal(AUTH_PLAIN, sasl_choose(AUTH_AUTO, all, true));          /* one round trip, and nobody listens */
	assert_int_equal(AUTH_SCRAM_SHA_256, sasl_choose(AUTH_AUTO, all, false)); /* somebody may */
	assert_int_equal(AUTH_SCRAM_SHA_256, sasl_choose(AUTH_SCRAM_SHA_256 | AUTH_LOGIN, all, true));
	assert_int_equal(AUTH_CRAM_MD5, sasl_choose(AUTH_AUTO, AUTH_PLAIN | AUTH_CRAM_MD5, false));
	assert_int_equal(AUTH_LOGIN, sasl_choose(AUTH_AUTO, AUTH_LOGIN, true));
	assert_int_equal(AUTH_OAUTHBEARER, sasl_choose(AUTH_XOAUTH2 | AUTH_OAUTHBEARER, all, true));
	assert_int_equal(AUTH_XOAUTH2, sasl_choose(AUTH_XOAUTH2, all, true));
	assert_int_equal(0, sasl_choose(AUTH_AUTO, AUTH_XOAUTH2, true));           /* a password is no token */
	assert_string_equal("SCRAM-SHA-1", sasl_name(AUTH_SCRAM_SHA_1));
}

static void plain(void **state)
{
	(void)state;
	struct sasl *s = create(AUTH_PLAIN, "alice", "secret");
	assert_true(sasl_client_first(s));
	assert_answer(s, "", "AGFsaWNlAHNlY3JldA==");
	assert_refuses(s, "");
	assert_int_equal(MF_OK, sasl_accepted(s, NULL));
	sasl_destroy(s);
	sasl_destroy(NULL);
}

static void login(void **state)
{
	(void)state;
	struct sasl *s = create(AUTH_LOGIN, "alice", "secret");
	assert_false(sasl_client_first(s));
	assert_answer(s, "VXNlcm5hbWU6", "YWxpY2U=");
	assert_answer(s, "anything", "c2VjcmV0");
	assert_refuses(s, "");
	sasl_destroy(s);
}

static void tokens(void **state)
{
	(void)state;
	struct sasl *s = create(AUTH_OAUTHBEARER, "user,a=b@example.com", "tok"); /* n,a=user=2Ca=3Db@example.com,^A... */
	assert_answer(s, "", "bixhPXVzZXI9MkNhPTNEYkBleGFtcGxlLmNvbSwBaG9zdD1pbWFwLnRlc3QBcG9ydD05OTMBYXV0aD1CZWFyZXIgdG9rAQE=");
	assert_string_equal("", sasl_refusal(s));
	assert_answer(s, "eyJzdGF0dXMiOiJ4G1tteSJ9", "AQ==");
	assert_string_equal("{\"status\":\"x?[my\"}", sasl_refusal(s));
	assert_refuses(s, "");
	sasl_destroy(s);
	s = create(AUTH_XOAUTH2, "alice", "token");
	assert_answer(s, "", "dXNlcj1hbGljZQFhdXRoPUJlYXJlciB0b2tlbgEB");
	assert_answer(s, "%%% no base64", "");
	assert_string_equal("", sasl_refusal(s));
	sasl_destroy(s);
}

/* a server of libgsasl's own: both sides prove that they know the password */
static int server_callback(Gsasl *library, Gsasl_session *session, Gsasl_property property)
{
	(void)library;
	if (property == GSASL_PASSWORD)
		return gsasl_property_set(session, property, "pencil");
	return GSASL_NO_CALLBACK;
}

static void scram_with(enum auth_mechanism mechanism, bool right)
{
	Gsasl *library;
	Gsasl_session *server;
	assert_int_equal(GSASL_OK, gsasl_init(&library));
	gsasl_callback_set(library, server_callback);
	assert_int_equal(GSASL_OK, gsasl_server_start(library, sasl_name(mechanism), &server));
	struct sasl *s = create(mechanism, "us=er,", right ? "pencil" : "crayon");
	struct mf_reason why = { "" };
	char *challenge = mf_strdup(""), *answer;
	int rc = GSASL_NEEDS_MORE;
	for (int step = 0; step < 4 && rc == GSASL_NEEDS_MORE; step++) {
		char *next = NULL;
		assert_int_equal(MF_OK, sasl_answer(s, challenge, &answer, &why));
		rc = gsasl_step64(server, answer, &next);
		credentials_release(answer);
		free(challenge);
		challenge = mf_strdup(next ? next : "");
		gsasl_free(next);
	}
	assert_int_equal(right ? GSASL_OK : GSASL_AUTHENTICATION_ERROR, rc);
	assert_int_equal(MF_AUTH, sasl_accepted(s, &why)); /* the server's proof has not been looked at yet */
	if (right) {
		assert_int_equal(MF_OK, sasl_answer(s, challenge, &answer, &why));
		assert_string_equal("", answer);
		credentials_release(answer);
		assert_int_equal(MF_OK, sasl_accepted(s, &why));
	}
	free(challenge);
	sasl_destroy(s);
	gsasl_finish(server);
	gsasl_done(library);
}

static void scram(void **state)
{
	(void)state;
	scram_with(AUTH_SCRAM_SHA_1, true);
	scram_with(AUTH_SCRAM_SHA_256, true);
	scram_with(AUTH_SCRAM_SHA_256, false);
}

static void scram_nonsense(void **state)
{
	(void)state;
	struct sasl *s = create(AUTH_SCRAM_SHA_256, "alice", "secret");
	struct mf_reason why;
	char *answer;
	assert_int_equal(MF_OK, sasl_answer(s, "", &answer, &why));
	credentials_release(answer);
	assert_refuses(s, "cj1vdGhlcixzPWFhYWEsaT00MDk2"); /* r=other,s=aaaa,i=4096: not our nonce */
	sasl_destroy(s);
}

/* the first message of a server that wants the password hashed so often */
static char *server_first(struct sasl *s, const char *iterations)
{
	char *answer, *first, *challenge;
	size_t len;
	struct mf_reason why;
	assert_int_equal(MF_OK, sasl_answer(s, "", &answer, &why));
	assert_int_equal(GSASL_OK, gsasl_base64_from(answer, strlen(answer), &first, &len));
	credentials_release(answer);
	MF_CLEANUP(mf_free) char *own = mf_strndup(first, len);
	gsasl_free(first);
	MF_CLEANUP(mf_free) char *text = mf_format("%sserver,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=%s", strstr(own, "r="), iterations);
	assert_int_equal(GSASL_OK, gsasl_base64_to(text, strlen(text), &challenge, &len));
	char *ret = mf_strdup(challenge);
	gsasl_free(challenge);
	return ret;
}

/* nothing interrupts libgsasl while it hashes */
static void scram_without_end(void **state)
{
	(void)state;
	static const char *const counts[] = { "4000000000", "18446744073709551615", "99999999999999999999999999" };
	static const enum auth_mechanism mechanisms[] = { AUTH_SCRAM_SHA_1, AUTH_SCRAM_SHA_256 };
	for (size_t i = 0; i < 6; i++) {
		struct sasl *s = create(mechanisms[i % 2], "alice", "secret");
		MF_CLEANUP(mf_free) char *challenge = server_first(s, counts[i / 2]);
		assert_refuses(s, challenge);
		sasl_destroy(s);
	}
	struct sasl *s = create(AUTH_SCRAM_SHA_256, "alice", "secret");
	struct mf_reason why;
	char *answer;
	MF_CLEANUP(mf_free) char *challenge = server_first(s, "100000");
	assert_int_equal(MF_OK, sasl_answer(s, challenge, &answer, &why));
	credentials_release(answer);
	sasl_destroy(s);
}

static void control_characters(void **state)
{
	(void)state;
	static const char *const bad[] = { "a\nb", "a\rb", "a\1b" };
	for (size_t i = 0; i < 3; i++) {
		struct sasl *s = NULL;
		struct mf_reason why = { "" };
		assert_int_equal(MF_INVALID, sasl_create(&(struct sasl_options){ .mechanism = AUTH_PLAIN, .user = "x", .secret = bad[i] }, &s, &why));
		assert_int_equal(MF_INVALID, sasl_create(&(struct sasl_options){ .mechanism = AUTH_PLAIN, .user = bad[i], .secret = "x" }, &s, &why));
		assert_null(s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(choice), cmocka_unit_test(plain), cmocka_unit_test(login), cmocka_unit_test(tokens),
		cmocka_unit_test(scram), cmocka_unit_test(scram_nonsense), cmocka_unit_test(scram_without_end), cmocka_unit_test(control_characters) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

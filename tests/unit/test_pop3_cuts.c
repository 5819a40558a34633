/* The connection cut after every single byte of a session: what was told before the cut is what the whole session tells
 * (nothing wrong, nothing early), the verb that was cut fails as offline, and so does everything after it. */
#include <stdlib.h>
#include <string.h>

#include "support/pop3_script.c"

/* the R: lines as one text */
static char *expected(const struct imap_script *script)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].kind == 'R')
			(void)buf_addf(&b, "%s\n", script->lines[i].text);
	return buf_detach(&b);
}

static bool is_verdict(const char *line, const char *word)
{
	size_t len = strlen(word);
	return !strncmp(line, word, len) && line[len] == ' ';
}

static bool is_failed_verb(const char *line)
{
	bool verb = is_verdict(line, "login") || is_verdict(line, "list") || is_verdict(line, "changes") || is_verdict(line, "fetch");
	return verb && strstr(line, "MF_OFFLINE");
}

/* what the end of the connection stores: of messages that have been told */
static bool is_store_of_told(const char *line, const char *said)
{
	const char *put = is_verdict(line, "store") ? strstr(line, "gone= put=") : NULL;
	if (!put)
		return false;
	for (const char *p = put + 10; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
		char told[40];
		snprintf(told, sizeof told, "message 0 uid=%lu ", strtoul(p, NULL, 10));
		if (!strstr(said, told))
			return false;
	}
	return true;
}

/* what was told is a beginning of what the whole tells, and then only failures */
static void check_told(const char *whole, const char *said, size_t cut)
{
	const char *all = said;
	while (*said && strncmp(said, whole, strcspn(said, "\n") + 1) == 0) {
		size_t len = strcspn(said, "\n") + 1;
		said += len;
		whole += len;
	}
	while (*said) {
		size_t len = strcspn(said, "\n");
		char *line = mf_strndup(said, len);
		if (!is_failed_verb(line) && !is_store_of_told(line, all))
			fail_msg("cut after %zu bytes: \"%s\"", cut, line);
		free(line);
		said += len + 1;
	}
}

static void cut_everywhere(void **state)
{
	struct imap_script *script = imap_script_load(*state);
	size_t total = imap_script_check(script, &(struct imap_script_run){ .cut = SIZE_MAX });
	char *whole = expected(script), *said, *server;
	for (size_t cut = 0; cut < total; cut++) {
		imap_script_run(script, &(struct imap_script_run){ .cut = cut }, &said, &server);
		if (!strstr(said, "MF_OFFLINE"))
			fail_msg("cut after %zu of %zu bytes, and nobody noticed:\n%s", cut, total, said);
		check_told(whole, said, cut);
		free(said);
		free(server);
	}
	free(whole);
	imap_script_free(script);
}

/* Bytes of the session changed at random: nothing crashes, nothing hangs (the sanitizers and the test's time limit say). */
static void spoilt(void **state)
{
	const char *given = getenv("SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : 1;
	struct imap_script *script = imap_script_load(*state);
	char *said, *server;
	for (unsigned i = 0; i < 1500; i++) {
		unsigned one = seed * 1000003U + i;
		imap_script_run(script, &(struct imap_script_run){ .cut = SIZE_MAX, .seed = one ? one : 1 }, &said, &server);
		if (!strstr(said, "login MF_"))
			fail_msg("SEED=%u: the session said nothing of its login", seed);
		free(said);
		free(server);
	}
	imap_script_free(script);
}

int main(void)
{
	script_client = pop3_client;
	static char one[] = "tests/pop3/cuts.script", ahead[] = "tests/pop3/top-ahead-refused.script"; /* and where much is asked for ahead */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(cut_everywhere, one), cmocka_unit_test_prestate(cut_everywhere, ahead),
		cmocka_unit_test_prestate(spoilt, one), cmocka_unit_test_prestate(spoilt, ahead),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* mail/mutf7: modified UTF-7 (RFC 3501 5.1.3), strict both ways */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "mail/name.h"

static const struct { const char *mutf7, *utf8; } pairs[] = {
	{ "", "" },
	{ "INBOX", "INBOX" },
	{ "&-", "&" },
	{ "&-&-", "&&" },
	{ "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/\xe5\x8f\xb0\xe5\x8c\x97/\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e" },
	{ "&AOk-", "\xc3\xa9" },
	{ "&AOkA6Q-", "\xc3\xa9\xc3\xa9" },
	{ "&AOkA6QDp-", "\xc3\xa9\xc3\xa9\xc3\xa9" },
	{ "&AOk-&-&AOk-", "\xc3\xa9&\xc3\xa9" },
	{ "&AOk--", "\xc3\xa9-" },
	{ "&AOk-a", "\xc3\xa9" "a" },
	{ "&2D3eAA-", "\xf0\x9f\x98\x80" },
	{ "&2,,f,w-", "\xf4\x8f\xbf\xbf" },
	{ "&AAo-", "\n" },
	{ "&AH8-", "\x7f" },
	{ "&,,8-", "\xef\xbf\xbf" },
};

static void test_pairs(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		MF_CLEANUP(mf_free) char *decoded = NULL;
		MF_CLEANUP(mf_free) char *encoded = NULL;
		assert_int_equal(mutf7_decode(pairs[i].mutf7, strlen(pairs[i].mutf7), &decoded), MF_OK);
		assert_string_equal(decoded, pairs[i].utf8);
		assert_int_equal(mutf7_encode(pairs[i].utf8, &encoded), MF_OK);
		assert_string_equal(encoded, pairs[i].mutf7);
	}
}

static const char *const malformed[] = {
	"&", "a&", "&AOk", "&AOk&-", "&A-", "&AO-", "&AOl-" /* bits left over */, "&AOkA-", "&AOkAA-", "&AOk=-",
	"&AOk-&AOk-" /* two runs that are one */, "&AGE-" /* printable ASCII */, "&ACY-", "&AOkAYQ-", "&AAA-" /* U+0000 */,
	"&2D0-", "&3gA-", "&3gDYPQ-", "&2D3YPQ-", "&2D0A6Q-" /* lone surrogates */, "&AO/-" /* '/' is ',' here */, "& AOk-",
	"&AO k-", "\xc3\xa9", "a\nb", "\x7f", "&AOk\xc3-", "\x01", "&-&", "&AOk-&", "&AOk-&AAo-",
};

static void test_malformed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
		char *decoded = NULL;
		if (mutf7_decode(malformed[i], strlen(malformed[i]), &decoded) != MF_INVALID)
			fail_msg("%s is %s", malformed[i], decoded);
		assert_null(decoded);
	}
	char *text = NULL;
	assert_int_equal(mutf7_decode("a\0b", 3, &text), MF_INVALID);
	assert_int_equal(mutf7_decode("&AOk-", 4, &text), MF_INVALID); /* no byte behind the end */
	static const char *const not_utf8[] = { "\xff", "\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80" };
	for (size_t i = 0; i < sizeof not_utf8 / sizeof *not_utf8; i++)
		assert_int_equal(mutf7_encode(not_utf8[i], &text), MF_INVALID);
}

static gunichar random_char(GRand *rand)
{
	static const gint32 ends[] = { 0x80, 0x100, 0x800, 0x10000, 0x110000 };
	gunichar c = (gunichar)g_rand_int_range(rand, 1, ends[g_rand_int_range(rand, 0, 5)]);
	return c >= 0xd800 && c < 0xe000 ? '&' : c;
}

static void test_round_trip(void **state)
{
	(void)state;
	g_autoptr(GRand) rand = g_rand_new_with_seed(3501);
	for (int round = 0; round < 50000; round++) {
		char text[200], *to = text;
		for (gint32 n = g_rand_int_range(rand, 0, 30); n > 0; n--)
			to += g_unichar_to_utf8(random_char(rand), to);
		*to = '\0';
		MF_CLEANUP(mf_free) char *encoded = NULL;
		MF_CLEANUP(mf_free) char *decoded = NULL;
		assert_int_equal(mutf7_encode(text, &encoded), MF_OK);
		for (const char *p = encoded; *p; p++)
			assert_in_range(*p, 0x20, 0x7e);
		assert_int_equal(mutf7_decode(encoded, strlen(encoded), &decoded), MF_OK);
		assert_string_equal(decoded, text);
	}
}

/* What decodes at all is what encoding gives: so decoding is one-to-one */
static void test_decoding_is_canonical(void **state)
{
	(void)state;
	static const char alphabet[] = "&-AOk2D3eg,+ab";
	g_autoptr(GRand) rand = g_rand_new_with_seed(4);
	unsigned good = 0;
	for (int round = 0; round < 200000; round++) {
		char text[16];
		size_t len = (size_t)g_rand_int_range(rand, 0, 12);
		for (size_t i = 0; i < len; i++)
			text[i] = alphabet[g_rand_int_range(rand, 0, sizeof alphabet - 1)];
		text[len] = '\0';
		MF_CLEANUP(mf_free) char *decoded = NULL;
		MF_CLEANUP(mf_free) char *encoded = NULL;
		if (mutf7_decode(text, len, &decoded) != MF_OK)
			continue;
		good++;
		assert_int_equal(mutf7_encode(decoded, &encoded), MF_OK);
		assert_string_equal(encoded, text);
	}
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs), cmocka_unit_test(test_malformed), cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_decoding_is_canonical),
	};
	return cmocka_run_group_tests_name("mutf7", tests, NULL, NULL);
}

/* mail/name: names of messages and of mailboxes */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "mail/name.h"
#include "mail/text.h"

/* --- messages --- */

static const char *name_of(const char *sender, const char *subject, unsigned twin)
{
	static char name[MAIL_NAME_MAX + 1];
	struct mail_summary s = { .has_date = true, .date = 1795082400, .key = "k7f3q2mz" };
	MF_CLEANUP(mf_free) char *from = mf_strdup(sender);
	MF_CLEANUP(mf_free) char *text = mf_strdup(subject);
	s.from_name = from;
	s.subject = text;
	mail_message_name(&s, 0, twin, name);
	return name;
}

static const struct { const char *sender, *subject, *part; } name_cases[] = {
	{ "Alice Example", "Re: Q3 budget", "Alice-Example_Re-Q3-budget" },
	{ "alice+x@example.org", "a_b", "alice+x@example.org_a-b" },
	{ "", "", "unknown_no-subject" },
	{ " - ", "***", "unknown_no-subject" },
	{ "-a-", "--b--", "a_b" },
	{ ".a.", "..", "a._no-subject" },
	{ "../../etc/passwd", "a/../b", "etc-passwd_a-..-b" },
	{ "-.-.x", "[list] (x) {y} y.z", "x_list-x-y-y.z" },
	{ "a\x01\x1b[31m\nb", "\x7f" "c\t d", "a-31m-b_c-d" },
	/* letters, marks and digits of every script */
	{ "\xe6\x9d\x8e\xe6\x98\x8e", "\xe4\xbc\x9a\xe8\xae\xae\xef\xbc\x9a\xe5\x9b\x9b", "\xe6\x9d\x8e\xe6\x98\x8e_\xe4\xbc\x9a\xe8\xae\xae-\xe5\x9b\x9b" },
	{ "\xd8\xb9\xd9\x84\xd9\x8a", "\xd9\xa1\xd9\xa2 \xd8\xb3\xd9\x8e", "\xd8\xb9\xd9\x84\xd9\x8a_\xd9\xa1\xd9\xa2-\xd8\xb3\xd9\x8e" },
	{ "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87", "\xe0\xa5\xa7", "\xe0\xa4\xa8\xe0\xa4\xae\xe0\xa4\xb8\xe0\xa5\x8d\xe0\xa4\xa4\xe0\xa5\x87_\xe0\xa5\xa7" },
	/* NFC: composed, singletons, composed over what shows nothing */
	{ "e\xcc\x81", "\xe2\x84\xab \xe2\x84\xa6", "\xc3\xa9_\xc3\x85-\xce\xa9" },
	{ "e\xcd\x8f\xcc\x81", "\xe1\x84\x80\xe1\x85\xa1", "\xc3\xa9_\xea\xb0\x80" },
	/* emoji, joined by ZWJ, with a variation selector, a keycap */
	{ "\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb", "\xf0\x9f\x8e\x89 party \xe2\x9d\xa4\xef\xb8\x8f!", "unknown_party" },
	{ "1\xef\xb8\x8f\xe2\x83\xa3", "\xf0\x9f\x91\x8d\xf0\x9f\x8f\xbd", "1\xe2\x83\xa3_no-subject" },
	/* overrides, zero-width, byte order mark, line separator, no-break space */
	{ "a\xe2\x80\xae" "fdp.exe", "a\xe2\x80\x8b" "b\xef\xbb\xbf" "c\xe2\x80\xa8" "d\xc2\xa0" "e", "a-fdp.exe_a-b-c-d-e" },
	{ "\xe2\x81\xa6" "x\xe2\x81\xa9", "\xe2\x80\x8f\xd7\x90\xc2\xad\xd7\x91", "x_\xd7\x90-\xd7\x91" },
	/* marks with nothing to stand on, fillers */
	{ "\xcc\x81" "a", "- \xcc\x81 b.\xcc\x81" "c", "a_b.-c" },
	{ "\xe3\x85\xa4", "\xe1\x85\x9f\xef\xbe\xa0", "unknown_no-subject" },
	/* not letters, marks or digits */
	{ "\xc2\xb2\xe2\x85\xa7\xc2\xbd", "\xe2\x82\xac" "5", "unknown_5" },
	/* not UTF-8 */
	{ "a\xff" "b", "\xed\xa0\x80\xc3", "a-b_no-subject" },
	{ "\xef\xbf\xbd", "x\xef\xbf\xbd", "unknown_x" },
};

static void test_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof name_cases / sizeof *name_cases; i++) {
		MF_CLEANUP(mf_free) char *want = mf_format("2026-11-19_%s_k7f3q2mz.eml", name_cases[i].part);
		assert_string_equal(name_of(name_cases[i].sender, name_cases[i].subject, 0), want);
	}
}

static void test_address_for_a_name_of_nothing(void **state)
{
	(void)state;
	struct mail_summary s;
	char name[MAIL_NAME_MAX + 1];
	static const char header[] = "From: =?utf-8?B?8J+YgA==?= <a@b>\nMessage-ID: <x>\n\n";
	mail_summary_parse(header, sizeof header - 1, 1, &s);
	assert_string_equal(s.from_name, "\xf0\x9f\x98\x80");
	mail_message_name(&s, 0, 0, name);
	name[25] = '\0';
	assert_string_equal(name, "1970-01-01_a@b_no-subject");
	mail_summary_finish(&s);
	mail_message_name(&s, 0, 0, name); /* an empty summary has a name too */
	assert_string_equal(name, "1970-01-01_unknown_no-subject_.eml");
}

static void test_twins(void **state)
{
	(void)state;
	assert_string_equal(name_of("a", "b", 1), "2026-11-19_a_b_k7f3q2mz.eml");
	assert_string_equal(name_of("a", "b", 2), "2026-11-19_a_b_k7f3q2mz-2.eml");
	assert_string_equal(name_of("a", "b", UINT32_MAX), "2026-11-19_a_b_k7f3q2mz-4294967295.eml");
}

static void test_day(void **state)
{
	(void)state;
	static const struct { bool has; int64_t date, internal; const char *day; } cases[] = {
		{ true, 1795082400, 0, "2026-11-19" },        { true, 1795132799, 0, "2026-11-19" },
		{ true, 1795132800, 0, "2026-11-20" },        { false, 0, 1795082400, "2026-11-19" },
		{ true, 0, 1795082400, "1970-01-01" },        { false, 0, -1, "1970-01-01" },
		{ false, 0, INT64_MIN, "1970-01-01" },        { false, 0, INT64_MAX, "2099-12-31" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mail_summary s = { .has_date = cases[i].has, .date = cases[i].date, .key = "aaaaaaaa" };
		char name[MAIL_NAME_MAX + 1];
		mail_message_name(&s, cases[i].internal, 0, name);
		name[10] = '\0';
		assert_string_equal(name, cases[i].day);
	}
}

static char *repeat(const char *piece, size_t times)
{
	size_t len = strlen(piece);
	char *s = mf_alloc(len * times + 1);
	for (size_t i = 0; i < times; i++)
		memcpy(s + i * len, piece, len);
	return s;
}

static void test_cuts(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *as = repeat("a", 10000);
	MF_CLEANUP(mf_free) char *han = repeat("\xe4\xb8\xad", 10000);
	MF_CLEANUP(mf_free) char *dashes = repeat("a ", 5000);
	/* the subject gives way; a short sender leaves it room */
	const char *name = name_of("Alice", as, 0);
	assert_int_equal(strlen(name), MAIL_NAME_MAX);
	assert_true(strncmp(name, "2026-11-19_Alice_aaaa", 21) == 0);
	assert_string_equal(name + MAIL_NAME_MAX - 14, "a_k7f3q2mz.eml");
	/* a twin's suffix fits too */
	name = name_of("Alice", as, 4000000000);
	assert_int_equal(strlen(name), MAIL_NAME_MAX);
	assert_string_equal(name + MAIL_NAME_MAX - 25, "a_k7f3q2mz-4000000000.eml");
	/* a long sender has 60 bytes */
	name = name_of(as, "s", 0);
	assert_int_equal(strlen(name), 11 + 60 + 2 + 13);
	/* at a character */
	name = name_of(han, han, 0);
	assert_true(g_utf8_validate(name, -1, NULL));
	assert_int_equal(strlen(name), 11 + 60 + 1 + (200 - 72 - 13) / 3 * 3 + 13);
	/* no dash is left at a cut */
	name = name_of(dashes, dashes, 0);
	assert_non_null(strstr(name, "a_a-"));
	assert_non_null(strstr(name, "a_k7f3q2mz"));
}

/* A letter keeps all of its marks or goes with them; one with more marks than fit is cut among them */
static void test_cut_at_graphemes(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *letters = repeat("x\xcc\xb8", 200);
	const char *name = name_of(letters, "s", 0);
	assert_int_equal(strlen(name), 11 + 60 + 2 + 13);
	MF_CLEANUP(mf_free) char *marks = repeat("\xcc\xb8", 400);
	MF_CLEANUP(mf_free) char *zalgo = mf_format("x%s", marks);
	name = name_of(zalgo, "s", 0);
	assert_int_equal(strlen(name), 11 + 59 + 2 + 13);
	MF_CLEANUP(mf_free) char *behind = mf_format("abc%s", marks);
	assert_true(strncmp(name_of(behind, "s", 0), "2026-11-19_ab_s_", 16) == 0);
}

/* --- properties --- */

static gunichar random_char(GRand *rand)
{
	switch (g_rand_int_range(rand, 0, 8)) {
	case 0:
		return (gunichar)g_rand_int_range(rand, 1, 0x80);
	case 1:
		return (gunichar)g_rand_int_range(rand, 0x80, 0x700);
	case 2:
		return (gunichar)g_rand_int_range(rand, 0x300, 0x370);
	case 3:
		return (gunichar)g_rand_int_range(rand, 0x2000, 0x2100);
	case 4:
		return (gunichar)g_rand_int_range(rand, 0x1100, 0x1200);
	case 5:
		return (gunichar)g_rand_int_range(rand, 0x900, 0xd00);
	case 6:
		return (gunichar)g_rand_int_range(rand, 0xe000, 0x110000);
	default:
		return (gunichar)"-. /%&~@+"[g_rand_int_range(rand, 0, 9)];
	}
}

static void random_text(GRand *rand, char *to, gint32 count)
{
	for (; count > 0; count--)
		to += g_unichar_to_utf8(random_char(rand), to);
	*to = '\0';
}

static bool may_be_in_name(gunichar c)
{
	GUnicodeType type = g_unichar_type(c);
	return g_unichar_isalpha(c) || g_unichar_ismark(c) || type == G_UNICODE_DECIMAL_NUMBER || (c < 0x80 && strchr(".@+-_", (int)c));
}

/* Zero-width on its own, and neither a mark nor a Hangul vowel or final consonant (which join the syllable before them) */
static bool is_hidden(gunichar c)
{
	bool is_jamo = (c > 0x1160 && c < 0x1200) || (c >= 0xd7b0 && c < 0xd800);
	return g_unichar_iszerowidth(c) && !g_unichar_ismark(c) && !is_jamo;
}

static void assert_good_name(const char *name)
{
	assert_true(strlen(name) <= MAIL_NAME_MAX);
	assert_true(g_utf8_validate(name, -1, NULL));
	g_autofree char *nfc = g_utf8_normalize(name, -1, G_NORMALIZE_NFC);
	assert_string_equal(nfc, name);
	int parts = 0;
	bool start = true;
	for (const char *p = name; *p; p = text_next(p)) {
		gunichar c = g_utf8_get_char(p);
		assert_true(may_be_in_name(c));
		assert_false(is_hidden(c));
		assert_false(start && (c == '-' || c == '.' || g_unichar_ismark(c)));
		assert_false(c == '-' && (p[1] == '-' || p[1] == '_'));
		start = c == '_';
		parts += c == '_';
	}
	assert_int_equal(parts, 3);
	assert_string_equal(name + strlen(name) - 4, ".eml");
}

static void test_name_properties(void **state)
{
	(void)state;
	g_autoptr(GRand) rand = g_rand_new_with_seed(1);
	for (int round = 0; round < 6000; round++) {
		char sender[600], subject[1300];
		random_text(rand, sender, g_rand_int_range(rand, 0, 100));
		random_text(rand, subject, g_rand_int_range(rand, 0, 200));
		MF_CLEANUP(mf_free) char *first = mf_strdup(name_of(sender, subject, 0));
		assert_good_name(first);
		assert_string_equal(name_of(sender, subject, 0), first);
	}
}

/* Every assigned character (but private ones), alone and between letters */
static void test_every_character(void **state)
{
	(void)state;
	for (gunichar c = 1; c < 0x110000; c++) {
		if (c == 0xd800)
			c = 0xf900;
		if (c == 0x32400)
			c = 0xe0000;
		if (c == 0xe1000)
			break;
		char alone[8] = "", between[16] = "a";
		g_unichar_to_utf8(c, alone);
		strcat(between, alone);
		strcat(between, "b");
		assert_good_name(name_of(alone, between, 0));
	}
}

/* --- mailboxes --- */

static const struct { const char *level; bool utf8, root; const char *name; } level_cases[] = {
	{ "INBOX", false, true, "INBOX" },
	{ "Entw&APw-rfe", false, true, "Entw\xc3\xbcrfe" },
	{ "&ZeVnLIqe-", false, true, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e" },
	{ "&2D3eAA-", false, true, "\xf0\x9f\x98\x80" },
	{ "R&-D", false, true, "R&D" },
	{ "Entw\xc3\xbcrfe", true, true, "Entw\xc3\xbcrfe" },
	{ "R&D", true, true, "R&D" },
	{ "R&-D", true, true, "R&-D" },
	/* all of printable ASCII but '&' and '/' stands for itself */
	{ " !\"#$%'()*+,-.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~", false, true,
	  " !\"#$%'()*+,-.0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~" },
	{ "a/b", false, false, "a%2Fb" },
	{ "a/b", true, false, "a%2Fb" },
	{ "a/&APw-", false, false, "a%2F\xc3\xbc" },
	/* '%' */
	{ "100%", false, true, "100%" },
	{ "100% DE", false, true, "100% DE" },
	{ "%zz%2f", false, true, "%zz%2f" },
	{ "a%2Fb", false, true, "a%252Fb" },
	{ "%25", false, true, "%2525" },
	{ "%/", false, true, "%%2F" },
	{ "%2/", false, true, "%2%2F" },
	{ "%7E", false, true, "%257E" },
	/* dots and nothing */
	{ ".", false, false, "%2E" },
	{ "..", false, false, "%2E%2E" },
	{ "...", false, false, "..." },
	{ ".a", false, false, ".a" },
	{ "", false, false, "%7Eempty" },
	{ "%7Eempty", false, false, "%257Eempty" },
	/* not well-formed modified UTF-7 */
	{ "R&D", false, true, "R%26D" },
	{ "&APw", false, true, "%26APw" },
	{ "&APw-&APw-", false, true, "%26APw-%26APw-" },
	{ "&AGE-", false, true, "%26AGE-" },
	{ "&AC8-", false, true, "%26AC8-" },
	{ "&APw-&", false, true, "%26APw-%26" },
	{ "\xc3\xbc&APw-", false, true, "%C3%BC%26APw-" },
	{ "a\nb\x7f", false, true, "a%0Ab%7F" },
	{ "100%&", false, true, "100%%26" },
	{ "%26&", false, true, "%2526%26" },
	/* well-formed, but not to be shown: LF, override, line separator, noncharacter */
	{ "&AAo-", false, true, "%26AAo-" },
	{ "&IC4-a", false, true, "%26IC4-a" },
	{ "&ICg-", false, true, "%26ICg-" },
	{ "&,,8-", false, true, "%26,,8-" },
	{ "\xe2\x80\xae" "a\xff\n", true, true, "%E2%80%AEa%FF%0A" },
	/* reserved names */
	{ "outbox", false, true, "outbox~mailbox" },
	{ "outbox", false, false, "outbox" },
	{ "search", true, true, "search~mailbox" },
	{ ".mailfs", false, true, ".mailfs~mailbox" },
	{ ".nomedia", false, true, ".nomedia~mailbox" },
	{ "Outbox", false, true, "Outbox" },
	{ "outbox~mailbox", false, true, "outbox~mailbox~mailbox" },
	{ "outbox~mailbox", false, false, "outbox~mailbox~mailbox" },
	{ "outbox~mailbox~mailbox", false, true, "outbox~mailbox~mailbox~mailbox" },
	{ "x~mailbox", false, true, "x~mailbox" },
	{ "~mailbox", false, true, "~mailbox" },
};

static void test_levels(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof level_cases / sizeof *level_cases; i++) {
		char name[MAILBOX_NAME_MAX + 1];
		MF_CLEANUP(mf_free) char *level = NULL;
		const char *want = level_cases[i].level;
		bool utf8 = level_cases[i].utf8;
		mailbox_level_to_name(want, strlen(want), utf8, level_cases[i].root, name);
		assert_string_equal(name, level_cases[i].name);
		assert_int_equal(mailbox_name_to_level(name, 0, utf8, &level), MF_OK);
		assert_string_equal(level, want);
	}
}

static const struct { const char *name; char delimiter; bool utf8; } bad_names[] = {
	{ "", 0, false },            { ".", 0, false },           { "..", 0, false },          { "a/b", '/', false },
	{ "a/b", '.', false },       { "a.b", '.', false },       { "a%2Fb", '/', false },     { "a\nb", 0, false },
	{ "a\nb", 0, true },         { "a\x7f", 0, true },        { "\xff", 0, false },        { "\xff", 0, true },
	{ "\xed\xa0\x80", 0, true }, { "%41", 0, false },         { "%00", 0, false },         { "%00", 0, true },
	{ "%26", 0, true },          { "%26AGE-&", 0, false },    { "%26\xc3\xbc", 0, false }, { "%25", 0, false },
	{ "%C3%BC", 0, true },       { "%7E", 0, false },         { "%2E", '.', false },       { "%2E%2E%2E", 0, false },
	{ "\xe2\x80\xae", 0, false }, { "\xe2\x80\xae", 0, true }, { "a%7Ekkkkkkkkkkkkkkkk", 0, false }, { "\xc3\xbc", '&', false },
};

static void test_bad_names(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
		char *level = NULL;
		if (mailbox_name_to_level(bad_names[i].name, bad_names[i].delimiter, bad_names[i].utf8, &level) != MF_INVALID)
			fail_msg("%zu: %s is %s", i, bad_names[i].name, level);
	}
}

static void test_reserved(void **state)
{
	(void)state;
	assert_true(mailbox_name_is_reserved("outbox"));
	assert_true(mailbox_name_is_reserved(".nomedia"));
	assert_false(mailbox_name_is_reserved("outbox~mailbox"));
	assert_false(mailbox_name_is_reserved("INBOX"));
	assert_false(mailbox_name_is_reserved(""));
}

static void test_long_levels(void **state)
{
	(void)state;
	static const char *const pieces[] = { "a", "\xe4\xb8\xad", "/", "\xff", "&", "%25", "&APw-", "\xf0\x9f\x98\x80", "%" };
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		MF_CLEANUP(mf_free) char *long_one = repeat(pieces[i], 300);
		for (int offset = 0; offset < 4; offset++) {
			MF_CLEANUP(mf_free) char *one = mf_format("%.*s%s1", offset, "xyz", long_one);
			MF_CLEANUP(mf_free) char *two = mf_format("%.*s%s2", offset, "xyz", long_one);
			MF_CLEANUP(mf_free) char *level = NULL;
			char a[MAILBOX_NAME_MAX + 1], b[MAILBOX_NAME_MAX + 1];
			mailbox_level_to_name(one, strlen(one), true, false, a);
			mailbox_level_to_name(two, strlen(two), true, false, b);
			assert_true(strlen(a) > MAILBOX_NAME_MAX - 6);
			assert_true(g_utf8_validate(a, -1, NULL));
			assert_string_not_equal(a, b);
			assert_int_equal(mailbox_name_to_level(a, 0, true, &level), MF_INVALID);
		}
	}
	MF_CLEANUP(mf_free) char *fits = repeat("a", MAILBOX_NAME_MAX);
	char name[MAILBOX_NAME_MAX + 1];
	mailbox_level_to_name(fits, MAILBOX_NAME_MAX, false, false, name);
	assert_string_equal(name, fits);
}

/* Short levels over a small alphabet of what is special, all of them: every name is a file name of its own, and leads back */
static void test_levels_are_one_to_one(void **state)
{
	(void)state;
	static const char *const pieces[] = { "%", "2", "F", "&", "-", "/", "A", "\xc3", "\xa9", ".", "&APw-", "~", "7", "E", "6" };
	for (int mode = 0; mode < 4; mode++) {
		g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
		for (int n = 0; n < 15 * 15 * 15 * 15; n++) {
			char level[32] = "", name[MAILBOX_NAME_MAX + 1];
			for (int k = 0, rest = n; k < 4; k++, rest /= 15)
				strcat(level, pieces[rest % 15]);
			mailbox_level_to_name(level, strlen(level), mode & 1, mode & 2, name);
			assert_null(strchr(name, '/'));
			assert_true(g_utf8_validate(name, -1, NULL));
			assert_true(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
			char *back = NULL;
			assert_int_equal(mailbox_name_to_level(name, 0, mode & 1, &back), MF_OK);
			assert_string_equal(back, level);
			free(back);
			const char *other = g_hash_table_lookup(seen, name);
			if (other)
				assert_string_equal(other, level); /* pieces can spell one level in two ways */
			else
				g_hash_table_insert(seen, g_strdup(name), g_strdup(level));
		}
	}
}

/* What is accepted as a name is what its level is shown as */
static void test_names_are_one_to_one(void **state)
{
	(void)state;
	g_autoptr(GRand) rand = g_rand_new_with_seed(2);
	unsigned accepted = 0;
	for (int round = 0; round < 20000; round++) {
		char name[300], shown[MAILBOX_NAME_MAX + 1];
		random_text(rand, name, g_rand_int_range(rand, 1, 12));
		bool utf8 = round & 1;
		MF_CLEANUP(mf_free) char *level = NULL;
		if (mailbox_name_to_level(name, 0, utf8, &level) != MF_OK)
			continue;
		accepted++;
		mailbox_level_to_name(level, strlen(level), utf8, true, shown);
		assert_string_equal(shown, name);
	}
	assert_true(accepted > 2000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names), cmocka_unit_test(test_address_for_a_name_of_nothing),
		cmocka_unit_test(test_twins), cmocka_unit_test(test_day), cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_cut_at_graphemes), cmocka_unit_test(test_name_properties), cmocka_unit_test(test_every_character),
		cmocka_unit_test(test_levels), cmocka_unit_test(test_bad_names), cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_long_levels), cmocka_unit_test(test_levels_are_one_to_one), cmocka_unit_test(test_names_are_one_to_one),
	};
	return cmocka_run_group_tests_name("name", tests, NULL, NULL);
}

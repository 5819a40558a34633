/* mail/summary: header fields of every shape to a summary */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/date.h"
#include "mail/summary.h"

static struct mail_summary parse(const char *header)
{
	struct mail_summary s;
	mail_summary_parse(header, strlen(header), 1000, &s);
	return s;
}

/* --- fields --- */

struct field_case { const char *header, *from, *from_name, *to, *subject, *id; };

static const struct field_case field_cases[] = {
	{ "From: Alice Example <alice@example.org>\r\nTo: bob@example.org\r\nSubject: Re: Q3 budget\r\nMessage-ID: <a@b>\r\n\r\nSubject: x",
	  "Alice Example <alice@example.org>", "Alice Example", "bob@example.org", "Re: Q3 budget", "a@b" },
	/* LF, any case, white space before the colon, none behind it */
	{ "FROM:a@b\nsubject \t:s\nMESSAGE-id:<i>\n\n", "a@b", "a@b", "", "s", "i" },
	/* folding, tabs, a fold at the very start, white space at the ends */
	{ " Subject: no\nSubject:\r\n one\r\n\ttwo  \r\nTo: a@b,\r\n  c@d\r\n", "", "", "a@b, c@d", "one two", "" },
	/* mbox line, stray lines with and without folds, no separator */
	{ "From alice Thu Nov 19 10:00:00 2026\nstray\n fold: x\n: no name\nbad name: x\nSubject: s\nthe text: begins", "", "", "", "s", "" },
	/* the first of several wins */
	{ "Subject: one\nMessage-ID: <1>\nFrom: a@b\nSubject: two\nMessage-ID: <2>\nFrom: c@d\n", "a@b", "a@b", "", "one", "1" },
	{ "", "", "", "", "", "" },
	{ "\nSubject: body\n", "", "", "", "", "" },
	{ "Subject:\nFrom:\nTo:\nMessage-ID:\nDate:", "", "", "", "", "" },
	/* names are whole names */
	{ "X-Subject: x\nSubjects: y\nSubj: z\n", "", "", "", "", "" },
	/* control characters and escape sequences */
	{ "Subject: a\x01\x1b[31mb\x7f\tc\r d\xc2\x9b" "e\n", "", "", "", "a [31mb c d e", "" },
	/* raw UTF-8, UTF-8 with a broken byte, windows-1252 */
	{ "Subject: \xe4\xb8\xad\xe6\x96\x87\nFrom: \xd8\xb9 <a@b>\n", "\xd8\xb9 <a@b>", "\xd8\xb9", "", "\xe4\xb8\xad\xe6\x96\x87", "" },
	{ "Subject: caf\xc3\xa9 \xff!\n", "", "", "", "caf\xc3\xa9 \xef\xbf\xbd!", "" },
	{ "Subject: caf\xe9 \x93q\x94\nTo: \xe9 <a@b>\n", "", "", "\xc3\xa9 <a@b>", "caf\xc3\xa9 \xe2\x80\x9cq\xe2\x80\x9d", "" },
	/* message ids */
	{ "Message-ID: <a@b> (added by x)\n", "", "", "", "", "a@b" },
	{ "Message-ID:\r\n <a@\r\n b>\r\n", "", "", "", "", "a@b" },
	{ "Message-ID: plain@x more\n", "", "", "", "", "plain@x" },
	{ "Message-ID: <open@x\n", "", "", "", "", "open@x" },
};

static void test_fields(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof field_cases / sizeof *field_cases; i++) {
		const struct field_case *c = &field_cases[i];
		struct mail_summary s = parse(c->header);
		assert_string_equal(s.from, c->from);
		assert_string_equal(s.from_name, c->from_name);
		assert_string_equal(s.to, c->to);
		assert_string_equal(s.subject, c->subject);
		assert_string_equal(s.message_id, c->id);
		mail_summary_finish(&s);
	}
}

static void test_nul_bytes(void **state)
{
	(void)state;
	static const char header[] = "Subject: a\0b\nFrom: x\0 <a@b>\n\0\0: y\nTo: c@d\n";
	struct mail_summary s;
	mail_summary_parse(header, sizeof header - 1, 1, &s);
	assert_string_equal(s.subject, "a\xef\xbf\xbd" "b");
	assert_string_equal(s.from, "x\xef\xbf\xbd <a@b>");
	assert_string_equal(s.to, "c@d");
	mail_summary_finish(&s);
	mail_summary_finish(&s); /* a zeroed one is fine */
}

/* --- RFC 2047 --- */

static const struct { const char *raw, *decoded; } word_cases[] = {
	{ "=?utf-8?B?w6k=?= x", "\xc3\xa9 x" },
	{ "=?UTF-8?q?a_b=C3=A9?=", "a b\xc3\xa9" },
	{ "a =?utf-8?Q?b?=   =?utf-8?Q?c?= d", "a bc d" },
	{ "=?utf-8?Q?a?=\r\n =?utf-8?Q?b?=", "ab" },
	/* split in mid-character: by padding, by length, over encodings, over a fold */
	{ "=?utf-8?B?ww==?= =?utf-8?B?qQ==?=", "\xc3\xa9" },
	{ "=?utf-8?B?8J+Y?= =?utf-8?B?gA?=", "\xf0\x9f\x98\x80" },
	{ "=?utf-8?B?ww==?=\r\n =?UTF-8?Q?=A9?=", "\xc3\xa9" },
	{ "=?iso-2022-jp?B?GyRCRnw=?= =?iso-2022-jp?B?S1wbKEI=?=", "\xe6\x97\xa5\xe6\x9c\xac" },
	{ "=?gb2312?B?1tDOxA==?=", "\xe4\xb8\xad\xe6\x96\x87" },
	{ "=?big5?B?pKQ=?= =?euc-kr?B?x9E=?=", "\xe4\xb8\xad\xed\x95\x9c" },
	{ "=?koi8-r?B?z8s=?=", "\xd0\xbe\xd0\xba" },
	{ "=?windows-1256?Q?=DA?=", "\xd8\xb9" },
	{ "=?iso-8859-1?Q?=93caf=E9=94?=", "\xe2\x80\x9c" "caf\xc3\xa9\xe2\x80\x9d" },
	/* unknown charsets keep their text */
	{ "=?x-unknown?Q?caf=E9?=", "caf\xc3\xa9" },
	{ "=?unknown-8bit?Q?caf=C3=A9?=", "caf\xc3\xa9" },
	{ "=?us-ascii?Q?caf=C3=A9?=", "caf\xc3\xa9" },
	{ "=?utf-8//TRANSLIT?Q?a?=", "=?utf-8//TRANSLIT?Q?a?=" },
	/* language, case, empty, in the middle of a word */
	{ "=?utf-8*en?Q?a?=", "a" },
	{ "=?utf-8?Q?" "?= b", "b" },
	{ "x=?utf-8?Q?a?=y", "xay" },
	/* broken ones */
	{ "=?utf-8?Q?caf=E9?=", "caf\xef\xbf\xbd" },
	{ "=?utf-8?q?=ED=A0=80?=x", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx" },
	{ "=?utf-8?Q?a=0?=", "a=0" },
	{ "=?utf-8?X?aa?=", "=?utf-8?X?aa?=" },
	{ "=?utf-8?Q?open", "=?utf-8?Q?open" },
	{ "=??Q?a?= =? =?= ?=", "=??Q?a?= =? =?= ?=" },
	{ "=?utf-8?Q?a b?=", "a b" },
	{ "=?utf-8?Q?a=00=0D=0AX-Bad:_y=1B[0m?=", "a\xef\xbf\xbd X-Bad: y [0m" },
};

static void test_encoded_words(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof word_cases / sizeof *word_cases; i++) {
		MF_CLEANUP(mf_free) char *header = mf_format("Subject: %s\r\n\r\n", word_cases[i].raw);
		struct mail_summary s = parse(header);
		assert_string_equal(s.subject, word_cases[i].decoded);
		mail_summary_finish(&s);
	}
}

/* --- addresses --- */

static const struct { const char *raw, *from, *name; } from_cases[] = {
	{ "Alice <a@b>", "Alice <a@b>", "Alice" },
	{ "\"Example, Alice\" <a@b>", "\"Example, Alice\" <a@b>", "Example, Alice" },
	{ "Example, Alice <a@b>", "\"Example, Alice\" <a@b>", "Example, Alice" },
	{ "\"Alice \\\"Q\\\" E\" <a@b>", "\"Alice \\\"Q\\\" E\" <a@b>", "Alice \"Q\" E" },
	{ "a@b (Alice (the) E)", "\"Alice (the) E\" <a@b>", "Alice (the) E" },
	{ "J. R. Doe <a@b>, c@d", "J. R. Doe <a@b>", "J. R. Doe" },
	{ "=?utf-8?Q?Ex=2C_Al?= <a@b>", "\"Ex, Al\" <a@b>", "Ex, Al" },
	{ "=?utf-8?Q?Ex,_<Al>?= <a@b>", "\"Ex, <Al>\" <a@b>", "Ex, <Al>" },
	{ "\"=?utf-8?B?w6k=?=\" <a@b>", "\xc3\xa9 <a@b>", "\xc3\xa9" },
	{ "\"alice@b\" <evil@x>", "\"alice@b\" <evil@x>", "alice@b" },
	{ "a@b", "a@b", "a@b" },
	/* the space in quotes is of the address, the others are not */
	{ "\"alice q\" @ b", "\"alice q\"@b", "\"alice q\"@b" },
	{ "Alice < \"alice \\\" q\" @ b >", "Alice <\"alice \\\" q\"@b>", "Alice" },
	{ "<a@b>", "a@b", "a@b" },
	{ "<a@b", "a@b", "a@b" },
	{ "Alice <<a@b>>", "Alice <a@b>", "Alice" },
	{ "Alice <a @ b>", "Alice <a@b>", "Alice" },
	{ "Alice [x] <a@b>", "\"Alice [x]\" <a@b>", "Alice [x]" },
	{ "<@x,@y:a@b>", "a@b", "a@b" },
	{ "Team: , Alice <a@b>, c@d;", "Alice <a@b>", "Alice" },
	{ "mailto:a@b", "a@b", "a@b" },
	{ "Alice", "Alice", "Alice" },
	{ "Alice <>", "Alice", "Alice" },
	{ "Nobody:;", "Nobody:;", "Nobody:;" },
	{ "Nobody <>; Alice <a@b>", "Alice <a@b>", "Alice" },
	{ "<>", "<>", "<>" },
	{ ",,;", ",,;", ",,;" },
	{ "\"open <a@b>", "open <a@b>", "open <a@b>" },
	{ "(open <a@b>", "open <a@b>", "open <a@b>" },
	{ "\"a b\"@c", "\"a b\"@c", "\"a b\"@c" },
};

static void test_from(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof from_cases / sizeof *from_cases; i++) {
		MF_CLEANUP(mf_free) char *header = mf_format("From: %s\r\n\r\n", from_cases[i].raw);
		struct mail_summary s = parse(header);
		assert_string_equal(s.from, from_cases[i].from);
		assert_string_equal(s.from_name, from_cases[i].name);
		mail_summary_finish(&s);
	}
}

static void test_to(void **state)
{
	(void)state;
	struct mail_summary s = parse("To: A <a@b>, \"C, D\" <c@d>,\r\n =?utf-8?B?w6k=?= <e@f>, G: h@i;\n");
	assert_string_equal(s.to, "A <a@b>, \"C, D\" <c@d>, \xc3\xa9 <e@f>, h@i");
	mail_summary_finish(&s);
	s = parse("To: undisclosed-recipients:;\n");
	assert_string_equal(s.to, "undisclosed-recipients:;");
	mail_summary_finish(&s);
}

/* --- dates --- */

#define NOON_ISH INT64_C(1795082400) /* 2026-11-19 10:00:00 UTC */

static const struct { const char *raw; int64_t date; } date_cases[] = {
	{ "Thu, 19 Nov 2026 10:00:00 +0000", NOON_ISH },
	{ "Thu, 19 Nov 2026 11:00:00 +0100", NOON_ISH },
	{ "Thu,19 Nov 2026 11:00:00+0100 (CET)", NOON_ISH },
	{ "19 Nov 2026 10:00 GMT", NOON_ISH },
	{ "Thu (x), 19 (y (z)) Nov 2026 05:00:00 (w) EST", NOON_ISH },
	{ "Thu, 19 Nov 26 02:00:00 PST", NOON_ISH },
	{ "Thu, 19 Nov 126 10:00:00 -0000", NOON_ISH },
	{ "Thu Nov 19 10:00:00 2026", NOON_ISH },
	{ "Thu Nov 19 02:00:00 -0800 2026", NOON_ISH },
	{ "Thu Nov 19 02:00:00 PST 2026", NOON_ISH },
	{ "2026-11-19 10:00:00", NOON_ISH },
	{ "2026-11-19T11:00:00.123+01:00", NOON_ISH },
	{ "2026-11-19T10:00:00Z", NOON_ISH },
	{ "19-Nov-2026 10:00:00 +0000", NOON_ISH },
	{ "19 November 2026 10.00.00 +0000", NOON_ISH },
	{ "Thursday, November 19, 2026 10:00 AM", NOON_ISH },
	{ "Thu, 19 Nov 2026 10:00:00 PM", NOON_ISH + 12 * 3600 },
	{ "Thu, 19 Nov 2026 12:00:00 AM", NOON_ISH - 10 * 3600 },
	{ "Thu, 19 Nov 2026 10:00:00 Z", NOON_ISH },
	{ "Thu, 19 Nov 2026 10:00:00 K", NOON_ISH },
	{ "Thu, 19 Nov 2026 10:00:00 +9999", NOON_ISH },
	{ "Thu, 19 Nov 2026 10:00:00 WHAT", NOON_ISH },
	{ "Thu, 19 Nov 2026", NOON_ISH - 10 * 3600 },
	{ "mar. 17 nov. 2026 11:00:00 +0100", NOON_ISH - 2 * 86400 }, /* mardi, martes: no month */
	{ "mar, 17 mar 2026 11:00:00 +0100", 1773741600 },
	{ "Sat, 31 Dec 2016 23:59:60 +0000", 1483228799 },
	{ "29 Feb 2024 00:00:00 +0000", 1709164800 },
	{ "19 Nov 98 10:00:00 +0000", 911469600 },
	{ "1 Jan 1970 00:00:00 +0000", 0 },
	{ "31 Dec 1969 23:00:00 -0100", 0 },
	{ "31 Dec 2099 23:59:59 +0000", MAIL_DATE_END - 1 },
	/* none, absurd */
	{ "", -1 }, { "hello", -1 }, { "Nov", -1 }, { "12", -1 },
	{ "31 Feb 2026 10:00:00 +0000", -1 },
	{ "29 Feb 2025 10:00:00 +0000", -1 },
	{ "0 Nov 2026 10:00:00 +0000", -1 },
	{ "19 Nov 2026 24:00:00 +0000", -1 },
	{ "19 Nov 2026 10:60:00 +0000", -1 },
	{ "19 Nov 2026 10:00:61 +0000", -1 },
	{ "19 Nov 0026 10:00:00 +0000", -1 },
	{ "19 Nov 10000 10:00:00 +0000", -1 },
	{ "1 Jan 1970 00:00:00 +0100", -1 },
	{ "31 Dec 2099 23:59:59 -0100", -1 },
	{ "1 Jan 2100 00:00:00 +0000", -1 },
	{ "Tue, 1 Jul 1969 00:00:00 +0000", -1 },
	{ "99999999999999999999999999", -1 },
	{ "11/19/2026 10:00:00", -1 },
};

static void test_dates(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof date_cases / sizeof *date_cases; i++) {
		MF_CLEANUP(mf_free) char *header = mf_format("Date: %s\r\n\r\n", date_cases[i].raw);
		struct mail_summary s = parse(header);
		if (s.has_date != (date_cases[i].date >= 0) || (s.has_date && s.date != date_cases[i].date))
			fail_msg("%s: %d %lld", date_cases[i].raw, s.has_date, (long long)s.date);
		mail_summary_finish(&s);
	}
}

/* as the C library has them */
static void test_every_day(void **state)
{
	(void)state;
	for (int64_t t = 0, read; t < MAIL_DATE_END; t += 86400 + 1) {
		time_t seconds = (time_t)t;
		struct tm tm;
		char day[11], expected[11], text[40];
		assert_non_null(gmtime_r(&seconds, &tm));
		strftime(expected, sizeof expected, "%Y-%m-%d", &tm);
		mail_date_format_day(t, day);
		assert_string_equal(day, expected);
		strftime(text, sizeof text, "%d %b %Y %H:%M:%S +0000", &tm);
		assert_true(mail_date_parse(text, strlen(text), &read));
		assert_int_equal(read, t);
	}
}

static void test_first_date_counts(void **state)
{
	(void)state;
	struct mail_summary s = parse("Date: nonsense\nDate: Thu, 19 Nov 2026 10:00:00 +0000\n\n");
	assert_false(s.has_date);
	mail_summary_finish(&s);
}

/* --- the key --- */

static void assert_key(const char *header, uint64_t size, const char *key)
{
	struct mail_summary s;
	mail_summary_parse(header, strlen(header), size, &s);
	assert_string_equal(s.key, key);
	mail_summary_finish(&s);
}

/* The keys below were computed by other programs (sha256sum, base32): they are on users' disks and may never change */
static void test_key(void **state)
{
	(void)state;
	assert_key("Message-ID: <alice@example.org>\r\n\r\n", 1, "pjsk34uh");
	assert_key("message-id :\n  < alice@example.org\n >\nSubject: other\n", 2, "pjsk34uh");
	assert_key("Date: d\r\nFrom: f\r\n g\r\nSubject: s\r\n\r\n", 123, "nb52x3hh");
	assert_key("Subject: s\nMessage-ID: <>\nFrom: f g\nDate:   d\n", 123, "nb52x3hh");
	assert_key("", 0, "2p5fymtk");
}

static void test_key_tells_apart(void **state)
{
	(void)state;
	static const char *const headers[] = {
		"Date: d\n", "From: d\n", "Subject: d\n", "Subject: e\n", "Message-ID: <d>\n", "Message-ID: <e>\n", "To: d\n",
	};
	struct mail_summary all[7];
	for (size_t i = 0; i < 7; i++)
		all[i] = parse(headers[i]);
	for (size_t i = 0; i < 7; i++)
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(all[i].key, all[k].key);
	for (size_t i = 0; i < 7; i++)
		mail_summary_finish(&all[i]);
}

/* Ids that are the same in what is kept of them still have keys of their own */
static void test_long_ids(void **state)
{
	(void)state;
	char header[5000];
	snprintf(header, sizeof header, "Message-ID: <%04000d1>\n", 0);
	struct mail_summary a = parse(header);
	snprintf(header, sizeof header, "Message-ID: <%04000d2>\n", 0);
	struct mail_summary b = parse(header);
	assert_int_equal(strlen(a.message_id), MAIL_SUMMARY_VALUE_MAX);
	assert_string_equal(a.message_id, b.message_id);
	assert_string_not_equal(a.key, b.key);
	mail_summary_finish(&a);
	mail_summary_finish(&b);
}

/* --- limits --- */

static void assert_sane(const struct mail_summary *s)
{
	const char *const all[] = { s->from, s->from_name, s->to, s->subject, s->message_id };
	for (size_t i = 0; i < 5; i++) {
		assert_non_null(all[i]);
		assert_true(strlen(all[i]) <= MAIL_SUMMARY_VALUE_MAX);
		assert_true(g_utf8_validate(all[i], -1, NULL));
		for (const unsigned char *p = (const unsigned char *)all[i]; *p; p++)
			assert_true(*p >= 0x20 && *p != 0x7f);
	}
	assert_int_equal(strspn(s->key, "abcdefghijklmnopqrstuvwxyz234567"), 8);
	assert_int_equal(strlen(s->key), 8);
}

/* A field made of one piece again and again: none may take more than linear time, or more than its limit */
static void test_repeated_pieces(void **state)
{
	(void)state;
	static const char *const pieces[] = {
		"a@b, ", "<", ">", "(", ")", "\"", "\\", "((\\", "=?utf-8?Q?a?= ", "=?x?Q?=E9?= ", "=?gbk?B?1tA=?= =?big5?B?pKQ=?= ",
		"=?a?B?", "=?", "?=", "g:", "a:;", "@", ",", ";", ":", ".", "[", "a ", "\n ", "\r", "\xff", "\xe4\xb8\xad", "\xcc\x81",
		"\xe2\x80\xae", "1 ", "+0100 ", "a,", "\"a\",", "=?utf-7?Q?+AOk-?= ", "x",
	};
	static const char *const fields[] = { "From", "To", "Subject", "Date", "Message-ID" };
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		for (size_t f = 0; f < 5; f++) {
			struct buf header;
			buf_init(&header, 1 << 20);
			buf_addf(&header, "%s: ", fields[f]);
			while (header.len < 300000)
				buf_adds(&header, pieces[i]);
			struct mail_summary s;
			mail_summary_parse(header.data, header.len, header.len, &s);
			assert_sane(&s);
			mail_summary_finish(&s);
			buf_finish(&header);
		}
	}
}

static void test_long_subject_is_cut_at_a_character(void **state)
{
	(void)state;
	struct buf header;
	buf_init(&header, 1 << 20);
	buf_adds(&header, "Subject: ");
	for (int i = 0; i < 10000; i++)
		buf_adds(&header, "\xe4\xb8\xad");
	struct mail_summary s = parse(header.data);
	assert_int_equal(strlen(s.subject), MAIL_SUMMARY_VALUE_MAX / 3 * 3);
	assert_sane(&s);
	mail_summary_finish(&s);
	buf_finish(&header);
}

static void test_long_subject_is_cut_before_a_space(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *header = mf_format("Subject: %*s b\n", MAIL_SUMMARY_VALUE_MAX - 1, "");
	memset(header + 9, 'a', MAIL_SUMMARY_VALUE_MAX - 1);
	struct mail_summary s = parse(header);
	assert_int_equal(strlen(s.subject), MAIL_SUMMARY_VALUE_MAX - 1);
	mail_summary_finish(&s);
}

static void test_long_line_before(void **state)
{
	(void)state;
	struct buf header;
	buf_init(&header, 4 << 20);
	buf_adds(&header, "X-Long: ");
	for (int i = 0; i < 1 << 17; i++)
		buf_adds(&header, "01234567");
	buf_adds(&header, "\r\nSubject: s\r\n");
	struct mail_summary s = parse(header.data);
	assert_string_equal(s.subject, "s");
	mail_summary_finish(&s);
	buf_finish(&header);
}

static void test_to_is_whole_addresses(void **state)
{
	(void)state;
	struct buf header;
	buf_init(&header, 8 << 20);
	buf_adds(&header, "To: ");
	for (int i = 0; i < 100000; i++)
		buf_addf(&header, "user%d@example.org,\r\n ", i);
	struct mail_summary s = parse(header.data);
	assert_true(strlen(s.to) > MAIL_SUMMARY_VALUE_MAX - 30);
	assert_string_equal(s.to + strlen(s.to) - 12, "@example.org");
	mail_summary_finish(&s);
	buf_finish(&header);
}

/* Seeded noise made of what headers are made of */
static void test_noise(void **state)
{
	(void)state;
	static const char *const pieces[] = {
		"From", "Subject", "Date", "To", "Message-ID", ":", ": ", "\r\n", "\n", "\n ", "=?utf-8?B?", "=?utf-8?Q?", "=?iso-2022-jp?B?",
		"?=", "=C3", "w6k=", "<", ">", "@", "\"", "(", ")", ",", ";", "\\", "\xc3", "\xa9", "\xf0\x9f\x98\x80", "a", "19 Nov 2026", "\x1b",
	};
	g_autoptr(GRand) rand = g_rand_new_with_seed(20261119);
	for (int round = 0; round < 5000; round++) {
		struct buf header;
		buf_init(&header, 1 << 16);
		for (gint32 n = g_rand_int_range(rand, 0, 60); n > 0; n--) {
			const char *piece = pieces[g_rand_int_range(rand, 0, (gint32)(sizeof pieces / sizeof *pieces))];
			buf_add(&header, piece, strlen(piece) + (g_rand_int_range(rand, 0, 40) == 0));
		}
		struct mail_summary a, b;
		mail_summary_parse(header.data, header.len, 7, &a);
		mail_summary_parse(header.data, header.len, 7, &b);
		assert_sane(&a);
		assert_string_equal(a.from, b.from);
		assert_string_equal(a.key, b.key);
		mail_summary_finish(&a);
		mail_summary_finish(&b);
		buf_finish(&header);
	}
}

/* --- is it a message --- */

static void test_looks_like_message(void **state)
{
	(void)state;
	static const char *const yes[] = { "To: bob", "a:", "From x y\nTo: bob", "X-Foo \t: b", "Subject:\r\n", "To:\xff" };
	static const char *const no[] = { "", ":", " To: bob", "\nTo: bob", "hello world", "hello world: x", "\xef\xbb\xbfTo: b", "From x\n", "From ",
	                                  "To\n: x", "\177ELF:", "caf\xc3\xa9: x" };
	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(mail_looks_like_message(yes[i], strlen(yes[i])));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(mail_looks_like_message(no[i], strlen(no[i])));
	assert_false(mail_looks_like_message(NULL, 0));
	assert_false(mail_looks_like_message("To:", 2)); /* no byte behind the end */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields), cmocka_unit_test(test_nul_bytes), cmocka_unit_test(test_encoded_words),
		cmocka_unit_test(test_from), cmocka_unit_test(test_to), cmocka_unit_test(test_dates), cmocka_unit_test(test_every_day),
		cmocka_unit_test(test_first_date_counts), cmocka_unit_test(test_key), cmocka_unit_test(test_key_tells_apart),
		cmocka_unit_test(test_long_ids), cmocka_unit_test(test_repeated_pieces),
		cmocka_unit_test(test_long_subject_is_cut_at_a_character), cmocka_unit_test(test_long_subject_is_cut_before_a_space),
		cmocka_unit_test(test_long_line_before),
		cmocka_unit_test(test_to_is_whole_addresses), cmocka_unit_test(test_noise), cmocka_unit_test(test_looks_like_message),
	};
	return cmocka_run_group_tests_name("summary", tests, NULL, NULL);
}

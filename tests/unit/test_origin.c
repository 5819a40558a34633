/* mail/origin: what stays of a header block on the way, and the date of arrival */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "mail/digest.h"
#include "mail/origin.h"

static void digest(const char *header, char ret[static MAIL_DIGEST_SIZE])
{
	mail_header_digest(header, strlen(header), ret);
}

static void same_message(void **state)
{
	(void)state;
	static const char *const same[] = {
		"Subject: a\nFrom: b\n c\n\nbody", "Subject: a\r\nFrom: b\r\n c\r\n\r\nanother body", "Subject: a\nFrom: b\n c",
		"Received: x;\n y\n\tz\nreturn-path: <>\nSubject: a\nX-Spam: no\n really\nFrom: b\n c\nStatus: RO\n", "DELIVERED-TO : z\nSubject: a\nFrom: b\n c\n",
	};
	char first[MAIL_DIGEST_SIZE], other[MAIL_DIGEST_SIZE];
	digest(same[0], first);
	assert_int_equal(strlen(first), MAIL_DIGEST_SIZE - 1);
	for (size_t i = 1; i < sizeof same / sizeof *same; i++) {
		digest(same[i], other);
		assert_string_equal(first, other);
	}
}

static void other_message(void **state)
{
	(void)state;
	static const char *const others[] = { "", "Subject: a\n", "Subject: b\nFrom: b\n c", "From: b\n c\nSubject: a\n", "Subject: a\nFrom: b\nX: c\n", "Subject: a\n\nFrom: b\n c" };
	char first[MAIL_DIGEST_SIZE], other[MAIL_DIGEST_SIZE];
	digest("Subject: a\nFrom: b\n c\n", first);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		digest(others[i], other);
		assert_string_not_equal(first, other);
	}
}

/* whatever their length is: lines are gathered on the way */
static void long_lines(void **state)
{
	(void)state;
	static const size_t lengths[] = { 1, 4093, 4094, 4095, 4096, 4097, 12000, 1, 100, 3990, 4, 1 };
	char header[60000], made[MAIL_DIGEST_SIZE], expected[MAIL_DIGEST_SIZE];
	unsigned char whole[DIGEST_BYTES];
	for (size_t first = 0; first < sizeof lengths / sizeof *lengths; first++) {
		size_t n = 0;
		for (size_t i = first; i < sizeof lengths / sizeof *lengths; i++) {
			memset(header + n, 'a' + (int)i, lengths[i]);
			n += lengths[i];
			header[n++] = '\n';
		}
		struct digest d;
		digest_begin(&d);
		digest_add(&d, header, n);
		digest_end(&d, whole);
		for (size_t i = 0; i + 1 < MAIL_DIGEST_SIZE; i += 2)
			snprintf(expected + i, 3, "%02x", whole[i / 2]);
		mail_header_digest(header, n, made);
		assert_string_equal(made, expected);
	}
}

static void arrival(void **state)
{
	(void)state;
	static const struct { const char *header; int64_t date; } cases[] = {
		{ "Received: from a (b; c) by d;\r\n Thu, 19 Nov 2026 10:00:00 +0000 (UTC)\r\nReceived: x; Thu, 19 Nov 2026 09:00:00 +0000\r\nDate: Wed, 18 Nov 2026 09:00:00 +0000\r\n", 1795082400 },
		{ "Date: Thu, 19 Nov 2026 10:00:00 +0100\n", 1795078800 },
		{ "Received: from a by b; Thu, 19 Nov 2026 10:00:00 +0000 (UTC; as c says; d)\nDate: Wed, 18 Nov 2026 09:00:00 +0000\n", 1795082400 },
		{ "Received: x; Thu, 19 Nov 2026 10:00:00 +0000;\nDate: Wed, 18 Nov 2026 09:00:00 +0000\n", 1795082400 },
		{ "Received: no date here\nDate: Thu, 19 Nov 2026 10:00:00 +0000\n", 1795082400 },
		{ "Received: x; nonsense\nDate: Thu, 19 Nov 2026 10:00:00 +0000\n", 1795082400 },
		{ "Subject: x\n\nDate: Thu, 19 Nov 2026 10:00:00 +0000\n", -1 }, { "Date: nonsense\n", -1 }, { "", -1 }, { "Received:;", -1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int64_t date = -1;
		assert_int_equal(mail_arrival_date(cases[i].header, strlen(cases[i].header), &date), cases[i].date >= 0);
		assert_int_equal(date, cases[i].date);
	}
}

static void md5(void **state)
{
	(void)state;
	char digest[MAIL_DIGEST_SIZE];
	static const char text[] = "<1896.697170952@dbc.mtview.ca.us>tanstaaf"; /* RFC 1939 7 */
	mail_md5(text, sizeof text - 1, digest);
	assert_string_equal(digest, "c4c9334bac560ecc979e58001b3e22fb");
}

/* bytes without meaning: whatever it says, it ends, within its bounds */
static void any_bytes(void **state)
{
	(void)state;
	unsigned seed = 7;
	for (int i = 0; i < 2000; i++) {
		size_t len = (size_t)rand_r(&seed) % 60;
		char *text = mf_alloc(len + 1), digest[MAIL_DIGEST_SIZE];
		char *exact = mf_realloc_array(NULL, len ? len : 1, 1);
		for (size_t k = 0; k < len; k++)
			text[k] = "Received:Date;\r\n \tX-\0\xff 19 Nov 2026"[rand_r(&seed) % 35];
		memcpy(exact, text, len);
		int64_t date;
		mail_header_digest(exact, len, digest);
		(void)mail_arrival_date(exact, len, &date);
		free(text);
		free(exact);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_message), cmocka_unit_test(other_message), cmocka_unit_test(long_lines), cmocka_unit_test(arrival), cmocka_unit_test(md5), cmocka_unit_test(any_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

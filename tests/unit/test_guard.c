/* net/guard: what it refuses, wherever the bytes are cut, and what it lets pass */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "net/guard.h"

#define LITERAL_MAX 1000

struct row {
	const char *input;
	const char *refusal;   /* a part of the reason; NULL: it passes */
};

#define P10 "(((((((((("
#define P100 P10 P10 P10 P10 P10 P10 P10 P10 P10 P10
#define C10 "))))))))))"
#define C100 C10 C10 C10 C10 C10 C10 C10 C10 C10 C10

static const struct row rows[] = {
	/* ordinary traffic */
	{ "* OK [CAPABILITY IMAP4rev1 LITERAL+] ready\r\n", NULL },
	{ "* PREAUTH welcome back (really)\r\nA1 OK [READ-WRITE] done\r\n", NULL },
	{ "* FLAGS (\\Seen \\Draft)\r\n* OK [PERMANENTFLAGS (\\Seen \\Draft \\*)] Limited (a bit).\r\n", NULL },
	{ "* OK [PERMANENTFLAGS ()] None (at all).\r\n* OK [PERMANENTFLAGS ($a)] (%)\r\n* OK [PERMANENTFLAGS] x\r\n", NULL },
	{ "* OK [PERMANENTFLAGS ( \\*)]\r\n* OK [PERMANENTFLAGS (NonJunk \\*)]\r\n", NULL },
	{ "* 1 FETCH (BODY[] {5}\r\n(((((BODY[TEXT] {3}\r\n\"\"\" UID 7)\r\nA1 OK\r\n", NULL },
	{ "* 1 FETCH (BODY[] {0}\r\n)\r\n", NULL },
	{ "* 1 FETCH (BINARY[] ~{4}\r\n((((BODY[] {2+}\r\n(()\r\n", NULL },
	{ "* LIST () \"/\" {4}\r\n(\"\r\n\r\nA1 OK\r\n", NULL },
	{ "* SEARCH\r\n* SEARCH 1 2 3\r\n+ idling\r\n+\r\n+ [ALERT] x\r\n", NULL },
	{ "* 1 FETCH (BODY[] {1000}\r\n", NULL },
	{ "* 1 FETCH (" P10 P10 P10 P10 P10 P10 P10 P10 P10 "(((((((((" "\r\n", NULL },
	{ "* 1 FETCH (ENVELOPE (\"" P100 P100 "\" \"\\\"" P100 "\"))\r\n", NULL },
	{ "* 1 FETCH (X \"{99999999999} {5} text\" UID 1)\r\n", NULL },
	{ "* OK it has {5} braces {99999}\r\n* OK {5}\r\n(\r\n", NULL },
	{ "A1 NO text {5}\r\n(\r\n", NULL },
	{ "* 1 FETCH (ENVELOPE (\"a\"b\" {3}\r\n(((x) BODY[] {2}\r\n(()\r\n", NULL }, /* a quote too many: still a literal */
	{ "* 1 FETCH (X {abc} {} {a}\r\n", NULL },
	{ "* BADCHARSET x\r\n* OK BADCHARSET outside\r\n* LIST () \"/\" PERMANENTFLAGS\r\n", NULL },
	{ "* OK [X] ANNOTATION\r\n* 1 FETCH (ANNOTATION ())\r\n", NULL },
	{ "\r\n\n* 1 EXISTS\n", NULL },
	/* nesting */
	{ "* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "* 1 FETCH (BODYSTRUCTURE " P100, "nested more than 100 deep" },
	{ "* 1 FETCH (BODY[] {2}\r\nxx X " P100 ")", "nested more than 100 deep" },
	{ "* 1 FETCH (X \"\\\"\" \"\\\\\" " P100 ")", "nested more than 100 deep" },
	{ "* OK " P100 "(\r\n", "nested more than 100 deep" },
	{ "A1 OK " P100 "(\r\n", "nested more than 100 deep" },
	{ "+ " P100 "(\r\n", "nested more than 100 deep" },
	{ "* OK text {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },  /* no literal to hide behind */
	{ "* ok text {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ " *  OK text {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "* BYE {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "+ {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "A1 OK {900}\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "* 1 FETCH (X \"{900}\"\r\n* 1 FETCH " P100 "(\r\n", "nested more than 100 deep" },
	{ "* 1 FETCH " P10 C100 C100 P100 "(\r\n", "nested more than 100 deep" },
	/* literals */
	{ "* 1 FETCH (BODY[] {1001}\r\n", "a literal of 1001 bytes" },
	{ "* 1 FETCH (BODY[] {4294967295}\r\n", "a literal of " },
	{ "* 1 FETCH (BODY[] {4294967299}\r\n", "a literal of " },
	{ "* 1 FETCH (BODY[] {99999999999999999999999999999999}\r\n", "a literal of " },
	{ "* 1 FETCH (BODY[] \"x {4294967295}\r\n", "a literal of " },
	{ "* 1 FETCH (BODY[] {5} \r\n", "behind the length of a literal" },
	{ "* 1 FETCH (BODY[] {5}\r\r\n", "behind the length of a literal" },
	{ "* 1 FETCH (BODY[] {5}abc", "behind the length of a literal" },
	{ "* 1 FETCH (BODY[] {-5}\r\n", "not a number" },
	{ "* 1 FETCH (BODY[] { 5 }\r\n", "not a number" },
	{ "* OK [PERMANENTFLAGS (a {5}\r\n", "a literal in a response code" },
	{ "* OK [PERMANENTFLAGS (a \"]\" { 5}\r\n", "a literal in a response code" },
	{ "A1 OK [X {5}\r\n", "a literal in a response code" },
	/* what makes libetpan follow a NULL pointer */
	{ "* OK [PERMANENTFLAGS (()] x\r\n", "PERMANENTFLAGS that are no flags" },
	{ "* NO [PERMANENTFLAGS (\r\n", "PERMANENTFLAGS that are no flags" },
	{ "* OK [PERMANENTFLAGS ( %)] x\r\n", "PERMANENTFLAGS that are no flags" },
	{ "* OK [PERMANENTFLAGS (\\ Seen)] x\r\n", "PERMANENTFLAGS that are no flags" },
	{ "* OK [PERMANENTFLAGS (\"]\" (", "PERMANENTFLAGS that are no flags" },
	{ "* OK [permanentFLAGS(\\Seen (\\Draft))] x\r\n", "nested parentheses in PERMANENTFLAGS" },
	{ "* OK [BADCHARSET (\"x\")] hi\r\n", "BADCHARSET" },
	{ "* BYE [BADCHARSET ({1}\r\n", "BADCHARSET" },
	{ "* OK [ badcharset (x)] hi\r\n", "BADCHARSET" },
	{ "* OK [BADBADCHARSET (x)] hi\r\n", "BADCHARSET" },
	{ "+ [BADCHARSET (x)] hi\r\n", "BADCHARSET" },
	{ "A1 NO [BADCHARSET (US-ASCII)] no\r\n", "BADCHARSET" },
	{ "* ANNOTATION x\r\n", "ANNOTATION" },
	{ "*\t annotation \"INBOX\" NIL\r\n", "ANNOTATION" },
	{ "* ANNOTATION(\r\n", "ANNOTATION" },
};

static void check(const struct row *row, const char *cut, enum mf_err e, const struct mf_reason *why)
{
	if ((e == MF_OK) == !row->refusal && (!row->refusal || (e == MF_PROTOCOL && strstr(why->text, row->refusal))))
		return;
	print_error("%s\n%s: %s: %s\n", row->input, cut, mf_err_name(e), why->text);
	fail();
}

static enum mf_err feed_pieces(const char *input, size_t len, size_t piece, struct mf_reason *why)
{
	struct guard g;
	guard_init(&g, LITERAL_MAX);
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < len && !e; i += piece)
		e = guard_feed(&g, input + i, len - i < piece ? len - i : piece, why);
	return e;
}

static void whole_and_byte_by_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct mf_reason why = { "" };
		size_t len = strlen(rows[i].input);
		check(&rows[i], "whole", feed_pieces(rows[i].input, len, len, &why), &why);
		check(&rows[i], "bytes", feed_pieces(rows[i].input, len, 1, &why), &why);
		check(&rows[i], "threes", feed_pieces(rows[i].input, len, 3, &why), &why);
	}
}

static void cut_at_every_offset(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		size_t len = strlen(rows[i].input);
		for (size_t cut = 1; cut < len; cut++) {
			struct mf_reason why = { "" };
			struct guard g;
			guard_init(&g, LITERAL_MAX);
			enum mf_err e = guard_feed(&g, rows[i].input, cut, &why);
			if (!e)
				e = guard_feed(&g, rows[i].input + cut, len - cut, &why);
			check(&rows[i], "cut", e, &why);
		}
	}
}

/* a refusal does not depend on what came before, and what passes leaves nothing behind */
static void after_other_traffic(void **state)
{
	(void)state;
	for (size_t i = 0; i < 15; i++) {
		for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
			if (rows[i].refusal || !strcmp(rows[i].input, "* 1 FETCH (BODY[] {1000}\r\n"))
				continue;
			struct mf_reason why = { "" };
			struct guard g;
			guard_init(&g, LITERAL_MAX);
			assert_int_equal(guard_feed(&g, rows[i].input, strlen(rows[i].input), &why), MF_OK);
			check(&rows[k], rows[i].input, guard_feed(&g, rows[k].input, strlen(rows[k].input), &why), &why);
		}
	}
}

static void lines_have_an_end(void **state)
{
	(void)state;
	static char block[1 << 16];
	memset(block, 'x', sizeof block);
	static const char *const starts[] = { "* SEARCH ", "* OK ", "A1 OK ", "* 1 FETCH (X \"" };
	for (size_t i = 0; i < 4; i++) {
		struct guard g;
		struct mf_reason why = { "" };
		guard_init(&g, LITERAL_MAX);
		enum mf_err e = guard_feed(&g, starts[i], strlen(starts[i]), &why);
		uint64_t fed = 0;
		while (!e && fed < 2ULL * GUARD_LINE_MAX) {
			e = guard_feed(&g, block, sizeof block, &why);
			fed += sizeof block;
		}
		assert_int_equal(e, MF_PROTOCOL);
		assert_non_null(strstr(why.text, "line of more than 32 MiB"));
		assert_in_range(fed, GUARD_LINE_MAX - sizeof block, GUARD_LINE_MAX + sizeof block);
	}
}

/* literals do not count towards the line */
static void long_mail_passes(void **state)
{
	(void)state;
	struct guard g;
	struct mf_reason why = { "" };
	static char block[1 << 20];
	memset(block, '(', sizeof block);
	guard_init(&g, UINT64_MAX);
	static const char start[] = "* 1 FETCH (UID 9 BODY[] {104857600}\r\n", end[] = ")\r\nA1 OK done\r\n";
	assert_int_equal(guard_feed(&g, start, sizeof start - 1, &why), MF_OK);
	for (int i = 0; i < 100; i++)
		assert_int_equal(guard_feed(&g, block, sizeof block, &why), MF_OK);
	assert_int_equal(guard_feed(&g, end, sizeof end - 1, &why), MF_OK);
	assert_int_equal(guard_feed(&g, "* 1 FETCH (BODY[] {4294967295}\r\n", 32, &why), MF_OK);
	guard_init(&g, UINT64_MAX);
	assert_int_equal(guard_feed(&g, "* 1 FETCH (BODY[] {4294967296}\r\n", 32, &why), MF_PROTOCOL);
}

/* a mailbox of many messages, with literals whose contents are as hostile as can be */
static void big_stream_passes(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 64U << 20);
	for (unsigned i = 1; i <= 3000; i++) {
		assert_int_equal(buf_addf(&b, "* %u FETCH (UID %u FLAGS (\\Seen $X) ENVELOPE (\"Mon, 1 Jan 2024\" \"Re: [x] {%u} \\\"(\\\\\" "
		                          "((\"A (B\" NIL \"a\" \"b.test\")) NIL) BODYSTRUCTURE ((\"text\" \"plain\" (\"charset\" \"utf-8\"))"
		                          "(\"a\" \"b\") \"mixed\") BODY[HEADER] {%u}\r\n", i, i * 3, i, i % 900), MF_OK);
		for (unsigned k = 0; k < i % 900; k++)
			assert_int_equal(buf_add(&b, &"(\"{9}\r\n* OK [BADCHARSET"[k % 23], 1), MF_OK);
		assert_int_equal(buf_adds(&b, ")\r\n"), MF_OK);
	}
	for (size_t piece = 1000; piece <= 64000; piece *= 4) {
		struct mf_reason why = { "" };
		enum mf_err e = feed_pieces(b.data, b.len, piece, &why);
		if (e)
			print_error("%s\n", why.text);
		assert_int_equal(e, MF_OK);
	}
	buf_finish(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_and_byte_by_byte), cmocka_unit_test(cut_at_every_offset), cmocka_unit_test(after_other_traffic),
		cmocka_unit_test(lines_have_an_end), cmocka_unit_test(long_mail_passes), cmocka_unit_test(big_stream_passes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

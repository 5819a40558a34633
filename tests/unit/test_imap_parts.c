/* The pure parts of the IMAP back-end: the cursor, sets of UIDs, capabilities, responses as data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "sync/imap/caps.h"
#include "sync/imap/parse.h"
#include "sync/imap/uidset.h"

static struct scan over(const char *text)
{
	return (struct scan){ text, text + strlen(text) };
}

static void cursor_numbers(void **state)
{
	(void)state;
	struct scan s = over("18446744073709551615 18446744073709551616");
	uint64_t n;
	uint32_t uid;
	assert_true(scan_number(&s, &n) && n == UINT64_MAX && scan_char(&s, ' '));
	assert_false(scan_number(&s, &n));
	s = over("0");
	assert_false(scan_uid(&s, &uid));
	s = over("4294967296");
	assert_false(scan_uid(&s, &uid));
	assert_true(*s.p == '4'); /* where it was */
	s = over("4294967295x");
	assert_true(scan_uid(&s, &uid) && uid == UINT32_MAX && *s.p == 'x');
	s = over("-1");
	assert_false(scan_number(&s, &n));
}

static void cursor_strings(void **state)
{
	(void)state;
	static const struct { const char *text, *value; } cases[] = {
		{ "\"a \\\"b\\\\\" x", "a \"b\\" }, { "atom x", "atom" }, { "nil x", NULL }, { "{3}\r\na)b x", "a)b" }, { "~{3+}\na\rb x", "a\rb" }, { "\"\" x", "" },
	};
	struct buf scratch;
	struct span value;
	buf_init(&scratch, 100);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct scan s = over(cases[i].text), t = s;
		assert_true(scan_nstring(&s, &scratch, &value));
		assert_true(*s.p == ' ');
		assert_true(scan_skip(&t) && t.p == s.p);
		if (!cases[i].value)
			assert_null(value.p);
		else
			assert_true(value.len == strlen(cases[i].value) && !memcmp(value.p, cases[i].value, value.len));
	}
	static const char *const bad[] = { "\"open", "\"line\r\n\"", "", "\"x\\", "(a", "(\"" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct scan s = over(bad[i]);
		const char *before = s.p;
		assert_false(scan_skip(&s));
		assert_ptr_equal(before, s.p);
	}
	buf_finish(&scratch);
}

static void cursor_nesting(void **state)
{
	(void)state;
	char deep[2000];
	memset(deep, '(', 1000);
	memset(deep + 1000, ')', 1000);
	struct scan s = { deep, deep + 2000 }, ok = { deep + 900, deep + 1100 };
	assert_false(scan_skip(&s));
	assert_true(scan_skip(&ok) && ok.p == ok.end);
	struct scan items = over("BODY[HEADER.FIELDS (A \"B C\")]<0> x");
	struct span name;
	assert_true(scan_item(&items, &name) && scan_char(&items, ' ') && *items.p == 'x');
	items = over("BODY[HEADER.FIELDS (A \r\n");
	assert_false(scan_item(&items, &name));
}

static char *text_of(struct uidset *set)
{
	struct buf b;
	size_t at = 0;
	buf_init(&b, 1000);
	uid_ranges_write(uidset_ranges(set), &at, 900, &b);
	return buf_detach(&b);
}

static void assert_set(struct uidset *set, const char *expected)
{
	char *text = text_of(set);
	assert_string_equal(expected, text);
	free(text);
}

static void sets(void **state)
{
	(void)state;
	struct uidset set;
	uidset_init(&set);
	assert_set(&set, "");
	uidset_add(&set, 5, 5);
	uidset_add(&set, 6, 9);
	uidset_add(&set, 3, 1); /* reversed, and out of order */
	uidset_add(&set, 7, 8);
	uidset_add(&set, UINT32_MAX, UINT32_MAX);
	assert_set(&set, "1:3,5:9,4294967295");
	assert_int_equal(9, uidset_size(&set));
	uidset_add(&set, 4, 4);
	assert_set(&set, "1:9,4294967295");
	uidset_reset(&set);
	struct scan s = over("4:2,9,1:4294967295,7 rest");
	assert_true(uidset_scan(&set, &s, 3, 8));
	assert_true(*s.p == ' ');
	assert_set(&set, "3:8");
	static const char *const bad[] = { "", "*", "1:*", "1,", "0", "1:0", "4294967296", "x" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		s = over(bad[i]);
		assert_false(uidset_scan(&set, &s, 1, UINT32_MAX));
	}
	uidset_finish(&set);
}

static void sets_in_parts(void **state)
{
	(void)state;
	struct uidset set;
	struct buf b;
	size_t at = 0, commands = 0;
	uidset_init(&set);
	buf_init(&b, 10000);
	for (uint32_t uid = 2; uid <= 2000; uid += 2)
		uidset_add(&set, uid, uid);
	for (; at < 1000; commands++) {
		buf_reset(&b);
		uid_ranges_write(uidset_ranges(&set), &at, 1000, &b);
		assert_in_range(b.len, 1, 1020);
	}
	assert_int_equal(5, commands);
	buf_finish(&b);
	uidset_finish(&set);
}

static void hashes(void **state)
{
	(void)state;
	struct uidhash h = { 0 };
	assert_false(uidhash_has(&h, 1));
	for (uint32_t uid = 1; uid < 100000; uid += 3)
		assert_true(uidhash_add(&h, uid));
	for (uint32_t uid = 1; uid < 100000; uid++)
		assert_int_equal(uid % 3 == 1, uidhash_has(&h, uid));
	assert_false(uidhash_add(&h, 4));
	assert_int_equal(33333, h.count);
	uidhash_finish(&h);
	for (uint32_t i = 1; i < 65536; i++) /* a server that chooses them so that their low bits are alike */
		assert_true(uidhash_add(&h, i << 16));
	assert_true(uidhash_has(&h, 1 << 16) && !uidhash_has(&h, 1));
	uidhash_finish(&h);
}

static void capabilities(void **state)
{
	(void)state;
	assert_true(imap_caps_scan(over("IMAP4rev1 idle  QRESYNC\r\n")) == (CAP(IMAP4REV1) | CAP(IDLE) | CAP(QRESYNC) | CAP(CONDSTORE) | CAP(ENABLE)));
	assert_true(imap_caps_scan(over("IMAP4rev2 AUTH=PLAIN")) & CAP(LIST_STATUS));
	assert_false(imap_caps_scan(over("IMAP4rev1 IMAP4rev2")) & CAP(LIST_STATUS));
	assert_false(imap_caps_scan(over("QRESYNC XAPPLEPUSHSERVICE")) & CAP(QRESYNC));
	assert_int_equal(0, imap_caps_scan(over("IDLER XIDLE NOIDLE")));
}

static void memory(void **state)
{
	(void)state;
	struct imap_memory *m = imap_memory_create(NULL);
	struct imap_known known = { .before_auth = CAP(AUTH_PLAIN), .after_auth = CAP(IDLE) | CAP(COMPRESS), .caps_told = true }, back;
	imap_memory_put(m, &known);
	imap_memory_distrust(m, CAP(NOTIFY));
	char *text = imap_memory_text(m);
	struct imap_memory *again = imap_memory_create(text);
	imap_memory_get(again, &back);
	assert_true(back.before_auth == known.before_auth && back.after_auth == known.after_auth && back.caps_told);
	assert_true(imap_memory_distrusted(again) == CAP(NOTIFY));
	imap_memory_destroy(again);
	again = imap_memory_create("nonsense\n=\nafter-auth\n\x01\x02=\nafter-auth=NEVER HEARD OF IDLE");
	imap_memory_get(again, &back);
	assert_true(back.after_auth == CAP(IDLE) && !back.before_auth && !back.caps_told);
	imap_memory_destroy(again);
	imap_memory_destroy(m);
	imap_memory_destroy(NULL);
	free(text);
}

static void conditions(void **state)
{
	(void)state;
	static const struct { const char *line; bool ok; enum cond_kind kind; const char *code, *args, *text; } cases[] = {
		{ "OK [UIDNEXT 5] hello\r\n", true, COND_OK, "UIDNEXT", "5", "hello" }, { "NO\r\n", true, COND_NO, "", "", "" }, { "bad [X]", true, COND_BAD, "X", "", "" },
		{ "OK [never closed", true, COND_OK, "", "", "[never closed" }, { "BYE x", true, COND_BYE, "", "", "x" }, { "PREAUTH", true, COND_PREAUTH, "", "", "" },
		{ "OKAY", false, COND_OK, "", "", "" }, { "", false, COND_OK, "", "", "" }, { "OK []", true, COND_OK, "", "", "" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct scan s = over(cases[i].line);
		struct imap_cond c;
		assert_int_equal(cases[i].ok, imap_parse_cond(&s, &c));
		if (!cases[i].ok)
			continue;
		assert_int_equal(cases[i].kind, c.kind);
		assert_true(c.code.len == strlen(cases[i].code) && !strncmp(c.code.p ? c.code.p : "", cases[i].code, c.code.len));
		assert_true(c.args.len == strlen(cases[i].args) && !strncmp(c.args.p ? c.args.p : "", cases[i].args, c.args.len));
		assert_true(c.text.len == strlen(cases[i].text) && !strncmp(c.text.p, cases[i].text, c.text.len));
	}
}

static void parse_text(struct imap_parser *p, const char *text, struct imap_data *ret)
{
	static struct imap_frame f;
	frame_finish(&f);
	frame_init(&f);
	mmap_string_append(f.text, text);
	const char *literal = strstr(text, "}\r\n");
	f.first_line = literal ? (size_t)(literal - text) + 3 : f.text->len;
	f.lines_len = f.text->len;
	imap_parse(p, &f, ret);
	if (!*text)
		frame_finish(&f);
}

static void dates(void **state)
{
	(void)state;
	static const struct { const char *date; bool ok; int64_t seconds; } cases[] = {
		{ "01-Jan-1970 00:00:00 +0000", true, 0 }, { " 1-Jan-1970 01:00:00 +0130", true, -1800 }, { "29-Feb-2000 12:00:00 -0800", true, 951854400 },
		{ "31-Dec-1969 23:59:59 +0000", true, -1 }, { "01-Mar-2100 00:00:00 +0000", true, 4107542400 }, { "32-Jan-2020 00:00:00 +0000", false, 0 },
		{ "garbage", false, 0 },
	};
	struct imap_parser *p = imap_parser_create();
	struct imap_data data;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *line = mf_format("* 1 FETCH (UID 5 INTERNALDATE \"%s\" FLAGS (\\Seen))\r\n", cases[i].date);
		parse_text(p, line, &data);
		assert_int_equal(DATA_FETCH, data.kind);
		assert_int_equal(5, data.fetch.uid);
		assert_true(data.fetch.has_flags);
		assert_int_equal(cases[i].ok, data.fetch.has_date);
		if (cases[i].ok)
			assert_int_equal(cases[i].seconds, data.fetch.date);
		free(line);
	}
	parse_text(p, "", &data);
	imap_parser_destroy(p);
}

static void fetch_items(void **state)
{
	(void)state;
	struct imap_parser *p = imap_parser_create();
	struct imap_data data;
	parse_text(p, "* 7 FETCH (UID 9 RFC822.SIZE 5368709120 MODSEQ (18446744073709551615) X-GM-MSGID 1278455344230334865 FLAGS (b A b \\Flagged))\r\n", &data);
	assert_true(data.kind == DATA_FETCH && data.number == 7 && data.fetch.uid == 9 && data.fetch.size == 5368709120 && data.fetch.modseq == UINT64_MAX);
	assert_string_equal("1278455344230334865", data.fetch.email_id);
	assert_string_equal("A b", data.fetch.keywords);
	assert_int_equal(FLAG_FLAGGED, data.fetch.flags);
	parse_text(p, "* 7 FETCH (BODY[HEADER] {3}\r\na\r\n UNKNOWN (a \"b\" {2}\r\nxy) UID 9)\r\n", &data);
	assert_true(data.kind == DATA_FETCH && data.fetch.uid == 9 && data.fetch.header_len == 3);
	parse_text(p, "* 7 FETCH (UID 9 broken\r\n", &data);
	assert_true(data.kind == DATA_SKIPPED && data.fetch.uid == 9);
	parse_text(p, "* 7 FETCH (UID 9", &data);
	assert_true(data.kind == DATA_SKIPPED && data.fetch.uid == 9);
	parse_text(p, "* 7 FETCH (BODY[HEADER.FIELDS (DATE \"TO\")] {3}\r\na\r\n UID 9)\r\n", &data);
	assert_true(data.kind == DATA_FETCH && data.fetch.uid == 9 && data.fetch.header_len == 3 && !memcmp(data.fetch.header, "a\r\n", 3));
	parse_text(p, "* 7 FETCH (UID 9 BODY[HEADER.FIELDS (DATE)] NIL FLAGS ())\r\n", &data);
	assert_true(data.kind == DATA_FETCH && data.fetch.uid == 9 && !data.fetch.header && data.fetch.has_flags);
	char *endless = mf_alloc(300000), *line;
	memset(endless, 'a', 299999);
	line = mf_format("* 7 FETCH (UID 9 FLAGS (%s))\r\n", endless);
	parse_text(p, line, &data);
	assert_true(data.kind == DATA_SKIPPED && data.fetch.uid == 9);
	free(line);
	free(endless);
	parse_text(p, "* VANISHED (EARLIER) 1:3\r\n", &data);
	assert_true(data.kind == DATA_VANISHED && data.earlier && *data.rest.p == '1');
	parse_text(p, "", &data);
	imap_parser_destroy(p);
}

static int setup(void **state)
{
	(void)state;
	imap_parse_init();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cursor_numbers), cmocka_unit_test(cursor_strings), cmocka_unit_test(cursor_nesting), cmocka_unit_test(sets), cmocka_unit_test(sets_in_parts),
		cmocka_unit_test(hashes), cmocka_unit_test(capabilities), cmocka_unit_test(memory), cmocka_unit_test(conditions), cmocka_unit_test(dates),
		cmocka_unit_test(fetch_items),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}

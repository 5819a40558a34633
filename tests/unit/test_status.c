/* status: texts with hostile names, numbers as people read them */
#include "control_world.h"

#include "control/exit.h"
#include "control/json.h"
#include "control/mailboxes.h"
#include "control/status.h"
#include "control/text.h"

static void sizes_and_counts(void **state)
{
	(void)state;
	static const struct { uint64_t bytes; const char *text; } sizes[] = {
		{ 0, "0" }, { 1023, "1023" }, { 1024, "1.0K" }, { 1536, "1.5K" }, { 10240, "10K" }, { 1048000, "1023K" }, { 1048100, "1.0M" }, { 1048575, "1.0M" }, { 1048576, "1.0M" },
		{ UINT64_C(2) << 30, "2.0G" }, { UINT64_MAX, "16E" },
	};
	static const struct { uint64_t number; const char *text; } counts[] = {
		{ 0, "0" }, { 999, "999" }, { 1000, "1,000" }, { 1234567, "1,234,567" }, { UINT64_MAX, "18,446,744,073,709,551,615" },
	};
	char text[TEXT_NUMBER];
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		assert_string_equal(text_size(text, sizes[i].bytes), sizes[i].text);
	for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
		assert_string_equal(text_count(text, counts[i].number), counts[i].text);
	assert_string_equal(text_duration(text, -5), "0 s");
	assert_string_equal(text_duration(text, 119), "119 s");
	assert_string_equal(text_duration(text, 3600), "60 min");
	assert_string_equal(text_duration(text, INT64_C(86400) * 30), "30 days");
}

static void bars_never_overflow(void **state)
{
	(void)state;
	static const struct { uint64_t done, total; size_t width; const char *text; } rows[] = {
		{ 0, 10, 12, "[----------]" }, { 5, 10, 12, "[#####-----]" }, { 10, 10, 12, "[##########]" },
		{ 99, 10, 12, "[##########]" }, { 3, 0, 12, "[----------]" }, { UINT64_MAX, UINT64_MAX, 3, "[#]" }, { 1, 2, 0, "[-]" },
	};
	char text[TEXT_BAR];
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_string_equal(text_bar(text, rows[i].done, rows[i].total, rows[i].width), rows[i].text);
	assert_int_equal(strlen(text_bar(text, 1, 2, 1000)), TEXT_BAR - 4);
}

static void progress_lines(void **state)
{
	(void)state;
	char text[128];
	struct account_progress p = { 0 };
	assert_string_equal(text_progress(text, sizeof text, &p), "idle");
	p.queued = 2;
	assert_string_equal(text_progress(text, sizeof text, &p), "2 jobs queued");
	p = (struct account_progress){ .doing = "INBOX: headers", .done = 1000, .total = 2000, .rate = 1258291, .queued = 3 };
	assert_string_equal(text_progress(text, sizeof text, &p),
	                    "INBOX: headers [###########-----------]  50% 1,000 of 2,000, 1.2M/s, 3 queued");
	p = (struct account_progress){ .doing = "\x1b]0;owned\x07", .done = 5, .total = 5, .bytes = true };
	text_progress(text, sizeof text, &p);
	assert_null(strpbrk(text, "\x1b\x07"));
	memset(p.doing, 'x', sizeof p.doing); /* not terminated */
	text_progress(text, sizeof text, &p);
	assert_true(strlen(text) < sizeof text);
}

static void lines_are_cut_at_columns(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 4096);
	assert_int_equal(text_add_line(&b, "abc\x1b[1mdef", 6), MF_OK);
	assert_string_equal(b.data, "abc?[1\n");
	buf_reset(&b);
	assert_int_equal(text_add_line(&b, "\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97", 5), MF_OK); /* two columns each */
	assert_string_equal(b.data, "\xe4\xb8\xad\xe6\x96\x87\n");
	buf_finish(&b);
}

static void add_mailbox(struct world *w, const char *raw, uint32_t messages)
{
	struct txn *t;
	uint64_t id;
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	struct mailbox_said said = { .raw = raw, .delimiter = '/', .utf8 = true, .has_status = true, .uidvalidity = 1, .uidnext = messages + 1,
	                             .messages = messages };
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
}

static void hostile_names_stay_printable(void **state)
{
	(void)state;
	struct world *w = world_create(true, 4096);
	add_mailbox(w, "INBOX", 3);
	add_mailbox(w, "red\x1b[31m", 1);
	add_mailbox(w, "bidi\xe2\x80\xaegnp.exe", 1);
	add_mailbox(w, "c1\xc2\x9b" "31m", 1);
	add_mailbox(w, "quote\"back\\slash", 1);
	MF_CLEANUP(mf_free) char *text = status_text(&w->account, 1);
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		assert_true(*p == '\n' || *p >= 0x20);
	assert_null(strstr(text, "\xe2\x80\xae"));
	assert_null(strstr(text, "\xc2\x9b"));
	assert_non_null(strstr(text, "work: alice@example.org at imap.example.org"));
	assert_non_null(strstr(text, "INBOX"));
	MF_CLEANUP(mf_free) char *json = status_json(&w->account, 1);
	assert_int_equal(json[strlen(json) - 1], '\n');
	assert_int_equal(strcspn(json, "\n"), strlen(json) - 1);
	assert_null(strstr(json, "\x1b"));
	assert_null(strstr(json, "\xe2\x80\xae"));
	assert_null(strstr(json, "\xc2\x9b"));
	struct json_object *o = json_parse_line(json), *accounts, *mailboxes, *first;
	assert_non_null(o);
	assert_true(json_object_object_get_ex(o, "accounts", &accounts));
	struct json_object *account = json_object_array_get_idx(accounts, 0);
	assert_string_equal(json_get_string(account, "account"), "work");
	assert_true(json_object_object_get_ex(account, "mailboxes", &mailboxes));
	assert_int_equal(json_object_array_length(mailboxes), 5);
	first = json_object_array_get_idx(mailboxes, 0);
	assert_non_null(json_get_string(first, "mailbox"));
	assert_string_equal(json_get_string(first, "state"), "not yet");
	assert_int_equal(json_get_number(first, "server_messages"), 3);
	json_object_put(o);
	world_destroy(w);
}

static void many_mailboxes_are_cut_in_the_text_only(void **state)
{
	(void)state;
	struct world *w = world_create(true, 4096);
	struct txn *t;
	uint64_t id;
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	for (int i = 0; i < 300; i++) {
		MF_CLEANUP(mf_free) char *raw = mf_format("box%03d", i);
		struct mailbox_said said = { .raw = raw, .delimiter = '/' };
		assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	}
	assert_int_equal(txn_commit(t), MF_OK);
	MF_CLEANUP(mf_free) char *text = status_text(&w->account, 1);
	assert_non_null(strstr(text, "box039"));
	assert_null(strstr(text, "box040"));
	assert_non_null(strstr(text, "and 260 more"));
	MF_CLEANUP(mf_free) char *json = status_json(&w->account, 1);
	assert_non_null(strstr(json, "box299"));
	world_destroy(w);
}

static void nothing_is_said_as_such(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *text = status_text(NULL, 0);
	assert_string_equal(text, "no accounts\n");
	MF_CLEANUP(mf_free) char *json = status_json(NULL, 0);
	struct json_object *o = json_parse_line(json);
	assert_non_null(o);
	json_object_put(o);
}

static void json_is_parsed_with_care(void **state)
{
	(void)state;
	assert_null(json_parse_line(""));
	assert_null(json_parse_line("[1]"));
	assert_null(json_parse_line("{\"a\":"));
	char deep[200];
	memset(deep, '[', sizeof deep - 1);
	memcpy(deep, "{\"a\":", 5);
	deep[sizeof deep - 1] = 0;
	assert_null(json_parse_line(deep));
	struct json_object *o = json_parse_line("{\"s\":1,\"n\":\"x\",\"b\":true}");
	assert_null(json_get_string(o, "s"));
	assert_int_equal(json_get_number(o, "n"), 0);
	assert_int_equal(json_get_number(o, "missing"), 0);
	assert_true(json_get_bool(o, "b"));
	json_object_put(o);
	MF_CLEANUP(mf_free) char *safe = json_safe("{\"a\":\"\x1b\xc2\x85\xe2\x80\xa8\xf0\x9f\x98\x80\xed\xa0\x80\"}");
	assert_string_equal(safe, "{\"a\":\" \\u0085\\u2028\xf0\x9f\x98\x80\\ufffd\\ufffd\\ufffd\"}");
}

static void every_status_has_an_exit_code(void **state)
{
	(void)state;
	static const enum mf_err all[] = {
#define X(name, scope, words) name,
		MF_ERRORS(X)
#undef X
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		enum exit_code code = exit_code_of(all[i]);
		assert_true((code == EXIT_OK) == (all[i] == MF_OK));
		assert_non_null(exit_code_words((int)code));
	}
	assert_null(exit_code_words(99));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_and_counts),
		cmocka_unit_test(bars_never_overflow),
		cmocka_unit_test(progress_lines),
		cmocka_unit_test(lines_are_cut_at_columns),
		cmocka_unit_test(hostile_names_stay_printable),
		cmocka_unit_test(many_mailboxes_are_cut_in_the_text_only),
		cmocka_unit_test(nothing_is_said_as_such),
		cmocka_unit_test(json_is_parsed_with_care),
		cmocka_unit_test(every_status_has_an_exit_code),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* base: buffers with a maximum, printable text, stop signs, the bus */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bus.h"
#include "base/cancel.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

static void buffer_stops_at_its_maximum(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 10);
	assert_string_equal(b.data, "");
	assert_int_equal(buf_adds(&b, "12345"), MF_OK);
	assert_int_equal(buf_addf(&b, "%d", 67890), MF_OK);
	assert_int_equal(buf_adds(&b, "x"), MF_TOO_BIG);
	assert_int_equal(buf_addf(&b, "x"), MF_TOO_BIG);
	assert_string_equal(b.data, "1234567890");
	buf_drop(&b, 4);
	assert_string_equal(b.data, "567890");
	char *own = buf_detach(&b);
	assert_string_equal(own, "567890");
	free(own);
	assert_int_equal(b.len, 0);
	assert_int_equal(buf_add(&b, "a\0b", 3), MF_OK);
	assert_memory_equal(b.data, "a\0b", 4);
	buf_finish(&b);
}

static void numbers_are_added_in_digits(void **state)
{
	(void)state;
	struct buf b;
	buf_init(&b, 24);
	assert_int_equal(buf_add_number(&b, 0), MF_OK);
	assert_int_equal(buf_add_number(&b, 907), MF_OK);
	assert_int_equal(buf_add_number(&b, UINT64_MAX), MF_OK);
	assert_string_equal(b.data, "090718446744073709551615");
	assert_int_equal(buf_add_number(&b, 1), MF_TOO_BIG);
	assert_int_equal(b.len, 24);
	buf_finish(&b);
}

static void printable_text_has_no_escape(void **state)
{
	(void)state;
	static const struct { const char *in; size_t len; const char *out; } rows[] = {
		{ "plain", 5, "plain" },
		{ "a\033[31mb", 7, "a?[31mb" },
		{ "n\0l\r\n\t", 6, "n?l???" },
		{ "gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f" },
		{ "\xc3", 1, "?" },
		{ "\xff\xc0\xaf", 3, "???" },
		{ "\xe2\x80\xae" "evil", 7, "?evil" },   /* right-to-left override */
		{ "\xc2\x9b" "1m", 4, "?1m" },           /* C1: CSI */
		{ "\xed\xa0\x80", 3, "???" },            /* a surrogate */
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char out[64];
		assert_string_equal(mf_printable(out, sizeof out, rows[i].in, rows[i].len), rows[i].out);
	}
	char small[4];
	assert_string_equal(mf_printable(small, sizeof small, "ab\xc3\xbc", 4), "ab"); /* never half a character */
}

static void errors_have_scopes(void **state)
{
	(void)state;
	assert_int_equal(mf_err_scope(MF_TIMEOUT), MF_SCOPE_CONNECTION);
	assert_int_equal(mf_err_scope(MF_AUTH), MF_SCOPE_ACCOUNT);
	assert_string_equal(mf_err_name(MF_STALE), "MF_STALE");
	assert_int_equal(mf_err_from_errno(EDQUOT), MF_NO_SPACE);
	assert_int_equal(mf_err_from_errno(EIO), MF_IO);
	struct mf_reason why;
	assert_int_equal(mf_fail(&why, MF_AUTH, "%s: no", "me"), MF_AUTH);
	assert_string_equal(why.text, "me: no");
	static const char *const characters[] = { "x", "\xc3\xbc", "\xe6\x97\xa5", "\xf0\x9f\x93\xa7" };
	for (size_t i = 0; i < 4; i++)
		for (size_t lead = 0; lead < 4; lead++) { /* cut between two characters, and within one */
			char text[2 * sizeof why.text] = "";
			size_t len = strlen(characters[i]), most = (sizeof why.text - 1 - lead) / len * len + lead;
			memset(text, '.', lead);
			while (strlen(text) < sizeof why.text + 8)
				strcat(text, characters[i]);
			assert_int_equal(mf_fail(&why, MF_IO, "%s", text), MF_IO);
			assert_int_equal(strlen(why.text), most);
			assert_memory_equal(why.text, text, most);
		}
}

static void stop_sign_is_seen_by_poll(void **state)
{
	(void)state;
	struct cancel c;
	assert_true(cancel_init(&c));
	struct pollfd p = { .fd = c.fd, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 0), 0);
	cancel_raise(&c);
	cancel_raise(&c);
	assert_true(cancel_is_raised(&c));
	assert_int_equal(poll(&p, 1, 0), 1);
	cancel_clear(&c);
	assert_false(cancel_is_raised(&c));
	assert_int_equal(poll(&p, 1, 0), 0);
	cancel_finish(&c);
}

struct seen {
	uint64_t last;
	unsigned count;
	bool in_order;
};

static void note(void *context, const struct change *change)
{
	struct seen *seen = context;
	char expected[32];
	snprintf(expected, sizeof expected, "m%lu", (unsigned long)change->message);
	if (change->message != seen->last + 1 || strcmp(change->name, expected) != 0)
		seen->in_order = false;
	seen->last = change->message;
	seen->count++;
}

static void bus_delivers_in_order_to_all(void **state)
{
	(void)state;
	struct bus *bus = bus_create();
	struct seen a = { .in_order = true }, b = { .in_order = true };
	struct bus_subscription *sa = bus_subscribe(bus, note, &a), *sb = bus_subscribe(bus, note, &b);
	for (uint64_t i = 1; i <= 1000; i++) {
		char name[32];
		snprintf(name, sizeof name, "m%lu", (unsigned long)i);
		bus_publish(bus, &(struct change){ .kind = CHANGE_MESSAGE_ADDED, .message = i, .name = name });
	}
	bus_flush(bus);
	assert_int_equal(a.count, 1000);
	assert_true(a.in_order && b.in_order);
	bus_unsubscribe(bus, sa);
	bus_publish(bus, &(struct change){ .message = 1001, .name = "m1001" });
	bus_flush(bus);
	assert_int_equal(a.count, 1000);
	assert_int_equal(b.count, 1001);
	bus_unsubscribe(bus, sb);
	bus_destroy(bus);
}

static void log_keeps_the_last_lines(void **state)
{
	(void)state;
	log_open(LOG_TO_STDERR, LOG_LEVEL_ERROR);
	for (int i = 0; i < 3; i++)
		log_error("line %d", i);
	log_info("not asked for");
	size_t len;
	char *text = log_recent(&len);
	assert_non_null(strstr(text, "error: line 2\n"));
	assert_null(strstr(text, "not asked for"));
	assert_int_equal(len, strlen(text));
	free(text);
	const char *unknown = NULL;
	assert_false(trace_enable("imap,nonsense", &unknown));
	assert_string_equal(unknown, "nonsense");
	trace_mask = 0;
}

static int temporary_file(const char *bytes, size_t len)
{
	int fd = memfd_create("bytes", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(file_write(fd, 0, bytes, len), MF_OK);
	return fd;
}

static void files_are_read_written_and_copied_whole(void **state)
{
	(void)state;
	static char bytes[200001], read[sizeof bytes];
	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (char)(i * 7 + i / 251);
	int a = temporary_file(bytes, sizeof bytes), b = temporary_file("", 0);
	size_t len;
	assert_int_equal(file_read(a, 1, read, sizeof read, &len), MF_OK);
	assert_int_equal(len, sizeof bytes - 1);
	assert_memory_equal(read, bytes + 1, len);
	assert_false(file_is_same(a, b, sizeof bytes));
	assert_true(file_is_same(a, b, 0));
	assert_int_equal(file_copy(a, b, sizeof bytes), MF_OK);
	assert_true(file_is_same(a, b, sizeof bytes));
	assert_int_equal(file_write(b, 150000, "?", 1), MF_OK);
	assert_false(file_is_same(a, b, sizeof bytes));
	assert_true(file_is_same(a, b, 150000));
	assert_int_equal(file_copy(a, b, sizeof bytes + 1), MF_IO);
	assert_int_equal(file_read(-1, 0, read, 1, &len), MF_IO);
	assert_int_equal(len, 0);
	mf_close(&a);
	assert_int_equal(file_write(a, 0, bytes, 1), MF_IO);
	mf_close(&b);
}

static void log_goes_on_while_standard_error_is_elsewhere(void **state)
{
	(void)state;
	int log = memfd_create("log", MFD_CLOEXEC), other = memfd_create("other", MFD_CLOEXEC), saved = dup(STDERR_FILENO);
	char text[64] = "", none[4];
	assert_true(log >= 0 && other >= 0 && saved >= 0);
	dup2(log, STDERR_FILENO);
	log_open(LOG_TO_STDERR, LOG_LEVEL_ERROR);
	dup2(other, STDERR_FILENO);
	log_error("heard");
	dup2(saved, STDERR_FILENO);
	assert_int_equal(pread(other, none, sizeof none, 0), 0);
	assert_true(pread(log, text, sizeof text - 1, 0) > 0);
	assert_string_equal(text, "mailfs: error: heard\n");
	close(log);
	close(other);
	close(saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffer_stops_at_its_maximum), cmocka_unit_test(numbers_are_added_in_digits), cmocka_unit_test(printable_text_has_no_escape),
		cmocka_unit_test(errors_have_scopes), cmocka_unit_test(stop_sign_is_seen_by_poll),
		cmocka_unit_test(bus_delivers_in_order_to_all), cmocka_unit_test(log_goes_on_while_standard_error_is_elsewhere),
		cmocka_unit_test(log_keeps_the_last_lines), cmocka_unit_test(files_are_read_written_and_copied_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

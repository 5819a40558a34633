/* sync/pop3/uidl_format: UIDLs of many servers beside IMAP's numbers */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sync/pop3/uidl_format.h"

static void shown(void **state)
{
	(void)state;
	static const struct { const char *uidl; uint32_t uid; } cases[] = {
		{ "000000016b001d37", 1 }, { "6B001D3700000001", 1 }, { "ffffffff6b001d37", UINT32_MAX }, { "1795169591-77", 77 }, { "77-1795169591", 77 },
		{ "1795169591.77", 77 }, { "77.1795169591", 77 }, { "UID77-1795169591", 77 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint32_t uid = 0;
		assert_true(uidl_decode(cases[i].uidl, 1795169591, &uid));
		assert_int_equal(uid, cases[i].uid);
	}
}

static void not_shown(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"", "1", "-", ".", "77", "1795169591", "000000016b001d38", "000000006b001d37", "0-1795169591", "77-1795169592", "77-1795169591-", "77-1795169591x",
		"x77-1795169591", "77:1795169591", "99999999999-1795169591", "77-17951695910000000000000", "1795169591-1795169591", "6b001d376b001d37", "000000016b001d3",
		"000000016b001d371", "GmailId12345678abcdef00", "UID-1795169591", "-77-1795169591", " 77-1795169591",
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		uint32_t uid = 0;
		assert_false(uidl_decode(cases[i], 1795169591, &uid));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(shown), cmocka_unit_test(not_shown) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

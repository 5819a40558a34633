/* Texts that go together stay as and where they are until all of them go. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/mem.h"
#include "base/pool.h"

enum { TEXTS = 3000, LONG = 200000 };

static char *text_of(size_t i)
{
	size_t len = i % 1000 == 999 ? LONG : i % 97; /* some are longer than a block */
	char *text = mf_alloc(len + 1);
	memset(text, 'a' + (int)(i % 26), len);
	return text;
}

static void texts_stay(void **state)
{
	(void)state;
	struct pool pool = { 0 };
	static char *copies[TEXTS];
	pool_reset(&pool);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < TEXTS; i++) {
			MF_CLEANUP(mf_free) char *text = text_of(i);
			copies[i] = pool_copy(&pool, text);
		}
		for (size_t i = 0; i < TEXTS; i++) {
			MF_CLEANUP(mf_free) char *text = text_of(i);
			assert_string_equal(copies[i], text);
		}
		pool_reset(&pool);
	}
	pool_finish(&pool);
	pool_finish(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(texts_stay) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

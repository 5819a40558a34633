/* cache/uidls: what is stored is there after the next start; other numbers begin anew */
#include "test_cache_fixture.h"

#include "cache/uidls.h"

static void check_row(const struct uidl *row, const char *key, uint32_t uid, uint64_t size, const char *digest)
{
	assert_string_equal(row->key, key);
	assert_int_equal(row->uid, uid);
	assert_int_equal(row->size, size);
	assert_string_equal(row->digest, digest);
}

static void empty(void **state)
{
	(void)state;
	struct fixture f;
	struct uidls u;
	fixture_init(&f);
	fixture_open(&f);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.uidvalidity, 0);
	assert_int_equal(u.uidnext, 0);
	assert_int_equal(u.count, 0);
	uidls_finish(&u);
	fixture_finish(&f);
}

static void kept(void **state)
{
	(void)state;
	struct fixture f;
	struct uidls u;
	const struct uidl put[] = { { "b b", 2, 20, "" }, { "a", 1, UINT64_C(5000000000), "d1" }, { "\xff", UINT32_MAX - 1, 0, "" } };
	fixture_init(&f);
	fixture_open(&f);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = UINT32_MAX, .put = put, .put_count = 3 }), MF_OK);
	fixture_close(&f);
	fixture_open(&f);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.uidvalidity, 7);
	assert_int_equal(u.uidnext, UINT32_MAX);
	assert_int_equal(u.count, 3);
	check_row(&u.rows[0], "a", 1, UINT64_C(5000000000), "d1");
	check_row(&u.rows[1], "b b", 2, 20, "");
	check_row(&u.rows[2], "\xff", UINT32_MAX - 1, 0, "");
	uidls_finish(&u);
	fixture_finish(&f);
}

static void changed(void **state)
{
	(void)state;
	struct fixture f;
	struct uidls u;
	const struct uidl put[] = { { "a", 1, 10, "" }, { "b", 2, 20, "" }, { "c", 3, 30, "" } };
	/* two exchange their names, one is gone and comes again under another number */
	const struct uidl then[] = { { "b", 1, 10, "x" }, { "a", 2, 20, "y" }, { "c", 4, 30, "" } };
	const uint32_t gone[] = { 3, 99 };
	fixture_init(&f);
	fixture_open(&f);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = 4, .put = put, .put_count = 3 }), MF_OK);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = 5, .gone = gone, .gone_count = 2, .put = then, .put_count = 3 }), MF_OK);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.count, 3);
	check_row(&u.rows[0], "b", 1, 10, "x");
	check_row(&u.rows[1], "a", 2, 20, "y");
	check_row(&u.rows[2], "c", 4, 30, "");
	uidls_finish(&u);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 8, .uidnext = 1 }), MF_OK);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.uidvalidity, 8);
	assert_int_equal(u.count, 0);
	uidls_finish(&u);
	fixture_finish(&f);
}

static void many(void **state)
{
	(void)state;
	enum { MANY = 5000 };
	struct fixture f;
	struct uidls u;
	struct uidl *put = mf_alloc_array(MANY, sizeof *put);
	char (*keys)[16] = mf_alloc_array(MANY, sizeof *keys);
	uint32_t *gone = mf_alloc_array(MANY, sizeof *gone);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(keys[i], sizeof keys[i], "k%u", i);
		put[i] = (struct uidl){ .key = keys[i], .uid = i + 1, .size = i };
		gone[i] = i + 1;
	}
	fixture_init(&f);
	fixture_open(&f);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = MANY + 1, .put = put, .put_count = MANY }), MF_OK);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.count, MANY);
	check_row(&u.rows[MANY - 1], "k4999", MANY, MANY - 1, "");
	uidls_finish(&u);
	/* digests are learnt, and two of them exchange their keys */
	for (unsigned i = 0; i < MANY; i++)
		snprintf(put[i].digest, sizeof put[i].digest, "d%u", i);
	put[19].key = keys[20];
	put[20].key = keys[19];
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = MANY + 1, .put = put, .put_count = MANY }), MF_OK);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.count, MANY);
	check_row(&u.rows[18], "k18", 19, 18, "d18");
	check_row(&u.rows[19], "k20", 20, 19, "d19");
	check_row(&u.rows[20], "k19", 21, 20, "d20");
	check_row(&u.rows[MANY - 1], "k4999", MANY, MANY - 1, "d4999");
	uidls_finish(&u);
	assert_int_equal(cache_uidls_store(f.c, &(struct uidls_change){ .uidvalidity = 7, .uidnext = MANY + 1, .gone = gone, .gone_count = MANY - 1 }), MF_OK);
	assert_int_equal(cache_uidls(f.c, &u), MF_OK);
	assert_int_equal(u.count, 1);
	uidls_finish(&u);
	fixture_finish(&f);
	free(put);
	free(keys);
	free(gone);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(empty), cmocka_unit_test(kept), cmocka_unit_test(changed), cmocka_unit_test(many) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* smtp/outbox.c: what holds from one life to the next, whatever the clock does meanwhile. */
#include "unit/outbox_world.h"

static uint64_t number_of(struct world *w, uint64_t id)
{
	struct outbox_item item;
	assert_int_equal(outbox_item(w->outbox, id, &item), MF_OK);
	uint64_t number = item.number;
	outbox_item_finish(&item);
	return number;
}

static void numbers(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t id = put(&w, "a.eml", SIMPLE), number = number_of(&w, id), own = outbox_number(w.outbox), other;
	assert_true(number && own && own != number);
	assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ .number = own }, &other, NULL), MF_OK);
	reopen(&w);
	assert_true(number_of(&w, id) == number && number_of(&w, other) == own);
	assert_true(outbox_id_of_number(w.outbox, own) == other && !outbox_id_of_number(w.outbox, own + 1));
	/* many in one life, and a few in many */
	uint64_t last = own;
	for (int i = 0; i < 5000; i++, last++)
		assert_true(outbox_number(w.outbox) > last);
	for (int i = 0; i < 5; i++) {
		reopen(&w);
		uint64_t next = outbox_number(w.outbox);
		assert_true(next > last);
		last = next;
	}
	/* a message of a version that gave none */
	MF_CLEANUP(mf_free) char *command = mf_format("sed -i /^number:/d %s/outbox/%016llx.state", w.folder, (unsigned long long)id);
	assert_int_equal(system(command), 0);
	reopen(&w);
	number = number_of(&w, id);
	assert_true(number > last);
	reopen(&w);
	assert_true(number_of(&w, id) == number);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(numbers) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

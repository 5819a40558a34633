/* smtp/outbox.c: what holds from one life to the next, whatever the clock does meanwhile. */
#include "unit/outbox_world.h"

#include "smtp/handover.h"
#include "support/folders_fail.h"

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

/* The null sender of what answers by itself (RFC 5321 4.5.5) */
static void null_sender(void **state)
{
	(void)state;
	struct world w;
	char *name = NULL;
	uint64_t id;
	begin(&w);
	int message = text_file(SIMPLE);
	assert_int_equal(handover_write(w.folder, &(struct outbox_put){ .name = "a.eml", .sender = "" }, message, &name, NULL), MF_OK);
	close(message);
	assert_int_equal(handover_put(w.folder, name, false, w.outbox, &id, NULL), MF_OK);
	handover_remove(w.folder, name);
	free(name);
	reopen(&w);
	assert_state(&w, id, OUTBOX_WAITING);
	later(11);
	run(&w);
	assert_gone(&w, id);
	later(0);
	assert_int_equal(w.server.null_senders, 1);
	end(&w);
}

/* --- a disk that fails --------------------------------------------------------------------------------------------------- */

/* What was refused leaves nothing that a start would take for a message. */
static void put_in_vain(void **state)
{
	(void)state;
	struct world w;
	uint64_t id;
	struct outbox_counts counts;
	begin(&w);
	uint64_t first = put(&w, "a.eml", SIMPLE);
	unsigned before = files(&w);
	folders_fail = true;
	assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ .name = "b.eml" }, &id, NULL), MF_IO);
	folders_fail = false;
	assert_int_equal(files(&w), before);
	reopen(&w);
	outbox_counts(w.outbox, &counts);
	assert_true(counts.waiting == 1 && !counts.failed);
	assert_state(&w, first, OUTBOX_WAITING);
	end(&w);
}

/* What could not be saved has not been done: neither now nor behind the next start. */
static void changed_in_vain(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t failed = put(&w, "a.eml", "To: no@b\n\n"), maybe = put(&w, "b.eml", "To: x@b\nX-Dot: close\n\n");
	later(11);
	run(&w);
	uint64_t next = put(&w, "a.eml", "To: later@b\n\n");
	for (int life = 0; life < 2; life++, reopen(&w)) {
		unsigned asked = w.server.rcpts;
		folders_fail = true;
		assert_int_equal(outbox_retry(w.outbox, failed, NULL), MF_IO);
		assert_int_equal(outbox_retry(w.outbox, maybe, NULL), MF_IO);
		assert_int_equal(outbox_settle_sent(w.outbox, maybe, true), MF_IO);
		assert_int_equal(outbox_set_notify(w.outbox, next, DSN_NEVER), MF_IO);
		folders_fail = false;
		run(&w);
		assert_int_equal(w.server.rcpts, asked);
		assert_state(&w, failed, OUTBOX_FAILED);
		assert_state(&w, maybe, OUTBOX_MAYBE);
		struct outbox_item item;
		assert_int_equal(outbox_item(w.outbox, failed, &item), MF_OK);
		assert_string_equal(item.name, "a.eml");
		outbox_item_finish(&item);
		assert_int_equal(outbox_item(w.outbox, next, &item), MF_OK);
		assert_int_equal(item.notify_asked, 0);
		outbox_item_finish(&item);
	}
	assert_int_equal(outbox_settle_sent(w.outbox, maybe, true), MF_OK);
	assert_gone(&w, maybe);
	end(&w);
}

/* --- the clock was ahead, and is set back ------------------------------------------------------------------------------ */

#define YEAR (365 * 86400)

static int64_t at_of(struct world *w, uint64_t id)
{
	struct outbox_item item;
	assert_int_equal(outbox_item(w->outbox, id, &item), MF_OK);
	int64_t at_s = item.at_s;
	outbox_item_finish(&item);
	return at_s;
}

static void first_attempt_after_a_wrong_clock(void **state)
{
	struct world w;
	begin(&w);
	bool anew = *state != NULL;          /* mailfs was started anew meanwhile */
	later(YEAR);
	uint64_t id = put(&w, "a.eml", SIMPLE);
	later(-YEAR);
	if (anew)
		reopen(&w);
	assert_state(&w, id, OUTBOX_WAITING);
	run(&w);
	assert_int_equal(taken(&w), 0);      /* it can be taken back still */
	assert_true(at_of(&w, id) <= clock_wall_s() + 10);
	later(11);
	run(&w);
	assert_gone(&w, id);
	assert_int_equal(taken(&w), 1);
	end(&w);
}

static void retry_after_a_wrong_clock(void **state)
{
	struct world w;
	begin(&w);
	bool anew = *state != NULL;
	later(YEAR);
	uint64_t id = put(&w, "a.eml", "To: later@b\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	later(-YEAR);
	if (anew)
		reopen(&w);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	assert_true(at_of(&w, id) <= clock_wall_s() + 300);
	w.server.accept_later = true;
	later(301);
	run(&w);
	assert_gone(&w, id);
	end(&w);
}

/* A lock that went lets it rest anew, for as long as send-delay says, also where that is longer than until the next attempt. */
static void rest_of_one_that_is_retried(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t id = put(&w, "a.eml", "To: later@b\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	w.config->send_delay_ms = 3600000;
	outbox_hold(w.outbox, id, false, true);
	run(&w);
	assert_true(at_of(&w, id) > clock_wall_s() + 3000);
	end(&w);
}

/* The five days begin with the clock as it is now, and are over some time. */
static void given_up_after_a_wrong_clock(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	later(YEAR);
	uint64_t id = put(&w, "a.eml", "To: later@b\n\n");
	later(11);
	run(&w);
	later(-YEAR);
	run(&w);
	for (int i = 0; i < 40; i++) {
		later(4 * 3600);
		run(&w);
	}
	assert_state(&w, id, OUTBOX_FAILED);
	end(&w);
}

static void link_after_a_wrong_clock(void **state)
{
	(void)state;
	struct world w;
	struct outbox_link link;
	begin(&w);
	w.server.refuse = MF_OFFLINE;
	uint64_t id = put(&w, "a.eml", SIMPLE);
	later(YEAR);
	run(&w);
	outbox_link(w.outbox, &link);
	assert_true(link.error && link.next_try_s > clock_wall_s());
	w.server.refuse = MF_OK;
	later(-YEAR);
	run(&w);
	outbox_link(w.outbox, &link);
	assert_true(link.next_try_s <= clock_wall_s() + 30);
	later(31);
	run(&w);
	assert_gone(&w, id);
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { 
		cmocka_unit_test(numbers), cmocka_unit_test(null_sender), cmocka_unit_test(put_in_vain), cmocka_unit_test(changed_in_vain),
		cmocka_unit_test(first_attempt_after_a_wrong_clock),
		cmocka_unit_test_prestate(first_attempt_after_a_wrong_clock, &(int){ 1 }), cmocka_unit_test(retry_after_a_wrong_clock),
		cmocka_unit_test_prestate(retry_after_a_wrong_clock, &(int){ 1 }), cmocka_unit_test(given_up_after_a_wrong_clock),
		cmocka_unit_test(rest_of_one_that_is_retried),
		cmocka_unit_test(link_after_a_wrong_clock),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What makes thousands of changes cheap: what an answer told is not read again, what is awaited is found by its hash, files
 * of the spool go to the disk together. */
#include "cache/journal.h"
#include "cache/spool.h"
#include "test_cache_fixture.h"

#include <fcntl.h>

#define MANY 300

static void synced(struct fixture *f, uint64_t mailbox, uint32_t uidnext)
{
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, mailbox, true, 7, uidnext, 5, 1, false), MF_OK);
	commit(t);
}

static uint32_t uidnext_of(struct fixture *f, uint64_t mailbox)
{
	struct mailbox m = { 0 };
	assert_int_equal(cache_mailbox(f->c, mailbox, &m), MF_OK);
	uint32_t uidnext = m.uidnext;
	mailbox_finish(&m);
	return uidnext;
}

/* messages 1 to count of one mailbox, and MOVEs of all of them to another, sent */
struct moved { uint64_t from, to, messages[MANY]; struct op *ops; size_t count; };

static void move_all(struct fixture *f, struct moved *m, size_t count)
{
	m->from = add_mailbox(f, "INBOX");
	m->to = add_mailbox(f, "Archive");
	struct txn *t = begin(f);
	for (size_t i = 0; i < count; i++)
		m->messages[i] = put(t, m->from, (uint32_t)i + 1, (unsigned)i + 1);
	commit(t);
	synced(f, m->from, (uint32_t)count + 1);
	synced(f, m->to, 1);
	t = begin(f);
	for (size_t i = 0; i < count; i++) {
		char name[32];
		snprintf(name, sizeof name, "moved-%zu.eml", i);
		assert_int_equal(txn_move(t, m->messages[i], m->to, name, &(struct disposal){ .expunge = true }), MF_OK);
	}
	commit(t);
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, MANY, &m->ops, &m->count), MF_OK);
	assert_int_equal(m->count, count);
	assert_int_equal(journal_mark_sent(f->c, m->ops, m->count), MF_OK);
}

static void moved_finish(struct moved *m)
{
	for (size_t i = 0; i < m->count; i++)
		op_finish(&m->ops[i]);
	free(m->ops);
}

static void answer(struct fixture *f, const struct op *op, uint32_t uidvalidity, uint32_t uid)
{
	struct txn *t = begin(f);
	assert_int_equal(txn_op_done(t, op->id, uidvalidity, uid), MF_OK);
	commit(t);
}

static void test_told_is_known(void **state)
{
	struct fixture *f = *state;
	struct moved m;
	move_all(f, &m, 4);
	answer(f, &m.ops[0], 7, 1);
	assert_int_equal(uidnext_of(f, m.to), 2);
	answer(f, &m.ops[1], 7, 2);
	assert_int_equal(uidnext_of(f, m.to), 3);
	/* somebody else's 3 lies between: it is to be read */
	answer(f, &m.ops[2], 7, 4);
	assert_int_equal(uidnext_of(f, m.to), 3);
	/* after it, and below what is known */
	answer(f, &m.ops[3], 7, 5);
	assert_int_equal(uidnext_of(f, m.to), 3);
	moved_finish(&m);
}

static void test_told_of_unread(void **state)
{
	struct fixture *f = *state;
	struct moved m;
	move_all(f, &m, 1);
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, m.to, false, 7, 1, 5, 1, false), MF_OK); /* not to its end */
	commit(t);
	answer(f, &m.ops[0], 7, 1);
	assert_int_equal(uidnext_of(f, m.to), 1);
	moved_finish(&m);
}

static void test_unnumbered_are_found(void **state)
{
	struct fixture *f = *state;
	struct moved m;
	move_all(f, &m, MANY);
	struct txn *t = begin(f);
	for (size_t i = 0; i < m.count; i++)
		assert_int_equal(txn_op_done(t, m.ops[i].id, 0, 0), MF_OK);
	commit(t);
	assert_int_equal(journal_count(f->c), MANY);
	/* the last first: far beyond those that are compared whatever their hash is */
	t = begin(f);
	for (size_t i = MANY; i-- > 0;)
		assert_int_equal(put(t, m.to, (uint32_t)(MANY - i), (unsigned)i + 1), m.messages[i]);
	commit(t);
	assert_int_equal(journal_count(f->c), 0);
	moved_finish(&m);
}

static uint64_t spooled(struct fixture *f, uint64_t mailbox, const char *name)
{
	static const char text[] = "Subject: x\r\n\r\ny\r\n";
	uint64_t id = 0, size = 0;
	int fd = -1;
	struct txn *t = begin(f);
	assert_int_equal(txn_create(t, mailbox, name, &id), MF_OK);
	commit(t);
	assert_int_equal(spool_edit(f->c, id, &fd), MF_OK);
	assert_int_equal(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
	assert_int_equal(spool_prepare(f->c, id, fd, sizeof text - 1, true, &(struct spool_note){ "INBOX", name, 1 }, &size), MF_OK);
	assert_int_equal(spool_commit(f->c, id), MF_OK);
	spool_discard_edit(f->c, id);
	mf_close(&fd);
	return id;
}

static void test_spool_together(void **state)
{
	struct fixture *f = *state;
	uint64_t mailbox = add_mailbox(f, "INBOX"), ids[12];
	enum mf_err results[12];
	for (size_t i = 0; i < 12; i++) {
		char name[32];
		snprintf(name, sizeof name, "letter-%zu.eml", i);
		ids[i] = spooled(f, mailbox, name);
	}
	char torn[160];
	snprintf(torn, sizeof torn, "%s/spool/%llu", f->state, (unsigned long long)ids[5]);
	assert_int_equal(truncate(torn, 10), 0);
	spool_remove(f->c, ids[7]);
	assert_int_equal(spool_sync_all(f->c, ids, 12, results), MF_OK);
	for (size_t i = 0; i < 12; i++)
		assert_int_equal(results[i], i == 5 ? MF_CORRUPT : i == 7 ? MF_NOT_FOUND : MF_OK);
	assert_int_equal(spool_sync_all(f->c, ids, 0, results), MF_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_told_is_known, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_told_of_unread, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_unnumbered_are_found, fixture_setup, fixture_teardown),
		cmocka_unit_test_setup_teardown(test_spool_together, fixture_setup, fixture_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* journal: any changes and answers in any order: all is taken back, nothing drifts */
#include "unit/test_journal_fixture.h"

/* --- anything -------------------------------------------------------------------------------------------------------------------- */

static unsigned dice_state;
static unsigned dice(unsigned sides)
{
	dice_state = dice_state * 1103515245U + 12345U;
	return dice_state / 65536U % sides;
}

struct found_ids { uint64_t ids[400]; size_t count; };
static bool note_id(void *context, const struct entry *e, const char *name)
{
	(void)name;
	struct found_ids *found = context;
	if (found->count < 400)
		found->ids[found->count++] = e->id;
	return true;
}

static bool note_mailbox(void *context, const struct mailbox *m)
{
	struct found_ids *found = context;
	if (found->count < 100)
		found->ids[found->count++] = m->id;
	return true;
}

static uint64_t any_mailbox(struct fixture *f)
{
	struct found_ids found = { .count = 0 };
	assert_int_equal(cache_mailboxes(f->c, note_mailbox, &found), MF_OK);
	return found.ids[dice((unsigned)found.count)];
}

static uint64_t any_message(struct fixture *f)
{
	struct found_ids found = { .count = 0 };
	for (int i = 0; i < 8 && !found.count; i++)
		assert_int_equal(cache_list(f->c, any_mailbox(f), 0, note_id, &found), MF_OK);
	return found.count ? found.ids[dice((unsigned)found.count)] : 0;
}

static void random_change(struct fixture *f, bool writes)
{
	uint64_t message = any_message(f), mailbox = any_mailbox(f), made = 0;
	char name[40];
	snprintf(name, sizeof name, dice(5) ? "n%u.eml" : "n%u~", dice(12));
	struct disposal how = { .expunge = dice(3) == 0, .trash = dice(4) ? any_mailbox(f) : 0 };
	static const char *const texts[] = { TEXT("a"), TEXT("bb"), TEXT("ccc") };
	const char *text = texts[dice(3)];
	switch (dice(writes ? 12 : 8)) {
	case 0: case 1:
		if (message)
			(void)CHANGE(f, txn_change_flags(t, message, dice(32), dice(32), dice(2) ? "K1 K2" : "", dice(2) ? "K2 K3" : ""));
		break;
	case 2: case 3: case 4:
		if (message)
			(void)CHANGE(f, txn_move(t, message, mailbox, name, &how));
		break;
	case 5:
		if (message)
			(void)CHANGE(f, txn_remove(t, message, &how));
		break;
	case 6: (void)CHANGE(f, txn_mailbox_create(t, dice(2) ? mailbox : 0, name, &made)); break;
	case 7: (void)(dice(2) ? CHANGE(f, txn_mailbox_rename(t, mailbox, dice(2) ? any_mailbox(f) : 0, name)) : CHANGE(f, txn_mailbox_delete(t, mailbox))); break;
	case 8: case 9:
		if (CHANGE(f, txn_create(t, mailbox, name, &made)) == MF_OK) {
			if (dice(4) == 0 && message) {
				(void)CHANGE(f, txn_copied(t, made, message, 0));
			} else if (dice(5)) {
				prepare(f, made, text);
				(void)CHANGE(f, written_in(t, made, text, !name_is_scratch(name), &how));
			}
		}
		break;
	case 10: case 11:
		if (message) {
			prepare(f, message, text);
			(void)CHANGE(f, written_in(t, message, text, true, &how));
		}
		break;
	}
}

static uint32_t next_uid = 1000;

/* The engine does something with what can be done: answers of all kinds */
static void random_answer(struct fixture *f)
{
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 3, &ops, &count), MF_OK);
	if (dice(3))
		assert_int_equal(journal_mark_sent(f->c, ops, count), MF_OK);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	if (!journal_count(f->c))
		return;
	struct op op = nth_op(f, dice((unsigned)journal_count(f->c)));
	bool moves = op.kind == OP_MOVE;
	if (op.state == OP_SENT && op.kind < OP_CREATE) {
		uint32_t validity = dice(4) ? VALIDITY : 0;
		switch (dice(6)) {
		case 0: (void)CHANGE(f, txn_op_gone(t, op.id)); break;
		case 1: (void)CHANGE(f, txn_op_park(t, op.id, OP_PARKED, "no")); break;
		case 2: (void)CHANGE(f, txn_op_again(t, op.id, 0)); break;
		case 3: (void)CHANGE(f, moves ? txn_op_half_moved(t, &op, validity, next_uid++) : txn_op_done(t, op.id, validity, next_uid++)); break;
		default: (void)CHANGE(f, txn_op_done(t, op.id, validity, next_uid++)); break;
		}
	} else if (op.state == OP_SENT) {
		char *target = NULL;
		if ((op.kind == OP_CREATE || op.kind == OP_RENAME) && dice(3)) {
			if (journal_target(f->c, &op, &target) == MF_OK)
				DO(f, txn_op_mailbox_is(t, op.id, target));
			else
				DO(f, txn_op_park(t, op.id, OP_PARKED, "no"));
			free(target);
		} else if (op.kind == OP_CREATE || op.kind == OP_RENAME) {
			DO(f, txn_op_park(t, op.id, OP_PARKED, "no"));
		} else {
			DO(f, txn_op_done(t, op.id, 0, 0));
		}
	} else if (dice(4) == 0) {
		(void)CHANGE(f, txn_cancel(t, op.id));
	} else if (op.uid && dice(4) == 0) {
		(void)CHANGE(f, txn_message_vanished(t, op.mailbox, op.uid));
	} else if (dice(3) == 0) {
		(void)CHANGE(f, txn_retry(t, op.id));
	}
}

static unsigned rounds(unsigned few)
{
	const char *many = getenv("MAILFS_JOURNAL_ROUNDS");
	return many ? (unsigned)strtoul(many, NULL, 10) : few;
}

/* Whatever is done, taking it all back, the newest first, leaves what was. */
static void all_taken_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 5);
	mailbox_with(f, "Trash", 1);
	mailbox_with(f, "B", 3);
	mailbox_with(f, "B/In", 2);
	char *before = tree_text(f->state, true);
	for (unsigned round = 0; round < rounds(25); round++) {
		dice_state = round + 1;
		for (unsigned i = 0, steps = 1 + dice(12); i < steps; i++) {
			struct txn *t = begin(f);
			uint64_t message = any_message(f), made;
			struct entry entry = { .uid = 0 };
			bool there = message && cache_entry(f->c, message, &entry) == MF_OK && entry.uid; /* else it may go back, which is no change */
			struct disposal how = { .expunge = !there || dice(3) == 0, .trash = dice(4) ? any_mailbox(f) : 0 };
			char name[40];
			snprintf(name, sizeof name, "n%u.eml", 100 * round + i); /* each its own: what is displaced keeps its name but in Trash */
			enum mf_err e;
			switch (dice(6)) {
			case 0: e = txn_mailbox_create(t, dice(2) ? any_mailbox(f) : 0, name, &made); break;
			case 1: e = txn_mailbox_rename(t, any_mailbox(f), dice(2) ? any_mailbox(f) : 0, name); break;
			case 2: e = txn_mailbox_delete(t, any_mailbox(f)); break;
			case 3: e = message ? txn_remove(t, message, &how) : MF_OK; break;
			default: {
				/* within a mailbox a new name is nothing that waits */
				uint64_t to = any_mailbox(f);
				e = there && to != entry.mailbox ? txn_move(t, message, to, name, &how) : MF_OK;
			}
			}
			if (e)
				txn_rollback(t);
			else
				commit(t);
			check_index(f->c, f->state);
		}
		/* what messages lie in has to wait for them */
		for (unsigned pass = 0; pass < 4; pass++) {
			for (uint64_t n = journal_count(f->c); n-- > 0;) {
				if (n >= journal_count(f->c))
					continue;
				struct op op = nth_op(f, n);
				enum mf_err e = CHANGE(f, txn_cancel(t, op.id));
				if (e && e != MF_EXISTS)
					fail_msg("round %u: cancel of %s: %s", round, op_kind_word(op.kind), mf_err_name(e));
			}
		}
		assert_int_equal(journal_count(f->c), 0);
		char *after = tree_text(f->state, true);
		if (strcmp(before, after) != 0)
			fail_msg("round %u: not as before, but:\n%s", round, after);
		free(after);
	}
	free(before);
}

/* Counts, listings and operations agree after each of many changes and answers; and so they do when the index is opened again. */
static void nothing_drifts(void **state)
{
	struct fixture *f = *state;
	for (unsigned round = 0; round < rounds(12); round++) {
		dice_state = 1000 + round;
		struct found_ids found = { .count = 0 };
		assert_int_equal(cache_mailboxes(f->c, note_mailbox, &found), MF_OK);
		if (round == 0) {
			mailbox_with(f, "INBOX", 8);
			mailbox_with(f, "Trash", 2);
			mailbox_with(f, "B", 5);
		}
		for (unsigned i = 0; i < 60; i++) {
			if (dice(3))
				random_change(f, true);
			else
				random_answer(f);
		}
		fixture_close(f);
		fixture_open(f);
		check_index(f->c, f->state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(all_taken_back), WITH_CACHE(nothing_drifts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

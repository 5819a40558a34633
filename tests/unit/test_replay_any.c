/* replay: any changes, while they are sent and the connection is cut */
#include "unit/replay_world.h"

static unsigned dice_state;
static unsigned dice(unsigned sides)
{
	dice_state = dice_state * 1103515245U + 12345U;
	return dice_state / 65536U % sides;
}

struct found_ids { uint64_t ids[200]; size_t count; };
static bool note_mailbox(void *context, const struct mailbox *m)
{
	struct found_ids *found = context;
	if (found->count < 200)
		found->ids[found->count++] = m->id;
	return true;
}
static bool note_message(void *context, const struct entry *e, const char *name)
{
	(void)name;
	struct found_ids *found = context;
	if (found->count < 200)
		found->ids[found->count++] = e->id;
	return true;
}

static uint64_t any_mailbox(struct world *w)
{
	struct found_ids found = { .count = 0 };
	assert_int_equal(cache_mailboxes(w->cache, note_mailbox, &found), MF_OK);
	return found.ids[dice((unsigned)found.count)];
}

static uint64_t latest;

/* Often the same one again: what waits for it is changed while it is under way. */
static uint64_t any_message(struct world *w)
{
	struct found_ids found = { .count = 0 };
	struct entry e;
	if (dice(2) && cache_entry(w->cache, latest, &e) == MF_OK && e.mailbox)
		return latest;
	for (int i = 0; i < 8 && !found.count; i++)
		(void)cache_list(w->cache, any_mailbox(w), 0, note_message, &found);
	latest = found.count ? found.ids[dice((unsigned)found.count)] : 0;
	return latest;
}

static int next_number = 5000;

/* mailboxes: also removes them, which waits for a person where another client has put something into one */
static void random_change(struct world *w, bool mailboxes)
{
	uint64_t message = any_message(w), mailbox = any_mailbox(w), made = 0;
	struct disposal how = { .expunge = dice(3) == 0, .trash = dice(4) ? any_mailbox(w) : 0 };
	char name[40];
	snprintf(name, sizeof name, "n%u.eml", dice(20));
	unsigned what = dice(11);
	what = what == 2 && !mailboxes ? 3 : what;
	if (what == 6 && message && CHANGE(w, txn_create(t, mailbox, name, &made)) == MF_OK) {
		if (CHANGE(w, txn_copied(t, made, message, 0)) != MF_OK)
			write_number(w, made, next_number++, &how);
		return;
	}
	if (what == 7 && CHANGE(w, txn_create(t, mailbox, name, &made)) == MF_OK) {
		latest = made;
		write_number(w, made, next_number++, &how);
		return;
	}
	if (what == 8 && message) {
		enum mf_err e = try_to_write_number(w, message, next_number++, &how);
		assert_true(e == MF_OK || e == MF_NOT_FOUND);
		return;
	}
	enum mf_err e;
	struct txn *t;
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	switch (what) {
	case 0: e = txn_mailbox_create(t, dice(2) ? mailbox : 0, name, &made); break;
	case 1: e = txn_mailbox_rename(t, mailbox, dice(2) ? any_mailbox(w) : 0, name); break;
	case 2: e = txn_mailbox_delete(t, mailbox); break;
	case 3: e = message ? txn_change_flags(t, message, dice(8), dice(8), dice(2) ? "K1 K2" : "", dice(2) ? "K2 K3" : "") : MF_OK; break;
	case 4: e = message ? txn_remove(t, message, &how) : MF_OK; break;
	default: e = message ? txn_move(t, message, mailbox, name, &how) : MF_OK; break;
	}
	if (e != MF_OK)
		txn_rollback(t);
	else
		assert_int_equal(txn_commit(t), MF_OK);
}

static const struct memory_mailbox *any_at_server_locked(struct world *w)
{
	unsigned count = 0;
	for (const struct memory_mailbox *b = w->server->mailboxes; b; b = b->next)
		count++;
	const struct memory_mailbox *found = w->server->mailboxes;
	for (unsigned n = dice(count); n--;)
		found = found->next;
	return found;
}

/* Another client moves or removes a message. */
static void change_by_another(struct world *w)
{
	pthread_mutex_lock(&w->server->lock);
	const struct memory_mailbox *from = any_at_server_locked(w), *to = any_at_server_locked(w);
	uint32_t uid = from->count ? from->messages[dice((unsigned)from->count)].uid : 0;
	MF_CLEANUP(mf_free) char *raw = mf_strdup(from->raw), *dest = mf_strdup(to->raw);
	bool takes = !(to->flags & MAILBOX_NOSELECT);
	pthread_mutex_unlock(&w->server->lock);
	if (uid && dice(5) == 0)
		(void)memory_expunge(w->server, raw, uid);
	else if (uid && takes)
		(void)memory_move(w->server, raw, uid, dest);
}

struct held_ids { uint64_t ids[30]; size_t count; };

static bool note_held(void *context, const struct op *op)
{
	struct held_ids *c = context;
	if (op->kind == OP_COPY && op->state == OP_PARKED && c->count < 30)
		c->ids[c->count++] = op->id;
	return true;
}

/* Copies of what another client has removed, and that is not here, cannot be made. */
static void cancel_held(struct world *w)
{
	struct held_ids c = { .count = 0 };
	assert_int_equal(journal_list(w->cache, 0, note_held, &c), MF_OK);
	for (size_t i = 0; i < c.count; i++)
		DO(w, txn_cancel(t, c.ids[i]));
}

/* Changes go on while they are sent, and the connection is cut now and then; in the end the server is as the tree. */
static void run_anything(bool others)
{
	const char *many = getenv("MAILFS_JOURNAL_ROUNDS");
	for (unsigned round = 0; round < (many ? (unsigned)strtoul(many, NULL, 10) : 12); round++) {
		struct world w;
		char when[60];
		dice_state = 100 + round;
		/* without UIDPLUS nobody knows what has become of what another client has moved on before it was seen */
		build(&w, all_caps[others ? round % 2 : round % 4]);
		memory_together(w.server, 1 + dice(3) * 4);
		for (unsigned i = 0; i < 40; i++) {
			random_change(&w, !others);
			if (others && dice(4) == 0)
				change_by_another(&w);
			account_journal_changed(w.account);
			if (dice(4) == 0)
				(void)want_settled_once(&w);
			if (dice(6) == 0)
				memory_cut_answers(w.server, dice(12));
			if (dice(8) == 0)
				account_connect(w.account);
		}
		memory_cut_answers(w.server, UINT32_MAX);
		snprintf(when, sizeof when, "round %u", round);
		(void)want_settled(&w);
		for (int again = 0; again < 4 && journal_count(w.cache); again++) {
			assert_int_equal(want_verified(&w), MF_OK);
			retry_all(&w);
			(void)want_settled(&w);
		}
		if (others)
			cancel_held(&w);
		assert_settled_as(&w, NULL, when);
		world_finish(&w);
	}
}

static void anything(void **state)
{
	(void)state;
	run_anything(false);
}

static void anything_beside_another(void **state)
{
	(void)state;
	run_anything(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(anything), cmocka_unit_test(anything_beside_another),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

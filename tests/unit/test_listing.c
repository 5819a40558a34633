/* listing: the compact table against a plain one; and as the cache loads, keeps and drops it */
#include "unit/test_cache_fixture.h"

#include "cache/private.h"

/* --- against a model ----------------------------------------------------------------------------------------------------- */

enum { IDS = 400 };
struct model { bool there[IDS]; struct entry entries[IDS]; char names[IDS][24]; };

static int compare_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void check(const struct listing *l, const struct model *m)
{
	uint32_t count = 0, row;
	const char *names[IDS];
	for (unsigned id = 1; id < IDS; id++) {
		assert_int_equal(listing_find_id(l, id, &row), m->there[id]);
		if (!m->there[id])
			continue;
		struct entry e;
		listing_entry(l, row, &e);
		assert_int_equal(e.id, id);
		assert_int_equal(e.size, m->entries[id].size);
		assert_int_equal(e.ctime, m->entries[id].ctime);
		assert_int_equal(e.size_checked, m->entries[id].size_checked);
		assert_string_equal(listing_name(l, row), m->names[id]);
		assert_true(listing_find_name(l, m->names[id], &row));
		assert_int_equal(l->rows[row].key >> 26, id);
		assert_int_equal(l->rows[l->by_id[count]].key >> 26, id); /* in order */
		names[count++] = m->names[id];
	}
	assert_int_equal(l->count, count);
	assert_int_equal(listing_place_after(l, 0), 0);
	assert_int_equal(listing_place_after(l, IDS), count);
	assert_false(listing_find_name(l, "no such name", &row));
	if (!l->by_name)
		return;
	if (count)
		qsort(names, count, sizeof *names, compare_text);
	for (uint32_t i = 0; i < count; i++)
		assert_string_equal(listing_name(l, l->by_name[i]), names[i]);
}

static void random_changes_against_a_model(void **state)
{
	(void)state;
	unsigned seed = 7;
	for (int round = 0; round < 6; round++) {
		struct listing *l = listing_create(5);
		static struct model m;
		memset(&m, 0, sizeof m);
		for (int step = 0; step < 3000; step++) {
			unsigned id = 1 + (unsigned)rand_r(&seed) % (IDS - 1), what = (unsigned)rand_r(&seed) % 10;
			if (what < 3) {
				listing_remove(l, id);
				m.there[id] = false;
			} else if (what < 5) {
				struct entry e = { .id = id, .size = (unsigned)step, .ctime = step, .size_checked = step % 2 };
				listing_put(l, &e, NULL);
				if (m.there[id])
					m.entries[id] = e;
			} else {
				struct entry e = { .id = id, .size = (unsigned)step, .ctime = step };
				if (!m.there[id] || what == 9) /* a new one, or a new name */
					snprintf(m.names[id], sizeof m.names[id], "%x-%u", (unsigned)rand_r(&seed), id);
				listing_put(l, &e, m.names[id]);
				m.there[id] = true;
				m.entries[id] = e;
			}
			if (step == 1500 + round * 100)
				listing_use_names(l, listing_sort_names(l));
			if (step % 100 == 0)
				check(l, &m);
		}
		check(l, &m);
		assert_true(listing_bytes(l) < 100000);
		listing_clear(l);
		memset(&m, 0, sizeof m);
		check(l, &m);
		listing_destroy(l);
	}
	listing_destroy(NULL);
}

/* names come and go for ever: the memory does not grow */
static void forgotten_names_give_their_room_back(void **state)
{
	(void)state;
	struct listing *l = listing_create(5);
	for (uint64_t id = 1; id < 60000; id++) {
		char name[64];
		snprintf(name, sizeof name, "a name that is rather long as names are, number %u", (unsigned)id);
		listing_put(l, &(struct entry){ .id = id }, name);
		if (id > 100)
			listing_remove(l, id - 100);
	}
	assert_int_equal(l->count, 100);
	assert_true(listing_bytes(l) < 200000);
	uint32_t row;
	assert_true(listing_find_name(l, "a name that is rather long as names are, number 59999", &row));
	listing_destroy(l);
}

static void a_hundred_thousand_fit(void **state)
{
	(void)state;
	struct listing *l = listing_create(5);
	char name[100];
	for (unsigned id = 100000; id > 0; id--) { /* as a first synchronisation leaves them */
		snprintf(name, sizeof name, "2026-11-19_Alice-Example_Re-Q3-budget-of-something_%08x.eml", id);
		listing_load(l, &(struct entry){ .id = id, .uid = id }, name);
	}
	listing_settle(l);
	assert_int_equal(l->count, 100000);
	assert_true(listing_bytes(l) < 13000000);
	uint32_t row;
	assert_true(listing_find_name(l, name, &row));
	assert_true(listing_find_id(l, 50000, &row));
	assert_int_equal(l->rows[row].uid, 50000);
	listing_destroy(l);
}

/* --- in the cache ---------------------------------------------------------------------------------------------------------- */

static uint64_t fill(struct fixture *f, const char *raw, unsigned count)
{
	uint64_t mailbox = add_mailbox(f, raw);
	struct txn *t = begin(f);
	for (unsigned i = 1; i <= count; i++)
		put(t, mailbox, i, i);
	commit(t);
	return mailbox;
}

struct seen { uint64_t ids[100]; size_t count, max; };
static bool see(void *context, const struct entry *e, const char *name)
{
	struct seen *seen = context;
	assert_true(*name);
	seen->ids[seen->count++] = e->id;
	return seen->count < seen->max;
}

static void listed_in_pieces(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = fill(f, "INBOX", 50), after = 0;
	struct seen all = { .max = 100 };
	for (;;) {
		struct seen piece = { .max = 7 };
		assert_int_equal(cache_list(f->c, inbox, after, see, &piece), MF_OK);
		if (!piece.count)
			break;
		memcpy(all.ids + all.count, piece.ids, piece.count * sizeof *piece.ids);
		all.count += piece.count;
		after = piece.ids[piece.count - 1];
		if (all.count == 21) { /* one goes and one comes between: offsets stay right */
			struct txn *t = begin(f);
			assert_int_equal(txn_message_vanished(t, inbox, 30), MF_OK);
			put(t, inbox, 51, 51);
			commit(t);
		}
	}
	assert_int_equal(all.count, 50);
	for (size_t i = 1; i < all.count; i++)
		assert_true(all.ids[i] > all.ids[i - 1]);
	assert_int_equal(cache_list(f->c, 4711, 0, see, &all), MF_NOT_FOUND);
}

static void successors(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), ids[10];
	struct txn *t = begin(f);
	for (unsigned i = 0; i < 10; i++)
		ids[i] = put(t, inbox, i + 1, 10 - i); /* ids ascend, the names' dates and subjects descend */
	commit(t);
	struct entry e[20];
	size_t count;
	assert_int_equal(cache_successors(f->c, ids[3], ORDER_ID, 3, e, &count), MF_OK);
	assert_int_equal(count, 3);
	assert_true(e[0].id == ids[4] && e[2].id == ids[6]);
	assert_int_equal(cache_successors(f->c, ids[9], ORDER_ID, 3, e, &count), MF_OK);
	assert_int_equal(count, 0);
	assert_int_equal(cache_successors(f->c, ids[3], ORDER_NAME, 20, e, &count), MF_OK);
	char *last = name_of(f, ids[3]);
	size_t behind = 0;
	for (unsigned i = 0; i < 10; i++) {
		char *name = name_of(f, ids[i]);
		behind += strcmp(name, last) > 0;
		free(name);
	}
	assert_int_equal(count, behind);
	for (size_t i = 0; i < count; i++) {
		char *name = name_of(f, e[i].id);
		assert_true(strcmp(name, last) > 0);
		free(last);
		last = name;
	}
	free(last);
	uint64_t late = add_message(f, inbox, 11, 99); /* the order of names is kept up to date */
	size_t more;
	assert_int_equal(cache_successors(f->c, ids[3], ORDER_NAME, 20, e, &more), MF_OK);
	bool met = false;
	for (size_t i = 0; i < more; i++)
		met = met || e[i].id == late;
	assert_true(met && more == count + 1);
	t = begin(f);
	assert_int_equal(txn_message_vanished(t, inbox, 11), MF_OK);
	commit(t);
	assert_int_equal(cache_successors(f->c, ids[3], ORDER_NAME, 20, e, &more), MF_OK);
	assert_int_equal(more, count);
	assert_int_equal(cache_successors(f->c, late, ORDER_ID, 20, e, &more), MF_NOT_FOUND);
}

static void the_budget_is_kept(void **state)
{
	struct fixture *f = *state;
	f->options.listing_budget = 60000;
	fixture_close(f);
	fixture_open(f);
	uint64_t boxes[8];
	for (int i = 0; i < 8; i++) {
		char raw[16];
		snprintf(raw, sizeof raw, "box%d", i);
		boxes[i] = fill(f, raw, 200);
	}
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 8; i++) {
			assert_int_equal(list_count(f, boxes[i]), 200);
			assert_int_equal(list_count(f, boxes[0]), 200); /* in use all the time */
			assert_true(f->c->listing_bytes <= 60000);
			assert_non_null(mailboxes_find(&f->c->table, boxes[0])->listing);
		}
	}
	assert_true(f->c->loaded_count < 8);
	fixture_close(f);
	f->options.listing_budget = 100; /* not even one fits: each is there while it is used */
	fixture_open(f);
	for (int i = 0; i < 8; i++)
		assert_int_equal(list_count(f, boxes[i]), 200);
}

/* what the table says is what the database says, after everything that can happen to it */
static void follows_every_change(void **state)
{
	struct fixture *f = *state;
	unsigned seed = 99;
	uint64_t boxes[3] = { fill(f, "a", 40), fill(f, "b", 40), fill(f, "c", 40) };
	uint32_t next_uid = 1000;
	for (int step = 0; step < 300; step++) {
		uint64_t box = boxes[(unsigned)rand_r(&seed) % 3];
		struct txn *t = begin(f);
		struct uid_id *uids;
		size_t count;
		assert_int_equal(cache_uids(f->c, box, &uids, &count), MF_OK);
		for (unsigned i = 0; i < 5; i++) {
			unsigned what = (unsigned)rand_r(&seed) % 8;
			if (what < 3)
				put(t, box, next_uid++, (unsigned)rand_r(&seed) % 150);
			else if (what < 6 && count)
				(void)txn_message_vanished(t, box, uids[(unsigned)rand_r(&seed) % count].uid);
			else if (what < 7 && count)
				(void)txn_message_flags(t, box, uids[(unsigned)rand_r(&seed) % count].uid, (unsigned)rand_r(&seed) % 4, "", 0);
			else if ((unsigned)rand_r(&seed) % 10 == 0)
				assert_int_equal(txn_mailbox_renumbered(t, box, next_uid), MF_OK);
		}
		free(uids);
		if (step % 7 == 3)
			txn_rollback(t);
		else
			commit(t);
		if (step % 20 == 19) {
			t = begin(f);
			assert_int_equal(txn_limbo_purge(t, 0), MF_OK);
			commit(t);
		}
		for (int i = 0; i < 3; i++) {
			struct mailbox m;
			assert_int_equal(cache_mailbox(f->c, boxes[i], &m), MF_OK);
			assert_int_equal(list_count(f, boxes[i]), m.total);
			assert_int_equal(cache_uids(f->c, boxes[i], &uids, &count), MF_OK);
			assert_int_equal(count, m.total);
			for (size_t k = 0; k < count; k += 3) {
				struct message message;
				struct entry e;
				assert_int_equal(cache_message(f->c, uids[k].id, &message), MF_OK);
				assert_int_equal(cache_lookup(f->c, boxes[i], message.name, &e), MF_OK);
				assert_int_equal(e.id, message.entry.id);
				assert_int_equal(e.uid, message.entry.uid);
				assert_int_equal(e.ctime, message.entry.ctime);
				assert_int_equal(message.entry.mailbox, boxes[i]);
				message_finish(&message);
			}
			free(uids);
			mailbox_finish(&m);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_against_a_model), cmocka_unit_test(forgotten_names_give_their_room_back),
		cmocka_unit_test(a_hundred_thousand_fit), WITH_CACHE(listed_in_pieces), WITH_CACHE(successors), WITH_CACHE(the_budget_is_kept),
		WITH_CACHE(follows_every_change),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* cache: messages, their names, and what follows them when they move */
#include <sqlite3.h>

#include "unit/test_cache_fixture.h"

static struct entry entry_of(struct fixture *f, uint64_t message)
{
	struct entry e;
	assert_int_equal(cache_entry(f->c, message, &e), MF_OK);
	return e;
}

static uint32_t total(struct fixture *f, uint64_t mailbox, uint32_t *ret_unseen)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, mailbox, &m), MF_OK);
	uint32_t count = m.total;
	if (ret_unseen)
		*ret_unseen = m.unseen;
	mailbox_finish(&m);
	return count;
}

static void vanish(struct fixture *f, uint64_t mailbox, uint32_t uid)
{
	struct txn *t = begin(f);
	assert_int_equal(txn_message_vanished(t, mailbox, uid), MF_OK);
	commit(t);
}

static void purge(struct fixture *f, int64_t age_ms)
{
	struct txn *t = begin(f);
	assert_int_equal(txn_limbo_purge(t, age_ms), MF_OK);
	commit(t);
}

static void everything_is_kept(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id;
	struct test_message m;
	struct message_put p = *message_make(&m, inbox, 77, 5);
	p.flags = 1 | 4;
	p.keywords = "$Work later";
	p.email_id = "E-1";
	p.modseq = 1ULL << 50;
	p.size = 5000000000;
	p.is_new = true;
	struct txn *t = begin(f);
	assert_int_equal(txn_message_put(t, &p, &id), MF_OK);
	struct entry e;
	assert_int_equal(cache_entry(f->c, id, &e), MF_NOT_FOUND); /* readers see whole transactions */
	commit(t);
	for (int round = 0; round < 2; round++) {
		struct message found;
		assert_int_equal(cache_message(f->c, id, &found), MF_OK);
		assert_int_equal(found.entry.mailbox, inbox);
		assert_int_equal(found.entry.uid, 77);
		assert_true(found.entry.size == 5000000000);
		assert_int_equal(found.entry.mtime, p.internal_date);
		assert_int_equal(found.flags, 5);
		assert_string_equal(found.keywords, "$Work later");
		assert_string_equal(found.email_id, "E-1");
		assert_string_equal(found.subject, m.subject);
		assert_string_equal(found.from, m.summary.from);
		assert_string_equal(found.to, m.summary.to);
		assert_string_equal(found.message_id, m.message_id);
		assert_int_equal(found.date, m.summary.date);
		assert_true(found.modseq == 1ULL << 50);
		assert_non_null(strstr(found.name, ".eml"));
		assert_int_equal(cache_lookup(f->c, inbox, found.name, &e), MF_OK);
		assert_int_equal(e.id, id);
		assert_true(e.size == 5000000000);
		message_finish(&found);
		fixture_close(f);
		fixture_open(f);
	}
	assert_int_equal(cache_lookup(f->c, inbox, "no such name", &e), MF_NOT_FOUND);
	assert_int_equal(cache_lookup(f->c, 4711, "no such name", &e), MF_NOT_FOUND);
	struct told told = need_told(f, CHANGE_MESSAGE_ADDED, id);
	assert_int_equal(told.is_new, 1);
	assert_int_equal(told.uid, 77);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, inbox), 1);
	assert_int_equal(total(f, inbox, NULL), 1);
}

/* or who hears of a name and lists the mailbox is shown the list that the kernel has kept */
static void lists_are_told_before_names(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive");
	told_reset(f);
	struct txn *t = begin(f);
	uint64_t first = put(t, inbox, 1, 1), second = put(t, archive, 1, 2);
	commit(t);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, inbox) + told_count(f, CHANGE_MAILBOX_LIST, archive), 2);
	assert_int_equal(f->told[0].kind, CHANGE_MAILBOX_LIST);
	assert_int_equal(f->told[1].kind, CHANGE_MAILBOX_LIST);
	assert_true(told_of(f, CHANGE_MESSAGE_ADDED, first) < told_of(f, CHANGE_MESSAGE_ADDED, second));
}

static void put_together(struct fixture *f, struct test_message *m, uint64_t *ids)
{
	struct message_put puts[PUTS_MAX];
	for (size_t i = 0; i < PUTS_MAX; i++)
		puts[i] = m[i].put;
	struct txn *t = begin(f);
	assert_int_equal(txn_messages_put(t, puts, PUTS_MAX, ids), MF_OK);
	commit(t);
	for (size_t i = 0; i < PUTS_MAX; i++) {
		struct message found;
		assert_int_equal(cache_message(f->c, ids[i], &found), MF_OK);
		assert_int_equal(found.entry.uid, m[i].put.uid);
		assert_string_equal(found.message_id, m[i].message_id);
		message_finish(&found);
	}
}

static void put_together_is_as_one_by_one(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), ids[PUTS_MAX], again[PUTS_MAX];
	struct test_message m[PUTS_MAX];
	for (unsigned i = 0; i < PUTS_MAX; i++)
		message_make(&m[i], inbox, 10 + i, 10 + i);
	put_together(f, m, ids);
	for (size_t i = 0; i < PUTS_MAX; i++)
		need_told(f, CHANGE_MESSAGE_ADDED, ids[i]);
	assert_int_equal(total(f, inbox, NULL), PUTS_MAX);
	/* known UIDs, a UID twice, a name that is taken, and one that two of them have */
	message_make(&m[2], inbox, 30, 10);
	message_make(&m[3], inbox, 31, 31);
	message_make(&m[5], inbox, 31, 31);
	message_make(&m[6], inbox, 32, 33);
	message_make(&m[7], inbox, 33, 33);
	told_reset(f);
	put_together(f, m, again);
	assert_int_equal(again[5], again[3]);
	for (size_t i = 0; i < PUTS_MAX; i++) {
		bool known = i < 2 || i == 4 || i > 7;
		assert_int_equal(again[i] == ids[i], known);
		assert_int_equal(told_of(f, CHANGE_MESSAGE_ADDED, again[i]) == NULL, known);
	}
	MF_CLEANUP(mf_free) char *first = name_of(f, again[6]);
	MF_CLEANUP(mf_free) char *second = name_of(f, again[7]);
	assert_string_not_equal(first, second);
	assert_int_equal(total(f, inbox, NULL), PUTS_MAX + 4);
	assert_int_equal(list_count(f, inbox), PUTS_MAX + 4);
}

static void the_same_uid_changes_flags_only(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1), again;
	struct entry before = entry_of(f, id);
	uint32_t unseen;
	assert_int_equal(total(f, inbox, &unseen), 1);
	assert_int_equal(unseen, 1);
	told_reset(f);
	clock_skew_for_tests(1); /* two changes in the same second differ */
	struct test_message m;
	struct message_put p = *message_make(&m, inbox, 1, 2);
	p.flags = CACHE_MESSAGE_SEEN;
	struct txn *t = begin(f);
	assert_int_equal(txn_message_put(t, &p, &again), MF_OK);
	commit(t);
	assert_int_equal(again, id);
	struct entry after = entry_of(f, id);
	assert_int_equal(after.size, before.size);
	assert_true(after.ctime > before.ctime);
	assert_non_null(told_of(f, CHANGE_MESSAGE_FLAGS, id));
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, inbox), 0);
	assert_int_equal(total(f, inbox, &unseen), 1);
	assert_int_equal(unseen, 0);
	told_reset(f);
	clock_skew_for_tests(5000);
	t = begin(f);
	assert_int_equal(txn_message_flags(t, inbox, 1, CACHE_MESSAGE_SEEN, "", 99), MF_OK);
	assert_int_equal(txn_message_flags(t, inbox, 2, 0, "", 99), MF_NOT_FOUND);
	commit(t);
	bus_flush(f->bus);
	assert_int_equal(f->told_count, 0); /* the modseq alone is nothing that anybody sees */
	assert_int_equal(entry_of(f, id).ctime, after.ctime);
	t = begin(f);
	assert_int_equal(txn_message_flags(t, inbox, 1, 0, "$Junk", 100), MF_OK);
	commit(t);
	assert_int_equal(total(f, inbox, &unseen), 1);
	assert_int_equal(unseen, 1);
	clock_skew_for_tests(-5001);
}

static void twins_are_numbered_as_they_come(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), ids[40];
	struct txn *t = begin(f);
	for (uint32_t i = 0; i < 40; i++)
		ids[i] = put(t, inbox, i + 1, 7);
	commit(t);
	char *first = name_of(f, ids[0]);
	size_t stem = strlen(first) - 4;
	for (unsigned i = 1; i < 40; i++) {
		char *name = name_of(f, ids[i]), expected[16];
		snprintf(expected, sizeof expected, "-%u.eml", i + 1);
		assert_memory_equal(name, first, stem);
		assert_string_equal(name + stem, expected);
		free(name);
	}
	vanish(f, inbox, 1); /* the others keep theirs */
	purge(f, 0);
	char *second = name_of(f, ids[1]);
	assert_string_equal(second + stem, "-2.eml");
	free(second);
	free(first);
}

static void a_mailbox_and_a_message_of_one_name(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), probe = add_mailbox(f, "Probe");
	char *name = name_of(f, add_message(f, probe, 1, 1)), raw[300];
	/* the mailbox came first: the message is a twin */
	snprintf(raw, sizeof raw, "INBOX/%s", name);
	uint64_t box = add_mailbox(f, raw);
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, box, &m), MF_OK);
	assert_string_equal(m.name, name);
	mailbox_finish(&m);
	char *other = name_of(f, add_message(f, inbox, 1, 1));
	assert_string_not_equal(other, name);
	assert_non_null(strstr(other, "-2.eml"));
	free(other);
	/* the message came first: the mailbox says what it is */
	snprintf(raw, sizeof raw, "Probe/%s", name);
	box = add_mailbox(f, raw);
	assert_int_equal(cache_mailbox(f->c, box, &m), MF_OK);
	assert_non_null(strstr(m.name, ".eml~mailbox"));
	mailbox_finish(&m);
	free(name);
}

static void moved_elsewhere_seen_going_first(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive"), id = add_message(f, inbox, 9, 1);
	add_body(f, id, "the body");
	char *name = name_of(f, id);
	told_reset(f);
	vanish(f, inbox, 9);
	struct entry e;
	assert_int_equal(cache_entry(f->c, id, &e), MF_NOT_FOUND);
	struct message m;
	assert_int_equal(cache_message(f->c, id, &m), MF_NOT_FOUND);
	assert_non_null(told_of(f, CHANGE_MESSAGE_REMOVED, id));
	assert_int_equal(list_count(f, inbox), 0);
	fixture_close(f); /* a restart between */
	fixture_open(f);
	assert_int_equal(add_message(f, archive, 100, 1), id);
	e = entry_of(f, id);
	assert_int_equal(e.mailbox, archive);
	assert_int_equal(e.uid, 100);
	char *now = name_of(f, id);
	assert_string_equal(now, name);
	assert_true(has_body(f, id, "the body"));
	assert_non_null(told_of(f, CHANGE_MESSAGE_ADDED, id)); /* it was told to be gone */
	purge(f, 0);
	assert_int_equal(entry_of(f, id).mailbox, archive);
	assert_int_equal(total(f, inbox, NULL), 0);
	assert_int_equal(total(f, archive, NULL), 1);
	free(name);
	free(now);
}

static void moved_elsewhere_in_one_transaction(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive"), id = add_message(f, inbox, 9, 1);
	told_reset(f);
	struct txn *t = begin(f);
	assert_int_equal(txn_message_vanished(t, inbox, 9), MF_OK);
	assert_int_equal(put(t, archive, 100, 1), id);
	commit(t);
	assert_null(told_of(f, CHANGE_MESSAGE_REMOVED, id));
	struct told told = need_told(f, CHANGE_MESSAGE_MOVED, id);
	assert_int_equal(told.mailbox, archive);
	assert_int_equal(told.old_mailbox, inbox);
	assert_string_equal(told.name, told.old_name);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, inbox), 1);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, archive), 1);
}

static void moved_elsewhere_seen_coming_first(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive"), id = add_message(f, inbox, 9, 1);
	add_body(f, id, "the body");
	uint64_t copy = add_message(f, archive, 100, 1);
	assert_int_not_equal(copy, id);
	assert_int_equal(list_count(f, archive), 1);
	told_reset(f);
	vanish(f, inbox, 9);
	struct entry e = entry_of(f, id);
	assert_int_equal(e.mailbox, archive);
	assert_int_equal(e.uid, 100);
	assert_int_equal(cache_entry(f->c, copy, &e), MF_NOT_FOUND);
	assert_int_equal(list_count(f, archive), 1);
	assert_int_equal(list_count(f, inbox), 0);
	assert_true(has_body(f, id, "the body"));
	assert_non_null(told_of(f, CHANGE_MESSAGE_REMOVED, copy));
	assert_non_null(told_of(f, CHANGE_MESSAGE_MOVED, id));
	char *name = name_of(f, id);
	assert_int_equal(cache_lookup(f->c, archive, name, &e), MF_OK);
	assert_int_equal(e.id, id);
	free(name);
	purge(f, 0);
	assert_int_equal(total(f, archive, NULL), 1);
}

/* the copy was downloaded, the original never was */
static void a_body_follows_to_the_row_that_stays(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive"), id = add_message(f, inbox, 9, 1);
	uint64_t copy = add_message(f, archive, 100, 1);
	add_body(f, copy, "from the copy");
	vanish(f, inbox, 9);
	assert_true(has_body(f, id, "from the copy"));
	assert_false(cache_body_is_cached(f->c, copy));
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.bodies, 1);
}

static void a_copy_of_long_ago_is_no_move(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), archive = add_mailbox(f, "Archive"), id = add_message(f, inbox, 9, 1);
	uint64_t copy = add_message(f, archive, 100, 1);
	clock_skew_for_tests(11 * 60 * 1000);
	vanish(f, inbox, 9);
	clock_skew_for_tests(-11 * 60 * 1000);
	struct entry e;
	assert_int_equal(cache_entry(f->c, id, &e), MF_NOT_FOUND);
	assert_int_equal(entry_of(f, copy).mailbox, archive);
	/* nor is one that was there before */
	uint64_t older = add_message(f, archive, 101, 2), newer = add_message(f, inbox, 10, 2);
	vanish(f, inbox, 10);
	assert_int_equal(entry_of(f, older).mailbox, archive);
	assert_int_equal(cache_entry(f->c, newer, &e), MF_NOT_FOUND);
}

static void only_the_same_message_is_matched(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 9, 1), found;
	vanish(f, inbox, 9);
	struct test_message m;
	struct message_put p = *message_make(&m, inbox, 10, 1);
	p.size++;
	struct txn *t = begin(f);
	assert_int_equal(txn_message_put(t, &p, &found), MF_OK);
	assert_int_not_equal(found, id);
	p = *message_make(&m, inbox, 11, 1);
	p.internal_date++;
	assert_int_equal(txn_message_put(t, &p, &found), MF_OK);
	assert_int_not_equal(found, id);
	assert_int_equal(put(t, inbox, 12, 1), id);
	assert_int_not_equal(put(t, inbox, 13, 1), id); /* once */
	commit(t);
	/* the server's own id decides where it gives one, whatever the rest says */
	p = *message_make(&m, inbox, 20, 3);
	p.email_id = "E3";
	uint64_t with_id;
	t = begin(f);
	assert_int_equal(txn_message_put(t, &p, &with_id), MF_OK);
	assert_int_equal(txn_message_vanished(t, inbox, 20), MF_OK);
	p.uid = 21;
	p.email_id = "E4";
	assert_int_equal(txn_message_put(t, &p, &found), MF_OK);
	assert_int_not_equal(found, with_id);
	p = *message_make(&m, inbox, 22, 4);
	p.email_id = "E3";
	assert_int_equal(txn_message_put(t, &p, &found), MF_OK);
	assert_int_equal(found, with_id);
	commit(t);
}

static void renumbered(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), ids[100];
	struct txn *t = begin(f);
	for (unsigned i = 0; i < 100; i++)
		ids[i] = put(t, inbox, i + 1, i < 98 ? i : 97); /* the last three are twins */
	assert_int_equal(txn_mailbox_synced(t, inbox, true, 1, 101, 5, 1, false), MF_OK);
	commit(t);
	char *names[100];
	for (unsigned i = 0; i < 100; i++)
		names[i] = name_of(f, ids[i]);
	add_body(f, ids[5], "five");
	add_body(f, ids[40], "forty");
	assert_int_equal(list_count(f, inbox), 100);
	told_reset(f);
	t = begin(f);
	assert_int_equal(txn_mailbox_renumbered(t, inbox, 2), MF_OK);
	commit(t);
	assert_int_equal(list_count(f, inbox), 0);
	assert_int_equal(total(f, inbox, NULL), 0);
	fixture_close(f);
	fixture_open(f);
	t = begin(f);
	/* newest first, 40 is not there any more, and a new message comes that would like a name which is to come back */
	uint64_t fresh = put(t, inbox, 500, 3);
	for (unsigned i = 100; i-- > 4;)
		if (i != 40)
			put(t, inbox, 1000 + i, i < 98 ? i : 97);
	for (unsigned i = 0; i < 4; i++)
		put(t, inbox, 1000 + i, i);
	commit(t);
	assert_int_equal(list_count(f, inbox), 100);
	unsigned kept = 0;
	for (unsigned i = 0; i < 100; i++) {
		struct entry e;
		if (i == 40 || cache_entry(f->c, ids[i], &e))
			continue;
		char *name = name_of(f, ids[i]);
		kept += !strcmp(name, names[i]);
		free(name);
	}
	assert_int_equal(kept, 99); /* every one with its id and name, the twins among themselves */
	assert_true(fresh == ids[3]);
	assert_true(has_body(f, ids[5], "five"));
	told_reset(f);
	purge(f, 0);
	struct told told = need_told(f, CHANGE_MESSAGE_REMOVED, ids[40]); /* now it is sure */
	assert_string_equal(told.name, names[40]);
	assert_int_equal(told.mailbox, inbox);
	assert_false(cache_body_is_cached(f->c, ids[40]));
	for (unsigned i = 0; i < 100; i++)
		free(names[i]);
}

/* a name that may come back is not given away meanwhile */
static void names_wait_for_their_messages(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1), other;
	char *name = name_of(f, id);
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_renumbered(t, inbox, 2), MF_OK);
	struct test_message m;
	struct message_put p = *message_make(&m, inbox, 50, 1);
	p.size += 100; /* another one of the same Message-ID */
	assert_int_equal(txn_message_put(t, &p, &other), MF_OK);
	assert_int_equal(put(t, inbox, 51, 1), id);
	commit(t);
	char *back = name_of(f, id), *its = name_of(f, other);
	assert_string_equal(back, name);
	assert_non_null(strstr(its, "-2.eml"));
	free(name);
	free(back);
	free(its);
}

static void purging_has_an_age(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1);
	add_body(f, id, "x");
	vanish(f, inbox, 1);
	purge(f, 60000);
	assert_true(has_body(f, id, "x"));
	clock_skew_for_tests(61000);
	purge(f, 60000);
	clock_skew_for_tests(-61000);
	assert_false(cache_body_is_cached(f->c, id));
	assert_int_not_equal(add_message(f, inbox, 2, 1), id); /* gone for good */
}

static void nothing_below_the_first_uid(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX");
	struct txn *t = begin(f);
	for (unsigned i = 1; i <= 20; i++)
		put(t, inbox, i, i);
	commit(t);
	t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, inbox, true, 1, 21, 5, 11, false), MF_OK);
	commit(t);
	assert_int_equal(list_count(f, inbox), 10);
	struct uid_id *uids;
	size_t count;
	assert_int_equal(cache_uids(f->c, inbox, &uids, &count), MF_OK);
	assert_int_equal(count, 10);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(uids[i].uid, 11 + i);
	free(uids);
	assert_int_equal(cache_uids(f->c, 4711, &uids, &count), MF_NOT_FOUND);
}

static void a_wrong_size_is_corrected(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1);
	struct entry e = entry_of(f, id);
	told_reset(f);
	struct txn *t = begin(f);
	assert_int_equal(txn_message_size(t, id, e.size), MF_OK);
	assert_int_equal(txn_message_size(t, 4711, 1), MF_NOT_FOUND);
	commit(t);
	assert_int_equal(told_count(f, CHANGE_MESSAGE_SIZE, inbox), 0);
	assert_true(entry_of(f, id).size_checked);
	assert_int_equal(list_count(f, inbox), 1);
	t = begin(f);
	assert_int_equal(txn_message_size(t, id, 42), MF_OK);
	commit(t);
	assert_int_equal(told_count(f, CHANGE_MESSAGE_SIZE, inbox), 1);
	assert_int_equal(entry_of(f, id).size, 42);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(entry_of(f, id).size, 42);
}

static void messages_without_anything(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), a, b;
	static char empty[] = "";
	struct mail_summary summary = { .from = empty, .from_name = empty, .to = empty, .subject = empty, .message_id = empty, .key = "aaaaaaaa" };
	struct message_put p = { .mailbox = inbox, .uid = 1, .summary = &summary, .keywords = NULL };
	struct txn *t = begin(f);
	assert_int_equal(txn_message_put(t, &p, &a), MF_OK);
	p.uid = 2;
	assert_int_equal(txn_message_put(t, &p, &b), MF_OK);
	assert_int_not_equal(a, b);
	assert_int_equal(txn_message_vanished(t, inbox, 1), MF_OK);
	p.uid = 0; /* not at the server: local */
	assert_int_equal(txn_message_put(t, &p, &b), MF_OK);
	assert_int_equal(a, b);
	p.mailbox = 4711;
	assert_int_equal(txn_message_put(t, &p, &b), MF_NOT_FOUND);
	p.mailbox = inbox;
	p.size = UINT64_MAX;
	assert_int_equal(txn_message_put(t, &p, &b), MF_TOO_BIG);
	commit(t);
	assert_int_equal(list_count(f, inbox), 2);
	assert_int_equal(entry_of(f, a).uid, 0);
	assert_int_equal(entry_of(f, a).mtime, 0);
}

static void keywords_are_cut_between(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id = add_message(f, inbox, 1, 1);
	char keywords[4001];
	for (size_t i = 0; i < 4000; i++)
		keywords[i] = i % 10 == 9 ? ' ' : 'k';
	keywords[4000] = 0;
	struct txn *t = begin(f);
	assert_int_equal(txn_message_flags(t, inbox, 1, 0, keywords, 1), MF_OK);
	commit(t);
	struct message m;
	assert_int_equal(cache_message(f->c, id, &m), MF_OK);
	assert_true(strlen(m.keywords) > 900 && strlen(m.keywords) <= 1024);
	assert_int_equal(strlen(m.keywords) % 10, 9);
	message_finish(&m);
}

static void ids_that_no_inode_can_hold_are_refused(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), id;
	fixture_close(f);
	char command[256];
	snprintf(command, sizeof command, "%s/mailfs.db", f->state);
	sqlite3 *db;
	assert_int_equal(sqlite3_open(command, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "INSERT INTO sqlite_sequence VALUES ('message', 274877906942)", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	fixture_open(f);
	assert_true(add_message(f, inbox, 1, 1) == (1ULL << 38) - 1);
	struct test_message m;
	struct txn *t = begin(f);
	assert_int_equal(txn_message_put(t, message_make(&m, inbox, 2, 2), &id), MF_TOO_BIG);
	assert_int_equal(txn_commit(t), MF_TOO_BIG);
	assert_int_equal(list_count(f, inbox), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(everything_is_kept), WITH_CACHE(lists_are_told_before_names), WITH_CACHE(put_together_is_as_one_by_one), WITH_CACHE(the_same_uid_changes_flags_only), WITH_CACHE(twins_are_numbered_as_they_come),
		WITH_CACHE(a_mailbox_and_a_message_of_one_name), WITH_CACHE(moved_elsewhere_seen_going_first),
		WITH_CACHE(moved_elsewhere_in_one_transaction), WITH_CACHE(moved_elsewhere_seen_coming_first),
		WITH_CACHE(a_body_follows_to_the_row_that_stays), WITH_CACHE(a_copy_of_long_ago_is_no_move),
		WITH_CACHE(only_the_same_message_is_matched), WITH_CACHE(renumbered), WITH_CACHE(names_wait_for_their_messages),
		WITH_CACHE(purging_has_an_age), WITH_CACHE(nothing_below_the_first_uid), WITH_CACHE(a_wrong_size_is_corrected),
		WITH_CACHE(messages_without_anything), WITH_CACHE(keywords_are_cut_between), WITH_CACHE(ids_that_no_inode_can_hold_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

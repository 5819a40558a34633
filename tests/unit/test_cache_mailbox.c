/* cache: mailboxes, their names and levels, what becomes of them */
#include "unit/test_cache_fixture.h"

static struct mailbox get(struct fixture *f, uint64_t id)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, id, &m), MF_OK);
	return m;
}

static void assert_path(struct fixture *f, uint64_t id, const char *path)
{
	char *found = cache_mailbox_path(f->c, id);
	assert_non_null(found);
	assert_string_equal(found, path);
	free(found);
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_path(f->c, path, &m), MF_OK);
	assert_int_equal(m.id, id);
	mailbox_finish(&m);
}

static void missing_levels_are_made(void **state)
{
	struct fixture *f = *state;
	uint64_t deep = add_mailbox(f, "Archive/2024/March");
	assert_path(f, deep, "Archive/2024/March");
	struct mailbox m = get(f, deep), parent = get(f, m.parent), top = get(f, parent.parent);
	assert_string_equal(m.raw, "Archive/2024/March");
	assert_null(parent.raw);
	assert_null(top.raw);
	assert_int_equal(top.parent, 0);
	uint64_t archive = top.id;
	mailbox_finish(&m);
	mailbox_finish(&parent);
	mailbox_finish(&top);
	assert_int_equal(add_mailbox(f, "Archive"), archive); /* said later: the level becomes the mailbox */
	top = get(f, archive);
	assert_string_equal(top.raw, "Archive");
	mailbox_finish(&top);
	assert_int_equal(add_mailbox(f, "Archive/2024/March"), deep);
	fixture_close(f);
	fixture_open(f);
	assert_path(f, deep, "Archive/2024/March");
	assert_null(cache_mailbox_path(f->c, 999));
	assert_int_equal(cache_mailbox_by_path(f->c, "Archive/2025", &m), MF_NOT_FOUND);
	assert_int_equal(cache_mailbox_by_path(f->c, "", &m), MF_NOT_FOUND);
}

static void twenty_levels(void **state)
{
	struct fixture *f = *state;
	char raw[64] = "a";
	for (int i = 0; i < 19; i++)
		strcat(raw, ".a");
	struct txn *t = begin(f);
	uint64_t id = say(t, raw, '.');
	commit(t);
	char path[64] = "a";
	for (int i = 0; i < 19; i++)
		strcat(path, "/a");
	assert_path(f, id, path);
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.mailboxes, 20);
}

static void a_flat_name_keeps_its_characters(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t flat = say(t, "a.b/c", 0), upper = say(t, "Work", '/'), lower = say(t, "work", '/');
	commit(t);
	struct mailbox m = get(f, flat);
	assert_int_equal(m.parent, 0);
	assert_null(strchr(m.name, '/'));
	mailbox_finish(&m);
	assert_int_not_equal(upper, lower);
	assert_path(f, upper, "Work");
	assert_path(f, lower, "work");
}

static void names_that_collide_get_a_suffix(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t dot = say(t, "a.b", '.'), slash = say(t, "a/b", '/');
	commit(t);
	assert_int_not_equal(dot, slash);
	assert_path(f, dot, "a/b");
	assert_path(f, slash, "a/b~2");
	uint64_t reserved = add_mailbox(f, "outbox");
	assert_path(f, reserved, "outbox~mailbox");
}

static void inbox_has_no_case(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t inbox = say(t, "Inbox", '/'), inside = say(t, "INBOX/x", '/');
	assert_int_equal(say(t, "iNbOx", '/'), inbox);
	uint64_t other = say(t, "Inboxes", '/');
	commit(t);
	assert_path(f, inbox, "INBOX");
	assert_path(f, inside, "INBOX/x");
	assert_path(f, other, "Inboxes");
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_raw(f->c, "iNbOx", &m), MF_OK); /* what was said last is what is sent */
	assert_int_equal(m.id, inbox);
	mailbox_finish(&m);
	assert_int_equal(cache_mailbox_by_raw(f->c, "INBOX/x", &m), MF_OK);
	mailbox_finish(&m);
	assert_int_equal(cache_mailbox_by_raw(f->c, "nowhere", &m), MF_NOT_FOUND);
}

static void a_delimiter_at_the_end_is_no_level(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t plain = say(t, "Lists", '/');
	assert_int_equal(say(t, "Lists/", '/'), plain);
	commit(t);
	struct mailbox m = get(f, plain);
	assert_string_equal(m.raw, "Lists");
	mailbox_finish(&m);
}

static void hostile_names_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t id;
	char *raw = malloc(10001);
	memset(raw, 'x', 10000);
	raw[10000] = 0;
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = raw, .delimiter = '/' }, &id), MF_TOO_BIG);
	for (int i = 1; i < 1000; i += 2)
		raw[i] = '/';
	raw[1000] = 0;
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = raw, .delimiter = '/' }, &id), MF_TOO_BIG);
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = "", .delimiter = '/' }, &id), MF_INVALID);
	static const char *const odd[] = { "/", "//", "a//b", ".", "..", "../..", "/abs", "\xff\xfe", "a/./b", "&", "&AAA", "'; DROP TABLE mailbox; --" };
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
		say(t, odd[i], '/');
	commit(t); /* what was refused did not end the transaction */
	free(raw);
	struct mailbox m;
	assert_int_equal(cache_mailbox_by_raw(f->c, "'; DROP TABLE mailbox; --", &m), MF_OK);
	mailbox_finish(&m);
	assert_int_equal(cache_mailbox_by_raw(f->c, "../..", &m), MF_OK);
	char *path = cache_mailbox_path(f->c, m.id);
	for (char *part = strtok(path, "/"); part; part = strtok(NULL, "/")) {
		assert_string_not_equal(part, ".");
		assert_string_not_equal(part, "..");
	}
	free(path);
	mailbox_finish(&m);
}

static void what_is_said_is_kept_and_told_once(void **state)
{
	struct fixture *f = *state;
	struct mailbox_said said = { .raw = "Sent", .delimiter = '/', .flags = 4 | 16, .use = 7, .has_status = true, .uidvalidity = 7, .uidnext = 8,
		                     .messages = 9, .unseen = 1, .modseq = 1ULL << 40 };
	struct txn *t = begin(f);
	uint64_t id, again;
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	commit(t);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, 0), 1); /* the root's list, */
	assert_int_equal(told_count(f, CHANGE_MAILBOX_ADDED, id), 1);
	assert_string_equal(f->told[1].name, "Sent");               /* and after it what is new in it */
	struct mailbox m = get(f, id);
	assert_int_equal(m.flags, 4); /* HAS_STATUS is of the moment */
	assert_int_equal(m.use, 7);
	assert_int_equal(m.server_uidnext, 8);
	assert_true(m.server_modseq == 1ULL << 40);
	assert_int_equal(m.sync, -1);
	mailbox_finish(&m);
	told_reset(f);
	t = begin(f);
	assert_int_equal(txn_mailbox_said(t, &said, &again), MF_OK);
	commit(t);
	assert_int_equal(again, id);
	bus_flush(f->bus);
	assert_int_equal(f->told_count, 0); /* the same again is no change */
	said.messages = 10;
	said.has_status = false; /* the numbers mean nothing then */
	t = begin(f);
	assert_int_equal(txn_mailbox_said(t, &said, &again), MF_OK);
	commit(t);
	m = get(f, id);
	assert_int_equal(m.server_messages, 9);
	mailbox_finish(&m);
	said.has_status = true;
	t = begin(f);
	assert_int_equal(txn_mailbox_said(t, &said, &again), MF_OK);
	commit(t);
	bus_flush(f->bus);
	assert_int_equal(f->told_count, 0); /* no name, and nothing that a directory shows */
	for (int i = 0; i < 2; i++) {
		t = begin(f);
		assert_int_equal(txn_mailbox_rights(t, id, 1U << ('r' - 'a')), MF_OK);
		commit(t);
		assert_int_equal(told_count(f, CHANGE_MAILBOX_RIGHTS, id), 1);
	}
}

static void synced_state_survives(void **state)
{
	struct fixture *f = *state;
	uint64_t id = add_mailbox(f, "INBOX");
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_synced(t, id, true, 11, 12, 13, 1, true), MF_OK);
	assert_int_equal(txn_mailbox_sync(t, id, 2), MF_OK);
	commit(t);
	say(t = begin(f), "INBOX", '/'); /* LIST knows nothing of reading only */
	commit(t);
	fixture_close(f);
	fixture_open(f);
	struct mailbox m = get(f, id);
	assert_true(m.complete);
	assert_int_equal(m.uidvalidity, 11);
	assert_int_equal(m.uidnext, 12);
	assert_int_equal(m.modseq, 13);
	assert_int_equal(m.first_uid, 1);
	assert_int_equal(m.sync, 2);
	assert_int_equal(m.flags, CACHE_MAILBOX_READONLY);
	mailbox_finish(&m);
	t = begin(f);
	assert_int_equal(txn_mailbox_sync(t, 4711, 1), MF_NOT_FOUND);
	assert_int_equal(txn_mailbox_synced(t, 4711, true, 1, 1, 1, 1, false), MF_NOT_FOUND);
	commit(t);
}

static void sweeping(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX"), old = add_mailbox(f, "Old/Inner"), parent = add_mailbox(f, "P"), child = add_mailbox(f, "P/c");
	add_message(f, old, 1, 1);
	add_message(f, parent, 1, 2);
	struct mailbox m = get(f, old);
	uint64_t level = m.parent;
	mailbox_finish(&m);
	told_reset(f);
	struct txn *t = begin(f);
	assert_int_equal(say(t, "INBOX", '/'), inbox);
	assert_int_equal(say(t, "P/c", '/'), child);
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	assert_int_equal(cache_mailbox(f->c, old, &m), MF_NOT_FOUND);
	assert_int_equal(cache_mailbox(f->c, level, &m), MF_NOT_FOUND); /* was there for it alone */
	assert_int_equal(told_count(f, CHANGE_MAILBOX_REMOVED, old), 1);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_REMOVED, level), 1);
	assert_int_equal(told_count(f, CHANGE_MAILBOX_LIST, 0), 1);
	m = get(f, parent); /* stays as a level */
	assert_null(m.raw);
	assert_int_equal(m.total, 0);
	mailbox_finish(&m);
	assert_int_equal(list_count(f, parent), 0);
	size_t count = 0;
	assert_int_equal(cache_list(f->c, old, 0, count_entry, &count), MF_NOT_FOUND);
	fixture_close(f);
	fixture_open(f);
	assert_int_equal(cache_mailbox(f->c, old, &m), MF_NOT_FOUND);
	assert_path(f, child, "P/c");
	t = begin(f);
	uint64_t fresh = say(t, "Old/Inner", '/');
	commit(t);
	assert_true(fresh > child); /* ids are never used again */
}

static void removing(void **state)
{
	struct fixture *f = *state;
	uint64_t id = add_mailbox(f, "a/b/c"), sibling = add_mailbox(f, "a/d");
	struct txn *t = begin(f);
	assert_int_equal(txn_mailbox_removed(t, id), MF_OK);
	assert_int_equal(txn_mailbox_removed(t, id), MF_NOT_FOUND);
	commit(t);
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, id, &m), MF_NOT_FOUND);
	assert_int_equal(cache_mailbox_by_path(f->c, "a/b", &m), MF_NOT_FOUND);
	assert_path(f, sibling, "a/d");
}

/* renamed by another client: LIST says one gone and one new, and the messages of the one turn up in the other */
static void a_renamed_mailbox_keeps_its_messages(void **state)
{
	struct fixture *f = *state;
	uint64_t old = add_mailbox(f, "Old"), message = add_message(f, old, 5, 1);
	add_body(f, message, "kept");
	struct txn *t = begin(f);
	uint64_t fresh = say(t, "New", '/');
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	struct entry e;
	assert_int_equal(cache_entry(f->c, message, &e), MF_NOT_FOUND);
	assert_int_equal(add_message(f, fresh, 5, 1), message);
	assert_int_equal(cache_entry(f->c, message, &e), MF_OK);
	assert_int_equal(e.mailbox, fresh);
	assert_true(has_body(f, message, "kept"));
}

static bool collect(void *context, const struct mailbox *m)
{
	uint64_t *ids = context;
	ids[++ids[0]] = m->id;
	return ids[0] < 8;
}

static void walking(void **state)
{
	struct fixture *f = *state;
	struct txn *t = begin(f);
	uint64_t inner = say(t, "z/y", '/'), a = say(t, "a", '/'), b = say(t, "b", '/');
	commit(t);
	struct mailbox m = get(f, inner);
	uint64_t z = m.parent;
	mailbox_finish(&m);
	uint64_t ids[10] = { 0 };
	assert_int_equal(cache_mailbox_children(f->c, 0, 0, collect, ids), MF_OK);
	assert_int_equal(ids[0], 3);
	assert_true(ids[1] == z && ids[2] == a && ids[3] == b);
	ids[0] = 0;
	assert_int_equal(cache_mailbox_children(f->c, 0, a, collect, ids), MF_OK);
	assert_true(ids[0] == 1 && ids[1] == b);
	ids[0] = 0;
	assert_int_equal(cache_mailboxes(f->c, collect, ids), MF_OK);
	assert_true(ids[0] == 4 && ids[4] == inner); /* parents first */
	assert_int_equal(cache_mailbox_children(f->c, 999, 0, collect, ids), MF_NOT_FOUND);
	assert_int_equal(cache_mailbox_by_name(f->c, z, "y", &m), MF_OK);
	assert_int_equal(m.id, inner);
	mailbox_finish(&m);
	assert_int_equal(cache_mailbox_by_name(f->c, z, "b", &m), MF_NOT_FOUND);
}

static void mtimes_only_grow(void **state)
{
	struct fixture *f = *state;
	uint64_t id = add_mailbox(f, "INBOX");
	struct timespec root, last;
	cache_root_mtime(f->c, &last);
	clock_skew_for_tests(-3600 * 1000); /* the clock was set back */
	add_mailbox(f, "b");
	cache_root_mtime(f->c, &root);
	assert_true(root.tv_sec > last.tv_sec || (root.tv_sec == last.tv_sec && root.tv_nsec > last.tv_nsec));
	struct mailbox m = get(f, id);
	last = m.mtime;
	mailbox_finish(&m);
	for (unsigned i = 1; i < 5; i++) {
		add_message(f, id, i, i);
		m = get(f, id);
		assert_true(m.mtime.tv_sec > last.tv_sec || (m.mtime.tv_sec == last.tv_sec && m.mtime.tv_nsec > last.tv_nsec));
		last = m.mtime;
		mailbox_finish(&m);
	}
	clock_skew_for_tests(3600 * 1000);
	fixture_close(f);
	fixture_open(f);
	m = get(f, id);
	assert_int_equal(m.mtime.tv_nsec, last.tv_nsec);
	mailbox_finish(&m);
	cache_root_mtime(f->c, &last);
	assert_int_equal(root.tv_nsec, last.tv_nsec);
}

static void rolled_back_is_as_before(void **state)
{
	struct fixture *f = *state;
	uint64_t id = add_mailbox(f, "INBOX");
	add_message(f, id, 1, 1);
	assert_int_equal(list_count(f, id), 1);
	told_reset(f);
	struct txn *t = begin(f);
	say(t, "New/x", '/');
	put(t, id, 2, 2);
	assert_int_equal(txn_message_vanished(t, id, 1), MF_OK);
	txn_rollback(t);
	txn_rollback(NULL);
	bus_flush(f->bus);
	assert_int_equal(f->told_count, 0);
	struct mailbox m = get(f, id);
	assert_int_equal(m.total, 1);
	mailbox_finish(&m);
	assert_int_equal(list_count(f, id), 1);
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.mailboxes, 1);
	add_message(f, id, 2, 2);
	assert_int_equal(list_count(f, id), 2);
}

static void two_thousand(void **state)
{
	struct fixture *f = *state;
	for (int round = 0; round < 2; round++) {
		struct txn *t = begin(f);
		for (int i = 0; i < 2000; i++) {
			char raw[40];
			snprintf(raw, sizeof raw, "group%d/box%d", i % 20, i);
			say(t, raw, '/');
		}
		assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
		commit(t);
	}
	struct cache_totals totals;
	cache_totals(f->c, &totals);
	assert_int_equal(totals.mailboxes, 2020);
	struct txn *t = begin(f);
	say(t, "group3/box3", '/');
	assert_int_equal(txn_mailboxes_swept(t, true), MF_OK);
	commit(t);
	cache_totals(f->c, &totals);
	assert_int_equal(totals.mailboxes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_CACHE(missing_levels_are_made), WITH_CACHE(twenty_levels), WITH_CACHE(a_flat_name_keeps_its_characters),
		WITH_CACHE(names_that_collide_get_a_suffix), WITH_CACHE(inbox_has_no_case), WITH_CACHE(a_delimiter_at_the_end_is_no_level),
		WITH_CACHE(hostile_names_are_bounded), WITH_CACHE(what_is_said_is_kept_and_told_once), WITH_CACHE(synced_state_survives),
		WITH_CACHE(sweeping), WITH_CACHE(removing), WITH_CACHE(a_renamed_mailbox_keeps_its_messages), WITH_CACHE(walking),
		WITH_CACHE(mtimes_only_grow), WITH_CACHE(rolled_back_is_as_before), WITH_CACHE(two_thousand),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

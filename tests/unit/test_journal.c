/* journal: changes that wait for the server: what each does to the tree, taking back, and what the server's answers make of it */
#include <fcntl.h>

#include "unit/test_cache_fixture.h"
#include "unit/test_journal_check.h"

#include "cache/spool.h"

enum { SEEN = 1, ANSWERED = 2, FLAGGED = 4 };
#define VALIDITY 77

static const struct disposal expunge = { .expunge = true, .delay_ms = 5000 };

/* one change, as a transaction; what it returns */
#define CHANGE(f, call) ({ struct txn *t = begin(f); enum mf_err change_error = (call); \
		if (change_error) txn_rollback(t); else commit(t); check_index((f)->c, (f)->state); change_error; })
#define DO(f, call) assert_int_equal(CHANGE(f, call), MF_OK)

static uint64_t mailbox_with(struct fixture *f, const char *raw, unsigned messages)
{
	struct txn *t = begin(f);
	uint64_t id = 0;
	struct mailbox_said said = { .raw = raw, .delimiter = '/', .use = strcmp(raw, "INBOX") ? 0 : CACHE_USE_INBOX };
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	assert_int_equal(txn_mailbox_synced(t, id, true, VALIDITY, messages + 1, 5, 1, false), MF_OK);
	for (unsigned i = 1; i <= messages; i++)
		put(t, id, i, (unsigned)id * 1000 + i);
	commit(t);
	return id;
}

static uint64_t by_uid(struct fixture *f, uint64_t mailbox, uint32_t uid)
{
	struct uid_id *uids;
	size_t count;
	uint64_t id = 0;
	assert_int_equal(cache_uids(f->c, mailbox, &uids, &count), MF_OK);
	for (size_t i = 0; i < count; i++)
		if (uids[i].uid == uid)
			id = uids[i].id;
	free(uids);
	return id;
}

static uint64_t by_name(struct fixture *f, uint64_t mailbox, const char *name)
{
	struct entry e;
	return cache_lookup(f->c, mailbox, name, &e) ? 0 : e.id;
}

static uint64_t in_mailbox(struct fixture *f, uint64_t message)
{
	struct entry e;
	return cache_entry(f->c, message, &e) ? 0 : e.mailbox;
}

static unsigned flags_of(struct fixture *f, uint64_t message)
{
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	unsigned flags = m.flags;
	message_finish(&m);
	return flags;
}

static char *keywords_text(struct fixture *f, uint64_t message)
{
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	char *keywords = mf_strdup(m.keywords);
	message_finish(&m);
	return keywords;
}

static void assert_keywords(struct fixture *f, uint64_t message, const char *wanted)
{
	char *keywords = keywords_text(f, message);
	assert_string_equal(keywords, wanted);
	free(keywords);
}

/* "append move", by id */
static bool add_word(void *context, const struct op *op)
{
	char *words = context;
	snprintf(words + strlen(words), 2000 - strlen(words), "%s%s", *words ? " " : "", op_kind_word(op->kind));
	return strlen(words) < 1900;
}

static void assert_ops(struct fixture *f, const char *wanted)
{
	char words[2000] = "";
	assert_int_equal(journal_list(f->c, 0, add_word, words), MF_OK);
	assert_string_equal(words, wanted);
}

struct pick { size_t skip; struct op *ret; bool found; };
static bool pick_op(void *context, const struct op *op)
{
	struct pick *p = context;
	if (p->skip--)
		return true;
	*p->ret = *op;
	p->ret->keywords = p->ret->keywords_remove = p->ret->name = p->ret->raw = p->ret->error = NULL;
	p->found = true;
	return false;
}

/* the n-th that waits, without its texts */
static struct op nth_op(struct fixture *f, size_t n)
{
	struct op op = { 0 };
	struct pick p = { n, &op, false };
	assert_int_equal(journal_list(f->c, 0, pick_op, &p), MF_OK);
	assert_true(p.found);
	return op;
}

static void send_all(struct fixture *f)
{
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 1000, &ops, &count), MF_OK);
	assert_int_equal(journal_mark_sent(f->c, ops, count), MF_OK);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
}

static void cancel_all(struct fixture *f)
{
	while (journal_count(f->c)) {
		struct op last = nth_op(f, journal_count(f->c) - 1);
		DO(f, txn_cancel(t, last.id));
	}
}

static int file_of(const char *text)
{
	char name[] = "/tmp/mailfs-journal-XXXXXX";
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return fd;
}

static void prepare(struct fixture *f, uint64_t message, const char *text)
{
	int fd = file_of(text);
	uint64_t size;
	struct spool_note note = { "INBOX", "written.eml", 1700000000 };
	assert_int_equal(spool_prepare(f->c, message, fd, strlen(text), false, &note, &size), MF_OK);
	close(fd);
}

#define TEXT(n) "From: a@example.org\r\nSubject: written " n "\r\nMessage-ID: <" n "@example.org>\r\n\r\nText " n "\r\n"

static enum mf_err written_in(struct txn *t, uint64_t message, const char *text, bool upload, const struct disposal *how)
{
	struct mail_summary summary;
	mail_summary_parse(text, strlen(text), strlen(text), &summary);
	struct written what = { .size = strlen(text), .summary = &summary, .internal_date = 1700000000, .upload = upload };
	enum mf_err e = txn_written(t, message, &what, how);
	mail_summary_finish(&summary);
	return e;
}

static void write_message(struct fixture *f, uint64_t message, const char *text, bool upload, const struct disposal *how)
{
	prepare(f, message, text);
	DO(f, written_in(t, message, text, upload, how));
}

static uint64_t create(struct fixture *f, uint64_t mailbox, const char *name)
{
	uint64_t id = 0;
	DO(f, txn_create(t, mailbox, name, &id));
	return id;
}

static uint64_t create_written(struct fixture *f, uint64_t mailbox, const char *name, const char *text)
{
	uint64_t id = create(f, mailbox, name);
	write_message(f, id, text, !name_is_scratch(name), &expunge);
	return id;
}

static bool spool_is(struct fixture *f, uint64_t message, const char *text)
{
	int fd;
	uint64_t size;
	char got[1000] = "";
	if (spool_open(f->c, message, &fd, &size))
		return false;
	bool same = size == strlen(text) && pread(fd, got, size, 0) == (ssize_t)size && !strcmp(got, text);
	close(fd);
	return same;
}

/* --- flags ------------------------------------------------------------------------------------------------------------- */

static void flags_are_merged(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	DO(f, txn_change_flags(t, id, FLAGGED, 0, "Work $Label1", NULL));
	assert_ops(f, "flags");
	assert_int_equal(flags_of(f, id), SEEN | FLAGGED);
	assert_keywords(f, id, "$Label1 Work");
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, "work"));
	assert_keywords(f, id, "$Label1");
	DO(f, txn_change_flags(t, id, 0, FLAGGED, NULL, "$label1"));
	assert_ops(f, ""); /* all of it cancels out */
	DO(f, txn_set_flags(t, id, SEEN, "A B"));
	DO(f, txn_set_flags(t, id, 0, ""));
	assert_ops(f, "");
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	/* what is there already is no change */
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, "A"));
	assert_ops(f, "");
}

static void flags_sent_are_followed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	send_all(f);
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, NULL));
	assert_ops(f, "flags flags");
	/* the server tells of the first: what waits lies on top */
	DO(f, txn_message_flags(t, inbox, 2, SEEN | ANSWERED, "X", 9));
	assert_int_equal(flags_of(f, id), ANSWERED);
	assert_keywords(f, id, "X");
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	struct op second = nth_op(f, 0);
	assert_int_equal(second.flags_remove, SEEN);
	DO(f, txn_cancel(t, second.id));
	assert_int_equal(flags_of(f, id), SEEN | ANSWERED);
}

static void flags_of_what_is_expunged_are_taken_back(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	DO(f, txn_change_flags(t, id, SEEN | FLAGGED, 0, "A", NULL));
	DO(f, txn_remove(t, id, &expunge));
	assert_ops(f, "expunge");
	cancel_all(f);
	/* the server was never told of them, so that nothing else would take them away again */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
}

/* --- moving ------------------------------------------------------------------------------------------------------------- */

static void moves_are_one(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 2), c = mailbox_with(f, "C", 0), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	DO(f, txn_move(t, id, c, "y.eml", &expunge));
	assert_ops(f, "move flags");
	assert_int_equal(nth_op(f, 0).mailbox, inbox);
	assert_int_equal(nth_op(f, 0).dest, c);
	assert_int_equal(nth_op(f, 0).uid, 2);
	assert_int_equal(nth_op(f, 1).mailbox, c);
	assert_int_equal(nth_op(f, 1).uid, 0);
	DO(f, txn_move(t, id, inbox, name, &expunge));
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).uid, 2);
	assert_int_equal(nth_op(f, 0).uidvalidity, VALIDITY);
	DO(f, txn_change_flags(t, id, 0, SEEN, NULL, NULL));
	assert_ops(f, "");
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	free(name);
}

static void a_move_that_was_sent_is_followed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 2), c = mailbox_with(f, "C", 0), id = by_uid(f, inbox, 2);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_move(t, id, c, "y.eml", &expunge));
	assert_ops(f, "move move");
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 10));
	assert_ops(f, "move");
	assert_int_equal(nth_op(f, 0).uid, 10);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	/* b tells of the number 10: it is claimed */
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 10, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, id);
	assert_int_equal(in_mailbox(f, id), c);
	/* back to b: nothing is to be done any more */
	DO(f, txn_move(t, id, b, "z.eml", &expunge));
	assert_ops(f, "");
	assert_int_equal(by_uid(f, b, 10), id);
}

static void removed_goes_to_trash_or_out_of_sight(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 4), trash = mailbox_with(f, "Trash", 1), b = mailbox_with(f, "B", 0), found = 0;
	char *before = tree_text(f->state, true);
	DO(f, txn_trash(t, &found));
	assert_int_equal(found, trash);
	struct disposal how = { .trash = trash };
	uint64_t one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), three = by_uid(f, inbox, 3);
	DO(f, txn_remove(t, one, &how));
	assert_int_equal(in_mailbox(f, one), trash);
	DO(f, txn_move(t, two, b, "moved.eml", &how));
	DO(f, txn_change_flags(t, two, FLAGGED, 0, NULL, NULL));
	DO(f, txn_remove(t, two, &how)); /* moved, then removed: one move */
	assert_ops(f, "move move flags");
	DO(f, txn_remove(t, one, &how)); /* in Trash: expunged, where it still is */
	assert_ops(f, "expunge move flags");
	assert_int_equal(nth_op(f, 0).mailbox, inbox);
	assert_int_equal(nth_op(f, 0).uid, 1);
	assert_int_equal(in_mailbox(f, one), 0);
	DO(f, txn_move(t, three, b, "3.eml", &how));
	DO(f, txn_change_flags(t, three, FLAGGED, 0, NULL, NULL));
	DO(f, txn_remove(t, three, &expunge)); /* its flags would wait for ever */
	assert_ops(f, "expunge move flags expunge");
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
}

static void unsent_is_dropped(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1);
	char *before = tree_text(f->state, true);
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	assert_ops(f, "append");
	DO(f, txn_change_flags(t, id, SEEN, 0, "K", NULL));
	assert_ops(f, "append");
	DO(f, txn_remove(t, id, &(struct disposal){ .trash = 0 }));
	assert_ops(f, "");
	assert_false(spool_has(f->c, id));
	uint64_t scratch = create_written(f, inbox, ".new.swp", "scratch");
	assert_ops(f, "");
	bool local = false;
	DO(f, txn_is_local(t, scratch, &local));
	assert_true(local);
	DO(f, txn_drop_local(t, scratch));
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
}

static void trash_is_made_once(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t first = 0, second = 0;
	struct txn *both = begin(f);
	assert_int_equal(txn_trash(both, &first), MF_OK);
	assert_int_equal(txn_trash(both, &second), MF_OK);
	assert_int_equal(first, second);
	commit(both);
	assert_ops(f, "create");
	DO(f, txn_trash(t, &second));
	assert_int_equal(first, second);
}

/* the shelf of what is held is made anew if the transaction that made it came to nothing */
static void held_after_rollback(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 4);
	struct txn *undone = begin(f);
	assert_int_equal(txn_remove(undone, by_uid(f, inbox, 1), &expunge), MF_OK);
	assert_int_equal(txn_remove(undone, by_uid(f, inbox, 2), &expunge), MF_OK);
	txn_rollback(undone);
	uint64_t b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_remove(t, one, &expunge));
	assert_int_equal(in_mailbox(f, one), 0);
	assert_int_equal(list_count(f, b), 0);
}

/* --- writing ------------------------------------------------------------------------------------------------------------ */

static void overwritten_twice_is_one_append(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	write_message(f, id, TEXT("22"), true, &how);
	assert_ops(f, "append");
	assert_true(spool_is(f, id, TEXT("22")));
	assert_int_equal(list_count(f, trash), 0);
}

static void overwriting_splits(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	add_body(f, id, "old bytes");
	DO(f, txn_change_flags(t, id, FLAGGED, 0, NULL, NULL));
	write_message(f, id, TEXT("1"), true, &how);
	assert_ops(f, "flags append move");
	uint64_t old = by_name(f, trash, name);
	assert_true(old && old != id);
	assert_true(has_body(f, old, "old bytes"));
	assert_false(has_body(f, id, "old bytes"));
	assert_int_equal(nth_op(f, 0).message, old);
	assert_int_equal(nth_op(f, 2).message, old);
	assert_int_equal(nth_op(f, 2).after, nth_op(f, 1).id);
	assert_int_equal(flags_of(f, id), FLAGGED);
	/* the old version does not go before the new one is there */
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < count; i++)
		op_finish(&ops[i]);
	free(ops);
	/* taking back the new version brings the old one back under its name */
	DO(f, txn_cancel(t, nth_op(f, 1).id));
	assert_ops(f, "flags");
	assert_int_equal(by_name(f, inbox, name), old);
	assert_int_equal(rejected_count(f->c), 1);
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	free(name);
}

static void overwriting_what_is_being_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	uint64_t first = nth_op(f, 0).id;
	DO(f, txn_change_flags(t, id, SEEN, 0, NULL, NULL));
	write_message(f, id, TEXT("22"), true, &how);
	assert_ops(f, "append flags append move");
	uint64_t old = by_name(f, trash, "new.eml");
	assert_true(spool_is(f, old, TEXT("1")));
	assert_true(spool_is(f, id, TEXT("22")));
	DO(f, txn_op_done(t, first, VALIDITY, 1));
	assert_true(has_body(f, old, TEXT("1")));
	assert_false(spool_has(f->c, old));
	assert_int_equal(nth_op(f, 0).uid, 1); /* its flags */
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 2));
	assert_int_equal(by_uid(f, inbox, 2), id);
	assert_int_equal(nth_op(f, 0).uid, 1); /* the move */
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, trash, 1), old);
	assert_true(has_body(f, id, TEXT("22")));
	assert_ops(f, "");
}

static void overwriting_expunges(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), id = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	write_message(f, id, TEXT("1"), true, &expunge);
	assert_ops(f, "append expunge");
	cancel_all(f);
	char *after = tree_text(f->state, true);
	/* taken back one by one: the old one comes while the name is still taken, and then has a number */
	DO(f, txn_remove(t, by_uid(f, inbox, 2), &expunge));
	assert_int_equal(list_count(f, inbox), 1);
	free(before);
	free(after);
}

/* what vim does: the file goes aside, a new one takes its name, the backup is removed */
static void backup_by_renaming(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *name = name_of(f, id), *aside = mf_format("%s~", name);
	DO(f, txn_change_flags(t, id, SEEN | FLAGGED, 0, NULL, NULL));
	DO(f, txn_op_done(t, nth_op(f, 0).id, 0, 0));
	add_body(f, id, "old bytes");
	DO(f, txn_move(t, id, inbox, aside, &how));
	assert_ops(f, "");
	uint64_t fresh = create(f, inbox, name);
	write_message(f, fresh, TEXT("1"), true, &how);
	assert_ops(f, "append move");
	assert_int_equal(flags_of(f, fresh), SEEN | FLAGGED);
	uint64_t old = by_name(f, trash, name);
	assert_true(old != 0);
	assert_true(has_body(f, old, "old bytes"));
	assert_int_equal(by_name(f, inbox, aside), id); /* the backup stays, with its bytes */
	assert_true(spool_is(f, id, "old bytes"));
	DO(f, txn_remove(t, id, &how));
	assert_ops(f, "append move");
	free(name);
	free(aside);
}

static void backup_without_bytes(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *name = name_of(f, id), *aside = mf_format("%s~", name);
	DO(f, txn_move(t, id, inbox, aside, &how));
	uint64_t fresh = create(f, inbox, name);
	write_message(f, fresh, TEXT("1"), true, &how);
	assert_ops(f, "append move");
	assert_int_equal(by_name(f, trash, name), id);
	free(name);
	free(aside);
}

static void backup_of_what_was_never_sent(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 0), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	DO(f, txn_move(t, id, inbox, "new.eml~", &how));
	uint64_t fresh = create(f, inbox, "new.eml");
	write_message(f, fresh, TEXT("22"), true, &how);
	/* the server never had the old version, and needs none in Trash */
	assert_ops(f, "append");
	assert_int_equal(nth_op(f, 0).message, fresh);
	assert_int_equal(by_name(f, inbox, "new.eml~"), id);
	assert_true(spool_is(f, id, TEXT("1")));
	fixture_close(f);
	fixture_open(f);
	assert_true(spool_is(f, id, TEXT("1")));
	check_index(f->c, f->state);
}

/* what most programs do: a scratch file is written and renamed over */
static void renamed_over(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), trash = mailbox_with(f, "Trash", 0), id = by_uid(f, inbox, 2);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, id);
	uint64_t fresh = create_written(f, inbox, ".tmp", TEXT("1"));
	prepare(f, fresh, TEXT("1"));
	struct txn *t = begin(f);
	assert_int_equal(txn_move(t, fresh, inbox, name, &how), MF_OK);
	assert_int_equal(written_in(t, fresh, TEXT("1"), true, &how), MF_OK);
	commit(t);
	check_index(f->c, f->state);
	assert_ops(f, "move append");
	assert_int_equal(nth_op(f, 0).after, nth_op(f, 1).id);
	assert_int_equal(by_name(f, inbox, name), fresh);
	assert_int_equal(in_mailbox(f, id), trash);
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	free(name);
}

static void message_over_message(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), trash = mailbox_with(f, "Trash", 0);
	struct disposal how = { .trash = trash };
	char *before = tree_text(f->state, true), *name = name_of(f, by_uid(f, inbox, 2));
	DO(f, txn_move(t, by_uid(f, inbox, 1), inbox, name, &how));
	assert_ops(f, "move");
	assert_int_equal(list_count(f, inbox), 2);
	assert_int_equal(by_name(f, inbox, name), by_uid(f, inbox, 1));
	free(before);
	free(name);
}

static void copies(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), from = by_uid(f, inbox, 2);
	char *before = tree_text(f->state, true);
	add_body(f, from, "bytes");
	uint64_t made = create(f, b, "copy.eml");
	DO(f, txn_copied(t, made, from, 0));
	assert_ops(f, "copy");
	assert_true(has_body(f, made, "bytes"));
	/* what is copied does not go before */
	DO(f, txn_remove(t, from, &expunge));
	struct op *ops;
	size_t count;
	assert_int_equal(journal_ready(f->c, INT64_MAX, true, 10, &ops, &count), MF_OK);
	assert_int_equal(count, 1);
	assert_int_equal(ops[0].kind, OP_COPY);
	op_finish(&ops[0]);
	free(ops);
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	/* a copy that is overwritten before it was made needs no copy */
	made = create(f, b, "copy.eml");
	DO(f, txn_copied(t, made, from, 0));
	write_message(f, made, TEXT("1"), true, &(struct disposal){ .trash = inbox });
	assert_ops(f, "append");
	assert_int_equal(list_count(f, inbox), 3);
	DO(f, txn_remove(t, made, &expunge));
	assert_ops(f, "");
	/* of what the server does not have */
	uint64_t unsent = create_written(f, inbox, "unsent.eml", TEXT("2"));
	made = create(f, b, "copy.eml");
	assert_int_equal(CHANGE(f, txn_copied(t, made, unsent, 0)), MF_UNSUPPORTED);
}

static void copy_of_what_is_gone_is_appended(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), from = by_uid(f, inbox, 2), other = by_uid(f, inbox, 3);
	add_body(f, from, "bytes");
	uint64_t made = create(f, b, "copy.eml"), lost = create(f, b, "lost.eml");
	DO(f, txn_copied(t, made, from, 0));
	DO(f, txn_copied(t, lost, other, 0));
	send_all(f);
	uint64_t first = nth_op(f, 0).id, second = nth_op(f, 1).id;
	DO(f, txn_op_gone(t, first));
	DO(f, txn_op_gone(t, second));
	assert_ops(f, "append copy");
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	assert_true(spool_is(f, made, "bytes"));
	assert_int_equal(nth_op(f, 1).state, OP_PARKED); /* nobody has its bytes */
}

static void touched_and_redated(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), id = by_uid(f, inbox, 1);
	struct entry e;
	DO(f, txn_touch(t, id, 12345));
	assert_int_equal(cache_entry(f->c, id, &e), MF_OK);
	assert_int_equal(e.mtime, 12345);
	uint64_t fresh = create_written(f, inbox, "new.eml", TEXT("1"));
	struct mail_summary summary;
	mail_summary_parse(TEXT("1"), strlen(TEXT("1")), strlen(TEXT("1")), &summary);
	DO(f, txn_redate(t, fresh, 777, &summary));
	DO(f, txn_redate(t, id, 778, &summary));
	mail_summary_finish(&summary);
	assert_int_equal(cache_entry(f->c, fresh, &e), MF_OK);
	assert_int_equal(e.mtime, 777);
	assert_ops(f, "append");
}

/* --- the server's answers ---------------------------------------------------------------------------------------------------- */

static void done_with_a_number(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2);
	uint64_t id = create_written(f, inbox, "new.eml", TEXT("1"));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 3));
	assert_ops(f, "");
	assert_int_equal(by_uid(f, inbox, 3), id);
	assert_true(has_body(f, id, TEXT("1")));
	assert_false(spool_has(f->c, id));
	DO(f, txn_op_done(t, 4711, VALIDITY, 3)); /* nothing where it is gone */
}

static struct mail_summary summary_of(const char *text)
{
	struct mail_summary summary;
	mail_summary_parse(text, strlen(text), strlen(text), &summary);
	return summary;
}

static uint64_t put_text(struct fixture *f, uint64_t mailbox, uint32_t uid, const char *text, int64_t date, unsigned flags)
{
	struct mail_summary summary = summary_of(text);
	struct message_put put = { .mailbox = mailbox, .uid = uid, .size = strlen(text), .modseq = 5, .internal_date = date, .flags = flags,
		.keywords = "", .summary = &summary };
	uint64_t id = 0;
	DO(f, txn_message_put(t, &put, &id));
	mail_summary_finish(&summary);
	return id;
}

/* a synchronisation was there first, and somebody has flagged what it brought */
static void double_is_absorbed(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), id = by_uid(f, inbox, 2);
	DO(f, txn_move(t, id, b, "x.eml", &expunge));
	/* not sent as far as the index knows: it makes a row */
	struct test_message m;
	message_make(&m, b, 1, (unsigned)inbox * 1000 + 2);
	m.put.flags = ANSWERED;
	uint64_t twin = 0;
	DO(f, txn_message_put(t, &m.put, &twin));
	assert_int_not_equal(twin, id);
	add_body(f, twin, "body");
	DO(f, txn_change_flags(t, twin, FLAGGED, 0, NULL, NULL));
	send_all(f);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), id);
	assert_int_equal(list_count(f, b), 1);
	assert_true(has_body(f, id, "body"));
	assert_int_equal(flags_of(f, id), ANSWERED | FLAGGED);
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).message, id);
}

static void claimed_places_make_no_rows(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_remove(t, two, &expunge));
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	DO(f, txn_message_put(t, message_make(&m, inbox, 2, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	assert_int_equal(list_count(f, inbox), 1);
	/* they count among what the server has */
	assert_int_equal(by_uid(f, inbox, 1), one);
	assert_int_equal(by_uid(f, inbox, 2), two);
	/* others remove them: existence is the server's */
	DO(f, txn_message_vanished(t, inbox, 1));
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_ops(f, "");
	assert_int_equal(list_count(f, b), 0);
	assert_int_equal(in_mailbox(f, two), 0);
}

/* What others do to the flags of what has been moved away here is seen where it is */
static void claimed_flags(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, one, FLAGGED, 0, NULL, NULL));
	DO(f, txn_message_flags(t, inbox, 1, SEEN, "K", 9));
	assert_int_equal(flags_of(f, one), SEEN | FLAGGED);
	DO(f, txn_move(t, one, inbox, "y.eml", &expunge));
	assert_int_equal(flags_of(f, one), SEEN | FLAGGED);
	assert_keywords(f, one, "K");
}

static void sent_and_vanished_waits_for_its_answer(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_message_vanished(t, inbox, 1));
	assert_ops(f, "move");
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), one);
}

static void lost_answers_are_adopted(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	uint64_t made = create_written(f, b, "made.eml", TEXT("1")), copy = create(f, b, "copy.eml");
	DO(f, txn_copied(t, copy, one, 0));
	DO(f, txn_move(t, two, b, "two.eml", &expunge));
	send_all(f);
	DO(f, txn_change_flags(t, made, SEEN, 0, NULL, NULL)); /* after it was sent */
	assert_ops(f, "append copy move flags");
	/* the server gave the appended one another date */
	assert_int_equal(put_text(f, b, 1, TEXT("1"), 1800000000, ANSWERED), made);
	assert_int_equal(flags_of(f, made), SEEN | ANSWERED);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, copy);
	DO(f, txn_message_put(t, message_make(&m, b, 3, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	assert_int_equal(list_count(f, b), 3);
	/* whether the original of what was moved is gone as well nobody has said */
	assert_ops(f, "expunge flags");
	assert_int_equal(nth_op(f, 0).mailbox, inbox);
	assert_int_equal(nth_op(f, 0).uid, 2);
	/* the answer after all */
	DO(f, txn_op_half_moved(t, nth_op(f, 0).id, VALIDITY, 3));
	assert_ops(f, "expunge flags");
	DO(f, txn_message_vanished(t, inbox, 2));
	assert_ops(f, "flags");
	assert_int_equal(nth_op(f, 0).uid, 1);
}

static void half_a_move(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_move(t, two, b, "y.eml", &expunge));
	send_all(f);
	uint64_t first = nth_op(f, 0).id, second = nth_op(f, 1).id;
	DO(f, txn_op_half_moved(t, first, VALIDITY, 1));
	assert_int_equal(by_uid(f, b, 1), one);
	assert_int_equal(nth_op(f, 0).kind, OP_EXPUNGE);
	assert_int_equal(nth_op(f, 0).id, first);
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	assert_int_equal(CHANGE(f, txn_cancel(t, first)), MF_BUSY);
	DO(f, txn_op_half_moved(t, second, 0, 0)); /* it did not say where */
	assert_ops(f, "expunge expunge copy");
	assert_int_equal(nth_op(f, 2).state, OP_UNCONFIRMED);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 2), &got));
	assert_int_equal(got, two);
	/* the originals are still told of */
	DO(f, txn_message_put(t, message_make(&m, inbox, 1, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(list_count(f, inbox), 1);
	DO(f, txn_op_done(t, first, 0, 0));
	DO(f, txn_op_done(t, second, 0, 0));
	assert_ops(f, "");
}

static void without_a_number(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0);
	uint64_t made = create_written(f, b, "made.eml", TEXT("1")), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "one.eml", &expunge));
	send_all(f);
	uint64_t append = nth_op(f, 0).id, move = nth_op(f, 1).id;
	DO(f, txn_op_done(t, append, 0, 0));
	DO(f, txn_op_done(t, move, VALIDITY + 1, 9)); /* numbers of another time */
	assert_ops(f, "append move");
	assert_int_equal(nth_op(f, 0).state, OP_UNCONFIRMED);
	struct journal_totals totals;
	assert_int_equal(journal_totals(f->c, &totals), MF_OK);
	assert_int_equal(totals.unconfirmed, 2);
	assert_true(spool_is(f, made, TEXT("1")));
	assert_int_equal(put_text(f, b, 1, TEXT("1"), 1700000000, 0), made);
	struct test_message m;
	uint64_t got = 0;
	DO(f, txn_message_put(t, message_make(&m, b, 2, (unsigned)inbox * 1000 + 1), &got));
	assert_int_equal(got, one);
	assert_true(has_body(f, made, TEXT("1")));
}

static void refused_parked_retried(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	char *before = tree_text(f->state, true), *text;
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	send_all(f);
	uint64_t move = nth_op(f, 0).id;
	assert_int_equal(CHANGE(f, txn_cancel(t, move)), MF_BUSY);
	assert_int_equal(CHANGE(f, txn_retry(t, move)), MF_BUSY);
	DO(f, txn_op_park(t, move, OP_PARKED, "over quota"));
	assert_int_equal(journal_state_of(f->c, one, &text), MF_OK);
	assert_string_equal(text, "parked: move: over quota");
	free(text);
	DO(f, txn_retry(t, move));
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	DO(f, txn_op_again(t, move, 1000));
	int64_t due;
	assert_int_equal(journal_next_due(f->c, &due), MF_OK);
	assert_int_equal(due, 1000);
	cancel_all(f);
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	assert_int_equal(journal_state_of(f->c, one, &text), MF_OK);
	assert_string_equal(text, "synchronised");
	free(text);
	assert_int_equal(CHANGE(f, txn_cancel(t, move)), MF_NOT_FOUND);
}

static void renumbered_mailbox(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 5), b = mailbox_with(f, "B", 0);
	uint64_t one = by_uid(f, inbox, 1), two = by_uid(f, inbox, 2), three = by_uid(f, inbox, 3), four = by_uid(f, inbox, 4);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_change_flags(t, two, SEEN, 0, "K", NULL));
	DO(f, txn_remove(t, three, &expunge));
	DO(f, txn_move(t, four, b, "lost.eml", &expunge));
	uint64_t unsent = create_written(f, inbox, "unsent.eml", TEXT("1"));
	DO(f, txn_mailbox_renumbered(t, inbox, VALIDITY + 1));
	assert_int_equal(by_name(f, inbox, "unsent.eml"), unsent);
	/* all but the fourth come again, otherwise numbered */
	for (uint32_t i = 1; i <= 5; i++) {
		struct test_message m;
		uint64_t got = 0;
		if (i != 4)
			DO(f, txn_message_put(t, message_make(&m, inbox, 10 + i, (unsigned)inbox * 1000 + i), &got));
	}
	DO(f, txn_mailbox_synced(t, inbox, true, VALIDITY + 1, 20, 9, 1, false));
	assert_int_equal(list_count(f, inbox), 3); /* 2, 5 and the unsent */
	assert_int_equal(by_uid(f, inbox, 12), two);
	assert_int_equal(flags_of(f, two), SEEN); /* what waits lies on top */
	assert_keywords(f, two, "K");
	assert_int_equal(by_uid(f, inbox, 11), one);
	assert_int_equal(by_uid(f, inbox, 13), three);
	assert_ops(f, "move flags expunge move append");
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(nth_op(f, i).uidvalidity, VALIDITY + 1);
		assert_int_equal(nth_op(f, i).uid, 11 + i);
	}
	assert_int_equal(nth_op(f, 3).uidvalidity, VALIDITY); /* replay sees that it is left over */
	DO(f, txn_move(t, one, inbox, "back.eml", &expunge));
	assert_int_equal(by_uid(f, inbox, 11), one);
}

/* Another client moves what is to be flagged */
static void flags_follow_a_move_elsewhere(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 3), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1), got = 0;
	DO(f, txn_change_flags(t, one, SEEN, 0, NULL, NULL));
	struct test_message m;
	message_make(&m, b, 7, (unsigned)inbox * 1000 + 1);
	DO(f, txn_message_put(t, &m.put, &got));
	DO(f, txn_message_vanished(t, inbox, 1));
	assert_int_equal(by_uid(f, b, 7), one);
	assert_int_equal(flags_of(f, one), SEEN);
	assert_int_equal(nth_op(f, 0).mailbox, b);
	assert_int_equal(nth_op(f, 0).uid, 7);
}

/* --- mailboxes -------------------------------------------------------------------------------------------------------------------- */

static uint64_t make(struct fixture *f, uint64_t parent, const char *name)
{
	uint64_t id = 0;
	DO(f, txn_mailbox_create(t, parent, name, &id));
	return id;
}

static bool has_mailbox(struct fixture *f, const char *path)
{
	struct mailbox m;
	bool found = cache_mailbox_by_path(f->c, path, &m) == MF_OK;
	if (found)
		mailbox_finish(&m);
	return found;
}

static char *raw_of(struct fixture *f, uint64_t id)
{
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, id, &m), MF_OK);
	char *raw = mf_strdup(m.raw ? m.raw : "");
	mailbox_finish(&m);
	return raw;
}

static void assert_raw(struct fixture *f, uint64_t id, const char *wanted)
{
	char *raw = raw_of(f, id);
	assert_string_equal(raw, wanted);
	free(raw);
}

static void list(struct fixture *f, const char *const *raws)
{
	struct txn *t = begin(f);
	for (; *raws; raws++) {
		uint64_t id;
		struct mailbox_said said = { .raw = *raws, .delimiter = '/', .use = strcmp(*raws, "INBOX") ? 0 : CACHE_USE_INBOX };
		enum mf_err e = txn_mailbox_said(t, &said, &id);
		assert_true(e == MF_OK || e == MF_NOT_FOUND);
	}
	assert_int_equal(txn_mailboxes_swept(t), MF_OK);
	commit(t);
	check_index(f->c, f->state);
}
#define LIST(f, ...) list(f, (const char *const[]){ __VA_ARGS__, NULL })

static void mailbox_made_and_taken_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	char *before = tree_text(f->state, true);
	uint64_t a = make(f, 0, "A"), b = make(f, a, "B");
	assert_ops(f, "create create");
	assert_int_equal(CHANGE(f, txn_mailbox_create(t, 0, "A", &b)), MF_EXISTS);
	LIST(f, "INBOX"); /* it stays although the server does not know it */
	assert_true(has_mailbox(f, "A"));
	DO(f, txn_mailbox_rename(t, a, 0, "C"));
	assert_ops(f, "create create");
	struct op op = nth_op(f, 0);
	char *target = NULL;
	assert_int_equal(journal_target(f->c, &op, &target), MF_OK);
	assert_string_equal(target, "C");
	free(target);
	op = nth_op(f, 1);
	assert_int_equal(journal_target(f->c, &op, &target), MF_BUSY);
	DO(f, txn_mailbox_subscribe(t, a, false));
	assert_int_equal(CHANGE(f, txn_cancel(t, nth_op(f, 0).id)), MF_EXISTS);
	DO(f, txn_cancel(t, nth_op(f, 1).id));
	DO(f, txn_cancel(t, nth_op(f, 0).id));
	assert_ops(f, ""); /* with what was to be done to it */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(before);
	free(after);
	a = make(f, 0, "A");
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "");
}

static void mailbox_made_at_the_server(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = make(f, 0, "A"), b = make(f, a, "B"), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "A"));
	assert_ops(f, "create move subscribe");
	struct op op = nth_op(f, 0);
	char *target = NULL;
	assert_int_equal(journal_target(f->c, &op, &target), MF_OK);
	assert_string_equal(target, "A/B");
	DO(f, txn_op_mailbox_is(t, op.id, target));
	free(target);
	assert_raw(f, b, "A/B");
	LIST(f, "INBOX", "A", "A/B");
	assert_int_equal(in_mailbox(f, one), b);
	assert_ops(f, "move subscribe subscribe");
}

static void mailbox_renamed_and_back(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 2), inside = mailbox_with(f, "A/In", 1), b = mailbox_with(f, "B", 0);
	char *before = tree_text(f->state, true);
	DO(f, txn_mailbox_rename(t, a, b, "X"));
	DO(f, txn_mailbox_rename(t, a, 0, "Y"));
	assert_ops(f, "rename");
	LIST(f, "INBOX", "A", "A/In", "B");
	assert_true(has_mailbox(f, "Y/In"));
	DO(f, txn_mailbox_rename(t, a, 0, "A"));
	assert_ops(f, ""); /* the server need not hear of it */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(after);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, a, inside, "W")), MF_INVALID);
	assert_int_equal(CHANGE(f, txn_mailbox_rename(t, a, 0, "B")), MF_EXISTS);
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "no"));
	DO(f, txn_mailbox_rename(t, a, 0, "V"));
	assert_ops(f, "rename"); /* the one that was refused, with another name */
	assert_int_equal(nth_op(f, 0).state, OP_QUEUED);
	cancel_all(f);
	after = tree_text(f->state, true);
	assert_string_equal(before, after);
	free(after);
	free(before);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Z"));
	assert_raw(f, inside, "Z/In");
	LIST(f, "INBOX", "Z", "Z/In", "B");
	assert_int_equal(list_count(f, inside), 1);
}

/* RENAME was sent, its answer got lost, and LIST tells of it, what is inside first */
static void renamed_and_the_answer_lost(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 2), inside = mailbox_with(f, "A/In", 1);
	DO(f, txn_mailbox_rename(t, a, 0, "Z"));
	send_all(f);
	LIST(f, "INBOX", "Z/In", "Z");
	assert_ops(f, "");
	assert_raw(f, a, "Z");
	assert_raw(f, inside, "Z/In");
	assert_int_equal(list_count(f, a), 2);
	assert_int_equal(list_count(f, inside), 1);
	uint64_t made = make(f, 0, "New");
	send_all(f);
	LIST(f, "INBOX", "Z/In", "Z", "New");
	assert_raw(f, made, "New");
	assert_ops(f, "create"); /* which does no harm a second time */
}

/* one takes the name that another, which could not be made yet, was to have */
static void names_of_others(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), a = mailbox_with(f, "A", 1), made = make(f, 0, "New"), inside = make(f, made, "In");
	DO(f, txn_move(t, by_uid(f, inbox, 1), made, "x.eml", &expunge));
	DO(f, txn_mailbox_rename(t, made, 0, "Newer"));
	DO(f, txn_mailbox_rename(t, a, 0, "New"));
	DO(f, txn_op_park(t, nth_op(f, 0).id, OP_PARKED, "no"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 3).id, "New"));
	assert_raw(f, a, "New");
	assert_true(has_mailbox(f, "Newer/In"));
	assert_int_equal(list_count(f, made), 1);
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Newer"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, 0).id, "Newer/In"));
	assert_raw(f, made, "Newer");
	assert_raw(f, inside, "Newer/In");
	/* one that was of that name at the server, and is not any more, with what it has */
	uint64_t b = mailbox_with(f, "B", 1), b_in = mailbox_with(f, "B/In", 1);
	DO(f, txn_mailbox_rename(t, b, 0, "C"));
	DO(f, txn_op_park(t, nth_op(f, journal_count(f->c) - 1).id, OP_PARKED, "no such mailbox"));
	DO(f, txn_mailbox_rename(t, a, 0, "B"));
	DO(f, txn_op_mailbox_is(t, nth_op(f, journal_count(f->c) - 1).id, "B"));
	assert_raw(f, a, "B");
	assert_int_equal(list_count(f, b_in), 1);
}

static void mailbox_deleted(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 2), in = mailbox_with(f, "A/In", 0);
	char *before = tree_text(f->state, true), *names[] = { name_of(f, by_uid(f, a, 1)), name_of(f, by_uid(f, a, 2)) };
	uint64_t one = by_uid(f, a, 1), two = by_uid(f, a, 2);
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, inbox)), MF_UNSUPPORTED);
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_EXISTS);
	DO(f, txn_move(t, one, inbox, "1.eml", &expunge));
	DO(f, txn_remove(t, two, &expunge));
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_EXISTS);
	DO(f, txn_mailbox_delete(t, in));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "move expunge delete delete");
	LIST(f, "INBOX", "A", "A/In"); /* not shown although it is still there */
	assert_false(has_mailbox(f, "A"));
	bool uses = false;
	assert_int_equal(journal_uses(f->c, a, nth_op(f, 3).id, &uses), MF_OK);
	assert_true(uses);
	cancel_all(f); /* without any server */
	char *after = tree_text(f->state, true);
	assert_string_equal(before, after);
	assert_string_equal(names[0], ({ free(after); after = name_of(f, one); }));
	LIST(f, "INBOX", "A", "A/In");
	assert_int_equal(list_count(f, a), 2);
	free(before);
	free(after);
	free(names[0]);
	free(names[1]);
}

static void deleted_inside_first(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0), in = mailbox_with(f, "A/In", 1);
	DO(f, txn_remove(t, by_uid(f, in, 1), &expunge));
	DO(f, txn_mailbox_delete(t, in));
	DO(f, txn_mailbox_delete(t, a));
	bool uses = false;
	assert_int_equal(journal_uses(f->c, a, nth_op(f, 2).id, &uses), MF_OK);
	assert_true(uses); /* what is inside goes first */
}

/* messages are on their way through it */
static void deleted_while_in_transit(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 1), a = mailbox_with(f, "A", 0), b = mailbox_with(f, "B", 0), one = by_uid(f, inbox, 1);
	DO(f, txn_move(t, one, a, "x.eml", &expunge));
	send_all(f);
	DO(f, txn_move(t, one, b, "x.eml", &expunge));
	assert_int_equal(CHANGE(f, txn_mailbox_delete(t, a)), MF_BUSY);
	DO(f, txn_op_done(t, nth_op(f, 0).id, VALIDITY, 1));
	DO(f, txn_mailbox_delete(t, a));
	assert_ops(f, "move delete");
}

static void removed_by_another_client(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = mailbox_with(f, "INBOX", 2), a = mailbox_with(f, "A", 2);
	uint64_t to = by_uid(f, inbox, 1), from = by_uid(f, a, 1), unsent = create_written(f, a, "unsent.eml", TEXT("1"));
	DO(f, txn_move(t, to, a, "to.eml", &expunge));
	DO(f, txn_change_flags(t, by_uid(f, a, 2), SEEN, 0, NULL, NULL));
	DO(f, txn_move(t, from, inbox, "from.eml", &expunge));
	LIST(f, "INBOX");
	assert_true(has_mailbox(f, "A")); /* ours to make again */
	assert_int_equal(in_mailbox(f, to), a);
	assert_int_equal(in_mailbox(f, unsent), a);
	assert_ops(f, "append move flags move create");
	assert_int_equal(nth_op(f, 4).state, OP_PARKED);
	LIST(f, "INBOX");
	/* a mailbox that nothing needs just goes */
	uint64_t b = mailbox_with(f, "B", 2);
	DO(f, txn_change_flags(t, by_uid(f, b, 2), SEEN, 0, NULL, NULL));
	struct txn *t = begin(f);
	uint64_t id;
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = "INBOX", .delimiter = '/' }, &id), MF_OK);
	assert_int_equal(txn_mailboxes_swept(t), MF_OK);
	commit(t);
	assert_false(has_mailbox(f, "B"));
}

static void subscriptions(void **state)
{
	struct fixture *f = *state;
	mailbox_with(f, "INBOX", 1);
	uint64_t a = mailbox_with(f, "A", 0);
	DO(f, txn_mailbox_subscribe(t, a, true));
	DO(f, txn_mailbox_subscribe(t, a, true));
	assert_ops(f, "subscribe");
	DO(f, txn_mailbox_subscribe(t, a, false));
	assert_ops(f, "");
	DO(f, txn_mailbox_subscribe(t, a, true));
	cancel_all(f);
	struct mailbox m;
	assert_int_equal(cache_mailbox(f->c, a, &m), MF_OK);
	assert_false(m.flags & CACHE_MAILBOX_SUBSCRIBED);
	mailbox_finish(&m);
}

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
		case 3:
			if (moves) {
				(void)CHANGE(f, txn_op_half_moved(t, op.id, validity, next_uid++));
				break;
			} /* fall through */
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
		WITH_CACHE(flags_are_merged), WITH_CACHE(flags_sent_are_followed), WITH_CACHE(flags_of_what_is_expunged_are_taken_back),
		WITH_CACHE(moves_are_one), WITH_CACHE(a_move_that_was_sent_is_followed), WITH_CACHE(removed_goes_to_trash_or_out_of_sight),
		WITH_CACHE(unsent_is_dropped), WITH_CACHE(trash_is_made_once), WITH_CACHE(held_after_rollback),
		WITH_CACHE(overwritten_twice_is_one_append), WITH_CACHE(overwriting_splits), WITH_CACHE(overwriting_what_is_being_sent),
		WITH_CACHE(overwriting_expunges), WITH_CACHE(backup_by_renaming), WITH_CACHE(backup_without_bytes),
		WITH_CACHE(backup_of_what_was_never_sent), WITH_CACHE(renamed_over), WITH_CACHE(message_over_message), WITH_CACHE(copies),
		WITH_CACHE(copy_of_what_is_gone_is_appended), WITH_CACHE(touched_and_redated),
		WITH_CACHE(done_with_a_number), WITH_CACHE(double_is_absorbed), WITH_CACHE(claimed_places_make_no_rows), WITH_CACHE(claimed_flags),
		WITH_CACHE(sent_and_vanished_waits_for_its_answer), WITH_CACHE(lost_answers_are_adopted), WITH_CACHE(half_a_move),
		WITH_CACHE(without_a_number), WITH_CACHE(refused_parked_retried), WITH_CACHE(renumbered_mailbox), WITH_CACHE(flags_follow_a_move_elsewhere),
		WITH_CACHE(mailbox_made_and_taken_back), WITH_CACHE(mailbox_made_at_the_server), WITH_CACHE(mailbox_renamed_and_back),
		WITH_CACHE(renamed_and_the_answer_lost), WITH_CACHE(names_of_others), WITH_CACHE(mailbox_deleted), WITH_CACHE(deleted_inside_first),
		WITH_CACHE(deleted_while_in_transit), WITH_CACHE(removed_by_another_client), WITH_CACHE(subscriptions),
		WITH_CACHE(all_taken_back), WITH_CACHE(nothing_drifts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

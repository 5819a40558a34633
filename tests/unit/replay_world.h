/* replay_world.h: an account whose changes are replayed at a server in memory: what both have, changes, ways to wait. */
#ifndef MF_TESTS_REPLAY_WORLD_H
#define MF_TESTS_REPLAY_WORLD_H

#include "unit/account_world.h"
#include "unit/test_journal_check.h"

#include "cache/spool.h"
#include "sync/memory_state.h"

#define FULL (REMOTE_MAILBOXES | REMOTE_FLAGS | REMOTE_PUSH | REMOTE_RANGES | REMOTE_UIDPLUS | REMOTE_MOVE | REMOTE_QUOTA \
	| REMOTE_STATUS_MODSEQ | REMOTE_OBJECTID | REMOTE_QRESYNC | REMOTE_CONDSTORE)
static const unsigned all_caps[] = { FULL, FULL & ~(unsigned)REMOTE_MOVE, FULL & ~(unsigned)(REMOTE_UIDPLUS),
	FULL & ~(unsigned)(REMOTE_UIDPLUS | REMOTE_MOVE | REMOTE_QRESYNC | REMOTE_CONDSTORE) };

static const struct disposal expunge = { .expunge = true };

/* --- what there is, as text ------------------------------------------------------------------------------------------------ */

static inline int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline char *joined(char **lines, size_t count)
{
	qsort(lines, count, sizeof *lines, by_text);
	size_t len = 1;
	for (size_t i = 0; i < count; i++)
		len += strlen(lines[i]) + 1;
	char *text = mf_alloc(len), *end = text;
	*text = 0;
	for (size_t i = 0; i < count; i++) {
		end = stpcpy(stpcpy(end, lines[i]), "\n");
		free(lines[i]);
	}
	free(lines);
	return text;
}

#define LINES_MAX 5000

static inline char *server_text(struct world *w)
{
	char **lines = mf_alloc_array(LINES_MAX, sizeof *lines);
	size_t count = 0;
	pthread_mutex_lock(&w->server->lock);
	for (const struct memory_mailbox *b = w->server->mailboxes; b; b = b->next) {
		lines[count++] = mf_format("%s/", b->raw);
		for (size_t i = 0; i < b->count && count < LINES_MAX - 100; i++) {
			const struct memory_message *m = &b->messages[i];
			const char *subject = memmem(m->bytes->data, m->bytes->len, "Subject: ", 9);
			lines[count++] = mf_format("%s/%.*s %u %s %zu", b->raw, subject ? (int)strcspn(subject + 9, "\r\n") : 0, subject ? subject + 9 : "",
				m->flags, m->keywords, m->bytes->len);
		}
	}
	pthread_mutex_unlock(&w->server->lock);
	return joined(lines, count);
}

static inline char *index_text(struct world *w)
{
	char **lines = mf_alloc_array(LINES_MAX, sizeof *lines);
	size_t count = 0;
	sqlite3 *db = index_open(w->state);
	sqlite3_stmt *s;
	assert_int_equal(sqlite3_prepare_v2(db, "WITH RECURSIVE tree (id, shelf, path) AS (SELECT id, shelf, name FROM mailbox WHERE parent = 0 "
		"UNION ALL SELECT b.id, b.shelf, t.path || '/' || b.name FROM mailbox b JOIN tree t ON b.parent = t.id) "
		"SELECT path || '/' FROM tree UNION ALL SELECT t.path || '/' || s.subject || ' ' || m.flags || ' ' || m.keywords || ' ' || m.size "
		"FROM message m JOIN tree t ON m.shelf = t.shelf JOIN summary s ON s.id = m.id WHERE NOT m.local", -1, &s, NULL), SQLITE_OK);
	while (sqlite3_step(s) == SQLITE_ROW && count < LINES_MAX)
		lines[count++] = mf_strdup((const char *)sqlite3_column_text(s, 0));
	sqlite3_finalize(s);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return joined(lines, count);
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------- */

static inline enum mf_err want_settled_once(struct world *w)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_settled(w->account, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

static inline enum mf_err want_settled(struct world *w)
{
	enum mf_err e;
	int64_t give_up = clock_mono_ms() + PATIENCE_MS;
	while ((e = want_settled_once(w)) == MF_OFFLINE && clock_mono_ms() < give_up) {
		account_connect(w->account);
		world_nap();
	}
	return e;
}

static inline bool is_quiet(struct world *w)
{
	struct account_progress p;
	account_progress(w->account, &p);
	return p.doing[0] == 0 && p.queued == 0;
}

static inline enum mf_err want_verified(struct world *w)
{
	enum mf_err e;
	int64_t give_up = clock_mono_ms() + PATIENCE_MS;
	while ((e = want_verify(w)) == MF_OFFLINE && clock_mono_ms() < give_up) {
		account_connect(w->account);
		world_nap();
	}
	return e;
}

static inline bool tell_op(void *context, const struct op *op)
{
	(void)context;
	print_error("left: %llu %s %s of %llu in %llu to %llu uid %u: %s\n", (unsigned long long)op->id, op_state_word(op->state), op_kind_word(op->kind),
		(unsigned long long)op->message, (unsigned long long)op->mailbox, (unsigned long long)op->dest, op->uid, op->error ? op->error : "");
	return true;
}

/* The server has it all, and the tree is the server; the index is in order. Returns what there is; the caller frees. */
static inline char *settled_text(struct world *w, const char *when)
{
	enum mf_err e = want_settled(w);
	if (e != MF_OK && e != MF_DENIED)
		fail_msg("%s: settled: %s", when, mf_err_name(e));
	assert_int_equal(want_verified(w), MF_OK);
	/* what was not confirmed has been seen by now */
	e = want_settled(w);
	(void)journal_list(w->cache, 0, tell_op, NULL);
	if (e != MF_OK || journal_count(w->cache))
		fail_msg("%s: %s, and %llu operations are left", when, mf_err_name(e), (unsigned long long)journal_count(w->cache));
	assert_int_equal(want_verified(w), MF_OK);
	world_until(is_quiet(w));
	char *server = server_text(w), *index = index_text(w);
	if (strcmp(server, index) != 0)
		fail_msg("%s: the server has\n%s\nbut the tree is\n%s", when, server, index);
	check_index(w->cache, w->state);
	free(index);
	return server;
}

static inline void assert_settled_as(struct world *w, const char *wanted, const char *when)
{
	char *text = settled_text(w, when);
	if (wanted && strcmp(text, wanted) != 0)
		fail_msg("%s: the server has\n%s\nand should have\n%s", when, text, wanted);
	assert_int_equal(rejected_count(w->cache), 0);
	free(text);
}

/* --- changes -------------------------------------------------------------------------------------------------------------------- */

#ifndef CHANGE_MADE /* called behind each transaction that is made */
#define CHANGE_MADE() ((void)0)
#endif
#define CHANGE(w, call) ({ struct txn *t = NULL; assert_int_equal(cache_begin((w)->cache, &t), MF_OK); enum mf_err change_error = (call); \
		if (change_error) txn_rollback(t); else change_error = txn_commit(t); \
		if (!change_error) CHANGE_MADE(); \
		change_error; })
#define DO(w, call) assert_int_equal(CHANGE(w, call), MF_OK)

static inline uint64_t box(struct world *w, const char *path)
{
	struct mailbox m;
	if (cache_mailbox_by_path(w->cache, path, &m) != MF_OK)
		fail_msg("no mailbox %s", path);
	uint64_t id = m.id;
	mailbox_finish(&m);
	return id;
}

/* the message with this subject's number in the mailbox; 0: none */
static inline uint64_t numbered(struct world *w, const char *path, int number)
{
	sqlite3 *db = index_open(w->state);
	sqlite3_stmt *s;
	uint64_t id = 0;
	char subject[60];
	snprintf(subject, sizeof subject, "Message number %d", number);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT m.id FROM message m JOIN mailbox b ON b.shelf = m.shelf JOIN summary s ON s.id = m.id "
		"WHERE b.id = ?1 AND s.subject = ?2", -1, &s, NULL), SQLITE_OK);
	sqlite3_bind_int64(s, 1, (int64_t)box(w, path));
	sqlite3_bind_text(s, 2, subject, -1, SQLITE_TRANSIENT);
	if (sqlite3_step(s) == SQLITE_ROW)
		id = (uint64_t)sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return id;
}

static inline enum mf_err try_to_write_number(struct world *w, uint64_t message, int number, const struct disposal *how)
{
	size_t len;
	char *text = message_text(number, 600, &len), name[] = "/tmp/mailfs-replay-XXXXXX";
	int fd = mkstemp(name);
	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(write(fd, text, len), (ssize_t)len);
	struct mail_summary summary;
	uint64_t size;
	struct spool_note note = { "", "written.eml", 1763632800 + number };
	assert_int_equal(spool_prepare(w->cache, message, fd, len, true, &note, &size), MF_OK);
	close(fd);
	mail_summary_parse(text, len, len, &summary);
	struct written what = { .size = size, .summary = &summary, .internal_date = 1763632800 + number, .upload = true };
	enum mf_err e = CHANGE(w, txn_written(t, message, &what, how));
	if (e != MF_OK)
		spool_discard_prepared(w->cache, message);
	mail_summary_finish(&summary);
	free(text);
	return e;
}

static inline void write_number(struct world *w, uint64_t message, int number, const struct disposal *how)
{
	assert_int_equal(try_to_write_number(w, message, number, how), MF_OK);
}

static inline uint64_t create_number(struct world *w, const char *path, const char *name, int number)
{
	uint64_t id = 0;
	DO(w, txn_create(t, box(w, path), name, &id));
	write_number(w, id, number, &expunge);
	return id;
}

static inline struct disposal to_trash(struct world *w)
{
	return (struct disposal){ .trash = box(w, "Trash") };
}

static inline void move_number(struct world *w, const char *from, int number, const char *to, const char *name)
{
	struct disposal how = to_trash(w);
	DO(w, txn_move(t, numbered(w, from, number), box(w, to), name, &how));
}

static inline void copy_number(struct world *w, const char *from, int number, const char *to, const char *name)
{
	uint64_t made = 0;
	DO(w, txn_create(t, box(w, to), name, &made));
	DO(w, txn_copied(t, made, numbered(w, from, number), 0));
}

/* --- an account with mailboxes and messages ---------------------------------------------------------------------------------- */

static inline void fill_server(struct memory_server *m, unsigned caps)
{
	memory_caps(m, caps);
	memory_mailbox_add(m, "Work", 0, USE_NONE);
	memory_mailbox_add(m, "Trash", 0, USE_TRASH);
	memory_mailbox_add(m, "Old", 0, USE_NONE);
	memory_mailbox_add(m, "Old/In", 0, USE_NONE);
	memory_mailbox_add(m, "Gone", 0, USE_NONE);
	for (int i = 1; i <= 6; i++)
		deliver_to(m, "INBOX", i, 700);
	for (int i = 11; i <= 13; i++)
		deliver_to(m, "Work", i, 700);
	deliver_to(m, "Old/In", 21, 700);
	deliver_to(m, "Gone", 31, 700);
	assert_true(memory_flag(m, "Work", 2, FLAG_SEEN, "$Label"));
}

static inline void build(struct world *w, unsigned caps)
{
	world_init(w);
	w->config->idle = false;
	fill_server(w->server, caps);
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
}

static inline void go_offline(struct world *w)
{
	account_disconnect(w->account);
	world_until(link_of(w).state == LINK_WAITING && memory_sessions(w->server) == 0);
}

static inline size_t count_state(struct world *w, enum op_state state)
{
	struct journal_totals totals;
	assert_int_equal(journal_totals(w->cache, &totals), MF_OK);
	return state == OP_PARKED ? totals.parked : state == OP_QUEUED ? totals.queued : state == OP_SENT ? totals.sent : totals.unconfirmed;
}

static inline bool retry_each(void *context, const struct op *op)
{
	uint64_t *ids = context;
	ids[++ids[0]] = op->id;
	return ids[0] < 30;
}

static inline void retry_all(struct world *w)
{
	uint64_t ids[32] = { 0 };
	assert_int_equal(journal_list(w->cache, 0, retry_each, ids), MF_OK);
	for (uint64_t i = 1; i <= ids[0]; i++) {
		enum mf_err e = CHANGE(w, txn_retry(t, ids[i]));
		assert_true(e == MF_OK || e == MF_BUSY || e == MF_NOT_FOUND); /* it is being sent, or was */
	}
	account_journal_changed(w->account);
}

#endif

/* replay: what was changed here is what the server ends with, once, whatever happens on the way */
#include <sys/wait.h>
#include <signal.h>

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

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *joined(char **lines, size_t count)
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

static char *server_text(struct world *w)
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

static char *index_text(struct world *w)
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

static enum mf_err want_settled_once(struct world *w)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_settled(w->account, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

static enum mf_err want_settled(struct world *w)
{
	enum mf_err e;
	int64_t give_up = clock_mono_ms() + PATIENCE_MS;
	while ((e = want_settled_once(w)) == MF_OFFLINE && clock_mono_ms() < give_up) {
		account_connect(w->account);
		world_nap();
	}
	return e;
}

static bool is_quiet(struct world *w)
{
	struct account_progress p;
	account_progress(w->account, &p);
	return p.doing[0] == 0 && p.queued == 0;
}

static enum mf_err want_verified(struct world *w)
{
	enum mf_err e;
	int64_t give_up = clock_mono_ms() + PATIENCE_MS;
	while ((e = want_verify(w)) == MF_OFFLINE && clock_mono_ms() < give_up) {
		account_connect(w->account);
		world_nap();
	}
	return e;
}

static bool tell_op(void *context, const struct op *op)
{
	(void)context;
	print_error("left: %llu %s %s of %llu in %llu to %llu uid %u: %s\n", (unsigned long long)op->id, op_state_word(op->state), op_kind_word(op->kind),
		(unsigned long long)op->message, (unsigned long long)op->mailbox, (unsigned long long)op->dest, op->uid, op->error ? op->error : "");
	return true;
}

/* The server has it all, and the tree is the server; the index is in order. */
static void assert_settled_as(struct world *w, const char *wanted, const char *when)
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
	if (wanted && strcmp(server, wanted) != 0)
		fail_msg("%s: the server has\n%s\nand should have\n%s", when, server, wanted);
	if (strcmp(server, index) != 0)
		fail_msg("%s: the server has\n%s\nbut the tree is\n%s", when, server, index);
	check_index(w->cache, w->state);
	assert_int_equal(rejected_count(w->cache), 0);
	free(server);
	free(index);
}

/* --- changes -------------------------------------------------------------------------------------------------------------------- */

#define CHANGE(w, call) ({ struct txn *t = NULL; assert_int_equal(cache_begin((w)->cache, &t), MF_OK); enum mf_err change_error = (call); \
		if (change_error) txn_rollback(t); else change_error = txn_commit(t); change_error; })
#define DO(w, call) assert_int_equal(CHANGE(w, call), MF_OK)

static uint64_t box(struct world *w, const char *path)
{
	struct mailbox m;
	if (cache_mailbox_by_path(w->cache, path, &m) != MF_OK)
		fail_msg("no mailbox %s", path);
	uint64_t id = m.id;
	mailbox_finish(&m);
	return id;
}

/* the message with this subject's number in the mailbox; 0: none */
static uint64_t numbered(struct world *w, const char *path, int number)
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

static void write_number(struct world *w, uint64_t message, int number, const struct disposal *how)
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
	DO(w, txn_written(t, message, &what, how));
	mail_summary_finish(&summary);
	free(text);
}

static uint64_t create_number(struct world *w, const char *path, const char *name, int number)
{
	uint64_t id = 0;
	DO(w, txn_create(t, box(w, path), name, &id));
	write_number(w, id, number, &expunge);
	return id;
}

static struct disposal to_trash(struct world *w)
{
	return (struct disposal){ .trash = box(w, "Trash") };
}

static void move_number(struct world *w, const char *from, int number, const char *to, const char *name)
{
	struct disposal how = to_trash(w);
	DO(w, txn_move(t, numbered(w, from, number), box(w, to), name, &how));
}

/* --- the scenario ------------------------------------------------------------------------------------------------------------------ */

static void step_append(struct world *w)
{
	create_number(w, "INBOX", "appended.eml", 50);
}

static void step_overwrite(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "INBOX", 2), 51, &how);
}

static void step_move(struct world *w)
{
	move_number(w, "INBOX", 3, "Work", "moved.eml");
	DO(w, txn_change_flags(t, numbered(w, "Work", 3), FLAG_FLAGGED, 0, "$Moved", NULL));
}

static void step_remove(struct world *w)
{
	struct disposal how = to_trash(w);
	DO(w, txn_remove(t, numbered(w, "INBOX", 4), &how));
	DO(w, txn_remove(t, numbered(w, "Work", 11), &expunge));
}

static void step_copy(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_create(t, box(w, "Work"), "copy.eml", &made));
	DO(w, txn_copied(t, made, numbered(w, "INBOX", 5), 0));
	move_number(w, "INBOX", 5, "Old/In", "and-moved.eml");
}

static void step_mkdir(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_mailbox_create(t, 0, "New", &made));
	DO(w, txn_mailbox_create(t, made, "Inside", &made));
	create_number(w, "New/Inside", "first.eml", 52);
	move_number(w, "INBOX", 6, "New", "six.eml");
}

static void step_rename(struct world *w)
{
	DO(w, txn_mailbox_rename(t, box(w, "Old"), 0, "Older"));
	create_number(w, "Older", "into-renamed.eml", 53);
}

static void step_flags(struct world *w)
{
	DO(w, txn_change_flags(t, numbered(w, "INBOX", 1), FLAG_SEEN, 0, "$Work", NULL));
	DO(w, txn_set_flags(t, numbered(w, "Work", 12), FLAG_ANSWERED, ""));
}

static void step_rmdir(struct world *w)
{
	struct disposal how = to_trash(w);
	DO(w, txn_remove(t, numbered(w, "Gone", 31), &how));
	DO(w, txn_mailbox_delete(t, box(w, "Gone")));
}

typedef void step_function(struct world *w);
static step_function *const steps[] = { step_append, step_overwrite, step_move, step_remove, step_copy, step_mkdir, step_rename, step_flags, step_rmdir };
#define STEPS (sizeof steps / sizeof *steps)

static void build(struct world *w, unsigned caps)
{
	world_init(w);
	w->config->idle = false;
	memory_caps(w->server, caps);
	memory_mailbox_add(w->server, "Work", 0, USE_NONE);
	memory_mailbox_add(w->server, "Trash", 0, USE_TRASH);
	memory_mailbox_add(w->server, "Old", 0, USE_NONE);
	memory_mailbox_add(w->server, "Old/In", 0, USE_NONE);
	memory_mailbox_add(w->server, "Gone", 0, USE_NONE);
	for (int i = 1; i <= 6; i++)
		deliver(w, "INBOX", i, 700);
	for (int i = 11; i <= 13; i++)
		deliver(w, "Work", i, 700);
	deliver(w, "Old/In", 21, 700);
	deliver(w, "Gone", 31, 700);
	assert_true(memory_flag(w->server, "Work", 2, FLAG_SEEN, "$Label"));
	world_start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
}

static void go_offline(struct world *w)
{
	account_disconnect(w->account);
	world_until(link_of(w).state == LINK_WAITING && memory_sessions(w->server) == 0);
}

static void all_steps(struct world *w)
{
	for (size_t i = 0; i < STEPS; i++)
		steps[i](w);
}

/* What an undisturbed run ends with; the caller frees */
static char *undisturbed(unsigned caps, unsigned *ret_answers)
{
	struct world w;
	build(&w, caps);
	go_offline(&w);
	all_steps(&w);
	check_index(w.cache, w.state);
	memory_forget_calls(w.server);
	account_connect(w.account);
	assert_settled_as(&w, NULL, "undisturbed");
	*ret_answers = memory_answers(w.server);
	char *text = server_text(&w);
	world_finish(&w);
	return text;
}

static void offline_then_online(void **state)
{
	(void)state;
	char *first = NULL;
	for (size_t i = 0; i < sizeof all_caps / sizeof *all_caps; i++) {
		unsigned answers;
		char *text = undisturbed(all_caps[i], &answers);
		if (first)
			assert_string_equal(text, first); /* whatever the server can do */
		if (first)
			free(text);
		else
			first = text;
	}
	assert_non_null(strstr(first, "New/Inside/Message number 52"));
	assert_non_null(strstr(first, "Trash/Message number 2"));
	assert_non_null(strstr(first, "Work/Message number 3 4 $Moved"));
	assert_non_null(strstr(first, "Older/In/Message number 5"));
	assert_non_null(strstr(first, "Work/Message number 5"));
	assert_null(strstr(first, "Gone/"));
	free(first);
}

static void online(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		unsigned answers;
		char *wanted = undisturbed(all_caps[c], &answers);
		struct world w;
		build(&w, all_caps[c]);
		for (size_t i = 0; i < STEPS; i++) {
			steps[i](&w);
			account_journal_changed(w.account);
			if (i % 2)
				assert_settled_as(&w, NULL, "on the way");
		}
		assert_settled_as(&w, wanted, "online");
		world_finish(&w);
		free(wanted);
	}
}

/* The connection is cut at each answer in turn, and made anew */
static void cut_anywhere(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		unsigned answers;
		char *wanted = undisturbed(all_caps[c], &answers), when[60];
		for (unsigned n = 0; n < answers; n += getenv("MAILFS_CRASH_ALL") ? 1 : 3) {
			struct world w;
			build(&w, all_caps[c]);
			go_offline(&w);
			all_steps(&w);
			memory_cut_answers(w.server, n);
			account_connect(w.account);
			snprintf(when, sizeof when, "caps %zu, cut at answer %u", c, n);
			assert_settled_as(&w, wanted, when);
			world_finish(&w);
		}
		free(wanted);
	}
}

/* The process ends at each answer in turn: nothing is done after it, and the index is opened anew */
static void ended_anywhere(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		unsigned answers;
		char *wanted = undisturbed(all_caps[c], &answers), when[60];
		for (unsigned n = 0; n < answers; n += getenv("MAILFS_CRASH_ALL") ? 1 : 3) {
			struct world w;
			build(&w, all_caps[c]);
			go_offline(&w);
			all_steps(&w);
			memory_session_limit(w.server, 1);
			memory_cut_answers(w.server, n);
			account_connect(w.account);
			world_until(memory_sessions(w.server) == 1 || link_of(&w).state == LINK_OFFLINE || memory_answers(w.server) > n);
			memory_login_result(w.server, MF_OFFLINE);
			world_until(memory_sessions(w.server) == 0 || is_quiet(&w));
			world_stop(&w);
			cache_close(w.cache);
			memory_cut_answers(w.server, UINT32_MAX);
			memory_session_limit(w.server, 0);
			memory_login_result(w.server, MF_OK);
			world_open_cache(&w);
			check_index(w.cache, w.state);
			world_start(&w);
			snprintf(when, sizeof when, "caps %zu, ended at answer %u", c, n);
			assert_settled_as(&w, wanted, when);
			world_finish(&w);
		}
		free(wanted);
	}
}

/* The process ends, while the changes are made, at any step or at any instant; what it had accepted is not lost. */
static void ended_while_changing(void **state)
{
	(void)state;
	for (unsigned n = 0; n <= STEPS + 12; n++) {
		struct world w;
		build(&w, FULL);
		world_stop(&w);
		cache_close(w.cache);
		bus_destroy(w.bus);
		w.bus = NULL;
		fflush(NULL);
		pid_t child = fork();
		if (child == 0) {
			world_open_cache(&w);
			for (unsigned i = 0; i < (n > STEPS ? STEPS : n); i++)
				steps[i](&w);
			_exit(0);
		}
		assert_true(child > 0);
		if (n > STEPS) {
			nanosleep(&(struct timespec){ .tv_nsec = (long)(n - STEPS) * 3000000 }, NULL);
			kill(child, SIGKILL);
		}
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		w.bus = bus_create();
		world_open_cache(&w);
		check_index(w.cache, w.state);
		uint64_t rejected = rejected_count(w.cache);
		world_start(&w);
		if (n <= STEPS)
			assert_int_equal(rejected, 0);
		if (!rejected)
			assert_settled_as(&w, NULL, "ended while changing");
		world_finish(&w);
	}
}

/* The connection is lost at each answer in turn, and before there is another what was sent is changed again */
static void changed_again_in_doubt(void **state)
{
	(void)state;
	unsigned answers = 1;
	char when[60];
	for (unsigned n = 0; n < answers; n++) {
		struct world w;
		uint64_t made = 0;
		build(&w, FULL);
		go_offline(&w);
		memory_forget_calls(w.server);
		DO(&w, txn_mailbox_create(t, 0, "New", &made));
		DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Gone"), box(&w, "Work"), "Within"));
		if (n == 0) {
			account_connect(w.account);
			assert_settled_as(&w, NULL, "counted");
			answers = memory_answers(w.server);
			world_finish(&w);
			continue;
		}
		memory_cut_answers(w.server, n - 1);
		account_connect(w.account);
		world_until(memory_sessions(w.server) > 0 || memory_answers(w.server) >= n);
		memory_login_result(w.server, MF_OFFLINE);
		world_until(memory_sessions(w.server) == 0 || is_quiet(&w));
		go_offline(&w);
		DO(&w, txn_mailbox_rename(t, box(&w, "New"), 0, "Newer"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Older"), 0, "Oldest"));
		DO(&w, txn_mailbox_rename(t, box(&w, "Work/Within"), 0, "Gone"));
		move_number(&w, "INBOX", 1, "Oldest", "into.eml");
		move_number(&w, "Oldest/In", 21, "INBOX", "from.eml");
		memory_login_result(w.server, MF_OK);
		account_connect(w.account);
		snprintf(when, sizeof when, "lost at answer %u", n - 1);
		assert_settled_as(&w, NULL, when);
		char *text = server_text(&w);
		assert_null(strstr(text, "Older/"));
		assert_null(strstr(text, "New/"));
		assert_null(strstr(text, "Within/"));
		assert_non_null(strstr(text, "Newer/"));
		assert_non_null(strstr(text, "Oldest/Message number 1 "));
		assert_non_null(strstr(text, "Gone/Message number 31 "));
		assert_non_null(strstr(text, "INBOX/Message number 21 "));
		free(text);
		world_finish(&w);
	}
}

/* --- refusals ---------------------------------------------------------------------------------------------------------------------- */

static size_t count_state(struct world *w, enum op_state state)
{
	struct journal_totals totals;
	assert_int_equal(journal_totals(w->cache, &totals), MF_OK);
	return state == OP_PARKED ? totals.parked : state == OP_QUEUED ? totals.queued : state == OP_SENT ? totals.sent : totals.unconfirmed;
}

static bool retry_each(void *context, const struct op *op)
{
	uint64_t *ids = context;
	ids[++ids[0]] = op->id;
	return ids[0] < 30;
}

static void retry_all(struct world *w)
{
	uint64_t ids[32] = { 0 };
	assert_int_equal(journal_list(w->cache, 0, retry_each, ids), MF_OK);
	for (uint64_t i = 1; i <= ids[0]; i++)
		DO(w, txn_retry(t, ids[i]));
	account_journal_changed(w->account);
}

static void refused_and_retried(void **state)
{
	(void)state;
	static const enum write_kind kinds[] = { WRITE_APPEND, WRITE_MOVE, WRITE_COPY, WRITE_FLAGS, WRITE_EXPUNGE, WRITE_CREATE, WRITE_RENAME, WRITE_DELETE };
	unsigned answers;
	char *wanted = undisturbed(FULL, &answers), when[60];
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		struct world w;
		build(&w, FULL);
		go_offline(&w);
		all_steps(&w);
		memory_refuse_writes(w.server, kinds[i], MF_QUOTA);
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_true(count_state(&w, OP_PARKED) > 0);
		assert_int_equal(count_state(&w, OP_SENT), 0);
		check_index(w.cache, w.state);
		memory_refuse_writes(w.server, kinds[i], MF_OK);
		for (int again = 0; again < 3 && journal_count(w.cache); again++) {
			retry_all(&w);
			(void)want_settled(&w);
		}
		snprintf(when, sizeof when, "refused: %d", (int)kinds[i]);
		assert_settled_as(&w, wanted, when);
		world_finish(&w);
	}
	free(wanted);
}

/* one of a set is too large: the others go */
static void one_of_many_is_refused(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	memory_quota(w.server, 0, 2200); /* bytes: for three of six copies */
	for (int i = 1; i <= 6; i++) {
		uint64_t made = 0;
		char name[40];
		snprintf(name, sizeof name, "copy%d.eml", i);
		DO(&w, txn_create(t, box(&w, "Work"), name, &made));
		DO(&w, txn_copied(t, made, numbered(&w, "INBOX", i), 0));
	}
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 3);
	assert_int_equal(journal_count(w.cache), 3);
	memory_quota(w.server, 0, 0);
	retry_all(&w);
	assert_settled_as(&w, NULL, "retried");
	world_finish(&w);
}

/* mkdir A; mkdir B; mv A B */
static void made_and_moved_into_one_made_later(void **state)
{
	(void)state;
	struct world w;
	uint64_t first = 0, second = 0;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_create(t, 0, "First", &first));
	DO(&w, txn_mailbox_create(t, 0, "Second", &second));
	DO(&w, txn_mailbox_rename(t, first, second, "Inside"));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "inside one made later");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Second/Inside/"));
	assert_null(strstr(text, "First/"));
	free(text);
	world_finish(&w);
}

/* mv Old aside; mv aside/In .; mv aside In */
static void turned_inside_out(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Aside"));
	DO(&w, txn_mailbox_rename(t, box(&w, "Aside/In"), 0, "In"));
	DO(&w, txn_mailbox_rename(t, box(&w, "Aside"), box(&w, "In"), "Old"));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "inside out");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "In/Message number 21 "));
	assert_non_null(strstr(text, "In/Old/"));
	assert_null(strstr(text, "Aside/"));
	assert_null(strstr(text, "Old/In/"));
	free(text);
	world_finish(&w);
}

/* What is removed goes by the name that what it lay in has when its turn comes */
static void removed_from_one_renamed(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	DO(&w, txn_mailbox_rename(t, box(&w, "Old"), 0, "Older"));
	move_number(&w, "Older/In", 21, "INBOX", "saved.eml");
	DO(&w, txn_mailbox_delete(t, box(&w, "Older/In")));
	account_connect(w.account);
	assert_settled_as(&w, NULL, "removed from one renamed");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Older/\n"));
	assert_null(strstr(text, "/In/"));
	assert_non_null(strstr(text, "INBOX/Message number 21 "));
	free(text);
	world_finish(&w);
}

/* Three copies of one message, asked for together, are three */
static void copies_of_one(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		struct world w;
		build(&w, all_caps[c]);
		go_offline(&w);
		for (int i = 1; i <= 3; i++) {
			uint64_t made = 0;
			char name[40];
			snprintf(name, sizeof name, "copy%d.eml", i);
			DO(&w, txn_create(t, box(&w, "Work"), name, &made));
			DO(&w, txn_copied(t, made, numbered(&w, "INBOX", 1), 0));
		}
		move_number(&w, "INBOX", 1, "Old", "moved.eml");
		account_connect(w.account);
		assert_settled_as(&w, NULL, "copies of one");
		char *text = server_text(&w), *at = text;
		for (int i = 0; i < 3; i++) {
			at = strstr(at, "Work/Message number 1 ");
			assert_non_null(at);
			at++;
		}
		assert_null(strstr(at, "Work/Message number 1 "));
		assert_non_null(strstr(text, "Old/Message number 1 "));
		free(text);
		world_finish(&w);
	}
}

/* One message twice, moved to one mailbox, and the connection is lost on the way: neither stands for the other at its source */
static void twins_in_doubt(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		for (unsigned n = 0; n < 16; n++) {
			struct world w;
			build(&w, all_caps[c]);
			deliver(&w, "Work", 1, 700);
			assert_int_equal(want_sync(&w, false), MF_OK);
			go_offline(&w);
			move_number(&w, "INBOX", 1, "Old", "one.eml");
			move_number(&w, "Work", 1, "Old", "two.eml");
			memory_cut_answers(w.server, n);
			account_connect(w.account);
			(void)want_settled(&w);
			assert_int_equal(want_verified(&w), MF_OK);
			char *text = server_text(&w);
			size_t left = 0;
			for (const char *at = text; (at = strstr(at, "/Message number 1 ")); at++)
				left++;
			if (left < 2)
				fail_msg("caps %zu, cut at answer %u: the server has\n%s", c, n, text);
			free(text);
			world_finish(&w);
		}
	}
}

/* --- others are at work too --------------------------------------------------------------------------------------------------------- */

static void others_at_work(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	all_steps(&w);
	/* what is removed here is expunged there, another is moved there; mailboxes go and are numbered anew */
	assert_true(memory_expunge(w.server, "Work", 1));
	assert_true(memory_move(w.server, "Work", 3, "INBOX") != 0);
	memory_renumber(w.server, "INBOX");
	memory_mailbox_remove(w.server, "Gone");
	account_connect(w.account);
	assert_settled_as(&w, NULL, "others at work");
	char *text = server_text(&w);
	assert_null(strstr(text, "Message number 11 "));
	assert_null(strstr(text, "Message number 31 "));
	assert_non_null(strstr(text, "Work/Message number 3 "));
	assert_non_null(strstr(text, "INBOX/Message number 13 ")); /* the flag went after it */
	assert_non_null(strstr(text, "New/Message number 6"));
	free(text);
	world_finish(&w);
}

static void mailbox_removed_with_changes(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	move_number(&w, "Work", 11, "INBOX", "from.eml");       /* it is gone with the mailbox */
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 12), FLAG_SEEN, 0, NULL, NULL));
	move_number(&w, "INBOX", 1, "Work", "to.eml");          /* this one is not */
	memory_mailbox_remove(w.server, "Work");
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 1);         /* a person says whether it is to be made again */
	assert_true(numbered(&w, "Work", 1) != 0);
	unsigned calls = memory_calls(w.server, MEMORY_WRITE);
	world_nap();
	assert_int_equal(memory_calls(w.server, MEMORY_WRITE), calls);
	retry_all(&w);
	assert_settled_as(&w, NULL, "made again");
	char *text = server_text(&w);
	assert_non_null(strstr(text, "Work/Message number 1 "));
	assert_null(strstr(text, "Message number 11"));
	free(text);
	world_finish(&w);
}

/* --- how much it takes ------------------------------------------------------------------------------------------------------------------ */

static void a_thousand_are_few_writes(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	for (int i = 1000; i < 2000; i++)
		deliver(&w, "Work", i, 300);
	assert_int_equal(want_sync(&w, false), MF_OK);
	world_until(is_quiet(&w));
	go_offline(&w);
	struct uid_id *uids;
	size_t count;
	uint64_t work = box(&w, "Work");
	struct disposal how = to_trash(&w);
	assert_int_equal(cache_uids(w.cache, work, &uids, &count), MF_OK);
	assert_int_equal(count, 1003);
	struct txn *t;
	assert_int_equal(cache_begin(w.cache, &t), MF_OK);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(txn_change_flags(t, uids[i].id, FLAG_SEEN, 0, NULL, NULL), MF_OK);
		assert_int_equal(txn_remove(t, uids[i].id, &how), MF_OK);
	}
	assert_int_equal(txn_commit(t), MF_OK);
	free(uids);
	memory_forget_calls(w.server);
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_OK);
	assert_true(memory_calls(w.server, MEMORY_WRITE) <= 3);
	assert_settled_as(&w, NULL, "a thousand");
	world_finish(&w);
}

/* --- anything ---------------------------------------------------------------------------------------------------------------------------- */

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

static uint64_t any_message(struct world *w)
{
	struct found_ids found = { .count = 0 };
	for (int i = 0; i < 8 && !found.count; i++)
		(void)cache_list(w->cache, any_mailbox(w), 0, note_message, &found);
	return found.count ? found.ids[dice((unsigned)found.count)] : 0;
}

static int next_number = 5000;

static void random_change(struct world *w)
{
	uint64_t message = any_message(w), mailbox = any_mailbox(w), made = 0;
	struct disposal how = { .expunge = dice(3) == 0, .trash = dice(4) ? any_mailbox(w) : 0 };
	char name[40];
	snprintf(name, sizeof name, "n%u.eml", dice(20));
	enum mf_err e;
	unsigned what = dice(9);
	if (what == 6 && message && CHANGE(w, txn_create(t, mailbox, name, &made)) == MF_OK) {
		if (CHANGE(w, txn_copied(t, made, message, 0)) != MF_OK)
			write_number(w, made, next_number++, &how);
		return;
	}
	if (what == 7 && CHANGE(w, txn_create(t, mailbox, name, &made)) == MF_OK) {
		write_number(w, made, next_number++, &how);
		return;
	}
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

/* Changes go on while they are sent, and the connection is cut now and then; in the end the server is as the tree. */
static void anything(void **state)
{
	(void)state;
	const char *many = getenv("MAILFS_JOURNAL_ROUNDS");
	for (unsigned round = 0; round < (many ? (unsigned)strtoul(many, NULL, 10) : 12); round++) {
		struct world w;
		char when[60];
		dice_state = 100 + round;
		build(&w, all_caps[round % 4]);
		for (unsigned i = 0; i < 40; i++) {
			random_change(&w);
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
		assert_settled_as(&w, NULL, when);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offline_then_online), cmocka_unit_test(online), cmocka_unit_test(refused_and_retried),
		cmocka_unit_test(one_of_many_is_refused), cmocka_unit_test(copies_of_one), cmocka_unit_test(twins_in_doubt), cmocka_unit_test(turned_inside_out), cmocka_unit_test(removed_from_one_renamed),
		cmocka_unit_test(made_and_moved_into_one_made_later),
		cmocka_unit_test(others_at_work), cmocka_unit_test(mailbox_removed_with_changes),
		cmocka_unit_test(a_thousand_are_few_writes), cmocka_unit_test(cut_anywhere), cmocka_unit_test(ended_anywhere),
		cmocka_unit_test(ended_while_changing), cmocka_unit_test(changed_again_in_doubt),
		cmocka_unit_test(anything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The program ends at its n-th step (tools/ends.c), for every n: what it writes to its journal, and writes to or reads from the server.
 * Of what is written then nothing arrives, or half. Started again it comes to just what an undisturbed run comes to, at the server and in
 * the tree. Between them are the real engine and a server that keeps its mail in memory. */
#include <sys/mman.h>

static void change_made(void);
#define CHANGE_MADE change_made

#include "unit/replay_steps.h"

#include "sync/engine.h"
#include "sync/imap/imap.h"
#include "support/imap_server.c"
#include "support/ends_at.h"

/* shared with the one that ends: transactions made, and the last one that is to be */
static struct { unsigned made, last; } *changes;

static void change_made(void)
{
	if (++changes->made == changes->last)
		_exit(ENDED);
}

#define STEPS_MAX 5000
#define CHANGES_MAX 200

/* --- a server and the index of its client, as often as they are needed --------------------------------------------------------- */

typedef void change_function(struct world *w);
struct stage {
	unsigned caps;
	change_function *work;                   /* of the one that ends */
	change_function *meanwhile;              /* what the server had done before; NULL: nothing */
	char dir[64], state[80], bodies[80];     /* the index that each run begins with */
};

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
	char *command;
	va_list arguments;
	va_start(arguments, format);
	assert_true(vasprintf(&command, format, arguments) >= 0);
	va_end(arguments);
	assert_int_equal(system(command), 0);
	free(command);
}

struct show {
	struct world w;
	unsigned caps;
	change_function *work;                   /* of the one that ends */
	struct imap_server *imap;
	uint16_t port;                           /* its */
	struct credentials *credentials;
	struct imap_memory *memory;
};

static struct remote *connect_to(void *context, unsigned roles, struct cancel *cancel)
{
	const struct show *s = context;
	struct imap_options options = {
		.transport = { .host = "127.0.0.1", .port = s->port, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS, .cancel = cancel },
		.credentials = s->credentials, .auth = AUTH_PLAIN, .memory = s->memory, .list_ahead = roles & ROLE_WORKER,
	};
	struct remote *remote = imap_remote_create(&options);
	remote->late_ms = 1; /* this server has done what it got before anybody asks it again */
	return remote;
}

/* The mailboxes of fill_server(), and no index yet */
static void show_open(struct show *s, unsigned caps)
{
	*s = (struct show){ .caps = caps };
	world_init_bare(&s->w);
	s->w.config->idle = false;
	fill_server(s->w.server, caps);
	s->credentials = credentials_create("alice", "secret", NULL);
	s->memory = imap_memory_create(NULL);
	s->w.make = connect_to;
	s->w.make_context = s;
}

/* ... behind IMAP */
static void show_serve(struct show *s)
{
	s->imap = imap_server_start(s->w.server, s->caps);
	s->port = imap_server_port(s->imap);
}

static void show_close(struct show *s)
{
	world_stop(&s->w);
	imap_server_stop(s->imap);
	imap_memory_destroy(s->memory);
	credentials_destroy(s->credentials);
	world_finish(&s->w);
}

/* with the index that the stage has, closed */
static void show_begin(struct show *s, const struct stage *stage)
{
	show_open(s, stage->caps);
	if (stage->meanwhile)
		stage->meanwhile(&s->w);
	run("cp -a '%s' '%s' '%s'", stage->state, stage->bodies, s->w.dir);
}

/* change: by the client, when it has read all there is; NULL: it has never been there */
static void stage_build(struct stage *stage, unsigned caps, change_function *change)
{
	struct show s;
	*stage = (struct stage){ .caps = caps };
	const char *tmp = getenv("TMPDIR");
	snprintf(stage->dir, sizeof stage->dir, "%s/mailfs-stage-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(stage->dir));
	snprintf(stage->state, sizeof stage->state, "%s/state", stage->dir);
	snprintf(stage->bodies, sizeof stage->bodies, "%s/cache", stage->dir);
	show_open(&s, caps);
	show_serve(&s);
	world_open_cache(&s.w);
	if (change) {
		world_start(&s.w);
		assert_int_equal(want_sync(&s.w, false), MF_OK);
		world_until(is_quiet(&s.w));
		go_offline(&s.w);
		change(&s.w);
		world_stop(&s.w);
	}
	cache_close(s.w.cache);
	run("cp -a '%s' '%s' '%s'", s.w.state, s.w.bodies, stage->dir);
	world_open_cache(&s.w);
	world_start_as(&s.w, true);
	show_close(&s);
}

static void stage_finish(const struct stage *stage)
{
	world_rm(stage->dir);
}

/* --- one that ends --------------------------------------------------------------------------------------------------------------- */

/* Nothing of the test framework: this process is not the test. */
static void begin_work(struct world *w)
{
	struct mf_reason why = { "" };
	struct cache_options cache = { .state_dir = w->state, .cache_dir = w->bodies, .identity = "memory test", .bus = w->bus };
	if (cache_open(&cache, &w->cache, &why))
		_exit(2);
	struct account_options options = { .config = w->config, .cache = w->cache, .bus = w->bus, .make_remote = w->make, .make_context = w->make_context };
	if (account_create(&options, &w->account, &why))
		_exit(3);
	account_start(w->account);
}

static void send_all(struct world *w)
{
	begin_work(w);
	for (int again = 0; again < 2; again++) { /* what was not confirmed has been seen by the second time */
		enum mf_err e = want_settled(w);
		if ((e != MF_OK && e != MF_DENIED) || want_verified(w) != MF_OK)
			_exit(4);
	}
}

static void read_all(struct world *w)
{
	begin_work(w);
	if (want_sync(w, true) != MF_OK)
		_exit(4);
}

static void work_of(void *context)
{
	struct show *s = context;
	s->work(&s->w);
}

/* ... and all that the server has heard is done */
static bool show_ends(struct show *s, change_function *work, long step, bool halves, const char *when)
{
	s->work = work;
	struct ending e = ending_begin(work_of, s, &s->port, step, halves);
	show_serve(s);
	bool ended = ending_come(&e, s->port, when);
	imap_server_await_idle(s->imap);
	return ended;
}

/* Started again: what it comes to; the caller frees. put_aside: so many files at most */
static char *started_again(struct show *s, uint64_t put_aside, const char *when)
{
	world_open_cache(&s->w);
	check_index(s->w.cache, s->w.state);
	world_start(&s->w);
	char *text = settled_text(&s->w, when);
	assert_true(rejected_count(s->w.cache) <= put_aside);
	sqlite3 *db = index_open(s->w.state);
	check_none(db, when, "SELECT count(*) FROM message WHERE local");
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return text;
}

static void check_same(const char *text, const char *wanted, const char *when)
{
	if (strcmp(text, wanted) != 0)
		fail_msg("%s: it came to\n%s\nand should have come to\n%s", when, text, wanted);
}

/* --- what a server is asked for, and told ---------------------------------------------------------------------------------------- */

static char *undisturbed(const struct stage *stage)
{
	struct show s;
	show_begin(&s, stage);
	show_serve(&s);
	char *text = started_again(&s, 0, "undisturbed");
	show_close(&s);
	return text;
}

static long ends_anywhere(const struct stage *stage, size_t number, bool halves)
{
	char *wanted = undisturbed(stage), when[80];
	long step = 0;
	for (bool ended = true; ended; step += world_stride(100)) {
		struct show s;
		assert_true(step < STEPS_MAX);
		snprintf(when, sizeof when, "capabilities %zu, step %ld%s", number, step + 1, halves ? ", half of it" : "");
		show_begin(&s, stage);
		ended = show_ends(&s, stage->work, step + 1, halves, when);
		char *text = started_again(&s, 0, when);
		check_same(text, wanted, when);
		free(text);
		show_close(&s);
	}
	free(wanted);
	return step;
}

/* Servers of every kind */
static void with_each(change_function *change, change_function *work, change_function *meanwhile)
{
	for (size_t c = 0; c <= sizeof all_caps / sizeof *all_caps; c++) {
		unsigned caps = c < sizeof all_caps / sizeof *all_caps ? all_caps[c] : FULL | REMOTE_REPLACE;
		struct stage stage;
		stage_build(&stage, caps, change);
		stage.work = work;
		stage.meanwhile = meanwhile;
		long tried = ends_anywhere(&stage, c, c % 2);
		if (getenv("MAILFS_TEST_LONG"))
			tried += ends_anywhere(&stage, c, !(c % 2));
		print_message("capabilities %zu: %ld steps\n", c, tried);
		stage_finish(&stage);
	}
}

static void nothing(struct world *w)
{
	(void)w;
}

static void others_change(struct world *w)
{
	assert_true(memory_expunge(w->server, "INBOX", 2));
	assert_true(memory_flag(w->server, "INBOX", 3, FLAG_SEEN | FLAG_FLAGGED, "$Work"));
	assert_true(memory_move(w->server, "INBOX", 4, "Work") != 0);
	memory_renumber(w->server, "Old/In");
	memory_mailbox_remove(w->server, "Gone");
	assert_true(memory_mailbox_rename(w->server, "Old", "Aged"));
	memory_mailbox_add(w->server, "Young", 0, USE_NONE);
	deliver(w, "Young", 61, 700);
	deliver(w, "INBOX", 62, 700);
}

static void what_is_read(void **state)
{
	(void)state;
	with_each(NULL, read_all, NULL);
	with_each(nothing, read_all, others_change);
}

/* --- changes are made ------------------------------------------------------------------------------------------------------------- */

static void open_and_change(struct world *w, change_function *change)
{
	struct mf_reason why = { "" };
	struct cache_options cache = { .state_dir = w->state, .cache_dir = w->bodies, .identity = "memory test", .bus = w->bus };
	if (cache_open(&cache, &w->cache, &why))
		_exit(2);
	change(w);
}

static void make_all(struct world *w)
{
	open_and_change(w, all_steps);
}

static void make_more(struct world *w)
{
	open_and_change(w, more_steps);
}

/* What is come to when it ends behind so many transactions; NULL: there are not as many. The caller frees. */
static char *changed_so_far(const struct stage *stage, unsigned count, change_function *make)
{
	struct show s;
	char when[60];
	snprintf(when, sizeof when, "%u changes", count);
	show_begin(&s, stage);
	changes->made = 0;
	changes->last = count;
	bool ended = count == 0 || show_ends(&s, make, 0, false, when);
	if (count == 0)
		show_serve(&s);
	char *text = started_again(&s, 0, when);
	show_close(&s);
	if (ended)
		return text;
	free(text);
	return NULL;
}

/* What it has accepted is done; of the one that it was at, all or nothing. */
static void changing_ends(change_function *make)
{
	struct stage stage;
	char *wanted[CHANGES_MAX + 2] = { NULL }, when[80];
	unsigned count = 0;
	stage_build(&stage, FULL, nothing);
	while (count < CHANGES_MAX && (wanted[count] = changed_so_far(&stage, count, make)))
		count++;
	assert_true(count > 10 && count < CHANGES_MAX);
	bool ended = true;
	long step = 0;
	for (changes->last = 0; ended; step += world_stride(100)) {
		struct show s;
		snprintf(when, sizeof when, "changing, step %ld", step + 1);
		show_begin(&s, &stage);
		changes->made = 0;
		ended = show_ends(&s, make, step + 1, step % 2, when);
		char *text = started_again(&s, 1, when);
		if (!wanted[changes->made + 1] || strcmp(text, wanted[changes->made + 1]) != 0)
			check_same(text, wanted[changes->made], when);
		free(text);
		show_close(&s);
	}
	print_message("%u changes, %ld steps\n", count - 1, step);
	for (unsigned i = 0; i < count; i++)
		free(wanted[i]);
	stage_finish(&stage);
}

static void changes_of_every_kind(void **state)
{
	(void)state;
	changing_ends(make_all);
	with_each(all_steps, send_all, NULL);
}

static void several_of_one_thing(void **state)
{
	(void)state;
	changing_ends(make_more);
	with_each(more_steps, send_all, NULL);
}

int main(void)
{
	imap_global_init();
	changes = mmap(NULL, sizeof *changes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct CMUnitTest tests[] = { cmocka_unit_test(changes_of_every_kind), cmocka_unit_test(several_of_one_thing), cmocka_unit_test(what_is_read) };
	return changes == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

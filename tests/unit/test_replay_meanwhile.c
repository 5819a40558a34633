/* replay: what a person changes at the very moment when it is to be sent */
#include <sys/syscall.h>

#include "unit/replay_world.h"

/* Called once, when the journal's marks go to the disk: they are made, and nothing is sent yet */
typedef void change_function(struct world *w);
static change_function *_Atomic at_the_mark;
static struct world *marked_world;

static bool is_named(int fd, const char *end)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof path), wanted = (ssize_t)strlen(end);
	return len > wanted && memcmp(path + len - wanted, end, (size_t)wanted) == 0;
}

int fdatasync(int fd)
{
	if (is_named(fd, "-wal") && atomic_load(&at_the_mark) && count_state(marked_world, OP_SENT)) {
		change_function *call = atomic_exchange(&at_the_mark, NULL);
		if (call)
			call(marked_world);
	}
	return (int)syscall(SYS_fdatasync, fd);
}

/* Called once, when a session has looked at what is in the spool: what it found decides what is sent */
static change_function *_Atomic at_the_spool;

static bool is_session(struct world *w)
{
	bool found = false;
	pthread_mutex_lock(&w->server->lock);
	for (const struct memory_session *s = w->server->sessions; s; s = s->next)
		found |= pthread_equal(s->remote.owner, pthread_self());
	pthread_mutex_unlock(&w->server->lock);
	return found;
}

int fsync(int fd)
{
	if (atomic_load(&at_the_spool) && is_named(fd, "/spool") && is_session(marked_world)) {
		change_function *call = atomic_exchange(&at_the_spool, NULL);
		if (call)
			call(marked_world);
	}
	return (int)syscall(SYS_fsync, fd);
}

enum when { MARKED, SENT, LOST, WHENS };  /* LOST: done, and the answer did not come */

static char moment_text[60];   /* for who reads of a failure */

static void run_marked(struct world *w, change_function *call)
{
	marked_world = w;
	atomic_store(&at_the_mark, call);
	account_connect(w->account);
	assert_settled_as(w, NULL, moment_text);
	assert_null(atomic_load(&at_the_mark));
}

static void run_sent(struct world *w, change_function *call, bool lost)
{
	memory_block(w->server, MEMORY_WRITE);
	account_connect(w->account);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	memory_cut_answers(w->server, lost ? 0 : UINT32_MAX);
	if (lost)
		memory_login_result(w->server, MF_OFFLINE);
	else
		call(w);
	memory_release(w->server);
	if (lost) {
		world_until(memory_sessions(w->server) == 0);
		call(w);
		memory_login_result(w->server, MF_OK);
		account_connect(w->account);
	}
	assert_settled_as(w, NULL, moment_text);
}

static size_t times(const char *text, const char *what)
{
	size_t count = 0;
	for (const char *at = text; (at = strstr(at, what)); at++)
		count++;
	return count;
}

/* What is noted, what a person does when that is marked, and what the server is to have then, once each */
struct moment {
	change_function *before, *meanwhile;
	const char *once[5];
};

static void make(struct world *w)
{
	create_number(w, "INBOX", "made.eml", 50);
}

static void overwrite(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "INBOX", 50), 51, &how);
}

static void move_on(struct world *w)
{
	move_number(w, "INBOX", 50, "Work", "on.eml");
}

static void throw_away(struct world *w)
{
	struct disposal how = to_trash(w);
	DO(w, txn_remove(t, numbered(w, "INBOX", 50), &how));
}

static void empty_gone(struct world *w)
{
	move_number(w, "Gone", 31, "INBOX", "saved.eml");
}

static void remove_gone(struct world *w)
{
	DO(w, txn_mailbox_delete(t, box(w, "Gone")));
}

static void bring_back(struct world *w)
{
	move_number(w, "INBOX", 31, "Gone", "back.eml");
}

static void overwrite_moved(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "INBOX", 31), 51, &how);
}

static void copy(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_create(t, box(w, "Work"), "copy.eml", &made));
	DO(w, txn_copied(t, made, numbered(w, "INBOX", 1), 0));
}

static void overwrite_copy(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "Work", 1), 51, &how);
}

static void move_copied(struct world *w)
{
	move_number(w, "INBOX", 1, "Gone", "copied.eml");
}

static const struct moment moments[] = {
	{ make, overwrite, { "INBOX/Message number 51 ", "Trash/Message number 50 ", " 50 ", " 51 " } },
	{ make, move_on, { "Work/Message number 50 ", " 50 " } },
	{ make, throw_away, { "Trash/Message number 50 ", " 50 " } },
	{ empty_gone, remove_gone, { "INBOX/Message number 31 ", " 31 " } },
	{ empty_gone, bring_back, { "Gone/Message number 31 ", " 31 " } },
	{ empty_gone, overwrite_moved, { "INBOX/Message number 51 ", "Trash/Message number 31 ", " 31 ", " 51 " } },
	{ copy, overwrite_copy, { "Work/Message number 51 ", "Trash/Message number 1 ", "INBOX/Message number 1 ", " 51 " } },
	{ copy, move_copied, { "Work/Message number 1 ", "Gone/Message number 1 " } },
};

static void check_moment(const struct moment *m, unsigned caps, enum when when)
{
	struct world w;
	build(&w, caps);
	go_offline(&w);
	m->before(&w);
	if (when == MARKED)
		run_marked(&w, m->meanwhile);
	else
		run_sent(&w, m->meanwhile, when == LOST);
	char *text = server_text(&w);
	for (size_t i = 0; i < sizeof m->once / sizeof *m->once && m->once[i]; i++)
		if (times(text, m->once[i]) != 1)
			fail_msg("%s: \"%s\" is not once in\n%s", moment_text, m->once[i], text);
	assert_null(strstr(text, " 8 ")); /* marked as deleted, and left */
	free(text);
	world_finish(&w);
}

static void each_moment(void **state)
{
	(void)state;
	for (size_t c = 0; c < sizeof all_caps / sizeof *all_caps; c++) {
		for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
			for (unsigned when = 0; when < WHENS; when++) {
				snprintf(moment_text, sizeof moment_text, "caps %zu, moment %zu, when %u", c, i, when);
				check_moment(&moments[i], all_caps[c], when);
			}
		}
	}
}

/* The bytes are gone, and just when that has been seen the message is written anew: it is sent */
static void written_when_found_damaged(void **state)
{
	(void)state;
	struct world w;
	char path[200];
	build(&w, FULL);
	go_offline(&w);
	make(&w);
	snprintf(path, sizeof path, "%s/spool/%llu", w.state, (unsigned long long)numbered(&w, "INBOX", 50));
	assert_int_equal(unlink(path), 0);
	marked_world = &w;
	atomic_store(&at_the_spool, overwrite);
	account_connect(w.account);
	assert_settled_as(&w, NULL, "written when found damaged");
	assert_null(atomic_load(&at_the_spool));
	char *text = server_text(&w);
	assert_int_equal(times(text, "INBOX/Message number 51 "), 1);
	free(text);
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(each_moment), cmocka_unit_test(written_when_found_damaged) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* replay: what a person changes at the very moment when it is to be sent */
#include <sys/syscall.h>

#include "unit/replay_world.h"

/* Called once, when the journal's marks go to the disk: they are made, and nothing is sent yet */
typedef void change_function(struct world *w);
static change_function *_Atomic at_the_mark;
static struct world *marked_world;

int fdatasync(int fd)
{
	char link[64], path[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, sizeof path);
	bool of_journal = len > 4 && memcmp(path + len - 4, "-wal", 4) == 0;
	if (of_journal && atomic_load(&at_the_mark) && count_state(marked_world, OP_SENT)) {
		change_function *call = atomic_exchange(&at_the_mark, NULL);
		if (call)
			call(marked_world);
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static void run(struct world *w, change_function *call)
{
	marked_world = w;
	atomic_store(&at_the_mark, call);
	account_connect(w->account);
	assert_settled_as(w, NULL, "meanwhile");
	assert_null(atomic_load(&at_the_mark));
}

static size_t times(const char *text, const char *what)
{
	size_t count = 0;
	for (const char *at = text; (at = strstr(at, what)); at++)
		count++;
	return count;
}

static void overwrite(struct world *w)
{
	struct disposal how = to_trash(w);
	write_number(w, numbered(w, "INBOX", 50), 51, &how);
}

/* Each version is stored as what it is */
static void overwritten(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	create_number(&w, "INBOX", "made.eml", 50);
	run(&w, overwrite);
	char *text = server_text(&w);
	assert_int_equal(times(text, "INBOX/Message number 51 "), 1);
	assert_int_equal(times(text, "Trash/Message number 50 "), 1);
	assert_int_equal(times(text, "Message number 5"), 3);
	free(text);
	world_finish(&w);
}

static void move_on(struct world *w)
{
	move_number(w, "INBOX", 50, "Work", "on.eml");
}

static void moved_on(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	create_number(&w, "INBOX", "made.eml", 50);
	run(&w, move_on);
	char *text = server_text(&w);
	assert_int_equal(times(text, "Work/Message number 50 "), 1);
	assert_int_equal(times(text, "Message number 50 "), 1);
	free(text);
	world_finish(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(overwritten), cmocka_unit_test(moved_on) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ends_at.h: work in a process of its own that ends at its n-th step (tools/ends.c). To be included by one test program each, behind
 * what it tests: read(2), send(2) and their like are in the place of libc's, for the libraries, too.
 *
 * The process is made while there are no threads, whose locks it would inherit, and begins when the server that it talks to is there. */
#ifndef TESTS_SUPPORT_ENDS_AT_H
#define TESTS_SUPPORT_ENDS_AT_H

#include <stdio.h>
#include <sys/wait.h>

#pragma GCC visibility push(default)
#include "tools/ends.c"
#pragma GCC visibility pop

#define ENDS_PATIENCE_S 120

struct ending { pid_t pid; int go; };

static void ending_wait(const int ends[2], uint16_t *ret_port)
{
	close(ends[1]);
	if (read(ends[0], ret_port, sizeof *ret_port) != sizeof *ret_port)
		_exit(1); /* the test has failed */
	close(ends[0]);
}

/* halves: of what is written at that step half is. *port is set in that process before it works. */
static struct ending ending_begin(void work(void *context), void *context, uint16_t *port, long step, bool halves)
{
	int ends[2];
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		alarm(ENDS_PATIENCE_S);
		ending_wait(ends, port);
		half = halves;
		last_step = step;
		work(context);
		_exit(0);
	}
	assert_true(child > 0);
	close(ends[0]);
	return (struct ending){ child, ends[1] };
}

/* It works, and ends. false: before that step. Any other end fails the test. */
static bool ending_come(struct ending *e, uint16_t port, const char *when)
{
	int status;
	assert_int_equal(write(e->go, &port, sizeof port), (ssize_t)sizeof port);
	close(e->go);
	assert_int_equal(waitpid(e->pid, &status, 0), e->pid);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != ENDED))
		fail_msg("%s: status %#x", when, (unsigned)status);
	return WEXITSTATUS(status) == ENDED;
}

#endif

/* fs_hands.h: a second process that touches the mount for a test, since the process that serves it must not: a thread
 * waiting for itself cannot even be killed. Forked before any thread exists.
 *
 * The test hands over a function and its argument; both are the same program, so a pointer is enough. Included once, by
 * the test itself. */
#ifndef MF_TESTS_FS_HANDS_H
#define MF_TESTS_FS_HANDS_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define HANDS_MAX (192 * 1024)

/* result: what the system call said, or -errno; data: what else there is to tell */
struct hands_answer { int64_t result; size_t len; char data[HANDS_MAX]; };
typedef int64_t hands_work(const char *argument, char *data, size_t *ret_len);

struct hands_request { hands_work *work; char argument[4096]; };

static int hands_fd = -1;
static pid_t hands_pid;

static void hands_full_write(int fd, const void *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = write(fd, (const char *)data + at, len - at);
		if (n <= 0)
			_exit(9);
		at += (size_t)n;
	}
}

static bool hands_full_read(int fd, void *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = read(fd, (char *)data + at, len - at);
		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

static void hands_serve(int fd)
{
	static struct hands_request request;
	static struct hands_answer answer;
	while (hands_full_read(fd, &request, sizeof request)) {
		answer.len = 0;
		errno = 0;
		answer.result = request.work(request.argument, answer.data, &answer.len);
		hands_full_write(fd, &answer, offsetof(struct hands_answer, data) + answer.len);
	}
	_exit(0);
}

static void hands_start(void)
{
	int fds[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
		abort();
	hands_pid = fork();
	if (hands_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		hands_serve(fds[1]);
	}
	close(fds[1]);
	hands_fd = fds[0];
}

static void hands_stop(void)
{
	close(hands_fd);
	waitpid(hands_pid, NULL, 0);
}

static void hands_begin(hands_work *work, const char *argument)
{
	static struct hands_request request;
	request.work = work;
	snprintf(request.argument, sizeof request.argument, "%s", argument);
	hands_full_write(hands_fd, &request, sizeof request);
}

/* the last answer stays until the next call */
static struct hands_answer hands_last;

static int64_t hands_end(void)
{
	if (!hands_full_read(hands_fd, &hands_last, offsetof(struct hands_answer, data)) ||
	    !hands_full_read(hands_fd, hands_last.data, hands_last.len)) {
		fprintf(stderr, "the process that touches the mount has died\n");
		abort();
	}
	return hands_last.result;
}

static int64_t hands(hands_work *work, const char *argument)
{
	hands_begin(work, argument);
	return hands_end();
}

/* --- the watchdog: rather than hang, the connections of this test's mounts are aborted -------------------------------- */

static int watchdog_fd = -1;
static pid_t watchdog_pid;

static void watchdog_abort(const char *below)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	while (file && fgets(line, sizeof line, file)) {
		unsigned minor;
		char point[2048], path[128];
		if (sscanf(line, "%*d %*d %*u:%u %*s %2047s", &minor, point) != 2 || strncmp(point, below, strlen(below)) != 0)
			continue;
		snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", minor);
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		fprintf(stderr, "watchdog: aborting %s: %s\n", point, fd >= 0 && write(fd, "1", 1) == 1 ? "done" : strerror(errno));
		if (fd >= 0)
			close(fd);
	}
	if (file)
		fclose(file);
}

/* below: the folder that holds this test's mounts. After the abort the test has a few seconds to fail by itself. */
static void watchdog_start(const char *below, int seconds)
{
	int fds[2];
	if (pipe2(fds, O_CLOEXEC) != 0)
		abort();
	pid_t test = getpid();
	watchdog_pid = fork();
	if (watchdog_pid == 0) {
		close(fds[1]);
		struct pollfd over = { .fd = fds[0], .events = POLLIN };
		if (poll(&over, 1, seconds * 1000) == 0) {
			fprintf(stderr, "watchdog: %d seconds are over\n", seconds);
			watchdog_abort(below);
			if (poll(&over, 1, 10000) == 0)
				kill(test, SIGKILL);
		}
		_exit(0);
	}
	close(fds[0]);
	watchdog_fd = fds[1];
	if (access("/sys/fs/fuse/connections", F_OK) == 0 && geteuid() == 0 && mount("none", "/sys/fs/fuse/connections", "fusectl", 0, NULL) != 0 && errno != EBUSY)
		fprintf(stderr, "no fusectl: a hanging mount cannot be aborted (%s)\n", strerror(errno));
}

static void watchdog_stop(void)
{
	close(watchdog_fd);
	waitpid(watchdog_pid, NULL, 0);
}

#endif

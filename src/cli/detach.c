#include "cli/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"

/* What goes through the pipe are lines: "W text", "E code text", "R". */

static void send_line(struct detach *d, const char *line)
{
	size_t len = strlen(line);
	/* a line is shorter than PIPE_BUF, so it is written whole; a parent that is gone needs no news */
	(void)!write(d->fd, line, len);
}

static void print_warning(const char *text)
{
	char shown[512];
	fprintf(stderr, "mailfs: warning: %s\n", mf_printable(shown, sizeof shown, text, strlen(text)));
}

/* true: that was the last line */
static bool take_line(const char *line, enum exit_code *ret_exit)
{
	char *text;
	switch (line[0]) {
	case 'W':
		print_warning(line + 2);
		return false;
	case 'R':
		*ret_exit = EXIT_OK;
		return true;
	default:
		*ret_exit = (enum exit_code)strtol(line + 2, &text, 10);
		cli_fail(*ret_exit, "%s", *text ? text + 1 : "");
		return true;
	}
}

static enum exit_code listen_to_child(int fd, pid_t child)
{
	FILE *pipe_end = fdopen(fd, "r");
	char *line = NULL;
	size_t size = 0;
	enum exit_code code = EXIT_BACKGROUND;
	bool told = false;
	for (ssize_t len; !told && pipe_end && (len = getline(&line, &size, pipe_end)) > 0;) {
		line[len - 1] = 0;
		told = take_line(line, &code);
	}
	free(line);
	if (told && code == EXIT_OK)
		return code;
	/* what it holds is free when it has ended: whoever tries again finds nothing in the way */
	int status = 0;
	pid_t ended = waitpid(child, &status, 0);
	if (told)
		return code;
	if (ended == child && WIFSIGNALED(status))
		return cli_fail(EXIT_BACKGROUND, "the process in the background was ended by signal %d before it had mounted", WTERMSIG(status));
	return cli_fail(EXIT_BACKGROUND, "the process in the background ended before it had mounted; the system's log may say why");
}

bool detach_begin(struct detach *d, bool foreground, enum exit_code *ret_exit)
{
	*d = (struct detach){ .fd = -1, .foreground = foreground };
	if (foreground)
		return true;
	int ends[2];
	pid_t parent = getpid(), child = pipe2(ends, O_CLOEXEC) ? -1 : fork();
	if (child < 0) {
		*ret_exit = cli_fail(EXIT_BACKGROUND, "cannot start a process in the background: %s", strerror(errno));
		return false;
	}
	if (child) {
		close(ends[1]);
		*ret_exit = listen_to_child(ends[0], child);
		return false;
	}
	close(ends[0]);
	d->fd = ends[1];
	/* ^C at the terminal ends both: nothing is mounted yet */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_BACKGROUND);
	return true;
}

void detach_warn(struct detach *d, const char *format, ...)
{
	char text[512], line[600];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (d->fd < 0) {
		log_warning("%s", text);
		return;
	}
	snprintf(line, sizeof line, "W %s\n", text);
	send_line(d, line);
}

enum exit_code detach_fail(struct detach *d, enum exit_code code, const char *reason)
{
	if (d->fd < 0)
		return d->foreground ? cli_fail(code, "%s", reason) : code;
	char line[600];
	snprintf(line, sizeof line, "E %d %s\n", code, reason);
	send_line(d, line);
	mf_close(&d->fd);
	return code;
}

void detach_ready(struct detach *d)
{
	if (d->foreground || d->fd < 0)
		return;
	prctl(PR_SET_PDEATHSIG, 0);
	setsid(); /* cannot fail: a child is no group leader */
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (chdir("/") || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		log_warning("cannot leave the terminal: %s", strerror(errno));
	mf_close(&null);
	send_line(d, "R\n");
	mf_close(&d->fd);
}

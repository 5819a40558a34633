#include "cli/password.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/mem.h"

#define PASSWORD_MAX 4096    /* OAuth tokens are long */

/* What arrives while the echo is off is acted on when it is on again. */
static const int held[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU };
#define HELD (sizeof held / sizeof *held)
static volatile sig_atomic_t caught;

static void catch(int number)
{
	caught = number;
}

static void hold_signals(struct sigaction old[static HELD])
{
	struct sigaction action = { .sa_handler = catch }; /* no SA_RESTART: the read has to end */
	sigemptyset(&action.sa_mask);
	caught = 0;
	for (size_t i = 0; i < HELD; i++)
		sigaction(held[i], &action, &old[i]);
}

static void release_signals(const struct sigaction old[static HELD])
{
	for (size_t i = 0; i < HELD; i++)
		sigaction(held[i], &old[i], NULL);
	if (caught)
		raise(caught);
}

/* One line, without its newline, byte by byte so that nothing behind it is taken. */
static enum mf_err read_line(int fd, char line[static PASSWORD_MAX])
{
	size_t len = 0;
	while (len + 1 < PASSWORD_MAX) {
		ssize_t n = read(fd, line + len, 1);
		if (n < 0 && errno == EINTR && !caught)
			continue;
		if (n < 0 && !caught)
			return MF_IO;
		if (n <= 0)
			return MF_CANCELLED;
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = 0;
	return len ? MF_OK : MF_CANCELLED;
}

/* asks once; the terminal is as it was when this returns */
static enum mf_err ask(int fd, const char *label, char line[static PASSWORD_MAX])
{
	struct termios before, silent;
	if (tcgetattr(fd, &before))
		return MF_UNSUPPORTED;
	silent = before;
	silent.c_lflag &= ~(tcflag_t)(ECHO | ECHONL);
	struct sigaction old[HELD];
	hold_signals(old);
	enum mf_err e = tcsetattr(fd, TCSAFLUSH, &silent) ? MF_IO : MF_OK;
	if (!e && write(fd, label, strlen(label)) < 0)
		e = MF_IO;
	if (!e)
		e = read_line(fd, line);
	int saved = errno;
	(void)tcsetattr(fd, TCSAFLUSH, &before);
	(void)!write(fd, "\n", 1);
	release_signals(old);
	errno = saved;
	return e;
}

enum mf_err password_ask(const char *label, char **ret)
{
	MF_CLEANUP(mf_close) int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return MF_UNSUPPORTED;
	char line[PASSWORD_MAX];
	enum mf_err e;
	do
		e = ask(fd, label, line);
	while (e == MF_CANCELLED && (caught == SIGTSTP || caught == SIGTTIN || caught == SIGTTOU)); /* back from a stop */
	if (!e)
		*ret = mf_strdup(line);
	explicit_bzero(line, sizeof line);
	return e;
}

void password_free(char *password)
{
	if (password)
		explicit_bzero(password, strlen(password));
	free(password);
}

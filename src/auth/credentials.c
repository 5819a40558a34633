#include "auth/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define SECRET_MAX 65536  /* tokens are long */
#define GIVEN_MAX 8

struct credentials {
	_Atomic unsigned owners;
	char *user, *command;
	pthread_mutex_t lock;  /* over everything below; held while the command runs, so that it runs once for all */
	char *secret;          /* a page of its own, kept out of core files; NULL: not known yet */
	bool rerun;            /* the command has been run again since the last success */
	unsigned generation;   /* how often the secret was learnt */
	/* Which one a thread was given last: connections are refused at the same time when a token expires, and the second
	 * refusal says nothing about the token that the first one has fetched. */
	struct { pthread_t thread; unsigned generation; } given[GIVEN_MAX];
	unsigned given_next;
};

static char *secret_alloc(void)
{
	void *page = mmap(NULL, SECRET_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		abort();
	(void)madvise(page, SECRET_MAX, MADV_DONTDUMP);
	return page;
}

static void secret_free(char *secret)
{
	if (!secret)
		return;
	explicit_bzero(secret, SECRET_MAX);
	munmap(secret, SECRET_MAX);
}

struct credentials *credentials_create(const char *user, const char *password, const char *command)
{
	struct credentials *c = MF_NEW(struct credentials);
	c->owners = 1;
	c->user = mf_strdup(user ? user : "");
	c->command = command && !password ? mf_strdup(command) : NULL;
	pthread_mutex_init(&c->lock, NULL);
	if (password) {
		c->secret = secret_alloc();
		strncpy(c->secret, password, SECRET_MAX - 1);
	}
	return c;
}

struct credentials *credentials_share(struct credentials *c)
{
	if (c)
		c->owners++;
	return c;
}

void credentials_destroy(struct credentials *c)
{
	if (!c || --c->owners)
		return;
	secret_free(c->secret);
	pthread_mutex_destroy(&c->lock);
	free(c->user);
	free(c->command);
	free(c);
}

const char *credentials_user(const struct credentials *c)
{
	return c->user;
}

void credentials_release(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* --- the command --------------------------------------------------------------------------------------------------- */

#define RUNNING_MAX 16
static _Atomic pid_t running[RUNNING_MAX];   /* one for each of its process groups; 0: free */

/* Where there is no room left the command runs all the same, and only credentials_end_commands() misses it. */
static void note_running(pid_t pid)
{
	pid_t none = 0;
	for (size_t i = 0; i < RUNNING_MAX && !atomic_compare_exchange_strong(&running[i], &none, pid); i++)
		none = 0;
}

static void forget_running(pid_t pid)
{
	for (size_t i = 0; i < RUNNING_MAX; i++) {
		pid_t own = pid;
		(void)atomic_compare_exchange_strong(&running[i], &own, 0);
	}
}

void credentials_end_commands(void)
{
	for (size_t i = 0; i < RUNNING_MAX; i++)
		if (running[i])
			kill(-running[i], SIGTERM);
}

/* The child: /bin/sh -c COMMAND in a process group of its own, reading nothing, writing to the pipe. */
static int spawn(const char *command, int out, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, defaults;
	sigemptyset(&none);
	sigemptyset(&defaults);
	sigaddset(&defaults, SIGPIPE);
	sigaddset(&defaults, SIGUSR1);
	sigaddset(&defaults, SIGXFSZ);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &defaults);
	char *text = mf_strdup(command), shell[] = "sh", option[] = "-c";
	char *arguments[] = { shell, option, text, NULL };
	int rc = posix_spawn(ret, "/bin/sh", &actions, &attributes, arguments, environ);
	free(text);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return rc;
}

struct run {
	int fd;
	int64_t until_ms;
	struct cancel *cancel;
	char *to;       /* SECRET_MAX bytes */
	size_t len;
};

/* Waits for output. MF_OK: there is some, or its end. */
static enum mf_err wait_output(const struct run *r, int fd)
{
	for (;;) {
		int64_t left = r->until_ms - clock_mono_ms();
		if (r->cancel && cancel_is_raised(r->cancel))
			return MF_CANCELLED;
		if (left <= 0)
			return MF_TIMEOUT;
		struct pollfd fds[2] = { { .fd = fd, .events = POLLIN }, { .fd = r->cancel ? r->cancel->fd : -1, .events = POLLIN } };
		int n = poll(fds, 2, left > 60000 ? 60000 : (int)left);
		if (n < 0 && errno != EINTR)
			return MF_IO;
		if (n > 0 && fds[0].revents)
			return MF_OK;
	}
}

static enum mf_err read_output(struct run *r)
{
	for (;;) {
		enum mf_err e = wait_output(r, r->fd);
		if (e)
			return e;
		char beyond[256]; /* only the first line counts, but the command shall not die of a full pipe */
		bool full = r->len == SECRET_MAX - 1;
		ssize_t n = read(r->fd, full ? beyond : r->to + r->len, full ? sizeof beyond : SECRET_MAX - 1 - r->len);
		explicit_bzero(beyond, sizeof beyond);
		if (n == 0)
			return MF_OK;
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return MF_IO;
		if (n > 0 && !full)
			r->len += (size_t)n;
	}
}

/* Its output has ended: so should it. Only its own process group is ever signalled. */
static enum mf_err reap(const struct run *r, pid_t pid, bool finish, int *ret_status)
{
	if (!finish)
		kill(-pid, SIGTERM);
	for (int64_t nap_ms = 1;; nap_ms = nap_ms < 50 ? nap_ms * 2 : 50) {
		pid_t got = waitpid(pid, ret_status, WNOHANG);
		if (got == pid || (got < 0 && errno != EINTR))
			return got == pid ? MF_OK : MF_IO;
		if (!finish || clock_mono_ms() >= r->until_ms || (r->cancel && cancel_is_raised(r->cancel))) {
			kill(-pid, SIGKILL);
			while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
				;
			return MF_TIMEOUT;
		}
		nanosleep(&(struct timespec){ .tv_nsec = nap_ms * 1000000 }, NULL);
	}
}

static enum mf_err judge(const char *secret, enum mf_err e, int status, struct mf_reason *why)
{
	if (e == MF_CANCELLED)
		return mf_fail(why, e, "password-command: interrupted");
	if (e == MF_TIMEOUT)
		return mf_fail(why, MF_AUTH, "password-command did not end in time");
	if (e)
		return mf_fail(why, MF_AUTH, "password-command cannot be run");
	if (WIFSIGNALED(status))
		return mf_fail(why, MF_AUTH, "password-command was ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status))
		return mf_fail(why, MF_AUTH, "password-command failed with status %d", WEXITSTATUS(status));
	return *secret ? MF_OK : mf_fail(why, MF_AUTH, "password-command printed nothing");
}

static enum mf_err run_command(struct credentials *c, int64_t timeout_ms, struct cancel *cancel, struct mf_reason *why)
{
	int pipes[2], status = 0;
	pid_t pid;
	if (pipe2(pipes, O_CLOEXEC))
		return mf_fail(why, MF_IO, "password-command: %s", strerror(errno));
	int rc = spawn(c->command, pipes[1], &pid);
	close(pipes[1]);
	if (rc) {
		close(pipes[0]);
		return mf_fail(why, MF_AUTH, "password-command: %s", strerror(rc));
	}
	note_running(pid);
	struct run run = { .fd = pipes[0], .until_ms = clock_mono_ms() + timeout_ms, .cancel = cancel, .to = secret_alloc() };
	enum mf_err e = read_output(&run), reaped = reap(&run, pid, e == MF_OK, &status);
	forget_running(pid);
	close(pipes[0]);
	run.to[strcspn(run.to, "\r\n")] = 0;
	e = judge(run.to, e ? e : reaped, status, why);
	if (e) {
		secret_free(run.to);
		return e;
	}
	secret_free(c->secret);
	c->secret = run.to;
	c->generation++;
	return MF_OK;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

enum mf_err credentials_acquire(struct credentials *c, int64_t timeout_ms, struct cancel *cancel, char **ret_secret, struct mf_reason *why)
{
	pthread_mutex_lock(&c->lock);
	enum mf_err e = MF_OK;
	if (!c->secret)
		e = c->command ? run_command(c, timeout_ms, cancel, why) : mf_fail(why, MF_AUTH, "no password is set");
	if (!e) {
		*ret_secret = mf_strdup(c->secret);
		c->given[c->given_next].thread = pthread_self();
		c->given[c->given_next].generation = c->generation;
		c->given_next = (c->given_next + 1) % GIVEN_MAX;
	}
	pthread_mutex_unlock(&c->lock);
	return e;
}

/* whether the calling thread speaks of a secret that has been replaced since */
static bool is_old(const struct credentials *c)
{
	for (unsigned i = 1; i <= GIVEN_MAX; i++) {
		unsigned at = (c->given_next + GIVEN_MAX - i) % GIVEN_MAX;
		if (c->given[at].generation && pthread_equal(c->given[at].thread, pthread_self()))
			return c->secret ? c->given[at].generation != c->generation : false;
	}
	return false;
}

bool credentials_rejected(struct credentials *c)
{
	pthread_mutex_lock(&c->lock);
	bool old = is_old(c), again = old || (c->command && !c->rerun);
	if (c->command && !old) {
		secret_free(c->secret);
		c->secret = NULL;
		c->rerun = true;
	}
	pthread_mutex_unlock(&c->lock);
	return again;
}

void credentials_accepted(struct credentials *c)
{
	pthread_mutex_lock(&c->lock);
	c->rerun = false;
	pthread_mutex_unlock(&c->lock);
}

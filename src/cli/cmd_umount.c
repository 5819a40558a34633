/* umount: unmounts, and waits until the process that served the mount has ended, so that what comes next finds the
 * accounts free. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"
#include "fs/mountinfo.h"
#include "control/client.h"
#include "control/json.h"
#include "control/paths.h"

#define END_MS 30000    /* how long the process may take to end */

/* The process that serves this mount. */
struct holder {
	const char *mountpoint;
	char *account;          /* one that it holds; NULL: nobody answered for this mount */
	pid_t pid;
};

static bool take_ping(void *context, const char *json)
{
	struct holder *h = context;
	struct json_object *o = json_parse_line(json), *ping;
	if (o && json_object_object_get_ex(o, "ping", &ping)) {
		const char *mountpoint = json_get_string(ping, "mountpoint"), *account = json_get_string(ping, "account");
		if (mountpoint && account && !strcmp(mountpoint, h->mountpoint)) {
			h->account = mf_strdup(account);
			h->pid = (pid_t)json_get_number(ping, "pid");
		}
	}
	json_object_put(o);
	return true;
}

static void find_holder(struct holder *h)
{
	char **running = path_running_accounts();
	for (size_t i = 0; running[i] && !h->account; i++) {
		int code;
		/* who does not answer is not the one */
		(void)control_ask(running[i], "ping", take_ping, h, &code, NULL);
	}
	path_list_destroy(running);
}

/* --- unmounting ---------------------------------------------------------------------------------------------------- */

/* fusermount3 -u [-z] -- MOUNTPOINT; what it says on standard error goes into text. MF_UNSUPPORTED: there is none. */
static enum mf_err run_fusermount(const char *mountpoint, bool lazy, char *text, size_t size)
{
	int ends[2];
	text[0] = 0;
	if (pipe2(ends, 0))
		return MF_IO;
	char program[] = "fusermount3", flag[] = "-u", flag_lazy[] = "-uz", dashes[] = "--";
	MF_CLEANUP(mf_free) char *place = mf_strdup(mountpoint);
	char *argv[] = { program, lazy ? flag_lazy : flag, dashes, place, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addclose(&actions, ends[0]);
	posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
	pid_t child;
	int failure = posix_spawnp(&child, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(ends[1]);
	size_t len = 0;
	for (ssize_t n; !failure && len + 1 < size && (n = read(ends[0], text + len, size - 1 - len)) > 0;)
		len += (size_t)n;
	text[len] = 0;
	close(ends[0]);
	int status = 0;
	if (failure)
		return failure == ENOENT ? MF_UNSUPPORTED : MF_IO;
	return waitpid(child, &status, 0) == child && WIFEXITED(status) && !WEXITSTATUS(status) ? MF_OK : MF_DENIED;
}

static enum exit_code busy(const char *mountpoint)
{
	return cli_fail(EXIT_BUSY, "%s is in use; \"fuser -vm %s\" shows by whom, \"mailfs umount --lazy %s\" unmounts all the same", mountpoint,
	                mountpoint, mountpoint);
}

static enum exit_code unmount_as_root(const char *mountpoint, bool lazy)
{
	if (!umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
		return EXIT_OK;
	if (errno == EBUSY)
		return busy(mountpoint);
	return cli_fail(EXIT_MOUNT, "%s cannot be unmounted: %s", mountpoint, strerror(errno));
}

static bool nothing(void *context, const char *json)
{
	(void)context;
	(void)json;
	return true;
}

/* Without fusermount3 the process itself may still be able to. */
static enum exit_code ask_to_stop(const struct holder *h)
{
	struct mf_reason why = { "" };
	int code = EXIT_OK;
	enum mf_err e = h->account ? control_ask(h->account, "stop", nothing, NULL, &code, &why) : MF_NOT_FOUND;
	if (!e && !code)
		return EXIT_OK;
	return cli_fail(EXIT_MOUNT, "%s cannot be unmounted: %s", h->mountpoint, why.text[0] ? why.text : "fusermount3 is not installed");
}

static enum exit_code unmount(const struct holder *h, bool lazy)
{
	if (!geteuid())
		return unmount_as_root(h->mountpoint, lazy);
	char text[512];
	enum mf_err e = run_fusermount(h->mountpoint, lazy, text, sizeof text);
	if (!e)
		return EXIT_OK;
	if (e == MF_UNSUPPORTED)
		return ask_to_stop(h);
	if (strcasestr(text, "busy"))
		return busy(h->mountpoint);
	text[strcspn(text, "\n")] = 0;
	return cli_fail(EXIT_MOUNT, "%s cannot be unmounted: %s", h->mountpoint, text[0] ? text : "fusermount3 gave no reason");
}

/* --- waiting ------------------------------------------------------------------------------------------------------- */

static enum exit_code await_end(const struct holder *h, int process)
{
	struct pollfd ended = { .fd = process, .events = POLLIN };
	if (process < 0 || poll(&ended, 1, END_MS) > 0)
		return EXIT_OK;
	return cli_fail(EXIT_TIMEOUT, "%s is unmounted, but its process %jd has not ended in %d s", h->mountpoint, (intmax_t)h->pid, END_MS / 1000);
}

static enum exit_code umount_at(const char *mountpoint, bool lazy)
{
	struct holder h = { .mountpoint = mountpoint };
	bool mounted = mountinfo_is_mailfs(mountpoint);
	find_holder(&h);
	if (!mounted && !h.account)
		return cli_fail(EXIT_NOT_FOUND, "no mailfs is mounted at %s", mountpoint);
	/* opened before, so that it cannot be another process of the same number later */
	int process = h.pid > 0 ? pidfd_open(h.pid, 0) : -1;
	enum exit_code code = mounted ? unmount(&h, lazy) : ask_to_stop(&h);
	if (!code && !lazy)
		code = await_end(&h, process);
	mf_close(&process);
	free(h.account);
	return code;
}

enum exit_code cmd_umount(struct cli *cli, const struct arguments *arguments)
{
	(void)cli;
	if (arguments->operand_count < 1)
		return cli_fail(EXIT_MOUNTPOINT, "umount: which mount? \"mailfs help umount\" explains it");
	enum exit_code code = EXIT_OK;
	for (size_t i = 0; i < arguments->operand_count; i++) {
		const char *path = arguments->operands[i];
		MF_CLEANUP(mf_free) char *mountpoint = mountinfo_resolve(path);
		enum exit_code one = mountpoint ? umount_at(mountpoint, arguments_has(arguments, "lazy"))
		                                : cli_fail(EXIT_MOUNTPOINT, "%s: %s", path, strerror(errno));
		if (!code)
			code = one;
	}
	return code;
}

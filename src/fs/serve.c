/* Serving until the mount is gone. A mount that another mount namespace still holds keeps its connection when it is
 * unmounted here, so mountinfo is watched too. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "fs/internal.h"
#include "fs/mountinfo.h"

/* Ten are enough, since nothing waits on a worker: more only take each other's turn. */
enum { WORKERS = 10, NUDGE_MS = 10 };

struct watcher {
	struct fs *fs;
	pthread_t server;        /* the thread inside fuse_session_loop_mt() */
	struct cancel ended;     /* raised when that has returned */
	pthread_t thread;
};

static void nothing(int signal)
{
	(void)signal;
}

/* libfuse's loop sleeps in sem_wait(3) and looks whether it should end when a signal wakes it. One could come between
 * its looking and its sleeping, so it is nudged until it has ended. */
static void end_loop(struct watcher *w)
{
	/* before the loop ends: a notification may wait for a directory that a request not yet answered keeps locked */
	parking_answer_all(w->fs->parking);
	notifier_stop(w->fs->notifier);
	fuse_session_exit(w->fs->session);
	struct pollfd ended = { .fd = w->ended.fd, .events = POLLIN };
	do
		pthread_kill(w->server, SIGRTMIN);
	while (poll(&ended, 1, NUDGE_MS) <= 0);
}

static void *watch(void *context)
{
	struct watcher *w = context;
	MF_CLEANUP(mf_close) int mountinfo = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	struct pollfd fds[] = {
		{ .fd = w->ended.fd, .events = POLLIN },
		{ .fd = w->fs->stop.fd, .events = POLLIN },
		{ .fd = w->fs->mount_id ? mountinfo : -1, .events = POLLPRI },
	};
	while (true) {
		/* the first look is for what happened before the file was opened */
		if (w->fs->mount_id && !mountinfo_has(w->fs->mount_id)) {
			log_info("%s has been unmounted", w->fs->real_mountpoint);
			break;
		}
		if (poll(fds, 3, -1) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			return NULL;
		if (fds[1].revents)
			break;
	}
	end_loop(w);
	return NULL;
}

/* Every message that is open and read holds a descriptor, and readers may open thousands. */
static void allow_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		log_debug("the limit of open files stays: %s", strerror(errno));
}

static int loop(struct fs *fs)
{
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	if (!config)
		return -ENOMEM;
	fuse_loop_cfg_set_clone_fd(config, 0);
	fuse_loop_cfg_set_max_threads(config, WORKERS);
	int result = fuse_session_loop_mt(fs->session, config);
	fuse_loop_cfg_destroy(config);
	return result;
}

enum mf_err fs_serve(struct fs *fs)
{
	struct watcher w = { .fs = fs, .server = pthread_self() };
	allow_descriptors();
	if (!cancel_init(&w.ended))
		return MF_IO;
	struct sigaction nudge = { .sa_handler = nothing }, before; /* no SA_RESTART: it must wake */
	sigaction(SIGRTMIN, &nudge, &before);
	sigset_t open_set, mask;
	sigemptyset(&open_set);
	sigaddset(&open_set, SIGRTMIN);
	pthread_sigmask(SIG_UNBLOCK, &open_set, &mask);

	fs->parking = parking_create();
	pthread_mutex_lock(&fs->settle_lock);
	fs->notifier = notifier_start(fs);
	pthread_mutex_unlock(&fs->settle_lock);
	if (pthread_create(&w.thread, NULL, watch, &w) != 0)
		abort();
	int result = loop(fs);
	cancel_raise(&w.ended);
	pthread_join(w.thread, NULL);

	parking_answer_all(fs->parking);
	pthread_mutex_lock(&fs->settle_lock);
	notifier_destroy(fs->notifier);
	fs->notifier = NULL;
	pthread_mutex_unlock(&fs->settle_lock);
	parking_destroy(fs->parking);
	fs->parking = NULL;
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	sigaction(SIGRTMIN, &before, NULL);
	cancel_finish(&w.ended);
	if (result != 0)
		log_error("serving %s ended: %s", fs->real_mountpoint, result < 0 ? strerror(-result) : strsignal(result));
	return result == 0 ? MF_OK : MF_IO;
}

void fs_settle(struct fs *fs)
{
	pthread_mutex_lock(&fs->settle_lock);
	if (fs->notifier)
		notifier_settle(fs->notifier);
	pthread_mutex_unlock(&fs->settle_lock);
}

void fs_stop(struct fs *fs)
{
	cancel_raise(&fs->stop);
}

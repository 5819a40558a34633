/* fs_world.h: a mounted account with the memory back-end, in a folder of its own. Included once, by the test itself. */
#ifndef MF_TESTS_FS_WORLD_H
#define MF_TESTS_FS_WORLD_H

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/eventlog.h"
#include "fs/fs.h"
#include "support/fs_works.h"
#include "sync/memory.h"

enum { WORLD_WAIT_MS = 20000 };

struct world {
	char dir[64], state[80], bodies[80], point[80];
	struct memory_server *server;
	struct bus *bus;
	struct cache *cache;
	struct account_config *config;
	struct account *account;
	struct eventlog *events;
	struct control control;
	struct fs *fs;
	pthread_t thread;
	sem_t ready;
	enum mf_err served;
	bool account_is_root, read_only;
	bool mark_seen;                  /* mark-seen = read */
	unsigned caps;                   /* 0: all */
};

static void world_fail(const char *what, const struct mf_reason *why)
{
	fail_msg("%s: %s", what, why->text);
}

static void world_ready(void *context)
{
	struct world *w = context;
	sem_post(&w->ready);
}

static void *world_serve(void *context)
{
	struct world *w = context;
	w->served = fs_serve(w->fs);
	return NULL;
}

/* every mount gets a process-wide working session first: what a `mount` command waits for */
static void world_mount(struct world *w)
{
	struct mf_reason why = { 0 };
	struct fs_options options = { .mountpoint = w->point, .source = "me@memory", .accounts = &w->account, .account_count = 1,
		.account_is_root = w->account_is_root, .control = &w->control, .events = w->events, .bus = w->bus, .cache_dir = w->bodies,
		.nomedia = true, .read_only = w->read_only, .uid = getuid(), .gid = getgid(), .umask = 077, .on_ready = world_ready, .ready_context = w };
	if (fs_mount(&options, &w->fs, &why) != MF_OK)
		world_fail("fs_mount", &why);
	assert_int_equal(pthread_create(&w->thread, NULL, world_serve, w), 0);
	sem_wait(&w->ready);
}

static void world_join(struct world *w)
{
	pthread_join(w->thread, NULL);
	assert_int_equal(w->served, MF_OK);
	fs_destroy(w->fs);
	w->fs = NULL;
}

static void world_unmount(struct world *w)
{
	fs_stop(w->fs);
	world_join(w);
}

static void world_open(struct world *w)
{
	struct mf_reason why = { 0 };
	w->bus = bus_create();
	struct cache_options cache_options = { .state_dir = w->state, .cache_dir = w->bodies, .identity = "memory", .bus = w->bus };
	if (cache_open(&cache_options, &w->cache, &why) != MF_OK)
		world_fail("cache_open", &why);
	w->config = account_config_create("work");
	w->config->mark_seen_on_read = w->mark_seen;
	struct account_options options = { .config = w->config, .cache = w->cache, .bus = w->bus, .make_remote = memory_remote_make, .make_context = w->server };
	if (account_create(&options, &w->account, &why) != MF_OK)
		world_fail("account_create", &why);
	w->events = eventlog_create(w->bus, &w->account, 1, 1 << 20);
	w->control = (struct control){ .accounts = &w->account, .count = 1, .events = w->events };
	account_start(w->account);
	if (account_wait_listed(w->account, WORLD_WAIT_MS, &why) != MF_OK)
		world_fail("account_wait_listed", &why);
}

static void world_close(struct world *w)
{
	control_finish(&w->control);
	eventlog_destroy(w->events);
	account_destroy(w->account);
	account_config_destroy(w->config);
	cache_close(w->cache);
	bus_destroy(w->bus);
}

/* fill: puts mail onto the server before anybody looks; may be NULL */
static void world_start_as(struct world *w, void (*fill)(struct memory_server *server), bool read_only)
{
	static int count;
	*w = (struct world){ .account_is_root = true, .read_only = read_only };
	snprintf(w->dir, sizeof w->dir, "%s/world%d", world_root, count++);
	snprintf(w->state, sizeof w->state, "%s/state", w->dir);
	snprintf(w->bodies, sizeof w->bodies, "%s/cache", w->dir);
	snprintf(w->point, sizeof w->point, "%s/mount", w->dir);
	assert_int_equal(mkdir(w->dir, 0700), 0);
	assert_int_equal(mkdir(w->point, 0700), 0);
	sem_init(&w->ready, 0, 0);
	w->server = memory_server_create();
	if (fill)
		fill(w->server);
	world_open(w);
	world_mount(w);
}

static void world_start(struct world *w, void (*fill)(struct memory_server *server))
{
	world_start_as(w, fill, false);
}

static void world_finish(struct world *w)
{
	if (w->fs)
		world_unmount(w);
	world_close(w);
	memory_server_destroy(w->server);
	sem_destroy(&w->ready);
}

/* what failed tests left mounted */
static void world_sweep(void)
{
	for (int i = 0; i < 100; i++) {
		char point[128];
		snprintf(point, sizeof point, "%s/world%d/mount", world_root, i);
		umount2(point, MNT_DETACH);
	}
	char command[128];
	snprintf(command, sizeof command, "rm -rf --one-file-system %s", world_root);
	if (system(command) != 0)
		fprintf(stderr, "%s is left\n", world_root);
}

/* a path in the mount; good for the next few calls */
static const char *world_path(const struct world *w, const char *below)
{
	static char paths[8][2048];
	static unsigned next;
	char *path = paths[next++ % 8];
	snprintf(path, sizeof paths[0], "%s/%.1500s", w->point, below);
	return path;
}

/* waits for a condition, never for a time */
#define world_until(condition) \
	do { \
		int64_t until_ = clock_mono_ms() + WORLD_WAIT_MS; \
		while (!(condition)) { \
			if (clock_mono_ms() > until_) \
				fail_msg("never came true: %s", #condition); \
			nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL); \
		} \
	} while (0)

/* --- a program of such tests ------------------------------------------------------------------------------------------ */

/* One argument: only tests whose name matches; MAILFS_TRACE: what is traced. false: there is no FUSE here, which has been said. */
static bool world_begin(int argc, char **argv)
{
	const char *unknown;
	if (access("/dev/fuse", R_OK | W_OK) != 0) {
		printf("1..0 # SKIP /dev/fuse: %s\n", strerror(errno));
		return false;
	}
	if (!mkdtemp(world_root)) {
		perror(world_root);
		exit(1);
	}
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	if (getenv("MAILFS_TRACE"))
		trace_enable(getenv("MAILFS_TRACE"), &unknown);
	watchdog_start(world_root, 240);
	hands_start();
	return true;
}

static void world_end(void)
{
	hands_stop();
	watchdog_stop();
	world_sweep();
}

#endif

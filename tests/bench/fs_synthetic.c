/* fs_synthetic [MESSAGES [BODIES [RUNS]]]: the mount against the file system below TMPDIR, same names, everything on one
 * CPU, the smallest of RUNS times, taken in turns. No server: the index is filled here.
 *
 *   warm     everything the kernel may keep is kept
 *   dropped  dentries and inodes dropped before each run (needs root)
 *
 * Prints one line per work: milliseconds here, milliseconds there, the ratio. Needs /dev/fuse. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "fs/fs.h"
#include "sync/memory.h"

enum { BATCH = 500, BODY_SIZE = 9000 };

static unsigned messages = 100000, bodies = 10000, runs = 5;
static char root[256], mailbox_path[512], plain_path[512], bodies_path[512], plain_bodies_path[512];

static void die(const char *what)
{
	fprintf(stderr, "fs_synthetic: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void check(enum mf_err err, const char *what, const struct mf_reason *why)
{
	if (err == MF_OK)
		return;
	fprintf(stderr, "fs_synthetic: %s: %s %s\n", what, mf_err_words(err), why ? why->text : "");
	exit(1);
}

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void pin(void)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET((size_t)sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0)
		die("sched_setaffinity");
}

/* --- the process behind the mount ------------------------------------------------------------------------------------ */

static uint64_t add_mailbox(struct cache *cache, const char *name)
{
	struct txn *t;
	uint64_t id;
	struct mailbox_said said = { .raw = name, .delimiter = '/' };
	check(cache_begin(cache, &t), "begin", NULL);
	check(txn_mailbox_said(t, &said, &id), "mailbox", NULL);
	check(txn_commit(t), "commit", NULL);
	return id;
}

static void add_messages(struct cache *cache, uint64_t mailbox, unsigned count, bool with_bodies)
{
	MF_CLEANUP(mf_free) char *text = mf_alloc_array(BODY_SIZE, 1);
	MF_CLEANUP(mf_free) uint64_t *ids = mf_alloc_array(BATCH, sizeof *ids);
	memset(text, 'm', BODY_SIZE);
	for (unsigned uid = 1; uid <= count;) {
		struct txn *t;
		unsigned first = uid, n = 0;
		check(cache_begin(cache, &t), "begin", NULL);
		for (; uid <= count && n < BATCH; uid++, n++) {
			char header[256];
			struct mail_summary summary;
			int len = snprintf(header, sizeof header, "Date: Thu, 19 Nov 2026 12:%02u:%02u +0000\r\nFrom: Alice Example <alice@example.org>\r\n"
				"Subject: Re: Q3 budget, number %u\r\nMessage-ID: <%u.%llu@example.org>\r\n\r\n", uid / 60 % 60, uid % 60, uid, uid, (unsigned long long)mailbox);
			mail_summary_parse(header, (size_t)len, BODY_SIZE, &summary);
			struct message_put put = { .mailbox = mailbox, .uid = uid, .size = BODY_SIZE, .internal_date = 1795000000 + uid, .keywords = "", .summary = &summary };
			check(txn_message_put(t, &put, &ids[n]), "message", NULL);
			mail_summary_finish(&summary);
		}
		if (uid > count)
			check(txn_mailbox_synced(t, mailbox, true, 1, count + 1, 0, 0, false), "synced", NULL);
		check(txn_commit(t), "commit", NULL);
		for (unsigned i = 0; with_bodies && first + i < uid; i++) {
			struct body *b;
			check(cache_body_create(cache, ids[i], BODY_SIZE, &b), "body", NULL);
			check(body_write(b, 0, text, BODY_SIZE), "body_write", NULL);
			check(body_finish(b, BODY_SIZE), "body_finish", NULL);
			body_unref(b);
		}
	}
}

static void ready(void *context)
{
	int *fd = context;
	(void)!write(*fd, "r", 1);
}

static int serve(int report)
{
	char state[300], bodies_dir[300], point[300];
	snprintf(state, sizeof state, "%s/state", root);
	snprintf(bodies_dir, sizeof bodies_dir, "%s/cache", root);
	snprintf(point, sizeof point, "%s/mount", root);
	struct mf_reason why = { 0 };
	struct bus *bus = bus_create();
	struct cache *cache;
	struct cache_options cache_options = { .state_dir = state, .cache_dir = bodies_dir, .identity = "bench", .bus = bus };
	check(cache_open(&cache_options, &cache, &why), "cache", &why);
	add_messages(cache, add_mailbox(cache, "Many"), messages, false);
	add_messages(cache, add_mailbox(cache, "Read"), bodies, true);
	struct account_config *config = account_config_create("bench");
	struct account *account;
	struct memory_server *nobody = memory_server_create(); /* never asked: the account is offline */
	struct account_options account_options = { .config = config, .cache = cache, .bus = bus, .offline = true,
		.make_remote = memory_remote_make, .make_context = nobody };
	check(account_create(&account_options, &account, &why), "account", &why);
	struct fs_options options = { .mountpoint = point, .source = "bench", .accounts = &account, .account_count = 1, .account_is_root = true,
		.bus = bus, .cache_dir = bodies_dir, .uid = getuid(), .gid = getgid(), .umask = 077, .on_ready = ready, .ready_context = &report };
	struct fs *fs;
	check(fs_mount(&options, &fs, &why), "mount", &why);
	enum mf_err err = fs_serve(fs);
	fs_destroy(fs);
	account_destroy(account);
	account_config_destroy(config);
	memory_server_destroy(nobody);
	cache_close(cache);
	bus_destroy(bus);
	return err == MF_OK ? 0 : 1;
}

/* --- the same tree beside it ----------------------------------------------------------------------------------------- */

static void copy_names(const char *from, const char *to, bool content)
{
	static char text[BODY_SIZE];
	memset(text, 'm', sizeof text);
	DIR *dir = opendir(from);
	if (!dir || mkdir(to, 0700) != 0)
		die(to);
	int fd = open(to, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	const struct dirent *d;
	while ((d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		int file = openat(fd, d->d_name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (file < 0 || (content ? write(file, text, sizeof text) != (ssize_t)sizeof text : ftruncate(file, BODY_SIZE) != 0))
			die(d->d_name);
		close(file);
	}
	close(fd);
	closedir(dir);
}

/* --- works ----------------------------------------------------------------------------------------------------------- */

static void run(const char *const *argv)
{
	pid_t pid;
	posix_spawn_file_actions_t actions;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ) != 0)
		die(argv[0]);
	posix_spawn_file_actions_destroy(&actions);
	waitpid(pid, NULL, 0);
}

static void ls_l(const char *dir) { run((const char *[]){ "ls", "-l", dir, NULL }); }
static void find_name(const char *dir) { run((const char *[]){ "find", dir, "-name", "*zzz*", NULL }); }
static void find_size(const char *dir) { run((const char *[]){ "find", dir, "-size", "+1G", NULL }); }
static void grep_r(const char *dir) { run((const char *[]){ "grep", "-r", "zzz", dir, NULL }); }

static char **names;
static size_t name_count;

static void load_names(const char *dir)
{
	DIR *d = opendir(dir);
	if (!d)
		die(dir);
	names = mf_alloc_array(messages + 16, sizeof *names);
	const struct dirent *e;
	while ((e = readdir(d)) && name_count < messages + 16)
		if (e->d_name[0] != '.')
			names[name_count++] = mf_strdup(e->d_name);
	closedir(d);
}

static void stat_all(const char *dir)
{
	struct stat s;
	int fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; i < name_count; i++)
		if (fstatat(fd, names[i], &s, AT_SYMLINK_NOFOLLOW) != 0)
			die(names[i]);
	close(fd);
}

static void drop(const char *what)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, what, 1) != 1)
		die("drop_caches");
	close(fd);
}

static int64_t once(void (*work)(const char *), const char *dir, bool dropped)
{
	if (dropped)
		drop("2");
	int64_t from = now_us();
	work(dir);
	return now_us() - from;
}

static void compare(const char *what, void (*work)(const char *), const char *ours, const char *theirs, bool dropped)
{
	int64_t best_ours = INT64_MAX, best_theirs = INT64_MAX;
	if (!dropped) {
		work(ours);
		work(theirs);
	}
	for (unsigned i = 0; i < runs; i++) {
		int64_t a = once(work, ours, dropped), b = once(work, theirs, dropped);
		best_ours = a < best_ours ? a : best_ours;
		best_theirs = b < best_theirs ? b : best_theirs;
	}
	printf("%-8s %-14s %9.1f ms %9.1f ms %6.2f\n", dropped ? "dropped" : "warm", what, (double)best_ours / 1000, (double)best_theirs / 1000,
	       (double)best_ours / (double)best_theirs);
	fflush(stdout);
}

static void compare_all(void)
{
	bool can_drop = geteuid() == 0;
	load_names(plain_path);
	printf("%u messages, %u bodies of %d bytes, min of %u\n%-8s %-14s %12s %12s %6s\n", messages, bodies, BODY_SIZE, runs, "", "", "mailfs", "below TMPDIR", "ratio");
	for (int dropped = 0; dropped <= can_drop; dropped++) {
		compare("ls -l", ls_l, mailbox_path, plain_path, dropped);
		compare("find -name", find_name, mailbox_path, plain_path, dropped);
		compare("find -size", find_size, mailbox_path, plain_path, dropped);
		compare("stat by name", stat_all, mailbox_path, plain_path, dropped);
	}
	compare("grep -r", grep_r, bodies_path, plain_bodies_path, false);
}

static void print_memory(pid_t pid)
{
	char path[64], line[128];
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		if (strncmp(line, "VmRSS", 5) == 0 || strncmp(line, "VmHWM", 5) == 0)
			fputs(line, stdout);
	if (file)
		fclose(file);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		messages = (unsigned)atoi(argv[1]);
	if (argc > 2)
		bodies = (unsigned)atoi(argv[2]);
	if (argc > 3)
		runs = (unsigned)atoi(argv[3]);
	const char *tmp = getenv("TMPDIR");
	snprintf(root, sizeof root, "%.200s/mailfs-bench-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(root))
		die("mkdtemp");
	char point[300];
	snprintf(point, sizeof point, "%s/mount", root);
	if (mkdir(point, 0700) != 0)
		die(point);
	snprintf(mailbox_path, sizeof mailbox_path, "%s/Many", point);
	snprintf(bodies_path, sizeof bodies_path, "%s/Read", point);
	snprintf(plain_path, sizeof plain_path, "%s/plain-many", root);
	snprintf(plain_bodies_path, sizeof plain_bodies_path, "%s/plain-read", root);

	pin();
	int report[2];
	if (pipe2(report, O_CLOEXEC) != 0)
		die("pipe");
	pid_t server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(report[0]);
		_exit(serve(report[1]));
	}
	close(report[1]);
	char c;
	int result = 1;
	if (read(report[0], &c, 1) == 1) {
		copy_names(mailbox_path, plain_path, false);
		copy_names(bodies_path, plain_bodies_path, true);
		compare_all();
		print_memory(server);
		result = 0;
		run((const char *[]){ "fusermount3", "-u", point, NULL });
	}
	waitpid(server, NULL, 0);
	run((const char *[]){ "rm", "-rf", "--one-file-system", root, NULL });
	return result;
}

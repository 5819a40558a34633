/* fs_works.h: what the hands (fs_hands.h) can do with a mount. Each is one or a few system calls and tells their result. */
#ifndef MF_TESTS_FS_WORKS_H
#define MF_TESTS_FS_WORKS_H

#include <dirent.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "support/fs_hands.h"

static int64_t outcome(int64_t result) { return result < 0 ? -errno : result; }

/* names, each with a newline */
static int64_t do_list(const char *path, char *data, size_t *ret_len)
{
	DIR *dir = opendir(path);
	if (!dir)
		return -errno;
	int64_t count = 0;
	const struct dirent *d;
	errno = 0;
	while ((d = readdir(dir))) {
		*ret_len += (size_t)snprintf(data + *ret_len, HANDS_MAX - *ret_len, "%s\n", d->d_name);
		count++;
	}
	int failed = errno;
	closedir(dir);
	return failed ? -failed : count;
}

static int64_t do_count(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	DIR *dir = opendir(path);
	if (!dir)
		return -errno;
	int64_t count = 0;
	errno = 0;
	while (readdir(dir))
		count++;
	int failed = errno;
	closedir(dir);
	return failed ? -failed : count;
}

static int64_t do_read(const char *path, char *data, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n;
	while ((n = read(fd, data + *ret_len, HANDS_MAX - *ret_len)) > 0)
		*ret_len += (size_t)n;
	int failed = errno;
	close(fd);
	return n < 0 ? -failed : (int64_t)*ret_len;
}

static int64_t do_stat(const char *path, char *data, size_t *ret_len)
{
	*ret_len = sizeof(struct stat);
	return outcome(lstat(path, (struct stat *)(void *)data));
}

static int64_t do_statvfs(const char *path, char *data, size_t *ret_len)
{
	*ret_len = sizeof(struct statvfs);
	return outcome(statvfs(path, (struct statvfs *)(void *)data));
}

/* --- one file that stays open from call to call */

static int kept = -1;

static int64_t do_keep(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	kept = open(path, O_RDONLY | O_CLOEXEC);
	return outcome(kept);
}

/* from the server of the mount, not from the page cache */
static int64_t do_read_kept(const char *unused, char *data, size_t *ret_len)
{
	(void)unused;
	posix_fadvise(kept, 0, 0, POSIX_FADV_DONTNEED);
	ssize_t n = pread(kept, data, HANDS_MAX, 0);
	*ret_len = n > 0 ? (size_t)n : 0;
	return outcome(n);
}

static int64_t do_fstat_kept(const char *unused, char *data, size_t *ret_len)
{
	(void)unused;
	*ret_len = sizeof(struct stat);
	return outcome(fstat(kept, (struct stat *)(void *)data));
}

static int64_t do_close_kept(const char *unused, char *data, size_t *ret_len)
{
	(void)unused, (void)data, (void)ret_len;
	int result = close(kept);
	kept = -1;
	return outcome(result);
}

/* one getdents64(2) with a small buffer: names, each with a newline */
static int64_t do_list_more(const char *size, char *data, size_t *ret_len)
{
	char buffer[65536];
	long n = syscall(SYS_getdents64, kept, buffer, (size_t)atoi(size));
	int64_t count = 0;
	for (long at = 0; at < n; count++) {
		unsigned short step;
		memcpy(&step, buffer + at + 16, sizeof step);
		*ret_len += (size_t)snprintf(data + *ret_len, HANDS_MAX - *ret_len, "%s\n", buffer + at + 19);
		at += step;
	}
	return n < 0 ? -errno : count;
}

/* --- writing: each must fail */

static int64_t do_open_write(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int64_t result = outcome(fd);
	if (fd >= 0)
		close(fd);
	return result;
}

static int64_t do_create(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int64_t result = outcome(fd);
	if (fd >= 0)
		close(fd);
	return result;
}

static int64_t do_truncate(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(truncate(path, 0)); }
static int64_t do_unlink(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(unlink(path)); }
static int64_t do_rmdir(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(rmdir(path)); }
static int64_t do_mkdir(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(mkdir(path, 0700)); }
static int64_t do_mknod(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(mkfifo(path, 0600)); }
static int64_t do_symlink(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(symlink("x", path)); }
static int64_t do_chmod(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(chmod(path, 0777)); }
static int64_t do_chown(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(chown(path, 12345, 12345)); }
static int64_t do_touch(const char *path, char *data, size_t *ret_len) { (void)data, (void)ret_len; return outcome(utimensat(AT_FDCWD, path, NULL, 0)); }

static int64_t do_rename(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	char to[4096];
	snprintf(to, sizeof to, "%.4000s.new", path);
	return outcome(rename(path, to));
}

static int64_t do_link(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	char to[4096];
	snprintf(to, sizeof to, "%.4000s.new", path);
	return outcome(link(path, to));
}

/* "NAME=VALUE FILE" */
static int64_t do_setxattr(const char *argument, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	char name[256], value[256];
	int at = 0;
	if (sscanf(argument, "%255[^=]=%255s %n", name, value, &at) != 2)
		return -ENOTRECOVERABLE;
	return outcome(setxattr(argument + at, name, value, strlen(value), 0));
}

/* "NAME FILE": the value */
static int64_t do_getxattr(const char *argument, char *data, size_t *ret_len)
{
	char name[256];
	int at = 0;
	if (sscanf(argument, "%255s %n", name, &at) != 1)
		return -ENOTRECOVERABLE;
	ssize_t n = getxattr(argument + at, name, data, 60000);
	*ret_len = n > 0 ? (size_t)n : 0;
	data[*ret_len] = '\0';
	*ret_len += n >= 0;
	return outcome(n);
}

static int64_t do_listxattr(const char *path, char *data, size_t *ret_len)
{
	ssize_t n = listxattr(path, data, 60000);
	*ret_len = n > 0 ? (size_t)n : 0;
	return outcome(n);
}

/* "WORDS>FILE" */
static int64_t do_echo(const char *argument, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	const char *path = strchr(argument, '>') + 1;
	char line[1024];
	int len = snprintf(line, sizeof line, "%.*s\n", (int)(path - 1 - argument), argument);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	int64_t result = outcome(write(fd, line, (size_t)len));
	close(fd);
	return result;
}

static int64_t do_umount(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	if (geteuid() == 0)
		return outcome(umount2(path, 0));
	pid_t pid = fork();
	if (pid == 0) {
		execlp("fusermount3", "fusermount3", "-u", path, (char *)NULL);
		_exit(127);
	}
	int status;
	waitpid(pid, &status, 0);
	return status == 0 ? 0 : -EIO;
}

static int64_t do_umount_lazily(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	return outcome(umount2(path, MNT_DETACH));
}

/* --- readers that wait, as children of the hands */

static void cat(const char *path)
{
	char buffer[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;
	while (fd >= 0 && (n = read(fd, buffer, sizeof buffer)) > 0)
		continue;
	_exit(n < 0 ? 1 : 0);
}

/* the pid of a process that reads it */
static int64_t do_start_cat(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	pid_t pid = fork();
	if (pid == 0)
		cat(path);
	return pid;
}

/* the pid of a process that lists it */
static int64_t do_start_ls(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	pid_t pid = fork();
	if (pid == 0)
		_exit(opendir(path) ? 0 : 1);
	return pid;
}

static void nothing(int signal) { (void)signal; }

/* the pid of a process that looks the name up, goes on after SIGUSR1, and ends with the errno */
static int64_t do_start_stat(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	pid_t pid = fork();
	if (pid == 0) {
		struct stat s;
		sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = nothing }, NULL);
		_exit(lstat(path, &s) == 0 ? 0 : errno);
	}
	return pid;
}

/* the status as waitpid(2) gives it */
static int64_t do_wait(const char *pid, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int status = -1;
	return waitpid((pid_t)atoi(pid), &status, 0) < 0 ? -errno : status;
}

static uint64_t sum_of(const char *data, size_t len)
{
	uint64_t sum = 14695981039346656037U;
	for (size_t i = 0; i < len; i++)
		sum = (sum ^ (unsigned char)data[i]) * 1099511628211U;
	return sum;
}

/* "N PATH": N processes at once read it; how many got bytes with the same sum as the first (told as data) */
static int64_t do_read_in_parallel(const char *argument, char *data, size_t *ret_len)
{
	int count, at = 0, fds[2];
	if (sscanf(argument, "%d %n", &count, &at) != 1 || pipe2(fds, O_CLOEXEC) != 0)
		return -ENOTRECOVERABLE;
	for (int i = 0; i < count; i++) {
		if (fork() == 0) {
			size_t len = 0;
			int64_t result = do_read(argument + at, data, &len);
			uint64_t sum = result < 0 ? 0 : sum_of(data, len);
			_exit(write(fds[1], &sum, sizeof sum) == (ssize_t)sizeof sum ? 0 : 1);
		}
	}
	close(fds[1]);
	uint64_t first = 0, sum;
	int64_t same = 0;
	for (int i = 0; read(fds[0], &sum, sizeof sum) == (ssize_t)sizeof sum; i++) {
		first = i == 0 ? sum : first;
		same += sum != 0 && sum == first;
	}
	close(fds[0]);
	while (wait(NULL) > 0)
		continue;
	memcpy(data, &first, sizeof first);
	*ret_len = sizeof first;
	return same;
}

/* --- file handles, as an NFS server uses them */

struct kept_handle { struct file_handle head; unsigned char bytes[128]; };
static struct kept_handle handle;

static int64_t do_take_handle(const char *path, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int mount_id;
	handle.head.handle_bytes = sizeof handle.bytes;
	return outcome(name_to_handle_at(AT_FDCWD, path, &handle.head, &mount_id, 0));
}

/* the file of the handle, read through a mount that is named */
static int64_t do_read_handle(const char *mountpoint, char *data, size_t *ret_len)
{
	int mount_fd = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = open_by_handle_at(mount_fd, &handle.head, O_RDONLY | O_CLOEXEC);
	int64_t result = -errno;
	close(mount_fd);
	if (fd < 0)
		return result;
	ssize_t n = read(fd, data, HANDS_MAX);
	*ret_len = n > 0 ? (size_t)n : 0;
	result = outcome(n);
	close(fd);
	return result;
}

static int64_t do_drop_caches(const char *what, char *data, size_t *ret_len)
{
	(void)data, (void)ret_len;
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int64_t result = outcome(write(fd, what, 1));
	close(fd);
	return result;
}

#endif

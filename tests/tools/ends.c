/* ends.so: in LD_PRELOAD it ends a process at a step of its own, as kill -9 would just there. A step is a write to the log of the index,
 * a write, another name or none in the spool or the outbox, and a write to or a read from a server.
 *
 *   END_AT=N   the N-th step is the last. Of what it was to write nothing is written, or, N being even, half; what it has read is lost.
 *
 * The process is said to have ended with 77. */
#undef _FILE_OFFSET_BITS /* pwrite64() is a function of its own here, as it is for those who call it */
#include <dlfcn.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENDED 77
#define REAL(name) static __typeof__(name) *_Atomic real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static bool is_of_a_server(int fd)
{
	struct sockaddr_storage peer;
	socklen_t size = sizeof peer;
	return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6);
}

static bool is_of_the_state(int fd)
{
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof path - 1);
	if (size < 0)
		return false;
	path[size] = 0;
	return strstr(path, "mailfs.db-wal") || strstr(path, "/spool") || strstr(path, "/outbox");
}

static long last_step;     /* 0: none */
static bool half;          /* of what is to be written then is written */

__attribute__((constructor)) static void take_end_at(void)
{
	const char *text = getenv("END_AT");
	last_step = text ? strtol(text, NULL, 10) : 0;
	half = last_step % 2 == 0;
}

static bool is_last(int fd)
{
	static atomic_long passed;
	struct stat s;
	if (last_step == 0 || fstat(fd, &s) != 0)
		return false;
	bool counts = S_ISSOCK(s.st_mode) ? is_of_a_server(fd) : (S_ISREG(s.st_mode) || S_ISDIR(s.st_mode)) && is_of_the_state(fd);
	return counts && ++passed == last_step;
}

static size_t written_of(size_t size)
{
	return half ? size / 2 : 0;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
	REAL(write);
	if (!is_last(fd))
		return real(fd, bytes, size);
	(void)!real(fd, bytes, written_of(size));
	_exit(ENDED);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
	REAL(send);
	if (!is_last(fd))
		return real(fd, bytes, size, flags);
	(void)!real(fd, bytes, written_of(size), flags);
	_exit(ENDED);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
	REAL(pwrite64);
	if (!is_last(fd))
		return real(fd, bytes, size, offset);
	(void)!real(fd, bytes, written_of(size), offset);
	_exit(ENDED);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
	REAL(pwritev64);
	if (!is_last(fd))
		return real(fd, parts, count, offset);
	(void)!real(fd, parts, (int)written_of((size_t)count), offset);
	_exit(ENDED);
}

ssize_t read(int fd, void *bytes, size_t size)
{
	REAL(read);
	ssize_t got = real(fd, bytes, size);
	if (is_last(fd))
		_exit(ENDED);
	return got;
}

ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
	REAL(recv);
	ssize_t got = real(fd, bytes, size, flags);
	if (is_last(fd))
		_exit(ENDED);
	return got;
}

int renameat(int from, const char *name, int to, const char *other)
{
	REAL(renameat);
	if (is_last(from))
		_exit(ENDED);
	return real(from, name, to, other);
}

int linkat(int from, const char *name, int to, const char *other, int flags)
{
	REAL(linkat);
	if (is_last(from))
		_exit(ENDED);
	return real(from, name, to, other, flags);
}

int unlinkat(int dir, const char *name, int flags)
{
	REAL(unlinkat);
	if (is_last(dir))
		_exit(ENDED);
	return real(dir, name, flags);
}

#include "control/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "control/paths.h"

#define BACKLOG 16

int64_t socket_connect_ms_for_tests = 5000;

/* A path that is too long for sockaddr_un is named through its directory's descriptor, which *ret_directory keeps open. */
static bool name_socket(const char *path, struct sockaddr_un *ret, int *ret_directory)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*ret_directory = -1;
	if (strlen(path) < sizeof ret->sun_path) {
		memcpy(ret->sun_path, path, strlen(path));
		return true;
	}
	const char *slash = strrchr(path, '/');
	MF_CLEANUP(mf_free) char *directory = mf_strndup(path, slash ? (size_t)(slash - path) : 0);
	*ret_directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*ret_directory < 0)
		return false;
	int len = snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d%s", *ret_directory, slash);
	if (len < (int)sizeof ret->sun_path)
		return true;
	mf_close(ret_directory);
	errno = ENAMETOOLONG;
	return false;
}

bool socket_peer(int fd, uid_t *ret_uid, pid_t *ret_pid)
{
	struct ucred peer;
	socklen_t len = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) || len != sizeof peer)
		return false;
	*ret_uid = peer.uid;
	*ret_pid = peer.pid;
	return true;
}

/* EAGAIN: who listens there takes no more connections, and has not for some seconds */
static int try_connect(const char *path)
{
	struct sockaddr_un address;
	MF_CLEANUP(mf_close) int directory = -1;
	if (!name_socket(path, &address, &directory))
		return -1;
	int64_t ms = socket_connect_ms_for_tests;
	struct timeval limit = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* of connect(2) too; cannot fail with these arguments */
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address))
		mf_close(&fd);
	return fd;
}

enum mf_err socket_connect(const char *path, int *ret, struct mf_reason *why)
{
	int fd = try_connect(path);
	if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR))
		return MF_NOT_FOUND;
	if (fd < 0 && errno == EAGAIN)
		return mf_fail(why, MF_TIMEOUT, "the mailfs that listens on %s does not answer", path);
	if (fd < 0)
		return mf_fail(why, mf_err_from_errno(errno), "cannot reach the socket %s: %s", path, strerror(errno));
	uid_t uid;
	pid_t pid;
	if (!socket_peer(fd, &uid, &pid) || (uid != geteuid() && uid != 0 && geteuid() != 0)) {
		mf_close(&fd);
		return mf_fail(why, MF_DENIED, "the socket %s belongs to another user", path);
	}
	*ret = fd;
	return MF_OK;
}

static enum mf_err make_directory(const char *path, struct mf_reason *why)
{
	const char *slash = strrchr(path, '/');
	MF_CLEANUP(mf_free) char *directory = mf_strndup(path, slash ? (size_t)(slash - path) : 0);
	return path_make_private(directory, why);
}

enum mf_err socket_listen(const char *path, int *ret, struct mf_reason *why)
{
	enum mf_err e = make_directory(path, why);
	if (e)
		return e;
	int other = try_connect(path);
	if (other >= 0 || errno == EAGAIN) {
		mf_close(&other);
		return mf_fail(why, MF_BUSY, "another mailfs listens on %s", path);
	}
	struct stat st;
	if (!lstat(path, &st) && (!S_ISSOCK(st.st_mode) || unlink(path)))
		return mf_fail(why, MF_EXISTS, "%s is in the way of the control socket", path);
	struct sockaddr_un address;
	MF_CLEANUP(mf_close) int directory = -1;
	MF_CLEANUP(mf_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* fchmod of the unbound socket gives the file its mode from its first moment on */
	if (fd < 0 || fchmod(fd, 0600) || !name_socket(path, &address, &directory) ||
	    bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG))
		return mf_fail(why, mf_err_from_errno(errno), "cannot listen on %s: %s", path, strerror(errno));
	if (chmod(path, 0600))
		return mf_fail(why, mf_err_from_errno(errno), "cannot make %s private: %s", path, strerror(errno));
	*ret = fd;
	fd = -1;
	return MF_OK;
}

bool socket_send(int fd, const void *data, size_t len)
{
	const char *p = data;
	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* What cannot be sent is kept for a person: STATE/rejected. See spool.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "cache/spool_file.h"
#include "cache/txn.h"

#define REASON_SUFFIX ".reason.txt"

int rejected_dir(struct cache *c)
{
	return c->rejected_dir;
}

uint64_t rejected_count(struct cache *c)
{
	int fd = openat(c->rejected_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		mf_close(&fd);
		return 0;
	}
	uint64_t count = 0;
	for (const struct dirent *d; (d = readdir(dir));) {
		size_t len = strlen(d->d_name), suffix = strlen(REASON_SUFFIX);
		count += d->d_name[0] != '.' && (len <= suffix || strcmp(d->d_name + len - suffix, REASON_SUFFIX) != 0);
	}
	closedir(dir);
	return count;
}

/* name, or name with a number where that is taken; room for the suffix of its reason */
static enum mf_err make_rejected(struct cache *c, const char *wish, char ret_name[static NAME_MAX_BYTES + 1], int *ret_fd)
{
	int keep = NAME_MAX_BYTES - (int)strlen(REASON_SUFFIX) - 12, len = (int)strlen(wish);
	if (len > keep) /* a character of UTF-8 is not cut */
		for (len = keep; len > keep - 3 && ((unsigned char)wish[len] & 0xc0) == 0x80;)
			len--;
	for (unsigned i = 1; i < 100000; i++) {
		snprintf(ret_name, NAME_MAX_BYTES + 1, i > 1 ? "%.*s~%u" : "%.*s", len, wish, i);
		*ret_fd = openat(c->rejected_dir, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (*ret_fd >= 0 || errno != EEXIST)
			return *ret_fd < 0 ? mf_err_from_errno(errno) : MF_OK;
	}
	return MF_EXISTS;
}

static enum mf_err write_reason(struct cache *c, const char *name, const char *reason)
{
	char file[NAME_MAX_BYTES + 1];
	snprintf(file, sizeof file, "%.*s%s", NAME_MAX_BYTES - (int)strlen(REASON_SUFFIX), name, REASON_SUFFIX);
	MF_CLEANUP(mf_close) int fd = openat(c->rejected_dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || dprintf(fd, "%s\n", reason) < 0 || fsync(fd) < 0)
		return mf_err_from_errno(errno);
	return MF_OK;
}

/* A name that can be had there, and that is not the reason of another; the caller frees */
static char *rejected_name(const char *name)
{
	size_t len = strlen(name), suffix = strlen(REASON_SUFFIX);
	while (len >= suffix && memcmp(name + len - suffix, REASON_SUFFIX, suffix) == 0)
		len -= suffix;
	return !len || *name == '.' || strchr(name, '/') ? mf_strdup("message.eml") : mf_strndup(name, len);
}

static void discard_rejected(struct cache *c, const char *name)
{
	if (unlinkat(c->rejected_dir, name, 0) < 0)
		log_warning("rejected/%s: %s", name, strerror(errno));
}

static void say_rejected(const char *name, const char *reason)
{
	char text[NAME_MAX_BYTES + 1];
	log_warning("%s is kept in .mailfs/rejected: %s", mf_printable(text, sizeof text, name, strlen(name)), reason);
}

enum mf_err spool_reject_fd(struct cache *c, int fd, uint64_t size, const char *name, const char *reason)
{
	char own[NAME_MAX_BYTES + 1];
	MF_CLEANUP(mf_close) int to = -1;
	MF_CLEANUP(mf_free) char *wish = rejected_name(name);
	enum mf_err e = make_rejected(c, wish, own, &to);
	if (e)
		return e;
	e = file_copy(fd, to, size);
	if (!e && fsync(to) < 0)
		e = mf_err_from_errno(errno);
	if (!e)
		e = write_reason(c, own, reason);
	if (!e && fsync(c->rejected_dir) < 0)
		e = mf_err_from_errno(errno);
	if (e) { /* the bytes stay where they are */
		discard_rejected(c, own);
		return e;
	}
	say_rejected(own, reason);
	return MF_OK;
}

/* What was being written goes there as it is: on a full disk there is no room for a copy, and maybe none for the reason. */
static enum mf_err reject_edit(struct cache *c, const char *file, const char *name, const char *reason)
{
	char own[NAME_MAX_BYTES + 1];
	MF_CLEANUP(mf_close) int taken = -1;
	MF_CLEANUP(mf_free) char *wish = rejected_name(name);
	enum mf_err e = make_rejected(c, wish, own, &taken);
	if (e)
		return e;
	if (renameat(c->spool_dir, file, c->rejected_dir, own) < 0) {
		e = mf_err_from_errno(errno);
		discard_rejected(c, own);
		return e;
	}
	MF_CLEANUP(mf_close) int fd = openat(c->rejected_dir, own, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fsync(fd) < 0 || write_reason(c, own, reason) != MF_OK || fsync(c->rejected_dir) < 0)
		log_warning("rejected/%s: %s", own, strerror(errno));
	say_rejected(own, reason);
	return MF_OK;
}

enum mf_err spool_reject(struct cache *c, uint64_t message, bool edit, const char *name, const char *reason)
{
	char file[SPOOL_NAME_MAX];
	spool_name(message, edit, file);
	MF_CLEANUP(mf_close) int fd = openat(c->spool_dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	struct spool_tail tail;
	if (fd < 0 || fstat(fd, &st) < 0)
		return mf_err_from_errno(errno);
	if (edit && st.st_size)
		return reject_edit(c, file, name ? name : "message.eml", reason);
	if (edit)
		spool_discard(c->spool_dir, file);
	uint64_t size = spool_read_tail(fd, &tail) == MF_OK ? tail.size : (uint64_t)st.st_size;
	return size ? spool_reject_fd(c, fd, size, name ? name : "message.eml", reason) : MF_OK;
}

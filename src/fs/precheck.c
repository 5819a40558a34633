/* What would make a mount fail, looked at before: fusermount3 and the kernel say little of the reason. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"
#include "fs/internal.h"
#include "fs/mountinfo.h"

static enum mf_err check_device(struct mf_reason *why)
{
	MF_CLEANUP(mf_close) int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return MF_OK;
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		return mf_fail(why, MF_UNSUPPORTED, "/dev/fuse is missing: load the module (modprobe fuse), or give the container that device");
	return mf_fail(why, MF_DENIED, "/dev/fuse cannot be opened (%s): users need mode 0666 on it", strerror(errno));
}

static bool has_fusermount(void)
{
	static const char *const places[] = { "/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin" };
	char path[4096];
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		snprintf(path, sizeof path, "%s/fusermount3", places[i]);
		if (access(path, X_OK) == 0)
			return true;
	}
	const char *search = getenv("PATH");
	while (search && *search) {
		size_t len = strcspn(search, ":");
		snprintf(path, sizeof path, "%.*s/fusermount3", (int)len, search);
		if (len > 0 && access(path, X_OK) == 0)
			return true;
		search += len + (search[len] == ':');
	}
	return false;
}

bool precheck_fuse_conf_allows_other(const char *path)
{
	FILE *file = fopen(path, "re");
	if (!file)
		return false;
	MF_CLEANUP(mf_free) char *line = NULL;
	size_t capacity = 0;
	bool found = false;
	while (!found && getline(&line, &capacity, file) >= 0) {
		char word[32] = "";
		found = sscanf(line, " %31[^# \t\n]", word) == 1 && strcmp(word, "user_allow_other") == 0;
	}
	fclose(file);
	return found;
}

static enum mf_err check_user(const struct fs_options *options, const char *point, struct mf_reason *why)
{
	if (geteuid() == 0)
		return MF_OK;
	if (!has_fusermount())
		return mf_fail(why, MF_UNSUPPORTED, "fusermount3 is not installed (Debian: the package fuse3), and only root mounts without it");
	if (options->allow_other && !precheck_fuse_conf_allows_other("/etc/fuse.conf"))
		return mf_fail(why, MF_DENIED, "allow_other is not permitted to users: add the line user_allow_other to /etc/fuse.conf");
	if (access(point, W_OK) != 0)
		return mf_fail(why, MF_DENIED, "%s is not writable: a user mounts only on directories of their own", point);
	return MF_OK;
}

static enum mf_err fail_dead(const char *point, struct mf_reason *why)
{
	return mf_fail(why, MF_BUSY, "%s is a mount whose process has died: fusermount3 -u %s clears it", point, point);
}

static enum mf_err check_point(const char *point, char **ret_real, struct mf_reason *why)
{
	struct stat s;
	if (stat(point, &s) != 0) {
		if (errno == ENOENT)
			return mf_fail(why, MF_NOT_FOUND, "%s does not exist: make the directory first (mkdir)", point);
		if (errno == ENOTCONN)
			return fail_dead(point, why);
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", point, strerror(errno));
	}
	if (!S_ISDIR(s.st_mode))
		return mf_fail(why, MF_INVALID, "%s is not a directory", point);
	char *real = realpath(point, NULL);
	if (!real)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", point, strerror(errno));
	*ret_real = real;
	return MF_OK;
}

static enum mf_err check_not_inside(const char *real, struct mf_reason *why)
{
	struct mountinfo a = mountinfo_around(real);
	if (!a.mailfs)
		return MF_OK;
	struct statvfs unused;
	if (a.exactly && statvfs(real, &unused) != 0 && errno == ENOTCONN)
		return fail_dead(real, why);
	if (a.exactly)
		return mf_fail(why, MF_BUSY, "%s is a mailfs mount already: mailfs umount %s ends it", real, real);
	return mf_fail(why, MF_INVALID, "%s lies inside a mailfs mount: choose a directory outside of it", real);
}

enum mf_err precheck_mount(const struct fs_options *options, char **ret_real_mountpoint, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *real = NULL;
	enum mf_err err = check_point(options->mountpoint, &real, why);
	if (err == MF_OK)
		err = check_not_inside(real, why);
	if (err == MF_OK)
		err = check_device(why);
	if (err == MF_OK)
		err = check_user(options, real, why);
	if (err == MF_OK) {
		*ret_real_mountpoint = real;
		real = NULL;
	}
	return err;
}

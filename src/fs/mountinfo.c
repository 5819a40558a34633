#include "fs/mountinfo.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmount/libmount.h>

#include "base/mem.h"

static const char OURS[] = "/proc/self/mountinfo";

/* NULL: it cannot be read. Nothing of the table is resolved or asked for, as no cache of libmount's is attached to it. */
static struct libmnt_table *read_table(const char *file)
{
	struct libmnt_table *table = mnt_new_table();
	if (table && mnt_table_parse_file(table, file) == 0)
		return table;
	mnt_unref_table(table);
	return NULL;
}

/* Not mnt_table_find_mountpoint(): it asks stat(2) for the path, and that mount may hang, or be the one that waits for us. */
static struct libmnt_fs *find_around(struct libmnt_table *table, const char *path)
{
	MF_CLEANUP(mf_free) char *above = mf_strdup(path);
	for (char *slash; (slash = strrchr(above, '/')) && slash != above; *slash = '\0') {
		struct libmnt_fs *fs = mnt_table_find_target(table, above, MNT_ITER_BACKWARD);
		if (fs)
			return fs;
	}
	return mnt_table_find_target(table, "/", MNT_ITER_BACKWARD);
}

struct mountinfo mountinfo_around_in(const char *file, const char *path)
{
	struct mountinfo found = { 0 };
	struct libmnt_table *table = read_table(file);
	struct libmnt_fs *fs = table ? find_around(table, path) : NULL;
	if (fs) {
		const char *type = mnt_fs_get_fstype(fs);
		found.id = (uint64_t)mnt_fs_get_id(fs);
		found.mailfs = type && strcmp(type, "fuse.mailfs") == 0;
		found.exactly = strcmp(mnt_fs_get_target(fs), path) == 0;
	}
	mnt_unref_table(table);
	return found;
}

struct mountinfo mountinfo_around(const char *path)
{
	return mountinfo_around_in(OURS, path);
}

bool mountinfo_is_mailfs(const char *path)
{
	struct mountinfo around = mountinfo_around(path);
	return around.exactly && around.mailfs;
}

uint64_t mountinfo_topmost(const char *path)
{
	struct mountinfo around = mountinfo_around(path);
	return around.exactly ? around.id : 0;
}

bool mountinfo_has(uint64_t id)
{
	struct libmnt_table *table = read_table(OURS);
	if (!table)
		return true;
	bool found = false;
	struct libmnt_fs *fs;
	struct libmnt_iter *each = mnt_new_iter(MNT_ITER_FORWARD);
	while (!found && mnt_table_next_fs(table, each, &fs) == 0)
		found = (uint64_t)mnt_fs_get_id(fs) == id;
	mnt_free_iter(each);
	mnt_unref_table(table);
	return found;
}

char *mountinfo_resolve(const char *path)
{
	size_t len = strlen(path);
	while (len > 1 && path[len - 1] == '/')
		len--;
	MF_CLEANUP(mf_free) char *whole = mf_strndup(path, len);
	char *slash = strrchr(whole, '/');
	const char *name = slash ? slash + 1 : whole;
	char resolved[PATH_MAX];
	/* reading a link asks the mount on top of it nothing */
	if (!*name || readlink(whole, resolved, sizeof resolved) >= 0 || !strcmp(name, ".") || !strcmp(name, ".."))
		return realpath(whole, resolved) ? mf_strdup(resolved) : NULL;
	MF_CLEANUP(mf_free) char *last = mf_strdup(name);
	if (slash)
		slash[slash == whole] = 0;
	if (!realpath(slash ? whole : ".", resolved))
		return NULL;
	return mf_format("%s/%s", strcmp(resolved, "/") ? resolved : "", last);
}

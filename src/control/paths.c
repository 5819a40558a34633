#include "control/paths.h"

#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define SOCKET_SUFFIX ".sock"

/* $HOME, else what the password database says, as for a unit or a mount helper that is started without one */
static char *home(void)
{
	const char *value = getenv("HOME");
	if (value && value[0] == '/')
		return mf_strdup(value);
	const struct passwd *entry = getpwuid(getuid());
	return mf_strdup(entry && entry->pw_dir && entry->pw_dir[0] == '/' ? entry->pw_dir : "/");
}

/* The specification: a relative value is to be ignored. */
static const char *xdg(const char *variable)
{
	const char *value = getenv(variable);
	return value && value[0] == '/' ? value : NULL;
}

static char *base_path(const char *variable, const char *fallback, const char *account)
{
	const char *base = xdg(variable);
	if (base)
		return mf_format("%s/mailfs/%s", base, account);
	MF_CLEANUP(mf_free) char *own = home();
	return mf_format("%s/%s/mailfs/%s", strcmp(own, "/") ? own : "", fallback, account);
}

char *path_state(const char *account)
{
	return base_path("XDG_STATE_HOME", ".local/state", account);
}

char *path_cache(const char *account)
{
	return base_path("XDG_CACHE_HOME", ".cache", account);
}

/* the directory of sockets in place i: 0 or 1 of path_socket */
static char *runtime_path(size_t i)
{
	const char *base = xdg("XDG_RUNTIME_DIR");
	if (i == 0)
		return base ? mf_format("%s/mailfs", base) : NULL;
	return base ? NULL : mf_format("/run/user/%ju/mailfs", (uintmax_t)getuid());
}

char *path_socket(const char *account, size_t i)
{
	if (i >= PATH_SOCKETS)
		return NULL;
	if (i == PATH_SOCKETS - 1) {
		MF_CLEANUP(mf_free) char *state = path_state(account);
		return mf_format("%s/control.sock", state);
	}
	MF_CLEANUP(mf_free) char *directory = runtime_path(i);
	return directory ? mf_format("%s/%s" SOCKET_SUFFIX, directory, account) : NULL;
}

bool path_account_is_valid(const char *account)
{
	if (!*account || *account == '.' || strlen(account) > 80)
		return false;
	for (const char *p = account; *p; p++)
		if (*p == '/' || (unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
	return true;
}

struct list {
	char **items;
	size_t count;
};

static void add(struct list *list, const char *name, size_t len)
{
	MF_CLEANUP(mf_free) char *copy = mf_strndup(name, len);
	if (!path_account_is_valid(copy))
		return;
	for (size_t i = 0; i < list->count; i++)
		if (!strcmp(list->items[i], copy))
			return;
	list->items = mf_realloc_array(list->items, list->count + 2, sizeof *list->items);
	list->items[list->count++] = copy;
	list->items[list->count] = NULL;
	copy = NULL;
}

static void add_runtime(struct list *list, const char *directory)
{
	DIR *d = opendir(directory);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		size_t len = strlen(e->d_name), suffix = strlen(SOCKET_SUFFIX);
		if (len > suffix && !strcmp(e->d_name + len - suffix, SOCKET_SUFFIX))
			add(list, e->d_name, len - suffix);
	}
	closedir(d);
}

static void add_states(struct list *list)
{
	MF_CLEANUP(mf_free) char *directory = path_state("");
	DIR *d = opendir(directory);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		MF_CLEANUP(mf_free) char *socket = mf_format("%s%s/control.sock", directory, e->d_name);
		struct stat st;
		if (e->d_name[0] != '.' && !lstat(socket, &st) && S_ISSOCK(st.st_mode))
			add(list, e->d_name, strlen(e->d_name));
	}
	closedir(d);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char **path_running_accounts(void)
{
	struct list list = { MF_NEW(char *), 0 };
	for (size_t i = 0; i < 2; i++) {
		MF_CLEANUP(mf_free) char *directory = runtime_path(i);
		if (directory)
			add_runtime(&list, directory);
	}
	add_states(&list);
	qsort(list.items, list.count, sizeof *list.items, by_name);
	return list.items;
}

void path_list_destroy(char **list)
{
	for (size_t i = 0; list && list[i]; i++)
		free(list[i]);
	free(list);
}

static enum mf_err make_one(const char *path, bool last, struct mf_reason *why)
{
	if (mkdir(path, 0700) && errno != EEXIST)
		return mf_fail(why, mf_err_from_errno(errno), "cannot make the directory %s: %s", path, strerror(errno));
	if (!last)
		return MF_OK;
	struct stat st;
	if (lstat(path, &st) || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return mf_fail(why, MF_DENIED, "%s is not a directory of this user", path);
	if ((st.st_mode & 077) && chmod(path, 0700))
		return mf_fail(why, mf_err_from_errno(errno), "cannot make %s private: %s", path, strerror(errno));
	return MF_OK;
}

enum mf_err path_make_private(const char *path, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *part = mf_strdup(path);
	for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		struct stat st;
		enum mf_err e = stat(part, &st) ? make_one(part, false, why) : MF_OK;
		*slash = '/';
		if (e)
			return e;
	}
	return make_one(part, true, why);
}

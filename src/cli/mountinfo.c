#include "cli/mountinfo.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/* undoes the kernel's \040 and its like, in place */
static void unescape(char *s)
{
	char *to = s;
	for (; *s; s++) {
		if (*s == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
}

/* One line (proc_pid_mountinfo(5)): the fifth field is the place; behind " - " stands the type. */
static bool line_is_at(char *line, const char *mountpoint, bool *ret_mailfs)
{
	char *type = strstr(line, " - "), *place = line;
	for (int i = 0; i < 4 && place; i++) {
		place = strchr(place, ' ');
		place += place != NULL;
	}
	if (!place || !type || place > type)
		return false;
	place[strcspn(place, " ")] = 0;
	unescape(place);
	if (strcmp(place, mountpoint))
		return false;
	type += 3;
	*ret_mailfs = !strncmp(type, "fuse.mailfs", 11) && (type[11] == ' ' || !type[11]);
	return true;
}

bool mountinfo_text_is_mailfs(const char *text, const char *mountpoint)
{
	bool mailfs = false; /* the last line of a place is what lies on top */
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "\n");
		MF_CLEANUP(mf_free) char *line = mf_strndup(p, len);
		bool here;
		if (line_is_at(line, mountpoint, &here))
			mailfs = here;
		p += len + (p[len] == '\n');
	}
	return mailfs;
}

bool mountinfo_is_mailfs(const char *mountpoint)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return false;
	MF_CLEANUP(mf_free) char *line = NULL;
	size_t size = 0;
	bool mailfs = false, here;
	while (getline(&line, &size, file) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (line_is_at(line, mountpoint, &here))
			mailfs = here;
	}
	fclose(file);
	return mailfs;
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

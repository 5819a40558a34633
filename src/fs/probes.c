#include <string.h>

#include "fs/internal.h"

static const char *const names[] = {
	".DS_Store", ".Trash", ".directory", ".git", ".hg", ".hidden", ".localized", ".nomedia", ".svn", ".trackerignore",
	".xdg-volume-info", "CVS", "HEAD", "RCS", "Thumbs.db", "autorun.inf", "cover.jpg", "desktop.ini", "folder.jpg",
};

bool probe_name(const char *name)
{
	if (strncmp(name, "._", 2) == 0 || strncmp(name, ".Trash-", 7) == 0)
		return true;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

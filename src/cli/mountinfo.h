/* mountinfo.h: what is mounted where, as this process sees it. Touches no file system but /proc. */
#ifndef MF_CLI_MOUNTINFO_H
#define MF_CLI_MOUNTINFO_H

#include <stdbool.h>

/* Whether a mailfs is what lies on top at this path (absolute, without symbolic links). */
bool mountinfo_is_mailfs(const char *mountpoint);
/* The same for a file's content instead of /proc/self/mountinfo; for tests. */
bool mountinfo_text_is_mailfs(const char *text, const char *mountpoint);
/* The path as the kernel spells it: its directory resolved, the last part as it is, so that a mount that does not
 * answer is not touched. The caller frees; NULL with errno. */
char *mountinfo_resolve(const char *path);

#endif

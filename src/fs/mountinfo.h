/* mountinfo.h: what is mounted where, as this process sees it (proc_pid_mountinfo(5)). Touches no file system but /proc, so that
 * a mount that does not answer holds nobody up. From any thread. */
#ifndef MF_FS_MOUNTINFO_H
#define MF_FS_MOUNTINFO_H

#include <stdbool.h>
#include <stdint.h>

struct mountinfo {
	uint64_t id;  /* of the kernel, unique while it is mounted; 0: nothing found, or /proc cannot be read */
	bool mailfs;  /* a mailfs */
	bool exactly; /* mounted at the path itself, not above it */
};

/* The deepest mount that holds the path (absolute, without symbolic links); of several in one place what lies on top. */
struct mountinfo mountinfo_around(const char *path);
/* The same for another file than /proc/self/mountinfo; for tests. */
struct mountinfo mountinfo_around_in(const char *file, const char *path);

/* Whether a mailfs is what lies on top at this very path. */
bool mountinfo_is_mailfs(const char *path);
/* The id of what lies on top at this very path; 0: nothing is mounted there. */
uint64_t mountinfo_topmost(const char *path);
/* Whether the mount with this id is still there; true where that cannot be read. */
bool mountinfo_has(uint64_t id);

/* The path as the kernel spells it: its directory resolved, the last part as it is, so that a mount that does not
 * answer is not touched. The caller frees; NULL with errno. */
char *mountinfo_resolve(const char *path);

#endif

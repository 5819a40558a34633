/* folders_fail.h: a disk on which nothing that was done in a folder can be made to stay. Files can. */
#ifndef MF_TESTS_FOLDERS_FAIL_H
#define MF_TESTS_FOLDERS_FAIL_H

#include <errno.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool folders_fail;

/* instead of the C library's */
int fsync(int fd)
{
	struct stat st;
	if (folders_fail && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fsync, fd);
}

#endif

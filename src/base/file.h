/* file.h: bytes of regular files by their place, whole: what was interrupted, or did a part, goes on. Thread-safe.
 *
 * On failure errno is the system call's, and what was done before stays done. */
#ifndef MF_BASE_FILE_H
#define MF_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* as many as there are, up to len; fewer only where the file ends */
enum mf_err file_read(int fd, uint64_t at, void *to, size_t len, size_t *ret_len);
/* MF_NO_SPACE; MF_IO */
enum mf_err file_write(int fd, uint64_t at, const void *data, size_t len);
/* The first size bytes go to the same place in the other file. MF_IO also where `from` has not as many */
enum mf_err file_copy(int from, int to, uint64_t size);
/* both have size bytes, and the same; what cannot be read is not */
bool file_is_same(int a, int b, uint64_t size);

#endif

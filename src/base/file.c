#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum mf_err file_read(int fd, uint64_t at, void *to, size_t len, size_t *ret_len)
{
	char *p = to;
	*ret_len = 0;
	while (*ret_len < len) {
		ssize_t n = pread(fd, p + *ret_len, len - *ret_len, (off_t)(at + *ret_len));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return mf_err_from_errno(errno);
		if (n == 0)
			break;
		*ret_len += (size_t)n;
	}
	return MF_OK;
}

enum mf_err file_write(int fd, uint64_t at, const void *data, size_t len)
{
	const char *p = data;
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? mf_err_from_errno(errno) : MF_NO_SPACE;
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return MF_OK;
}

enum mf_err file_copy(int from, int to, uint64_t size)
{
	char part[65536];
	for (uint64_t at = 0; at < size;) {
		size_t len, want = size - at < sizeof part ? (size_t)(size - at) : sizeof part;
		enum mf_err e = file_read(from, at, part, want, &len);
		if (!e && len < want)
			e = MF_IO;
		if (!e)
			e = file_write(to, at, part, len);
		if (e)
			return e;
		at += len;
	}
	return MF_OK;
}

bool file_is_same(int a, int b, uint64_t size)
{
	char of_a[32768], of_b[sizeof of_a];
	for (uint64_t at = 0; at < size; at += sizeof of_a) {
		size_t len_a, len_b, want = size - at < sizeof of_a ? (size_t)(size - at) : sizeof of_a;
		if (file_read(a, at, of_a, want, &len_a) || file_read(b, at, of_b, want, &len_b))
			return false;
		if (len_a < want || len_b < want || memcmp(of_a, of_b, want))
			return false;
	}
	return true;
}

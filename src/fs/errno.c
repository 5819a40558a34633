#include <errno.h>

#include "fs/internal.h"

/* Never EAGAIN: readers take it for "no data" and lose some. EINTR only for MF_CANCELLED, which only an interrupt of the
 * reader itself gives: languages repeat a call that says EINTR for ever. */
int fs_errno(enum mf_err e)
{
	switch (e) {
	case MF_OK: return 0;
	case MF_NOT_FOUND: return ENOENT;
	case MF_EXISTS: return EEXIST;
	case MF_UNSUPPORTED: return EPERM;
	case MF_DENIED: return EACCES;
	case MF_INVALID: return EINVAL;
	case MF_STALE: return ESTALE;
	case MF_TOO_BIG: return EFBIG;
	case MF_QUOTA: return EDQUOT;
	case MF_CANCELLED: return EINTR;
	case MF_NO_FILES: return ENFILE;
	case MF_UIDVALIDITY: return ESTALE;
	case MF_OFFLINE: return ENETUNREACH;
	case MF_TIMEOUT: return ETIMEDOUT;
	case MF_PROTOCOL: return EIO;
	case MF_TLS: return EACCES;
	case MF_AUTH: return EACCES;
	case MF_BUSY: return EBUSY;
	case MF_NEWER: return EIO;
	case MF_NO_SPACE: return ENOSPC;
	case MF_IO: return EIO;
	case MF_CORRUPT: return EIO;
	}
	return EIO;
}

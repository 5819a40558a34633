/* notify.h: what notify.c and mount.c agree on. */
#ifndef MF_FS_NOTIFY_H
#define MF_FS_NOTIFY_H

/* the cache's note of when the list of an account's top-level mailboxes changed: decimal nanoseconds since the epoch */
#define FS_ROOT_MTIME_NOTE "root-mtime"

#endif

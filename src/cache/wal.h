/* wal.h: how the writer's connection writes its log. Private to cache.
 *
 * SQLite puts a page into the WAL as two writes, its header and itself, and a small change touches a dozen pages: those calls would
 * cost more than all else of it. Through this VFS what goes on where the last write ended is held back, and the frame that
 * completes a commit takes all of it along as one write. So when SQLite tells its other connections of a commit, it is in the file,
 * as it would be without; and who reads, syncs or cuts the file through the same connection finds it whole. */
#ifndef MF_CACHE_WAL_H
#define MF_CACHE_WAL_H

/* The name for sqlite3_open_v2(); NULL, SQLite's own, where there is none to build on. From any thread, after sqlite3_config() */
const char *wal_vfs(void);

#endif

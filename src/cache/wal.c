#include "cache/wal.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <string.h>

#include "base/mem.h"

/* The file format (sqlite.org/fileformat2.html, 4.1): a frame is this header and a page. Bytes 4 to 7 are not 0 in the last of a commit. */
#define FRAME_HEADER 24
#define HEADER_MAX 32  /* that of the file; a page is larger */
#define HELD_MAX 65536

struct wal {
	sqlite3_file file;             /* first: what SQLite sees */
	sqlite3_file *real;            /* lies behind this struct */
	unsigned char *held;           /* HELD_MAX bytes; NULL until used */
	int held_count;
	sqlite3_int64 held_at, end;    /* where held belongs; where the last write ended, or will */
	bool completes;                /* the header of a commit's last frame was written: its page is next */
	bool lost;                     /* what belongs at lost_at could not be written, and SQLite believes that it is there */
	sqlite3_int64 lost_at;
};

static sqlite3_vfs vfs, *real_vfs;

static struct wal *wal_of(sqlite3_file *file)
{
	return (struct wal *)(void *)file;
}

/* What cannot be written is given up. SQLite takes back the commit that it belongs to, or, if it is a read that fails of it, perhaps
 * only one statement. */
static int write_held(struct wal *w)
{
	int count = w->held_count;
	w->held_count = 0;
	int code = count ? w->real->pMethods->xWrite(w->real, w->held, count, w->held_at) : SQLITE_OK;
	if (code != SQLITE_OK) {
		w->lost = true;
		w->lost_at = w->held_at;
	}
	return code;
}

/* Nothing can be committed behind what is lost. A header that belongs there, or before it, begins that anew; a page before it has been
 * written once already. */
static bool is_behind_loss(struct wal *w, int count, sqlite3_int64 at)
{
	w->lost = w->lost && (at > w->lost_at || count > HEADER_MAX);
	return w->lost && at > w->lost_at;
}

static int hold(struct wal *w, const void *data, int count)
{
	int code = w->held_count + count > HELD_MAX ? write_held(w) : SQLITE_OK;
	if (code != SQLITE_OK || count > HELD_MAX)
		return code != SQLITE_OK ? code : w->real->pMethods->xWrite(w->real, data, count, w->end);
	if (!w->held)
		w->held = mf_alloc(HELD_MAX);
	if (!w->held_count)
		w->held_at = w->end;
	memcpy(w->held + w->held_count, data, (size_t)count);
	w->held_count += count;
	return SQLITE_OK;
}

static bool is_of_commit(const unsigned char *header)
{
	return header[4] || header[5] || header[6] || header[7];
}

static int wal_write(sqlite3_file *file, const void *data, int count, sqlite3_int64 at)
{
	struct wal *w = wal_of(file);
	bool goes_on = at == w->end, complete = w->completes;
	if (is_behind_loss(w, count, at))
		return SQLITE_IOERR_WRITE;
	int code = goes_on ? hold(w, data, count) : write_held(w);
	if (code == SQLITE_OK && !goes_on)
		code = w->real->pMethods->xWrite(w->real, data, count, at);
	w->completes = count == FRAME_HEADER && is_of_commit(data);
	w->end = at + count;
	return code == SQLITE_OK && complete ? write_held(w) : code;
}

static int wal_read(sqlite3_file *file, void *to, int count, sqlite3_int64 at)
{
	struct wal *w = wal_of(file);
	int code = write_held(w);
	if (code == SQLITE_OK && w->lost && at >= w->lost_at)
		code = SQLITE_IOERR_READ;
	return code == SQLITE_OK ? w->real->pMethods->xRead(w->real, to, count, at) : code;
}

static int wal_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	int code = write_held(wal_of(file));
	return code == SQLITE_OK ? wal_of(file)->real->pMethods->xTruncate(wal_of(file)->real, size) : code;
}

static int wal_sync(sqlite3_file *file, int flags)
{
	int code = write_held(wal_of(file));
	return code == SQLITE_OK ? wal_of(file)->real->pMethods->xSync(wal_of(file)->real, flags) : code;
}

static int wal_size(sqlite3_file *file, sqlite3_int64 *ret)
{
	int code = write_held(wal_of(file));
	return code == SQLITE_OK ? wal_of(file)->real->pMethods->xFileSize(wal_of(file)->real, ret) : code;
}

/* What is held still is of a commit that did not come. */
static int wal_close(sqlite3_file *file)
{
	struct wal *w = wal_of(file);
	free(w->held);
	return w->real->pMethods->xClose(w->real);
}

static int wal_lock(sqlite3_file *file, int level)
{
	return wal_of(file)->real->pMethods->xLock(wal_of(file)->real, level);
}

static int wal_unlock(sqlite3_file *file, int level)
{
	return wal_of(file)->real->pMethods->xUnlock(wal_of(file)->real, level);
}

static int wal_check_lock(sqlite3_file *file, int *ret)
{
	return wal_of(file)->real->pMethods->xCheckReservedLock(wal_of(file)->real, ret);
}

static int wal_control(sqlite3_file *file, int what, void *argument)
{
	return wal_of(file)->real->pMethods->xFileControl(wal_of(file)->real, what, argument);
}

static int wal_sector(sqlite3_file *file)
{
	return wal_of(file)->real->pMethods->xSectorSize(wal_of(file)->real);
}

static int wal_device(sqlite3_file *file)
{
	return wal_of(file)->real->pMethods->xDeviceCharacteristics(wal_of(file)->real);
}

static const sqlite3_io_methods methods = {
	.iVersion = 1, .xClose = wal_close, .xRead = wal_read, .xWrite = wal_write, .xTruncate = wal_truncate, .xSync = wal_sync,
	.xFileSize = wal_size, .xLock = wal_lock, .xUnlock = wal_unlock, .xCheckReservedLock = wal_check_lock, .xFileControl = wal_control,
	.xSectorSize = wal_sector, .xDeviceCharacteristics = wal_device,
};

/* Every other file is SQLite's own. */
static int wal_open(sqlite3_vfs *self, const char *name, sqlite3_file *file, int flags, int *ret_flags)
{
	(void)self;
	if (!(flags & SQLITE_OPEN_WAL))
		return real_vfs->xOpen(real_vfs, name, file, flags, ret_flags);
	struct wal *w = wal_of(file);
	*w = (struct wal){ .real = (sqlite3_file *)(void *)(w + 1) };
	int code = real_vfs->xOpen(real_vfs, name, w->real, flags, ret_flags);
	if (code == SQLITE_OK)
		w->file.pMethods = &methods;
	return code;
}

static void make(void)
{
	real_vfs = sqlite3_vfs_find(NULL);
	if (!real_vfs)
		return;
	vfs = *real_vfs;
	vfs.zName = "mailfs";
	vfs.szOsFile = real_vfs->szOsFile + (int)sizeof(struct wal);
	vfs.xOpen = wal_open;
	if (sqlite3_vfs_register(&vfs, 0) != SQLITE_OK)
		real_vfs = NULL;
}

const char *wal_vfs(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, make);
	return real_vfs ? vfs.zName : NULL;
}

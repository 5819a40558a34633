#include "cache/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cache/wal.h"

#define BUSY_TIMEOUT_MS 5000

static const char *const texts[] = {
#define X(name, text) [SQL_##name] = text,
	STATEMENTS(X)
#undef X
};

/* What SQLite finds damaged while we run is looked at when the account is opened next: a file says so, since the
 * database cannot be trusted to. */
static void leave_mark(struct db *db)
{
	if (db->damaged || !db->path)
		return;
	db->damaged = true;
	log_error("the index %s is damaged (%s); it is checked at the next start", db->path, sqlite3_errmsg(db->handle));
	MF_CLEANUP(mf_free) char *mark = mf_format("%s.damaged", db->path);
	MF_CLEANUP(mf_close) int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		log_error("%s: %s", mark, strerror(errno));
}

/* SQLite knows a full disk by ENOSPC alone, and forgets what else a write failed with; errno, cleared before each step,
 * still has it (EDQUOT, EFBIG). */
enum mf_err db_error(struct db *db, int code)
{
	int number = errno;
	switch (code & 0xff) {
	case SQLITE_FULL:
		return MF_NO_SPACE;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		leave_mark(db);
		return MF_CORRUPT;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return MF_BUSY;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return number && mf_err_from_errno(number) == MF_NO_SPACE ? MF_NO_SPACE : MF_IO;
	default:
		return MF_IO;
	}
}

static enum mf_err failed(struct db *db, int code, const char *doing)
{
	enum mf_err e = db_error(db, code);
	log_debug("sqlite: %s (%s): %s", sqlite3_errmsg(db->handle), mf_err_name(e), doing);
	return e;
}

enum mf_err db_exec(struct db *db, const char *sql)
{
	errno = 0;
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
	return code == SQLITE_OK ? MF_OK : failed(db, sqlite3_extended_errcode(db->handle), sql);
}

enum mf_err db_number(struct db *db, const char *sql, int64_t *ret)
{
	sqlite3_stmt *s;
	int code = sqlite3_prepare_v2(db->handle, sql, -1, &s, NULL);
	if (code != SQLITE_OK)
		return failed(db, code, sql);
	errno = 0;
	code = sqlite3_step(s);
	if (code == SQLITE_ROW)
		*ret = sqlite3_column_int64(s, 0);
	enum mf_err e = code == SQLITE_ROW ? MF_OK : code == SQLITE_DONE ? MF_NOT_FOUND : failed(db, code, sql);
	sqlite3_finalize(s);
	return e;
}

static enum mf_err configure(struct db *db, enum db_role role)
{
	sqlite3_extended_result_codes(db->handle, 1);
	sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
	/* closing must not write into a file that turns out to be newer than we are */
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db->handle, SQLITE_DBCONFIG_LOOKASIDE, NULL, 256, 80);
	enum mf_err e = db_exec(db, role == DB_WRITER ? "PRAGMA cache_size = -2048" : "PRAGMA cache_size = -512");
	/* NORMAL with a WAL: no fsync at a commit; FULL for one commit is what makes a barrier */
	return e ? e : db_exec(db, "PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;"
	                           "PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = OFF");
}

/* Counting the bytes that are allocated takes a lock each time, and nobody asks for them. */
static void configure_library(void)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

enum mf_err db_open(struct db *db, const char *path, enum db_role role)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, configure_library);
	*db = (struct db){ .path = mf_strdup(path) };
	/* made here, so that nobody else can read it whatever the umask is */
	int fd = role == DB_WRITER ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (role == DB_WRITER && fd < 0 && errno != EEXIST) {
		enum mf_err e = mf_err_from_errno(errno);
		db_close(db);
		return e;
	}
	db->is_made = fd >= 0;
	db->made_fd = fd;
	int flags = SQLITE_OPEN_NOMUTEX | (role == DB_READER ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
	errno = 0;
	int code = sqlite3_open_v2(path, &db->handle, flags, role == DB_WRITER ? wal_vfs() : NULL);
	enum mf_err e = code == SQLITE_OK ? configure(db, role) : failed(db, code, "open");
	if (e)
		db_close(db);
	return e;
}

void db_close(struct db *db)
{
	for (size_t i = 0; i < STATEMENT_COUNT; i++)
		sqlite3_finalize(db->statements[i]);
	sqlite3_close(db->handle);
	if (db->is_made)
		mf_close(&db->made_fd);
	free(db->path);
	*db = (struct db){ 0 };
}

sqlite3_stmt *db_use(struct db *db, enum statement which)
{
	sqlite3_stmt *s = db->statements[which];
	if (s) {
		sqlite3_reset(s);
		return s;
	}
	int code = sqlite3_prepare_v3(db->handle, texts[which], -1, SQLITE_PREPARE_PERSISTENT, &db->statements[which], NULL);
	if (code != SQLITE_OK)
		(void)failed(db, code, texts[which]);
	return db->statements[which];
}

enum mf_err db_step(struct db *db, sqlite3_stmt *s)
{
	if (!s)
		return db_error(db, sqlite3_extended_errcode(db->handle));
	if (db->ended)
		return db->ended;
	errno = 0;
	int code = sqlite3_step(s);
	if (code == SQLITE_ROW)
		return MF_OK;
	enum mf_err e = code == SQLITE_DONE ? MF_NOT_FOUND : failed(db, code, sqlite3_sql(s));
	if (code != SQLITE_DONE && db->begun && sqlite3_get_autocommit(db->handle))
		db->ended = e;
	sqlite3_reset(s);
	return e;
}

enum mf_err db_run(struct db *db, sqlite3_stmt *s)
{
	enum mf_err e;
	while ((e = db_step(db, s)) == MF_OK)
		;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err db_begin(struct db *db)
{
	enum mf_err e = db_run(db, db_use(db, SQL_BEGIN));
	db->begun = e == MF_OK;
	return e;
}

enum mf_err db_commit(struct db *db)
{
	enum mf_err e = db_run(db, db_use(db, SQL_COMMIT));
	db->begun = e != MF_OK;
	return e;
}

enum mf_err db_rollback(struct db *db)
{
	db->begun = false;
	db->ended = MF_OK;
	return sqlite3_get_autocommit(db->handle) ? MF_OK : db_run(db, db_use(db, SQL_ROLLBACK));
}

void db_bind_text(sqlite3_stmt *s, int parameter, const char *text)
{
	if (text)
		sqlite3_bind_text(s, parameter, text, -1, SQLITE_STATIC);
	else
		sqlite3_bind_null(s, parameter);
}

char *db_text(sqlite3_stmt *s, int column)
{
	const unsigned char *text = sqlite3_column_text(s, column);
	return text ? mf_strdup((const char *)text) : NULL;
}

/* db.h: one SQLite connection with its prepared statements; the schema and its steps. Private to cache.
 *
 * A connection belongs to one thread at a time. Usage: s = db_use(db, SQL_X); bind every parameter; db_step() until
 * MF_NOT_FOUND, or db_run(). A statement that could not be prepared is NULL: binding to it is harmless, and db_step()
 * gives the error. What is bound as text must live until the statement is done. */
#ifndef MF_CACHE_DB_H
#define MF_CACHE_DB_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "cache/statements.h"

enum statement {
#define X(name, text) SQL_##name,
	STATEMENTS(X)
#undef X
	STATEMENT_COUNT
};

struct db {
	sqlite3 *handle;
	char *path;
	bool damaged;                     /* SQLite has said so: a mark for the next start has been left */
	bool is_made;                     /* the file was not there before; made_fd stays open as long as SQLite's, whose locks would go with it */
	int made_fd;
	bool begun;                       /* a transaction, by db_begin() */
	enum mf_err ended;                /* MF_OK, or why SQLite has taken that back */
	sqlite3_stmt *statements[STATEMENT_COUNT];
};

enum db_role { DB_WRITER, DB_READER, DB_KEEPER };

/* Opens without changing anything on the disk but making an empty file. */
enum mf_err db_open(struct db *db, const char *path, enum db_role role);
void db_close(struct db *db);         /* a zeroed one is fine */

sqlite3_stmt *db_use(struct db *db, enum statement which);
/* MF_OK: there is a row. MF_NOT_FOUND: no more, and the statement is reset. */
enum mf_err db_step(struct db *db, sqlite3_stmt *s);
enum mf_err db_run(struct db *db, sqlite3_stmt *s);   /* to its end, ignoring rows */
/* A transaction is done as a whole or not at all: after some failures (a full disk) SQLite takes it back by itself, and would do what
 * comes next as if nothing had been begun. So all of that fails, for the same reason, until db_rollback(), which is what
 * follows a commit that fails, too. */
enum mf_err db_begin(struct db *db);
enum mf_err db_commit(struct db *db);
enum mf_err db_rollback(struct db *db);
/* After a row where no more are wanted: an open statement would hold back checkpoints. NULL is fine */
static inline void db_done(sqlite3_stmt *s) { sqlite3_reset(s); }
enum mf_err db_exec(struct db *db, const char *sql);
/* The first column of the first row; MF_NOT_FOUND: no row */
enum mf_err db_number(struct db *db, const char *sql, int64_t *ret);
void db_bind_text(sqlite3_stmt *s, int parameter, const char *text);   /* NULL is NULL */
char *db_text(sqlite3_stmt *s, int column);           /* a copy; NULL for NULL */
/* What SQLite's last failure on this connection means */
enum mf_err db_error(struct db *db, int code);

/* --- the schema ---------------------------------------------------------------------------------------------------- */

#define DB_APPLICATION_ID 0x6d666978 /* "mfix" */

struct schema_step { int version; const char *sql; }; /* leads to this version; versions ascend */
extern const struct schema_step schema_steps[];
extern const size_t schema_step_count;

/* Runs the steps that are missing, in order, all in one transaction. MF_NEWER: the file has a version that no step leads
 * to, and is untouched. */
enum mf_err schema_migrate(struct db *db, const struct schema_step *steps, size_t count);

#endif

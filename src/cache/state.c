/* The folder of an account's state: who holds it, whom it belongs to, and its database from opening to a clean stop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"

#define WAL_SIZE_LIMIT "4194304"

enum mf_err state_make_dir(const char *path, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *copy = mf_strdup(path);
	for (char *p = copy + 1;; p++) {
		if (*p && *p != '/')
			continue;
		char end = *p;
		*p = 0;
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			return mf_fail(why, mf_err_from_errno(errno), "%s: %s", copy, strerror(errno));
		*p = end;
		if (!end)
			return MF_OK;
	}
}

/* --- the lock -------------------------------------------------------------------------------------------------------- */

enum mf_err state_lock(struct cache *c, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/lock", c->state_dir);
	MF_CLEANUP(mf_close) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		char pid[24] = "";
		ssize_t len = pread(fd, pid, sizeof pid - 1, 0);
		pid[len > 0 ? len : 0] = 0;
		pid[strspn(pid, "0123456789")] = 0;
		return mf_fail(why, errno == EWOULDBLOCK ? MF_BUSY : MF_IO, "%s is in use by %s%s", c->state_dir,
		               *pid ? "process " : "another process", pid);
	}
	/* the number only helps a person: whether it can be written does not matter to the lock */
	if (ftruncate(fd, 0) < 0 || dprintf(fd, "%ld\n", (long)getpid()) < 0)
		log_debug("%s: %s", path, strerror(errno));
	c->lock_fd = fd;
	fd = -1;
	return MF_OK;
}

/* --- meta ------------------------------------------------------------------------------------------------------------- */

enum mf_err meta_number(struct db *db, const char *key, int64_t *ret)
{
	sqlite3_stmt *s = db_use(db, SQL_META_GET);
	db_bind_text(s, 1, key);
	enum mf_err e = db_step(db, s);
	if (!e) {
		*ret = sqlite3_column_int64(s, 0);
		db_done(s);
	}
	return e;
}

enum mf_err meta_set_number(struct db *db, const char *key, int64_t value)
{
	sqlite3_stmt *s = db_use(db, SQL_META_SET);
	db_bind_text(s, 1, key);
	sqlite3_bind_int64(s, 2, value);
	return db_run(db, s);
}

static enum mf_err meta_text(struct db *db, const char *key, char **ret)
{
	sqlite3_stmt *s = db_use(db, SQL_META_GET);
	db_bind_text(s, 1, key);
	enum mf_err e = db_step(db, s);
	if (!e) {
		*ret = db_text(s, 0);
		db_done(s);
		if (!*ret)
			e = MF_NOT_FOUND;
	}
	return e;
}

static enum mf_err meta_set_text(struct db *db, const char *key, const char *value)
{
	sqlite3_stmt *s = db_use(db, SQL_META_SET);
	db_bind_text(s, 1, key);
	db_bind_text(s, 2, value);
	return db_run(db, s);
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

/* What can be asked cheaply of a file that nobody has open: is it ours, is it as long as it says */
static enum mf_err check_file(struct db *db)
{
	int64_t id = 0, version = 0, pages = 0, size = 0;
	enum mf_err e = db_number(db, "PRAGMA application_id", &id);
	if (!e)
		e = db_number(db, "PRAGMA user_version", &version);
	if (!e)
		e = db_number(db, "PRAGMA page_count", &pages);
	if (!e)
		e = db_number(db, "PRAGMA page_size", &size);
	if (e)
		return e;
	if (pages > 0 && id != DB_APPLICATION_ID) {
		int64_t tables = 0;
		e = db_number(db, "SELECT count(*) FROM sqlite_schema", &tables);
		if (e || tables || id || version)
			return e ? e : MF_CORRUPT; /* something else lies here under this name */
	}
	if (version > schema_steps[schema_step_count - 1].version)
		return MF_NEWER;
	MF_CLEANUP(mf_free) char *wal = mf_format("%s-wal", db->path);
	struct stat file, log;
	if (stat(db->path, &file) < 0)
		return MF_IO;
	bool has_log = stat(wal, &log) == 0 && log.st_size > 0;
	return !has_log && file.st_size < pages * size ? MF_CORRUPT : MF_OK;
}

static bool is_marked(const struct db *db)
{
	MF_CLEANUP(mf_free) char *mark = mf_format("%s.damaged", db->path);
	return access(mark, F_OK) == 0;
}

static void unmark(const char *db_path)
{
	MF_CLEANUP(mf_free) char *mark = mf_format("%s.damaged", db_path);
	if (unlink(mark) < 0 && errno != ENOENT)
		log_warning("%s: %s", mark, strerror(errno));
}

static enum mf_err check_pages(struct db *db, const char *pragma)
{
	sqlite3_stmt *s;
	int code = sqlite3_prepare_v2(db->handle, pragma, -1, &s, NULL);
	if (code != SQLITE_OK)
		return db_error(db, code);
	code = sqlite3_step(s);
	const char *answer = code == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
	enum mf_err e = code != SQLITE_ROW ? db_error(db, code) : answer && !strcmp(answer, "ok") ? MF_OK : MF_CORRUPT;
	sqlite3_finalize(s);
	return e;
}

static void read_boot_id(char ret[static 40])
{
	ret[0] = 0;
	MF_CLEANUP(mf_close) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, ret, 39) : 0;
	ret[len > 0 ? len : 0] = 0;
	ret[strcspn(ret, "\n")] = 0;
}

/* The count of bodies at the last stop, if that was a clean one; a new index has none */
static enum mf_err read_body_count(struct cache *c, bool clean)
{
	struct bodies *b = &c->bodies;
	enum mf_err e = meta_number(&c->db, "bodies", &b->base_count);
	if (!e)
		e = meta_number(&c->db, "body_bytes", &b->base_bytes);
	b->counted = clean && (!e || e == MF_NOT_FOUND);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* Whether the machine ended under whoever had the file open last: a stop leaves no boot id behind. Counted, since bodies
 * written before that are compared with their checksums. */
static enum mf_err note_start(struct cache *c)
{
	char boot[40];
	read_boot_id(boot);
	MF_CLEANUP(mf_free) char *last = NULL;
	int64_t trust = 0;
	enum mf_err e = meta_text(&c->db, "running", &last);
	if (e && e != MF_NOT_FOUND)
		return e;
	e = meta_number(&c->db, "trust", &trust);
	if (e && e != MF_NOT_FOUND)
		return e;
	bool machine_ended = last && strcmp(last, boot) != 0;
	if (machine_ended) {
		log_info("the machine stopped without warning: checking the index %s", c->db_path);
		e = check_pages(&c->db, "PRAGMA quick_check(1)");
		if (e)
			return e;
		trust++;
	}
	c->bodies.trust = (uint32_t)trust;
	e = read_body_count(c, last == NULL);
	if (!e)
		e = meta_set_number(&c->db, "trust", trust);
	return e ? e : meta_set_text(&c->db, "running", boot);
}

static enum mf_err read_epoch(struct cache *c)
{
	int64_t epoch = 0;
	enum mf_err e = meta_number(&c->db, "epoch", &epoch);
	if (e == MF_NOT_FOUND) {
		uint32_t number = 0;
		while (!number)
			if (getrandom(&number, sizeof number, 0) != sizeof number)
				return MF_IO;
		epoch = number;
		e = meta_set_number(&c->db, "epoch", epoch);
	}
	c->epoch = (uint32_t)epoch;
	int64_t listed = 0;
	if (!e && (e = meta_number(&c->db, "listed", &listed)) == MF_NOT_FOUND)
		e = MF_OK;
	atomic_store(&c->listed, listed != 0);
	return e;
}

/* A new file waits for no disk: nothing is in it that could be lost. cache_flush() sees to it before it matters. */
static enum mf_err hold_syncs(struct cache *c, bool hold)
{
	return c->db.is_made ? db_exec(&c->db, hold ? "PRAGMA synchronous = OFF" : "PRAGMA synchronous = NORMAL") : MF_OK;
}

static enum mf_err prepare(struct cache *c)
{
	enum mf_err e = check_file(&c->db);
	if (!e && is_marked(&c->db))
		e = check_pages(&c->db, "PRAGMA integrity_check(1)");
	if (!e)
		e = hold_syncs(c, true);
	if (e)
		return e;
	char sql[64];
	snprintf(sql, sizeof sql, "PRAGMA application_id = %d", DB_APPLICATION_ID);
	/* of a new file: a change touches a dozen places, and each of them is a page in the log */
	e = db_exec(&c->db, "PRAGMA page_size = 2048; PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = " WAL_SIZE_LIMIT);
	int64_t id = 0;
	if (!e && (e = db_number(&c->db, "PRAGMA application_id", &id)) == MF_OK && id != DB_APPLICATION_ID)
		e = db_exec(&c->db, sql);
	if (!e)
		e = schema_migrate(&c->db, schema_steps, schema_step_count);
	if (!e)
		e = note_start(c);
	if (!e)
		e = read_epoch(c);
	if (!e)
		e = mailboxes_load(c);
	if (!e)
		e = hold_syncs(c, false);
	if (e)
		return e;
	unmark(c->db_path);
	sqlite3_db_config(c->db.handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return MF_OK;
}

static enum mf_err open_once(struct cache *c)
{
	enum mf_err e = db_open(&c->db, c->db_path, DB_WRITER);
	if (e)
		return e;
	e = prepare(c);
	if (e) {
		mailboxes_finish(&c->table);
		db_close(&c->db);
	}
	return e;
}

/* What only the damaged file holds stays where a person can find it. */
static enum mf_err put_aside(struct cache *c, struct mf_reason *why)
{
	char date[32];
	time_t now = (time_t)clock_wall_s();
	struct tm parts;
	gmtime_r(&now, &parts);
	strftime(date, sizeof date, "%Y%m%dT%H%M%SZ", &parts);
	MF_CLEANUP(mf_free) char *aside = mf_format("%s.corrupt-%s", c->db_path, date);
	for (int i = 2; access(aside, F_OK) == 0; i++) {
		free(aside);
		aside = mf_format("%s.corrupt-%s-%d", c->db_path, date, i);
	}
	MF_CLEANUP(mf_free) char *wal = mf_format("%s-wal", c->db_path);
	MF_CLEANUP(mf_free) char *wal_aside = mf_format("%s-wal", aside);
	struct stat st;
	if (stat(wal, &st) == 0 && st.st_size == 0 && unlink(wal) < 0)
		log_warning("%s: %s", wal, strerror(errno));
	MF_CLEANUP(mf_free) char *shm = mf_format("%s-shm", c->db_path);
	if (rename(c->db_path, aside) < 0 || (rename(wal, wal_aside) < 0 && errno != ENOENT) ||
	    (unlink(shm) < 0 && errno != ENOENT))
		return mf_fail(why, mf_err_from_errno(errno), "%s is damaged and cannot be put aside: %s", c->db_path, strerror(errno));
	unmark(c->db_path);
	log_warning("the index %s was damaged; it is kept as %s, and a new one is built from the server", c->db_path, aside);
	return MF_OK;
}

enum mf_err state_open_db(struct cache *c, struct mf_reason *why)
{
	enum mf_err e = open_once(c);
	if (e == MF_CORRUPT) {
		e = put_aside(c, why);
		if (e)
			return e;
		e = open_once(c);
	}
	if (e == MF_NEWER)
		return mf_fail(why, e, "%s was written by a newer version of mailfs; nothing was changed", c->db_path);
	return e ? mf_fail(why, e, "%s: %s", c->db_path, mf_err_words(e)) : MF_OK;
}

/* --- whose it is ------------------------------------------------------------------------------------------------------ */

/* "imap user@host": what was remembered has the host's name as the config file wrote it then */
static bool is_same_account(const char *known, const char *identity)
{
	const char *at = strrchr(known, '@');
	size_t user = at ? (size_t)(at - known) : strlen(known);
	return strncmp(known, identity, user) == 0 && strcasecmp(known + user, identity + user) == 0;
}

enum mf_err state_identify(struct cache *c, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *known = NULL;
	enum mf_err e = meta_text(&c->db, "identity", &known);
	if (e && e != MF_NOT_FOUND)
		return mf_fail(why, e, "%s: %s", c->db_path, mf_err_words(e));
	MF_CLEANUP(mf_free) char *adopt = mf_format("%s/adopt", c->state_dir);
	bool adopting = access(adopt, F_OK) == 0;
	if (known && !is_same_account(known, c->identity) && !adopting)
		return mf_fail(why, MF_INVALID, "this state belongs to %.80s, not to %.80s. To use it anyway: touch '%s'  To forget it, with what is only there: rm -r '%s'",
		               known, c->identity, adopt, c->state_dir);
	if (!known || strcmp(known, c->identity) != 0)
		e = meta_set_text(&c->db, "identity", c->identity);
	else
		e = MF_OK;
	if (!e && adopting && unlink(adopt) < 0)
		e = mf_fail(why, mf_err_from_errno(errno), "%s: %s", adopt, strerror(errno));
	return e;
}

enum mf_err state_close_db(struct cache *c)
{
	uint64_t count, bytes;
	enum mf_err e = MF_OK;
	if (c->bodies.counted) {
		bodies_total(c, &count, &bytes);
		e = meta_set_number(&c->db, "bodies", (int64_t)count);
		if (!e)
			e = meta_set_number(&c->db, "body_bytes", (int64_t)bytes);
	}
	if (!e)
		e = db_exec(&c->db, "DELETE FROM meta WHERE key = 'running'");
	int code = sqlite3_wal_checkpoint_v2(c->db.handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	if (code != SQLITE_OK && !e)
		e = db_error(&c->db, code);
	db_close(&c->db);
	return e;
}

/* What the spool holds when mailfs starts: what a call or a transaction had begun when the one before ended. See spool.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "cache/spool_file.h"
#include "cache/txn.h"

/* What the note of a spooled file says behind that key, "" if nothing; the caller frees */
static char *noted(int fd, const struct spool_tail *tail, const char *key)
{
	char text[SPOOL_NOTE_MAX];
	size_t len;
	(void)file_read(fd, tail->size, text, tail->note_len, &len);
	text[len] = 0;
	const char *value = strstr(text, key);
	value = value ? value + strlen(key) : "";
	return mf_strndup(value, strcspn(value, "\n"));
}

/* The machine may have ended between a file and its transaction: what is in the file counts. */
static enum mf_err mend_content(struct txn *t, struct row *row)
{
	char file[SPOOL_NAME_MAX];
	MF_CLEANUP(mf_close) int fd = -1;
	struct spool_tail tail;
	struct mail_summary summary;
	spool_name(row->entry.id, false, file);
	enum mf_err e = spool_open_name(t->cache->spool_dir, file, &fd, &tail);
	if (e)
		return e == MF_NOT_FOUND || e == MF_CORRUPT ? MF_OK : e; /* replay finds out, and says so */
	e = summarise(fd, tail.size, &summary);
	if (e)
		return e;
	MF_CLEANUP(mf_free) char *date = noted(fd, &tail, SPOOL_NOTED_DATE);
	struct message_put put = { .size = tail.size, .internal_date = strtoll(date, NULL, 10), .keywords = "", .summary = &summary };
	if (tail.size != row->entry.size || !identity_is_same(t, row->entry.id, &put, row->entry.mtime, true))
		e = content_store(t, row, &put);
	mail_summary_finish(&summary);
	return e;
}

/* Its bytes had been accepted, or it had got its name, and the machine ended before that was in the index: a message all the same.
 * MF_NOT_FOUND, MF_INVALID, MF_CORRUPT (torn): it cannot be one */
static enum mf_err accept_late(struct txn *t, const struct row *row)
{
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t message = row->entry.id, size, final;
	struct spool_note note = { "", row->name, row->entry.mtime };
	struct mail_summary summary;
	enum mf_err e = spool_open(t->cache, message, &fd, &size);
	if (!e)
		e = spool_prepare(t->cache, message, fd, size, true, &note, &final);
	if (!e && spool_was_asked(t->cache, message))
		e = spool_flush(t->cache, message, true);
	if (!e)
		e = summarise(fd, size, &summary);
	if (e)
		return e;
	e = written_late(t, message, &(struct written){ .size = final, .summary = &summary, .internal_date = row->entry.mtime, .upload = true });
	if (e)
		spool_discard_prepared(t->cache, message);
	mail_summary_finish(&summary);
	return e;
}

static enum mf_err is_wanted(struct txn *t, uint64_t message, bool *ret)
{
	struct row row;
	struct ops ops = { 0 };
	enum mf_err e = row_by_id(t, message, &row);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	e = ops_of_message(t, message, &ops);
	const struct op *placing = ops_placing(&ops);
	/* a scratch file; one that is only here; one that was to be, and is to be expunged */
	*ret = row.local || (!row.entry.uid && (!placing || placing->kind == OP_KEEP || placing->kind == OP_EXPUNGE));
	for (size_t i = 0; i < ops.count && !*ret; i++)
		*ret = ops.items[i].kind == OP_APPEND;
	ops_finish(&ops);
	if (e || !*ret)
		return e;
	if (!row.local || name_is_scratch(row.name))
		return mend_content(t, &row);
	e = accept_late(t, &row);
	*ret = e == MF_OK || e == MF_NO_SPACE;
	if (e == MF_NO_SPACE)
		log_error("%s: it is sent when there is room on this disk, and mailfs starts again", row.name);
	return e == MF_NOT_FOUND || e == MF_INVALID || e == MF_CORRUPT || e == MF_NO_SPACE ? MF_OK : e;
}

/* The server has the message of that row, with as many bytes: what was put aside is one copy too many. */
static enum mf_err is_spare(struct txn *t, uint64_t message, bool *ret)
{
	struct row row;
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size = 0;
	enum mf_err e = row_by_id(t, message, &row);
	if (e)
		return e == MF_NOT_FOUND ? MF_OK : e;
	*ret = row.entry.uid && spool_open(t->cache, message, &fd, &size) == MF_OK && size == row.entry.size;
	return MF_OK;
}

/* The file has the bytes of that message, as far as the index knows them. */
static bool is_of_message(struct txn *t, const char *file, const struct row *row)
{
	MF_CLEANUP(mf_close) int fd = -1;
	struct spool_tail tail;
	struct mail_summary summary;
	bool same = spool_open_name(t->cache->spool_dir, file, &fd, &tail) == MF_OK && tail.size == row->entry.size &&
	            summarise(fd, tail.size, &summary) == MF_OK;
	if (!same)
		return false;
	struct message_put put = { .size = tail.size, .summary = &summary };
	same = identity_is_same(t, row->entry.id, &put, row->entry.mtime, true);
	mail_summary_finish(&summary);
	return same;
}

/* The message that is to be stored, and whose bytes the file has, while what has its name in the spool is not there, or of another: it
 * was to give that up (txn_spool_rename), and the transaction was not committed. 0: none */
static enum mf_err find_owner(struct txn *t, const char *file, uint64_t *ret)
{
	struct ops ops = { 0 };
	*ret = 0;
	enum mf_err e = ops_collect(t, db_use(t->db, SQL_OP_APPENDS), &ops);
	for (size_t i = 0; i < ops.count && !e && !*ret; i++) {
		char own[SPOOL_NAME_MAX];
		struct row row;
		spool_name(ops.items[i].message, false, own);
		e = row_by_id(t, ops.items[i].message, &row);
		if (!e && !is_of_message(t, own, &row) && is_of_message(t, file, &row))
			*ret = row.entry.id;
		e = e == MF_NOT_FOUND ? MF_OK : e;
	}
	ops_finish(&ops);
	return e;
}

/* A file that no row and no operation knows: its index was lost, or it was written and never closed. edited: the name under which, if it
 * was; NULL: it was not. false: it stays where it is */
static bool recover_stray(struct cache *c, const char *file, const char *edited)
{
	MF_CLEANUP(mf_close) int fd = openat(c->spool_dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct spool_tail tail;
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0) {
		log_warning("spool/%s: %s", file, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode)) {
		log_warning("spool/%s: not a file, and none of ours", file);
		return false;
	}
	bool whole = !edited && spool_read_tail(fd, &tail) == MF_OK;
	MF_CLEANUP(mf_free) char *name = whole ? noted(fd, &tail, SPOOL_NOTED_NAME) : mf_strdup(edited && *edited ? edited : "unfinished.eml");
	uint64_t size = whole ? tail.size : (uint64_t)st.st_size;
	enum mf_err e = size == 0 ? MF_OK : spool_reject_fd(c, fd, size, name, edited ? "mailfs ended while it was being written"
		: "the index did not know what it was for; it may be at the server already");
	if (!e)
		spool_discard(c->spool_dir, file);
	else
		log_error("spool/%s: %s", file, mf_err_words(e));
	return e == MF_OK;
}

static int next_byte(FILE *file, uint64_t *left)
{
	int c = '\r';
	while (c == '\r' && *left) {
		c = getc(file);
		(*left)--;
	}
	return c == '\r' ? EOF : c;
}

/* Line ends apart, which are what storing changes */
static bool same_text(FILE *a, uint64_t a_size, FILE *b, uint64_t b_size)
{
	int x, y;
	do {
		x = next_byte(a, &a_size);
		y = next_byte(b, &b_size);
	} while (x == y && x != EOF);
	return x == y;
}

/* All of its bytes had been accepted: only the file was left. */
static bool was_accepted(struct cache *c, const char *edit, uint64_t message)
{
	int fd = -1;
	uint64_t size = 0;
	struct stat st;
	FILE *accepted = spool_open(c, message, &fd, &size) == MF_OK ? fdopen(fd, "r") : NULL;
	if (!accepted) {
		mf_close(&fd);
		return false;
	}
	fd = openat(c->spool_dir, edit, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	FILE *written = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fdopen(fd, "r") : NULL;
	bool same = written && same_text(accepted, size, written, (uint64_t)st.st_size);
	fclose(accepted);
	if (written)
		fclose(written);
	else
		mf_close(&fd);
	return same;
}

/* What its owner has instead was accepted, and maybe closed: it is put aside, unless what it was written into is there as well. */
static bool makes_room(struct cache *c, uint64_t owner)
{
	char name[SPOOL_NAME_MAX], edit[SPOOL_NAME_MAX];
	spool_name(owner, false, name);
	spool_name(owner, true, edit);
	return !spool_has(c, owner) || was_accepted(c, edit, owner) || recover_stray(c, name, NULL);
}

static enum mf_err recover_renamed(struct txn *t, const char *file)
{
	char *end;
	struct row row;
	uint64_t message = strtoull(file, &end, 10), owner = 0;
	enum mf_err e = *end ? MF_OK : row_by_id(t, message, &row);
	if (e == MF_NOT_FOUND)
		e = find_owner(t, file, &owner);
	return e || !owner || !makes_room(t->cache, owner) ? e : spool_rename(t->cache, message, owner);
}

static enum mf_err recover_file(struct txn *t, const char *file)
{
	char *end;
	uint64_t message = strtoull(file, &end, 10);
	bool edit = strcmp(end, ".edit") == 0, wanted = false, spare = false;
	struct row row = { .name = "" };
	/* a call that prepared something, or put it over another, never returned; or one that has returned has stored it */
	if (strcmp(end, ".new") == 0 || strcmp(end, ".keep") == 0 || strcmp(end, ".old") == 0 || (edit && was_accepted(t->cache, file, message))) {
		spool_discard(t->cache->spool_dir, file);
		return MF_OK;
	}
	enum mf_err e = edit ? row_by_id(t, message, &row) : *end ? MF_OK : is_wanted(t, message, &wanted);
	if (edit && e == MF_NOT_FOUND)
		e = MF_OK; /* its index was lost */
	if (!e && !wanted && !edit && !*end)
		e = is_spare(t, message, &spare);
	if (!e && spare)
		spool_to_body(t->cache, message);
	else if (!e && !wanted)
		(void)recover_stray(t->cache, file, edit ? row.name : NULL);
	return e;
}

static enum mf_err each_file(struct txn *t, enum mf_err (*call)(struct txn *t, const char *file))
{
	int fd = openat(t->cache->spool_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		mf_close(&fd);
		return mf_err_from_errno(errno);
	}
	enum mf_err e = MF_OK;
	for (const struct dirent *d; !e && (d = readdir(dir));)
		if (d->d_name[0] != '.') {
			atomic_store(&t->cache->spooled, true);
			e = call(t, d->d_name);
		}
	closedir(dir);
	return e;
}

/* Names whose bytes were never accepted */
static enum mf_err recover_rows(struct txn *t)
{
	struct map rows = { 0 };
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_LOCALS);
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK)
		map_add(&rows, 0, (uint64_t)sqlite3_column_int64(s, 0));
	e = e == MF_NOT_FOUND ? MF_OK : e;
	for (uint32_t i = 1; i <= rows.used && !e; i++) {
		if (spool_has(t->cache, rows.entries[i].value))
			continue;
		e = txn_drop_local(t, rows.entries[i].value);
		if (e == MF_NOT_FOUND) /* it lies on no shelf that is seen */
			e = row_remove(t, rows.entries[i].value);
	}
	map_finish(&rows);
	return e;
}

enum mf_err spool_recover(struct cache *c)
{
	int64_t ops = 0;
	enum mf_err e = db_number(&c->db, "SELECT count(*) FROM op", &ops);
	atomic_store(&c->op_count, (uint64_t)ops);
	struct txn *t = NULL;
	if (!e)
		e = cache_begin(c, &t);
	if (!e)
		e = each_file(t, recover_renamed); /* all of them first: what a file was written for is compared with what is there */
	if (!e)
		e = each_file(t, recover_file);
	if (!e)
		e = recover_rows(t);
	if (e) {
		txn_rollback(t);
		return e;
	}
	return txn_commit(t);
}

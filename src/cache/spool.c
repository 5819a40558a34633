#include "cache/spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/txn.h"

/* Behind the message's bytes: this text, its length and the magic. Fixed numbers are little-endian, as on all machines that
 * mailfs runs on. */
static const char magic[8] = { 'm', 'f', 's', 'p', 'o', 'o', 'l', '1' };
struct tail { uint64_t size; uint32_t note_len, asked; char magic[8]; };

#define NOTE_MAX 8192
#define SPOOL_NAME_MAX 32
#define SYNC_HELPERS 3
#define REASON_SUFFIX ".reason.txt"

static void spool_name(uint64_t message, bool edit, char ret[static SPOOL_NAME_MAX])
{
	snprintf(ret, SPOOL_NAME_MAX, "%" PRIu64 "%s", message, edit ? ".edit" : "");
}

/* Each LF that no CR goes before gets one. MF_INVALID: there is a NUL, which no APPEND carries as it is (RFC 3501 9, CHAR8). */
static enum mf_err copy_lines(int from, int to, uint64_t size, uint64_t *ret_size)
{
	char in[32768], out[2 * sizeof in], before = 0;
	uint64_t written = 0;
	for (uint64_t at = 0; at < size;) {
		size_t n, want = size - at < sizeof in ? (size_t)(size - at) : sizeof in, len = 0;
		enum mf_err e = file_read(from, at, in, want, &n);
		if (e || n < want)
			return e ? e : MF_IO;
		if (memchr(in, '\0', n))
			return MF_INVALID;
		for (size_t i = 0; i < n; i++) {
			if (in[i] == '\n' && before != '\r')
				out[len++] = '\r';
			out[len++] = before = in[i];
		}
		e = file_write(to, written, out, len);
		if (e)
			return e;
		written += len;
		at += n;
	}
	*ret_size = written;
	return MF_OK;
}

static void discard(int dir, const char *name)
{
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		log_warning("spool/%s: %s", name, strerror(errno));
}

/* --- the spool ------------------------------------------------------------------------------------------------------------ */

enum mf_err spool_edit(struct cache *c, uint64_t message, int *ret)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, true, name);
	atomic_store(&c->spooled, true);
	*ret = openat(c->spool_dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return *ret < 0 ? mf_err_from_errno(errno) : MF_OK;
}

static enum mf_err write_tail(int fd, uint64_t size, const struct spool_note *note)
{
	char text[NOTE_MAX];
	int len = snprintf(text, sizeof text, "mailbox: %s\nname: %s\ninternal-date: %" PRId64 "\n", note->mailbox, note->name, note->internal_date);
	struct tail tail = { .size = size, .note_len = (uint32_t)(len < NOTE_MAX ? len : NOTE_MAX - 1) };
	memcpy(tail.magic, magic, sizeof magic);
	enum mf_err e = file_write(fd, size, text, tail.note_len);
	return e ? e : file_write(fd, size + tail.note_len, &tail, sizeof tail);
}

static void fresh_name(uint64_t message, char ret[static SPOOL_NAME_MAX])
{
	snprintf(ret, SPOOL_NAME_MAX, "%" PRIu64 ".new", message);
}

static enum mf_err prepare_as(struct cache *c, const char *fresh, int fd, uint64_t size, bool mail, const struct spool_note *note, uint64_t *ret_size)
{
	atomic_store(&c->spooled, true);
	MF_CLEANUP(mf_close) int to = openat(c->spool_dir, fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (to < 0)
		return mf_err_from_errno(errno);
	*ret_size = size;
	enum mf_err e = mail ? copy_lines(fd, to, size, ret_size) : file_copy(fd, to, size);
	if (!e)
		e = write_tail(to, *ret_size, note);
	if (e)
		discard(c->spool_dir, fresh);
	return e;
}

enum mf_err spool_prepare(struct cache *c, uint64_t message, int fd, uint64_t size, bool mail, const struct spool_note *note, uint64_t *ret_size)
{
	char fresh[SPOOL_NAME_MAX];
	fresh_name(message, fresh);
	return prepare_as(c, fresh, fd, size, mail, note, ret_size);
}

void spool_discard_prepared(struct cache *c, uint64_t message)
{
	char fresh[SPOOL_NAME_MAX];
	fresh_name(message, fresh);
	discard(c->spool_dir, fresh);
}

static enum mf_err commit_from(struct cache *c, const char *fresh, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, false, name);
	if (renameat(c->spool_dir, fresh, c->spool_dir, name) < 0)
		return mf_err_from_errno(errno);
	keeper_spooled(c, message);
	return MF_OK;
}

enum mf_err spool_commit(struct cache *c, uint64_t message)
{
	char fresh[SPOOL_NAME_MAX];
	fresh_name(message, fresh);
	return commit_from(c, fresh, message);
}

void spool_discard_edit(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, true, name);
	discard(c->spool_dir, name);
}

void spool_remove(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, false, name);
	discard(c->spool_dir, name);
}

/* MF_CORRUPT: torn by the end of the machine, or none of ours */
static enum mf_err read_tail(int fd, struct tail *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return mf_err_from_errno(errno);
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof *ret)
		return MF_CORRUPT;
	if (pread(fd, ret, sizeof *ret, st.st_size - (off_t)sizeof *ret) != sizeof *ret)
		return MF_CORRUPT;
	bool fits = ret->size <= (uint64_t)st.st_size && ret->note_len < NOTE_MAX && ret->size + ret->note_len + sizeof *ret == (uint64_t)st.st_size;
	return memcmp(ret->magic, magic, sizeof magic) == 0 && fits ? MF_OK : MF_CORRUPT;
}

static enum mf_err note_asked(int fd)
{
	struct tail tail;
	struct stat st;
	enum mf_err e = fstat(fd, &st) < 0 ? mf_err_from_errno(errno) : read_tail(fd, &tail);
	tail.asked = 1;
	return e ? e : file_write(fd, (uint64_t)st.st_size - sizeof tail, &tail, sizeof tail);
}

enum mf_err spool_flush(struct cache *c, uint64_t message, bool asked)
{
	char fresh[SPOOL_NAME_MAX];
	fresh_name(message, fresh);
	MF_CLEANUP(mf_close) int fd = openat(c->spool_dir, fresh, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	enum mf_err e = fd < 0 ? mf_err_from_errno(errno) : asked ? note_asked(fd) : MF_OK;
	return !e && fsync(fd) < 0 ? mf_err_from_errno(errno) : e;
}

static enum mf_err open_name(int dir, const char *name, int *ret_fd, struct tail *ret_tail)
{
	MF_CLEANUP(mf_close) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return mf_err_from_errno(errno);
	enum mf_err e = read_tail(fd, ret_tail);
	if (e)
		return e;
	*ret_fd = fd;
	fd = -1;
	return MF_OK;
}

enum mf_err spool_open(struct cache *c, uint64_t message, int *ret_fd, uint64_t *ret_size)
{
	char name[SPOOL_NAME_MAX];
	struct tail tail;
	if (!atomic_load(&c->spooled))
		return MF_NOT_FOUND;
	spool_name(message, false, name);
	enum mf_err e = open_name(c->spool_dir, name, ret_fd, &tail);
	if (!e)
		*ret_size = tail.size;
	return e;
}

bool spool_was_asked(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	struct tail tail;
	MF_CLEANUP(mf_close) int fd = -1;
	spool_name(message, false, name);
	return open_name(c->spool_dir, name, &fd, &tail) == MF_OK && tail.asked;
}

bool spool_has(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, false, name);
	return atomic_load(&c->spooled) && faccessat(c->spool_dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static enum mf_err sync_bytes(struct cache *c, uint64_t message)
{
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size;
	enum mf_err e = spool_open(c, message, &fd, &size);
	if (e)
		return e;
	return fdatasync(fd) < 0 ? mf_err_from_errno(errno) : MF_OK;
}

enum mf_err spool_sync_names(struct cache *c)
{
	return atomic_load(&c->spooled) && fsync(c->spool_dir) < 0 ? mf_err_from_errno(errno) : MF_OK;
}

enum mf_err spool_sync(struct cache *c, uint64_t message)
{
	enum mf_err e = sync_bytes(c, message);
	return e ? e : spool_sync_names(c);
}

enum mf_err spool_sync_edit(struct cache *c, int fd)
{
	return fdatasync(fd) < 0 ? mf_err_from_errno(errno) : spool_sync_names(c);
}

/* Where it cannot be begun, fdatasync() does it all, and says what is wrong. */
static void begin_writing(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, false, name);
	MF_CLEANUP(mf_close) int fd = openat(c->spool_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0)
		(void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

struct syncing {
	struct cache *cache;
	const uint64_t *messages;
	enum mf_err *results;
	size_t count;
	atomic_size_t next;
};

static void *sync_some(void *context)
{
	struct syncing *s = context;
	size_t i;
	while ((i = atomic_fetch_add(&s->next, 1)) < s->count)
		s->results[i] = sync_bytes(s->cache, s->messages[i]);
	return NULL;
}

/* All of them are on their way before the first is waited for, so that one commit of a journalling file system has them all;
 * and several wait at a time, so that the disk empties its cache for all of them at once. */
static void sync_together(struct syncing *s)
{
	pthread_t helpers[SYNC_HELPERS];
	size_t count = 0;
	for (size_t i = 0; i < s->count && s->count > 1; i++)
		begin_writing(s->cache, s->messages[i]);
	while (count < SYNC_HELPERS && count + 1 < s->count && pthread_create(&helpers[count], NULL, sync_some, s) == 0)
		count++; /* with fewer it takes longer */
	sync_some(s);
	while (count)
		pthread_join(helpers[--count], NULL);
}

enum mf_err spool_sync_all(struct cache *c, const uint64_t *messages, size_t count, enum mf_err *results)
{
	struct syncing s = { .cache = c, .messages = messages, .results = results, .count = count };
	enum mf_err e = MF_OK;
	/* before: what is written over one of them meanwhile is the keeper's again */
	keeper_spool_taken(c, messages, count);
	sync_together(&s);
	for (size_t i = 0; i < count && !e; i++)
		if (results[i] != MF_NOT_FOUND && results[i] != MF_CORRUPT)
			e = results[i];
	if (!e && count)
		e = spool_sync_names(c);
	for (size_t i = 0; i < count && e; i++)
		keeper_spooled(c, messages[i]);
	return e;
}

void spool_to_body(struct cache *c, uint64_t message)
{
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size;
	enum mf_err e = spool_open(c, message, &fd, &size);
	if (!e)
		e = bodies_import(c, message, fd, size);
	if (e && e != MF_NOT_FOUND)
		log_debug("message %" PRIu64 ": its bytes will be fetched again: %s", message, mf_err_words(e));
	spool_remove(c, message);
}

bool spool_ends_line(struct cache *c, uint64_t message)
{
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size;
	char last;
	return spool_open(c, message, &fd, &size) == MF_OK && size && pread(fd, &last, 1, (off_t)size - 1) == 1 && last == '\n';
}

/* --- in a transaction ------------------------------------------------------------------------------------------------------- */

static void old_name(uint64_t message, char ret[static SPOOL_NAME_MAX])
{
	snprintf(ret, SPOOL_NAME_MAX, "%" PRIu64 ".old", message);
}

static enum mf_err txn_commit_from(struct txn *t, const char *fresh, uint64_t message)
{
	char name[SPOOL_NAME_MAX], old[SPOOL_NAME_MAX];
	int dir = t->cache->spool_dir;
	spool_name(message, false, name);
	old_name(message, old);
	/* EEXIST: the transaction has put something there before, and what was there is kept. Where there are no links nothing is. */
	bool over = linkat(dir, name, dir, old, 0) == 0, vacant = !over && errno == ENOENT;
	if (over || vacant)
		txn_undo(t, message, 0, over);
	return commit_from(t->cache, fresh, message);
}

enum mf_err txn_spool_commit(struct txn *t, uint64_t message)
{
	char fresh[SPOOL_NAME_MAX];
	fresh_name(message, fresh);
	return txn_commit_from(t, fresh, message);
}

/* Its bytes may not be on the disk yet, and the keeper would look for them under the name before. */
static enum mf_err rename_spooled(struct cache *c, uint64_t from, uint64_t to)
{
	char old[SPOOL_NAME_MAX], name[SPOOL_NAME_MAX];
	spool_name(from, false, old);
	spool_name(to, false, name);
	if (renameat(c->spool_dir, old, c->spool_dir, name) < 0)
		return mf_err_from_errno(errno);
	keeper_spooled(c, to);
	return MF_OK;
}

enum mf_err txn_spool_rename(struct txn *t, uint64_t from, uint64_t to)
{
	enum mf_err e = rename_spooled(t->cache, from, to);
	if (!e)
		txn_undo(t, to, from, false);
	return e;
}

static enum mf_err put_back(struct cache *c, const struct txn_undo *undo)
{
	char old[SPOOL_NAME_MAX], name[SPOOL_NAME_MAX];
	if (undo->from)
		return rename_spooled(c, undo->message, undo->from);
	spool_name(undo->message, false, name);
	old_name(undo->message, old);
	if (!undo->over)
		discard(c->spool_dir, name);
	else if (renameat(c->spool_dir, old, c->spool_dir, name) < 0)
		return mf_err_from_errno(errno);
	return MF_OK;
}

void spool_settle_undos(struct txn *t, bool rolled_back)
{
	char old[SPOOL_NAME_MAX];
	for (size_t i = t->undo_count; i-- > 0;) {
		enum mf_err e = rolled_back ? put_back(t->cache, &t->undos[i]) : MF_OK;
		if (e)
			log_error("the spool of message %" PRIu64 ": %s", t->undos[i].message, mf_err_words(e));
		old_name(t->undos[i].message, old);
		if (t->undos[i].over)
			discard(t->cache->spool_dir, old);
	}
}

/* not the one that a person's new version may be prepared under just now */
static void kept_name(uint64_t message, char ret[static SPOOL_NAME_MAX])
{
	snprintf(ret, SPOOL_NAME_MAX, "%" PRIu64 ".keep", message);
}

bool keep_spooled(struct txn *t, const struct row *row)
{
	char fresh[SPOOL_NAME_MAX];
	kept_name(row->entry.id, fresh);
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size;
	struct spool_note note = { "", row->name, row->entry.mtime };
	return spool_open(t->cache, row->entry.id, &fd, &size) == MF_OK && prepare_as(t->cache, fresh, fd, size, false, &note, &size) == MF_OK;
}

enum mf_err txn_spool_share(struct txn *t, uint64_t message, uint64_t other)
{
	char fresh[SPOOL_NAME_MAX];
	kept_name(message, fresh);
	enum mf_err e = txn_spool_rename(t, message, other);
	return e ? e : txn_commit_from(t, fresh, message);
}

bool keep_bytes(struct txn *t, const struct row *row)
{
	char fresh[SPOOL_NAME_MAX];
	kept_name(row->entry.id, fresh);
	struct body *body;
	uint64_t size;
	struct spool_note note = { "", row->name, row->entry.mtime };
	if (cache_body_get(t->cache, row->entry.id, &body))
		return false;
	bool kept = body_is_whole(body) && !prepare_as(t->cache, fresh, body_fd(body), body_size(body), false, &note, &size) &&
	            !txn_commit_from(t, fresh, row->entry.id);
	body_unref(body);
	return kept;
}

/* --- what cannot be sent ------------------------------------------------------------------------------------------------------ */

int rejected_dir(struct cache *c)
{
	return c->rejected_dir;
}

uint64_t rejected_count(struct cache *c)
{
	int fd = openat(c->rejected_dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		mf_close(&fd);
		return 0;
	}
	uint64_t count = 0;
	for (const struct dirent *d; (d = readdir(dir));) {
		size_t len = strlen(d->d_name), suffix = strlen(REASON_SUFFIX);
		count += d->d_name[0] != '.' && (len <= suffix || strcmp(d->d_name + len - suffix, REASON_SUFFIX) != 0);
	}
	closedir(dir);
	return count;
}

/* name, or name with a number where that is taken; room for the suffix of its reason */
static enum mf_err make_rejected(struct cache *c, const char *wish, char ret_name[static NAME_MAX_BYTES + 1], int *ret_fd)
{
	int keep = NAME_MAX_BYTES - (int)strlen(REASON_SUFFIX) - 12, len = (int)strlen(wish);
	if (len > keep) /* a character of UTF-8 is not cut */
		for (len = keep; len > keep - 3 && ((unsigned char)wish[len] & 0xc0) == 0x80;)
			len--;
	for (unsigned i = 1; i < 100000; i++) {
		snprintf(ret_name, NAME_MAX_BYTES + 1, i > 1 ? "%.*s~%u" : "%.*s", len, wish, i);
		*ret_fd = openat(c->rejected_dir, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (*ret_fd >= 0 || errno != EEXIST)
			return *ret_fd < 0 ? mf_err_from_errno(errno) : MF_OK;
	}
	return MF_EXISTS;
}

static enum mf_err write_reason(struct cache *c, const char *name, const char *reason)
{
	char file[NAME_MAX_BYTES + 1];
	snprintf(file, sizeof file, "%.*s%s", NAME_MAX_BYTES - (int)strlen(REASON_SUFFIX), name, REASON_SUFFIX);
	MF_CLEANUP(mf_close) int fd = openat(c->rejected_dir, file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || dprintf(fd, "%s\n", reason) < 0 || fsync(fd) < 0)
		return mf_err_from_errno(errno);
	return MF_OK;
}

/* A name that can be had there, and that is not the reason of another; the caller frees */
static char *rejected_name(const char *name)
{
	size_t len = strlen(name), suffix = strlen(REASON_SUFFIX);
	while (len >= suffix && memcmp(name + len - suffix, REASON_SUFFIX, suffix) == 0)
		len -= suffix;
	return !len || *name == '.' || strchr(name, '/') ? mf_strdup("message.eml") : mf_strndup(name, len);
}

static void discard_rejected(struct cache *c, const char *name)
{
	if (unlinkat(c->rejected_dir, name, 0) < 0)
		log_warning("rejected/%s: %s", name, strerror(errno));
}

static void say_rejected(const char *name, const char *reason)
{
	char text[NAME_MAX_BYTES + 1];
	log_warning("%s is kept in .mailfs/rejected: %s", mf_printable(text, sizeof text, name, strlen(name)), reason);
}

static enum mf_err reject_fd(struct cache *c, int fd, uint64_t size, const char *name, const char *reason)
{
	char own[NAME_MAX_BYTES + 1];
	MF_CLEANUP(mf_close) int to = -1;
	MF_CLEANUP(mf_free) char *wish = rejected_name(name);
	enum mf_err e = make_rejected(c, wish, own, &to);
	if (e)
		return e;
	e = file_copy(fd, to, size);
	if (!e && fsync(to) < 0)
		e = mf_err_from_errno(errno);
	if (!e)
		e = write_reason(c, own, reason);
	if (!e && fsync(c->rejected_dir) < 0)
		e = mf_err_from_errno(errno);
	if (e) { /* the bytes stay where they are */
		discard_rejected(c, own);
		return e;
	}
	say_rejected(own, reason);
	return MF_OK;
}

/* What was being written goes there as it is: on a full disk there is no room for a copy, and maybe none for the reason. */
static enum mf_err reject_edit(struct cache *c, const char *file, const char *name, const char *reason)
{
	char own[NAME_MAX_BYTES + 1];
	MF_CLEANUP(mf_close) int taken = -1;
	MF_CLEANUP(mf_free) char *wish = rejected_name(name);
	enum mf_err e = make_rejected(c, wish, own, &taken);
	if (e)
		return e;
	if (renameat(c->spool_dir, file, c->rejected_dir, own) < 0) {
		e = mf_err_from_errno(errno);
		discard_rejected(c, own);
		return e;
	}
	MF_CLEANUP(mf_close) int fd = openat(c->rejected_dir, own, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fsync(fd) < 0 || write_reason(c, own, reason) != MF_OK || fsync(c->rejected_dir) < 0)
		log_warning("rejected/%s: %s", own, strerror(errno));
	say_rejected(own, reason);
	return MF_OK;
}

enum mf_err spool_reject(struct cache *c, uint64_t message, bool edit, const char *name, const char *reason)
{
	char file[SPOOL_NAME_MAX];
	spool_name(message, edit, file);
	MF_CLEANUP(mf_close) int fd = openat(c->spool_dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	struct tail tail;
	if (fd < 0 || fstat(fd, &st) < 0)
		return mf_err_from_errno(errno);
	if (edit && st.st_size)
		return reject_edit(c, file, name ? name : "message.eml", reason);
	if (edit)
		discard(c->spool_dir, file);
	uint64_t size = read_tail(fd, &tail) == MF_OK ? tail.size : (uint64_t)st.st_size;
	return size ? reject_fd(c, fd, size, name ? name : "message.eml", reason) : MF_OK;
}

/* --- at the start ---------------------------------------------------------------------------------------------------------------- */

enum mf_err spool_open_dirs(struct cache *c)
{
	const char *const names[] = { "spool", "rejected" };
	int *const places[] = { &c->spool_dir, &c->rejected_dir };
	for (size_t i = 0; i < 2; i++) {
		MF_CLEANUP(mf_free) char *path = mf_format("%s/%s", c->state_dir, names[i]);
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return mf_err_from_errno(errno);
		*places[i] = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (*places[i] < 0)
			return mf_err_from_errno(errno);
	}
	return MF_OK;
}

void spool_close_dirs(struct cache *c)
{
	mf_close(&c->spool_dir);
	mf_close(&c->rejected_dir);
}

/* The machine may have ended between a file and its transaction: what is in the file counts. */
static enum mf_err mend_size(struct txn *t, const struct row *row)
{
	int fd;
	uint64_t size;
	enum mf_err e = spool_open(t->cache, row->entry.id, &fd, &size);
	if (e)
		return e == MF_NOT_FOUND || e == MF_CORRUPT ? MF_OK : e; /* replay finds out, and says so */
	mf_close(&fd);
	if (size == row->entry.size)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SIZE);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)size);
	sqlite3_bind_int(s, 3, true);
	return db_run(t->db, s);
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
	return e || !*ret ? e : mend_size(t, &row);
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

/* The name in the note of a spooled file; the caller frees */
static char *noted_name(int fd, const struct tail *tail)
{
	char text[NOTE_MAX];
	size_t len;
	(void)file_read(fd, tail->size, text, tail->note_len, &len);
	text[len] = 0;
	const char *name = strstr(text, "\nname: ");
	name = name ? name + strlen("\nname: ") : "";
	return mf_strndup(name, strcspn(name, "\n"));
}

/* The file has the bytes of that message, as far as the index knows them. */
static bool is_of_message(struct txn *t, const char *file, const struct row *row)
{
	MF_CLEANUP(mf_close) int fd = -1;
	struct tail tail;
	struct mail_summary summary;
	bool same = open_name(t->cache->spool_dir, file, &fd, &tail) == MF_OK && tail.size == row->entry.size &&
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
	struct tail tail;
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0) {
		log_warning("spool/%s: %s", file, strerror(errno));
		return false;
	}
	if (!S_ISREG(st.st_mode)) {
		log_warning("spool/%s: not a file, and none of ours", file);
		return false;
	}
	bool whole = !edited && read_tail(fd, &tail) == MF_OK;
	MF_CLEANUP(mf_free) char *name = whole ? noted_name(fd, &tail) : mf_strdup(edited && *edited ? edited : "unfinished.eml");
	uint64_t size = whole ? tail.size : (uint64_t)st.st_size;
	enum mf_err e = size == 0 ? MF_OK : reject_fd(c, fd, size, name, edited ? "mailfs ended while it was being written"
		: "the index did not know what it was for; it may be at the server already");
	if (!e)
		discard(c->spool_dir, file);
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
	return e || !owner || !makes_room(t->cache, owner) ? e : rename_spooled(t->cache, message, owner);
}

static enum mf_err recover_file(struct txn *t, const char *file)
{
	char *end;
	uint64_t message = strtoull(file, &end, 10);
	bool edit = strcmp(end, ".edit") == 0, wanted = false, spare = false;
	struct row row = { .name = "" };
	/* a call that prepared something, or put it over another, never returned; or one that has returned has stored it */
	if (strcmp(end, ".new") == 0 || strcmp(end, ".keep") == 0 || strcmp(end, ".old") == 0 || (edit && was_accepted(t->cache, file, message))) {
		discard(t->cache->spool_dir, file);
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

#include "cache/spool.h"

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
#include "cache/spool_file.h"
#include "cache/txn.h"

static const char magic[8] = { 'm', 'f', 's', 'p', 'o', 'o', 'l', '1' };

#define SYNC_HELPERS 3

void spool_name(uint64_t message, bool edit, char ret[static SPOOL_NAME_MAX])
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

void spool_discard(int dir, const char *name)
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
	char text[SPOOL_NOTE_MAX];
	int len = snprintf(text, sizeof text, "mailbox: %s" SPOOL_NOTED_NAME "%s" SPOOL_NOTED_DATE "%" PRId64 "\n", note->mailbox, note->name, note->internal_date);
	struct spool_tail tail = { .size = size, .note_len = (uint32_t)(len < SPOOL_NOTE_MAX ? len : SPOOL_NOTE_MAX - 1) };
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
		spool_discard(c->spool_dir, fresh);
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
	spool_discard(c->spool_dir, fresh);
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
	spool_discard(c->spool_dir, name);
}

void spool_remove(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	spool_name(message, false, name);
	spool_discard(c->spool_dir, name);
}

enum mf_err spool_read_tail(int fd, struct spool_tail *ret)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return mf_err_from_errno(errno);
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof *ret)
		return MF_CORRUPT;
	if (pread(fd, ret, sizeof *ret, st.st_size - (off_t)sizeof *ret) != sizeof *ret)
		return MF_CORRUPT;
	bool fits = ret->size <= (uint64_t)st.st_size && ret->note_len < SPOOL_NOTE_MAX && ret->size + ret->note_len + sizeof *ret == (uint64_t)st.st_size;
	return memcmp(ret->magic, magic, sizeof magic) == 0 && fits ? MF_OK : MF_CORRUPT;
}

static enum mf_err note_asked(int fd)
{
	struct spool_tail tail;
	struct stat st;
	enum mf_err e = fstat(fd, &st) < 0 ? mf_err_from_errno(errno) : spool_read_tail(fd, &tail);
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

enum mf_err spool_open_name(int dir, const char *name, int *ret_fd, struct spool_tail *ret_tail)
{
	MF_CLEANUP(mf_close) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return mf_err_from_errno(errno);
	enum mf_err e = spool_read_tail(fd, ret_tail);
	if (e)
		return e;
	*ret_fd = fd;
	fd = -1;
	return MF_OK;
}

enum mf_err spool_open(struct cache *c, uint64_t message, int *ret_fd, uint64_t *ret_size)
{
	char name[SPOOL_NAME_MAX];
	struct spool_tail tail;
	if (!atomic_load(&c->spooled))
		return MF_NOT_FOUND;
	spool_name(message, false, name);
	enum mf_err e = spool_open_name(c->spool_dir, name, ret_fd, &tail);
	if (!e)
		*ret_size = tail.size;
	return e;
}

bool spool_was_asked(struct cache *c, uint64_t message)
{
	char name[SPOOL_NAME_MAX];
	struct spool_tail tail;
	MF_CLEANUP(mf_close) int fd = -1;
	spool_name(message, false, name);
	return spool_open_name(c->spool_dir, name, &fd, &tail) == MF_OK && tail.asked;
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

enum mf_err spool_rename(struct cache *c, uint64_t from, uint64_t to)
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
	enum mf_err e = spool_rename(t->cache, from, to);
	if (!e)
		txn_undo(t, to, from, false);
	return e;
}

static enum mf_err put_back(struct cache *c, const struct txn_undo *undo)
{
	char old[SPOOL_NAME_MAX], name[SPOOL_NAME_MAX];
	if (undo->from)
		return spool_rename(c, undo->message, undo->from);
	spool_name(undo->message, false, name);
	old_name(undo->message, old);
	if (!undo->over)
		spool_discard(c->spool_dir, name);
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
			spool_discard(t->cache->spool_dir, old);
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

/* --- its folders --------------------------------------------------------------------------------------------------------------- */

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

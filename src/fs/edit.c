#include "fs/edit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"

#define HEADER_MAX (1 << 20)    /* of a message's header, what names are made of is looked for in */

struct edit {
	LIST_ENTRY(edit) link;          /* fs->open_lock */
	unsigned refs;                  /* fs->open_lock; the list has one */
	struct fs *fs;
	struct node node;
	pthread_mutex_t lock;           /* who changes what follows holds it. stat(2) comes while the index is locked, and takes none */
	atomic_int fd;                  /* -1: it has not begun yet */
	atomic_bool dirty;              /* something was written since it was accepted */
	bool synced;                    /* some of it was brought to the disk: what it becomes must not be less safe */
	atomic_bool over;               /* it has ended, and is about to leave the list */
	uint64_t mailbox;               /* where it was begun; 0: nothing is sent of it, or that is not known */
	char *name;                     /* as it was called then; NULL: it had gone already */
	atomic_bool unlinked;           /* its name was removed here: what is written is nobody's (unlink(2)) */
	enum mf_err refused;            /* some of what was written is more than the server takes: not to be stored without it */
	enum mf_err broken;             /* a write failed with that: what is there is a piece */
	atomic_bool has_date;
	_Atomic int64_t date;
	_Atomic uint64_t copy_from, copy_size;  /* 0: it has bytes of its own */
	bool copied;                    /* the copy has been accepted */
};

/* --- life --------------------------------------------------------------------------------------------------------------- */

static struct edit *find_locked(struct fs *fs, const struct node *node)
{
	struct edit *e;
	LIST_FOREACH(e, &fs->edits, link)
		if (e->node.id == node->id && e->node.account == node->account)
			return e;
	return NULL;
}

struct edit *edit_find(struct fs *fs, const struct node *node)
{
	if (atomic_load(&fs->edit_count) == 0)
		return NULL;
	pthread_mutex_lock(&fs->open_lock);
	struct edit *e = find_locked(fs, node);
	if (e && e->over)
		e = NULL;
	if (e)
		e->refs++;
	pthread_mutex_unlock(&fs->open_lock);
	return e;
}

void edit_unref(struct edit *e)
{
	if (!e)
		return;
	pthread_mutex_lock(&e->fs->open_lock);
	bool last = --e->refs == 0;
	pthread_mutex_unlock(&e->fs->open_lock);
	if (!last)
		return;
	int fd = e->fd;
	mf_close(&fd);
	pthread_mutex_destroy(&e->lock);
	free(e->name);
	free(e);
}

/* With its lock held: whoever finds it waits until it has its first bytes. */
static struct edit *create_locked(struct fs *fs, const struct node *node)
{
	struct edit *e = MF_NEW(struct edit);
	e->fs = fs;
	e->node = *node;
	e->fd = -1;
	e->refs = 2; /* the list's, and the caller's */
	pthread_mutex_init(&e->lock, NULL);
	pthread_mutex_lock(&e->lock);
	return e;
}

static void remove_from_list(struct fs *fs, struct edit *e)
{
	pthread_mutex_lock(&fs->open_lock);
	LIST_REMOVE(e, link);
	atomic_fetch_sub(&fs->edit_count, 1);
	pthread_mutex_unlock(&fs->open_lock);
	edit_unref(e);
}

/* Whose limits there are while it is written; when it is accepted it may have another name, or lie elsewhere. */
static void note_place(struct cache *cache, struct edit *e)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	e->unlinked = message_is_unlinked(e->fs, &e->node);
	if (cache_message(cache, e->node.id, &m) != MF_OK)
		return;
	e->name = mf_strdup(m.name);
	if (!name_is_scratch(m.name))
		e->mailbox = m.entry.mailbox;
}

/* What an edit before this one could not put aside (see put_aside()) goes there first. */
static enum mf_err begin_file(struct cache *cache, uint64_t message, int *ret_fd)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err err = spool_edit(cache, message, ret_fd);
	if (err != MF_EXISTS)
		return err;
	bool known = cache_message(cache, message, &m) == MF_OK;
	err = spool_reject(cache, message, true, known ? m.name : NULL, "it could not be put aside when it was closed");
	return err == MF_OK ? spool_edit(cache, message, ret_fd) : err;
}

static enum mf_err fill(struct cache *cache, struct edit *e, const struct body *base)
{
	MF_CLEANUP(mf_close) int fd = -1;
	note_place(cache, e);
	enum mf_err err = begin_file(cache, e->node.id, &fd);
	if (err == MF_OK && base && (err = file_copy(body_fd(base), fd, body_size(base))) != MF_OK)
		spool_discard_edit(cache, e->node.id);
	if (err != MF_OK)
		return err;
	e->fd = fd;
	fd = -1;
	return MF_OK;
}

/* The one in the list, referenced; or fresh, which is put into it. */
static struct edit *find_or_add(struct fs *fs, const struct node *node, struct edit *fresh)
{
	pthread_mutex_lock(&fs->open_lock);
	struct edit *e = find_locked(fs, node);
	if (e) {
		e->refs++;
	} else {
		e = fresh;
		LIST_INSERT_HEAD(&fs->edits, e, link);
		atomic_fetch_add(&fs->edit_count, 1);
	}
	pthread_mutex_unlock(&fs->open_lock);
	return e;
}

static enum mf_err begin_fresh(struct fs *fs, struct edit *e, struct body *base)
{
	enum mf_err err = fill(fs_account(fs, &e->node)->cache, e, base);
	e->over = err != MF_OK;
	pthread_mutex_unlock(&e->lock);
	if (err != MF_OK)
		remove_from_list(fs, e);
	return err;
}

/* MF_CANCELLED: one that was there has ended meanwhile */
static enum mf_err begin(struct fs *fs, const struct node *node, struct body *base, struct edit **ret)
{
	struct edit *fresh = create_locked(fs, node), *e = find_or_add(fs, node, fresh);
	enum mf_err err = MF_OK;
	if (e == fresh) {
		err = begin_fresh(fs, e, base);
	} else {
		pthread_mutex_unlock(&fresh->lock);
		pthread_mutex_destroy(&fresh->lock);
		free(fresh);
		pthread_mutex_lock(&e->lock);
		err = e->over ? MF_CANCELLED : MF_OK;
		pthread_mutex_unlock(&e->lock);
	}
	if (err != MF_OK)
		edit_unref(e);
	else
		*ret = e;
	return err;
}

enum mf_err edit_begin(struct fs *fs, const struct node *node, struct body *base, struct edit **ret)
{
	enum mf_err err;
	while ((err = begin(fs, node, base, ret)) == MF_CANCELLED)
		sched_yield(); /* it leaves the list in a moment */
	return err;
}

/* --- bytes ---------------------------------------------------------------------------------------------------------------- */

static enum mf_err takes(const struct edit *e, uint64_t size)
{
	return e->mailbox ? fs_takes(fs_account(e->fs, &e->node), e->mailbox, size) : MF_OK;
}

/* What is refused is kept all the same, to be put aside: half of a message is none. */
static enum mf_err write_locked(struct edit *e, const char *data, size_t size, uint64_t offset)
{
	if (e->over)
		return MF_CANCELLED;
	enum mf_err err = file_write(e->fd, offset, data, size);
	if (err != MF_OK)
		e->broken = err;
	else if ((err = takes(e, offset + size)) != MF_OK)
		e->refused = err;
	e->dirty = true;
	return err;
}

enum mf_err edit_write(struct edit *e, const char *data, size_t size, uint64_t offset)
{
	pthread_mutex_lock(&e->lock);
	enum mf_err err = write_locked(e, data, size, offset);
	pthread_mutex_unlock(&e->lock);
	return err;
}

enum mf_err edit_append(struct edit *e, const char *data, size_t size, uint64_t *ret_offset)
{
	struct stat st;
	pthread_mutex_lock(&e->lock);
	enum mf_err err = fstat(e->fd, &st) < 0 ? mf_err_from_errno(errno) : write_locked(e, data, size, (uint64_t)st.st_size);
	pthread_mutex_unlock(&e->lock);
	if (err == MF_OK)
		*ret_offset = (uint64_t)st.st_size;
	return err;
}

enum mf_err edit_truncate(struct edit *e, uint64_t size)
{
	pthread_mutex_lock(&e->lock);
	enum mf_err err = e->over ? MF_CANCELLED : takes(e, size);
	if (err == MF_OK && ftruncate(e->fd, (off_t)size) < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK)
		e->refused = MF_OK;
	if (err == MF_OK && size == 0)
		e->broken = MF_OK;
	if (size == 0)
		e->copy_from = 0;
	e->dirty = true;
	pthread_mutex_unlock(&e->lock);
	return err;
}

void edit_read(struct edit *e, fuse_req_t req, uint64_t offset, size_t size)
{
	MF_CLEANUP(mf_free) char *buffer = mf_alloc_array(size ? size : 1, 1);
	size_t got = 0;
	if (e->fd < 0) { /* it is getting its first bytes */
		pthread_mutex_lock(&e->lock);
		pthread_mutex_unlock(&e->lock);
	}
	if (file_read(e->fd, offset, buffer, size, &got))
		fuse_reply_err(req, EIO);
	else
		fuse_reply_buf(req, buffer, got);
}

void edit_attr(struct edit *e, struct stat *ret)
{
	struct stat st;
	if (fstat(e->fd, &st) == 0) {
		ret->st_size = e->copy_from ? (off_t)e->copy_size : st.st_size;
		ret->st_blocks = (ret->st_size + 511) / 512;
		if (e->has_date)
			ret->st_mtim = (struct timespec){ .tv_sec = e->date };
		else if (e->dirty)
			ret->st_mtim = st.st_mtim;
	}
}

void edit_set_date(struct edit *e, int64_t seconds)
{
	pthread_mutex_lock(&e->lock);
	e->date = seconds;
	e->has_date = true;
	pthread_mutex_unlock(&e->lock);
}

bool edit_pause(struct edit *e)
{
	if (e)
		pthread_mutex_lock(&e->lock);
	return e && !e->over && (e->dirty || (e->copy_from && !e->copied));
}

void edit_resume(struct edit *e)
{
	if (e)
		pthread_mutex_unlock(&e->lock);
}

void edit_unlink(struct edit *e)
{
	if (e)
		e->unlinked = true;
}

/* --- copies ---------------------------------------------------------------------------------------------------------------- */

bool edit_copies(struct edit *e, uint64_t from, uint64_t size)
{
	struct stat st;
	pthread_mutex_lock(&e->lock);
	bool may = !e->copy_from && fstat(e->fd, &st) == 0 && st.st_size == 0;
	if (may) {
		e->copy_size = size;
		e->copy_from = from;
		e->dirty = false; /* that it was emptied says nothing more */
	}
	pthread_mutex_unlock(&e->lock);
	return may;
}

uint64_t edit_copy_from(struct edit *e)
{
	return e->copy_from;
}

enum mf_err edit_materialise(struct edit *e, struct body *body)
{
	pthread_mutex_lock(&e->lock);
	enum mf_err err = e->copy_from ? file_copy(body_fd(body), e->fd, body_size(body)) : MF_OK;
	if (err == MF_OK && e->copy_from) {
		e->copy_from = 0;
		e->dirty = true;
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

void edits_parted(struct fs *fs, const struct node *node, uint64_t other)
{
	struct edit *e;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(e, &fs->edits, link) {
		uint64_t from = node->id;
		if (e->node.account == node->account)
			atomic_compare_exchange_strong(&e->copy_from, &from, other);
	}
	pthread_mutex_unlock(&fs->open_lock);
}

/* --- accepting -------------------------------------------------------------------------------------------------------------- */

/* From its start to the empty line, or as much as there is room for; the caller frees. */
static char *read_header(int fd, uint64_t size, size_t *ret_len)
{
	size_t want = size < HEADER_MAX ? (size_t)size : HEADER_MAX, got = 0;
	char *header = mf_alloc_array(want + 1, 1);
	while (got < want) {
		size_t len, part = want - got < 16384 ? want - got : 16384, from = got > 3 ? got - 3 : 0;
		if (file_read(fd, got, header + got, part, &len) || !len)
			break;
		got += len;
		if (memmem(header + from, got - from, "\n\r\n", 3) || memmem(header + from, got - from, "\n\n", 2))
			break;
	}
	char *end = memmem(header, got, "\n\r\n", 3), *lf = memmem(header, got, "\n\n", 2);
	end = lf && (!end || lf < end) ? lf : end;
	*ret_len = end ? (size_t)(end - header) + 1 : got;
	return header;
}

static enum mf_err summarise(int fd, uint64_t size, uint64_t final_size, struct mail_summary *ret)
{
	size_t len;
	MF_CLEANUP(mf_free) char *header = read_header(fd, size, &len);
	if (!mail_looks_like_message(header, len))
		return MF_INVALID;
	mail_summary_parse(header, len, final_size, ret);
	return MF_OK;
}

enum mf_err spooled_summary(struct cache *cache, uint64_t message, uint64_t as_size, struct mail_summary *ret)
{
	MF_CLEANUP(mf_close) int fd = -1;
	uint64_t size;
	enum mf_err err = spool_open(cache, message, &fd, &size);
	return err == MF_OK ? summarise(fd, size, as_size ? as_size : size, ret) : err;
}

/* An editor that writes back what it has read changes nothing, also of a message that is on its way to another mailbox. */
static bool is_unchanged(struct cache *cache, const struct edit *e, uint64_t size, const struct message *m)
{
	struct body *body = NULL;
	if (m->entry.size != size || cache_body_get(cache, e->node.id, &body) != MF_OK)
		return false;
	bool same = body_is_whole(body) && body_size(body) == size && file_is_same(e->fd, body_fd(body), size);
	body_unref(body);
	return same;
}

static int64_t date_of(const struct edit *e)
{
	return e->has_date ? e->date : clock_wall_s();
}

static enum mf_err accept_copy(struct fs *fs, struct edit *e)
{
	struct txn *t;
	enum mf_err err = cache_begin(fs_account(fs, &e->node)->cache, &t);
	if (err != MF_OK)
		return err;
	return fs_finish_change(fs_account(fs, &e->node), t, txn_copied(t, e->node.id, e->copy_from, 0));
}

static enum mf_err accept_bytes(struct fs *fs, struct edit *e, const struct message *m, uint64_t size, bool scratch)
{
	struct fs_account *account = fs_account(fs, &e->node);
	MF_CLEANUP(mf_free) char *path = cache_mailbox_path(account->cache, m->entry.mailbox);
	struct spool_note note = { path ? path : "", m->name, date_of(e) };
	struct mail_summary summary = { 0 };
	struct written what = { .summary = &summary, .internal_date = note.internal_date, .upload = !scratch,
		.due_ms = clock_wall_ns() / 1000000 + FS_DATE_MS };
	enum mf_err err = spool_prepare(account->cache, e->node.id, e->fd, size, !scratch, &note, &what.size);
	if (err != MF_OK)
		return err;
	if (e->synced)
		err = spool_flush(account->cache, e->node.id, true);
	if (scratch)
		mail_summary_parse("", 0, what.size, &summary);
	else if (err == MF_OK)
		err = summarise(e->fd, size, what.size, &summary);
	if (err == MF_OK && !scratch)
		err = fs_takes(account, m->entry.mailbox, what.size);
	struct txn *t = NULL;
	if (err == MF_OK)
		err = cache_begin(account->cache, &t);
	struct disposal how = { 0 };
	if (err == MF_OK)
		err = fs_disposal(account, t, m->entry.mailbox, true, &how);
	if (t)
		err = fs_finish_change(account, t, err == MF_OK ? txn_written(t, e->node.id, &what, &how) : err);
	if (err != MF_OK)
		spool_discard_prepared(account->cache, e->node.id);
	mail_summary_finish(&summary);
	return err;
}

/* A file under a scratch name, which is sent nowhere; a message that was given such a name is one all the same. */
static bool is_scratch(struct cache *cache, const struct message *m)
{
	MF_CLEANUP(mf_free) char *state = NULL;
	return name_is_scratch(m->name) && !m->entry.uid && journal_state_of(cache, m->entry.id, &state) == MF_OK && !strcmp(state, "local");
}

static enum mf_err accept_locked(struct fs *fs, struct edit *e)
{
	struct cache *cache = fs_account(fs, &e->node)->cache;
	if (e->over || (!e->dirty && (!e->copy_from || e->copied)))
		return MF_OK;
	struct stat st;
	if (fstat(e->fd, &st) < 0)
		return mf_err_from_errno(errno);
	uint64_t size = (uint64_t)st.st_size;
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err err = cache_message(cache, e->node.id, &m);
	if (err != MF_OK) /* removed while it was open: here, or by another client */
		return err != MF_NOT_FOUND ? err : e->unlinked || size == 0 ? MF_OK : MF_STALE;
	if (e->copy_from && !e->dirty) {
		err = accept_copy(fs, e);
		e->copied = err == MF_OK;
		return err;
	}
	bool scratch = is_scratch(cache, &m);
	/* a shell closes once before it has written anything, and nothing is no message */
	if (size == 0 && (!scratch || m.entry.size == 0))
		return MF_OK;
	if (!scratch && (e->broken != MF_OK || e->refused != MF_OK))
		return e->broken != MF_OK ? e->broken : e->refused;
	bool has_body = m.entry.uid || !spool_has(cache, e->node.id);
	if (has_body && is_unchanged(cache, e, size, &m)) {
		e->dirty = false;
		return MF_OK;
	}
	err = accept_bytes(fs, e, &m, size, scratch);
	if (err == MF_OK)
		e->dirty = false;
	return err;
}

enum mf_err edit_accept(struct fs *fs, struct edit *e)
{
	pthread_mutex_lock(&e->lock);
	enum mf_err err = accept_locked(fs, e);
	pthread_mutex_unlock(&e->lock);
	trace(TRACE_FS, "message %llu: what was written: %s", (unsigned long long)e->node.id, mf_err_name(err));
	return err;
}

enum mf_err edit_sync(struct fs *fs, struct edit *e)
{
	struct cache *cache = fs_account(fs, &e->node)->cache;
	pthread_mutex_lock(&e->lock);
	enum mf_err err = spool_sync_edit(cache, e->fd);
	e->synced |= err == MF_OK;
	pthread_mutex_unlock(&e->lock);
	if (err == MF_OK && spool_has(cache, e->node.id))
		err = spool_sync(cache, e->node.id);
	return err == MF_OK ? cache_flush(cache) : err;
}

/* --- the end ------------------------------------------------------------------------------------------------------------------ */

void edit_unmake(struct fs *fs, const struct node *node)
{
	struct cache *cache = fs_account(fs, node)->cache;
	struct txn *t;
	if (spool_has(cache, node->id) || cache_begin(cache, &t) != MF_OK)
		return;
	enum mf_err err = txn_drop_local(t, node->id);
	if (err == MF_OK)
		err = txn_commit(t);
	else
		txn_rollback(t);
	if (err != MF_OK && err != MF_NOT_FOUND && err != MF_INVALID)
		log_error("message %llu: %s", (unsigned long long)node->id, mf_err_words(err));
}

/* Bytes that are not a message: aside with them; a file that was made for them goes, a message stays as it was.
 * false: they stay where they are, and are put aside when it is written again, or at the next start. */
static bool put_aside(struct fs *fs, struct edit *e, enum mf_err why)
{
	struct cache *cache = fs_account(fs, &e->node)->cache;
	MF_CLEANUP(message_finish) struct message m = { 0 };
	bool known = cache_message(cache, e->node.id, &m) == MF_OK;
	enum mf_err err = spool_reject(cache, e->node.id, true, known ? m.name : e->name, why == MF_INVALID
		? "it is not a message: one begins with a header field such as \"Subject: ...\", and has no NUL in it"
		: why == MF_STALE ? "another client has removed the message while it was being written" : mf_err_words(why));
	if (err != MF_OK)
		log_error("what was written into message %llu cannot be put aside: %s", (unsigned long long)e->node.id, mf_err_words(err));
	if (known && !m.entry.uid)
		edit_unmake(fs, &e->node);
	return err == MF_OK;
}

/* An empty file has no bytes that could be found again after a restart; it is one all the same. */
static void keep_empty(struct fs *fs, struct edit *e)
{
	struct cache *cache = fs_account(fs, &e->node)->cache;
	MF_CLEANUP(message_finish) struct message m = { 0 };
	if (cache_message(cache, e->node.id, &m) != MF_OK || m.entry.uid || m.entry.size || spool_has(cache, e->node.id))
		return;
	uint64_t size;
	struct spool_note note = { "", m.name, m.entry.mtime };
	enum mf_err err = spool_prepare(cache, e->node.id, e->fd, 0, false, &note, &size);
	if (err == MF_OK)
		err = spool_commit(cache, e->node.id);
	if (err != MF_OK)
		log_warning("%s: %s", m.name, mf_err_words(err));
}

/* With the edit's lock held: who opens it for writing from now on waits for that, and finds that it is over. */
static void end_locked(struct fs *fs, struct edit *e, bool gone)
{
	enum mf_err err = accept_locked(fs, e);
	struct stat st;
	bool empty = fstat(e->fd, &st) == 0 && st.st_size == 0, kept = true;
	if (err != MF_OK && !empty)
		kept = put_aside(fs, e, err);
	else if (empty && !e->copy_from)
		keep_empty(fs, e);
	if (kept)
		spool_discard_edit(fs_account(fs, &e->node)->cache, e->node.id);
	if (!gone)
		message_rewritten(fs, &e->node); /* who reads comes here until it is over */
	e->over = true;
}

/* What was removed since is read from here until nobody has it open. */
static bool is_needed(struct fs *fs, const struct edit *e, bool *ret_gone)
{
	struct entry entry;
	*ret_gone = cache_entry(fs_account(fs, &e->node)->cache, e->node.id, &entry) == MF_NOT_FOUND;
	return *ret_gone ? message_is_open(fs, &e->node) : message_is_open_for_writing(fs, &e->node);
}

static void end(struct fs *fs, struct edit *e, bool though_written)
{
	bool gone;
	pthread_mutex_lock(&e->lock);
	bool ends = !e->over && (!is_needed(fs, e, &gone) || though_written);
	if (ends)
		end_locked(fs, e, gone);
	pthread_mutex_unlock(&e->lock);
	if (!ends)
		return;
	/* its size may not be what was written, and a message that was left as it was has its own bytes again */
	if (fs->notifier)
		notifier_data(fs->notifier, fs_ino(fs, &e->node));
	remove_from_list(fs, e);
}

void edit_end(struct fs *fs, struct edit *e)
{
	end(fs, e, false);
}

void edits_end_all(struct fs *fs)
{
	for (;;) {
		pthread_mutex_lock(&fs->open_lock);
		struct edit *e = LIST_FIRST(&fs->edits);
		if (e)
			e->refs++;
		pthread_mutex_unlock(&fs->open_lock);
		if (!e)
			return;
		end(fs, e, true);
		edit_unref(e);
	}
}

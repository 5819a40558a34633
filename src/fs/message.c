/* Messages: open fetches nothing, the first read does; what is there is read from the body's file.
 *
 * An open message keeps its body from the first read on, until it is written anew; or from the moment the message leaves the
 * index, so that it stays readable until it is closed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/edit.h"
#include "fs/internal.h"

#define HEADER_MAX 65536    /* who has read so much has read some of the text, wherever it begins */
#define READ_MAX (256 * 1024) /* what the kernel asks for at a time: its read-ahead, or twice that for who has said POSIX_FADV_SEQUENTIAL */
#define GIVE_MAX (128 * 1024)
#define STORING_MAX 5       /* of the workers (serve.c) */

struct open_message {
	LIST_ENTRY(open_message) link;   /* fs->open_lock */
	struct node node;
	struct entry told;               /* fs->open_lock guards .size: as the kernel was told when it was opened, then what was counted */
	bool writes;                     /* opened for writing */
	bool trusts;                     /* opened on the server's word for its size */
	bool unlinked;                   /* fs->open_lock; its name has been removed here */
	bool kernel_errs;                /* fs->open_lock; the kernel has a wrong size, and has not been told */
	atomic_bool noted;               /* the account knows that it is being read: readers of many are read ahead for */
	atomic_bool marked;              /* it was read, and has been marked as seen if it is to be */
	pthread_mutex_t lock;            /* guards what follows; nothing of the index is asked under it, nor under fs->open_lock */
	struct body *body;               /* NULL: not looked for yet */
	unsigned rewritten;              /* how often it has lost one that was older than what was written */
};

static struct open_message *handle(const struct fuse_file_info *fi)
{
	return (struct open_message *)(uintptr_t)fi->fh; /* NOLINT: the kernel gives back what open gave it */
}

/* --- the body of an open message ------------------------------------------------------------------------------------- */

static enum mf_err find_body(struct cache *cache, uint64_t id, struct body **ret)
{
	enum mf_err err = cache_body_get(cache, id, ret);
	if (err != MF_NOT_FOUND)
		return err;
	struct entry e;
	err = cache_entry(cache, id, &e);
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	return cache_body_create(cache, id, e.size, ret);
}

/* A reference to the one that is kept; false: none is */
static bool kept_body(struct open_message *m, struct body **ret, unsigned *ret_rewritten)
{
	pthread_mutex_lock(&m->lock);
	bool kept = m->body != NULL;
	*ret = kept ? body_ref(m->body) : NULL;
	*ret_rewritten = m->rewritten;
	pthread_mutex_unlock(&m->lock);
	return kept;
}

/* unless it is older than what was written since it was looked for */
static void keep_body(struct open_message *m, struct body *found, unsigned rewritten)
{
	pthread_mutex_lock(&m->lock);
	if (m->rewritten == rewritten && !m->body)
		m->body = body_ref(found);
	pthread_mutex_unlock(&m->lock);
}

/* a reference of the caller's own */
static enum mf_err hold_body(struct fs *fs, struct open_message *m, struct body **ret)
{
	unsigned rewritten;
	while (!kept_body(m, ret, &rewritten)) {
		struct body *found = NULL;
		enum mf_err err = find_body(fs_account(fs, &m->node)->cache, m->node.id, &found);
		if (err != MF_OK) /* it may have been removed meanwhile, which keeps one */
			return kept_body(m, ret, &rewritten) ? MF_OK : err;
		keep_body(m, found, rewritten);
		body_unref(found);
	}
	return MF_OK;
}

void message_removed(struct fs *fs, uint8_t account, uint64_t id)
{
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link) {
		if (m->node.id != id || m->node.account != account)
			continue;
		pthread_mutex_lock(&m->lock);
		if (!m->body && cache_body_get(fs->accounts[account].cache, id, &m->body) != MF_OK)
			m->body = NULL; /* never fetched: a read will say that it is gone */
		pthread_mutex_unlock(&m->lock);
	}
	pthread_mutex_unlock(&fs->open_lock);
}

/* The other row's: as much of it as there is, and the rest is fetched for that. */
static void keep_other(struct open_message *m, struct body *other)
{
	pthread_mutex_lock(&m->lock);
	if (!m->body || !body_is_whole(m->body)) {
		body_unref(m->body);
		m->body = body_ref(other);
	}
	pthread_mutex_unlock(&m->lock);
}

enum mf_err message_parted(struct fs *fs, const struct node *node, uint64_t other, uint64_t size)
{
	struct body *body;
	struct open_message *m;
	enum mf_err err = cache_body_create(fs_account(fs, node)->cache, other, size, &body);
	if (err != MF_OK)
		return err;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link)
		if (m->node.id == node->id && m->node.account == node->account)
			keep_other(m, body);
	pthread_mutex_unlock(&fs->open_lock);
	body_unref(body);
	return MF_OK;
}

bool message_kept_body(struct fs *fs, const struct node *node, struct body **ret)
{
	bool kept = false;
	unsigned rewritten;
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link)
		if (!kept && m->node.id == node->id && m->node.account == node->account)
			kept = kept_body(m, ret, &rewritten);
	pthread_mutex_unlock(&fs->open_lock);
	return kept;
}

void message_rewritten(struct fs *fs, const struct node *node)
{
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link) {
		if (m->node.id != node->id || m->node.account != node->account)
			continue;
		pthread_mutex_lock(&m->lock);
		body_unref(m->body);
		m->body = NULL;
		m->rewritten++;
		pthread_mutex_unlock(&m->lock);
	}
	pthread_mutex_unlock(&fs->open_lock);
}

bool message_attr_of_open(struct fs *fs, const struct node *node, struct stat *ret)
{
	struct open_message *m;
	struct entry e = { 0 };
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link) {
		if (m->node.id != node->id || m->node.account != node->account)
			continue;
		e = m->told;
		pthread_mutex_lock(&m->lock);
		if (m->body && body_is_whole(m->body))
			e.size = body_size(m->body);
		pthread_mutex_unlock(&m->lock);
		break;
	}
	pthread_mutex_unlock(&fs->open_lock);
	if (!m)
		return false;
	attr_message(fs, node->account, &e, ret); /* which looks for an edit, under that lock */
	ret->st_nlink = 0;
	return true;
}

/* --- mark-seen = read ------------------------------------------------------------------------------------------------- */

static bool reading_marks(struct fs *fs, const struct open_message *m)
{
	return account_config(fs_account(fs, &m->node)->account)->mark_seen_on_read && !fs->options.read_only;
}

static bool is_unseen(struct fs *fs, const struct open_message *m)
{
	MF_CLEANUP(message_finish) struct message now = { 0 };
	return cache_message(fs_account(fs, &m->node)->cache, m->node.id, &now) == MF_OK && !(now.flags & CACHE_MESSAGE_SEEN) && !name_is_scratch(now.name);
}

/* Something from behind the header, or all that there is */
static bool reaches_text(const struct body *b, uint64_t end)
{
	if (end > HEADER_MAX || (body_is_whole(b) && end >= body_size(b)))
		return true;
	MF_CLEANUP(mf_free) char *header = mf_alloc_array((size_t)end + 1, 1);
	ssize_t n = pread(body_fd(b), header, (size_t)end, 0);
	return n > 0 && (memmem(header, (size_t)n, "\n\r\n", 3) || memmem(header, (size_t)n, "\n\n", 2));
}

/* Bytes up to `end` are about to be given to a reader. It is marked before they are, so that it is by the time that they are
 * there; that it cannot be marked is no reason not to give them. */
static void mark_seen(struct fs *fs, struct open_message *m, const struct body *b, uint64_t end)
{
	struct fs_account *account = fs_account(fs, &m->node);
	struct txn *t;
	if (!end || !reading_marks(fs, m) || atomic_load(&m->marked) || !reaches_text(b, end) || atomic_exchange(&m->marked, true) || !is_unseen(fs, m))
		return;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = fs_finish_change(account, t, txn_change_flags(t, m->node.id, CACHE_MESSAGE_SEEN, 0, NULL, NULL));
	if (err != MF_OK && err != MF_NOT_FOUND && err != MF_DENIED)
		log_warning("message %llu cannot be marked as seen: %s", (unsigned long long)m->node.id, mf_err_words(err));
}

/* --- answering a read ------------------------------------------------------------------------------------------------ */

/* How much of [offset, offset + length) the message has, as far as is known: the row's size is ahead of what a body of its own that
 * is still coming was expected to have. */
static size_t cut(struct fs *fs, const struct open_message *m, const struct body *b, uint64_t offset, size_t length)
{
	uint64_t size;
	if (body_is_whole(b) || body_message(b) != m->node.id) {
		size = body_size(b);
	} else {
		pthread_mutex_lock(&fs->open_lock);
		size = m->told.size;
		pthread_mutex_unlock(&fs->open_lock);
	}
	if (offset >= size)
		return 0;
	return length < size - offset ? length : (size_t)(size - offset);
}

/* Bytes that are there; a file cut short behind our back is an error, never an early end. */
static bool read_bytes(const struct body *b, uint64_t offset, size_t length, char *buffer)
{
	size_t got;
	enum mf_err err = file_read(body_fd(b), offset, buffer, length, &got);
	if (err || got < length)
		log_error("reading the body of message %llu: %s", (unsigned long long)body_message(b), err ? "local input/output error" : "cut short");
	return !err && got == length;
}

static void reply_bytes(fuse_req_t req, const struct body *b, uint64_t offset, size_t length)
{
	char usual[READ_MAX];
	MF_CLEANUP(mf_free) char *larger = length > sizeof usual ? mf_alloc_array(length, 1) : NULL;
	char *buffer = larger ? larger : usual;
	if (read_bytes(b, offset, length, buffer))
		fuse_reply_buf(req, buffer, length);
	else
		fuse_reply_err(req, EIO);
}

/* The bytes have been counted: whoever has the message open believes their number from now on. true: it is news, and the
 * kernel must ask for the size again before it believes an end of file. */
static bool believe_size(struct fs *fs, const struct open_message *m, const struct body *b)
{
	if (!body_is_whole(b))
		return false;
	uint64_t size = body_size(b);
	bool news = false;
	struct open_message *other;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(other, &fs->open_messages, link) {
		if (other->node.id != m->node.id || other->node.account != m->node.account)
			continue;
		news |= other->told.size != size;
		other->told.size = size;
		other->told.size_checked = true;
		other->kernel_errs = false;
	}
	pthread_mutex_unlock(&fs->open_lock);
	if (news && m->told.uid)
		atomic_store(&fs_account(fs, &m->node)->sizes_lie, true);
	return news;
}

bool message_corrects_size(struct fs *fs, uint8_t account, uint64_t id)
{
	bool trusted = false;
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link) {
		if (m->node.id != id || m->node.account != account || !m->trusts)
			continue;
		trusted = true;
		m->kernel_errs = !m->told.size_checked;
	}
	pthread_mutex_unlock(&fs->open_lock);
	return trusted;
}

/* A want for bytes of an open message, for a read or (sizes that lie) for the open itself. The kernel sends no RELEASE
 * before the answer, so the handle stays. */
struct waiting_bytes {
	struct fs_account *account;    /* first: see wait_cancel() */
	struct open_message *message;
	struct body *body;
	uint64_t offset;
	size_t length;
	struct fuse_file_info fi;      /* of an open */
};

static bool start_bytes(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct waiting_bytes *w = context;
	return account_want_body(w->account->account, w->body, w->offset, w->length, done, done_context, ret_result, ret);
}

static void waiting_bytes_destroy(struct waiting_bytes *w)
{
	body_unref(w->body);
	free(w);
}

static void answer_bytes(const struct waiting_bytes *w, fuse_req_t req, enum mf_err result)
{
	struct fs *fs = fs_of(req);
	/* attributes only, which waits for nothing; the reader holds the inode */
	if (believe_size(fs, w->message, w->body))
		fuse_lowlevel_notify_inval_inode(fs->session, fs_ino(fs, &w->message->node), -1, 0);
	size_t length = cut(fs, w->message, w->body, w->offset, w->length);
	if (result == MF_OK && length && !body_has(w->body, w->offset, length))
		result = MF_PROTOCOL;
	trace(TRACE_FS, "read of message %llu at %llu: %s", (unsigned long long)body_message(w->body), (unsigned long long)w->offset, mf_err_name(result));
	if (result != MF_OK) {
		fs_reply(req, result);
		return;
	}
	mark_seen(fs, w->message, w->body, length ? w->offset + length : 0);
	reply_bytes(req, w->body, w->offset, length);
}

static void answer_read(void *context, fuse_req_t req, enum mf_err result)
{
	struct waiting_bytes *w = context;
	answer_bytes(w, req, result);
	waiting_bytes_destroy(w);
}

static const struct park_call read_call = {
	.start = start_bytes, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_read,
};

static struct waiting_bytes *waiting_bytes_create(struct fs *fs, struct open_message *m, struct body *body, uint64_t offset, size_t length)
{
	struct waiting_bytes *w = MF_NEW(struct waiting_bytes);
	*w = (struct waiting_bytes){ .account = fs_account(fs, &m->node), .message = m, .body = body, .offset = offset, .length = length };
	return w;
}

void message_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct open_message *m = handle(fi);
	struct edit *e = edit_find(fs, node);
	uint64_t original = e ? edit_copy_from(e) : 0;
	if (e && !original) {
		edit_read(e, req, (uint64_t)off, size);
		edit_unref(e);
		return;
	}
	edit_unref(e);
	struct body *body;
	enum mf_err err = original ? find_body(fs_account(fs, node)->cache, original, &body) : hold_body(fs, m, &body);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	uint64_t offset = (uint64_t)off;
	size_t length = cut(fs, m, body, offset, size);
	/* The account sees every first read, and every one of what is still coming, so that it has the next under way. */
	bool noted = atomic_exchange(&m->noted, true) && body_is_whole(body);
	if (length == 0 || body_has(body, offset, length)) {
		struct waiting_bytes here = { .account = fs_account(fs, node), .message = m, .body = body, .offset = offset, .length = length };
		if (length && !noted)
			account_passed(here.account->account, body, offset, length);
		answer_bytes(&here, req, MF_OK);
		body_unref(body);
		return;
	}
	struct waiting_bytes *w = waiting_bytes_create(fs, m, body, offset, length);
	park(fs->parking, req, 0, fs_wait_window(w->account), &read_call, w);
}

/* --- open and release ------------------------------------------------------------------------------------------------ */

void message_forget(struct fs *fs, struct open_message *m)
{
	pthread_mutex_lock(&fs->open_lock);
	LIST_REMOVE(m, link);
	pthread_mutex_unlock(&fs->open_lock);
	if (m->kernel_errs && fs->notifier)
		notifier_attr(fs->notifier, fs_ino(fs, &m->node));
	body_unref(m->body);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static bool is_open(struct fs *fs, const struct node *node, bool for_writing)
{
	bool found = false;
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link)
		found |= (m->writes || !for_writing) && m->node.id == node->id && m->node.account == node->account;
	pthread_mutex_unlock(&fs->open_lock);
	return found;
}

bool message_is_open(struct fs *fs, const struct node *node)
{
	return is_open(fs, node, false);
}

bool message_is_open_for_writing(struct fs *fs, const struct node *node)
{
	return is_open(fs, node, true);
}

void message_unlink(struct fs *fs, const struct node *node)
{
	struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link)
		m->unlinked |= m->node.id == node->id && m->node.account == node->account;
	pthread_mutex_unlock(&fs->open_lock);
}

bool message_is_unlinked(struct fs *fs, const struct node *node)
{
	bool unlinked = false;
	const struct open_message *m;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(m, &fs->open_messages, link)
		unlinked |= m->unlinked && m->node.id == node->id && m->node.account == node->account;
	pthread_mutex_unlock(&fs->open_lock);
	return unlinked;
}

static void close_message(struct fs *fs, struct open_message *m)
{
	struct edit *e = edit_find(fs, &m->node); /* of a file that was removed since, readers have it too */
	message_forget(fs, m);
	if (e)
		edit_end(fs, e);
	edit_unref(e);
}

static bool is_open_elsewhere(struct fs *fs, const struct open_message *m)
{
	bool found = false;
	const struct open_message *other;
	pthread_mutex_lock(&fs->open_lock);
	LIST_FOREACH(other, &fs->open_messages, link)
		found |= other != m && other->node.id == m->node.id && other->node.account == m->node.account;
	pthread_mutex_unlock(&fs->open_lock);
	return found;
}

/* An opener that came after we looked may have locked pages for a READ, and that waits for a worker: it finds one. */
static bool store(struct fs *fs, const struct node *node, char *data, size_t length)
{
	struct fuse_bufvec bytes = FUSE_BUFVEC_INIT(length);
	bytes.buf[0].mem = data;
	bool may = atomic_fetch_add(&fs->storing, 1) < STORING_MAX;
	bool stored = may && fuse_lowlevel_notify_store(fs->session, fs_ino(fs, node), 0, &bytes, 0) == 0;
	atomic_fetch_sub(&fs->storing, 1);
	return stored;
}

/* A small message that was read ahead, and that nobody has had yet, is put into the page cache before its opener goes on: a
 * walk then costs no READ. Not while somebody else has it open: the store waits for pages that a READ of theirs keeps locked. */
static void give_ahead(struct fs *fs, struct open_message *m)
{
	struct fs_account *account = fs_account(fs, &m->node);
	struct body *b = cache_body_find(account->cache, m->node.id);
	char buffer[GIVE_MAX];
	size_t length = b && body_is_whole(b) && body_size(b) <= sizeof buffer ? (size_t)body_size(b) : 0;
	bool gives = length && length == m->told.size && !is_open_elsewhere(fs, m) && body_take_fresh(b) && read_bytes(b, 0, length, buffer);
	if (gives && store(fs, &m->node, buffer, length)) { /* else a READ will come */
		account_passed(account->account, b, 0, length);
		atomic_store(&m->noted, true);
	}
	body_unref(b);
}

/* What the server has never changes: its pages stay valid from one open to the next, and there is nothing to flush. Where sizes lie,
 * reads go past the page cache, since the kernel ends a cached read at the size it has, and it may have the lie still
 * (the notification comes when it comes); and it asks for the attributes again. A read that is to mark the
 * message must reach us. */
static void reply_open(struct fs *fs, fuse_req_t req, struct open_message *m, struct fuse_file_info *fi)
{
	bool lies = atomic_load(&fs_account(fs, &m->node)->sizes_lie) && m->told.uid && !m->writes;
	fi->keep_cache = !lies && m->told.uid && !(reading_marks(fs, m) && is_unseen(fs, m));
	fi->direct_io = lies;
	fi->noflush = !m->writes;
	fi->fh = (uint64_t)(uintptr_t)m;
	if (fi->keep_cache && !m->writes && atomic_load(&fs->edit_count) == 0)
		give_ahead(fs, m);
	if (lies)
		fuse_lowlevel_notify_inval_inode(fs->session, fs_ino(fs, &m->node), -1, 0); /* waits for nothing: the opener holds it */
	if (fuse_reply_open(req, fi) == -ENOENT)
		close_message(fs, m); /* the opener was interrupted meanwhile: no RELEASE will come */
}

static void answer_open(void *context, fuse_req_t req, enum mf_err result)
{
	struct waiting_bytes *w = context;
	struct fs *fs = fs_of(req);
	believe_size(fs, w->message, w->body);
	if (result == MF_OK) {
		reply_open(fs, req, w->message, &w->fi);
	} else {
		fs_reply(req, result);
		message_forget(fs, w->message);
	}
	waiting_bytes_destroy(w);
}

static const struct park_call open_call = {
	.start = start_bytes, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_open,
};

/* The size must be right before the first read: the message is fetched now, to its end, wherever that is. */
static void open_when_measured(fuse_req_t req, struct open_message *m, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct body *body;
	enum mf_err err = hold_body(fs, m, &body);
	if (err != MF_OK) {
		fs_reply(req, err);
		message_forget(fs, m);
		return;
	}
	struct waiting_bytes *w = waiting_bytes_create(fs, m, body, 0, SIZE_MAX);
	w->fi = *fi;
	park(fs->parking, req, 0, fs_wait_window(w->account), &open_call, w);
}

static struct open_message *open_create(struct fs *fs, const struct node *node, const struct entry *e, bool writes)
{
	struct open_message *m = MF_NEW(struct open_message);
	m->node = *node;
	m->told = *e;
	m->writes = writes;
	bool lies = atomic_load(&fs_account(fs, node)->sizes_lie);
	m->trusts = !e->size_checked && e->size != 0 && !lies;
	pthread_mutex_init(&m->lock, NULL);
	pthread_mutex_lock(&fs->open_lock);
	LIST_INSERT_HEAD(&fs->open_messages, m, link);
	pthread_mutex_unlock(&fs->open_lock);
	return m;
}

/* O_TRUNC comes with the open: nothing of the old bytes is wanted. A file whose bytes were refused is dropped by the last close,
 * which may be under way: the edit begins behind that, and is of no use then (ESTALE makes the kernel look anew). */
static enum mf_err empty(struct fs *fs, const struct node *node)
{
	struct edit *e;
	struct entry entry;
	enum mf_err err;
	do {
		err = edit_begin(fs, node, NULL, &e);
		if (err != MF_OK)
			return err;
		err = cache_entry(fs_account(fs, node)->cache, node->id, &entry);
		if (err == MF_OK)
			err = edit_truncate(e, 0);
		edit_unref(e);
	} while (err == MF_CANCELLED);
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

void message_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	if ((writes || (fi->flags & O_TRUNC)) && fs_refuses(req))
		return;
	struct entry e;
	enum mf_err err = cache_entry(fs_account(fs, node)->cache, node->id, &e);
	if (err == MF_OK && (writes || (fi->flags & O_TRUNC)))
		err = fs_may_write(fs, node);
	if (err != MF_OK) {
		/* ESTALE makes the kernel look the name up again, and find that it is gone */
		fs_reply(req, err == MF_NOT_FOUND ? MF_STALE : err);
		return;
	}
	/* known as a writer first, so that nobody else's close ends what it begins */
	struct open_message *m = open_create(fs, node, &e, writes);
	if (writes && (fi->flags & O_TRUNC) && (err = empty(fs, node)) != MF_OK) {
		fs_reply(req, err);
		close_message(fs, m);
		return;
	}
	bool lies = atomic_load(&fs_account(fs, node)->sizes_lie);
	trace(TRACE_FS, "open message %llu, %llu bytes%s", (unsigned long long)node->id, (unsigned long long)e.size, e.size_checked ? "" : " (a claim)");
	/* of an empty message no byte is ever asked for, so a server that did not know its size would never be found out */
	if (e.uid && !writes && !e.size_checked && (e.size == 0 || lies))
		open_when_measured(req, m, fi);
	else
		reply_open(fs, req, m, fi);
}

void message_create(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct entry entry;
	struct fuse_entry_param e = { 0 };
	enum mf_err err = cache_entry(fs_account(fs, node)->cache, node->id, &entry);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	struct open_message *m = open_create(fs, node, &entry, true);
	bool fresh = !entry.uid && entry.size == 0;
	if (fresh || (fi->flags & O_TRUNC))
		err = empty(fs, node);
	if (err != MF_OK && fresh)
		edit_unmake(fs, node);
	if (err == MF_OK)
		err = attr_node(fs, node, &e.attr);
	if (err != MF_OK) {
		fs_reply(req, err);
		close_message(fs, m);
		return;
	}
	attr_entry(fs, node, &e);
	e.attr_timeout = 0;
	fi->keep_cache = 0;
	fi->fh = (uint64_t)(uintptr_t)m;
	if (fuse_reply_create(req, &e, fi) == -ENOENT)
		close_message(fs, m); /* interrupted meanwhile: no RELEASE will come */
}

bool message_is_written(const struct fuse_file_info *fi)
{
	return handle(fi)->writes;
}

void message_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	(void)node;
	close_message(fs_of(req), handle(fi));
	fuse_reply_err(req, 0);
}

/* outbox/ and outbox/failed/: the files of outgoing.h as nodes. The kernel keeps neither names nor attributes of them: they change
 * by themselves, when a message is sent. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/outboxes.h"
#include "control/paths.h"
#include "fs/internal.h"
#include "fs/outgoing.h"
#include "fs/peer.h"

#define NUMBER_OF(offset) ((offset) >> 1)

static struct outgoing *of(struct fs *fs, const struct node *node)
{
	return fs_account(fs, node)->outgoing;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

enum mf_err queued_open_accounts(struct fs *fs, struct mf_reason *why)
{
	enum mf_err err = MF_OK;
	for (size_t i = 0; i < fs->account_count && err == MF_OK; i++) {
		struct outbox *outbox = outboxes_find(fs->accounts[i].account);
		MF_CLEANUP(mf_free) char *state = path_state(account_config(fs->accounts[i].account)->name);
		if (outbox)
			err = outgoing_open(outbox, state, &fs->accounts[i].outgoing, why);
	}
	return err;
}

void queued_close_accounts(struct fs *fs)
{
	for (size_t i = 0; fs->accounts && i < fs->account_count; i++)
		outgoing_close(fs->accounts[i].outgoing);
}

void queued_changed(struct fs *fs, uint8_t account)
{
	atomic_store(&fs->accounts[account].outbox_ns, clock_wall_ns());
}

/* --- looking -------------------------------------------------------------------------------------------------------------- */

static struct node node_of(const struct node *dir, uint64_t number, unsigned part)
{
	return (struct node){ .kind = NODE_QUEUED, .account = dir->account, .part = (uint16_t)part, .id = number };
}

static enum mf_err find_error_text(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	size_t len = strlen(name), suffix = sizeof OUTBOX_ERROR_SUFFIX - 1;
	struct outgoing_info info;
	if (len <= suffix || strcmp(name + len - suffix, OUTBOX_ERROR_SUFFIX) != 0)
		return MF_NOT_FOUND;
	MF_CLEANUP(mf_free) char *stem = mf_strndup(name, len - suffix);
	enum mf_err err = outgoing_find_text(of(fs, dir), stem, &info);
	*ret = node_of(dir, err == MF_OK ? info.number : 0, QUEUED_ERROR);
	return err;
}

enum mf_err queued_find(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	struct outgoing_info info;
	bool failures = dir->part == OUTBOX_FAILURES;
	if (!of(fs, dir))
		return MF_STALE;
	if (!failures && strcmp(name, FAILED_NAME) == 0) {
		*ret = (struct node){ .kind = NODE_OUTBOX, .account = dir->account, .part = OUTBOX_FAILURES };
		return MF_OK;
	}
	enum mf_err err = outgoing_find(of(fs, dir), failures, name, &info);
	if (err == MF_NOT_FOUND && failures)
		return find_error_text(fs, dir, name, ret);
	*ret = node_of(dir, err == MF_OK ? info.number : 0, 0);
	return err;
}

static void attr_of(struct fs *fs, const struct node *node, const struct outgoing_info *info, struct stat *ret)
{
	uint64_t size = info->size;
	if (node->part == QUEUED_ERROR) {
		MF_CLEANUP(mf_free) char *text = outgoing_error_text(of(fs, node), node->id);
		size = text ? strlen(text) : 0;
	}
	attr_fill(fs, node, S_IFREG | (node->part == QUEUED_ERROR ? 0444 : 0666), size, info->mtime, ret);
	if (info->gone && node->part != QUEUED_ERROR)
		ret->st_nlink = 0;
}

enum mf_err queued_attr(struct fs *fs, const struct node *node, struct stat *ret)
{
	struct outgoing_info info;
	if (!of(fs, node))
		return MF_STALE;
	if (node->kind == NODE_OUTBOX) {
		int64_t ns = atomic_load(&fs_account(fs, node)->outbox_ns);
		struct timespec changed = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
		attr_fill(fs, node, S_IFDIR | 0777, 0, ns ? changed : fs->started, ret);
		return MF_OK;
	}
	enum mf_err err = outgoing_look(of(fs, node), node->id, &info);
	if (err == MF_OK && (node->part == QUEUED_ERROR ? !info.text : info.text && info.gone))
		err = MF_STALE;
	if (err == MF_OK)
		attr_of(fs, node, &info, ret);
	return err;
}

bool queued_is_failed(struct fs *fs, const struct node *node)
{
	struct outgoing_info info;
	return of(fs, node) && outgoing_look(of(fs, node), node->id, &info) == MF_OK && info.failed;
}

/* Each file's number twice, for the text beside it; 1 is failed/. */
struct telling {
	struct fs *fs;
	const struct node *dir;
	uint64_t after;
	queued_visitor *visit;
	void *context;
};

struct found { char *name; struct outgoing_info info; };
struct all { struct found *items; size_t count; };

static bool collect(void *context, const char *name, const struct outgoing_info *info)
{
	struct all *all = context;
	if (all->count % 64 == 0)
		all->items = mf_realloc_array(all->items, all->count + 64, sizeof *all->items);
	all->items[all->count++] = (struct found){ mf_strdup(name), *info };
	return true;
}

static bool tell_one(const struct telling *t, const char *name, const struct node *node, const struct outgoing_info *info)
{
	uint64_t offset = node->id << 1 | node->part;
	struct stat attr;
	if (offset <= t->after || strlen(name) > FS_NAME_MAX)
		return true;
	attr_of(t->fs, node, info, &attr);
	return t->visit(t->context, name, node, &attr, offset);
}

static bool tell_both(const struct telling *t, const struct found *f)
{
	struct node node = node_of(t->dir, f->info.number, 0), text = node_of(t->dir, f->info.number, QUEUED_ERROR);
	MF_CLEANUP(mf_free) char *beside = mf_format("%s%s", f->name, OUTBOX_ERROR_SUFFIX);
	bool more = f->info.gone || tell_one(t, f->name, &node, &f->info);
	return more && f->info.text ? tell_one(t, beside, &text, &f->info) : more;
}

void queued_visit(struct fs *fs, const struct node *dir, uint64_t after, queued_visitor *visit, void *context)
{
	struct telling t = { fs, dir, after, visit, context };
	struct node failures = { .kind = NODE_OUTBOX, .account = dir->account, .part = OUTBOX_FAILURES };
	struct all all = { 0 };
	struct stat attr;
	bool more = of(fs, dir) != NULL;
	if (more && dir->part != OUTBOX_FAILURES && after < 1 && queued_attr(fs, &failures, &attr) == MF_OK)
		more = visit(context, FAILED_NAME, &failures, &attr, 1);
	if (more)
		outgoing_visit(of(fs, dir), dir->part == OUTBOX_FAILURES, NUMBER_OF(after) ? NUMBER_OF(after) - 1 : 0, collect, &all);
	for (size_t i = 0; i < all.count; i++) {
		more = more && tell_both(&t, &all.items[i]);
		free(all.items[i].name);
	}
	free(all.items);
}

static bool notify_value(struct fs *fs, const struct node *node, struct buf *to)
{
	unsigned notify = 0;
	char words[DSN_WORDS_MAX];
	(void)outgoing_notify(of(fs, node), node->id, &notify);
	dsn_words(notify, words);
	return notify && buf_adds(to, words) == MF_OK;
}

bool queued_value(struct fs *fs, const struct node *node, const char *name, struct buf *to)
{
	struct outbox_item item;
	bool state = strcmp(name, "state") == 0, subject = strcmp(name, "subject") == 0;
	if (node->part != QUEUED_ERROR && strcmp(name, QUEUED_NOTIFY) == 0)
		return notify_value(fs, node, to);
	if (node->part == QUEUED_ERROR || (!state && !subject && strcmp(name, "message-id") != 0))
		return false;
	if (state) {
		MF_CLEANUP(mf_free) char *text = outgoing_state(of(fs, node), node->id);
		return text && buf_adds(to, text) == MF_OK;
	}
	if (outgoing_item(of(fs, node), node->id, &item) != MF_OK)
		return false;
	(void)buf_adds(to, subject ? item.subject : item.message_id);
	outbox_item_finish(&item);
	return true;
}

enum mf_err queued_set_notify(struct fs *fs, const struct node *node, const char *value, size_t size)
{
	unsigned notify;
	MF_CLEANUP(mf_free) char *words = mf_strndup(value, size);
	if (!of(fs, node) || node->part == QUEUED_ERROR)
		return MF_DENIED;
	return dsn_read(words, &notify) ? outgoing_set_notify(of(fs, node), node->id, notify) : MF_INVALID;
}

/* --- open, read, write -------------------------------------------------------------------------------------------------------- */

struct open_queued {
	int fd;                      /* -1: outgoing_read() */
	pid_t opener;                /* the process; 0: not known */
	bool writes, closing;        /* closing: outgoing.h */
	char *text;                  /* of NAME.error.txt */
};

static struct open_queued *handle(const struct fuse_file_info *fi)
{
	return (struct open_queued *)(uintptr_t)fi->fh; /* NOLINT: the kernel gives back what open gave it */
}

static void handle_close(struct fs *fs, const struct node *node, struct open_queued *h)
{
	if (!h->text)
		outgoing_close_file(of(fs, node), node->id, h->writes, &h->closing);
	if (h->writes)
		queued_changed(fs, node->account);
	mf_close(&h->fd);
	free(h->text);
	free(h);
}

/* Who is about to write: the process */
static pid_t note_writer(fuse_req_t req, const struct node *node)
{
	pid_t process = peer_process(fuse_req_ctx(req)->pid);
	outgoing_written_by(of(fs_of(req), node), node->id, peer_exports(process));
	return process;
}

static struct open_queued *handle_create(fuse_req_t req, const struct node *node, struct fuse_file_info *fi, int fd, bool writes, char *text)
{
	struct open_queued *h = MF_NEW(struct open_queued);
	*h = (struct open_queued){ .fd = fd, .writes = writes, .text = text };
	if (writes)
		h->opener = note_writer(req, node);
	fi->direct_io = text != NULL;
	fi->keep_cache = 0;
	fi->noflush = !writes;
	fi->fh = (uint64_t)(uintptr_t)h;
	return h;
}

static enum mf_err open_node(struct fs *fs, const struct node *node, struct fuse_file_info *fi, int *ret_fd, char **ret_text)
{
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	if (!of(fs, node))
		return MF_STALE;
	if (node->part != QUEUED_ERROR)
		return outgoing_open_file(of(fs, node), node->id, writes, fi->flags & O_TRUNC, ret_fd);
	*ret_text = outgoing_error_text(of(fs, node), node->id);
	return writes ? MF_DENIED : *ret_text ? MF_OK : MF_STALE;
}

void queued_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	bool writes = (fi->flags & O_ACCMODE) != O_RDONLY;
	int fd = -1;
	char *text = NULL;
	if (writes && fs_refuses(req))
		return;
	enum mf_err err = open_node(fs, node, fi, &fd, &text);
	trace(TRACE_FS, "open outbox %llx: %s", (unsigned long long)node->id, mf_err_name(err));
	if (err != MF_OK) {
		free(text);
		fs_reply(req, err);
		return;
	}
	struct open_queued *h = handle_create(req, node, fi, fd, writes, text);
	if (fuse_reply_open(req, fi) == -ENOENT)
		handle_close(fs, node, h); /* interrupted meanwhile: no RELEASE will come */
}

static enum mf_err create(struct fs *fs, const struct node *dir, const char *name, struct node *ret, struct fuse_entry_param *e)
{
	uint64_t number;
	if (dir->part == OUTBOX_FAILURES || !of(fs, dir))
		return MF_UNSUPPORTED;
	enum mf_err err = outgoing_create(of(fs, dir), name, &number);
	if (err != MF_OK)
		return err;
	*ret = node_of(dir, number, 0);
	queued_changed(fs, dir->account);
	err = queued_attr(fs, ret, &e->attr);
	attr_entry(fs, ret, e);
	if (err != MF_OK)
		outgoing_close_file(of(fs, dir), number, true, &(bool){ false });
	return err;
}

void queued_create(fuse_req_t req, const struct node *dir, const char *name, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e = { 0 };
	struct node node;
	enum mf_err err = create(fs, dir, name, &node, &e);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	struct open_queued *h = handle_create(req, &node, fi, -1, true, NULL);
	if (fuse_reply_create(req, &e, fi) == -ENOENT)
		handle_close(fs, &node, h);
}

/* An empty file that nobody has open */
void queued_mknod(fuse_req_t req, const struct node *dir, const char *name)
{
	struct fs *fs = fs_of(req);
	struct fuse_entry_param e = { 0 };
	struct node node;
	enum mf_err err = create(fs, dir, name, &node, &e);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	outgoing_close_file(of(fs, dir), node.id, true, &(bool){ false });
	fuse_reply_entry(req, &e);
}

/* What was opened in the queue and is being written by now is read as it becomes. */
static enum mf_err read_at(struct fs *fs, const struct node *node, const struct open_queued *h, uint64_t off, char *to, size_t size, size_t *ret_len)
{
	enum mf_err err = outgoing_read(of(fs, node), node->id, off, to, size, ret_len);
	return err == MF_STALE && h->fd >= 0 ? file_read(h->fd, off, to, size, ret_len) : err;
}

void queued_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi)
{
	const struct open_queued *h = handle(fi);
	if (h->text) {
		size_t len = strlen(h->text), from = (uint64_t)off < len ? (size_t)off : len;
		size_t n = size < len - from ? size : len - from;
		MF_CLEANUP(mf_free) char *part = mf_strndup(h->text + from, n); /* once answered, the file may be released */
		fuse_reply_buf(req, part, n);
		return;
	}
	MF_CLEANUP(mf_free) char *buffer = mf_alloc_array(size ? size : 1, 1);
	size_t n = 0;
	enum mf_err err = read_at(fs_of(req), node, h, (uint64_t)off, buffer, size, &n);
	if (err != MF_OK)
		fuse_reply_err(req, fs_errno(err));
	else
		fuse_reply_buf(req, buffer, n);
}

void queued_write(fuse_req_t req, const struct node *node, const char *data, size_t size, off_t off, struct fuse_file_info *fi)
{
	enum mf_err err = outgoing_write(of(fs_of(req), node), node->id, &handle(fi)->closing, data, size, (uint64_t)off);
	if (err == MF_OK)
		fuse_reply_write(req, size);
	else
		fs_reply(req, err);
}

/* A process that was given the descriptor by the one that opened the file: that one has it still, and closes it after it, or has closed
 * it; then the release tells. */
static bool is_given(fuse_req_t req, const struct open_queued *h)
{
	pid_t process = h->opener ? peer_process(fuse_req_ctx(req)->pid) : 0;
	return process && process != h->opener;
}

void queued_flush(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct open_queued *h = handle(fi);
	fs_reply(req, h->writes && !is_given(req, h) ? outgoing_flush(of(fs_of(req), node), node->id, &h->closing) : MF_OK);
}

void queued_fsync(fuse_req_t req, const struct node *node)
{
	fs_reply(req, node->part == QUEUED_ERROR ? MF_OK : outgoing_sync(of(fs_of(req), node), node->id));
}

void queued_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	handle_close(fs_of(req), node, handle(fi));
	fuse_reply_err(req, 0);
}

static enum mf_err set_attributes(fuse_req_t req, const struct node *node, const struct stat *attr, int to_set)
{
	struct fs *fs = fs_of(req);
	struct timespec mtime = attr->st_mtim;
	enum mf_err err = MF_OK;
	if (node->part == QUEUED_ERROR)
		return MF_DENIED;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		clock_gettime(CLOCK_REALTIME, &mtime);
	if (to_set & FUSE_SET_ATTR_SIZE)
		(void)note_writer(req, node);
	if (to_set & FUSE_SET_ATTR_SIZE)
		err = outgoing_truncate(of(fs, node), node->id, (uint64_t)attr->st_size);
	if (err == MF_OK && (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)))
		err = outgoing_set_date(of(fs, node), node->id, &mtime);
	return err;
}

void queued_setattr(fuse_req_t req, const struct node *node, const struct stat *attr, int to_set)
{
	struct fs *fs = fs_of(req);
	struct stat now;
	enum mf_err err = set_attributes(req, node, attr, to_set);
	if (err == MF_OK)
		err = queued_attr(fs, node, &now);
	if (err == MF_OK)
		fuse_reply_attr(req, &now, 0.0);
	else
		fs_reply(req, err);
}

/* --- names ------------------------------------------------------------------------------------------------------------------- */

void queued_unlink(fuse_req_t req, const struct node *dir, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node node;
	enum mf_err err = queued_find(fs, dir, name, &node);
	if (err == MF_OK && node.kind == NODE_OUTBOX)
		err = MF_UNSUPPORTED;
	MF_CLEANUP(mf_free) char *stem = mf_strndup(name, strlen(name) > sizeof OUTBOX_ERROR_SUFFIX - 1 ? strlen(name) - (sizeof OUTBOX_ERROR_SUFFIX - 1) : 0);
	if (err == MF_OK && node.part == QUEUED_ERROR)
		err = outgoing_remove_text(of(fs, dir), stem);
	else if (err == MF_OK)
		err = outgoing_remove(of(fs, dir), dir->part == OUTBOX_FAILURES, name);
	queued_changed(fs, dir->account);
	trace(TRACE_FS, "unlink in outbox: %s", mf_err_name(err));
	fs_reply(req, err);
}

void queued_rename(fuse_req_t req, const struct node *from, const char *name, const struct node *to, const char *newname)
{
	struct fs *fs = fs_of(req);
	struct node node;
	enum mf_err err = queued_find(fs, from, name, &node);
	bool same = from->part == to->part && strcmp(name, newname) == 0;
	if (err == MF_OK && (node.kind == NODE_OUTBOX || node.part == QUEUED_ERROR || to->part == OUTBOX_FAILURES))
		err = MF_UNSUPPORTED;
	if (err == MF_OK && !same)
		err = outgoing_rename(of(fs, from), from->part == OUTBOX_FAILURES, name, newname);
	queued_changed(fs, from->account);
	trace(TRACE_FS, "rename in outbox: %s", mf_err_name(err));
	fs_reply(req, err);
}

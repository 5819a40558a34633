/* .mailfs/pending and .mailfs/rejected: what waits for the server, one readable file per operation, and what could not be
 * sent. Removing a file in the first takes the operation back; in the second it forgets the bytes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "control/pending.h"
#include "fs/internal.h"

#define ID_BITS 38

static const char *const names[] = { [HELD_PENDING] = "pending", [HELD_REJECTED] = "rejected" };

const char *held_name(unsigned part)
{
	return part > 0 && part < sizeof names / sizeof *names ? names[part] : NULL;
}

unsigned held_by_name(const char *name)
{
	for (unsigned part = HELD_PENDING; part <= HELD_REJECTED; part++)
		if (strcmp(names[part], name) == 0)
			return part;
	return 0;
}

static struct cache *cache_of(struct fs *fs, const struct node *node)
{
	return fs_account(fs, node)->cache;
}

/* --- operations ---------------------------------------------------------------------------------------------------------- */

static void op_name(const struct op *op, char ret[static FS_NAME_MAX + 1])
{
	snprintf(ret, FS_NAME_MAX + 1, "%06" PRIu64 "-%s", op->id, op_kind_word(op->kind));
}

static enum mf_err find_op(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	struct op op;
	char own[FS_NAME_MAX + 1];
	enum mf_err err = journal_op(cache_of(fs, dir), strtoull(name, NULL, 10), &op);
	if (err != MF_OK)
		return err;
	op_name(&op, own);
	*ret = (struct node){ .kind = NODE_HELD, .account = dir->account, .part = HELD_PENDING, .id = op.id };
	op_finish(&op);
	return strcmp(own, name) == 0 ? MF_OK : MF_NOT_FOUND;
}

static enum mf_err op_text(struct fs *fs, const struct node *node, char **ret, int64_t *ret_since)
{
	struct op op;
	enum mf_err err = journal_op(cache_of(fs, node), node->id, &op);
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	*ret = pending_text(fs_account(fs, node)->account, &op);
	*ret_since = op.since_ms / 1000;
	op_finish(&op);
	return MF_OK;
}

struct op_listing { const struct node *dir; held_visitor *visit; void *context; };

static bool visit_op(void *context, const struct op *op)
{
	const struct op_listing *l = context;
	char name[FS_NAME_MAX + 1];
	op_name(op, name);
	struct node node = { .kind = NODE_HELD, .account = l->dir->account, .part = HELD_PENDING, .id = op->id };
	return l->visit(l->context, name, &node);
}

/* --- rejected files -------------------------------------------------------------------------------------------------------- */

/* A number for a name, as good as unique: FNV-1a */
static uint64_t number_of(const char *name)
{
	uint64_t h = 14695981039346656037ULL;
	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 1099511628211ULL;
	h = (h ^ h >> ID_BITS) & ((1ULL << ID_BITS) - 1);
	return h ? h : 1;
}

struct found { uint64_t id; char *name; };

static int by_number(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

/* All names, by their numbers; the caller frees each and the list */
static enum mf_err list_rejected(struct cache *cache, struct found **ret, size_t *ret_count)
{
	int fd = openat(rejected_dir(cache), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		mf_close(&fd);
		return mf_err_from_errno(errno);
	}
	struct found *list = NULL;
	size_t count = 0;
	for (const struct dirent *d; (d = readdir(dir));) {
		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (count % 64 == 0)
			list = mf_realloc_array(list, count + 64, sizeof *list);
		list[count++] = (struct found){ number_of(d->d_name), mf_strdup(d->d_name) };
	}
	closedir(dir);
	if (count)
		qsort(list, count, sizeof *list, by_number);
	*ret = list;
	*ret_count = count;
	return MF_OK;
}

static void found_free(struct found *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i].name);
	free(list);
}

/* the name with this number; the caller frees. NULL: gone */
static char *rejected_name(struct cache *cache, uint64_t id)
{
	struct found *list = NULL;
	size_t count = 0;
	char *name = NULL;
	if (list_rejected(cache, &list, &count) != MF_OK)
		return NULL;
	for (size_t i = 0; i < count && !name; i++)
		if (list[i].id == id)
			name = mf_strdup(list[i].name);
	found_free(list, count);
	return name;
}

static enum mf_err visit_rejected(struct fs *fs, const struct node *dir, uint64_t after, held_visitor *visit, void *context)
{
	struct found *list = NULL;
	size_t count = 0;
	enum mf_err err = list_rejected(cache_of(fs, dir), &list, &count);
	bool more = true;
	for (size_t i = 0; err == MF_OK && i < count && more; i++) {
		struct node node = { .kind = NODE_HELD, .account = dir->account, .part = HELD_REJECTED, .id = list[i].id };
		if (list[i].id > after)
			more = visit(context, list[i].name, &node);
	}
	found_free(list, count);
	return err;
}

/* --- both -------------------------------------------------------------------------------------------------------------------- */

enum mf_err held_find(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	struct stat st;
	if (dir->part == HELD_PENDING)
		return find_op(fs, dir, name, ret);
	if (fstatat(rejected_dir(cache_of(fs, dir)), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? MF_NOT_FOUND : mf_err_from_errno(errno);
	*ret = (struct node){ .kind = NODE_HELD, .account = dir->account, .part = HELD_REJECTED, .id = number_of(name) };
	return MF_OK;
}

enum mf_err held_visit(struct fs *fs, const struct node *dir, uint64_t after, held_visitor *visit, void *context)
{
	if (dir->part == HELD_REJECTED)
		return visit_rejected(fs, dir, after, visit, context);
	return journal_list(cache_of(fs, dir), after, visit_op, &(struct op_listing){ dir, visit, context });
}

static enum mf_err attr_of_op(struct fs *fs, const struct node *node, struct stat *ret)
{
	MF_CLEANUP(mf_free) char *text = NULL;
	int64_t since = 0;
	enum mf_err err = op_text(fs, node, &text, &since);
	if (err == MF_OK)
		attr_fill(fs, node, S_IFREG | 0444, strlen(text), (struct timespec){ .tv_sec = since }, ret);
	return err;
}

static enum mf_err attr_of_rejected(struct fs *fs, const struct node *node, struct stat *ret)
{
	struct stat st;
	MF_CLEANUP(mf_free) char *name = rejected_name(cache_of(fs, node), node->id);
	if (!name || fstatat(rejected_dir(cache_of(fs, node)), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return MF_STALE;
	attr_fill(fs, node, S_IFREG | 0444, (uint64_t)st.st_size, st.st_mtim, ret);
	return MF_OK;
}

enum mf_err held_attr(struct fs *fs, const struct node *node, struct stat *ret)
{
	if (!held_name(node->part))
		return MF_STALE;
	if (node->kind == NODE_HELD)
		return node->part == HELD_PENDING ? attr_of_op(fs, node, ret) : attr_of_rejected(fs, node, ret);
	attr_fill(fs, node, S_IFDIR | 0777, 0, fs->started, ret);
	return MF_OK;
}

struct open_held { char *text; size_t len; int fd; };

void held_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct open_held *h = MF_NEW(struct open_held);
	int64_t since;
	enum mf_err err = MF_OK;
	h->fd = -1;
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		err = MF_DENIED;
	else if (node->part == HELD_PENDING)
		err = op_text(fs, node, &h->text, &since);
	else {
		MF_CLEANUP(mf_free) char *name = rejected_name(cache_of(fs, node), node->id);
		h->fd = name ? openat(rejected_dir(cache_of(fs, node)), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
		err = h->fd < 0 ? MF_STALE : MF_OK;
	}
	if (err != MF_OK) {
		free(h);
		fs_reply(req, err);
		return;
	}
	h->len = h->text ? strlen(h->text) : 0;
	fi->direct_io = 1;
	fi->noflush = 1;
	fi->fh = (uint64_t)(uintptr_t)h;
	if (fuse_reply_open(req, fi) == -ENOENT) { /* interrupted meanwhile: no RELEASE will come */
		mf_close(&h->fd);
		free(h->text);
		free(h);
	}
}

static struct open_held *handle(const struct fuse_file_info *fi)
{
	return (struct open_held *)(uintptr_t)fi->fh; /* NOLINT: the kernel gives back what open gave it */
}

void held_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi)
{
	(void)node;
	const struct open_held *h = handle(fi);
	if (h->fd < 0) {
		size_t from = (uint64_t)off < h->len ? (size_t)off : h->len;
		size_t n = size < h->len - from ? size : h->len - from;
		MF_CLEANUP(mf_free) char *part = mf_strndup(h->text + from, n); /* once answered, the file may be released */
		fuse_reply_buf(req, part, n);
		return;
	}
	MF_CLEANUP(mf_free) char *buffer = mf_alloc_array(size ? size : 1, 1);
	size_t n;
	if (file_read(h->fd, (uint64_t)off, buffer, size, &n))
		fuse_reply_err(req, EIO);
	else
		fuse_reply_buf(req, buffer, n);
}

void held_release(fuse_req_t req, struct fuse_file_info *fi)
{
	struct open_held *h = handle(fi);
	mf_close(&h->fd);
	free(h->text);
	free(h);
	fuse_reply_err(req, 0);
}

void held_unlink(fuse_req_t req, const struct node *dir, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node node;
	enum mf_err err = held_find(fs, dir, name, &node);
	if (err == MF_OK && dir->part == HELD_PENDING) {
		err = pending_cancel(fs_account(fs, dir)->account, node.id, NULL);
		if (err == MF_EXISTS)
			err = MF_BUSY;
	} else if (err == MF_OK && unlinkat(rejected_dir(cache_of(fs, dir)), name, 0) < 0) {
		err = mf_err_from_errno(errno);
	}
	fs_reply(req, err);
}

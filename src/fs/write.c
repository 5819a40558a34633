/* Writing into files: create, write, truncate, close. The bytes live in an edit (edit.h) until somebody closes.
 *
 * Opening for writing fetches nothing; the first write that keeps some of the old bytes waits for them, parked. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "fs/edit.h"
#include "fs/internal.h"

bool fs_refuses(fuse_req_t req)
{
	if (fs_of(req)->options.read_only)
		fuse_reply_err(req, EROFS);
	return fs_of(req)->options.read_only;
}

enum mf_err fs_disposal(struct fs_account *account, struct txn *t, uint64_t mailbox, bool overwritten, struct disposal *ret)
{
	const struct account_config *config = account_config(account->account);
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	enum mf_err err = cache_mailbox(account->cache, mailbox, &m);
	if (err != MF_OK)
		return err;
	bool draft = overwritten && m.use == USE_DRAFTS; /* of drafts only the last is wanted */
	bool no_trash = cache_only_deletes(account->cache);
	*ret = (struct disposal){ .expunge = draft || no_trash || config->delete_policy == DELETE_EXPUNGE || m.use == USE_TRASH,
		.delay_ms = draft ? 0 : config->expunge_delay_ms };
	return ret->expunge ? MF_OK : txn_trash(t, &ret->trash);
}

enum mf_err fs_may_write(struct fs *fs, const struct node *message)
{
	struct cache *cache = fs_account(fs, message)->cache;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	struct entry e;
	if (cache_only_deletes(cache))
		return MF_UNSUPPORTED; /* nothing can be stored at a POP3 server */
	if (cache_entry(cache, message->id, &e) != MF_OK || cache_mailbox(cache, e.mailbox, &m) != MF_OK)
		return MF_OK; /* gone meanwhile, which what follows will say */
	return mailbox_permits(&m, e.uid ? "ite" : "i") ? MF_OK : MF_DENIED;
}

enum mf_err fs_takes(struct fs_account *account, uint64_t mailbox, uint64_t size)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	struct quota quota;
	if (size == 0 || cache_mailbox(account->cache, mailbox, &m) != MF_OK)
		return MF_OK;
	if (m.append_limit && size > m.append_limit)
		return MF_TOO_BIG;
	if ((m.flags & CACHE_MAILBOX_OTHERS) || !account_quota(account->account, &quota) || !quota.limit)
		return MF_OK;
	if (quota.used <= quota.limit && size <= quota.limit - quota.used)
		return MF_OK;
	account_quota_matters(account->account);
	return MF_QUOTA;
}

/* --- beginning an edit, with the old bytes ---------------------------------------------------------------------------------- */

/* data NULL: a truncation, to offset. at_end: O_APPEND; the offset is where the kernel believes the end to be */
struct bytes { const char *data; size_t size; uint64_t offset; bool at_end; };

/* What is to be done once the edit is there */
struct pending_write {
	struct fs_account *account;    /* first: see wait_cancel() */
	struct node node;
	struct body *body;
	struct bytes bytes;
	char *data;                    /* of bytes */
};

static void reply_attr_of(fuse_req_t req, const struct node *node)
{
	tree_getattr(req, fs_ino(fs_of(req), node), NULL);
}

/* The kernel's end is an old one where lines have got their CR meanwhile, or the server's word for the size was wrong. */
static enum mf_err append(struct fs *fs, struct edit *e, const struct node *node, const struct bytes *b)
{
	uint64_t offset = b->offset;
	enum mf_err err = edit_append(e, b->data, b->size, &offset);
	if (err == MF_OK && offset != b->offset && fs->notifier)
		notifier_data(fs->notifier, fs_ino(fs, node));
	return err;
}

/* truncate(2) opens nothing, and so closes nothing: what a close would say is said at once. */
static enum mf_err end_truncation(struct fs *fs, struct edit *e, const struct node *node)
{
	enum mf_err err = message_is_open_for_writing(fs, node) ? MF_OK : edit_accept(fs, e);
	edit_end(fs, e);
	return err;
}

/* false: the edit has ended meanwhile, and nothing was done: who closed before was not done with it when this one came */
static bool apply(fuse_req_t req, struct edit *e, const struct node *node, const struct bytes *b)
{
	enum mf_err err = !b->data ? edit_truncate(e, b->offset) : b->at_end ? append(fs_of(req), e, node, b) : edit_write(e, b->data, b->size, b->offset);
	if (err == MF_CANCELLED)
		return false;
	if (err == MF_OK && !b->data)
		err = end_truncation(fs_of(req), e, node);
	if (err != MF_OK)
		fs_reply(req, err);
	else if (b->data)
		fuse_reply_write(req, b->size);
	else
		reply_attr_of(req, node);
	return true;
}

static void change_bytes(fuse_req_t req, const struct node *node, const struct bytes *b);

static bool start_base(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct pending_write *w = context;
	return account_want_body(w->account->account, w->body, 0, SIZE_MAX, done, done_context, ret_result, ret);
}

static void answer_base(void *context, fuse_req_t req, enum mf_err result)
{
	struct pending_write *w = context;
	struct fs *fs = fs_of(req);
	struct edit *e = NULL;
	if (result == MF_OK && !body_is_whole(w->body))
		result = MF_PROTOCOL;
	if (result == MF_OK)
		result = edit_begin(fs, &w->node, w->body, &e);
	if (result == MF_OK && edit_copy_from(e))
		result = edit_materialise(e, w->body);
	if (result != MF_OK)
		fs_reply(req, result);
	else if (!apply(req, e, &w->node, &w->bytes))
		change_bytes(req, &w->node, &w->bytes);
	edit_unref(e);
	body_unref(w->body);
	free(w->data);
	free(w);
}

static const struct park_call base_call = { .start = start_base, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_base };

static enum mf_err find_base(struct fs *fs, const struct node *node, uint64_t from, struct body **ret)
{
	struct cache *cache = fs_account(fs, node)->cache;
	struct entry entry;
	enum mf_err err = cache_body_get(cache, from, ret);
	if (err != MF_NOT_FOUND)
		return err;
	err = cache_entry(cache, from, &entry);
	if (err == MF_NOT_FOUND && from == node->id && message_kept_body(fs, node, ret)) /* removed while it was open */
		return MF_OK;
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	return cache_body_create(cache, from, entry.size, ret);
}

/* from: whose bytes; the message's own, or those of what it is to be a copy of */
static void park_write(fuse_req_t req, const struct node *node, uint64_t from, const struct bytes *b)
{
	struct fs *fs = fs_of(req);
	struct fs_account *account = fs_account(fs, node);
	struct body *body;
	enum mf_err err = find_base(fs, node, from, &body);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	struct pending_write *w = MF_NEW(struct pending_write);
	*w = (struct pending_write){ .account = account, .node = *node, .body = body, .bytes = *b };
	if (b->data) {
		w->bytes.data = w->data = mf_alloc_array(b->size ? b->size : 1, 1);
		memcpy(w->data, b->data, b->size);
	}
	park(fs->parking, req, 0, fs_wait_window(account), &base_call, w);
}

static bool has_no_bytes(struct cache *cache, uint64_t message)
{
	struct entry entry;
	return cache_entry(cache, message, &entry) == MF_OK && !entry.uid && entry.size == 0;
}

/* false: the edit that was there has ended meanwhile */
static bool try_change(fuse_req_t req, const struct node *node, const struct bytes *b)
{
	struct fs *fs = fs_of(req);
	struct edit *e = edit_find(fs, node);
	bool empties = !b->data && b->offset == 0;
	enum mf_err err = MF_OK;
	if (!e && (empties || has_no_bytes(fs_account(fs, node)->cache, node->id)))
		err = edit_begin(fs, node, NULL, &e);
	uint64_t from = e ? edit_copy_from(e) : node->id;
	bool done = true;
	if (err != MF_OK)
		fs_reply(req, err);
	else if (e && (!from || empties))
		done = apply(req, e, node, b);
	else
		park_write(req, node, from, b);
	edit_unref(e);
	return done;
}

static void change_bytes(fuse_req_t req, const struct node *node, const struct bytes *b)
{
	while (!try_change(req, node, b)) {
	}
}

void message_write(fuse_req_t req, const struct node *node, const char *data, size_t size, off_t off, const struct fuse_file_info *fi)
{
	bool at_end = (fi->flags & O_APPEND) && !fi->writepage;
	change_bytes(req, node, &(struct bytes){ data, size, (uint64_t)off, at_end });
}

/* --- create -------------------------------------------------------------------------------------------------------------------- */

static enum mf_err create_file(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	struct fs_account *account = fs_account(fs, dir);
	if (strlen(name) > FS_NAME_MAX)
		return MF_TOO_BIG;
	if (dir->kind != NODE_MAILBOX)
		return MF_UNSUPPORTED;
	struct txn *t;
	uint64_t id = 0;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err != MF_OK)
		return err;
	err = txn_create(t, dir->id, name, &id);
	if (err != MF_OK) {
		txn_rollback(t);
		return err;
	}
	*ret = (struct node){ .kind = NODE_MESSAGE, .account = dir->account, .id = id };
	return txn_commit(t);
}

/* The kernel looked before it asked, but another may have been quicker: without O_EXCL that one is opened. */
static enum mf_err create_or_find(struct fs *fs, const struct node *dir, const char *name, int flags, struct node *ret)
{
	struct entry entry;
	enum mf_err err = create_file(fs, dir, name, ret);
	if (err != MF_EXISTS || (flags & O_EXCL) || cache_lookup(fs_account(fs, dir)->cache, dir->id, name, &entry) != MF_OK)
		return err;
	*ret = (struct node){ .kind = NODE_MESSAGE, .account = dir->account, .id = entry.id };
	return MF_OK;
}

void write_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)mode;
	struct fs *fs = fs_of(req);
	struct node dir, node;
	if (fs_refuses(req))
		return;
	if (fs_node(fs, parent, &dir) && dir.kind == NODE_OUTBOX) {
		queued_create(req, &dir, name, fi);
		return;
	}
	enum mf_err err = fs_node(fs, parent, &dir) ? create_or_find(fs, &dir, name, fi->flags, &node) : MF_STALE;
	if (err == MF_OK)
		message_create(req, &node, fi);
	else
		fuse_reply_err(req, err == MF_TOO_BIG ? ENAMETOOLONG : fs_errno(err));
}

void write_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)rdev;
	struct fs *fs = fs_of(req);
	struct node dir, node;
	struct fuse_entry_param e = { 0 };
	if (fs_refuses(req))
		return;
	if (S_ISREG(mode) && fs_node(fs, parent, &dir) && dir.kind == NODE_OUTBOX) {
		queued_mknod(req, &dir, name);
		return;
	}
	enum mf_err err = !S_ISREG(mode) ? MF_UNSUPPORTED : fs_node(fs, parent, &dir) ? create_file(fs, &dir, name, &node) : MF_STALE;
	struct edit *edit = NULL;
	if (err == MF_OK && (err = edit_begin(fs, &node, NULL, &edit)) != MF_OK)
		edit_unmake(fs, &node);
	if (err == MF_OK) {
		edit_end(fs, edit); /* an empty file: nobody has it open */
		edit_unref(edit);
		err = attr_node(fs, &node, &e.attr);
	}
	if (err != MF_OK) {
		fuse_reply_err(req, err == MF_TOO_BIG ? ENAMETOOLONG : fs_errno(err));
		return;
	}
	attr_entry(fs, &node, &e);
	e.attr_timeout = 0;
	fuse_reply_entry(req, &e);
}

/* --- closing --------------------------------------------------------------------------------------------------------------------- */

void write_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node node;
	if (fs_node(fs, ino, &node) && node.kind == NODE_QUEUED) {
		queued_flush(req, &node, fi);
		return;
	}
	if (!fs_node(fs, ino, &node) || node.kind != NODE_MESSAGE || !message_is_written(fi)) {
		fuse_reply_err(req, 0);
		return;
	}
	struct edit *e = edit_find(fs, &node);
	enum mf_err err = e ? edit_accept(fs, e) : MF_OK;
	edit_unref(e);
	fs_reply(req, err);
}

void write_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync, (void)fi;
	struct fs *fs = fs_of(req);
	struct node node;
	if (fs_node(fs, ino, &node) && node.kind == NODE_QUEUED) {
		queued_fsync(req, &node);
		return;
	}
	if (!fs_node(fs, ino, &node) || node.kind != NODE_MESSAGE) {
		fuse_reply_err(req, 0);
		return;
	}
	struct edit *e = edit_find(fs, &node);
	struct cache *cache = fs_account(fs, &node)->cache;
	enum mf_err err = e ? edit_sync(fs, e) : spool_has(cache, node.id) ? spool_sync(cache, node.id) : MF_OK;
	if (err == MF_OK && !e)
		err = cache_flush(cache);
	edit_unref(e);
	fs_reply(req, err);
}

void write_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)datasync, (void)fi;
	struct fs *fs = fs_of(req);
	struct node node;
	bool of_account = fs_node(fs, ino, &node) && (node.kind == NODE_MAILBOX || node.kind == NODE_ACCOUNT);
	struct cache *cache = of_account ? fs_account(fs, &node)->cache : NULL;
	enum mf_err err = cache ? spool_sync_names(cache) : MF_OK;
	fs_reply(req, cache && err == MF_OK ? cache_flush(cache) : err);
}

/* --- attributes ------------------------------------------------------------------------------------------------------------------- */

static enum mf_err set_date(struct fs *fs, const struct node *node, int64_t seconds)
{
	struct fs_account *account = fs_account(fs, node);
	struct edit *e = edit_find(fs, node);
	bool written = e != NULL;
	if (e)
		edit_set_date(e, seconds);
	edit_unref(e);
	struct mail_summary summary = { 0 };
	bool spooled = spooled_summary(account->cache, node->id, 0, &summary) == MF_OK;
	struct txn *t = NULL;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = spooled ? txn_redate(t, node->id, seconds, &summary) : txn_touch(t, node->id, seconds);
	if (spooled)
		mail_summary_finish(&summary);
	if (err == MF_OK)
		return txn_commit(t);
	txn_rollback(t);
	return err == MF_NOT_FOUND && written ? MF_OK : err; /* without a name, and written still */
}

/* A file that is not a message yet: whoever writes it sets its modes too (cp -p, tar, rsync on its temporary file). */
static bool is_being_made(struct fs *fs, const struct node *node)
{
	struct entry entry;
	struct edit *e = edit_find(fs, node);
	edit_unref(e);
	if (e || cache_entry(fs_account(fs, node)->cache, node->id, &entry) != MF_OK)
		return e != NULL;
	MF_CLEANUP(mf_free) char *state = NULL;
	return !entry.uid && journal_state_of(fs_account(fs, node)->cache, node->id, &state) == MF_OK && strcmp(state, "local") == 0;
}

/* Modes and owners are the mount's: setting what is there succeeds. */
static enum mf_err check_fixed(struct fs *fs, const struct node *node, const struct stat *attr, int to_set)
{
	struct stat now;
	if (!(to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		return MF_OK;
	enum mf_err err = attr_node(fs, node, &now);
	if (err != MF_OK)
		return err;
	/* a directory that its owner can go on using is as it was asked for, as far as others are kept out (cp -a, tar) */
	mode_t counts = S_ISDIR(now.st_mode) ? 0700 : 07777 & ~(mode_t)0111;
	bool mode = (to_set & FUSE_SET_ATTR_MODE) && (attr->st_mode & counts) != (now.st_mode & counts);
	bool owner = ((to_set & FUSE_SET_ATTR_UID) && attr->st_uid != now.st_uid) || ((to_set & FUSE_SET_ATTR_GID) && attr->st_gid != now.st_gid);
	if (!mode && !owner)
		return MF_OK;
	/* what is dropped into outbox/ has no mode that anybody sees */
	return node->kind == NODE_QUEUED || (node->kind == NODE_MESSAGE && is_being_made(fs, node)) ? MF_OK : MF_UNSUPPORTED;
}

static void setattr_of_message(fuse_req_t req, const struct node *node, const struct stat *attr, int to_set)
{
	struct fs *fs = fs_of(req);
	enum mf_err err = MF_OK;
	if (to_set & FUSE_SET_ATTR_MTIME_NOW)
		err = set_date(fs, node, clock_wall_s());
	else if (to_set & FUSE_SET_ATTR_MTIME)
		err = set_date(fs, node, attr->st_mtim.tv_sec);
	if (err != MF_OK)
		fs_reply(req, err);
	else if (to_set & FUSE_SET_ATTR_SIZE)
		change_bytes(req, node, &(struct bytes){ .offset = (uint64_t)attr->st_size });
	else
		reply_attr_of(req, node);
}

static bool truncates_ctl(const struct node *node, const struct stat *attr, int to_set)
{
	const int harmless = FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME;
	return node->kind == NODE_CONTROL_FILE && node->part == CONTROL_CTL && (to_set & ~harmless) == FUSE_SET_ATTR_SIZE && attr->st_size == 0;
}

void write_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node node;
	if (!fs_node(fs, ino, &node)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (truncates_ctl(&node, attr, to_set)) { /* `echo x > ctl` truncates first: that is no change */
		tree_getattr(req, ino, fi);
		return;
	}
	if (fs_refuses(req))
		return;
	bool ours = node.kind == NODE_MESSAGE || node.kind == NODE_MAILBOX || node.kind == NODE_ACCOUNT || node.kind == NODE_OUTBOX ||
		node.kind == NODE_QUEUED;
	bool fixed = !(to_set & ~(FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_CTIME));
	enum mf_err err = ours || fixed ? check_fixed(fs, &node, attr, to_set) : MF_UNSUPPORTED;
	if (err != MF_OK)
		fs_reply(req, err);
	else if (node.kind == NODE_MESSAGE && (to_set & FUSE_SET_ATTR_SIZE) && (err = fs_may_write(fs, &node)) != MF_OK)
		fs_reply(req, err);
	else if (node.kind == NODE_MESSAGE)
		setattr_of_message(req, &node, attr, to_set);
	else if (node.kind == NODE_QUEUED)
		queued_setattr(req, &node, attr, to_set);
	else
		tree_getattr(req, ino, fi); /* times of directories are the list's */
}

void write_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)ino, (void)mode, (void)offset, (void)length, (void)fi;
	if (!fs_refuses(req))
		fuse_reply_err(req, EOPNOTSUPP); /* posix_fallocate(3) then writes */
}

/* --- copies at the server --------------------------------------------------------------------------------------------------------- */

static bool may_copy(struct fs *fs, const struct node *in, const struct node *out, off_t off_in, off_t off_out, size_t len, struct entry *ret)
{
	if (in->kind != NODE_MESSAGE || out->kind != NODE_MESSAGE || in->account != out->account || in->id == out->id || off_in || off_out)
		return false;
	struct cache *cache = fs_account(fs, in)->cache;
	MF_CLEANUP(message_finish) struct message made = { 0 };
	struct edit *source = edit_find(fs, in);
	edit_unref(source);
	return !source && cache_entry(cache, in->id, ret) == MF_OK && ret->uid && ret->size && ret->size <= len &&
	       cache_message(cache, out->id, &made) == MF_OK && !made.entry.uid && made.entry.size == 0 && !name_is_scratch(made.name);
}

void write_copy(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                struct fuse_file_info *fi_out, size_t len, int flags)
{
	(void)fi_in, (void)fi_out, (void)flags;
	struct fs *fs = fs_of(req);
	struct node in, out;
	struct entry from;
	if (!fs_node(fs, ino_in, &in) || !fs_node(fs, ino_out, &out)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	struct edit *e = out.kind == NODE_MESSAGE ? edit_find(fs, &out) : NULL;
	bool at_end = e && edit_copy_from(e) == in.id && off_in > 0 && off_in == off_out;
	if (at_end)
		fuse_reply_write(req, 0);
	else if (e && may_copy(fs, &in, &out, off_in, off_out, len, &from) && edit_copies(e, in.id, from.size))
		fuse_reply_write(req, from.size);
	else
		fuse_reply_err(req, EXDEV); /* the kernel reads and writes, and asks again the next time */
	edit_unref(e);
}

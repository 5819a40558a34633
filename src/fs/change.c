/* Changes of the tree: remove, rename, make directories. Each is one transaction of the index and its journal; the kernel
 * has looked at permissions and kinds before. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "fs/edit.h"
#include "fs/internal.h"
#include "mail/name.h"

enum mf_err fs_finish_change(struct fs_account *account, struct txn *t, enum mf_err err)
{
	if (err != MF_OK) {
		txn_rollback(t);
		return err;
	}
	err = txn_commit(t);
	if (err == MF_OK)
		account_journal_changed(account->account);
	return err;
}

/* --- removing files ------------------------------------------------------------------------------------------------------- */

/* A name that goes: its row, and what those who have it open go on with. heir: the row that the message has from now on; 0: the same */
struct leaving { struct node node; struct entry entry; struct edit *edit; bool leaves, is_written; uint64_t heir; };

/* Who has it open for writing keeps it, to go on reading and writing until the last close, and nothing of that is the message's
 * any more (unlink(2)). All bytes that are here are taken over; others are fetched when they are wanted. */
static enum mf_err begin_edit(struct fs *fs, const struct leaving *l, struct edit **ret)
{
	struct body *body = NULL;
	enum mf_err err = cache_body_get(fs_account(fs, &l->node)->cache, l->node.id, &body);
	bool none = err == MF_NOT_FOUND && !l->entry.uid && !l->entry.size;
	if (none || (err == MF_OK && body_is_whole(body)))
		err = edit_begin(fs, &l->node, body, ret);
	else if (err == MF_OK || err == MF_NOT_FOUND)
		err = MF_OK, *ret = edit_find(fs, &l->node);
	body_unref(body);
	return err;
}

/* Its edit is paused meanwhile: an end of it that is under way is over, or waits until the name is gone. */
static enum mf_err keep_open(struct fs *fs, struct leaving *l)
{
	enum mf_err err = MF_OK;
	l->leaves = true;
	l->is_written = message_is_open_for_writing(fs, &l->node);
	if (l->is_written)
		err = begin_edit(fs, l, &l->edit);
	else
		l->edit = edit_find(fs, &l->node);
	(void)edit_pause(l->edit);
	if (l->is_written || !l->entry.uid)
		message_removed(fs, l->node.account, l->node.id);
	return err;
}

/* The message of this name, which goes, unless it is the one that stays; leaving_end() follows in any case */
static enum mf_err leaving_begin(struct fs *fs, const struct node *dir, const char *name, uint64_t stays, struct leaving *ret)
{
	*ret = (struct leaving){ 0 };
	enum mf_err err = cache_lookup(fs_account(fs, dir)->cache, dir->id, name, &ret->entry);
	ret->node = (struct node){ .kind = NODE_MESSAGE, .account = dir->account, .id = ret->entry.id };
	return err == MF_OK && ret->entry.id != stays ? keep_open(fs, ret) : err;
}

/* In the transaction that removes it */
static enum mf_err leaving_part(struct fs *fs, struct txn *t, struct leaving *l)
{
	uint64_t other;
	enum mf_err err = l->is_written ? txn_part(t, l->node.id, &other) : MF_OK;
	if (err != MF_OK || !l->is_written || other == l->node.id)
		return err == MF_NOT_FOUND ? MF_OK : err; /* gone: what follows will say so */
	l->heir = other;
	return l->edit ? MF_OK : message_parted(fs, &l->node, other, l->entry.size);
}

static void leaving_end(struct fs *fs, const struct leaving *l, enum mf_err result)
{
	if (l->heir && result == MF_OK)
		edits_parted(fs, &l->node, l->heir);
	else if (l->heir)
		message_rewritten(fs, &l->node); /* it has its own bytes still */
	if (l->leaves && result == MF_OK) {
		message_unlink(fs, &l->node);
		edit_unlink(l->edit);
	}
	if (!l->edit)
		return;
	edit_resume(l->edit);
	edit_end(fs, l->edit); /* who wrote it may have closed it meanwhile */
	edit_unref(l->edit);
}

static enum mf_err remove_row(struct fs *fs, const struct node *dir, struct leaving *l)
{
	struct fs_account *account = fs_account(fs, dir);
	struct txn *t;
	struct disposal how = { 0 };
	bool local = false;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err != MF_OK)
		return err;
	if (!l->is_written)
		txn_is_asked(t, dir->id);
	if (!l->entry.uid)
		err = txn_is_local(t, l->node.id, &local);
	/* what was never at the server needs no Trash */
	if (err == MF_OK && !local)
		err = fs_disposal(account, t, dir->id, false, &how);
	if (err == MF_OK)
		err = leaving_part(fs, t, l);
	return fs_finish_change(account, t, err == MF_OK ? txn_remove(t, l->heir ? l->heir : l->node.id, &how) : err);
}

static enum mf_err remove_message(struct fs *fs, const struct node *dir, const char *name)
{
	struct leaving l;
	enum mf_err err = leaving_begin(fs, dir, name, 0, &l);
	if (err == MF_OK)
		err = remove_row(fs, dir, &l);
	leaving_end(fs, &l, err);
	return err;
}

void change_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node dir;
	if (!fs_node(fs, parent, &dir)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (dir.kind == NODE_CONTROL_LIST) {
		held_unlink(req, &dir, name);
		return;
	}
	if (fs_refuses(req))
		return;
	if (dir.kind == NODE_OUTBOX) {
		queued_unlink(req, &dir, name);
		return;
	}
	enum mf_err err = dir.kind == NODE_MAILBOX ? remove_message(fs, &dir, name) : MF_UNSUPPORTED;
	trace(TRACE_FS, "unlink in %llx: %s", (unsigned long long)parent, mf_err_name(err));
	fs_reply(req, err);
}

/* --- renaming --------------------------------------------------------------------------------------------------------------- */

/* A file that was here only gets a real name: its bytes are a message from now on, unless somebody still writes it. */
static enum mf_err upload(struct fs_account *account, struct txn *t, const struct node *node, const struct node *to, const char *name,
                          const struct disposal *how, bool being_written)
{
	enum mf_err err = MF_OK;
	struct mail_summary summary = { 0 };
	uint64_t size = 0, final = 0;
	MF_CLEANUP(mf_close) int fd = -1;
	struct entry entry;
	if (!being_written)
		err = spool_open(account->cache, node->id, &fd, &size);
	if (err == MF_OK && size) {
		err = cache_entry(account->cache, node->id, &entry);
		struct spool_note note = { "", name, err == MF_OK ? entry.mtime : 0 };
		if (err == MF_OK)
			err = spool_prepare(account->cache, node->id, fd, size, true, &note, &final);
		if (err == MF_OK && spool_was_asked(account->cache, node->id))
			err = spool_flush(account->cache, node->id, true);
		if (err == MF_OK)
			err = spooled_summary(account->cache, node->id, final, &summary);
		if (err == MF_OK)
			err = fs_takes(account, to->id, final);
	}
	if (err == MF_OK)
		err = txn_move(t, node->id, to->id, name, how);
	if (err == MF_OK && size && !being_written)
		err = txn_written(t, node->id, &(struct written){ .size = final, .summary = &summary, .internal_date = entry.mtime, .upload = true,
			.due_ms = clock_wall_ns() / 1000000 + FS_DATE_MS }, how);
	if (err != MF_OK)
		spool_discard_prepared(account->cache, node->id);
	mail_summary_finish(&summary);
	return err;
}

static enum mf_err rename_row(struct fs *fs, const struct node *node, const struct node *to, const char *name, bool being_written,
                              struct leaving *l)
{
	struct fs_account *account = fs_account(fs, node);
	struct disposal how = { 0 };
	struct txn *t;
	if (to->kind != NODE_MAILBOX)
		return MF_UNSUPPORTED;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err != MF_OK)
		return err;
	struct entry victim;
	bool local = false, replaces = cache_lookup(account->cache, to->id, name, &victim) == MF_OK && victim.id != node->id;
	if (replaces || !name_is_scratch(name))
		err = fs_disposal(account, t, to->id, true, &how);
	if (err == MF_OK)
		err = txn_is_local(t, node->id, &local);
	if (err == MF_OK)
		err = leaving_part(fs, t, l);
	if (err == MF_OK && local && !name_is_scratch(name))
		err = upload(account, t, node, to, name, &how, being_written);
	else if (err == MF_OK)
		err = txn_move(t, node->id, to->id, name, &how);
	return fs_finish_change(account, t, err);
}

/* A close reaches us before the rename that follows it, but its release may not: what was accepted then is all there is. */
static enum mf_err rename_message(struct fs *fs, const struct node *node, const struct node *to, const char *name)
{
	struct leaving l = { 0 };
	enum mf_err err = to->kind == NODE_MAILBOX ? leaving_begin(fs, to, name, node->id, &l) : MF_OK;
	struct edit *e = edit_find(fs, node);
	bool being_written = edit_pause(e);
	if (err == MF_OK || err == MF_NOT_FOUND)
		err = rename_row(fs, node, to, name, being_written, &l);
	edit_resume(e);
	edit_unref(e);
	leaving_end(fs, &l, err);
	return err;
}

/* An empty directory makes room for one that takes its name (rename(2)). */
static enum mf_err rename_mailbox(struct fs *fs, const struct node *node, const struct node *to, const char *name)
{
	struct fs_account *account = fs_account(fs, node);
	uint64_t parent = to->kind == NODE_MAILBOX ? to->id : 0;
	if ((to->kind != NODE_MAILBOX && to->kind != NODE_ACCOUNT) || (!parent && mailbox_name_is_reserved(name)))
		return MF_UNSUPPORTED;
	MF_CLEANUP(mailbox_finish) struct mailbox there = { 0 };
	struct txn *t;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err != MF_OK)
		return err;
	if (cache_mailbox_by_name(account->cache, parent, name, &there) == MF_OK && there.id != node->id)
		err = txn_mailbox_delete(t, there.id);
	if (err == MF_OK)
		err = txn_mailbox_rename(t, node->id, parent, name);
	return fs_finish_change(account, t, err);
}

static enum mf_err find(struct fs *fs, const struct node *dir, const char *name, struct node *ret)
{
	struct fuse_entry_param e;
	enum mf_err err = tree_find(fs, dir, name, &e);
	if (err == MF_OK && !fs_node(fs, e.ino, ret))
		err = MF_STALE;
	return err;
}

/* EEXIST where the kernel would look only later, EXDEV between accounts */
static int rename_refusal(struct fs *fs, const struct node *from, const struct node *to, const char *newname, unsigned flags)
{
	struct node target;
	bool exists = find(fs, to, newname, &target) == MF_OK;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return EINVAL;
	if ((flags & RENAME_NOREPLACE) && exists)
		return EEXIST;
	if (from->account != to->account)
		return EXDEV;
	if ((from->kind == NODE_OUTBOX) != (to->kind == NODE_OUTBOX))
		return EXDEV; /* a copy is put into the queue, or taken out of it: mv does that */
	if (strlen(newname) > FS_NAME_MAX)
		return ENAMETOOLONG;
	return 0;
}

void change_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	struct fs *fs = fs_of(req);
	struct node from, to, node;
	if (!fs_node(fs, parent, &from) || !fs_node(fs, newparent, &to)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (fs_refuses(req))
		return;
	int refusal = rename_refusal(fs, &from, &to, newname, flags);
	if (refusal) {
		fuse_reply_err(req, refusal);
		return;
	}
	if (from.kind == NODE_OUTBOX) {
		queued_rename(req, &from, name, &to, newname);
		return;
	}
	enum mf_err err = find(fs, &from, name, &node);
	if (err == MF_OK && node.kind == NODE_MESSAGE)
		err = rename_message(fs, &node, &to, newname);
	else if (err == MF_OK)
		err = node.kind == NODE_MAILBOX ? rename_mailbox(fs, &node, &to, newname) : MF_UNSUPPORTED;
	trace(TRACE_FS, "rename in %llx: %s", (unsigned long long)parent, mf_err_name(err));
	if (err == MF_EXISTS)
		fuse_reply_err(req, node.kind == NODE_MAILBOX ? ENOTEMPTY : EISDIR);
	else if (err == MF_TOO_BIG && node.kind == NODE_MAILBOX)
		fuse_reply_err(req, ENAMETOOLONG);
	else
		fs_reply(req, err);
}

/* --- directories --------------------------------------------------------------------------------------------------------------- */

void change_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)mode;
	struct fs *fs = fs_of(req);
	struct node dir;
	if (!fs_node(fs, parent, &dir)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	/* a file manager that may not make its trash folder offers to delete for good instead, and says so */
	if (strncmp(name, ".Trash", 6) == 0) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (fs_refuses(req))
		return;
	if (strlen(name) > FS_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if ((dir.kind != NODE_MAILBOX && dir.kind != NODE_ACCOUNT) || (dir.kind == NODE_ACCOUNT && mailbox_name_is_reserved(name))) {
		fuse_reply_err(req, EPERM);
		return;
	}
	struct fs_account *account = fs_account(fs, &dir);
	struct txn *t;
	uint64_t id = 0;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = fs_finish_change(account, t, txn_mailbox_create(t, dir.kind == NODE_MAILBOX ? dir.id : 0, name, &id));
	struct node node = { .kind = NODE_MAILBOX, .account = dir.account, .id = id };
	struct fuse_entry_param e = { 0 };
	if (err == MF_OK)
		err = attr_node(fs, &node, &e.attr);
	if (err != MF_OK) {
		fuse_reply_err(req, err == MF_TOO_BIG ? ENAMETOOLONG : fs_errno(err));
		return;
	}
	attr_entry(fs, &node, &e);
	fuse_reply_entry(req, &e);
}

/* Whether the server's mailbox is empty is asked just before, where it can be asked. */
struct waiting_rmdir {
	struct fs_account *account;    /* first: see wait_cancel() */
	uint64_t mailbox;
	uint64_t directory;            /* its number for the kernel */
};

static bool start_rmdir(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct waiting_rmdir *w = context;
	return account_want_sync(w->account->account, &w->mailbox, 1, false, done, done_context, ret_result, ret);
}

static void delete_mailbox(fuse_req_t req, struct fs_account *account, uint64_t mailbox)
{
	struct txn *t;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = fs_finish_change(account, t, txn_mailbox_delete(t, mailbox));
	if (err == MF_EXISTS)
		fuse_reply_err(req, ENOTEMPTY);
	else
		fs_reply(req, err);
}

static void answer_rmdir(void *context, fuse_req_t req, enum mf_err result)
{
	struct waiting_rmdir *w = context;
	if (result == MF_CANCELLED)
		fs_reply(req, result);
	else
		delete_mailbox(req, w->account, w->mailbox); /* offline too: it is asked before it is carried out */
	free(w);
}

static uint64_t removed_directory(void *context)
{
	const struct waiting_rmdir *w = context;
	return w->directory;
}

static const struct park_call rmdir_call = {
	.start = start_rmdir, .cancel = wait_cancel, .progress = wait_progress, .also_locked = removed_directory, .answer = answer_rmdir,
};

void change_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node dir, node;
	if (!fs_node(fs, parent, &dir)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (fs_refuses(req))
		return;
	enum mf_err err = find(fs, &dir, name, &node);
	if (err != MF_OK || node.kind != NODE_MAILBOX) {
		fs_reply(req, err != MF_OK ? err : MF_UNSUPPORTED);
		return;
	}
	struct fs_account *account = fs_account(fs, &node);
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	err = cache_mailbox(account->cache, node.id, &m);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	if (m.use == USE_INBOX) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (!m.raw || (m.flags & MAILBOX_NOSELECT) || m.total) {
		delete_mailbox(req, account, node.id);
		return;
	}
	struct waiting_rmdir *w = MF_NEW(struct waiting_rmdir);
	*w = (struct waiting_rmdir){ account, node.id, fs_ino(fs, &node) };
	park(fs->parking, req, parent, fs_wait_window(account), &rmdir_call, w);
}

/* --- never --------------------------------------------------------------------------------------------------------------------- */

void change_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link, (void)parent, (void)name;
	if (!fs_refuses(req))
		fuse_reply_err(req, EPERM);
}

void change_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	if (!fs_refuses(req))
		fuse_reply_err(req, EPERM);
}

/* Names to nodes. Everything here answers from memory or the index; only a miss in a mailbox whose list is not complete
 * waits for the server, parked. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "fs/internal.h"
#include "sync/remote.h"

static enum mf_err entry_of(struct fs *fs, const struct node *node, struct fuse_entry_param *ret)
{
	struct fuse_entry_param e = { 0 };
	enum mf_err err = attr_node(fs, node, &e.attr);
	if (err != MF_OK)
		return err;
	attr_entry(fs, node, &e);
	*ret = e;
	return MF_OK;
}

static enum mf_err find_account(struct fs *fs, const char *name, struct fuse_entry_param *ret)
{
	for (size_t i = 0; i < fs->account_count; i++)
		if (strcmp(account_config(fs->accounts[i].account)->name, name) == 0)
			return entry_of(fs, &(struct node){ .kind = NODE_ACCOUNT, .account = (uint8_t)i }, ret);
	return MF_NOT_FOUND;
}

static enum mf_err find_mailbox(struct fs *fs, const struct node *dir, const char *name, struct fuse_entry_param *ret)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	enum mf_err err = cache_mailbox_by_name(fs_account(fs, dir)->cache, dir->id, name, &m);
	if (err != MF_OK)
		return err;
	struct node node = { .kind = NODE_MAILBOX, .account = dir->account, .id = m.id };
	*ret = (struct fuse_entry_param){ 0 };
	attr_mailbox(fs, dir->account, &m, &ret->attr);
	attr_entry(fs, &node, ret);
	return MF_OK;
}

/* Messages first: they are what is asked for a hundred thousand times. */
static enum mf_err find_in_mailbox(struct fs *fs, const struct node *dir, const char *name, struct fuse_entry_param *ret)
{
	struct entry e;
	enum mf_err err = cache_lookup(fs_account(fs, dir)->cache, dir->id, name, &e);
	if (err == MF_NOT_FOUND)
		return find_mailbox(fs, dir, name, ret);
	if (err != MF_OK)
		return err;
	struct node node = { .kind = NODE_MESSAGE, .account = dir->account, .id = e.id };
	*ret = (struct fuse_entry_param){ 0 };
	attr_message(fs, dir->account, &e, &ret->attr);
	attr_entry(fs, &node, ret);
	if (!e.uid || atomic_load(&fs->edit_count))
		ret->attr_timeout = 0; /* what is being written changes without a word to the kernel */
	return MF_OK;
}

/* What mailfs itself puts into a root; MF_NOT_FOUND: nothing of this name */
static enum mf_err find_reserved(struct fs *fs, const struct node *dir, const char *name, struct fuse_entry_param *ret)
{
	if (dir->kind == NODE_ACCOUNT && fs_account(fs, dir)->outgoing && strcmp(name, OUTBOX_NAME) == 0)
		return entry_of(fs, &(struct node){ .kind = NODE_OUTBOX, .account = dir->account }, ret);
	if (name[0] != '.')
		return MF_NOT_FOUND;
	if (strcmp(name, CONTROL_NAME) == 0) {
		struct node control = { .kind = NODE_CONTROL_DIR, .account = dir->account, .id = dir->kind == NODE_ROOT ? CONTROL_OF_MOUNT : 0 };
		return entry_of(fs, &control, ret);
	}
	if (strcmp(name, NOMEDIA_NAME) == 0 && nomedia_shown(fs, dir))
		return entry_of(fs, &(struct node){ .kind = NODE_NOMEDIA }, ret);
	return MF_NOT_FOUND;
}

enum mf_err tree_find(struct fs *fs, const struct node *dir, const char *name, struct fuse_entry_param *ret)
{
	enum mf_err err;
	switch (dir->kind) {
	case NODE_ROOT:
		err = find_reserved(fs, dir, name, ret);
		return err == MF_NOT_FOUND ? find_account(fs, name, ret) : err;
	case NODE_ACCOUNT:
		err = find_reserved(fs, dir, name, ret);
		return err == MF_NOT_FOUND ? find_mailbox(fs, dir, name, ret) : err;
	case NODE_MAILBOX:
		return find_in_mailbox(fs, dir, name, ret);
	case NODE_CONTROL_DIR: {
		struct node list = { .kind = NODE_CONTROL_LIST, .account = dir->account, .id = dir->id, .part = (uint16_t)held_by_name(name) };
		if (list.part && dir->id != CONTROL_OF_MOUNT)
			return entry_of(fs, &list, ret);
		struct node file = { .kind = NODE_CONTROL_FILE, .account = dir->account, .id = dir->id, .part = (uint16_t)control_file_by_name(name) };
		return file.part ? entry_of(fs, &file, ret) : MF_NOT_FOUND;
	}
	case NODE_CONTROL_LIST: {
		struct node held;
		err = held_find(fs, dir, name, &held);
		return err == MF_OK ? entry_of(fs, &held, ret) : err;
	}
	case NODE_OUTBOX: {
		struct node queued;
		err = queued_find(fs, dir, name, &queued);
		return err == MF_OK ? entry_of(fs, &queued, ret) : err;
	}
	case NODE_MESSAGE:
	case NODE_CONTROL_FILE:
	case NODE_NOMEDIA:
	case NODE_HELD:
	case NODE_QUEUED:
		break;
	}
	return MF_NOT_FOUND;
}

static enum mf_err parent_of_mailbox(struct fs *fs, const struct node *node, struct node *ret)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	enum mf_err err = cache_mailbox(fs_account(fs, node)->cache, node->id, &m);
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	*ret = (struct node){ .kind = m.parent ? NODE_MAILBOX : NODE_ACCOUNT, .account = node->account, .id = m.parent };
	return MF_OK;
}

enum mf_err tree_parent(struct fs *fs, const struct node *node, struct node *ret)
{
	struct node root = { .kind = fs->options.account_is_root ? NODE_ACCOUNT : NODE_ROOT };
	switch (node->kind) {
	case NODE_ROOT:
	case NODE_ACCOUNT:
	case NODE_NOMEDIA:
		*ret = root;
		return MF_OK;
	case NODE_MAILBOX:
		return parent_of_mailbox(fs, node, ret);
	case NODE_MESSAGE: {
		struct entry e;
		enum mf_err err = cache_entry(fs_account(fs, node)->cache, node->id, &e);
		if (err != MF_OK)
			return err == MF_NOT_FOUND ? MF_STALE : err;
		*ret = (struct node){ .kind = NODE_MAILBOX, .account = node->account, .id = e.mailbox };
		return MF_OK;
	}
	case NODE_CONTROL_DIR:
		*ret = node->id == CONTROL_OF_MOUNT ? root : (struct node){ .kind = NODE_ACCOUNT, .account = node->account };
		return MF_OK;
	case NODE_CONTROL_FILE:
	case NODE_CONTROL_LIST:
		*ret = (struct node){ .kind = NODE_CONTROL_DIR, .account = node->account, .id = node->id };
		return MF_OK;
	case NODE_HELD:
		*ret = (struct node){ .kind = NODE_CONTROL_LIST, .account = node->account, .part = node->part };
		return MF_OK;
	case NODE_OUTBOX:
		*ret = (struct node){ .kind = node->part ? NODE_OUTBOX : NODE_ACCOUNT, .account = node->account };
		return MF_OK;
	case NODE_QUEUED:
		*ret = (struct node){ .kind = NODE_OUTBOX, .account = node->account, .part = queued_is_failed(fs, node) ? OUTBOX_FAILURES : 0 };
		return MF_OK;
	}
	return MF_STALE;
}

bool tree_incomplete(struct fs *fs, const struct node *dir)
{
	if (dir->kind != NODE_MAILBOX)
		return false;
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	if (cache_mailbox(fs_account(fs, dir)->cache, dir->id, &m) != MF_OK)
		return false;
	return !m.complete && m.raw && !(m.flags & MAILBOX_NOSELECT) && mailbox_permits(&m, "r");
}

static bool note_one(void *context, const struct mailbox *m)
{
	(void)m;
	*(bool *)context = true;
	return false;
}

enum mf_err tree_unlisted(struct fs *fs, const struct node *dir)
{
	bool any = false;
	struct link_info link;
	if (dir->kind != NODE_ACCOUNT)
		return MF_OK;
	enum mf_err err = cache_mailboxes(fs_account(fs, dir)->cache, note_one, &any);
	if (err != MF_OK || any)
		return err;
	account_link(fs_account(fs, dir)->account, &link);
	return link.error != MF_OK ? link.error : MF_OFFLINE;
}

/* --- waiting for a mailbox's list ------------------------------------------------------------------------------------ */

bool mailbox_wait_start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct mailbox_wait *w = context;
	return account_want_mailbox(w->account->account, w->mailbox, done, done_context, ret_result, ret);
}

bool most_wait_start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct mailbox_wait *w = context;
	return account_want_most(w->account->account, w->mailbox, done, done_context, ret_result, ret);
}

bool wait_cancel(void *context, struct want *want)
{
	struct fs_account *const *account = context;
	return want_cancel((*account)->account, want);
}

uint64_t wait_progress(void *context)
{
	struct fs_account *const *account = context;
	struct account_counters counters;
	account_counters((*account)->account, &counters);
	return counters.received;
}

/* --- lookup ---------------------------------------------------------------------------------------------------------- */

static void reply_missing(fuse_req_t req, const char *name)
{
	if (!probe_name(name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	struct fuse_entry_param none = { .entry_timeout = FS_NEGATIVE_TIMEOUT_S };
	fuse_reply_entry(req, &none);
}

struct waiting_lookup {
	struct mailbox_wait wait;  /* first: see mailbox_wait_start() */
	struct node dir;
	char name[FS_NAME_MAX + 1];
};

static void answer_lookup(void *context, fuse_req_t req, enum mf_err result)
{
	struct waiting_lookup *w = context;
	struct fuse_entry_param e;
	if (mailbox_wait_shows(result))
		result = tree_find(fs_of(req), &w->dir, w->name, &e);
	if (result == MF_OK)
		fuse_reply_entry(req, &e);
	else
		fs_reply(req, result);
	free(w);
}

static const struct park_call lookup_call = {
	.start = mailbox_wait_start, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_lookup,
};

static void park_lookup(fuse_req_t req, const struct node *dir, const char *name)
{
	struct fs *fs = fs_of(req);
	struct waiting_lookup *w = MF_NEW(struct waiting_lookup);
	w->wait = (struct mailbox_wait){ fs_account(fs, dir), dir->id };
	w->dir = *dir;
	memcpy(w->name, name, strlen(name) + 1);
	park(fs->parking, req, fs_ino(fs, dir), fs_wait_window(w->wait.account), &lookup_call, w);
}

/* "." and ".." are asked by number for file handles (NFS, open_by_handle_at), of files too. */
static void lookup_by_number(fuse_req_t req, const struct node *node, bool parent)
{
	struct fs *fs = fs_of(req);
	struct node target = *node;
	struct fuse_entry_param e;
	enum mf_err err = parent ? tree_parent(fs, node, &target) : MF_OK;
	if (err == MF_OK)
		err = entry_of(fs, &target, &e);
	if (err == MF_OK)
		fuse_reply_entry(req, &e);
	else
		fs_reply(req, err);
}

void tree_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node dir;
	size_t len = strlen(name);
	if (trace_on(TRACE_FS)) {
		char text[FS_NAME_MAX + 1];
		trace_line(TRACE_FS, "lookup %llx %s", (unsigned long long)parent, mf_printable(text, sizeof text, name, len));
	}
	if (!fs_node(fs, parent, &dir)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (len > FS_NAME_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		lookup_by_number(req, &dir, name[1] == '.');
		return;
	}
	struct fuse_entry_param e;
	enum mf_err err = tree_find(fs, &dir, name, &e);
	if (err == MF_OK)
		fuse_reply_entry(req, &e);
	else if (err != MF_NOT_FOUND)
		fs_reply(req, err);
	else if (!probe_name(name) && tree_incomplete(fs, &dir))
		park_lookup(req, &dir, name);
	else if (!probe_name(name) && (err = tree_unlisted(fs, &dir)) != MF_OK)
		fs_reply(req, err);
	else
		reply_missing(req, name);
}

void tree_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi; /* what is open is found by its number: fstat(2) comes without a handle too */
	struct fs *fs = fs_of(req);
	struct node node = { .kind = NODE_ROOT };
	struct stat attr;
	enum mf_err err = fs_node(fs, ino, &node) ? attr_node(fs, &node, &attr) : MF_STALE;
	if (node.kind == NODE_MESSAGE && err == MF_STALE && message_attr_of_open(fs, &node, &attr))
		err = MF_OK;
	trace(TRACE_FS, "getattr %llx: %s, %lld bytes", (unsigned long long)ino, mf_err_name(err), err == MF_OK ? (long long)attr.st_size : 0LL);
	if (err == MF_OK)
		fuse_reply_attr(req, &attr, attr_timeout_now(fs, &node));
	else
		fs_reply(req, err);
}

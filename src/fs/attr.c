/* What stat(2) says of every kind of node. Plain arithmetic for messages: a listing of 100,000 comes through here. */
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/edit.h"
#include "fs/internal.h"

uint64_t fs_ino(const struct fs *fs, const struct node *node)
{
	if (node->kind == NODE_ACCOUNT && fs->options.account_is_root)
		return FUSE_ROOT_ID;
	return node_pack(node);
}

bool fs_node(const struct fs *fs, fuse_ino_t ino, struct node *ret)
{
	struct node node;
	if (!node_unpack(ino, fs->options.account_is_root, &node))
		return false;
	if (node.kind != NODE_ROOT && node.kind != NODE_NOMEDIA && node.account >= fs->account_count)
		return false;
	*ret = node;
	return true;
}

bool fs_account_by_number(const struct fs *fs, unsigned number, uint8_t *ret_index)
{
	for (size_t i = 0; i < fs->account_count; i++)
		if (fs->accounts[i].number == number) {
			*ret_index = (uint8_t)i;
			return true;
		}
	return false;
}

int64_t fs_wait_window(const struct fs_account *account)
{
	const struct account_config *config = account_config(account->account);
	return config->connect_timeout_ms + config->io_timeout_ms + 5000;
}

/* st_nlink of a directory is 1: "not counted", which find(1) and fts(3) understand (2 would promise that there is no
 * directory inside, and counting costs a query). */
void attr_fill(const struct fs *fs, const struct node *node, mode_t type_and_mode, uint64_t size, struct timespec mtime, struct stat *ret)
{
	mode_t mode = type_and_mode & ~(fs->options.umask & 0777);
	if (fs->options.read_only)
		mode &= ~(mode_t)0222;
	*ret = (struct stat){
		.st_ino = fs_ino(fs, node),
		.st_mode = mode,
		.st_nlink = 1,
		.st_uid = fs->options.uid,
		.st_gid = fs->options.gid,
		.st_size = (off_t)size,
		.st_blksize = 128 * 1024,
		.st_blocks = (blkcnt_t)((size + 511) / 512), /* GNU tar takes fewer for a hole */
		.st_atim = mtime, .st_mtim = mtime, .st_ctim = mtime,
	};
}

void attr_message(const struct fs *fs, uint8_t account, const struct entry *e, struct stat *ret)
{
	struct node node = { .kind = NODE_MESSAGE, .account = account, .id = e->id };
	attr_fill(fs, &node, S_IFREG | 0666, e->size, (struct timespec){ .tv_sec = e->mtime }, ret);
	ret->st_ctim = (struct timespec){ .tv_sec = e->ctime / 1000000000, .tv_nsec = e->ctime % 1000000000 };
	struct edit *edit = edit_find((struct fs *)(uintptr_t)fs, &node); /* counts a reference, which is no change */
	if (edit)
		edit_attr(edit, ret);
	edit_unref(edit);
}

/* anything of what the w of a directory stands for: each has its right, which is asked for when it is done */
static bool may_be_changed(const struct mailbox *m)
{
	return mailbox_permits(m, "i") || mailbox_permits(m, "te") || (m->rights && mailbox_permits(m, "k"));
}

void attr_mailbox(const struct fs *fs, uint8_t account, const struct mailbox *m, struct stat *ret)
{
	struct node node = { .kind = NODE_MAILBOX, .account = account, .id = m->id };
	/* what is inside it can be reached whatever the rights: those mailboxes have their own */
	mode_t mode = 0111 | (mailbox_permits(m, "r") ? 0444 : 0) | (may_be_changed(m) ? 0222 : 0);
	attr_fill(fs, &node, S_IFDIR | mode, 0, m->mtime, ret);
}

static enum mf_err attr_of_mailbox_id(struct fs *fs, const struct node *node, struct stat *ret)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	enum mf_err err = cache_mailbox(fs_account(fs, node)->cache, node->id, &m);
	if (err == MF_OK)
		attr_mailbox(fs, node->account, &m, ret);
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

static enum mf_err attr_of_message_id(struct fs *fs, const struct node *node, struct stat *ret)
{
	struct entry e;
	enum mf_err err = cache_entry(fs_account(fs, node)->cache, node->id, &e);
	if (err == MF_OK)
		attr_message(fs, node->account, &e, ret);
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

enum mf_err attr_node(struct fs *fs, const struct node *node, struct stat *ret)
{
	switch (node->kind) {
	case NODE_ROOT:
		attr_fill(fs, node, S_IFDIR | 0555, 0, fs->started, ret);
		return MF_OK;
	case NODE_ACCOUNT: {
		struct timespec mtime;
		cache_root_mtime(fs_account(fs, node)->cache, &mtime);
		attr_fill(fs, node, S_IFDIR | 0777, 0, mtime.tv_sec ? mtime : fs->started, ret);
		return MF_OK;
	}
	case NODE_MAILBOX:
		return attr_of_mailbox_id(fs, node, ret);
	case NODE_MESSAGE:
		return attr_of_message_id(fs, node, ret);
	case NODE_CONTROL_DIR:
		attr_fill(fs, node, S_IFDIR | 0555, 0, fs->started, ret);
		return MF_OK;
	case NODE_CONTROL_FILE:
		if (!control_file_name(node->part))
			return MF_STALE;
		control_file_attr(fs, node, ret);
		return MF_OK;
	case NODE_NOMEDIA:
		nomedia_attr(fs, ret);
		return MF_OK;
	case NODE_CONTROL_LIST:
	case NODE_HELD:
		return held_attr(fs, node, ret);
	case NODE_OUTBOX:
	case NODE_QUEUED:
		return queued_attr(fs, node, ret);
	}
	return MF_STALE;
}

/* What control files hold, and the outbox, changes without a word to the kernel. */
double attr_timeout(const struct node *node)
{
	bool changes = node->kind == NODE_CONTROL_FILE || node->kind == NODE_CONTROL_LIST || node->kind == NODE_HELD || node->kind == NODE_OUTBOX ||
		node->kind == NODE_QUEUED;
	return changes ? 0.0 : FS_TIMEOUT_S;
}

double attr_timeout_now(struct fs *fs, const struct node *node)
{
	struct entry e;
	if (node->kind == NODE_MESSAGE && (atomic_load(&fs->edit_count) || journal_count(fs_account(fs, node)->cache)) &&
	    (cache_entry(fs_account(fs, node)->cache, node->id, &e) != MF_OK || !e.uid))
		return 0.0;
	struct edit *edit = node->kind == NODE_MESSAGE ? edit_find(fs, node) : NULL;
	edit_unref(edit);
	return edit ? 0.0 : attr_timeout(node);
}

void attr_entry(const struct fs *fs, const struct node *node, struct fuse_entry_param *e)
{
	bool of_account = node->kind != NODE_ROOT && node->kind != NODE_NOMEDIA;
	e->ino = e->attr.st_ino;
	e->generation = of_account ? fs->accounts[node->account].epoch : 1;
	e->attr_timeout = attr_timeout(node);
	e->entry_timeout = node->kind == NODE_HELD || node->kind == NODE_QUEUED ? 0.0 : FS_TIMEOUT_S;
}

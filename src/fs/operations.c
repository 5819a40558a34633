/* The table of handlers, and the few that only choose by kind of node. Absent on purpose: FORGET (nodes need no memory), locks (the kernel's own are enough), ACCESS (default_permissions). */
#include <errno.h>

#include "fs/internal.h"

/* The kernel's queue of background (read-ahead) requests. Many: those that wait for the server must not keep back those
 * that are answered from the disk, and a waiting one keeps no worker. */
enum { MAX_BACKGROUND = 2048, CONGESTION = 1536 };

static void init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;
	conn->want |= conn->capable & (FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
		FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_AUTO_INVAL_DATA);
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = CONGESTION;
	if (fs->options.on_ready)
		fs->options.on_ready(fs->options.ready_context);
}

static void open_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node node;
	if (!fs_node(fs_of(req), ino, &node))
		fuse_reply_err(req, ESTALE);
	else if (node.kind == NODE_MESSAGE)
		message_open(req, &node, fi);
	else if (node.kind == NODE_CONTROL_FILE && control_file_name(node.part))
		control_file_open(req, &node, fi);
	else if (node.kind == NODE_NOMEDIA)
		nomedia_open(req, fi);
	else if (node.kind == NODE_HELD)
		held_open(req, &node, fi);
	else if (node.kind == NODE_QUEUED)
		queued_open(req, &node, fi);
	else
		fuse_reply_err(req, ESTALE);
}

static void read_any(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node node;
	if (off < 0 || !fs_node(fs_of(req), ino, &node))
		fuse_reply_err(req, off < 0 ? EINVAL : ESTALE);
	else if (node.kind == NODE_MESSAGE)
		message_read(req, &node, size, off, fi);
	else if (node.kind == NODE_CONTROL_FILE)
		control_file_read(req, &node, size, off, fi);
	else if (node.kind == NODE_HELD)
		held_read(req, &node, size, off, fi);
	else if (node.kind == NODE_QUEUED)
		queued_read(req, &node, size, off, fi);
	else
		fuse_reply_buf(req, NULL, 0);
}

static void write_any(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct node node;
	if (!fs_node(fs_of(req), ino, &node))
		fuse_reply_err(req, ESTALE);
	else if (node.kind == NODE_CONTROL_FILE)
		control_file_write(req, &node, data, size, fi);
	else if (node.kind == NODE_MESSAGE && off >= 0)
		message_write(req, &node, data, size, off, fi);
	else if (node.kind == NODE_QUEUED && off >= 0)
		queued_write(req, &node, data, size, off, fi);
	else
		fuse_reply_err(req, EPERM);
}

static void release_any(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct node node;
	if (!fs_node(fs_of(req), ino, &node) || node.kind == NODE_NOMEDIA)
		fuse_reply_err(req, 0);
	else if (node.kind == NODE_MESSAGE)
		message_release(req, &node, fi);
	else if (node.kind == NODE_HELD)
		held_release(req, fi);
	else if (node.kind == NODE_QUEUED)
		queued_release(req, &node, fi);
	else
		control_file_release(req, &node, fi);
}

const struct fuse_lowlevel_ops fs_operations = {
	.init = init,
	.lookup = tree_lookup,
	.getattr = tree_getattr,
	.opendir = dir_opendir,
	.readdir = dir_readdir,
	.readdirplus = dir_readdirplus,
	.open = open_any,
	.read = read_any,
	.write = write_any,
	.release = release_any,
	.statfs = statfs_statfs,
	.getxattr = xattr_get,
	.listxattr = xattr_list,
	.setxattr = xattr_set,
	.removexattr = xattr_remove,
	.setattr = write_setattr,
	.create = write_create,
	.mknod = write_mknod,
	.flush = write_flush,
	.fsync = write_fsync,
	.fsyncdir = write_fsyncdir,
	.fallocate = write_fallocate,
	.copy_file_range = write_copy,
	.unlink = change_unlink,
	.rename = change_rename,
	.mkdir = change_mkdir,
	.rmdir = change_rmdir,
	.symlink = change_symlink,
	.link = change_link,
};

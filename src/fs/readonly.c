/* Every change of the tree: refused, since this version only reads. The kernel has looked at names and permissions
 * before, so that ENOENT, EEXIST, EISDIR and EACCES come from there. */
#include <errno.h>
#include <string.h>

#include "fs/internal.h"

/* `echo x > ctl` truncates first: that is no change */
void readonly_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct node node;
	if (fs_node(fs_of(req), ino, &node) && node.kind == NODE_CONTROL_FILE && node.part == CONTROL_CTL &&
	    (to_set & ~(FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_CTIME)) == FUSE_SET_ATTR_SIZE && attr->st_size == 0) {
		tree_getattr(req, ino, fi);
		return;
	}
	fuse_reply_err(req, EROFS);
}

void readonly_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent, (void)name, (void)mode, (void)rdev;
	fuse_reply_err(req, EROFS);
}

/* A file manager that may not make its trash folder offers to delete for good instead, and says so. */
void readonly_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent, (void)mode;
	fuse_reply_err(req, strncmp(name, ".Trash", 6) == 0 ? EPERM : EROFS);
}

void readonly_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

void readonly_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	(void)link, (void)parent, (void)name;
	fuse_reply_err(req, EROFS);
}

void readonly_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned flags)
{
	(void)parent, (void)name, (void)newparent, (void)newname, (void)flags;
	fuse_reply_err(req, EROFS);
}

void readonly_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	(void)ino, (void)newparent, (void)newname;
	fuse_reply_err(req, EROFS);
}

void readonly_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)parent, (void)name, (void)mode, (void)fi;
	fuse_reply_err(req, EROFS);
}

void readonly_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)ino, (void)mode, (void)offset, (void)length, (void)fi;
	fuse_reply_err(req, EROFS);
}

/* df: the account's quota where the server has one, else the file system of the cache. Never the network, never zeros. */
#include <sys/statvfs.h>

#include "fs/internal.h"

enum { BLOCK = 4096 };

static void of_cache(const struct fs *fs, struct statvfs *ret)
{
	const char *path = fs->options.cache_dir ? fs->options.cache_dir : "/";
	if (statvfs(path, ret) != 0)
		*ret = (struct statvfs){ .f_bsize = BLOCK, .f_frsize = BLOCK, .f_blocks = 1, .f_files = 1 };
	if (ret->f_files == 0)   /* btrfs counts none */
		ret->f_files = ret->f_ffree = ret->f_favail = 1U << 20;
	ret->f_namemax = FS_NAME_MAX;
}

static bool quota_of(struct fs *fs, const struct node *node, struct quota *ret)
{
	bool of_mount = node->kind == NODE_ROOT || node->kind == NODE_NOMEDIA || node->id == CONTROL_OF_MOUNT;
	bool one = fs->options.account_is_root || node->kind == NODE_MAILBOX || node->kind == NODE_MESSAGE || !of_mount;
	return one && account_quota(fs_account(fs, node)->account, ret) && ret->limit > 0;
}

void statfs_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	struct node node;
	struct statvfs s;
	struct quota quota;
	of_cache(fs, &s);
	if (fs_node(fs, ino, &node) && quota_of(fs, &node, &quota)) {
		uint64_t available = quota.used < quota.limit ? quota.limit - quota.used : 0;
		s.f_bsize = s.f_frsize = BLOCK;
		s.f_blocks = (quota.limit + BLOCK - 1) / BLOCK;
		s.f_bfree = s.f_bavail = available / BLOCK;
	}
	fuse_reply_statfs(req, &s);
}

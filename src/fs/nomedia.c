/* An empty .nomedia in the mount's root keeps desktop indexers from downloading everything. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fs/internal.h"

bool nomedia_shown(const struct fs *fs, const struct node *dir)
{
	return fs->options.nomedia && fs_ino(fs, dir) == FUSE_ROOT_ID;
}

void nomedia_attr(const struct fs *fs, struct stat *ret)
{
	struct node node = { .kind = NODE_NOMEDIA };
	attr_fill(fs, &node, S_IFREG | 0444, 0, fs->started, ret);
}

void nomedia_open(fuse_req_t req, struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
		fuse_reply_err(req, EROFS);
		return;
	}
	fi->keep_cache = 1;
	fi->noflush = 1;
	fuse_reply_open(req, fi);
}

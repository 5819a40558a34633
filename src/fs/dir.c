/* Listings: "." and "..", what mailfs adds, the mailboxes inside, then the messages; each in ascending row id.
 *
 * The offset behind an entry says which entry it is (stage and row id), not how many came before: what arrives or leaves
 * meanwhile disturbs nobody, and every entry that stays is told exactly once. */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "fs/internal.h"

enum { STAGE_SHIFT = 40, BUFFER_MAX = 64 * 1024 };
enum stage { STAGE_FIXED, STAGE_MAILBOXES, STAGE_MESSAGES };
enum { AFTER_DOT = 1, AFTER_DOTDOT, AFTER_NOMEDIA, AFTER_OUTBOX };
enum { OPENED_EARLY = 1 };       /* fuse_file_info.fh of a directory of which most was here */
#define OFFSET_ID(offset) ((uint64_t)(offset) & ((UINT64_C(1) << STAGE_SHIFT) - 1))

static off_t offset_of(enum stage stage, uint64_t id)
{
	return (off_t)((uint64_t)stage << STAGE_SHIFT | id);
}

struct listing {
	struct fs *fs;
	fuse_req_t req;
	struct node dir;
	bool plus;
	bool full;           /* the next entry did not fit */
	char *buffer;
	size_t size, used;
};

static bool add(struct listing *l, const char *name, const struct fuse_entry_param *e, off_t offset)
{
	char *to = l->buffer + l->used;
	size_t room = l->size - l->used;
	size_t need = l->plus ? fuse_add_direntry_plus(l->req, to, room, name, e, offset)
	                      : fuse_add_direntry(l->req, to, room, name, &e->attr, offset);
	l->full = need > room;
	if (!l->full)
		l->used += need;
	return !l->full;
}

static bool add_node(struct listing *l, const char *name, const struct node *node, off_t offset)
{
	struct fuse_entry_param e = { 0 };
	if (attr_node(l->fs, node, &e.attr) != MF_OK)
		return true; /* gone meanwhile */
	attr_entry(l->fs, node, &e);
	return add(l, name, &e, offset);
}

static bool add_message(void *context, const struct entry *m, const char *name)
{
	struct listing *l = context;
	struct node node = { .kind = NODE_MESSAGE, .account = l->dir.account, .id = m->id };
	struct fuse_entry_param e = { 0 };
	attr_message(l->fs, l->dir.account, m, &e.attr);
	attr_entry(l->fs, &node, &e);
	return add(l, name, &e, offset_of(STAGE_MESSAGES, m->id));
}

static bool add_mailbox(void *context, const struct mailbox *m)
{
	struct listing *l = context;
	struct node node = { .kind = NODE_MAILBOX, .account = l->dir.account, .id = m->id };
	struct fuse_entry_param e = { 0 };
	attr_mailbox(l->fs, l->dir.account, m, &e.attr);
	attr_entry(l->fs, &node, &e);
	return add(l, m->name, &e, offset_of(STAGE_MAILBOXES, m->id));
}

static enum mf_err add_fixed(struct listing *l, uint64_t after)
{
	struct node parent;
	if (after < AFTER_DOT && !add_node(l, ".", &l->dir, AFTER_DOT))
		return MF_OK;
	if (after < AFTER_DOTDOT) {
		enum mf_err err = tree_parent(l->fs, &l->dir, &parent);
		if (err != MF_OK)
			return err;
		if (!add_node(l, "..", &parent, AFTER_DOTDOT))
			return MF_OK;
	}
	if (after < AFTER_NOMEDIA && nomedia_shown(l->fs, &l->dir) && !add_node(l, NOMEDIA_NAME, &(struct node){ .kind = NODE_NOMEDIA }, AFTER_NOMEDIA))
		return MF_OK;
	if (after < AFTER_OUTBOX && l->dir.kind == NODE_ACCOUNT && fs_account(l->fs, &l->dir)->outgoing)
		add_node(l, OUTBOX_NAME, &(struct node){ .kind = NODE_OUTBOX, .account = l->dir.account }, AFTER_OUTBOX);
	return MF_OK;
}

static enum mf_err add_mailboxes(struct listing *l, uint64_t after)
{
	uint64_t parent = l->dir.kind == NODE_MAILBOX ? l->dir.id : 0;
	return cache_mailbox_children(fs_account(l->fs, &l->dir)->cache, parent, after, add_mailbox, l);
}

static void add_accounts(struct listing *l, uint64_t after)
{
	for (uint64_t i = after; i < l->fs->account_count; i++) {
		struct node node = { .kind = NODE_ACCOUNT, .account = (uint8_t)i };
		if (!add_node(l, account_config(l->fs->accounts[i].account)->name, &node, offset_of(STAGE_MAILBOXES, i + 1)))
			return;
	}
}

static void add_control_files(struct listing *l, uint64_t after)
{
	for (uint64_t part = after + 1; part < CONTROL_FILE_END; part++) {
		struct node node = { .kind = NODE_CONTROL_FILE, .account = l->dir.account, .id = l->dir.id, .part = (uint16_t)part };
		if (!add_node(l, control_file_name((unsigned)part), &node, offset_of(STAGE_MAILBOXES, part)))
			return;
	}
}

static bool add_held_one(void *context, const char *name, const struct node *node)
{
	struct listing *l = context;
	return add_node(l, name, node, offset_of(STAGE_MAILBOXES, node->id));
}

static bool add_queued(void *context, const char *name, const struct node *node, const struct stat *attr, uint64_t offset)
{
	struct listing *l = context;
	struct fuse_entry_param e = { .attr = *attr };
	attr_entry(l->fs, node, &e);
	return add(l, name, &e, offset_of(STAGE_MAILBOXES, offset));
}

/* Behind the control files, in the order of their numbers: past the last of those */
static void add_control_lists(struct listing *l, uint64_t after)
{
	for (uint64_t part = HELD_PENDING; part <= HELD_REJECTED && l->dir.id != CONTROL_OF_MOUNT; part++) {
		struct node node = { .kind = NODE_CONTROL_LIST, .account = l->dir.account, .id = l->dir.id, .part = (uint16_t)part };
		if (CONTROL_FILE_END + part > after && !add_node(l, held_name((unsigned)part), &node, offset_of(STAGE_MAILBOXES, CONTROL_FILE_END + part)))
			return;
	}
}

static enum mf_err list_from(struct listing *l, off_t offset)
{
	enum stage stage = (enum stage)((uint64_t)offset >> STAGE_SHIFT);
	uint64_t after = OFFSET_ID(offset);
	enum mf_err err = MF_OK;
	if (stage == STAGE_FIXED) {
		err = add_fixed(l, after);
		stage = STAGE_MAILBOXES;
		after = 0;
	}
	if (err != MF_OK || l->full)
		return err;
	if (l->dir.kind == NODE_ROOT) {
		add_accounts(l, after);
		return MF_OK;
	}
	if (l->dir.kind == NODE_CONTROL_DIR) {
		add_control_files(l, after);
		if (!l->full)
			add_control_lists(l, after);
		return MF_OK;
	}
	if (l->dir.kind == NODE_OUTBOX) {
		queued_visit(l->fs, &l->dir, after, add_queued, l);
		return MF_OK;
	}
	if (l->dir.kind == NODE_CONTROL_LIST)
		return held_visit(l->fs, &l->dir, after, add_held_one, l);
	if (stage == STAGE_MAILBOXES) {
		err = add_mailboxes(l, after);
		after = 0;
	}
	if (err != MF_OK || l->full || l->dir.kind != NODE_MAILBOX)
		return err;
	return cache_list(fs_account(l->fs, &l->dir)->cache, l->dir.id, after, add_message, l);
}

/* A READDIR */
struct reading {
	struct mailbox_wait wait; /* first: see mailbox_wait_start() */
	struct node dir;
	off_t offset;
	size_t size;
	bool plus;
	bool may_wait;            /* there may be more to come behind what is here now */
};

/* What fits is the answer even if something fails behind it: the next call meets the failure again. false: there is nothing yet, and
 * no answer was given. */
static bool read_on(fuse_req_t req, const struct reading *r)
{
	char buffer[BUFFER_MAX];
	struct listing l = { .fs = fs_of(req), .req = req, .dir = r->dir, .plus = r->plus, .buffer = buffer,
		.size = r->size < sizeof buffer ? r->size : sizeof buffer };
	enum mf_err err = list_from(&l, r->offset);
	trace(TRACE_FS, "readdir%s %llx from %llx: %zu bytes, %s", r->plus ? "plus" : "", (unsigned long long)fs_ino(l.fs, &r->dir),
	      (unsigned long long)r->offset, l.used, mf_err_name(err));
	if (r->may_wait && err == MF_OK && l.used == 0 && !l.full)
		return false;
	if (err == MF_OK || l.used > 0)
		fuse_reply_buf(req, buffer, l.used);
	else
		fs_reply(req, err);
	return true;
}

/* Where nothing is to be waited for, what is here is all. */
static bool more_wait_start(void *context, want_done *done, void *done_context, enum mf_err *ret_result, struct want **ret)
{
	struct reading *r = context;
	r->may_wait = !account_want_more(r->wait.account->account, r->wait.mailbox, done, done_context, ret_result, ret);
	return !r->may_wait;
}

static void wait_for_more(fuse_req_t req, struct reading *r);

static void answer_readdir(void *context, fuse_req_t req, enum mf_err result)
{
	struct reading *r = context;
	r->may_wait &= result == MF_OK && tree_incomplete(fs_of(req), &r->dir); /* before it is looked at */
	if (!mailbox_wait_shows(result)) {
		fs_reply(req, result);
	} else if (!read_on(req, r)) {
		wait_for_more(req, r);
		return;
	}
	free(r);
}

/* As a LOOKUP there it keeps the kernel's lock of the directory, for the moment that the rest takes. r is the answer's from here on. */
static void wait_for_more(fuse_req_t req, struct reading *r)
{
	static const struct park_call call = {
		.start = more_wait_start, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_readdir,
	};
	struct fs *fs = fs_of(req);
	park(fs->parking, req, fs_ino(fs, &r->dir), fs_wait_window(r->wait.account), &call, r);
}

/* A directory that was opened when most of it was here: at the end of that more is waited for. */
static void list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus, const struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct reading r = { .offset = offset, .size = size, .plus = plus };
	if (offset < 0 || !fs_node(fs, ino, &r.dir)) {
		fuse_reply_err(req, offset < 0 ? EINVAL : ESTALE);
		return;
	}
	r.may_wait = fi && fi->fh == OPENED_EARLY && tree_incomplete(fs, &r.dir); /* before it is looked at */
	if (read_on(req, &r))
		return;
	r.wait = (struct mailbox_wait){ fs_account(fs, &r.dir), r.dir.id };
	struct reading *waiting = MF_NEW(struct reading);
	*waiting = r;
	wait_for_more(req, waiting);
}

void dir_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, false, fi);
}

void dir_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	list(req, ino, size, off, true, fi);
}

/* --- opendir: an open directory needs no memory ---------------------------------------------------------------------- */

struct waiting_opendir {
	struct mailbox_wait wait; /* first: see mailbox_wait_start() */
	struct node dir;
	struct fuse_file_info fi;
};

static void reply_opendir(fuse_req_t req, const struct node *dir, struct fuse_file_info *fi)
{
	/* notify.c empties it at every change, but nobody tells of what these hold */
	fi->cache_readdir = fi->keep_cache = dir->kind != NODE_CONTROL_LIST && dir->kind != NODE_OUTBOX;
	fuse_reply_open(req, fi);
}

static bool may_be_read(struct fs *fs, const struct node *dir)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	return dir->kind != NODE_MAILBOX || cache_mailbox(fs_account(fs, dir)->cache, dir->id, &m) != MF_OK || mailbox_permits(&m, "r");
}

static void answer_opendir(void *context, fuse_req_t req, enum mf_err result)
{
	struct waiting_opendir *w = context;
	if (result == MF_OK && !may_be_read(fs_of(req), &w->dir))
		result = MF_DENIED; /* which was not known before */
	w->fi.fh = result == MF_OK && tree_incomplete(fs_of(req), &w->dir) ? OPENED_EARLY : 0;
	if (mailbox_wait_shows(result))
		reply_opendir(req, &w->dir, &w->fi);
	else
		fs_reply(req, result);
	free(w);
}

static const struct park_call opendir_call = {
	.start = most_wait_start, .cancel = wait_cancel, .progress = wait_progress, .answer = answer_opendir,
};

void dir_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node dir;
	if (!fs_node(fs, ino, &dir)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	trace(TRACE_FS, "opendir %llx", (unsigned long long)ino);
	if (!may_be_read(fs, &dir)) {
		fs_reply(req, MF_DENIED);
		return;
	}
	enum mf_err err = tree_unlisted(fs, &dir);
	if (err != MF_OK) {
		fs_reply(req, err);
		return;
	}
	if (!tree_incomplete(fs, &dir)) {
		if (dir.kind == NODE_MAILBOX)
			account_touch(fs_account(fs, &dir)->account, dir.id);
		reply_opendir(req, &dir, fi);
		return;
	}
	struct waiting_opendir *w = MF_NEW(struct waiting_opendir);
	w->wait = (struct mailbox_wait){ fs_account(fs, &dir), dir.id };
	w->dir = dir;
	w->fi = *fi;
	cache_list_ahead(w->wait.account->cache, dir.id);
	/* the kernel holds no lock of the directory in OPENDIR */
	park(fs->parking, req, 0, fs_wait_window(w->wait.account), &opendir_call, w);
}

/* .mailfs: what mailfs says of itself, and takes orders through. Read past the page cache (direct_io), since it changes
 * without a word to the kernel.
 *
 * status, status.json, log and new.eml are made when opened, so that one reading is one moment. events grows: bytes keep their
 * offsets while the file is open; when the oldest have been dropped a reader goes on with the next there is.
 * ctl takes lines; each complete line starts a verb, which runs on a thread of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/status.h"
#include "fs/internal.h"

enum { LINE_MAX_BYTES = 64 * 1024, READ_MAX = 32 * 1024 /* more is read by another call */ };

static const char *const file_names[CONTROL_FILE_END] = {
	[CONTROL_STATUS] = "status", [CONTROL_STATUS_JSON] = "status.json", [CONTROL_CTL] = "ctl", [CONTROL_EVENTS] = "events", [CONTROL_LOG] = "log",
	[CONTROL_NEW] = "new.eml",
};

const char *control_file_name(unsigned part)
{
	return part > 0 && part < CONTROL_FILE_END ? file_names[part] : NULL;
}

unsigned control_file_by_name(const char *name)
{
	for (unsigned part = 1; part < CONTROL_FILE_END; part++)
		if (strcmp(file_names[part], name) == 0)
			return part;
	return 0;
}

struct open_control {
	pthread_mutex_t lock;
	char *text;            /* status, status.json, log, new.eml */
	size_t len;
	uint64_t skipped;      /* events: what was dropped before it could be read */
	struct buf line;       /* ctl: a line whose end has not been written yet */
};

static struct open_control *handle(const struct fuse_file_info *fi)
{
	return (struct open_control *)(uintptr_t)fi->fh; /* NOLINT: the kernel gives back what open gave it */
}

static int event_source(const struct node *node)
{
	return node->id == CONTROL_OF_MOUNT ? -1 : node->account;
}

/* Ready to be filled in and dropped into outbox/: of the first account that can send */
static char *draft_text(struct account *const *accounts, size_t count)
{
	const struct account_config *config = account_config(accounts[0]);
	for (size_t i = count; i-- > 0;)
		if (account_config(accounts[i])->smtp.host)
			config = account_config(accounts[i]);
	const char *from = config->from ? config->from : config->user ? config->user : "";
	bool quoted = false;
	size_t len = 0;
	for (; from[len] && (quoted || from[len] != ','); len++)
		quoted ^= from[len] == '"';
	return mf_format("From: %.*s\nTo: \nSubject: \n\n", (int)len, from);
}

/* the caller frees; NULL for files that have no text of their own */
static char *text_of(struct fs *fs, const struct node *node, size_t *ret_len)
{
	bool all = node->id == CONTROL_OF_MOUNT;
	struct account *const *accounts = all ? fs->account_list : fs->account_list + node->account;
	size_t count = all ? fs->account_count : 1;
	char *text = NULL;
	switch ((enum control_file)node->part) {
	case CONTROL_STATUS:
		text = status_text(accounts, count);
		break;
	case CONTROL_STATUS_JSON:
		text = status_json(accounts, count);
		break;
	case CONTROL_LOG:
		return log_recent(ret_len);
	case CONTROL_NEW:
		text = draft_text(accounts, count);
		break;
	case CONTROL_CTL:
	case CONTROL_EVENTS:
	case CONTROL_FILE_END:
		break;
	}
	*ret_len = text ? strlen(text) : 0;
	return text;
}

static uint64_t size_of(struct fs *fs, const struct node *node)
{
	if (node->part == CONTROL_EVENTS)
		return fs->options.events ? eventlog_size(fs->options.events, event_source(node)) : 0;
	size_t len = 0;
	free(text_of(fs, node, &len));
	return len;
}

/* ctl changes nothing in the tree, and stays writable for its owner where the tree is not. */
void control_file_attr(struct fs *fs, const struct node *node, struct stat *ret)
{
	bool ctl = node->part == CONTROL_CTL;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	attr_fill(fs, node, S_IFREG | (ctl ? 0222 : 0444), size_of(fs, node), ctl ? fs->started : now, ret);
	if (ctl)
		ret->st_mode |= 0200;
}

/* --- open, read ------------------------------------------------------------------------------------------------------ */

static int refusal(const struct node *node, int flags)
{
	bool reads = (flags & O_ACCMODE) != O_WRONLY, writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	if (node->part == CONTROL_CTL)
		return reads ? EACCES : 0;
	return writes ? EROFS : 0;
}

static void open_control_destroy(struct open_control *c)
{
	pthread_mutex_lock(&c->lock); /* the last read has let go */
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_destroy(&c->lock);
	buf_finish(&c->line);
	free(c->text);
	free(c);
}

void control_file_open(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	int refused = refusal(node, fi->flags);
	if (refused) {
		fuse_reply_err(req, refused);
		return;
	}
	struct open_control *c = MF_NEW(struct open_control);
	pthread_mutex_init(&c->lock, NULL);
	buf_init(&c->line, LINE_MAX_BYTES);
	c->text = text_of(fs_of(req), node, &c->len);
	fi->direct_io = 1;
	fi->fh = (uint64_t)(uintptr_t)c;
	if (fuse_reply_open(req, fi) == -ENOENT)
		open_control_destroy(c);
}

static void read_events(fuse_req_t req, const struct node *node, struct open_control *c, size_t size, uint64_t offset)
{
	struct fs *fs = fs_of(req);
	char buffer[READ_MAX];
	size_t got = 0;
	if (fs->options.events) {
		pthread_mutex_lock(&c->lock);
		uint64_t asked = offset + c->skipped, from = asked;
		got = eventlog_read(fs->options.events, event_source(node), asked, buffer, size < sizeof buffer ? size : sizeof buffer, 0, &from);
		if (got > 0)
			c->skipped += from - asked;
		pthread_mutex_unlock(&c->lock);
	}
	fuse_reply_buf(req, buffer, got);
}

void control_file_read(fuse_req_t req, const struct node *node, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct open_control *c = handle(fi);
	uint64_t offset = (uint64_t)off;
	if (node->part == CONTROL_EVENTS) {
		read_events(req, node, c, size, offset);
		return;
	}
	char buffer[READ_MAX];
	size_t n = 0;
	pthread_mutex_lock(&c->lock);
	if (offset < c->len)
		n = size < c->len - offset ? size : c->len - (size_t)offset;
	n = n < sizeof buffer ? n : sizeof buffer;
	if (n > 0)
		memcpy(buffer, c->text + offset, n);
	pthread_mutex_unlock(&c->lock);
	fuse_reply_buf(req, buffer, n);
}

/* --- ctl ------------------------------------------------------------------------------------------------------------- */

static enum mf_err run_line(struct fs *fs, const struct node *node, const char *line)
{
	if (line[strspn(line, " \t\r")] == '\0')
		return MF_OK;
	const char *account = node->id == CONTROL_OF_MOUNT ? NULL : account_config(fs->accounts[node->account].account)->name;
	if (!fs->options.control)
		return MF_UNSUPPORTED;
	return control_start(fs->options.control, account, line);
}

/* Runs every complete line; the first failure is what the writer is told, and the rest of what it wrote is not run. */
static enum mf_err run_lines(struct fs *fs, const struct node *node, struct buf *line)
{
	enum mf_err err = MF_OK;
	char *end;
	while (err == MF_OK && (end = memchr(line->data, '\n', line->len))) {
		*end = '\0';
		err = run_line(fs, node, line->data);
		buf_drop(line, (size_t)(end - line->data) + 1);
	}
	return err;
}

void control_file_write(fuse_req_t req, const struct node *node, const char *data, size_t size, struct fuse_file_info *fi)
{
	struct open_control *c = handle(fi);
	if (node->part != CONTROL_CTL) {
		fuse_reply_err(req, EROFS);
		return;
	}
	pthread_mutex_lock(&c->lock);
	enum mf_err err = memchr(data, '\0', size) ? MF_INVALID : buf_add(&c->line, data, size);
	if (err == MF_OK)
		err = run_lines(fs_of(req), node, &c->line);
	if (err != MF_OK)
		buf_reset(&c->line); /* the beginning of a command is none */
	pthread_mutex_unlock(&c->lock);
	if (err == MF_OK)
		fuse_reply_write(req, size);
	else
		fs_reply(req, err);
}

void control_file_release(fuse_req_t req, const struct node *node, struct fuse_file_info *fi)
{
	struct open_control *c = handle(fi);
	if (c->line.len > 0) {
		enum mf_err err = run_line(fs_of(req), node, c->line.data);
		if (err != MF_OK)
			log_warning("a command written to ctl was not understood: %s", mf_err_words(err));
	}
	open_control_destroy(c);
	fuse_reply_err(req, 0);
}

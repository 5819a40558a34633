/* What a draft does not say itself: a line for each, "NUMBER INODE NOTIFY NAME" with its length in front of the name, written whole.
 *
 * INODE is that of the draft's own file: after a power failure a note may be older than the file that has its name. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "fs/outgoing_file.h"

#define NOTES "../outbox-drafts.notes"
#define NOTES_MAX (16U << 20)

static uint64_t inode_of(const struct outgoing *o, const char *name)
{
	struct stat st;
	return fstatat(o->drafts, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : (uint64_t)st.st_ino;
}

/* on the disk, with its name */
static bool name_notes(const struct outgoing *o, int fd)
{
	MF_CLEANUP(mf_close) int above = openat(o->drafts, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return above >= 0 && fsync(fd) == 0 && renameat(o->drafts, NOTES "-new", o->drafts, NOTES) == 0 && fsync(above) == 0;
}

static bool write_notes(const struct outgoing *o, const struct buf *b, bool lasting)
{
	MF_CLEANUP(mf_close) int fd = openat(o->drafts, NOTES "-new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || file_write(fd, 0, b->data, b->len) != MF_OK)
		return false;
	return lasting ? name_notes(o, fd) : renameat(o->drafts, NOTES "-new", o->drafts, NOTES) == 0;
}

/* Of what a sender is to be told is not lost with the power; a number may be. */
void notes_save(struct outgoing *o)
{
	struct buf b;
	const struct file *f;
	bool lasting = false;
	buf_init(&b, NOTES_MAX);
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name) {
			(void)buf_addf(&b, "%" PRIu64 " %" PRIu64 " %u %zu %s\n", f->number, inode_of(o, f->name), f->notify, strlen(f->name), f->name);
			lasting |= f->notify != 0;
		}
	if (!write_notes(o, &b, lasting))
		log_warning("outbox-drafts.notes cannot be written: %s", strerror(errno));
	buf_finish(&b);
}

static char *read_notes(const struct outgoing *o)
{
	struct stat st;
	MF_CLEANUP(mf_close) int fd = openat(o->drafts, NOTES, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > (off_t)NOTES_MAX)
		return NULL;
	char *text = mf_alloc((size_t)st.st_size + 1);
	size_t len;
	(void)file_read(fd, 0, text, (size_t)st.st_size, &len);
	text[len] = 0;
	return text;
}

static bool is_taken(struct outgoing *o, uint64_t number)
{
	const struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && f->number == number)
			return true;
	return false;
}

/* What is behind the line; NULL: nothing that can be read */
static const char *take_line(struct outgoing *o, const char *line)
{
	uint64_t number, inode;
	unsigned notify;
	size_t len;
	int at = 0;
	if (sscanf(line, "%" SCNu64 " %" SCNu64 " %u %zu%n", &number, &inode, &notify, &len, &at) != 4 || line[at++] != ' ' || strnlen(line + at, len + 1) <= len)
		return NULL;
	MF_CLEANUP(mf_free) char *name = mf_strndup(line + at, len);
	struct file *f = file_by_name(o, name);
	if (f && !f->number && number && number <= OUTBOX_NUMBER_MAX && inode == inode_of(o, name) && !is_taken(o, number)) {
		f->number = number;
		f->notify = notify;
	}
	return line + at + len + 1;
}

void notes_load(struct outgoing *o)
{
	MF_CLEANUP(mf_free) char *text = read_notes(o);
	for (const char *line = text; line && *line;)
		line = take_line(o, line);
}

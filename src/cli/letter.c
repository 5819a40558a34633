#include "cli/letter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "mail/header.h"
#include "smtp/compose.h"
#include "smtp/lines.h"
#include "smtp/recode.h"

#define HEADER_LOOK 65536

/* --- files --------------------------------------------------------------------------------------------------------- */

int letter_temporary(void)
{
	const char *folder = getenv("TMPDIR");
	int fd = open(folder && *folder ? folder : "/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd >= 0 ? fd : memfd_create("message", MFD_CLOEXEC);
}

static enum mf_err copy_bytes(int from, struct writer *w, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *block = mf_alloc(LINES_BUFFER);
	for (;;) {
		ssize_t n = read(from, block, LINES_BUFFER);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return mf_fail(why, mf_err_from_errno(errno), "the message cannot be read: %s", strerror(errno));
		if (n == 0)
			return MF_OK;
		writer_add(w, block, (size_t)n);
	}
}

/* Up to the line that is a single dot; in a file, in place: what follows is cut off. */
static enum mf_err cut_at_dot(int fd)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line;
	lines_init(l, fd, 0, UINT64_MAX);
	while (lines_next(l, &line))
		if (line.begins && line.len == 1 && *line.data == '.')
			return ftruncate(fd, (off_t)line.at) ? mf_err_from_errno(errno) : MF_OK;
	return l->error;
}

enum mf_err letter_copy(int from, int to, bool dot_ends, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) struct writer *w = MF_NEW(struct writer);
	writer_init(w, to);
	enum mf_err e = copy_bytes(from, w, why);
	if (!e)
		e = writer_flush(w);
	if (!e && dot_ends)
		e = cut_at_dot(to);
	if (!e && lseek(to, 0, SEEK_SET) < 0)
		e = MF_IO;
	return e && why && !why->text[0] ? mf_fail(why, e, "the message cannot be kept: %s", mf_err_words(e)) : e;
}

char *letter_author(int message)
{
	static const char *const names[] = { "From" };
	MF_CLEANUP(mf_free) char *head = mf_alloc(HEADER_LOOK);
	ssize_t n = pread(message, head, HEADER_LOOK, 0);
	struct header_span from = { 0 };
	if (n > 0)
		header_find(head, (size_t)n, names, 1, &from);
	if (!from.data)
		return NULL;
	size_t len;
	MF_CLEANUP(mf_free) char *value = header_unfold(from, HEADER_LOOK, &len);
	return compose_first_address(value);
}

/* --- building ------------------------------------------------------------------------------------------------------ */

struct building {
	struct writer *w;
	char boundary[40];
	struct mf_reason *why;
};

static enum mf_err add_field(struct building *b, const char *name, const char *value)
{
	if (!value)
		return MF_OK;
	for (const char *p = value; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return mf_fail(b->why, MF_INVALID, "%s: a line break or another control character cannot be part of it", name);
	MF_CLEANUP(mf_free) char *line = mf_format("%s: %s\n", name, value);
	writer_add(b->w, line, strlen(line));
	return MF_OK;
}

static const char *type_of(const char *name)
{
	static const struct { const char *ending, *type; } types[] = {
		{ "txt", "text/plain; charset=utf-8" }, { "md", "text/plain; charset=utf-8" }, { "log", "text/plain; charset=utf-8" },
		{ "c", "text/plain; charset=utf-8" }, { "h", "text/plain; charset=utf-8" }, { "html", "text/html; charset=utf-8" },
		{ "csv", "text/csv; charset=utf-8" }, { "diff", "text/x-diff; charset=utf-8" }, { "patch", "text/x-diff; charset=utf-8" },
		{ "ics", "text/calendar; charset=utf-8" }, { "vcf", "text/vcard; charset=utf-8" }, { "pdf", "application/pdf" },
		{ "zip", "application/zip" }, { "gz", "application/gzip" }, { "json", "application/json" }, { "xml", "application/xml" },
		{ "png", "image/png" }, { "jpg", "image/jpeg" }, { "jpeg", "image/jpeg" }, { "gif", "image/gif" }, { "svg", "image/svg+xml" },
		{ "webp", "image/webp" }, { "mp3", "audio/mpeg" }, { "mp4", "video/mp4" }, { "odt", "application/vnd.oasis.opendocument.text" },
		{ "ods", "application/vnd.oasis.opendocument.spreadsheet" },
		{ "docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document" },
		{ "xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" },
	};
	const char *dot = strrchr(name, '.');
	for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
		if (!strcasecmp(dot + 1, types[i].ending))
			return types[i].type;
	return "application/octet-stream";
}

static void add_part_head(struct building *b, const char *path)
{
	char name[512];
	const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
	struct buf head;
	mf_printable(name, sizeof name, last, strlen(last));
	buf_init(&head, 8192);
	(void)buf_addf(&head, "\n--%s\nContent-Type: %s\nContent-Disposition: attachment; filename=\"", b->boundary, type_of(name));
	for (const char *p = name; *p; p++) {
		if (*p == '"' || *p == '\\')
			(void)buf_add(&head, "\\", 1);
		(void)buf_add(&head, p, 1);
	}
	(void)buf_adds(&head, "\"\nContent-Transfer-Encoding: base64\n\n");
	writer_add(b->w, head.data, head.len);
	buf_finish(&head);
}

static enum mf_err attach(struct building *b, const char *path)
{
	struct stat st;
	MF_CLEANUP(mf_close) int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for who writes into it */
	if (fd < 0 || fstat(fd, &st))
		return mf_fail(b->why, mf_err_from_errno(errno), "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return mf_fail(b->why, MF_INVALID, "%s: only files can be attached", path);
	add_part_head(b, path);
	return recode_base64(b->w, fd, 0, UINT64_MAX, false);
}

static enum mf_err attach_all(struct building *b, const char *paths)
{
	enum mf_err e = MF_OK;
	while (!e && *paths) {
		size_t len = strcspn(paths, "\n");
		MF_CLEANUP(mf_free) char *path = mf_strndup(paths, len);
		e = attach(b, path);
		paths += len + (paths[len] == '\n');
	}
	MF_CLEANUP(mf_free) char *end = mf_format("\n--%s--\n", b->boundary);
	writer_add(b->w, end, strlen(end));
	return e;
}

static void make_boundary(struct building *b)
{
	unsigned char random[16];
	if (getrandom(random, sizeof random, 0) != sizeof random)
		abort(); /* not possible for so few bytes */
	size_t len = (size_t)snprintf(b->boundary, sizeof b->boundary, "=_");
	for (size_t i = 0; i < sizeof random; i++)
		len += (size_t)snprintf(b->boundary + len, sizeof b->boundary - len, "%02x", random[i]);
}

static enum mf_err build(struct building *b, const struct letter *letter, int text)
{
	enum mf_err e = add_field(b, "To", letter->to);
	if (!e)
		e = add_field(b, "Cc", letter->cc);
	if (!e)
		e = add_field(b, "Bcc", letter->bcc);
	if (!e)
		e = add_field(b, "Subject", letter->subject);
	if (!e && letter->attach) {
		make_boundary(b);
		MF_CLEANUP(mf_free) char *head = mf_format("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"%s\"\n\n--%s\nContent-Type: text/plain\n",
		                                           b->boundary, b->boundary);
		writer_add(b->w, head, strlen(head));
	}
	writer_add(b->w, "\n", 1);
	if (!e)
		e = copy_bytes(text, b->w, b->why);
	if (!e && letter->attach)
		e = attach_all(b, letter->attach);
	return e ? e : writer_flush(b->w);
}

enum mf_err letter_build(const struct letter *letter, int text, int out, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) struct writer *w = MF_NEW(struct writer);
	struct building b = { .w = w, .why = why };
	writer_init(w, out);
	enum mf_err e = build(&b, letter, text);
	if (!e && lseek(out, 0, SEEK_SET) < 0)
		e = MF_IO;
	return e && why && !why->text[0] ? mf_fail(why, e, "the message cannot be built: %s", mf_err_words(e)) : e;
}

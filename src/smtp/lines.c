#include "smtp/lines.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define LOOK_AHEAD 1024   /* a line that is shorter comes in one piece */

void lines_init(struct lines *l, int fd, uint64_t from, uint64_t to)
{
	l->fd = fd;
	l->at = from;
	l->to = to;
	l->start = l->end = 0;
	l->eof = from >= to;
	l->in_line = false;
	l->error = MF_OK;
}

/* Fills up what is free, once little is left. */
static void fill(struct lines *l)
{
	if (l->end - l->start >= LOOK_AHEAD || l->eof)
		return;
	memmove(l->buffer, l->buffer + l->start, l->end - l->start);
	l->end -= l->start;
	l->start = 0;
	uint64_t offset = l->at + l->end, left = l->to - offset;
	size_t n, room = LINES_BUFFER - l->end;
	l->error = file_read(l->fd, offset, l->buffer + l->end, room < left ? room : (size_t)left, &n);
	l->end += n;
	l->eof = n < room;
}

/* the first line break in s; NULL: none */
static const char *find_break(const char *s, size_t len)
{
	const char *lf = memchr(s, '\n', len), *cr = memchr(s, '\r', lf ? (size_t)(lf - s) : len);
	return cr ? cr : lf;
}

static void set_mark(struct lines *l, struct line *line, const char *mark, const char *end)
{
	bool cr = *mark == '\r', lf = !cr || (mark + 1 < end && mark[1] == '\n');
	line->mark = cr && lf ? 2 : 1;
	line->bare_cr = cr && !lf;
	line->ends = true;
	l->in_line = false;
}

bool lines_next(struct lines *l, struct line *ret)
{
	fill(l);
	if (l->start == l->end)
		return false;
	const char *s = l->buffer + l->start, *end = l->buffer + l->end, *mark = find_break(s, (size_t)(end - s));
	if (mark && *mark == '\r' && mark + 1 == end && !l->eof) { /* what follows it decides */
		if (mark == s) {
			memmove(l->buffer, s, 1);
			l->start = 0;
			l->end = 1;
			fill(l);
			return lines_next(l, ret);
		}
		end = mark;
		mark = NULL;
	}
	*ret = (struct line){ .data = s, .len = (size_t)((mark ? mark : end) - s), .begins = !l->in_line, .at = l->at };
	l->in_line = true;
	if (mark)
		set_mark(l, ret, mark, end);
	l->start += ret->len + ret->mark;
	l->at += ret->len + ret->mark;
	return true;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

void writer_init(struct writer *w, int fd)
{
	w->fd = fd;
	w->len = 0;
	w->total = 0;
	w->error = MF_OK;
}

enum mf_err writer_flush(struct writer *w)
{
	size_t done = 0;
	while (done < w->len && !w->error) {
		ssize_t n = write(w->fd, w->buffer + done, w->len - done);
		if (n < 0 && errno != EINTR)
			w->error = mf_err_from_errno(errno);
		done += n > 0 ? (size_t)n : 0;
	}
	w->len = 0;
	return w->error;
}

void writer_add(struct writer *w, const void *data, size_t len)
{
	const char *s = data;
	w->total += len;
	while (len) {
		size_t room = LINES_BUFFER - w->len, n = len < room ? len : room;
		memcpy(w->buffer + w->len, s, n);
		w->len += n;
		s += n;
		len -= n;
		if (w->len == LINES_BUFFER)
			(void)writer_flush(w);
	}
}

enum mf_err writer_copy(struct writer *w, int fd, uint64_t from, uint64_t to)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line = { .ends = true };
	lines_init(l, fd, from, to);
	while (!w->error && lines_next(l, &line)) {
		writer_add(w, line.data, line.len);
		if (line.ends)
			writer_add(w, "\r\n", 2);
	}
	if (!line.ends)
		writer_add(w, "\r\n", 2);
	return w->error ? w->error : l->error;
}

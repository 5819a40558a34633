#include "smtp/recode.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define QP_COLUMNS 75            /* and a '=' behind them */
#define BASE64_LINE 57           /* bytes that are 76 characters */

static const char digits[] = "0123456789ABCDEF";
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* --- quoted-printable ---------------------------------------------------------------------------------------------- */

struct qp {
	struct writer *w;
	size_t column;
};

static void qp_put(struct qp *q, const char *s, size_t len)
{
	if (q->column + len > QP_COLUMNS) {
		writer_add(q->w, "=\r\n", 3);
		q->column = 0;
	}
	writer_add(q->w, s, len);
	q->column += len;
}

static void qp_put_hex(struct qp *q, unsigned char c)
{
	qp_put(q, (char[]){ '=', digits[c >> 4], digits[c & 15] }, 3);
}

static void qp_put_line(struct qp *q, const struct line *line)
{
	for (size_t i = 0; i < line->len; i++) {
		char c = line->data[i];
		bool blank = c == ' ' || c == '\t', last = i + 1 == line->len;
		bool from = i == 0 && line->begins && line->len >= 5 && !memcmp(line->data, "From ", 5); /* mbox would quote it */
		if (c == '=' || from || (blank && last) || (!blank && ((unsigned char)c <= 0x20 || (unsigned char)c >= 0x7f)))
			qp_put_hex(q, (unsigned char)c);
		else
			qp_put(q, &c, 1);
	}
}

static void end_line(struct writer *w, size_t *column)
{
	writer_add(w, "\r\n", 2);
	*column = 0;
}

enum mf_err recode_quoted_printable(struct writer *w, int fd, uint64_t from, uint64_t to, bool *ret_open)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line = { .ends = true };
	struct qp q = { .w = w };
	lines_init(l, fd, from, to);
	while (!w->error && lines_next(l, &line)) {
		qp_put_line(&q, &line);
		if (line.ends)
			end_line(w, &q.column);
	}
	*ret_open = !line.ends;
	return w->error ? w->error : l->error;
}

/* A soft line break must not part "=C3": what follows a '=' stays on its line. */
static void qp_put_encoded(struct qp *q, char c, unsigned *glued)
{
	size_t need = c == '=' ? 3 : 1;
	if (!*glued && q->column + need > QP_COLUMNS) {
		writer_add(q->w, "=\r\n", 3);
		q->column = 0;
	}
	writer_add(q->w, &c, 1);
	q->column++;
	*glued = *glued ? *glued - 1 : c == '=' ? 2 : 0;
}

enum mf_err recode_rewrap_quoted_printable(struct writer *w, int fd, uint64_t from, uint64_t to, bool *ret_open)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line = { .ends = true };
	struct qp q = { .w = w };
	unsigned glued = 0;
	lines_init(l, fd, from, to);
	while (!w->error && lines_next(l, &line)) {
		for (size_t i = 0; i < line.len; i++)
			qp_put_encoded(&q, line.data[i], &glued);
		if (line.ends) {
			end_line(w, &q.column);
			glued = 0;
		}
	}
	*ret_open = !line.ends;
	return w->error ? w->error : l->error;
}

/* --- base64 -------------------------------------------------------------------------------------------------------- */

void base64_add(struct buf *out, const void *data, size_t len)
{
	const unsigned char *s = data;
	for (size_t i = 0; i < len; i += 3) {
		unsigned a = s[i], b = i + 1 < len ? s[i + 1] : 0, c = i + 2 < len ? s[i + 2] : 0;
		char four[4] = {
			alphabet[a >> 2], alphabet[(a & 3) << 4 | b >> 4],
			i + 1 < len ? alphabet[(b & 15) << 2 | c >> 6] : '=', i + 2 < len ? alphabet[c & 63] : '=',
		};
		(void)buf_add(out, four, 4);
	}
}

struct base64 {
	struct writer *w;
	struct buf line;         /* of characters */
	unsigned char bytes[BASE64_LINE];
	size_t len;
};

static void base64_flush(struct base64 *b)
{
	if (!b->len)
		return;
	buf_reset(&b->line);
	base64_add(&b->line, b->bytes, b->len);
	writer_add(b->w, b->line.data, b->line.len);
	writer_add(b->w, "\r\n", 2);
	b->len = 0;
}

static void base64_put(struct base64 *b, const char *s, size_t len)
{
	while (len) {
		size_t n = BASE64_LINE - b->len < len ? BASE64_LINE - b->len : len;
		memcpy(b->bytes + b->len, s, n);
		b->len += n;
		s += n;
		len -= n;
		if (b->len == BASE64_LINE)
			base64_flush(b);
	}
}

static enum mf_err base64_text(struct base64 *b, int fd, uint64_t from, uint64_t to)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line;
	lines_init(l, fd, from, to);
	while (!b->w->error && lines_next(l, &line)) {
		base64_put(b, line.data, line.len);
		if (line.ends)
			base64_put(b, "\r\n", 2);
	}
	return l->error;
}

static enum mf_err base64_bytes(struct base64 *b, int fd, uint64_t from, uint64_t to)
{
	MF_CLEANUP(mf_free) char *buffer = mf_alloc(LINES_BUFFER);
	while (from < to && !b->w->error) {
		size_t n;
		enum mf_err e = file_read(fd, from, buffer, to - from < LINES_BUFFER ? (size_t)(to - from) : LINES_BUFFER, &n);
		if (e)
			return e;
		if (n == 0)
			break;
		base64_put(b, buffer, n);
		from += n;
	}
	return MF_OK;
}

enum mf_err recode_base64(struct writer *w, int fd, uint64_t from, uint64_t to, bool is_text)
{
	struct base64 b = { .w = w };
	buf_init(&b.line, 128);
	uint64_t before = w->total;
	enum mf_err e = is_text ? base64_text(&b, fd, from, to) : base64_bytes(&b, fd, from, to);
	base64_flush(&b);
	if (w->total == before)
		writer_add(w, "\r\n", 2);
	buf_finish(&b.line);
	return w->error ? w->error : e;
}

enum mf_err recode_rewrap_base64(struct writer *w, int fd, uint64_t from, uint64_t to)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line;
	size_t column = 0;
	lines_init(l, fd, from, to);
	while (!w->error && lines_next(l, &line))
		for (size_t i = 0; i < line.len; i++) {
			if (line.data[i] == ' ' || line.data[i] == '\t')
				continue;
			writer_add(w, &line.data[i], 1);
			if (++column == 76)
				end_line(w, &column);
		}
	if (column || from == to)
		end_line(w, &column);
	return w->error ? w->error : l->error;
}

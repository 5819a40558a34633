/* lines.h: a file read by lines of any length, and one written through a buffer; both in constant memory. One thread each.
 *
 * A line ends with CRLF, LF or a CR alone. A line that is longer than the buffer comes in pieces. */
#ifndef MF_SMTP_LINES_H
#define MF_SMTP_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define LINES_BUFFER 65536

struct lines {
	int fd;
	uint64_t at, to;        /* offset of buffer[start]; where to end */
	size_t start, end;
	bool eof, in_line;
	enum mf_err error;      /* of reading; what follows it is as at the end */
	char buffer[LINES_BUFFER];
};
struct line {
	const char *data;       /* a line or a piece of one, without its end; valid until the next call */
	size_t len;
	bool begins, ends;      /* it is the first piece, the last one. At the end of the file a line may have no end */
	bool bare_cr;           /* its end is a CR alone */
	size_t mark;            /* bytes of its end: 0, 1, 2 */
	uint64_t at;            /* where it begins in the file */
};

void lines_init(struct lines *l, int fd, uint64_t from, uint64_t to);   /* to: UINT64_MAX is the end of the file */
bool lines_next(struct lines *l, struct line *ret);

struct writer {
	int fd;
	size_t len;
	uint64_t total;         /* bytes written and buffered */
	enum mf_err error;      /* the first one; nothing is written after it */
	char buffer[LINES_BUFFER];
};
void writer_init(struct writer *w, int fd);
void writer_add(struct writer *w, const void *data, size_t len);
enum mf_err writer_flush(struct writer *w);
/* [from, to) of a file: as it is, with lines that end with CRLF, a last one too that has no end */
enum mf_err writer_copy(struct writer *w, int fd, uint64_t from, uint64_t to);

#endif

/* survey.h: what a message's body is made of, and what has to be changed before every server takes it. Reads the file once,
 * in constant memory; only parts that need something are remembered. */
#ifndef MF_SMTP_SURVEY_H
#define MF_SMTP_SURVEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum part_change {
	RECODE_NONE,            /* its content stays; the header may need something */
	RECODE_QUOTED, RECODE_BASE64,
	RECODE_WRAP_QUOTED, RECODE_WRAP_BASE64,
};
struct part {
	uint64_t head, body, end;    /* offsets of its header, its content, the line that ends it (or the end of the file) */
	uint64_t content_end;        /* without the line break that belongs to the boundary */
	enum part_change change;
	bool is_text;
	bool has_type;               /* it has a Content-Type */
	const char *add_charset;     /* NULL: needs none */
	bool declare_8bit;           /* it has 8 bit lines and does not say so */
	bool raw_header;             /* its header has bytes beyond ASCII, or lines too long */
};
struct survey {
	struct part top;             /* of a message that is one part, or signed as a whole; head is 0. RECODE_NONE for a multipart */
	struct part *parts;          /* parts inside, in the order of the file, that need something */
	size_t count;
	bool eight_bit;              /* what will be sent has bytes beyond ASCII in its body */
};

/* header: the message's, unfolded nowhere; body: where it ends in the file. sealed: signed as a whole, nothing may change.
 * MF_INVALID: a NUL; a line that is too long in a place that must not be changed. */
enum mf_err survey_take(int fd, const char *header, size_t header_len, uint64_t body, bool sealed, struct survey *ret, struct mf_reason *why);
void survey_finish(struct survey *s);

#endif

/* header.h: finds fields in a header block, whatever shape it is in (RFC 5322 2.2). Pure, linear in its length.
 *
 * Lines end with LF or CRLF; a block ends at an empty line or with its bytes. What is no field (an mbox "From " line, a
 * stray line, a folded line at the very start) is passed over. Every byte value may occur. */
#ifndef MF_MAIL_HEADER_H
#define MF_MAIL_HEADER_H

#include <stdbool.h>
#include <stddef.h>

/* What stands behind the colon up to the line break of the last continuation line: points into the block */
struct header_span {
	const char *data; /* NULL: no such field */
	size_t len;
};

/* names: `count` field names without the colon, in any case; ret[i] is the first field called names[i]. */
void header_find(const void *header, size_t len, const char *const *names, size_t count, struct header_span *ret);

/* A field's value with its line breaks taken out and without white space at the ends, at most max bytes of it (cut behind
 * white space where there is some near). The caller frees; terminated, but NULs may be inside. */
char *header_unfold(struct header_span span, size_t max, size_t *ret_len);

/* The length of a field's name (RFC 5322 3.6.8, and white space behind it as in 4.5.8) that this line begins with; 0: none */
size_t header_name_length(const char *line, size_t len);

#endif

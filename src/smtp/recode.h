/* recode.h: the content of a part made into lines that every server takes (RFC 2045 6.7 and 6.8). Streams.
 *
 * Each: bytes [from, to) of a file, to the writer. base64 ends with CRLF, quoted-printable as the content does: *ret_open says
 * that its last line has no end. */
#ifndef MF_SMTP_RECODE_H
#define MF_SMTP_RECODE_H

#include "base/buf.h"
#include "smtp/lines.h"

/* text: its line breaks stay line breaks */
enum mf_err recode_quoted_printable(struct writer *w, int fd, uint64_t from, uint64_t to, bool *ret_open);
/* is_text: line breaks become CRLF before they are encoded; else every byte stays what it is */
enum mf_err recode_base64(struct writer *w, int fd, uint64_t from, uint64_t to, bool is_text);
/* What is encoded already, in lines that are too long: broken anew, with the same meaning */
enum mf_err recode_rewrap_base64(struct writer *w, int fd, uint64_t from, uint64_t to);
enum mf_err recode_rewrap_quoted_printable(struct writer *w, int fd, uint64_t from, uint64_t to, bool *ret_open);

void base64_add(struct buf *out, const void *data, size_t len);  /* without line breaks */

#endif

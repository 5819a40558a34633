/* fields.h: header fields as they are sent: 7 bit (RFC 2047, RFC 2231), folded, never over 998 bytes in a line. Pure. */
#ifndef MF_SMTP_FIELDS_H
#define MF_SMTP_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define FIELD_LINE_MAX 998       /* RFC 5322 2.1.1, without the CRLF */

struct field {                   /* one in a block of header lines */
	const char *raw;         /* all its lines, without the last line break */
	size_t raw_len;
	const char *name;        /* without the colon */
	size_t name_len;
	const char *value;       /* behind the colon */
	size_t value_len;
};
struct fields {
	const char *p, *end;
};
/* Lines end with LF or CRLF. MF_NOT_FOUND at the end; MF_INVALID: a line that is no field, with its text. */
enum mf_err fields_next(struct fields *it, struct field *ret, struct mf_reason *why);
bool field_is(const struct field *f, const char *name);

/* Each appends "Name: value" and CRLF. value: valid UTF-8 without line breaks. */
void field_add_text(struct buf *out, const char *name, const char *value, size_t len);
/* *ret_utf8 becomes true if an address can only be written in UTF-8 (SMTPUTF8). */
enum mf_err field_add_addresses(struct buf *out, const char *name, const char *value, size_t len, bool *ret_utf8, struct mf_reason *why);
void field_add_parameters(struct buf *out, const char *name, const char *value, size_t len);   /* Content-Type and its like */
/* ASCII; MF_INVALID when it cannot be folded */
enum mf_err field_add_folded(struct buf *out, const char *name, const char *value, size_t len, struct mf_reason *why);

/* A field as it was written, made right where it has to be: lines end with CRLF, what is not ASCII is encoded by what kind
 * of field it is. MF_INVALID: control characters, an address or an identifier that cannot be read. */
enum mf_err field_add(struct buf *out, const struct field *f, bool *ret_utf8, struct mf_reason *why);
/* The same with nothing changed but line breaks (content that is signed). */
enum mf_err field_add_as_is(struct buf *out, const struct field *f, bool *ret_utf8, struct mf_reason *why);
/* Its value on one line, as UTF-8; the caller frees */
char *field_text(const struct field *f, size_t *ret_len);
bool field_is_addresses(const struct field *f);

/* Appends a name as it may stand before an address: an atom, quoted or encoded. */
void field_add_phrase(struct buf *out, const char *name);

#endif

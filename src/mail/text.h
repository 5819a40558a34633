/* text.h: bytes of header fields to clean UTF-8 (RFC 2047). Pure, linear.
 *
 * Written here rather than taken from GMime, whose decoder loses characters that are split over two encoded words, and
 * the bytes of charsets it does not know. */
#ifndef MF_MAIL_TEXT_H
#define MF_MAIL_TEXT_H

#include <glib.h>
#include <stddef.h>

#include "base/buf.h"

/* Appends s as valid UTF-8 without NUL: as it is where it is UTF-8 (what is not becomes U+FFFD), and where nothing in it
 * looks like UTF-8, read as windows-1252. What goes over out's maximum is left out. */
void text_add_bytes(struct buf *out, const char *s, size_t len);

/* Appends s (valid UTF-8) with its encoded words decoded. Adjacent ones of one charset are joined before they are
 * converted; an unknown charset is read as by text_add_bytes. */
void text_add_decoded(struct buf *out, const char *s, size_t len);

/* s (valid UTF-8) with runs of white space and control characters made one space, none at the ends, cut at a character
 * to at most max bytes. The caller frees. */
char *text_clean(const char *s, size_t len, size_t max);

/* the character behind the one at p (valid UTF-8); g_utf8_next_char casts const away */
static inline const char *text_next(const char *p)
{
	return p + g_utf8_skip[(unsigned char)*p];
}

/* the longest prefix of s that ends at a character and has at most max bytes */
size_t text_cut(const char *s, size_t len, size_t max);

#endif

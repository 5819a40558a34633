/* scan.h: a cursor over one complete response, literals included (RFC 9051 section 9).
 *
 * For what libetpan is not asked: where the parts of a response begin and end, numbers of 64 bits, and whose message it
 * is when it cannot be parsed. Pure; any bytes are fine; nothing is read beyond `end`. A function that returns false
 * leaves the cursor where it was. */
#ifndef MF_SYNC_IMAP_SCAN_H
#define MF_SYNC_IMAP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

struct span {
	const char *p;
	size_t len;
};
bool span_is(struct span s, const char *word);              /* without regard to case */
bool span_begins(struct span s, const char *prefix);        /* likewise */

struct scan {
	const char *p, *end;
};
bool scan_char(struct scan *s, char c);                     /* takes exactly this */
bool scan_word(struct scan *s, struct span *ret);           /* up to a space, parenthesis, quote or control character */
bool scan_item(struct scan *s, struct span *ret);           /* the name of a FETCH item: brackets may hold anything */
bool scan_number(struct scan *s, uint64_t *ret);            /* decimal digits that fit */
bool scan_uid(struct scan *s, uint32_t *ret);               /* nz-number of 32 bits */
/* A string in any form, or NIL (*ret.p NULL). Quoted ones are unescaped into scratch, which is reset. */
bool scan_nstring(struct scan *s, struct buf *scratch, struct span *ret);
bool scan_skip(struct scan *s);                             /* one value of any form, parentheses and all */
bool scan_at_end(const struct scan *s);                     /* nothing but the line's end is left */

#endif

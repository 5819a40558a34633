/* address.h: the mailboxes of an address list (RFC 5322 3.4 and 4.4), read as people write them. Pure, linear.
 *
 * Beyond the grammar: a comma in a name that is not quoted, a missing '>', encoded words with specials or in quotes, a name
 * without an address. Groups are entered, their names dropped. Written here since GMime gives nothing at all for lists
 * like "Alice [x] <a@b>" and is quadratic in groups. */
#ifndef MF_MAIL_ADDRESS_H
#define MF_MAIL_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct address_reader {
	const char *p, *end;
	struct buf name;     /* decoded (RFC 2047), else what a comment says; may be empty */
	struct buf addr;     /* local@domain as written, without route, comments and white space that is not in quotes; may be empty, or without '@' */
	struct buf phrase, bare, comment; /* its workings */
};

/* list: valid UTF-8, unfolded; it has to stay while the reader is used */
void address_reader_init(struct address_reader *r, const char *list, size_t len);
void address_reader_finish(struct address_reader *r);
/* false: no more. Else one of name and addr at least is not empty. */
bool address_next(struct address_reader *r);

#endif

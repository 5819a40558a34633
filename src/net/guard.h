/* guard.h: looks at every byte an IMAP server sends before libetpan's parser does, and refuses what that parser does
 * not survive: deep nesting (it recurses), huge literals (it allocates them at once, and counts in 32 bits), endless
 * lines (it keeps them), and some responses on which it follows a NULL pointer.
 *
 * It must agree with the parser on where a literal is; where the parser is more lenient than RFC 9051 about one, the guard
 * refuses. A literal is "{digits}" or "{digits+}" at the very end of a line of untagged data. Status responses (OK, NO,
 * BAD, BYE, PREAUTH), tagged lines and continuation requests have none. */
#ifndef MF_NET_GUARD_H
#define MF_NET_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define GUARD_DEPTH_MAX 100
#define GUARD_LINE_MAX (32U << 20) /* bytes of one response beside its literals */

struct guard {
	uint64_t literal_max;
	uint64_t literal_left;   /* bytes of the current literal still to come: not looked at */
	uint64_t number;         /* in "{number" */
	uint64_t length;         /* of this response so far */
	unsigned depth;
	uint8_t kind, brace;
	bool quoted, escaped;    /* in a quoted string; behind its backslash */
	bool odd;                /* the literal's length is written as only libetpan would read it */
	bool in_code;            /* between [ and ] of a status response */
	bool permanent_flags;    /* PERMANENTFLAGS was seen in it */
	uint8_t first_flag;      /* how far the start of its list has been read */
	uint8_t badcharset_at, permanent_at, keyword_len;
	char keyword[12];
};

/* literal_max: at most 2^32 - 1, above which it counts as that */
void guard_init(struct guard *g, uint64_t literal_max);
/* MF_PROTOCOL with the reason; the guard is of no use after that. */
enum mf_err guard_feed(struct guard *g, const void *data, size_t len, struct mf_reason *why);

#endif

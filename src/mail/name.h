/* name.h: names of files. Pure. mailfs(7) tells people the same.
 *
 * A message: DATE_SENDER_SUBJECT_KEY.eml, at most MAIL_NAME_MAX bytes, valid UTF-8 in NFC, never starting with '-' or '.'.
 * A mailbox: one level of the server's name, decoded from modified UTF-7 (RFC 3501 5.1.3), escaped so that every name
 * a server can send is a file name, and two different ones never give the same. */
#ifndef MF_MAIL_NAME_H
#define MF_MAIL_NAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mail/summary.h"

#define MAIL_NAME_MAX 200
#define MAILBOX_NAME_MAX 255

/* internal_date: used where the summary has no date. twin 0 or 1: no suffix; 2 and more: KEY-2, ...
 *
 * SENDER and SUBJECT hold letters, marks and digits of every script (Unicode L, M, Nd) and '.', '@', '+'; any run of anything
 * else is one '-', and none begins with '-' or '.' or ends with '-'. A mark is kept behind a letter or digit only. What a
 * font shows nothing for (variation selectors, the grapheme joiner, fillers) is left out. A sender has at most 60 bytes, then the
 * subject takes what is left; neither is cut between a letter and its marks. A display name with
 * none of these gives way to the address. Empty ones are "unknown" and "no-subject". */
void mail_message_name(const struct mail_summary *summary, int64_t internal_date, unsigned twin, char ret[static MAIL_NAME_MAX + 1]);

/* One level of a mailbox's name, as the server spells it (bytes between two delimiters), to a file name. utf8: the session
 * has UTF8=ACCEPT and the bytes are UTF-8.
 *
 * The name is what the level says, decoded; %XX (two upper-case hexadecimal digits) stands for one byte of the server's
 * spelling that cannot be in a file name or must not be shown:
 *   '/'                                     %2F
 *   '%' where it would be read as %XX       %25       (so "100%" stays "100%", and "a%2Fb" becomes "a%252Fb")
 *   "." and ".."                            %2E and %2E%2E
 *   a level that is not well-formed modified UTF-7, or decodes to control characters, bidirectional overrides, line
 *   separators or noncharacters: nothing of it is decoded; each '&' is %26, each other byte outside of printable ASCII %XX
 *   with utf8: each byte of such a character, and each that is not UTF-8, is %XX
 * %7E ('~', which never needs it) marks a name that does not spell its level out:
 *   ""                                      %7Eempty
 *   over 255 bytes                          cut at a character, then %7E and 16 base32 characters of the level's SHA-256
 * at_root: a reserved name gets "~mailbox" appended; so that nothing collides, a level that already looks like that gets
 * another one, at every depth.
 * Different levels give different names, and mailbox_name_to_level finds the level again (but for a cut one: the index holds
 * what the server said). */
void mailbox_level_to_name(const char *level, size_t len, bool utf8, bool at_root, char ret[static MAILBOX_NAME_MAX + 1]);
/* The other way, for names that a user gives too: MF_INVALID for what no level is shown as (".", "..", '/', a control
 * character, a %XX that is not needed, bytes that are not UTF-8), for a cut name, and where the delimiter (0: none) would be
 * inside. "outbox~mailbox" is the level "outbox". *ret belongs to the caller and is never longer than 4 times the name. */
enum mf_err mailbox_name_to_level(const char *name, char delimiter, bool utf8, char **ret);
/* Names that the tree keeps for itself at an account's root: outbox, search, .mailfs, .nomedia */
bool mailbox_name_is_reserved(const char *name);

/* Modified UTF-7 (RFC 3501 5.1.3), both ways; *ret belongs to the caller. MF_INVALID where the input is not well-formed.
 * Decoding is strict: what encoding the result would not give again is refused (printable ASCII in base64, one shift directly
 * behind another, bits left over, lone surrogates), and so is U+0000. */
enum mf_err mutf7_decode(const char *s, size_t len, char **ret);
enum mf_err mutf7_encode(const char *utf8, char **ret);

#endif

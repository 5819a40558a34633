/* name.h: names of files. Pure; SPEC section 3 in code.
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

/* internal_date: used where the summary has no date. twin 0 or 1: no suffix; 2 and more: KEY-2, ... */
void mail_message_name(const struct mail_summary *summary, int64_t internal_date, unsigned twin, char ret[static MAIL_NAME_MAX + 1]);

/* One level of a mailbox's name, as the server spells it (bytes between two delimiters), to a file name. utf8: the session
 * has UTF8=ACCEPT and the bytes are UTF-8. Bytes that do not decode are escaped and survive. at_root: reserved names get
 * "~mailbox" appended. An over-long name is cut with a hash. */
void mailbox_level_to_name(const char *level, size_t len, bool utf8, bool at_root, char ret[static MAILBOX_NAME_MAX + 1]);
/* The other way, for names that a user gives: MF_INVALID for "." and "..", NUL, '/', a bad escape or the delimiter
 * inside; *ret belongs to the caller. (A cut name cannot be turned back: the index holds what the server said.) */
enum mf_err mailbox_name_to_level(const char *name, char delimiter, bool utf8, char **ret);
/* Names that the tree keeps for itself at an account's root: outbox, search, .mailfs, .nomedia */
bool mailbox_name_is_reserved(const char *name);

/* Modified UTF-7, both ways; *ret belongs to the caller. MF_INVALID where the input is not well-formed. */
enum mf_err mutf7_decode(const char *s, size_t len, char **ret);
enum mf_err mutf7_encode(const char *utf8, char **ret);

#endif

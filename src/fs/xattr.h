/* xattr.h: the values of user.mail.* as text. Pure; for xattr.c and its tests.
 *
 * Messages: flags ("\Seen \Flagged $Work"), uid (decimal; absent until the server gave one), subject, from, to, date (of the Date
 * field, RFC 3339 in UTC), message-id, cached (yes, no), state (synchronised, local, or the
 * first operation that waits).
 * Mailboxes: subscribed (yes, no), special-use ("\Sent"; absent if none), uidvalidity, total, unseen, complete (yes, no),
 * sync (headers, demand, full). Files of outbox/: state, notify (outgoing.h), subject, message-id. */
#ifndef MF_FS_XATTR_H
#define MF_FS_XATTR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "config/config.h"

void xattr_flags_value(unsigned flags, const char *keywords, struct buf *to);
void xattr_date_value(int64_t seconds, struct buf *to);
const char *xattr_use_value(unsigned use);       /* NULL: none */
const char *xattr_sync_value(enum sync_policy policy);
bool xattr_is_ours(const char *name);            /* else ENOTSUP */
int xattr_set_refusal(const char *name);         /* an errno: ENOTSUP, EPERM, EROFS */

/* A value for user.mail.flags: all flags that the message is to have, or, each with a sign in front, those to add and remove
 * ("+\\Seen -$Work"). false: no such value. Finish it whatever was returned. */
struct flag_change {
	bool is_delta;
	size_t words;
	unsigned flags, flags_remove;
	struct buf add, remove;        /* keywords, between single spaces */
};
bool xattr_parse_flags(const char *value, size_t size, struct flag_change *ret);
void flag_change_finish(struct flag_change *c);

#endif

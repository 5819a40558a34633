/* crossing.h: a mailbox that is read anew by another protocol, whose numbers do not tell which message is which.
 *
 * The index knows a message again by Message-ID, size and internal date; but IMAP's internal date is not what POP3 has in its
 * place. So what was known is remembered before, and a message that is the same by Message-ID and size is given the date
 * of before. What POP3 does not know at all, flags, likewise. One thread. */
#ifndef MF_SYNC_CROSSING_H
#define MF_SYNC_CROSSING_H

#include "cache/cache.h"
#include "sync/remote.h"

struct crossing;
/* Reads the whole mailbox from the index, and what has left it and may be matched again. */
enum mf_err crossing_create(struct cache *cache, uint64_t mailbox, struct crossing **ret);
void crossing_destroy(struct crossing *c);   /* NULL is fine */
/* m as it should be told to the index; its strings may be c's from here on. has_flags: m's own are the server's. Each message of
 * before is used once, the one with m's own date first. */
void crossing_apply(struct crossing *c, struct remote_message *m, bool has_flags);

#endif

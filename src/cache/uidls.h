/* uidls.h: which number each message of a POP3 server's INBOX has here. POP3 names messages with texts (UIDL); everything else
 * of mailfs speaks of (uidvalidity, uid). A number is given once and never used for another message while uidvalidity stays.
 *
 * Any thread, but one at a time: who has read the numbers is the only one to change them until it is done. Each change is
 * one transaction or more of its own. */
#ifndef MF_CACHE_UIDLS_H
#define MF_CACHE_UIDLS_H

#include "cache/cache.h"
#include "mail/origin.h"

struct uidl {
	const char *key;             /* the server's UIDL, or what stands for it where that does not tell messages apart */
	uint32_t uid;
	uint64_t size;               /* the server's claim; 0: not known */
	char digest[MAIL_DIGEST_SIZE]; /* mail_header_digest(); "": not known */
};
struct uidls {
	uint32_t uidvalidity, uidnext; /* 0: nothing was ever numbered */
	struct uidl *rows;           /* ascending by uid */
	size_t count;
	char *keys;                  /* what the rows' keys point into */
};
void uidls_finish(struct uidls *u);  /* a zeroed one is fine */

struct uidls_change {
	uint32_t uidvalidity, uidnext; /* as they are from here on; another uidvalidity: nothing of before is kept */
	const uint32_t *gone;        /* uids that are forgotten; done first */
	size_t gone_count;
	const struct uidl *put;      /* new, or the same uid with other values; no key is of two uids then */
	size_t put_count;
};
enum mf_err cache_uidls(struct cache *c, struct uidls *ret);
/* After a failure some of it may have been done; what was done is right by itself. */
enum mf_err cache_uidls_store(struct cache *c, const struct uidls_change *change);

/* What is known of a mailbox's messages, also of those that have left the tree and may be matched again: for a mailbox that is
 * read anew from another server, whose numbers and dates are others. The strings are valid during the call; false stops. */
struct known_message {
	const char *message_id, *subject, *from, *keywords;
	uint64_t size;
	int64_t mtime;
	unsigned flags;
};
typedef bool known_visitor(void *context, const struct known_message *m);
enum mf_err cache_known(struct cache *c, uint64_t mailbox, known_visitor *visit, void *context);

#endif

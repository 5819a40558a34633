/* parse.h: one response as data. libetpan parses what has structure (FETCH, LIST, STATUS); status lines, numbers and
 * sets are read here, where its parser crashes, copies or loses what we need (64-bit numbers, text without words).
 *
 * Registered with libetpan once: an extension that takes any FETCH item or STATUS attribute it does not know or cannot
 * read, so that the other items of that message survive. */
#ifndef MF_SYNC_IMAP_PARSE_H
#define MF_SYNC_IMAP_PARSE_H

#include "sync/imap/frame.h"
#include "sync/remote.h"

enum cond_kind { COND_OK, COND_NO, COND_BAD, COND_PREAUTH, COND_BYE };
struct imap_cond {           /* RFC 9051 7.1 */
	enum cond_kind kind;
	struct span code, args;  /* [CODE args]; len 0: none */
	struct span text;        /* for people, as the server wrote it */
};

struct imap_fetch {          /* a message's items, as many as came */
	uint32_t uid;            /* 0: not told */
	bool has_flags, has_size, has_date;
	unsigned flags;
	const char *keywords;
	uint64_t size, modseq;
	int64_t date;
	const char *email_id;    /* NULL: none */
	const char *header;      /* a BODY[HEADER...] section; NULL: none, or NIL */
	size_t header_len;
};

enum data_kind {
	DATA_COND, DATA_CAPABILITY, DATA_ENABLED, DATA_FLAGS, DATA_EXISTS, DATA_EXPUNGE, DATA_VANISHED, DATA_FETCH, DATA_LIST, DATA_LSUB,
	DATA_STATUS, DATA_SEARCH, DATA_ESEARCH, DATA_NAMESPACE, DATA_QUOTA, DATA_MYRIGHTS,
	DATA_SKIPPED,            /* a FETCH that cannot be parsed: .number, and .fetch.uid if it can be told */
	DATA_OTHER,
};
struct imap_data {           /* valid until the next parse */
	enum data_kind kind;
	uint32_t number;         /* EXISTS; the sequence number of EXPUNGE, FETCH, SKIPPED */
	bool earlier;            /* VANISHED (EARLIER) */
	bool expected;           /* set by the verb under way: it is what a command asked for, not news */
	struct scan rest;        /* CAPABILITY, ENABLED, VANISHED, SEARCH, ESEARCH, NAMESPACE, QUOTA, MYRIGHTS: behind the word */
	struct imap_cond cond;
	struct imap_fetch fetch;
	struct remote_mailbox mailbox; /* LIST, LSUB; STATUS: .raw and .status */
	bool unreadable;         /* LIST, LSUB: it cannot be parsed, and .kind is OTHER */
	bool counted;            /* STATUS: its MESSAGES is there */
};

struct imap_parser;
struct imap_parser *imap_parser_create(void);
void imap_parser_destroy(struct imap_parser *p);
/* The frame is an untagged response ("* ..."). Never fails: what cannot be parsed is SKIPPED or OTHER. */
void imap_parse(struct imap_parser *p, const struct imap_frame *f, struct imap_data *ret);
/* "OK [CODE args] text": a tagged response behind its tag, a greeting behind its star. */
bool imap_parse_cond(struct scan *s, struct imap_cond *ret);
void imap_parse_init(void);   /* once, before threads */

#endif

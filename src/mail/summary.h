/* summary.h: what mailfs knows of a message without its body, read from the header fields alone (RFC 5322, 2047).
 *
 * The same bytes give the same summary whichever way they came (IMAP HEADER.FIELDS, POP3 TOP, a file): names of files
 * are made from it. Pure; any input, however broken, gives a summary. */
#ifndef MF_MAIL_SUMMARY_H
#define MF_MAIL_SUMMARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The fields it reads, as in an IMAP command: BODY.PEEK[HEADER.FIELDS (MAIL_SUMMARY_FIELDS)] */
#define MAIL_SUMMARY_FIELDS "DATE FROM TO SUBJECT MESSAGE-ID"

/* Longest value kept of each, in bytes of UTF-8, cut at a character; longer ones are cut there. */
#define MAIL_SUMMARY_VALUE_MAX 1024

struct mail_summary {
	bool has_date;            /* a Date field that can be read and lies between 1970 and 2100 */
	int64_t date;             /* seconds since the epoch, UTC */
	char *from;               /* the first From mailbox: "Alice Example <alice@example.org>", decoded; "" if none */
	char *from_name;          /* its display name or else its address */
	char *to;                 /* decoded, comma separated */
	char *subject;            /* decoded, unfolded */
	char *message_id;         /* without < >; "" if none. The first field where there are several */
	char key[9];              /* 8 base32 characters (a-z2-7), terminated: see mail_summary_parse */
};

/* size: the whole message's length. The key is of SHA-256 over the Message-ID, or without one over the raw Date, From and
 * Subject fields (unfolded) and the size. The strings are one allocation each, never NULL. */
void mail_summary_parse(const void *header, size_t len, uint64_t size, struct mail_summary *ret);
void mail_summary_finish(struct mail_summary *summary); /* a zeroed one is fine */

/* Whether these bytes begin like a message: a header field at all (RFC 5322 2.2). */
bool mail_looks_like_message(const void *data, size_t len);

#endif

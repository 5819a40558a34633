/* origin.h: what tells a message from others, and when it came, where the server does not say (POP3). Pure, linear; any
 * input, however broken, gives an answer. A header block ends at an empty line or with its bytes. */
#ifndef MF_MAIL_ORIGIN_H
#define MF_MAIL_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAIL_DIGEST_SIZE 33   /* 32 hexadecimal digits, terminated */

/* Of the header block without what is added or changed on the way and by servers: Received, Return-Path, Delivered-To,
 * Status, X-..., and their like. CRLF and LF are the same. */
void mail_header_digest(const void *header, size_t len, char ret[static MAIL_DIGEST_SIZE]);
/* The date of the newest Received field (the first one), else that of the Date field; seconds since the epoch. */
bool mail_arrival_date(const void *header, size_t len, int64_t *ret);
/* MD5 (RFC 1321) in hexadecimal digits, as APOP (RFC 1939) wants it */
void mail_md5(const void *data, size_t len, char ret[static MAIL_DIGEST_SIZE]);

#endif

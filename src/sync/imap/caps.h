/* caps.h: what the server says it can do, and what one session remembers for the next. */
#ifndef MF_SYNC_IMAP_CAPS_H
#define MF_SYNC_IMAP_CAPS_H

#include <stdbool.h>

#include "sync/imap/imap.h"
#include "sync/imap/scan.h"

#define IMAP_CAPS(X) \
	X(IMAP4REV1, "IMAP4rev1") X(IMAP4REV2, "IMAP4rev2") X(STARTTLS, "STARTTLS") X(LOGINDISABLED, "LOGINDISABLED") \
	X(SASL_IR, "SASL-IR") X(ID, "ID") X(ENABLE, "ENABLE") X(IDLE, "IDLE") X(NOTIFY, "NOTIFY") X(NAMESPACE, "NAMESPACE") \
	X(LIST_EXTENDED, "LIST-EXTENDED") X(LIST_STATUS, "LIST-STATUS") X(SPECIAL_USE, "SPECIAL-USE") X(CONDSTORE, "CONDSTORE") \
	X(QRESYNC, "QRESYNC") X(ESEARCH, "ESEARCH") X(UIDPLUS, "UIDPLUS") X(MOVE, "MOVE") X(QUOTA, "QUOTA") X(APPENDLIMIT, "APPENDLIMIT") X(ACL, "ACL") \
	X(LITERAL_PLUS, "LITERAL+") X(LITERAL_MINUS, "LITERAL-") X(COMPRESS, "COMPRESS=DEFLATE") X(OBJECTID, "OBJECTID") \
	X(UNSELECT, "UNSELECT") X(REPLACE, "REPLACE") X(GMAIL, "X-GM-EXT-1") X(ICLOUD, "XAPPLEPUSHSERVICE") \
	X(AUTH_PLAIN, "AUTH=PLAIN") X(AUTH_LOGIN, "AUTH=LOGIN") X(AUTH_CRAM_MD5, "AUTH=CRAM-MD5") X(AUTH_SCRAM_SHA_1, "AUTH=SCRAM-SHA-1") \
	X(AUTH_SCRAM_SHA_256, "AUTH=SCRAM-SHA-256") X(AUTH_XOAUTH2, "AUTH=XOAUTH2") X(AUTH_OAUTHBEARER, "AUTH=OAUTHBEARER")

enum imap_cap_bit {
#define X(name, text) CAP_BIT_##name,
	IMAP_CAPS(X)
#undef X
	CAP_BITS,
};
typedef unsigned long long imap_caps;
#define CAP(name) (1ULL << CAP_BIT_##name)
_Static_assert(CAP_BITS < 64, "they fit");

imap_caps imap_caps_scan(struct scan s);          /* "IMAP4rev1 IDLE ..." up to the end or a bracket */

/* What is known of the account. caps 0: nothing yet. */
struct imap_known {
	imap_caps before_auth, after_auth;  /* over TLS where there is any */
	bool caps_told;                     /* the OK to a login brings them: no need to ask */
	bool alone;                         /* nothing is to be sent behind a login before its answer: it would be lost */
};
void imap_memory_get(struct imap_memory *m, struct imap_known *ret);
void imap_memory_put(struct imap_memory *m, const struct imap_known *known);
/* What has proved not to work there, whatever is offered: it is masked out of the capabilities from then on. */
void imap_memory_distrust(struct imap_memory *m, imap_caps caps);
imap_caps imap_memory_distrusted(struct imap_memory *m);

#endif

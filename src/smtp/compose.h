/* compose.h: from what a person wrote to what is sent. "To: bob@example.org", an empty line and text are enough.
 *
 * Added where missing: From, Date, Message-ID; MIME-Version, Content-Type and Content-Transfer-Encoding where the text is not
 * plain ASCII in lines of at most 998 bytes. Made right: line breaks become CRLF, names, subjects and file names that are not
 * ASCII are encoded (RFC 2047, RFC 2231), text parts with lines too long or with undeclared 8 bit bytes become
 * quoted-printable or base64. Left as it is: what multipart/signed, multipart/encrypted and S/MIME hold, and everything
 * below a DKIM-Signature; where that cannot be sent as it is, it is refused.
 *
 * The prepared file begins with the Bcc fields, so that what is transmitted is the file from envelope.hidden on, and the
 * copy for Sent is all of it. Memory: 1 MiB of header at most, and some buffers; the body is streamed. */
#ifndef MF_SMTP_COMPOSE_H
#define MF_SMTP_COMPOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "smtp/dsn.h"

#define RECIPIENTS_MAX 5000
#define MESSAGE_HEADER_MAX (1U << 20)

struct compose_options {
	const char *from;              /* the account's addresses, comma separated; the first is the default */
	const char *from_name;         /* for a From field that is added, in place of the name in `from`; NULL */
	const char *sender;            /* the envelope's sender, "" for the null one (RFC 5321 4.5.5); NULL: by the From field and `from` */
	/* NULL-terminated: these and not those of the fields; NULL. With them, address fields need not be readable (cron's "To: root"),
	 * and a From field that is not is replaced; the text begins where no field stands, and needs no header before it. */
	const char *const *recipients;
	bool fields_too;               /* those of the fields as well */
	/* NULL-terminated names that, without a domain, mean the account's own address, as recipients and as sender (cron's "To: root");
	 * a From field that cannot be read is replaced then, too. NULL: none */
	const char *const *locals;
	bool draft;                    /* not finished: it may go to nobody yet, and address fields need not be readable */
	int64_t now_s;                 /* wall clock */
	uint64_t size_max;             /* of what is transmitted; 0: not known */
};

struct envelope {
	char *sender;                  /* "": the null one */
	char **recipients;             /* in the order of the message, each once */
	size_t recipient_count;
	char *message_id;              /* with < and >; of the message, not of its resending */
	char *subject;                 /* decoded, on one line; not yet safe for a terminal */
	uint64_t hidden, size;         /* bytes of the prepared file: of the Bcc fields in front, and all of it */
	bool eight_bit;                /* 8BITMIME is needed */
	bool utf8;                     /* SMTPUTF8 is needed */
	unsigned notify;               /* enum dsn_notify, by the field DSN_FIELD, which is not sent */
};

/* in: a regular file, read from its beginning by pread(2). out: an empty file at its beginning.
 * MF_INVALID with the reason: no header, no recipient, an address that cannot be read, a NUL, a control character in a
 * header, a line that is too long where nothing may be changed. MF_TOO_BIG: over size_max. MF_IO, MF_NO_SPACE. */
enum mf_err compose(const struct compose_options *options, int in, int out, struct envelope *ret, struct mf_reason *why);
void envelope_finish(struct envelope *envelope);    /* a zeroed one is fine */

/* The first address of a list; NULL where there is none or the list cannot be read. The caller frees. */
char *compose_first_address(const char *list);

#endif

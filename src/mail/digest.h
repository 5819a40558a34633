/* digest.h: SHA-256 (FIPS 180-4), piece by piece; for keys and names, not for secrets. Pure. OpenSSL's, which uses what the
 * processor has for it: a first reading makes two for each message. */
#ifndef MF_MAIL_DIGEST_H
#define MF_MAIL_DIGEST_H

#include <stddef.h>

#define DIGEST_BYTES 32

struct digest { void *context; };

void digest_begin(struct digest *d);
void digest_add(struct digest *d, const void *data, size_t len);
/* One of these ends it, and frees what it has: */
void digest_end(struct digest *d, unsigned char ret[static DIGEST_BYTES]);
/* its first len characters in base32 (RFC 4648 6, in lower case; 1 to 48 of them), and a NUL */
void digest_end_base32(struct digest *d, char *ret, size_t len);

#endif

/* tls_context.h: between tls_context.c and tls.c. */
#ifndef MF_NET_TLS_CONTEXT_H
#define MF_NET_TLS_CONTEXT_H

#include <openssl/ssl.h>

#include "net/transport.h"

#define FINGERPRINT_CHARS 65

/* What the check of a certificate found wrong; one for each connection, its SSL's app data. */
struct tls_verdict {
	struct tls_context *context;
	char *key;                           /* "host:port": whose sessions may be resumed */
	int error;                           /* X509_V_ERR_..., the first */
	char fingerprint[FINGERPRINT_CHARS]; /* of the server's certificate: hexadecimal */
	char detail[96];                     /* the names it is for, or its dates; printable */
};

bool tls_context_verifies(const struct tls_context *context);
/* A new connection to host, ready to shake hands but for its BIO. NULL: out of memory, or host is no name. */
SSL *tls_context_new_ssl(struct tls_context *context, const char *host, struct tls_verdict *verdict);
/* one line for a person, without the host */
enum mf_err tls_verdict_reason(const struct tls_verdict *verdict, const char *host, struct mf_reason *why);

#endif

/* sasl.h: one side of an authentication exchange (RFC 4422), for IMAP and SMTP. Knows no protocol: bytes in, bytes out.
 *
 * Over an encrypted and verified connection PLAIN comes first: one round trip, where SCRAM takes two or three. In clear,
 * or with TLS to whoever answers (`tls = none`), a mechanism that does not tell the password comes first. */
#ifndef MF_AUTH_SASL_H
#define MF_AUTH_SASL_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "config/config.h"

/* The best of `allowed` and `offered` (enum auth_mechanism bits); 0: none in common. */
enum auth_mechanism sasl_choose(unsigned allowed, unsigned offered, bool verified);
const char *sasl_name(enum auth_mechanism mechanism);   /* "SCRAM-SHA-256" */
/* The secret is an OAuth 2 token and not a password. */
static inline bool sasl_is_token(enum auth_mechanism m) { return m == AUTH_XOAUTH2 || m == AUTH_OAUTHBEARER; }

struct sasl;
struct sasl_options {             /* copied; secret is wiped at the end */
	enum auth_mechanism mechanism;
	const char *user, *secret;
	const char *host;             /* OAUTHBEARER tells it the server */
	unsigned port;
};
/* MF_INVALID: a user or secret that the mechanism cannot carry (a NUL or ^A inside, not UTF-8 with SCRAM). */
enum mf_err sasl_create(const struct sasl_options *options, struct sasl **ret, struct mf_reason *why);
void sasl_destroy(struct sasl *s);                      /* NULL is fine */
bool sasl_client_first(const struct sasl *s);           /* the first answer needs no challenge: an initial response (SASL-IR) */
/* The answer to a challenge, both base64. challenge "" with a client-first mechanism: the initial response. *ret (base64, maybe
 * "") belongs to the caller, who hands it to credentials_release(). MF_AUTH: the server failed to prove itself, or its
 * challenge makes no sense. */
enum mf_err sasl_answer(struct sasl *s, const char *challenge, char **ret, struct mf_reason *why);
/* The server has accepted: MF_AUTH when the mechanism lets it prove that it knows the password too, and it has not. */
enum mf_err sasl_accepted(const struct sasl *s, struct mf_reason *why);
/* What a token's refusal said (the JSON of XOAUTH2 and OAUTHBEARER), printable; "" when nothing. */
const char *sasl_refusal(const struct sasl *s);

#endif

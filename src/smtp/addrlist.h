/* addrlist.h: an address list (RFC 5322 3.4, RFC 6532) read strictly: whom a message goes to is never guessed. Pure, linear.
 *
 * mail/address.h reads the same for display, and forgives everything; here what cannot be read is refused with what it is.
 * Understood: names with dots, quoted strings, comments, groups, routes (dropped), quoted local parts, domain literals, empty
 * list elements. Domains that are not ASCII become A-labels (IDNA 2008). */
#ifndef MF_SMTP_ADDRLIST_H
#define MF_SMTP_ADDRLIST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define ADDR_MAX 320    /* bytes of local@domain */

enum addr_kind { ADDR_MAILBOX, ADDR_GROUP, ADDR_GROUP_END };
struct addr {
	enum addr_kind kind;
	struct buf raw;         /* the name as it is written (with quotes), white space made one */
	struct buf name;        /* the same without quotes and backslashes; encoded words are left */
	struct buf comment;     /* what stood in parentheses around it, without the outer ones */
	struct buf spec;        /* local@domain as an envelope has it */
	bool utf8_local;        /* its local part is not ASCII: SMTPUTF8 is needed */
};

/* Valid during the call. What it returns but MF_OK ends the reading, and is its result. */
typedef enum mf_err addr_visitor(void *context, const struct addr *a);

/* s: valid UTF-8, unfolded. MF_INVALID with the reason; some addresses may have been visited by then. */
enum mf_err addrlist_parse(const char *s, size_t len, addr_visitor *visit, void *context, struct mf_reason *why);
/* The same, where what stands without @domain and is one of these names (NULL-terminated, in any case; NULL: none) is an address too:
 * .spec is the name alone. */
enum mf_err addrlist_parse_local(const char *s, size_t len, const char *const *locals, addr_visitor *visit, void *context, struct mf_reason *why);
bool addr_is_local(const char *const *locals, const char *name, size_t len);

/* The same address: local parts to the letter, domains without case. */
bool addr_equal(const char *a, const char *b);

#endif

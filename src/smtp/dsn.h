/* dsn.h: of what a sender wants to be told by a delivery status notification (RFC 3461). Pure. */
#ifndef MF_SMTP_DSN_H
#define MF_SMTP_DSN_H

#include <stdbool.h>

/* bits; 0: as the server does by itself. FULL, HEADERS: how much of the message such a report is to bring back */
enum dsn_notify { DSN_NEVER = 1, DSN_SUCCESS = 2, DSN_FAILURE = 4, DSN_DELAY = 8, DSN_FULL = 16, DSN_HEADERS = 32 };
#define DSN_RETURN (DSN_FULL | DSN_HEADERS)

#define DSN_FIELD "X-DSN-Notify"     /* of a message that is to be sent; it says what is wanted, and does not leave */
#define DSN_WORDS_MAX 32

/* "success, failure, headers", in any case; nothing is 0, and never goes before all others. False: some other word, or both of full
 * and headers */
bool dsn_read(const char *words, unsigned *ret);
/* "SUCCESS,FAILURE", as NOTIFY has it where there is no DSN_RETURN in it */
void dsn_words(unsigned notify, char ret[static DSN_WORDS_MAX]);

#endif

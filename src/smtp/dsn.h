/* dsn.h: of what a sender wants to be told by a delivery status notification (RFC 3461). Pure. */
#ifndef MF_SMTP_DSN_H
#define MF_SMTP_DSN_H

#include <stdbool.h>

enum dsn_notify { DSN_NEVER = 1, DSN_SUCCESS = 2, DSN_FAILURE = 4, DSN_DELAY = 8 };  /* bits; 0: as the server does by itself */

#define DSN_FIELD "X-DSN-Notify"     /* of a message that is to be sent; it says what is wanted, and does not leave */
#define DSN_WORDS_MAX 32

/* "success, failure", in any case; nothing is 0, and never goes before all others. False: some other word */
bool dsn_read(const char *words, unsigned *ret);
/* "SUCCESS,FAILURE", as NOTIFY has it */
void dsn_words(unsigned notify, char ret[static DSN_WORDS_MAX]);

#endif

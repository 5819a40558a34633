/* password.h: asking a person for a secret. */
#ifndef MF_CLI_PASSWORD_H
#define MF_CLI_PASSWORD_H

#include "base/err.h"

/* Asks at the controlling terminal, without echo. MF_UNSUPPORTED: there is none. MF_CANCELLED: nothing was typed. MF_IO with
 * errno. A signal that ends the program, or stops it, finds the terminal as it was. Hand *ret to password_free(). */
enum mf_err password_ask(const char *label, char **ret);
void password_free(char *password);  /* wipes */

#endif

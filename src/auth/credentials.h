/* credentials.h: who the account is, and its password or token when it is asked for. Thread-safe.
 *
 * A password-command is run at the first need, its first line of output kept in memory (never in core files, wiped at the
 * end) and, once rejected, run one more time before the account is told to wait for its user. */
#ifndef MF_AUTH_CREDENTIALS_H
#define MF_AUTH_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/err.h"

struct credentials;
/* password or command may be NULL; with neither every use is MF_AUTH, "no password is set". All copied. */
struct credentials *credentials_create(const char *user, const char *password, const char *command);
struct credentials *credentials_share(struct credentials *c);   /* one more owner, who destroys it too; NULL is fine */
void credentials_destroy(struct credentials *c);                /* the last owner's; NULL is fine */
const char *credentials_user(const struct credentials *c);
/* The secret, copied into a buffer that the caller must hand to credentials_release(). Runs the command if need be, for at
 * most timeout_ms; the stop sign ends it. */
enum mf_err credentials_acquire(struct credentials *c, int64_t timeout_ms, struct cancel *cancel, char **ret_secret, struct mf_reason *why);
void credentials_release(char *secret);   /* wipes and frees; NULL is fine */
/* The server refused it. true: there is a command, it has not been run again since the last success, so it is worth one more try. */
bool credentials_rejected(struct credentials *c);
void credentials_accepted(struct credentials *c);
/* For a handler of a signal that ends the process: ends the commands that run, which are in process groups of their own. */
void credentials_end_commands(void);

#endif

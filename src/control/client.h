/* client.h: the other end of server.h, for commands. */
#ifndef MF_CONTROL_CLIENT_H
#define MF_CONTROL_CLIENT_H

#include "control/verbs.h"

/* Sends one line, hands each answer line to say, returns the exit code in *ret_exit. MF_NOT_FOUND: nobody listens there;
 * MF_DENIED: another user's process does; MF_TIMEOUT: it is silent for a minute (ping: 5 s; events: for ever), or does not let us in; MF_IO: it ended
 * before it had answered. say() gets the last line with "exit" too; when it returns false, the answer is left alone and
 * *ret_exit is that of an interruption. */
enum mf_err control_ask(const char *account, const char *line, control_say *say, void *context, int *ret_exit, struct mf_reason *why);
/* percent-encodes one argument of a line; the caller frees */
char *control_quote(const char *argument);

#endif

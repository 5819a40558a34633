/* handover.h: a message on its way from a command to the process that holds the account: a file in STATE_DIR/outbox/ that says
 * what is wanted of it, then has the message. The command makes it, and whoever takes the message in removes it, so that the command
 * knows that even if it hears no answer; else the command does. What is left behind goes after a day. */
#ifndef MF_SMTP_HANDOVER_H
#define MF_SMTP_HANDOVER_H

#include "smtp/outbox.h"

/* put NULL: the file has the message only. message: read from its offset to its end. *ret_name: the file's name in that folder; the caller frees. */
enum mf_err handover_write(const char *state_dir, const struct outbox_put *put, int message, char **ret_name, struct mf_reason *why);
/* false: it was gone already */
bool handover_remove(const char *state_dir, const char *name);
/* For reading; the caller closes. MF_INVALID: no such name. */
enum mf_err handover_open(const char *state_dir, const char *name, int *ret, struct mf_reason *why);
/* Puts what it says into the outbox, and removes it; at_once as given here. MF_INVALID: no such name, or not a spool's file. */
enum mf_err handover_put(const char *state_dir, const char *name, bool at_once, struct outbox *o, uint64_t *ret_id, struct mf_reason *why);

#endif

/* outgoing.h: a message handed to the account that sends it, mounted or not. */
#ifndef MF_CLI_OUTGOING_H
#define MF_CLI_OUTGOING_H

#include "cli/ask.h"
#include "cli/targets.h"
#include "smtp/outbox.h"

/* Which account sends, or keeps a draft: --account; else the one with this address in `from` (may be NULL); else the first with an
 * smtp server, for a draft then the first with an imap one. Its failure is printed. */
enum exit_code outgoing_choose(struct cli *cli, const char *author, bool draft, struct targets *ret);

struct outgoing {
	bool kept;            /* the message is in the outbox, or has left it by being sent; or it is a draft by now */
	bool failed;          /* it is there as failed */
};
/* The message goes through the account's process, or through this one. put NULL: it is a draft. talk: says on standard output what became of it. */
enum exit_code outgoing_send(struct cli *cli, struct targets *targets, const struct outbox_put *put, int message, bool talk,
                             bool may_ask_password, struct outgoing *ret);
/* send or outbox (control/verbs.h) of every account that is meant and can send; prints what is answered. */
enum exit_code outgoing_ask(struct cli *cli, const char *line, enum ask_how how);
/* outbox OPTION NAME (control/verbs.h), of the one account whose outbox has it */
enum exit_code outgoing_settle(struct cli *cli, const char *option, const char *name);

#endif

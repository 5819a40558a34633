/* ask.h: a verb of control/verbs.h, carried out by whoever can: the process that holds the account, else this one. */
#ifndef MF_CLI_ASK_H
#define MF_CLI_ASK_H

#include "cli/targets.h"
#include "control/verbs.h"

enum ask_how {
	ASK_RUNNING,      /* only a process that holds the account */
	ASK_OFFLINE,      /* else what is known here, without a connection */
	ASK_CONNECT,      /* else connects for it */
};
struct ask {
	struct cli *cli;
	enum ask_how how;
	bool may_ask_password;
	control_say *say;     /* each answer but the last */
	void *context;
	bool lists_itself;    /* the verb begins with the list of mailboxes: none need be awaited before it */
};

/* Asks one account; its error is printed. ^C ends the verb, and is EXIT_CANCELLED. */
enum exit_code ask_account(const struct ask *ask, struct target *target, const char *line);
/* One after the other; the first failure's code, after all have been asked. */
enum exit_code ask_all(const struct ask *ask, struct targets *targets, const char *line);

/* "verb", "--flag", the rest percent-encoded; NULL-terminated list of rest may be NULL. The caller frees. */
char *ask_line(const char *verb, const char *flags, char *const *rest);

#endif

/* verbs.h: the commands that a running mailfs understands, whichever way they come: the socket (server.h), .mailfs/ctl, or
 * in-process when no other process holds the account.
 *
 * A request is one line: VERB [ARG ...], arguments percent-encoded where they hold white space or '%'.
 * The answer is JSON lines: any number of {"progress":...} or verb-specific objects, then {"exit":N} or
 * {"exit":N,"error":"what happened, to what, what to do"}. Exit codes are those of mailfs.1. */
#ifndef MF_CONTROL_VERBS_H
#define MF_CONTROL_VERBS_H

#include <stdbool.h>

#include "control/eventlog.h"
#include "sync/account.h"

struct control {                       /* what the verbs act on; plain references */
	struct account *const *accounts;
	size_t count;
	struct eventlog *events;
	void (*on_stop)(void *context);    /* verb "stop": umount and exit; NULL: refused */
	void *stop_context;
};
/* line: without its newline, valid during the call. Each answer line is given to say(), without newline; say() returns
 * false when nobody listens any more, and the verb ends. Blocks until the verb is done or *stop is raised: never call it
 * on a thread that must not wait. Returns the exit code. */
typedef bool control_say(void *context, const char *json);
int control_run(const struct control *control, const char *account, const char *line, struct cancel *stop, control_say *say, void *context);
/* For .mailfs/ctl: starts the verb on a thread of its own; MF_INVALID at once for a line that is no command. */
enum mf_err control_start(const struct control *control, const char *account, const char *line);

#endif

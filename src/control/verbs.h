/* verbs.h: the commands that a running mailfs understands, whichever way they come: the socket (server.h), .mailfs/ctl, or
 * in-process when no other process holds the account.
 *
 * A request is one line: VERB [ARG ...], arguments percent-encoded where they hold white space or '%'. Behind "--" none is an option.
 * The answer is JSON lines: any number of {"progress":...} or verb-specific objects, then {"exit":N} or
 * {"exit":N,"error":"what happened, to what, what to do"}. Exit codes are those of exit.h and mailfs.1.
 *
 *   ping                          {"ping":{"pid":..,"version":"..","account":"..","mountpoint":".."|null}}
 *   status [--json]               {"text":".."} or {"status":{..}}, as status.h
 *   list                          {"mailbox":"..","messages":..,"unseen":..,"state":"..","sync":"..",..} for each
 *   sync [--populate] [--wait] [MAILBOX..]  {"progress":{..}} while it works; --wait: until the server has every change
 *   pending                       {"pending":{"id","kind","state","what","since","due","tries","error"}} for each
 *   cancel N..|all | retry N..|all  {"cancelled":{"done","left"}}, {"retried":{"done"}} for all
 *   subscribe | unsubscribe MAILBOX..
 *   connect | disconnect          {"link":"online"|..}
 *   check [--local]               {"progress":{..}}, {"problem":{"mailbox","name","what"}} for each, {"checked":{..}}
 *   events [--all]                the lines of eventlog.h, from now or from the start, until nobody listens
 *   send                          everything in the outbox goes out now; {"message":{..}} for each when that is settled
 *   send --spool NAME             smtp/handover.h; {"message":{..}}: where it stands: waiting, or, without a mount, what became of it
 *   send --draft --spool NAME     {"draft":{"account","path"}}: it is in Drafts; without a mount the server has it, if it can be reached
 *   outbox                        {"message":{"id","name","state","at","reason","subject","recipients","sent","refused",..}} for each
 *   outbox --retry|--remove|--sent NAME   {"message":{..}} as it is then; failed/NAME for what failed
 *   outbox --wait NAME            the same when it is sent, or will not be by itself; its delay is waited for
 *   log                           {"text":".."}
 *   stop                          unmounts and ends the process
 *
 * All strings are safe to print (json.h). */
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
	const char *mountpoint;            /* told by "ping"; NULL: nothing is mounted */
	void (*settle)(void *context);     /* waits until the tree shows what the cache has; NULL: there is no tree */
	void *settle_context;
};
/* line: without its newline, valid during the call. Each answer line is given to say(), without newline; say() returns
 * false when nobody listens any more, and the verb ends. Blocks until the verb is done or *stop is raised: never call it
 * on a thread that must not wait. account NULL: all accounts. Returns the exit code. */
typedef bool control_say(void *context, const char *json);
int control_run(const struct control *control, const char *account, const char *line, struct cancel *stop, control_say *say, void *context);
/* For .mailfs/ctl: starts the verb on a thread of its own; MF_INVALID at once for a line that is no command, or one that nobody
 * would end (events), MF_BUSY when too many run already. How it ended goes to the log. */
enum mf_err control_start(const struct control *control, const char *account, const char *line);

/* Ends the verbs that control_start() started, and waits for them: before what control refers to is destroyed. */
void control_finish(const struct control *control);

#endif

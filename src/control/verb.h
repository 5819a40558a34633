/* verb.h: what the verbs share; inside control only. */
#ifndef MF_CONTROL_VERB_H
#define MF_CONTROL_VERB_H

#include <json-c/json.h>

#include "control/exit.h"
#include "control/verbs.h"

#define VERB_ARGUMENTS_MAX 4096
#define VERB_LINE_MAX 65536        /* bytes of a request */
#define VERB_PROGRESS_MS 250       /* between two lines of progress */

struct verb_call {
	const struct control *control;
	struct account *const *accounts;   /* those that it is about */
	size_t count;
	int events;                        /* which stream of the log: an account's index, or -1 */
	char **arguments;                  /* decoded, options included; NULL-terminated */
	struct cancel *stop;
	control_say *say;
	void *context;
	struct mf_reason why;              /* of a failure */
};

/* false: nobody listens. Drops the reference. */
bool verb_say(struct verb_call *call, struct json_object *object);
/* the same with {"key": value} */
bool verb_say_member(struct verb_call *call, const char *key, struct json_object *value);

/* Removes the option from the arguments; false: it was not there. "--" ends the options, and is taken off as one itself. */
bool verb_take_option(struct verb_call *call, const char *option);
/* MF_INVALID with a reason where arguments are left: an unknown option, or one too many */
enum mf_err verb_no_more_arguments(struct verb_call *call);

/* Whether the account has to be asked for a connection first; tells why there can be none (MF_OFFLINE, MF_AUTH, ...). An
 * account that waits for its user is not pushed: a refused password is not tried again by a timer's sync. */
enum mf_err verb_want_link(struct verb_call *call, struct account *a);

/* Waits until the server has what was changed here before. */
enum mf_err verb_settle_account(struct verb_call *call, struct account *a);

/* One want, waited for with a {"progress":...} line of the account now and then, until it is done or the stop sign is
 * raised (MF_CANCELLED). */
struct waiter;
struct waiter *waiter_create(struct verb_call *call, struct account *a);
void waiter_destroy(struct waiter *w);
want_done waiter_done;               /* hand this in as done, the waiter as context */
/* what account_want_...() returned and wrote */
enum mf_err waiter_finish(struct waiter *w, bool here, enum mf_err result, struct want *want);

/* A path as the tree shows it; behind the account's name too ("work/INBOX"), as in a tree of all accounts. MF_NOT_FOUND */
enum mf_err verb_find_mailbox(struct account *a, const char *path, uint64_t *ret);

typedef enum exit_code verb_run(struct verb_call *call);
verb_run verb_pending, verb_cancel, verb_retry, verb_subscribe, verb_unsubscribe;
/* Without a mount: what waits in the outboxes goes out now, and is waited for; nobody would do it later. Not with send = manual. */
enum exit_code verb_send_waiting(struct verb_call *call);
verb_run verb_sync, verb_connect, verb_disconnect, verb_check, verb_send, verb_outbox;

#endif

/* outbox.h: the durable queue of messages to be sent, of one account.
 *
 * On disk, STATE_DIR/outbox/, 0700: per message ID.orig (the bytes as the user wrote them), ID.eml (as they are sent,
 * compose.h) and ID.state (text: where it stands, with envelope and results), which is replaced as a whole (write, fsync,
 * rename, fsync of the folder). A message is in the outbox from the moment its state file is there; what has none was never
 * promised to anybody and is cleared away. No database: the outbox survives its loss. Beside them 0....size, what the server
 * takes, and 0....number, up to where numbers of files may have been given.
 *
 * Never lost, never sent twice: a mark is made durable immediately before the end of the message leaves, the result
 * immediately after the answer. Who finds the mark at the next start holds the message as OUTBOX_MAYBE.
 *
 * When it is sent: first attempts in the order of putting, each not before its delay is over (`send-delay`) and, with
 * `send = connect` or `manual`, not before it is released. 4xx: again after 5, 10, 20 ... 240 minutes, until five days have
 * passed since the server was first asked; other messages go on meanwhile. Where a server takes only so many recipients at once
 * (452) the others follow at once. A server that cannot be reached is tried again
 * after 30 seconds ... 15 minutes, at once when woken, and no message's time runs meanwhile; a refused password waits for
 * outbox_wake(). Where the machine's clock is set back, nothing waits for longer than it was put off. Several messages share a connection, which is closed when nothing is left.
 *
 * Threads: every function may be called from any thread, none waits for the network but outbox_send_due() and, for a few
 * seconds, outbox_close(). The account must be held (cache_open's lock): one process, one outbox. Callbacks run with no lock
 * held and may call anything here but outbox_close(). */
#ifndef MF_SMTP_OUTBOX_H
#define MF_SMTP_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "config/config.h"
#include "smtp/submit.h"

struct outbox;

enum outbox_state {
	OUTBOX_WAITING,    /* until .at_s; can be taken back */
	OUTBOX_QUEUED,     /* goes out when the server is there, or (send = connect, manual) when it is released */
	OUTBOX_SENDING,    /* now */
	OUTBOX_RETRYING,   /* the server wanted it later: at .at_s; some recipients may have got it */
	OUTBOX_MAYBE,      /* the end had left and no answer came: outbox_retry() sends it again, outbox_settle_sent() says that
	                    * it was sent, outbox_remove() forgets it */
	OUTBOX_UNFILED,    /* sent; its copy is not in Sent yet. No longer a file of outbox/ */
	OUTBOX_FAILED,     /* refused for good, for some recipient at least, or never fit to be sent: it belongs into failed/ */
};
const char *outbox_state_word(enum outbox_state state);  /* "waiting" "queued" "sending" "retrying" "maybe-sent" "sent" "failed" */

struct outbox_options {
	const struct account_config *config;   /* outlives the outbox, as what outbox_configure() brings: smtp, from, send, send_delay_ms, user, password ... */
	const char *state_dir;                 /* of the account */
	bool offline;                          /* as outbox_offline(o, true) */
	/* Files the prepared message (all of it, with its Bcc) in Sent. Called on the sending thread when it has been sent, and
	 * again at each start until it is done: an owner that may have done it already looks for message_id. first: surely not yet,
	 * and it was sent just now. fd is good during the call. MF_OK: it is filed, or need not be. Anything else: asked
	 * again after five minutes. NULL: nothing is filed. */
	enum mf_err (*file_copy)(void *context, uint64_t id, int fd, uint64_t size, const char *message_id, bool first);
	void *file_context;
	/* Tests. NULL: by config. */
	enum mf_err (*connect)(void *context, struct cancel *cancel, struct smtp **ret, struct mf_reason *why);
	void *connect_context;
};

/* MF_INVALID: `from` (or `user` without one) is no address. MF_IO, MF_NO_SPACE. Starts no thread. */
enum mf_err outbox_open(const struct outbox_options *options, struct outbox **ret, struct mf_reason *why);
void outbox_start(struct outbox *o);           /* the sending thread; after the last fork */
/* Stops sending. A message whose end has left is given ten seconds for its answer, then it is OUTBOX_MAYBE. NULL is fine. */
void outbox_close(struct outbox *o);

/* Called after each change, on the thread that made it: id's item changed, came or went; 0: the link did. At most 4
 * subscribers, before outbox_start(). */
typedef void outbox_changed(void *context, uint64_t id);
void outbox_subscribe(struct outbox *o, outbox_changed *changed, void *context);

/* --- putting and taking ---------------------------------------------------------------------------------------------- */

struct outbox_put {
	const char *name;                  /* of the file, "x.eml"; NULL: one is made */
	const char *const *recipients;     /* as compose_options */
	bool fields_too;
	const char *const *locals;
	const char *sender, *from_name;
	unsigned notify;                   /* enum dsn_notify; 0: as its field says (DSN_FIELD) */
	bool keep_failed;                  /* what cannot be sent becomes OUTBOX_FAILED, under *ret_id, beside the error */
	bool at_once;                      /* no delay, and released */
	bool held;                         /* as after outbox_hold() */
	bool replaces;                     /* what waits under that name is taken back when this is there, whatever happens; see outbox_take_back() */
	const char *unfit;                 /* not fit to be sent, for this reason: MF_TOO_BIG; NULL */
	uint64_t number;                   /* by outbox_number(); 0: it gets one */
};
/* Reads fd from its offset to its end (a file, a pipe), makes the message ready and stores it; it is durable when this
 * returns. MF_EXISTS: a message of that name waits already. MF_INVALID, MF_TOO_BIG with the reason: compose.h. */
enum mf_err outbox_put(struct outbox *o, int fd, const struct outbox_put *put, uint64_t *ret_id, struct mf_reason *why);
/* For one whose name is taken: x-2.eml, x-3.eml ... of x.eml, and no longer than a file's name may be. The caller frees. */
char *outbox_twin_name(const char *name, unsigned n);

/* A number that no file of this outbox has had, and none will get: 1 .. OUTBOX_NUMBER_MAX. It goes round after that many, and begins
 * at the clock's, so that a lost folder does not give those of before once more. */
#define OUTBOX_NUMBER_MAX ((UINT64_C(1) << 38) - 1)
uint64_t outbox_number(struct outbox *o);
/* The message that has it; 0: none */
uint64_t outbox_id_of_number(struct outbox *o, uint64_t number);

/* The user's bytes, for reading; the caller closes. MF_NOT_FOUND. */
enum mf_err outbox_open_content(struct outbox *o, uint64_t id, int *ret_fd);
/* The message will not be sent (any more) and leaves the outbox. *ret_fd (may be NULL): the user's bytes, in a file that has
 * no name any more, writable; the caller closes. MF_BUSY: it is being sent, or was to
 * some and is not filed yet. MF_DENIED: OUTBOX_MAYBE, UNFILED, FAILED. */
enum mf_err outbox_take_back(struct outbox *o, uint64_t id, int *ret_fd);
/* Forgets it, whatever its state but OUTBOX_SENDING (MF_BUSY). A copy that is not filed yet will not be. */
enum mf_err outbox_remove(struct outbox *o, uint64_t id);
/* It left the outbox by one of these two, not sent. Of the last thousand. */
bool outbox_was_removed(struct outbox *o, uint64_t id);
/* The last message of that name that has left the outbox since it was opened was sent; of the last thousand */
bool outbox_was_sent(struct outbox *o, const char *name);
/* mv within outbox/; as it is if that fails. replaces: as of outbox_put(), with the errors of outbox_take_back(); else MF_EXISTS */
enum mf_err outbox_rename(struct outbox *o, uint64_t id, const char *name, bool replaces);
/* Of what its sender is to be told (enum dsn_notify), from the next attempt on. MF_BUSY: it is being sent */
enum mf_err outbox_set_notify(struct outbox *o, uint64_t id, unsigned notify);
/* While held (an editor's lock file is there) it is not sent. anew: its delay begins now, and is two seconds at least, and at most
 * where it has been released. Neither is remembered over a restart. */
void outbox_hold(struct outbox *o, uint64_t id, bool held, bool anew);

/* --- settling -------------------------------------------------------------------------------------------------------- */

/* Now: what waits, is queued or retrying goes out at once; FAILED and MAYBE go to those who have not surely got it.
 * name: in the same step it gets that one, which what has it makes room for; NULL: its own, or one like it.
 * MF_DENIED: a message that was never fit to be sent; MF_BUSY: OUTBOX_SENDING. Of the name as outbox_rename(). */
enum mf_err outbox_retry(struct outbox *o, uint64_t id, const char *name);
/* OUTBOX_MAYBE: it was found in Sent (filed), or the user says that it arrived (not filed: the copy is made now). */
enum mf_err outbox_settle_sent(struct outbox *o, uint64_t id, bool filed);

/* --- when ------------------------------------------------------------------------------------------------------------ */

/* The account has connected: what `send = connect` holds is released, the server is tried, and copies that could not be filed
 * are asked for again. */
void outbox_connected(struct outbox *o);
/* Settings as outbox_open() would take them */
enum mf_err outbox_check_config(const struct account_config *config, struct mf_reason *why);
/* Other settings, checked, of the same account. What is queued goes by them from now on, but keeps the time that it was put off
 * to; a connection that is open, by the old ones. */
void outbox_configure(struct outbox *o, const struct account_config *config);
/* Try now: the network changed. by_person: after a refused password too. */
void outbox_wake(struct outbox *o, bool by_person);
/* `mailfs disconnect`, -o offline: nothing is sent until it is told otherwise, whatever else is called. */
void outbox_offline(struct outbox *o, bool offline);
void outbox_release(struct outbox *o);         /* `mailfs send`: everything that waits goes out now, delays over or not */
/* For tests, instead of outbox_start(): sends on the calling thread until nothing is due. The first failure of the link, or MF_OK;
 * what became of each message is in its item. */
enum mf_err outbox_send_due(struct outbox *o, struct mf_reason *why);

/* --- looking --------------------------------------------------------------------------------------------------------- */

struct outbox_item {
	uint64_t id, number;           /* neither is used again, also not after a restart */
	char *name;                    /* unique among what is not failed, and among what is */
	enum outbox_state state;
	bool in_failed;                /* it belongs into failed/ (OUTBOX_FAILED) */
	bool held;                     /* outbox_hold() */
	bool unreleased;               /* by send = connect or manual it goes nowhere yet */
	int64_t at_s;                  /* WAITING, RETRYING: until when; else 0 */
	int64_t put_s, changed_s;      /* wall clock */
	uint64_t size;                 /* of the user's bytes */
	char *reason;                  /* "" or why it is not sent yet; printable */
	char *message_id, *subject;    /* "" where there is none */
	size_t recipients, sent, refused;
	unsigned attempts, notify;
	unsigned notify_asked;         /* 0: .notify is what its field says */
};
void outbox_item_finish(struct outbox_item *item);
enum mf_err outbox_item(struct outbox *o, uint64_t id, struct outbox_item *ret);   /* MF_NOT_FOUND */
enum mf_err outbox_item_by_name(struct outbox *o, const char *name, bool in_failed, struct outbox_item *ret);
/* All, in the order of putting; free with outbox_items_free() */
void outbox_items(struct outbox *o, struct outbox_item **ret, size_t *ret_count);
void outbox_items_free(struct outbox_item *items, size_t count);
#define OUTBOX_ERROR_SUFFIX ".error.txt"   /* of the text beside a message in failed/; no message there has such a name beside its own */
/* What NAME.error.txt says: why, since when, and what the server said of each recipient. NULL: not failed. The caller frees. */
char *outbox_error_text(struct outbox *o, uint64_t id);

struct outbox_counts {
	size_t waiting, queued, sending, retrying, maybe, unfiled, failed;
	uint64_t sent;                 /* messages that the server has taken, since outbox_open() */
	uint64_t flying, flying_of;    /* bytes of the message that is being sent: those that have left, and all */
};
void outbox_counts(struct outbox *o, struct outbox_counts *ret);
struct outbox_link {
	enum mf_err error;             /* MF_OK: nothing is known to be wrong */
	struct mf_reason reason;
	int64_t next_try_s;            /* 0: when there is something to send, or (MF_AUTH) when a person wakes it */
	bool offline;                  /* by outbox_offline() */
};
void outbox_link(struct outbox *o, struct outbox_link *ret);
/* What the server takes at most, in bytes, as far as it is known; 0: not known. Survives restarts. */
uint64_t outbox_size_max(struct outbox *o);

/* tests: called before each durable step (write, rename, unlink), numbered from 1 */
extern void (*outbox_step_for_tests)(unsigned step);

#endif

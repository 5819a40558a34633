/* journal.h: changes made here that the server does not have yet.
 *
 * Each call below changes the tree and notes what is to be done at the server, in the caller's transaction: a person sees
 * the change at once, and no crash parts it from its intent. What waits is an operation (struct op). One operation is
 * about one message or one mailbox; those of one message are done in the order of their ids.
 *
 * A row's UID says what the server has: while an operation is to put a message somewhere (APPEND, COPY, MOVE) its row has
 * none there, and the operation remembers where the message lies meanwhile. Such a place is claimed: what the server still
 * tells of it makes no row. A message that is to be expunged keeps its row, out of sight, until that has happened. One that
 * is to be kept here alone (KEEP) is deleted at the server too, and stays where it is; its bytes are in the spool from
 * before until a person removes it.
 *
 * States: QUEUED; SENT from before the first byte leaves until the answer is known, across crashes; UNCONFIRMED: it may
 * have happened, and looking did not tell; PARKED: the server refuses, for the reason in .error; ASTRAY: another client has
 * moved or removed the message, which is looked for in other mailboxes (stray.c): a kind of waiting. Only a person moves on
 * what is parked or unconfirmed. */
#ifndef MF_CACHE_JOURNAL_H
#define MF_CACHE_JOURNAL_H

#include "cache/cache.h"

/* The values are in databases: new ones at the end */
enum op_kind { OP_FLAGS = 1, OP_APPEND, OP_COPY, OP_MOVE, OP_EXPUNGE, OP_CREATE, OP_DELETE, OP_RENAME, OP_SUBSCRIBE, OP_UNSUBSCRIBE, OP_KEEP };
enum op_state { OP_QUEUED, OP_SENT, OP_UNCONFIRMED, OP_PARKED, OP_ASTRAY };

struct op {
	uint64_t id;
	enum op_kind kind;
	enum op_state state;
	uint64_t message;            /* its row; 0: about a mailbox */
	uint64_t mailbox;            /* where it acts: FLAGS, COPY, MOVE, EXPUNGE, KEEP the one that has the message; APPEND the destination */
	uint64_t dest;               /* COPY, MOVE */
	uint32_t uidvalidity, uid;   /* of the message in `mailbox`; uid 0: known only when the operation before it is done */
	unsigned flags, flags_remove;/* FLAGS: what changes, and so what a cancel takes back */
	char *keywords, *keywords_remove;
	char *name;                  /* of the file or directory before, for showing and for taking back */
	char *raw;                   /* the server's bytes. DELETE, SUBSCRIBE, UNSUBSCRIBE: for the mailbox; CREATE, RENAME that
	                              * were sent: what it was to be called then; of a message: its mailbox, when that is gone here */
	uint64_t parent;             /* RENAME: the directory that it was in. APPEND: its mailbox, where the server may have put it by
	                              * itself, see txn_op_filed(); 0: surely not. EXPUNGE that is ASTRAY: its .due_ms when it is met again */
	uint64_t after;              /* not before that operation is over; 0: none */
	int64_t due_ms, since_ms;    /* wall clock: not before (ASTRAY: since when it is so); when it was asked for */
	unsigned tries;
	char *error;                 /* why it is parked or unconfirmed; of one that is SENT: it was answered, see txn_op_unsaid(); NULL: nothing */
	bool aside;                  /* CREATE, RENAME, for journal_mark_sent() only: under a name for the time being, see there */
};
void op_finish(struct op *op);
static inline bool op_is_of_mailbox(const struct op *op) { return op->kind >= OP_CREATE && op->kind <= OP_UNSUBSCRIBE; }
/* The mailbox where a message is to arrive; 0: none does */
static inline uint64_t op_landing(const struct op *op) { return op->kind == OP_APPEND ? op->mailbox : op->dest; }
const char *op_kind_word(enum op_kind kind);   /* "append"; for people and programs */
const char *op_state_word(enum op_state state);

/* How many wait, in any state; cheap */
uint64_t journal_count(struct cache *c);
struct journal_totals { uint64_t queued, sent, unconfirmed, parked; };
enum mf_err journal_totals(struct cache *c, struct journal_totals *ret);
/* Those with id > after, ascending; each is valid during the call; false stops. */
typedef bool op_visitor(void *context, const struct op *op);
enum mf_err journal_list(struct cache *c, uint64_t after, op_visitor *visit, void *context);
enum mf_err journal_op(struct cache *c, uint64_t id, struct op *ret);           /* MF_NOT_FOUND */
/* Where the bytes of a message without a number are at the server: what is to be moved or copied. MF_BUSY: it is on its way, or looked for;
 * MF_NOT_FOUND: nobody knows */
enum mf_err journal_source(struct cache *c, uint64_t message, uint64_t *ret_mailbox, uint32_t *ret_uid);
/* "synchronised", or what waits for this message: "pending: move", "parked: append: over the server's quota" */
enum mf_err journal_state_of(struct cache *c, uint64_t message, char **ret);

/* --- changes to messages -------------------------------------------------------------------------------------------- */

/* Adds and removes single flags. keywords as in struct message; "" or NULL: none. MF_NOT_FOUND */
enum mf_err txn_change_flags(struct txn *t, uint64_t message, unsigned add, unsigned remove, const char *keywords_add, const char *keywords_remove);
/* Exactly these flags: journalled as single additions and removals */
enum mf_err txn_set_flags(struct txn *t, uint64_t message, unsigned flags, const char *keywords);

/* What becomes of a message that is removed or overwritten */
struct disposal {
	bool expunge;                /* else it goes to `trash` */
	uint64_t trash;              /* a mailbox; in it, or with 0: expunged */
	int64_t delay_ms;            /* an expunge waits so long */
};
/* The message as it is at the server goes; the row is in Trash or out of sight. One that only exists here is dropped. */
enum mf_err txn_remove(struct txn *t, uint64_t message, const struct disposal *how);
/* The message gets another id, *ret, with all that is its own; nothing has the one that it had any more: that is a file without a
 * name, of whoever has it open for writing. One that only exists here keeps its id. */
enum mf_err txn_part(struct txn *t, uint64_t message, uint64_t *ret);
/* Another name, or mailbox; what has that name there goes as `how` says, and a message written here takes over its flags.
 * MF_EXISTS: a mailbox has the name. */
enum mf_err txn_move(struct txn *t, uint64_t message, uint64_t mailbox, const char *name, const struct disposal *how);
/* A new empty file with that name, only here until it is written (txn_written). MF_EXISTS */
enum mf_err txn_create(struct txn *t, uint64_t mailbox, const char *name, uint64_t *ret);
/* The message `made`, which txn_create() made, becomes a copy of `from`, by COPY at the server. MF_UNSUPPORTED: `from` is not
 * at the server, so its bytes are to be written. */
enum mf_err txn_copied(struct txn *t, uint64_t made, uint64_t from, int64_t due_ms);

struct written {
	uint64_t size;
	const struct mail_summary *summary;
	int64_t internal_date;       /* seconds since the epoch */
	bool upload;                 /* false: a scratch file, which stays here */
	int64_t due_ms;
};
/* What was written (spool.h has it in place) is this message now. What it was at the server before goes as `how` says. */
enum mf_err txn_written(struct txn *t, uint64_t message, const struct written *what, const struct disposal *how);
/* Shown, not sent */
enum mf_err txn_touch(struct txn *t, uint64_t message, int64_t mtime);
/* The internal date of what has not been sent yet; of anything else as txn_touch(). summary: of its bytes */
enum mf_err txn_redate(struct txn *t, uint64_t message, int64_t date, const struct mail_summary *summary);
/* A message that mailfs itself has made, with its bytes (lines end with CRLF), these flags and the name that such a message has.
 * MF_EXISTS: one with its Message-ID is there already (*ret), that is hardly older (unless `again`). Reads fd by offsets. look_ms: it
 * has been sent just now, and the server may put it there by itself: it is stored so much later, and looked for before. */
struct append { int fd; uint64_t size; int64_t internal_date; unsigned flags; bool again; int64_t look_ms; };
enum mf_err txn_append(struct txn *t, uint64_t mailbox, const struct append *what, uint64_t *ret);
/* The mailbox for copies of what is sent: path; NULL: that with the use, or the name Sent. Else it is made. MF_OFFLINE: nothing
 * has been listed yet. MF_DENIED: what has the name takes no messages */
enum mf_err txn_sent(struct txn *t, const char *path, uint64_t *ret);
enum mf_err txn_drafts(struct txn *t, uint64_t *ret);   /* the same for drafts: the use, or the name Drafts */
/* Never at the server, whoever asks: drops a row that only exists here, with its bytes */
enum mf_err txn_drop_local(struct txn *t, uint64_t message);

/* The row exists only here, and nothing is to change that: a scratch file, or one that is being written */
enum mf_err txn_is_local(struct txn *t, uint64_t message, bool *ret);

/* Names that are never sent: .*  *~  *.swp  4913  #*#  *.tmp  *.part  *.orig  *.rej  sed?????? */
bool name_is_scratch(const char *name);

/* The message is to be deleted at the server, and stays here, with the bytes that spool_prepare() has written: the only ones
 * then. A later sight of the mailbox without it settles that as well. MF_BUSY: something else is to be done with it first. */
enum mf_err txn_keep(struct txn *t, uint64_t message);

/* --- changes to mailboxes ------------------------------------------------------------------------------------------- */

/* MF_EXISTS; MF_INVALID: not a name; MF_TOO_BIG: too long, or too deep inside others; MF_UNSUPPORTED: nothing can be inside that one;
 * MF_OFFLINE: no mailbox has been listed yet */
enum mf_err txn_mailbox_create(struct txn *t, uint64_t parent, const char *name, uint64_t *ret);
/* MF_EXISTS: it has messages or mailboxes inside; MF_UNSUPPORTED: INBOX; MF_BUSY: it is being made, or a message has been sent
 * there that is shown elsewhere by now */
enum mf_err txn_mailbox_delete(struct txn *t, uint64_t mailbox);
/* MF_EXISTS: something has the name; MF_INVALID: into itself; MF_TOO_BIG: as above */
enum mf_err txn_mailbox_rename(struct txn *t, uint64_t mailbox, uint64_t parent, const char *name);
enum mf_err txn_mailbox_subscribe(struct txn *t, uint64_t mailbox, bool subscribed);
/* The mailbox for what is removed: that with the use, or the name Trash, else a new one */
enum mf_err txn_trash(struct txn *t, uint64_t *ret);

/* --- by a person ------------------------------------------------------------------------------------------------------ */

/* Takes an operation back and undoes it in the tree; what depends on it goes with it. MF_BUSY: it is being sent, or
 * goes on by itself. MF_STALE: the mailbox that it is to go back to is gone. MF_EXISTS: messages lie in what it made, or what
 * it is to go back into lies in it: their operations first. */
enum mf_err txn_cancel(struct txn *t, uint64_t op);
/* A parked or unconfirmed one is queued again */
enum mf_err txn_retry(struct txn *t, uint64_t op);

/* --- by the engine ---------------------------------------------------------------------------------------------------- */

/* Those that can be done now, in ascending id; now_ms is compared with .due_ms of an expunge that was not tried yet or, with
 * !hurry, of all. An expunge that was tried goes with any other of its mailbox: without UIDPLUS they are one. The caller
 * frees each and *ret. */
enum mf_err journal_ready(struct cache *c, int64_t now_ms, bool hurry, size_t max, struct op **ret, size_t *ret_count);
/* When the first is due that was not at now_ms: wall clock; INT64_MAX: none */
enum mf_err journal_next_due(struct cache *c, int64_t now_ms, int64_t *ret_ms);
/* The EXPUNGE of what the message of this APPEND takes the place of, if it can be done now together with it; MF_NOT_FOUND */
enum mf_err journal_replaced(struct cache *c, uint64_t append, int64_t now_ms, struct op *ret);
/* Whose outcome is not known after a lost connection or a crash */
enum mf_err journal_in_doubt(struct cache *c, struct op **ret, size_t *ret_count);
/* These are SENT when this returns, on the disk, whatever happens to the machine, and CREATE and RENAME have their .raw; those
 * that another took back meanwhile or made wait, or that have no name there any more, are not: their id is set to 0. Mailboxes that take
 * each other's names wait for each other: one that is sent as .aside gets a name that nobody wants, and when it has that,
 * a RENAME to the one that it is to have is noted. */
enum mf_err journal_mark_sent(struct cache *c, struct op *ops, size_t count);
/* Done; uid 0: where it lies now is not known yet, and txn_message_put() finds out. Nothing where the operation is gone. */
enum mf_err txn_op_done(struct txn *t, uint64_t op, uint32_t uidvalidity, uint32_t uid);
/* An APPEND with .parent that is not under way: where the mailbox has its Message-ID by now, under a number, the server has put it
 * there. Then that one has its name and flags from here on, and the operation is done. MF_NOT_FOUND: it has not. */
enum mf_err txn_op_filed(struct txn *t, uint64_t op);
/* A COPY or MOVE was answered, and that server, which tells numbers, told none for this message: either there was no such message any
 * more, or it did not care to tell. Likewise of a change of flags, where nothing was told of the message. The operation stays SENT,
 * until a look at where it was to arrive, or at where it was, has shown which. */
enum mf_err txn_op_unsaid(struct txn *t, uint64_t op);
/* The message was not there any more: existence is the server's. A copy is parked; what is to be moved may be elsewhere; of flags there
 * is nothing left to do. */
enum mf_err txn_op_gone(struct txn *t, uint64_t op);
/* If the mailbox that the message was in is known neither by the tree nor, having been removed here, by the operation's .raw (or
 * that name was refused): as txn_op_gone(), but a message that was to be moved out of it, and is nowhere else, is stored anew if
 * its bytes are here; else that is parked. */
enum mf_err txn_op_lost(struct txn *t, uint64_t op, bool refused, bool *ret_lost);
/* Every mailbox has been read since before_ms, or not all of them can be: what went astray before and was not met is over with its
 * message, which is gone; or it is parked. *ret: how many that were */
enum mf_err txn_strays_settle(struct txn *t, int64_t before_ms, bool all_read, size_t *ret);
bool journal_has_strays(struct cache *c);
/* It is as it was sent: an answer is about it. Not flags that go after a message that has been met elsewhere since. */
bool txn_op_is_sent(struct txn *t, uint64_t op);
/* Not done, to be tried again from due_ms on */
enum mf_err txn_op_again(struct txn *t, uint64_t op, int64_t due_ms);
/* A COPY that is the first half of a MOVE, as it was sent, is done: the other half, an operation of its own, is to remove what was
 * copied. Also where the operation is gone, since the copy was seen, and the original is still there. */
enum mf_err txn_op_half_moved(struct txn *t, const struct op *sent, uint32_t uidvalidity, uint32_t uid);
enum mf_err txn_op_park(struct txn *t, uint64_t op, enum op_state state, const char *error);
/* CREATE: the mailbox is there, as these bytes; RENAME: it has that name, and all inside */
enum mf_err txn_op_mailbox_is(struct txn *t, uint64_t op, const char *raw);
/* What is to rename the mailbox to the name that it has at the server is done: it was to have another meanwhile, and did not get it */
enum mf_err txn_mailbox_is_called(struct txn *t, uint64_t mailbox);
/* Operations are about messages in a mailbox that is to be deleted, or delete what lies in it: they come before */
enum mf_err journal_uses(struct cache *c, uint64_t mailbox, bool *ret);
/* A RENAME is under way, or in doubt: names may not be those that the server knows */
bool journal_is_renaming(struct cache *c);
/* Messages are to come, go or change there: what is counted here is not what the server counts */
enum mf_err journal_touches(struct cache *c, uint64_t mailbox, bool *ret);
/* Whether what CREATE or RENAME is to call it is to be given up by another mailbox first: LEAVING: by a RENAME that can be
 * done, or by a DELETE while messages wait for mailboxes that are to be made; HELD: by one that waits for a person, or by a DELETE
 * else */
enum name_state { NAME_FREE, NAME_LEAVING, NAME_HELD };
enum mf_err journal_name_state(struct cache *c, const struct op *op, const char *target, enum name_state *ret);
/* What CREATE and RENAME will call it at the server; the caller frees. MF_BUSY: what it lies in is not there yet */
enum mf_err journal_target(struct cache *c, const struct op *op, char **ret);
enum mf_err txn_op_target(struct txn *t, const struct op *op, char **ret);   /* the same */
/* As what it is sent if it is .aside */
enum mf_err journal_aside(struct cache *c, const struct op *op, char **ret);

#endif

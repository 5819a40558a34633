/* write.h: the parts of imap_write().
 *
 * Writes are issued one after the other, in the order given, many under way at once. What needs an answer before the next
 * command may go out (SELECT, the number of messages before DELETE) waits for it; all others only wait for room. */
#ifndef MF_SYNC_IMAP_WRITE_H
#define MF_SYNC_IMAP_WRITE_H

#include "sync/imap/engine.h"

struct write_item {
	size_t pending;          /* its commands under way, or to be sent once more */
	bool issued, told;       /* everything has been sent; the sink knows */
	bool doubt;              /* refused without a code: settle() finds out why */
	bool unsaid;             /* where all the messages are was not said, or makes no sense */
	enum mf_err result;      /* the first failure */
	char *reason;
	uint32_t uidvalidity;
	struct uid_pair *pairs;
	size_t count;
	bool *there;             /* of each UID of a FLAGS write; NULL: of none */
};
struct write_again { size_t index; uint32_t first, last; };

struct writer {
	struct imap *s;
	const struct remote_write *writes;
	const struct write_sink *sink;
	struct write_item *items;
	size_t count;
	size_t messages;         /* that the commands under way are about */
	uint64_t bytes;          /* of the literals whose command is under way */
	size_t doubtful, doubts; /* commands under way that may bring doubt; items in doubt */
	/* commands that met messages expunged by others (RFC 5530 EXPUNGEISSUED): once more, at the end */
	struct write_again *again;
	size_t again_count;
	bool last_chance;
	/* what a question of ours has brought */
	const char *asked;       /* a mailbox: LIST, LSUB, STATUS. NULL: no such question */
	bool listed, selectable, subscribed, counted;
	uint32_t messages_there;
	const struct remote_write *expunges;   /* UID SEARCH DELETED: for this one; NULL: not under way */
	bool ours_marked, others_marked;
	/* the last SELECT that was refused, for its neighbours */
	const char *refused;
	enum mf_err refused_result;
	char *refused_reason;
};

/* write.c */
/* Sends what has been put, as a command of writes[i]. An argument that cannot be sent fails the item and is no error here:
 * *ret_serial is 0 then. */
enum mf_err write_send(struct writer *v, size_t i, const struct imap_command *command, unsigned *ret_serial);
/* For handlers: one of the item's commands is over, with this. */
enum mf_err write_over(struct writer *v, size_t i, const struct imap_cond *cond, const char *what);
enum mf_err write_tell(struct writer *v, size_t i);   /* the sink, if the item is over */
void write_fail(struct writer *v, size_t i, enum mf_err e, const char *reason, size_t len);
/* What the answer means for the write that it is about. MF_OFFLINE ends the session. */
enum mf_err write_verdict(const struct imap_cond *cond);
/* Until so few messages, commands and bytes are under way that this may be sent as well. */
enum mf_err write_room(struct writer *v, size_t messages, uint64_t bytes);

/* write_messages.c: FLAGS, COPY, MOVE, EXPUNGE */
enum mf_err write_messages(struct writer *v, size_t i);
bool write_is_of(const struct remote_write *w, uint32_t uid);
enum mf_err write_select(struct writer *v, size_t i);  /* its mailbox, so that it can be changed; waits for the answer */
enum mf_err write_part(struct writer *v, size_t i, uint32_t first, uint32_t last);   /* those between, once more too */
void write_put_flags(struct imap *s, unsigned flags, const char *keywords);           /* "(...)" */
/* An untagged COPYUID (RFC 6851 4.3), of whichever MOVE under way it is about */
void write_take_copyuid(struct writer *v, struct span args);
void write_pairs_finish(struct writer *v, size_t i);
/* A FETCH: the message is there, for each change of its flags under way; VANISHED: they are not */
void write_take_fetch(struct writer *v, const struct imap_fetch *f);
void write_take_vanished(struct writer *v, struct scan set);
/* The mailbox that writes[i] means, selected so that it can be changed; or the item has failed. */
enum mf_err write_use_mailbox(struct writer *v, size_t i);
/* write_append.c: APPEND and REPLACE (RFC 8508) */
enum mf_err write_append(struct writer *v, size_t i);
void write_take_appenduid(struct writer *v, struct span args);   /* an untagged one: of a REPLACE under way */
/* write_mailbox.c: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE */
enum mf_err write_mailbox(struct writer *v, size_t i);
enum mf_err write_settle(struct writer *v);   /* whatever is in doubt */

#endif

/* remote.h: a live session with one server: "imap", "pop3", or "memory" (tests).
 *
 * A session is made, used and destroyed by one thread; only its options' stop sign is raised from elsewhere. Calls block;
 * every wait has the transport's deadlines. Verbs take lists and pipeline inside: what matters is round trips.
 *
 * Errors: scope ITEM and MAILBOX concern one item or mailbox and are told through the sinks; the session goes on.
 * Anything of scope CONNECTION or ACCOUNT, returned by a verb, means that the session is dead: destroy it. Nothing
 * is sent after a parse error, since the stream cannot be trusted any more.
 *
 * Mailboxes are named by the server's own bytes (`raw`), without any interpretation. */
#ifndef MF_SYNC_REMOTE_H
#define MF_SYNC_REMOTE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cancel.h"
#include "base/err.h"
#include "mail/summary.h"

/* --- what the server can do: the caller asks before it acts ------------------------------------------------------ */

#define REMOTE_CAPS(X) \
	X(MAILBOXES, 0)    /* more than INBOX */ \
	X(FLAGS, 1)        /* keeps flags */ \
	X(PUSH, 2)         /* remote_wait is told of changes in one mailbox (IDLE) */ \
	X(PUSH_ALL, 3)     /* in all mailboxes (NOTIFY) */ \
	X(RANGES, 4)       /* remote_fetch can fetch a part of a message */ \
	X(UIDPLUS, 5) X(MOVE, 6) X(QUOTA, 7) X(STATUS_MODSEQ, 8) /* mailbox_status.modseq is a dirty test */ \
	X(OBJECTID, 9) X(QRESYNC, 10) X(CONDSTORE, 11) \
	X(ACL, 12)         /* changes tell mailbox_status.rights */ \
	X(REPLACE, 13)     /* can store a message in the place of another, in one step */
enum remote_cap {
#define X(name, bit) REMOTE_##name = 1 << (bit),
	REMOTE_CAPS(X)
#undef X
};

/* --- flags ------------------------------------------------------------------------------------------------------- */

enum message_flag { /* system flags (RFC 9051 2.3.2) as bits; keywords go as text: names between single spaces, sorted */
	FLAG_SEEN = 1, FLAG_ANSWERED = 2, FLAG_FLAGGED = 4, FLAG_DELETED = 8, FLAG_DRAFT = 16,
};

/* --- mailboxes --------------------------------------------------------------------------------------------------- */

enum mailbox_flag {
	MAILBOX_NOSELECT = 1, MAILBOX_NOINFERIORS = 2, MAILBOX_SUBSCRIBED = 4, MAILBOX_READONLY = 8,
	MAILBOX_HAS_STATUS = 16, /* the numbers of mailbox_status are the server's word of just now */
	MAILBOX_OTHERS = 64,     /* of another user, or shared: the account's quota is not about it */
	MAILBOX_HOME = 128,      /* INBOX of a server where all mailboxes of the user are inside it (32: see cache.h) */
};
enum special_use { USE_NONE, USE_INBOX, USE_ALL, USE_ARCHIVE, USE_DRAFTS, USE_FLAGGED, USE_JUNK, USE_SENT, USE_TRASH };

struct mailbox_status {     /* 0: not known */
	uint32_t uidvalidity, uidnext, messages, unseen;
	uint64_t modseq;        /* HIGHESTMODSEQ */
	uint64_t append_limit;  /* no larger message can be stored there (RFC 7889); of LIST only */
	unsigned rights;        /* what may be done there (RFC 4314): RIGHTS_TOLD and a RIGHT() for each letter; of closed() only */
};
#define RIGHT(letter) (1U << ((letter) - 'a'))
#define RIGHTS_TOLD (1U << 31)
struct remote_mailbox {
	const char *raw;        /* valid during the call */
	char delimiter;         /* 0: flat */
	bool utf8;              /* raw is UTF-8, not modified UTF-7 */
	unsigned flags;         /* enum mailbox_flag */
	enum special_use use;
	const char *object_id;  /* MAILBOXID (RFC 8474): stays when the name does not; NULL: not told */
	struct mailbox_status status;
};
/* each mailbox once; returning anything but MF_OK stops the verb with that */
struct mailbox_sink {
	enum mf_err (*mailbox)(void *context, const struct remote_mailbox *mailbox);
	void *context;
	void (*unreadable)(void *context);  /* told last: there are others, of which not even the names could be read. NULL: nobody asks */
};

/* --- changes ----------------------------------------------------------------------------------------------------- */

struct uid_range { uint32_t first, last; };    /* inclusive, first <= last */
struct uid_ranges { struct uid_range *items; size_t count; };  /* sorted, not overlapping */

enum change_method {
	CHANGES_AUTO,      /* the cheapest that tells additions, removals and flags since the given state */
	CHANGES_NEW_ONLY,  /* only what has a UID of .uidnext and above: a push said EXISTS and nothing else */
	CHANGES_VERIFY,    /* everything: all UIDs with flags, beside what is new */
	CHANGES_ALL,       /* from nothing: all messages, newest first, as for a mailbox never seen */
};
struct mailbox_since {
	const char *raw;
	enum change_method method;
	uint32_t uidvalidity, uidnext;  /* of the last time; unused with CHANGES_ALL */
	uint64_t modseq;                /* 0: none */
	uint32_t first_uid;             /* nothing below is wanted (max-messages); 0 or 1: everything */
	uint32_t newest;                /* with CHANGES_ALL: only the newest N; 0: all */
	struct mailbox_status hint;     /* from LIST with STATUS, to pipeline FETCH behind SELECT; zeroes: unknown */
};
struct remote_message {
	uint32_t uid;
	uint64_t size;                  /* RFC822.SIZE, the server's claim; 0 with !has_size */
	bool has_size;
	int64_t internal_date;          /* seconds since the epoch; 0 where the server's could not be read */
	unsigned flags;
	const char *keywords;
	uint64_t modseq;                /* 0: none */
	const char *email_id;           /* OBJECTID or X-GM-MSGID; NULL: none */
	const void *header;             /* the MAIL_SUMMARY_FIELDS of the message; NULL: could not be had */
	size_t header_len;
};
struct change_sink {                /* i: the index into the list. All called on the session's thread, in wire order */
	/* SELECT is answered. Told first. uidvalidity other than the given one: nothing but closed() follows, with
	 * MF_UIDVALIDITY (unless the method is CHANGES_ALL). */
	enum mf_err (*opened)(void *context, size_t i, const struct mailbox_status *status, bool read_only);
	enum mf_err (*message)(void *context, size_t i, const struct remote_message *message); /* new, complete */
	enum mf_err (*flags)(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq);
	enum mf_err (*vanished)(void *context, size_t i, const struct uid_ranges *uids);
	/* every UID that exists below the given uidnext: whoever is not in it has vanished */
	enum mf_err (*present)(void *context, size_t i, const struct uid_ranges *uids);
	/* the mailbox is done. MF_OK: everything up to *status has been told, and status->modseq may be stored.
	 * MF_NOT_FOUND, MF_DENIED, MF_UIDVALIDITY, ...: this mailbox only. status->rights may be told whatever the result. */
	enum mf_err (*closed)(void *context, size_t i, enum mf_err result, const struct mailbox_status *status);
	void *context;
};

/* --- bodies ------------------------------------------------------------------------------------------------------ */

struct fetch_batch {                /* one command */
	const char *raw;
	uint32_t uidvalidity;           /* another one at SELECT: every item of the batch ends with MF_UIDVALIDITY */
	const uint32_t *uids;           /* sorted, no duplicates */
	size_t count;
	uint64_t offset, length;        /* a part of one message (count == 1); length 0: the whole of each */
	uint64_t bytes;                 /* about so many will come */
	/* Called with the source's context: what begin() and end() tell next is of this batch. What is asked for once more comes behind
	 * later batches, in which the same UID of another mailbox may be. NULL: nobody minds. */
	void (*about)(void *context, void *batch);
	void *batch;
};
struct fetch_source {
	/* Called when the pipeline has room. false: nothing more now; the verb ends when what is under way has come.
	 * The batch's memory stays valid until the next call. */
	bool (*next)(void *context, struct fetch_batch *ret);
	void *context;
	const int *wake_fd;             /* readable when next() should be asked again, which makes it unreadable; NULL: none */
};
struct fetch_sink {                 /* in wire order */
	/* bytes of a message begin: length bytes will follow from offset on. */
	enum mf_err (*begin)(void *context, uint32_t uid, uint64_t offset, uint64_t length);
	enum mf_err (*data)(void *context, const void *data, size_t len);
	/* told for every UID of every batch. MF_OK: all of what begin() announced has been given, and `whole` says
	 * whether this is the whole message (a part shorter than asked for ends at the end of the message).
	 * MF_NOT_FOUND: expunged. MF_DENIED, MF_PROTOCOL (the server will not give this one), MF_UIDVALIDITY. */
	enum mf_err (*end)(void *context, uint32_t uid, enum mf_err result, bool whole);
	void *context;
};

/* --- writing ----------------------------------------------------------------------------------------------------- */

enum write_kind {
	WRITE_FLAGS, WRITE_APPEND, WRITE_COPY, WRITE_MOVE, WRITE_EXPUNGE, WRITE_REPLACE, /* messages */
	WRITE_CREATE, WRITE_DELETE, WRITE_RENAME, WRITE_SUBSCRIBE, WRITE_UNSUBSCRIBE,   /* mailboxes */
};
struct remote_write {
	enum write_kind kind;
	const char *raw;                /* the mailbox; that of APPEND is the destination; REPLACE has the old and the new one there */
	const char *to;                 /* COPY, MOVE, RENAME: the destination, or the new name */
	/* FLAGS, COPY, MOVE, EXPUNGE, REPLACE (one): which messages. Another UIDVALIDITY at SELECT: MF_UIDVALIDITY, and nothing was done */
	uint32_t uidvalidity;
	const uint32_t *uids;           /* sorted, no duplicates */
	size_t count;
	unsigned flags, flags_remove;   /* FLAGS: added and removed; APPEND, REPLACE: the message's (never \Recent) */
	const char *keywords, *keywords_remove; /* likewise: names between single spaces; NULL or "": none */
	/* APPEND, REPLACE: size bytes from the start of fd, with pread(2); the internal date in seconds since the epoch, 0: the server's
	 * now. A file that turns out to be shorter, or cannot be read, ends the session with MF_IO. */
	int fd;
	uint64_t size;
	int64_t internal_date;
};
struct uid_pair { uint32_t from, to; };
struct write_result {
	/* MF_OK: done. A UID that does not exist (any more) is no failure of FLAGS, COPY, MOVE and EXPUNGE.
	 * REPLACE of one fails; whatever it fails with, nothing is done.
	 * CREATE of what exists and SUBSCRIBE of what is subscribed are MF_OK; DELETE, UNSUBSCRIBE of what is not there too.
	 * DELETE asks for the number of messages just before: MF_EXISTS where there are some, and nothing is done.
	 * MF_QUOTA, MF_TOO_BIG, MF_DENIED, MF_NOT_FOUND (the destination does not exist), MF_UNSUPPORTED (MOVE without
	 * REMOTE_MOVE; RENAME of INBOX), MF_UIDVALIDITY: the server will not do it, and has done nothing.
	 * MF_CANCELLED: it can be tried again later. EXPUNGE without UIDPLUS, while others' messages are marked \Deleted there:
	 * ours are marked; anything else: the mailbox is in use (RFC 5530). */
	enum mf_err result;
	/* What takes several commands (adding and removing flags; a set of messages so large that it goes out in parts) may
	 * fail in one of them, with the others done: the pairs, if any, are theirs. */
	const char *reason;             /* of a failure: the server's words, printable; valid during the call */
	/* COPYUID and APPENDUID (RFC 4315): uidvalidity 0 where the server did not say. Ascending by from; from is 0 for APPEND
	 * and REPLACE.
	 * With it given, a UID that was asked for and is not here did not exist. */
	uint32_t uidvalidity;
	bool unclear;                   /* uidvalidity is 0, and it says nothing: not all numbers were told, or they make no sense */
	const struct uid_pair *pairs;
	size_t count;
	/* FLAGS: for each of the write's UIDs, whether the server has told something of the message meanwhile; NULL: of none. What is not
	 * told of had these flags already, or is not there any more: OK says nothing of that (RFC 2180 4.2). */
	const bool *there;
};
struct write_sink {
	/* writes[i] is over; told once for each, in any order, unless the verb fails: then what was not told may or may not
	 * have happened. */
	enum mf_err (*done)(void *context, size_t i, const struct write_result *result);
	void *context;
};

/* --- push -------------------------------------------------------------------------------------------------------- */

struct push_sink {
	/* something happened in the mailbox. new_only: messages arrived, and nothing else. raw NULL: the list of mailboxes */
	void (*changed)(void *context, const char *raw, bool new_only);
	void *context;
};

struct quota { uint64_t used, limit; }; /* bytes; limit 0: none */

/* --- the session ------------------------------------------------------------------------------------------------- */

struct remote;
struct remote_impl {
	const char *name;
	enum mf_err (*login)(struct remote *, struct mf_reason *why);
	unsigned (*caps)(struct remote *);
	enum mf_err (*mailboxes)(struct remote *, const struct mailbox_sink *);
	enum mf_err (*changes)(struct remote *, const struct mailbox_since *, size_t count, const struct change_sink *);
	enum mf_err (*fetch)(struct remote *, const struct fetch_source *, const struct fetch_sink *);
	enum mf_err (*wait)(struct remote *, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *);
	enum mf_err (*quota)(struct remote *, struct quota *ret);
	/* NULL: this back-end cannot write at all */
	enum mf_err (*write)(struct remote *, const struct remote_write *, size_t count, const struct write_sink *);
	const char *(*reason)(struct remote *);
	void (*destroy)(struct remote *);
};
struct remote {
	const struct remote_impl *impl;
	pthread_t owner;
	int64_t late_ms;                /* so long a server may go on with what it has got, when the connection is lost */
};

/* Connects and authenticates; pipelines what it can behind that. A dead session after failure: destroy it still.
 * MF_AUTH: the credentials were refused (and nothing else is wrong). */
enum mf_err remote_login(struct remote *r, struct mf_reason *why);
unsigned remote_caps(struct remote *r);   /* enum remote_cap bits; after login */
/* LIST with SPECIAL-USE, subscriptions and STATUS: the whole account's dirty test, one round trip where the server can. */
enum mf_err remote_mailboxes(struct remote *r, const struct mailbox_sink *sink);
/* What changed in many mailboxes, pipelined across them. */
enum mf_err remote_changes(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink);
/* Bodies. Keeps at least two commands under way while the source has more. */
enum mf_err remote_fetch(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink);
/* Waits for a push about mailbox `raw` (all with PUSH_ALL), for wake_fd, or timeout_ms; MF_OK then. Renews IDLE itself
 * (at most every 9 minutes). Without PUSH it only sleeps. What it learnt is told before it returns. */
enum mf_err remote_wait(struct remote *r, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink);
enum mf_err remote_quota(struct remote *r, struct quota *ret);
/* Changes at the server: carried out in the order given, pipelined, one SELECT for neighbours in the same mailbox. The
 * failure of one does not stop those behind it. */
enum mf_err remote_write(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink);
bool remote_can_write(const struct remote *r);
const char *remote_reason(struct remote *r);  /* of the last failure: one printable line */
void remote_destroy(struct remote *r);        /* says goodbye only if that cannot wait; NULL is fine */

#endif

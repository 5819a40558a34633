/* cache.h: one account's index: mailboxes, messages, what the server last said of them. All SQL lives in cache/.
 *
 * On disk: STATE/mailfs.db (SQLite, WAL) with the index and the journal (journal.h); STATE/spool/ with what only exists here
 * (spool.h); CACHE/bodies/EPOCH/ with bodies (body.h). The row ids of mailboxes and messages are never reused within an
 * epoch; the epoch is a random number made with the database, and is what file handles call the generation.
 *
 * Threads: everything here may be called from any thread. Readers never wait for a writer. One transaction is open at a
 * time: cache_begin() waits for the other to end. What a reader sees is whole transactions.
 *
 * Listings: a compact table in memory per recently used mailbox answers cache_lookup, cache_list and cache_successors
 * without SQL; it is loaded at first use, kept up to date by every commit, and dropped least recently used first above
 * cache_options.listing_budget. */
#ifndef MF_CACHE_CACHE_H
#define MF_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/bus.h"
#include "base/err.h"
#include "mail/summary.h"

struct cache;

struct cache_options {
	const char *state_dir, *cache_dir;  /* made 0700 if missing; a CACHEDIR.TAG is put into cache_dir */
	const char *identity;               /* "imap user@host", the host in any case: remembered; another one later is MF_DENIED with the commands that settle it */
	unsigned account;                   /* put into every change that is published */
	struct bus *bus;                    /* may be NULL */
	uint64_t body_limit, body_min_free; /* bytes; 0: no limit */
	size_t listing_budget;              /* bytes; 0: 24 MiB */
	bool only_deletes;                  /* the server can delete messages, and no more (POP3): flags and names are kept here, and
	                                     * what else would be done there is MF_UNSUPPORTED at once */
};

/* MF_BUSY: another process holds the account (the reason names its pid). MF_NEWER: untouched. A corrupt database is put
 * aside as mailfs.db.corrupt-DATE, named in the log, and a new one is begun.
 * Starts a thread: not before the last fork. Memory stays small only with malloc's thresholds fixed: mallopt(3) with
 * M_MMAP_THRESHOLD, else room that large tables leave is kept. */
enum mf_err cache_open(const struct cache_options *options, struct cache **ret, struct mf_reason *why);
/* Writes out what is only in the WAL, marks a clean stop. Every body, transaction and listing must have been released. */
void cache_close(struct cache *c);
uint32_t cache_epoch(const struct cache *c);
unsigned cache_account(const struct cache *c);
bool cache_only_deletes(const struct cache *c);
bool cache_is_new(const struct cache *c);     /* this index has never listed a server's mailboxes */

/* Small values that survive restarts (server capabilities, quirks). *ret belongs to the caller; MF_NOT_FOUND. */
enum mf_err cache_get_note(struct cache *c, const char *key, char **ret);
enum mf_err cache_set_note(struct cache *c, const char *key, const char *value); /* a transaction of its own */

/* --- mailboxes ---------------------------------------------------------------------------------------------------- */

/* The flags that mean something here; the values are those of sync/remote.h */
enum { CACHE_MAILBOX_NOSELECT = 1, CACHE_MAILBOX_NOINFERIORS = 2, CACHE_MAILBOX_SUBSCRIBED = 4, CACHE_MAILBOX_READONLY = 8,
       CACHE_MAILBOX_HAS_STATUS = 16, CACHE_MAILBOX_LOCAL = 32 /* made here, and not at the server yet */, CACHE_MAILBOX_OTHERS = 64, CACHE_MAILBOX_HOME = 128,
       CACHE_MESSAGE_SEEN = 1, CACHE_MESSAGE_DELETED = 8, CACHE_USE_INBOX = 1, CACHE_USE_DRAFTS = 4, CACHE_USE_SENT = 7, CACHE_USE_TRASH = 8 };

struct mailbox {
	uint64_t id, parent;         /* parent 0: at the root */
	char *name;                  /* of the directory */
	char *raw;                   /* the server's bytes, whole path; NULL: the server has no such mailbox, only ones inside it */
	char *object_id;             /* by which the server knows it under any name (RFC 8474); NULL: it has not told */
	char delimiter;
	bool utf8;
	unsigned flags;              /* enum mailbox_flag of sync/remote.h */
	unsigned use;                /* enum special_use */
	struct timespec mtime;       /* last change of its list of names; strictly increasing */
	/* what was synchronised */
	bool complete;               /* the index has (or had) every message that is wanted */
	uint32_t uidvalidity, uidnext, total, unseen;
	uint64_t modseq;
	uint32_t first_uid;          /* nothing below is kept (max-messages) */
	/* what the server said last (LIST-STATUS): differs from the above when there is something to fetch */
	uint32_t server_uidvalidity, server_uidnext, server_messages, server_unseen;
	uint64_t server_modseq;
	unsigned rights;             /* mailbox_status.rights of sync/remote.h */
	uint64_t append_limit;       /* the server stores no larger message there; 0: it says nothing of that */
	int sync;                    /* enum sync_policy set by a user on this mailbox; -1: the config's */
};
void mailbox_finish(struct mailbox *m);       /* frees the strings; a zeroed one is fine */

/* As far as the server has told: all of these rights (letters of RFC 4314) are there, and the mailbox is not read-only */
bool mailbox_permits(const struct mailbox *m, const char *rights);

enum mf_err cache_mailbox(struct cache *c, uint64_t id, struct mailbox *ret);
enum mf_err cache_mailbox_by_name(struct cache *c, uint64_t parent, const char *name, struct mailbox *ret);
enum mf_err cache_mailbox_by_raw(struct cache *c, const char *raw, struct mailbox *ret);
/* children in ascending id, those with id > after; each is valid during the call; false stops. */
typedef bool mailbox_visitor(void *context, const struct mailbox *m);
enum mf_err cache_mailbox_children(struct cache *c, uint64_t parent, uint64_t after, mailbox_visitor *visit, void *context);
enum mf_err cache_mailboxes(struct cache *c, mailbox_visitor *visit, void *context);  /* all, parents first */
/* "Archive/2024" as the tree shows it; the caller frees. NULL: no such mailbox */
char *cache_mailbox_path(struct cache *c, uint64_t id);
enum mf_err cache_mailbox_by_path(struct cache *c, const char *path, struct mailbox *ret);
/* Last change of the root's list of names, told as CHANGE_MAILBOX_LIST of mailbox 0; zeroes where it never changed */
void cache_root_mtime(struct cache *c, struct timespec *ret);

/* --- messages ------------------------------------------------------------------------------------------------------ */

struct entry {                   /* what stat(2) needs: plain numbers */
	uint64_t id, mailbox, size;
	int64_t mtime;               /* internal date, seconds since the epoch */
	int64_t ctime;               /* last change of flags, nanoseconds since the epoch */
	uint32_t uid;                /* 0: not at the server (yet) */
	bool size_checked;           /* the size was compared with the bytes */
};
struct message {                 /* the rest, by SQL */
	struct entry entry;
	char *name, *subject, *from, *to, *message_id, *keywords, *email_id;
	int64_t date;                /* the Date field; entry.mtime where there is none */
	unsigned flags;
	uint64_t modseq;
};
void message_finish(struct message *m);

enum mf_err cache_lookup(struct cache *c, uint64_t mailbox, const char *name, struct entry *ret);
enum mf_err cache_entry(struct cache *c, uint64_t message, struct entry *ret);
/* The same of the file: it knows of a transaction before the bodies that this puts away are put away, listings only behind that. */
enum mf_err cache_entry_committed(struct cache *c, uint64_t message, struct entry *ret);
enum mf_err cache_message(struct cache *c, uint64_t message, struct message *ret);
/* Messages in ascending id, those with id > after, until visit returns false. visit holds a read lock: memory work only,
 * no call back into the cache. name is valid during the call. */
typedef bool entry_visitor(void *context, const struct entry *e, const char *name);
enum mf_err cache_list(struct cache *c, uint64_t mailbox, uint64_t after, entry_visitor *visit, void *context);
/* The mailbox will be listed when it has been read: its listing is loaded now, with what little there is, and grows with each commit. */
void cache_list_ahead(struct cache *c, uint64_t mailbox);
/* The next messages behind this one as a reader going through the directory meets them: in readdir's order or in that of
 * the names (bytewise). At most max; *ret_count says how many. */
enum listing_order { ORDER_ID, ORDER_NAME };
enum mf_err cache_successors(struct cache *c, uint64_t message, enum listing_order order, size_t max, struct entry *ret, size_t *ret_count);
/* (uid, id) of every message that the server has there as far as is known, ascending by uid: those in the tree, and those that
 * an operation is to take away (journal.h). The caller frees *ret */
struct uid_id { uint32_t uid; uint64_t id; };
enum mf_err cache_uids(struct cache *c, uint64_t mailbox, struct uid_id **ret, size_t *ret_count);

struct cache_totals { uint64_t mailboxes, messages, bodies, body_bytes; };
void cache_totals(struct cache *c, struct cache_totals *ret);

/* What is here alone, since the server was to delete it (OP_KEEP in journal.h) */
struct cache_kept { uint64_t messages, bytes; };
enum mf_err cache_kept(struct cache *c, struct cache_kept *ret);

/* --- writing --------------------------------------------------------------------------------------------------------- */

struct txn;
/* Everything in between is one SQLite transaction; hold it for less than 50 ms (some hundred messages). */
enum mf_err cache_begin(struct cache *c, struct txn **ret);
/* Makes it durable as SQLite's WAL without fsync does (a crash of the process loses nothing; a power failure at most the
 * last second), updates listings, then publishes its changes on the bus. The txn is gone whatever it returns. */
enum mf_err txn_commit(struct txn *t);
void txn_rollback(struct txn *t);             /* NULL is fine */
/* All it does in that mailbox is to take a name away, which the kernel asks for: it is told so in the changes (.asked). */
void txn_is_asked(struct txn *t, uint64_t mailbox);
/* All that has been committed is on the disk when this returns. */
enum mf_err cache_flush(struct cache *c);

/* What LIST said of one mailbox. Makes missing levels above it. Existing: updated in place, same id. MF_NOT_FOUND: it has been
 * removed here, which waits to be carried out: not a failure of the transaction. */
struct mailbox_said {
	const char *raw;
	const char *object_id;       /* NULL: not told, and what was told before holds */
	char delimiter;
	bool utf8;
	unsigned flags, use;
	bool has_status;
	uint32_t uidvalidity, uidnext, messages, unseen;
	uint64_t modseq, append_limit;
};
enum mf_err txn_mailbox_said(struct txn *t, const struct mailbox_said *said, uint64_t *ret_id);
/* Whether it takes that name: no empty one, nor one of thousands of bytes or more levels than a person makes */
bool mailbox_can_be_called(const char *raw, char delimiter);
/* Before all of what a whole LIST says is said: mailboxes that another client has renamed get the names that they have now, with all
 * that is in them and waits for them. They are known by their object_id, or by a UIDVALIDITY that no other mailbox has; and each
 * message is compared as after txn_mailbox_renumbered(), since servers are not to be believed in either. */
enum mf_err txn_mailboxes_follow(struct txn *t, const struct mailbox_said *said, size_t count);
/* After LIST. all: all of it could be read, so mailboxes not said since this transaction began are gone, with their messages. */
enum mf_err txn_mailboxes_swept(struct txn *t, bool all);
enum mf_err txn_mailbox_removed(struct txn *t, uint64_t mailbox);
enum mf_err txn_mailbox_sync(struct txn *t, uint64_t mailbox, int sync);
enum mf_err txn_mailbox_rights(struct txn *t, uint64_t mailbox, unsigned rights);

/* SELECT said another UIDVALIDITY: the mailbox's messages leave the tree but are kept aside (limbo), and are matched with
 * what txn_message_put() brings; what txn_limbo_purge() finds still unmatched goes, with its body. */
enum mf_err txn_mailbox_renumbered(struct txn *t, uint64_t mailbox, uint32_t uidvalidity);
/* What the index now holds; complete: nothing is missing up to these numbers. */
enum mf_err txn_mailbox_synced(struct txn *t, uint64_t mailbox, bool complete, uint32_t uidvalidity, uint32_t uidnext, uint64_t modseq, uint32_t first_uid, bool read_only);

struct message_put {
	uint64_t mailbox;
	uint32_t uid;
	uint64_t size, modseq;
	int64_t internal_date;
	unsigned flags;
	const char *keywords;        /* "" if none */
	const char *email_id;        /* NULL: none */
	const struct mail_summary *summary;
	bool is_new;                 /* arrived since the mailbox was first synchronised: told in the change */
};
/* The UID is known in this mailbox: flags and modseq are updated, nothing else. Else a message in limbo that is the same
 * (email_id; else Message-ID, size and internal date) takes its place with its id, name and body; else a new row, with the
 * name that the message has by itself, twins numbered. */
enum mf_err txn_message_put(struct txn *t, const struct message_put *put, uint64_t *ret_id);
/* Several; the fastest way for PUTS_MAX of one mailbox that is read for the first time. At most that many. */
#define PUTS_MAX 16
enum mf_err txn_messages_put(struct txn *t, const struct message_put *puts, size_t count, uint64_t *ret_ids);
/* MF_NOT_FOUND where the UID is not known: not a failure of the transaction. Changes ctime only if something changed. */
enum mf_err txn_message_flags(struct txn *t, uint64_t mailbox, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq);
/* Leaves the tree, goes into limbo. If the same message turned up in another mailbox within the last ten minutes, this
 * row takes that one's place there, so that inode, name and body follow a move made elsewhere. */
enum mf_err txn_message_vanished(struct txn *t, uint64_t mailbox, uint32_t uid);
/* One that the server still has, and that is not wanted here any more. What is to be done with it is done. */
enum mf_err txn_message_trimmed(struct txn *t, uint64_t mailbox, uint32_t uid);
/* What is in limbo for longer than age_ms is gone for good, with its body. At most 2,000 messages in one call; the others
 * go with the next ones. */
enum mf_err txn_limbo_purge(struct txn *t, int64_t age_ms);
/* The bytes have been counted. Publishes CHANGE_MESSAGE_SIZE if it differs. */
enum mf_err txn_message_size(struct txn *t, uint64_t message, uint64_t size);

#endif

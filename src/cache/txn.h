/* txn.h: a transaction's own view. Private to cache. Everything here runs on the thread that holds the writer lock.
 *
 * The database is changed as calls come; what memory shows (mailboxes, listings, limbo) and what is published waits in the
 * transaction until SQLite has committed. */
#ifndef MF_CACHE_TXN_H
#define MF_CACHE_TXN_H

#include "cache/journal.h"
#include "cache/private.h"

struct txn_body { uint64_t message, heir; bool shared; };   /* heir 0: the body goes; shared: both have it */
enum spool_fate { SPOOL_IS_BODY, SPOOL_GOES };
struct txn_spool { uint64_t message; enum spool_fate fate; };
/* What a rollback takes back in the spool: bytes put in place (from 0), perhaps over others, or another row's */
struct txn_undo { uint64_t message, from; bool over; };

struct txn {
	struct cache *cache;
	struct db *db;
	enum mf_err failed;            /* the first failure of the database: everything after it gives the same */
	int64_t now_ns;
	struct node **nodes;           /* mailboxes met, as this transaction leaves them */
	size_t node_count, node_room;
	struct map nodes_by_id;
	bool root_names_changed, swept;
	uint64_t asked;                /* the mailbox from which the kernel has had a name taken away; 0: none */
	struct listing_change *listing_changes;
	size_t listing_count, listing_room;
	struct change *changes;        /* to be published; names owned; .kind can be CHANGE_NONE */
	size_t change_count, change_room;
	struct txn_body *bodies;
	size_t body_count, body_room;
	struct txn_spool *spools;
	size_t spool_count, spool_room;
	struct txn_undo *undos;
	size_t undo_count, undo_room;
	int64_t op_change;             /* operations added, less those removed */
	/* what settle_put() has asked before; a mailbox of 0: nothing yet */
	struct { uint64_t mailbox; struct map ids; } awaited;       /* hashes of messages that are to arrive there, to operations */
	struct { uint64_t mailbox; uint32_t uidvalidity; bool any; } otherwise; /* operations with numbers of another validity */
	struct { bool loaded; struct map ids; } strays;             /* hashes of what is to be moved or expunged and is astray, to operations */
	uint64_t displaced;            /* the operation that removes what txn_move() put aside; 0: none */
};
#define CHANGE_NONE ((enum change_kind)-1)

/* the mailbox in this transaction; NULL: there is none */
struct node *txn_node(struct txn *t, uint64_t id);
struct node *txn_node_added(struct txn *t, struct node *n);
bool txn_has_children(struct txn *t, uint64_t mailbox);
static inline int64_t txn_now_s(const struct txn *t) { return t->now_ns / 1000000000; }
static inline int64_t txn_now_ms(const struct txn *t) { return t->now_ns / 1000000; }
enum mf_err txn_fail(struct txn *t, enum mf_err e);          /* remembers e if it is one */
void txn_names_changed(struct txn *t, uint64_t mailbox);     /* 0: the root */
void txn_attributes_changed(struct node *n);
void txn_listing(struct txn *t, enum listing_op op, const struct entry *e, const char *name);
void txn_change(struct txn *t, const struct change *change); /* copies the names */
/* Takes back what this transaction was going to tell of the message; false: nothing of that kind */
bool txn_change_cancel(struct txn *t, enum change_kind kind, uint64_t message);
void txn_body(struct txn *t, uint64_t message, uint64_t heir);
void txn_body_shared(struct txn *t, uint64_t message, uint64_t other);
void txn_spool(struct txn *t, uint64_t message, enum spool_fate fate);      /* after the commit, before another transaction */
void txn_undo(struct txn *t, uint64_t message, uint64_t from, bool over);
struct node *txn_node_of_shelf(struct txn *t, uint64_t shelf);              /* NULL: not one that is seen */

/* limbo.c */
uint64_t match_of(const struct message_put *put, int64_t mtime);
/* That of a message which was stored from here, and whose number at the server (EMAILID) is not known */
uint64_t match_without_id(const struct message_put *put, int64_t mtime);
enum mf_err limbo_load(struct txn *t);       /* cache->limbo.rows is right from here on */
/* A message in limbo that is the one of put; MF_NOT_FOUND. mailbox: only one that had another number there; 0: any */
enum mf_err limbo_match(struct txn *t, const struct message_put *put, uint64_t match, int64_t mtime, uint64_t mailbox, uint64_t *ret);
void limbo_taken(struct txn *t, uint64_t match, uint64_t message);             /* it is in the tree again, or gone */
void arrival_add(struct txn *t, uint64_t match, uint64_t message, uint64_t mailbox);
void arrival_forget(struct txn *t, uint64_t match, uint64_t message);
/* The row of the same message that came into another mailbox lately, and after `row` was made, with entry.mailbox;
 * MF_NOT_FOUND */
enum mf_err arrival_match(struct txn *t, const struct row *row, uint64_t mailbox, struct row *ret);
enum mf_err limbo_put(struct txn *t, struct node *n, const struct row *row);   /* from the tree onto a shelf of limbo */
enum mf_err limbo_retire(struct txn *t, struct node *n, bool told);            /* the whole shelf; n gets a new one */

/* message_write.c */
enum mf_err shelf_add(struct txn *t, uint64_t mailbox, bool limbo, uint64_t *ret);
enum mf_err row_by_id(struct txn *t, uint64_t id, struct row *ret);            /* MF_NOT_FOUND */
enum mf_err row_by_uid(struct txn *t, const struct node *n, uint32_t uid, struct row *ret);
enum mf_err row_by_name(struct txn *t, const struct node *n, const char *name, struct row *ret);
enum mf_err row_remove(struct txn *t, uint64_t id);
enum mf_err row_place(struct txn *t, const struct node *n, const struct row *row);  /* where it lies, UID, name, flags */
enum mf_err row_number(struct txn *t, const struct row *row);                  /* its UID and flags, where it lies already */
enum mf_err row_flags(struct txn *t, const struct row *row);                   /* only flags, modseq, ctime */
enum mf_err row_add(struct txn *t, const struct node *n, struct row *row);
enum mf_err row_add_summary(struct txn *t, const struct message_put *put, const struct row *row);
void row_cap_keywords(const char *keywords, char ret[static KEYWORDS_MAX + 1]);
/* what follows in memory and on the bus */
void row_count(struct node *n, int messages, unsigned flags);
void row_show(struct txn *t, const struct node *n, const struct row *row, bool named);
void row_hide(struct txn *t, const struct node *n, uint64_t message);
void row_tell(struct txn *t, enum change_kind kind, const struct node *n, const struct row *row);
void row_tell_moved(struct txn *t, const struct node *n, const struct row *row, uint64_t old_mailbox, const char *old_name);
/* The server's flags with what waits for this message on top. keywords: room for KEYWORDS_MAX + 1 */
enum mf_err flags_overlay(struct txn *t, uint64_t message, unsigned *flags, char *keywords);
void row_undo_flags(struct row *row, const struct op *op);   /* as it was before that FLAGS */
/* spool.c: the bytes of a message as a file in the spool; false: they are not all here */
bool keep_bytes(struct txn *t, const struct row *row);
/* A copy of what the spool has of a message, which is to be its own when the other has that (txn_spool_share); false: there is no room */
bool keep_spooled(struct txn *t, const struct row *row);
enum mf_err txn_spool_share(struct txn *t, uint64_t message, uint64_t other);
/* What was prepared is in place; this content belongs to another row now. A rollback takes both back. */
enum mf_err txn_spool_commit(struct txn *t, uint64_t message);
enum mf_err txn_spool_rename(struct txn *t, uint64_t from, uint64_t to);
void spool_settle_undos(struct txn *t, bool rolled_back);

/* op.c: the rows of operations */
enum mf_err op_take(struct txn *t, sqlite3_stmt *s, struct op *ret);        /* one row, read; MF_NOT_FOUND */
void op_read(sqlite3_stmt *s, struct op *ret);
enum mf_err op_add(struct txn *t, struct op *op);                           /* sets .id and .since_ms */
enum mf_err op_store(struct txn *t, const struct op *op);
enum mf_err op_remove(struct txn *t, uint64_t id);
enum mf_err op_by_id(struct txn *t, uint64_t id, struct op *ret);
struct ops { struct op *items; size_t count, room; };
enum mf_err ops_collect(struct txn *t, sqlite3_stmt *s, struct ops *ret);   /* its parameters are bound */
enum mf_err ops_add_by_id(struct txn *t, uint64_t id, struct ops *ret);     /* nothing where it is gone */
enum mf_err ops_of_message(struct txn *t, uint64_t message, struct ops *ret);
void ops_finish(struct ops *ops);
static inline bool txn_has_ops(const struct txn *t) { return t->op_change > 0 || atomic_load(&t->cache->op_count) > 0; }
/* the last that says where the message is to be; NULL */
struct op *ops_placing(const struct ops *ops);
void op_set_error(struct op *op, const char *error);                        /* NULL: none */
/* It is about the message in that place (uid 0: when it has a number there) from here on, and so is not under way any more. */
void op_goes_on(struct op *op, const struct node *n, uint32_t uid);
void op_into_append(struct op *op);          /* a COPY or MOVE that was not made becomes one; an APPEND stays */
bool op_is_open(const struct op *op);       /* surely not done, nor under way: may be changed or taken back */

/* change.c */
/* The row and the mailbox that shows it; MF_NOT_FOUND where none does. Once found neither is missing. */
enum mf_err change_visible(struct txn *t, uint64_t message, struct row *ret, struct node **ret_n);
enum mf_err change_set_local(struct txn *t, struct row *row, bool local);
enum mf_err change_set_was(struct txn *t, struct row *row, const char *was);   /* the name before a scratch name; NULL: none */
enum mf_err change_remove_ops(struct txn *t, const struct ops *ops);
enum mf_err change_queue_again(struct txn *t, struct op *op);
enum mf_err change_was_never_sent(struct txn *t, const struct row *row, bool *ret);
enum mf_err change_dispose(struct txn *t, struct row *row, struct node *n, const char *own_name, const struct disposal *how, uint64_t *ret_op);
enum mf_err change_may_write_into(struct txn *t, const struct node *to, const char *name);
/* A message that is still to be stored has got another's place: by takes the flags of that, if it has none of its own. */
enum mf_err change_take_flags(struct txn *t, struct row *by, const struct row *victim);
/* And a place that another was moved away from, under a scratch name (written.c) */
enum mf_err written_takes_name(struct txn *t, struct node *n, struct row *row, uint64_t append, const struct disposal *how);
/* txn_written() by nobody: what the message took the place of, if anything, goes to Trash. MF_NOT_FOUND: it is shown nowhere (written.c) */
enum mf_err written_late(struct txn *t, uint64_t message, const struct written *what);
/* The row, and what is told of the message, become what was written (written.c). */
enum mf_err content_store(struct txn *t, struct row *row, const struct message_put *put);
/* op, if it is still there, is not to be done before `after` is over. */
enum mf_err change_wait_for(struct txn *t, uint64_t op, uint64_t after);
enum mf_err change_append(struct txn *t, const struct node *n, const struct row *row, int64_t due_ms, uint64_t *ret_op);
/* No server has it, and none is to: kept from a POP3 server (keep.c) that the account had. placing: of its operations */
bool change_is_here_alone(const struct row *row, const struct op *placing);

/* append.c: what the first size bytes of fd say of themselves */
enum mf_err summarise(int fd, uint64_t size, struct mail_summary *ret);

/* keep.c: what txn_keep() does, with bytes that are in the spool in place */
enum mf_err keep_row(struct txn *t, uint64_t message);

/* settle.c */
/* The server tells of a message in this mailbox. MF_OK: it is one that an operation was to bring or has taken away from
 * there, and *ret_id is its row; MF_NOT_FOUND: it is news. */
enum mf_err settle_put(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_id);
/* The server has it no more, wherever it was to be: nothing waits for it */
enum mf_err settle_leaves(struct txn *t, uint64_t message);
/* A claimed place is empty at the server; MF_NOT_FOUND: nobody claims it */
enum mf_err settle_vanished(struct txn *t, const struct node *n, uint32_t uid);
/* The row that has a claimed place's message; MF_NOT_FOUND */
enum mf_err settle_claimed(struct txn *t, const struct node *n, uint32_t uid, struct row *ret);
/* The row lies there now as the server tells: what waits goes with it, and lies on top of its flags. double_id: another row
 * of the same message, which gives up its operations; 0: none */
enum mf_err settle_elsewhere(struct txn *t, const struct node *n, struct row *row, uint64_t double_id);

/* The operation has put its message there. */
enum mf_err settle_landed(struct txn *t, const struct op *op, struct node *n, uint32_t uid);
/* Another row, which is the same message, goes; what is its own is the heir's. */
enum mf_err settle_double(struct txn *t, struct node *n, const struct row *twin, uint64_t heir);
enum mf_err settle_expunged(struct txn *t, const struct op *op);
/* Copies of a message, which is in n now, that were to be made from where it was are made from there. */
enum mf_err settle_copies_follow(struct txn *t, uint64_t mailbox, uint32_t uidvalidity, uint32_t uid, const struct node *n, uint32_t new_uid);
/* stray.c */
/* The message is not there any more: what has it there waits until it is met elsewhere. */
enum mf_err stray_begin(struct txn *t, uint64_t message, uint64_t mailbox, uint32_t uid);
/* The same of a message that is to be moved or expunged, and may have been met already. */
enum mf_err stray_away(struct txn *t, struct op *op);
/* The server tells of a message: *ret_id is the row of one that is astray and goes on from there; MF_NOT_FOUND: it is none. */
enum mf_err stray_met(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime, uint64_t match, uint64_t *ret_id);
/* Its row is arrival; what was to be done with op's message goes on from there. */
enum mf_err stray_is(struct txn *t, struct op *op, const struct row *arrival);

/* LIST said this name. MF_NOT_FOUND: it is to be deleted, and is not shown */
enum mf_err settle_said(struct txn *t, const char *path, const char *raw);
/* LIST did not say this one. *ret_stays: it is made here, or being renamed, or changes that wait need it */
enum mf_err settle_unlisted(struct txn *t, struct node *n, bool *ret_stays);

/* limbo.c */
bool identity_is_same(struct txn *t, uint64_t message, const struct message_put *put, int64_t mtime, bool strict);

/* mailbox_write.c */
enum mf_err mailbox_add_local(struct txn *t, uint64_t parent, const char *path, const char *level, const struct mailbox *like, struct node **ret);
/* One that was removed here is there again, as it was known */
enum mf_err mailbox_add_again(struct txn *t, const struct op *removal, const struct mailbox *like);
enum mf_err mailbox_drop_ops(struct txn *t, uint64_t mailbox);              /* what is to be done to it at the server */
enum mf_err mailbox_undelete(struct txn *t, const struct op *op);
bool mailbox_is_inside(struct txn *t, uint64_t parent, uint64_t mailbox);   /* parent is the mailbox, or somewhere in it */
enum mf_err mailbox_ops(struct txn *t, uint64_t mailbox, struct ops *ret);  /* what is to be done to it */
struct op *mailbox_find_op(const struct ops *ops, enum op_kind kind);
bool mailbox_may_be_done(const struct op *op);  /* SUBSCRIBE, UNSUBSCRIBE, which nobody looks for: it was sent, and perhaps not answered */
bool mailbox_is_being_named(const struct ops *ops);                         /* CREATE or RENAME is under way, or in doubt */
void mailbox_rename_node(struct txn *t, struct node *n, uint64_t parent, const char *name); /* its directory */
/* The server knows it by other bytes, and so all inside */
enum mf_err mailbox_set_paths(struct txn *t, struct node *n, const char *path);
char *mailbox_aside(const char *target, uint64_t mailbox);
/* Messages are on their way into it, wherever they are shown */
enum mf_err mailbox_is_landed_in(struct txn *t, uint64_t mailbox, bool *ret);
enum mf_err mailbox_remove_node(struct txn *t, struct node *n);
/* Inside which the server has all mailboxes of the user; 0: the root */
uint64_t mailbox_home(const struct txn *t);
/* What a mailbox is known by: its bytes without a delimiter at the end, INBOX (which has no case, RFC 3501 5.1) in capitals */
char *mailbox_path_of(const struct mailbox_said *said);
/* The mailbox with this path, made with every level above it that is missing. path is cut and mended on the way. */
enum mf_err mailbox_need_path(struct txn *t, char *path, const struct mailbox_said *said, struct node **ret);
enum mf_err mailbox_find_path(struct txn *t, const char *path, struct node **ret);

/* naming.c: names in one directory. A message's name is taken by a message or a mailbox there, and by one in limbo that
 * may come back after a changed UIDVALIDITY. */
enum mf_err name_for_new(struct txn *t, const struct node *n, const struct message_put *put, int64_t mtime, char ret[static NAME_MAX_BYTES + 1]);
/* own if it can be had, else its first free twin */
enum mf_err name_for_old(struct txn *t, const struct node *n, const char *own, char ret[static NAME_MAX_BYTES + 1]);
enum mf_err name_is_free(struct txn *t, const struct node *n, const char *name, bool *ret);
enum mf_err name_for_mailbox(struct txn *t, uint64_t parent, const char *wish, char ret[static NAME_MAX_BYTES + 1]);

#endif

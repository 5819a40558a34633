/* txn.h: a transaction's own view. Private to cache. Everything here runs on the thread that holds the writer lock.
 *
 * The database is changed as calls come; what memory shows (mailboxes, listings, limbo) and what is published waits in the
 * transaction until SQLite has committed. */
#ifndef MF_CACHE_TXN_H
#define MF_CACHE_TXN_H

#include "cache/private.h"

struct txn_body { uint64_t message, heir; };   /* heir 0: the body goes */

struct txn {
	struct cache *cache;
	struct db *db;
	enum mf_err failed;            /* the first failure of the database: everything after it gives the same */
	int64_t now_ns;
	struct node **nodes;           /* mailboxes met, as this transaction leaves them */
	size_t node_count, node_room;
	struct map nodes_by_id;
	bool root_names_changed, swept;
	struct listing_change *listing_changes;
	size_t listing_count, listing_room;
	struct change *changes;        /* to be published; names owned; .kind can be CHANGE_NONE */
	size_t change_count, change_room;
	struct txn_body *bodies;
	size_t body_count, body_room;
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

/* limbo.c */
uint64_t match_of(const struct message_put *put, int64_t mtime);
/* A message in limbo that is the one of put; MF_NOT_FOUND */
enum mf_err limbo_match(struct txn *t, const struct message_put *put, uint64_t match, int64_t mtime, uint64_t *ret);
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
enum mf_err row_remove(struct txn *t, uint64_t id);

/* naming.c: names in one directory. A message's name is taken by a message or a mailbox there, and by one in limbo that
 * may come back after a changed UIDVALIDITY. */
enum mf_err name_for_new(struct txn *t, const struct node *n, const struct message_put *put, int64_t mtime, char ret[static NAME_MAX_BYTES + 1]);
/* own if it can be had, else its first free twin */
enum mf_err name_for_old(struct txn *t, const struct node *n, const char *own, char ret[static NAME_MAX_BYTES + 1]);
enum mf_err name_is_free(struct txn *t, const struct node *n, const char *name, bool *ret);
enum mf_err name_for_mailbox(struct txn *t, uint64_t parent, const char *wish, char ret[static NAME_MAX_BYTES + 1]);

#endif

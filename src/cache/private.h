/* private.h: what the files of cache share.
 *
 * Locks, in the order they are taken: writer, tree, then one of pool, bodies.lock, keeper.lock. `tree` is held over memory
 * only; writer over one transaction. */
#ifndef MF_CACHE_PRIVATE_H
#define MF_CACHE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache/body.h"
#include "cache/cache.h"
#include "cache/db.h"
#include "cache/listing.h"
#include "cache/map.h"

#define READERS 4
#define ROW_ID_MAX ((1ULL << 38) - 1)  /* what an inode number has room for */
#define NAME_MAX_BYTES 255
#define KEYWORDS_MAX 1024
#define FAN_OUT 256

/* --- the table of mailboxes: tree lock ------------------------------------------------------------------------------- */

struct loading;
struct node {                          /* a mailbox in memory */
	struct mailbox m;
	char *path;                    /* its bytes at the server, INBOX in capitals: what it is known by, listed or not */
	uint64_t shelf;
	struct listing *listing;       /* NULL: not loaded. Only in the table */
	struct loading *loading;       /* somebody is loading it. Only in the table */
	/* of a transaction's copy: */
	bool dirty, said, added, removed, names_changed;
	char *old_name;                /* of one that is renamed; NULL: it is not */
	uint64_t old_parent;
	uint64_t limbo_shelf;          /* where this transaction puts what vanishes; 0: none yet */
};
void node_finish(struct node *n);
void node_copy(struct node *to, const struct node *from);   /* the mailbox, path and shelf */

struct table {
	struct map by_id, by_shelf, by_parent, by_path, by_name;
	struct timespec root_mtime;
};
uint64_t name_key(uint64_t parent, const char *name);
struct node *mailboxes_find(const struct table *t, uint64_t id);
/* The one that comes after *at, which is 0 at the beginning; NULL: that was all. In no order. By who has the tree lock or is the writer */
struct node *mailboxes_next(const struct table *t, uint32_t *at);
void mailboxes_add(struct table *t, struct node *n);            /* takes it */
void mailboxes_detach(struct table *t, struct node *n);         /* gives it back */
enum mf_err mailboxes_load(struct cache *c);
void mailboxes_finish(struct table *t);
int64_t timespec_ns(struct timespec t);
struct timespec timespec_from_ns(int64_t ns);

/* --- messages as rows -------------------------------------------------------------------------------------------------- */

struct row {
	struct entry entry;            /* entry.mailbox is not set */
	uint64_t shelf, match, modseq;
	unsigned flags;
	bool local;                    /* exists only here, and nothing is to change that */
	bool aside;                    /* has a scratch name, and the one before is remembered */
	char name[NAME_MAX_BYTES + 1], keywords[KEYWORDS_MAX + 1];
};
void row_read(sqlite3_stmt *s, struct row *ret);            /* MESSAGE_COLUMNS */

/* --- limbo and recent arrivals: writer lock ---------------------------------------------------------------------------- */

#define ARRIVALS_MAX 4096
#define ARRIVAL_AGE_MS (10 * 60 * 1000)
struct arrival { uint64_t match, id, mailbox; int64_t at_ms; };  /* id 0: none */
struct limbo {
	bool loaded;
	struct map rows;               /* match to message, of everything in limbo */
	struct map arrivals;           /* match to the place in ring + 1 of the newest such message */
	struct arrival *ring;          /* of ARRIVALS_MAX; NULL until used */
	size_t next;                   /* the place to be used next: the oldest */
};
void limbo_finish(struct limbo *l);

/* --- bodies -------------------------------------------------------------------------------------------------------------- */

struct bodies {
	int dir;                       /* of the epoch. The number stays, whatever folder it stands for */
	pthread_mutex_t lock;          /* guards the table and the counts, and is held over link, unlink and rename */
	struct map open;               /* message to struct body */
	uint64_t named;                /* how often a file was given a message's name */
	uint64_t dropped[FAN_OUT];     /* how often a message of this folder lost its body, or what it had was another's from then on */
	int64_t base_count, base_bytes;/* at the last clean stop */
	int64_t count[FAN_OUT], bytes[FAN_OUT]; /* since then; exact and without a base after a scan */
	bool counted;                  /* the counts are true: else a scan is under way or due */
	atomic_bool evicting, counting;
	int64_t evict_after_ms;        /* an eviction that could not free enough: not again before this */
	uint32_t trust;                /* how many unclean ends of the machine this cache has seen */
	atomic_bool named_temporaries; /* the file system has no unnamed ones */
	atomic_bool through_proc;      /* the kernel names an unnamed one by no other way for us */
	atomic_uint temporaries;
	_Atomic int64_t full_told_ms;  /* when it was last logged that too many are open */
};
enum mf_err bodies_open(struct cache *c);
void bodies_close(struct cache *c);                         /* a half-opened one is fine */
enum mf_err bodies_make_dirs(struct cache *c, uint64_t message); /* whatever is missing for this one */
void bodies_scan(struct cache *c);                          /* old epochs, orphans, the counts */
void bodies_total(struct cache *c, uint64_t *ret_count, uint64_t *ret_bytes);
/* After the commit that made it so: this message's body is the other's, whose message is gone. */
void bodies_adopt(struct cache *c, uint64_t from, uint64_t to);
/* Both have it, on one file; nothing where the first has none. */
void bodies_share(struct cache *c, uint64_t from, uint64_t to);
/* size bytes of fd are this message's body */
enum mf_err bodies_import(struct cache *c, uint64_t message, int fd, uint64_t size);
#define BODY_PATH_MAX 32
void body_path(uint64_t message, char ret[static BODY_PATH_MAX]);
/* lock held: */
void bodies_add(struct cache *c, uint64_t message, int files, int64_t bytes);
void bodies_unlink(struct cache *c, uint64_t message);
unsigned bodies_fan_of(uint64_t message);
bool keeper_is_stopping(struct cache *c);

/* --- the keeper: a thread for what must not happen in the foreground -------------------------------------------------- */

struct keeper {
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;          /* guards what follows */
	pthread_cond_t wake;
	bool stop, scan, checkpoint;
	int64_t flush_at_ms;           /* the WAL goes to the disk then; 0: it is there */
	struct map spooled;            /* messages whose bytes in the spool go to the disk before it */
	int64_t wal_bytes, checkpoint_at; /* at the last commit; when the next checkpoint is due */
};
enum mf_err keeper_start(struct cache *c);
void keeper_stop(struct cache *c);
void keeper_committed(struct cache *c);                     /* by the writer, after each commit */
void keeper_spooled(struct cache *c, uint64_t message);     /* new bytes in the spool */
void keeper_spool_taken(struct cache *c, const uint64_t *messages, size_t count); /* somebody else sees to it */

/* --- the cache ----------------------------------------------------------------------------------------------------------- */

struct cache {
	char *state_dir, *cache_dir, *db_path, *identity;
	unsigned account;
	struct bus *bus;
	_Atomic uint64_t body_limit, body_min_free;
	size_t listing_budget;
	bool only_deletes;
	int lock_fd;
	uint32_t epoch;
	atomic_bool listed;

	int spool_dir, rejected_dir;
	atomic_bool spooled;           /* something has been in the spool since the start: for who only reads nothing need be looked for */
	_Atomic uint64_t op_count;     /* operations that wait */
	uint64_t held_shelf;           /* of what is to be expunged; 0: none yet. Guarded by writer */

	pthread_mutex_t writer;        /* guards db and limbo, and who may change the table */
	struct db db;
	atomic_bool made_flushed;      /* db, if it was made by us, is on the disk as a file */
	struct limbo limbo;
	int64_t page_size, wal_bytes;  /* how long the WAL was after the last commit */

	pthread_mutex_t pool;          /* guards the readers */
	pthread_cond_t pool_free;
	struct db readers[READERS];
	bool reader_busy[READERS];

	pthread_rwlock_t tree;         /* guards the table and the listings */
	struct table table;
	struct node **loaded;          /* those that have a listing */
	size_t loaded_count, loaded_room;
	size_t listing_bytes;          /* of all listings */
	_Atomic uint64_t clock;        /* ticks for last_use */
	pthread_mutex_t load_lock;     /* with load_done: waiting for another's load; taken after tree */
	pthread_cond_t load_done;

	struct bodies bodies;
	struct keeper keeper;
};

/* state.c: the folder, its lock, its database */
enum mf_err state_make_dir(const char *path, struct mf_reason *why);
enum mf_err state_lock(struct cache *c, struct mf_reason *why);
enum mf_err state_open_db(struct cache *c, struct mf_reason *why);
enum mf_err state_identify(struct cache *c, struct mf_reason *why);
enum mf_err state_close_db(struct cache *c);
enum mf_err meta_number(struct db *db, const char *key, int64_t *ret);
enum mf_err meta_set_number(struct db *db, const char *key, int64_t value);

/* spool.c */
enum mf_err spool_open_dirs(struct cache *c);
void spool_close_dirs(struct cache *c);
enum mf_err spool_recover(struct cache *c);   /* what a crash or a lost index has left (recover.c) */

/* A reader's connection; NULL with *ret_error. Given back with cache_reader_done(), which ends its snapshot. */
struct db *cache_reader(struct cache *c, enum mf_err *ret_error);
void cache_reader_done(struct cache *c, struct db *db);

/* --- listings (listings.c) --------------------------------------------------------------------------------------------- */

enum listing_op { LISTING_PUT, LISTING_REMOVE, LISTING_CLEAR };
struct listing_change { enum listing_op op; struct entry entry; char *name; /* NULL: attributes only. Owned */ };

/* MF_OK: *ret with the tree lock held for reading, to be unlocked by the caller. Loads it if need be. */
enum mf_err listings_acquire(struct cache *c, uint64_t mailbox, struct listing **ret);
/* tree held for writing */
void listings_apply(struct cache *c, const struct listing_change *change);
void listings_forget(struct cache *c, struct node *n);      /* the mailbox goes */
void listings_trim(struct cache *c, const struct node *keep);

#endif

/* engine.h: what the files of the engine share. Private to sync/.
 *
 * One lock (account.lock) guards everything in memory. It is held for short steps over memory only: never over the
 * network, a cache call or a want's done(). body_has() is a leaf and may be called under it. Functions named x_locked
 * need it. Work comes as state, not as queued objects: a mailbox says what it needs, a download waits in a list, and a
 * session that has nothing to do picks the most urgent thing (jobs.c). So a lost connection forgets nothing. */
#ifndef MF_SYNC_ENGINE_H
#define MF_SYNC_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/cancel.h"
#include "net/traffic.h"
#include "sync/account.h"
#include "sync/ranges.h"
#include "sync/readahead.h"
#include "sync/reconcile.h"
#include "sync/id_table.h"

/* --- wants (wants.c) ----------------------------------------------------------------------------------------------- */

enum want_kind { WANT_PARTS, WANT_BODY };
struct want {
	struct want *next, *previous;   /* among account.open; next alone in account.fired */
	enum want_kind kind;
	want_done *done;
	void *context;
	int64_t since_ms;               /* monotonic */
	enum mf_err result;
	bool fired;                     /* left account.open: cannot be cancelled any more */
	size_t parts;                   /* WANT_PARTS: what is still missing */
	bool most;                      /* most of a mailbox's list is enough, or more of it */
	bool populate, verify;          /* once the mailboxes are listed: what each of them is asked for */
	struct download *download;      /* WANT_BODY */
	struct want *next_waiter;       /* among download.waiters */
	struct body *body;
	uint64_t offset, length;
};
struct part {                           /* one of the things that a want waits for */
	struct part *next;
	struct want *want;
};

struct want *want_create_locked(struct account *a, enum want_kind kind, want_done *done, void *context);
void part_add_locked(struct part **list, struct want *want);
/* Every want of the list has one part less; a failure stays its result. Those that are complete are fired. */
void parts_done_locked(struct account *a, struct part **list, enum mf_err result);
void parts_most_done_locked(struct account *a, struct part **list);    /* likewise of those that are content with most */
void want_fire_locked(struct account *a, struct want *want, enum mf_err result);
void wants_fail_locked(struct account *a, enum mf_err result);  /* all that are open */
/* A connection was silent for too long: readers who asked before then have waited enough. */
void wants_expire_locked(struct account *a, int64_t before_ms);
void wants_deliver(struct account *a);                          /* calls done() of those fired; no lock held */

/* --- mailboxes ------------------------------------------------------------------------------------------------------ */

enum priority { PRIORITY_NONE, PRIORITY_BACKGROUND, PRIORITY_LOOKED_AT, PRIORITY_PERSON };

struct mailbox_work {
	uint64_t id;
	char *raw;
	enum priority pending;          /* a check is asked for */
	enum change_method method;      /* of it: the most thorough one asked for */
	bool running;                   /* a session is at it; what is asked for meanwhile is done after */
	enum change_method running_method;
	bool most_is_here;              /* while it runs, of a first reading: see account_want_most() */
	bool renumbering;               /* its messages have stepped aside, and are being matched with new ones */
	bool is_inbox;
	bool cold;                      /* not complete yet */
	enum sync_policy policy;
	uint32_t max_messages;
	unsigned serial;                /* of the LIST that named it last */
	unsigned asks_serial;           /* of the one that tells its name: nobody asks for it before */
	uint32_t weight;                /* messages that a check may bring, roughly */
	uint32_t seen_messages;         /* at the server, when it was last synchronised; 0: not known */
	int64_t made_ms;                /* of this struct */
	int64_t checked_ms;             /* the last check began; 0: never in this process */
	int64_t read_ms;                /* the last one that went well began */
	bool unread;                    /* the server has it, and did not let it be read the last time */
	unsigned cuts;                  /* connections in a row that were lost while the server was at it */
	int64_t rest_until_ms;          /* after some of them: only who waits for it has it read; 0: it does not rest */
	unsigned doubt_serial;          /* replay.c: this one is among those looked at */
	unsigned insane;                /* short checks in a row after which the index was not what the server said */
	unsigned disturbed;             /* looks in a row into which answers to our own writes came */
	bool read_anew;                 /* messages were missing after a comparison in full too; all was asked for, once until it is right again */
	struct part *waiters;           /* for the next check that begins; or the one running if all they want is completeness */
	struct part *running_waiters;   /* for the one that runs */
	struct download *parked;        /* downloads that wait for the mailbox to be numbered anew */
	/* bodies in the background */
	bool populate;
	uint64_t populate_after;        /* message ids up to this one have been looked at */
	size_t populate_open;           /* downloads under way for it */
	struct part *populate_waiters;
};

struct mailbox_work *work_get_locked(struct account *a, uint64_t mailbox);  /* made at first use */
/* A session takes it, with who waits for it so far. pending is clear from here on, so that nothing asked for later is lost. */
void work_begin_locked(struct mailbox_work *w, enum change_method method);
void work_want_locked(struct account *a, struct mailbox_work *w, enum priority priority, enum change_method method);
bool work_rests_locked(const struct mailbox_work *w);       /* nothing but PRIORITY_PERSON is taken of it now */
void work_forget_cuts_locked(struct account *a);            /* by another way it may be another matter */
void work_populate_locked(struct account *a, struct mailbox_work *w, uint64_t after);
void work_remove_locked(struct account *a, struct mailbox_work *w);

/* --- downloads (bodies.c) -------------------------------------------------------------------------------------------- */

enum queue { QUEUE_PERSON, QUEUE_AHEAD, QUEUE_POPULATE, QUEUE_COUNT, QUEUE_NONE };
enum download_kind { DOWNLOAD_WHOLE, DOWNLOAD_RANGES };

struct download {
	struct download *next, *previous;   /* in its queue; next alone in mailbox_work.parked */
	enum queue queue;                   /* NONE: not waiting to be sent */
	enum download_kind kind;
	uint64_t message, mailbox, size;
	uint32_t uid;
	unsigned in_flight;                 /* commands under way for it */
	unsigned tries;                     /* connections lost over it */
	bool parked, populating;
	bool resting;                       /* among account.resting */
	bool done;                          /* finished, or not worth remembering */
	bool whole_after;                   /* its size was a lie: fetch it whole when no command is under way */
	struct body *body;                  /* ranges: from the start; whole: from the first byte on, by the session */
	struct ranges ranges;
	struct want *waiters;
};
struct queue_list { struct download *first, *last; size_t count; };

struct fetch_run;                           /* one remote_fetch on one session (bodies.c) */

/* --- the connection (link.c) ------------------------------------------------------------------------------------------ */

struct link {
	enum link_state state;
	enum mf_err error;
	struct mf_reason reason;
	int64_t since_s, next_try_s;        /* wall clock */
	int64_t next_try_ms;                /* monotonic; INT64_MAX: never by itself */
	unsigned failures;                  /* since a connection lasted, or a person asked for one */
	unsigned quick_retries;             /* likewise: connections made anew at once */
	int64_t up_ms;                      /* when it was made, monotonic */
	bool listed, attempted;             /* for account_wait_listed */
	bool forget_credentials;
	/* the fallback (fallback.c): INBOX alone, by POP3, since IMAP cannot be reached */
	bool fallback;
	int64_t imap_down_ms;               /* since when IMAP fails, monotonic; 0: it does not */
	int64_t imap_try_ms;                /* when it is tried again meanwhile */
	int64_t imap_pause_ms;              /* between the last tries */
	struct mf_reason imap_reason;       /* why the last one failed */
	bool pop3_refused;                  /* the credentials, by POP3: not again until a person acts */
};

void link_init(struct account *a, bool offline);
void link_up_locked(struct account *a);
void link_listed_locked(struct account *a);
/* The worker's connection was lost, or (was_connected false) could not be made. */
void link_failed_locked(struct account *a, bool was_connected, enum mf_err error, const char *reason);
int64_t backoff_ms(unsigned failures, unsigned random);  /* 1 s .. 5 min, each +-25 % */
bool link_lasted(int64_t up_ms);        /* a connection that was made then (monotonic) and is lost now was worth making */

/* --- when IMAP cannot be reached (fallback.c) ------------------------------------------------------------------------- */

/* The worker could not reach IMAP. Whether POP3 should be tried now. */
bool fallback_is_due_locked(struct account *a, enum mf_err error);
/* How long the worker may wait before it tries IMAP anew, so that the fallback comes in time; at most ms */
int64_t fallback_cut_wait_locked(const struct account *a, int64_t ms);
void fallback_begin_locked(struct account *a, const char *reason);
void fallback_end_locked(struct account *a);                    /* IMAP answers */
/* Somebody wants to connect anew: IMAP first. Since when it fails is not forgotten, else who asks often would put POP3 off for ever. */
void fallback_retry_locked(struct account *a);
/* During a fallback: when IMAP is to be tried again; INT64_MAX: there is no fallback */
int64_t fallback_next_try_locked(const struct account *a);
void fallback_tried_locked(struct account *a, const char *reason); /* ... in vain */
/* What is not INBOX is out of reach during a fallback. */
static inline bool fallback_reaches(bool fallback, bool is_inbox) { return !fallback || is_inbox; }

/* --- sessions (session.c) ---------------------------------------------------------------------------------------------- */

struct session {
	struct account *account;
	unsigned roles;                 /* its own: enum connection_role bits */
	pthread_t thread;
	struct cancel cancel;           /* raised to take the connection down */
	int wake_fd;                    /* eventfd: look for work */
	/* guarded by account.lock */
	bool connected, idle, idling_watch;
	bool reset;                     /* the connection is being taken down on purpose */
	bool failed;                    /* could not connect: the worker does its work meanwhile */
	bool useless;                   /* the server cannot push: no connection for that */
	unsigned failures;              /* since a connection lasted */
	int64_t up_ms, next_try_ms;
	unsigned caps;
	struct account_progress progress;
	struct fetch_run *fetch;
	/* its thread's alone */
	struct remote *remote;
	struct kept *kept;              /* NULL: nothing is */
	int64_t sleep_offset_ms;        /* CLOCK_BOOTTIME - CLOCK_MONOTONIC at the last look */
	int64_t quota_ms;               /* the last time that it asked */
	bool watch_begun;
};

void session_start(struct session *s);
void session_wake_locked(struct session *s);
void session_drain(struct session *s);                         /* the work is about to be looked for */
void sessions_wake_locked(struct account *a, unsigned roles);  /* the ones that have any of the roles */
void session_reset_locked(struct session *s);                  /* takes the connection down, whatever it does */
unsigned session_roles_locked(const struct session *s);        /* own, and those of connections that are not to be had */
void session_progress(struct session *s, uint64_t total, bool bytes, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* --- bodies that stay open for their reader (kept.c); on the session's thread alone -------------------------------------- */

void kept_begin(struct session *s);                     /* as many may be open as there are descriptors for now */
void kept_add(struct session *s, struct body *b);
void kept_forget(struct session *s);

/* --- what to do next (jobs.c) -------------------------------------------------------------------------------------------- */

enum task_kind { TASK_NONE, TASK_LIST, TASK_SYNC, TASK_FETCH, TASK_QUOTA, TASK_REPLAY, TASK_KEEP };
struct task {
	enum task_kind kind;
	uint64_t *mailboxes;            /* TASK_SYNC; task_finish() frees */
	size_t count;
};
/* Chooses, and marks what was chosen as under way. *ret_wait_ms: with TASK_NONE, when to look again at the latest. */
void jobs_take_locked(struct session *s, struct task *ret, int64_t *ret_wait_ms);
void task_finish(struct task *t);
/* A person waits for something that this session should do before it goes on with long background work. */
bool jobs_person_waits_locked(struct session *s);
bool jobs_bulk_is_wanted_locked(struct account *a);

/* --- what is not to stay at a POP3 server (keeping.c) ------------------------------------------------------------------ */

#define KEEPING_AT_ONCE 256
struct keeping {
	bool wanted;                    /* a pass over INBOX is due, or under way: */
	uint64_t after;                 /* message ids up to this one have been looked at; */
	uint64_t fetched[KEEPING_AT_ONCE]; /* these are being fetched, and looked at once more */
	size_t fetched_count;
	size_t untold;                  /* noted in the journal, and not told to replay */
};
void keeping_want_locked(struct account *a, const struct mailbox_work *w);  /* the mailbox has been synchronised */
bool keeping_is_due_locked(const struct account *a);
bool keeping_pins_locked(const struct account *a, uint64_t message);         /* its body has been fetched to be stored */
/* Before a synchronisation: what is here already and is not to stay at the server is stored, whether the server still shows it
 * or not. */
void keeping_store_what_is_here(struct account *a);
enum mf_err keeping_run(struct session *s);

/* --- what was changed here (replay.c) --------------------------------------------------------------------------------- */

/* Of operations that were sent on a connection that is gone: not looked into; their mailboxes are being read; what has
 * happened has been found; what has not is looked for once more in a while; there are none. */
enum doubts { DOUBTS_OPEN, DOUBTS_LOOKED_AT, DOUBTS_SEEN, DOUBTS_RESTING, DOUBTS_NONE };
/* doubts.c: the mailboxes where something may have arrived are read up to now, and then */
enum mf_err doubts_look(struct account *a);
void doubts_open(struct account *a);                                    /* there are some on this connection too: that is next */
/* what was not found there has not happened: all of it can be sent again; where a server may still be at it, only after another look. */
enum mf_err doubts_settle(struct account *a, int64_t late_ms);
void replay_connected_locked(struct account *a);
void replay_look_at_locked(struct account *a, int64_t at_ms);           /* monotonic; what is earlier stays */
void replay_news_locked(struct account *a);                             /* a mailbox, or the list of them, has been read */
bool replay_is_due_locked(const struct account *a, int64_t now);
int64_t replay_wait_ms_locked(const struct account *a, int64_t now);    /* INT64_MAX: until woken */
enum mf_err replay_run(struct session *s);

/* --- the account ---------------------------------------------------------------------------------------------------------- */

#define SESSIONS_MAX 3
#define RECENT_MS 30000
#define RESTING_MAX 16
#define FINISHED_MAX 4096

struct account {
	const struct account_config *_Atomic config; /* whoever needs several settings that fit together takes it once */
	struct cache *cache;
	struct bus *bus;
	struct remote *(*make_remote)(void *context, unsigned roles, struct cancel *cancel);
	void *make_context;
	struct connector *connector;    /* NULL with another make_remote */

	pthread_mutex_t lock;
	bool started, stopping, sessions_gone;
	struct link link;
	pthread_cond_t listed_cond;
	struct session sessions[SESSIONS_MAX];
	size_t session_count;

	struct want *open;              /* list of wants not fired */
	struct want *fired, *fired_last;
	pthread_cond_t fired_cond;
	bool delivers;                  /* who holds the lock calls wants_deliver() next */
	pthread_t keeper;               /* delivers wants that were settled by a caller's thread */

	struct id_table mailboxes;         /* id -> struct mailbox_work */
	bool index_is_new;              /* no mailbox is known that could be asked for */
	uint64_t inbox;                 /* its id; 0: not known yet */
	bool list_pending, list_running;
	bool list_unreadable;           /* the last one, in part: said once */
	bool list_left_out;             /* names in it that cannot be shown: likewise */
	enum priority list_priority;
	struct part *list_waiters, *list_running_waiters;
	int64_t listed_ms;              /* when the last LIST began, monotonic; 0: not on this connection */
	int64_t list_begun_ms;          /* likewise, wall clock */
	bool cycle_open;                /* a LIST has been done, what it found dirty is not all synchronised */
	int64_t search_from_ms;         /* no LIST for what is astray before */
	unsigned list_serial;

	struct id_table downloads;         /* message -> struct download */
	struct queue_list queues[QUEUE_COUNT];
	uint64_t finished[FINISHED_MAX];        /* messages whose bodies became whole lately: a ring */
	uint64_t finished_count;
	struct download *resting[RESTING_MAX];
	size_t resting_next;
	struct readahead *ahead;
	unsigned settled;               /* answers to our own writes: a look under way does not know what they have brought into the index */
	bool sizes_lie, no_qresync;
	_Atomic uint64_t since_evict;   /* bytes downloaded since */

	int64_t replay_at_ms;           /* monotonic: look into the journal then; INT64_MAX: nothing waits */
	int64_t replay_first_ms;        /* when the first of the changes came that wait for others; 0: none do */
	bool replay_hurry;              /* somebody waits until the server has it all */
	enum doubts doubts;
	int64_t doubts_again_ms;        /* monotonic: the other look, not before then; 0: the first has not been */
	struct part *settle_waiters;
	uint64_t hung_op;               /* the operation over which the last connection was lost, */
	unsigned hung_times;            /* and how many were in a row; the worker's alone */

	struct keeping keeping;

	bool quota_known, quota_is_old; /* old: to be asked for again when there is nothing else to do */
	struct quota quota;
	int64_t rate_ms;
	uint64_t rate_bytes, rate;
	struct traffic traffic;
	_Atomic uint64_t fetched_messages, fetched_bytes, connections;
};

/* --- what sessions do; each on its own thread, no lock held -------------------------------------------------------------- */

enum mf_err listing_fetch(struct session *s);
enum mf_err syncmail_changes(struct session *s, const uint64_t *mailboxes, size_t count);
void syncmail_cycle(struct account *a);                 /* if nothing is left to do: what vanished and was not met elsewhere is gone */
void syncmail_search(struct account *a);                /* has the mailboxes listed, if something is astray (cache/journal.h) */
enum mf_err bodies_fetch(struct session *s);
bool push_can_wait(const struct session *s);
enum mf_err push_wait(struct session *s, int64_t timeout_ms);

bool bodies_want(struct account *a, struct body *body, uint64_t offset, uint64_t length, want_done *done, void *context,
                 enum mf_err *ret_result, struct want **ret);
void bodies_passed_locked(struct account *a, struct body *body, uint64_t offset, uint64_t length); /* read without waiting */
void lookahead_note(struct account *a, uint64_t mailbox, uint64_t message, bool missing);   /* lookahead.c; no lock held */
void bodies_waiter_left_locked(struct account *a, struct want *want);
void bodies_resolve_parked(struct account *a, uint64_t mailbox);   /* no lock held */
void bodies_resolve_all(struct account *a);                       /* the same for every mailbox: the journal has gone on */
void bodies_drop_idle_locked(struct account *a);        /* downloads that nobody waits for; the connection is gone */
void bodies_finish_locked(struct account *a);
/* Queues a download that nobody waits for yet; false: there is one already. The caller has seen that the body is not on the
 * disk after it read account.finished_count, which is `since`: what was finished between does not count as missing. */
bool bodies_ahead_locked(struct account *a, const struct entry *e, enum queue queue, uint64_t since);
void bodies_evict(struct account *a);

/* What a connection's failure means for who waits: the few that have a meaning of their own, else MF_OFFLINE. */
enum mf_err want_error(enum mf_err e);

struct connector;                                       /* connect.c: sessions by the config */
enum mf_err connector_create(const struct account_config *config, struct cache *cache, struct traffic *traffic, struct connector **ret, struct mf_reason *why);
void connector_destroy(struct connector *c);
/* Sessions that are made from now on go by these settings. On an error nothing has changed. */
enum mf_err connector_configure(struct connector *c, const struct account_config *config, struct mf_reason *why);
struct remote *connector_make(void *connector, unsigned roles, struct cancel *cancel);
/* By POP3 in place of IMAP; the numbers are INBOX's, as IMAP has them (0: not known). NULL: there is no such server any more. */
struct remote *connector_make_fallback(struct connector *c, uint32_t uidvalidity, uint32_t uidnext, struct cancel *cancel);
void connector_learnt(struct connector *c);             /* saves what the last session learnt, if it did */
void connector_forget_password(struct connector *c);

#endif

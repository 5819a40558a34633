/* account.h: the engine of one account: keeps the cache what the server is, and fetches what readers want.
 *
 * Threads inside: one per connection (worker, watch, bulk; fewer when `connections` says so). Everything declared here
 * may be called from any thread, never waits for the network, and never calls back before it returns. */
#ifndef MF_SYNC_ACCOUNT_H
#define MF_SYNC_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bus.h"
#include "base/err.h"
#include "cache/body.h"
#include "cache/cache.h"
#include "config/config.h"
#include "sync/remote.h"

struct account;

enum connection_role { ROLE_WORKER = 1, ROLE_WATCH = 2, ROLE_BULK = 4 };  /* bits: with few connections one has several */

struct account_options {
	const struct account_config *config;    /* outlives the account, and so does what account_configure() brings */
	struct cache *cache;                    /* outlives the account */
	struct bus *bus;
	bool offline;                           /* never connects until account_connect() */
	/* NULL: by config (imap, pop3). Tests hand in a maker of memory sessions. Called on the thread that will own it. */
	struct remote *(*make_remote)(void *context, unsigned roles, struct cancel *cancel);
	void *make_context;
};

/* Settings as account_create() would take them: the files that they name can be read. */
enum mf_err account_check_config(const struct account_config *config, struct mf_reason *why);
enum mf_err account_create(const struct account_options *options, struct account **ret, struct mf_reason *why);
void account_start(struct account *a);      /* threads begin; after the last fork */
/* Stops within a second or two whatever the network does; every want that is open is answered MF_CANCELLED. */
void account_destroy(struct account *a);    /* NULL is fine */
/* As they are now; the pointer stays good, and what it points to the same, when others take their place. */
const struct account_config *account_config(const struct account *a);
/* Other settings of the same account (account_config_identity). What can apply now does, what is about connecting from the next
 * connection on; `connections` never. On an error nothing has changed. */
enum mf_err account_configure(struct account *a, const struct account_config *config, struct mf_reason *why);
struct cache *account_cache(const struct account *a);

/* --- the connection ---------------------------------------------------------------------------------------------- */

enum link_state {
	LINK_CONNECTING,   /* the first attempt, or one that a person asked for: wants wait for its outcome */
	LINK_ONLINE,
	LINK_OFFLINE,      /* failed; tried again by itself. Wants fail at once */
	LINK_WAITING,      /* a person must act: wrong password, account disconnected by command */
};
struct link_info {
	enum link_state state;
	enum mf_err error;             /* why it is not online; MF_OK for a `disconnect` */
	struct mf_reason reason;
	int64_t since_s, next_try_s;   /* wall clock; next_try 0: none planned */
	bool pop3;                     /* by POP3: the account has nothing else, or IMAP cannot be reached */
	/* only in the second case: why not, and when it is tried again (wall clock) */
	struct mf_reason imap_reason;
	int64_t imap_try_s;
};
void account_link(struct account *a, struct link_info *ret);
void account_connect(struct account *a);            /* try now (SIGUSR1, addresses changed, a command); forgets a refused password */
void account_disconnect(struct account *a);         /* until account_connect() */
/* Waits until the first attempt has succeeded in listing the mailboxes, or has failed. For `mount` and `--once`. */
enum mf_err account_wait_listed(struct account *a, int64_t timeout_ms, struct mf_reason *why);

/* --- wants: what a reader waits for -------------------------------------------------------------------------------- */

struct want;
/* Called exactly once, from one of the account's threads with no lock held, unless want_cancel() came first. */
typedef void want_done(void *context, enum mf_err result);

/* Each returns true when the answer is here already: *ret_result is it, done is not called and *ret is NULL. Otherwise
 * done will be called, and *ret, written before done can run, is good for want_cancel() until done returns. done may run
 * before this function returns. */

/* The mailbox's list is complete. Offline with a list that is not: MF_OFFLINE (the caller shows what is known). */
bool account_want_mailbox(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);
/* The same for who reads the list from its beginning: also when more than half of a mailbox that is read for the first time has come,
 * and the rest is a matter of a moment. */
bool account_want_most(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);
/* The same for who has come to the end of what there was then: also when there may be more, which is to be looked at again. The answer
 * is here already only where there is nothing to wait for. */
bool account_want_more(struct account *a, uint64_t mailbox, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);
/* body_has(body, offset, length): *body is what cache_body_create() gave for the message. Concurrent wants share one
 * download; neighbours are read ahead as the account sees a walk. MF_STALE: expunged. MF_OFFLINE at once when offline. */
bool account_want_body(struct account *a, struct body *body, uint64_t offset, uint64_t length, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);
/* A read was answered without a want, since body_has() said so: tells where the reader is, so that what comes next is under
 * way before it is missed. Cheap; good for every such read, most needed for the first of each open file. */
void account_passed(struct account *a, struct body *body, uint64_t offset, uint64_t length);
/* true: done has not been called and never will be. false: it has been, or is being called. The download goes on for others. */
bool want_cancel(struct account *a, struct want *want);

/* --- work in the background ---------------------------------------------------------------------------------------- */

/* The mailbox was looked at: check it in the background unless that was done in the last 30 seconds. */
void account_touch(struct account *a, uint64_t mailbox);
/* Synchronise now: these mailboxes (count 0: all), with every body if populate. done when everything asked for is here. */
bool account_want_sync(struct account *a, const uint64_t *mailboxes, size_t count, bool populate, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);
/* The index against the server: all UIDs and flags of every mailbox compared anew. As `mailfs check`. */
bool account_want_verify(struct account *a, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);

/* Something was put into the journal (cache/journal.h): it goes to the server with what follows at once. */
void account_journal_changed(struct account *a);
/* Something was taken back, or set otherwise: the mailboxes are listed again too. */
void account_refresh(struct account *a);
/* The server has all that was changed here before. MF_DENIED: but for what waits for a person. An expunge that is delayed is
 * not waited for. */
bool account_want_settled(struct account *a, want_done *done, void *context, enum mf_err *ret_result, struct want **ret);

/* Who puts copies of what is sent into Sent. Found out with the first ones (struct append.look_ms in cache/journal.h), and remembered
 * while the account has the same servers. */
enum copies { COPIES_UNKNOWN, COPIES_BY_SERVER, COPIES_BY_US };
enum copies account_copies(struct account *a);
void account_copies_found(struct account *a);       /* one that the server has put there was seen another way */

/* --- what is going on ----------------------------------------------------------------------------------------------- */

struct account_progress {           /* of the work under way; all zero when idle */
	char doing[80];                 /* "listing mailboxes", "INBOX: headers", "3 messages" */
	uint64_t done, total;           /* of unit */
	bool bytes;                     /* the unit is bytes, else messages */
	uint64_t rate;                  /* bytes per second, lately */
	size_t queued;                  /* jobs behind it */
};
void account_progress(struct account *a, struct account_progress *ret);
struct account_counters { uint64_t received, sent, connections, fetched_messages, fetched_bytes; }; /* received, sent: on the wire */
void account_counters(struct account *a, struct account_counters *ret);
/* The IMAP server said that it has this capability when it was connected last */
bool account_has_capability(struct account *a, const char *name);
bool account_quota(struct account *a, struct quota *ret); /* false: the server has none, or it is not known yet */
void account_quota_matters(struct account *a);            /* something was refused for it: it is asked for anew */

#endif

/* pop3.h: the "pop3" back-end of remote.h (RFC 1939, 2449, 2595, 3206, 5034).
 *
 * One mailbox, INBOX. No flags, no push, no parts. A POP3 session sees the maildrop as it was at its login, and many servers
 * lock it meanwhile; so a connection lasts for a verb and what follows at once, and the next verb logs in again. wait()
 * must be called when there is nothing to do: it is where the connection is given back.
 *
 * Messages are numbered here: see cache/uidls.h. The back-end is told where the numbers are kept. */
#ifndef MF_SYNC_POP3_POP3_H
#define MF_SYNC_POP3_POP3_H

#include "cache/uidls.h"
#include "net/transport.h"
#include "auth/credentials.h"
#include "sync/remote.h"

/* What one session learns and the next one of the same account may rely on: when the server was last logged in to and how
 * long it wants to be left alone, and whether its sizes are right. Thread-safe. */
struct pop3_memory;
struct pop3_memory *pop3_memory_create(void);
void pop3_memory_destroy(struct pop3_memory *memory);

/* Where the numbers are: cache_uidls and cache_uidls_store, or a test's own. */
struct pop3_store {
	enum mf_err (*load)(void *context, struct uidls *ret);
	enum mf_err (*save)(void *context, const struct uidls_change *change);
	void *context;
};

struct pop3_options {
	struct transport_options transport;   /* .implicit_tls or not */
	bool require_starttls;                /* pop3:// with TLS: STLS, or no connection */
	struct credentials *credentials;      /* shared, as transport.tls */
	unsigned auth;                        /* enum auth_mechanism bits that may be used; USER and PASS count as PLAIN */
	struct pop3_memory *memory;           /* outlives the session */
	struct pop3_store store;              /* likewise */
	/* The same mailbox by IMAP, when this is its substitute: where the UIDLs show its numbers they are used, and nothing is
	 * stored; else the numbers are this back-end's, with another UIDVALIDITY. 0: not known, or there is no IMAP */
	uint32_t imap_uidvalidity, imap_uidnext;
	int64_t linger_ms;                    /* how long a connection is kept for a next verb */
	uint64_t message_max;                 /* the largest message accepted; 0: no limit */
	bool read_only;                       /* remote_can_write() is false; else EXPUNGE in INBOX can be done, and nothing else */
	bool clear_allowed;                   /* as in sync/imap/imap.h */
};

struct remote *pop3_remote_create(const struct pop3_options *options);  /* copies the options; does not connect yet */
/* Tests: what connects, in place of transport_open(); called for every connection. */
typedef enum mf_err pop3_dial(void *context, const struct transport_options *options, struct transport **ret, struct mf_reason *why);
struct remote *pop3_remote_dial(const struct pop3_options *options, pop3_dial *dial, void *context);

#endif

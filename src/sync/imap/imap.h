/* imap.h: the "imap" back-end of remote.h.
 *
 * Over net/transport.h an engine of our own numbers commands, writes several at once and hands every response, line by
 * line and in wire order, to libetpan's parser. A catch-all extension turns what libetpan cannot parse into "skipped". */
#ifndef MF_SYNC_IMAP_IMAP_H
#define MF_SYNC_IMAP_IMAP_H

#include "auth/credentials.h"
#include "net/transport.h"
#include "sync/remote.h"

/* What one session learns and the next one of the same account may rely on: capabilities after login, so that commands
 * are pipelined behind AUTHENTICATE, and what has proved broken there. Thread-safe. Survives restarts as text. */
struct imap_memory;
struct imap_memory *imap_memory_create(const char *text);  /* NULL or unreadable text: knows nothing */
char *imap_memory_text(struct imap_memory *memory);        /* the caller frees */
void imap_memory_destroy(struct imap_memory *memory);

struct imap_options {
	struct transport_options transport;   /* .implicit_tls or not */
	bool require_starttls;                /* imap:// with TLS; refuses PREAUTH and a server without STARTTLS */
	struct credentials *credentials;      /* shared, as transport.tls */
	/* enum auth_mechanism bits that may be used. On an encrypted connection PLAIN is taken first (one round trip, with
	 * SASL-IR; others take two or three), in clear one that does not tell the password; a token's wherever it is allowed. */
	unsigned auth;
	struct imap_memory *memory;           /* outlives the session */
	bool idle;                            /* IDLE and NOTIFY may be used */
	bool compress;                        /* COMPRESS=DEFLATE may be used: sessions for metadata, not for bodies */
	uint64_t message_max;                 /* the largest literal accepted; 0: 4 GiB - 1 */
	bool list_ahead;                      /* remote_mailboxes() will be the first verb: its commands go out behind the login */
	/* A password or token may go over a connection that is not encrypted, because the user said so. To a loopback address
	 * it may anyway; otherwise such a login fails with MF_TLS. */
	bool clear_allowed;
};

/* To be called once, before the first thread that uses a session. */
void imap_global_init(void);
struct remote *imap_remote_create(const struct imap_options *options);  /* copies the options; does not connect yet */
struct remote *imap_remote_adopt(const struct imap_options *options, int fd);  /* tests: over a connected descriptor, now its own */

#endif

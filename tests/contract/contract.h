/* contract.h: what every back-end of sync/remote.h must do, as one suite. A back-end's test program gives a server that it
 * can change behind the session's back, and includes contract.c, since each test program is built from one file. */
#ifndef MF_TESTS_CONTRACT_H
#define MF_TESTS_CONTRACT_H

#include <stddef.h>
#include <stdint.h>

#include "sync/remote.h"

struct contract_server {
	void *context;
	/* a fresh session, not logged in */
	struct remote *(*make)(void *context, struct cancel *cancel);
	/* another client; each makes the mailbox be what it says before it returns. Mailboxes are named as the server does. */
	void (*create)(void *context, const char *raw);              /* an empty one; replaces one of that name */
	void (*remove)(void *context, const char *raw);
	void (*deliver)(void *context, const char *raw, const char *data, size_t len);
	void (*expunge)(void *context, const char *raw, uint32_t uid);
	void (*flag)(void *context, const char *raw, uint32_t uid);  /* sets \Seen and \Flagged */
	void (*renumber)(void *context, const char *raw);            /* NULL: cannot */
	const char *mailbox;                                         /* the one to play with, and */
	const char *mailbox2;                                        /* another */
};

int contract_run(const struct contract_server *server);

#endif

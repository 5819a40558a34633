/* submit.h: the client of a submission server (RFC 6409, RFC 5321): one connection, any number of messages.
 *
 * One thread owns it; another one that wants it to stop raises transport.cancel. STARTTLS is demanded where it was asked
 * for, and nothing that was said in clear counts after it. PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, CHUNKING and AUTH are
 * used where they are offered. Replies are limited: 128 lines of 2,000 bytes each; a longer one is MF_PROTOCOL. */
#ifndef MF_SMTP_SUBMIT_H
#define MF_SMTP_SUBMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/credentials.h"
#include "base/err.h"
#include "net/transport.h"
#include "smtp/compose.h"

struct smtp;

struct smtp_times {              /* RFC 5321 4.5.3.2; each 0: its value there */
	int64_t reply_ms;        /* greeting and commands: 5 minutes */
	int64_t block_ms;        /* 64 KiB of a message without progress: 3 minutes */
	int64_t dot_ms;          /* the answer to the whole message: 10 minutes. A shorter one makes duplicates */
};
struct smtp_options {
	struct transport_options transport;  /* io_timeout_ms is not used: see times */
	bool start_tls;
	bool clear_allowed;          /* a password may go over a connection that is not encrypted, other than loopback */
	unsigned auth;               /* enum auth_mechanism bits */
	struct credentials *credentials;     /* outlives the connection; NULL: no authentication */
	struct smtp_times times;
	bool adopt;                  /* tests: adopted is a connected descriptor, to be owned */
	int adopted;
};

/* From nothing to a server that takes mail. MF_OFFLINE (and 4xx), MF_TIMEOUT, MF_TLS, MF_AUTH, MF_PROTOCOL, MF_CANCELLED. A
 * password that was refused is asked for once more where credentials.h says so. */
enum mf_err smtp_open(const struct smtp_options *options, struct smtp **ret, struct mf_reason *why);
/* Says QUIT, waits two seconds at most for the answer, and frees. NULL is fine. */
void smtp_close(struct smtp *s);
void smtp_destroy(struct smtp *s);           /* frees at once */
/* Every server takes as many bytes (RFC 5321 4.5.3.1.7): less is not believed, and each message has its own answer. */
#define SMTP_SIZE_LEAST 65536
uint64_t smtp_size_max(const struct smtp *s);  /* bytes of a message; 0: not told */

enum verdict {
	VERDICT_SENT,            /* the server has taken the message for those recipients that say so */
	VERDICT_REFUSED,         /* for good: it is no use to try again */
	VERDICT_LATER,           /* not sent, surely */
	VERDICT_UNKNOWN,         /* the connection was lost after the end of the message and before the answer */
};
struct recipient_result {
	enum verdict verdict;    /* never VERDICT_UNKNOWN unless that of the message is */
	char text[256];          /* the server's words with its codes, printable: "550 5.1.1 no such user" */
};
struct submit_request {
	const struct envelope *envelope;
	char *const *recipients; /* of the envelope, those who have not got it yet */
	size_t recipient_count;
	uint64_t id;             /* of the message for reports of what becomes of it (ENVID); 0: none */
	int fd;                  /* the prepared file */
	/* Called when everything but the end has left: the final dot, or the last octet of BDAT LAST. Anything but MF_OK: the end
	 * is not sent, and the message surely is not. */
	enum mf_err (*before_dot)(void *context);
	void (*progress)(void *context, uint64_t bytes);  /* of the message that have left; NULL */
	void *context;
};
struct submit_result {
	enum verdict verdict;
	struct mf_reason reason;       /* why it is not sent; what the server said when it took it */
	struct recipient_result *recipients;   /* as in the request */
	size_t recipient_count;
};
/* MF_OK: whatever the verdict, the connection is good for the next message. Else it is dead, and *ret is filled all the same. */
enum mf_err smtp_submit(struct smtp *s, const struct submit_request *request, struct submit_result *ret);
void submit_result_finish(struct submit_result *result);

#endif

/* session.h: commands and replies of one SMTP connection. Private to submit.c and session.c. */
#ifndef MF_SMTP_SESSION_H
#define MF_SMTP_SESSION_H

#include "smtp/submit.h"

#define REPLY_LINES_MAX 128
#define REPLY_LINE_MAX 2000
#define REPLY_TEXT_MAX 2048

struct reply {
	int code;                        /* 200 to 599 */
	char text[REPLY_TEXT_MAX];       /* of all lines, printable; the enhanced code is in front */
};

enum smtp_extension { SMTP_STARTTLS = 1, SMTP_PIPELINING = 2, SMTP_8BITMIME = 4, SMTP_UTF8 = 8, SMTP_DSN = 16, SMTP_CHUNKING = 32, SMTP_SIZE = 64 };

struct smtp {
	struct smtp_options options;
	struct transport *transport;
	enum mf_err dead;                /* the first failure; every later call returns it */
	struct mf_reason why;
	unsigned extensions, mechanisms;
	uint64_t size_max;
	bool dirty;                      /* a transaction was begun and not ended: RSET before the next */
	size_t start, end;               /* of what was read and not used */
	char buffer[4096];
};

/* The connection is of no use any more. */
enum mf_err session_fail(struct smtp *s, enum mf_err e, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* A command, without its CRLF; session_flush sends it */
enum mf_err session_put(struct smtp *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum mf_err session_put_bytes(struct smtp *s, const void *data, size_t len);
enum mf_err session_flush(struct smtp *s);
/* The next reply, within ms from now. 421 is a failure: MF_OFFLINE with its text, *ret filled all the same. */
enum mf_err session_reply(struct smtp *s, int64_t ms, struct reply *ret);
/* one command and its reply */
enum mf_err session_ask(struct smtp *s, struct reply *ret, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Whether the server has said something already. */
bool session_has_reply(struct smtp *s);
int64_t session_reply_ms(const struct smtp *s);
/* what every EHLO line adds */
void session_take_extensions(struct smtp *s, const char *line);

static inline bool reply_is(const struct reply *r, int hundreds) { return r->code / 100 == hundreds; }

#endif

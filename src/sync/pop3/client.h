/* client.h: one POP3 client: connections one after another, each with its login and its view of the maildrop.
 *
 * Private to sync/pop3. Commands go out several at once where the server has PIPELINING; answers come in that order. */
#ifndef MF_SYNC_POP3_CLIENT_H
#define MF_SYNC_POP3_CLIENT_H

#include "base/buf.h"
#include "sync/pop3/maildrop.h"
#include "sync/pop3/pop3.h"

#define LINE_MAX_POP3 8192      /* of an answer, and of what is no message in one */
#define IN_SIZE (64U << 10)
/* Commands under way: some 48 KB, which the buffers of a line hold, so that both can always write. Where they may not have
 * (silence until the deadline) it is the smaller number until the end of the process. */
#define WINDOW 4096
#define WINDOW_NARROW 32

enum pop3_cap { POP3_STLS = 1, POP3_TOP = 2, POP3_USER = 4, POP3_PIPELINING = 8, POP3_AUTH_RESP_CODE = 16, POP3_RESP_CODES = 32, POP3_UIDL = 64 };

struct pop3_caps {
	bool known;             /* the server has answered CAPA */
	unsigned caps;          /* enum pop3_cap */
	unsigned sasl;          /* enum auth_mechanism */
	uint32_t login_delay_s; /* 0: none */
	bool delay_differs;     /* by user: to be asked again after the login */
};

struct pop3 {
	struct remote remote;   /* first: a struct remote * is a struct pop3 * */
	struct pop3_options options;
	char *host;
	pop3_dial *dial;
	void *dial_context;

	struct transport *transport;  /* NULL: not connected now */
	struct pop3_caps caps;
	char *timestamp;        /* of the greeting, for APOP; NULL: none */
	bool in_transaction;    /* logged in: QUIT ends more than the connection */
	int64_t login_ms;       /* monotonic, of this connection's login */
	bool used;              /* its view of the maildrop has been used for news */
	bool dovecot;           /* by its greeting: what comes behind PASS is not lost */
	/* UIDL went out behind PASS; or LIST and UIDL; or before these STAT. Their answers are not read yet */
	enum { AHEAD_NOTHING, AHEAD_NAMES, AHEAD_NAMES_AND_SIZES, AHEAD_COUNT_AND_LISTS } ahead;
	uint32_t top_ahead;     /* TOP of this message, and of those below it, went out before the lists were read */
	size_t tops_ahead;      /* so many; 0: none */
	bool no_top, top_works; /* learnt: the server has no TOP; it has */
	bool no_uidl;           /* likewise UIDL */
	bool sizes_asked;       /* LIST, on this connection */

	char *in;               /* IN_SIZE bytes: what was received and not taken yet */
	size_t in_start, in_end;
	enum { AT_START, IN_LINE, BEHIND_CR } text_state;  /* of a message being received */
	char line[LINE_MAX_POP3 + 1];  /* the last line, without its end */
	size_t line_len;

	struct uidls numbers;   /* as stored; ascending by uid */
	bool numbers_loaded;
	bool unsaved;           /* numbers is ahead of what is stored, and of that .gone is to go */
	uint32_t *gone;
	size_t gone_count;
	struct maildrop drop;   /* this connection's view; count 0 and not listed: none yet */
	bool listed;
	bool borrowed;          /* the numbers are IMAP's */

	enum mf_err dead;       /* MF_OK while the session is of use */
	struct mf_reason why;   /* of the last failure */
};

/* --- the session (session.c) ----------------------------------------------------------------------------------------- */

/* Records the reason; the session is dead when the scope is CONNECTION or ACCOUNT, or it was interrupted. Returns e. */
enum mf_err pop3_fail(struct pop3 *s, enum mf_err e, const char *format, ...) __attribute__((format(printf, 3, 4)));
enum mf_err pop3_fail_transport(struct pop3 *s, enum mf_err e);
/* Sleeps; MF_CANCELLED when the stop sign is raised. wake_fd -1: none */
enum mf_err pop3_sleep(struct pop3 *s, int64_t ms, int wake_fd, bool *ret_woken);

/* memory: how long until the next login is allowed */
int64_t pop3_memory_wait_ms(struct pop3_memory *m);
void pop3_memory_login(struct pop3_memory *m, int64_t delay_ms);   /* now; delay 0: as known */
bool pop3_memory_sizes_lie(struct pop3_memory *m);
void pop3_memory_size_lied(struct pop3_memory *m);
bool pop3_memory_is_narrow(struct pop3_memory *m);
void pop3_memory_narrow(struct pop3_memory *m);

/* --- the wire (wire.c) ----------------------------------------------------------------------------------------------- */

/* Gathers a command; it goes out at the next wait for an answer, or now. */
enum mf_err pop3_send(struct pop3 *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
enum mf_err pop3_send_now(struct pop3 *s);
enum mf_err pop3_send_secret(struct pop3 *s, const char *command, const char *secret);  /* command: "PASS " or "" */
/* One line into s->line. */
enum mf_err pop3_line(struct pop3 *s);
/* The first line of an answer: *ret_ok says whether it was +OK. Anything else than +OK and -ERR is MF_PROTOCOL. */
enum mf_err pop3_answer(struct pop3 *s, bool *ret_ok);
/* A line of a list; *ret_end: the dot. Dots are taken away. */
enum mf_err pop3_list_line(struct pop3 *s, bool *ret_end);
/* A message's bytes, some at a time, without the dots; valid until the next call. *ret_end: there were no more. */
void pop3_text_begin(struct pop3 *s);
enum mf_err pop3_text(struct pop3 *s, const char **ret, size_t *ret_len, bool *ret_end);
/* What is in "[...]" at the beginning of a refusal (RFC 2449 8): compared without regard to case, whole or up to "/" */
bool pop3_code_is(const struct pop3 *s, const char *code);
const char *pop3_words(const struct pop3 *s, char *to, size_t size);   /* of the answer, printable */
bool pop3_nothing_is_buffered(const struct pop3 *s);
size_t pop3_window(const struct pop3 *s);                              /* commands that may be under way */

/* --- connecting (login.c) -------------------------------------------------------------------------------------------- */

/* Connects and logs in, after waiting for as long as the server wants to be left alone. */
enum mf_err pop3_connect(struct pop3 *s);
/* QUIT, answered, and the end of the connection. *ret_ok: the answer was +OK (deletions have been carried out). */
enum mf_err pop3_quit(struct pop3 *s, bool *ret_ok);
void pop3_drop(struct pop3 *s);      /* the end of the connection, without a word */
/* The connection that there is, else a new one. */
enum mf_err pop3_need_connection(struct pop3 *s);
/* The server wants to be left alone for longer than anybody can wait (LOGIN-DELAY). */
bool pop3_is_too_early(const struct pop3 *s);
/* A view of the maildrop that is not older than this call, or than a login just before it; or the one that there is, where the
 * server allows no other now. */
enum mf_err pop3_need_news(struct pop3 *s);

/* --- the maildrop (listing.c, top.c) ---------------------------------------------------------------------------------- */

enum mf_err pop3_load_numbers(struct pop3 *s);
/* UIDL, and what else it takes to give every message its number: s->drop. The numbers are stored when it returns. */
enum mf_err pop3_list(struct pop3 *s);
/* Asks for what that needs, and leaves the answers to it. For who has just sent PASS. */
enum mf_err pop3_list_ahead(struct pop3 *s);
/* STAT's answer, where that went out: the number of messages; else 0, as with a server that gives none. */
enum mf_err pop3_count_ahead(struct pop3 *s, uint32_t *ret);
/* pop3_list(), but not stored yet: pop3_top() does that while its answers are on their way, pop3_store() in any case. */
enum mf_err pop3_number(struct pop3 *s);
void pop3_forget_unsaved(struct pop3 *s);             /* without storing it */
enum mf_err pop3_need_sizes(struct pop3 *s);          /* LIST, once per connection, if need be */
enum mf_err pop3_store(struct pop3 *s);               /* what was learnt of messages since pop3_list() */
/* The same of messages whose numbers are stored: what is known of them for the time when the server renames them. Nobody waits for
 * it, so it is done at the end of the connection, or when the maildrop begins to be held for long. */
void pop3_store_learnt(struct pop3 *s);
/* The header blocks of these messages (places in the maildrop), in this order. header NULL: could not be had; nothing of
 * it stays valid. taken() may fail: that ends the verb. */
typedef enum mf_err pop3_top_taken(void *context, struct drop_item *item, const char *header, size_t len);
enum mf_err pop3_top(struct pop3 *s, const uint32_t *places, size_t count, pop3_top_taken *taken, void *context);

/* A maildrop that is seen for the first time: asks for the header blocks of the newest (0: all) messages before the lists have come.
 * Whoever wants them in that order gets them by pop3_top(). Before pop3_number(). */
enum mf_err pop3_top_ahead(struct pop3 *s, uint32_t newest);

/* --- the verbs -------------------------------------------------------------------------------------------------------- */

enum mf_err pop3_changes(struct pop3 *s, const struct mailbox_since *since, size_t count, const struct change_sink *sink);
enum mf_err pop3_write(struct pop3 *s, const struct remote_write *writes, size_t count, const struct write_sink *sink);
enum mf_err pop3_fetch(struct pop3 *s, const struct fetch_source *source, const struct fetch_sink *sink);

#endif

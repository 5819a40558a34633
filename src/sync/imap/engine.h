/* engine.h: one IMAP connection: commands written several at once, responses dispatched in wire order.
 *
 * Commands are sent from a verb's own loop only, never from a handler: a name that needs a synchronising literal makes
 * the sender wait, and responses are dispatched meanwhile. After anything of scope CONNECTION or ACCOUNT the session is
 * dead: every call returns that failure and nothing is sent. */
#ifndef MF_SYNC_IMAP_ENGINE_H
#define MF_SYNC_IMAP_ENGINE_H

#include "base/buf.h"
#include "sync/imap/caps.h"
#include "sync/imap/frame.h"
#include "sync/imap/imap.h"
#include "sync/imap/parse.h"
#include "sync/imap/uidset.h"

struct imap;
struct imap_command;
/* The command's tagged reply has come. An error stops the verb. */
typedef enum mf_err imap_done(struct imap *s, struct imap_command *c, const struct imap_cond *cond);

struct imap_command {
	struct imap_command *next;
	unsigned serial;         /* the number of its tag, never 0 */
	const char *what;        /* "SELECT": for reasons and traces */
	imap_done *done;         /* NULL: nobody minds */
	void *owner;             /* the verb, or the part of it, that sent it */
	size_t index;            /* the owner's */
	uint32_t first, last;    /* likewise */
	bool said;               /* likewise: what an untagged response tells of it has come */
	char *selects;           /* a SELECT or EXAMINE of this mailbox */
	bool writes;             /* SELECT, so that the mailbox can be changed */
	bool idle;               /* IDLE: over only after DONE */
};

struct imap_selection {
	char *raw;               /* NULL: none */
	struct mailbox_status status;
	bool read_only, no_modseq;
	bool writable;           /* by SELECT: it may be changed, unless read_only */
	bool own;                /* of a SELECT under way: what comes now is about the new mailbox (RFC 7162 3.2.11) */
};

enum imap_news { NEWS_MESSAGES = 1, NEWS_OTHER = 2 };

struct imap {
	struct remote remote;    /* first: a struct remote * is a struct imap * */
	struct imap_options options;
	char *host;
	int adopted;             /* tests: the descriptor to use instead of connecting; -1 */

	struct transport *transport;
	struct frame_reader reader;
	struct imap_frame frame;
	struct imap_parser *parser;
	enum mf_err dead;        /* MF_OK while alive */
	struct mf_reason why;    /* of the last failure */

	imap_caps caps;
	bool caps_told;          /* since the flag was last cleared */
	uint64_t append_limit;   /* APPENDLIMIT=... (RFC 7889): no larger message is taken, in any mailbox; 0: not said */
	bool qresync;            /* enabled */
	bool cyrus;              /* so it greeted: what it tells as MAILBOXID in a list (3.6) is whatever lies in its memory */
	bool authenticated;
	unsigned compress_serial; /* COMPRESS is under way: nothing may be sent before its answer. 0: it is not */
	struct imap_command *head, **tail;
	size_t under_way;
	unsigned last_tag;

	struct buf out;          /* the command being built, without its tag */
	size_t out_stops[8];     /* where a synchronising literal's bytes begin */
	size_t out_stop_count;
	size_t out_secret;       /* from here on it is secret; SIZE_MAX: nothing is */
	enum mf_err out_error;   /* an argument that cannot be sent */

	bool plus;               /* a continuation request has come */
	struct buf plus_text;

	struct imap_selection selected, opening;
	unsigned news;           /* enum imap_news: of the selected mailbox, not told yet */
	bool news_list;          /* the list of mailboxes */
	bool idle;
	bool no_idle, notify;    /* IDLE was refused, or never lasts; NOTIFY is on */
	int64_t idle_ms;         /* when the last one began, monotonic */
	unsigned brief_idles;    /* in a row that the server has ended at once */
	char *watched;           /* what wait() was last asked for, and its state when last told */
	struct mailbox_status watched_status;
	struct buf pushed;       /* names, NUL-terminated, of other mailboxes that NOTIFY told of */

	struct imap_lister *lister; /* a LIST sent ahead by login(), for mailboxes() */

	/* of the verb under way */
	void *verb;
	enum mf_err (*on_data)(struct imap *s, void *verb, struct imap_data *data);
	bool muted;              /* the verb has failed; what comes is only counted */
};

/* --- the session --------------------------------------------------------------------------------------------------- */

/* Records the reason; kills the session when the scope is CONNECTION or ACCOUNT. Returns e. */
enum mf_err imap_fail(struct imap *s, enum mf_err e, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The transport has died: takes its error and reason. */
enum mf_err imap_fail_transport(struct imap *s, enum mf_err e);
/* The status for a NO, BAD or BYE: by its response code (RFC 5530), else MF_DENIED, MF_PROTOCOL, MF_OFFLINE. A server
 * that throttles or is not available is MF_OFFLINE, which ends the session. */
enum mf_err imap_cond_error(struct imap *s, const struct imap_cond *cond, const char *what);
enum mf_err imap_cond_classify(const struct imap_cond *cond);

/* A verb begins: nothing else is heard but it. IDLE goes on until its first command, which DONE goes out with. */
enum mf_err imap_verb_begin(struct imap *s, void *verb, enum mf_err (*on_data)(struct imap *, void *, struct imap_data *));
/* ... and ends with e: what is under way is waited for and thrown away if e is about an item or mailbox only. */
enum mf_err imap_verb_end(struct imap *s, enum mf_err e);

/* --- sending ------------------------------------------------------------------------------------------------------- */

void imap_put(struct imap *s, const char *format, ...) __attribute__((format(printf, 2, 3)));  /* our own words */
void imap_put_string(struct imap *s, const char *string, size_t len);   /* a string: quoted, else a literal (RFC 9051 4.3) */
void imap_put_secret(struct imap *s, const char *string, size_t len);   /* likewise; neither traced nor left in memory */
void imap_put_hidden(struct imap *s);                                   /* what is put from here on is secret */
/* Sends what has been put, as the command described (copied; selects is taken over; what, done, owner, index, first, last, idle are the
 * caller's).
 * With an error of scope ITEM (an argument with CR, LF or NUL) nothing was sent. */
enum mf_err imap_send(struct imap *s, const struct imap_command *command, unsigned *ret_serial);
/* The next bytes of a literal that ends the command sent last; and its line's end, when they are all there. */
enum mf_err imap_send_bytes(struct imap *s, const void *data, size_t len);
/* A line that answers a continuation request; secret. */
enum mf_err imap_send_line(struct imap *s, const char *line, size_t len);
/* The mailbox selected in the form that the command's .writes says: SELECT, else EXAMINE. The one place that decides it.
 * parameter: "" or " (QRESYNC (...))". */
enum mf_err imap_send_select(struct imap *s, const char *raw, const char *parameter, const struct imap_command *command);
/* Before STATUS: that of the selected mailbox would be this session's view of it, which may be old (RFC 9051 6.3.11). Leaves
 * it, or where UNSELECT is not there brings the view up to date, which costs a round trip. */
enum mf_err imap_refresh_view(struct imap *s);
/* the mailbox that commands sent now will find selected; NULL: none, or it depends */
const char *imap_selected_ahead(const struct imap *s);

/* --- receiving ----------------------------------------------------------------------------------------------------- */

enum mf_err imap_pump(struct imap *s);                               /* one response */
enum mf_err imap_pump_ready(struct imap *s);                         /* what is there already, without waiting */
enum mf_err imap_pump_all(struct imap *s);                           /* until nothing is under way */
enum mf_err imap_pump_until(struct imap *s, unsigned serial);        /* until that command is over */
/* Until the continuation request (its text is in s->plus_text), or the command's end: *ret_plus false. */
enum mf_err imap_pump_plus(struct imap *s, unsigned serial, bool *ret_plus);

/* --- the verbs, each in its file ------------------------------------------------------------------------------------ */

enum mf_err imap_login(struct imap *s, struct mf_reason *why);
enum mf_err imap_mailboxes(struct imap *s, const struct mailbox_sink *sink);
enum mf_err imap_changes(struct imap *s, const struct mailbox_since *since, size_t count, const struct change_sink *sink);
enum mf_err imap_fetch(struct imap *s, const struct fetch_source *source, const struct fetch_sink *sink);
enum mf_err imap_wait(struct imap *s, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink);
enum mf_err imap_quota(struct imap *s, struct quota *ret);
enum mf_err imap_write(struct imap *s, const struct remote_write *writes, size_t count, const struct write_sink *sink);

/* mailboxes() in two halves, so that LIST goes out behind the login: what comes is kept until it is asked for */
enum mf_err imap_lister_send(struct imap *s);
void imap_lister_data(struct imap_lister *lister, struct imap_data *data);
void imap_lister_destroy(struct imap_lister *lister);
void imap_push_note(struct imap *s, const struct imap_data *data);   /* NOTIFY's LIST and STATUS */
void imap_push_overflowed(struct imap *s);   /* from now on NOTIFY tells nothing (RFC 5465 5.8): to be asked for anew */
void imap_watch_selected(struct imap *s);    /* selected anew, not by wait(): what is not as known of it is news */
void imap_watch_learnt(struct imap *s, const char *raw, const struct mailbox_status *status); /* changes() told all up to it */

#endif

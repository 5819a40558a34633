/* memory.h: the "memory" back-end of remote.h: a server's state in RAM, for tests of whatever stands on remote.h.
 *
 * A test makes a server, fills it, hands memory_remote_create() to what it tests, and changes things while sessions are
 * connected. Everything may be called from any thread. Capability bits can be taken away, calls can be made to fail, to
 * block, or to be cut in the middle, and a line can be given a round trip time and a bandwidth. */
#ifndef MF_SYNC_MEMORY_H
#define MF_SYNC_MEMORY_H

#include "sync/remote.h"

struct memory_server;
struct memory_server *memory_server_create(void);       /* with an empty INBOX and every capability */
void memory_server_destroy(struct memory_server *m);    /* after every session; NULL is fine */
struct remote *memory_remote_create(struct memory_server *m, struct cancel *cancel);
/* fits account_options.make_remote; the context is the server */
struct remote *memory_remote_make(void *server, unsigned roles, struct cancel *cancel);

/* --- what the server holds; by another client, as it were --------------------------------------------------------- */

void memory_mailbox_add(struct memory_server *m, const char *raw, unsigned flags, enum special_use use);
void memory_mailbox_remove(struct memory_server *m, const char *raw);
bool memory_mailbox_rename(struct memory_server *m, const char *raw, const char *to);   /* and those below it; false: there is none, or the name is taken */
/* Returns the UID; 0: no such mailbox. date: the internal date. */
uint32_t memory_deliver(struct memory_server *m, const char *raw, const void *data, size_t len, int64_t date, unsigned flags);
bool memory_expunge(struct memory_server *m, const char *raw, uint32_t uid);
bool memory_flag(struct memory_server *m, const char *raw, uint32_t uid, unsigned flags, const char *keywords);
uint32_t memory_move(struct memory_server *m, const char *raw, uint32_t uid, const char *to);   /* the UID there; 0: failed */
void memory_renumber(struct memory_server *m, const char *raw);        /* another UIDVALIDITY, other UIDs, the same messages */
void memory_claim_size(struct memory_server *m, const char *raw, uint32_t uid, uint64_t size);  /* RFC822.SIZE is a lie from now on */
/* MYRIGHTS says these letters from now on (NULL: nothing): told, and kept to for reading */
void memory_rights(struct memory_server *m, const char *raw, const char *letters);
void memory_quota(struct memory_server *m, uint64_t used, uint64_t limit);

/* --- how it behaves ------------------------------------------------------------------------------------------------ */

enum memory_verb { MEMORY_LOGIN, MEMORY_MAILBOXES, MEMORY_CHANGES, MEMORY_FETCH, MEMORY_WAIT, MEMORY_QUOTA, MEMORY_WRITE, MEMORY_ANY, MEMORY_ANSWER, MEMORY_VERBS };

void memory_caps(struct memory_server *m, unsigned caps);              /* enum remote_cap bits, for sessions made later */
void memory_line(struct memory_server *m, int64_t round_trip_ms, uint64_t bytes_per_s);  /* 0: at once, no limit */
void memory_login_result(struct memory_server *m, enum mf_err e);      /* of every login from now on; MF_OK: works */
void memory_session_limit(struct memory_server *m, unsigned limit);    /* logins beyond it are MF_OFFLINE; 0: none */
/* The n-th call of the verb from now on (1: the next) fails with e before it does anything, and the session is dead. */
void memory_fail_call(struct memory_server *m, enum memory_verb verb, unsigned n, enum mf_err e);
/* The connection is cut after so many more bytes of bodies. */
void memory_cut_fetch(struct memory_server *m, uint64_t bytes);
/* The connection is cut after so many more answers (calls of sinks) of any verb; a write whose answer is cut off was done. */
void memory_cut_answers(struct memory_server *m, unsigned answers);
/* An APPEND whose answer is cut off is done when its mailbox has been read the next time. ms: what remote.late_ms is from now on */
void memory_late(struct memory_server *m, int64_t ms);
/* So many writes of one call are done before the first of them is answered, as Dovecot does what comes together. 1: each by itself */
void memory_together(struct memory_server *m, size_t count);
/* Every write of this kind ends with e from now on, and does nothing; MF_OK: works. */
void memory_refuse_writes(struct memory_server *m, enum write_kind kind, enum mf_err e);
void memory_append_limit(struct memory_server *m, uint64_t bytes);     /* larger messages are MF_TOO_BIG; nobody is told before */
void memory_tell_append_limit(struct memory_server *m, const char *raw, uint64_t bytes); /* of this mailbox, as LIST tells; 0: none */
void memory_copy_part(struct memory_server *m, size_t count);          /* a COPY of more goes out in parts, each of which may fail */
void memory_hide_vanished(struct memory_server *m, bool hide);         /* QRESYNC does not tell what was expunged */
void memory_hide_newest(struct memory_server *m, const char *raw, size_t count); /* are counted and listed, and not told of */
void memory_whole_always(struct memory_server *m, bool always);        /* where a part of a message is asked for, all of it comes */
void memory_unreadable(struct memory_server *m, const char *raw, bool unreadable); /* nobody can make out what LIST says of it */
void memory_empty_status(struct memory_server *m, bool empty);         /* LIST brings no numbers */
void memory_tell_no_copies(struct memory_server *m, bool silent);      /* COPY and MOVE do not say where messages are, whatever the caps */
/* Calls of the verb wait at their beginning until memory_release(); only the session's stop sign gets them out. */
void memory_block(struct memory_server *m, enum memory_verb verb);
void memory_release(struct memory_server *m);
/* Likewise after so many more answers (calls of sinks) of any verb. */
void memory_pause(struct memory_server *m, unsigned answers);
bool memory_await_blocked(struct memory_server *m, int64_t timeout_ms);  /* until a call is blocked; false: none came */
void memory_drop_sessions(struct memory_server *m);                    /* every connection is cut now */

/* --- what has been asked of it --------------------------------------------------------------------------------------- */

unsigned memory_calls(struct memory_server *m, enum memory_verb verb); /* begun, since the last memory_forget_calls() */
uint64_t memory_bytes_fetched(struct memory_server *m);                /* of bodies */
unsigned memory_messages_fetched(struct memory_server *m);             /* bodies that were begun, windows too */
unsigned memory_mailboxes_checked(struct memory_server *m);            /* items of MEMORY_CHANGES */
unsigned memory_sessions(struct memory_server *m);                     /* logged in now */
unsigned memory_answers(struct memory_server *m);                      /* calls of sinks */
void memory_forget_calls(struct memory_server *m);

#endif

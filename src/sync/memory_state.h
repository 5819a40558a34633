/* memory_state.h: the inside of the memory back-end. Private to memory*.c. */
#ifndef MF_SYNC_MEMORY_STATE_H
#define MF_SYNC_MEMORY_STATE_H

#include "sync/memory.h"

struct memory_bytes {                    /* shared by the server and whoever sends it: never changes */
	size_t users;                    /* guarded by the server's lock */
	size_t len, header_len;
	char data[];
};
struct memory_message {
	uint32_t uid;
	unsigned flags;
	char *keywords;
	uint64_t modseq, claim, number;  /* number: the same in every mailbox it is moved to */
	int64_t date;
	struct memory_bytes *bytes;
};
struct memory_gone { uint32_t uid; uint64_t modseq; };
struct memory_mailbox {
	struct memory_mailbox *next;
	char *raw;
	unsigned flags;
	enum special_use use;
	uint64_t append_limit;           /* told, and kept to; 0: none */
	unsigned rights;                 /* told; 0: none are */
	bool unreadable;                 /* LIST's line */
	size_t hidden;                   /* the newest so many are counted and listed, and not told of */
	uint32_t uidvalidity, uidnext;
	uint64_t modseq, number;         /* number: whatever it is called */
	struct memory_message *messages; /* ascending UIDs */
	size_t count, capacity;
	struct memory_gone *gone;
	size_t gone_count, gone_capacity;
};
struct memory_fault { unsigned countdown; enum mf_err error; };

struct memory_session {
	struct remote remote;            /* first */
	struct memory_session *next;
	struct memory_server *server;
	struct cancel *cancel;
	unsigned caps;
	bool logged_in;
	enum mf_err dead;
	const char *reason;
	/* push; guarded by the server's lock */
	int event_fd;
	bool dropped;
	char *watched;                   /* NULL: none; with PUSH_ALL every mailbox */
	struct memory_notice { struct memory_notice *next; bool new_only; bool list; char raw[]; } *notices, **notices_end;
};

struct memory_server {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct memory_mailbox *mailboxes;        /* in the order of making */
	struct memory_session *sessions;
	uint32_t next_validity;
	uint64_t next_number;
	unsigned caps, session_limit, logged_in;
	int64_t round_trip_ms;
	uint64_t bytes_per_s;
	int64_t line_free_ns;            /* when the last byte sent will have passed the line */
	enum mf_err login_result;
	struct memory_fault faults[MEMORY_VERBS];
	uint64_t cut_bytes;              /* UINT64_MAX: never */
	unsigned cut_answers;            /* UINT32_MAX: never */
	unsigned pause_answers;          /* likewise */
	bool hide_vanished, empty_status, tell_no_copies, whole_always;
	enum mf_err refusals[WRITE_UNSUBSCRIBE + 1];
	uint64_t append_limit;
	int64_t late_ms;                 /* what sessions made later are told; 0: nothing is late */
	struct memory_late { char *raw; struct memory_message message; } late;   /* raw NULL: none */
	size_t together;                 /* writes that are done before one is answered */
	size_t copy_part;                /* messages that one command copies; SIZE_MAX: all */
	bool blocking[MEMORY_VERBS];
	unsigned blocked;
	int release_fd;                  /* eventfd: readable while nothing is to block */
	struct quota quota;
	unsigned calls[MEMORY_VERBS], fetched, checked, answers;
	uint64_t bytes_fetched;
};

struct memory_mailbox *memory_find_locked(struct memory_server *m, const char *raw);
struct memory_message *memory_message_locked(struct memory_mailbox *b, uint32_t uid);
void memory_status_locked(const struct memory_mailbox *b, unsigned caps, struct mailbox_status *ret);
void memory_mailbox_add_locked(struct memory_server *m, const char *raw, unsigned flags, enum special_use use);
bool memory_mailbox_rename_locked(struct memory_server *m, const char *raw, const char *to);
void memory_mailbox_remove_locked(struct memory_server *m, const char *raw);
/* Takes over what the message owns; returns its new UID. */
uint32_t memory_append_locked(struct memory_mailbox *b, const struct memory_message *message);
bool memory_take_locked(struct memory_mailbox *b, uint32_t uid, struct memory_message *ret);  /* out of b, with what it owns */
void memory_message_finish_locked(struct memory_message *message);
void memory_catch_up_locked(struct memory_server *m, const char *raw);  /* the mailbox has been read: what was late is done */
void memory_mailbox_free_locked(struct memory_mailbox *b);
void memory_notify_locked(struct memory_server *m, const char *raw, bool new_only);           /* those that watch */
struct memory_bytes *memory_bytes_create(const void *data, size_t len);                       /* copies; one user */
void memory_bytes_unref(struct memory_server *m, struct memory_bytes *bytes);

/* Each verb begins with this: counts it, blocks, fails as told. */
enum mf_err memory_enter(struct memory_session *s, enum memory_verb verb);
/* An answer passes the line: waits as long as it takes, counts, cuts. */
enum mf_err memory_answer(struct memory_session *s, size_t bytes);
enum mf_err memory_die(struct memory_session *s, enum mf_err e, const char *reason);
enum mf_err memory_travel(struct memory_session *s, unsigned round_trips);
enum mf_err memory_sleep_until(struct memory_session *s, int64_t ns);
int64_t memory_now_ns(void);

enum mf_err memory_changes(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink);
enum mf_err memory_write(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink);
enum mf_err memory_fetch(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink);

#endif

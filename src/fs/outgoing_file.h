/* outgoing_file.h: what outgoing.c, outgoing_file.c, outgoing_change.c and outgoing_notes.c share. Private to them. Everything with the lock held. */
#ifndef MF_FS_OUTGOING_FILE_H
#define MF_FS_OUTGOING_FILE_H

#include <pthread.h>
#include <sys/queue.h>

#include "fs/outgoing.h"

/* A draft has a name. What has none and is not in the queue is gone: it stays as long as somebody has it open. */
struct file {
	TAILQ_ENTRY(file) link;
	uint64_t number;
	uint64_t id;                 /* in the queue; 0: not */
	char *name;                  /* of a draft; NULL: it is none */
	int fd;                      /* its bytes, while somebody has the draft open; -1. Good behind that too: see file_to_draft() */
	unsigned opens, writers, closing;
	bool dirty;                  /* written since somebody closed */
	bool exported;               /* written last by a server of files, which closes when it suits it: not whole until it is renamed */
	bool whole;                  /* taken back from the queue, and not written since */
	enum mf_err broken;          /* a write failed with that: what is there is a piece, and is not sent */
	bool has_date;
	unsigned notify;             /* enum dsn_notify, as somebody has set it */
	struct timespec mtime;       /* shown of what is in the queue, so that it does not change when it gets there */
	uint64_t size;               /* as last seen */
	bool no_text;                /* its error text was removed */
	char *left_name, *left_text; /* of one that was in failed/ and is forgotten: its error text was not */
};

struct outgoing {
	struct outbox *outbox;
	pthread_mutex_t lock;        /* guards all */
	TAILQ_HEAD(files, file) files;
	int drafts;                  /* the folder */
};

struct file *file_add(struct outgoing *o, uint64_t number);
void file_drop(struct outgoing *o, struct file *f);
void file_let_go(struct outgoing *o, struct file *f);               /* closes and drops what nobody needs */
/* Made for what is in the queue; NULL: none */
struct file *file_by_number(struct outgoing *o, uint64_t number);
struct file *file_by_name(struct outgoing *o, const char *name);    /* a draft */
/* Of what is in the queue; made where there is none yet. after: where to begin looking, for those who go through all; NULL */
struct file *file_of_id(struct outgoing *o, uint64_t id, struct file *after);
/* false: it is not there, or sent and only waits for its copy, which is no file any more */
bool file_item(struct outgoing *o, uint64_t id, struct outbox_item *ret);
uint64_t file_size(const struct outgoing *o, const struct file *f);

/* The editor's lock that keeps this name; NULL */
const char *file_lock_of(const struct outgoing *o, const char *name);
void file_set_hold(struct outgoing *o, uint64_t id, const char *name);
void file_lock_changed(struct outgoing *o, const char *lock);       /* a file with this name came or went */

enum mf_err file_need_fd(struct outgoing *o, struct file *f);
void file_drop_name(struct outgoing *o, struct file *f);
/* The message leaves the queue, and its bytes are a draft with this name. Whoever has it open goes on with that. */
enum mf_err file_to_draft(struct outgoing *o, struct file *f, const char *name);
enum mf_err file_take_back(struct outgoing *o, struct file *f);     /* the same with its own name */
/* Into the queue under this name and number (0: a new one). *ret_id: there it is, sendable or (KEEP_FAILED) not; 0: nowhere. REPLACES:
 * what waits under that name goes in the same step; MF_BUSY, MF_DENIED: it cannot be taken back. */
enum { PUT_KEEP_FAILED = 1, PUT_REPLACES = 2 };
enum mf_err file_put(struct outgoing *o, struct file *f, const char *name, uint64_t number, unsigned how, uint64_t *ret_id);
void file_became(struct outgoing *o, struct file *f, uint64_t id);  /* the draft is in the queue now, and nowhere else */
/* A draft that can be sent is put under its own name, or a twin of it: that may be taken by one that came another way. */
enum mf_err file_accept(struct outgoing *o, struct file *f, bool keep_failed);

/* --- outgoing_notes.c: what a draft does not say itself, in STATE/outbox-drafts.notes: its number, and of what its sender is to be told.
 * Where that is lost the draft gets another number. */

void notes_save(struct outgoing *o);                                /* of all drafts, after each change of one */
void notes_load(struct outgoing *o);                                /* into the drafts; .number 0 stays where there is none. A number may be that of a message in the queue as well */

#endif

/* queue.h: what outbox.c, outbox_look.c, queue.c and sending.c share. Private to them. */
#ifndef MF_SMTP_QUEUE_H
#define MF_SMTP_QUEUE_H

#include <pthread.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "smtp/outbox.h"

enum entry_mark { MARK_NONE, MARK_DOT, MARK_MAYBE };          /* DOT: the end may have left */
enum entry_copy { COPY_NONE, COPY_WANTED, COPY_ASKED, COPY_FILED };  /* ASKED: in memory only: file_copy() is at it */
enum entry_recipient { RECIPIENT_PENDING, RECIPIENT_SENT, RECIPIENT_REFUSED };

struct recipient_state {
	enum entry_recipient state;
	char *text;              /* the server's last words about it; may be NULL */
};

struct entry {
	TAILQ_ENTRY(entry) link;
	uint64_t id, number;
	uint64_t replaces;       /* the one whose name it took; if that is found at a start, it goes. 0: none */
	char *name;
	int64_t put_s, changed_s, due_s, first_s;   /* first_s: when the server was first asked; 0: not yet */
	unsigned attempts;
	enum entry_mark mark;
	enum entry_copy copy;
	int64_t copy_at_s;       /* not asked again before; in memory only, as */
	bool copy_first;         /* nobody has been asked for it yet */
	unsigned notify_asked;   /* enum dsn_notify, by put or outbox_set_notify(): before what its field says */
	bool unfit;              /* never fit to be sent: there is no prepared file */
	bool released, held, sending, left;         /* in memory only; left: sent, and no longer in outbox/ */
	uint64_t original_size;
	struct envelope envelope;
	struct recipient_state *recipients;         /* as envelope.recipients */
	char *reason;
};

#define SUBSCRIBERS_MAX 4
#define REMOVED_MAX 1024
#define SENT_MAX 1024

struct outbox {
	struct outbox_options options;
	const struct account_config *_Atomic config;   /* the settings as they are now */
	int folder;              /* a descriptor of STATE_DIR/outbox */
	char *path;
	struct tls_context *tls; /* whoever sends has it alone; NULL: no encryption */
	const struct account_config *access_config;    /* of which tls and credentials are made */
	struct cancel cancel;
	pthread_t thread;
	bool has_thread;
	struct { outbox_changed *changed; void *context; } subscribers[SUBSCRIBERS_MAX];
	size_t subscriber_count;
	pthread_mutex_t lock;    /* guards what follows. The state file of an entry that is `sending` is written by the sending
	                          * thread alone, without the lock */
	pthread_cond_t turned;
	struct credentials *credentials;
	TAILQ_HEAD(entries, entry) entries;
	uint64_t last_id, size_max;
	uint64_t next_number, reserved;      /* numbers below `reserved` may be given: that is on the disk */
	uint64_t removed[REMOVED_MAX];       /* the last ones that left unsent */
	size_t removed_count;
	char *sent_names[SENT_MAX];          /* the last ones that left sent */
	size_t sent_count;
	uint64_t sent, flying, flying_of;   /* as outbox_counts */
	bool closing, woken, running, past_dot;
	struct outbox_link link;
	int64_t link_delay_s;
};

/* --- queue.c: files ---------------------------------------------------------------------------------------------------- */

enum mf_err queue_open_folder(struct outbox *o, struct mf_reason *why);
enum mf_err queue_load(struct outbox *o, struct mf_reason *why);
/* Replaces its state file, with the lock held; not while the entry is `sending`. */
enum mf_err queue_save(struct outbox *o, const struct entry *e);
/* The same in two steps, for the sending thread: the text is made with the lock held, written without it. */
void queue_text(const struct entry *e, struct buf *ret);
enum mf_err queue_write(struct outbox *o, uint64_t id, struct buf *text);   /* releases the text */
/* Its state file first, then the others. An error: nothing of it is gone. */
enum mf_err queue_delete(struct outbox *o, const struct entry *e);
enum mf_err queue_save_size_max(struct outbox *o, uint64_t size_max);
uint64_t queue_number_locked(struct outbox *o);      /* outbox_number() */
/* "00000006438...c.eml": suffix "orig", "eml", "state" and their like */
#define QUEUE_NAME 64
void queue_file_name(char name[static QUEUE_NAME], uint64_t id, const char *suffix);
int queue_open_file(struct outbox *o, uint64_t id, const char *suffix, int flags);
/* a new file that has no name yet; queue_name_file() gives it one when it is written, durably but for the folder */
int queue_create_file(struct outbox *o, uint64_t id, const char *suffix);
enum mf_err queue_name_file(struct outbox *o, uint64_t id, const char *suffix, int fd);
void queue_drop_file(struct outbox *o, uint64_t id, const char *suffix, bool named);
enum mf_err queue_sync_folder(struct outbox *o);

void entry_free(struct entry *e);

/* --- outbox.c ---------------------------------------------------------------------------------------------------------- */

enum outbox_state entry_state(const struct outbox *o, const struct entry *e, int64_t now_s);
bool entry_is_failed(const struct outbox *o, const struct entry *e);
size_t entry_count(const struct entry *e, enum entry_recipient state);
void entry_say(struct entry *e, const char *reason);
/* What connections share, by these settings; while none is open. On an error nothing has changed. */
enum mf_err outbox_renew_access(struct outbox *o, const struct account_config *config, struct mf_reason *why);
int64_t outbox_rest_s(const struct outbox *o);   /* how long a message rests at most before its first attempt */
/* with no lock held */
void outbox_tell(struct outbox *o, uint64_t id);
struct entry *outbox_find_locked(struct outbox *o, uint64_t id);
/* Nobody is left to be sent to, the copy is done: it goes, or stays as failed. True: it has been freed. */
bool outbox_finish_locked(struct outbox *o, struct entry *e);
void outbox_free_name_locked(struct outbox *o, struct entry *e);  /* makes its name unique where it now belongs */

/* --- sending.c --------------------------------------------------------------------------------------------------------- */

void *sending_main(void *context);
bool entry_is_open(const struct outbox *o, const struct entry *e); /* may be sent as far as the policy goes */

#endif

#include "control/outboxes.h"

#include <pthread.h>
#include <sys/queue.h>

#include "base/buf.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/text.h"

struct attached {
	LIST_ENTRY(attached) link;
	const struct account *account;
	struct outbox *outbox;
	void (*changed)(void *context);
	void *context;
};
static LIST_HEAD(, attached) attached = LIST_HEAD_INITIALIZER(attached);
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */

static struct attached *find_locked(const struct account *account)
{
	struct attached *a;
	LIST_FOREACH(a, &attached, link)
		if (a->account == account)
			return a;
	return NULL;
}

/* The outbox may still have something to tell when it is detached. */
static void tell(void *context, uint64_t id)
{
	(void)id;
	struct attached *a;
	pthread_mutex_lock(&lock);
	LIST_FOREACH(a, &attached, link)
		if (a->outbox == context && a->changed)
			a->changed(a->context);
	pthread_mutex_unlock(&lock);
}

void outboxes_watch(const struct account *account, void (*changed)(void *context), void *context)
{
	pthread_mutex_lock(&lock);
	struct attached *a = find_locked(account);
	if (a) {
		a->changed = changed;
		a->context = context;
	}
	pthread_mutex_unlock(&lock);
}

void outboxes_attach(const struct account *account, struct outbox *outbox)
{
	struct attached *a = MF_NEW(struct attached);
	a->account = account;
	a->outbox = outbox;
	outbox_subscribe(outbox, tell, outbox);
	pthread_mutex_lock(&lock);
	LIST_INSERT_HEAD(&attached, a, link);
	pthread_mutex_unlock(&lock);
}

void outboxes_detach(const struct account *account)
{
	pthread_mutex_lock(&lock);
	struct attached *a = find_locked(account);
	if (a)
		LIST_REMOVE(a, link);
	pthread_mutex_unlock(&lock);
	free(a);
}

struct outbox *outboxes_find(const struct account *account)
{
	pthread_mutex_lock(&lock);
	struct attached *a = find_locked(account);
	struct outbox *outbox = a ? a->outbox : NULL;
	pthread_mutex_unlock(&lock);
	return outbox;
}

struct row {
	const char *key, *words;
	size_t count;
};
#define ROWS 7
#define SENDING_ROW 2

static struct outbox_counts take_rows(struct outbox *outbox, struct row rows[static ROWS])
{
	struct outbox_counts c;
	outbox_counts(outbox, &c);
	rows[0] = (struct row){ "waiting", "waiting", c.waiting };
	rows[1] = (struct row){ "queued", "queued", c.queued };
	rows[SENDING_ROW] = (struct row){ "sending", "being sent", c.sending };
	rows[3] = (struct row){ "retrying", "to be tried again", c.retrying };
	rows[4] = (struct row){ "maybe_sent", "maybe sent", c.maybe };
	rows[5] = (struct row){ "unfiled", "sent and not filed", c.unfiled };
	rows[6] = (struct row){ "failed", "failed", c.failed };
	return c;
}

static struct json_object *progress_object(const struct outbox_counts *c)
{
	struct json_object *o = json_object_new_object();
	json_put_number(o, "sent", c->sent);
	json_put_number(o, "bytes", c->flying);
	json_put_number(o, "total", c->flying_of);
	return o;
}

struct json_object *outboxes_counts_object(struct outbox *outbox)
{
	struct row rows[ROWS];
	struct outbox_link link;
	struct json_object *o = json_object_new_object();
	struct outbox_counts counts = take_rows(outbox, rows);
	outbox_link(outbox, &link);
	for (size_t i = 0; i < ROWS; i++)
		json_put_number(o, rows[i].key, rows[i].count);
	json_object_object_add(o, "progress", progress_object(&counts));
	json_put_string(o, "error", link.error ? mf_err_words(link.error) : NULL);
	json_put_string(o, "reason", link.error && link.reason.text[0] ? link.reason.text : NULL);
	json_put_time(o, "next_try", link.error ? link.next_try_s : 0);
	return o;
}

static void add_flying(struct buf *b, const struct outbox_counts *c)
{
	char done[TEXT_NUMBER], all[TEXT_NUMBER];
	if (c->flying_of)
		(void)buf_addf(b, " (%s of %s)", text_size(done, c->flying), text_size(all, c->flying_of));
}

char *outboxes_counts_text(struct outbox *outbox)
{
	struct row rows[ROWS];
	struct outbox_link link;
	struct buf b;
	buf_init(&b, 4096);
	struct outbox_counts counts = take_rows(outbox, rows);
	outbox_link(outbox, &link);
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].count) {
			(void)buf_addf(&b, "%s%zu %s", b.len ? ", " : "", rows[i].count, rows[i].words);
			if (i == SENDING_ROW)
				add_flying(&b, &counts);
		}
	if (!b.len)
		(void)buf_adds(&b, "empty");
	if (counts.sent)
		(void)buf_addf(&b, ", %llu sent", (unsigned long long)counts.sent);
	if (link.error)
		(void)buf_addf(&b, "; %s", link.reason.text[0] ? link.reason.text : mf_err_words(link.error));
	return buf_detach(&b);
}

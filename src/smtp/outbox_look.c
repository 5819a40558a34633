/* What the outbox holds, for whoever looks at it. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "smtp/queue.h"

static void fill_item(const struct outbox *o, const struct entry *e, int64_t now_s, struct outbox_item *ret)
{
	enum outbox_state state = entry_state(o, e, now_s);
	const char *reason = e->reason ? e->reason : "";
	if (!*reason && state == OUTBOX_QUEUED && o->link.error)
		reason = o->link.reason.text;
	*ret = (struct outbox_item){
		.id = e->id, .number = e->number, .name = mf_strdup(e->name), .state = state, .in_failed = state == OUTBOX_FAILED, .held = e->held, .unreleased = !entry_is_open(o, e),
		.at_s = state == OUTBOX_WAITING || state == OUTBOX_RETRYING ? e->due_s : 0, .put_s = e->put_s, .changed_s = e->changed_s,
		.size = e->original_size, .reason = mf_strdup(reason),
		.message_id = mf_strdup(e->envelope.message_id ? e->envelope.message_id : ""),
		.subject = mf_strdup(e->envelope.subject ? e->envelope.subject : ""), .recipients = e->envelope.recipient_count,
		.notify = e->envelope.notify, .notify_asked = e->notify_asked, .sent = entry_count(e, RECIPIENT_SENT), .refused = entry_count(e, RECIPIENT_REFUSED), .attempts = e->attempts,
	};
}

void outbox_item_finish(struct outbox_item *item)
{
	free(item->name);
	free(item->reason);
	free(item->message_id);
	free(item->subject);
	*item = (struct outbox_item){ 0 };
}

enum mf_err outbox_item(struct outbox *o, uint64_t id, struct outbox_item *ret)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	if (e)
		fill_item(o, e, clock_wall_s(), ret);
	pthread_mutex_unlock(&o->lock);
	return e ? MF_OK : MF_NOT_FOUND;
}

enum mf_err outbox_item_by_name(struct outbox *o, const char *name, bool in_failed, struct outbox_item *ret)
{
	struct entry *e;
	pthread_mutex_lock(&o->lock);
	int64_t now_s = clock_wall_s();
	TAILQ_FOREACH(e, &o->entries, link) {
		enum outbox_state state = entry_state(o, e, now_s);
		if (!strcmp(e->name, name) && state != OUTBOX_UNFILED && (state == OUTBOX_FAILED) == in_failed)
			break;
	}
	if (e)
		fill_item(o, e, now_s, ret);
	pthread_mutex_unlock(&o->lock);
	return e ? MF_OK : MF_NOT_FOUND;
}

uint64_t outbox_id_of_number(struct outbox *o, uint64_t number)
{
	struct entry *e;
	pthread_mutex_lock(&o->lock);
	TAILQ_FOREACH(e, &o->entries, link)
		if (e->number == number)
			break;
	uint64_t id = e ? e->id : 0;
	pthread_mutex_unlock(&o->lock);
	return id;
}

void outbox_items(struct outbox *o, struct outbox_item **ret, size_t *ret_count)
{
	struct entry *e;
	size_t count = 0;
	pthread_mutex_lock(&o->lock);
	TAILQ_FOREACH(e, &o->entries, link)
		count++;
	*ret = mf_alloc_array(count + 1, sizeof **ret);
	*ret_count = count;
	count = 0;
	TAILQ_FOREACH(e, &o->entries, link)
		fill_item(o, e, clock_wall_s(), &(*ret)[count++]);
	pthread_mutex_unlock(&o->lock);
}

void outbox_items_free(struct outbox_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		outbox_item_finish(&items[i]);
	free(items);
}

static void add_time(struct buf *b, const char *what, int64_t s)
{
	char text[40];
	time_t t = (time_t)s;
	struct tm tm = { 0 };
	if (s && gmtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &tm))
		(void)buf_addf(b, "%s %s\n", what, text);
}

static void add_result(struct buf *b, const char *address, const struct recipient_state *r)
{
	static const char *const words[] = { "not sent", "sent", "refused" };
	char shown[400], text[600];
	mf_printable(shown, sizeof shown, address, strlen(address));
	mf_printable(text, sizeof text, r->text ? r->text : "", r->text ? strlen(r->text) : 0);
	(void)buf_addf(b, "  %s: %s%s%s\n", shown, words[r->state], *text ? ": " : "", text);
}

char *outbox_error_text(struct outbox *o, uint64_t id)
{
	struct buf b;
	buf_init(&b, 16U << 20);
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	if (e && entry_is_failed(o, e)) {
		(void)buf_addf(&b, "%s\n\n", e->reason && *e->reason ? e->reason : "not sent");
		add_time(&b, "written:   ", e->put_s);
		add_time(&b, "first try: ", e->first_s);
		add_time(&b, "given up:  ", e->changed_s);
		for (size_t i = 0; i < e->envelope.recipient_count; i++)
			add_result(&b, e->envelope.recipients[i], &e->recipients[i]);
	}
	pthread_mutex_unlock(&o->lock);
	if (b.len)
		return buf_detach(&b);
	buf_finish(&b);
	return NULL;
}

void outbox_counts(struct outbox *o, struct outbox_counts *ret)
{
	struct entry *e;
	*ret = (struct outbox_counts){ 0 };
	size_t *const counts[] = { &ret->waiting, &ret->queued, &ret->sending, &ret->retrying, &ret->maybe, &ret->unfiled, &ret->failed };
	pthread_mutex_lock(&o->lock);
	TAILQ_FOREACH(e, &o->entries, link)
		++*counts[entry_state(o, e, clock_wall_s())];
	ret->sent = o->sent;
	ret->flying = o->flying;
	ret->flying_of = o->flying_of;
	pthread_mutex_unlock(&o->lock);
}

void outbox_link(struct outbox *o, struct outbox_link *ret)
{
	pthread_mutex_lock(&o->lock);
	*ret = o->link;
	pthread_mutex_unlock(&o->lock);
}

uint64_t outbox_size_max(struct outbox *o)
{
	pthread_mutex_lock(&o->lock);
	uint64_t size_max = o->size_max;
	pthread_mutex_unlock(&o->lock);
	return size_max;
}

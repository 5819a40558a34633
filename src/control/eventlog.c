#include "control/eventlog.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/text.h"

#define LINE_MAX_BYTES 16384   /* a path of 20 levels of 255 bytes, escaped, fits */

/* One growing file. data.data[0] has offset `base`. */
struct stream {
	struct buf data;
	uint64_t base;
};

struct eventlog {
	struct bus *bus;
	struct bus_subscription *subscription;
	struct account *const *accounts;
	size_t count, limit;
	/* only the bus's thread uses these: the last second that was written out, what the last line about a message had from there to
	 * its mailbox, the line under way */
	time_t second;
	char second_text[40];
	enum change_kind head_kind;
	unsigned head_account;
	uint64_t head_mailbox;
	struct buf head, line;       /* head empty: to be made anew */

	pthread_mutex_t lock;        /* guards everything below */
	pthread_cond_t grew;         /* on CLOCK_MONOTONIC */
	struct stream *streams;      /* one per account, then that of all; with one account both are the same */
	uint64_t woken;              /* counts eventlog_wake() */
};

static const char *event_name(enum change_kind kind)
{
	switch (kind) {
	case CHANGE_MAILBOX_ADDED:
		return "mailbox-added";
	case CHANGE_MAILBOX_REMOVED:
		return "mailbox-removed";
	case CHANGE_MAILBOX_RENAMED:
		return "mailbox-renamed";
	case CHANGE_MESSAGE_ADDED:
		return "message-added";
	case CHANGE_MESSAGE_REMOVED:
		return "message-removed";
	case CHANGE_MESSAGE_MOVED:
		return "message-moved";
	case CHANGE_MESSAGE_FLAGS:
		return "message-flags";
	case CHANGE_LINK:
		return "link";
	case CHANGE_MAILBOX_LIST:
	case CHANGE_MAILBOX_RIGHTS:
	case CHANGE_MESSAGE_SIZE:
		return NULL; /* of the cache's own keeping: no event for a person */
	}
	return NULL;
}

static char *mailbox_path(struct eventlog *log, const struct change *change, uint64_t mailbox)
{
	return mailbox && change->account < log->count ? cache_mailbox_path(account_cache(log->accounts[change->account]), mailbox) : NULL;
}

/* appends ,"key":"value"; nothing for NULL. A line that grows too long is dropped whole by its maker. */
static enum mf_err add_member(struct buf *b, const char *key, const char *value)
{
	if (!value)
		return MF_OK;
	enum mf_err e = buf_adds(b, ",\"");
	if (!e)
		e = buf_adds(b, key);
	if (!e)
		e = buf_adds(b, "\":");
	return e ? e : json_add_quoted(b, value);
}

/* Many changes in a row are of one second. */
static const char *recent_second(struct eventlog *log, time_t second)
{
	if (second != log->second || !log->second_text[0]) {
		struct tm parts;
		gmtime_r(&second, &parts);
		strftime(log->second_text, sizeof log->second_text, "%Y-%m-%dT%H:%M:%S", &parts);
		log->second = second;
	}
	return log->second_text;
}

static enum mf_err add_time(struct eventlog *log, struct buf *b)
{
	int64_t now = clock_wall_ns();
	unsigned ms = (unsigned)(now / 1000000 % 1000);
	char fraction[] = { '.', (char)('0' + ms / 100), (char)('0' + ms / 10 % 10), (char)('0' + ms % 10), 'Z', '"', '\0' };
	enum mf_err e = buf_adds(b, "{\"time\":\"");
	if (!e)
		e = buf_adds(b, recent_second(log, (time_t)(now / 1000000000)));
	return e ? e : buf_adds(b, fraction);
}

static enum mf_err add_kind(struct eventlog *log, struct buf *b, const struct change *change, const char *event)
{
	enum mf_err e = add_member(b, "account", account_config(log->accounts[change->account])->name);
	return e ? e : add_member(b, "event", event);
}

static enum mf_err make_head(struct eventlog *log, const struct change *change, const char *event)
{
	MF_CLEANUP(mf_free) char *path = mailbox_path(log, change, change->mailbox);
	buf_reset(&log->head);
	enum mf_err e = add_kind(log, &log->head, change, event);
	if (!e)
		e = add_member(&log->head, "mailbox", path);
	log->head_kind = change->kind;
	log->head_account = change->account;
	log->head_mailbox = change->mailbox;
	return e;
}

/* Many changes in a row are of one kind, and of one mailbox. */
static enum mf_err add_head(struct eventlog *log, struct buf *b, const struct change *change, const char *event)
{
	bool same = log->head.len && log->head_kind == change->kind && log->head_account == change->account && log->head_mailbox == change->mailbox;
	enum mf_err e = same ? MF_OK : make_head(log, change, event);
	if (e)
		buf_reset(&log->head);
	return e ? e : buf_add(b, log->head.data, log->head.len);
}

/* A mailbox that is gone has no path any more; its parent's and its name make it. */
static enum mf_err add_mailbox(struct eventlog *log, struct buf *b, const struct change *change, uint64_t parent,
                               const char *key, const char *name)
{
	MF_CLEANUP(mf_free) char *above = mailbox_path(log, change, parent);
	MF_CLEANUP(mf_free) char *path = above ? mf_format("%s/%s", above, name ? name : "") : NULL;
	return add_member(b, key, path ? path : name);
}

static enum mf_err add_message(struct eventlog *log, struct buf *b, const struct change *change)
{
	enum mf_err e = add_member(b, "name", change->name);
	if (!e && change->kind == CHANGE_MESSAGE_MOVED) {
		MF_CLEANUP(mf_free) char *old = mailbox_path(log, change, change->old_mailbox);
		e = add_member(b, "old_mailbox", old);
		if (!e)
			e = add_member(b, "old_name", change->old_name);
	}
	if (!e && change->uid)
		e = buf_adds(b, ",\"uid\":");
	if (!e && change->uid)
		e = buf_add_number(b, change->uid);
	if (!e && change->kind == CHANGE_MESSAGE_ADDED)
		e = buf_adds(b, change->is_new ? ",\"new\":true" : ",\"new\":false");
	return e;
}

static enum mf_err add_link(struct eventlog *log, struct buf *b, const struct change *change)
{
	if (change->account >= log->count)
		return MF_INVALID;
	struct link_info link;
	account_link(log->accounts[change->account], &link);
	enum mf_err e = add_member(b, "state", text_link(link.state));
	if (!e && link.state != LINK_ONLINE && link.reason.text[0])
		e = add_member(b, "reason", link.reason.text);
	return e;
}

static enum mf_err add_details(struct eventlog *log, struct buf *b, const struct change *change, const char *event)
{
	enum mf_err e = change->message ? add_head(log, b, change, event) : add_kind(log, b, change, event);
	if (e)
		return e;
	if (change->kind == CHANGE_LINK)
		return add_link(log, b, change);
	if (change->message)
		return add_message(log, b, change);
	buf_reset(&log->head); /* the mailbox may have another path from now on */
	e = add_mailbox(log, b, change, change->parent, "mailbox", change->name);
	if (!e && change->kind == CHANGE_MAILBOX_RENAMED)
		e = add_mailbox(log, b, change, change->old_parent, "old_mailbox", change->old_name);
	return e;
}

/* the caller holds the lock */
static void append_locked(struct eventlog *log, struct stream *stream, const struct buf *line)
{
	if (stream->data.len + line->len > log->limit) {
		size_t half = stream->data.len / 2;
		const char *end = memchr(stream->data.data + half, '\n', stream->data.len - half);
		size_t dropped = end ? (size_t)(end - stream->data.data) + 1 : stream->data.len;
		buf_drop(&stream->data, dropped);
		stream->base += dropped;
	}
	if (buf_add(&stream->data, line->data, line->len))
		stream->base += line->len; /* longer than the whole limit: dropped at once, and counted */
}

static void handle(void *context, const struct change *change)
{
	struct eventlog *log = context;
	const char *event = event_name(change->kind);
	if (!event || change->account >= log->count)
		return;
	struct buf *line = &log->line;
	buf_reset(line);
	enum mf_err e = add_time(log, line);
	if (!e)
		e = add_details(log, line, change, event);
	if (!e)
		e = buf_adds(line, "}\n");
	if (!e) {
		pthread_mutex_lock(&log->lock);
		append_locked(log, &log->streams[change->account], line);
		if (log->count > 1)
			append_locked(log, &log->streams[log->count], line);
		pthread_cond_broadcast(&log->grew);
		pthread_mutex_unlock(&log->lock);
	}
}

struct eventlog *eventlog_create(struct bus *bus, struct account *const *accounts, size_t count, size_t limit)
{
	struct eventlog *log = MF_NEW(struct eventlog);
	log->bus = bus;
	log->accounts = accounts;
	log->count = count;
	log->limit = limit;
	log->streams = mf_alloc_array(count + 1, sizeof *log->streams);
	for (size_t i = 0; i <= count; i++)
		buf_init(&log->streams[i].data, limit);
	buf_init(&log->head, LINE_MAX_BYTES);
	buf_init(&log->line, LINE_MAX_BYTES);
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->grew, &attributes);
	pthread_condattr_destroy(&attributes);
	log->subscription = bus_subscribe(bus, handle, log);
	return log;
}

void eventlog_destroy(struct eventlog *log)
{
	if (!log)
		return;
	bus_unsubscribe(log->bus, log->subscription);
	for (size_t i = 0; i <= log->count; i++)
		buf_finish(&log->streams[i].data);
	pthread_cond_destroy(&log->grew);
	pthread_mutex_destroy(&log->lock);
	free(log->streams);
	buf_finish(&log->head);
	buf_finish(&log->line);
	free(log);
}

/* NULL: no such account */
static struct stream *stream_of(struct eventlog *log, int account)
{
	if (account < 0)
		return &log->streams[log->count == 1 ? 0 : log->count];
	return (size_t)account < log->count ? &log->streams[account] : NULL;
}

static uint64_t end_of(const struct stream *stream)
{
	return stream->base + stream->data.len;
}

static struct timespec deadline_after(int64_t timeout_ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += timeout_ms / 1000;
	t.tv_nsec += timeout_ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

size_t eventlog_read(struct eventlog *log, int account, uint64_t offset, void *data, size_t size, int64_t timeout_ms, uint64_t *ret_offset)
{
	struct stream *stream = stream_of(log, account);
	*ret_offset = offset;
	if (!stream)
		return 0;
	struct timespec deadline = deadline_after(timeout_ms > 0 ? timeout_ms : 0);
	pthread_mutex_lock(&log->lock);
	uint64_t woken = log->woken;
	while (timeout_ms > 0 && end_of(stream) <= offset && log->woken == woken)
		if (pthread_cond_timedwait(&log->grew, &log->lock, &deadline) == ETIMEDOUT)
			break;
	if (offset < stream->base)
		offset = stream->base;
	size_t len = 0;
	if (offset < end_of(stream)) {
		size_t skip = (size_t)(offset - stream->base);
		len = stream->data.len - skip;
		if (len > size)
			len = size;
		memcpy(data, stream->data.data + skip, len);
	}
	*ret_offset = offset;
	pthread_mutex_unlock(&log->lock);
	return len;
}

uint64_t eventlog_size(struct eventlog *log, int account)
{
	struct stream *stream = stream_of(log, account);
	pthread_mutex_lock(&log->lock);
	uint64_t size = stream ? end_of(stream) : 0;
	pthread_mutex_unlock(&log->lock);
	return size;
}

void eventlog_wake(struct eventlog *log)
{
	pthread_mutex_lock(&log->lock);
	log->woken++;
	pthread_cond_broadcast(&log->grew);
	pthread_mutex_unlock(&log->lock);
}

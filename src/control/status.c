#include "control/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "control/filing.h"
#include "control/json.h"
#include "control/mailboxes.h"
#include "control/outboxes.h"
#include "control/text.h"

#define STATUS_MAX (16U << 20)
#define COLUMNS 100
#define MAILBOX_LINES 40   /* of the text; the JSON has all */

struct snapshot {
	const struct account_config *config;
	const struct cache *cache;
	struct link_info link;
	struct account_progress progress;
	struct account_counters counters;
	struct quota quota;
	bool has_quota;
	struct cache_totals totals;
	struct journal_totals changes;
	struct cache_kept kept;
	uint64_t rejected;
	struct mailbox_rows rows;
	struct outbox *outbox;       /* NULL: it cannot send */
	const char *copies;          /* who makes copies of what is sent */
};

static void snapshot_take(struct account *a, struct snapshot *ret)
{
	*ret = (struct snapshot){ .config = account_config(a), .cache = account_cache(a) };
	account_link(a, &ret->link);
	account_progress(a, &ret->progress);
	account_counters(a, &ret->counters);
	ret->has_quota = account_quota(a, &ret->quota);
	cache_totals(account_cache(a), &ret->totals);
	if (journal_totals(account_cache(a), &ret->changes) != MF_OK || cache_kept(account_cache(a), &ret->kept) != MF_OK)
		log_warning("%s: the journal cannot be read", ret->config->name);
	ret->rejected = rejected_count(account_cache(a));
	mailbox_rows_load(a, &ret->rows);
	ret->outbox = outboxes_find(a);
	ret->copies = filing_word(a);
}

/* the one that the account is at now */
static const struct server_address *server_of(const struct snapshot *s)
{
	return s->link.pop3 ? &s->config->pop3 : &s->config->imap;
}

/* --- JSON ---------------------------------------------------------------------------------------------------------- */

static struct json_object *link_object(const struct link_info *link)
{
	struct json_object *o = json_object_new_object();
	json_put_string(o, "state", text_link(link->state));
	json_put_time(o, "since", link->since_s);
	if (link->imap_reason.text[0]) {
		json_put_string(o, "imap_reason", link->imap_reason.text);
		json_put_time(o, "imap_next_try", link->imap_try_s);
	}
	if (link->state == LINK_ONLINE)
		return o;
	json_put_string(o, "error", link->error ? mf_err_words(link->error) : NULL);
	json_put_string(o, "reason", link->reason.text[0] ? link->reason.text : NULL);
	json_put_time(o, "next_try", link->next_try_s);
	return o;
}

struct json_object *status_progress_object(const struct account_progress *p)
{
	struct json_object *o = json_object_new_object();
	char doing[sizeof p->doing + 1];
	snprintf(doing, sizeof doing, "%s", p->doing);
	json_put_string(o, "doing", doing);
	json_put_number(o, "done", p->done);
	json_put_number(o, "total", p->total);
	json_put_string(o, "unit", p->bytes ? "bytes" : "messages");
	json_put_number(o, "rate", p->rate);
	json_put_number(o, "queued", p->queued);
	return o;
}

static struct json_object *cache_object(const struct snapshot *s)
{
	struct json_object *o = json_object_new_object();
	json_put_number(o, "mailboxes", s->totals.mailboxes);
	json_put_number(o, "messages", s->totals.messages);
	json_put_number(o, "bodies", s->totals.bodies);
	json_put_number(o, "body_bytes", s->totals.body_bytes);
	json_put_number(o, "limit", s->config->cache_size);
	return o;
}

static struct json_object *traffic_object(const struct account_counters *c)
{
	struct json_object *o = json_object_new_object();
	json_put_number(o, "received", c->received);
	json_put_number(o, "sent", c->sent);
	json_put_number(o, "connections", c->connections);
	json_put_number(o, "fetched_messages", c->fetched_messages);
	json_put_number(o, "fetched_bytes", c->fetched_bytes);
	return o;
}

static struct json_object *account_object(const struct snapshot *s)
{
	struct json_object *o = json_object_new_object();
	json_put_string(o, "account", s->config->name);
	json_put_string(o, "user", s->config->user);
	json_put_string(o, "host", server_of(s)->host);
	json_put_string(o, "protocol", s->link.pop3 ? "pop3" : "imap");
	json_object_object_add(o, "link", link_object(&s->link));
	json_object_object_add(o, "progress", status_progress_object(&s->progress));
	json_object_object_add(o, "cache", cache_object(s));
	json_object_object_add(o, "traffic", traffic_object(&s->counters));
	if (s->outbox) {
		struct json_object *outbox = outboxes_counts_object(s->outbox);
		json_put_string(outbox, "copies", s->copies);
		json_object_object_add(o, "outbox", outbox);
	}
	if (s->has_quota) {
		struct json_object *quota = json_object_new_object();
		json_put_number(quota, "used", s->quota.used);
		json_put_number(quota, "limit", s->quota.limit);
		json_object_object_add(o, "quota", quota);
	}
	struct json_object *changes = json_object_new_object();
	json_put_number(changes, "pending", s->changes.queued + s->changes.sent);
	json_put_number(changes, "parked", s->changes.parked);
	json_put_number(changes, "unconfirmed", s->changes.unconfirmed);
	json_put_number(changes, "rejected", s->rejected);
	json_object_object_add(o, "changes", changes);
	if (cache_only_deletes(s->cache)) {
		struct json_object *kept = json_object_new_object();
		json_put_number(kept, "messages", s->kept.messages);
		json_put_number(kept, "bytes", s->kept.bytes);
		json_object_object_add(o, "kept", kept);
	}
	struct json_object *mailboxes = json_object_new_array();
	for (size_t i = 0; i < s->rows.count; i++)
		json_object_array_add(mailboxes, mailbox_row_object(&s->rows.items[i]));
	json_object_object_add(o, "mailboxes", mailboxes);
	return o;
}

char *status_json(struct account *const *accounts, size_t count)
{
	struct json_object *root = json_object_new_object(), *list = json_object_new_array();
	json_put_string(root, "version", MF_VERSION);
	json_put_time(root, "time", clock_wall_s());
	for (size_t i = 0; i < count; i++) {
		struct snapshot s;
		snapshot_take(accounts[i], &s);
		json_object_array_add(list, account_object(&s));
		mailbox_rows_finish(&s.rows);
	}
	json_object_object_add(root, "accounts", list);
	MF_CLEANUP(mf_free) char *line = json_line(root);
	return mf_format("%s\n", line);
}

/* --- text ---------------------------------------------------------------------------------------------------------- */

/* One line: printable, cut to the columns. A buffer that is full ends the text: STATUS_MAX is far above what is written. */
__attribute__((format(printf, 2, 3)))
static void put(struct buf *b, const char *format, ...)
{
	char line[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof line, format, arguments);
	va_end(arguments);
	(void)text_add_line(b, line, COLUMNS);
}

/* How many bytes of the text go on a line: up to a space, or to a character where there is none */
static size_t wrap(const char *text, size_t room)
{
	size_t len = strlen(text), cut = room;
	if (len <= room)
		return len;
	while (cut && text[cut] != ' ')
		cut--;
	for (len = room; !cut && len && ((unsigned char)text[len] & 0xc0) == 0x80;)
		len--;
	return cut ? cut : len;
}

/* As many lines as it takes: the end of a reason is what can be done. */
static void put_whole(struct buf *b, const char *label, const char *text)
{
	static const char further[] = "    ";
	size_t size = strlen(text) + 1;
	MF_CLEANUP(mf_free) char *safe = mf_alloc(size);
	const char *p = mf_printable(safe, size, text, size - 1);
	do {
		size_t len = wrap(p, COLUMNS - strlen(label));
		put(b, "%s%.*s", label, (int)len, p);
		p += len;
		p += strspn(p, " ");
		label = further;
	} while (*p);
}

static void put_link(struct buf *b, const struct snapshot *s)
{
	char ago[TEXT_NUMBER], next[TEXT_NUMBER] = "";
	int64_t now = clock_wall_s();
	text_duration(ago, now - s->link.since_s);
	if (s->link.state == LINK_WAITING && !s->link.error) {
		put(b, "  disconnected for %s; `mailfs connect` connects", ago);
		return;
	}
	if (s->link.since_s)
		put(b, "  %s for %s", s->link.state == LINK_WAITING ? "waiting for you" : text_link(s->link.state), ago);
	else
		put(b, "  %s", text_link(s->link.state));
	if (s->link.imap_reason.text[0]) {
		put_whole(b, "  IMAP cannot be reached: ", s->link.imap_reason.text);
		put(b, "  IMAP is tried again in %s; `mailfs connect` tries now", text_duration(next, s->link.imap_try_s > now ? s->link.imap_try_s - now : 0));
	}
	if (s->link.state == LINK_ONLINE || !s->link.error)
		return;
	put_whole(b, "  why: ", s->link.reason.text[0] ? s->link.reason.text : mf_err_words(s->link.error));
	if (s->link.next_try_s > now)
		put(b, "  next try in %s; `mailfs connect` tries now", text_duration(next, s->link.next_try_s - now));
	else if (s->link.state == LINK_WAITING)
		put(b, "  not tried again by itself; `mailfs connect` does");
}

static void put_numbers(struct buf *b, const struct snapshot *s)
{
	char a[TEXT_NUMBER], c[TEXT_NUMBER], d[TEXT_NUMBER], e[TEXT_NUMBER];
	put(b, "  index: %s messages in %s mailboxes", text_count(a, s->totals.messages), text_count(c, s->totals.mailboxes));
	if (s->config->cache_size)
		put(b, "  cache: %s messages, %s of %s", text_count(a, s->totals.bodies), text_size(c, s->totals.body_bytes),
		    text_size(d, s->config->cache_size));
	else
		put(b, "  cache: %s messages, %s", text_count(a, s->totals.bodies), text_size(c, s->totals.body_bytes));
	if (s->kept.messages)
		put(b, "  kept: %s messages, %s, which are here and not at the server", text_count(a, s->kept.messages), text_size(c, s->kept.bytes));
	if (s->has_quota && s->quota.limit)
		put(b, "  quota: %s of %s", text_size(a, s->quota.used), text_size(c, s->quota.limit));
	if (s->counters.connections)
		put(b, "  traffic: %s received, %s sent, %s connections, %s messages fetched", text_size(a, s->counters.received),
		    text_size(c, s->counters.sent), text_count(d, s->counters.connections), text_count(e, s->counters.fetched_messages));
}

/* What waits for the server, and what waits for a person */
static void put_changes(struct buf *b, const struct snapshot *s)
{
	char a[TEXT_NUMBER];
	if (s->changes.queued + s->changes.sent)
		put(b, "  changes: %s on their way to the server; `mailfs pending` lists them", text_count(a, s->changes.queued + s->changes.sent));
	if (s->changes.parked)
		put(b, "  parked: %s changes that the server refuses; `mailfs pending` says why", text_count(a, s->changes.parked));
	if (s->changes.unconfirmed)
		put(b, "  unconfirmed: %s changes that the server took but does not show", text_count(a, s->changes.unconfirmed));
	if (s->rejected)
		put(b, "  rejected: %s %s that could not be sent, in .mailfs/rejected", text_count(a, s->rejected), s->rejected == 1 ? "file" : "files");
}

static void put_outbox(struct buf *b, const struct snapshot *s)
{
	if (!s->outbox)
		return;
	MF_CLEANUP(mf_free) char *text = outboxes_counts_text(s->outbox);
	put_whole(b, "  outbox: ", text);
}

static void put_mailboxes(struct buf *b, const struct mailbox_rows *rows)
{
	if (!rows->count)
		return;
	put(b, "  %8s %7s  %-9s %s", "messages", "unseen", "state", "mailbox");
	size_t shown = 0;
	for (size_t i = 0; i < rows->count && shown < MAILBOX_LINES; i++, shown++) {
		const struct mailbox_row *row = &rows->items[i];
		if (row->noselect)
			put(b, "  %8s %7s  %-9s %s", "-", "-", "-", row->path);
		else
			put(b, "  %8u %7u  %-9s %s", row->messages, row->unseen, mailbox_row_state(row), row->path);
	}
	if (shown < rows->count)
		put(b, "  and %zu more: `mailfs list` shows all", rows->count - shown);
}

static void put_account(struct buf *b, const struct snapshot *s)
{
	char progress[COLUMNS];
	const char *host = server_of(s)->host;
	put(b, "%s: %s at %s%s", s->config->name, s->config->user ? s->config->user : "?", host ? host : "?", s->link.pop3 ? " by POP3" : "");
	put_link(b, s);
	text_progress(progress, sizeof progress, &s->progress);
	put(b, "  now: %s", progress);
	put_numbers(b, s);
	put_changes(b, s);
	put_outbox(b, s);
	put_mailboxes(b, &s->rows);
}

char *status_text(struct account *const *accounts, size_t count)
{
	struct buf b;
	buf_init(&b, STATUS_MAX);
	for (size_t i = 0; i < count; i++) {
		struct snapshot s;
		snapshot_take(accounts[i], &s);
		if (i)
			(void)buf_adds(&b, "\n");
		put_account(&b, &s);
		mailbox_rows_finish(&s.rows);
	}
	if (!b.len)
		(void)buf_adds(&b, "no accounts\n");
	return buf_detach(&b);
}

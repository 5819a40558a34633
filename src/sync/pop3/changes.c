/* What is new in the maildrop, and what is left of it. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "sync/pop3/client.h"

struct telling {
	struct pop3 *s;
	const struct change_sink *sink;
	size_t index;                  /* of the mailbox in the caller's list */
};

static enum mf_err tell_message(void *context, struct drop_item *item, const char *header, size_t len)
{
	const struct telling *t = context;
	char digest[MAIL_DIGEST_SIZE];
	struct remote_message m = { .uid = item->uid, .size = item->has_size ? item->size : 0, .has_size = item->has_size, .keywords = "",
		.header = header, .header_len = len };
	if (header) {
		mail_header_digest(header, len, digest);
		item->dirty |= strcmp(digest, item->digest) != 0;
		memcpy(item->digest, digest, sizeof digest);
		if (!mail_arrival_date(header, len, &m.internal_date))
			m.internal_date = 0;
	}
	return t->sink->message(t->sink->context, t->index, &m);
}

static enum mf_err tell_present(const struct telling *t, uint32_t below)
{
	const struct uidls *n = &t->s->numbers;
	struct uid_ranges ranges = { .items = mf_alloc_array(n->count + 1, sizeof *ranges.items) };
	for (size_t i = 0; i < n->count && n->rows[i].uid < below; i++) {
		uint32_t uid = n->rows[i].uid;
		struct uid_range *last = ranges.count ? &ranges.items[ranges.count - 1] : NULL;
		if (last && last->last + 1 == uid)
			last->last = uid;
		else
			ranges.items[ranges.count++] = (struct uid_range){ uid, uid };
	}
	enum mf_err e = t->sink->present(t->sink->context, t->index, &ranges);
	free(ranges.items);
	return e;
}

/* The new ones, newest first: places in the maildrop. */
static size_t find_new(const struct maildrop *d, const struct mailbox_since *since, uint32_t **ret)
{
	bool all = since->method == CHANGES_ALL;
	size_t most = all && since->newest && since->newest < d->numbered ? since->newest : d->numbered, n = 0;
	uint32_t *places = mf_alloc_array(most + 1, sizeof *places);
	for (size_t i = d->numbered; i > 0 && n < most; i--)
		if (all || d->items[d->by_uid[i - 1]].uid >= since->uidnext)
			places[n++] = d->by_uid[i - 1];
	*ret = places;
	return n;
}

/* Those whose headers came while the numbers were found; the others' places stay, in their order. */
static enum mf_err tell_kept(struct telling *t, uint32_t *places, size_t *count)
{
	size_t left = 0;
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < *count && !e; i++) {
		struct drop_item *item = &t->s->drop.items[places[i]];
		if (item->header && t->s->unsaved)
			e = pop3_store(t->s);
		if (!e && item->header)
			e = tell_message(t, item, item->header, item->header_len);
		else if (!e)
			places[left++] = places[i];
	}
	*count = left;
	return e;
}

static enum mf_err tell_new(struct telling *t, const struct mailbox_since *since)
{
	uint32_t *places;
	size_t count = find_new(&t->s->drop, since, &places);
	enum mf_err e = count ? pop3_need_sizes(t->s) : MF_OK;
	if (!e)
		e = tell_kept(t, places, &count);
	if (!e)
		e = pop3_top(t->s, places, count, tell_message, t);
	free(places);
	return e;
}

/* The server allows no login now, and there is a last time whose answer can be repeated. */
static bool may_repeat(struct pop3 *s, const struct mailbox_since *since)
{
	const struct uidls *n = &s->numbers;
	bool asked = s->transport && !s->used;
	if (asked || !pop3_is_too_early(s) || since->method == CHANGES_ALL || pop3_load_numbers(s) || !n->uidvalidity)
		return false;
	return !n->count || n->rows[n->count - 1].uid < since->uidnext;
}

static enum mf_err look(struct pop3 *s, const struct mailbox_since *since)
{
	enum mf_err e = pop3_need_news(s);
	if (!e && since->method == CHANGES_ALL)
		e = pop3_top_ahead(s, since->newest);
	if (!e)
		e = pop3_number(s);
	s->used |= !e;
	return e;
}

/* The mailbox's numbers are told as those that hold, so they are stored first; they are already where TOP was asked for. */
static enum mf_err tell_closed(const struct telling *t, enum mf_err result, const struct mailbox_status *status)
{
	enum mf_err e = t->s->unsaved ? pop3_store(t->s) : MF_OK;
	return e ? e : t->sink->closed(t->sink->context, t->index, result, status);
}

static enum mf_err tell(struct telling *t, const struct mailbox_since *since, bool repeat)
{
	struct pop3 *s = t->s;
	const struct change_sink *sink = t->sink;
	const struct mailbox_status status = { .uidvalidity = s->numbers.uidvalidity, .uidnext = s->numbers.uidnext, .messages = (uint32_t)s->numbers.count };
	enum mf_err e = sink->opened(sink->context, t->index, &status, false);
	if (e)
		return e;
	if (since->method != CHANGES_ALL && since->uidvalidity != status.uidvalidity)
		return tell_closed(t, MF_UIDVALIDITY, &status);
	if (since->method == CHANGES_AUTO || since->method == CHANGES_VERIFY)
		e = tell_present(t, since->uidnext);
	if (!e && !repeat)
		e = tell_new(t, since);
	return e ? e : tell_closed(t, MF_OK, &status);
}

static enum mf_err read_inbox(struct telling *t, const struct mailbox_since *since)
{
	struct pop3 *s = t->s;
	bool repeat = may_repeat(s, since);
	enum mf_err e = s->dead ? s->dead : repeat ? MF_OK : look(s, since);
	if (e)
		return e;
	e = tell(t, since, repeat);
	/* also after a failure: the numbers stay true */
	enum mf_err stored = !s->dead && s->unsaved ? pop3_store(s) : MF_OK;
	return e ? e : stored;
}

static enum mf_err inbox(struct telling *t, const struct mailbox_since *since)
{
	enum mf_err e = read_inbox(t, since);
	if (t->s->tops_ahead) /* it ended before they were asked for: nobody waits for these answers */
		pop3_drop(t->s);
	return e;
}

enum mf_err pop3_changes(struct pop3 *s, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	static const struct mailbox_status none = { 0 };
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < count && !e; i++) {
		struct telling t = { s, sink, i };
		if (strcasecmp(since[i].raw, "INBOX") == 0)
			e = inbox(&t, &since[i]);
		else
			e = sink->closed(sink->context, i, MF_NOT_FOUND, &none);
	}
	return e;
}

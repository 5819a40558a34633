/* The memory back-end: what is large about one connection: changes and bodies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sync/memory_state.h"

#define METADATA_BYTES 400      /* of one message on the line, beside its header */
#define PIECE 16384
#define DEPTH 3                 /* commands under way */

/* --- changes ------------------------------------------------------------------------------------------------------------ */

struct change_copy {            /* a message as it was when the command was carried out */
	struct memory_message message;
	bool hidden;
	char keywords[128];
};
struct mailbox_copy {
	struct mailbox_status status;
	struct change_copy *messages;
	size_t count;
	struct memory_gone *gone;
	size_t gone_count;
};

static void copy_finish(struct memory_server *m, struct mailbox_copy *c)
{
	for (size_t i = 0; i < c->count; i++)
		memory_bytes_unref(m, c->messages[i].message.bytes);
	free(c->messages);
	free(c->gone);
}

static enum mf_err copy_mailbox(struct memory_session *s, const char *raw, struct mailbox_copy *ret, bool *ret_read_only)
{
	struct memory_server *m = s->server;
	*ret = (struct mailbox_copy){0};
	pthread_mutex_lock(&m->lock);
	m->checked++;
	struct memory_mailbox *b = memory_find_locked(m, raw);
	bool hidden = b && b->rights && !(b->rights & RIGHT('r'));
	enum mf_err e = !b ? MF_NOT_FOUND : (b->flags & MAILBOX_NOSELECT) || hidden ? MF_DENIED : MF_OK;
	if (e == MF_OK) {
		memory_status_locked(b, s->caps, &ret->status);
		*ret_read_only = b->flags & MAILBOX_READONLY;
		ret->messages = mf_alloc_array(b->count + 1, sizeof *ret->messages);
		for (size_t i = 0; i < b->count; i++) {
			struct change_copy *c = &ret->messages[ret->count++];
			c->message = b->messages[i];
			c->message.bytes->users++;
			c->hidden = i + b->hidden >= b->count;
			snprintf(c->keywords, sizeof c->keywords, "%s", b->messages[i].keywords);
		}
		ret->gone = mf_alloc_array(b->gone_count + 1, sizeof *ret->gone);
		if (b->gone_count)
			memcpy(ret->gone, b->gone, b->gone_count * sizeof *ret->gone);
		ret->gone_count = m->hide_vanished ? 0 : b->gone_count;
	}
	ret->status.rights = b && (s->caps & REMOTE_ACL) ? b->rights : 0;
	pthread_mutex_unlock(&m->lock);
	return e;
}

struct telling {                /* one mailbox being told */
	struct memory_session *s;
	const struct mailbox_since *since;
	const struct change_sink *sink;
	size_t i;
	const struct mailbox_copy *copy;
};

static enum mf_err tell_message(const struct telling *t, const struct change_copy *c)
{
	const struct memory_message *message = &c->message;
	if (c->hidden)
		return MF_OK;
	enum mf_err e = memory_answer(t->s, METADATA_BYTES + message->bytes->header_len);
	if (e != MF_OK)
		return e;
	char email_id[32];
	snprintf(email_id, sizeof email_id, "M%ju", (uintmax_t)message->number);
	return t->sink->message(t->sink->context, t->i, &(struct remote_message){
		.uid = message->uid, .size = message->claim, .has_size = true, .internal_date = message->date, .flags = message->flags,
		.keywords = c->keywords, .modseq = t->copy->status.modseq ? message->modseq : 0,
		.email_id = t->s->caps & REMOTE_OBJECTID ? email_id : NULL,
		.header = message->bytes->data, .header_len = message->bytes->header_len,
	});
}

static enum mf_err tell_flags(const struct telling *t, uint64_t after)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < t->copy->count && e == MF_OK; i++) {
		const struct memory_message *message = &t->copy->messages[i].message;
		if (message->uid >= t->since->uidnext || message->uid < t->since->first_uid || message->modseq <= after)
			continue;
		e = memory_answer(t->s, 40);
		if (e == MF_OK)
			e = t->sink->flags(t->sink->context, t->i, message->uid, message->flags, t->copy->messages[i].keywords,
			                   t->copy->status.modseq ? message->modseq : 0);
	}
	return e;
}

static enum mf_err tell_present(const struct telling *t)
{
	struct uid_range *ranges = mf_alloc_array(t->copy->count + 1, sizeof *ranges);
	struct uid_ranges uids = {.items = ranges};
	for (size_t i = 0; i < t->copy->count; i++) {
		uint32_t uid = t->copy->messages[i].message.uid;
		if (uid >= t->since->uidnext || uid < t->since->first_uid)
			continue;
		if (uids.count && ranges[uids.count - 1].last + 1 == uid)
			ranges[uids.count - 1].last = uid;
		else
			ranges[uids.count++] = (struct uid_range){uid, uid};
	}
	enum mf_err e = memory_answer(t->s, 8 * uids.count);
	if (e == MF_OK)
		e = t->sink->present(t->sink->context, t->i, &uids);
	free(ranges);
	return e;
}

static enum mf_err tell_vanished(const struct telling *t)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < t->copy->gone_count && e == MF_OK; i++) {
		if (t->copy->gone[i].modseq <= t->since->modseq)
			continue;
		struct uid_range one = {t->copy->gone[i].uid, t->copy->gone[i].uid};
		e = memory_answer(t->s, 20);
		if (e == MF_OK)
			e = t->sink->vanished(t->sink->context, t->i, &(struct uid_ranges){.items = &one, .count = 1});
	}
	return e;
}

static enum mf_err tell_all(const struct telling *t)
{
	enum mf_err e = MF_OK;
	size_t newest = t->since->newest ? t->since->newest : SIZE_MAX;
	for (size_t i = t->copy->count; i-- > 0 && newest-- > 0 && e == MF_OK;)
		e = tell_message(t, &t->copy->messages[i]);
	return e;
}

static enum mf_err tell_new(const struct telling *t)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < t->copy->count && e == MF_OK; i++) {
		if (t->copy->messages[i].message.uid >= t->since->uidnext)
			e = tell_message(t, &t->copy->messages[i]);
	}
	return e;
}

/* Cheapest first, as a server with these capabilities allows. */
static enum mf_err tell_old(const struct telling *t)
{
	bool verify = t->since->method == CHANGES_VERIFY;
	bool quick = !verify && t->since->modseq && (t->s->caps & REMOTE_QRESYNC);
	uint64_t after = !verify && t->since->modseq && (t->s->caps & (REMOTE_CONDSTORE | REMOTE_QRESYNC)) ? t->since->modseq : 0;
	enum mf_err e = quick ? tell_vanished(t) : tell_present(t);
	return e == MF_OK ? tell_flags(t, after) : e;
}

static enum mf_err tell_mailbox(struct telling *t)
{
	const struct mailbox_since *since = t->since;
	struct mailbox_copy copy;
	bool read_only = false;
	enum mf_err found = copy_mailbox(t->s, since->raw, &copy, &read_only);
	if (found != MF_OK)
		return t->sink->closed(t->sink->context, t->i, found, &copy.status);
	t->copy = &copy;
	pthread_mutex_lock(&t->s->server->lock);
	memory_catch_up_locked(t->s->server, since->raw);
	pthread_mutex_unlock(&t->s->server->lock);
	enum mf_err e = memory_answer(t->s, 200);
	if (e == MF_OK)
		e = t->sink->opened(t->sink->context, t->i, &copy.status, read_only);
	bool renumbered = since->method != CHANGES_ALL && since->uidvalidity != copy.status.uidvalidity;
	if (e == MF_OK && !renumbered && since->method == CHANGES_ALL)
		e = tell_all(t);
	else if (e == MF_OK && !renumbered && since->method != CHANGES_NEW_ONLY)
		e = tell_old(t);
	if (e == MF_OK && !renumbered && since->method != CHANGES_ALL)
		e = tell_new(t);
	if (e == MF_OK)
		e = memory_answer(t->s, 20);
	if (e == MF_OK)
		e = t->sink->closed(t->sink->context, t->i, renumbered ? MF_UIDVALIDITY : MF_OK, &copy.status);
	copy_finish(t->s->server, &copy);
	return e;
}

enum mf_err memory_changes(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	struct memory_session *s = (struct memory_session *)r;
	enum mf_err e = memory_enter(s, MEMORY_CHANGES);
	bool hinted = true;
	for (size_t i = 0; i < count; i++)
		hinted &= since[i].method != CHANGES_ALL || since[i].hint.uidvalidity != 0;
	if (e == MF_OK)
		e = memory_travel(s, hinted ? 1 : 2); /* without its numbers FETCH cannot follow SELECT at once */
	for (size_t i = 0; i < count && e == MF_OK; i++)
		e = tell_mailbox(&(struct telling){.s = s, .since = &since[i], .sink = sink, .i = i});
	return e;
}

/* --- bodies --------------------------------------------------------------------------------------------------------------- */

struct command {
	char *raw;
	uint32_t uidvalidity;
	uint32_t *uids;
	size_t count;
	uint64_t offset, length;
	int64_t arrives_ns;         /* its first answer, at the earliest */
};
struct pipeline {
	struct memory_session *s;
	const struct fetch_source *source;
	const struct fetch_sink *sink;
	struct command commands[DEPTH];
	size_t first, count;
};

static void pipeline_fill(struct pipeline *p)
{
	struct fetch_batch batch;
	while (p->count < DEPTH && p->source->next(p->source->context, &batch)) {
		struct command *c = &p->commands[(p->first + p->count++) % DEPTH];
		pthread_mutex_lock(&p->s->server->lock);
		int64_t trip = p->s->server->round_trip_ms * 1000000;
		pthread_mutex_unlock(&p->s->server->lock);
		*c = (struct command){.raw = mf_strdup(batch.raw), .uidvalidity = batch.uidvalidity, .count = batch.count,
		                      .offset = batch.offset, .length = batch.length, .arrives_ns = memory_now_ns() + trip};
		c->uids = mf_alloc_array(batch.count, sizeof *c->uids);
		memcpy(c->uids, batch.uids, batch.count * sizeof *c->uids);
	}
}

static enum mf_err find_bytes(struct memory_server *m, const struct command *c, uint32_t uid, struct memory_bytes **ret)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, c->raw);
	struct memory_message *message = b ? memory_message_locked(b, uid) : NULL;
	enum mf_err e = b && b->uidvalidity != c->uidvalidity ? MF_UIDVALIDITY : message ? MF_OK : MF_NOT_FOUND;
	if (e == MF_OK) {
		*ret = message->bytes;
		message->bytes->users++;
		m->fetched++;
	}
	pthread_mutex_unlock(&m->lock);
	return e;
}

/* How many of these bytes still come through. */
static size_t cut_bytes(struct memory_server *m, size_t len)
{
	pthread_mutex_lock(&m->lock);
	if (m->cut_bytes != UINT64_MAX) {
		if (m->cut_bytes < len)
			len = (size_t)m->cut_bytes;
		m->cut_bytes -= len;
	}
	m->bytes_fetched += len;
	pthread_mutex_unlock(&m->lock);
	return len;
}

static enum mf_err send_bytes(struct pipeline *p, const char *data, size_t len)
{
	struct memory_server *m = p->s->server;
	while (len) {
		size_t piece = len < PIECE ? len : PIECE, through = cut_bytes(m, piece);
		enum mf_err e = memory_answer(p->s, through);
		if (e == MF_OK && through)
			e = p->sink->data(p->sink->context, data, through);
		if (e != MF_OK)
			return e;
		if (through < piece) {
			memory_cut_fetch(m, UINT64_MAX);
			return memory_die(p->s, MF_OFFLINE, "connection cut");
		}
		data += piece;
		len -= piece;
	}
	return MF_OK;
}

static bool gives_part(struct memory_server *m, const struct command *c)
{
	pthread_mutex_lock(&m->lock);
	bool part = c->length && !m->whole_always;
	pthread_mutex_unlock(&m->lock);
	return part;
}

static enum mf_err send_item(struct pipeline *p, const struct command *c, uint32_t uid)
{
	struct memory_bytes *bytes = NULL;
	bool part = gives_part(p->s->server, c);
	enum mf_err found = find_bytes(p->s->server, c, uid, &bytes);
	enum mf_err e = memory_answer(p->s, 40);
	if (found != MF_OK)
		return e == MF_OK ? p->sink->end(p->sink->context, uid, found, false) : e;
	uint64_t from = part && c->offset < bytes->len ? c->offset : part ? bytes->len : 0;
	uint64_t len = bytes->len - from;
	if (part && len > c->length)
		len = c->length;
	if (e == MF_OK)
		e = p->sink->begin(p->sink->context, uid, part ? c->offset : 0, len);
	if (e == MF_OK)
		e = send_bytes(p, bytes->data + from, (size_t)len);
	if (e == MF_OK)
		e = p->sink->end(p->sink->context, uid, MF_OK, len == bytes->len);
	memory_bytes_unref(p->s->server, bytes);
	return e;
}

static void pipeline_pop(struct pipeline *p)
{
	free(p->commands[p->first].raw);
	free(p->commands[p->first].uids);
	p->first = (p->first + 1) % DEPTH;
	p->count--;
}

enum mf_err memory_fetch(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink)
{
	struct memory_session *s = (struct memory_session *)r;
	struct pipeline p = {.s = s, .source = source, .sink = sink};
	enum mf_err e = memory_enter(s, MEMORY_FETCH);
	if (e != MF_OK)
		return e;
	for (pipeline_fill(&p); p.count && e == MF_OK; pipeline_fill(&p)) {
		const struct command *c = &p.commands[p.first];
		e = memory_sleep_until(s, c->arrives_ns);
		for (size_t i = 0; i < c->count && e == MF_OK; i++) {
			e = send_item(&p, c, c->uids[i]);
			if (e == MF_OK && i + 1 < c->count)
				pipeline_fill(&p);
		}
		pipeline_pop(&p);
		if (e != MF_OK)
			break;
	}
	while (p.count)
		pipeline_pop(&p);
	return e;
}

/* The memory back-end: changes that a session makes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "sync/memory_state.h"

struct outcome {                    /* of one write */
	enum mf_err result;
	const char *reason;
	uint32_t uidvalidity;
	struct uid_pair *pairs;
	size_t count;
	bool *there;
};

static void refuse(struct outcome *o, enum mf_err e, const char *reason)
{
	o->result = e;
	o->reason = reason;
}

static void add_pair(struct outcome *o, uint32_t from, uint32_t to)
{
	o->pairs = mf_realloc_array(o->pairs, o->count + 1, sizeof *o->pairs);
	o->pairs[o->count++] = (struct uid_pair){from, to};
}

/* --- keywords: names between single spaces, sorted ------------------------------------------------------------------------ */

static size_t word_len(const char *p)
{
	return strcspn(p, " ");
}

static const char *next_word(const char *p)
{
	p += word_len(p);
	return *p ? p + 1 : p;
}

static bool has_word(const char *words, const char *word, size_t len)
{
	for (const char *p = words; *p; p = next_word(p)) {
		if (word_len(p) == len && memcmp(p, word, len) == 0)
			return true;
	}
	return false;
}

static void add_words(struct buf *to, const char *words, const char *without)
{
	for (const char *p = words; *p; p = next_word(p)) {
		if (has_word(without, p, word_len(p)) || has_word(to->data, p, word_len(p)))
			continue;
		(void)buf_adds(to, to->len ? " " : "");
		(void)buf_add(to, p, word_len(p));
	}
}

static int by_word(const void *a, const void *b)
{
	const char *x = *(const char *const *)a, *y = *(const char *const *)b;
	size_t m = word_len(x), n = word_len(y);
	int order = memcmp(x, y, m < n ? m : n);
	return order ? order : (m > n) - (m < n);
}

static char *sorted_words(const char *words)
{
	const char **list = mf_alloc_array(strlen(words) + 1, sizeof *list);
	size_t count = 0;
	struct buf sorted;
	for (const char *p = words; *p; p = next_word(p))
		list[count++] = p;
	qsort(list, count, sizeof *list, by_word);
	buf_init(&sorted, 1U << 16);
	for (size_t i = 0; i < count; i++) {
		(void)buf_adds(&sorted, i ? " " : "");
		(void)buf_add(&sorted, list[i], word_len(list[i]));
	}
	free(list);
	return buf_detach(&sorted);
}

static char *keywords_changed(const char *old, const char *add, const char *remove)
{
	struct buf words;
	buf_init(&words, 1U << 16);
	add_words(&words, old, remove ? remove : "");
	add_words(&words, add ? add : "", "");
	char *sorted = sorted_words(words.data);
	buf_finish(&words);
	return sorted;
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */

static struct memory_mailbox *source_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = memory_find_locked(s->server, w->raw);
	if (!b)
		refuse(o, MF_NOT_FOUND, "no such mailbox");
	else if (b->flags & MAILBOX_NOSELECT)
		refuse(o, MF_DENIED, "it cannot be selected");
	else if (b->uidvalidity != w->uidvalidity)
		refuse(o, MF_UIDVALIDITY, "");
	else if ((b->flags & MAILBOX_READONLY) && w->kind != WRITE_COPY)
		refuse(o, MF_DENIED, "the mailbox is read-only");
	return o->result == MF_OK ? b : NULL;
}

static struct memory_mailbox *destination_locked(struct memory_session *s, const char *raw, struct outcome *o)
{
	struct memory_mailbox *b = memory_find_locked(s->server, raw);
	if (!b)
		refuse(o, MF_NOT_FOUND, "no such mailbox");
	else if (b->flags & (MAILBOX_NOSELECT | MAILBOX_READONLY))
		refuse(o, MF_DENIED, "nothing can be put there");
	return o->result == MF_OK ? b : NULL;
}

static bool takes_quota_locked(struct memory_server *m, uint64_t bytes, struct outcome *o)
{
	if (m->quota.limit && bytes > m->quota.limit - (m->quota.used < m->quota.limit ? m->quota.used : m->quota.limit)) {
		refuse(o, MF_QUOTA, "over quota");
		return false;
	}
	m->quota.used += m->quota.limit ? bytes : 0;
	return true;
}

/* Returns whether that has changed anything. */
static bool flag_locked(struct memory_mailbox *b, struct memory_message *message, const struct remote_write *w)
{
	char *keywords = keywords_changed(message->keywords, w->keywords, w->keywords_remove);
	unsigned flags = (message->flags | w->flags) & ~w->flags_remove;
	bool changed = flags != message->flags || strcmp(keywords, message->keywords) != 0;
	if (changed)
		message->modseq = ++b->modseq;
	free(message->keywords);
	message->keywords = keywords;
	message->flags = flags;
	return changed;
}

static void flags_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = source_locked(s, w, o);
	o->there = mf_alloc_array(w->count, sizeof *o->there);
	for (size_t i = 0; b && i < w->count; i++) {
		struct memory_message *message = memory_message_locked(b, w->uids[i]);
		o->there[i] = message && flag_locked(b, message, w);
	}
	if (b)
		memory_notify_locked(s->server, b->raw, false);
}

static uint64_t size_locked(const struct remote_write *w, struct memory_mailbox *b)
{
	uint64_t size = 0;
	for (size_t i = 0; i < w->count; i++) {
		const struct memory_message *message = memory_message_locked(b, w->uids[i]);
		size += message ? message->bytes->len : 0;
	}
	return size;
}

/* RFC 4315 3: what has been copied into a mailbox that may not be read has no numbers that are told */
static uint32_t told_validity(const struct memory_mailbox *to)
{
	return to->rights && !(to->rights & RIGHT('r')) ? 0 : to->uidvalidity;
}

static void copy_part_locked(struct memory_session *s, const struct remote_write *w, struct memory_mailbox *b, struct memory_mailbox *to, struct outcome *o)
{
	if (!takes_quota_locked(s->server, size_locked(w, b), o))
		return;
	for (size_t i = 0; i < w->count; i++) {
		struct memory_message *message = memory_message_locked(b, w->uids[i]);
		if (!message)
			continue;
		struct memory_message copy = *message;
		copy.keywords = mf_strdup(message->keywords);
		copy.bytes->users++;
		add_pair(o, w->uids[i], memory_append_locked(to, &copy));
	}
	o->uidvalidity = told_validity(to);
	memory_notify_locked(s->server, to->raw, true);
}

static void copy_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = source_locked(s, w, o), *to = b ? destination_locked(s, w->to, o) : NULL;
	struct remote_write part = *w;
	for (size_t left = to ? w->count : 0; left && o->result == MF_OK; left -= part.count) {
		part.uids = w->uids + (w->count - left);
		part.count = left < s->server->copy_part ? left : s->server->copy_part;
		copy_part_locked(s, &part, b, to, o);
	}
}

static void move_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	if (!(s->caps & REMOTE_MOVE)) {
		refuse(o, MF_UNSUPPORTED, "no MOVE");
		return;
	}
	struct memory_mailbox *b = source_locked(s, w, o), *to = b ? destination_locked(s, w->to, o) : NULL;
	struct memory_message message;
	for (size_t i = 0; to && i < w->count; i++) {
		if (memory_take_locked(b, w->uids[i], &message))
			add_pair(o, w->uids[i], memory_append_locked(to, &message));
	}
	if (!to)
		return;
	o->uidvalidity = told_validity(to);
	memory_notify_locked(s->server, b->raw, false);
	memory_notify_locked(s->server, to->raw, true);
}

/* Without UIDPLUS a server can only expunge all that is marked. */
static bool only_ours_locked(const struct memory_mailbox *b, const struct remote_write *w)
{
	size_t ours = 0;
	for (size_t i = 0; i < b->count; i++) {
		while (ours < w->count && w->uids[ours] < b->messages[i].uid)
			ours++;
		bool mine = ours < w->count && w->uids[ours] == b->messages[i].uid;
		if ((b->messages[i].flags & FLAG_DELETED) && !mine)
			return false;
	}
	return true;
}

static void expunge_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = source_locked(s, w, o);
	struct memory_message message;
	const struct remote_write mark = {.flags = FLAG_DELETED};
	for (size_t i = 0; b && i < w->count; i++) {
		struct memory_message *ours = memory_message_locked(b, w->uids[i]);
		if (ours)
			(void)flag_locked(b, ours, &mark);
	}
	if (b && !(s->caps & REMOTE_UIDPLUS) && !only_ours_locked(b, w))
		refuse(o, MF_CANCELLED, "others are marked");
	for (size_t i = 0; b && o->result == MF_OK && i < w->count; i++) {
		if (memory_take_locked(b, w->uids[i], &message))
			memory_message_finish_locked(&message);
	}
	if (b)
		memory_notify_locked(s->server, b->raw, false);
}

static void append_locked(struct memory_session *s, const struct remote_write *w, struct memory_bytes *bytes, struct outcome *o)
{
	struct memory_server *m = s->server;
	struct memory_mailbox *to = destination_locked(s, w->raw, o);
	if (to && (w->size > m->append_limit || (to->append_limit && w->size > to->append_limit)))
		refuse(o, MF_TOO_BIG, "too big");
	if (!to || o->result != MF_OK || !takes_quota_locked(m, w->size, o))
		return;
	struct memory_message message = {
		.flags = w->flags, .keywords = keywords_changed("", w->keywords, NULL), .claim = w->size, .number = m->next_number++,
		.date = w->internal_date ? w->internal_date : time(NULL), .bytes = bytes,
	};
	bytes->users++;
	if (m->late_ms && !m->cut_answers && !m->late.raw) { /* nobody will hear of it */
		m->late = (struct memory_late){mf_strdup(to->raw), message};
		return;
	}
	add_pair(o, 0, memory_append_locked(to, &message));
	o->uidvalidity = to->uidvalidity;
	memory_notify_locked(m, to->raw, true);
}

void memory_catch_up_locked(struct memory_server *m, const char *raw)
{
	struct memory_mailbox *to = m->late.raw && strcmp(m->late.raw, raw) == 0 ? memory_find_locked(m, raw) : NULL;
	if (!to)
		return;
	(void)memory_append_locked(to, &m->late.message);
	free(m->late.raw);
	m->late.raw = NULL;
	memory_notify_locked(m, raw, true);
}

/* Both, or nothing */
static void replace_locked(struct memory_session *s, const struct remote_write *w, struct memory_bytes *bytes, struct outcome *o)
{
	struct memory_mailbox *b = source_locked(s, w, o);
	struct memory_message old;
	if (b && !memory_message_locked(b, w->uids[0]))
		refuse(o, MF_NOT_FOUND, "there is no such message");
	if (o->result == MF_OK)
		append_locked(s, w, bytes, o);
	if (o->result == MF_OK && memory_take_locked(b, w->uids[0], &old))
		memory_message_finish_locked(&old);
}

/* --- mailboxes ------------------------------------------------------------------------------------------------------------ */

static void create_locked(struct memory_session *s, const struct remote_write *w)
{
	struct memory_mailbox *b = memory_find_locked(s->server, w->raw);
	if (b)
		b->flags &= ~(unsigned)MAILBOX_NOSELECT;
	else
		memory_mailbox_add_locked(s->server, w->raw, 0, USE_NONE);
}

static void delete_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = memory_find_locked(s->server, w->raw);
	if (strcasecmp(w->raw, "INBOX") == 0)
		refuse(o, MF_DENIED, "INBOX cannot be deleted");
	else if (b && b->count)
		refuse(o, MF_EXISTS, "there are messages in it");
	else if (b)
		memory_mailbox_remove_locked(s->server, w->raw);
}

/* The mailbox and those below it. */
static void rename_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_server *m = s->server;
	if (strcasecmp(w->raw, "INBOX") == 0)
		refuse(o, MF_UNSUPPORTED, "INBOX cannot be renamed");
	else if (!memory_find_locked(m, w->raw))
		refuse(o, MF_NOT_FOUND, "no such mailbox");
	else if (memory_find_locked(m, w->to))
		refuse(o, MF_EXISTS, "there is one of that name");
	else
		(void)memory_mailbox_rename_locked(m, w->raw, w->to);
}

static void subscribe_locked(struct memory_session *s, const struct remote_write *w, struct outcome *o)
{
	struct memory_mailbox *b = memory_find_locked(s->server, w->raw);
	if (b && w->kind == WRITE_SUBSCRIBE)
		b->flags |= MAILBOX_SUBSCRIBED;
	else if (b)
		b->flags &= ~(unsigned)MAILBOX_SUBSCRIBED;
	else if (w->kind == WRITE_SUBSCRIBE)
		refuse(o, MF_NOT_FOUND, "no such mailbox");
}

/* --- the verb -------------------------------------------------------------------------------------------------------------- */

static void carry_out_locked(struct memory_session *s, const struct remote_write *w, struct memory_bytes *bytes, struct outcome *o)
{
	if (s->server->refusals[w->kind] != MF_OK) {
		refuse(o, s->server->refusals[w->kind], "a scripted refusal");
		return;
	}
	switch (w->kind) {
	case WRITE_FLAGS: flags_locked(s, w, o); break;
	case WRITE_APPEND: append_locked(s, w, bytes, o); break;
	case WRITE_REPLACE: replace_locked(s, w, bytes, o); break;
	case WRITE_COPY: copy_locked(s, w, o); break;
	case WRITE_MOVE: move_locked(s, w, o); break;
	case WRITE_EXPUNGE: expunge_locked(s, w, o); break;
	case WRITE_CREATE: create_locked(s, w); break;
	case WRITE_DELETE: delete_locked(s, w, o); break;
	case WRITE_RENAME: rename_locked(s, w, o); break;
	case WRITE_SUBSCRIBE: case WRITE_UNSUBSCRIBE: subscribe_locked(s, w, o); break;
	}
	bool copies = w->kind == WRITE_COPY || w->kind == WRITE_MOVE;
	if (!(s->caps & REMOTE_UIDPLUS) || (copies && s->server->tell_no_copies))
		o->uidvalidity = 0;
	if (!o->uidvalidity)
		o->count = 0;
}

static enum mf_err read_file(struct memory_session *s, const struct remote_write *w, struct memory_bytes **ret)
{
	MF_CLEANUP(mf_free) char *data = mf_alloc((size_t)w->size + 1);
	size_t len;
	if (file_read(w->fd, 0, data, (size_t)w->size, &len) || len < w->size)
		return memory_die(s, MF_IO, "the message cannot be read");
	*ret = memory_bytes_create(data, (size_t)w->size);
	return MF_OK;
}

struct done { struct outcome outcome; struct memory_bytes *bytes; };

static enum mf_err do_one(struct memory_session *s, const struct remote_write *w, struct done *ret)
{
	*ret = (struct done){ .outcome = { .reason = "" } };
	enum mf_err e = w->kind == WRITE_APPEND || w->kind == WRITE_REPLACE ? read_file(s, w, &ret->bytes) : MF_OK;
	if (e != MF_OK)
		return e;
	pthread_mutex_lock(&s->server->lock);
	carry_out_locked(s, w, ret->bytes, &ret->outcome);
	pthread_mutex_unlock(&s->server->lock);
	return MF_OK;
}

static enum mf_err answer_one(struct memory_session *s, const struct done *done, size_t i, const struct write_sink *sink)
{
	const struct outcome *o = &done->outcome;
	enum mf_err e = memory_answer(s, 40 + (done->bytes ? done->bytes->len : 0));
	if (e != MF_OK)
		return e;
	return sink->done(sink->context, i, &(struct write_result){.result = o->result, .reason = o->reason, .uidvalidity = o->uidvalidity,
	                                                           .pairs = o->pairs, .count = o->count, .there = o->there});
}

static enum mf_err write_some(struct memory_session *s, const struct remote_write *writes, size_t first, size_t count, const struct write_sink *sink)
{
	struct done *done = mf_alloc_array(count, sizeof *done);
	enum mf_err e = MF_OK;
	size_t made = 0;
	for (size_t i = 0; i < count && e == MF_OK; i++, made++)
		e = do_one(s, &writes[first + i], &done[i]);
	for (size_t i = 0; i < count && e == MF_OK; i++)
		e = answer_one(s, &done[i], first + i, sink);
	for (size_t i = 0; i < made; i++) {
		if (done[i].bytes)
			memory_bytes_unref(s->server, done[i].bytes);
		free(done[i].outcome.pairs);
		free(done[i].outcome.there);
	}
	free(done);
	return e;
}

enum mf_err memory_write(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	struct memory_session *s = (struct memory_session *)r;
	enum mf_err e = memory_enter(s, MEMORY_WRITE);
	if (e == MF_OK && count)
		e = memory_travel(s, 2); /* SELECT, and what is done there */
	pthread_mutex_lock(&s->server->lock);
	size_t together = s->server->together;
	pthread_mutex_unlock(&s->server->lock);
	for (size_t i = 0; i < count && e == MF_OK; i += together)
		e = write_some(s, writes, i, count - i < together ? count - i : together, sink);
	return e;
}

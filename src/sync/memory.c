/* The memory back-end: what the server holds, and how tests change it. */
#include "sync/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/mem.h"
#include "sync/memory_state.h"

#define ALL_CAPS (REMOTE_MAILBOXES | REMOTE_FLAGS | REMOTE_PUSH | REMOTE_RANGES | REMOTE_UIDPLUS | REMOTE_MOVE | REMOTE_QUOTA \
	| REMOTE_STATUS_MODSEQ | REMOTE_OBJECTID | REMOTE_QRESYNC | REMOTE_CONDSTORE | REMOTE_ACL | REMOTE_REPLACE)

struct memory_server *memory_server_create(void)
{
	struct memory_server *m = MF_NEW(struct memory_server);
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->changed, NULL);
	m->next_validity = 1000;
	m->next_number = 1;
	m->caps = ALL_CAPS;
	m->cut_bytes = UINT64_MAX;
	m->cut_answers = m->pause_answers = UINT32_MAX;
	m->append_limit = UINT64_MAX;
	m->copy_part = SIZE_MAX;
	m->together = 1;
	m->release_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	memory_mailbox_add(m, "INBOX", MAILBOX_SUBSCRIBED, USE_INBOX);
	return m;
}

void memory_bytes_unref(struct memory_server *m, struct memory_bytes *bytes)
{
	pthread_mutex_lock(&m->lock);
	bool last = --bytes->users == 0;
	pthread_mutex_unlock(&m->lock);
	if (last)
		free(bytes);
}

void memory_message_finish_locked(struct memory_message *message)
{
	free(message->keywords);
	if (message->bytes && --message->bytes->users == 0)
		free(message->bytes);
}

void memory_mailbox_free_locked(struct memory_mailbox *b)
{
	for (size_t i = 0; i < b->count; i++)
		memory_message_finish_locked(&b->messages[i]);
	free(b->messages);
	free(b->gone);
	free(b->raw);
	free(b);
}

void memory_server_destroy(struct memory_server *m)
{
	if (!m)
		return;
	while (m->mailboxes) {
		struct memory_mailbox *b = m->mailboxes;
		m->mailboxes = b->next;
		memory_mailbox_free_locked(b);
	}
	if (m->late.raw)
		memory_message_finish_locked(&m->late.message);
	free(m->late.raw);
	mf_close(&m->release_fd);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* --- finding -------------------------------------------------------------------------------------------------------- */

struct memory_mailbox *memory_find_locked(struct memory_server *m, const char *raw)
{
	struct memory_mailbox *b = m->mailboxes;
	while (b && strcmp(b->raw, raw) != 0)
		b = b->next;
	return b;
}

static int compare_uid(const void *key, const void *message)
{
	uint32_t uid = *(const uint32_t *)key, other = ((const struct memory_message *)message)->uid;
	return (uid > other) - (uid < other);
}

struct memory_message *memory_message_locked(struct memory_mailbox *b, uint32_t uid)
{
	return b->count ? bsearch(&uid, b->messages, b->count, sizeof *b->messages, compare_uid) : NULL;
}

void memory_status_locked(const struct memory_mailbox *b, unsigned caps, struct mailbox_status *ret)
{
	*ret = (struct mailbox_status){.uidvalidity = b->uidvalidity, .uidnext = b->uidnext, .messages = (uint32_t)b->count,
	                               .append_limit = b->append_limit, .modseq = caps & (REMOTE_CONDSTORE | REMOTE_QRESYNC) ? b->modseq : 0};
	for (size_t i = 0; i < b->count; i++)
		ret->unseen += !(b->messages[i].flags & FLAG_SEEN);
}

/* Tells the sessions that watch. raw NULL: the list of mailboxes changed. */
void memory_notify_locked(struct memory_server *m, const char *raw, bool new_only)
{
	for (struct memory_session *s = m->sessions; s; s = s->next) {
		if (!s->watched || !((s->caps & REMOTE_PUSH_ALL) || (raw && strcmp(s->watched, raw) == 0)))
			continue;
		size_t size = raw ? strlen(raw) + 1 : 1;
		struct memory_notice *n = mf_alloc(sizeof *n + size);
		n->new_only = new_only;
		n->list = !raw;
		if (raw)
			memcpy(n->raw, raw, size);
		*s->notices_end = n;
		s->notices_end = &n->next;
		(void)eventfd_write(s->event_fd, 1);
	}
}

/* --- changing --------------------------------------------------------------------------------------------------------- */

void memory_mailbox_add_locked(struct memory_server *m, const char *raw, unsigned flags, enum special_use use)
{
	struct memory_mailbox *b = MF_NEW(struct memory_mailbox), **end = &m->mailboxes;
	b->raw = mf_strdup(raw);
	b->flags = flags;
	b->use = use;
	b->uidvalidity = m->next_validity++;
	b->uidnext = 1;
	b->modseq = 1;
	b->number = m->next_number++;
	while (*end)
		end = &(*end)->next;
	*end = b;
	memory_notify_locked(m, NULL, false);
}

void memory_mailbox_add(struct memory_server *m, const char *raw, unsigned flags, enum special_use use)
{
	pthread_mutex_lock(&m->lock);
	memory_mailbox_add_locked(m, raw, flags, use);
	pthread_mutex_unlock(&m->lock);
}

void memory_mailbox_remove_locked(struct memory_server *m, const char *raw)
{
	for (struct memory_mailbox **at = &m->mailboxes; *at; at = &(*at)->next) {
		if (strcmp((*at)->raw, raw) != 0)
			continue;
		struct memory_mailbox *b = *at;
		*at = b->next;
		memory_mailbox_free_locked(b);
		memory_notify_locked(m, NULL, false);
		break;
	}
}

bool memory_mailbox_rename_locked(struct memory_server *m, const char *raw, const char *to)
{
	size_t len = strlen(raw);
	if (!memory_find_locked(m, raw) || memory_find_locked(m, to))
		return false;
	for (struct memory_mailbox *b = m->mailboxes; b; b = b->next) {
		if (strncmp(b->raw, raw, len) != 0 || (b->raw[len] && b->raw[len] != '/'))
			continue;
		char *renamed = mf_format("%s%s", to, b->raw + len);
		free(b->raw);
		b->raw = renamed;
	}
	memory_notify_locked(m, NULL, false);
	return true;
}

bool memory_mailbox_rename(struct memory_server *m, const char *raw, const char *to)
{
	pthread_mutex_lock(&m->lock);
	bool renamed = memory_mailbox_rename_locked(m, raw, to);
	pthread_mutex_unlock(&m->lock);
	return renamed;
}

void memory_mailbox_remove(struct memory_server *m, const char *raw)
{
	pthread_mutex_lock(&m->lock);
	memory_mailbox_remove_locked(m, raw);
	pthread_mutex_unlock(&m->lock);
}

static size_t header_length(const char *data, size_t len)
{
	const char *end = memmem(data, len, "\r\n\r\n", 4);
	return end ? (size_t)(end - data) + 4 : len;
}

uint32_t memory_append_locked(struct memory_mailbox *b, const struct memory_message *message)
{
	if (b->count == b->capacity) {
		b->capacity = b->capacity ? b->capacity * 2 : 16;
		b->messages = mf_realloc_array(b->messages, b->capacity, sizeof *b->messages);
	}
	struct memory_message *new = &b->messages[b->count++];
	*new = *message;
	new->uid = b->uidnext++;
	new->modseq = ++b->modseq;
	return new->uid;
}

struct memory_bytes *memory_bytes_create(const void *data, size_t len)
{
	struct memory_bytes *bytes = mf_alloc(sizeof *bytes + len + 1);
	*bytes = (struct memory_bytes){.users = 1, .len = len, .header_len = header_length(data, len)};
	if (len)
		memcpy(bytes->data, data, len);
	return bytes;
}

uint32_t memory_deliver(struct memory_server *m, const char *raw, const void *data, size_t len, int64_t date, unsigned flags)
{
	uint32_t uid = 0;
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b) {
		struct memory_message message = {.flags = flags, .keywords = mf_strdup(""), .claim = len, .number = m->next_number++,
		                                 .date = date, .bytes = memory_bytes_create(data, len)};
		uid = memory_append_locked(b, &message);
		memory_notify_locked(m, raw, true);
	}
	pthread_mutex_unlock(&m->lock);
	return uid;
}

/* Takes it out; *ret is the message, with what it owns. */
bool memory_take_locked(struct memory_mailbox *b, uint32_t uid, struct memory_message *ret)
{
	struct memory_message *message = b ? memory_message_locked(b, uid) : NULL;
	if (!message)
		return false;
	*ret = *message;
	size_t at = (size_t)(message - b->messages);
	memmove(message, message + 1, (b->count - at - 1) * sizeof *message);
	b->count--;
	if (b->gone_count == b->gone_capacity) {
		b->gone_capacity = b->gone_capacity ? b->gone_capacity * 2 : 16;
		b->gone = mf_realloc_array(b->gone, b->gone_capacity, sizeof *b->gone);
	}
	b->gone[b->gone_count++] = (struct memory_gone){.uid = uid, .modseq = ++b->modseq};
	return true;
}

bool memory_expunge(struct memory_server *m, const char *raw, uint32_t uid)
{
	struct memory_message message;
	pthread_mutex_lock(&m->lock);
	bool found = memory_take_locked(memory_find_locked(m, raw), uid, &message);
	if (found) {
		memory_message_finish_locked(&message);
		memory_notify_locked(m, raw, false);
	}
	pthread_mutex_unlock(&m->lock);
	return found;
}

bool memory_flag(struct memory_server *m, const char *raw, uint32_t uid, unsigned flags, const char *keywords)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	struct memory_message *message = b ? memory_message_locked(b, uid) : NULL;
	if (message) {
		message->flags = flags;
		free(message->keywords);
		message->keywords = mf_strdup(keywords);
		message->modseq = ++b->modseq;
		memory_notify_locked(m, raw, false);
	}
	pthread_mutex_unlock(&m->lock);
	return message != NULL;
}

uint32_t memory_move(struct memory_server *m, const char *raw, uint32_t uid, const char *to)
{
	struct memory_message message;
	uint32_t new_uid = 0;
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *target = memory_find_locked(m, to);
	if (target && memory_take_locked(memory_find_locked(m, raw), uid, &message)) {
		new_uid = memory_append_locked(target, &message);
		memory_notify_locked(m, raw, false);
		memory_notify_locked(m, to, true);
	}
	pthread_mutex_unlock(&m->lock);
	return new_uid;
}

void memory_renumber(struct memory_server *m, const char *raw)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b) {
		b->uidvalidity = m->next_validity++;
		for (size_t i = 0; i < b->count; i++)
			b->messages[i].uid = (uint32_t)i + 1 + b->uidnext % 7;
		b->uidnext = b->count ? b->messages[b->count - 1].uid + 1 : 1;
		b->gone_count = 0;
		b->modseq++;
		memory_notify_locked(m, raw, false);
	}
	pthread_mutex_unlock(&m->lock);
}

void memory_claim_size(struct memory_server *m, const char *raw, uint32_t uid, uint64_t size)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	struct memory_message *message = b ? memory_message_locked(b, uid) : NULL;
	if (message)
		message->claim = size;
	pthread_mutex_unlock(&m->lock);
}

/* --- behaviour: one number or bit each -------------------------------------------------------------------------------- */

#define SET(m, statement) do { pthread_mutex_lock(&(m)->lock); statement; pthread_mutex_unlock(&(m)->lock); } while (0)

void memory_rights(struct memory_server *m, const char *raw, const char *letters)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b)
		b->rights = letters ? RIGHTS_TOLD : 0;
	for (; b && letters && *letters; letters++)
		b->rights |= RIGHT(*letters);
	pthread_mutex_unlock(&m->lock);
}

void memory_quota(struct memory_server *m, uint64_t used, uint64_t limit)
{
	SET(m, (m->quota.used = used, m->quota.limit = limit));
}

void memory_caps(struct memory_server *m, unsigned caps)
{
	SET(m, m->caps = caps);
}

void memory_line(struct memory_server *m, int64_t round_trip_ms, uint64_t bytes_per_s)
{
	SET(m, (m->round_trip_ms = round_trip_ms, m->bytes_per_s = bytes_per_s));
}

void memory_login_result(struct memory_server *m, enum mf_err e)
{
	SET(m, m->login_result = e);
}

void memory_session_limit(struct memory_server *m, unsigned limit)
{
	SET(m, m->session_limit = limit);
}

void memory_fail_call(struct memory_server *m, enum memory_verb verb, unsigned n, enum mf_err e)
{
	SET(m, (m->faults[verb] = (struct memory_fault){.countdown = n, .error = e}));
}

void memory_cut_fetch(struct memory_server *m, uint64_t bytes)
{
	SET(m, m->cut_bytes = bytes);
}

void memory_cut_answers(struct memory_server *m, unsigned answers)
{
	SET(m, m->cut_answers = answers);
}

void memory_late(struct memory_server *m, int64_t ms)
{
	SET(m, m->late_ms = ms);
}

void memory_refuse_writes(struct memory_server *m, enum write_kind kind, enum mf_err e)
{
	SET(m, m->refusals[kind] = e);
}

void memory_tell_append_limit(struct memory_server *m, const char *raw, uint64_t bytes)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b)
		b->append_limit = bytes;
	memory_notify_locked(m, NULL, false);
	pthread_mutex_unlock(&m->lock);
}

void memory_append_limit(struct memory_server *m, uint64_t bytes)
{
	SET(m, m->append_limit = bytes);
}

void memory_together(struct memory_server *m, size_t count)
{
	SET(m, m->together = count);
}

void memory_copy_part(struct memory_server *m, size_t count)
{
	SET(m, m->copy_part = count);
}

void memory_hide_vanished(struct memory_server *m, bool hide)
{
	SET(m, m->hide_vanished = hide);
}

void memory_hide_newest(struct memory_server *m, const char *raw, size_t count)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b)
		b->hidden = count;
	pthread_mutex_unlock(&m->lock);
}

void memory_unreadable(struct memory_server *m, const char *raw, bool unreadable)
{
	pthread_mutex_lock(&m->lock);
	struct memory_mailbox *b = memory_find_locked(m, raw);
	if (b)
		b->unreadable = unreadable;
	pthread_mutex_unlock(&m->lock);
}

void memory_empty_status(struct memory_server *m, bool empty)
{
	SET(m, m->empty_status = empty);
}

void memory_whole_always(struct memory_server *m, bool always)
{
	SET(m, m->whole_always = always);
}

void memory_tell_no_copies(struct memory_server *m, bool silent)
{
	SET(m, m->tell_no_copies = silent);
}

void memory_block(struct memory_server *m, enum memory_verb verb)
{
	eventfd_t ignored;
	pthread_mutex_lock(&m->lock);
	(void)eventfd_read(m->release_fd, &ignored);
	m->blocking[verb] = true;
	pthread_mutex_unlock(&m->lock);
}

void memory_pause(struct memory_server *m, unsigned answers)
{
	SET(m, m->pause_answers = answers);
}

void memory_release(struct memory_server *m)
{
	pthread_mutex_lock(&m->lock);
	memset(m->blocking, 0, sizeof m->blocking);
	(void)eventfd_write(m->release_fd, 1);
	pthread_mutex_unlock(&m->lock);
}

bool memory_await_blocked(struct memory_server *m, int64_t timeout_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(timeout_ms / 1000 + 1);
	int waited = 0;
	pthread_mutex_lock(&m->lock);
	while (m->blocked == 0 && waited == 0)
		waited = pthread_cond_timedwait(&m->changed, &m->lock, &until);
	bool blocked = m->blocked > 0;
	pthread_mutex_unlock(&m->lock);
	return blocked;
}

void memory_drop_sessions(struct memory_server *m)
{
	pthread_mutex_lock(&m->lock);
	for (struct memory_session *s = m->sessions; s; s = s->next) {
		s->dropped = true;
		(void)eventfd_write(s->event_fd, 1);
	}
	pthread_mutex_unlock(&m->lock);
}

/* --- what has been asked ------------------------------------------------------------------------------------------------- */

#define GET(m, type, value) do { pthread_mutex_lock(&(m)->lock); type got = (value); pthread_mutex_unlock(&(m)->lock); return got; } while (0)

unsigned memory_calls(struct memory_server *m, enum memory_verb verb)
{
	GET(m, unsigned, m->calls[verb]);
}

uint64_t memory_bytes_fetched(struct memory_server *m)
{
	GET(m, uint64_t, m->bytes_fetched);
}

unsigned memory_messages_fetched(struct memory_server *m)
{
	GET(m, unsigned, m->fetched);
}

unsigned memory_mailboxes_checked(struct memory_server *m)
{
	GET(m, unsigned, m->checked);
}

unsigned memory_sessions(struct memory_server *m)
{
	GET(m, unsigned, m->logged_in);
}

unsigned memory_answers(struct memory_server *m)
{
	GET(m, unsigned, m->answers);
}

void memory_forget_calls(struct memory_server *m)
{
	pthread_mutex_lock(&m->lock);
	memset(m->calls, 0, sizeof m->calls);
	m->fetched = m->checked = m->answers = 0;
	m->bytes_fetched = 0;
	pthread_mutex_unlock(&m->lock);
}

/* What the server says by itself: waits for it, and reads what it means on the same connection. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "sync/engine.h"

#define PUSHED_MAX 64

struct pushed {
	char *raw[PUSHED_MAX];
	bool new_only[PUSHED_MAX];
	size_t count;
	bool list;              /* the list of mailboxes, or too many of them */
};

bool push_can_wait(const struct session *s)
{
	return s->account->config->idle && (s->caps & (REMOTE_PUSH | REMOTE_PUSH_ALL));
}

static void push_changed(void *context, const char *raw, bool new_only)
{
	struct pushed *p = context;
	if (!raw) {
		p->list = true;
		return;
	}
	for (size_t i = 0; i < p->count; i++) {
		if (strcmp(p->raw[i], raw) == 0) {
			p->new_only[i] &= new_only;
			return;
		}
	}
	if (p->count == PUSHED_MAX) {
		p->list = true; /* its numbers say which */
		return;
	}
	p->new_only[p->count] = new_only;
	p->raw[p->count++] = mf_strdup(raw);
}

/* Whether this session may check the mailbox now; else whoever does so already is to do it again. */
static bool push_take(struct session *s, const struct mailbox *m, bool new_only)
{
	struct account *a = s->account;
	enum change_method method = new_only ? CHANGES_NEW_ONLY : CHANGES_AUTO;
	pthread_mutex_lock(&a->lock);
	struct mailbox_work *w = id_table_get(&a->mailboxes, m->id);
	bool taken = false;
	if (w && !work_rests_locked(w) && (m->complete || w->policy != SYNC_DEMAND)) {
		if (!w->running && m->complete && w->pending == PRIORITY_NONE) {
			taken = true;
			work_begin_locked(w, method);
		} else {
			work_want_locked(a, w, PRIORITY_LOOKED_AT, method);
		}
	}
	pthread_mutex_unlock(&a->lock);
	return taken;
}

static enum mf_err push_check(struct session *s, const struct pushed *p)
{
	struct account *a = s->account;
	uint64_t ids[PUSHED_MAX];
	size_t count = 0;
	for (size_t i = 0; i < p->count; i++) {
		struct mailbox m;
		if (cache_mailbox_by_raw(a->cache, p->raw[i], &m) != MF_OK)
			continue; /* left out by the settings, or the next LIST brings it */
		if (push_take(s, &m, p->new_only[i]))
			ids[count++] = m.id;
		mailbox_finish(&m);
	}
	if (p->list) {
		pthread_mutex_lock(&a->lock);
		a->list_pending = true;
		if (a->list_priority < PRIORITY_LOOKED_AT)
			a->list_priority = PRIORITY_LOOKED_AT;
		sessions_wake_locked(a, ROLE_WORKER);
		pthread_mutex_unlock(&a->lock);
	}
	return count ? syncmail_changes(s, ids, count) : MF_OK;
}

/* The INBOX as the server spells it. */
static char *push_inbox(struct account *a)
{
	struct mailbox_work *w;
	char *raw = NULL;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; !raw && (w = id_table_next(&a->mailboxes, &i));) {
		if (w->is_inbox && w->raw)
			raw = mf_strdup(w->raw);
	}
	pthread_mutex_unlock(&a->lock);
	return raw ? raw : mf_strdup("INBOX");
}

static enum mf_err push_listen(struct session *s, const char *raw, int64_t timeout_ms)
{
	struct account *a = s->account;
	struct pushed p = {.count = 0};
	pthread_mutex_lock(&a->lock);
	s->idling_watch = timeout_ms != 0;
	pthread_mutex_unlock(&a->lock);
	enum mf_err e = remote_wait(s->remote, raw, timeout_ms, s->wake_fd, &(struct push_sink){push_changed, &p});
	pthread_mutex_lock(&a->lock);
	s->idling_watch = s->idle = false;
	pthread_mutex_unlock(&a->lock);
	if (e == MF_OK)
		e = push_check(s, &p);
	for (size_t i = 0; i < p.count; i++)
		free(p.raw[i]);
	return e;
}

/* What happened before the server began to tell: once it listens, a short look is enough. */
static enum mf_err push_begin(struct session *s, const char *raw)
{
	enum mf_err e = push_listen(s, raw, 0);
	struct mailbox m;
	if (e != MF_OK || cache_mailbox_by_raw(s->account->cache, raw, &m) != MF_OK)
		return e;
	/* on this session, which has just opened it; without MODSEQ flags of all messages would have to be compared, which the
	 * poll does */
	if (push_take(s, &m, m.modseq == 0))
		e = syncmail_changes(s, &m.id, 1);
	mailbox_finish(&m);
	return e;
}

enum mf_err push_wait(struct session *s, int64_t timeout_ms)
{
	char *raw = push_inbox(s->account);
	enum mf_err e;
	if (!s->watch_begun) {
		s->watch_begun = true;
		e = push_begin(s, raw);
	} else {
		e = push_listen(s, raw, timeout_ms);
	}
	free(raw);
	return e;
}

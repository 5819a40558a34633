/* An account with both servers: when IMAP has been failing for `pop3-after`, INBOX goes on through POP3. That POP3 answers is
 * what shows that the network is up. IMAP is tried meanwhile, at growing intervals, on the worker's thread. */
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "sync/engine.h"

#define PAUSE_MIN_MS 1000
#define PAUSE_FIRST_MS 60000
#define PAUSE_MAX_MS 900000

static bool fallback_is_set_up(const struct account *a)
{
	return a->connector && a->config->imap.host && a->config->pop3.host;
}

/* What another way may help against: never a refused password, an untrusted certificate, a full disk. */
static bool fallback_may_help(enum mf_err error)
{
	return error == MF_OFFLINE || error == MF_TIMEOUT || error == MF_PROTOCOL;
}

bool fallback_is_due_locked(struct account *a, enum mf_err error)
{
	struct link *l = &a->link;
	int64_t now = clock_mono_ms();
	if (!fallback_is_set_up(a) || !fallback_may_help(error) || l->pop3_refused)
		return false;
	if (!l->imap_down_ms)
		l->imap_down_ms = now;
	return l->fallback || now - l->imap_down_ms >= a->config->pop3_after_ms;
}

int64_t fallback_cut_wait_locked(const struct account *a, int64_t ms)
{
	const struct link *l = &a->link;
	if (!fallback_is_set_up(a) || !l->imap_down_ms || l->pop3_refused)
		return ms;
	int64_t due = l->imap_down_ms + a->config->pop3_after_ms - clock_mono_ms();
	return due > 0 && due < ms ? due : ms;
}

void fallback_begin_locked(struct account *a, const char *reason)
{
	struct link *l = &a->link;
	snprintf(l->imap_reason.text, sizeof l->imap_reason.text, "%s", reason);
	if (l->fallback)
		return;
	int64_t pause = a->config->pop3_after_ms;
	l->imap_pause_ms = pause < PAUSE_MIN_MS ? PAUSE_MIN_MS : pause > PAUSE_FIRST_MS ? PAUSE_FIRST_MS : pause;
	l->imap_try_ms = clock_mono_ms() + l->imap_pause_ms;
	l->fallback = true;
	log_warning("%s: IMAP cannot be reached, INBOX goes on by POP3", a->config->name);
	/* what waits for other mailboxes would wait in vain */
	wants_fail_locked(a, MF_OFFLINE);
	bodies_drop_idle_locked(a);
	for (size_t i = 1; i < a->session_count; i++)
		session_reset_locked(&a->sessions[i]);
}

void fallback_end_locked(struct account *a)
{
	struct link *l = &a->link;
	l->imap_down_ms = 0;
	l->pop3_refused = false;
	if (!l->fallback)
		return;
	l->fallback = false;
	log_info("%s: IMAP can be reached again", a->config->name);
}

void fallback_retry_locked(struct account *a)
{
	a->link.pop3_refused = false;
	a->link.fallback = false;
}

int64_t fallback_next_try_locked(const struct account *a)
{
	return a->link.fallback ? a->link.imap_try_ms : INT64_MAX;
}

void fallback_tried_locked(struct account *a, const char *reason)
{
	struct link *l = &a->link;
	snprintf(l->imap_reason.text, sizeof l->imap_reason.text, "%s", reason);
	l->imap_pause_ms = l->imap_pause_ms > PAUSE_MAX_MS / 2 ? PAUSE_MAX_MS : l->imap_pause_ms * 2;
	l->imap_try_ms = clock_mono_ms() + l->imap_pause_ms;
}

/* Waiting for what others do: IDLE (RFC 2177), and NOTIFY (RFC 5465) for all mailboxes. */
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/imap/engine.h"

#define RENEW_MS (9 * 60000)     /* NAT boxes and Exchange forget a connection after ten minutes */
#define ANSWER_MS 60000          /* a server that does not answer the renewal by then is not there */
#define PUSHED_MAX (1U << 20)
#define BRIEF_MS 1000            /* an IDLE that the server ends sooner, by itself, */
#define BRIEF_MAX 3              /* so often in a row, is none */

/* --- what NOTIFY tells ----------------------------------------------------------------------------------------------- */

void imap_push_note(struct imap *s, const struct imap_data *data)
{
	if (data->kind == DATA_LIST)
		s->news_list = true;
	if (data->kind != DATA_STATUS)
		return;
	for (size_t at = 0; at < s->pushed.len; at += strlen(s->pushed.data + at) + 1)
		if (!strcmp(s->pushed.data + at, data->mailbox.raw))
			return;
	if (buf_add(&s->pushed, data->mailbox.raw, strlen(data->mailbox.raw) + 1))
		s->news_list = true; /* too many to name: everything is looked at */
}

void imap_push_overflowed(struct imap *s)
{
	s->news_list |= s->notify; /* what it has not told */
	s->notify = false;
}

/* --- what is known of the mailbox that is waited for ------------------------------------------------------------------ */

static bool is_watched(const struct imap *s, const char *raw)
{
	return s->watched && !strcmp(s->watched, raw);
}

void imap_watch_learnt(struct imap *s, const char *raw, const struct mailbox_status *status)
{
	if (is_watched(s, raw))
		s->watched_status = *status;
}

static bool is_as_known(const struct imap *s)
{
	const struct mailbox_status *now = &s->selected.status, *known = &s->watched_status;
	return now->uidvalidity == known->uidvalidity && now->uidnext == known->uidnext && now->messages == known->messages && now->modseq == known->modseq;
}

void imap_watch_selected(struct imap *s)
{
	if (s->selected.raw && is_watched(s, s->selected.raw) && !is_as_known(s))
		s->news |= NEWS_OTHER;
}

static void watch(struct imap *s, const char *raw)
{
	if (is_watched(s, raw))
		return;
	free(s->watched);
	s->watched = mf_strdup(raw);
	s->watched_status = (struct mailbox_status){ 0 };
}

/* true: something was told */
static bool tell(struct imap *s, const struct push_sink *sink)
{
	bool told = s->news || s->news_list || s->pushed.len;
	if (s->news && s->selected.raw)
		sink->changed(sink->context, s->selected.raw, s->news == NEWS_MESSAGES);
	for (size_t at = 0; at < s->pushed.len; at += strlen(s->pushed.data + at) + 1)
		sink->changed(sink->context, s->pushed.data + at, false);
	if (s->news_list)
		sink->changed(sink->context, NULL, false);
	s->news = 0;
	s->news_list = false;
	buf_reset(&s->pushed);
	return told;
}

/* --- IDLE ------------------------------------------------------------------------------------------------------------ */

static enum mf_err answered(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	if (cond->kind == COND_OK)
		return MF_OK;
	if (imap_cond_classify(cond) == MF_OFFLINE)
		return imap_cond_error(s, cond, c->what);
	if (c->idle)
		s->no_idle = true; /* offered and refused: it is polled */
	else
		s->notify = false;
	return MF_OK;
}

static enum mf_err selected(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	enum mf_err e = imap_cond_classify(cond);
	(void)c;
	return e == MF_OFFLINE ? imap_cond_error(s, cond, "EXAMINE") : MF_OK; /* not there: there is nothing to hear of it */
}

static bool may_idle(const struct imap *s)
{
	return s->options.idle && !s->no_idle && (s->caps & CAP(IDLE));
}

static bool may_notify(const struct imap *s)
{
	return s->options.idle && (s->caps & CAP(NOTIFY)) && !(imap_memory_distrusted(s->options.memory) & CAP(NOTIFY));
}

static enum mf_err start_notify(struct imap *s)
{
	if (s->notify || !may_notify(s))
		return MF_OK;
	s->notify = true;
	imap_put(s, "NOTIFY SET (selected-delayed (MessageNew MessageExpunge FlagChange)) "
	            "(personal (MessageNew MessageExpunge FlagChange MailboxName))");
	unsigned serial;
	enum mf_err e = imap_send(s, &(struct imap_command){ .what = "NOTIFY", .done = answered }, &serial);
	if (!e)
		e = imap_pump_until(s, serial);
	if (!e && !s->notify) {
		imap_memory_distrust(s->options.memory, CAP(NOTIFY));
		s->caps &= ~CAP(NOTIFY);
	}
	return e;
}

static enum mf_err start_idle(struct imap *s)
{
	unsigned serial;
	bool plus;
	imap_put(s, "IDLE");
	enum mf_err e = imap_send(s, &(struct imap_command){ .what = "IDLE", .done = answered, .idle = true }, &serial);
	if (e)
		return e;
	int64_t usual = s->reader.io_timeout_ms;
	s->reader.io_timeout_ms = ANSWER_MS / 4; /* frames are given four times that */
	e = imap_pump_plus(s, serial, &plus);
	s->reader.io_timeout_ms = usual;
	if (!e && plus) {
		s->idle = true;
		s->idle_ms = clock_mono_ms();
	}
	return e;
}

/* The mailbox selected, and the server asked to speak up. *ret_changed: it is not as it was when last looked at. */
static enum mf_err prepare(struct imap *s, const char *raw, bool *ret_changed)
{
	enum mf_err e = start_notify(s);
	const char *ahead = imap_selected_ahead(s);
	if (!e && (!ahead || strcmp(ahead, raw))) {
		e = imap_send_select(s, raw, "", &(struct imap_command){ .done = selected });
		if (!e)
			e = imap_pump_all(s);
		*ret_changed = !e && s->selected.raw && !is_as_known(s);
	} else if (!e) {
		e = imap_pump_all(s);
	}
	return e;
}

static enum mf_err sleep_until(struct imap *s, int64_t until_ms, int wake_fd, bool *ret_readable, bool *ret_woken)
{
	int64_t left = until_ms - clock_mono_ms();
	bool readable = false;
	*ret_readable = *ret_woken = false;
	transport_set_deadline(s->transport, 0);
	enum mf_err e = transport_flush(s->transport);
	if (!e)
		e = transport_wait(s->transport, left > 0 ? left : 0, wake_fd, &readable);
	if (e == MF_TIMEOUT && !transport_error(s->transport))
		return MF_OK;
	if (e)
		return imap_fail_transport(s, e);
	*ret_readable = readable;
	*ret_woken = !readable;
	return MF_OK;
}

/* The server has ended IDLE, which it may, if only for its own time-outs: it is begun again, but not over and over. */
static void note_end(struct imap *s)
{
	bool brief = clock_mono_ms() - s->idle_ms < BRIEF_MS;
	s->brief_idles = brief ? s->brief_idles + 1 : 0;
	s->no_idle |= s->brief_idles >= BRIEF_MAX;
}

static enum mf_err wait_idling(struct imap *s, int64_t until_ms, int wake_fd, const struct push_sink *sink)
{
	enum mf_err e = MF_OK;
	while (!e) {
		if (!s->idle && may_idle(s) && (s->selected.raw || s->notify))
			e = start_idle(s);
		if (e || tell(s, sink))
			break;
		int64_t now = clock_mono_ms(), renew_ms = now + RENEW_MS;
		bool readable, woken, idle = s->idle;
		e = sleep_until(s, until_ms < renew_ms ? until_ms : renew_ms, wake_fd, &readable, &woken);
		if (!e && readable)
			e = imap_pump_ready(s);
		if (!e && idle && !s->idle)
			note_end(s);
		if (e || woken || clock_mono_ms() >= until_ms || tell(s, sink))
			break;
		if (!readable && s->idle) /* renewing: DONE and IDLE go out as one; the answer shows that the peer lives */
			e = start_idle(s);
	}
	if (!e)
		tell(s, sink);
	return e;
}

enum mf_err imap_wait(struct imap *s, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink)
{
	bool idling = s->idle && s->selected.raw && raw && !strcmp(s->selected.raw, raw) && (s->notify || !may_notify(s)), changed = false;
	enum mf_err e = MF_OK;
	if (!s->dead && tell(s, sink))
		return MF_OK;
	e = imap_verb_begin(s, NULL, NULL);
	if (e)
		return e;
	int64_t until_ms = timeout_ms < 0 ? INT64_MAX : clock_mono_ms() + timeout_ms;
	if (!idling && raw && s->options.idle) {
		watch(s, raw);
		e = prepare(s, raw, &changed);
	}
	if (!e && changed) {
		s->watched_status = s->selected.status;
		s->news = 0;
		sink->changed(sink->context, raw, false);
	} else if (!e) {
		e = wait_idling(s, until_ms, wake_fd, sink);
	}
	return imap_verb_end(s, e);
}

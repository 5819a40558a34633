/* One message: the envelope, pipelined where it may be; the content, streamed; what became of each recipient. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "smtp/session.h"

#define GROUP 100                    /* recipients in one write: their answers stay far below what a pipe holds */
#define BLOCK 65536
#define MINUTE INT64_C(60000)
#define BUDGET (8U << 20)

struct submitting {
	struct smtp *s;
	const struct submit_request *request;
	struct submit_result *to;
	size_t accepted;
	bool data_asked;             /* DATA went out behind the recipients */
	bool mail_refused;
	bool ended;                  /* the dot has left, or may have */
};

/* --- results ------------------------------------------------------------------------------------------------------- */

static enum verdict verdict_of(const struct reply *r)
{
	if (r->code == 552 && !strncmp(r->text, "5.5.3", 5)) /* too many recipients at once (RFC 5321 4.5.3.1.10) */
		return VERDICT_LATER;
	return reply_is(r, 2) ? VERDICT_SENT : reply_is(r, 5) ? VERDICT_REFUSED : VERDICT_LATER;
}

static void say(struct recipient_result *to, enum verdict verdict, const char *text)
{
	to->verdict = verdict;
	snprintf(to->text, sizeof to->text, "%.255s", text);
}

/* Those that nothing has been decided about: all, or those that were accepted so far. */
static void settle(struct submitting *w, enum verdict verdict, const char *text)
{
	w->to->verdict = verdict;
	mf_fail(&w->to->reason, MF_OK, "%s", text);
	for (size_t i = 0; i < w->to->recipient_count; i++)
		if (w->to->recipients[i].verdict == VERDICT_SENT)
			say(&w->to->recipients[i], verdict, text);
}

static void settle_by_reply(struct submitting *w, const struct reply *r)
{
	char text[300];
	snprintf(text, sizeof text, "%d %.280s", r->code, r->text);
	settle(w, verdict_of(r), text);
}

/* The connection is lost. Before the end has left nobody can have got the message. */
static enum mf_err settle_lost(struct submitting *w)
{
	settle(w, w->ended ? VERDICT_UNKNOWN : VERDICT_LATER, w->s->why.text);
	return w->s->dead;
}

/* No recipient was accepted. */
static void settle_nobody(struct submitting *w)
{
	struct submit_result *to = w->to;
	to->verdict = VERDICT_REFUSED;
	for (size_t i = 0; i < to->recipient_count; i++)
		if (to->recipients[i].verdict == VERDICT_LATER)
			to->verdict = VERDICT_LATER;
	mf_fail(&to->reason, MF_OK, "no recipient was accepted: %s", to->recipient_count ? to->recipients[0].text : "");
}

/* --- the envelope -------------------------------------------------------------------------------------------------- */

/* An address that could end its command early never reaches it. */
static bool is_safe(const char *address)
{
	bool quoted = false;
	for (const char *p = address; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f || (!quoted && (*p == ' ' || *p == '<' || *p == '>')))
			return false;
		if (*p == '"')
			quoted = !quoted;
		if (*p == '\\' && quoted && p[1])
			p++;
	}
	return !quoted && strlen(address) <= 400;
}

static uint64_t content_size(const struct envelope *e)
{
	return e->size - e->hidden;
}

/* What this server cannot take is known before anything is sent. */
static bool is_possible(struct submitting *w)
{
	const struct envelope *e = w->request->envelope;
	const struct smtp *s = w->s;
	char text[200];
	bool safe = is_safe(e->sender);
	for (size_t i = 0; safe && i < w->request->recipient_count; i++)
		safe = is_safe(w->request->recipients[i]);
	if (!safe)
		snprintf(text, sizeof text, "an address of the envelope has characters that cannot be sent");
	else if (e->utf8 && !(s->extensions & SMTP_UTF8))
		snprintf(text, sizeof text, "an address or a signed header is not ASCII, and the server cannot take that (SMTPUTF8)");
	else if (e->eight_bit && !(s->extensions & SMTP_8BITMIME))
		snprintf(text, sizeof text, "the message is declared 8bit, and the server cannot take that (8BITMIME)");
	else if (s->size_max && content_size(e) > s->size_max)
		snprintf(text, sizeof text, "the message has %llu bytes, and the server takes at most %llu", (unsigned long long)content_size(e),
		         (unsigned long long)s->size_max);
	else
		return true;
	settle(w, VERDICT_REFUSED, text);
	return false;
}

static enum mf_err put_mail(struct submitting *w)
{
	const struct envelope *e = w->request->envelope;
	unsigned asked = w->s->extensions & SMTP_DSN ? e->notify : 0;
	char size[40] = "", id[40] = "";
	if (w->s->extensions & SMTP_SIZE)
		snprintf(size, sizeof size, " SIZE=%llu", (unsigned long long)content_size(e));
	if (asked & ~(unsigned)DSN_NEVER && w->request->id)
		snprintf(id, sizeof id, " ENVID=%016llx", (unsigned long long)w->request->id);
	w->s->dirty = true;
	return session_put(w->s, "MAIL FROM:<%s>%s%s%s%s%s", e->sender, size, e->eight_bit ? " BODY=8BITMIME" : "", e->utf8 ? " SMTPUTF8" : "",
	                   asked & DSN_FULL ? " RET=FULL" : asked & DSN_HEADERS ? " RET=HDRS" : "", id);
}

static enum mf_err put_recipient(struct submitting *w, const char *address)
{
	unsigned asked = w->s->extensions & SMTP_DSN ? w->request->envelope->notify & ~(unsigned)DSN_RETURN : 0;
	char words[DSN_WORDS_MAX];
	dsn_words(asked, words);
	return session_put(w->s, "RCPT TO:<%s>%s%s", address, asked ? " NOTIFY=" : "", words);
}

static void take_recipient(struct submitting *w, size_t i, const struct reply *r)
{
	char text[300];
	snprintf(text, sizeof text, "%d %.240s", r->code, r->text);
	say(&w->to->recipients[i], verdict_of(r), text);
	w->accepted += reply_is(r, 2);
}

static enum mf_err take_mail(struct submitting *w)
{
	struct reply r;
	enum mf_err e = session_reply(w->s, session_reply_ms(w->s), &r);
	if (e || reply_is(&r, 2))
		return e;
	if (r.code == 530 || r.code == 538) /* nothing is wrong with the message: nobody is logged in (RFC 4954 6) */
		return session_fail(w->s, MF_AUTH, "the server wants a login that it does not offer: %d %.200s", r.code, r.text);
	w->mail_refused = true;
	settle_by_reply(w, &r);
	return MF_OK;
}

static enum mf_err put_group(struct submitting *w, size_t from, size_t to)
{
	const struct submit_request *q = w->request;
	transport_set_budget(w->s->transport, BUDGET);
	transport_set_deadline(w->s->transport, clock_mono_ms() + session_reply_ms(w->s));
	enum mf_err e = from == 0 ? put_mail(w) : MF_OK;
	for (size_t i = from; !e && i < to; i++)
		e = put_recipient(w, q->recipients[i]);
	w->data_asked = to == q->recipient_count && from == 0 && !(w->s->extensions & SMTP_CHUNKING);
	if (!e && w->data_asked)
		e = session_put(w->s, "DATA");
	return e ? e : session_flush(w->s);
}

/* The answers to all of it are read, whatever the first ones say: they have been sent for. */
static enum mf_err take_group(struct submitting *w, size_t from, size_t to)
{
	enum mf_err e = from == 0 ? take_mail(w) : MF_OK;
	for (size_t i = from; !e && i < to; i++) {
		struct reply r;
		e = session_reply(w->s, session_reply_ms(w->s), &r);
		if (!e && !w->mail_refused)
			take_recipient(w, i, &r);
	}
	return e;
}

static enum mf_err send_envelope_pipelined(struct submitting *w)
{
	size_t count = w->request->recipient_count;
	enum mf_err e = MF_OK;
	for (size_t from = 0; !e && !w->mail_refused && from < count; from += GROUP) {
		size_t to = from + GROUP < count ? from + GROUP : count;
		e = put_group(w, from, to);
		if (!e)
			e = take_group(w, from, to);
	}
	return e;
}

static enum mf_err send_envelope_one_by_one(struct submitting *w)
{
	transport_set_budget(w->s->transport, BUDGET);
	enum mf_err e = put_mail(w);
	if (!e)
		e = take_mail(w);
	for (size_t i = 0; !e && !w->mail_refused && i < w->request->recipient_count; i++) {
		struct reply r;
		transport_set_budget(w->s->transport, BUDGET);
		e = put_recipient(w, w->request->recipients[i]);
		if (!e)
			e = session_reply(w->s, session_reply_ms(w->s), &r);
		if (!e)
			take_recipient(w, i, &r);
	}
	return e;
}

/* --- the content --------------------------------------------------------------------------------------------------- */

static int64_t block_ms(const struct smtp *s)
{
	return s->options.times.block_ms ? s->options.times.block_ms : 3 * MINUTE;
}

/* Bytes of the file, all of them; it is local, and a failure is not the server's. */
static enum mf_err read_block(struct submitting *w, char *block, uint64_t at, size_t len)
{
	size_t done;
	if (file_read(w->request->fd, at, block, len, &done))
		return session_fail(w->s, MF_IO, "the prepared message cannot be read: %s", strerror(errno));
	return done == len ? MF_OK : session_fail(w->s, MF_IO, "the prepared message cannot be read: it is shorter than it was");
}

/* Dots at the beginning of a line are doubled. *bol: this block begins one. */
static enum mf_err put_stuffed(struct smtp *s, const char *p, size_t len, bool *bol)
{
	const char *end = p + len, *run = p;
	enum mf_err e = MF_OK;
	for (; !e && p < end; p++) {
		if (*bol && *p == '.') {
			e = session_put_bytes(s, run, (size_t)(p - run));
			if (!e)
				e = session_put_bytes(s, ".", 1);
			run = p;
		}
		*bol = *p == '\n';
	}
	return e ? e : session_put_bytes(s, run, (size_t)(end - run));
}

/* The server has spoken before the end: it wants no more. */
static enum mf_err interrupted(struct submitting *w)
{
	struct reply r;
	enum mf_err e = session_reply(w->s, session_reply_ms(w->s), &r);
	if (e)
		return e;
	settle_by_reply(w, &r);
	if (w->to->verdict == VERDICT_SENT) /* it cannot have been taken */
		settle(w, VERDICT_LATER, "the server answered before it had the whole message");
	return session_fail(w->s, MF_PROTOCOL, "%s", w->to->reason.text);
}

/* Everything but the last `keep` bytes. */
static enum mf_err stream(struct submitting *w, bool stuffed, uint64_t keep)
{
	const struct envelope *envelope = w->request->envelope;
	MF_CLEANUP(mf_free) char *block = mf_alloc(BLOCK);
	bool bol = true;
	enum mf_err e = MF_OK;
	for (uint64_t at = envelope->hidden, end = envelope->size - keep; !e && at < end;) {
		size_t len = end - at < BLOCK ? (size_t)(end - at) : BLOCK;
		transport_set_deadline(w->s->transport, clock_mono_ms() + block_ms(w->s));
		e = read_block(w, block, at, len);
		if (!e)
			e = stuffed ? put_stuffed(w->s, block, len, &bol) : session_put_bytes(w->s, block, len);
		if (!e && session_has_reply(w->s))
			return interrupted(w);
		at += len;
		if (w->request->progress)
			w->request->progress(w->request->context, at - envelope->hidden);
	}
	return e;
}

/* The end may leave now. */
static enum mf_err allow_end(struct submitting *w)
{
	enum mf_err e = session_flush(w->s);
	if (!e && session_has_reply(w->s))
		return interrupted(w);
	if (!e && w->request->before_dot) {
		e = w->request->before_dot(w->request->context);
		if (e)
			return session_fail(w->s, e, "the mark before the end of the message could not be made: %s", mf_err_words(e));
	}
	w->ended = !e;
	return e;
}

static enum mf_err take_verdict(struct submitting *w)
{
	struct reply r;
	int64_t ms = w->s->options.times.dot_ms ? w->s->options.times.dot_ms : 10 * MINUTE;
	enum mf_err e = session_reply(w->s, ms, &r);
	if (!e && reply_is(&r, 3))
		e = session_fail(w->s, MF_PROTOCOL, "the server answered the whole message with %d", r.code);
	else if (r.code && (!e || r.code == 421)) /* 421 instead of an answer: it was not taken (RFC 5321 4.2.5) */
		settle_by_reply(w, &r);
	if (e && r.code == 421)
		w->ended = false;
	w->s->dirty = e != MF_OK;
	return e;
}

static enum mf_err send_data(struct submitting *w)
{
	struct reply r;
	transport_set_budget(w->s->transport, BUDGET);
	enum mf_err e = w->data_asked ? MF_OK : session_put(w->s, "DATA");
	if (!e)
		e = session_reply(w->s, session_reply_ms(w->s), &r);
	if (e)
		return e;
	if (r.code != 354) {
		if (w->accepted && !w->mail_refused)
			settle_by_reply(w, &r);
		if (reply_is(&r, 2)) /* nonsense */
			return session_fail(w->s, MF_PROTOCOL, "the server answered DATA with %d", r.code);
		return MF_OK;
	}
	if (!w->accepted || w->mail_refused) { /* asked for with nobody to get it: it is ended empty (RFC 2920 3.1) */
		e = session_put(w->s, ".");
		return e ? e : session_reply(w->s, session_reply_ms(w->s), &r);
	}
	e = stream(w, true, 0);
	if (!e)
		e = allow_end(w);
	if (!e)
		e = session_put_bytes(w->s, ".\r\n", 3);
	return e ? e : take_verdict(w);
}

static enum mf_err send_chunk(struct submitting *w)
{
	const struct envelope *envelope = w->request->envelope;
	char last;
	transport_set_budget(w->s->transport, BUDGET);
	enum mf_err e = session_put(w->s, "BDAT %llu LAST", (unsigned long long)content_size(envelope));
	if (!e)
		e = stream(w, false, 1);
	if (!e)
		e = read_block(w, &last, envelope->size - 1, 1);
	if (!e)
		e = allow_end(w);
	if (!e)
		e = session_put_bytes(w->s, &last, 1);
	return e ? e : take_verdict(w);
}

/* --- a message ----------------------------------------------------------------------------------------------------- */

static enum mf_err clean(struct smtp *s)
{
	struct reply r;
	if (!s->dirty)
		return s->dead;
	enum mf_err e = session_ask(s, &r, "RSET");
	if (!e && !reply_is(&r, 2))
		e = session_fail(s, MF_PROTOCOL, "the server cannot begin anew: %d %.240s", r.code, r.text);
	s->dirty = e != MF_OK;
	return e;
}

static enum mf_err run(struct submitting *w)
{
	enum mf_err e = clean(w->s);
	if (e)
		return e;
	if (!is_possible(w))
		return MF_OK;
	e = w->s->extensions & SMTP_PIPELINING ? send_envelope_pipelined(w) : send_envelope_one_by_one(w);
	if (e)
		return e;
	if (!w->accepted && !w->mail_refused)
		settle_nobody(w);
	bool nobody = !w->accepted || w->mail_refused;
	if (nobody && !w->data_asked)
		return MF_OK;
	return w->s->extensions & SMTP_CHUNKING ? send_chunk(w) : send_data(w);
}

enum mf_err smtp_submit(struct smtp *s, const struct submit_request *request, struct submit_result *ret)
{
	struct submitting w = { .s = s, .request = request, .to = ret };
	*ret = (struct submit_result){ .verdict = VERDICT_LATER, .recipient_count = request->recipient_count };
	ret->recipients = mf_alloc_array(request->recipient_count, sizeof *ret->recipients);
	enum mf_err e = run(&w);
	bool decided = ret->reason.text[0] && ret->verdict != VERDICT_SENT;
	if (e && !decided)
		(void)settle_lost(&w);
	return e;
}

void submit_result_finish(struct submit_result *r)
{
	free(r->recipients);
	*r = (struct submit_result){ 0 };
}

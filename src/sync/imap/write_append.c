/* APPEND and REPLACE: a message from a file as a literal, a piece at a time. See write.h.
 *
 * With LITERAL+ the message goes out right behind its command, and the next command behind that. A large one waits to be
 * asked for all the same: a server that will not have it says so before it has been sent. */
#include "sync/imap/write.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

#define PIECE (64U << 10)
#define UNASKED_MAX (1U << 20)     /* with LITERAL+ */
#define UNASKED_MINUS_MAX 4096     /* with LITERAL- (RFC 7888 5) */

static void take_appenduid(struct writer *v, size_t i, struct span args)
{
	struct write_item *item = &v->items[i];
	struct scan s = { args.p, args.p + args.len };
	struct uid_pair pair = { 0 };
	uint32_t uidvalidity;
	if (item->count || !scan_uid(&s, &uidvalidity) || !scan_char(&s, ' ') || !scan_uid(&s, &pair.to) || s.p != s.end)
		return;
	item->pairs = mf_realloc_array(item->pairs, 1, sizeof *item->pairs);
	item->pairs[0] = pair;
	item->count = 1;
	item->uidvalidity = uidvalidity;
}

static enum mf_err appended(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct writer *v = c->owner;
	(void)s;
	v->bytes -= v->writes[c->index].size;
	if (cond->kind == COND_OK && span_is(cond->code, "APPENDUID"))
		take_appenduid(v, c->index, cond->args);
	return write_over(v, c->index, cond, c->what);
}

/* It says nothing of the command but by coming in turn; several may come before the first command is answered. */
void write_take_appenduid(struct writer *v, struct span args)
{
	for (const struct imap_command *c = v->s->head; c; c = c->next) {
		if (c->done != appended || c->owner != v || v->writes[c->index].kind != WRITE_REPLACE || v->items[c->index].count)
			continue;
		take_appenduid(v, c->index, args);
		return;
	}
}

/* "17-Jul-1996 02:44:25 +0000" (RFC 9051 "date-time") */
static void put_date(struct imap *s, int64_t date)
{
	static const char months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t seconds = (time_t)date;
	struct tm t;
	if (date && gmtime_r(&seconds, &t) && t.tm_year >= 0 && t.tm_year + 1900 <= 9999)
		imap_put(s, " \"%2d-%s-%04d %02d:%02d:%02d +0000\"", t.tm_mday, months[t.tm_mon], t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
}

static enum mf_err read_piece(struct writer *v, const struct remote_write *w, uint64_t at, char *to, size_t len)
{
	size_t got;
	enum mf_err e = file_read(w->fd, at, to, len, &got);
	/* the server waits for bytes that are not there: nothing else can be said to it any more */
	if (e || got < len)
		return imap_fail(v->s, MF_IO, "APPEND: the message cannot be read: %s", e ? strerror(errno) : "the file is shorter than it was");
	return MF_OK;
}

/* A sink wants to stop while the server waits for the message, which there is no way to take back: nothing is told any
 * more, and the message is sent. */
static enum mf_err stop_later(struct imap *s, enum mf_err e, enum mf_err *stopped)
{
	if (!e || s->dead || mf_err_scope(e) >= MF_SCOPE_CONNECTION)
		return e;
	s->muted = true;
	*stopped = e;
	return MF_OK;
}

static enum mf_err await_plus(struct imap *s, unsigned serial, bool *ret_plus, enum mf_err *stopped)
{
	enum mf_err e = stop_later(s, imap_pump_plus(s, serial, ret_plus), stopped);
	return !e && *stopped ? imap_pump_plus(s, serial, ret_plus) : e;
}

/* What comes meanwhile is heard: a server that says goodbye does not read on, and one that talks much must not be stuck. */
static enum mf_err send_message(struct writer *v, const struct remote_write *w, enum mf_err *stopped)
{
	MF_CLEANUP(mf_free) char *piece = mf_alloc(PIECE);
	enum mf_err e = MF_OK;
	for (uint64_t at = 0; at < w->size && !e;) {
		size_t n = w->size - at < PIECE ? (size_t)(w->size - at) : PIECE;
		e = read_piece(v, w, at, piece, n);
		if (!e)
			e = imap_send_bytes(v->s, piece, n);
		at += n;
		if (!e && at < w->size)
			e = stop_later(v->s, imap_pump_ready(v->s), stopped);
	}
	return e ? e : imap_send_bytes(v->s, "\r\n", 2);
}

static bool may_go_unasked(const struct imap *s, uint64_t size)
{
	return ((s->caps & CAP(LITERAL_PLUS)) && size <= UNASKED_MAX) || ((s->caps & CAP(LITERAL_MINUS)) && size <= UNASKED_MINUS_MAX);
}

static enum mf_err send_append(struct writer *v, size_t i, bool unasked)
{
	struct imap *s = v->s;
	const struct remote_write *w = &v->writes[i];
	unsigned serial;
	bool plus = true;
	enum mf_err stopped = MF_OK;
	if (w->kind == WRITE_REPLACE)
		imap_put(s, "UID REPLACE %u ", w->uids[0]);
	else
		imap_put(s, "APPEND ");
	imap_put_string(s, w->raw, strlen(w->raw));
	imap_put(s, " ");
	write_put_flags(s, w->flags, w->keywords);
	put_date(s, w->internal_date);
	imap_put(s, " {%llu%s}", (unsigned long long)w->size, unasked ? "+" : "");
	v->bytes += w->size;
	enum mf_err e = write_send(v, i, &(struct imap_command){ .what = w->kind == WRITE_REPLACE ? "UID REPLACE" : "APPEND", .done = appended }, &serial);
	if (!serial)
		v->bytes -= w->size;
	if (e || !serial)
		return e;
	if (!unasked)
		e = await_plus(s, serial, &plus, &stopped);
	if (!e && plus)
		e = send_message(v, w, &stopped);
	return e ? e : stopped;
}

/* Courier stores nothing in the mailbox that the session has opened with EXAMINE. Servers that know UNSELECT are younger. */
static bool must_be_selected(const struct imap *s, const char *raw)
{
	return !(s->caps & CAP(UNSELECT)) && s->selected.raw && !s->selected.writable && !strcmp(s->selected.raw, raw);
}

enum mf_err write_append(struct writer *v, size_t i)
{
	static const char too_big[] = "the server takes no message of that size";
	const struct remote_write *w = &v->writes[i];
	if (v->s->append_limit && w->size > v->s->append_limit) {
		write_fail(v, i, MF_TOO_BIG, too_big, sizeof too_big - 1);
		return MF_OK;
	}
	enum mf_err e = w->kind == WRITE_REPLACE ? write_use_mailbox(v, i) : must_be_selected(v->s, w->raw) ? write_select(v, i) : MF_OK;
	if (!e && !v->items[i].result)
		e = write_room(v, 0, w->size);
	return e || v->items[i].result ? e : send_append(v, i, may_go_unasked(v->s, w->size));
}

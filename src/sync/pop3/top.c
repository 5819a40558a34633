/* Header blocks: TOP, or where the server has none the beginning of RETR. */
#include <string.h>

#include "base/mem.h"
#include "sync/pop3/client.h"

#define HEADER_MAX (256U << 10)        /* what is kept of a header block */
#define WINDOW_CAREFUL 8              /* commands under way behind one that was refused: their answers may be thrown away */
#define TOP_MAX (16U << 20)            /* what may come for one TOP: more is no header */

struct header {
	struct buf text;
	bool filled;                       /* the line under way has something in it, beside CR */
	bool over;                         /* its empty line has come */
};

static bool is_filled(const char *line, size_t len)
{
	while (len && *line == '\r')
		line++, len--;
	return len;
}

/* Takes what belongs to the header block; the rest is let pass. */
static void take_bytes(struct header *h, const char *data, size_t len)
{
	size_t n = 0;
	while (n < len && !h->over) {
		const char *line = data + n, *newline = memchr(line, '\n', len - n);
		h->filled |= is_filled(line, newline ? (size_t)(newline - line) : len - n);
		h->over = newline && !h->filled;
		h->filled &= !newline;
		n = newline ? (size_t)(newline - data) + 1 : len;
	}
	size_t room = HEADER_MAX - h->text.len;
	(void)buf_add(&h->text, data, n < room ? n : room);
}

/* The answer's text, to its end. */
static enum mf_err receive(struct pop3 *s, struct header *h, uint64_t most)
{
	const char *data;
	size_t len;
	bool end = false;
	transport_set_budget(s->transport, most);
	pop3_text_begin(s);
	for (;;) {
		enum mf_err e = pop3_text(s, &data, &len, &end);
		if (e || end)
			return e;
		take_bytes(h, data, len);
	}
}

static enum mf_err send_one(struct pop3 *s, const struct drop_item *item)
{
	return s->no_top ? pop3_send(s, "RETR %u", item->number) : pop3_send(s, "TOP %u 0", item->number);
}

static void reset(struct header *h)
{
	buf_reset(&h->text);
	h->filled = h->over = false;
}

static enum mf_err retry(struct pop3 *s, const struct drop_item *item, struct header *h, bool *ret_ok)
{
	reset(h);
	enum mf_err e = pop3_send(s, "RETR %u", item->number);
	if (!e)
		e = pop3_answer(s, ret_ok);
	if (!e && *ret_ok)
		e = receive(s, h, UINT64_MAX);
	if (!e && *ret_ok && !s->top_works && !(s->caps.caps & POP3_TOP))
		s->no_top = true;
	return e;
}

/* One answer. refused: it is -ERR, and to be asked in another way when nothing is under way. */
static enum mf_err take_answer(struct pop3 *s, struct header *h, bool by_top, bool *ret_ok)
{
	reset(h);
	enum mf_err e = pop3_answer(s, ret_ok);
	return e || !*ret_ok ? e : receive(s, h, by_top ? TOP_MAX : UINT64_MAX);
}

/* A call of pop3_top() */
struct tops {
	struct pop3 *s;
	const uint32_t *places;
	size_t count;
	size_t at, sent;                   /* up to at told; up to sent under way */
	size_t window;                     /* commands under way at most */
	struct header header;
	pop3_top_taken *taken;
	void *context;
};

static struct drop_item *item_at(const struct tops *t, size_t i)
{
	return &t->s->drop.items[t->places[i]];
}

/* The next one: to the sink. */
static enum mf_err give(struct tops *t, bool ok)
{
	const struct header *h = &t->header;
	return t->taken(t->context, item_at(t, t->at++), ok ? h->text.data : NULL, ok ? h->text.len : 0);
}

/* As many as may be under way. By the quarter of that, and at once: where more is always there to be read, a command that waits for
 * a pause of the answers causes one. */
static enum mf_err ask_more(struct tops *t)
{
	size_t some = (t->window + 3) / 4;
	enum mf_err e = MF_OK;
	if (t->sent == t->count || t->sent - t->at + some > t->window)
		return MF_OK;
	while (!e && t->sent < t->count && t->sent - t->at < t->window)
		e = send_one(t->s, item_at(t, t->sent++));
	return e ? e : pop3_send_now(t->s);
}

/* Nothing is told under a number that is not stored. */
static enum mf_err store_meanwhile(struct pop3 *s)
{
	enum mf_err e = pop3_send_now(s);
	return e ? e : pop3_store(s);
}

/* Those from t->at on, until one is refused that may be had otherwise: *ret_refused. */
static enum mf_err run(struct tops *t, bool *ret_refused)
{
	struct pop3 *s = t->s;
	size_t most = pop3_window(s);
	enum mf_err e = MF_OK, failed = MF_OK;
	bool by_top = !s->no_top, ok = false;
	*ret_refused = false;
	while (!e && t->at < t->count) {
		if (!*ret_refused && !failed)
			e = ask_more(t);
		if (t->sent == t->at)
			break;
		if (!e && !failed && s->unsaved)
			failed = store_meanwhile(s);
		if (!e)
			e = take_answer(s, &t->header, by_top, &ok);
		if (e)
			break;
		if (*ret_refused || failed) { /* the sink has had enough, or the order would be lost: thrown away */
			t->sent--;
			continue;
		}
		if (!ok && by_top) {
			*ret_refused = true;
			t->sent--;
			continue;
		}
		s->top_works |= by_top;
		t->window += t->window < most;
		failed = give(t, ok);
	}
	return e ? e : failed;
}

/* One that TOP was refused for, when nothing is under way */
static enum mf_err run_one(struct tops *t)
{
	bool ok = false;
	enum mf_err e = retry(t->s, item_at(t, t->at), &t->header, &ok);
	t->sent++;
	return e ? e : give(t, ok);
}

/* What was asked for ahead is under way already, if it is what is wanted now; else it is thrown away. */
static enum mf_err take_up(struct tops *t)
{
	struct pop3 *s = t->s;
	size_t ahead = s->tops_ahead, same = 0;
	enum mf_err e = MF_OK;
	bool ok;
	s->tops_ahead = 0;
	while (same < ahead && same < t->count && item_at(t, same)->number == s->top_ahead - same)
		same++;
	if (same == ahead)
		t->sent = ahead;
	else
		for (size_t i = 0; i < ahead && !e; i++)
			e = take_answer(s, &t->header, true, &ok);
	return e;
}

enum mf_err pop3_top(struct pop3 *s, const uint32_t *places, size_t count, pop3_top_taken *taken, void *context)
{
	struct tops t = { .s = s, .places = places, .count = count, .window = pop3_window(s), .taken = taken, .context = context };
	bool refused = false;
	buf_init(&t.header.text, HEADER_MAX);
	enum mf_err e = take_up(&t);
	while (!e && t.at < count) {
		e = run(&t, &refused);
		if (e || !refused)
			continue;
		t.window = t.window < WINDOW_CAREFUL ? t.window : WINDOW_CAREFUL;
		e = run_one(&t);
	}
	buf_finish(&t.header.text);
	return e;
}

enum mf_err pop3_top_ahead(struct pop3 *s, uint32_t newest)
{
	uint32_t count;
	size_t most = pop3_window(s);
	enum mf_err e = pop3_count_ahead(s, &count);
	if (e || s->no_top || most == 1)
		return e;
	size_t wanted = newest && newest < count ? newest : count;
	s->top_ahead = count;
	for (; !e && s->tops_ahead < wanted && s->tops_ahead < most; s->tops_ahead++)
		e = pop3_send(s, "TOP %u 0", count - (uint32_t)s->tops_ahead);
	return e ? e : pop3_send_now(s);
}

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

static enum mf_err retry(struct pop3 *s, const struct drop_item *item, struct header *h, bool *ret_ok)
{
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
	buf_reset(&h->text);
	h->filled = false;
	h->over = false;
	enum mf_err e = pop3_answer(s, ret_ok);
	return e || !*ret_ok ? e : receive(s, h, by_top ? TOP_MAX : UINT64_MAX);
}

static enum mf_err give(struct drop_item *item, const struct header *h, bool ok, pop3_top_taken *taken, void *context)
{
	return taken(context, item, ok ? h->text.data : NULL, ok ? h->text.len : 0);
}

/* Nothing is told under a number that is not stored. */
static enum mf_err store_meanwhile(struct pop3 *s)
{
	enum mf_err e = pop3_send_now(s);
	return e ? e : pop3_store(s);
}

/* Those from *at on, until one is refused that may be had otherwise: *ret_refused. */
static enum mf_err run(struct pop3 *s, const uint32_t *places, size_t count, size_t *at, size_t *window, struct header *h, bool *ret_refused,
                       pop3_top_taken *taken, void *context)
{
	size_t sent = *at, most = pop3_window(s);
	enum mf_err e = MF_OK, failed = MF_OK;
	bool by_top = !s->no_top, ok = false;
	*ret_refused = false;
	while (!e && *at < count) {
		while (!e && sent < count && sent - *at < *window && !*ret_refused && !failed)
			e = send_one(s, &s->drop.items[places[sent++]]);
		if (sent == *at)
			break;
		if (!e && !failed && s->unsaved)
			failed = store_meanwhile(s);
		if (!e)
			e = take_answer(s, h, by_top, &ok);
		if (e)
			break;
		if (*ret_refused || failed) { /* the sink has had enough, or the order would be lost: thrown away */
			sent--;
			continue;
		}
		if (!ok && by_top) {
			*ret_refused = true;
			sent--;
			continue;
		}
		s->top_works |= by_top;
		*window += *window < most;
		failed = give(&s->drop.items[places[*at]], h, ok, taken, context);
		++*at;
	}
	return e ? e : failed;
}

enum mf_err pop3_top(struct pop3 *s, const uint32_t *places, size_t count, pop3_top_taken *taken, void *context)
{
	struct header h = { .over = false };
	size_t at = 0, window = pop3_window(s);
	bool refused = false, ok = false;
	enum mf_err e = MF_OK;
	buf_init(&h.text, HEADER_MAX);
	while (!e && at < count) {
		e = run(s, places, count, &at, &window, &h, &refused, taken, context);
		if (e || !refused)
			continue;
		window = window < WINDOW_CAREFUL ? window : WINDOW_CAREFUL;
		struct drop_item *item = &s->drop.items[places[at++]];
		buf_reset(&h.text);
		h.filled = false;
		h.over = false;
		e = retry(s, item, &h, &ok);
		if (!e)
			e = give(item, &h, ok, taken, context);
	}
	buf_finish(&h.text);
	return e;
}

/* Bodies: RETR, several at once, in constant memory.
 *
 * The sink wants to know a message's length before its bytes. A small message is gathered; of a larger one the server's claim
 * is taken, and the bytes go through as they come. Where the claim proves wrong, the message is fetched again by way of
 * a file, and so are all large ones of that server from then on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "sync/pop3/client.h"

#define SMALL (256U << 10)
#define PIECE (64U << 10)
#define WINDOW_BYTES (1U << 20)  /* as much is asked for ahead, and no more */
#define WINDOW_MESSAGES 64
#define SLACK (1U << 20)

struct wanted { uint32_t uid; uint64_t size; };
struct fetch {
	struct pop3 *s;
	const struct fetch_source *source;
	const struct fetch_sink *sink;
	struct wanted *queue;          /* asked for by the source; from `told` to `sent` they are under way */
	size_t count, room, sent, told;
	bool drained;
	enum mf_err failed;            /* the sink has: what comes is thrown away */
	/* the message under way */
	struct buf small;
	FILE *file;
	bool streaming;                /* begin() has been told `announced` bytes */
	uint64_t announced, given, came;
	char tail[2];                  /* the last bytes that came, held back: see finish() */
	size_t tail_len;
};

/* --- where the bytes go ------------------------------------------------------------------------------------------------------------ */

static enum mf_err begin(struct fetch *v, uint32_t uid, uint64_t length)
{
	v->announced = length;
	v->given = 0;
	return v->sink->begin(v->sink->context, uid, 0, length);
}

static enum mf_err give(struct fetch *v, const char *data, size_t len)
{
	uint64_t left = v->announced - v->given;
	size_t some = len < left ? len : (size_t)left; /* more than announced: seen at the end */
	v->given += some;
	return some ? v->sink->data(v->sink->context, data, some) : MF_OK;
}

static enum mf_err to_file(struct fetch *v, const char *data, size_t len)
{
	if (!v->file && !(v->file = tmpfile()))
		return MF_NO_SPACE;
	return fwrite(data, 1, len, v->file) == len ? MF_OK : MF_NO_SPACE;
}

/* The message is larger than what is gathered: through, or by way of a file. */
static enum mf_err outgrow(struct fetch *v, const struct wanted *w, bool by_file)
{
	enum mf_err e;
	if (by_file || w->size <= SMALL) {
		e = to_file(v, v->small.data, v->small.len);
	} else {
		v->streaming = true;
		e = begin(v, w->uid, w->size);
		if (!e)
			e = give(v, v->small.data, v->small.len);
	}
	buf_reset(&v->small);
	return e;
}

static enum mf_err put(struct fetch *v, const struct wanted *w, bool by_file, const char *data, size_t len)
{
	if (v->streaming)
		return give(v, data, len);
	if (v->file)
		return to_file(v, data, len);
	if (buf_add(&v->small, data, len) == MF_OK)
		return MF_OK;
	enum mf_err e = outgrow(v, w, by_file);
	return e ? e : put(v, w, by_file, data, len);
}

/* Holds the last two bytes back. */
static enum mf_err take(struct fetch *v, const struct wanted *w, bool by_file, const char *data, size_t len)
{
	v->came += len;
	size_t out = v->tail_len + len > 2 ? v->tail_len + len - 2 : 0;
	size_t from_tail = out < v->tail_len ? out : v->tail_len, from_data = out - from_tail;
	enum mf_err e = from_tail ? put(v, w, by_file, v->tail, from_tail) : MF_OK;
	if (!e && from_data)
		e = put(v, w, by_file, data, from_data);
	memmove(v->tail, v->tail + from_tail, v->tail_len - from_tail);
	v->tail_len -= from_tail;
	memcpy(v->tail + v->tail_len, data + from_data, len - from_data);
	v->tail_len += len - from_data;
	return e;
}

static enum mf_err give_file(struct fetch *v)
{
	char *piece = mf_alloc(PIECE);
	enum mf_err e = fflush(v->file) || fseek(v->file, 0, SEEK_SET) ? MF_IO : MF_OK;
	for (uint64_t left = v->announced; left && !e;) {
		size_t n = fread(piece, 1, left < PIECE ? (size_t)left : PIECE, v->file);
		left -= n;
		e = n ? v->sink->data(v->sink->context, piece, n) : MF_IO;
	}
	free(piece);
	return e;
}

static enum mf_err give_gathered(struct fetch *v, const struct wanted *w)
{
	enum mf_err e = begin(v, w->uid, v->file ? v->came : v->small.len);
	if (e)
		return e;
	if (v->file)
		return give_file(v);
	return v->small.len ? v->sink->data(v->sink->context, v->small.data, v->small.len) : MF_OK;
}

/* All has come. A message whose last line has no end gets one on the way, which is not the message's (RFC 1939 3): it
 * is two bytes more than the server counts. *ret_wrong: what was announced is not what came. */
static enum mf_err finish(struct fetch *v, const struct wanted *w, bool trust, bool *ret_wrong)
{
	bool added = trust && w->size && v->came == w->size + 2 && v->tail_len == 2 && memcmp(v->tail, "\r\n", 2) == 0;
	enum mf_err e = MF_OK;
	if (added)
		v->came -= 2;
	else if (v->tail_len)
		e = put(v, w, true, v->tail, v->tail_len);
	v->tail_len = 0;
	*ret_wrong = v->streaming && v->came != v->announced;
	return e || v->streaming ? e : give_gathered(v, w);
}

static void reset(struct fetch *v)
{
	if (v->file)
		fclose(v->file);
	v->file = NULL;
	v->streaming = false;
	v->announced = v->given = v->came = 0;
	v->tail_len = 0;
	buf_reset(&v->small);
}

/* --- a message ------------------------------------------------------------------------------------------------------------------------ */

/* The text behind +OK. What the local side says (v->failed) does not stop it: the stream has to be read to its end. */
static enum mf_err receive(struct fetch *v, const struct wanted *w, bool by_file, bool *ret_wrong)
{
	const char *data;
	size_t len;
	bool end = false;
	uint64_t most = v->s->options.message_max ? v->s->options.message_max : UINT64_MAX - SLACK;
	transport_set_budget(v->s->transport, most + SLACK);
	reset(v);
	pop3_text_begin(v->s);
	for (;;) {
		enum mf_err e = pop3_text(v->s, &data, &len, &end);
		if (e)
			return e;
		if (end)
			break;
		if (!v->failed)
			v->failed = take(v, w, by_file, data, len);
		/* a local disk that is full concerns every body: reading on would be for nobody */
		if (v->failed && mf_err_scope(v->failed) >= MF_SCOPE_CONNECTION)
			return v->failed;
	}
	if (!v->failed)
		v->failed = finish(v, w, !pop3_memory_sizes_lie(v->s->options.memory), ret_wrong);
	return MF_OK;
}

static void end_item(struct fetch *v, const struct wanted *w, enum mf_err result)
{
	if (!v->failed)
		v->failed = v->sink->end(v->sink->context, w->uid, result, result == MF_OK);
}

static enum mf_err take_answer(struct fetch *v, const struct wanted *w, bool by_file, bool *ret_wrong)
{
	bool ok, wrong = false;
	*ret_wrong = false;
	enum mf_err e = pop3_answer(v->s, &ok);
	if (e)
		return e;
	if (!ok) {
		if (pop3_code_is(v->s, "SYS/TEMP"))
			return pop3_fail(v->s, MF_OFFLINE, "%s cannot give a message now", v->s->host);
		end_item(v, w, MF_DENIED);
		return MF_OK;
	}
	e = receive(v, w, by_file, &wrong);
	if (!e && wrong)
		pop3_memory_size_lied(v->s->options.memory);
	if (!e && !wrong)
		end_item(v, w, MF_OK);
	*ret_wrong = wrong;
	reset(v);
	return e;
}

/* --- what is wanted --------------------------------------------------------------------------------------------------------------------- */

static enum mf_err queue_add(struct fetch *v, uint32_t uid, uint64_t size)
{
	if (v->told == v->count)
		v->told = v->sent = v->count = 0;
	if (v->count == v->room) {
		v->room = v->room ? v->room * 2 : 64;
		v->queue = mf_realloc_array(v->queue, v->room, sizeof *v->queue);
	}
	v->queue[v->count++] = (struct wanted){ uid, size };
	return MF_OK;
}

/* What the batch names and is not there is told at once. */
static enum mf_err take_batch(struct fetch *v, const struct fetch_batch *b)
{
	struct pop3 *s = v->s;
	enum mf_err e = pop3_need_connection(s);
	if (!e)
		e = pop3_list(s);
	bool inbox = strcasecmp(b->raw, "INBOX") == 0, same = b->uidvalidity == s->numbers.uidvalidity;
	for (size_t i = 0; i < b->count && !e; i++) {
		const struct drop_item *item = inbox && same ? maildrop_at_uid(&s->drop, b->uids[i]) : NULL;
		if (item)
			e = queue_add(v, b->uids[i], item->has_size ? item->size : 0);
		else
			e = v->sink->end(v->sink->context, b->uids[i], !inbox || same ? MF_NOT_FOUND : MF_UIDVALIDITY, false);
	}
	return e;
}

static enum mf_err refill(struct fetch *v)
{
	enum mf_err e = MF_OK;
	while (!e && !v->drained && v->count - v->sent < WINDOW_MESSAGES) {
		struct fetch_batch b;
		if (v->source->next(v->source->context, &b))
			e = take_batch(v, &b);
		else
			v->drained = true;
	}
	return e;
}

static bool has_room(const struct fetch *v)
{
	size_t window = pop3_window(v->s) < WINDOW_MESSAGES ? pop3_window(v->s) : WINDOW_MESSAGES;
	uint64_t bytes = 0;
	for (size_t i = v->told; i < v->sent; i++)
		bytes += v->queue[i].size;
	size_t under_way = v->sent - v->told;
	return under_way < window && (under_way < 2 || bytes < WINDOW_BYTES);
}

static enum mf_err send_some(struct fetch *v)
{
	enum mf_err e = MF_OK;
	while (!e && v->sent < v->count && has_room(v)) {
		const struct drop_item *item = maildrop_at_uid(&v->s->drop, v->queue[v->sent++].uid);
		e = pop3_send(v->s, "RETR %u", item->number);
	}
	return e;
}

/* A message whose size was a lie, when nothing else is under way. */
static enum mf_err again(struct fetch *v, const struct wanted *w)
{
	bool wrong;
	const struct drop_item *item = maildrop_at_uid(&v->s->drop, w->uid);
	enum mf_err e = pop3_send(v->s, "RETR %u", item->number);
	return e ? e : take_answer(v, w, true, &wrong);
}

/* The answers that are under way, the next one or, to be quiet, all. */
static enum mf_err take_one(struct fetch *v)
{
	const struct wanted w = v->queue[v->told];
	bool wrong, ignored;
	enum mf_err e = take_answer(v, &w, pop3_memory_sizes_lie(v->s->options.memory), &wrong);
	v->told++;
	while (!e && wrong && v->told < v->sent) {
		const struct wanted next = v->queue[v->told++];
		e = take_answer(v, &next, true, &ignored);
	}
	return e || !wrong || v->failed ? e : again(v, &w);
}

enum mf_err pop3_fetch(struct pop3 *s, const struct fetch_source *source, const struct fetch_sink *sink)
{
	struct fetch v = { .s = s, .source = source, .sink = sink };
	enum mf_err e = MF_OK;
	buf_init(&v.small, SMALL);
	while (!e) {
		if (!v.failed)
			e = refill(&v);
		if (!e && !v.failed)
			e = send_some(&v);
		if (e || v.told == v.sent)
			break;
		e = take_one(&v);
		if (v.told < v.count || !v.failed)
			v.drained = false; /* there is room: the source is asked again */
	}
	reset(&v);
	buf_finish(&v.small);
	free(v.queue);
	return e ? e : v.failed;
}

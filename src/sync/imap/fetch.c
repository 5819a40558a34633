/* Bodies, streamed from the connection to the sink without a copy in between. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "sync/imap/engine.h"
#include "sync/imap/pace.h"

#define PIECE (64U << 10)
#define BUDGET (1ULL << 30)   /* what may come beside a body */
#define SPOOL_IN_MEMORY (256U << 10)
#define SPOOL_MOST (16U << 20)   /* of a body before its UID; a larger one is asked for by itself, where there is no doubt whose it is */
#define SET_MAX 7000          /* bytes of a command's set: many servers take lines of 8,000 */
#define COMMANDS_LEAST 2
#define COMMANDS_MOST 4
#define MESSAGES_AHEAD 400    /* with as many asked for, two commands are enough on a line that is not quick */
#define COMMANDS_QUICK 16     /* on a quick line */
#define LISTEN_MS 1000        /* for so long the source is listened to while nothing comes */

enum state { ASKED, TOLD };
struct batch {
	struct batch *next;
	char *raw;
	uint32_t uidvalidity;
	uint32_t *uids;
	unsigned char *state;     /* enum state of each */
	size_t count, told;
	uint64_t offset, length;
	uint64_t bytes;           /* that are expected */
	void (*about)(void *context, void *batch);
	void *batch;              /* the source's */
	size_t pending;           /* its commands under way */
	bool sent;
	bool selects, anew;       /* the mailbox was selected for it, so that what is there then is seen; it is to be once more */
	bool alone;               /* each UID in a command of its own: the second attempt */
	bool refused, denied;     /* a command was; with NO */
	bool stray;               /* a body came that nobody can be told to own */
	enum mf_err result;       /* of its SELECT */
};

struct fetch {
	struct imap *s;
	const struct fetch_source *source;
	const struct fetch_sink *sink;
	struct batch *first, **last;
	bool drained;             /* the source has said that there is nothing more now */
	enum mf_err failed;       /* the sink has: what comes is thrown away */
	enum mf_err select_error; /* why the last SELECT that failed did */
	size_t messages;          /* asked for and not told */
	uint64_t bytes;           /* expected, of batches that are not over */
	struct pace pace;
	/* the body of the response under way */
	bool has_body, streamed;  /* there is one; its bytes go to the sink as they come */
	bool unwanted;            /* they go nowhere: nobody asked, */
	bool too_large;           /* or whose they are is not known in time */
	uint32_t body_uid;        /* known before it came; 0: not */
	uint64_t body_offset, body_length;
	struct buf spool;         /* a body that came before its UID */
	FILE *spool_file;         /* a larger one */
	char *piece;
};

/* --- who is it for --------------------------------------------------------------------------------------------------- */

static size_t find_uid(const struct batch *b, uint32_t uid)
{
	size_t low = 0, high = b->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (b->uids[middle] < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low < b->count && b->uids[low] == uid ? low : SIZE_MAX;
}

/* Whether what comes for this batch now is of the mailbox that it means. */
static bool is_right_mailbox(const struct fetch *v, struct batch *b)
{
	const struct imap_selection *selected = &v->s->selected;
	if (!b->result && (!selected->raw || strcmp(selected->raw, b->raw)))
		b->result = v->select_error ? v->select_error : MF_DENIED;
	else if (!b->result && selected->status.uidvalidity != b->uidvalidity)
		b->result = MF_UIDVALIDITY;
	return !b->result;
}

/* Responses belong to the commands before the next SELECT: of several parts of a message to the one that begins at `origin`.
 * *ret_at: the UID's place in the batch. */
static struct batch *find_batch(const struct fetch *v, uint32_t uid, uint64_t origin, size_t *ret_at)
{
	struct batch *other = NULL; /* of which all has come, and not the part */
	size_t at;
	for (const struct imap_command *c = v->s->head; c && !c->selects; c = c->next) {
		struct batch *b = c->owner;
		if (!b || c->index != 1 || !is_right_mailbox(v, b))
			continue;
		at = find_uid(b, uid);
		if (at == SIZE_MAX || b->state[at] != ASKED || (other && b->offset != origin))
			continue;
		*ret_at = at;
		other = b;
		if (!b->length || b->offset == origin)
			break;
	}
	return other;
}

/* a server that leaves out the UID: clear all the same when only one message is asked for by the oldest command */
static uint32_t only_uid(const struct fetch *v)
{
	const struct imap_command *c = v->s->head;
	if (!c || c->selects || c->index != 1)
		return 0;
	return c->last;
}

static void tell_about(const struct fetch *v, const struct batch *b)
{
	if (b->about)
		b->about(v->source->context, b->batch);
}

static enum mf_err tell_end(struct fetch *v, struct batch *b, size_t at, enum mf_err result, bool whole)
{
	b->state[at] = TOLD;
	b->told++;
	v->messages--;
	tell_about(v, b);
	return v->sink->end(v->sink->context, b->uids[at], result, whole);
}

/* --- a body ---------------------------------------------------------------------------------------------------------- */

static void spool_reset(struct fetch *v)
{
	buf_reset(&v->spool);
	if (v->spool_file)
		fclose(v->spool_file);
	v->spool_file = NULL;
}

static enum mf_err spool_add(struct fetch *v, const void *data, size_t len)
{
	if (!v->spool_file && buf_add(&v->spool, data, len) == MF_OK)
		return MF_OK;
	if (!v->spool_file && (!(v->spool_file = tmpfile()) || fwrite(v->spool.data, 1, v->spool.len, v->spool_file) != v->spool.len))
		return MF_NO_SPACE;
	return fwrite(data, 1, len, v->spool_file) == len ? MF_OK : MF_NO_SPACE;
}

static void give(struct fetch *v, const void *data, size_t len)
{
	if (!v->failed && len && !v->unwanted && !v->too_large)
		v->failed = v->streamed ? v->sink->data(v->sink->context, data, len) : spool_add(v, data, len);
}

static uint32_t uid_before(struct span line)
{
	struct scan s = { line.p, line.p + line.len };
	struct span name;
	uint32_t uid;
	while (s.p < s.end && *s.p != '(')
		s.p++;
	if (!scan_char(&s, '('))
		return 0;
	while (scan_item(&s, &name) && scan_char(&s, ' ')) {
		struct scan value = s;
		if (span_is(name, "UID") && scan_uid(&value, &uid))
			return uid;
		if (!scan_skip(&s))
			return 0;
		(void)scan_char(&s, ' ');
	}
	return 0;
}

/* []<17> */
static uint64_t origin_of(struct span section)
{
	struct scan s = { section.p, section.p + section.len };
	uint64_t origin = 0;
	return scan_char(&s, '[') && scan_char(&s, ']') && scan_char(&s, '<') && scan_number(&s, &origin) ? origin : 0;
}

static void begin_body(struct fetch *v, uint32_t uid, uint64_t offset, uint64_t length)
{
	size_t at;
	v->has_body = true;
	v->body_uid = uid;
	v->body_offset = offset;
	v->body_length = length;
	const struct batch *b = uid ? find_batch(v, uid, offset, &at) : NULL;
	v->streamed = b != NULL;
	v->unwanted = uid && !v->streamed;
	v->too_large = !uid && length > SPOOL_MOST;
	spool_reset(v);
	if (!b || v->failed)
		return;
	tell_about(v, b);
	v->failed = v->sink->begin(v->sink->context, uid, offset, length);
}

/* The reader meets BODY[] {n}: see frame_body. Always takes n bytes, whatever the sink says, so that the session lives. */
static enum mf_err take_body(void *context, struct span line, struct span section, uint64_t len)
{
	struct fetch *v = context;
	uint32_t uid = uid_before(line);
	begin_body(v, uid ? uid : only_uid(v), origin_of(section), len);
	transport_set_budget(v->s->transport, len + BUDGET);
	while (len) {
		size_t n = len < PIECE ? (size_t)len : PIECE;
		enum mf_err e = frame_read_bytes(&v->s->reader, v->piece, n);
		if (e)
			return e;
		pace_came(&v->pace, n);
		give(v, v->piece, n);
		/* a local disk that is full concerns every body: reading on would be for nobody */
		if (v->failed && mf_err_scope(v->failed) >= MF_SCOPE_CONNECTION)
			return v->failed;
		len -= n;
	}
	return MF_OK;
}

static enum mf_err unspool(struct fetch *v, const struct batch *b, uint32_t uid)
{
	tell_about(v, b);
	enum mf_err e = v->sink->begin(v->sink->context, uid, v->body_offset, v->body_length);
	if (e || !v->spool_file)
		return e ? e : v->spool.len ? v->sink->data(v->sink->context, v->spool.data, v->spool.len) : MF_OK;
	if (fflush(v->spool_file) || fseek(v->spool_file, 0, SEEK_SET))
		return MF_IO;
	for (uint64_t left = v->body_length; left && !e;) {
		size_t n = fread(v->piece, 1, left < PIECE ? (size_t)left : PIECE, v->spool_file);
		e = n ? v->sink->data(v->sink->context, v->piece, n) : MF_IO;
		left -= n;
	}
	return e;
}

/* --- a response ------------------------------------------------------------------------------------------------------ */

/* BODY[] as a quoted string or NIL, which no literal announces */
static void small_body(struct fetch *v, struct span section, struct scan value, uint32_t uid)
{
	struct buf scratch;
	struct span text;
	buf_init(&scratch, SPOOL_IN_MEMORY);
	if (scan_nstring(&value, &scratch, &text)) {
		begin_body(v, uid, origin_of(section), text.len);
		give(v, text.p, text.len);
	}
	buf_finish(&scratch);
}

/* Behind "* n FETCH ": whose it is, and a body that was no literal. */
static uint32_t scan_response(struct fetch *v, struct scan s)
{
	uint32_t uid = 0;
	struct span name, section = { NULL, 0 };
	struct scan small = { NULL, NULL };
	if (!scan_char(&s, '('))
		return 0;
	while (scan_item(&s, &name) && scan_char(&s, ' ')) {
		struct scan value = s;
		if (span_is(name, "UID"))
			(void)scan_uid(&value, &uid);
		else if (span_begins(name, "BODY[]") && !v->has_body) {
			small = value;
			section = (struct span){ name.p + 4, name.len - 4 };
		}
		if (!scan_skip(&s))
			break;
		(void)scan_char(&s, ' ');
	}
	if (!uid)
		uid = v->body_uid ? v->body_uid : only_uid(v);
	if (section.p)
		small_body(v, section, small, uid);
	return uid;
}

static enum mf_err end_body(struct fetch *v, uint32_t uid)
{
	size_t at;
	struct batch *b = uid ? find_batch(v, uid, v->body_offset, &at) : NULL;
	if (v->streamed && uid != v->body_uid)
		return imap_fail(v->s, MF_PROTOCOL, "the server gave one body two UIDs");
	if (!b) {
		for (const struct imap_command *c = v->s->head; !uid && c && !c->selects; c = c->next)
			if (c->index == 1)
				((struct batch *)c->owner)->stray = true;
		return MF_OK;
	}
	bool whole = !b->length || (v->body_offset == 0 && v->body_length < b->length);
	if (b->length && !v->body_offset && b->offset)
		whole = true; /* asked for a part, and gave all */
	enum mf_err e = v->streamed || v->unwanted ? MF_OK : unspool(v, b, uid);
	return e ? e : tell_end(v, b, at, MF_OK, whole);
}

static enum mf_err on_data(struct imap *s, void *verb, struct imap_data *data)
{
	struct fetch *v = verb;
	if ((data->kind != DATA_FETCH && data->kind != DATA_SKIPPED) || v->failed) {
		v->has_body = false;
		return v->failed;
	}
	struct scan line = { s->frame.text->str, s->frame.text->str + s->frame.text->len };
	const char *items = memchr(line.p, '(', (size_t)(line.end - line.p));
	line.p = items ? items : line.end;
	uint32_t uid = scan_response(v, line);
	enum mf_err e = v->failed;
	if (!e && v->has_body) {
		data->expected = true;
		e = end_body(v, v->too_large ? 0 : uid);
	}
	v->has_body = v->streamed = v->unwanted = v->too_large = false;
	spool_reset(v);
	return e;
}

/* --- when a command is over ------------------------------------------------------------------------------------------ */

static void free_batch(struct batch *b)
{
	free(b->raw);
	free(b->uids);
	free(b->state);
	free(b);
}

static void drop_batch(struct fetch *v, struct batch *b)
{
	v->bytes -= b->bytes;
	for (struct batch **at = &v->first; *at; at = &(*at)->next) {
		if (*at != b)
			continue;
		*at = b->next;
		if (v->last == &b->next)
			v->last = at;
		free_batch(b);
		return;
	}
}

/* What was asked for and has not come: gone, unless something was refused or came without a name; or the server (Courier) does not show
 * it to who has selected the mailbox before it arrived: so that is done once more. */
static enum mf_err batch_over(struct fetch *v, struct batch *b)
{
	if (!b->result && !b->selects && b->told < b->count && !b->refused && !b->stray) {
		b->anew = true;
		b->sent = false;
		return MF_OK;
	}
	if (!b->result && !b->alone && b->told < b->count && (b->refused || b->stray) && b->count > 1) {
		b->alone = true;   /* one message may spoil a set: each for itself, from the sender's loop */
		b->sent = b->refused = b->denied = b->stray = false;
		return MF_OK;
	}
	enum mf_err result = b->result ? b->result : MF_NOT_FOUND, e = MF_OK;
	if (!b->result && (b->refused || b->stray))
		result = b->denied ? MF_DENIED : MF_PROTOCOL;
	for (size_t i = 0; i < b->count && !e; i++)
		if (b->state[i] == ASKED)
			e = tell_end(v, b, i, result, false);
	drop_batch(v, b);
	return e;
}

/* The verdict on a command is that on its only message. */
static enum mf_err refused_alone(struct fetch *v, struct batch *b, uint32_t uid, const struct imap_cond *cond)
{
	size_t at = find_uid(b, uid);
	if (at == SIZE_MAX || b->state[at] != ASKED)
		return MF_OK;
	return tell_end(v, b, at, cond->kind == COND_NO ? MF_DENIED : MF_PROTOCOL, false);
}

static enum mf_err fetched(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct fetch *v = s->verb;
	struct batch *b = c->owner;
	b->pending--;
	v->drained = false; /* there is room: the source is asked again */
	if (is_right_mailbox(v, b) && cond->kind != COND_OK) {
		if (imap_cond_classify(cond) == MF_OFFLINE && !span_is(cond->code, "UNAVAILABLE"))
			return imap_cond_error(s, cond, c->what);
		if (c->last) {
			enum mf_err e = refused_alone(v, b, c->last, cond);
			if (e)
				return e;
		} else {
			b->refused = true;
			b->denied |= cond->kind == COND_NO;
		}
	}
	return b->sent && !b->pending ? batch_over(v, b) : MF_OK;
}

static enum mf_err selected(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct fetch *v = s->verb;
	struct batch *b = c->owner;
	b->pending--;
	if (cond->kind != COND_OK) {
		enum mf_err e = imap_cond_classify(cond);
		if (e == MF_OFFLINE)
			return imap_cond_error(s, cond, c->what);
		b->result = v->select_error = e == MF_PROTOCOL ? MF_DENIED : e;
	}
	return b->sent && !b->pending ? batch_over(v, b) : MF_OK;
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

static enum mf_err send_set(struct fetch *v, struct batch *b, const char *set, uint32_t only)
{
	imap_put(v->s, "UID FETCH %s (UID BODY.PEEK[]", set);
	if (b->length)
		imap_put(v->s, "<%llu.%llu>", (unsigned long long)b->offset, (unsigned long long)b->length);
	imap_put(v->s, ")");
	b->pending++;
	return imap_send(v->s, &(struct imap_command){ .what = "UID FETCH", .done = fetched, .owner = b, .index = 1, .last = only }, NULL);
}

static enum mf_err send_sets(struct fetch *v, struct batch *b)
{
	struct uidset set;
	struct buf text;
	enum mf_err e = MF_OK;
	uidset_init(&set);
	buf_init(&text, SET_MAX * 2);
	size_t left = 0;
	uint32_t one = 0;
	for (size_t i = 0; i < b->count; i++) {
		if (b->state[i] == ASKED) {
			uidset_add(&set, b->uids[i], b->uids[i]);
			one = b->uids[i];
			left++;
		}
	}
	struct uid_ranges ranges = uidset_ranges(&set);
	for (size_t at = 0; at < ranges.count && !e; buf_reset(&text)) {
		uid_ranges_write(ranges, &at, SET_MAX, &text);
		e = send_set(v, b, text.data, left == 1 ? one : 0);
	}
	buf_finish(&text);
	uidset_finish(&set);
	return e;
}

static enum mf_err send_alone(struct fetch *v, struct batch *b)
{
	enum mf_err e = MF_OK;
	char text[16];
	for (size_t i = 0; i < b->count && !e; i++) {
		if (b->state[i] != ASKED)
			continue;
		snprintf(text, sizeof text, "%u", b->uids[i]);
		e = send_set(v, b, text, b->uids[i]);
	}
	return e;
}

static enum mf_err send_select(struct fetch *v, struct batch *b)
{
	const char *ahead = imap_selected_ahead(v->s);
	if (ahead && !strcmp(ahead, b->raw) && !b->anew)
		return MF_OK;
	b->selects = true;
	b->anew = false;
	b->pending++;
	enum mf_err e = imap_send_select(v->s, b->raw, "", &(struct imap_command){ .done = selected, .owner = b });
	if (e && !v->s->dead) {
		b->pending--;
		b->result = e; /* a name that cannot be sent */
		return MF_OK;
	}
	return e;
}

static enum mf_err send_batch(struct fetch *v, struct batch *b)
{
	enum mf_err e = send_select(v, b);
	if (!e && !b->result)
		e = b->alone ? send_alone(v, b) : send_sets(v, b);
	b->sent = true;
	return e || b->pending ? e : batch_over(v, b);
}

static bool room(const struct fetch *v)
{
	size_t commands = v->s->under_way;
	return commands < COMMANDS_LEAST || (commands < COMMANDS_MOST && v->messages < MESSAGES_AHEAD) ||
	       (commands < COMMANDS_QUICK && v->bytes < pace_ahead(&v->pace));
}

static bool next_batch(struct fetch *v)
{
	struct fetch_batch from = { 0 };
	if (v->drained || !v->source->next(v->source->context, &from)) {
		v->drained = true;
		return false;
	}
	struct batch *b = MF_NEW(struct batch);
	*b = (struct batch){ .raw = mf_strdup(from.raw), .uidvalidity = from.uidvalidity, .count = from.count, .offset = from.offset, .length = from.length, .bytes = from.bytes,
		.about = from.about, .batch = from.batch };
	b->uids = mf_alloc_array(from.count ? from.count : 1, sizeof *b->uids);
	b->state = mf_alloc_array(from.count ? from.count : 1, 1);
	if (from.count)
		memcpy(b->uids, from.uids, from.count * sizeof *b->uids);
	*v->last = b;
	v->last = &b->next;
	v->messages += from.count;
	v->bytes += from.bytes;
	return true;
}

static struct batch *unsent(const struct fetch *v)
{
	for (struct batch *b = v->first; b; b = b->next)
		if (!b->sent)
			return b;
	return NULL;
}

static enum mf_err fill(struct fetch *v)
{
	enum mf_err e = MF_OK;
	while (!e && room(v)) {
		struct batch *b = unsent(v);
		if (!b && !next_batch(v))
			break;
		if ((b = unsent(v)))
			e = send_batch(v, b);
	}
	return e;
}

/* Until something comes: what the source has by then goes out at once, and not a round trip later. */
static enum mf_err listen_to_source(struct fetch *v)
{
	int64_t until = clock_mono_ms() + LISTEN_MS;
	enum mf_err e = MF_OK;
	for (bool readable = false; !e && !readable && v->source->wake_fd && v->drained && room(v);) {
		int64_t left = until - clock_mono_ms();
		e = transport_wait(v->s->transport, left > 0 ? left : 0, *v->source->wake_fd, &readable);
		if (e == MF_TIMEOUT && !transport_error(v->s->transport))
			return MF_OK; /* the response has a deadline of its own */
		if (e)
			return imap_fail_transport(v->s, e);
		if (!readable) {
			v->drained = false;
			e = fill(v);
		}
	}
	return e;
}

static enum mf_err run(struct fetch *v)
{
	enum mf_err e = fill(v);
	while (!e && v->s->under_way) {
		e = listen_to_source(v);
		if (!e)
			e = imap_pump(v->s);
		pace_look(&v->pace, clock_mono_ms());
		if (!e)
			e = v->failed ? v->failed : fill(v);
	}
	return e;
}

enum mf_err imap_fetch(struct imap *s, const struct fetch_source *source, const struct fetch_sink *sink)
{
	struct fetch v = { .s = s, .source = source, .sink = sink };
	pace_begin(&v.pace, clock_mono_ms());
	v.last = &v.first;
	enum mf_err e = imap_verb_begin(s, &v, on_data);
	if (e)
		return e;
	buf_init(&v.spool, SPOOL_IN_MEMORY);
	v.piece = mf_realloc_array(NULL, PIECE, 1);
	s->reader.body = take_body;
	s->reader.context = &v;
	e = run(&v);
	e = imap_verb_end(s, e);
	s->reader.body = NULL;
	spool_reset(&v);
	buf_finish(&v.spool);
	free(v.piece);
	while (v.first) {
		struct batch *b = v.first;
		v.first = b->next;
		free_batch(b);
	}
	return e;
}

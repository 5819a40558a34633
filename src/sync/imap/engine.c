#include "sync/imap/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define BUDGET (4ULL << 30)       /* what may come between two ends of commands, beside what a body is known to have */

/* --- failing ------------------------------------------------------------------------------------------------------- */

enum mf_err imap_fail(struct imap *s, enum mf_err e, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(s->why.text, sizeof s->why.text, format, arguments);
	va_end(arguments);
	if (mf_err_scope(e) >= MF_SCOPE_CONNECTION && !s->dead) {
		s->dead = e;
		trace(TRACE_IMAP, "%s: session over, %s: %s", s->host, mf_err_name(e), s->why.text);
	}
	return e;
}

enum mf_err imap_fail_transport(struct imap *s, enum mf_err e)
{
	if (s->dead)
		return s->dead;
	const char *reason = s->transport ? transport_reason(s->transport) : "";
	s->dead = e; /* MF_CANCELLED too: nothing is left to go on with */
	return imap_fail(s, e, "%s", *reason ? reason : mf_err_words(e));
}

struct code_row { const char *code; enum mf_err e; };
static const struct code_row codes[] = { /* RFC 5530, RFC 9051 7.1, RFC 9738 */
	{ "AUTHENTICATIONFAILED", MF_AUTH }, { "AUTHORIZATIONFAILED", MF_AUTH }, { "EXPIRED", MF_AUTH }, { "PRIVACYREQUIRED", MF_TLS },
	{ "UNAVAILABLE", MF_OFFLINE }, { "INUSE", MF_OFFLINE }, { "LIMIT", MF_OFFLINE }, { "CONTACTADMIN", MF_DENIED },
	{ "THROTTLED", MF_OFFLINE }, { "NOPERM", MF_DENIED }, { "OVERQUOTA", MF_QUOTA }, { "NONEXISTENT", MF_NOT_FOUND },
	{ "TRYCREATE", MF_NOT_FOUND }, { "ALREADYEXISTS", MF_EXISTS }, { "CANNOT", MF_DENIED },
};

static bool says(struct span text, const char *words)
{
	return text.len && memmem(text.p, text.len, words, strlen(words));
}

enum mf_err imap_cond_classify(const struct imap_cond *cond)
{
	if (cond->kind == COND_OK || cond->kind == COND_PREAUTH)
		return MF_OK;
	if (cond->kind == COND_BYE)
		return MF_OFFLINE;
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
		if (span_is(cond->code, codes[i].code))
			return codes[i].e;
	if (says(cond->text, "throttled") || says(cond->text, "Backoff Time") || says(cond->text, "not connected"))
		return MF_OFFLINE;
	return cond->kind == COND_BAD ? MF_PROTOCOL : MF_DENIED;
}

enum mf_err imap_cond_error(struct imap *s, const struct imap_cond *cond, const char *what)
{
	enum mf_err e = imap_cond_classify(cond);
	char text[200], code[40];
	if (e)
		imap_fail(s, e, "%s: the server answered %s%s%s: %s", what, cond->kind == COND_BAD ? "BAD" : cond->kind == COND_BYE ? "BYE" : "NO",
		          cond->code.len ? " " : "", mf_printable(code, sizeof code, cond->code.p ? cond->code.p : "", cond->code.len),
		          mf_printable(text, sizeof text, cond->text.p, cond->text.len));
	return e;
}

/* --- tracing ------------------------------------------------------------------------------------------------------- */

static void trace_text(const struct imap *s, const char *arrow, const char *text, size_t len)
{
	char line[600];
	while (len && (text[len - 1] == '\n' || text[len - 1] == '\r'))
		len--;
	trace_line(TRACE_IMAP, "%s %s %s%s", s->host, arrow, mf_printable(line, sizeof line, text, len), len >= sizeof line ? "..." : "");
}

/* --- sending ------------------------------------------------------------------------------------------------------- */

void imap_put(struct imap *s, const char *format, ...)
{
	char *text;
	va_list arguments;
	va_start(arguments, format);
	int len = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (len < 0)
		abort();
	if (memchr(text, '\r', (size_t)len) || memchr(text, '\n', (size_t)len))
		s->out_error = MF_INVALID;
	else if (buf_add(&s->out, text, (size_t)len))
		s->out_error = MF_TOO_BIG;
	if (s->out_secret != SIZE_MAX)
		explicit_bzero(text, (size_t)len);
	free(text);
}

static bool can_be_quoted(const char *string, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)string[i] >= 0x80 || (unsigned char)string[i] < 0x20 || string[i] == 0x7f)
			return false;
	return len <= 1000;
}

static void put_quoted(struct imap *s, const char *string, size_t len)
{
	(void)buf_add(&s->out, "\"", 1);
	for (size_t i = 0; i < len; i++) {
		if (string[i] == '"' || string[i] == '\\')
			(void)buf_add(&s->out, "\\", 1);
		(void)buf_add(&s->out, &string[i], 1);
	}
	if (buf_add(&s->out, "\"", 1))
		s->out_error = MF_TOO_BIG;
}

static void put_literal(struct imap *s, const char *string, size_t len)
{
	bool waits = !(s->caps & CAP(LITERAL_PLUS)) && !((s->caps & CAP(LITERAL_MINUS)) && len <= 4096);
	if (waits && s->out_stop_count == sizeof s->out_stops / sizeof *s->out_stops) {
		s->out_error = MF_TOO_BIG;
		return;
	}
	(void)buf_addf(&s->out, "{%zu%s}\r\n", len, waits ? "" : "+");
	if (waits)
		s->out_stops[s->out_stop_count++] = s->out.len;
	if (buf_add(&s->out, string, len))
		s->out_error = MF_TOO_BIG;
}

void imap_put_string(struct imap *s, const char *string, size_t len)
{
	if (memchr(string, '\r', len) || memchr(string, '\n', len) || memchr(string, 0, len))
		s->out_error = MF_INVALID;
	else if (can_be_quoted(string, len))
		put_quoted(s, string, len);
	else
		put_literal(s, string, len);
}

void imap_put_hidden(struct imap *s)
{
	if (s->out_secret == SIZE_MAX)
		s->out_secret = s->out.len;
}

void imap_put_secret(struct imap *s, const char *string, size_t len)
{
	imap_put_hidden(s);
	imap_put_string(s, string, len);
}

static void out_reset(struct imap *s)
{
	if (s->out_secret != SIZE_MAX)
		explicit_bzero(s->out.data, s->out.len);
	buf_reset(&s->out);
	s->out_stop_count = 0;
	s->out_secret = SIZE_MAX;
	s->out_error = MF_OK;
}

static void trace_command(const struct imap *s, const char *tag)
{
	size_t len = s->out.len < s->out_secret ? s->out.len : s->out_secret;
	char line[1024];
	int n = snprintf(line, sizeof line, "%s%.*s%s", tag, (int)(len < 900 ? len : 900), s->out.data, len < s->out.len ? "***" : "");
	trace_text(s, ">", line, n > 0 && (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static enum mf_err write_out(struct imap *s, const void *data, size_t len)
{
	enum mf_err e = transport_write(s->transport, data, len);
	return e ? imap_fail_transport(s, e) : MF_OK;
}

static void enqueue(struct imap *s, const struct imap_command *command)
{
	struct imap_command *c = MF_NEW(struct imap_command);
	*c = *command;
	c->next = NULL;
	c->serial = ++s->last_tag;
	*s->tail = c;
	s->tail = &c->next;
	s->under_way++;
}

static enum mf_err end_idle(struct imap *s)
{
	if (!s->idle)
		return MF_OK;
	s->idle = false;
	trace(TRACE_IMAP, "%s > DONE", s->host);
	return write_out(s, "DONE\r\n", 6);
}

/* From out.data[*at] to the next stop. false in *ret_more: all has been written. */
static enum mf_err write_part(struct imap *s, size_t *at, size_t stop)
{
	size_t end = stop < s->out_stop_count ? s->out_stops[stop] : s->out.len;
	enum mf_err e = write_out(s, s->out.data + *at, end - *at);
	*at = end;
	return e;
}

static enum mf_err write_command(struct imap *s, unsigned serial)
{
	char tag[16];
	int len = snprintf(tag, sizeof tag, "a%u ", serial);
	if (trace_on(TRACE_IMAP))
		trace_command(s, tag);
	enum mf_err e = buf_add(&s->out, "\r\n", 2) ? MF_TOO_BIG : write_out(s, tag, (size_t)len);
	size_t at = 0;
	if (!e)
		e = write_part(s, &at, 0);
	for (size_t stop = 1; !e && stop <= s->out_stop_count; stop++) {
		bool plus;
		e = imap_pump_plus(s, serial, &plus);
		if (e && !s->dead) /* a sink wants to stop, and half a command has been sent */
			s->dead = e;
		if (e || !plus)
			return e;
		e = write_part(s, &at, stop);
	}
	return e;
}

enum mf_err imap_send(struct imap *s, const struct imap_command *command, unsigned *ret_serial)
{
	if (s->dead || s->out_error || s->out.len > s->out.max - 2) {
		enum mf_err e = s->dead ? s->dead : s->out_error ? s->out_error : MF_TOO_BIG;
		out_reset(s);
		free(command->selects);
		return s->dead ? e : imap_fail(s, e, "%s: a name or argument that cannot be sent", command->what);
	}
	enum mf_err e = end_idle(s);
	enqueue(s, command);
	unsigned serial = s->last_tag;
	if (!e)
		e = write_command(s, serial);
	out_reset(s);
	if (!e && ret_serial)
		*ret_serial = serial;
	return e;
}

enum mf_err imap_send_bytes(struct imap *s, const void *data, size_t len)
{
	if (s->dead)
		return s->dead;
	transport_set_deadline(s->transport, 0); /* that of the response read last; progress is asked for all the same */
	return write_out(s, data, len);
}

enum mf_err imap_send_line(struct imap *s, const char *line, size_t len)
{
	trace(TRACE_IMAP, "%s > %s", s->host, len ? "***" : "");
	enum mf_err e = write_out(s, line, len);
	return e ? e : write_out(s, "\r\n", 2);
}

enum mf_err imap_send_select(struct imap *s, const char *raw, const char *parameter, const struct imap_command *command)
{
	struct imap_command select = *command;
	select.what = select.writes ? "SELECT" : "EXAMINE";
	select.selects = mf_strdup(raw);
	imap_put(s, "%s ", select.what);
	imap_put_string(s, raw, strlen(raw));
	imap_put(s, "%s", parameter);
	return imap_send(s, &select, NULL);
}

const char *imap_selected_ahead(const struct imap *s)
{
	const char *raw = s->selected.raw;
	for (const struct imap_command *c = s->head; c; c = c->next)
		if (c->selects)
			raw = c->selects;
	return raw;
}

/* --- what a mailbox is, as it is told ------------------------------------------------------------------------------- */

static void selection_finish(struct imap_selection *selection)
{
	free(selection->raw);
	*selection = (struct imap_selection){ 0 };
}

static enum mf_err left(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	(void)c;
	if (cond->kind == COND_OK) {
		selection_finish(&s->selected);
		s->news = 0;
	}
	return MF_OK;
}

enum mf_err imap_refresh_view(struct imap *s)
{
	unsigned serial;
	if (!imap_selected_ahead(s))
		return MF_OK;
	if (s->caps & CAP(UNSELECT)) {
		imap_put(s, "UNSELECT");
		return imap_send(s, &(struct imap_command){ .what = "UNSELECT", .done = left }, NULL);
	}
	imap_put(s, "NOOP");
	enum mf_err e = imap_send(s, &(struct imap_command){ .what = "NOOP" }, &serial);
	return e ? e : imap_pump_until(s, serial);
}

static bool selecting(const struct imap *s)
{
	return s->head && s->head->selects;
}

static void take_number(struct span args, uint32_t *to)
{
	struct scan s = { args.p, args.p + args.len };
	uint32_t number;
	if (args.len && scan_uid(&s, &number))
		*to = number;
}

static void take_select_code(struct imap_selection *o, const struct imap_cond *cond)
{
	uint64_t modseq;
	struct scan args = { cond->args.p, cond->args.p + cond->args.len };
	if (span_is(cond->code, "UIDVALIDITY")) {
		take_number(cond->args, &o->status.uidvalidity);
		o->own = true;
	} else if (span_is(cond->code, "UIDNEXT")) {
		take_number(cond->args, &o->status.uidnext);
	} else if (span_is(cond->code, "HIGHESTMODSEQ")) {
		if (cond->args.len && scan_number(&args, &modseq))
			o->status.modseq = modseq;
	} else if (span_is(cond->code, "NOMODSEQ")) {
		o->no_modseq = true;
	} else if (span_is(cond->code, "READ-ONLY")) {
		o->read_only = true;
	} else if (span_is(cond->code, "CLOSED")) {
		o->own = true;
	}
}

static void take_vanished(struct imap *s, const struct imap_data *data)
{
	struct mailbox_status *status = &s->selected.status;
	struct uidset gone;
	struct scan rest = data->rest;
	uidset_init(&gone);
	if (!data->earlier && uidset_scan(&gone, &rest, 1, UINT32_MAX)) {
		uint64_t n = uidset_size(&gone);
		status->messages = n < status->messages ? status->messages - (uint32_t)n : 0;
		if (!data->expected)
			s->news |= NEWS_OTHER;
	}
	uidset_finish(&gone);
}

static void track_news(struct imap *s, const struct imap_data *data)
{
	struct mailbox_status *status = &s->selected.status;
	if (data->kind == DATA_EXISTS) {
		if (data->number != status->messages)
			s->news |= data->number > status->messages ? NEWS_MESSAGES : NEWS_OTHER;
		status->messages = data->number;
	} else if (data->kind == DATA_EXPUNGE) {
		s->news |= NEWS_OTHER;
		if (status->messages)
			status->messages--;
	} else if (data->kind == DATA_VANISHED) {
		take_vanished(s, data);
	} else if ((data->kind == DATA_FETCH || data->kind == DATA_SKIPPED) && !data->expected) {
		s->news |= NEWS_OTHER;
	}
}

static void track_opening(struct imap *s, const struct imap_data *data)
{
	if (data->kind == DATA_FLAGS)
		s->opening.own = true;
	else if (data->kind == DATA_EXISTS && s->opening.own)
		s->opening.status.messages = data->number;
	else if (data->kind == DATA_COND)
		take_select_code(&s->opening, &data->cond);
}

/* --- receiving ----------------------------------------------------------------------------------------------------- */

static uint64_t append_limit(struct scan words)
{
	static const char name[] = "APPENDLIMIT=";
	struct span word;
	uint64_t limit = 0;
	while (scan_word(&words, &word)) {
		struct scan number = { word.p + sizeof name - 1, word.p + word.len };
		if (span_begins(word, name) && number.p < number.end)
			(void)scan_number(&number, &limit);
		while (scan_char(&words, ' '))
			;
	}
	return limit;
}

static void take_caps(struct imap *s, struct scan words)
{
	s->append_limit = append_limit(words);
	s->caps = imap_caps_scan(words) & ~imap_memory_distrusted(s->options.memory);
	s->caps_told = true;
}

static enum mf_err take_cond(struct imap *s, const struct imap_cond *cond)
{
	char text[240];
	if (span_is(cond->code, "CAPABILITY"))
		take_caps(s, (struct scan){ cond->args.p, cond->args.p + cond->args.len });
	if (span_is(cond->code, "ALERT"))
		log_warning("%s says: %s", s->host, mf_printable(text, sizeof text, cond->text.p, cond->text.len));
	if (span_is(cond->code, "NOTIFICATIONOVERFLOW"))
		imap_push_overflowed(s);
	if (cond->kind != COND_BYE)
		return MF_OK;
	return imap_fail(s, MF_OFFLINE, "the server said goodbye: %s", mf_printable(text, sizeof text, cond->text.p, cond->text.len));
}

static void take_enabled(struct imap *s, struct scan words)
{
	struct span word;
	while (scan_word(&words, &word)) {
		if (span_is(word, "QRESYNC"))
			s->qresync = true;
		while (scan_char(&words, ' '))
			;
	}
}

static enum mf_err take_untagged(struct imap *s)
{
	struct imap_data data;
	imap_parse(s->parser, &s->frame, &data);
	if (data.kind == DATA_CAPABILITY)
		take_caps(s, data.rest);
	else if (data.kind == DATA_ENABLED)
		take_enabled(s, data.rest);
	bool opening = selecting(s);
	if (opening)
		track_opening(s, &data);
	enum mf_err e = data.kind == DATA_COND ? take_cond(s, &data.cond) : MF_OK;
	if (!e && s->lister && s->head && s->head->owner == s->lister)
		imap_lister_data(s->lister, &data);
	else if (!e && s->on_data && !s->muted)
		e = s->on_data(s, s->verb, &data);
	if (!opening && s->selected.raw)
		track_news(s, &data);
	if (s->notify && !data.expected)
		imap_push_note(s, &data);
	return e;
}

static struct imap_command *unlink_command(struct imap *s, unsigned serial)
{
	for (struct imap_command **at = &s->head; *at; at = &(*at)->next) {
		struct imap_command *c = *at;
		if (c->serial != serial)
			continue;
		*at = c->next;
		if (s->tail == &c->next)
			s->tail = at;
		s->under_way--;
		return c;
	}
	return NULL;
}

static void free_command(struct imap_command *c)
{
	free(c->selects);
	free(c);
}

static void prepare_opening(struct imap *s)
{
	if (!selecting(s) || s->opening.raw)
		return;
	s->opening = (struct imap_selection){ .raw = mf_strdup(s->head->selects), .writable = s->head->writes };
	/* with QRESYNC the server says [CLOSED] where the old mailbox ends; FLAGS or UIDVALIDITY say the same later */
	s->opening.own = !s->qresync || !s->selected.raw;
}

static void end_select(struct imap *s, const struct imap_cond *cond)
{
	selection_finish(&s->selected);
	s->news = 0;
	if (cond->kind == COND_OK) {
		take_select_code(&s->opening, cond);
		s->selected = s->opening;
		s->opening = (struct imap_selection){ 0 };
	} else {
		selection_finish(&s->opening); /* RFC 9051 6.3.2: nothing is selected now */
	}
}

static enum mf_err take_tagged(struct imap *s, unsigned serial, struct scan rest)
{
	struct imap_cond cond;
	if (!imap_parse_cond(&rest, &cond) || cond.kind == COND_BYE || cond.kind == COND_PREAUTH)
		return imap_fail(s, MF_PROTOCOL, "the server's answer to a command cannot be understood");
	struct imap_command *c = unlink_command(s, serial);
	if (!c)
		return imap_fail(s, MF_PROTOCOL, "the server answered a command that was not given");
	transport_set_budget(s->transport, BUDGET);
	enum mf_err e = take_cond(s, &cond);
	if (c->selects)
		end_select(s, &cond);
	if (c->idle && !e)
		s->idle = false;
	if (!e && c->done && !s->muted)
		e = c->done(s, c, &cond);
	free_command(c);
	return e;
}

static enum mf_err take_plus(struct imap *s)
{
	struct scan t = { s->frame.text->str + 1, s->frame.text->str + s->frame.text->len };
	(void)scan_char(&t, ' ');
	while (t.end > t.p && (t.end[-1] == '\n' || t.end[-1] == '\r'))
		t.end--;
	buf_reset(&s->plus_text);
	if (buf_add(&s->plus_text, t.p, (size_t)(t.end - t.p)))
		return imap_fail(s, MF_PROTOCOL, "a continuation request of %td bytes", t.end - t.p);
	s->plus = true;
	return MF_OK;
}

static enum mf_err dispatch(struct imap *s)
{
	struct scan t = { s->frame.text->str, s->frame.text->str + s->frame.text->len };
	uint64_t serial;
	if (t.p < t.end && *t.p == '+')
		return take_plus(s);
	if (t.end - t.p > 2 && t.p[0] == '*' && t.p[1] == ' ')
		return take_untagged(s);
	if (scan_char(&t, 'a') && scan_number(&t, &serial) && serial <= UINT32_MAX && scan_char(&t, ' '))
		return take_tagged(s, (unsigned)serial, t);
	return imap_fail(s, MF_PROTOCOL, "the server sent a line that is no response");
}

enum mf_err imap_pump(struct imap *s)
{
	if (s->dead)
		return s->dead;
	enum mf_err e = transport_flush(s->transport);
	if (!e) {
		prepare_opening(s);
		e = frame_read(&s->reader, &s->frame);
	}
	if (s->dead)
		return s->dead;
	/* a body's reader may have failed for reasons of its own, with the literal's rest unread: there is no way on */
	if (e && transport_error(s->transport))
		return imap_fail_transport(s, transport_error(s->transport));
	if (e)
		return e == MF_PROTOCOL ? imap_fail(s, e, "the server sent something that is no response") : imap_fail_transport(s, e);
	if (trace_on(TRACE_IMAP))
		trace_text(s, "<", s->frame.text->str, s->frame.text->len);
	return dispatch(s);
}

enum mf_err imap_pump_ready(struct imap *s)
{
	for (;;) {
		bool readable = false;
		enum mf_err e = s->dead ? s->dead : transport_wait(s->transport, 0, -1, &readable);
		if (e == MF_TIMEOUT && !transport_error(s->transport))
			return MF_OK;
		if (e)
			return imap_fail_transport(s, e);
		if (!readable)
			return MF_OK;
		e = imap_pump(s);
		if (e)
			return e;
	}
}

enum mf_err imap_pump_all(struct imap *s)
{
	enum mf_err e = MF_OK;
	while (!e && s->under_way)
		e = imap_pump(s);
	return e;
}

static bool under_way(const struct imap *s, unsigned serial)
{
	for (const struct imap_command *c = s->head; c; c = c->next)
		if (c->serial == serial)
			return true;
	return false;
}

enum mf_err imap_pump_until(struct imap *s, unsigned serial)
{
	enum mf_err e = MF_OK;
	while (!e && under_way(s, serial))
		e = imap_pump(s);
	return e;
}

enum mf_err imap_pump_plus(struct imap *s, unsigned serial, bool *ret_plus)
{
	enum mf_err e = MF_OK;
	s->plus = false;
	while (!e && !s->plus && under_way(s, serial))
		e = imap_pump(s);
	if (!e)
		*ret_plus = s->plus;
	return e;
}

/* --- verbs --------------------------------------------------------------------------------------------------------- */

enum mf_err imap_verb_begin(struct imap *s, void *verb, enum mf_err (*on_data)(struct imap *, void *, struct imap_data *))
{
	if (s->dead)
		return s->dead;
	if (!s->transport || !s->authenticated)
		return imap_fail(s, MF_OFFLINE, "not logged in");
	s->muted = false;
	s->why.text[0] = 0;
	transport_set_budget(s->transport, BUDGET);
	transport_set_deadline(s->transport, 0); /* that of the last response, perhaps long ago */
	enum mf_err e = s->compress_serial ? imap_pump_until(s, s->compress_serial) : MF_OK;
	s->compress_serial = 0;
	s->verb = verb;
	s->on_data = on_data;
	return e;
}

enum mf_err imap_verb_end(struct imap *s, enum mf_err e)
{
	s->reader.body = NULL;
	if (e && !s->dead && mf_err_scope(e) >= MF_SCOPE_CONNECTION) {
		/* not ours: a sink could not take what came (a full disk). What is under way would be read for nobody. */
		s->dead = e;
	} else if (e && !s->dead) {
		struct mf_reason why = s->why;
		uint64_t keep = s->reader.literal_keep;
		s->muted = true;
		s->reader.literal_keep = 0;
		if (imap_pump_all(s) == MF_OK)
			s->why = why;
		s->muted = false;
		s->reader.literal_keep = keep;
	}
	s->verb = NULL;
	s->on_data = NULL;
	return e;
}

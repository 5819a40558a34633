#include "smtp/compose.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/header.h"
#include "mail/text.h"
#include "smtp/addrlist.h"
#include "smtp/fields.h"
#include "smtp/lines.h"
#include "smtp/recode.h"
#include "smtp/survey.h"

#define HEADER_OUT_MAX (16U << 20)  /* encoding makes a header at most some four times as long */
#define PART_HEADER_OUT_MAX (1U << 20)

struct composing {
	const struct compose_options *options;
	int in, out;
	struct mf_reason *why;
	struct buf header;       /* as it was read; lines end with LF */
	uint64_t body;           /* where it begins in `in` */
	bool sealed;             /* signed as a whole: no byte changes */
	bool resent;
	bool replace_from;       /* the From field names nobody ("root"), and whom it goes to does not depend on it */
	const char *resent_end;  /* in header: where the newest block of Resent fields ends */
	struct survey survey;
	struct buf hidden, top, fields;   /* the Bcc fields; what goes in front of the others; the others */
	char *own, *sender;      /* the account's first address; the one that the From field chose */
	size_t authors;          /* mailboxes of the From field */
	struct envelope envelope;
};

/* --- reading ------------------------------------------------------------------------------------------------------- */

static enum mf_err take_header_line(struct composing *c, const struct line *line)
{
	if (line->bare_cr || memchr(line->data, 0, line->len))
		return mf_fail(c->why, MF_INVALID, "the header has a %s", line->bare_cr ? "CR that ends no line" : "NUL byte");
	if (line->begins && !c->header.len && line->len > 5 && !memcmp(line->data, "From ", 5))
		return MF_OK; /* an mbox line */
	if (buf_add(&c->header, line->data, line->len) || (line->ends && buf_add(&c->header, "\n", 1)))
		return mf_fail(c->why, MF_INVALID, "the header is longer than %u bytes", MESSAGE_HEADER_MAX);
	return MF_OK;
}

/* What programs write for sendmail(8): address fields may have what is no address. */
static bool is_loose(const struct composing *c)
{
	return c->options->recipients || c->options->locals;
}

/* As with sendmail(8), for who names the recipients beside it: the text begins where no field stands, and may be all there is. */
static bool may_lack_header(const struct composing *c)
{
	return c->options->recipients && !c->options->draft;
}

static bool begins_text(const struct composing *c, const struct line *line)
{
	bool folded = c->header.len && line->len && (*line->data == ' ' || *line->data == '\t');
	bool mbox = !c->header.len && line->len > 5 && !memcmp(line->data, "From ", 5);
	return may_lack_header(c) && line->begins && !folded && !mbox && !header_name_length(line->data, line->len);
}

static enum mf_err read_header(struct composing *c)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line = { .at = 0 };
	enum mf_err e = MF_OK;
	bool text = false;
	lines_init(l, c->in, 0, UINT64_MAX);
	while (!e && lines_next(l, &line) && !(line.begins && line.ends && !line.len) && !(text = begins_text(c, &line)))
		e = take_header_line(c, &line);
	bool alone = !c->header.len && may_lack_header(c) && l->at;
	c->body = alone ? 0 : text ? line.at : l->at;
	if (!e && l->error)
		e = mf_fail(c->why, l->error, "the message cannot be read");
	if (!e && !c->header.len && !alone)
		e = mf_fail(c->why, MF_INVALID, "not a message: it has no header (\"To: ...\", then an empty line)");
	return e;
}

static bool is_resent_recipient(const struct field *f)
{
	return field_is(f, "Resent-To") || field_is(f, "Resent-Cc") || field_is(f, "Resent-Bcc");
}

/* The newest block of Resent fields is the first one; a name that is there already begins the next (RFC 5322 3.6.6). */
static const char *find_resent_end(const struct composing *c, bool *ret_resent)
{
	static const char *const names[] = { "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc", "Resent-Bcc", "Resent-Date", "Resent-Message-ID" };
	unsigned seen = 0;
	struct fields it = { c->header.data, c->header.data + c->header.len };
	struct field f;
	while (!fields_next(&it, &f, NULL)) {
		if (seen && field_is(&f, "Received"))
			return f.raw;
		for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
			if (!field_is(&f, names[i]))
				continue;
			if (seen & 1U << i)
				return f.raw;
			seen |= 1U << i;
			*ret_resent |= is_resent_recipient(&f);
		}
	}
	return c->header.data + c->header.len;
}

static bool is_blank(const struct field *f)
{
	for (size_t i = 0; i < f->value_len; i++)
		if (!strchr(" \t\r\n", f->value[i]))
			return false;
	return true;
}

/* with something in it */
static bool has_field(const struct composing *c, const char *name, const char *end)
{
	struct fields it = { c->header.data, end ? end : c->header.data + c->header.len };
	struct field f;
	while (!fields_next(&it, &f, NULL))
		if (field_is(&f, name) && !is_blank(&f))
			return true;
	return false;
}

/* --- the envelope -------------------------------------------------------------------------------------------------- */

static enum mf_err add_recipient(struct composing *c, const char *address)
{
	struct envelope *e = &c->envelope;
	for (size_t i = 0; i < e->recipient_count; i++)
		if (addr_equal(e->recipients[i], address))
			return MF_OK;
	if (e->recipient_count == RECIPIENTS_MAX)
		return mf_fail(c->why, MF_INVALID, "more than %d recipients", RECIPIENTS_MAX);
	if (e->recipient_count % 64 == 0)
		e->recipients = mf_realloc_array(e->recipients, e->recipient_count + 64, sizeof *e->recipients);
	e->recipients[e->recipient_count++] = mf_strdup(address);
	return MF_OK;
}

static enum mf_err take_recipient(void *context, const struct addr *a)
{
	struct composing *c = context;
	if (a->kind != ADDR_MAILBOX)
		return MF_OK;
	const char *address = strchr(a->spec.data, '@') ? a->spec.data : c->own; /* one of .locals */
	for (const char *p = address; *p; p++)
		c->envelope.utf8 |= (unsigned char)*p >= 0x80;
	return add_recipient(c, address);
}

static enum mf_err parse_into(struct composing *c, const char *what, const char *list, size_t len, const char *const *locals, addr_visitor *visit)
{
	struct mf_reason reason = { "" };
	enum mf_err e = addrlist_parse_local(list, len, locals, visit, c, &reason);
	if (!e || !reason.text[0])
		return e;
	return mf_fail(c->why, e, "%s: %s", what, reason.text);
}

static bool counts_as_recipients(const struct composing *c, const struct field *f)
{
	if (c->resent)
		return is_resent_recipient(f) && f->raw < c->resent_end;
	return field_is(f, "To") || field_is(f, "Cc") || field_is(f, "Bcc");
}

static enum mf_err recipients_of_fields(struct composing *c)
{
	struct fields it = { c->header.data, c->header.data + c->header.len };
	struct field f;
	enum mf_err e = MF_OK;
	while (!e && !fields_next(&it, &f, NULL)) {
		if (!counts_as_recipients(c, &f))
			continue;
		size_t len;
		MF_CLEANUP(mf_free) char *text = field_text(&f, &len);
		MF_CLEANUP(mf_free) char *name = mf_strndup(f.name, f.name_len);
		e = parse_into(c, name, text, len, c->options->locals, take_recipient);
	}
	return e;
}

static enum mf_err find_recipients(struct composing *c)
{
	const struct compose_options *o = c->options;
	enum mf_err e = MF_OK;
	for (const char *const *r = o->recipients; !e && r && *r; r++)
		e = parse_into(c, "recipient", *r, strlen(*r), o->locals, take_recipient);
	if (!e && (!o->recipients || o->fields_too))
		e = recipients_of_fields(c);
	if (!e && !c->envelope.recipient_count && !o->draft)
		e = mf_fail(c->why, MF_INVALID, "no recipient: neither To nor Cc nor Bcc names one");
	return e;
}

static enum mf_err take_first(void *context, const struct addr *a)
{
	char **first = context;
	if (a->kind == ADDR_MAILBOX && !*first)
		*first = mf_strdup(a->spec.data);
	return MF_OK;
}

char *compose_first_address(const char *list)
{
	char *first = NULL;
	if (list && addrlist_parse(list, strlen(list), take_first, &first, NULL)) {
		free(first);
		return NULL;
	}
	return first;
}

struct matching {
	const char *wanted;
	bool found;
};

static enum mf_err match(void *context, const struct addr *a)
{
	struct matching *m = context;
	m->found |= a->kind == ADDR_MAILBOX && addr_equal(a->spec.data, m->wanted);
	return MF_OK;
}

static enum mf_err take_author(void *context, const struct addr *a)
{
	struct composing *c = context;
	struct matching m = { .wanted = a->spec.data };
	c->authors += a->kind == ADDR_MAILBOX;
	if (a->kind != ADDR_MAILBOX || c->sender)
		return MF_OK;
	(void)addrlist_parse(c->options->from, strlen(c->options->from), match, &m, NULL);
	if (m.found)
		c->sender = mf_strdup(a->spec.data);
	return MF_OK;
}

static enum mf_err find_sender(struct composing *c)
{
	const struct compose_options *o = c->options;
	struct fields it = { c->header.data, c->resent ? c->resent_end : c->header.data + c->header.len };
	struct field f;
	enum mf_err e = MF_OK;
	while (!e && !fields_next(&it, &f, NULL)) {
		if (!field_is(&f, c->resent ? "Resent-From" : "From"))
			continue;
		size_t len;
		MF_CLEANUP(mf_free) char *text = field_text(&f, &len);
		e = parse_into(c, c->resent ? "Resent-From" : "From", text, len, NULL, take_author);
		c->replace_from |= e == MF_INVALID && is_loose(c) && !c->resent && !c->sealed;
		e = c->replace_from ? MF_OK : e;
	}
	if (e)
		return e;
	bool given = o->sender && !addr_is_local(o->locals, o->sender, strlen(o->sender));
	const char *usual = c->sender ? c->sender : c->own;
	c->envelope.sender = !given ? mf_strdup(usual) : *o->sender ? compose_first_address(o->sender) : mf_strdup("");
	if (!c->envelope.sender)
		return mf_fail(c->why, MF_INVALID, "the envelope's sender cannot be read");
	for (const char *p = c->envelope.sender; *p; p++)
		c->envelope.utf8 |= (unsigned char)*p >= 0x80;
	return MF_OK;
}

/* --- the header ---------------------------------------------------------------------------------------------------- */

static char *make_date(int64_t now_s)
{
	static const char *const days[] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };
	static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	time_t t = (time_t)now_s;
	struct tm tm = { 0 };
	(void)localtime_r(&t, &tm);
	long zone = tm.tm_gmtoff / 60, minutes = zone < 0 ? -zone : zone;
	return mf_format("%s, %d %s %d %02d:%02d:%02d %c%02ld%02ld", days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900,
	                 tm.tm_hour, tm.tm_min, tm.tm_sec, zone < 0 ? '-' : '+', minutes / 60, minutes % 60);
}

static char *make_message_id(const struct composing *c)
{
	unsigned char random[16];
	struct buf id;
	buf_init(&id, 1024);
	if (getrandom(random, sizeof random, 0) != sizeof random)
		abort(); /* not possible for so few bytes */
	(void)buf_adds(&id, "<");
	for (size_t i = 0; i < sizeof random; i++)
		(void)buf_addf(&id, "%02x", random[i]);
	const char *at = strrchr(c->own, '@');
	(void)buf_addf(&id, "%s>", at ? at : "@localhost");
	return buf_detach(&id);
}

struct author {
	const char *name;        /* in place of its own; NULL */
	struct buf text;
};

static enum mf_err write_author(void *context, const struct addr *a)
{
	struct author *author = context;
	if (a->kind != ADDR_MAILBOX || author->text.len)
		return MF_OK;
	if (author->name)
		(void)buf_adds(&author->text, author->name);
	else
		(void)buf_add(&author->text, a->name.data, a->name.len);
	if (!author->text.len)
		return buf_adds(&author->text, a->spec.data);
	struct buf phrase;
	buf_init(&phrase, 65536);
	bool encoded = !strncmp(author->text.data, "=?", 2);
	if (encoded)
		(void)buf_adds(&phrase, author->text.data);
	else
		field_add_phrase(&phrase, author->text.data);
	(void)buf_addf(&phrase, " <%s>", a->spec.data);
	buf_finish(&author->text);
	author->text = phrase;
	return MF_OK;
}

static enum mf_err add_from(struct composing *c, struct buf *out, const char *name)
{
	struct author author = { .name = c->options->from_name };
	for (const char *p = author.name; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return mf_fail(c->why, MF_INVALID, "the author's name has a control character");
	if (author.name && !*author.name)
		author.name = NULL;
	buf_init(&author.text, 65536);
	enum mf_err e = addrlist_parse(c->options->from, strlen(c->options->from), write_author, &author, c->why);
	if (!e)
		e = buf_addf(out, "%s: %s\r\n", name, author.text.data);
	buf_finish(&author.text);
	return e;
}

static void add_own_field(struct buf *out, const char *name, char *value)
{
	(void)buf_addf(out, "%s: %s\r\n", name, value);
	free(value);
}

static enum mf_err add_missing(struct composing *c)
{
	enum mf_err e = MF_OK;
	if (c->replace_from || !has_field(c, "From", NULL))
		e = add_from(c, &c->fields, "From");
	else if (c->authors > 1 && !c->resent && !has_field(c, "Sender", NULL)) /* RFC 5322 3.6.2 */
		(void)buf_addf(&c->fields, "Sender: %s\r\n", *c->envelope.sender ? c->envelope.sender : c->sender ? c->sender : c->own);
	if (!has_field(c, "Date", NULL))
		add_own_field(&c->fields, "Date", make_date(c->options->now_s));
	if (!c->envelope.message_id) {
		c->envelope.message_id = make_message_id(c);
		(void)buf_addf(&c->fields, "Message-ID: %s\r\n", c->envelope.message_id);
	}
	if (!c->resent || e)
		return e;
	if (!has_field(c, "Resent-From", c->resent_end))
		e = add_from(c, &c->top, "Resent-From");
	if (!has_field(c, "Resent-Date", c->resent_end))
		add_own_field(&c->top, "Resent-Date", make_date(c->options->now_s));
	if (!has_field(c, "Resent-Message-ID", c->resent_end))
		add_own_field(&c->top, "Resent-Message-ID", make_message_id(c));
	return e;
}

static const char *encoding_name(const struct part *p)
{
	return p->change == RECODE_QUOTED ? "quoted-printable" : p->change == RECODE_BASE64 ? "base64" : p->declare_8bit ? "8bit" : NULL;
}

/* The MIME fields of a part that get another value; others as field_add does. */
static enum mf_err add_part_field(struct buf *out, const struct part *p, const struct field *f, bool *ret_utf8, struct mf_reason *why)
{
	if (encoding_name(p) && field_is(f, "Content-Transfer-Encoding"))
		return MF_OK;
	enum mf_err e = field_add(out, f, ret_utf8, why);
	if (e || !p->add_charset || !field_is(f, "Content-Type"))
		return e;
	while (out->len && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r' || out->data[out->len - 1] == ';'))
		out->len--;
	return buf_addf(out, ";\r\n charset=%s\r\n", p->add_charset);
}

static void add_part_missing(struct buf *out, const struct part *p)
{
	if (!p->has_type && p->add_charset)
		(void)buf_addf(out, "Content-Type: text/plain; charset=%s\r\n", p->add_charset);
	if (encoding_name(p))
		(void)buf_addf(out, "Content-Transfer-Encoding: %s\r\n", encoding_name(p));
}

/* Only what is needed from then on: what it says may not be readable where the recipients come from elsewhere. */
static enum mf_err add_loose(struct composing *c, struct buf *out, const struct field *f)
{
	struct mf_reason ignored;
	size_t before = out->len;
	enum mf_err e = field_add(out, f, &c->envelope.utf8, is_loose(c) ? &ignored : c->why);
	if (e != MF_INVALID || !is_loose(c) || !field_is_addresses(f))
		return e;
	out->len = before;
	size_t len;
	MF_CLEANUP(mf_free) char *text = field_text(f, &len);
	MF_CLEANUP(mf_free) char *name = mf_strndup(f->name, f->name_len);
	field_add_text(out, name, text, len);
	return MF_OK;
}

static void note(struct composing *c, const struct field *f)
{
	char **to = field_is(f, "Message-ID") ? &c->envelope.message_id : field_is(f, "Subject") ? &c->envelope.subject : NULL;
	if (!to || *to)
		return;
	size_t len;
	MF_CLEANUP(mf_free) char *text = field_text(f, &len);
	struct buf decoded;
	buf_init(&decoded, 4 * len + 16);
	text_add_decoded(&decoded, text, len);
	char *clean = text_clean(decoded.data, decoded.len, 1000);
	if (*clean)
		*to = clean;
	else
		free(clean);
	buf_finish(&decoded);
}

/* What is said to us */
static enum mf_err take_notify(struct composing *c, const struct field *f)
{
	size_t len;
	MF_CLEANUP(mf_free) char *text = field_text(f, &len);
	if (dsn_read(text, &c->envelope.notify))
		return MF_OK;
	return mf_fail(c->why, MF_INVALID, DSN_FIELD " has other words than never, success, failure, delay, and one of full and headers");
}

static enum mf_err add_top_field(struct composing *c, const struct field *f)
{
	bool bcc = field_is(f, "Bcc") || field_is(f, "Resent-Bcc");
	note(c, f);
	if (field_is(f, DSN_FIELD) && !c->options->draft)
		return take_notify(c, f);
	if (bcc)
		return is_blank(f) ? MF_OK : add_loose(c, &c->hidden, f);
	if (c->sealed)
		return field_add_as_is(&c->fields, f, &c->envelope.utf8, c->why);
	bool added = field_is(f, "Message-ID") || field_is(f, "Date") || field_is_addresses(f); /* an empty one is as good as none */
	if (field_is(f, "Return-Path") || (c->replace_from && field_is(f, "From")) || (is_blank(f) && added))
		return MF_OK;
	if (field_is_addresses(f))
		return add_loose(c, &c->fields, f);
	return add_part_field(&c->fields, &c->survey.top, f, &c->envelope.utf8, c->why);
}

static enum mf_err make_header(struct composing *c)
{
	struct fields it = { c->header.data, c->header.data + c->header.len };
	struct field f;
	enum mf_err e;
	while (!(e = fields_next(&it, &f, c->why)))
		if ((e = add_top_field(c, &f)))
			return e;
	if (e != MF_NOT_FOUND)
		return e;
	e = add_missing(c);
	if (e || c->sealed)
		return e;
	const struct part *top = &c->survey.top;
	bool mime = top->has_type || top->add_charset || encoding_name(top);
	if (mime && !has_field(c, "MIME-Version", NULL))
		(void)buf_adds(&c->fields, "MIME-Version: 1.0\r\n");
	add_part_missing(&c->fields, top);
	return MF_OK;
}

/* --- writing ------------------------------------------------------------------------------------------------------- */

static enum mf_err write_quoted(struct composing *c, struct writer *w, const struct part *p)
{
	bool open = false;
	enum mf_err e = p->change == RECODE_QUOTED ? recode_quoted_printable(w, c->in, p->body, p->content_end, &open)
	                                           : recode_rewrap_quoted_printable(w, c->in, p->body, p->content_end, &open);
	if (open || p->content_end < p->end) /* the line break in front of a boundary is the boundary's */
		writer_add(w, "\r\n", 2);
	return e;
}

static enum mf_err write_content(struct composing *c, struct writer *w, const struct part *p)
{
	switch (p->change) {
	case RECODE_NONE:
		return writer_copy(w, c->in, p->body, p->end);
	case RECODE_QUOTED:
	case RECODE_WRAP_QUOTED:
		return write_quoted(c, w, p);
	case RECODE_BASE64:
		return recode_base64(w, c->in, p->body, p->content_end, p->is_text);
	case RECODE_WRAP_BASE64:
		return recode_rewrap_base64(w, c->in, p->body, p->content_end);
	}
	return MF_INVALID;
}

static enum mf_err read_part_header(struct composing *c, const struct part *p, struct buf *ret)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line;
	lines_init(l, c->in, p->head, p->body);
	while (lines_next(l, &line)) {
		enum mf_err e = line.begins && line.ends && !line.len ? MF_OK : buf_add(ret, line.data, line.len);
		if (!e && line.ends && (line.len || !line.begins))
			e = buf_add(ret, "\n", 1);
		if (e)
			return mf_fail(c->why, MF_INVALID, "the header of a part is too long");
	}
	return l->error;
}

/* In a part's header addresses are text like any other. */
static enum mf_err add_nested_field(struct composing *c, struct buf *out, const struct part *p, const struct field *f)
{
	if (!field_is_addresses(f))
		return add_part_field(out, p, f, &c->envelope.utf8, c->why);
	size_t len;
	MF_CLEANUP(mf_free) char *text = field_text(f, &len);
	MF_CLEANUP(mf_free) char *name = mf_strndup(f->name, f->name_len);
	field_add_text(out, name, text, len);
	return MF_OK;
}

static enum mf_err make_part_header(struct composing *c, const struct part *p, const struct buf *in, struct buf *out)
{
	struct fields it = { in->data, in->data + in->len };
	struct field f;
	enum mf_err e;
	while (!(e = fields_next(&it, &f, c->why)))
		if ((e = add_nested_field(c, out, p, &f)))
			return e;
	add_part_missing(out, p);
	return e == MF_NOT_FOUND ? buf_adds(out, "\r\n") : e;
}

static enum mf_err write_part(struct composing *c, struct writer *w, const struct part *p)
{
	struct buf in, out;
	buf_init(&in, PART_HEADER_OUT_MAX);
	buf_init(&out, PART_HEADER_OUT_MAX);
	enum mf_err e = read_part_header(c, p, &in);
	if (!e)
		e = make_part_header(c, p, &in, &out);
	if (!e) {
		writer_add(w, out.data, out.len);
		e = write_content(c, w, p);
	}
	buf_finish(&in);
	buf_finish(&out);
	return e;
}

static enum mf_err write_body(struct composing *c, struct writer *w)
{
	if (c->survey.top.change)
		return write_content(c, w, &c->survey.top);
	uint64_t at = c->body;
	for (size_t i = 0; i < c->survey.count; i++) {
		const struct part *p = &c->survey.parts[i];
		enum mf_err e = writer_copy(w, c->in, at, p->head);
		if (!e)
			e = write_part(c, w, p);
		if (e)
			return e;
		at = p->end;
	}
	return writer_copy(w, c->in, at, UINT64_MAX);
}

static enum mf_err write_message(struct composing *c)
{
	MF_CLEANUP(mf_free) struct writer *w = MF_NEW(struct writer);
	writer_init(w, c->out);
	writer_add(w, c->hidden.data, c->hidden.len);
	writer_add(w, c->top.data, c->top.len);
	writer_add(w, c->fields.data, c->fields.len);
	writer_add(w, "\r\n", 2);
	enum mf_err e = write_body(c, w);
	if (!e)
		e = writer_flush(w);
	c->envelope.hidden = c->hidden.len;
	c->envelope.size = w->total;
	if (e)
		return c->why && c->why->text[0] ? e : mf_fail(c->why, e, "the prepared message cannot be written: %s", mf_err_words(e));
	uint64_t sent = w->total - c->hidden.len;
	if (c->options->size_max && sent > c->options->size_max)
		return mf_fail(c->why, MF_TOO_BIG, "the message has %llu bytes, and the server takes at most %llu", (unsigned long long)sent,
		               (unsigned long long)c->options->size_max);
	return MF_OK;
}

static enum mf_err check_fields(struct composing *c)
{
	struct fields it = { c->header.data, c->header.data + c->header.len };
	struct field f;
	enum mf_err e;
	while (!(e = fields_next(&it, &f, c->why)))
		;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err run(struct composing *c)
{
	enum mf_err e = read_header(c);
	if (!e)
		e = check_fields(c);
	if (e)
		return e;
	c->own = compose_first_address(c->options->from);
	if (!c->own)
		return mf_fail(c->why, MF_INVALID, "the account's own address (from = ...) cannot be read");
	c->sealed = has_field(c, "DKIM-Signature", NULL);
	c->resent_end = find_resent_end(c, &c->resent);
	if ((e = find_recipients(c)) || (e = find_sender(c)))
		return e;
	e = survey_take(c->in, c->header.data, c->header.len, c->body, c->sealed, &c->survey, c->why);
	if (e)
		return e;
	c->envelope.eight_bit = c->survey.eight_bit;
	e = make_header(c);
	return e ? e : write_message(c);
}

enum mf_err compose(const struct compose_options *options, int in, int out, struct envelope *ret, struct mf_reason *why)
{
	static const char *const nobody[] = { NULL };
	struct mf_reason reason = { "" };
	struct compose_options o = *options;
	struct composing c = { .options = &o, .in = in, .out = out, .why = &reason };
	if (o.draft)
		o.recipients = nobody;
	buf_init(&c.header, MESSAGE_HEADER_MAX);
	buf_init(&c.hidden, HEADER_OUT_MAX);
	buf_init(&c.top, HEADER_OUT_MAX);
	buf_init(&c.fields, HEADER_OUT_MAX);
	enum mf_err e = run(&c);
	buf_finish(&c.header);
	buf_finish(&c.hidden);
	buf_finish(&c.top);
	buf_finish(&c.fields);
	survey_finish(&c.survey);
	free(c.own);
	free(c.sender);
	if (e) {
		envelope_finish(&c.envelope);
		return mf_fail(why, e, "%s", reason.text[0] ? reason.text : mf_err_words(e));
	}
	*ret = c.envelope;
	return MF_OK;
}

void envelope_finish(struct envelope *e)
{
	for (size_t i = 0; i < e->recipient_count; i++)
		free(e->recipients[i]);
	free(e->recipients);
	free(e->sender);
	free(e->message_id);
	free(e->subject);
	*e = (struct envelope){ 0 };
}

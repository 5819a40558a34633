#include "sync/imap/frame.h"

#include <libetpan/libetpan.h>
#include <string.h>

#include "base/clock.h"

#define FRAME_MAX (64U << 20)   /* of one response with everything kept */
#define PASS_OVER (64U << 10)

void frame_init(struct imap_frame *f)
{
	*f = (struct imap_frame){ .text = mmap_string_sized_new(4096) };
}

void frame_finish(struct imap_frame *f)
{
	if (f->text)
		mmap_string_free(f->text);
	f->text = NULL;
}

static enum mf_err broken(const struct frame_reader *r)
{
	enum mf_err e = transport_error(r->transport);
	return e ? e : MF_PROTOCOL;
}

static void arm(const struct frame_reader *r)
{
	transport_set_deadline(r->transport, clock_mono_ms() + 4 * r->io_timeout_ms);
}

enum mf_err frame_read_bytes(const struct frame_reader *r, void *to, size_t len)
{
	mailstream *stream = transport_mailstream(r->transport);
	char *at = to;
	arm(r);
	while (len) {
		ssize_t n = mailstream_read(stream, at, len);
		if (n <= 0)
			return broken(r);
		at += n;
		len -= (size_t)n;
	}
	return MF_OK;
}

/* the words after which a line is text for people, where braces mean nothing */
static bool is_status(struct span word)
{
	return span_is(word, "OK") || span_is(word, "NO") || span_is(word, "BAD") || span_is(word, "BYE") || span_is(word, "PREAUTH");
}

static bool may_hold_literals(const struct imap_frame *f)
{
	struct scan s = { f->text->str, f->text->str + f->text->len };
	struct span word;
	return scan_char(&s, '*') && scan_char(&s, ' ') && scan_word(&s, &word) && !is_status(word);
}

/* Whether the last line, from `line` on, ends with {n}: not inside quotes. *ret_at is where the brace (or its ~) is. */
static bool ends_with_literal(const struct imap_frame *f, size_t line, size_t *ret_at, uint64_t *ret_len)
{
	const char *start = f->text->str + line, *end = f->text->str + f->text->len;
	while (end > start && (end[-1] == '\n' || end[-1] == '\r'))
		end--;
	if (end == start || end[-1] != '}')
		return false;
	const char *brace = memrchr(start, '{', (size_t)(end - start));
	if (!brace)
		return false;
	struct scan number = { brace + 1, end };
	if (!scan_number(&number, ret_len))
		return false;
	(void)scan_char(&number, '+');
	if (number.p != end - 1)
		return false;
	bool quoted = false;
	for (const char *p = start; p < brace; p++) {
		if (quoted && *p == '\\')
			p++;
		else if (*p == '"')
			quoted = !quoted;
	}
	if (quoted)
		return false;
	if (brace > start && brace[-1] == '~')
		brace--;
	*ret_at = (size_t)(brace - f->text->str);
	return true;
}

/* BODY[...]<...> right before the literal, in a FETCH response */
static bool is_body(const struct imap_frame *f, size_t at, struct span *ret_line, struct span *ret_section)
{
	struct scan s = { f->text->str, f->text->str + at };
	uint64_t number;
	struct span word;
	if (!scan_char(&s, '*') || !scan_char(&s, ' ') || !scan_number(&s, &number) || !scan_char(&s, ' ') ||
	    !scan_word(&s, &word) || !span_is(word, "FETCH") || at < 2 || f->text->str[at - 1] != ' ')
		return false;
	const char *end = f->text->str + at - 1, *p = end;
	while (p > s.p && p[-1] != ' ' && p[-1] != '(')
		p--;
	struct span item = { p, (size_t)(end - p) };
	if (!span_begins(item, "BODY[]"))
		return false;
	*ret_line = (struct span){ f->text->str, (size_t)(p - f->text->str) };
	*ret_section = (struct span){ p + 4, item.len - 4 };
	return true;
}

static enum mf_err pass_over(const struct frame_reader *r, uint64_t len)
{
	char bytes[PASS_OVER];
	enum mf_err e = MF_OK;
	while (len && !e) {
		size_t n = len < sizeof bytes ? (size_t)len : sizeof bytes;
		e = frame_read_bytes(r, bytes, n);
		len -= n;
	}
	return e;
}

static enum mf_err keep(const struct frame_reader *r, struct imap_frame *f, size_t len)
{
	size_t at = f->text->len;
	if (!mmap_string_set_size(f->text, at + len))
		return MF_PROTOCOL;
	return frame_read_bytes(r, f->text->str + at, len);
}

static enum mf_err put_nil(struct imap_frame *f, size_t at)
{
	mmap_string_truncate(f->text, at);
	return mmap_string_append(f->text, "NIL") ? MF_OK : MF_PROTOCOL;
}

static enum mf_err take_literal(const struct frame_reader *r, struct imap_frame *f, size_t at, uint64_t len)
{
	struct span line, section;
	enum mf_err e;
	if (r->body && is_body(f, at, &line, &section)) {
		e = r->body(r->context, line, section, len);
		return e ? e : put_nil(f, at);
	}
	if (len <= r->literal_keep && len <= FRAME_MAX - f->text->len)
		return keep(r, f, (size_t)len);
	e = pass_over(r, len);
	return e ? e : put_nil(f, at);
}

static enum mf_err read_line(const struct frame_reader *r, struct imap_frame *f)
{
	arm(r);
	size_t before = f->text->len;
	if (!mailstream_read_line_append(transport_mailstream(r->transport), f->text))
		return broken(r);
	size_t len = f->text->len;
	f->lines_len += len - before;
	return len > before && len <= FRAME_MAX && f->text->str[len - 1] == '\n' ? MF_OK : broken(r);
}

enum mf_err frame_read(const struct frame_reader *r, struct imap_frame *f)
{
	mmap_string_truncate(f->text, 0);
	f->lines_len = 0;
	enum mf_err e = read_line(r, f);
	if (e)
		return e;
	f->first_line = f->text->len;
	size_t line = 0, at;
	uint64_t len;
	bool literals = f->text->len > 3 && may_hold_literals(f), unbroken = true;
	while (literals && ends_with_literal(f, line, &at, &len)) {
		e = take_literal(r, f, at, len);
		line = f->text->len;
		if (!e)
			e = read_line(r, f);
		if (e)
			return e;
		/* with NIL in the literal's place the line goes on */
		unbroken = unbroken && f->text->str[at] == 'N';
		if (unbroken)
			f->first_line = f->text->len;
	}
	return MF_OK;
}

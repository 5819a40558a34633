#include "smtp/fields.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "mail/header.h"
#include "mail/text.h"
#include "smtp/addrlist.h"
#include "smtp/recode.h"

#define COLUMNS 76
#define WORD_PAYLOAD 63          /* of an encoded word of 75 characters with "=?utf-8?q?" and "?=" */
#define WORD_PAYLOAD_LEAST 20    /* with less room on a line the next one is begun */
#define PLAIN_WORD_MAX 900       /* a longer word of text is encoded, so that it can be folded */

/* --- reading a block ----------------------------------------------------------------------------------------------- */

static const char *line_end(const char *p, const char *end)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p));
	return lf ? lf + 1 : end;
}

enum mf_err fields_next(struct fields *it, struct field *ret, struct mf_reason *why)
{
	if (it->p >= it->end)
		return MF_NOT_FOUND;
	const char *start = it->p, *p = line_end(start, it->end);
	size_t name = header_name_length(start, (size_t)(p - start));
	const char *colon = name ? memchr(start + name, ':', (size_t)(p - start) - name) : NULL;
	if (!colon) {
		char shown[60];
		mf_printable(shown, sizeof shown, start, strcspn(start, "\r\n"));
		return mf_fail(why, MF_INVALID, "not a header field, and no empty line before it: \"%s\"", shown);
	}
	while (p < it->end && (*p == ' ' || *p == '\t'))
		p = line_end(p, it->end);
	it->p = p;
	while (p > colon + 1 && (p[-1] == '\n' || p[-1] == '\r'))
		p--;
	*ret = (struct field){ start, (size_t)(p - start), start, name, colon + 1, (size_t)(p - colon - 1) };
	return MF_OK;
}

bool field_is(const struct field *f, const char *name)
{
	return strlen(name) == f->name_len && !strncasecmp(f->name, name, f->name_len);
}

static bool is_one_of(const struct field *f, const char *const *names)
{
	for (; *names; names++)
		if (field_is(f, *names))
			return true;
	return false;
}

bool field_is_addresses(const struct field *f)
{
	static const char *const names[] = { "From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Resent-From", "Resent-Sender", "Resent-To",
		"Resent-Cc", "Resent-Bcc", "Resent-Reply-To", "Disposition-Notification-To", "Mail-Followup-To", "Mail-Reply-To", NULL };
	return is_one_of(f, names);
}

static bool is_parameters(const struct field *f)
{
	static const char *const names[] = { "Content-Type", "Content-Disposition", NULL };
	return is_one_of(f, names);
}

static bool is_identifier(const struct field *f)
{
	static const char *const names[] = { "Message-ID", "In-Reply-To", "References", "Resent-Message-ID", "Content-ID", "Date",
		"Resent-Date", "MIME-Version", "Content-Transfer-Encoding", "Return-Path", "DKIM-Signature", "Autocrypt", NULL };
	return is_one_of(f, names);
}

char *field_text(const struct field *f, size_t *ret_len)
{
	size_t len;
	MF_CLEANUP(mf_free) char *raw = header_unfold((struct header_span){ f->value, f->value_len }, f->value_len + 1, &len);
	struct buf text;
	buf_init(&text, 3 * len + 16);
	text_add_bytes(&text, raw, len);
	*ret_len = text.len;
	return buf_detach(&text);
}

/* --- folding ------------------------------------------------------------------------------------------------------- */

struct fold {
	struct buf *out;
	size_t column;
	bool fresh;              /* nothing but the name stands on the line */
};

static struct fold fold_begin(struct buf *out, const char *name)
{
	(void)buf_addf(out, "%s:", name);
	return (struct fold){ out, strlen(name) + 1, true };
}

/* A word, behind a space or on a line of its own */
static void fold_word(struct fold *f, const char *word, size_t len)
{
	if (f->column + 1 + len > COLUMNS && !f->fresh) {
		(void)buf_adds(f->out, "\r\n");
		f->column = 0;
	}
	(void)buf_add(f->out, " ", 1);
	(void)buf_add(f->out, word, len);
	f->column += 1 + len;
	f->fresh = false;
}

static void fold_end(struct fold *f)
{
	(void)buf_adds(f->out, "\r\n");
}

static bool is_ascii(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] >= 0x80)
			return false;
	return true;
}

/* --- encoded words ------------------------------------------------------------------------------------------------- */

/* what stands for itself in every place where an encoded word may be (RFC 2047 5) */
static bool is_q_plain(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("!*+-/", c));
}

static size_t q_length(const char *s, size_t len)
{
	size_t n = 0;
	for (size_t i = 0; i < len; i++)
		n += is_q_plain(s[i]) || s[i] == ' ' ? 1 : 3;
	return n;
}

static void q_add(struct buf *out, const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (s[i] == ' ')
			(void)buf_add(out, "_", 1);
		else if (is_q_plain(s[i]))
			(void)buf_add(out, &s[i], 1);
		else
			(void)buf_addf(out, "=%02X", (unsigned char)s[i]);
	}
}

/* As much of s, whole characters, as one encoded word holds */
static size_t word_fits(const char *s, size_t len, bool q, size_t payload)
{
	size_t n = 0;
	while (n < len) {
		size_t step = (size_t)(text_next(s + n) - (s + n));
		if (n + step > len || (q ? q_length(s, n + step) : (n + step + 2) / 3 * 4) > payload)
			break;
		n += step;
	}
	return n ? n : len;
}

static void fold_encoded(struct fold *f, const char *s, size_t len)
{
	bool q = q_length(s, len) <= 2 * len + 4; /* readable even where it is a little longer */
	struct buf word;
	buf_init(&word, 256);
	while (len) {
		size_t left = f->column + 13 < COLUMNS ? COLUMNS - f->column - 13 : 0;
		size_t n = word_fits(s, len, q, left >= WORD_PAYLOAD_LEAST && left < WORD_PAYLOAD ? left : WORD_PAYLOAD);
		buf_reset(&word);
		(void)buf_adds(&word, q ? "=?utf-8?q?" : "=?utf-8?b?");
		if (q)
			q_add(&word, s, n);
		else
			base64_add(&word, s, n);
		(void)buf_adds(&word, "?=");
		fold_word(f, word.data, word.len);
		s += n;
		len -= n;
	}
	buf_finish(&word);
}

static size_t blank_length(const char *s, size_t len)
{
	size_t n = 0;
	while (n < len && (s[n] == ' ' || s[n] == '\t'))
		n++;
	return n;
}

static size_t word_length(const char *s, size_t len)
{
	size_t n = 0;
	while (n < len && s[n] != ' ' && s[n] != '\t')
		n++;
	return n;
}

static bool must_encode(const char *s, size_t len)
{
	return len > PLAIN_WORD_MAX || !is_ascii(s, len);
}

/* How far the words go that are encoded together: space between two encoded words is dropped by readers, so that it has to be
 * inside of them. */
static size_t run_length(const char *s, size_t len)
{
	size_t end = word_length(s, len);
	for (;;) {
		size_t blank = blank_length(s + end, len - end), word = word_length(s + end + blank, len - end - blank);
		if (!word || !must_encode(s + end + blank, word))
			return end;
		end += blank + word;
	}
}

static void fold_text(struct fold *f, const char *s, size_t len)
{
	size_t i = blank_length(s, len);
	while (i < len) {
		size_t word = word_length(s + i, len - i);
		if (must_encode(s + i, word)) {
			word = run_length(s + i, len - i);
			fold_encoded(f, s + i, word);
		} else {
			fold_word(f, s + i, word);
		}
		i += word;
		i += blank_length(s + i, len - i);
	}
}

void field_add_text(struct buf *out, const char *name, const char *value, size_t len)
{
	struct fold f = fold_begin(out, name);
	fold_text(&f, value, len);
	fold_end(&f);
}

enum mf_err field_add_folded(struct buf *out, const char *name, const char *value, size_t len, struct mf_reason *why)
{
	struct fold f = fold_begin(out, name);
	for (size_t i = blank_length(value, len); i < len;) {
		size_t word = word_length(value + i, len - i);
		if (word > FIELD_LINE_MAX - 80)
			return mf_fail(why, MF_INVALID, "the field %.60s has a word of %zu bytes, which no line can hold", name, word);
		fold_word(&f, value + i, word);
		i += word;
		i += blank_length(value + i, len - i);
	}
	fold_end(&f);
	return MF_OK;
}

/* --- addresses ----------------------------------------------------------------------------------------------------- */

static bool is_atoms(const char *s)
{
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(" !#$%&'*+-/=?^_`{|}~", *s))
			return false;
	return true;
}

static void add_quoted(struct buf *out, const char *s)
{
	(void)buf_add(out, "\"", 1);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			(void)buf_add(out, "\\", 1);
		(void)buf_add(out, s, 1);
	}
	(void)buf_add(out, "\"", 1);
}

void field_add_phrase(struct buf *out, const char *name)
{
	if (!is_ascii(name, strlen(name))) {
		struct fold f = { out, 0, true };
		size_t before = out->len;
		fold_encoded(&f, name, strlen(name));
		memmove(out->data + before, out->data + before + 1, out->len - before); /* its space, and the NUL comes along */
		out->len--;
	} else if (is_atoms(name)) {
		(void)buf_adds(out, name);
	} else {
		add_quoted(out, name);
	}
}

struct address_writing {
	struct fold fold;
	struct buf item;         /* what has to wait for its comma */
	bool in_group, has_item, utf8;
};

static void write_phrase(struct address_writing *w, const struct addr *a)
{
	if (must_encode(a->raw.data, a->raw.len))
		fold_encoded(&w->fold, a->name.data, a->name.len);
	else if (a->raw.len)
		fold_word(&w->fold, a->raw.data, a->raw.len);
}

static void write_comment(struct address_writing *w, const struct addr *a)
{
	if (!a->comment.len)
		return;
	fold_word(&w->fold, "(", 1);
	struct buf escaped;
	buf_init(&escaped, 2 * a->comment.len + 16);
	for (size_t i = 0; i < a->comment.len; i++) {
		char c = a->comment.data[i];
		if (c == '(' || c == ')' || c == '\\')
			(void)buf_add(&escaped, "\\", 1);
		(void)buf_add(&escaped, &c, 1);
	}
	fold_text(&w->fold, escaped.data, escaped.len);
	buf_finish(&escaped);
	fold_word(&w->fold, ")", 1);
}

static enum mf_err write_address(void *context, const struct addr *a)
{
	struct address_writing *w = context;
	if (a->kind == ADDR_GROUP_END) {
		(void)buf_add(w->fold.out, ";", 1);
		w->has_item = true;
		return MF_OK;
	}
	if (w->has_item)
		(void)buf_add(w->fold.out, ",", 1);
	w->fold.column++;
	write_phrase(w, a);
	w->has_item = a->kind == ADDR_MAILBOX;
	if (a->kind == ADDR_GROUP) {
		(void)buf_add(w->fold.out, ":", 1);
		return MF_OK;
	}
	MF_CLEANUP(mf_free) char *angle = mf_format(a->raw.len ? "<%s>" : "%s", a->spec.data);
	fold_word(&w->fold, angle, strlen(angle));
	write_comment(w, a);
	w->utf8 |= a->utf8_local;
	return MF_OK;
}

enum mf_err field_add_addresses(struct buf *out, const char *name, const char *value, size_t len, bool *ret_utf8, struct mf_reason *why)
{
	struct mf_reason reason = { "" };
	struct address_writing w = { .fold = fold_begin(out, name) };
	enum mf_err e = addrlist_parse(value, len, write_address, &w, &reason);
	if (e)
		return mf_fail(why, e, "%s: %s", name, reason.text);
	fold_end(&w.fold);
	*ret_utf8 |= w.utf8;
	return MF_OK;
}

/* --- parameters ---------------------------------------------------------------------------------------------------- */

/* up to the ';' that is not quoted */
static size_t parameter_length(const char *s, size_t len)
{
	bool quoted = false;
	for (size_t i = 0; i < len; i++) {
		if (quoted && s[i] == '\\')
			i++;
		else if (s[i] == '"')
			quoted = !quoted;
		else if (s[i] == ';' && !quoted)
			return i;
	}
	return len;
}

/* name*0*=utf-8''...; name*1*=... (RFC 2231 3 and 4) */
static void fold_parameter(struct fold *f, const char *name, size_t name_len, const char *value, size_t len, bool more)
{
	struct buf piece;
	buf_init(&piece, name_len + 256);
	bool single = 3 * len < 60;
	size_t part = 0, i = 0;
	do {
		buf_reset(&piece);
		(void)buf_add(&piece, name, name_len);
		if (!single)
			(void)buf_addf(&piece, "*%zu", part);
		(void)buf_addf(&piece, "*=%s", part++ ? "" : "utf-8''");
		for (size_t n = 0; i < len && n < 48; i++, n += 3) {
			if (isalnum((unsigned char)value[i]) || strchr("-._", value[i]))
				(void)buf_add(&piece, &value[i], 1);
			else
				(void)buf_addf(&piece, "%%%02X", (unsigned char)value[i]);
		}
		if (i < len || more)
			(void)buf_add(&piece, ";", 1);
		fold_word(f, piece.data, piece.len);
	} while (i < len);
	buf_finish(&piece);
}

/* The value without its quotes; the caller frees. */
static char *unquote(const char *s, size_t len, size_t *ret_len)
{
	char *text = mf_alloc(len + 1);
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '\\' && i + 1 < len)
			text[n++] = s[++i];
		else if (s[i] != '"')
			text[n++] = s[i];
	}
	*ret_len = n;
	return text;
}

static void add_parameter(struct fold *f, const char *s, size_t len, bool more)
{
	const char *equals = memchr(s, '=', len);
	if (equals && !is_ascii(s, len) && is_ascii(s, (size_t)(equals - s))) {
		size_t value_len, name_len = (size_t)(equals - s);
		while (name_len && isspace((unsigned char)s[name_len - 1]))
			name_len--;
		const char *value = equals + 1;
		size_t blank = blank_length(value, (size_t)(s + len - value));
		MF_CLEANUP(mf_free) char *text = unquote(value + blank, (size_t)(s + len - value) - blank, &value_len);
		fold_parameter(f, s, name_len, text, value_len, more);
		return;
	}
	MF_CLEANUP(mf_free) char *word = mf_format("%.*s%s", (int)len, s, more ? ";" : "");
	if (is_ascii(word, strlen(word)))
		fold_word(f, word, strlen(word));
	else
		fold_encoded(f, word, strlen(word));
}

void field_add_parameters(struct buf *out, const char *name, const char *value, size_t len)
{
	struct fold f = fold_begin(out, name);
	for (size_t i = 0; i < len;) {
		i += blank_length(value + i, len - i);
		size_t n = parameter_length(value + i, len - i), end = n;
		while (end && isspace((unsigned char)value[i + end - 1]))
			end--;
		if (end)
			add_parameter(&f, value + i, end, i + n + 1 < len);
		i += n + 1;
	}
	fold_end(&f);
}

/* --- a field as it was written ------------------------------------------------------------------------------------- */

/* Controls that would be a line of their own to somebody, or end a line for somebody */
static enum mf_err check_controls(const struct field *f, struct mf_reason *why)
{
	for (size_t i = 0; i < f->raw_len; i++) {
		unsigned char c = (unsigned char)f->raw[i];
		bool crlf = c == '\r' && i + 1 < f->raw_len && f->raw[i + 1] == '\n';
		if ((c < 0x20 && c != '\t' && c != '\n' && !crlf) || c == 0x7f)
			return mf_fail(why, MF_INVALID, "the field %.*s has a control character", (int)(f->name_len > 60 ? 60 : f->name_len), f->name);
	}
	return MF_OK;
}

static size_t longest_line(const struct field *f)
{
	size_t longest = 0;
	for (const char *p = f->raw, *end = p + f->raw_len, *next; p < end; p = next) {
		next = line_end(p, end);
		size_t len = (size_t)(next - p);
		longest = len > longest ? len : longest;
	}
	return longest;
}

/* A line of nothing but white space would end the header for some readers. */
static bool has_blank_line(const struct field *f)
{
	for (const char *p = line_end(f->raw, f->raw + f->raw_len), *end = f->raw + f->raw_len; p < end; p = line_end(p, end)) {
		size_t blank = blank_length(p, (size_t)(end - p));
		if (p + blank == end || p[blank] == '\r' || p[blank] == '\n')
			return true;
	}
	return false;
}

static void add_lines(struct buf *out, const struct field *f)
{
	for (const char *p = f->raw, *end = p + f->raw_len, *next; p < end; p = next) {
		next = line_end(p, end);
		size_t len = (size_t)(next - p);
		while (len && (p[len - 1] == '\n' || p[len - 1] == '\r'))
			len--;
		(void)buf_add(out, p, len);
		(void)buf_add(out, "\r\n", 2);
	}
}

static enum mf_err rewrite(struct buf *out, const struct field *f, bool *ret_utf8, struct mf_reason *why)
{
	size_t len;
	MF_CLEANUP(mf_free) char *text = field_text(f, &len);
	MF_CLEANUP(mf_free) char *name = mf_strndup(f->name, f->name_len);
	if (field_is_addresses(f))
		return field_add_addresses(out, name, text, len, ret_utf8, why);
	if (is_identifier(f) && !is_ascii(text, len))
		return mf_fail(why, MF_INVALID, "the field %.60s may only have ASCII", name);
	if (is_identifier(f))
		return field_add_folded(out, name, text, len, why);
	if (is_parameters(f))
		field_add_parameters(out, name, text, len);
	else
		field_add_text(out, name, text, len);
	return MF_OK;
}

enum mf_err field_add(struct buf *out, const struct field *f, bool *ret_utf8, struct mf_reason *why)
{
	enum mf_err e = check_controls(f, why);
	if (e)
		return e;
	size_t start = out->len;
	if (is_ascii(f->raw, f->raw_len) && longest_line(f) <= FIELD_LINE_MAX && !has_blank_line(f)) {
		add_lines(out, f);
		return MF_OK;
	}
	e = rewrite(out, f, ret_utf8, why);
	const char *line = out->data + start;
	for (const char *end = out->data + out->len, *next; !e && line < end; line = next) {
		next = line_end(line, end);
		if (next - line > FIELD_LINE_MAX + 2)
			e = mf_fail(why, MF_INVALID, "the field %.*s has a line that is too long and cannot be folded",
			            (int)(f->name_len > 60 ? 60 : f->name_len), f->name);
	}
	return e;
}

enum mf_err field_add_as_is(struct buf *out, const struct field *f, bool *ret_utf8, struct mf_reason *why)
{
	enum mf_err e = check_controls(f, why);
	if (!e && longest_line(f) > FIELD_LINE_MAX)
		e = mf_fail(why, MF_INVALID, "a signed message has a header line of %zu bytes: it cannot be sent as it is", longest_line(f));
	if (e)
		return e;
	*ret_utf8 |= !is_ascii(f->raw, f->raw_len);
	add_lines(out, f);
	return MF_OK;
}

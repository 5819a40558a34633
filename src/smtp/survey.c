#include "smtp/survey.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/header.h"
#include "smtp/fields.h"
#include "smtp/lines.h"

#define DEPTH_MAX 50             /* of multiparts; what is deeper is left alone */
#define PARTS_MAX 4096           /* that need something */
#define BOUNDARY_MAX 200         /* RFC 2046 says 70 */
#define PART_HEADER_MAX 65536

enum encoding { ENCODING_7BIT, ENCODING_8BIT, ENCODING_BINARY, ENCODING_QUOTED, ENCODING_BASE64, ENCODING_OTHER };

/* what a header says of its content */
struct content {
	char type[80];           /* "text/plain", lower case */
	char boundary[BOUNDARY_MAX + 1];
	bool has_type, has_charset;
	enum encoding encoding;
};

struct level {
	char boundary[BOUNDARY_MAX + 1];
	size_t len;
	bool digest;
};

struct leaf {                    /* what has been seen of its content */
	struct part part;
	struct content content;
	bool sealed;             /* signed or encrypted */
	uint64_t bytes, high, longest, line;
	bool nul, bare_cr, not_utf8;
	unsigned expect;         /* continuation bytes of the character under way */
	size_t last_mark;        /* of its last line */
};

enum state { IN_HEADER, IN_LEAF, BETWEEN };

struct surveying {
	struct survey *to;
	struct mf_reason *why;
	struct level levels[DEPTH_MAX];
	size_t depth;
	enum state state;
	struct leaf leaf;        /* IN_LEAF; BETWEEN: of what no part holds */
	struct buf header;       /* IN_HEADER */
	uint64_t header_at;
};

/* --- what a header says -------------------------------------------------------------------------------------------- */

static void skip_comment(const char **p, const char *end)
{
	unsigned depth = 0;
	for (; *p < end; (*p)++) {
		if (**p == '\\' && *p + 1 < end)
			(*p)++;
		else if (**p == '(')
			depth++;
		else if (**p == ')' && --depth == 0) {
			(*p)++;
			return;
		}
	}
}

static void skip_blank(const char **p, const char *end)
{
	while (*p < end && (isspace((unsigned char)**p) || **p == ';' || **p == '(')) {
		if (**p == '(')
			skip_comment(p, end);
		else
			(*p)++;
	}
}

static size_t read_token(const char **p, const char *end, char *to, size_t size)
{
	size_t n = 0;
	for (; *p < end && !isspace((unsigned char)**p) && !strchr(";=(\"", **p); (*p)++)
		if (n + 1 < size)
			to[n++] = (char)tolower((unsigned char)**p);
	to[n] = 0;
	return n;
}

static void read_value(const char **p, const char *end, char *to, size_t size)
{
	size_t n = 0;
	bool quoted = *p < end && **p == '"';
	*p += quoted;
	for (; *p < end; (*p)++) {
		if (quoted ? **p == '"' : isspace((unsigned char)**p) || **p == ';' || **p == '(')
			break;
		if (quoted && **p == '\\' && *p + 1 < end)
			(*p)++;
		if (n + 1 < size)
			to[n++] = **p;
	}
	*p += quoted && *p < end;
	to[n] = 0;
}

static void read_type(struct content *c, const char *p, size_t len)
{
	const char *end = p + len;
	c->has_type = true;
	skip_blank(&p, end);
	(void)read_token(&p, end, c->type, sizeof c->type);
	while (p < end) {
		char name[40], value[BOUNDARY_MAX + 1];
		skip_blank(&p, end);
		size_t n = read_token(&p, end, name, sizeof name);
		while (p < end && isspace((unsigned char)*p))
			p++;
		if (p < end && *p == '=') {
			p++;
			while (p < end && isspace((unsigned char)*p))
				p++;
			read_value(&p, end, value, sizeof value);
			if (!strcmp(name, "boundary"))
				memcpy(c->boundary, value, sizeof value);
			c->has_charset |= !strcmp(name, "charset");
		} else if (!n && p < end) {
			p++;
		}
	}
}

static enum encoding read_encoding(const char *s, size_t len)
{
	static const struct { const char *name; enum encoding encoding; } names[] = {
		{ "7bit", ENCODING_7BIT }, { "8bit", ENCODING_8BIT }, { "binary", ENCODING_BINARY },
		{ "quoted-printable", ENCODING_QUOTED }, { "base64", ENCODING_BASE64 },
	};
	char word[40];
	const char *p = s;
	skip_blank(&p, s + len);
	(void)read_token(&p, s + len, word, sizeof word);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!strcmp(word, names[i].name))
			return names[i].encoding;
	return *word ? ENCODING_OTHER : ENCODING_7BIT;
}

static void read_content(const char *header, size_t len, bool digest, struct content *ret)
{
	static const char *const names[] = { "Content-Type", "Content-Transfer-Encoding" };
	struct header_span found[2];
	*ret = (struct content){ 0 };
	header_find(header, len, names, 2, found);
	snprintf(ret->type, sizeof ret->type, "%s", digest ? "message/rfc822" : "text/plain"); /* RFC 2046 5.1.5 */
	for (size_t i = 0; i < 2; i++) {
		if (!found[i].data)
			continue;
		size_t n;
		MF_CLEANUP(mf_free) char *text = header_unfold(found[i], 8192, &n);
		if (i == 0)
			read_type(ret, text, n);
		else
			ret->encoding = read_encoding(text, n);
	}
}

static bool begins(const char *s, const char *with)
{
	return !strncmp(s, with, strlen(with));
}

/* What a signature or a key covers must arrive as it is. */
static bool is_sealed_type(const char *type)
{
	return !strcmp(type, "multipart/signed") || !strcmp(type, "multipart/encrypted") || begins(type, "application/pkcs7-mime") ||
	       begins(type, "application/x-pkcs7-mime");
}

/* --- content ------------------------------------------------------------------------------------------------------- */

static void see_high(struct leaf *l, unsigned char c)
{
	if (l->expect ? (c & 0xc0) == 0x80 : c >= 0xc2 && c <= 0xf4)
		l->expect = l->expect ? l->expect - 1 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	else
		l->not_utf8 = true;
}

static void leaf_see(struct leaf *l, const struct line *line)
{
	l->line = line->begins ? line->len : l->line + line->len;
	l->longest = l->line > l->longest ? l->line : l->longest;
	l->bytes += line->len;
	l->bare_cr |= line->bare_cr;
	l->last_mark = line->mark;
	for (size_t i = 0; i < line->len; i++) {
		unsigned char c = (unsigned char)line->data[i];
		if (c >= 0x80) {
			l->high++;
			see_high(l, c);
		} else {
			l->not_utf8 |= l->expect != 0;
			l->expect = 0;
			l->nul |= !c;
		}
	}
	if (line->ends) {
		l->not_utf8 |= l->expect != 0;
		l->expect = 0;
	}
}

static enum mf_err leaf_refuse(const struct leaf *l, const char *where, struct mf_reason *why)
{
	if (l->longest > FIELD_LINE_MAX)
		return mf_fail(why, MF_INVALID, "%s has a line of %llu bytes, where 998 are the most, and must not be changed", where,
		               (unsigned long long)l->longest);
	return mf_fail(why, MF_INVALID, "%s has a line that ends with a CR alone, and must not be changed", where);
}

/* What cannot be changed */
static enum mf_err judge_fixed(const struct leaf *l, const char *where, bool bare_cr_counts, struct mf_reason *why)
{
	bool bad = l->longest > FIELD_LINE_MAX || (bare_cr_counts && l->bare_cr);
	return bad ? leaf_refuse(l, where, why) : MF_OK;
}

static void choose_encoding(struct leaf *l)
{
	struct part *p = &l->part;
	p->change = p->is_text && l->high * 2 < l->bytes + 4 ? RECODE_QUOTED : RECODE_BASE64;
}

static enum mf_err judge_leaf(struct leaf *l, struct mf_reason *why)
{
	struct part *p = &l->part;
	bool too_long = l->longest > FIELD_LINE_MAX, unsaid = l->high && l->content.encoding == ENCODING_7BIT;
	p->is_text = begins(l->content.type, "text/");
	p->has_type = l->content.has_type;
	if (l->nul)
		return mf_fail(why, MF_INVALID, "the message has a NUL byte");
	if (l->sealed)
		return judge_fixed(l, "signed or encrypted content", true, why);
	if (begins(l->content.type, "message/") || begins(l->content.type, "multipart/")) {
		p->declare_8bit = unsaid;
		return judge_fixed(l, "a message inside of the message", false, why);
	}
	if (p->is_text && l->high && !l->content.has_charset)
		p->add_charset = l->not_utf8 ? "unknown-8bit" : "utf-8";
	if (l->content.encoding == ENCODING_QUOTED || l->content.encoding == ENCODING_BASE64)
		p->change = !too_long ? RECODE_NONE : l->content.encoding == ENCODING_QUOTED ? RECODE_WRAP_QUOTED : RECODE_WRAP_BASE64;
	else if (l->content.encoding == ENCODING_OTHER)
		return judge_fixed(l, "content in an encoding that is not known", false, why);
	else if (too_long || unsaid || l->content.encoding == ENCODING_BINARY)
		choose_encoding(l);
	if (p->change && p->is_text && !l->content.has_charset && !p->add_charset)
		p->add_charset = "us-ascii";
	return MF_OK;
}

static enum mf_err remember(struct surveying *s, const struct part *p)
{
	if (!p->change && !p->add_charset && !p->declare_8bit && !p->raw_header)
		return MF_OK;
	if (s->to->count == PARTS_MAX)
		return mf_fail(s->why, MF_INVALID, "more than %d parts of the message would have to be changed", PARTS_MAX);
	s->to->parts = mf_realloc_array(s->to->parts, s->to->count + 1, sizeof *s->to->parts);
	s->to->parts[s->to->count++] = *p;
	return MF_OK;
}

/* The part under way ends where the line at `at` begins. */
static enum mf_err end_leaf(struct surveying *s, uint64_t at, bool by_boundary)
{
	struct leaf *l = &s->leaf;
	enum mf_err e;
	if (s->state == BETWEEN) {
		e = l->nul ? mf_fail(s->why, MF_INVALID, "the message has a NUL byte") : judge_fixed(l, "text between parts", false, s->why);
		s->to->eight_bit |= l->high > 0;
		return e;
	}
	l->part.end = at;
	l->part.content_end = by_boundary && at - l->part.body >= l->last_mark ? at - l->last_mark : at;
	e = judge_leaf(l, s->why);
	if (e)
		return e;
	if (l->part.change != RECODE_QUOTED && l->part.change != RECODE_BASE64)
		s->to->eight_bit |= l->high > 0;
	if (l->part.head == 0) {
		s->to->top = l->part;
		return MF_OK;
	}
	return remember(s, &l->part);
}

/* --- parts --------------------------------------------------------------------------------------------------------- */

static bool header_is_raw(const char *header, size_t len)
{
	size_t line = 0;
	for (size_t i = 0; i < len; i++) {
		line = header[i] == '\n' ? 0 : line + 1;
		if ((unsigned char)header[i] >= 0x80 || line > FIELD_LINE_MAX + 1)
			return true;
	}
	return false;
}

static void begin_between(struct surveying *s)
{
	s->state = BETWEEN;
	s->leaf = (struct leaf){ 0 };
}

/* A header has ended at `body`. */
static enum mf_err begin_content(struct surveying *s, const char *header, size_t len, uint64_t head, uint64_t body, bool sealed)
{
	struct leaf l = { .part = { .head = head, .body = body, .end = body, .content_end = body } };
	read_content(header, len, s->depth && s->levels[s->depth - 1].digest, &l.content);
	l.part.raw_header = head && header_is_raw(header, len);
	l.sealed = sealed || is_sealed_type(l.content.type);
	bool enters = !l.sealed && begins(l.content.type, "multipart/") && *l.content.boundary && s->depth < DEPTH_MAX;
	if (!enters) {
		s->leaf = l;
		s->state = IN_LEAF;
		return MF_OK;
	}
	struct level *level = &s->levels[s->depth++];
	memcpy(level->boundary, l.content.boundary, sizeof level->boundary);
	level->len = strlen(level->boundary);
	level->digest = !strcmp(l.content.type, "multipart/digest");
	begin_between(s);
	if (head == 0) {
		s->to->top = l.part;
		s->to->top.has_type = true;
		return MF_OK;
	}
	return remember(s, &l.part);
}

static enum mf_err end_header(struct surveying *s, uint64_t body)
{
	return begin_content(s, s->header.data, s->header.len, s->header_at, body, false);
}

/* --boundary, --boundary-- and white space: which level's it is, or -1 */
static int find_boundary(const struct surveying *s, const struct line *line, bool *ret_last)
{
	if (!line->begins || line->len < 3 || line->data[0] != '-' || line->data[1] != '-')
		return -1;
	size_t len = line->len;
	while (len && (line->data[len - 1] == ' ' || line->data[len - 1] == '\t'))
		len--;
	for (size_t i = s->depth; i-- > 0;) {
		const struct level *level = &s->levels[i];
		if (len < level->len + 2 || memcmp(line->data + 2, level->boundary, level->len))
			continue;
		bool last = len == level->len + 4 && !memcmp(line->data + len - 2, "--", 2);
		if (!last && len != level->len + 2)
			continue;
		*ret_last = last;
		return (int)i;
	}
	return -1;
}

static enum mf_err take_boundary(struct surveying *s, const struct line *line, size_t level, bool last)
{
	enum mf_err e = s->state == IN_HEADER ? end_header(s, line->at) : MF_OK;
	if (!e)
		e = end_leaf(s, line->at, true);
	if (e)
		return e;
	s->depth = last ? level : level + 1;
	begin_between(s);
	if (last)
		return MF_OK;
	s->state = IN_HEADER;
	buf_reset(&s->header);
	s->header_at = line->at + line->len + line->mark;
	return MF_OK;
}

static enum mf_err take_header_line(struct surveying *s, const struct line *line)
{
	if (line->begins && line->ends && !line->len)
		return end_header(s, line->at + line->mark);
	if (memchr(line->data, 0, line->len))
		return mf_fail(s->why, MF_INVALID, "the message has a NUL byte");
	if (buf_add(&s->header, line->data, line->len) || (line->ends && buf_add(&s->header, "\n", 1)))
		return mf_fail(s->why, MF_INVALID, "the header of a part is longer than %d bytes", PART_HEADER_MAX);
	return MF_OK;
}

static enum mf_err take_line(struct surveying *s, const struct line *line)
{
	bool last = false;
	int level = s->depth ? find_boundary(s, line, &last) : -1;
	if (level >= 0)
		return take_boundary(s, line, (size_t)level, last);
	if (s->state == IN_HEADER)
		return take_header_line(s, line);
	leaf_see(&s->leaf, line);
	return MF_OK;
}

static enum mf_err take_all(struct surveying *s, int fd, uint64_t body)
{
	MF_CLEANUP(mf_free) struct lines *l = MF_NEW(struct lines);
	struct line line;
	lines_init(l, fd, body, UINT64_MAX);
	while (lines_next(l, &line)) {
		enum mf_err e = take_line(s, &line);
		if (e)
			return e;
	}
	if (l->error)
		return mf_fail(s->why, l->error, "the message cannot be read");
	enum mf_err e = s->state == IN_HEADER ? end_header(s, l->at) : MF_OK;
	return e ? e : end_leaf(s, l->at, false);
}

enum mf_err survey_take(int fd, const char *header, size_t header_len, uint64_t body, bool sealed, struct survey *ret, struct mf_reason *why)
{
	struct surveying *s = MF_NEW(struct surveying);
	struct survey result = { 0 };
	s->to = &result;
	s->why = why;
	buf_init(&s->header, PART_HEADER_MAX);
	enum mf_err e = begin_content(s, header, header_len, 0, body, sealed);
	if (!e)
		e = take_all(s, fd, body);
	buf_finish(&s->header);
	free(s);
	if (e)
		survey_finish(&result);
	else
		*ret = result;
	return e;
}

void survey_finish(struct survey *s)
{
	free(s->parts);
	*s = (struct survey){ 0 };
}

#include "mail/address.h"

#include <string.h>

#include "mail/text.h"

void address_reader_init(struct address_reader *r, const char *list, size_t len)
{
	*r = (struct address_reader) { .p = list, .end = list + len };
	/* no text grows by being read, but for charsets: a byte becomes three at most, and a U+FFFD is three */
	struct buf *all[] = { &r->name, &r->addr, &r->phrase, &r->bare, &r->comment };
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		buf_init(all[i], 3 * len + 3);
}

void address_reader_finish(struct address_reader *r)
{
	buf_finish(&r->name);
	buf_finish(&r->addr);
	buf_finish(&r->phrase);
	buf_finish(&r->bare);
	buf_finish(&r->comment);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_blank(const struct buf *b)
{
	for (size_t i = 0; i < b->len; i++)
		if (!is_space(b->data[i]))
			return false;
	return true;
}

/* "quoted": the text to phrase, the spelling to bare */
static void read_quoted(struct address_reader *r)
{
	const char *start = r->p++;
	while (r->p < r->end && *r->p != '"') {
		if (*r->p == '\\' && r->p + 1 < r->end)
			r->p++;
		const char *stop = r->p + 1;
		while (stop < r->end && *stop != '"' && *stop != '\\')
			stop++;
		(void)buf_add(&r->phrase, r->p, (size_t)(stop - r->p));
		r->p = stop;
	}
	if (r->p < r->end)
		r->p++;
	(void)buf_add(&r->bare, start, (size_t)(r->p - start));
}

/* (a comment (nested)): the last one is kept */
static void read_comment(struct address_reader *r)
{
	buf_reset(&r->comment);
	size_t depth = 0;
	for (; r->p < r->end; r->p++) {
		if (*r->p == '(' && depth++ == 0)
			continue;
		if (*r->p == ')' && --depth == 0) {
			r->p++;
			return;
		}
		if (*r->p == '\\' && r->p + 1 < r->end)
			r->p++;
		(void)buf_add(&r->comment, r->p, 1);
	}
}

/* but for the one in quotes: "alice q"@example.org is somebody else than "aliceq"@example.org */
static void add_without_space(struct buf *to, const char *s, const char *end)
{
	bool quoted = false;
	while (s < end) {
		const char *stop = s;
		for (; stop < end && (quoted || !is_space(*stop)); stop++) {
			if (*stop == '"')
				quoted = !quoted;
			else if (*stop == '\\' && quoted && stop + 1 < end)
				stop++;
		}
		(void)buf_add(to, s, (size_t)(stop - s));
		s = stop < end ? stop + 1 : end;
	}
}

/* <@route:local@domain>; where the '>' is missing it ends before a comma */
static void read_angle(struct address_reader *r)
{
	while (r->p < r->end && (*r->p == '<' || is_space(*r->p)))
		r->p++;
	const char *start = r->p, *comma = NULL;
	bool quoted = false, route = start < r->end && *start == '@';
	for (; r->p < r->end && (quoted || *r->p != '>'); r->p++) {
		if (*r->p == '"')
			quoted = !quoted;
		else if (*r->p == '\\' && quoted && r->p + 1 < r->end)
			r->p++;
		else if (!quoted && route && *r->p == ':') {
			start = r->p + 1;
			route = false;
			comma = NULL;
		} else if (!quoted && *r->p == ',' && !comma) {
			comma = r->p;
		}
	}
	if (r->p == r->end && comma)
		r->p = comma;
	add_without_space(&r->addr, start, r->p);
	while (r->p < r->end && *r->p == '>')
		r->p++;
}

/* The end of an encoded word that begins at p, or NULL: within it no character is special */
static const char *encoded_word_end(const char *p, const char *end)
{
	unsigned marks = 0;
	for (const char *q = p + 2; q < end && !is_space(*q) && q - p < 200; q++)
		if (*q == '?' && ++marks >= 3 && q + 1 < end && q[1] == '=')
			return q + 2;
	return NULL;
}

/* what read_mailbox() has to look at before it is taken for text */
static bool is_special(char c)
{
	return c == '"' || c == '(' || c == '<' || c == ';' || c == ',' || c == ':' || c == '@' || c == '=';
}

/* an encoded word, or a character and the usual ones behind it */
static void read_plain(struct address_reader *r)
{
	const char *stop = NULL;
	if (r->end - r->p > 2 && r->p[0] == '=' && r->p[1] == '?')
		stop = encoded_word_end(r->p, r->end);
	if (!stop) {
		stop = r->p + 1;
		while (stop < r->end && !is_special(*stop))
			stop++;
	}
	(void)buf_add(&r->phrase, r->p, (size_t)(stop - r->p));
	(void)buf_add(&r->bare, r->p, (size_t)(stop - r->p));
	r->p = stop;
}

/* One mailbox's text up to the comma or semicolon behind it, which is passed */
static void read_mailbox(struct address_reader *r, bool *ret_angle, bool *ret_at)
{
	bool angle = false, at = false;
	while (r->p < r->end) {
		char c = *r->p;
		if (c == '"') {
			read_quoted(r);
		} else if (c == '(') {
			read_comment(r);
		} else if (c == '<' && !angle) {
			read_angle(r);
			angle = true;
		} else if (c == ';' || (c == ',' && (angle || at || is_blank(&r->bare)))) {
			r->p++;
			break;
		} else if (c == ':' && !angle && !at) {
			buf_reset(&r->phrase);
			buf_reset(&r->bare);
			r->p++;
		} else if (angle) {
			r->p++; /* what follows an address belongs to nothing */
		} else {
			at = at || c == '@';
			read_plain(r);
		}
	}
	*ret_angle = angle;
	*ret_at = at;
}

bool address_next(struct address_reader *r)
{
	while (r->p < r->end) {
		buf_reset(&r->name);
		buf_reset(&r->addr);
		buf_reset(&r->phrase);
		buf_reset(&r->bare);
		buf_reset(&r->comment);
		bool angle, at;
		read_mailbox(r, &angle, &at);
		bool is_addr = at && !angle;
		if (is_addr)
			add_without_space(&r->addr, r->bare.data, r->bare.data + r->bare.len);
		const struct buf *name = is_addr || is_blank(&r->phrase) ? &r->comment : &r->phrase;
		text_add_decoded(&r->name, name->data, name->len);
		if (!is_blank(&r->name) || r->addr.len > 0)
			return true;
	}
	return false;
}

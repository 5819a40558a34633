#include "sync/imap/scan.h"

#include <string.h>
#include <strings.h>

#define DEPTH_MAX 200

bool span_is(struct span s, const char *word)
{
	return strlen(word) == s.len && !strncasecmp(s.p, word, s.len);
}

bool span_begins(struct span s, const char *prefix)
{
	size_t len = strlen(prefix);
	return s.len >= len && !strncasecmp(s.p, prefix, len);
}

bool scan_char(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != c)
		return false;
	s->p++;
	return true;
}

static bool ends_word(char c)
{
	return (unsigned char)c <= ' ' || c == '(' || c == ')' || c == '"' || c == 0x7f;
}

bool scan_word(struct scan *s, struct span *ret)
{
	const char *p = s->p;
	while (p < s->end && !ends_word(*p))
		p++;
	if (p == s->p)
		return false;
	*ret = (struct span){ s->p, (size_t)(p - s->p) };
	s->p = p;
	return true;
}

bool scan_item(struct scan *s, struct span *ret)
{
	const char *p = s->p;
	bool bracket = false;
	for (; p < s->end && *p != '\r' && *p != '\n'; p++) {
		if (*p == '[')
			bracket = true;
		else if (*p == ']')
			bracket = false;
		else if (!bracket && ends_word(*p))
			break;
	}
	if (p == s->p || bracket)
		return false;
	*ret = (struct span){ s->p, (size_t)(p - s->p) };
	s->p = p;
	return true;
}

bool scan_number(struct scan *s, uint64_t *ret)
{
	const char *p = s->p;
	uint64_t value = 0;
	for (; p < s->end && *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	if (p == s->p)
		return false;
	*ret = value;
	s->p = p;
	return true;
}

bool scan_uid(struct scan *s, uint32_t *ret)
{
	struct scan at = *s;
	uint64_t value;
	if (!scan_number(&at, &value) || !value || value > UINT32_MAX)
		return false;
	*ret = (uint32_t)value;
	*s = at;
	return true;
}

/* behind the opening quote; scratch NULL: only passes over it */
static bool scan_quoted(struct scan *s, struct buf *scratch)
{
	while (s->p < s->end && *s->p != '"') {
		const char *run = s->p;
		while (s->p < s->end && *s->p != '"' && *s->p != '\\' && *s->p != '\r' && *s->p != '\n')
			s->p++;
		if (scratch && buf_add(scratch, run, (size_t)(s->p - run)))
			return false;
		if (s->p == s->end || *s->p == '\r' || *s->p == '\n')
			return false;
		if (*s->p == '\\') {
			if (++s->p == s->end || (scratch && buf_add(scratch, s->p, 1)))
				return false;
			s->p++;
		}
	}
	return scan_char(s, '"');
}

/* {n} or {n+} or ~{n}, its line's end, and the n bytes */
static bool scan_literal(struct scan *s, struct span *ret)
{
	struct scan at = *s;
	uint64_t len;
	(void)scan_char(&at, '~');
	if (!scan_char(&at, '{') || !scan_number(&at, &len))
		return false;
	(void)scan_char(&at, '+');
	if (!scan_char(&at, '}'))
		return false;
	(void)scan_char(&at, '\r');
	if (!scan_char(&at, '\n') || len > (size_t)(at.end - at.p))
		return false;
	*ret = (struct span){ at.p, (size_t)len };
	at.p += len;
	*s = at;
	return true;
}

bool scan_nstring(struct scan *s, struct buf *scratch, struct span *ret)
{
	struct scan at = *s;
	if (scan_char(&at, '"')) {
		buf_reset(scratch);
		if (!scan_quoted(&at, scratch))
			return false;
		*ret = (struct span){ scratch->data, scratch->len };
	} else if (!scan_literal(&at, ret)) {
		if (!scan_word(&at, ret))
			return false;
		if (span_is(*ret, "NIL"))
			*ret = (struct span){ NULL, 0 };
	}
	*s = at;
	return true;
}

bool scan_skip(struct scan *s)
{
	struct scan at = *s;
	struct span ignored;
	int depth = 0;
	do {
		while (depth && scan_char(&at, ' '))
			;
		if (scan_char(&at, '(')) {
			if (++depth > DEPTH_MAX)
				return false;
		} else if (depth && scan_char(&at, ')')) {
			depth--;
		} else if (scan_char(&at, '"')) {
			if (!scan_quoted(&at, NULL))
				return false;
		} else if (!scan_literal(&at, &ignored) && !scan_item(&at, &ignored)) {
			return false;
		}
	} while (depth);
	*s = at;
	return true;
}

bool scan_at_end(const struct scan *s)
{
	struct scan at = *s;
	while (scan_char(&at, ' '))
		;
	(void)scan_char(&at, '\r');
	return at.p == at.end || (*at.p == '\n' && at.p + 1 == at.end);
}

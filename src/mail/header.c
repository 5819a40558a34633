#include "mail/header.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

/* how far back from the limit a cut looks for white space: longer than an encoded word may be */
#define CUT_WINDOW 100

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_space(char c)
{
	return is_blank(c) || c == '\r' || c == '\n';
}

size_t header_name_length(const char *line, size_t len)
{
	size_t n = 0;
	while (n < len && line[n] > ' ' && line[n] < 0x7f && line[n] != ':')
		n++;
	size_t colon = n;
	while (colon < len && is_blank(line[colon]))
		colon++;
	return colon < len && line[colon] == ':' ? n : 0;
}

/* How many of the names it is the first field of */
static size_t keep_first(const char *name, size_t name_len, const char *const *names, size_t count,
                         struct header_span span, struct header_span *ret)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (!ret[i].data && (*name | 0x20) == (*names[i] | 0x20) && strncasecmp(name, names[i], name_len) == 0 && names[i][name_len] == '\0') {
			ret[i] = span;
			kept++;
		}
	return kept;
}

/* The end of the line at p without its line break, and in *ret_next where the next one begins */
static const char *line_end(const char *p, const char *end, const char **ret_next)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p));
	*ret_next = lf ? lf + 1 : end;
	const char *stop = lf ? lf : end;
	while (stop > p && stop[-1] == '\r')
		stop--;
	return stop;
}

void header_find(const void *header, size_t len, const char *const *names, size_t count, struct header_span *ret)
{
	memset(ret, 0, count * sizeof *ret);
	if (len == 0)
		return;
	const char *p = header, *end = p + len;
	size_t missing = count;
	unsigned initials = 0; /* most lines begin with none of them */
	for (size_t i = 0; i < count; i++)
		initials |= 1U << (*names[i] & 31);
	while (p < end && missing) {
		const char *line = p, *stop = line_end(p, end, &p);
		if (stop == line)
			return;
		while (p < end && is_blank(*p))
			stop = line_end(p, end, &p);
		if (!(initials >> (*line & 31) & 1))
			continue;
		size_t name_len = header_name_length(line, (size_t)(stop - line));
		if (name_len == 0)
			continue;
		const char *value = memchr(line + name_len, ':', (size_t)(stop - line) - name_len);
		missing -= keep_first(line, name_len, names, count,
		                      (struct header_span) { value + 1, (size_t)(stop - value) - 1 }, ret);
	}
}

char *header_unfold(struct header_span span, size_t max, size_t *ret_len)
{
	const char *p = span.data ? span.data : "", *end = p + span.len;
	while (p < end && is_space(*p))
		p++;
	char *text = mf_alloc((span.len < max ? span.len : max) + 1);
	size_t n = 0;
	while (p < end && n < max) {
		const char *run = p, *limit = (size_t)(end - p) > max - n ? p + (max - n) : end;
		while (p < limit && *p != '\r' && *p != '\n')
			p++;
		memcpy(text + n, run, (size_t)(p - run));
		n += (size_t)(p - run);
		while (p < end && n < max && (*p == '\r' || *p == '\n'))
			p++;
	}
	if (p < end) {
		size_t least = n > CUT_WINDOW ? n - CUT_WINDOW : 0, cut = n;
		while (cut > least && !is_blank(text[cut - 1]))
			cut--;
		n = cut > least ? cut : n;
	}
	while (n > 0 && is_blank(text[n - 1]))
		n--;
	text[n] = '\0';
	*ret_len = n;
	return text;
}

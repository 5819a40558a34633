#include "net/guard.h"

#include <string.h>

enum kind {
	LINE_START,
	LINE_STAR,     /* behind "*" and perhaps blanks */
	LINE_KEYWORD,
	LINE_DATA,
	LINE_STATUS,   /* and everything else that has no literals */
};

enum first_flag { FLAG_NOT_YET, FLAG_LIST, FLAG_BACKSLASH, FLAG_SEEN };

enum brace { BRACE_NONE, BRACE_OPEN, BRACE_DIGITS, BRACE_PLUS, BRACE_CLOSED, BRACE_CR };

void guard_init(struct guard *g, uint64_t literal_max)
{
	memset(g, 0, sizeof *g);
	g->literal_max = literal_max < UINT32_MAX ? literal_max : UINT32_MAX;
}

static void next_response(struct guard *g)
{
	guard_init(g, g->literal_max);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char upper(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* Follows word through the bytes; its first letter must not occur in it again. True at its last letter. */
static bool word_ends(uint8_t *at, const char *word, char c)
{
	c = upper(c);
	*at = word[*at] == c ? (uint8_t)(*at + 1) : word[0] == c;
	if (word[*at])
		return false;
	*at = 0;
	return true;
}

static enum mf_err open_paren(struct guard *g, struct mf_reason *why)
{
	if (++g->depth > GUARD_DEPTH_MAX)
		return mf_fail(why, MF_PROTOCOL, "parentheses nested more than %d deep", GUARD_DEPTH_MAX);
	if (g->permanent_flags && g->depth > 1)
		return mf_fail(why, MF_PROTOCOL, "nested parentheses in PERMANENTFLAGS");
	return MF_OK;
}

static void close_paren(struct guard *g)
{
	if (g->depth)
		g->depth--;
}

static enum mf_err add_digit(struct guard *g, char c, struct mf_reason *why)
{
	g->number = g->number * 10 + (uint64_t)(c - '0');
	if (g->number > g->literal_max)
		return mf_fail(why, MF_PROTOCOL, "a literal of %llu bytes or more, where at most %llu are taken",
		               (unsigned long long)g->number, (unsigned long long)g->literal_max);
	return MF_OK;
}

static void start_brace(struct guard *g)
{
	g->brace = BRACE_OPEN;
	g->number = 0;
	g->odd = false;
}

/* Behind "}": only the end of the line makes it a literal; libetpan would take blanks, or nothing at all, for one too. */
static enum mf_err after_brace(struct guard *g, char c, struct mf_reason *why)
{
	if (c == '\r' && g->brace == BRACE_CLOSED) {
		g->brace = BRACE_CR;
		return MF_OK;
	}
	g->brace = BRACE_NONE;
	if (!g->quoted)
		return mf_fail(why, MF_PROTOCOL, "text on the line behind the length of a literal");
	return MF_OK;
}

static enum mf_err in_brace(struct guard *g, char c, struct mf_reason *why)
{
	if (g->brace >= BRACE_CLOSED)
		return after_brace(g, c, why);
	if (is_digit(c) && g->brace != BRACE_PLUS) {
		g->brace = BRACE_DIGITS;
		/* in a quoted string it is text until the line ends behind it */
		if (!g->quoted)
			return add_digit(g, c, why);
		g->number = g->number > UINT32_MAX ? g->number : g->number * 10 + (uint64_t)(c - '0');
		return MF_OK;
	}
	if (c == '}' && g->brace != BRACE_OPEN)
		g->brace = BRACE_CLOSED;
	else if (c == '+' && g->brace == BRACE_DIGITS)
		g->brace = BRACE_PLUS;
	else if (is_blank(c) || c == '-')
		g->odd = true;
	else if (c == '{')
		start_brace(g);
	else
		g->brace = BRACE_NONE;
	return MF_OK;
}

/* the end of a line of data: of the response, or of what stands in front of a literal */
static enum mf_err end_data_line(struct guard *g, struct mf_reason *why)
{
	if (g->brace < BRACE_CLOSED) {
		next_response(g);
		return MF_OK;
	}
	if (g->odd)
		return mf_fail(why, MF_PROTOCOL, "a literal whose length is not a number");
	if (g->number > g->literal_max)
		return mf_fail(why, MF_PROTOCOL, "a literal of more than the %llu bytes that are taken", (unsigned long long)g->literal_max);
	g->literal_left = g->number;
	g->brace = BRACE_NONE;
	g->quoted = g->escaped = false;
	return MF_OK;
}

static void in_quotes(struct guard *g, char c)
{
	if (g->escaped)
		g->escaped = false;
	else if (c == '\\')
		g->escaped = true;
	else if (c == '"')
		g->quoted = false;
}

static enum mf_err data_byte(struct guard *g, char c, struct mf_reason *why)
{
	if (c == '\n')
		return end_data_line(g, why);
	if (g->brace) {
		enum mf_err e = in_brace(g, c, why);
		if (e)
			return e;
	} else if (c == '{') {
		start_brace(g);
	}
	if (g->quoted) {
		in_quotes(g, c);
		return MF_OK;
	}
	switch (c) {
	case '"':
		g->quoted = true;
		break;
	case '(':
		return open_paren(g, why);
	case ')':
		close_paren(g);
		break;
	default:
		break;
	}
	return MF_OK;
}

static bool is_alphanumeric(char c)
{
	return is_digit(c) || (upper(c) >= 'A' && upper(c) <= 'Z');
}

/* libetpan frees a list it has not got when it cannot read the first of the flags, be it for the end of the line. An empty list
 * is fine. */
static enum mf_err permanent_flags_byte(struct guard *g, char c, struct mf_reason *why)
{
	switch ((enum first_flag)g->first_flag) {
	case FLAG_NOT_YET:
		if (c == '(')
			g->first_flag = FLAG_LIST;
		return MF_OK;
	case FLAG_LIST:
		if (is_blank(c))
			return MF_OK;
		g->first_flag = c == '\\' ? FLAG_BACKSLASH : FLAG_SEEN;
		if (c == '\\' || c == ')' || c == '$' || c == '_' || is_alphanumeric(c))
			return MF_OK;
		break;
	case FLAG_BACKSLASH:
		g->first_flag = FLAG_SEEN;
		if (c == '*' || is_alphanumeric(c))
			return MF_OK;
		break;
	case FLAG_SEEN:
		return MF_OK;
	}
	return mf_fail(why, MF_PROTOCOL, "PERMANENTFLAGS that are no flags");
}

/* Quotes mean nothing here; parentheses are counted as they come. The flags in PERMANENTFLAGS are read as strings, so that a
 * quoted "]" does not end the code: nothing does, on that line. */
static enum mf_err status_byte(struct guard *g, char c, struct mf_reason *why)
{
	if (g->permanent_flags) {
		enum mf_err e = permanent_flags_byte(g, c, why);
		if (e)
			return e;
	}
	if (c == '\n') {
		next_response(g);
		return MF_OK;
	}
	if ((g->in_code || g->permanent_flags) && g->brace == BRACE_OPEN && is_digit(c))
		return mf_fail(why, MF_PROTOCOL, "a literal in a response code");
	if (c == '{')
		g->brace = BRACE_OPEN;
	else if (!is_blank(c) && c != '-')
		g->brace = BRACE_NONE;
	if (g->in_code && word_ends(&g->badcharset_at, "BADCHARSET", c))
		return mf_fail(why, MF_PROTOCOL, "the response code BADCHARSET, which cannot be read safely");
	if (g->in_code && word_ends(&g->permanent_at, "PERMANENTFLAGS", c)) {
		g->permanent_flags = true;
		g->depth = 0;
	}
	if (c == '[') {
		g->in_code = true;
		g->badcharset_at = g->permanent_at = 0;
	} else if (c == ']') {
		g->in_code = false;
	} else if (c == '(') {
		return open_paren(g, why);
	} else if (c == ')') {
		close_paren(g);
	}
	return MF_OK;
}

static bool is_status_word(const char *word)
{
	static const char *const words[] = { "OK", "NO", "BAD", "BYE", "PREAUTH" };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(word, words[i]))
			return true;
	return false;
}

static enum mf_err keyword_byte(struct guard *g, char c, struct mf_reason *why)
{
	char u = upper(c);
	if (u >= 'A' && u <= 'Z') {
		if (g->keyword_len < sizeof g->keyword - 1)
			g->keyword[g->keyword_len++] = u;
		return MF_OK;
	}
	g->keyword[g->keyword_len] = 0;
	if (!strncmp(g->keyword, "ANNOTATION", 10))
		return mf_fail(why, MF_PROTOCOL, "an ANNOTATION response, which nobody asked for");
	bool ends = is_blank(c) || c == '\r' || c == '\n';
	g->kind = ends && is_status_word(g->keyword) ? LINE_STATUS : LINE_DATA;
	return g->kind == LINE_STATUS ? status_byte(g, c, why) : data_byte(g, c, why);
}

static enum mf_err line_byte(struct guard *g, char c, struct mf_reason *why)
{
	switch ((enum kind)g->kind) {
	case LINE_START:
		if (is_blank(c))
			return MF_OK;
		g->kind = c == '*' ? LINE_STAR : LINE_STATUS;
		return c == '*' ? MF_OK : status_byte(g, c, why);
	case LINE_STAR:
		if (is_blank(c))
			return MF_OK;
		g->kind = LINE_KEYWORD;
		return keyword_byte(g, c, why);
	case LINE_KEYWORD:
		return keyword_byte(g, c, why);
	case LINE_DATA:
		return data_byte(g, c, why);
	case LINE_STATUS:
		break;
	}
	return status_byte(g, c, why);
}

/* how many of the next bytes change nothing, in a line of data outside and inside quotes */
static size_t dull_bytes(const struct guard *g, const char *p, size_t len)
{
	if (g->kind != LINE_DATA || g->brace || g->escaped)
		return 0;
	size_t i = 0;
	while (i < len && p[i] != '"' && p[i] != '(' && p[i] != ')' && p[i] != '{' && p[i] != '\\' && p[i] != '\n')
		i++;
	return i;
}

static enum mf_err count(struct guard *g, size_t n, struct mf_reason *why)
{
	g->length += n;
	if (g->length > GUARD_LINE_MAX)
		return mf_fail(why, MF_PROTOCOL, "a response line of more than %u MiB", GUARD_LINE_MAX >> 20);
	return MF_OK;
}

enum mf_err guard_feed(struct guard *g, const void *data, size_t len, struct mf_reason *why)
{
	const char *p = data, *end = p + len;
	while (p < end) {
		size_t left = (size_t)(end - p), n;
		enum mf_err e;
		if (g->literal_left) {
			n = g->literal_left < left ? (size_t)g->literal_left : left;
			g->literal_left -= n;
			e = MF_OK;
		} else if ((n = dull_bytes(g, p, left)) > 0) {
			e = count(g, n, why);
		} else {
			n = 1;
			e = count(g, 1, why);
			if (!e)
				e = line_byte(g, *p, why);
		}
		if (e)
			return e;
		p += n;
	}
	return MF_OK;
}

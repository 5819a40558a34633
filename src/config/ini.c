#include "config/ini.h"

#include <string.h>

#include "base/mem.h"
#include "base/secret.h"

struct span {
	const char *start, *end;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span s)
{
	while (s.start < s.end && is_blank(*s.start))
		s.start++;
	while (s.start < s.end && is_blank(s.end[-1]))
		s.end--;
	return s;
}

/* s up to a comment (a ';' at the start or behind white space), looked for from `from` on; trimmed */
static struct span without_comment(struct span s, const char *from)
{
	for (const char *p = from; p < s.end; p++)
		if (*p == ';' && (p == s.start || is_blank(p[-1]))) {
			s.end = p;
			break;
		}
	return trim(s);
}

static const char *copy(char *to, struct span s)
{
	size_t len = (size_t)(s.end - s.start);
	memcpy(to, s.start, len);
	to[len] = '\0';
	return to;
}

/* The closing quote of the string that begins at s.start, or NULL */
static const char *closing_quote(struct span s)
{
	for (const char *p = s.start + 1; p < s.end; p++) {
		if (*p == '"')
			return p;
		if (*p == '\\')
			p++;
	}
	return NULL;
}

static enum mf_err copy_unquoted(char *to, struct span s, struct mf_reason *why)
{
	for (const char *p = s.start; p < s.end; p++) {
		if (*p == '\\' && p[1] != '"' && p[1] != '\\')
			return mf_fail(why, MF_INVALID, "in quotes a \\ stands before \" or another \\ only");
		if (*p == '\\')
			p++;
		*to++ = *p;
	}
	*to = '\0';
	return MF_OK;
}

static enum mf_err read_value(struct span s, char *to, struct mf_reason *why)
{
	s = trim(s);
	const char *from = s.start;
	if (s.start < s.end && *s.start == '"') {
		const char *quote = closing_quote(s);
		if (!quote)
			return mf_fail(why, MF_INVALID, "the closing quote is missing");
		from = quote + 1;
		if (without_comment((struct span) { s.start, s.end }, from).end == from)
			return copy_unquoted(to, (struct span) { s.start + 1, quote }, why);
	}
	copy(to, without_comment(s, from));
	return MF_OK;
}

static enum mf_err read_line(struct span s, char *scratch, struct ini_line *line, struct mf_reason *why)
{
	for (const char *p = s.start; p < s.end; p++)
		if ((unsigned char)*p < 0x20 && *p != '\t')
			return mf_fail(why, MF_INVALID, "a control character");
	line->is_section = *s.start == '[';
	line->value = "";
	if (line->is_section) {
		s = without_comment(s, s.start);
		if (s.end[-1] != ']')
			return mf_fail(why, MF_INVALID, "the section's closing ] is missing");
		line->name = copy(scratch, trim((struct span) { s.start + 1, s.end - 1 }));
		return MF_OK;
	}
	const char *equals = memchr(s.start, '=', (size_t)(s.end - s.start));
	if (!equals)
		return mf_fail(why, MF_INVALID, "neither a setting (KEY = VALUE) nor a [section]");
	struct span key = trim((struct span) { s.start, equals });
	line->name = copy(scratch, key);
	char *value = scratch + (key.end - key.start) + 1;
	line->value = value;
	return read_value((struct span) { equals + 1, s.end }, value, why);
}

/* One line of the file without its line break; comments and empty ones are passed over */
static enum mf_err take_line(struct span s, unsigned number, ini_handler *handler, void *context, char *scratch,
                             struct mf_reason *why)
{
	if (s.end - s.start > INI_LINE_MAX)
		return mf_fail(why, MF_INVALID, "longer than %d bytes", INI_LINE_MAX);
	s = trim(s);
	if (s.start == s.end || *s.start == '#' || *s.start == ';')
		return MF_OK;
	struct ini_line line = { .number = number };
	enum mf_err e = read_line(s, scratch, &line, why);
	return e ? e : handler(context, &line, why);
}

/* Of a long path the end tells more */
static const char *short_path(const char *file, const char **ret_dots)
{
	size_t len = strlen(file);
	*ret_dots = len > 120 ? "..." : "";
	return len > 120 ? file + len - 117 : file;
}

enum mf_err ini_read(const char *text, size_t len, const char *file, ini_handler *handler, void *context,
                     struct mf_reason *why)
{
	MF_CLEANUP(secret_cleanup) char *scratch = secret_alloc(INI_LINE_MAX + 4);
	const char *p = text, *end = text + len, *dots;
	if (len >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		p += 3;
	for (unsigned number = 1; p < end; number++) {
		const char *lf = memchr(p, '\n', (size_t)(end - p));
		struct span line = { p, lf ? lf : end };
		p = lf ? lf + 1 : end;
		if (line.end > line.start && line.end[-1] == '\r')
			line.end--;
		struct mf_reason reason = { 0 };
		enum mf_err e = take_line(line, number, handler, context, scratch, &reason);
		if (e) {
			const char *name = short_path(file, &dots);
			return mf_fail(why, e, "%s%s:%u: %s", dots, name, number, reason.text);
		}
	}
	return MF_OK;
}

#include "mail/name.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "mail/date.h"

#define SENDER_MAX 60
/* How much of a text is looked at, filtered: composing makes it shorter, at most to a third */
#define FILTERED_MAX 640

enum char_class { CHAR_LETTER, CHAR_MARK, CHAR_PUNCTUATION, CHAR_NOTHING, CHAR_OTHER };

/* Letters and marks that show nothing (default ignorable, Unicode 15 table 5-3, as far as they are L or M) */
static bool is_invisible(gunichar c)
{
	return c == 0x034f || (c >= 0x115f && c <= 0x1160) || (c >= 0x17b4 && c <= 0x17b5) || (c >= 0x180b && c <= 0x180f) ||
	       c == 0x3164 || c == 0xffa0 || (c >= 0xfe00 && c <= 0xfe0f) || (c >= 0xe0100 && c <= 0xe01ef);
}

static enum char_class classify(gunichar c)
{
	if (c < 0x80)
		return g_ascii_isalnum((gchar)c) ? CHAR_LETTER : c == '.' || c == '@' || c == '+' ? CHAR_PUNCTUATION : CHAR_OTHER;
	if (is_invisible(c))
		return CHAR_NOTHING;
	if (g_unichar_ismark(c))
		return CHAR_MARK;
	return g_unichar_isalpha(c) || g_unichar_type(c) == G_UNICODE_DECIMAL_NUMBER ? CHAR_LETTER : CHAR_OTHER;
}

struct filtered {
	char text[FILTERED_MAX];
	size_t len;
	bool gap;                          /* something before the next character was left out */
	bool carrier;                      /* a mark has something to stand on */
	bool composed;                     /* all of it is below the first mark that combines, where everything is in NFC */
};

/* false: there is no more room */
static bool add_kept(struct filtered *f, const char *text, size_t size)
{
	if (f->len + size + 1 > FILTERED_MAX)
		return false;
	if (f->gap && f->len > 0)
		f->text[f->len++] = '-';
	memcpy(f->text + f->len, text, size);
	f->len += size;
	f->gap = false;
	return true;
}

/* One character; *ret_size: its length. Bytes that are not UTF-8 count as anything else. */
static bool add_char(struct filtered *f, const char *text, size_t *ret_size)
{
	gunichar c = (unsigned char)*text < 0x80 ? (gunichar)*text : g_utf8_get_char_validated(text, -1);
	bool valid = c < (gunichar)-2;
	enum char_class class = valid ? classify(c) : CHAR_OTHER;
	*ret_size = valid && c >= 0x80 ? (size_t)g_unichar_to_utf8(c, NULL) : 1;
	bool keep = class == CHAR_LETTER || (class == CHAR_MARK && f->carrier) || class == CHAR_PUNCTUATION;
	if (keep && f->len == 0 && c == '.')
		keep = false;
	if (keep && !add_kept(f, text, *ret_size))
		return false;
	f->composed = f->composed && (!keep || c < 0x300);
	if (class != CHAR_NOTHING) {
		f->gap = !keep;
		f->carrier = keep && class != CHAR_PUNCTUATION;
	}
	return true;
}

/* How many letters and digits of ASCII stand here, as far as there is room: most of what is read */
static size_t plain_run(const struct filtered *f, const char *text)
{
	size_t n = 0, room = FILTERED_MAX - 1 - f->len;
	while (n < room && g_ascii_isalnum(text[n]))
		n++;
	return n;
}

/* What of text may be in a name */
static void filter(const char *text, struct filtered *ret)
{
	ret->len = 0;
	ret->gap = ret->carrier = false;
	ret->composed = true;
	while (*text && ret->len < FILTERED_MAX - 1) {
		size_t size = plain_run(ret, text);
		if (size)
			ret->carrier = add_kept(ret, text, size);
		else if (!add_char(ret, text, &size))
			break;
		text += size;
	}
}

/* The length of at most max bytes of s, not between a letter and its marks (but where one has more of them than fit) and
 * without a '-' at the end */
static size_t cut(const char *s, size_t len, size_t max)
{
	size_t n = len;
	if (len > max) {
		n = max;
		while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
			n--;
		const char *p = s + n;
		while (p > s && g_unichar_ismark(g_utf8_get_char(p)))
			p = g_utf8_prev_char(p);
		if (p > s)
			n = (size_t)(p - s);
	}
	while (n > 0 && s[n - 1] == '-')
		n--;
	return n;
}

/* Appends text's share of a name to ret; returns how many bytes that was, at most max. 0: nothing of it can be in a name */
static size_t add_part(char *ret, const char *text, size_t max)
{
	struct filtered f;
	if (text)
		filter(text, &f);
	if (!text || f.len == 0)
		return 0;
	char *composed = f.composed ? NULL : g_utf8_normalize(f.text, (gssize)f.len, G_NORMALIZE_NFC);
	const char *part = composed ? composed : f.text;
	size_t len = cut(part, composed ? strlen(composed) : f.len, max);
	memcpy(ret, part, len);
	g_free(composed);
	return len;
}

/* the word for a part that the message lacks */
static size_t add_instead(char *ret, const char *word)
{
	size_t len = strlen(word);
	memcpy(ret, word, len);
	return len;
}

static size_t add_sender(char *ret, const struct mail_summary *summary)
{
	size_t n = add_part(ret, summary->from_name, SENDER_MAX);
	if (n == 0)
		n = add_part(ret, summary->from, SENDER_MAX); /* a display name of emoji only still has its address */
	return n > 0 ? n : add_instead(ret, "unknown");
}

static size_t add_subject(char *ret, const struct mail_summary *summary, size_t max)
{
	size_t n = add_part(ret, summary->subject, max);
	return n > 0 ? n : add_instead(ret, "no-subject");
}

/* "_k7f3q2mz.eml", "_k7f3q2mz-2.eml" */
static size_t make_tail(const char *key, unsigned twin, char ret[static 40])
{
	size_t n = 0;
	ret[n++] = '_';
	for (size_t i = 0; i < 8 && key[i]; i++)
		ret[n++] = key[i];
	if (twin > 1)
		n += (size_t)snprintf(ret + n, 16, "-%u", twin);
	memcpy(ret + n, ".eml", 5);
	return n + 4;
}

void mail_message_name(const struct mail_summary *summary, int64_t internal_date, unsigned twin, char ret[static MAIL_NAME_MAX + 1])
{
	char tail[40], day[11];
	size_t tail_len = make_tail(summary->key, twin, tail);
	mail_date_format_day(summary->has_date ? summary->date : internal_date, day);
	size_t n = strlen(day);
	memcpy(ret, day, n);
	ret[n++] = '_';
	n += add_sender(ret + n, summary);
	ret[n++] = '_';
	n += add_subject(ret + n, summary, MAIL_NAME_MAX - tail_len - n);
	memcpy(ret + n, tail, tail_len + 1);
}

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

/* What of text may be in a name, in at most FILTERED_MAX bytes; bytes that are not UTF-8 count as anything else. *ret_composed:
 * all of it is below the first mark that combines, where everything is in NFC */
static size_t filter(const char *text, char ret[static FILTERED_MAX], bool *ret_composed)
{
	size_t n = 0;
	bool gap = false, carrier = false; /* carrier: a mark has something to stand on */
	*ret_composed = true;
	while (*text) {
		gunichar c = (unsigned char)*text < 0x80 ? (gunichar)*text : g_utf8_get_char_validated(text, -1);
		bool valid = c < (gunichar)-2;
		enum char_class class = valid ? classify(c) : CHAR_OTHER;
		size_t size = valid && c >= 0x80 ? (size_t)g_unichar_to_utf8(c, NULL) : 1;
		bool keep = class == CHAR_LETTER || (class == CHAR_MARK && carrier) || class == CHAR_PUNCTUATION;
		if (keep && n == 0 && c == '.')
			keep = false;
		if (keep) {
			if (n + size + 1 > FILTERED_MAX)
				break;
			if (gap && n > 0)
				ret[n++] = '-';
			for (size_t i = 0; i < size; i++) /* most are one byte: not worth a call */
				ret[n++] = text[i];
			*ret_composed = *ret_composed && c < 0x300;
		}
		if (class != CHAR_NOTHING) {
			gap = !keep;
			carrier = keep && class != CHAR_PUNCTUATION;
		}
		text += size;
	}
	return n;
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
	char filtered[FILTERED_MAX];
	bool is_composed;
	size_t len = text ? filter(text, filtered, &is_composed) : 0;
	if (len == 0)
		return 0;
	char *composed = is_composed ? NULL : g_utf8_normalize(filtered, (gssize)len, G_NORMALIZE_NFC);
	const char *part = composed ? composed : filtered;
	len = cut(part, composed ? strlen(composed) : len, max);
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

void mail_message_name(const struct mail_summary *summary, int64_t internal_date, unsigned twin, char ret[static MAIL_NAME_MAX + 1])
{
	char tail[40], day[11];
	int tail_len = twin > 1 ? snprintf(tail, sizeof tail, "_%.8s-%u.eml", summary->key, twin)
	                        : snprintf(tail, sizeof tail, "_%.8s.eml", summary->key);
	mail_date_format_day(summary->has_date ? summary->date : internal_date, day);
	size_t n = strlen(day);
	memcpy(ret, day, n);
	ret[n++] = '_';
	n += add_sender(ret + n, summary);
	ret[n++] = '_';
	n += add_subject(ret + n, summary, MAIL_NAME_MAX - (size_t)tail_len - n);
	memcpy(ret + n, tail, (size_t)tail_len + 1);
}

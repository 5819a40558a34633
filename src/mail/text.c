#include "mail/text.h"

#include <iconv.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

#define REPLACEMENT "\xef\xbf\xbd"

/* conversions through iconv(3) in one field: opening a converter is what costs, and a hostile field changes the charset
 * with every word */
#define CONVERSIONS_MAX 50

size_t text_cut(const char *s, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}

static void add_char(struct buf *out, gunichar c)
{
	char utf8[6];
	(void)buf_add(out, utf8, (size_t)g_unichar_to_utf8(c, utf8));
}

/* --- raw bytes --- */

static bool holds_utf8(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] >= 0xc2 &&
		    g_utf8_get_char_validated(s + i, (gssize)(len - i)) < (gunichar)-2)
			return true;
	return false;
}

static void add_utf8(struct buf *out, const char *s, size_t len)
{
	while (len > 0) {
		const char *bad;
		g_utf8_validate_len(s, len, &bad);
		size_t good = (size_t)(bad - s);
		(void)buf_add(out, s, good);
		s += good;
		len -= good;
		if (len > 0) {
			(void)buf_adds(out, REPLACEMENT);
			s++;
			len--;
		}
	}
}

static void add_windows_1252(struct buf *out, const char *s, size_t len)
{
	static const gunichar upper[32] = {
		0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0xfffd,
		0x017d, 0xfffd, 0xfffd, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a,
		0x0153, 0xfffd, 0x017e, 0x0178,
	};
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c == 0)
			(void)buf_adds(out, REPLACEMENT);
		else
			add_char(out, c >= 0x80 && c < 0xa0 ? upper[c - 0x80] : c);
	}
}

void text_add_bytes(struct buf *out, const char *s, size_t len)
{
	if (g_utf8_validate_len(s, len, NULL))
		(void)buf_add(out, s, len);
	else if (holds_utf8(s, len))
		add_utf8(out, s, len);
	else
		add_windows_1252(out, s, len);
}

/* --- charsets --- */

/* What is written of a charset, and what is meant: usual misuse (a subset's name for the whole) and old aliases */
static const struct { const char *name, *meant; } charset_aliases[] = {
	{ "iso-8859-1", "windows-1252" }, { "latin1", "windows-1252" }, { "cp1252", "windows-1252" },
	{ "gb2312", "GB18030" }, { "gbk", "GB18030" }, { "ks_c_5601-1987", "CP949" }, { "euc-kr", "CP949" },
	{ "shift_jis", "CP932" }, { "shift-jis", "CP932" }, { "sjis", "CP932" }, { "big5", "BIG5-HKSCS" },
	{ "utf8", "utf-8" }, { "iso-8859-8-i", "ISO-8859-8" }, { "utf-16", "UTF-16BE" },
};

static const char *charset_meant(const char *name)
{
	for (size_t i = 0; i < G_N_ELEMENTS(charset_aliases); i++)
		if (strcasecmp(name, charset_aliases[i].name) == 0)
			return charset_aliases[i].meant;
	return name;
}

static void add_iconv(struct buf *out, iconv_t converter, char *s, size_t len)
{
	char text[512];
	bool flushed = false;
	while (!flushed) {
		char *to = text;
		size_t room = sizeof text;
		flushed = len == 0;
		size_t result = flushed ? iconv(converter, NULL, NULL, &to, &room) : iconv(converter, &s, &len, &to, &room);
		add_utf8(out, text, sizeof text - room);
		if (result == (size_t)-1 && room == sizeof text && len > 0) { /* no progress: a bad byte */
			(void)buf_adds(out, REPLACEMENT);
			s++;
			len--;
		}
	}
}

struct decoder {
	struct buf *out;
	char charset[40];     /* of the encoded words whose bytes wait in .bytes */
	struct buf bytes;
	unsigned conversions;
};

static void decoder_flush(struct decoder *d)
{
	if (d->bytes.len > 0) {
		const char *charset = charset_meant(d->charset);
		iconv_t converter = (iconv_t)-1;
		if (strcasecmp(charset, "utf-8") == 0)
			add_utf8(d->out, d->bytes.data, d->bytes.len);
		else if (strcasecmp(charset, "us-ascii") != 0 && d->conversions++ < CONVERSIONS_MAX &&
		         (converter = iconv_open("UTF-8", charset)) != (iconv_t)-1) {
			add_iconv(d->out, converter, d->bytes.data, d->bytes.len);
			iconv_close(converter);
		} else {
			text_add_bytes(d->out, d->bytes.data, d->bytes.len);
		}
	}
	buf_reset(&d->bytes);
	d->charset[0] = '\0';
}

/* --- encoded words --- */

struct encoded_word {
	char charset[40];
	char encoding;        /* 'q' or 'b' */
	const char *text;
	size_t text_len;
	const char *end;      /* behind its ?= */
};

/* A charset's name, without the language of RFC 2231. No '/': iconv would read options there. */
static bool charset_copy(char ret[static 40], const char *s, size_t len)
{
	const char *star = memchr(s, '*', len);
	if (star)
		len = (size_t)(star - s);
	if (len == 0 || len >= 40)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!g_ascii_isalnum(s[i]) && !strchr("-_.:+()", s[i]))
			return false;
	memcpy(ret, s, len);
	ret[len] = '\0';
	return true;
}

/* Reads the encoded word at p ("=?"). Spaces within it are let through: some mailers write them. *no_end says that no
 * "?=" follows: it is set by the first search that finds none, so that all searches together stay linear. */
static bool word_read(const char *p, const char *end, struct encoded_word *ret, bool *no_end)
{
	const char *name = p + 2, *limit = end - name > 80 ? name + 80 : end;
	const char *mark = memchr(name, '?', (size_t)(limit - name));
	if (!mark || end - mark < 3 || mark[2] != '?' || *no_end)
		return false;
	char encoding = g_ascii_tolower(mark[1]);
	if ((encoding != 'q' && encoding != 'b') || !charset_copy(ret->charset, name, (size_t)(mark - name)))
		return false;
	ret->encoding = encoding;
	ret->text = mark + 3;
	const char *stop = memmem(ret->text, (size_t)(end - ret->text), "?=", 2);
	if (!stop) {
		*no_end = true;
		return false;
	}
	ret->text_len = (size_t)(stop - ret->text);
	ret->end = stop + 2;
	return true;
}

/* No text grows by being decoded. */
static void add_q(struct buf *bytes, const char *s, size_t len)
{
	MF_CLEANUP(mf_free) char *text = mf_alloc(len);
	size_t n = 0;
	for (size_t i = 0; i < len; i++) {
		char c = s[i] == '_' ? ' ' : s[i];
		if (c == '=' && i + 2 < len && g_ascii_isxdigit(s[i + 1]) && g_ascii_isxdigit(s[i + 2])) {
			c = (char)(g_ascii_xdigit_value(s[i + 1]) * 16 + g_ascii_xdigit_value(s[i + 2]));
			i += 2;
		}
		text[n++] = c;
	}
	(void)buf_add(bytes, text, n);
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static void add_b(struct buf *bytes, const char *s, size_t len)
{
	MF_CLEANUP(mf_free) char *text = mf_alloc(len);
	size_t n = 0;
	unsigned bits = 0, count = 0;
	for (size_t i = 0; i < len; i++) {
		int value = base64_value(s[i]);
		if (value < 0)
			continue;
		bits = (bits << 6 | (unsigned)value) & 0xffff;
		count += 6;
		if (count >= 8) {
			count -= 8;
			text[n++] = (char)(bits >> count & 0xff);
		}
	}
	(void)buf_add(bytes, text, n);
}

static void decoder_add_word(struct decoder *d, const struct encoded_word *word)
{
	if (strcasecmp(d->charset, word->charset) != 0) {
		decoder_flush(d);
		memcpy(d->charset, word->charset, sizeof d->charset);
	}
	(word->encoding == 'q' ? add_q : add_b)(&d->bytes, word->text, word->text_len);
}

static bool only_white_space(const char *s, const char *end)
{
	while (s < end && g_ascii_isspace(*s))
		s++;
	return s == end;
}

void text_add_decoded(struct buf *out, const char *s, size_t len)
{
	struct decoder d = { .out = out };
	buf_init(&d.bytes, len);
	bool no_end = false, behind_word = false;
	const char *end = s + len, *plain = s;
	for (const char *p = s; (p = memmem(p, (size_t)(end - p), "=?", 2)) != NULL;) {
		struct encoded_word word;
		if (!word_read(p, end, &word, &no_end)) {
			p += 2;
			continue;
		}
		if (!behind_word || !only_white_space(plain, p)) {
			decoder_flush(&d);
			(void)buf_add(out, plain, (size_t)(p - plain));
		}
		decoder_add_word(&d, &word);
		behind_word = true;
		p = plain = word.end;
	}
	decoder_flush(&d);
	(void)buf_add(out, plain, (size_t)(end - plain));
	buf_finish(&d.bytes);
}

/* --- cleaning --- */

static bool is_gap(gunichar c)
{
	return c <= ' ' || (c >= 0x7f && c <= 0xa0) || c == 0x2028 || c == 0x2029;
}

static bool is_plain(char c)
{
	return c > ' ' && c < 0x7f;
}

/* how many characters of ASCII stand at p that are no gap, or a single space between two such: most of what is read */
static size_t plain_run(const char *p, const char *end)
{
	size_t n = 0;
	while (p + n < end && (is_plain(p[n]) || (n && p[n] == ' ' && p + n + 1 < end && is_plain(p[n + 1]))))
		n++;
	return n;
}

char *text_clean(const char *s, size_t len, size_t max)
{
	size_t limit = len < max ? len : max, n = 0;
	char *text = mf_alloc(limit + 1);
	bool gap = false;
	for (const char *p = s, *end = s + len; p < end;) {
		size_t run = plain_run(p, end), size = run ? run : (size_t)(text_next(p) - p);
		if (!run && is_gap(g_utf8_get_char(p))) {
			gap = n > 0;
		} else {
			if (n + (run ? 1 : size) + gap > limit)
				break;
			if (gap)
				text[n++] = ' ';
			size_t fitting = size < limit - n ? size : limit - n;
			memcpy(text + n, p, fitting);
			n += fitting;
			gap = false;
			if (fitting < size)
				break;
		}
		p += size;
	}
	if (n > 0 && text[n - 1] == ' ') /* cut behind it */
		n--;
	text[n] = '\0';
	return text;
}

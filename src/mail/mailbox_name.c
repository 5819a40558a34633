#include <glib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/digest.h"
#include "mail/name.h"
#include "mail/text.h"

#define SUFFIX "~mailbox"
#define MARK "%7E"
#define EMPTY MARK "empty"
#define HASH_LEN 16

bool mailbox_name_is_reserved(const char *name)
{
	static const char *const reserved[] = { "outbox", "search", ".mailfs", ".nomedia" };
	for (size_t i = 0; i < G_N_ELEMENTS(reserved); i++)
		if (strcmp(name, reserved[i]) == 0)
			return true;
	return false;
}

/* A reserved name with "~mailbox" behind it `least` times or more */
static bool is_suffixed(const char *name, size_t least)
{
	size_t len = strlen(name), suffix = strlen(SUFFIX), count = 0;
	while (len > suffix && memcmp(name + len - suffix, SUFFIX, suffix) == 0) {
		len -= suffix;
		count++;
	}
	char base[16];
	if (count < least || len >= sizeof base)
		return false;
	memcpy(base, name, len);
	base[len] = '\0';
	return mailbox_name_is_reserved(base);
}

/* --- escapes --- */

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F');
}

static bool is_escape(const char *p, const char *end)
{
	return end - p >= 3 && p[0] == '%' && is_hex(p[1]) && is_hex(p[2]);
}

static void add_escape(struct buf *out, char c)
{
	(void)buf_addf(out, "%%%02X", (unsigned)(unsigned char)c);
}

/* Characters that may be in a name as they are */
static bool is_showable(gunichar c)
{
	if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || (c >= 0x202a && c <= 0x202e) ||
	    (c >= 0x2066 && c <= 0x2069))
		return false;
	return (c & 0xfffe) != 0xfffe && !(c >= 0xfdd0 && c <= 0xfdef);
}

/* One byte of printable ASCII at p */
static void add_ascii(struct buf *out, const char *p, const char *end)
{
	if (*p == '/' || is_escape(p, end))
		add_escape(out, *p);
	else
		(void)buf_add(out, p, 1);
}

/* UTF-8: characters that can be shown are, every other byte is escaped */
static void add_utf8(struct buf *out, const char *p, const char *end)
{
	while (p < end) {
		gunichar c = g_utf8_get_char_validated(p, end - p);
		bool valid = c < (gunichar)-2 && c != 0;
		size_t size = valid ? (size_t)g_unichar_to_utf8(c, NULL) : 1;
		if (valid && c < 0x7f && c >= 0x20)
			add_ascii(out, p, end);
		else if (valid && is_showable(c))
			(void)buf_add(out, p, size);
		else
			for (size_t i = 0; i < size; i++)
				add_escape(out, p[i]);
		p += size;
	}
}

/* A level that is not modified UTF-7, or should not be shown decoded */
static void add_raw(struct buf *out, const char *p, const char *end)
{
	for (; p < end; p++) {
		if (*p == '&' || *p < 0x20 || *p >= 0x7f)
			add_escape(out, *p);
		else
			add_ascii(out, p, end);
	}
}

static bool all_showable(const char *utf8)
{
	for (; *utf8; utf8 = text_next(utf8))
		if (!is_showable(g_utf8_get_char(utf8)))
			return false;
	return true;
}

/* --- level to name --- */

static void add_level(struct buf *out, const char *level, size_t len, bool utf8)
{
	MF_CLEANUP(mf_free) char *decoded = NULL;
	if (len == 0)
		(void)buf_adds(out, EMPTY);
	else if (len <= 2 && memcmp(level, "..", len) == 0)
		(void)buf_adds(out, len == 1 ? "%2E" : "%2E%2E");
	else if (utf8)
		add_utf8(out, level, level + len);
	else if (mutf7_decode(level, len, &decoded) == MF_OK && all_showable(decoded))
		add_utf8(out, decoded, decoded + strlen(decoded));
	else
		add_raw(out, level, level + len);
}

static void add_hash(char *to, const char *level, size_t len)
{
	struct digest digest;
	digest_begin(&digest);
	digest_add(&digest, level, len);
	digest_end_base32(&digest, to, HASH_LEN);
}

/* The longest part of a name that leaves room for its hash: not within a character or an escape */
static size_t cut(const char *name, size_t len)
{
	size_t n = text_cut(name, len, MAILBOX_NAME_MAX - strlen(MARK) - HASH_LEN);
	for (size_t back = 1; back <= 2 && back <= n; back++)
		if (is_escape(name + n - back, name + len))
			return n - back;
	return n;
}

void mailbox_level_to_name(const char *level, size_t len, bool utf8, bool at_root, char ret[static MAILBOX_NAME_MAX + 1])
{
	struct buf name;
	buf_init(&name, 3 * len + sizeof EMPTY + sizeof SUFFIX);
	add_level(&name, level, len, utf8);
	if (is_suffixed(name.data, at_root ? 0 : 1))
		(void)buf_adds(&name, SUFFIX);
	size_t n = name.len;
	if (n > MAILBOX_NAME_MAX)
		n = cut(name.data, name.len);
	memcpy(ret, name.data, n);
	ret[n] = '\0';
	if (n < name.len) {
		memcpy(ret + n, MARK, strlen(MARK));
		add_hash(ret + n + strlen(MARK), level, len);
	}
	buf_finish(&name);
}

/* --- name to level --- */

static char unescape(const char *p)
{
	return (char)(g_ascii_xdigit_value(p[1]) * 16 + g_ascii_xdigit_value(p[2]));
}

/* A name's bytes without escapes. Without utf8, one that has %26, %80 or the like is of a level that was not decoded:
 * *ret_raw. NULs end it, and fail the comparison below. */
static void add_unescaped(struct buf *out, const char *p, const char *end, bool *ret_raw)
{
	*ret_raw = false;
	while (p < end) {
		if (is_escape(p, end)) {
			char c = unescape(p);
			if (c == '&' || c < 0x20 || c >= 0x7f)
				*ret_raw = true;
			(void)buf_add(out, &c, 1);
			p += 3;
		} else {
			(void)buf_add(out, p++, 1);
		}
	}
}

static enum mf_err read_level(const char *name, size_t len, bool utf8, char **ret)
{
	struct buf text;
	buf_init(&text, len);
	bool raw = false;
	if (strcmp(name, EMPTY) != 0)
		add_unescaped(&text, name, name + len, &raw);
	enum mf_err e = MF_OK;
	if (raw || utf8)
		*ret = buf_detach(&text);
	else
		e = mutf7_encode(text.data, ret);
	buf_finish(&text);
	return e;
}

/* Whether this level is shown by this name: what refuses every other spelling */
static bool is_name_of(const char *name, const char *level, bool utf8, bool at_root)
{
	char shown[MAILBOX_NAME_MAX + 1];
	mailbox_level_to_name(level, strlen(level), utf8, at_root, shown);
	return strcmp(shown, name) == 0;
}

enum mf_err mailbox_name_to_level(const char *name, char delimiter, bool utf8, char **ret)
{
	size_t len = strlen(name);
	bool suffixed = is_suffixed(name, 1);
	if (len == 0 || len > MAILBOX_NAME_MAX)
		return MF_INVALID;
	MF_CLEANUP(mf_free) char *level = NULL;
	enum mf_err e = read_level(name, suffixed ? len - strlen(SUFFIX) : len, utf8, &level);
	if (e)
		return e;
	if (!is_name_of(name, level, utf8, suffixed) || (delimiter && strchr(level, delimiter)))
		return MF_INVALID;
	*ret = level;
	level = NULL;
	return MF_OK;
}

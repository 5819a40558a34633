#include <stdint.h>
#include <string.h>

#include <glib.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/name.h"
#include "mail/text.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

static bool is_direct(gunichar c)
{
	return c >= 0x20 && c <= 0x7e;
}

/* --- decoding --- */

static void add_char(struct buf *out, gunichar c)
{
	char utf8[6];
	(void)buf_add(out, utf8, (size_t)g_unichar_to_utf8(c, utf8));
}

/* UTF-16 units to characters: *high is a high surrogate that waits for its other half, or 0 */
static bool add_unit(struct buf *out, uint32_t unit, uint32_t *high)
{
	bool is_low = unit >= 0xdc00 && unit <= 0xdfff;
	if (is_low != (*high != 0))
		return false;
	if (unit >= 0xd800 && unit <= 0xdbff) {
		*high = unit;
		return true;
	}
	gunichar c = is_low ? 0x10000 + ((*high - 0xd800) << 10) + (unit - 0xdc00) : unit;
	*high = 0;
	if (is_direct(c) || c == 0)
		return false;
	add_char(out, c);
	return true;
}

/* The base64 run at p, behind its '&', up to and with its '-'; NULL: not well-formed */
static const char *decode_run(struct buf *out, const char *p, const char *end)
{
	uint32_t bits = 0, high = 0;
	unsigned count = 0;
	for (; p < end && *p != '-'; p++) {
		const char *digit = *p ? strchr(alphabet, *p) : NULL;
		if (!digit)
			return NULL;
		bits = bits << 6 | (uint32_t)(digit - alphabet);
		count += 6;
		if (count >= 16) {
			count -= 16;
			if (!add_unit(out, bits >> count & 0xffff, &high))
				return NULL;
		}
	}
	bool left_over = count >= 6 || (bits & ((1U << count) - 1)) != 0;
	return p == end || high || left_over ? NULL : p + 1;
}

enum mf_err mutf7_decode(const char *s, size_t len, char **ret)
{
	struct buf out;
	buf_init(&out, 2 * len + 4); /* eight characters of base64 are six bytes: three units, nine bytes of UTF-8 */
	const char *p = s, *end = s + len;
	bool behind_run = false;
	while (p && p < end) {
		if (!is_direct((unsigned char)*p)) {
			p = NULL;
		} else if (*p != '&') {
			(void)buf_add(&out, p++, 1);
			behind_run = false;
		} else if (p + 1 < end && p[1] == '-') {
			(void)buf_add(&out, p, 1);
			p += 2;
			behind_run = false;
		} else {
			p = behind_run ? NULL : decode_run(&out, p + 1, end);
			behind_run = true;
		}
	}
	if (p)
		*ret = buf_detach(&out);
	buf_finish(&out);
	return p ? MF_OK : MF_INVALID;
}

/* --- encoding --- */

struct encoder {
	struct buf out;
	uint32_t bits;
	unsigned count;   /* of bits that wait */
	bool in_run;
};

static void put_unit(struct encoder *e, uint32_t unit)
{
	e->bits = e->bits << 16 | unit;
	e->count += 16;
	while (e->count >= 6) {
		e->count -= 6;
		(void)buf_add(&e->out, alphabet + (e->bits >> e->count & 63), 1);
	}
	e->bits &= (1U << e->count) - 1;
}

static void put_encoded(struct encoder *e, gunichar c)
{
	if (!e->in_run)
		(void)buf_adds(&e->out, "&");
	e->in_run = true;
	if (c >= 0x10000) {
		put_unit(e, 0xd800 + ((c - 0x10000) >> 10));
		c = 0xdc00 + ((c - 0x10000) & 0x3ff);
	}
	put_unit(e, c);
}

static void end_run(struct encoder *e)
{
	if (!e->in_run)
		return;
	if (e->count > 0)
		(void)buf_add(&e->out, alphabet + (e->bits << (6 - e->count) & 63), 1);
	(void)buf_adds(&e->out, "-");
	e->bits = e->count = 0;
	e->in_run = false;
}

enum mf_err mutf7_encode(const char *utf8, char **ret)
{
	if (!g_utf8_validate(utf8, -1, NULL))
		return MF_INVALID;
	struct encoder e = { 0 };
	buf_init(&e.out, 5 * strlen(utf8) + 8); /* a control character alone: "&AAo-" */
	for (const char *p = utf8; *p; p = text_next(p)) {
		gunichar c = g_utf8_get_char(p);
		if (!is_direct(c)) {
			put_encoded(&e, c);
			continue;
		}
		end_run(&e);
		(void)buf_adds(&e.out, c == '&' ? "&-" : (char[]) { (char)c, 0 });
	}
	end_run(&e);
	*ret = buf_detach(&e.out);
	buf_finish(&e.out);
	return MF_OK;
}

#include "config/value.h"

#include <string.h>
#include <strings.h>

bool value_read_bool(const char *s, bool *ret)
{
	bool yes = strcmp(s, "yes") == 0;
	if (!yes && strcmp(s, "no") != 0)
		return false;
	*ret = yes;
	return true;
}

/* The digits that s begins with; *ret_end is behind them. False: none, or more than 64 bits */
static bool read_digits(const char *s, const char **ret_end, uint64_t *ret)
{
	uint64_t value = 0;
	const char *p = s;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	*ret_end = p;
	*ret = value;
	return p > s;
}

bool value_read_number(const char *s, uint64_t *ret)
{
	const char *end;
	uint64_t value;
	if (!read_digits(s, &end, &value) || *end)
		return false;
	*ret = value;
	return true;
}

bool value_read_size(const char *s, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *end;
	uint64_t value;
	if (!read_digits(s, &end, &value))
		return false;
	if (*end) {
		const char *unit = strchr(units, *end);
		if (!unit || end[1] || __builtin_mul_overflow(value, UINT64_C(1) << (10 * (unit - units + 1)), &value))
			return false;
	}
	*ret = value;
	return true;
}

bool value_read_duration_ms(const char *s, int64_t *ret)
{
	static const struct { const char *name; int64_t ms; } units[] = {
		{ "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { "d", 86400000 },
	};
	const char *end;
	uint64_t value;
	if (!read_digits(s, &end, &value))
		return false;
	int64_t ms = value == 0 && !*end ? 0 : -1;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++)
		if (strcmp(end, units[i].name) == 0 && __builtin_mul_overflow(value, units[i].ms, &ms))
			return false;
	if (ms < 0)
		return false;
	*ret = ms;
	return true;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool value_read_fingerprint(const char *s, unsigned char ret[static 32])
{
	unsigned char bytes[32];
	if (strncasecmp(s, "SHA256:", 7) != 0)
		return false;
	s += 7;
	for (size_t i = 0; i < 32; i++) {
		if (i > 0 && *s == ':')
			s++;
		int high = hex_value(*s), low = high < 0 ? -1 : hex_value(s[1]);
		if (low < 0)
			return false;
		bytes[i] = (unsigned char)(high * 16 + low);
		s += 2;
	}
	if (*s)
		return false;
	memcpy(ret, bytes, 32);
	return true;
}

/* Levenshtein's distance, of at most the first 31 bytes of each */
static unsigned edit_distance(const char *a, const char *b)
{
	size_t a_len = strnlen(a, 31), b_len = strnlen(b, 31);
	unsigned row[32];
	for (size_t k = 0; k <= b_len; k++)
		row[k] = (unsigned)k;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t k = 1; k <= b_len; k++) {
			unsigned best = diagonal + (a[i - 1] != b[k - 1]);
			diagonal = row[k];
			if (row[k] + 1 < best)
				best = row[k] + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			row[k] = best;
		}
	}
	return row[b_len];
}

const char *value_nearest(const char *s, const char *const *names, size_t count)
{
	const char *nearest = "";
	unsigned least = 100;
	for (size_t i = 0; i < count; i++) {
		unsigned distance = edit_distance(s, names[i]);
		if (distance < least) {
			least = distance;
			nearest = names[i];
		}
	}
	return nearest;
}

#include "control/json.h"

#include <string.h>
#include <time.h>

#include "base/mem.h"

#define LINE_MAX_BYTES (64U << 20)

/* Decodes one character; returns its length, 0 where the bytes are not UTF-8 (RFC 3629). */
static size_t decode(const unsigned char *s, unsigned *code)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	if (s[0] < 0x80) {
		*code = s[0];
		return 1;
	}
	size_t n = s[0] >= 0xf5 ? 0 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc2 ? 2 : 0;
	*code = n ? s[0] & (0x7fU >> n) : 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3fU);
	}
	return n && *code >= least[n] && *code <= 0x10ffff && (*code < 0xd800 || *code > 0xdfff) ? n : 0;
}

/* invisible, or moves what stands beside it; all in the basic plane */
static bool steers(unsigned code)
{
	return (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

/* one character of a string, from s on; returns how many bytes it was */
static size_t add_beyond_ascii(struct buf *b, const unsigned char *s, enum mf_err *e)
{
	unsigned code = 0;
	size_t n = decode(s, &code);
	if (!n)
		*e = buf_adds(b, "\\ufffd");
	else if (steers(code))
		*e = buf_addf(b, "\\u%04x", code);
	else
		*e = buf_add(b, s, n);
	return n ? n : 1;
}

char *json_safe(const char *line)
{
	struct buf b;
	buf_init(&b, LINE_MAX_BYTES);
	enum mf_err e = MF_OK;
	for (const unsigned char *p = (const unsigned char *)line; *p && !e;) {
		size_t plain = 0;
		while (p[plain] >= 0x20 && p[plain] < 0x7f)
			plain++;
		e = buf_add(&b, p, plain);
		p += plain;
		if (e || !*p)
			break;
		if (*p < 0x20) {
			e = buf_adds(&b, " ");  /* no string of JSON holds one unescaped: only white space is left */
			p++;
		} else {
			p += add_beyond_ascii(&b, p, &e);
		}
	}
	if (e)
		buf_reset(&b);
	return buf_detach(&b);
}

char *json_line(struct json_object *object)
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	char *line = json_safe(text ? text : "{}");
	json_object_put(object);
	return line;
}

/* how many bytes stand for themselves */
static size_t plain_run(const unsigned char *p)
{
	size_t len = 0;
	while (p[len] >= 0x20 && p[len] < 0x7f && p[len] != '"' && p[len] != '\\')
		len++;
	return len;
}

enum mf_err json_add_quoted(struct buf *b, const char *text)
{
	size_t before = b->len;
	enum mf_err e = buf_adds(b, "\"");
	for (const unsigned char *p = (const unsigned char *)text; *p && !e;) {
		if (*p == '"' || *p == '\\') {
			e = buf_addf(b, "\\%c", *p++);
		} else if (*p < 0x20 || *p == 0x7f) {
			e = buf_addf(b, "\\u%04x", *p++);
		} else if (*p < 0x80) {
			size_t run = plain_run(p);
			e = buf_add(b, p, run);
			p += run;
		} else {
			p += add_beyond_ascii(b, p, &e);
		}
	}
	if (!e)
		e = buf_adds(b, "\"");
	if (e && b->capacity) {
		b->len = before;
		b->data[before] = 0;
	}
	return e;
}

void json_put_string(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, value ? json_object_new_string(value) : NULL);
}

void json_put_number(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

void json_put_bool(struct json_object *object, const char *key, int value)
{
	json_object_object_add(object, key, json_object_new_boolean(value));
}

void json_put_time(struct json_object *object, const char *key, int64_t wall_s)
{
	char text[40];
	struct tm parts;
	time_t t = (time_t)wall_s;
	if (wall_s && gmtime_r(&t, &parts) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts))
		json_put_string(object, key, text);
	else
		json_put_string(object, key, NULL);
}

struct json_object *json_parse_line(const char *line)
{
	struct json_tokener *tokener = json_tokener_new_ex(16);
	if (!tokener)
		return NULL;
	size_t len = strlen(line);
	struct json_object *object = NULL;
	if (len < LINE_MAX_BYTES)
		object = json_tokener_parse_ex(tokener, line, (int)len + 1);
	json_tokener_free(tokener);
	if (object && !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		return NULL;
	}
	return object;
}

static struct json_object *member(struct json_object *object, const char *key, json_type type)
{
	struct json_object *value = NULL;
	if (!json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, type))
		return NULL;
	return value;
}

const char *json_get_string(struct json_object *object, const char *key)
{
	struct json_object *value = member(object, key, json_type_string);
	return value ? json_object_get_string(value) : NULL;
}

int64_t json_get_number(struct json_object *object, const char *key)
{
	struct json_object *value = member(object, key, json_type_int);
	return value ? json_object_get_int64(value) : 0;
}

int json_get_bool(struct json_object *object, const char *key)
{
	struct json_object *value = member(object, key, json_type_boolean);
	return value && json_object_get_boolean(value);
}

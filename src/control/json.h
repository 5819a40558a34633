/* json.h: JSON that is safe to print. Everything beyond ASCII that could steer a terminal (C1 controls, bidirectional
 * overrides) is written as an escape, and what is not UTF-8 becomes U+FFFD, so a line of it can go anywhere. */
#ifndef MF_CONTROL_JSON_H
#define MF_CONTROL_JSON_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* The object on one line without a newline; drops the reference. The caller frees. */
char *json_line(struct json_object *object);
/* The same for a line that somebody else made. */
char *json_safe(const char *line);
/* "text" with quotes and escapes, appended */
enum mf_err json_add_quoted(struct buf *b, const char *text);

void json_put_string(struct json_object *object, const char *key, const char *value);  /* NULL value: null */
void json_put_number(struct json_object *object, const char *key, uint64_t value);
void json_put_bool(struct json_object *object, const char *key, int value);
/* 2026-11-20T12:00:00Z; 0 is null */
void json_put_time(struct json_object *object, const char *key, int64_t wall_s);

/* One line as an object; NULL: it is not one, or nests too deeply. Drop it with json_object_put. */
struct json_object *json_parse_line(const char *line);
/* NULL or 0 where the key is missing or of another type; a string is valid as long as the object */
const char *json_get_string(struct json_object *object, const char *key);
int64_t json_get_number(struct json_object *object, const char *key);
int json_get_bool(struct json_object *object, const char *key);

#endif

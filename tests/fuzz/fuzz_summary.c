/* Any bytes as a header block: a summary within its limits, the same each time, and a good name of it */
#include <glib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "mail/date.h"
#include "mail/name.h"
#include "mail/summary.h"
#include "mail/text.h"

static void check_value(const char *value)
{
	HOLDS(value);
	HOLDS(strlen(value) <= MAIL_SUMMARY_VALUE_MAX);
	HOLDS(g_utf8_validate(value, -1, NULL));
	HOLDS(*value != ' ');
	for (const char *p = value; *p; p = text_next(p))
		HOLDS(g_unichar_type(g_utf8_get_char(p)) != G_UNICODE_CONTROL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mail_summary a, b;
	char name[MAIL_NAME_MAX + 1], again[MAIL_NAME_MAX + 1];
	mail_summary_parse(data, size, size, &a);
	mail_summary_parse(data, size, size, &b);
	const char *values[] = { a.from, a.from_name, a.to, a.subject, a.message_id };
	const char *same[] = { b.from, b.from_name, b.to, b.subject, b.message_id };
	for (size_t i = 0; i < 5; i++) {
		check_value(values[i]);
		HOLDS(strcmp(values[i], same[i]) == 0);
	}
	HOLDS(!a.has_date || (a.date >= 0 && a.date < MAIL_DATE_END));
	HOLDS(strlen(a.key) == 8 && strcmp(a.key, b.key) == 0);
	mail_message_name(&a, 0, 0, name);
	mail_message_name(&b, 0, 0, again);
	HOLDS(strlen(name) <= MAIL_NAME_MAX && strcmp(name, again) == 0);
	HOLDS(g_utf8_validate(name, -1, NULL) && !strchr(name, '/'));
	mail_summary_finish(&a);
	mail_summary_finish(&b);
	(void)mail_looks_like_message(data, size);
	return 0;
}

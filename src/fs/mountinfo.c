/* /proc/self/mountinfo (proc(5)): what is mounted where, without touching any mount. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/internal.h"

/* \040 and its like, in place */
static void unescape(char *s)
{
	char *to = s;
	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELD...] - TYPE SOURCE SUPER" */
bool mountinfo_parse(char *line, struct mountinfo_entry *ret)
{
	char *rest = line, *fields[5] = { 0 };
	line[strcspn(line, "\n")] = '\0';
	for (size_t i = 0; i < 5; i++)
		fields[i] = strsep(&rest, " ");
	char *behind = rest ? strstr(rest, " - ") : NULL;
	if (!behind)
		return false;
	behind += 3;
	char *end, *type = strsep(&behind, " "), *source = strsep(&behind, " ");
	uint64_t id = strtoull(fields[0], &end, 10);
	if (*end != '\0' || end == fields[0] || !source)
		return false;
	unescape(fields[4]);
	unescape(source);
	*ret = (struct mountinfo_entry){ .id = id, .point = fields[4], .type = type, .source = source };
	return true;
}

bool mountinfo_read(mountinfo_visitor *visit, void *context)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	if (!file)
		return false;
	MF_CLEANUP(mf_free) char *line = NULL;
	size_t capacity = 0;
	struct mountinfo_entry e;
	while (getline(&line, &capacity, file) >= 0)
		if (mountinfo_parse(line, &e) && !visit(context, &e))
			break;
	bool good = !ferror(file);
	fclose(file);
	return good;
}

struct search { const char *point; uint64_t id; };

static bool match_point(void *context, const struct mountinfo_entry *e)
{
	struct search *s = context;
	if (strcmp(e->point, s->point) == 0)
		s->id = e->id;
	return true;
}

uint64_t mountinfo_topmost(const char *point)
{
	struct search s = { .point = point };
	return mountinfo_read(match_point, &s) ? s.id : 0;
}

static bool match_id(void *context, const struct mountinfo_entry *e)
{
	struct search *s = context;
	if (e->id != s->id)
		return true;
	s->id = 0;
	return false;
}

bool mountinfo_has(uint64_t id)
{
	struct search s = { .id = id };
	return !mountinfo_read(match_id, &s) || s.id == 0;
}

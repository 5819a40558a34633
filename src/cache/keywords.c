#include "cache/keywords.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

/* the next name of *at; its length, 0 at the end */
static size_t next_name(const char **at, const char **ret)
{
	*at += strspn(*at, " ");
	*ret = *at;
	size_t len = strcspn(*at, " ");
	*at += len;
	return len;
}

bool keywords_have(const char *set, const char *name, size_t len)
{
	const char *at = set ? set : "", *own;
	size_t own_len;
	while ((own_len = next_name(&at, &own)))
		if (own_len == len && strncasecmp(own, name, len) == 0)
			return true;
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcasecmp(*(char *const *)a, *(char *const *)b);
}

struct names { char **items; size_t count; };

static void add_names(struct names *names, const char *from, const char *without, bool wanted)
{
	const char *at = from ? from : "", *name;
	size_t len;
	while ((len = next_name(&at, &name))) {
		if (keywords_have(without, name, len) != wanted)
			continue;
		bool known = false;
		for (size_t i = 0; i < names->count && !known; i++)
			known = strlen(names->items[i]) == len && strncasecmp(names->items[i], name, len) == 0;
		if (known)
			continue;
		names->items = mf_realloc_array(names->items, names->count + 1, sizeof *names->items);
		names->items[names->count++] = mf_strndup(name, len);
	}
}

static char *join(struct names *names)
{
	size_t len = 1;
	if (names->count)
		qsort(names->items, names->count, sizeof *names->items, by_name);
	for (size_t i = 0; i < names->count; i++)
		len += strlen(names->items[i]) + 1;
	char *text = mf_alloc(len), *end = text;
	for (size_t i = 0; i < names->count; i++) {
		size_t one = strlen(names->items[i]);
		if (i)
			*end++ = ' ';
		memcpy(end, names->items[i], one);
		end += one;
		free(names->items[i]);
	}
	free(names->items);
	return text;
}

char *keywords_change(const char *set, const char *add, const char *remove)
{
	struct names names = { 0 };
	add_names(&names, set, remove, false);
	add_names(&names, add, NULL, false);
	return join(&names);
}

char *keywords_of(const char *a, const char *b, bool has)
{
	struct names names = { 0 };
	add_names(&names, a, b, has);
	return join(&names);
}

#include "smtp/dsn.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const names[] = { "NEVER", "SUCCESS", "FAILURE", "DELAY", "FULL", "HEADERS" };
#define NAMES (sizeof names / sizeof *names)
#define BETWEEN ", \t"

static bool read_word(const char *word, size_t len, unsigned *to)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (strlen(names[i]) == len && !strncasecmp(word, names[i], len)) {
			*to |= 1U << i;
			return true;
		}
	return false;
}

bool dsn_read(const char *words, unsigned *ret)
{
	unsigned bits = 0;
	for (words += strspn(words, BETWEEN); *words; words += strspn(words, BETWEEN)) {
		size_t len = strcspn(words, BETWEEN);
		if (!read_word(words, len, &bits))
			return false;
		words += len;
	}
	*ret = bits & DSN_NEVER ? DSN_NEVER : bits;
	return (bits & DSN_RETURN) != DSN_RETURN;
}

void dsn_words(unsigned notify, char ret[static DSN_WORDS_MAX])
{
	size_t len = 0;
	*ret = 0;
	for (unsigned i = 0; i < NAMES; i++)
		if (notify & 1U << i)
			len += (size_t)snprintf(ret + len, DSN_WORDS_MAX - len, "%s%s", len ? "," : "", names[i]);
}

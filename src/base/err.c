#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

struct err_row {
	const char *name, *words;
	enum mf_scope scope;
};

static const struct err_row rows[] = {
#define X(name, scope, words) [name] = { #name, words, MF_SCOPE_##scope },
	MF_ERRORS(X)
#undef X
};

enum mf_scope mf_err_scope(enum mf_err e)
{
	return rows[e].scope;
}

const char *mf_err_words(enum mf_err e)
{
	return rows[e].words;
}

const char *mf_err_name(enum mf_err e)
{
	return rows[e].name;
}

enum mf_err mf_err_from_errno(int number)
{
	switch (number) {
	case 0:
		return MF_OK;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return MF_NO_SPACE;
	case ENOENT:
		return MF_NOT_FOUND;
	case EACCES:
	case EPERM:
		return MF_DENIED;
	case EEXIST:
		return MF_EXISTS;
	default:
		return MF_IO;
	}
}

/* the length of text without a character of UTF-8 at its end that has been cut */
static size_t whole_characters(const char *text, size_t len)
{
	size_t first = len;
	while (first && len - first < 3 && ((unsigned char)text[first - 1] & 0xc0) == 0x80)
		first--;
	unsigned char lead = first ? (unsigned char)text[first - 1] : 0;
	size_t wanted = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 0;
	return wanted > len - first + 1 ? first - 1 : len;
}

enum mf_err mf_fail(struct mf_reason *why, enum mf_err e, const char *format, ...)
{
	if (why) {
		va_list arguments;
		va_start(arguments, format);
		int len = vsnprintf(why->text, sizeof why->text, format, arguments);
		va_end(arguments);
		if (len >= (int)sizeof why->text)
			why->text[whole_characters(why->text, sizeof why->text - 1)] = 0;
	}
	return e;
}

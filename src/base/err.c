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

enum mf_err mf_fail(struct mf_reason *why, enum mf_err e, const char *format, ...)
{
	if (why) {
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(why->text, sizeof why->text, format, arguments);
		va_end(arguments);
	}
	return e;
}

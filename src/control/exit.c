#include "control/exit.h"

#include <stddef.h>

enum exit_code exit_code_of(enum mf_err e)
{
	switch (e) {
	case MF_OK:
		return EXIT_OK;
	case MF_INVALID:
		return EXIT_USAGE;
	case MF_NOT_FOUND:
	case MF_STALE:
		return EXIT_NOT_FOUND;
	case MF_AUTH:
		return EXIT_AUTH;
	case MF_OFFLINE:
		return EXIT_OFFLINE;
	case MF_TIMEOUT:
		return EXIT_TIMEOUT;
	case MF_TLS:
		return EXIT_TLS;
	case MF_BUSY:
		return EXIT_BUSY;
	case MF_CANCELLED:
		return EXIT_CANCELLED;
	case MF_UNSUPPORTED:
	case MF_DENIED:
	case MF_QUOTA:
	case MF_UIDVALIDITY:
	case MF_PROTOCOL:
		return EXIT_PROTOCOL;
	case MF_EXISTS:
	case MF_TOO_BIG:
	case MF_NEWER:
	case MF_NO_SPACE:
	case MF_NO_FILES:
	case MF_IO:
	case MF_CORRUPT:
		return EXIT_LOCAL;
	}
	return EXIT_LOCAL;
}

enum exit_code exit_code_of_local(enum mf_err e)
{
	return exit_code_of(e == MF_DENIED ? MF_IO : e);
}

const char *exit_code_words(int code)
{
	static const struct { int code; const char *words; } rows[] = {
#define X(name, number, words) { number, words },
		MF_EXITS(X)
#undef X
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (rows[i].code == code)
			return rows[i].words;
	return NULL;
}

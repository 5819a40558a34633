#include "base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define THREAD_KEEPS 1024

static void *checked(void *p)
{
	if (!p) {
		static const char text[] = "mailfs: out of memory\n";
		(void)!write(STDERR_FILENO, text, sizeof text - 1);
		abort();
	}
	return p;
}

void *mf_alloc(size_t size)
{
	/* glibc's calloc() has no use for the small blocks that each thread keeps, and takes an arena's lock instead */
	if (size <= THREAD_KEEPS)
		return memset(checked(malloc(size ? size : 1)), 0, size);
	return checked(calloc(1, size));
}

void *mf_alloc_array(size_t count, size_t size)
{
	return checked(calloc(count ? count : 1, size ? size : 1));
}

void *mf_realloc_array(void *old, size_t count, size_t size)
{
	return checked(reallocarray(old, count ? count : 1, size ? size : 1));
}

char *mf_strdup(const char *s)
{
	return checked(strdup(s));
}

char *mf_strndup(const char *s, size_t n)
{
	return checked(strndup(s, n));
}

char *mf_format(const char *format, ...)
{
	char *text = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	return checked(text);
}

void mf_close(int *fd)
{
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

/* keywords.h: sets of IMAP keywords as text: names between single spaces, sorted, compared without case (RFC 9051 2.3.2).
 * Private to cache. */
#ifndef MF_CACHE_KEYWORDS_H
#define MF_CACHE_KEYWORDS_H

#include <stdbool.h>
#include <stddef.h>

bool keywords_have(const char *set, const char *name, size_t len);
/* set with those of add and without those of remove; NULL is none. The caller frees. */
char *keywords_change(const char *set, const char *add, const char *remove);
/* those of a that b has (or, with !has, has not); the caller frees */
char *keywords_of(const char *a, const char *b, bool has);

#endif

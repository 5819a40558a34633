/* secret.h: memory for passwords and tokens. Wiped when released, left out of core files (MADV_DONTDUMP) and, where the
 * limit allows it, never swapped (mlock). Each piece has pages of its own: for few and small things. Thread-safe. */
#ifndef MF_BASE_SECRET_H
#define MF_BASE_SECRET_H

#include <stddef.h>

void *secret_alloc(size_t size) __attribute__((returns_nonnull)); /* zeroed */
char *secret_dup(const char *s) __attribute__((returns_nonnull));
char *secret_dup_n(const char *s, size_t len) __attribute__((returns_nonnull)); /* terminated */
void secret_free(void *p); /* what one of the above gave; NULL is fine */
static inline void secret_cleanup(void *pointer_to_pointer) { secret_free(*(void **)pointer_to_pointer); } /* for MF_CLEANUP */

#endif

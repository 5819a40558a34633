/* mem.h: allocation that does not fail, and cleanup attributes.
 *
 * Sizes given to these functions are bounded by the caller: lengths that come from a server go through buf.h, which
 * has a maximum. When the system has no memory for a small bounded object the process aborts; every durable state of
 * mailfs is right after an abort, and half-handled allocation failures are where others lose mail. */
#ifndef MF_BASE_MEM_H
#define MF_BASE_MEM_H

#include <stddef.h>
#include <stdlib.h>

void *mf_alloc(size_t size) __attribute__((malloc, returns_nonnull));           /* zeroed */
void *mf_alloc_array(size_t count, size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed, checked */
void *mf_realloc_array(void *old, size_t count, size_t size) __attribute__((returns_nonnull));
char *mf_strdup(const char *s) __attribute__((malloc, returns_nonnull));
char *mf_strndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *mf_format(const char *format, ...) __attribute__((format(printf, 1, 2), malloc, returns_nonnull));

#define MF_NEW(type) ((type *)mf_alloc(sizeof(type)))

/* release a local when it goes out of scope: MF_CLEANUP(mf_free) char *line = NULL; */
#define MF_CLEANUP(fn) __attribute__((cleanup(fn)))
static inline void mf_free(void *pointer_to_pointer) { free(*(void **)pointer_to_pointer); }
void mf_close(int *fd); /* closes when >= 0, keeps errno, sets -1 */

#endif

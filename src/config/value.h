/* value.h: how the config file writes sizes, times and their like. Pure. All of them: false and *ret untouched where s is
 * nothing of the kind. */
#ifndef MF_CONFIG_VALUE_H
#define MF_CONFIG_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool value_read_bool(const char *s, bool *ret);                 /* yes, no */
bool value_read_number(const char *s, uint64_t *ret);           /* decimal digits only */
bool value_read_size(const char *s, uint64_t *ret);             /* bytes: 10K, 512M, 2G, 1T (powers of 1024), or plain bytes */
bool value_read_duration_ms(const char *s, int64_t *ret);       /* 500ms, 30s, 5m, 1h, 2d; 0 needs no unit */
bool value_read_fingerprint(const char *s, unsigned char ret[static 32]); /* SHA256:AB:CD:... in hexadecimal; colons may be left out */

/* The one of `count` names that is fewest edits away from s */
const char *value_nearest(const char *s, const char *const *names, size_t count);

#endif

/* log.h: what the person running mailfs reads (log), and what its developer reads (trace). Thread-safe.
 *
 * Text from a server or a message is passed through mf_printable() by the writer of the line: no control characters
 * and no escape sequence ever reaches a terminal. Secrets are never passed in; the IMAP, POP3 and SMTP tracers strike
 * them out before they get here. */
#ifndef MF_BASE_LOG_H
#define MF_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG }; /* syslog(3) reaches the journal too */

/* From here on the log has a descriptor of its own for standard error, which may be put elsewhere for a while (fs/mount.c). */
void log_open(enum log_target target, enum log_level least);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* The last lines (at most some 64 KiB), newest last, for .mailfs/log; the caller frees. */
char *log_recent(size_t *ret_len);

/* Components: net tls imap pop3 smtp sync cache fs control. Named by --trace or MAILFS_TRACE, comma separated, or
 * "all". Off, a trace costs one load. */
enum trace_component { TRACE_NET, TRACE_TLS, TRACE_IMAP, TRACE_POP3, TRACE_SMTP, TRACE_SYNC, TRACE_CACHE, TRACE_FS, TRACE_CONTROL };
extern unsigned trace_mask;
bool trace_enable(const char *names, const char **ret_unknown); /* false: a name is unknown */
#define trace_on(component) ((trace_mask >> (component)) & 1U)
#define trace(component, ...) do { if (trace_on(component)) trace_line(component, __VA_ARGS__); } while (0)
void trace_line(enum trace_component component, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Copies s (len bytes) into to (size > 0, always terminated) with every control character, DEL and byte that is not
 * part of valid UTF-8 replaced by '?'; bidirectional overrides too. Returns to. */
const char *mf_printable(char *to, size_t size, const char *s, size_t len);

#endif

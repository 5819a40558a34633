#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define LINE_MAX_BYTES 2048
#define RECENT_MAX 65536

/* lock guards all of these */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum log_target target = LOG_TO_STDERR;
static int error_fd = STDERR_FILENO; /* one of its own, once opened */
static enum log_level least = LOG_LEVEL_INFO;
static struct buf recent;

unsigned trace_mask;

static const char *const level_names[] = { "error", "warning", "info", "debug" };
static const int level_priorities[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
static const char *const component_names[] = { "net", "tls", "imap", "pop3", "smtp", "sync", "cache", "fs", "control" };

void log_open(enum log_target to, enum log_level level)
{
	pthread_mutex_lock(&lock);
	if (to == LOG_TO_SYSLOG)
		openlog("mailfs", LOG_PID | LOG_NDELAY, LOG_MAIL);
	int own = to == LOG_TO_STDERR && error_fd == STDERR_FILENO ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3) : -1;
	if (own >= 0)
		error_fd = own;
	target = to;
	least = level;
	pthread_mutex_unlock(&lock);
}

static void stamp(char *to, size_t size)
{
	struct timespec now;
	struct tm parts;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &parts);
	size_t len = strftime(to, size, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(to + len, size - len, ".%03ldZ", now.tv_nsec / 1000000);
}

/* keeps whole lines, the newest; the caller holds the lock */
static void remember(const char *time, const char *level, const char *text)
{
	if (!recent.max)
		buf_init(&recent, RECENT_MAX + LINE_MAX_BYTES + 64);
	(void)buf_addf(&recent, "%s %s: %s\n", time, level, text);
	if (recent.len <= RECENT_MAX)
		return;
	const char *end = memchr(recent.data + recent.len / 2, '\n', recent.len - recent.len / 2);
	buf_drop(&recent, end ? (size_t)(end - recent.data) + 1 : recent.len);
}

static void write_line(enum log_level level, const char *text)
{
	char time[40];
	stamp(time, sizeof time);
	pthread_mutex_lock(&lock);
	if (target == LOG_TO_SYSLOG)
		syslog(level_priorities[level], "%s", text);
	else
		dprintf(error_fd, "mailfs: %s%s%s\n", level < LOG_LEVEL_INFO ? level_names[level] : "",
		        level < LOG_LEVEL_INFO ? ": " : "", text);
	remember(time, level_names[level], text);
	pthread_mutex_unlock(&lock);
}

void log_line(enum log_level level, const char *format, ...)
{
	if (level > __atomic_load_n(&least, __ATOMIC_RELAXED))
		return;
	char text[LINE_MAX_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	write_line(level, text);
}

char *log_recent(size_t *ret_len)
{
	pthread_mutex_lock(&lock);
	char *copy = mf_alloc(recent.len + 1);
	if (recent.len)
		memcpy(copy, recent.data, recent.len);
	*ret_len = recent.len;
	pthread_mutex_unlock(&lock);
	return copy;
}

static int component_of(const char *name, size_t len)
{
	for (size_t i = 0; i < sizeof component_names / sizeof *component_names; i++)
		if (strlen(component_names[i]) == len && !memcmp(component_names[i], name, len))
			return (int)i;
	return -1;
}

bool trace_enable(const char *names, const char **ret_unknown)
{
	for (const char *p = names; *p;) {
		size_t len = strcspn(p, ",");
		if (len == 3 && !memcmp(p, "all", 3)) {
			trace_mask = ~0U;
		} else if (len) {
			int component = component_of(p, len);
			if (component < 0) {
				*ret_unknown = p;
				return false;
			}
			trace_mask |= 1U << component;
		}
		p += len + (p[len] == ',');
	}
	return true;
}

void trace_line(enum trace_component component, const char *format, ...)
{
	char text[LINE_MAX_BYTES], time[40];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	stamp(time, sizeof time);
	pthread_mutex_lock(&lock);
	if (target == LOG_TO_SYSLOG)
		syslog(LOG_DEBUG, "%s: %s", component_names[component], text);
	else
		dprintf(error_fd, "%s %s: %s\n", time, component_names[component], text);
	pthread_mutex_unlock(&lock);
}

/* the length of the well-formed UTF-8 sequence at s, 0 where there is none; *code is its value */
static size_t sequence(const unsigned char *s, size_t len, unsigned *code)
{
	static const unsigned least_of[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
	if (!n || n > len || s[0] > 0xf4)
		return 0;
	*code = n == 1 ? s[0] : s[0] & (0x7fU >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (s[i] & 0x3fU);
	}
	if ((n > 1 && *code < least_of[n]) || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000))
		return 0;
	return n;
}

/* control characters, and the invisible ones that reorder or hide text */
static bool is_harmful(unsigned code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c || code == 0x200e || code == 0x200f ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

const char *mf_printable(char *to, size_t size, const char *s, size_t len)
{
	size_t out = 0;
	for (size_t i = 0; i < len;) {
		unsigned code = 0;
		size_t n = sequence((const unsigned char *)s + i, len - i, &code);
		bool good = n && !is_harmful(code);
		size_t put = good ? n : 1;
		if (out + put >= size)
			break;
		if (good)
			memcpy(to + out, s + i, n);
		else
			to[out] = '?';
		out += put;
		i += n ? n : 1;
	}
	to[out] = 0;
	return to;
}

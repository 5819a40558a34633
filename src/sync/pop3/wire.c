/* Commands out, answers and messages in. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/secret.h"
#include "sync/pop3/client.h"

#define COMMAND_MAX 16384
#define LINE_BUDGET (8U << 20)       /* what may come while one line is waited for: answers behind it too, as much as is buffered */

/* --- out ---------------------------------------------------------------------------------------------------------------- */

static enum mf_err write_all(struct pop3 *s, const char *data, size_t len)
{
	enum mf_err e = transport_write(s->transport, data, len);
	return e ? pop3_fail_transport(s, e) : MF_OK;
}

enum mf_err pop3_send(struct pop3 *s, const char *format, ...)
{
	char command[COMMAND_MAX];
	va_list arguments;
	va_start(arguments, format);
	int len = vsnprintf(command, sizeof command - 2, format, arguments);
	va_end(arguments);
	if (len < 0 || (size_t)len >= sizeof command - 2 || strpbrk(command, "\r\n"))
		return pop3_fail(s, MF_INVALID, "a command that cannot be sent");
	trace(TRACE_POP3, "> %s", command);
	memcpy(command + len, "\r\n", 2);
	return write_all(s, command, (size_t)len + 2);
}

enum mf_err pop3_send_now(struct pop3 *s)
{
	enum mf_err e = transport_flush(s->transport);
	return e ? pop3_fail_transport(s, e) : MF_OK;
}

enum mf_err pop3_send_secret(struct pop3 *s, const char *command, const char *secret)
{
	size_t head = strlen(command), len = strlen(secret);
	if (strpbrk(secret, "\r\n"))
		return pop3_fail(s, MF_AUTH, "the password has a line break, which cannot be sent");
	trace(TRACE_POP3, "> %s(secret)", command);
	MF_CLEANUP(secret_cleanup) char *line = secret_alloc(head + len + 3);
	memcpy(line, command, head);
	memcpy(line + head, secret, len);
	memcpy(line + head + len, "\r\n", 2);
	return write_all(s, line, head + len + 2);
}

/* --- in ----------------------------------------------------------------------------------------------------------------- */

/* More of what the server sends behind what is there; moves it to the front. */
static enum mf_err fill(struct pop3 *s)
{
	size_t got, have = s->in_end - s->in_start;
	if (s->in_start)
		memmove(s->in, s->in + s->in_start, have);
	s->in_start = 0;
	s->in_end = have;
	enum mf_err e = transport_read(s->transport, s->in + have, IN_SIZE - have, &got);
	if (e)
		return pop3_fail_transport(s, e);
	s->in_end += got;
	return MF_OK;
}

bool pop3_nothing_is_buffered(const struct pop3 *s)
{
	return s->in_start == s->in_end;
}

static void take_line(struct pop3 *s, size_t len)
{
	const char *from = s->in + s->in_start;
	s->in_start += len;
	while (len && (from[len - 1] == '\n' || from[len - 1] == '\r'))
		len--;
	memcpy(s->line, from, len);
	s->line[len] = '\0';
	s->line_len = len;
}

enum mf_err pop3_line(struct pop3 *s)
{
	for (;;) {
		size_t have = s->in_end - s->in_start;
		const char *newline = have ? memchr(s->in + s->in_start, '\n', have) : NULL;
		size_t len = newline ? (size_t)(newline - s->in) - s->in_start + 1 : have;
		if (len > LINE_MAX_POP3)
			return pop3_fail(s, MF_PROTOCOL, "%s sends a line that is longer than any may be", s->host);
		if (newline) {
			take_line(s, len);
			return MF_OK;
		}
		enum mf_err e = fill(s);
		if (e)
			return e;
	}
}

static void trace_answer(const struct pop3 *s)
{
	char text[400];
	if (trace_on(TRACE_POP3))
		trace(TRACE_POP3, "< %s", mf_printable(text, sizeof text, s->line, s->line_len));
}

enum mf_err pop3_answer(struct pop3 *s, bool *ret_ok)
{
	char text[100];
	transport_set_budget(s->transport, LINE_BUDGET);
	enum mf_err e = pop3_line(s);
	if (e)
		return e;
	trace_answer(s);
	bool ok = strncasecmp(s->line, "+OK", 3) == 0;
	if (!ok && strncasecmp(s->line, "-ERR", 4) != 0)
		return pop3_fail(s, MF_PROTOCOL, "%s does not answer like a POP3 server: %s", s->host, mf_printable(text, sizeof text, s->line, s->line_len));
	*ret_ok = ok;
	return MF_OK;
}

enum mf_err pop3_list_line(struct pop3 *s, bool *ret_end)
{
	enum mf_err e = pop3_line(s);
	if (e)
		return e;
	*ret_end = s->line_len == 1 && s->line[0] == '.';
	if (s->line[0] == '.' && !*ret_end)
		memmove(s->line, s->line + 1, s->line_len--);
	return MF_OK;
}

bool pop3_code_is(const struct pop3 *s, const char *code)
{
	const char *p = s->line + strcspn(s->line, " ");
	while (*p == ' ')
		p++;
	size_t len = strlen(code);
	return *p == '[' && strncasecmp(p + 1, code, len) == 0 && (p[1 + len] == ']' || p[1 + len] == '/');
}

const char *pop3_words(const struct pop3 *s, char *to, size_t size)
{
	size_t skip = strcspn(s->line, " ");
	while (s->line[skip] == ' ')
		skip++;
	return mf_printable(to, size, s->line + skip, s->line_len - skip);
}

size_t pop3_window(const struct pop3 *s)
{
	if (!(s->caps.caps & POP3_PIPELINING))
		return 1;
	return pop3_memory_is_narrow(s->options.memory) ? WINDOW_NARROW : WINDOW;
}

/* --- a message ------------------------------------------------------------------------------------------------------------ */

void pop3_text_begin(struct pop3 *s)
{
	s->text_state = AT_START;
}

/* At the start of a line. Takes a dot away, or finds the end. false: more bytes are needed to know. */
static bool start_line(struct pop3 *s, bool *ret_end)
{
	const char *p = s->in + s->in_start;
	size_t have = s->in_end - s->in_start;
	if (!have)
		return false;
	if (*p == '.') {
		/* "." CR LF; a lone LF behind the dot ends it too, since no server that means a line says so */
		if (have < 2 || (have < 3 && p[1] == '\r'))
			return false;
		*ret_end = p[1] == '\n' || (p[1] == '\r' && p[2] == '\n');
		s->in_start += *ret_end ? (p[1] == '\n' ? 2 : 3) : 1;
	}
	s->text_state = IN_LINE;
	return true;
}

/* From inside a line up to a line that begins with a dot, or as far as there are bytes. */
static size_t run_length(struct pop3 *s)
{
	const char *from = s->in + s->in_start, *end = s->in + s->in_end, *p = from;
	bool behind_cr = s->text_state == BEHIND_CR;
	while (p < end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		if (!newline) {
			s->text_state = end[-1] == '\r' ? BEHIND_CR : IN_LINE;
			return (size_t)(end - from);
		}
		bool line_end = newline > from ? newline[-1] == '\r' : behind_cr;
		p = newline + 1;
		if (line_end && (p == end || *p == '.')) {
			s->text_state = AT_START;
			return (size_t)(p - from);
		}
	}
	s->text_state = IN_LINE; /* behind a line feed that ends no line */
	return (size_t)(p - from);
}

enum mf_err pop3_text(struct pop3 *s, const char **ret, size_t *ret_len, bool *ret_end)
{
	*ret_end = false;
	for (;;) {
		if (s->text_state == AT_START && start_line(s, ret_end) && *ret_end)
			return MF_OK;
		if (s->text_state != AT_START && s->in_start < s->in_end)
			break;
		enum mf_err e = fill(s);
		if (e)
			return e;
	}
	*ret = s->in + s->in_start;
	*ret_len = run_length(s);
	s->in_start += *ret_len;
	return MF_OK;
}

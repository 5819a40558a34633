#include "control/client.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/mem.h"
#include "control/exit.h"
#include "control/json.h"
#include "control/paths.h"
#include "control/socket.h"

#define ANSWER_MAX (64U << 20)   /* one line: a status of very many mailboxes */

char *control_quote(const char *argument)
{
	char *to = mf_alloc(strlen(argument) * 3 + 1), *out = to;
	for (const unsigned char *p = (const unsigned char *)argument; *p; p++) {
		static const char digits[] = "0123456789ABCDEF";
		if (*p > ' ' && *p != '%' && *p != 0x7f) {
			*out++ = (char)*p;
			continue;
		}
		*out++ = '%';
		*out++ = digits[*p >> 4];
		*out++ = digits[*p & 15];
	}
	return to;
}

/* The first place where somebody listens. */
static enum mf_err dial(const char *account, int *ret, struct mf_reason *why)
{
	enum mf_err result = MF_NOT_FOUND;
	for (size_t i = 0; i < PATH_SOCKETS; i++) {
		MF_CLEANUP(mf_free) char *path = path_socket(account, i);
		if (!path)
			continue;
		struct mf_reason reason = { "" };
		enum mf_err e = socket_connect(path, ret, &reason);
		if (!e)
			return MF_OK;
		if (e != MF_NOT_FOUND) {
			result = e;
			if (why)
				*why = reason;
		}
	}
	if (result == MF_NOT_FOUND)
		mf_fail(why, MF_NOT_FOUND, "no running mailfs holds %s", account);
	return result;
}

/* How long the other side may be silent: a verb that works says so several times a second, only events may rest. */
static void limit_silence(int fd, const char *line)
{
	struct timeval limit = { .tv_sec = !strncmp(line, "ping", 4) ? 5 : 60 };
	if (strncmp(line, "events", 6))
		(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit); /* cannot fail with these arguments */
}

struct answer {
	const char *account;
	control_say *say;
	void *context;
	bool ended, listening;
	int exit;
};

/* Looks into the line for the end only; the caller gets each, the last one too. */
static void take_line(struct answer *answer, const char *line)
{
	if (strstr(line, "\"exit\"")) {
		struct json_object *o = json_parse_line(line), *code;
		if (o && json_object_object_get_ex(o, "exit", &code) && json_object_is_type(code, json_type_int)) {
			answer->exit = json_object_get_int(code);
			answer->ended = true;
		}
		json_object_put(o);
	}
	answer->listening = answer->say(answer->context, line);
}

static enum mf_err read_answer(int fd, struct answer *answer, struct mf_reason *why)
{
	struct buf b;
	buf_init(&b, ANSWER_MAX);
	enum mf_err e = MF_OK;
	size_t scanned = 0;
	while (!e && !answer->ended && answer->listening) {
		char chunk[16384];
		ssize_t n = read(fd, chunk, sizeof chunk);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			e = mf_fail(why, MF_TIMEOUT, "the mailfs that holds %s does not answer", answer->account);
			break;
		}
		if (n <= 0) {
			e = mf_fail(why, MF_IO, "the mailfs that holds %s ended before it had answered", answer->account);
			break;
		}
		e = buf_add(&b, chunk, (size_t)n);
		if (e)
			mf_fail(why, e, "the mailfs that holds %s sent a line over %u bytes", answer->account, ANSWER_MAX);
		size_t start = 0;
		for (char *end; !e && !answer->ended && answer->listening && (end = memchr(b.data + scanned, '\n', b.len - scanned));) {
			*end = 0;
			take_line(answer, b.data + start);
			start = scanned = (size_t)(end - b.data) + 1;
		}
		buf_drop(&b, start);
		scanned = b.len;
	}
	buf_finish(&b);
	return e;
}

enum mf_err control_ask(const char *account, const char *line, control_say *say, void *context, int *ret_exit, struct mf_reason *why)
{
	int fd;
	enum mf_err e = dial(account, &fd, why);
	if (e)
		return e;
	MF_CLEANUP(mf_free) char *request = mf_format("%s\n", line);
	limit_silence(fd, line);
	struct answer answer = { account, say, context, false, true, EXIT_CANCELLED };
	/* who refuses does not read the request, but says why: what counts is the answer */
	(void)socket_send(fd, request, strlen(request));
	e = read_answer(fd, &answer, why);
	mf_close(&fd);
	if (!e)
		*ret_exit = answer.exit;
	return e;
}

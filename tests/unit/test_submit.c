/* smtp/submit.c and session.c against a scripted server.
 *
 * A script's lines: "S text" the server sends it with CRLF (| is one inside); "S- text" without; "R N text" N times; "C pattern" the client must
 * send this ("..." at the end: anything behind); "D" it sends a message up to its dot, which is kept; "B N" N bytes of one,
 * kept; "E" the server closes; "Z" it says nothing more. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/config.h"
#include "smtp/submit.h"

struct server {
	const char *script;
	int fd;
	size_t cut, sent;        /* the server closes after so many bytes */
	size_t deaf, heard;      /* the same for those of the client */
	bool whole;              /* it has all of a message */
	unsigned seed;           /* not 0: some of its bytes are others */
	bool closed;
	char in[65536];
	size_t in_len;
	struct buf content;      /* of messages */
	char complaint[300];
	pthread_t thread;
};

static void server_close(struct server *s)
{
	if (!s->closed)
		shutdown(s->fd, SHUT_RDWR);
	s->closed = true;
}

static void server_send(struct server *s, const char *data, size_t len)
{
	size_t left = s->cut - s->sent, n = len < left ? len : left;
	char spoilt[4096];
	n = n < sizeof spoilt ? n : sizeof spoilt;
	for (size_t i = 0; i < n; i++)
		spoilt[i] = s->seed && rand_r(&s->seed) % 40 == 0 ? (char)rand_r(&s->seed) : data[i];
	if (!s->closed && n)
		(void)!send(s->fd, spoilt, n, MSG_NOSIGNAL);
	s->sent += n;
	if (n < len)
		server_close(s);
}

/* More input; false: the client has left. */
static bool server_fill(struct server *s)
{
	size_t room = sizeof s->in - s->in_len, left = s->deaf - s->heard;
	ssize_t n = s->closed || !left ? 0 : recv(s->fd, s->in + s->in_len, room < left ? room : left, 0);
	if (n <= 0)
		return false;
	s->heard += (size_t)n;
	s->in_len += (size_t)n;
	return true;
}

static void server_take(struct server *s, size_t n)
{
	memmove(s->in, s->in + n, s->in_len - n);
	s->in_len -= n;
}

static bool server_line(struct server *s, char line[1200])
{
	char *end;
	while (!(end = memmem(s->in, s->in_len, "\r\n", 2)))
		if (!server_fill(s))
			return false;
	size_t len = (size_t)(end - s->in);
	snprintf(line, 1200, "%.*s", (int)(len < 1199 ? len : 1199), s->in);
	server_take(s, len + 2);
	return true;
}

static bool matches(const char *pattern, const char *line)
{
	size_t len = strlen(pattern);
	if (len >= 3 && !strcmp(pattern + len - 3, "..."))
		return !strncmp(pattern, line, len - 3);
	return !strcmp(pattern, line);
}

static bool server_data(struct server *s)
{
	char line[1200];
	while (server_line(s, line)) {
		if (!strcmp(line, "."))
			return s->whole = true;
		(void)buf_addf(&s->content, "%s\n", line);
	}
	return false;
}

static bool server_bytes(struct server *s, size_t n)
{
	while (n) {
		size_t take = s->in_len < n ? s->in_len : n;
		(void)buf_add(&s->content, s->in, take);
		server_take(s, take);
		n -= take;
		if (n && !server_fill(s))
			return false;
	}
	return s->whole = true;
}

static bool server_expect(struct server *s, const char *pattern)
{
	char line[1200];
	if (!server_line(s, line))
		return false;
	if (!matches(pattern, line) && !s->complaint[0])
		snprintf(s->complaint, sizeof s->complaint, "wanted \"%.120s\", got \"%.120s\"", pattern, line);
	return true;
}

/* '|' is a line break; in one write */
static void server_say(struct server *s, const char *text, bool whole)
{
	struct buf b;
	buf_init(&b, 65536);
	for (; *text; text++)
		(void)buf_add(&b, *text == '|' ? "\r\n" : text, *text == '|' ? 2 : 1);
	if (whole)
		(void)buf_adds(&b, "\r\n");
	server_send(s, b.data, b.len);
	buf_finish(&b);
}

static bool server_step(struct server *s, const char *line)
{
	char *end;
	switch (line[0]) {
	case 'S':
		server_say(s, line + (line[1] == '-' ? 3 : 2), line[1] != '-');
		return true;
	case 'R':
		for (long n = strtol(line + 2, &end, 10); n > 0 && !s->closed; n--) {
			server_send(s, end + 1, strlen(end + 1));
			server_send(s, "\r\n", 2);
		}
		return true;
	case 'C':
		return server_expect(s, line + 2);
	case 'D':
		return server_data(s);
	case 'B':
		return server_bytes(s, strtoul(line + 2, NULL, 10));
	case 'E':
		server_close(s);
		return true;
	default:
		return true;
	}
}

static void *server_main(void *context)
{
	struct server *s = context;
	bool go = true;
	for (const char *p = s->script; go && *p;) {
		size_t len = strcspn(p, "\n");
		char *line = mf_strndup(p, len);
		go = server_step(s, line);
		free(line);
		p += len + (p[len] == '\n');
	}
	bool quit = strstr(s->script, "C QUIT\n");
	while (!quit && !memmem(s->in, s->in_len, "QUIT", 4) && server_fill(s))  /* until the client leaves */
		s->in_len = s->in_len > sizeof s->in / 2 ? 0 : s->in_len;
	server_close(s);
	return NULL;
}

/* --- a client ------------------------------------------------------------------------------------------------------ */

struct world {
	struct server server;
	struct cancel cancel;
	struct credentials *credentials;
	struct smtp *smtp;
	enum mf_err opened;
	struct mf_reason why;
	struct envelope envelope;
	uint64_t more;           /* bytes that it claims to have, beside those there are */
	int fd;
	unsigned dots;           /* calls of before_dot */
	enum mf_err dot_says;
};

static unsigned next_seed;   /* of the next server */
static size_t next_deaf = SIZE_MAX;
#define PATIENT 20000        /* of a loaded machine */
static int64_t patience_ms = PATIENT, dot_patience_ms = PATIENT;

static void world_begin(struct world *w, const char *script, size_t cut, bool start_tls)
{
	int pair[2];
	memset(w, 0, sizeof *w);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_true(cancel_init(&w->cancel));
	w->server = (struct server){ .script = script, .fd = pair[1], .cut = cut, .deaf = next_deaf, .seed = next_seed };
	buf_init(&w->server.content, 1U << 24);
	assert_int_equal(pthread_create(&w->server.thread, NULL, server_main, &w->server), 0);
	w->credentials = credentials_create("alice", "secret", NULL);
	struct smtp_options o = {
		.transport = { .host = "smtp.test", .port = 587, .connect_timeout_ms = PATIENT, .io_timeout_ms = PATIENT, .cancel = &w->cancel },
		.start_tls = start_tls, .clear_allowed = true, .auth = AUTH_AUTO, .credentials = w->credentials,
		.times = { patience_ms, patience_ms, patience_ms < dot_patience_ms ? patience_ms : dot_patience_ms }, .adopt = true, .adopted = pair[0],
	};
	w->opened = smtp_open(&o, &w->smtp, &w->why);
}

static void world_end(struct world *w)
{
	smtp_close(w->opened ? NULL : w->smtp);
	pthread_join(w->server.thread, NULL);
	close(w->server.fd);
	if (w->fd > 0)
		close(w->fd);
	if (w->server.complaint[0] && !w->server.seed) /* what is asked for follows from what was said */
		fail_msg("%s", w->server.complaint);
	credentials_destroy(w->credentials);
	cancel_finish(&w->cancel);
	buf_finish(&w->server.content);
}

static char one[] = "bob@example.com", two[] = "carol@example.com", three[] = "dave@example.com";
static char *everybody[] = { one, two, three };
#define MESSAGE "Bcc: x@y\r\nTo: bob\r\n\r\n.dot\r\n..two\r\nend\r\n"
#define CONTENT (sizeof MESSAGE - 1 - 10)   /* without the Bcc */

static enum mf_err before_dot(void *context)
{
	struct world *w = context;
	w->dots++;
	return w->dot_says;
}

static enum mf_err submit(struct world *w, size_t recipients, struct submit_result *ret)
{
	if (!w->fd) {
		w->fd = memfd_create("message", MFD_CLOEXEC);
		assert_int_equal(write(w->fd, MESSAGE, strlen(MESSAGE)), (ssize_t)strlen(MESSAGE));
	}
	static char sender[] = "alice@example.org";
	w->envelope.sender = sender;
	w->envelope.hidden = 10;
	w->envelope.size = (uint64_t)lseek(w->fd, 0, SEEK_END) + w->more;
	return smtp_submit(w->smtp, &(struct submit_request){ .envelope = &w->envelope, .recipients = everybody, .recipient_count = recipients,
		.id = 0xabc, .fd = w->fd, .before_dot = before_dot, .context = w }, ret);
}

#define HELLO "S 220 smtp.test\nC EHLO [127.0.0.1]\n"
#define PLAIN HELLO "S 250-smtp.test\nS 250 HELP\n"
#define ENVELOPE "C MAIL FROM:<alice@example.org>\nS 250 2.1.0 ok\nC RCPT TO:<bob@example.com>\nS 250 2.1.5 ok\n"

/* --- cases --------------------------------------------------------------------------------------------------------- */

static void plain_message(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN ENVELOPE "C DATA\nS 354 go\nD\nS 250 2.0.0 queued as 77\nC MAIL FROM:<alice@example.org>\nS 250 ok\n"
		"C RCPT TO:<bob@example.com>\nS 250 ok\nC DATA\nS 354 go\nD\nS 250 again\nC QUIT\nS 221 bye\n", SIZE_MAX, false);
	assert_int_equal(w.opened, MF_OK);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	assert_string_equal(r.recipients[0].text, "250 2.0.0 queued as 77");
	assert_int_equal(w.dots, 1);
	submit_result_finish(&r);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	submit_result_finish(&r);
	world_end(&w);
}

static void content_arrives(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN ENVELOPE "C DATA\nS 354 go\nD\nS 250 ok\nE\n", SIZE_MAX, false);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	submit_result_finish(&r);
	smtp_close(w.smtp);
	pthread_join(w.server.thread, NULL);
	assert_string_equal(w.server.content.data, "To: bob\n\n..dot\n...two\nend\n");
	close(w.server.fd);
	close(w.fd);
	credentials_destroy(w.credentials);
	cancel_finish(&w.cancel);
	buf_finish(&w.server.content);
}

/* Blocks end everywhere in a line. */
static void nothing_but_dots(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	enum { LINES = 20000 };
	world_begin(&w, PLAIN ENVELOPE "C DATA\nS 354 go\nD\nS 250 ok\n", SIZE_MAX, false);
	struct buf message;
	buf_init(&message, 1U << 20);
	for (int i = 0; i < LINES; i++)
		(void)buf_adds(&message, i % 3 ? ".\r\n" : "..x.\r\n");
	int fd = memfd_create("message", MFD_CLOEXEC);
	assert_int_equal(write(fd, message.data, message.len), (ssize_t)message.len);
	static char sender[] = "alice@example.org";
	struct envelope envelope = { .sender = sender, .size = message.len };
	assert_int_equal(smtp_submit(w.smtp, &(struct submit_request){ .envelope = &envelope, .recipients = everybody, .recipient_count = 1, .fd = fd }, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	submit_result_finish(&r);
	close(fd);
	const char *p = w.server.content.data;
	for (int i = 0; i < LINES; i++, p = strchr(p, '\n') + 1)
		if (strncmp(p, i % 3 ? "..\n" : "...x.\n", i % 3 ? 3 : 6))
			fail_msg("line %d: %.8s", i, p);
	assert_int_equal(*p, 0);
	buf_finish(&message);
	world_end(&w);
}

static void pipelined_with_all_extensions(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, HELLO "S 250-smtp.test\nS 250-PIPELINING\nS 250-SIZE 100000\nS 250-8BITMIME\nS 250-SMTPUTF8\nS 250-DSN\nS 250 ENHANCEDSTATUSCODES\n"
		"C MAIL FROM:<alice@example.org> SIZE=29 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=0000000000000abc\n"
		"C RCPT TO:<bob@example.com> NOTIFY=FAILURE,DELAY\n"
		"C RCPT TO:<carol@example.com> NOTIFY=FAILURE,DELAY\nC RCPT TO:<dave@example.com> NOTIFY=FAILURE,DELAY\nC DATA\n"
		"S 250 ok\nS 250 ok\nS 550-5.1.1 no such\nS 550 5.1.1 user\nS 451 4.7.1 later\nS 354 go\nD\nS 250 2.0.0 ok\nC QUIT\nS 221 bye\n", SIZE_MAX, false);
	assert_int_equal(w.opened, MF_OK);
	assert_int_equal(smtp_size_max(w.smtp), 100000);
	w.envelope.eight_bit = w.envelope.utf8 = true;
	w.envelope.notify = DSN_FAILURE | DSN_DELAY | DSN_HEADERS;
	assert_int_equal(CONTENT, 29);
	assert_int_equal(submit(&w, 3, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	assert_int_equal(r.recipients[0].verdict, VERDICT_SENT);
	assert_int_equal(r.recipients[1].verdict, VERDICT_REFUSED);
	assert_string_equal(r.recipients[1].text, "550 5.1.1 no such user");
	assert_int_equal(r.recipients[2].verdict, VERDICT_LATER);
	submit_result_finish(&r);
	world_end(&w);
}

static void chunked(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, HELLO "S 250-smtp.test\nS 250-PIPELINING\nS 250 CHUNKING\nC MAIL FROM:<alice@example.org>\nC RCPT TO:<bob@example.com>\n"
		"S 250 ok\nS 250 ok\nC BDAT 29 LAST\nB 29\nS 250 2.0.0 ok\nC QUIT\nS 221 bye\n", SIZE_MAX, false);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	assert_string_equal(w.server.content.data, "To: bob\r\n\r\n.dot\r\n..two\r\nend\r\n");
	submit_result_finish(&r);
	world_end(&w);
}

/* What the server says at each stage, and what becomes of the message */
static void refusals(void **state)
{
	(void)state;
	static const struct { const char *rest; enum verdict verdict; enum mf_err e; const char *words; unsigned dots; } cases[] = {
		{ "C MAIL...\nS 550 5.7.1 no\n", VERDICT_REFUSED, MF_OK, "550 5.7.1 no", 0 },
		{ "C MAIL...\nS 451 4.3.0 busy\n", VERDICT_LATER, MF_OK, "451 4.3.0 busy", 0 },
		{ "C MAIL...\nS 530 5.7.0 log in first\n", VERDICT_LATER, MF_AUTH, "530 5.7.0 log in first", 0 },
		{ "C MAIL...\nS 250 ok\nC RCPT...\nS 552 5.5.3 too many\n", VERDICT_LATER, MF_OK, "552 5.5.3", 0 },
		{ "C MAIL...\nS 421 bye\n", VERDICT_LATER, MF_OFFLINE, "421 bye", 0 },
		{ "C MAIL...\nS 250 ok\nC RCPT...\nS 550 no\n", VERDICT_REFUSED, MF_OK, "550 no", 0 },
		{ "C MAIL...\nS 250 ok\nC RCPT...\nS 450 no\n", VERDICT_LATER, MF_OK, "450 no", 0 },
		{ "C MAIL...\nS 250 ok\nC RCPT...\nS 421 bye\n", VERDICT_LATER, MF_OFFLINE, "421 bye", 0 },
		{ ENVELOPE "C DATA\nS 554 no\n", VERDICT_REFUSED, MF_OK, "554 no", 0 },
		{ ENVELOPE "C DATA\nS 451 no\n", VERDICT_LATER, MF_OK, "451 no", 0 },
		{ ENVELOPE "C DATA\nS 250 what\n", VERDICT_LATER, MF_PROTOCOL, "", 0 },
		{ ENVELOPE "C DATA\nE\n", VERDICT_LATER, MF_OFFLINE, "", 0 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS 554 5.6.0 spam\n", VERDICT_REFUSED, MF_OK, "554 5.6.0 spam", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS 452 full\n", VERDICT_LATER, MF_OK, "452 full", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS 421 bye\n", VERDICT_LATER, MF_OFFLINE, "421 bye", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nE\n", VERDICT_UNKNOWN, MF_OFFLINE, "", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nZ\n", VERDICT_UNKNOWN, MF_TIMEOUT, "", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS garbage\n", VERDICT_UNKNOWN, MF_PROTOCOL, "does not speak SMTP", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS 354 what\n", VERDICT_UNKNOWN, MF_PROTOCOL, "354", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nS- 250-half\n", VERDICT_UNKNOWN, MF_TIMEOUT, "", 1 },
		{ ENVELOPE "C DATA\nS 354 go\nD\nR 100000 250-line\n", VERDICT_UNKNOWN, MF_PROTOCOL, "lines", 1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct world w;
		struct submit_result r;
		MF_CLEANUP(mf_free) char *script = mf_format(PLAIN "%s", cases[i].rest);
		dot_patience_ms = cases[i].e == MF_TIMEOUT ? 200 : PATIENT;
		world_begin(&w, script, SIZE_MAX, false);
		assert_int_equal(w.opened, MF_OK);
		enum mf_err e = submit(&w, 1, &r);
		dot_patience_ms = PATIENT;
		bool words = strstr(r.reason.text, cases[i].words) && r.recipients[0].verdict == cases[i].verdict;
		if (r.verdict != cases[i].verdict || e != cases[i].e || !words || w.dots != cases[i].dots)
			fail_msg("%s: verdict %d, %s, \"%s\", %u dots", cases[i].rest, (int)r.verdict, mf_err_name(e), r.reason.text, w.dots);
		submit_result_finish(&r);
		world_end(&w);
	}
}

/* The same with BDAT. */
static void chunk_refused(void **state)
{
	(void)state;
	static const struct { const char *rest; enum verdict verdict; enum mf_err e; unsigned dots; } cases[] = {
		{ "B 29\nS 554 5.6.0 spam\n", VERDICT_REFUSED, MF_OK, 1 },
		{ "B 29\nS 452 4.3.1 full\n", VERDICT_LATER, MF_OK, 1 },
		{ "B 29\nS 421 4.3.2 bye\n", VERDICT_LATER, MF_OFFLINE, 1 },
		{ "B 29\nE\n", VERDICT_UNKNOWN, MF_OFFLINE, 1 },
		{ "B 29\nZ\n", VERDICT_UNKNOWN, MF_TIMEOUT, 1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct world w;
		struct submit_result r;
		MF_CLEANUP(mf_free) char *script = mf_format(HELLO "S 250-x\nS 250 CHUNKING\n" ENVELOPE "C BDAT 29 LAST\n%s", cases[i].rest);
		dot_patience_ms = cases[i].e == MF_TIMEOUT ? 200 : PATIENT;
		world_begin(&w, script, SIZE_MAX, false);
		enum mf_err e = submit(&w, 1, &r);
		dot_patience_ms = PATIENT;
		if (r.verdict != cases[i].verdict || e != cases[i].e || w.dots != cases[i].dots)
			fail_msg("%s: verdict %d, %s, \"%s\", %u dots", cases[i].rest, (int)r.verdict, mf_err_name(e), r.reason.text, w.dots);
		submit_result_finish(&r);
		world_end(&w);
	}
}

static void next_message_after_a_refusal(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN "C MAIL...\nS 250 ok\nC RCPT...\nS 550 no\nC RSET\nS 250 ok\n" ENVELOPE "C DATA\nS 354 go\nD\nS 250 ok\nC QUIT\n", SIZE_MAX, false);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_REFUSED);
	submit_result_finish(&r);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_SENT);
	submit_result_finish(&r);
	world_end(&w);
}

static void data_for_nobody_is_ended_empty(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, HELLO "S 250-x\nS 250 PIPELINING\nC MAIL...\nC RCPT...\nC DATA\nS 250 ok\nS 550 no\nS 354 go\nC .\nS 554 nobody\nC RSET\nS 250 ok\n"
		"C MAIL...\nC RCPT...\nC DATA\nS 250 ok\nS 550 no\nS 503 nobody\nC QUIT\n", SIZE_MAX, false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(submit(&w, 1, &r), MF_OK);
		assert_int_equal(r.verdict, VERDICT_REFUSED);
		assert_non_null(strstr(r.reason.text, "550 no"));
		submit_result_finish(&r);
	}
	assert_int_equal(w.dots, 0);
	world_end(&w);
}

static void what_the_server_cannot_take(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, HELLO "S 250-x\nS 250 SIZE 65536\nC QUIT\n", SIZE_MAX, false);
	w.more = 65536;
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_REFUSED);
	assert_non_null(strstr(r.reason.text, "at most 65536"));
	submit_result_finish(&r);
	w.more = 0;
	w.envelope.eight_bit = true;
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_non_null(strstr(r.reason.text, "8BITMIME"));
	submit_result_finish(&r);
	w.envelope.utf8 = true;
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_non_null(strstr(r.reason.text, "SMTPUTF8"));
	submit_result_finish(&r);
	static char evil[] = "a@b>\r\nRCPT TO:<c@d";
	everybody[0] = evil;
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_REFUSED);
	submit_result_finish(&r);
	everybody[0] = one;
	world_end(&w);
}

/* No server takes as little as that: what it says to each message counts. */
static void a_size_that_cannot_be(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, HELLO "S 250-x\nS 250 SIZE 1\nC MAIL...\nS 552 5.3.4 too big\nC QUIT\nS 221 bye\n", SIZE_MAX, false);
	assert_int_equal(smtp_size_max(w.smtp), 0);
	assert_int_equal(submit(&w, 1, &r), MF_OK);
	assert_int_equal(r.verdict, VERDICT_REFUSED);
	assert_non_null(strstr(r.reason.text, "too big"));
	submit_result_finish(&r);
	world_end(&w);
}

static void the_mark_fails(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN ENVELOPE "C DATA\nS 354 go\nD\nS 250 ok\n", SIZE_MAX, false);
	w.dot_says = MF_NO_SPACE;
	assert_int_equal(submit(&w, 1, &r), MF_NO_SPACE);
	assert_int_equal(r.verdict, VERDICT_LATER);
	submit_result_finish(&r);
	assert_int_equal(submit(&w, 1, &r), MF_NO_SPACE);   /* dead for good */
	submit_result_finish(&r);
	world_end(&w);
}

static void opening(void **state)
{
	(void)state;
	static const struct { const char *script; bool start_tls; enum mf_err e; const char *words; } cases[] = {
		{ "E\n", false, MF_OFFLINE, "" },
		{ "Z\n", false, MF_TIMEOUT, "" },
		{ "S 554 no\n", false, MF_PROTOCOL, "554 no" },
		{ "S 421 busy\n", false, MF_OFFLINE, "421 busy" },
		{ "S 450 busy\n", false, MF_OFFLINE, "450 busy" },
		{ "S * OK IMAP\n", false, MF_PROTOCOL, "does not speak SMTP" },
		{ "R 1000 220-hello\n", false, MF_PROTOCOL, "lines" },
		{ HELLO "S 451 busy \033]0;x\a\n", false, MF_OFFLINE, "busy ?]0;x?" },
		{ HELLO "S 500 what\nC HELO [127.0.0.1]\nS 250 ok\nC QUIT\n", false, MF_OK, "" },
		{ HELLO "S 500 what\nC HELO [127.0.0.1]\nS 500 what\n", false, MF_PROTOCOL, "500 what" },
		{ HELLO "R 1000 250-X\n", false, MF_PROTOCOL, "lines" },
		{ PLAIN, true, MF_TLS, "does not offer STARTTLS" },
		{ HELLO "S 250-x\nS 250 STARTTLS\nC STARTTLS\nS 454 no\n", true, MF_TLS, "refused STARTTLS" },
		{ HELLO "S 250-x\nS 250 STARTTLS\nC STARTTLS\nS 220 go|250 injected\n", true, MF_TLS, "in clear" },
		{ HELLO "S 250-x\nS 250 AUTH XOAUTH2\n", false, MF_AUTH, "none of the ways" },
		{ HELLO "S 250-x\nS 250 AUTH PLAIN\nC AUTH PLAIN AGFsaWNlAHNlY3JldA==\nS 235 2.7.0 in\nC QUIT\n", false, MF_OK, "" },
		{ HELLO "S 250-x\nS 250 AUTH LOGIN\nC AUTH LOGIN\nS 334 VXNlcm5hbWU6\nC YWxpY2U=\nS 334 UGFzc3dvcmQ6\nC c2VjcmV0\nS 235 in\nC QUIT\n", false, MF_OK, "" },
		{ HELLO "S 250-x\nS 250 AUTH=LOGIN PLAIN\nC AUTH...\nS 235 in\nC QUIT\n", false, MF_OK, "" },
		{ HELLO "S 250-x\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 535 5.7.8 wrong\n", false, MF_AUTH, "535 5.7.8 wrong" },
		{ HELLO "S 250-x\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 454 4.7.0 later\n", false, MF_OFFLINE, "454" },
		{ HELLO "S 250-x\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 334 more\nC *\nS 501 ok\n", false, MF_AUTH, "asked for more" },
		{ HELLO "S 250-x\nS 250 AUTH CRAM-MD5\nC AUTH CRAM-MD5\nS 334 !!!\nC *\nS 501 ok\n", false, MF_AUTH, "CRAM-MD5" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct world w;
		patience_ms = cases[i].e == MF_TIMEOUT ? 200 : PATIENT;
		world_begin(&w, cases[i].script, SIZE_MAX, cases[i].start_tls);
		patience_ms = PATIENT;
		if (w.opened != cases[i].e || !strstr(w.why.text, cases[i].words) || strstr(w.why.text, "secret"))
			fail_msg("%s: %s: %s", cases[i].script, mf_err_name(w.opened), w.why.text);
		world_end(&w);
	}
}

/* The connection is lost after so many bytes of the server's, or of the client's. */
static void lose(const char *script, size_t cut, size_t deaf)
{
	struct world w;
	struct submit_result r = { 0 };
	next_deaf = deaf;
	world_begin(&w, script, cut, false);
	next_deaf = SIZE_MAX;
	enum mf_err e = w.opened ? w.opened : submit(&w, 2, &r);
	bool opened = !w.opened;
	bool sent = r.verdict == VERDICT_SENT && e == MF_OK, lost = r.verdict == VERDICT_LATER && e == MF_OFFLINE && !w.dots;
	bool unknown = r.verdict == VERDICT_UNKNOWN && e == MF_OFFLINE && w.dots == 1;
	world_end(&w);
	if (opened ? (!sent && !lost && !unknown) || (sent && !w.server.whole) || (lost && w.server.whole) : e != MF_OFFLINE)
		fail_msg("cut after %zu, deaf after %zu: verdict %d, %s, %u dots: %s", cut, deaf, (int)r.verdict, mf_err_name(e), w.dots, w.why.text);
	submit_result_finish(&r);
}

static void cut_everywhere(void **state)
{
	(void)state;
	static const char by_data[] = HELLO "S 250-smtp.test\nS 250-PIPELINING\nS 250-SIZE 1000\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 235 2.7.0 in\n"
		"C MAIL...\nC RCPT...\nC RCPT...\nC DATA\nS 250 2.1.0 ok\nS 250 2.1.5 ok\nS 550 5.1.1 no\nS 354 go\nD\nS 250 2.0.0 queued\nC QUIT\nS 221 bye\n";
	static const char by_chunk[] = HELLO "S 250-smtp.test\nS 250-PIPELINING\nS 250-CHUNKING\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 235 2.7.0 in\n"
		"C MAIL...\nC RCPT...\nC RCPT...\nS 250 2.1.0 ok\nS 250 2.1.5 ok\nS 550 5.1.1 no\nC BDAT 29 LAST\nB 29\nS 250 2.0.0 queued\nC QUIT\nS 221 bye\n";
	for (size_t n = 0; n < 400; n++) {
		lose(by_data, n, SIZE_MAX);
		lose(by_data, SIZE_MAX, n);
		lose(by_chunk, n, SIZE_MAX);
		lose(by_chunk, SIZE_MAX, n);
	}
}

/* Whatever is said, it ends, and nobody is told that a message was sent whose end has not left. */
static void spoilt(void **state)
{
	(void)state;
	static const char script[] = HELLO "S 250-smtp.test\nS 250-PIPELINING\nS 250-SIZE 1000\nS 250 AUTH PLAIN\nC AUTH PLAIN...\nS 235 2.7.0 in\n"
		"C MAIL...\nC RCPT...\nC RCPT...\nC DATA\nS 250 2.1.0 ok\nS 250 2.1.5 ok\nS 550 5.1.1 no\nS 354 go\nD\nS 250 2.0.0 queued\nE\n";
	const char *given = getenv("SEED");
	unsigned first = given ? (unsigned)strtoul(given, NULL, 10) : 1;
	patience_ms = 40;
	for (unsigned seed = first; seed < first + 25; seed++) {
		struct world w;
		struct submit_result r;
		next_seed = seed;
		world_begin(&w, script, SIZE_MAX, false);
		next_seed = 0;
		if (!w.opened) {
			(void)submit(&w, 2, &r);
			if ((r.verdict == VERDICT_SENT || r.verdict == VERDICT_UNKNOWN) && w.dots != 1)
				fail_msg("seed %u: verdict %d, %u dots", seed, (int)r.verdict, w.dots);
			submit_result_finish(&r);
		}
		world_end(&w);
	}
	patience_ms = PATIENT;
}

static void a_server_that_wants_no_more(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN ENVELOPE "C DATA\nS 354 go\nS 552 5.3.4 too much\nZ\n", SIZE_MAX, false);
	w.fd = memfd_create("message", MFD_CLOEXEC);
	char block[65536];
	memset(block, 'x', sizeof block);
	block[65534] = '\r';
	block[65535] = '\n';
	for (int i = 0; i < 64; i++) /* more than fits in between: the server has answered before the end can leave */
		assert_int_equal(write(w.fd, block, sizeof block), (ssize_t)sizeof block);
	assert_int_equal(submit(&w, 1, &r), MF_PROTOCOL);
	assert_int_equal(r.verdict, VERDICT_REFUSED);
	assert_int_equal(w.dots, 0);
	submit_result_finish(&r);
	world_end(&w);
}

static void interrupted(void **state)
{
	(void)state;
	struct world w;
	struct submit_result r;
	world_begin(&w, PLAIN ENVELOPE "C DATA\nZ\n", SIZE_MAX, false);
	cancel_raise(&w.cancel);
	assert_int_equal(submit(&w, 1, &r), MF_CANCELLED);
	assert_int_equal(r.verdict, VERDICT_LATER);
	submit_result_finish(&r);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_message), cmocka_unit_test(content_arrives), cmocka_unit_test(nothing_but_dots), cmocka_unit_test(pipelined_with_all_extensions),
		cmocka_unit_test(chunked), cmocka_unit_test(refusals), cmocka_unit_test(chunk_refused), cmocka_unit_test(next_message_after_a_refusal),
		cmocka_unit_test(data_for_nobody_is_ended_empty), cmocka_unit_test(what_the_server_cannot_take), cmocka_unit_test(a_size_that_cannot_be),
		cmocka_unit_test(the_mark_fails), cmocka_unit_test(opening), cmocka_unit_test(cut_everywhere), cmocka_unit_test(spoilt),
		cmocka_unit_test(a_server_that_wants_no_more), cmocka_unit_test(interrupted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* smtp_server.h: a submission server over socketpairs, for tests of the outbox. To be included by one test program each.
 *
 * The message says what becomes of it: recipients no@... are refused, later@... put off (until .accept_later); a line
 * "X-Dot: 554 no" is the answer to the message, "X-Dot: close" and "X-Dot: silent" are none. Message-IDs of what is taken go
 * into a file, durably, before the answer leaves. */
#ifndef TESTS_SUPPORT_SMTP_SERVER_H
#define TESTS_SUPPORT_SMTP_SERVER_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp/submit.h"

struct smtp_server {
	int record;              /* the file of Message-IDs */
	atomic_bool accept_later, close_at_dot; /* the latter: as X-Dot: close, whatever the message says */
	atomic_uint connections, rcpts, null_senders;
	int64_t dot_ms;          /* how long the client waits for the answer to a message; 0: long */
	unsigned most;           /* recipients of one message; 0: any number */
	atomic_int refuse;       /* enum mf_err that connecting ends with; 0: none */
	struct { pthread_t thread; int fd; } sessions[256];
	unsigned session_count;
};

struct smtp_peer {
	struct smtp_server *server;
	FILE *in;
	int fd;
	unsigned rcpts;          /* of this message */
};

static void peer_say(struct smtp_peer *p, const char *text)
{
	char line[400];
	int n = snprintf(line, sizeof line, "%s\r\n", text);
	(void)!send(p->fd, line, (size_t)n, MSG_NOSIGNAL);
}

/* false: it hangs up or says nothing */
static bool peer_take_message(struct smtp_peer *p)
{
	char line[2000], answer[400] = "250 2.0.0 taken", id[400] = "?";
	bool ended = false;
	while (!ended && fgets(line, sizeof line, p->in)) {
		line[strcspn(line, "\r\n")] = 0;
		if (!strncmp(line, "X-Dot: ", 7))
			snprintf(answer, sizeof answer, "%.390s", line + 7);
		if (!strncmp(line, "Message-ID: ", 12))
			snprintf(id, sizeof id, "%.390s", line + 12);
		ended = !strcmp(line, ".");
	}
	if (!ended || p->server->close_at_dot)
		return false;
	if (answer[0] == '2' || answer[0] == 'c' || answer[0] == 's') {
		(void)!dprintf(p->server->record, "%s\n", id);
		fsync(p->server->record);
	}
	if (!strcmp(answer, "close"))
		return false;
	if (strcmp(answer, "silent"))
		peer_say(p, answer);
	return true;
}

static void peer_rcpt(struct smtp_peer *p, const char *line)
{
	p->server->rcpts++;
	if (p->server->most && ++p->rcpts > p->server->most)
		peer_say(p, "452 4.5.3 too many recipients");
	else if (strstr(line, "<no"))
		peer_say(p, "550 5.1.1 no such user");
	else if (strstr(line, "<later") && !p->server->accept_later)
		peer_say(p, "451 4.7.1 greylisted");
	else
		peer_say(p, "250 2.1.5 ok");
}

static void *peer_main(void *context)
{
	struct smtp_peer *p = context;
	char line[2000];
	peer_say(p, "220 test");
	while (fgets(line, sizeof line, p->in)) {
		if (!strncmp(line, "EHLO", 4))
			peer_say(p, "250-test\r\n250-SIZE 5000000\r\n250 8BITMIME");
		else if (!strncmp(line, "MAIL", 4)) {
			p->rcpts = 0;
			p->server->null_senders += !strncmp(line, "MAIL FROM:<> ", 13);
			peer_say(p, "250 ok");
		} else if (!strncmp(line, "RCPT", 4))
			peer_rcpt(p, line);
		else if (!strncmp(line, "QUIT", 4))
			break;
		else if (!strncmp(line, "DATA", 4)) {
			peer_say(p, "354 go");
			if (!peer_take_message(p))
				break;
		} else
			peer_say(p, "250 ok");
	}
	shutdown(p->fd, SHUT_RDWR);
	fclose(p->in);
	free(p);
	return NULL;
}

/* outbox_options.connect; the context is the server */
static enum mf_err server_connect(void *context, struct cancel *cancel, struct smtp **ret, struct mf_reason *why)
{
	struct smtp_server *s = context;
	int pair[2];
	if (s->refuse)
		return mf_fail(why, (enum mf_err)s->refuse, "refused by the test");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) || s->session_count == 256)
		abort();
	struct smtp_peer *p = calloc(1, sizeof *p);
	*p = (struct smtp_peer){ s, fdopen(pair[1], "r"), pair[1], 0 };
	s->connections++;
	s->sessions[s->session_count].fd = pair[1];
	if (pthread_create(&s->sessions[s->session_count++].thread, NULL, peer_main, p))
		abort();
	struct smtp_options o = {
		.transport = { .host = "smtp.test", .port = 587, .connect_timeout_ms = 20000, .cancel = cancel },
		.times = { 20000, 20000, s->dot_ms ? s->dot_ms : 20000 }, .adopt = true, .adopted = pair[0],
	};
	return smtp_open(&o, ret, why);
}

static void server_join(struct smtp_server *s)
{
	for (unsigned i = 0; i < s->session_count; i++)
		pthread_join(s->sessions[i].thread, NULL);
	s->session_count = 0;
}

#endif

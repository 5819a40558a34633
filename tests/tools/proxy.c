/* proxy: a TCP proxy on the loopback that behaves like a long or a broken line.
 *
 *   proxy --listen PORT --to PORT --control SOCKET [--delay MS]
 *
 * Every byte arrives MS milliseconds later than it was sent, each way, and a connection costs the round trip that TCP's
 * handshake would. Faults and counters are asked for over the control socket, one line each, answered by one line of JSON:
 *
 *   stats              {"connections":N,"open":N,"up":BYTES,"down":BYTES,"turns":N,"heard":NS}; up is to the server; a turn
 *                      is the client speaking after it has heard something: a round trip it waited for; heard is when the
 *                      server first spoke since the reset (CLOCK_MONOTONIC; 0: it has not)
 *   reset              counters to zero
 *   delay MS           from now on
 *   rate BYTES         to the client, per second; 0 is unlimited
 *   cut BYTES [TIMES]  each of the next TIMES connections (0: all) is reset after BYTES to the client; "cut 0" ends that
 *   mode normal        | silent: new connections are accepted and never answered | reset: they are reset at once
 *   pause, resume      nothing moves, in any connection
 *   drop               all connections are reset now
 *   quit */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINES 1000
#define QUEUE_LIMIT ((size_t)64 << 20)

struct chunk {
	struct chunk *next;
	int64_t due;                       /* ns, CLOCK_MONOTONIC */
	size_t len, off;
	char data[];
};
struct flow {                              /* one direction of a connection */
	struct chunk *head, **tail;
	size_t queued;
	bool eof, closed;
};
struct line {                              /* one proxied connection */
	int client, server;                /* server -1: not connected yet, or never (silent) */
	int64_t connect_at;
	int64_t not_before;                /* what the client says earlier is not on the wire yet */
	bool silent, client_spoke_last;
	uint64_t down;
	uint64_t cut;                      /* 0: never */
	struct flow up, to_client;
};
enum mode { MODE_NORMAL, MODE_SILENT, MODE_RESET };

static struct line *lines[MAX_LINES];
static size_t line_count;
static struct { uint64_t connections, up, down, turns, heard; } counters;
static int64_t delay_ns;
static uint64_t rate, cut_bytes;
static long cut_times;                     /* -1: every one */
static double allowance;                   /* of the rate: bytes that may go now */
static int64_t allowance_at;
static enum mode mode;
static bool paused;
static uint16_t target_port;

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fatal(const char *what)
{
	perror(what);
	exit(1);
}

static void reset_socket(int fd)
{
	if (fd < 0)
		return;
	struct linger linger = { 1, 0 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
}

static void flow_finish(struct flow *flow)
{
	for (struct chunk *chunk = flow->head, *next; chunk; chunk = next) {
		next = chunk->next;
		free(chunk);
	}
}

static void line_remove(size_t i, bool reset)
{
	struct line *line = lines[i];
	if (reset) {
		reset_socket(line->client);
		reset_socket(line->server);
	} else {
		close(line->client);
		if (line->server >= 0)
			close(line->server);
	}
	flow_finish(&line->up);
	flow_finish(&line->to_client);
	free(line);
	lines[i] = lines[--line_count];
}

static void line_accept(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	counters.connections++;
	if (mode == MODE_RESET || line_count == MAX_LINES) {
		reset_socket(fd);
		return;
	}
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct line *line = calloc(1, sizeof *line);
	if (!line)
		fatal("calloc");
	int64_t now = now_ns();
	*line = (struct line){ .client = fd, .server = -1, .connect_at = now + 3 * delay_ns, .not_before = now + 3 * delay_ns,
		.silent = mode == MODE_SILENT };
	line->up.tail = &line->up.head;
	line->to_client.tail = &line->to_client.head;
	if (cut_bytes && cut_times) {
		line->cut = cut_bytes;
		if (cut_times > 0)
			cut_times--;
	}
	lines[line_count++] = line;
}

static bool line_connect(struct line *line)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(target_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	int one = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	line->server = fd;
	return true;
}

/* Reads what is there; false: the connection broke. */
static bool flow_read(struct line *line, struct flow *flow, int from, bool up)
{
	static char data[65536];
	ssize_t n = recv(from, data, sizeof data, 0);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0) {
		flow->eof = true;
		return true;
	}
	struct chunk *chunk = malloc(sizeof *chunk + (size_t)n);
	if (!chunk)
		fatal("malloc");
	int64_t due = now_ns() + delay_ns;
	*chunk = (struct chunk){ .due = up && due < line->not_before ? line->not_before : due, .len = (size_t)n };
	memcpy(chunk->data, data, (size_t)n);
	*flow->tail = chunk;
	flow->tail = &chunk->next;
	flow->queued += (size_t)n;
	if (!up && !counters.heard)
		counters.heard = (uint64_t)now_ns();
	if (up && !line->client_spoke_last)
		counters.turns++;
	if (up) {
		counters.up += (uint64_t)n;
		line->client_spoke_last = true;
	}
	return true;
}

static size_t allowed(size_t wanted, bool up)
{
	if (up || !rate)
		return wanted;
	int64_t now = now_ns();
	allowance += (double)rate * (double)(now - allowance_at) / 1e9;
	allowance_at = now;
	if (allowance > (double)rate / 20)
		allowance = (double)rate / 20 > 1 ? (double)rate / 20 : 1;
	return (double)wanted < allowance ? wanted : (size_t)allowance;
}

/* Writes what is due; false: broken, or cut. */
static bool flow_write(struct line *line, struct flow *flow, int to, bool up)
{
	int64_t now = now_ns();
	while (flow->head && flow->head->due <= now) {
		struct chunk *chunk = flow->head;
		size_t len = allowed(chunk->len - chunk->off, up);
		if (!up && line->cut && line->down + len > line->cut)
			len = (size_t)(line->cut - line->down);
		if (len == 0)
			return up || !line->cut || line->down < line->cut;
		ssize_t n = send(to, chunk->data + chunk->off, len, MSG_NOSIGNAL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (!up) {
			counters.down += (uint64_t)n;
			line->down += (uint64_t)n;
			line->client_spoke_last = false;
			if (rate)
				allowance -= (double)n;
		}
		chunk->off += (size_t)n;
		flow->queued -= (size_t)n;
		if (chunk->off < chunk->len)
			continue;
		flow->head = chunk->next;
		if (!flow->head)
			flow->tail = &flow->head;
		free(chunk);
	}
	if (flow->eof && !flow->head && !flow->closed) {
		flow->closed = true;
		shutdown(to, SHUT_WR);
	}
	return true;
}

/* --- control ---------------------------------------------------------------------------------------------------- */

static void drop_all(void)
{
	while (line_count)
		line_remove(0, true);
}

static void stats(char *answer, size_t size)
{
	snprintf(answer, size, "{\"connections\":%llu,\"open\":%zu,\"up\":%llu,\"down\":%llu,\"turns\":%llu,\"heard\":%llu}\n",
		(unsigned long long)counters.connections, line_count, (unsigned long long)counters.up,
		(unsigned long long)counters.down, (unsigned long long)counters.turns, (unsigned long long)counters.heard);
}

static bool command(const char *text, char *answer, size_t size)
{
	char word[32] = "", argument[32] = "";
	long long times = 0;
	sscanf(text, "%31s %31s %lld", word, argument, &times);
	long long number = strtoll(argument, NULL, 10);
	snprintf(answer, size, "{}\n");
	if (!strcmp(word, "stats")) {
		stats(answer, size);
	} else if (!strcmp(word, "reset")) {
		memset(&counters, 0, sizeof counters);
	} else if (!strcmp(word, "delay")) {
		delay_ns = number * 1000000;
	} else if (!strcmp(word, "rate")) {
		rate = (uint64_t)number;
		allowance = 0;
		allowance_at = now_ns();
	} else if (!strcmp(word, "cut")) {
		cut_bytes = (uint64_t)number;
		cut_times = times > 0 ? (long)times : -1;
		for (size_t i = 0; !number && i < line_count; i++)
			lines[i]->cut = 0;
	} else if (!strcmp(word, "mode")) {
		mode = !strcmp(argument, "silent") ? MODE_SILENT : !strcmp(argument, "reset") ? MODE_RESET : MODE_NORMAL;
	} else if (!strcmp(word, "pause") || !strcmp(word, "resume")) {
		paused = word[0] == 'p';
	} else if (!strcmp(word, "drop")) {
		drop_all();
	} else if (!strcmp(word, "quit")) {
		return false;
	} else {
		snprintf(answer, size, "{\"error\":\"unknown command\"}\n");
	}
	return true;
}

static bool control_serve(int listener)
{
	char text[256] = "", answer[256];
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return true;
	struct timeval patience = { 2, 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	bool go_on = true;
	if (recv(fd, text, sizeof text - 1, 0) > 0) {
		go_on = command(text, answer, sizeof answer);
		send(fd, answer, strlen(answer), MSG_NOSIGNAL);
	}
	close(fd);
	return go_on;
}

/* --- the loop ------------------------------------------------------------------------------------------------------ */

static void earlier(int64_t *when, int64_t candidate)
{
	if (candidate < *when)
		*when = candidate;
}

static short flow_events(const struct flow *flow, bool reading, int64_t now, int64_t *wake)
{
	if (reading)
		return !flow->eof && flow->queued < QUEUE_LIMIT ? POLLIN : 0;
	if (!flow->head)
		return 0;
	if (flow->head->due > now || (rate && allowance < 1)) {
		earlier(wake, flow->head->due > now ? flow->head->due : now + 5000000);
		return 0;
	}
	return POLLOUT;
}

/* Two entries for each line, from at on. */
static size_t poll_prepare(struct pollfd *p, int64_t now, int64_t *wake)
{
	size_t n = 0;
	for (size_t i = 0; i < line_count; i++) {
		struct line *line = lines[i];
		bool waiting = line->server < 0 && !line->silent;
		if (waiting)
			earlier(wake, line->connect_at);
		short client = paused ? 0 : (short)(flow_events(&line->up, true, now, wake) | flow_events(&line->to_client, false, now, wake));
		short server = paused ? 0 : (short)(flow_events(&line->to_client, true, now, wake) | flow_events(&line->up, false, now, wake));
		p[n++] = (struct pollfd){ .fd = line->client, .events = client };
		p[n++] = (struct pollfd){ .fd = line->server, .events = server };
	}
	return n;
}

static bool line_work(struct line *line, const struct pollfd *p)
{
	if (line->server < 0 && !line->silent)
		return now_ns() < line->connect_at || line_connect(line);
	if (paused)
		return true;
	if (line->silent) {
		line->up.queued = 0;
		return !(p[0].revents & POLLIN) || (flow_read(line, &line->up, line->client, true) && !line->up.eof);
	}
	if ((p[0].revents & (POLLIN | POLLHUP | POLLERR)) && !line->up.eof && !flow_read(line, &line->up, line->client, true))
		return false;
	if ((p[1].revents & (POLLIN | POLLHUP | POLLERR)) && !line->to_client.eof && !flow_read(line, &line->to_client, line->server, false))
		return false;
	return flow_write(line, &line->up, line->server, true) && flow_write(line, &line->to_client, line->client, false);
}

static void serve(int listener, int control)
{
	static struct pollfd p[2 + 2 * MAX_LINES];
	for (;;) {
		int64_t now = now_ns(), wake = now + 1000000000;
		if (rate)
			(void)allowed(0, false);
		p[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
		p[1] = (struct pollfd){ .fd = control, .events = POLLIN };
		size_t count = line_count, n = 2 + poll_prepare(p + 2, now, &wake);
		int64_t left = wake > now ? wake - now : 0;
		struct timespec timeout = { (time_t)(left / 1000000000), (long)(left % 1000000000) };
		if (ppoll(p, n, &timeout, NULL) < 0 && errno != EINTR)
			fatal("ppoll");
		for (size_t i = count; i-- > 0;) {  /* backwards: removing moves the last one, which was done already */
			struct line *line = lines[i];
			bool sound = line_work(line, p + 2 + 2 * i);
			if (!sound || (line->up.closed && line->to_client.closed))
				line_remove(i, !sound);
		}
		if (p[0].revents)
			line_accept(listener);
		if (p[1].revents && !control_serve(control))
			return;
	}
}

static int listen_tcp(uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (fd < 0)
		fatal("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 200) < 0)
		fatal("listen");
	return fd;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof at.sun_path) {
		fprintf(stderr, "proxy: path too long\n");
		exit(1);
	}
	memcpy(at.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, 20) < 0)
		fatal(path);
	return fd;
}

int main(int argc, char **argv)
{
	const char *control = NULL;
	uint16_t port = 0;
	for (int i = 1; i + 1 < argc; i += 2) {
		long number = strtol(argv[i + 1], NULL, 10);
		if (!strcmp(argv[i], "--listen"))
			port = (uint16_t)number;
		else if (!strcmp(argv[i], "--to"))
			target_port = (uint16_t)number;
		else if (!strcmp(argv[i], "--delay"))
			delay_ns = (int64_t)number * 1000000;
		else if (!strcmp(argv[i], "--control"))
			control = argv[i + 1];
	}
	if (!port || !target_port || !control) {
		fprintf(stderr, "usage: proxy --listen PORT --to PORT --control SOCKET [--delay MS]\n");
		return 2;
	}
	prctl(PR_SET_TIMERSLACK, 1);
	int listener = listen_tcp(port), control_fd = listen_unix(control);
	serve(listener, control_fd);
	drop_all();
	unlink(control);
	return 0;
}

/* net/transport over plain connections: failures, deadlines, the stop sign, buffers */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netdb.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "net/layers.h"
#include "net/transport.h"
#include "support/net_server.h"

#define PATIENT_MS 20000 /* never reached by a test that passes */

static struct cancel stop;

static int set_up(void **state)
{
	(void)state;
	return cancel_init(&stop) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	cancel_finish(&stop);
	return 0;
}

static struct transport_options options_for(uint16_t port)
{
	return (struct transport_options){
		.host = "127.0.0.1", .port = port, .connect_timeout_ms = PATIENT_MS, .io_timeout_ms = PATIENT_MS, .cancel = &stop,
	};
}

/* a transport and the other end of its socketpair */
static struct transport *adopt(int *ret_other, int64_t io_timeout_ms)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct transport_options o = options_for(143);
	o.io_timeout_ms = io_timeout_ms;
	struct transport *t = NULL;
	struct mf_reason why;
	assert_int_equal(transport_adopt(fds[0], &o, &t, &why), MF_OK);
	*ret_other = fds[1];
	return t;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void assert_read(struct transport *t, const char *text)
{
	char data[256];
	size_t len = strlen(text), at = 0;
	while (at < len) {
		size_t n = 0;
		assert_int_equal(transport_read(t, data + at, len - at, &n), MF_OK);
		assert_true(n > 0);
		at += n;
	}
	assert_memory_equal(data, text, len);
}

static void assert_dead(struct transport *t, enum mf_err e, const char *words)
{
	char byte;
	size_t n = 77;
	bool readable = true;
	assert_int_equal(transport_error(t), e);
	if (!strstr(transport_reason(t), words))
		fail_msg("\"%s\" is not in \"%s\"", words, transport_reason(t));
	assert_int_equal(transport_read(t, &byte, 1, &n), e);
	assert_int_equal(n, 77);
	assert_int_equal(transport_write(t, "x", 1), e);
	assert_int_equal(transport_flush(t), e);
	assert_int_equal(transport_wait(t, 0, -1, &readable), e);
	assert_int_equal(transport_start_tls(t), e);
	assert_int_equal(transport_start_deflate(t), e);
	assert_true(readable);
}

/* --- connecting */

static void echo(struct peer *p)
{
	char data[65536];
	ssize_t n;
	while ((n = peer_read(p, data, sizeof data)) > 0)
		if (!peer_write(p, data, (size_t)n))
			return;
}

static void says_and_answers(void **state)
{
	(void)state;
	struct server s;
	server_start(&s, echo, NULL);
	struct traffic traffic = { 0 };
	struct transport_options o = options_for(s.port);
	o.traffic = &traffic;
	struct transport *t = NULL;
	assert_int_equal(transport_open(&o, &t, NULL), MF_OK);
	char peer[64];
	snprintf(peer, sizeof peer, "127.0.0.1 [127.0.0.1]:%u", s.port);
	assert_string_equal(transport_peer(t), peer);
	assert_false(transport_is_encrypted(t));
	assert_int_equal(transport_write(t, "hello ", 6), MF_OK);
	assert_int_equal(transport_write(t, "world", 5), MF_OK);
	assert_read(t, "hello world"); /* sends by itself what it waits for the answer to */
	assert_int_equal(traffic.received, 11);
	assert_int_equal(traffic.sent, 11);
	assert_true(fcntl(((const struct transport *)t)->fd, F_GETFD) & FD_CLOEXEC);
	transport_destroy(t);
	server_stop(&s);
}

static void name_is_looked_up(void **state)
{
	(void)state;
	struct server s;
	server_start(&s, echo, NULL);
	struct transport_options o = options_for(s.port);
	o.host = "localhost";
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(transport_open(&o, &t, &why), MF_OK); /* where ::1 comes first, it is refused */
	transport_destroy(t);
	server_stop(&s);
	o.host = "no-such-host.invalid";
	assert_int_equal(transport_open(&o, &t, &why), MF_OFFLINE);
	assert_non_null(strstr(why.text, "no-such-host.invalid: the name could not be looked up"));
}

static void lookup_obeys_the_stop_sign(void **state)
{
	(void)state;
	struct transport_options o = options_for(1);
	o.host = "localhost";
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	cancel_raise(&stop);
	assert_int_equal(transport_open(&o, &t, &why), MF_CANCELLED);
	cancel_clear(&stop);
	o.connect_timeout_ms = 0;
	assert_int_equal(transport_open(&o, &t, &why), MF_TIMEOUT);
}

static struct addrinfo address_of(struct sockaddr_in *to, uint16_t port, struct addrinfo *next)
{
	*to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	return (struct addrinfo){ .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_addr = (struct sockaddr *)to, .ai_addrlen = sizeof *to,
	                          .ai_next = next };
}

static uint16_t closed_port(void)
{
	int fd;
	uint16_t port = net_listen(&fd, 1);
	close(fd);
	return port;
}

/* refused, then silent, then one that answers */
static void every_address_is_tried(void **state)
{
	(void)state;
	struct server s;
	struct blackhole b;
	server_start(&s, echo, NULL);
	blackhole_open(&b);
	struct sockaddr_in to[3];
	struct addrinfo good = address_of(&to[2], s.port, NULL);
	struct addrinfo silent = address_of(&to[1], b.port, &good);
	struct addrinfo refused = address_of(&to[0], closed_port(), &silent);
	struct transport_options o = options_for(s.port);
	int fd = -1;
	char address[ADDRESS_CHARS];
	struct mf_reason why = { "" };
	assert_int_equal(connect_addresses(&o, &refused, clock_mono_ms() + PATIENT_MS, &fd, address, &why), MF_OK);
	struct sockaddr_in other;
	socklen_t size = sizeof other;
	assert_int_equal(getpeername(fd, (struct sockaddr *)&other, &size), 0);
	assert_int_equal(ntohs(other.sin_port), s.port);
	close(fd);
	refused.ai_next = NULL;
	assert_int_equal(connect_addresses(&o, &refused, clock_mono_ms() + PATIENT_MS, &fd, address, &why), MF_OFFLINE);
	assert_non_null(strstr(why.text, "Connection refused (127.0.0.1)"));
	blackhole_close(&b);
	server_stop(&s);
}

static void silent_address_times_out_or_is_cancelled(void **state)
{
	(void)state;
	struct blackhole b;
	blackhole_open(&b);
	struct transport_options o = options_for(b.port);
	struct transport *t = NULL;
	struct mf_reason why = { "" };
	o.connect_timeout_ms = 30;
	assert_int_equal(transport_open(&o, &t, &why), MF_TIMEOUT);
	assert_non_null(strstr(why.text, "no answer within 30 ms"));
	o.connect_timeout_ms = PATIENT_MS;
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_open(&o, &t, &why), MF_CANCELLED);
	canceller_join(&c);
	assert_null(t);
	blackhole_close(&b);
}

/* --- reading */

static void end_of_connection_at_every_offset(void **state)
{
	(void)state;
	static const char text[] = "* OK ready\r\n* 1 FETCH (BODY[] {5}\r\nhello)\r\n";
	for (size_t cut = 0; cut < sizeof text; cut++) {
		int other;
		struct transport *t = adopt(&other, PATIENT_MS);
		transport_guard_imap(t, 1000);
		if (cut)
			assert_int_equal(send(other, text, cut, 0), cut);
		close(other);
		char data[100];
		size_t at = 0, n = 0;
		enum mf_err e;
		while (!(e = transport_read(t, data + at, sizeof data - at, &n)))
			at += n;
		assert_int_equal(e, MF_OFFLINE);
		assert_int_equal(at, cut);
		assert_memory_equal(data, text, cut);
		assert_dead(t, MF_OFFLINE, "closed the connection");
		transport_destroy(t);
	}
}

static void silence_in_mid_read(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, 30);
	say(other, "* 1 FE");
	assert_read(t, "* 1 FE");
	char data[10];
	size_t n = 0;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TIMEOUT);
	assert_dead(t, MF_TIMEOUT, "nothing moved for 30 ms");
	transport_destroy(t);
	close(other);
}

static void deadline_ends_a_read(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	char data[10];
	size_t n = 0;
	transport_set_deadline(t, clock_mono_ms() + 30);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_TIMEOUT);
	assert_dead(t, MF_TIMEOUT, "longer than it may");
	transport_destroy(t);
	close(other);
}

/* a server that always has something to send does not get past it */
static void deadline_holds_against_a_flood(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	say(other, "abc");
	transport_set_deadline(t, clock_mono_ms());
	char byte;
	size_t n = 0;
	assert_int_equal(transport_read(t, &byte, 1, &n), MF_TIMEOUT);
	transport_destroy(t);
	close(other);
}

static void stop_sign_ends_a_read(void **state)
{
	(void)state;
	int other;
	char data[10];
	size_t n = 0;
	struct canceller c;
	struct transport *t = adopt(&other, PATIENT_MS);
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_CANCELLED);
	canceller_join(&c);
	cancel_clear(&stop);
	assert_dead(t, MF_CANCELLED, "interrupted");
	transport_destroy(t);
	close(other);

	t = adopt(&other, PATIENT_MS); /* seen before anything is read, too */
	say(other, "data");
	cancel_raise(&stop);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_CANCELLED);
	transport_destroy(t);
	close(other);
}

static void budget_holds(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	transport_set_budget(t, 10);
	say(other, "0123456789");
	assert_read(t, "0123456789");
	transport_set_budget(t, 3);
	say(other, "012");
	assert_read(t, "012");
	say(other, "3");
	char byte;
	size_t n = 0;
	assert_int_equal(transport_read(t, &byte, 1, &n), MF_PROTOCOL);
	assert_dead(t, MF_PROTOCOL, "more than the 3 bytes");
	transport_destroy(t);
	close(other);
}

static void guard_kills(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	transport_guard_imap(t, 1000);
	say(other, "* OK [BADCHARSET (\"x\")] hi\r\n");
	char data[100];
	size_t n = 0;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_PROTOCOL);
	assert_dead(t, MF_PROTOCOL, "BADCHARSET");
	transport_destroy(t);
	close(other);
}

/* --- writing */

static void *drain_slowly(void *argument)
{
	int fd = *(int *)argument;
	size_t total = 0;
	char data[8192];
	ssize_t n;
	while ((n = recv(fd, data, sizeof data, 0)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			NET_MUST(data[i] == (char)((total + (size_t)i) % 251));
		total += (size_t)n;
	}
	return (void *)(uintptr_t)total;
}

static void long_writes_arrive_in_order(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, drain_slowly, &other), 0);
	size_t len = 3000000, at = 0;
	char *data = malloc(len);
	for (size_t i = 0; i < len; i++)
		data[i] = (char)(i % 251);
	for (size_t piece = 1; at < len; piece = piece * 3 + 1) {
		size_t n = len - at < piece ? len - at : piece;
		assert_int_equal(transport_write(t, data + at, n), MF_OK);
		at += n;
	}
	assert_int_equal(transport_flush(t), MF_OK);
	transport_destroy(t);
	void *total;
	pthread_join(thread, &total);
	assert_int_equal((uintptr_t)total, len);
	free(data);
	close(other);
}

static void write_to_a_full_pipe_times_out_or_is_cancelled(void **state)
{
	(void)state;
	static char block[1 << 20];
	int other;
	struct transport *t = adopt(&other, 30);
	enum mf_err e = MF_OK;
	for (int i = 0; i < 64 && !e; i++)
		e = transport_write(t, block, sizeof block);
	assert_int_equal(e, MF_TIMEOUT);
	assert_dead(t, MF_TIMEOUT, "nothing moved");
	transport_destroy(t);
	close(other);

	t = adopt(&other, PATIENT_MS);
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	for (e = MF_OK; !e;)
		e = transport_write(t, block, sizeof block);
	canceller_join(&c);
	assert_int_equal(e, MF_CANCELLED);
	transport_destroy(t);
	close(other);
}

/* Everything that is still to come, and 0 or the errno that it ends with */
static int read_out(int fd, size_t *ret_len)
{
	static char data[65536];
	ssize_t n;
	for (*ret_len = 0; (n = recv(fd, data, sizeof data, 0)) > 0;)
		*ret_len += (size_t)n;
	return n ? errno : 0;
}

/* A server must not get later what is sent again on another connection; what is said last gets there. */
static void given_up_is_not_sent_later(void **state)
{
	(void)state;
	static char block[1 << 20];
	int listener, peer;
	struct transport_options o = options_for(net_listen(&listener, 2));
	struct transport *t = NULL;
	size_t len;
	o.io_timeout_ms = 30;
	assert_int_equal(transport_open(&o, &t, NULL), MF_OK);
	enum mf_err e = MF_OK;
	for (int i = 0; i < 64 && !e; i++)
		e = transport_write(t, block, sizeof block);
	assert_int_equal(e, MF_TIMEOUT);
	transport_destroy(t);
	peer = accept(listener, NULL, NULL);
	assert_int_equal(read_out(peer, &len), ECONNRESET);
	close(peer);

	assert_int_equal(transport_open(&o, &t, NULL), MF_OK);
	assert_int_equal(transport_write(t, "bye", 3), MF_OK);
	assert_int_equal(transport_flush(t), MF_OK);
	transport_destroy(t);
	peer = accept(listener, NULL, NULL);
	assert_int_equal(read_out(peer, &len), 0);
	assert_int_equal(len, 3);
	close(peer);
	close(listener);
}

/* SIGPIPE has its default disposition here: it would end this program */
static void closed_pipe_raises_no_signal(void **state)
{
	(void)state;
	struct sigaction action;
	assert_int_equal(sigaction(SIGPIPE, NULL, &action), 0);
	assert_true(action.sa_handler == SIG_DFL);
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	close(other);
	static char block[1 << 18];
	enum mf_err e = transport_write(t, block, sizeof block);
	if (!e)
		e = transport_flush(t);
	assert_int_equal(e, MF_OFFLINE);
	assert_dead(t, MF_OFFLINE, "cut the connection");
	transport_destroy(t);
}

/* sends much before it reads anything: the other way about than we do */
static void *sends_first(void *argument)
{
	int fd = *(int *)argument;
	static char block[1 << 20];
	memset(block, 'x', sizeof block);
	size_t at = 0;
	while (at < sizeof block) {
		ssize_t n = send(fd, block + at, sizeof block - at, MSG_NOSIGNAL);
		NET_MUST(n > 0);
		at += (size_t)n;
	}
	size_t total = 0;
	ssize_t n;
	char data[65536];
	while ((n = recv(fd, data, sizeof data, 0)) > 0)
		total += (size_t)n;
	return (void *)(uintptr_t)total;
}

static void two_full_pipes_do_not_lock(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, sends_first, &other), 0);
	static char block[2 << 20];
	assert_int_equal(transport_write(t, block, sizeof block), MF_OK);
	assert_int_equal(transport_flush(t), MF_OK);
	static char data[1 << 20];
	size_t at = 0;
	while (at < sizeof data) {
		size_t n = 0;
		assert_int_equal(transport_read(t, data + at, sizeof data - at, &n), MF_OK);
		at += n;
	}
	for (size_t i = 0; i < sizeof data; i++)
		if (data[i] != 'x')
			fail();
	transport_destroy(t);
	void *total;
	pthread_join(thread, &total);
	assert_int_equal((uintptr_t)total, sizeof block);
	close(other);
}

/* what the server said before it closed is there, though we were sending just then */
static void last_words_are_read(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	say(other, "* BYE\r\n");
	assert_int_equal(shutdown(other, SHUT_WR), 0);
	assert_int_equal(transport_write(t, "A1 NOOP\r\n", 9), MF_OK);
	assert_int_equal(transport_flush(t), MF_OK);
	assert_read(t, "* BYE\r\n");
	char byte;
	size_t n = 0;
	assert_int_equal(transport_read(t, &byte, 1, &n), MF_OFFLINE);
	transport_destroy(t);
	close(other);
}

/* --- waiting */

static void wait_is_woken_by_each(void **state)
{
	(void)state;
	int other, wake = eventfd(0, EFD_CLOEXEC);
	bool readable = true;
	struct transport *t = adopt(&other, PATIENT_MS);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
	assert_int_equal(transport_wait(t, 5, wake, &readable), MF_TIMEOUT);
	assert_int_equal(transport_error(t), MF_OK);
	assert_int_equal(eventfd_write(wake, 1), 0);
	assert_int_equal(transport_wait(t, -1, wake, &readable), MF_OK);
	assert_false(readable);
	say(other, "+ idling\r\n* 3 EXISTS\r\n");
	assert_int_equal(transport_wait(t, -1, wake, &readable), MF_OK);
	assert_true(readable);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_OK); /* nothing was lost */
	assert_true(readable);
	char line[64];
	mailstream *stream = transport_mailstream(t);
	assert_ptr_equal(transport_mailstream(t), stream);
	assert_int_equal(mailstream_read(stream, line, 10), 10);
	assert_memory_equal(line, "+ idling\r\n", 10);
	readable = false;
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OK); /* in libetpan's buffer by now */
	assert_true(readable);
	assert_int_equal(mailstream_read(stream, line, 12), 12);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
	assert_int_equal(transport_write(t, "DONE\r\n", 6), MF_OK);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT); /* but it was sent */
	assert_int_equal(recv(other, line, sizeof line, MSG_DONTWAIT), 6);
	struct canceller c;
	canceller_start(&c, &stop, NULL);
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_CANCELLED);
	canceller_join(&c);
	transport_destroy(t);
	close(other);
	close(wake);
}

static void wait_sees_the_end(void **state)
{
	(void)state;
	int other;
	bool readable = true;
	struct transport *t = adopt(&other, PATIENT_MS);
	close(other);
	assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OFFLINE);
	assert_dead(t, MF_OFFLINE, "closed the connection");
	transport_destroy(t);
}

/* --- libetpan's view */

static void stream_fails_for_good(void **state)
{
	(void)state;
	int other;
	struct transport *t = adopt(&other, PATIENT_MS);
	mailstream *stream = transport_mailstream(t);
	char data[32];
	assert_int_equal(mailstream_write(stream, "A1 X\r\n", 6), 6);
	assert_int_equal(mailstream_flush(stream), 0);
	assert_int_equal(recv(other, data, sizeof data, MSG_DONTWAIT), 6);
	close(other);
	assert_int_equal(mailstream_read(stream, data, 1), -1);
	assert_int_equal(mailstream_read(stream, data, 1), -1);
	assert_int_equal(mailstream_write(stream, data, 1) == 1 ? mailstream_flush(stream) : -1, -1);
	transport_destroy(t);

	t = adopt(&other, PATIENT_MS); /* closed by libetpan's own hand first */
	mailstream_close(transport_mailstream(t));
	transport_destroy(t);
	close(other);
}

static void high_descriptors_work(void **state)
{
	(void)state;
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur < 2000) {
		limit.rlim_cur = limit.rlim_max < 2000 ? limit.rlim_max : 2000;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	}
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	int high = fcntl(fds[0], F_DUPFD, 1500);
	assert_true(high >= 1500);
	close(fds[0]);
	struct transport_options o = options_for(143);
	struct transport *t = NULL;
	struct mf_reason why;
	bool readable = true;
	assert_int_equal(transport_adopt(high, &o, &t, &why), MF_OK);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
	say(fds[1], "hello");
	char data[5];
	assert_int_equal(mailstream_read(transport_mailstream(t), data, 5), 5);
	transport_destroy(t);
	close(fds[1]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(says_and_answers), T(name_is_looked_up), T(lookup_obeys_the_stop_sign), T(every_address_is_tried),
		T(silent_address_times_out_or_is_cancelled), T(end_of_connection_at_every_offset), T(silence_in_mid_read),
		T(deadline_ends_a_read), T(deadline_holds_against_a_flood), T(stop_sign_ends_a_read), T(budget_holds), T(guard_kills),
		T(long_writes_arrive_in_order), T(write_to_a_full_pipe_times_out_or_is_cancelled), T(given_up_is_not_sent_later), T(closed_pipe_raises_no_signal),
		T(two_full_pipes_do_not_lock), T(last_words_are_read), T(wait_is_woken_by_each), T(wait_sees_the_end),
		T(stream_fails_for_good), T(high_descriptors_work),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* net/transport with DEFLATE: both ways, over TLS, begun in the middle of a buffer, and bombs */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <zlib.h>

#include "base/buf.h"
#include "net/layers.h"
#include "net/transport.h"
#include "support/net_server.h"

#define PATIENT_MS 20000

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

static struct traffic traffic;

static struct transport *adopt(int *ret_other)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct transport_options o = { .host = "test", .port = 143, .connect_timeout_ms = PATIENT_MS, .io_timeout_ms = PATIENT_MS,
	                               .cancel = &stop, .traffic = &traffic };
	struct transport *t = NULL;
	struct mf_reason why;
	assert_int_equal(transport_adopt(fds[0], &o, &t, &why), MF_OK);
	*ret_other = fds[1];
	return t;
}

/* len bytes, which the caller frees; a stream that goes on */
static unsigned char *pack(const void *data, size_t len, size_t *ret_len)
{
	z_stream z = { 0 };
	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
	size_t room = deflateBound(&z, len) + 64;
	unsigned char *packed = malloc(room);
	assert_non_null(packed);
	memcpy(&z.next_in, &data, sizeof data);
	z.avail_in = (uInt)len;
	z.next_out = packed;
	z.avail_out = (uInt)room;
	assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
	assert_true(z.avail_out > 0);
	*ret_len = room - z.avail_out;
	deflateEnd(&z);
	return packed;
}

static void send_all(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), len);
}

/* the other end: unpacks what comes, and packs it again to say it back */
struct echo {
	int fd;
	SSL_CTX *server_side;
};

static void echo_chunk(struct peer *p, z_stream *in, z_stream *out, unsigned char *data, size_t len)
{
	static unsigned char plain[65536], packed[131072];
	in->next_in = data;
	in->avail_in = (uInt)len;
	do {
		in->next_out = plain;
		in->avail_out = sizeof plain;
		int result = inflate(in, Z_SYNC_FLUSH);
		NET_MUST(result == Z_OK || result == Z_BUF_ERROR);
		out->next_in = plain;
		out->avail_in = sizeof plain - in->avail_out;
		if (!out->avail_in)
			return;
		out->next_out = packed;
		out->avail_out = sizeof packed;
		NET_MUST(deflate(out, Z_SYNC_FLUSH) == Z_OK && out->avail_out);
		if (!peer_write(p, packed, sizeof packed - out->avail_out))
			return;
	} while (!in->avail_out);
}

static void *echo_run(void *argument)
{
	struct echo *echo = argument;
	net_ignore_sigpipe_here();
	struct peer p = { .fd = echo->fd };
	z_stream in = { 0 }, out = { 0 };
	NET_MUST(inflateInit2(&in, -15) == Z_OK && deflateInit2(&out, 1, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	unsigned char data[5000];
	ssize_t n;
	if (!echo->server_side || peer_handshake(&p, echo->server_side))
		while ((n = peer_read(&p, data, sizeof data)) > 0)
			echo_chunk(&p, &in, &out, data, (size_t)n);
	inflateEnd(&in);
	deflateEnd(&out);
	SSL_free(p.ssl);
	return NULL;
}

/* reads back len bytes that were written as i * i % 253 */
static void assert_comes_back(struct transport *t, size_t len)
{
	static char data[65536];
	for (size_t at = 0; at < len;) {
		size_t n = 0;
		assert_int_equal(transport_read(t, data, len - at < sizeof data ? len - at : sizeof data, &n), MF_OK);
		for (size_t i = 0; i < n; i++, at++)
			if (data[i] != (char)(at * at % 253))
				fail_msg("byte %zu", at);
	}
}

static void round_trips(struct transport *t)
{
	static char data[1 << 20];
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (char)(i * i % 253);
	static const size_t sizes[] = { 1, 2, 100, 65535, 65536, 65537, sizeof data };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(transport_write(t, data, sizes[i]), MF_OK);
		assert_int_equal(transport_flush(t), MF_OK);
		assert_int_equal(transport_flush(t), MF_OK);
		assert_comes_back(t, sizes[i]);
		assert_int_equal(transport_write(t, data, 1), MF_OK); /* sent by the read */
		assert_comes_back(t, 1);
	}
	bool readable = true;
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
}

static void both_ways(void **state)
{
	(void)state;
	struct echo echo = { 0 };
	struct transport *t = adopt(&echo.fd);
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, echo_run, &echo), 0);
	traffic = (struct traffic){ 0 };
	assert_int_equal(transport_start_deflate(t), MF_OK);
	round_trips(t);
	assert_true(traffic.sent < 400000); /* of the wire: i * i % 253 packs well */
	assert_true(traffic.received < 400000);
	transport_destroy(t);
	pthread_join(thread, NULL);
	close(echo.fd);
}

static void over_tls(void **state)
{
	(void)state;
	struct identity id = identity_create(&(struct identity_options){ .name = "x" });
	struct tls_context *context = NULL;
	struct mf_reason why;
	assert_int_equal(tls_context_create(&(struct tls_options){ .trust = TRUST_ANY }, &context, &why), MF_OK);
	struct echo echo = { .server_side = server_context(&id) };
	struct transport *t = adopt(&echo.fd);
	t->options.tls = context;
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, echo_run, &echo), 0);
	assert_int_equal(transport_start_tls(t), MF_OK);
	assert_int_equal(transport_start_deflate(t), MF_OK);
	round_trips(t);
	assert_int_equal(transport_start_tls(t), MF_PROTOCOL);
	transport_destroy(t);
	pthread_join(thread, NULL);
	close(echo.fd);
	SSL_CTX_free(echo.server_side);
	tls_context_destroy(context);
	identity_finish(&id);
}

/* libetpan's may return less than was asked for */
static void assert_stream_read(struct transport *t, char *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = mailstream_read(transport_mailstream(t), data + at, len - at);
		assert_true(n > 0);
		at += (size_t)n;
	}
}

/* what came behind the answer is compressed, wherever it is; and the guard sees it anew */
static void begins_behind_the_answer(void **state)
{
	(void)state;
	static const char answer[] = "A1 OK\r\n";
	/* whoever took this for the rest of a line would find too many parentheses in it */
	static const char head[] = "* 1 FETCH (BODY[] {900}\r\n";
	char text[sizeof head - 1 + 900 + 3];
	memset(text, '(', sizeof text);
	memcpy(text, head, sizeof head - 1);
	memcpy(text + sizeof text - 3, ")\r\n", 3);
	size_t packed_len;
	unsigned char *packed = pack(text, sizeof text, &packed_len);
	for (size_t cut = 0; cut <= packed_len; cut++) {
		for (int in_stream = 0; in_stream < 2; in_stream++) {
			int other;
			char line[sizeof answer], data[sizeof text];
			size_t n = 0;
			bool readable;
			struct transport *t = adopt(&other);
			transport_guard_imap(t, 1000);
			send_all(other, answer, sizeof answer - 1);
			if (cut)
				send_all(other, packed, cut);
			if (in_stream) {
				assert_stream_read(t, line, sizeof answer - 1);
			} else {
				assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OK);
				assert_int_equal(transport_read(t, line, sizeof answer - 1, &n), MF_OK);
			}
			assert_int_equal(transport_start_deflate(t), MF_OK);
			if (cut < packed_len)
				send_all(other, packed + cut, packed_len - cut);
			assert_stream_read(t, data, sizeof data);
			assert_memory_equal(data, text, sizeof text);
			transport_destroy(t);
			close(other);
		}
	}
	free(packed);
}

static void bomb_meets_the_budget(void **state)
{
	(void)state;
	size_t len = 64U << 20, packed_len;
	char *zeros = calloc(1, len);
	unsigned char *packed = pack(zeros, len, &packed_len);
	free(zeros);
	assert_true(packed_len < 100000); /* a thousandth */
	int other;
	struct transport *t = adopt(&other);
	assert_int_equal(transport_start_deflate(t), MF_OK);
	transport_set_budget(t, 1 << 20);
	send_all(other, packed, packed_len);
	char data[32768];
	size_t at = 0, n = 0;
	enum mf_err e;
	while (!(e = transport_read(t, data, sizeof data, &n)))
		at += n;
	assert_int_equal(e, MF_PROTOCOL);
	assert_int_equal(at, 1 << 20);
	assert_non_null(strstr(transport_reason(t), "more than the 1048576 bytes"));
	transport_destroy(t);
	close(other);
	free(packed);
}

static void guard_looks_inside(void **state)
{
	(void)state;
	static const char text[] = "* OK [BADCHARSET (\"x\")] hi\r\n";
	size_t packed_len, n = 0;
	unsigned char *packed = pack(text, sizeof text - 1, &packed_len);
	int other;
	char data[100];
	struct transport *t = adopt(&other);
	transport_guard_imap(t, 1000);
	assert_int_equal(transport_start_deflate(t), MF_OK);
	send_all(other, packed, packed_len);
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_PROTOCOL);
	assert_non_null(strstr(transport_reason(t), "BADCHARSET"));
	transport_destroy(t);
	close(other);
	free(packed);
}

static void garbage_and_ends_are_told_apart(void **state)
{
	(void)state;
	static const struct { const char *bytes; size_t len; enum mf_err e; const char *words; } rows[] = {
		{ "\xff\xff\xff\xff", 4, MF_PROTOCOL, "not compressed as agreed" },
		{ "A1 OK plain\r\n", 13, MF_PROTOCOL, "not compressed as agreed" },
		{ "\x03\x00", 2, MF_PROTOCOL, "ended the compressed stream" },
		{ "\xf2", 1, MF_OFFLINE, "closed the connection" },
		{ "", 0, MF_OFFLINE, "closed the connection" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int other;
		char data[100];
		size_t n = 0;
		struct transport *t = adopt(&other);
		assert_int_equal(transport_start_deflate(t), MF_OK);
		if (rows[i].len)
			send_all(other, rows[i].bytes, rows[i].len);
		shutdown(other, SHUT_WR);
		assert_int_equal(transport_read(t, data, sizeof data, &n), rows[i].e);
		if (!strstr(transport_reason(t), rows[i].words))
			fail_msg("%s", transport_reason(t));
		transport_destroy(t);
		close(other);
	}
}

/* zlib holds more than the reader took: the descriptor says nothing of it */
static void wait_sees_what_zlib_holds(void **state)
{
	(void)state;
	static char text[40000];
	size_t packed_len, at = 0;
	unsigned char *packed = pack(text, sizeof text, &packed_len);
	int other;
	struct transport *t = adopt(&other);
	assert_int_equal(transport_start_deflate(t), MF_OK);
	send_all(other, packed, packed_len);
	while (at < sizeof text) {
		char data[1000];
		size_t n = 0;
		bool readable = false;
		assert_int_equal(transport_wait(t, -1, -1, &readable), MF_OK);
		assert_true(readable);
		assert_int_equal(transport_read(t, data, sizeof data, &n), MF_OK);
		at += n;
	}
	bool readable = false;
	assert_int_equal(at, sizeof text);
	assert_int_equal(transport_wait(t, 0, -1, &readable), MF_TIMEOUT);
	transport_destroy(t);
	close(other);
	free(packed);
}

/* --- blocks that unpack to nothing */

static unsigned blocks_left, blocks_until_stop;

/* instead of the C library's: as long as there are any, such blocks are there, however fast they are read */
ssize_t recv(int fd, void *data, size_t size, int flags)
{
	static const unsigned char block[] = { 0, 0, 0, 0xff, 0xff };
	if (!blocks_left)
		return syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL);
	if (--blocks_left == blocks_until_stop)
		cancel_raise(&stop);
	memcpy(data, block, sizeof block);
	return sizeof block;
}

static void empty_blocks_and_the_stop_sign(void **state)
{
	(void)state;
	int other;
	size_t len, n = 0;
	char data[64];
	struct transport *t = adopt(&other);
	unsigned char *packed = pack("at last", 7, &len);
	send_all(other, packed, len);
	assert_int_equal(transport_start_deflate(t), MF_OK);
	blocks_left = 1000;
	blocks_until_stop = 990;
	assert_int_equal(transport_read(t, data, sizeof data, &n), MF_CANCELLED);
	assert_int_equal(blocks_left, blocks_until_stop);
	blocks_left = 0;
	transport_destroy(t);
	close(other);
	free(packed);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(both_ways), T(over_tls), T(begins_behind_the_answer), T(bomb_meets_the_budget), T(guard_looks_inside),
		T(garbage_and_ends_are_told_apart), T(wait_sees_what_zlib_holds),
		T(empty_blocks_and_the_stop_sign),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

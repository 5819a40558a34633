/* floor: the least that a client can do. One connection, everything pipelined behind the greeting, all that comes is
 * counted and thrown away.
 *
 *   floor PORT CA-FILE USER PASSWORD MAILBOX meta|bodies
 *
 * Prints {"seconds":S,"fetch_seconds":S,"bytes":N}: from the first SYN; from the moment the commands were sent. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LAST_TAG "zq7f4"

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fatal(const char *what)
{
	fprintf(stderr, "floor: %s failed\n", what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static SSL *connect_tls(unsigned port, const char *ca)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fatal("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	if (!context || !SSL_CTX_load_verify_locations(context, ca, NULL))
		fatal("CA");
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_read_ahead(context, 1);
	SSL *ssl = SSL_new(context);
	SSL_CTX_free(context);
	if (!ssl || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1)
		fatal("TLS");
	return ssl;
}

static size_t credentials(char *out, const char *user, const char *password)
{
	unsigned char plain[600];
	int n = snprintf((char *)plain, sizeof plain, "%c%s%c%s", 0, user, 0, password);
	return (size_t)EVP_EncodeBlock((unsigned char *)out, plain, n);
}

int main(int argc, char **argv)
{
	if (argc != 7)
		return 2;
	const char *items = strcmp(argv[6], "bodies") == 0 ? "(BODY.PEEK[])" :
		"(UID FLAGS INTERNALDATE RFC822.SIZE MODSEQ BODY.PEEK[HEADER.FIELDS (DATE FROM TO SUBJECT MESSAGE-ID)])";
	static char data[1 << 17];
	char secret[900], commands[2000];
	double start = now();
	SSL *ssl = connect_tls((unsigned)strtoul(argv[1], NULL, 10), argv[2]);
	if (SSL_read(ssl, data, sizeof data) <= 0)
		fatal("greeting");
	secret[credentials(secret, argv[3], argv[4])] = 0;
	int len = snprintf(commands, sizeof commands,
		"a1 AUTHENTICATE PLAIN %s\r\na2 EXAMINE \"%s\"\r\n" LAST_TAG " UID FETCH 1:* %s\r\n", secret, argv[5], items);
	double sent = now();
	if (SSL_write(ssl, commands, len) != len)
		fatal("write");
	unsigned long long bytes = 0;
	size_t kept = 0;
	for (;;) {
		int n = SSL_read(ssl, data + kept, (int)(sizeof data - kept));
		if (n <= 0)
			fatal("read");
		bytes += (unsigned)n;
		size_t have = kept + (size_t)n, tail = have < 40 ? have : 40;
		char *end = memmem(data, have, "\r\n" LAST_TAG " ", sizeof LAST_TAG + 2);
		if (end && strncmp(end + sizeof LAST_TAG + 2, "OK", 2) == 0)
			break;
		if (end)
			fatal("FETCH");
		memmove(data, data + have - tail, tail);
		kept = tail;
	}
	double done = now();
	printf("{\"seconds\":%.4f,\"fetch_seconds\":%.4f,\"bytes\":%llu}\n", done - start, done - sent, bytes);
	SSL_free(ssl);
	return 0;
}

/* serve.h: a server that says what it is given, and hears nothing. */
#ifndef MF_TESTS_FUZZ_SERVE_H
#define MF_TESTS_FUZZ_SERVE_H

#include <sys/socket.h>
#include <unistd.h>

#include "fuzz/fuzz.h"

#define PATIENCE_MS 10000

/* *ret_client: where the server's bytes are read. All that will ever come is there, so nothing waits. Returns the server's end. */
static inline int fuzz_serve(const uint8_t *data, size_t size, int *ret_client)
{
	int fds[2];
	HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	HOLDS(send(fds[1], data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size && shutdown(fds[1], SHUT_WR) == 0);
	*ret_client = fds[0];
	return fds[1];
}

#endif

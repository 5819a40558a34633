#include "cli/notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int notify_fd = -1;

void notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;
	if (len > 1 && len < sizeof address.sun_path && (path[0] == '/' || path[0] == '@')) {
		memcpy(address.sun_path, path, len);
		if (path[0] == '@')
			address.sun_path[0] = 0; /* the abstract name space */
		notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
		if (notify_fd >= 0 && connect(notify_fd, (struct sockaddr *)&address, size)) {
			close(notify_fd);
			notify_fd = -1;
		}
	}
	unsetenv("NOTIFY_SOCKET");
}

void notify_send(const char *state)
{
	if (notify_fd >= 0)
		(void)send(notify_fd, state, strlen(state), MSG_NOSIGNAL); /* a manager that does not listen is its own trouble */
}

/* socket.h: the local stream sockets that client and server speak through. */
#ifndef MF_CONTROL_SOCKET_H
#define MF_CONTROL_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* MF_NOT_FOUND: nobody listens there. MF_DENIED: the listener belongs to another user (root may speak to anyone's, and
 * be spoken to by anyone). MF_TIMEOUT: it has taken no connection for five seconds (it is stopped, say, and others wait already). */
enum mf_err socket_connect(const char *path, int *ret, struct mf_reason *why);
/* Makes the directory (0700), replaces a socket file that nobody listens on, and listens, mode 0600. MF_BUSY: somebody does. */
enum mf_err socket_listen(const char *path, int *ret, struct mf_reason *why);
/* All of it, however long the other side takes within its socket's time-out; false with errno. No SIGPIPE. */
bool socket_send(int fd, const void *data, size_t len);
/* The user at the other end, by the kernel's word; false: not known. */
bool socket_peer(int fd, uid_t *ret_uid, pid_t *ret_pid);

extern int64_t socket_connect_ms_for_tests;

#endif

/* notify.h: what systemd wants to know of a service (sd_notify(3)): "READY=1", "STATUS=...", "STOPPING=1". */
#ifndef MF_CLI_NOTIFY_H
#define MF_CLI_NOTIFY_H

/* Takes NOTIFY_SOCKET out of the environment, so that no child process speaks for us. */
void notify_open(void);
/* One state, or several on lines of their own. Does nothing where nobody asked; never waits. Any thread. */
void notify_send(const char *state);

#endif

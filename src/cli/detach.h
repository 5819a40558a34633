/* detach.h: going into the background without losing the news of how that went.
 *
 * The parent stays at the terminal until the child has said "ready" or "failed", prints what it has to, and exits with
 * that. A child that dies silently is told as such. Begin before any thread. */
#ifndef MF_CLI_DETACH_H
#define MF_CLI_DETACH_H

#include <stdbool.h>

#include "control/exit.h"

struct detach {
	int fd;            /* to the parent; -1: in the foreground, or already away */
	bool foreground;
};

/* Returns true in the process that goes on (the child, or this one with foreground). In the parent it returns false when
 * all is said, with the exit code in *ret_exit. Until detach_ready() the end of the parent ends the child. */
bool detach_begin(struct detach *d, bool foreground, enum exit_code *ret_exit);
/* A line for the person who waits, before it is ready: "mailfs: warning: ..." */
void detach_warn(struct detach *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The parent prints the reason and exits with code. Returns code. */
enum exit_code detach_fail(struct detach *d, enum exit_code code, const char *reason);
/* It works: a session of its own, "/" as directory, nothing left of the terminal; the parent exits 0. */
void detach_ready(struct detach *d);

#endif

/* netwatch.h: one descriptor that becomes readable when the machine's addresses change (rtnetlink) or it wakes from
 * suspend (a timer on CLOCK_REALTIME cancelled by the clock being set). The owner reads it with netwatch_changed(). */
#ifndef MF_NET_NETWATCH_H
#define MF_NET_NETWATCH_H

#include <stdbool.h>

struct netwatch;
struct netwatch *netwatch_create(void);    /* NULL: not available here; the caller lives on back-off alone */
int netwatch_fd(const struct netwatch *w); /* poll it for reading */
bool netwatch_changed(struct netwatch *w); /* drains it; true: connections are worth trying anew now */
void netwatch_destroy(struct netwatch *w);

#endif

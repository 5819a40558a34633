/* server.h, the socket of a running mailfs: one per account, $XDG_RUNTIME_DIR/mailfs/ACCOUNT.sock or STATE/control.sock,
 * mode 0600, the peer's uid checked (SO_PEERCRED): the same user or root. */
#ifndef MF_CONTROL_SERVER_H
#define MF_CONTROL_SERVER_H

#include "control/verbs.h"

struct control_server;
enum mf_err control_server_start(const struct control *control, struct control_server **ret, struct mf_reason *why);
void control_server_stop(struct control_server *server);   /* ends running verbs; removes the sockets; NULL is fine */

#endif

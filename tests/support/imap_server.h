/* imap_server.h: an IMAP server on loopback for whom a server of sync/memory.h keeps the mail: what a test does there, clients are told of.
 *
 * It speaks IMAP4rev1 with LIST-EXTENDED, LIST-STATUS, SPECIAL-USE, CONDSTORE, QRESYNC, ESEARCH, UNSELECT, UIDPLUS, MOVE, LITERAL+ and
 * REPLACE, as far as mailfs asks for it: those of them that the capabilities say. What it does not know is answered with BAD. Like any
 * server it carries out what it has got whole, also when the client has gone meanwhile. */
#ifndef MF_TESTS_IMAP_SERVER_H
#define MF_TESTS_IMAP_SERVER_H

#include <stdint.h>

#include "sync/memory.h"

struct imap_server;
/* caps: REMOTE_UIDPLUS, REMOTE_MOVE, REMOTE_CONDSTORE, REMOTE_QRESYNC, REMOTE_REPLACE; with any of them it is a server of our days and has
 * all the rest, else it has IMAP4rev1 alone. The server in memory is to be told of the same, and outlives this one. */
struct imap_server *imap_server_start(struct memory_server *mail, unsigned caps);
uint16_t imap_server_port(const struct imap_server *s);      /* any user, any password; not encrypted */
void imap_server_await_idle(struct imap_server *s);          /* every client has gone, and what they had said is done */
void imap_server_stop(struct imap_server *s);                /* after the last client */

#endif

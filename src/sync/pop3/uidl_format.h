/* uidl_format.h: what a UIDL tells of the same message's numbers in IMAP. Pure. */
#ifndef MF_SYNC_POP3_UIDL_FORMAT_H
#define MF_SYNC_POP3_UIDL_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

/* The formats of servers that make their UIDLs of UID and UIDVALIDITY (Dovecot's %08Xu%08Xv and %v-%u, Cyrus' and Courier's
 * %v.%u, and the same the other way round). true: it is of one of them and names this UIDVALIDITY; *ret_uid is not 0. */
bool uidl_decode(const char *uidl, uint32_t uidvalidity, uint32_t *ret_uid);

#endif

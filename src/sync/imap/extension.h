/* extension.h: our part of libetpan's parser; see parse.h. The data of an item is a string, or NULL: EMAILID of a message,
 * MAILBOXID or APPENDLIMIT of a mailbox, which the type of the data tells apart. */
#ifndef MF_SYNC_IMAP_EXTENSION_H
#define MF_SYNC_IMAP_EXTENSION_H

#include <libetpan/libetpan.h>

enum { EXTENSION_ID, EXTENSION_APPEND_LIMIT };
extern struct mailimap_extension_api imap_extension;

#endif

/* extension.h: our part of libetpan's parser; see parse.h. The data of an item is its EMAILID as a string, or NULL. */
#ifndef MF_SYNC_IMAP_EXTENSION_H
#define MF_SYNC_IMAP_EXTENSION_H

#include <libetpan/libetpan.h>

extern struct mailimap_extension_api imap_extension;

#endif

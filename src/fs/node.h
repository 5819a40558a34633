/* node.h: what an inode number says. No table: most nodes need no memory, every number survives a remount, none is
 * reused (row ids never are; the generation is the index's epoch).
 *
 *   63      56 55    50 49        38 37                     0
 *   account    kind     part         row id of the mailbox or message
 *
 * The root of the mount is always 1 (FUSE_ROOT_ID) and stands for NODE_ACCOUNT of account 0 where the mount shows one
 * account, else for the list of accounts. */
#ifndef MF_FS_NODE_H
#define MF_FS_NODE_H

#include <stdbool.h>
#include <stdint.h>

enum node_kind {
	NODE_ROOT = 1,       /* the list of accounts */
	NODE_ACCOUNT,        /* an account's root directory */
	NODE_MAILBOX, NODE_MESSAGE,
	NODE_CONTROL_DIR,    /* .mailfs */
	NODE_CONTROL_FILE,   /* part: which one */
	NODE_NOMEDIA,
	NODE_CONTROL_LIST,   /* .mailfs/pending, .mailfs/rejected; part: which one */
	NODE_HELD,           /* what is in them; part likewise, id: the operation, or a number given in this mount */
	NODE_OUTBOX,         /* outbox/; part OUTBOX_FAILURES: the folder failed/ in it */
	NODE_QUEUED,         /* what is in them; id: its number (outgoing.h); part QUEUED_ERROR: NAME.error.txt of it */
};
enum { OUTBOX_FAILURES = 1, QUEUED_ERROR = 1 };
struct node { enum node_kind kind; uint8_t account; uint16_t part; uint64_t id; };

uint64_t node_pack(const struct node *node);
bool node_unpack(uint64_t ino, bool account_is_root, struct node *ret); /* false: no such number can exist */

#endif

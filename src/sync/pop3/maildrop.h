/* maildrop.h: the messages of one POP3 session and which number each has. Pure: no network, no storage. */
#ifndef MF_SYNC_POP3_MAILDROP_H
#define MF_SYNC_POP3_MAILDROP_H

#include <stdbool.h>

#include "base/buf.h"
#include "cache/uidls.h"

#define MAILDROP_MAX 1000000U   /* messages; a server that names more is not to be believed */
#define UIDL_MAX 70             /* bytes (RFC 1939 7); of a longer one a digest is kept */
#define KEY_MAX (UIDL_MAX + MAIL_DIGEST_SIZE + 16)

struct drop_item {
	uint32_t number;        /* the server's, from 1 */
	uint32_t uid;           /* 0: not numbered yet */
	uint64_t size;          /* the server's claim, with has_size */
	size_t key;             /* where it begins in maildrop.keys; 0: none yet */
	bool has_size, ambiguous, dirty;
	bool doubtful;          /* it has the name of a known message and another size: see maildrop_doubt */
	char *header;           /* kept since it will be told; NULL: not */
	size_t header_len;
	char digest[MAIL_DIGEST_SIZE]; /* "": not known */
};
struct maildrop {
	struct drop_item *items; /* ascending by number */
	size_t count, room;
	struct buf keys;        /* terminated each; the first byte is none's */
	uint32_t *by_uid;       /* places, ascending by uid: of items that are numbered */
	size_t numbered;
	size_t header_bytes;    /* of all that are kept */
};
void maildrop_init(struct maildrop *d);
void maildrop_finish(struct maildrop *d);       /* an initialised or zeroed one */
/* number is above all before; uidl NULL: the server has none. MF_TOO_BIG */
enum mf_err maildrop_add(struct maildrop *d, uint32_t number, const char *uidl);
struct drop_item *maildrop_at_number(struct maildrop *d, uint32_t number);   /* NULL: none */
struct drop_item *maildrop_at_uid(struct maildrop *d, uint32_t uid);         /* after maildrop_number */
const char *maildrop_key(const struct maildrop *d, const struct drop_item *item);

/* Marks what its UIDL does not tell from others; returns how many: their digests are needed. */
size_t maildrop_find_ambiguous(struct maildrop *d);
/* Gives those (which have digests now) keys of their own: by UIDL and digest, the same ones counted in the server's order.
 * MF_TOO_BIG */
enum mf_err maildrop_settle_ambiguous(struct maildrop *d);

/* The numbers of messages whose keys are known. Then: what has no number is new, and *ret_gone (the caller frees; places in
 * known->rows, ascending) are rows that no message has. */
void maildrop_match(struct maildrop *d, const struct uidls *known, size_t **ret_gone, size_t *ret_gone_count);
/* Sizes have been asked for since maildrop_match: marks messages whose size is not what the row of their name says, as with a
 * server that gives names away again. Returns how many: their digests are needed. */
size_t maildrop_doubt(struct maildrop *d, const struct uidls *known);
/* Those that are another message by their digest are new, and the rows' places join gone (room for all of known). */
void maildrop_settle_doubtful(struct maildrop *d, const struct uidls *known, size_t *gone, size_t *gone_count);
void maildrop_keep_header(struct maildrop *d, struct drop_item *item, const char *header, size_t len);  /* if there is room */
/* New messages that are what is gone by digest and size: the server has renamed them. They take the number, and the place
 * leaves gone. */
void maildrop_match_renamed(struct maildrop *d, const struct uidls *known, size_t *gone, size_t *gone_count);
void maildrop_sort(struct maildrop *d);         /* what is numbered, for maildrop_at_uid */
/* Numbers for what is left, from *uidnext on in the server's order. false: there are not enough numbers. */
bool maildrop_number(struct maildrop *d, uint32_t *uidnext);

#endif

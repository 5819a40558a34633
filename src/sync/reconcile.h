/* reconcile.h: decisions of synchronising as pure functions: no lock, no cache, no network. */
#ifndef MF_SYNC_RECONCILE_H
#define MF_SYNC_RECONCILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/cache.h"
#include "config/config.h"
#include "sync/remote.h"

/* --- sets of UIDs ------------------------------------------------------------------------------------------------ */

struct uid_set {           /* an owned, growing struct uid_ranges; UIDs may be added in any order */
	struct uid_range *items;
	size_t count, capacity;
	bool messy;            /* not sorted and merged yet */
};
void uid_set_finish(struct uid_set *s);
void uid_set_add(struct uid_set *s, uint32_t first, uint32_t last);
void uid_set_normalise(struct uid_set *s);
bool uid_ranges_have(const struct uid_range *items, size_t count, uint32_t uid); /* sorted, not overlapping */

/* The local UIDs that are in none of the present ranges, of those below `below` (0: of all). local ascends. The caller
 * frees *ret; the count is returned. */
size_t reconcile_missing(const struct uid_id *local, size_t count, const struct uid_range *present, size_t present_count,
                         uint32_t below, uint32_t **ret);
/* Some of the present ones are not among the local UIDs. */
bool reconcile_lacks(const struct uid_id *local, size_t count, const struct uid_range *present, size_t present_count);
/* The local UIDs that are in the vanished ranges. */
size_t reconcile_vanished(const struct uid_id *local, size_t count, const struct uid_range *gone, size_t gone_count,
                          uint32_t **ret);

/* --- the ladder -------------------------------------------------------------------------------------------------- */

/* What one mailbox needs, after LIST with STATUS has put the server's numbers beside the index's. */
enum dirty { DIRTY_NO, DIRTY_COLD, DIRTY_CHANGED };
struct dirty_facts {
	const struct mailbox *mailbox;
	bool has_status;           /* the server_ numbers are fresh */
	bool changes_wait;         /* .total and .unseen have changes in them that the server may not have */
	uint32_t max_messages;     /* 0: all */
	uint32_t seen_messages;    /* with max_messages: what the server had at the last synchronisation; 0: not known */
};
enum dirty reconcile_dirty(const struct dirty_facts *facts);

/* Whether the index can be what the server says after a synchronisation: as many messages, none at or above UIDNEXT. */
bool reconcile_is_sane(const struct uid_id *local, size_t count, const struct mailbox_status *status, uint32_t first_uid);

/* The next rung for a mailbox. asked: what whoever asked for the check wants at least. */
struct rung {
	enum change_method method;
	bool with_modseq;          /* false: neither QRESYNC nor CONDSTORE are to be believed here */
	uint32_t first_uid, newest;
};
struct rung reconcile_rung(const struct mailbox *m, enum change_method asked, uint32_t max_messages, bool no_qresync);

/* With max_messages: the lowest UID that stays of an ascending list; 0: all stay. */
uint32_t reconcile_trim(const struct uid_id *local, size_t count, uint32_t max_messages);

#endif

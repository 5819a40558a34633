/* pending.h: what waits in the journal (cache/journal.h), for people: lines of text, JSON, taking back, trying again. */
#ifndef MF_CONTROL_PENDING_H
#define MF_CONTROL_PENDING_H

#include <json-c/json.h>

#include "cache/journal.h"
#include "sync/account.h"

/* "move INBOX/x.eml to Archive"; printable. The caller frees. */
char *pending_sentence(struct account *a, const struct op *op);
/* Several lines: what, in which state, since when, why it waits, what can be done. The caller frees. */
char *pending_text(struct account *a, const struct op *op);
/* {"id","kind","state","what","since","due","tries","error"} */
struct json_object *pending_object(struct account *a, const struct op *op);

/* MF_NOT_FOUND; MF_BUSY: it is under way; MF_EXISTS: what it made is in use. The reason says what to do. */
enum mf_err pending_cancel(struct account *a, uint64_t id, struct mf_reason *why);
/* Asked before each of many: how many have been gone over, of how many. false: leave the rest */
typedef bool pending_step(void *context, uint64_t done, uint64_t total);
/* All that can be, the newest first; the numbers of those taken back and left, which are right after a failure, too. MF_CANCELLED: step
 * said so. */
enum mf_err pending_cancel_all(struct account *a, pending_step *step, void *context, uint64_t *ret_done, uint64_t *ret_left);
enum mf_err pending_retry(struct account *a, uint64_t id, struct mf_reason *why);
enum mf_err pending_retry_all(struct account *a, pending_step *step, void *context, uint64_t *ret_done);

#endif

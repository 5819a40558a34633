/* outboxes.h: which outbox belongs to which account, for whoever has the account: verbs, status, the file system. Thread-safe.
 *
 * main.c attaches when it has opened both, before the outbox is started, and detaches before it closes either. */
#ifndef MF_CONTROL_OUTBOXES_H
#define MF_CONTROL_OUTBOXES_H

#include <json-c/json.h>

#include "smtp/outbox.h"
#include "sync/account.h"

void outboxes_attach(const struct account *account, struct outbox *outbox);
void outboxes_detach(const struct account *account);            /* none attached: fine */
struct outbox *outboxes_find(const struct account *account);    /* NULL: the account cannot send */

/* Called after each change in the account's outbox, on any thread, until it is called with NULL; one for an account. It may call
 * nothing here. */
void outboxes_watch(const struct account *account, void (*changed)(void *context), void *context);

/* {"waiting":..,"queued":..,"sending":..,"retrying":..,"maybe_sent":..,"unfiled":..,"failed":..,"progress":{"sent":..,"bytes":..,"total":..},
 * "error":..,"reason":..} */
struct json_object *outboxes_counts_object(struct outbox *outbox);
/* "2 waiting, 1 being sent (1.2M of 3.0M), 1 failed, 5 sent; why: ..."; "empty"; sent: since it was opened. The caller frees. */
char *outboxes_counts_text(struct outbox *outbox);

#endif

/* status.h: what the accounts are doing, for people and for programs. Memory only: never waits for a server. */
#ifndef MF_CONTROL_STATUS_H
#define MF_CONTROL_STATUS_H

#include "sync/account.h"

/* Text as `mailfs status` and .mailfs/status show it, at most 100 columns; JSON as --json and status.json do. UTF-8, ends
 * with a newline; the caller frees. Text from servers is printable. */
char *status_text(struct account *const *accounts, size_t count);
char *status_json(struct account *const *accounts, size_t count);

struct json_object;
/* {"doing":..,"done":..,"total":..,"unit":"bytes"|"messages","rate":..,"queued":..}; the caller owns it */
struct json_object *status_progress_object(const struct account_progress *progress);

#endif

/* eventlog.h: the bus as a growing file of JSON lines, behind .mailfs/events and `mailfs events`.
 *
 * Events: message-added, message-removed, message-moved (with old_mailbox, old_name), message-flags, mailbox-added,
 * mailbox-removed, mailbox-renamed (with old_mailbox), link (with state, reason).
 *
 * {"time":"2026-11-20T12:00:00.123Z","account":"work","event":"message-added","mailbox":"INBOX","name":"....eml","uid":7,"new":true}
 * Kept in memory from the start of the process; above limit bytes the oldest half is dropped, but offsets go on counting:
 * what was dropped reads as nothing and readers are told the first offset that is there. Thread-safe. */
#ifndef MF_CONTROL_EVENTLOG_H
#define MF_CONTROL_EVENTLOG_H

#include <stddef.h>
#include <stdint.h>

#include "sync/account.h"

struct eventlog;
struct eventlog *eventlog_create(struct bus *bus, struct account *const *accounts, size_t count, size_t limit);
void eventlog_destroy(struct eventlog *log);    /* NULL is fine */
/* Bytes of one account's events (index in the list; -1: of all), from offset on; waits up to timeout_ms for the first one.
 * Returns how many were copied; *ret_offset is where they begin (above the asked one if the oldest were dropped). */
size_t eventlog_read(struct eventlog *log, int account, uint64_t offset, void *data, size_t size, int64_t timeout_ms, uint64_t *ret_offset);
uint64_t eventlog_size(struct eventlog *log, int account);
/* Ends every wait in eventlog_read() now. */
void eventlog_wake(struct eventlog *log);

#endif

/* filing.h: what was sent is filed in Sent, and drafts in Drafts: through the journal, so that it is done without the server too. */
#ifndef MF_CONTROL_FILING_H
#define MF_CONTROL_FILING_H

#include "smtp/outbox.h"
#include "sync/account.h"

/* Whether mailfs files for this account (save-sent, and what the server does by itself). The POP3 accounts have no Sent. */
bool filing_wanted(struct account *account);
/* Who does: "mailfs", "server", "nobody"; "unknown": mailfs, unless it finds that the server does. For programs */
const char *filing_word(struct account *account);

/* As outbox_options.file_copy; the context is the struct account. MF_OK: the copy is in the journal, on the disk, or need not be.
 * MF_OFFLINE: the server's mailboxes have never been listed, so that nobody knows which one is Sent. */
enum mf_err filing_copy(void *account, uint64_t id, int fd, uint64_t size, const char *message_id, bool first);

/* The message in fd (a file, read from its beginning) goes into Drafts, made ready as far as it is finished (smtp/compose.h).
 * *ret_path: where it is, as the account's tree shows it; the caller frees. MF_UNSUPPORTED: POP3 has no Drafts. MF_OFFLINE: as above.
 * What else there is comes of compose.h and cache/journal.h. */
enum mf_err filing_draft(struct account *account, int fd, char **ret_path, struct mf_reason *why);

/* Where the server files what it is given to send, or may (save-sent = no): messages that were maybe sent and are in Sent were. Cheap where there is none
 * of them; any thread. */
void filing_settle(struct account *account, struct outbox *outbox);

/* tests set it: so long after a message was sent it is looked for in Sent, while it is not known who puts it there */
extern int64_t filing_look_ms_for_tests;

#endif

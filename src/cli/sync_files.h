/* sync_files.h: sync of files in a mount instead of mailboxes by name. */
#ifndef MF_CLI_SYNC_FILES_H
#define MF_CLI_SYNC_FILES_H

#include "cli/command.h"

/* It is a message that a mount shows, or the path of a mailbox or of an account there: one that begins with a slash or a dot. */
bool sync_is_file(const char *operand);
/* run carries out the command for one mailbox. With --wait the code is EXIT_OK if the server has the files;
 * a message in outbox/ is waited for until it is sent, or will not be by itself. */
typedef enum exit_code sync_mailboxes(struct cli *cli, const struct arguments *arguments);
enum exit_code sync_files(struct cli *cli, const struct arguments *arguments, sync_mailboxes *run);

#endif

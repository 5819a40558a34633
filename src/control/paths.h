/* paths.h: where an account's things are on this machine (XDG Base Directory Specification). The caller frees. */
#ifndef MF_CONTROL_PATHS_H
#define MF_CONTROL_PATHS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

char *path_state(const char *account);   /* $XDG_STATE_HOME/mailfs/ACCOUNT, else ~/.local/state/mailfs/ACCOUNT */
char *path_cache(const char *account);   /* $XDG_CACHE_HOME/mailfs/ACCOUNT, else ~/.cache/mailfs/ACCOUNT */

/* Where an account's socket may be, in the order in which a client looks: $XDG_RUNTIME_DIR/mailfs/ACCOUNT.sock; where
 * that variable is not set (cron, su) /run/user/UID/mailfs/ACCOUNT.sock; STATE/control.sock. NULL: no such place here. A
 * server makes the first, else the last, never the guessed one. */
enum { PATH_SOCKETS = 3 };
char *path_socket(const char *account, size_t i);

/* Names of all accounts that have a socket file, running or stale, sorted, each once; NULL-terminated. Free with
 * path_list_destroy. */
char **path_running_accounts(void);
void path_list_destroy(char **list);

/* Can it be a folder's name: not empty, no '/', not starting with '.', no control character, at most 80 bytes? */
bool path_account_is_valid(const char *account);

/* Makes a directory and those above it, 0700; one that exists must be ours, and is made 0700. */
enum mf_err path_make_private(const char *path, struct mf_reason *why);

#endif

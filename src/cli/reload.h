/* reload.h: SIGHUP: the config file is read again, and the accounts that are mounted take over what they can. */
#ifndef MF_CLI_RELOAD_H
#define MF_CLI_RELOAD_H

#include "cli/parts.h"

/* The file is read and judged as a whole: a mistake anywhere is logged, and nothing changes. Else the log says by name what has
 * changed, and since when or until when (config_when). What -o gave goes on winning over the file, and a password that was asked for
 * stays where the file has none. Whoever waits because of a refused password tries again, in any case. On main's thread. */
void reload(const struct mount_plan *plan, struct holding *h);

#endif

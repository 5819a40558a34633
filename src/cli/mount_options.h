/* mount_options.h: what stands behind -o: ours, the account's, FUSE's, and what fstab adds. Pure. */
#ifndef MF_CLI_MOUNT_OPTIONS_H
#define MF_CLI_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "config/config.h"

struct setting {                 /* a key of the config file's account section */
	char *key, *value;
};
struct mount_options {
	bool read_only, allow_other, offline;
	bool no_nomedia;
	bool foreground, debug;      /* not from -o, as are: */
	bool helper;                 /* mount(8) calls: user=NAME is fstab(5)'s, and not a key */
	bool sloppy;                 /* what is not known is passed over, and the rest is taken */
	uid_t uid;
	gid_t gid;
	mode_t umask;
	char *config;                /* config=FILE; NULL */
	char *source;                /* fsname=NAME; NULL */
	char **extra;                /* handed to FUSE as they are; NULL-terminated */
	size_t extra_count;
	struct setting *settings;    /* not yet judged: account_config_set() does */
	size_t setting_count;
};

void mount_options_init(struct mount_options *o);      /* ours, 077 */
void mount_options_finish(struct mount_options *o);
/* "ro,uid=1000,poll=5m": separated by commas, "\," is a comma within a value, and "\\" a backslash; in context="a,b" and
 * its like commas are text within the quotes, which stay. Adds to what is there. MF_INVALID with the reason, unless .sloppy. */
enum mf_err mount_options_parse(struct mount_options *o, const char *text, struct mf_reason *why);
/* Its settings win over the file's. Not yet checked: account_config_check() does. */
enum mf_err mount_options_apply(const struct mount_options *o, struct account_config *config, struct mf_reason *why);

/* for completions: names of ours and of those passed on, and the keys of an account that -o takes; NULL-terminated */
extern const char *const mount_option_names[];
extern const char *const mount_account_keys[];

#endif

/* parts.h: what main.c puts together for the commands: caches, engines, the file system. The commands decide what to hold
 * and why; they do not build it. */
#ifndef MF_CLI_PARTS_H
#define MF_CLI_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "cli/detach.h"
#include "cli/mount_options.h"
#include "config/config.h"
#include "control/exit.h"
#include "control/verbs.h"

/* Accounts that this process holds: their locks, indexes and engines. */
struct holding {
	struct bus *bus;
	struct cache **caches;
	struct account **accounts;
	struct outbox **outboxes;    /* beside accounts; NULL: cannot send */
	size_t count;
	struct bus_subscription *links;
	struct eventlog *events;
	struct control control;
	/* Read since (reload.h), and in use until the end: threads hold on to the settings that they work by. */
	struct config **configs;
	size_t config_count;
};

/* mount_serve: everything that a mount needs; plain references that outlive it. */
struct mount_plan {
	struct account_config **accounts;
	size_t count;
	bool account_is_root;        /* a SOURCE was given */
	const char *source;          /* shown by df; never with a password */
	const char *mountpoint;      /* absolute */
	const struct mount_options *options;
	const char *config_path;     /* read again at SIGHUP; NULL: there is none */
};

struct cli_parts {
	/* offline: no engine connects by itself. Threads start in holding_start. */
	enum mf_err (*holding_open)(struct account_config *const *accounts, size_t count, bool offline, struct holding **ret, struct mf_reason *why);
	void (*holding_start)(struct holding *);
	void (*holding_close)(struct holding *);  /* NULL is fine */
	/* Mounts, tells detach how that went, and serves until unmounted. */
	enum exit_code (*mount_serve)(const struct mount_plan *plan, struct detach *detach);
};

#endif

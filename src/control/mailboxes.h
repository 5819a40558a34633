/* mailboxes.h: an account's mailboxes as status and list show them. */
#ifndef MF_CONTROL_MAILBOXES_H
#define MF_CONTROL_MAILBOXES_H

#include <json-c/json.h>

#include "sync/account.h"

struct mailbox_row {
	uint64_t id;
	char *path;                  /* as the tree shows it; not yet safe for a terminal */
	uint32_t messages, unseen;   /* in the index */
	uint32_t server_messages;    /* what the server said last */
	bool complete, noselect, read_only, has_server;
	bool by_config;              /* the policy is the config file's, not one set on the mailbox */
	enum sync_policy policy;
	unsigned use;                /* enum special_use */
};
struct mailbox_rows {
	struct mailbox_row *items;
	size_t count;
};
void mailbox_rows_load(struct account *a, struct mailbox_rows *ret);  /* by path, INBOX first */
void mailbox_rows_finish(struct mailbox_rows *rows);

/* "current": the index has what the server said last; "behind"; "not yet": never fetched; "on demand": neither, and by policy */
const char *mailbox_row_state(const struct mailbox_row *row);
const char *mailbox_use_name(unsigned use);                           /* "inbox", "sent", ...; NULL for none */
struct json_object *mailbox_row_object(const struct mailbox_row *row);

#endif

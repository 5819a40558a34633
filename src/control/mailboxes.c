#include "control/mailboxes.h"

#include <string.h>

#include "base/mem.h"
#include "control/json.h"
#include "control/text.h"

struct loading {
	struct mailbox_rows *rows;
	size_t capacity;
};

/* the visitor may run under the cache's lock: paths come after it */
static bool add_row(void *context, const struct mailbox *m)
{
	struct loading *loading = context;
	struct mailbox_rows *rows = loading->rows;
	if (rows->count == loading->capacity) {
		loading->capacity = loading->capacity ? loading->capacity * 2 : 64;
		rows->items = mf_realloc_array(rows->items, loading->capacity, sizeof *rows->items);
	}
	rows->items[rows->count++] = (struct mailbox_row){
		.id = m->id,
		.messages = m->total,
		.unseen = m->unseen,
		.server_messages = m->server_messages,
		.has_server = m->server_uidvalidity != 0,
		/* POP3 says nothing of a mailbox but what is in it */
		.complete = m->complete && (!m->server_uidvalidity || (m->uidvalidity == m->server_uidvalidity && m->uidnext >= m->server_uidnext)),
		.noselect = !m->raw || (m->flags & MAILBOX_NOSELECT),
		.read_only = m->flags & MAILBOX_READONLY,
		.policy = m->sync >= SYNC_DEMAND && m->sync <= SYNC_FULL ? (enum sync_policy)m->sync : SYNC_HEADERS,
		.use = m->use,
		.by_config = m->sync < 0,
	};
	return true;
}

static void fill_row(struct account *a, struct mailbox_row *row)
{
	row->path = cache_mailbox_path(account_cache(a), row->id);
	if (row->path && row->by_config)
		row->policy = account_config_sync(account_config(a), row->path);
}

static int by_path(const void *left, const void *right)
{
	const struct mailbox_row *a = left, *b = right;
	bool a_inbox = a->use == USE_INBOX, b_inbox = b->use == USE_INBOX;
	if (a_inbox != b_inbox)
		return a_inbox ? -1 : 1;
	return strcmp(a->path, b->path);
}

void mailbox_rows_load(struct account *a, struct mailbox_rows *ret)
{
	*ret = (struct mailbox_rows){ 0 };
	struct loading loading = { ret, 0 };
	/* what cannot be read is missing from the list, and in the log by the cache's own line */
	(void)cache_mailboxes(account_cache(a), add_row, &loading);
	size_t kept = 0;
	for (size_t i = 0; i < ret->count; i++) {
		fill_row(a, &ret->items[i]);
		if (ret->items[i].path) /* else it went away in between */
			ret->items[kept++] = ret->items[i];
	}
	ret->count = kept;
	if (kept)
		qsort(ret->items, kept, sizeof *ret->items, by_path);
}

void mailbox_rows_finish(struct mailbox_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		free(rows->items[i].path);
	free(rows->items);
	*rows = (struct mailbox_rows){ 0 };
}

const char *mailbox_row_state(const struct mailbox_row *row)
{
	if (row->complete)
		return "current";
	if (row->policy == SYNC_DEMAND && !row->messages)
		return "on demand";
	return row->messages ? "behind" : "not yet";
}

const char *mailbox_use_name(unsigned use)
{
	static const char *const names[] = { NULL, "inbox", "all", "archive", "drafts", "flagged", "junk", "sent", "trash" };
	return use < sizeof names / sizeof *names ? names[use] : NULL;
}

struct json_object *mailbox_row_object(const struct mailbox_row *row)
{
	struct json_object *o = json_object_new_object();
	json_put_string(o, "mailbox", row->path);
	json_put_bool(o, "selectable", !row->noselect);
	if (row->noselect)
		return o;
	json_put_number(o, "messages", row->messages);
	json_put_number(o, "unseen", row->unseen);
	if (row->has_server)
		json_put_number(o, "server_messages", row->server_messages);
	json_put_string(o, "state", mailbox_row_state(row));
	json_put_string(o, "sync", text_policy(row->policy));
	if (mailbox_use_name(row->use))
		json_put_string(o, "special_use", mailbox_use_name(row->use));
	json_put_bool(o, "read_only", row->read_only);
	return o;
}

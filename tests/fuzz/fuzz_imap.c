/* Any bytes as what an IMAP server says: no verb crashes or waits for more than comes, and what it tells keeps to remote.h.
 * The first byte says which verb follows the login; the others are the server's. */
#include "base/cancel.h"
#include "config/config.h"
#include "fuzz/remote_sinks.h"
#include "sync/imap/imap.h"

static bool next_batch(void *context, struct fetch_batch *ret)
{
	static const uint32_t uids[] = { 1, 2, 5 };
	unsigned *left = context;
	*ret = *left == 2 ? (struct fetch_batch){ .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 3 }
	                  : (struct fetch_batch){ .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 1, .offset = 10, .length = 100 };
	return (*left)-- > 0;
}

static void on_changed(void *context, const char *raw, bool new_only)
{
	(void)context, (void)raw, (void)new_only;
}

/* --- the verbs --- */

static void changes(struct remote *r, enum change_method method, uint64_t modseq)
{
	struct mailbox_since since[] = {
		{ .raw = "INBOX", .method = method, .uidvalidity = 1, .uidnext = 4, .modseq = modseq },
		{ .raw = "Work", .method = CHANGES_ALL, .hint = { .messages = 3, .uidvalidity = 1 } },
	};
	(void)remote_changes(r, since, 2, &fuzz_changes);
}

static void fetch(struct remote *r)
{
	unsigned left = 2;
	(void)remote_fetch(r, &(struct fetch_source){ next_batch, &left, NULL }, &fuzz_bodies);
}

static void change_things(struct remote *r)
{
	static const uint32_t uids[] = { 1, 2, 5 };
	struct remote_write writes[] = {
		{ .kind = WRITE_FLAGS, .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 3, .flags = 1 },
		{ .kind = WRITE_MOVE, .raw = "INBOX", .to = "Work", .uidvalidity = 1, .uids = uids, .count = 3 },
		{ .kind = WRITE_CREATE, .raw = "New" },
		{ .kind = WRITE_DELETE, .raw = "Old" },
	};
	if (!(remote_caps(r) & REMOTE_MOVE))
		writes[1].kind = WRITE_COPY;
	(void)remote_write(r, writes, 4, &fuzz_written);
}

static void converse(struct remote *r, unsigned verb)
{
	struct mf_reason why = { "" };
	struct quota quota;
	if (remote_login(r, &why))
		return;
	switch (verb % 8) {
	case 0: (void)remote_mailboxes(r, &fuzz_mailboxes); break;
	case 1: changes(r, CHANGES_ALL, 0); break;
	case 2: changes(r, CHANGES_AUTO, 7); break;
	case 3: changes(r, CHANGES_VERIFY, 0); break;
	case 4: fetch(r); break;
	case 5: change_things(r); break;
	case 6: (void)remote_quota(r, &quota); break;
	default: (void)remote_wait(r, "INBOX", 100, -1, &(struct push_sink){ on_changed, NULL }); break;
	}
	HOLDS(remote_reason(r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	int fd, server;
	struct cancel cancel;
	if (!size)
		return 0;
	if (!ready)
		imap_global_init();
	ready = true;
	HOLDS(cancel_init(&cancel));
	struct imap_options options = {
		.transport = { .host = "imap.test", .port = 143, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS, .cancel = &cancel },
		.auth = AUTH_PLAIN, .clear_allowed = true, .idle = true,
		.credentials = credentials_create("alice", "secret", NULL),
		.memory = imap_memory_create(NULL),
	};
	server = fuzz_serve(data + 1, size - 1, &fd);
	struct remote *r = imap_remote_adopt(&options, fd);
	converse(r, data[0]);
	remote_destroy(r);
	imap_memory_destroy(options.memory);
	credentials_destroy(options.credentials);
	cancel_finish(&cancel);
	close(server);
	return 0;
}

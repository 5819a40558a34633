/* Any bytes as what an IMAP server says: no verb crashes or waits for more than comes, and what it tells keeps to remote.h.
 * The first byte says which verb follows the login; the others are the server's. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cancel.h"
#include "config/config.h"
#include "fuzz/fuzz.h"
#include "sync/imap/imap.h"

#define PATIENCE_MS 10000

static uint64_t announced, given;   /* of the body under way */

static enum mf_err on_mailbox(void *context, const struct remote_mailbox *m)
{
	(void)context;
	HOLDS(m->raw);
	return MF_OK;
}

static enum mf_err on_opened(void *context, size_t i, const struct mailbox_status *status, bool read_only)
{
	(void)context, (void)read_only;
	HOLDS(i < 2 && status);
	return MF_OK;
}

static enum mf_err on_message(void *context, size_t i, const struct remote_message *m)
{
	(void)context;
	HOLDS(i < 2 && m->uid && (m->header || !m->header_len));
	volatile unsigned char sum = 0;
	for (size_t at = 0; at < m->header_len; at++)
		sum = (unsigned char)(sum + ((const unsigned char *)m->header)[at]);
	return MF_OK;
}

static enum mf_err on_flags(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	(void)context, (void)flags, (void)modseq;
	HOLDS(i < 2 && uid && keywords && strlen(keywords) < 1 << 20);
	return MF_OK;
}

static enum mf_err on_ranges(void *context, size_t i, const struct uid_ranges *uids)
{
	(void)context;
	HOLDS(i < 2);
	for (size_t k = 0; k < uids->count; k++) {
		HOLDS(uids->items[k].first && uids->items[k].first <= uids->items[k].last);
		HOLDS(!k || uids->items[k - 1].last < uids->items[k].first);
	}
	return MF_OK;
}

static enum mf_err on_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *status)
{
	(void)context, (void)result;
	HOLDS(i < 2 && status);
	return MF_OK;
}

static bool next_batch(void *context, struct fetch_batch *ret)
{
	static const uint32_t uids[] = { 1, 2, 5 };
	unsigned *left = context;
	*ret = *left == 2 ? (struct fetch_batch){ .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 3 }
	                  : (struct fetch_batch){ .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 1, .offset = 10, .length = 100 };
	return (*left)-- > 0;
}

static enum mf_err on_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	(void)context;
	HOLDS(uid && offset + length >= offset);
	announced = length;
	given = 0;
	return MF_OK;
}

static enum mf_err on_data(void *context, const void *data, size_t len)
{
	(void)context;
	HOLDS(data && len);
	given += len;
	HOLDS(given <= announced);
	return MF_OK;
}

static enum mf_err on_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	(void)context, (void)whole;
	HOLDS(uid && (result || given == announced));
	return MF_OK;
}

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	(void)context;
	HOLDS(i < 4 && (result->pairs || !result->count));
	for (size_t k = 0; k < result->count; k++)
		HOLDS(result->pairs[k].to && (!k || result->pairs[k - 1].from < result->pairs[k].from));
	return MF_OK;
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
	struct change_sink sink = { on_opened, on_message, on_flags, on_ranges, on_ranges, on_closed, NULL };
	(void)remote_changes(r, since, 2, &sink);
}

static void fetch(struct remote *r)
{
	unsigned left = 2;
	(void)remote_fetch(r, &(struct fetch_source){ next_batch, &left, NULL }, &(struct fetch_sink){ on_begin, on_data, on_end, NULL });
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
	(void)remote_write(r, writes, 4, &(struct write_sink){ on_done, NULL });
}

static void converse(struct remote *r, unsigned verb)
{
	struct mf_reason why = { "" };
	struct quota quota;
	if (remote_login(r, &why))
		return;
	switch (verb % 8) {
	case 0: (void)remote_mailboxes(r, &(struct mailbox_sink){ on_mailbox, NULL }); break;
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
	int fds[2];
	struct cancel cancel;
	if (!size)
		return 0;
	if (!ready)
		imap_global_init();
	ready = true;
	HOLDS(cancel_init(&cancel) && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
	struct imap_options options = {
		.transport = { .host = "imap.test", .port = 143, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS, .cancel = &cancel },
		.auth = AUTH_PLAIN, .clear_allowed = true, .idle = true,
		.credentials = credentials_create("alice", "secret", NULL),
		.memory = imap_memory_create(NULL),
	};
	/* all that will ever come is there: nothing waits */
	HOLDS(send(fds[1], data + 1, size - 1, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size - 1 && shutdown(fds[1], SHUT_WR) == 0);
	struct remote *r = imap_remote_adopt(&options, fds[0]);
	converse(r, data[0]);
	remote_destroy(r);
	imap_memory_destroy(options.memory);
	credentials_destroy(options.credentials);
	cancel_finish(&cancel);
	close(fds[1]);
	return 0;
}

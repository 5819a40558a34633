/* Any bytes as what a POP3 server says, as in fuzz_imap.c. Two messages are known from before. */
#include "base/cancel.h"
#include "base/mem.h"
#include "config/config.h"
#include "fuzz/remote_sinks.h"
#include "sync/pop3/pop3.h"

static enum mf_err load(void *context, struct uidls *ret)
{
	(void)context;
	*ret = (struct uidls){ .uidvalidity = 1, .uidnext = 3, .count = 2, .rows = mf_alloc_array(2, sizeof *ret->rows), .keys = mf_alloc(8) };
	memcpy(ret->keys, "one\0two", 8);
	ret->rows[0] = (struct uidl){ .key = ret->keys, .uid = 1, .size = 100 };
	ret->rows[1] = (struct uidl){ .key = ret->keys + 4, .uid = 2, .size = 200 };
	return MF_OK;
}

static enum mf_err save(void *context, const struct uidls_change *change)
{
	(void)context;
	HOLDS(change->uidvalidity);
	for (size_t i = 0; i < change->put_count; i++)
		HOLDS(change->put[i].key && change->put[i].uid && change->put[i].uid < change->uidnext && strlen(change->put[i].digest) < MAIL_DIGEST_SIZE);
	return MF_OK;
}

/* once: there is no other connection */
static enum mf_err dial(void *context, const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	int *fd = context, given = *fd;
	*fd = -1;
	return given < 0 ? mf_fail(why, MF_OFFLINE, "no other connection") : transport_adopt(given, options, ret, why);
}

static bool next_batch(void *context, struct fetch_batch *ret)
{
	static const uint32_t uids[] = { 1, 2 };
	bool *more = context, given = *more;
	*ret = (struct fetch_batch){ .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 2 };
	*more = false;
	return given;
}

static void converse(struct remote *r, unsigned verb)
{
	static const uint32_t uids[] = { 1, 2 };
	struct mailbox_since since = { .raw = "INBOX", .method = verb % 2 ? CHANGES_ALL : CHANGES_AUTO, .uidvalidity = 1, .uidnext = 3 };
	struct remote_write expunge = { .kind = WRITE_EXPUNGE, .raw = "INBOX", .uidvalidity = 1, .uids = uids, .count = 2 };
	bool more = true;
	struct mf_reason why = { "" };
	if (remote_login(r, &why))
		return;
	if (verb & 2)
		(void)remote_changes(r, &since, 1, &fuzz_changes);
	if (verb & 4)
		(void)remote_fetch(r, &(struct fetch_source){ next_batch, &more, NULL }, &fuzz_bodies);
	if (verb & 8)
		(void)remote_write(r, &expunge, 1, &fuzz_written);
	if (verb & 16)
		(void)remote_mailboxes(r, &fuzz_mailboxes);
	HOLDS(remote_reason(r));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd, server;
	struct cancel cancel;
	if (!size)
		return 0;
	HOLDS(cancel_init(&cancel));
	server = fuzz_serve(data + 1, size - 1, &fd);
	struct pop3_options options = {
		.transport = { .host = "pop3.test", .port = 110, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS, .cancel = &cancel },
		.auth = AUTH_PLAIN, .clear_allowed = true, .message_max = 1 << 20, .store = { load, save, NULL },
		.credentials = credentials_create("alice", "secret", NULL),
		.memory = pop3_memory_create(),
	};
	struct remote *r = pop3_remote_dial(&options, dial, &fd);
	converse(r, data[0]);
	remote_destroy(r);
	mf_close(&fd);
	pop3_memory_destroy(options.memory);
	credentials_destroy(options.credentials);
	cancel_finish(&cancel);
	close(server);
	return 0;
}

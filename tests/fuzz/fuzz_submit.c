/* Any bytes as what a submission server says: it is never taken for sent what has not left as a whole, and after the mark nothing
 * that was not answered is said to be unsent. */
#include <string.h>
#include <sys/mman.h>

#include "base/cancel.h"
#include "base/file.h"
#include "base/mem.h"
#include "config/config.h"
#include "fuzz/serve.h"
#include "smtp/submit.h"

#define TEXT "From: alice@example.org\r\nTo: bob@example.org, carol@example.org\r\nSubject: x\r\n\r\n.dot\r\nlast\r\n"

static enum mf_err mark(void *context)
{
	*(bool *)context = true;
	return MF_OK;
}

static void check(const struct submit_result *result, bool marked)
{
	bool sent = false;
	for (size_t i = 0; i < result->recipient_count; i++) {
		HOLDS(memchr(result->recipients[i].text, 0, sizeof result->recipients[i].text));
		HOLDS(result->recipients[i].verdict != VERDICT_UNKNOWN || result->verdict == VERDICT_UNKNOWN);
		sent |= result->recipients[i].verdict == VERDICT_SENT;
	}
	HOLDS(marked || (result->verdict != VERDICT_SENT && result->verdict != VERDICT_UNKNOWN));
	HOLDS(!sent || result->verdict == VERDICT_SENT);
}

/* Two messages by one connection */
static void converse(struct smtp *s, int fd)
{
	char alice[] = "alice@example.org", bob[] = "bob@example.org", carol[] = "carol@example.org", *recipients[] = { bob, carol, NULL };
	struct envelope envelope = { .sender = alice, .recipients = recipients, .recipient_count = 2 };
	enum mf_err e = MF_OK;
	for (int i = 0; i < 2 && !e; i++) {
		bool marked = false;
		struct submit_request request = { .envelope = &envelope, .recipients = recipients, .recipient_count = 2, .fd = fd, .before_dot = mark, .context = &marked };
		struct submit_result result;
		e = smtp_submit(s, &request, &result);
		check(&result, marked);
		submit_result_finish(&result);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cancel cancel;
	struct mf_reason why = { "" };
	struct smtp *s;
	int client, message = memfd_create("message", MFD_CLOEXEC), server = fuzz_serve(data, size, &client);
	HOLDS(cancel_init(&cancel) && message >= 0 && file_write(message, 0, TEXT, sizeof TEXT - 1) == MF_OK);
	struct smtp_options options = {
		.transport = { .host = "localhost", .port = 587, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS, .cancel = &cancel },
		.clear_allowed = true, .auth = AUTH_PLAIN, .credentials = credentials_create("alice", "secret", NULL),
		.times = { PATIENCE_MS, PATIENCE_MS, PATIENCE_MS }, .adopt = true, .adopted = client,
	};
	if (smtp_open(&options, &s, &why) == MF_OK) {
		converse(s, message);
		smtp_destroy(s);
	}
	credentials_destroy(options.credentials);
	cancel_finish(&cancel);
	mf_close(&message);
	mf_close(&server);
	return 0;
}

/* The contract of remote.h on the memory back-end, with every set of capabilities that decides how it works. */
#include "contract/contract.c"

#include "sync/memory.h"

static struct remote *make(void *context, struct cancel *cancel)
{
	return memory_remote_create(context, cancel);
}

static void create(void *context, const char *raw)
{
	memory_mailbox_remove(context, raw);
	memory_mailbox_add(context, raw, 0, USE_NONE);
}

static void remove_mailbox(void *context, const char *raw)
{
	memory_mailbox_remove(context, raw);
}

static void deliver_message(void *context, const char *raw, const char *data, size_t len)
{
	assert_true(memory_deliver(context, raw, data, len, 1000000000, 0) != 0);
}

static void expunge(void *context, const char *raw, uint32_t uid)
{
	assert_true(memory_expunge(context, raw, uid));
}

static void flag(void *context, const char *raw, uint32_t uid)
{
	assert_true(memory_flag(context, raw, uid, FLAG_SEEN | FLAG_FLAGGED, ""));
}

static void renumber(void *context, const char *raw)
{
	memory_renumber(context, raw);
}

int main(void)
{
	static const unsigned without[] = {
		0, REMOTE_QRESYNC, REMOTE_QRESYNC | REMOTE_CONDSTORE, REMOTE_PUSH, REMOTE_RANGES, REMOTE_UIDPLUS, REMOTE_MOVE,
	};
	int failed = 0;
	for (size_t i = 0; i < sizeof without / sizeof *without; i++) {
		struct memory_server *m = memory_server_create();
		memory_caps(m, (1U << 12) - 1 - without[i]);
		struct contract_server s = {
			.context = m, .make = make, .create = create, .remove = remove_mailbox, .deliver = deliver_message, .expunge = expunge,
			.flag = flag, .renumber = renumber, .mailbox = "play/ground", .mailbox2 = "other",
		};
		failed += contract_run(&s);
		memory_server_destroy(m);
	}
	return failed != 0;
}

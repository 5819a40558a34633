/* The memory server as tests of writing use it: refusals, limits, and connections that are cut when a write has been done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cancel.h"
#include "sync/memory.h"

struct world {
	struct memory_server *server;
	struct cancel cancel;
	struct remote *remote;
	int fd;
	unsigned told;
	enum mf_err result;
	struct uid_pair pair;
	char keywords[100];
	unsigned flags, messages;
};

static void setup_session(struct world *w, unsigned caps)
{
	struct mf_reason why = {""};
	*w = (struct world){.server = memory_server_create()};
	assert_true(cancel_init(&w->cancel));
	if (caps)
		memory_caps(w->server, caps);
	w->remote = memory_remote_create(w->server, &w->cancel);
	assert_int_equal(remote_login(w->remote, &why), MF_OK);
	FILE *f = tmpfile();
	assert_non_null(f);
	assert_int_equal(fputs("Subject: a\r\n\r\nbody\r\n", f) >= 0, 1);
	assert_int_equal(fflush(f), 0);
	w->fd = dup(fileno(f));
	fclose(f);
}

static void finish_session(struct world *w)
{
	remote_destroy(w->remote);
	memory_server_destroy(w->server);
	cancel_finish(&w->cancel);
	close(w->fd);
}

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	struct world *w = context;
	(void)i;
	w->told++;
	w->result = result->result;
	w->pair = result->count ? result->pairs[0] : (struct uid_pair){0};
	return MF_OK;
}

static enum mf_err write_it(struct world *w, struct remote_write one)
{
	w->told = 0;
	return remote_write(w->remote, &one, 1, &(struct write_sink){on_done, w});
}

static struct remote_write append_to(const struct world *w, const char *raw)
{
	return (struct remote_write){.kind = WRITE_APPEND, .raw = raw, .fd = w->fd, .size = 20, .keywords = "b a b", .flags = FLAG_SEEN};
}

static enum mf_err on_opened(void *context, size_t i, const struct mailbox_status *status, bool read_only)
{
	(void)context, (void)i, (void)status, (void)read_only;
	return MF_OK;
}

static enum mf_err on_message(void *context, size_t i, const struct remote_message *m)
{
	struct world *w = context;
	(void)i;
	w->messages++;
	w->flags = m->flags;
	snprintf(w->keywords, sizeof w->keywords, "%s", m->keywords);
	return MF_OK;
}

static enum mf_err on_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *status)
{
	(void)context, (void)i, (void)status;
	return result;
}

static void look(struct world *w, const char *raw)
{
	struct change_sink sink = {.opened = on_opened, .message = on_message, .closed = on_closed, .context = w};
	w->messages = 0;
	assert_int_equal(remote_changes(w->remote, &(struct mailbox_since){.raw = raw, .method = CHANGES_ALL}, 1, &sink), MF_OK);
}

static void a_kind_is_refused(void **state)
{
	struct world w;
	(void)state;
	setup_session(&w, 0);
	memory_refuse_writes(w.server, WRITE_APPEND, MF_QUOTA);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	assert_int_equal(w.result, MF_QUOTA);
	look(&w, "INBOX");
	assert_int_equal(w.messages, 0);
	assert_int_equal(write_it(&w, (struct remote_write){.kind = WRITE_CREATE, .raw = "a"}), MF_OK);
	assert_int_equal(w.result, MF_OK);
	memory_refuse_writes(w.server, WRITE_APPEND, MF_OK);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	assert_int_equal(w.result, MF_OK);
	assert_int_equal(w.pair.to, 1);
	look(&w, "INBOX");
	assert_int_equal(w.messages, 1);
	assert_int_equal(w.flags, FLAG_SEEN);
	assert_string_equal(w.keywords, "a b");
	assert_int_equal(memory_calls(w.server, MEMORY_WRITE), 3);
	finish_session(&w);
}

static void keywords_stay_sorted_and_single(void **state)
{
	struct world w;
	uint32_t uid = 1;
	(void)state;
	setup_session(&w, 0);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	struct remote_write flags = {.kind = WRITE_FLAGS, .raw = "INBOX", .uidvalidity = 1000, .uids = &uid, .count = 1, .flags = FLAG_DRAFT,
	                             .flags_remove = FLAG_SEEN, .keywords = "z aa a", .keywords_remove = "b nothing"};
	assert_int_equal(write_it(&w, flags), MF_OK);
	assert_int_equal(w.result, MF_OK);
	look(&w, "INBOX");
	assert_string_equal(w.keywords, "a aa z");
	assert_int_equal(w.flags, FLAG_DRAFT);
	finish_session(&w);
}

static void limits_hold(void **state)
{
	struct world w;
	uint32_t uid = 1;
	(void)state;
	setup_session(&w, 0);
	memory_append_limit(w.server, 19);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	assert_int_equal(w.result, MF_TOO_BIG);
	memory_append_limit(w.server, 20);
	memory_quota(w.server, 10, 40);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	assert_int_equal(w.result, MF_OK);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OK);
	assert_int_equal(w.result, MF_QUOTA);
	memory_mailbox_add(w.server, "to", 0, USE_NONE);
	assert_int_equal(write_it(&w, (struct remote_write){.kind = WRITE_COPY, .raw = "INBOX", .to = "to", .uidvalidity = 1000, .uids = &uid, .count = 1}), MF_OK);
	assert_int_equal(w.result, MF_QUOTA);
	finish_session(&w);
}

static void a_read_only_mailbox_is_not_changed(void **state)
{
	struct world w;
	uint32_t uid = 1;
	(void)state;
	setup_session(&w, 0);
	memory_mailbox_add(w.server, "fixed", MAILBOX_READONLY, USE_NONE);
	memory_deliver(w.server, "fixed", "x", 1, 1, 0);
	struct remote_write one = {.kind = WRITE_FLAGS, .raw = "fixed", .to = "INBOX", .uidvalidity = 1001, .uids = &uid, .count = 1, .flags = FLAG_SEEN};
	static const enum write_kind kinds[] = {WRITE_FLAGS, WRITE_MOVE, WRITE_EXPUNGE, WRITE_COPY};
	for (size_t i = 0; i < 4; i++) {
		one.kind = kinds[i];
		assert_int_equal(write_it(&w, one), MF_OK);
		assert_int_equal(w.result, kinds[i] == WRITE_COPY ? MF_OK : MF_DENIED);
	}
	assert_int_equal(write_it(&w, append_to(&w, "fixed")), MF_OK);
	assert_int_equal(w.result, MF_DENIED);
	finish_session(&w);
}

/* what was not told may have happened: the next session finds it */
static void an_answer_is_cut_off(void **state)
{
	struct world w;
	struct mf_reason why = {""};
	(void)state;
	setup_session(&w, 0);
	memory_cut_answers(w.server, 0);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OFFLINE);
	assert_int_equal(w.told, 0);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_OFFLINE);
	remote_destroy(w.remote);
	w.remote = memory_remote_create(w.server, &w.cancel);
	assert_int_equal(remote_login(w.remote, &why), MF_OK);
	look(&w, "INBOX");
	assert_int_equal(w.messages, 1);
	memory_fail_call(w.server, MEMORY_WRITE, 1, MF_TIMEOUT);
	assert_int_equal(write_it(&w, append_to(&w, "INBOX")), MF_TIMEOUT);
	finish_session(&w);
}

static void a_short_file_ends_the_session(void **state)
{
	struct world w;
	(void)state;
	setup_session(&w, 0);
	struct remote_write append = append_to(&w, "INBOX");
	append.size = 21;
	assert_int_equal(write_it(&w, append), MF_IO);
	assert_int_equal(w.told, 0);
	assert_int_equal(write_it(&w, append), MF_IO);
	finish_session(&w);
}

static void those_below_are_renamed_too(void **state)
{
	struct world w;
	(void)state;
	setup_session(&w, 0);
	memory_mailbox_add(w.server, "a", 0, USE_NONE);
	memory_mailbox_add(w.server, "a/b", 0, USE_NONE);
	memory_mailbox_add(w.server, "ab", 0, USE_NONE);
	assert_int_equal(write_it(&w, (struct remote_write){.kind = WRITE_RENAME, .raw = "a", .to = "c"}), MF_OK);
	assert_int_equal(w.result, MF_OK);
	look(&w, "c/b");
	look(&w, "ab");
	assert_int_equal(write_it(&w, (struct remote_write){.kind = WRITE_RENAME, .raw = "c", .to = "ab"}), MF_OK);
	assert_int_equal(w.result, MF_EXISTS);
	finish_session(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_kind_is_refused), cmocka_unit_test(keywords_stay_sorted_and_single), cmocka_unit_test(limits_hold),
		cmocka_unit_test(a_read_only_mailbox_is_not_changed), cmocka_unit_test(an_answer_is_cut_off),
		cmocka_unit_test(a_short_file_ends_the_session), cmocka_unit_test(those_below_are_renamed_too),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

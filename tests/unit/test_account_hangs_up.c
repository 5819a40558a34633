/* A server that ends the connection at the same command, on each connection anew. */
#include "unit/replay_world.h"

static const struct remote_impl *memory;   /* the back-end itself */
static const char *_Atomic deadly;         /* a mailbox that cannot be read */
static atomic_bool no_quota;
static const char *_Atomic poison;         /* a text: a message with it cannot be stored */

static enum mf_err hang_up(struct remote *r)
{
	return memory_die((struct memory_session *)(void *)r, MF_OFFLINE, "it hangs up");
}

static enum mf_err changes(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	const char *name = atomic_load(&deadly);
	for (size_t i = 0; i < count; i++) {
		if (!name || strcmp(since[i].raw, name) != 0)
			continue;
		enum mf_err e = i ? memory->changes(r, since, i, sink) : MF_OK;
		return e != MF_OK ? e : hang_up(r);
	}
	return memory->changes(r, since, count, sink);
}

static enum mf_err quota(struct remote *r, struct quota *ret)
{
	return atomic_load(&no_quota) ? hang_up(r) : memory->quota(r, ret);
}

static bool is_poison(const struct remote_write *w)
{
	char text[1000];
	const char *what = atomic_load(&poison);
	ssize_t len = what && w->kind == WRITE_APPEND ? pread(w->fd, text, sizeof text, 0) : 0;
	return len > 0 && memmem(text, (size_t)len, what, strlen(what));
}

static enum mf_err write_some(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	for (size_t i = 0; i < count; i++) {
		if (!is_poison(&writes[i]))
			continue;
		enum mf_err e = i ? memory->write(r, writes, i, sink) : MF_OK;
		return e != MF_OK ? e : hang_up(r);
	}
	return memory->write(r, writes, count, sink);
}

static struct remote *make(void *server, unsigned roles, struct cancel *cancel)
{
	static struct remote_impl impl;
	struct remote *r = memory_remote_make(server, roles, cancel);
	if (!memory) {
		memory = r->impl;
		impl = *memory;
		impl.changes = changes;
		impl.quota = quota;
		impl.write = write_some;
	}
	r->impl = &impl;
	return r;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	assert_non_null(w);
	world_init(w);
	w->config->connections = 1;
	w->config->idle = false;
	atomic_store(&deadly, NULL);
	atomic_store(&no_quota, false);
	atomic_store(&poison, NULL);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	world_finish(*state);
	free(*state);
	return 0;
}

static void start(struct world *w)
{
	struct mf_reason why = {""};
	struct account_options options = {.config = w->config, .cache = w->cache, .bus = w->bus, .make_remote = make, .make_context = w->server};
	assert_int_equal(account_create(&options, &w->account, &why), MF_OK);
	account_start(w->account);
}

static void one_mailbox_does_not_keep_the_others(void **state)
{
	struct world *w = *state;
	static const char *const names[] = {"Before", "Deadly", "Later"};
	for (size_t i = 0; i < 3; i++) {
		memory_mailbox_add(w->server, names[i], 0, USE_NONE);
		deliver(w, names[i], 1, 1000);
	}
	atomic_store(&deadly, "Deadly");
	start(w);
	world_until(is_complete(w, "INBOX") && is_complete(w, "Before") && is_complete(w, "Later"));
	world_until(link_of(w).state == LINK_ONLINE);
	assert_false(is_complete(w, "Deadly"));
	assert_in_range(memory_calls(w->server, MEMORY_LOGIN), 1, 6);
	/* who asks for it learns that it cannot be had, and who asks for all of them too */
	assert_int_equal(want_mailbox(w, mailbox_id(w, "Deadly")), MF_PROTOCOL);
	deliver(w, "Later", 2, 1000);
	enum mf_err e;
	while ((e = want_sync(w, false)) == MF_OFFLINE) /* until it is connected again */
		world_nap();
	assert_int_equal(e, MF_PROTOCOL);
	assert_int_equal(message_count(w, "Later"), 2);
	/* ... or that it can again */
	atomic_store(&deadly, NULL);
	assert_int_equal(want_mailbox(w, mailbox_id(w, "Deadly")), MF_OK);
	assert_int_equal(want_sync(w, false), MF_OK);
	assert_int_equal(message_count(w, "Deadly"), 1);
}

static void it_is_not_asked_over_and_over(void **state)
{
	struct world *w = *state;
	memory_quota(w->server, 1, 1000);
	atomic_store(&no_quota, true);
	start(w);
	world_until(link_of(w).state == LINK_OFFLINE);
	int64_t until = clock_mono_ms() + 1500;
	while (clock_mono_ms() < until)
		world_nap();
	assert_in_range(memory_calls(w->server, MEMORY_LOGIN), 1, 8);
	assert_true(is_complete(w, "INBOX"));
}

static bool server_has(struct world *w, const char *what)
{
	char *text = server_text(w);
	bool has = strstr(text, what) != NULL;
	free(text);
	return has;
}

static void one_message_does_not_keep_the_others(void **state)
{
	struct world *w = *state;
	start(w);
	assert_int_equal(want_sync(w, false), MF_OK);
	memory_forget_calls(w->server);
	atomic_store(&poison, "Message number 50");
	go_offline(w);
	for (int i = 50; i < 53; i++) {
		char name[16];
		snprintf(name, sizeof name, "%d.eml", i);
		create_number(w, "INBOX", name, i);
	}
	account_connect(w->account);
	world_until(server_has(w, "Message number 51") && server_has(w, "Message number 52"));
	assert_false(server_has(w, "Message number 50"));
	world_until(journal_count(w->cache) == 1);
	assert_in_range(memory_calls(w->server, MEMORY_LOGIN), 1, 12);
	atomic_store(&poison, NULL);
	assert_int_equal(want_settled(w), MF_OK);
	assert_true(server_has(w, "Message number 50"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_mailbox_does_not_keep_the_others), TEST(it_is_not_asked_over_and_over),
		TEST(one_message_does_not_keep_the_others),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

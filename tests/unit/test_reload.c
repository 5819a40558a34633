/* SIGHUP: which settings have changed, and accounts that take them over while their threads run. */
#include "account_world.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "base/log.h"
#include "cli/reload.h"
#include "smtp/outbox.h"

/* --- what has changed ------------------------------------------------------------------------------------------------ */

struct told {
	char text[512];
};

static void take_note(void *context, const char *what, enum config_when when)
{
	struct told *t = context;
	size_t len = strlen(t->text);
	snprintf(t->text + len, sizeof t->text - len, "%s@%d ", what, (int)when);
}

static struct account_config *account_with(const char *key, const char *value)
{
	struct account_config *a = account_config_create("work");
	struct mf_reason why = {""};
	assert_int_equal(account_config_set(a, "imap", "imaps://imap.example.org", false, &why), MF_OK);
	assert_int_equal(account_config_set(a, "user", "alice", false, &why), MF_OK);
	if (key && account_config_set(a, key, value, false, &why) != MF_OK)
		fail_msg("%s", why.text);
	return a;
}

static void expect_change(struct account_config *a, struct account_config *b, const char *expected)
{
	struct told there = {""}, same = {""};
	account_config_compare(a, b, take_note, &there);
	assert_string_equal(there.text, expected);
	account_config_compare(b, b, take_note, &same);
	assert_string_equal(same.text, "");
	account_config_destroy(a);
	account_config_destroy(b);
}

static const struct {
	const char *key, *value, *other;
	enum config_when when;
} values[] = {
	{ "imap", "imaps://imap.example.org:1993", NULL, CONFIG_NEXT_CONNECTION },
	{ "pop3", "pop3s://pop.example.org", NULL, CONFIG_NEXT_CONNECTION },
	{ "smtp", "smtps://smtp.example.org", NULL, CONFIG_NEXT_MOUNT },
	{ "smtp", "smtps://smtp.example.org", "smtp://smtp.example.org", CONFIG_NEXT_CONNECTION },
	{ "password", "one", "two", CONFIG_NEXT_CONNECTION },
	{ "password", "one", NULL, CONFIG_NEXT_CONNECTION },
	{ "password-command", "one", "two", CONFIG_NEXT_CONNECTION },
	{ "auth", "plain", "login", CONFIG_NEXT_CONNECTION },
	{ "from", "a@example.org", "b@example.org", CONFIG_NOW },
	{ "tls", "fingerprint:SHA256:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA",
	  "fingerprint:SHA256:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AB", CONFIG_NEXT_CONNECTION },
	{ "tls", "none", NULL, CONFIG_NEXT_CONNECTION },
	{ "tls-ca-file", "/a", "/b", CONFIG_NEXT_CONNECTION },
	{ "tls-insecure", "yes", "no", CONFIG_NEXT_CONNECTION },
	{ "sync", "full", "headers", CONFIG_NOW },
	{ "mailboxes", "subscribed", NULL, CONFIG_NOW },
	{ "exclude", "a, b", "a", CONFIG_NOW },
	{ "exclude", "a, b", "a, c", CONFIG_NOW },
	{ "exclude", "a", NULL, CONFIG_NOW },
	{ "max-messages", "1", "2", CONFIG_NOW },
	{ "cache-size", "1G", NULL, CONFIG_NOW },
	{ "cache-min-free", "2G", NULL, CONFIG_NOW },
	{ "delete", "expunge", NULL, CONFIG_NOW },
	{ "expunge-delay", "2h", NULL, CONFIG_NOW },
	{ "mark-seen", "read", NULL, CONFIG_NOW },
	{ "idle", "no", NULL, CONFIG_NOW },
	{ "poll", "6m", NULL, CONFIG_NOW },
	{ "connections", "2", NULL, CONFIG_NEXT_MOUNT },
	{ "connect-timeout", "2s", NULL, CONFIG_NEXT_CONNECTION },
	{ "io-timeout", "2s", NULL, CONFIG_NEXT_CONNECTION },
	{ "pop3-after", "3m", NULL, CONFIG_NOW },
	{ "leave-on-server", "3", "no", CONFIG_NOW },
	{ "send", "connect", "manual", CONFIG_NOW },
	{ "send-delay", "1s", NULL, CONFIG_NOW },
	{ "save-sent", "no", "yes", CONFIG_NOW },
	{ "sent-mailbox", "Sent", "Out", CONFIG_NOW },
};

static void every_change_is_told(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		char expected[64];
		snprintf(expected, sizeof expected, "%s@%d ", values[i].key, (int)values[i].when);
		expect_change(account_with(values[i].key, values[i].value), account_with(values[i].other ? values[i].key : NULL, values[i].other), expected);
	}
}

/* Whoever adds a key says when a change of it applies. */
static void no_key_is_forgotten(void **state)
{
	(void)state;
	for (const char *const *key = mount_account_keys; *key; key++) {
		bool found = !strcmp(*key, "user") || !strcmp(*key, "layout"); /* another account; there is only one */
		for (size_t i = 0; i < sizeof values / sizeof *values; i++)
			found |= !strcmp(values[i].key, *key);
		if (!found)
			fail_msg("%s: not tested", *key);
	}
}

static void an_identity_is_user_host_and_protocol(void **state)
{
	(void)state;
	static const struct { const char *key, *value, *identity; } cases[] = {
		{ NULL, NULL, "imap alice@imap.example.org" }, { "imap", "imap://imap.example.org:144", "imap alice@imap.example.org" },
		{ "pop3", "pop3s://pop.example.org", "imap alice@imap.example.org" }, { "user", "bob", "imap bob@imap.example.org" },
		{ "imap", "imaps://other.example.org", "imap alice@other.example.org" },
		{ "imap", "imaps://IMAP.Example.org", "imap alice@imap.example.org" }, { "user", "Bob@Example", "imap Bob@Example@imap.example.org" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct account_config *a = account_with(cases[i].key, cases[i].value);
		MF_CLEANUP(mf_free) char *identity = account_config_identity(a);
		assert_string_equal(identity, cases[i].identity);
		account_config_destroy(a);
	}
}

/* --- accounts that run ----------------------------------------------------------------------------------------------- */

struct mounted {
	struct world world;
	char path[96];
	struct config *first;
	struct mount_options options;
	struct mount_plan plan;
	struct holding holding;
};

#define ACCOUNT "[account work]\nimap = imap://127.0.0.1:9\ntls = none\nuser = alice@example.org\nsmtp = smtp://127.0.0.1:9\n"

static void write_config(struct mounted *m, const char *text)
{
	FILE *file = fopen(m->path, "w");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(m->path, 0600), 0);
}

/* By the file, with what -o says; with a server in memory, or (real) the sessions that mailfs makes, which nobody answers. */
static void mount_it(struct mounted *m, const char *text, const char *options, bool real)
{
	struct mf_reason why = {""};
	struct world *w = &m->world;
	world_init(w);
	account_config_destroy(w->config);
	snprintf(m->path, sizeof m->path, "%s/config", w->dir);
	write_config(m, text);
	mount_options_init(&m->options);
	assert_int_equal(mount_options_parse(&m->options, options, &why), MF_OK);
	assert_int_equal(config_load(m->path, &m->first, &why), MF_OK);
	w->config = config_find(m->first, "work");
	assert_int_equal(mount_options_apply(&m->options, w->config, &why), MF_OK);
	struct account_options account = { .config = w->config, .cache = w->cache, .bus = w->bus, .make_remote = real ? NULL : memory_remote_make,
	                                   .make_context = w->server };
	struct outbox_options outbox = { .config = w->config, .state_dir = w->state };
	m->holding = (struct holding){ .bus = w->bus, .accounts = MF_NEW(struct account *), .outboxes = MF_NEW(struct outbox *), .count = 1 };
	assert_int_equal(account_create(&account, &w->account, &why), MF_OK);
	assert_int_equal(outbox_open(&outbox, &m->holding.outboxes[0], &why), MF_OK);
	m->holding.accounts[0] = w->account;
	m->plan = (struct mount_plan){ .options = &m->options, .config_path = m->path };
	account_start(w->account);
	outbox_start(m->holding.outboxes[0]);
}

static void unmount_it(struct mounted *m)
{
	outbox_close(m->holding.outboxes[0]);
	world_stop(&m->world);
	for (size_t i = 0; i < m->holding.config_count; i++)
		config_destroy(m->holding.configs[i]);
	free(m->holding.configs);
	free(m->holding.accounts);
	free(m->holding.outboxes);
	config_destroy(m->first);
	m->world.config = NULL;
	world_finish(&m->world);
	mount_options_finish(&m->options);
}

static const struct account_config *config_now(const struct mounted *m)
{
	return account_config(m->world.account);
}

/* what the last reload logged ends with this */
static void expect_log(const char *end)
{
	size_t len;
	MF_CLEANUP(mf_free) char *log = log_recent(&len);
	if (len < strlen(end) || !strstr(log + (len > 600 ? len - 600 : 0), end))
		fail_msg("not in the log: %s; it ends with: %s", end, log + (len > 600 ? len - 600 : 0));
}

static void settings_are_taken_over(void **state)
{
	(void)state;
	struct mounted m = { .holding = { 0 } };
	mount_it(&m, ACCOUNT "password = one\n", "", false);
	const struct account_config *before = config_now(&m);
	reload(&m.plan, &m.holding);
	assert_ptr_equal(config_now(&m), before);
	expect_log("nothing has changed");
	write_config(&m, ACCOUNT "password = two\npoll = 1h\nconnections = 1\n[mailbox work/A]\nsync = full\n");
	reload(&m.plan, &m.holding);
	assert_int_equal(config_now(&m)->poll_ms, 3600000);
	assert_string_equal(config_now(&m)->password, "two");
	expect_log("account work: changed: poll, [mailbox work/A]");
	expect_log("account work: changed from the next connection on: password");
	expect_log("account work: changed from the next mount on: connections");
	/* who looked before may go on looking */
	assert_string_equal(before->password, "one");
	unmount_it(&m);
}

static void a_mistake_changes_nothing(void **state)
{
	(void)state;
	static const struct { const char *text, *says; } cases[] = {
		{ ACCOUNT "poll = 1h\npol = 1\n", "config:7: unknown key \"pol\"" },
		{ ACCOUNT "poll = 1h\n[account home]\nuser = x\n", "account home: no server is set" },
		{ ACCOUNT "poll = 1h\nfrom = @\n", "from is no list of addresses" },
		{ "[account work]\nimap = imaps://127.0.0.1:9\nuser = alice@example.org\ntls-ca-file = /nonexistent/ca\npoll = 1h\n", "/nonexistent/ca" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mounted m = { .holding = { 0 } };
		mount_it(&m, ACCOUNT, "", false);
		const struct account_config *before = config_now(&m);
		write_config(&m, cases[i].text);
		reload(&m.plan, &m.holding);
		assert_ptr_equal(config_now(&m), before);
		assert_int_equal(m.holding.config_count, 0);
		expect_log(cases[i].says);
		unlink(m.path);
		reload(&m.plan, &m.holding);
		assert_ptr_equal(config_now(&m), before);
		expect_log("No such file");
		unmount_it(&m);
	}
}

static void what_cannot_be_read_again_is_said(void **state)
{
	(void)state;
	struct mounted m = { .holding = { 0 } };
	mount_it(&m, ACCOUNT, "", false);
	unlink(m.path);
	assert_int_equal(mkfifo(m.path, 0600), 0);
	reload(&m.plan, &m.holding);
	expect_log("is not a regular file");
	m.plan.config_path = NULL;
	reload(&m.plan, &m.holding);
	expect_log("there is no config file to be read again\n");
	unmount_it(&m);
}

static void another_account_is_left_alone(void **state)
{
	(void)state;
	struct mounted m = { .holding = { 0 } };
	mount_it(&m, ACCOUNT, "", false);
	const struct account_config *before = config_now(&m);
	write_config(&m, "[account work]\nimap = imap://127.0.0.1:9\ntls = none\nuser = bob@example.org\npoll = 1h\n");
	reload(&m.plan, &m.holding);
	expect_log("account work: user has changed");
	write_config(&m, "[account work]\nimap = imap://localhost:9\ntls = none\nuser = alice@example.org\npoll = 1h\n");
	reload(&m.plan, &m.holding);
	expect_log("account work: imap has changed");
	write_config(&m, "[account home]\nimap = imap://localhost:9\ntls = none\nuser = alice@example.org\n");
	reload(&m.plan, &m.holding);
	expect_log("account work is not in the config file");
	expect_log("account home is new");
	assert_ptr_equal(config_now(&m), before);
	unmount_it(&m);
}

static void the_command_line_and_the_terminal_win(void **state)
{
	(void)state;
	struct mounted m = { .holding = { 0 } };
	struct mf_reason why = {""};
	mount_it(&m, ACCOUNT, "ro,poll=1m", false);
	assert_int_equal(account_config_set(m.world.config, "password", "asked for", false, &why), MF_OK);
	write_config(&m, ACCOUNT "poll = 1h\nsend-delay = 1h\nleave-on-server = no\n");
	reload(&m.plan, &m.holding);
	expect_log("account work: changed: send-delay\n");
	assert_int_equal(config_now(&m)->poll_ms, 60000);
	assert_int_equal(config_now(&m)->leave_on_server_days, -1);
	assert_string_equal(config_now(&m)->password, "asked for");
	write_config(&m, ACCOUNT "password-command = echo x\n");
	reload(&m.plan, &m.holding);
	assert_null(config_now(&m)->password);
	unmount_it(&m);
}

/* --- while others look ----------------------------------------------------------------------------------------------- */

struct looker {
	struct mounted *mounted;
	atomic_bool stop;
};

static void *look(void *context)
{
	struct looker *l = context;
	while (!l->stop) {
		const struct account_config *c = config_now(l->mounted);
		assert_string_equal(c->user, "alice@example.org");
		assert_true(c->poll_ms == 3600000 ? !c->from : strlen(c->from) > 0);
		account_refresh(l->mounted->world.account);
		outbox_wake(l->mounted->holding.outboxes[0], true);
		world_nap();
	}
	return NULL;
}

/* For ThreadSanitizer above all: sessions connect and the outbox sends, by settings that change all the time. */
static void threads_see_one_or_the_other(void **state)
{
	(void)state;
	struct mounted m = { .holding = { 0 } };
	struct looker looker = { .mounted = &m };
	struct mf_reason why = {""};
	pthread_t thread;
	mount_it(&m, ACCOUNT "password = one\npoll = 1h\n", "", true);
	uint64_t id;
	struct outbox_put put = { .name = "x.eml", .at_once = true };
	MF_CLEANUP(mf_close) int fd = memfd_create("letter", MFD_CLOEXEC);
	static const char letter[] = "To: bob@example.org\nSubject: x\n\nx\n";
	assert_int_equal(write(fd, letter, sizeof letter - 1), sizeof letter - 1);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(outbox_put(m.holding.outboxes[0], fd, &put, &id, &why), MF_OK);
	assert_int_equal(pthread_create(&thread, NULL, look, &looker), 0);
	for (int i = 0; i < 30; i++) {
		write_config(&m, i % 2 ? ACCOUNT "password = one\npoll = 1h\n" : ACCOUNT "password = two\npoll = 2h\nfrom = Alice <alice@example.org>\nidle = no\n");
		reload(&m.plan, &m.holding);
		assert_int_equal(m.holding.config_count, i + 1);
	}
	looker.stop = true;
	pthread_join(thread, NULL);
	assert_int_equal(config_now(&m)->poll_ms, 3600000);
	unmount_it(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_change_is_told), cmocka_unit_test(no_key_is_forgotten), cmocka_unit_test(an_identity_is_user_host_and_protocol),
		cmocka_unit_test(settings_are_taken_over), cmocka_unit_test(a_mistake_changes_nothing), cmocka_unit_test(what_cannot_be_read_again_is_said), cmocka_unit_test(another_account_is_left_alone),
		cmocka_unit_test(the_command_line_and_the_terminal_win), cmocka_unit_test(threads_see_one_or_the_other),
	};
	return cmocka_run_group_tests_name("reload", tests, NULL, NULL);
}

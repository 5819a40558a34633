/* control_world.h: an account on a server in memory, with its cache in a directory of its own, and what control needs. */
#ifndef TESTS_CONTROL_WORLD_H
#define TESTS_CONTROL_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/cache.h"
#include "control/eventlog.h"
#include "control/verbs.h"
#include "sync/account.h"
#include "sync/memory.h"

struct world {
	char directory[64];
	struct bus *bus;
	struct memory_server *server;
	struct account_config *config;
	struct cache *cache;
	struct account *account;
	struct eventlog *events;
	struct control control;
	bool stopped;
};

static void world_on_stop(void *context)
{
	((struct world *)context)->stopped = true;
}

static struct world *world_create(bool offline, size_t log_limit)
{
	struct world *w = MF_NEW(struct world);
	struct mf_reason why = { "" };
	strcpy(w->directory, "/tmp/mailfs-control-XXXXXX");
	assert_non_null(mkdtemp(w->directory));
	setenv("XDG_RUNTIME_DIR", w->directory, 1);
	setenv("XDG_STATE_HOME", w->directory, 1);
	setenv("XDG_CACHE_HOME", w->directory, 1);
	w->bus = bus_create();
	w->server = memory_server_create();
	w->config = account_config_create("work");
	assert_int_equal(account_config_set(w->config, "imap", "imaps://imap.example.org", false, &why), MF_OK);
	assert_int_equal(account_config_set(w->config, "user", "alice@example.org", false, &why), MF_OK);
	MF_CLEANUP(mf_free) char *state = mf_format("%s/state", w->directory);
	MF_CLEANUP(mf_free) char *bodies = mf_format("%s/cache", w->directory);
	struct cache_options cache = { .state_dir = state, .cache_dir = bodies, .identity = "imap alice@example.org", .bus = w->bus };
	assert_int_equal(cache_open(&cache, &w->cache, &why), MF_OK);
	struct account_options options = { .config = w->config, .cache = w->cache, .bus = w->bus, .offline = offline,
	                                   .make_remote = memory_remote_make, .make_context = w->server };
	assert_int_equal(account_create(&options, &w->account, &why), MF_OK);
	w->events = eventlog_create(w->bus, &w->account, 1, log_limit);
	w->control = (struct control){ .accounts = &w->account, .count = 1, .events = w->events, .on_stop = world_on_stop,
	                               .stop_context = w, .mountpoint = "/mnt/mail" };
	return w;
}

/* connects, and waits until the mailboxes are listed */
__attribute__((unused))
static void world_start(struct world *w)
{
	struct mf_reason why = { "" };
	account_start(w->account);
	assert_int_equal(account_wait_listed(w->account, 20000, &why), MF_OK);
}

__attribute__((unused))
static uint32_t world_deliver(struct world *w, const char *raw, const char *subject)
{
	MF_CLEANUP(mf_free) char *text = mf_format("From: Bob <bob@example.org>\r\nSubject: %s\r\nMessage-ID: <%s@x>\r\n\r\nhello\r\n", subject, subject);
	return memory_deliver(w->server, raw, text, strlen(text), 1763600000, 0);
}

static void world_destroy(struct world *w)
{
	eventlog_destroy(w->events);
	account_destroy(w->account);
	cache_close(w->cache);
	bus_destroy(w->bus);
	memory_server_destroy(w->server);
	account_config_destroy(w->config);
	MF_CLEANUP(mf_free) char *command = mf_format("rm -rf '%s'", w->directory);
	assert_int_equal(system(command), 0);
	free(w);
}

/* until the condition holds; a test that waits for longer has failed */
#define AWAIT(condition) do { \
		int64_t until_ = clock_mono_ms() + 60000; \
		while (!(condition)) { \
			assert_true(clock_mono_ms() < until_); \
			poll(NULL, 0, 2); \
		} \
	} while (0)

#endif

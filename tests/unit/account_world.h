/* account_world.h: an account with a cache in a folder of its own and a server in memory, and ways to wait for it. */
#ifndef MF_TESTS_ACCOUNT_WORLD_H
#define MF_TESTS_ACCOUNT_WORLD_H

#include <pthread.h>
#include <stdatomic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bus.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cache/body.h"
#include "cache/cache.h"
#include "config/config.h"
#include "sync/account.h"
#include "sync/memory.h"

#define PATIENCE_MS 60000        /* for what should be there in milliseconds: only a failed test waits so long */

struct world {
	char dir[64], state[96], bodies[96];
	struct memory_server *server;
	struct account_config *config;
	struct bus *bus;
	struct cache *cache;
	struct account *account;
	struct remote *(*make)(void *context, unsigned roles, struct cancel *cancel);   /* sessions; NULL: of the server in memory itself */
	void *make_context;
};

/* From one of the steps that are tried to the next: each of them is, but some 14 of many under sanitizers, where all take minutes */
static inline unsigned world_stride(unsigned steps)
{
	return getenv("MAILFS_TEST_SHORT") && !getenv("MAILFS_TEST_LONG") ? steps / 14 + 1 : 1;
}

static inline void world_rm(const char *dir)
{
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", dir);
	assert_int_equal(system(command), 0);
}

static inline void world_open_cache(struct world *w)
{
	struct mf_reason why = {""};
	struct cache_options options = {.state_dir = w->state, .cache_dir = w->bodies, .identity = "memory test", .bus = w->bus,
		.only_deletes = w->config->pop3.host && !w->config->imap.host};
	enum mf_err e = cache_open(&options, &w->cache, &why);
	if (e != MF_OK)
		print_error("cache_open: %s: %s\n", mf_err_name(e), why.text);
	assert_int_equal(e, MF_OK);
}

/* without a cache */
static inline void world_init_bare(struct world *w)
{
	*w = (struct world){0};
	const char *tmp = getenv("TMPDIR");
	snprintf(w->dir, sizeof w->dir, "%s/mailfs-test-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->state, sizeof w->state, "%s/state", w->dir);
	snprintf(w->bodies, sizeof w->bodies, "%s/cache", w->dir);
	w->server = memory_server_create();
	w->config = account_config_create("test");
	w->config->sync = SYNC_HEADERS;
	w->bus = bus_create();
}

static inline void world_init(struct world *w)
{
	world_init_bare(w);
	world_open_cache(w);
}

static inline void world_start_as(struct world *w, bool offline)
{
	struct mf_reason why = {""};
	struct account_options options = {
		.config = w->config, .cache = w->cache, .bus = w->bus, .offline = offline, .make_remote = w->make ? w->make : memory_remote_make,
		.make_context = w->make ? w->make_context : w->server,
	};
	assert_int_equal(account_create(&options, &w->account, &why), MF_OK);
	account_start(w->account);
}

static inline void world_start(struct world *w)
{
	world_start_as(w, false);
}

static inline void world_stop(struct world *w)
{
	account_destroy(w->account);
	w->account = NULL;
}

/* the process ends and begins anew */
static inline void world_restart(struct world *w)
{
	world_stop(w);
	cache_close(w->cache);
	world_open_cache(w);
	world_start(w);
}

static inline void world_finish(struct world *w)
{
	world_stop(w);
	cache_close(w->cache);
	bus_destroy(w->bus);
	account_config_destroy(w->config);
	memory_server_destroy(w->server);
	world_rm(w->dir);
}

/* --- waiting for a condition ---------------------------------------------------------------------------------------------- */

static inline void world_nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

#define world_until(condition) do { \
		int64_t world_give_up = clock_mono_ms() + PATIENCE_MS; \
		while (!(condition)) { \
			if (clock_mono_ms() > world_give_up) \
				fail_msg("never true: %s", #condition); \
			world_nap(); \
		} \
	} while (0)

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool done;
	enum mf_err result;
	struct want *want;
};

static inline void waiter_init(struct waiter *t)
{
	*t = (struct waiter){0};
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->cond, NULL);
}

static inline void waiter_done(void *context, enum mf_err result)
{
	struct waiter *t = context;
	pthread_mutex_lock(&t->lock);
	assert_false(t->done); /* exactly once */
	t->done = true;
	t->result = result;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static inline bool waiter_is_done(struct waiter *t)
{
	pthread_mutex_lock(&t->lock);
	bool done = t->done;
	pthread_mutex_unlock(&t->lock);
	return done;
}

static inline enum mf_err waiter_wait(struct waiter *t)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_MS / 1000;
	int waited = 0;
	pthread_mutex_lock(&t->lock);
	while (!t->done && waited == 0)
		waited = pthread_cond_timedwait(&t->cond, &t->lock, &until);
	bool done = t->done;
	enum mf_err result = t->result;
	pthread_mutex_unlock(&t->lock);
	if (!done)
		fail_msg("a want was never answered");
	return result;
}

static inline enum mf_err want_mailbox(struct world *w, uint64_t mailbox)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_mailbox(w->account, mailbox, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

static inline enum mf_err want_sync(struct world *w, bool populate)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_sync(w->account, NULL, 0, populate, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

static inline enum mf_err want_verify(struct world *w)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_verify(w->account, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

static inline enum mf_err want_bytes(struct world *w, struct body *body, uint64_t offset, uint64_t length)
{
	struct waiter t;
	enum mf_err e;
	waiter_init(&t);
	return account_want_body(w->account, body, offset, length, waiter_done, &t, &e, &t.want) ? e : waiter_wait(&t);
}

/* --- the tree ------------------------------------------------------------------------------------------------------------------- */

static inline uint64_t mailbox_id(struct world *w, const char *raw)
{
	struct mailbox m;
	if (cache_mailbox_by_raw(w->cache, raw, &m) != MF_OK)
		return 0;
	uint64_t id = m.id;
	mailbox_finish(&m);
	return id;
}

static inline bool is_complete(struct world *w, const char *raw)
{
	struct mailbox m;
	if (cache_mailbox_by_raw(w->cache, raw, &m) != MF_OK)
		return false;
	bool complete = m.complete;
	mailbox_finish(&m);
	return complete;
}

static inline size_t message_count(struct world *w, const char *raw)
{
	struct uid_id *uids = NULL;
	size_t count = 0;
	uint64_t id = mailbox_id(w, raw);
	if (id == 0 || cache_uids(w->cache, id, &uids, &count) != MF_OK)
		return SIZE_MAX;
	free(uids);
	return count;
}

/* the message with this UID; 0: none */
static inline uint64_t message_id(struct world *w, const char *raw, uint32_t uid)
{
	struct uid_id *uids = NULL;
	size_t count = 0;
	uint64_t id = 0;
	if (cache_uids(w->cache, mailbox_id(w, raw), &uids, &count) != MF_OK)
		return 0;
	for (size_t i = 0; i < count; i++) {
		if (uids[i].uid == uid)
			id = uids[i].id;
	}
	free(uids);
	return id;
}

static inline unsigned message_flags(struct world *w, uint64_t id)
{
	struct message m;
	if (cache_message(w->cache, id, &m) != MF_OK)
		return ~0U;
	unsigned flags = m.flags;
	message_finish(&m);
	return flags;
}

/* A message of about this size, the same for the same number; the caller frees. */
static inline char *message_text(int number, size_t size, size_t *ret_len)
{
	char *text = mf_alloc(size + 400);
	int head = snprintf(text, 400, "From: Sender %d <s%d@example.org>\r\nTo: me@example.org\r\nSubject: Message number %d\r\n"
		"Date: Fri, 20 Nov 2026 10:%02d:%02d +0000\r\nMessage-ID: <m%d@example.org>\r\n\r\n", number % 7, number % 7, number,
		number / 60 % 60, number % 60, number);
	size_t len = (size_t)head;
	for (size_t i = 0; len < size; i++, len++)
		text[len] = i % 72 == 70 ? '\r' : i % 72 == 71 ? '\n' : (char)('!' + (i * 7 + (size_t)number) % 90);
	*ret_len = len;
	return text;
}

static inline uint32_t deliver_to(struct memory_server *server, const char *raw, int number, size_t size)
{
	size_t len;
	char *text = message_text(number, size, &len);
	uint32_t uid = memory_deliver(server, raw, text, len, 1763632800 + number, 0);
	free(text);
	assert_true(uid != 0);
	return uid;
}

static inline uint32_t deliver(struct world *w, const char *raw, int number, size_t size)
{
	return deliver_to(w->server, raw, number, size);
}

static inline struct body *open_body(struct world *w, uint64_t id)
{
	struct entry e;
	struct body *body = NULL;
	assert_int_equal(cache_entry(w->cache, id, &e), MF_OK);
	assert_int_equal(cache_body_create(w->cache, id, e.size, &body), MF_OK);
	return body;
}

static inline void check_bytes(struct body *body, int number, size_t size, uint64_t offset, uint64_t length)
{
	size_t len;
	char *text = message_text(number, size, &len), *got = mf_alloc(length + 1);
	assert_true(offset + length <= len);
	assert_int_equal(pread(body_fd(body), got, length, (off_t)offset), (ssize_t)length);
	assert_memory_equal(got, text + offset, length);
	free(got);
	free(text);
}

/* reads it as a program would, and compares every byte */
static inline enum mf_err read_whole(struct world *w, uint64_t id, int number, size_t size)
{
	struct body *body = open_body(w, id);
	enum mf_err e = want_bytes(w, body, 0, body_size(body) ? body_size(body) : 1);
	if (e == MF_OK) {
		size_t len;
		free(message_text(number, size, &len));
		assert_int_equal(body_size(body), len);
		check_bytes(body, number, size, 0, len);
	}
	body_unref(body);
	return e;
}

static inline struct link_info link_of(struct world *w)
{
	struct link_info info;
	account_link(w->account, &info);
	return info;
}

#endif

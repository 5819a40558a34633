/* test_cache_fixture.h: an account's cache in a folder of its own, messages to fill it with, and what the bus told. */
#ifndef MF_TEST_CACHE_FIXTURE_H
#define MF_TEST_CACHE_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bus.h"
#include "base/clock.h"
#include "base/mem.h"
#include "cache/body.h"
#include "cache/cache.h"

struct told { enum change_kind kind; uint64_t mailbox, message, parent, old_mailbox; uint32_t uid; int is_new; bool asked; char name[256], old_name[256]; };

struct fixture {
	char dir[64], state[96], cache_dir[96];
	struct cache_options options;
	struct bus *bus;
	struct bus_subscription *subscription;
	struct cache *c;
	pthread_mutex_t lock;
	struct told *told;
	size_t told_count;
};

static void remember_change(void *context, const struct change *change)
{
	struct fixture *f = context;
	pthread_mutex_lock(&f->lock);
	f->told = mf_realloc_array(f->told, f->told_count + 1, sizeof *f->told);
	struct told *t = &f->told[f->told_count++];
	*t = (struct told){ change->kind, change->mailbox, change->message, change->parent, change->old_mailbox, change->uid, change->is_new, change->asked, "", "" };
	snprintf(t->name, sizeof t->name, "%s", change->name ? change->name : "");
	snprintf(t->old_name, sizeof t->old_name, "%s", change->old_name ? change->old_name : "");
	pthread_mutex_unlock(&f->lock);
}

static inline void fixture_init(struct fixture *f)
{
	*f = (struct fixture){ 0 };
	const char *base = getenv("TMPDIR");
	snprintf(f->dir, sizeof f->dir, "%.40s/mfcache-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->state, sizeof f->state, "%s/state/a", f->dir);
	snprintf(f->cache_dir, sizeof f->cache_dir, "%s/cache/a", f->dir);
	pthread_mutex_init(&f->lock, NULL);
	f->bus = bus_create();
	f->subscription = bus_subscribe(f->bus, remember_change, f);
	f->options = (struct cache_options){ .state_dir = f->state, .cache_dir = f->cache_dir, .identity = "imap alice@example.org",
		                             .account = 3, .bus = f->bus };
}

static inline void fixture_open(struct fixture *f)
{
	struct mf_reason why = { "" };
	enum mf_err e = cache_open(&f->options, &f->c, &why);
	if (e)
		fail_msg("cache_open: %s: %s", mf_err_name(e), why.text);
}

static inline void fixture_close(struct fixture *f)
{
	if (f->c)
		cache_close(f->c);
	f->c = NULL;
}

static inline void fixture_finish(struct fixture *f)
{
	fixture_close(f);
	bus_unsubscribe(f->bus, f->subscription);
	bus_destroy(f->bus);
	free(f->told);
	pthread_mutex_destroy(&f->lock);
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", f->dir);
	assert_int_equal(system(command), 0);
}

static inline int fixture_setup(void **state)
{
	struct fixture *f = malloc(sizeof *f);
	fixture_init(f);
	fixture_open(f);
	*state = f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	fixture_finish(*state);
	free(*state);
	return 0;
}

/* forgets what the bus told until now */
static inline void told_reset(struct fixture *f)
{
	bus_flush(f->bus);
	pthread_mutex_lock(&f->lock);
	f->told_count = 0;
	pthread_mutex_unlock(&f->lock);
}

static inline size_t told_count(struct fixture *f, enum change_kind kind, uint64_t mailbox)
{
	bus_flush(f->bus);
	size_t count = 0;
	for (size_t i = 0; i < f->told_count; i++)
		count += f->told[i].kind == kind && f->told[i].mailbox == mailbox;
	return count;
}

static inline const struct told *told_of(struct fixture *f, enum change_kind kind, uint64_t message)
{
	bus_flush(f->bus);
	for (size_t i = 0; i < f->told_count; i++)
		if (f->told[i].kind == kind && f->told[i].message == message)
			return &f->told[i];
	return NULL;
}

static inline struct told need_told(struct fixture *f, enum change_kind kind, uint64_t message)
{
	const struct told *told = told_of(f, kind, message);
	assert_non_null(told);
	return told ? *told : (struct told){ 0 };
}

static inline struct txn *begin(struct fixture *f)
{
	struct txn *t = NULL;
	assert_int_equal(cache_begin(f->c, &t), MF_OK);
	return t;
}

static inline void commit(struct txn *t)
{
	assert_int_equal(txn_commit(t), MF_OK);
}

static inline uint64_t say(struct txn *t, const char *raw, char delimiter)
{
	uint64_t id = 0;
	assert_int_equal(txn_mailbox_said(t, &(struct mailbox_said){ .raw = raw, .delimiter = delimiter }, &id), MF_OK);
	return id;
}

static inline uint64_t add_mailbox(struct fixture *f, const char *raw)
{
	struct txn *t = begin(f);
	uint64_t id = say(t, raw, '/');
	commit(t);
	return id;
}

/* a message made from its number: the same number is the same message */
struct test_message { struct mail_summary summary; char subject[40], message_id[40]; struct message_put put; };

static inline const struct message_put *message_make(struct test_message *m, uint64_t mailbox, uint32_t uid, unsigned number)
{
	snprintf(m->subject, sizeof m->subject, "Subject number %u", number);
	snprintf(m->message_id, sizeof m->message_id, "%u.abc@example.org", number);
	static char from[] = "Alice Example <alice@example.org>", name[] = "Alice Example", to[] = "bob@example.org";
	m->summary = (struct mail_summary){ .has_date = true, .date = 1700000000 + (int64_t)number * 60, .from = from, .from_name = name,
		                            .to = to, .subject = m->subject, .message_id = m->message_id };
	for (unsigned i = 0, rest = number * 2654435761U; i < 8; i++, rest /= 16)
		m->summary.key[i] = (char)('a' + rest % 16);
	m->summary.key[7] = (char)('a' + number % 26); /* different for neighbours */
	m->put = (struct message_put){ .mailbox = mailbox, .uid = uid, .size = 1000 + number, .modseq = 5, .internal_date = 1700000000 + (int64_t)number * 60,
		                       .flags = 0, .keywords = "", .summary = &m->summary };
	return &m->put;
}

static inline uint64_t put(struct txn *t, uint64_t mailbox, uint32_t uid, unsigned number)
{
	struct test_message m;
	uint64_t id = 0;
	assert_int_equal(txn_message_put(t, message_make(&m, mailbox, uid, number), &id), MF_OK);
	return id;
}

static inline uint64_t add_message(struct fixture *f, uint64_t mailbox, uint32_t uid, unsigned number)
{
	struct txn *t = begin(f);
	uint64_t id = put(t, mailbox, uid, number);
	commit(t);
	return id;
}

static inline char *name_of(struct fixture *f, uint64_t message)
{
	struct message m;
	assert_int_equal(cache_message(f->c, message, &m), MF_OK);
	char *name = mf_strdup(m.name);
	message_finish(&m);
	return name;
}

static inline void add_body(struct fixture *f, uint64_t message, const char *text)
{
	struct body *b;
	assert_int_equal(cache_body_create(f->c, message, strlen(text), &b), MF_OK);
	assert_int_equal(body_write(b, 0, text, strlen(text)), MF_OK);
	assert_int_equal(body_finish(b, strlen(text)), MF_OK);
	body_unref(b);
}

static inline bool has_body(struct fixture *f, uint64_t message, const char *text)
{
	struct body *b;
	char read_back[256] = "";
	if (cache_body_get(f->c, message, &b))
		return false;
	bool same = body_is_whole(b) && body_size(b) == strlen(text) &&
	            pread(body_fd(b), read_back, strlen(text), 0) == (ssize_t)strlen(text) && !strcmp(read_back, text);
	body_unref(b);
	return same;
}

static inline size_t list_count(struct fixture *f, uint64_t mailbox);
static inline bool count_entry(void *context, const struct entry *e, const char *name)
{
	(void)e;
	(void)name;
	++*(size_t *)context;
	return true;
}
static inline size_t list_count(struct fixture *f, uint64_t mailbox)
{
	size_t count = 0;
	assert_int_equal(cache_list(f->c, mailbox, 0, count_entry, &count), MF_OK);
	return count;
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

#endif

/* cache: readers beside a writer; meant for ThreadSanitizer as much as for its own assertions */
#include <sched.h>
#include <stdatomic.h>

#include "unit/test_cache_fixture.h"

enum { BATCH = 10, ROUNDS = 120, READER_COUNT = 4 };

struct shared {
	struct fixture *f;
	uint64_t boxes[3];
	atomic_bool stop;
	atomic_uint failures, reads;
};

/* every transaction adds BATCH messages or takes BATCH away: any other count is a torn view */
static void *lister(void *context)
{
	struct shared *s = context;
	while (!atomic_load(&s->stop)) {
		for (int i = 0; i < 3; i++) {
			size_t count = 0;
			if (cache_list(s->f->c, s->boxes[i], 0, count_entry, &count) != MF_OK || count % BATCH)
				atomic_fetch_add(&s->failures, 1);
			struct uid_id *uids;
			if (cache_uids(s->f->c, s->boxes[i], &uids, &count) != MF_OK || count % BATCH)
				atomic_fetch_add(&s->failures, 1);
			else
				free(uids);
			struct mailbox m;
			if (cache_mailbox(s->f->c, s->boxes[i], &m) != MF_OK || m.total % BATCH)
				atomic_fetch_add(&s->failures, 1);
			mailbox_finish(&m);
		}
		atomic_fetch_add(&s->reads, 1);
	}
	return NULL;
}

struct picked { char name[256]; uint64_t id; };
static bool pick(void *context, const struct entry *e, const char *name)
{
	struct picked *p = context;
	snprintf(p->name, sizeof p->name, "%s", name);
	p->id = e->id;
	return e->id % 7 != 0;
}

static void *looker(void *context)
{
	struct shared *s = context;
	unsigned seed = 5;
	while (!atomic_load(&s->stop)) {
		uint64_t box = s->boxes[(unsigned)rand_r(&seed) % 3];
		struct picked p = { "", 0 };
		(void)cache_list(s->f->c, box, (unsigned)rand_r(&seed) % 500, pick, &p);
		if (!p.id)
			continue;
		struct entry e, next[8];
		size_t count;
		enum mf_err found = cache_lookup(s->f->c, box, p.name, &e);
		if (found != MF_NOT_FOUND && (found != MF_OK || e.mailbox != box))
			atomic_fetch_add(&s->failures, 1);
		found = cache_successors(s->f->c, p.id, p.id % 2 ? ORDER_NAME : ORDER_ID, 8, next, &count);
		if (found != MF_NOT_FOUND && found != MF_OK)
			atomic_fetch_add(&s->failures, 1);
		struct message m;
		found = cache_message(s->f->c, p.id, &m);
		if (found == MF_OK)
			message_finish(&m);
		else if (found != MF_NOT_FOUND)
			atomic_fetch_add(&s->failures, 1);
		char *path = cache_mailbox_path(s->f->c, box);
		free(path);
		atomic_fetch_add(&s->reads, 1);
	}
	return NULL;
}

/* everybody creates, fills, reads and drops the same few bodies */
static void *body_user(void *context)
{
	struct shared *s = context;
	unsigned seed = (unsigned)(uintptr_t)&seed;
	while (!atomic_load(&s->stop)) {
		uint64_t id = 1000 + (unsigned)rand_r(&seed) % 4;
		char bytes[3000], found[3000];
		memset(bytes, (int)(id % 100), sizeof bytes);
		struct body *b;
		if (cache_body_create(s->f->c, id, sizeof bytes, &b) != MF_OK) {
			atomic_fetch_add(&s->failures, 1);
			continue;
		}
		for (size_t at = 0; at < sizeof bytes; at += 1000)
			if (body_write(b, at, bytes + at, 1000) != MF_OK)
				atomic_fetch_add(&s->failures, 1);
		if (rand_r(&seed) % 8 == 0)
			body_abandon(b);
		enum mf_err e = body_finish(b, sizeof bytes);
		if (e != MF_OK && e != MF_PROTOCOL)
			atomic_fetch_add(&s->failures, 1);
		if (body_has(b, 0, sizeof bytes) && (pread(body_fd(b), found, sizeof found, 0) != sizeof found || memcmp(found, bytes, sizeof found) != 0))
			atomic_fetch_add(&s->failures, 1);
		body_unref(body_ref(b));
		body_unref(b);
		(void)cache_body_is_cached(s->f->c, id);
		if (rand_r(&seed) % 4 == 0)
			cache_body_drop(s->f->c, id);
		if (rand_r(&seed) % 64 == 0)
			cache_body_evict(s->f->c, NULL, NULL);
		struct cache_totals totals;
		cache_totals(s->f->c, &totals);
		atomic_fetch_add(&s->reads, 1);
	}
	return NULL;
}

static void write_rounds(struct shared *s)
{
	struct fixture *f = s->f;
	uint32_t uid[3] = { 1, 1, 1 }, oldest[3] = { 1, 1, 1 };
	for (int round = 0; round < ROUNDS; round++) {
		int i = round % 3;
		struct txn *t = begin(f);
		if (round % 5 != 4) {
			for (int k = 0; k < BATCH; k++, uid[i]++)
				put(t, s->boxes[i], uid[i], uid[i] * 3 + (unsigned)i);
		} else if (oldest[i] < uid[i]) {
			for (int k = 0; k < BATCH; k++, oldest[i]++)
				assert_int_equal(txn_message_vanished(t, s->boxes[i], oldest[i]), MF_OK);
		}
		if (round % 17 == 16)
			assert_int_equal(txn_limbo_purge(t, 0), MF_OK);
		if (round % 40 == 39) {
			assert_int_equal(txn_mailbox_renumbered(t, s->boxes[i], (uint32_t)round), MF_OK);
			oldest[i] = uid[i];
		}
		if (round % 11 == 10)
			txn_rollback(t), round % 5 != 4 ? (uid[i] -= BATCH) : (oldest[i] = oldest[i] > BATCH ? oldest[i] - BATCH : 1);
		else
			commit(t);
		if (round % 10 == 9) /* something else, for whoever waits for the writer */
			assert_int_equal(cache_set_note(f->c, "round", "x"), MF_OK);
		sched_yield();
	}
}

static void readers_beside_a_writer(void **state)
{
	struct fixture *f = *state;
	f->options.listing_budget = 9000; /* listings come and go */
	f->options.body_limit = 5000;
	fixture_close(f);
	fixture_open(f);
	struct shared s = { .f = f, .boxes = { add_mailbox(f, "a"), add_mailbox(f, "b"), add_mailbox(f, "c/d") } };
	pthread_t threads[READER_COUNT + 2];
	for (int i = 0; i < READER_COUNT; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, i % 2 ? lister : looker, &s), 0);
	for (int i = READER_COUNT; i < READER_COUNT + 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, body_user, &s), 0);
	write_rounds(&s);
	while (atomic_load(&s.reads) < 100)
		sched_yield();
	atomic_store(&s.stop, true);
	for (int i = 0; i < READER_COUNT + 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&s.failures), 0);
}

struct opener { struct fixture *f; uint64_t mailbox; size_t count; };
static void *open_listing(void *context)
{
	struct opener *o = context;
	if (cache_list(o->f->c, o->mailbox, 0, count_entry, &o->count))
		o->count = 0;
	return NULL;
}

static void many_want_a_listing_at_once(void **state)
{
	struct fixture *f = *state;
	uint64_t inbox = add_mailbox(f, "INBOX");
	struct txn *t = begin(f);
	for (unsigned i = 1; i <= 2000; i++)
		put(t, inbox, i, i);
	commit(t);
	for (int round = 0; round < 5; round++) {
		fixture_close(f);
		fixture_open(f);
		pthread_t threads[8];
		struct opener openers[8];
		for (int i = 0; i < 8; i++) {
			openers[i] = (struct opener){ f, inbox, 0 };
			assert_int_equal(pthread_create(&threads[i], NULL, open_listing, &openers[i]), 0);
		}
		for (unsigned i = 0; i < 20; i++) /* while it loads */
			add_message(f, inbox, 5000 + (unsigned)round * 20 + i, 5000 + (unsigned)round * 20 + i);
		for (int i = 0; i < 8; i++) {
			pthread_join(threads[i], NULL);
			assert_true(openers[i].count >= 2000 + (size_t)round * 20);
		}
		assert_int_equal(list_count(f, inbox), 2000 + ((size_t)round + 1) * 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { WITH_CACHE(readers_beside_a_writer), WITH_CACHE(many_want_a_listing_at_once) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* cache: the process is killed at any instant, many times; what was committed is there, what is there is whole */
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "unit/test_cache_fixture.h"

enum { ROUNDS = 60, MESSAGES_MAX = 60000, BATCH = 20 };

struct progress {                         /* shared with the one that is killed */
	atomic_bool running;
	atomic_uint committed;            /* messages with a UID up to this are there (but for every tenth) */
	atomic_uchar body[MESSAGES_MAX];  /* by id: finished */
};

static size_t body_length(uint64_t id)
{
	return (size_t)(id * 7919 % 40000);
}

static void body_fill(uint64_t id, char *bytes)
{
	for (size_t i = 0; i < body_length(id); i++)
		bytes[i] = (char)(id * 31 + i * 7 + i / 256);
}

static void write_body(struct cache *c, struct progress *p, uint64_t id)
{
	char bytes[40000];
	struct body *b;
	body_fill(id, bytes);
	if (cache_body_create(c, id, body_length(id), &b))
		_exit(2);
	for (size_t at = 0; at < body_length(id); at += 4096) {
		size_t part = body_length(id) - at < 4096 ? body_length(id) - at : 4096;
		if (body_write(b, at, bytes + at, part))
			_exit(3);
	}
	if (body_finish(b, body_length(id)))
		_exit(4);
	atomic_store(&p->body[id], 1);
	body_unref(b);
}

static void work(struct fixture *f, struct progress *p)
{
	struct mf_reason why;
	struct cache *c;
	f->options.bus = NULL;
	if (cache_open(&f->options, &c, &why))
		_exit(5);
	f->c = c;
	atomic_store(&p->running, true);
	uint64_t inbox = add_mailbox(f, "INBOX"), ids[BATCH];
	for (uint32_t uid = atomic_load(&p->committed) + 1; uid + BATCH < MESSAGES_MAX; uid += BATCH) {
		struct txn *t = begin(f);
		for (uint32_t i = 0; i < BATCH; i++)
			ids[i] = put(t, inbox, uid + i, uid + i);
		commit(t);
		atomic_store(&p->committed, uid + BATCH - 1);
		for (uint32_t i = 0; i < BATCH; i += 5)
			if (ids[i] < MESSAGES_MAX)
				write_body(c, p, ids[i]);
		t = begin(f);
		for (uint32_t i = 0; i < BATCH; i++)
			if ((uid + i) % 10 == 0)
				(void)txn_message_vanished(t, inbox, uid + i);
			else
				(void)txn_message_flags(t, inbox, uid + i, (uid + i) % 8, "$Work", uid);
		commit(t);
	}
	for (;;)
		pause();
}

static void check_body(struct cache *c, uint64_t id, bool must)
{
	char expected[40000], found[40000];
	struct body *b;
	enum mf_err e = cache_body_get(c, id, &b);
	if (must)
		assert_int_equal(e, MF_OK);
	if (e)
		return;
	body_fill(id, expected);
	assert_int_equal(body_size(b), body_length(id));
	assert_int_equal(pread(body_fd(b), found, body_length(id), 0), (ssize_t)body_length(id));
	assert_memory_equal(found, expected, body_length(id));
	body_unref(b);
}

static void check_pages(const struct fixture *f)
{
	char path[160];
	sqlite3 *db;
	sqlite3_stmt *s;
	snprintf(path, sizeof path, "%s/mailfs.db", f->state);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(s), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
	sqlite3_finalize(s);
	sqlite3_close(db);
}

static void check(struct fixture *f, struct progress *p, bool pages)
{
	fixture_open(f);
	if (pages)
		check_pages(f);
	struct mailbox m;
	if (!cache_mailbox_by_raw(f->c, "INBOX", &m)) {
		struct uid_id *uids;
		size_t count, next = 0;
		assert_int_equal(cache_uids(f->c, m.id, &uids, &count), MF_OK);
		assert_int_equal(count, m.total);
		assert_int_equal(list_count(f, m.id), count);
		uint32_t committed = atomic_load(&p->committed);
		for (uint32_t uid = 1; uid <= committed; uid++) {
			while (next < count && uids[next].uid < uid)
				next++;
			assert_true(uid % 10 == 0 || (next < count && uids[next].uid == uid));
		}
		/* whole transactions: none is half there, and the one that was told last is at most one behind */
		assert_true(count == 0 || uids[count - 1].uid <= committed + BATCH);
		for (size_t i = 0; i < count; i++)
			if (uids[i].id < MESSAGES_MAX)
				check_body(f->c, uids[i].id, atomic_load(&p->body[uids[i].id]));
		if (count)
			atomic_store(&p->committed, uids[count - 1].uid);
		free(uids);
		mailbox_finish(&m);
	} else {
		assert_int_equal(atomic_load(&p->committed), 0);
	}
	fixture_close(f);
}

static void killed_at_any_instant(void **state)
{
	(void)state;
	struct fixture f;
	struct progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(p != MAP_FAILED);
	fixture_init(&f);
	unsigned seed = (unsigned)getpid();
	print_message("seed %u\n", seed);
	for (int round = 0; round < ROUNDS; round++) {
		atomic_store(&p->running, false);
		pid_t child = fork();
		if (!child)
			work(&f, p);
		/* some die while they open, most while they write */
		bool early = round % 6 == 0;
		for (int i = 0; i < 20000 && !early && !atomic_load(&p->running); i++)
			usleep(500);
		usleep((useconds_t)rand_r(&seed) % 12000);
		assert_int_equal(kill(child, SIGKILL), 0);
		int status;
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status)); /* it found nothing wrong by itself */
		check(&f, p, round % 5 == 4);
	}
	assert_true(atomic_load(&p->committed) > 0);
	print_message("%u messages\n", atomic_load(&p->committed));
	munmap(p, sizeof *p);
	fixture_finish(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(killed_at_any_instant) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The keeper: one thread that sends the WAL to the disk a second after a commit, takes it into the database before it
 * grows large, and looks through the bodies after an unclean stop. It sleeps while there is nothing of that to do. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"
#include "cache/spool.h"

#define FLUSH_AFTER_MS 1000
/* of pages, whatever their size is */
#define CHECKPOINT_BYTES 10000000
#define RESTART_BYTES 16000000 /* from here on the writer waits for the rest, so that the WAL begins anew */

/* A database that we made was not sent to the disk as it was made, since nothing was in it: a WAL without it would be nothing. */
static enum mf_err flush_made(struct cache *c)
{
	if (!c->db.is_made || atomic_load(&c->made_flushed))
		return MF_OK;
	MF_CLEANUP(mf_close) int dir = open(c->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fdatasync(c->db.made_fd) < 0 || fsync(dir) < 0) {
		enum mf_err e = mf_err_from_errno(errno);
		log_warning("%s: %s", c->db_path, strerror(errno));
		return e;
	}
	atomic_store(&c->made_flushed, true);
	return MF_OK;
}

/* POSIX locks of a file go with any descriptor of it that is closed; SQLite has none on the WAL, so this is harmless */
enum mf_err cache_flush(struct cache *c)
{
	enum mf_err e = flush_made(c);
	if (e)
		return e;
	MF_CLEANUP(mf_free) char *path = mf_format("%s-wal", c->db_path);
	MF_CLEANUP(mf_close) int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fdatasync(fd) == 0)
		return MF_OK;
	e = mf_err_from_errno(errno);
	log_warning("%s: %s", path, strerror(errno));
	return e;
}

static void flush_all(struct cache *c, struct map *spooled)
{
	uint64_t *messages = mf_alloc_array(spooled->used + 1, sizeof *messages);
	enum mf_err *results = mf_alloc_array(spooled->used + 1, sizeof *results);
	size_t count = 0;
	for (uint32_t i = 1; i <= spooled->used; i++)
		if (spooled->entries[i].value)
			messages[count++] = spooled->entries[i].value;
	enum mf_err e = spool_sync_all(c, messages, count, results);
	for (size_t i = 0; i < count; i++)
		if (results[i] && results[i] != MF_NOT_FOUND) /* it is at the server, or gone, meanwhile */
			log_warning("the spool of message %llu: %s", (unsigned long long)messages[i], mf_err_words(results[i]));
	if (e)
		log_warning("the spool: %s", mf_err_words(e));
	free(messages);
	free(results);
	map_finish(spooled);
	(void)cache_flush(c); /* it has logged why not */
}

static int checkpoint_once(struct db *db, int *ret_left)
{
	int pages = 0, done = 0;
	int code = sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
	*ret_left = pages - done;
	return code;
}

/* The long part runs beside the writer. Only when the WAL has become long is the writer held for what came meanwhile:
 * a WAL that has been taken over whole begins anew. */
static void checkpoint(struct cache *c, struct db *db)
{
	int left = 0;
	int code = checkpoint_once(db, &left);
	if (code == SQLITE_OK && left > 0) {
		pthread_mutex_lock(&c->writer);
		if (c->wal_bytes >= RESTART_BYTES)
			code = checkpoint_once(db, &left);
		pthread_mutex_unlock(&c->writer);
	}
	if (code != SQLITE_OK && code != SQLITE_BUSY)
		log_warning("%s: %s", c->db_path, mf_err_words(db_error(db, code)));
}

static void sleep_until(struct keeper *k, int64_t at_ms)
{
	if (!at_ms) {
		pthread_cond_wait(&k->wake, &k->lock);
		return;
	}
	/* the clock of tests is skewed: what counts is the distance */
	int64_t left = at_ms - clock_mono_ms();
	if (left <= 0)
		return;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until = timespec_from_ns(timespec_ns(until) + left * 1000000);
	pthread_cond_timedwait(&k->wake, &k->lock, &until);
}

static void run_task(struct keeper *k, struct cache *c, struct db *db, bool *task, void (*run)(struct cache *, struct db *))
{
	*task = false;
	pthread_mutex_unlock(&k->lock);
	run(c, db);
	pthread_mutex_lock(&k->lock);
}

static void scan_bodies(struct cache *c, struct db *db)
{
	(void)db;
	bodies_scan(c);
}

static void *keeper_run(void *context)
{
	struct cache *c = context;
	struct keeper *k = &c->keeper;
	struct db db = { 0 };
	pthread_mutex_lock(&k->lock);
	while (!k->stop) {
		if (k->checkpoint && (db.handle || !db_open(&db, c->db_path, DB_KEEPER))) {
			run_task(k, c, &db, &k->checkpoint, checkpoint);
		} else if (k->scan) {
			run_task(k, c, &db, &k->scan, scan_bodies);
		} else if (k->flush_at_ms && k->flush_at_ms <= clock_mono_ms()) {
			struct map spooled = k->spooled;
			k->flush_at_ms = 0;
			k->spooled = (struct map){ 0 };
			pthread_mutex_unlock(&k->lock);
			flush_all(c, &spooled);
			pthread_mutex_lock(&k->lock);
		} else {
			k->checkpoint = false;
			sleep_until(k, k->flush_at_ms);
		}
	}
	pthread_mutex_unlock(&k->lock);
	if (db.handle)
		db_close(&db);
	return NULL;
}

/* called by SQLite at each commit of the writer */
static int note_pages(void *context, sqlite3 *handle, const char *name, int pages)
{
	struct cache *c = context;
	(void)handle;
	(void)name;
	c->wal_bytes = pages * c->page_size;
	return SQLITE_OK;
}

enum mf_err keeper_start(struct cache *c)
{
	struct keeper *k = &c->keeper;
	enum mf_err e = db_number(&c->db, "PRAGMA page_size", &c->page_size);
	if (e)
		return e;
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_mutex_init(&k->lock, NULL);
	pthread_cond_init(&k->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	k->scan = true;
	k->checkpoint_at = CHECKPOINT_BYTES;
	sqlite3_wal_hook(c->db.handle, note_pages, c);
	int number = pthread_create(&k->thread, NULL, keeper_run, c);
	if (number) {
		pthread_cond_destroy(&k->wake);
		pthread_mutex_destroy(&k->lock);
		return mf_err_from_errno(number);
	}
	k->started = true;
	return MF_OK;
}

bool keeper_is_stopping(struct cache *c)
{
	pthread_mutex_lock(&c->keeper.lock);
	bool stop = c->keeper.stop;
	pthread_mutex_unlock(&c->keeper.lock);
	return stop;
}

void keeper_stop(struct cache *c)
{
	struct keeper *k = &c->keeper;
	if (!k->started)
		return;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
	pthread_join(k->thread, NULL);
	pthread_cond_destroy(&k->wake);
	pthread_mutex_destroy(&k->lock);
	k->started = false;
	flush_all(c, &k->spooled);
}

void keeper_spooled(struct cache *c, uint64_t message)
{
	struct keeper *k = &c->keeper;
	if (!k->started)
		return;
	pthread_mutex_lock(&k->lock);
	if (!map_get(&k->spooled, message))
		map_add(&k->spooled, message, message);
	pthread_mutex_unlock(&k->lock);
}

void keeper_spool_taken(struct cache *c, const uint64_t *messages, size_t count)
{
	struct keeper *k = &c->keeper;
	if (!k->started)
		return;
	pthread_mutex_lock(&k->lock);
	for (size_t i = 0; i < count; i++)
		map_remove(&k->spooled, messages[i], messages[i]);
	pthread_mutex_unlock(&k->lock);
}

/* every so many bytes; from the beginning where the WAL has begun anew. The keeper's lock is held */
static bool checkpoint_is_due(struct keeper *k, int64_t wal_bytes)
{
	if (wal_bytes < k->wal_bytes)
		k->checkpoint_at = CHECKPOINT_BYTES;
	k->wal_bytes = wal_bytes;
	if (wal_bytes < k->checkpoint_at)
		return false;
	k->checkpoint_at = wal_bytes + CHECKPOINT_BYTES;
	return true;
}

void keeper_committed(struct cache *c)
{
	struct keeper *k = &c->keeper;
	if (!k->started)
		return; /* what is done before it starts is flushed by the next commit */
	pthread_mutex_lock(&k->lock);
	bool wake = false;
	if (!k->flush_at_ms) {
		k->flush_at_ms = clock_mono_ms() + FLUSH_AFTER_MS;
		wake = true;
	}
	if (checkpoint_is_due(k, c->wal_bytes))
		wake = k->checkpoint = true;
	if (wake)
		pthread_cond_signal(&k->wake);
	pthread_mutex_unlock(&k->lock);
}

#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"

#define LISTING_BUDGET (24UL << 20)

static void locks_init(struct cache *c)
{
	pthread_mutex_init(&c->writer, NULL);
	pthread_mutex_init(&c->pool, NULL);
	pthread_cond_init(&c->pool_free, NULL);
	pthread_mutex_init(&c->load_lock, NULL);
	pthread_cond_init(&c->load_done, NULL);
	pthread_mutex_init(&c->bodies.lock, NULL);
	/* a commit is not starved by readers that come one after the other; no reader locks twice */
	pthread_rwlockattr_t attributes;
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&c->tree, &attributes);
	pthread_rwlockattr_destroy(&attributes);
}

static void cache_free(struct cache *c)
{
	mailboxes_finish(&c->table);
	free(c->loaded);
	limbo_finish(&c->limbo);
	mf_close(&c->lock_fd); /* and with it the lock */
	pthread_rwlock_destroy(&c->tree);
	pthread_mutex_destroy(&c->bodies.lock);
	pthread_cond_destroy(&c->load_done);
	pthread_mutex_destroy(&c->load_lock);
	pthread_cond_destroy(&c->pool_free);
	pthread_mutex_destroy(&c->pool);
	pthread_mutex_destroy(&c->writer);
	free(c->state_dir);
	free(c->cache_dir);
	free(c->db_path);
	free(c->identity);
	free(c);
}

static void readers_close(struct cache *c)
{
	for (size_t i = 0; i < READERS; i++)
		db_close(&c->readers[i]);
}

/* https://bford.info/cachedir/: backups leave the folder out */
static enum mf_err tag_cache_dir(const char *dir, struct mf_reason *why)
{
	static const char text[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
	                           "# mailfs keeps downloaded messages here; they can be fetched again.\n";
	MF_CLEANUP(mf_free) char *path = mf_format("%s/CACHEDIR.TAG", dir);
	MF_CLEANUP(mf_close) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EEXIST)
		return MF_OK;
	if (fd < 0 || write(fd, text, sizeof text - 1) < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", path, strerror(errno));
	return MF_OK;
}

static enum mf_err open_parts(struct cache *c, struct mf_reason *why)
{
	enum mf_err e = state_make_dir(c->state_dir, why);
	if (!e)
		e = state_make_dir(c->cache_dir, why);
	if (!e)
		e = tag_cache_dir(c->cache_dir, why);
	if (!e)
		e = state_lock(c, why);
	if (!e)
		e = state_open_db(c, why);
	if (e)
		return e;
	e = state_identify(c, why);
	if (!e && (e = bodies_open(c)) != MF_OK)
		mf_fail(why, e, "%s: %s", c->cache_dir, mf_err_words(e));
	if (!e && ((e = spool_open_dirs(c)) != MF_OK || (e = spool_recover(c)) != MF_OK))
		mf_fail(why, e, "%s: %s", c->state_dir, mf_err_words(e));
	if (!e && (e = keeper_start(c)) != MF_OK)
		mf_fail(why, e, "%s: %s", c->db_path, mf_err_words(e));
	if (e) {
		spool_close_dirs(c);
		bodies_close(c);
		db_close(&c->db);
	}
	return e;
}

enum mf_err cache_open(const struct cache_options *options, struct cache **ret, struct mf_reason *why)
{
	struct cache *c = MF_NEW(struct cache);
	c->state_dir = mf_strdup(options->state_dir);
	c->cache_dir = mf_strdup(options->cache_dir);
	c->identity = mf_strdup(options->identity);
	c->db_path = mf_format("%s/mailfs.db", c->state_dir);
	c->account = options->account;
	c->bus = options->bus;
	c->body_limit = options->body_limit;
	c->body_min_free = options->body_min_free;
	c->listing_budget = options->listing_budget ? options->listing_budget : LISTING_BUDGET;
	c->only_deletes = options->only_deletes;
	c->lock_fd = -1;
	c->bodies.dir = c->spool_dir = c->rejected_dir = -1;
	locks_init(c);
	enum mf_err e = open_parts(c, why);
	if (e) {
		cache_free(c);
		return e;
	}
	*ret = c;
	return MF_OK;
}

void cache_close(struct cache *c)
{
	keeper_stop(c);
	readers_close(c);
	enum mf_err e = state_close_db(c);
	if (e)
		log_warning("%s: %s; it is checked at the next start", c->db_path, mf_err_words(e));
	bodies_close(c);
	spool_close_dirs(c);
	cache_free(c);
}

uint32_t cache_epoch(const struct cache *c)
{
	return c->epoch;
}

unsigned cache_account(const struct cache *c)
{
	return c->account;
}

bool cache_only_deletes(const struct cache *c)
{
	return c->only_deletes;
}

bool cache_is_new(const struct cache *c)
{
	return !atomic_load(&c->listed);
}

/* --- connections for readers ------------------------------------------------------------------------------------------ */

static struct db *reader_take(struct cache *c)
{
	pthread_mutex_lock(&c->pool);
	for (;;) {
		for (size_t i = 0; i < READERS; i++) {
			if (c->reader_busy[i])
				continue;
			c->reader_busy[i] = true;
			pthread_mutex_unlock(&c->pool);
			return &c->readers[i];
		}
		pthread_cond_wait(&c->pool_free, &c->pool);
	}
}

struct db *cache_reader(struct cache *c, enum mf_err *ret_error)
{
	struct db *db = reader_take(c);
	*ret_error = db->handle ? MF_OK : db_open(db, c->db_path, DB_READER);
	if (!*ret_error)
		return db;
	cache_reader_done(c, db);
	return NULL;
}

void cache_reader_done(struct cache *c, struct db *db)
{
	pthread_mutex_lock(&c->pool);
	c->reader_busy[db - c->readers] = false;
	pthread_cond_signal(&c->pool_free);
	pthread_mutex_unlock(&c->pool);
}

/* --- notes -------------------------------------------------------------------------------------------------------------- */

enum mf_err cache_get_note(struct cache *c, const char *key, char **ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_NOTE_GET);
	db_bind_text(s, 1, key);
	e = db_step(db, s);
	if (!e) {
		*ret = db_text(s, 0);
		db_done(s);
	}
	cache_reader_done(c, db);
	return e;
}

enum mf_err cache_set_note(struct cache *c, const char *key, const char *value)
{
	pthread_mutex_lock(&c->writer);
	sqlite3_stmt *s = db_use(&c->db, SQL_NOTE_SET);
	db_bind_text(s, 1, key);
	db_bind_text(s, 2, value);
	enum mf_err e = db_run(&c->db, s);
	if (!e)
		keeper_committed(c);
	pthread_mutex_unlock(&c->writer);
	return e;
}

void cache_totals(struct cache *c, struct cache_totals *ret)
{
	*ret = (struct cache_totals){ 0 };
	pthread_rwlock_rdlock(&c->tree);
	const struct node *n;
	for (uint32_t at = 0; (n = mailboxes_next(&c->table, &at));) {
		ret->mailboxes++;
		ret->messages += n->m.total;
	}
	pthread_rwlock_unlock(&c->tree);
	bodies_total(c, &ret->bodies, &ret->body_bytes);
}

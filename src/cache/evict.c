/* Bodies that are not wanted any more: of other epochs, of messages that are gone, and the least recently used ones when
 * there is too little room. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"

#define RETRY_AFTER_MS 60000

struct found { uint64_t message, size; int64_t used; };
struct found_list { struct found *items; size_t count, room; };

static void found_add(struct found_list *l, const struct found *f)
{
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 256;
		l->items = mf_realloc_array(l->items, l->room, sizeof *l->items);
	}
	l->items[l->count++] = *f;
}

static DIR *open_folder(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d)
		mf_close(&fd);
	return d;
}

/* the entries but "." and ".." */
static const struct dirent *next_entry(DIR *d)
{
	const struct dirent *entry;
	do
		entry = readdir(d);
	while (entry && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")));
	return entry;
}

static void list_fan(struct cache *c, unsigned fan, struct found_list *l)
{
	char name[8];
	snprintf(name, sizeof name, "%02x", fan);
	DIR *d = open_folder(c->bodies.dir, name);
	const struct dirent *entry;
	while (d && (entry = next_entry(d))) {
		char *end;
		struct stat st;
		unsigned long long message = strtoull(entry->d_name, &end, 10);
		if (*end || !message || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
			continue;
		found_add(l, &(struct found){ message, (uint64_t)st.st_size, timespec_ns(st.st_mtim) });
	}
	if (d)
		closedir(d);
}

/* --- after the start --------------------------------------------------------------------------------------------------------- */

/* A folder of folders of files, as every epoch is */
static void remove_tree(int above, const char *name, int depth)
{
	DIR *d = depth ? open_folder(above, name) : NULL;
	const struct dirent *entry;
	while (d && (entry = next_entry(d)))
		remove_tree(dirfd(d), entry->d_name, depth - 1);
	if (unlinkat(above, name, d ? AT_REMOVEDIR : 0) < 0 && errno != ENOENT)
		log_warning("removing an old body: %s", strerror(errno));
	if (d)
		closedir(d);
}

static void remove_other_epochs(struct cache *c)
{
	char own[16];
	snprintf(own, sizeof own, "%08x", c->epoch);
	MF_CLEANUP(mf_free) char *path = mf_format("%s/bodies", c->cache_dir);
	DIR *d = open_folder(AT_FDCWD, path);
	const struct dirent *entry;
	while (d && !keeper_is_stopping(c) && (entry = next_entry(d)))
		if (strlen(entry->d_name) == 8 && strspn(entry->d_name, "0123456789abcdef") == 8 && strcmp(entry->d_name, own) != 0)
			remove_tree(dirfd(d), entry->d_name, 2);
	if (d)
		closedir(d);
}

static void remove_temporaries(struct cache *c)
{
	char own[24];
	int len = snprintf(own, sizeof own, "%ld-", (long)getpid());
	DIR *d = open_folder(c->bodies.dir, "tmp");
	const struct dirent *entry;
	while (d && (entry = next_entry(d)))
		if (strncmp(entry->d_name, own, (size_t)len) != 0)
			remove_tree(dirfd(d), entry->d_name, 0);
	if (d)
		closedir(d);
}

static bool message_exists(struct cache *c, uint64_t message)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return true;
	sqlite3_stmt *s = db_use(db, SQL_MESSAGE_EXISTS);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	e = db_step(db, s);
	if (!e)
		db_done(s);
	cache_reader_done(c, db);
	return e != MF_NOT_FOUND; /* what cannot be asked stays */
}

struct correction { int64_t count, bytes; };

/* What the count of this folder lacks, while nothing in it changes; changes from here on are counted as ever. */
static void count_fan(struct cache *c, unsigned fan, struct correction *ret)
{
	struct bodies *b = &c->bodies;
	struct found_list l = { 0 };
	pthread_mutex_lock(&b->lock);
	list_fan(c, fan, &l);
	int64_t bytes = 0;
	for (size_t i = 0; i < l.count; i++)
		bytes += (int64_t)l.items[i].size;
	*ret = (struct correction){ (int64_t)l.count - b->count[fan], bytes - b->bytes[fan] };
	pthread_mutex_unlock(&b->lock);
	for (size_t i = 0; i < l.count; i++)
		if (!message_exists(c, l.items[i].message))
			cache_body_drop(c, l.items[i].message);
	free(l.items);
}

static void apply_corrections(struct bodies *b, const struct correction corrections[static FAN_OUT])
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < FAN_OUT; i++) {
		b->count[i] += corrections[i].count;
		b->bytes[i] += corrections[i].bytes;
	}
	b->base_count = b->base_bytes = 0;
	b->counted = true;
	pthread_mutex_unlock(&b->lock);
}

/* Once at a time: what is lacking would be added twice. */
static void count_all(struct cache *c)
{
	struct correction corrections[FAN_OUT];
	unsigned fan = 0;
	if (atomic_exchange(&c->bodies.counting, true))
		return;
	for (; fan < FAN_OUT && !keeper_is_stopping(c); fan++)
		count_fan(c, fan, &corrections[fan]);
	if (fan == FAN_OUT)
		apply_corrections(&c->bodies, corrections);
	atomic_store(&c->bodies.counting, false);
}

void bodies_scan(struct cache *c)
{
	remove_other_epochs(c);
	remove_temporaries(c);
	pthread_mutex_lock(&c->bodies.lock);
	bool counted = c->bodies.counted;
	pthread_mutex_unlock(&c->bodies.lock);
	if (!counted)
		count_all(c);
}

/* --- making room --------------------------------------------------------------------------------------------------------------- */

/* Goes a twentieth below the limit, so that it is not a matter of single bodies. */
static uint64_t bytes_to_free(struct cache *c)
{
	uint64_t count, bytes, need = 0;
	bodies_total(c, &count, &bytes);
	uint64_t limit = c->body_limit, min_free = c->body_min_free;
	if (limit && bytes > limit)
		need = bytes - (limit - limit / 20);
	struct statvfs fs;
	if (!min_free || fstatvfs(c->bodies.dir, &fs) < 0)
		return need;
	uint64_t available = fs.f_bavail * fs.f_frsize;
	if (available >= min_free)
		return need;
	uint64_t lacking = min_free - available + min_free / 20;
	return need > lacking ? need : lacking;
}

void cache_body_limits(struct cache *c, uint64_t limit, uint64_t min_free)
{
	c->body_limit = limit;
	c->body_min_free = min_free;
	pthread_mutex_lock(&c->bodies.lock);
	c->bodies.evict_after_ms = 0; /* what was in vain before may not be now */
	pthread_mutex_unlock(&c->bodies.lock);
}

static int compare_use(const void *a, const void *b)
{
	const struct found *x = a, *y = b;
	return x->used < y->used ? -1 : x->used > y->used;
}

static bool is_in_use(struct cache *c, uint64_t message)
{
	pthread_mutex_lock(&c->bodies.lock);
	bool open = map_get(&c->bodies.open, message) != 0;
	pthread_mutex_unlock(&c->bodies.lock);
	return open;
}

static uint64_t free_bytes(struct cache *c, uint64_t need, body_keeper *keep, void *context)
{
	struct found_list l = { 0 };
	for (unsigned fan = 0; fan < FAN_OUT; fan++)
		list_fan(c, fan, &l);
	if (l.count)
		qsort(l.items, l.count, sizeof *l.items, compare_use);
	uint64_t freed = 0;
	for (size_t i = 0; i < l.count && freed < need; i++) {
		uint64_t message = l.items[i].message;
		if (is_in_use(c, message) || (keep && keep(context, message)))
			continue;
		cache_body_drop(c, message);
		freed += l.items[i].size;
	}
	free(l.items);
	return freed;
}

void cache_body_evict(struct cache *c, body_keeper *keep, void *context)
{
	struct bodies *b = &c->bodies;
	uint64_t need = bytes_to_free(c);
	if (!need || atomic_exchange(&b->evicting, true))
		return;
	pthread_mutex_lock(&b->lock);
	bool due = clock_mono_ms() >= b->evict_after_ms;
	pthread_mutex_unlock(&b->lock);
	if (due && free_bytes(c, need, keep, context) < need) {
		/* what is left is pinned or in use, others fill the disk, or the folder was cleared behind our back: looking
		 * again at once would find the same */
		count_all(c);
		pthread_mutex_lock(&b->lock);
		b->evict_after_ms = clock_mono_ms() + RETRY_AFTER_MS;
		pthread_mutex_unlock(&b->lock);
	}
	atomic_store(&b->evicting, false);
}

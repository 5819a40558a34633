#include "cache/body.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"
#include "cache/spool.h"
#include "cache/ranges.h"

#define SIZE_LIMIT (1ULL << 40)
#define TOUCH_AFTER_S 3600
#define TEMPORARY_MAX 48
#define RESERVE 64                 /* descriptors that bodies leave to the index, to connections and to the socket, */
#define RESERVE_SHARE 8            /* or one out of so many that the process may have, where that is less */
#define TELL_AGAIN_MS 60000

/* Behind the bytes of a whole body. Native byte order: the folder stays on its machine. */
struct trailer {
	char magic[8];
	uint64_t length;
	uint32_t crc;                  /* zlib's crc32 of the bytes */
	uint32_t trust;                /* bodies.trust when it was written or last compared */
};
static const char magic[8] = "mfbody1";
_Static_assert(sizeof(struct trailer) == 24, "no padding");

struct body {
	struct cache *cache;
	uint64_t message;
	atomic_uint references;        /* from 0 nothing comes back: it reaches it under bodies.lock */
	int fd;
	char temporary[TEMPORARY_MAX]; /* its name until it is whole, where it has one */
	bool dropped;                  /* bodies.lock: its message is gone or another version, so it gets no name */
	atomic_bool whole, fresh;
	_Atomic uint64_t size;
	pthread_mutex_t writing;       /* one writer at a time; guards what follows. Before lock */
	uint32_t crc;
	uint64_t crc_end;              /* the bytes from 0 to here are in crc */
	uint64_t file_end;             /* nothing was written from here on */
	bool sealed;                   /* with the trailer for crc_end bytes, and nothing behind it */
	pthread_mutex_t lock;          /* guards ranges */
	struct ranges ranges;
};

static struct body *body_new(struct cache *c, uint64_t message, int fd, uint64_t size)
{
	struct body *b = MF_NEW(struct body);
	b->cache = c;
	b->message = message;
	b->fd = fd;
	atomic_init(&b->references, 1);
	atomic_init(&b->size, size);
	pthread_mutex_init(&b->writing, NULL);
	pthread_mutex_init(&b->lock, NULL);
	return b;
}

static void body_free(struct body *b)
{
	if (*b->temporary && unlinkat(b->cache->bodies.dir, b->temporary, 0) < 0 && errno != ENOENT)
		log_warning("%s/%s: %s", b->cache->cache_dir, b->temporary, strerror(errno));
	mf_close(&b->fd);
	ranges_finish(&b->ranges);
	pthread_mutex_destroy(&b->writing);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

struct body *body_ref(struct body *b)
{
	atomic_fetch_add(&b->references, 1);
	return b;
}

void body_unref(struct body *b)
{
	if (!b)
		return;
	struct bodies *all = &b->cache->bodies;
	pthread_mutex_lock(&all->lock);
	bool last = atomic_fetch_sub(&b->references, 1) == 1;
	if (last)
		map_remove_pointer(&all->open, b->message, b);
	pthread_mutex_unlock(&all->lock);
	if (last)
		body_free(b);
}

uint64_t body_message(const struct body *b)
{
	return b->message;
}

uint64_t body_size(const struct body *b)
{
	return atomic_load(&b->size);
}

bool body_is_whole(const struct body *b)
{
	return atomic_load(&b->whole);
}

bool body_is_current(const struct body *b)
{
	pthread_mutex_lock(&b->cache->bodies.lock);
	bool current = !b->dropped;
	pthread_mutex_unlock(&b->cache->bodies.lock);
	return current;
}

bool body_take_fresh(struct body *b)
{
	return atomic_exchange(&b->fresh, false);
}

int body_fd(const struct body *b)
{
	return b->fd;
}

bool body_has(const struct body *b, uint64_t offset, uint64_t length)
{
	if (body_is_whole(b))
		return true;
	uint64_t end = length > UINT64_MAX - offset ? UINT64_MAX : offset + length;
	struct body *own = (struct body *)(uintptr_t)b; /* a lock is no change */
	pthread_mutex_lock(&own->lock);
	bool has = ranges_have(&b->ranges, offset, end);
	pthread_mutex_unlock(&own->lock);
	return has || body_is_whole(b);
}

bool body_first_gap(const struct body *b, uint64_t begin, uint64_t end, uint64_t *ret_begin, uint64_t *ret_end)
{
	struct range gap;
	struct body *own = (struct body *)(uintptr_t)b; /* a lock is no change */
	pthread_mutex_lock(&own->lock);
	bool missing = ranges_first_gap(&b->ranges, begin, end, &gap);
	pthread_mutex_unlock(&own->lock);
	if (!missing || body_is_whole(b))
		return false;
	*ret_begin = gap.begin;
	*ret_end = gap.end;
	return true;
}

/* --- files ------------------------------------------------------------------------------------------------------------- */

/* takes the bytes from `from` to `to` into *crc; calls copy, if there is one, with each part */
static enum mf_err read_through(int fd, uint64_t from, uint64_t to, uint32_t *crc, int copy_to)
{
	char part[65536];
	while (from < to) {
		uint64_t left = to - from;
		size_t len, want = left < sizeof part ? (size_t)left : sizeof part;
		enum mf_err e = file_read(fd, from, part, want, &len);
		if (!e && len < want)
			e = MF_CORRUPT;
		if (!e && crc)
			*crc = (uint32_t)crc32_z(*crc, (const unsigned char *)part, len);
		if (!e && copy_to >= 0)
			e = file_write(copy_to, from, part, len);
		if (e)
			return e;
		from += len;
	}
	return MF_OK;
}

/* MF_CORRUPT: the file is not what it says of itself */
static enum mf_err read_trailer(int fd, struct trailer *ret, struct stat *ret_st)
{
	if (fstat(fd, ret_st) < 0)
		return mf_err_from_errno(errno);
	if (!S_ISREG(ret_st->st_mode) || ret_st->st_size < (off_t)sizeof *ret)
		return MF_CORRUPT;
	uint64_t length = (uint64_t)ret_st->st_size - sizeof *ret;
	if (pread(fd, ret, sizeof *ret, (off_t)length) != sizeof *ret)
		return MF_CORRUPT;
	return memcmp(ret->magic, magic, sizeof magic) == 0 && ret->length == length ? MF_OK : MF_CORRUPT;
}

static enum mf_err compare_bytes(int fd, const struct trailer *trailer)
{
	uint32_t crc = 0;
	enum mf_err e = read_through(fd, 0, trailer->length, &crc, -1);
	return !e && crc != trailer->crc ? MF_CORRUPT : e;
}

static bool is_same_file(int a, int b)
{
	struct stat of_a, of_b;
	return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/* Written before the machine ended without warning: its name may have reached the disk before its bytes. */
static enum mf_err compare_old(struct cache *c, const char *path, int fd, const struct trailer *trailer)
{
	enum mf_err e = compare_bytes(fd, trailer);
	if (e)
		return e;
	MF_CLEANUP(mf_close) int writable = openat(c->bodies.dir, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t at = trailer->length + offsetof(struct trailer, trust);
	/* Where this fails it is compared again the next time. Another may have the name meanwhile. */
	if (writable < 0 || !is_same_file(fd, writable) || file_write(writable, at, &c->bodies.trust, sizeof c->bodies.trust) != MF_OK)
		trace(TRACE_CACHE, "body %s: cannot be marked", path);
	return MF_OK;
}

static enum mf_err no_files(struct cache *c, rlim_t limit)
{
	int64_t now = clock_mono_ms(), told = c->bodies.full_told_ms;
	if ((!told || now - told > TELL_AGAIN_MS) && atomic_compare_exchange_strong(&c->bodies.full_told_ms, &told, now))
		log_warning("programs have as many messages open as the limit of open files (%llu) allows; see ulimit -n, LimitNOFILE=", (unsigned long long)limit);
	return MF_NO_FILES;
}

/* What openat() gave; nothing of ours is a link. Descriptors are given lowest first, so each tells how many there are. */
static enum mf_err take_descriptor(struct cache *c, int fd, int *ret)
{
	int number = errno;
	*ret = fd;
	if (fd < 0 && number != EMFILE && number != ENFILE)
		return number == ELOOP ? MF_CORRUPT : mf_err_from_errno(number);
	struct rlimit limit = { .rlim_cur = RLIM_INFINITY };
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	rlim_t share = limit.rlim_cur / RESERVE_SHARE, most = limit.rlim_cur - (share < RESERVE ? share : RESERVE);
	if (fd < 0)
		return no_files(c, limit.rlim_cur);
	if ((rlim_t)fd < most)
		return MF_OK;
	mf_close(ret);
	return no_files(c, limit.rlim_cur);
}

static enum mf_err open_file(struct cache *c, uint64_t message, char ret_path[static BODY_PATH_MAX], int *ret_fd)
{
	body_path(message, ret_path);
	return take_descriptor(c, openat(c->bodies.dir, ret_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), ret_fd);
}

/* MF_NOT_FOUND: no file. MF_CORRUPT: what is there is not a whole body */
static enum mf_err open_whole(struct cache *c, uint64_t message, int *ret_fd, uint64_t *ret_size)
{
	char path[BODY_PATH_MAX];
	struct stat st;
	struct trailer trailer;
	MF_CLEANUP(mf_close) int fd = -1;
	enum mf_err e = open_file(c, message, path, &fd);
	if (!e)
		e = read_trailer(fd, &trailer, &st);
	if (!e && trailer.trust != c->bodies.trust)
		e = compare_old(c, path, fd, &trailer);
	if (e)
		return e;
	if (clock_wall_s() - st.st_mtim.tv_sec > TOUCH_AFTER_S && futimens(fd, NULL) < 0)
		trace(TRACE_CACHE, "body %s: %s", path, strerror(errno));
	*ret_fd = fd;
	*ret_size = trailer.length;
	fd = -1;
	return MF_OK;
}

static enum mf_err open_named(struct cache *c, char ret_name[static TEMPORARY_MAX], int *ret_fd)
{
	snprintf(ret_name, TEMPORARY_MAX, "tmp/%ld-%u", (long)getpid(), atomic_fetch_add(&c->bodies.temporaries, 1));
	enum mf_err e = take_descriptor(c, openat(c->bodies.dir, ret_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), ret_fd);
	if (e == MF_NO_FILES)
		(void)unlinkat(c->bodies.dir, ret_name, 0);
	return e;
}

/* MF_NOT_FOUND: the folder is gone, for which file systems have several words */
static enum mf_err open_unnamed(struct cache *c, int *ret_fd)
{
	int fd = openat(c->bodies.dir, ".", O_RDWR | O_TMPFILE | O_CLOEXEC | O_NOATIME, 0600);
	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
		return MF_UNSUPPORTED;
	enum mf_err e = take_descriptor(c, fd, ret_fd);
	struct stat st;
	return e && e != MF_NO_FILES && fstat(c->bodies.dir, &st) == 0 && st.st_nlink == 0 ? MF_NOT_FOUND : e;
}

static enum mf_err try_temporary(struct cache *c, char ret_name[static TEMPORARY_MAX], int *ret_fd)
{
	ret_name[0] = 0;
	if (!atomic_load(&c->bodies.named_temporaries)) {
		enum mf_err e = open_unnamed(c, ret_fd);
		if (e != MF_UNSUPPORTED)
			return e;
		atomic_store(&c->bodies.named_temporaries, true);
	}
	return open_named(c, ret_name, ret_fd);
}

static enum mf_err open_temporary(struct cache *c, char ret_name[static TEMPORARY_MAX], int *ret_fd)
{
	enum mf_err e = try_temporary(c, ret_name, ret_fd);
	if (e != MF_NOT_FOUND)
		return e;
	e = bodies_make_dirs(c, 0); /* somebody has cleared the cache */
	return e ? e : try_temporary(c, ret_name, ret_fd);
}

/* --- finding and making ---------------------------------------------------------------------------------------------------- */

static struct body *find_open(struct bodies *all, uint64_t message)
{
	struct body *b = map_get_pointer(&all->open, message);
	return b ? body_ref(b) : NULL;
}

static bool file_is_there(const struct cache *c, uint64_t message)
{
	char path[BODY_PATH_MAX];
	body_path(message, path);
	return faccessat(c->bodies.dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What was counted in struct bodies when a body was looked for */
struct looked { uint64_t named, dropped; };

/* The one in the table, or b, which is given to it. NULL: since the caller looked the message has lost what b is of (it was overwritten),
 * or b is empty, and a file of its name came. */
static struct body *share(struct cache *c, struct body *b, const struct looked *looked)
{
	struct bodies *all = &c->bodies;
	pthread_mutex_lock(&all->lock);
	struct body *shared = find_open(all, b->message);
	bool late = all->dropped[bodies_fan_of(b->message)] != looked->dropped ||
	            (!body_is_whole(b) && all->named != looked->named && file_is_there(c, b->message));
	if (!shared && !late) {
		map_add_pointer(&all->open, b->message, b);
		shared = b;
	}
	pthread_mutex_unlock(&all->lock);
	if (shared != b)
		body_free(b);
	return shared;
}

/* MF_OK with *ret NULL: it is another now */
static enum mf_err open_and_share(struct cache *c, uint64_t message, const struct looked *looked, struct body **ret)
{
	int fd = -1;
	uint64_t size = 0;
	enum mf_err e = open_whole(c, message, &fd, &size);
	if (e == MF_NOT_FOUND)
		e = spool_open(c, message, &fd, &size);
	if (e == MF_CORRUPT) {
		log_warning("the body of message %llu was damaged; it will be fetched again", (unsigned long long)message);
		cache_body_drop(c, message);
		return MF_NOT_FOUND;
	}
	if (e)
		return e;
	struct body *b = body_new(c, message, fd, size);
	atomic_store(&b->whole, true);
	*ret = share(c, b, looked);
	return MF_OK;
}

/* *ret_looked: before this looked */
static enum mf_err get(struct cache *c, uint64_t message, struct body **ret, struct looked *ret_looked)
{
	struct bodies *all = &c->bodies;
	enum mf_err e = MF_OK;
	struct body *b = NULL;
	while (!e && !b) {
		pthread_mutex_lock(&all->lock);
		b = find_open(all, message);
		*ret_looked = (struct looked){ all->named, all->dropped[bodies_fan_of(message)] };
		pthread_mutex_unlock(&all->lock);
		if (!b)
			e = open_and_share(c, message, ret_looked, &b);
	}
	if (!e)
		*ret = b;
	return e;
}

struct body *cache_body_find(struct cache *c, uint64_t message)
{
	pthread_mutex_lock(&c->bodies.lock);
	struct body *b = find_open(&c->bodies, message);
	pthread_mutex_unlock(&c->bodies.lock);
	return b;
}

enum mf_err cache_body_get(struct cache *c, uint64_t message, struct body **ret)
{
	struct looked looked;
	return get(c, message, ret, &looked);
}

/* MF_OK with *ret NULL: it is to be looked for once more */
static enum mf_err create_empty(struct cache *c, uint64_t message, uint64_t size, const struct looked *looked, struct body **ret)
{
	char name[TEMPORARY_MAX];
	int fd;
	enum mf_err e = open_temporary(c, name, &fd);
	if (e)
		return e;
	struct body *b = body_new(c, message, fd, size);
	memcpy(b->temporary, name, sizeof name);
	*ret = share(c, b, looked);
	return MF_OK;
}

enum mf_err cache_body_create(struct cache *c, uint64_t message, uint64_t size, struct body **ret)
{
	for (;;) {
		struct looked looked;
		struct body *b = NULL;
		enum mf_err e = get(c, message, &b, &looked);
		if (e == MF_NOT_FOUND)
			e = create_empty(c, message, size, &looked, &b);
		if (e || b) {
			if (!e)
				*ret = b;
			return e;
		}
	}
}

enum mf_err cache_body_verify(struct cache *c, uint64_t message, uint64_t *ret_size)
{
	char path[BODY_PATH_MAX];
	struct stat st;
	struct trailer trailer;
	MF_CLEANUP(mf_close) int fd = -1;
	enum mf_err e = open_file(c, message, path, &fd);
	if (!e)
		e = read_trailer(fd, &trailer, &st);
	if (!e)
		e = compare_bytes(fd, &trailer);
	if (!e)
		*ret_size = trailer.length;
	if (e == MF_CORRUPT)
		cache_body_drop(c, message);
	return e;
}

bool cache_body_is_cached(struct cache *c, uint64_t message)
{
	pthread_mutex_lock(&c->bodies.lock);
	const struct body *b = map_get_pointer(&c->bodies.open, message);
	bool whole = b && body_is_whole(b);
	pthread_mutex_unlock(&c->bodies.lock);
	if (b)
		return whole;
	char path[BODY_PATH_MAX];
	struct stat st;
	body_path(message, path);
	bool named = fstatat(c->bodies.dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_size >= (off_t)sizeof(struct trailer);
	return named || spool_has(c, message);
}

/* --- filling ------------------------------------------------------------------------------------------------------------------ */

/* in order as downloads come, it costs nothing to read again */
static void checksum(struct body *b, uint64_t offset, const void *data, size_t len)
{
	if (offset == b->crc_end) {
		b->crc = (uint32_t)crc32_z(b->crc, data, len);
		b->crc_end += len;
	} else if (offset < b->crc_end) {
		b->crc = 0;
		b->crc_end = 0;
	}
}

static struct trailer trailer_of(const struct body *b)
{
	struct trailer trailer = { .length = b->crc_end, .crc = b->crc, .trust = b->cache->bodies.trust };
	memcpy(trailer.magic, magic, sizeof magic);
	return trailer;
}

/* what is behind the bytes goes with them */
static enum mf_err write_with(int fd, uint64_t offset, const void *data, size_t len, const struct trailer *trailer)
{
	struct iovec parts[] = { { (void *)(uintptr_t)data, len }, { (void *)(uintptr_t)trailer, sizeof *trailer } };
	if (pwritev(fd, parts, 2, (off_t)offset) == (ssize_t)(len + sizeof *trailer))
		return MF_OK;
	enum mf_err e = file_write(fd, offset, data, len);
	return e ? e : file_write(fd, offset + len, trailer, sizeof *trailer);
}

/* Bytes that came in order to the end that is expected are sealed as they are written. */
static enum mf_err write_part(struct body *b, uint64_t offset, const void *data, size_t len)
{
	checksum(b, offset, data, len);
	uint64_t end = offset + len;
	bool last = end == b->crc_end && end == body_size(b);
	struct trailer trailer = trailer_of(b);
	enum mf_err e = last ? write_with(b->fd, offset, data, len, &trailer) : file_write(b->fd, offset, data, len);
	if (last)
		end += sizeof trailer;
	if (end > b->file_end)
		b->file_end = end;
	b->sealed = last && !e && end == b->file_end;
	if (e)
		b->crc = 0, b->crc_end = 0;
	return e;
}

enum mf_err body_write(struct body *b, uint64_t offset, const void *data, size_t len)
{
	if (offset > SIZE_LIMIT || len > SIZE_LIMIT - offset)
		return MF_TOO_BIG;
	pthread_mutex_lock(&b->writing);
	enum mf_err e = MF_OK;
	if (!body_is_whole(b)) { /* else these bytes are there */
		e = write_part(b, offset, data, len);
		if (!e) {
			pthread_mutex_lock(&b->lock);
			ranges_add(&b->ranges, offset, offset + len);
			pthread_mutex_unlock(&b->lock);
		}
	}
	pthread_mutex_unlock(&b->writing);
	return e;
}

/* The folder of a named one has been cleared while it was filled: it goes on in another file. */
static enum mf_err renew(struct body *b, uint64_t size)
{
	char name[TEMPORARY_MAX];
	MF_CLEANUP(mf_close) int fd = -1;
	enum mf_err e = open_temporary(b->cache, name, &fd);
	if (!e)
		e = read_through(b->fd, 0, size, NULL, fd);
	if (e)
		return e;
	if (dup3(fd, b->fd, O_CLOEXEC) < 0)
		return mf_err_from_errno(errno);
	memcpy(b->temporary, name, sizeof name);
	return MF_OK;
}

/* By its descriptor, which older kernels (before 6.10) let only root do; or the longer way through /proc. */
static int link_unnamed(struct body *b, const char *path)
{
	struct bodies *all = &b->cache->bodies;
	bool directly = !atomic_load(&all->through_proc);
	int result = directly ? linkat(b->fd, "", all->dir, path, AT_EMPTY_PATH) : -1;
	if (directly && (result == 0 || errno == EEXIST))
		return result;
	char self[32];
	snprintf(self, sizeof self, "/proc/self/fd/%d", b->fd);
	result = linkat(AT_FDCWD, self, all->dir, path, AT_SYMLINK_FOLLOW);
	if (directly && result == 0)
		atomic_store(&all->through_proc, true);
	return result;
}

/* what has the name already is worth less: it was damaged, or cut short */
static int link_once(struct body *b, const char *path)
{
	int dir = b->cache->bodies.dir;
	if (*b->temporary) {
		bodies_unlink(b->cache, b->message);
		return renameat(dir, b->temporary, dir, path);
	}
	int result = link_unnamed(b, path);
	if (result < 0 && errno == EEXIST) {
		bodies_unlink(b->cache, b->message);
		result = link_unnamed(b, path);
	}
	return result;
}

/* bodies.lock is held */
static enum mf_err give_name(struct body *b, uint64_t file_size)
{
	struct cache *c = b->cache;
	char path[BODY_PATH_MAX];
	body_path(b->message, path);
	for (int attempt = 0; attempt < 2; attempt++) {
		if (link_once(b, path) == 0) {
			b->temporary[0] = 0;
			c->bodies.named++;
			bodies_add(c, b->message, 1, (int64_t)file_size);
			return MF_OK;
		}
		if (errno != ENOENT)
			return mf_err_from_errno(errno);
		enum mf_err e = bodies_make_dirs(c, b->message);
		if (!e && *b->temporary && faccessat(c->bodies.dir, b->temporary, F_OK, 0) < 0)
			e = renew(b, file_size);
		if (e)
			return e;
	}
	return MF_IO;
}

static enum mf_err seal(struct body *b, uint64_t length)
{
	if (b->sealed && b->crc_end == length)
		return MF_OK;
	if (b->crc_end > length) /* more came than there is */
		b->crc = 0, b->crc_end = 0;
	enum mf_err e = read_through(b->fd, b->crc_end, length, &b->crc, -1);
	if (e)
		return e;
	b->crc_end = length;
	struct trailer trailer = trailer_of(b);
	if (b->file_end > length && ftruncate(b->fd, (off_t)length) < 0)
		return mf_err_from_errno(errno);
	return file_write(b->fd, length, &trailer, sizeof trailer);
}

enum mf_err body_finish(struct body *b, uint64_t length)
{
	struct bodies *all = &b->cache->bodies;
	pthread_mutex_lock(&b->writing);
	enum mf_err e = body_is_whole(b) || body_has(b, 0, length) ? MF_OK : MF_PROTOCOL;
	if (!e && !body_is_whole(b)) {
		e = seal(b, length);
		pthread_mutex_lock(&all->lock);
		if (!e && !b->dropped)
			e = give_name(b, length + sizeof(struct trailer));
		if (!e) {
			atomic_store(&b->size, length);
			atomic_store(&b->fresh, true);
			atomic_store(&b->whole, true);
		}
		pthread_mutex_unlock(&all->lock);
	}
	pthread_mutex_unlock(&b->writing);
	return e;
}

void body_abandon(struct body *b)
{
	pthread_mutex_lock(&b->writing);
	if (!body_is_whole(b)) {
		b->crc = 0;
		b->crc_end = 0;
		b->sealed = false;
		pthread_mutex_lock(&b->lock);
		ranges_finish(&b->ranges);
		pthread_mutex_unlock(&b->lock);
	}
	pthread_mutex_unlock(&b->writing);
}

/* Who has it keeps it; nobody else gets it, and it gets no name. bodies.lock is held */
static void detach(struct bodies *all, uint64_t message)
{
	struct body *b = map_get_pointer(&all->open, message);
	all->dropped[bodies_fan_of(message)]++; /* nor who has opened its file and comes with it now */
	if (!b)
		return;
	b->dropped = true;
	map_remove_pointer(&all->open, message, b);
}

void bodies_adopt(struct cache *c, uint64_t from, uint64_t to)
{
	char old_path[BODY_PATH_MAX], path[BODY_PATH_MAX];
	struct stat st;
	body_path(from, old_path);
	body_path(to, path);
	pthread_mutex_lock(&c->bodies.lock);
	detach(&c->bodies, from);
	bool known = faccessat(c->bodies.dir, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	bool moved = !known && fstatat(c->bodies.dir, old_path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	             bodies_make_dirs(c, to) == MF_OK && renameat(c->bodies.dir, old_path, c->bodies.dir, path) == 0;
	if (moved) {
		bodies_add(c, from, -1, -(int64_t)st.st_size);
		bodies_add(c, to, 1, (int64_t)st.st_size);
		c->bodies.named++;
	} else {
		bodies_unlink(c, from);
	}
	pthread_mutex_unlock(&c->bodies.lock);
}

void bodies_share(struct cache *c, uint64_t from, uint64_t to)
{
	char old_path[BODY_PATH_MAX], path[BODY_PATH_MAX];
	struct stat st;
	body_path(from, old_path);
	body_path(to, path);
	pthread_mutex_lock(&c->bodies.lock);
	detach(&c->bodies, to);
	bool linked = fstatat(c->bodies.dir, old_path, &st, AT_SYMLINK_NOFOLLOW) == 0 && bodies_make_dirs(c, to) == MF_OK &&
	              linkat(c->bodies.dir, old_path, c->bodies.dir, path, 0) == 0;
	if (linked) {
		bodies_add(c, to, 1, (int64_t)st.st_size);
		c->bodies.named++;
	}
	pthread_mutex_unlock(&c->bodies.lock);
}

enum mf_err bodies_import(struct cache *c, uint64_t message, int fd, uint64_t size)
{
	char name[TEMPORARY_MAX];
	int to;
	enum mf_err e = open_temporary(c, name, &to);
	if (e)
		return e;
	struct body *b = body_new(c, message, to, size);
	memcpy(b->temporary, name, sizeof name);
	e = read_through(fd, 0, size, NULL, to);
	if (!e)
		e = seal(b, size);
	pthread_mutex_lock(&c->bodies.lock);
	if (!e && (e = give_name(b, size + sizeof(struct trailer))) == MF_OK)
		atomic_store(&b->whole, true);
	pthread_mutex_unlock(&c->bodies.lock);
	body_free(b);
	return e;
}

void cache_body_drop(struct cache *c, uint64_t message)
{
	struct bodies *all = &c->bodies;
	pthread_mutex_lock(&all->lock);
	detach(all, message);
	bodies_unlink(c, message);
	pthread_mutex_unlock(&all->lock);
}

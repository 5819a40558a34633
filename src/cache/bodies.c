/* The folder of bodies: its places, what is in it, what is told of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "cache/private.h"

/* neighbours are read one after the other: they lie in one folder */
unsigned bodies_fan_of(uint64_t message)
{
	return (unsigned)(message / 256 % FAN_OUT);
}

void body_path(uint64_t message, char ret[static BODY_PATH_MAX])
{
	snprintf(ret, BODY_PATH_MAX, "%02x/%llu", bodies_fan_of(message), (unsigned long long)message);
}

static int make_and_open(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return -1;
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static enum mf_err open_epoch(struct cache *c, int *ret)
{
	enum mf_err e = state_make_dir(c->cache_dir, NULL);
	MF_CLEANUP(mf_free) char *above = mf_format("%s/bodies", c->cache_dir);
	MF_CLEANUP(mf_free) char *path = mf_format("%s/bodies/%08x", c->cache_dir, c->epoch);
	if (e)
		return e;
	MF_CLEANUP(mf_close) int parent = make_and_open(above);
	*ret = parent < 0 ? -1 : make_and_open(path);
	return *ret < 0 ? mf_err_from_errno(errno) : MF_OK;
}

static enum mf_err make_fan(struct cache *c, uint64_t message)
{
	char name[8];
	snprintf(name, sizeof name, "%02x", bodies_fan_of(message));
	if (message && mkdirat(c->bodies.dir, name, 0700) < 0 && errno != EEXIST)
		return mf_err_from_errno(errno);
	if (mkdirat(c->bodies.dir, "tmp", 0700) < 0 && errno != EEXIST)
		return mf_err_from_errno(errno);
	return MF_OK;
}

enum mf_err bodies_make_dirs(struct cache *c, uint64_t message)
{
	enum mf_err e = make_fan(c, message);
	if (e != MF_NOT_FOUND)
		return e;
	/* the folder that we hold is gone: another takes its number, under which every thread knows it */
	MF_CLEANUP(mf_close) int fresh = -1;
	e = open_epoch(c, &fresh);
	if (e)
		return e;
	if (dup3(fresh, c->bodies.dir, O_CLOEXEC) < 0)
		return mf_err_from_errno(errno);
	return make_fan(c, message);
}

enum mf_err bodies_open(struct cache *c)
{
	enum mf_err e = open_epoch(c, &c->bodies.dir);
	if (!e)
		e = make_fan(c, 0);
	/* an unnamed file gets its name through /proc */
	atomic_store(&c->bodies.named_temporaries, access("/proc/self/fd", X_OK) < 0);
	return e;
}

void bodies_close(struct cache *c)
{
	mf_close(&c->bodies.dir);
	map_finish(&c->bodies.open);
}

void bodies_add(struct cache *c, uint64_t message, int files, int64_t bytes)
{
	c->bodies.count[bodies_fan_of(message)] += files;
	c->bodies.bytes[bodies_fan_of(message)] += bytes;
}

void bodies_unlink(struct cache *c, uint64_t message)
{
	char path[BODY_PATH_MAX];
	struct stat st;
	body_path(message, path);
	if (fstatat(c->bodies.dir, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (unlinkat(c->bodies.dir, path, 0) < 0) {
		if (errno != ENOENT)
			log_warning("%s/bodies/%08x/%s: %s", c->cache_dir, c->epoch, path, strerror(errno));
		return;
	}
	if (S_ISREG(st.st_mode))
		bodies_add(c, message, -1, -(int64_t)st.st_size);
}

void bodies_total(struct cache *c, uint64_t *ret_count, uint64_t *ret_bytes)
{
	struct bodies *b = &c->bodies;
	pthread_mutex_lock(&b->lock);
	int64_t count = b->base_count, bytes = b->base_bytes;
	for (size_t i = 0; i < FAN_OUT; i++) {
		count += b->count[i];
		bytes += b->bytes[i];
	}
	pthread_mutex_unlock(&b->lock);
	/* below zero only where a folder was cleared behind our back */
	*ret_count = count > 0 ? (uint64_t)count : 0;
	*ret_bytes = bytes > 0 ? (uint64_t)bytes : 0;
}

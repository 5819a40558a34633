#include "fs/outgoing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/xattr.h"

#define NUMBER_MASK ((UINT64_C(1) << 38) - 1)
#define TWINS_MAX 1000

/* A draft has a name. What has none and is not in the queue is gone: it stays as long as somebody has it open. */
struct file {
	TAILQ_ENTRY(file) link;      /* ascending number */
	uint64_t number;
	uint64_t id;                 /* in the queue; 0: not */
	char *name;                  /* of a draft; NULL: it is none */
	int fd;                      /* its bytes, while somebody has the draft open; -1. Good behind that too: see to_draft() */
	unsigned opens, writers;
	bool dirty;                  /* written since somebody closed */
	bool too_big;                /* a write was refused: what is there is a piece */
	bool has_date;
	struct timespec mtime;       /* shown of what is in the queue, so that it does not change when it gets there */
	uint64_t size;               /* as last seen */
	bool no_text;                /* its error text was removed */
	char *left_name, *left_text; /* of one that was in failed/ and is forgotten: its error text was not */
};

struct outgoing {
	struct outbox *outbox;
	pthread_mutex_t lock;        /* guards all */
	TAILQ_HEAD(files, file) files;
	uint64_t next;
	int drafts;                  /* the folder */
};

/* --- the table --------------------------------------------------------------------------------------------------------- */

static struct file *add_file(struct outgoing *o)
{
	struct file *f = MF_NEW(struct file);
	f->number = o->next;
	f->fd = -1;
	o->next = o->next >= NUMBER_MASK ? 1 : o->next + 1;
	TAILQ_INSERT_TAIL(&o->files, f, link);
	return f;
}

static void drop_file(struct outgoing *o, struct file *f)
{
	TAILQ_REMOVE(&o->files, f, link);
	mf_close(&f->fd);
	free(f->name);
	free(f->left_name);
	free(f->left_text);
	free(f);
}

static struct file *by_number(struct outgoing *o, uint64_t number)
{
	struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->number == number)
			return f;
	return NULL;
}

static struct file *draft_by_name(struct outgoing *o, const char *name)
{
	struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

/* after: where to begin looking, for those who go through all; NULL */
static struct file *of_id(struct outgoing *o, uint64_t id, struct file *after)
{
	struct file *f;
	for (f = after ? TAILQ_NEXT(after, link) : NULL; f; f = TAILQ_NEXT(f, link))
		if (f->id == id)
			return f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->id == id)
			return f;
	f = add_file(o);
	f->id = id;
	return f;
}

/* What is sent and only waits for its copy is no file any more. */
static bool find_item(struct outgoing *o, uint64_t id, struct outbox_item *ret)
{
	if (!id || outbox_item(o->outbox, id, ret) != MF_OK)
		return false;
	if (ret->state != OUTBOX_UNFILED)
		return true;
	outbox_item_finish(ret);
	return false;
}

static void let_go(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	if (f->opens)
		return;
	mf_close(&f->fd);
	if (f->name)
		return;
	if (find_item(o, f->id, &item))
		outbox_item_finish(&item);
	else if (!f->left_text)
		drop_file(o, f);
}

/* --- editors' locks -------------------------------------------------------------------------------------------------------- */

static bool between(const char *name, const char *before, const char *behind, const char **ret, size_t *ret_len)
{
	size_t len = strlen(name), b = strlen(before), a = strlen(behind);
	if (len <= a + b || strncmp(name, before, b) != 0 || strcmp(name + len - a, behind) != 0)
		return false;
	*ret = name + b;
	*ret_len = len - a - b;
	return true;
}

bool outgoing_lock_names(const char *lock, const char **ret, size_t *ret_len)
{
	static const struct { const char *before, *behind; } forms[] = {
		{ ".~lock.", "#" }, { ".#", "" }, { "#", "#" }, { ".", ".kate-swp" }, { ".", ".swp" }, { ".", ".swo" }, { ".", ".swn" },
	};
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (between(lock, forms[i].before, forms[i].behind, ret, ret_len))
			return true;
	return false;
}

/* The file that keeps this name; NULL */
static const char *lock_of(const struct outgoing *o, const char *name)
{
	const struct file *f;
	const char *of;
	size_t len;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && outgoing_lock_names(f->name, &of, &len) && strlen(name) == len && strncmp(of, name, len) == 0)
			return f->name;
	return NULL;
}

static void set_hold(struct outgoing *o, uint64_t id, const char *name)
{
	struct file *f = of_id(o, id, NULL);
	outbox_hold(o->outbox, id, f->writers || lock_of(o, name));
}

/* A file with this name came or went. */
static void lock_changed(struct outgoing *o, const char *lock)
{
	struct outbox_item item;
	const char *of;
	size_t len;
	if (!outgoing_lock_names(lock, &of, &len))
		return;
	MF_CLEANUP(mf_free) char *name = mf_strndup(of, len);
	if (outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return;
	set_hold(o, item.id, name);
	outbox_item_finish(&item);
}

/* --- drafts and the queue ---------------------------------------------------------------------------------------------------- */

static enum mf_err need_fd(struct outgoing *o, struct file *f)
{
	if (f->fd < 0 && f->name)
		f->fd = openat(o->drafts, f->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return f->fd < 0 ? mf_err_from_errno(errno) : MF_OK;
}

static enum mf_err copy_all(int from, int to)
{
	char part[65536];
	for (off_t at = 0;;) {
		ssize_t n = pread(from, part, sizeof part, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? mf_err_from_errno(errno) : MF_OK;
		for (ssize_t done = 0; done < n;) {
			ssize_t w = pwrite(to, part + done, (size_t)(n - done), at + done);
			if (w < 0 && errno != EINTR)
				return mf_err_from_errno(errno);
			done += w > 0 ? w : 0;
		}
		at += n;
	}
}

static void drop_name(struct outgoing *o, struct file *f)
{
	MF_CLEANUP(mf_free) char *name = f->name;
	f->name = NULL;
	if (unlinkat(o->drafts, name, 0) < 0 && errno != ENOENT)
		log_warning("outbox-drafts: a file cannot be removed: %s", strerror(errno));
	lock_changed(o, name);
}

/* The message leaves the queue, and its bytes are a draft with this name. Whoever has it open goes on with that. */
static enum mf_err to_draft(struct outgoing *o, struct file *f, const char *name)
{
	MF_CLEANUP(mf_close) int from = -1;
	enum mf_err err = outbox_open_content(o->outbox, f->id, &from);
	if (err != MF_OK)
		return err;
	MF_CLEANUP(mf_close) int to = openat(o->drafts, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (to < 0)
		return mf_err_from_errno(errno);
	err = copy_all(from, to);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, f->mtime };
	if (err == MF_OK && ((f->has_date && futimens(to, times) < 0) || fsync(to) < 0 || fsync(o->drafts) < 0))
		err = mf_err_from_errno(errno);
	if (err == MF_OK)
		err = outbox_take_back(o->outbox, f->id, NULL);
	if (err != MF_OK) {
		(void)unlinkat(o->drafts, name, 0);
		return err;
	}
	f->id = 0;
	f->name = mf_strdup(name);
	mf_close(&f->fd);
	f->fd = to;
	to = -1;
	return MF_OK;
}

static enum mf_err take_back(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	if (f->name)
		return MF_OK;
	if (!find_item(o, f->id, &item))
		return MF_STALE;
	bool settled = item.in_failed || item.state == OUTBOX_MAYBE;
	enum mf_err err = settled ? MF_DENIED : item.state == OUTBOX_SENDING ? MF_BUSY : to_draft(o, f, item.name);
	outbox_item_finish(&item);
	return err;
}

/* Into the queue under this name. *ret_id: there it is, sendable or (keep_failed) not; 0: nowhere. */
static enum mf_err put(struct outgoing *o, struct file *f, const char *name, bool keep_failed, uint64_t *ret_id)
{
	struct mf_reason why = { "" };
	MF_CLEANUP(mf_free) char *piece = f->too_big ? mf_format("it is larger than the server takes: %" PRIu64 " bytes at most", outbox_size_max(o->outbox)) : NULL;
	struct outbox_put what = { .name = name, .keep_failed = keep_failed, .held = f->writers || lock_of(o, name), .unfit = piece };
	*ret_id = 0;
	enum mf_err err = need_fd(o, f);
	if (err == MF_OK && lseek(f->fd, 0, SEEK_SET) < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK)
		err = outbox_put(o->outbox, f->fd, &what, ret_id, &why);
	char shown[256];
	if (err != MF_OK && err != MF_EXISTS && keep_failed)
		log_warning("outbox/%s is not sent: %s", mf_printable(shown, sizeof shown, name, strlen(name)), why.text[0] ? why.text : mf_err_words(err));
	return err;
}

static uint64_t size_of(const struct outgoing *o, const struct file *f)
{
	struct stat st;
	if (f->fd >= 0 ? fstat(f->fd, &st) < 0 : !f->name || fstatat(o->drafts, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_size;
}

/* The draft is in the queue now, and nowhere else. */
static void became(struct outgoing *o, struct file *f, uint64_t id)
{
	struct stat st;
	if (f->fd >= 0 && fstat(f->fd, &st) == 0) {
		f->mtime = st.st_mtim;
		f->has_date = true;
	}
	f->id = id;
	f->dirty = false;
	drop_name(o, f);
}

/* Its own name may be taken by one that came into the queue another way. */
static enum mf_err accept_draft(struct outgoing *o, struct file *f, bool keep_failed)
{
	uint64_t id = 0;
	if (!f->name || name_is_scratch(f->name) || size_of(o, f) == 0)
		return MF_OK;
	enum mf_err err = put(o, f, f->name, keep_failed, &id);
	for (unsigned n = 2; err == MF_EXISTS && n < TWINS_MAX; n++) {
		MF_CLEANUP(mf_free) char *twin = mf_format("%u-%.240s", n, f->name);
		err = put(o, f, twin, keep_failed, &id);
	}
	if (id)
		became(o, f, id);
	return err;
}

/* --- life ------------------------------------------------------------------------------------------------------------------- */

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_name(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

/* One that the queue has too was on its way from one to the other. */
static void load_one(struct outgoing *o, const char *name)
{
	struct outbox_item item;
	if (!name_is_scratch(name) && outbox_item_by_name(o->outbox, name, false, &item) == MF_OK) {
		outbox_item_finish(&item);
		(void)unlinkat(o->drafts, name, 0);
		return;
	}
	add_file(o)->name = mf_strdup(name);
	lock_changed(o, name);
}

static enum mf_err load(struct outgoing *o)
{
	struct dirent **names;
	int count = scandirat(o->drafts, ".", &names, is_name, by_bytes);
	if (count < 0)
		return mf_err_from_errno(errno);
	for (int i = 0; i < count; i++) {
		load_one(o, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return MF_OK;
}

enum mf_err outgoing_open(struct outbox *outbox, const char *state_dir, struct outgoing **ret, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox-drafts", state_dir);
	struct outgoing *o = MF_NEW(struct outgoing);
	o->outbox = outbox;
	TAILQ_INIT(&o->files);
	pthread_mutex_init(&o->lock, NULL);
	/* numbers of an earlier mount are not met again: it did not give a thousand in each second */
	o->next = ((uint64_t)(clock_wall_ns() / 1000000) & NUMBER_MASK) | 1;
	bool made = mkdir(path, 0700) == 0 || errno == EEXIST;
	o->drafts = made ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
	enum mf_err err = o->drafts < 0 ? mf_err_from_errno(errno) : load(o);
	if (err != MF_OK) {
		outgoing_close(o);
		return mf_fail(why, err, "%s: %s", path, mf_err_words(err));
	}
	*ret = o;
	return MF_OK;
}

void outgoing_close(struct outgoing *o)
{
	if (!o)
		return;
	for (struct file *f; (f = TAILQ_FIRST(&o->files));)
		drop_file(o, f);
	mf_close(&o->drafts);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

/* --- looking ------------------------------------------------------------------------------------------------------------------ */

static void of_item(struct file *f, const struct outbox_item *item, struct outgoing_info *ret)
{
	f->size = item->size;
	*ret = (struct outgoing_info){ .number = f->number, .failed = item->in_failed, .text = item->in_failed && !f->no_text, .size = item->size,
		.mtime = f->has_date ? f->mtime : (struct timespec){ .tv_sec = item->put_s } };
}

static void of_draft(const struct outgoing *o, struct file *f, struct outgoing_info *ret)
{
	struct stat st;
	*ret = (struct outgoing_info){ .number = f->number, .gone = !f->name, .size = f->size, .mtime = f->mtime };
	if (f->fd >= 0 ? fstat(f->fd, &st) < 0 : !f->name || fstatat(o->drafts, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	ret->size = f->size = (uint64_t)st.st_size;
	ret->mtime = st.st_mtim;
}

static void of_left(const struct file *f, struct outgoing_info *ret)
{
	*ret = (struct outgoing_info){ .number = f->number, .failed = true, .gone = true, .text = true, .size = f->size, .mtime = f->mtime };
}

static struct file *left_by_name(struct outgoing *o, const char *name)
{
	struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->left_text && strcmp(f->left_name, name) == 0)
			return f;
	return NULL;
}

enum mf_err outgoing_find(struct outgoing *o, bool failed, const char *name, struct outgoing_info *ret)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	struct file *f = failed ? NULL : draft_by_name(o, name);
	enum mf_err err = MF_OK;
	if (f)
		of_draft(o, f, ret);
	else
		err = outbox_item_by_name(o->outbox, name, failed, &item);
	if (!f && err == MF_OK) {
		of_item(of_id(o, item.id, NULL), &item, ret);
		outbox_item_finish(&item);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_look(struct outgoing *o, uint64_t number, struct outgoing_info *ret)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = MF_OK;
	if (f && !f->name && find_item(o, f->id, &item)) {
		of_item(f, &item, ret);
		outbox_item_finish(&item);
	} else if (f && f->left_text) {
		of_left(f, ret);
	} else if (f && (f->name || f->opens)) {
		of_draft(o, f, ret);
	} else {
		err = MF_STALE;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

struct shown { const char *name; struct outgoing_info info; };

static int by_shown_number(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;
	return (x->info.number > y->info.number) - (x->info.number < y->info.number);
}

/* What was sent or removed, and is not open, needs no number any more. */
static void sweep(struct outgoing *o)
{
	struct file *f, *next;
	for (f = TAILQ_FIRST(&o->files); f; f = next) {
		next = TAILQ_NEXT(f, link);
		if (!f->name)
			let_go(o, f);
	}
}

static bool has_failed(const struct outbox_item *items, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (items[i].in_failed && strcmp(items[i].name, name) == 0)
			return true;
	return false;
}

void outgoing_visit(struct outgoing *o, bool failed, uint64_t after, outgoing_visitor *visit, void *context)
{
	struct outbox_item *items;
	size_t item_count, count = 0, drafts = 0;
	struct file *f, *last = NULL;
	pthread_mutex_lock(&o->lock);
	if (!after)
		sweep(o);
	outbox_items(o->outbox, &items, &item_count);
	TAILQ_FOREACH(f, &o->files, link)
		drafts += f->name || f->left_text;
	struct shown *list = mf_alloc_array(item_count + drafts + 1, sizeof *list);
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && !failed) {
			list[count].name = f->name;
			of_draft(o, f, &list[count++].info);
		} else if (f->left_text && failed && !has_failed(items, item_count, f->left_name)) {
			list[count].name = f->left_name;
			of_left(f, &list[count++].info);
		}
	for (size_t i = 0; i < item_count; i++) {
		if (items[i].state == OUTBOX_UNFILED || items[i].in_failed != failed || (!failed && draft_by_name(o, items[i].name)))
			continue;
		last = of_id(o, items[i].id, last);
		list[count].name = items[i].name;
		of_item(last, &items[i], &list[count++].info);
	}
	qsort(list, count, sizeof *list, by_shown_number);
	bool more = true;
	for (size_t i = 0; i < count && more; i++)
		if (list[i].info.number > after)
			more = visit(context, list[i].name, &list[i].info);
	free(list);
	outbox_items_free(items, item_count);
	pthread_mutex_unlock(&o->lock);
}

static void add_until(struct buf *b, const char *words, int64_t at_s)
{
	(void)buf_adds(b, words);
	xattr_date_value(at_s, b);
}

static void say_item(const struct outgoing *o, const struct file *f, const struct outbox_item *item, struct buf *b)
{
	const char *lock = item->in_failed ? NULL : lock_of(o, item->name);
	switch (item->state) {
	case OUTBOX_WAITING: add_until(b, "waiting until ", item->at_s); break;
	case OUTBOX_QUEUED: (void)buf_adds(b, "queued"); break;
	case OUTBOX_SENDING: (void)buf_adds(b, "sending"); break;
	case OUTBOX_RETRYING: add_until(b, "retrying at ", item->at_s); break;
	case OUTBOX_MAYBE: (void)buf_adds(b, "maybe sent"); break;
	case OUTBOX_UNFILED: (void)buf_adds(b, "sent"); break;
	case OUTBOX_FAILED: (void)buf_adds(b, "failed"); break;
	}
	bool rests = item->state == OUTBOX_WAITING || item->state == OUTBOX_QUEUED || item->state == OUTBOX_RETRYING;
	if (rests && lock)
		(void)buf_addf(b, ", and while %s is there", lock);
	else if (rests && f->writers)
		(void)buf_adds(b, ", and while it is open for writing");
	if (*item->reason)
		(void)buf_addf(b, ": %s", item->reason);
}

static const char *say_draft(const struct outgoing *o, const struct file *f)
{
	return !f->name ? "removed" : name_is_scratch(f->name) ? "local: nothing with such a name is sent"
		: f->writers ? "being written" : size_of(o, f) == 0 ? "empty: not sent"
		: "unfinished: it is sent when it is saved again";
}

char *outgoing_state(struct outgoing *o, uint64_t number)
{
	struct outbox_item item;
	struct buf b;
	buf_init(&b, 4096);
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	if (f && !f->name && find_item(o, f->id, &item)) {
		say_item(o, f, &item, &b);
		outbox_item_finish(&item);
	} else if (f) {
		(void)buf_adds(&b, say_draft(o, f));
	}
	pthread_mutex_unlock(&o->lock);
	if (b.len)
		return buf_detach(&b);
	buf_finish(&b);
	return NULL;
}

enum mf_err outgoing_item(struct outgoing *o, uint64_t number, struct outbox_item *ret)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	bool found = f && !f->name && find_item(o, f->id, ret);
	pthread_mutex_unlock(&o->lock);
	return found ? MF_OK : MF_NOT_FOUND;
}

char *outgoing_error_text(struct outgoing *o, uint64_t number)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	char *text = !f ? NULL : f->left_text ? mf_strdup(f->left_text) : f->id && !f->no_text ? outbox_error_text(o->outbox, f->id) : NULL;
	pthread_mutex_unlock(&o->lock);
	return text;
}

static struct file *find_text(struct outgoing *o, const char *name, struct outgoing_info *ret)
{
	struct outbox_item item;
	struct file *f = NULL;
	if (outbox_item_by_name(o->outbox, name, true, &item) == MF_OK) {
		f = of_id(o, item.id, NULL);
		of_item(f, &item, ret);
		outbox_item_finish(&item);
	} else if ((f = left_by_name(o, name))) {
		of_left(f, ret);
	}
	return f && ret->text ? f : NULL;
}

enum mf_err outgoing_find_text(struct outgoing *o, const char *name, struct outgoing_info *ret)
{
	pthread_mutex_lock(&o->lock);
	enum mf_err err = find_text(o, name, ret) ? MF_OK : MF_NOT_FOUND;
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_remove_text(struct outgoing *o, const char *name)
{
	struct outgoing_info info;
	pthread_mutex_lock(&o->lock);
	struct file *f = find_text(o, name, &info);
	if (f) {
		f->no_text = true;
		free(f->left_text);
		f->left_text = NULL;
		let_go(o, f);
	}
	pthread_mutex_unlock(&o->lock);
	return f ? MF_OK : MF_NOT_FOUND;
}

/* --- opening and closing ---------------------------------------------------------------------------------------------------------- */

static enum mf_err open_locked(struct outgoing *o, struct file *f, bool writes, bool truncate, int *ret_fd)
{
	enum mf_err err = MF_OK;
	if (writes && !f->name)
		err = take_back(o, f);
	else if (!f->name && f->fd < 0)
		err = outbox_open_content(o->outbox, f->id, ret_fd);
	if (err == MF_OK && f->name)
		err = need_fd(o, f);
	if (err == MF_OK && writes && truncate && ftruncate(f->fd, 0) < 0)
		err = mf_err_from_errno(errno);
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

enum mf_err outgoing_open_file(struct outgoing *o, uint64_t number, bool writes, bool truncate, int *ret_fd)
{
	*ret_fd = -1;
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = f ? open_locked(o, f, writes, truncate, ret_fd) : MF_STALE;
	if (err == MF_OK) {
		f->opens++;
		f->writers += writes;
		f->too_big &= !truncate;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_create(struct outgoing *o, const char *name, uint64_t *ret_number)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	enum mf_err err = draft_by_name(o, name) ? MF_EXISTS : MF_OK;
	if (err == MF_OK && outbox_item_by_name(o->outbox, name, false, &item) == MF_OK) {
		outbox_item_finish(&item);
		err = MF_EXISTS;
	}
	int fd = err == MF_OK ? openat(o->drafts, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (err == MF_OK && fd < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK) {
		struct file *f = add_file(o);
		f->name = mf_strdup(name);
		f->fd = fd;
		f->opens = f->writers = 1;
		*ret_number = f->number;
		lock_changed(o, name);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_flush(struct outgoing *o, uint64_t number)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = f ? accept_draft(o, f, false) : MF_OK;
	if (f)
		f->dirty = false;
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* Nobody writes it any more: it is accepted, or has been and may go. */
static void settle(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	f->dirty = false;
	if (f->name)
		(void)accept_draft(o, f, true); /* told in failed/, and in the log */
	f->too_big &= f->name != NULL;
	if (!f->name && find_item(o, f->id, &item)) {
		set_hold(o, f->id, item.name);
		outbox_item_finish(&item);
	}
}

void outgoing_close_file(struct outgoing *o, uint64_t number, bool writes)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	if (f) {
		f->opens--;
		f->writers -= writes;
		if (writes && !f->writers)
			settle(o, f);
		let_go(o, f);
	}
	pthread_mutex_unlock(&o->lock);
}

/* --- bytes -------------------------------------------------------------------------------------------------------------------------- */

ssize_t outgoing_read(struct outgoing *o, uint64_t number, void *to, size_t size, uint64_t offset)
{
	ssize_t n = -1;
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	if (!f || f->fd < 0)
		errno = ESTALE;
	else
		do
			n = pread(f->fd, to, size, (off_t)offset);
		while (n < 0 && errno == EINTR);
	pthread_mutex_unlock(&o->lock);
	return n;
}

/* Accepted already, by one who closed: not any more. What was removed meanwhile is written into all the same. */
static enum mf_err begin_change(struct outgoing *o, struct file *f, uint64_t size)
{
	enum mf_err err = f->name || (f->fd >= 0 && !f->id) ? MF_OK : take_back(o, f);
	if (err == MF_STALE && f->fd >= 0)
		err = MF_OK;
	uint64_t most = f->name && !name_is_scratch(f->name) ? outbox_size_max(o->outbox) : 0;
	if (err == MF_OK && most && size > most) {
		f->too_big = true;
		err = MF_TOO_BIG;
	}
	if (err == MF_OK)
		f->dirty = true;
	return err == MF_OK ? need_fd(o, f) : err;
}

static enum mf_err write_all(int fd, const char *data, size_t size, uint64_t offset)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);
		if (n < 0 && errno != EINTR)
			return mf_err_from_errno(errno);
		n = n > 0 ? n : 0;
		data += n;
		offset += (uint64_t)n;
		size -= (size_t)n;
	}
	return MF_OK;
}

enum mf_err outgoing_write(struct outgoing *o, uint64_t number, const void *data, size_t size, uint64_t offset)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = f ? begin_change(o, f, offset + size) : MF_STALE;
	if (err == MF_OK)
		err = write_all(f->fd, data, size, offset);
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_truncate(struct outgoing *o, uint64_t number, uint64_t size)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = f ? begin_change(o, f, size) : MF_STALE;
	if (err == MF_OK && ftruncate(f->fd, (off_t)size) < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK && size == 0)
		f->too_big = false;
	if (err == MF_OK && !f->writers) {
		f->dirty = false;
		err = accept_draft(o, f, true);
	}
	if (f)
		let_go(o, f);
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_set_date(struct outgoing *o, uint64_t number, const struct timespec *mtime)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, *mtime };
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	enum mf_err err = f ? MF_OK : MF_STALE;
	if (f && (f->fd >= 0 ? futimens(f->fd, times) : f->name ? utimensat(o->drafts, f->name, times, AT_SYMLINK_NOFOLLOW) : 0) < 0)
		err = mf_err_from_errno(errno);
	if (f) {
		f->mtime = *mtime;
		f->has_date = true;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_sync(struct outgoing *o, uint64_t number)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = by_number(o, number);
	bool failed = f && f->name && (need_fd(o, f) != MF_OK || fsync(f->fd) < 0 || fsync(o->drafts) < 0);
	enum mf_err err = !f ? MF_STALE : failed ? mf_err_from_errno(errno) : MF_OK;
	if (f)
		let_go(o, f);
	pthread_mutex_unlock(&o->lock);
	return err; /* what is in the queue is on the disk */
}

/* --- names ------------------------------------------------------------------------------------------------------------------------------ */

/* A message in failed/ is forgotten; its error text is another file. */
static enum mf_err forget(struct outgoing *o, const struct outbox_item *item)
{
	struct file *f = of_id(o, item->id, NULL);
	char *text = f->no_text ? NULL : outbox_error_text(o->outbox, item->id);
	enum mf_err err = outbox_remove(o->outbox, item->id);
	if (err != MF_OK || !text) {
		free(text);
		return err;
	}
	free(f->left_name);
	f->left_name = mf_strdup(item->name);
	f->left_text = text;
	f->mtime = f->has_date ? f->mtime : (struct timespec){ .tv_sec = item->put_s };
	return err;
}

enum mf_err outgoing_remove(struct outgoing *o, bool failed, const char *name)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	struct file *f = failed ? NULL : draft_by_name(o, name);
	enum mf_err err = f ? MF_OK : outbox_item_by_name(o->outbox, name, failed, &item);
	if (f) {
		drop_name(o, f);
		let_go(o, f);
	} else if (err == MF_OK) {
		err = failed ? forget(o, &item) : outbox_remove(o->outbox, item.id);
		outbox_item_finish(&item);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* What has the name in outbox/ makes room. MF_BUSY, MF_DENIED: it cannot be taken back */
static enum mf_err make_room(struct outgoing *o, const char *name, const struct file *but)
{
	struct outbox_item item;
	struct file *f = draft_by_name(o, name);
	if (f && f != but) {
		drop_name(o, f);
		let_go(o, f);
	}
	if (outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return MF_OK;
	enum mf_err err = but && but->id == item.id ? MF_OK : outbox_take_back(o->outbox, item.id, NULL);
	outbox_item_finish(&item);
	return err;
}

static enum mf_err rename_failed(struct outgoing *o, const char *name, const char *newname)
{
	struct outbox_item item;
	enum mf_err err = outbox_item_by_name(o->outbox, name, true, &item);
	if (err != MF_OK)
		return err;
	uint64_t id = item.id;
	outbox_item_finish(&item);
	if (name_is_scratch(newname))
		return MF_UNSUPPORTED;
	outbox_hold(o->outbox, id, true); /* until it has its name */
	err = outbox_retry(o->outbox, id);
	if (err == MF_OK)
		err = make_room(o, newname, of_id(o, id, NULL));
	if (err == MF_OK && outbox_item(o->outbox, id, &item) == MF_OK) {
		if (strcmp(item.name, newname) != 0)
			err = outbox_rename(o->outbox, id, newname);
		outbox_item_finish(&item);
	}
	set_hold(o, id, newname);
	return err == MF_DENIED ? MF_INVALID : err; /* it was never fit to be sent */
}

static enum mf_err rename_queued(struct outgoing *o, uint64_t id, const char *newname)
{
	struct file *f = of_id(o, id, NULL);
	enum mf_err err = make_room(o, newname, f);
	if (err != MF_OK)
		return err;
	if (!name_is_scratch(newname)) {
		err = outbox_rename(o->outbox, id, newname);
		if (err == MF_OK)
			set_hold(o, id, newname);
		return err;
	}
	err = to_draft(o, f, newname);
	let_go(o, f);
	if (err == MF_OK)
		lock_changed(o, newname);
	return err;
}

static enum mf_err move_draft(struct outgoing *o, struct file *f, const char *newname)
{
	enum mf_err err = make_room(o, newname, f);
	if (err != MF_OK)
		return err;
	if (renameat(o->drafts, f->name, o->drafts, newname) < 0)
		return mf_err_from_errno(errno);
	MF_CLEANUP(mf_free) char *old = f->name;
	f->name = mf_strdup(newname);
	lock_changed(o, old);
	lock_changed(o, newname);
	return MF_OK;
}

/* A whole file gets a real name. One that cannot be sent keeps its own; what it would have replaced stays. */
static enum mf_err accept_as(struct outgoing *o, struct file *f, const char *newname)
{
	uint64_t id = 0;
	enum mf_err err = put(o, f, newname, true, &id);
	if (err == MF_EXISTS && (err = make_room(o, newname, f)) == MF_OK)
		err = put(o, f, newname, true, &id);
	if (err == MF_OK) {
		struct file *there = draft_by_name(o, newname);
		if (there && there != f) {
			drop_name(o, there);
			let_go(o, there);
		}
		became(o, f, id);
	}
	let_go(o, f);
	return err;
}

enum mf_err outgoing_rename(struct outgoing *o, bool from_failed, const char *name, const char *newname)
{
	struct outbox_item item;
	enum mf_err err;
	pthread_mutex_lock(&o->lock);
	struct file *f = from_failed ? NULL : draft_by_name(o, name);
	if (from_failed) {
		err = rename_failed(o, name, newname);
	} else if (f && !name_is_scratch(newname) && size_of(o, f) && !(f->writers && f->dirty)) {
		err = accept_as(o, f, newname);
	} else if (f) {
		err = move_draft(o, f, newname);
	} else {
		err = outbox_item_by_name(o->outbox, name, false, &item);
		if (err == MF_OK) {
			err = rename_queued(o, item.id, newname);
			outbox_item_finish(&item);
		}
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

#include "fs/outgoing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/outgoing_file.h"
#include "fs/xattr.h"

/* --- life ------------------------------------------------------------------------------------------------------------------- */

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_name(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

/* It was on its way from one to the other: the message has its name, or (renamed into the queue) its number. Another text was not. */
static bool is_queued(struct outgoing *o, const char *name, uint64_t id)
{
	struct stat st;
	MF_CLEANUP(mf_close) int message = -1, draft = openat(o->drafts, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (outbox_open_content(o->outbox, id, &message) != MF_OK || draft < 0 || fstat(draft, &st) < 0)
		return false;
	return file_is_same(draft, message, (uint64_t)st.st_size); /* or as many of the first bytes as could be copied */
}

static bool is_queued_as(struct outgoing *o, const char *name)
{
	struct outbox_item item;
	if (name_is_scratch(name) || outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return false;
	uint64_t id = item.id;
	outbox_item_finish(&item);
	return is_queued(o, name, id);
}

/* for good, as in file_drop_name() */
static void drop_copy(const struct outgoing *o, const char *name)
{
	if (unlinkat(o->drafts, name, 0) < 0 || fsync(o->drafts) < 0)
		log_warning("outbox-drafts: %s", strerror(errno));
}

static void load_one(struct outgoing *o, const char *name)
{
	if (is_queued_as(o, name)) {
		drop_copy(o, name);
		return;
	}
	file_add(o, 0)->name = mf_strdup(name);
	file_lock_changed(o, name);
}

/* Each draft as it was noted, or with a new number */
static void settle_numbers(struct outgoing *o)
{
	struct file *f, *next;
	for (f = TAILQ_FIRST(&o->files); f; f = next) {
		next = TAILQ_NEXT(f, link);
		uint64_t id = f->name && f->number ? outbox_id_of_number(o->outbox, f->number) : 0;
		if (id && is_queued(o, f->name, id)) {
			drop_copy(o, f->name);
			file_drop(o, f);
		} else if (id || !f->number) {
			f->number = outbox_number(o->outbox);
		}
	}
	notes_save(o);
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
	notes_load(o);
	settle_numbers(o);
	return MF_OK;
}

enum mf_err outgoing_open(struct outbox *outbox, const char *state_dir, struct outgoing **ret, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox-drafts", state_dir);
	struct outgoing *o = MF_NEW(struct outgoing);
	o->outbox = outbox;
	TAILQ_INIT(&o->files);
	pthread_mutex_init(&o->lock, NULL);
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
		file_drop(o, f);
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
	struct file *f = failed ? NULL : file_by_name(o, name);
	enum mf_err err = MF_OK;
	if (f)
		of_draft(o, f, ret);
	else
		err = outbox_item_by_name(o->outbox, name, failed, &item);
	if (!f && err == MF_OK) {
		of_item(file_of_id(o, item.id, NULL), &item, ret);
		outbox_item_finish(&item);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_look(struct outgoing *o, uint64_t number, struct outgoing_info *ret)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = MF_OK;
	if (f && !f->name && file_item(o, f->id, &item)) {
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
			file_let_go(o, f);
	}
}

static bool has_failed(const struct outbox_item *items, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (items[i].in_failed && strcmp(items[i].name, name) == 0)
			return true;
	return false;
}

static bool is_listed(const struct shown *list, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(list[i].name, name) == 0)
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
	drafts = failed ? 0 : count; /* they are few, where messages may be thousands */
	for (size_t i = 0; i < item_count; i++) {
		if (items[i].state == OUTBOX_UNFILED || items[i].in_failed != failed || is_listed(list, drafts, items[i].name))
			continue;
		last = file_of_id(o, items[i].id, last);
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
	const char *lock = item->in_failed ? NULL : file_lock_of(o, item->name);
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
		: f->exported && !f->whole ? "written through an export: it is sent when it is renamed"
		: f->writers ? "being written" : file_size(o, f) == 0 ? "empty: not sent"
		: "unfinished: it is sent when it is saved again";
}

char *outgoing_state(struct outgoing *o, uint64_t number)
{
	struct outbox_item item;
	struct buf b;
	buf_init(&b, 4096);
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	if (f && !f->name && file_item(o, f->id, &item)) {
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
	struct file *f = file_by_number(o, number);
	bool found = f && !f->name && file_item(o, f->id, ret);
	pthread_mutex_unlock(&o->lock);
	return found ? MF_OK : MF_NOT_FOUND;
}

enum mf_err outgoing_notify(struct outgoing *o, uint64_t number, unsigned *ret)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	bool queued = f && !f->name && file_item(o, f->id, &item);
	if (f)
		*ret = queued ? item.notify : f->notify;
	if (queued)
		outbox_item_finish(&item);
	pthread_mutex_unlock(&o->lock);
	return f ? MF_OK : MF_STALE;
}

enum mf_err outgoing_set_notify(struct outgoing *o, uint64_t number, unsigned notify)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = !f ? MF_STALE : f->name ? MF_OK : outbox_set_notify(o->outbox, f->id, notify);
	if (err == MF_OK)
		f->notify = notify;
	if (err == MF_OK && f->name)
		notes_save(o);
	pthread_mutex_unlock(&o->lock);
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

char *outgoing_error_text(struct outgoing *o, uint64_t number)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	char *text = !f ? NULL : f->left_text ? mf_strdup(f->left_text) : f->id && !f->no_text ? outbox_error_text(o->outbox, f->id) : NULL;
	pthread_mutex_unlock(&o->lock);
	return text;
}

static struct file *find_text(struct outgoing *o, const char *name, struct outgoing_info *ret)
{
	struct outbox_item item;
	struct file *f = NULL;
	if (outbox_item_by_name(o->outbox, name, true, &item) == MF_OK) {
		f = file_of_id(o, item.id, NULL);
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
		file_let_go(o, f);
	}
	pthread_mutex_unlock(&o->lock);
	return f ? MF_OK : MF_NOT_FOUND;
}

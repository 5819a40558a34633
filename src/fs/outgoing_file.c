/* Drafts and the queue: how a file of outbox/ gets from one to the other. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/outgoing_file.h"

#define TWINS_MAX 1000

/* --- the table --------------------------------------------------------------------------------------------------------- */

struct file *file_add(struct outgoing *o, uint64_t number)
{
	struct file *f = MF_NEW(struct file);
	f->number = number;
	f->fd = -1;
	TAILQ_INSERT_TAIL(&o->files, f, link);
	return f;
}

void file_drop(struct outgoing *o, struct file *f)
{
	TAILQ_REMOVE(&o->files, f, link);
	mf_close(&f->fd);
	free(f->name);
	free(f->left_name);
	free(f->left_text);
	free(f);
}

struct file *file_by_number(struct outgoing *o, uint64_t number)
{
	struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->number == number)
			return f;
	uint64_t id = outbox_id_of_number(o->outbox, number);
	return id ? file_of_id(o, id, NULL) : NULL;
}

struct file *file_by_name(struct outgoing *o, const char *name)
{
	struct file *f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

/* after: where to begin looking, for those who go through all; NULL */
struct file *file_of_id(struct outgoing *o, uint64_t id, struct file *after)
{
	struct file *f;
	for (f = after ? TAILQ_NEXT(after, link) : NULL; f; f = TAILQ_NEXT(f, link))
		if (f->id == id)
			return f;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->id == id)
			return f;
	struct outbox_item item = { .number = 0 };
	bool found = outbox_item(o->outbox, id, &item) == MF_OK;
	f = file_add(o, found ? item.number : outbox_number(o->outbox));
	f->id = id;
	if (found)
		outbox_item_finish(&item);
	return f;
}

/* What is sent and only waits for its copy is no file any more. */
bool file_item(struct outgoing *o, uint64_t id, struct outbox_item *ret)
{
	if (!id || outbox_item(o->outbox, id, ret) != MF_OK)
		return false;
	if (ret->state != OUTBOX_UNFILED)
		return true;
	outbox_item_finish(ret);
	return false;
}

void file_let_go(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	if (f->opens)
		return;
	mf_close(&f->fd);
	if (f->name)
		return;
	if (file_item(o, f->id, &item))
		outbox_item_finish(&item);
	else if (!f->left_text)
		file_drop(o, f);
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
const char *file_lock_of(const struct outgoing *o, const char *name)
{
	const struct file *f;
	const char *of;
	size_t len;
	TAILQ_FOREACH(f, &o->files, link)
		if (f->name && outgoing_lock_names(f->name, &of, &len) && strlen(name) == len && strncmp(of, name, len) == 0)
			return f->name;
	return NULL;
}

void file_set_hold(struct outgoing *o, uint64_t id, const char *name)
{
	struct file *f = file_of_id(o, id, NULL);
	outbox_hold(o->outbox, id, f->writers || file_lock_of(o, name), false);
}

/* A file with this name came or went. Some editors make a lock anew for each change (nano), so one that went may be back soon. */
void file_lock_changed(struct outgoing *o, const char *lock)
{
	struct outbox_item item;
	const char *of;
	size_t len;
	if (!outgoing_lock_names(lock, &of, &len))
		return;
	MF_CLEANUP(mf_free) char *name = mf_strndup(of, len);
	if (outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return;
	bool locked = file_lock_of(o, name);
	outbox_hold(o->outbox, item.id, locked || file_of_id(o, item.id, NULL)->writers, !locked);
	outbox_item_finish(&item);
}

/* --- drafts and the queue ---------------------------------------------------------------------------------------------------- */

enum mf_err file_need_fd(struct outgoing *o, struct file *f)
{
	if (f->fd < 0 && f->name)
		f->fd = openat(o->drafts, f->name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return f->fd < 0 ? mf_err_from_errno(errno) : MF_OK;
}

void file_drop_name(struct outgoing *o, struct file *f)
{
	MF_CLEANUP(mf_free) char *name = f->name;
	f->name = NULL;
	if (unlinkat(o->drafts, name, 0) < 0 && errno != ENOENT)
		log_warning("outbox-drafts: a file cannot be removed: %s", strerror(errno));
	/* removed, or sent: a power failure must not bring back what could be saved, and so sent, once more */
	if (!name_is_scratch(name) && fsync(o->drafts) < 0)
		log_warning("outbox-drafts: %s", strerror(errno));
	notes_save(o);
	file_lock_changed(o, name);
}

/* Its number and the like are noted before they leave the queue; while they are there too the note counts for nothing. */
static enum mf_err take_back_as(struct outgoing *o, struct file *f, const char *name, unsigned notify)
{
	unsigned before = f->notify;
	f->name = mf_strdup(name);
	f->notify = notify;
	notes_save(o);
	enum mf_err err = outbox_take_back(o->outbox, f->id, NULL);
	if (err != MF_OK) {
		free(f->name);
		f->name = NULL;
		f->notify = before;
	}
	return err;
}

/* The message leaves the queue, and its bytes are a draft with this name. Whoever has it open goes on with that. */
enum mf_err file_to_draft(struct outgoing *o, struct file *f, const char *name)
{
	struct outbox_item item;
	struct stat st;
	MF_CLEANUP(mf_close) int from = -1;
	enum mf_err err = outbox_open_content(o->outbox, f->id, &from);
	if (err == MF_OK)
		err = outbox_item(o->outbox, f->id, &item);
	if (err != MF_OK)
		return err;
	unsigned notify = item.notify_asked;
	outbox_item_finish(&item);
	MF_CLEANUP(mf_close) int to = openat(o->drafts, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (to < 0)
		return mf_err_from_errno(errno);
	err = fstat(from, &st) < 0 ? mf_err_from_errno(errno) : file_copy(from, to, (uint64_t)st.st_size);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, f->mtime };
	if (err == MF_OK && ((f->has_date && futimens(to, times) < 0) || fsync(to) < 0 || fsync(o->drafts) < 0))
		err = mf_err_from_errno(errno);
	if (err == MF_OK)
		err = take_back_as(o, f, name, notify);
	if (err != MF_OK) {
		(void)unlinkat(o->drafts, name, 0);
		return err;
	}
	f->id = 0;
	f->whole = true;
	mf_close(&f->fd);
	f->fd = to;
	to = -1;
	return MF_OK;
}

enum mf_err file_take_back(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	if (f->name)
		return MF_OK;
	if (!file_item(o, f->id, &item))
		return MF_STALE;
	bool settled = item.in_failed || item.state == OUTBOX_MAYBE;
	enum mf_err err = settled ? MF_DENIED : item.state == OUTBOX_SENDING ? MF_BUSY : file_to_draft(o, f, item.name);
	outbox_item_finish(&item);
	return err;
}

enum mf_err file_put(struct outgoing *o, struct file *f, const char *name, uint64_t number, unsigned how, uint64_t *ret_id)
{
	bool keep_failed = how & PUT_KEEP_FAILED;
	struct mf_reason why = { "" };
	MF_CLEANUP(mf_free) char *piece = f->broken == MF_TOO_BIG
		? mf_format("it is larger than the server takes: %" PRIu64 " bytes at most", outbox_size_max(o->outbox))
		: f->broken ? mf_format("it was not written whole: %s", mf_err_words(f->broken)) : NULL;
	struct outbox_put what = { .name = name, .keep_failed = keep_failed, .replaces = how & PUT_REPLACES, .held = f->writers || file_lock_of(o, name), .unfit = piece,
		.notify = f->notify, .number = number };
	*ret_id = 0;
	enum mf_err err = f->broken && !keep_failed ? f->broken : file_need_fd(o, f);
	if (err == MF_OK && lseek(f->fd, 0, SEEK_SET) < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK)
		err = outbox_put(o->outbox, f->fd, &what, ret_id, &why);
	char shown[256];
	if (err != MF_OK && err != MF_EXISTS && keep_failed)
		log_warning("outbox/%s is not sent: %s", mf_printable(shown, sizeof shown, name, strlen(name)), why.text[0] ? why.text : mf_err_words(err));
	return err;
}

uint64_t file_size(const struct outgoing *o, const struct file *f)
{
	struct stat st;
	if (f->fd >= 0 ? fstat(f->fd, &st) < 0 : !f->name || fstatat(o->drafts, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return (uint64_t)st.st_size;
}

/* The draft is in the queue now, and nowhere else. */
void file_became(struct outgoing *o, struct file *f, uint64_t id)
{
	struct stat st;
	if (f->fd >= 0 && fstat(f->fd, &st) == 0) {
		f->mtime = st.st_mtim;
		f->has_date = true;
	}
	f->id = id;
	f->dirty = false;
	file_drop_name(o, f);
}

/* Its own name may be taken by one that came into the queue another way. */
enum mf_err file_accept(struct outgoing *o, struct file *f, bool keep_failed)
{
	uint64_t id = 0;
	if (!f->name || name_is_scratch(f->name) || (f->exported && !f->whole) || file_size(o, f) == 0)
		return MF_OK;
	enum mf_err err = file_put(o, f, f->name, f->number, keep_failed ? PUT_KEEP_FAILED : 0, &id);
	for (unsigned n = 2; err == MF_EXISTS && n < TWINS_MAX; n++) {
		MF_CLEANUP(mf_free) char *twin = outbox_twin_name(f->name, n);
		err = file_put(o, f, twin, f->number, keep_failed ? PUT_KEEP_FAILED : 0, &id);
	}
	if (id)
		file_became(o, f, id);
	return err;
}

/* Files of outbox/: open, write, close, rename, remove. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/outgoing_file.h"

/* --- opening and closing ---------------------------------------------------------------------------------------------------------- */

static enum mf_err open_locked(struct outgoing *o, struct file *f, bool writes, bool truncate, int *ret_fd)
{
	enum mf_err err = MF_OK;
	if (writes && !f->name)
		err = file_take_back(o, f);
	else if (!f->name && f->fd < 0)
		err = outbox_open_content(o->outbox, f->id, ret_fd);
	if (err == MF_OK && f->name)
		err = file_need_fd(o, f);
	if (err == MF_OK && writes && truncate) {
		f->whole = false;
		err = ftruncate(f->fd, 0) < 0 ? mf_err_from_errno(errno) : MF_OK;
	}
	return err == MF_NOT_FOUND ? MF_STALE : err;
}

enum mf_err outgoing_open_file(struct outgoing *o, uint64_t number, bool writes, bool truncate, int *ret_fd)
{
	*ret_fd = -1;
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = f ? open_locked(o, f, writes, truncate, ret_fd) : MF_STALE;
	if (err == MF_OK) {
		f->opens++;
		f->writers += writes;
		if (writes && truncate)
			f->broken = MF_OK;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_create(struct outgoing *o, const char *name, uint64_t *ret_number)
{
	struct outbox_item item;
	pthread_mutex_lock(&o->lock);
	enum mf_err err = file_by_name(o, name) ? MF_EXISTS : MF_OK;
	if (err == MF_OK && outbox_item_by_name(o->outbox, name, false, &item) == MF_OK) {
		outbox_item_finish(&item);
		err = MF_EXISTS;
	}
	int fd = err == MF_OK ? openat(o->drafts, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
	if (err == MF_OK && fd < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK) {
		struct file *f = file_add(o, outbox_number(o->outbox));
		f->name = mf_strdup(name);
		f->fd = fd;
		f->opens = f->writers = 1;
		*ret_number = f->number;
		notes_save(o);
		file_lock_changed(o, name);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

void outgoing_written_by(struct outgoing *o, uint64_t number, bool export)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	if (f)
		f->exported = export;
	pthread_mutex_unlock(&o->lock);
}

static void set_closing(struct file *f, bool *closing, bool now)
{
	f->closing += now;
	f->closing -= *closing;
	*closing = now;
}

enum mf_err outgoing_flush(struct outgoing *o, uint64_t number, bool *closing)
{
	enum mf_err err = MF_OK;
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	if (f)
		set_closing(f, closing, true);
	if (f && f->writers <= f->closing) { /* else the message may not be whole yet */
		err = file_accept(o, f, false);
		f->dirty = false;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* Nobody writes it any more: it is accepted, or has been and may go. */
static void settle(struct outgoing *o, struct file *f)
{
	struct outbox_item item;
	f->dirty = false;
	if (f->name)
		(void)file_accept(o, f, true); /* told in failed/, and in the log */
	if (!f->name)
		f->broken = MF_OK;
	if (!f->name && file_item(o, f->id, &item)) {
		file_set_hold(o, f->id, item.name);
		outbox_item_finish(&item);
	}
}

void outgoing_close_file(struct outgoing *o, uint64_t number, bool writes, bool *closing)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	if (f) {
		set_closing(f, closing, false);
		f->opens--;
		f->writers -= writes;
		if (writes && !f->writers)
			settle(o, f);
		file_let_go(o, f);
	}
	pthread_mutex_unlock(&o->lock);
}

/* --- bytes -------------------------------------------------------------------------------------------------------------------------- */

enum mf_err outgoing_read(struct outgoing *o, uint64_t number, uint64_t offset, void *to, size_t size, size_t *ret_len)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = f && f->fd >= 0 ? file_read(f->fd, offset, to, size, ret_len) : MF_STALE;
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* Accepted already, by one who closed: not any more. What was removed meanwhile is written into all the same. */
static enum mf_err begin_change(struct outgoing *o, struct file *f, uint64_t size)
{
	enum mf_err err = f->name || (f->fd >= 0 && !f->id) ? MF_OK : file_take_back(o, f);
	if (err == MF_STALE && f->fd >= 0)
		err = MF_OK;
	uint64_t most = f->name && !name_is_scratch(f->name) ? outbox_size_max(o->outbox) : 0;
	if (err == MF_OK && most && size > most) {
		f->broken = err = MF_TOO_BIG;
	}
	if (err == MF_OK) {
		f->dirty = true;
		f->whole = false;
	}
	return err == MF_OK ? file_need_fd(o, f) : err;
}

enum mf_err outgoing_write(struct outgoing *o, uint64_t number, bool *closing, const void *data, size_t size, uint64_t offset)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = f ? begin_change(o, f, offset + size) : MF_STALE;
	if (f)
		set_closing(f, closing, false);
	if (err == MF_OK && (err = file_write(f->fd, offset, data, size)) != MF_OK)
		f->broken = err;
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_truncate(struct outgoing *o, uint64_t number, uint64_t size)
{
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
	enum mf_err err = f ? begin_change(o, f, size) : MF_STALE;
	if (err == MF_OK && ftruncate(f->fd, (off_t)size) < 0)
		err = mf_err_from_errno(errno);
	if (err == MF_OK && size == 0)
		f->broken = MF_OK;
	if (err == MF_OK && !f->writers) {
		f->dirty = false;
		err = file_accept(o, f, true);
	}
	if (f)
		file_let_go(o, f);
	pthread_mutex_unlock(&o->lock);
	return err;
}

enum mf_err outgoing_set_date(struct outgoing *o, uint64_t number, const struct timespec *mtime)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, *mtime };
	pthread_mutex_lock(&o->lock);
	struct file *f = file_by_number(o, number);
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
	struct file *f = file_by_number(o, number);
	bool failed = f && f->name && (file_need_fd(o, f) != MF_OK || fsync(f->fd) < 0 || fsync(o->drafts) < 0);
	enum mf_err err = !f ? MF_STALE : failed ? mf_err_from_errno(errno) : MF_OK;
	if (f)
		file_let_go(o, f);
	pthread_mutex_unlock(&o->lock);
	return err; /* what is in the queue is on the disk */
}

/* --- names ------------------------------------------------------------------------------------------------------------------------------ */

/* A message in failed/ is forgotten; its error text is another file. */
static enum mf_err forget(struct outgoing *o, const struct outbox_item *item)
{
	struct file *f = file_of_id(o, item->id, NULL);
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
	struct file *f = failed ? NULL : file_by_name(o, name);
	enum mf_err err = f ? MF_OK : outbox_item_by_name(o->outbox, name, failed, &item);
	if (f) {
		file_drop_name(o, f);
		file_let_go(o, f);
	} else if (err == MF_OK) {
		err = failed ? forget(o, &item) : outbox_remove(o->outbox, item.id);
		outbox_item_finish(&item);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

static void drop_draft(struct outgoing *o, const char *name, const struct file *but)
{
	struct file *there = file_by_name(o, name);
	if (there && there != but) {
		file_drop_name(o, there);
		file_let_go(o, there);
	}
}

/* What is being sent, or was maybe, stays. */
static enum mf_err may_make_room(struct outgoing *o, const char *name)
{
	struct outbox_item item;
	if (outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return MF_OK;
	enum outbox_state state = item.state;
	outbox_item_finish(&item);
	return state == OUTBOX_SENDING ? MF_BUSY : state == OUTBOX_MAYBE ? MF_DENIED : MF_OK;
}

/* Only what the queue has under its new name lets go of what had that name. */
static enum mf_err queue_rename(struct outgoing *o, uint64_t id, const char *newname)
{
	enum mf_err err = outbox_rename(o->outbox, id, newname, true);
	if (err == MF_OK)
		drop_draft(o, newname, NULL);
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
	err = name_is_scratch(newname) ? MF_UNSUPPORTED : may_make_room(o, newname);
	if (err != MF_OK)
		return err;
	outbox_hold(o->outbox, id, true, false); /* until it is known whether an editor's lock keeps the name */
	err = outbox_retry(o->outbox, id, newname);
	if (err == MF_DENIED)
		err = MF_INVALID;                /* it was never fit to be sent */
	if (err == MF_OK)
		drop_draft(o, newname, NULL);
	if (outbox_item(o->outbox, id, &item) == MF_OK) {
		file_set_hold(o, id, item.name);
		outbox_item_finish(&item);
	}
	return err;
}

/* An editor's new version takes the place of a file for which it was said of what its sender is to be told. */
static void take_notify(struct outgoing *o, struct file *f, const char *from)
{
	struct outbox_item item;
	const struct file *there = file_by_name(o, from);
	if (f->notify || there == f)
		return;
	if (there) {
		f->notify = there->notify;
	} else if (outbox_item_by_name(o->outbox, from, false, &item) == MF_OK) {
		f->notify = item.notify_asked;
		outbox_item_finish(&item);
	}
}

/* A draft that another has taken the place of: its file is gone with that. */
static void lose_name(struct outgoing *o, struct file *f)
{
	if (!f)
		return;
	if (!name_is_scratch(f->name) && fsync(o->drafts) < 0) /* as in file_drop_name() */
		log_warning("outbox-drafts: %s", strerror(errno));
	free(f->name);
	f->name = NULL;
	file_let_go(o, f);
}

/* What waits under that name goes; MF_BUSY, MF_DENIED: it cannot be taken back */
static enum mf_err take_back_waiting(struct outgoing *o, const char *name)
{
	struct outbox_item item;
	if (outbox_item_by_name(o->outbox, name, false, &item) != MF_OK)
		return MF_OK;
	enum mf_err err = outbox_take_back(o->outbox, item.id, NULL);
	outbox_item_finish(&item);
	return err;
}

/* What has the name makes room when the draft has it: that may fail on a full disk. */
static enum mf_err take_name(struct outgoing *o, const char *name, const char *newname)
{
	if (renameat(o->drafts, name, o->drafts, newname) < 0)
		return mf_err_from_errno(errno);
	enum mf_err err = take_back_waiting(o, newname);
	if (err != MF_OK && renameat(o->drafts, newname, o->drafts, name) < 0)
		log_warning("outbox-drafts: %s", strerror(errno));
	return err;
}

static enum mf_err move_draft(struct outgoing *o, struct file *f, const char *newname)
{
	struct file *there = file_by_name(o, newname);
	enum mf_err err = may_make_room(o, newname);
	if (err == MF_OK)
		err = take_name(o, f->name, newname);
	if (err != MF_OK)
		return err;
	if (there != f)
		lose_name(o, there);
	MF_CLEANUP(mf_free) char *old = f->name;
	f->name = mf_strdup(newname);
	notes_save(o);
	file_lock_changed(o, old);
	file_lock_changed(o, newname);
	return MF_OK;
}

/* Nothing makes room before it is sure that the message can come: what is being sent cannot. */
static enum mf_err rename_queued(struct outgoing *o, const struct outbox_item *item, const char *newname)
{
	struct file *f = file_of_id(o, item->id, NULL);
	struct outbox_item now;
	enum mf_err err;
	if (name_is_scratch(newname)) {
		err = file_take_back(o, f);
		if (err == MF_OK)
			err = move_draft(o, f, newname);
		file_let_go(o, f);
		return err;
	}
	outbox_hold(o->outbox, item->id, true, false); /* it does not begin to be sent meanwhile */
	if (!file_item(o, item->id, &now))
		return MF_NOT_FOUND;
	err = now.state == OUTBOX_SENDING ? MF_BUSY : queue_rename(o, item->id, newname);
	outbox_item_finish(&now);
	file_set_hold(o, item->id, err == MF_OK ? newname : item->name);
	return err;
}

/* A whole file gets a real name. One that cannot be sent keeps its own, beside a copy in failed/; what it would have replaced stays. */
static enum mf_err accept_as(struct outgoing *o, struct file *f, const char *newname)
{
	uint64_t id = 0, copy;
	enum mf_err err = file_put(o, f, newname, f->number, PUT_REPLACES, &id);
	if (err != MF_OK && err != MF_BUSY && err != MF_DENIED)
		(void)file_put(o, f, newname, 0, PUT_KEEP_FAILED, &copy);
	if (err == MF_OK) {
		drop_draft(o, newname, f);
		file_became(o, f, id);
	}
	file_let_go(o, f);
	return err;
}

enum mf_err outgoing_rename(struct outgoing *o, bool from_failed, const char *name, const char *newname)
{
	struct outbox_item item;
	enum mf_err err;
	pthread_mutex_lock(&o->lock);
	struct file *f = from_failed ? NULL : file_by_name(o, name);
	struct file before = f ? *f : (struct file){ 0 };
	if (f) {
		take_notify(o, f, newname);
		f->exported = false;
	}
	if (from_failed) {
		err = rename_failed(o, name, newname);
	} else if (f && !name_is_scratch(newname) && file_size(o, f) && !(f->writers && f->dirty)) {
		err = accept_as(o, f, newname);
	} else if (f) {
		err = move_draft(o, f, newname);
	} else {
		err = outbox_item_by_name(o->outbox, name, false, &item);
		if (err == MF_OK) {
			err = rename_queued(o, &item, newname);
			outbox_item_finish(&item);
		}
	}
	if (f && err != MF_OK) { /* it has its name still */
		f->exported = before.exported;
		f->notify = before.notify;
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

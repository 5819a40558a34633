#include "smtp/outbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "smtp/queue.h"

#define NAME_BYTES_MAX 255
#define STEM_BYTES_MAX 215       /* of a name that gets a number: with that, its ending and the error text's it is no longer than 255 */
#define ANEW_LEAST_S 2
#define CLOSE_GRACE_MS 10000     /* for the answer to a message whose end has left */

/* --- entries ------------------------------------------------------------------------------------------------------- */

const char *outbox_state_word(enum outbox_state state)
{
	static const char *const words[] = { "waiting", "queued", "sending", "retrying", "maybe-sent", "sent", "failed" };
	return words[state];
}

size_t entry_count(const struct entry *e, enum entry_recipient state)
{
	size_t n = 0;
	for (size_t i = 0; i < e->envelope.recipient_count; i++)
		n += e->recipients[i].state == state;
	return n;
}

enum outbox_state entry_state(const struct outbox *o, const struct entry *e, int64_t now_s)
{
	(void)o;
	if (e->sending)
		return OUTBOX_SENDING;
	if (e->mark != MARK_NONE)
		return OUTBOX_MAYBE;
	if (e->unfit)
		return OUTBOX_FAILED;
	if (entry_count(e, RECIPIENT_PENDING))
		return e->due_s <= now_s ? OUTBOX_QUEUED : e->attempts ? OUTBOX_RETRYING : OUTBOX_WAITING;
	return entry_count(e, RECIPIENT_REFUSED) ? OUTBOX_FAILED : OUTBOX_UNFILED; /* its copy may be missing all the same */
}

void entry_say(struct entry *e, const char *reason)
{
	char shown[600];
	free(e->reason);
	e->reason = mf_strdup(mf_printable(shown, sizeof shown, reason ? reason : "", reason ? strlen(reason) : 0));
}

struct entry *outbox_find_locked(struct outbox *o, uint64_t id)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link)
		if (e->id == id)
			return e;
	return NULL;
}

bool entry_is_failed(const struct outbox *o, const struct entry *e)
{
	return entry_state(o, e, clock_wall_s()) == OUTBOX_FAILED;
}

/* shown in the same folder; what is sent and only waits for its copy is in neither */
static struct entry *find_name_locked(const struct outbox *o, const char *name, bool in_failed, const struct entry *but)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link)
		if (e != but && !strcmp(e->name, name) && entry_is_failed(o, e) == in_failed && entry_state(o, e, clock_wall_s()) != OUTBOX_UNFILED)
			return e;
	return NULL;
}

static bool is_taken_locked(const struct outbox *o, const char *name, bool in_failed, const struct entry *but)
{
	return find_name_locked(o, name, in_failed, but) != NULL;
}

static bool is_text_of(const char *text, const char *name)
{
	size_t len = strlen(name);
	return !strncmp(text, name, len) && !strcmp(text + len, OUTBOX_ERROR_SUFFIX);
}

/* In failed/ the error text beside it needs a name as well. */
static bool collides_in_failed_locked(const struct outbox *o, const struct entry *e)
{
	const struct entry *other;
	if (strlen(e->name) + strlen(OUTBOX_ERROR_SUFFIX) > NAME_BYTES_MAX)
		return true;
	TAILQ_FOREACH(other, &o->entries, link)
		if (other != e && entry_is_failed(o, other) && (is_text_of(other->name, e->name) || is_text_of(e->name, other->name)))
			return true;
	return false;
}

char *outbox_twin_name(const char *name, unsigned n)
{
	const char *dot = strrchr(name, '.'), *ending = dot && dot > name && strlen(dot) < 20 ? dot : name + strlen(name);
	size_t stem = (size_t)(ending - name) > STEM_BYTES_MAX ? STEM_BYTES_MAX : (size_t)(ending - name);
	while (stem && stem < (size_t)(ending - name) && (name[stem] & 0xc0) == 0x80)
		stem--; /* no half of a character */
	return mf_format("%.*s-%u%s", (int)stem, name, n, ending);
}

void outbox_free_name_locked(struct outbox *o, struct entry *e)
{
	bool failed = entry_is_failed(o, e);
	MF_CLEANUP(mf_free) char *first = mf_strdup(e->name);
	for (unsigned n = 2; is_taken_locked(o, e->name, failed, e) || (failed && collides_in_failed_locked(o, e)); n++) {
		free(e->name);
		e->name = outbox_twin_name(first, n);
	}
}

void outbox_tell(struct outbox *o, uint64_t id)
{
	for (size_t i = 0; i < o->subscriber_count; i++)
		o->subscribers[i].changed(o->subscribers[i].context, id);
}

void outbox_subscribe(struct outbox *o, outbox_changed *changed, void *context)
{
	if (o->subscriber_count == SUBSCRIBERS_MAX)
		abort();
	o->subscribers[o->subscriber_count].changed = changed;
	o->subscribers[o->subscriber_count++].context = context;
}

static enum mf_err drop_locked(struct outbox *o, struct entry *e)
{
	enum mf_err err = queue_delete(o, e);
	if (err)
		return err;
	TAILQ_REMOVE(&o->entries, e, link);
	entry_free(e);
	return MF_OK;
}

static char **find_sent_locked(struct outbox *o, const char *name)
{
	for (size_t i = 0; i < SENT_MAX; i++)
		if (o->sent_names[i] && !strcmp(o->sent_names[i], name))
			return &o->sent_names[i];
	return NULL;
}

static void remember_sent_locked(struct outbox *o, struct entry *e)
{
	if (!e->left && !find_sent_locked(o, e->name)) {
		char **place = &o->sent_names[o->sent_count++ % SENT_MAX];
		free(*place);
		*place = mf_strdup(e->name);
	}
	e->left = true;
}

/* Another of that name has left unsent since. */
static void forget_sent_locked(struct outbox *o, const char *name)
{
	char **place = find_sent_locked(o, name);
	if (!place)
		return;
	free(*place);
	*place = NULL;
}

/* The same for one that was not sent: whoever waits for it is to know. */
static enum mf_err withdraw_locked(struct outbox *o, struct entry *e)
{
	uint64_t id = e->id;
	bool sent = entry_state(o, e, clock_wall_s()) == OUTBOX_UNFILED;
	if (!sent)
		forget_sent_locked(o, e->name);
	enum mf_err err = drop_locked(o, e);
	if (!err && !sent)
		o->removed[o->removed_count++ % REMOVED_MAX] = id;
	return err;
}

static enum mf_err may_take_back_locked(const struct outbox *o, const struct entry *e)
{
	enum outbox_state state = entry_state(o, e, clock_wall_s());
	bool copying = e->copy == COPY_WANTED || e->copy == COPY_ASKED; /* sent to some, and not in Sent yet */
	if (state == OUTBOX_SENDING || (copying && state != OUTBOX_UNFILED))
		return MF_BUSY;
	return state == OUTBOX_MAYBE || state == OUTBOX_UNFILED || state == OUTBOX_FAILED ? MF_DENIED : MF_OK;
}

bool outbox_finish_locked(struct outbox *o, struct entry *e)
{
	bool copied = e->copy == COPY_NONE || e->copy == COPY_FILED;
	if (e->unfit || e->sending || e->mark != MARK_NONE || entry_count(e, RECIPIENT_PENDING))
		return false;
	if (entry_count(e, RECIPIENT_REFUSED)) {
		outbox_free_name_locked(o, e);
		return false;
	}
	remember_sent_locked(o, e);
	return copied && !drop_locked(o, e); /* what cannot be deleted is settled again at the next start */
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

static const char *from_of(const struct account_config *c)
{
	return c->from ? c->from : c->user ? c->user : "";
}

enum mf_err outbox_check_config(const struct account_config *c, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *own = compose_first_address(from_of(c));
	return own ? MF_OK : mf_fail(why, MF_INVALID, "%s: from is no list of addresses", c->name);
}

enum mf_err outbox_renew_access(struct outbox *o, const struct account_config *c, struct mf_reason *why)
{
	struct tls_context *tls;
	enum mf_err e = tls_context_for(c, &c->smtp, &tls, why);
	if (e)
		return e;
	tls_context_destroy(o->tls);
	o->tls = tls;
	o->access_config = c;
	pthread_mutex_lock(&o->lock);
	credentials_destroy(o->credentials);
	o->credentials = credentials_create(c->user, c->password, c->password_command);
	pthread_mutex_unlock(&o->lock);
	return MF_OK;
}

static bool is_replaced(const struct outbox *o, const struct entry *e)
{
	const struct entry *other;
	TAILQ_FOREACH(other, &o->entries, link)
		if (other->replaces == e->id)
			return !may_take_back_locked(o, e);
	return false;
}

/* What a crash left half done */
static void settle_loaded(struct outbox *o)
{
	struct entry *e, *next;
	for (e = TAILQ_FIRST(&o->entries); e; e = next) {
		next = TAILQ_NEXT(e, link);
		if (is_replaced(o, e) && !withdraw_locked(o, e))
			continue;
		if (e->copy == COPY_WANTED && !o->options.file_copy)
			e->copy = COPY_FILED;
		if (e->mark == MARK_MAYBE && !(e->reason && *e->reason))
			entry_say(e, "the connection, or mailfs, ended before the server had answered: it may have been sent");
		(void)outbox_finish_locked(o, e);
	}
}

static void outbox_free(struct outbox *o)
{
	for (struct entry *e; (e = TAILQ_FIRST(&o->entries));) {
		TAILQ_REMOVE(&o->entries, e, link);
		entry_free(e);
	}
	for (size_t i = 0; i < SENT_MAX; i++)
		free(o->sent_names[i]);
	credentials_destroy(o->credentials);
	tls_context_destroy(o->tls);
	mf_close(&o->folder);
	cancel_finish(&o->cancel);
	pthread_cond_destroy(&o->turned);
	pthread_mutex_destroy(&o->lock);
	free(o->path);
	free(o);
}

enum mf_err outbox_open(const struct outbox_options *options, struct outbox **ret, struct mf_reason *why)
{
	const struct account_config *config = options->config;
	struct outbox *o = MF_NEW(struct outbox);
	pthread_condattr_t attributes;
	o->options = *options;
	o->link.offline = options->offline;
	o->folder = -1;
	o->config = config;
	TAILQ_INIT(&o->entries);
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&o->turned, &attributes);
	pthread_condattr_destroy(&attributes);
	enum mf_err e = cancel_init(&o->cancel) ? MF_OK : mf_fail(why, MF_IO, "out of file descriptors");
	if (!e)
		e = outbox_check_config(config, why);
	if (!e)
		e = outbox_renew_access(o, config, why);
	if (!e)
		e = queue_open_folder(o, why);
	if (!e)
		e = queue_load(o, why);
	if (e) {
		outbox_free(o);
		return e;
	}
	settle_loaded(o);
	*ret = o;
	return MF_OK;
}

void outbox_start(struct outbox *o)
{
	o->has_thread = !pthread_create(&o->thread, NULL, sending_main, o);
	if (!o->has_thread)
		log_error("outbox: no thread can be started, nothing will be sent");
}

static void wait_past_dot_locked(struct outbox *o)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CLOSE_GRACE_MS / 1000;
	while (o->past_dot && !pthread_cond_timedwait(&o->turned, &o->lock, &until))
		;
}

void outbox_close(struct outbox *o)
{
	if (!o)
		return;
	pthread_mutex_lock(&o->lock);
	o->closing = true;
	pthread_cond_broadcast(&o->turned);
	wait_past_dot_locked(o);
	cancel_raise(&o->cancel);
	pthread_mutex_unlock(&o->lock);
	if (o->has_thread)
		pthread_join(o->thread, NULL);
	outbox_free(o);
}

/* --- putting ------------------------------------------------------------------------------------------------------- */

static bool is_name(const char *name)
{
	return *name && strlen(name) <= NAME_BYTES_MAX && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static enum mf_err copy_in(int from, int to, uint64_t *ret_size, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *block = mf_alloc(65536);
	*ret_size = 0;
	for (;;) {
		ssize_t n = read(from, block, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return mf_fail(why, mf_err_from_errno(errno), "the message cannot be read: %s", strerror(errno));
		if (n == 0)
			return MF_OK;
		for (ssize_t done = 0; done < n;) {
			ssize_t w = write(to, block + done, (size_t)(n - done));
			if (w < 0 && errno != EINTR)
				return mf_fail(why, mf_err_from_errno(errno), "the message cannot be kept: %s", strerror(errno));
			done += w > 0 ? w : 0;
		}
		*ret_size += (uint64_t)n;
	}
}

uint64_t outbox_number(struct outbox *o)
{
	pthread_mutex_lock(&o->lock);
	uint64_t number = queue_number_locked(o);
	pthread_mutex_unlock(&o->lock);
	return number;
}

static uint64_t new_id(struct outbox *o)
{
	uint64_t now_us = (uint64_t)clock_wall_ns() / 1000;
	pthread_mutex_lock(&o->lock);
	uint64_t id = now_us > o->last_id ? now_us : o->last_id + 1;
	o->last_id = id;
	pthread_mutex_unlock(&o->lock);
	return id;
}

static int64_t delay_of(const struct outbox *o)
{
	return (o->config->send_delay_ms + 999) / 1000;
}

int64_t outbox_rest_s(const struct outbox *o)
{
	return delay_of(o) > ANEW_LEAST_S ? delay_of(o) : ANEW_LEAST_S;
}

static void fill_entry(struct outbox *o, struct entry *e, const struct outbox_put *put)
{
	int64_t now_s = clock_wall_s();
	e->name = put->name ? mf_strdup(put->name) : mf_format("message-%llx.eml", (unsigned long long)e->id);
	e->number = put->number ? put->number : outbox_number(o);
	e->put_s = e->changed_s = now_s;
	e->due_s = now_s + (put->at_once ? 0 : delay_of(o));
	e->released = put->at_once;
	e->held = put->held;
	e->recipients = mf_alloc_array(e->envelope.recipient_count + 1, sizeof *e->recipients);
	e->notify_asked = put->notify;
	if (put->notify)
		e->envelope.notify = put->notify;
}

/* `original` is written; the prepared file is made beside it. */
static enum mf_err prepare(struct outbox *o, struct entry *e, int original, const struct outbox_put *put, struct mf_reason *why)
{
	struct compose_options options = {
		.from = from_of(o->config), .from_name = put->from_name, .sender = put->sender, .recipients = put->recipients, .fields_too = put->fields_too,
		.locals = put->locals, .now_s = clock_wall_s(), .size_max = outbox_size_max(o),
	};
	MF_CLEANUP(mf_close) int prepared = queue_create_file(o, e->id, "eml");
	if (prepared < 0)
		return mf_fail(why, mf_err_from_errno(errno), "the outbox cannot be written: %s", strerror(errno));
	enum mf_err err = compose(&options, original, prepared, &e->envelope, why);
	if (!err)
		err = queue_name_file(o, e->id, "eml", prepared);
	if (err)
		queue_drop_file(o, e->id, "eml", false);
	return err;
}

/* The one of that name makes room; *ret: NULL if there is none */
static enum mf_err find_room_locked(struct outbox *o, const struct entry *e, const char *name, bool replaces, struct entry **ret)
{
	*ret = find_name_locked(o, name, entry_is_failed(o, e), e);
	return !*ret ? MF_OK : replaces ? may_take_back_locked(o, *ret) : MF_EXISTS;
}

/* What it takes the place of goes behind it: a start that finds both lets that go. */
static enum mf_err insert(struct outbox *o, struct entry *e, bool replaces, uint64_t *ret_replaced)
{
	pthread_mutex_lock(&o->lock);
	struct entry *there = NULL;
	enum mf_err err = e->unfit ? MF_OK : find_room_locked(o, e, e->name, replaces, &there);
	if (!err && e->unfit)
		outbox_free_name_locked(o, e);
	e->replaces = there ? there->id : 0;
	if (!err) {
		err = queue_save(o, e);
		if (!err && there)
			err = withdraw_locked(o, there);
		if (err)
			(void)queue_delete(o, e); /* its name may be there, though not for good */
	}
	if (!err) {
		*ret_replaced = e->replaces;
		TAILQ_INSERT_TAIL(&o->entries, e, link);
		o->woken = true;
		pthread_cond_broadcast(&o->turned);
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

/* Both files and the state. On failure nothing is left, but with keep_failed what the user wrote. */
static enum mf_err store(struct outbox *o, struct entry *e, int original, const struct outbox_put *put, bool *ret_kept, uint64_t *ret_replaced,
                         struct mf_reason *why)
{
	enum mf_err err = put->unfit ? mf_fail(why, MF_TOO_BIG, "%s", put->unfit) : prepare(o, e, original, put, why);
	e->unfit = (err == MF_INVALID || err == MF_TOO_BIG) && put->keep_failed;
	if (err && !e->unfit)
		return err;
	fill_entry(o, e, put);
	if (e->unfit)
		entry_say(e, why->text);
	enum mf_err stored = queue_name_file(o, e->id, "orig", original);
	if (!stored)
		stored = insert(o, e, put->replaces, ret_replaced);
	*ret_kept = !stored;
	if (stored == MF_EXISTS)
		return mf_fail(why, stored, "a message of this name waits already");
	return stored ? mf_fail(why, stored, "the outbox cannot be written: %s", mf_err_words(stored)) : err;
}

enum mf_err outbox_put(struct outbox *o, int fd, const struct outbox_put *put, uint64_t *ret_id, struct mf_reason *why)
{
	struct mf_reason reason = { "" };
	struct entry *e = MF_NEW(struct entry);
	bool kept = false;
	e->id = new_id(o);
	uint64_t id = e->id, replaced = 0;
	if (put->name && !is_name(put->name)) {
		entry_free(e);
		return mf_fail(why, MF_INVALID, "not a file's name");
	}
	MF_CLEANUP(mf_close) int original = queue_create_file(o, id, "orig");
	enum mf_err err = original < 0 ? mf_fail(&reason, mf_err_from_errno(errno), "the outbox cannot be written: %s", strerror(errno)) : MF_OK;
	if (!err)
		err = copy_in(fd, original, &e->original_size, &reason);
	if (!err)
		err = store(o, e, original, put, &kept, &replaced, &reason);
	if (kept) {
		*ret_id = id;
		if (replaced)
			outbox_tell(o, replaced);
		outbox_tell(o, id);
	} else {
		queue_drop_file(o, id, "orig", false);
		queue_drop_file(o, id, "orig", true);
		queue_drop_file(o, id, "eml", true);
		entry_free(e);
	}
	return err ? mf_fail(why, err, "%s", reason.text[0] ? reason.text : mf_err_words(err)) : MF_OK;
}

enum mf_err outbox_open_content(struct outbox *o, uint64_t id, int *ret_fd)
{
	pthread_mutex_lock(&o->lock);
	enum mf_err err = outbox_find_locked(o, id) ? MF_OK : MF_NOT_FOUND;
	int fd = err ? -1 : queue_open_file(o, id, "orig", O_RDONLY);
	if (!err && fd < 0)
		err = mf_err_from_errno(errno);
	pthread_mutex_unlock(&o->lock);
	if (!err)
		*ret_fd = fd;
	return err;
}

/* --- changing ------------------------------------------------------------------------------------------------------ */

enum mf_err outbox_take_back(struct outbox *o, uint64_t id, int *ret_fd)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	enum mf_err err = e ? may_take_back_locked(o, e) : MF_NOT_FOUND;
	int fd = err ? -1 : queue_open_file(o, id, "orig", O_RDWR);
	if (!err && fd < 0)
		err = mf_err_from_errno(errno);
	if (!err)
		err = withdraw_locked(o, e);
	pthread_mutex_unlock(&o->lock);
	if (err) {
		mf_close(&fd);
		return err;
	}
	if (ret_fd)
		*ret_fd = fd;
	else
		mf_close(&fd);
	outbox_tell(o, id);
	return MF_OK;
}

enum mf_err outbox_remove(struct outbox *o, uint64_t id)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	enum mf_err err = !e ? MF_NOT_FOUND : e->sending ? MF_BUSY : MF_OK;
	if (!err)
		err = withdraw_locked(o, e);
	pthread_mutex_unlock(&o->lock);
	if (!err)
		outbox_tell(o, id);
	return err;
}

bool outbox_was_removed(struct outbox *o, uint64_t id)
{
	bool found = false;
	pthread_mutex_lock(&o->lock);
	for (size_t i = 0; i < o->removed_count && i < REMOVED_MAX && !found; i++)
		found = o->removed[i] == id;
	pthread_mutex_unlock(&o->lock);
	return found;
}

bool outbox_was_sent(struct outbox *o, const char *name)
{
	pthread_mutex_lock(&o->lock);
	bool found = find_sent_locked(o, name) != NULL;
	pthread_mutex_unlock(&o->lock);
	return found;
}

static enum mf_err save_locked(struct outbox *o, struct entry *e)
{
	e->changed_s = clock_wall_s();
	return queue_save(o, e);
}

/* What a person changes of an entry is so when it is on the disk, or not at all: *was is as it is before that. */
static void begin_change(const struct entry *e, struct entry *was)
{
	size_t count = e->envelope.recipient_count;
	*was = *e;
	was->name = mf_strdup(e->name);
	was->reason = e->reason ? mf_strdup(e->reason) : NULL;
	was->recipients = mf_alloc_array(count + 1, sizeof *was->recipients);
	if (count)
		memcpy(was->recipients, e->recipients, count * sizeof *was->recipients); /* their texts do not change */
}

/* err: of what had to be done. What was saved in vain may be in its place all the same; where that cannot be undone the log says so. */
static enum mf_err end_change_locked(struct outbox *o, struct entry *e, struct entry *was, enum mf_err err)
{
	struct entry dropped = *was;
	if (err) {
		dropped = *e;
		*e = *was;
		(void)queue_save(o, e);
	}
	free(dropped.name);
	free(dropped.reason);
	free(dropped.recipients);
	return err;
}

/* What has the name makes room. As insert() does it: the new state first */
static enum mf_err save_as_locked(struct outbox *o, struct entry *e, const char *name, bool replaces)
{
	struct entry *there;
	enum mf_err err = find_room_locked(o, e, name, replaces, &there);
	if (err)
		return err;
	free(e->name);
	e->name = mf_strdup(name);
	e->replaces = there ? there->id : 0;
	err = save_locked(o, e);
	return !err && there ? withdraw_locked(o, there) : err;
}

enum mf_err outbox_rename(struct outbox *o, uint64_t id, const char *name, bool replaces)
{
	if (!is_name(name))
		return MF_INVALID;
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id), was;
	enum mf_err err = !e ? MF_NOT_FOUND : e->sending ? MF_BUSY : MF_OK;
	if (!err) {
		begin_change(e, &was);
		err = end_change_locked(o, e, &was, save_as_locked(o, e, name, replaces));
	}
	uint64_t replaced = err ? 0 : e->replaces;
	pthread_mutex_unlock(&o->lock);
	if (replaced)
		outbox_tell(o, replaced);
	if (!err)
		outbox_tell(o, id);
	return err;
}

static void wake_locked(struct outbox *o)
{
	o->woken = true;
	pthread_cond_broadcast(&o->turned);
}

static void rest_locked(const struct outbox *o, struct entry *e)
{
	int64_t until_s = clock_wall_s() + (e->released ? ANEW_LEAST_S : outbox_rest_s(o));
	if (e->due_s < until_s)
		e->due_s = until_s;
}

enum mf_err outbox_set_notify(struct outbox *o, uint64_t id, unsigned notify)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	enum mf_err err = !e ? MF_NOT_FOUND : e->sending ? MF_BUSY : MF_OK;
	if (!err) {
		struct entry was;
		begin_change(e, &was);
		e->envelope.notify = e->notify_asked = notify;
		err = end_change_locked(o, e, &was, save_locked(o, e));
	}
	pthread_mutex_unlock(&o->lock);
	return err;
}

void outbox_hold(struct outbox *o, uint64_t id, bool held, bool anew)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	if (e)
		e->held = held;
	if (e && anew)
		rest_locked(o, e);
	wake_locked(o);
	pthread_mutex_unlock(&o->lock);
}

static void release_locked(struct entry *e, int64_t now_s)
{
	e->released = true;
	if (e->due_s > now_s)
		e->due_s = now_s;
}

/* All who have not surely got it are asked for once more. */
static void begin_again(struct entry *e)
{
	e->mark = MARK_NONE;
	for (size_t i = 0; i < e->envelope.recipient_count; i++)
		if (e->recipients[i].state == RECIPIENT_REFUSED)
			e->recipients[i].state = RECIPIENT_PENDING;
	e->first_s = 0;
	e->attempts = 0;
	entry_say(e, "");
}

/* name: NULL: its own, or one like it */
static enum mf_err retry_locked(struct outbox *o, struct entry *e, const char *name)
{
	int64_t now_s = clock_wall_s();
	enum outbox_state state = entry_state(o, e, now_s);
	if (e->unfit || state == OUTBOX_UNFILED)
		return MF_DENIED;
	if (e->sending)
		return MF_BUSY;
	struct entry was;
	begin_change(e, &was);
	if (state == OUTBOX_FAILED || state == OUTBOX_MAYBE)
		begin_again(e);
	release_locked(e, now_s);
	if (!name)
		outbox_free_name_locked(o, e);
	return end_change_locked(o, e, &was, name ? save_as_locked(o, e, name, true) : save_locked(o, e));
}

enum mf_err outbox_retry(struct outbox *o, uint64_t id, const char *name)
{
	if (name && !is_name(name))
		return MF_INVALID;
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	enum mf_err err = e ? retry_locked(o, e, name) : MF_NOT_FOUND;
	uint64_t replaced = !err && name ? e->replaces : 0;
	if (!err) {
		o->link.next_try_s = 0;
		wake_locked(o);
	}
	pthread_mutex_unlock(&o->lock);
	if (replaced)
		outbox_tell(o, replaced);
	if (!err)
		outbox_tell(o, id);
	return err;
}

/* Nobody is asked for it any more. */
static void take_as_sent(const struct outbox *o, struct entry *e, bool filed)
{
	e->mark = MARK_NONE;
	for (size_t i = 0; i < e->envelope.recipient_count; i++)
		if (e->recipients[i].state == RECIPIENT_PENDING)
			e->recipients[i].state = RECIPIENT_SENT;
	if (e->copy != COPY_FILED)
		e->copy = filed || !o->options.file_copy ? COPY_FILED : COPY_WANTED;
	entry_say(e, "");
}

enum mf_err outbox_settle_sent(struct outbox *o, uint64_t id, bool filed)
{
	pthread_mutex_lock(&o->lock);
	struct entry *e = outbox_find_locked(o, id);
	enum mf_err err = !e ? MF_NOT_FOUND : e->sending ? MF_BUSY : e->mark == MARK_NONE ? MF_DENIED : MF_OK;
	if (!err) {
		struct entry was;
		begin_change(e, &was);
		take_as_sent(o, e, filed);
		err = end_change_locked(o, e, &was, save_locked(o, e));
	}
	if (!err) {
		(void)outbox_finish_locked(o, e);
		wake_locked(o);
	}
	pthread_mutex_unlock(&o->lock);
	if (!err)
		outbox_tell(o, id);
	return err;
}

/* --- when ---------------------------------------------------------------------------------------------------------- */

static void try_link_locked(struct outbox *o, bool by_person)
{
	if (o->link.error == MF_AUTH && !by_person)
		return;
	if (o->link.error == MF_AUTH)
		credentials_accepted(o->credentials); /* its command may be run once more */
	o->link.next_try_s = 0;
	if (by_person)
		o->link.error = MF_OK; /* whoever waits for it hears of this attempt, and not of the last one */
	o->link_delay_s = 0;
	wake_locked(o);
}

void outbox_configure(struct outbox *o, const struct account_config *config)
{
	pthread_mutex_lock(&o->lock);
	o->config = config;
	wake_locked(o);
	pthread_mutex_unlock(&o->lock);
}

void outbox_connected(struct outbox *o)
{
	struct entry *e;
	pthread_mutex_lock(&o->lock);
	TAILQ_FOREACH(e, &o->entries, link) {
		e->released |= o->config->send == SEND_CONNECT;
		e->copy_at_s = 0;
	}
	try_link_locked(o, false);
	pthread_mutex_unlock(&o->lock);
}

void outbox_wake(struct outbox *o, bool by_person)
{
	pthread_mutex_lock(&o->lock);
	try_link_locked(o, by_person);
	pthread_mutex_unlock(&o->lock);
}

void outbox_offline(struct outbox *o, bool offline)
{
	pthread_mutex_lock(&o->lock);
	o->link.offline = offline;
	wake_locked(o);
	pthread_mutex_unlock(&o->lock);
}

void outbox_release(struct outbox *o)
{
	struct entry *e;
	pthread_mutex_lock(&o->lock);
	int64_t now_s = clock_wall_s();
	TAILQ_FOREACH(e, &o->entries, link)
		if (!e->sending)
			release_locked(e, now_s);
	try_link_locked(o, true);
	pthread_mutex_unlock(&o->lock);
}

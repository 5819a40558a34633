/* The bus to the kernel: what changed is forgotten there, so that names and attributes may be kept for long.
 *
 * A cached listing is dropped on the bus's own thread, before anyone else hears of the change: who lists the directory
 * because of an event sees it. The rest goes two lanes, each with its thread: one for attributes, which the kernel drops at
 * once, one for names, which take a directory's lock. None of it is ever run from a handler, and no lock of ours is held. The pages of a message need no word: they never change, and if a size was wrong the kernel drops them
 * when it sees another one.
 *
 * What an unlink(2) took away the kernel forgets by itself when that is answered, and keeps the directory locked until then: it is not told
 * so once more, ten thousand times for one rm(1).
 *
 * Why this is enough against races: a name's reply and its invalidation both go under the kernel's lock of the directory,
 * so a reply from before the change is dropped, not kept; and a listing cached across a change is found out by the
 * directory's mtime, which strictly increases (AUTO_INVAL_DATA). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "control/outboxes.h"
#include "fs/internal.h"

enum { COALESCE = 16, DEFER_MS = 20, SETTLE_MS = 2000 };

enum item_kind { ITEM_NOTHING, ITEM_ATTR, ITEM_DATA, ITEM_NAME };

struct item {
	STAILQ_ENTRY(item) link;
	enum item_kind kind;
	uint64_t ino;
	char name[];             /* ITEM_NAME */
};
STAILQ_HEAD(items, item);

struct lane {
	struct notifier *notifier;
	pthread_mutex_t lock;     /* guards what follows */
	pthread_cond_t wake, settled;
	struct items queue;
	uint64_t put, told;
	struct { uint64_t ino; enum item_kind kind; } recent[COALESCE]; /* the last ones of the queue: bursts say the same again */
	unsigned next_recent;
	bool stopping;
	pthread_t thread;
};

struct notifier {
	struct fs *fs;
	struct lane fast, slow;
	struct bus_subscription *subscription;
	struct outbox_watch *outboxes;   /* of each account */
	bool stopped;
};

struct outbox_watch { struct notifier *notifier; uint8_t account; };

/* --- queues ---------------------------------------------------------------------------------------------------------- */

static bool is_repeated_locked(struct lane *lane, enum item_kind kind, uint64_t ino)
{
	if (kind == ITEM_NAME)
		return false;
	for (size_t i = 0; i < COALESCE; i++)
		if (lane->recent[i].ino == ino && lane->recent[i].kind == kind)
			return true;
	size_t place = lane->next_recent++ % COALESCE;
	lane->recent[place].ino = ino;
	lane->recent[place].kind = kind;
	return false;
}

static void put(struct lane *lane, enum item_kind kind, uint64_t ino, const char *name)
{
	size_t len = name ? strlen(name) + 1 : 0;
	struct item *item = mf_alloc(sizeof *item + len);
	item->kind = kind;
	item->ino = ino;
	if (name)
		memcpy(item->name, name, len);
	pthread_mutex_lock(&lane->lock);
	bool wanted = !lane->stopping && !is_repeated_locked(lane, kind, ino);
	if (wanted) {
		STAILQ_INSERT_TAIL(&lane->queue, item, link);
		lane->put++;
		pthread_cond_signal(&lane->wake);
	}
	pthread_mutex_unlock(&lane->lock);
	if (!wanted)
		free(item);
}

void notifier_attr(struct notifier *n, uint64_t ino)
{
	put(&n->fast, ITEM_ATTR, ino, NULL);
}

void notifier_data(struct notifier *n, uint64_t ino)
{
	put(&n->slow, ITEM_DATA, ino, NULL);
}

/* --- from the bus ---------------------------------------------------------------------------------------------------- */

static uint64_t directory(const struct fs *fs, uint8_t account, uint64_t mailbox)
{
	struct node node = { .kind = mailbox ? NODE_MAILBOX : NODE_ACCOUNT, .account = account, .id = mailbox };
	return fs_ino(fs, &node);
}

/* ENOENT: the kernel does not have it. */
static void complain(int result, uint64_t ino)
{
	if (result != 0 && result != -ENOENT)
		trace(TRACE_FS, "notifying the kernel of %llx: %s", (unsigned long long)ino, strerror(-result));
}

static void list_changed(struct notifier *n, uint8_t account, uint64_t mailbox)
{
	uint64_t ino = directory(n->fs, account, mailbox);
	complain(fuse_lowlevel_notify_inval_inode(n->fs->session, ino, 0, 0), ino);
}

static void name_gone(struct notifier *n, uint8_t account, uint64_t mailbox, const char *name)
{
	if (name)
		put(&n->slow, ITEM_NAME, directory(n->fs, account, mailbox), name);
}

/* Its absence may be remembered only for the names that are asked for everywhere. */
static void name_came(struct notifier *n, uint8_t account, uint64_t mailbox, const char *name)
{
	if (name && probe_name(name))
		name_gone(n, account, mailbox, name);
}

static uint64_t message_ino(const struct fs *fs, uint8_t account, uint64_t id)
{
	return fs_ino(fs, &(struct node){ .kind = NODE_MESSAGE, .account = account, .id = id });
}

static void on_change(void *context, const struct change *c)
{
	struct notifier *n = context;
	uint8_t account;
	if (!fs_account_by_number(n->fs, c->account, &account))
		return;
	switch (c->kind) {
	case CHANGE_MAILBOX_ADDED:
		name_came(n, account, c->parent, c->name);
		list_changed(n, account, c->parent);
		break;
	case CHANGE_MAILBOX_REMOVED:
		name_gone(n, account, c->parent, c->name);
		list_changed(n, account, c->parent);
		break;
	case CHANGE_MAILBOX_RENAMED:
		name_gone(n, account, c->old_parent, c->old_name);
		name_came(n, account, c->parent, c->name);
		list_changed(n, account, c->old_parent);
		list_changed(n, account, c->parent);
		break;
	case CHANGE_MAILBOX_LIST:
		if (!c->asked)
			list_changed(n, account, c->mailbox);
		break;
	case CHANGE_MESSAGE_REMOVED:
		message_removed(n->fs, account, c->message);
		if (!c->asked)
			name_gone(n, account, c->mailbox, c->name);
		break;
	case CHANGE_MESSAGE_MOVED:
		if (c->asked)
			break;
		name_gone(n, account, c->old_mailbox, c->old_name);
		put(&n->fast, ITEM_ATTR, message_ino(n->fs, account, c->message), NULL);
		break;
	case CHANGE_MESSAGE_FLAGS:
		put(&n->fast, ITEM_ATTR, message_ino(n->fs, account, c->message), NULL);
		break;
	case CHANGE_MESSAGE_SIZE:
		atomic_store(&n->fs->accounts[account].sizes_lie, true);
		if (!message_corrects_size(n->fs, account, c->message))
			put(&n->fast, ITEM_ATTR, message_ino(n->fs, account, c->message), NULL);
		break;
	case CHANGE_MAILBOX_RIGHTS:
		put(&n->fast, ITEM_ATTR, directory(n->fs, account, c->mailbox), NULL);
		break;
	case CHANGE_MESSAGE_ADDED:     /* CHANGE_MAILBOX_LIST says enough */
	case CHANGE_LINK:
		break;
	}
}

/* On whatever thread changed it, which may be one of the kernel's requests: nothing waits here. */
static void on_outbox(void *context)
{
	const struct outbox_watch *w = context;
	struct fs *fs = w->notifier->fs;
	queued_changed(fs, w->account);
	for (unsigned part = 0; part <= OUTBOX_FAILURES; part++)
		put(&w->notifier->fast, ITEM_ATTR, fs_ino(fs, &(struct node){ .kind = NODE_OUTBOX, .account = w->account, .part = (uint16_t)part }), NULL);
}

static void watch_outboxes(struct notifier *n)
{
	n->outboxes = mf_alloc_array(n->fs->account_count + 1, sizeof *n->outboxes);
	for (size_t i = 0; i < n->fs->account_count; i++) {
		n->outboxes[i] = (struct outbox_watch){ n, (uint8_t)i };
		outboxes_watch(n->fs->accounts[i].account, on_outbox, &n->outboxes[i]);
	}
}

/* --- to the kernel --------------------------------------------------------------------------------------------------- */

static void tell(const struct fs *fs, const struct item *item)
{
	int result = 0;
	switch (item->kind) {
	case ITEM_NOTHING:
		break;
	case ITEM_ATTR:
		result = fuse_lowlevel_notify_inval_inode(fs->session, item->ino, -1, 0);
		break;
	case ITEM_DATA:
		result = fuse_lowlevel_notify_inval_inode(fs->session, item->ino, 0, 0);
		break;
	case ITEM_NAME:
		result = fuse_lowlevel_notify_inval_entry(fs->session, item->ino, item->name, strlen(item->name));
		break;
	}
	complain(result, item->ino);
}

/* While a LOOKUP in this directory waits for the server, or an RMDIR of it, the kernel holds its lock: who asked for it exclusively would
 * stop every other reader of the directory until then. */
static bool must_wait(struct fs *fs, const struct item *item)
{
	return item->kind == ITEM_NAME && parking_holds(fs->parking, item->ino);
}

static void items_free(struct items *items)
{
	struct item *item;
	while ((item = STAILQ_FIRST(items))) {
		STAILQ_REMOVE_HEAD(items, link);
		free(item);
	}
}

/* With no lock held. What must wait goes to *deferred; returns how many need not. */
static uint64_t tell_all(struct fs *fs, struct items *items, struct items *deferred)
{
	struct item *item;
	uint64_t told = 0;
	while ((item = STAILQ_FIRST(items))) {
		STAILQ_REMOVE_HEAD(items, link);
		if (must_wait(fs, item)) {
			STAILQ_INSERT_TAIL(deferred, item, link);
			continue;
		}
		tell(fs, item);
		free(item);
		told++;
	}
	return told;
}

static struct timespec in_ms(long ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static void wait_for_items_locked(struct lane *lane, bool deferred)
{
	struct timespec until = in_ms(DEFER_MS);
	if (deferred)
		pthread_cond_timedwait(&lane->wake, &lane->lock, &until);
	else
		pthread_cond_wait(&lane->wake, &lane->lock);
}

static void *run_lane(void *context)
{
	struct lane *lane = context;
	struct items deferred = STAILQ_HEAD_INITIALIZER(deferred);
	pthread_mutex_lock(&lane->lock);
	while (!lane->stopping) {
		if (STAILQ_EMPTY(&lane->queue)) {
			wait_for_items_locked(lane, !STAILQ_EMPTY(&deferred));
			if (STAILQ_EMPTY(&lane->queue) && STAILQ_EMPTY(&deferred))
				continue;
		}
		struct items batch = STAILQ_HEAD_INITIALIZER(batch);
		STAILQ_CONCAT(&batch, &deferred);
		STAILQ_CONCAT(&batch, &lane->queue);
		memset(lane->recent, 0, sizeof lane->recent);
		pthread_mutex_unlock(&lane->lock);
		uint64_t told = tell_all(lane->notifier->fs, &batch, &deferred);
		pthread_mutex_lock(&lane->lock);
		lane->told += told;
		pthread_cond_broadcast(&lane->settled);
	}
	pthread_mutex_unlock(&lane->lock);
	items_free(&deferred);
	return NULL;
}

static void lane_settle(struct lane *lane, const struct timespec *until)
{
	pthread_mutex_lock(&lane->lock);
	uint64_t target = lane->put;
	while (lane->told < target && !lane->stopping && pthread_cond_timedwait(&lane->settled, &lane->lock, until) == 0)
		continue;
	pthread_mutex_unlock(&lane->lock);
}

void notifier_settle(struct notifier *n)
{
	struct timespec until = in_ms(SETTLE_MS);
	bus_flush(n->fs->options.bus);
	lane_settle(&n->fast, &until);
	lane_settle(&n->slow, &until);
}

static void lane_start(struct lane *lane, struct notifier *n)
{
	lane->notifier = n;
	STAILQ_INIT(&lane->queue);
	pthread_mutex_init(&lane->lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&lane->wake, &monotonic);
	pthread_cond_init(&lane->settled, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&lane->thread, NULL, run_lane, lane) != 0)
		abort();
}

static void lane_stop(struct lane *lane)
{
	pthread_mutex_lock(&lane->lock);
	lane->stopping = true;
	pthread_cond_signal(&lane->wake);
	pthread_cond_broadcast(&lane->settled);
	pthread_mutex_unlock(&lane->lock);
	pthread_join(lane->thread, NULL);
	items_free(&lane->queue);
}

static void lane_finish(struct lane *lane)
{
	pthread_cond_destroy(&lane->wake);
	pthread_cond_destroy(&lane->settled);
	pthread_mutex_destroy(&lane->lock);
}

struct notifier *notifier_start(struct fs *fs)
{
	struct notifier *n = MF_NEW(struct notifier);
	n->fs = fs;
	lane_start(&n->fast, n);
	lane_start(&n->slow, n);
	if (fs->options.bus)
		n->subscription = bus_subscribe_first(fs->options.bus, on_change, n);
	watch_outboxes(n);
	return n;
}

void notifier_stop(struct notifier *n)
{
	if (n->stopped)
		return;
	n->stopped = true;
	bus_unsubscribe(n->fs->options.bus, n->subscription);
	for (size_t i = 0; i < n->fs->account_count; i++)
		outboxes_watch(n->fs->accounts[i].account, NULL, NULL);
	lane_stop(&n->fast);
	lane_stop(&n->slow);
}

void notifier_destroy(struct notifier *n)
{
	if (!n)
		return;
	notifier_stop(n);
	lane_finish(&n->fast);
	lane_finish(&n->slow);
	free(n->outboxes);
	free(n);
}

/* Listings: loading them, keeping them true, asking them. */
#include <string.h>

#include "base/mem.h"
#include "cache/private.h"

/* A listing being loaded from a snapshot of the database. Commits that come meanwhile leave their changes here; they are
 * applied on top. Since the place is made before the snapshot is taken and changes are whole values, it does not matter
 * whether the snapshot has some of them already. Guarded by the tree lock (writing). */
struct loading {
	struct listing_change *changes;
	size_t count, room;
	bool gone;                     /* the mailbox went meanwhile */
};

static void loading_destroy(struct loading *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->changes[i].name);
	free(l->changes);
	free(l);
}

static void apply_to(struct listing *l, const struct listing_change *change)
{
	switch (change->op) {
	case LISTING_PUT:
		listing_put(l, &change->entry, change->name);
		break;
	case LISTING_REMOVE:
		listing_remove(l, change->entry.id);
		break;
	case LISTING_CLEAR:
		listing_clear(l);
		break;
	}
}

static void account_for(struct cache *c, struct listing *l)
{
	size_t bytes = listing_bytes(l);
	c->listing_bytes += bytes - l->accounted;
	l->accounted = bytes;
}

static void loaded_add(struct cache *c, struct node *n)
{
	if (c->loaded_count == c->loaded_room) {
		c->loaded_room = c->loaded_room ? c->loaded_room * 2 : 16;
		c->loaded = mf_realloc_array(c->loaded, c->loaded_room, sizeof *c->loaded);
	}
	c->loaded[c->loaded_count++] = n;
}

static void drop(struct cache *c, struct node *n)
{
	size_t i = 0;
	while (c->loaded[i] != n)
		i++;
	c->loaded[i] = c->loaded[--c->loaded_count];
	c->listing_bytes -= n->listing->accounted;
	listing_destroy(n->listing);
	n->listing = NULL;
}

void listings_apply(struct cache *c, const struct listing_change *change)
{
	struct node *n = mailboxes_find(&c->table, change->entry.mailbox);
	if (n && n->listing) {
		apply_to(n->listing, change);
		account_for(c, n->listing);
	} else if (n && n->loading) {
		struct loading *l = n->loading;
		if (l->count == l->room) {
			l->room = l->room ? l->room * 2 : 64;
			l->changes = mf_realloc_array(l->changes, l->room, sizeof *l->changes);
		}
		l->changes[l->count] = *change;
		l->changes[l->count++].name = change->name ? mf_strdup(change->name) : NULL;
	}
}

void listings_forget(struct cache *c, struct node *n)
{
	if (n->listing)
		drop(c, n);
	if (n->loading)
		n->loading->gone = true;
	n->loading = NULL;
}

static struct node *least_used(struct cache *c, const struct node *keep)
{
	struct node *oldest = NULL;
	for (size_t i = 0; i < c->loaded_count; i++) {
		struct node *n = c->loaded[i];
		if (n == keep)
			continue;
		if (!oldest || atomic_load(&n->listing->last_use) < atomic_load(&oldest->listing->last_use))
			oldest = n;
	}
	return oldest;
}

void listings_trim(struct cache *c, const struct node *keep)
{
	struct node *n;
	while (c->listing_bytes > c->listing_budget && (n = least_used(c, keep)))
		drop(c, n);
}

/* --- loading ------------------------------------------------------------------------------------------------------------ */

static enum mf_err read_shelf(struct cache *c, uint64_t shelf, struct listing *l)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	sqlite3_stmt *s = db_use(db, SQL_MESSAGE_ON_SHELF);
	sqlite3_bind_int64(s, 1, (int64_t)shelf);
	while ((e = db_step(db, s)) == MF_OK) {
		const char *name = (const char *)sqlite3_column_text(s, 11);
		struct entry entry = { .id = (uint64_t)sqlite3_column_int64(s, 0), .uid = (uint32_t)sqlite3_column_int64(s, 2),
			               .size = (uint64_t)sqlite3_column_int64(s, 3), .size_checked = sqlite3_column_int(s, 4) != 0,
			               .mtime = sqlite3_column_int64(s, 5), .ctime = sqlite3_column_int64(s, 6) };
		if (name)
			listing_load(l, &entry, name);
	}
	cache_reader_done(c, db);
	listing_settle(l);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static void install(struct cache *c, uint64_t mailbox, struct listing *l, const struct loading *loading)
{
	struct node *n = mailboxes_find(&c->table, mailbox);
	n->loading = NULL;
	for (size_t i = 0; i < loading->count; i++)
		apply_to(l, &loading->changes[i]);
	atomic_store(&l->last_use, atomic_fetch_add(&c->clock, 1));
	n->listing = l;
	loaded_add(c, n);
	account_for(c, l);
	listings_trim(c, n);
}

/* One thread loads, the others wait for it. MF_OK: it is worth looking again. */
static enum mf_err load(struct cache *c, uint64_t mailbox)
{
	pthread_rwlock_wrlock(&c->tree);
	struct node *n = mailboxes_find(&c->table, mailbox);
	if (!n || n->listing) {
		pthread_rwlock_unlock(&c->tree);
		return n ? MF_OK : MF_NOT_FOUND;
	}
	if (n->loading) {
		pthread_mutex_lock(&c->load_lock);
		pthread_rwlock_unlock(&c->tree);
		pthread_cond_wait(&c->load_done, &c->load_lock);
		pthread_mutex_unlock(&c->load_lock);
		return MF_OK;
	}
	struct loading *loading = n->loading = MF_NEW(struct loading);
	uint64_t shelf = n->shelf;
	pthread_rwlock_unlock(&c->tree);

	struct listing *l = listing_create(mailbox);
	enum mf_err e = read_shelf(c, shelf, l);

	pthread_rwlock_wrlock(&c->tree);
	if (!loading->gone && !e)
		install(c, mailbox, l, loading);
	else
		listing_destroy(l);
	if (!loading->gone && e)
		mailboxes_find(&c->table, mailbox)->loading = NULL;
	pthread_mutex_lock(&c->load_lock);
	pthread_cond_broadcast(&c->load_done);
	pthread_mutex_unlock(&c->load_lock);
	pthread_rwlock_unlock(&c->tree);
	loading_destroy(loading);
	return e;
}

enum mf_err listings_acquire(struct cache *c, uint64_t mailbox, struct listing **ret)
{
	for (;;) {
		pthread_rwlock_rdlock(&c->tree);
		struct node *n = mailboxes_find(&c->table, mailbox);
		if (n && n->listing) {
			/* a tick for each load is enough to tell old from new, and spares readers a shared line */
			uint64_t now = atomic_load_explicit(&c->clock, memory_order_relaxed);
			if (atomic_load_explicit(&n->listing->last_use, memory_order_relaxed) != now)
				atomic_store_explicit(&n->listing->last_use, now, memory_order_relaxed);
			*ret = n->listing;
			return MF_OK;
		}
		pthread_rwlock_unlock(&c->tree);
		enum mf_err e = n ? load(c, mailbox) : MF_NOT_FOUND;
		if (e)
			return e;
	}
}

void cache_list_ahead(struct cache *c, uint64_t mailbox)
{
	struct listing *l;
	if (listings_acquire(c, mailbox, &l) == MF_OK)
		pthread_rwlock_unlock(&c->tree);
}

/* --- questions ------------------------------------------------------------------------------------------------------------ */

enum mf_err cache_lookup(struct cache *c, uint64_t mailbox, const char *name, struct entry *ret)
{
	struct listing *l;
	enum mf_err e = listings_acquire(c, mailbox, &l);
	if (e)
		return e;
	uint32_t row;
	if (listing_find_name(l, name, &row))
		listing_entry(l, row, ret);
	else
		e = MF_NOT_FOUND;
	pthread_rwlock_unlock(&c->tree);
	return e;
}

enum mf_err cache_list(struct cache *c, uint64_t mailbox, uint64_t after, entry_visitor *visit, void *context)
{
	struct listing *l;
	enum mf_err e = listings_acquire(c, mailbox, &l);
	if (e)
		return e;
	for (uint32_t i = listing_place_after(l, after); i < l->count; i++) {
		struct entry entry;
		listing_entry(l, l->by_id[i], &entry);
		if (!visit(context, &entry, listing_name(l, l->by_id[i])))
			break;
	}
	pthread_rwlock_unlock(&c->tree);
	return MF_OK;
}

/* among what is loaded: a miss costs two comparisons */
static bool find_loaded(struct cache *c, uint64_t message, struct entry *ret)
{
	bool found = false;
	pthread_rwlock_rdlock(&c->tree);
	for (size_t i = 0; i < c->loaded_count && !found; i++) {
		const struct listing *l = c->loaded[i]->listing;
		uint32_t row;
		found = listing_find_id(l, message, &row);
		if (found)
			listing_entry(l, row, ret);
	}
	pthread_rwlock_unlock(&c->tree);
	return found;
}

enum mf_err cache_entry_committed(struct cache *c, uint64_t message, struct entry *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	struct row row;
	sqlite3_stmt *s = db_use(db, SQL_MESSAGE_BY_ID);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	e = db_step(db, s);
	if (!e) {
		row_read(s, &row);
		db_done(s);
	}
	cache_reader_done(c, db);
	if (e)
		return e;
	pthread_rwlock_rdlock(&c->tree);
	const struct node *n = map_get_pointer(&c->table.by_shelf, row.shelf);
	if (n)
		row.entry.mailbox = n->m.id;
	pthread_rwlock_unlock(&c->tree);
	if (!row.entry.mailbox)
		return MF_NOT_FOUND; /* in limbo */
	*ret = row.entry;
	return MF_OK;
}

enum mf_err cache_entry(struct cache *c, uint64_t message, struct entry *ret)
{
	return find_loaded(c, message, ret) ? MF_OK : cache_entry_committed(c, message, ret);
}

/* The order of names is made beside the readers and put in if nothing changed meanwhile. */
static enum mf_err make_name_order(struct cache *c, uint64_t mailbox)
{
	struct listing *l;
	enum mf_err e = listings_acquire(c, mailbox, &l);
	if (e)
		return e;
	uint64_t version = l->version;
	uint32_t *order = l->by_name ? NULL : listing_sort_names(l);
	pthread_rwlock_unlock(&c->tree);
	if (!order)
		return MF_OK;
	pthread_rwlock_wrlock(&c->tree);
	struct node *n = mailboxes_find(&c->table, mailbox);
	if (n && n->listing == l && l->version == version && !l->by_name) {
		listing_use_names(l, order);
		account_for(c, l);
		order = NULL;
	}
	pthread_rwlock_unlock(&c->tree);
	free(order);
	return MF_OK;
}

static void copy_successors(const struct listing *l, uint32_t row, enum listing_order order, size_t max,
                            struct entry *ret, size_t *ret_count)
{
	struct entry self;
	listing_entry(l, row, &self);
	uint32_t at = order == ORDER_NAME ? listing_place_after_name(l, listing_name(l, row)) : listing_place_after(l, self.id);
	const uint32_t *rows = order == ORDER_NAME ? l->by_name : l->by_id;
	size_t count = 0;
	for (; count < max && at < l->count; count++, at++)
		listing_entry(l, rows[at], &ret[count]);
	*ret_count = count;
}

enum mf_err cache_successors(struct cache *c, uint64_t message, enum listing_order order, size_t max,
                             struct entry *ret, size_t *ret_count)
{
	for (int attempt = 0; attempt < 8; attempt++) { /* what goes on meanwhile seldom matters twice */
		struct entry self;
		enum mf_err e = cache_entry(c, message, &self);
		if (e)
			return e;
		struct listing *l;
		e = listings_acquire(c, self.mailbox, &l);
		if (e)
			return e;
		uint32_t row;
		bool here = listing_find_id(l, message, &row), sorted = order == ORDER_ID || l->by_name;
		if (here && sorted)
			copy_successors(l, row, order, max, ret, ret_count);
		pthread_rwlock_unlock(&c->tree);
		if (here && sorted)
			return MF_OK;
		if (here && (e = make_name_order(c, self.mailbox)) != MF_OK)
			return e;
	}
	return MF_NOT_FOUND;
}

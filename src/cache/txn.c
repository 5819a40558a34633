#include "cache/txn.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/spool.h"

/* room for one more in an array of the transaction */
#define FIT(array, count, room) \
	do { \
		if ((count) == (room)) { \
			(room) = (room) ? (room) * 2 : 32; \
			(array) = mf_realloc_array((array), (room), sizeof *(array)); \
		} \
	} while (0)

enum mf_err cache_begin(struct cache *c, struct txn **ret)
{
	pthread_mutex_lock(&c->writer);
	enum mf_err e = db_begin(&c->db);
	if (e) {
		pthread_mutex_unlock(&c->writer);
		return e;
	}
	struct txn *t = MF_NEW(struct txn);
	t->cache = c;
	t->db = &c->db;
	t->now_ns = clock_wall_ns();
	*ret = t;
	return MF_OK;
}

enum mf_err txn_fail(struct txn *t, enum mf_err e)
{
	if (e && !t->failed)
		t->failed = e;
	return e;
}

struct node *txn_node_added(struct txn *t, struct node *n)
{
	FIT(t->nodes, t->node_count, t->node_room);
	t->nodes[t->node_count++] = n;
	map_add_pointer(&t->nodes_by_id, n->m.id, n);
	return n;
}

struct node *txn_node(struct txn *t, uint64_t id)
{
	struct node *n = map_get_pointer(&t->nodes_by_id, id);
	if (n)
		return n->removed ? NULL : n;
	/* only the writer changes the table, and that is us: no lock is needed to read it */
	const struct node *known = mailboxes_find(&t->cache->table, id);
	if (!known)
		return NULL;
	n = MF_NEW(struct node);
	node_copy(n, known);
	return txn_node_added(t, n);
}

void txn_names_changed(struct txn *t, uint64_t mailbox)
{
	if (!mailbox) {
		t->root_names_changed = true;
		return;
	}
	struct node *n = txn_node(t, mailbox);
	if (!n || n->names_changed)
		return;
	n->names_changed = n->dirty = true;
	/* two changes never have one time, whatever the clock does */
	int64_t last = timespec_ns(n->m.mtime);
	n->m.mtime = timespec_from_ns(t->now_ns > last ? t->now_ns : last + 1);
}

void txn_attributes_changed(struct node *n)
{
	n->dirty = true;
}

void txn_listing(struct txn *t, enum listing_op op, const struct entry *e, const char *name)
{
	FIT(t->listing_changes, t->listing_count, t->listing_room);
	t->listing_changes[t->listing_count++] = (struct listing_change){ op, *e, name ? mf_strdup(name) : NULL };
}

void txn_change(struct txn *t, const struct change *change)
{
	if (!t->cache->bus)
		return;
	FIT(t->changes, t->change_count, t->change_room);
	struct change *own = &t->changes[t->change_count++];
	*own = *change;
	own->account = t->cache->account;
	own->name = change->name ? mf_strdup(change->name) : NULL;
	own->old_name = change->old_name ? mf_strdup(change->old_name) : NULL;
	own->asked = t->asked && t->asked == (change->old_mailbox ? change->old_mailbox : change->mailbox);
}

static void change_finish(struct change *change)
{
	free((void *)(uintptr_t)change->name);
	free((void *)(uintptr_t)change->old_name);
	*change = (struct change){ .kind = CHANGE_NONE };
}

void txn_is_asked(struct txn *t, uint64_t mailbox)
{
	t->asked = mailbox;
}

bool txn_change_cancel(struct txn *t, enum change_kind kind, uint64_t message)
{
	for (size_t i = t->change_count; i-- > 0;) {
		if (t->changes[i].kind != kind || t->changes[i].message != message)
			continue;
		change_finish(&t->changes[i]);
		return true;
	}
	return false;
}

void txn_body(struct txn *t, uint64_t message, uint64_t heir)
{
	FIT(t->bodies, t->body_count, t->body_room);
	t->bodies[t->body_count++] = (struct txn_body){ message, heir, false };
}

void txn_body_shared(struct txn *t, uint64_t message, uint64_t other)
{
	txn_body(t, message, other);
	t->bodies[t->body_count - 1].shared = true;
}

/* --- the end ---------------------------------------------------------------------------------------------------------- */

static void txn_free(struct txn *t)
{
	for (size_t i = 0; i < t->node_count; i++) {
		if (!t->nodes[i])
			continue; /* in the table now */
		node_finish(t->nodes[i]);
		free(t->nodes[i]);
	}
	for (size_t i = 0; i < t->listing_count; i++)
		free(t->listing_changes[i].name);
	for (size_t i = 0; i < t->change_count; i++)
		change_finish(&t->changes[i]);
	free(t->nodes);
	free(t->listing_changes);
	free(t->changes);
	free(t->bodies);
	free(t->spools);
	free(t->undos);
	map_finish(&t->nodes_by_id);
	map_finish(&t->awaited.ids);
	map_finish(&t->strays.ids);
	free(t);
}

/* Columns with an index are written only where they change. */
static enum mf_err node_store_name(struct txn *t, const struct node *n)
{
	const struct node *known = mailboxes_find(&t->cache->table, n->m.id);
	if (known && !n->added && known->m.parent == n->m.parent && strcmp(known->m.name, n->m.name) == 0 && strcmp(known->path, n->path) == 0)
		return MF_OK;
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_NAME);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	sqlite3_bind_int64(s, 2, (int64_t)n->m.parent);
	db_bind_text(s, 3, n->m.name);
	db_bind_text(s, 4, n->path);
	return db_run(t->db, s);
}

static enum mf_err node_store(struct txn *t, const struct node *n)
{
	const struct mailbox *m = &n->m;
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_STORE);
	int i = 1;
	sqlite3_bind_int64(s, i++, (int64_t)m->id);
	db_bind_text(s, i++, m->raw);
	sqlite3_bind_int(s, i++, m->delimiter);
	sqlite3_bind_int(s, i++, m->utf8);
	sqlite3_bind_int64(s, i++, m->flags);
	sqlite3_bind_int64(s, i++, m->use);
	sqlite3_bind_int64(s, i++, timespec_ns(m->mtime));
	sqlite3_bind_int64(s, i++, (int64_t)n->shelf);
	sqlite3_bind_int(s, i++, m->complete);
	sqlite3_bind_int64(s, i++, m->uidvalidity);
	sqlite3_bind_int64(s, i++, m->uidnext);
	sqlite3_bind_int64(s, i++, m->total);
	sqlite3_bind_int64(s, i++, m->unseen);
	sqlite3_bind_int64(s, i++, (int64_t)m->modseq);
	sqlite3_bind_int64(s, i++, m->first_uid);
	sqlite3_bind_int64(s, i++, m->server_uidvalidity);
	sqlite3_bind_int64(s, i++, m->server_uidnext);
	sqlite3_bind_int64(s, i++, m->server_messages);
	sqlite3_bind_int64(s, i++, m->server_unseen);
	sqlite3_bind_int64(s, i++, (int64_t)m->server_modseq);
	sqlite3_bind_int(s, i++, m->sync);
	sqlite3_bind_int64(s, i++, (int64_t)m->append_limit);
	sqlite3_bind_int64(s, i++, m->rights);
	db_bind_text(s, i, m->object_id);
	enum mf_err e = db_run(t->db, s);
	return e ? e : node_store_name(t, n);
}

static enum mf_err store_rest(struct txn *t, struct timespec *ret_root_mtime)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < t->node_count && !e; i++)
		if (t->nodes[i]->dirty && !t->nodes[i]->removed)
			e = node_store(t, t->nodes[i]);
	int64_t last = timespec_ns(*ret_root_mtime);
	if (!e && t->root_names_changed) {
		*ret_root_mtime = timespec_from_ns(t->now_ns > last ? t->now_ns : last + 1);
		e = meta_set_number(t->db, "root_mtime", timespec_ns(*ret_root_mtime));
	}
	if (!e && t->swept && !atomic_load(&t->cache->listed))
		e = meta_set_number(t->db, "listed", 1);
	return e;
}

/* The mailbox as the transaction leaves it takes its place in the table, with the listing of the one before. */
static void apply_node(struct cache *c, struct node **place)
{
	struct node *n = *place, *old = mailboxes_find(&c->table, n->m.id);
	if (!n->removed && !n->dirty)
		return;
	if (old)
		mailboxes_detach(&c->table, old);
	if (old && n->removed)
		listings_forget(c, old);
	if (n->removed) {
		if (old) {
			node_finish(old);
			free(old);
		}
		return;
	}
	if (old) {
		/* the address stays: others point to it */
		node_finish(old);
		free(n->old_name);
		old->m = n->m;
		old->path = n->path;
		old->shelf = n->shelf;
		free(n);
		n = old;
	}
	*n = (struct node){ .m = n->m, .path = n->path, .shelf = n->shelf, .listing = n->listing, .loading = n->loading };
	mailboxes_add(&c->table, n);
	*place = NULL;
}

static bool permits_otherwise(const struct node *before, const struct node *n)
{
	return before && (before->m.rights != n->m.rights || ((before->m.flags ^ n->m.flags) & CACHE_MAILBOX_READONLY));
}

static void publish_node(struct txn *t, const struct node *n)
{
	struct change change = { .account = t->cache->account, .mailbox = n->m.id, .parent = n->m.parent };
	if (!n->removed && n->names_changed && !n->added) {
		change.kind = CHANGE_MAILBOX_LIST;
		txn_change(t, &change);
	}
	if (!n->removed && n->old_name && !n->added) {
		change.kind = CHANGE_MAILBOX_RENAMED;
		change.name = n->m.name;
		change.old_name = n->old_name;
		change.old_parent = n->old_parent;
		txn_change(t, &change);
		change.name = change.old_name = NULL;
	}
	if (!n->removed && !n->added && permits_otherwise(mailboxes_find(&t->cache->table, n->m.id), n)) {
		change.kind = CHANGE_MAILBOX_RIGHTS;
		txn_change(t, &change);
	}
}

/* Lists before names: who hears of a name and lists its mailbox must not be shown the list that the kernel has kept until then. */
static void publish(struct txn *t)
{
	MF_CLEANUP(mf_free) struct change *told = mf_alloc_array(t->change_count + 1, sizeof *told);
	size_t count = 0;
	for (int lists = 1; lists >= 0; lists--)
		for (size_t i = 0; i < t->change_count; i++)
			if (t->changes[i].kind != CHANGE_NONE && (t->changes[i].kind == CHANGE_MAILBOX_LIST) == lists)
				told[count++] = t->changes[i];
	bus_publish_all(t->cache->bus, told, count);
}

static void apply(struct txn *t, struct timespec root_mtime)
{
	struct cache *c = t->cache;
	pthread_rwlock_wrlock(&c->tree);
	for (size_t i = 0; i < t->node_count; i++)
		apply_node(c, &t->nodes[i]);
	for (size_t i = 0; i < t->listing_count; i++)
		listings_apply(c, &t->listing_changes[i]);
	listings_trim(c, NULL);
	c->table.root_mtime = root_mtime;
	pthread_rwlock_unlock(&c->tree);
	if (t->swept)
		atomic_store(&c->listed, true);
}

void txn_spool(struct txn *t, uint64_t message, enum spool_fate fate)
{
	FIT(t->spools, t->spool_count, t->spool_room);
	t->spools[t->spool_count++] = (struct txn_spool){ message, fate };
}

void txn_undo(struct txn *t, uint64_t message, uint64_t from, bool over)
{
	FIT(t->undos, t->undo_count, t->undo_room);
	t->undos[t->undo_count++] = (struct txn_undo){ message, from, over };
}

static void settle_spools(struct txn *t)
{
	for (size_t i = 0; i < t->spool_count; i++) {
		if (t->spools[i].fate == SPOOL_IS_BODY)
			spool_to_body(t->cache, t->spools[i].message);
		else
			spool_remove(t->cache, t->spools[i].message);
	}
}

static void settle_bodies(struct txn *t)
{
	for (size_t i = 0; i < t->body_count; i++) {
		if (t->bodies[i].shared)
			bodies_share(t->cache, t->bodies[i].message, t->bodies[i].heir);
		else if (t->bodies[i].heir)
			bodies_adopt(t->cache, t->bodies[i].message, t->bodies[i].heir);
		else
			cache_body_drop(t->cache, t->bodies[i].message);
	}
}

void txn_rollback(struct txn *t)
{
	if (!t)
		return;
	struct cache *c = t->cache;
	enum mf_err e = db_rollback(&c->db);
	if (e)
		log_error("%s: rolling back: %s", c->db_path, mf_err_words(e));
	spool_settle_undos(t, true); /* ids that were given in vain are given again: nothing may lie under them */
	/* made again from what the database holds */
	limbo_finish(&c->limbo);
	c->held_shelf = 0;
	pthread_mutex_unlock(&c->writer);
	txn_free(t);
}

enum mf_err txn_commit(struct txn *t)
{
	struct cache *c = t->cache;
	struct timespec root_mtime = c->table.root_mtime;
	enum mf_err e = t->failed;
	if (!e)
		e = store_rest(t, &root_mtime);
	if (!e)
		e = db_commit(&c->db);
	if (e) {
		txn_rollback(t);
		return e;
	}
	/* before the next transaction, which may have other bytes for one of these messages */
	settle_bodies(t);
	settle_spools(t);
	for (size_t i = 0; i < t->node_count; i++)
		publish_node(t, t->nodes[i]);
	if (t->root_names_changed)
		txn_change(t, &(struct change){ .kind = CHANGE_MAILBOX_LIST });
	apply(t, root_mtime);
	publish(t); /* under the writer lock: in the order of the commits */
	keeper_committed(c);
	atomic_fetch_add(&c->op_count, (uint64_t)t->op_change);
	spool_settle_undos(t, false);
	pthread_mutex_unlock(&c->writer);
	txn_free(t);
	return MF_OK;
}

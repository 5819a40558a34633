/* Mailboxes: all of them are kept in memory, since there are thousands at most and every path goes through them. */
#include <string.h>

#include "base/mem.h"
#include "cache/private.h"

int64_t timespec_ns(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

struct timespec timespec_from_ns(int64_t ns)
{
	int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
	if (rest < 0) {
		seconds--;
		rest += 1000000000;
	}
	return (struct timespec){ .tv_sec = (time_t)seconds, .tv_nsec = (long)rest };
}

void mailbox_finish(struct mailbox *m)
{
	free(m->name);
	free(m->raw);
	free(m->object_id);
	*m = (struct mailbox){ 0 };
}

bool mailbox_permits(const struct mailbox *m, const char *rights)
{
	for (; *rights; rights++)
		if ((m->rights && !(m->rights & 1U << (*rights - 'a'))) || ((m->flags & CACHE_MAILBOX_READONLY) && strchr("swite", *rights)))
			return false;
	return true;
}

static void mailbox_copy(struct mailbox *to, const struct mailbox *from)
{
	*to = *from;
	to->name = mf_strdup(from->name);
	to->raw = from->raw ? mf_strdup(from->raw) : NULL;
	to->object_id = from->object_id ? mf_strdup(from->object_id) : NULL;
}

void node_finish(struct node *n)
{
	mailbox_finish(&n->m);
	free(n->path);
	free(n->old_name);
	n->path = n->old_name = NULL;
}

void node_copy(struct node *to, const struct node *from)
{
	*to = (struct node){ .path = mf_strdup(from->path), .shelf = from->shelf };
	mailbox_copy(&to->m, &from->m);
}

/* --- the table -------------------------------------------------------------------------------------------------------- */

uint64_t name_key(uint64_t parent, const char *name)
{
	return hash_bytes(name, strlen(name)) ^ parent * 0x9e3779b97f4a7c15U;
}

static uint64_t path_key(const char *path)
{
	return hash_bytes(path, strlen(path));
}

struct node *mailboxes_find(const struct table *t, uint64_t id)
{
	return map_get_pointer(&t->by_id, id);
}

struct node *mailboxes_next(const struct table *t, uint32_t *at)
{
	struct node *n = NULL;
	while (!n && *at < t->by_id.used)
		n = (struct node *)(uintptr_t)t->by_id.entries[++*at].value;
	return n;
}

void mailboxes_add(struct table *t, struct node *n)
{
	map_add_pointer(&t->by_id, n->m.id, n);
	map_add_pointer(&t->by_shelf, n->shelf, n);
	map_add_pointer(&t->by_parent, n->m.parent, n);
	map_add_pointer(&t->by_path, path_key(n->path), n);
	map_add_pointer(&t->by_name, name_key(n->m.parent, n->m.name), n);
}

void mailboxes_detach(struct table *t, struct node *n)
{
	map_remove_pointer(&t->by_id, n->m.id, n);
	map_remove_pointer(&t->by_shelf, n->shelf, n);
	map_remove_pointer(&t->by_parent, n->m.parent, n);
	map_remove_pointer(&t->by_path, path_key(n->path), n);
	map_remove_pointer(&t->by_name, name_key(n->m.parent, n->m.name), n);
}

void mailboxes_finish(struct table *t)
{
	struct node *n;
	for (uint32_t at = 0; (n = mailboxes_next(t, &at));) {
		listing_destroy(n->listing);
		node_finish(n);
		free(n);
	}
	map_finish(&t->by_id);
	map_finish(&t->by_shelf);
	map_finish(&t->by_parent);
	map_finish(&t->by_path);
	map_finish(&t->by_name);
}

static struct node *node_read(sqlite3_stmt *s)
{
	struct node *n = MF_NEW(struct node);
	struct mailbox *m = &n->m;
	int i = 0;
	m->id = (uint64_t)sqlite3_column_int64(s, i++);
	m->parent = (uint64_t)sqlite3_column_int64(s, i++);
	m->name = db_text(s, i++);
	n->path = db_text(s, i++);
	m->raw = db_text(s, i++);
	m->delimiter = (char)sqlite3_column_int(s, i++);
	m->utf8 = sqlite3_column_int(s, i++) != 0;
	m->flags = (unsigned)sqlite3_column_int64(s, i++);
	m->use = (unsigned)sqlite3_column_int64(s, i++);
	m->mtime = timespec_from_ns(sqlite3_column_int64(s, i++));
	n->shelf = (uint64_t)sqlite3_column_int64(s, i++);
	m->complete = sqlite3_column_int(s, i++) != 0;
	m->uidvalidity = (uint32_t)sqlite3_column_int64(s, i++);
	m->uidnext = (uint32_t)sqlite3_column_int64(s, i++);
	m->total = (uint32_t)sqlite3_column_int64(s, i++);
	m->unseen = (uint32_t)sqlite3_column_int64(s, i++);
	m->modseq = (uint64_t)sqlite3_column_int64(s, i++);
	m->first_uid = (uint32_t)sqlite3_column_int64(s, i++);
	m->server_uidvalidity = (uint32_t)sqlite3_column_int64(s, i++);
	m->server_uidnext = (uint32_t)sqlite3_column_int64(s, i++);
	m->server_messages = (uint32_t)sqlite3_column_int64(s, i++);
	m->server_unseen = (uint32_t)sqlite3_column_int64(s, i++);
	m->server_modseq = (uint64_t)sqlite3_column_int64(s, i++);
	m->sync = sqlite3_column_int(s, i++);
	m->append_limit = (uint64_t)sqlite3_column_int64(s, i++);
	m->rights = (unsigned)sqlite3_column_int64(s, i++);
	m->object_id = db_text(s, i++);
	return n;
}

enum mf_err mailboxes_load(struct cache *c)
{
	sqlite3_stmt *s = db_use(&c->db, SQL_MAILBOX_ALL);
	enum mf_err e;
	while ((e = db_step(&c->db, s)) == MF_OK) {
		struct node *n = node_read(s);
		if (n->m.name && n->path) {
			mailboxes_add(&c->table, n);
			continue;
		}
		node_finish(n); /* NOT NULL columns: only a damaged file gives this */
		free(n);
		db_done(s);
		return MF_CORRUPT;
	}
	int64_t mtime = 0;
	if (e == MF_NOT_FOUND)
		e = meta_number(&c->db, "root_mtime", &mtime);
	c->table.root_mtime = timespec_from_ns(mtime);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* --- questions --------------------------------------------------------------------------------------------------------- */

static enum mf_err copy_out(const struct node *n, struct mailbox *ret)
{
	if (!n)
		return MF_NOT_FOUND;
	mailbox_copy(ret, &n->m);
	return MF_OK;
}

enum mf_err cache_mailbox(struct cache *c, uint64_t id, struct mailbox *ret)
{
	pthread_rwlock_rdlock(&c->tree);
	enum mf_err e = copy_out(mailboxes_find(&c->table, id), ret);
	pthread_rwlock_unlock(&c->tree);
	return e;
}

static const struct node *find_name(const struct table *t, uint64_t parent, const char *name)
{
	for (uint32_t at = map_first(&t->by_name, name_key(parent, name)); at; at = map_next(&t->by_name, at)) {
		const struct node *n = (const struct node *)(uintptr_t)t->by_name.entries[at].value;
		if (n->m.parent == parent && !strcmp(n->m.name, name))
			return n;
	}
	return NULL;
}

enum mf_err cache_mailbox_by_name(struct cache *c, uint64_t parent, const char *name, struct mailbox *ret)
{
	pthread_rwlock_rdlock(&c->tree);
	enum mf_err e = copy_out(find_name(&c->table, parent, name), ret);
	pthread_rwlock_unlock(&c->tree);
	return e;
}

/* raw names that differ in the case of INBOX are one mailbox, so it is found by what the server said last */
static const struct node *find_raw(const struct table *t, const char *raw)
{
	for (uint32_t at = map_first(&t->by_path, path_key(raw)); at; at = map_next(&t->by_path, at)) {
		const struct node *said = (const struct node *)(uintptr_t)t->by_path.entries[at].value;
		if (said->m.raw && !strcmp(said->m.raw, raw))
			return said;
	}
	const struct node *n;
	for (uint32_t at = 0; (n = mailboxes_next(t, &at));)
		if (n->m.raw && !strcmp(n->m.raw, raw))
			break;
	return n;
}

enum mf_err cache_mailbox_by_raw(struct cache *c, const char *raw, struct mailbox *ret)
{
	pthread_rwlock_rdlock(&c->tree);
	enum mf_err e = copy_out(find_raw(&c->table, raw), ret);
	pthread_rwlock_unlock(&c->tree);
	return e;
}

struct id_list { uint64_t *ids; size_t count, room; };

static void id_list_add(struct id_list *l, uint64_t id)
{
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->ids = mf_realloc_array(l->ids, l->room, sizeof *l->ids);
	}
	l->ids[l->count++] = id;
}

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Each is copied when its turn comes, with no lock held over the visit. One that went meanwhile is left out. */
static void visit_all(struct cache *c, struct id_list *l, mailbox_visitor *visit, void *context)
{
	bool more = true;
	for (size_t i = 0; i < l->count && more; i++) {
		struct mailbox m;
		if (cache_mailbox(c, l->ids[i], &m))
			continue;
		more = visit(context, &m);
		mailbox_finish(&m);
	}
	free(l->ids);
}

enum mf_err cache_mailbox_children(struct cache *c, uint64_t parent, uint64_t after, mailbox_visitor *visit, void *context)
{
	struct id_list l = { 0 };
	pthread_rwlock_rdlock(&c->tree);
	const struct map *children = &c->table.by_parent;
	bool known = parent == 0 || mailboxes_find(&c->table, parent);
	for (uint32_t at = map_first(children, parent); at; at = map_next(children, at)) {
		uint64_t id = ((const struct node *)(uintptr_t)children->entries[at].value)->m.id;
		if (id > after)
			id_list_add(&l, id);
	}
	pthread_rwlock_unlock(&c->tree);
	if (l.count)
		qsort(l.ids, l.count, sizeof *l.ids, compare_ids);
	visit_all(c, &l, visit, context);
	return known ? MF_OK : MF_NOT_FOUND;
}

/* breadth first: what is in the list already is gone through for children */
enum mf_err cache_mailboxes(struct cache *c, mailbox_visitor *visit, void *context)
{
	struct id_list l = { 0 };
	pthread_rwlock_rdlock(&c->tree);
	const struct map *children = &c->table.by_parent;
	uint64_t parent = 0;
	for (size_t next = 0;;) {
		size_t first = l.count;
		for (uint32_t at = map_first(children, parent); at; at = map_next(children, at))
			id_list_add(&l, ((const struct node *)(uintptr_t)children->entries[at].value)->m.id);
		if (l.count > first)
			qsort(l.ids + first, l.count - first, sizeof *l.ids, compare_ids);
		if (next == l.count)
			break;
		parent = l.ids[next++];
	}
	pthread_rwlock_unlock(&c->tree);
	visit_all(c, &l, visit, context);
	return MF_OK;
}

static size_t path_length(const struct table *t, const struct node *n)
{
	size_t len = 0;
	for (; n; n = mailboxes_find(t, n->m.parent))
		len += strlen(n->m.name) + 1;
	return len;
}

char *cache_mailbox_path(struct cache *c, uint64_t id)
{
	char *path = NULL;
	pthread_rwlock_rdlock(&c->tree);
	const struct node *n = mailboxes_find(&c->table, id);
	if (n) {
		size_t at = path_length(&c->table, n);
		path = mf_alloc(at);
		for (; n; n = mailboxes_find(&c->table, n->m.parent)) {
			size_t len = strlen(n->m.name);
			at -= len + 1;
			memcpy(path + at, n->m.name, len);
			if (at)
				path[at - 1] = '/';
		}
	}
	pthread_rwlock_unlock(&c->tree);
	return path;
}

enum mf_err cache_mailbox_by_path(struct cache *c, const char *path, struct mailbox *ret)
{
	const struct node *n = NULL;
	pthread_rwlock_rdlock(&c->tree);
	while (*path) {
		size_t len = strcspn(path, "/");
		char name[NAME_MAX_BYTES + 1];
		if (len >= sizeof name) {
			n = NULL;
			break;
		}
		memcpy(name, path, len);
		name[len] = 0;
		n = find_name(&c->table, n ? n->m.id : 0, name);
		if (!n)
			break;
		path += len + (path[len] == '/');
	}
	enum mf_err e = copy_out(n, ret);
	pthread_rwlock_unlock(&c->tree);
	return e;
}

void cache_root_mtime(struct cache *c, struct timespec *ret)
{
	pthread_rwlock_rdlock(&c->tree);
	*ret = c->table.root_mtime;
	pthread_rwlock_unlock(&c->tree);
}

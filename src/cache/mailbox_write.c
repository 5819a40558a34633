/* Mailboxes: what a transaction does to them. */
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "cache/txn.h"
#include "mail/name.h"

#define RAW_MAX 4096
#define LEVELS_MAX 100
#define MAILBOXES_MAX 100000

/* --- what LIST said ------------------------------------------------------------------------------------------------------ */

char *mailbox_path_of(const struct mailbox_said *said)
{
	char *path = mf_strdup(said->raw);
	size_t len = strlen(path);
	if (said->delimiter && len > 1 && path[len - 1] == said->delimiter)
		path[--len] = 0;
	char end = len >= 5 ? path[5] : 'x';
	if (!strncasecmp(path, "INBOX", 5) && (!end || (said->delimiter && end == said->delimiter)))
		memcpy(path, "INBOX", 5);
	return path;
}

static size_t count_levels(const char *path, char delimiter)
{
	size_t levels = 1;
	for (const char *p = path; delimiter && (p = strchr(p, delimiter)); p++)
		levels++;
	return levels;
}

bool mailbox_can_be_called(const char *raw, char delimiter)
{
	MF_CLEANUP(mf_free) char *path = mailbox_path_of(&(struct mailbox_said){ .raw = raw, .delimiter = delimiter });
	return *path && strlen(raw) <= RAW_MAX && count_levels(path, delimiter) <= LEVELS_MAX;
}

enum mf_err mailbox_find_path(struct txn *t, const char *path, struct node **ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_BY_PATH);
	db_bind_text(s, 1, path);
	enum mf_err e = db_step(t->db, s);
	if (e)
		return e;
	uint64_t id = (uint64_t)sqlite3_column_int64(s, 0);
	db_done(s);
	struct node *n = txn_node(t, id);
	if (!n)
		return MF_CORRUPT;
	*ret = n;
	return MF_OK;
}

static enum mf_err add_row(struct txn *t, struct node *n)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MAILBOX_ADD);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.parent);
	db_bind_text(s, 2, n->m.name);
	db_bind_text(s, 3, n->path);
	if (n->m.id)
		sqlite3_bind_int64(s, 4, (int64_t)n->m.id);
	else
		sqlite3_bind_null(s, 4);
	enum mf_err e = db_run(t->db, s);
	if (e)
		return e;
	n->m.id = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	return n->m.id > ROW_ID_MAX ? MF_TOO_BIG : shelf_add(t, n->m.id, false, &n->shelf);
}

/* m.name is only read. id 0: a new one */
static enum mf_err add_node(struct txn *t, const struct mailbox *m, const char *path, struct node **ret)
{
	struct node *n = MF_NEW(struct node);
	n->m = *m;
	n->m.name = mf_strdup(m->name);
	n->m.raw = n->m.object_id = NULL;
	n->m.mtime = timespec_from_ns(t->now_ns);
	n->m.sync = -1;
	n->path = mf_strdup(path);
	n->added = n->dirty = true;
	enum mf_err e = add_row(t, n);
	if (e) {
		node_finish(n);
		free(n);
		return e;
	}
	*ret = txn_node_added(t, n);
	txn_names_changed(t, m->parent);
	txn_change(t, &(struct change){ .kind = CHANGE_MAILBOX_ADDED, .mailbox = n->m.id, .parent = m->parent, .name = n->m.name });
	return MF_OK;
}

/* path is the whole path of the level to be made, and level its last part */
static enum mf_err add_level(struct txn *t, uint64_t parent, const char *path, const char *level,
                             const struct mailbox_said *said, struct node **ret)
{
	char wish[MAILBOX_NAME_MAX + 1], name[NAME_MAX_BYTES + 1];
	mailbox_level_to_name(level, strlen(level), said->utf8, parent == 0, wish);
	enum mf_err e = name_for_mailbox(t, parent, wish, name);
	if (e)
		return e;
	return add_node(t, &(struct mailbox){ .parent = parent, .name = name, .delimiter = said->delimiter, .utf8 = said->utf8 }, path, ret);
}

enum mf_err mailbox_add_again(struct txn *t, const struct op *removal, const struct mailbox *like)
{
	char name[NAME_MAX_BYTES + 1];
	enum mf_err e = name_for_mailbox(t, removal->parent, removal->name, name);
	if (e)
		return e;
	struct mailbox m = { .id = removal->mailbox, .parent = removal->parent, .name = name, .delimiter = like->delimiter, .utf8 = like->utf8,
		.flags = removal->flags, .uidvalidity = removal->uidvalidity };
	struct node *n;
	e = add_node(t, &m, removal->raw, &n);
	if (!e)
		n->m.raw = mf_strdup(removal->raw);
	return e;
}

enum mf_err mailbox_add_local(struct txn *t, uint64_t parent, const char *path, const char *level, const struct mailbox *like, struct node **ret)
{
	struct mailbox_said said = { .delimiter = like->delimiter, .utf8 = like->utf8 };
	enum mf_err e = add_level(t, parent, path, level, &said, ret);
	if (!e)
		(*ret)->m.flags = CACHE_MAILBOX_LOCAL | CACHE_MAILBOX_SUBSCRIBED;
	if (!e)
		(*ret)->m.append_limit = like->append_limit;
	return e;
}

enum mf_err mailbox_need_path(struct txn *t, char *path, const struct mailbox_said *said, struct node **ret)
{
	enum mf_err e = mailbox_find_path(t, path, ret);
	if (e != MF_NOT_FOUND)
		return e;
	/* the levels that exist already end at the first cut that is found */
	struct node *above = NULL;
	char *cut = said->delimiter ? strrchr(path, said->delimiter) : NULL;
	while (cut) {
		*cut = 0;
		e = mailbox_find_path(t, path, &above);
		*cut = said->delimiter;
		if (!e)
			break;
		if (e != MF_NOT_FOUND)
			return e;
		char *before = memrchr(path, said->delimiter, (size_t)(cut - path));
		cut = before;
	}
	char *level = cut ? cut + 1 : path;
	for (;;) {
		char *end = said->delimiter ? strchr(level, said->delimiter) : NULL;
		if (end)
			*end = 0;
		e = add_level(t, above ? above->m.id : 0, path, level, said, &above);
		if (end)
			*end = said->delimiter;
		if (e || !end)
			break;
		level = end + 1;
	}
	if (!e)
		*ret = above;
	return e;
}

static bool set_raw(struct mailbox *m, const struct mailbox_said *said, bool said_before)
{
	/* said twice, once with a delimiter at its end: that one is the lesser */
	size_t len = strlen(said->raw);
	if (m->raw && said_before && len && said->raw[len - 1] == said->delimiter)
		return false;
	if (m->raw && !strcmp(m->raw, said->raw))
		return false;
	free(m->raw);
	m->raw = mf_strdup(said->raw);
	return true;
}

static bool set_object_id(struct mailbox *m, const char *id)
{
	if (!id || (m->object_id && !strcmp(m->object_id, id)))
		return false;
	free(m->object_id);
	m->object_id = mf_strdup(id);
	return true;
}

#define UPDATE(field, value) (changed |= (field) != (value), (field) = (value))

static bool set_said(struct mailbox *m, const struct mailbox_said *said)
{
	bool changed = false;
	unsigned flags = (said->flags & ~(unsigned)(CACHE_MAILBOX_HAS_STATUS | CACHE_MAILBOX_READONLY)) | (m->flags & CACHE_MAILBOX_READONLY);
	UPDATE(m->delimiter, said->delimiter);
	UPDATE(m->utf8, said->utf8);
	UPDATE(m->flags, flags);
	UPDATE(m->use, said->use);
	UPDATE(m->append_limit, said->append_limit);
	if (said->has_status) {
		UPDATE(m->server_uidvalidity, said->uidvalidity);
		UPDATE(m->server_uidnext, said->uidnext);
		UPDATE(m->server_messages, said->messages);
		UPDATE(m->server_unseen, said->unseen);
		UPDATE(m->server_modseq, said->modseq);
	}
	return changed;
}

enum mf_err txn_mailbox_said(struct txn *t, const struct mailbox_said *said, uint64_t *ret_id)
{
	if (t->failed)
		return t->failed;
	MF_CLEANUP(mf_free) char *path = mailbox_path_of(said);
	if (!mailbox_can_be_called(said->raw, said->delimiter) || t->cache->table.by_id.count + t->node_count > 2 * MAILBOXES_MAX)
		return *path ? MF_TOO_BIG : MF_INVALID;
	struct node *n;
	enum mf_err e = settle_said(t, path, said->raw);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	e = mailbox_need_path(t, path, said, &n);
	if (e)
		return txn_fail(t, e);
	bool changed = set_raw(&n->m, said, n->said);
	changed |= set_object_id(&n->m, said->object_id);
	changed |= set_said(&n->m, said);
	if (changed)
		txn_attributes_changed(n);
	n->said = true;
	*ret_id = n->m.id;
	return MF_OK;
}

/* --- going ------------------------------------------------------------------------------------------------------------------ */

bool txn_has_children(struct txn *t, uint64_t id)
{
	const struct map *children = &t->cache->table.by_parent;
	for (uint32_t at = map_first(children, id); at; at = map_next(children, at)) {
		const struct node *known = (const struct node *)(uintptr_t)children->entries[at].value;
		const struct node *here = map_get_pointer(&t->nodes_by_id, known->m.id);
		if (!here || !here->removed)
			return true;
	}
	for (size_t i = 0; i < t->node_count; i++)
		if (t->nodes[i]->added && !t->nodes[i]->removed && t->nodes[i]->m.parent == id)
			return true;
	return false;
}

enum mf_err mailbox_remove_node(struct txn *t, struct node *n)
{
	enum mf_err e = limbo_retire(t, n, true);
	if (e)
		return e;
	/* the empty shelf that took its place is not needed */
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	e = db_run(t->db, s);
	s = db_use(t->db, SQL_MAILBOX_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	if (!e)
		e = db_run(t->db, s);
	if (e)
		return e;
	n->removed = true;
	txn_names_changed(t, n->m.parent);
	txn_change(t, &(struct change){ .kind = CHANGE_MAILBOX_REMOVED, .mailbox = n->m.id, .parent = n->m.parent,
		.name = n->m.name });
	return MF_OK;
}

/* The server has it no more: it stays as a level while others are inside it. */
static enum mf_err unlist(struct txn *t, struct node *n)
{
	bool stays = false;
	enum mf_err kept = settle_unlisted(t, n, &stays);
	if (kept || stays)
		return kept;
	if (!txn_has_children(t, n->m.id))
		return mailbox_remove_node(t, n);
	if (!n->m.raw)
		return MF_OK;
	bool had_messages = n->m.total > 0;
	enum mf_err e = limbo_retire(t, n, false);
	if (e)
		return e;
	free(n->m.raw);
	free(n->m.object_id);
	struct mailbox *m = &n->m;
	*m = (struct mailbox){ .id = m->id, .parent = m->parent, .name = m->name, .delimiter = m->delimiter, .utf8 = m->utf8,
		               .mtime = m->mtime, .sync = m->sync };
	txn_attributes_changed(n);
	if (had_messages)
		txn_names_changed(t, n->m.id);
	return MF_OK;
}

static bool list_id(void *context, const struct mailbox *m)
{
	struct map *ids = context;
	map_add(ids, 0, m->id);
	return true;
}

enum mf_err txn_mailboxes_swept(struct txn *t, bool all)
{
	if (t->failed)
		return t->failed;
	t->swept = true;
	if (!all)
		return MF_OK;
	struct map ids = { 0 }; /* in the order of adding: parents first */
	enum mf_err e = cache_mailboxes(t->cache, list_id, &ids);
	for (uint32_t i = ids.used; i > 0 && !e; i--) {
		struct node *n = map_get_pointer(&t->nodes_by_id, ids.entries[i].value);
		if (n && (n->said || n->removed))
			continue;
		n = txn_node(t, ids.entries[i].value);
		e = n ? unlist(t, n) : MF_OK;
	}
	map_finish(&ids);
	return txn_fail(t, e);
}

/* levels above that were there only for it go with it */
static enum mf_err remove_empty_levels(struct txn *t, uint64_t id)
{
	enum mf_err e = MF_OK;
	struct node *n;
	while (!e && (n = txn_node(t, id)) && !n->m.raw && !txn_has_children(t, id)) {
		id = n->m.parent;
		e = mailbox_remove_node(t, n);
	}
	return e;
}

enum mf_err txn_mailbox_removed(struct txn *t, uint64_t mailbox)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	uint64_t parent = n->m.parent;
	enum mf_err e = unlist(t, n);
	if (!e)
		e = remove_empty_levels(t, parent);
	return txn_fail(t, e);
}

/* --- what was synchronised ---------------------------------------------------------------------------------------------------- */

enum mf_err txn_mailbox_sync(struct txn *t, uint64_t mailbox, int sync)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	if (n->m.sync == sync)
		return MF_OK;
	n->m.sync = sync;
	txn_attributes_changed(n);
	return MF_OK;
}

enum mf_err txn_mailbox_rights(struct txn *t, uint64_t mailbox, unsigned rights)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	if (n->m.rights == rights)
		return MF_OK;
	n->m.rights = rights;
	txn_attributes_changed(n);
	return MF_OK;
}

enum mf_err txn_mailbox_renumbered(struct txn *t, uint64_t mailbox, uint32_t uidvalidity)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	bool had_messages = n->m.total > 0;
	enum mf_err e = had_messages ? limbo_retire(t, n, false) : MF_OK;
	if (e)
		return txn_fail(t, e);
	n->m.complete = false;
	n->m.uidvalidity = uidvalidity;
	n->m.uidnext = n->m.first_uid = 0;
	n->m.modseq = 0;
	txn_attributes_changed(n);
	if (had_messages)
		txn_names_changed(t, mailbox);
	return MF_OK;
}

/* Nothing below first_uid is kept. */
static enum mf_err drop_below(struct txn *t, const struct node *n, uint32_t first_uid)
{
	for (;;) {
		sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BELOW);
		sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
		sqlite3_bind_int64(s, 2, first_uid);
		enum mf_err e = db_step(t->db, s);
		if (e)
			return e == MF_NOT_FOUND ? MF_OK : e;
		uint32_t uid = (uint32_t)sqlite3_column_int64(s, 0);
		db_done(s);
		e = txn_message_trimmed(t, n->m.id, uid);
		if (e)
			return e;
	}
}

enum mf_err txn_mailbox_synced(struct txn *t, uint64_t mailbox, bool complete, uint32_t uidvalidity,
                               uint32_t uidnext, uint64_t modseq, uint32_t first_uid, bool read_only)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	enum mf_err e = first_uid > 1 ? drop_below(t, n, first_uid) : MF_OK;
	if (e)
		return txn_fail(t, e);
	bool changed = false;
	struct mailbox *m = &n->m;
	UPDATE(m->complete, complete);
	UPDATE(m->uidvalidity, uidvalidity);
	UPDATE(m->uidnext, uidnext);
	UPDATE(m->modseq, modseq);
	UPDATE(m->first_uid, first_uid);
	unsigned flags = read_only ? m->flags | CACHE_MAILBOX_READONLY : m->flags & ~(unsigned)CACHE_MAILBOX_READONLY;
	UPDATE(m->flags, flags);
	if (changed)
		txn_attributes_changed(n);
	return MF_OK;
}

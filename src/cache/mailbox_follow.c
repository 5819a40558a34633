/* Mailboxes that another client has renamed: LIST lacks a name, and has another one instead. The row stays, and with it its
 * directory, its messages and what waits for them. What waits for a mailbox that is not recognised is not here: settle.c. */
#include <string.h>

#include "base/mem.h"
#include "cache/txn.h"
#include "mail/name.h"

struct follower {
	struct txn *t;
	const struct mailbox_said *said;
	size_t count;
	char **paths;                                      /* of what was said */
	struct map said_by_path, said_by_id, said_by_number; /* hashes, UIDVALIDITY: to places in `said`, + 1 */
	struct map known_by_id, known_by_number;           /* likewise to mailboxes */
	struct map gone;                                   /* mailboxes that were not said; parents first */
};

static uint64_t text_key(const char *text)
{
	return hash_bytes(text, strlen(text));
}

/* --- what there is ---------------------------------------------------------------------------------------------------------------- */

static void note_said(struct follower *f)
{
	f->paths = mf_alloc_array(f->count + 1, sizeof *f->paths);
	for (size_t i = 0; i < f->count; i++) {
		const struct mailbox_said *said = &f->said[i];
		f->paths[i] = mailbox_path_of(said);
		map_add(&f->said_by_path, text_key(f->paths[i]), i + 1);
		if (said->object_id)
			map_add(&f->said_by_id, text_key(said->object_id), i + 1);
		if (said->has_status && said->uidvalidity)
			map_add(&f->said_by_number, said->uidvalidity, i + 1);
	}
}

/* Its place in `said`, + 1; 0: it was not said */
static size_t said_at(const struct follower *f, const char *path)
{
	const struct map *places = &f->said_by_path;
	for (uint32_t at = map_first(places, text_key(path)); at; at = map_next(places, at))
		if (strcmp(f->paths[places->entries[at].value - 1], path) == 0)
			return places->entries[at].value;
	return 0;
}

static uint32_t number_of(const struct mailbox *m)
{
	return m->uidvalidity ? m->uidvalidity : m->server_uidvalidity;
}

static bool list_id(void *context, const struct mailbox *m)
{
	map_add(context, 0, m->id);
	return true;
}

static enum mf_err note_known(struct follower *f)
{
	struct map ids = { 0 };
	enum mf_err e = cache_mailboxes(f->t->cache, list_id, &ids);
	for (uint32_t i = 1; i <= ids.used && !e; i++) {
		const struct node *n = txn_node(f->t, ids.entries[i].value);
		if (!n || !n->m.raw || (n->m.flags & CACHE_MAILBOX_LOCAL))
			continue;
		if (n->m.object_id)
			map_add(&f->known_by_id, text_key(n->m.object_id), n->m.id);
		if (number_of(&n->m))
			map_add(&f->known_by_number, number_of(&n->m), n->m.id);
		if (n->m.use != CACHE_USE_INBOX && !said_at(f, n->path))
			map_add(&f->gone, 0, n->m.id);
	}
	map_finish(&ids);
	return e;
}

static void follower_finish(struct follower *f)
{
	for (size_t i = 0; i < f->count; i++)
		free(f->paths[i]);
	free(f->paths);
	map_finish(&f->said_by_path);
	map_finish(&f->said_by_id);
	map_finish(&f->said_by_number);
	map_finish(&f->known_by_id);
	map_finish(&f->known_by_number);
	map_finish(&f->gone);
}

/* --- which is which --------------------------------------------------------------------------------------------------------------- */

static bool is_new(struct follower *f, size_t place)
{
	struct node *known;
	return mailbox_find_path(f->t, f->paths[place - 1], &known) == MF_NOT_FOUND;
}

/* The only one with a key; 0: there is none, or another */
static uint64_t only(const struct map *map, uint64_t key)
{
	uint32_t at = map_first(map, key);
	return at && !map_next(map, at) ? map->entries[at].value : 0;
}

static size_t find_by_id(struct follower *f, const char *id)
{
	size_t place = only(&f->known_by_id, text_key(id)) ? only(&f->said_by_id, text_key(id)) : 0;
	return place && strcmp(f->said[place - 1].object_id, id) == 0 && is_new(f, place) ? place : 0;
}

/* Both have an id, and not the same: whatever else is alike, it is another */
static bool is_another(const struct mailbox *m, const struct mailbox_said *said)
{
	return m->object_id && said->object_id && strcmp(m->object_id, said->object_id) != 0;
}

/* A UIDVALIDITY that one mailbox had and one mailbox has, whose numbers have only grown */
static size_t find_by_number(struct follower *f, const struct mailbox *m)
{
	uint32_t number = number_of(m), next = m->uidnext > m->server_uidnext ? m->uidnext : m->server_uidnext;
	size_t place = number && only(&f->known_by_number, number) ? only(&f->said_by_number, number) : 0;
	return place && f->said[place - 1].uidnext >= next && !is_another(m, &f->said[place - 1]) && is_new(f, place) ? place : 0;
}

/* Sent under that name, or what it is in at the server was: LIST tells what has become of that (settle.c) */
static bool is_in_doubt(struct txn *t, const struct node *n)
{
	MF_CLEANUP(mf_free) char *path = mf_strdup(n->path);
	bool found = false;
	for (char *cut = path + strlen(path); cut && !found; cut = n->m.delimiter ? strrchr(path, n->m.delimiter) : NULL) {
		struct ops ops = { 0 };
		struct node *around;
		*cut = 0;
		if (mailbox_find_path(t, path, &around) == MF_OK)
			found = mailbox_ops(t, around->m.id, &ops) != MF_OK || mailbox_is_being_named(&ops);
		ops_finish(&ops);
	}
	return found;
}

/* --- following -------------------------------------------------------------------------------------------------------------------- */

/* It is to be renamed here as well: from what it is called now, and that is what a cancel brings back. */
static enum mf_err rename_from(struct txn *t, const struct op *rename, uint64_t parent, char *name)
{
	struct op op = { .kind = OP_RENAME, .mailbox = rename->mailbox, .name = name, .parent = parent };
	enum mf_err e = op_remove(t, rename->id);
	return e ? e : op_add(t, &op);
}

static enum mf_err take_directory(struct txn *t, struct node *n, uint64_t parent, const char *level, const struct mailbox_said *said)
{
	char wish[MAILBOX_NAME_MAX + 1], name[NAME_MAX_BYTES + 1];
	struct ops ops = { 0 };
	mailbox_level_to_name(level, strlen(level), said->utf8, parent == 0, wish);
	enum mf_err e = mailbox_ops(t, n->m.id, &ops);
	const struct op *rename = mailbox_find_op(&ops, OP_RENAME);
	bool stays = (n->m.parent == parent && strcmp(n->m.name, wish) == 0) || mailbox_is_inside(t, parent, n->m.id);
	if (!e && rename) {
		e = rename_from(t, rename, parent, wish);
	} else if (!e && !stays) {
		e = name_for_mailbox(t, parent, wish, name);
		if (!e)
			mailbox_rename_node(t, n, parent, name);
	}
	ops_finish(&ops);
	return e;
}

static enum mf_err take_name(struct txn *t, struct node *n, const char *path, const struct mailbox_said *said)
{
	size_t len = strlen(n->path);
	if (strncmp(path, n->path, len) == 0 && path[len] == said->delimiter)
		return MF_OK; /* into itself: its own name would have to stay for that */
	MF_CLEANUP(mf_free) char *above_path = mf_strdup(path);
	char *cut = said->delimiter ? strrchr(above_path, said->delimiter) : NULL;
	const char *level = cut ? path + (cut - above_path) + 1 : path;
	struct node *above = NULL;
	enum mf_err e = MF_OK;
	if (cut) {
		*cut = 0;
		e = mailbox_need_path(t, above_path, said, &above);
	}
	if (!e)
		e = mailbox_set_paths(t, n, path);
	if (!e)
		e = txn_mailbox_is_called(t, n->m.id);
	return e ? e : take_directory(t, n, above ? above->m.id : 0, level, said);
}

/* The same id or number says a lot, and not all: messages step aside until each has been compared, and so do operations. */
static enum mf_err doubt_messages(struct txn *t, const struct node *n, const struct mailbox_said *said)
{
	if (!n->m.uidvalidity || n->m.uidvalidity != said->uidvalidity)
		return MF_OK; /* or the number will tell */
	sqlite3_stmt *s = db_use(t->db, SQL_OP_FORGET_NUMBERS);
	sqlite3_bind_int64(s, 1, (int64_t)n->m.id);
	enum mf_err e = db_run(t->db, s);
	return e ? e : txn_mailbox_renumbered(t, n->m.id, n->m.uidvalidity);
}

static enum mf_err follow(struct follower *f, struct node *n)
{
	size_t place = said_at(f, n->path); /* it went with what it is in */
	if (!place && n->m.object_id)
		place = find_by_id(f, n->m.object_id);
	if (!place)
		place = find_by_number(f, &n->m);
	if (!place || is_in_doubt(f->t, n))
		return MF_OK;
	const char *path = f->paths[place - 1];
	const struct mailbox_said *said = &f->said[place - 1];
	enum mf_err e = strcmp(n->path, path) ? take_name(f->t, n, path, said) : MF_OK;
	return e || strcmp(n->path, path) != 0 ? e : doubt_messages(f->t, n, said);
}

enum mf_err txn_mailboxes_follow(struct txn *t, const struct mailbox_said *said, size_t count)
{
	if (t->failed)
		return t->failed;
	struct follower f = { .t = t, .said = said, .count = count };
	note_said(&f);
	enum mf_err e = note_known(&f);
	for (uint32_t i = 1; i <= f.gone.used && !e; i++) {
		struct node *n = txn_node(t, f.gone.entries[i].value);
		e = n ? follow(&f, n) : MF_OK;
	}
	follower_finish(&f);
	return txn_fail(t, e);
}

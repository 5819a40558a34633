/* Limbo: messages that have left the tree and may come back elsewhere, and those that came so lately that the one they were
 * moved from may still be there. Both are looked up by a hash of what makes two rows the same message; what it finds
 * is compared. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "cache/txn.h"

#define CANDIDATES_MAX 32 /* that a crafted hash can make us compare */
#define TEXT_MAX MAIL_SUMMARY_VALUE_MAX

void limbo_finish(struct limbo *l)
{
	map_finish(&l->rows);
	map_finish(&l->arrivals);
	free(l->ring);
	*l = (struct limbo){ 0 };
}

/* --- sameness ----------------------------------------------------------------------------------------------------------- */

struct identity {
	uint64_t size;
	int64_t mtime;
	char message_id[TEXT_MAX + 1], email_id[TEXT_MAX + 1], subject[TEXT_MAX + 1], sender[TEXT_MAX + 1];
};

static void take_text(char to[static TEXT_MAX + 1], const char *text)
{
	size_t len = text ? strnlen(text, TEXT_MAX) : 0;
	if (len)
		memcpy(to, text, len);
	to[len] = 0;
}

static void identity_of_put(const struct message_put *put, int64_t mtime, struct identity *ret)
{
	ret->size = put->size;
	ret->mtime = mtime;
	take_text(ret->message_id, put->summary->message_id);
	take_text(ret->email_id, put->email_id);
	take_text(ret->subject, put->summary->subject);
	take_text(ret->sender, put->summary->from);
}

static enum mf_err identity_of_row(struct txn *t, uint64_t message, struct identity *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SIMILAR);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	enum mf_err e = db_step(t->db, s);
	if (e)
		return e;
	ret->size = (uint64_t)sqlite3_column_int64(s, 0);
	ret->mtime = sqlite3_column_int64(s, 1);
	take_text(ret->message_id, (const char *)sqlite3_column_text(s, 2));
	take_text(ret->email_id, (const char *)sqlite3_column_text(s, 3));
	take_text(ret->subject, (const char *)sqlite3_column_text(s, 4));
	take_text(ret->sender, (const char *)sqlite3_column_text(s, 5));
	db_done(s);
	return MF_OK;
}

static bool is_same(const struct identity *a, const struct identity *b)
{
	if (*a->email_id || *b->email_id)
		return !strcmp(a->email_id, b->email_id);
	if (a->size != b->size || a->mtime != b->mtime || strcmp(a->message_id, b->message_id) != 0)
		return false;
	return *a->message_id || (!strcmp(a->subject, b->subject) && !strcmp(a->sender, b->sender));
}

/* A server may give its own internal date to what it is sent: with a Message-ID that and the size are enough. */
bool identity_is_same(struct txn *t, uint64_t message, const struct message_put *put, int64_t mtime, bool strict)
{
	struct identity mine, other;
	if (identity_of_row(t, message, &mine) != MF_OK)
		return false;
	identity_of_put(put, mtime, &other);
	if (!*mine.email_id)
		*other.email_id = 0; /* a new one gets its number from the server */
	if (!strict && *mine.message_id)
		mine.mtime = other.mtime;
	return is_same(&mine, &other);
}

uint64_t match_of(const struct message_put *put, int64_t mtime)
{
	if (put->email_id && *put->email_id) {
		char text[TEXT_MAX + 64];
		text[0] = 'e';
		size_t len = 1 + strnlen(put->email_id, TEXT_MAX);
		memcpy(text + 1, put->email_id, len - 1);
		return hash_stable(text, len);
	}
	return match_without_id(put, mtime);
}

uint64_t match_without_id(const struct message_put *put, int64_t mtime)
{
	char text[TEXT_MAX + 64];
	const char *id = *put->summary->message_id ? put->summary->message_id : put->summary->key;
	size_t len = strnlen(id, TEXT_MAX);
	text[0] = 'm';
	memcpy(text + 1, &put->size, sizeof put->size);
	memcpy(text + 9, &mtime, sizeof mtime);
	memcpy(text + 17, id, len);
	return hash_stable(text, 17 + len);
}

/* --- limbo ---------------------------------------------------------------------------------------------------------------- */

enum mf_err limbo_load(struct txn *t)
{
	struct limbo *l = &t->cache->limbo;
	if (l->loaded)
		return MF_OK;
	map_finish(&l->rows);
	sqlite3_stmt *s = db_use(t->db, SQL_LIMBO_ALL);
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK)
		map_add(&l->rows, (uint64_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1));
	l->loaded = e == MF_NOT_FOUND;
	return l->loaded ? MF_OK : e;
}

/* It is there because that mailbox was numbered anew: what vanished has been told of */
static bool was_numbered_in(struct txn *t, uint64_t message, uint64_t mailbox)
{
	struct row row;
	if (row_by_id(t, message, &row) != MF_OK)
		return false;
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_OF_LIMBO);
	sqlite3_bind_int64(s, 1, (int64_t)row.shelf);
	bool was = db_step(t->db, s) == MF_OK && (uint64_t)sqlite3_column_int64(s, 0) == mailbox && !sqlite3_column_int(s, 1);
	db_done(s);
	return was;
}

static enum mf_err find_same(struct txn *t, const struct message_put *put, uint64_t match, int64_t mtime, uint64_t mailbox, uint64_t *ret)
{
	const struct map *rows = &t->cache->limbo.rows;
	uint32_t at = map_first(rows, match);
	for (int i = 0; at && i < CANDIDATES_MAX; i++, at = map_next(rows, at)) {
		uint64_t message = rows->entries[at].value;
		if (!identity_is_same(t, message, put, mtime, true) || (mailbox && !was_numbered_in(t, message, mailbox)))
			continue;
		*ret = message;
		return MF_OK;
	}
	return MF_NOT_FOUND;
}

enum mf_err limbo_match(struct txn *t, const struct message_put *put, uint64_t match, int64_t mtime, uint64_t mailbox, uint64_t *ret)
{
	enum mf_err e = limbo_load(t);
	uint64_t plain = match_without_id(put, mtime);
	if (e || !t->cache->limbo.rows.count)
		return e ? e : MF_NOT_FOUND;
	e = find_same(t, put, match, mtime, mailbox, ret);
	return e == MF_NOT_FOUND && plain != match ? find_same(t, put, plain, mtime, mailbox, ret) : e;
}

void limbo_taken(struct txn *t, uint64_t match, uint64_t message)
{
	struct map *rows = &t->cache->limbo.rows;
	if (t->cache->limbo.loaded && map_remove(rows, match, message) && !rows->count)
		map_finish(rows); /* it may have been large */
}

enum mf_err limbo_put(struct txn *t, struct node *n, const struct row *row)
{
	for (int attempt = 0; attempt < 2; attempt++) {
		enum mf_err e = n->limbo_shelf ? MF_OK : shelf_add(t, n->m.id, true, &n->limbo_shelf);
		if (e)
			return e;
		sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SHELVE);
		sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
		sqlite3_bind_int64(s, 2, (int64_t)n->limbo_shelf);
		e = db_run(t->db, s);
		if (e)
			return e;
		if (sqlite3_changes(t->db->handle) > 0) {
			if (t->cache->limbo.loaded)
				map_add(&t->cache->limbo.rows, row->match, row->entry.id);
			return MF_OK;
		}
		n->limbo_shelf = 0; /* that name or UID lies there already: another shelf */
	}
	return MF_IO;
}

/* What the server has not numbered has nothing to do with its numbers: it stays in the tree. */
static enum mf_err keep_unnumbered(struct txn *t, struct node *n, uint64_t old_shelf)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_UNNUMBERED_MOVE);
	sqlite3_bind_int64(s, 1, (int64_t)old_shelf);
	sqlite3_bind_int64(s, 2, (int64_t)n->shelf);
	enum mf_err e = db_run(t->db, s);
	if (e || !sqlite3_changes(t->db->handle))
		return e;
	s = db_use(t->db, SQL_MESSAGE_UNNUMBERED);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	while ((e = db_step(t->db, s)) == MF_OK) {
		struct row row;
		row_read(s, &row);
		row_show(t, n, &row, true);
		if (!row.local)
			row_count(n, 1, row.flags);
	}
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err limbo_retire(struct txn *t, struct node *n, bool told)
{
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_RETIRE);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	sqlite3_bind_int64(s, 2, txn_now_ms(t));
	sqlite3_bind_int(s, 3, told);
	enum mf_err e = db_run(t->db, s);
	uint64_t old = n->shelf;
	if (!e)
		e = shelf_add(t, n->m.id, false, &n->shelf);
	if (e)
		return e;
	t->cache->limbo.loaded = false;
	n->m.total = n->m.unseen = 0;
	txn_attributes_changed(n);
	txn_listing(t, LISTING_CLEAR, &(struct entry){ .mailbox = n->m.id }, NULL);
	return keep_unnumbered(t, n, old);
}

/* --- arrivals --------------------------------------------------------------------------------------------------------------- */

void arrival_add(struct txn *t, uint64_t match, uint64_t message, uint64_t mailbox)
{
	struct limbo *l = &t->cache->limbo;
	if (!l->ring)
		l->ring = mf_alloc_array(ARRIVALS_MAX, sizeof *l->ring);
	struct arrival arrival = { match, message, mailbox, clock_mono_ms() };
	uint64_t known = map_get(&l->arrivals, match);
	if (known) {
		l->ring[known - 1] = arrival;
		return;
	}
	struct arrival *place = &l->ring[l->next];
	if (place->id)
		map_remove(&l->arrivals, place->match, l->next + 1);
	*place = arrival;
	map_add(&l->arrivals, match, l->next + 1);
	l->next = (l->next + 1) % ARRIVALS_MAX;
}

void arrival_forget(struct txn *t, uint64_t match, uint64_t message)
{
	struct limbo *l = &t->cache->limbo;
	uint64_t place = map_get(&l->arrivals, match);
	if (!place || l->ring[place - 1].id != message)
		return;
	l->ring[place - 1].id = 0;
	map_remove(&l->arrivals, match, place);
}

enum mf_err arrival_match(struct txn *t, const struct row *row, uint64_t mailbox, struct row *ret)
{
	struct limbo *l = &t->cache->limbo;
	uint64_t place = map_get(&l->arrivals, row->match);
	if (!place)
		return MF_NOT_FOUND;
	struct arrival arrival = l->ring[place - 1];
	if (arrival.id <= row->entry.id || arrival.mailbox == mailbox || clock_mono_ms() - arrival.at_ms > ARRIVAL_AGE_MS)
		return MF_NOT_FOUND;
	const struct node *there = txn_node(t, arrival.mailbox);
	enum mf_err e = there ? row_by_id(t, arrival.id, ret) : MF_NOT_FOUND;
	if (e || ret->shelf != there->shelf || !ret->entry.uid)
		return e ? e : MF_NOT_FOUND;
	struct identity mine, other;
	e = identity_of_row(t, row->entry.id, &mine);
	if (!e)
		e = identity_of_row(t, arrival.id, &other);
	if (e || !is_same(&mine, &other))
		return e ? e : MF_NOT_FOUND;
	ret->entry.mailbox = arrival.mailbox;
	return MF_OK;
}

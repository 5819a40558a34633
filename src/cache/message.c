/* Messages: the questions that need SQL. */
#include <string.h>

#include "base/mem.h"
#include "cache/journal.h"
#include "cache/private.h"

void message_finish(struct message *m)
{
	free(m->name);
	free(m->subject);
	free(m->from);
	free(m->to);
	free(m->message_id);
	free(m->keywords);
	free(m->email_id);
	*m = (struct message){ 0 };
}

static void copy_text(sqlite3_stmt *s, int column, char *to, size_t size)
{
	const char *text = (const char *)sqlite3_column_text(s, column);
	size_t len = text ? strnlen(text, size - 1) : 0;
	if (len)
		memcpy(to, text, len);
	to[len] = 0;
}

void row_read(sqlite3_stmt *s, struct row *ret)
{
	ret->entry = (struct entry){
		.id = (uint64_t)sqlite3_column_int64(s, 0), .uid = (uint32_t)sqlite3_column_int64(s, 2),
		.size = (uint64_t)sqlite3_column_int64(s, 3), .size_checked = sqlite3_column_int(s, 4) != 0,
		.mtime = sqlite3_column_int64(s, 5), .ctime = sqlite3_column_int64(s, 6),
	};
	ret->shelf = (uint64_t)sqlite3_column_int64(s, 1);
	ret->flags = (unsigned)sqlite3_column_int64(s, 7);
	copy_text(s, 8, ret->keywords, sizeof ret->keywords);
	ret->modseq = (uint64_t)sqlite3_column_int64(s, 9);
	ret->match = (uint64_t)sqlite3_column_int64(s, 10);
	copy_text(s, 11, ret->name, sizeof ret->name);
	ret->local = sqlite3_column_int(s, 12) != 0;
	ret->aside = sqlite3_column_int(s, 13) != 0;
}

static char *text_or_empty(sqlite3_stmt *s, int column)
{
	char *text = db_text(s, column);
	return text ? text : mf_strdup("");
}

static void message_read(sqlite3_stmt *s, struct message *ret, uint64_t *ret_shelf)
{
	struct row row;
	row_read(s, &row);
	*ret_shelf = row.shelf;
	*ret = (struct message){
		.entry = row.entry, .name = mf_strdup(row.name), .keywords = mf_strdup(row.keywords), .flags = row.flags,
		.modseq = row.modseq, .date = sqlite3_column_int64(s, 14), .message_id = text_or_empty(s, 15),
		.email_id = db_text(s, 16), .subject = text_or_empty(s, 17), .from = text_or_empty(s, 18), .to = text_or_empty(s, 19),
	};
}

enum mf_err cache_message(struct cache *c, uint64_t message, struct message *ret)
{
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	struct message m;
	uint64_t shelf = 0;
	sqlite3_stmt *s = db_use(db, SQL_MESSAGE_WHOLE);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	e = db_step(db, s);
	if (!e) {
		message_read(s, &m, &shelf);
		db_done(s);
	}
	cache_reader_done(c, db);
	if (e)
		return e;
	pthread_rwlock_rdlock(&c->tree);
	const struct node *n = map_get_pointer(&c->table.by_shelf, shelf);
	if (n)
		m.entry.mailbox = n->m.id;
	pthread_rwlock_unlock(&c->tree);
	if (!m.entry.mailbox) { /* in limbo */
		message_finish(&m);
		return MF_NOT_FOUND;
	}
	*ret = m;
	return MF_OK;
}

static int by_uid(const void *a, const void *b)
{
	const struct uid_id *x = a, *y = b;
	return (x->uid > y->uid) - (x->uid < y->uid);
}

/* MF_NOT_FOUND: that is all */
static enum mf_err add_uids(struct db *db, sqlite3_stmt *s, struct uid_id **uids, size_t *count, size_t *room)
{
	enum mf_err e;
	while ((e = db_step(db, s)) == MF_OK) {
		if (*count == *room) {
			*room *= 2;
			*uids = mf_realloc_array(*uids, *room, sizeof **uids);
		}
		(*uids)[(*count)++] = (struct uid_id){ (uint32_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1) };
	}
	return e;
}

enum mf_err cache_uids(struct cache *c, uint64_t mailbox, struct uid_id **ret, size_t *ret_count)
{
	pthread_rwlock_rdlock(&c->tree);
	const struct node *n = mailboxes_find(&c->table, mailbox);
	uint64_t shelf = n ? n->shelf : 0;
	uint32_t validity = n ? n->m.uidvalidity : 0;
	size_t room = n ? n->m.total + 1UL : 0;
	pthread_rwlock_unlock(&c->tree);
	if (!n)
		return MF_NOT_FOUND;
	enum mf_err e;
	struct db *db = cache_reader(c, &e);
	if (!db)
		return e;
	struct uid_id *uids = mf_alloc_array(room, sizeof *uids);
	size_t count = 0;
	sqlite3_stmt *s = db_use(db, SQL_MESSAGE_UIDS);
	sqlite3_bind_int64(s, 1, (int64_t)shelf);
	e = add_uids(db, s, &uids, &count, &room);
	if (e == MF_NOT_FOUND && journal_count(c)) {
		s = db_use(db, SQL_OP_CLAIMS);
		sqlite3_bind_int64(s, 1, (int64_t)mailbox);
		sqlite3_bind_int64(s, 2, validity);
		e = add_uids(db, s, &uids, &count, &room);
		qsort(uids, count, sizeof *uids, by_uid);
	}
	cache_reader_done(c, db);
	if (e != MF_NOT_FOUND) {
		free(uids);
		return e;
	}
	*ret = uids;
	*ret_count = count;
	return MF_OK;
}

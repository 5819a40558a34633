/* Messages: what a transaction does to them. */
#include <string.h>

#include "base/mem.h"
#include "cache/txn.h"
#include "mail/name.h"

#define PURGE_MAX 2000 /* messages at a time: some 20 ms */
#define PURGE_CLOCK_SLACK_MS 3600000

enum mf_err shelf_add(struct txn *t, uint64_t mailbox, bool limbo, uint64_t *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_ADD);
	sqlite3_bind_int64(s, 1, (int64_t)mailbox);
	if (limbo)
		sqlite3_bind_int64(s, 2, txn_now_ms(t));
	else
		sqlite3_bind_null(s, 2);
	sqlite3_bind_int(s, 3, limbo);
	enum mf_err e = db_run(t->db, s);
	if (!e)
		*ret = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	return e;
}

/* --- rows -------------------------------------------------------------------------------------------------------------- */

static enum mf_err row_take(struct txn *t, sqlite3_stmt *s, struct row *ret)
{
	enum mf_err e = db_step(t->db, s);
	if (!e) {
		row_read(s, ret);
		db_done(s);
	}
	return e;
}

enum mf_err row_by_id(struct txn *t, uint64_t id, struct row *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_ID);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	return row_take(t, s, ret);
}

enum mf_err row_by_uid(struct txn *t, const struct node *n, uint32_t uid, struct row *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_UID);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	sqlite3_bind_int64(s, 2, uid);
	return row_take(t, s, ret);
}

enum mf_err row_by_name(struct txn *t, const struct node *n, const char *name, struct row *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_NAME);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	db_bind_text(s, 2, name);
	return row_take(t, s, ret);
}

enum mf_err row_remove(struct txn *t, uint64_t id)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	enum mf_err e = db_run(t->db, s);
	s = db_use(t->db, SQL_SUMMARY_REMOVE);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	return e ? e : db_run(t->db, s);
}

static void bind_uid(sqlite3_stmt *s, int parameter, uint32_t uid)
{
	if (uid)
		sqlite3_bind_int64(s, parameter, uid);
	else
		sqlite3_bind_null(s, parameter);
}

static void bind_capped(sqlite3_stmt *s, int parameter, const char *text)
{
	text = text ? text : "";
	sqlite3_bind_text(s, parameter, text, (int)strnlen(text, MAIL_SUMMARY_VALUE_MAX), SQLITE_STATIC);
}

/* whole keywords as far as there is room */
void row_cap_keywords(const char *keywords, char ret[static KEYWORDS_MAX + 1])
{
	size_t len = keywords ? strlen(keywords) : 0;
	if (len > KEYWORDS_MAX)
		for (len = KEYWORDS_MAX; len > 0 && keywords[len] != ' '; len--)
			;
	if (len)
		memcpy(ret, keywords, len);
	ret[len] = 0;
}

void row_count(struct node *n, int messages, unsigned flags)
{
	n->m.total += (uint32_t)messages;
	if (!(flags & CACHE_MESSAGE_SEEN))
		n->m.unseen += (uint32_t)messages;
	txn_attributes_changed(n);
}

static struct change about(enum change_kind kind, const struct node *n, const struct row *row)
{
	return (struct change){ .kind = kind, .mailbox = n->m.id, .message = row->entry.id, .uid = row->entry.uid,
		.name = row->name };
}

void row_tell(struct txn *t, enum change_kind kind, const struct node *n, const struct row *row)
{
	struct change change = about(kind, n, row);
	txn_change(t, &change);
}

void row_tell_moved(struct txn *t, const struct node *n, const struct row *row, uint64_t old_mailbox, const char *old_name)
{
	struct change change = about(CHANGE_MESSAGE_MOVED, n, row);
	change.old_mailbox = old_mailbox;
	change.old_name = old_name;
	txn_change(t, &change);
}

void row_show(struct txn *t, const struct node *n, const struct row *row, bool named)
{
	struct entry entry = row->entry;
	entry.mailbox = n->m.id;
	txn_listing(t, LISTING_PUT, &entry, named ? row->name : NULL);
}

void row_hide(struct txn *t, const struct node *n, uint64_t message)
{
	txn_listing(t, LISTING_REMOVE, &(struct entry){ .id = message, .mailbox = n->m.id }, NULL);
}

/* --- flags ------------------------------------------------------------------------------------------------------------------ */

static enum mf_err set_flags(struct txn *t, struct node *n, struct row *row, unsigned flags,
                             const char *keywords, uint64_t modseq)
{
	char capped[KEYWORDS_MAX + 1];
	row_cap_keywords(keywords, capped);
	enum mf_err overlaid = flags_overlay(t, row->entry.id, &flags, capped);
	if (overlaid)
		return txn_fail(t, overlaid);
	bool changed = row->flags != flags || strcmp(row->keywords, capped) != 0;
	if (!changed && (!modseq || modseq == row->modseq))
		return MF_OK;
	if (changed)
		row->entry.ctime = t->now_ns;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_FLAGS);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, flags);
	db_bind_text(s, 3, capped);
	sqlite3_bind_int64(s, 4, (int64_t)(modseq ? modseq : row->modseq));
	sqlite3_bind_int64(s, 5, row->entry.ctime);
	enum mf_err e = txn_fail(t, db_run(t->db, s));
	if (e || !changed)
		return e;
	if ((row->flags ^ flags) & CACHE_MESSAGE_SEEN) {
		n->m.unseen += (flags & CACHE_MESSAGE_SEEN) ? UINT32_MAX : 1;
		txn_attributes_changed(n);
	}
	row_show(t, n, row, false);
	row_tell(t, CHANGE_MESSAGE_FLAGS, n, row);
	return MF_OK;
}

/* Those of a message that has been moved away here and not there yet: they go with it. What is to be expunged is not seen. */
static enum mf_err claimed_flags(struct txn *t, const struct node *n, uint32_t uid, unsigned flags, const char *keywords)
{
	struct row row;
	enum mf_err e = settle_claimed(t, n, uid, &row);
	struct node *there = e ? NULL : txn_node_of_shelf(t, row.shelf);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	return there ? set_flags(t, there, &row, flags, keywords, 0) : MF_OK;
}

enum mf_err txn_message_flags(struct txn *t, uint64_t mailbox, uint32_t uid, unsigned flags,
                              const char *keywords, uint64_t modseq)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n || !uid)
		return t->failed ? t->failed : MF_NOT_FOUND;
	struct row row;
	enum mf_err e = row_by_uid(t, n, uid, &row);
	if (e == MF_NOT_FOUND)
		return claimed_flags(t, n, uid, flags, keywords);
	if (e)
		return txn_fail(t, e);
	return set_flags(t, n, &row, flags, keywords, modseq);
}

/* --- size ---------------------------------------------------------------------------------------------------------------------- */

struct node *txn_node_of_shelf(struct txn *t, uint64_t shelf)
{
	for (size_t i = 0; i < t->node_count; i++)
		if (t->nodes[i]->shelf == shelf && !t->nodes[i]->removed)
			return t->nodes[i];
	const struct node *known = map_get_pointer(&t->cache->table.by_shelf, shelf);
	struct node *n = known ? txn_node(t, known->m.id) : NULL;
	return n && n->shelf == shelf ? n : NULL; /* NULL: limbo */
}

static enum mf_err set_size(struct txn *t, struct row *row, uint64_t size, bool checked)
{
	bool differs = row->entry.size != size;
	row->entry.size = size;
	row->entry.size_checked = checked;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_SIZE);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)size);
	sqlite3_bind_int(s, 3, checked);
	enum mf_err e = db_run(t->db, s);
	const struct node *n = e ? NULL : txn_node_of_shelf(t, row->shelf);
	if (!n)
		return e;
	row_show(t, n, row, false);
	if (differs)
		row_tell(t, CHANGE_MESSAGE_SIZE, n, row);
	return MF_OK;
}

enum mf_err txn_message_size(struct txn *t, uint64_t message, uint64_t size)
{
	if (t->failed)
		return t->failed;
	struct row row;
	enum mf_err e = row_by_id(t, message, &row);
	if (e)
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	return row.entry.size == size && row.entry.size_checked ? MF_OK : txn_fail(t, set_size(t, &row, size, true));
}

/* Told for the first time of what was stored: a server that ended its last line (Courier) has other bytes than it was given. */
static enum mf_err take_ended(struct txn *t, const struct node *n, struct row *row, const struct message_put *put)
{
	if (put->uid < n->m.uidnext || put->size != row->entry.size + 2)
		return MF_OK;
	txn_body(t, row->entry.id, 0);
	return set_size(t, row, put->size, false);
}

/* --- put ---------------------------------------------------------------------------------------------------------------------- */

enum mf_err row_place(struct txn *t, const struct node *n, const struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_PLACE);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, (int64_t)n->shelf);
	bind_uid(s, 3, row->entry.uid);
	db_bind_text(s, 4, row->name);
	sqlite3_bind_int64(s, 5, row->flags);
	db_bind_text(s, 6, row->keywords);
	sqlite3_bind_int64(s, 7, (int64_t)row->modseq);
	sqlite3_bind_int64(s, 8, row->entry.ctime);
	return db_run(t->db, s);
}

enum mf_err row_number(struct txn *t, const struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_NUMBER);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	bind_uid(s, 2, row->entry.uid);
	sqlite3_bind_int64(s, 3, row->flags);
	db_bind_text(s, 4, row->keywords);
	sqlite3_bind_int64(s, 5, (int64_t)row->modseq);
	sqlite3_bind_int64(s, 6, row->entry.ctime);
	return db_run(t->db, s);
}

enum mf_err row_flags(struct txn *t, const struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_FLAGS);
	sqlite3_bind_int64(s, 1, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, 2, row->flags);
	db_bind_text(s, 3, row->keywords);
	sqlite3_bind_int64(s, 4, (int64_t)row->modseq);
	sqlite3_bind_int64(s, 5, row->entry.ctime);
	return db_run(t->db, s);
}

static enum mf_err limbo_of(struct txn *t, uint64_t shelf, uint64_t *ret_mailbox, bool *ret_told)
{
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_OF_LIMBO);
	sqlite3_bind_int64(s, 1, (int64_t)shelf);
	enum mf_err e = db_step(t->db, s);
	if (e)
		return e == MF_NOT_FOUND ? MF_CORRUPT : e;
	*ret_mailbox = (uint64_t)sqlite3_column_int64(s, 0);
	*ret_told = sqlite3_column_int(s, 1) != 0;
	db_done(s);
	return MF_OK;
}

/* What is told of a message that is back depends on what was told before: nothing of an earlier UIDVALIDITY, and what
 * vanished in this very transaction has only moved. */
static void tell_back(struct txn *t, const struct node *n, const struct row *row, const struct row *old,
                      uint64_t old_mailbox, bool told)
{
	bool moved = !told || txn_change_cancel(t, CHANGE_MESSAGE_REMOVED, row->entry.id);
	if (!moved)
		row_tell(t, CHANGE_MESSAGE_ADDED, n, row);
	else if (old_mailbox != n->m.id || strcmp(old->name, row->name) != 0)
		row_tell_moved(t, n, row, old_mailbox, old->name);
	else if (old->flags != row->flags || strcmp(old->keywords, row->keywords) != 0)
		row_tell(t, CHANGE_MESSAGE_FLAGS, n, row);
}

static enum mf_err put_back(struct txn *t, struct node *n, const struct message_put *put, uint64_t id)
{
	struct row old;
	uint64_t old_mailbox;
	bool told;
	enum mf_err e = row_by_id(t, id, &old);
	if (!e)
		e = limbo_of(t, old.shelf, &old_mailbox, &told);
	struct row row = old;
	if (!e)
		e = name_for_old(t, n, old.name, row.name);
	if (e)
		return e;
	row.entry.uid = put->uid;
	row.flags = put->flags;
	row.modseq = put->modseq;
	row_cap_keywords(put->keywords, row.keywords);
	e = settle_elsewhere(t, n, &row, 0);
	if (old.flags != row.flags || strcmp(old.keywords, row.keywords) != 0)
		row.entry.ctime = t->now_ns;
	if (!e)
		e = row_place(t, n, &row);
	if (e)
		return e;
	limbo_taken(t, row.match, id);
	row_count(n, 1, row.flags);
	row_show(t, n, &row, true);
	tell_back(t, n, &row, &old, old_mailbox, told);
	txn_names_changed(t, n->m.id);
	return MF_OK;
}

static void bind_summary(sqlite3_stmt *s, int at, const struct message_put *put, const struct row *row)
{
	const struct mail_summary *summary = put->summary;
	sqlite3_bind_int64(s, at, (int64_t)row->entry.id);
	sqlite3_bind_int64(s, at + 1, summary->has_date ? summary->date : row->entry.mtime);
	bind_capped(s, at + 2, summary->message_id);
	if (put->email_id && *put->email_id)
		bind_capped(s, at + 3, put->email_id);
	else
		sqlite3_bind_null(s, at + 3);
	bind_capped(s, at + 4, summary->subject);
	bind_capped(s, at + 5, summary->from);
	bind_capped(s, at + 6, summary->to);
}

enum mf_err row_add_summary(struct txn *t, const struct message_put *put, const struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_SUMMARY_ADD);
	bind_summary(s, 1, put, row);
	return db_run(t->db, s);
}

static void bind_row(sqlite3_stmt *s, int at, const struct node *n, const struct row *row)
{
	sqlite3_bind_int64(s, at, (int64_t)n->shelf);
	bind_uid(s, at + 1, row->entry.uid);
	sqlite3_bind_int64(s, at + 2, (int64_t)row->entry.size);
	sqlite3_bind_int64(s, at + 3, row->entry.mtime);
	sqlite3_bind_int64(s, at + 4, row->entry.ctime);
	sqlite3_bind_int64(s, at + 5, row->flags);
	db_bind_text(s, at + 6, row->keywords);
	sqlite3_bind_int64(s, at + 7, (int64_t)row->modseq);
	sqlite3_bind_int64(s, at + 8, (int64_t)row->match);
	db_bind_text(s, at + 9, row->name);
}

enum mf_err row_add(struct txn *t, const struct node *n, struct row *row)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_ADD);
	bind_row(s, 1, n, row);
	enum mf_err e = db_run(t->db, s);
	row->entry.id = (uint64_t)sqlite3_last_insert_rowid(t->db->handle);
	return e ? e : row->entry.id > ROW_ID_MAX ? MF_TOO_BIG : MF_OK;
}

static int64_t mtime_of(const struct message_put *put)
{
	return put->internal_date ? put->internal_date : put->summary->has_date ? put->summary->date : 0;
}

static void row_of_put(struct txn *t, const struct message_put *put, int64_t mtime, uint64_t match, struct row *ret)
{
	*ret = (struct row){ .entry = { .uid = put->uid, .size = put->size, .mtime = mtime, .ctime = t->now_ns },
		             .flags = put->flags, .modseq = put->modseq, .match = match };
	row_cap_keywords(put->keywords, ret->keywords);
}

/* What follows from a row that was added. */
static void tell_added(struct txn *t, struct node *n, const struct message_put *put, const struct row *row)
{
	arrival_add(t, row->match, row->entry.id, n->m.id);
	row_count(n, 1, row->flags);
	row_show(t, n, row, true);
	struct change change = about(CHANGE_MESSAGE_ADDED, n, row);
	change.is_new = put->is_new;
	txn_change(t, &change);
	txn_names_changed(t, n->m.id);
}

static enum mf_err put_new(struct txn *t, struct node *n, const struct message_put *put, int64_t mtime,
                           uint64_t match, uint64_t *ret_id)
{
	struct row row;
	row_of_put(t, put, mtime, match, &row);
	enum mf_err e = name_for_new(t, n, put, mtime, row.name);
	if (!e)
		e = row_add(t, n, &row);
	if (!e)
		e = row_add_summary(t, put, &row);
	if (e)
		return e;
	tell_added(t, n, put, &row);
	*ret_id = row.entry.id;
	return MF_OK;
}

enum mf_err txn_message_put(struct txn *t, const struct message_put *put, uint64_t *ret_id)
{
	struct node *n = t->failed ? NULL : txn_node(t, put->mailbox);
	if (!n)
		return t->failed ? t->failed : MF_NOT_FOUND;
	if (put->size > INT64_MAX)
		return MF_TOO_BIG;
	int64_t mtime = mtime_of(put);
	uint64_t match = match_of(put, mtime), id;
	struct row known;
	enum mf_err e = put->uid ? row_by_uid(t, n, put->uid, &known) : MF_NOT_FOUND;
	if (!e) {
		e = set_flags(t, n, &known, put->flags, put->keywords, put->modseq);
		if (!e)
			e = txn_fail(t, take_ended(t, n, &known, put));
		if (!e)
			*ret_id = known.entry.id;
		return e;
	}
	if (e != MF_NOT_FOUND)
		return txn_fail(t, e);
	e = settle_put(t, n, put, mtime, match, &id);
	if (!e) {
		*ret_id = id;
		e = txn_message_flags(t, n->m.id, put->uid, put->flags, put->keywords, put->modseq);
		return e == MF_NOT_FOUND ? MF_OK : e;
	}
	if (e != MF_NOT_FOUND)
		return txn_fail(t, e);
	e = limbo_match(t, put, match, mtime, 0, &id);
	if (!e)
		e = put_back(t, n, put, id);
	else if (e == MF_NOT_FOUND)
		e = put_new(t, n, put, mtime, match, &id);
	if (!e)
		*ret_id = id;
	return txn_fail(t, e);
}

/* --- put together ------------------------------------------------------------------------------------------------------------- */

static enum mf_err last_id(struct txn *t, uint64_t *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_LAST_ID);
	enum mf_err e = db_step(t->db, s);
	*ret = e ? 0 : (uint64_t)sqlite3_column_int64(s, 0);
	if (!e)
		db_done(s);
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err is_added(struct txn *t, uint64_t id, bool *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_EXISTS);
	sqlite3_bind_int64(s, 1, (int64_t)id);
	enum mf_err e = db_step(t->db, s);
	if (!e)
		db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

/* Rows with the ids from first on, but where the UID or the name is taken */
static enum mf_err add_where_free(struct txn *t, const struct node *n, const struct message_put *puts, uint64_t first,
                                  struct row rows[static PUTS_MAX])
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGES_ADD_IF_FREE);
	for (int i = 0; i < PUTS_MAX; i++) {
		int64_t mtime = mtime_of(&puts[i]);
		row_of_put(t, &puts[i], mtime, match_of(&puts[i], mtime), &rows[i]);
		rows[i].entry.id = first + (uint64_t)i;
		mail_message_name(puts[i].summary, mtime, 0, rows[i].name);
		sqlite3_bind_int64(s, i * 11 + 1, (int64_t)rows[i].entry.id);
		bind_row(s, i * 11 + 2, n, &rows[i]);
	}
	return db_run(t->db, s);
}

static enum mf_err add_summaries(struct txn *t, const struct message_put *puts, const struct row rows[static PUTS_MAX])
{
	sqlite3_stmt *s = db_use(t->db, SQL_SUMMARIES_ADD);
	for (int i = 0; i < PUTS_MAX; i++)
		bind_summary(s, i * 7 + 1, &puts[i], &rows[i]);
	return db_run(t->db, s);
}

/* While a mailbox is read for the first time hardly any message is known already: the rows are tried without asking for UIDs and
 * names before. An id of 0 stays where one of them is taken. */
static enum mf_err put_first(struct txn *t, struct node *n, const struct message_put *puts, uint64_t *ret_ids)
{
	struct row rows[PUTS_MAX];
	uint64_t last;
	enum mf_err e = last_id(t, &last);
	if (!e && last > ROW_ID_MAX - PUTS_MAX)
		return MF_OK;
	if (!e)
		e = add_where_free(t, n, puts, last + 1, rows);
	bool all = !e && sqlite3_changes(t->db->handle) == PUTS_MAX, added = true;
	if (all)
		e = add_summaries(t, puts, rows);
	for (size_t i = 0; i < PUTS_MAX && !e; i++) {
		if (!all)
			e = is_added(t, rows[i].entry.id, &added);
		if (!e && added && !all)
			e = row_add_summary(t, &puts[i], &rows[i]);
		if (e || !added)
			continue;
		tell_added(t, n, &puts[i], &rows[i]);
		ret_ids[i] = rows[i].entry.id;
	}
	return e;
}

/* Nothing is known that waits for these messages, or has their names, but what lies in the mailbox */
static bool can_be_first(struct txn *t, struct node *n, const struct message_put *puts, enum mf_err *ret_e)
{
	*ret_e = MF_OK;
	if (n->m.complete || txn_has_ops(t) || txn_has_children(t, n->m.id))
		return false;
	for (size_t i = 0; i < PUTS_MAX; i++)
		if (!puts[i].uid || puts[i].mailbox != n->m.id || puts[i].size > INT64_MAX)
			return false;
	*ret_e = limbo_load(t);
	return !*ret_e && !t->cache->limbo.rows.count;
}

enum mf_err txn_messages_put(struct txn *t, const struct message_put *puts, size_t count, uint64_t *ret_ids)
{
	enum mf_err e = t->failed;
	struct node *n = e || count != PUTS_MAX ? NULL : txn_node(t, puts[0].mailbox);
	memset(ret_ids, 0, count * sizeof *ret_ids);
	if (n && can_be_first(t, n, puts, &e))
		e = put_first(t, n, puts, ret_ids);
	if (txn_fail(t, e))
		return e;
	for (size_t i = 0; i < count && !e; i++)
		if (!ret_ids[i])
			e = txn_message_put(t, &puts[i], &ret_ids[i]);
	return e;
}

/* --- gone ----------------------------------------------------------------------------------------------------------------------- */

/* The message turned up elsewhere before it vanished here: the row that it has there goes, and this one stands in its place. */
static enum mf_err take_place(struct txn *t, struct node *n, struct row *row, const struct row *arrival)
{
	struct node *there = txn_node(t, arrival->entry.mailbox);
	uint64_t double_id = arrival->entry.id;
	char old_name[NAME_MAX_BYTES + 1];
	memcpy(old_name, row->name, sizeof old_name);
	bool is_free = false;
	enum mf_err e = row_remove(t, double_id);
	if (!e)
		e = name_is_free(t, there, row->name, &is_free);
	if (!e && !is_free)
		memcpy(row->name, arrival->name, sizeof row->name);
	row->entry.uid = arrival->entry.uid;
	row->entry.ctime = t->now_ns;
	row->flags = arrival->flags;
	row->modseq = arrival->modseq;
	memcpy(row->keywords, arrival->keywords, sizeof row->keywords);
	if (!e)
		e = settle_elsewhere(t, there, row, double_id);
	if (!e)
		e = row_place(t, there, row);
	if (e)
		return e;
	row_count(there, -1, arrival->flags);
	row_count(there, 1, row->flags);
	arrival_forget(t, arrival->match, double_id);
	row_hide(t, n, row->entry.id);
	row_hide(t, there, double_id);
	row_show(t, there, row, true);
	if (!txn_change_cancel(t, CHANGE_MESSAGE_ADDED, double_id))
		row_tell(t, CHANGE_MESSAGE_REMOVED, there, arrival);
	row_tell_moved(t, there, row, n->m.id, old_name);
	txn_names_changed(t, there->m.id);
	txn_body(t, double_id, row->entry.id);
	return MF_OK;
}

/* gone: at the server; else it is only not wanted here any more, and what is to be done with it is done */
static enum mf_err leave(struct txn *t, uint64_t mailbox, uint32_t uid, bool gone)
{
	struct node *n = t->failed ? NULL : txn_node(t, mailbox);
	if (!n || !uid)
		return t->failed ? t->failed : MF_NOT_FOUND;
	struct row row, arrival;
	enum mf_err e = row_by_uid(t, n, uid, &row);
	if (e) {
		e = e == MF_NOT_FOUND && gone ? settle_vanished(t, n, uid) : e;
		return e == MF_NOT_FOUND ? e : txn_fail(t, e);
	}
	unsigned flags = row.flags;
	e = gone ? arrival_match(t, &row, mailbox, &arrival) : MF_NOT_FOUND;
	if (!e) {
		e = take_place(t, n, &row, &arrival);
	} else if (e == MF_NOT_FOUND) {
		e = limbo_put(t, n, &row);
		row_hide(t, n, row.entry.id);
		/* one that this transaction has brought was never seen */
		if (!txn_change_cancel(t, CHANGE_MESSAGE_ADDED, row.entry.id))
			row_tell(t, CHANGE_MESSAGE_REMOVED, n, &row);
		if (!e && gone && txn_has_ops(t))
			e = stray_begin(t, row.entry.id, mailbox, uid);
	}
	if (e)
		return txn_fail(t, e);
	arrival_forget(t, row.match, row.entry.id);
	row_count(n, -1, flags);
	txn_names_changed(t, mailbox);
	return MF_OK;
}

enum mf_err txn_message_vanished(struct txn *t, uint64_t mailbox, uint32_t uid)
{
	return leave(t, mailbox, uid, true);
}

enum mf_err txn_message_trimmed(struct txn *t, uint64_t mailbox, uint32_t uid)
{
	return leave(t, mailbox, uid, false);
}

struct purged { uint64_t id, match; char *name; };

static void purged_free(struct purged *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i].name);
	free(list);
}

static enum mf_err purge_pick(struct txn *t, uint64_t shelf, size_t max, struct purged **ret, size_t *ret_count)
{
	struct purged *list = mf_alloc_array(max, sizeof *list);
	size_t found = 0;
	sqlite3_stmt *s = db_use(t->db, SQL_PURGE_PICK);
	sqlite3_bind_int64(s, 1, (int64_t)shelf);
	sqlite3_bind_int64(s, 2, (int64_t)max);
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK)
		list[found++] = (struct purged){ (uint64_t)sqlite3_column_int64(s, 0),
			                         (uint64_t)sqlite3_column_int64(s, 1), db_text(s, 2) };
	if (e != MF_NOT_FOUND) {
		purged_free(list, found);
		return e;
	}
	*ret = list;
	*ret_count = found;
	return MF_OK;
}

static enum mf_err purge_shelf(struct txn *t, uint64_t shelf, uint64_t mailbox, bool told, size_t *left)
{
	struct purged *list;
	size_t found;
	enum mf_err e = purge_pick(t, shelf, *left, &list, &found);
	if (e)
		return e;
	for (size_t i = 0; i < found && !e; i++) {
		e = row_remove(t, list[i].id);
		limbo_taken(t, list[i].match, list[i].id);
		txn_body(t, list[i].id, 0);
		if (!told)
			txn_change(t, &(struct change){ .kind = CHANGE_MESSAGE_REMOVED, .mailbox = mailbox,
				.message = list[i].id, .name = list[i].name });
	}
	*left -= found;
	if (!e && *left) {
		sqlite3_stmt *s = db_use(t->db, SQL_SHELF_REMOVE);
		sqlite3_bind_int64(s, 1, (int64_t)shelf);
		e = db_run(t->db, s);
	}
	purged_free(list, found);
	return e;
}

struct due { uint64_t shelf, mailbox; bool told; };

enum mf_err txn_limbo_purge(struct txn *t, int64_t age_ms)
{
	if (t->failed)
		return t->failed;
	struct due *due = NULL;
	size_t found = 0, room = 0, left = PURGE_MAX;
	sqlite3_stmt *s = db_use(t->db, SQL_SHELF_RETIRED);
	sqlite3_bind_int64(s, 1, txn_now_ms(t) - age_ms);
	sqlite3_bind_int64(s, 2, txn_now_ms(t) + PURGE_CLOCK_SLACK_MS); /* the clock was set back */
	enum mf_err e;
	while ((e = db_step(t->db, s)) == MF_OK) {
		if (found == room) {
			room = room ? room * 2 : 16;
			due = mf_realloc_array(due, room, sizeof *due);
		}
		due[found++] = (struct due){ (uint64_t)sqlite3_column_int64(s, 0), (uint64_t)sqlite3_column_int64(s, 1),
			sqlite3_column_int(s, 2) != 0 };
	}
	e = e == MF_NOT_FOUND ? MF_OK : e;
	for (size_t i = 0; i < found && left && !e; i++)
		e = purge_shelf(t, due[i].shelf, due[i].mailbox, due[i].told, &left);
	free(due);
	return txn_fail(t, e);
}

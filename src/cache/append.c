/* A message that another part of mailfs has made goes into a mailbox: the copy of what was sent, a draft. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "cache/spool.h"
#include "cache/txn.h"

#define HEADER_MAX (1 << 20)
#define EARLIER_S (2 * 86400)      /* clocks differ: how much older than asked for one may be that is the same */
#define FILED_EARLIER_S 3600       /* than it was sent, by the server's clock: what is older was there before */

/* --- where -------------------------------------------------------------------------------------------------------------- */

struct looking { unsigned use; const char *name; uint64_t by_use, by_name, inbox; };

static bool look(void *context, const struct mailbox *m)
{
	struct looking *l = context;
	bool can = (m->raw || (m->flags & CACHE_MAILBOX_LOCAL)) && !(m->flags & CACHE_MAILBOX_NOSELECT);
	if (m->use == CACHE_USE_INBOX)
		l->inbox = m->id;
	if (can && m->use == l->use)
		l->by_use = m->id;
	if (can && !l->by_name && (!m->parent || m->parent == l->inbox) && strcmp(m->name, l->name) == 0)
		l->by_name = m->id;
	return !l->by_use;
}

/* MF_EXISTS is said of messages here: what has the name and cannot take any is MF_DENIED. */
static enum mf_err make_mailbox(struct txn *t, uint64_t parent, const char *name, uint64_t *ret)
{
	enum mf_err e = txn_mailbox_create(t, parent, name, ret);
	return e == MF_EXISTS ? MF_DENIED : e;
}

/* Every level that is missing is made. */
static enum mf_err need_path(struct txn *t, const char *path, uint64_t *ret)
{
	enum mf_err e = MF_OK;
	uint64_t parent = 0;
	while (*path && !e) {
		MF_CLEANUP(mf_free) char *level = mf_strndup(path, strcspn(path, "/"));
		MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
		path += strlen(level) + (path[strlen(level)] == '/');
		if (!*level)
			continue;
		e = cache_mailbox_by_name(t->cache, parent, level, &m);
		if (!e)
			parent = m.id;
		else if (e == MF_NOT_FOUND)
			e = make_mailbox(t, parent, level, &parent);
	}
	*ret = parent;
	return e ? e : parent ? MF_OK : MF_INVALID;
}

static enum mf_err need_use(struct txn *t, unsigned use, const char *name, uint64_t *ret)
{
	struct looking l = { .use = use, .name = name };
	enum mf_err e = cache_mailboxes(t->cache, look, &l);
	*ret = l.by_use ? l.by_use : l.by_name;
	return e || *ret ? e : make_mailbox(t, mailbox_home(t), name, ret);
}

enum mf_err txn_sent(struct txn *t, const char *path, uint64_t *ret)
{
	if (t->failed)
		return t->failed;
	return path ? need_path(t, path, ret) : need_use(t, CACHE_USE_SENT, "Sent", ret);
}

enum mf_err txn_drafts(struct txn *t, uint64_t *ret)
{
	return t->failed ? t->failed : need_use(t, CACHE_USE_DRAFTS, "Drafts", ret);
}

/* --- what --------------------------------------------------------------------------------------------------------------- */

enum mf_err summarise(int fd, uint64_t size, struct mail_summary *ret)
{
	size_t want = size < HEADER_MAX ? (size_t)size : HEADER_MAX, got;
	MF_CLEANUP(mf_free) char *header = mf_alloc_array(want + 1, 1);
	enum mf_err e = file_read(fd, 0, header, want, &got);
	if (e || got < want)
		return e ? e : MF_IO;
	const char *end = memmem(header, got, "\n\r\n", 3);
	mail_summary_parse(header, end ? (size_t)(end - header) + 1 : got, size, ret);
	return MF_OK;
}

/* numbered: by the server; MF_NOT_FOUND */
static enum mf_err find(struct txn *t, const struct node *n, const char *message_id, int64_t since_s, bool numbered, uint64_t *ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_MESSAGE_ID);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	sqlite3_bind_int64(s, 2, since_s);
	db_bind_text(s, 3, message_id);
	sqlite3_bind_int(s, 4, numbered);
	enum mf_err e = *message_id ? db_step(t->db, s) : MF_NOT_FOUND;
	if (!e)
		*ret = (uint64_t)sqlite3_column_int64(s, 0);
	db_done(s);
	return e;
}

/* Put there by an earlier call whose answer was lost, or by the server itself */
static enum mf_err is_there(struct txn *t, uint64_t mailbox, const char *message_id, int64_t date, uint64_t *ret)
{
	const struct node *n = txn_node(t, mailbox);
	if (!n)
		return MF_NOT_FOUND;
	enum mf_err e = find(t, n, message_id, date - EARLIER_S, false, ret);
	return e == MF_NOT_FOUND ? MF_OK : e ? e : MF_EXISTS;
}

static enum mf_err look_first(struct txn *t, uint64_t mailbox, uint64_t message)
{
	struct ops ops = { 0 };
	enum mf_err e = ops_of_message(t, message, &ops);
	struct op *placing = ops_placing(&ops);
	if (!e && placing) {
		placing->parent = mailbox;
		e = op_store(t, placing);
	}
	ops_finish(&ops);
	return txn_fail(t, e);
}

static enum mf_err add(struct txn *t, uint64_t mailbox, const struct append *what, const struct mail_summary *summary, uint64_t *ret)
{
	char name[NAME_MAX_BYTES + 1];
	struct message_put put = { .mailbox = mailbox, .size = what->size, .internal_date = what->internal_date, .keywords = "", .summary = summary };
	struct written written = { .summary = summary, .internal_date = what->internal_date, .upload = true,
		.due_ms = what->look_ms ? txn_now_ms(t) + what->look_ms : 0 };
	struct spool_note note = { "", name, what->internal_date };
	const struct node *n = txn_node(t, mailbox);
	enum mf_err e = n ? name_for_new(t, n, &put, what->internal_date, name) : MF_NOT_FOUND;
	if (!e)
		e = txn_create(t, mailbox, name, ret);
	if (!e)
		e = txn_change_flags(t, *ret, what->flags, 0, NULL, NULL);
	if (!e)
		e = spool_prepare(t->cache, *ret, what->fd, what->size, true, &note, &written.size);
	if (!e)
		e = txn_written(t, *ret, &written, &(struct disposal){ .expunge = true });
	if (e)
		spool_discard_prepared(t->cache, *ret);
	return e || !what->look_ms ? e : look_first(t, mailbox, *ret);
}

enum mf_err txn_append(struct txn *t, uint64_t mailbox, const struct append *what, uint64_t *ret)
{
	struct mail_summary summary = { 0 };
	enum mf_err e = t->failed ? t->failed : summarise(what->fd, what->size, &summary);
	if (!e && !what->again)
		e = is_there(t, mailbox, summary.message_id, what->internal_date, ret);
	if (!e)
		e = add(t, mailbox, what, &summary, ret);
	mail_summary_finish(&summary);
	return e;
}

/* --- put there by the server ---------------------------------------------------------------------------------------------- */

static enum mf_err message_id_of(struct txn *t, uint64_t message, char **ret)
{
	sqlite3_stmt *s = db_use(t->db, SQL_SUMMARY_MESSAGE_ID);
	sqlite3_bind_int64(s, 1, (int64_t)message);
	enum mf_err e = db_step(t->db, s);
	if (!e)
		*ret = db_text(s, 0);
	db_done(s);
	return e ? e : *ret ? MF_OK : MF_NOT_FOUND;
}

/* The row that was to be stored goes, and the server's has what people know it by. */
static enum mf_err stands_for(struct txn *t, const struct row *row, uint64_t mailbox, uint64_t filed)
{
	static const struct disposal gone = { .expunge = true };
	enum mf_err e = txn_remove(t, row->entry.id, &gone);
	if (e)
		return e;
	(void)txn_change_flags(t, filed, row->flags, 0, row->keywords, NULL); /* as far as the server permits it */
	(void)txn_move(t, filed, mailbox, row->name, &gone);
	return t->failed;
}

static enum mf_err filed(struct txn *t, const struct op *op)
{
	struct row row;
	struct node *n;
	uint64_t there;
	MF_CLEANUP(mf_free) char *message_id = NULL;
	enum mf_err e = change_visible(t, op->message, &row, &n);
	if (!e && (op->state != OP_QUEUED || !op->parent || n->m.id != op->parent))
		return MF_NOT_FOUND;
	if (!e)
		e = message_id_of(t, op->message, &message_id);
	if (!e)
		e = find(t, n, message_id, op->since_ms / 1000 - FILED_EARLIER_S, true, &there);
	return e ? e : stands_for(t, &row, n->m.id, there);
}

enum mf_err txn_op_filed(struct txn *t, uint64_t id)
{
	struct op op;
	enum mf_err e = t->failed ? t->failed : op_by_id(t, id, &op);
	if (!e) {
		e = filed(t, &op);
		op_finish(&op);
	}
	return e == MF_NOT_FOUND ? e : txn_fail(t, e);
}

/* A message that another part of mailfs has made goes into a mailbox: the copy of what was sent, a draft. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "cache/spool.h"
#include "cache/txn.h"

#define HEADER_MAX (1 << 20)
#define EARLIER_S (2 * 86400)      /* clocks differ: how much older than asked for one may be that is the same */

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
			e = txn_mailbox_create(t, parent, level, &parent);
	}
	*ret = parent;
	return e ? e : parent ? MF_OK : MF_INVALID;
}

static enum mf_err need_use(struct txn *t, unsigned use, const char *name, uint64_t *ret)
{
	struct looking l = { .use = use, .name = name };
	uint64_t home = 0;
	enum mf_err e = cache_mailboxes(t->cache, look, &l);
	if (!e)
		e = mailbox_home(t, &home);
	*ret = l.by_use ? l.by_use : l.by_name;
	return e || *ret ? e : txn_mailbox_create(t, home, name, ret);
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

static enum mf_err summarise(const struct append *what, struct mail_summary *ret)
{
	size_t want = what->size < HEADER_MAX ? (size_t)what->size : HEADER_MAX, got = 0;
	MF_CLEANUP(mf_free) char *header = mf_alloc_array(want + 1, 1);
	while (got < want) {
		ssize_t n = pread(what->fd, header + got, want - got, (off_t)got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? mf_err_from_errno(errno) : MF_IO;
		got += (size_t)n;
	}
	const char *end = memmem(header, got, "\n\r\n", 3);
	mail_summary_parse(header, end ? (size_t)(end - header) + 1 : got, what->size, ret);
	return MF_OK;
}

/* Put there by an earlier call whose answer was lost, or by the server itself */
static enum mf_err is_there(struct txn *t, uint64_t mailbox, const char *message_id, int64_t date, bool *ret)
{
	const struct node *n = txn_node(t, mailbox);
	if (!n || !*message_id)
		return n ? MF_OK : MF_NOT_FOUND;
	sqlite3_stmt *s = db_use(t->db, SQL_MESSAGE_BY_MESSAGE_ID);
	sqlite3_bind_int64(s, 1, (int64_t)n->shelf);
	sqlite3_bind_int64(s, 2, date - EARLIER_S);
	db_bind_text(s, 3, message_id);
	enum mf_err e = db_step(t->db, s);
	db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

static enum mf_err add(struct txn *t, uint64_t mailbox, const struct append *what, const struct mail_summary *summary, uint64_t *ret)
{
	char name[NAME_MAX_BYTES + 1];
	struct message_put put = { .mailbox = mailbox, .size = what->size, .internal_date = what->internal_date, .keywords = "", .summary = summary };
	struct written written = { .summary = summary, .internal_date = what->internal_date, .upload = true };
	struct spool_note note = { "", name, what->internal_date };
	const struct node *n = txn_node(t, mailbox);
	enum mf_err e = n ? name_for_new(t, n, &put, what->internal_date, name) : MF_NOT_FOUND;
	if (!e)
		e = txn_create(t, mailbox, name, ret);
	if (!e)
		e = txn_change_flags(t, *ret, what->flags, 0, NULL, NULL);
	if (!e)
		e = spool_prepare(t->cache, *ret, what->fd, what->size, true, &note, &written.size);
	return e ? e : txn_written(t, *ret, &written, &(struct disposal){ .expunge = true });
}

enum mf_err txn_append(struct txn *t, uint64_t mailbox, const struct append *what, uint64_t *ret)
{
	struct mail_summary summary = { 0 };
	bool there = false;
	enum mf_err e = t->failed ? t->failed : summarise(what, &summary);
	if (!e && !what->again)
		e = is_there(t, mailbox, summary.message_id, what->internal_date, &there);
	if (!e)
		e = there ? MF_EXISTS : add(t, mailbox, what, &summary, ret);
	mail_summary_finish(&summary);
	return e;
}

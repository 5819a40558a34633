/* Names in one directory: unique, given once. */
#include <stdio.h>
#include <string.h>

#include "cache/txn.h"
#include "mail/name.h"

#define EXTENSION ".eml"

static enum mf_err ask(struct txn *t, enum statement which, uint64_t place, const char *name, bool *ret)
{
	sqlite3_stmt *s = db_use(t->db, which);
	sqlite3_bind_int64(s, 1, (int64_t)place);
	db_bind_text(s, 2, name);
	enum mf_err e = db_step(t->db, s);
	if (!e)
		db_done(s);
	*ret = !e;
	return e == MF_NOT_FOUND ? MF_OK : e;
}

enum mf_err name_is_free(struct txn *t, const struct node *n, const char *name, bool *ret)
{
	bool taken;
	enum mf_err e = ask(t, SQL_MESSAGE_NAME_TAKEN, n->shelf, name, &taken);
	if (!e && !taken && txn_has_children(t, n->m.id))
		e = ask(t, SQL_MAILBOX_NAME_TAKEN, n->m.id, name, &taken);
	*ret = !taken;
	return e;
}

/* also by what may come back */
static enum mf_err is_unclaimed(struct txn *t, const struct node *n, const char *name, bool *ret)
{
	enum mf_err e = name_is_free(t, n, name, ret);
	if (e || !*ret || !t->cache->limbo.rows.count)
		return e;
	bool reserved;
	e = ask(t, SQL_NAME_RESERVED, n->m.id, name, &reserved);
	*ret = !reserved;
	return e;
}

typedef void twin_maker(const void *context, unsigned twin, char ret[static NAME_MAX_BYTES + 1]);

/* The first free twin from 2 on, found in few steps however many there are: doubling, then halving */
static enum mf_err first_free_twin(struct txn *t, const struct node *n, twin_maker *make, const void *context,
                                   char ret[static NAME_MAX_BYTES + 1])
{
	unsigned taken = 1, open = 2;
	bool is_free = false;
	enum mf_err e;
	for (;;) {
		make(context, open, ret);
		e = is_unclaimed(t, n, ret, &is_free);
		if (e)
			return e;
		if (is_free)
			break;
		taken = open;
		open *= 2;
	}
	while (open - taken > 1) {
		unsigned middle = taken + (open - taken) / 2;
		make(context, middle, ret);
		e = is_unclaimed(t, n, ret, &is_free);
		if (e)
			return e;
		if (is_free)
			open = middle;
		else
			taken = middle;
	}
	make(context, open, ret);
	return MF_OK;
}

struct new_name { const struct mail_summary *summary; int64_t mtime; };

static void make_new(const void *context, unsigned twin, char ret[static NAME_MAX_BYTES + 1])
{
	const struct new_name *name = context;
	mail_message_name(name->summary, name->mtime, twin, ret);
}

enum mf_err name_for_new(struct txn *t, const struct node *n, const struct message_put *put, int64_t mtime,
                         char ret[static NAME_MAX_BYTES + 1])
{
	struct new_name name = { put->summary, mtime };
	make_new(&name, 0, ret);
	bool is_free = false;
	enum mf_err e = is_unclaimed(t, n, ret, &is_free);
	return e || is_free ? e : first_free_twin(t, n, make_new, &name, ret);
}

/* bytes of s that fit into max, not cutting a character of UTF-8 */
static size_t fitting(const char *s, size_t len, size_t max)
{
	if (len <= max)
		return len;
	while (max > 0 && ((unsigned char)s[max] & 0xc0) == 0x80)
		max--;
	return max;
}

/* "..._k7f3q2mz-12" without its "-12" */
static size_t without_twin(const char *s, size_t len)
{
	size_t digits = 0;
	while (digits < len && s[len - 1 - digits] >= '0' && s[len - 1 - digits] <= '9')
		digits++;
	if (!digits || digits + 10 > len || s[len - 1 - digits] != '-')
		return len;
	size_t key = len - digits - 9;
	return s[key - 1] == '_' && strspn(s + key, "abcdefghijklmnopqrstuvwxyz234567") == 8 ? key + 8 : len;
}

static void make_old(const void *context, unsigned twin, char ret[static NAME_MAX_BYTES + 1])
{
	const char *own = context;
	size_t len = strlen(own), extension = strlen(EXTENSION);
	bool has_extension = len > extension && !strcmp(own + len - extension, EXTENSION);
	len = without_twin(own, has_extension ? len - extension : len);
	char tail[24];
	int tail_len = snprintf(tail, sizeof tail, "-%u%s", twin, has_extension ? EXTENSION : "");
	len = fitting(own, len, NAME_MAX_BYTES - (size_t)tail_len);
	memcpy(ret, own, len);
	memcpy(ret + len, tail, (size_t)tail_len + 1);
}

enum mf_err name_for_old(struct txn *t, const struct node *n, const char *own, char ret[static NAME_MAX_BYTES + 1])
{
	bool is_free = false;
	enum mf_err e = name_is_free(t, n, own, &is_free);
	if (e)
		return e;
	if (!is_free)
		return first_free_twin(t, n, make_old, own, ret);
	memcpy(ret, own, strlen(own) + 1);
	return MF_OK;
}

static void append(const char *wish, const char *tail, char ret[static NAME_MAX_BYTES + 1])
{
	size_t tail_len = strlen(tail), len = fitting(wish, strlen(wish), NAME_MAX_BYTES - tail_len);
	memcpy(ret, wish, len);
	memcpy(ret + len, tail, tail_len + 1);
}

/* A sibling has the name where two delimiters give the same one; a message has it where it came first. */
enum mf_err name_for_mailbox(struct txn *t, uint64_t parent, const char *wish, char ret[static NAME_MAX_BYTES + 1])
{
	const struct node *n = parent ? txn_node(t, parent) : NULL;
	char tail[32] = "";
	for (unsigned number = 1;; number++) {
		if (number > 1)
			snprintf(tail, sizeof tail, "~%u", number);
		append(wish, tail, ret);
		bool taken = false;
		enum mf_err e = n ? ask(t, SQL_MESSAGE_NAME_TAKEN, n->shelf, ret, &taken) : MF_OK;
		if (e)
			return e;
		if (taken) {
			snprintf(tail + strlen(tail), 9, "~mailbox");
			append(wish, tail, ret);
		}
		e = ask(t, SQL_MAILBOX_NAME_TAKEN, parent, ret, &taken);
		if (e || !taken)
			return e;
	}
}

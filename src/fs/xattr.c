/* user.mail.*: what the server says of messages and mailboxes, beside their bytes.
 *
 * Every other namespace answers ENOTSUP, at once: `ls -l` asks each file for several, and stops asking after the first
 * ENOTSUP. Inside user.* what is not there is ENODATA. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "fs/internal.h"
#include "fs/xattr.h"
#include "sync/remote.h"

enum { VALUE_MAX = 64 * 1024 };
#define PREFIX "user.mail."
#define FLAGS_NAME PREFIX "flags"

/* --- values ---------------------------------------------------------------------------------------------------------- */

void xattr_flags_value(unsigned flags, const char *keywords, struct buf *to)
{
	static const struct { unsigned flag; const char *name; } names[] = {
		{ FLAG_SEEN, "\\Seen" }, { FLAG_ANSWERED, "\\Answered" }, { FLAG_FLAGGED, "\\Flagged" },
		{ FLAG_DRAFT, "\\Draft" }, { FLAG_DELETED, "\\Deleted" },
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (flags & names[i].flag)
			buf_addf(to, "%s%s", to->len ? " " : "", names[i].name);
	if (keywords && *keywords)
		buf_addf(to, "%s%s", to->len ? " " : "", keywords);
}

void xattr_date_value(int64_t seconds, struct buf *to)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[64];
	if (gmtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
		buf_adds(to, text);
}

const char *xattr_use_value(unsigned use)
{
	static const char *const names[] = {
		[USE_NONE] = NULL, [USE_INBOX] = "\\Inbox", [USE_ALL] = "\\All", [USE_ARCHIVE] = "\\Archive", [USE_DRAFTS] = "\\Drafts",
		[USE_FLAGGED] = "\\Flagged", [USE_JUNK] = "\\Junk", [USE_SENT] = "\\Sent", [USE_TRASH] = "\\Trash",
	};
	return use < sizeof names / sizeof *names ? names[use] : NULL;
}

const char *xattr_sync_value(enum sync_policy policy)
{
	switch (policy) {
	case SYNC_DEMAND: return "demand";
	case SYNC_HEADERS: return "headers";
	case SYNC_FULL: return "full";
	}
	return "headers";
}

static const char *yes_no(bool yes)
{
	return yes ? "yes" : "no";
}

/* --- of a message and of a mailbox ------------------------------------------------------------------------------------ */

static void put_state(struct fs *fs, const struct node *node, struct buf *to)
{
	MF_CLEANUP(mf_free) char *state = NULL;
	if (journal_state_of(fs_account(fs, node)->cache, node->id, &state) == MF_OK)
		buf_adds(to, state);
}

static bool message_value(struct fs *fs, const struct node *node, const struct message *m, const char *name, struct buf *to)
{
	if (strcmp(name, "flags") == 0)
		xattr_flags_value(m->flags, m->keywords, to);
	else if (strcmp(name, "uid") == 0 && m->entry.uid != 0)
		buf_addf(to, "%" PRIu32, m->entry.uid);
	else if (strcmp(name, "subject") == 0)
		buf_adds(to, m->subject ? m->subject : "");
	else if (strcmp(name, "from") == 0)
		buf_adds(to, m->from ? m->from : "");
	else if (strcmp(name, "to") == 0)
		buf_adds(to, m->to ? m->to : "");
	else if (strcmp(name, "date") == 0)
		xattr_date_value(m->date, to);
	else if (strcmp(name, "message-id") == 0)
		buf_adds(to, m->message_id ? m->message_id : "");
	else if (strcmp(name, "cached") == 0)
		buf_adds(to, yes_no(cache_body_is_cached(fs_account(fs, node)->cache, node->id)));
	else if (strcmp(name, "state") == 0)
		put_state(fs, node, to);
	else
		return false;
	return true;
}

static enum mf_err get_of_message(struct fs *fs, const struct node *node, const char *name, struct buf *to)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err err = cache_message(fs_account(fs, node)->cache, node->id, &m);
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	return message_value(fs, node, &m, name, to) ? MF_OK : MF_NOT_FOUND;
}

static enum sync_policy policy_of(struct fs_account *account, const struct mailbox *m)
{
	if (m->sync >= 0)
		return (enum sync_policy)m->sync;
	MF_CLEANUP(mf_free) char *path = cache_mailbox_path(account->cache, m->id);
	return account_config_sync(account_config(account->account), path ? path : m->name);
}

static bool mailbox_value(struct fs_account *account, const struct mailbox *m, const char *name, struct buf *to)
{
	if (strcmp(name, "subscribed") == 0)
		buf_adds(to, yes_no(m->flags & MAILBOX_SUBSCRIBED));
	else if (strcmp(name, "special-use") == 0 && xattr_use_value(m->use))
		buf_adds(to, xattr_use_value(m->use));
	else if (strcmp(name, "uidvalidity") == 0)
		buf_addf(to, "%" PRIu32, m->uidvalidity);
	else if (strcmp(name, "total") == 0)
		buf_addf(to, "%" PRIu32, m->total);
	else if (strcmp(name, "unseen") == 0)
		buf_addf(to, "%" PRIu32, m->unseen);
	else if (strcmp(name, "complete") == 0)
		buf_adds(to, yes_no(m->complete));
	else if (strcmp(name, "sync") == 0)
		buf_adds(to, xattr_sync_value(policy_of(account, m)));
	else
		return false;
	return true;
}

static enum mf_err get_of_mailbox(struct fs *fs, const struct node *node, const char *name, struct buf *to)
{
	MF_CLEANUP(mailbox_finish) struct mailbox m = { 0 };
	struct fs_account *account = fs_account(fs, node);
	enum mf_err err = cache_mailbox(account->cache, node->id, &m);
	if (err != MF_OK)
		return err == MF_NOT_FOUND ? MF_STALE : err;
	return mailbox_value(account, &m, name, to) ? MF_OK : MF_NOT_FOUND;
}

/* MF_NOT_FOUND: no such attribute here */
static enum mf_err get(struct fs *fs, const struct node *node, const char *name, struct buf *to)
{
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
		return MF_NOT_FOUND;
	name += sizeof PREFIX - 1;
	if (node->kind == NODE_MESSAGE)
		return get_of_message(fs, node, name, to);
	if (node->kind == NODE_MAILBOX)
		return get_of_mailbox(fs, node, name, to);
	return node->kind == NODE_QUEUED && queued_value(fs, node, name, to) ? MF_OK : MF_NOT_FOUND;
}

/* --- handlers -------------------------------------------------------------------------------------------------------- */

static void reply_value(fuse_req_t req, const void *data, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, data, len);
}

void xattr_get(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (!xattr_is_ours(name)) {
		fuse_reply_err(req, ENOTSUP);
		return;
	}
	struct node node;
	struct buf value;
	buf_init(&value, VALUE_MAX);
	enum mf_err err = fs_node(fs_of(req), ino, &node) ? get(fs_of(req), &node, name, &value) : MF_STALE;
	if (err == MF_OK)
		reply_value(req, value.data, value.len, size);
	else
		fuse_reply_err(req, err == MF_NOT_FOUND ? ENODATA : fs_errno(err));
	buf_finish(&value);
}

/* Only what copying a message should copy is listed. */
void xattr_list(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct node node;
	bool message = fs_node(fs_of(req), ino, &node) && node.kind == NODE_MESSAGE;
	reply_value(req, FLAGS_NAME, message ? sizeof FLAGS_NAME : 0, size);
}

bool xattr_is_ours(const char *name)
{
	return strncmp(name, "user.", 5) == 0;
}

/* The order of what can be wrong: the namespace, an attribute that nobody may set, a tree that cannot be written. */
int xattr_set_refusal(const char *name)
{
	static const char *const fixed[] = {
		"uid", "subject", "from", "to", "date", "message-id", "cached", "state",
		"special-use", "uidvalidity", "total", "unseen", "complete",
	};
	if (!xattr_is_ours(name))
		return ENOTSUP;
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) == 0)
		for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
			if (strcmp(name + sizeof PREFIX - 1, fixed[i]) == 0)
				return EPERM;
	return 0;
}

/* --- setting ----------------------------------------------------------------------------------------------------------- */

static bool parse_flag(const char *word, size_t len, unsigned *ret)
{
	static const struct { const char *name; unsigned flag; } names[] = {
		{ "\\Seen", FLAG_SEEN }, { "\\Answered", FLAG_ANSWERED }, { "\\Flagged", FLAG_FLAGGED }, { "\\Draft", FLAG_DRAFT }, { "\\Deleted", FLAG_DELETED },
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == len && strncasecmp(names[i].name, word, len) == 0) {
			*ret = names[i].flag;
			return true;
		}
	return false;
}

/* An atom (RFC 9051 9) that a keyword can be */
static bool is_keyword(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (word[i] <= ' ' || word[i] >= 0x7f || strchr("(){%*\"\\]", word[i]))
			return false;
	return len > 0 && len <= 256;
}

bool xattr_parse_flags(const char *value, size_t size, struct flag_change *ret)
{
	*ret = (struct flag_change){ 0 };
	buf_init(&ret->add, VALUE_MAX);
	buf_init(&ret->remove, VALUE_MAX);
	for (size_t at = 0; at < size;) {
		size_t len = 0;
		while (at + len < size && value[at + len] != ' ' && value[at + len] != '\0')
			len++;
		const char *word = value + at;
		size_t word_len = len;
		char sign = len && (*word == '+' || *word == '-') ? *word : 0;
		if (sign) {
			word++;
			word_len--;
		}
		unsigned flag = 0;
		if (len && !parse_flag(word, word_len, &flag) && !is_keyword(word, word_len))
			return false;
		if (len && ret->words++ && ret->is_delta != (sign != 0))
			return false;
		ret->is_delta = sign != 0;
		*(sign == '-' ? &ret->flags_remove : &ret->flags) |= flag;
		struct buf *keywords = sign == '-' ? &ret->remove : &ret->add;
		if (len && !flag && buf_addf(keywords, "%s%.*s", keywords->len ? " " : "", (int)word_len, word) != MF_OK)
			return false;
		at += len + 1;
	}
	return true;
}

void flag_change_finish(struct flag_change *c)
{
	buf_finish(&c->add);
	buf_finish(&c->remove);
}

static enum mf_err set_flags(struct fs_account *account, uint64_t message, const char *value, size_t size)
{
	struct flag_change c;
	struct txn *t = NULL;
	enum mf_err err = xattr_parse_flags(value, size, &c) ? cache_begin(account->cache, &t) : MF_INVALID;
	if (err == MF_OK)
		err = c.is_delta ? txn_change_flags(t, message, c.flags, c.flags_remove, c.add.data, c.remove.data)
		                 : txn_set_flags(t, message, c.flags, c.add.data);
	flag_change_finish(&c);
	return fs_finish_change(account, t, err);
}

static enum mf_err set_subscribed(struct fs_account *account, uint64_t mailbox, const char *value, size_t size)
{
	bool yes = size == 3 && memcmp(value, "yes", 3) == 0;
	if (!yes && !(size == 2 && memcmp(value, "no", 2) == 0))
		return MF_INVALID;
	struct txn *t = NULL;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = txn_mailbox_subscribe(t, mailbox, yes);
	return fs_finish_change(account, t, err);
}

/* "default" is what the config says */
static enum mf_err set_sync(struct fs_account *account, uint64_t mailbox, const char *value, size_t size)
{
	static const char *const words[] = { [SYNC_DEMAND] = "demand", [SYNC_HEADERS] = "headers", [SYNC_FULL] = "full" };
	int policy = size == 7 && memcmp(value, "default", 7) == 0 ? -1 : -2;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (words[i] && strlen(words[i]) == size && memcmp(value, words[i], size) == 0)
			policy = (int)i;
	if (policy == -2)
		return MF_INVALID;
	struct txn *t = NULL;
	enum mf_err err = cache_begin(account->cache, &t);
	if (err == MF_OK)
		err = txn_mailbox_sync(t, mailbox, policy);
	err = fs_finish_change(account, t, err);
	if (err == MF_OK)
		account_refresh(account->account);
	return err;
}

static enum mf_err set(struct fs *fs, const struct node *node, const char *name, const char *value, size_t size)
{
	struct fs_account *account = fs_account(fs, node);
	if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
		return MF_UNSUPPORTED;
	name += sizeof PREFIX - 1;
	if (node->kind == NODE_MESSAGE && strcmp(name, "flags") == 0)
		return set_flags(account, node->id, value, size);
	if (node->kind == NODE_MAILBOX && strcmp(name, "subscribed") == 0)
		return set_subscribed(account, node->id, value, size);
	if (node->kind == NODE_MAILBOX && strcmp(name, "sync") == 0)
		return set_sync(account, node->id, value, size);
	return MF_UNSUPPORTED;
}

static void change_attribute(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size)
{
	struct fs *fs = fs_of(req);
	struct node node;
	int refusal = xattr_set_refusal(name);
	if (refusal) {
		fuse_reply_err(req, refusal);
		return;
	}
	if (fs_refuses(req))
		return;
	if (fs_node(fs, ino, &node) && node.kind == NODE_QUEUED && strcmp(name, PREFIX QUEUED_NOTIFY) == 0) {
		fs_reply(req, queued_set_notify(fs, &node, value, size));
		return;
	}
	if (fs_node(fs, ino, &node) && node.kind == NODE_QUEUED) {
		fuse_reply_err(req, ENOTSUP); /* what mv brings along from a mailbox means nothing here, and is no failure */
		return;
	}
	enum mf_err err = !fs_node(fs, ino, &node) ? MF_STALE : node.kind == NODE_MESSAGE || node.kind == NODE_MAILBOX
		? set(fs, &node, name, value, size) : MF_UNSUPPORTED;
	fs_reply(req, err == MF_NOT_FOUND ? MF_STALE : err);
}

void xattr_set(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	(void)flags;
	change_attribute(req, ino, name, value, size);
}

/* No flags at all, no wish to be told; nothing else can be taken away. */
void xattr_remove(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	if (strcmp(name, FLAGS_NAME) == 0 || strcmp(name, PREFIX QUEUED_NOTIFY) == 0 || xattr_set_refusal(name))
		change_attribute(req, ino, name, "", 0);
	else
		fuse_reply_err(req, EPERM);
}

/* The mailboxes: LIST with everything in one round trip where the server can; else LIST, LSUB and a STATUS for each. */
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "sync/imap/engine.h"

#define MAILBOXES_MAX 200000
#define NAMES_MAX (32U << 20)        /* bytes of all their names */
#define STATUS_AHEAD 256

struct box {
	char *raw, *object_id;
	struct remote_mailbox mailbox;
	size_t next;                 /* in its chain of the table; index + 1 */
};
struct namespace { char *prefix; bool asked, personal; };

struct imap_lister {
	struct box *boxes;
	size_t count, capacity, name_bytes;
	size_t *table, table_size;   /* index + 1 by hash of the name */
	struct namespace *namespaces;
	size_t namespace_count;
	bool with_status;            /* LIST asked for STATUS */
	bool extended, refused;
	bool too_many, unreadable;   /* some of what was told */
	enum mf_err result;          /* of LIST */
};

void imap_lister_destroy(struct imap_lister *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->count; i++)
		free(l->boxes[i].raw), free(l->boxes[i].object_id);
	for (size_t i = 0; i < l->namespace_count; i++)
		free(l->namespaces[i].prefix);
	free(l->boxes);
	free(l->table);
	free(l->namespaces);
	free(l);
}

/* --- what has been told ---------------------------------------------------------------------------------------------- */

static bool same_name(const char *a, const char *b)
{
	return !strcmp(a, b) || (!strcasecmp(a, "INBOX") && !strcasecmp(b, "INBOX"));
}

static size_t hash(const char *raw)
{
	size_t h = 14695981039346656037ULL;
	for (const char *p = strcasecmp(raw, "INBOX") ? raw : "INBOX"; *p; p++)
		h = (h ^ (unsigned char)*p) * 1099511628211ULL;
	return h;
}

static struct box *find(struct imap_lister *l, const char *raw)
{
	if (!l->table_size)
		return NULL;
	for (size_t i = l->table[hash(raw) % l->table_size]; i; i = l->boxes[i - 1].next)
		if (same_name(l->boxes[i - 1].raw, raw))
			return &l->boxes[i - 1];
	return NULL;
}

static void insert(struct imap_lister *l, size_t index)
{
	size_t *chain = &l->table[hash(l->boxes[index].raw) % l->table_size];
	l->boxes[index].next = *chain;
	*chain = index + 1;
}

static struct box *add(struct imap_lister *l, const char *raw)
{
	l->name_bytes += strlen(raw);
	if (l->count == MAILBOXES_MAX || l->name_bytes > NAMES_MAX) {
		l->too_many = true;
		return NULL;
	}
	if (l->count == l->capacity) {
		l->capacity = l->capacity ? l->capacity * 2 : 64;
		l->boxes = mf_realloc_array(l->boxes, l->capacity, sizeof *l->boxes);
		free(l->table);
		l->table_size = l->capacity * 2;
		l->table = mf_alloc_array(l->table_size, sizeof *l->table);
		for (size_t i = 0; i < l->count; i++)
			insert(l, i);
	}
	l->boxes[l->count] = (struct box){ .raw = mf_strdup(raw) };
	insert(l, l->count);
	return &l->boxes[l->count++];
}

static bool is_8bit(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s >= 0x80)
			return true;
	return false;
}

static void take_list(struct imap_lister *l, const struct remote_mailbox *m)
{
	struct box *box = find(l, m->raw);
	if (!box && !(box = add(l, m->raw)))
		return;
	box->mailbox.delimiter = m->delimiter;
	box->mailbox.flags |= m->flags;
	box->mailbox.utf8 = is_8bit(m->raw); /* what modified UTF-7 never has */
	if (m->use)
		box->mailbox.use = m->use;
	if (!strcasecmp(m->raw, "INBOX"))
		box->mailbox.use = USE_INBOX;
}

static void take_status(struct imap_lister *l, const struct remote_mailbox *m)
{
	struct box *box = find(l, m->raw);
	if (!box)
		return;
	box->mailbox.status = m->status;
	free(box->object_id);
	box->object_id = m->object_id ? mf_strdup(m->object_id) : NULL;
	if (m->status.uidvalidity && m->status.uidnext)
		box->mailbox.flags |= MAILBOX_HAS_STATUS;
}

/* ((prefix delimiter ...) (...)) or NIL, three times (RFC 9051 7.3.5) */
static void take_namespaces(struct imap_lister *l, struct scan s)
{
	struct buf scratch;
	struct span prefix;
	buf_init(&scratch, 4096);
	for (int kind = 0; kind < 3; kind++, (void)scan_char(&s, ' ')) {
		struct scan at = s;
		if (!scan_skip(&s))
			break;
		if (!scan_char(&at, '('))
			continue;
		while (scan_char(&at, ' ') || at.p < at.end) {
			struct scan one = at;
			if (!scan_skip(&at) || !scan_char(&one, '(') || !scan_nstring(&one, &scratch, &prefix) || !prefix.p)
				break;
			if (!prefix.len || l->namespace_count == 64)
				continue;
			l->namespaces = mf_realloc_array(l->namespaces, l->namespace_count + 1, sizeof *l->namespaces);
			l->namespaces[l->namespace_count++] = (struct namespace){ .prefix = mf_strndup(prefix.p, prefix.len), .personal = kind == 0 };
		}
	}
	buf_finish(&scratch);
}

void imap_lister_data(struct imap_lister *l, struct imap_data *data)
{
	data->expected = true;
	l->unreadable |= data->unreadable;
	if (data->kind == DATA_LIST) {
		take_list(l, &data->mailbox);
	} else if (data->kind == DATA_LSUB) {
		struct box *box = find(l, data->mailbox.raw);
		if (box)
			box->mailbox.flags |= MAILBOX_SUBSCRIBED;
	} else if (data->kind == DATA_STATUS) {
		take_status(l, &data->mailbox);
	} else if (data->kind == DATA_NAMESPACE) {
		take_namespaces(l, data->rest);
	} else {
		data->expected = false;
	}
}

/* --- asking ---------------------------------------------------------------------------------------------------------- */

/* Of what is listed at other times: not that there is nothing */
static bool is_out_of_order(const struct imap_cond *cond)
{
	return span_is(cond->code, "SERVERBUG") || span_is(cond->code, "CORRUPTION") || span_is(cond->code, "CONTACTADMIN");
}

/* c->first: of a namespace, which is refused where there is none, and is not the list */
static enum mf_err listed(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct imap_lister *l = c->owner;
	if (cond->kind == COND_OK)
		return MF_OK;
	if (imap_cond_classify(cond) == MF_OFFLINE && !span_is(cond->code, "LIMIT"))
		return imap_cond_error(s, cond, c->what);
	if (c->first) {
		l->unreadable |= is_out_of_order(cond);
		return MF_OK;
	}
	if (l->extended) {
		l->refused = true;
		return MF_OK;
	}
	enum mf_err e = imap_cond_error(s, cond, c->what);
	l->result = e;
	return s->dead ? s->dead : MF_OK;
}

/* A capability without a number says that each mailbox has its own limit (RFC 7889 3) */
static void put_status_items(struct imap *s)
{
	imap_put(s, "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN%s%s%s)", s->caps & CAP(CONDSTORE) ? " HIGHESTMODSEQ" : "",
	         s->caps & CAP(APPENDLIMIT) ? " APPENDLIMIT" : "", s->caps & CAP(OBJECTID) && !s->cyrus ? " MAILBOXID" : "");
}

static enum mf_err send_list(struct imap *s, struct imap_lister *l, const char *prefix, bool namespace)
{
	imap_put(s, "LIST \"\" ");
	char *pattern = mf_format("%s*", prefix);
	imap_put_string(s, pattern, strlen(pattern));
	free(pattern);
	if (l->extended) {
		imap_put(s, " RETURN (SUBSCRIBED%s", s->caps & CAP(SPECIAL_USE) ? " SPECIAL-USE" : "");
		if (l->with_status) {
			imap_put(s, " STATUS ");
			put_status_items(s);
		}
		imap_put(s, ")");
	}
	return imap_send(s, &(struct imap_command){ .what = "LIST", .done = listed, .owner = l, .first = namespace }, NULL);
}

enum mf_err imap_lister_send(struct imap *s)
{
	imap_lister_destroy(s->lister);
	struct imap_lister *l = s->lister = MF_NEW(struct imap_lister);
	enum mf_err e = imap_refresh_view(s);
	l->extended = s->caps & CAP(LIST_EXTENDED);
	l->with_status = l->extended && (s->caps & CAP(LIST_STATUS));
	if (!e && (s->caps & CAP(NAMESPACE))) {
		imap_put(s, "NAMESPACE");
		e = imap_send(s, &(struct imap_command){ .what = "NAMESPACE", .owner = l }, NULL);
	}
	if (!e)
		e = send_list(s, l, "", false);
	if (!e && !l->extended) {
		imap_put(s, "LSUB \"\" \"*\"");
		e = imap_send(s, &(struct imap_command){ .what = "LSUB", .owner = l }, NULL);
	}
	return e;
}

/* namespaces that "*" did not show: other users' and shared ones, at some servers */
static enum mf_err ask_namespaces(struct imap *s, struct imap_lister *l)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < l->namespace_count && !e; i++) {
		struct namespace *n = &l->namespaces[i];
		size_t len = strlen(n->prefix);
		bool covered = n->asked;
		for (size_t k = 0; k < l->count && !covered; k++)
			covered = !strncasecmp(l->boxes[k].raw, n->prefix, len) || (!strncasecmp(l->boxes[k].raw, n->prefix, len - 1) && !l->boxes[k].raw[len - 1]);
		n->asked = true;
		if (!covered)
			e = send_list(s, l, n->prefix, true);
		if (e && !s->dead) /* a prefix that cannot be sent */
			e = MF_OK;
	}
	return e ? e : imap_pump_all(s);
}

static enum mf_err ask_status(struct imap *s, struct imap_lister *l)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < l->count && !e; i++) {
		if (l->boxes[i].mailbox.flags & (MAILBOX_NOSELECT | MAILBOX_HAS_STATUS))
			continue;
		imap_put(s, "STATUS ");
		imap_put_string(s, l->boxes[i].raw, strlen(l->boxes[i].raw));
		imap_put(s, " ");
		put_status_items(s);
		e = imap_send(s, &(struct imap_command){ .what = "STATUS", .owner = l }, NULL);
		if (e && !s->dead) /* a name that cannot be sent has no status */
			e = MF_OK;
		while (!e && s->under_way >= STATUS_AHEAD)
			e = imap_pump(s);
	}
	return e ? e : imap_pump_all(s);
}

/* --- special use by name, where the server does not tell (RFC 6154) --------------------------------------------------- */

static enum special_use use_of_name(const char *name)
{
	static const struct { const char *name; enum special_use use; } known[] = {
		{ "Sent", USE_SENT }, { "Sent Items", USE_SENT }, { "Sent Messages", USE_SENT }, { "Sent Mail", USE_SENT },
		{ "Trash", USE_TRASH }, { "Deleted Items", USE_TRASH }, { "Deleted Messages", USE_TRASH }, { "Bin", USE_TRASH },
		{ "Drafts", USE_DRAFTS }, { "Draft", USE_DRAFTS }, { "Junk", USE_JUNK }, { "Spam", USE_JUNK }, { "Junk E-mail", USE_JUNK },
		{ "Junk Email", USE_JUNK }, { "Bulk Mail", USE_JUNK }, { "Archive", USE_ARCHIVE }, { "Archives", USE_ARCHIVE },
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcasecmp(name, known[i].name))
			return known[i].use;
	return USE_NONE;
}

/* its last level, if it is at the top or right below INBOX; else NULL */
static const char *top_name(const struct box *box)
{
	const char *name = box->raw;
	char d = box->mailbox.delimiter;
	if (d && !strncasecmp(name, "INBOX", 5) && name[5] == d)
		name += 6;
	return d && strchr(name, d) ? NULL : name;
}

static void guess_uses(struct imap_lister *l)
{
	bool told[USE_TRASH + 1] = { false };
	for (size_t i = 0; i < l->count; i++)
		told[l->boxes[i].mailbox.use] = true;
	for (size_t i = 0; i < l->count; i++) {
		struct box *box = &l->boxes[i];
		const char *name = top_name(box);
		enum special_use use = name && !box->mailbox.use && !(box->mailbox.flags & MAILBOX_NOSELECT) ? use_of_name(name) : USE_NONE;
		if (use && !told[use]) {
			box->mailbox.use = use;
			told[use] = true;
		}
	}
}

/* A personal namespace that begins with INBOX: nothing of the user's can be beside it. */
static void mark_home(struct imap_lister *l)
{
	struct box *inbox = find(l, "INBOX");
	char d = inbox ? inbox->mailbox.delimiter : 0;
	for (size_t i = 0; d && i < l->namespace_count; i++) {
		const struct namespace *n = &l->namespaces[i];
		if (n->personal && !strncasecmp(n->prefix, "INBOX", 5) && n->prefix[5] == d && !n->prefix[6])
			inbox->mailbox.flags |= MAILBOX_HOME;
	}
}

/* --- what else is known of each --------------------------------------------------------------------------------------- */

static bool is_others(const struct imap_lister *l, const char *raw)
{
	for (size_t i = 0; i < l->namespace_count; i++)
		if (!l->namespaces[i].personal && !strncmp(raw, l->namespaces[i].prefix, strlen(l->namespaces[i].prefix)))
			return true;
	return false;
}

static void complete(const struct imap *s, struct box *box)
{
	box->mailbox.raw = box->raw;
	box->mailbox.object_id = box->object_id;
	if (is_others(s->lister, box->raw))
		box->mailbox.flags |= MAILBOX_OTHERS;
	if (s->append_limit)
		box->mailbox.status.append_limit = s->append_limit;
}

/* --- the verb -------------------------------------------------------------------------------------------------------- */

static enum mf_err gather(struct imap *s)
{
	enum mf_err e = s->lister ? MF_OK : imap_lister_send(s);
	if (!e)
		e = imap_pump_all(s);
	if (!e && s->lister->refused) { /* says that it can, and cannot: the old way, here and from now on */
		imap_memory_distrust(s->options.memory, CAP(LIST_EXTENDED) | CAP(LIST_STATUS));
		s->caps &= ~(CAP(LIST_EXTENDED) | CAP(LIST_STATUS));
		e = imap_lister_send(s);
		if (!e)
			e = imap_pump_all(s);
	}
	if (!e && !s->lister->too_many)
		e = ask_namespaces(s, s->lister);
	if (!e && !s->lister->too_many && !s->lister->with_status)
		e = ask_status(s, s->lister);
	if (!e && s->lister->result)
		e = s->lister->result;
	if (!e && s->lister->too_many)
		e = imap_fail(s, MF_TOO_BIG, "the server lists more than %d mailboxes, or more than %u MiB of names", MAILBOXES_MAX, NAMES_MAX >> 20);
	return e;
}

enum mf_err imap_mailboxes(struct imap *s, const struct mailbox_sink *sink)
{
	enum mf_err e = imap_verb_begin(s, NULL, NULL);
	if (e)
		return e;
	e = gather(s);
	if (!e) {
		guess_uses(s->lister);
		mark_home(s->lister);
	}
	for (size_t i = 0; !e && i < s->lister->count; i++) {
		complete(s, &s->lister->boxes[i]);
		e = sink->mailbox(sink->context, &s->lister->boxes[i].mailbox);
	}
	if (!e && s->lister->unreadable && sink->unreadable)
		sink->unreadable(sink->context);
	e = imap_verb_end(s, e);
	imap_lister_destroy(s->lister);
	s->lister = NULL;
	return e;
}

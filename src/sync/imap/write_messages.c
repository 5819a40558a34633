/* Changes to the messages of a mailbox: FLAGS, COPY, MOVE, EXPUNGE. See write.h. */
#include "sync/imap/write.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SET_MAX 7000          /* bytes of a command's set: many servers take lines of 8,000 */

/* --- which messages -------------------------------------------------------------------------------------------------- */

/* how many of the write's UIDs are below `uid` */
static size_t count_below(const struct remote_write *w, uint64_t uid)
{
	size_t low = 0, high = w->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (w->uids[middle] < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static size_t count_between(const struct remote_write *w, uint32_t first, uint32_t last)
{
	return count_below(w, (uint64_t)last + 1) - count_below(w, first);
}

bool write_is_of(const struct remote_write *w, uint32_t uid)
{
	size_t at = count_below(w, uid);
	return at < w->count && w->uids[at] == uid;
}

static void add_between(const struct remote_write *w, uint32_t first, uint32_t last, struct uidset *to)
{
	size_t end = count_below(w, (uint64_t)last + 1);
	for (size_t i = count_below(w, first); i < end; i++)
		uidset_add(to, w->uids[i], w->uids[i]);
}

/* --- COPYUID (RFC 4315 3): two sets of the same size, each in the order of the other ------------------------------------ */

static bool next_range(struct scan *s, uint32_t *ret_first, uint32_t *ret_last)
{
	uint32_t a, b;
	if (!scan_uid(s, &a))
		return false;
	b = a;
	if (scan_char(s, ':') && !scan_uid(s, &b))
		return false;
	if (s->p < s->end && !scan_char(s, ','))
		return false;
	*ret_first = a < b ? a : b;
	*ret_last = a < b ? b : a;
	return true;
}

static bool set_size(struct span set, uint64_t *ret)
{
	struct scan s = { set.p, set.p + set.len };
	uint32_t first, last;
	for (*ret = 0; s.p < s.end; *ret += (uint64_t)last - first + 1)
		if (!next_range(&s, &first, &last))
			return false;
	return *ret != 0;
}

struct walk { struct scan rest; uint64_t next, last; };

/* of a set that set_size() has been through */
static uint32_t walk_next(struct walk *w)
{
	uint32_t first = 0, last = 0;
	if (w->next > w->last) {
		(void)next_range(&w->rest, &first, &last);
		w->next = first;
		w->last = last;
	}
	return (uint32_t)w->next++;
}

static struct walk walk_set(struct span set)
{
	return (struct walk){ .rest = { set.p, set.p + set.len }, .next = 1 };
}

static bool take_pairs(struct write_item *item, const struct remote_write *w, struct scan s)
{
	uint32_t uidvalidity;
	struct span from, to;
	uint64_t from_size, to_size;
	if (!scan_uid(&s, &uidvalidity) || !scan_char(&s, ' ') || !scan_word(&s, &from) || !scan_char(&s, ' ') || !scan_word(&s, &to) ||
	    !set_size(from, &from_size) || !set_size(to, &to_size))
		return false;
	if (from_size != to_size || from_size > w->count - item->count || (item->uidvalidity && item->uidvalidity != uidvalidity))
		return false;
	struct walk a = walk_set(from), b = walk_set(to);
	item->uidvalidity = uidvalidity;
	item->pairs = mf_realloc_array(item->pairs, item->count + (size_t)from_size, sizeof *item->pairs);
	for (; from_size; from_size--) {
		struct uid_pair pair = { walk_next(&a), 0 };
		pair.to = walk_next(&b);
		if (!write_is_of(w, pair.from))
			return false;
		item->pairs[item->count++] = pair;
	}
	return true;
}

/* The first message that was copied or moved; 0: that cannot be read */
static uint32_t first_from(struct span args)
{
	struct scan s = { args.p, args.p + args.len };
	uint32_t uidvalidity, uid;
	return scan_uid(&s, &uidvalidity) && scan_char(&s, ' ') && scan_uid(&s, &uid) ? uid : 0;
}

static bool is_told(const struct write_item *item, uint32_t uid)
{
	for (size_t i = 0; i < item->count; i++)
		if (item->pairs[i].from == uid)
			return true;
	return false;
}

/* A server may tell of the messages of one command one by one, and of any of them again with its answer. */
static void take_copyuid(struct writer *v, struct imap_command *c, struct span args)
{
	struct write_item *item = &v->items[c->index];
	if (is_told(item, first_from(args)))
		return;
	c->said = true;
	if (!take_pairs(item, &v->writes[c->index], (struct scan){ args.p, args.p + args.len }))
		item->unsaid = true;
}

static bool is_move(const struct writer *v, const struct imap_command *c)
{
	return c->owner == v && c->last && v->writes[c->index].kind == WRITE_MOVE;
}

/* A server may tell those of several commands before it answers the first of them (Dovecot does, when they come together), so it is
 * the message that says which one is meant. */
void write_take_copyuid(struct writer *v, struct span args)
{
	uint32_t uid = first_from(args);
	for (struct imap_command *c = v->s->head; c && uid; c = c->next) {
		if (!is_move(v, c) || uid < c->first || uid > c->last || !write_is_of(&v->writes[c->index], uid))
			continue;
		take_copyuid(v, c, args);
		return;
	}
	for (struct imap_command *c = v->s->head; c; c = c->next)
		if (is_move(v, c) && !c->said)
			c->said = v->items[c->index].unsaid = true; /* it may be any one's */
}

static int by_from(const void *a, const void *b)
{
	uint32_t x = ((const struct uid_pair *)a)->from, y = ((const struct uid_pair *)b)->from;
	return (x > y) - (x < y);
}

/* In order. What tells one message twice, or two of one, tells nothing. */
void write_pairs_finish(struct writer *v, size_t i)
{
	struct write_item *item = &v->items[i];
	struct uidset to;
	uidset_init(&to);
	if (item->count && v->writes[i].kind != WRITE_APPEND)
		qsort(item->pairs, item->count, sizeof *item->pairs, by_from);
	for (size_t k = 0; k < item->count; k++) {
		uidset_add(&to, item->pairs[k].to, item->pairs[k].to);
		item->unsaid |= k && item->pairs[k].from == item->pairs[k - 1].from;
	}
	item->unsaid |= uidset_size(&to) != item->count;
	uidset_finish(&to);
	if (item->unsaid)
		item->uidvalidity = 0;
	if (!item->uidvalidity)
		item->count = 0;
}

/* --- what is there ---------------------------------------------------------------------------------------------------- */

/* The change of flags that a command is about; NULL: it is about something else */
static struct write_item *item_of_flags(struct writer *v, const struct imap_command *c)
{
	return c->owner == v && c->last && v->writes[c->index].kind == WRITE_FLAGS ? &v->items[c->index] : NULL;
}

/* Another client's change of flags, which a server may tell meanwhile, is no sign of ours. */
static bool has_flags_of(const struct imap_fetch *f, const struct remote_write *w)
{
	return !f->has_flags || ((f->flags & w->flags) == w->flags && !(f->flags & w->flags_remove));
}

void write_take_fetch(struct writer *v, const struct imap_fetch *f)
{
	for (struct imap_command *c = v->s->head; c; c = c->next) {
		struct write_item *item = item_of_flags(v, c);
		const struct remote_write *w = &v->writes[c->index];
		if (!item || f->uid < c->first || f->uid > c->last || !write_is_of(w, f->uid) || !has_flags_of(f, w))
			continue;
		if (!item->there)
			item->there = mf_alloc_array(w->count, sizeof *item->there);
		item->there[count_below(w, f->uid)] = true;
	}
}

void write_take_vanished(struct writer *v, struct scan set)
{
	struct uidset gone;
	uidset_init(&gone);
	(void)uidset_scan(&gone, &set, 1, UINT32_MAX);
	struct uid_ranges ranges = uidset_ranges(&gone);
	for (struct imap_command *c = v->s->head; c; c = c->next) {
		struct write_item *item = item_of_flags(v, c);
		for (size_t i = 0; item && item->there && i < ranges.count; i++) {
			const struct remote_write *w = &v->writes[c->index];
			size_t first = count_below(w, ranges.items[i].first), end = count_below(w, (uint64_t)ranges.items[i].last + 1);
			memset(item->there + first, 0, end - first);
		}
	}
	uidset_finish(&gone);
}

/* --- the mailbox ----------------------------------------------------------------------------------------------------- */

static enum mf_err selected(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct writer *v = c->owner;
	enum mf_err e = write_verdict(cond);
	if (e && mf_err_scope(e) >= MF_SCOPE_CONNECTION)
		return imap_cond_error(s, cond, c->what);
	if (e) {
		v->refused = v->writes[c->index].raw;
		v->refused_result = e;
		free(v->refused_reason);
		v->refused_reason = mf_strndup(cond->text.p ? cond->text.p : "", cond->text.len);
	}
	return MF_OK;
}

static bool is_selected(const struct imap *s, const char *raw)
{
	return s->selected.raw && s->selected.writable && !strcmp(s->selected.raw, raw);
}

enum mf_err write_select(struct writer *v, size_t i)
{
	struct imap *s = v->s;
	const char *raw = v->writes[i].raw;
	bool same = s->selected.raw && !strcmp(s->selected.raw, raw);
	unsigned news = same ? s->news : 0;
	enum mf_err e = imap_send_select(s, raw, "", &(struct imap_command){ .done = selected, .owner = v, .index = i, .writes = true });
	if (e && !s->dead) {
		write_fail(v, i, e, s->why.text, strlen(s->why.text));
		return MF_OK;
	}
	/* the commands before it are answered first: only now it is known what is selected */
	e = e ? e : imap_pump_all(s);
	if (!e && is_selected(s, raw)) {
		s->news |= news;
		imap_watch_selected(s);
	}
	return e;
}

enum mf_err write_use_mailbox(struct writer *v, size_t i)
{
	struct imap *s = v->s;
	const struct remote_write *w = &v->writes[i];
	bool known_refused = v->refused && !strcmp(v->refused, w->raw);
	enum mf_err e = known_refused || is_selected(s, w->raw) ? MF_OK : write_select(v, i);
	if (e || v->items[i].result)
		return e;
	if (v->refused && !strcmp(v->refused, w->raw))
		write_fail(v, i, v->refused_result, v->refused_reason, strlen(v->refused_reason));
	else if (!is_selected(s, w->raw))
		write_fail(v, i, MF_DENIED, "", 0);
	else if (s->selected.status.uidvalidity != w->uidvalidity)
		write_fail(v, i, MF_UIDVALIDITY, "", 0);
	else if (s->selected.read_only && w->kind != WRITE_COPY)
		write_fail(v, i, MF_DENIED, "the mailbox is read-only", 24);
	return MF_OK;
}

/* --- commands about sets of messages ---------------------------------------------------------------------------------- */

static void remember(struct writer *v, const struct imap_command *c)
{
	v->again = mf_realloc_array(v->again, v->again_count + 1, sizeof *v->again);
	v->again[v->again_count++] = (struct write_again){ c->index, c->first, c->last };
}

static enum mf_err done(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct writer *v = c->owner;
	struct write_item *item = &v->items[c->index];
	enum write_kind kind = v->writes[c->index].kind;
	v->messages -= count_between(&v->writes[c->index], c->first, c->last);
	if (cond->kind == COND_OK && (kind == WRITE_COPY || kind == WRITE_MOVE)) {
		if (span_is(cond->code, "COPYUID"))
			take_copyuid(v, c, cond->args);
		item->unsaid |= !c->said && !(s->caps & CAP(UIDPLUS)); /* who has that, and says nothing, found nothing */
	}
	if (cond->kind == COND_NO && span_is(cond->code, "EXPUNGEISSUED") && !v->last_chance) {
		remember(v, c);
		return MF_OK;
	}
	return write_over(v, c->index, cond, c->what);
}

static bool any(unsigned flags, const char *keywords)
{
	return flags || (keywords && *keywords);
}

/* an atom (RFC 9051 section 9), perhaps behind a backslash */
static bool is_keyword(const char *word, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)word[i] <= ' ' || (unsigned char)word[i] >= 0x7f || strchr("(){%*\"]", word[i]) || (word[i] == '\\' && i))
			return false;
	return len && !(len == 1 && *word == '\\');
}

static bool are_keywords(const char *words)
{
	for (const char *word = words ? words : ""; *word;) {
		size_t len = strcspn(word, " ");
		if (!is_keyword(word, len))
			return false;
		word += len + (word[len] == ' ');
	}
	return true;
}

void write_put_flags(struct imap *s, unsigned flags, const char *keywords)
{
	static const char *const names[] = { "\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft" };
	const char *space = "";
	imap_put(s, "(");
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		if (flags >> i & 1) {
			imap_put(s, "%s%s", space, names[i]);
			space = " ";
		}
	}
	if (!are_keywords(keywords))
		s->out_error = MF_INVALID;
	else if (any(0, keywords))
		imap_put(s, "%s%s", space, keywords);
	imap_put(s, ")");
}

static enum mf_err send(struct writer *v, size_t i, uint32_t first, uint32_t last, const char *what)
{
	unsigned serial;
	enum mf_err e = write_send(v, i, &(struct imap_command){ .what = what, .done = done, .first = first, .last = last }, &serial);
	if (serial)
		v->messages += count_between(&v->writes[i], first, last);
	return e;
}

/* With QRESYNC the server tells of each message that it has changed in any case (RFC 7162 3.1.3). */
static enum mf_err send_store(struct writer *v, size_t i, const char *set, uint32_t first, uint32_t last, char sign, unsigned flags, const char *keywords)
{
	bool silent = v->s->qresync || v->writes[i].kind != WRITE_FLAGS;
	imap_put(v->s, "UID STORE %s %cFLAGS%s ", set, sign, silent ? ".SILENT" : "");
	write_put_flags(v->s, flags, keywords);
	return send(v, i, first, last, "UID STORE");
}

static enum mf_err send_flags(struct writer *v, size_t i, const char *set, uint32_t first, uint32_t last)
{
	const struct remote_write *w = &v->writes[i];
	enum mf_err e = MF_OK;
	if (any(w->flags, w->keywords))
		e = send_store(v, i, set, first, last, '+', w->flags, w->keywords);
	if (!e && !v->items[i].result && any(w->flags_remove, w->keywords_remove))
		e = send_store(v, i, set, first, last, '-', w->flags_remove, w->keywords_remove);
	return e;
}

/* What looks for marked messages goes out when the server has answered that they are. Dovecot answers what came together at its end:
 * if others have removed messages since, or a MOVE has just now, it does not see the marks before, and says OK to having expunged none. */
static enum mf_err send_expunge(struct writer *v, size_t i, const char *set, uint32_t first, uint32_t last)
{
	enum mf_err e = send_store(v, i, set, first, last, '+', FLAG_DELETED, NULL);
	if (!e)
		e = imap_pump_all(v->s);
	if (e || v->items[i].result || !(v->s->caps & CAP(UIDPLUS)))
		return e;
	imap_put(v->s, "UID EXPUNGE %s", set);
	return send(v, i, first, last, "UID EXPUNGE");
}

static enum mf_err send_copy(struct writer *v, size_t i, const char *set, uint32_t first, uint32_t last)
{
	const struct remote_write *w = &v->writes[i];
	const char *what = w->kind == WRITE_MOVE ? "UID MOVE" : "UID COPY";
	imap_put(v->s, "%s %s ", what, set);
	imap_put_string(v->s, w->to, strlen(w->to));
	return send(v, i, first, last, what);
}

/* One part of the write's messages. */
static enum mf_err send_set(struct writer *v, size_t i, const char *set, uint32_t first, uint32_t last)
{
	enum write_kind kind = v->writes[i].kind;
	return (kind == WRITE_FLAGS ? send_flags : kind == WRITE_EXPUNGE ? send_expunge : send_copy)(v, i, set, first, last);
}

/* The messages between first and last, in as many sets as it takes. */
static enum mf_err send_sets(struct writer *v, size_t i, uint32_t first, uint32_t last)
{
	struct uidset all;
	struct buf text;
	enum mf_err e = MF_OK;
	uidset_init(&all);
	buf_init(&text, SET_MAX * 2);
	add_between(&v->writes[i], first, last, &all);
	struct uid_ranges ranges = uidset_ranges(&all);
	for (size_t at = 0; at < ranges.count && !e && !v->items[i].result; buf_reset(&text)) {
		uint32_t low = ranges.items[at].first;
		uid_ranges_write(ranges, &at, SET_MAX, &text);
		uint32_t high = ranges.items[at - 1].last;
		e = write_room(v, count_between(&v->writes[i], low, high), 0);
		if (!e)
			e = send_set(v, i, text.data, low, high);
	}
	buf_finish(&text);
	uidset_finish(&all);
	return e;
}

/* --- EXPUNGE without UIDPLUS: of all that is marked, so only if nothing else is ------------------------------------------ */

static enum mf_err searched(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	(void)s;
	return write_over(c->owner, c->index, cond, c->what);
}

static enum mf_err expunge_marked(struct writer *v, size_t i)
{
	unsigned serial = 0;
	static const char others[] = "other messages in the mailbox are marked as deleted, and the server cannot expunge only some";
	v->expunges = &v->writes[i];
	v->ours_marked = v->others_marked = false;
	imap_put(v->s, "UID SEARCH DELETED");
	enum mf_err e = write_send(v, i, &(struct imap_command){ .what = "UID SEARCH", .done = searched }, &serial);
	if (!e)
		e = imap_pump_until(v->s, serial);
	v->expunges = NULL;
	if (e || v->items[i].result || (!v->ours_marked && !v->others_marked))
		return e;
	if (v->others_marked) {
		write_fail(v, i, MF_CANCELLED, others, sizeof others - 1);
		return MF_OK;
	}
	imap_put(v->s, "EXPUNGE");
	return write_send(v, i, &(struct imap_command){ .what = "EXPUNGE", .done = searched }, NULL);
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

static bool nothing_to_do(const struct remote_write *w)
{
	return !w->count || (w->kind == WRITE_FLAGS && !any(w->flags, w->keywords) && !any(w->flags_remove, w->keywords_remove));
}

enum mf_err write_part(struct writer *v, size_t i, uint32_t first, uint32_t last)
{
	const struct write_item *item = &v->items[i];
	enum mf_err e = write_use_mailbox(v, i);
	if (!e && !item->result && v->last_chance) {
		imap_put(v->s, "NOOP"); /* with whose answer the server tells what is gone */
		e = imap_send(v->s, &(struct imap_command){ .what = "NOOP" }, NULL);
	}
	if (!e && !item->result)
		e = send_sets(v, i, first, last);
	if (!e && !item->result && v->writes[i].kind == WRITE_EXPUNGE && !(v->s->caps & CAP(UIDPLUS)))
		e = expunge_marked(v, i);
	return e;
}

enum mf_err write_messages(struct writer *v, size_t i)
{
	const struct remote_write *w = &v->writes[i];
	static const char no_move[] = "the server has no MOVE", not_keywords[] = "no keywords of IMAP";
	if (nothing_to_do(w))
		return MF_OK;
	if (!are_keywords(w->keywords) || !are_keywords(w->keywords_remove)) { /* before one half has been done */
		write_fail(v, i, MF_INVALID, not_keywords, sizeof not_keywords - 1);
		return MF_OK;
	}
	if (w->kind == WRITE_MOVE && !(v->s->caps & CAP(MOVE))) {
		write_fail(v, i, MF_UNSUPPORTED, no_move, sizeof no_move - 1);
		return MF_OK;
	}
	return write_part(v, i, w->uids[0], w->uids[w->count - 1]);
}

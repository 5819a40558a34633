/* What is in the maildrop, and which number each message has. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "sync/pop3/client.h"
#include "sync/pop3/uidl_format.h"

#define LIST_BUDGET ((uint64_t)MAILDROP_MAX * (UIDL_MAX + 32))

/* --- lists ---------------------------------------------------------------------------------------------------------------------- */

/* "17 whqtswO00WBw418f9t5JxYwZ": the number, and where the rest begins; false: not such a line */
static bool split(char *line, uint32_t *ret_number, char **ret_rest)
{
	char *p = line;
	uint64_t number = 0;
	while (*p >= '0' && *p <= '9' && number <= UINT32_MAX)
		number = number * 10 + (uint64_t)(*p++ - '0');
	if (p == line || *p != ' ' || number == 0 || number > UINT32_MAX)
		return false;
	while (*p == ' ')
		p++;
	size_t len = strlen(p);
	while (len && p[len - 1] == ' ')
		p[--len] = '\0';
	*ret_number = (uint32_t)number;
	*ret_rest = p;
	return true;
}

static enum mf_err add_listed(struct pop3 *s, uint32_t number, const char *uidl)
{
	char digest[MAIL_DIGEST_SIZE];
	size_t len = uidl ? strlen(uidl) : 0;
	if (s->drop.count && s->drop.items[s->drop.count - 1].number >= number)
		return pop3_fail(s, MF_PROTOCOL, "%s lists its messages in no order", s->host);
	if (len > UIDL_MAX) {
		mail_md5(uidl, len, digest);
		uidl = digest;
	}
	if (maildrop_add(&s->drop, number, uidl))
		return pop3_fail(s, MF_PROTOCOL, "%s lists more messages than can be believed", s->host);
	return MF_OK;
}

static enum mf_err take_uidl(struct pop3 *s, uint32_t number, const char *rest)
{
	return *rest ? add_listed(s, number, rest) : add_listed(s, number, NULL);
}

static enum mf_err take_size(struct pop3 *s, uint32_t number, const char *rest)
{
	char *end;
	struct drop_item *item = maildrop_at_number(&s->drop, number);
	unsigned long long size = strtoull(rest, &end, 10);
	if (item && end != rest && (*end == '\0' || *end == ' ')) {
		item->size = size;
		item->has_size = true;
	}
	return MF_OK;
}

static enum mf_err take_new_size(struct pop3 *s, uint32_t number, const char *rest)
{
	enum mf_err e = add_listed(s, number, NULL);
	return e ? e : take_size(s, number, rest);
}

/* The answer to a command that has been sent. *ret_ok false: the server refused. */
static enum mf_err take_list(struct pop3 *s, const char *command, enum mf_err (*take)(struct pop3 *, uint32_t, const char *), bool *ret_ok)
{
	bool end = false;
	uint32_t number;
	char *rest;
	enum mf_err e = pop3_answer(s, ret_ok);
	transport_set_budget(s->transport, LIST_BUDGET);
	while (!e && *ret_ok && !end) {
		e = pop3_list_line(s, &end);
		if (e || end)
			break;
		e = split(s->line, &number, &rest) ? take(s, number, rest) : pop3_fail(s, MF_PROTOCOL, "%s: a line of %s that makes no sense", s->host, command);
	}
	return e;
}

/* LIST's answer. */
static enum mf_err take_sizes(struct pop3 *s, enum mf_err (*take)(struct pop3 *, uint32_t, const char *))
{
	char text[120];
	bool ok;
	s->sizes_asked = true;
	enum mf_err e = take_list(s, "LIST", take, &ok);
	if (e || ok)
		return e;
	return pop3_fail(s, MF_PROTOCOL, "%s refused LIST: %s", s->host, pop3_words(s, text, sizeof text));
}

enum mf_err pop3_need_sizes(struct pop3 *s)
{
	bool missing = false;
	for (size_t i = 0; i < s->drop.count && !missing; i++)
		missing = !s->drop.items[i].has_size;
	if (!missing || s->sizes_asked)
		return MF_OK;
	enum mf_err e = pop3_send(s, "LIST");
	return e ? e : take_sizes(s, take_size);
}

/* Every message with its UIDL, or without where the server has none. Where all of them will be new, their sizes come in the same
 * round trip: first, since a server has them at hand, and the answer to what was asked before does not wait for the names then. */
static enum mf_err ask_for_lists(struct pop3 *s, bool both)
{
	enum mf_err e = both ? pop3_send(s, "LIST") : MF_OK;
	return e || s->no_uidl ? e : pop3_send(s, "UIDL");
}

/* STAT tells how many TOPs can follow at once. */
enum mf_err pop3_list_ahead(struct pop3 *s)
{
	bool first = !s->numbers.count;
	s->ahead = first ? AHEAD_COUNT_AND_LISTS : AHEAD_NAMES;
	enum mf_err e = first ? pop3_send(s, "STAT") : MF_OK;
	return e ? e : ask_for_lists(s, first);
}

enum mf_err pop3_count_ahead(struct pop3 *s, uint32_t *ret)
{
	bool ok = false;
	*ret = 0;
	if (s->ahead != AHEAD_COUNT_AND_LISTS)
		return MF_OK;
	enum mf_err e = pop3_answer(s, &ok);
	if (e)
		return e;
	s->ahead = AHEAD_NAMES_AND_SIZES;
	unsigned long count = ok ? strtoul(s->line + 3, NULL, 10) : 0;
	*ret = count <= MAILDROP_MAX ? (uint32_t)count : 0;
	return MF_OK;
}

static void adopt_sizes(struct pop3 *s, struct maildrop *sizes)
{
	for (size_t i = 0; i < s->drop.count; i++) {
		struct drop_item *item = &s->drop.items[i];
		const struct drop_item *listed = maildrop_at_number(sizes, item->number);
		if (listed) {
			item->size = listed->size;
			item->has_size = listed->has_size;
		}
	}
}

/* LIST's answer and that to UIDL behind it. Which messages there are UIDL says, where there is one. */
static enum mf_err take_both(struct pop3 *s)
{
	bool ok = false;
	enum mf_err e = take_sizes(s, take_new_size);
	if (e || s->no_uidl)
		return e;
	struct maildrop sizes = s->drop;
	maildrop_init(&s->drop);
	e = take_list(s, "UIDL", take_uidl, &ok);
	s->no_uidl = !e && !ok;
	if (s->no_uidl) {
		maildrop_finish(&s->drop);
		s->drop = sizes;
		return e;
	}
	adopt_sizes(s, &sizes);
	maildrop_finish(&sizes);
	return e;
}

static enum mf_err take_names(struct pop3 *s)
{
	bool ok = false;
	enum mf_err e = take_list(s, "UIDL", take_uidl, &ok);
	if (e || ok)
		return e;
	s->no_uidl = true;
	e = pop3_send(s, "LIST");
	return e ? e : take_sizes(s, take_new_size);
}

static enum mf_err list_all(struct pop3 *s)
{
	uint32_t count;
	enum mf_err e = pop3_count_ahead(s, &count);
	bool asked = s->ahead != AHEAD_NOTHING;
	bool both = asked ? s->ahead == AHEAD_NAMES_AND_SIZES : s->no_uidl || (!s->numbers.count && pop3_window(s) > 1);
	if (!e && !asked)
		e = ask_for_lists(s, both);
	s->ahead = AHEAD_NOTHING;
	if (e)
		return e;
	return both ? take_both(s) : take_names(s);
}

/* --- digests ----------------------------------------------------------------------------------------------------------------------- */

static enum mf_err take_digest(void *context, struct drop_item *item, const char *header, size_t len)
{
	struct pop3 *s = context;
	if (header) {
		mail_header_digest(header, len, item->digest);
		maildrop_keep_header(&s->drop, item, header, len);
	} else {
		mail_md5(maildrop_key(&s->drop, item), strlen(maildrop_key(&s->drop, item)), item->digest); /* better than nothing */
	}
	return MF_OK;
}

static enum mf_err digest_those(struct pop3 *s, bool (*wanted)(const struct drop_item *))
{
	uint32_t *places = mf_alloc_array(s->drop.count + 1, sizeof *places);
	size_t n = 0;
	for (size_t i = 0; i < s->drop.count; i++)
		if (!*s->drop.items[i].digest && wanted(&s->drop.items[i]))
			places[n++] = (uint32_t)i;
	enum mf_err e = pop3_top(s, places, n, take_digest, s);
	free(places);
	return e;
}

static bool is_ambiguous(const struct drop_item *item) { return item->ambiguous; }
static bool is_new(const struct drop_item *item) { return !item->uid; }
static bool is_doubtful(const struct drop_item *item) { return item->doubtful; }

/* --- numbers ------------------------------------------------------------------------------------------------------------------------ */

enum mf_err pop3_load_numbers(struct pop3 *s)
{
	if (s->numbers_loaded)
		return MF_OK;
	uidls_finish(&s->numbers);
	enum mf_err e = s->options.store.load(s->options.store.context, &s->numbers);
	if (e)
		return pop3_fail(s, e, "the numbers of messages cannot be read: %s", mf_err_words(e));
	s->numbers_loaded = true;
	return MF_OK;
}

/* The kept rows as this maildrop has them. */
static void adopt_numbers(struct pop3 *s, uint32_t uidvalidity, uint32_t uidnext)
{
	struct uidls n = { .uidvalidity = uidvalidity, .uidnext = uidnext, .rows = mf_alloc_array(s->drop.numbered + 1, sizeof *n.rows) };
	n.keys = mf_alloc(s->drop.keys.len + 1);
	memcpy(n.keys, s->drop.keys.data, s->drop.keys.len);
	for (size_t i = 0; i < s->drop.numbered; i++) {
		const struct drop_item *item = &s->drop.items[s->drop.by_uid[i]];
		struct uidl *row = &n.rows[n.count++];
		*row = (struct uidl){ .key = n.keys + item->key, .uid = item->uid, .size = item->has_size ? item->size : 0 };
		memcpy(row->digest, item->digest, sizeof row->digest);
	}
	uidls_finish(&s->numbers);
	s->numbers = n;
}

/* Into the kept rows, which are those of this maildrop: what was learnt of its messages since. */
static void adopt_learnt(struct pop3 *s)
{
	for (size_t i = 0; i < s->numbers.count; i++) {
		const struct drop_item *item = &s->drop.items[s->drop.by_uid[i]];
		struct uidl *row = &s->numbers.rows[i];
		row->size = item->has_size ? item->size : 0;
		memcpy(row->digest, item->digest, sizeof row->digest);
	}
}

static size_t dirty_rows(const struct pop3 *s, struct uidl **ret)
{
	struct uidl *rows = mf_alloc_array(s->drop.numbered + 1, sizeof *rows);
	size_t n = 0;
	for (size_t i = 0; i < s->drop.numbered; i++)
		if (s->drop.items[s->drop.by_uid[i]].dirty)
			rows[n++] = s->numbers.rows[i];
	*ret = rows;
	return n;
}

static enum mf_err save(struct pop3 *s, const struct uidls_change *change)
{
	enum mf_err e = s->options.store.save(s->options.store.context, change);
	if (e) {
		s->numbers_loaded = false; /* they are ahead of what is stored */
		return pop3_fail(s, e, "the numbers of messages cannot be stored: %s", mf_err_words(e));
	}
	for (size_t i = 0; i < s->drop.count; i++)
		s->drop.items[i].dirty = false;
	s->unsaved = false;
	pop3_forget_unsaved(s);
	return MF_OK;
}

static bool any_is_dirty(const struct pop3 *s)
{
	for (size_t i = 0; i < s->drop.count; i++)
		if (s->drop.items[i].dirty)
			return true;
	return false;
}

enum mf_err pop3_store(struct pop3 *s)
{
	if (s->borrowed || !(s->unsaved || any_is_dirty(s)))
		return MF_OK;
	struct uidl *put;
	adopt_learnt(s);
	size_t count = dirty_rows(s, &put);
	const struct uidls_change change = { .uidvalidity = s->numbers.uidvalidity, .uidnext = s->numbers.uidnext, .gone = s->gone,
		.gone_count = s->gone_count, .put = put, .put_count = count };
	enum mf_err e = save(s, &change);
	free(put);
	return e;
}

void pop3_store_learnt(struct pop3 *s)
{
	if (s->listed && !s->unsaved && pop3_store(s))
		log_warning("%s", s->why.text);
}

void pop3_forget_unsaved(struct pop3 *s)
{
	free(s->gone);
	s->gone = NULL;
	s->gone_count = 0;
	s->numbers_loaded &= !s->unsaved; /* what is not stored does not hold for another connection */
	s->unsaved = false;
}

/* For pop3_store(). gone: places in s->numbers */
static void leave_unsaved(struct pop3 *s, uint32_t uidvalidity, const size_t *gone, size_t gone_count)
{
	bool same = uidvalidity == s->numbers.uidvalidity;
	s->gone_count = 0;
	s->gone = mf_realloc_array(s->gone, gone_count + 1, sizeof *s->gone);
	for (size_t i = 0; i < gone_count && same; i++)
		s->gone[s->gone_count++] = s->numbers.rows[gone[i]].uid;
	s->unsaved = !same || s->gone_count > 0 || any_is_dirty(s);
}

/* Another one than before and than IMAP's */
static uint32_t new_uidvalidity(const struct pop3 *s, uint32_t before)
{
	uint32_t now = (uint32_t)clock_wall_s(), next = now > before ? now : before + 1;
	while (next == 0 || next == s->options.imap_uidvalidity)
		next++;
	return next;
}

static bool any_is_new(const struct pop3 *s)
{
	for (size_t i = 0; i < s->drop.count; i++)
		if (!s->drop.items[i].uid)
			return true;
	return false;
}

/* Something has changed: are the names still those of the same messages? */
static enum mf_err doubt(struct pop3 *s, size_t *gone, size_t *gone_count)
{
	for (size_t i = 0; i < s->drop.count && !s->sizes_asked; i++)
		s->drop.items[i].has_size = false; /* the rows' */
	enum mf_err e = pop3_need_sizes(s);
	if (!e && maildrop_doubt(&s->drop, &s->numbers)) {
		e = digest_those(s, is_doubtful);
		if (!e)
			maildrop_settle_doubtful(&s->drop, &s->numbers, gone, gone_count);
	}
	return e;
}

/* gone: rows of s->numbers that no message has. What is new may be one of those, under another name. */
static enum mf_err find_renamed(struct pop3 *s, size_t *gone, size_t *gone_count)
{
	enum mf_err e = MF_OK;
	if (s->numbers.count && (*gone_count || any_is_new(s)))
		e = doubt(s, gone, gone_count);
	if (e || !*gone_count || !any_is_new(s))
		return e;
	e = digest_those(s, is_new);
	if (!e)
		maildrop_match_renamed(&s->drop, &s->numbers, gone, gone_count);
	return e;
}

/* IMAP's numbers, if every UIDL shows one. */
static bool borrow_numbers(struct pop3 *s)
{
	uint32_t uidvalidity = s->options.imap_uidvalidity, uidnext = s->options.imap_uidnext ? s->options.imap_uidnext : 1;
	bool all = uidvalidity != 0;
	for (size_t i = 0; i < s->drop.count && all; i++)
		all = uidl_decode(maildrop_key(&s->drop, &s->drop.items[i]), uidvalidity, &s->drop.items[i].uid);
	if (all)
		maildrop_sort(&s->drop);
	for (size_t i = 1; i < s->drop.numbered && all; i++)
		all = s->drop.items[s->drop.by_uid[i]].uid != s->drop.items[s->drop.by_uid[i - 1]].uid;
	uint32_t last = all && s->drop.numbered ? s->drop.items[s->drop.by_uid[s->drop.numbered - 1]].uid : 0;
	s->borrowed = all && last < UINT32_MAX;
	for (size_t i = 0; i < s->drop.count && !s->borrowed; i++)
		s->drop.items[i].uid = 0;
	if (s->borrowed)
		adopt_numbers(s, uidvalidity, last >= uidnext ? last + 1 : uidnext);
	return s->borrowed;
}

static enum mf_err number_all(struct pop3 *s)
{
	if (borrow_numbers(s))
		return MF_OK;
	size_t *gone, gone_count;
	uint32_t uidvalidity = s->numbers.uidvalidity, uidnext = s->numbers.uidnext;
	if (!uidvalidity || !uidnext || uidvalidity == s->options.imap_uidvalidity) {
		uidvalidity = new_uidvalidity(s, uidvalidity);
		uidnext = 1;
		uidls_finish(&s->numbers);
	}
	maildrop_match(&s->drop, &s->numbers, &gone, &gone_count);
	enum mf_err e = find_renamed(s, gone, &gone_count);
	if (!e && !maildrop_number(&s->drop, &uidnext)) {
		for (size_t i = 0; i < s->drop.count; i++)
			s->drop.items[i].uid = 0;
		uidvalidity = new_uidvalidity(s, uidvalidity);
		uidnext = 1;
		(void)maildrop_number(&s->drop, &uidnext); /* there are fewer messages than numbers */
	}
	if (!e) {
		leave_unsaved(s, uidvalidity, gone, gone_count);
		adopt_numbers(s, uidvalidity, uidnext);
	}
	free(gone);
	return e;
}

enum mf_err pop3_number(struct pop3 *s)
{
	if (s->listed)
		return MF_OK;
	s->sizes_asked = false;
	s->numbers_loaded &= !s->borrowed;
	enum mf_err e = pop3_load_numbers(s);
	if (!e)
		e = list_all(s);
	if (!e && maildrop_find_ambiguous(&s->drop)) {
		e = digest_those(s, is_ambiguous);
		if (!e && maildrop_settle_ambiguous(&s->drop))
			e = pop3_fail(s, MF_PROTOCOL, "%s has more names for its messages than can be kept", s->host);
	}
	if (!e)
		e = number_all(s);
	s->listed = !e;
	return e;
}

enum mf_err pop3_list(struct pop3 *s)
{
	enum mf_err e = pop3_number(s);
	return !e && s->unsaved ? pop3_store(s) : e;
}

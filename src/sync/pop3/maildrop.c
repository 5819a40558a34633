#include "sync/pop3/maildrop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define KEYS_MAX (128U << 20)
#define HEADERS_MAX (2U << 20)

void maildrop_init(struct maildrop *d)
{
	*d = (struct maildrop){ 0 };
	buf_init(&d->keys, KEYS_MAX);
}

void maildrop_finish(struct maildrop *d)
{
	for (size_t i = 0; i < d->count; i++)
		free(d->items[i].header);
	free(d->items);
	free(d->by_uid);
	buf_finish(&d->keys);
	*d = (struct maildrop){ 0 };
}

static enum mf_err add_key(struct maildrop *d, struct drop_item *item, const char *key)
{
	enum mf_err e = d->keys.len ? MF_OK : buf_add(&d->keys, "", 1);
	size_t at = d->keys.len;
	if (!e)
		e = buf_add(&d->keys, key, strlen(key) + 1);
	if (!e)
		item->key = at;
	return e;
}

/* What is in no UIDL (RFC 1939 7) is taken out, so that a made key is never a server's. */
static void clean_key(char *key)
{
	for (char *p = key; *p; p++)
		if (*p <= ' ' || *p > '~')
			*p = '?';
}

enum mf_err maildrop_add(struct maildrop *d, uint32_t number, const char *uidl)
{
	if (d->count == MAILDROP_MAX)
		return MF_TOO_BIG;
	if (d->count == d->room) {
		d->room = d->room ? d->room * 2 : 64;
		d->items = mf_realloc_array(d->items, d->room, sizeof *d->items);
	}
	struct drop_item *item = &d->items[d->count++];
	*item = (struct drop_item){ .number = number };
	enum mf_err e = uidl ? add_key(d, item, uidl) : MF_OK;
	if (!e && uidl)
		clean_key(d->keys.data + item->key);
	return e;
}

static int compare_number(const void *key, const void *item)
{
	uint32_t number = *(const uint32_t *)key, other = ((const struct drop_item *)item)->number;
	return (number > other) - (number < other);
}

struct drop_item *maildrop_at_number(struct maildrop *d, uint32_t number)
{
	/* mostly the n-th is number n */
	if (number && number <= d->count && d->items[number - 1].number == number)
		return &d->items[number - 1];
	return d->count ? bsearch(&number, d->items, d->count, sizeof *d->items, compare_number) : NULL;
}

struct drop_item *maildrop_at_uid(struct maildrop *d, uint32_t uid)
{
	size_t low = 0, high = d->numbered;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (d->items[d->by_uid[middle]].uid < uid)
			low = middle + 1;
		else
			high = middle;
	}
	struct drop_item *item = low < d->numbered ? &d->items[d->by_uid[low]] : NULL;
	return item && item->uid == uid ? item : NULL;
}

const char *maildrop_key(const struct maildrop *d, const struct drop_item *item)
{
	return item->key ? d->keys.data + item->key : "";
}

/* --- sorted views ------------------------------------------------------------------------------------------------------ */

struct view { const struct maildrop *drop; const struct uidls *known; };

static int by_key(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	const struct drop_item *x = &v->drop->items[*(const uint32_t *)a], *y = &v->drop->items[*(const uint32_t *)b];
	int order = strcmp(maildrop_key(v->drop, x), maildrop_key(v->drop, y));
	return order ? order : (x->number > y->number) - (x->number < y->number);
}

static int by_key_and_digest(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	const struct drop_item *x = &v->drop->items[*(const uint32_t *)a], *y = &v->drop->items[*(const uint32_t *)b];
	int order = strcmp(maildrop_key(v->drop, x), maildrop_key(v->drop, y));
	if (!order)
		order = strcmp(x->digest, y->digest);
	return order ? order : (x->number > y->number) - (x->number < y->number);
}

static int digest_order(const char *digest, uint64_t size, const char *digest2, uint64_t size2)
{
	int order = strcmp(digest, digest2);
	return order ? order : (size > size2) - (size < size2);
}

static int by_digest(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	const struct drop_item *x = &v->drop->items[*(const uint32_t *)a], *y = &v->drop->items[*(const uint32_t *)b];
	int order = digest_order(x->digest, x->size, y->digest, y->size);
	return order ? order : (x->number > y->number) - (x->number < y->number);
}

static int by_uid(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	uint32_t x = v->drop->items[*(const uint32_t *)a].uid, y = v->drop->items[*(const uint32_t *)b].uid;
	return (x > y) - (x < y);
}

static int rows_by_key(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	return strcmp(v->known->rows[*(const size_t *)a].key, v->known->rows[*(const size_t *)b].key);
}

static int rows_by_digest(const void *a, const void *b, void *context)
{
	const struct view *v = context;
	const struct uidl *x = &v->known->rows[*(const size_t *)a], *y = &v->known->rows[*(const size_t *)b];
	int order = digest_order(x->digest, x->size, y->digest, y->size);
	return order ? order : (x->uid > y->uid) - (x->uid < y->uid);
}

typedef bool item_wanted(const struct drop_item *item);
static bool any_item(const struct drop_item *item) { return item != NULL; }
static bool is_ambiguous(const struct drop_item *item) { return item->ambiguous; }
static bool is_new(const struct drop_item *item) { return !item->uid && *item->digest; }
static bool is_numbered(const struct drop_item *item) { return item->uid; }

/* The places of those wanted, in that order; the caller frees */
static uint32_t *sorted(const struct maildrop *d, item_wanted *wanted, int (*order)(const void *, const void *, void *), size_t *ret_count)
{
	uint32_t *places = mf_alloc_array(d->count + 1, sizeof *places);
	size_t n = 0;
	for (size_t i = 0; i < d->count; i++)
		if (wanted(&d->items[i]))
			places[n++] = (uint32_t)i;
	struct view v = { d, NULL };
	size_t ascending = 1; /* most servers list in the order of their names */
	while (ascending < n && order(&places[ascending - 1], &places[ascending], &v) <= 0)
		ascending++;
	if (ascending < n)
		qsort_r(places, n, sizeof *places, order, &v);
	*ret_count = n;
	return places;
}

/* --- telling apart ------------------------------------------------------------------------------------------------------ */

size_t maildrop_find_ambiguous(struct maildrop *d)
{
	size_t count, found = 0;
	uint32_t *places = sorted(d, any_item, by_key, &count);
	for (size_t i = 0; i < count; i++) {
		struct drop_item *item = &d->items[places[i]];
		const char *key = maildrop_key(d, item);
		bool as_before = i > 0 && strcmp(key, maildrop_key(d, &d->items[places[i - 1]])) == 0;
		bool as_next = i + 1 < count && strcmp(key, maildrop_key(d, &d->items[places[i + 1]])) == 0;
		item->ambiguous = !*key || as_before || as_next;
		found += item->ambiguous;
	}
	free(places);
	return found;
}

/* Made keys have a space. */
enum mf_err maildrop_settle_ambiguous(struct maildrop *d)
{
	size_t count;
	unsigned twin = 1;
	char before[KEY_MAX] = "", base[KEY_MAX], key[KEY_MAX + 16];
	enum mf_err e = MF_OK;
	uint32_t *places = sorted(d, is_ambiguous, by_key_and_digest, &count);
	for (size_t i = 0; i < count && !e; i++) {
		struct drop_item *item = &d->items[places[i]];
		snprintf(base, sizeof base, "%s %s", maildrop_key(d, item), item->digest);
		twin = i > 0 && strcmp(base, before) == 0 ? twin + 1 : 1;
		snprintf(before, sizeof before, "%s", base);
		if (twin == 1)
			snprintf(key, sizeof key, "%s", base);
		else
			snprintf(key, sizeof key, "%s %u", base, twin);
		e = add_key(d, item, key);
		item->ambiguous = false;
	}
	free(places);
	return e;
}

/* --- numbers ------------------------------------------------------------------------------------------------------------ */

static void take_row(struct drop_item *item, const struct uidl *row)
{
	item->uid = row->uid;
	if (!*item->digest)
		memcpy(item->digest, row->digest, sizeof item->digest);
	if (!item->has_size && row->size) {
		item->size = row->size;
		item->has_size = true;
	}
}

static int compare_places(const void *a, const void *b)
{
	const size_t *x = a, *y = b;
	return (*x > *y) - (*x < *y);
}

void maildrop_match(struct maildrop *d, const struct uidls *known, size_t **ret_gone, size_t *ret_gone_count)
{
	size_t count, gone_count = 0, at = 0;
	uint32_t *places = sorted(d, any_item, by_key, &count);
	size_t *rows = mf_alloc_array(known->count + 1, sizeof *rows), *gone = mf_alloc_array(known->count + 1, sizeof *gone);
	struct view v = { NULL, known };
	for (size_t i = 0; i < known->count; i++)
		rows[i] = i;
	qsort_r(rows, known->count, sizeof *rows, rows_by_key, &v);
	for (size_t i = 0; i < known->count; i++) {
		const struct uidl *row = &known->rows[rows[i]];
		while (at < count && strcmp(maildrop_key(d, &d->items[places[at]]), row->key) < 0)
			at++;
		if (at < count && strcmp(maildrop_key(d, &d->items[places[at]]), row->key) == 0)
			take_row(&d->items[places[at++]], row);
		else
			gone[gone_count++] = rows[i];
	}
	qsort(gone, gone_count, sizeof *gone, compare_places);
	free(places);
	free(rows);
	*ret_gone = gone;
	*ret_gone_count = gone_count;
}

static int compare_row(const void *key, const void *row)
{
	uint32_t uid = *(const uint32_t *)key, other = ((const struct uidl *)row)->uid;
	return (uid > other) - (uid < other);
}

static const struct uidl *find_row(const struct uidls *known, uint32_t uid)
{
	return known->count ? bsearch(&uid, known->rows, known->count, sizeof *known->rows, compare_row) : NULL;
}

size_t maildrop_doubt(struct maildrop *d, const struct uidls *known)
{
	size_t found = 0;
	for (size_t i = 0; i < d->count; i++) {
		struct drop_item *item = &d->items[i];
		const struct uidl *row = item->uid ? find_row(known, item->uid) : NULL;
		item->doubtful = row && row->size && item->has_size && row->size != item->size;
		if (item->doubtful)
			*item->digest = '\0'; /* the row's */
		found += item->doubtful;
	}
	return found;
}

void maildrop_settle_doubtful(struct maildrop *d, const struct uidls *known, size_t *gone, size_t *gone_count)
{
	for (size_t i = 0; i < d->count; i++) {
		struct drop_item *item = &d->items[i];
		const struct uidl *row = item->doubtful ? find_row(known, item->uid) : NULL;
		if (row && strcmp(row->digest, item->digest) == 0) {
			item->dirty = true; /* the same, counted otherwise */
		} else if (row) {
			item->uid = 0;
			gone[(*gone_count)++] = (size_t)(row - known->rows);
		}
		item->doubtful = false;
	}
}

void maildrop_keep_header(struct maildrop *d, struct drop_item *item, const char *header, size_t len)
{
	if (item->header || len > HEADERS_MAX - d->header_bytes)
		return;
	item->header = mf_alloc(len + 1);
	if (len)
		memcpy(item->header, header, len);
	item->header_len = len;
	d->header_bytes += len;
}

void maildrop_match_renamed(struct maildrop *d, const struct uidls *known, size_t *gone, size_t *gone_count)
{
	size_t count, at = 0, kept = 0;
	uint32_t *places = sorted(d, is_new, by_digest, &count);
	struct view v = { NULL, known };
	qsort_r(gone, *gone_count, sizeof *gone, rows_by_digest, &v);
	for (size_t i = 0; i < *gone_count; i++) {
		const struct uidl *row = &known->rows[gone[i]];
		struct drop_item *item;
		while (at < count && digest_order(d->items[places[at]].digest, d->items[places[at]].size, row->digest, row->size) < 0)
			at++;
		item = at < count ? &d->items[places[at]] : NULL;
		if (!item || !*row->digest || digest_order(item->digest, item->size, row->digest, row->size) != 0) {
			gone[kept++] = gone[i];
			continue;
		}
		take_row(item, row);
		item->dirty = true;
		at++;
	}
	qsort(gone, kept, sizeof *gone, compare_places);
	*gone_count = kept;
	free(places);
}

void maildrop_sort(struct maildrop *d)
{
	free(d->by_uid);
	d->by_uid = sorted(d, is_numbered, by_uid, &d->numbered);
}

bool maildrop_number(struct maildrop *d, uint32_t *uidnext)
{
	size_t without = 0;
	for (size_t i = 0; i < d->count; i++)
		without += !d->items[i].uid;
	if (without > UINT32_MAX - *uidnext)
		return false;
	for (size_t i = 0; i < d->count; i++) {
		if (d->items[i].uid)
			continue;
		d->items[i].uid = (*uidnext)++;
		d->items[i].dirty = true;
	}
	maildrop_sort(d);
	return true;
}

#include "sync/crossing.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cache/uidls.h"
#include "mail/origin.h"
#include "mail/summary.h"

#define SUBJECT_MAX 200         /* bytes of it, to tell messages without a Message-ID apart */

struct before {
	char identity[MAIL_DIGEST_SIZE];
	uint64_t size;
	int64_t date;
	unsigned flags;
	char *keywords;             /* NULL: none */
	bool used;
};
struct crossing {
	struct before *items;       /* ascending by identity, size, date */
	size_t count, room;
};

/* The Message-ID, or for messages without one what they say instead */
static void identify(const char *message_id, const char *subject, const char *from, char ret[static MAIL_DIGEST_SIZE])
{
	MF_CLEANUP(mf_free) char *text = *message_id ? mf_format("i%s", message_id) : mf_format("s%.*s\n%s", SUBJECT_MAX, subject, from);
	mail_md5(text, strlen(text), ret);
}

static bool note(void *context, const struct known_message *m)
{
	struct crossing *c = context;
	if (c->count == c->room) {
		c->room = c->room ? c->room * 2 : 256;
		c->items = mf_realloc_array(c->items, c->room, sizeof *c->items);
	}
	struct before *b = &c->items[c->count++];
	*b = (struct before){.size = m->size, .date = m->mtime, .flags = m->flags, .keywords = *m->keywords ? mf_strdup(m->keywords) : NULL};
	identify(m->message_id, m->subject, m->from, b->identity);
	return true;
}

static int in_order(const void *a, const void *b)
{
	const struct before *x = a, *y = b;
	int order = strcmp(x->identity, y->identity);
	if (!order)
		order = (x->size > y->size) - (x->size < y->size);
	return order ? order : (x->date > y->date) - (x->date < y->date);
}

enum mf_err crossing_create(struct cache *cache, uint64_t mailbox, struct crossing **ret)
{
	struct crossing *c = MF_NEW(struct crossing);
	enum mf_err e = cache_known(cache, mailbox, note, c);
	if (e != MF_OK) {
		crossing_destroy(c);
		return e;
	}
	if (c->count)
		qsort(c->items, c->count, sizeof *c->items, in_order);
	*ret = c;
	return MF_OK;
}

void crossing_destroy(struct crossing *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->count; i++)
		free(c->items[i].keywords);
	free(c->items);
	free(c);
}

/* The first that is not below; c->count: none */
static size_t lower(const struct crossing *c, const struct before *key)
{
	size_t low = 0, high = c->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (in_order(&c->items[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct before *find(struct crossing *c, const struct before *key)
{
	struct before first = *key, *found = NULL;
	first.date = INT64_MIN;
	for (size_t i = lower(c, &first); i < c->count; i++) {
		struct before *b = &c->items[i];
		if (strcmp(b->identity, key->identity) != 0 || b->size != key->size)
			break;
		if (b->used)
			continue;
		if (b->date == key->date)
			return b;
		if (!found)
			found = b;
	}
	return found;
}

void crossing_apply(struct crossing *c, struct remote_message *m, bool has_flags)
{
	struct mail_summary summary;
	struct before key = {.size = m->size, .date = m->internal_date};
	if (!m->header || !m->has_size)
		return;
	mail_summary_parse(m->header, m->header_len, m->size, &summary);
	identify(summary.message_id, summary.subject, summary.from, key.identity);
	mail_summary_finish(&summary);
	struct before *b = find(c, &key);
	if (!b)
		return;
	b->used = true;
	m->internal_date = b->date;
	if (has_flags)
		return;
	m->flags = b->flags;
	m->keywords = b->keywords ? b->keywords : "";
}

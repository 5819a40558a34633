/* Messages that were met and could not be told: asked for again, at last item by item. See changes.h. */
#include <string.h>

#include "base/mem.h"
#include "mail/summary.h"
#include "sync/imap/changes.h"

#define BATCH 100
#define BATCH_BYTES (1U << 20)  /* of its headers, which are kept until it is told: where they are larger, one message at a time */

uint64_t salvage_open_count(struct box *b)
{
	struct uid_ranges ranges = uidset_ranges(&b->open);
	uint64_t count = 0;
	for (size_t i = 0; i < ranges.count; i++)
		for (uint64_t uid = ranges.items[i].first; uid <= ranges.items[i].last; uid++)
			count += !uidhash_has(&b->told, (uint32_t)uid);
	return count;
}

/* The next at most max UIDs that are open and not told, from open_from on. */
static void take_open(struct box *b, size_t max, struct uidset *to)
{
	struct uid_ranges ranges = uidset_ranges(&b->open);
	for (size_t i = 0; i < ranges.count && max && b->open_from; i++) {
		uint64_t uid = ranges.items[i].first > b->open_from ? ranges.items[i].first : b->open_from;
		for (; uid <= ranges.items[i].last && max; uid++) {
			b->open_from = (uint32_t)(uid + 1); /* 0: past the last there can be */
			if (uidhash_has(&b->told, (uint32_t)uid))
				continue;
			uidset_add(to, (uint32_t)uid, (uint32_t)uid);
			max--;
		}
	}
}

static enum mf_err send_set(struct changes *v, struct box *b, struct uid_ranges ranges, const char *items, enum ask ask)
{
	struct buf set;
	buf_init(&set, 65536);
	enum mf_err e = MF_OK;
	for (size_t at = 0; at < ranges.count && !e; buf_reset(&set)) {
		uid_ranges_write(ranges, &at, 7000, &set);
		imap_put(v->s, "UID FETCH %s %s", set.data, items);
		e = changes_send(v, b, ask, "UID FETCH");
	}
	buf_finish(&set);
	return e;
}

/* everything at once, for what was only left out */
static enum mf_err refetch(struct changes *v, struct box *b)
{
	struct uidset some;
	char items[256];
	uidset_init(&some);
	take_open(b, CHUNK, &some);
	b->issued = !some.count;
	enum mf_err e = some.count ? send_set(v, b, uidset_ranges(&some), changes_items(v->s, items), ASK_REFETCH) : MF_OK;
	uidset_finish(&some);
	return e;
}

/* --- item by item ---------------------------------------------------------------------------------------------------- */

void salvage_drop(struct box *b)
{
	for (size_t i = 0; i < b->batch_count; i++) {
		free(b->batch[i].keywords);
		free(b->batch[i].email_id);
		free(b->batch[i].header);
	}
	free(b->batch);
	b->batch = NULL;
	b->batch_count = 0;
	b->batch_bytes = 0;
}

static void replace(char **to, const char *from, size_t len)
{
	free(*to);
	*to = mf_strndup("", 0);
	if (len) {
		*to = mf_realloc_array(*to, len + 1, 1);
		memcpy(*to, from, len);
		(*to)[len] = 0;
	}
}

/* One message spoils the set for all (Yahoo: [UNAVAILABLE] for ever), or they are too large together. */
static bool is_for_one_by_one(const struct box *b)
{
	return b->refused && b->batch_count > 1;
}

void salvage_take(struct box *b, const struct imap_fetch *f)
{
	struct salvaged *m = NULL;
	for (size_t i = 0; i < b->batch_count; i++)
		if (b->batch[i].uid == f->uid)
			m = &b->batch[i];
	if (!m)
		return;
	m->seen = true;
	if (f->has_flags) {
		replace(&m->keywords, f->keywords, strlen(f->keywords));
		m->message.flags = f->flags;
	}
	if (f->email_id)
		replace(&m->email_id, f->email_id, strlen(f->email_id));
	if (f->has_size) {
		m->message.has_size = true;
		m->message.size = f->size;
	}
	if (f->has_date)
		m->message.internal_date = f->date;
	if (f->modseq)
		m->message.modseq = f->modseq;
	if (f->header && !m->header) {
		b->batch_bytes += f->header_len;
		b->refused |= b->batch_count > 1 && b->batch_bytes > BATCH_BYTES;
	}
	if (f->header && !m->header && !is_for_one_by_one(b)) {
		replace(&m->header, f->header, f->header_len);
		m->message.header_len = f->header_len;
	}
}

static void begin_batch(struct box *b)
{
	struct uidset some;
	uidset_init(&some);
	salvage_drop(b);
	b->refused = false;
	take_open(b, b->one_by_one ? 1 : BATCH, &some);
	struct uid_ranges ranges = uidset_ranges(&some);
	b->batch = mf_alloc_array(BATCH, sizeof *b->batch);
	for (size_t i = 0; i < ranges.count; i++)
		for (uint64_t uid = ranges.items[i].first; uid <= ranges.items[i].last; uid++)
			b->batch[b->batch_count++].uid = (uint32_t)uid;
	uidset_finish(&some);
}

static enum mf_err ask_items(struct changes *v, struct box *b, bool only_headerless, const char *const *items, size_t count)
{
	struct uidset some;
	enum mf_err e = MF_OK;
	uidset_init(&some);
	for (size_t i = 0; i < b->batch_count; i++)
		if (!only_headerless || (b->batch[i].seen && !b->batch[i].header))
			uidset_add(&some, b->batch[i].uid, b->batch[i].uid);
	for (size_t i = 0; i < count && !e && some.count; i++)
		e = send_set(v, b, uidset_ranges(&some), items[i], ASK_SALVAGE);
	uidset_finish(&some);
	return e;
}

static enum mf_err tell_batch(struct changes *v, struct box *b)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < b->batch_count && !e; i++) {
		struct salvaged *m = &b->batch[i];
		/* nothing came and nothing was refused: it is gone. Refused altogether: it is there, and has a file */
		if (!m->seen && !b->refused)
			continue;
		m->message.uid = m->uid;
		m->message.keywords = m->keywords ? m->keywords : "";
		m->message.email_id = m->email_id;
		m->message.header = m->header;
		e = changes_tell(v, b, &m->message);
	}
	return e;
}

static enum mf_err finish_batch(struct changes *v, struct box *b)
{
	enum mf_err e = MF_OK;
	if (is_for_one_by_one(b)) {
		b->one_by_one = true;
		b->open_from = b->batch[0].uid;
	} else {
		e = tell_batch(v, b);
	}
	salvage_drop(b);
	return e;
}

/* step 1: a batch's items; 2: the whole header of those whose fields did not come; 3: telling, and the next batch */
static enum mf_err salvage(struct changes *v, struct box *b)
{
	static const char *const parts[] = { "(UID FLAGS)", "(UID RFC822.SIZE)", "(UID INTERNALDATE)",
		"(UID BODY.PEEK[HEADER.FIELDS (" MAIL_SUMMARY_FIELDS ")])" };
	static const char *const header[] = { "(UID BODY.PEEK[HEADER])" };
	enum mf_err e;
	switch (b->step++) {
	case 1:
		begin_batch(b);
		b->issued = !b->batch_count;
		return ask_items(v, b, false, parts, 4);
	case 2:
		return is_for_one_by_one(b) ? MF_OK : ask_items(v, b, true, header, 1);
	default:
		e = finish_batch(v, b);
		b->step = 1;
		return e;
	}
}

enum mf_err salvage_issue(struct changes *v, struct box *b)
{
	return b->stage == STAGE_REFETCH ? refetch(v, b) : salvage(v, b);
}

#include "sync/readahead.h"

#include <stdlib.h>

#include "base/mem.h"
#include "sync/id_table.h"

#define WALKS 8
#define RING 4096             /* planned messages that a walk remembers; more than READAHEAD_MAX plus SLACK */
#define SLACK 256             /* how far behind the reader a message may stay unread before it counts as skipped */
#define RECENT 8
#define LEISURE_MS 2000       /* a window that lasts longer need not grow */
#define FORGET_MS 60000       /* reads further apart are not one walk */

struct planned {
	struct walk *walk;
	uint64_t message, position, weight;
	int64_t ms;                     /* when it was planned, */
	size_t window;                  /* and with which window */
	bool read;
};
struct walk {
	uint64_t mailbox, serial;       /* serial 0: free */
	enum listing_order order;
	uint64_t frontier;              /* the last message planned */
	uint64_t head, tail, position;  /* of the ring: oldest remembered, next free; the furthest that was read */
	size_t window, lead, was_read, was_skipped;
	uint64_t lead_bytes;
	int64_t used_ms;
	bool planning, at_end;
	struct planned *ring;
};
struct recent {
	uint64_t mailbox, message;
	unsigned run[2];                /* how many reads followed each other, by order */
	int64_t ms;
};
struct readahead {
	struct id_table planned;           /* message -> struct planned, of those not read */
	struct walk walks[WALKS];
	struct recent recent[RECENT];   /* newest first */
	uint64_t serial;
	uint64_t most_bytes;            /* planned by one walk */
};

struct readahead *readahead_create(void)
{
	struct readahead *r = MF_NEW(struct readahead);
	readahead_limit(r, 0);
	return r;
}

void readahead_limit(struct readahead *r, uint64_t kept)
{
	r->most_bytes = kept ? kept / 4 : UINT64_MAX;
}

void readahead_destroy(struct readahead *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < WALKS; i++)
		free(r->walks[i].ring);
	id_table_finish(&r->planned);
	free(r);
}

static struct planned *walk_at(struct walk *w, uint64_t position)
{
	return &w->ring[position % RING];
}

/* Takes one planned message off the books. */
static void walk_settle(struct readahead *r, struct walk *w, struct planned *p)
{
	if (p->read)
		return;
	p->read = true;
	id_table_remove(&r->planned, p->message);
	w->lead--;
	w->lead_bytes -= p->weight;
}

static void walk_end(struct readahead *r, struct walk *w)
{
	for (uint64_t i = w->head; i < w->tail; i++)
		walk_settle(r, w, walk_at(w, i));
	struct planned *ring = w->ring;
	*w = (struct walk){.ring = ring};
}

/* Forgets what the reader has left behind. One that takes a few of many is not worth reading ahead for. */
static void walk_advance(struct readahead *r, struct walk *w)
{
	while (w->head < w->tail && (walk_at(w, w->head)->read || w->position > w->head + SLACK)) {
		if (!walk_at(w, w->head)->read) {
			walk_settle(r, w, walk_at(w, w->head));
			w->was_skipped++;
		}
		w->head++;
	}
	if (w->was_skipped > 2 * w->was_read + 64)
		walk_end(r, w);
}

static void readahead_remember(struct readahead *r, const struct recent *new)
{
	for (size_t i = RECENT - 1; i > 0; i--)
		r->recent[i] = r->recent[i - 1];
	r->recent[0] = *new;
}

static uint64_t walk_bytes(const struct readahead *r, const struct walk *w)
{
	uint64_t bytes = w->window > READAHEAD_USUAL ? READAHEAD_BYTES : READAHEAD_USUAL_BYTES;
	return bytes < r->most_bytes ? bytes : r->most_bytes;
}

static void walk_widen(struct walk *w, size_t most)
{
	size_t wider = w->window * READAHEAD_GROWTH < most ? w->window * READAHEAD_GROWTH : most;
	if (wider > w->window)
		w->window = wider;
}

static void walk_plan(const struct readahead *r, struct walk *w, struct readahead_step *ret)
{
	size_t room = RING - (size_t)(w->tail - w->head);
	size_t max = w->window > w->lead ? w->window - w->lead : 0;
	if (w->planning || w->at_end || max == 0 || room < READAHEAD_MAX || w->lead_bytes >= walk_bytes(r, w))
		return;
	w->planning = true;
	ret->kind = READAHEAD_PLAN;
	ret->walk = (unsigned)(w - r->walks);
	ret->mailbox = w->mailbox;
	ret->serial = w->serial;
	ret->from = w->frontier;
	ret->order = w->order;
	ret->max = max;
	ret->bytes = walk_bytes(r, w) - w->lead_bytes;
}

static void walk_read(struct readahead *r, struct planned *p, bool missing, struct readahead_step *ret)
{
	struct walk *w = p->walk;
	walk_settle(r, w, p);
	w->was_read++;
	w->used_ms = ret->now_ms;
	if (p->position > w->position)
		w->position = p->position;
	readahead_remember(r, &(struct recent){.mailbox = w->mailbox, .message = ret->message, .run = {1, 1}, .ms = ret->now_ms});
	uint64_t serial = w->serial;
	walk_advance(r, w);
	if (w->serial != serial)
		return;
	/* in sizeable portions, so that the commands for them are */
	bool low = w->lead * 4 <= w->window * 3 && w->lead_bytes * 4 <= walk_bytes(r, w) * 3;
	/* one who reads at leisure has no use for more, nor has one whose line takes so long; he has had to wait with all of this window ahead */
	bool soon = ret->now_ms - p->ms < LEISURE_MS, starved = missing && soon && w->window >= READAHEAD_USUAL && p->window == w->window;
	uint64_t enough = (starved ? READAHEAD_BYTES : READAHEAD_USUAL_BYTES) / 2;
	if ((missing || (low && soon)) && w->lead_bytes < enough && !w->planning)
		walk_widen(w, starved ? READAHEAD_MAX : READAHEAD_USUAL);
	if (missing || low)
		walk_plan(r, w, ret);
}

/* The reader is where the last plan ended; what was planned has been read, though nobody said so. */
static void walk_continue(struct readahead *r, struct walk *w, struct readahead_step *ret)
{
	for (uint64_t i = w->head; i < w->tail; i++)
		walk_settle(r, w, walk_at(w, i));
	w->head = w->tail;
	w->frontier = ret->message;
	w->position = w->tail;
	w->used_ms = ret->now_ms;
	w->planning = w->at_end = false;
	w->serial = ++r->serial; /* a plan under way is void */
	walk_widen(w, READAHEAD_USUAL);
	walk_plan(r, w, ret);
}

void readahead_note(struct readahead *r, uint64_t mailbox, uint64_t message, bool missing, int64_t now_ms, struct readahead_step *ret)
{
	*ret = (struct readahead_step){.message = message, .mailbox = mailbox, .now_ms = now_ms};
	struct planned *p = id_table_get(&r->planned, message);
	if (p) {
		walk_read(r, p, missing, ret);
		return;
	}
	if (!missing || r->recent[0].message == message) {
		if (r->recent[0].message != message)
			readahead_remember(r, &(struct recent){.message = message, .ms = now_ms});
		return;
	}
	/* ends of what walks have planned, then what was read lately */
	for (size_t i = 0; i < WALKS && ret->count < READAHEAD_PROBES / 3; i++) {
		const struct walk *w = &r->walks[i];
		if (w->serial && w->mailbox == mailbox && now_ms - w->used_ms < FORGET_MS)
			ret->earlier[ret->count++] = w->frontier;
	}
	for (size_t i = 0; i < RECENT && ret->count < READAHEAD_PROBES; i++) {
		const struct recent *e = &r->recent[i];
		if (e->message == message)
			return; /* the rest of something that was read just now */
		if (e->message && now_ms - e->ms < FORGET_MS && (e->mailbox == 0 || e->mailbox == mailbox))
			ret->earlier[ret->count++] = e->message;
	}
	if (ret->count) {
		ret->kind = READAHEAD_PROBE;
		return;
	}
	readahead_remember(r, &(struct recent){.mailbox = mailbox, .message = message, .ms = now_ms});
}

static unsigned readahead_run(const struct readahead *r, const struct readahead_step *step, const struct readahead_follows *f, enum listing_order order)
{
	if (f->earlier < 0)
		return 0;
	for (size_t i = 0; i < RECENT; i++) {
		if (r->recent[i].message == step->earlier[f->earlier])
			return r->recent[i].run[order] + 1;
	}
	return 1;
}

static struct walk *readahead_free_walk(struct readahead *r)
{
	struct walk *best = &r->walks[0];
	for (size_t i = 0; i < WALKS; i++) {
		if (!r->walks[i].serial)
			return &r->walks[i];
		if (r->walks[i].used_ms < best->used_ms)
			best = &r->walks[i];
	}
	walk_end(r, best);
	return best;
}

static struct walk *readahead_walk_ending_at(struct readahead *r, const struct readahead_step *step, const struct readahead_follows follows[2])
{
	for (size_t i = 0; i < WALKS; i++) {
		struct walk *w = &r->walks[i];
		int earlier = w->serial ? follows[w->order].earlier : -1;
		bool near = earlier >= 0 && follows[w->order].between <= w->window / 8 + READAHEAD_NEAR;
		if (near && w->mailbox == step->mailbox && w->frontier == step->earlier[earlier])
			return w;
	}
	return NULL;
}

void readahead_probed(struct readahead *r, struct readahead_step *step, const struct readahead_follows follows[2])
{
	unsigned run[2] = {0, 0};
	bool walks[2];
	for (enum listing_order o = ORDER_ID; o <= ORDER_NAME; o++) {
		run[o] = readahead_run(r, step, &follows[o], o);
		walks[o] = run[o] >= 2 || (run[o] == 1 && follows[o].between < READAHEAD_NEAR);
	}
	readahead_remember(r, &(struct recent){.mailbox = step->mailbox, .message = step->message, .run = {run[0], run[1]}, .ms = step->now_ms});
	step->kind = READAHEAD_NONE;
	struct walk *w = readahead_walk_ending_at(r, step, follows);
	if (w) {
		walk_continue(r, w, step);
		return;
	}
	if (!walks[ORDER_ID] && !walks[ORDER_NAME])
		return;
	w = readahead_free_walk(r);
	if (!w->ring)
		w->ring = mf_alloc_array(RING, sizeof *w->ring);
	w->mailbox = step->mailbox;
	w->serial = ++r->serial;
	w->order = walks[ORDER_ID] && (!walks[ORDER_NAME] || run[ORDER_ID] >= run[ORDER_NAME]) ? ORDER_ID : ORDER_NAME;
	w->frontier = step->message;
	w->window = READAHEAD_FIRST;
	w->used_ms = step->now_ms;
	walk_plan(r, w, step);
}

size_t readahead_planned(struct readahead *r, const struct readahead_step *step, const struct entry *entries, const bool *cached, size_t count)
{
	struct walk *w = &r->walks[step->walk];
	if (w->serial != step->serial)
		return 0;
	w->planning = false;
	w->at_end = count < step->max;
	size_t taken = 0;
	while (taken < count && (w->lead_bytes < walk_bytes(r, w) || taken == 0)) {
		const struct entry *e = &entries[taken];
		w->frontier = e->id;
		if (!id_table_get(&r->planned, e->id)) { /* else another walk is there already */
			struct planned *p = walk_at(w, w->tail);
			*p = (struct planned){.walk = w, .message = e->id, .position = w->tail++, .weight = cached[taken] ? 0 : e->size, .ms = step->now_ms, .window = w->window};
			id_table_put(&r->planned, e->id, p);
			w->lead++;
			w->lead_bytes += p->weight;
		}
		taken++;
	}
	if (taken < count)
		w->at_end = false;
	return taken;
}

size_t readahead_lead(const struct readahead *r)
{
	size_t lead = 0;
	for (size_t i = 0; i < WALKS; i++)
		lead += r->walks[i].lead;
	return lead;
}

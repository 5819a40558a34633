#include "fs/park.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"

enum { HARD_LIMIT = 10 }; /* windows, however much progress there is */

/* All fields are guarded by the lot's lock, but for what is fixed at the start: req, call, context, directory. */
struct park {
	TAILQ_ENTRY(park) link;
	struct parking *lot;
	fuse_req_t req;
	const struct park_call *call;
	void *context;
	uint64_t directory, also_locked;
	int64_t window_ms, deadline_ms, limit_ms;
	uint64_t progress;
	struct want *want;     /* written by .start(); good once !starting, until want_over */
	enum mf_err result;    /* of who claimed it */
	bool starting;         /* park() is inside .start(): whoever claims leaves the answer to it */
	bool claimed;          /* somebody answers it */
	bool want_over;        /* its done() has been called, or never will be */
	bool cancelling;       /* somebody is inside .cancel(): done() waits, so that the want stays good */
	unsigned references;   /* one for the answer, one for the want */
};

struct parking {
	pthread_mutex_t lock;
	pthread_cond_t wake;    /* for the deadline's thread */
	pthread_cond_t settled; /* a park has gone, or a .cancel() has returned */
	TAILQ_HEAD(park_list, park) parks;
	int64_t sleeps_until_ms; /* the deadline's thread; 0: it is awake */
	bool stopping;
	pthread_t thread;
};

static void drop_locked(struct park *p)
{
	if (--p->references > 0)
		return;
	TAILQ_REMOVE(&p->lot->parks, p, link);
	pthread_cond_broadcast(&p->lot->settled);
	free(p);
}

/* true: the caller must answer it */
static bool claim_locked(struct park *p, enum mf_err result)
{
	if (p->claimed)
		return false;
	p->claimed = true;
	p->result = result;
	return !p->starting;
}

/* The claimer, with no lock held. A want that is still under way is given up before: its context goes with the answer.
 * So is the interrupt hook, which libfuse might be about to call: taking it back waits for that. Inside the hook itself
 * the request's lock is held, and a reply ends the hook too. */
static void answer(struct park *p, bool inside_hook)
{
	struct parking *lot = p->lot;
	if (p->req && !inside_hook)
		fuse_req_interrupt_func(p->req, NULL, NULL);
	pthread_mutex_lock(&lot->lock);
	if (!p->want_over) {
		p->cancelling = true;
		pthread_mutex_unlock(&lot->lock);
		bool cancelled = p->call->cancel(p->context, p->want);
		pthread_mutex_lock(&lot->lock);
		p->cancelling = false;
		pthread_cond_broadcast(&lot->settled);
		if (cancelled) {
			p->want_over = true;
			p->references--; /* the want's; the answer's is still there */
		}
	}
	pthread_mutex_unlock(&lot->lock);
	p->call->answer(p->context, p->req, p->result);
	pthread_mutex_lock(&lot->lock);
	drop_locked(p);
	pthread_mutex_unlock(&lot->lock);
}

/* want_done: on a thread of the account. That the account ends is no interrupt of the reader. */
static void on_done(void *context, enum mf_err result)
{
	struct park *p = context;
	struct parking *lot = p->lot;
	pthread_mutex_lock(&lot->lock);
	while (p->cancelling)
		pthread_cond_wait(&lot->settled, &lot->lock);
	p->want_over = true;
	bool mine = claim_locked(p, result == MF_CANCELLED ? MF_OFFLINE : result);
	pthread_mutex_unlock(&lot->lock);
	if (mine)
		answer(p, false);
	pthread_mutex_lock(&lot->lock);
	drop_locked(p);
	pthread_mutex_unlock(&lot->lock);
}

/* libfuse holds the request's own lock meanwhile; a reply does not take that one. */
void park_interrupted(fuse_req_t req, void *data)
{
	(void)req;
	struct park *p = data;
	pthread_mutex_lock(&p->lot->lock);
	bool mine = claim_locked(p, MF_CANCELLED);
	pthread_mutex_unlock(&p->lot->lock);
	if (mine)
		answer(p, true);
}

void park(struct parking *lot, fuse_req_t req, uint64_t directory, int64_t window_ms, const struct park_call *call, void *context)
{
	struct park *p = MF_NEW(struct park);
	*p = (struct park){ .lot = lot, .req = req, .call = call, .context = context, .directory = directory, .window_ms = window_ms,
		.starting = true, .references = 2, .progress = call->progress(context),
		.also_locked = call->also_locked ? call->also_locked(context) : 0 };
	p->deadline_ms = clock_mono_ms() + window_ms;
	p->limit_ms = clock_mono_ms() + HARD_LIMIT * window_ms;
	pthread_mutex_lock(&lot->lock);
	TAILQ_INSERT_TAIL(&lot->parks, p, link);
	pthread_mutex_unlock(&lot->lock);

	if (req)
		fuse_req_interrupt_func(req, park_interrupted, p);
	enum mf_err result = MF_OK;
	bool here = call->start(context, on_done, p, &result, &p->want);

	pthread_mutex_lock(&lot->lock);
	if (here) {
		p->want_over = true;
		p->references--;
		claim_locked(p, result == MF_CANCELLED ? MF_OFFLINE : result);
	} else if (lot->stopping) {
		claim_locked(p, MF_OFFLINE);
	}
	p->starting = false;
	bool mine = p->claimed;
	if (!mine && p->deadline_ms < lot->sleeps_until_ms)
		pthread_cond_signal(&lot->wake);
	pthread_mutex_unlock(&lot->lock);
	if (mine)
		answer(p, false);
}

bool parking_holds(struct parking *lot, uint64_t directory)
{
	bool found = false;
	struct park *p;
	pthread_mutex_lock(&lot->lock);
	TAILQ_FOREACH(p, &lot->parks, link)
		found |= (p->directory == directory || p->also_locked == directory) && !p->claimed;
	pthread_mutex_unlock(&lot->lock);
	return found;
}

struct park *parking_last(struct parking *lot)
{
	pthread_mutex_lock(&lot->lock);
	struct park *p;
	TAILQ_FOREACH_REVERSE(p, &lot->parks, park_list, link)
		if (!p->claimed && !p->starting)
			break;
	pthread_mutex_unlock(&lot->lock);
	return p;
}

/* one whose time is over, claimed; else NULL and when to look again (0: when woken) */
static struct park *claim_expired_locked(struct parking *lot, int64_t now, int64_t *ret_next)
{
	struct park *p;
	*ret_next = 0;
	TAILQ_FOREACH(p, &lot->parks, link) {
		if (p->claimed || p->starting)
			continue;
		if (p->deadline_ms <= now) {
			uint64_t progress = p->call->progress(p->context);
			if (progress == p->progress || now >= p->limit_ms) {
				claim_locked(p, MF_TIMEOUT);
				return p;
			}
			p->progress = progress;
			p->deadline_ms = now + p->window_ms < p->limit_ms ? now + p->window_ms : p->limit_ms;
		}
		if (*ret_next == 0 || p->deadline_ms < *ret_next)
			*ret_next = p->deadline_ms;
	}
	return NULL;
}

static void *watch_deadlines(void *context)
{
	struct parking *lot = context;
	pthread_mutex_lock(&lot->lock);
	while (!lot->stopping) {
		int64_t now = clock_mono_ms(), next;
		struct park *expired = claim_expired_locked(lot, now, &next);
		if (expired) {
			pthread_mutex_unlock(&lot->lock);
			answer(expired, false);
			pthread_mutex_lock(&lot->lock);
		} else if (next == 0) {
			lot->sleeps_until_ms = INT64_MAX;
			pthread_cond_wait(&lot->wake, &lot->lock);
		} else {
			lot->sleeps_until_ms = next;
			struct timespec until;
			clock_gettime(CLOCK_MONOTONIC, &until);
			int64_t wait = next - now + 1;
			until.tv_sec += wait / 1000;
			until.tv_nsec += wait % 1000 * 1000000;
			if (until.tv_nsec >= 1000000000) {
				until.tv_sec++;
				until.tv_nsec -= 1000000000;
			}
			pthread_cond_timedwait(&lot->wake, &lot->lock, &until);
		}
		lot->sleeps_until_ms = 0;
	}
	pthread_mutex_unlock(&lot->lock);
	return NULL;
}

struct parking *parking_create(void)
{
	struct parking *lot = MF_NEW(struct parking);
	pthread_mutex_init(&lot->lock, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&lot->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&lot->settled, NULL);
	TAILQ_INIT(&lot->parks);
	if (pthread_create(&lot->thread, NULL, watch_deadlines, lot) != 0)
		abort();
	return lot;
}

static struct park *claim_any_locked(struct parking *lot)
{
	struct park *p;
	TAILQ_FOREACH(p, &lot->parks, link)
		if (claim_locked(p, MF_OFFLINE))
			return p;
	return NULL;
}

void parking_answer_all(struct parking *lot)
{
	pthread_mutex_lock(&lot->lock);
	lot->stopping = true;
	pthread_cond_signal(&lot->wake);
	struct park *p;
	while ((p = claim_any_locked(lot))) {
		pthread_mutex_unlock(&lot->lock);
		answer(p, false);
		pthread_mutex_lock(&lot->lock);
	}
	pthread_mutex_unlock(&lot->lock);
}

void parking_destroy(struct parking *lot)
{
	if (!lot)
		return;
	parking_answer_all(lot);
	pthread_mutex_lock(&lot->lock);
	while (!TAILQ_EMPTY(&lot->parks))
		pthread_cond_wait(&lot->settled, &lot->lock);
	pthread_mutex_unlock(&lot->lock);
	pthread_join(lot->thread, NULL);
	pthread_cond_destroy(&lot->settled);
	pthread_cond_destroy(&lot->wake);
	pthread_mutex_destroy(&lot->lock);
	free(lot);
}

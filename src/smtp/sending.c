/* What goes out when: the sending thread, one message after the other, and what becomes of each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "smtp/queue.h"

#define MINUTE 60
#define RETRY_LEAST_S (5 * MINUTE)
#define RETRY_MOST_S (240 * MINUTE)
#define GIVE_UP_S (5 * 24 * 60 * MINUTE)
#define LINK_LEAST_S 30
#define LINK_MOST_S (15 * MINUTE)
#define COPY_AGAIN_S (5 * MINUTE)
#define JUST_NOW_S (30 * MINUTE)     /* after that a copy that the server has made is not known by its time */
#define NAP_MOST_S MINUTE            /* the wall clock may be set, the machine may sleep */

struct sender {
	struct outbox *o;
	struct smtp *smtp;           /* NULL: not connected */
	const struct account_config *config; /* by which it is, or was, connected */
	bool used;                   /* it has taken a message already */
	struct entry *entry;         /* under way */
};

/* --- what is due ---------------------------------------------------------------------------------------------------- */

bool entry_is_open(const struct outbox *o, const struct entry *e)
{
	return o->config->send == SEND_NOW || e->released || e->first_s;
}

static bool wants_sending(const struct outbox *o, const struct entry *e)
{
	return !e->held && !e->sending && !e->unfit && e->mark == MARK_NONE && entry_is_open(o, e) && entry_count(e, RECIPIENT_PENDING);
}

static bool wants_copy(const struct entry *e)
{
	return e->copy == COPY_WANTED && !e->sending && e->mark == MARK_NONE;
}

static int64_t retry_delay(unsigned attempts)
{
	int64_t delay = RETRY_LEAST_S;
	for (unsigned i = 1; i < attempts && delay < RETRY_MOST_S; i++)
		delay *= 2;
	return delay < RETRY_MOST_S ? delay : RETRY_MOST_S;
}

static void at_most(int64_t *at_s, int64_t most_s)
{
	if (*at_s > most_s)
		*at_s = most_s;
}

/* The clock was ahead, and has been set back: nothing lies further in the future than it was put off. */
static void mend_times_locked(struct outbox *o, int64_t now_s)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link) {
		int64_t rest_s = outbox_rest_s(o), retry_s = e->attempts ? retry_delay(e->attempts) : 0;
		at_most(&e->due_s, now_s + (rest_s > retry_s ? rest_s : retry_s)); /* who changes what is retried lets it rest once more */
		at_most(&e->first_s, now_s);
		at_most(&e->copy_at_s, now_s + COPY_AGAIN_S);
	}
	at_most(&o->link.next_try_s, now_s + o->link_delay_s);
}

static struct entry *next_locked(const struct outbox *o, int64_t now_s)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link)
		if (wants_sending(o, e) && e->due_s <= now_s)
			return e;
	return NULL;
}

static struct entry *next_copy_locked(const struct outbox *o, int64_t now_s)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link)
		if (wants_copy(e) && e->copy_at_s <= now_s)
			return e;
	return NULL;
}

static bool link_may_locked(const struct outbox *o, int64_t now_s)
{
	return !o->link.offline && o->link.error != MF_AUTH && o->link.next_try_s <= now_s;
}

/* Seconds until something is due; at most NAP_MOST_S */
static int64_t nap_locked(const struct outbox *o, int64_t now_s)
{
	int64_t at = now_s + NAP_MOST_S;
	const struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link) {
		bool may = o->link.error != MF_AUTH && !o->link.offline;
		int64_t due = may && wants_sending(o, e) ? e->due_s > o->link.next_try_s ? e->due_s : o->link.next_try_s : at;
		at = due < at ? due : at;
		at = wants_copy(e) && e->copy_at_s < at ? e->copy_at_s : at;
	}
	return at > now_s ? at - now_s : 0;
}

/* --- the link ------------------------------------------------------------------------------------------------------- */

static enum mf_err connect_by_config(struct outbox *o, const struct account_config *c, struct smtp **ret, struct mf_reason *why)
{
	if (!c->smtp.host)
		return mf_fail(why, MF_UNSUPPORTED, "%s has no smtp server; set smtp = smtps://HOST", c->name);
	struct smtp_options options = {
		.transport = { .host = c->smtp.host, .port = c->smtp.port, .implicit_tls = c->smtp.security == SECURITY_TLS, .tls = o->tls,
			.connect_timeout_ms = c->connect_timeout_ms, .cancel = &o->cancel },
		.start_tls = c->smtp.security == SECURITY_STARTTLS, .clear_allowed = c->tls_insecure, .auth = c->auth,
		.credentials = o->credentials,
	};
	return smtp_open(&options, ret, why);
}

static void link_failed(const struct sender *s, enum mf_err e, const struct mf_reason *why)
{
	struct outbox *o = s->o;
	pthread_mutex_lock(&o->lock);
	if (s->config != o->config) { /* the settings have changed meanwhile, and whoever changed them has woken us */
		pthread_mutex_unlock(&o->lock);
		return;
	}
	o->link_delay_s = o->link_delay_s ? 2 * o->link_delay_s : LINK_LEAST_S;
	o->link_delay_s = o->link_delay_s > LINK_MOST_S ? LINK_MOST_S : o->link_delay_s;
	bool news = o->link.error != e;
	o->link.error = e;
	o->link.reason = *why;
	o->link.next_try_s = e == MF_AUTH ? 0 : clock_wall_s() + o->link_delay_s;
	pthread_mutex_unlock(&o->lock);
	if (news)
		log_warning("%s: sending: %s", o->config->name, why->text[0] ? why->text : mf_err_words(e));
	outbox_tell(o, 0);
}

static void link_works(struct outbox *o, const struct smtp *smtp)
{
	uint64_t size_max = smtp_size_max(smtp);
	pthread_mutex_lock(&o->lock);
	bool news = o->link.error != MF_OK, size_changed = o->size_max != size_max;
	o->link = (struct outbox_link){ .offline = o->link.offline };
	o->link_delay_s = 0;
	o->size_max = size_max;
	pthread_mutex_unlock(&o->lock);
	if (size_changed)
		(void)queue_save_size_max(o, size_max);
	if (news)
		outbox_tell(o, 0);
}

static enum mf_err connect_now(struct sender *s)
{
	struct outbox *o = s->o;
	struct mf_reason why = { "" };
	s->config = o->config;
	enum mf_err e = s->config == o->access_config ? MF_OK : outbox_renew_access(o, s->config, &why);
	if (!e)
		e = o->options.connect ? o->options.connect(o->options.connect_context, &o->cancel, &s->smtp, &why)
		                       : connect_by_config(o, s->config, &s->smtp, &why);
	s->used = false;
	if (!e)
		link_works(o, s->smtp);
	else if (e != MF_CANCELLED)
		link_failed(s, e, &why);
	return e;
}

/* --- one message ---------------------------------------------------------------------------------------------------- */

/* The mark: from here until the answer it may have been sent. */
static enum mf_err make_mark(void *context)
{
	struct sender *s = context;
	pthread_mutex_lock(&s->o->lock);
	enum mf_err e = s->o->closing ? MF_CANCELLED : MF_OK;
	s->entry->mark = e ? MARK_NONE : MARK_DOT;
	s->o->past_dot = !e;
	struct buf text;
	queue_text(s->entry, &text);
	pthread_mutex_unlock(&s->o->lock);
	if (e)
		buf_finish(&text);
	return e ? e : queue_write(s->o, s->entry->id, &text);
}

static void note_progress(void *context, uint64_t bytes)
{
	struct sender *s = context;
	pthread_mutex_lock(&s->o->lock);
	s->o->flying = bytes;
	pthread_mutex_unlock(&s->o->lock);
}

static void take_recipient(struct recipient_state *r, const struct recipient_result *result)
{
	free(r->text);
	r->text = mf_strdup(result->text);
	if (result->verdict == VERDICT_SENT)
		r->state = RECIPIENT_SENT;
	else if (result->verdict == VERDICT_REFUSED)
		r->state = RECIPIENT_REFUSED;
}

static void give_up(struct entry *e, int64_t now_s)
{
	if (!e->first_s || now_s - e->first_s < GIVE_UP_S)
		return;
	for (size_t i = 0; i < e->envelope.recipient_count; i++)
		if (e->recipients[i].state == RECIPIENT_PENDING)
			e->recipients[i].state = RECIPIENT_REFUSED;
	MF_CLEANUP(mf_free) char *text = mf_format("given up after five days; last: %s", e->reason ? e->reason : "");
	entry_say(e, text);
}

/* The server takes so many at once: the others are next, and not later. */
static bool has_more_recipients(const struct submit_result *r)
{
	for (size_t i = 0; i < r->recipient_count; i++)
		if (r->recipients[i].verdict == VERDICT_LATER && (!strncmp(r->recipients[i].text, "452", 3) || !strncmp(r->recipients[i].text, "552", 3)))
			return true;
	return false;
}

/* Some have got it: how many, and why the first of the others has not */
static void say_others(struct entry *e)
{
	size_t other = 0;
	while (e->recipients[other].state == RECIPIENT_SENT)
		other++;
	const char *words = e->recipients[other].text;
	MF_CLEANUP(mf_free) char *text = mf_format("sent to %zu of %zu recipients; %s: %s", entry_count(e, RECIPIENT_SENT), e->envelope.recipient_count,
	                                           e->envelope.recipients[other], words ? words : "no answer");
	entry_say(e, text);
}

/* asked: the indices of those it was sent to */
static void apply_locked(struct outbox *o, struct entry *e, const struct submit_result *r, const size_t *asked, bool counts)
{
	int64_t now_s = clock_wall_s();
	size_t before = entry_count(e, RECIPIENT_SENT);
	for (size_t i = 0; i < r->recipient_count; i++)
		take_recipient(&e->recipients[asked[i]], &r->recipients[i]);
	e->mark = r->verdict == VERDICT_UNKNOWN ? MARK_MAYBE : MARK_NONE;
	if (entry_count(e, RECIPIENT_SENT) > before && e->copy == COPY_NONE) {
		e->copy = o->options.file_copy ? COPY_WANTED : COPY_FILED;
		e->copy_first = true;
	}
	size_t pending = entry_count(e, RECIPIENT_PENDING), refused = entry_count(e, RECIPIENT_REFUSED);
	if (r->verdict == VERDICT_SENT && (pending || refused))
		say_others(e);
	else
		entry_say(e, r->verdict == VERDICT_SENT ? "" : r->reason.text);
	if (!counts)
		return;
	e->changed_s = now_s;
	if (entry_count(e, RECIPIENT_SENT) > before && has_more_recipients(r)) {
		e->due_s = now_s;
		return;
	}
	e->attempts++;
	e->due_s = now_s + retry_delay(e->attempts);
	if (pending && e->mark == MARK_NONE)
		give_up(e, now_s);
}

static void log_result(struct outbox *o, const struct entry *e, const struct submit_result *r)
{
	static const char *const words[] = { "sent", "refused", "put off", "maybe sent" };
	char name[100], reason[400];
	mf_printable(name, sizeof name, e->name, strlen(e->name));
	mf_printable(reason, sizeof reason, r->reason.text, strlen(r->reason.text));
	log_line(r->verdict == VERDICT_SENT ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING, "%s: %s: %s: %s", o->config->name, name, words[r->verdict], reason);
}

/* The request's recipients: those of the envelope who have not got it. */
static size_t collect(const struct entry *e, char **recipients, size_t *asked)
{
	size_t n = 0;
	for (size_t i = 0; i < e->envelope.recipient_count; i++)
		if (e->recipients[i].state == RECIPIENT_PENDING) {
			recipients[n] = e->envelope.recipients[i];
			asked[n++] = i;
		}
	return n;
}

/* Returns the connection's state; *ret is filled. */
static enum mf_err submit_entry(struct sender *s, const size_t count, char **recipients, struct submit_result *ret)
{
	struct outbox *o = s->o;
	MF_CLEANUP(mf_close) int fd = queue_open_file(o, s->entry->id, "eml", O_RDONLY);
	if (fd < 0) {
		*ret = (struct submit_result){ .verdict = VERDICT_LATER };
		mf_fail(&ret->reason, MF_IO, "the prepared message cannot be opened: %s", strerror(errno));
		return MF_OK;
	}
	struct submit_request request = {
		.envelope = &s->entry->envelope, .recipients = recipients, .recipient_count = count, .id = s->entry->id, .fd = fd, .before_dot = make_mark,
		.progress = note_progress, .context = s,
	};
	enum mf_err e = smtp_submit(s->smtp, &request, ret);
	bool stale = e && s->used && ret->verdict == VERDICT_LATER && mf_err_scope(e) == MF_SCOPE_CONNECTION;
	s->used = true;
	if (!e)
		return e;
	smtp_destroy(s->smtp);
	s->smtp = NULL;
	if (!stale)
		return e;
	/* the server had ended the connection that the message before went over: that is no failure of this one */
	if (connect_now(s))
		return e;
	submit_result_finish(ret);
	e = smtp_submit(s->smtp, &request, ret);
	s->used = true;
	if (e) {
		smtp_destroy(s->smtp);
		s->smtp = NULL;
	}
	return e;
}

/* With the lock held, which is released meanwhile. The entry may be gone behind it. */
static void send_locked(struct sender *s, struct entry *e)
{
	struct outbox *o = s->o;
	uint64_t id = e->id;
	struct submit_result result;
	MF_CLEANUP(mf_free) char **recipients = mf_alloc_array(e->envelope.recipient_count, sizeof(char *));
	MF_CLEANUP(mf_free) size_t *asked = mf_alloc_array(e->envelope.recipient_count, sizeof(size_t));
	size_t count = collect(e, recipients, asked);
	s->entry = e;
	e->sending = true;
	o->flying = 0;
	o->flying_of = e->envelope.size - e->envelope.hidden;
	if (!e->first_s)
		e->first_s = clock_wall_s();
	pthread_mutex_unlock(&o->lock);
	outbox_tell(o, id);
	enum mf_err lost = submit_entry(s, count, recipients, &result);
	log_result(o, e, &result);
	if (lost == MF_AUTH)
		link_failed(s, lost, &result.reason);
	pthread_mutex_lock(&o->lock);
	apply_locked(o, e, &result, asked, lost != MF_CANCELLED && lost != MF_AUTH);
	o->past_dot = false;
	o->flying = o->flying_of = 0;
	o->sent += result.verdict == VERDICT_SENT;
	pthread_cond_broadcast(&o->turned);
	struct buf text;
	queue_text(e, &text);
	pthread_mutex_unlock(&o->lock);
	(void)queue_write(o, id, &text);  /* where that fails the mark stays: maybe sent, at the next start */
	submit_result_finish(&result);
	pthread_mutex_lock(&o->lock);
	e->sending = false;
	(void)outbox_finish_locked(o, e);
	pthread_mutex_unlock(&o->lock);
	outbox_tell(o, id);
	pthread_mutex_lock(&o->lock);
}

/* The same for the copy. */
static void file_locked(struct outbox *o, struct entry *e)
{
	uint64_t id = e->id, size = e->envelope.size;
	MF_CLEANUP(mf_free) char *message_id = mf_strdup(e->envelope.message_id ? e->envelope.message_id : "");
	MF_CLEANUP(mf_close) int fd = queue_open_file(o, id, "eml", O_RDONLY);
	bool first = e->copy_first && clock_wall_s() - e->changed_s < JUST_NOW_S;
	e->copy_first = false;
	e->copy = COPY_ASKED;
	pthread_mutex_unlock(&o->lock);
	enum mf_err err = fd < 0 ? MF_IO : o->options.file_copy(o->options.file_context, id, fd, size, message_id, first);
	pthread_mutex_lock(&o->lock);
	e = outbox_find_locked(o, id);
	if (!e || e->copy != COPY_ASKED)
		return;
	if (err) {
		e->copy = COPY_WANTED;
		e->copy_first = first && err == MF_OFFLINE; /* where it goes is not known: nothing was begun */
		e->copy_at_s = clock_wall_s() + COPY_AGAIN_S;
		log_line(err == MF_OFFLINE ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "%s: the copy of what was sent is not filed yet: %s",
		         o->config->name, mf_err_words(err));
		return;
	}
	e->copy = COPY_FILED;
	if (!queue_save(o, e))
		(void)outbox_finish_locked(o, e);
	pthread_mutex_unlock(&o->lock);
	outbox_tell(o, id);
	pthread_mutex_lock(&o->lock);
}

/* Needs no server, so that nothing of it is left to the next start. */
static void file_rest_locked(struct outbox *o)
{
	struct entry *e;
	while ((e = next_copy_locked(o, clock_wall_s())))
		file_locked(o, e);
}

/* --- all of them ---------------------------------------------------------------------------------------------------- */

static bool is_over_locked(struct outbox *o)
{
	return o->closing || cancel_is_raised(&o->cancel);
}

/* Everything that is due, until nothing is or the link fails. */
static enum mf_err run_locked(struct outbox *o)
{
	struct sender s = { .o = o };
	struct entry *e;
	enum mf_err err = MF_OK;
	while (!is_over_locked(o)) {
		int64_t now_s = clock_wall_s();
		mend_times_locked(o, now_s);
		if ((e = next_copy_locked(o, now_s))) {
			file_locked(o, e);
			continue;
		}
		if (!link_may_locked(o, now_s) || !next_locked(o, now_s))
			break;
		if (!s.smtp) {
			pthread_mutex_unlock(&o->lock);
			err = connect_now(&s);
			pthread_mutex_lock(&o->lock);
			if (err)
				break;
		}
		if ((e = next_locked(o, clock_wall_s()))) /* it may have been taken back meanwhile */
			send_locked(&s, e);
	}
	pthread_mutex_unlock(&o->lock);
	smtp_close(s.smtp);
	pthread_mutex_lock(&o->lock);
	return err;
}

void *sending_main(void *context)
{
	struct outbox *o = context;
	pthread_mutex_lock(&o->lock);
	while (!o->closing) {
		o->woken = false;
		(void)run_locked(o);
		if (o->closing || o->woken)
			continue;
		struct timespec until;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += nap_locked(o, clock_wall_s());
		until.tv_nsec += 1000000; /* never none at all */
		until.tv_sec += until.tv_nsec >= 1000000000;
		until.tv_nsec %= 1000000000;
		while (!o->closing && !o->woken && !pthread_cond_timedwait(&o->turned, &o->lock, &until))
			;
	}
	file_rest_locked(o);
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

enum mf_err outbox_send_due(struct outbox *o, struct mf_reason *why)
{
	pthread_mutex_lock(&o->lock);
	if (o->has_thread || o->running) {
		o->woken = true;
		pthread_cond_broadcast(&o->turned);
		pthread_mutex_unlock(&o->lock);
		return MF_OK;
	}
	o->running = true;
	enum mf_err e = run_locked(o);
	if (!e && next_locked(o, clock_wall_s()) && !is_over_locked(o))
		e = o->link.error;
	o->running = false;
	if (e)
		mf_fail(why, e, "%s", o->link.reason.text[0] ? o->link.reason.text : mf_err_words(e));
	pthread_mutex_unlock(&o->lock);
	return e;
}

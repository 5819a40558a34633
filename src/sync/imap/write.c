/* Changes at the server. See write.h. */
#include "sync/imap/write.h"

#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"

#define COMMANDS_AHEAD 64
#define MESSAGES_AHEAD 20000      /* one is some 60 bytes of an answer, and all answers fit the transport's buffer */
#define BYTES_AHEAD (4U << 20)
#define REASON_MAX 240

/* --- what an answer means -------------------------------------------------------------------------------------------- */

enum mf_err write_verdict(const struct imap_cond *cond)
{
	if (cond->kind == COND_OK)
		return MF_OK;
	if (span_is(cond->code, "TOOBIG") || span_is(cond->code, "LIMIT"))
		return MF_TOO_BIG;
	if (cond->kind == COND_NO && span_is(cond->code, "INUSE"))
		return MF_CANCELLED; /* of one mailbox, for as long as somebody has it open */
	enum mf_err e = imap_cond_classify(cond);
	if (e == MF_PROTOCOL) /* BAD: the server does not know the command, or not like this */
		return MF_UNSUPPORTED;
	return e == MF_AUTH || e == MF_TLS ? MF_DENIED : e; /* of this write: the session is logged in */
}

void write_fail(struct writer *v, size_t i, enum mf_err e, const char *reason, size_t len)
{
	struct write_item *item = &v->items[i];
	char text[REASON_MAX];
	if (item->result)
		return;
	item->result = e;
	item->reason = mf_strdup(mf_printable(text, sizeof text, reason, len));
}

static void item_finish(struct write_item *item)
{
	free(item->pairs);
	free(item->there);
	free(item->reason);
	item->pairs = NULL;
	item->there = NULL;
	item->reason = NULL;
}

static enum mf_err tell(struct writer *v, size_t i)
{
	struct write_item *item = &v->items[i];
	write_pairs_finish(v, i);
	struct write_result result = { .result = item->result, .reason = item->result && item->reason ? item->reason : "", .uidvalidity = item->uidvalidity,
		.unclear = item->unsaid, .pairs = item->pairs, .count = item->count, .there = item->there };
	item->told = true;
	enum mf_err e = v->sink->done(v->sink->context, i, &result);
	item_finish(item);
	return e;
}

enum mf_err write_tell(struct writer *v, size_t i)
{
	struct write_item *item = &v->items[i];
	return item->issued && !item->pending && !item->doubt && !item->told ? tell(v, i) : MF_OK;
}

enum mf_err write_over(struct writer *v, size_t i, const struct imap_cond *cond, const char *what)
{
	enum mf_err e = write_verdict(cond);
	if (e && mf_err_scope(e) >= MF_SCOPE_CONNECTION)
		return imap_cond_error(v->s, cond, what);
	if (e)
		write_fail(v, i, e, cond->text.p, cond->text.len);
	v->items[i].pending--;
	return write_tell(v, i);
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

enum mf_err write_room(struct writer *v, size_t messages, uint64_t bytes)
{
	enum mf_err e = MF_OK;
	while (!e && v->s->under_way && (v->s->under_way >= COMMANDS_AHEAD || (v->messages && v->messages + messages > MESSAGES_AHEAD) ||
	                                 (v->bytes && v->bytes + bytes > BYTES_AHEAD)))
		e = imap_pump(v->s);
	return e;
}

enum mf_err write_send(struct writer *v, size_t i, const struct imap_command *command, unsigned *ret_serial)
{
	struct imap_command c = *command;
	struct write_item *item = &v->items[i];
	c.owner = v;
	c.index = i;
	item->pending++;
	unsigned serial = 0;
	enum mf_err e = imap_send(v->s, &c, &serial);
	if (ret_serial)
		*ret_serial = serial;
	if (!e || v->s->dead)
		return e;
	item->pending--;
	write_fail(v, i, e, v->s->why.text, strlen(v->s->why.text));
	return MF_OK;
}

/* --- what comes ------------------------------------------------------------------------------------------------------ */

static bool same_name(const char *a, const char *b)
{
	return !strcmp(a, b) || (!strcasecmp(a, "INBOX") && !strcasecmp(b, "INBOX"));
}

static bool take_mailbox(struct writer *v, const struct imap_data *data)
{
	if (!v->asked || !same_name(v->asked, data->mailbox.raw))
		return false;
	v->listed |= data->kind == DATA_LIST;
	v->selectable |= data->kind == DATA_LIST && !(data->mailbox.flags & MAILBOX_NOSELECT);
	v->subscribed |= data->kind == DATA_LSUB || (data->mailbox.flags & MAILBOX_SUBSCRIBED);
	/* what NOTIFY tells of it meanwhile says how many there are or says nothing of that */
	if (data->kind == DATA_STATUS && data->counted) {
		v->counted = true;
		v->messages_there = data->mailbox.status.messages;
	}
	return true;
}

/* Behind the numbers there may be (MODSEQ ...). What cannot be read may be any message. */
static void take_deleted(struct writer *v, struct scan s)
{
	for (;;) {
		uint32_t uid;
		while (scan_char(&s, ' '))
			;
		if (scan_at_end(&s) || *s.p == '(')
			return;
		if (!scan_uid(&s, &uid) || (!scan_at_end(&s) && *s.p != ' ')) {
			v->others_marked = true;
			return;
		}
		bool ours = write_is_of(v->expunges, uid);
		v->ours_marked |= ours;
		v->others_marked |= !ours;
	}
}

static enum mf_err on_data(struct imap *s, void *verb, struct imap_data *data)
{
	struct writer *v = verb;
	(void)s;
	if (data->kind == DATA_LIST || data->kind == DATA_LSUB || data->kind == DATA_STATUS)
		data->expected = take_mailbox(v, data);
	else if (data->kind == DATA_SEARCH && v->expunges)
		take_deleted(v, data->rest);
	else if (data->kind == DATA_FETCH)
		write_take_fetch(v, &data->fetch);
	else if (data->kind == DATA_VANISHED && !data->earlier)
		write_take_vanished(v, data->rest);
	else if (data->kind == DATA_COND && span_is(data->cond.code, "COPYUID"))
		write_take_copyuid(v, data->cond.args);
	else if (data->kind == DATA_COND && span_is(data->cond.code, "APPENDUID"))
		write_take_appenduid(v, data->cond.args);
	return MF_OK;
}

/* --- the verb -------------------------------------------------------------------------------------------------------- */

static bool is_of_messages(enum write_kind kind)
{
	return kind == WRITE_FLAGS || kind == WRITE_COPY || kind == WRITE_MOVE || kind == WRITE_EXPUNGE;
}

/* what cannot be changed by what is in doubt, nor change it */
static bool may_follow_doubt(enum write_kind kind)
{
	return kind == WRITE_CREATE || kind == WRITE_SUBSCRIBE || kind == WRITE_UNSUBSCRIBE;
}

static enum mf_err issue(struct writer *v, size_t i)
{
	enum write_kind kind = v->writes[i].kind;
	enum mf_err e = write_room(v, 0, 0);
	if (!e && !may_follow_doubt(kind))
		e = write_settle(v);
	if (!is_of_messages(kind))
		v->refused = NULL;
	if (e)
		return e;
	if (is_of_messages(kind))
		e = write_messages(v, i);
	else if (kind == WRITE_APPEND || kind == WRITE_REPLACE)
		e = write_append(v, i);
	else
		e = write_mailbox(v, i);
	v->items[i].issued = true;
	return e ? e : write_tell(v, i);
}

static enum mf_err once_more(struct writer *v)
{
	struct write_again one = v->again[--v->again_count];
	struct write_item *item = &v->items[one.index];
	v->last_chance = true;
	item->issued = false;
	item->pending--;
	enum mf_err e = item->result ? MF_OK : write_part(v, one.index, one.first, one.last);
	item->issued = true;
	return e ? e : write_tell(v, one.index);
}

static enum mf_err write_all(struct writer *v)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < v->count && !e; i++)
		e = issue(v, i);
	if (!e)
		e = write_settle(v);
	if (!e)
		e = imap_pump_all(v->s);
	while (!e && v->again_count)
		e = once_more(v);
	return e ? e : imap_pump_all(v->s);
}

enum mf_err imap_write(struct imap *s, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	struct writer v = { .s = s, .writes = writes, .sink = sink, .count = count };
	enum mf_err e = imap_verb_begin(s, &v, on_data);
	if (e || !count)
		return e ? e : imap_verb_end(s, MF_OK);
	v.items = mf_alloc_array(count, sizeof *v.items);
	e = imap_verb_end(s, write_all(&v));
	for (size_t i = 0; i < count; i++)
		item_finish(&v.items[i]);
	free(v.items);
	free(v.again);
	free(v.refused_reason);
	return e;
}

/* Changes to the tree of mailboxes: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE. See write.h.
 *
 * Servers of before RFC 5530 say NO and nothing else to CREATE of what exists. Such an answer is doubtful; LIST tells. */
#include "sync/imap/write.h"

#include <string.h>
#include <strings.h>

static void fail(struct writer *v, size_t i, enum mf_err e, const char *reason)
{
	write_fail(v, i, e, reason, strlen(reason));
}

/* --- asking ---------------------------------------------------------------------------------------------------------- */

static enum mf_err answered(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	enum mf_err e = write_verdict(cond);
	(void)s;
	return e && mf_err_scope(e) >= MF_SCOPE_CONNECTION ? imap_cond_error(s, cond, c->what) : MF_OK;
}

/* Whether the mailbox is there, as v->listed and its like. The command's beginning has been put. */
static enum mf_err ask(struct writer *v, const char *raw, const char *what)
{
	unsigned serial;
	v->asked = raw;
	v->listed = v->selectable = v->subscribed = v->counted = false;
	imap_put_string(v->s, raw, strlen(raw));
	if (!strcmp(what, "STATUS"))
		imap_put(v->s, " (MESSAGES)");
	enum mf_err e = imap_send(v->s, &(struct imap_command){ .what = what, .done = answered }, &serial);
	if (!e)
		e = imap_pump_until(v->s, serial);
	else if (!v->s->dead)
		e = MF_OK; /* a name that cannot be sent is nowhere */
	v->asked = NULL;
	return e;
}

static enum mf_err ask_status(struct writer *v, const char *raw)
{
	imap_put(v->s, "STATUS ");
	return ask(v, raw, "STATUS");
}

static enum mf_err ask_list(struct writer *v, const char *raw)
{
	imap_put(v->s, "LIST \"\" ");
	return ask(v, raw, "LIST");
}

static enum mf_err ask_subscribed(struct writer *v, const char *raw)
{
	bool extended = v->s->caps & CAP(LIST_EXTENDED);
	imap_put(v->s, "%s \"\" ", extended ? "LIST (SUBSCRIBED)" : "LSUB");
	return ask(v, raw, extended ? "LIST" : "LSUB");
}

/* --- what is in doubt ------------------------------------------------------------------------------------------------- */

static enum mf_err settle_one(struct writer *v, size_t i)
{
	const struct remote_write *w = &v->writes[i];
	struct write_item *item = &v->items[i];
	enum mf_err e = w->kind == WRITE_CREATE ? ask_list(v, w->raw) : ask_subscribed(v, w->raw);
	if (e)
		return e;
	bool fine = w->kind == WRITE_CREATE ? v->selectable : w->kind == WRITE_SUBSCRIBE ? v->subscribed : !v->subscribed;
	item->doubt = false;
	v->doubts--;
	if (fine)
		item->result = MF_OK;
	return write_tell(v, i);
}

enum mf_err write_settle(struct writer *v)
{
	enum mf_err e = MF_OK;
	while (!e && v->doubtful)
		e = imap_pump(v->s);
	for (size_t i = 0; i < v->count && !e && v->doubts; i++)
		if (v->items[i].doubt)
			e = settle_one(v, i);
	return e;
}

static enum mf_err doubtful_done(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct writer *v = c->owner;
	static const struct imap_cond fine = { .kind = COND_OK };
	bool exists = span_is(cond->code, "ALREADYEXISTS"), missing = span_is(cond->code, "NONEXISTENT");
	enum write_kind kind = v->writes[c->index].kind;
	(void)s;
	v->doubtful--;
	if (cond->kind == COND_NO && ((kind == WRITE_CREATE && exists) || (kind == WRITE_UNSUBSCRIBE && missing)))
		return write_over(v, c->index, &fine, c->what);
	if (cond->kind == COND_NO && !cond->code.len && write_verdict(cond) == MF_DENIED) {
		v->items[c->index].doubt = true;
		v->doubts++;
	}
	return write_over(v, c->index, cond, c->what);
}

/* CREATE, SUBSCRIBE, UNSUBSCRIBE */
static enum mf_err send_doubtful(struct writer *v, size_t i, const char *what)
{
	const char *raw = v->writes[i].raw;
	unsigned serial;
	imap_put(v->s, "%s ", what);
	imap_put_string(v->s, raw, strlen(raw));
	v->doubtful++;
	enum mf_err e = write_send(v, i, &(struct imap_command){ .what = what, .done = doubtful_done }, &serial);
	if (!serial)
		v->doubtful--;
	return e;
}

/* --- DELETE and RENAME ------------------------------------------------------------------------------------------------- */

static bool is_inbox(const char *raw)
{
	return !strcasecmp(raw, "INBOX");
}

/* The mailbox itself or, whatever the delimiter is, one below it: its name begins the same. */
static bool is_in_use(const struct imap *s, const char *raw)
{
	return s->selected.raw && !strncmp(s->selected.raw, raw, strlen(raw));
}

/* Not selected any more, as servers want it who delete or rename. Without UNSELECT another one is examined in its place:
 * CLOSE would expunge. */
static enum mf_err leave(struct writer *v, const char *raw)
{
	struct imap *s = v->s;
	if (!is_in_use(s, raw))
		return MF_OK;
	enum mf_err e = s->caps & CAP(UNSELECT) ? imap_refresh_view(s) : imap_send_select(s, "INBOX", "", &(struct imap_command){ .done = answered });
	return e ? e : imap_pump_all(s); /* only then it is known what is selected */
}

static enum mf_err done(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	static const struct imap_cond fine = { .kind = COND_OK };
	struct writer *v = c->owner;
	(void)s;
	if (v->writes[c->index].kind == WRITE_DELETE && cond->kind == COND_NO && span_is(cond->code, "NONEXISTENT"))
		return write_over(v, c->index, &fine, c->what);
	return write_over(v, c->index, cond, c->what);
}

static enum mf_err send_delete(struct writer *v, size_t i)
{
	imap_put(v->s, "DELETE ");
	imap_put_string(v->s, v->writes[i].raw, strlen(v->writes[i].raw));
	return write_send(v, i, &(struct imap_command){ .what = "DELETE", .done = done }, NULL);
}

static enum mf_err delete_mailbox(struct writer *v, size_t i)
{
	const char *raw = v->writes[i].raw;
	if (is_inbox(raw)) {
		fail(v, i, MF_DENIED, "INBOX cannot be deleted");
		return MF_OK;
	}
	enum mf_err e = leave(v, raw);
	if (!e)
		e = ask_status(v, raw);
	if (!e && v->counted && !v->messages_there)
		return send_delete(v, i);
	if (!e && v->counted) {
		fail(v, i, MF_EXISTS, "there are messages in it");
		return MF_OK;
	}
	/* no answer: it is not there, or it can hold no messages, or they may not be counted */
	if (!e)
		e = ask_list(v, raw);
	if (e || !v->listed)
		return e;
	if (!v->selectable)
		return send_delete(v, i);
	fail(v, i, MF_DENIED, "the server does not say whether there are messages in it");
	return MF_OK;
}

static enum mf_err rename_mailbox(struct writer *v, size_t i)
{
	const struct remote_write *w = &v->writes[i];
	if (is_inbox(w->raw)) {
		fail(v, i, MF_UNSUPPORTED, "INBOX cannot be renamed");
		return MF_OK;
	}
	enum mf_err e = leave(v, w->raw);
	if (e)
		return e;
	imap_put(v->s, "RENAME ");
	imap_put_string(v->s, w->raw, strlen(w->raw));
	imap_put(v->s, " ");
	imap_put_string(v->s, w->to, strlen(w->to));
	return write_send(v, i, &(struct imap_command){ .what = "RENAME", .done = done }, NULL);
}

enum mf_err write_mailbox(struct writer *v, size_t i)
{
	enum write_kind kind = v->writes[i].kind;
	if (kind == WRITE_DELETE)
		return delete_mailbox(v, i);
	if (kind == WRITE_RENAME)
		return rename_mailbox(v, i);
	return send_doubtful(v, i, kind == WRITE_CREATE ? "CREATE" : kind == WRITE_SUBSCRIBE ? "SUBSCRIBE" : "UNSUBSCRIBE");
}

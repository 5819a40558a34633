/* What changed in many mailboxes, pipelined across them. See changes.h. */
#include "sync/imap/changes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "mail/summary.h"

/* --- telling --------------------------------------------------------------------------------------------------------- */

static enum mf_err tell_opened(struct changes *v, struct box *b, const struct mailbox_status *status, bool read_only)
{
	if (b->opened)
		return MF_OK;
	b->opened = true;
	b->status = *status;
	enum mf_err e = v->sink->opened(v->sink->context, b->index, status, read_only);
	if (!status->uidvalidity)
		b->result = MF_UNSUPPORTED; /* without it no UID means anything tomorrow (RFC 9051 2.3.1.1) */
	else if (status->messages > MESSAGES_MAX)
		b->result = MF_TOO_BIG;
	else if (b->since->method != CHANGES_ALL && status->uidvalidity != b->since->uidvalidity)
		b->result = MF_UIDVALIDITY;
	return e;
}

/* QRESYNC tells changes before SELECT is answered; the mailbox is known by then, or it is not trusted with QRESYNC */
static bool open_early(struct changes *v, struct box *b, enum mf_err *ret_e)
{
	const struct imap_selection *opening = &v->s->opening;
	*ret_e = MF_OK;
	if (b->opened)
		return true;
	if (!opening->own || !opening->status.uidvalidity) {
		b->distrusted = true;
		return false;
	}
	*ret_e = tell_opened(v, b, &opening->status, false);
	return !*ret_e;
}

static void met(struct box *b, uint32_t uid)
{
	if (uid > b->top)
		b->top = uid;
}

enum mf_err changes_tell(struct changes *v, struct box *b, const struct remote_message *m)
{
	if (!uidhash_add(&b->told, m->uid))
		return MF_OK;
	return v->sink->message(v->sink->context, b->index, m);
}

static enum mf_err tell_flags(struct changes *v, struct box *b, const struct imap_fetch *f)
{
	return v->sink->flags(v->sink->context, b->index, f->uid, f->flags, f->keywords, f->modseq);
}

static enum mf_err tell_ranges(struct changes *v, struct box *b, struct uidset *set,
                               enum mf_err (*tell)(void *, size_t, const struct uid_ranges *))
{
	struct uid_ranges ranges = uidset_ranges(set);
	return tell(v->sink->context, b->index, &ranges);
}

static struct mailbox_status final_status(const struct changes *v, const struct box *b)
{
	struct mailbox_status status = b->status;
	status.rights = b->rights;
	uint32_t next = b->top == UINT32_MAX ? b->top : b->top + 1;
	if (b->top && next > status.uidnext)
		status.uidnext = next;
	if (b->since->method != CHANGES_ALL && b->since->uidnext > status.uidnext)
		status.uidnext = b->since->uidnext;
	if (b->rung == RUNG_NEW) /* flags were not looked at: they are still those of the old one */
		status.modseq = b->since->modseq;
	if (b->in_place)
		status.messages = v->s->selected.raw && !strcmp(v->s->selected.raw, b->since->raw) ? v->s->selected.status.messages : status.messages;
	return status;
}

static enum mf_err close_box(struct changes *v, struct box *b)
{
	struct mailbox_status status = final_status(v, b);
	enum mf_err e = MF_OK;
	if (!b->result && b->present_known)
		e = tell_ranges(v, b, &b->present, v->sink->present);
	b->stage = STAGE_DONE;
	v->closed++;
	if (!b->result && b->rung != RUNG_NEW)
		imap_watch_learnt(v->s, b->since->raw, &status);
	if (!e)
		e = v->sink->closed(v->sink->context, b->index, b->result, &status);
	uidset_finish(&b->present);
	uidset_finish(&b->open);
	uidhash_finish(&b->told);
	salvage_drop(b);
	return e;
}

/* --- what comes ------------------------------------------------------------------------------------------------------ */

static bool is_new(const struct box *b, uint32_t uid)
{
	return b->rung == RUNG_ALL || uid >= b->since->uidnext;
}

static enum mf_err take_new(struct changes *v, struct box *b, const struct imap_fetch *f)
{
	if (uidhash_has(&b->told, f->uid))
		return f->has_flags ? tell_flags(v, b, f) : MF_OK;
	if (!f->has_flags || !f->has_size || !f->header) {
		uidset_add(&b->open, f->uid, f->uid);
		return MF_OK;
	}
	struct remote_message m = { .uid = f->uid, .size = f->size, .has_size = true, .internal_date = f->has_date ? f->date : 0, .flags = f->flags,
		.keywords = f->keywords, .modseq = f->modseq, .email_id = f->email_id, .header = f->header, .header_len = f->header_len };
	return changes_tell(v, b, &m);
}

static enum mf_err take_old(struct changes *v, struct box *b, const struct imap_fetch *f, enum ask ask)
{
	if (ask == ASK_FLAGS)
		uidset_add(&b->present, f->uid, f->uid);
	return f->has_flags ? tell_flags(v, b, f) : MF_OK;
}

static enum mf_err take_fetch(struct changes *v, struct box *b, struct imap_data *data, enum ask ask)
{
	const struct imap_fetch *f = &data->fetch;
	enum mf_err e;
	data->expected = true;
	if (ask == ASK_SELECT && !open_early(v, b, &e))
		return e;
	if (!b->result && (b->told.count > MESSAGES_MAX || b->present.count > MESSAGES_MAX || b->open.count > MESSAGES_MAX))
		b->result = MF_TOO_BIG;
	if (b->result)
		return MF_OK;
	if (!f->uid) {
		if (data->kind == DATA_FETCH && !f->header && !f->has_size)
			data->expected = false; /* news of somebody's flags */
		else
			b->failed = true; /* whose it is cannot be told: SEARCH will find who is missing */
		return MF_OK;
	}
	if (f->uid < b->low)
		return MF_OK;
	if (!is_new(b, f->uid))
		return take_old(v, b, f, ask);
	met(b, f->uid);
	if (ask == ASK_SALVAGE) {
		salvage_take(b, f);
		return MF_OK;
	}
	if (data->kind == DATA_SKIPPED) {
		uidset_add(&b->open, f->uid, f->uid);
		return MF_OK;
	}
	return take_new(v, b, f);
}

static enum mf_err take_vanished(struct changes *v, struct box *b, struct imap_data *data, enum ask ask)
{
	enum mf_err e = MF_OK;
	struct uidset gone;
	bool old_ones = b->rung != RUNG_ALL && b->since->uidnext > b->low;
	if (ask == ASK_SELECT && !data->earlier && !v->s->opening.own)
		return MF_OK; /* of the mailbox before */
	data->expected = true;
	if ((ask == ASK_SELECT && !open_early(v, b, &e)) || !b->opened || b->result || (data->earlier && !old_ones))
		return e;
	uidset_init(&gone);
	/* EARLIER may name whatever never was (RFC 7162 3.2.10.1): only what the caller knows counts */
	if (!uidset_scan(&gone, &data->rest, b->low, data->earlier ? b->since->uidnext - 1 : UINT32_MAX))
		b->distrusted = true;
	else if (gone.count)
		e = tell_ranges(v, b, &gone, v->sink->vanished);
	uidset_finish(&gone);
	return e;
}

/* ESEARCH (TAG "x") UID ALL 1:3,5 ...; SEARCH 1 2 3 (RFC 9051 7.3.4, RFC 3501 7.2.5) */
static bool scan_found(struct imap_data *data, struct uidset *to, uint32_t low, uint32_t high)
{
	struct scan s = data->rest;
	struct span word = { NULL, 0 };
	uint32_t uid;
	if (data->kind == DATA_SEARCH) {
		while (scan_uid(&s, &uid)) {
			if (uid >= low && uid <= high)
				uidset_add(to, uid, uid);
			while (scan_char(&s, ' '))
				;
		}
		return scan_at_end(&s) || (s.p < s.end && *s.p == '(');
	}
	while (!scan_at_end(&s)) {
		while (scan_char(&s, ' '))
			;
		if (scan_word(&s, &word) && span_is(word, "ALL"))
			return scan_char(&s, ' ') && uidset_scan(to, &s, low, high);
		if (!word.len && !scan_skip(&s))
			return false;
		word.len = 0;
	}
	return true;
}

/* Commands that come together may be answered when all of them have been carried out, and in no order (Dovecot), so that what comes
 * need not be of the oldest. Of SEARCH there is never more than one under way in a mailbox. */
static const struct imap_command *find_search(const struct changes *v)
{
	for (const struct imap_command *c = v->s->head; c && !c->selects; c = c->next)
		if (c->owner == v && (c->first == ASK_PRESENT || c->first == ASK_MISSING || c->first == ASK_LISTED))
			return c;
	return NULL;
}

static bool add_found(struct imap_data *data, struct uidset *to, uint32_t low, uint32_t high)
{
	return scan_found(data, to, low, high) && uidset_size(to) <= MESSAGES_MAX;
}

static enum mf_err take_found(struct changes *v, struct imap_data *data)
{
	const struct imap_command *c = find_search(v);
	if (!c)
		return MF_OK;
	struct box *b = &v->boxes[c->index];
	uint32_t first_new = b->rung == RUNG_ALL || b->low > b->since->uidnext ? b->low : b->since->uidnext;
	data->expected = true;
	b->found = true;
	if (b->search_failed)
		return MF_OK;
	if (c->first != ASK_MISSING && !add_found(data, &b->present, b->low, b->since->uidnext - 1))
		b->search_failed = true;
	if (c->first != ASK_PRESENT && !add_found(data, &b->open, first_new, UINT32_MAX))
		b->search_failed = true;
	return MF_OK;
}

/* c and d (RFC 2086) stand for several of the rights that there are now; some servers have a mixture. What is taken for a right
 * and is none is found out by trying. */
static unsigned with_old_rights(unsigned rights)
{
	unsigned removing = RIGHT('t') | RIGHT('e');
	bool only_old = !(rights & (removing | RIGHT('k') | RIGHT('x')));
	if (rights & RIGHT('c'))
		rights |= RIGHT('k') | (only_old ? RIGHT('x') : 0);
	if ((rights & RIGHT('d')) && !(rights & removing))
		rights |= removing;
	return rights;
}

static bool is_called(const struct box *b, struct span name)
{
	const char *raw = b->since->raw;
	return (strlen(raw) == name.len && !memcmp(raw, name.p, name.len)) || (!strcasecmp(raw, "INBOX") && span_is(name, "INBOX"));
}

/* Whose rights are told: of those that were asked for. A server may spell the name otherwise, and answer in turn. */
static struct box *find_asked(const struct changes *v, struct span name)
{
	const struct imap_command *head = v->s->head;
	for (const struct imap_command *c = head; c && name.p; c = c->next)
		if (c->owner == v && c->first == ASK_RIGHTS && is_called(&v->boxes[c->index], name))
			return &v->boxes[c->index];
	return head && head->owner == v && head->first == ASK_RIGHTS ? &v->boxes[head->index] : NULL;
}

/* mailbox rights (RFC 4314 3.8) */
static void take_rights(struct changes *v, struct imap_data *data)
{
	struct scan s = data->rest;
	struct span name, letters;
	struct buf scratch;
	buf_init(&scratch, 65536);
	struct box *b = scan_nstring(&s, &scratch, &name) && scan_char(&s, ' ') ? find_asked(v, name) : NULL;
	data->expected |= b != NULL;
	if (b && scan_nstring(&s, &scratch, &letters) && letters.p) {
		b->rights = RIGHTS_TOLD;
		for (size_t i = 0; i < letters.len; i++)
			if (letters.p[i] >= 'a' && letters.p[i] <= 'z')
				b->rights |= RIGHT(letters.p[i]);
		b->rights = with_old_rights(b->rights);
	}
	buf_finish(&scratch);
}

static enum mf_err on_data(struct imap *s, void *verb, struct imap_data *data)
{
	struct changes *v = verb;
	const struct imap_command *head = s->head;
	if (data->kind == DATA_SEARCH || data->kind == DATA_ESEARCH)
		return take_found(v, data);
	if (data->kind == DATA_MYRIGHTS)
		take_rights(v, data);
	if (!head || head->owner != v || head->first == ASK_RIGHTS) /* what comes before that answer is about the mailbox before */
		return MF_OK;
	struct box *b = &v->boxes[head->index];
	enum ask ask = (enum ask)head->first;
	if (data->kind == DATA_FETCH || data->kind == DATA_SKIPPED)
		return ask == ASK_SELECT && !s->opening.own ? MF_OK : take_fetch(v, b, data, ask);
	if (data->kind == DATA_VANISHED)
		return take_vanished(v, b, data, ask);
	return MF_OK;
}

static enum rung first_rung(const struct imap *s, const struct mailbox_since *since)
{
	switch (since->method) {
	case CHANGES_ALL: return RUNG_ALL;
	case CHANGES_NEW_ONLY: return RUNG_NEW;
	case CHANGES_VERIFY: return RUNG_PLAIN;
	case CHANGES_AUTO: break;
	}
	if (!since->modseq)
		return RUNG_PLAIN;
	return s->qresync && (s->caps & CAP(QRESYNC)) ? RUNG_QRESYNC : s->caps & CAP(CONDSTORE) ? RUNG_CONDSTORE : RUNG_PLAIN;
}

/* --- when a command is over ------------------------------------------------------------------------------------------ */

static enum mf_err enqueue(struct changes *v, struct box *b, enum stage stage)
{
	b->stage = stage;
	b->step = 0;
	b->issued = false;
	v->queue[(v->queue_head + v->queue_len++) % v->count] = b->index;
	return MF_OK;
}

/* from here on everything is asked of the mailbox anew, without relying on mod-sequences */
static enum mf_err step_down(struct changes *v, struct box *b)
{
	trace(TRACE_IMAP, "%s: no QRESYNC or CONDSTORE for this mailbox: its flags are compared", v->s->host);
	b->rung = RUNG_PLAIN;
	b->distrusted = b->failed = b->present_known = b->search_failed = false;
	uidset_reset(&b->present);
	return enqueue(v, b, STAGE_MAIN);
}

/* Fewer have been told of than the mailbox has: the rest may be gone, or the server may have left them out. */
static bool incomplete(struct box *b)
{
	uint64_t known = b->told.count + salvage_open_count(b), wanted = b->status.messages;
	if (b->low > 1 || b->rung == RUNG_NEW || b->rung == RUNG_QRESYNC)
		return false;
	if (b->rung != RUNG_ALL)
		return known + uidset_size(&b->present) < wanted;
	return known < (b->since->newest && b->since->newest < wanted ? b->since->newest : wanted);
}

static enum mf_err give_up(struct changes *v, struct box *b, const char *why)
{
	b->result = imap_fail(v->s, MF_UNSUPPORTED, "a mailbox cannot be read: %s", why);
	return close_box(v, b);
}

static enum mf_err main_over(struct changes *v, struct box *b)
{
	bool laddered = b->rung == RUNG_QRESYNC || b->rung == RUNG_CONDSTORE;
	bool short_of = incomplete(b);
	if (laddered && (b->distrusted || b->search_failed || short_of))
		return step_down(v, b);
	if (b->failed || short_of)
		return enqueue(v, b, STAGE_SEARCH);
	return salvage_open_count(b) ? enqueue(v, b, STAGE_SALVAGE) : close_box(v, b);
}

static enum mf_err stage_over(struct changes *v, struct box *b)
{
	bool again = b->again;
	b->again = false;
	b->open_from = 1;
	if (b->result)
		return close_box(v, b);
	if (again) {
		b->rung = first_rung(v->s, b->since);
		b->distrusted = false;
		return enqueue(v, b, b->stage);
	}
	switch (b->stage) {
	case STAGE_MAIN:
		return main_over(v, b);
	case STAGE_SEARCH:
		if (b->search_failed)
			return give_up(v, b, "SEARCH fails");
		/* no deletion is concluded from a list that is shorter than the mailbox */
		if (b->rung == RUNG_PLAIN && incomplete(b))
			return give_up(v, b, "it has more messages than it lists");
		return salvage_open_count(b) ? enqueue(v, b, STAGE_REFETCH) : close_box(v, b);
	case STAGE_REFETCH:
		return salvage_open_count(b) ? enqueue(v, b, STAGE_SALVAGE) : close_box(v, b);
	case STAGE_SALVAGE: case STAGE_DONE:
		break;
	}
	return close_box(v, b);
}

/* The verdict of a mailbox: nothing here is of the connection, unless the server says that it is not available. */
static enum mf_err refuse(struct changes *v, struct box *b, const struct imap_cond *cond, const char *what)
{
	enum mf_err e = imap_cond_classify(cond);
	if (mf_err_scope(e) >= MF_SCOPE_CONNECTION && e != MF_PROTOCOL)
		return imap_cond_error(v->s, cond, what);
	struct imap_cond no = *cond;
	if (e == MF_PROTOCOL)
		no.kind = COND_NO;
	(void)imap_cond_error(v->s, &no, what);
	if (!b->result)
		b->result = e == MF_PROTOCOL ? MF_UNSUPPORTED : e;
	return MF_OK;
}

/* BAD for a SELECT with a parameter: the server cannot do what it says */
static void drop_parameter(struct changes *v, struct box *b)
{
	imap_caps caps = b->rung == RUNG_QRESYNC ? CAP(QRESYNC) : CAP(QRESYNC) | CAP(CONDSTORE);
	imap_memory_distrust(v->s->options.memory, caps);
	v->s->caps &= ~caps;
	b->again = true;
}

static enum mf_err selected(struct changes *v, struct box *b, const struct imap_cond *cond)
{
	struct imap *s = v->s;
	if (cond->kind == COND_BAD && b->parameter) {
		drop_parameter(v, b);
		return MF_OK;
	}
	if (cond->kind != COND_OK)
		return refuse(v, b, cond, "EXAMINE");
	if (b->opened && b->status.uidvalidity != s->selected.status.uidvalidity)
		b->result = MF_UIDVALIDITY;
	enum mf_err e = tell_opened(v, b, &s->selected.status, false); /* EXAMINE does not show whether it could be written to */
	if (b->stage == STAGE_MAIN)
		b->status = s->selected.status;
	else
		b->status.messages = s->selected.status.messages;
	if ((b->rung == RUNG_QRESYNC || b->rung == RUNG_CONDSTORE) && b->stage == STAGE_MAIN)
		b->distrusted |= s->selected.no_modseq || !b->status.modseq || b->status.modseq < b->since->modseq;
	return e;
}

static enum mf_err fetch_refused(struct changes *v, struct box *b, enum ask ask, const char *what, const struct imap_cond *cond)
{
	b->refused = true;
	switch (ask) {
	case ASK_CHANGED: case ASK_PRESENT: case ASK_MISSING: case ASK_LISTED:
		b->search_failed = true;
		break;
	case ASK_FLAGS: /* some say BAD to any set in an empty mailbox */
		if (b->status.messages)
			return refuse(v, b, cond, what);
		b->present_known = true;
		break;
	case ASK_NEW: case ASK_CHUNK:
		b->failed |= b->status.messages > 0;
		break;
	case ASK_RIGHTS: case ASK_SELECT: case ASK_REFETCH: case ASK_SALVAGE:
		break;
	}
	return MF_OK;
}

static enum mf_err fetched(struct changes *v, struct box *b, enum ask ask, const char *what, const struct imap_cond *cond)
{
	if (b->result || b->again)
		return MF_OK;
	if (imap_cond_classify(cond) == MF_OFFLINE)
		return imap_cond_error(v->s, cond, what);
	if (cond->kind != COND_OK)
		return fetch_refused(v, b, ask, what, cond);
	if (ask == ASK_FLAGS)
		b->present_known = true;
	if (ask == ASK_PRESENT || ask == ASK_MISSING || ask == ASK_LISTED) {
		b->search_failed |= !b->found;
		b->present_known |= ask != ASK_MISSING && b->found;
		b->found = false;
	}
	return MF_OK;
}

/* Who may not know his rights finds them out by trying. */
static enum mf_err rights_told(struct changes *v, const struct imap_command *c, const struct imap_cond *cond)
{
	if (imap_cond_classify(cond) == MF_OFFLINE)
		return imap_cond_error(v->s, cond, c->what);
	if (cond->kind == COND_BAD) {
		imap_memory_distrust(v->s->options.memory, CAP(ACL));
		v->s->caps &= ~CAP(ACL);
	}
	return MF_OK;
}

static enum mf_err done(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	struct changes *v = s->verb;
	struct box *b = &v->boxes[c->index];
	enum ask ask = (enum ask)c->first;
	b->pending--;
	enum mf_err e = ask == ASK_RIGHTS ? rights_told(v, c, cond) : ask == ASK_SELECT ? selected(v, b, cond) : fetched(v, b, ask, c->what, cond);
	return e ? e : b->issued && !b->pending ? stage_over(v, b) : MF_OK;
}

/* --- sending --------------------------------------------------------------------------------------------------------- */

const char *changes_items(const struct imap *s, char to[static 256])
{
	snprintf(to, 256, "(UID FLAGS INTERNALDATE RFC822.SIZE%s BODY.PEEK[HEADER.FIELDS (" MAIL_SUMMARY_FIELDS ")])",
	         s->caps & CAP(OBJECTID) ? " EMAILID" : s->caps & CAP(GMAIL) ? " X-GM-MSGID" : "");
	return to;
}

enum mf_err changes_send(struct changes *v, struct box *b, enum ask ask, const char *what)
{
	b->pending++;
	enum mf_err e = imap_send(v->s, &(struct imap_command){ .what = what, .done = done, .owner = v, .index = b->index, .first = ask }, NULL);
	if (e)
		b->pending--;
	return e;
}

/* Before the mailbox is selected: behind it, the answer could bring an EXPUNGE between FETCHes by sequence numbers. */
static enum mf_err send_rights(struct changes *v, struct box *b)
{
	if (b->stage != STAGE_MAIN || b->rights || !(v->s->caps & CAP(ACL)))
		return MF_OK;
	imap_put(v->s, "MYRIGHTS ");
	imap_put_string(v->s, b->since->raw, strlen(b->since->raw));
	enum mf_err e = changes_send(v, b, ASK_RIGHTS, "MYRIGHTS");
	return v->s->dead ? e : MF_OK; /* SELECT finds out that the name cannot be sent */
}

static enum mf_err send_select(struct changes *v, struct box *b)
{
	char parameter[64] = "";
	bool qresync = b->rung == RUNG_QRESYNC && b->stage == STAGE_MAIN;
	b->again = false;
	if (qresync)
		snprintf(parameter, sizeof parameter, " (QRESYNC (%u %llu))", b->since->uidvalidity, (unsigned long long)b->since->modseq);
	else if ((v->s->caps & CAP(CONDSTORE)) && !v->s->qresync)
		snprintf(parameter, sizeof parameter, " (CONDSTORE)");
	b->parameter = *parameter;
	enum mf_err e = send_rights(v, b);
	if (e)
		return e;
	b->pending++;
	e = imap_send_select(v->s, b->since->raw, parameter, &(struct imap_command){ .done = done, .owner = v, .index = b->index, .first = ASK_SELECT });
	if (!e || v->s->dead)
		return e;
	b->pending--; /* a name that cannot be sent */
	b->result = e;
	return MF_OK;
}

static enum mf_err send_new(struct changes *v, struct box *b)
{
	char items[256];
	uint32_t from = b->since->uidnext > b->low ? b->since->uidnext : b->low;
	imap_put(v->s, "UID FETCH %u:* %s", from, changes_items(v->s, items));
	return changes_send(v, b, ASK_NEW, "UID FETCH");
}

static enum mf_err send_present(struct changes *v, struct box *b)
{
	imap_put(v->s, "UID SEARCH %sUID %u:%u", v->s->caps & CAP(ESEARCH) ? "RETURN (ALL) " : "", b->low, b->since->uidnext - 1);
	return changes_send(v, b, ASK_PRESENT, "UID SEARCH");
}

static enum mf_err send_flags(struct changes *v, struct box *b)
{
	imap_put(v->s, "UID FETCH %u:%u (UID FLAGS)", b->low, b->since->uidnext - 1);
	if (b->rung == RUNG_CONDSTORE)
		imap_put(v->s, " (CHANGEDSINCE %llu)", (unsigned long long)b->since->modseq);
	return changes_send(v, b, b->rung == RUNG_CONDSTORE ? ASK_CHANGED : ASK_FLAGS, "UID FETCH");
}

/* The mailbox's messages are numbered densely, so these ranges cost one line each, and no EXPUNGE may come between them
 * (RFC 9051 7.5.1). Newest first. */
static enum mf_err send_chunk(struct changes *v, struct box *b)
{
	char items[256];
	uint32_t high = b->chunk_high, low = high - b->chunk_low >= CHUNK ? high - CHUNK + 1 : b->chunk_low;
	b->chunk_high = low - 1;
	imap_put(v->s, "FETCH %u:%u %s", low, high, changes_items(v->s, items));
	return changes_send(v, b, ASK_CHUNK, "FETCH");
}

static void plan_chunks(struct box *b, uint32_t messages)
{
	uint32_t newest = b->since->newest;
	b->chunk_high = messages;
	b->chunk_low = newest && newest < messages ? messages - newest + 1 : 1;
}

/* With a hint the chunks go out right behind SELECT. Where it was wrong, what is refused or left out is found by SEARCH.
 * false: an answer must come first. */
static bool issue_all(struct changes *v, struct box *b, enum mf_err *ret_e)
{
	const struct mailbox_status *hint = &b->since->hint;
	if (b->step == 1) {
		if (!b->opened && !hint->uidvalidity)
			return false;
		plan_chunks(b, b->opened ? b->status.messages : hint->messages);
		b->step = 2;
	}
	if (b->opened && b->chunk_high > b->status.messages)
		b->chunk_high = b->status.messages;
	if (b->chunk_high < b->chunk_low || !b->chunk_high) {
		b->issued = true;
		return true;
	}
	if (b->pending >= CHUNKS_AHEAD)
		return false;
	*ret_e = send_chunk(v, b);
	return true;
}

static enum mf_err issue_ladder(struct changes *v, struct box *b)
{
	bool old = b->since->uidnext > b->low && b->rung != RUNG_NEW && b->rung != RUNG_QRESYNC;
	enum mf_err e = old ? send_flags(v, b) : MF_OK;
	if (!e && old && b->rung == RUNG_CONDSTORE)
		e = send_present(v, b);
	if (!old && b->rung != RUNG_NEW && b->rung != RUNG_QRESYNC)
		b->present_known = true; /* nothing was there, and nothing is missing */
	if (!e)
		e = send_new(v, b);
	b->issued = true;
	return e;
}

static enum mf_err issue_search(struct changes *v, struct box *b)
{
	uint32_t newest = b->since->newest, messages = b->status.messages, first_new = b->since->uidnext > b->low ? b->since->uidnext : b->low;
	bool compares = b->rung == RUNG_PLAIN && b->since->uidnext > b->low;
	b->search_failed = false;
	if (compares) {
		uidset_reset(&b->present);
		b->present_known = false;
	}
	imap_put(v->s, "UID SEARCH %s", v->s->caps & CAP(ESEARCH) ? "RETURN (ALL) " : "");
	if (b->rung != RUNG_ALL)
		imap_put(v->s, "UID %u:*", compares ? b->low : first_new);
	else if (newest && newest < messages)
		imap_put(v->s, "%u:*", messages - newest + 1);
	else
		imap_put(v->s, "ALL");
	b->issued = true;
	return changes_send(v, b, compares ? ASK_LISTED : ASK_MISSING, "UID SEARCH");
}

static bool needs_select(const struct changes *v, struct box *b)
{
	const char *ahead = imap_selected_ahead(v->s);
	bool there = ahead && !strcmp(ahead, b->since->raw);
	if (b->stage != STAGE_MAIN) /* SEARCH is compared with a count of the same moment */
		return !there || b->stage == STAGE_SEARCH;
	b->in_place = b->rung == RUNG_NEW && there && v->s->selected.raw && !strcmp(v->s->selected.raw, b->since->raw) &&
	              v->s->selected.status.uidvalidity == b->since->uidvalidity;
	return !b->in_place;
}

/* Sends the next of what the first box of the queue wants. false: nothing can be sent before something comes. */
static bool issue(struct changes *v, struct box *b, enum mf_err *ret_e)
{
	*ret_e = MF_OK;
	if (b->step == 0) {
		b->step = 1;
		if (needs_select(v, b)) {
			*ret_e = send_select(v, b);
			return true;
		}
		if (b->stage == STAGE_MAIN)
			*ret_e = tell_opened(v, b, &v->s->selected.status, false);
		return true;
	}
	if (b->result) {
		b->issued = true;
		return true;
	}
	if (b->stage == STAGE_MAIN && b->rung == RUNG_ALL)
		return issue_all(v, b, ret_e);
	if (b->stage == STAGE_MAIN)
		*ret_e = issue_ladder(v, b);
	else if (b->stage == STAGE_SEARCH)
		*ret_e = issue_search(v, b);
	else if (b->pending)
		return false; /* a salvage step looks at what the one before has brought */
	else
		*ret_e = salvage_issue(v, b);
	return true;
}

static enum mf_err fill(struct changes *v)
{
	enum mf_err e = MF_OK;
	while (!e && v->queue_len && v->s->under_way < COMMANDS_AHEAD) {
		struct box *b = &v->boxes[v->queue[v->queue_head]];
		if (!issue(v, b, &e))
			break;
		if (e || !b->issued)
			continue;
		v->queue_head = (v->queue_head + 1) % v->count;
		v->queue_len--;
		if (!b->pending)
			e = stage_over(v, b);
	}
	return e;
}

static void prepare(struct changes *v, const struct mailbox_since *since)
{
	for (size_t i = 0; i < v->count; i++) {
		struct box *b = &v->boxes[i];
		*b = (struct box){ .since = &since[i], .index = i, .rung = first_rung(v->s, &since[i]), .low = since[i].first_uid ? since[i].first_uid : 1 };
		uidset_init(&b->present);
		uidset_init(&b->open);
		(void)enqueue(v, b, STAGE_MAIN);
	}
}

enum mf_err imap_changes(struct imap *s, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	struct changes v = { .s = s, .sink = sink, .count = count };
	enum mf_err e = imap_verb_begin(s, &v, on_data);
	if (e || !count)
		return e ? e : imap_verb_end(s, MF_OK);
	v.boxes = mf_alloc_array(count, sizeof *v.boxes);
	v.queue = mf_alloc_array(count, sizeof *v.queue);
	prepare(&v, since);
	e = fill(&v);
	while (!e && v.closed < count) {
		e = s->under_way ? imap_pump(s) : imap_fail(s, MF_PROTOCOL, "a mailbox could not be finished");
		if (!e)
			e = fill(&v);
	}
	e = imap_verb_end(s, e);
	for (size_t i = 0; i < count; i++) {
		uidset_finish(&v.boxes[i].present);
		uidset_finish(&v.boxes[i].open);
		uidhash_finish(&v.boxes[i].told);
		salvage_drop(&v.boxes[i]);
	}
	free(v.boxes);
	free(v.queue);
	return e;
}

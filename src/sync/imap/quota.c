/* GETQUOTAROOT (RFC 9208). */
#include "sync/imap/engine.h"

/* QUOTA root (STORAGE 10 512 ...), in units of 1024 bytes; the tightest of several roots counts */
static enum mf_err on_data(struct imap *s, void *verb, struct imap_data *data)
{
	struct quota *q = verb;
	struct span name;
	uint64_t used, limit;
	struct scan at = data->rest;
	(void)s;
	if (data->kind != DATA_QUOTA || !scan_skip(&at) || !scan_char(&at, ' ') || !scan_char(&at, '('))
		return MF_OK;
	while (scan_word(&at, &name) && scan_char(&at, ' ') && scan_number(&at, &used) && scan_char(&at, ' ') && scan_number(&at, &limit)) {
		uint64_t room = q->used < q->limit ? (q->limit - q->used) / 1024 : 0;
		bool tighter = !q->limit || limit < used || limit - used < room;
		if (span_is(name, "STORAGE") && limit && limit < UINT64_MAX / 1024 && used < UINT64_MAX / 1024 && tighter)
			*q = (struct quota){ .used = used * 1024, .limit = limit * 1024 };
		(void)scan_char(&at, ' ');
	}
	return MF_OK;
}

static enum mf_err done(struct imap *s, struct imap_command *c, const struct imap_cond *cond)
{
	return imap_cond_error(s, cond, c->what);
}

enum mf_err imap_quota(struct imap *s, struct quota *ret)
{
	struct quota found = { 0 };
	enum mf_err e = imap_verb_begin(s, &found, on_data);
	if (e)
		return e;
	if (!(s->caps & CAP(QUOTA)))
		return imap_verb_end(s, imap_fail(s, MF_UNSUPPORTED, "the server has no quota"));
	imap_put(s, "GETQUOTAROOT INBOX");
	e = imap_send(s, &(struct imap_command){ .what = "GETQUOTAROOT", .done = done }, NULL);
	if (!e)
		e = imap_pump_all(s);
	e = imap_verb_end(s, e);
	if (!e)
		*ret = found;
	return e;
}

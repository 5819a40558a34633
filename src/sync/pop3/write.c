/* Deleting, which is all that POP3 can change. A DELE only marks, and a session that ends without QUIT's answer has deleted
 * nothing; so a write is done when QUIT has been answered.
 *
 * A write is done as a whole or not at all: where the server refuses one of its messages all marks are taken back (RSET) and set
 * again without that write. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "sync/pop3/client.h"

struct deleting {
	struct pop3 *s;
	const struct remote_write *writes;
	const struct write_sink *sink;
	size_t count;
	bool *told;
	char reason[200];
};

static enum mf_err tell(struct deleting *v, size_t i, enum mf_err result, const char *reason)
{
	v->told[i] = true;
	return v->sink->done(v->sink->context, i, &(struct write_result){ .result = result, .reason = reason });
}

/* What can be said of a write without asking the server; MF_OK: nothing */
static enum mf_err judge(const struct pop3 *s, const struct remote_write *w)
{
	if (w->kind != WRITE_EXPUNGE)
		return MF_UNSUPPORTED;
	if (strcasecmp(w->raw, "INBOX") != 0)
		return MF_NOT_FOUND;
	return s->listed && w->uidvalidity != s->numbers.uidvalidity ? MF_UIDVALIDITY : MF_OK;
}

static const char *words_of(enum mf_err e)
{
	return e == MF_UNSUPPORTED ? "a POP3 server can only delete messages" : mf_err_words(e);
}

/* --- marks ------------------------------------------------------------------------------------------------------------------------ */

struct mark { uint32_t number; size_t write; };

/* The messages to be marked, each once. */
static size_t collect(struct deleting *v, struct mark **ret)
{
	struct pop3 *s = v->s;
	struct mark *marks = mf_alloc_array(s->drop.count + 1, sizeof *marks);
	bool *taken = mf_alloc_array(s->drop.count + 1, sizeof *taken);
	size_t n = 0;
	for (size_t i = 0; i < v->count; i++) {
		for (size_t k = 0; k < v->writes[i].count && !v->told[i]; k++) {
			const struct drop_item *item = maildrop_at_uid(&s->drop, v->writes[i].uids[k]);
			if (!item || taken[item - s->drop.items])
				continue;
			taken[item - s->drop.items] = true;
			marks[n++] = (struct mark){ item->number, i };
		}
	}
	free(taken);
	*ret = marks;
	return n;
}

/* *ret_refused: the write of a mark that the server refused; SIZE_MAX: none */
static enum mf_err mark_all(struct deleting *v, const struct mark *marks, size_t count, size_t *ret_refused)
{
	struct pop3 *s = v->s;
	size_t sent = 0, got = 0, window = pop3_window(s);
	enum mf_err e = MF_OK;
	*ret_refused = SIZE_MAX;
	while (!e && got < count) {
		while (!e && sent < count && sent - got < window && *ret_refused == SIZE_MAX)
			e = pop3_send(s, "DELE %u", marks[sent++].number);
		if (e || got == sent)
			break;
		bool ok;
		e = pop3_answer(s, &ok);
		if (!e && !ok && *ret_refused == SIZE_MAX) {
			*ret_refused = marks[got].write;
			pop3_words(s, v->reason, sizeof v->reason);
		}
		got++;
	}
	return e;
}

static enum mf_err take_back(struct pop3 *s)
{
	bool ok = false;
	enum mf_err e = pop3_send(s, "RSET");
	if (!e)
		e = pop3_answer(s, &ok);
	return e || ok ? e : pop3_fail(s, MF_PROTOCOL, "%s does not take back its marks", s->host);
}

/* *ret_any: there is something to be carried out */
static enum mf_err mark(struct deleting *v, bool *ret_any)
{
	for (;;) {
		struct mark *marks;
		size_t refused, count = collect(v, &marks);
		enum mf_err e = mark_all(v, marks, count, &refused);
		free(marks);
		*ret_any = count != 0;
		if (e || refused == SIZE_MAX)
			return e;
		e = take_back(v->s);
		if (!e)
			e = tell(v, refused, MF_DENIED, v->reason);
		if (e)
			return e;
	}
}

/* --- carrying out -------------------------------------------------------------------------------------------------------------------- */

static enum mf_err tell_rest(struct deleting *v)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < v->count && !e; i++)
		if (!v->told[i])
			e = tell(v, i, MF_OK, NULL);
	return e;
}

/* QUIT said that not everything was deleted (RFC 1939 6): who looks sees what is left. */
static enum mf_err look(struct deleting *v)
{
	struct pop3 *s = v->s;
	enum mf_err e = pop3_connect(s);
	if (!e)
		e = pop3_list(s);
	for (size_t i = 0; i < v->count && !e; i++) {
		bool left = false;
		for (size_t k = 0; k < v->writes[i].count && !v->told[i]; k++)
			left |= maildrop_at_uid(&s->drop, v->writes[i].uids[k]) != NULL;
		if (!v->told[i])
			e = tell(v, i, left ? MF_DENIED : MF_OK, left ? v->reason : NULL);
	}
	return e;
}

static enum mf_err carry_out(struct deleting *v)
{
	bool ok = false;
	enum mf_err e = pop3_quit(v->s, &ok);
	if (e)
		return e;
	if (ok)
		return tell_rest(v);
	pop3_words(v->s, v->reason, sizeof v->reason);
	return look(v);
}

static enum mf_err tell_judged(struct deleting *v)
{
	enum mf_err e = MF_OK;
	for (size_t i = 0; i < v->count && !e; i++) {
		enum mf_err result = v->told[i] ? MF_OK : judge(v->s, &v->writes[i]);
		if (result)
			e = tell(v, i, result, words_of(result));
	}
	return e;
}

static bool is_over(const struct deleting *v)
{
	for (size_t i = 0; i < v->count; i++)
		if (!v->told[i])
			return false;
	return true;
}

static enum mf_err run(struct deleting *v)
{
	bool any = false;
	enum mf_err e = tell_judged(v);
	if (e || is_over(v))
		return e;
	e = pop3_need_connection(v->s);
	if (!e)
		e = pop3_list(v->s);
	if (!e)
		e = tell_judged(v);
	if (!e)
		e = mark(v, &any);
	if (e)
		return e;
	return any ? carry_out(v) : tell_rest(v);
}

enum mf_err pop3_write(struct pop3 *s, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	struct deleting v = { .s = s, .writes = writes, .sink = sink, .count = count };
	v.told = mf_alloc_array(count + 1, sizeof *v.told);
	enum mf_err e = run(&v);
	/* marks that are not meant any more end with the connection, without QUIT */
	if (e)
		pop3_drop(s);
	free(v.told);
	return e;
}

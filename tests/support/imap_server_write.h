/* imap_server_write.h: what changes something: STORE, COPY, MOVE, EXPUNGE, APPEND, REPLACE, and the verbs of mailboxes; a part of
 * imap_server.c. It is done by the client's session at the server in memory. */

struct outcome { enum mf_err result; char *reason; struct buf pairs; };   /* pairs: as a response code, or nothing */

static void put_range(struct buf *to, uint32_t n)
{
	(void)buf_addf(to, "%s%u", to->len ? "," : "", n);
}

static enum mf_err take_outcome(void *context, size_t i, const struct write_result *r)
{
	struct outcome *o = context;
	struct buf from, to;
	(void)i;
	o->result = r->result;
	o->reason = mf_strdup(r->reason);
	buf_init(&from, 1 << 20);
	buf_init(&to, 1 << 20);
	for (size_t k = 0; k < r->count; k++) {
		put_range(&from, r->pairs[k].from);
		put_range(&to, r->pairs[k].to);
	}
	if (r->count && r->uidvalidity)
		(void)(r->pairs[0].from ? buf_addf(&o->pairs, "[COPYUID %u %s %s] ", r->uidvalidity, from.data, to.data)
		                        : buf_addf(&o->pairs, "[APPENDUID %u %s] ", r->uidvalidity, to.data));
	buf_finish(&from);
	buf_finish(&to);
	return MF_OK;
}

static struct outcome carry_out(struct peer *p, struct remote_write w)
{
	struct outcome o = { .result = MF_OK };
	buf_init(&o.pairs, 1 << 20);
	if (p->selected && !w.raw)
		w.raw = p->selected;
	w.uidvalidity = p->uidvalidity;
	MUST(remote_write(p->mail, &w, 1, &(struct write_sink){ take_outcome, &o }) == MF_OK);
	return o;
}

static void outcome_finish(struct outcome *o)
{
	buf_finish(&o->pairs);
	free(o->reason);
}

static void answer_outcome(struct peer *p, struct command *c, struct outcome *o, const char *code)
{
	char *text = mf_format("%s%s", code, *o->reason ? o->reason : "done");
	answer(p, c, o->result, o->result == MF_OK ? text : o->result == MF_NOT_FOUND ? "[TRYCREATE] no such mailbox" : o->reason);
	free(text);
	outcome_finish(o);
}

/* RFC 7162 3.1.3: whose mod-sequence changes is told of, also when the flags are not */
static void say_stored(struct peer *p, const uint32_t *uids, size_t count, bool silent)
{
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = mailbox_locked(p);
	for (size_t i = 0, k = 0; b && i < p->count && k < count; i++) {
		if (p->view[i].uid != uids[k])
			continue;
		const struct memory_message *m = memory_message_locked(b, uids[k++]);
		if (!m)
			continue;
		if (!silent)
			say_flags(p, i, m);
		else if (has_modseq(p) && m->modseq != p->view[i].modseq)
			say(p, "* %zu FETCH (UID %u MODSEQ (%llu))", i + 1, m->uid, (unsigned long long)m->modseq);
		p->view[i].modseq = m->modseq;
	}
	pthread_mutex_unlock(&p->server->mail->lock);
}

static void do_store(struct peer *p, struct command *c)
{
	size_t count;
	uint32_t *uids = known_uids(p, atom(&c->rest), &count);
	bool adds = *c->rest == '+', silent;
	struct buf keywords;
	c->rest += strlen("+FLAGS");
	silent = begins(&c->rest, ".SILENT");
	c->rest++;
	buf_init(&keywords, 1 << 16);
	unsigned flags = take_flags(list(&c->rest), &keywords);
	struct outcome o = carry_out(p, (struct remote_write){ .kind = WRITE_FLAGS, .uids = uids, .count = count, .flags = adds ? flags : 0,
		.flags_remove = adds ? 0 : flags, .keywords = adds ? keywords.data : NULL, .keywords_remove = adds ? NULL : keywords.data, .fd = -1 });
	say_stored(p, uids, count, silent);
	say_news(p);
	answer_outcome(p, c, &o, "");
	buf_finish(&keywords);
	free(uids);
}

static void do_copy(struct peer *p, struct command *c, enum write_kind kind)
{
	size_t count;
	uint32_t *uids = known_uids(p, atom(&c->rest), &count);
	struct outcome o = carry_out(p, (struct remote_write){ .kind = kind, .to = string(&c->rest), .uids = uids, .count = count, .fd = -1 });
	if (kind == WRITE_MOVE && o.pairs.len)
		say(p, "* OK %smoved", o.pairs.data);
	say_news(p);
	answer_outcome(p, c, &o, kind == WRITE_MOVE ? "" : o.pairs.data);
	free(uids);
}

/* of those that are marked; set NULL: of all */
static void do_expunge(struct peer *p, struct command *c, char *set)
{
	char all[] = "1:*";
	size_t count, marked = 0;
	uint32_t *uids = known_uids(p, set ? set : all, &count);
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = mailbox_locked(p);
	for (size_t i = 0; b && i < count; i++) {
		const struct memory_message *m = memory_message_locked(b, uids[i]);
		if (m && (m->flags & FLAG_DELETED))
			uids[marked++] = uids[i];
	}
	pthread_mutex_unlock(&p->server->mail->lock);
	struct outcome o = carry_out(p, (struct remote_write){ .kind = WRITE_EXPUNGE, .uids = uids, .count = marked, .fd = -1 });
	say_news(p);
	answer_outcome(p, c, &o, "");
	free(uids);
}

static int64_t take_date(const char *text)
{
	struct tm tm = { 0 };
	const char *end = strptime(text, "%d-%b-%Y %H:%M:%S %z", &tm);
	MUST(end);
	long zone = tm.tm_gmtoff;
	return timegm(&tm) - zone;
}

static void do_append(struct peer *p, struct command *c, uint32_t replaced)
{
	struct buf keywords;
	buf_init(&keywords, 1 << 16);
	struct remote_write w = { .kind = replaced ? WRITE_REPLACE : WRITE_APPEND, .uids = &replaced, .count = replaced != 0, .size = c->literal.len };
	w.raw = string(&c->rest);
	char *flags = list(&c->rest);
	w.flags = flags ? take_flags(flags, &keywords) : 0;
	w.keywords = keywords.data;
	if (*c->rest == '"')
		w.internal_date = take_date(string(&c->rest));
	w.fd = memfd_create("message", MFD_CLOEXEC);
	MUST(w.fd >= 0);
	MUST(pwrite(w.fd, c->literal.data, c->literal.len, 0) == (ssize_t)c->literal.len);
	struct outcome o = carry_out(p, w);
	close(w.fd);
	if (replaced && o.pairs.len)
		say(p, "* OK %sreplaced", o.pairs.data);
	say_news(p);
	answer_outcome(p, c, &o, replaced ? "" : o.pairs.data);
	buf_finish(&keywords);
}

static void do_mailbox(struct peer *p, struct command *c, enum write_kind kind)
{
	char *raw = string(&c->rest), *to = kind == WRITE_RENAME ? string(&c->rest) : NULL;
	pthread_mutex_lock(&p->server->mail->lock);
	bool exists = memory_find_locked(p->server->mail, raw);
	pthread_mutex_unlock(&p->server->mail->lock);
	if (kind == WRITE_CREATE && exists) {
		answer(p, c, MF_EXISTS, "[ALREADYEXISTS] it is there");
		return;
	}
	if (kind == WRITE_DELETE && !exists) {
		answer(p, c, MF_NOT_FOUND, "[NONEXISTENT] there is none");
		return;
	}
	struct outcome o = carry_out(p, (struct remote_write){ .kind = kind, .raw = raw, .to = to, .fd = -1 });
	answer_outcome(p, c, &o, "");
}

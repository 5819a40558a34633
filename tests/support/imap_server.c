#include "support/imap_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cancel.h"
#include "base/mem.h"
#include "sync/imap/uidset.h"
#include "sync/memory_state.h"

#define OUT_MAX (64U << 20)
#define CLIENTS_MAX 4096         /* of one server */
/* on threads of the server, where a test cannot fail */
#define MUST(x) do { if (!(x)) { fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

struct imap_server {
	struct memory_server *mail;
	unsigned caps;
	int fd;
	uint16_t port;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned clients;                /* guarded by the lock, with what follows */
	bool stopping;
	pthread_t peers[CLIENTS_MAX];    /* their threads; of those that have gone, too */
	unsigned peer_count;
};

struct viewed { uint32_t uid; uint64_t modseq; };
struct peer {                            /* one client; of its thread */
	struct imap_server *server;
	int fd;
	struct cancel cancel;
	struct remote *mail;             /* its session at the server in memory */
	char in[1 << 16];
	size_t in_len;
	struct buf out;
	bool qresync, over;
	char *selected;                  /* NULL: none */
	uint32_t uidvalidity;
	struct viewed *view;               /* of the selected mailbox, as the client has been told: its sequence numbers */
	size_t count;
};
struct command { char *text, *tag, *rest; struct buf literal; };

static void say(struct peer *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct peer *p, const char *format, ...)
{
	char *text;
	va_list arguments;
	va_start(arguments, format);
	MUST(vasprintf(&text, format, arguments) >= 0);
	va_end(arguments);
	(void)buf_adds(&p->out, text);
	(void)buf_adds(&p->out, "\r\n");
	free(text);
}

static void answer(struct peer *p, const struct command *c, enum mf_err e, const char *text)
{
	say(p, "%s %s %s", c->tag, e == MF_OK ? "OK" : e == MF_UNSUPPORTED || e == MF_INVALID ? "BAD" : "NO", text);
}

/* --- the line ------------------------------------------------------------------------------------------------------------- */

static void flush(struct peer *p)
{
	for (size_t at = 0; at < p->out.len && !p->over;) {
		ssize_t n = send(p->fd, p->out.data + at, p->out.len - at, MSG_NOSIGNAL);
		if (n <= 0)
			break; /* the client has gone: what it has said is still read to its end */
		at += (size_t)n;
	}
	buf_reset(&p->out);
}

static bool receive(struct peer *p)
{
	flush(p);
	MUST(p->in_len < sizeof p->in);
	ssize_t n = recv(p->fd, p->in + p->in_len, sizeof p->in - p->in_len, 0);
	if (n > 0)
		p->in_len += (size_t)n;
	return n > 0;
}

static void consume(struct peer *p, size_t len)
{
	p->in_len -= len;
	memmove(p->in, p->in + len, p->in_len);
}

/* without its CRLF; NULL: the client has gone */
static char *take_line(struct peer *p)
{
	char *end;
	while (!(end = memmem(p->in, p->in_len, "\r\n", 2)))
		if (!receive(p))
			return NULL;
	char *line = mf_strndup(p->in, (size_t)(end - p->in));
	consume(p, (size_t)(end + 2 - p->in));
	return line;
}

static bool take_bytes(struct peer *p, size_t len, struct buf *to)
{
	while (len) {
		size_t some = p->in_len < len ? p->in_len : len;
		(void)buf_add(to, p->in, some);
		consume(p, some);
		len -= some;
		if (len && !receive(p))
			return false;
	}
	return true;
}

/* A literal is the last argument of what has one. */
static bool take_command(struct peer *p, struct command *ret)
{
	char *line = take_line(p), *brace = line ? strrchr(line, '{') : NULL;
	*ret = (struct command){ .text = line };
	buf_init(&ret->literal, OUT_MAX);
	if (!line)
		return false;
	if (brace && line[strlen(line) - 1] == '}') {
		size_t size = strtoul(brace + 1, NULL, 10);
		*brace = 0;
		if (!strchr(brace + 1, '+'))
			say(p, "+ go on");
		char *end = take_bytes(p, size, &ret->literal) ? take_line(p) : NULL;
		if (!end)
			return false;
		MUST(!*end);
		free(end);
	}
	ret->tag = strsep(&line, " ");
	ret->rest = line ? line : ret->tag + strlen(ret->tag);
	return true;
}

static void command_finish(struct command *c)
{
	buf_finish(&c->literal);
	free(c->text);
}

/* --- arguments --------------------------------------------------------------------------------------------------------- */

static char *atom(char **at)
{
	char *word = strsep(at, " ");
	if (!*at)
		*at = word + strlen(word);
	return word;
}

/* quoted, or an atom */
static char *string(char **at)
{
	if (**at != '"')
		return atom(at);
	char *from = *at + 1, *text = from, *to = from;
	for (; *from && *from != '"'; from++) {
		from += *from == '\\';
		*to++ = *from;
	}
	*at = from + (*from == '"');
	*at += **at == ' ';
	*to = 0;
	return text;
}

/* "(...)", without the parentheses; NULL: there is none */
static char *list(char **at)
{
	if (**at != '(')
		return NULL;
	char *text = *at + 1;
	int depth = 1;
	size_t len = 0;
	for (; text[len] && depth > 0; len++)
		depth += (text[len] == '(') - (text[len] == ')');
	*at = text + len + (text[len] == ' ');
	text[len - 1] = 0;
	return text;
}

static bool begins(char **at, const char *word)
{
	size_t len = strlen(word);
	if (strncasecmp(*at, word, len))
		return false;
	*at += len;
	return true;
}

static const char *const flag_names[] = { "\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft" };
#define FLAG_NAMES (sizeof flag_names / sizeof *flag_names)

/* the keywords stay in the text */
static unsigned take_flags(char *text, struct buf *ret_keywords)
{
	unsigned flags = 0;
	for (char *word; *text;) {
		word = atom(&text);
		size_t i = 0;
		while (i < FLAG_NAMES && strcasecmp(word, flag_names[i]))
			i++;
		if (i < FLAG_NAMES)
			flags |= 1U << i;
		else
			(void)buf_addf(ret_keywords, "%s%s", ret_keywords->len ? " " : "", word);
	}
	return flags;
}

static void put_flags(struct buf *to, unsigned flags, const char *keywords)
{
	const char *space = "";
	(void)buf_adds(to, "FLAGS (");
	for (size_t i = 0; i < FLAG_NAMES; i++) {
		if (flags >> i & 1) {
			(void)buf_addf(to, "%s%s", space, flag_names[i]);
			space = " ";
		}
	}
	(void)buf_addf(to, "%s%s)", *keywords ? space : "", keywords);
}

/* of "1:3,7,9:*", the last being what "*" is */
static struct uid_ranges take_set(char *text, uint32_t last, struct uidset *set)
{
	struct buf plain;
	buf_init(&plain, 1 << 20);
	for (char *c = text; *c; c++)
		(void)(*c == '*' ? buf_addf(&plain, "%u", last ? last : 1) : buf_add(&plain, c, 1));
	struct scan s = { plain.data, plain.data + plain.len };
	uidset_init(set);
	MUST(uidset_scan(set, &s, 1, UINT32_MAX));
	buf_finish(&plain);
	return uidset_ranges(set);
}

static bool is_in(struct uid_ranges ranges, uint32_t n)
{
	for (size_t i = 0; i < ranges.count; i++)
		if (n >= ranges.items[i].first && n <= ranges.items[i].last)
			return true;
	return false;
}

static uint32_t last_uid(const struct peer *p)
{
	return p->count ? p->view[p->count - 1].uid : 0;
}

/* those of the set that the client knows of; the caller frees */
static uint32_t *known_uids(const struct peer *p, char *text, size_t *ret_count)
{
	struct uidset set;
	struct uid_ranges ranges = take_set(text, last_uid(p), &set);
	uint32_t *uids = mf_alloc_array(p->count + 1, sizeof *uids);
	*ret_count = 0;
	for (size_t i = 0; i < p->count; i++)
		if (is_in(ranges, p->view[i].uid))
			uids[(*ret_count)++] = p->view[i].uid;
	uidset_finish(&set);
	return uids;
}

/* --- the selected mailbox ------------------------------------------------------------------------------------------------ */

static struct memory_mailbox *mailbox_locked(const struct peer *p)
{
	struct memory_mailbox *b = p->selected ? memory_find_locked(p->server->mail, p->selected) : NULL;
	return b && b->uidvalidity == p->uidvalidity ? b : NULL;
}

static bool has_modseq(const struct peer *p)
{
	return p->server->caps & (REMOTE_CONDSTORE | REMOTE_QRESYNC);
}

static void say_flags(struct peer *p, size_t at, const struct memory_message *m)
{
	struct buf line;
	buf_init(&line, 1 << 20);
	put_flags(&line, m->flags, m->keywords);
	if (has_modseq(p))
		say(p, "* %zu FETCH (UID %u %s MODSEQ (%llu))", at + 1, m->uid, line.data, (unsigned long long)m->modseq);
	else
		say(p, "* %zu FETCH (UID %u %s)", at + 1, m->uid, line.data);
	buf_finish(&line);
}

static void say_gone_locked(struct peer *p, struct memory_mailbox *b)
{
	size_t kept = 0;
	for (size_t i = 0; i < p->count; i++) {
		if (b && memory_message_locked(b, p->view[i].uid))
			p->view[kept++] = p->view[i];
		else if (p->qresync)
			say(p, "* VANISHED %u", p->view[i].uid);
		else
			say(p, "* %zu EXPUNGE", kept + 1);
	}
	p->count = kept;
}

static void see_new_locked(struct peer *p, const struct memory_mailbox *b)
{
	uint32_t last = last_uid(p);
	p->view = mf_realloc_array(p->view, p->count + b->count + 1, sizeof *p->view);
	for (size_t i = 0; i < b->count; i++)
		if (b->messages[i].uid > last)
			p->view[p->count++] = (struct viewed){ b->messages[i].uid, b->messages[i].modseq };
}

static void say_changed_locked(struct peer *p, struct memory_mailbox *b)
{
	for (size_t i = 0; i < p->count; i++) {
		const struct memory_message *m = memory_message_locked(b, p->view[i].uid);
		if (m->modseq == p->view[i].modseq)
			continue;
		p->view[i].modseq = m->modseq;
		say_flags(p, i, m);
	}
}

/* What others, or this client, have done since it was last told: before the answer of a command that allows it. */
static void say_news(struct peer *p)
{
	if (!p->selected)
		return;
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = mailbox_locked(p);
	say_gone_locked(p, b);
	if (b) {
		size_t before = p->count;
		say_changed_locked(p, b);
		see_new_locked(p, b);
		if (p->count > before)
			say(p, "* %zu EXISTS", p->count);
	}
	pthread_mutex_unlock(&p->server->mail->lock);
}

static void leave(struct peer *p)
{
	free(p->selected);
	p->selected = NULL;
	p->count = 0;
}

/* RFC 7162 3.2.5: what has happened behind the client's mod-sequence */
static void say_missed_locked(struct peer *p, struct memory_mailbox *b, uint64_t modseq)
{
	struct uidset gone;
	struct buf text;
	size_t at = 0;
	uidset_init(&gone);
	buf_init(&text, 1 << 20);
	for (size_t i = 0; i < b->gone_count; i++)
		if (b->gone[i].modseq > modseq)
			uidset_add(&gone, b->gone[i].uid, b->gone[i].uid);
	uid_ranges_write(uidset_ranges(&gone), &at, SIZE_MAX, &text);
	if (text.len)
		say(p, "* VANISHED (EARLIER) %s", text.data);
	for (size_t i = 0; i < p->count; i++)
		if (p->view[i].modseq > modseq)
			say_flags(p, i, memory_message_locked(b, p->view[i].uid));
	buf_finish(&text);
	uidset_finish(&gone);
}

static void open_locked(struct peer *p, struct memory_mailbox *b, const char *parameter)
{
	const char *qresync = parameter ? strstr(parameter, "QRESYNC (") : NULL;
	char *rest;
	p->selected = mf_strdup(b->raw);
	p->uidvalidity = b->uidvalidity;
	see_new_locked(p, b);
	say(p, "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)");
	say(p, "* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] all");
	say(p, "* %zu EXISTS", p->count);
	say(p, "* OK [UIDVALIDITY %u] valid", b->uidvalidity);
	say(p, "* OK [UIDNEXT %u] next", b->uidnext);
	if (has_modseq(p))
		say(p, "* OK [HIGHESTMODSEQ %llu] highest", (unsigned long long)b->modseq);
	if (qresync && strtoul(qresync + strlen("QRESYNC ("), &rest, 10) == b->uidvalidity)
		say_missed_locked(p, b, strtoull(rest, NULL, 10));
}

static void do_select(struct peer *p, struct command *c, bool examine)
{
	char *raw = string(&c->rest);
	const char *parameter = list(&c->rest);
	if (p->selected && p->qresync)
		say(p, "* OK [CLOSED] the one before");
	leave(p);
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = memory_find_locked(p->server->mail, raw);
	bool found = b && !(b->flags & MAILBOX_NOSELECT);
	if (found)
		open_locked(p, b, parameter);
	pthread_mutex_unlock(&p->server->mail->lock);
	answer(p, c, found ? MF_OK : MF_NOT_FOUND, found ? examine ? "[READ-ONLY] open" : "[READ-WRITE] open" : "[NONEXISTENT] no such mailbox");
}

/* --- reading ---------------------------------------------------------------------------------------------------------------- */

static void put_date(struct buf *to, int64_t date)
{
	char text[40];
	time_t t = (time_t)date;
	struct tm tm;
	strftime(text, sizeof text, "%d-%b-%Y %H:%M:%S +0000", gmtime_r(&t, &tm));
	(void)buf_addf(to, " INTERNALDATE \"%s\"", text);
}

static void put_literal(struct buf *to, const char *label, size_t label_len, const char *data, size_t len)
{
	(void)buf_addf(to, " BODY%.*s {%zu}\r\n", (int)label_len, label, len);
	(void)buf_add(to, data, len);
}

/* BODY.PEEK[...], perhaps with <from.count> */
static void put_body(struct buf *to, const char *item, const struct memory_bytes *bytes)
{
	const char *label = item + strlen("BODY.PEEK"), *end = strchr(label, ']') + 1;
	size_t from = 0, count = strncmp(label, "[]", 2) ? bytes->header_len : bytes->len;
	char *rest, part[60];
	if (*end != '<') {
		put_literal(to, label, (size_t)(end - label), bytes->data, count);
		return;
	}
	from = strtoul(end + 1, &rest, 10);
	size_t asked = strtoul(rest + 1, NULL, 10), there = from < bytes->len ? bytes->len - from : 0;
	int len = snprintf(part, sizeof part, "[]<%zu>", from);
	put_literal(to, part, (size_t)len, bytes->data + from, asked < there ? asked : there);
}

static void say_items(struct peer *p, size_t at, const struct memory_message *m, const char *items)
{
	struct buf line;
	const char *body = strstr(items, "BODY.PEEK");
	buf_init(&line, OUT_MAX);
	(void)buf_addf(&line, "* %zu FETCH (UID %u", at + 1, m->uid);
	if (strstr(items, "FLAGS")) {
		(void)buf_adds(&line, " ");
		put_flags(&line, m->flags, m->keywords);
	}
	if (has_modseq(p) && strstr(items, "FLAGS"))
		(void)buf_addf(&line, " MODSEQ (%llu)", (unsigned long long)m->modseq);
	if (strstr(items, "INTERNALDATE"))
		put_date(&line, m->date);
	if (strstr(items, "RFC822.SIZE"))
		(void)buf_addf(&line, " RFC822.SIZE %zu", m->bytes->len);
	if (body)
		put_body(&line, body, m->bytes);
	(void)buf_adds(&line, ")\r\n");
	(void)buf_add(&p->out, line.data, line.len);
	buf_finish(&line);
}

static void do_fetch(struct peer *p, struct command *c, bool by_uid)
{
	struct uidset set;
	struct uid_ranges ranges = take_set(atom(&c->rest), by_uid ? last_uid(p) : (uint32_t)p->count, &set);
	const char *items = list(&c->rest), *changed = c->rest ? strstr(c->rest, "CHANGEDSINCE ") : NULL;
	uint64_t since = changed ? strtoull(changed + strlen("CHANGEDSINCE "), NULL, 10) : 0;
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = mailbox_locked(p);
	for (size_t i = 0; b && i < p->count; i++) {
		const struct memory_message *m = memory_message_locked(b, p->view[i].uid);
		if (!m || m->modseq <= since || !is_in(ranges, by_uid ? m->uid : (uint32_t)i + 1))
			continue;
		if (strstr(items, "FLAGS"))
			p->view[i].modseq = m->modseq;
		say_items(p, i, m, items);
	}
	pthread_mutex_unlock(&p->server->mail->lock);
	uidset_finish(&set);
	if (by_uid)
		say_news(p); /* RFC 9051 7.5.1: no EXPUNGE while a FETCH by sequence numbers is answered */
	answer(p, c, MF_OK, "fetched");
}

static bool is_found(struct peer *p, struct memory_mailbox *b, size_t at, const char *key, struct uid_ranges ranges)
{
	const struct memory_message *m = memory_message_locked(b, p->view[at].uid);
	if (!m)
		return false;
	if (!strcasecmp(key, "DELETED"))
		return m->flags & FLAG_DELETED;
	if (!strcasecmp(key, "ALL"))
		return true;
	return is_in(ranges, strcasecmp(key, "UID") ? (uint32_t)at + 1 : m->uid);
}

static void do_search(struct peer *p, struct command *c)
{
	bool extended = begins(&c->rest, "RETURN (ALL) "), any = false;
	char *key = atom(&c->rest), *text = strcasecmp(key, "UID") ? key : atom(&c->rest);
	struct uidset set, found;
	struct uid_ranges ranges = { NULL, 0 };
	struct buf line;
	uidset_init(&set);
	if (strpbrk(text, "0123456789"))
		ranges = take_set(text, strcasecmp(key, "UID") ? (uint32_t)p->count : last_uid(p), &set);
	uidset_init(&found);
	buf_init(&line, 1 << 20);
	(void)buf_adds(&line, "* SEARCH");
	pthread_mutex_lock(&p->server->mail->lock);
	struct memory_mailbox *b = mailbox_locked(p);
	for (size_t i = 0; b && i < p->count; i++) {
		if (!is_found(p, b, i, key, ranges))
			continue;
		any = true;
		uidset_add(&found, p->view[i].uid, p->view[i].uid);
		(void)buf_addf(&line, " %u", p->view[i].uid);
	}
	pthread_mutex_unlock(&p->server->mail->lock);
	if (extended) {
		size_t at = 0;
		buf_reset(&line);
		(void)buf_addf(&line, "* ESEARCH (TAG \"%s\") UID%s", c->tag, any ? " ALL " : "");
		uid_ranges_write(uidset_ranges(&found), &at, SIZE_MAX, &line);
	}
	say(p, "%s", line.data);
	buf_finish(&line);
	uidset_finish(&found);
	uidset_finish(&set);
	say_news(p);
	answer(p, c, MF_OK, "searched");
}

/* --- the list ----------------------------------------------------------------------------------------------------------------- */

static void say_status(struct peer *p, const struct memory_mailbox *b, const char *items)
{
	struct mailbox_status st;
	char modseq[40] = "";
	memory_status_locked(b, p->server->caps, &st);
	if (strstr(items, "HIGHESTMODSEQ"))
		snprintf(modseq, sizeof modseq, " HIGHESTMODSEQ %llu", (unsigned long long)b->modseq);
	say(p, "* STATUS \"%s\" (MESSAGES %u UIDNEXT %u UIDVALIDITY %u UNSEEN %u%s)", b->raw, st.messages, st.uidnext, st.uidvalidity, st.unseen, modseq);
}

static void say_mailbox(struct peer *p, const struct memory_mailbox *b, const char *word, bool extended)
{
	static const char *const uses[] = { [USE_TRASH] = "\\Trash", [USE_SENT] = "\\Sent", [USE_DRAFTS] = "\\Drafts" };
	const char *use = extended && b->use < sizeof uses / sizeof *uses ? uses[b->use] : NULL;
	bool subscribed = extended && (b->flags & MAILBOX_SUBSCRIBED);
	say(p, "* %s (%s%s%s%s) \"/\" \"%s\"", word, b->flags & MAILBOX_NOSELECT ? "\\Noselect" : "\\HasNoChildren", subscribed ? " \\Subscribed" : "",
	    use ? " " : "", use ? use : "", b->raw);
}

/* LIST [(SUBSCRIBED)] "" NAME [RETURN (... STATUS (...))], and LSUB */
static void do_list(struct peer *p, struct command *c, const char *word)
{
	const char *selection = list(&c->rest);
	(void)string(&c->rest);
	char *pattern = string(&c->rest), *returns = strstr(c->rest, "RETURN ("), *items = returns ? strstr(returns, "STATUS (") : NULL;
	bool subscribed = selection || !strcmp(word, "LSUB");
	pthread_mutex_lock(&p->server->mail->lock);
	for (const struct memory_mailbox *b = p->server->mail->mailboxes; b; b = b->next) {
		if ((strcmp(pattern, "*") && strcmp(pattern, b->raw)) || (subscribed && !(b->flags & MAILBOX_SUBSCRIBED)))
			continue;
		say_mailbox(p, b, word, returns || selection);
		if (items && !(b->flags & MAILBOX_NOSELECT))
			say_status(p, b, items);
	}
	pthread_mutex_unlock(&p->server->mail->lock);
	answer(p, c, MF_OK, "listed");
}

static void do_status(struct peer *p, struct command *c)
{
	const char *raw = string(&c->rest);
	pthread_mutex_lock(&p->server->mail->lock);
	const struct memory_mailbox *b = memory_find_locked(p->server->mail, raw);
	bool found = b && !(b->flags & MAILBOX_NOSELECT);
	if (found)
		say_status(p, b, c->rest);
	pthread_mutex_unlock(&p->server->mail->lock);
	answer(p, c, found ? MF_OK : MF_NOT_FOUND, found ? "counted" : "[NONEXISTENT] no such mailbox");
}

#include "support/imap_server_write.h"

/* --- commands -------------------------------------------------------------------------------------------------------------------- */

static void put_caps(const struct peer *p, struct buf *to)
{
	static const struct { unsigned cap; const char *word; } words[] = {
		{ REMOTE_UIDPLUS, "UIDPLUS" }, { REMOTE_MOVE, "MOVE" }, { REMOTE_CONDSTORE, "CONDSTORE" }, { REMOTE_QRESYNC, "QRESYNC" }, { REMOTE_REPLACE, "REPLACE" },
	};
	bool modern = false;
	(void)buf_adds(to, "CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN");
	for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
		if (!(p->server->caps & words[i].cap))
			continue;
		modern = true;
		(void)buf_addf(to, " %s", words[i].word);
	}
	if (modern)
		(void)buf_adds(to, " LITERAL+ ENABLE LIST-EXTENDED LIST-STATUS SPECIAL-USE ESEARCH UNSELECT");
}

static void say_caps(struct peer *p, const char *before, const char *behind)
{
	struct buf caps;
	buf_init(&caps, 4096);
	put_caps(p, &caps);
	say(p, "%s%s%s", before, caps.data, behind);
	buf_finish(&caps);
}

static void do_uid(struct peer *p, struct command *c)
{
	if (begins(&c->rest, "FETCH "))
		do_fetch(p, c, true);
	else if (begins(&c->rest, "SEARCH "))
		do_search(p, c);
	else if (begins(&c->rest, "STORE "))
		do_store(p, c);
	else if (begins(&c->rest, "COPY "))
		do_copy(p, c, WRITE_COPY);
	else if ((p->server->caps & REMOTE_MOVE) && begins(&c->rest, "MOVE "))
		do_copy(p, c, WRITE_MOVE);
	else if ((p->server->caps & REMOTE_UIDPLUS) && begins(&c->rest, "EXPUNGE "))
		do_expunge(p, c, atom(&c->rest));
	else if ((p->server->caps & REMOTE_REPLACE) && begins(&c->rest, "REPLACE "))
		do_append(p, c, (uint32_t)strtoul(atom(&c->rest), NULL, 10));
	else
		answer(p, c, MF_UNSUPPORTED, "what is that?");
}

/* About the connection, and nothing else. false: it is none of those. */
static bool do_session(struct peer *p, struct command *c, const char *verb)
{
	char *before = mf_format("%s OK [", c->tag);
	bool known = true;
	if (!strcasecmp(verb, "AUTHENTICATE")) {
		say_caps(p, before, "] in");
	} else if (!strcasecmp(verb, "CAPABILITY")) {
		say_caps(p, "* ", "");
		answer(p, c, MF_OK, "told");
	} else if (!strcasecmp(verb, "ENABLE")) {
		p->qresync = p->server->caps & REMOTE_QRESYNC;
		say(p, "* ENABLED%s", p->qresync ? " QRESYNC" : "");
		answer(p, c, MF_OK, "on");
	} else if (!strcasecmp(verb, "NOOP")) {
		say_news(p);
		answer(p, c, MF_OK, "nothing");
	} else if (!strcasecmp(verb, "UNSELECT")) {
		leave(p);
		answer(p, c, MF_OK, "left");
	} else if (!strcasecmp(verb, "LOGOUT")) {
		say(p, "* BYE bye");
		answer(p, c, MF_OK, "out");
	} else {
		known = false;
	}
	free(before);
	return known;
}

static void do_command(struct peer *p, struct command *c)
{
	static const struct { const char *verb; enum write_kind kind; } mailboxes[] = {
		{ "CREATE", WRITE_CREATE }, { "DELETE", WRITE_DELETE }, { "RENAME", WRITE_RENAME }, { "SUBSCRIBE", WRITE_SUBSCRIBE }, { "UNSUBSCRIBE", WRITE_UNSUBSCRIBE },
	};
	const char *verb = atom(&c->rest);
	for (size_t i = 0; i < sizeof mailboxes / sizeof *mailboxes; i++) {
		if (!strcasecmp(verb, mailboxes[i].verb)) {
			do_mailbox(p, c, mailboxes[i].kind);
			return;
		}
	}
	if (do_session(p, c, verb))
		return;
	if (!strcasecmp(verb, "UID"))
		do_uid(p, c);
	else if (!strcasecmp(verb, "FETCH"))
		do_fetch(p, c, false);
	else if (!strcasecmp(verb, "SELECT") || !strcasecmp(verb, "EXAMINE"))
		do_select(p, c, !strcasecmp(verb, "EXAMINE"));
	else if (!strcasecmp(verb, "LIST") || !strcasecmp(verb, "LSUB"))
		do_list(p, c, verb);
	else if (!strcasecmp(verb, "STATUS"))
		do_status(p, c);
	else if (!strcasecmp(verb, "APPEND"))
		do_append(p, c, 0);
	else if (!strcasecmp(verb, "EXPUNGE"))
		do_expunge(p, c, NULL);
	else
		answer(p, c, MF_UNSUPPORTED, "what is that?");
}

/* --- clients --------------------------------------------------------------------------------------------------------------------- */

static void *serve(void *context)
{
	struct peer *p = context;
	struct imap_server *server = p->server;
	struct mf_reason why = { "" };
	struct command c;
	MUST(cancel_init(&p->cancel));
	p->mail = memory_remote_create(server->mail, &p->cancel);
	MUST(remote_login(p->mail, &why) == MF_OK);
	buf_init(&p->out, OUT_MAX);
	say_caps(p, "* OK [", "] ready");
	for (; take_command(p, &c); command_finish(&c))
		do_command(p, &c);
	command_finish(&c);
	remote_destroy(p->mail);
	cancel_finish(&p->cancel);
	buf_finish(&p->out);
	close(p->fd);
	free(p->selected);
	free(p->view);
	free(p);
	pthread_mutex_lock(&server->lock);
	server->clients--;
	pthread_cond_broadcast(&server->changed);
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

static void begin_locked(struct imap_server *s, int fd)
{
	struct peer *p = MF_NEW(struct peer);
	p->server = s;
	p->fd = fd;
	MUST(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int)) == 0);
	s->clients++;
	MUST(s->peer_count < CLIENTS_MAX);
	MUST(pthread_create(&s->peers[s->peer_count++], NULL, serve, p) == 0);
}

static bool has_caller(const struct imap_server *s, int timeout_ms)
{
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	return poll(&p, 1, timeout_ms) > 0;
}

/* A caller is taken and counted in one: there is none that nobody knows of. */
static void *accept_clients(void *context)
{
	struct imap_server *s = context;
	while (has_caller(s, -1)) {
		pthread_mutex_lock(&s->lock);
		bool over = s->stopping;
		int fd = over ? -1 : accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			begin_locked(s, fd);
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
		if (over)
			break;
	}
	return NULL;
}

struct imap_server *imap_server_start(struct memory_server *mail, unsigned caps)
{
	struct imap_server *s = MF_NEW(struct imap_server);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	s->mail = mail;
	s->caps = caps;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	MUST(s->fd >= 0);
	MUST(bind(s->fd, (struct sockaddr *)&address, size) == 0);
	MUST(listen(s->fd, 16) == 0);
	MUST(getsockname(s->fd, (struct sockaddr *)&address, &size) == 0);
	s->port = ntohs(address.sin_port);
	MUST(pthread_create(&s->thread, NULL, accept_clients, s) == 0);
	return s;
}

uint16_t imap_server_port(const struct imap_server *s)
{
	return s->port;
}

void imap_server_await_idle(struct imap_server *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->clients || has_caller(s, 0))
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

void imap_server_stop(struct imap_server *s)
{
	imap_server_await_idle(s);
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_mutex_unlock(&s->lock);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	for (unsigned i = 0; i < s->peer_count; i++)
		pthread_join(s->peers[i], NULL);
	close(s->fd);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

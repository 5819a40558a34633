#include "support/imap_script.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#include "base/buf.h"
#include "base/cancel.h"
#include "base/mem.h"
#include "config/config.h"
#include "sync/imap/imap.h"

#define PATIENCE_MS 20000
#define SILENCE_MS 50

struct line { char kind; char *text; };
struct imap_script {
	char *path, *about;
	struct line *lines;
	size_t count;
};

/* --- loading --------------------------------------------------------------------------------------------------------- */

static void add(struct imap_script *s, char kind, char *text)
{
	s->lines = mf_realloc_array(s->lines, s->count + 1, sizeof *s->lines);
	s->lines[s->count++] = (struct line){ kind, text };
}

/* what most scripts begin with */
static void add_login(struct imap_script *s, const char *caps)
{
	add(s, 'S', mf_strdup("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready"));
	add(s, 'C', mf_strdup("$0 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA=="));
	add(s, 'S', mf_format("$0 OK [CAPABILITY IMAP4rev1 %s] in", caps));
	if (strstr(caps, "QRESYNC")) {
		add(s, 'C', mf_strdup("$0 ENABLE QRESYNC"));
		add(s, 'S', mf_strdup("* ENABLED QRESYNC"));
		add(s, 'S', mf_strdup("$0 OK on"));
	}
	add(s, 'V', mf_strdup("login"));
	add(s, 'R', mf_strdup("login MF_OK"));
}

/* likewise of POP3, for every connection: CAPA's lines between slashes */
static void add_pop3_login(struct imap_script *s, const char *caps)
{
	add(s, 'S', mf_strdup("+OK ready"));
	add(s, 'C', mf_strdup("CAPA"));
	add(s, 'S', mf_strdup("+OK"));
	for (const char *p = caps; *p; p += strspn(p, "/")) {
		size_t len = strcspn(p, "/");
		add(s, 'S', mf_strndup(p, len));
		p += len;
	}
	add(s, 'S', mf_strdup("."));
	add(s, 'C', mf_strdup("USER alice"));
	add(s, 'S', mf_strdup("+OK"));
	add(s, 'C', mf_strdup("PASS secret"));
	add(s, 'S', mf_strdup("+OK in"));
}

struct imap_script *imap_script_load(const char *path)
{
	FILE *f = fopen(path, "r");
	if (!f)
		fail_msg("%s: %s", path, strerror(errno));
	struct imap_script *s = MF_NEW(struct imap_script);
	s->path = mf_strdup(path);
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	while ((len = getline(&line, &size, f)) >= 0) {
		while (len && line[len - 1] == '\n')
			line[--len] = 0;
		if (*line == '#' && !s->about)
			s->about = mf_strdup(line + 1 + (line[1] == ' '));
		if (!len || *line == '#')
			continue;
		if (len > 1 && line[0] == 'L' && line[1] == ':') {
			add_login(s, line + 2 + (line[2] == ' '));
			continue;
		}
		if (len > 1 && line[0] == 'P' && line[1] == ':') {
			add_pop3_login(s, line + 2 + (line[2] == ' '));
			continue;
		}
		if (len < 2 || !strchr("OSBDMCEVRQNH", *line) || (line[1] != ':' && line[1] != '-'))
			fail_msg("%s: what is \"%s\"?", path, line);
		add(s, line[1] == '-' ? '-' : *line, mf_strdup(line + (line[2] == ' ' ? 3 : 2)));
	}
	free(line);
	fclose(f);
	return s;
}

void imap_script_free(struct imap_script *s)
{
	for (size_t i = 0; i < s->count; i++)
		free(s->lines[i].text);
	free(s->lines);
	free(s->path);
	free(s->about);
	free(s);
}

const char *imap_script_about(const struct imap_script *s)
{
	return s->about ? s->about : s->path;
}

/* "..." stands for anything */
static bool matches(const char *pattern, const char *text)
{
	const char *dots = strstr(pattern, "...");
	if (!dots)
		return !strcmp(pattern, text);
	size_t len = (size_t)(dots - pattern);
	if (strncmp(pattern, text, len))
		return false;
	for (text += len;; text++) {
		if (matches(dots + 3, text))
			return true;
		if (!*text)
			return false;
	}
}

/* --- the server ------------------------------------------------------------------------------------------------------ */

struct server {
	const struct imap_script *script;
	struct imap_script_run how;
	int fd;
	size_t sent;
	char tags[10][16];
	char in[1 << 16];
	size_t in_len;
	int next_fd;           /* where the client's next connections come from, as numbers; -1: there is one only */
	struct buf complaint;
	bool over;
};

/* about one byte in 400 becomes one that means something to a parser */
static char spoil(struct server *v, char c)
{
	static const char other[] = "(){}[]<>\"\\ \r\n*+%0123456789~,:aNx";
	if (rand_r(&v->how.seed) % 400)
		return c;
	unsigned choice = (unsigned)rand_r(&v->how.seed) % (sizeof other + 10);
	return choice < sizeof other ? other[choice] : (char)rand_r(&v->how.seed);
}

static void put_bytes_as_they_are(struct server *v, const char *data, size_t len);

static void put(struct server *v, const char *data, size_t len)
{
	if (!v->how.seed) {
		put_bytes_as_they_are(v, data, len);
		return;
	}
	char *spoilt = mf_strndup("", 0);
	spoilt = mf_realloc_array(spoilt, len + 1, 1);
	for (size_t i = 0; i < len; i++)
		spoilt[i] = spoil(v, data[i]);
	put_bytes_as_they_are(v, spoilt, len);
	free(spoilt);
}

static void put_bytes_as_they_are(struct server *v, const char *data, size_t len)
{
	while (len && !v->over) {
		size_t n = v->how.piece && v->how.piece < len ? v->how.piece : len;
		if (n > v->how.cut - v->sent)
			n = v->how.cut - v->sent;
		ssize_t done = n ? send(v->fd, data, n, MSG_NOSIGNAL) : -1;
		if (done <= 0) {
			v->over = true;
			return;
		}
		data += done;
		len -= (size_t)done;
		v->sent += (size_t)done;
		if (v->sent == v->how.cut)
			v->over = true;
	}
}

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

static void expand(struct server *v, const char *text, unsigned counter, struct buf *to)
{
	for (const char *p = text; *p; p++) {
		if (p[0] == '\\' && p[1] == 'x' && isxdigit((unsigned char)p[2]) && isxdigit((unsigned char)p[3])) {
			char c = (char)(hex(p[2]) * 16 + hex(p[3]));
			(void)buf_add(to, &c, 1);
			p += 3;
		} else if (p[0] == '$' && isdigit((unsigned char)p[1])) {
			(void)buf_adds(to, v->tags[*++p - '0']);
		} else if (p[0] == '$' && p[1] == '#') {
			(void)buf_addf(to, "%u", counter);
			p++;
		} else {
			(void)buf_add(to, p, 1);
		}
	}
}

static void put_line(struct server *v, const char *text, unsigned counter, const char *end)
{
	struct buf b;
	buf_init(&b, 1 << 24);
	expand(v, text, counter, &b);
	(void)buf_adds(&b, end);
	put(v, b.data, b.len);
	buf_finish(&b);
}

/* more bytes of what the client sends. false: it is gone, or does not send */
static bool get_more(struct server *v)
{
	struct pollfd p = { .fd = v->fd, .events = POLLIN };
	/* a client that was told nonsense waits for the rest of it: the server has none */
	ssize_t n = poll(&p, 1, v->how.seed && !v->over ? 20 : PATIENCE_MS) > 0 ? read(v->fd, v->in + v->in_len, sizeof v->in - v->in_len) : -1;
	if (n > 0)
		v->in_len += (size_t)n;
	return n > 0;
}

/* One line without its CRLF; NULL: the client is gone, or does not send. */
static char *get_line(struct server *v)
{
	for (;;) {
		char *end = memmem(v->in, v->in_len, "\r\n", 2);
		if (end) {
			char *line = mf_strndup(v->in, (size_t)(end - v->in));
			v->in_len -= (size_t)(end + 2 - v->in);
			memmove(v->in, end + 2, v->in_len);
			return line;
		}
		if (!get_more(v))
			return NULL;
	}
}

static void want_line(struct server *v, const char *pattern)
{
	char *line = get_line(v);
	if (!line) {
		(void)buf_addf(&v->complaint, "waited for \"%s\", and the client had gone\n", pattern);
		v->over = true;
		return;
	}
	const char *text = line;
	char *space = strchr(line, ' ');
	if (pattern[0] == '$' && isdigit((unsigned char)pattern[1])) {
		char *tag = v->tags[pattern[1] - '0'];
		size_t len = space ? (size_t)(space - line) : strlen(line);
		snprintf(tag, sizeof v->tags[0], "%.*s", (int)len, line);
		pattern += 2;
		text = line + len;
	}
	if (!matches(pattern, text)) {
		(void)buf_addf(&v->complaint, "waited for \"%s\", got \"%s\"\n", pattern, text);
		v->over = true;
	}
	free(line);
}

static void want_bytes(struct server *v, const char *text)
{
	char *rest;
	unsigned long n = strtoul(text, &rest, 10), left = n;
	while (left && !v->over) {
		size_t some = v->in_len < left ? v->in_len : left;
		for (size_t i = 0; i < some && !v->over; i++)
			v->over = v->in[i] != rest[1];
		v->in_len -= some;
		memmove(v->in, v->in + some, v->in_len);
		left -= some;
		if (v->over || (left && !get_more(v))) {
			(void)buf_addf(&v->complaint, "waited for %lu bytes, and %lu of them did not come\n", n, left);
			v->over = true;
		}
	}
}

/* A client that says too much does so in the same write. */
static void want_silence(struct server *v)
{
	struct pollfd p = { .fd = v->fd, .events = POLLIN };
	if (!v->in_len && poll(&p, 1, SILENCE_MS) == 0)
		return;
	(void)buf_adds(&v->complaint, "the client did not wait for an answer\n");
	v->over = true;
}

static void put_many(struct server *v, const char *text)
{
	char *rest;
	unsigned long n = strtoul(text, &rest, 10);
	for (unsigned long i = 1; i <= n && !v->over; i++)
		put_line(v, rest + (*rest == ' '), (unsigned)i, "\r\n");
}

static void put_bytes(struct server *v, const char *text)
{
	char *rest, bytes[4096];
	unsigned long n = strtoul(text, &rest, 10);
	memset(bytes, rest[0] ? rest[1] : 'x', sizeof bytes);
	while (n && !v->over) {
		size_t some = n < sizeof bytes ? n : sizeof bytes;
		put(v, bytes, some);
		n -= some;
	}
}

/* The client has to leave, and to come again. */
static void next_connection(struct server *v)
{
	char *line;
	int fd = -1;
	while ((line = get_line(v))) {
		if (strcmp(line, "QUIT"))
			(void)buf_addf(&v->complaint, "waited for the end, got \"%s\"\n", line);
		free(line);
	}
	close(v->fd);
	v->in_len = 0;
	struct pollfd p = { .fd = v->next_fd, .events = POLLIN };
	if (poll(&p, 1, PATIENCE_MS) <= 0 || read(v->next_fd, &fd, sizeof fd) != sizeof fd) {
		(void)buf_adds(&v->complaint, "the client did not come again\n");
		v->over = true;
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	}
	v->fd = fd;
}

static void *serve(void *context)
{
	struct server *v = context;
	if (!v->how.cut)
		v->over = true;
	for (size_t i = 0; i < v->script->count && !v->over; i++) {
		const struct line *l = &v->script->lines[i];
		switch (l->kind) {
		case 'S': put_line(v, l->text, 0, "\r\n"); break;
		case '-': put_line(v, l->text, 0, ""); break;
		case 'M': put_many(v, l->text); break;
		case 'B': put_bytes(v, l->text); break;
		case 'C': want_line(v, l->text); break;
		case 'D': want_bytes(v, l->text); break;
		case 'E': v->over = true; break;
		case 'N': next_connection(v); break;
		case 'H': want_silence(v); break;
		default: break;
		}
	}
	char *line;
	if (v->over || v->how.seed) {
		v->over = true;
		shutdown(v->fd, SHUT_WR);
	}
	while ((line = get_line(v))) { /* what the client still says: goodbye, or what nobody waited for */
		if (!v->over && !strstr(line, "LOGOUT") && strcmp(line, "QUIT") && strcmp(line, "DONE"))
			(void)buf_addf(&v->complaint, "did not expect \"%s\"\n", line);
		free(line);
	}
	close(v->fd);
	return NULL;
}

/* --- the client ------------------------------------------------------------------------------------------------------ */

struct client {
	struct remote *remote;
	struct buf said;
	struct buf data;       /* of the body under way */
	char *arguments[128];   /* of the verb under way */
	size_t argument_count, argument_at;
	const struct remote_write *writes; /* of the verb under way */
	int later;                /* eventfd: there is more to fetch after all */
	uint32_t uids[64];
	bool quiet;            /* data is counted, not shown */
	uint64_t bytes;
	enum mf_err sink_fails;
	unsigned fail_after;
	int next_fd;           /* takes the server's ends of further connections */
};

static void say(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct client *c, const char *format, ...)
{
	va_list arguments;
	char *text;
	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		abort();
	va_end(arguments);
	(void)buf_addf(&c->said, "%s\n", text);
	free(text);
}

static char *shown(const char *data, size_t len)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	for (size_t i = 0; i < len; i++) {
		if (data[i] >= ' ' && data[i] < 0x7f && data[i] != '|')
			(void)buf_add(&b, &data[i], 1);
		else
			(void)buf_addf(&b, "<%02x>", (unsigned char)data[i]);
	}
	return buf_detach(&b);
}

static char *ranges_text(const struct uid_ranges *r)
{
	struct buf b;
	buf_init(&b, 1 << 20);
	for (size_t i = 0; i < r->count; i++)
		(void)buf_addf(&b, r->items[i].first == r->items[i].last ? "%s%u" : "%s%u:%u", i ? "," : "", r->items[i].first, r->items[i].last);
	return buf_detach(&b);
}

static void on_unreadable(void *context)
{
	say(context, "others cannot be read");
}

static enum mf_err on_mailbox(void *context, const struct remote_mailbox *m)
{
	static const char *const uses[] = { "none", "inbox", "all", "archive", "drafts", "flagged", "junk", "sent", "trash" };
	char *raw = shown(m->raw, strlen(m->raw)), delimiter[2] = { m->delimiter ? m->delimiter : '0', 0 };
	char limit[40] = "";
	if (m->status.append_limit)
		snprintf(limit, sizeof limit, " limit=%llu", (unsigned long long)m->status.append_limit);
	say(context, "mailbox %s delimiter=%s use=%s%s%s%s%s%s%s status=%u,%u,%u,%u,%llu%s%s%s", raw, delimiter, uses[m->use],
	    m->flags & MAILBOX_NOSELECT ? " noselect" : "", m->flags & MAILBOX_SUBSCRIBED ? " subscribed" : "",
	    m->flags & MAILBOX_NOINFERIORS ? " noinferiors" : "", m->utf8 ? " utf8" : "", m->flags & MAILBOX_OTHERS ? " others" : "",
	    m->flags & MAILBOX_HOME ? " home" : "", m->status.uidvalidity, m->status.uidnext,
	    m->status.messages, m->status.unseen, (unsigned long long)m->status.modseq, limit, m->object_id ? " id=" : "",
	    m->object_id ? m->object_id : "");
	free(raw);
	return MF_OK;
}

static enum mf_err on_opened(void *context, size_t i, const struct mailbox_status *s, bool read_only)
{
	say(context, "opened %zu uidvalidity=%u uidnext=%u messages=%u modseq=%llu%s", i, s->uidvalidity, s->uidnext, s->messages, (unsigned long long)s->modseq,
	    read_only ? " read-only" : "");
	return MF_OK;
}

static enum mf_err on_message(void *context, size_t i, const struct remote_message *m)
{
	struct client *c = context;
	char *header = m->header ? shown(m->header, m->header_len) : mf_strdup("none");
	char size[32];
	snprintf(size, sizeof size, "%llu", (unsigned long long)m->size);
	say(c, "message %zu uid=%u size=%s date=%lld flags=%u keywords=%s id=%s header=%s", i, m->uid, m->has_size ? size : "none", (long long)m->internal_date,
	    m->flags, m->keywords, m->email_id ? m->email_id : "none", header);
	free(header);
	return c->sink_fails && !c->fail_after-- ? c->sink_fails : MF_OK;
}

static enum mf_err on_flags(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	say(context, "flags %zu uid=%u flags=%u keywords=%s modseq=%llu", i, uid, flags, keywords, (unsigned long long)modseq);
	return MF_OK;
}

static enum mf_err on_vanished(void *context, size_t i, const struct uid_ranges *r)
{
	char *text = ranges_text(r);
	say(context, "vanished %zu %s", i, text);
	free(text);
	return MF_OK;
}

static enum mf_err on_present(void *context, size_t i, const struct uid_ranges *r)
{
	char *text = ranges_text(r);
	say(context, "present %zu %s", i, text);
	free(text);
	return MF_OK;
}

static enum mf_err on_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *s)
{
	char rights[40] = "";
	if (s->rights)
		strcpy(rights, " rights=");
	for (char letter = 'a'; s->rights && letter <= 'z'; letter++)
		if (s->rights & RIGHT(letter))
			strncat(rights, &letter, 1);
	say(context, "closed %zu %s uidnext=%u messages=%u modseq=%llu%s", i, mf_err_name(result), s->uidnext, s->messages, (unsigned long long)s->modseq, rights);
	return MF_OK;
}

static enum mf_err on_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	struct client *c = context;
	buf_reset(&c->data);
	c->bytes = 0;
	say(c, "begin %u %llu %llu", uid, (unsigned long long)offset, (unsigned long long)length);
	return MF_OK;
}

static enum mf_err on_bytes(void *context, const void *data, size_t len)
{
	struct client *c = context;
	c->bytes += len;
	(void)buf_add(&c->data, data, len);
	return c->sink_fails && !c->fail_after-- ? c->sink_fails : MF_OK;
}

static enum mf_err on_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	struct client *c = context;
	char *data = shown(c->data.data, c->data.len);
	if (result == MF_OK && c->quiet)
		say(c, "end %u %s%s %llu bytes", uid, mf_err_name(result), whole ? " whole" : "", (unsigned long long)c->bytes);
	else
		say(c, "end %u %s%s%s%s", uid, mf_err_name(result), whole ? " whole" : "", result ? "" : " |", result ? "" : data);
	free(data);
	buf_reset(&c->data);
	return MF_OK;
}

static void on_changed(void *context, const char *raw, bool new_only)
{
	say(context, "changed %s%s", raw ? raw : "(list)", new_only ? " new" : "");
}

static uint64_t number_of(const char *argument, const char *name, uint64_t otherwise)
{
	size_t len = strlen(name);
	return !strncmp(argument, name, len) && argument[len] == '=' ? strtoull(argument + len + 1, NULL, 10) : otherwise;
}

/* NAME METHOD [uidvalidity=N uidnext=N modseq=N first=N newest=N hint=N] ["/" ...] */
static void run_changes(struct client *c)
{
	struct mailbox_since since[16] = { 0 };
	size_t count = 0, word = 0;
	for (size_t i = 0; i < c->argument_count; i++, word++) {
		const char *a = c->arguments[i];
		struct mailbox_since *s = &since[count];
		if (!strcmp(a, "/")) {
			count++;
			word = (size_t)-1;
		} else if (word == 0) {
			s->raw = a;
		} else if (word == 1) {
			s->method = !strcmp(a, "all") ? CHANGES_ALL : !strcmp(a, "new") ? CHANGES_NEW_ONLY : !strcmp(a, "verify") ? CHANGES_VERIFY : CHANGES_AUTO;
		} else {
			s->uidvalidity = (uint32_t)number_of(a, "uidvalidity", s->uidvalidity);
			s->uidnext = (uint32_t)number_of(a, "uidnext", s->uidnext);
			s->modseq = number_of(a, "modseq", s->modseq);
			s->first_uid = (uint32_t)number_of(a, "first", s->first_uid);
			s->newest = (uint32_t)number_of(a, "newest", s->newest);
			s->hint.messages = (uint32_t)number_of(a, "hint", s->hint.messages);
			if (s->hint.messages || !strcmp(a, "hint=0"))
				s->hint.uidvalidity = 1;
		}
	}
	struct change_sink sink = { on_opened, on_message, on_flags, on_vanished, on_present, on_closed, c };
	enum mf_err e = remote_changes(c->remote, since, count + 1, &sink);
	say(c, "changes %s", mf_err_name(e));
}

/* NAME UIDVALIDITY UIDS [OFFSET LENGTH] ["/" ["later"] ...]; later: there is nothing more, and then there is */
static bool next_batch(void *context, struct fetch_batch *ret)
{
	struct client *c = context;
	eventfd_t ignored;
	(void)eventfd_read(c->later, &ignored);
	if (c->argument_at >= c->argument_count)
		return false;
	if (!strcmp(c->arguments[c->argument_at], "later")) {
		c->argument_at++;
		assert_int_equal(eventfd_write(c->later, 1), 0);
		return false;
	}
	*ret = (struct fetch_batch){ .raw = c->arguments[c->argument_at], .uidvalidity = (uint32_t)strtoul(c->arguments[c->argument_at + 1], NULL, 10), .uids = c->uids };
	for (char *p = c->arguments[c->argument_at + 2]; *p; p += *p == ',')
		c->uids[ret->count++] = (uint32_t)strtoul(p, &p, 10);
	c->argument_at += 3;
	if (c->argument_at < c->argument_count && strcmp(c->arguments[c->argument_at], "/")) {
		ret->offset = strtoull(c->arguments[c->argument_at], NULL, 10);
		ret->length = strtoull(c->arguments[c->argument_at + 1], NULL, 10);
		c->argument_at += 2;
	}
	c->argument_at++;
	return true;
}

static void run_fetch(struct client *c)
{
	struct fetch_source source = { next_batch, c, &c->later };
	struct fetch_sink sink = { on_begin, on_bytes, on_end, c };
	c->argument_at = 0;
	c->later = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(c->later >= 0);
	say(c, "fetch %s", mf_err_name(remote_fetch(c->remote, &source, &sink)));
	close(c->later);
}

#include "support/imap_script_write.h"

static void run_login(struct client *c)
{
	struct mf_reason why = { "" };
	enum mf_err e = remote_login(c->remote, &why);
	say(c, "login %s%s%s", mf_err_name(e), e ? ": " : "", e ? why.text : "");
}

/* verbs of another back-end's tests */
static bool (*script_verb)(struct client *c, const char *word);

static void verb_run(struct client *c, const char *text)
{
	char *copy = mf_strdup(text), *word = strtok(copy, " ");
	c->argument_count = 0;
	char *argument;
	while ((argument = strtok(NULL, " ")) && c->argument_count < 128) {
		for (char *p = argument; *p; p++)
			if (*p == '~') /* a space in a name */
				*p = ' ';
		c->arguments[c->argument_count++] = argument;
	}
	if (script_verb && script_verb(c, word)) {
		/* the back-end's own */
	} else if (!strcmp(word, "login")) {
		run_login(c);
	} else if (!strcmp(word, "list")) {
		struct mailbox_sink sink = { on_mailbox, c, on_unreadable };
		say(c, "list %s", mf_err_name(remote_mailboxes(c->remote, &sink)));
	} else if (!strcmp(word, "changes")) {
		run_changes(c);
	} else if (!strcmp(word, "fetch")) {
		run_fetch(c);
	} else if (!strcmp(word, "write")) {
		run_write(c);
	} else if (!strcmp(word, "wait")) {
		struct push_sink sink = { on_changed, c };
		int64_t timeout = c->argument_count > 1 ? strtoll(c->arguments[1], NULL, 10) : 10000;
		say(c, "wait %s", mf_err_name(remote_wait(c->remote, c->arguments[0], timeout, -1, &sink)));
	} else if (!strcmp(word, "quota")) {
		struct quota q = { 0 };
		enum mf_err e = remote_quota(c->remote, &q);
		say(c, "quota %s %llu %llu", mf_err_name(e), (unsigned long long)q.used, (unsigned long long)q.limit);
	} else if (!strcmp(word, "caps")) {
		unsigned caps = remote_caps(c->remote);
		say(c, "caps%s%s%s%s%s", caps & REMOTE_PUSH ? " push" : "", caps & REMOTE_PUSH_ALL ? " push-all" : "", caps & REMOTE_QRESYNC ? " qresync" : "",
		    caps & REMOTE_CONDSTORE ? " condstore" : "", caps & REMOTE_OBJECTID ? " objectid" : "");
	} else if (!strcmp(word, "reason")) {
		say(c, "reason %s", remote_reason(c->remote));
	} else if (!strcmp(word, "sleep")) {
		usleep((useconds_t)strtoul(c->arguments[0], NULL, 10) * 1000);
	} else if (!strcmp(word, "quiet")) {
		c->quiet = true;
	} else if (!strcmp(word, "sink-fails")) { /* MF_CANCELLED after N messages or pieces */
		c->sink_fails = !strcmp(c->arguments[0], "disk") ? MF_NO_SPACE : MF_CANCELLED;
		c->fail_after = (unsigned)strtoul(c->arguments[1], NULL, 10);
	} else {
		fail_msg("no verb \"%s\"", word);
	}
	free(copy);
}

struct settings {
	struct imap_options options;
	char *memory, *user, *password, *command, *show_memory;
};

static void options_take(struct settings *s, const char *text)
{
	struct { const char *name; char **to; } strings[] = { { "memory", &s->memory }, { "user", &s->user }, { "password", &s->password }, { "password-command", &s->command } };
	size_t len = strcspn(text, "=");
	const char *value = text[len] ? text + len + 1 : "";
	for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
		if (len == strlen(strings[i].name) && !strncmp(text, strings[i].name, len)) {
			size_t have = *strings[i].to ? strlen(*strings[i].to) : 0;
			*strings[i].to = mf_realloc_array(*strings[i].to, have + strlen(value) + 2, 1);
			sprintf(*strings[i].to + have, "%s%s", value, i == 0 ? "\n" : "");
			return;
		}
	}
	if (!strcmp(text, "starttls"))
		s->options.require_starttls = true;
	else if (!strcmp(text, "compress"))
		s->options.compress = true;
	else if (!strcmp(text, "idle"))
		s->options.idle = true;
	else if (!strcmp(text, "list-ahead"))
		s->options.list_ahead = true;
	else if (!strcmp(text, "clear=no"))
		s->options.clear_allowed = false;
	else if (!strncmp(text, "auth=", 5))
		s->options.auth = (unsigned)strtoul(value, NULL, 10);
	else if (!strncmp(text, "io-timeout=", 11))
		s->options.transport.io_timeout_ms = strtoll(value, NULL, 10);
	else if (!strncmp(text, "literal-max=", 12))
		s->options.message_max = strtoull(value, NULL, 10);
	else if (strcmp(text, "show-memory"))
		fail_msg("no option \"%s\"", text);
	else
		s->show_memory = mf_strdup("");
}

static void run_client(struct client *c, const struct imap_script *script, int fd)
{
	struct cancel cancel;
	assert_true(cancel_init(&cancel));
	struct settings s = { .options = { .transport = { .host = "imap.test", .port = 143, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS,
	                                   .cancel = &cancel }, .auth = AUTH_PLAIN, .clear_allowed = true } };
	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].kind == 'O')
			options_take(&s, script->lines[i].text);
	s.options.credentials = credentials_create(s.user ? s.user : "alice", s.command ? NULL : s.password ? s.password : "secret", s.command);
	s.options.memory = imap_memory_create(s.memory);
	c->remote = imap_remote_adopt(&s.options, fd);
	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].kind == 'V')
			verb_run(c, script->lines[i].text);
	remote_destroy(c->remote);
	if (s.show_memory) {
		char *text = imap_memory_text(s.options.memory);
		(void)buf_adds(&c->said, text);
		free(text);
	}
	imap_memory_destroy(s.options.memory);
	credentials_destroy(s.options.credentials);
	free(s.memory), free(s.user), free(s.password), free(s.command), free(s.show_memory);
	cancel_finish(&cancel);
}

/* who talks to the server: another back-end's tests put theirs here */
static void (*script_client)(struct client *c, const struct imap_script *script, int fd) = run_client;

size_t imap_script_run(const struct imap_script *script, const struct imap_script_run *how, char **ret_said, char **ret_server)
{
	int fds[2];
	pthread_t thread;
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, imap_global_init);
	assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
	int next[2];
	assert_int_equal(0, pipe2(next, O_CLOEXEC));
	struct server server = { .script = script, .how = *how, .fd = fds[1], .next_fd = next[0] };
	buf_init(&server.complaint, 1 << 20);
	assert_int_equal(0, pthread_create(&thread, NULL, serve, &server));
	struct client client = { 0 };
	buf_init(&client.said, 1 << 24);
	buf_init(&client.data, 1 << 16);
	client.next_fd = next[1];
	script_client(&client, script, fds[0]);
	close(next[1]); /* nobody comes any more */
	pthread_join(thread, NULL);
	close(next[0]);
	buf_finish(&client.data);
	*ret_said = buf_detach(&client.said);
	*ret_server = buf_detach(&server.complaint);
	return server.sent;
}

/* the next line that the client must (R), or may (Q), be told */
static size_t next_told(const struct imap_script *script, size_t at)
{
	while (at < script->count && script->lines[at].kind != 'R' && script->lines[at].kind != 'Q')
		at++;
	return at;
}

/* The R: and Q: lines against what was said, line by line. "" when they agree. */
static char *compare(const struct imap_script *script, const char *said)
{
	size_t at = next_told(script, 0);
	for (const char *p = said; *p;) {
		size_t len = strcspn(p, "\n");
		char *line = mf_strndup(p, len);
		while (at < script->count && script->lines[at].kind == 'Q' && !matches(script->lines[at].text, line))
			at = next_told(script, at + 1);
		if (at == script->count || !matches(script->lines[at].text, line)) {
			char *text = mf_format("expected \"%s\"\n     got \"%s\"", at < script->count ? script->lines[at].text : "(nothing more)", line);
			free(line);
			return text;
		}
		free(line);
		at = next_told(script, at + 1);
		p += len + 1;
	}
	while (at < script->count && script->lines[at].kind == 'Q')
		at = next_told(script, at + 1);
	return at < script->count ? mf_format("expected \"%s\", and it was not said", script->lines[at].text) : mf_strdup("");
}

size_t imap_script_check(const struct imap_script *script, const struct imap_script_run *how)
{
	char *said, *server;
	size_t sent = imap_script_run(script, how, &said, &server);
	char *difference = compare(script, said);
	if (*difference || *server)
		fail_msg("%s (%s)\n%s\nserver: %s\nthe client was told:\n%s", script->path, imap_script_about(script), difference, server, said);
	free(difference);
	free(said);
	free(server);
	return sent;
}

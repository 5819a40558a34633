/* The contract of remote.h on the POP3 back-end, with a server in this process that keeps one maildrop, and numbers in
 * memory. Each connection is a thread with its own view of the maildrop, as RFC 1939 wants it. */
#include "contract/contract.c"

#include <pthread.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/mem.h"
#include "config/config.h"
#include "sync/pop3/pop3.h"

struct mail { char *data, uidl[32]; size_t len; bool gone; };   /* gone: in a view, marked by DELE */

struct maildrop_server {
	struct credentials *credentials;
	struct pop3_memory *memory;
	pthread_mutex_t lock;              /* guards what follows */
	struct mail *mails;                /* none is ever freed: sessions look at them */
	size_t count;
	unsigned next_uidl;
	/* the client's numbers; its thread's alone */
	struct uidls numbers;
};

/* --- one connection ---------------------------------------------------------------------------------------------------- */

struct connection {
	struct maildrop_server *server;
	int fd;
	struct mail *view;
	size_t count;
};

static void say(struct connection *c, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);
		if (n <= 0)
			return;
		data += n;
		len -= (size_t)n;
	}
}

static void say_line(struct connection *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say_line(struct connection *c, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	int len = vsnprintf(line, sizeof line - 2, format, args);
	va_end(args);
	memcpy(line + len, "\r\n", 2);
	say(c, line, (size_t)len + 2);
}

static void take_view(struct connection *c)
{
	struct maildrop_server *s = c->server;
	pthread_mutex_lock(&s->lock);
	c->view = mf_alloc_array(s->count + 1, sizeof *c->view);
	for (size_t i = 0; i < s->count; i++)
		if (!s->mails[i].gone)
			c->view[c->count++] = s->mails[i];
	pthread_mutex_unlock(&s->lock);
}

/* A message or its header block, dots doubled, its last line ended */
static void say_mail(struct connection *c, const struct mail *m, bool all)
{
	struct buf b;
	buf_init(&b, 1 << 24);
	bool start = true;
	for (size_t i = 0; i < m->len; i++) {
		if (start && m->data[i] == '.')
			(void)buf_adds(&b, ".");
		(void)buf_add(&b, &m->data[i], 1);
		start = m->data[i] == '\n' && i && m->data[i - 1] == '\r';
		if (!all && b.len >= 4 && memcmp(b.data + b.len - 4, "\r\n\r\n", 4) == 0)
			break;
	}
	(void)buf_adds(&b, b.len >= 2 && memcmp(b.data + b.len - 2, "\r\n", 2) == 0 ? ".\r\n" : "\r\n.\r\n");
	say(c, b.data, b.len);
	buf_finish(&b);
}

static void answer_list(struct connection *c, bool uidl)
{
	say_line(c, "+OK");
	for (size_t i = 0; i < c->count; i++)
		uidl ? say_line(c, "%zu %s", i + 1, c->view[i].uidl) : say_line(c, "%zu %zu", i + 1, c->view[i].len);
	say_line(c, ".");
}

static void carry_out(struct connection *c)
{
	struct maildrop_server *s = c->server;
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->count; i++)
		for (size_t k = 0; k < c->count; k++)
			s->mails[i].gone |= c->view[k].gone && !strcmp(s->mails[i].uidl, c->view[k].uidl);
	pthread_mutex_unlock(&s->lock);
}

static bool mark(struct connection *c, unsigned number)
{
	if (!number || number > c->count || c->view[number - 1].gone)
		return false;
	return c->view[number - 1].gone = true;
}

static bool answer(struct connection *c, const char *line)
{
	unsigned number = 0;
	if (!strcmp(line, "CAPA"))
		say_line(c, "+OK\r\nUSER\r\nTOP\r\nUIDL\r\nPIPELINING\r\n.");
	else if (!strncmp(line, "USER ", 5))
		say_line(c, "+OK");
	else if (!strcmp(line, "PASS secret"))
		take_view(c), say_line(c, "+OK");
	else if (!strcmp(line, "UIDL") || !strcmp(line, "LIST"))
		answer_list(c, *line == 'U');
	else if ((sscanf(line, "RETR %u", &number) == 1 || sscanf(line, "TOP %u 0", &number) == 1) && number && number <= c->count)
		say_line(c, "+OK"), say_mail(c, &c->view[number - 1], *line == 'R');
	else if (sscanf(line, "DELE %u", &number) == 1)
		say_line(c, mark(c, number) ? "+OK" : "-ERR");
	else if (!strcmp(line, "QUIT"))
		carry_out(c), say_line(c, "+OK");
	else
		say_line(c, "-ERR");
	return *line != 'Q';
}

static void *serve(void *context)
{
	struct connection *c = context;
	char line[512];
	size_t len = 0;
	bool more = true;
	say_line(c, "+OK ready");
	while (more && len < sizeof line && read(c->fd, line + len, 1) == 1) {
		if (line[len++] != '\n')
			continue;
		line[len - 2] = 0;
		len = 0;
		more = answer(c, line);
	}
	close(c->fd);
	free(c->view);
	free(c);
	return NULL;
}

static enum mf_err dial(void *context, const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	int fds[2];
	pthread_t thread;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct connection *c = MF_NEW(struct connection);
	c->server = context;
	c->fd = fds[1];
	assert_int_equal(pthread_create(&thread, NULL, serve, c), 0);
	pthread_detach(thread);
	return transport_adopt(fds[0], options, ret, why);
}

/* --- the numbers ---------------------------------------------------------------------------------------------------------- */

static struct uidls copy_rows(const struct uidls *u, const struct uidls_change *change)
{
	struct uidls n = { .uidvalidity = change->uidvalidity, .uidnext = change->uidnext };
	n.rows = mf_alloc_array(u->count + change->put_count + 1, sizeof *n.rows);
	n.keys = mf_alloc((u->count + change->put_count + 1) * 400);
	char *at = n.keys;
	for (size_t i = 0; i < u->count + change->put_count; i++) {
		const struct uidl *row = i < u->count ? &u->rows[i] : &change->put[i - u->count];
		bool keep = i >= u->count || u->uidvalidity == change->uidvalidity;
		for (size_t k = 0; k < change->gone_count && i < u->count; k++)
			keep &= change->gone[k] != row->uid;
		for (size_t k = 0; k < change->put_count && i < u->count; k++)
			keep &= change->put[k].uid != row->uid;
		if (!keep)
			continue;
		n.rows[n.count] = *row;
		n.rows[n.count++].key = at;
		at = stpcpy(at, row->key) + 1;
	}
	return n;
}

static int by_uid(const void *a, const void *b)
{
	const struct uidl *x = a, *y = b;
	return (x->uid > y->uid) - (x->uid < y->uid);
}

static enum mf_err load(void *context, struct uidls *ret)
{
	struct maildrop_server *s = context;
	*ret = copy_rows(&s->numbers, &(struct uidls_change){ .uidvalidity = s->numbers.uidvalidity, .uidnext = s->numbers.uidnext });
	return MF_OK;
}

static enum mf_err save(void *context, const struct uidls_change *change)
{
	struct maildrop_server *s = context;
	struct uidls n = copy_rows(&s->numbers, change);
	uidls_finish(&s->numbers);
	qsort(n.rows, n.count, sizeof *n.rows, by_uid);
	s->numbers = n;
	return MF_OK;
}

/* --- another client --------------------------------------------------------------------------------------------------------- */

static struct remote *make(void *context, struct cancel *cancel)
{
	struct maildrop_server *s = context;
	struct pop3_options options = {
		.transport = { .host = "pop3.test", .port = 110, .connect_timeout_ms = 10000, .io_timeout_ms = 10000, .cancel = cancel },
		.credentials = s->credentials, .auth = AUTH_AUTO, .memory = s->memory, .store = { load, save, s }, .clear_allowed = true,
	};
	return pop3_remote_dial(&options, dial, s);
}

static void empty(void *context, const char *raw)
{
	struct maildrop_server *s = context;
	assert_string_equal(raw, "INBOX");
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->count; i++)
		s->mails[i].gone = true;
	pthread_mutex_unlock(&s->lock);
}

static void deliver_mail(void *context, const char *raw, const char *data, size_t len)
{
	struct maildrop_server *s = context;
	assert_string_equal(raw, "INBOX");
	pthread_mutex_lock(&s->lock);
	s->mails = mf_realloc_array(s->mails, s->count + 1, sizeof *s->mails);
	struct mail *m = &s->mails[s->count++];
	*m = (struct mail){ .data = mf_alloc(len + 1), .len = len };
	memcpy(m->data, data, len);
	snprintf(m->uidl, sizeof m->uidl, "u%u", ++s->next_uidl);
	pthread_mutex_unlock(&s->lock);
}

static void expunge(void *context, const char *raw, uint32_t uid)
{
	struct maildrop_server *s = context;
	(void)raw;
	const char *key = NULL;
	for (size_t i = 0; i < s->numbers.count; i++)
		if (s->numbers.rows[i].uid == uid)
			key = s->numbers.rows[i].key;
	assert_non_null(key);
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->count; i++)
		s->mails[i].gone |= !strcmp(s->mails[i].uidl, key);
	pthread_mutex_unlock(&s->lock);
}

/* --- deleting ---------------------------------------------------------------------------------------------------------------- */

static enum mf_err on_deleted(void *context, size_t i, const struct write_result *result)
{
	((enum mf_err *)context)[i] = result->result;
	return MF_OK;
}

static void messages_are_deleted(void **state)
{
	(void)state;
	struct fixture f;
	enum mf_err results[3] = { MF_IO, MF_IO, MF_IO };
	fill(server->mailbox, 5);
	struct remote *r = connect_session(&f);
	assert_true(remote_can_write(r));
	struct told before = all_of(r, server->mailbox);
	sort(before.messages, 5);
	const struct remote_write writes[3] = {
		{ .kind = WRITE_EXPUNGE, .raw = "INBOX", .uidvalidity = before.at_open.uidvalidity, .uids = before.messages, .count = 2 },
		{ .kind = WRITE_MOVE, .raw = "INBOX", .to = "Trash", .uidvalidity = before.at_open.uidvalidity, .uids = before.messages + 2, .count = 1 },
		{ .kind = WRITE_EXPUNGE, .raw = "INBOX", .uidvalidity = before.at_open.uidvalidity, .uids = before.messages + 4, .count = 1 },
	};
	assert_int_equal(remote_write(r, writes, 3, &(struct write_sink){ on_deleted, results }), MF_OK);
	assert_int_equal(results[0], MF_OK);
	assert_int_equal(results[1], MF_UNSUPPORTED);
	assert_int_equal(results[2], MF_OK);
	struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
	assert_int_equal(after.present_count, 2);
	assert_true(has(after.present, 2, before.messages[2]) && has(after.present, 2, before.messages[3]));
	/* what is gone is no failure */
	assert_int_equal(remote_write(r, writes, 1, &(struct write_sink){ on_deleted, results }), MF_OK);
	assert_int_equal(results[0], MF_OK);
	disconnect_session(&f);
}

/* The numbers are lost, as with a new index. */
static void renumber(void *context, const char *raw)
{
	struct maildrop_server *s = context;
	(void)raw;
	struct uidls_change change = { .uidvalidity = s->numbers.uidvalidity + 1, .uidnext = 1 };
	assert_int_equal(save(s, &change), MF_OK);
}

int main(void)
{
	struct maildrop_server s = { .lock = PTHREAD_MUTEX_INITIALIZER };
	s.credentials = credentials_create("alice", "secret", NULL);
	s.memory = pop3_memory_create();
	struct contract_server here = { .context = &s, .make = make, .create = empty, .deliver = deliver_mail, .expunge = expunge, .renumber = renumber,
		.mailbox = "INBOX", .mailbox2 = "INBOX" };
	int failed = contract_run(&here);
	const struct CMUnitTest own[] = { cmocka_unit_test(messages_are_deleted) };
	failed += cmocka_run_group_tests_name("pop3", own, NULL, NULL);
	for (size_t i = 0; i < s.count; i++)
		free(s.mails[i].data);
	free(s.mails);
	uidls_finish(&s.numbers);
	pop3_memory_destroy(s.memory);
	credentials_destroy(s.credentials);
	return failed;
}

/* Scripts (imap_script.h) for the POP3 client. Options of its own:
 *   O: numbers=UIDVALIDITY,UIDNEXT        what was numbered before
 *   O: known=UID KEY SIZE HEADER          a row of that; HEADER with | for line ends (its digest is what is known), or nothing
 *   O: imap=UIDVALIDITY,UIDNEXT           the same mailbox by IMAP
 *   O: linger=MS  O: starttls  O: auth=BITS  O: clear=no  O: password=...  O: password-command=...  O: message-max=N
 *   O: io-timeout=MS  O: sizes-lie  O: narrow   what an earlier session has learnt
 * What is stored is told as "store uidvalidity=... uidnext=... gone=... put=UID:KEY:SIZE,...". */
#include "support/imap_script.c"

#include "sync/pop3/client.h"

struct pop3_test {
	struct client *client;
	int first_fd;
	struct uidls numbers;
	size_t keys_len;
	struct pop3_options options;
	char *password, *command;
	bool sizes_lie, narrow;
};

static enum mf_err test_dial(void *context, const struct transport_options *options, struct transport **ret, struct mf_reason *why)
{
	struct pop3_test *t = context;
	int fd = t->first_fd;
	t->first_fd = -1;
	if (fd < 0) {
		int fds[2];
		assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
		assert_int_equal(write(t->client->next_fd, &fds[1], sizeof fds[1]), sizeof fds[1]);
		fd = fds[0];
	}
	return transport_adopt(fd, options, ret, why);
}

/* --- the numbers ------------------------------------------------------------------------------------------------------- */

static void add_known(struct uidls *u, uint32_t uid, const char *key, uint64_t size, const char *digest)
{
	u->rows = mf_realloc_array(u->rows, u->count + 1, sizeof *u->rows);
	struct uidl *row = &u->rows[u->count++];
	*row = (struct uidl){ .key = mf_strdup(key), .uid = uid, .size = size };
	snprintf(row->digest, sizeof row->digest, "%s", digest);
}

static void known_option(struct pop3_test *t, const char *text)
{
	char key[300], header[1000] = "", digest[MAIL_DIGEST_SIZE] = "";
	unsigned uid;
	unsigned long long size;
	int n = sscanf(text, "%u %299s %llu %999[^\n]", &uid, key, &size, header);
	if (n < 3)
		fail_msg("known=%s?", text);
	for (char *p = header; *p; p++)
		if (*p == '|')
			*p = '\n';
	for (char *p = key; *p; p++)
		if (*p == '~') /* a space */
			*p = ' ';
	if (n == 4)
		mail_header_digest(header, strlen(header), digest);
	add_known(&t->numbers, uid, key, size, digest);
}

static void free_known(struct uidls *u)
{
	for (size_t i = 0; i < u->count; i++)
		free((void *)(uintptr_t)u->rows[i].key);
	free(u->rows);
	u->rows = NULL;
	u->count = 0;
}

static int known_by_uid(const void *a, const void *b)
{
	const struct uidl *x = a, *y = b;
	return (x->uid > y->uid) - (x->uid < y->uid);
}

static enum mf_err test_load(void *context, struct uidls *ret)
{
	const struct pop3_test *t = context;
	struct uidls u = { .uidvalidity = t->numbers.uidvalidity, .uidnext = t->numbers.uidnext, .count = t->numbers.count };
	size_t len = 1;
	u.rows = mf_alloc_array(u.count + 1, sizeof *u.rows);
	for (size_t i = 0; i < u.count; i++)
		len += strlen(t->numbers.rows[i].key) + 1;
	char *at = u.keys = mf_alloc(len);
	for (size_t i = 0; i < u.count; i++) {
		u.rows[i] = t->numbers.rows[i];
		u.rows[i].key = at;
		memcpy(at, t->numbers.rows[i].key, strlen(t->numbers.rows[i].key) + 1);
		at += strlen(at) + 1;
	}
	*ret = u;
	return MF_OK;
}

static void remove_known(struct uidls *u, uint32_t uid)
{
	for (size_t i = 0; i < u->count; i++) {
		if (u->rows[i].uid != uid)
			continue;
		free((void *)(uintptr_t)u->rows[i].key);
		memmove(&u->rows[i], &u->rows[i + 1], (--u->count - i) * sizeof *u->rows);
		return;
	}
}

static enum mf_err test_save(void *context, const struct uidls_change *change)
{
	struct pop3_test *t = context;
	struct buf b;
	buf_init(&b, 1 << 20);
	if (t->numbers.uidvalidity != change->uidvalidity)
		free_known(&t->numbers);
	t->numbers.uidvalidity = change->uidvalidity;
	t->numbers.uidnext = change->uidnext;
	for (size_t i = 0; i < change->gone_count; i++) {
		(void)buf_addf(&b, "%s%u", i ? "," : "", change->gone[i]);
		remove_known(&t->numbers, change->gone[i]);
	}
	(void)buf_adds(&b, " put=");
	for (size_t i = 0; i < change->put_count; i++) {
		const struct uidl *row = &change->put[i];
		(void)buf_addf(&b, "%s%u:%s:%llu", i ? "," : "", row->uid, row->key, (unsigned long long)row->size);
		remove_known(&t->numbers, row->uid);
		add_known(&t->numbers, row->uid, row->key, row->size, row->digest);
	}
	if (t->numbers.count)
		qsort(t->numbers.rows, t->numbers.count, sizeof *t->numbers.rows, known_by_uid);
	say(t->client, "store uidvalidity=%u uidnext=%u gone=%s", change->uidvalidity, change->uidnext, b.data);
	buf_finish(&b);
	return t->client->sink_fails == MF_NO_SPACE && !t->client->fail_after ? MF_NO_SPACE : MF_OK;
}

/* --- the client -------------------------------------------------------------------------------------------------------- */

static void pop3_option(struct pop3_test *t, const char *text)
{
	const char *value = strchr(text, '=') ? strchr(text, '=') + 1 : "";
	if (!strncmp(text, "numbers=", 8))
		sscanf(value, "%u,%u", &t->numbers.uidvalidity, &t->numbers.uidnext);
	else if (!strncmp(text, "imap=", 5))
		sscanf(value, "%u,%u", &t->options.imap_uidvalidity, &t->options.imap_uidnext);
	else if (!strncmp(text, "known=", 6))
		known_option(t, value);
	else if (!strncmp(text, "linger=", 7))
		t->options.linger_ms = strtoll(value, NULL, 10);
	else if (!strncmp(text, "io-timeout=", 11))
		t->options.transport.io_timeout_ms = strtoll(value, NULL, 10);
	else if (!strncmp(text, "auth=", 5))
		t->options.auth = (unsigned)strtoul(value, NULL, 10);
	else if (!strncmp(text, "message-max=", 12))
		t->options.message_max = strtoull(value, NULL, 10);
	else if (!strncmp(text, "password=", 9))
		t->password = mf_strdup(value);
	else if (!strncmp(text, "password-command=", 17))
		t->command = mf_strdup(value);
	else if (!strcmp(text, "starttls"))
		t->options.require_starttls = true;
	else if (!strcmp(text, "clear=no"))
		t->options.clear_allowed = false;
	else if (!strcmp(text, "sizes-lie"))
		t->sizes_lie = true;
	else if (!strcmp(text, "narrow"))
		t->narrow = true;
	else
		fail_msg("no option \"%s\"", text);
}

/* V: write KIND MAILBOX UIDVALIDITY UIDS ["/" ...] */
static enum mf_err on_written(void *context, size_t i, const struct write_result *result)
{
	struct client *c = context;
	say(c, "done %zu %s%s%s", i, mf_err_name(result->result), result->reason ? ": " : "", result->reason ? result->reason : "");
	return c->sink_fails && !c->fail_after-- ? c->sink_fails : MF_OK;
}

static bool pop3_verb(struct client *c, const char *word)
{
	struct remote_write writes[8] = { 0 };
	size_t count = 0, used = 0;
	if (strcmp(word, "write"))
		return false;
	for (size_t i = 0; i + 3 < c->argument_count; i += 5) {
		struct remote_write *w = &writes[count++];
		*w = (struct remote_write){ .kind = !strcmp(c->arguments[i], "expunge") ? WRITE_EXPUNGE : WRITE_FLAGS, .raw = c->arguments[i + 1],
			.uidvalidity = (uint32_t)strtoul(c->arguments[i + 2], NULL, 10), .uids = c->uids + used };
		for (char *p = c->arguments[i + 3]; *p; p += *p == ',', w->count++)
			c->uids[used++] = (uint32_t)strtoul(p, &p, 10);
	}
	struct write_sink sink = { on_written, c };
	say(c, "write %s", mf_err_name(remote_write(c->remote, writes, count, &sink)));
	return true;
}

static void pop3_client(struct client *c, const struct imap_script *script, int fd)
{
	struct cancel cancel;
	assert_true(cancel_init(&cancel));
	struct pop3_test t = { .client = c, .first_fd = fd };
	t.options = (struct pop3_options){ .transport = { .host = "pop3.test", .port = 110, .connect_timeout_ms = PATIENCE_MS, .io_timeout_ms = PATIENCE_MS,
		.cancel = &cancel }, .auth = AUTH_PLAIN, .clear_allowed = true, .store = { test_load, test_save, &t } };
	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].kind == 'O')
			pop3_option(&t, script->lines[i].text);
	t.options.credentials = credentials_create("alice", t.command ? NULL : t.password ? t.password : "secret", t.command);
	t.options.memory = pop3_memory_create();
	if (t.sizes_lie)
		pop3_memory_size_lied(t.options.memory);
	if (t.narrow)
		pop3_memory_narrow(t.options.memory);
	script_verb = pop3_verb;
	c->remote = pop3_remote_dial(&t.options, test_dial, &t);
	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].kind == 'V')
			verb_run(c, script->lines[i].text);
	remote_destroy(c->remote);
	if (t.first_fd >= 0)
		close(t.first_fd);
	free_known(&t.numbers);
	pop3_memory_destroy(t.options.memory);
	credentials_destroy(t.options.credentials);
	free(t.password), free(t.command);
	cancel_finish(&cancel);
}

/* imap_script_write.h: the verb "write" of a script, a part of imap_script.c.
 *
 *   V: write KIND NAME [KEY=VALUE ...] ["/" ...]
 * KIND: flags append copy move expunge replace create delete rename subscribe unsubscribe.
 * KEY: to; v (UIDVALIDITY); uids (1,3:5; "x2" behind a range takes every second); flags, remove (numbers); kw, unkw; date;
 * text, or size (of x) for APPEND, and short: the file has only so many bytes.
 * Told: "done N RESULT [UIDVALIDITY: from>to ...] [unclear] [there: uid ...] [|the server's words]" for each, and "write RESULT". */

struct write_arguments {
	struct remote_write writes[64];
	uint32_t *uids[64];
	size_t count;
};

static void add_uids(struct remote_write *w, uint32_t **uids, const char *text)
{
	for (char *p = (char *)(uintptr_t)text; *p; p += *p == ',') {
		unsigned long first = strtoul(p, &p, 10), last = *p == ':' ? strtoul(p + 1, &p, 10) : first, step = *p == 'x' ? strtoul(p + 1, &p, 10) : 1;
		for (unsigned long uid = first; uid <= last; uid += step) {
			*uids = mf_realloc_array(*uids, w->count + 1, sizeof **uids);
			(*uids)[w->count++] = (uint32_t)uid;
		}
	}
	w->uids = *uids;
}

static int file_of(const char *text, size_t size)
{
	FILE *f = tmpfile();
	assert_non_null(f);
	for (size_t i = 0; text && text[i]; i++)
		assert_int_not_equal(EOF, fputc(text[i], f));
	for (size_t i = 0; !text && i < size; i++)
		assert_int_not_equal(EOF, fputc('x', f));
	assert_int_equal(0, fflush(f));
	int fd = dup(fileno(f));
	fclose(f);
	return fd;
}

static void take_write(struct remote_write *w, uint32_t **uids, const char *key, const char *value)
{
	if (!strcmp(key, "to"))
		w->to = value;
	else if (!strcmp(key, "v"))
		w->uidvalidity = (uint32_t)strtoul(value, NULL, 10);
	else if (!strcmp(key, "uids"))
		add_uids(w, uids, value);
	else if (!strcmp(key, "flags"))
		w->flags = (unsigned)strtoul(value, NULL, 10);
	else if (!strcmp(key, "remove"))
		w->flags_remove = (unsigned)strtoul(value, NULL, 10);
	else if (!strcmp(key, "kw"))
		w->keywords = value;
	else if (!strcmp(key, "unkw"))
		w->keywords_remove = value;
	else if (!strcmp(key, "date"))
		w->internal_date = strtoll(value, NULL, 10);
	else if (!strcmp(key, "text"))
		w->size = strlen(value), w->fd = file_of(value, 0);
	else if (!strcmp(key, "size"))
		w->size = strtoull(value, NULL, 10), w->fd = file_of(NULL, (size_t)w->size);
	else if (!strcmp(key, "short"))
		assert_int_equal(0, ftruncate(w->fd, strtol(value, NULL, 10)));
	else
		fail_msg("write has no \"%s\"", key);
}

static enum write_kind kind_of_write(const char *word)
{
	static const char *const kinds[] = { "flags", "append", "copy", "move", "expunge", "replace", "create", "delete", "rename", "subscribe", "unsubscribe" };
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i], word))
			return (enum write_kind)i;
	fail_msg("no kind of write \"%s\"", word);
	return WRITE_FLAGS;
}

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	struct client *c = context;
	struct buf line;
	buf_init(&line, 1 << 20);
	(void)buf_addf(&line, "done %zu %s", i, mf_err_name(result->result));
	if (result->uidvalidity)
		(void)buf_addf(&line, " %u:", result->uidvalidity);
	for (size_t k = 0; k < result->count; k++)
		(void)buf_addf(&line, " %u>%u", result->pairs[k].from, result->pairs[k].to);
	if (result->unclear)
		(void)buf_addf(&line, " unclear");
	for (size_t k = 0, told = 0; result->there && k < c->writes[i].count; k++)
		if (result->there[k])
			(void)buf_addf(&line, "%s%u", told++ ? " " : " there: ", c->writes[i].uids[k]);
	if (*result->reason)
		(void)buf_addf(&line, " |%s", result->reason);
	say(c, "%s", line.data);
	buf_finish(&line);
	return c->sink_fails && !c->fail_after-- ? c->sink_fails : MF_OK;
}

static void run_write(struct client *c)
{
	struct write_arguments *a = MF_NEW(struct write_arguments);
	struct write_sink sink = { on_done, c };
	size_t word = 0;
	for (size_t i = 0; i < c->argument_count; i++, word++) {
		struct remote_write *w = &a->writes[a->count];
		char *argument = c->arguments[i], *equals = strchr(argument, '=');
		if (!strcmp(argument, "/")) {
			a->count++;
			word = (size_t)-1;
		} else if (word == 0) {
			*w = (struct remote_write){ .kind = kind_of_write(argument), .fd = -1 };
		} else if (word == 1) {
			w->raw = argument;
		} else {
			assert_non_null(equals);
			*equals = 0;
			take_write(w, &a->uids[a->count], argument, equals + 1);
		}
	}
	a->count++;
	c->writes = a->writes;
	say(c, "write %s", mf_err_name(remote_write(c->remote, a->writes, a->count, &sink)));
	for (size_t i = 0; i < a->count; i++) {
		free(a->uids[i]);
		if (a->writes[i].fd >= 0)
			close(a->writes[i].fd);
	}
	free(a);
}

#include "smtp/handover.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

#define MAGIC "mailfs spool 1\n"
#define HEAD_MAX (4U << 20)      /* 5,000 recipients */

/* --- writing ------------------------------------------------------------------------------------------------------- */

static void add(struct buf *b, const char *key, const char *value)
{
	if (!value)
		return;
	(void)buf_addf(b, "%s: ", key);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		if (c < 0x20 || c == '%' || c == 0x7f)
			(void)buf_addf(b, "%%%02x", c);
		else
			(void)buf_add(b, value, 1);
	}
	(void)buf_adds(b, "\n");
}

static enum mf_err write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			return mf_err_from_errno(errno);
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return MF_OK;
}

static enum mf_err write_head(int fd, const struct outbox_put *put)
{
	struct buf b;
	buf_init(&b, HEAD_MAX);
	(void)buf_adds(&b, MAGIC);
	add(&b, "name", put->name);
	add(&b, "sender", put->sender);
	add(&b, "from-name", put->from_name);
	add(&b, "fields", put->fields_too ? "1" : NULL);
	for (const char *const *r = put->recipients; r && *r; r++)
		add(&b, "to", *r);
	for (const char *const *l = put->locals; l && *l; l++)
		add(&b, "local", *l);
	(void)buf_addf(&b, "notify: %u\n", put->notify);
	enum mf_err e = buf_adds(&b, "\n");
	if (!e)
		e = write_all(fd, b.data, b.len);
	buf_finish(&b);
	return e;
}

static enum mf_err copy(int from, int to)
{
	MF_CLEANUP(mf_free) char *block = mf_alloc(65536);
	for (;;) {
		ssize_t n = read(from, block, 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? mf_err_from_errno(errno) : MF_OK;
		enum mf_err e = write_all(to, block, (size_t)n);
		if (e)
			return e;
	}
}

enum mf_err handover_write(const char *state_dir, const struct outbox_put *put, int message, char **ret_name, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *folder = mf_format("%s/outbox", state_dir);
	MF_CLEANUP(mf_free) char *path = mf_format("%s/spool-XXXXXX", folder);
	if ((mkdir(state_dir, 0700) && errno != EEXIST) || (mkdir(folder, 0700) && errno != EEXIST))
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", folder, strerror(errno));
	MF_CLEANUP(mf_close) int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", folder, strerror(errno));
	enum mf_err e = put ? write_head(fd, put) : MF_OK;
	if (!e)
		e = copy(message, fd);
	if (e) {
		(void)unlink(path);
		return mf_fail(why, e, "the message cannot be kept: %s", mf_err_words(e));
	}
	*ret_name = mf_strdup(strrchr(path, '/') + 1);
	return MF_OK;
}

bool handover_remove(const char *state_dir, const char *name)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox/%s", state_dir, name);
	return unlink(path) == 0 || errno != ENOENT;
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

struct words {                   /* NULL-terminated */
	char **items;
	size_t count;
};

struct order {
	struct outbox_put put;
	char *name, *sender, *from_name;
	struct words recipients, locals;
};

static void words_finish(struct words *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->items[i]);
	free(w->items);
}

static void order_finish(struct order *o)
{
	words_finish(&o->recipients);
	words_finish(&o->locals);
	free(o->name);
	free(o->sender);
	free(o->from_name);
}

static char *unescaped(const char *s)
{
	char *text = mf_strdup(s), *to = text;
	for (; *s; s++) {
		if (*s == '%' && isxdigit((unsigned char)s[1]) && isxdigit((unsigned char)s[2])) {
			char hex[3] = { s[1], s[2], 0 };
			*to++ = (char)strtoul(hex, NULL, 16);
			s += 2;
		} else {
			*to++ = *s;
		}
	}
	*to = 0;
	return text;
}

static void replace(char **to, const char *value)
{
	free(*to);
	*to = unescaped(value);
}

static void words_add(struct words *w, const char *value)
{
	if (w->count == RECIPIENTS_MAX)
		return;
	w->items = mf_realloc_array(w->items, w->count + 2, sizeof *w->items);
	w->items[w->count++] = unescaped(value);
	w->items[w->count] = NULL;
}

static bool take(struct order *o, char *line)
{
	char *value = strstr(line, ": ");
	if (!value)
		return false;
	*value = 0;
	value += 2;
	if (!strcmp(line, "name"))
		replace(&o->name, value);
	else if (!strcmp(line, "sender"))
		replace(&o->sender, value);
	else if (!strcmp(line, "from-name"))
		replace(&o->from_name, value);
	else if (!strcmp(line, "fields"))
		o->put.fields_too = true;
	else if (!strcmp(line, "notify"))
		o->put.notify = (unsigned)strtoul(value, NULL, 10);
	else if (!strcmp(line, "to"))
		words_add(&o->recipients, value);
	else if (!strcmp(line, "local"))
		words_add(&o->locals, value);
	return true;
}

/* fd is left at the message. */
static bool read_order(int fd, struct order *ret)
{
	MF_CLEANUP(mf_free) char *head = mf_alloc(HEAD_MAX + 1);
	ssize_t n = pread(fd, head, HEAD_MAX, 0);
	char *line = head + strlen(MAGIC);
	if (n < (ssize_t)strlen(MAGIC) || strncmp(head, MAGIC, strlen(MAGIC)))
		return false;
	for (char *next; *line && *line != '\n'; line = next) {
		next = strchr(line, '\n');
		if (!next)
			return false;
		*next++ = 0;
		if (!take(ret, line))
			return false;
	}
	ret->put.name = ret->name;
	ret->put.sender = ret->sender;
	ret->put.from_name = ret->from_name;
	ret->put.recipients = (const char *const *)ret->recipients.items;
	ret->put.locals = (const char *const *)ret->locals.items;
	return *line == '\n' && lseek(fd, line + 1 - head, SEEK_SET) >= 0;
}

enum mf_err handover_open(const char *state_dir, const char *name, int *ret, struct mf_reason *why)
{
	if (strncmp(name, "spool-", 6) || strchr(name, '/'))
		return mf_fail(why, MF_INVALID, "not a message on its way into the outbox");
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox/%s", state_dir, name);
	*ret = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return *ret < 0 ? mf_fail(why, mf_err_from_errno(errno), "%s: %s", path, strerror(errno)) : MF_OK;
}

enum mf_err handover_put(const char *state_dir, const char *name, bool at_once, struct outbox *o, uint64_t *ret_id, struct mf_reason *why)
{
	MF_CLEANUP(mf_close) int fd = -1;
	struct order order = { 0 };
	enum mf_err e = handover_open(state_dir, name, &fd, why);
	if (!e && !read_order(fd, &order))
		e = mf_fail(why, MF_INVALID, "not a message on its way into the outbox");
	order.put.at_once = at_once;
	if (!e)
		e = outbox_put(o, fd, &order.put, ret_id, why);
	if (!e)
		(void)handover_remove(state_dir, name);
	order_finish(&order);
	return e;
}

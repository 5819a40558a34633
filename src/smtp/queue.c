/* The outbox's files: a state as lines of text, replaced whole; folders made durable. */
#include "smtp/queue.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#define STATE_MAX (16U << 20)        /* 5,000 recipients with what was said of each, all of it escaped, are 9 MB */
#define MAGIC "mailfs outbox 1\n"
#define SPOOL_AGE_S 86400            /* what a command left behind */
#define NUMBERS_AT_ONCE 1000

void (*outbox_step_for_tests)(unsigned step);
static unsigned steps;

static void step(void)
{
	if (outbox_step_for_tests)
		outbox_step_for_tests(++steps);
}

/* --- files --------------------------------------------------------------------------------------------------------- */

void queue_file_name(char name[static QUEUE_NAME], uint64_t id, const char *suffix)
{
	snprintf(name, QUEUE_NAME, "%016llx.%s", (unsigned long long)id, suffix);
}

int queue_open_file(struct outbox *o, uint64_t id, const char *suffix, int flags)
{
	char name[QUEUE_NAME];
	queue_file_name(name, id, suffix);
	return openat(o->folder, name, flags | O_CLOEXEC | O_NOFOLLOW);
}

static void temporary_name(char name[static QUEUE_NAME], uint64_t id, const char *suffix)
{
	char whole[32];
	snprintf(whole, sizeof whole, "%s-new", suffix);
	queue_file_name(name, id, whole);
}

int queue_create_file(struct outbox *o, uint64_t id, const char *suffix)
{
	char name[QUEUE_NAME];
	temporary_name(name, id, suffix);
	step();
	return openat(o->folder, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
}

enum mf_err queue_name_file(struct outbox *o, uint64_t id, const char *suffix, int fd)
{
	char old[QUEUE_NAME], new[QUEUE_NAME];
	temporary_name(old, id, suffix);
	queue_file_name(new, id, suffix);
	step();
	if (fsync(fd))
		return mf_err_from_errno(errno);
	step();
	return renameat(o->folder, old, o->folder, new) ? mf_err_from_errno(errno) : MF_OK;
}

void queue_drop_file(struct outbox *o, uint64_t id, const char *suffix, bool named)
{
	char name[QUEUE_NAME];
	if (named)
		queue_file_name(name, id, suffix);
	else
		temporary_name(name, id, suffix);
	step();
	(void)unlinkat(o->folder, name, 0);
}

enum mf_err queue_sync_folder(struct outbox *o)
{
	step();
	return fsync(o->folder) ? mf_err_from_errno(errno) : MF_OK;
}

enum mf_err queue_open_folder(struct outbox *o, struct mf_reason *why)
{
	o->path = mf_format("%s/outbox", o->options.state_dir);
	if (mkdir(o->options.state_dir, 0700) && errno != EEXIST)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", o->options.state_dir, strerror(errno));
	if (mkdir(o->path, 0700) && errno != EEXIST)
		return mf_fail(why, mf_err_from_errno(errno), "%s: %s", o->path, strerror(errno));
	MF_CLEANUP(mf_close) int above = open(o->options.state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (above >= 0)
		(void)fsync(above); /* a new folder has to be there, too, after a power failure */
	o->folder = open(o->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return o->folder < 0 ? mf_fail(why, mf_err_from_errno(errno), "%s: %s", o->path, strerror(errno)) : MF_OK;
}

/* --- the text of a state ------------------------------------------------------------------------------------------- */

static void add_escaped(struct buf *b, const char *s)
{
	for (; s && *s; s++) {
		unsigned char c = (unsigned char)*s;
		if (c <= 0x20 || c == '%' || c == 0x7f)
			(void)buf_addf(b, "%%%02x", c);
		else
			(void)buf_add(b, s, 1);
	}
}

static void add_text(struct buf *b, const char *key, const char *value)
{
	if (!value)
		return;
	(void)buf_addf(b, "%s: ", key);
	add_escaped(b, value);
	(void)buf_adds(b, "\n");
}

static void add_number(struct buf *b, const char *key, uint64_t value)
{
	if (value)
		(void)buf_addf(b, "%s: %llu\n", key, (unsigned long long)value);
}

static const char *const recipient_words[] = { "pending", "sent", "refused" };

static void add_recipients(struct buf *b, const struct entry *e)
{
	for (size_t i = 0; i < e->envelope.recipient_count; i++) {
		(void)buf_addf(b, "to: %s ", recipient_words[e->recipients[i].state]);
		add_escaped(b, e->envelope.recipients[i]);
		(void)buf_adds(b, " ");
		add_escaped(b, e->recipients[i].text);
		(void)buf_adds(b, "\n");
	}
}

static enum mf_err entry_write(const struct entry *e, struct buf *b)
{
	(void)buf_adds(b, MAGIC);
	add_text(b, "name", e->name);
	add_number(b, "number", e->number);
	add_number(b, "replaces", e->replaces);
	add_number(b, "put", (uint64_t)e->put_s);
	add_number(b, "changed", (uint64_t)e->changed_s);
	add_number(b, "due", (uint64_t)e->due_s);
	add_number(b, "first", (uint64_t)e->first_s);
	add_number(b, "attempts", e->attempts);
	add_number(b, "mark", e->mark);
	add_number(b, "copy", e->copy == COPY_ASKED ? COPY_WANTED : e->copy);
	add_number(b, "unfit", e->unfit);
	add_number(b, "original", e->original_size);
	add_text(b, "sender", e->envelope.sender);
	add_text(b, "message-id", e->envelope.message_id);
	add_text(b, "subject", e->envelope.subject);
	add_number(b, "hidden", e->envelope.hidden);
	add_number(b, "size", e->envelope.size);
	add_number(b, "8bit", e->envelope.eight_bit);
	add_number(b, "utf8", e->envelope.utf8);
	add_number(b, "notify", e->envelope.notify);
	add_number(b, "notify-asked", e->notify_asked);
	add_text(b, "reason", e->reason);
	add_recipients(b, e);
	return buf_adds(b, "end\n");
}

/* in place */
static void unescape(char *s)
{
	char *to = s;
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
}

static void take_string(char **to, char *value)
{
	unescape(value);
	free(*to);
	*to = mf_strdup(value);
}

/* STATE ADDRESS TEXT */
static bool take_recipient(struct entry *e, char *value)
{
	char *address = strchr(value, ' '), *text = address ? strchr(address + 1, ' ') : NULL;
	size_t n = e->envelope.recipient_count;
	if (!text || n == RECIPIENTS_MAX)
		return false;
	*address++ = 0;
	*text++ = 0;
	if (n % 64 == 0) {
		e->envelope.recipients = mf_realloc_array(e->envelope.recipients, n + 64, sizeof *e->envelope.recipients);
		e->recipients = mf_realloc_array(e->recipients, n + 64, sizeof *e->recipients);
	}
	e->recipients[n] = (struct recipient_state){ 0 };
	for (size_t i = 0; i < sizeof recipient_words / sizeof *recipient_words; i++)
		if (!strcmp(value, recipient_words[i]))
			e->recipients[n].state = (enum entry_recipient)i;
	unescape(address);
	e->envelope.recipients[n] = mf_strdup(address);
	if (*text)
		take_string(&e->recipients[n].text, text);
	e->envelope.recipient_count++;
	return true;
}

/* "key: value". Unknown keys are a later version's, and no harm. */
static bool take_pair(struct entry *e, const char *key, char *value)
{
	const struct { const char *key; char **to; } texts[] = {
		{ "name", &e->name }, { "sender", &e->envelope.sender }, { "message-id", &e->envelope.message_id },
		{ "subject", &e->envelope.subject }, { "reason", &e->reason },
	};
	uint64_t number = strtoull(value, NULL, 10);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		if (!strcmp(key, texts[i].key)) {
			take_string(texts[i].to, value);
			return true;
		}
	if (!strcmp(key, "to"))
		return take_recipient(e, value);
	if (!strcmp(key, "number"))
		e->number = number & OUTBOX_NUMBER_MAX;
	else if (!strcmp(key, "replaces"))
		e->replaces = number;
	else if (!strcmp(key, "put"))
		e->put_s = (int64_t)number;
	else if (!strcmp(key, "changed"))
		e->changed_s = (int64_t)number;
	else if (!strcmp(key, "due"))
		e->due_s = (int64_t)number;
	else if (!strcmp(key, "first"))
		e->first_s = (int64_t)number;
	else if (!strcmp(key, "attempts"))
		e->attempts = (unsigned)number;
	else if (!strcmp(key, "mark"))
		e->mark = number ? MARK_MAYBE : MARK_NONE; /* whoever has left it there is gone */
	else if (!strcmp(key, "copy"))
		e->copy = number == COPY_FILED ? COPY_FILED : number ? COPY_WANTED : COPY_NONE;
	else if (!strcmp(key, "unfit"))
		e->unfit = number != 0;
	else if (!strcmp(key, "original"))
		e->original_size = number;
	else if (!strcmp(key, "hidden"))
		e->envelope.hidden = number;
	else if (!strcmp(key, "size"))
		e->envelope.size = number;
	else if (!strcmp(key, "8bit"))
		e->envelope.eight_bit = number != 0;
	else if (!strcmp(key, "utf8"))
		e->envelope.utf8 = number != 0;
	else if (!strcmp(key, "notify"))
		e->envelope.notify = (unsigned)number;
	else if (!strcmp(key, "notify-asked"))
		e->notify_asked = (unsigned)number;
	return true;
}

static bool is_sound(const struct entry *e)
{
	if (!e->name || !*e->name || strchr(e->name, '/'))
		return false;
	return e->unfit || (e->envelope.sender && e->envelope.recipient_count && e->envelope.hidden < e->envelope.size);
}

/* text: NUL-terminated, is taken apart */
static bool entry_read(struct entry *e, char *text)
{
	if (strncmp(text, MAGIC, strlen(MAGIC)))
		return false;
	for (char *line = text + strlen(MAGIC), *next; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (!*next)
			return false;
		*next++ = 0;
		if (!strcmp(line, "end"))
			return is_sound(e);
		char *colon = strstr(line, ": ");
		if (!colon)
			return false;
		*colon = 0;
		if (!take_pair(e, line, colon + 2))
			return false;
	}
	return false;
}

/* --- saving -------------------------------------------------------------------------------------------------------- */

static enum mf_err replace_file(struct outbox *o, uint64_t id, const char *suffix, const char *data, size_t len)
{
	MF_CLEANUP(mf_close) int fd = queue_create_file(o, id, suffix);
	if (fd < 0)
		return mf_err_from_errno(errno);
	enum mf_err err = file_write(fd, 0, data, len);
	if (!err)
		err = queue_name_file(o, id, suffix, fd);
	if (err) {
		queue_drop_file(o, id, suffix, false);
		return err;
	}
	return queue_sync_folder(o);
}

/* 5,000 recipients with what was said of each are far below STATE_MAX. */
void queue_text(const struct entry *e, struct buf *ret)
{
	buf_init(ret, STATE_MAX);
	if (entry_write(e, ret))
		abort();
}

enum mf_err queue_write(struct outbox *o, uint64_t id, struct buf *text)
{
	enum mf_err err = replace_file(o, id, "state", text->data, text->len);
	buf_finish(text);
	if (err)
		log_error("the outbox cannot be written: %s", mf_err_words(err));
	return err;
}

enum mf_err queue_save(struct outbox *o, const struct entry *e)
{
	struct buf text;
	queue_text(e, &text);
	return queue_write(o, e->id, &text);
}

enum mf_err queue_delete(struct outbox *o, const struct entry *e)
{
	char name[QUEUE_NAME];
	queue_file_name(name, e->id, "state");
	step();
	if (unlinkat(o->folder, name, 0) && errno != ENOENT)
		return mf_err_from_errno(errno);
	if (queue_sync_folder(o))
		log_error("the outbox cannot be written: %s", strerror(errno)); /* it is gone, until the machine fails */
	queue_drop_file(o, e->id, "eml", true);
	queue_drop_file(o, e->id, "orig", true);
	return MF_OK;
}

enum mf_err queue_save_size_max(struct outbox *o, uint64_t size_max)
{
	MF_CLEANUP(mf_free) char *text = mf_format("%llu\n", (unsigned long long)size_max);
	return replace_file(o, 0, "size", text, strlen(text));
}

/* --- numbers ------------------------------------------------------------------------------------------------------- */

static char *read_file(int fd)
{
	struct stat st;
	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > (off_t)STATE_MAX)
		return NULL;
	char *text = mf_alloc((size_t)st.st_size + 1);
	size_t len;
	if (file_read(fd, 0, text, (size_t)st.st_size, &len)) {
		free(text);
		return NULL;
	}
	return text;
}

static uint64_t number_behind(uint64_t number, uint64_t by)
{
	number = (number + by) & OUTBOX_NUMBER_MAX;
	return number ? number : 1;
}

/* Where that cannot be noted it is tried again with the next: a number that is given twice is the smaller harm. */
static void reserve(struct outbox *o)
{
	uint64_t until = number_behind(o->next_number, NUMBERS_AT_ONCE);
	MF_CLEANUP(mf_free) char *text = mf_format("%llu\n", (unsigned long long)until);
	enum mf_err err = replace_file(o, 0, "number", text, strlen(text));
	if (err)
		log_error("the outbox cannot be written: %s", mf_err_words(err));
	else
		o->reserved = until;
}

uint64_t queue_number_locked(struct outbox *o)
{
	if (o->next_number == o->reserved)
		reserve(o);
	uint64_t number = o->next_number;
	o->next_number = number_behind(number, 1);
	if (o->reserved == number)
		o->reserved = o->next_number;
	return number;
}

static void load_numbers(struct outbox *o)
{
	MF_CLEANUP(mf_close) int fd = queue_open_file(o, 0, "number", O_RDONLY);
	MF_CLEANUP(mf_free) char *text = read_file(fd);
	uint64_t next = text ? strtoull(text, NULL, 10) : (uint64_t)(clock_wall_ns() / 1000000);
	o->next_number = o->reserved = number_behind(next, 0);
}

/* --- loading ------------------------------------------------------------------------------------------------------- */

void entry_free(struct entry *e)
{
	if (!e)
		return;
	for (size_t i = 0; e->recipients && i < e->envelope.recipient_count; i++)
		free(e->recipients[i].text);
	free(e->recipients);
	envelope_finish(&e->envelope);
	free(e->name);
	free(e->reason);
	free(e);
}

static uint64_t file_size(struct outbox *o, uint64_t id, const char *suffix)
{
	char name[QUEUE_NAME];
	struct stat st;
	queue_file_name(name, id, suffix);
	return fstatat(o->folder, name, &st, AT_SYMLINK_NOFOLLOW) ? 0 : (uint64_t)st.st_size;
}

/* What cannot be read is neither sent nor dropped: it is a failed message, for a person to look at. */
static void make_unreadable(struct outbox *o, struct entry *e)
{
	uint64_t id = e->id;
	struct entry fresh = { .id = id, .number = queue_number_locked(o), .unfit = true, .put_s = clock_wall_s(), .changed_s = clock_wall_s() };
	fresh.name = mf_format("recovered-%016llx.eml", (unsigned long long)id);
	fresh.reason = mf_strdup("its state in the outbox cannot be read; it is not known whether it was sent");
	fresh.original_size = file_size(o, id, "orig");
	struct entry *old = MF_NEW(struct entry);
	*old = *e;
	*e = fresh;
	entry_free(old);
	log_warning("outbox: the state of message %016llx cannot be read", (unsigned long long)id);
}

static void insert_sorted(struct outbox *o, struct entry *e)
{
	struct entry *after;
	TAILQ_FOREACH_REVERSE(after, &o->entries, entries, link)
		if (after->id < e->id)
			break;
	if (after)
		TAILQ_INSERT_AFTER(&o->entries, after, e, link);
	else
		TAILQ_INSERT_HEAD(&o->entries, e, link);
	o->last_id = e->id > o->last_id ? e->id : o->last_id;
}

static void load_entry(struct outbox *o, uint64_t id)
{
	struct entry *e = MF_NEW(struct entry);
	MF_CLEANUP(mf_close) int fd = queue_open_file(o, id, "state", O_RDONLY);
	MF_CLEANUP(mf_free) char *text = read_file(fd);
	e->id = id;
	bool sound = text && entry_read(e, text) && file_size(o, id, "orig") == e->original_size;
	if (sound && !e->unfit)
		sound = file_size(o, id, "eml") == e->envelope.size;
	if (!sound)
		make_unreadable(o, e);
	insert_sorted(o, e);
}

/* "0123456789abcdef.SUFFIX" */
static bool parse_name(const char *name, uint64_t *ret_id, const char **ret_suffix)
{
	char *end;
	if (strspn(name, "0123456789abcdef") != 16 || name[16] != '.')
		return false;
	*ret_id = strtoull(name, &end, 16);
	*ret_suffix = name + 17;
	return true;
}

static bool has_state(struct outbox *o, uint64_t id)
{
	char name[QUEUE_NAME];
	queue_file_name(name, id, "state");
	return !faccessat(o->folder, name, F_OK, AT_SYMLINK_NOFOLLOW);
}

/* What was begun and never promised to anybody. */
static bool is_litter(struct outbox *o, const char *name)
{
	uint64_t id;
	const char *suffix;
	struct stat st;
	if (!strncmp(name, "spool-", 6))
		return !fstatat(o->folder, name, &st, AT_SYMLINK_NOFOLLOW) && clock_wall_s() - st.st_mtime > SPOOL_AGE_S;
	if (!parse_name(name, &id, &suffix))
		return false;
	return strstr(suffix, "-new") || ((!strcmp(suffix, "eml") || !strcmp(suffix, "orig")) && !has_state(o, id));
}

static void load_size_max(struct outbox *o)
{
	MF_CLEANUP(mf_close) int fd = queue_open_file(o, 0, "size", O_RDONLY);
	MF_CLEANUP(mf_free) char *text = read_file(fd);
	o->size_max = text ? strtoull(text, NULL, 10) : 0;
	if (o->size_max < SMTP_SIZE_LEAST)
		o->size_max = 0;
}

/* Those of a version that gave none */
static void number_old_ones(struct outbox *o)
{
	struct entry *e;
	TAILQ_FOREACH(e, &o->entries, link)
		if (!e->number) {
			e->number = queue_number_locked(o);
			(void)queue_save(o, e);
		}
}

enum mf_err queue_load(struct outbox *o, struct mf_reason *why)
{
	int fd = fcntl(o->folder, F_DUPFD_CLOEXEC, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		mf_close(&fd);
		return mf_fail(why, MF_IO, "%s: %s", o->path, strerror(errno));
	}
	rewinddir(dir);
	load_numbers(o);
	uint64_t id;
	const char *suffix;
	for (struct dirent *d; (d = readdir(dir));) {
		if (parse_name(d->d_name, &id, &suffix) && !strcmp(suffix, "state"))
			load_entry(o, id);
		else if (is_litter(o, d->d_name))
			(void)unlinkat(o->folder, d->d_name, 0);
	}
	closedir(dir);
	load_size_max(o);
	number_old_ones(o);
	return MF_OK;
}

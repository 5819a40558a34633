/* outbox_world.h: an outbox on a scripted server, with the clock that tests set: putting, sending, looking. */
#ifndef TESTS_OUTBOX_WORLD_H
#define TESTS_OUTBOX_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "smtp/outbox.h"
#include "support/smtp_server.h"

struct world {
	char folder[64], *record_path;
	struct account_config *config;
	struct smtp_server server;
	struct outbox *outbox;
	unsigned copies;
	enum mf_err copy_says;
	bool copy_first;
	char copied[4096];
	atomic_uint changes;
};

__attribute__((unused))
static enum mf_err take_copy(void *context, uint64_t id, int fd, uint64_t size, const char *message_id, bool first)
{
	struct world *w = context;
	(void)id;
	w->copy_first = first;
	assert_true(size < sizeof w->copied && *message_id == '<');
	assert_int_equal(pread(fd, w->copied, size, 0), (ssize_t)size);
	w->copied[size] = 0;
	w->copies++;
	return w->copy_says;
}

__attribute__((unused))
static void count_change(void *context, uint64_t id)
{
	(void)id;
	((struct world *)context)->changes++;
}

__attribute__((unused))
static void reopen(struct world *w)
{
	struct outbox_options o = { .config = w->config, .state_dir = w->folder, .file_copy = take_copy, .file_context = w,
		.connect = server_connect, .connect_context = &w->server };
	struct mf_reason why = { "" };
	outbox_close(w->outbox);
	w->outbox = NULL;
	if (outbox_open(&o, &w->outbox, &why))
		fail_msg("%s", why.text);
	outbox_subscribe(w->outbox, count_change, w);
}

__attribute__((unused))
static void begin(struct world *w)
{
	memset(w, 0, sizeof *w);
	snprintf(w->folder, sizeof w->folder, "/tmp/test_outbox.XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->record_path = mf_format("%s/record", w->folder);
	w->server.record = open(w->record_path, O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0600);
	w->config = account_config_create("work");
	w->config->from = mf_strdup("Alice <alice@example.org>");
	reopen(w);
}

__attribute__((unused))
static void remove_folder(const char *path)
{
	DIR *dir = opendir(path);
	for (struct dirent *d; dir && (d = readdir(dir));) {
		if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
			continue;
		char *inner = mf_format("%s/%s", path, d->d_name);
		if (unlink(inner))
			remove_folder(inner);
		free(inner);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

__attribute__((unused))
static void end(struct world *w)
{
	outbox_close(w->outbox);
	server_join(&w->server);
	close(w->server.record);
	remove_folder(w->folder);
	account_config_destroy(w->config);
	free(w->record_path);
}

/* --- helpers ------------------------------------------------------------------------------------------------------- */

__attribute__((unused))
static int text_file(const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	return fd;
}

__attribute__((unused))
static enum mf_err put_as(struct world *w, const char *text, const struct outbox_put *put, uint64_t *ret, struct mf_reason *why)
{
	int fd = text_file(text);
	enum mf_err e = outbox_put(w->outbox, fd, put, ret, why);
	close(fd);
	return e;
}

__attribute__((unused))
static uint64_t put(struct world *w, const char *name, const char *text)
{
	uint64_t id = 0;
	struct mf_reason why = { "" };
	if (put_as(w, text, &(struct outbox_put){ .name = name }, &id, &why))
		fail_msg("%s", why.text);
	return id;
}

__attribute__((unused))
static void later(int64_t s)
{
	clock_skew_for_tests(s * 1000);
}

__attribute__((unused))
static void run(struct world *w)
{
	struct mf_reason why;
	(void)outbox_send_due(w->outbox, &why);
}

__attribute__((unused))
static void assert_state(struct world *w, uint64_t id, enum outbox_state state)
{
	struct outbox_item item;
	assert_int_equal(outbox_item(w->outbox, id, &item), MF_OK);
	if (item.state != state)
		fail_msg("%s is %s (%s), and not %s", item.name, outbox_state_word(item.state), item.reason, outbox_state_word(state));
	outbox_item_finish(&item);
}

__attribute__((unused))
static void assert_gone(struct world *w, uint64_t id)
{
	struct outbox_item item;
	enum mf_err e = outbox_item(w->outbox, id, &item);
	if (!e)
		fail_msg("%s is %s (%s), and not gone", item.name, outbox_state_word(item.state), item.reason);
}

/* how many messages the server has taken */
__attribute__((unused))
static unsigned taken(const struct world *w)
{
	char text[65536];
	ssize_t n = pread(w->server.record, text, sizeof text, 0);
	unsigned lines = 0;
	for (ssize_t i = 0; i < n; i++)
		lines += text[i] == '\n';
	return lines;
}

__attribute__((unused))
static unsigned files(const struct world *w)
{
	char *path = mf_format("%s/outbox", w->folder);
	DIR *dir = opendir(path);
	unsigned n = 0;
	for (struct dirent *d; (d = readdir(dir));)
		n += d->d_name[0] != '.' && !strstr(d->d_name, ".size") && !strstr(d->d_name, ".number");
	closedir(dir);
	free(path);
	return n;
}

#define SIMPLE "To: bob@example.com\nBcc: carol@example.com\nSubject: hi\n\nHello\n"

#endif

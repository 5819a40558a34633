/* fs/outgoing.c: files of outbox/ between being written and being queued: nothing is lost, nothing is there twice. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "fs/outgoing.h"
#include "support/smtp_server.h"

struct world {
	char folder[64];
	struct smtp_server server;
	bool closing;                /* of the one who writes */
	bool meets_sending, all_refused;   /* meanwhile(): a message was being sent, and stayed what it was */
	struct account_config *config;
	struct outbox *outbox;
	struct outgoing *o;
};

static void meanwhile(void *context, uint64_t id);

/* As after a kill: nothing is told to whoever has a file open */
static void reopen(struct world *w)
{
	struct outbox_options options = { .config = w->config, .state_dir = w->folder, .offline = true,
		.connect = server_connect, .connect_context = &w->server };
	struct mf_reason why = { "" };
	outgoing_close(w->o);
	outbox_close(w->outbox);
	w->closing = false;
	assert_int_equal(outbox_open(&options, &w->outbox, &why), MF_OK);
	outbox_subscribe(w->outbox, meanwhile, w);
	assert_int_equal(outgoing_open(w->outbox, w->folder, &w->o, &why), MF_OK);
}

static int begin(void **state)
{
	struct world *w = MF_NEW(struct world);
	strcpy(w->folder, "/tmp/test_outgoing.XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->config = account_config_create("work");
	w->config->from = mf_strdup("Alice <alice@example.org>");
	w->config->send_delay_ms = 60000;
	w->server.record = memfd_create("record", MFD_CLOEXEC);
	reopen(w);
	*state = w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;
	outgoing_close(w->o);
	outbox_close(w->outbox);
	server_join(&w->server);
	close(w->server.record);
	account_config_destroy(w->config);
	MF_CLEANUP(mf_free) char *command = mf_format("rm -rf '%s'", w->folder);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

#define LETTER(subject) "To: bob@example.org\nSubject: " subject "\n\ntext\n"

static enum mf_err save(struct world *w, const char *name, const char *text)
{
	struct outgoing_info info;
	uint64_t number;
	int fd = -1;
	enum mf_err err = outgoing_find(w->o, false, name, &info);
	number = info.number;
	err = err == MF_OK ? outgoing_open_file(w->o, number, true, true, &fd) : outgoing_create(w->o, name, &number);
	if (err != MF_OK)
		return err;
	assert_int_equal(outgoing_write(w->o, number, &w->closing, text, strlen(text), 0), MF_OK);
	err = outgoing_flush(w->o, number, &w->closing);
	outgoing_close_file(w->o, number, true, &w->closing);
	return err;
}

static uint64_t number_of(struct world *w, bool failed, const char *name)
{
	struct outgoing_info info;
	return outgoing_find(w->o, failed, name, &info) == MF_OK ? info.number : 0;
}

static bool add_name(void *context, const char *name, const struct outgoing_info *info)
{
	(void)info;
	strcat(context, *(char *)context ? " " : "");
	strcat(context, name);
	return true;
}

static void expect(struct world *w, const char *names, const char *failed, size_t queued)
{
	char list[2048] = "", failures[2048] = "";
	struct outbox_counts c;
	outgoing_visit(w->o, false, 0, add_name, list);
	outgoing_visit(w->o, true, 0, add_name, failures);
	outbox_counts(w->outbox, &c);
	assert_string_equal(list, names);
	assert_string_equal(failures, failed);
	assert_int_equal(c.waiting + c.queued, queued);
}

static void expect_bytes(struct world *w, const char *name, const char *text)
{
	char bytes[4096] = "";
	int fd = -1;
	uint64_t number = number_of(w, false, name);
	assert_int_equal(outgoing_open_file(w->o, number, false, false, &fd), MF_OK);
	size_t n = 0;
	assert_int_equal(fd < 0 ? outgoing_read(w->o, number, 0, bytes, sizeof bytes - 1, &n) : file_read(fd, 0, bytes, sizeof bytes - 1, &n), MF_OK);
	assert_int_equal(n, strlen(text));
	assert_string_equal(bytes, text);
	outgoing_close_file(w->o, number, false, &(bool){ false });
	mf_close(&fd);
}

static void test_saving(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "x.eml", LETTER("one")), MF_OK);
	uint64_t number = number_of(w, false, "x.eml");
	expect(w, "x.eml", "", 1);
	assert_int_equal(save(w, "x.eml", LETTER("two")), MF_OK);
	assert_true(number_of(w, false, "x.eml") == number);
	expect(w, "x.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("two"));
	reopen(w);
	expect(w, "x.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("two"));
	assert_int_equal(outgoing_create(w->o, "x.eml", &number), MF_EXISTS);
	assert_int_equal(outgoing_remove(w->o, false, "x.eml"), MF_OK);
	assert_int_equal(outgoing_remove(w->o, false, "x.eml"), MF_NOT_FOUND);
	expect(w, "", "", 0);
}

static void test_several_writers(void **state)
{
	struct world *w = *state;
	uint64_t number;
	int fd;
	assert_int_equal(outgoing_create(w->o, "x", &number), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);      /* a shell's, before anything is written */
	expect(w, "x", "", 0);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "Subject: x\n", 11, 0), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_INVALID);
	expect(w, "x", "", 0);                                      /* not in failed/: somebody writes on */
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "To: bob@x.org\n\n", 15, 11), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	expect(w, "x", "", 1);
	MF_CLEANUP(mf_free) char *said = outgoing_state(w->o, number);
	assert_non_null(strstr(said, "while it is open for writing"));
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "text\n", 5, 26), MF_OK);
	expect(w, "x", "", 0);
	assert_int_equal(outgoing_open_file(w->o, number, false, false, &fd), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x", "", 1);
	outgoing_close_file(w->o, number, false, &(bool){ false });
	expect_bytes(w, "x", "Subject: x\nTo: bob@x.org\n\ntext\n");
	MF_CLEANUP(mf_free) char *later = outgoing_state(w->o, number);
	assert_null(strstr(later, "while"));
}

/* Its name was taken meanwhile, another way: it keeps its ending, and the stem ends with a character */
static void test_long_name_taken(void **state)
{
	struct world *w = *state;
	char name[300] = "", twin[300] = "", both[600];
	for (int i = 0; i < 120; i++)
		strcat(name, "\u00fc");
	strcat(strncpy(twin, name, 214), "-2.eml");
	strcat(name, ".eml");
	uint64_t number, id;
	assert_int_equal(outgoing_create(w->o, name, &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	int message = memfd_create("message", MFD_CLOEXEC);
	assert_int_equal(write(message, LETTER("y"), strlen(LETTER("y"))), (ssize_t)strlen(LETTER("y")));
	lseek(message, 0, SEEK_SET);
	assert_int_equal(outbox_put(w->outbox, message, &(struct outbox_put){ .name = name }, &id, NULL), MF_OK);
	close(message);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	outgoing_close_file(w->o, number, true, &w->closing);
	snprintf(both, sizeof both, "%s %s", twin, name);
	expect(w, both, "", 2);
}

/* What one has closed is not whole while another writes: it is not sent because mailfs was killed in between. */
static void test_two_writers(void **state)
{
	struct world *w = *state;
	uint64_t number;
	bool other = false;
	int fd;
	for (int killed = 1; killed >= 0; killed--) {
		assert_int_equal(outgoing_create(w->o, "x", &number), MF_OK);
		assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK);
		assert_int_equal(outgoing_write(w->o, number, &w->closing, "Subject: x\n", 11, 0), MF_OK);
		assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);   /* no recipient, but that may come */
		assert_int_equal(outgoing_write(w->o, number, &other, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
		assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
		expect(w, "x", "", 0);
		if (killed) {
			reopen(w);
			MF_CLEANUP(mf_free) char *said = outgoing_state(w->o, number_of(w, false, "x"));
			assert_non_null(strstr(said, "unfinished"));
			assert_int_equal(outgoing_remove(w->o, false, "x"), MF_OK);
		}
	}
	assert_int_equal(outgoing_flush(w->o, number, &other), MF_OK);                /* the last, be the first not quite gone */
	expect(w, "x", "", 1);
	outgoing_close_file(w->o, number, true, &w->closing);
	outgoing_close_file(w->o, number, true, &other);
	expect_bytes(w, "x", LETTER("x"));
	assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK);  /* nobody is counted who has gone */
	assert_int_equal(outgoing_flush(w->o, number, &other), MF_OK);
	expect(w, "x", "", 1);
	outgoing_close_file(w->o, number, true, &other);
}

static void test_unfit(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "x.eml", "Subject: nobody\n\n"), MF_INVALID);
	expect(w, "", "x.eml", 0);
	MF_CLEANUP(mf_free) char *text = outgoing_error_text(w->o, number_of(w, true, "x.eml"));
	assert_non_null(strstr(text, "recipient"));
	int fd;
	assert_int_equal(outgoing_open_file(w->o, number_of(w, true, "x.eml"), true, false, &fd), MF_DENIED);
	assert_int_equal(outgoing_rename(w->o, true, "x.eml", "x.eml"), MF_INVALID);
	assert_int_equal(save(w, "x.eml", "Subject: nobody\n\n"), MF_INVALID);
	expect(w, "", "x.eml x-2.eml", 0);
	struct outgoing_info info;
	assert_int_equal(outgoing_remove_text(w->o, "x-2.eml"), MF_OK);
	assert_int_equal(outgoing_find_text(w->o, "x-2.eml", &info), MF_NOT_FOUND);
	assert_int_equal(outgoing_remove(w->o, true, "x-2.eml"), MF_OK);
	assert_int_equal(outgoing_remove(w->o, true, "x.eml"), MF_OK);
	assert_int_equal(outgoing_find(w->o, true, "x.eml", &info), MF_NOT_FOUND);
	assert_int_equal(outgoing_find_text(w->o, "x.eml", &info), MF_OK);
	MF_CLEANUP(mf_free) char *left = outgoing_error_text(w->o, info.number);
	assert_string_equal(left, text);
	expect(w, "", "x.eml", 0);                                  /* what is left of it: the text */
	assert_int_equal(outgoing_remove_text(w->o, "x.eml"), MF_OK);
	assert_int_equal(outgoing_remove_text(w->o, "x.eml"), MF_NOT_FOUND);
	expect(w, "", "", 0);
}

static void test_renaming(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "a.tmp", LETTER("a")), MF_OK);
	expect(w, "a.tmp", "", 0);
	assert_int_equal(outgoing_rename(w->o, false, "a.tmp", "a.eml"), MF_OK);
	expect(w, "a.eml", "", 1);
	assert_int_equal(outgoing_rename(w->o, false, "a.eml", "b.eml"), MF_OK);
	assert_int_equal(save(w, "c.tmp", LETTER("c")), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, "c.tmp", "b.eml"), MF_OK);     /* over one that waits */
	expect(w, "b.eml", "", 1);
	expect_bytes(w, "b.eml", LETTER("c"));
	assert_int_equal(save(w, "d.tmp", "bad\n"), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, "d.tmp", "b.eml"), MF_INVALID);
	expect(w, "b.eml d.tmp", "b.eml", 1);
	expect_bytes(w, "b.eml", LETTER("c"));
	assert_int_equal(outgoing_rename(w->o, false, "b.eml", "b.eml~"), MF_OK);    /* taken back */
	expect(w, "b.eml~ d.tmp", "b.eml", 0);
	assert_int_equal(outgoing_rename(w->o, false, "b.eml~", "d.tmp"), MF_OK);
	expect(w, "d.tmp", "b.eml", 0);
	expect_bytes(w, "d.tmp", LETTER("c"));
	assert_int_equal(outgoing_rename(w->o, false, "none", "x"), MF_NOT_FOUND);
	assert_int_equal(outgoing_rename(w->o, true, "none", "x"), MF_NOT_FOUND);
	reopen(w);
	expect(w, "d.tmp", "b.eml", 0);
	assert_int_equal(outgoing_rename(w->o, false, "d.tmp", "e.eml"), MF_OK);
	expect(w, "e.eml", "b.eml", 1);
}

/* Renamed when its writer has closed, but the last word of that is still on its way */
static void test_renamed_before_the_release(void **state)
{
	struct world *w = *state;
	uint64_t number;
	assert_int_equal(outgoing_create(w->o, "x.tmp", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, "x.tmp", "x.eml"), MF_OK);
	expect(w, "x.eml", "", 1);
	assert_true(number_of(w, false, "x.eml") == number);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "", 1);
	/* and while somebody still writes */
	assert_int_equal(outgoing_create(w->o, "y.tmp", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "To: bob@x.org\n", 14, 0), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, "y.tmp", "y.eml"), MF_OK);
	expect(w, "x.eml y.eml", "", 1);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "\ntext\n", 6, 14), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml y.eml", "", 2);
}

static void test_removed_while_open(void **state)
{
	struct world *w = *state;
	struct outgoing_info info;
	uint64_t number;
	assert_int_equal(outgoing_create(w->o, "x.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	assert_int_equal(outgoing_remove(w->o, false, "x.eml"), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "more\n", 5, 5), MF_OK);
	assert_int_equal(outgoing_look(w->o, number, &info), MF_OK);
	assert_true(info.gone && info.size == strlen(LETTER("x")));
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);
	outgoing_close_file(w->o, number, true, &w->closing);
	assert_int_equal(outgoing_look(w->o, number, &info), MF_STALE);
	expect(w, "", "", 0);
}

/* A crash between the queue and the draft, either way */
static void test_both_at_a_start(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox-drafts/x.eml", w->folder);
	MF_CLEANUP(mf_close) int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "To:", 3), 3);
	reopen(w);
	expect(w, "x.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("x"));
	assert_int_equal(access(path, F_OK), -1);
	uint64_t number;
	assert_int_equal(outgoing_create(w->o, "half.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("h"), strlen(LETTER("h")), 0), MF_OK);
	reopen(w);
	expect(w, "x.eml half.eml", "", 1);
	MF_CLEANUP(mf_free) char *said = outgoing_state(w->o, number_of(w, false, "half.eml"));
	assert_non_null(strstr(said, "unfinished"));
	assert_int_equal(outgoing_truncate(w->o, number_of(w, false, "half.eml"), strlen(LETTER("h"))), MF_OK);
	expect(w, "x.eml half.eml", "", 2);
}

/* A draft of that name that is another text was not on its way into the queue */
static void test_another_of_that_name(void **state)
{
	struct world *w = *state;
	struct outbox_put what = { .name = "x.eml" };
	uint64_t number, id;
	assert_int_equal(outgoing_create(w->o, "x.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("mine"), strlen(LETTER("mine")), 0), MF_OK);
	int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, LETTER("x"), strlen(LETTER("x"))), (ssize_t)strlen(LETTER("x")));
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(outbox_put(w->outbox, fd, &what, &id, NULL), MF_OK);
	close(fd);
	reopen(w);
	expect(w, "x.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("mine"));
}

/* On the thread that sends, when it has begun */
static void meanwhile(void *context, uint64_t id)
{
	struct world *w = context;
	struct outbox_item item;
	if (!id || outbox_item(w->outbox, id, &item) != MF_OK)
		return;
	if (item.state == OUTBOX_SENDING && !strcmp(item.name, "a.eml")) {
		w->meets_sending = true;
		w->all_refused = outgoing_rename(w->o, false, "a.eml", "b.eml") == MF_BUSY &&
		                 outgoing_rename(w->o, false, "a.eml", "a.eml~") == MF_BUSY &&
		                 outgoing_rename(w->o, true, "f.eml", "a.eml") == MF_BUSY && number_of(w, true, "f.eml") && /* and not tried again */
		                 outgoing_remove(w->o, false, "a.eml") == MF_BUSY;
	}
	outbox_item_finish(&item);
}

/* f.eml */
static void have_one_refused(struct world *w)
{
	struct outbox_item item;
	assert_int_equal(save(w, "f.eml", "To: no@example.org\n\n"), MF_OK);
	assert_int_equal(outbox_item_by_name(w->outbox, "f.eml", false, &item), MF_OK);
	assert_int_equal(outbox_retry(w->outbox, item.id, NULL), MF_OK);
	outbox_item_finish(&item);
	outbox_offline(w->outbox, false);
	assert_int_equal(outbox_send_due(w->outbox, NULL), MF_OK);
	expect(w, "", "f.eml", 0);
}

/* What cannot be renamed now replaces nothing */
static void test_renaming_what_is_being_sent(void **state)
{
	struct world *w = *state;
	struct outbox_item item;
	have_one_refused(w);
	assert_int_equal(save(w, "a.eml", LETTER("a")), MF_OK);
	assert_int_equal(save(w, "b.eml", LETTER("b")), MF_OK);
	assert_int_equal(save(w, "a.eml~", LETTER("older")), MF_OK);
	assert_int_equal(outbox_item_by_name(w->outbox, "a.eml", false, &item), MF_OK);
	assert_int_equal(outbox_retry(w->outbox, item.id, NULL), MF_OK);
	outbox_item_finish(&item);
	assert_int_equal(outbox_send_due(w->outbox, NULL), MF_OK);
	assert_true(w->meets_sending && w->all_refused);
	expect(w, "b.eml a.eml~", "f.eml", 1);
	expect_bytes(w, "b.eml", LETTER("b"));
	expect_bytes(w, "a.eml~", LETTER("older"));
}

/* as the last connection has left it */
static uint64_t size_max_behind(struct world *w, const char *text)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox/0000000000000000.size", w->folder);
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	reopen(w);
	return outbox_size_max(w->outbox);
}

static void test_too_big(void **state)
{
	struct world *w = *state;
	uint64_t number;
	assert_int_equal(outbox_size_max(w->outbox), 0);
	assert_int_equal(size_max_behind(w, "1\n"), 0); /* what no server means */
	assert_int_equal(size_max_behind(w, "100000\n"), 100000);
	assert_int_equal(outgoing_create(w->o, "x.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "y", 1, 100000), MF_TOO_BIG);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "z", 1, 10), MF_OK);
	assert_int_equal(outgoing_open_file(w->o, number, false, true, &(int){ -1 }), MF_OK); /* O_RDONLY | O_TRUNC empties nothing */
	outgoing_close_file(w->o, number, false, &(bool){ false });
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_TOO_BIG);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "", "x.eml", 0);
}

/* A server of files closes when it suits it: whole is what is renamed. */
static void test_exported(void **state)
{
	struct world *w = *state;
	uint64_t number;
	int fd;
	assert_int_equal(outgoing_create(w->o, "x.eml", &number), MF_OK);
	outgoing_written_by(w->o, number, true);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, "To: ", 4, 0), MF_OK);
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);      /* not judged */
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "", 0);
	MF_CLEANUP(mf_free) char *said = outgoing_state(w->o, number);
	assert_non_null(strstr(said, "when it is renamed"));
	assert_int_equal(outgoing_rename(w->o, false, "x.eml", "y.eml"), MF_INVALID);
	expect(w, "x.eml", "y.eml", 0);
	assert_true(number_of(w, false, "x.eml") == number && number_of(w, true, "y.eml") != number);
	MF_CLEANUP(mf_free) char *still = outgoing_state(w->o, number);
	assert_string_equal(still, said);
	/* renamed while it is open still: when that one closes */
	assert_int_equal(outgoing_create(w->o, "x.tmp", &number), MF_OK);
	outgoing_written_by(w->o, number, true);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, "x.tmp", "x.eml"), MF_OK);
	expect(w, "x.eml", "y.eml", 0);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "y.eml", 1);
	/* opened for writing as Windows does, and closed as it was: nothing was written */
	assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK);
	outgoing_written_by(w->o, number, true);
	expect(w, "x.eml", "y.eml", 0);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "y.eml", 1);
	/* taken back by one that writes into it, and ended by one that is here */
	assert_int_equal(outgoing_open_file(w->o, number, true, true, &fd), MF_OK);
	outgoing_written_by(w->o, number, true);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("x"), strlen(LETTER("x")), 0), MF_OK);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "y.eml", 0);
	assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK);
	outgoing_written_by(w->o, number, false);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "y.eml", 1);
	outgoing_written_by(w->o, number, true);
	assert_int_equal(outgoing_truncate(w->o, number, strlen(LETTER("x")) - 1), MF_OK);
	expect(w, "x.eml", "y.eml", 0);
}

/* --- what holds beyond a mount ----------------------------------------------------------------------------------------- */

static bool is_known(struct world *w, uint64_t number)
{
	struct outgoing_info info;
	enum mf_err err = outgoing_look(w->o, number, &info);
	assert_true(err == MF_OK || err == MF_STALE);
	return err == MF_OK && info.number == number;
}

static void test_numbers(void **state)
{
	struct world *w = *state;
	static const char *const names[] = { "x.eml", "notes~", " a blank.eml", "unfit.eml" };
	uint64_t numbers[4], number;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	assert_int_equal(save(w, "notes~", "a line"), MF_OK);
	assert_int_equal(outgoing_create(w->o, " a blank.eml", &number), MF_OK);
	assert_int_equal(save(w, "unfit.eml", "no header\n"), MF_INVALID);
	for (size_t i = 0; i < 4; i++)
		numbers[i] = number_of(w, i == 3, names[i]);
	reopen(w);
	for (size_t i = 0; i < 4; i++) {
		assert_true(is_known(w, numbers[i])); /* before anybody has asked for the name */
		assert_true(number_of(w, i == 3, names[i]) == numbers[i]);
	}
	/* from one to the other, and with another name */
	assert_int_equal(outgoing_rename(w->o, false, "x.eml", "x.eml~"), MF_OK);
	reopen(w);
	assert_true(number_of(w, false, "x.eml~") == numbers[0]);
	assert_int_equal(outgoing_rename(w->o, false, "x.eml~", "y.eml"), MF_OK);
	reopen(w);
	assert_true(number_of(w, false, "y.eml") == numbers[0]);
	/* gone, and not given again */
	assert_int_equal(outgoing_remove(w->o, false, "y.eml"), MF_OK);
	assert_int_equal(outgoing_remove(w->o, false, "notes~"), MF_OK);
	for (int i = 0; i < 3; i++) {
		reopen(w);
		assert_false(is_known(w, numbers[0]) || is_known(w, numbers[1]));
		assert_int_equal(save(w, i == 1 ? "y.eml" : "notes~", LETTER("new")), MF_OK);
		number = number_of(w, false, i == 1 ? "y.eml" : "notes~");
		assert_true(i == 2 || number > numbers[3]);
	}
}

/* A note that is older than the file with its name, or cannot be read, says nothing. */
static void test_old_notes(void **state)
{
	struct world *w = *state;
	MF_CLEANUP(mf_free) char *notes = mf_format("%s/outbox-drafts.notes", w->folder), *draft = mf_format("%s/outbox-drafts/a~", w->folder);
	MF_CLEANUP(mf_free) char *other = mf_format("%s/other", w->folder);
	assert_int_equal(save(w, "a~", "a"), MF_OK);
	uint64_t number = number_of(w, false, "a~");
	int fd = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	mf_close(&fd);
	assert_int_equal(rename(other, draft), 0);
	reopen(w);
	uint64_t now = number_of(w, false, "a~");
	assert_true(now && now != number && !is_known(w, number));
	fd = open(notes, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_int_equal(write(fd, "1 2 3 99999999 a~\n", 18), 18);
	mf_close(&fd);
	reopen(w);
	assert_true(number_of(w, false, "a~") != 1 && number_of(w, false, "a~") != number);
	assert_int_equal(unlink(notes), 0);
	reopen(w);
	expect(w, "a~", "", 0);
}

static unsigned notify_of(struct world *w, const char *name)
{
	unsigned notify = 99;
	assert_int_equal(outgoing_notify(w->o, number_of(w, false, name), &notify), MF_OK);
	return notify;
}

/* Of what the sender is to be told: in later mounts, and when an editor puts a new file into its place */
static void test_notify(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	assert_int_equal(save(w, "d.tmp", LETTER("d")), MF_OK);
	assert_int_equal(outgoing_set_notify(w->o, number_of(w, false, "x.eml"), 2), MF_OK);
	assert_int_equal(outgoing_set_notify(w->o, number_of(w, false, "d.tmp"), 4), MF_OK);
	reopen(w);
	assert_true(notify_of(w, "x.eml") == 2 && notify_of(w, "d.tmp") == 4);
	assert_int_equal(save(w, "x.eml", LETTER("again")), MF_OK);          /* opened, and written anew */
	assert_int_equal(notify_of(w, "x.eml"), 2);
	assert_int_equal(save(w, ".x.eml.tmp", LETTER("once more")), MF_OK); /* a new file, renamed into place */
	assert_int_equal(outgoing_rename(w->o, false, ".x.eml.tmp", "x.eml"), MF_OK);
	assert_int_equal(notify_of(w, "x.eml"), 2);
	assert_int_equal(outgoing_rename(w->o, false, "x.eml", "x.eml~"), MF_OK);
	assert_int_equal(notify_of(w, "x.eml~"), 2);
	assert_int_equal(outgoing_rename(w->o, false, "d.tmp", "d.eml"), MF_OK);
	assert_int_equal(notify_of(w, "d.eml"), 4);
	/* what a field says is not said for the file: with another text it is over */
	assert_int_equal(save(w, "f.eml", "X-DSN-Notify: never\n" LETTER("f")), MF_OK);
	assert_int_equal(notify_of(w, "f.eml"), 1);
	assert_int_equal(save(w, ".f.tmp", LETTER("f")), MF_OK);
	assert_int_equal(outgoing_rename(w->o, false, ".f.tmp", "f.eml"), MF_OK);
	assert_int_equal(notify_of(w, "f.eml"), 0);
	assert_int_equal(save(w, "f.eml", "X-DSN-Notify: never\n" LETTER("f")), MF_OK);
	reopen(w);
	assert_int_equal(save(w, "f.eml", LETTER("f")), MF_OK);
	assert_int_equal(notify_of(w, "f.eml"), 0);
}

static atomic_uint synced, noted;    /* how often the folder of drafts was; the notes of drafts */
static atomic_uint die_at, fail_at;  /* at which fsync from now on; 0: at none */

int fsync(int fd)                    /* in the place of libc's: for the tests behind it */
{
	if (die_at && !--die_at)
		raise(SIGKILL);
	if (fail_at && !--fail_at) {
		errno = EIO;
		return -1;
	}
	char link[64], path[256] = "";
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	const char *name = readlink(link, path, sizeof path - 1) > 0 ? strrchr(path, '/') : NULL;
	synced += name && strcmp(name, "/outbox-drafts") == 0;
	noted += name && strcmp(name, "/outbox-drafts.notes-new") == 0;
	return (int)syscall(SYS_fsync, fd);
}

static atomic_bool no_room;

int renameat(int from_dir, const char *from, int to_dir, const char *to)   /* likewise: no room for a name */
{
	if (no_room) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

/* What is half written takes the place of what waits, or leaves it there. */
static void test_no_room_for_a_name(void **state)
{
	struct world *w = *state;
	uint64_t number;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	assert_int_equal(outgoing_create(w->o, "y.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("y"), strlen(LETTER("y")), 0), MF_OK);
	no_room = true;
	assert_int_equal(outgoing_rename(w->o, false, "y.eml", "x.eml"), MF_NO_SPACE);
	no_room = false;
	expect(w, "x.eml y.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("x"));
	assert_int_equal(outgoing_rename(w->o, false, "y.eml", "x.eml"), MF_OK);
	expect(w, "x.eml", "", 0);
	outgoing_close_file(w->o, number, true, &w->closing);
	expect(w, "x.eml", "", 1);
	expect_bytes(w, "x.eml", LETTER("y"));
}

/* What was taken back and removed, or sent, is not back after a power failure. */
static void test_gone_is_gone(void **state)
{
	struct world *w = *state;
	uint64_t number;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	int fd = -1;
	number = number_of(w, false, "x.eml");
	assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK); /* taken back, */
	synced = 0;
	assert_int_equal(outgoing_remove(w->o, false, "x.eml"), MF_OK);              /* and removed */
	assert_int_equal(synced, 1);
	outgoing_close_file(w->o, number, true, &(bool){ false });
	assert_int_equal(outgoing_create(w->o, "y.eml", &number), MF_OK);
	assert_int_equal(outgoing_write(w->o, number, &w->closing, LETTER("y"), strlen(LETTER("y")), 0), MF_OK);
	synced = 0;
	assert_int_equal(outgoing_flush(w->o, number, &w->closing), MF_OK);          /* into the queue */
	assert_true(synced > 0);
	outgoing_close_file(w->o, number, true, &w->closing);
	assert_int_equal(save(w, ".y.eml.swp", "x"), MF_OK);
	synced = 0;
	assert_int_equal(outgoing_remove(w->o, false, ".y.eml.swp"), MF_OK);         /* never sent: that can wait */
	assert_int_equal(synced, 0);
}

/* What was said for a message is noted for its draft before the queue forgets it; what can be lost costs nothing. */
static void test_noted_for_good(void **state)
{
	struct world *w = *state;
	int fd = -1;
	noted = 0;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	assert_int_equal(noted, 0);
	uint64_t number = number_of(w, false, "x.eml");
	assert_int_equal(outgoing_set_notify(w->o, number, 2), MF_OK);
	assert_int_equal(outgoing_open_file(w->o, number, true, false, &fd), MF_OK);
	assert_int_equal(noted, 1);
	outgoing_close_file(w->o, number, true, &w->closing);
}

enum change { TAKE_BACK, TAKE_BACK_AND_CLOSE, RENAME };

/* In a process of its own, which ends at that fsync. True: it came to its end before. */
static bool change_until(struct world *w, unsigned at, enum change change)
{
	int status, fd;
	pid_t pid = fork();
	if (pid == 0) {
		uint64_t number = number_of(w, false, "x.eml");
		die_at = at;
		enum mf_err err = change == RENAME ? outgoing_rename(w->o, false, "x.eml~", "x.eml") : outgoing_open_file(w->o, number, true, false, &fd);
		if (change == TAKE_BACK_AND_CLOSE)
			outgoing_close_file(w->o, number, true, &w->closing);
		_exit(err == MF_OK ? 0 : 8);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	return WIFEXITED(status);
}

/* Whenever it is killed, the file is there once, with its number and what was said for it. */
static void killed_between(void **state, enum change change)
{
	const char *first = change == RENAME ? "x.eml~" : "x.eml";
	bool ended = false;
	for (unsigned at = 1; !ended; at++) {
		assert_true(at < 100);
		assert_int_equal(begin(state), 0);
		struct world *w = *state;
		assert_int_equal(save(w, first, LETTER("x")), MF_OK);
		uint64_t number = number_of(w, false, first);
		assert_int_equal(outgoing_set_notify(w->o, number, 2), MF_OK);
		ended = change_until(w, at, change);
		MF_CLEANUP(mf_free) char *draft = mf_format("%s/outbox-drafts/%s", w->folder, first);
		bool there = access(draft, F_OK) == 0;
		synced = 0;
		reopen(w);
		struct outbox_item item;
		bool queued = outbox_item_by_name(w->outbox, "x.eml", false, &item) == MF_OK;
		if (queued)
			outbox_item_finish(&item);
		assert_true(!queued || !there || synced); /* nor does a power failure bring it back */
		const char *name = queued ? "x.eml" : first;
		expect(w, name, "", queued);
		assert_true(number_of(w, false, name) == number);
		assert_int_equal(notify_of(w, name), 2);
		assert_int_equal(end(state), 0);
	}
}

/* Under the name there is always the one or the other, whenever it is killed, and one of them alone is sent. */
static void test_killed_while_replacing(void **state)
{
	bool ended = false;
	for (unsigned at = 1; !ended; at++) {
		assert_true(at < 100);
		assert_int_equal(begin(state), 0);
		struct world *w = *state;
		assert_int_equal(save(w, "x.eml", LETTER("old")), MF_OK);
		assert_int_equal(save(w, "x.eml~", LETTER("new")), MF_OK);
		ended = change_until(w, at, RENAME);
		reopen(w);
		bool draft = number_of(w, false, "x.eml~") != 0;
		expect(w, draft ? "x.eml x.eml~" : "x.eml", "", 1);
		expect_bytes(w, "x.eml", draft ? LETTER("old") : LETTER("new"));
		assert_int_equal(end(state), 0);
	}
}

static void test_killed_between(void **state)
{
	killed_between(state, TAKE_BACK);
	killed_between(state, TAKE_BACK_AND_CLOSE);
	killed_between(state, RENAME);
}

/* mv out of failed/ is done, or it failed and nothing has changed: it is not sent under its old name. */
static void test_tried_again_in_vain(void **state)
{
	bool done = false;
	for (unsigned at = 1; !done; at++) {
		assert_true(at < 100);
		assert_int_equal(begin(state), 0);
		struct world *w = *state;
		have_one_refused(w);
		outbox_offline(w->outbox, true);
		assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
		fail_at = at;
		enum mf_err err = outgoing_rename(w->o, true, "f.eml", "x.eml");
		done = fail_at != 0;
		fail_at = 0;
		assert_true(err == MF_OK || err == MF_IO);
		for (int life = 0; life < 2; life++, reopen(w)) {
			expect(w, "x.eml", err == MF_OK ? "" : "f.eml", 1);
			expect_bytes(w, "x.eml", err == MF_OK ? "To: no@example.org\n\n" : LETTER("x"));
		}
		assert_int_equal(end(state), 0);
	}
}

static void test_lock_names(void **state)
{
	(void)state;
	static const struct { const char *lock, *of; } names[] = {
		{ ".x.eml.swp", "x.eml" }, { ".x.eml.swo", "x.eml" }, { ".#x.eml", "x.eml" }, { "#x.eml#", "x.eml" }, { ".~lock.x.eml#", "x.eml" },
		{ ".x.eml.kate-swp", "x.eml" }, { "4913", NULL }, { "x.eml~", NULL }, { ".swp", NULL }, { "##", NULL }, { ".#", NULL }, { "x.eml", NULL },
		{ ".hidden", NULL }, { "", NULL },
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *of = NULL;
		size_t len = 0;
		assert_int_equal(outgoing_lock_names(names[i].lock, &of, &len), names[i].of != NULL);
		if (names[i].of)
			assert_true(len == strlen(names[i].of) && !strncmp(of, names[i].of, len));
	}
}

static void test_locks(void **state)
{
	struct world *w = *state;
	assert_int_equal(save(w, "x.eml", LETTER("x")), MF_OK);
	assert_int_equal(save(w, ".x.eml.swp", "lock"), MF_OK);
	MF_CLEANUP(mf_free) char *held = outgoing_state(w->o, number_of(w, false, "x.eml"));
	assert_non_null(strstr(held, "while .x.eml.swp is there"));
	assert_int_equal(outgoing_remove(w->o, false, ".x.eml.swp"), MF_OK);
	MF_CLEANUP(mf_free) char *freed = outgoing_state(w->o, number_of(w, false, "x.eml"));
	assert_null(strstr(freed, "while"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_saving, begin, end),
		cmocka_unit_test_setup_teardown(test_long_name_taken, begin, end),
		cmocka_unit_test_setup_teardown(test_several_writers, begin, end),
		cmocka_unit_test_setup_teardown(test_two_writers, begin, end),
		cmocka_unit_test_setup_teardown(test_unfit, begin, end),
		cmocka_unit_test_setup_teardown(test_renaming, begin, end),
		cmocka_unit_test_setup_teardown(test_renamed_before_the_release, begin, end),
		cmocka_unit_test_setup_teardown(test_removed_while_open, begin, end),
		cmocka_unit_test_setup_teardown(test_both_at_a_start, begin, end),
		cmocka_unit_test_setup_teardown(test_another_of_that_name, begin, end),
		cmocka_unit_test_setup_teardown(test_renaming_what_is_being_sent, begin, end),
		cmocka_unit_test_setup_teardown(test_too_big, begin, end),
		cmocka_unit_test_setup_teardown(test_exported, begin, end),
		cmocka_unit_test_setup_teardown(test_numbers, begin, end),
		cmocka_unit_test_setup_teardown(test_old_notes, begin, end),
		cmocka_unit_test_setup_teardown(test_notify, begin, end),
		cmocka_unit_test_setup_teardown(test_gone_is_gone, begin, end),
		cmocka_unit_test_setup_teardown(test_noted_for_good, begin, end),
		cmocka_unit_test_setup_teardown(test_no_room_for_a_name, begin, end),
		cmocka_unit_test(test_killed_between), cmocka_unit_test(test_killed_while_replacing),
		cmocka_unit_test(test_tried_again_in_vain),
		cmocka_unit_test(test_lock_names),
		cmocka_unit_test_setup_teardown(test_locks, begin, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

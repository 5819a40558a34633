/* smtp/handover.c: what a command asks for arrives as it was asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "smtp/handover.h"

struct world {
	char folder[64];
	struct account_config *config;
	struct outbox *outbox;
};

static void begin(struct world *w)
{
	struct mf_reason why = { "" };
	snprintf(w->folder, sizeof w->folder, "/tmp/test_spool.XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	w->config = account_config_create("work");
	w->config->from = mf_strdup("alice@example.org");
	assert_int_equal(outbox_open(&(struct outbox_options){ .config = w->config, .state_dir = w->folder }, &w->outbox, &why), MF_OK);
}

static void end(struct world *w)
{
	struct outbox_item *items;
	size_t count;
	outbox_items(w->outbox, &items, &count);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(outbox_remove(w->outbox, items[i].id), MF_OK);
	outbox_items_free(items, count);
	outbox_close(w->outbox);
	account_config_destroy(w->config);
	MF_CLEANUP(mf_free) char *folder = mf_format("%s/outbox", w->folder), *numbers = mf_format("%s/0000000000000000.number", folder);
	(void)unlink(numbers);
	assert_int_equal(rmdir(folder), 0);     /* nothing else is left behind */
	rmdir(w->folder);
}

static int text_file(const char *text)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void there_and_back(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	char *name = NULL, text[200] = "";
	uint64_t id;
	const char *recipients[] = { "bob@example.com", "\"a b%\" <c@d>", "me", NULL }, *locals[] = { "root", "me", NULL };
	begin(&w);
	struct outbox_put put = { .name = "x.eml", .recipients = recipients, .locals = locals, .sender = "alice@example.org", .from_name = "A\tB", .notify = DSN_FAILURE };
	put.from_name = "A B";
	int fd = text_file("Subject: hi\n\nto: not a line of the head\n");
	assert_int_equal(handover_write(w.folder, &put, fd, &name, NULL), MF_OK);
	close(fd);
	assert_int_equal(handover_put(w.folder, name, false, w.outbox, &id, NULL), MF_OK);
	assert_false(handover_remove(w.folder, name)); /* it was taken in, and so is not there any more */
	assert_int_equal(handover_put(w.folder, name, false, w.outbox, &id, NULL), MF_NOT_FOUND);
	assert_int_equal(outbox_item(w.outbox, id, &item), MF_OK);
	assert_string_equal(item.name, "x.eml");
	assert_string_equal(item.subject, "hi");
	assert_int_equal(item.recipients, 3);
	assert_int_equal(item.state, OUTBOX_WAITING);
	outbox_item_finish(&item);
	assert_int_equal(outbox_open_content(w.outbox, id, &fd), MF_OK);
	assert_true(read(fd, text, sizeof text - 1) > 0);
	assert_string_equal(text, "Subject: hi\n\nto: not a line of the head\n");
	close(fd);
	free(name);
	end(&w);
}

static void what_is_none(void **state)
{
	(void)state;
	struct world w;
	uint64_t id;
	begin(&w);
	static const char *const names[] = { "../spool-x", "x", "spool-/../x", "" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		assert_int_equal(handover_put(w.folder, names[i], false, w.outbox, &id, NULL), MF_INVALID);
	static const char *const texts[] = { "", "mailfs", "mailfs spool 1\n", "mailfs spool 1\nto: x", "mailfs spool 1\nnothing\n\n" };
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		MF_CLEANUP(mf_free) char *path = mf_format("%s/outbox/spool-bad", w.folder);
		FILE *f = fopen(path, "w");
		fputs(texts[i], f);
		fclose(f);
		assert_int_equal(handover_put(w.folder, "spool-bad", false, w.outbox, &id, NULL), MF_INVALID);
		unlink(path);
	}
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(there_and_back), cmocka_unit_test(what_is_none) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

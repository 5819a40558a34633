/* smtp/outbox.c, queue.c and sending.c: what is put is sent once, whatever happens in between. */
#include "unit/outbox_world.h"

/* --- the usual ----------------------------------------------------------------------------------------------------- */

static void sent_after_its_delay(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t id = put(&w, "hi.eml", SIMPLE);
	assert_state(&w, id, OUTBOX_WAITING);
	run(&w);
	assert_int_equal(taken(&w), 0);
	later(11);
	assert_state(&w, id, OUTBOX_QUEUED);
	run(&w);
	assert_gone(&w, id);
	assert_int_equal(taken(&w), 1);
	assert_int_equal(w.copies, 1);
	assert_int_equal(strncmp(w.copied, "Bcc: carol@example.com\r\nTo: bob", 30), 0);
	assert_int_equal(files(&w), 0);
	assert_int_equal(outbox_size_max(w.outbox), 5000000);
	reopen(&w);
	assert_int_equal(outbox_size_max(w.outbox), 5000000);
	assert_int_equal(w.copies, 1);
	assert_true(w.changes >= 3);
	end(&w);
}

static void in_order_on_one_connection(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	for (int i = 0; i < 5; i++) {
		MF_CLEANUP(mf_free) char *text = mf_format("To: a@b\nMessage-ID: <%d@x>\n\n", i);
		(void)put(&w, NULL, text);
	}
	later(11);
	reopen(&w);
	run(&w);
	char text[200] = "";
	assert_true(pread(w.server.record, text, sizeof text - 1, 0) > 0);
	assert_string_equal(text, "<0@x>\n<1@x>\n<2@x>\n<3@x>\n<4@x>\n");
	assert_int_equal(w.server.connections, 1);
	end(&w);
}

static void taken_back(void **state)
{
	(void)state;
	struct world w;
	int fd;
	char text[100] = "";
	begin(&w);
	uint64_t id = put(&w, "hi.eml", SIMPLE);
	assert_int_equal(outbox_open_content(w.outbox, id, &fd), MF_OK);
	assert_int_equal(read(fd, text, sizeof text), (ssize_t)strlen(SIMPLE));
	assert_string_equal(text, SIMPLE);
	close(fd);
	assert_int_equal(outbox_take_back(w.outbox, id, &fd), MF_OK);
	assert_int_equal(pread(fd, text, sizeof text, 0), (ssize_t)strlen(SIMPLE));
	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
	assert_int_equal(outbox_take_back(w.outbox, id, NULL), MF_NOT_FOUND);
	later(11);
	run(&w);
	assert_int_equal(taken(&w), 0);
	assert_int_equal(files(&w), 0);
	end(&w);
}

static void names(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	struct mf_reason why;
	uint64_t other;
	begin(&w);
	uint64_t id = put(&w, "a.eml", "To: no@b\n\n");
	assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ .name = "a.eml" }, &other, &why), MF_EXISTS);
	assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ .name = "a/b" }, &other, &why), MF_INVALID);
	uint64_t b = put(&w, "b.eml", "To: no@b\n\n");
	assert_int_equal(outbox_rename(w.outbox, b, "a.eml", false), MF_EXISTS);
	assert_int_equal(outbox_rename(w.outbox, b, "c.eml", false), MF_OK);
	assert_int_equal(outbox_rename(w.outbox, b, "..", false), MF_INVALID);
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_FAILED);
	id = put(&w, "a.eml", "To: no@b\n\n");
	later(11);
	run(&w);
	assert_int_equal(outbox_item_by_name(w.outbox, "a-2.eml", true, &item), MF_OK);
	assert_int_equal(item.id, id);
	outbox_item_finish(&item);
	assert_int_equal(outbox_item_by_name(w.outbox, "a-2.eml", false, &item), MF_NOT_FOUND);
	reopen(&w);
	assert_int_equal(outbox_item_by_name(w.outbox, "c.eml", true, &item), MF_OK);
	outbox_item_finish(&item);
	end(&w);
}

/* Each has its error text beside it, under a name of its own */
static void names_of_failed(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	char longest[256] = "";
	begin(&w);
	memset(longest, 'y', 251);
	memcpy(longest + 251, ".eml", 5);
	const char *const names[] = { "x", "x.error.txt", longest };
	uint64_t ids[3];
	for (size_t i = 0; i < 3; i++)
		ids[i] = put(&w, names[i], "To: no@b\n\n");
	later(11);
	run(&w);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(outbox_item(w.outbox, ids[i], &item), MF_OK);
		assert_int_equal(item.state, OUTBOX_FAILED);
		assert_true(strlen(item.name) + strlen(OUTBOX_ERROR_SUFFIX) <= 255 && strcmp(item.name, "x.error.txt") != 0);
		outbox_item_finish(&item);
	}
	end(&w);
}

/* Nobody is told that something was done that the disk does not know of */
static void not_written(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	begin(&w);
	uint64_t id = put(&w, "a.eml", SIMPLE);
	MF_CLEANUP(mf_free) char *file = mf_format("%s/outbox/%016llx.state", w.folder, (unsigned long long)id);
	MF_CLEANUP(mf_free) char *aside = mf_format("%s/state", w.folder);
	MF_CLEANUP(mf_free) char *new = mf_format("%s-new", file);
	assert_int_equal(rename(file, aside), 0);
	assert_int_equal(mkdir(file, 0700), 0);          /* cannot be unlinked */
	assert_int_not_equal(outbox_remove(w.outbox, id), MF_OK);
	assert_int_not_equal(outbox_take_back(w.outbox, id, NULL), MF_OK);
	assert_state(&w, id, OUTBOX_WAITING);
	assert_int_equal(rmdir(file), 0);
	assert_int_equal(rename(aside, file), 0);
	assert_int_equal(mkdir(new, 0700), 0);           /* cannot be replaced */
	assert_int_not_equal(outbox_rename(w.outbox, id, "b.eml", false), MF_OK);
	assert_int_equal(outbox_item_by_name(w.outbox, "a.eml", false, &item), MF_OK);
	outbox_item_finish(&item);
	assert_int_equal(rmdir(new), 0);
	assert_false(outbox_was_removed(w.outbox, id));
	assert_int_equal(outbox_remove(w.outbox, id), MF_OK);
	assert_true(outbox_was_removed(w.outbox, id));
	assert_int_equal(files(&w), 0);
	end(&w);
}

static void move_file(const struct world *w, uint64_t id, const char *suffix, bool back)
{
	MF_CLEANUP(mf_free) char *file = mf_format("%s/outbox/%016llx.%s", w->folder, (unsigned long long)id, suffix);
	MF_CLEANUP(mf_free) char *aside = mf_format("%s/aside.%s", w->folder, suffix);
	assert_int_equal(back ? rename(aside, file) : link(file, aside), 0);
}

/* The older takes the place of the newer; what was there goes when that is sure, also over a crash. */
static void renamed_over_another(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	begin(&w);
	uint64_t a = put(&w, "a.eml", SIMPLE), b = put(&w, "b.eml", SIMPLE);
	MF_CLEANUP(mf_free) char *new = mf_format("%s/outbox/%016llx.state-new", w.folder, (unsigned long long)a);
	assert_int_equal(mkdir(new, 0700), 0); /* cannot be written */
	assert_int_not_equal(outbox_rename(w.outbox, a, "b.eml", true), MF_OK);
	assert_state(&w, a, OUTBOX_WAITING);
	assert_state(&w, b, OUTBOX_WAITING);
	assert_int_equal(rmdir(new), 0);
	for (int i = 0; i < 3; i++)
		move_file(&w, b, (const char *const[]){ "state", "orig", "eml" }[i], false);
	assert_int_equal(outbox_rename(w.outbox, a, "b.eml", true), MF_OK);
	assert_gone(&w, b);
	assert_true(outbox_was_removed(w.outbox, b));
	for (int i = 0; i < 3; i++)
		move_file(&w, b, (const char *const[]){ "state", "orig", "eml" }[i], true);
	reopen(&w);
	assert_gone(&w, b);
	assert_int_equal(outbox_item_by_name(w.outbox, "b.eml", false, &item), MF_OK);
	assert_int_equal(item.id, a);
	outbox_item_finish(&item);
	later(11);
	run(&w);
	assert_int_equal(taken(&w), 1);
	end(&w);
}

static void held(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t id = put(&w, "a.eml", SIMPLE), other = put(&w, "b.eml", SIMPLE);
	outbox_hold(w.outbox, id, true, false);
	later(11);
	run(&w);
	assert_gone(&w, other);
	assert_state(&w, id, OUTBOX_QUEUED);
	outbox_hold(w.outbox, id, false, true);         /* it may be held again at once */
	run(&w);
	assert_state(&w, id, OUTBOX_WAITING);
	outbox_hold(w.outbox, id, true, false);
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_QUEUED);
	outbox_hold(w.outbox, id, false, false);
	run(&w);
	assert_gone(&w, id);
	end(&w);
}

/* --- what the server says ------------------------------------------------------------------------------------------ */

static void put_off_and_given_up(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item item;
	begin(&w);
	uint64_t id = put(&w, "later.eml", "To: later@b\n\n"), other = put(&w, "now.eml", SIMPLE);
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	assert_gone(&w, other);
	static const int64_t minutes[] = { 5, 10, 20, 40, 80, 160, 240, 240 };
	for (size_t i = 0; i < sizeof minutes / sizeof *minutes; i++) {
		unsigned before = w.server.rcpts;
		later(minutes[i] * 60 - 2);
		run(&w);
		assert_int_equal(w.server.rcpts, before);
		later(3);
		run(&w);
		assert_int_equal(w.server.rcpts, before + 1);
	}
	reopen(&w);
	assert_int_equal(outbox_item(w.outbox, id, &item), MF_OK);
	assert_non_null(strstr(item.reason, "451 4.7.1 greylisted"));
	assert_int_equal(item.attempts, 9);
	outbox_item_finish(&item);
	for (int i = 0; i < 31; i++) {
		later(4 * 3600);
		run(&w);
	}
	assert_state(&w, id, OUTBOX_FAILED);
	MF_CLEANUP(mf_free) char *text = outbox_error_text(w.outbox, id);
	assert_non_null(strstr(text, "five days"));
	w.server.accept_later = true;
	assert_int_equal(outbox_retry(w.outbox, id, NULL), MF_OK);
	run(&w);
	assert_gone(&w, id);
	end(&w);
}

static void refused(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	uint64_t id = put(&w, "spam.eml", "To: a@b\nX-Dot: 554 5.7.1 spam\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_FAILED);
	reopen(&w);
	assert_state(&w, id, OUTBOX_FAILED);
	MF_CLEANUP(mf_free) char *text = outbox_error_text(w.outbox, id);
	assert_non_null(strstr(text, "a@b: refused: 554 5.7.1 spam"));
	assert_int_equal(w.copies, 0);
	assert_int_equal(outbox_take_back(w.outbox, id, NULL), MF_DENIED);
	assert_int_equal(outbox_remove(w.outbox, id), MF_OK);
	assert_int_equal(files(&w), 0);
	end(&w);
}

static void refused_in_part(void **state)
{
	(void)state;
	struct world w;
	struct outbox_counts counts;
	begin(&w);
	uint64_t id = put(&w, "some.eml", "To: a@b, no@b, later@b\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	assert_int_equal(w.copies, 1);
	w.server.accept_later = true;
	later(301);
	reopen(&w);
	unsigned before = w.server.rcpts;
	run(&w);
	assert_int_equal(w.server.rcpts, before + 1);  /* only the one who had not got it */
	assert_state(&w, id, OUTBOX_FAILED);
	assert_int_equal(w.copies, 1);
	MF_CLEANUP(mf_free) char *text = outbox_error_text(w.outbox, id);
	assert_non_null(strstr(text, "no@b: refused: 550 5.1.1 no such user"));
	assert_non_null(strstr(text, "later@b: sent"));
	outbox_counts(w.outbox, &counts);
	assert_int_equal(counts.failed, 1);
	end(&w);
}

static void recipients_in_portions(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.server.most = 2;
	uint64_t id = put(&w, "many.eml", "To: a@b, c@d, e@f, g@h, i@j\n\n");
	later(11);
	run(&w);
	assert_gone(&w, id);
	assert_int_equal(taken(&w), 3);
	assert_int_equal(w.copies, 1);
	end(&w);
}

static void no_answer_to_the_end(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.server.dot_ms = 1000;
	uint64_t id = put(&w, "a.eml", "To: a@b\nX-Dot: close\n\n"), silent = put(&w, "b.eml", "To: a@b\nX-Dot: silent\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_MAYBE);
	assert_state(&w, silent, OUTBOX_MAYBE);
	later(100000);
	run(&w);
	reopen(&w);
	run(&w);
	assert_int_equal(taken(&w), 2);     /* never again by itself */
	assert_state(&w, id, OUTBOX_MAYBE);
	assert_int_equal(outbox_take_back(w.outbox, id, NULL), MF_DENIED);
	assert_int_equal(outbox_settle_sent(w.outbox, id, false), MF_OK);
	run(&w);
	assert_gone(&w, id);
	assert_int_equal(w.copies, 1);
	assert_int_equal(outbox_retry(w.outbox, silent, NULL), MF_OK);
	run(&w);
	assert_int_equal(taken(&w), 3);
	assert_int_equal(outbox_settle_sent(w.outbox, silent, true), MF_OK);
	assert_gone(&w, silent);
	assert_int_equal(w.copies, 1);
	end(&w);
}

static void never_fit(void **state)
{
	(void)state;
	struct world w;
	uint64_t id = 0;
	struct mf_reason why = { "" };
	begin(&w);
	assert_int_equal(put_as(&w, "Subject: x\n\n", &(struct outbox_put){ .name = "a.eml" }, &id, &why), MF_INVALID);
	assert_int_equal(files(&w), 0);
	assert_int_equal(put_as(&w, "Subject: x\n\n", &(struct outbox_put){ .name = "a.eml", .keep_failed = true }, &id, &why), MF_INVALID);
	assert_state(&w, id, OUTBOX_FAILED);
	reopen(&w);
	assert_state(&w, id, OUTBOX_FAILED);
	assert_int_equal(outbox_retry(w.outbox, id, NULL), MF_DENIED);
	MF_CLEANUP(mf_free) char *text = outbox_error_text(w.outbox, id);
	assert_non_null(strstr(text, "no recipient"));
	int fd;
	assert_int_equal(outbox_open_content(w.outbox, id, &fd), MF_OK);
	close(fd);
	run(&w);
	assert_int_equal(w.server.connections, 0);
	end(&w);
}

/* --- the link ------------------------------------------------------------------------------------------------------ */

static void offline(void **state)
{
	(void)state;
	struct world w;
	struct outbox_link link;
	struct outbox_item item;
	begin(&w);
	w.server.refuse = MF_OFFLINE;
	uint64_t id = put(&w, "a.eml", SIMPLE);
	for (int i = 0; i < 40; i++) {
		later(86400);
		run(&w);
	}
	outbox_link(w.outbox, &link);
	assert_int_equal(link.error, MF_OFFLINE);
	assert_int_equal(outbox_item(w.outbox, id, &item), MF_OK);
	assert_int_equal(item.state, OUTBOX_QUEUED);        /* forty days, and none of its five */
	assert_string_equal(item.reason, "refused by the test");
	outbox_item_finish(&item);
	w.server.refuse = MF_OK;
	run(&w);
	assert_int_equal(taken(&w), 0);    /* not its time yet */
	outbox_wake(w.outbox, false);
	run(&w);
	assert_gone(&w, id);
	outbox_link(w.outbox, &link);
	assert_int_equal(link.error, MF_OK);
	end(&w);
}

/* Three days without the server, then all of it at once */
static void offline_for_days(void **state)
{
	(void)state;
	enum { MESSAGES = 50 };
	struct world w;
	char expected[MESSAGES * 8] = "", text[sizeof expected] = "";
	begin(&w);
	w.server.refuse = MF_OFFLINE;
	for (int i = 0; i < MESSAGES; i++) {
		MF_CLEANUP(mf_free) char *letter = mf_format("To: a@b\nMessage-ID: <%d@x>\n\n", i);
		(void)put(&w, NULL, letter);
		snprintf(expected + strlen(expected), sizeof expected - strlen(expected), "<%d@x>\n", i);
		later(3 * 86400 / MESSAGES);
		run(&w);
		if (i == MESSAGES / 2)
			reopen(&w);
	}
	w.server.refuse = MF_OK;
	outbox_wake(w.outbox, false);
	run(&w);
	run(&w);
	assert_true(pread(w.server.record, text, sizeof text - 1, 0) > 0);
	assert_string_equal(text, expected);
	assert_int_equal(w.server.connections, 1);
	assert_int_equal(w.copies, MESSAGES);
	assert_int_equal(files(&w), 0);
	end(&w);
}

static void password_refused(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.server.refuse = MF_AUTH;
	uint64_t id = put(&w, "a.eml", SIMPLE);
	later(11);
	run(&w);
	w.server.refuse = MF_OK;
	later(1000000);
	outbox_wake(w.outbox, false);
	run(&w);
	assert_state(&w, id, OUTBOX_QUEUED);
	outbox_wake(w.outbox, true);
	run(&w);
	assert_gone(&w, id);
	end(&w);
}

static void policies(void **state)
{
	(void)state;
	for (int policy = SEND_CONNECT; policy <= SEND_MANUAL; policy++) {
		struct world w;
		begin(&w);
		w.config->send = (enum send_policy)policy;
		uint64_t id = put(&w, "a.eml", SIMPLE);
		later(1000);
		run(&w);
		assert_state(&w, id, OUTBOX_QUEUED);
		outbox_connected(w.outbox);
		run(&w);
		if (policy == SEND_MANUAL) {
			assert_state(&w, id, OUTBOX_QUEUED);
			outbox_release(w.outbox);
			run(&w);
		}
		assert_gone(&w, id);
		id = put(&w, "b.eml", SIMPLE);
		outbox_release(w.outbox);           /* delays do not count either */
		run(&w);
		assert_gone(&w, id);
		uint64_t at_once;
		assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ .at_once = true }, &at_once, NULL), MF_OK);
		run(&w);
		assert_gone(&w, at_once);
		end(&w);
	}
}

static void copy_later(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.copy_says = MF_BUSY;
	uint64_t id = put(&w, "a.eml", SIMPLE);
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_UNFILED);
	run(&w);
	assert_int_equal(w.copies, 1);
	assert_true(w.copy_first);
	w.copy_says = MF_OFFLINE;
	reopen(&w);
	assert_state(&w, id, OUTBOX_UNFILED);
	run(&w);
	run(&w);
	assert_int_equal(w.copies, 2);
	assert_false(w.copy_first);
	later(301);
	w.copy_says = MF_OK;
	run(&w);
	assert_int_equal(w.copies, 3);
	assert_gone(&w, id);
	assert_int_equal(taken(&w), 1);
	assert_int_equal(files(&w), 0);
	end(&w);
}

/* Which mailbox is Sent was not known yet: nothing can have been put there. */
static void copy_still_the_first(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.copy_says = MF_OFFLINE;
	uint64_t id = put(&w, "a.eml", SIMPLE);
	later(11);
	run(&w);
	w.copy_first = false;
	outbox_connected(w.outbox);
	run(&w);
	assert_true(w.copies == 2 && w.copy_first);
	later(3600);
	run(&w);
	assert_true(w.copies == 3 && !w.copy_first);
	assert_state(&w, id, OUTBOX_UNFILED);
	end(&w);
}

/* What some have got is filed, and not taken back, while the others have not. */
static void copy_before_all_have_it(void **state)
{
	(void)state;
	struct world w;
	begin(&w);
	w.copy_says = MF_OFFLINE;
	uint64_t id = put(&w, "a.eml", "To: a@b, later@b\n\n");
	later(11);
	run(&w);
	assert_state(&w, id, OUTBOX_RETRYING);
	assert_int_equal(w.copies, 1);
	assert_int_equal(outbox_take_back(w.outbox, id, NULL), MF_BUSY);
	w.copy_says = MF_OK;
	w.server.accept_later = true;
	later(301);
	run(&w);
	assert_gone(&w, id);
	assert_int_equal(w.copies, 2);
	end(&w);
}

static void by_its_thread(void **state)
{
	(void)state;
	struct world w;
	uint64_t id;
	begin(&w);
	w.config->send_delay_ms = 0;
	outbox_start(w.outbox);
	assert_int_equal(put_as(&w, SIMPLE, &(struct outbox_put){ 0 }, &id, NULL), MF_OK);
	struct outbox_item item;
	for (int i = 0; i < 12000 && !outbox_item(w.outbox, id, &item); i++) {
		outbox_item_finish(&item);
		usleep(5000);
	}
	assert_gone(&w, id);
	end(&w);
}

static void damaged_state(void **state)
{
	(void)state;
	struct world w;
	struct outbox_item *items;
	size_t count;
	begin(&w);
	uint64_t id = put(&w, "a.eml", SIMPLE);
	char *path = mf_format("%s/outbox/%016llx.state", w.folder, (unsigned long long)id);
	assert_int_equal(truncate(path, 40), 0);
	free(path);
	reopen(&w);
	outbox_items(w.outbox, &items, &count);
	assert_int_equal(count, 1);
	assert_int_equal(items[0].state, OUTBOX_FAILED);
	assert_int_equal(items[0].size, strlen(SIMPLE));
	outbox_items_free(items, count);
	later(100);
	run(&w);
	assert_int_equal(taken(&w), 0);
	end(&w);
}

/* --- crashes ------------------------------------------------------------------------------------------------------- */

static unsigned die_at;

static void die(unsigned step)
{
	if (step == die_at)
		raise(SIGKILL);
}

/* In a process of its own, which ends at the durable step `at`. True: it came to its end before. */
static bool run_until(struct world *w, unsigned at, bool *ret_put)
{
	int promised[2];
	char byte;
	assert_int_equal(pipe(promised), 0);
	pid_t pid = fork();
	if (pid == 0) {
		die_at = at;
		outbox_step_for_tests = die;
		uint64_t id;
		if (put_as(w, SIMPLE, &(struct outbox_put){ .name = "a.eml", .at_once = true }, &id, NULL))
			_exit(8);
		(void)!write(promised[1], "y", 1);
		run(w);
		server_join(&w->server);
		_exit(0);
	}
	int status;
	close(promised[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	*ret_put = read(promised[0], &byte, 1) == 1;
	close(promised[0]);
	assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	return WIFEXITED(status);
}

static void killed_at_every_step(void **state)
{
	(void)state;
	bool ended = false;
	unsigned maybes = 0, at = 1;
	for (; !ended; at++) {
		struct world w;
		bool promised;
		assert_true(at < 100);
		begin(&w);
		ended = run_until(&w, at, &promised);
		unsigned before = taken(&w);
		reopen(&w);
		later(1000);
		run(&w);
		struct outbox_item *items;
		size_t count;
		outbox_items(w.outbox, &items, &count);
		bool maybe = count == 1 && items[0].state == OUTBOX_MAYBE;
		maybes += maybe;
		unsigned after = taken(&w);
		if (count > (size_t)maybe || after > 1 || (promised && !maybe && after != 1) || (maybe && after != before))
			fail_msg("killed at step %u: %zu in the outbox (%s), sent %u times before and %u after, %s", at, count,
			         count ? outbox_state_word(items[0].state) : "-", before, after, promised ? "promised" : "not promised");
		if (count == 0 && files(&w) != 0)
			fail_msg("killed at step %u: litter", at);
		outbox_items_free(items, count);
		end(&w);
	}
	print_message("%u steps, %u of them between the mark and the result\n", at - 2, maybes);
	assert_true(maybes >= 1 && maybes <= 6);
}

/* In a process of its own: the next attempt, up to the durable step `at`. True: it came to its end before. */
static bool retry_until(struct world *w, unsigned at)
{
	int status;
	pid_t pid = fork();
	if (pid == 0) {
		die_at = at;
		outbox_step_for_tests = die;
		run(w);
		server_join(&w->server);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
	return WIFEXITED(status);
}

/* One has got it, one is refused, one was put off: killed while it is tried again, who has got it gets no second one. */
static void killed_while_retrying(void **state)
{
	(void)state;
	unsigned maybes = 0;
	bool ended = false;
	for (unsigned at = 1; !ended; at++) {
		struct world w;
		assert_true(at < 100);
		begin(&w);
		uint64_t id = put(&w, "some.eml", "To: a@b, no@b, later@b\n\n");
		later(11);
		run(&w);
		assert_state(&w, id, OUTBOX_RETRYING);
		server_join(&w.server);              /* no other thread is there when it forks */
		w.server.accept_later = true;
		later(301);
		ended = retry_until(&w, at);
		unsigned before = taken(&w);
		reopen(&w);
		struct outbox_item item;
		assert_int_equal(outbox_item(w.outbox, id, &item), MF_OK);
		bool maybe = item.state == OUTBOX_MAYBE;
		assert_true(item.sent >= 1 && item.refused == 1);
		outbox_item_finish(&item);
		maybes += maybe;
		later(100000);
		w.server.rcpts = 0;
		run(&w);
		if (taken(&w) != (maybe ? before : 2) || w.server.rcpts > 1)
			fail_msg("killed at step %u: taken %u times, then %u; %u recipients asked for", at, before, taken(&w), (unsigned)w.server.rcpts);
		assert_state(&w, id, maybe ? OUTBOX_MAYBE : OUTBOX_FAILED);
		end(&w);
	}
	assert_true(maybes >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sent_after_its_delay), cmocka_unit_test(in_order_on_one_connection), cmocka_unit_test(taken_back),
		cmocka_unit_test(names), cmocka_unit_test(names_of_failed), cmocka_unit_test(held), cmocka_unit_test(put_off_and_given_up), cmocka_unit_test(refused),
		cmocka_unit_test(not_written), cmocka_unit_test(renamed_over_another),
		cmocka_unit_test(refused_in_part), cmocka_unit_test(recipients_in_portions), cmocka_unit_test(no_answer_to_the_end), cmocka_unit_test(never_fit),
		cmocka_unit_test(offline), cmocka_unit_test(offline_for_days), cmocka_unit_test(password_refused), cmocka_unit_test(policies), cmocka_unit_test(copy_later), cmocka_unit_test(copy_still_the_first),
		cmocka_unit_test(copy_before_all_have_it), cmocka_unit_test(by_its_thread), cmocka_unit_test(damaged_state), cmocka_unit_test(killed_at_every_step),
		cmocka_unit_test(killed_while_retrying),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

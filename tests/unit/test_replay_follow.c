/* replay: another client renames or removes a mailbox that operations wait for */
#include "unit/replay_world.h"

#include "cache/spool.h"

#define ANONYMOUS (FULL & ~(unsigned)REMOTE_OBJECTID) /* what has another name is known by its UIDVALIDITY and its messages */

static void fetch_number(struct world *w, const char *path, int number)
{
	struct body *body;
	assert_int_equal(cache_body_create(w->cache, numbered(w, path, number), 700, &body), MF_OK);
	assert_int_equal(want_bytes(w, body, 0, 700), MF_OK);
	world_until(body_is_whole(body));
	body_unref(body);
}

/* One that was stored from here, so that its EMAILID is not known */
static void build_work(struct world *w, unsigned caps)
{
	build(w, caps);
	create_number(w, "Work", "stored.eml", 60);
	account_journal_changed(w->account);
	assert_settled_as(w, NULL, "stored");
}

/* Everything that can wait for "Work", which has 11, 12, 13 and 60 */
static void change_work(struct world *w)
{
	uint64_t made = 0;
	DO(w, txn_change_flags(t, numbered(w, "Work", 60), FLAG_FLAGGED, 0, NULL, NULL));
	DO(w, txn_change_flags(t, numbered(w, "Work", 12), FLAG_FLAGGED, 0, NULL, NULL));
	copy_number(w, "Work", 12, "INBOX", "copied-from.eml");
	copy_number(w, "INBOX", 2, "Work", "copied-to.eml");
	DO(w, txn_remove(t, numbered(w, "Work", 11), &expunge));
	move_number(w, "Work", 13, "INBOX", "moved-from.eml");
	move_number(w, "INBOX", 1, "Work", "moved-to.eml");
	create_number(w, "Work", "made.eml", 50);
	DO(w, txn_mailbox_create(t, box(w, "Work"), "Inside", &made));
	create_number(w, "Work/Inside", "made.eml", 51);
	DO(w, txn_mailbox_subscribe(t, box(w, "Work"), true));
}

static void assert_changed(struct world *w, const char *name)
{
	static const struct { const char *where; int number; unsigned flags; } wanted[] = {
		{ "", 12, FLAG_SEEN | FLAG_FLAGGED }, { "INBOX", 12, FLAG_SEEN | FLAG_FLAGGED }, { "", 2, 0 }, { "INBOX", 2, 0 }, { "INBOX", 13, 0 },
		{ "", 1, 0 }, { "", 50, 0 }, { "Inside", 51, 0 }, { "", 60, FLAG_FLAGGED },
	};
	char *text = server_text(w);
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		bool inside = strcmp(wanted[i].where, "Inside") == 0;
		const char *where = *wanted[i].where && !inside ? wanted[i].where : name;
		MF_CLEANUP(mf_free) char *line = mf_format("%s%s/Message number %d %u ", where, inside ? "/Inside" : "", wanted[i].number, wanted[i].flags);
		char *at = strstr(text, line);
		if (!at || strstr(at + 1, line))
			fail_msg("\"%s\" is not once in\n%s", line, text);
	}
	assert_null(strstr(text, "Message number 11 "));
	assert_null(strstr(text, "Work/"));
	free(text);
}

struct kept { uint64_t mailbox, message; char *name; };

static struct kept remember(struct world *w, const char *path, int number)
{
	struct message m;
	struct kept k = { box(w, path), numbered(w, path, number), NULL };
	assert_int_equal(cache_message(w->cache, k.message, &m), MF_OK);
	k.name = mf_strdup(m.name);
	message_finish(&m);
	return k;
}

static void assert_kept(struct world *w, struct kept *k, const char *path, int number)
{
	struct kept now = remember(w, path, number);
	assert_int_equal(now.mailbox, k->mailbox);
	assert_int_equal(now.message, k->message);
	assert_string_equal(now.name, k->name);
	free(now.name);
	free(k->name);
}

static void (*const no_more)(struct world *w) = NULL;

static void number_anew(struct world *w)
{
	memory_renumber(w->server, "Job");
}

static void check_renamed(unsigned caps, const char *to, void (*more)(struct world *w))
{
	struct world w;
	build_work(&w, caps);
	go_offline(&w);
	struct kept message = remember(&w, "Work", 12), stored = remember(&w, "Work", 60);
	change_work(&w);
	assert_true(memory_mailbox_rename(w.server, "Work", to));
	if (more)
		more(&w);
	account_connect(w.account);
	assert_settled_as(&w, NULL, to);
	assert_changed(&w, to);
	assert_kept(&w, &message, to, 12);
	assert_kept(&w, &stored, to, 60);
	world_finish(&w);
}

static void renamed(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof all_caps / sizeof *all_caps; i++) {
		check_renamed(all_caps[i], "Job", no_more);
		check_renamed(all_caps[i] & ANONYMOUS, "Job", no_more);
		check_renamed(all_caps[i], "Gone/Job", no_more);
		check_renamed(all_caps[i] & ANONYMOUS, "Old/Job", no_more);
		check_renamed(all_caps[i], "Job", number_anew);
	}
}

/* with what is inside */
static void renamed_with_others_inside(void **state)
{
	(void)state;
	static const unsigned caps[] = { FULL, ANONYMOUS };
	for (size_t i = 0; i < 2; i++) {
		struct world w;
		build(&w, caps[i]);
		go_offline(&w);
		struct kept message = remember(&w, "Old/In", 21);
		uint64_t old = box(&w, "Old");
		DO(&w, txn_change_flags(t, numbered(&w, "Old/In", 21), FLAG_FLAGGED, 0, NULL, NULL));
		create_number(&w, "Old", "made.eml", 50);
		assert_true(memory_mailbox_rename(w.server, "Old", "Older"));
		account_connect(w.account);
		assert_settled_as(&w, NULL, "renamed");
		assert_int_equal(box(&w, "Older"), old);
		assert_kept(&w, &message, "Older/In", 21);
		char *text = server_text(&w);
		assert_non_null(strstr(text, "Older/In/Message number 21 4 "));
		assert_non_null(strstr(text, "Older/Message number 50 "));
		free(text);
		world_finish(&w);
	}
}

/* nobody has told of it: the server says that there is no such mailbox */
static void renamed_while_connected(void **state)
{
	(void)state;
	static const unsigned caps[] = { FULL, ANONYMOUS };
	for (size_t i = 0; i < 2; i++) {
		struct world w;
		build_work(&w, caps[i]);
		world_until(is_quiet(&w));
		assert_true(memory_mailbox_rename(w.server, "Work", "Job"));
		change_work(&w);
		account_journal_changed(w.account);
		assert_settled_as(&w, NULL, "renamed by another");
		assert_changed(&w, "Job");
		world_finish(&w);
	}
}

/* The connection is lost at each answer in turn */
static void renamed_and_cut_anywhere(void **state)
{
	(void)state;
	static const unsigned caps[] = { FULL, ANONYMOUS, ANONYMOUS & ~(unsigned)REMOTE_UIDPLUS };
	char when[60];
	for (size_t c = 0; c < sizeof caps / sizeof *caps; c++) {
		unsigned answers = 1;
		for (unsigned n = 0; n < answers; n += world_stride(answers)) {
			struct world w;
			build_work(&w, caps[c]);
			go_offline(&w);
			change_work(&w);
			assert_true(memory_mailbox_rename(w.server, "Work", "Job"));
			memory_forget_calls(w.server);
			if (n)
				memory_cut_answers(w.server, n - 1);
			account_connect(w.account);
			snprintf(when, sizeof when, "caps %zu, lost at answer %u", c, n);
			assert_settled_as(&w, NULL, when);
			if (!n)
				answers = memory_answers(w.server);
			assert_changed(&w, "Job");
			world_finish(&w);
		}
	}
}

/* It is to have another name here than there: what is done here last is what counts, or is taken back. */
static void renamed_on_both_sides(void **state)
{
	(void)state;
	for (unsigned back = 0; back < 2; back++) {
		struct world w;
		uint64_t left[32] = { 0 };
		build(&w, FULL);
		go_offline(&w);
		uint64_t work = box(&w, "Work");
		DO(&w, txn_mailbox_rename(t, work, box(&w, "Old"), "Here"));
		create_number(&w, "Old/Here", "made.eml", 50);
		assert_true(memory_mailbox_rename(w.server, "Work", "There"));
		memory_refuse_writes(w.server, WRITE_RENAME, MF_DENIED);
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_int_equal(box(&w, "Old/Here"), work);
		memory_refuse_writes(w.server, WRITE_RENAME, MF_OK);
		assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
		assert_int_equal(left[0], 1);
		if (back)
			DO(&w, txn_cancel(t, left[1]));
		else
			retry_all(&w);
		assert_settled_as(&w, NULL, back ? "taken back" : "renamed again");
		assert_int_equal(box(&w, back ? "There" : "Old/Here"), work);
		char *text = server_text(&w);
		assert_non_null(strstr(text, back ? "There/Message number 50" : "Old/Here/Message number 50"));
		free(text);
		world_finish(&w);
	}
}

/* The number is that of another mailbox by accident: nothing is done to its messages. */
static void another_with_the_number(void **state)
{
	(void)state;
	struct world w;
	build(&w, ANONYMOUS);
	go_offline(&w);
	DO(&w, txn_change_flags(t, numbered(&w, "Work", 12), FLAG_FLAGGED, 0, NULL, NULL));
	DO(&w, txn_remove(t, numbered(&w, "Work", 11), &expunge));
	move_number(&w, "Work", 13, "INBOX", "moved.eml");
	pthread_mutex_lock(&w.server->lock);
	uint32_t number = memory_find_locked(w.server, "Work")->uidvalidity;
	memory_mailbox_remove_locked(w.server, "Work");
	memory_mailbox_add_locked(w.server, "Other", 0, USE_NONE);
	memory_find_locked(w.server, "Other")->uidvalidity = number;
	pthread_mutex_unlock(&w.server->lock);
	for (int i = 61; i <= 64; i++)
		deliver(&w, "Other", i, 700);
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_int_equal(count_state(&w, OP_PARKED), 3);
	assert_true(numbered(&w, "INBOX", 13) != 0);
	uint64_t left[32] = { 0 };
	assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
	for (uint64_t i = 1; i <= left[0]; i++)
		DO(&w, txn_cancel(t, left[i]));
	assert_settled_as(&w, NULL, "taken back");
	char *text = server_text(&w);
	for (int i = 61; i <= 64; i++) {
		MF_CLEANUP(mf_free) char *line = mf_format("Other/Message number %d 0 ", i);
		assert_non_null(strstr(text, line));
	}
	free(text);
	world_finish(&w);
}

/* By its id it is another, whatever number it has: nothing goes there, and nothing takes its name */
static void another_with_the_number_and_an_id(void **state)
{
	(void)state;
	struct world w;
	build(&w, FULL);
	go_offline(&w);
	create_number(&w, "Work", "made.eml", 50);
	uint64_t work = box(&w, "Work");
	pthread_mutex_lock(&w.server->lock);
	uint32_t number = memory_find_locked(w.server, "Work")->uidvalidity;
	memory_mailbox_remove_locked(w.server, "Work");
	memory_mailbox_add_locked(w.server, "Other", 0, USE_NONE);
	memory_find_locked(w.server, "Other")->uidvalidity = number;
	pthread_mutex_unlock(&w.server->lock);
	for (int i = 61; i <= 64; i++)
		deliver(&w, "Other", i, 700);
	account_connect(w.account);
	assert_int_equal(want_settled(&w), MF_DENIED);
	assert_true(box(&w, "Other") != work);
	assert_int_equal(box(&w, "Work"), work);
	assert_true(numbered(&w, "Work", 50) != 0);
	char *text = server_text(&w);
	assert_null(strstr(text, "Message number 50 "));
	free(text);
	retry_all(&w);
	assert_settled_as(&w, NULL, "made again");
	assert_true(numbered(&w, "Work", 50) != 0);
	world_finish(&w);
}

/* A mailbox that was emptied and removed here is not read any more: what it is numbered anew for waits for a person, and not for ever */
static void removed_here_and_numbered_anew(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct world w;
		build(&w, FULL);
		if (i)
			deliver(&w, "Gone", 32, 700);
		assert_int_equal(want_verified(&w), MF_OK);
		go_offline(&w);
		move_number(&w, "Gone", 31, "INBOX", "moved.eml");
		if (i)
			move_number(&w, "Gone", 32, "INBOX", "too.eml");
		DO(&w, txn_mailbox_delete(t, box(&w, "Gone")));
		memory_renumber(w.server, "Gone");
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_int_equal(count_state(&w, OP_PARKED), 1 + i);
		char *text = server_text(&w);
		assert_non_null(strstr(text, "Gone/Message number 31 "));
		free(text);
		uint64_t left[32] = { 0 };
		assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
		for (uint64_t k = 1; k <= left[0]; k++) {
			enum mf_err e = CHANGE(&w, txn_cancel(t, left[k]));
			assert_true(e == MF_OK || e == MF_NOT_FOUND);
		}
		account_refresh(w.account);
		assert_int_equal(want_verified(&w), MF_OK);
		assert_settled_as(&w, NULL, "taken back");
		world_finish(&w);
	}
}

/* What was taken out before is not lost with the mailbox: it is stored anew, if its bytes are here; else that is parked. */
static void removed(void **state)
{
	(void)state;
	for (unsigned back = 0; back < 2; back++) {
		struct world w;
		uint64_t left[32] = { 0 };
		build(&w, FULL);
		fetch_number(&w, "Work", 11);
		go_offline(&w);
		move_number(&w, "Work", 11, "INBOX", "here.eml");
		move_number(&w, "Work", 12, "INBOX", "not-here.eml");
		move_number(&w, "Work", 13, "Trash", "thrown-away.eml");
		create_number(&w, "Work", "made.eml", 50);
		memory_mailbox_remove(w.server, "Work");
		account_connect(w.account);
		assert_int_equal(want_settled(&w), MF_DENIED);
		assert_int_equal(count_state(&w, OP_PARKED), 2);
		assert_int_equal(count_state(&w, OP_QUEUED), 1); /* behind the mailbox that is to be made again */
		assert_true(numbered(&w, "INBOX", 12) != 0 && numbered(&w, "Work", 50) != 0);
		assert_int_equal(journal_list(w.cache, 0, retry_each, left), MF_OK);
		for (uint64_t i = 1; back && i <= left[0]; i++)
			DO(&w, txn_cancel(t, left[i]));
		if (!back) {
			DO(&w, txn_cancel(t, left[1]));
			retry_all(&w);
		}
		assert_int_equal(want_settled(&w), MF_OK);
		assert_int_equal(rejected_count(w.cache), back);
		char *text = server_text(&w), *again = strstr(text, "INBOX/Message number 11 ");
		assert_true(again && !strstr(again + strlen("INBOX/M"), "Message number 11 "));
		assert_null(strstr(text, "Message number 12 "));
		assert_null(strstr(text, "Message number 13 "));
		assert_true(back == !strstr(text, "Work/Message number 50 "));
		free(text);
		world_finish(&w);
	}
}

static bool is_there(struct world *w, const char *path)
{
	struct mailbox m;
	bool found = cache_mailbox_by_path(w->cache, path, &m) == MF_OK;
	if (found)
		mailbox_finish(&m);
	return found;
}

/* What LIST seems to lack, because a line of it cannot be read, is kept, and not taken for what is called otherwise now */
static void listed_in_part(void **state)
{
	(void)state;
	struct world w;
	build(&w, ANONYMOUS);
	uint64_t work = box(&w, "Work");
	memory_unreadable(w.server, "Work", true);
	memory_mailbox_remove(w.server, "Gone");
	assert_true(memory_mailbox_rename(w.server, "Old", "New"));
	assert_int_equal(want_sync(&w, false), MF_OK);
	assert_int_equal(box(&w, "Work"), work);
	assert_true(numbered(&w, "Work", 11) != 0);
	assert_true(is_there(&w, "Gone") && is_there(&w, "Old/In") && is_there(&w, "New/In"));
	memory_unreadable(w.server, "Work", false);
	assert_int_equal(want_sync(&w, false), MF_OK);
	assert_int_equal(box(&w, "Work"), work);
	assert_false(is_there(&w, "Gone") || is_there(&w, "Old"));
	assert_settled_as(&w, NULL, "listed in full");
	world_finish(&w);
}

/* What is to be written is cut off before it is done or after; then the next login waits for memory_release(). */
static void lose_the_answer(struct world *w, bool done)
{
	memory_block(w->server, MEMORY_WRITE);
	account_connect(w->account);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
	if (done)
		memory_cut_answers(w->server, 0);
	else
		memory_drop_sessions(w->server);
	memory_login_result(w->server, MF_OFFLINE);
	memory_release(w->server);
	world_until(memory_sessions(w->server) == 0);
	memory_login_result(w->server, MF_OK);
	memory_block(w->server, MEMORY_LOGIN);
	account_connect(w->account);
	assert_true(memory_await_blocked(w->server, PATIENCE_MS));
}

/* A person wants to look into a mailbox before LIST has told how it is called: that waits for LIST. */
static void opened_before_it_is_listed(void **state)
{
	(void)state;
	for (unsigned done = 0; done < 2; done++) {
		struct world w;
		struct waiter opened;
		enum mf_err e;
		build(&w, FULL);
		w.config->sync = SYNC_DEMAND;
		memory_mailbox_add(w.server, "Cold", 0, USE_NONE);
		deliver(&w, "Cold", 41, 700);
		assert_int_equal(want_sync(&w, false), MF_OK);
		uint64_t cold = box(&w, "Cold");
		go_offline(&w);
		DO(&w, txn_mailbox_rename(t, cold, 0, "Job"));
		lose_the_answer(&w, done);
		waiter_init(&opened);
		assert_false(account_want_mailbox(w.account, cold, waiter_done, &opened, &e, &opened.want));
		memory_release(w.server);
		assert_int_equal(waiter_wait(&opened), MF_OK);
		assert_true(numbered(&w, "Job", 41) != 0);
		assert_settled_as(&w, NULL, done ? "renamed" : "not renamed");
		assert_int_equal(box(&w, "Job"), cold);
		world_finish(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(renamed), cmocka_unit_test(renamed_with_others_inside), cmocka_unit_test(renamed_while_connected),
		cmocka_unit_test(renamed_and_cut_anywhere), cmocka_unit_test(renamed_on_both_sides), cmocka_unit_test(another_with_the_number), cmocka_unit_test(another_with_the_number_and_an_id),
		cmocka_unit_test(removed), cmocka_unit_test(opened_before_it_is_listed), cmocka_unit_test(removed_here_and_numbered_anew), cmocka_unit_test(listed_in_part),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

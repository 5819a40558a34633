#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "contract/contract.h"

#define UIDS 256

static const struct contract_server *server;

/* --- a session and what it told ---------------------------------------------------------------------------------------- */

struct fixture {
	struct cancel cancel;
	struct remote *remote;
};

static struct remote *connect_session(struct fixture *f)
{
	struct mf_reason why = {""};
	assert_true(cancel_init(&f->cancel));
	f->remote = server->make(server->context, &f->cancel);
	assert_non_null(f->remote);
	enum mf_err e = remote_login(f->remote, &why);
	if (e != MF_OK)
		print_error("login: %s: %s\n", mf_err_name(e), why.text);
	assert_int_equal(e, MF_OK);
	return f->remote;
}

static void disconnect_session(struct fixture *f)
{
	remote_destroy(f->remote);
	cancel_finish(&f->cancel);
}

struct told {                    /* of one mailbox */
	unsigned opened, closed;
	enum mf_err result;
	struct mailbox_status at_open, at_close;
	uint32_t messages[UIDS], flags[UIDS], present[UIDS], vanished[UIDS];
	size_t message_count, flag_count, present_count, vanished_count;
	bool has_present;
	unsigned last_flags;
	unsigned seen_flags[UIDS];       /* of .flags */
	char seen_keywords[UIDS][32];
	int64_t dates[UIDS];             /* of .messages */
	uint64_t last_size;
	char last_header[4096];
};
struct told_list {
	struct told items[4];
};

static enum mf_err on_opened(void *context, size_t i, const struct mailbox_status *status, bool read_only)
{
	struct told *t = &((struct told_list *)context)->items[i];
	(void)read_only;
	assert_int_equal(t->message_count + t->flag_count + t->closed, 0); /* told first */
	t->opened++;
	t->at_open = *status;
	return MF_OK;
}

static enum mf_err on_message(void *context, size_t i, const struct remote_message *message)
{
	struct told *t = &((struct told_list *)context)->items[i];
	assert_int_equal(t->opened, 1);
	assert_int_equal(t->closed, 0);
	assert_true(message->uid != 0);
	assert_non_null(message->keywords);
	assert_in_range(t->message_count, 0, UIDS - 1);
	t->dates[t->message_count] = message->internal_date;
	t->messages[t->message_count++] = message->uid;
	t->last_size = message->size;
	size_t len = message->header ? message->header_len : 0;
	if (len >= sizeof t->last_header)
		len = sizeof t->last_header - 1;
	if (len)
		memcpy(t->last_header, message->header, len);
	t->last_header[len] = 0;
	return MF_OK;
}

static enum mf_err on_flags(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	struct told *t = &((struct told_list *)context)->items[i];
	(void)modseq;
	assert_non_null(keywords);
	assert_in_range(t->flag_count, 0, UIDS - 1);
	t->seen_flags[t->flag_count] = flags;
	snprintf(t->seen_keywords[t->flag_count], sizeof t->seen_keywords[0], "%s", keywords);
	t->flags[t->flag_count++] = uid;
	t->last_flags = flags;
	return MF_OK;
}

static void collect(uint32_t *uids, size_t *count, const struct uid_ranges *ranges)
{
	uint32_t before = 0;
	for (size_t i = 0; i < ranges->count; i++) {
		assert_true(ranges->items[i].first > before);
		assert_true(ranges->items[i].last >= ranges->items[i].first);
		before = ranges->items[i].last;
		for (uint32_t uid = ranges->items[i].first; uid <= ranges->items[i].last && *count < UIDS; uid++)
			uids[(*count)++] = uid;
	}
}

static enum mf_err on_vanished(void *context, size_t i, const struct uid_ranges *uids)
{
	struct told *t = &((struct told_list *)context)->items[i];
	collect(t->vanished, &t->vanished_count, uids);
	return MF_OK;
}

static enum mf_err on_present(void *context, size_t i, const struct uid_ranges *uids)
{
	struct told *t = &((struct told_list *)context)->items[i];
	t->has_present = true;
	collect(t->present, &t->present_count, uids);
	return MF_OK;
}

static enum mf_err on_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *status)
{
	struct told *t = &((struct told_list *)context)->items[i];
	t->closed++;
	t->result = result;
	if (result == MF_OK)
		t->at_close = *status;
	return MF_OK;
}

static void changes(struct remote *r, const struct mailbox_since *since, size_t count, struct told_list *ret)
{
	memset(ret, 0, sizeof *ret);
	struct change_sink sink = {on_opened, on_message, on_flags, on_vanished, on_present, on_closed, ret};
	assert_int_equal(remote_changes(r, since, count, &sink), MF_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(ret->items[i].closed, 1);
}

static struct told all_of(struct remote *r, const char *raw)
{
	struct told_list list;
	changes(r, &(struct mailbox_since){.raw = raw, .method = CHANGES_ALL}, 1, &list);
	assert_int_equal(list.items[0].result, MF_OK);
	return list.items[0];
}

static struct told since_then(struct remote *r, const char *raw, const struct told *then, enum change_method method, bool with_modseq)
{
	struct told_list list;
	struct mailbox_since since = {.raw = raw, .method = method, .uidvalidity = then->at_close.uidvalidity, .uidnext = then->at_close.uidnext,
	                              .modseq = with_modseq ? then->at_close.modseq : 0};
	if (!since.uidvalidity)
		since.uidvalidity = then->at_open.uidvalidity;
	if (!since.uidnext)
		since.uidnext = then->at_open.uidnext;
	changes(r, &since, 1, &list);
	return list.items[0];
}

static bool has(const uint32_t *uids, size_t count, uint32_t uid)
{
	for (size_t i = 0; i < count; i++) {
		if (uids[i] == uid)
			return true;
	}
	return false;
}

static void sort(uint32_t *uids, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t k = i + 1; k < count; k++) {
			if (uids[k] < uids[i]) {
				uint32_t uid = uids[i];
				uids[i] = uids[k];
				uids[k] = uid;
			}
		}
	}
}

static void deliver(const char *raw, int number)
{
	char text[200];
	int len = snprintf(text, sizeof text, "From: a@example.org\r\nSubject: number %d\r\nMessage-ID: <%d@example.org>\r\n\r\nbody %d\r\n", number, number, number);
	server->deliver(server->context, raw, text, (size_t)len);
}

static void fill(const char *raw, int count)
{
	server->create(server->context, raw);
	for (int i = 1; i <= count; i++)
		deliver(raw, i);
}

/* Tests of what not every back-end can do. */
static bool server_can(unsigned caps)
{
	struct fixture f;
	struct remote *r = connect_session(&f);
	bool can = (remote_caps(r) & caps) == caps;
	disconnect_session(&f);
	return can;
}

/* --- mailboxes ------------------------------------------------------------------------------------------------------------ */

struct seen_mailboxes {
	bool inbox, mailbox, found;
	const char *look_for;            /* whom .found is about; NULL: nobody */
	unsigned count;
	struct mailbox_status status;
	bool has_status;
};

static enum mf_err on_mailbox(void *context, const struct remote_mailbox *m)
{
	struct seen_mailboxes *seen = context;
	seen->count++;
	assert_non_null(m->raw);
	if (seen->look_for && strcmp(m->raw, seen->look_for) == 0)
		seen->found = true;
	if (strcmp(m->raw, "INBOX") == 0)
		seen->inbox = true;
	if (strcmp(m->raw, server->mailbox) == 0) {
		assert_false(seen->mailbox); /* each once */
		seen->mailbox = true;
		seen->has_status = m->flags & MAILBOX_HAS_STATUS;
		seen->status = m->status;
	}
	return MF_OK;
}

static void mailboxes_are_listed(void **state)
{
	(void)state;
	struct fixture f;
	struct seen_mailboxes seen = {0};
	fill(server->mailbox, 3);
	struct remote *r = connect_session(&f);
	assert_int_equal(remote_mailboxes(r, &(struct mailbox_sink){on_mailbox, &seen, NULL}), MF_OK);
	assert_true(seen.inbox);
	assert_true(seen.mailbox);
	if (seen.has_status) {
		assert_int_equal(seen.status.messages, 3);
		assert_true(seen.status.uidvalidity != 0);
		struct told told = all_of(r, server->mailbox);
		assert_int_equal(seen.status.uidvalidity, told.at_open.uidvalidity);
		assert_int_equal(seen.status.uidnext, told.at_open.uidnext);
	}
	disconnect_session(&f);
}

static enum mf_err refuse_mailbox(void *context, const struct remote_mailbox *m)
{
	(void)m;
	++*(unsigned *)context;
	return MF_NO_SPACE;
}

static void a_refusing_sink_stops_the_list(void **state)
{
	(void)state;
	struct fixture f;
	unsigned calls = 0;
	struct remote *r = connect_session(&f);
	assert_int_equal(remote_mailboxes(r, &(struct mailbox_sink){refuse_mailbox, &calls, NULL}), MF_NO_SPACE);
	assert_int_equal(calls, 1);
	disconnect_session(&f);
}

/* --- changes ---------------------------------------------------------------------------------------------------------------- */

static void everything_from_nothing(void **state)
{
	(void)state;
	struct fixture f;
	fill(server->mailbox, 5);
	struct remote *r = connect_session(&f);
	struct told told = all_of(r, server->mailbox);
	assert_int_equal(told.message_count, 5);
	assert_int_equal(told.at_close.messages, 5);
	assert_non_null(strstr(told.last_header, "number "));
	assert_true(told.last_size > 60);
	disconnect_session(&f);
}

static void only_the_newest(void **state)
{
	(void)state;
	struct fixture f;
	struct told_list list;
	fill(server->mailbox, 5);
	struct remote *r = connect_session(&f);
	changes(r, &(struct mailbox_since){.raw = server->mailbox, .method = CHANGES_ALL, .newest = 2}, 1, &list);
	struct told all = all_of(r, server->mailbox);
	assert_int_equal(list.items[0].message_count, 2);
	sort(all.messages, 5);
	assert_true(has(list.items[0].messages, 2, all.messages[3]));
	assert_true(has(list.items[0].messages, 2, all.messages[4]));
	disconnect_session(&f);
}

static void an_empty_mailbox(void **state)
{
	(void)state;
	struct fixture f;
	fill(server->mailbox, 0);
	struct remote *r = connect_session(&f);
	struct told told = all_of(r, server->mailbox);
	assert_int_equal(told.message_count, 0);
	assert_int_equal(told.at_close.messages, 0);
	struct told after = since_then(r, server->mailbox, &told, CHANGES_AUTO, true);
	assert_int_equal(after.message_count, 0);
	disconnect_session(&f);
}

/* one added, one expunged, one flagged; by every method and with as little as with as much knowledge */
static void check_changes(enum change_method method, bool with_modseq)
{
	struct fixture f;
	fill(server->mailbox, 6);
	struct remote *r = connect_session(&f);
	bool flags = remote_caps(r) & REMOTE_FLAGS;
	struct told before = all_of(r, server->mailbox);
	uint32_t gone = before.messages[2], flagged = before.messages[4], kept = before.messages[0];
	server->expunge(server->context, server->mailbox, gone);
	if (flags)
		server->flag(server->context, server->mailbox, flagged);
	deliver(server->mailbox, 7);
	if (method == CHANGES_NEW_ONLY) {
		/* it may rely on what its session has been told; a new one selects the mailbox as it is */
		disconnect_session(&f);
		r = connect_session(&f);
	}
	struct told after = since_then(r, server->mailbox, &before, method, with_modseq);
	assert_int_equal(after.result, MF_OK);
	assert_int_equal(after.message_count, 1);
	assert_false(has(before.messages, before.message_count, after.messages[0]));
	assert_non_null(strstr(after.last_header, "number 7"));
	if (method != CHANGES_NEW_ONLY) {
		assert_true(!flags || has(after.flags, after.flag_count, flagged));
		assert_true(after.has_present || has(after.vanished, after.vanished_count, gone));
		assert_false(has(after.vanished, after.vanished_count, kept));
		if (after.has_present) {
			assert_int_equal(after.present_count, 5);
			assert_false(has(after.present, after.present_count, gone));
			assert_true(has(after.present, after.present_count, kept));
		}
		if (method == CHANGES_VERIFY)
			assert_true(after.has_present && (!flags || after.flag_count >= 5));
		assert_int_equal(after.at_close.messages, 6);
	}
	disconnect_session(&f);
}

static void changes_since(void **state)
{
	(void)state;
	check_changes(CHANGES_AUTO, true);
}

static void changes_since_without_modseq(void **state)
{
	(void)state;
	check_changes(CHANGES_AUTO, false);
}

static void changes_verified(void **state)
{
	(void)state;
	check_changes(CHANGES_VERIFY, true);
}

static void changes_new_only(void **state)
{
	(void)state;
	check_changes(CHANGES_NEW_ONLY, true);
}

static void nothing_new(void **state)
{
	(void)state;
	struct fixture f;
	fill(server->mailbox, 3);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	for (enum change_method method = CHANGES_AUTO; method <= CHANGES_VERIFY; method++) {
		struct told after = since_then(r, server->mailbox, &before, method, true);
		assert_int_equal(after.result, MF_OK);
		assert_int_equal(after.message_count, 0); /* `n:*` names the last message when nothing is new */
		assert_int_equal(after.vanished_count, 0);
	}
	disconnect_session(&f);
}

static void flags_arrive_as_bits(void **state)
{
	(void)state;
	struct fixture f;
	fill(server->mailbox, 1);
	struct remote *r = connect_session(&f);
	if (remote_caps(r) & REMOTE_FLAGS) {
		struct told before = all_of(r, server->mailbox);
		server->flag(server->context, server->mailbox, before.messages[0]);
		struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
		assert_int_equal(after.last_flags & (FLAG_SEEN | FLAG_FLAGGED | FLAG_DELETED), FLAG_SEEN | FLAG_FLAGGED);
	}
	disconnect_session(&f);
}

static void several_mailboxes_at_once(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES))
		skip();
	struct fixture f;
	struct told_list list;
	fill(server->mailbox, 3);
	fill(server->mailbox2, 2);
	struct remote *r = connect_session(&f);
	const struct mailbox_since since[3] = {
		{.raw = server->mailbox, .method = CHANGES_ALL}, {.raw = "no-such-mailbox-here", .method = CHANGES_ALL}, {.raw = server->mailbox2, .method = CHANGES_ALL},
	};
	changes(r, since, 3, &list);
	assert_int_equal(list.items[0].message_count, 3);
	assert_int_equal(list.items[1].message_count, 0);
	assert_int_not_equal(list.items[1].result, MF_OK);
	assert_int_equal(mf_err_scope(list.items[1].result), MF_SCOPE_ITEM);
	assert_int_equal(list.items[2].message_count, 2);
	assert_int_equal(list.items[2].result, MF_OK);
	disconnect_session(&f);
}

static void numbered_anew(void **state)
{
	(void)state;
	if (!server->renumber)
		skip();
	struct fixture f;
	fill(server->mailbox, 3);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	disconnect_session(&f);
	server->renumber(server->context, server->mailbox);
	r = connect_session(&f);
	struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
	assert_int_equal(after.result, MF_UIDVALIDITY);
	assert_int_equal(after.opened, 1);
	assert_int_not_equal(after.at_open.uidvalidity, before.at_open.uidvalidity);
	assert_int_equal(after.message_count + after.flag_count + after.vanished_count, 0);
	assert_int_equal(all_of(r, server->mailbox).message_count, 3);
	disconnect_session(&f);
}

/* --- bodies ------------------------------------------------------------------------------------------------------------------- */

struct bodies {
	struct fetch_batch batches[8];
	size_t next, count;
	char data[1 << 20];
	size_t len;
	uint32_t uid;
	uint64_t offset, announced, got;
	unsigned ok, not_found, uidvalidity, other;
	bool whole, open;
};

static bool next_batch(void *context, struct fetch_batch *ret)
{
	struct bodies *b = context;
	if (b->next == b->count)
		return false;
	*ret = b->batches[b->next++];
	return true;
}

static enum mf_err on_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	struct bodies *b = context;
	assert_false(b->open);
	b->open = true;
	b->uid = uid;
	b->offset = offset;
	b->announced = length;
	b->got = b->len = 0;
	return MF_OK;
}

static enum mf_err on_data(void *context, const void *data, size_t len)
{
	struct bodies *b = context;
	assert_true(b->open);
	assert_true(b->len + len <= sizeof b->data);
	memcpy(b->data + b->len, data, len);
	b->len += len;
	b->got += len;
	assert_true(b->got <= b->announced);
	return MF_OK;
}

static enum mf_err on_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	struct bodies *b = context;
	if (result == MF_OK) {
		assert_true(b->open);
		assert_int_equal(uid, b->uid);
		assert_int_equal(b->got, b->announced);
		b->whole = whole;
		b->ok++;
	} else if (result == MF_NOT_FOUND) {
		b->not_found++;
	} else if (result == MF_UIDVALIDITY) {
		b->uidvalidity++;
	} else {
		b->other++;
	}
	b->open = false;
	return MF_OK;
}

static void fetch(struct remote *r, struct bodies *b)
{
	assert_int_equal(remote_fetch(r, &(struct fetch_source){next_batch, b, NULL}, &(struct fetch_sink){on_begin, on_data, on_end, b}), MF_OK);
	assert_int_equal(b->next, b->count);
	assert_false(b->open);
}

static struct bodies *new_bodies(void)
{
	struct bodies *b = calloc(1, sizeof *b);
	assert_non_null(b);
	return b;
}

/* lone line feeds are left out: servers that store lines make them whole */
static const char every_byte[] = "Subject: bytes\r\n\r\n\1\2\3\x80\xff)(*\"\\{5}\r\n lone\rcr\r\n)\r\nA1 OK no\r\nno newline at the end";

static void bodies_are_exact(void **state)
{
	(void)state;
	struct fixture f;
	server->create(server->context, server->mailbox);
	server->deliver(server->context, server->mailbox, every_byte, sizeof every_byte - 1);
	struct remote *r = connect_session(&f);
	struct told told = all_of(r, server->mailbox);
	struct bodies *b = new_bodies();
	b->batches[0] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = told.at_open.uidvalidity, .uids = told.messages, .count = 1};
	b->count = 1;
	fetch(r, b);
	assert_int_equal(b->ok, 1);
	assert_true(b->whole);
	assert_int_equal(b->offset, 0);
	assert_int_equal(b->len, sizeof every_byte - 1);
	assert_memory_equal(b->data, every_byte, sizeof every_byte - 1);
	free(b);
	disconnect_session(&f);
}

static void many_batches_of_two_mailboxes(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES))
		skip();
	struct fixture f;
	fill(server->mailbox, 10);
	fill(server->mailbox2, 4);
	struct remote *r = connect_session(&f);
	struct told one = all_of(r, server->mailbox), two = all_of(r, server->mailbox2);
	sort(one.messages, 10);
	sort(two.messages, 4);
	struct bodies *b = new_bodies();
	b->batches[0] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = one.at_open.uidvalidity, .uids = one.messages, .count = 6};
	b->batches[1] = (struct fetch_batch){.raw = server->mailbox2, .uidvalidity = two.at_open.uidvalidity, .uids = two.messages, .count = 4};
	b->batches[2] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = one.at_open.uidvalidity, .uids = one.messages + 6, .count = 4};
	b->count = 3;
	fetch(r, b);
	assert_int_equal(b->ok, 14);
	free(b);
	disconnect_session(&f);
}

static void what_is_gone_says_so(void **state)
{
	(void)state;
	struct fixture f;
	fill(server->mailbox, 3);
	struct remote *r = connect_session(&f);
	struct told told = all_of(r, server->mailbox);
	sort(told.messages, 3);
	server->expunge(server->context, server->mailbox, told.messages[1]);
	disconnect_session(&f);
	r = connect_session(&f);
	struct bodies *b = new_bodies();
	b->batches[0] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = told.at_open.uidvalidity, .uids = told.messages, .count = 3};
	b->batches[1] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = told.at_open.uidvalidity + 1, .uids = told.messages, .count = 3};
	b->count = 2;
	fetch(r, b);
	assert_int_equal(b->ok, 2);
	assert_int_equal(b->not_found, 1);
	assert_int_equal(b->uidvalidity, 3);
	free(b);
	disconnect_session(&f);
}

static void parts_of_a_message(void **state)
{
	(void)state;
	struct fixture f;
	static char large[300000];
	for (size_t i = 0; i < sizeof large; i++)
		large[i] = i % 70 == 68 ? '\r' : i % 70 == 69 ? '\n' : (char)('a' + i / 70 % 26);
	memcpy(large, "Subject: large\r\n\r\n", 18);
	server->create(server->context, server->mailbox);
	server->deliver(server->context, server->mailbox, large, sizeof large);
	struct remote *r = connect_session(&f);
	if (remote_caps(r) & REMOTE_RANGES) {
		struct told told = all_of(r, server->mailbox);
		static const struct { uint64_t offset, length, expected; } parts[] = {
			{0, 1000, 1000}, {131072, 65536, 65536}, {299000, 5000, 1000}, {300000, 100, 0}, {0, 400000, 300000},
		};
		for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
			struct bodies *b = new_bodies();
			b->batches[0] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = told.at_open.uidvalidity, .uids = told.messages,
			                                     .count = 1, .offset = parts[i].offset, .length = parts[i].length};
			b->count = 1;
			fetch(r, b);
			assert_int_equal(b->ok, 1);
			assert_int_equal(b->len, parts[i].expected);
			if (b->len)
				assert_int_equal(b->offset, parts[i].offset);
			assert_memory_equal(b->data, large + parts[i].offset, b->len);
			free(b);
		}
	}
	disconnect_session(&f);
}

static void an_empty_source(void **state)
{
	(void)state;
	struct fixture f;
	struct remote *r = connect_session(&f);
	struct bodies *b = new_bodies();
	fetch(r, b);
	free(b);
	disconnect_session(&f);
}

/* --- waiting -------------------------------------------------------------------------------------------------------------------- */

struct pushes {
	unsigned mailbox, other;
	bool new_only;
};

static void on_changed(void *context, const char *raw, bool new_only)
{
	struct pushes *p = context;
	if (raw && strcmp(raw, server->mailbox) == 0) {
		p->mailbox++;
		p->new_only = new_only;
	} else {
		p->other++;
	}
}

static void waiting_ends_when_woken(void **state)
{
	(void)state;
	struct fixture f;
	struct pushes p = {0};
	fill(server->mailbox, 1);
	struct remote *r = connect_session(&f);
	int wake = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(wake >= 0);
	assert_int_equal(remote_wait(r, server->mailbox, 60000, wake, &(struct push_sink){on_changed, &p}), MF_OK);
	/* and the session goes on */
	assert_int_equal(all_of(r, server->mailbox).message_count, 1);
	close(wake);
	disconnect_session(&f);
}

static void new_mail_is_pushed(void **state)
{
	(void)state;
	struct fixture f;
	struct pushes p = {0};
	fill(server->mailbox, 1);
	struct remote *r = connect_session(&f);
	if (remote_caps(r) & (REMOTE_PUSH | REMOTE_PUSH_ALL)) {
		struct told before = all_of(r, server->mailbox);
		int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		assert_true(wake >= 0);
		struct push_sink sink = {on_changed, &p};
		assert_int_equal(remote_wait(r, server->mailbox, 0, wake, &sink), MF_OK);
		deliver(server->mailbox, 2);
		for (int i = 0; i < 30 && p.mailbox == 0; i++)
			assert_int_equal(remote_wait(r, server->mailbox, 1000, wake, &sink), MF_OK);
		assert_true(p.mailbox > 0);
		assert_int_equal(since_then(r, server->mailbox, &before, CHANGES_NEW_ONLY, true).message_count, 1);
		close(wake);
	}
	disconnect_session(&f);
}

static void a_raised_stop_sign_ends_it(void **state)
{
	(void)state;
	struct fixture f;
	struct pushes p = {0};
	fill(server->mailbox, 1);
	struct remote *r = connect_session(&f);
	int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(wake >= 0);
	cancel_raise(&f.cancel);
	assert_int_equal(remote_wait(r, server->mailbox, 60000, wake, &(struct push_sink){on_changed, &p}), MF_CANCELLED);
	/* dead, and says so at once */
	struct seen_mailboxes seen = {0};
	assert_int_not_equal(remote_mailboxes(r, &(struct mailbox_sink){on_mailbox, &seen, NULL}), MF_OK);
	close(wake);
	disconnect_session(&f);
}

#include "contract/contract_writes.h"

int contract_run(const struct contract_server *s)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mailboxes_are_listed), cmocka_unit_test(a_refusing_sink_stops_the_list),
		cmocka_unit_test(everything_from_nothing), cmocka_unit_test(only_the_newest), cmocka_unit_test(an_empty_mailbox),
		cmocka_unit_test(changes_since), cmocka_unit_test(changes_since_without_modseq), cmocka_unit_test(changes_verified),
		cmocka_unit_test(changes_new_only), cmocka_unit_test(nothing_new), cmocka_unit_test(flags_arrive_as_bits),
		cmocka_unit_test(several_mailboxes_at_once), cmocka_unit_test(numbered_anew), cmocka_unit_test(bodies_are_exact),
		cmocka_unit_test(many_batches_of_two_mailboxes), cmocka_unit_test(what_is_gone_says_so), cmocka_unit_test(parts_of_a_message),
		cmocka_unit_test(an_empty_source), cmocka_unit_test(waiting_ends_when_woken), cmocka_unit_test(new_mail_is_pushed),
		cmocka_unit_test(flags_are_added_and_removed), cmocka_unit_test(messages_are_appended), cmocka_unit_test(messages_are_copied),
		cmocka_unit_test(messages_are_moved), cmocka_unit_test(only_ours_are_expunged), cmocka_unit_test(what_goes_together_goes),
		cmocka_unit_test(mailboxes_are_made_and_removed),
		cmocka_unit_test(writes_are_carried_out_in_order), cmocka_unit_test(what_others_see_of_a_write),
		cmocka_unit_test(a_raised_stop_sign_ends_it),
	};
	server = s;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

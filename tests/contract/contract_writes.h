/* contract_writes.h: the contract of remote_write(), a part of contract.c. What a write has done is looked at by the same
 * session's changes() and fetch(), as the engine does it. */

#define WRITES 40

struct written {
	const struct remote_write *writes;
	unsigned told[WRITES];
	enum mf_err results[WRITES];
	uint32_t uidvalidity[WRITES];
	struct uid_pair pairs[WRITES][8];
	size_t counts[WRITES];
};

static enum mf_err on_done(void *context, size_t i, const struct write_result *result)
{
	struct written *w = context;
	w->told[i]++;
	w->results[i] = result->result;
	w->uidvalidity[i] = result->uidvalidity;
	w->counts[i] = result->count;
	assert_non_null(result->reason);
	if (result->result == MF_OK)
		assert_string_equal(result->reason, "");
	for (size_t k = 0; k < result->count && k < 8; k++) {
		w->pairs[i][k] = result->pairs[k];
		assert_true(k == 0 || result->pairs[k].from > result->pairs[k - 1].from);
	}
	return MF_OK;
}

static struct written write_them(struct remote *r, const struct remote_write *writes, size_t count)
{
	struct written w = {.writes = writes};
	assert_true(count <= WRITES);
	enum mf_err e = remote_write(r, writes, count, &(struct write_sink){on_done, &w});
	if (e != MF_OK)
		print_error("write: %s: %s\n", mf_err_name(e), remote_reason(r));
	assert_int_equal(e, MF_OK);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(w.told[i], 1);
	return w;
}

static enum mf_err write_one(struct remote *r, struct remote_write w)
{
	return write_them(r, &w, 1).results[0];
}

static int file_with(const void *data, size_t len)
{
	FILE *f = tmpfile();
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fflush(f), 0);
	int fd = dup(fileno(f));
	fclose(f);
	assert_true(fd >= 0);
	return fd;
}

static void flags_are_added_and_removed(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 4);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	sort(before.messages, 4);
	const uint32_t *uids = before.messages, validity = before.at_open.uidvalidity, gone = before.at_open.uidnext + 7;
	const uint32_t with_gone[] = {uids[1], gone};
	const struct remote_write writes[] = {
		{.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = uids, .count = 2, .flags = FLAG_SEEN | FLAG_DRAFT, .keywords = "$Forwarded other"},
		{.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = with_gone, .count = 2, .flags = FLAG_FLAGGED, .flags_remove = FLAG_DRAFT, .keywords_remove = "other"},
		{.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity + 1, .uids = uids, .count = 4, .flags = FLAG_DELETED},
		{.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = uids, .count = 0, .flags = FLAG_DELETED},
	};
	struct written w = write_them(r, writes, 4);
	assert_int_equal(w.results[0], MF_OK);
	assert_int_equal(w.results[1], MF_OK);
	assert_int_equal(w.results[2], MF_UIDVALIDITY);
	assert_int_equal(w.results[3], MF_OK);
	struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
	assert_int_equal(after.result, MF_OK);
	assert_int_equal(after.message_count, 0);
	for (size_t i = 0; i < after.flag_count; i++) {
		if (after.flags[i] == uids[0]) {
			assert_int_equal(after.seen_flags[i], FLAG_SEEN | FLAG_DRAFT);
			assert_string_equal(after.seen_keywords[i], "$Forwarded other");
		} else if (after.flags[i] == uids[1]) {
			assert_int_equal(after.seen_flags[i], FLAG_SEEN | FLAG_FLAGGED);
			assert_string_equal(after.seen_keywords[i], "$Forwarded");
		} else {
			assert_int_equal(after.seen_flags[i], 0);
		}
	}
	assert_true(has(after.flags, after.flag_count, uids[0]));
	assert_true(has(after.flags, after.flag_count, uids[1]));
	disconnect_session(&f);
}

static void messages_are_appended(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	static char large[300000];
	fill(server->mailbox, 1);
	memset(large, 'x', sizeof large);
	memcpy(large, "Subject: large\r\n\r\n", 18);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	int small_fd = file_with(every_byte, sizeof every_byte - 1), large_fd = file_with(large, sizeof large);
	struct remote_write writes[] = {
		{.kind = WRITE_APPEND, .raw = server->mailbox, .fd = small_fd, .size = sizeof every_byte - 1, .flags = FLAG_SEEN, .keywords = "$Forwarded", .internal_date = 837571465},
		{.kind = WRITE_APPEND, .raw = server->mailbox, .fd = large_fd, .size = sizeof large, .internal_date = 978307200},
		{.kind = WRITE_APPEND, .raw = "nowhere/at-all", .fd = small_fd, .size = sizeof every_byte - 1},
		{.kind = WRITE_APPEND, .raw = server->mailbox, .fd = small_fd, .size = sizeof every_byte - 1},
	};
	struct written w = write_them(r, writes, 4);
	assert_int_equal(w.results[0], MF_OK);
	assert_int_equal(w.results[1], MF_OK);
	assert_int_equal(w.results[2], MF_NOT_FOUND);
	assert_int_equal(w.results[3], MF_OK);
	struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
	assert_int_equal(after.message_count, 3);
	sort(after.messages, 3);
	if (remote_caps(r) & REMOTE_UIDPLUS) {
		assert_int_equal(w.counts[0], 1);
		assert_int_equal(w.uidvalidity[0], before.at_open.uidvalidity);
		assert_int_equal(w.pairs[0][0].from, 0);
		assert_int_equal(w.pairs[0][0].to, after.messages[0]);
		assert_int_equal(w.pairs[1][0].to, after.messages[1]);
		assert_int_equal(w.pairs[3][0].to, after.messages[2]);
	}
	struct bodies *b = new_bodies();
	b->batches[b->count++] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = before.at_open.uidvalidity, .uids = after.messages, .count = 1};
	fetch(r, b);
	assert_int_equal(b->ok, 1);
	assert_int_equal(b->len, sizeof every_byte - 1);
	assert_memory_equal(b->data, every_byte, sizeof every_byte - 1);
	b->batches[b->count++] = (struct fetch_batch){.raw = server->mailbox, .uidvalidity = before.at_open.uidvalidity, .uids = &after.messages[1], .count = 1};
	fetch(r, b);
	assert_int_equal(b->len, sizeof large);
	assert_memory_equal(b->data, large, sizeof large);
	struct told all = all_of(r, server->mailbox);
	for (size_t i = 0; i < all.message_count; i++) {
		if (all.messages[i] == after.messages[0])
			assert_int_equal(all.dates[i], 837571465);
		else if (all.messages[i] == after.messages[1])
			assert_int_equal(all.dates[i], 978307200);
	}
	free(b);
	close(small_fd);
	close(large_fd);
	disconnect_session(&f);
}

static void messages_are_copied(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 3);
	fill(server->mailbox2, 1);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox), there = all_of(r, server->mailbox2);
	sort(before.messages, 3);
	const uint32_t some[] = {before.messages[0], before.messages[2], before.at_open.uidnext + 9};
	const uint32_t validity = before.at_open.uidvalidity;
	const struct remote_write writes[] = {
		{.kind = WRITE_COPY, .raw = server->mailbox, .to = server->mailbox2, .uidvalidity = validity, .uids = some, .count = 3},
		{.kind = WRITE_COPY, .raw = server->mailbox, .to = "nowhere/at-all", .uidvalidity = validity, .uids = some, .count = 1},
		{.kind = WRITE_COPY, .raw = server->mailbox, .to = server->mailbox2, .uidvalidity = validity + 1, .uids = some, .count = 1},
	};
	struct written w = write_them(r, writes, 3);
	assert_int_equal(w.results[0], MF_OK);
	assert_int_equal(w.results[1], MF_NOT_FOUND);
	assert_int_equal(w.results[2], MF_UIDVALIDITY);
	struct told after = since_then(r, server->mailbox2, &there, CHANGES_AUTO, true);
	assert_int_equal(after.message_count, 2);
	sort(after.messages, 2);
	if (remote_caps(r) & REMOTE_UIDPLUS) {
		assert_int_equal(w.uidvalidity[0], there.at_open.uidvalidity);
		assert_int_equal(w.counts[0], 2);
		assert_int_equal(w.pairs[0][0].from, some[0]);
		assert_int_equal(w.pairs[0][0].to, after.messages[0]);
		assert_int_equal(w.pairs[0][1].from, some[1]);
		assert_int_equal(w.pairs[0][1].to, after.messages[1]);
	}
	assert_int_equal(all_of(r, server->mailbox).message_count, 3);
	disconnect_session(&f);
}

static void messages_are_moved(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 3);
	fill(server->mailbox2, 0);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	sort(before.messages, 3);
	struct remote_write move = {.kind = WRITE_MOVE, .raw = server->mailbox, .to = server->mailbox2, .uidvalidity = before.at_open.uidvalidity,
	                            .uids = before.messages, .count = 2};
	struct written w = write_them(r, &move, 1);
	bool can = remote_caps(r) & REMOTE_MOVE;
	assert_int_equal(w.results[0], can ? MF_OK : MF_UNSUPPORTED);
	assert_int_equal(all_of(r, server->mailbox).message_count, can ? 1 : 3);
	struct told there = all_of(r, server->mailbox2);
	assert_int_equal(there.message_count, can ? 2 : 0);
	if (can && (remote_caps(r) & REMOTE_UIDPLUS)) {
		sort(there.messages, 2);
		assert_int_equal(w.uidvalidity[0], there.at_open.uidvalidity);
		assert_int_equal(w.pairs[0][0].to, there.messages[0]);
		assert_int_equal(w.pairs[0][1].to, there.messages[1]);
	}
	/* once more: they are not there, and that is no failure */
	assert_int_equal(write_one(r, move), can ? MF_OK : MF_UNSUPPORTED);
	move.to = "nowhere/at-all";
	move.uids = &before.messages[2];
	move.count = 1;
	assert_int_equal(write_one(r, move), can ? MF_NOT_FOUND : MF_UNSUPPORTED);
	assert_int_equal(all_of(r, server->mailbox).message_count, can ? 1 : 3);
	disconnect_session(&f);
}

static void only_ours_are_expunged(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 4);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	sort(before.messages, 4);
	const uint32_t validity = before.at_open.uidvalidity, *uids = before.messages;
	struct remote_write expunge = {.kind = WRITE_EXPUNGE, .raw = server->mailbox, .uidvalidity = validity, .uids = uids, .count = 1};
	assert_int_equal(write_one(r, expunge), MF_OK);
	struct told after = since_then(r, server->mailbox, &before, CHANGES_AUTO, true);
	assert_true(after.has_present ? !has(after.present, after.present_count, uids[0]) : has(after.vanished, after.vanished_count, uids[0]));
	/* somebody else's mark, and ours */
	assert_int_equal(write_one(r, (struct remote_write){.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = &uids[1],
	                                                    .count = 1, .flags = FLAG_DELETED}), MF_OK);
	expunge.uids = &uids[2];
	bool uidplus = remote_caps(r) & REMOTE_UIDPLUS;
	assert_int_equal(write_one(r, expunge), uidplus ? MF_OK : MF_CANCELLED);
	struct told left = all_of(r, server->mailbox);
	assert_int_equal(left.message_count, uidplus ? 2 : 3);
	assert_true(has(left.messages, left.message_count, uids[1]));
	disconnect_session(&f);
}

/* in one write, with what is moved away, and after another client has removed something */
static void what_goes_together_goes(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 6);
	fill(server->mailbox2, 0);
	struct remote *r = connect_session(&f);
	struct told before = all_of(r, server->mailbox);
	sort(before.messages, 6);
	const uint32_t validity = before.at_open.uidvalidity, *uids = before.messages;
	bool can = remote_caps(r) & REMOTE_MOVE;
	struct remote_write writes[] = {
		{.kind = can ? WRITE_MOVE : WRITE_COPY, .raw = server->mailbox, .to = server->mailbox2, .uidvalidity = validity, .uids = uids, .count = 1},
		{.kind = WRITE_EXPUNGE, .raw = server->mailbox, .uidvalidity = validity, .uids = &uids[1], .count = 1},
	};
	struct written w = write_them(r, writes, 2);
	assert_int_equal(w.results[0], MF_OK);
	assert_int_equal(w.results[1], MF_OK);
	assert_int_equal(write_one(r, (struct remote_write){.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = &uids[5],
	                                                    .count = 1, .flags = FLAG_SEEN}), MF_OK);
	server->expunge(server->context, server->mailbox, uids[2]);
	writes[1].uids = &uids[3];
	assert_int_equal(write_one(r, writes[1]), MF_OK);
	struct told left = all_of(r, server->mailbox);
	assert_int_equal(left.message_count, can ? 2 : 3);
	assert_true(has(left.messages, left.message_count, uids[4]) && has(left.messages, left.message_count, uids[5]));
	disconnect_session(&f);
}

static bool is_listed(struct remote *r, const char *raw)
{
	struct seen_mailboxes seen = {.look_for = raw};
	assert_int_equal(remote_mailboxes(r, &(struct mailbox_sink){on_mailbox, &seen, NULL}), MF_OK);
	return seen.found;
}

static void mailboxes_are_made_and_removed(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 1);
	server->remove(server->context, server->mailbox2);
	server->remove(server->context, "contract-three");
	struct remote *r = connect_session(&f);
	const char *one = server->mailbox, *two = server->mailbox2, *three = "contract-three";
	const struct remote_write making[] = {
		{.kind = WRITE_CREATE, .raw = two}, {.kind = WRITE_CREATE, .raw = two}, {.kind = WRITE_SUBSCRIBE, .raw = two},
		{.kind = WRITE_SUBSCRIBE, .raw = two}, {.kind = WRITE_UNSUBSCRIBE, .raw = two}, {.kind = WRITE_UNSUBSCRIBE, .raw = two},
	};
	struct written w = write_them(r, making, 6);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(w.results[i], MF_OK);
	assert_true(is_listed(r, two));
	assert_int_equal(all_of(r, two).message_count, 0);
	assert_int_equal(write_one(r, (struct remote_write){.kind = WRITE_RENAME, .raw = two, .to = three}), MF_OK);
	assert_false(is_listed(r, two));
	assert_true(is_listed(r, three));
	struct told told = all_of(r, one);
	const struct remote_write removing[] = {
		{.kind = WRITE_RENAME, .raw = two, .to = "contract-four"},
		{.kind = WRITE_DELETE, .raw = three},
		{.kind = WRITE_DELETE, .raw = three},
		{.kind = WRITE_FLAGS, .raw = one, .uidvalidity = told.at_open.uidvalidity, .uids = told.messages, .count = 1, .flags = FLAG_SEEN},
		{.kind = WRITE_DELETE, .raw = one},
		{.kind = WRITE_EXPUNGE, .raw = one, .uidvalidity = told.at_open.uidvalidity, .uids = told.messages, .count = 1},
		{.kind = WRITE_DELETE, .raw = one},
		{.kind = WRITE_RENAME, .raw = "INBOX", .to = "contract-four"},
		{.kind = WRITE_FLAGS, .raw = two, .uidvalidity = 1, .uids = told.messages, .count = 1, .flags = FLAG_SEEN},
	};
	w = write_them(r, removing, 9);
	const enum mf_err results[] = {MF_NOT_FOUND, MF_OK, MF_OK, MF_OK, MF_EXISTS, MF_OK, MF_OK, MF_UNSUPPORTED, MF_NOT_FOUND};
	if (w.results[8] == MF_DENIED)
		w.results[8] = MF_NOT_FOUND; /* to SELECT some servers only say NO */
	for (size_t i = 0; i < 9; i++) {
		if (w.results[i] != results[i])
			fail_msg("%zu: %s, not %s", i, mf_err_name(w.results[i]), mf_err_name(results[i]));
	}
	assert_false(is_listed(r, one));
	assert_false(is_listed(r, three));
	assert_true(is_listed(r, "INBOX"));
	disconnect_session(&f);
}

/* in the order given, whatever kind follows whatever other */
static void writes_are_carried_out_in_order(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f;
	fill(server->mailbox, 2);
	fill(server->mailbox2, 0);
	struct remote *r = connect_session(&f);
	struct told told = all_of(r, server->mailbox);
	sort(told.messages, 2);
	struct remote_write writes[WRITES];
	int fd = file_with("Subject: x\r\n\r\nx", 15);
	const uint32_t validity = told.at_open.uidvalidity;
	for (size_t i = 0; i < WRITES; i += 4) {
		writes[i] = (struct remote_write){.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = told.messages, .count = 2, .flags = FLAG_SEEN};
		writes[i + 1] = (struct remote_write){.kind = WRITE_APPEND, .raw = server->mailbox2, .fd = fd, .size = 15};
		writes[i + 2] = (struct remote_write){.kind = WRITE_COPY, .raw = server->mailbox, .to = server->mailbox2, .uidvalidity = validity, .uids = told.messages, .count = 1};
		writes[i + 3] = (struct remote_write){.kind = WRITE_FLAGS, .raw = server->mailbox, .uidvalidity = validity, .uids = told.messages, .count = 1, .flags_remove = FLAG_SEEN};
	}
	struct written w = write_them(r, writes, WRITES);
	for (size_t i = 0; i < WRITES; i++)
		assert_int_equal(w.results[i], MF_OK);
	struct told after = since_then(r, server->mailbox, &told, CHANGES_VERIFY, true);
	for (size_t i = 0; i < after.flag_count; i++)
		assert_int_equal(after.seen_flags[i], after.flags[i] == told.messages[0] ? 0 : FLAG_SEEN);
	assert_int_equal(all_of(r, server->mailbox2).message_count, WRITES / 2);
	if (remote_caps(r) & REMOTE_UIDPLUS) {
		for (size_t i = 0; i < WRITES; i += 4)
			assert_true(w.pairs[i + 1][0].to < w.pairs[i + 2][0].to);
	}
	close(fd);
	disconnect_session(&f);
}

static void what_others_see_of_a_write(void **state)
{
	(void)state;
	if (!server_can(REMOTE_MAILBOXES | REMOTE_FLAGS))
		skip();
	struct fixture f, other;
	struct pushes p = {0};
	fill(server->mailbox, 1);
	struct remote *r = connect_session(&f), *watcher = connect_session(&other);
	struct told before = all_of(watcher, server->mailbox);
	if (remote_caps(watcher) & (REMOTE_PUSH | REMOTE_PUSH_ALL)) {
		int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		struct push_sink sink = {on_changed, &p};
		assert_int_equal(remote_wait(watcher, server->mailbox, 0, wake, &sink), MF_OK);
		int fd = file_with("Subject: x\r\n\r\nx", 15);
		assert_int_equal(write_one(r, (struct remote_write){.kind = WRITE_APPEND, .raw = server->mailbox, .fd = fd, .size = 15}), MF_OK);
		for (int i = 0; i < 30 && p.mailbox == 0; i++)
			assert_int_equal(remote_wait(watcher, server->mailbox, 1000, wake, &sink), MF_OK);
		assert_true(p.mailbox > 0);
		assert_int_equal(since_then(watcher, server->mailbox, &before, CHANGES_NEW_ONLY, true).message_count, 1);
		close(fd);
		close(wake);
	}
	disconnect_session(&f);
	disconnect_session(&other);
}

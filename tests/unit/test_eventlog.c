/* eventlog: lines, offsets, what is dropped, waiting */
#include "control_world.h"

#include <pthread.h>

#include "control/json.h"

static void publish(struct world *w, enum change_kind kind, const char *name, uint32_t uid)
{
	struct change change = { .kind = kind, .mailbox = 999, .message = 7, .name = name, .uid = uid, .is_new = 1 };
	bus_publish(w->bus, &change);
}

static size_t read_at(struct world *w, uint64_t offset, char *data, size_t size, uint64_t *ret_offset)
{
	size_t len = eventlog_read(w->events, 0, offset, data, size - 1, 0, ret_offset);
	data[len] = 0;
	return len;
}

static void lines_are_json_and_offsets_count(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	char data[8192], rest[8192];
	uint64_t at;
	assert_int_equal(eventlog_size(w->events, 0), 0);
	publish(w, CHANGE_MESSAGE_ADDED, "quote\" back\\ esc\x1b[31m bidi\xe2\x80\xae bad\xff.eml", 7);
	publish(w, CHANGE_MESSAGE_SIZE, NULL, 0); /* no event */
	publish(w, CHANGE_MESSAGE_REMOVED, "b.eml", 8);
	bus_flush(w->bus);
	size_t len = read_at(w, 0, data, sizeof data, &at);
	assert_int_equal(at, 0);
	assert_int_equal(len, eventlog_size(w->events, 0));
	char *second = strchr(data, '\n');
	assert_non_null(second);
	*second++ = 0;
	assert_non_null(strstr(data, "quote\\\" back\\\\ esc\\u001b[31m bidi\\u202e bad\\ufffd.eml"));
	struct json_object *o = json_parse_line(data);
	assert_non_null(o);
	assert_string_equal(json_get_string(o, "account"), "work");
	assert_string_equal(json_get_string(o, "event"), "message-added");
	assert_int_equal(json_get_number(o, "uid"), 7);
	assert_true(json_get_bool(o, "new"));
	assert_int_equal(strlen(json_get_string(o, "time")), strlen("2026-11-20T12:00:00.123Z"));
	json_object_put(o);
	assert_non_null(strstr(second, "\"event\":\"message-removed\""));
	/* from the second line on */
	uint64_t from = (uint64_t)(second - data);
	assert_int_equal(read_at(w, from, rest, sizeof rest, &at), len - from);
	assert_int_equal(at, from);
	assert_string_equal(rest, second);
	/* in small bites */
	assert_int_equal(eventlog_read(w->events, -1, 3, rest, 5, 0, &at), 5);
	assert_memory_equal(rest, data + 3, 5);
	assert_int_equal(eventlog_read(w->events, 5, 0, rest, 5, 0, &at), 0); /* no such account */
	world_destroy(w);
}

static void the_oldest_half_is_dropped_and_offsets_go_on(void **state)
{
	(void)state;
	struct world *w = world_create(true, 4096);
	char data[8192];
	uint64_t at, size = 0;
	for (int i = 0; i < 200; i++) {
		MF_CLEANUP(mf_free) char *name = mf_format("message-%03d.eml", i);
		publish(w, CHANGE_MESSAGE_ADDED, name, (uint32_t)i + 1);
		bus_flush(w->bus);
		assert_true(eventlog_size(w->events, 0) > size);
		size = eventlog_size(w->events, 0);
	}
	assert_true(size > 4096);
	size_t len = read_at(w, 0, data, sizeof data, &at);
	assert_true(at > 0);
	assert_true(len <= 4096);
	assert_int_equal(at + len, size);
	assert_memory_equal(data, "{\"time\":", 8); /* begins with a whole line */
	assert_non_null(strstr(data, "message-199.eml"));
	assert_null(strstr(data, "message-000.eml"));
	/* an offset inside what is there is kept; one beyond the end reads nothing */
	assert_int_equal(read_at(w, size - 10, data, sizeof data, &at), 10);
	assert_int_equal(at, size - 10);
	assert_int_equal(read_at(w, size + 100, data, sizeof data, &at), 0);
	world_destroy(w);
}

static void a_line_over_the_limit_is_counted_only(void **state)
{
	(void)state;
	struct world *w = world_create(true, 512);
	char name[2000], data[1024];
	uint64_t at;
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = 0;
	publish(w, CHANGE_MESSAGE_ADDED, name, 1);
	publish(w, CHANGE_MESSAGE_ADDED, "short.eml", 2);
	bus_flush(w->bus);
	assert_true(eventlog_size(w->events, 0) > 2000);
	assert_true(read_at(w, 0, data, sizeof data, &at) > 0);
	assert_true(at > 2000);
	assert_non_null(strstr(data, "short.eml"));
	world_destroy(w);
}

struct reader {
	struct world *world;
	size_t len;
	int64_t timeout_ms;
	uint64_t from;
	atomic_bool running;
};

static void *read_waiting(void *context)
{
	struct reader *r = context;
	char data[4096];
	uint64_t at;
	atomic_store(&r->running, true);
	r->len = eventlog_read(r->world->events, 0, r->from, data, sizeof data, r->timeout_ms, &at);
	return NULL;
}

static void a_reader_waits_for_the_first_byte(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct reader r = { .world = w, .timeout_ms = 60000 };
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, read_waiting, &r), 0);
	AWAIT(atomic_load(&r.running));
	publish(w, CHANGE_MESSAGE_FLAGS, "a.eml", 1);
	pthread_join(thread, NULL);
	assert_true(r.len > 0);
	/* without an event it ends at its time, or when it is woken */
	r = (struct reader){ .world = w, .timeout_ms = 1, .from = eventlog_size(w->events, 0) };
	read_waiting(&r);
	assert_int_equal(r.len, 0);
	r.timeout_ms = 60000;
	atomic_store(&r.running, false);
	assert_int_equal(pthread_create(&thread, NULL, read_waiting, &r), 0);
	AWAIT(atomic_load(&r.running));
	/* it may not have begun to wait yet: woken until it is gone */
	while (pthread_tryjoin_np(thread, NULL))
		eventlog_wake(w->events);
	assert_int_equal(r.len, 0);
	world_destroy(w);
}

static void paths_follow_a_rename(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct txn *t;
	uint64_t id;
	char data[8192];
	uint64_t at;
	assert_int_equal(cache_begin(w->cache, &t), MF_OK);
	struct mailbox_said said = { .raw = "Work/Projects", .delimiter = '/' };
	assert_int_equal(txn_mailbox_said(t, &said, &id), MF_OK);
	assert_int_equal(txn_commit(t), MF_OK);
	struct change change = { .kind = CHANGE_MESSAGE_ADDED, .mailbox = id, .message = 7, .name = "a.eml" };
	bus_publish(w->bus, &change);
	bus_flush(w->bus);
	read_at(w, 0, data, sizeof data, &at);
	assert_non_null(strstr(data, "\"event\":\"mailbox-added\",\"mailbox\":\"Work/Projects\""));
	assert_non_null(strstr(data, "\"event\":\"message-added\",\"mailbox\":\"Work/Projects\",\"name\":\"a.eml\""));
	world_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_are_json_and_offsets_count),
		cmocka_unit_test(the_oldest_half_is_dropped_and_offsets_go_on),
		cmocka_unit_test(a_line_over_the_limit_is_counted_only),
		cmocka_unit_test(a_reader_waits_for_the_first_byte),
		cmocka_unit_test(paths_follow_a_rename),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

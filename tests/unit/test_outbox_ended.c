/* The program ends at its n-th step (tools/ends.c), for every n, while it puts messages into the outbox and sends them. What was accepted
 * is then sent once, or is held as maybe sent; none is sent twice, none is lost. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include "unit/outbox_world.h"
#include "support/ends_at.h"

#define MESSAGES 5

static const char *const letters[MESSAGES] = {
	"To: bob@example.com\nMessage-ID: <0@t>\n\nfine\n", "To: no@example.com\nMessage-ID: <1@t>\n\nrefused\n",
	"To: bob@example.com\nMessage-ID: <2@t>\nX-Dot: 554 no\n\nrefused at its end\n", "To: later@example.com, bob@example.com\nMessage-ID: <3@t>\n\nto one now, to one later\n",
	"To: bob@example.com\nMessage-ID: <4@t>\n\nfine\n",
};

/* --- the server, which stays ------------------------------------------------------------------------------------------------- */

static struct { int fd; uint16_t port; pthread_t thread; struct smtp_server *server; } front;
static struct { unsigned put, copies[MESSAGES]; } *done;   /* by whoever sends: put for sure; copies that were asked for, of each message */

static void *take_calls(void *unused)
{
	int fd;
	while ((fd = accept4(front.fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct smtp_peer *p = calloc(1, sizeof *p);
		*p = (struct smtp_peer){ front.server, fdopen(fd, "r"), fd, 0 };
		(void)peer_main(p);
	}
	return unused;
}

static void front_open(struct smtp_server *server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	front.server = server;
	front.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(front.fd >= 0 && !bind(front.fd, (struct sockaddr *)&address, size) && !listen(front.fd, 16));
	assert_int_equal(getsockname(front.fd, (struct sockaddr *)&address, &size), 0);
	front.port = ntohs(address.sin_port);
	assert_int_equal(pthread_create(&front.thread, NULL, take_calls, NULL), 0);
}

/* after the last client: what it has said is done */
static void front_close(void)
{
	struct pollfd waiting = { .fd = front.fd, .events = POLLIN };
	while (poll(&waiting, 1, 0) > 0)
		sched_yield();
	shutdown(front.fd, SHUT_RDWR);
	pthread_join(front.thread, NULL);
	close(front.fd);
}

static enum mf_err call(void *context, struct cancel *cancel, struct smtp **ret, struct mf_reason *why)
{
	(void)context;
	struct smtp_options o = {
		.transport = { .host = "127.0.0.1", .port = front.port, .connect_timeout_ms = 20000, .cancel = cancel }, .times = { 20000, 20000, 20000 },
	};
	return smtp_open(&o, ret, why);
}

static enum mf_err count_copy(void *context, uint64_t id, int fd, uint64_t size, const char *message_id, bool first)
{
	(void)context, (void)id, (void)fd, (void)size, (void)first;
	unsigned number = (unsigned)(message_id[1] - '0');
	if (number >= MESSAGES)
		_exit(4);
	done->copies[number]++;
	return MF_OK;
}

/* --- one life -------------------------------------------------------------------------------------------------------------------- */

static void open_outbox(struct world *w)
{
	struct outbox_options o = { .config = w->config, .state_dir = w->folder, .file_copy = count_copy, .connect = call };
	struct mf_reason why = { "" };
	if (outbox_open(&o, &w->outbox, &why))
		_exit(2);
}

static void put_all(struct world *w)
{
	open_outbox(w);
	for (unsigned i = 0; i < MESSAGES; i++) {
		char name[20];
		struct mf_reason why = { "" };
		uint64_t id;
		snprintf(name, sizeof name, "%u.eml", i);
		int fd = text_file(letters[i]);
		if (outbox_put(w->outbox, fd, &(struct outbox_put){ .name = name }, &id, &why))
			_exit(3);
		close(fd);
		done->put = i + 1;
	}
}

static void put_and_send(void *context)
{
	struct world *w = context;
	put_all(w);
	later(11);
	run(w);
}

/* --- what is left of it ------------------------------------------------------------------------------------------------------------ */

/* how often the server has taken that message */
static unsigned times_taken(const struct world *w, unsigned number)
{
	char text[65536], line[20];
	ssize_t n = pread(w->server.record, text, sizeof text - 1, 0);
	unsigned count = 0;
	assert_true(n >= 0);
	text[n] = 0;
	snprintf(line, sizeof line, "<%u@t>\n", number);
	for (const char *at = text; (at = strstr(at, line)); at += strlen(line))
		count++;
	return count;
}

struct left { enum outbox_state states[MESSAGES]; bool there[MESSAGES]; };

static void see(struct world *w, struct left *ret)
{
	*ret = (struct left){ 0 };
	for (unsigned i = 0; i < MESSAGES; i++) {
		char name[20];
		struct outbox_item item;
		snprintf(name, sizeof name, "%u.eml", i);
		ret->there[i] = outbox_item_by_name(w->outbox, name, false, &item) == MF_OK || outbox_item_by_name(w->outbox, name, true, &item) == MF_OK;
		if (!ret->there[i])
			continue;
		ret->states[i] = item.state;
		outbox_item_finish(&item);
	}
}

/* Started again, and everything sent that goes by itself: each message is where it belongs. */
static void check(struct world *w, long step)
{
	struct left left;
	open_outbox(w);
	w->server.accept_later = true;
	later(11);
	run(w);
	later(6 * 3600);
	run(w);
	see(w, &left);
	for (unsigned i = 0; i < MESSAGES; i++) {
		bool refused = i == 1 || i == 2, was_put = i < done->put, maybe = left.there[i] && left.states[i] == OUTBOX_MAYBE;
		unsigned times = times_taken(w, i), most = refused ? 0 : i == 3 ? 2 : 1;   /* for two: at once, or for each */
		if (times > most)
			fail_msg("step %ld: message %u was taken %u times", step, i, times);
		if (left.there[i] && !maybe && !(refused && left.states[i] == OUTBOX_FAILED))
			fail_msg("step %ld: message %u is %s", step, i, outbox_state_word(left.states[i]));
		if (was_put && !left.there[i] && (refused || !times || !done->copies[i]))
			fail_msg("step %ld: message %u is gone, was taken %u times, and %u copies were made", step, i, times, done->copies[i]);
	}
}

static void every_step(void **state)
{
	(void)state;
	size_t maybe = 0;
	long step = 1;
	char when[40];
	for (bool ended = true; ended; step += getenv("MAILFS_TEST_SHORT") ? 7 : 1) {
		struct world w;
		begin(&w);
		outbox_close(w.outbox);
		w.outbox = NULL;
		memset(done, 0, sizeof *done);
		snprintf(when, sizeof when, "step %ld", step);
		struct ending e = ending_begin(put_and_send, &w, &front.port, step, step % 2);
		front_open(&w.server);
		ended = ending_come(&e, front.port, when);
		check(&w, step);
		struct outbox_counts counts;
		outbox_counts(w.outbox, &counts);
		maybe += counts.maybe;
		outbox_close(w.outbox);
		w.outbox = NULL;
		front_close();
		later(0);
		end(&w);
	}
	print_message("%ld steps, %zu messages maybe sent\n", step - 1, maybe);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(every_step) };
	done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return done == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}

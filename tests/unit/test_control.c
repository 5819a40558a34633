/* control: verbs over real sockets, with an account on a server in memory */
#include "control_world.h"

#include <errno.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "control/client.h"
#include "control/exit.h"
#include "control/json.h"
#include "control/paths.h"
#include "control/server.h"
#include "control/socket.h"

struct heard {
	struct buf text;      /* every line with its newline */
	size_t lines;
	size_t stop_after;    /* lines; 0: never */
	const char *awaited;  /* heard is set by a line that holds this; NULL: by any */
	atomic_bool heard;
};

static bool hear(void *context, const char *json)
{
	struct heard *h = context;
	assert_int_equal(buf_addf(&h->text, "%s\n", json), MF_OK);
	struct json_object *o = json_parse_line(json);
	assert_non_null(o); /* whatever is said is JSON */
	json_object_put(o);
	if (!h->awaited || strstr(json, h->awaited))
		atomic_store(&h->heard, true);
	return ++h->lines != h->stop_after;
}

static void heard_init(struct heard *h)
{
	memset(h, 0, sizeof *h);
	buf_init(&h->text, 8U << 20);
}

/* asks, and returns the exit code; what was said is added to *h */
static int ask(const char *line, struct heard *h)
{
	struct mf_reason why = { "" };
	int code = -1;
	assert_int_equal(control_ask("work", line, hear, h, &code, &why), MF_OK);
	return code;
}

static int ask_text(const char *line, char **ret)
{
	struct heard h;
	heard_init(&h);
	int code = ask(line, &h);
	*ret = buf_detach(&h.text);
	return code;
}

static struct control_server *serve(struct world *w)
{
	struct control_server *server;
	struct mf_reason why = { "" };
	assert_int_equal(control_server_start(&w->control, &server, &why), MF_OK);
	return server;
}

static int dial(void)
{
	MF_CLEANUP(mf_free) char *path = path_socket("work", 0);
	int fd;
	assert_int_equal(socket_connect(path, &fd, NULL), MF_OK);
	return fd;
}

/* everything until the other end closes */
static char *read_all(int fd)
{
	struct buf b;
	char chunk[4096];
	buf_init(&b, 1U << 20);
	for (ssize_t n; (n = read(fd, chunk, sizeof chunk)) > 0;)
		assert_int_equal(buf_add(&b, chunk, (size_t)n), MF_OK);
	return buf_detach(&b);
}

static void ping_tells_who_and_where(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	char *text;
	assert_int_equal(ask_text("ping", &text), EXIT_OK);
	struct json_object *o = json_parse_line(text), *ping;
	assert_non_null(o);
	assert_true(json_object_object_get_ex(o, "ping", &ping));
	assert_int_equal(json_get_number(ping, "pid"), getpid());
	assert_string_equal(json_get_string(ping, "account"), "work");
	assert_string_equal(json_get_string(ping, "mountpoint"), "/mnt/mail");
	json_object_put(o);
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

static void bad_requests_are_told(void **state)
{
	(void)state;
	static const struct { const char *line; int code; const char *words; } rows[] = {
		{ "", EXIT_USAGE, "no such command" },
		{ "frobnicate", EXIT_USAGE, "no such command: \\\"frobnicate\\\"" },
		{ "ping%", EXIT_USAGE, "bad percent escape" },
		{ "ping%0", EXIT_USAGE, "bad percent escape" },
		{ "ping %00", EXIT_USAGE, "bad percent escape" },
		{ "status --yaml", EXIT_USAGE, "unexpected argument: --yaml" },
		{ "list INBOX", EXIT_USAGE, "unexpected argument: INBOX" },
		{ "sync --fast", EXIT_USAGE, "unexpected argument: --fast" },
		{ "\x1b[31mred", EXIT_USAGE, "no such command" },
	};
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char *text;
		assert_int_equal(ask_text(rows[i].line, &text), rows[i].code);
		assert_non_null(strstr(text, rows[i].words));
		assert_null(strchr(text, '\x1b'));
		free(text);
	}
	control_server_stop(server);
	world_destroy(w);
}

static void several_requests_share_a_connection(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	int fd = dial();
	static const char requests[] = "ping\nnothing\nping\n";
	assert_true(socket_send(fd, requests, strlen(requests)));
	shutdown(fd, SHUT_WR); /* who has said everything is still answered */
	MF_CLEANUP(mf_free) char *text = read_all(fd);
	size_t exits = 0;
	for (const char *p = text; (p = strstr(p, "{\"exit\":")); p++)
		exits++;
	assert_int_equal(exits, 3);
	close(fd);
	control_server_stop(server);
	world_destroy(w);
}

static void a_line_has_a_limit(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	int fd = dial();
	char *line = mf_alloc(80001);
	memset(line, 'x', 80000);
	(void)socket_send(fd, line, 80000); /* may be cut off in the middle */
	MF_CLEANUP(mf_free) char *text = read_all(fd);
	if (*text) /* the connection may be reset before the words are read */
		assert_non_null(strstr(text, "too long"));
	close(fd);
	free(line);
	assert_int_equal(ask_text("ping", &line), EXIT_OK);
	free(line);
	control_server_stop(server);
	world_destroy(w);
}

static void too_many_clients_are_refused(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	int fds[16];
	for (size_t i = 0; i < 16; i++) {
		fds[i] = dial();
		char answer[256];
		assert_true(socket_send(fds[i], "ping\n", 5)); /* served: so it counts */
		assert_true(read(fds[i], answer, sizeof answer) > 0);
	}
	char *text;
	assert_int_equal(ask_text("ping", &text), EXIT_BUSY);
	assert_non_null(strstr(text, "too many"));
	free(text);
	for (size_t i = 0; i < 16; i++)
		close(fds[i]);
	int code = EXIT_BUSY;
	AWAIT((code = ask_text("ping", &text), free(text), code == EXIT_OK)); /* room again */
	control_server_stop(server);
	world_destroy(w);
}

static void sockets_are_private_and_stale_ones_replaced(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	MF_CLEANUP(mf_free) char *path = path_socket("work", 0);
	MF_CLEANUP(mf_free) char *directory = mf_format("%s/mailfs", w->directory);
	struct stat st;
	int stale, code;
	assert_int_equal(mkdir(directory, 0755), 0);
	assert_int_equal(socket_listen(path, &stale, NULL), MF_OK);
	close(stale); /* the file stays, and nobody listens */
	assert_int_equal(control_ask("work", "ping", hear, NULL, &code, NULL), MF_NOT_FOUND);
	struct control_server *server = serve(w), *second;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(directory, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	struct mf_reason why = { "" };
	assert_int_equal(control_server_start(&w->control, &second, &why), MF_BUSY);
	assert_non_null(strstr(why.text, "another mailfs"));
	char **running = path_running_accounts();
	assert_string_equal(running[0], "work");
	assert_null(running[1]);
	path_list_destroy(running);
	control_server_stop(server);
	assert_int_equal(access(path, F_OK), -1);
	world_destroy(w);
}

/* A process that is stopped takes nobody in, and the kernel keeps only so many waiting. */
static void who_takes_nobody_in_is_not_waited_for(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	MF_CLEANUP(mf_free) char *path = path_socket("work", 0);
	struct mf_reason why = { "" };
	int listening, waiting[40], another, code = 0;
	assert_int_equal(socket_listen(path, &listening, &why), MF_OK);
	socket_connect_ms_for_tests = 100;
	size_t count = 0;
	while (count < 40 && socket_connect(path, &waiting[count], &why) == MF_OK)
		count++;
	assert_true(count > 0 && count < 40);
	alarm(20); /* it waited for ever */
	assert_int_equal(control_ask("work", "status", hear, NULL, &code, &why), MF_TIMEOUT);
	assert_non_null(strstr(why.text, "does not answer"));
	assert_int_equal(socket_listen(path, &another, &why), MF_BUSY);
	alarm(0);
	socket_connect_ms_for_tests = 5000;
	while (count)
		close(waiting[--count]);
	close(listening);
	world_destroy(w);
}

static void a_file_in_the_way_is_left_alone(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	MF_CLEANUP(mf_free) char *directory = mf_format("%s/mailfs", w->directory);
	MF_CLEANUP(mf_free) char *path = path_socket("work", 0);
	assert_int_equal(mkdir(directory, 0700), 0);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fclose(file);
	struct control_server *server;
	assert_int_equal(control_server_start(&w->control, &server, NULL), MF_EXISTS);
	assert_int_equal(access(path, F_OK), 0);
	world_destroy(w);
}

static void long_paths_have_sockets_too(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	MF_CLEANUP(mf_free) char *deep = mf_format("%s/%0120d", w->directory, 0);
	setenv("XDG_RUNTIME_DIR", deep, 1);
	struct control_server *server = serve(w);
	char *text;
	assert_int_equal(ask_text("ping", &text), EXIT_OK);
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

/* As root the directory and the socket can be opened to others, and only the peer's identity is left to refuse them. */
static void another_user_is_refused(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	MF_CLEANUP(mf_free) char *directory = mf_format("%s/mailfs", w->directory);
	MF_CLEANUP(mf_free) char *path = path_socket("work", 0);
	assert_int_equal(chmod(w->directory, 0755) | chmod(directory, 0755) | chmod(path, 0666), 0);
	pid_t child = fork();
	if (child == 0) {
		if (setgid(65534) || setuid(65534))
			_exit(2);
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		strcpy(address.sun_path, path);
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (connect(fd, (struct sockaddr *)&address, sizeof address))
			_exit(3);
		(void)send(fd, "ping\n", 5, MSG_NOSIGNAL); /* it may have been refused already */
		char answer[512] = "";
		ssize_t n = read(fd, answer, sizeof answer - 1);
		_exit(n > 0 && strstr(answer, "another user") && !strstr(answer, "ping") ? 0 : 4);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	control_server_stop(server);
	world_destroy(w);
}

struct told { struct cancel stop; char text[4096]; bool deaf; };

static bool note_text(void *context, const char *json)
{
	struct told *t = context;
	size_t len = strlen(t->text);
	snprintf(t->text + len, sizeof t->text - len, "%s\n", json);
	return !t->deaf;
}

static int tell(struct world *w, struct told *t, const char *line)
{
	t->text[0] = 0;
	return control_run(&w->control, "work", line, &t->stop, note_text, t);
}

/* an account that is not connected, and a change that waits */
static struct world *with_one_change(struct told *t)
{
	struct world *w = world_create(false, 65536);
	*t = (struct told){ .text = "" };
	assert_true(cancel_init(&t->stop));
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	world_start(w);
	assert_int_equal(tell(w, t, "disconnect"), EXIT_OK);
	assert_int_equal(tell(w, t, "subscribe Archive"), EXIT_OK);
	return w;
}

/* The client waits a minute for a word, and no longer */
static void cancel_all_says_how_far_it_is(void **state)
{
	(void)state;
	struct told t;
	struct world *w = with_one_change(&t);
	t.deaf = true;
	assert_int_equal(tell(w, &t, "cancel all"), EXIT_CANCELLED);
	t.deaf = false;
	assert_int_equal(tell(w, &t, "cancel all"), EXIT_OK);
	if (!strstr(t.text, "{\"progress\":{\"doing\":\"taking changes back\",\"done\":0,\"total\":1,\"unit\":\"changes\""))
		fail_msg("%s", t.text);
	assert_non_null(strstr(t.text, "\"done\":1"));
	cancel_finish(&t.stop);
	world_destroy(w);
}

/* however many there are: what has been taken back by then is, and the others wait on */
static void who_interrupts_cancel_all_is_heard(void **state)
{
	(void)state;
	struct told t;
	struct world *w = with_one_change(&t);
	cancel_raise(&t.stop);
	assert_int_equal(tell(w, &t, "cancel all"), EXIT_CANCELLED);
	assert_non_null(strstr(t.text, "\"done\":0"));
	cancel_clear(&t.stop);
	assert_int_equal(tell(w, &t, "pending"), EXIT_OK);
	assert_non_null(strstr(t.text, "subscribe to Archive"));
	assert_int_equal(tell(w, &t, "cancel all"), EXIT_OK);
	assert_non_null(strstr(t.text, "\"done\":1"));
	cancel_finish(&t.stop);
	world_destroy(w);
}

static void sync_fetches_and_list_shows(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	for (int i = 0; i < 5; i++) {
		MF_CLEANUP(mf_free) char *subject = mf_format("number %d", i);
		world_deliver(w, "Archive", subject);
	}
	struct control_server *server = serve(w);
	world_start(w);
	char *text;
	assert_int_equal(ask_text("sync Archive", &text), EXIT_OK);
	free(text);
	assert_int_equal(ask_text("sync work/Archive/", &text), EXIT_OK);
	free(text);
	assert_int_equal(ask_text("sync Arch%69ve INBOX", &text), EXIT_OK);
	free(text);
	static const char *const dashes[] = { "sync --wait -- -x", "sync -- -x", "subscribe -- -x", "unsubscribe -- -x" };
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(ask_text(dashes[i], &text), EXIT_NOT_FOUND);
		assert_non_null(strstr(text, "no mailbox -x"));
		free(text);
	}
	assert_int_equal(ask_text("sync -- --wait", &text), EXIT_NOT_FOUND);
	free(text);
	assert_int_equal(ask_text("sync Nowhere", &text), EXIT_NOT_FOUND);
	assert_non_null(strstr(text, "work has no mailbox Nowhere"));
	free(text);
	assert_int_equal(ask_text("list", &text), EXIT_OK);
	char *archive = strstr(text, "{\"mailbox\":\"Archive\"");
	assert_non_null(archive);
	assert_true(strstr(text, "{\"mailbox\":\"INBOX\"") < archive); /* INBOX comes first */
	archive[strcspn(archive, "\n")] = 0;
	assert_non_null(strstr(archive, "\"messages\":5"));
	assert_non_null(strstr(archive, "\"state\":\"current\""));
	assert_non_null(strstr(archive, "\"sync\":\"headers\""));
	assert_non_null(strstr(archive, "\"special_use\":\"archive\""));
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

static void populate_fetches_bodies_and_check_counts_them(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	for (int i = 0; i < 3; i++) {
		MF_CLEANUP(mf_free) char *subject = mf_format("number %d", i);
		world_deliver(w, "INBOX", subject);
	}
	struct control_server *server = serve(w);
	world_start(w);
	char *text;
	assert_int_equal(ask_text("sync --populate", &text), EXIT_OK);
	free(text);
	assert_int_equal(ask_text("check --local", &text), EXIT_OK);
	assert_non_null(strstr(text, "\"messages\":3,\"bodies\":3,\"problems\":0,\"server\":false"));
	free(text);
	assert_int_equal(ask_text("check", &text), EXIT_OK);
	assert_non_null(strstr(text, "\"problems\":0,\"server\":true"));
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

static void check_names_sections_without_a_mailbox(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	static char archive[] = "Archive", wrong[] = "Archiv";
	struct mailbox_config sections[] = { { .name = archive, .has_sync = true }, { .name = wrong, .has_sync = true } };
	struct told t = { .text = "" };
	assert_true(cancel_init(&t.stop));
	memory_mailbox_add(w->server, "Archive", 0, USE_ARCHIVE);
	w->config->mailboxes = sections;
	w->config->mailbox_count = 2;
	assert_int_equal(tell(w, &t, "check --local"), EXIT_OK); /* nobody knows yet which ones there are */
	world_start(w);
	assert_int_equal(tell(w, &t, "check --local"), EXIT_PARTIAL);
	assert_non_null(strstr(t.text, "\"mailbox\":\"Archiv\""));
	assert_null(strstr(t.text, "\"mailbox\":\"Archive\""));
	assert_non_null(strstr(t.text, "\"problems\":1"));
	w->config->mailbox_count = 0;
	w->config->mailboxes = NULL;
	cancel_finish(&t.stop);
	world_destroy(w);
}

static void disconnect_holds_until_connect(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	struct control_server *server = serve(w);
	world_start(w);
	char *text;
	assert_int_equal(ask_text("disconnect", &text), EXIT_OK);
	assert_non_null(strstr(text, "\"link\":\"waiting\""));
	free(text);
	assert_int_equal(ask_text("sync", &text), EXIT_OFFLINE);
	assert_non_null(strstr(text, "mailfs connect work"));
	free(text);
	assert_int_equal(ask_text("connect", &text), EXIT_OK);
	assert_non_null(strstr(text, "\"link\":\"online\""));
	free(text);
	memory_login_result(w->server, MF_AUTH);
	assert_int_equal(ask_text("connect", &text), EXIT_AUTH);
	free(text);
	assert_int_equal(ask_text("sync", &text), EXIT_AUTH); /* and did not try the password again */
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

struct asker {
	pthread_t thread;
	const char *line;
	struct heard heard;
	int code;
};

static void *run_asker(void *context)
{
	struct asker *a = context;
	a->code = ask(a->line, &a->heard);
	return NULL;
}

static void asker_start(struct asker *a, const char *line, size_t stop_after, const char *awaited)
{
	heard_init(&a->heard);
	a->heard.awaited = awaited;
	a->line = line;
	a->heard.stop_after = stop_after;
	assert_int_equal(pthread_create(&a->thread, NULL, run_asker, a), 0);
}

static void events_are_streamed(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	struct control_server *server = serve(w);
	world_start(w);
	char *text;
	assert_int_equal(ask_text("sync", &text), EXIT_OK);
	free(text);
	bus_flush(w->bus);
	struct asker from_start;
	asker_start(&from_start, "events --all", 1, NULL); /* the listing of INBOX has happened */
	pthread_join(from_start.thread, NULL);
	buf_finish(&from_start.heard.text);
	struct asker asker;
	asker_start(&asker, "events --all", 0, "brand-new");
	world_deliver(w, "INBOX", "brand new");
	assert_int_equal(ask_text("sync", &text), EXIT_OK);
	free(text);
	AWAIT(atomic_load(&asker.heard.heard));
	control_server_stop(server); /* ends the stream, and says so */
	pthread_join(asker.thread, NULL);
	assert_int_equal(asker.code, EXIT_OK);
	assert_non_null(strstr(asker.heard.text.data, "\"event\":\"message-added\",\"mailbox\":\"INBOX\",\"name\":\""));
	assert_non_null(strstr(asker.heard.text.data, "brand-new"));
	assert_non_null(strstr(asker.heard.text.data, "\"new\":true"));
	buf_finish(&asker.heard.text);
	world_destroy(w);
}

static void a_late_reader_is_told_what_he_missed(void **state)
{
	(void)state;
	struct world *w = world_create(true, 2048);
	struct control_server *server = serve(w);
	for (uint32_t i = 0; i < 100; i++) {
		struct change change = { .kind = CHANGE_MESSAGE_ADDED, .mailbox = 9, .message = 7, .name = "a.eml", .uid = i + 1 };
		bus_publish(w->bus, &change);
	}
	bus_flush(w->bus);
	struct asker asker;
	asker_start(&asker, "events --all", 0, "\"uid\":100");
	AWAIT(atomic_load(&asker.heard.heard));
	control_server_stop(server);
	pthread_join(asker.thread, NULL);
	assert_non_null(strstr(asker.heard.text.data, "\"event\":\"events-lost\",\"bytes\":"));
	buf_finish(&asker.heard.text);
	world_destroy(w);
}

/* A reader who takes no more than the socket holds: the server neither drops him nor is held up by him when it stops. */
static void a_slow_reader_stops_nobody(void **state)
{
	(void)state;
	struct world *w = world_create(true, 8U << 20);
	struct control_server *server = serve(w);
	for (uint32_t i = 0; i < 20000; i++) {
		struct change change = { .kind = CHANGE_MESSAGE_ADDED, .mailbox = 9, .message = 7, .name = "a.eml", .uid = i + 1 };
		bus_publish(w->bus, &change);
	}
	bus_flush(w->bus);
	int fd = dial(), got = 0;
	assert_true(socket_send(fd, "events --all\n", 13));
	AWAIT(ioctl(fd, FIONREAD, &got) == 0 && got > 0);
	int64_t before = clock_mono_ms();
	control_server_stop(server);
	assert_true(clock_mono_ms() - before < 9000); /* not the ten seconds of one who does not read */
	close(fd);
	world_destroy(w);
}

static void a_client_that_leaves_ends_its_verb(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	struct control_server *server = serve(w);
	world_start(w);
	memory_block(w->server, MEMORY_MAILBOXES);
	memory_block(w->server, MEMORY_CHANGES);
	struct asker asker;
	asker_start(&asker, "sync", 1, NULL); /* leaves after the first line of progress */
	pthread_join(asker.thread, NULL);
	assert_non_null(strstr(asker.heard.text.data, "progress"));
	assert_int_equal(asker.code, EXIT_CANCELLED);
	buf_finish(&asker.heard.text);
	memory_release(w->server);
	/* and one whose verb is blocked when the server stops is told */
	memory_block(w->server, MEMORY_MAILBOXES);
	memory_block(w->server, MEMORY_CHANGES);
	asker_start(&asker, "sync", 0, "progress");
	AWAIT(atomic_load(&asker.heard.heard));
	control_server_stop(server);
	pthread_join(asker.thread, NULL);
	assert_int_equal(asker.code, EXIT_CANCELLED);
	buf_finish(&asker.heard.text);
	memory_release(w->server);
	world_destroy(w);
}

static void stop_is_handed_on(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct control_server *server = serve(w);
	char *text;
	assert_int_equal(ask_text("stop", &text), EXIT_OK);
	free(text);
	assert_true(w->stopped);
	w->control.on_stop = NULL;
	assert_int_equal(ask_text("stop", &text), EXIT_NOT_FOUND);
	free(text);
	control_server_stop(server);
	world_destroy(w);
}

static void ctl_starts_verbs(void **state)
{
	(void)state;
	struct world *w = world_create(false, 65536);
	world_start(w);
	assert_int_equal(control_start(&w->control, "work", "explode"), MF_INVALID);
	assert_int_equal(control_start(&w->control, "work", ""), MF_INVALID);
	assert_int_equal(control_start(&w->control, "work", "events"), MF_INVALID); /* it would hold its place for ever */
	memory_block(w->server, MEMORY_MAILBOXES);
	memory_block(w->server, MEMORY_CHANGES);
	for (int i = 0; i < 8; i++)
		assert_int_equal(control_start(&w->control, "work", "sync"), MF_OK);
	assert_int_equal(control_start(&w->control, "work", "sync"), MF_BUSY);
	control_finish(&w->control); /* ends them all */
	memory_release(w->server);
	assert_int_equal(control_start(&w->control, "work", "disconnect"), MF_OK);
	struct link_info link;
	AWAIT((account_link(w->account, &link), link.state == LINK_WAITING));
	control_finish(&w->control);
	world_destroy(w);
}

static void another_account_is_not_here(void **state)
{
	(void)state;
	struct world *w = world_create(true, 65536);
	struct cancel stop;
	struct heard h;
	assert_true(cancel_init(&stop));
	heard_init(&h);
	assert_int_equal(control_run(&w->control, "home", "ping", &stop, hear, &h), EXIT_NOT_FOUND);
	assert_int_equal(control_run(&w->control, NULL, "ping", &stop, hear, &h), EXIT_OK);
	buf_finish(&h.text);
	cancel_finish(&stop);
	world_destroy(w);
}

static void quoting_survives_the_line(void **state)
{
	(void)state;
	MF_CLEANUP(mf_free) char *quoted = control_quote("50% off\n\tIn\xc3\xb6x/a b");
	assert_string_equal(quoted, "50%25%20off%0A%09In\xc3\xb6x/a%20b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ping_tells_who_and_where),
		cmocka_unit_test(bad_requests_are_told),
		cmocka_unit_test(several_requests_share_a_connection),
		cmocka_unit_test(a_line_has_a_limit),
		cmocka_unit_test(too_many_clients_are_refused),
		cmocka_unit_test(sockets_are_private_and_stale_ones_replaced),
		cmocka_unit_test(who_takes_nobody_in_is_not_waited_for),
		cmocka_unit_test(a_file_in_the_way_is_left_alone),
		cmocka_unit_test(long_paths_have_sockets_too),
		cmocka_unit_test(another_user_is_refused),
		cmocka_unit_test(who_interrupts_cancel_all_is_heard), cmocka_unit_test(cancel_all_says_how_far_it_is), cmocka_unit_test(sync_fetches_and_list_shows),
		cmocka_unit_test(populate_fetches_bodies_and_check_counts_them),
		cmocka_unit_test(check_names_sections_without_a_mailbox),
		cmocka_unit_test(disconnect_holds_until_connect),
		cmocka_unit_test(events_are_streamed),
		cmocka_unit_test(a_late_reader_is_told_what_he_missed),
		cmocka_unit_test(a_slow_reader_stops_nobody),
		cmocka_unit_test(a_client_that_leaves_ends_its_verb),
		cmocka_unit_test(stop_is_handed_on),
		cmocka_unit_test(ctl_starts_verbs),
		cmocka_unit_test(another_account_is_not_here),
		cmocka_unit_test(quoting_survives_the_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* One thread accepts and watches for clients that went away; each client has a thread of its own, which runs its requests
 * one after another. Nothing here wakes up by a timer while nobody asks. */
#include "control/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/paths.h"
#include "control/socket.h"
#include "control/verb.h"

#define CLIENTS_MAX 16
#define REQUEST_SECONDS 10     /* a client that is silent before or inside a request */
#define ANSWER_SECONDS 10      /* a client that does not read its answer */

struct listener {
	int fd;
	char *path;
	const char *account;       /* lives as long as the account */
	dev_t device;              /* of our socket file, so that only it is removed */
	ino_t inode;
};

struct client {
	LIST_ENTRY(client) link;
	struct control_server *server;
	const char *account;
	int fd;
	struct cancel stop;
	pthread_t thread;
	bool patient;              /* its own thread's: events wait for a reader who takes his time */
	bool gone;                 /* hung up: not polled any more */
	bool ended;                /* the thread is about to return: to be joined */
};

struct control_server {
	const struct control *control;
	struct listener *listeners;
	size_t count;
	pthread_t thread;
	int wake;                  /* an eventfd: look at the lists again */
	pthread_mutex_t lock;      /* guards what follows, and gone and ended of the clients */
	LIST_HEAD(, client) clients;
	size_t client_count;
	bool stopping;
};

static void wake(struct control_server *server)
{
	(void)eventfd_write(server->wake, 1); /* full: readable all the same */
}

/* --- one client ---------------------------------------------------------------------------------------------------- */

/* Room for more; false: the client does not read, or is to end. */
static bool await_room(struct client *client)
{
	struct pollfd fds[2] = { { .fd = client->fd, .events = POLLOUT }, { .fd = client->stop.fd, .events = POLLIN } };
	if (cancel_is_raised(&client->stop))
		return false;
	int ready = poll(fds, 2, client->patient ? -1 : ANSWER_SECONDS * 1000);
	return ready > 0 || (ready < 0 && errno == EINTR);
}

static bool say(void *context, const char *json)
{
	struct client *client = context;
	MF_CLEANUP(mf_free) char *line = mf_format("%s\n", json);
	size_t len = strlen(line), done = 0;
	while (done < len) {
		ssize_t n = send(client->fd, line + done, len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR && (errno != EAGAIN || !await_room(client)))
			return false;
	}
	return true;
}

/* The next line, without its newline; false: there is none, it is too long, or the client is silent. */
static bool read_request(struct client *client, struct buf *b, size_t *ret_len)
{
	while (!cancel_is_raised(&client->stop)) {
		char *end = memchr(b->data, '\n', b->len), chunk[4096];
		if (end) {
			*end = 0;
			*ret_len = (size_t)(end - b->data) + 1;
			return strlen(b->data) + 1 == *ret_len;   /* a NUL inside is no request */
		}
		ssize_t n = recv(client->fd, chunk, sizeof chunk, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		if (buf_add(b, chunk, (size_t)n)) {
			(void)say(client, "{\"exit\":1,\"error\":\"the request is too long\"}");
			return false;
		}
	}
	return false;
}

static void *serve_client(void *context)
{
	struct client *client = context;
	struct control_server *server = client->server;
	struct buf b;
	size_t len;
	buf_init(&b, VERB_LINE_MAX);
	while (read_request(client, &b, &len)) {
		client->patient = !strncmp(b.data, "events", 6);
		control_run(server->control, client->account, b.data, &client->stop, say, client);
		buf_drop(&b, len);
	}
	buf_finish(&b);
	shutdown(client->fd, SHUT_RDWR);
	pthread_mutex_lock(&server->lock);
	client->ended = true;
	wake(server);
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

static void client_destroy(struct client *client)
{
	mf_close(&client->fd);
	cancel_finish(&client->stop);
	free(client);
}

/* --- coming and going ---------------------------------------------------------------------------------------------- */

static void set_limits(int fd)
{
	struct timeval limit = { .tv_sec = REQUEST_SECONDS };
	/* neither can fail with these arguments */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

/* Why a new connection is not served; NULL: it is. */
static const char *refuse(struct control_server *server, int fd)
{
	uid_t uid;
	pid_t pid;
	if (!socket_peer(fd, &uid, &pid))
		return "who asks cannot be told";
	if (uid != geteuid() && uid != 0) {
		log_warning("control: refused a request of user %ju (process %jd)", (uintmax_t)uid, (intmax_t)pid);
		return "this mailfs belongs to another user";
	}
	return server->client_count >= CLIENTS_MAX ? "too many commands talk to this mailfs" : NULL;
}

static void start_client(struct control_server *server, const struct listener *listener, int fd)
{
	struct client *client = MF_NEW(struct client);
	client->server = server;
	client->account = listener->account;
	client->fd = fd;
	if (!cancel_init(&client->stop)) {
		client_destroy(client);
		return;
	}
	pthread_mutex_lock(&server->lock);
	bool started = !pthread_create(&client->thread, NULL, serve_client, client);
	if (started) {
		LIST_INSERT_HEAD(&server->clients, client, link);
		server->client_count++;
	}
	pthread_mutex_unlock(&server->lock);
	if (!started)
		client_destroy(client);
}

static void accept_client(struct control_server *server, const struct listener *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			poll(NULL, 0, 100); /* it stays in the queue: do not spin on it */
		return;
	}
	set_limits(fd);
	const char *reason = refuse(server, fd);
	if (!reason) {
		start_client(server, listener, fd);
		return;
	}
	MF_CLEANUP(mf_free) char *line = mf_format("{\"exit\":%d,\"error\":\"%s\"}\n", EXIT_BUSY, reason);
	(void)socket_send(fd, line, strlen(line));
	mf_close(&fd);
}

/* Joins the clients whose threads have ended. */
static void reap(struct control_server *server)
{
	pthread_mutex_lock(&server->lock);
	struct client *client = LIST_FIRST(&server->clients);
	while (client) {
		struct client *next = LIST_NEXT(client, link);
		if (client->ended) {
			LIST_REMOVE(client, link);
			server->client_count--;
			pthread_mutex_unlock(&server->lock);
			pthread_join(client->thread, NULL);
			client_destroy(client);
			pthread_mutex_lock(&server->lock);
			next = LIST_FIRST(&server->clients);
		}
		client = next;
	}
	pthread_mutex_unlock(&server->lock);
}

/* A client closed its end while its verb runs: the verb is to end. One that only said all it has to say (shutdown of
 * its writing half) does not count. */
static void hang_up(struct control_server *server, struct client *client)
{
	client->gone = true;
	cancel_raise(&client->stop);
	if (server->control->events)
		eventlog_wake(server->control->events);
}

struct polled {
	struct pollfd *fds;
	struct client **clients;   /* beside fds, behind the listeners and the eventfd */
	size_t count;
};

static void fill_polled(struct control_server *server, struct polled *p)
{
	p->count = 0;
	p->fds[p->count++] = (struct pollfd){ .fd = server->wake, .events = POLLIN };
	for (size_t i = 0; i < server->count; i++)
		p->fds[p->count++] = (struct pollfd){ .fd = server->listeners[i].fd, .events = POLLIN };
	struct client *client;
	pthread_mutex_lock(&server->lock);
	LIST_FOREACH(client, &server->clients, link) {
		if (client->gone || client->ended)
			continue;
		p->clients[p->count] = client;
		p->fds[p->count++] = (struct pollfd){ .fd = client->fd }; /* POLLHUP only */
	}
	pthread_mutex_unlock(&server->lock);
}

static void *serve(void *context)
{
	struct control_server *server = context;
	size_t room = 1 + server->count + CLIENTS_MAX;
	struct polled p = { mf_alloc_array(room, sizeof *p.fds), mf_alloc_array(room, sizeof *p.clients), 0 };
	while (true) {
		pthread_mutex_lock(&server->lock);
		bool stopping = server->stopping;
		pthread_mutex_unlock(&server->lock);
		if (stopping)
			break;
		fill_polled(server, &p);
		if (poll(p.fds, p.count, -1) < 0)
			continue;
		if (p.fds[0].revents) {
			eventfd_t ignored;
			(void)eventfd_read(server->wake, &ignored);
		}
		for (size_t i = 1 + server->count; i < p.count; i++)
			if (p.fds[i].revents & (POLLHUP | POLLERR))
				hang_up(server, p.clients[i]);
		reap(server);
		for (size_t i = 0; i < server->count; i++)
			if (p.fds[1 + i].revents)
				accept_client(server, &server->listeners[i]);
	}
	free(p.fds);
	free(p.clients);
	return NULL;
}

/* --- start and stop ------------------------------------------------------------------------------------------------ */

static enum mf_err listen_for(struct listener *listener, const char *account, struct mf_reason *why)
{
	listener->account = account;
	MF_CLEANUP(mf_free) char *path = path_socket(account, 0);
	if (!path)
		path = path_socket(account, PATH_SOCKETS - 1);
	enum mf_err e = socket_listen(path, &listener->fd, why);
	if (e)
		return e;
	struct stat st;
	if (lstat(path, &st) == 0) {
		listener->device = st.st_dev;
		listener->inode = st.st_ino;
	}
	listener->path = path;
	path = NULL;
	return MF_OK;
}

static void listeners_finish(struct control_server *server)
{
	for (size_t i = 0; i < server->count; i++) {
		struct listener *listener = &server->listeners[i];
		struct stat st;
		if (listener->path && !lstat(listener->path, &st) && st.st_dev == listener->device && st.st_ino == listener->inode)
			unlink(listener->path);
		mf_close(&listener->fd);
		free(listener->path);
	}
	free(server->listeners);
}

enum mf_err control_server_start(const struct control *control, struct control_server **ret, struct mf_reason *why)
{
	struct control_server *server = MF_NEW(struct control_server);
	server->control = control;
	server->count = control->count;
	server->listeners = mf_alloc_array(control->count, sizeof *server->listeners);
	server->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&server->lock, NULL);
	for (size_t i = 0; i < control->count; i++)
		server->listeners[i].fd = -1;
	enum mf_err e = server->wake < 0 ? mf_fail(why, MF_IO, "out of descriptors") : MF_OK;
	for (size_t i = 0; i < control->count && !e; i++)
		e = listen_for(&server->listeners[i], account_config(control->accounts[i])->name, why);
	if (!e && pthread_create(&server->thread, NULL, serve, server))
		e = mf_fail(why, MF_IO, "cannot start a thread");
	if (e) {
		listeners_finish(server);
		mf_close(&server->wake);
		pthread_mutex_destroy(&server->lock);
		free(server);
		return e;
	}
	*ret = server;
	return MF_OK;
}

void control_server_stop(struct control_server *server)
{
	if (!server)
		return;
	pthread_mutex_lock(&server->lock);
	server->stopping = true;
	pthread_mutex_unlock(&server->lock);
	wake(server);
	pthread_join(server->thread, NULL);
	struct client *client;
	while ((client = LIST_FIRST(&server->clients))) { /* ours alone now, but for their own `ended` */
		LIST_REMOVE(client, link);
		cancel_raise(&client->stop);
		shutdown(client->fd, SHUT_RD);
		if (server->control->events)
			eventlog_wake(server->control->events);
		pthread_join(client->thread, NULL);
		client_destroy(client);
	}
	listeners_finish(server);
	mf_close(&server->wake);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

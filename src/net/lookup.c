#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "net/layers.h"

/* Shared by the asking thread and the resolver's; the last one to leave frees it, as getaddrinfo(3) cannot be stopped. */
struct job {
	atomic_int users;
	atomic_bool done;
	int fd;                  /* an eventfd, readable when done */
	char *host;
	char service[8];
	int result, number;      /* of getaddrinfo; errno with EAI_SYSTEM */
	struct addrinfo *list;
};

static void job_leave(struct job *job)
{
	if (atomic_fetch_sub_explicit(&job->users, 1, memory_order_acq_rel) != 1)
		return;
	if (job->list)
		freeaddrinfo(job->list);
	mf_close(&job->fd);
	free(job->host);
	free(job);
}

static int resolve(const char *host, const char *service, int flags, struct addrinfo **ret)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags };
	return getaddrinfo(host, service, &hints, ret);
}

static void *run(void *argument)
{
	struct job *job = argument;
	job->result = resolve(job->host, job->service, 0, &job->list);
	job->number = errno;
	if (job->result)
		job->list = NULL;
	atomic_store_explicit(&job->done, true, memory_order_release);
	(void)eventfd_write(job->fd, 1); /* cannot be full: it is written once */
	job_leave(job);
	return NULL;
}

/* A detached thread that takes no signal. */
static bool start(struct job *job)
{
	pthread_attr_t attributes;
	pthread_t thread;
	sigset_t all, before;
	if (pthread_attr_init(&attributes))
		return false;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	bool started = !pthread_create(&thread, &attributes, run, job);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return started;
}

static enum mf_err await(struct job *job, const struct transport_options *options, int64_t limit_ms, struct mf_reason *why)
{
	struct pollfd fds[] = { { .fd = options->cancel->fd, .events = POLLIN }, { .fd = job->fd, .events = POLLIN } };
	int n = wire_poll(fds, 2, limit_ms);
	if (n < 0)
		return mf_fail(why, MF_IO, "poll: %s", wire_words(errno));
	if (fds[0].revents)
		return mf_fail(why, MF_CANCELLED, "%s: interrupted", options->host);
	if (n == 0)
		return mf_fail(why, MF_TIMEOUT, "%s: the name could not be looked up in time", options->host);
	return MF_OK;
}

static enum mf_err outcome(struct job *job, const struct transport_options *options, struct addrinfo **ret, struct mf_reason *why)
{
	if (!atomic_load_explicit(&job->done, memory_order_acquire))
		return mf_fail(why, MF_IO, "%s: the lookup thread is lost", options->host);
	if (job->result == EAI_SYSTEM)
		return mf_fail(why, MF_OFFLINE, "%s: the name could not be looked up: %s", options->host, wire_words(job->number));
	if (job->result)
		return mf_fail(why, MF_OFFLINE, "%s: the name could not be looked up: %s", options->host, gai_strerror(job->result));
	*ret = job->list;
	job->list = NULL;
	return MF_OK;
}

enum mf_err lookup_addresses(const struct transport_options *options, int64_t limit_ms, struct addrinfo **ret, struct mf_reason *why)
{
	char service[8];
	snprintf(service, sizeof service, "%u", options->port);
	if (!resolve(options->host, service, AI_NUMERICHOST, ret))
		return MF_OK;
	struct job *job = MF_NEW(struct job);
	atomic_init(&job->users, 2);
	job->host = mf_strdup(options->host);
	snprintf(job->service, sizeof job->service, "%s", service);
	job->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	enum mf_err e;
	if (job->fd < 0 || !start(job)) {
		e = mf_fail(why, MF_IO, "%s: no descriptor or thread left to look the name up", options->host);
		job_leave(job);
	} else {
		e = await(job, options, limit_ms, why);
		if (!e)
			e = outcome(job, options, ret, why);
	}
	job_leave(job);
	return e;
}

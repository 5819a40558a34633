#include "net/netwatch.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

struct netwatch {
	int epoll;     /* readable when one of the others is; they may be -1 */
	int route;     /* rtnetlink */
	int timer;     /* never goes off, but is cancelled when the clock is set: on waking up, for one */
};

static bool watch(struct netwatch *w, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	return fd >= 0 && !epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_route(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR };
	if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address))
		mf_close(&fd);
	return fd;
}

static bool arm(int fd)
{
	const struct itimerspec far = { .it_value.tv_sec = clock_wall_s() + 100LL * 365 * 86400 };
	return !timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL);
}

static int open_timer(void)
{
	int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (fd >= 0 && !arm(fd))
		mf_close(&fd);
	return fd;
}

struct netwatch *netwatch_create(void)
{
	struct netwatch *w = MF_NEW(struct netwatch);
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->route = open_route();
	w->timer = open_timer();
	if (w->epoll >= 0) {
		bool route = watch(w, w->route), timer = watch(w, w->timer);
		if (route || timer)
			return w;
	}
	netwatch_destroy(w);
	return NULL;
}

int netwatch_fd(const struct netwatch *w)
{
	return w->epoll;
}

/* the kernel's macros for these two cast const away */
static const void *body_of(const struct nlmsghdr *message)
{
	return (const char *)message + NLMSG_HDRLEN;
}

static const void *value_of(const struct rtattr *attribute)
{
	return (const char *)attribute + RTA_LENGTH(0);
}

static const struct rtattr *find_attribute(const struct nlmsghdr *message, unsigned short type)
{
	const struct ifaddrmsg *body = body_of(message);
	size_t left = IFA_PAYLOAD(message);
	const char *p = (const char *)body + NLMSG_ALIGN(sizeof *body);
	while (left >= sizeof(struct rtattr)) {
		const struct rtattr *attribute = (const void *)p;
		if (attribute->rta_len < sizeof *attribute || attribute->rta_len > left)
			return NULL;
		if (attribute->rta_type == type)
			return attribute;
		size_t step = RTA_ALIGN(attribute->rta_len);
		if (step >= left)
			return NULL;
		p += step;
		left -= step;
	}
	return NULL;
}

/* A router's every advertisement announces again what it only prolongs; such an address was last touched later than created.
 * One that is not yet known to be unique cannot be used yet, and is announced again when it is. */
static bool is_news(const struct nlmsghdr *message)
{
	if (message->nlmsg_type == RTM_DELADDR)
		return true;
	if (message->nlmsg_type != RTM_NEWADDR || message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
		return false;
	const struct ifaddrmsg *body = body_of(message);
	if (body->ifa_flags & IFA_F_TENTATIVE)
		return false;
	const struct rtattr *attribute = find_attribute(message, IFA_CACHEINFO);
	if (!attribute || RTA_PAYLOAD(attribute) < sizeof(struct ifa_cacheinfo))
		return true;
	const struct ifa_cacheinfo *info = value_of(attribute);
	return info->cstamp == info->tstamp;
}

static bool read_messages(const char *data, size_t len)
{
	bool news = false;
	while (len >= sizeof(struct nlmsghdr)) {
		const struct nlmsghdr *message = (const void *)data;
		if (message->nlmsg_len < sizeof *message || message->nlmsg_len > len)
			break;
		news |= is_news(message);
		size_t step = NLMSG_ALIGN(message->nlmsg_len);
		if (step >= len)
			break;
		data += step;
		len -= step;
	}
	return news;
}

static bool drain_route(int fd)
{
	_Alignas(struct nlmsghdr) char data[16384];
	bool news = false;
	for (;;) {
		ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
		if (n > 0)
			news |= read_messages(data, (size_t)n);
		else if (n < 0 && errno == ENOBUFS) /* some were lost */
			news = true;
		else if (n == 0 || errno != EINTR)
			return news;
	}
}

static bool drain_timer(int fd)
{
	uint64_t ignored;
	bool set = read(fd, &ignored, sizeof ignored) < 0 && errno == ECANCELED;
	if (set && !arm(fd))
		log_warning("the clock can no longer be watched; waking from suspend is noticed later");
	return set;
}

bool netwatch_changed(struct netwatch *w)
{
	bool addresses = w->route >= 0 && drain_route(w->route);
	bool clock = w->timer >= 0 && drain_timer(w->timer);
	return addresses || clock;
}

void netwatch_destroy(struct netwatch *w)
{
	if (!w)
		return;
	mf_close(&w->epoll);
	mf_close(&w->route);
	mf_close(&w->timer);
	free(w);
}

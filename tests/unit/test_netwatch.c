/* net/netwatch, in a network namespace of its own */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/netwatch.h"

static bool readable(const struct netwatch *w, int timeout_ms)
{
	struct pollfd p = { .fd = netwatch_fd(w), .events = POLLIN };
	return poll(&p, 1, timeout_ms) == 1;
}

static void quiet_when_nothing_happens(void **state)
{
	(void)state;
	struct netwatch *w = netwatch_create();
	assert_non_null(w);
	assert_true(netwatch_fd(w) >= 0);
	assert_false(netwatch_changed(w));
	assert_false(readable(w, 0));
	netwatch_destroy(w);
	netwatch_destroy(NULL);
}

static void loopback_up(int fd)
{
	struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &r), 0);
}

static void loopback_address(int fd, uint32_t host_part)
{
	struct ifreq r = { .ifr_name = "lo" };
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000 + host_part) };
	memcpy(&r.ifr_addr, &to, sizeof to);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &r), 0);
}

static void notices_addresses(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET)) {
		print_message("no network namespace can be had here\n");
		skip();
	}
	struct netwatch *w = netwatch_create();
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	loopback_up(fd); /* which gives it 127.0.0.1 */
	assert_true(readable(w, 10000));
	assert_true(netwatch_changed(w));
	while (readable(w, 0)) /* ::1 may come a little later */
		netwatch_changed(w);
	loopback_address(fd, 5);
	assert_true(readable(w, 10000));
	assert_true(netwatch_changed(w));
	assert_false(netwatch_changed(w));
	assert_false(readable(w, 0));
	close(fd);
	netwatch_destroy(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(quiet_when_nothing_happens), cmocka_unit_test(notices_addresses) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}

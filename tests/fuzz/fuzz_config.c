/* Any bytes as a config file: refused with a reason that names the file, or accounts that are right */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "config/config.h"
#include "fuzz/fuzz.h"

static void check_account(const struct account_config *a)
{
	HOLDS(*a->name && *a->name != '.' && !strchr(a->name, '/'));
	HOLDS(account_config_check(a, NULL) == MF_OK);
	HOLDS(a->imap.host || a->pop3.host);
	HOLDS(!a->imap.host || a->imap.port);
	HOLDS(a->connections >= 1 && a->connections <= 10);
	HOLDS(a->poll_ms > 0 && a->io_timeout_ms > 0 && a->connect_timeout_ms > 0 && a->send_delay_ms >= 0);
	HOLDS(a->leave_on_server_days >= -1);
	HOLDS(a->auth);
	(void)account_config_excludes(a, "Archive/2024");
	(void)account_config_sync(a, "INBOX");
}

static void check_url(const char *text)
{
	struct server_address address;
	MF_CLEANUP(mf_free) char *user = NULL;
	struct mf_reason why = { 0 };
	if (server_address_parse(text, &address, &user, &why) == MF_OK) {
		HOLDS(*address.host && address.port);
		HOLDS(!user || *user);
		server_address_finish(&address);
	} else {
		HOLDS(*why.text);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;
	if (fd < 0) {
		fd = memfd_create("config", 0);
		HOLDS(fd >= 0 && fchmod(fd, 0600) == 0);
	}
	HOLDS(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	struct config *config = NULL;
	struct mf_reason why = { 0 };
	enum mf_err e = config_load(path, &config, &why);
	if (e)
		HOLDS(!config && e == MF_INVALID && strncmp(why.text, path, strlen(path)) == 0);
	else
		for (size_t i = 0; i < config->account_count; i++)
			check_account(config->accounts[i]);
	config_destroy(config);
	MF_CLEANUP(mf_free) char *text = mf_strndup((const char *)data, size);
	check_url(text);
	return 0;
}

#include "control/filing.h"

#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"

static bool ends_with(const char *host, const char *domain)
{
	size_t len = strlen(host), n = strlen(domain);
	return len >= n && strcasecmp(host + len - n, domain) == 0 && (len == n || host[len - n - 1] == '.');
}

/* Servers that put what they are given to send into Sent */
static bool server_files(struct account *account)
{
	static const char *const domains[] = { "gmail.com", "googlemail.com", "office365.com", "outlook.com" };
	const char *host = account_config(account)->smtp.host;
	bool files = account_has_capability(account, "X-GM-EXT-1");
	for (size_t i = 0; host && i < sizeof domains / sizeof *domains; i++)
		files |= ends_with(host, domains[i]);
	return files;
}

bool filing_wanted(struct account *account)
{
	const struct account_config *config = account_config(account);
	if (!config->imap.host)
		return false;
	switch (config->save_sent) {
	case SAVE_SENT_YES: return true;
	case SAVE_SENT_NO: return false;
	case SAVE_SENT_AUTO: return !server_files(account);
	}
	return true;
}

/* When it was made ready: the same each time it is tried */
static int64_t date_of(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 ? st.st_mtim.tv_sec : clock_wall_s();
}

enum mf_err filing_copy(void *context, uint64_t id, int fd, uint64_t size, const char *message_id)
{
	(void)id;
	struct account *account = context;
	struct cache *cache = account_cache(account);
	struct append what = { .fd = fd, .size = size, .internal_date = date_of(fd), .flags = FLAG_SEEN };
	uint64_t sent = 0, made = 0;
	struct txn *t;
	if (!filing_wanted(account))
		return MF_OK;
	enum mf_err err = cache_begin(cache, &t);
	if (err != MF_OK)
		return err;
	err = txn_sent(t, account_config(account)->sent_mailbox, &sent);
	if (err == MF_OK)
		err = txn_append(t, sent, &what, &made);
	if (err != MF_OK) {
		txn_rollback(t);
		return err == MF_EXISTS ? MF_OK : err;
	}
	err = txn_commit(t);
	if (err == MF_OK)
		err = spool_sync(cache, made);
	if (err == MF_OK || err == MF_NOT_FOUND) /* the server has it already */
		err = cache_flush(cache);
	trace(TRACE_SMTP, "%s: the copy in Sent: %s", message_id, mf_err_name(err));
	account_journal_changed(account);
	return err;
}

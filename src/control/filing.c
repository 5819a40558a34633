#include "control/filing.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cache/journal.h"
#include "cache/spool.h"
#include "control/paths.h"
#include "smtp/compose.h"

static bool ends_with(const char *host, const char *domain)
{
	size_t len = strlen(host), n = strlen(domain);
	return len >= n && strcasecmp(host + len - n, domain) == 0 && (len == n || host[len - n - 1] == '.');
}

/* Servers that put what they are given to send into Sent: known by name, or found out */
static bool server_files(struct account *account)
{
	static const char *const domains[] = { "gmail.com", "googlemail.com", "office365.com", "outlook.com" };
	const char *host = account_config(account)->smtp.host;
	bool files = account_has_capability(account, "X-GM-EXT-1") || account_copies(account) == COPIES_BY_SERVER;
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

const char *filing_word(struct account *account)
{
	const struct account_config *config = account_config(account);
	if (!config->imap.host || config->save_sent == SAVE_SENT_NO)
		return "nobody";
	if (!filing_wanted(account))
		return "server";
	return config->save_sent == SAVE_SENT_AUTO && account_copies(account) == COPIES_UNKNOWN ? "unknown" : "mailfs";
}

/* --- maybe sent ----------------------------------------------------------------------------------------------------------- */

#define EARLIER_S 86400            /* how much the server's clock may be behind */
#define SENT_MAX 10000             /* of the newest messages in Sent, how many are looked at */

struct sent_ids { int64_t since_s; uint64_t ids[SENT_MAX]; size_t count; };

static bool add_recent(void *context, const struct entry *e, const char *name)
{
	(void)name;
	struct sent_ids *s = context;
	if (e->mtime >= s->since_s && e->uid)
		s->ids[s->count++ % SENT_MAX] = e->id;
	return true;
}

/* Our Message-ID is with its angle brackets, the index's without. */
static bool is_in(struct cache *cache, const struct sent_ids *s, const char *message_id)
{
	size_t len = strlen(message_id);
	bool found = false;
	for (size_t i = 0; len > 2 && i < s->count && i < SENT_MAX && !found; i++) {
		MF_CLEANUP(message_finish) struct message m = { 0 };
		found = cache_message(cache, s->ids[i], &m) == MF_OK && strlen(m.message_id) == len - 2 && !strncmp(m.message_id, message_id + 1, len - 2);
	}
	return found;
}

static bool find_use(void *context, const struct mailbox *m)
{
	if (m->use == CACHE_USE_SENT)
		*(uint64_t *)context = m->id;
	return m->use != CACHE_USE_SENT;
}

void filing_settle(struct account *account, struct outbox *outbox)
{
	struct cache *cache = account_cache(account);
	struct outbox_counts counts;
	struct outbox_item *items;
	size_t count;
	uint64_t sent = 0;
	outbox_counts(outbox, &counts);
	bool files = server_files(account) || account_config(account)->save_sent == SAVE_SENT_NO;
	if (!counts.maybe || !files || cache_mailboxes(cache, find_use, &sent) != MF_OK || !sent)
		return;
	struct sent_ids *s = MF_NEW(struct sent_ids);
	outbox_items(outbox, &items, &count);
	for (size_t i = 0; i < count; i++) {
		if (items[i].state != OUTBOX_MAYBE || items[i].sent) /* what is in Sent may be what the others got before */
			continue;
		*s = (struct sent_ids){ .since_s = items[i].put_s - EARLIER_S };
		if (cache_list(cache, sent, 0, add_recent, s) == MF_OK && is_in(cache, s, items[i].message_id) &&
		    outbox_settle_sent(outbox, items[i].id, true) == MF_OK)
			log_info("%s: %s was sent: the server has it in Sent", account_config(account)->name, items[i].message_id);
	}
	outbox_items_free(items, count);
	free(s);
}

int64_t filing_look_ms_for_tests = 5000;  /* in which the server puts it there, if it does */
#define CLOCKS_S 2                 /* how much the server's clock may be behind, beside the time that it rests in the outbox */

/* --- copies --------------------------------------------------------------------------------------------------------------- */

static enum mf_err make_durable(struct cache *cache, uint64_t message)
{
	enum mf_err err = spool_sync(cache, message);
	return err == MF_OK || err == MF_NOT_FOUND ? cache_flush(cache) : err; /* MF_NOT_FOUND: the server has it already */
}

/* In the journal, and on the disk; a draft into Drafts, what else it is into Sent */
static enum mf_err file(struct account *account, const struct append *what, uint64_t *ret)
{
	struct cache *cache = account_cache(account);
	uint64_t mailbox = 0;
	struct txn *t;
	enum mf_err err = cache_begin(cache, &t);
	if (err != MF_OK)
		return err;
	err = what->flags & FLAG_DRAFT ? txn_drafts(t, &mailbox) : txn_sent(t, account_config(account)->sent_mailbox, &mailbox);
	if (err == MF_OK)
		err = txn_append(t, mailbox, what, ret);
	if (err != MF_OK) {
		txn_rollback(t);
		/* by an earlier call, which may not have got to the disk */
		enum mf_err kept = err == MF_EXISTS ? make_durable(cache, *ret) : MF_OK;
		return kept != MF_OK ? kept : err;
	}
	err = txn_commit(t);
	if (err == MF_OK)
		err = make_durable(cache, *ret);
	account_journal_changed(account);
	return err;
}

/* When it was made ready: the same each time it is tried */
static int64_t date_of(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 ? st.st_mtim.tv_sec : clock_wall_s();
}

/* A synchronisation was faster. What is older than the message that was sent is of an earlier time that it was. */
static enum mf_err was_filed(struct account *account, uint64_t there, const struct append *what)
{
	struct cache *cache = account_cache(account);
	struct txn *t;
	MF_CLEANUP(message_finish) struct message m = { 0 };
	enum mf_err err = cache_message(cache, there, &m);
	if (err != MF_OK || !m.entry.uid || m.entry.mtime < what->internal_date - CLOCKS_S)
		return err == MF_NOT_FOUND ? MF_OK : err;
	account_copies_found(account);
	err = cache_begin(cache, &t);
	if (err != MF_OK)
		return err;
	(void)txn_change_flags(t, there, what->flags, 0, NULL, NULL); /* as far as the server permits it */
	err = txn_commit(t);
	account_journal_changed(account);
	return err;
}

enum mf_err filing_copy(void *context, uint64_t id, int fd, uint64_t size, const char *message_id, bool first)
{
	(void)id;
	struct account *account = context;
	bool look = first && account_config(account)->save_sent == SAVE_SENT_AUTO && account_copies(account) == COPIES_UNKNOWN;
	struct append what = { .fd = fd, .size = size, .internal_date = date_of(fd), .flags = FLAG_SEEN, .look_ms = look ? filing_look_ms_for_tests : 0 };
	uint64_t made;
	if (!filing_wanted(account))
		return MF_OK;
	enum mf_err err = file(account, &what, &made);
	trace(TRACE_SMTP, "%s: the copy in Sent: %s", message_id, mf_err_name(err));
	if (err == MF_EXISTS)
		err = look ? was_filed(account, made, &what) : MF_OK;
	return err;
}

/* --- drafts --------------------------------------------------------------------------------------------------------------- */

/* A file without a name beside the index */
static int temporary(const struct account_config *config)
{
	MF_CLEANUP(mf_free) char *state = path_state(config->name);
	return open(state, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

static char *path_of(struct cache *cache, uint64_t message)
{
	MF_CLEANUP(message_finish) struct message m = { 0 };
	if (cache_message(cache, message, &m) != MF_OK)
		return mf_strdup("");      /* moved away and gone since */
	MF_CLEANUP(mf_free) char *mailbox = cache_mailbox_path(cache, m.entry.mailbox);
	return mf_format("%s/%s", mailbox ? mailbox : "", m.name);
}

static enum mf_err file_draft(struct account *account, int fd, uint64_t size, char **ret_path, struct mf_reason *why)
{
	const char *name = account_config(account)->name;
	struct append what = { .fd = fd, .size = size, .internal_date = clock_wall_s(), .flags = FLAG_DRAFT | FLAG_SEEN, .again = true };
	uint64_t made;
	enum mf_err err = file(account, &what, &made);
	if (err == MF_OFFLINE)
		return mf_fail(why, err, "%s: which mailbox is Drafts is not known before its mailboxes have been listed once", name);
	if (err != MF_OK)
		return mf_fail(why, err, "%s: the draft cannot be kept: %s", name, mf_err_words(err));
	*ret_path = path_of(account_cache(account), made);
	return MF_OK;
}

enum mf_err filing_draft(struct account *account, int fd, char **ret_path, struct mf_reason *why)
{
	const struct account_config *config = account_config(account);
	struct compose_options options = { .from = config->from ? config->from : config->user ? config->user : "", .draft = true, .now_s = clock_wall_s() };
	struct envelope envelope = { 0 };
	if (!config->imap.host)
		return mf_fail(why, MF_UNSUPPORTED, "%s has no Drafts: a POP3 server has only INBOX", config->name);
	MF_CLEANUP(mf_close) int prepared = temporary(config);
	if (prepared < 0)
		return mf_fail(why, mf_err_from_errno(errno), "%s: no temporary file: %s", config->name, strerror(errno));
	enum mf_err err = compose(&options, fd, prepared, &envelope, why);
	if (err == MF_OK)
		err = file_draft(account, prepared, envelope.size, ret_path, why);
	envelope_finish(&envelope);
	return err;
}

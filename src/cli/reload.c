#include "cli/reload.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "smtp/outbox.h"
#include "sync/account.h"

/* --- reading ------------------------------------------------------------------------------------------------------- */

/* The settings as the mount would have them */
static enum mf_err complete(const struct mount_plan *plan, const struct account_config *now, struct account_config *next, struct mf_reason *why)
{
	enum mf_err e = mount_options_apply(plan->options, next, why);
	if (!e && now->password && !next->password && !next->password_command)
		e = account_config_set(next, "password", now->password, false, why);
	if (!e)
		e = account_config_check(next, why);
	if (!e)
		e = account_check_config(next, why);
	return !e && next->smtp.host ? outbox_check_config(next, why) : e;
}

static enum mf_err read_config(const struct mount_plan *plan, const struct holding *h, struct config **ret, struct mf_reason *why)
{
	struct config *config;
	struct stat st;
	if (!stat(plan->config_path, &st) && !S_ISREG(st.st_mode)) /* a pipe: nobody may write into it again, and main would wait */
		return mf_fail(why, MF_INVALID, "%s is not a regular file, and is read when it is mounted only", plan->config_path);
	enum mf_err e = config_load(plan->config_path, &config, why);
	if (e)
		return e;
	for (size_t i = 0; i < h->count && !e; i++) {
		const struct account_config *now = account_config(h->accounts[i]);
		struct account_config *next = config_find(config, now->name);
		e = next ? complete(plan, now, next, why) : MF_OK;
	}
	if (e)
		config_destroy(config);
	else
		*ret = config;
	return e;
}

/* --- what has changed ---------------------------------------------------------------------------------------------- */

struct changes {
	struct buf words[CONFIG_NEXT_MOUNT + 1];   /* "poll, send-delay" */
};

static void note(void *context, const char *what, enum config_when when)
{
	struct buf *b = &((struct changes *)context)->words[when];
	(void)buf_addf(b, "%s%s", b->len ? ", " : "", what);
}

static void log_changes(const char *account, const struct changes *c)
{
	static const char *const when[] = {
		[CONFIG_NOW] = "", [CONFIG_NEXT_CONNECTION] = " from the next connection on", [CONFIG_NEXT_MOUNT] = " from the next mount on",
	};
	for (size_t i = 0; i <= CONFIG_NEXT_MOUNT; i++)
		if (c->words[i].len)
			log_info("account %s: changed%s: %s", account, when[i], c->words[i].data);
}

static bool is_other_account(const struct account_config *now, const struct account_config *next)
{
	MF_CLEANUP(mf_free) char *old = account_config_identity(now), *identity = account_config_identity(next);
	if (!strcmp(old, identity))
		return false;
	const char *server = now->imap.host || next->imap.host ? "imap" : "pop3";
	log_warning("account %s: %s has changed, which makes it another account: that, and whatever else has changed, applies from the next mount on",
	            now->name, strcmp(now->user, next->user) ? "user" : server);
	return true;
}

/* --- taking over --------------------------------------------------------------------------------------------------- */

enum taken { TAKEN_NOTHING, TAKEN, TAKEN_ACCESS };   /* ACCESS: something that decides whether it can connect, too */

static enum taken apply(struct holding *h, size_t i, const struct account_config *next)
{
	struct account *account = h->accounts[i];
	struct changes c;
	struct mf_reason why = { "" };
	enum taken taken = TAKEN_NOTHING;
	for (size_t k = 0; k <= CONFIG_NEXT_MOUNT; k++)
		buf_init(&c.words[k], 65536);
	account_config_compare(account_config(account), next, note, &c);
	if (c.words[CONFIG_NOW].len || c.words[CONFIG_NEXT_CONNECTION].len || c.words[CONFIG_NEXT_MOUNT].len) {
		enum mf_err e = account_configure(account, next, &why);
		if (!e && h->outboxes[i])
			outbox_configure(h->outboxes[i], next);
		if (e)
			log_error("account %s: nothing was changed: %s", next->name, why.text[0] ? why.text : mf_err_words(e));
		else
			log_changes(next->name, &c);
		taken = e ? TAKEN_NOTHING : c.words[CONFIG_NEXT_CONNECTION].len ? TAKEN_ACCESS : TAKEN;
	}
	for (size_t k = 0; k <= CONFIG_NEXT_MOUNT; k++)
		buf_finish(&c.words[k]);
	return taken;
}

static enum taken take_over(struct holding *h, size_t i, const struct config *config)
{
	const struct account_config *now = account_config(h->accounts[i]), *next = config_find(config, now->name);
	if (!next)
		log_warning("account %s is not in the config file, and stays as it is", now->name);
	return next && !is_other_account(now, next) ? apply(h, i, next) : TAKEN_NOTHING;
}

/* A refused password may be right now. Whoever is connected stays so, and whoever was told to disconnect too. */
static void connect_again(struct holding *h, size_t i, bool access_changed)
{
	struct link_info link;
	account_link(h->accounts[i], &link);
	bool fallen_back = link.pop3 && account_config(h->accounts[i])->imap.host;
	bool in_need = link.state == LINK_CONNECTING || link.state == LINK_OFFLINE || fallen_back;
	if (link.state == LINK_WAITING ? link.error == MF_AUTH : access_changed && in_need)
		account_connect(h->accounts[i]);
	if (h->outboxes[i])
		outbox_wake(h->outboxes[i], true);
}

static void log_new_accounts(const struct holding *h, const struct config *config)
{
	for (size_t i = 0; i < config->account_count; i++) {
		bool held = false;
		for (size_t k = 0; k < h->count; k++)
			held |= !strcmp(account_config(h->accounts[k])->name, config->accounts[i]->name);
		if (!held)
			log_info("account %s is new: it is there from the next mount on", config->accounts[i]->name);
	}
}

void reload(const struct mount_plan *plan, struct holding *h)
{
	struct config *config = NULL;
	struct mf_reason why = { "" };
	enum mf_err e = plan->config_path ? read_config(plan, h, &config, &why) : MF_OK;
	bool used = false;
	if (e)
		log_error("the config file was not taken over: %s", why.text[0] ? why.text : mf_err_words(e));
	for (size_t i = 0; i < h->count; i++) {
		enum taken taken = config ? take_over(h, i, config) : TAKEN_NOTHING;
		used |= taken != TAKEN_NOTHING;
		connect_again(h, i, taken == TAKEN_ACCESS);
	}
	if (config && !plan->account_is_root)
		log_new_accounts(h, config);
	if (!plan->config_path)
		log_info("there is no config file to be read again");
	else if (!e)
		log_info("the config file was read again%s", used ? "" : ": nothing has changed that applies now");
	if (!used) {
		config_destroy(config);
		return;
	}
	h->configs = mf_realloc_array(h->configs, h->config_count + 1, sizeof(struct config *));
	h->configs[h->config_count++] = config;
}

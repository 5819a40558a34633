#include "cli/mount_options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

/* What fstab and mount(8) add for themselves. A name that ends in '=' or '-' stands for all that begin so. */
static const char *const ignored[] = {
	"rw", "user", "users", "nouser", "owner", "noowner", "group", "nogroup", "auto", "noauto", "nofail", "defaults",
	"_netdev", "_rnetdev", "comment=", "x-", "X-", NULL,
};

/* What the kernel or libfuse understands. */
static const char *const passed_on[] = {
	"allow_root", "auto_unmount", "subtype=", "max_read=", "default_permissions", "exec", "noexec", "suid", "nosuid", "dev", "nodev",
	"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "lazytime", "sync", "async", "dirsync", "context=",
	"fscontext=", "defcontext=", "rootcontext=", NULL,
};

const char *const mount_option_names[] = {
	"ro", "allow_other", "uid=", "gid=", "umask=", "offline", "nonomedia", "config=", "fsname=", "allow_root", "auto_unmount", "subtype=",
	"max_read=", "noexec", "noatime", NULL,
};

/* a test holds that the config file knows each */
const char *const mount_account_keys[] = {
	"imap", "pop3", "smtp", "user", "password-command", "auth", "from", "tls", "tls-ca-file", "tls-insecure", "sync", "mailboxes", "exclude",
	"max-messages", "cache-size", "cache-min-free", "delete", "expunge-delay", "mark-seen", "idle", "poll", "connections",
	"connect-timeout", "io-timeout", "pop3-after", "leave-on-server", "layout", "send", "send-delay", "save-sent", "sent-mailbox", NULL,
};

void mount_options_init(struct mount_options *o)
{
	*o = (struct mount_options){ .uid = getuid(), .gid = getgid(), .umask = 077 };
	o->extra = MF_NEW(char *);
}

void mount_options_finish(struct mount_options *o)
{
	for (size_t i = 0; i < o->extra_count; i++)
		free(o->extra[i]);
	for (size_t i = 0; i < o->setting_count; i++) {
		free(o->settings[i].key);
		free(o->settings[i].value);
	}
	free(o->extra);
	free(o->settings);
	free(o->config);
	free(o->source);
	*o = (struct mount_options){ 0 };
}

static bool is_in(const char *const *names, const char *option)
{
	for (; *names; names++) {
		size_t len = strlen(*names);
		char last = (*names)[len - 1];
		if (last == '=' || last == '-' ? !strncmp(option, *names, len) : !strcmp(option, *names))
			return true;
	}
	return false;
}

static enum mf_err read_number(const char *option, const char *value, int base, uintmax_t most, uintmax_t *ret, struct mf_reason *why)
{
	char *end, shown[64];
	errno = 0;
	uintmax_t number = strtoumax(value, &end, base);
	if (*value < '0' || *value > '9' || *end || errno || number > most)
		return mf_fail(why, MF_INVALID, "-o %s: \"%s\" is not a%s number that fits", option,
		               mf_printable(shown, sizeof shown, value, strlen(value)), base == 8 ? "n octal" : "");
	*ret = number;
	return MF_OK;
}

static enum mf_err set_owner(struct mount_options *o, const char *key, const char *value, struct mf_reason *why)
{
	uintmax_t number = 0;
	bool is_mask = !strcmp(key, "umask");
	enum mf_err e = read_number(key, value, is_mask ? 8 : 10, is_mask ? 0777 : UINT32_MAX - 1, &number, why);
	if (e)
		return e;
	if (is_mask)
		o->umask = (mode_t)number;
	else if (!strcmp(key, "uid"))
		o->uid = (uid_t)number;
	else
		o->gid = (gid_t)number;
	return MF_OK;
}

/* true: it was one of ours, and is set */
static bool set_own(struct mount_options *o, const char *option)
{
	if (!strcmp(option, "ro"))
		o->read_only = true;
	else if (!strcmp(option, "allow_other"))
		o->allow_other = true;
	else if (!strcmp(option, "offline"))
		o->offline = true;
	else if (!strcmp(option, "nonomedia"))
		o->no_nomedia = true;
	else
		return false;
	return true;
}

static void replace(char **string, const char *value)
{
	free(*string);
	*string = mf_strdup(value);
}

static void add_extra(struct mount_options *o, const char *option)
{
	o->extra = mf_realloc_array(o->extra, o->extra_count + 2, sizeof *o->extra);
	o->extra[o->extra_count++] = mf_strdup(option);
	o->extra[o->extra_count] = NULL;
}

static void add_setting(struct mount_options *o, const char *key, const char *value)
{
	o->settings = mf_realloc_array(o->settings, o->setting_count + 1, sizeof *o->settings);
	o->settings[o->setting_count++] = (struct setting){ mf_strdup(key), mf_strdup(value) };
}

static enum mf_err take_value(struct mount_options *o, const char *key, const char *value, struct mf_reason *why)
{
	if (!strcmp(key, "uid") || !strcmp(key, "gid") || !strcmp(key, "umask"))
		return set_owner(o, key, value, why);
	if (!strcmp(key, "config"))
		replace(&o->config, value);
	else if (!strcmp(key, "fsname"))
		replace(&o->source, value);
	else
		add_setting(o, key, value);
	return MF_OK;
}

static enum mf_err take_option(struct mount_options *o, char *option, struct mf_reason *why)
{
	if (!*option || is_in(ignored, option) || (o->helper && !strncmp(option, "user=", 5)) || set_own(o, option))
		return MF_OK;
	if (is_in(passed_on, option)) {
		add_extra(o, option);
		return MF_OK;
	}
	char *equals = strchr(option, '=');
	if (!equals) {
		/* without its value a key of the config file is told better by name than as unknown */
		char shown[64];
		return mf_fail(why, MF_INVALID, "-o %s: no such option, or its value is missing",
		               mf_printable(shown, sizeof shown, option, strlen(option)));
	}
	*equals = 0;
	return take_value(o, option, equals + 1, why);
}

enum mf_err mount_options_apply(const struct mount_options *o, struct account_config *config, struct mf_reason *why)
{
	struct mf_reason reason = { "" };
	for (size_t i = 0; i < o->setting_count; i++) {
		enum mf_err e = account_config_set(config, o->settings[i].key, o->settings[i].value, true, &reason);
		if (e && !(e == MF_NOT_FOUND && o->sloppy))
			return mf_fail(why, e, "-o: %s", reason.text);
	}
	if (o->read_only) /* who only looks takes nothing away from a POP3 server */
		config->leave_on_server_days = -1;
	return MF_OK;
}

/* context= and its like: SELinux has commas in them, and quotes around those, which the kernel takes off */
static bool is_label(const char *option, size_t len)
{
	static const char end[] = "context";
	const char *equals = memchr(option, '=', len);
	return equals && equals - option >= (ptrdiff_t)strlen(end) && memcmp(equals - strlen(end), end, strlen(end)) == 0;
}

enum mf_err mount_options_parse(struct mount_options *o, const char *text, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *one = mf_alloc(strlen(text) + 1);
	for (const char *p = text; *p;) {
		size_t len = 0;
		bool quoted = false;
		for (; *p && (*p != ',' || quoted); p++) {
			quoted ^= *p == '"' && is_label(one, len);
			if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
				p++;
			one[len++] = *p;
		}
		one[len] = 0;
		enum mf_err e = take_option(o, one, why);
		if (e && !o->sloppy)
			return e;
		p += *p == ',';
	}
	return MF_OK;
}

/* Making the session and the mount, and undoing both. */
#define FUSE_LOG_WORDS 512
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "fs/edit.h"
#include "fs/internal.h"
#include "fs/mountinfo.h"

/* --- what libfuse and fusermount3 say -------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 0)))
static void to_log(enum fuse_log_level level, const char *format, va_list arguments)
{
	char text[FUSE_LOG_WORDS], safe[FUSE_LOG_WORDS];
	int len = vsnprintf(text, sizeof text, format, arguments);
	if (len <= 0)
		return;
	text[strcspn(text, "\n")] = '\0';
	mf_printable(safe, sizeof safe, text, strlen(text));
	if (level >= FUSE_LOG_DEBUG)
		trace(TRACE_FS, "%s", safe);
	else if (level >= FUSE_LOG_NOTICE)
		log_debug("fuse: %s", safe);
	else
		log_line(level == FUSE_LOG_WARNING ? LOG_LEVEL_WARNING : LOG_LEVEL_ERROR, "fuse: %s", safe);
}

/* While mounting, both libfuse's words and what fusermount3 writes to standard error are kept aside: the caller says one
 * line. The log of other threads has its own descriptor. */
struct words { int saved, file; char text[FUSE_LOG_WORDS]; };

__attribute__((format(printf, 2, 0)))
static void words_to_stderr(enum fuse_log_level level, const char *format, va_list arguments)
{
	if (level <= FUSE_LOG_WARNING)
		vdprintf(STDERR_FILENO, format, arguments);
}

static void words_catch(struct words *w)
{
	*w = (struct words){ .saved = -1, .file = memfd_create("mailfs-mount", MFD_CLOEXEC) };
	if (w->file >= 0)
		w->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (w->saved >= 0)
		dup2(w->file, STDERR_FILENO);
	fuse_set_log_func(w->saved >= 0 ? words_to_stderr : to_log);
}

static void words_release(struct words *w)
{
	fuse_set_log_func(to_log);
	if (w->saved >= 0) {
		dup2(w->saved, STDERR_FILENO);
		ssize_t len = pread(w->file, w->text, sizeof w->text - 1, 0);
		char raw[FUSE_LOG_WORDS];
		memcpy(raw, w->text, sizeof raw);
		while (len > 0 && (raw[len - 1] == '\n' || raw[len - 1] == ' '))
			len--;
		mf_printable(w->text, sizeof w->text, raw, len > 0 ? (size_t)len : 0);
	}
	mf_close(&w->saved);
	mf_close(&w->file);
}

static bool no_new_privileges(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	if (!file)
		return false;
	char line[128];
	bool found = false;
	while (!found && fgets(line, sizeof line, file))
		found = strncmp(line, "NoNewPrivs:\t1", 13) == 0;
	fclose(file);
	return found;
}

static enum mf_err explain(const struct fs *fs, const struct words *w, struct mf_reason *why)
{
	const char *hint = "";
	if (geteuid() != 0 && no_new_privileges())
		hint = " (this process may gain no privileges, so fusermount3 cannot mount: a systemd unit needs NoNewPrivileges=no)";
	else if (strstr(w->text, "ermission denied"))
		hint = " (AppArmor lets users mount only below their home, /mnt, /media and /tmp)";
	else if (strstr(w->text, "unknown option"))
		hint = " (an -o option that neither mailfs nor FUSE knows)";
	return mf_fail(why, strstr(w->text, "unknown option") ? MF_INVALID : MF_DENIED, "%s cannot be mounted: %s%s",
	               fs->real_mountpoint, w->text[0] ? w->text : "no reason was given", hint);
}

/* --- options --------------------------------------------------------------------------------------------------------- */

static void add_option(struct fuse_args *args, const char *option)
{
	if (fuse_opt_add_arg(args, "-o") != 0 || fuse_opt_add_arg(args, option) != 0)
		abort(); /* out of memory, as base/mem.h has it */
}

/* with what libfuse's parser takes for its own escaped */
static void add_value(struct fuse_args *args, const char *name, const char *value)
{
	struct buf option;
	buf_init(&option, 8192);
	buf_adds(&option, name);
	for (const char *c = value; *c; c++)
		buf_addf(&option, "%s%c", *c == ',' || *c == '\\' ? "\\" : "", *c);
	add_option(args, option.data);
	buf_finish(&option);
}

static void add_options(struct fuse_args *args, const struct fs_options *options)
{
	if (fuse_opt_add_arg(args, "mailfs") != 0)
		abort();
	bool subtype = false;
	for (const char *const *o = options->extra; o && *o; o++)
		subtype |= strncmp(*o, "subtype=", 8) == 0;
	add_value(args, "fsname=", options->source ? options->source : "mailfs");
	if (!subtype)
		add_option(args, "subtype=mailfs");
	add_option(args, "default_permissions");
	add_option(args, "nosuid");
	add_option(args, "nodev");
	if (options->allow_other)
		add_option(args, "allow_other");
	if (options->read_only)
		add_option(args, "ro");
	if (options->debug)
		add_option(args, "debug");
	for (const char *const *o = options->extra; o && *o; o++)
		add_value(args, "", *o);
}

/* --- the accounts ---------------------------------------------------------------------------------------------------- */

static void add_accounts(struct fs *fs)
{
	fs->accounts = mf_alloc_array(fs->account_count, sizeof *fs->accounts);
	fs->account_list = mf_alloc_array(fs->account_count, sizeof *fs->account_list);
	for (size_t i = 0; i < fs->account_count; i++) {
		struct fs_account *a = &fs->accounts[i];
		MF_CLEANUP(mf_free) char *lies = NULL;
		a->account = fs->account_list[i] = fs->options.accounts[i];
		a->cache = account_cache(a->account);
		a->number = cache_account(a->cache);
		a->epoch = cache_epoch(a->cache);
		atomic_init(&a->sizes_lie, cache_get_note(a->cache, "sizes-lie", &lies) == MF_OK);
	}
}

static struct fs *fs_create(const struct fs_options *options)
{
	struct fs *fs = MF_NEW(struct fs);
	fs->options = *options;
	fs->options.mountpoint = mf_strdup(options->mountpoint);
	fs->options.source = options->source ? mf_strdup(options->source) : NULL;
	fs->options.cache_dir = options->cache_dir ? mf_strdup(options->cache_dir) : NULL;
	fs->options.extra = NULL;
	fs->options.accounts = NULL; /* account_list has them */
	fs->account_count = options->account_count;
	pthread_mutex_init(&fs->open_lock, NULL);
	pthread_mutex_init(&fs->settle_lock, NULL);
	LIST_INIT(&fs->open_messages);
	LIST_INIT(&fs->edits);
	clock_gettime(CLOCK_REALTIME, &fs->started);
	return fs;
}

static void warn_if_not_empty(const char *point)
{
	DIR *dir = opendir(point);
	if (!dir)
		return;
	const struct dirent *d;
	while ((d = readdir(dir)) && (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0))
		continue;
	if (d)
		log_warning("%s is not empty: what is in it is hidden while mailfs is mounted there", point);
	closedir(dir);
}

static enum mf_err mount_session(struct fs *fs, const struct fs_options *options, struct mf_reason *why)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct words words;
	add_options(&args, options);
	warn_if_not_empty(fs->real_mountpoint);
	words_catch(&words);
	fs->session = fuse_session_new(&args, &fs_operations, sizeof fs_operations, fs);
	fs->mounted = fs->session && fuse_session_mount(fs->session, fs->real_mountpoint) == 0;
	words_release(&words);
	fuse_opt_free_args(&args);
	if (!fs->mounted)
		return explain(fs, &words, why);
	fs->mount_id = mountinfo_topmost(fs->real_mountpoint);
	return MF_OK;
}

enum mf_err fs_mount(const struct fs_options *options, struct fs **ret, struct mf_reason *why)
{
	if (options->account_count == 0 || options->account_count > UINT8_MAX)
		return mf_fail(why, MF_INVALID, "there are %zu accounts: a mount shows 1 to %d", options->account_count, UINT8_MAX);
	MF_CLEANUP(mf_free) char *real = NULL;
	enum mf_err err = precheck_mount(options, &real, why);
	if (err != MF_OK)
		return err;
	struct fs *fs = fs_create(options);
	fs->real_mountpoint = real;
	real = NULL;
	if (!cancel_init(&fs->stop)) {
		fs_destroy(fs);
		return mf_fail(why, MF_IO, "out of file descriptors");
	}
	fs->options.accounts = options->accounts;
	add_accounts(fs);
	fs->options.accounts = NULL;
	err = queued_open_accounts(fs, why);
	if (err == MF_OK)
		err = mount_session(fs, options, why);
	if (err != MF_OK) {
		fs_destroy(fs);
		return err;
	}
	*ret = fs;
	return MF_OK;
}

/* Whatever lies over or instead of our mount by now is somebody else's: that is not unmounted. If nothing is there any
 * more, libfuse closes its connection, and complains on standard error that there is nothing to unmount. */
static void unmount(struct fs *fs)
{
	uint64_t top = mountinfo_topmost(fs->real_mountpoint);
	if (top != 0 && fs->mount_id != 0 && top != fs->mount_id)
		return;
	struct words words;
	words_catch(&words);
	fuse_session_unmount(fs->session);
	words_release(&words);
	if (words.text[0])
		log_debug("unmounting %s: %s", fs->real_mountpoint, words.text);
}

void fs_destroy(struct fs *fs)
{
	if (!fs)
		return;
	if (fs->mounted)
		unmount(fs);
	if (fs->session)
		fuse_session_destroy(fs->session);
	struct open_message *left;
	edits_end_all(fs);
	while ((left = LIST_FIRST(&fs->open_messages)))
		message_forget(fs, left);
	queued_close_accounts(fs);
	cancel_finish(&fs->stop);
	pthread_mutex_destroy(&fs->open_lock);
	pthread_mutex_destroy(&fs->settle_lock);
	free(fs->accounts);
	free(fs->account_list);
	free(fs->real_mountpoint);
	free((char *)(uintptr_t)fs->options.mountpoint);
	free((char *)(uintptr_t)fs->options.source);
	free((char *)(uintptr_t)fs->options.cache_dir);
	free(fs);
}

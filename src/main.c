/* main: the only place that puts the parts together. What is held (locks, indexes, engines) and how a mount is served;
 * which accounts and why is decided by the commands (cli/). */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth/credentials.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "cli/command.h"
#include "cli/notify.h"
#include "cli/parts.h"
#include "cli/reload.h"
#include "control/filing.h"
#include "control/outboxes.h"
#include "control/paths.h"
#include "control/server.h"
#include "control/text.h"
#include "fs/fs.h"
#include "net/netwatch.h"

#define EVENTS_KEPT (1U << 20)     /* bytes of the log of events */

/* --- what is held -------------------------------------------------------------------------------------------------- */

static enum mf_err open_cache(const struct account_config *config, struct holding *h, struct cache **ret, struct mf_reason *why)
{
	MF_CLEANUP(mf_free) char *state = path_state(config->name);
	MF_CLEANUP(mf_free) char *bodies = path_cache(config->name);
	MF_CLEANUP(mf_free) char *who = account_config_identity(config);
	struct cache_options options = {
		.state_dir = state,
		.cache_dir = bodies,
		.identity = who,
		.account = (unsigned)h->count,
		.bus = h->bus,
		.body_limit = config->cache_size,
		.body_min_free = config->cache_min_free,
		.only_deletes = !config->imap.host,
	};
	struct mf_reason reason = { "" };
	enum mf_err e = cache_open(&options, ret, &reason);
	return e ? mf_fail(why, e, "%s: %s", config->name, reason.text[0] ? reason.text : mf_err_words(e)) : MF_OK;
}

static void holding_close(struct holding *h)
{
	if (!h)
		return;
	if (h->links)
		bus_unsubscribe(h->bus, h->links);
	eventlog_destroy(h->events);
	for (size_t i = 0; i < h->count; i++) {
		outboxes_detach(h->accounts[i]);
		outbox_close(h->outboxes[i]);
		account_destroy(h->accounts[i]);
		cache_close(h->caches[i]);
	}
	bus_destroy(h->bus);
	for (size_t i = 0; i < h->config_count; i++)
		config_destroy(h->configs[i]);
	free(h->configs);
	free(h->accounts);
	free(h->caches);
	free(h->outboxes);
	free(h);
}

/* NULL where the account cannot send */
static enum mf_err open_outbox(struct account *account, bool offline, struct outbox **ret, struct mf_reason *why)
{
	const struct account_config *config = account_config(account);
	MF_CLEANUP(mf_free) char *state = path_state(config->name);
	struct outbox_options options = { .config = config, .state_dir = state, .offline = offline, .file_copy = filing_copy, .file_context = account };
	struct mf_reason reason = { "" };
	*ret = NULL;
	enum mf_err e = config->smtp.host ? outbox_open(&options, ret, &reason) : MF_OK;
	return e ? mf_fail(why, e, "%s: %s", config->name, reason.text[0] ? reason.text : mf_err_words(e)) : MF_OK;
}

/* What `send = connect` holds goes out now. What came into a mailbox may be what was maybe sent. */
static void holding_changed(void *context, const struct change *change)
{
	const struct holding *h = context;
	struct link_info link;
	if (change->account >= h->count || !h->outboxes[change->account])
		return;
	if (change->kind == CHANGE_MAILBOX_LIST || change->kind == CHANGE_LINK)
		filing_settle(h->accounts[change->account], h->outboxes[change->account]);
	if (change->kind != CHANGE_LINK)
		return;
	account_link(h->accounts[change->account], &link);
	if (link.state == LINK_ONLINE)
		outbox_connected(h->outboxes[change->account]);
}

/* The server may have filed it before it was given up as maybe sent, and nothing more comes into Sent then. */
static void outbox_has_changed(void *context, uint64_t id)
{
	struct account *account = context;
	struct outbox *outbox = outboxes_find(account);
	struct outbox_item item;
	if (!outbox || outbox_item(outbox, id, &item) != MF_OK)
		return;
	if (item.state == OUTBOX_MAYBE)
		filing_settle(account, outbox);
	outbox_item_finish(&item);
}

static enum mf_err hold(struct holding *h, const struct account_config *config, bool offline, struct mf_reason *why)
{
	struct cache *cache;
	enum mf_err e = open_cache(config, h, &cache, why);
	if (e)
		return e == MF_DENIED ? MF_IO : e; /* it is this machine that refuses, and no server */
	struct account_options options = { .config = config, .cache = cache, .bus = h->bus, .offline = offline };
	e = account_create(&options, &h->accounts[h->count], why);
	if (!e) {
		e = open_outbox(h->accounts[h->count], offline, &h->outboxes[h->count], why);
		if (e)
			account_destroy(h->accounts[h->count]);
	}
	if (e) {
		cache_close(cache);
		return e;
	}
	if (h->outboxes[h->count]) {
		outboxes_attach(h->accounts[h->count], h->outboxes[h->count]);
		outbox_subscribe(h->outboxes[h->count], outbox_has_changed, h->accounts[h->count]);
	}
	h->caches[h->count++] = cache;
	return MF_OK;
}

static enum mf_err holding_open(struct account_config *const *configs, size_t count, bool offline, struct holding **ret, struct mf_reason *why)
{
	struct holding *h = MF_NEW(struct holding);
	h->bus = bus_create();
	h->accounts = mf_alloc_array(count, sizeof(struct account *));
	h->caches = mf_alloc_array(count, sizeof(struct cache *));
	h->outboxes = mf_alloc_array(count, sizeof(struct outbox *));
	for (size_t i = 0; i < count; i++) {
		enum mf_err e = hold(h, configs[i], offline, why);
		if (e) {
			holding_close(h);
			return e;
		}
	}
	h->links = bus_subscribe(h->bus, holding_changed, h);
	h->events = eventlog_create(h->bus, h->accounts, h->count, EVENTS_KEPT);
	h->control = (struct control){ .accounts = h->accounts, .count = h->count, .events = h->events };
	*ret = h;
	return MF_OK;
}

static void start_accounts(struct holding *h)
{
	for (size_t i = 0; i < h->count; i++)
		account_start(h->accounts[i]);
}

static void start_outboxes(struct holding *h)
{
	for (size_t i = 0; i < h->count; i++)
		if (h->outboxes[i])
			outbox_start(h->outboxes[i]);
}

static void holding_start(struct holding *h)
{
	start_accounts(h);
	start_outboxes(h);
}

/* --- a mount ------------------------------------------------------------------------------------------------------- */

enum { NEWS_READY = 1, NEWS_STOP = 2, NEWS_ENDED = 4 };

struct serving {
	const struct mount_plan *plan;
	struct detach *detach;
	struct holding *holding;
	struct control_server *server;
	struct netwatch *netwatch;
	struct bus_subscription *links;
	struct fs *_Atomic fs;
	pthread_t thread;            /* of fs_serve */
	int signals;                 /* a signalfd */
	int news;                    /* an eventfd: look at news_bits */
	_Atomic unsigned news_bits;  /* what other threads tell main */
	enum mf_err end;             /* of fs_serve; written before NEWS_ENDED */
	bool ready, stopping;
};

static void tell_main(struct serving *s, unsigned bits)
{
	atomic_fetch_or(&s->news_bits, bits);
	(void)eventfd_write(s->news, 1); /* full: readable all the same */
}

static void on_ready(void *context)
{
	tell_main(context, NEWS_READY);
}

static void on_stop(void *context)
{
	tell_main(context, NEWS_STOP);
}

static void settle(void *context)
{
	struct serving *s = context;
	struct fs *fs = s->fs;
	if (fs)
		fs_settle(fs);
}

static void *serve_fs(void *context)
{
	struct serving *s = context;
	s->end = fs_serve(s->fs);
	tell_main(s, NEWS_ENDED);
	return NULL;
}

/* What `systemctl status` shows. */
static void notify_links(const struct holding *h, const char *before)
{
	struct buf b;
	buf_init(&b, 4096);
	(void)buf_adds(&b, before);
	(void)buf_adds(&b, "STATUS=");
	for (size_t i = 0; i < h->count; i++) {
		struct link_info link;
		account_link(h->accounts[i], &link);
		(void)buf_addf(&b, "%s%s: %s", i ? ", " : "", account_config(h->accounts[i])->name, text_link(link.state));
	}
	notify_send(b.data);
	buf_finish(&b);
}

static void link_changed(void *context, const struct change *change)
{
	if (change->kind == CHANGE_LINK)
		notify_links(((struct serving *)context)->holding, "");
}

/* --- signals ------------------------------------------------------------------------------------------------------- */

static void handled_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
}

/* Before the first thread, which inherits it: signals are read by main alone. */
static int open_signals(void)
{
	sigset_t set;
	handled_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* As long as nothing is mounted, ^C and SIGTERM simply end the program: every state on disk is right after that. */
static void let_signals_end(bool let)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(let ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

/* SIGHUP */
static void read_config_again(struct serving *s)
{
	if (s->ready)
		notify_send("RELOADING=1");
	reload(s->plan, s->holding);
	if (s->ready)
		notify_links(s->holding, "READY=1\n");
}

/* The network changed. Whoever waits for a person goes on waiting: no password is tried again because of an address. */
static void connect_all(struct serving *s)
{
	for (size_t i = 0; i < s->holding->count; i++) {
		struct link_info link;
		account_link(s->holding->accounts[i], &link);
		if (link.state != LINK_WAITING)
			account_connect(s->holding->accounts[i]);
		if (s->holding->outboxes[i])
			outbox_wake(s->holding->outboxes[i], false);
	}
}

static void stop(struct serving *s)
{
	if (!s->stopping)
		notify_send("STOPPING=1");
	s->stopping = true;
	fs_stop(s->fs);
}

static void read_signals(struct serving *s)
{
	struct signalfd_siginfo info;
	while (read(s->signals, &info, sizeof info) == sizeof info) {
		if (info.ssi_signo == SIGHUP)
			read_config_again(s);
		else if (info.ssi_signo == SIGUSR1)
			connect_all(s);
		else
			stop(s);
	}
}

/* --- up, running, down --------------------------------------------------------------------------------------------- */

/* A first mount waits until there is something to show. With several accounts one that fails is a warning, unless none
 * is left. */
static enum mf_err await_first_lists(struct serving *s, struct mf_reason *why)
{
	struct holding *h = s->holding;
	enum mf_err result = MF_OK;
	size_t failed = 0;
	for (size_t i = 0; i < h->count; i++) {
		const struct account_config *config = account_config(h->accounts[i]);
		struct mf_reason reason = { "" };
		if (!cache_is_new(h->caches[i]))
			continue;
		enum mf_err e = account_wait_listed(h->accounts[i], config->connect_timeout_ms + 2 * config->io_timeout_ms, &reason);
		if (!e)
			continue;
		failed++;
		result = mf_fail(why, e, "%s: %s", config->name, reason.text[0] ? reason.text : mf_err_words(e));
		if (h->count > 1)
			detach_warn(s->detach, "%s", why->text);
	}
	return failed == h->count ? result : MF_OK;
}

static enum mf_err bring_up_accounts(struct serving *s, struct mf_reason *why)
{
	enum mf_err e = s->holding ? MF_OK : holding_open(s->plan->accounts, s->plan->count, s->plan->options->offline, &s->holding, why);
	if (e)
		return e;
	struct control *control = &s->holding->control;
	control->on_stop = on_stop;
	control->stop_context = s;
	control->mountpoint = s->plan->mountpoint;
	control->settle = settle;
	control->settle_context = s;
	s->links = bus_subscribe(s->holding->bus, link_changed, s);
	start_accounts(s->holding);
	if (!s->plan->options->offline) {
		let_signals_end(true);
		e = await_first_lists(s, why);
		let_signals_end(false);
	}
	if (e)
		return e;
	e = control_server_start(control, &s->server, why);
	return e == MF_DENIED ? MF_IO : e; /* as in hold() */
}

static enum mf_err bring_up_fs(struct serving *s, struct mf_reason *why)
{
	const struct mount_options *o = s->plan->options;
	MF_CLEANUP(mf_free) char *bodies = path_cache(s->plan->accounts[0]->name);
	struct fs_options options = {
		.mountpoint = s->plan->mountpoint,
		.source = s->plan->source,
		.cache_dir = bodies,
		.accounts = s->holding->accounts,
		.account_count = s->holding->count,
		.account_is_root = s->plan->account_is_root,
		.control = &s->holding->control,
		.events = s->holding->events,
		.bus = s->holding->bus,
		.read_only = o->read_only,
		.allow_other = o->allow_other,
		.debug = o->debug,
		.nomedia = !o->no_nomedia,
		.uid = o->uid,
		.gid = o->gid,
		.umask = o->umask,
		.extra = (const char *const *)o->extra,
		.on_ready = on_ready,
		.ready_context = s,
	};
	struct fs *fs;
	enum mf_err e = fs_mount(&options, &fs, why);
	if (e)
		return e;
	s->fs = fs;
	start_outboxes(s->holding); /* the tree knows by now what an editor's lock holds */
	if (!pthread_create(&s->thread, NULL, serve_fs, s))
		return MF_OK;
	fs_destroy(s->fs);
	s->fs = NULL;
	return mf_fail(why, MF_IO, "cannot start a thread: %s", strerror(errno));
}

static void now_ready(struct serving *s)
{
	if (s->ready)
		return;
	s->ready = true;
	detach_ready(s->detach);
	notify_links(s->holding, "READY=1\n");
	log_info("mounted at %s", s->plan->mountpoint);
}

/* Until fs_serve has ended. */
static void run(struct serving *s)
{
	struct pollfd fds[] = {
		{ .fd = s->news, .events = POLLIN },
		{ .fd = s->signals, .events = POLLIN },
		{ .fd = s->netwatch ? netwatch_fd(s->netwatch) : -1, .events = POLLIN },
	};
	unsigned news = 0;
	while (!(news & NEWS_ENDED)) {
		if (poll(fds, sizeof fds / sizeof *fds, -1) < 0)
			continue;
		eventfd_t ignored;
		(void)eventfd_read(s->news, &ignored);
		news = atomic_exchange(&s->news_bits, 0);
		if (news & NEWS_READY)
			now_ready(s);
		if (news & NEWS_STOP)
			stop(s);
		if (fds[1].revents)
			read_signals(s);
		if (fds[2].revents && netwatch_changed(s->netwatch))
			connect_all(s);
	}
	pthread_join(s->thread, NULL);
}

static void take_down(struct serving *s)
{
	control_server_stop(s->server);
	if (s->holding) {
		control_finish(&s->holding->control);
		bus_unsubscribe(s->holding->bus, s->links);
	}
	fs_destroy(s->fs);
	netwatch_destroy(s->netwatch);
	holding_close(s->holding);
	mf_close(&s->news);
	mf_close(&s->signals);
}

/* MF_INVALID is what libfuse says of -o; a local failure keeps its own code. */
static enum exit_code mount_failure(enum mf_err e)
{
	enum exit_code code = exit_code_of(e);
	return code == EXIT_PROTOCOL || code == EXIT_NOT_FOUND ? EXIT_MOUNT : code;
}

static enum exit_code mount_serve(const struct mount_plan *plan, struct detach *detach)
{
	struct serving s = { .plan = plan, .detach = detach, .news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) };
	struct mf_reason why = { "" };
	s.signals = open_signals();
	notify_open();
	if (s.news < 0 || s.signals < 0)
		return detach_fail(detach, EXIT_BACKGROUND, "out of file descriptors");
	s.netwatch = netwatch_create();
	enum mf_err e = bring_up_accounts(&s, &why);
	enum exit_code code = e == MF_INVALID ? EXIT_CONFIG : exit_code_of(e); /* the command line has been read before */
	if (!e) {
		e = bring_up_fs(&s, &why);
		code = mount_failure(e);
	}
	if (!e) {
		run(&s);
		e = s.end;
		code = e ? EXIT_MOUNT : EXIT_OK;
		if (!e && !s.ready && !s.stopping)
			code = EXIT_MOUNT;
	}
	if (code)
		detach_fail(detach, code, why.text[0] ? why.text : e ? mf_err_words(e) : "the mount ended before it had answered");
	take_down(&s);
	return code;
}

/* --- the program --------------------------------------------------------------------------------------------------- */

/* Where one is closed, the first file of ours that is opened would be it, and what is printed would be written into that. */
static void open_standard_files(void)
{
	int fd;
	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
		;
	mf_close(&fd);
}

/* Raised again it has no handler any more (SA_RESETHAND), and ends us when this one has returned. */
static void end_by_signal(int number)
{
	credentials_end_commands();
	raise(number);
}

/* Where a signal simply ends the program it ends the commands for passwords, too: ^C does not reach their process groups. */
static void prepare_end(void)
{
	static const int numbers[] = { SIGHUP, SIGINT, SIGTERM };
	struct sigaction before, action = { .sa_handler = end_by_signal, .sa_flags = (int)SA_RESETHAND };
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (!sigaction(numbers[i], NULL, &before) && before.sa_handler == SIG_DFL) /* nohup(1) ignores one */
			sigaction(numbers[i], &action, NULL);
}

/* A peer that went away is told by the call's result, and so is a file that may not grow. SIGUSR1 is for mounts, which read it all the
 * same: it may be sent to all of this name. SIGCHLD: whoever started us may ignore it, and then nobody can be waited for. */
static void prepare_signals(void)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, usual = { .sa_handler = SIG_DFL };
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGXFSZ, &ignore, NULL);
	sigaction(SIGUSR1, &ignore, NULL);
	sigaction(SIGCHLD, &usual, NULL);
}

/* What runs at boot or from a unit may have no search path at all, and fusermount3 has to be found. */
static void prepare_process(void)
{
	open_standard_files();
	/* A core file would hold mail and passwords. The kernel hands one to a program behind a '|' in core_pattern whatever the limit is,
	 * 0 too, but for a limit of 1. */
	struct rlimit none = { 1, 1 };
	setrlimit(RLIMIT_CORE, &none);
	umask(077);
	prepare_signals();
	prepare_end();
	mallopt(M_ARENA_MAX, 2);           /* threads by the dozen with an arena each would cost more than the index */
	mallopt(M_MMAP_THRESHOLD, 131072); /* fixed: what a listing grew out of goes back to the system */
	if (!getenv("PATH"))
		setenv("PATH", "/usr/local/bin:/usr/bin:/bin", 1);
}

int main(int argc, char **argv)
{
	static const struct cli_parts parts = { holding_open, holding_start, holding_close, mount_serve };
	prepare_process();
	return cli_main(argc, argv, &parts);
}

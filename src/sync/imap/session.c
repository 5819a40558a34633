/* The "imap" session as remote.h knows it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "sync/imap/engine.h"

#define LITERAL_KEEP (16U << 20)  /* of what is not streamed: header fields */
#define COMMAND_MAX (1U << 20)
#define LATE_MS 5000

static struct imap *of(struct remote *r)
{
	return (struct imap *)(void *)r;
}

void imap_global_init(void)
{
	imap_parse_init();
}

static enum mf_err login_verb(struct remote *r, struct mf_reason *why)
{
	return imap_login(of(r), why);
}

static unsigned caps_verb(struct remote *r)
{
	const struct imap *s = of(r);
	static const struct { imap_caps cap; unsigned bit; } map[] = {
		{ CAP(UIDPLUS), REMOTE_UIDPLUS }, { CAP(MOVE), REMOTE_MOVE }, { CAP(QUOTA), REMOTE_QUOTA }, { CAP(CONDSTORE), REMOTE_CONDSTORE | REMOTE_STATUS_MODSEQ },
		{ CAP(OBJECTID), REMOTE_OBJECTID }, { CAP(ACL), REMOTE_ACL }, { CAP(REPLACE), REMOTE_REPLACE },
	};
	unsigned caps = REMOTE_MAILBOXES | REMOTE_FLAGS | REMOTE_RANGES;
	for (size_t i = 0; i < sizeof map / sizeof *map; i++)
		if (s->caps & map[i].cap)
			caps |= map[i].bit;
	if (s->qresync)
		caps |= REMOTE_QRESYNC;
	if (s->options.idle && (s->caps & CAP(IDLE)) && !s->no_idle)
		caps |= REMOTE_PUSH | (s->caps & CAP(NOTIFY) ? REMOTE_PUSH_ALL : 0);
	return caps;
}

static enum mf_err mailboxes_verb(struct remote *r, const struct mailbox_sink *sink)
{
	return imap_mailboxes(of(r), sink);
}

static enum mf_err changes_verb(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	return imap_changes(of(r), since, count, sink);
}

static enum mf_err fetch_verb(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink)
{
	return imap_fetch(of(r), source, sink);
}

static enum mf_err wait_verb(struct remote *r, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink)
{
	return imap_wait(of(r), raw, timeout_ms, wake_fd, sink);
}

static enum mf_err quota_verb(struct remote *r, struct quota *ret)
{
	return imap_quota(of(r), ret);
}

static enum mf_err write_verb(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	return imap_write(of(r), writes, count, sink);
}

static const char *reason_verb(struct remote *r)
{
	return of(r)->why.text;
}

/* One write that cannot wait: DONE where IDLE is on, and LOGOUT. The answer is nobody's. */
static void say_goodbye(struct imap *s)
{
	static const char logout[] = "a0 LOGOUT\r\n";
	if (s->dead || !s->transport || !s->authenticated || s->compress_serial)
		return;
	transport_set_deadline(s->transport, 1); /* long past */
	if (s->idle && transport_write(s->transport, "DONE\r\n", 6))
		return;
	if (transport_write(s->transport, logout, sizeof logout - 1) == MF_OK)
		(void)transport_flush(s->transport);
}

static void destroy_verb(struct remote *r)
{
	struct imap *s = of(r);
	say_goodbye(s);
	transport_destroy(s->transport);
	if (s->adopted >= 0)
		close(s->adopted);
	while (s->head) {
		struct imap_command *c = s->head;
		s->head = c->next;
		free(c->selects);
		free(c);
	}
	imap_lister_destroy(s->lister);
	imap_parser_destroy(s->parser);
	frame_finish(&s->frame);
	buf_finish(&s->out);
	buf_finish(&s->plus_text);
	buf_finish(&s->pushed);
	free(s->selected.raw);
	free(s->opening.raw);
	free(s->watched);
	free(s->host);
	credentials_destroy(s->options.credentials);
	tls_context_destroy(s->options.transport.tls);
	free(s);
}

static const struct remote_impl implementation = { .name = "imap", .login = login_verb, .caps = caps_verb, .mailboxes = mailboxes_verb,
	.changes = changes_verb, .fetch = fetch_verb, .wait = wait_verb, .quota = quota_verb, .write = write_verb, .reason = reason_verb, .destroy = destroy_verb };

struct remote *imap_remote_create(const struct imap_options *options)
{
	return imap_remote_adopt(options, -1);
}

struct remote *imap_remote_adopt(const struct imap_options *options, int fd)
{
	struct imap *s = MF_NEW(struct imap);
	s->remote = (struct remote){ .impl = &implementation, .owner = pthread_self(), .late_ms = LATE_MS };
	s->options = *options;
	s->host = mf_strdup(options->transport.host ? options->transport.host : "");
	s->options.transport.host = s->host;
	s->options.credentials = credentials_share(options->credentials);
	s->options.transport.tls = tls_context_share(options->transport.tls);
	s->adopted = fd;
	s->tail = &s->head;
	s->out_secret = SIZE_MAX;
	s->parser = imap_parser_create();
	s->reader = (struct frame_reader){ .io_timeout_ms = options->transport.io_timeout_ms, .literal_keep = LITERAL_KEEP };
	frame_init(&s->frame);
	buf_init(&s->out, COMMAND_MAX);
	buf_init(&s->plus_text, 1U << 20);
	buf_init(&s->pushed, 1U << 20);
	return &s->remote;
}


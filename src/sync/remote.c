#include "sync/remote.h"

#include <assert.h>

#include "base/log.h"

static void begin(const struct remote *r, const char *verb)
{
	assert(pthread_equal(r->owner, pthread_self()));
	trace(TRACE_SYNC, "%s: %s", r->impl->name, verb);
}

static enum mf_err end(struct remote *r, const char *verb, enum mf_err e)
{
	if (e)
		trace(TRACE_SYNC, "%s: %s: %s: %s", r->impl->name, verb, mf_err_name(e), r->impl->reason(r));
	return e;
}

enum mf_err remote_login(struct remote *r, struct mf_reason *why)
{
	begin(r, "login");
	return end(r, "login", r->impl->login(r, why));
}

unsigned remote_caps(struct remote *r)
{
	return r->impl->caps(r);
}

enum mf_err remote_mailboxes(struct remote *r, const struct mailbox_sink *sink)
{
	begin(r, "mailboxes");
	return end(r, "mailboxes", r->impl->mailboxes(r, sink));
}

enum mf_err remote_changes(struct remote *r, const struct mailbox_since *since, size_t count, const struct change_sink *sink)
{
	begin(r, "changes");
	return end(r, "changes", r->impl->changes(r, since, count, sink));
}

enum mf_err remote_fetch(struct remote *r, const struct fetch_source *source, const struct fetch_sink *sink)
{
	begin(r, "fetch");
	return end(r, "fetch", r->impl->fetch(r, source, sink));
}

enum mf_err remote_wait(struct remote *r, const char *raw, int64_t timeout_ms, int wake_fd, const struct push_sink *sink)
{
	begin(r, "wait");
	return end(r, "wait", r->impl->wait(r, raw, timeout_ms, wake_fd, sink));
}

enum mf_err remote_quota(struct remote *r, struct quota *ret)
{
	begin(r, "quota");
	return end(r, "quota", r->impl->quota(r, ret));
}

bool remote_can_write(const struct remote *r)
{
	return r->impl->write != NULL;
}

enum mf_err remote_write(struct remote *r, const struct remote_write *writes, size_t count, const struct write_sink *sink)
{
	begin(r, "write");
	return end(r, "write", r->impl->write(r, writes, count, sink));
}

const char *remote_reason(struct remote *r)
{
	return r->impl->reason(r);
}

void remote_destroy(struct remote *r)
{
	if (!r)
		return;
	begin(r, "destroy");
	r->impl->destroy(r);
}

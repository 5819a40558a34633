/* remote_sinks.h: who is told what a back-end of sync/remote.h makes of any bytes, and holds it to that header. */
#ifndef MF_TESTS_FUZZ_REMOTE_SINKS_H
#define MF_TESTS_FUZZ_REMOTE_SINKS_H

#include <string.h>

#include "fuzz/serve.h"
#include "sync/remote.h"

static uint64_t fuzz_announced, fuzz_given;   /* of the body under way */

static inline enum mf_err fuzz_on_mailbox(void *context, const struct remote_mailbox *m)
{
	(void)context;
	HOLDS(m->raw);
	return MF_OK;
}

static inline enum mf_err fuzz_on_opened(void *context, size_t i, const struct mailbox_status *status, bool read_only)
{
	(void)context, (void)read_only;
	HOLDS(i < 2 && status);
	return MF_OK;
}

static inline enum mf_err fuzz_on_message(void *context, size_t i, const struct remote_message *m)
{
	(void)context;
	HOLDS(i < 2 && m->uid && (m->header || !m->header_len));
	volatile unsigned char sum = 0;
	for (size_t at = 0; at < m->header_len; at++)
		sum = (unsigned char)(sum + ((const unsigned char *)m->header)[at]);
	return MF_OK;
}

static inline enum mf_err fuzz_on_flags(void *context, size_t i, uint32_t uid, unsigned flags, const char *keywords, uint64_t modseq)
{
	(void)context, (void)flags, (void)modseq;
	HOLDS(i < 2 && uid && keywords && strlen(keywords) < 1 << 20);
	return MF_OK;
}

static inline enum mf_err fuzz_on_ranges(void *context, size_t i, const struct uid_ranges *uids)
{
	(void)context;
	HOLDS(i < 2);
	for (size_t k = 0; k < uids->count; k++) {
		HOLDS(uids->items[k].first && uids->items[k].first <= uids->items[k].last);
		HOLDS(!k || uids->items[k - 1].last < uids->items[k].first);
	}
	return MF_OK;
}

static inline enum mf_err fuzz_on_closed(void *context, size_t i, enum mf_err result, const struct mailbox_status *status)
{
	(void)context, (void)result;
	HOLDS(i < 2 && status);
	return MF_OK;
}

static inline enum mf_err fuzz_on_begin(void *context, uint32_t uid, uint64_t offset, uint64_t length)
{
	(void)context;
	HOLDS(uid && offset + length >= offset);
	fuzz_announced = length;
	fuzz_given = 0;
	return MF_OK;
}

static inline enum mf_err fuzz_on_data(void *context, const void *data, size_t len)
{
	(void)context;
	HOLDS(data && len);
	fuzz_given += len;
	HOLDS(fuzz_given <= fuzz_announced);
	return MF_OK;
}

static inline enum mf_err fuzz_on_end(void *context, uint32_t uid, enum mf_err result, bool whole)
{
	(void)context, (void)whole;
	HOLDS(uid && (result || fuzz_given == fuzz_announced));
	return MF_OK;
}

static inline enum mf_err fuzz_on_done(void *context, size_t i, const struct write_result *result)
{
	(void)context;
	HOLDS(i < 4 && (result->pairs || !result->count));
	for (size_t k = 0; k < result->count; k++)
		HOLDS(result->pairs[k].to && (!k || result->pairs[k - 1].from < result->pairs[k].from));
	return MF_OK;
}

static const struct mailbox_sink fuzz_mailboxes = { fuzz_on_mailbox, NULL, NULL };
static const struct change_sink fuzz_changes = { fuzz_on_opened, fuzz_on_message, fuzz_on_flags, fuzz_on_ranges, fuzz_on_ranges, fuzz_on_closed, NULL };
static const struct fetch_sink fuzz_bodies = { fuzz_on_begin, fuzz_on_data, fuzz_on_end, NULL };
static const struct write_sink fuzz_written = { fuzz_on_done, NULL };

#endif

#include "mail/summary.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "mail/address.h"
#include "mail/date.h"
#include "mail/digest.h"
#include "mail/header.h"
#include "mail/text.h"

/* How much of a field is read at all. Encoded words take up to four bytes for one of text. */
#define RAW_MAX 8192

enum field { FIELD_DATE, FIELD_FROM, FIELD_TO, FIELD_SUBJECT, FIELD_MESSAGE_ID, FIELD_COUNT };
static const char *const field_names[FIELD_COUNT] = { "Date", "From", "To", "Subject", "Message-ID" };

struct value { char *text; size_t len; };

/* As far as whole words go; NULs are not */
static size_t ascii_run(const char *s, size_t len)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), highs = ones << 7;
	size_t n = 0;
	for (uint64_t word; n + sizeof word <= len; n += sizeof word) {
		memcpy(&word, s + n, sizeof word);
		if ((word | (word - ones)) & highs)
			break;
	}
	return n;
}

/* Takes s, which may be what it gives: as a rule it is valid UTF-8 already */
static struct value make_valid(char *s, size_t len)
{
	size_t ascii = ascii_run(s, len);
	if (g_utf8_validate_len(s + ascii, len - ascii, NULL))
		return (struct value) { s, len };
	struct buf valid;
	buf_init(&valid, 3 * len);
	text_add_bytes(&valid, s, len);
	free(s);
	len = valid.len;
	return (struct value) { buf_detach(&valid), len };
}

/* A field's value, unfolded, as valid UTF-8 whose encoded words are still encoded */
static struct value read_field(struct header_span span)
{
	size_t len;
	char *raw = header_unfold(span, RAW_MAX, &len);
	return make_valid(raw, len);
}

static char *clean_decoded(struct value value)
{
	if (!memmem(value.text, value.len, "=?", 2))
		return text_clean(value.text, value.len, MAIL_SUMMARY_VALUE_MAX);
	struct buf decoded;
	buf_init(&decoded, 3 * RAW_MAX);
	text_add_decoded(&decoded, value.text, value.len);
	char *clean = text_clean(decoded.data, decoded.len, MAIL_SUMMARY_VALUE_MAX);
	buf_finish(&decoded);
	return clean;
}

/* --- addresses --- */

static void add_quoted(struct buf *out, const char *name)
{
	(void)buf_adds(out, "\"");
	for (; *name; name++) {
		if (*name == '"' || *name == '\\')
			(void)buf_adds(out, "\\");
		(void)buf_add(out, name, 1);
	}
	(void)buf_adds(out, "\"");
}

/* Name <local@domain>, quoted where the grammar wants it, so that it can be read again */
static void add_mailbox(struct buf *out, const char *name, const char *addr)
{
	if (!*name || !*addr) {
		(void)buf_adds(out, *name ? name : addr);
		return;
	}
	if (strpbrk(name, "()<>[]:;@\\,\""))
		add_quoted(out, name);
	else
		(void)buf_adds(out, name);
	(void)buf_adds(out, " <");
	(void)buf_adds(out, addr);
	(void)buf_adds(out, ">");
}

/* Of a name and an address that are clean */
static char *format_mailbox(const char *name, const char *addr)
{
	struct buf text;
	buf_init(&text, 4 * MAIL_SUMMARY_VALUE_MAX);
	add_mailbox(&text, name, addr);
	if (text.len <= MAIL_SUMMARY_VALUE_MAX)
		return buf_detach(&text);
	char *clean = text_clean(text.data, text.len, MAIL_SUMMARY_VALUE_MAX);
	buf_finish(&text);
	return clean;
}

/* The first mailbox that has an address, else the first, else whatever the field says */
static void parse_from(struct value value, struct mail_summary *ret)
{
	struct address_reader reader;
	address_reader_init(&reader, value.text, value.len);
	MF_CLEANUP(mf_free) char *name = NULL;
	MF_CLEANUP(mf_free) char *addr = NULL;
	while (address_next(&reader)) {
		if (name && reader.addr.len == 0)
			continue;
		free(name);
		free(addr);
		name = text_clean(reader.name.data, reader.name.len, MAIL_SUMMARY_VALUE_MAX);
		addr = text_clean(reader.addr.data, reader.addr.len, MAIL_SUMMARY_VALUE_MAX);
		if (*addr)
			break;
	}
	address_reader_finish(&reader);
	if (!name || (!*name && !*addr)) {
		ret->from = clean_decoded(value);
		ret->from_name = mf_strdup(ret->from);
		return;
	}
	ret->from = format_mailbox(name, addr);
	ret->from_name = mf_strdup(*name ? name : addr);
}

static char *parse_to(struct value value)
{
	struct address_reader reader;
	address_reader_init(&reader, value.text, value.len);
	struct buf all;
	buf_init(&all, MAIL_SUMMARY_VALUE_MAX);
	while (address_next(&reader)) {
		MF_CLEANUP(mf_free) char *name = text_clean(reader.name.data, reader.name.len, MAIL_SUMMARY_VALUE_MAX);
		MF_CLEANUP(mf_free) char *addr = text_clean(reader.addr.data, reader.addr.len, MAIL_SUMMARY_VALUE_MAX);
		MF_CLEANUP(mf_free) char *mailbox = format_mailbox(name, addr);
		if (!*mailbox)
			continue;
		const char *comma = all.len > 0 ? ", " : "";
		if (strlen(comma) + strlen(mailbox) > MAIL_SUMMARY_VALUE_MAX - all.len)
			break; /* full: no half addresses */
		(void)buf_adds(&all, comma);
		(void)buf_adds(&all, mailbox);
	}
	address_reader_finish(&reader);
	return all.len > 0 ? buf_detach(&all) : clean_decoded(value);
}

/* --- Message-ID and key --- */

/* What stands between < and >, without white space; without brackets the first word. All of it: the key is of it. */
static void read_message_id(struct header_span span, struct buf *ret)
{
	size_t len;
	MF_CLEANUP(mf_free) char *raw = header_unfold(span, span.len, &len);
	const char *open = memchr(raw, '<', len), *p = open ? open + 1 : raw, *end = raw + len;
	buf_init(ret, span.len);
	while (p < end && *p != '>') {
		const char *stop = p;
		while (stop < end && *stop != '>' && *stop != ' ' && *stop != '\t')
			stop++;
		(void)buf_add(ret, p, (size_t)(stop - p));
		if (stop < end && *stop != '>' && !open)
			break;
		p = stop < end && *stop != '>' ? stop + 1 : stop;
	}
}

static void add_unfolded(struct digest *digest, struct header_span span)
{
	size_t len;
	MF_CLEANUP(mf_free) char *text = header_unfold(span, span.len, &len);
	digest_add(digest, text, len);
	digest_add(digest, "\n", 1);
}

static void make_key(const struct header_span *fields, const struct buf *message_id, uint64_t size, char ret[static 9])
{
	struct digest digest;
	digest_begin(&digest);
	if (message_id->len > 0) {
		digest_add(&digest, message_id->data, message_id->len);
	} else {
		char number[24];
		add_unfolded(&digest, fields[FIELD_DATE]);
		add_unfolded(&digest, fields[FIELD_FROM]);
		add_unfolded(&digest, fields[FIELD_SUBJECT]);
		int n = snprintf(number, sizeof number, "%" PRIu64, size);
		digest_add(&digest, number, (size_t)n);
	}
	digest_end_base32(&digest, ret, 8);
}

static void parse_message_id(const struct header_span *fields, uint64_t size, struct mail_summary *ret)
{
	struct buf id;
	read_message_id(fields[FIELD_MESSAGE_ID], &id);
	make_key(fields, &id, size, ret->key);
	size_t len = id.len;
	struct value value = make_valid(buf_detach(&id), len);
	ret->message_id = text_clean(value.text, value.len, MAIL_SUMMARY_VALUE_MAX);
	free(value.text);
}

/* --- all of it --- */

void mail_summary_parse(const void *header, size_t len, uint64_t size, struct mail_summary *ret)
{
	struct header_span fields[FIELD_COUNT];
	header_find(header, len, field_names, FIELD_COUNT, fields);
	*ret = (struct mail_summary) { 0 };
	struct value from = read_field(fields[FIELD_FROM]), to = read_field(fields[FIELD_TO]);
	struct value subject = read_field(fields[FIELD_SUBJECT]), date = read_field(fields[FIELD_DATE]);
	parse_from(from, ret);
	ret->to = parse_to(to);
	ret->subject = clean_decoded(subject);
	ret->has_date = mail_date_parse(date.text, date.len, &ret->date);
	parse_message_id(fields, size, ret);
	free(from.text);
	free(to.text);
	free(subject.text);
	free(date.text);
}

void mail_summary_finish(struct mail_summary *summary)
{
	free(summary->from);
	free(summary->from_name);
	free(summary->to);
	free(summary->subject);
	free(summary->message_id);
	*summary = (struct mail_summary) { 0 };
}

bool mail_looks_like_message(const void *data, size_t len)
{
	const char *line = len > 0 ? data : "", *end = line + len;
	if (len >= 5 && memcmp(line, "From ", 5) == 0) {
		const char *lf = memchr(line, '\n', len);
		line = lf ? lf + 1 : end;
	}
	return header_name_length(line, (size_t)(end - line)) > 0;
}

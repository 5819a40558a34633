#include "mail/origin.h"

#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "mail/date.h"
#include "mail/digest.h"
#include "mail/header.h"

#define SEMICOLONS_MAX 8 /* that are tried in a Received field */

struct line { const char *data; size_t len; }; /* without its end */

/* The next line; false: no more */
static bool next_line(const char **at, const char *end, struct line *ret)
{
	if (*at == end)
		return false;
	const char *newline = memchr(*at, '\n', (size_t)(end - *at));
	const char *stop = newline ? newline : end;
	ret->data = *at;
	*at = newline ? newline + 1 : end;
	if (stop > ret->data && stop[-1] == '\r')
		stop--;
	ret->len = (size_t)(stop - ret->data);
	return true;
}

#define NAME(text) { text, sizeof text - 1 }

static bool is_trace_field(struct line name)
{
	static const struct line names[] = {
		NAME("Received"), NAME("Return-Path"), NAME("Delivered-To"), NAME("Envelope-To"), NAME("Status"), NAME("Lines"), NAME("Content-Length"),
		NAME("Authentication-Results"), NAME("Received-SPF"), NAME("ARC-Seal"), NAME("ARC-Message-Signature"),
		NAME("ARC-Authentication-Results"), NAME("DKIM-Filter"),
	};
	if (name.len > 2 && strncasecmp(name.data, "X-", 2) == 0)
		return true;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].len == name.len && strncasecmp(name.data, names[i].data, name.len) == 0)
			return true;
	return false;
}

/* Lines on the way into a digest, gathered: to add something costs more than most lines do */
struct gathered {
	struct digest digest;
	size_t len;
	char bytes[4096];
};

static void flush(struct gathered *g)
{
	digest_add(&g->digest, g->bytes, g->len);
	g->len = 0;
}

static void add_line(struct gathered *g, struct line line)
{
	if (line.len >= sizeof g->bytes - g->len)
		flush(g);
	if (line.len < sizeof g->bytes) {
		memcpy(g->bytes + g->len, line.data, line.len);
		g->len += line.len;
	} else {
		digest_add(&g->digest, line.data, line.len);
	}
	g->bytes[g->len++] = '\n';
}

void mail_header_digest(const void *header, size_t len, char ret[static MAIL_DIGEST_SIZE])
{
	struct gathered g;
	g.len = 0;
	digest_begin(&g.digest);
	const char *at = header, *end = at + len;
	bool skip = false; /* the field under way, and with it its continuation lines */
	struct line line;
	while (next_line(&at, end, &line) && line.len) {
		if (line.data[0] != ' ' && line.data[0] != '\t')
			skip = is_trace_field((struct line){ line.data, header_name_length(line.data, line.len) });
		if (!skip)
			add_line(&g, line);
	}
	flush(&g);
	unsigned char whole[DIGEST_BYTES];
	digest_end(&g.digest, whole);
	for (size_t i = 0; i + 1 < MAIL_DIGEST_SIZE; i++) /* the first half of it */
		ret[i] = "0123456789abcdef"[i % 2 ? whole[i / 2] & 15 : whole[i / 2] >> 4];
	ret[MAIL_DIGEST_SIZE - 1] = '\0';
}

static bool date_of(const char *data, size_t len, int64_t *ret)
{
	size_t text_len;
	char *text = header_unfold((struct header_span){ data, len }, 256, &text_len);
	bool good = mail_date_parse(text, text_len, ret);
	free(text);
	return good;
}

/* Behind the last semicolon, or behind one before it where comments have some, too */
static bool received_date(struct header_span field, int64_t *ret)
{
	size_t before = field.len;
	for (int i = 0; i < SEMICOLONS_MAX; i++) {
		const char *semicolon = before ? memrchr(field.data, ';', before) : NULL;
		if (!semicolon)
			return false;
		before = (size_t)(semicolon - field.data);
		if (date_of(semicolon + 1, field.len - before - 1, ret))
			return true;
	}
	return false;
}

bool mail_arrival_date(const void *header, size_t len, int64_t *ret)
{
	static const char *const names[] = { "Received", "Date" };
	struct header_span spans[2];
	header_find(header, len, names, 2, spans);
	if (spans[0].data && received_date(spans[0], ret))
		return true;
	return spans[1].data && date_of(spans[1].data, spans[1].len, ret);
}

void mail_md5(const void *data, size_t len, char ret[static MAIL_DIGEST_SIZE])
{
	gchar *text = g_compute_checksum_for_data(G_CHECKSUM_MD5, data, len);
	memcpy(ret, text, MAIL_DIGEST_SIZE);
	g_free(text);
}

/* What libetpan asks when it meets a FETCH item or a STATUS attribute that it does not know, or cannot parse. */
#include <libetpan/libetpan.h>
#include <libetpan/mailimap_extension.h>
#include <string.h>

#include "base/mem.h"
#include "sync/imap/extension.h"
#include "sync/imap/scan.h"

static void free_data(struct mailimap_extension_data *data)
{
	if (data)
		free(data->ext_data);
	free(data);
}

/* "(id)" as in EMAILID (M6d99ac3275bb4e), and MAILBOXID, RFC 8474 */
static char *object_id(struct scan value)
{
	struct span id;
	return scan_char(&value, '(') && scan_word(&value, &id) && id.len <= 255 ? mf_strndup(id.p, id.len) : NULL;
}

/* Cyrus 3.6 tells bytes of its memory in LIST-STATUS: what no id can be (RFC 8474 4) is none */
static char *mailbox_id(struct scan value)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
	char *id = object_id(value);
	if (!id || id[strspn(id, allowed)] == 0)
		return id;
	free(id);
	return NULL;
}

/* "1000"; or NIL, and then there is none */
static char *append_limit(struct scan value)
{
	const char *begin = value.p;
	uint64_t limit;
	return scan_number(&value, &limit) ? mf_strndup(begin, (size_t)(value.p - begin)) : NULL;
}

/* a literal's bytes are not in the buffer yet: libetpan's stream has them, and the rest of the line behind them */
static bool pass_literal(mailstream *stream, MMAPString *buffer, uint64_t len)
{
	char bytes[4096];
	while (len) {
		ssize_t n = mailstream_read(stream, bytes, len < sizeof bytes ? (size_t)len : sizeof bytes);
		if (n <= 0)
			return false;
		len -= (uint64_t)n;
	}
	return mailstream_read_line_append(stream, buffer) != NULL;
}

static bool literal_ahead(struct scan s, uint64_t *ret_len)
{
	(void)scan_char(&s, '~');
	return scan_char(&s, '{') && scan_number(&s, ret_len) && (scan_char(&s, '+') || true) && scan_char(&s, '}') && scan_at_end(&s);
}

/* One value, from *index on. The buffer grows, and moves, as literals are met. */
static int skip_value(mailstream *stream, MMAPString *buffer, size_t *index)
{
	size_t at = *index;
	int depth = 0;
	do {
		struct scan s = { buffer->str + at, buffer->str + buffer->len };
		uint64_t literal;
		if (depth && scan_char(&s, ' ')) {
			/* between two values */
		} else if (scan_char(&s, '(')) {
			depth++;
		} else if (depth && scan_char(&s, ')')) {
			depth--;
		} else if (literal_ahead(s, &literal)) {
			at = buffer->len;
			if (!pass_literal(stream, buffer, literal))
				return MAILIMAP_ERROR_STREAM;
			continue;
		} else if (!scan_skip(&s)) {
			return MAILIMAP_ERROR_PARSE;
		}
		at = (size_t)(s.p - buffer->str);
	} while (depth);
	*index = at;
	return MAILIMAP_NO_ERROR;
}

static int parse_item(int caller, mailstream *stream, MMAPString *buffer, struct mailimap_parser_context *context, size_t *index,
                      struct mailimap_extension_data **result, size_t rate, progress_function *progress)
{
	(void)context, (void)rate, (void)progress;
	if (caller != MAILIMAP_EXTENDED_PARSER_FETCH_DATA && caller != MAILIMAP_EXTENDED_PARSER_STATUS_ATT)
		return MAILIMAP_ERROR_PARSE;
	struct scan s = { buffer->str + *index, buffer->str + buffer->len };
	struct span name;
	if (!scan_item(&s, &name) || !scan_char(&s, ' '))
		return MAILIMAP_ERROR_PARSE;
	bool is_id = caller == MAILIMAP_EXTENDED_PARSER_FETCH_DATA && span_is(name, "EMAILID");
	bool is_limit = caller == MAILIMAP_EXTENDED_PARSER_STATUS_ATT && span_is(name, "APPENDLIMIT");
	bool is_mailbox_id = caller == MAILIMAP_EXTENDED_PARSER_STATUS_ATT && span_is(name, "MAILBOXID");
	char *value = is_id ? object_id(s) : is_mailbox_id ? mailbox_id(s) : is_limit ? append_limit(s) : NULL;
	size_t at = (size_t)(s.p - buffer->str);
	int error = skip_value(stream, buffer, &at);
	if (error) {
		free(value);
		return error;
	}
	*index = at;
	*result = mailimap_extension_data_new(&imap_extension, is_limit ? EXTENSION_APPEND_LIMIT : EXTENSION_ID, value);
	return *result ? MAILIMAP_NO_ERROR : MAILIMAP_ERROR_MEMORY;
}

static char extension_name[] = "mailfs";
struct mailimap_extension_api imap_extension = { .ext_name = extension_name, .ext_id = -1, .ext_parser = parse_item, .ext_free = free_data };

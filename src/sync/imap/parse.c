#include "sync/imap/parse.h"

#include <libetpan/libetpan.h>
#include <libetpan/mailimap_extension.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"
#include "sync/imap/extension.h"

#define KEYWORDS_MAX 4096
/* Of a response, beside its literals. libetpan takes some 70 bytes for two of a list; nothing that is asked for is longer. */
#define PARSED_MAX (256U << 10)

/* exported by the library, in no header of 1.9 */
int mailimap_response_data_parse(mailstream *stream, MMAPString *buffer, struct mailimap_parser_context *context, size_t *index,
                                 struct mailimap_response_data **result, size_t rate, progress_function *progress);

struct imap_parser {
	mailimap *session;                       /* libetpan wants one for its context; it is never connected */
	struct mailimap_parser_context *context;
	mailstream *stream;                      /* gives what of the frame is behind its first literal */
	struct span behind;
	MMAPString *line;                        /* a first line of which there is more */
	struct mailimap_response_data *held;     /* what the last imap_data points into */
	struct buf keywords, scratch;
	char email_id[32];
};

static ssize_t memory_read(mailstream_low *low, void *to, size_t size)
{
	struct imap_parser *p = low->data;
	if (!p->behind.len)
		return -1;
	size_t n = size < p->behind.len ? size : p->behind.len;
	memcpy(to, p->behind.p, n);
	p->behind.p += n;
	p->behind.len -= n;
	return (ssize_t)n;
}

static ssize_t memory_write(mailstream_low *low, const void *data, size_t size)
{
	(void)low, (void)data, (void)size;
	return -1;
}

static int memory_close(mailstream_low *low)
{
	(void)low;
	return 0;
}

static int memory_fd(mailstream_low *low)
{
	(void)low;
	return -1;
}

static void memory_free(mailstream_low *low)
{
	free(low);
}

static void memory_cancel(mailstream_low *low)
{
	(void)low;
}

static mailstream_low_driver memory_driver = { .mailstream_read = memory_read, .mailstream_write = memory_write, .mailstream_close = memory_close,
	.mailstream_get_fd = memory_fd, .mailstream_free = memory_free, .mailstream_cancel = memory_cancel };

void imap_parse_init(void)
{
	if (libetpan_get_version_major() != 1 || libetpan_get_version_minor() != 9)
		log_warning("libetpan %d.%d is not the 1.9 that mailfs was tested with", libetpan_get_version_major(), libetpan_get_version_minor());
	mmap_string_set_ceil(SIZE_MAX / 2); /* large strings stay in memory: mail is not written to /tmp */
	mailimap_extension_register(&imap_extension);
}

struct imap_parser *imap_parser_create(void)
{
	struct imap_parser *p = MF_NEW(struct imap_parser);
	p->session = mailimap_new(0, NULL);
	p->context = p->session ? mailimap_parser_context_new(p->session) : NULL;
	mailstream_low *low = mailstream_low_new(p, &memory_driver);
	p->stream = low ? mailstream_new(low, 8192) : NULL;
	p->line = mmap_string_sized_new(1024);
	if (!p->context || !p->stream || !p->line)
		abort();
	buf_init(&p->keywords, KEYWORDS_MAX);
	buf_init(&p->scratch, 64U << 20);
	return p;
}

void imap_parser_destroy(struct imap_parser *p)
{
	if (!p)
		return;
	if (p->held)
		mailimap_response_data_free(p->held);
	mailstream_close(p->stream);
	mailimap_parser_context_free(p->context);
	mailimap_free(p->session);
	mmap_string_free(p->line);
	buf_finish(&p->keywords);
	buf_finish(&p->scratch);
	free(p);
}

/* --- status lines -------------------------------------------------------------------------------------------------- */

static bool cond_kind(struct span word, enum cond_kind *ret)
{
	static const char *const words[] = { [COND_OK] = "OK", [COND_NO] = "NO", [COND_BAD] = "BAD", [COND_PREAUTH] = "PREAUTH", [COND_BYE] = "BYE" };
	for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
		if (span_is(word, words[i])) {
			*ret = (enum cond_kind)i;
			return true;
		}
	}
	return false;
}

bool imap_parse_cond(struct scan *s, struct imap_cond *ret)
{
	struct span word;
	*ret = (struct imap_cond){ .code.p = "", .args.p = "", .text.p = "" };
	if (!scan_word(s, &word) || !cond_kind(word, &ret->kind))
		return false;
	const char *end = s->end;
	while (end > s->p && (end[-1] == '\n' || end[-1] == '\r'))
		end--;
	(void)scan_char(s, ' ');
	const char *close;
	if (s->p < end && *s->p == '[' && (close = memchr(s->p, ']', (size_t)(end - s->p)))) {
		const char *code = s->p + 1, *p = code;
		while (p < close && *p != ' ')
			p++;
		ret->code = (struct span){ code, (size_t)(p - code) };
		if (p < close)
			ret->args = (struct span){ p + 1, (size_t)(close - p - 1) };
		s->p = close + 1;
		(void)scan_char(s, ' ');
	}
	ret->text = (struct span){ s->p, s->p < end ? (size_t)(end - s->p) : 0 };
	s->p = end;
	return true;
}

/* --- FETCH --------------------------------------------------------------------------------------------------------- */

/* days since the epoch of a Gregorian date */
static int64_t days_of(int year, int month, int day)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static bool seconds_of(const struct mailimap_date_time *d, int64_t *ret)
{
	if (d->dt_year < 1 || d->dt_year > 9999 || d->dt_month < 1 || d->dt_month > 12 || d->dt_day < 1 || d->dt_day > 31 ||
	    d->dt_hour < 0 || d->dt_hour > 23 || d->dt_min < 0 || d->dt_min > 59 || d->dt_sec < 0 || d->dt_sec > 60)
		return false;
	int64_t zone = (int64_t)(d->dt_zone / 100) * 3600 + (int64_t)(d->dt_zone % 100) * 60; /* +0530 is 530 */
	*ret = days_of(d->dt_year, d->dt_month, d->dt_day) * 86400 + d->dt_hour * 3600 + d->dt_min * 60 + d->dt_sec - zone;
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_keywords(struct imap_parser *p, const char **words, size_t count)
{
	qsort(words, count, sizeof *words, by_name);
	buf_reset(&p->keywords);
	for (size_t i = 0; i < count; i++)
		if (*words[i] && (!i || strcasecmp(words[i], words[i - 1])))
			(void)buf_addf(&p->keywords, "%s%s", p->keywords.len ? " " : "", words[i]);
}

static void take_flags(struct imap_parser *p, const struct mailimap_msg_att_dynamic *dynamic, struct imap_fetch *f)
{
	const char *words[128];
	size_t count = 0;
	f->has_flags = true;
	f->flags = 0;
	for (clistiter *i = dynamic->att_list ? clist_begin(dynamic->att_list) : NULL; i; i = clist_next(i)) {
		const struct mailimap_flag_fetch *flag = clist_content(i);
		if (flag->fl_type != MAILIMAP_FLAG_FETCH_OTHER || !flag->fl_flag)
			continue;
		switch (flag->fl_flag->fl_type) {
		case MAILIMAP_FLAG_SEEN: f->flags |= FLAG_SEEN; break;
		case MAILIMAP_FLAG_ANSWERED: f->flags |= FLAG_ANSWERED; break;
		case MAILIMAP_FLAG_FLAGGED: f->flags |= FLAG_FLAGGED; break;
		case MAILIMAP_FLAG_DELETED: f->flags |= FLAG_DELETED; break;
		case MAILIMAP_FLAG_DRAFT: f->flags |= FLAG_DRAFT; break;
		case MAILIMAP_FLAG_KEYWORD:
			if (flag->fl_flag->fl_data.fl_keyword && count < sizeof words / sizeof *words)
				words[count++] = flag->fl_flag->fl_data.fl_keyword;
			break;
		default: /* other system flags have no meaning here */
			break;
		}
	}
	sort_keywords(p, words, count);
	f->keywords = p->keywords.data;
}

static void take_static(const struct mailimap_msg_att_static *item, struct imap_fetch *f)
{
	const struct mailimap_msg_att_body_section *section = NULL;
	switch (item->att_type) {
	case MAILIMAP_MSG_ATT_UID:
		f->uid = item->att_data.att_uid;
		break;
	case MAILIMAP_MSG_ATT_INTERNALDATE:
		f->has_date = item->att_data.att_internal_date && seconds_of(item->att_data.att_internal_date, &f->date);
		break;
	case MAILIMAP_MSG_ATT_BODY_SECTION:
		section = item->att_data.att_body_section;
		if (section && section->sec_section && section->sec_section->sec_spec && section->sec_body_part) {
			f->header = section->sec_body_part;
			f->header_len = section->sec_length;
		}
		break;
	default:
		break;
	}
}

static void take_extension(struct imap_parser *p, const struct mailimap_extension_data *item, struct imap_fetch *f)
{
	if (!item || !item->ext_data)
		return;
	if (item->ext_extension == &imap_extension) {
		f->email_id = item->ext_data;
	} else if (item->ext_extension->ext_id == MAILIMAP_EXTENSION_XGMMSGID) {
		snprintf(p->email_id, sizeof p->email_id, "%llu", (unsigned long long)*(uint64_t *)item->ext_data);
		if (!f->email_id)
			f->email_id = p->email_id;
	} else if (item->ext_extension->ext_id == MAILIMAP_EXTENSION_CONDSTORE && item->ext_type == MAILIMAP_CONDSTORE_TYPE_FETCH_DATA) {
		f->modseq = ((struct mailimap_condstore_fetch_mod_resp *)item->ext_data)->cs_modseq_value;
	}
}

static void take_items(struct imap_parser *p, const struct mailimap_msg_att *items, struct imap_fetch *f)
{
	for (clistiter *i = clist_begin(items->att_list); i; i = clist_next(i)) {
		const struct mailimap_msg_att_item *item = clist_content(i);
		if (item->att_type == MAILIMAP_MSG_ATT_ITEM_STATIC)
			take_static(item->att_data.att_static, f);
		else if (item->att_type == MAILIMAP_MSG_ATT_ITEM_DYNAMIC)
			take_flags(p, item->att_data.att_dyn, f);
		else
			take_extension(p, item->att_data.att_extension_data, f);
	}
}

/* UID, and RFC822.SIZE, of which libetpan keeps 32 bits only; from the bytes, whatever else there is. Behind "FETCH ". */
static void scan_items(struct scan s, struct imap_fetch *f)
{
	struct span name;
	uint64_t size;
	uint32_t uid;
	if (!scan_char(&s, '('))
		return;
	while (scan_item(&s, &name) && scan_char(&s, ' ')) {
		struct scan value = s;
		if (span_is(name, "UID") && scan_uid(&value, &uid)) {
			f->uid = uid;
		} else if (span_is(name, "RFC822.SIZE") && scan_number(&value, &size) && value.p < value.end && (*value.p == ' ' || *value.p == ')')) {
			f->size = size;
			f->has_size = true;
		}
		if (!scan_skip(&s))
			return;
		(void)scan_char(&s, ' ');
	}
}

/* --- handing a frame to libetpan ------------------------------------------------------------------------------------ */

/* Of BODY[HEADER.FIELDS (...)] libetpan makes a list that nobody needs, and that it loses where what comes next is not what it
 * expects: it is shown BODY[HEADER]. false: there is none in the first line. */
static bool take_shorter_line(struct imap_parser *p, const struct imap_frame *f)
{
	static const char item[] = "BODY[HEADER.FIELDS (", kept[] = "BODY[HEADER";
	const char *text = f->text->str, *end = text + f->first_line;
	const char *at = memmem(text, f->first_line, item, sizeof item - 1), *close = at ? memmem(at, (size_t)(end - at), ")]", 2) : NULL;
	if (!close)
		return false;
	const char *cut = at + sizeof kept - 1;
	mmap_string_truncate(p->line, 0);
	return mmap_string_append_len(p->line, text, (size_t)(cut - text)) && mmap_string_append_len(p->line, close + 1, (size_t)(end - close - 1));
}

static struct mailimap_response_data *etpan_parse(struct imap_parser *p, const struct imap_frame *f)
{
	MMAPString *buffer = f->text;
	bool goes_on = f->first_line < f->text->len;
	p->behind = (struct span){ f->text->str + f->first_line, f->text->len - f->first_line };
	if (f->lines_len > PARSED_MAX)
		return NULL;
	if (take_shorter_line(p, f)) {
		buffer = p->line;
	} else if (goes_on) {
		mmap_string_truncate(p->line, 0);
		if (!mmap_string_append_len(p->line, f->text->str, f->first_line))
			return NULL;
		buffer = p->line;
	}
	size_t at = 0;
	struct mailimap_response_data *data = NULL;
	int result = mailimap_response_data_parse(p->stream, buffer, p->context, &at, &data, 0, NULL);
	p->stream->read_buffer_len = 0; /* what it did not take is nobody's */
	return result == MAILIMAP_NO_ERROR ? data : NULL;
}

static void parse_fetch(struct imap_parser *p, const struct imap_frame *f, struct scan items, struct imap_data *ret)
{
	ret->kind = DATA_SKIPPED;
	p->held = etpan_parse(p, f);
	if (p->held && p->held->rsp_type == MAILIMAP_RESP_DATA_TYPE_MESSAGE_DATA && p->held->rsp_data.rsp_message_data->mdt_msg_att) {
		ret->kind = DATA_FETCH;
		take_items(p, p->held->rsp_data.rsp_message_data->mdt_msg_att, &ret->fetch);
	}
	scan_items(items, &ret->fetch);
	if (!ret->fetch.keywords)
		ret->fetch.keywords = "";
}

/* --- LIST, LSUB, STATUS --------------------------------------------------------------------------------------------- */

static void take_list_flag(const char *flag, struct remote_mailbox *m)
{
	static const struct { const char *name; unsigned flags; enum special_use use; } known[] = {
		{ "NoSelect", MAILBOX_NOSELECT, USE_NONE }, { "NonExistent", MAILBOX_NOSELECT, USE_NONE },
		{ "NoInferiors", MAILBOX_NOINFERIORS, USE_NONE }, { "Subscribed", MAILBOX_SUBSCRIBED, USE_NONE },
		{ "All", 0, USE_ALL }, { "AllMail", 0, USE_ALL }, { "Archive", 0, USE_ARCHIVE }, { "Drafts", 0, USE_DRAFTS },
		{ "Flagged", 0, USE_FLAGGED }, { "Starred", 0, USE_FLAGGED }, { "Junk", 0, USE_JUNK }, { "Spam", 0, USE_JUNK },
		{ "Sent", 0, USE_SENT }, { "Trash", 0, USE_TRASH },
	};
	if (*flag == '\\')
		flag++;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		if (!strcasecmp(flag, known[i].name)) {
			m->flags |= known[i].flags;
			if (known[i].use)
				m->use = known[i].use;
		}
	}
}

static void take_list(const struct mailimap_mailbox_list *list, struct remote_mailbox *m)
{
	m->raw = list->mb_name;
	m->delimiter = list->mb_delimiter;
	if (!list->mb_flag)
		return;
	if (list->mb_flag->mbf_type == MAILIMAP_MBX_LIST_FLAGS_SFLAG && list->mb_flag->mbf_sflag == MAILIMAP_MBX_LIST_SFLAG_NOSELECT)
		m->flags |= MAILBOX_NOSELECT;
	for (clistiter *i = list->mb_flag->mbf_oflags ? clist_begin(list->mb_flag->mbf_oflags) : NULL; i; i = clist_next(i)) {
		const struct mailimap_mbx_list_oflag *flag = clist_content(i);
		if (flag->of_type == MAILIMAP_MBX_LIST_OFLAG_NOINFERIORS)
			m->flags |= MAILBOX_NOINFERIORS;
		else if (flag->of_flag_ext)
			take_list_flag(flag->of_flag_ext, m);
	}
}

/* LIST-EXTENDED data behind the name (RFC 9051 7.3.1) is what libetpan cannot parse; we never ask for any, some send it */
static bool without_extended_data(const struct imap_frame *f, struct scan rest, struct imap_frame *ret)
{
	if (!scan_skip(&rest) || !scan_char(&rest, ' ') || !scan_skip(&rest) || !scan_char(&rest, ' ') || !scan_skip(&rest) || scan_at_end(&rest))
		return false;
	frame_init(ret);
	bool done = ret->text && mmap_string_append_len(ret->text, f->text->str, (size_t)(rest.p - f->text->str)) && mmap_string_append(ret->text, "\r\n");
	ret->first_line = f->first_line < f->text->len && f->first_line < ret->text->len ? f->first_line : ret->text->len;
	return done;
}

static void parse_list(struct imap_parser *p, const struct imap_frame *f, struct imap_data *ret)
{
	enum data_kind kind = ret->kind;
	struct imap_frame shorter = { 0 };
	ret->kind = DATA_OTHER;
	ret->unreadable = true;
	p->held = etpan_parse(p, f);
	if (!p->held && without_extended_data(f, ret->rest, &shorter))
		p->held = etpan_parse(p, &shorter);
	frame_finish(&shorter);
	if (!p->held || p->held->rsp_type != MAILIMAP_RESP_DATA_TYPE_MAILBOX_DATA)
		return;
	const struct mailimap_mailbox_data *data = p->held->rsp_data.rsp_mailbox_data;
	const struct mailimap_mailbox_list *list = kind == DATA_LIST ? data->mbd_data.mbd_list : data->mbd_data.mbd_lsub;
	if (data->mbd_type != (kind == DATA_LIST ? MAILIMAP_MAILBOX_DATA_LIST : MAILIMAP_MAILBOX_DATA_LSUB) || !list || !list->mb_name)
		return;
	take_list(list, &ret->mailbox);
	ret->kind = kind;
	ret->unreadable = false;
}

/* Ours keeps only APPENDLIMIT's number, and MAILBOXID (extension.c) */
static void take_status_extension(const struct mailimap_extension_data *data, struct remote_mailbox *to)
{
	const char *text = data->ext_data;
	if (data->ext_extension->ext_id == MAILIMAP_EXTENSION_CONDSTORE)
		to->status.modseq = ((struct mailimap_condstore_status_info *)data->ext_data)->cs_highestmodseq_value;
	else if (data->ext_extension == &imap_extension && data->ext_type == EXTENSION_ID)
		to->object_id = text;
	else if (data->ext_extension == &imap_extension)
		(void)scan_number(&(struct scan){ text, text + strlen(text) }, &to->status.append_limit);
}

static void take_status(const struct mailimap_status_info *info, struct imap_data *ret)
{
	struct mailbox_status *to = &ret->mailbox.status;
	switch (info->st_att) {
	case MAILIMAP_STATUS_ATT_MESSAGES:
		to->messages = info->st_value;
		ret->counted = true;
		break;
	case MAILIMAP_STATUS_ATT_UIDNEXT: to->uidnext = info->st_value; break;
	case MAILIMAP_STATUS_ATT_UIDVALIDITY: to->uidvalidity = info->st_value; break;
	case MAILIMAP_STATUS_ATT_UNSEEN: to->unseen = info->st_value; break;
	case MAILIMAP_STATUS_ATT_EXTENSION:
		if (info->st_ext_data && info->st_ext_data->ext_data)
			take_status_extension(info->st_ext_data, &ret->mailbox);
		break;
	default: /* RECENT, and HIGHESTMODSEQ, which comes as an extension */
		break;
	}
}

/* libetpan leaves the backslashes of a quoted name in a STATUS where they are */
static const char *status_name(struct imap_parser *p, struct scan rest, const char *otherwise)
{
	struct span name;
	if (!scan_nstring(&rest, &p->scratch, &name) || !name.p || memchr(name.p, 0, name.len))
		return otherwise;
	if (name.p != p->scratch.data) {
		buf_reset(&p->scratch);
		if (buf_add(&p->scratch, name.p, name.len))
			return otherwise;
	}
	return p->scratch.data;
}

static void parse_status(struct imap_parser *p, const struct imap_frame *f, struct imap_data *ret)
{
	ret->kind = DATA_OTHER;
	p->held = etpan_parse(p, f);
	if (!p->held || p->held->rsp_type != MAILIMAP_RESP_DATA_TYPE_MAILBOX_DATA)
		return;
	const struct mailimap_mailbox_data *data = p->held->rsp_data.rsp_mailbox_data;
	if (data->mbd_type != MAILIMAP_MAILBOX_DATA_STATUS || !data->mbd_data.mbd_status || !data->mbd_data.mbd_status->st_mailbox)
		return;
	ret->kind = DATA_STATUS;
	ret->mailbox.raw = status_name(p, ret->rest, data->mbd_data.mbd_status->st_mailbox);
	ret->mailbox.flags = MAILBOX_HAS_STATUS;
	clist *list = data->mbd_data.mbd_status->st_info_list;
	for (clistiter *i = list ? clist_begin(list) : NULL; i; i = clist_next(i))
		take_status(clist_content(i), ret);
}

/* --- any untagged response ------------------------------------------------------------------------------------------ */

static void parse_numbered(struct imap_parser *p, const struct imap_frame *f, struct scan s, struct imap_data *ret)
{
	uint64_t number;
	struct span word;
	if (!scan_number(&s, &number) || number > UINT32_MAX || !scan_char(&s, ' ') || !scan_word(&s, &word))
		return;
	ret->number = (uint32_t)number;
	if (span_is(word, "EXISTS"))
		ret->kind = DATA_EXISTS;
	else if (span_is(word, "EXPUNGE"))
		ret->kind = number ? DATA_EXPUNGE : DATA_OTHER;
	else if (span_is(word, "FETCH") && scan_char(&s, ' '))
		parse_fetch(p, f, s, ret);
}

static enum data_kind kind_of(struct span word)
{
	static const struct { const char *word; enum data_kind kind; } known[] = {
		{ "CAPABILITY", DATA_CAPABILITY }, { "ENABLED", DATA_ENABLED }, { "FLAGS", DATA_FLAGS }, { "VANISHED", DATA_VANISHED },
		{ "LIST", DATA_LIST }, { "LSUB", DATA_LSUB }, { "STATUS", DATA_STATUS }, { "SEARCH", DATA_SEARCH }, { "ESEARCH", DATA_ESEARCH },
		{ "NAMESPACE", DATA_NAMESPACE }, { "QUOTA", DATA_QUOTA }, { "MYRIGHTS", DATA_MYRIGHTS },
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (span_is(word, known[i].word))
			return known[i].kind;
	return DATA_OTHER;
}

void imap_parse(struct imap_parser *p, const struct imap_frame *f, struct imap_data *ret)
{
	*ret = (struct imap_data){ .kind = DATA_OTHER };
	if (p->held)
		mailimap_response_data_free(p->held);
	p->held = NULL;
	struct scan s = { f->text->str, f->text->str + f->text->len }, whole;
	struct span word;
	if (!scan_char(&s, '*') || !scan_char(&s, ' '))
		return;
	whole = s;
	if (s.p < s.end && *s.p >= '0' && *s.p <= '9') {
		parse_numbered(p, f, s, ret);
		return;
	}
	if (imap_parse_cond(&whole, &ret->cond)) {
		ret->kind = DATA_COND;
		return;
	}
	if (!scan_word(&s, &word))
		return;
	ret->kind = kind_of(word);
	(void)scan_char(&s, ' ');
	ret->rest = s;
	if (ret->kind == DATA_LIST || ret->kind == DATA_LSUB) {
		parse_list(p, f, ret);
	} else if (ret->kind == DATA_STATUS) {
		parse_status(p, f, ret);
	} else if (ret->kind == DATA_VANISHED) {
		struct span tag;
		struct scan at = s;
		if (scan_char(&at, '(') && scan_word(&at, &tag) && span_is(tag, "EARLIER") && scan_char(&at, ')') && scan_char(&at, ' ')) {
			ret->earlier = true;
			ret->rest = at;
		}
	}
}

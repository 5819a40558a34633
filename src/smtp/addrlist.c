#include "smtp/addrlist.h"

#include <idn2.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "base/mem.h"

#define DOMAIN_MAX 253   /* RFC 1035 2.3.4 */
#define LABEL_MAX 63
#define COMMENT_DEPTH 50

struct reading {
	const char *start, *p, *end;
	struct addr item;
	unsigned words;          /* of the name so far */
	bool in_group;
	const char *const *locals;
	addr_visitor *visit;
	void *context;
	struct mf_reason *why;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

/* the characters of atoms (RFC 5322 3.2.3), and '.' */
static bool is_atom(char c)
{
	return !is_control(c) && !is_space(c) && !strchr("()<>[]:;@\\,\"", c);
}

/* "WHAT: `the text around'", with the rest of the list cut */
static enum mf_err refuse(struct reading *r, const char *what, const char *at)
{
	char shown[80];
	size_t len = (size_t)(r->end - at);
	mf_printable(shown, sizeof shown, at, len > 60 ? 60 : len);
	return mf_fail(r->why, MF_INVALID, "%s: \"%s\"", what, shown);
}

static void item_init(struct addr *a, size_t len)
{
	*a = (struct addr){ 0 };
	buf_init(&a->raw, 2 * len + 16);
	buf_init(&a->name, 2 * len + 16);
	buf_init(&a->comment, 2 * len + 16);
	buf_init(&a->spec, len + DOMAIN_MAX + 16);
}

static void item_reset(struct reading *r)
{
	struct addr *a = &r->item;
	buf_reset(&a->raw);
	buf_reset(&a->name);
	buf_reset(&a->comment);
	buf_reset(&a->spec);
	a->utf8_local = false;
	r->words = 0;
}

static void item_finish(struct addr *a)
{
	buf_finish(&a->raw);
	buf_finish(&a->name);
	buf_finish(&a->comment);
	buf_finish(&a->spec);
}

/* --- words --------------------------------------------------------------------------------------------------------- */

/* (a comment (nested)): its text is kept */
static enum mf_err read_comment(struct reading *r)
{
	const char *start = r->p++;
	unsigned depth = 1;
	struct buf *to = &r->item.comment;
	if (to->len)
		(void)buf_add(to, " ", 1);
	for (; r->p < r->end; r->p++) {
		if (*r->p == '(' && ++depth > COMMENT_DEPTH)
			return refuse(r, "comments are nested too deeply", start);
		if (*r->p == ')' && --depth == 0) {
			r->p++;
			return MF_OK;
		}
		if (*r->p == '\\' && r->p + 1 < r->end)
			r->p++;
		if (is_control(*r->p))
			break;
		(void)buf_add(to, r->p, 1);
	}
	return refuse(r, "a comment has no end", start);
}

/* white space and comments */
static enum mf_err skip(struct reading *r)
{
	while (r->p < r->end) {
		if (*r->p == '(') {
			enum mf_err e = read_comment(r);
			if (e)
				return e;
		} else if (is_space(*r->p)) {
			r->p++;
		} else {
			break;
		}
	}
	return MF_OK;
}

/* "quoted": behind it; what it says to text, which may be NULL */
static enum mf_err read_quoted(struct reading *r, struct buf *text)
{
	const char *start = r->p++;
	for (; r->p < r->end && *r->p != '"'; r->p++) {
		if (*r->p == '\\' && r->p + 1 < r->end)
			r->p++;
		if (is_control(*r->p))
			return refuse(r, "a control character in quotes", start);
		if (text)
			(void)buf_add(text, r->p, 1);
	}
	if (r->p == r->end)
		return refuse(r, "a quote has no end", start);
	r->p++;
	return MF_OK;
}

static enum mf_err read_word(struct reading *r, struct buf *text)
{
	if (*r->p == '"')
		return read_quoted(r, text);
	const char *start = r->p;
	while (r->p < r->end && is_atom(*r->p))
		r->p++;
	if (r->p == start)
		return refuse(r, "an address cannot be read", start);
	if (text)
		(void)buf_add(text, start, (size_t)(r->p - start));
	return MF_OK;
}

/* One more word of the name (or of what turns out to be a local part) */
static enum mf_err read_name_word(struct reading *r)
{
	const char *start = r->p;
	if (r->words++) {
		(void)buf_add(&r->item.raw, " ", 1);
		(void)buf_add(&r->item.name, " ", 1);
	}
	enum mf_err e = read_word(r, &r->item.name);
	if (!e)
		(void)buf_add(&r->item.raw, start, (size_t)(r->p - start));
	return e;
}

/* --- local@domain -------------------------------------------------------------------------------------------------- */

static bool is_ascii(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] >= 0x80)
			return false;
	return true;
}

static bool is_host(const char *s)
{
	size_t label = 0;
	for (const char *p = s; *p; p++) {
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '-' || *p == '_';
		if (*p == '.' ? !label : !letter)
			return false;
		label = *p == '.' ? 0 : label + 1;
		if (label > LABEL_MAX)
			return false;
	}
	return label && strlen(s) <= DOMAIN_MAX;
}

/* [192.0.2.1], [IPv6:2001:db8::1] */
static enum mf_err read_literal(struct reading *r)
{
	const char *start = r->p;
	while (r->p < r->end && *r->p != ']') {
		if (is_control(*r->p) || is_space(*r->p) || (unsigned char)*r->p >= 0x80 || *r->p == '\\')
			return refuse(r, "a domain cannot be read", start);
		r->p++;
	}
	if (r->p == r->end)
		return refuse(r, "a domain in brackets has no end", start);
	r->p++;
	(void)buf_add(&r->item.spec, start, (size_t)(r->p - start));
	return MF_OK;
}

static enum mf_err add_domain(struct reading *r, const char *start, size_t len)
{
	MF_CLEANUP(mf_free) char *domain = mf_strndup(start, len);
	MF_CLEANUP(mf_free) char *ascii = NULL;
	if (len && domain[len - 1] == '.')
		domain[len - 1] = 0;
	if (!is_ascii(domain, len) && idn2_to_ascii_8z(domain, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK)
		return refuse(r, "a domain is not one that can be looked up", start);
	const char *host = ascii ? ascii : domain;
	if (!is_host(host))
		return refuse(r, "a domain cannot be read", start);
	(void)buf_adds(&r->item.spec, host);
	return MF_OK;
}

/* At the '@' */
static enum mf_err read_domain(struct reading *r, const char *address)
{
	r->p++;
	(void)buf_add(&r->item.spec, "@", 1);
	enum mf_err e = skip(r);
	if (e)
		return e;
	if (r->p < r->end && *r->p == '[') {
		e = read_literal(r);
	} else {
		const char *start = r->p;
		while (r->p < r->end && is_atom(*r->p))
			r->p++;
		e = add_domain(r, start, (size_t)(r->p - start));
	}
	if (!e && r->item.spec.len > ADDR_MAX)
		e = refuse(r, "an address is too long", address);
	return e ? e : skip(r);
}

static void set_local(struct reading *r, const char *local, size_t len)
{
	(void)buf_add(&r->item.spec, local, len);
	r->item.utf8_local = !is_ascii(local, len);
}

/* <@a,@b: is passed */
static enum mf_err skip_route(struct reading *r)
{
	const char *start = r->p;
	if (r->p == r->end || *r->p != '@')
		return MF_OK;
	while (r->p < r->end && *r->p != ':' && *r->p != '>')
		r->p++;
	if (r->p == r->end || *r->p != ':')
		return refuse(r, "a route has no address behind it", start);
	r->p++;
	return skip(r);
}

static enum mf_err read_angle(struct reading *r)
{
	const char *start = r->p++;
	enum mf_err e = skip(r);
	if (!e)
		e = skip_route(r);
	if (e)
		return e;
	const char *local = r->p;
	if (r->p == r->end || *r->p == '>')
		return refuse(r, "there is no address between < and >", start);
	e = read_word(r, NULL);
	if (e)
		return e;
	bool alone = addr_is_local(r->locals, local, (size_t)(r->p - local));
	set_local(r, local, (size_t)(r->p - local));
	e = skip(r);
	if (e)
		return e;
	if (r->p < r->end && *r->p == '@')
		e = read_domain(r, start);
	else if (!alone)
		e = refuse(r, "an address has no @", start);
	if (e)
		return e;
	if (r->p == r->end || *r->p != '>')
		return refuse(r, "a > is missing", start);
	r->p++;
	return skip(r);
}

/* --- the list ------------------------------------------------------------------------------------------------------ */

static enum mf_err give(struct reading *r, enum addr_kind kind)
{
	r->item.kind = kind;
	enum mf_err e = r->visit(r->context, &r->item);
	item_reset(r);
	return e;
}

/* Behind a mailbox only a separator may stand. */
static enum mf_err end_of_mailbox(struct reading *r, const char *start)
{
	if (r->p < r->end && *r->p != ',' && *r->p != ';')
		return refuse(r, "what stands behind an address cannot be read (a name with a comma needs quotes)", start);
	return give(r, ADDR_MAILBOX);
}

/* A single word with nothing behind it */
static enum mf_err end_of_words(struct reading *r, const char *start)
{
	if (r->words != 1 || !addr_is_local(r->locals, r->item.raw.data, r->item.raw.len))
		return refuse(r, "not an address (no @)", start);
	set_local(r, r->item.raw.data, r->item.raw.len);
	buf_reset(&r->item.raw);
	buf_reset(&r->item.name);
	return give(r, ADDR_MAILBOX);
}

/* name words have been read up to here */
static enum mf_err read_mark(struct reading *r, const char *start)
{
	enum mf_err e;
	switch (*r->p) {
	case '<':
		e = read_angle(r);
		return e ? e : end_of_mailbox(r, start);
	case '@':
		if (r->words != 1)
			return refuse(r, "an address behind a name needs < and >", start);
		set_local(r, r->item.raw.data, r->item.raw.len);
		buf_reset(&r->item.raw);
		buf_reset(&r->item.name);
		e = read_domain(r, start);
		return e ? e : end_of_mailbox(r, start);
	case ':':
		if (r->in_group || !r->words)
			return refuse(r, "a : stands where none belongs", start);
		r->p++;
		r->in_group = true;
		return give(r, ADDR_GROUP);
	default:
		return refuse(r, "an address cannot be read", start);
	}
}

static enum mf_err read_element(struct reading *r)
{
	const char *start = r->p;
	while (r->p < r->end && (is_atom(*r->p) || *r->p == '"')) {
		enum mf_err e = read_name_word(r);
		if (!e)
			e = skip(r);
		if (e)
			return e;
	}
	if (r->p == r->end || *r->p == ',' || *r->p == ';')
		return end_of_words(r, start);
	return read_mark(r, start);
}

static enum mf_err read_list(struct reading *r)
{
	for (;;) {
		enum mf_err e = skip(r);
		if (e || r->p == r->end)
			return e;
		if (*r->p == ',') {
			r->p++;
		} else if (*r->p == ';' && r->in_group) {
			r->p++;
			r->in_group = false;
			e = give(r, ADDR_GROUP_END);
		} else {
			e = read_element(r);
		}
		if (e)
			return e;
	}
}

enum mf_err addrlist_parse_local(const char *s, size_t len, const char *const *locals, addr_visitor *visit, void *context, struct mf_reason *why)
{
	struct reading r = { .start = s, .p = s, .end = s + len, .locals = locals, .visit = visit, .context = context, .why = why };
	item_init(&r.item, len);
	enum mf_err e = memchr(s, 0, len) ? refuse(&r, "a NUL in an address list", s) : read_list(&r);
	if (!e && r.in_group) /* its ';' is missing: nothing is lost by that */
		e = give(&r, ADDR_GROUP_END);
	item_finish(&r.item);
	return e;
}

enum mf_err addrlist_parse(const char *s, size_t len, addr_visitor *visit, void *context, struct mf_reason *why)
{
	return addrlist_parse_local(s, len, NULL, visit, context, why);
}

bool addr_is_local(const char *const *locals, const char *name, size_t len)
{
	for (; locals && *locals; locals++)
		if (strlen(*locals) == len && !strncasecmp(*locals, name, len))
			return true;
	return false;
}

bool addr_equal(const char *a, const char *b)
{
	const char *at = strrchr(a, '@'), *bt = strrchr(b, '@');
	if (!at || !bt)
		return !strcmp(a, b);
	return at - a == bt - b && !memcmp(a, b, (size_t)(at - a)) && !strcasecmp(at, bt);
}

#include "sync/imap/caps.h"

#include <pthread.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

static const char *const names[] = {
#define X(name, text) [CAP_BIT_##name] = text,
	IMAP_CAPS(X)
#undef X
};

/* what every IMAP4rev2 server has (RFC 9051 appendix E), where it does not claim to be a rev1 server too */
#define REV2_CAPS (CAP(SASL_IR) | CAP(ENABLE) | CAP(IDLE) | CAP(NAMESPACE) | CAP(LIST_EXTENDED) | CAP(LIST_STATUS) | CAP(SPECIAL_USE) | \
	CAP(ESEARCH) | CAP(UIDPLUS) | CAP(MOVE) | CAP(LITERAL_MINUS) | CAP(UNSELECT))

imap_caps imap_caps_scan(struct scan s)
{
	imap_caps caps = 0;
	struct span word;
	while (scan_word(&s, &word)) {
		for (unsigned i = 0; i < CAP_BITS; i++)
			if (span_is(word, names[i]))
				caps |= 1ULL << i;
		while (scan_char(&s, ' '))
			;
	}
	if ((caps & CAP(IMAP4REV2)) && !(caps & CAP(IMAP4REV1)))
		caps |= REV2_CAPS;
	if (caps & CAP(QRESYNC))
		caps |= CAP(CONDSTORE) | CAP(ENABLE); /* RFC 7162 3.2 */
	if (caps & CAP(ICLOUD))
		caps &= ~CAP(QRESYNC); /* its VANISHED is not to be trusted */
	return caps;
}

struct imap_memory {
	pthread_mutex_t lock;      /* over everything below */
	struct imap_known known;
	imap_caps distrusted;
};

static void take_line(struct imap_memory *m, const char *line, size_t len)
{
	const char *equals = memchr(line, '=', len);
	if (!equals)
		return;
	struct span key = { line, (size_t)(equals - line) };
	struct scan value = { equals + 1, line + len };
	if (span_is(key, "before-auth"))
		m->known.before_auth = imap_caps_scan(value);
	else if (span_is(key, "after-auth"))
		m->known.after_auth = imap_caps_scan(value);
	else if (span_is(key, "distrusted"))
		m->distrusted = imap_caps_scan(value);
	else if (span_is(key, "caps-told"))
		m->known.caps_told = scan_char(&value, '1');
	else if (span_is(key, "login-alone"))
		m->known.alone = scan_char(&value, '1');
}

struct imap_memory *imap_memory_create(const char *text)
{
	struct imap_memory *m = MF_NEW(struct imap_memory);
	pthread_mutex_init(&m->lock, NULL);
	while (text && *text) {
		size_t len = strcspn(text, "\n");
		take_line(m, text, len);
		text += len + (text[len] == '\n');
	}
	return m;
}

static void add_line(struct buf *to, const char *key, imap_caps caps)
{
	(void)buf_addf(to, "%s=", key);
	for (unsigned i = 0; i < CAP_BITS; i++)
		if (caps >> i & 1)
			(void)buf_addf(to, "%s%s", to->data[to->len - 1] == '=' ? "" : " ", names[i]);
	(void)buf_adds(to, "\n");
}

char *imap_memory_text(struct imap_memory *m)
{
	struct buf text;
	buf_init(&text, 16384);
	pthread_mutex_lock(&m->lock);
	add_line(&text, "before-auth", m->known.before_auth);
	add_line(&text, "after-auth", m->known.after_auth);
	add_line(&text, "distrusted", m->distrusted);
	(void)buf_addf(&text, "caps-told=%d\n%s", m->known.caps_told, m->known.alone ? "login-alone=1\n" : "");
	pthread_mutex_unlock(&m->lock);
	return buf_detach(&text);
}

void imap_memory_destroy(struct imap_memory *m)
{
	if (!m)
		return;
	pthread_mutex_destroy(&m->lock);
	free(m);
}

void imap_memory_get(struct imap_memory *m, struct imap_known *ret)
{
	*ret = (struct imap_known){ 0 };
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	*ret = m->known;
	pthread_mutex_unlock(&m->lock);
}

void imap_memory_put(struct imap_memory *m, const struct imap_known *known)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->known = *known;
	pthread_mutex_unlock(&m->lock);
}

void imap_memory_distrust(struct imap_memory *m, imap_caps caps)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->distrusted |= caps;
	pthread_mutex_unlock(&m->lock);
}

imap_caps imap_memory_distrusted(struct imap_memory *m)
{
	if (!m)
		return 0;
	pthread_mutex_lock(&m->lock);
	imap_caps caps = m->distrusted;
	pthread_mutex_unlock(&m->lock);
	return caps;
}

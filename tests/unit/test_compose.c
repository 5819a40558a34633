/* smtp/compose.c and what it is made of: fields, survey, recode, lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/mem.h"
#include "smtp/compose.h"

#define OWN "Alice Example <alice@example.org>, al@example.net"

struct made {
	enum mf_err result;
	struct mf_reason why;
	struct envelope envelope;
	char *text;
	size_t len;
};

static int file_of(const char *bytes, size_t len)
{
	int fd = memfd_create("message", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	return fd;
}

static struct made make_bytes(const char *in, size_t len, const struct compose_options *given)
{
	struct made m = { 0 };
	struct compose_options o = given ? *given : (struct compose_options){ 0 };
	o.from = o.from ? o.from : OWN;
	o.now_s = 1795950000;
	int from = file_of(in, len), to = memfd_create("prepared", MFD_CLOEXEC);
	m.result = compose(&o, from, to, &m.envelope, &m.why);
	if (!m.result) {
		m.len = m.envelope.size;
		m.text = mf_alloc(m.len + 1);
		assert_int_equal(pread(to, m.text, m.len + 1, 0), (ssize_t)m.len);
	}
	close(from);
	close(to);
	return m;
}

static struct made make(const char *in)
{
	return make_bytes(in, strlen(in), NULL);
}

static void drop(struct made *m)
{
	envelope_finish(&m->envelope);
	free(m->text);
}

/* --- what is added ------------------------------------------------------------------------------------------------- */

#define IS(m, ok) do { if (!(ok)) { print_error("%s\n%s\n", (m).why.text, (m).text ? (m).text : "(nothing)"); fail_msg("%s", #ok); } } while (0)
#define HAS(m, words) IS(m, (m).text && strstr((m).text, (words)))
#define LACKS(m, words) IS(m, (m).text && !strstr((m).text, (words)))

static void least(void **state)
{
	(void)state;
	struct made m = make("To: bob@example.com\n\nHello\n");
	HAS(m, "To: bob@example.com\r\nFrom: Alice Example <alice@example.org>\r\nDate: ");
	HAS(m, "\r\n\r\nHello\r\n");
	HAS(m, "@example.org>\r\n");
	LACKS(m, "MIME-Version");
	IS(m, m.envelope.recipient_count == 1 && !strcmp(m.envelope.recipients[0], "bob@example.com"));
	IS(m, !strcmp(m.envelope.sender, "alice@example.org"));
	IS(m, m.envelope.hidden == 0 && !m.envelope.eight_bit && !m.envelope.utf8);
	IS(m, strstr(m.text, m.envelope.message_id));
	drop(&m);
}

static void what_is_there_stays(void **state)
{
	(void)state;
	const char *in = "From: \"Al\" <al@example.net>\r\nTo: bob@example.com (Bob)\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n"
		"Message-ID: <x@y>\r\nSubject: a\r\n  folded\r\n\r\nHello\r\n";
	struct made m = make(in);
	IS(m, !strcmp(m.text, in));
	IS(m, !strcmp(m.envelope.sender, "al@example.net"));
	IS(m, !strcmp(m.envelope.message_id, "<x@y>"));
	IS(m, !strcmp(m.envelope.subject, "a folded"));
	drop(&m);
	m = make("From: Bob <b@c>, al@example.net\nTo: b@c\n\n");
	HAS(m, "\r\nSender: al@example.net\r\n");
	drop(&m);
	m = make("From: Mallory <m@elsewhere.org>\nTo: b@c\n\n");
	IS(m, !strcmp(m.envelope.sender, "alice@example.org"));
	drop(&m);
}

static void empty_fields_are_none(void **state)
{
	(void)state;
	struct made m = make("To: b@c\nFrom:\nDate: \nMessage-ID:\nCc:\n\n");
	HAS(m, "From: Alice Example <alice@example.org>\r\n");
	HAS(m, "\r\nDate: Sun, 29 Nov 2026");
	LACKS(m, "From:\r\n");
	LACKS(m, "Cc:");
	LACKS(m, "Message-ID:\r\n");
	drop(&m);
	struct compose_options o = { .from_name = "x\r\nBcc: y@z" };
	m = make_bytes("To: b@c\n\n", 9, &o);
	assert_int_equal(m.result, MF_INVALID);
}

static void bcc_is_hidden(void **state)
{
	(void)state;
	struct made m = make("To: bob@example.com\nBcc: carol@example.com,\n dave@example.com\nSubject: x\n\nHello");
	IS(m, m.envelope.recipient_count == 3);
	IS(m, !strncmp(m.text, "Bcc: carol@example.com,\r\n dave@example.com\r\nTo: bob", 50));
	IS(m, !strstr(m.text + m.envelope.hidden, "carol"));
	IS(m, !strncmp(m.text + m.envelope.hidden, "To: bob", 7));
	IS(m, !strcmp(m.text + m.len - 9, "\r\nHello\r\n"));
	drop(&m);
}

static void resent(void **state)
{
	(void)state;
	struct made m = make("Resent-To: eve@example.com\nResent-Bcc: zoe@example.com\nReceived: x\nResent-To: old@example.com\n"
		"From: bob@example.com\nTo: carol@example.com\nBcc: secret@example.com\nDate: Thu, 26 Nov 2026 10:00:00 +0000\nMessage-ID: <x@y>\n\nHello\n");
	IS(m, m.envelope.recipient_count == 2 && !strcmp(m.envelope.recipients[0], "eve@example.com"));
	const char *sent = m.text + m.envelope.hidden;
	IS(m, !strncmp(sent, "Resent-From: Alice Example <alice@example.org>\r\nResent-Date: ", 60));
	IS(m, strstr(sent, "Resent-Message-ID: <") && !strstr(sent, "secret") && !strstr(sent, "zoe"));
	IS(m, !strcmp(m.envelope.message_id, "<x@y>"));
	drop(&m);
}

static void notifications(void **state)
{
	(void)state;
	struct made m = make("To: a@b\nX-DSN-Notify: Success,\n delay\n\nx\n");
	IS(m, m.envelope.notify == (DSN_SUCCESS | DSN_DELAY) && !strstr(m.text, "DSN"));
	drop(&m);
	m = make("To: a@b\nDKIM-Signature: x\nX-DSN-Notify: never, failure\n\nx\n");
	IS(m, m.envelope.notify == DSN_NEVER && !strstr(m.text, "DSN"));
	drop(&m);
	m = make("To: a@b\nX-DSN-Notify: failure, headers\n\nx\n");
	IS(m, m.envelope.notify == (DSN_FAILURE | DSN_HEADERS));
	drop(&m);
	m = make("To: a@b\nX-DSN-Notify: \n\nx\n");
	IS(m, m.envelope.notify == 0);
	drop(&m);
}

static void recipients_in_every_shape(void **state)
{
	(void)state;
	struct made m = make("To: A Group: x@example.com, \"y, z\" <\"john doe\"@example.com>;, undisclosed:;,\n"
		" <@route,@b:routed@example.com>, John Q. Public <jqp@[192.0.2.1]> (a (nested) comment), x@EXAMPLE.com\nCc: ,\n\n");
	IS(m, m.result == MF_OK && m.envelope.recipient_count == 4);
	IS(m, !strcmp(m.envelope.recipients[1], "\"john doe\"@example.com"));
	IS(m, !strcmp(m.envelope.recipients[2], "routed@example.com"));
	IS(m, !strcmp(m.envelope.recipients[3], "jqp@[192.0.2.1]"));
	drop(&m);
}

static void a_thousand_recipients(void **state)
{
	(void)state;
	struct buf in;
	buf_init(&in, 1U << 20);
	buf_adds(&in, "To: first@example.com");
	for (int i = 0; i < 1000; i++)
		buf_addf(&in, ",\n Person %d <p%d@example.com>", i, i);
	buf_adds(&in, "\n\n");
	struct made m = make(in.data);
	IS(m, m.envelope.recipient_count == 1001);
	drop(&m);
	buf_reset(&in);
	buf_adds(&in, "To: first@example.com");
	for (int i = 0; i < RECIPIENTS_MAX; i++)
		buf_addf(&in, ",\n p%d@example.com", i);
	buf_adds(&in, "\n\n");
	m = make(in.data);
	assert_int_equal(m.result, MF_INVALID);
	buf_finish(&in);
}

static void recipients_given(void **state)
{
	(void)state;
	const char *list[] = { "Zoe <zoe@example.com>", "a@b, c@d", NULL };
	struct compose_options o = { .recipients = list, .from_name = "Cron Daemon", .sender = "bounce@example.org" };
	const char *in = "To: root\nSubject: cron\n\nout\n";
	struct made m = make_bytes(in, strlen(in), &o);
	IS(m, m.envelope.recipient_count == 3 && !strcmp(m.envelope.sender, "bounce@example.org"));
	HAS(m, "To: root\r\n");
	HAS(m, "From: Cron Daemon <alice@example.org>\r\n");
	drop(&m);
	in = "From: root (Cron Daemon)\nTo: root\nSubject: cron\n\nout\n"; /* as cron(8) writes it */
	o.sender = NULL;
	m = make_bytes(in, strlen(in), &o);
	HAS(m, "From: Cron Daemon <alice@example.org>\r\n");
	LACKS(m, "root (");
	IS(m, !strcmp(m.envelope.sender, "alice@example.org"));
	drop(&m);
	o.sender = "";
	m = make_bytes(in, strlen(in), &o);
	IS(m, m.result == MF_OK && !*m.envelope.sender);
	drop(&m);
	in = "From: alice@example.org, bob@example.com\nSubject: of two\n\nout\n";
	m = make_bytes(in, strlen(in), &o);
	HAS(m, "Sender: alice@example.org\r\n");
	drop(&m);
	in = "From: root (Cron Daemon)\nTo: root\n\nout\n";
	o.sender = NULL;
	o.fields_too = true;
	m = make_bytes(in, strlen(in), &o);
	assert_int_equal(m.result, MF_INVALID);
}

/* What programs pipe into sendmail -t on a machine where root is somebody: cronie, mdadm, logwatch */
static void local_names(void **state)
{
	(void)state;
	static const char *const locals[] = { "root", "alice", NULL };
	struct compose_options o = { .locals = locals, .sender = "root" };
	const char *in = "From: (Cron Daemon) <root>\nTo: Root, bob@example.com, The Owner <alice>\nCc: alice@example.org\nSubject: x\n\nout\n";
	struct made m = make_bytes(in, strlen(in), &o);
	IS(m, m.envelope.recipient_count == 2 && !strcmp(m.envelope.recipients[0], "alice@example.org") && !strcmp(m.envelope.recipients[1], "bob@example.com"));
	IS(m, !strcmp(m.envelope.sender, "alice@example.org"));
	HAS(m, "To: Root, bob@example.com, The Owner <alice>\r\n");
	LACKS(m, "Daemon");
	drop(&m);
	in = "To: Gr\xc3\xbc\xc3\x9f" "e <root>\nSubject: x\n\nout\n";
	m = make_bytes(in, strlen(in), &o);
	IS(m, m.envelope.recipient_count == 1 && !m.envelope.utf8 && !strcmp(m.envelope.recipients[0], "alice@example.org"));
	drop(&m);
	static const char *const bad[] = { "To: bob\n\nx\n", "To: root root\n\nx\n", "To: <bob>\n\nx\n", "To: root <\n\nx\n", "To: x@y, roots\n\nx\n" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		m = make_bytes(bad[i], strlen(bad[i]), &o);
		assert_int_equal(m.result, MF_INVALID);
	}
	m = make("To: root\n\nx\n"); /* for nobody else */
	assert_int_equal(m.result, MF_INVALID);
}

/* as "echo done | sendmail root", and as programs that forget the empty line */
static void text_without_header(void **state)
{
	(void)state;
	const char *list[] = { "a@b", NULL };
	static const struct { const char *in, *out; } cases[] = {
		{ "all is done\n\nx\n", "\r\n\r\nall is done\r\n\r\nx\r\n" }, { "From here on\n\nx\n", "\r\n\r\nFrom here on\r\n\r\nx\r\n" },
		{ "\nx", "\r\n\r\n\r\nx\r\n" }, { " indented: yes\n", "\r\n\r\n indented: yes\r\n" }, { "\xc3\x9c: x\n", "\r\n\r\n=C3=9C: x\r\n" },
		{ "From me Mon Jan  1\nSubject: a\n b\nall is done\nx\n", "\r\n\r\nall is done\r\nx\r\n" },
	};
	struct compose_options o = { .recipients = list };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m = make_bytes(cases[i].in, strlen(cases[i].in), &o);
		IS(m, m.result == MF_OK && m.envelope.recipient_count == 1 && !strcmp(m.envelope.recipients[0], "a@b"));
		HAS(m, cases[i].out);
		HAS(m, "From: Alice Example <alice@example.org>\r\n");
		drop(&m);
	}
	struct made m = make_bytes("", 0, &o);
	assert_int_equal(m.result, MF_INVALID);
	o.recipients = NULL;
	m = make_bytes("To: a@b\nall is done\n", 20, &o);
	assert_int_equal(m.result, MF_INVALID);
}

/* --- what is not ASCII --------------------------------------------------------------------------------------------- */

static void encoded_header(void **state)
{
	(void)state;
	struct made m = make("To: J\xc3\xbcrgen <j@b\xc3\xbc" "cher.example>, \"Q, \xc3\x9c\" <q@example.com>\n"
		"Subject: Gr\xc3\xbc\xc3\x9f" "e aus K\xc3\xb6ln, plain words\n\nHello\n");
	HAS(m, "To: =?utf-8?q?J=C3=BCrgen?= <j@xn--bcher-kva.example>,");
	HAS(m, "<q@example.com>");
	HAS(m, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln=2C?= plain\r\n words\r\n");
	IS(m, !m.envelope.utf8 && !strcmp(m.envelope.recipients[0], "j@xn--bcher-kva.example"));
	IS(m, !strcmp(m.envelope.subject, "Gr\xc3\xbc\xc3\x9f" "e aus K\xc3\xb6ln, plain words"));
	for (const char *p = m.text; *p; p++)
		IS(m, (unsigned char)*p < 0x80);
	drop(&m);
}

static void long_subject_is_folded(void **state)
{
	(void)state;
	struct buf in;
	buf_init(&in, 65536);
	buf_adds(&in, "To: a@b\nSubject: ");
	for (int i = 0; i < 400; i++)
		buf_adds(&in, "\xe6\x97\xa5");
	buf_adds(&in, "\n\nx\n");
	struct made m = make(in.data);
	IS(m, m.result == MF_OK);
	for (const char *line = m.text; *line; line = strstr(line, "\r\n") + 2)
		IS(m, strcspn(line, "\r\n") <= 76);
	IS(m, strlen(m.envelope.subject) == 999); /* cut at a character */
	drop(&m);
	buf_reset(&in);
	buf_adds(&in, "To: a@b\nX-Long: ");
	for (int i = 0; i < 400; i++)
		buf_adds(&in, "word ");
	buf_adds(&in, "\nReferences: ");
	for (int i = 0; i < 100; i++)
		buf_addf(&in, "<reference%d@example.com> ", i);
	buf_adds(&in, "\n\nx\n");
	m = make(in.data);
	IS(m, m.result == MF_OK);
	for (const char *line = m.text; *line; line = strstr(line, "\r\n") + 2)
		IS(m, strcspn(line, "\r\n") <= 78);
	drop(&m);
	buf_finish(&in);
}

static void smtputf8_is_noticed(void **state)
{
	(void)state;
	struct made m = make("To: \xc3\xbc@example.com\n\nHello\n");
	IS(m, m.envelope.utf8 && !strcmp(m.envelope.recipients[0], "\xc3\xbc@example.com"));
	HAS(m, "To: \xc3\xbc@example.com\r\n");
	drop(&m);
}

static void text_gets_a_charset(void **state)
{
	(void)state;
	struct made m = make("To: a@b\n\nGr\xc3\xbc\xc3\x9f" "e = fine \nFrom here\n");
	HAS(m, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
	HAS(m, "\r\n\r\nGr=C3=BC=C3=9Fe =3D fine=20\r\n=46rom here\r\n");
	IS(m, !m.envelope.eight_bit);
	drop(&m);
	m = make("To: a@b\n\n\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\n");
	HAS(m, "Content-Transfer-Encoding: base64\r\n\r\n5pel5pys6KqeDQo=\r\n");
	drop(&m);
	m = make("To: a@b\n\nnot UTF-8: \xfc\n");
	HAS(m, "charset=unknown-8bit\r\n");
	drop(&m);
	m = make("To: a@b\nContent-Type: text/html\nContent-Transfer-Encoding: 7bit\n\nr\xc3\xbc" "de\n");
	HAS(m, "Content-Type: text/html;\r\n charset=utf-8\r\n");
	HAS(m, "Content-Transfer-Encoding: quoted-printable\r\n");
	LACKS(m, "7bit");
	drop(&m);
}

static void declared_8bit_stays(void **state)
{
	(void)state;
	struct made m = make("To: a@b\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n\nr\xc3\xbc" "de\n");
	HAS(m, "\r\n\r\nr\xc3\xbc" "de\r\n");
	IS(m, m.envelope.eight_bit);
	drop(&m);
}

/* --- lines --------------------------------------------------------------------------------------------------------- */

static void assert_lines(const struct made *m)
{
	size_t line = 0;
	for (size_t i = 0; i < m->len; i++) {
		if (m->text[i] == '\n') {
			assert_true(i && m->text[i - 1] == '\r');
			line = 0;
		} else {
			assert_true(m->text[i] != '\r' || m->text[i + 1] == '\n');
			assert_true(++line <= 999);
		}
	}
	assert_true(line == 0);
}

static void line_breaks(void **state)
{
	(void)state;
	struct made m = make("To: a@b\r\n\nlf\ncrlf\r\ncr\rend");
	IS(m, strstr(m.text, "\r\n\r\nlf\r\ncrlf\r\ncr\r\nend\r\n"));
	assert_lines(&m);
	drop(&m);
}

static void long_lines(void **state)
{
	(void)state;
	struct buf in;
	buf_init(&in, 1U << 20);
	buf_adds(&in, "To: a@b\n\n");
	for (int i = 0; i < 20000; i++)
		buf_addf(&in, "word%d ", i);
	struct made m = make(in.data);
	IS(m, m.result == MF_OK);
	HAS(m, "charset=us-ascii");
	HAS(m, "quoted-printable");
	assert_lines(&m);
	drop(&m);
	buf_finish(&in);
}

static char *with_lines(const char *head, const char *unit, size_t count, const char *tail)
{
	struct buf in;
	buf_init(&in, 1U << 22);
	buf_adds(&in, head);
	for (size_t i = 0; i < count; i++)
		buf_adds(&in, unit);
	buf_adds(&in, tail);
	return buf_detach(&in);
}

static void encoded_content_is_wrapped(void **state)
{
	(void)state;
	char *in = with_lines("To: a@b\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\n", "QUJD", 40000, "\n");
	struct made m = make(in);
	IS(m, m.result == MF_OK);
	assert_lines(&m);
	IS(m, strstr(m.text, "QUJD\r\nQUJD"));
	drop(&m);
	free(in);
	in = with_lines("To: a@b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n", "x=C3=BC", 30000, "=\nend\n");
	m = make(in);
	IS(m, m.result == MF_OK);
	assert_lines(&m);
	size_t pairs = 0;
	for (const char *p = m.text; (p = strstr(p, "=C3=")); p++)
		pairs++;
	IS(m, pairs > 20000);   /* none was parted but by a soft break between two of them */
	LACKS(m, "=C=\r\n");
	drop(&m);
	free(in);
}

/* --- parts --------------------------------------------------------------------------------------------------------- */

static void multipart(void **state)
{
	(void)state;
	const char *in =
		"To: a@b\nContent-Type: multipart/mixed;\n boundary=\"=_outer\"\n\npreamble\n--=_outer\nContent-Type: text/plain\n\nGr\xc3\xbc\xc3\x9f" "e\n\n"
		"--=_outer\nContent-Type: multipart/alternative; boundary=inner\n\n--inner\n\nplain\n--inner\nContent-Type: text/html; charset=utf-8\n"
		"Content-Transfer-Encoding: 8bit\n\n<b>\xc3\xbc</b>\n--inner--\n--=_outer\nContent-Type: application/pdf; name=\"\xc3\x9c" "bersicht.pdf\"\n"
		"Content-Transfer-Encoding: base64\n\nQUJD\n--=_outer--\nepilogue\n";
	struct made m = make(in);
	IS(m, m.result == MF_OK);
	HAS(m, "MIME-Version: 1.0\r\n\r\npreamble\r\n--=_outer\r\nContent-Type: text/plain;\r\n charset=utf-8\r\n"
	       "Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n\r\n--=_outer\r\n");
	HAS(m, "--inner\r\n\r\nplain\r\n--inner\r\n");
	HAS(m, "<b>\xc3\xbc</b>\r\n--inner--\r\n--=_outer\r\nContent-Type: application/pdf; name*=utf-8''%C3%9Cbersicht.pdf\r\n");
	HAS(m, "\r\n\r\nQUJD\r\n--=_outer--\r\nepilogue\r\n");
	IS(m, m.envelope.eight_bit);
	assert_lines(&m);
	drop(&m);
}

static void signed_content_stays(void **state)
{
	(void)state;
	const char *parts = "--b\nContent-Type: text/plain\n\nr\xc3\xbc" "de \n--b\nContent-Type: application/pgp-signature\n\nxxx\n--b--\n";
	MF_CLEANUP(mf_free) char *in = mf_format("To: a@b\nContent-Type: multipart/signed; boundary=b\nSubject: \xc3\xbc\n\n%s", parts);
	struct made m = make(in);
	HAS(m, "--b\r\nContent-Type: text/plain\r\n\r\nr\xc3\xbc" "de \r\n--b\r\n");
	HAS(m, "Subject: =?utf-8?");
	IS(m, m.envelope.eight_bit);
	drop(&m);
	MF_CLEANUP(mf_free) char *dkim = mf_format("DKIM-Signature: v=1\nTo: a@b\nFrom: x@y\nSubject: plain\n\n%s", parts);
	m = make(dkim);
	HAS(m, "Subject: plain\r\n");
	LACKS(m, "MIME-Version");
	drop(&m);
	char *long_line = with_lines("To: a@b\nContent-Type: multipart/signed; boundary=b\n\n--b\n\n", "0123456789", 100, "\n--b--\n");
	m = make(long_line);
	assert_int_equal(m.result, MF_INVALID);
	assert_non_null(strstr(m.why.text, "signed"));
	free(long_line);
}

/* --- refusals ------------------------------------------------------------------------------------------------------ */

static void refusals(void **state)
{
	(void)state;
	static const struct { const char *in, *words; } cases[] = {
		{ "", "no header" },
		{ "\n\n", "no header" },
		{ "just text\n", "not a header field" },
		{ "Subject: x\n\nx\n", "no recipient" },
		{ "To: undisclosed-recipients:;\n\nx\n", "no recipient" },
		{ "To:\nCc: \n\n", "no recipient" },
		{ "To: bob\n\n", "To: not an address" },
		{ "To: Doe, John <j@d>\n\n", "not an address" },
		{ "To: a@b c@d\n\n", "behind an address" },
		{ "To: <a@b\n\n", "> is missing" },
		{ "To: \"a@b\n\n", "quote has no end" },
		{ "To: (a@b\n\n", "comment has no end" },
		{ "To: a@b..c\n\n", "domain" },
		{ "To: <>\n\n", "no address between" },
		{ "To: x <a@b\\c>\n\n", "domain|> is missing" },
		{ "To: a@b\nX-DSN-Notify: often\n\n", "other words than never" },
		{ "To: a@b\nX-DSN-Notify: full, headers\n\n", "one of full and headers" },
		{ "To: a@b\nSubject: x\ry\n\n", "CR" },
		{ "To: a@b\nSubject: x\x01y\n\n", "control character" },
		{ "To: a@b\nstray line\n\n", "not a header field" },
		{ "To: a@b\nMessage-ID: <\xc3\xbc@x>\n\n", "only have ASCII" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m = make(cases[i].in);
		const char *bar = strchr(cases[i].words, '|');
		MF_CLEANUP(mf_free) char *one = mf_strndup(cases[i].words, bar ? (size_t)(bar - cases[i].words) : strlen(cases[i].words));
		bool said = strstr(m.why.text, one) || (bar && strstr(m.why.text, bar + 1));
		if (m.result != MF_INVALID || !said)
			fail_msg("%s: %s: %s", cases[i].in, mf_err_name(m.result), m.why.text);
	}
	struct made m = make_bytes("To: a@b\n\nx\0y\n", 13, NULL);
	assert_int_equal(m.result, MF_INVALID);
	assert_non_null(strstr(m.why.text, "NUL"));
	m = make_bytes("To: a@b\nX: \0\n\nx", 15, NULL);
	assert_int_equal(m.result, MF_INVALID);
	struct compose_options o = { .size_max = 100 };
	m = make_bytes("To: a@b\n\nx\n", 11, &o);
	assert_int_equal(m.result, MF_TOO_BIG);
}

/* Nobody need be named yet, and what is named need not be an address; the rest is as ever. */
static void drafts(void **state)
{
	(void)state;
	struct compose_options o = { .draft = true };
	static const char *const cases[] = { "Subject: x\n\nx\n", "To: bob\nSubject: x\n\nx\n", "To: Doe, John <j@d>\nCc:\nSubject: x\n\n", "Subject: x" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m = make_bytes(cases[i], strlen(cases[i]), &o);
		assert_int_equal(m.result, MF_OK);
		assert_int_equal(m.envelope.recipient_count, 0);
		assert_true(strstr(m.text, "From: Alice Example <alice@example.org>\r\n") && strstr(m.text, "Subject: x\r\n"));
		assert_true(strstr(m.text, "\r\nDate: ") && strstr(m.text, "\r\nMessage-ID: <"));
		drop(&m);
	}
	struct made m = make_bytes("To: bob\nBcc: carol\n\n\xc3\xbc\n", 23, &o);
	assert_true(!strncmp(m.text, "Bcc: carol\r\n", 12) && strstr(m.text, "\r\nTo: bob\r\n") && strstr(m.text, "charset=utf-8"));
	drop(&m);
	m = make_bytes("just text\n", 10, &o);
	assert_int_equal(m.result, MF_INVALID);
}

static void odd_shapes(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"To: a@b", "To: a@b\n", "From x Thu Nov 26 2026\nTo: a@b\n\n", "To: a@b\nContent-Type: multipart/mixed; boundary=b\n\n--b",
		"To: a@b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n--b--", "To: a@b\nContent-Type: multipart/mixed; boundary=b\n\n--b\nX: y\n--b\nr\xc3\xbc: x",
		"To: a@b\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n\xc3\xbc\r\n--b--", "To: a@b\nContent-Type: multipart/mixed\n\n\xc3\xbc",
		"To: a@b\nContent-Type: ;;;=\n\nx", "To: a@b\nContent-Type: text/plain; charset\n\n\xc3\xbc", "To: a@b\nX: y\n \n\nz",
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct made m = make(cases[i]);
		if (m.result)
			print_message("%s: %s\n", cases[i], m.why.text);
		else
			assert_lines(&m);
		drop(&m);
	}
}

static void in_constant_memory(void **state)
{
	(void)state;
	int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
	char head[] = "To: a@b\n\n", *block = mf_alloc(1U << 20);
	memset(block, 'x', 1U << 20);       /* one line of 100 MB */
	block[100] = (char)0xc3;
	block[101] = (char)0xbc;
	assert_int_equal(write(in, head, strlen(head)), (ssize_t)strlen(head));
	for (int i = 0; i < 100; i++)
		assert_int_equal(write(in, block, 1U << 20), 1 << 20);
	free(block);
	struct rusage before, after;
	struct envelope envelope;
	struct mf_reason why = { "" };
	getrusage(RUSAGE_SELF, &before);
	assert_int_equal(compose(&(struct compose_options){ .from = OWN }, in, out, &envelope, &why), MF_OK);
	getrusage(RUSAGE_SELF, &after);
	assert_true(after.ru_maxrss - before.ru_maxrss < 64 * 1024);
	assert_true(envelope.size > 100U << 20);
	envelope_finish(&envelope);
	close(in);
	close(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(least), cmocka_unit_test(what_is_there_stays), cmocka_unit_test(empty_fields_are_none), cmocka_unit_test(bcc_is_hidden), cmocka_unit_test(resent), cmocka_unit_test(notifications),
		cmocka_unit_test(recipients_in_every_shape), cmocka_unit_test(a_thousand_recipients), cmocka_unit_test(recipients_given), cmocka_unit_test(local_names),
		cmocka_unit_test(text_without_header),
		cmocka_unit_test(encoded_header), cmocka_unit_test(long_subject_is_folded), cmocka_unit_test(smtputf8_is_noticed),
		cmocka_unit_test(text_gets_a_charset), cmocka_unit_test(declared_8bit_stays), cmocka_unit_test(line_breaks),
		cmocka_unit_test(long_lines), cmocka_unit_test(encoded_content_is_wrapped), cmocka_unit_test(multipart),
		cmocka_unit_test(signed_content_stays), cmocka_unit_test(refusals), cmocka_unit_test(drafts), cmocka_unit_test(odd_shapes),
		cmocka_unit_test(in_constant_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

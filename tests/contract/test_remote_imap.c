/* The contract of remote.h on a real IMAP server, if the environment names one that may be played with:
 *   MAILFS_TEST_IMAP_URL=imap://user@host:port (imaps:// too)   MAILFS_TEST_IMAP_PASSWORD=...
 *   MAILFS_TEST_IMAP_TLS=none|any   for servers on loopback (default: verified)
 * Mailboxes named contract-one to contract-three are made and deleted there. What "another client" does is done by a small
 * client of its own, on a plain, implicit-TLS or STARTTLS transport. Without the variables the program says so and is done. */
#include "contract/contract.c"

#include "auth/credentials.h"
#include "base/buf.h"
#include "base/mem.h"
#include "config/config.h"
#include "net/transport.h"
#include "sync/imap/imap.h"

struct imap_server {
	struct server_address address;
	char *user;
	const char *password;
	struct tls_context *tls;
	struct credentials *credentials;
	struct imap_memory *memory;
	struct cancel admin_cancel;
	struct transport *admin;
	char input[65536];
	size_t input_len;
	unsigned tag;
};

static struct transport_options line_to(const struct imap_server *s, struct cancel *cancel)
{
	return (struct transport_options){
		.host = s->address.host, .port = s->address.port, .implicit_tls = s->address.security == SECURITY_TLS, .tls = s->tls,
		.connect_timeout_ms = 10000, .io_timeout_ms = 10000, .cancel = cancel,
	};
}

static struct remote *make(void *context, struct cancel *cancel)
{
	struct imap_server *s = context;
	struct imap_options options = {
		.transport = line_to(s, cancel), .require_starttls = s->tls && s->address.security == SECURITY_STARTTLS,
		.credentials = s->credentials, .auth = AUTH_AUTO, .memory = s->memory, .idle = true,
	};
	return imap_remote_create(&options);
}

/* --- another client -------------------------------------------------------------------------------------------------------- */

/* One line without its end; the input keeps what is behind it. */
static void admin_line(struct imap_server *s, char *line, size_t size)
{
	for (;;) {
		char *end = memchr(s->input, '\n', s->input_len);
		if (end) {
			size_t len = (size_t)(end - s->input) + 1;
			snprintf(line, size, "%.*s", (int)(len < size ? len : size - 1), s->input);
			line[strcspn(line, "\r\n")] = 0;
			memmove(s->input, s->input + len, s->input_len - len);
			s->input_len -= len;
			return;
		}
		assert_true(s->input_len < sizeof s->input);
		size_t got;
		assert_int_equal(transport_read(s->admin, s->input + s->input_len, sizeof s->input - s->input_len, &got), MF_OK);
		s->input_len += got;
	}
}

static bool admin_finish(struct imap_server *s, const char *tag)
{
	char line[8192];
	do
		admin_line(s, line, sizeof line);
	while (strncmp(line, tag, strlen(tag)) != 0);
	return strncmp(line + strlen(tag), " OK", 3) == 0;
}

static bool admin_do(struct imap_server *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool admin_do(struct imap_server *s, const char *format, ...)
{
	char command[4096], tag[16];
	va_list args;
	snprintf(tag, sizeof tag, "Z%u", ++s->tag);
	size_t len = (size_t)snprintf(command, sizeof command, "%s ", tag);
	va_start(args, format);
	len += (size_t)vsnprintf(command + len, sizeof command - len - 3, format, args);
	va_end(args);
	len += (size_t)snprintf(command + len, sizeof command - len, "\r\n");
	assert_int_equal(transport_write(s->admin, command, len), MF_OK);
	assert_int_equal(transport_flush(s->admin), MF_OK);
	return admin_finish(s, tag);
}

static void admin_connect(struct imap_server *s)
{
	struct mf_reason why = {""};
	char line[8192];
	struct transport_options options = line_to(s, &s->admin_cancel);
	if (transport_open(&options, &s->admin, &why) != MF_OK)
		fail_msg("%s", why.text);
	admin_line(s, line, sizeof line);
	if (s->tls && s->address.security == SECURITY_STARTTLS) {
		assert_true(admin_do(s, "STARTTLS"));
		assert_int_equal(transport_start_tls(s->admin), MF_OK);
	}
	assert_true(admin_do(s, "LOGIN \"%s\" \"%s\"", s->user, s->password));
}

static void remove_mailbox(void *context, const char *raw)
{
	struct imap_server *s = context;
	(void)admin_do(s, "UNSELECT"); /* NO where it is not known, or nothing is selected */
	(void)admin_do(s, "DELETE \"%s\"", raw);
}

static void create(void *context, const char *raw)
{
	remove_mailbox(context, raw);
	assert_true(admin_do(context, "CREATE \"%s\"", raw));
}

static void deliver_message(void *context, const char *raw, const char *data, size_t len)
{
	struct imap_server *s = context;
	char command[1024], tag[16], line[8192];
	snprintf(tag, sizeof tag, "Z%u", ++s->tag);
	int head = snprintf(command, sizeof command, "%s APPEND \"%s\" {%zu}\r\n", tag, raw, len);
	assert_int_equal(transport_write(s->admin, command, (size_t)head), MF_OK);
	assert_int_equal(transport_flush(s->admin), MF_OK);
	do
		admin_line(s, line, sizeof line);
	while (line[0] == '*');
	assert_int_equal(line[0], '+');
	assert_int_equal(transport_write(s->admin, data, len), MF_OK);
	assert_int_equal(transport_write(s->admin, "\r\n", 2), MF_OK);
	assert_int_equal(transport_flush(s->admin), MF_OK);
	assert_true(admin_finish(s, tag));
}

static void expunge(void *context, const char *raw, uint32_t uid)
{
	assert_true(admin_do(context, "SELECT \"%s\"", raw));
	assert_true(admin_do(context, "UID STORE %u +FLAGS.SILENT (\\Deleted)", uid));
	assert_true(admin_do(context, "EXPUNGE"));
}

static void flag(void *context, const char *raw, uint32_t uid)
{
	assert_true(admin_do(context, "SELECT \"%s\"", raw));
	assert_true(admin_do(context, "UID STORE %u +FLAGS.SILENT (\\Seen \\Flagged)", uid));
}

int main(void)
{
	const char *url = getenv("MAILFS_TEST_IMAP_URL"), *password = getenv("MAILFS_TEST_IMAP_PASSWORD"), *trust = getenv("MAILFS_TEST_IMAP_TLS");
	if (!url || !password) {
		printf("skipped: MAILFS_TEST_IMAP_URL and MAILFS_TEST_IMAP_PASSWORD name no server\n");
		return 0;
	}
	struct mf_reason why = {""};
	struct imap_server s = {.password = password};
	if (server_address_parse(url, &s.address, &s.user, &why) != MF_OK || !s.user) {
		fprintf(stderr, "MAILFS_TEST_IMAP_URL: %s\n", why.text[0] ? why.text : "names no user");
		return 2;
	}
	imap_global_init();
	bool clear = trust && strcmp(trust, "none") == 0;
	struct tls_options tls = {.trust = trust && strcmp(trust, "any") == 0 ? TRUST_ANY : TRUST_VERIFY};
	if (clear)
		s.address.security = SECURITY_NONE;
	else if (tls_context_create(&tls, &s.tls, &why) != MF_OK) {
		fprintf(stderr, "%s\n", why.text);
		return 2;
	}
	s.credentials = credentials_create(s.user, password, NULL);
	s.memory = imap_memory_create(NULL);
	if (!cancel_init(&s.admin_cancel))
		return 2;
	admin_connect(&s);
	struct contract_server contract = {
		.context = &s, .make = make, .create = create, .remove = remove_mailbox, .deliver = deliver_message, .expunge = expunge,
		.flag = flag, .mailbox = "contract-one", .mailbox2 = "contract-two",
	};
	int failed = contract_run(&contract);
	remove_mailbox(&s, "contract-one");
	remove_mailbox(&s, "contract-two");
	remove_mailbox(&s, "contract-three");
	transport_destroy(s.admin);
	cancel_finish(&s.admin_cancel);
	imap_memory_destroy(s.memory);
	credentials_destroy(s.credentials);
	tls_context_destroy(s.tls);
	server_address_finish(&s.address);
	free(s.user);
	return failed != 0;
}

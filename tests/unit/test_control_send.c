/* control: the verbs send and outbox, and what status says of an outbox. */
#include "control_world.h"

#include <pthread.h>
#include <sys/mman.h>

#include "base/buf.h"
#include "base/clock.h"
#include "control/exit.h"
#include "control/json.h"
#include "control/outboxes.h"
#include "control/paths.h"
#include "control/status.h"
#include "smtp/handover.h"
#include "support/smtp_server.h"

struct sending {
	struct world *w;
	struct smtp_server server;
	struct outbox *outbox;
	char *state;
	struct cancel stop;
	struct buf heard;
	uint64_t remove;         /* while it is waited for */
	bool hours_pass;         /* the same */
};

static void begin(struct sending *s, bool offline)
{
	struct mf_reason why = { "" };
	memset(s, 0, sizeof *s);
	s->w = world_create(true, 65536);
	s->state = path_state("work");
	s->server.record = memfd_create("record", MFD_CLOEXEC);
	buf_init(&s->heard, 1U << 20);
	assert_int_equal(path_make_private(s->state, &why), MF_OK);
	assert_true(cancel_init(&s->stop));
	struct outbox_options o = { .config = s->w->config, .state_dir = s->state, .offline = offline, .connect = server_connect, .connect_context = &s->server };
	assert_int_equal(outbox_open(&o, &s->outbox, &why), MF_OK);
	s->w->config->save_sent = SAVE_SENT_NO;  /* nobody takes copies here: they are not waited for */
	outboxes_attach(s->w->account, s->outbox);
	outbox_start(s->outbox);
}

static void end(struct sending *s)
{
	outboxes_detach(s->w->account);
	outbox_close(s->outbox);
	server_join(&s->server);
	close(s->server.record);
	cancel_finish(&s->stop);
	buf_finish(&s->heard);
	free(s->state);
	world_destroy(s->w);
}

static bool hear(void *context, const char *json)
{
	struct sending *s = context;
	if (strstr(json, "\"progress\"") == NULL)
		(void)buf_addf(&s->heard, "%s\n", json);
	else if (s->remove)
		assert_int_equal(outbox_take_back(s->outbox, s->remove, NULL), MF_OK);
	else if (s->hours_pass)
		clock_skew_for_tests(3600000);
	return true;
}

static int run(struct sending *s, const char *line)
{
	buf_reset(&s->heard);
	return control_run(&s->w->control, "work", line, &s->stop, hear, s);
}

static char *spool_as(struct sending *s, const struct outbox_put *put, const char *text, const char *verb)
{
	int fd = memfd_create("text", MFD_CLOEXEC);
	char *spooled = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(handover_write(s->state, put, fd, &spooled, &why), MF_OK);
	close(fd);
	char *line = mf_format("%s --spool %s", verb, spooled);
	free(spooled);
	return line;
}

static char *spool(struct sending *s, const char *name, const char *text)
{
	return spool_as(s, &(struct outbox_put){ .name = name }, text, "send");
}

#define HEARD(s, words) do { if (!strstr((s)->heard.data, (words))) fail_msg("%s: %s", (words), (s)->heard.data); } while (0)

static void through_a_mount(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, false);
	MF_CLEANUP(mf_free) char *line = spool(&s, "a.eml", "To: bob@example.com\nSubject: hi\n\n");
	assert_int_equal(run(&s, line), EXIT_OK);
	HEARD(&s, "\"name\":\"a.eml\",\"state\":\"waiting\"");
	assert_int_equal(run(&s, "outbox"), EXIT_OK);
	HEARD(&s, "\"subject\":\"hi\"");
	MF_CLEANUP(mf_free) char *text = status_text(&s.w->account, 1);
	assert_non_null(strstr(text, "  outbox: 1 waiting\n"));
	MF_CLEANUP(mf_free) char *json = status_json(&s.w->account, 1);
	assert_non_null(strstr(json, "\"outbox\":{\"waiting\":1,\"queued\":0"));
	assert_int_equal(run(&s, "send"), EXIT_OK);
	HEARD(&s, "\"state\":\"sent\"");
	MF_CLEANUP(mf_free) char *empty = status_text(&s.w->account, 1);
	assert_non_null(strstr(empty, "  outbox: empty, 1 sent\n"));
	end(&s);
}

static void without_one(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, false);
	s.w->control.mountpoint = NULL;
	MF_CLEANUP(mf_free) char *line = spool(&s, "a.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, line), EXIT_OK);
	HEARD(&s, "\"state\":\"sent\"");
	MF_CLEANUP(mf_free) char *refused = spool(&s, "b.eml", "To: no@example.com\n\n");
	assert_int_equal(run(&s, refused), EXIT_PROTOCOL);
	HEARD(&s, "550 5.1.1 no such user");
	MF_CLEANUP(mf_free) char *later = spool(&s, "c.eml", "To: later@example.com\n\n");
	assert_int_equal(run(&s, later), EXIT_PARTIAL);
	HEARD(&s, "greylisted");
	MF_CLEANUP(mf_free) char *invalid = spool(&s, "d.eml", "Subject: x\n\n");
	assert_int_equal(run(&s, invalid), EXIT_USAGE);
	HEARD(&s, "no recipient");
	/* a name that is longer than what is said of it: 27 characters of three bytes do not fit into 80 */
	MF_CLEANUP(mf_free) char *wide = spool(&s, "\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c"
	                                           "\u65e5\u672c\u65e5\u672c\u65e5\u672c\u65e5\u672c.eml", "To: no@example.com\n\n");
	assert_int_equal(run(&s, wide), EXIT_PROTOCOL);
	HEARD(&s, "\u65e5\u672c is failed: ");
	assert_null(strstr(s.heard.data, "\\ufffd"));
	s.server.refuse = MF_OFFLINE;
	MF_CLEANUP(mf_free) char *unreachable = spool(&s, "e.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, unreachable), EXIT_OFFLINE);
	HEARD(&s, "e.eml stays in the outbox: refused by the test");
	end(&s);
}

static void settling(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, false);
	s.w->control.mountpoint = NULL;
	MF_CLEANUP(mf_free) char *failed = spool(&s, "a.eml", "To: no@example.com\n\n");
	MF_CLEANUP(mf_free) char *maybe = spool(&s, "a.eml", "To: bob@example.com\nX-Dot: close\n\n");
	assert_int_equal(run(&s, failed), EXIT_PROTOCOL);
	assert_int_equal(run(&s, maybe), EXIT_PROTOCOL);
	HEARD(&s, "a.eml is maybe-sent");
	assert_int_equal(run(&s, "outbox --sent nothing.eml"), EXIT_NOT_FOUND);
	assert_int_equal(run(&s, "outbox --sent failed/a.eml"), EXIT_PROTOCOL);
	assert_int_equal(run(&s, "outbox --sent a.eml"), EXIT_OK);
	assert_int_equal(run(&s, "outbox --retry a.eml"), EXIT_NOT_FOUND);
	assert_int_equal(run(&s, "outbox --remove failed/a.eml"), EXIT_OK);
	assert_int_equal(run(&s, "outbox --remove failed/a.eml"), EXIT_NOT_FOUND);
	assert_int_equal(run(&s, "outbox --nonsense"), EXIT_USAGE);
	assert_int_equal(run(&s, "outbox"), EXIT_OK);
	assert_null(strstr(s.heard.data, "a.eml"));
	end(&s);
}

/* An editor keeps it in the outbox, and takes it back while somebody waits until it is sent. */
static void taken_back(void **state)
{
	(void)state;
	struct sending s;
	struct outbox_item item;
	begin(&s, false);
	MF_CLEANUP(mf_free) char *line = spool(&s, "a.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, line), EXIT_OK);
	assert_int_equal(outbox_item_by_name(s.outbox, "a.eml", false, &item), MF_OK);
	s.remove = item.id;
	outbox_item_finish(&item);
	outbox_hold(s.outbox, s.remove, true, false);
	assert_int_equal(run(&s, "send"), EXIT_PARTIAL);
	HEARD(&s, "a.eml was taken out of the outbox, and is not sent");
	assert_null(strstr(s.heard.data, "\"state\":\"sent\""));
	assert_int_equal(s.server.rcpts, 0);
	end(&s);
}

/* Nobody waits until an editor is closed. */
static void kept_by_an_editor(void **state)
{
	(void)state;
	struct sending s;
	struct outbox_item item;
	begin(&s, false);
	MF_CLEANUP(mf_free) char *line = spool(&s, "a.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, line), EXIT_OK);
	assert_int_equal(outbox_item_by_name(s.outbox, "a.eml", false, &item), MF_OK);
	uint64_t id = item.id;
	outbox_item_finish(&item);
	outbox_hold(s.outbox, id, true, false);
	s.hours_pass = true;
	assert_int_equal(run(&s, "send"), EXIT_BUSY);
	HEARD(&s, "a.eml stays in the outbox: it is open for writing");
	outbox_hold(s.outbox, id, false, false);
	assert_int_equal(run(&s, "send"), EXIT_OK);
	assert_int_equal(s.server.rcpts, 1);
	end(&s);
}

static void disconnected(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, true);
	s.w->control.mountpoint = NULL;
	MF_CLEANUP(mf_free) char *line = spool(&s, "a.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, line), EXIT_OFFLINE);
	HEARD(&s, "the account is disconnected");
	outbox_offline(s.outbox, false);
	assert_int_equal(run(&s, "send"), EXIT_OK);
	assert_int_equal(run(&s, "disconnect"), EXIT_OK);
	MF_CLEANUP(mf_free) char *again = spool(&s, "b.eml", "To: bob@example.com\n\n");
	assert_int_equal(run(&s, again), EXIT_OFFLINE);
	assert_int_equal(s.server.rcpts, 1);
	end(&s);
}

static void cannot_send(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, false);
	outboxes_detach(s.w->account);
	assert_int_equal(run(&s, "send"), EXIT_CONFIG);
	HEARD(&s, "no smtp server");
	assert_int_equal(run(&s, "send --spool spool-x"), EXIT_CONFIG);
	assert_int_equal(run(&s, "outbox"), EXIT_OK);
	MF_CLEANUP(mf_free) char *text = status_text(&s.w->account, 1);
	assert_null(strstr(text, "outbox"));
	end(&s);
}

static void a_draft(void **state)
{
	(void)state;
	struct sending s;
	begin(&s, false);
	MF_CLEANUP(mf_free) char *line = spool_as(&s, NULL, "Subject: plan\n\nsoon\n", "send --draft");
	assert_int_equal(run(&s, line), EXIT_OFFLINE);     /* nobody knows yet which mailbox that is */
	HEARD(&s, "have been listed once");
	assert_int_equal(run(&s, "send --draft"), EXIT_USAGE);
	assert_int_equal(run(&s, "send --draft --spool ../x"), EXIT_USAGE);
	assert_int_equal(run(&s, "send --draft --spool spool-none"), EXIT_NOT_FOUND);
	account_connect(s.w->account);
	world_start(s.w);
	assert_int_equal(run(&s, line), EXIT_OK);
	HEARD(&s, "{\"draft\":{\"account\":\"work\",\"path\":\"Drafts/");
	assert_int_equal(run(&s, "outbox"), EXIT_OK);
	assert_null(strstr(s.heard.data, "message"));
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(through_a_mount), cmocka_unit_test(without_one), cmocka_unit_test(settling), cmocka_unit_test(taken_back),
		cmocka_unit_test(kept_by_an_editor), cmocka_unit_test(disconnected), cmocka_unit_test(cannot_send), cmocka_unit_test(a_draft),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

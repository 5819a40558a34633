/* cli: arguments, mount options, the mount table, which account is meant */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/command.h"
#include "cli/mount_options.h"
#include "cli/notify.h"
#include "cli/targets.h"
#include "config/config.h"
#include "control/paths.h"

/* --- mount options -------------------------------------------------------------------------------------------------- */

static enum mf_err parse(struct mount_options *o, const char *text, struct mf_reason *why)
{
	mount_options_init(o);
	return mount_options_parse(o, text, why);
}

static void what_fstab_adds_is_ignored(void **state)
{
	(void)state;
	struct mount_options o;
	struct mf_reason why = { "" };
	mount_options_init(&o);
	o.helper = true;
	assert_int_equal(mount_options_parse(&o, "rw,user,users,nouser,user=alice,owner,auto,noauto,nofail,defaults,_netdev,comment=systemd.automount,"
	                                         "x-systemd.automount,x-gvfs-hide,,x-gvfs-notrash", &why), MF_OK);
	assert_int_equal(o.extra_count, 0);
	assert_int_equal(o.setting_count, 0);
	assert_false(o.read_only);
	mount_options_finish(&o);
	assert_int_equal(parse(&o, "user,user=alice", &why), MF_OK); /* a key of the account, where it is not fstab's */
	assert_int_equal(o.setting_count, 1);
	assert_string_equal(o.settings[0].key, "user");
	mount_options_finish(&o);
}

static void a_sloppy_mount_takes_what_is_known(void **state)
{
	(void)state;
	struct mount_options o;
	struct mf_reason why = { "" };
	struct account_config *config = account_config_create("work");
	mount_options_init(&o);
	o.sloppy = true;
	assert_int_equal(mount_options_parse(&o, "frobnicate,uid=alice,colour=red,poll=7m,ro", &why), MF_OK);
	assert_true(o.read_only);
	assert_int_equal(o.uid, getuid());
	assert_int_equal(mount_options_apply(&o, config, &why), MF_OK);
	assert_int_equal(config->poll_ms, 7 * 60000);
	mount_options_finish(&o);
	mount_options_init(&o);
	o.sloppy = true;
	assert_int_equal(mount_options_parse(&o, "poll=soon", &why), MF_OK);
	assert_int_equal(mount_options_apply(&o, config, &why), MF_INVALID);
	mount_options_finish(&o);
	account_config_destroy(config);
}

/* as mount(8) has them from fstab; quotes of others are text */
static void labels_are_whole(void **state)
{
	(void)state;
	struct mount_options o;
	struct mf_reason why = { "" };
	assert_int_equal(parse(&o, "context=\"system_u:object_r:user_home_t:s0:c0,c1\",rootcontext=\"a,b\",fscontext=a,exclude=\"A,ro", &why), MF_OK);
	assert_int_equal(o.extra_count, 3);
	assert_string_equal(o.extra[0], "context=\"system_u:object_r:user_home_t:s0:c0,c1\"");
	assert_string_equal(o.extra[1], "rootcontext=\"a,b\"");
	assert_string_equal(o.extra[2], "fscontext=a");
	assert_string_equal(o.settings[0].value, "\"A");
	assert_true(o.read_only);
	mount_options_finish(&o);
}

static void ours_are_taken(void **state)
{
	(void)state;
	struct mount_options o;
	struct mf_reason why = { "" };
	assert_int_equal(parse(&o, "ro,allow_other,offline,nonomedia,uid=1000,gid=100,umask=027,config=/etc/mailfs/config,fsname=me@host", &why), MF_OK);
	assert_true(o.read_only && o.allow_other && o.offline && o.no_nomedia);
	assert_int_equal(o.uid, 1000);
	assert_int_equal(o.gid, 100);
	assert_int_equal(o.umask, 027);
	assert_string_equal(o.config, "/etc/mailfs/config");
	assert_string_equal(o.source, "me@host");
	mount_options_finish(&o);
	assert_int_equal(parse(&o, "", &why), MF_OK);
	assert_int_equal(o.uid, getuid());
	assert_int_equal(o.umask, 077);
	mount_options_finish(&o);
}

static void the_rest_goes_where_it_belongs(void **state)
{
	(void)state;
	struct mount_options o;
	struct mf_reason why = { "" };
	assert_int_equal(parse(&o, "noatime,poll=5m,max_read=65536,exclude=A\\,B\\\\C,sync,sync=full,password=x", &why), MF_OK);
	assert_int_equal(o.extra_count, 3);
	assert_string_equal(o.extra[0], "noatime");
	assert_string_equal(o.extra[1], "max_read=65536");
	assert_string_equal(o.extra[2], "sync");
	assert_null(o.extra[3]);
	assert_int_equal(o.setting_count, 4);
	assert_string_equal(o.settings[0].key, "poll");
	assert_string_equal(o.settings[0].value, "5m");
	assert_string_equal(o.settings[1].value, "A,B\\C");
	assert_string_equal(o.settings[2].value, "full");
	assert_string_equal(o.settings[3].key, "password"); /* for account_config_set() to refuse */
	mount_options_finish(&o);
}

static void bad_options_are_named(void **state)
{
	(void)state;
	static const struct { const char *text, *words; } rows[] = {
		{ "uid=alice", "-o uid: \"alice\"" }, { "umask=999", "-o umask: \"999\" is not an octal" }, { "gid=", "-o gid" },
		{ "uid=99999999999999999999", "-o uid" }, { "uid=-1", "-o uid" }, { "umask=1777", "-o umask" },
		{ "frobnicate", "-o frobnicate: no such option" }, { "ro,poll", "-o poll: no such option, or its value is missing" },
		{ "\x1b[31m", "-o ?[31m" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct mount_options o;
		struct mf_reason why = { "" };
		assert_int_equal(parse(&o, rows[i].text, &why), MF_INVALID);
		assert_non_null(strstr(why.text, rows[i].words));
		mount_options_finish(&o);
	}
}

static void every_offered_key_is_one(void **state)
{
	(void)state;
	struct account_config *config = account_config_create("work");
	for (const char *const *key = mount_account_keys; *key; key++) {
		struct mf_reason why = { "" };
		enum mf_err e = account_config_set(config, *key, "\x01", true, &why);
		assert_int_not_equal(e, MF_NOT_FOUND);
	}
	struct mf_reason why = { "" };
	assert_int_equal(account_config_set(config, "password", "x", true, &why), MF_INVALID);
	account_config_destroy(config);
	for (const char *const *name = mount_option_names; *name; name++) {
		struct mount_options o;
		MF_CLEANUP(mf_free) char *text = mf_format("%s%s", *name, strchr(*name, '=') ? "0" : "");
		assert_int_equal(parse(&o, text, &why), MF_OK);
		assert_int_equal(o.setting_count, 0);
		mount_options_finish(&o);
	}
}

/* --- arguments ------------------------------------------------------------------------------------------------------ */

static const struct flag flags[] = {
	{ 'o', "options", "OPT", "", true }, { 'f', "foreground", NULL, "", false }, { 'd', "debug", NULL, "", false },
	{ 0, "config", "FILE", "", false }, { 0, NULL, NULL, NULL, false },
};

static int count(char **argv)
{
	int n = 0;
	while (argv[n])
		n++;
	return n;
}
#define WORDS(...) ((char *[]){ (char[]){ "mailfs" }, __VA_ARGS__, NULL })
#define W(text) ((char[]){ text })

static void flags_and_operands_mix(void **state)
{
	(void)state;
	struct arguments a;
	struct mf_reason why = { "" };
	char **argv = WORDS(W("work"), W("-fo"), W("ro"), W("--config=/x"), W("/mnt"), W("-opoll=5m"), W("--options"), W("uid=1"), W("--"), W("-f"));
	assert_int_equal(arguments_parse(flags, count(argv), argv, false, &a, NULL, &why), MF_OK);
	assert_int_equal(a.operand_count, 3);
	assert_string_equal(a.operands[0], "work");
	assert_string_equal(a.operands[1], "/mnt");
	assert_string_equal(a.operands[2], "-f");
	assert_string_equal(arguments_value(&a, "options"), "ro,poll=5m,uid=1");
	assert_string_equal(arguments_value(&a, "config"), "/x");
	assert_true(arguments_has(&a, "foreground"));
	assert_false(arguments_has(&a, "debug"));
	assert_null(arguments_value(&a, "nothing"));
	arguments_finish(&a);
}

static void leading_flags_stop_at_the_command(void **state)
{
	(void)state;
	struct arguments a;
	int used = 0;
	char **argv = WORDS(W("--config"), W("/x"), W("status"), W("--json"));
	assert_int_equal(arguments_parse(flags, count(argv), argv, true, &a, &used, NULL), MF_OK);
	assert_int_equal(used, 3);
	assert_string_equal(arguments_value(&a, "config"), "/x");
	arguments_finish(&a);
}

static void bad_arguments_are_told(void **state)
{
	(void)state;
	static const struct { const char *word, *words; } rows[] = {
		{ "--nothing", "unknown option --nothing" }, { "-x", "unknown option -x" }, { "-fx", "unknown option -fx" },
		{ "--config", "--config needs a value (FILE)" }, { "-o", "-o needs a value" }, { "--foreground=yes", "takes no value" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct arguments a;
		struct mf_reason why = { "" };
		MF_CLEANUP(mf_free) char *word = mf_strdup(rows[i].word);
		char **argv = WORDS(word);
		assert_int_equal(arguments_parse(flags, count(argv), argv, false, &a, NULL, &why), MF_INVALID);
		assert_non_null(strstr(why.text, rows[i].words));
	}
}

static void commands_are_complete(void **state)
{
	(void)state;
	static const char *const names[] = { "mount", "umount", "status", "sync", "list", "connect", "disconnect", "check", "events", "help" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const struct command *c = command_find(names[i]);
		assert_non_null(c);
		assert_true(c->run && *c->summary && c->flags);
		size_t own = 0;
		for (const struct flag *f = c->flags; f->name; f++) {
			assert_true(*f->help);
			own++;
		}
		assert_true(own + 6 <= FLAGS_MAX); /* with the global ones */
	}
	assert_null(command_find("frobnicate"));
	assert_null(command_find(""));
}

/* --- targets -------------------------------------------------------------------------------------------------------- */

struct place {
	char directory[32];
	char *config;
};

static void place_init(struct place *p, const char *text)
{
	strcpy(p->directory, "/tmp/mailfs-cli-XXXXXX");
	assert_non_null(mkdtemp(p->directory));
	setenv("XDG_RUNTIME_DIR", p->directory, 1);
	setenv("XDG_STATE_HOME", p->directory, 1);
	setenv("XDG_CONFIG_HOME", p->directory, 1);
	p->config = mf_format("%s/config", p->directory);
	if (!text)
		return;
	FILE *file = fopen(p->config, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void place_finish(struct place *p)
{
	unlink(p->config);
	assert_int_equal(rmdir(p->directory), 0);
	free(p->config);
}

static const char two_accounts[] =
	"[account work]\nimap = imaps://imap.example.org\nuser = alice@example.org\n"
	"[account home]\nimap = imaps://mail.example.net\nuser = alice\n";

static void urls_and_names_find_accounts(void **state)
{
	(void)state;
	struct place p;
	struct targets t;
	struct mf_reason why = { "" };
	place_init(&p, two_accounts);
	assert_int_equal(targets_load(p.config, &t, &why), MF_OK);
	assert_int_equal(targets_add(&t, "home", &why), MF_OK);
	assert_string_equal(t.items[0].config->user, "alice");
	assert_int_equal(targets_add(&t, "imaps://alice%40example.org@imap.example.org", &why), MF_OK);
	assert_string_equal(t.items[1].name, "work");
	assert_false(t.items[1].own);
	assert_int_equal(targets_add(&t, "imaps://bob@other.example.org:1993", &why), MF_OK);
	assert_string_equal(t.items[2].name, "bob@other.example.org");
	assert_string_equal(t.items[2].config->imap.host, "other.example.org");
	assert_int_equal(t.items[2].config->imap.port, 1993);
	assert_string_equal(t.items[2].config->user, "bob");
	assert_int_equal(target_check(&t.items[2], &why), MF_OK);
	assert_int_equal(targets_add(&t, "nowhere", &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "work, home"));
	assert_int_equal(targets_add(&t, "imaps://bob:secret@other.example.org", &why), MF_INVALID);
	assert_null(strstr(why.text, "secret"));
	assert_int_equal(targets_add(&t, "imaps://other.example.org", &why), MF_INVALID);
	assert_non_null(strstr(why.text, "imaps://USER@other.example.org"));
	assert_int_equal(targets_add(&t, "pop3s://bob@pop.example.org", &why), MF_OK);
	assert_string_equal(t.items[3].config->pop3.host, "pop.example.org");
	assert_int_equal(target_check(&t.items[3], &why), MF_OK);
	targets_finish(&t);
	place_finish(&p);
}

static void a_missing_file_is_told_when_named(void **state)
{
	(void)state;
	struct place p;
	struct targets t;
	struct mf_reason why = { "" };
	place_init(&p, NULL);
	assert_int_equal(targets_load("/nowhere/config", &t, &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "/nowhere/config"));
	assert_int_equal(targets_load(NULL, &t, &why), MF_OK);
	assert_int_equal(targets_add_configured(&t, &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "there is no config file"));
	assert_int_equal(targets_add(&t, "work", &why), MF_NOT_FOUND);
	assert_non_null(strstr(why.text, "imaps://USER@HOST"));
	targets_finish(&t);
	place_finish(&p);
}

static enum exit_code select_by(struct place *p, const char *account, char **operands, struct targets *t, char ***rest)
{
	struct cli cli = { .config_path = p->config, .account = account };
	struct arguments a = { .operands = operands };
	return targets_select(t, &cli, &a, rest);
}

static void operands_select_accounts_then_mailboxes(void **state)
{
	(void)state;
	struct place p;
	struct targets t;
	char **rest;
	place_init(&p, two_accounts);
	assert_int_equal(select_by(&p, NULL, (char *[]){ NULL }, &t, NULL), EXIT_OK);
	assert_int_equal(t.count, 2);
	targets_finish(&t);
	assert_int_equal(select_by(&p, NULL, (char *[]){ W("home"), W("INBOX"), NULL }, &t, &rest), EXIT_OK);
	assert_int_equal(t.count, 1);
	assert_string_equal(t.items[0].name, "home");
	assert_string_equal(rest[0], "INBOX");
	targets_finish(&t);
	assert_int_equal(select_by(&p, NULL, (char *[]){ W("work/INBOX"), NULL }, &t, &rest), EXIT_OK);
	assert_int_equal(t.count, 1);
	assert_string_equal(t.items[0].name, "work");
	assert_string_equal(rest[0], "work/INBOX");
	targets_finish(&t);
	assert_int_equal(select_by(&p, NULL, (char *[]){ W("INBOX"), NULL }, &t, &rest), EXIT_OK);
	assert_int_equal(t.count, 2); /* the command asks which */
	assert_string_equal(rest[0], "INBOX");
	targets_finish(&t);
	assert_int_equal(select_by(&p, "work", (char *[]){ W("home"), NULL }, &t, &rest), EXIT_OK);
	assert_int_equal(t.count, 1);
	assert_string_equal(rest[0], "home"); /* a mailbox of that name */
	targets_finish(&t);
	assert_int_equal(select_by(&p, NULL, (char *[]){ W("nowhere"), NULL }, &t, NULL), EXIT_NOT_FOUND);
	/* who has no use for a mailbox does not take it for the account that it is in */
	assert_int_equal(select_by(&p, NULL, (char *[]){ W("work/INBOX"), NULL }, &t, NULL), EXIT_NOT_FOUND);
	assert_int_equal(select_by(&p, "work", (char *[]){ W("home"), NULL }, &t, NULL), EXIT_USAGE);
	const char *plain;
	assert_int_equal(select_by(&p, NULL, (char *[]){ NULL }, &t, NULL), EXIT_OK);
	assert_int_equal(targets_count_named(&t, (char *[]){ W("work/INBOX"), W("work"), W("home/INBOX"), NULL }, &plain), 2);
	assert_null(plain);
	assert_int_equal(targets_count_named(&t, (char *[]){ W("work/INBOX"), W("Archive/2024"), W("Trash"), NULL }, &plain), 1);
	assert_string_equal(plain, "Archive/2024");
	targets_finish(&t);
	place_finish(&p);
}

static void no_command_is_an_account(void **state)
{
	(void)state;
	for (const struct command *c = commands; c->name; c++) {
		struct place p;
		struct targets t;
		struct mf_reason why = { "" };
		MF_CLEANUP(mf_free) char *text = mf_format("[account %s]\nimap = imaps://imap.example.org\nuser = alice\n", c->name);
		place_init(&p, text);
		if (targets_load(p.config, &t, &why) != MF_INVALID || !strstr(why.text, "that is a command"))
			fail_msg("%s", c->name);
		place_finish(&p);
	}
}

static void names_of_accounts_are_names_of_folders(void **state)
{
	(void)state;
	static const struct { const char *name; bool valid; } rows[] = {
		{ "work", true }, { "a@b.c", true }, { "", false }, { ".x", false }, { "a/b", false }, { "a\nb", false }, { "..", false },
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		assert_int_equal(path_account_is_valid(rows[i].name), rows[i].valid);
}

static void folders_follow_the_environment(void **state)
{
	(void)state;
	setenv("XDG_STATE_HOME", "/s", 1);
	setenv("XDG_CACHE_HOME", "relative", 1);
	setenv("HOME", "/h", 1);
	MF_CLEANUP(mf_free) char *work_state = path_state("work");
	MF_CLEANUP(mf_free) char *work_cache = path_cache("work");
	assert_string_equal(work_state, "/s/mailfs/work");
	assert_string_equal(work_cache, "/h/.cache/mailfs/work");
	unsetenv("XDG_RUNTIME_DIR");
	assert_null(path_socket("work", 0));
	MF_CLEANUP(mf_free) char *run = path_socket("work", 1);
	MF_CLEANUP(mf_free) char *last = path_socket("work", 2);
	MF_CLEANUP(mf_free) char *wanted = mf_format("/run/user/%u/mailfs/work.sock", getuid());
	assert_string_equal(run, wanted);
	assert_string_equal(last, "/s/mailfs/work/control.sock");
}

/* --- systemd -------------------------------------------------------------------------------------------------------- */

static void systemd_is_told(void **state)
{
	(void)state;
	char directory[] = "/tmp/mailfs-cli-XXXXXX", got[64] = "";
	assert_non_null(mkdtemp(directory));
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", directory);
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	notify_send("READY=1"); /* nobody asked yet: nothing happens */
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	notify_open();
	assert_null(getenv("NOTIFY_SOCKET"));
	notify_send("READY=1\nSTATUS=work: online");
	assert_true(recv(fd, got, sizeof got - 1, 0) > 0);
	assert_string_equal(got, "READY=1\nSTATUS=work: online");
	close(fd);
	notify_send("STOPPING=1"); /* nor when the manager is gone */
	unlink(address.sun_path);
	rmdir(directory);
}

/* --- the manual ------------------------------------------------------------------------------------------------------ */

static void the_manual_has_every_code_command_and_flag(void **state)
{
	(void)state;
	FILE *file = fopen("man/mailfs.1", "r"); /* as make runs it; elsewhere there is nothing to compare with */
	if (!file)
		skip();
	char *text = NULL;
	size_t size = 0;
	assert_true(getdelim(&text, &size, 0, file) > 0);
	fclose(file);
	static const int codes[] = {
#define X(name, number, words) number,
		MF_EXITS(X)
#undef X
	};
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		MF_CLEANUP(mf_free) char *item = mf_format("\n.It %d\n", codes[i]);
		assert_non_null(strstr(text, item));
	}
	for (const struct command *c = commands; c->name; c++) {
		MF_CLEANUP(mf_free) char *item = mf_format(".It Cm %s ", c->name);
		assert_non_null(strstr(text, item));
		for (const struct flag *f = c->flags; f->name; f++) {
			MF_CLEANUP(mf_free) char *flag = mf_format("Fl -%s", f->name);
			assert_non_null(strstr(text, flag));
		}
	}
	for (const char *const *name = mount_option_names; *name; name++)
		assert_non_null(strstr(text, *name));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_fstab_adds_is_ignored),
		cmocka_unit_test(a_sloppy_mount_takes_what_is_known),
		cmocka_unit_test(labels_are_whole), cmocka_unit_test(ours_are_taken),
		cmocka_unit_test(the_rest_goes_where_it_belongs),
		cmocka_unit_test(bad_options_are_named),
		cmocka_unit_test(every_offered_key_is_one),
		cmocka_unit_test(flags_and_operands_mix),
		cmocka_unit_test(leading_flags_stop_at_the_command),
		cmocka_unit_test(bad_arguments_are_told),
		cmocka_unit_test(commands_are_complete),
		cmocka_unit_test(urls_and_names_find_accounts),
		cmocka_unit_test(a_missing_file_is_told_when_named),
		cmocka_unit_test(operands_select_accounts_then_mailboxes),
		cmocka_unit_test(no_command_is_an_account),
		cmocka_unit_test(names_of_accounts_are_names_of_folders),
		cmocka_unit_test(folders_follow_the_environment),
		cmocka_unit_test(systemd_is_told),
		cmocka_unit_test(the_manual_has_every_code_command_and_flag),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

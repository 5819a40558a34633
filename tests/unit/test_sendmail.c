/* cli/sendmail.c: what is said to programs that call sendmail(8), before anything is sent. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/command.h"
#include "config/config.h"

static char asked[64];                   /* the account of the last holding_open */
static char folder[] = "/tmp/test_sendmail.XXXXXX";

/* Nobody can hold anything here: how far the command has come is seen by the account that it asks for. */
static enum mf_err no_holding(struct account_config *const *accounts, size_t count, bool offline, struct holding **ret, struct mf_reason *why)
{
	(void)count;
	(void)offline;
	(void)ret;
	snprintf(asked, sizeof asked, "%s", accounts[0]->name);
	return mf_fail(why, MF_BUSY, "held by the test: %s", accounts[0]->name);
}

static void write_config(const char *text)
{
	MF_CLEANUP(mf_free) char *path = mf_format("%s/config", folder);
	FILE *f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

/* words: separated by spaces; the message comes from standard input */
static int run(const char *words, const char *message)
{
	char *argv[20], *copy = mf_strdup(words), *save = NULL;
	MF_CLEANUP(mf_free) char *config = mf_format("--config=%s/config", folder);
	char name[] = "/usr/sbin/mailfs-sendmail";
	int argc = 0, in = memfd_create("in", MFD_CLOEXEC), before = dup(STDIN_FILENO);
	argv[argc++] = name;
	argv[argc++] = config;
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	argv[argc] = NULL;
	assert_int_equal(write(in, message, strlen(message)), (ssize_t)strlen(message));
	lseek(in, 0, SEEK_SET);
	dup2(in, STDIN_FILENO);
	asked[0] = 0;
	int code = cli_main(argc, argv, &(struct cli_parts){ .holding_open = no_holding });
	dup2(before, STDIN_FILENO);
	close(before);
	close(in);
	free(copy);
	return code;
}

#define CONFIG "[account one]\nimap = imaps://a.example\nuser = u@a.example\npassword = x\n" \
	"[account two]\nimap = imaps://b.example\nuser = u@b.example\npassword = x\nsmtp = smtps://b.example\n" \
	"[account three]\nimap = imaps://c.example\nuser = u\nfrom = U <u@c.example>\npassword = x\nsmtp = smtps://c.example\n"
#define MESSAGE "To: x@y\n\ntext\n"

static void usage(void **state)
{
	(void)state;
	write_config(CONFIG);
	static const char *const cases[] = { "", "-i", "-bs", "-bz x@y", "-f", "--nonsense x@y", "-Z x@y", "--account" };
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (run(cases[i], MESSAGE) != EX_USAGE)
			fail_msg("%s", cases[i]);
}

static void the_account(void **state)
{
	(void)state;
	write_config(CONFIG);
	static const struct { const char *words, *message, *account; } cases[] = {
		{ "x@y", MESSAGE, "two" }, { "-t -i -oi -oem -bm -B8BITMIME", MESSAGE, "two" },
		{ "-f u@c.example x@y", MESSAGE, "three" }, { "-fu@c.example -FName -N never -- x@y", MESSAGE, "three" },
		{ "-t", "From: Me <u@c.example>\n" MESSAGE, "three" }, { "--account three x@y", MESSAGE, "three" },
		{ "--account=three x@y", MESSAGE, "three" }, { "-R hdrs -N failure x@y", MESSAGE, "two" },
		{ "-ep x@y", MESSAGE, "two" }, { "-ew -em -ee x@y", MESSAGE, "two" }, { "-eq x@y", MESSAGE, "two" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int code = run(cases[i].words, cases[i].message);
		if (code != EX_TEMPFAIL || strcmp(asked, cases[i].account))
			fail_msg("%s: %d, %s", cases[i].words, code, asked);
	}
}

static void no_account(void **state)
{
	(void)state;
	write_config("[account one]\nimap = imaps://a.example\nuser = u@a.example\npassword = x\n");
	assert_int_equal(run("x@y", MESSAGE), EX_CONFIG);
	write_config("nonsense\n");
	assert_int_equal(run("x@y", MESSAGE), EX_CONFIG);
	write_config(CONFIG);
	assert_int_equal(run("--account nobody x@y", MESSAGE), EX_CONFIG);
}

int main(void)
{
	if (!mkdtemp(folder))
		return 1;
	umask(077);
	setenv("XDG_STATE_HOME", folder, 1);
	setenv("XDG_RUNTIME_DIR", folder, 1);
	const struct CMUnitTest tests[] = { cmocka_unit_test(usage), cmocka_unit_test(the_account), cmocka_unit_test(no_account) };
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	MF_CLEANUP(mf_free) char *command = mf_format("rm -rf '%s'", folder);
	return system(command) || failed;
}

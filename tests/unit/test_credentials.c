#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "auth/credentials.h"
#include "base/clock.h"
#include "base/mem.h"

static void assert_secret(struct credentials *c, const char *expected)
{
	char *secret = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(MF_OK, credentials_acquire(c, 10000, NULL, &secret, &why));
	assert_string_equal(expected, secret);
	credentials_release(secret);
}

static void assert_none(struct credentials *c, enum mf_err e, const char *words)
{
	char *secret = NULL;
	struct mf_reason why = { "" };
	assert_int_equal(e, credentials_acquire(c, 10000, NULL, &secret, &why));
	assert_null(secret);
	assert_non_null(strstr(why.text, words));
}

static void password(void **state)
{
	(void)state;
	struct credentials *c = credentials_create("alice", "pass word", NULL);
	assert_string_equal("alice", credentials_user(c));
	assert_secret(c, "pass word");
	assert_false(credentials_rejected(c)); /* asking again would give the same */
	assert_secret(c, "pass word");
	credentials_destroy(c);
	credentials_destroy(NULL);
	credentials_release(NULL);
}

static void nothing_set(void **state)
{
	(void)state;
	struct credentials *c = credentials_create("alice", NULL, NULL);
	assert_none(c, MF_AUTH, "no password is set");
	credentials_destroy(c);
}

/* a command that counts its runs in a file */
static char *counting_command(char path[static 32])
{
	strcpy(path, "/tmp/mf-credXXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	return mf_format("echo x >> %s; wc -l < %s; echo second line", path, path);
}

static void command_runs_once_and_again(void **state)
{
	(void)state;
	char path[32], *command = counting_command(path);
	struct credentials *c = credentials_create("alice", NULL, command);
	assert_secret(c, "1");
	assert_secret(c, "1");
	assert_true(credentials_rejected(c));  /* worth one more run */
	assert_secret(c, "2");
	assert_false(credentials_rejected(c)); /* and no third */
	assert_secret(c, "3");                 /* but when a person says so it is asked */
	credentials_accepted(c);
	assert_true(credentials_rejected(c));  /* tokens expire */
	assert_secret(c, "4");
	credentials_destroy(c);
	free(command);
	unlink(path);
}

struct other { struct credentials *c; bool again; pthread_barrier_t *barrier; };

static void *other_connection(void *context)
{
	struct other *o = context;
	char *secret;
	struct mf_reason why;
	if (credentials_acquire(o->c, 10000, NULL, &secret, &why))
		abort();
	credentials_release(secret);
	pthread_barrier_wait(o->barrier); /* both have the first token */
	pthread_barrier_wait(o->barrier); /* the other one has fetched the second */
	o->again = credentials_rejected(o->c);
	return NULL;
}

/* two connections are refused with the same token: the second refusal does not throw away what the first has fetched */
static void two_connections(void **state)
{
	(void)state;
	char path[32], *command = counting_command(path);
	struct credentials *c = credentials_create("alice", NULL, command);
	pthread_barrier_t barrier;
	pthread_barrier_init(&barrier, NULL, 2);
	struct other o = { .c = c, .barrier = &barrier };
	pthread_t thread;
	assert_int_equal(0, pthread_create(&thread, NULL, other_connection, &o));
	assert_secret(c, "1");
	pthread_barrier_wait(&barrier);
	assert_true(credentials_rejected(c));
	assert_secret(c, "2");
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	assert_true(o.again);
	assert_secret(c, "2");
	pthread_barrier_destroy(&barrier);
	credentials_destroy(c);
	free(command);
	unlink(path);
}

static void command_fails(void **state)
{
	(void)state;
	static const struct { const char *command, *words; } cases[] = {
		{ "exit 4", "status 4" }, { "true", "printed nothing" }, { "kill -9 $$", "signal 9" }, { "echo; echo x", "printed nothing" },
		{ "/nonexistent/command 2>/dev/null", "status 127" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct credentials *c = credentials_create("alice", NULL, cases[i].command);
		assert_none(c, MF_AUTH, cases[i].words);
		credentials_destroy(c);
	}
}

static void command_output(void **state)
{
	(void)state;
	struct credentials *c = credentials_create("alice", NULL, "printf 'no newline'");
	assert_secret(c, "no newline");
	credentials_destroy(c);
	c = credentials_create("alice", NULL, "printf 'crlf\\r\\n'");
	assert_secret(c, "crlf");
	credentials_destroy(c);
	c = credentials_create("alice", NULL, "echo first; head -c 300000 /dev/zero"); /* more than is kept: it does not block */
	assert_secret(c, "first");
	credentials_destroy(c);
}

/* A command that does not end is left after the time given, and with it what it has started. */
static void command_hangs(void **state)
{
	(void)state;
	char path[] = "/tmp/mf-credXXXXXX", *secret = NULL;
	struct mf_reason why = { "" };
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	char *command = mf_format("echo $$ > %s; sleep 100; echo late", path);
	struct credentials *c = credentials_create("alice", NULL, command);
	assert_int_equal(MF_AUTH, credentials_acquire(c, 100, NULL, &secret, &why));
	assert_non_null(strstr(why.text, "in time"));
	credentials_destroy(c);
	free(command);
	unlink(path);
}

static void *raise_it(void *context)
{
	cancel_raise(context);
	return NULL;
}

static void command_is_interrupted(void **state)
{
	(void)state;
	struct cancel cancel;
	struct mf_reason why = { "" };
	char *secret = NULL;
	pthread_t thread;
	assert_true(cancel_init(&cancel));
	struct credentials *c = credentials_create("alice", NULL, "sleep 100");
	assert_int_equal(0, pthread_create(&thread, NULL, raise_it, &cancel));
	assert_int_equal(MF_CANCELLED, credentials_acquire(c, 100000, &cancel, &secret, &why));
	pthread_join(thread, NULL);
	credentials_destroy(c);
	cancel_finish(&cancel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(password), cmocka_unit_test(nothing_set), cmocka_unit_test(command_runs_once_and_again), cmocka_unit_test(two_connections),
		cmocka_unit_test(command_fails), cmocka_unit_test(command_output), cmocka_unit_test(command_hangs), cmocka_unit_test(command_is_interrupted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

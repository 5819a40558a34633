/* cli/letter.c: a message of a command's options, ready for smtp/compose.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/letter.h"
#include "smtp/compose.h"

static int text_file(const char *text)
{
	int fd = letter_temporary();
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void assert_content(int fd, const char *expected)
{
	char text[8192] = "";
	assert_true(pread(fd, text, sizeof text - 1, 0) >= 0);
	assert_string_equal(text, expected);
}

static void plain(void **state)
{
	(void)state;
	int in = text_file("From me\n.\n"), out = letter_temporary();
	struct letter letter = { .to = "bob@example.com,carol@example.com", .subject = "hi" };
	assert_int_equal(letter_build(&letter, in, out, NULL), MF_OK);
	assert_content(out, "To: bob@example.com,carol@example.com\nSubject: hi\n\nFrom me\n.\n");
	close(in);
	close(out);
}

static void injection(void **state)
{
	(void)state;
	struct mf_reason why = { "" };
	int in = text_file("x"), out = letter_temporary();
	assert_int_equal(letter_build(&(struct letter){ .subject = "hi\nBcc: eve@example.com" }, in, out, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "Subject"));
	assert_int_equal(letter_build(&(struct letter){ .to = "a\r" }, in, out, &why), MF_INVALID);
	assert_int_equal(letter_build(&(struct letter){ .attach = "/nonexistent/file" }, in, out, &why), MF_NOT_FOUND);
	assert_int_equal(letter_build(&(struct letter){ .attach = "/tmp" }, in, out, &why), MF_INVALID);
	/* a pipe that nobody writes into is not waited for */
	char folder[] = "/tmp/test_letter.XXXXXX";
	assert_non_null(mkdtemp(folder));
	MF_CLEANUP(mf_free) char *pipe_path = mf_format("%s/pipe", folder);
	assert_int_equal(mkfifo(pipe_path, 0600), 0);
	assert_int_equal(letter_build(&(struct letter){ .attach = pipe_path }, in, out, &why), MF_INVALID);
	assert_non_null(strstr(why.text, "only files can be attached"));
	unlink(pipe_path);
	rmdir(folder);
	close(in);
	close(out);
}

static void attached(void **state)
{
	(void)state;
	char folder[] = "/tmp/test_letter.XXXXXX";
	assert_non_null(mkdtemp(folder));
	MF_CLEANUP(mf_free) char *path = mf_format("%s/a \"b\" \xc3\xbc.pdf", folder);
	FILE *f = fopen(path, "w");
	fputs("ABC", f);
	fclose(f);
	int in = text_file("text"), out = letter_temporary(), prepared = letter_temporary();
	assert_int_equal(letter_build(&(struct letter){ .to = "a@b", .attach = path }, in, out, NULL), MF_OK);
	struct envelope envelope;
	struct mf_reason why = { "" };
	assert_int_equal(compose(&(struct compose_options){ .from = "x@y" }, out, prepared, &envelope, &why), MF_OK);
	char text[8192] = "";
	assert_true(pread(prepared, text, sizeof text - 1, 0) > 0);
	assert_non_null(strstr(text, "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''a%20%22b%22%20%C3%BC.pdf\r\n"));
	assert_non_null(strstr(text, "\r\n\r\nQUJD\r\n\r\n--=_"));
	envelope_finish(&envelope);
	close(in);
	close(out);
	close(prepared);
	unlink(path);
	rmdir(folder);
}

static void the_dot(void **state)
{
	(void)state;
	static const struct { const char *in, *out; bool dot_ends; } cases[] = {
		{ "a\n.\nb\n", "a\n", true }, { "a\n.\nb\n", "a\n.\nb\n", false }, { "a\n..\n .\n", "a\n..\n .\n", true },
		{ ".\r\nx", "", true }, { "a\n.", "a\n", true }, { "", "", true },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int in = text_file(cases[i].in), out = letter_temporary();
		assert_int_equal(letter_copy(in, out, cases[i].dot_ends, NULL), MF_OK);
		assert_content(out, cases[i].out);
		close(in);
		close(out);
	}
}

static void author(void **state)
{
	(void)state;
	int fd = text_file("To: x@y\nFrom: Alice\n <alice@example.org>, b@c\n\nFrom: no@no\n");
	MF_CLEANUP(mf_free) char *address = letter_author(fd);
	assert_string_equal(address, "alice@example.org");
	close(fd);
	fd = text_file("To: x@y\n\nFrom: no@no\n");
	assert_null(letter_author(fd));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain), cmocka_unit_test(injection), cmocka_unit_test(attached), cmocka_unit_test(the_dot), cmocka_unit_test(author),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

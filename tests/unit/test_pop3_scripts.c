/* Every script of tests/pop3, as it is and with the server's bytes a few at a time. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/pop3_script.c"

static void run_script(void **state)
{
	struct imap_script *script = imap_script_load(*state);
	size_t sent = imap_script_check(script, &(struct imap_script_run){ .cut = SIZE_MAX });
	size_t piece = sent / 20000 > 7 ? sent / 20000 : 7;
	imap_script_check(script, &(struct imap_script_run){ .cut = SIZE_MAX, .piece = piece });
	imap_script_free(script);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_script(const struct dirent *d)
{
	const char *dot = strrchr(d->d_name, '.');
	return dot && !strcmp(dot, ".script");
}

int main(int argc, char **argv)
{
	struct dirent **names;
	script_client = pop3_client;
	int count = scandir("tests/pop3", &names, is_script, by_name);
	if (count <= 0) {
		fprintf(stderr, "no scripts in tests/pop3: run from the top of the source tree\n");
		return 1;
	}
	struct CMUnitTest *tests = calloc((size_t)count, sizeof *tests);
	size_t n = 0;
	for (int i = 0; i < count; i++) {
		if (argc < 2 || strstr(names[i]->d_name, argv[1])) {
			char *path = mf_format("tests/pop3/%s", names[i]->d_name);
			tests[n++] = (struct CMUnitTest){ .name = path, .test_func = run_script, .initial_state = path };
		}
		free(names[i]);
	}
	free(names);
	int failed = _cmocka_run_group_tests("pop3 scripts", tests, n, NULL, NULL);
	for (size_t i = 0; i < n; i++)
		free(tests[i].initial_state);
	free(tests);
	return failed;
}

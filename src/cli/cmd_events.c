/* events: what happens, as lines of JSON, until ^C or the end of the mount. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "cli/ask.h"
#include "control/json.h"

/* stdio's lock keeps the lines of several accounts whole */
static bool print(void *context, const char *json)
{
	(void)context;
	MF_CLEANUP(mf_free) char *safe = json_safe(json);
	flockfile(stdout);
	bool good = puts(safe) >= 0 && !fflush(stdout);
	funlockfile(stdout);
	return good;
}

struct follower {
	pthread_t thread;
	const struct ask *ask;
	struct target *target;
	const char *line;
	enum exit_code code;
};

static void *follow(void *context)
{
	struct follower *f = context;
	f->code = ask_account(f->ask, f->target, f->line);
	return NULL;
}

static enum exit_code follow_all(const struct ask *ask, struct targets *targets, const char *line)
{
	struct follower *followers = mf_alloc_array(targets->count, sizeof *followers);
	enum exit_code code = EXIT_OK;
	size_t started = 0;
	for (; started < targets->count; started++) {
		followers[started] = (struct follower){ .ask = ask, .target = &targets->items[started], .line = line };
		if (pthread_create(&followers[started].thread, NULL, follow, &followers[started]))
			break;
	}
	if (started < targets->count)
		code = cli_fail(EXIT_LOCAL, "cannot start a thread");
	for (size_t i = 0; i < started; i++) {
		pthread_join(followers[i].thread, NULL);
		if (!code)
			code = followers[i].code;
	}
	free(followers);
	return code;
}

enum exit_code cmd_events(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	struct ask ask = { cli, ASK_RUNNING, false, print, NULL, false };
	const char *line = arguments_has(arguments, "all") ? "events --all" : "events";
	code = follow_all(&ask, &targets, line);
	targets_finish(&targets);
	return code;
}

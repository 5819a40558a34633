/* connect and disconnect: of running accounts. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/json.h"

static bool print(void *context, const char *json)
{
	(void)context;
	struct json_object *o = json_parse_line(json), *progress;
	const char *link = o ? json_get_string(o, "link") : NULL, *account = o ? json_get_string(o, "account") : NULL;
	char shown[128];
	if (o && json_object_object_get_ex(o, "progress", &progress)) {
		show_progress(progress);
	} else if (link && account) {
		show_progress_end();
		if (!strcmp(link, "online")) /* what it is not is told as an error */
			printf("%s is online\n", mf_printable(shown, sizeof shown, account, strlen(account)));
	}
	json_object_put(o);
	return true;
}

static enum exit_code ask_running(struct cli *cli, const struct arguments *arguments, const char *verb)
{
	struct targets targets;
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	struct ask ask = { cli, ASK_RUNNING, false, print, NULL, false };
	code = ask_all(&ask, &targets, verb);
	show_progress_end();
	targets_finish(&targets);
	return code;
}

enum exit_code cmd_connect(struct cli *cli, const struct arguments *arguments)
{
	return ask_running(cli, arguments, "connect");
}

enum exit_code cmd_disconnect(struct cli *cli, const struct arguments *arguments)
{
	return ask_running(cli, arguments, "disconnect");
}

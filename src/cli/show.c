#include "cli/show.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "control/json.h"
#include "control/text.h"

static bool drawn;   /* a line of progress stands there; the main thread's alone */

size_t show_columns(void)
{
	struct winsize size;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

size_t show_rows(void)
{
	struct winsize size;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 1 ? size.ws_row : 24;
}

void show_text(FILE *to, const char *text)
{
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "\n");
		MF_CLEANUP(mf_free) char *line = mf_alloc(len + 1);
		fprintf(to, "%s\n", mf_printable(line, len + 1, p, len));
		p += len + (p[len] == '\n');
	}
}

bool show_json(void *context, const char *json)
{
	(void)context;
	MF_CLEANUP(mf_free) char *safe = json_safe(json);
	return puts(safe) >= 0;
}

void show_progress(struct json_object *o)
{
	if (!isatty(STDERR_FILENO))
		return;
	struct account_progress progress = {
		.done = (uint64_t)json_get_number(o, "done"),
		.total = (uint64_t)json_get_number(o, "total"),
		.rate = (uint64_t)json_get_number(o, "rate"),
		.queued = (size_t)json_get_number(o, "queued"),
	};
	const char *unit = json_get_string(o, "unit"), *doing = json_get_string(o, "doing"), *account = json_get_string(o, "account");
	progress.bytes = unit && !strcmp(unit, "bytes");
	snprintf(progress.doing, sizeof progress.doing, "%s%s%s", account ? account : "", account ? ": " : "", doing ? doing : "");
	char line[256];
	struct buf b;
	buf_init(&b, 1024);
	if (!text_add_line(&b, text_progress(line, sizeof line, &progress), show_columns() - 1)) {
		fprintf(stderr, "\r\033[K%.*s", (int)strcspn(b.data, "\n"), b.data);
		fflush(stderr);
		drawn = true;
	}
	buf_finish(&b);
}

void show_progress_end(void)
{
	if (drawn)
		fputs("\r\033[K", stderr);
	drawn = false;
}

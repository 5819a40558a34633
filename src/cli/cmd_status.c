/* status: what the accounts are doing. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cli/ask.h"
#include "cli/show.h"
#include "control/client.h"
#include "control/json.h"

#define STATUS_MAX (64U << 20)

struct collected {
	struct buf text;
	struct json_object *root, *accounts;   /* of --json */
};

static void collect_json(struct collected *c, struct json_object *status)
{
	struct json_object *list;
	if (!json_object_object_get_ex(status, "accounts", &list) || !json_object_is_type(list, json_type_array))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++)
		json_object_array_add(c->accounts, json_object_get(json_object_array_get_idx(list, i)));
	json_put_string(c->root, "version", json_get_string(status, "version"));
	json_put_string(c->root, "time", json_get_string(status, "time"));
}

static bool collect(void *context, const char *json)
{
	struct collected *c = context;
	struct json_object *o = json_parse_line(json), *status;
	const char *text = o ? json_get_string(o, "text") : NULL;
	if (text)
		(void)buf_addf(&c->text, "%s%s", c->text.len ? "\n" : "", text); /* an answer is below the limit */
	else if (o && json_object_object_get_ex(o, "status", &status))
		collect_json(c, status);
	json_object_put(o);
	return true;
}

static void collected_init(struct collected *c)
{
	*c = (struct collected){ .root = json_object_new_object(), .accounts = json_object_new_array() };
	json_object_object_add(c->root, "accounts", c->accounts);
	buf_init(&c->text, STATUS_MAX);
}

static void print_json(struct collected *c)
{
	MF_CLEANUP(mf_free) char *line = json_line(json_object_get(c->root));
	puts(line);
}

static enum exit_code status_once(struct cli *cli, struct targets *targets, bool json)
{
	struct collected c;
	collected_init(&c);
	struct ask ask = { cli, ASK_OFFLINE, false, collect, &c, false };
	enum exit_code code = ask_all(&ask, targets, json ? "status --json" : "status");
	if (json)
		print_json(&c);
	else
		show_text(stdout, c.text.data);
	buf_finish(&c.text);
	json_object_put(c.root);
	return code;
}

/* Draws the new text over the old one. On a terminal only as much as fits, so that the cursor finds its way back. */
static void redraw(const char *text, size_t *drawn)
{
	struct buf out;
	size_t columns = show_columns(), rows = show_rows(), lines = 0;
	buf_init(&out, STATUS_MAX);
	if (*drawn)
		(void)buf_addf(&out, "\033[%zuA", *drawn);
	for (const char *p = text; *p && lines + 1 < rows; lines++) {
		size_t len = strcspn(p, "\n"), cut = len < columns ? len : columns - 1;
		while (cut < len && cut && ((unsigned char)p[cut] & 0xc0) == 0x80)
			cut--;
		(void)buf_addf(&out, "\033[K%.*s\n", (int)cut, p);
		p += len + (p[len] == '\n');
	}
	(void)buf_adds(&out, "\033[J");
	fwrite(out.data, 1, out.len, stdout);
	fflush(stdout);
	buf_finish(&out);
	*drawn = lines;
}

static bool ignore(void *context, const char *json)
{
	(void)context;
	(void)json;
	return true;
}

static bool is_held(const struct target *target)
{
	int code;
	return control_ask(target->name, "ping", ignore, NULL, &code, NULL) != MF_NOT_FOUND;
}

/* Where all accounts are meant, those that nobody holds are left out, unless that is so of all. */
static enum exit_code ask_held(const struct ask *ask, struct targets *targets, bool all)
{
	enum exit_code code = EXIT_OK;
	size_t asked = 0;
	for (size_t i = 0; all && i < targets->count && !code; i++)
		if (is_held(&targets->items[i])) {
			code = ask_account(ask, &targets->items[i], "status");
			asked++;
		}
	return asked ? code : ask_all(ask, targets, "status");
}

static enum exit_code status_watch(struct cli *cli, struct targets *targets, bool all)
{
	size_t drawn = 0;
	while (true) {
		struct collected c;
		collected_init(&c);
		struct ask ask = { cli, ASK_RUNNING, false, collect, &c, false };
		enum exit_code code = ask_held(&ask, targets, all);
		if (!code) {
			MF_CLEANUP(mf_free) char *safe = NULL;
			size_t size = 0;
			FILE *memory = open_memstream(&safe, &size);
			if (memory) {
				show_text(memory, c.text.data);
				fclose(memory);
				redraw(safe, &drawn);
			}
		}
		buf_finish(&c.text);
		json_object_put(c.root);
		if (code)
			return code;
		struct timespec second = { .tv_sec = 1 };
		nanosleep(&second, NULL); /* ^C ends the program */
	}
}

enum exit_code cmd_status(struct cli *cli, const struct arguments *arguments)
{
	struct targets targets;
	bool json = arguments_has(arguments, "json"), watch = arguments_has(arguments, "watch");
	if (json && watch)
		return cli_fail(EXIT_USAGE, "status: --json and --watch exclude each other");
	if (watch && !isatty(STDOUT_FILENO))
		return cli_fail(EXIT_USAGE, "status --watch draws on a terminal, and standard output is none");
	enum exit_code code = targets_select(&targets, cli, arguments, NULL);
	if (code)
		return code;
	code = watch ? status_watch(cli, &targets, !cli->account && !arguments->operand_count) : status_once(cli, &targets, json);
	targets_finish(&targets);
	return code;
}

#include "cli/ask.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "control/client.h"
#include "control/json.h"
#include "control/paths.h"

#define LINE_MAX_BYTES (64U << 20)   /* more than argv can hold */

struct asking {
	const struct ask *ask;
	char *error;          /* of the last line */
};

/* Keeps the end for us, hands the rest on. */
static bool sort_out(void *context, const char *json)
{
	struct asking *asking = context;
	struct json_object *o = NULL;
	if (!strncmp(json, "{\"exit\"", 7) && (o = json_parse_line(json))) {
		const char *error = json_get_string(o, "error");
		free(asking->error);
		asking->error = error ? mf_strdup(error) : NULL;
		json_object_put(o);
		return true;
	}
	return asking->ask->say(asking->ask->context, json);
}

/* --- in this process ----------------------------------------------------------------------------------------------- */

static struct cancel stop_sign;

static void raise_stop(int number)
{
	(void)number;
	cancel_raise(&stop_sign);
}

/* The first ^C asks the verb to end in good order, the second one ends the program. What a shell runs in the background ignores it. */
static void catch_interrupts(void)
{
	static const int numbers[] = { SIGINT, SIGTERM };
	struct sigaction before, action = { .sa_handler = raise_stop, .sa_flags = (int)(SA_RESETHAND | SA_RESTART) };
	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		if (!sigaction(numbers[i], NULL, &before) && before.sa_handler != SIG_IGN)
			sigaction(numbers[i], &action, NULL);
}

static bool has_index(const char *account)
{
	MF_CLEANUP(mf_free) char *state = path_state(account);
	MF_CLEANUP(mf_free) char *index = mf_format("%s/mailfs.db", state);
	return access(index, F_OK) == 0;
}

/* The mailboxes' names are known, and the link is up or its failure told. */
static enum mf_err await_listed(struct holding *holding, struct mf_reason *why)
{
	struct account *a = holding->accounts[0];
	const struct account_config *config = account_config(a);
	return account_wait_listed(a, config->connect_timeout_ms + 2 * config->io_timeout_ms, why);
}

static enum exit_code run_here(struct asking *asking, struct target *target, const char *line)
{
	const struct ask *ask = asking->ask;
	struct mf_reason why = { "" };
	struct holding *holding = NULL;
	bool connect = ask->how == ASK_CONNECT;
	enum mf_err e = target_check(target, &why);
	if (!e && connect)
		e = target_ask_password(target, ask->may_ask_password, &why);
	if (!e && connect)
		target->config->idle = false; /* what ends by itself needs no connection to be told of news */
	if (!e)
		e = ask->cli->parts->holding_open(&target->config, 1, !connect, &holding, &why);
	if (e)
		return cli_fail(e == MF_INVALID ? EXIT_CONFIG : exit_code_of(e), "%s", why.text[0] ? why.text : mf_err_words(e));
	enum exit_code code = EXIT_OK;
	if (connect) {
		ask->cli->parts->holding_start(holding);
		e = ask->lists_itself ? MF_OK : await_listed(holding, &why); /* ^C simply ends the program here */
		if (e)
			code = cli_fail(exit_code_of(e), "%s: %s", target->name, why.text[0] ? why.text : mf_err_words(e));
	}
	if (!code && !cancel_init(&stop_sign))
		code = cli_fail(EXIT_LOCAL, "out of file descriptors");
	if (code) {
		ask->cli->parts->holding_close(holding);
		return code;
	}
	catch_interrupts();
	code = (enum exit_code)control_run(&holding->control, target->name, line, &stop_sign, sort_out, asking);
	ask->cli->parts->holding_close(holding);
	cancel_finish(&stop_sign);
	return code;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */

static enum exit_code nobody(const struct ask *ask, const struct target *target)
{
	if (ask->how == ASK_RUNNING)
		return cli_fail(EXIT_NOT_FOUND, "%s is not mounted: no running mailfs holds it", target->name);
	return cli_fail(EXIT_NOT_FOUND, "%s has never been mounted or synchronised here", target->name);
}

enum exit_code ask_account(const struct ask *ask, struct target *target, const char *line)
{
	struct asking asking = { ask, NULL };
	struct mf_reason why = { "" };
	int code = EXIT_OK;
	enum mf_err e = control_ask(target->name, line, sort_out, &asking, &code, &why);
	if (e == MF_NOT_FOUND) {
		if (ask->how == ASK_RUNNING || (ask->how == ASK_OFFLINE && !has_index(target->name)))
			return nobody(ask, target);
		code = (int)run_here(&asking, target, line);
	} else if (e) {
		return cli_fail(exit_code_of_local(e), "%s", why.text[0] ? why.text : mf_err_words(e));
	}
	if (asking.error)
		cli_fail((enum exit_code)code, "%s", asking.error);
	free(asking.error);
	return (enum exit_code)code;
}

enum exit_code ask_all(const struct ask *ask, struct targets *targets, const char *line)
{
	enum exit_code result = EXIT_OK;
	for (size_t i = 0; i < targets->count; i++) {
		enum exit_code code = ask_account(ask, &targets->items[i], line);
		if (!result)
			result = code;
		if (code == EXIT_CANCELLED)
			break;
	}
	return result;
}

/* a word that could be taken for an option */
static bool has_dash(char *const *rest)
{
	while (rest && *rest && **rest != '-')
		rest++;
	return rest && *rest;
}

char *ask_line(const char *verb, const char *flags, char *const *rest)
{
	struct buf b;
	buf_init(&b, LINE_MAX_BYTES);
	(void)buf_addf(&b, "%s%s%s%s", verb, *flags ? " " : "", flags, has_dash(rest) ? " --" : "");
	for (; rest && *rest; rest++) {
		MF_CLEANUP(mf_free) char *quoted = control_quote(*rest);
		(void)buf_addf(&b, " %s", quoted);
	}
	return buf_detach(&b);
}

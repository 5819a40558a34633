/* targets.h: which accounts a command is about: names of the config file, of running processes, and URLs. */
#ifndef MF_CLI_TARGETS_H
#define MF_CLI_TARGETS_H

#include "cli/command.h"
#include "config/config.h"

struct target {
	char *name;
	struct account_config *config;   /* NULL: only its socket is known */
	bool own;                        /* the config was made for a URL and is freed with this */
};
struct targets {
	struct config *config;           /* NULL where there is no file */
	char *config_path;               /* that was read, or would be; NULL: there is no place for one */
	struct target *items;
	size_t count;
};

/* Reads the config file. A missing one is no failure unless it was named. */
enum mf_err targets_load(const char *config_path, struct targets *ret, struct mf_reason *why);
void targets_finish(struct targets *t);

/* One by name or URL, added to the list. MF_NOT_FOUND with a reason that says which there are; MF_INVALID for a bad URL. */
enum mf_err targets_add(struct targets *t, const char *source, struct mf_reason *why);
/* Every account of the config file, and every running one. */
void targets_add_all(struct targets *t);
/* Every account of the config file; MF_NOT_FOUND if there is none. */
enum mf_err targets_add_configured(struct targets *t, struct mf_reason *why);

/* What most commands do: --account, else the operands that name accounts (leading ones only, with `rest` for what follows;
 * rest == NULL: all must be accounts), else all. An account's name before a slash ("work/INBOX") selects it too, and the
 * operand stays in the rest. Prints its failure; EXIT_OK otherwise. */
enum exit_code targets_select(struct targets *t, struct cli *cli, const struct arguments *arguments, char ***rest);

/* How many accounts these operands name, alone ("work") or before a mailbox; *ret_plain: the first that names none, or NULL. */
size_t targets_count_named(const struct targets *t, char *const *operands, const char **ret_plain);

/* Usable by this version, with every key in place. Prints nothing; the reason says what to write where. */
enum mf_err target_check(const struct target *target, struct mf_reason *why);
/* Asks for the password at the terminal if no setting gives one. MF_AUTH with the reason where there is no terminal. */
enum mf_err target_ask_password(struct target *target, bool may_ask, struct mf_reason *why);

#endif

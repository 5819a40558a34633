/* command.h: the table of commands, which main, help and the shells' completions share, and their arguments. */
#ifndef MF_CLI_COMMAND_H
#define MF_CLI_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "cli/parts.h"
#include "control/exit.h"

struct flag {                    /* of a command; the last of a list has no name */
	char letter;             /* 0: none */
	const char *name;
	const char *argument;    /* NULL: takes none */
	const char *help;
	char repeats;            /* several are joined: true with commas, else with this character; false: the last counts */
};
#define FLAGS_MAX 16

struct arguments {
	const struct flag *flags;
	char *values[FLAGS_MAX]; /* beside flags: NULL where it was not given, "" where it takes no argument */
	char **operands;         /* NULL-terminated; belong to argv */
	size_t operand_count;
};

struct cli {                     /* what main hands to every command */
	const struct cli_parts *parts;
	const char *config_path;     /* --config; NULL: the default one */
	const char *account;         /* --account; NULL */
	bool helper;                 /* called as mount.mailfs: the exit codes of mount(8) */
};

struct command {
	const char *name;
	const char *synopsis;        /* behind the name */
	const char *summary;         /* one line */
	const char *text;            /* of --help, below the flags; NULL: none */
	const struct flag *flags;
	bool hidden;
	enum exit_code (*run)(struct cli *cli, const struct arguments *arguments);
};
extern const struct command commands[];   /* the last has no name */
extern const struct flag global_flags[];  /* understood before and behind every command's name */

const struct command *command_find(const char *name);
void command_help(const struct command *command);      /* on standard output */
void command_list(void);                               /* mailfs help */

/* argv[0] is not looked at. MF_INVALID with the reason. Free with arguments_finish. Operands and flags may be mixed; "--"
 * ends the flags. only_leading: stops at the first operand, and *ret_used says how many words were read. */
enum mf_err arguments_parse(const struct flag *flags, int argc, char **argv, bool only_leading, struct arguments *ret,
                            int *ret_used, struct mf_reason *why);
void arguments_finish(struct arguments *arguments);
const char *arguments_value(const struct arguments *arguments, const char *name);  /* NULL: not given */
static inline bool arguments_has(const struct arguments *arguments, const char *name)
{
	return arguments_value(arguments, name) != NULL;
}

/* The whole program: finds the command, runs it. Returns the exit status. */
int cli_main(int argc, char **argv, const struct cli_parts *parts);

/* "mailfs: what happened" on standard error, one printable line, and code as it is. */
enum exit_code cli_fail(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* cmd_*.c */
enum exit_code cmd_mount(struct cli *, const struct arguments *);
enum exit_code cmd_mount_helper(struct cli *, int argc, char **argv);   /* as mount(8) calls it */
enum exit_code cmd_umount(struct cli *, const struct arguments *);
enum exit_code cmd_status(struct cli *, const struct arguments *);
enum exit_code cmd_sync(struct cli *, const struct arguments *);
enum exit_code cmd_list(struct cli *, const struct arguments *);
enum exit_code cmd_connect(struct cli *, const struct arguments *);
enum exit_code cmd_disconnect(struct cli *, const struct arguments *);
enum exit_code cmd_check(struct cli *, const struct arguments *);
enum exit_code cmd_events(struct cli *, const struct arguments *);
enum exit_code cmd_pending(struct cli *, const struct arguments *);
enum exit_code cmd_cancel(struct cli *, const struct arguments *);
enum exit_code cmd_retry(struct cli *, const struct arguments *);
enum exit_code cmd_flag(struct cli *, const struct arguments *);
enum exit_code cmd_subscribe(struct cli *, const struct arguments *);
enum exit_code cmd_unsubscribe(struct cli *, const struct arguments *);
enum exit_code cmd_send(struct cli *, const struct arguments *);
int cmd_sendmail(struct cli *, int argc, char **argv);   /* as programs call sendmail(8); the codes of sysexits.h */
enum exit_code cmd_help(struct cli *, const struct arguments *);
enum exit_code cmd_complete(struct cli *, const struct arguments *);

#endif

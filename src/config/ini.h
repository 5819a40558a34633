/* ini.h: the lines of the config file. Pure.
 *
 *   [section]             the name is what stands between the first '[' and the last ']'
 *   key = value           white space around both is dropped
 *   # or ; comment        on a line of its own; behind a value or a section, white space and ';' begin a comment
 *   key = "value"         quoted: white space and " ;" are kept, \" and \\ stand for " and \
 *
 * A value that only begins with a quoted string ("Example, Alice" <alice@example.org>) is taken as it is written. Lines end
 * with LF or CRLF and have at most INI_LINE_MAX bytes; there are no continuation lines.
 *
 * libinih is not used: as packaged it splits lines at 200 bytes and cuts sections at 50 without a word, folds indented
 * lines into the value above, and knows no quotes, so a long password-command or "[mailbox work/...]" could be misread. */
#ifndef MF_CONFIG_INI_H
#define MF_CONFIG_INI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define INI_LINE_MAX 16384

struct ini_line {
	unsigned number;
	bool is_section;
	const char *name;  /* the section, or the key */
	const char *value; /* of a key; may be "" */
};

/* What it returns other than MF_OK ends the reading; its reason is put behind "FILE:LINE: ". */
typedef enum mf_err ini_handler(void *context, const struct ini_line *line, struct mf_reason *why);

/* The names and values that the handler sees are in secret memory (base/secret.h), and gone afterwards. MF_INVALID for a line
 * that is none of the above; the reason never repeats a line's text, which may hold a password. */
enum mf_err ini_read(const char *text, size_t len, const char *file, ini_handler *handler, void *context,
                     struct mf_reason *why);

#endif

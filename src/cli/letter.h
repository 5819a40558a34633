/* letter.h: a message built from a command's options; and what is needed before one is sent. */
#ifndef MF_CLI_LETTER_H
#define MF_CLI_LETTER_H

#include <stdbool.h>

#include "base/err.h"

struct letter {
	const char *to, *cc, *bcc, *subject;   /* NULL: none */
	const char *attach;                    /* paths, one a line; NULL */
};
/* text: from its offset on. out: an empty file. What smtp/compose.h makes right is left to it. MF_INVALID: a line break in an
 * option; MF_NOT_FOUND and others: an attachment that cannot be read. */
enum mf_err letter_build(const struct letter *letter, int text, int out, struct mf_reason *why);

/* A file without a name; -1 with errno. */
int letter_temporary(void);
/* All that can be read of from, to `to`, which is rewound. dot_ends: a line with a single dot is the end. */
enum mf_err letter_copy(int from, int to, bool dot_ends, struct mf_reason *why);
/* The first address of the From field; NULL: none. The caller frees. */
char *letter_author(int message);

#endif

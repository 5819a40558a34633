/* text.h: numbers and progress as people read them. Buffers are always terminated; each function returns its first argument. */
#ifndef MF_CONTROL_TEXT_H
#define MF_CONTROL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "sync/account.h"

enum { TEXT_NUMBER = 32, TEXT_BAR = 64 };

char *text_size(char to[static TEXT_NUMBER], uint64_t bytes);      /* 0, 999, 1.2K, 45M, 2.0G; units of 1024 */
char *text_count(char to[static TEXT_NUMBER], uint64_t number);    /* 12,345 */
char *text_duration(char to[static TEXT_NUMBER], int64_t seconds); /* 5 s, 3 min, 2 h, 4 days */
char *text_bar(char to[static TEXT_BAR], uint64_t done, uint64_t total, size_t width); /* [####------]; width up to 60 with its brackets */
/* "INBOX: headers [#####-----] 50% 1,000 of 2,000, 1.2M/s, 3 queued": one printable line of at most size - 1
 * bytes. An idle progress is "idle". */
char *text_progress(char *to, size_t size, const struct account_progress *progress);
/* The line, printable, cut at a character to so many columns of a terminal, and a newline. */
enum mf_err text_add_line(struct buf *b, const char *line, size_t columns);
/* "online", "connecting", "offline", "waiting" */
const char *text_link(enum link_state state);
const char *text_policy(enum sync_policy policy); /* "headers", ... as the config file spells it */

#endif

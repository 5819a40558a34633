/* show.h: answers as people read them. Nothing reaches the terminal that mf_printable() or json.h has not passed. */
#ifndef MF_CLI_SHOW_H
#define MF_CLI_SHOW_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>

/* Text of several lines, each made printable. */
void show_text(FILE *to, const char *text);

/* A line of JSON for programs, as ask.h calls it. */
bool show_json(void *context, const char *json);

/* A line of progress on standard error, drawn over itself; nothing where that is no terminal. */
void show_progress(struct json_object *progress);
/* Takes it away, before anything else is printed. */
void show_progress_end(void);

/* The columns of the terminal behind standard error; 80 where it is none. */
size_t show_columns(void);
/* The rows of the terminal behind standard output; 24 where it does not say. */
size_t show_rows(void);

#endif

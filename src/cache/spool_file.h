/* spool_file.h: what a file in STATE/spool looks like, and what is done with it there. Private to spool.c, rejected.c, recover.c. */
#ifndef MF_CACHE_SPOOL_FILE_H
#define MF_CACHE_SPOOL_FILE_H

#include "cache/cache.h"

#define SPOOL_NAME_MAX 32
#define SPOOL_NOTE_MAX 8192
#define SPOOL_NOTED_NAME "\nname: "
#define SPOOL_NOTED_DATE "\ninternal-date: "

/* Behind the message's bytes: the note as text, then this. Fixed numbers are little-endian, as on all machines that mailfs runs on.
 * asked: who wrote it has had it brought to the disk */
struct spool_tail { uint64_t size; uint32_t note_len, asked; char magic[8]; };

void spool_name(uint64_t message, bool edit, char ret[static SPOOL_NAME_MAX]);
/* MF_CORRUPT: torn by the end of the machine, or none of ours */
enum mf_err spool_read_tail(int fd, struct spool_tail *ret);
enum mf_err spool_open_name(int dir, const char *name, int *ret_fd, struct spool_tail *ret_tail);
/* From one message to another. Its bytes may not be on the disk yet, and the keeper would look for them under the name before. */
enum mf_err spool_rename(struct cache *c, uint64_t from, uint64_t to);
void spool_discard(int dir, const char *name);               /* says why not, if not */

/* A copy of size bytes of fd in STATE/rejected, on the disk; who has been told why (rejected.c) */
enum mf_err spool_reject_fd(struct cache *c, int fd, uint64_t size, const char *name, const char *reason);

#endif

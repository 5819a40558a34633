/* imap_script.h: an IMAP server and its client as one data file.
 *
 * Lines of a script (tests/imap/NAME.script):
 *   # ...            a remark; the first one says what the script is about
 *   O: NAME[=VALUE]  an option of the session: see options_take()
 *   S: TEXT          the server sends this line. $1 $2 ...: a tag bound by a C: line. \xNN: a byte. Anything else is itself
 *   S- TEXT          the same without CRLF
 *   B: N C           the server sends N bytes C
 *   M: N TEXT        the server sends the line N times, with $# counting from 1
 *   D: N C           the client must send N bytes C
 *   C: PATTERN       the client must send this line; "..." stands for anything, $1 in the tag's place binds it
 *   H:               the client has to wait for what the server sends next
 *   E:               the server closes
 *   N:               the client has to leave and connect again; what follows is said there
 *   L: CAPS          a login that succeeds, with these capabilities after it; ENABLE QRESYNC if they have it
 *   P: CAPS          likewise of POP3, without the verb: greeting, CAPA, USER, PASS; CAPA's lines between slashes
 *   V: VERB ARGS     the client calls a verb: see verb_run()
 *   R: TEXT          ... and this is what it is told, line by line; "..." stands for anything
 *   Q: TEXT          likewise, but it may be missing
 * At the end the server waits for the client to leave.
 * The server's and the client's lines run side by side, each in its own order. */
#ifndef MF_TESTS_IMAP_SCRIPT_H
#define MF_TESTS_IMAP_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

struct imap_script;
struct imap_script_run {
	size_t cut;             /* the server closes after so many bytes; SIZE_MAX: never */
	size_t piece;           /* bytes in a write; 0: as large as they come */
	unsigned seed;          /* not 0: some of the server's bytes are others, chosen by it */
};
struct imap_script *imap_script_load(const char *path);   /* fails the test if it cannot be read */
void imap_script_free(struct imap_script *script);
const char *imap_script_about(const struct imap_script *script);
/* Runs it. *ret_said: what the client was told; *ret_server: what the server complains of ("" if nothing); both the
 * caller's. Returns the bytes that the server sent. */
size_t imap_script_run(const struct imap_script *script, const struct imap_script_run *how, char **ret_said, char **ret_server);
/* Runs it and fails the test where it differs from what the script expects. Returns the bytes that the server sent. */
size_t imap_script_check(const struct imap_script *script, const struct imap_script_run *how);

#endif

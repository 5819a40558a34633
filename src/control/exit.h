/* exit.h: how a command ends, told to scripts. Stable: numbers are never given another meaning. mailfs.1 has the same table.
 *
 * Control uses it because a verb's answer carries the code that the command exits with. */
#ifndef MF_CONTROL_EXIT_H
#define MF_CONTROL_EXIT_H

#include "base/err.h"

/* X(name, number, words) */
#define MF_EXITS(X) \
	X(OK,          0, "done") \
	X(USAGE,       1, "the command line cannot be understood") \
	X(MOUNTPOINT,  2, "no mount point was given, or it is not a directory") \
	X(CONFIG,      3, "the configuration is wrong, or something that it names cannot be used") \
	X(MOUNT,       4, "mounting or unmounting failed") \
	X(BACKGROUND,  5, "the process in the background could not be started") \
	X(LOCAL,       7, "a local failure: input or output, no space, damaged or newer data") \
	X(NOT_FOUND,   8, "no such account, mailbox, mount, message or file") \
	X(AUTH,        9, "the server refused the credentials, or there are none") \
	X(OFFLINE,    10, "the server cannot be reached") \
	X(TIMEOUT,    11, "no answer in time") \
	X(TLS,        12, "no trusted encrypted connection") \
	X(BUSY,       13, "in use: by another process, or files of the mount are open") \
	X(PARTIAL,    14, "done in part: some mailboxes or messages failed, or check found differences") \
	X(PROTOCOL,   15, "the server broke the protocol, or refused the request") \
	X(CANCELLED,  16, "interrupted")

enum exit_code {
#define X(name, number, words) EXIT_##name = (number),
	MF_EXITS(X)
#undef X
};

enum exit_code exit_code_of(enum mf_err e);
/* of a failure that no server had a part in: what is not permitted then is so on this machine */
enum exit_code exit_code_of_local(enum mf_err e);
/* NULL: no such code */
const char *exit_code_words(int code);

#endif

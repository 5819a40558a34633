/* err.h: one closed status type for the whole program.
 *
 * A function that can fail returns enum mf_err and writes its outputs (named ret_...) only on MF_OK.
 * What a person should read travels beside it, as a struct mf_reason filled by whoever met the failure.
 * Lower layers return; only cli/ prints and exits, and only fs/ turns a status into an errno. */
#ifndef MF_BASE_ERR_H
#define MF_BASE_ERR_H

/* X(name, scope, words): the scope is how much is unusable now */
#define MF_ERRORS(X) \
	X(MF_OK,          ITEM,       "no error") \
	X(MF_NOT_FOUND,   ITEM,       "not found") \
	X(MF_EXISTS,      ITEM,       "exists already") \
	X(MF_UNSUPPORTED, ITEM,       "not supported") \
	X(MF_DENIED,      ITEM,       "not permitted by the server") \
	X(MF_INVALID,     ITEM,       "invalid") \
	X(MF_STALE,       ITEM,       "gone at the server") \
	X(MF_TOO_BIG,     ITEM,       "over a size limit") \
	X(MF_QUOTA,       ITEM,       "over the server's quota") \
	X(MF_CANCELLED,   ITEM,       "interrupted") \
	X(MF_NO_FILES,    ITEM,       "too many messages are open") \
	X(MF_UIDVALIDITY, MAILBOX,    "the mailbox was numbered anew") \
	X(MF_OFFLINE,     CONNECTION, "the server cannot be reached") \
	X(MF_TIMEOUT,     CONNECTION, "the server did not answer in time") \
	X(MF_PROTOCOL,    CONNECTION, "the server broke the protocol") \
	X(MF_TLS,         CONNECTION, "no trusted encrypted connection") \
	X(MF_AUTH,        ACCOUNT,    "the server refused the credentials") \
	X(MF_BUSY,        ACCOUNT,    "in use by another process") \
	X(MF_NEWER,       ACCOUNT,    "written by a newer version of mailfs") \
	X(MF_NO_SPACE,    ACCOUNT,    "no space on the local disk") \
	X(MF_IO,          ACCOUNT,    "local input/output error") \
	X(MF_CORRUPT,     ACCOUNT,    "damaged local data")

enum mf_err {
#define X(name, scope, words) name,
	MF_ERRORS(X)
#undef X
};

enum mf_scope { MF_SCOPE_ITEM, MF_SCOPE_MAILBOX, MF_SCOPE_CONNECTION, MF_SCOPE_ACCOUNT };

enum mf_scope mf_err_scope(enum mf_err e);
/* lower-case words without a full stop; never NULL */
const char *mf_err_words(enum mf_err e);
/* "MF_TIMEOUT"; for traces and tests */
const char *mf_err_name(enum mf_err e);
/* The status for an errno of a local file operation: ENOSPC, EDQUOT and EFBIG are MF_NO_SPACE, ENOENT is MF_NOT_FOUND,
 * EACCES and EPERM are MF_DENIED, EEXIST is MF_EXISTS, everything else MF_IO. */
enum mf_err mf_err_from_errno(int number);

/* One line for a person: what happened, to what, and what to do. Never holds a secret; anything that came from a
 * server has its control characters replaced. text[0] == 0 means "nothing more than the status says". */
struct mf_reason {
	char text[320];
};

/* Formats into why (which may be NULL) and returns e, so that a failure is one statement: return mf_fail(...). */
enum mf_err mf_fail(struct mf_reason *why, enum mf_err e, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif

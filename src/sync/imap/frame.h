/* frame.h: one response as it came: its lines, and its literals in their places (RFC 9051 section 7).
 *
 * The frame's end is found before anything is parsed, so a response that no parser understands costs itself and not the
 * connection. A literal too large to keep is passed over, and one that somebody wants as a stream is handed on; both
 * leave NIL in their place. */
#ifndef MF_SYNC_IMAP_FRAME_H
#define MF_SYNC_IMAP_FRAME_H

#include <libetpan/mmapstring.h>

#include "base/err.h"
#include "net/transport.h"
#include "sync/imap/scan.h"

struct imap_frame {
	MMAPString *text;
	size_t first_line;   /* its length; the same as text->len without literals */
	size_t lines_len;    /* of all its lines: what is not in literals */
};
/* The literal that begins now belongs to a BODY[] of a FETCH. Takes exactly len bytes from the reader. `line` is the
 * response up to the literal's item; `section` what is asked behind BODY, as in "[]<0>". */
typedef enum mf_err frame_body(void *context, struct span line, struct span section, uint64_t len);

struct frame_reader {
	struct transport *transport;
	int64_t io_timeout_ms;    /* a response that takes four times as long is no response */
	uint64_t literal_keep;    /* larger ones are passed over */
	frame_body *body;         /* NULL: none is streamed */
	void *context;
};
void frame_init(struct imap_frame *f);
void frame_finish(struct imap_frame *f);
/* MF_OK, or why the transport is dead; MF_PROTOCOL for what cannot be a response. */
enum mf_err frame_read(const struct frame_reader *reader, struct imap_frame *f);
/* The next bytes of the literal under way: exactly len. */
enum mf_err frame_read_bytes(const struct frame_reader *reader, void *to, size_t len);

#endif

/* Any bytes as a message to be sent: refused with a reason, or made into one that every server takes */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "smtp/addrlist.h"
#include "smtp/compose.h"
#include "smtp/fields.h"

static char text[1 << 22];

static void check_text(const struct envelope *e, size_t len)
{
	size_t line = 0;
	int in_header = 1;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		if (c == '\n') {
			HOLDS(i && text[i - 1] == '\r');
			in_header = in_header && line > 1;
			line = 0;
			continue;
		}
		HOLDS(c != '\r' || text[i + 1] == '\n');
		HOLDS(c);
		HOLDS(c < 0x80 || (in_header ? e->utf8 : e->eight_bit));
		HOLDS(++line <= FIELD_LINE_MAX + 1);
	}
	HOLDS(line == 0 && len >= 2);
}

static void check_envelope(const struct envelope *e)
{
	HOLDS(e->recipient_count > 0 && e->hidden < e->size && e->message_id);
	for (size_t i = 0; i < e->recipient_count; i++) {
		HOLDS(strchr(e->recipients[i], '@') && strlen(e->recipients[i]) <= ADDR_MAX + 16);
		for (const char *p = e->recipients[i]; *p; p++)
			HOLDS((unsigned char)*p >= 0x20 && *p != 0x7f);
	}
}

static void make(const uint8_t *data, size_t size, const char *const *locals)
{
	int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
	struct envelope envelope;
	struct mf_reason why = { "" };
	HOLDS(write(in, data, size) == (ssize_t)size);
	enum mf_err e = compose(&(struct compose_options){ .from = "Alice <alice@example.org>", .locals = locals }, in, out, &envelope, &why);
	if (e) {
		HOLDS(e == MF_INVALID && why.text[0]);
	} else {
		HOLDS(envelope.size < sizeof text && pread(out, text, sizeof text, 0) == (ssize_t)envelope.size);
		check_envelope(&envelope);
		check_text(&envelope, envelope.size);
		HOLDS(!envelope.hidden || text[envelope.hidden - 1] == '\n');
		envelope_finish(&envelope);
	}
	close(in);
	close(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const locals[] = { "root", "bob", "a", NULL };
	make(data, size, NULL);
	make(data, size, locals);
	return 0;
}

/* The first byte says how: bit 0 is utf8, bit 1 is at_root. The rest is a mailbox's level, a name that a user gives, and a
 * sender and a subject (a NUL between them). */
#include <glib.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "mail/name.h"
#include "mail/text.h"

static void check_level(const char *level, size_t size, bool utf8, bool at_root)
{
	char name[MAILBOX_NAME_MAX + 1];
	mailbox_level_to_name(level, size, utf8, at_root, name);
	HOLDS(*name && strlen(name) <= MAILBOX_NAME_MAX);
	HOLDS(strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/'));
	HOLDS(!at_root || !mailbox_name_is_reserved(name));
	HOLDS(g_utf8_validate(name, -1, NULL));
	for (const char *p = name; *p; p = text_next(p))
		HOLDS(g_unichar_type(g_utf8_get_char(p)) != G_UNICODE_CONTROL);
	MF_CLEANUP(mf_free) char *back = NULL;
	if (mailbox_name_to_level(name, 0, utf8, &back) == MF_OK)
		HOLDS(strlen(back) == size && memcmp(back, level, size) == 0);
	else
		HOLDS(strlen(name) > 200 || memchr(level, '\0', size)); /* only a cut one, or one with NUL, is not found again */
}

static void check_given_name(const char *name, bool utf8)
{
	MF_CLEANUP(mf_free) char *level = NULL;
	if (mailbox_name_to_level(name, '/', utf8, &level) != MF_OK)
		return;
	char shown[MAILBOX_NAME_MAX + 1], root[MAILBOX_NAME_MAX + 1];
	mailbox_level_to_name(level, strlen(level), utf8, false, shown);
	mailbox_level_to_name(level, strlen(level), utf8, true, root);
	HOLDS(strcmp(name, shown) == 0 || strcmp(name, root) == 0);
	HOLDS(!strchr(level, '/'));
}

static void check_message(char *sender, char *subject)
{
	struct mail_summary s = { .from_name = sender, .subject = subject, .key = "aaaaaaaa" };
	char name[MAIL_NAME_MAX + 1];
	mail_message_name(&s, 0, 0, name);
	HOLDS(strlen(name) <= MAIL_NAME_MAX && strlen(name) >= 27);
	HOLDS(g_utf8_validate(name, -1, NULL));
	g_autofree char *nfc = g_utf8_normalize(name, -1, G_NORMALIZE_NFC);
	HOLDS(strcmp(nfc, name) == 0);
	int parts = 0;
	for (const char *p = name; *p; p = text_next(p)) {
		gunichar c = g_utf8_get_char(p);
		parts += c == '_';
		HOLDS(c < 0x80 ? g_ascii_isalnum((char)c) || strchr(".@+-_", (int)c) != NULL : g_unichar_isalpha(c) || g_unichar_ismark(c) || g_unichar_isdigit(c));
	}
	HOLDS(parts == 3 && !strstr(name, "_-") && !strstr(name, "_.") && !strstr(name, "--"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	const char *text = (const char *)data + 1;
	size_t len = size - 1;
	check_level(text, len, data[0] & 1, data[0] & 2);
	MF_CLEANUP(mf_free) char *first = mf_strndup(text, len);
	size_t first_len = strlen(first);
	MF_CLEANUP(mf_free) char *second = first_len < len ? mf_strndup(text + first_len + 1, len - first_len - 1) : mf_strdup("");
	check_given_name(first, data[0] & 1);
	check_message(first, second);
	return 0;
}

/* Modified UTF-7: what decodes is what encoding gives, and the other way round */
#include <glib.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "mail/name.h"

static void check_decoding(const char *text, size_t size)
{
	MF_CLEANUP(mf_free) char *decoded = NULL;
	MF_CLEANUP(mf_free) char *encoded = NULL;
	if (mutf7_decode(text, size, &decoded) != MF_OK)
		return;
	HOLDS(g_utf8_validate(decoded, -1, NULL));
	HOLDS(mutf7_encode(decoded, &encoded) == MF_OK);
	HOLDS(strlen(encoded) == size && memcmp(encoded, text, size) == 0);
}

static void check_encoding(const char *text, size_t size)
{
	MF_CLEANUP(mf_free) char *string = mf_strndup(text, size);
	MF_CLEANUP(mf_free) char *encoded = NULL;
	MF_CLEANUP(mf_free) char *decoded = NULL;
	enum mf_err e = mutf7_encode(string, &encoded);
	HOLDS((e == MF_OK) == g_utf8_validate(string, -1, NULL));
	if (e)
		return;
	HOLDS(mutf7_decode(encoded, strlen(encoded), &decoded) == MF_OK);
	HOLDS(strcmp(decoded, string) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_decoding((const char *)data, size);
	check_encoding((const char *)data, size);
	return 0;
}

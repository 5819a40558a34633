/* Any bytes as a header block: a digest that does not mind how lines end and what was added on the way, a date within range */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fuzz/fuzz.h"
#include "mail/date.h"
#include "mail/origin.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char added[] = "Received: by x;\n\tThu, 19 Nov 2026 10:00:00 +0000\n";
	char a[MAIL_DIGEST_SIZE], b[MAIL_DIGEST_SIZE];
	int64_t date = 0;
	mail_header_digest(data, size, a);
	HOLDS(strlen(a) == MAIL_DIGEST_SIZE - 1);
	HOLDS(!mail_arrival_date(data, size, &date) || (date >= 0 && date < MAIL_DATE_END));
	char *other = mf_alloc(sizeof added + 2 * size);
	size_t len = 0;
	bool folded = size && (data[0] == ' ' || data[0] == '\t'); /* it would belong to what is put in front */
	if (!folded) {
		memcpy(other, added, sizeof added - 1);
		len = sizeof added - 1;
	}
	for (size_t i = 0; i < size; i++) { /* LF to CRLF */
		if (data[i] == '\n' && (i == 0 || data[i - 1] != '\r'))
			other[len++] = '\r';
		other[len++] = (char)data[i];
	}
	mail_header_digest(other, len, b);
	HOLDS(strcmp(a, b) == 0);
	HOLDS(folded || (mail_arrival_date(other, len, &date) && date == 1795082400));
	free(other);
	return 0;
}

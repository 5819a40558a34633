#include "control/text.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

char *text_size(char to[static TEXT_NUMBER], uint64_t bytes)
{
	static const char units[] = "KMGTPE";
	if (bytes < 1024) {
		snprintf(to, TEXT_NUMBER, "%u", (unsigned)bytes);
		return to;
	}
	double value = (double)bytes / 1024;
	size_t unit = 0;
	for (; value >= 1023.5 && units[unit + 1]; unit++)
		value /= 1024;
	snprintf(to, TEXT_NUMBER, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
	return to;
}

char *text_count(char to[static TEXT_NUMBER], uint64_t number)
{
	char digits[24];
	int len = snprintf(digits, sizeof digits, "%ju", (uintmax_t)number);
	size_t out = 0;
	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			to[out++] = ',';
		to[out++] = digits[i];
	}
	to[out] = 0;
	return to;
}

char *text_duration(char to[static TEXT_NUMBER], int64_t seconds)
{
	if (seconds < 0)
		seconds = 0;
	if (seconds < 120)
		snprintf(to, TEXT_NUMBER, "%jd s", (intmax_t)seconds);
	else if (seconds < 2 * 3600)
		snprintf(to, TEXT_NUMBER, "%jd min", (intmax_t)(seconds / 60));
	else if (seconds < 2 * 86400)
		snprintf(to, TEXT_NUMBER, "%jd h", (intmax_t)(seconds / 3600));
	else
		snprintf(to, TEXT_NUMBER, "%jd days", (intmax_t)(seconds / 86400));
	return to;
}

/* how much of whole is done; never over it, whatever a server announced */
static uint64_t share(uint64_t done, uint64_t total, uint64_t whole)
{
	if (!total)
		return 0;
	return done >= total ? whole : (uint64_t)((double)done / (double)total * (double)whole);
}

char *text_bar(char to[static TEXT_BAR], uint64_t done, uint64_t total, size_t width)
{
	if (width < 3)
		width = 3;
	if (width > TEXT_BAR - 4)
		width = TEXT_BAR - 4;
	size_t inside = width - 2, full = (size_t)share(done, total, inside);
	to[0] = '[';
	memset(to + 1, '#', full);
	memset(to + 1 + full, '-', inside - full);
	to[width - 1] = ']';
	to[width] = 0;
	return to;
}

static void format_amount(char *to, size_t size, const struct account_progress *p)
{
	char done[TEXT_NUMBER], total[TEXT_NUMBER], bar[TEXT_BAR];
	if (p->bytes) {
		text_size(done, p->done);
		text_size(total, p->total);
	} else {
		text_count(done, p->done);
		text_count(total, p->total);
	}
	if (!p->total)
		snprintf(to, size, "%s%s", p->done ? " " : "", p->done ? done : "");
	else
		snprintf(to, size, " %s %3u%% %s of %s", text_bar(bar, p->done, p->total, 24),
		         (unsigned)share(p->done, p->total, 100), done, total);
}

char *text_progress(char *to, size_t size, const struct account_progress *p)
{
	if (!p->doing[0] && !p->total) {
		if (p->queued)
			snprintf(to, size, "%zu jobs queued", p->queued);
		else
			snprintf(to, size, "idle");
		return to;
	}
	char doing[sizeof p->doing], amount[160], rate[TEXT_NUMBER], line[320];
	mf_printable(doing, sizeof doing, p->doing, strnlen(p->doing, sizeof p->doing));
	format_amount(amount, sizeof amount, p);
	int len = snprintf(line, sizeof line, "%s%s", doing[0] ? doing : "working", amount);
	if (p->rate)
		len += snprintf(line + len, sizeof line - (size_t)len, ", %s/s", text_size(rate, p->rate));
	if (p->queued)
		len += snprintf(line + len, sizeof line - (size_t)len, ", %zu queued", p->queued);
	mf_printable(to, size, line, (size_t)len);  /* cuts at a character */
	return to;
}

/* Columns of the character at s, and its bytes in *ret_len: two for the wide scripts and most pictures, one else. An
 * approximation that needs no locale; it errs to the side of two. */
static size_t character_columns(const char *s, size_t *ret_len)
{
	unsigned char first = (unsigned char)s[0];
	*ret_len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	/* from U+1100 on, but for punctuation and symbols of U+2000 to U+2E7F */
	if (first < 0xe1 || (first == 0xe1 && (unsigned char)s[1] < 0x84))
		return 1;
	if (first == 0xe2 && (unsigned char)s[1] < 0xba)
		return 1;
	return 2;
}

enum mf_err text_add_line(struct buf *b, const char *line, size_t columns)
{
	char safe[1024];
	mf_printable(safe, sizeof safe, line, strlen(line));
	size_t used = 0, len = 0;
	while (safe[len]) {
		size_t bytes, wide = character_columns(safe + len, &bytes);
		if (used + wide > columns)
			break;
		used += wide;
		len += bytes;
	}
	enum mf_err e = buf_add(b, safe, len);
	return e ? e : buf_adds(b, "\n");
}

const char *text_link(enum link_state state)
{
	switch (state) {
	case LINK_CONNECTING:
		return "connecting";
	case LINK_ONLINE:
		return "online";
	case LINK_OFFLINE:
		return "offline";
	case LINK_WAITING:
		return "waiting";
	}
	return "";
}

const char *text_policy(enum sync_policy policy)
{
	switch (policy) {
	case SYNC_DEMAND:
		return "demand";
	case SYNC_HEADERS:
		return "headers";
	case SYNC_FULL:
		return "full";
	}
	return "";
}

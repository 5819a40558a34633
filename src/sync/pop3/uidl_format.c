#include "sync/pop3/uidl_format.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

static bool read_hex(const char *p, uint32_t *ret)
{
	uint32_t value = 0;
	for (int i = 0; i < 8; i++) {
		if (!isxdigit((unsigned char)p[i]))
			return false;
		value = value * 16 + (uint32_t)(isdigit((unsigned char)p[i]) ? p[i] - '0' : tolower((unsigned char)p[i]) - 'a' + 10);
	}
	*ret = value;
	return true;
}

static bool read_decimal(const char **at, uint32_t *ret)
{
	uint64_t value = 0;
	const char *p = *at;
	while (isdigit((unsigned char)*p) && value <= UINT32_MAX)
		value = value * 10 + (uint64_t)(*p++ - '0');
	if (p == *at || value > UINT32_MAX)
		return false;
	*at = p;
	*ret = (uint32_t)value;
	return true;
}

static bool read_two(const char *uidl, uint32_t *ret_first, uint32_t *ret_second)
{
	if (strlen(uidl) == 16)
		if (read_hex(uidl, ret_first) && read_hex(uidl + 8, ret_second))
			return true;
	const char *p = strncmp(uidl, "UID", 3) == 0 ? uidl + 3 : uidl;
	if (!read_decimal(&p, ret_first) || (*p != '-' && *p != '.'))
		return false;
	p++;
	return read_decimal(&p, ret_second) && *p == '\0';
}

bool uidl_decode(const char *uidl, uint32_t uidvalidity, uint32_t *ret_uid)
{
	uint32_t first, second;
	if (!read_two(uidl, &first, &second) || first == second) /* equal: nobody can tell which is which, and it does not matter */
		return false;
	if (second == uidvalidity && first)
		*ret_uid = first;
	else if (first == uidvalidity && second)
		*ret_uid = second;
	else
		return false;
	return true;
}

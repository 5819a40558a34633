/* date.h: the Date field (RFC 5322 3.3 and 4.3, and what else is met: asctime(3), ISO 8601, full month names). Pure. */
#ifndef MF_MAIL_DATE_H
#define MF_MAIL_DATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAIL_DATE_END INT64_C(4102444800) /* the first second of 2100 */

/* Seconds since the epoch, in 0 .. MAIL_DATE_END - 1. False: not a date, no such day or hour, or out of that range.
 * Two-digit years are those of 1950 to 2049; a leap second is the second before it; an unknown zone is UTC. */
bool mail_date_parse(const char *s, size_t len, int64_t *ret);

/* The day of t in UTC, "2026-11-19". t is brought into the range above. */
void mail_date_format_day(int64_t t, char ret[static 11]);

#endif

#include "mail/date.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include <glib.h>

struct date {
	const char *p, *end;
	int year, month, day;     /* -1 until seen */
	int hour, minute, second; /* hour -1 until seen */
	int zone;                 /* minutes east of UTC */
	bool bad;
};

static bool digit_at(const struct date *d, const char *p)
{
	return p < d->end && *p >= '0' && *p <= '9';
}

/* A number of at most four digits; *ret_digits is how many there were */
static int read_number(struct date *d, int *ret_digits)
{
	int value = 0, digits = 0;
	for (; digit_at(d, d->p); d->p++)
		if (++digits <= 4)
			value = value * 10 + (*d->p - '0');
	if (digits > 4)
		d->bad = true;
	*ret_digits = digits;
	return value;
}

static void skip_comment(struct date *d)
{
	int depth = 0;
	for (; d->p < d->end; d->p++) {
		if (*d->p == '(')
			depth++;
		else if (*d->p == ')' && --depth == 0) {
			d->p++;
			return;
		}
	}
}

/* --- words --- */

static int find_month(const char *word, size_t len)
{
	static const char names[] = "janfebmaraprmayjunjulaugsepoctnovdec";
	for (int i = 0; i < 12 && len >= 3; i++)
		if ((word[0] | 0x20) == names[i * 3] && strncasecmp(word, names + i * 3, 3) == 0)
			return i + 1;
	return -1;
}

/* Obsolete zones (RFC 5322 4.3). Military letters were defined with the wrong sign, and are to be read as UTC. */
static int find_zone(const char *word, size_t len)
{
	static const struct { char name[4]; int hours; } zones[] = {
		{ "EDT", -4 }, { "EST", -5 }, { "CDT", -5 }, { "CST", -6 }, { "MDT", -6 }, { "MST", -7 }, { "PDT", -7 },
		{ "PST", -8 }, { "CET", 1 }, { "BST", 1 }, { "EET", 2 }, { "MSK", 3 }, { "JST", 9 },
	};
	for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
		if (len == 3 && strncasecmp(word, zones[i].name, 3) == 0)
			return zones[i].hours * 60;
	return len == 4 && strncasecmp(word, "CEST", 4) == 0 ? 120 : 0;
}

static void read_word(struct date *d)
{
	const char *word = d->p;
	while (d->p < d->end && isalpha((unsigned char)*d->p))
		d->p++;
	size_t len = (size_t)(d->p - word);
	int month = find_month(word, len);
	bool weekday = d->month > 0 && d->year < 0 && d->hour < 0; /* was the one before: "mar., 17 nov." */
	if (month > 0 && (d->month < 0 || weekday))
		d->month = month;
	else if (d->hour < 0)
		return; /* a day of the week, or the T of ISO 8601 */
	else if (len == 2 && strncasecmp(word, "PM", 2) == 0)
		d->hour += d->hour < 12 ? 12 : 0;
	else if (len == 2 && strncasecmp(word, "AM", 2) == 0)
		d->hour = d->hour == 12 ? 0 : d->hour;
	else if (d->zone == 0)
		d->zone = find_zone(word, len);
}

/* --- numbers --- */

/* behind the hour: ":MM[:SS[.fraction]]", or with '.' for ':' */
static void read_time(struct date *d, int hour)
{
	int digits;
	char colon = *d->p++;
	d->hour = hour;
	d->minute = read_number(d, &digits);
	if (d->p < d->end && *d->p == colon && digit_at(d, d->p + 1)) {
		d->p++;
		d->second = read_number(d, &digits);
	}
	if (d->p < d->end && *d->p == '.')
		for (d->p++; digit_at(d, d->p); d->p++)
			;
}

/* +HHMM, +HH:MM or +HH */
static void read_zone(struct date *d, bool west)
{
	int digits, more = 0, value = read_number(d, &digits), minutes = 0;
	if (digits <= 2 && d->p < d->end && *d->p == ':' && digit_at(d, d->p + 1)) {
		d->p++;
		minutes = read_number(d, &more);
	} else if (digits > 2) {
		minutes = value % 100;
		value /= 100;
	}
	if (value < 24 && minutes < 60)
		d->zone = (west ? -1 : 1) * (value * 60 + minutes);
}

/* YYYY-MM-DD behind the year */
static bool read_iso_day(struct date *d)
{
	const char *p = d->p;
	if (d->end - p < 6 || p[0] != '-' || !digit_at(d, p + 1) || !digit_at(d, p + 2) || p[3] != '-' ||
	    !digit_at(d, p + 4) || !digit_at(d, p + 5))
		return false;
	d->month = (p[1] - '0') * 10 + (p[2] - '0');
	d->day = (p[4] - '0') * 10 + (p[5] - '0');
	d->p += 6;
	return true;
}

static int full_year(int year, int digits)
{
	if (digits == 2)
		return year + (year < 50 ? 2000 : 1900);
	return digits == 3 ? year + 1900 : year;
}

static void read_digits(struct date *d)
{
	int digits, value = read_number(d, &digits);
	bool dotted = d->day >= 0 && d->month >= 0 && d->year >= 0 && d->p < d->end && *d->p == '.';
	if (d->hour < 0 && d->p < d->end && (*d->p == ':' || dotted) && digit_at(d, d->p + 1))
		read_time(d, value);
	else if (digits == 4 && d->year < 0 && d->day < 0 && read_iso_day(d))
		d->year = value;
	else if (d->day < 0 && digits <= 2)
		d->day = value;
	else if (d->year < 0 && digits >= 2)
		d->year = full_year(value, digits);
}

static void read_all(struct date *d)
{
	while (d->p < d->end && !d->bad) {
		char c = *d->p;
		if (c == '(') {
			skip_comment(d);
		} else if ((c == '+' || c == '-') && d->hour >= 0 && digit_at(d, d->p + 1)) {
			d->p++;
			read_zone(d, c == '-');
		} else if (digit_at(d, d->p)) {
			read_digits(d);
		} else if (isalpha((unsigned char)c)) {
			read_word(d);
		} else {
			d->p++;
		}
	}
}

/* --- the calendar --- */

/* GLib's days: gmtime_r(3) and timegm(3) know of time zones, too, and take a lock for them that all threads share. */
#define JULIAN_EPOCH 719163 /* 1970-01-01, as GDate counts */

static int64_t day_of(int year, int month, int day)
{
	GDate date;
	g_date_clear(&date, 1);
	g_date_set_dmy(&date, (GDateDay)day, (GDateMonth)month, (GDateYear)year);
	return (int64_t)g_date_get_julian(&date) - JULIAN_EPOCH;
}

static bool is_possible(const struct date *d)
{
	return !d->bad && d->year >= 1969 && d->year <= 2100 && d->month >= 1 && d->month <= 12 && d->day >= 1 && d->day <= 31 &&
	       g_date_valid_dmy((GDateDay)d->day, (GDateMonth)d->month, (GDateYear)d->year) && d->hour < 24 && d->minute < 60 && d->second <= 60;
}

bool mail_date_parse(const char *s, size_t len, int64_t *ret)
{
	struct date d = { .p = s, .end = s + (len < 256 ? len : 256), .year = -1, .month = -1, .day = -1, .hour = -1 };
	read_all(&d);
	if (!is_possible(&d))
		return false;
	int64_t minutes = (int64_t)(d.hour < 0 ? 0 : d.hour) * 60 + d.minute - d.zone;
	int64_t t = day_of(d.year, d.month, d.day) * 86400 + minutes * 60 + (d.second < 60 ? d.second : 59);
	if (t < 0 || t >= MAIL_DATE_END)
		return false;
	*ret = t;
	return true;
}

void mail_date_format_day(int64_t t, char ret[static 11])
{
	if (t < 0)
		t = 0;
	if (t >= MAIL_DATE_END)
		t = MAIL_DATE_END - 1;
	GDate date;
	g_date_clear(&date, 1);
	g_date_set_julian(&date, (guint32)(t / 86400 + JULIAN_EPOCH));
	int year = g_date_get_year(&date), month = (int)g_date_get_month(&date), day = g_date_get_day(&date);
	const int digits[] = { year / 1000, year / 100 % 10, year / 10 % 10, year % 10, -1, month / 10, month % 10, -1, day / 10, day % 10 };
	for (int i = 0; i < 10; i++)
		ret[i] = digits[i] < 0 ? '-' : (char)('0' + digits[i]);
	ret[10] = '\0';
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What providers need to read their URIs: the query (KEY=VALUE&...), sizes,
 * durations, %XX. Providers are loaded by themselves and share no code with the
 * runtime, hence a header. Everything works on a copy that the caller owns.
 */
#ifndef EMF_PROVIDER_URI_H
#define EMF_PROVIDER_URI_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Takes the next KEY=VALUE off *query. False: no more. Without '=' value is "". */
static inline bool uri_query_next(char **query, char **key, char **value)
{
	char *at;

	do {
		at = strsep(query, "&");
		if (!at)
			return false;
	} while (!*at);
	*key = strsep(&at, "=");
	*value = at ? at : *key + strlen(*key);
	return true;
}

/* A number with a fraction, times what its suffix says. */
static inline bool uri_scaled(const char *text, uint64_t (*scale)(const char *suffix),
			      uint64_t *out)
{
	char *end;
	uint64_t unit;
	double v;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	v = strtod(text, &end);
	unit = scale(end);
	if (errno || !unit || v < 0 || v * (double)unit >= 9.2e18)
		return false;
	/* Whole numbers stay exact above 2^53. */
	*out = v < 4e15 && v == (double)(uint64_t)v ? (uint64_t)v * unit
						    : (uint64_t)(v * (double)unit);
	return true;
}

static inline uint64_t uri_size_unit(const char *suffix)
{
	static const char letters[] = "KMGTPE";
	const char *at = *suffix ? strchr(letters, *suffix & ~0x20) : NULL;
	uint64_t unit = at ? 1ull << 10 * (at - letters + 1) : 1;

	if (at)
		suffix++;
	if (at && suffix[0] == 'i')
		suffix++;
	if (suffix[0] == 'B')
		suffix++;
	return *suffix ? 0 : unit;
}

static inline uint64_t uri_time_unit(const char *suffix)
{
	return !strcmp(suffix, "ns")   ? 1ull
	       : !strcmp(suffix, "us") ? 1000ull
	       : !strcmp(suffix, "ms") ? 1000000ull
	       : !strcmp(suffix, "s")  ? 1000000000ull
				       : 0;
}

/* "64K", "2G", "1.5G", "4096": bytes. */
static inline bool uri_size(const char *text, uint64_t *out)
{
	return uri_scaled(text, uri_size_unit, out);
}

/* "300ns", "3us", "0.5ms", "1s": nanoseconds. */
static inline bool uri_duration(const char *text, uint64_t *out)
{
	return uri_scaled(text, uri_time_unit, out);
}

static inline int uri_hex(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Replaces %XX in place. False: not two hexadecimal digits, or %00. */
static inline bool uri_decode(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		*to = *s;
		if (*s != '%')
			continue;
		int high = uri_hex(s[1]), low = high < 0 ? -1 : uri_hex(s[2]);
		if (low < 0 || high + low == 0)
			return false;
		*to = (char)(high << 4 | low);
		s += 2;
	}
	*to = '\0';
	return true;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "parse.h"

#include <stddef.h>
#include <string.h>

/* Digits kept behind the point: with 10^6 and 2^40 (T) the product still fits 64 bits. */
#define FRACTION_MAX 1000000u

struct decimal {
	uint64_t whole;
	uint64_t fraction; /* of scale */
	uint64_t scale;	   /* 1: no point was given */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Returns what follows the number, or NULL. */
static const char *parse_decimal(const char *p, struct decimal *d)
{
	*d = (struct decimal){ .scale = 1 };
	if (!is_digit(*p))
		return NULL;
	for (; is_digit(*p); p++) {
		if (__builtin_mul_overflow(d->whole, 10u, &d->whole) ||
		    __builtin_add_overflow(d->whole, (uint64_t)(*p - '0'), &d->whole))
			return NULL;
	}
	if (*p != '.')
		return p;
	if (!is_digit(*++p))
		return NULL;
	for (; is_digit(*p); p++) {
		if (d->scale == FRACTION_MAX)
			return NULL;
		d->fraction = d->fraction * 10 + (uint64_t)(*p - '0');
		d->scale *= 10;
	}
	return p;
}

static bool decimal_scale(const struct decimal *d, uint64_t unit, uint64_t *out)
{
	uint64_t v;

	if (unit == 1 && d->scale != 1)
		return false;
	if (__builtin_mul_overflow(d->whole, unit, &v) ||
	    __builtin_add_overflow(v, d->fraction * unit / d->scale, &v))
		return false;
	*out = v;
	return true;
}

bool parse_size(const char *text, uint64_t *out)
{
	static const char units[] = "kKmMgGtT";
	struct decimal d;
	const char *p = parse_decimal(text, &d);
	uint64_t unit = 1;

	if (!p)
		return false;
	const char *u = *p ? strchr(units, *p) : NULL;
	if (u) {
		unit = 1ull << (10 * ((u - units) / 2 + 1));
		p++;
		if (*p == 'i' && p[1] == 'B')
			p++;
	}
	if (*p == 'B')
		p++;
	return !*p && decimal_scale(&d, unit, out);
}

bool parse_uint(const char *text, uint64_t *out)
{
	struct decimal d;
	const char *p = parse_decimal(text, &d);

	return p && !*p && decimal_scale(&d, 1, out);
}

bool parse_percent(const char *text, unsigned *out)
{
	struct decimal d;
	const char *p = parse_decimal(text, &d);

	if (p && *p == '%')
		p++;
	if (!p || *p || d.scale != 1 || d.whole > 100)
		return false;
	*out = (unsigned)d.whole;
	return true;
}

bool parse_duration(const char *text, unsigned *out)
{
	struct decimal d;
	const char *p = parse_decimal(text, &d);
	uint64_t unit, ms;

	if (!p)
		return false;
	if (!strcmp(p, "ms"))
		unit = 1;
	else if (!strcmp(p, "s"))
		unit = 1000;
	else if (!strcmp(p, "m"))
		unit = 60000;
	else
		return false;
	if (!decimal_scale(&d, unit, &ms) || ms > UINT32_MAX)
		return false;
	*out = (unsigned)ms;
	return true;
}

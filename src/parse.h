/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers as a person writes them in a setting. The whole text must be the value:
 * no blanks, no sign, no junk behind it; what overflows is refused. True and a
 * value in *out, or false and *out untouched. No locale, no allocation; any thread.
 */
#ifndef EMF_PARSE_H
#define EMF_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* "64K", "2G", "1.5G", "4096" (binary units K M G T in either case; optional B/iB suffix). */
bool parse_size(const char *text, uint64_t *out);

/* "17" */
bool parse_uint(const char *text, uint64_t *out);

/* "97" or "97%": 0..100 */
bool parse_percent(const char *text, unsigned *out);

/* "10s", "500ms", "1.5s", "2m", in milliseconds; a number without a unit is refused. */
bool parse_duration(const char *text, unsigned *out);

#endif

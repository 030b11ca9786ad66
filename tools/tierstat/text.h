/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and words as a person reads them. Functions that take `out` fill and return it; 16
 * characters are enough for every number.
 */
#ifndef TIERSTAT_TEXT_H
#define TIERSTAT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "emfatier-stats.h"

#define TEXT_NUMBER 24

/* At most 5 characters: 0, 940, 1.5K, 64K, 31.2M, 1023G. In bytes where text_exact was set. */
const char *text_size(uint64_t bytes, char *out);
const char *text_count(uint64_t n, char *out);
/* "80us", "950ms", "12.3s", "41m", "3.2h" of time. */
const char *text_time(uint64_t ns, char *out);
/* What does not belong on a terminal replaced, cut to fit. */
const char *text_printable(const char *text, char *out, size_t len);
const char *text_mode(uint32_t mode);
const char *text_store_state(uint32_t state);
/* The worst of all stores. */
const char *text_stores(const struct emf_stats *s);

/* Sizes are printed as they are, not for people (-b). */
extern bool text_exact;

/* Is standard output a terminal that may have colours? NO_COLOR forbids. */
bool text_colour(void);
/* Does it understand UTF-8? */
bool text_utf8(void);

#endif

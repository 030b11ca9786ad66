/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The columns of the list and of -o: one table of what there is. A choice is an array of
 * indices into it that ends with -1.
 */
#ifndef TIERSTAT_COLUMNS_H
#define TIERSTAT_COLUMNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "emfatier-stats.h"

#define COLUMNS_MAX 48

/* The list's own. */
extern const int columns_default[];

/* "pid,local,far": false: *wrong (len bytes) holds the name that there is not. */
bool columns_parse(const char *text, int *choice, char *wrong, size_t len);
/* A line for each column there is, for --help. */
void columns_describe(FILE *out);

void columns_header(const int *choice);
/*
 * before: NULL, and counters are those since the start; else they are rates a second over
 * `interval` seconds.
 */
void columns_line(const int *choice, const struct emf_stats *s, const struct emf_stats *before,
		  double interval);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to write a snapshot to standard output: a line of rates (100 columns), JSON. */
#ifndef TIERSTAT_SHOW_H
#define TIERSTAT_SHOW_H

#include "emfatier-stats.h"

/* first: a word over a column in front, or NULL. */
void show_rates_header(const char *first);
/* before: what the counters are compared with, `seconds` ago. */
void show_rates_line(const struct emf_stats *s, const struct emf_stats *before, double seconds);

/* One object; indent: the column it starts in. */
void show_json(const struct emf_stats *s, unsigned indent);

/*
 * The value in ns below which `share` (0..1) of what the histogram saw lies: the
 * upper edge of its bucket, at most max. 0: it saw nothing.
 */
uint64_t hist_quantile(const struct emf_hist *h, double share);
uint64_t hist_total(const struct emf_hist *h);
/* What h saw since `before`; the maximum is the upper edge of the highest bucket. */
void hist_since(const struct emf_hist *h, const struct emf_hist *before, struct emf_hist *out);

/* A string of JSON, whatever bytes text has. */
void json_string(const char *text);

#endif

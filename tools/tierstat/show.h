/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three ways to write a snapshot: a line of the list, a line of rates, JSON.
 * Tables fit 100 columns; everything goes to stdout.
 */
#ifndef TIERSTAT_SHOW_H
#define TIERSTAT_SHOW_H

#include "emfatier-stats.h"

void show_list_header(void);
void show_list_line(const struct emf_stats *s);

void show_rates_header(void);
/* before: what the counters are compared with, `seconds` ago. */
void show_rates_line(const struct emf_stats *s, const struct emf_stats *before, double seconds);

/* One object; indent: the column it starts in. */
void show_json(const struct emf_stats *s, unsigned indent);

/*
 * The value in ns below which `share` (0..1) of what the histogram saw lies: the
 * upper edge of its bucket, at most max. 0: it saw nothing.
 */
uint64_t hist_quantile(const struct emf_hist *h, double share);

#endif

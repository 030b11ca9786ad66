/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics of all processes that opt chooses, in Prometheus' text format 0.0.4. */
#ifndef TIERSTAT_METRICS_H
#define TIERSTAT_METRICS_H

#include <stdio.h>

struct options;

/* Returns the exit status. */
int metrics_write(const struct options *opt, FILE *out);

#endif

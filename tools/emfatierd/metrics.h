/* SPDX-License-Identifier: Apache-2.0 */
/* The server's state in Prometheus' text format. */
#ifndef EMFATIERD_METRICS_H
#define EMFATIERD_METRICS_H

#include <stdio.h>

#include "session.h"

void metrics_print(const struct desk *d, FILE *f);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that counts: bytes, errors, read latency and state of one leaf go to
 * its part of the statistics segment. Stays on top of a leaf, below the stripe.
 */
#ifndef EMF_COUNT_H
#define EMF_COUNT_H

#include "emfatier-provider.h"
#include "emfatier-stats.h"

/* `stats` must outlive the link. 0 or -ENOMEM. */
int count_open(struct emf_backend *next, struct emf_store_stats *stats, struct emf_backend **out);
/* In the child of a fork: from now on it counts there, from zero. */
void count_forked(struct emf_backend *be, struct emf_store_stats *stats);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer's side of the statistics segment (include/emfatier-stats.h).
 */
#ifndef EMF_STATS_WRITER_H
#define EMF_STATS_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "emfatier-stats.h"

/* A segment that nobody reads: where there is none yet, or none can be had. */
struct emf_stats *stats_none(void);
/* Makes RUN_DIR/PID.stats and sets engine.stats; keeps stats_none on any error. Once a process. */
void stats_open(const char *command, uint64_t limit);
/* The map behind the segment (not populated before it is wanted), or NULL. */
struct emf_map *stats_map(void);
/* Removes the file: the process ends. */
void stats_remove(void);

/* The process's name, as in /proc/self/comm. */
void stats_command(char *out, size_t len);
int stats_run_dir(char *out, size_t len);

static inline void hist_add(struct emf_hist *h, uint64_t ns)
{
	atomic_fetch_add_explicit(&h->bucket[emf_hist_bucket(ns)], 1, memory_order_relaxed);
	uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
	while (ns > max && !atomic_compare_exchange_weak_explicit(
			       &h->max, &max, ns, memory_order_relaxed, memory_order_relaxed))
		;
}

#endif

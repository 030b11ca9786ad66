/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How short memory is just now, for this process: what its control groups and the host have
 * left, and how long tasks waited for memory. For local.limit=auto. Raw file reads, no
 * allocation, no stdio but snprintf; by one thread.
 */
#ifndef EMF_PRESSURE_H
#define EMF_PRESSURE_H

#include <stdint.h>

struct memory_sample {
	uint64_t total;	   /* what the process may use: the host's memory, or its group's limit */
	uint64_t room;	   /* that can still be had without anybody's memory being taken */
	uint64_t rss;	   /* of the process, all of it */
	uint64_t stall_us; /* counts: some task waited for memory (PSI); UINT64_MAX: not known */
};

/* root: put before /proc and /sys, for tests; else "". */
void pressure_read(const char *root, struct memory_sample *out);

#endif

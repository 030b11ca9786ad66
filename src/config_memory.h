/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much memory this process may use: the host's, and the tightest memory limit
 * of its control groups (v2 memory.max, v1 memory.limit_in_bytes). Raw file reads,
 * no allocation, no stdio; any thread.
 */
#ifndef EMF_CONFIG_MEMORY_H
#define EMF_CONFIG_MEMORY_H

#include <stdint.h>

struct memory_limit {
	uint64_t host;	 /* MemTotal */
	uint64_t cgroup; /* UINT64_MAX: none that binds */
};

/* root: put before /proc and /sys, for tests; else "". Cannot fail. */
void memory_limit_read(const char *root, struct memory_limit *out);

#endif

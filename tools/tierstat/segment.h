/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the statistics segments of running processes (include/emfatier-stats.h)
 * without stopping them. Nothing in a segment is trusted before it was checked:
 * the file may be half written, of another version, or left over by a dead process
 * whose PID now is another's. Leftovers are removed where that is allowed.
 */
#ifndef TIERSTAT_SEGMENT_H
#define TIERSTAT_SEGMENT_H

#include <stddef.h>
#include <sys/types.h>

#include "emfatier-stats.h"

/*
 * Copies the segment of pid into *out; strings are terminated and counts are in
 * bounds. 0, or -errno: -ESRCH no such managed process (also: a leftover),
 * -EAGAIN it is just starting, -EPROTO written by another version.
 */
int segment_read(const char *dir, pid_t pid, struct emf_stats *out);

/*
 * The map of its blocks, no older than when it was asked for: waits up to `patience` seconds.
 * As segment_read; -ENODATA: nothing moves yet (or the process does not answer).
 */
int segment_map(const char *dir, pid_t pid, double patience, struct emf_map *out);

/* The PIDs that have a file in dir, ascending; *pids is the caller's to free. Count or -errno. */
int segment_list(const char *dir, pid_t **pids);

/* When the process started: field 22 of /proc/PID/stat; 0: there is no such process. */
uint64_t segment_start_time(pid_t pid);

/* Seconds since the process started, at least 0.001. */
double segment_uptime(const struct emf_stats *s);

/* Is one of its stores down, or does it lack what can't be made good? */
int segment_degraded(const struct emf_stats *s);

#endif

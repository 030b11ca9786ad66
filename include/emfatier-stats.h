/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics segment: EMFATIER_RUN_DIR/PID.stats, written by the runtime,
 * mapped read-only by tierstat. One process writes, any number read, and nobody
 * waits: every counter is a 64-bit word that is read whole (relaxed atomics); a
 * reader may see one counter a little older than another.
 *
 * A reader checks magic, version and size, then that the process still lives
 * and started at `start_time` (field 22 of /proc/PID/stat, clock ticks since
 * boot); otherwise the file is a leftover and may be unlinked.
 */
#ifndef EMFATIER_STATS_H
#define EMFATIER_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#define EMF_STATS_MAGIC 0x656d666174696572ull /* "emfatier" */
#define EMF_STATS_VERSION 1u
#define EMF_STATS_STORES 16
#define EMF_STATS_BUCKETS 256 /* see emf_hist_* */

typedef _Atomic uint64_t emf_stat;

/*
 * Latency histogram in nanoseconds, log-linear as in HdrHistogram: bucket i < 8
 * holds the value i; above, 8 buckets for every power of two (error <= 12.5%).
 */
struct emf_hist {
	emf_stat bucket[EMF_STATS_BUCKETS];
	emf_stat max;
};

static inline unsigned emf_hist_bucket(uint64_t ns)
{
	if (ns < 8)
		return (unsigned)ns;
	unsigned e = 63u - (unsigned)__builtin_clzll(ns); /* 2^e <= ns, e >= 3 */
	unsigned i = (e - 2u) * 8u + (unsigned)((ns >> (e - 3u)) & 7u);
	return i < EMF_STATS_BUCKETS ? i : EMF_STATS_BUCKETS - 1;
}

/* The smallest value that falls into bucket i. */
static inline uint64_t emf_hist_floor(unsigned i)
{
	return i < 8 ? i : (uint64_t)(8u + i % 8u) << (i / 8u - 1u);
}

enum emf_uffd_mode {
	EMF_MODE_IDLE,	    /* everything fits: nothing is registered yet */
	EMF_MODE_THREAD,    /* faults are resolved by the fault thread */
	EMF_MODE_UNMANAGED, /* could not start: the log says why */
};

enum emf_store_state {
	EMF_STORE_OK,
	EMF_STORE_FULL,
	EMF_STORE_DOWN,
	EMF_STORE_REBUILDING, /* answers; what it lacks is being made good */
	EMF_STORE_DEGRADED,   /* answers; what it lacks can't be made good now */
};

struct emf_store_stats {
	char uri[232]; /* without secrets, 0-terminated */
	_Atomic uint32_t state;
	uint32_t pad;
	emf_stat used_bytes;
	emf_stat read_bytes;
	emf_stat written_bytes;
	emf_stat errors;
	emf_stat rebuild_bytes; /* that it lacks still */
	struct emf_hist read_latency;
};

struct emf_stats {
	uint64_t magic;
	uint32_t version;
	uint32_t size; /* of this struct */
	uint64_t start_time;
	uint32_t pid;
	_Atomic uint32_t mode; /* enum emf_uffd_mode */
	_Atomic uint32_t move; /* 1: frames circulate by UFFDIO_MOVE, 0: copies */
	_Atomic uint32_t nstores;
	char command[64];

	/* gauges, bytes */
	emf_stat local_limit;
	emf_stat local_bytes; /* resident managed blocks, frames, standby */
	emf_stat peak_local_bytes;
	emf_stat far_bytes; /* held in the store and not local */
	emf_stat managed_bytes;
	emf_stat regions;
	emf_stat free_frame_bytes; /* part of local_bytes: ready for the next fetch */
	emf_stat standby_bytes;	   /* part of local_bytes: unmapped, not reused yet */

	/* counters */
	emf_stat faults_demand;	 /* waited for the store */
	emf_stat faults_standby; /* found in a frame */
	emf_stat faults_write_protect;
	emf_stat faults_zero;
	emf_stat fetched_bytes;
	emf_stat written_bytes;
	emf_stat dropped_clean_bytes;
	emf_stat dropped_zero_bytes; /* evicted blocks that were all zero: no far memory */
	emf_stat evicted_blocks;
	emf_stat prefetch_issued; /* blocks */
	emf_stat prefetch_useful;
	emf_stat prefetch_wasted;
	emf_stat stall_ns; /* sum over all faults: from reading the event to waking the thread */
	emf_stat lost_bytes; /* could not be fetched; touching them raises SIGBUS */
	emf_stat overruns;   /* times the budget had to be exceeded */

	struct emf_hist fault_latency;
	struct emf_store_stats store[EMF_STATS_STORES];
};

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics segment: EMFATIER_RUN_DIR/PID.stats, written by the runtime,
 * mapped by tierstat. One process writes, any number read, and nobody
 * waits: every counter is a 64-bit word that is read whole (relaxed atomics); a
 * reader may see one counter a little older than another. One word is the readers':
 * map_wanted, by which they ask for the map that follows in the file.
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
#define EMF_STATS_VERSION 6u
#define EMF_STATS_STORES 16
#define EMF_STATS_BUCKETS 256 /* see emf_hist_* */
#define EMF_STATS_HISTORY 300 /* samples, a second apart while the runtime is active */

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
	EMF_MODE_SIGNAL,    /* the same as THREAD, but by the thread that touches */
};
static inline int emf_mode_active(uint32_t mode)
{
	return mode == EMF_MODE_THREAD || mode == EMF_MODE_SIGNAL;
}

enum emf_store_state {
	EMF_STORE_OK,
	EMF_STORE_FULL,
	EMF_STORE_DOWN,
	EMF_STORE_REBUILDING, /* answers; what it lacks is being made good */
	EMF_STORE_DEGRADED,   /* answers; what it lacks can't be made good now */
	EMF_STORE_DRAINING,   /* what it has is on its way to the others */
	EMF_STORE_DRAINED,    /* has nothing any more, and is left */
};

struct emf_store_stats {
	char uri[232]; /* without secrets, 0-terminated */
	_Atomic uint32_t state;
	uint32_t tier; /* from 1; 0: store.uri has no tiers */
	emf_stat used_bytes;
	emf_stat read_bytes;
	emf_stat written_bytes;
	emf_stat errors;
	emf_stat inflight;	/* reads and writes under way */
	emf_stat busy_ns;	/* time in which there were any, but for the one that lasts */
	emf_stat busy_since;	/* CLOCK_MONOTONIC ns: when that began */
	emf_stat rebuild_bytes; /* that it lacks still, or is to give away */
	emf_stat looked_bytes;	/* read by nobody but the patrol, to see whether they are right */
	emf_stat mended_bytes;	/* that were not, where nobody knew, and have been made good */
	/* Of the tier, the same for all its stores: */
	emf_stat hits;		    /* reads that it served */
	emf_stat promoted, demoted; /* blocks that came into it from below, from above */
	struct emf_hist read_latency;
};

/* What was a second ago, two seconds ago, ...: for plots, without having been there. */
struct emf_sample {
	emf_stat time_ns; /* CLOCK_MONOTONIC */
	emf_stat local_limit, local_bytes, far_bytes;
	emf_stat fetched_bytes, written_bytes, stall_ns;
	emf_stat faults_demand, faults_standby, prefetch_useful;
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
	emf_stat stall_ns;   /* sum over all faults: from reading the event to waking the thread */
	emf_stat lost_bytes; /* could not be fetched; touching them raises SIGBUS */
	emf_stat overruns;   /* times the budget had to be exceeded */
	emf_stat faults_starved; /* found no frame to be served with, and waited for one */
	emf_stat touches;	 /* faults on blocks that were far, or are fetched ahead */
	emf_stat touches_near; /* of these, near one of the last four: a sweep, not random access */

	emf_stat stuck_bytes; /* gauge: local, and refused to move (pinned, shared) */
	emf_stat map_wanted;  /* written by readers: CLOCK_MONOTONIC ns of when one asked last */
	emf_stat map_offset;  /* where in this file struct emf_map is; 0: there is none */

	emf_stat placed_bytes;	/* gauge: pages of a slow node, in place or free (store.in_place) */
	emf_stat placed_blocks; /* copied there */
	emf_stat promoted_blocks; /* and back to local memory, as they were used */

	struct emf_hist fault_latency;
	struct emf_hist standby_latency; /* of these, faults that found their block in a frame */
	struct emf_store_stats store[EMF_STATS_STORES];

	emf_stat history_count; /* sample i is at history[i % EMF_STATS_HISTORY] */
	struct emf_sample history[EMF_STATS_HISTORY];
};

/*
 * The map: regions and what becomes of their blocks. Written at most four times a second,
 * and only while somebody asked within the last EMF_MAP_ATTENTION_NS; else its pages do not
 * even exist. `sequence` is odd while it is written: a reader that saw an odd one, or another
 * one afterwards, reads again. What has no room in the tables is in the totals only.
 */
#define EMF_MAP_REGIONS 1024
#define EMF_MAP_CELLS 65536
#define EMF_MAP_ATTENTION_NS 3000000000ull

/* The low half of a cell. Of several blocks: the one that most of them are in. */
enum emf_cell {
	EMF_CELL_EMPTY, /* never touched, or given back: all zero */
	EMF_CELL_LOCAL,
	EMF_CELL_STANDBY, /* in a frame: evicted, or fetched ahead, a moment ago */
	EMF_CELL_MOVING,  /* a transfer is under way */
	EMF_CELL_FAR,
	EMF_CELL_LOST,
	EMF_CELL_KEPT,	 /* locked, secret or registered for DMA: never moved */
	EMF_CELL_PLACED, /* mapped, with memory of a slow node (store.in_place) */
	EMF_CELL_STATES,
};

/*
 * The high half: how long ago it was seen in use. 15: within an eighth of a second; each
 * step down doubles that; 0: never, or half an hour ago. Use of what is local is not seen but
 * when it comes back, is written first, or is probed.
 */
static inline unsigned emf_heat(uint64_t age_ns)
{
	uint64_t eighths = age_ns / 125000000u;
	unsigned log = eighths ? 64u - (unsigned)__builtin_clzll(eighths) : 0;

	return log < 15 ? 15 - log : 0;
}

struct emf_map_region {
	uint64_t start, length;
	uint64_t local_bytes, standby_bytes, placed_bytes, far_bytes, lost_bytes;
	uint32_t first_cell, cells; /* cells 0: no room for them */
	uint32_t registered, kept;  /* kept: 1 locked, 2 secret, 4 for a device, 8 for good */
	char class[32];
};

struct emf_map {
	emf_stat sequence;
	uint64_t written_at; /* CLOCK_MONOTONIC ns; 0: never */
	uint64_t kept_bytes;
	uint32_t block_bytes, blocks_per_cell;
	uint32_t nregions, regions_total; /* in the table, and in all */
	uint32_t ncells, pad;
	struct emf_map_region region[EMF_MAP_REGIONS];
	uint8_t cell[EMF_MAP_CELLS];
};

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link that keeps slots on tiers, the fastest first: its space has the slots of all
 * tiers together, and where a slot lies is in a table.
 *
 * A write goes to the first tier that has room and works. The store's thread (hierarchy_work)
 * moves slots between tiers, at most `rate` bytes a second: down a tier, the least used first,
 * when a tier is fuller than its high mark, until it is at its low mark; and up, straight
 * to the first tier where it is used more than what lies there. Use is counted by reads, with
 * decay. Two slots change places only when their counts differ by more than chance
 * explains, by so much more the more often they were moved: they never go to and fro.
 *
 * What is moved is verified by the checksum link above. Transfers lie within one slot; a write
 * replaces the slot. Threads: as in emfatier-provider.h. Processes don't share it: the table
 * is private memory.
 */
#ifndef EMF_HIERARCHY_H
#define EMF_HIERARCHY_H

#include "emfatier-provider.h"
#include "emfatier-stats.h"
#include "store.h"

struct hierarchy_tier {
	struct emf_backend *be;
	uint64_t capacity;	       /* bytes; 0: what `be` has */
	unsigned high, low;	       /* marks, percent of the capacity */
	struct emf_store_stats *stats; /* of its first store, or NULL */
	unsigned nstats;
};

/* -ENOSPC: a tier without room for one slot. */
int hierarchy_open(const struct hierarchy_tier *tier, unsigned n, unsigned timeout_ms,
		   uint64_t rate, struct emf_backend **out);
/* The checksum link above, before the first queue is opened. */
void hierarchy_set_sums(struct emf_backend *be, struct emf_backend *sums);

/* By the store's thread: does a little; returns when to come again (ns). */
uint64_t hierarchy_work(struct emf_backend *be, uint64_t now);
/* Where a slot lies; -1: nowhere. */
int hierarchy_tier_of(const struct emf_backend *be, uint64_t slot);

#endif

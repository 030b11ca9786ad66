/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replays a tour under a policy: the policies are those of src/policy, told what the engine
 * would tell them (nothing of touches of what is mapped) and asked when it would ask; pages,
 * frames and links are only counted. One replay at a time: the policies have one
 * state. Deterministic.
 */
#ifndef EMF_REPLAY_H
#define EMF_REPLAY_H

#include "config.h"
#include "tour.h"

struct replay {
	/* what to do */
	enum emf_evict evict;
	enum emf_prefetch prefetch;
	size_t capacity; /* blocks that may be local, as policy_init is told */
	double link;	 /* blocks that arrive while the program is on one; 0: 0.8, of one link */

	/* what came of it */
	uint64_t touches; /* but for the first of each block */
	uint64_t fetched; /* blocks; hits are the touches that needed none */
	uint64_t demand;  /* of these, not asked for before the program came */
	uint64_t issued, useful, wasted;
	uint64_t looks, looks_hit; /* put under watch; touched there */
	double time;		    /* of the program, in blocks' worth of its own work */
	unsigned *series;	    /* fetched between marks, or NULL */
};

void replay_run(struct replay *r, const struct tour *t);
double replay_hit_rate(const struct replay *r);
/* The same touches under Belady's optimum and an exact LRU: blocks fetched. */
uint64_t replay_optimum(const struct tour *t, size_t capacity, unsigned *series);
uint64_t replay_lru(const struct tour *t, size_t capacity);

#endif

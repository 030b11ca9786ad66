/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grain of far memory: does a fault on a far block fetch all of it, or the cluster of 64 KiB
 * alone? Whole blocks are for what is swept, and what the policies know of; clusters for what is
 * hit here and there, where 2 MiB would be moved for every few bytes that are needed.
 *
 * A class may say it (granule). Else it is seen, per region: where faults jump about, some fetch
 * a cluster, as a question. When a neighbour follows soon the block is fetched as a whole, and
 * the region counts as dense; when none does until some more such questions have been put, as
 * sparse. A block of which most has come is completed, too.
 *
 * A question is not free: where a cluster was there is a page table, which splits the huge page
 * that comes there next (block.c, look_for_split), until that was mended. So they become rare where
 * they prove needless.
 *
 * Clusters that are in place are clean and protected. They may take up to a quarter of the
 * budget, in order of their blocks' first. All under engine.lock.
 */
#ifndef EMF_SPARSE_H
#define EMF_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"

/* Is that what a read of addr in a FAR block should fetch? Each call is a fault that was seen. */
bool sparse_wants(struct block *b, uintptr_t addr);
/* A thread waits for the block, or found it fetched ahead. */
void sparse_touched(const struct block *b);
/* Makes room in the budget for a cluster: at the cost of others, or of free frames. */
bool sparse_room(void);

/* The block was moved in memory. */
void sparse_moved(struct block *b);
/* The block has clusters, and no list has it: it may be given up from now on. */
void sparse_rest(struct block *b);
/* It has none any more. */
void sparse_gone(struct block *b);

/* Do they take more than their share? */
bool sparse_over(void);
/* Gives up those of one block. What of them can't leave will do so as a block. False: not now. */
bool sparse_drop(struct block *b);
/* The same for the block that had its first the longest ago; false: there is none. */
bool sparse_evict(void);
/* In the child of a fork. */
void sparse_reset(void);

#endif

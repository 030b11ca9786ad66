/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The grain of far memory: does a fault on a far block fetch all of it, the cluster of 64 KiB, or
 * the page alone? Whole blocks are for what is swept, and what the policies know of; pages for what
 * is hit here and there, where 2 MiB would be moved for every few bytes that are needed.
 *
 * A class may say it (granule). Else it is seen, per region. Where faults jump about and begin no
 * sweep (none follows just behind), beside one, too, some fetch a cluster, as a question. When
 * neighbours follow, cluster by cluster, the block is fetched as a whole, and the region counts as
 * dense; when they don't until some more such questions have been put, as sparse: a few things that
 * lie together, as objects of one kind do, are no sweep, nor is what grows, whose next cluster is
 * wanted long after the last. (Where the store is byte-addressable each such jump is a question,
 * for the cluster is copied from where it lies: so what is too cold to be brought is read in place,
 * in clusters.) Then pages come, and clusters where a neighbour follows all the same; and blocks
 * where a sweep that came by blocks goes on. That another place of the block is touched says
 * nothing: another thread may go over it. A block of which most has come is completed, too, and
 * that is what tells that a sparse region has become dense.
 *
 * A question is not free: where a page was there is a page table, which splits the huge page
 * that comes there next (block_look_for_split), until that was mended. So they become rare where
 * they prove needless.
 *
 * Single pages may take up to half of the budget. The block to which none has come for the
 * longest gives up its own first: those that equal the slot are dropped; of one that was written
 * to the rest is read, and it leaves as a whole (mover.c, gather). So a write costs a part of two
 * transfers of 2 MiB, a smaller one the more pages of a block have been written to. All under
 * engine.lock.
 */
#ifndef EMF_SPARSE_H
#define EMF_SPARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "block.h"

/*
 * How many pages an access to addr in a FAR block should fetch, of an aligned such group; 0: the
 * block. begun: that is done, so that the fault was one to learn from; there may be no room for it,
 * and then it comes again.
 */
unsigned sparse_wants(struct block *b, uintptr_t addr);
void sparse_begun(const struct block *b);
/* A thread waits for the block, or found it fetched ahead. */
void sparse_touched(const struct block *b);
/* Makes room in the budget for some: at the cost of others, or of free frames. */
bool sparse_room(uint64_t bytes);

/* If the block has pages, and no list has it, they may be given up from now on. */
void sparse_rest(struct block *b);
/* It has none any more. */
void sparse_gone(struct block *b);

/* Gives up what is more than their share, as far as it can. */
void sparse_balance(void);
/* Gives up those of one block, at once or by and by. False: not now. */
bool sparse_drop(struct block *b);
/* The same for that to which none has come for the longest; false: there is none, or not now. */
bool sparse_evict(void);
/* In the child of a fork. */
void sparse_reset(void);

#endif

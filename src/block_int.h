/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files that make up a block's steps share: block.c (state, frame, slot), install.c (into
 * the program's memory), take.c (out of it), pages.c (single pages) and reshape.c (changes of the
 * address space, fork). All under engine.lock.
 */
#ifndef EMF_BLOCK_INT_H
#define EMF_BLOCK_INT_H

#include "block.h"
#include "kernel.h"

/* Where its 2 MiB of the region's grid begin, which may be before the block. */
uintptr_t block_grid_start(const struct block *b);

/* Also counts it where it belongs in the statistics, and tells who waits for what is in flight. */
void block_set_state(struct block *b, enum block_state s);

/* Its pages are the program's: they count for where they lie (placed). */
void block_count(const struct block *b);
/* They are no longer. */
void block_uncount(struct block *b);

void block_hold_frame(struct block *b, uint32_t f);
/* Nothing is in the frame any more. */
void block_vacate_frame(struct block *b);
/* The frame's content is not needed any more. */
void block_put_frame(struct block *b, bool zeroed);
/*
 * MOVE splits a huge page whose target has a page table, be it empty, and leaves one where it took
 * the page from (mm/userfaultfd.c, move_pages). So one split block would in time split all
 * others, frame by frame: a frame that has a page table is released, and the table with it,
 * before it is used again. found: of the block, in the frame or just moved out of it.
 */
void block_look_for_split(const struct block *b, uint32_t f, const struct presence *found);

void block_put_slot(struct block *b);
/* If it was fetched ahead, that was for nothing. */
void block_forgo(struct block *b);

void block_close_holes(struct block *b);
/* The frame has the content: zeroes what was discarded meanwhile. apply: that is in order now. */
void block_zero_holes(struct block *b);
void block_apply_holes(struct block *b);

/* It is LOCAL now. */
void block_arrived(struct block *b, enum arrival how);

/* So many of its pages are in place; forget: they count as newer from now on, or are gone. */
void pages_set(struct block *b, unsigned n);
void pages_forget(struct block *b);
/*
 * The frame has what the slot held, and the holes: what is newer in place comes on top of that.
 * False: it would not all leave, and what is left is stray.
 */
bool pages_gather(struct block *b);

#endif
